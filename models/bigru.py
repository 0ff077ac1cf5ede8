"""A truly bidirectional GRU; both directions of the released one run forward in time (models.gru).

In each layer one GRU reads the clip forward and one backward, and their outputs are concatenated. Features depend on the
whole clip: they are not causal. The default clip feature is the final output of each direction: the last frame's of the
forward half, the first frame's of the backward half."""

import torch
from torch import Tensor, nn

from models.backbone import Backbone
from models.recurrent import ForwardGRU


class BidirectionalGRU(Backbone):
    """(N, T, F) -> frame features (N, T, D), D = 2 * hidden_size: the forward half, then the backward half."""

    def __init__(self, input_size: int, hidden_size: int = 1024, num_layers: int = 3):
        super().__init__()
        widths = [input_size] + [2 * hidden_size] * (num_layers - 1)
        self.onward = nn.ModuleList(ForwardGRU(width, hidden_size, 1, directions=1) for width in widths)
        self.backward_in_time = nn.ModuleList(ForwardGRU(width, hidden_size, 1, directions=1) for width in widths)
        self.feature_size = 2 * hidden_size
        for parameter in self.parameters():
            if parameter.dim() == 2:  # as in the released GRU
                nn.init.xavier_uniform_(parameter)

    def forward(self, x: Tensor, views: int = 1, updates=None) -> Tensor:
        for forward, backward in zip(self.onward, self.backward_in_time, strict=True):
            x = torch.cat([forward(x)[0], backward(x.flip(1))[0].flip(1)], dim=-1)
        return x

    def last(self, frames: Tensor) -> Tensor:
        """(N, T, D) -> (N, D): the final output of each direction."""
        half = self.feature_size // 2
        return torch.cat([frames[:, -1, :half], frames[:, 0, half:]], dim=-1)

    def pool(self, frames: Tensor) -> Tensor:
        return self.last(frames)
