"""Attention over tokens in time, and the blocks of the transformers.

Positions in time are encoded in one of two ways. An encoder that sees the whole clip adds a learned position to every step
(`TimePositions`); for a longer clip the table of positions is interpolated. A causal encoder cannot: an interpolated table
would tell early frames how long the clip will be. It learns an attention bias for each distance back in time instead, and
attends to the last `reach` steps only. Its features therefore do not depend on frames further back than the reach of all
layers together, and a video of any length can be encoded in one pass, in blocks of queries, with memory linear in its
length.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STEPS = 64  # frames of a view: the largest number of steps in pretraining


class TimePositions(nn.Module):
    """A learned vector for each of `steps` steps in time."""

    def __init__(self, steps: int, width: int):
        super().__init__()
        self.table = nn.Parameter(torch.randn(steps, width) * 0.02)

    def forward(self, steps: int) -> Tensor:
        """(steps, width): the first rows of the table, or the table interpolated to more steps."""
        if steps <= len(self.table):
            return self.table[:steps]
        return F.interpolate(self.table.T[None], size=steps, mode="linear", align_corners=True)[0].T


class Attention(nn.Module):
    """Scaled dot-product attention. reach: None for all tokens; a number for causal attention to that many steps, including
    the token's own."""

    def __init__(self, width: int, heads: int, reach: int | None = None):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.distance = None if reach is None else nn.Parameter(torch.zeros(heads, reach))

    def forward(self, x: Tensor, per_step: int = 1) -> Tensor:
        """x (B, L, width) -> the same shape. per_step: number of consecutive tokens that belong to one step in time."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.distance is None:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = self._look_back(q, k, v, per_step)
        return self.out(y.transpose(1, 2).flatten(2))

    def _look_back(self, q: Tensor, k: Tensor, v: Tensor, per_step: int) -> Tensor:
        """Causal attention of q, k, v (B, heads, L, width / heads) -> the same shape, in blocks of `reach` steps."""
        reach, length = self.distance.shape[1], q.shape[2]
        step = torch.arange(length, device=q.device) // per_step
        parts = []
        for start in range(0, length, reach * per_step):
            first, stop = max(0, start - (reach - 1) * per_step), min(start + reach * per_step, length)
            back = step[start:stop, None] - step[None, first:stop]
            seen = (back >= 0) & (back < reach)
            bias = self.distance[:, back.clamp(0, reach - 1)].masked_fill(~seen, float("-inf"))
            keys, values = k[:, :, first:stop], v[:, :, first:stop]
            parts.append(F.scaled_dot_product_attention(q[:, :, start:stop], keys, values, attn_mask=bias.to(q.dtype)))
        return torch.cat(parts, dim=2)

    def step(self, x: Tensor, past: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """One step of causal attention. x (B, width); past (2, B, heads, reach - 1, width / heads): keys and values of the
        previous steps, oldest first; seen (): how many of them are valid. -> y (B, width) and `past` of the next step."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(1)
        known = torch.cat([past, torch.stack([k, v])[:, :, :, None]], dim=3)
        back = torch.arange(known.shape[3] - 1, -1, -1, device=x.device)
        bias = self.distance.flip(1).masked_fill(back > seen, float("-inf"))
        y = F.scaled_dot_product_attention(q[:, :, None], known[0], known[1], attn_mask=bias[:, None].to(q.dtype))
        return self.out(y.flatten(1)), known[:, :, :, 1:]


class FeedForward(nn.Sequential):
    """Linear, GELU, Linear."""

    def __init__(self, width: int, ratio: float):
        hidden = max(1, int(width * ratio))
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class Block(nn.Module):
    """A pre-norm block: x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, reach: int | None = None):
        super().__init__()
        self.norm_attention, self.attention = nn.LayerNorm(width), Attention(width, heads, reach)
        self.norm_mlp, self.mlp = nn.LayerNorm(width), FeedForward(width, mlp_ratio)

    def forward(self, x: Tensor, per_step: int = 1) -> Tensor:
        """x (B, L, width) -> the same shape."""
        x = x + self.attention(self.norm_attention(x), per_step)
        return x + self.mlp(self.norm_mlp(x))

    def step(self, x: Tensor, past: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """One step of a causal block, x (B, width) -> the same shape; see Attention.step."""
        y, past = self.attention.step(self.norm_attention(x), past, seen)
        x = x + y
        return x + self.mlp(self.norm_mlp(x)), past


def initialise(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every Linear, as is usual for vision transformers."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
