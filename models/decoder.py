"""The masked-motion decoder (paper section 3.3): features of every frame -> coordinates of every frame.

Linear, BatchNorm over N and T, ReLU and Linear on each frame; then a two-layer GRU over the frames and a Linear to
V * C * M. In released files the first four are called `linear` and the rest `recons_decoder`; PCM3 keeps these names.
"""

from torch import Tensor, nn

from models.norm import RunningUpdates, ViewNorm
from models.recurrent import ForwardGRU


def frame_projection(feature_size: int, hidden_size: int) -> nn.Sequential:
    """The per-frame part: Linear, norm, ReLU, Linear."""
    return nn.Sequential(
        nn.Linear(feature_size, hidden_size), ViewNorm(hidden_size), nn.ReLU(), nn.Linear(hidden_size, hidden_size)
    )


class FrameDecoder(nn.Module):
    """The part over time: a two-layer GRU and a Linear to coordinates. (N, T, hidden) -> (N, T, F)."""

    def __init__(self, hidden_size: int, output_size: int, num_layers: int = 2):
        super().__init__()
        self.decoder = ForwardGRU(hidden_size, hidden_size, num_layers, directions=1)
        self.reconstruction = nn.Linear(hidden_size, output_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.reconstruction(self.decoder(x)[0])


def project_frames(linear: nn.Sequential, x: Tensor, views: int, updates: RunningUpdates | None) -> Tensor:
    """Applies `frame_projection` to x (views * N, T, D), each view normalised separately -> (views * N, T, hidden)."""
    first, norm, activation, last = linear
    return last(activation(norm(first(x), views, updates)))
