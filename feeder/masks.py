"""The body-part mask of masked motion modeling (paper section 3.3; numbers as released).

A clip is divided into 8 consecutive segments; in each segment 3 of the five body parts are hidden. In all masks True means
hidden. Only the first person is hidden, as released; a second person is always visible.
"""

import numpy as np
import torch
from torch import Tensor


def hidden_map(u: np.ndarray, parts, joints: int, frames: int, ratio: float) -> np.ndarray:
    """The mask of the first person, from uniforms u (N, segments, parts): bool (N, T, V), True = hidden. In each segment
    floor(parts * ratio) parts are hidden (3 of 5 at 0.6)."""
    number = int(np.floor(len(parts) * ratio + 1e-9))
    chosen = np.zeros(u.shape, dtype=bool)
    np.put_along_axis(chosen, np.argsort(u, axis=-1, kind="stable")[..., :number], True, axis=-1)
    membership = np.zeros((len(parts), joints), dtype=bool)
    for i, part in enumerate(parts):
        membership[i, list(part)] = True
    by_segment = (chosen[..., None] & membership).any(axis=-2)  # (N, segments, V)
    segment_of_frame = np.arange(frames) * u.shape[-2] // frames
    return by_segment[:, segment_of_frame]


def expand_hidden(hidden: Tensor, persons: int, channels: int = 3) -> Tensor:
    """The first person's mask (..., T, V) -> that of all coordinates, (..., T, V * C * M), where other persons are visible."""
    first = torch.arange(persons, device=hidden.device) == 0
    full = hidden[..., None, None] & first  # (..., T, V, 1, M)
    return full.expand(*hidden.shape, channels, persons).flatten(-3)


def mask_view(x: Tensor, hidden: Tensor) -> Tensor:
    """Sets hidden coordinates to 0. x (N, T, F), hidden (T, F) or (N, T, F) bool, True = hidden."""
    return x * (~hidden).to(x.dtype)  # one pass over memory; masked_fill would copy first
