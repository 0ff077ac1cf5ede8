"""A transformer over frames: one token for each frame, all joints and persons in it; pre-norm blocks.

Attention over 64 tokens is cheap: nearly all of the work are the products of the blocks. With `causal` frame t sees frames
up to t only (at most 64 of them in each block, see models.attention), the clip feature is the last frame's, and early
recognition and one-pass detection work as with the GRU; without it every frame sees the whole clip, and the clip feature
is the mean over the frames."""

import torch
from torch import Tensor, nn

from models.attention import STEPS, Block, TimePositions, initialise
from models.backbone import Backbone, check_width


class Transformer(Backbone):
    """(N, T, F) -> frame features (N, T, D), D = width. ValueError for a width that 16 or the heads do not divide."""

    def __init__(self, input_size: int, width: int, depth: int, heads: int, mlp_ratio: float, causal: bool):
        super().__init__()
        check_width(width, 16, heads)
        self.causal, self.streams, self.feature_size = causal, causal, width
        self.embed = nn.Linear(input_size, width)
        self.time = None if causal else TimePositions(STEPS, width)
        reach = STEPS if causal else None
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio, reach) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        initialise(self)

    def forward(self, x: Tensor, views: int = 1, updates=None) -> Tensor:
        with self.low_precision(x):
            tokens = self.embed(x).to(x.dtype)
            if self.time is not None:
                tokens = tokens + self.time(x.shape[1])
            for block in self.blocks:
                tokens = block(tokens)
            return self.norm(tokens).to(x.dtype)

    def first_state(self, n: int) -> tuple[Tensor, Tensor]:
        """Keys and values of the steps before (blocks, 2, n, heads, STEPS - 1, width / heads), and their number ()."""
        weight, heads = self.embed.weight, self.blocks[0].attention.heads
        past = weight.new_zeros(len(self.blocks), 2, n, heads, STEPS - 1, self.feature_size // heads)
        return past, torch.zeros((), dtype=torch.long, device=weight.device)

    def step(self, x: Tensor, past: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A frame costs the products of one token and a look at the STEPS - 1 before it, however long the stream."""
        token, kept = self.embed(x), []
        for block, own in zip(self.blocks, past, strict=True):
            token, own = block.step(token, own, seen)
            kept.append(own)
        return self.norm(token), torch.stack(kept), seen + 1
