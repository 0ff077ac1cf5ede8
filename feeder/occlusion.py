"""What a test hides of a clip: whole body parts, or a block of frames. Pure functions of (seed, clip name).

The published tables do not say how clips were occluded, so this is a definition of ours: (spatial) a number of the five
body parts, hidden in all frames; (temporal) one block of consecutive frames, in which every joint is hidden. Draws hang on
the clip's name, not on its place, so that the same clip is hidden the same way in every subset, and for every encoder. They
are nested: the parts hidden at 2 are hidden at 3 as well, which makes the curve smoother.

True = hidden, for all persons; see `ClipViews.centre_hidden`.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

from feeder.sampling import OCCLUSION, uniforms

_NUMBERS = 16  # sampled for each clip: the first five order the parts, the last places the block


def clip_uniforms(seed: int, names: Sequence[str]) -> np.ndarray:
    """16 numbers in [0, 1) for each clip, (N, 16), a function of (seed, name)."""
    out = np.empty((len(names), _NUMBERS))
    for row, name in zip(out, names, strict=True):
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")  # 56 bits, as uniforms takes
        row[:] = uniforms(seed, OCCLUSION, place, (_NUMBERS,))
    return out


def hidden_parts(seed: int, names: Sequence[str], number: int, parts, joints: int, frames: int) -> np.ndarray:
    """`number` of the body parts hidden in all frames: bool (N, T, V). parts: tuples of joints; number: 0..len(parts)."""
    rank = clip_uniforms(seed, names)[:, : len(parts)].argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")
    out = np.zeros((len(names), frames, joints), dtype=bool)
    for i, part in enumerate(parts):
        out[:, :, list(part)] = (rank[:, i] < number)[:, None, None]
    return out


def hidden_block(seed: int, names: Sequence[str], percent: int, joints: int, frames: int) -> np.ndarray:
    """One block of round(percent % of T) frames, anywhere in the clip, with all joints hidden: bool (N, T, V)."""
    length = (2 * frames * percent + 100) // 200  # round half up, in whole numbers
    start = np.floor(clip_uniforms(seed, names)[:, -1] * (frames - length + 1)).astype(np.int64)[:, None]
    t = np.arange(frames)
    block = (t >= start) & (t < start + length)
    return np.repeat(block[:, :, None], joints, axis=2)
