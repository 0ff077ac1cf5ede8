"""What every evaluation program does before and after its own task, as one context: where to evaluate, device, precision,
encoder, both splits, run folder, the head of result.json, and going on after a stop.

    work = Evaluation(args, "ntu60")                 # settles and checks; nothing is written yet
    train, test = work.views()
    with work.folder("action_retrieval", "retrieval", data_of(train, test)) as folder:
        work.say_place(folder, test.clips.names)
        folder.write_json("result.json", work.result("retrieval", "centre crop") | {...})
    return work.status

Data set and protocol that are not asked for are those of the checkpoint, because another split of the same clips has
pretraining clips in its test split. Where that is so nevertheless, by the names of the clips, output and result say it.
Clips that have the encoder's own data set's name and are other clips are refused.
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
from engine.signals import EXIT_STOPPED, LAUNCHER_GRACE, StopRequest
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
    """What is evaluated on: dataset and protocol. trained: data set and protocol of the pretraining, None where the file
    does not say both; defaults: which of the two were the checkpoint's because none was asked for; data: fingerprints of what
    it was trained on, by split, {} where the file does not say it; guessed: which of the two neither the file says nor the user."""

    dataset: str
    protocol: str
    trained: tuple[str, str] | None = None
    defaults: tuple[str, ...] = ()
    data: dict = field(default_factory=dict)
    guessed: tuple[str, ...] = ()

    def default_folder(self, task: str, stream: str, encoder: str = "") -> str:
        """runs/TASK_DATASET_PROTOCOL_ENCODER, with the stream unless it is joint. encoder: its name, see `short_name`; encoders of
        one name share a folder, in which an earlier evaluation's files are set aside."""
        words = [task, self.dataset, self.protocol, *([stream] if stream != "joint" else []), encoder]
        return "runs/" + "_".join(filter(None, words))

    def said(self) -> list[str]:
        """Lines about where data set and protocol come from."""
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
    """Data set and protocol that a checkpoint says it was trained on, None for what it does not say, and the fingerprints of
    its clips by split ({})."""
    encoder = files.find_encoder(files.load(path), path)
    told = encoder.arguments
    found = (told.get("pre_dataset", told.get("dataset")), told.get("protocol"))
    return *(value if isinstance(value, str) else None for value in found), encoder.data


def short_name(title: str) -> str:
    """A word for an encoder, for folders. title: as result.json has it, a checkpoint's path or the name of shipped weights, with
    more in brackets. It is the name of its run folder (with the epoch, unless it is the last), of any other file its own:
    runs/small/checkpoint_last.pth.tar -> small, checkpoint_0100.pth.tar there -> small_0100, my/encoder.pth -> encoder."""
    path = Path(os.path.abspath(title.rsplit(" (", 1)[0]))
    name = re.sub(r"(\.(tar|pth|pt))+$", "", path.name)
    if name.startswith("checkpoint_") or name == "classifier":  # what run folders hold
        name = "_".join([path.parent.name, *([name.removeprefix("checkpoint_")] if path.name != files.LAST else [])])
    return re.sub(r"[^\w.-]+", "_", name)


def find_place(data_root, pretrained: str, dataset: str | None, protocol: str | None, fallback: str) -> Place:
    """Where to evaluate. dataset, protocol: asked for, or None for those of the checkpoint `pretrained` ('' = none), else
    `fallback` and its usual protocol. A checkpoint's protocol counts on its own data set only."""
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
        with as_user_error(f"checkpoint {self.pretrained} on {dataset.row.name}", UserError):
            return dataset.read_as(form_read(self.pretrained, dataset))

    def load(self, dataset: Dataset, seed: int) -> LoadedEncoder:
        """A fresh copy for a seed, on the CPU; UserError when the file does not fit the data set."""
        if self.pretrained:
            return load_encoder(self.pretrained, dataset, self.stream, self.asked)
        config = encoder_config(dataset, self.asked, self.stream or "joint")
        return LoadedEncoder(random_encoder(config, seed), self.stream or "joint", RANDOM)


def ready(loaded: LoadedEncoder, train, compute_dtype: torch.dtype | None, fit=fit_input_norm) -> Encoder:
    """The encoder, where the clips or videos of `train` are rendered. fit(encoder, train): gives a random one its input
    statistics."""
    encoder = loaded.encoder.to(train.device, train.dtype)
    encoder.set_compute_dtype(compute_dtype)
    if loaded.source == RANDOM:
        fit(encoder, train)
    return encoder


def both_splits(args) -> Dataset:
    """The prepared clips of --dataset and --protocol."""
    return find_dataset(args.data_root, args.finetune_dataset, args.protocol, ("train", "val"))


class Evaluation:
    """One evaluation of one encoder, from the arguments of a program: data set, protocol and precision that were not asked for
    are settled, and filled into `args`. A wrong file is refused before anything is read or written.

    place, dataset, device, dtype, compute_dtype; precision: in words; source, first: the encoder's, and a first copy of it
    (None with `encoder` False, where coordinates themselves are the features); stream, title: of the encoder; status: for the
    end of the program. find: opens what the arguments name."""

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
        """Both splits, as the encoder reads them."""
        placement = placement_of(self.args.clips, self.device, self.world)
        where = (self.stream, self.device, self.dtype, placement, self.args.cache_dir, self.scale_by)
        return self.world.main_first(lambda: [open_views(self.dataset, split, *where) for split in ("train", "val")])

    @contextmanager
    def folder(self, program: str, task: str, data: dict, below: str = "", check: bool = True):
        """The run folder while the block lasts; its own name is `task`'s where none was asked for, and `below` is a folder in
        it. data: fingerprints by split; check: refuse other clips of the name of the encoder's own. A program that trains
        (it has --resume) goes on where an earlier start was stopped, and ends with `status` 75 where a signal stops it."""
        args, world = self.args, self.world
        self.data = data
        self.other = check_own_data(self.place, data, args.evaluate_on_other_data) if check else []
        path = Path(args.checkpoint_path or self.place.default_folder(task, self.stream, short_name(self.title)), below)
        args.checkpoint_path = str(path)
        if not hasattr(args, "resume"):
            with RunFolder(path, program, vars(args), data=data) as opened:
                yield opened
            return
        with StopRequest(LAUNCHER_GRACE if world.size > 1 else 0.0) as stop:
            self.progress = Progress(path, vars(args), stop, world, data)
            kept = self.progress.keeps if args.resume == "auto" and self.progress.resume() else None
            opened = world.on_main(lambda: RunFolder(path, program, vars(args), kept, data=data)) or QuietFolder(path)
            with opened:
                try:
                    yield opened
                except Stopped:
                    self.progress.stopped(opened.log)
                    self.status = EXIT_STOPPED

    def say_place(self, folder, test_names) -> None:
        """Says where data set and protocol come from, what is known of the pretraining (`pretraining_of`), and what an earlier
        start has done."""
        self.pretraining = pretraining_of(self.place, self.args.data_root, test_names, self.other)
        say_place(self.place, self.pretraining, self.converted, folder.log)
        for line in self.progress.lines() if hasattr(self.args, "resume") else ():
            folder.log(line)

    def trained(self, folder, train, task: str = "") -> dict[int, dict]:
        """By seed the outcome of a training, by `train(seed, folder, **running)`, or what an earlier start has kept of it
        (`Progress`).

        train: gets what `fit` takes of its surroundings; returns the outcome as a dict that a checkpoint can hold. task: tells
        several trainings of a seed apart."""
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
        """The first entries of every result.json: what was evaluated, on what, how features were taken, what is known of the
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


def last_and_best(outcomes: dict[int, dict]) -> dict:
    """What result.json says of the seeds: `summary`, mean and deviation of every figure after the last and at the best epoch,
    and each seed's own. outcomes: by seed, with `last` and `best`, figures by name and their epoch."""
    seeds = {str(seed): {which: outcome[which] for which in ("last", "best")} for seed, outcome in outcomes.items()}
    summary = {}
    for which in ("last", "best"):
        runs = [{name: value for name, value in o[which].items() if name != "epoch"} for o in outcomes.values()]
        summary[which] = {name: asdict(value) for name, value in summarise_runs(runs).items()}
    return {"summary": summary, "seeds": seeds}


def shares_by_class(confusion: torch.Tensor, classes) -> dict[str, float | None]:
    """Share of right clips of each class by its name, None for a class without clips, of a confusion matrix (K, K)."""
    shares = per_class_accuracy(confusion)
    return {name: None if math.isnan(share) else share for name, share in zip(classes, shares, strict=True)}
