"""Evaluates an encoder by training a classifier on it: linear evaluation, fine-tuning, or few labels.

    python action_classification.py --pretrained runs/joint/checkpoint_last.pth.tar --dataset ntu60 --protocol cross_view

The run folder gets result.json (last and best accuracy of every seed, per class), confusion.npy and .png, predictions.csv
(the class of each test clip), scores.npz (for tools/ensemble.py) and classifier.pth of the last seed (for predict.py); with
--occlusion and --early also curves, as data and pictures. Linear evaluation can run in several processes (torchrun), which
share the encoding; the main process writes and prints. The protocol is in `engine.classify`, the further tests are in
`engine.robustness`.
"""

import sys

from options.classification import parse_args

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant


import time
from dataclasses import replace
from functools import partial

from torch import nn

from engine import answers
from engine.classify import Recipe, train_classifier
from engine.encoders import clip_features, snapshot
from engine.evaluation import Evaluation, data_of, for_each_pooling, last_and_best, ready, shares_by_class
from engine.features import classifier_content
from engine.labels import choose_labelled, choose_per_class
from engine.monitor import random_subset
from engine.novelty import MOST_DISTANCES, Novelty, choose_gallery, gallery_size
from engine.robustness import AMOUNTS, OBSERVED, UNITS, check_causal, curve_summary, early_curve, occlusion_curve
from engine.setup import Dataset, prepare_process
from feeder.evaluation import ClipViews
from models.encoder import Encoder
from options.classification import DEFAULT_DATASET, settle
from options.common import from_flags
from utils import checkpoint as files
from utils.distributed import World, connect
from utils.errors import UserError, run
from utils.files import save_npy
from utils.fusion import SCORES_FILE, write_scores
from utils.metrics import confusion_matrix, summarise
from utils.plots import beside_results, draw_confusion, draw_curves
from utils.run_folder import RunFolder


def task_of(args) -> str:
    """The part of the default folder's name for mode and number of labels."""
    share = "" if args.label_fraction is None else f"_{args.label_fraction:g}"
    return f"{args.mode}{share}" + ("" if args.label_count is None else f"_{args.label_count}_a_class")


def recipe_of(args) -> Recipe:
    return from_flags(Recipe, args, ("crop",), frozen=args.mode == "linear", cached=args.cache_features)


def occlusion_kinds(args) -> tuple[str, ...]:
    return {None: (), "both": tuple(AMOUNTS)}.get(args.occlusion, (args.occlusion,))


def labelled(args, train: ClipViews, seed: int, folder) -> ClipViews:
    """The training clips whose labels are used; their names are saved."""
    if args.label_fraction is None and args.label_count is None:
        return train
    labels = train.clips.labels.cpu().numpy()
    if args.label_count is not None:
        chosen = choose_per_class(labels, args.label_count, seed)
    else:
        chosen = choose_labelled(labels, args.label_fraction, args.sampling, seed)
    train = replace(train, clips=train.clips.select(chosen))
    folder.write_json(f"labelled_seed{seed}.json", sorted(train.clips.names))
    return train


def train_seed(work: Evaluation, train: ClipViews, test: ClipViews, seed: int, folder, **running) -> dict:
    """Trains and tests one seed, from a new encoder or from the state of a stopped run. Returns last, best, scores, the
    classifier's weights `fc`, and the `curves` (name -> accuracies 0..1) of the further tests."""
    args, dataset = work.args, work.dataset
    encoder = ready(work.source.load(dataset, seed), train, work.compute_dtype)
    every, train = train, labelled(args, train, seed, folder)
    start = time.monotonic()
    classes = dataset.row.num_classes
    outcome = train_classifier(encoder, train, test, classes, recipe_of(args), seed, every, world=work.world, **running)
    folder.log(
        f"seed {seed}: {len(train)} training clips, last {100 * outcome.last['top1']:.2f} (top-5 "
        f"{100 * outcome.last['top5']:.2f}), best {100 * outcome.best['top1']:.2f} at epoch {outcome.best['epoch']}, "
        f"{time.monotonic() - start:.0f} s"
    )
    further = partial(further_tests, args, dataset, train, test, seed, encoder, outcome.classifier, folder)
    kept = {name: getattr(outcome, name) for name in ("last", "best", "scores")}
    return {**kept, "fc": snapshot(outcome.classifier), "curves": work.world.on_main(further) or {}}


def measure_novelty(encoder: Encoder, train: ClipViews, test: ClipViews) -> Novelty:
    """Distances for 'none of them' (engine.novelty): a gallery of training clips, and the distances of test clips to it."""
    chosen = choose_gallery(train.clips.labels.cpu().numpy(), gallery_size(encoder.clip_size))
    gallery = replace(train, clips=train.clips.select(chosen))
    return Novelty.measured(
        *(clip_features(encoder, v, quiet=True) for v in (gallery, random_subset(test, MOST_DISTANCES)))
    )


def further_tests(
    args,
    dataset: Dataset,
    train: ClipViews,
    test: ClipViews,
    seed: int,
    encoder: Encoder,
    fc: nn.Linear,
    folder: RunFolder,
) -> dict[str, list[float]]:
    """Saves the trained classifier with its encoder; returns the curves (name -> accuracies 0..1) of the further tests."""
    about = {"stream": train.stream, "seed": seed, "dataset": dataset.row.name, "protocol": dataset.protocol}
    novelty = measure_novelty(encoder, train, test)
    content = classifier_content(encoder, fc, dataset.row.classes, about, novelty)
    files.save(folder.path / "classifier.pth", content)
    curves = {
        kind: occlusion_curve(encoder, fc, test, kind, dataset.layout.parts, args.occlusion_seed)
        for kind in occlusion_kinds(args)
    }
    if args.early:
        curves["early"] = early_curve(encoder, fc, test)
    return curves


def write_curves(args, curves: dict[int, dict[str, list[float]]], stream: str, folder: RunFolder) -> dict:
    """Writes, draws and logs the curves of occlusion and early recognition; returns them for result.json. curves: by seed and
    name."""
    found = {}
    for kind in occlusion_kinds(args):
        curve = curve_summary(AMOUNTS[kind], {seed: c[kind] for seed, c in curves.items()}, clean=0)
        found[kind] = {"unit": UNITS[kind], "seed_of_hiding": args.occlusion_seed, **curve}
        percent = [100 * value for value in curve["mean"]]
        with beside_results(f"occlusion_{kind}.png", folder.log):
            draw_curves(folder.path / f"occlusion_{kind}.png", {"": (curve["x"], percent)}, UNITS[kind], "top-1, %")
        points = ", ".join(
            f"{x}: {100 * mean:.1f} (drop {100 * drop:.1f})"
            for x, mean, drop in zip(curve["x"], curve["mean"], curve["drop"], strict=True)
        )
        folder.log(f"{kind} occlusion, {UNITS[kind]}: {points}")
    if found:
        folder.write_json("occlusion.json", found)
    if args.early:
        curve = curve_summary(OBSERVED, {seed: c["early"] for seed, c in curves.items()}, clean=-1)
        ahead = "; the motion of a frame needs the frame after it" if stream == "motion" else ""
        found["early"] = {"unit": f"% of the resized clip's frames observed{ahead}", **curve}
        percent = [100 * value for value in curve["mean"]]
        folder.write_json("early.json", found["early"])
        with beside_results("early.png", folder.log):
            draw_curves(folder.path / "early.png", {"": (curve["x"], percent)}, "% of the frames observed", "top-1, %")
        points = ", ".join(f"{x}: {value:.1f}" for x, value in zip(curve["x"], percent, strict=True))
        folder.log(f"early recognition, {found['early']['unit']}: {points}")
    return found


def confusion_title(args, dataset: Dataset, outcome: dict) -> str:
    """The title of the confusion matrix, which is that of the last epoch of the last seed."""
    task = {"linear": "linear evaluation", "finetune": "fine-tuning", "semi": "few labels"}[args.mode]
    where = f"{dataset.row.name} {dataset.protocol}, seed {args.seed[-1]}"
    return f"{task} on {where}: {100 * outcome['last']['top1']:.1f} % of {len(outcome['scores'])} test clips right"


def write_results(
    work: Evaluation, test: ClipViews, outcomes: dict[int, dict], curves: dict[str, dict], folder: RunFolder
) -> None:
    """Writes the result files; scores and confusion matrix are those of the last seed. outcomes: by seed."""
    args, dataset = work.args, work.dataset
    labels = test.clips.labels.cpu()
    outcome = list(outcomes.values())[-1]
    confusion = confusion_matrix(outcome["scores"].argmax(dim=1), labels, dataset.row.num_classes)
    save_npy(folder.path / "confusion.npy", confusion.numpy())
    probabilities = answers.softmax(outcome["scores"])
    answers.write_predictions(
        folder.path / answers.FILE, test.clips.names, probabilities, dataset.row.classes, labels.numpy()
    )
    write_scores(
        folder.path / SCORES_FILE,
        test.clips.names,
        labels.numpy(),
        outcome["scores"].numpy(),
        test.stream,
        dataset.row.name,
        {"val": work.data["val"]},
    )
    exact = args.precision in ("fp32", "fp64")
    fresh = "exact protocol, fresh crops" if exact else "fresh crops"
    features = "centre crop, cached" if args.cache_features else fresh
    features += "" if exact else f", {args.precision} products"
    folder.write_json(
        "result.json",
        {
            **work.result(f"classification/{args.mode}", features),
            "label_fraction": args.label_fraction,
            "label_count": args.label_count,
            **last_and_best(outcomes),
            "curves": curves,
            "per_class": shares_by_class(confusion, dataset.row.classes),
            "dropped_test_clips": list(test.clips.dropped),
        },
    )
    with beside_results("confusion.png", folder.log):
        title = confusion_title(args, dataset, outcome)
        draw_confusion(folder.path / "confusion.png", confusion.numpy(), dataset.row.classes, title)


def log_start(work: Evaluation, train: ClipViews, test: ClipViews, folder) -> None:
    """Logs what is evaluated, on what and how."""
    args, dataset, size = work.args, work.dataset, work.world.size
    folder.log(
        f"{args.mode} evaluation of {work.title} on {dataset.row.name} {args.protocol}, {work.stream} stream: "
        f"{len(train)} training and {len(test)} test clips, {dataset.row.num_classes} classes, {work.device}"
        f"{f', {size} processes' if size > 1 else ''}, {work.precision}"
    )
    work.log_place(folder, test.clips.names)
    if args.cache_features:
        folder.log("features: cached centre crops, not the exact protocol of fresh crops")
    if args.standardise:
        folder.log(
            f"the layer is trained on standardised features, batch size {args.batch_size}, weight decay "
            f"{args.weight_decay:g}; the paper's protocol: --no-standardise"
        )
    if args.precision not in ("fp32", "fp64"):
        folder.log(
            f"products in {args.precision}, not the exact protocol of float32 (--precision fp32); the result notes it"
        )


def evaluate(args, below: str, world: World) -> tuple[int, str]:
    """The whole evaluation, in one of the processes of `world`; returns the exit status and, in the main process, the last
    line of the log. below: a folder in the run folder, or ''."""
    if world.size > 1 and args.mode != "linear":
        raise UserError(
            f"--mode {args.mode} needs one process (its batches are too small for {world.size}); start it with python, not "
            "with torchrun"
        )
    work, line = Evaluation(args, DEFAULT_DATASET, world), ""
    settle(args, work.first.encoder.config.pool)
    if args.early:
        check_causal(work.first.encoder)
    train, test = work.views()
    with work.folder("action_classification", task_of(args), data_of(train, test), below) as folder:
        log_start(work, train, test, folder)
        outcomes = work.trained(folder, partial(train_seed, work, train, test))
        if world.is_main:
            curves = write_curves(args, {seed: o["curves"] for seed, o in outcomes.items()}, test.stream, folder)
            write_results(work, test, outcomes, curves, folder)
            last, best = (summarise([o[which]["top1"] for o in outcomes.values()]) for which in ("last", "best"))
            folder.log(f"results and pictures: {folder.path}")
            seeds = f"{len(outcomes)} seed{'s' * (len(outcomes) > 1)}"
            line = f"top-1 last {last.percent()}, best test epoch {best.percent()} ({seeds})"
            folder.log(line)
    return work.status, line


def main(argv=None) -> int:
    args = parse_args(argv)
    prepare_process(args.threads)
    world = connect(args.device, args.local_rank, args.timeout_minutes)
    try:
        return for_each_pooling(args, partial(evaluate, world=world))
    finally:
        world.close()


if __name__ == "__main__":
    run(main, sys.argv[1:])
