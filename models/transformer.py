"""A transformer over frames: one token for each frame, with all joints and persons; pre-norm blocks.

Attention over 64 tokens is cheap: nearly all of the time goes into the linear layers. With `causal`, frame t attends to frames
up to t only (at most 64 of them in each block, see models.attention), the default clip feature is the last frame's, and early
recognition and one-pass detection work as with the GRU. Without it every frame attends to the whole clip, and the default
clip feature is the mean over the frames."""

import torch
from torch import Tensor, nn

from models.attention import STEPS, Block, TimePositions, initialise
from models.backbone import Backbone, check_width


class Transformer(Backbone):
    """(N, T, F) -> frame features (N, T, D), D = width. ValueError for a width that is not a multiple of 16 and of heads."""

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
        """Keys and values of the previous steps (blocks, 2, n, heads, STEPS - 1, width / heads), and their number ()."""
        weight, heads = self.embed.weight, self.blocks[0].attention.heads
        past = weight.new_zeros(len(self.blocks), 2, n, heads, STEPS - 1, self.feature_size // heads)
        return past, torch.zeros((), dtype=torch.long, device=weight.device)

    def step(self, x: Tensor, past: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See Backbone.step. The cost of a frame is constant: one token, which attends to at most STEPS - 1 before it."""
        token, next_past = self.embed(x), []
        for block, block_past in zip(self.blocks, past, strict=True):
            token, block_past = block.step(token, block_past, seen)
            next_past.append(block_past)
        return self.norm(token), torch.stack(next_past), seen + 1
