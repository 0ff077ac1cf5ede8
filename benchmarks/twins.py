"""Plain twins: the released way of computing, written straightforwardly, to measure and to test against."""

import torch
from torch import Tensor, nn


class FrameByFrameGRU(nn.Module):
    """The recurrent layers as the release runs them: one call of a bidirectional nn.GRU per frame, the state carried.

    Parameters are named as those of models.recurrent.ForwardGRU, so a state_dict of one loads into the other."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, directions: int = 2):
        super().__init__()
        gru = nn.GRU(input_size, hidden_size, num_layers, batch_first=True, bidirectional=directions == 2)
        self.__dict__["gru"] = gru  # not as a submodule: its parameters are shown under their own names
        for name, parameter in gru.named_parameters():
            self.register_parameter(name, parameter)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (N, T, F), state (layers*directions, N, H) or None -> outputs (N, T, directions*H), last state."""
        outputs = []
        for frame in x.split(1, dim=1):
            output, state = self.gru(frame, state)
            outputs.append(output)
        return torch.cat(outputs, dim=1), state


class NativeGRU(FrameByFrameGRU):
    """What torch offers for the same layers: its own GRU over the whole clip, one call per layer and direction."""

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As FrameByFrameGRU."""
        gru, directions, last = self.gru, 1 + self.gru.bidirectional, []
        if state is None:
            state = x.new_zeros(gru.num_layers * directions, x.shape[0], gru.hidden_size)
        for layer in range(gru.num_layers):
            outputs = []
            for suffix in ("", "_reverse")[:directions]:
                names = (f"{name}_l{layer}{suffix}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
                row = state[len(last)][None].contiguous()
                weights = [getattr(self, name) for name in names]
                output, h = torch.gru(x, row, weights, True, 1, 0.0, self.training, False, True)
                outputs.append(output)
                last.append(h)
            x = torch.cat(outputs, dim=-1)
        return x, torch.cat(last)
