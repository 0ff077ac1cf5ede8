"""The common part of evaluation programs: data set, device, precision, encoder, both splits, run folder, the first entries of
result.json, and resuming.

    work = Evaluation(args, "ntu60")                 # fills in defaults and checks; writes nothing yet
    train, test = work.views()
    with work.folder("action_retrieval", "retrieval", data_of(train, test)) as folder:
        work.log_place(folder, test.clips.names)
        folder.write_json("result.json", work.result("retrieval", "centre crop") | {...})
    return work.status

The default data set and protocol are those of the checkpoint, because the test split of another protocol contains pretraining
clips. If test clips were pretraining clips nevertheless, by their names, log and result say so. Clips that have the name of the
pretraining data set but other content are refused.
"""

import math
import os
import re
from argparse import Namespace
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch

from engine.encoders import (
    ALONE,
    LoadedEncoder,
    encoder_config,
    fit_input_norm,
    form_read,
    load_encoder,
    random_encoder,
)
from engine.progress import Progress, Stopped, in_words
from engine.setup import (
    Dataset,
    choose_precision,
    find_dataset,
    find_row,
    placement_of,
    resolve_device,
    resolve_precision,
)
from engine.signals import EXIT_STOPPED, StopRequest
from feeder.evaluation import ClipViews
from models.encoder import Encoder
from options.backbones import encoder_flags
from options.common import EVERY_POOLING
from utils import checkpoint as files
from utils.arrays import open_split
from utils.distributed import World
from utils.errors import UserError, as_user_error
from utils.fingerprint import differences
from utils.metrics import per_class_accuracy, summarise_runs
from utils.run_folder import QuietFolder, RunFolder

RANDOM = "random encoder (no --pretrained given)"
USUAL_PROTOCOL = "cross_subject"


@dataclass(frozen=True)
class Place:
    """Data set and protocol of an evaluation. trained: data set and protocol of the pretraining, None if the file does not say
    both; defaults: which of the two were taken from the checkpoint; data: fingerprints of the pretraining data by split, {} if
    the file does not say; guessed: which of the two are given by neither the file nor the user."""

    dataset: str
    protocol: str
    trained: tuple[str, str] | None = None
    defaults: tuple[str, ...] = ()
    data: dict = field(default_factory=dict)
    guessed: tuple[str, ...] = ()

    def default_folder(self, task: str, stream: str, encoder: str = "") -> str:
        """runs/TASK_DATASET_PROTOCOL_ENCODER, with the stream unless it is joint. encoder: its name, see `short_name`; encoders
        with equal names share a folder, where the files of the earlier evaluation are moved to a subfolder."""
        words = [task, self.dataset, self.protocol, *([stream] if stream != "joint" else []), encoder]
        return "runs/" + "_".join(filter(None, words))

    def notes(self) -> list[str]:
        """Log lines about the origin of data set and protocol."""
        if self.guessed:
            return [
                f"note: the file does not say its {' and '.join(self.guessed)}; evaluated on {self.dataset} {self.protocol}. "
                "Where it was pretrained on another protocol of this data, test clips were pretraining clips: give "
                "--dataset and --protocol"
            ]
        if self.trained not in (None, (self.dataset, self.protocol)):
            return [f"pretrained on {' '.join(self.trained)}, evaluated on {self.dataset} {self.protocol}"]
        return [f"{' and '.join(self.defaults)} of the checkpoint: {self.dataset} {self.protocol}"] * bool(
            self.defaults
        )


def training_data(path) -> tuple[str | None, str | None, dict]:
    """Data set and protocol of a checkpoint's training, None for what it does not say, and the fingerprints of its clips by split
    ({} if it does not say)."""
    encoder = files.find_encoder(files.load(path), path)
    arguments = encoder.arguments
    found = (arguments.get("pre_dataset", arguments.get("dataset")), arguments.get("protocol"))
    return *(value if isinstance(value, str) else None for value in found), encoder.data


def short_name(title: str) -> str:
    """A short name of an encoder, for folders. title: as in result.json, a checkpoint's path or the name of shipped weights, with
    more in brackets. For a checkpoint of a run it is the name of the run folder (and the epoch, unless it is the last), else
    that of the file: runs/small/checkpoint_last.pth.tar -> small, runs/small/checkpoint_0100.pth.tar -> small_0100,
    my/encoder.pth -> encoder."""
    path = Path(os.path.abspath(title.rsplit(" (", 1)[0]))
    name = re.sub(r"(\.(tar|pth|pt))+$", "", path.name)
    if name.startswith("checkpoint_") or name == "classifier":  # a file of a run folder
        name = "_".join([path.parent.name, *([name.removeprefix("checkpoint_")] if path.name != files.LAST else [])])
    return re.sub(r"[^\w.-]+", "_", name)


def find_place(data_root, pretrained: str, dataset: str | None, protocol: str | None, fallback: str) -> Place:
    """The data set and protocol to evaluate on. dataset, protocol: given by the user, or None for those of the checkpoint
    `pretrained` ('' for none), else `fallback` and its usual protocol. The checkpoint's protocol applies to its own data set
    only."""
    own_dataset, own_protocol, data = training_data(pretrained) if pretrained else (None, None, {})
    trained = (own_dataset, own_protocol) if own_dataset and own_protocol else None
    defaults = []
    asked = (("data set", dataset, own_dataset), ("protocol", protocol, own_protocol))
    guessed = tuple(word for word, given, said in asked if pretrained and given is None and said is None)
    if dataset is None and own_dataset:
        defaults.append("data set")
    chosen = dataset or own_dataset or fallback
    if protocol is None and trained and chosen == own_dataset:
        defaults.append("protocol")
        protocol = own_protocol
    return Place(chosen, protocol or usual_protocol(data_root, chosen), trained, tuple(defaults), data, guessed)


def usual_protocol(data_root, dataset: str) -> str:
    """cross_subject, or the first protocol of a data set without it. UserError for an unknown data set."""
    protocols = find_row(data_root, dataset)[0].protocols
    return USUAL_PROTOCOL if USUAL_PROTOCOL in protocols else next(iter(protocols))


def pretraining_of(place: Place, data_root, test_names, other=()) -> dict | None:
    """The entry of result.json about the pretraining: its data set and protocol, how many test clips have the name of a pretraining
    clip (None if unknown), and a warning if there are any. None if the pretraining is unknown.

    test_names: of the clips, or None for untrimmed videos, whose names differ from those of the clips cut from them; other: the
    result of `check_own_data`."""
    if place.trained is None:
        return None
    dataset, protocol = place.trained
    about = {"dataset": dataset, "protocol": protocol, "test_clips_seen": 0, "warning": None}
    if other:
        about |= {"warning": f"the data differs from the pretraining data of the same name: {'; '.join(other)}"}
    if place.trained == (place.dataset, place.protocol):
        return about
    remedy = f"for unseen test clips give --dataset {dataset} --protocol {protocol}"
    if test_names is None:
        same = dataset == place.dataset
        text = (
            f"pretrained on another split of the same data set ({protocol}): test videos may contain pretraining clips"
        )
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
    """Fingerprints of the clips of both views, by split."""
    return {"train": train.clips.fingerprint, "val": test.clips.fingerprint}


def check_own_data(place: Place, data: dict, allowed: bool) -> list[str]:
    """The differences, in words, between the pretraining data and `data`, the fingerprints of the clips that now have its name; []
    if there are none, if this is another data set, or if the checkpoint does not say.

    UserError if there are differences, unless `allowed`."""
    found = differences(place.data, data) if place.trained == (place.dataset, place.protocol) else []
    if found and not allowed:
        raise UserError(
            f"{place.dataset} {place.protocol} is not the data that the encoder was pretrained on: {'; '.join(found)}; restore "
            "that data, or evaluate on this data with --evaluate-on-other-data"
        )
    return found


def log_place(place: Place, pretraining: dict | None, converted: str, say) -> None:
    """Prints, by `say`, the origin of data set and protocol, how clips are `converted` for the encoder ('' for not at all), and the
    warning about test clips that were pretraining clips."""
    for line in [*place.notes(), *([converted] if converted else [])]:
        say(line)
    if pretraining and pretraining["test_clips_seen"] is None:
        say("note: the pretraining clips are not under --data-root, so it is unknown whether test clips are among them")
    if pretraining and pretraining["warning"]:
        say(f"warning: {pretraining['warning']}")


@dataclass(frozen=True)
class EncoderSource:
    """The encoder of an evaluation. pretrained: a checkpoint, or '' for a random encoder; stream: given by the user, or None for
    that of the checkpoint (joint for a random encoder); asked: backbone, sizes, pooling and scaling given by the user, by name:
    those of a random encoder; they must equal those of a checkpoint, except the pooling, which overrides it."""

    pretrained: str
    stream: str | None
    asked: dict

    def fit(self, dataset: Dataset) -> Dataset:
        """The data set in the form that the encoder reads, with clips converted if they have another one (`Dataset.converted` says
        how). UserError when the file holds no encoder, or the conversion is not possible."""
        if not self.pretrained:
            return dataset
        with as_user_error(f"checkpoint {self.pretrained} on {dataset.row.name}", UserError):
            return dataset.read_as(form_read(self.pretrained, dataset))

    def load(self, dataset: Dataset, seed: int) -> LoadedEncoder:
        """A new copy of the encoder, on the CPU; seed: of a random one. UserError when the file does not fit the data set."""
        if self.pretrained:
            return load_encoder(self.pretrained, dataset, self.stream, self.asked)
        config = encoder_config(dataset, self.asked, self.stream or "joint")
        return LoadedEncoder(random_encoder(config, seed), self.stream or "joint", RANDOM)


def ready(loaded: LoadedEncoder, train, compute_dtype: torch.dtype | None, fit=fit_input_norm) -> Encoder:
    """The encoder on the device and in the dtype of `train`. fit(encoder, train): sets the input statistics of a random one."""
    encoder = loaded.encoder.to(train.device, train.dtype)
    encoder.set_compute_dtype(compute_dtype)
    if loaded.source == RANDOM:
        fit(encoder, train)
    return encoder


def both_splits(args) -> Dataset:
    """The prepared clips of --dataset and --protocol."""
    return find_dataset(args.data_root, args.finetune_dataset, args.protocol, ("train", "val"))


class Evaluation:
    """One evaluation of one encoder, from the arguments of a program; fills in data set, protocol and precision in `args` (in
    place) if they were not given. A wrong file is refused before clips are read or anything is written.

    Attributes: place, dataset, device, dtype, compute_dtype; precision: in words; source, first: the EncoderSource and a first
    copy of the encoder (None with `encoder` False, where raw coordinates are the features); stream, title: of the encoder;
    status: exit status of the program. find(args): opens the data set."""

    def __init__(self, args, fallback: str, world: World = ALONE, find=both_splits, encoder: bool = True):
        self.args, self.world, self.status = args, world, 0
        self.device = resolve_device(args.device)
        self.place = find_place(args.data_root, args.pretrained, args.finetune_dataset, args.protocol, fallback)
        args.finetune_dataset, args.protocol = self.place.dataset, self.place.protocol
        self.dataset = world.main_first(lambda: find(args))
        self.source = self.first = None
        self.stream, self.title, backbone, self.scale_by = args.stream or "joint", "", "", "none"
        if encoder:
            self.source = EncoderSource(args.pretrained, args.stream, encoder_flags(args))
            self.dataset = self.source.fit(self.dataset)
            self.first = self.source.load(self.dataset, args.seed[0])
            self.stream, self.title = self.first.stream, self.first.source
            backbone, self.scale_by = self.first.encoder.config.backbone, self.first.encoder.config.scale_by
        args.precision, self.precision = world.broadcast(
            world.on_main(lambda: choose_precision(args.precision, self.device, backbone))
        )
        self.dtype, self.compute_dtype = resolve_precision(args.precision)
        self.converted = self.dataset.converted

    def views(self) -> list[ClipViews]:
        """Both splits, in the form that the encoder reads."""
        placement = placement_of(self.args.clips, self.device, self.world)
        where = (self.stream, self.device, self.dtype, placement, self.args.cache_dir, self.scale_by)
        return self.world.main_first(lambda: [open_views(self.dataset, split, *where) for split in ("train", "val")])

    @contextmanager
    def folder(self, program: str, task: str, data: dict, below: str = "", check: bool = True):
        """A context with the open run folder: --output, or a default name from `task`; below: a subfolder of it. data:
        fingerprints by split; check: refuse clips that differ from the pretraining data of the same name. A program that trains
        (it has --resume) resumes where an earlier start was stopped, and gets `status` 75 if a signal stops it."""
        args, world = self.args, self.world
        self.data = data
        self.other = check_own_data(self.place, data, args.evaluate_on_other_data) if check else []
        path = Path(args.checkpoint_path or self.place.default_folder(task, self.stream, short_name(self.title)), below)
        args.checkpoint_path = str(path)
        if not hasattr(args, "resume"):
            with RunFolder(path, program, vars(args), data=data) as opened:
                yield opened
            return
        with StopRequest(launched=world.size > 1) as stop:
            self.progress = Progress(path, vars(args), stop, world, data)
            kept = self.progress.keeps if args.resume == "auto" and self.progress.resume() else None
            opened = world.on_main(lambda: RunFolder(path, program, vars(args), kept, data=data)) or QuietFolder(path)
            with opened:
                try:
                    yield opened
                except Stopped:
                    self.progress.stopped(opened.log)
                    self.status = EXIT_STOPPED

    def log_place(self, folder, test_names) -> None:
        """Logs the origin of data set and protocol, what is known about the pretraining (`pretraining_of`), and what an earlier
        start has done."""
        self.pretraining = pretraining_of(self.place, self.args.data_root, test_names, self.other)
        log_place(self.place, self.pretraining, self.converted, folder.log)
        for line in self.progress.lines() if hasattr(self.args, "resume") else ():
            folder.log(line)

    def trained(self, folder, train, task: str = "") -> dict[int, dict]:
        """{seed: outcome} of a training for every seed, by `train(seed, folder, **running)`, or, if an earlier start has finished
        it, from `Progress`.

        train: gets title, log, say, state and after_step for `fit`; returns the outcome as a dict that a checkpoint can hold. task:
        a prefix that distinguishes several trainings of a seed."""
        return {
            seed: self._trained(folder, f"{task}seed{seed}", partial(train, seed, folder)) for seed in self.args.seed
        }

    def _trained(self, folder, name: str, train) -> dict:
        if name not in self.progress.finished:

            def log(epoch: int, values: dict) -> None:
                folder.metrics(epoch, {f"{name}/{key}": value for key, value in values.items()})

            running = {"title": in_words(name), "log": log, "say": folder.log}
            state, watch = self.progress.state_of(name), self.progress.watch(name)
            self.progress.finish(name, train(**running, state=state, after_step=watch))
        return self.progress.finished[name]

    def result(self, task: str, features: str) -> dict:
        """The first entries of every result.json: task, data set, encoder, how features were computed, what is known about the
        pretraining (`pretraining_of`), and the fingerprints of the clips (or videos) by split."""
        return {
            "task": task,
            "dataset": self.place.dataset,
            "protocol": self.place.protocol,
            "encoder": self.title,
            "stream": self.stream,
            "features": features,
            "pretraining": self.pretraining,
            "data": self.data,
        }


def for_each_pooling(args, evaluate) -> int:
    """Evaluates with the pooling of --pool, or, with --pool all, with each in its own folder, and prints their last lines as a
    table; returns the exit status. evaluate(args, below): evaluates in the subfolder `below`; returns its status, which ends the
    loop unless it is 0, and its last line."""
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
    """Views of a stream for the clips of a split, on the device. placement: of the packed clips, see feeder.clips; scale_by: of the
    encoder's configuration."""
    clips = dataset.clips(split, cache_dir).scaled(scale_by, dataset.layout).to(device, placement)
    return ClipViews(clips, torch.tensor(dataset.layout.parents), stream, device=device, dtype=dtype)


def last_and_best(outcomes: dict[int, dict]) -> dict:
    """The entries of result.json about the seeds: `summary`, mean and standard deviation of every figure in the last and the best
    epoch, and `seeds`, the figures of each. outcomes: by seed, with `last` and `best`, figures by name and their epoch."""
    seeds = {str(seed): {which: outcome[which] for which in ("last", "best")} for seed, outcome in outcomes.items()}
    summary = {}
    for which in ("last", "best"):
        runs = [{name: value for name, value in o[which].items() if name != "epoch"} for o in outcomes.values()]
        summary[which] = {name: asdict(value) for name, value in summarise_runs(runs).items()}
    return {"summary": summary, "seeds": seeds}


def shares_by_class(confusion: torch.Tensor, classes) -> dict[str, float | None]:
    """Accuracy of each class by its name, None for a class without clips, from a confusion matrix (K, K)."""
    shares = per_class_accuracy(confusion)
    return {name: None if math.isnan(share) else share for name, share in zip(classes, shares, strict=True)}
