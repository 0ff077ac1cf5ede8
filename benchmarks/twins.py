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
