"""An encoder: input norm, backbone, projection head.

`Encoder.frames` gives features of every frame, (N, T, F) -> (N, T, D); `clip` pools to the clip feature (N, P), P = D or a
multiple of it (models.pooling); `project` is the head that only pretraining uses. `forward` is the clip feature of downstream
tasks: with `both_sides` a clip is read as it is and as its mirror image, and each number of the feature is the larger of the
two, so that an exercise done with the left arm is that done with the right one. Pretraining reads one side (its views may be
mirrored).

The backbone between is one of models.backbones. Module names are those of the released files: `input_norm`, `encoder.gru`,
`fc`.

`EncoderConfig` says everything that is needed to build one, and what is done to clips before it reads them; checkpoints
carry it, so that they rebuild themselves.
"""

from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from models import pooling
from models.backbones import BACKBONES
from models.norm import RunningUpdates, ViewNorm
from utils.names import SCALES, SIZES
from utils.skeleton import get_layout

PROMPT_PLACES = ("before_norm", "after_norm")
CHANNELS = (3, 6)
LARGEST = {"num_layers": 256, "depth": 256}  # of numbers that a file or a user may give; 65536 where nothing is said


def check_prompt_place(place: str) -> None:
    """ValueError unless domain prompts can be added there."""
    if place not in PROMPT_PLACES:
        raise ValueError(f"expected prompt_place {' or '.join(PROMPT_PLACES)}, got {place!r}")


def check_size(name: str, value, default) -> None:
    """ValueError unless a size has the type of its default and, if a number, is above 0 and not absurd."""
    kind, largest = type(default), LARGEST.get(name, 65536)
    if kind is float and type(value) is int:
        kind = int
    if type(value) is not kind:
        raise ValueError(f"{name} must be of type {kind.__name__}, got {value!r}")
    if kind in (int, float) and not 0 < value <= largest:
        raise ValueError(f"{name} must be above 0 and at most {largest}, got {value}")


@dataclass(frozen=True)
class EncoderConfig:
    """backbone: a name of models.backbones; layout, joints, channels, persons: what a frame is, F = joints * channels * persons;
    dim: of the projection; mlp: whether the head has a hidden layer (as released); head_norm: whether that layer has a batch
    norm; dimensions: 2 where the third of a joint's coordinates is always 0 (data_gen.normalise says why it stays); pool: how
    frames become the clip feature, None for the backbone's own way (models.pooling); scale_by: what clips are divided by when
    they are read, "none" or "trunk", the length of the trunk (feeder.scale); both_sides: whether the clip feature is that of the
    clip and of its mirror image.

    The others, SIZES, are those of the backbone: what it reads and is None becomes its default; what it does not read
    stays None, and ValueError if it is given. ValueError for a backbone that is not known and for sizes out of range."""

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
            raise ValueError("the head's batch norm is that of its hidden layer, and it has none (mlp is off)")
        if self.scale_by not in SCALES or self.channels not in CHANNELS:
            raise ValueError(
                f"expected scale_by {' or '.join(SCALES)} and 3 or 6 numbers a joint, got {self.scale_by!r} and {self.channels!r}"
            )
        if type(self.both_sides) is not bool:
            raise ValueError(f"both_sides must be true or false, got {self.both_sides!r}")
        reads = BACKBONES[self.backbone].sizes
        for name in SIZES:
            if getattr(self, name) is None:
                object.__setattr__(self, name, reads.get(name))
            elif name not in reads:
                own = ", ".join(reads) or "none"
                raise ValueError(f"the {self.backbone} backbone has no {name}; its sizes are: {own}")
            else:
                check_size(name, getattr(self, name), reads[name])

    @property
    def input_size(self) -> int:
        return self.joints * self.channels * self.persons

    @property
    def sizes(self) -> dict:
        """What the backbone reads, by name."""
        return {name: getattr(self, name) for name in BACKBONES[self.backbone].sizes}

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "EncoderConfig":
        """The configuration that `to_dict` wrote, of this version or an older one; ValueError for a field not known."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(f"its encoder has a setting {unknown[0]!r} that this version does not know")
        return cls(**values)


def mirror_image(config: EncoderConfig) -> tuple[Tensor, Tensor]:
    """(F,) of each number of a frame the one that its mirror image has there, and (F,) its sign: every joint takes the place of
    that on the other side of the body, and x, which runs from shoulder to shoulder, changes its sign (so does its motion).
    UserError for a joint layout that is not known."""
    order = torch.arange(config.input_size).view(config.joints, config.channels, config.persons)
    signs = torch.ones_like(order)
    signs[:, ::3] = -1
    return order[list(get_layout(config.layout).mirrored)].flatten(), signs.flatten()


def xavier_linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(linear.weight)
    return linear


class ProjectionHead(nn.Sequential):
    """Linear, ReLU, Linear; with `norm` a batch norm before the ReLU, which is a ViewNorm: of several views in one call each is
    normalised by itself (see models.norm). The last Linear is xavier-uniform, as released."""

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
    """Input norm, backbone and head. `head=False` builds the encoder of downstream tasks, without `fc`."""

    recompute = 0  # pieces of a view, computed again in the backward pass instead of kept; 0 = off, see `_in_pieces`

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
        """D, of the feature of a frame."""
        return self.encoder.feature_size

    @property
    def clip_size(self) -> int:
        """P, of the feature of a clip."""
        return self.feature_size * (len(pooling.parts_of(self.config.pool)) if self.config.pool else 1)

    @property
    def causal(self) -> bool:
        """Whether frame t's feature depends on frames 0..t only."""
        return self.encoder.causal

    @property
    def streams(self) -> bool:
        """Whether `first_state` and `step` work."""
        return getattr(self.encoder, "streams", False)

    def first_state(self, n: int) -> tuple[Tensor, ...]:
        """The state of n clips before their first frame; batch norms must be in eval mode for `step`."""
        return self.encoder.first_state(n)

    def step(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """One frame x (N, F) of each clip and the state -> its feature (N, D), as `frames` gives it, and the next state."""
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
        """One frame x (N, F) of each clip and the state -> the clip feature (N, P) of all frames so far, as `forward` gives it
        for them, the frame's feature (N, D), and the next state."""
        sides = self.sides(x)
        own = len(state) // len(sides)
        steps = [self._side_step(side, *state[i * own : (i + 1) * own]) for i, side in enumerate(sides)]
        return (
            self.joined([clip for clip, *_ in steps]),
            steps[0][1],
            *(value for _, _, *kept in steps for value in kept),
        )

    def _side_step(self, x: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """`clip_step` of one side."""
        pool = self.config.pool
        if pool is None:
            frame, *state = self.step(x, *state)
            return frame, frame, *state
        own = len(state) - len(pooling.first_state(pool, x[:0]))
        frame, *next_state = self.step(x, *state[:own])
        clip, kept = pooling.step(pool, frame, state[own:])
        return clip, frame, *next_state, *kept

    def set_compute_dtype(self, dtype: torch.dtype | None) -> None:
        """bf16 operands for the large products of the backbone, or None for the input's own type."""
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

        prompt: None or a domain prompt per view, broadcastable to (views * N, T, F); place: where it is added. Before
        the norm (as released) the norm's batch statistics cancel it while training; after the norm it acts. ValueError
        for another place."""
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
        """The backbone on `rows` rows at a time, of which only input and output are kept: what lies between is computed
        again, piece by piece, in the backward pass. The numbers are those of the whole, because the rows of a backbone
        without batch norm do not know each other; the input norm, whose statistics are the whole batch's, is before."""
        pieces = [checkpoint(self.encoder, p, use_reentrant=False, preserve_rng_state=False) for p in x.split(rows)]
        return torch.cat(pieces)

    def clip(self, frames: Tensor) -> Tensor:
        """(N, T, D) -> (N, P)."""
        pool = self.config.pool
        if pool is None:
            return self.encoder.pool(frames)
        last = self.encoder.last(frames) if "last" in pooling.parts_of(pool) else None
        return pooling.pool_frames(frames, last, pool)

    def project(self, clip: Tensor, views: int = 1, updates: RunningUpdates | None = None) -> Tensor:
        """(views * N, P) -> unit vectors (views * N, dim); views, updates: of the head's batch norm, where it has one."""
        return F.normalize(self.fc(clip, views, updates) if self.config.head_norm else self.fc(clip), dim=1)

    def sides(self, x: Tensor) -> list[Tensor]:
        """What of inputs (..., F) is read: they themselves and, with `both_sides`, their mirror images."""
        return [x, x[..., self.mirror_order] * self.mirror_signs] if self.config.both_sides else [x]

    def joined(self, clips: list[Tensor]) -> Tensor:
        """Clip features (N, P) of the sides -> the clip feature (N, P)."""
        return clips[0] if len(clips) == 1 else torch.maximum(*clips)

    def forward(self, x: Tensor) -> Tensor:
        """The clip feature that downstream tasks use. x (N, T, F) -> (N, P)."""
        return self.joined([self.clip(self.frames(side)) for side in self.sides(x)])
