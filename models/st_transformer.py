"""A transformer over space and time: one token for each joint, or body part, in each group of frames.

Persons are encoded separately. A token is a Linear of the coordinates of a joint (or of all joints of a body part, with a
Linear for each part) in `patch_frames` consecutive frames, plus a learned vector of the joint and, if not causal, one of the
time.

attention "factorised": each block has attention over the joints of a group of frames, then over the groups of a joint, then
the feed-forward part; "joint": each block has attention over all tokens of a person at once, at a cost that is quadratic in
their number (25 joints x 16 groups = 400).

Frame features: tokens are averaged over joints and persons, and the feature of a group is repeated for its frames; an
incomplete last group is padded with its last frame. With `causal`, attention covers earlier groups only, and a frame gets the
feature of the last group that is complete by then, since a group's feature depends on all of its frames; before the first
complete group it gets a learned vector."""

import torch
from torch import Tensor, nn

from models.attention import STEPS, Attention, Block, FeedForward, TimePositions, initialise
from models.backbone import Backbone, check_width, split_persons
from utils.names import ATTENTION, TOKENS
from utils.skeleton import Layout


class FactorisedBlock(nn.Module):
    """Pre-norm: attention over space, attention over time, feed forward. tokens (N, G, J, width) -> the same shape."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, reach: int | None):
        super().__init__()
        self.norm_space, self.space = nn.LayerNorm(width), Attention(width, heads)
        self.norm_time, self.time = nn.LayerNorm(width), Attention(width, heads, reach)
        self.norm_mlp, self.mlp = nn.LayerNorm(width), FeedForward(width, mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        n, groups, places, width = x.shape
        x = x + self.space(self.norm_space(x).flatten(0, 1)).view(n, groups, places, width)
        over_time = self.norm_time(x).transpose(1, 2).reshape(n * places, groups, width)
        x = x + self.time(over_time).view(n, places, groups, width).transpose(1, 2)
        return x + self.mlp(self.norm_mlp(x))


class JointBlock(Block):
    """Pre-norm: attention over all tokens, feed forward. tokens (N, G, J, width) -> the same shape."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1, 2), per_step=x.shape[2]).view_as(x)


class SpaceTimeTransformer(Backbone):
    """(N, T, F) -> frame features (N, T, D), D = width.

    ValueError for a width that is not a multiple of 16 and of heads, and for values that are not in TOKENS and ATTENTION."""

    def __init__(
        self,
        layout: Layout,
        persons: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float,
        patch_frames: int,
        tokens: str,
        attention: str,
        causal: bool,
        channels: int = 3,
    ):
        super().__init__()
        check_width(width, 16, heads)
        if tokens not in TOKENS or attention not in ATTENTION or patch_frames < 1:
            raise ValueError(
                f"expected tokens {' or '.join(TOKENS)}, attention {' or '.join(ATTENTION)} and at least 1 patch frame, "
                f"got {tokens!r}, {attention!r} and {patch_frames}"
            )
        self.causal, self.feature_size = causal, width
        self.joints, self.persons, self.patch = layout.joints, persons, patch_frames
        self.parts = layout.parts if tokens == "parts" else None
        joint_size = channels * patch_frames
        widths = [joint_size] if self.parts is None else [joint_size * len(part) for part in self.parts]
        self.embed = nn.ModuleList(nn.Linear(size, width) for size in widths)
        self.place = nn.Parameter(torch.randn(layout.joints if self.parts is None else len(self.parts), width) * 0.02)
        steps = -(-STEPS // patch_frames)
        self.time = None if causal else TimePositions(steps, width)
        block = FactorisedBlock if attention == "factorised" else JointBlock
        self.blocks = nn.ModuleList(block(width, heads, mlp_ratio, steps if causal else None) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.start = nn.Parameter(torch.randn(width) * 0.02) if causal and patch_frames > 1 else None
        initialise(self)

    def _grouped(self, x: Tensor) -> Tensor:
        """One person's frames x (N, T, V, C) -> groups of frames (N, G, P, V, C)."""
        missing = -x.shape[1] % self.patch
        if missing and self.causal:
            x = x[:, : x.shape[1] - x.shape[1] % self.patch]
        elif missing:
            x = torch.cat([x, x[:, -1:].expand(-1, missing, -1, -1)], dim=1)
        return x.unflatten(1, (-1, self.patch))

    def _tokens(self, x: Tensor) -> Tensor:
        """Groups (N, G, P, V, C) -> tokens (N, G, J, width)."""
        if self.parts is None:
            return self.embed[0](x.transpose(2, 3).flatten(3))
        joints = x.transpose(2, 3)  # (N, G, V, P, C)
        parts = [embed(joints[:, :, list(part)].flatten(2)) for embed, part in zip(self.embed, self.parts, strict=True)]
        return torch.stack(parts, dim=2)

    def _to_frames(self, groups: Tensor, frames: int) -> Tensor:
        """Features of groups (N, G, D) -> features of frames (N, T, D)."""
        frame = torch.arange(frames, device=groups.device)
        if not self.causal:
            return groups[:, frame // self.patch]
        if self.start is None:
            return groups
        known = torch.cat([self.start.expand(groups.shape[0], 1, -1).to(groups.dtype), groups], dim=1)
        return known[:, (frame + 1) // self.patch]

    def forward(self, x: Tensor, views: int = 1, updates=None) -> Tensor:
        n, frames, _ = x.shape
        if self.causal and frames < self.patch:
            return self.start.expand(n, frames, -1).to(x.dtype)
        with self.low_precision(x):
            tokens = self._tokens(self._grouped(split_persons(x, self.joints, self.persons))).to(x.dtype) + self.place
            if self.time is not None:
                tokens = tokens + self.time(tokens.shape[1])[:, None]
            for block in self.blocks:
                tokens = block(tokens)
            groups = self.norm(tokens).to(x.dtype).mean(dim=2)
        groups = groups.unflatten(0, (n, self.persons)).mean(dim=1)
        return self._to_frames(groups, frames)
