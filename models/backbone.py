"""The interface of backbones, and what several of them share.

A backbone maps normalised frames (views * N, T, F) to features of every frame (views * N, T, D). `pool` maps these to the clip
feature (N, D), unless another pooling is chosen (models.pooling). F = V * C * M is ordered by joint, then coordinate, then
person (C = 3, or 6 if motion is appended to the coordinates). D must be a multiple of 16, because a task prompt is two
halves of D/16 numbers (see models.prompts).

`causal` says whether frame t's feature depends on frames 0..t only. If so, one pass gives the features of every prefix of
the clip, and the default clip feature is the last frame's; else it is the mean over the frames. `last` is the feature at
the end of the clip.

A causal backbone can also run frame by frame (`streams`): `first_state` returns the state before the first frame, `step`
maps one frame and the state to the frame's feature and the next state. The features are those of one pass over all frames.

`views` and `updates` are for batch norms inside a backbone, which must be ViewNorms and need both (models.norm); a backbone
without batch norm ignores them. `compute_dtype` is the type of the operands of large products (bfloat16, or None).
"""

import contextlib

import torch
from torch import Tensor, nn

from models.norm import RunningUpdates


class Backbone(nn.Module):
    """The base class: subclasses set `feature_size` and `causal` in the constructor and define `forward`."""

    feature_size: int
    causal: bool = False
    streams: bool = False
    compute_dtype: torch.dtype | None = None

    def forward(self, x: Tensor, views: int = 1, updates: RunningUpdates | None = None) -> Tensor:
        """x (views * N, T, F) -> (views * N, T, D), of x's type."""
        raise NotImplementedError

    def last(self, frames: Tensor) -> Tensor:
        """(N, T, D) -> (N, D): the feature at the end of the clip."""
        return frames[:, -1]

    def pool(self, frames: Tensor) -> Tensor:
        """(N, T, D) -> the default clip feature (N, D): the last frame's if causal, else the mean."""
        return self.last(frames) if self.causal else frames.mean(dim=1)

    def first_state(self, n: int) -> tuple[Tensor, ...]:
        """The state of n clips before their first frame."""
        raise NotImplementedError(f"{type(self).__name__} cannot run frame by frame")

    def step(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One frame x (N, F) of each clip and the state -> its feature (N, D), then the next state, like `first_state`'s."""
        raise NotImplementedError(f"{type(self).__name__} cannot run frame by frame")

    def low_precision(self, x: Tensor):
        """A context in which products are computed in compute_dtype; weights and residual sums keep x's type."""
        if self.compute_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(x.device.type, dtype=self.compute_dtype)


def check_width(width: int, *divisors: int) -> None:
    """ValueError unless the width is a positive multiple of each divisor."""
    for divisor in divisors:
        if width < 1 or width % divisor:
            raise ValueError(f"the width must be a multiple of {divisor}, got {width}")


def split_persons(x: Tensor, joints: int, persons: int) -> Tensor:
    """Frames (N, T, V * C * M) -> one row for each person, (N * M, T, V, C)."""
    n, frames, _ = x.shape
    x = x.reshape(n, frames, joints, -1, persons).permute(0, 4, 1, 2, 3)
    return x.reshape(n * persons, frames, joints, -1)
