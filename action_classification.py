"""Evaluates an encoder by a classifier on top: linear evaluation, fine-tuning, or few labels.

    python action_classification.py --pretrained runs/joint/checkpoint_last.pth.tar --dataset ntu60 --protocol cross_view

The run folder gets result.json (last and best accuracy of every seed, per class), confusion.npy and .png, predictions.csv
(which clips went wrong), scores.npz (for tools/ensemble.py) and classifier.pth of the last seed (for predict.py); with --occlusion
and --early also curves, as data and pictures.
Linear evaluation may run in several processes (torchrun), which share the encoding; the main one writes and prints.
`engine.classify` holds the protocol and the checks it makes of itself, `engine.robustness` the further tests.
"""

import sys

from options.classification import parse_args

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant


import itertools
import math
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from torch import nn

from engine import answers
from engine.classify import Outcome, Recipe, train_classifier
from engine.encoders import clip_features, snapshot
from engine.evaluation import (
    EncoderSource,
    Place,
    check_own_data,
    data_of,
    find_place,
    one_by_one,
    open_views,
    pretraining_of,
    result_head,
    say_place,
)
from engine.features import classifier_content
from engine.labels import choose_labelled, choose_per_class
from engine.monitor import limited
from engine.novelty import MOST_DISTANCES, Novelty, choose_gallery
from engine.pace import Pace
from engine.progress import Progress, Stopped
from engine.robustness import AMOUNTS, OBSERVED, UNITS, check_causal, curve_summary, early_curve, occlusion_curve
from engine.setup import Dataset, choose_precision, find_dataset, prepare_process, resolve_device, resolve_precision
from engine.signals import EXIT_STOPPED, LAUNCHER_GRACE, StopRequest
from feeder.evaluation import ClipViews
from models.encoder import Encoder
from options.backbones import encoder_flags
from options.classification import DEFAULT_DATASET
from utils import checkpoint as files
from utils.distributed import World, connect
from utils.errors import UserError, run
from utils.files import save_npy
from utils.fusion import SCORES_FILE, write_scores
from utils.metrics import confusion_matrix, per_class_accuracy, summarise
from utils.plots import beside_results, draw_confusion, draw_curves
from utils.run_folder import QuietFolder, RunFolder

ALL_STEPS = 10**12  # what a run that goes on keeps of the folder: the lines to forget are forgotten already


def encoder_source(args) -> EncoderSource:
    return EncoderSource(args.pretrained, args.stream, encoder_flags(args))


def settle_place(args) -> Place:
    """Where to evaluate; what was not asked for is filled into args."""
    place = find_place(args.data_root, args.pretrained, args.finetune_dataset, args.protocol, DEFAULT_DATASET)
    args.finetune_dataset, args.protocol = place.dataset, place.protocol
    return place


def default_folder(args, place: Place, stream: str) -> str:
    """A folder for each mode, number of labels, data set, protocol and stream."""
    share = "" if args.label_fraction is None else f"_{args.label_fraction:g}"
    share += "" if args.label_count is None else f"_{args.label_count}_a_class"
    return place.default_folder(f"{args.mode}{share}", stream)


def recipe_of(args) -> Recipe:
    return Recipe(
        frozen=args.mode == "linear",
        lr=args.lr,
        batch_size=args.batch_size,
        epochs=args.epochs,
        schedule=tuple(args.schedule),
        momentum=args.momentum,
        weight_decay=args.weight_decay,
        test_every=args.test_every,
        cached=args.cache_features,
    )


def occlusion_kinds(args) -> tuple[str, ...]:
    return {None: (), "both": tuple(AMOUNTS)}.get(args.occlusion, (args.occlusion,))


def run_seed(
    args,
    dataset: Dataset,
    train: ClipViews,
    test: ClipViews,
    seed: int,
    folder: RunFolder | QuietFolder,
    progress: Progress,
) -> tuple[Outcome, dict[str, list[float]]]:
    """One seed, from a fresh encoder (or where a stopped run left it) to its outcome and the curves (name -> shares) of the
    further tests."""
    world = progress.world
    if seed in progress.finished:
        return finished_outcome(progress.finished[seed])
    encoder = encoder_source(args).ready(dataset, seed, train, resolve_precision(args.precision)[1])
    if args.label_fraction is not None or args.label_count is not None:
        labels = train.clips.labels.cpu().numpy()
        chosen = (
            choose_per_class(labels, args.label_count, seed)
            if args.label_count is not None
            else choose_labelled(labels, args.label_fraction, args.sampling, seed)
        )
        train = ClipViews(**{**vars(train), "clips": train.clips.select(chosen)})
        folder.write_json(f"labelled_seed{seed}.json", sorted(train.clips.names))
    start = time.monotonic()

    def log(epoch: int, values: dict) -> None:
        folder.metrics(epoch, {f"seed{seed}/{name}": value for name, value in values.items()})

    recipe, state = recipe_of(args), progress.state_of(seed)
    outcome = train_classifier(
        encoder,
        train,
        test,
        dataset.row.num_classes,
        recipe,
        seed,
        log,
        world=world,
        state=state,
        after_step=watching(progress, seed, recipe, len(train), state, folder),
    )
    folder.say(
        f"seed {seed}: {len(train)} training clips, last {100 * outcome.last['top1']:.2f} (top-5 "
        f"{100 * outcome.last['top5']:.2f}), best {100 * outcome.best['top1']:.2f} at epoch {outcome.best['epoch']}, "
        f"{time.monotonic() - start:.0f} s"
    )
    curves = world.on_main(lambda: further_tests(args, dataset, train, test, seed, encoder, outcome, folder)) or {}
    kept = {name: getattr(outcome, name) for name in ("last", "best", "scores")}
    progress.finish(seed, {**kept, "fc": snapshot(outcome.fc), "curves": curves})
    return outcome, curves


def finished_outcome(kept: dict) -> tuple[Outcome, dict[str, list[float]]]:
    """The outcome and the curves of a seed that an earlier start has finished."""
    fc = nn.Linear(*reversed(kept["fc"]["weight"].shape))
    fc.load_state_dict(kept["fc"])
    return Outcome(kept["last"], kept["best"], kept["scores"], fc), kept["curves"]


def watching(progress: Progress, seed: int, recipe: Recipe, clips: int, state: dict | None, folder):
    """What is called after every step: it says how long it takes, and saves and stops where that is due."""
    an_epoch = -(-clips // recipe.batch_size)
    first = 0 if state is None else state["epoch"] * an_epoch + state["place"]["position"]
    pace = Pace(first, recipe.epochs * an_epoch, folder.say)
    done, watch = itertools.count(first + 1), progress.watch(seed)

    def after_step(make_state) -> None:
        pace.after(step := next(done), f"seed {seed}, epoch {(step - 1) // an_epoch + 1} of {recipe.epochs}")
        watch(make_state)

    return after_step


def measure_novelty(encoder: Encoder, train: ClipViews, test: ClipViews) -> Novelty:
    """What is none of the classes: a gallery of training clips, and the distances of test clips to it."""
    gallery = replace(train, clips=train.clips.select(choose_gallery(train.clips.labels.cpu().numpy())))
    return Novelty.measured(*(clip_features(encoder, v, quiet=True) for v in (gallery, limited(test, MOST_DISTANCES))))


def further_tests(
    args,
    dataset: Dataset,
    train: ClipViews,
    test: ClipViews,
    seed: int,
    encoder: Encoder,
    outcome: Outcome,
    folder: RunFolder,
) -> dict[str, list[float]]:
    """Saves the trained classifier with its encoder, and returns the curves (name -> shares) of the further tests."""
    about = {"stream": train.stream, "seed": seed, "dataset": dataset.row.name, "protocol": dataset.protocol}
    novelty = measure_novelty(encoder, train, test)
    content = classifier_content(encoder, outcome.fc, dataset.row.classes, about, novelty)
    files.save(folder.path / "classifier.pth", content)
    curves = {
        kind: occlusion_curve(encoder, outcome.fc, test, kind, dataset.layout.parts, args.occlusion_seed)
        for kind in occlusion_kinds(args)
    }
    if args.early:
        curves["early"] = early_curve(encoder, outcome.fc, test)
    return curves


def write_curves(args, curves: dict[int, dict[str, list[float]]], stream: str, folder: RunFolder) -> dict:
    """Data, pictures and printed lines of the occlusion and early-recognition curves; returns what result.json keeps."""
    found = {}
    for kind in occlusion_kinds(args):
        curve = curve_summary(AMOUNTS[kind], {seed: c[kind] for seed, c in curves.items()}, clean=0)
        found[kind] = {"unit": UNITS[kind], "seed_of_hiding": args.occlusion_seed, **curve}
        percent = [100 * value for value in curve["mean"]]
        with beside_results(f"occlusion_{kind}.png", folder.say):
            draw_curves(folder.path / f"occlusion_{kind}.png", {"": (curve["x"], percent)}, UNITS[kind], "top-1, %")
        points = ", ".join(
            f"{x}: {100 * mean:.1f} (drop {100 * drop:.1f})"
            for x, mean, drop in zip(curve["x"], curve["mean"], curve["drop"], strict=True)
        )
        folder.say(f"{kind} occlusion, {UNITS[kind]}: {points}")
    if found:
        folder.write_json("occlusion.json", found)
    if args.early:
        curve = curve_summary(OBSERVED, {seed: c["early"] for seed, c in curves.items()}, clean=-1)
        ahead = "; the motion of a frame needs the frame after it" if stream == "motion" else ""
        found["early"] = {"unit": f"% of the resized clip's frames observed{ahead}", **curve}
        percent = [100 * value for value in curve["mean"]]
        folder.write_json("early.json", found["early"])
        with beside_results("early.png", folder.say):
            draw_curves(folder.path / "early.png", {"": (curve["x"], percent)}, "% of the frames observed", "top-1, %")
        points = ", ".join(f"{x}: {value:.1f}" for x, value in zip(curve["x"], percent, strict=True))
        folder.say(f"early recognition, {found['early']['unit']}: {points}")
    return found


def confusion_title(args, dataset: Dataset, outcome: Outcome) -> str:
    """What the matrix is of: the last epoch of the last seed."""
    task = {"linear": "linear evaluation", "finetune": "fine-tuning", "semi": "few labels"}[args.mode]
    where = f"{dataset.row.name} {dataset.protocol}, seed {args.seed[-1]}"
    return f"{task} on {where}: {100 * outcome.last['top1']:.1f} % of {len(outcome.scores)} test clips right"


def write_results(
    args,
    dataset: Dataset,
    test: ClipViews,
    source: str,
    outcomes: dict[int, Outcome],
    curves: dict[str, dict],
    pretraining: dict | None,
    data: dict,
    folder: RunFolder,
) -> None:
    """Result files of all seeds; scores and confusion are those of the last seed."""
    labels = test.clips.labels.cpu()
    outcome = list(outcomes.values())[-1]
    confusion = confusion_matrix(outcome.scores.argmax(dim=1), labels, dataset.row.num_classes)
    accuracy = per_class_accuracy(confusion)
    confusion = confusion.numpy()
    save_npy(folder.path / "confusion.npy", confusion)
    probabilities = answers.softmax(outcome.scores)
    answers.write_predictions(
        folder.path / answers.FILE, test.clips.names, probabilities, dataset.row.classes, labels.numpy()
    )
    write_scores(
        folder.path / SCORES_FILE,
        test.clips.names,
        labels.numpy(),
        outcome.scores.numpy(),
        test.stream,
        dataset.row.name,
        {"val": data["val"]},
    )
    summary = {
        which: {k: asdict(summarise([getattr(o, which)[k] for o in outcomes.values()])) for k in ("top1", "top5")}
        for which in ("last", "best")
    }
    exact = args.precision in ("fp32", "fp64")
    fresh = "exact protocol, fresh crops" if exact else "fresh crops"
    features = "centre crop, cached" if args.cache_features else fresh
    features += "" if exact else f", {args.precision} products"
    task, where = f"classification/{args.mode}", (dataset.row.name, dataset.protocol)
    head = result_head(task, *where, source, test.stream, features, pretraining, data)
    by_class = [None if math.isnan(share) else share for share in accuracy]
    folder.write_json(
        "result.json",
        {
            **head,
            "label_fraction": args.label_fraction,
            "label_count": args.label_count,
            "summary": summary,
            "seeds": {str(s): {"last": o.last, "best": o.best} for s, o in outcomes.items()},
            "curves": curves,
            "per_class": dict(zip(dataset.row.classes, by_class, strict=True)),
            "dropped_test_clips": list(test.clips.dropped),
        },
    )
    with beside_results("confusion.png", folder.say):
        title = confusion_title(args, dataset, outcome)
        draw_confusion(folder.path / "confusion.png", confusion, dataset.row.classes, title)


def open_folder(args, progress: Progress, resumed: bool, data: dict) -> RunFolder:
    """The run folder; of a run that goes on, with everything in it that is not computed again."""
    if resumed:
        progress.forget_later_metrics()
    kept = ALL_STEPS if resumed else None
    return RunFolder(args.checkpoint_path, "action_classification", vars(args), kept, data=data)


def evaluate(args, below: str, world: World) -> tuple[int, str]:
    """Everything from the data to the results, by one of the processes of `world`; returns the exit status and, of the main one
    that has finished, the last line. below: a folder in the run folder, or ''."""
    if world.size > 1 and args.mode != "linear":
        raise UserError(
            f"--mode {args.mode} is one process (its small batches gain nothing from {world.size}); start it with python, "
            "not with torchrun"
        )
    device = resolve_device(args.device)
    place = settle_place(args)
    dataset = world.main_first(
        lambda: find_dataset(args.data_root, args.finetune_dataset, args.protocol, ("train", "val"))
    )
    dataset = encoder_source(args).fit(dataset)
    first = encoder_source(args).load(dataset, args.seed[0])  # refuses a wrong file before anything is read or written
    backbone = first.encoder.config.backbone
    chosen = world.on_main(lambda: choose_precision(args.precision, device, backbone))
    args.precision, precision = world.broadcast(chosen)
    dtype, _ = resolve_precision(args.precision)
    if args.early:
        check_causal(first.encoder)
    placement = "mapped" if args.clips == "auto" and world.size > 1 and device.type == "cpu" else args.clips
    train, test = world.main_first(
        lambda: [
            open_views(
                dataset, split, first.stream, device, dtype, placement, args.cache_dir, first.encoder.config.scale_by
            )
            for split in ("train", "val")
        ]
    )
    data = data_of(train, test)
    other = check_own_data(place, data, args.evaluate_on_other_data)
    args.checkpoint_path = str(Path(args.checkpoint_path or default_folder(args, place, first.stream), below))
    with StopRequest(LAUNCHER_GRACE if world.size > 1 else 0.0) as stop:
        progress = Progress(args.checkpoint_path, vars(args), stop, world, data)
        resumed = args.resume == "auto" and progress.resume()
        folder = world.on_main(lambda: open_folder(args, progress, resumed, data)) or QuietFolder(args.checkpoint_path)
        return train_and_test(args, place, dataset, train, test, first, other, progress, folder, precision)


def train_and_test(
    args, place: Place, dataset: Dataset, train, test, first, other, progress: Progress, folder, words
) -> tuple[int, str]:
    """All seeds and their results; returns the exit status and the last line. first: the encoder as loaded; other: what
    differs in the data; words: the precision and why."""
    world, device = progress.world, train.device
    try:
        folder.say(
            f"{args.mode} evaluation of {first.source} on {dataset.row.name} {args.protocol}, {first.stream} stream: "
            f"{len(train)} training and {len(test)} test clips, {dataset.row.num_classes} classes, {device}"
            f"{f', {world.size} processes' if world.size > 1 else ''}, {words}"
        )
        pretraining = pretraining_of(place, args.data_root, test.clips.names, other)
        say_place(place, pretraining, dataset.converted, folder.say)
        if args.cache_features:
            folder.say("features: cached centre crops, not the exact protocol of fresh crops")
        if args.precision not in ("fp32", "fp64"):
            folder.say(
                f"products in {args.precision}, not the exact protocol of float32 (--precision fp32); the result says so"
            )
        for seed in progress.finished:
            folder.say(f"seed {seed}: finished by an earlier start")
        if progress.current is not None:
            folder.say(f"seed {progress.current[0]}: goes on in epoch {progress.current[1]['epoch'] + 1}")
        runs = {seed: run_seed(args, dataset, train, test, seed, folder, progress) for seed in args.seed}
        if not world.is_main:
            return 0, ""
        outcomes = {seed: outcome for seed, (outcome, _) in runs.items()}
        curves = write_curves(args, {seed: curves for seed, (_, curves) in runs.items()}, test.stream, folder)
        write_results(args, dataset, test, first.source, outcomes, curves, pretraining, progress.data, folder)
        last = summarise([o.last["top1"] for o in outcomes.values()])
        best = summarise([o.best["top1"] for o in outcomes.values()])
        folder.say(f"results and pictures: {folder.path}")
        seeds = f"{len(outcomes)} seed{'s' * (len(outcomes) > 1)}"
        line = f"top-1 last {last.percent()}, best test epoch {best.percent()} ({seeds})"
        folder.say(line)
        return 0, line
    except Stopped:
        return say_stopped(progress, folder), ""
    except UserError as error:
        folder.say(f"error: {error}", show=False)
        raise
    finally:
        folder.close()


def say_stopped(progress: Progress, folder) -> int:
    """Says where a signal stopped the run; returns the exit status."""
    seed, state = progress.current
    who = progress.stop.received or "a signal to another process"
    folder.say(
        f"stopped by {who} in epoch {state['epoch'] + 1} of seed {seed}; go on with the same command and --resume auto"
    )
    if progress.world.size > 1:
        progress.world.barrier()
        progress.stop.ignore_from_now_on()
    return EXIT_STOPPED


def main(argv=None) -> int:
    args = parse_args(argv)
    prepare_process(args.threads)
    world = connect(args.device, args.local_rank, args.timeout_minutes)
    try:
        return one_by_one(args, partial(evaluate, world=world))
    finally:
        world.close()


if __name__ == "__main__":
    run(main, sys.argv[1:])
