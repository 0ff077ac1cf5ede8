"""What every evaluation program does before and after its own task: where to evaluate, the encoder, both splits, the head
of result.json.

Data set and protocol that are not asked for are those of the checkpoint, because another split of the same clips has
pretraining clips in its test split. Where that is so nevertheless, by the names of the clips, output and result say it.
Clips that have the encoder's own data set's name and are other clips are refused.
"""

from argparse import Namespace
from dataclasses import dataclass, field

import torch

from engine.encoders import LoadedEncoder, encoder_config, fit_input_norm, form_read, load_encoder, random_encoder
from engine.setup import Dataset, find_dataset, find_row
from feeder.evaluation import ClipViews
from models.encoder import Encoder
from options.common import EVERY_POOLING
from utils import checkpoint as files
from utils.arrays import open_split
from utils.errors import UserError
from utils.fingerprint import differences

RANDOM = "random encoder (no --pretrained given)"
USUAL_PROTOCOL = "cross_subject"


@dataclass(frozen=True)
class Place:
    """What is evaluated on: dataset and protocol. trained: data set and protocol of the pretraining, None where the file
    does not say both; defaults: which of the two were the checkpoint's because none was asked for; data: fingerprints of what
    it was trained on, by split, {} where the file does not say it."""

    dataset: str
    protocol: str
    trained: tuple[str, str] | None = None
    defaults: tuple[str, ...] = ()
    data: dict = field(default_factory=dict)

    def default_folder(self, task: str, stream: str) -> str:
        """runs/TASK_DATASET_PROTOCOL, with the stream unless it is joint: two evaluations share no folder by default."""
        words = [task, self.dataset, self.protocol, *([stream] if stream != "joint" else [])]
        return "runs/" + "_".join(words)

    def said(self) -> list[str]:
        """Lines about where data set and protocol come from."""
        if self.trained not in (None, (self.dataset, self.protocol)):
            return [f"pretrained on {' '.join(self.trained)}, evaluated on {self.dataset} {self.protocol}"]
        return [f"{' and '.join(self.defaults)} of the checkpoint: {self.dataset} {self.protocol}"] * bool(
            self.defaults
        )


def training_data(path) -> tuple[str | None, str | None, dict]:
    """Data set and protocol that a checkpoint says it was trained on, None for what it does not say, and the fingerprints of
    its clips by split ({})."""
    encoder = files.find_encoder(files.load(path), path)
    told = encoder.arguments
    found = (told.get("pre_dataset", told.get("dataset")), told.get("protocol"))
    return *(value if isinstance(value, str) else None for value in found), encoder.data


def find_place(data_root, pretrained: str, dataset: str | None, protocol: str | None, fallback: str) -> Place:
    """Where to evaluate. dataset, protocol: asked for, or None for those of the checkpoint `pretrained` ('' = none), else
    `fallback` and its usual protocol. A checkpoint's protocol counts on its own data set only."""
    own_dataset, own_protocol, data = training_data(pretrained) if pretrained else (None, None, {})
    trained = (own_dataset, own_protocol) if own_dataset and own_protocol else None
    defaults = []
    if dataset is None and own_dataset:
        defaults.append("data set")
    chosen = dataset or own_dataset or fallback
    if protocol is None and trained and chosen == own_dataset:
        defaults.append("protocol")
        protocol = own_protocol
    return Place(chosen, protocol or usual_protocol(data_root, chosen), trained, tuple(defaults), data)


def usual_protocol(data_root, dataset: str) -> str:
    """cross_subject, or the first protocol of a data set that has none of this name. UserError for an unknown data set."""
    protocols = find_row(data_root, dataset)[0].protocols
    return USUAL_PROTOCOL if USUAL_PROTOCOL in protocols else next(iter(protocols))


def pretraining_of(place: Place, data_root, test_names, other=()) -> dict | None:
    """What result.json says of the pretraining: its data set and protocol, how many of the test clips have the name of one of
    its clips (None where that cannot be known), and a warning where there are any. None where nothing is known.

    test_names: of the clips, or None for untrimmed videos, whose names are not those of the clips cut from them; other: what
    `check_own_data` found."""
    if place.trained is None:
        return None
    dataset, protocol = place.trained
    about = {"dataset": dataset, "protocol": protocol, "test_clips_seen": 0, "warning": None}
    if other:
        about |= {"warning": f"evaluated on other data than the pretraining's of the same name: {'; '.join(other)}"}
    if place.trained == (place.dataset, place.protocol):
        return about
    remedy = f"for figures of unseen ones: --dataset {dataset} --protocol {protocol}"
    if test_names is None:
        same = dataset == place.dataset
        text = f"pretrained on another split of the same data set ({protocol}): test videos may hold pretraining clips"
        return about | {"test_clips_seen": None if same else 0, "warning": f"{text}; {remedy}" if same else None}
    try:
        found = find_dataset(data_root, dataset, protocol, ("train",))
        split = open_split(found.folder, "train", found.layout.joints, found.row.persons, found.row.num_classes)
    except UserError:
        return about | {"test_clips_seen": None}
    if seen := len(set(split.names) & set(test_names)):
        text = (
            f"{seen} of the {len(test_names)} test clips were pretraining clips ({dataset} {protocol}), by their names"
        )
        about |= {"test_clips_seen": seen, "warning": f"{text}; {remedy}"}
    return about


def data_of(train, test) -> dict:
    """Fingerprints by split of the clips behind two views."""
    return {"train": train.clips.fingerprint, "val": test.clips.fingerprint}


def check_own_data(place: Place, data: dict, allowed: bool) -> list[str]:
    """What differs between the data that an encoder was trained on and `data`, the fingerprints by split of what is under
    the same name now, in words; [] when nothing does, or it is another data set, or the checkpoint does not say it.

    UserError when something differs, unless `allowed`."""
    found = differences(place.data, data) if place.trained == (place.dataset, place.protocol) else []
    if found and not allowed:
        raise UserError(
            f"{place.dataset} {place.protocol} is not the data that the encoder was pretrained on: {'; '.join(found)}; put "
            "that data back, or evaluate on this all the same with --evaluate-on-other-data"
        )
    return found


def say_place(place: Place, pretraining: dict | None, converted: str, say) -> None:
    """Says where data set and protocol come from, what is `converted` for the encoder ('' for nothing), and the warning
    about test clips that were pretrained on."""
    for line in [*place.said(), *([converted] if converted else [])]:
        say(line)
    if pretraining and pretraining["test_clips_seen"] is None:
        say(
            "note: the pretraining clips are not under --data-root, so that no test clip could be looked for among them"
        )
    if pretraining and pretraining["warning"]:
        say(f"warning: {pretraining['warning']}")


@dataclass(frozen=True)
class EncoderSource:
    """Where the encoder of an evaluation comes from. pretrained: a checkpoint, or '' for a random encoder; stream: asked
    for, or None for that of the checkpoint (joint for a random encoder); asked: backbone, sizes, pooling and scaling that were
    given, by name, of the random encoder, or to be held against the checkpoint's (the pooling overrules it)."""

    pretrained: str
    stream: str | None
    asked: dict

    def fit(self, dataset: Dataset) -> Dataset:
        """The data set as the encoder reads it: its clips are converted where they are of another form (`Dataset.converted`
        says how). UserError when the file holds no encoder, or there is no way."""
        if not self.pretrained:
            return dataset
        try:
            return dataset.read_as(form_read(self.pretrained, dataset))
        except UserError as error:
            raise UserError(f"checkpoint {self.pretrained} on {dataset.row.name}: {error}") from None

    def load(self, dataset: Dataset, seed: int) -> LoadedEncoder:
        """A fresh copy for a seed, on the CPU; UserError when the file does not fit the data set."""
        if self.pretrained:
            return load_encoder(self.pretrained, dataset, self.stream, self.asked)
        config = encoder_config(dataset, self.asked, self.stream or "joint")
        return LoadedEncoder(random_encoder(config, seed), self.stream or "joint", RANDOM)

    def ready(self, dataset: Dataset, seed: int, train: ClipViews, compute_dtype: torch.dtype | None) -> Encoder:
        """A fresh copy for a seed, where the clips are rendered; a random one gets the input statistics of `train`."""
        encoder = self.load(dataset, seed).encoder.to(train.device, train.dtype)
        encoder.set_compute_dtype(compute_dtype)
        if not self.pretrained:
            fit_input_norm(encoder, train)
        return encoder


def one_by_one(args, evaluate) -> int:
    """Evaluates under the pooling that was asked for or, for all, under every one, in a folder each, and prints their last
    lines below each other; returns the exit status. evaluate(args, below): does it in the folder `below` its own and returns
    its status, of which any but 0 ends this, and its last line."""
    if args.pool != "all":
        return evaluate(args, "")[0]
    lines = {}
    for pool in EVERY_POOLING:
        status, lines[pool] = evaluate(Namespace(**{**vars(args), "pool": pool}), pool)
        if status:
            return status
    wide = max(map(len, lines))
    print(
        "\n".join(f"{pool.ljust(wide)}  {line}" for pool, line in lines.items() if line), end="\n" * any(lines.values())
    )
    return 0


def open_views(
    dataset: Dataset,
    split: str,
    stream: str,
    device: torch.device,
    dtype: torch.dtype,
    placement: str,
    cache_dir,
    scale_by: str = "none",
) -> ClipViews:
    """The clips of a split as views of a stream, on the device. placement: of the packed clips, see feeder.clips; scale_by: of
    the encoder's configuration."""
    clips = dataset.clips(split, cache_dir).scaled(scale_by, dataset.layout).to(device, placement)
    return ClipViews(clips, torch.tensor(dataset.layout.parents), stream, device=device, dtype=dtype)


def result_head(
    task: str,
    dataset: str,
    protocol: str,
    source: str,
    stream: str,
    features: str,
    pretraining: dict | None,
    data: dict,
) -> dict:
    """The first entries of every result.json: what was evaluated, on what, and how features were taken; pretraining: see
    `pretraining_of`; data: fingerprints of the clips (or videos) by split."""
    return {
        "task": task,
        "dataset": dataset,
        "protocol": protocol,
        "encoder": source,
        "stream": stream,
        "features": features,
        "pretraining": pretraining,
        "data": data,
    }
