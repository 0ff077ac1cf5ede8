"""From the features of the frames to that of the clip.

A pooling is a word of POOLS, or several joined by `_`, whose features then stand side by side: `last` (what the backbone
knows at its end), `mean`, `max`, `min` and `std` over the frames of the clip; `mean_std`, `last_max`, ... Without one, a
backbone pools in its own way: the last frame where frames know only those before them, as in the paper, the mean where each
frame sees the whole clip.

The last frame of a recurrent encoder holds what it could carry to the end; the maximum over time holds what was there at any
moment, and costs nothing. All but the `last` of an encoder that reads backwards can be kept frame by frame, in a state whose
size does not depend on how many frames there were (`first_state`, `step`).
"""

import torch
from torch import Tensor

from utils.names import POOLS

TINY = 1e-6  # added to a variance, so that a feature that never changes has a gradient
LOWEST = -1e30  # below every feature; a number and not -inf, so that it can be exported


def parts_of(pool: str) -> tuple[str, ...]:
    """The parts of a pooling; ValueError for one that is not known, or that names a part twice."""
    parts = tuple(pool.split("_")) if isinstance(pool, str) else ()
    if not parts or set(parts) - set(POOLS) or len(set(parts)) < len(parts):
        raise ValueError(f"pooling {pool!r} is not known; give one of {', '.join(POOLS)}, or several, like mean_std")
    return parts


def pool_frames(frames: Tensor, last: Tensor | None, pool: str) -> Tensor:
    """Frames (N, T, D) and what the backbone knows at its end (N, D) -> (N, D * number of parts)."""
    pooled = {
        "last": lambda: last,
        "mean": lambda: frames.mean(dim=1),
        "max": lambda: frames.amax(dim=1),
        "min": lambda: frames.amin(dim=1),
        "std": lambda: (frames.var(dim=1, correction=0) + TINY).sqrt(),
    }
    found = [pooled[part]() for part in parts_of(pool)]
    return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def first_state(pool: str, like: Tensor) -> tuple[Tensor, ...]:
    """The state before the first frame, for features like (n, D): what `step` needs of the frames before."""
    parts = set(parts_of(pool))
    state = [like.new_zeros(len(like), 1)] if parts & {"mean", "std"} else []  # how many frames there were
    state += [torch.zeros_like(like)] if parts & {"mean", "std"} else []  # their mean
    state += [torch.zeros_like(like)] if "std" in parts else []  # the sum of their squared deviations from it
    state += [torch.full_like(like, LOWEST)] if "max" in parts else []
    state += [torch.full_like(like, -LOWEST)] if "min" in parts else []
    return tuple(state)


def step(pool: str, frame: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A frame's feature (n, D) and the state -> the clip feature of all frames so far, and the next state."""
    parts, state, kept = parts_of(pool), list(state), []
    found = {"last": frame}
    if {"mean", "std"} & set(parts):
        number, mean = state.pop(0) + 1, state.pop(0)
        away = frame - mean
        found["mean"] = mean + away / number
        kept += [number, found["mean"]]
        if "std" in parts:
            squares = state.pop(0) + away * (frame - found["mean"])
            found["std"] = (squares / number + TINY).sqrt()
            kept.append(squares)
    for part, choose in (("max", torch.maximum), ("min", torch.minimum)):
        if part in parts:
            found[part] = choose(state.pop(0), frame)
            kept.append(found[part])
    return torch.cat([found[part] for part in parts], dim=1), tuple(kept)
