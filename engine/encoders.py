"""Encoders for downstream tasks: loaded from any supported checkpoint, or random; and the features of a split by them.

An encoder is loaded without head and prompts. Its sizes come from the file; the data set must fit them."""

from dataclasses import dataclass, replace

import torch
from torch import nn
from tqdm import tqdm

from engine.setup import Dataset
from engine.transfer import FrameForm
from feeder.evaluation import ClipViews, in_order
from feeder.render import channels_of
from models.encoder import CHANNELS, Encoder, EncoderConfig
from models.norm import ViewNorm
from utils import checkpoint as files
from utils.distributed import World
from utils.errors import UserError, as_user_error
from utils.names import SIZES
from utils.skeleton import LAYOUTS, Layout, get_layout

ALONE = World()
OVERRULING = ("pool", "both_sides")  # how features are pooled: a given flag overrides the checkpoint


@dataclass(frozen=True)
class LoadedEncoder:
    """encoder: without head, in eval mode; stream: of its pretraining (joint if the file does not say); source: its name in
    messages and results."""

    encoder: Encoder
    stream: str
    source: str


def encoder_config(dataset: Dataset, given: dict, stream: str = "joint", **head) -> EncoderConfig:
    """The configuration of a new encoder for the clips of `dataset`. given: the flags of backbone, sizes, pooling and scaling that
    were given, by name; stream: of its input; head: dim, mlp and head_norm.

    UserError for an unknown backbone, and for sizes that it cannot have."""
    layout, persons = dataset.layout, dataset.row.persons
    given = given | {"dimensions": dataset.row.dimensions}
    with as_user_error(f"--backbone {given.get('backbone', 'gru')}"):
        frame = {"layout": layout.name, "joints": layout.joints, "channels": channels_of(stream), "persons": persons}
        return EncoderConfig(**frame, **given, **head)


def check_same_backbone(found: dict, asked: dict, path) -> None:
    """UserError, with both values, when a checkpoint's encoder has another backbone, size or scaling than was given.

    found: configuration of the encoder in the file; asked: given values by the same names, None where not given."""
    for name in ("backbone", *SIZES, "scale_by"):
        has, wanted = found.get(name), asked.get(name)
        if has is not None and wanted is not None and has != wanted:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"checkpoint {path}: its encoder has {flag} {has}, not {flag} {wanted}; leave {flag} out")


def load_encoder(path: str, dataset: Dataset, stream: str | None = None, asked: dict | None = None) -> LoadedEncoder:
    """The query encoder of a checkpoint: ours, released, or of a related method.

    stream: given by the user, or None for that of the file; asked: backbone, sizes and scaling, likewise, and OVERRULING, which
    override the file. UserError when the file holds no encoder, when the frames of the data set do not fit it, or when
    stream, backbone, sizes or scaling contradict the file."""
    found = files.find_encoder(files.load(path), path)
    read, given = _form(found, path, dataset.form), dataset.form
    if read != given:
        raise UserError(
            f"checkpoint {path}: its encoder reads {read} ({input_size(found)} numbers a frame), {dataset.row.name} has {given}; "
            "use a checkpoint of the same layout and number of persons"
        )
    return build_encoder(found, path, given.layout, given.persons, stream, asked)


def form_read(path: str, dataset: Dataset) -> FrameForm:
    """Joint layout, persons and dimensions that a checkpoint's encoder reads. If the file does not say them, those of the data set
    if its input size fits, else those that the input size implies (`frame_of`). UserError when the file holds no encoder, or
    nothing fits."""
    return _form(files.find_encoder(files.load(path), path), path, dataset.form)


def _form(found: files.FoundEncoder, path, given: FrameForm) -> FrameForm:
    fits = input_size(found) == given.layout.joints * channels_in(found, path) * given.persons
    said = found.config.get("layout") is not None
    layout, persons = (given.layout, given.persons) if fits and not said else frame_of(found, path)
    return FrameForm(layout, persons, dimensions_of(found, path))


def dimensions_of(found: files.FoundEncoder, path) -> int:
    """2 for an encoder of planar (image) coordinates, else 3; UserError where a file says anything else."""
    dimensions = found.config.get("dimensions", 3)
    if type(dimensions) is not int or dimensions not in (2, 3):
        raise UserError(f"checkpoint {path}: its dimensions are {dimensions!r}, expected 2 or 3")
    return dimensions


def input_size(found: files.FoundEncoder) -> int:
    """F, the size of an encoder's input for one frame."""
    return found.state["input_norm.weight"].numel()


def channels_in(found: files.FoundEncoder, path) -> int:
    """Input channels of a joint, 3 if the file does not say."""
    channels = found.config.get("channels", 3)
    if channels not in CHANNELS or type(channels) is not int:
        raise UserError(f"checkpoint {path}: it reads {channels!r} numbers a joint, expected 3 or 6")
    return channels


def frame_of(found: files.FoundEncoder, path, layout: str | None = None, persons: int | None = None):
    """Joint layout and number of persons of an encoder's frames, for use without a data set.

    layout, persons: given by the user. Our files say both; for others they are inferred from the input size, among the known
    layouts with one or two persons. UserError when a given value contradicts the file, or nothing fits."""
    inputs, channels, said = input_size(found), channels_in(found, path), found.config.get("layout")
    number_said = found.config.get("persons")
    for name, value, kind in (("layout", said, str), ("persons", number_said, int)):
        if value is not None and not isinstance(value, kind):
            raise UserError(f"checkpoint {path}: its {name} is {value!r}, expected {kind.__name__}")
    if layout is not None and said is not None and layout != said:
        raise UserError(f"checkpoint {path}: trained on layout {said}, not {layout}; leave the layout out")
    wanted = [get_layout(layout or said)] if layout or said else list(LAYOUTS.values())
    for one in wanted:
        for number in (persons,) if persons else (number_said, 2, 1):
            if number and inputs == one.joints * channels * number:
                return one, number
    shown = ", ".join(f"{one.name} ({one.joints} joints)" for one in wanted)
    what = f"{persons} persons" if persons else "1 or 2 persons"
    raise UserError(
        f"checkpoint {path}: its encoder reads {inputs} numbers a frame, which is joints x {channels} x {what} of no layout of "
        f"{shown}; give its layout and number of persons"
    )


def build_encoder(
    found: files.FoundEncoder, path, layout: Layout, persons: int, stream: str | None, asked: dict | None
) -> LoadedEncoder:
    """Builds the encoder found in a file, for frames of a layout and number of persons. Raises as `load_encoder`."""
    sizes = found.config | {"layout": layout.name, "joints": layout.joints, "persons": persons}
    with as_user_error(f"checkpoint {path}", TypeError, ValueError):
        config = EncoderConfig.from_dict(sizes)
        check_same_backbone(config.to_dict(), asked or {}, path)
        config = replace(config, **{name: value for name, value in (asked or {}).items() if name in OVERRULING})
        encoder = Encoder(config, head=False)
    files.load_into(encoder, found.state, path)
    trained_on = found.arguments.get("stream")
    if stream is not None and trained_on is not None and stream != trained_on:
        raise UserError(
            f"checkpoint {path}: trained on the {trained_on} stream; leave --stream out, or give --stream {trained_on}"
        )
    stream = stream or trained_on or "joint"
    if channels_of(stream) != config.channels:
        raise UserError(
            f"checkpoint {path}: its encoder reads {config.channels} numbers a joint, the {stream} stream has "
            f"{channels_of(stream)}; give --stream {'joint_motion' if config.channels == 6 else 'joint'}"
        )
    epoch = "" if found.epoch is None else f", epoch {found.epoch}"
    return LoadedEncoder(encoder.eval(), stream, f"{path} ({found.kind}{epoch})")


@torch.no_grad()
def fit_norm(encoder: Encoder, batches) -> None:
    """Sets the input statistics of a random encoder, which has seen no data, to those of all frames of `batches` of inputs
    (n, T, F), then the statistics of norms inside the backbone to those of the first batch."""
    count, mean, square, first = 0, 0.0, 0.0, None
    for x in batches:
        first = x if first is None else first
        x = x.flatten(0, 1).double()
        count, mean, square = count + len(x), mean + x.sum(0), square + x.square().sum(0)
    mean = mean / count
    variance = (square / count - mean.square()).clamp_min(0) * count / max(count - 1, 1)
    encoder.input_norm.running_mean.copy_(mean)
    encoder.input_norm.running_var.copy_(variance)
    inside = [module for module in encoder.encoder.modules() if isinstance(module, ViewNorm)]
    if inside:
        _fit_inside(encoder, first, inside)


def _fit_inside(encoder: Encoder, x: torch.Tensor, norms: list[ViewNorm]) -> None:
    """Sets the statistics of the backbone's norms by one pass of x (n, T, F); leaves the encoder's mode unchanged."""
    kept = [norm.momentum for norm in norms]
    was_training = encoder.training
    encoder.eval()
    encoder.encoder.train()
    for norm in norms:
        norm.momentum = 1.0
    encoder.frames(x)
    for norm, momentum in zip(norms, kept, strict=True):
        norm.momentum = momentum
    encoder.train(was_training)


def fit_input_norm(encoder: Encoder, views: ClipViews, batch: int = 256) -> None:
    """`fit_norm` on the centre crops of a split."""
    fit_norm(encoder, (views.centre(index) for index in in_order(len(views), batch)))


def random_encoder(sizes: EncoderConfig, seed: int) -> Encoder:
    """An encoder with random weights, sampled by the seed, in eval mode, without head. UserError for sizes it cannot have."""
    with as_user_error(f"--backbone {sizes.backbone}"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(sizes, head=False).eval()


@torch.no_grad()
def clip_features(
    encoder: nn.Module, views: ClipViews, batch: int = 256, quiet: bool | None = None, world: World = ALONE
) -> torch.Tensor:
    """Clip features (N, D) of the centre crops, on the CPU; memory holds the features and one batch.

    quiet: True for no progress bar, None for a bar on a terminal only. The processes of `world` take the batches in turn; each
    gets all features, bit for bit those of one process."""
    out = None
    encoder.eval()
    rounds = in_turns(in_order(len(views), batch), world.size)
    quiet = quiet if world.is_main else True
    for turn in tqdm(rounds, desc="features", unit="batch", disable=quiet, leave=False):
        for index, features in zip(turn, encode_turn(encoder, turn, views.centre, world), strict=True):
            if out is None:
                out = torch.empty(len(views), features.shape[1], dtype=features.dtype)
            out[index] = features.cpu()
    return out


def in_turns(batches: list[torch.Tensor], size: int) -> list[list[torch.Tensor]]:
    """The batches in groups of `size`, one for each process; the last group may be smaller."""
    return [batches[i : i + size] for i in range(0, len(batches), size)]


def encode_turn(encoder: nn.Module, turn: list[torch.Tensor], view, world: World) -> list[torch.Tensor]:
    """Features (n, D) of each batch of indices of a turn (see `in_turns`), each batch encoded by one process of `world`.

    view: indices -> (n, T, F). Several processes compute without gradients."""
    if world.size == 1:
        return [encoder(view(index)) for index in turn]
    own = turn[world.rank] if world.rank < len(turn) else turn[-1]  # idle processes repeat the last batch
    features = encoder(view(own))
    most = max(len(index) for index in turn)
    padded = torch.cat([features, features.new_zeros(most - len(features), features.shape[1])])
    parts = world.gather(padded, "features").split(most)
    return [part[: len(index)] for part, index in zip(parts, turn, strict=False)]


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all parameters and buffers."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def moved(module: nn.Module, before: dict[str, torch.Tensor]) -> list[str]:
    """Names of parameters and buffers that differ from the snapshot `before`."""
    return [name for name, value in module.state_dict().items() if not torch.equal(value, before[name])]
