"""The contract of every backbone.

A backbone reads normalised frames (views * N, T, F) and gives features of every frame (views * N, T, D); `pool` makes the
clip feature (N, D) of them, unless another pooling is asked for. F = V * C * M lies joint by joint, then coordinate, then person
(C = 3, or 6 where motion stands beside the coordinates). D is a multiple of 16, because a task prompt is two halves of D/16
numbers (see models.prompts); nothing else asks what D is.

`causal` says whether frame t's feature depends on frames 0..t only. Then one pass gives the clip feature of every beginning
of the clip, and the clip feature is the last frame's unless another pooling is asked for (models.pooling); otherwise it is
the mean over the frames. `last` is what the backbone knows at its end.

A causal backbone may also be stepped (`streams`): `first_state` gives the state before the first frame, `step` takes one frame
and the state and gives the frame's feature and the next state; the features are those of one pass over all frames.

`views` and `updates` are for batch norms inside a backbone, which must be ViewNorms and be handed both (models.norm);
a backbone without batch norm ignores them. `compute_dtype` is set to bfloat16 for the large products, or to None.
"""

import contextlib

import torch
from torch import Tensor, nn

from models.norm import RunningUpdates


class Backbone(nn.Module):
    """To be subclassed: set `feature_size` and `causal` in the constructor and write `forward`."""

    feature_size: int
    causal: bool = False
    streams: bool = False
    compute_dtype: torch.dtype | None = None

    def forward(self, x: Tensor, views: int = 1, updates: RunningUpdates | None = None) -> Tensor:
        """x (views * N, T, F) -> (views * N, T, D), of x's type."""
        raise NotImplementedError

    def last(self, frames: Tensor) -> Tensor:
        """(N, T, D) -> (N, D): what is known at the end of the clip."""
        return frames[:, -1]

    def pool(self, frames: Tensor) -> Tensor:
        """(N, T, D) -> the clip feature (N, D) where no pooling is asked for: the last frame's if causal, else the mean."""
        return self.last(frames) if self.causal else frames.mean(dim=1)

    def first_state(self, n: int) -> tuple[Tensor, ...]:
        """The state of n clips before their first frame."""
        raise NotImplementedError(f"{type(self).__name__} cannot be stepped frame by frame")

    def step(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One frame x (N, F) of each clip and the state -> its feature (N, D), then the next state, as `first_state` gave it."""
        raise NotImplementedError(f"{type(self).__name__} cannot be stepped frame by frame")

    def low_precision(self, x: Tensor):
        """The context in which products have compute_dtype; weights and the results that are added up keep x's type."""
        if self.compute_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(x.device.type, dtype=self.compute_dtype)


def check_width(width: int, *divisors: int) -> None:
    """ValueError unless the width is a positive multiple of each divisor."""
    for divisor in divisors:
        if width < 1 or width % divisor:
            raise ValueError(f"the width must be a multiple of {divisor}, got {width}")


def split_persons(x: Tensor, joints: int, persons: int) -> Tensor:
    """Frames (N, T, V * C * M) -> each person by itself (N * M, T, V, C)."""
    n, frames, _ = x.shape
    x = x.reshape(n, frames, joints, -1, persons).permute(0, 4, 1, 2, 3)
    return x.reshape(n * persons, frames, joints, -1)
