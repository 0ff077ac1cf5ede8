"""The encoder: input norm, backbone (one of models.backbones), projection head.

`Encoder.frames` computes features of every frame, (N, T, F) -> (N, T, D); `clip` pools them to the clip feature (N, P), P = D
or a multiple of it (models.pooling); `project` is the head, which only pretraining uses. `forward` computes the clip feature
for downstream tasks. With `both_sides` it reads a clip and its mirror image and takes the elementwise maximum of the two
features, so that an exercise of the left arm has the feature of that of the right arm. Pretraining reads both sides with
`PCM3Config.train_both_sides`, else one.

`EncoderConfig` holds all that is needed to build an encoder, and how clips are prepared for it. Checkpoints store it, so that
an encoder can be rebuilt from its file. Module names are those of the released files: `input_norm`, `encoder.gru`, `fc`.
"""

from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models import pooling
from models.backbones import BACKBONES
from models.norm import RunningUpdates, ViewNorm
from utils.names import PROMPT_PLACES, SCALES, SIZES
from utils.skeleton import get_layout

CHANNELS = (3, 6)
LARGEST = {"num_layers": 256, "depth": 256}  # upper limits of sizes that a file or a user gives; 65536 for the others


def check_prompt_place(place: str) -> None:
    """ValueError unless `place` is one of PROMPT_PLACES."""
    if place not in PROMPT_PLACES:
        raise ValueError(f"expected prompt_place {' or '.join(PROMPT_PLACES)}, got {place!r}")


def check_size(name: str, value, default) -> None:
    """ValueError unless a size has the type of its default and, if it is a number, is above 0 and within its limit."""
    kind, largest = type(default), LARGEST.get(name, 65536)
    if kind is float and type(value) is int:
        kind = int
    if type(value) is not kind:
        raise ValueError(f"{name} must be of type {kind.__name__}, got {value!r}")
    if kind in (int, float) and not 0 < value <= largest:
        raise ValueError(f"{name} must be above 0 and at most {largest}, got {value}")


@dataclass(frozen=True)
class EncoderConfig:
    """backbone: a name in models.backbones; layout, joints, channels, persons: of a frame, F = joints * channels * persons;
    dim: of the projection; mlp: whether the head has a hidden layer (as released); head_norm: whether that layer has a
    batch norm; dimensions: 2 if the third coordinate of every joint is 0 (data_gen.normalise says why it is kept); pool: how
    frame features are pooled, None for the backbone's default (models.pooling); scale_by: what clips are divided by when
    they are read, "none" or "trunk", the length of the trunk (feeder.scale); both_sides: whether the clip feature combines
    the clip and its mirror image.

    The remaining fields, SIZES, are those of the backbone. None becomes the backbone's default; fields that the backbone
    does not have stay None. ValueError if such a field is given, for an unknown backbone and for sizes out of range."""

    backbone: str = "gru"
    layout: str = "kinect_v2_25"
    joints: int = 25
    persons: int = 2
    hidden_size: int | None = None
    num_layers: int | None = None
    dim: int = 128
    mlp: bool = True
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    mlp_ratio: float | None = None
    patch_frames: int | None = None
    tokens: str | None = None
    attention: str | None = None
    causal: bool | None = None
    dimensions: int = 3
    channels: int = 3
    pool: str | None = None
    scale_by: str = "none"
    head_norm: bool = False
    both_sides: bool = False

    def __post_init__(self):
        if self.backbone not in BACKBONES:
            raise ValueError(f"backbone {self.backbone!r} is not known; known: {', '.join(BACKBONES)}")
        if type(self.dimensions) is not int or self.dimensions not in (2, 3):
            raise ValueError(f"dimensions must be 2 or 3, got {self.dimensions!r}")
        if self.pool is not None:
            pooling.parts_of(self.pool)
        if self.head_norm and not self.mlp:
            raise ValueError("head_norm needs the head's hidden layer, which it does not have (mlp is off)")
        if self.scale_by not in SCALES or self.channels not in CHANNELS:
            raise ValueError(
                f"expected scale_by {' or '.join(SCALES)} and 3 or 6 channels, got {self.scale_by!r} and {self.channels!r}"
            )
        if type(self.both_sides) is not bool:
            raise ValueError(f"both_sides must be true or false, got {self.both_sides!r}")
        defaults = BACKBONES[self.backbone].sizes
        for name in SIZES:
            if getattr(self, name) is None:
                object.__setattr__(self, name, defaults.get(name))
            elif name not in defaults:
                own = ", ".join(defaults) or "none"
                raise ValueError(f"the {self.backbone} backbone has no {name}; its sizes are: {own}")
            else:
                check_size(name, getattr(self, name), defaults[name])

    @property
    def input_size(self) -> int:
        return self.joints * self.channels * self.persons

    @property
    def sizes(self) -> dict:
        """The sizes of the backbone, by name."""
        return {name: getattr(self, name) for name in BACKBONES[self.backbone].sizes}

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "EncoderConfig":
        """The configuration from the output of `to_dict` of this or an older version. ValueError for an unknown field."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"its encoder has a setting {unknown[0]!r} that this version does not know")
        return cls(**values)


def mirror_image(config: EncoderConfig) -> tuple[Tensor, Tensor]:
    """Index (F,) and sign (F,) that turn a frame x into its mirror image, x[index] * sign: left and right joints are swapped,
    and the x coordinate, the axis from shoulder to shoulder, changes its sign, and so does its motion. UserError for an
    unknown joint layout."""
    order = torch.arange(config.input_size).view(config.joints, config.channels, config.persons)
    signs = torch.ones_like(order)
    signs[:, ::3] = -1
    return order[list(get_layout(config.layout).mirrored)].flatten(), signs.flatten()


def xavier_linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(linear.weight)
    return linear


class ProjectionHead(nn.Sequential):
    """Linear, ReLU, Linear; with `norm` a ViewNorm before the ReLU, which normalises each of several views separately (see
    models.norm). The last Linear is xavier-uniform, as released."""

    def __init__(self, features: int, dim: int, norm: bool):
        last = xavier_linear(features, dim)
        super().__init__(nn.Linear(features, features), nn.ReLU(), last)
        self.norm = ViewNorm(features) if norm else None

    def forward(self, x: Tensor, views: int = 1, updates: RunningUpdates | None = None) -> Tensor:
        """x (views * N, features) -> (views * N, dim)."""
        hidden = self[0](x)
        if self.norm is not None:
            hidden = self.norm(hidden, views, updates)
        return self[2](self[1](hidden))


class Encoder(nn.Module):
    """Input norm, backbone and head. `head=False`: without the head `fc`, for downstream tasks."""

    recompute = 0  # activation checkpointing: number of pieces of a view, see `_in_pieces`; 0 = off

    def __init__(self, config: EncoderConfig, head: bool = True):
        super().__init__()
        self.config = config
        self.input_norm = ViewNorm(config.input_size)
        self.encoder = BACKBONES[config.backbone].build(config)
        if config.both_sides:
            order, signs = mirror_image(config)
            self.register_buffer("mirror_order", order, persistent=False)
            self.register_buffer("mirror_signs", signs, persistent=False)
        if head:
            self.fc = (
                ProjectionHead(self.clip_size, config.dim, config.head_norm)
                if config.mlp
                else xavier_linear(self.clip_size, config.dim)
            )

    @property
    def feature_size(self) -> int:
        """D, the size of a frame's feature."""
        return self.encoder.feature_size

    @property
    def clip_size(self) -> int:
        """P, the size of a clip's feature."""
        return self.feature_size * (len(pooling.parts_of(self.config.pool)) if self.config.pool else 1)

    @property
    def causal(self) -> bool:
        """Whether frame t's feature depends on frames 0..t only."""
        return self.encoder.causal

    @property
    def streams(self) -> bool:
        """Whether frames can be encoded one by one, by `first_state` and `step`."""
        return getattr(self.encoder, "streams", False)

    def first_state(self, n: int) -> tuple[Tensor, ...]:
        """The state of n clips before their first frame; batch norms must be in eval mode for `step`."""
        return self.encoder.first_state(n)

    def step(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One frame x (N, F) of each clip and the state -> its feature (N, D), as `frames` computes it, and the next state."""
        return self.encoder.step(self.input_norm(x), *state)

    def first_clip_state(self, n: int) -> tuple[Tensor, ...]:
        """The state of n clips before their first frame, for `clip_step`."""
        pool, state = self.config.pool, ()
        for _ in range(1 + self.config.both_sides):
            state += tuple(self.first_state(n))
            if pool is not None:
                state += pooling.first_state(pool, self.input_norm.weight.new_zeros(n, self.feature_size))
        return state

    def clip_step(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One frame x (N, F) of each clip and the state -> the clip feature (N, P) of all frames so far, as `forward` computes
        it, the frame's feature (N, D), and the next state."""
        sides = self.sides(x)
        size = len(state) // len(sides)
        steps = [self._side_step(side, *state[i * size : (i + 1) * size]) for i, side in enumerate(sides)]
        clip = self.joined([clip for clip, *_ in steps])
        return clip, steps[0][1], *(value for _, _, *next_state in steps for value in next_state)

    def _side_step(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """`clip_step` of one side."""
        pool = self.config.pool
        if pool is None:
            frame, *state = self.step(x, *state)
            return frame, frame, *state
        size = len(state) - len(pooling.first_state(pool, x[:0]))
        frame, *next_state = self.step(x, *state[:size])
        clip, pool_state = pooling.step(pool, frame, state[size:])
        return clip, frame, *next_state, *pool_state

    def set_compute_dtype(self, dtype: torch.dtype | None) -> None:
        """Sets the type of the operands of the backbone's large products, such as bf16; None: that of the input."""
        for module in self.modules():
            if hasattr(module, "compute_dtype"):
                module.compute_dtype = dtype

    def frames(
        self,
        x: Tensor,
        prompt: Tensor | None = None,
        place: str = "before_norm",
        views: int = 1,
        updates: RunningUpdates | None = None,
    ) -> Tensor:
        """Frame features. x (views * N, T, F) -> (views * N, T, D).

        prompt: None or a domain prompt for each view, broadcastable to (views * N, T, F); place: where it is added. Before
        the norm (as released), batch statistics cancel it in training; after the norm it has an effect. ValueError for
        another place."""
        check_prompt_place(place)
        if prompt is not None and place == "before_norm":
            x = x + prompt
        x = self.input_norm(x, views, updates)
        if prompt is not None and place == "after_norm":
            x = x + prompt
        if self.recompute and torch.is_grad_enabled():
            return self._in_pieces(x, -(-len(x) // (views * self.recompute)))
        return self.encoder(x, views, updates)

    def _in_pieces(self, x: Tensor, rows: int) -> Tensor:
        """The backbone on `rows` rows at a time, with activation checkpointing: only inputs and outputs are kept, the rest is
        computed again, piece by piece, in the backward pass. Results are those of one call, because the rows of a backbone
        without batch norm are independent; the input norm, which needs the whole batch, comes before."""
        pieces = [checkpoint(self.encoder, p, use_reentrant=False, preserve_rng_state=False) for p in x.split(rows)]
        return torch.cat(pieces)

    def clip(self, frames: Tensor) -> Tensor:
        """Pools frame features (N, T, D) to clip features (N, P)."""
        pool = self.config.pool
        if pool is None:
            return self.encoder.pool(frames)
        last = self.encoder.last(frames) if "last" in pooling.parts_of(pool) else None
        return pooling.pool_frames(frames, last, pool)

    def project(self, clip: Tensor, views: int = 1, updates: RunningUpdates | None = None) -> Tensor:
        """(views * N, P) -> unit vectors (views * N, dim); views, updates: for the head's batch norm, if it has one."""
        return F.normalize(self.fc(clip, views, updates) if self.config.head_norm else self.fc(clip), dim=1)

    def sides(self, x: Tensor) -> list[Tensor]:
        """The inputs (..., F) and, with `both_sides`, their mirror images."""
        return [x, x[..., self.mirror_order] * self.mirror_signs] if self.config.both_sides else [x]

    def joined(self, clips: list[Tensor]) -> Tensor:
        """Clip features (N, P) of the sides -> the clip feature (N, P)."""
        return clips[0] if len(clips) == 1 else torch.maximum(*clips)

    def forward(self, x: Tensor) -> Tensor:
        """The clip feature for downstream tasks. x (N, T, F) -> (N, P)."""
        return self.joined([self.clip(self.frames(side)) for side in self.sides(x)])
