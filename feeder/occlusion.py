"""Occlusion masks of test clips: whole body parts, or a block of frames, as pure functions of (seed, clip name).

The paper does not say how clips were occluded, so the definition is ours: spatial, some of the five body parts are hidden in
all frames; temporal, all joints are hidden in one block of consecutive frames. Masks depend on the clip's name, not on its
index, so that a clip is occluded in the same way in every subset and for every encoder. They are nested: the parts hidden at
2 are also hidden at 3, which makes the curve smoother.

True = hidden, for all persons; `ClipViews.centre_hidden` applies a mask.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from feeder.sampling import OCCLUSION, uniforms

_NUMBERS = 16  # uniforms of a clip: the first five order the parts, the last places the block


def clip_uniforms(seed: int, names: Sequence[str]) -> np.ndarray:
    """16 numbers in [0, 1) for each clip, (N, 16), a function of (seed, name)."""
    out = np.empty((len(names), _NUMBERS))
    for row, name in zip(out, names, strict=True):
        step = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")  # 56 bits, as many as a step has
        row[:] = uniforms(seed, OCCLUSION, step, (_NUMBERS,))
    return out


def hidden_parts(seed: int, names: Sequence[str], number: int, parts, joints: int, frames: int) -> np.ndarray:
    """Masks (N, T, V) that hide `number` (0..len(parts)) body parts in all frames. parts: tuples of joints."""
    rank = clip_uniforms(seed, names)[:, : len(parts)].argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    out = np.zeros((len(names), frames, joints), dtype=bool)
    for i, part in enumerate(parts):
        out[:, :, list(part)] = (rank[:, i] < number)[:, None, None]
    return out


def hidden_block(seed: int, names: Sequence[str], percent: int, joints: int, frames: int) -> np.ndarray:
    """Masks (N, T, V) that hide all joints in one block of round(percent % of T) frames, anywhere in the clip."""
    length = (2 * frames * percent + 100) // 200  # rounds half up, in integers
    start = np.floor(clip_uniforms(seed, names)[:, -1] * (frames - length + 1)).astype(np.int64)[:, None]
    t = np.arange(frames)
    block = (t >= start) & (t < start + length)
    return np.repeat(block[:, :, None], joints, axis=2)
