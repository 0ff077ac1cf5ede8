"""Rendering of views: packed frames and random choices -> `(N, T, V * C * M)`, in batches, on any device.

A view is made in these steps: crop of the clip, linear resize to T frames (half-pixel centres, ends not aligned), other bone
lengths (a matrix over the joints, optional), one 3x3 matrix per joint, noise (optional), and last the stream. Frames are
packed in the encoder's order (V, C, M), so that a frame stays one contiguous row from the file to the encoder. The resize is
a weighted sum of two rows (an embedding bag, which gathers and interpolates in one pass; the scale of the clip is in its
weights). The 3x3 matrices form a band matrix with five diagonals, that is five multiply-adds of whole rows, each shifted by
a few coordinates. No axes are permuted. On a CPU the batch is processed in blocks that fit in the cache.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from utils.names import SIDE_BY_SIDE

CPU_BLOCK = 32  # clips; a buffer of 1.2 MB at 64 frames x 150 numbers; benchmarks/LOG.md compares sizes


def take_stream(x: Tensor, stream: str, parents: Tensor) -> Tensor:
    """The stream of clips x (..., T, V, C, M): joint: x; bone: joint minus its parent; motion: x[t+1] - x[t], 0 in the last
    frame; joint_motion, bone_motion: both, concatenated for each joint, (..., T, V, 2C, M), with the motion of the joint or
    of the bone."""
    if stream in SIDE_BY_SIDE:
        x = take_stream(x, stream.removesuffix("_motion"), parents)
        return torch.cat([x, take_stream(x, "motion", parents)], dim=-2)
    if stream == "bone":
        return x - x.index_select(-3, parents)
    if stream == "motion":
        out = torch.zeros_like(x)
        torch.sub(x[..., 1:, :, :, :], x[..., :-1, :, :, :], out=out[..., :-1, :, :, :])
        return out
    return x


def channels_of(stream: str) -> int:
    """Number of channels C of a stream."""
    return 6 if stream in SIDE_BY_SIDE else 3


def resize_positions(lengths: Tensor, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Linear resize of L frames to T. lengths (N,): L -> (lower frame, upper frame, weight of the upper), each (N, T)."""
    t = torch.arange(frames, device=lengths.device, dtype=torch.float32)
    scale = lengths[:, None].float() / frames
    source = ((t + 0.5) * scale - 0.5).clamp_(min=0.0)
    lower = source.long()
    upper = torch.minimum(lower + 1, lengths[:, None] - 1)
    return lower, upper, source - lower


@lru_cache(maxsize=16)
def _band_index(joints: int, persons: int, device: torch.device) -> Tensor:
    """For each number of the diagonals of `band` its index (5 * V * 3 * M,) in V flattened 3x3 matrices followed by a 0."""
    shift, joint, row, _ = np.ogrid[-2:3, :joints, :3, :persons]
    column = row + shift
    inside = (column >= 0) & (column < 3)
    index = np.where(inside, joint * 9 + row * 3 + column, joints * 9)
    return torch.from_numpy(np.broadcast_to(index, (5, joints, 3, persons)).flatten()).to(device)


def band(matrices: Tensor, persons: int) -> Tensor:
    """The diagonals (N, 5, 1, V * 3 * M) of the band matrix that multiplies a frame (V, 3, M) by a matrix per joint.

    matrices (N, V, 3, 3). For shifts s = -2..2, coordinate c of a joint is the sum of A[c, c + s] times coordinate c + s; if
    there is no coordinate c + s, the diagonal is 0, so that the neighbouring joint found there does not count."""
    n, joints = matrices.shape[:2]
    padded = torch.nn.functional.pad(matrices.reshape(n, -1), (0, 1))
    return padded.index_select(1, _band_index(joints, persons, matrices.device)).view(n, 5, 1, -1)


def multiply_band(rows: Tensor, diagonals: Tensor, persons: int, out: Tensor) -> Tensor:
    """out (n, T, F) = the band matrices (n, 5, 1, F) times frames, which are rows 1..n*T of `rows` (n*T + 2, F).

    Frames are read shifted by up to two coordinates, and so into the first and the last row. Values of neighbours are
    multiplied by 0, so they only have to be finite."""
    width, (n, size) = rows.shape[1], out.shape[:2]
    flat, number = rows.view(-1), n * size * width

    def shifted(by: int) -> Tensor:
        start = width + by * persons
        return flat[start : start + number].view(n, size, width)

    torch.mul(shifted(0), diagonals[:, 2], out=out)
    for diagonal in (0, 1, 3, 4):
        out.addcmul_(shifted(diagonal - 2), diagonals[:, diagonal])
    return out


def shape_bodies(rows: Tensor, bodies: Tensor) -> None:
    """Changes the bodies in place: x'_v = sum over w of B[v, w] x_w. rows (n * T + 2, F): rows 1..n*T are the frames of n
    clips; bodies B (n, V, V)."""
    frames = rows[1:-1].view(len(bodies), -1, bodies.shape[-1], rows.shape[1] // bodies.shape[-1])
    frames.copy_(bodies[:, None] @ frames)


def apply_matrices(x: Tensor, matrices: Tensor) -> Tensor:
    """x' = A x for each joint. x (N, T, V, 3, M), matrices (N, V, 3, 3)."""
    persons, frames = x.shape[-1], x.flatten(2)
    rows = torch.nn.functional.pad(frames.flatten(0, 1), (0, 0, 1, 1))
    return multiply_band(rows, band(matrices, persons), persons, torch.empty_like(frames)).view(x.shape)


def _resize(first: Tensor, lengths: Tensor, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """For each frame of the views the indices of the two rows that it is interpolated from, and their weights: (2 + n * T, 2)
    each. One more frame at each end, with weights 0, is the padding that `multiply_band` needs."""
    lower, upper, weight = resize_positions(lengths, size)
    index = lengths.new_zeros(2 + lower.numel(), 2)
    torch.add(lower, first[:, None], out=index[1:-1, 0].view_as(lower))
    torch.add(upper, first[:, None], out=index[1:-1, 1].view_as(lower))
    weights = torch.zeros(index.shape, dtype=dtype, device=lengths.device)
    weights[1:-1, 0] = 1 - weight.view(-1)
    weights[1:-1, 1] = weight.view(-1)
    return index, weights


def render(
    frames: Tensor,
    first: Tensor,
    lengths: Tensor,
    matrices: Tensor | None,
    size: int,
    stream: str = "joint",
    parents: Tensor | None = None,
    factors: Tensor | None = None,
    bodies: Tensor | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """Views (N, T, V * C * M) of crops of the packed frames.

    frames (F, V, C, M): all frames of all clips; first, lengths (N,): the crops, as rows of `frames`; matrices
    (N, V, 3, 3) or None for the identity; size: T; stream: computed last, from the resized view; factors (N,): scale of
    each clip; bodies (N, V, V), only with matrices: a matrix over the joints; noise (K, T, V, 3, M): added to the nonzero
    coordinates of the first K views (zero means that a joint was not detected)."""
    n, (_, joints, channels, persons) = len(first), frames.shape
    rows = frames.flatten(1)
    width = rows.shape[1]
    index, weights = _resize(first, lengths, size, frames.dtype)
    if factors is not None:
        weights[1:-1].view(n, size, 2).mul_(factors[:, None, None])
    if matrices is None:
        out = embedding_bag(index[1:-1], rows, per_sample_weights=weights[1:-1], mode="sum").view(n, size, width)
        block = n
    else:
        out = frames.new_empty(n, size, width)
        block = CPU_BLOCK if frames.device.type == "cpu" else n
        diagonals = band(matrices.to(frames.dtype), persons)
    for low in range(0, n, block):
        part = slice(low, min(low + block, n))
        if matrices is not None:
            padded = slice(low * size, part.stop * size + 2)
            resized = embedding_bag(index[padded], rows, per_sample_weights=weights[padded], mode="sum")
            if bodies is not None:
                shape_bodies(resized, bodies[part])
            multiply_band(resized, diagonals[part], persons, out[part])
        if noise is not None and low < len(noise):
            view = out[low : min(part.stop, len(noise))]
            view.add_(noise[part].flatten(2) * (view != 0))
        if stream not in ("joint", *SIDE_BY_SIDE):
            view = out[part].view(-1, size, joints, channels, persons)
            view.copy_(take_stream(view, stream, parents))
    if stream in SIDE_BY_SIDE:
        return take_stream(out.view(n, size, joints, channels, persons), stream, parents).flatten(2)
    return out


def centre_crop(num_frame: Tensor, share: float = 0.95) -> tuple[Tensor, Tensor]:
    """Start and length (N,) of the centre crop for testing, from num_frame n (N,): start = floor((1 - share) n / 2),
    length = n - 2 start."""
    start = ((1 - share) * num_frame.double() / 2 + 1e-9).floor().long()
    return start, num_frame - 2 * start
