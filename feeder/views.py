"""Rendering views: packed frames + draws -> `(N, T, V * C * M)`, batched, on any device, without per-sample Python.

A view is a crop of the clip, resized linearly to T frames (half-pixel centres, ends not aligned), one 3x3 matrix per
joint, and last the stream. Frames are packed in the encoder's order (V, C, M), so that a frame stays one contiguous row from
the file to the encoder: two gathers of rows, a lerp, and the matrices as a band matrix with five diagonals, which is five
multiply-adds of whole rows, the row shifted against itself. No axis is ever moved. On a CPU the batch is walked in
blocks whose working set stays in the cache, through buffers that are used again.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

STREAMS = ("joint", "bone", "motion")
CPU_BLOCK = 32  # clips; 1.2 MB a buffer at 64 frames x 150 numbers; benchmarks/LOG.md has other sizes


def take_stream(x: Tensor, stream: str, parents: Tensor) -> Tensor:
    """The stream of clips x (..., T, V, C, M): joint as is; bone: joint minus its parent; motion: x[t+1] - x[t], last 0."""
    if stream == "bone":
        return x - x.index_select(-3, parents)
    if stream == "motion":
        out = torch.zeros_like(x)
        torch.sub(x[..., 1:, :, :, :], x[..., :-1, :, :, :], out=out[..., :-1, :, :, :])
        return out
    return x


def resize_positions(lengths: Tensor, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Linear resize of L frames to T: (lower index, upper index, weight of the upper), each (N, T)."""
    t = torch.arange(frames, device=lengths.device, dtype=torch.float32)
    scale = lengths[:, None].float() / frames
    source = ((t + 0.5) * scale - 0.5).clamp_(min=0.0)
    lower = source.long()
    upper = torch.minimum(lower + 1, lengths[:, None] - 1)
    return lower, upper, source - lower


@lru_cache(maxsize=16)
def _band_places(joints: int, persons: int, device: torch.device) -> Tensor:
    """Where the diagonals of `band` take their numbers from, (5 * V * 3 * M,): places in a row of V 3x3 matrices and a 0."""
    shift, joint, row, _ = np.ogrid[-2:3, :joints, :3, :persons]
    column = row + shift
    inside = (column >= 0) & (column < 3)
    places = np.where(inside, joint * 9 + row * 3 + column, joints * 9)
    return torch.from_numpy(np.broadcast_to(places, (5, joints, 3, persons)).flatten()).to(device)


def band(matrices: Tensor, persons: int) -> Tensor:
    """The diagonals (N, 5, 1, V * 3 * M) of the band matrix that multiplies a frame (V, 3, M) by a matrix per joint.

    matrices (N, V, 3, 3). Number c of a joint takes A[c, c + s] times the number s coordinates further, s = -2..2; where
    there is no coordinate c + s the diagonal is 0, so that what the shift brings in from a neighbour does not count."""
    n, joints = matrices.shape[:2]
    padded = torch.nn.functional.pad(matrices.reshape(n, -1), (0, 1))
    return padded.index_select(1, _band_places(joints, persons, matrices.device)).view(n, 5, 1, -1)


class Shifted:
    """Room for frames (n, T, F) that can be read shifted by up to two coordinates, beyond its ends as well.

    memory: at least `Shifted.numbers` long. What lies beyond the ends is 0, for it is multiplied by 0 and must be finite."""

    def __init__(self, memory: Tensor, n: int, size: int, width: int, persons: int):
        margin, numbers = 2 * persons, n * size * width
        memory[:margin] = 0.0
        memory[margin + numbers : 2 * margin + numbers] = 0.0
        starts = (margin + shift * persons for shift in range(-2, 3))
        self.by_shift = [memory[start : start + numbers].view(n, size, width) for start in starts]
        self.frames = self.by_shift[2]

    @staticmethod
    def numbers(n: int, size: int, width: int, persons: int) -> int:
        return n * size * width + 4 * persons

    def multiplied(self, diagonals: Tensor, out: Tensor) -> Tensor:
        """out (n, T, F) = the band matrices (n, 5, 1, F) times the frames."""
        torch.mul(self.frames, diagonals[:, 2], out=out)
        for place in (0, 1, 3, 4):
            out.addcmul_(self.by_shift[place], diagonals[:, place])
        return out


def apply_matrices(x: Tensor, matrices: Tensor) -> Tensor:
    """x' = A x for each joint. x (N, T, V, 3, M), matrices (N, V, 3, 3)."""
    (n, size, _, _, persons), rows = x.shape, x.flatten(2)
    shape = (n, size, rows.shape[2], persons)
    shifted = Shifted(x.new_empty(Shifted.numbers(*shape)), *shape)
    shifted.frames.copy_(rows)
    return shifted.multiplied(band(matrices, persons), torch.empty_like(rows)).view(x.shape)


def render(
    frames: Tensor,
    first: Tensor,
    lengths: Tensor,
    matrices: Tensor | None,
    size: int,
    stream: str = "joint",
    parents: Tensor | None = None,
    empty: Callable[..., Tensor] | None = None,
) -> Tensor:
    """Views (N, T, V * C * M) of crops of the packed frames.

    frames (F, V, C, M): all frames of all clips; first, lengths (N,): the crop, in rows of `frames`; matrices
    (N, V, 3, 3) or None for the identity; size: T; stream: taken last, from the resized view; empty(*shape): where the
    result and work arrays come from, by default new memory."""
    n, (_, joints, channels, persons) = len(first), frames.shape
    rows, empty = frames.flatten(1), empty or frames.new_empty
    width = rows.shape[1]
    lower, upper, weight = resize_positions(lengths, size)
    lower, upper = (lower + first[:, None]).view(-1), (upper + first[:, None]).view(-1)
    weight = weight[..., None].to(frames.dtype)
    block = min(n, CPU_BLOCK) if frames.device.type == "cpu" else n
    out, ends = empty(n, size, width), empty(2, block * size, width)
    if matrices is not None:
        diagonals = band(matrices.to(frames.dtype), persons)
        memory, shifted = empty(Shifted.numbers(block, size, width, persons)), None
    for low in range(0, n, block):
        part = slice(low, min(low + block, n))
        count = part.stop - low
        for places, end in zip((lower, upper), ends, strict=True):
            torch.index_select(rows, 0, places[low * size : part.stop * size], out=end[: count * size])
        pair = [end[: count * size].view(count, size, width) for end in ends]
        if matrices is None:
            torch.lerp(*pair, weight[part], out=out[part])
        else:
            if shifted is None or count < block:
                shifted = Shifted(memory, count, size, width, persons)
            torch.lerp(*pair, weight[part], out=shifted.frames)
            shifted.multiplied(diagonals[part], out[part])
        if stream != "joint":
            view = out[part].view(count, size, joints, channels, persons)
            view.copy_(take_stream(view, stream, parents))
    return out


def centre_crop(num_frame: Tensor, share: float = 0.95) -> tuple[Tensor, Tensor]:
    """Start and length of the centre crop for testing: start = floor((1 - share) n / 2), length = n - 2 start."""
    start = ((1 - share) * num_frame.double() / 2 + 1e-9).floor().long()
    return start, num_frame - 2 * start
