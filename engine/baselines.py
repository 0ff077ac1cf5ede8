"""Baselines: the accuracy on a data set without pretraining, beside that of pretrained encoders, all by the same classifiers.

    python -m engine.baselines --dataset ui_prmd_quality --pretrained runs/joint/checkpoint_last.pth.tar

Rows, each evaluated by logistic regression (`engine.probes`: its strength is chosen on the training split) and by 1-NN:

* raw joints: every fourth frame of the centre crop, flattened, no encoder; as prepared, divided by the length of the trunk,
  with motion in addition to the coordinates; bones in place of joints; and bones with a mirrored copy of every training clip,
  because some people are left-handed;
* the random encoder, of the size of the first pretrained one (and with --both-sides if that one has it), with every pooling.
  A recurrent network with random weights keeps much of its input, and least of it in its last frame;
* the same encoder trained with labels (--supervised), with the same pooling and views;
* every checkpoint of --pretrained, with its own pooling or --pool.

--few-labels adds the curve of `engine.label_curve`: few_labels.md, few_labels.png.

The best baseline of each figure is chosen on the test split. This favours the baselines, so that an encoder above all of them
is not there by choice. `engine.results` and reports read `result.json` like any other.
"""

import sys

from options.baselines import DEFAULT_DATASET, parse_args

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant

import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from engine import label_curve
from engine.encoders import LoadedEncoder, encoder_config, fit_input_norm, load_encoder, random_encoder
from engine.evaluation import (
    EncoderSource,
    Place,
    check_own_data,
    data_of,
    find_place,
    log_place,
    open_views,
    pretraining_of,
)
from engine.probes import ProbeResult, folds_of, probe, share
from engine.setup import Dataset, choose_precision, find_dataset, prepare_process, resolve_device, resolve_precision
from engine.supervised import PLAIN, settings_of, train_supervised
from feeder.batches import Batches
from feeder.evaluation import ClipViews, in_order
from feeder.sampling import ViewSettings
from models.encoder import Encoder, EncoderConfig
from options.backbones import encoder_flags
from utils import checkpoint as files
from utils.distributed import require_one_process
from utils.errors import run
from utils.files import atomic_write
from utils.metrics import summarise
from utils.run_folder import RunFolder
from utils.skeleton import Layout

POOLS = ("last", "mean", "max", "mean_std", "last_max", "mean_max_std")
RAW = (  # name of the row, stream, scale_by, whether a mirrored copy of the training clips is added
    ("raw joints, as prepared", "joint", "none", False),
    ("raw joints, by trunk length", "joint", "trunk", False),
    ("raw joints, by trunk length, with motion", "joint_motion", "trunk", False),
    ("raw bones, by trunk length", "bone", "trunk", False),
    ("raw bones, by trunk length, mirrored too", "bone", "trunk", True),
)
RAW_STEP = 4  # every fourth of the 64 frames of a centre crop: all of them give the same figures in four times the time
FIGURES = ("linear", "cosine", "euclidean")
HEADS = ("linear %", "1-NN cosine %", "1-NN Euclidean %")
LABEL_FREE, LABELS, PRETRAINED = "label-free", "labels", "pretrained"


@dataclass(frozen=True)
class Row:
    """A line of the table. kind: LABEL_FREE, LABELS or PRETRAINED; runs: a ProbeResult for each seed; features: of both splits,
    of the last seed; the training part may hold several copies of the clips."""

    name: str
    kind: str
    runs: list[ProbeResult]
    features: tuple[Tensor, Tensor] = field(repr=False)

    def summary(self, figure: str):
        return summarise([getattr(one, figure) for one in self.runs])

    def to_dict(self) -> dict:
        figures = {figure: asdict(self.summary(figure)) for figure in FIGURES}
        return {"name": self.name, "kind": self.kind, **figures, "strengths": [one.strength for one in self.runs]}


@dataclass
class Comparison:
    """A data set with everything that all rows share: views (opened once for each stream and scaling), folds and precision."""

    args: object
    dataset: Dataset
    device: torch.device
    dtype: torch.dtype
    compute_dtype: torch.dtype | None

    def __post_init__(self):
        self.kept: dict[tuple[str, str], tuple[ClipViews, ClipViews]] = {}
        clips = self.views("joint", "none")[0].clips
        self.folds, self.cut = folds_of(clips.names, clips.labels.cpu().numpy())

    def views(self, stream: str, scale_by: str) -> tuple[ClipViews, ClipViews]:
        """Both splits, as an encoder of this stream and scaling reads them."""
        if (stream, scale_by) not in self.kept:
            self.kept[stream, scale_by] = tuple(
                open_views(
                    self.dataset, split, stream, self.device, self.dtype, self.args.clips, self.args.cache_dir, scale_by
                )
                for split in ("train", "val")
            )
        return self.kept[stream, scale_by]

    @property
    def labels(self) -> list[Tensor]:
        """Of both splits, on the CPU."""
        return [view.clips.labels.cpu() for view in self.views("joint", "none")]

    def probe(self, features: tuple[Tensor, Tensor]) -> ProbeResult:
        """Probes features of both splits: (N, D), or (k N, D) with k copies of the training clips, and (n, D)."""
        (train, test), labels = features, self.labels
        times = len(train) // len(labels[0])
        known, folds = labels[0].repeat(times), np.tile(self.folds, times)
        return probe(train, known, test, labels[1], self.dataset.row.num_classes, folds)

    def features(self, encoder: Encoder, stream: str, pools) -> dict[str | None, tuple[Tensor, Tensor]]:
        """An encoder's features of both splits for each pooling (None: its own)."""
        train, test = (pooled(encoder, view, pools) for view in self.views(stream, encoder.config.scale_by))
        return {pool: (train[pool], test[pool]) for pool in pools}

    def ready(self, loaded: LoadedEncoder) -> Encoder:
        """A pretrained encoder on the device."""
        encoder = loaded.encoder.to(self.device, self.dtype)
        encoder.set_compute_dtype(self.compute_dtype)
        return encoder

    def random(self, config: EncoderConfig, stream: str, seed: int) -> Encoder:
        """A random encoder on the device, with the input statistics of the training split."""
        encoder = random_encoder(config, seed).to(self.device, self.dtype)
        encoder.set_compute_dtype(self.compute_dtype)
        fit_input_norm(encoder, self.views(stream, config.scale_by)[0])
        return encoder


@torch.no_grad()
def pooled(encoder: Encoder, views: ClipViews, pools, batch: int = 128) -> dict[str | None, Tensor]:
    """Clip features {pooling: (N, P)} of the centre crops, on the CPU, from one pass over the clips."""
    encoder.eval()
    own = encoder.config
    parts = {pool: [] for pool in pools}
    try:
        for index in in_order(len(views), batch):
            sides = [encoder.frames(side) for side in encoder.sides(views.centre(index))]
            for pool in pools:
                encoder.config = own if pool is None else replace(own, pool=pool)
                parts[pool].append(encoder.joined([encoder.clip(frames) for frames in sides]).float().cpu())
    finally:
        encoder.config = own
    return {pool: torch.cat(found) for pool, found in parts.items()}


def raw_features(views: ClipViews) -> Tensor:
    """Every RAW_STEP-th frame of the centre crops, flattened: (N, D), on the CPU."""
    return torch.cat(
        [views.centre(index)[:, ::RAW_STEP].flatten(1).float().cpu() for index in in_order(len(views), 256)]
    )


def with_mirrored(features: Tensor, layout: Layout, persons: int) -> Tensor:
    """Raw features (N, D) of joints or bones followed by those of the mirrored clips: (2 N, D). Mirroring negates x, which runs
    from shoulder to shoulder, and swaps left and right joints."""
    frames = features.view(len(features), -1, layout.joints, 3, persons)[:, :, list(layout.mirrored)]
    signs = torch.tensor([-1.0, 1.0, 1.0])[:, None]
    return torch.cat([features, (frames * signs).flatten(1)])


def reading(config: EncoderConfig) -> str:
    """The pooling of an encoder, and whether it reads both sides, in words."""
    return (config.pool or "own pooling") + (", both sides" if config.both_sides else "")


def random_rows(comparison: Comparison, config: EncoderConfig, stream: str, seeds: list[int]) -> list[Row]:
    """The rows of the random encoder, one for each pooling, over seeds."""
    runs, features = {pool: [] for pool in POOLS}, {}
    for seed in seeds:
        features = comparison.features(comparison.random(config, stream, seed), stream, POOLS)
        for pool in POOLS:
            runs[pool].append(comparison.probe(features[pool]))
    names = {pool: f"random encoder, {reading(replace(config, pool=pool))}" for pool in POOLS}
    return [Row(names[pool], LABEL_FREE, runs[pool], features[pool]) for pool in POOLS]


@dataclass(frozen=True)
class Trainer:
    """Trains encoders with labels (--supervised). settings: of the augmentations; config, stream: of the encoder."""

    comparison: Comparison
    config: EncoderConfig
    stream: str
    settings: ViewSettings
    folder: RunFolder

    def __call__(self, encoder: Encoder, seed: int, chosen=None) -> tuple[Encoder, torch.nn.Linear]:
        """Trains an encoder in place on the chosen training clips (None: all); returns it with its linear layer."""
        c, args = self.comparison, self.comparison.args
        clips = c.views(self.stream, self.config.scale_by)[0].clips
        clips = clips if chosen is None else clips.select(chosen)
        batch = min(args.supervised_batch, len(clips))
        batches = Batches(clips, batch, seed, self.settings, c.dataset.layout, self.stream, c.device, c.dtype)

        def log(step: int, loss: float) -> None:
            self.folder.metrics(step, {f"labels{len(clips)}/seed{seed}/loss": loss})

        classes, steps, lr = c.dataset.row.num_classes, args.supervised_steps, args.supervised_lr
        return encoder, train_supervised(encoder, batches, clips.labels, classes, steps, lr, seed, log)

    def share(self, encoder: Encoder, seed: int, chosen) -> float:
        """The accuracy (0..1) on the test clips of an encoder trained on the chosen training clips."""
        encoder, fc = self(encoder, seed, chosen)
        test = pooled(encoder, self.comparison.views(self.stream, self.config.scale_by)[1], (None,))[None]
        with torch.no_grad():
            return share(fc.float().cpu()(test).argmax(1), self.comparison.labels[1])

    def row(self) -> Row:
        """The row of an encoder trained with all labels, over seeds."""
        runs, features = [], None
        for seed in self.comparison.args.seed:
            encoder, _ = self(self.comparison.random(self.config, self.stream, seed), seed)
            features = self.comparison.features(encoder, self.stream, (None,))[None]
            runs.append(self.comparison.probe(features))
        return Row(f"trained with labels, {reading(self.config)}", LABELS, runs, features)


def all_rows(comparison: Comparison, pretrained: dict[str, LoadedEncoder], trainer: Trainer) -> Iterator[Row]:
    """Yields every row of the table as soon as it is computed. pretrained: by path; trainer: has the configuration of the random
    encoder."""
    args = comparison.args
    dataset = comparison.dataset
    for words, stream, scale_by, mirrored in RAW:
        train, test = (raw_features(view) for view in comparison.views(stream, scale_by))
        train = with_mirrored(train, dataset.layout, dataset.row.persons) if mirrored else train
        yield Row(words, LABEL_FREE, [comparison.probe((train, test))], (train, test))
    yield from random_rows(comparison, trainer.config, trainer.stream, args.seed)
    if args.supervised:
        yield trainer.row()
    for path, loaded in pretrained.items():
        encoder = comparison.ready(loaded)
        features = comparison.features(encoder, loaded.stream, (None,))[None]
        yield Row(f"pretrained {path}, {reading(encoder.config)}", PRETRAINED, [comparison.probe(features)], features)


def few_label_curve(
    comparison: Comparison, rows: list[Row], pretrained: dict[str, LoadedEncoder], trainer: Trainer, folder: RunFolder
) -> dict:
    """The curve of `engine.label_curve`: writes table and picture, returns the entry of result.json."""
    args, (labels, test_labels) = comparison.args, comparison.labels
    classes, seeds = comparison.dataset.row.num_classes, args.label_seeds
    points = label_curve.label_points(labels.numpy(), args.label_points, seeds)
    frozen = [row for row in rows if row.kind == PRETRAINED]
    for beginning in ("raw", "random encoder"):
        kind = [row for row in rows if row.name.startswith(beginning)]
        frozen.append(max(kind, key=lambda row: row.summary("linear").mean))
    curves = []
    for row in frozen:
        share_of = partial(_frozen_share, row, labels, test_labels, classes)
        curves.append(label_curve.curve(row.name, points, share_of, seeds))
        folder.log(f"few labels, {row.name}: done")
    if args.supervised:
        first = next(iter(pretrained.values()), None)
        starts = {"trained with labels": lambda seed: comparison.random(trainer.config, trainer.stream, seed)}
        starts |= {"pretrained, fine-tuned": lambda seed: comparison.ready(deepcopy(first))} if first else {}
        for name, start in starts.items():
            share_of = partial(_trained_share, trainer, start, seeds[: args.trained_seeds])
            curves.append(label_curve.curve(name, points, share_of, seeds))
            folder.log(f"few labels, {name}: done")
    text = label_curve.markdown(points, curves)
    with atomic_write(folder.path / "few_labels.md", "w") as file:
        file.write(text + "\n")
    folder.log(text)
    label_curve.draw(folder.path / "few_labels.png", points, curves, classes)
    return label_curve.to_dict(points, curves)


def _frozen_share(row: Row, labels: Tensor, test_labels: Tensor, classes: int, chosen, seed: int) -> float:
    return label_curve.frozen_share(row.features[0], labels, row.features[1], test_labels, classes, chosen)


def _trained_share(trainer: Trainer, start, seeds, chosen, seed: int) -> float | None:
    return trainer.share(start(seed), seed, chosen) if seed in seeds else None


def best_of(rows: list[Row]) -> dict[str, Row]:
    """The best label-free row of each figure, by its mean."""
    free = [row for row in rows if row.kind == LABEL_FREE]
    return {figure: max(free, key=lambda row: row.summary(figure).mean) for figure in FIGURES}


def markdown(rows: list[Row]) -> str:
    """The rows as a Markdown table, the best label-free figure of each column bold."""
    best = best_of(rows)
    lines = ["| features | " + " | ".join(HEADS) + " |", "|---|" + "---|" * len(HEADS)]
    for row in rows:
        cells = [row.summary(figure).percent() for figure in FIGURES]
        cells = [f"**{cell}**" if best[f] is row else cell for f, cell in zip(FIGURES, cells, strict=True)]
        lines.append(f"| {row.name.replace('|', '/')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdicts(rows: list[Row]) -> list[str]:
    """A sentence for every pretrained row: its difference from the best label-free row in each figure."""
    best, sentences = best_of(rows), []
    for row in (row for row in rows if row.kind == PRETRAINED):
        parts = [
            f"{head.removesuffix(' %')} {100 * (row.summary(figure).mean - best[figure].summary(figure).mean):+.1f} "
            f"against {best[figure].name}"
            for figure, head in zip(FIGURES, HEADS, strict=True)
        ]
        sentences.append(f"{row.name}: " + "; ".join(parts))
    return sentences


def write_results(
    comparison: Comparison, rows: list[Row], pretraining: dict | None, curve: dict | None, folder: RunFolder
) -> None:
    """table.md and result.json of the run folder."""
    dataset = comparison.dataset
    with atomic_write(folder.path / "table.md", "w") as file:
        file.write(markdown(rows) + "\n")
    folder.write_json(
        "result.json",
        {
            "task": "baselines",
            "dataset": dataset.row.name,
            "protocol": dataset.protocol,
            "classifier": f"logistic regression, strength chosen on {comparison.cut}; 1-NN",
            "pretraining": pretraining,
            "rows": [row.to_dict() for row in rows],
            "best": {figure: row.name for figure, row in best_of(rows).items()},
            "few_labels": curve,
        },
    )


def compare(
    args,
    place: Place,
    comparison: Comparison,
    pretrained: dict[str, LoadedEncoder],
    other: list[str],
    folder: RunFolder,
) -> None:
    """Computes and logs all rows and writes the results. other: what `check_own_data` found."""
    dataset = comparison.dataset
    folder.log(
        f"baselines on {dataset.row.name} {dataset.protocol}: {dataset.row.num_classes} classes, {comparison.device}; strength "
        f"of the regression chosen on {comparison.cut}"
    )
    test_names = comparison.views("joint", "none")[1].clips.names
    pretraining = pretraining_of(place, args.data_root, test_names, other)
    log_place(place, pretraining, dataset.converted, folder.log)
    trainer = Trainer(comparison, *encoder_settings(args, dataset, pretrained), folder)
    rows, start = [], time.monotonic()
    for row in all_rows(comparison, pretrained, trainer):
        rows.append(row)
        figures = ", ".join(f"{h} {row.summary(f).percent()}" for f, h in zip(FIGURES, HEADS, strict=True))
        folder.log(f"{row.name}: {figures} ({time.monotonic() - start:.0f} s)")
    folder.log(markdown(rows))
    curve = few_label_curve(comparison, rows, pretrained, trainer, folder) if args.few_labels else None
    write_results(comparison, rows, pretraining, curve, folder)
    for sentence in verdicts(rows):
        folder.log(sentence)


def encoder_settings(args, dataset: Dataset, pretrained: dict[str, LoadedEncoder]) -> tuple:
    """Configuration, stream and view settings of the encoder of the random and supervised rows: those of the first checkpoint, if
    there is one."""
    if not pretrained:
        stream = args.stream or "joint"
        return encoder_config(dataset, encoder_flags(args), stream), stream, PLAIN
    path, loaded = next(iter(pretrained.items()))
    arguments = files.find_encoder(files.load(path), path).arguments
    return loaded.encoder.config, loaded.stream, settings_of(arguments, path) if arguments else PLAIN


def main(argv=None) -> int:
    args = parse_args(argv)
    require_one_process("engine.baselines")
    prepare_process(args.threads)
    device = resolve_device(args.device)
    first, flags = next(iter(args.pretrained), ""), encoder_flags(args)
    place = find_place(args.data_root, first, args.finetune_dataset, args.protocol, DEFAULT_DATASET)
    dataset = find_dataset(args.data_root, place.dataset, place.protocol, ("train", "val"))
    dataset = EncoderSource(first, args.stream, flags).fit(dataset)
    pretrained = {path: load_encoder(path, dataset, args.stream, flags) for path in args.pretrained}
    config, _, _ = encoder_settings(args, dataset, pretrained)  # refuses wrong sizes before clips are read
    args.precision, words = choose_precision(args.precision, device, config.backbone)
    comparison = Comparison(args, dataset, device, *resolve_precision(args.precision))
    data = data_of(*comparison.views("joint", "none"))
    other = check_own_data(place, data, args.evaluate_on_other_data)
    path = args.checkpoint_path or place.default_folder("baselines", "joint")
    with RunFolder(path, "baselines", vars(args), data=data) as folder:
        folder.log(f"encoders in {words}")
        compare(args, place, comparison, pretrained, other, folder)
    return 0


if __name__ == "__main__":
    run(main, sys.argv[1:])
