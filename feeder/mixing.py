"""Inter-clip mixing (paper section 3.2): CutMix, ResizeMix and Mixup of skeleton clips, all by one formula.

    mixed = x (1 - w) + partner[index] w        w (T, V) in [0, 1], index (T,) frames of the partner

`sample_mix` samples w, index and partners, `mix_views` applies the formula. The whole batch is mixed alike, as released: the
partner of sample i is (i + r) mod N. Shapes are static and nothing branches on the device, since the kind of mixing only
changes w and index; so the step can be captured in a CUDA graph.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from feeder.render import CPU_BLOCK

CUTMIX, RESIZEMIX, MIXUP = "cutmix", "resizemix", "mixup"


@dataclass(frozen=True)
class MixSettings:
    """Ranges of the mixing, as released. unit: frames in a unit of time; length: least and largest length of the window, in
    units; parts: least and largest number of mixed body parts; probabilities: of CutMix, ResizeMix and Mixup; alpha: range
    of the partner's share in Mixup."""

    unit: int = 4
    length: tuple[int, int] = (7, 11)
    parts: tuple[int, int] = (2, 3)
    probabilities: tuple[float, float, float] = (0.5, 0.25, 0.25)
    alpha: tuple[float, float] = (0.0, 1.0)


@dataclass
class MixSample:
    """partner (N,): index within the batch; weight (T, V) float32; index (T,) int64; mix_lambda: the partner's share
    of the mixed key."""

    mode: str
    partner: np.ndarray
    weight: np.ndarray
    index: np.ndarray
    mix_lambda: float


def mix_maps(mode: str, parts, chosen, start: int, length: int, alpha: float, joints: int, frames: int, unit: int):
    """Weight map (T, V), index map (T,) and lambda of one mixing.

    chosen: indices of the mixed body parts; start, length: the window in units; alpha: the partner's share in Mixup.
    ResizeMix fills the window with the partner's first min(2 * window, T) frames, resized to it by nearest neighbour."""
    weight = np.zeros((frames, joints), dtype=np.float32)
    index = np.arange(frames)
    if mode == MIXUP:
        weight[:] = alpha
        return weight, index, float(alpha)
    first, size = start * unit, length * unit
    region = [joint for part in chosen for joint in parts[part]]
    weight[first : first + size, region] = 1.0
    if mode == RESIZEMIX:
        index[first : first + size] = np.arange(size) * min(2 * size, frames) // size
    mix_lambda = length * len(region) / (frames // unit * joints)
    return weight, index, float(mix_lambda)


def sample_mix(u: np.ndarray, batch_size: int, parts, joints: int, frames: int, settings: MixSettings) -> MixSample:
    """The mixing of a batch from 16 uniforms u: shift of the partners 1..N-2, parts, window, mode, share in Mixup."""
    low, high = settings.parts
    shift = 1 + int(u[0] * max(batch_size - 2, 1))
    number = low + int(u[1] * (high - low + 1))
    chosen = np.argsort(u[6 : 6 + len(parts)], kind="stable")[:number]
    length = settings.length[0] + int(u[2] * (settings.length[1] - settings.length[0] + 1))
    start = int(u[3] * (frames // settings.unit - length + 1))
    _, resize, mixup = settings.probabilities
    mode = MIXUP if u[4] < mixup else RESIZEMIX if u[4] < mixup + resize else CUTMIX
    alpha = settings.alpha[0] + (settings.alpha[1] - settings.alpha[0]) * u[5]
    weight, index, mix_lambda = mix_maps(mode, parts, chosen, start, length, alpha, joints, frames, settings.unit)
    partner = (np.arange(batch_size) + shift) % batch_size
    return MixSample(mode, partner, weight, index, mix_lambda)


def mix_views(x: Tensor, views: Tensor, weight: Tensor, index: Tensor, partner: Tensor | None = None) -> Tensor:
    """x (1 - w) + views[partner, index] w. x (N, T, F), F = V * C * M; views (K, T, F): contains the partners' views;
    partner (N,): their rows in `views`, by default row i for sample i; weight (T, V); index (T,).

    Where w is 0 or 1, the result is exactly one of the two."""
    (n, size, width), rows = x.shape, views.flatten(0, 1)
    w = weight.repeat_interleave(width // weight.shape[-1], dim=-1)
    partner = torch.arange(n, device=x.device) if partner is None else partner
    out = torch.empty_like(x)
    block = CPU_BLOCK if x.device.type == "cpu" else n  # gathered partners stay in the CPU's cache
    for low in range(0, n, block):
        part = slice(low, low + block)
        other = rows.index_select(0, (partner[part, None] * size + index).view(-1))
        torch.lerp(x[part], other.view(-1, size, width), w, out=out[part])
    return out
