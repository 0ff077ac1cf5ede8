"""Rendering views: packed frames + draws -> `(N, T, V * C * M)`, batched, on any device, without per-sample Python.

A view is a crop of the clip, resized linearly to T frames (half-pixel centres, ends not aligned), one 3x3 matrix per
joint, and last the stream. All of it is a gather, a lerp and three multiply-adds. Frames are packed as (C, M, V), joints
innermost, because the matrices then work on contiguous rows of joints; the encoder's order (V, C, M) is made by the last copy.
On a CPU the batch is walked in blocks whose working set stays in the cache.
"""

import torch
from torch import Tensor

STREAMS = ("joint", "bone", "motion")
CPU_BLOCK = (
    8  # clips; 8 clips x 64 frames x 150 numbers x 4 B = 300 kB per array, meant to stay in the cache; not measured
)


def take_stream(x: Tensor, stream: str, parents: Tensor) -> Tensor:
    """The stream of clips x (..., T, C, M, V): joint as is; bone: joint minus its parent; motion: x[t+1] - x[t], last 0."""
    if stream == "bone":
        return x - x.index_select(-1, parents)
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


def apply_matrices(x: Tensor, matrices: Tensor) -> Tensor:
    """x' = A x for each joint. x (N, T, C, M, V), matrices (N, V, 3, 3)."""
    n, _, _, persons, joints = x.shape
    a = matrices.permute(0, 2, 3, 1)[:, None, :, :, None]  # (N, 1, C', C, 1, V)
    a = a.expand(n, 1, 3, 3, persons, joints).contiguous()  # so that persons x joints is one contiguous row
    out = a[:, :, :, 0] * x[:, :, None, 0]
    out.addcmul_(a[:, :, :, 1], x[:, :, None, 1])
    return out.addcmul_(a[:, :, :, 2], x[:, :, None, 2])


def render(
    frames: Tensor,
    first: Tensor,
    lengths: Tensor,
    matrices: Tensor | None,
    size: int,
    stream: str = "joint",
    parents: Tensor | None = None,
) -> Tensor:
    """Views (N, T, V * C * M) of crops of the packed frames.

    frames (F, C, M, V): all frames of all clips; first, lengths (N,): the crop, in rows of `frames`; matrices
    (N, V, 3, 3) or None for the identity; size: T; stream: taken last, from the resized view."""
    n = len(first)
    _, channels, persons, joints = frames.shape
    out = frames.new_empty(n, size, joints, channels, persons)
    block = CPU_BLOCK if frames.device.type == "cpu" else n
    for low in range(0, n, block):
        part = slice(low, min(low + block, n))
        lower, upper, weight = resize_positions(lengths[part], size)
        base = first[part, None]
        x = frames.index_select(0, (base + lower).reshape(-1))
        x = x.lerp_(frames.index_select(0, (base + upper).reshape(-1)), weight.reshape(-1, 1, 1, 1).to(x.dtype))
        x = x.reshape(-1, size, channels, persons, joints)
        if matrices is not None:
            x = apply_matrices(x, matrices[part].to(x.dtype))
        if stream != "joint":
            x = take_stream(x, stream, parents)
        out[part] = x.permute(0, 1, 4, 2, 3)
    return out.reshape(n, size, -1)


def centre_crop(num_frame: Tensor, share: float = 0.95) -> tuple[Tensor, Tensor]:
    """Start and length of the centre crop for testing: start = floor((1 - share) n / 2), length = n - 2 start."""
    start = ((1 - share) * num_frame.double() / 2 + 1e-9).floor().long()
    return start, num_frame - 2 * start
