"""Pooling: frame features (N, T, D) -> clip features (N, P).

A pooling is a name in POOLS, or several joined by `_`, whose features are concatenated: `last` (the backbone's feature at the
end of the clip), `mean`, `max`, `min` and `std` over the frames; `mean_std`, `last_max`, ... Without a pooling the backbone
has its own default: the last frame if it is causal, as in the paper, else the mean.

The last frame of a recurrent encoder only holds what it carried to the end; the maximum over time holds the peak of every
feature, at no cost. Every pooling, except `last` of an encoder that reads backwards, can be updated frame by frame, in a
state of constant size (`first_state`, `step`).
"""

import torch
from torch import Tensor

from utils.names import POOLS

TINY = 1e-6  # added to a variance, so that the gradient of a constant feature is finite
LOWEST = -1e30  # below every feature; finite, because -inf cannot be exported


def parts_of(pool: str) -> tuple[str, ...]:
    """The parts of a pooling, such as ("mean", "std"). ValueError for an unknown pooling or a part named twice."""
    parts = tuple(pool.split("_")) if isinstance(pool, str) else ()
    if not parts or set(parts) - set(POOLS) or len(set(parts)) < len(parts):
        raise ValueError(f"pooling {pool!r} is not known; give one of {', '.join(POOLS)}, or several, like mean_std")
    return parts


def pool_frames(frames: Tensor, last: Tensor | None, pool: str) -> Tensor:
    """Frame features (N, T, D) and the feature at the clip's end (N, D), which only `last` needs -> (N, D * parts)."""
    pooled = {
        "last": lambda: last,
        "mean": lambda: frames.mean(dim=1),
        "max": lambda: frames.amax(dim=1),
        "min": lambda: frames.amin(dim=1),
        "std": lambda: (frames.var(dim=1, correction=0) + TINY).sqrt(),
    }
    features = [pooled[part]() for part in parts_of(pool)]
    return features[0] if len(features) == 1 else torch.cat(features, dim=1)


def first_state(pool: str, like: Tensor) -> tuple[Tensor, ...]:
    """The state of `step` before the first frame, for frame features of the shape and type of `like` (n, D)."""
    parts = set(parts_of(pool))
    state = [like.new_zeros(len(like), 1)] if parts & {"mean", "std"} else []  # number of frames so far
    state += [torch.zeros_like(like)] if parts & {"mean", "std"} else []  # their mean
    state += [torch.zeros_like(like)] if "std" in parts else []  # sum of their squared deviations from the mean
    state += [torch.full_like(like, LOWEST)] if "max" in parts else []
    state += [torch.full_like(like, -LOWEST)] if "min" in parts else []
    return tuple(state)


def step(pool: str, frame: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A frame's feature (n, D) and the state -> the clip feature (n, P) of all frames so far, and the next state."""
    parts, state, next_state = parts_of(pool), list(state), []
    pooled = {"last": frame}
    if {"mean", "std"} & set(parts):  # Welford's algorithm
        count, mean = state.pop(0) + 1, state.pop(0)
        deviation = frame - mean
        pooled["mean"] = mean + deviation / count
        next_state += [count, pooled["mean"]]
        if "std" in parts:
            squares = state.pop(0) + deviation * (frame - pooled["mean"])
            pooled["std"] = (squares / count + TINY).sqrt()
            next_state.append(squares)
    for part, reduce in (("max", torch.maximum), ("min", torch.minimum)):
        if part in parts:
            pooled[part] = reduce(state.pop(0), frame)
            next_state.append(pooled[part])
    return torch.cat([pooled[part] for part in parts], dim=1), tuple(next_state)
