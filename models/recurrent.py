"""Recurrent layers whose two "directions" both run forward in time.

The released code calls a bidirectional `nn.GRU` on one frame at a time and carries the state. A sequence of one frame
is the same in both directions, so the `_reverse` weights see time forward too: a layer is two independent GRUs side by
side, and the feature of frame t depends on the frames up to t only. A bidirectional call on the whole clip is another
model, and published weights would be wrong in it. Parameter names and their order are those of `nn.GRU`."""

import math

import torch
from torch import Tensor, nn


class ForwardGRU(nn.Module):
    """A stack of GRU layers, each of one or two forward-running GRUs with concatenated outputs."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, directions: int = 2):
        super().__init__()
        self.input_size, self.hidden_size, self.num_layers, self.directions = (
            input_size,
            hidden_size,
            num_layers,
            directions,
        )
        self.compute_dtype = None
        bound = 1 / math.sqrt(hidden_size)
        for layer in range(num_layers):
            width = input_size if layer == 0 else directions * hidden_size
            for suffix in ("", "_reverse")[:directions]:
                for name, shape in (
                    ("weight_ih", (3 * hidden_size, width)),
                    ("weight_hh", (3 * hidden_size, hidden_size)),
                    ("bias_ih", (3 * hidden_size,)),
                    ("bias_hh", (3 * hidden_size,)),
                ):
                    value = torch.empty(shape).uniform_(-bound, bound)
                    self.register_parameter(f"{name}_l{layer}{suffix}", nn.Parameter(value))

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (N, T, F), state (layers*directions, N, H) or None -> outputs (N, T, directions*H), state after frame T."""
        if state is None:
            state = x.new_zeros(self.num_layers * self.directions, x.shape[0], self.hidden_size)
        last, row = [], 0
        for layer in range(self.num_layers):
            outputs = []
            for suffix in ("", "_reverse")[: self.directions]:
                weights = [
                    getattr(self, f"{name}_l{layer}{suffix}")
                    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                ]
                output, h = torch._VF.gru(
                    x, state[row : row + 1].contiguous(), weights, True, 1, 0.0, self.training, False, True
                )
                outputs.append(output)
                last.append(h)
                row += 1
            x = torch.cat(outputs, dim=-1)
        return x, torch.cat(last)
