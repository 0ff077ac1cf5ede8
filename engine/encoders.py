"""Encoders for downstream tasks: from any supported checkpoint, or random.

The encoder is taken without head and prompts. Its sizes come from the file; the data set must fit them."""

from dataclasses import dataclass, fields

import torch
from torch import nn
from tqdm import tqdm

from engine.setup import Dataset
from feeder.evaluation import ClipViews, in_order
from models.encoder import Encoder, EncoderConfig
from utils import checkpoint as files
from utils.distributed import World
from utils.errors import UserError

ALONE = World()


@dataclass(frozen=True)
class LoadedEncoder:
    """encoder: without head, in eval mode; stream: of its pretraining (joint when the file does not say); source: for
    messages and results."""

    encoder: Encoder
    stream: str
    source: str


def load_encoder(path: str, dataset: Dataset, stream: str | None = None) -> LoadedEncoder:
    """The query encoder of a checkpoint: ours, released, or a relative's.

    stream: asked for by the user, or None for that of the file. UserError when the file holds no encoder, the data set's
    frames do not fit it, or the stream contradicts the file."""
    content = files.load(path)
    found = files.find_encoder(content, path)
    sizes = dict(found.config)
    joints, persons = dataset.layout.joints, dataset.row.persons
    inputs = found.state["input_norm.weight"].shape[0]
    if inputs != joints * 3 * persons:
        raise UserError(
            f"checkpoint {path}: its encoder reads {inputs} numbers a frame, {dataset.row.name} has {joints * 3 * persons} "
            f"({joints} joints x 3 x {persons} persons); use a checkpoint of the same layout and number of persons"
        )
    layout = sizes.get("layout")
    if layout is not None and layout != dataset.layout.name:
        raise UserError(f"checkpoint {path}: trained on layout {layout}, {dataset.row.name} has {dataset.layout.name}")
    sizes |= {"layout": dataset.layout.name, "joints": joints, "persons": persons}
    known = {f.name for f in fields(EncoderConfig)}
    try:
        encoder = Encoder(EncoderConfig(**{k: v for k, v in sizes.items() if k in known}), head=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"checkpoint {path}: {error}") from None
    files.load_into(encoder, found.state, path)
    trained_on = found.arguments.get("stream")
    if stream is not None and trained_on is not None and stream != trained_on:
        raise UserError(
            f"checkpoint {path}: trained on the {trained_on} stream; leave --stream out, or give --stream {trained_on}"
        )
    epoch = "" if found.epoch is None else f", epoch {found.epoch}"
    return LoadedEncoder(encoder.eval(), stream or trained_on or "joint", f"{path} ({found.kind}{epoch})")


@torch.no_grad()
def fit_norm(encoder: Encoder, batches) -> None:
    """Sets the input norm's running statistics to those of all frames of `batches` of inputs (n, T, F), for a random
    encoder, which has seen no data."""
    count, mean, square = 0, 0.0, 0.0
    for x in batches:
        x = x.flatten(0, 1).double()
        count, mean, square = count + len(x), mean + x.sum(0), square + x.square().sum(0)
    mean = mean / count
    variance = (square / count - mean.square()).clamp_min(0) * count / max(count - 1, 1)
    encoder.input_norm.running_mean.copy_(mean)
    encoder.input_norm.running_var.copy_(variance)


def fit_input_norm(encoder: Encoder, views: ClipViews, batch: int = 256) -> None:
    """`fit_norm` by the centre crops of a split."""
    fit_norm(encoder, (views.centre(index) for index in in_order(len(views), batch)))


def random_encoder(sizes: EncoderConfig, seed: int) -> Encoder:
    """An encoder with random weights from a seed, in eval mode, without head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(sizes, head=False).eval()


@torch.no_grad()
def clip_features(
    encoder: nn.Module, views: ClipViews, batch: int = 256, quiet: bool | None = None, world: World = ALONE
) -> torch.Tensor:
    """Clip features (N, D) of the centre crops, on the CPU; memory holds the features and one batch.

    quiet: no bar; None = a bar on a terminal only. The processes of `world` take the batches in turns, and every one gets
    all features, bit for bit those of one process."""
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
    """Features (n, D) of each batch of indices of a turn (see `in_turns`), each computed by one process of `world`.

    view: indices -> (n, T, F). Without gradient where there are several processes."""
    if world.size == 1:
        return [encoder(view(index)) for index in turn]
    own = turn[world.rank] if world.rank < len(turn) else turn[-1]  # those without work repeat the last batch
    features = encoder(view(own))
    most = max(len(index) for index in turn)
    padded = torch.cat([features, features.new_zeros(most - len(features), features.shape[1])])
    parts = world.gather(padded, "features").split(most)
    return [part[: len(index)] for part, index in zip(parts, turn, strict=False)]


def snapshot(module: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all parameters and buffers."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def moved(module: nn.Module, before: dict[str, torch.Tensor]) -> list[str]:
    """Names of parameters and buffers that are not bit-for-bit what they were."""
    return [name for name, value in module.state_dict().items() if not torch.equal(value, before[name])]
