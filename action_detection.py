"""Action detection in untrimmed videos: trains a frame classifier on an encoder, and measures mAP_a and mAP_v.

    python action_detection.py --pretrained runs/joint/checkpoint_last.pth.tar --dataset pku_v1

It reads <data root>/<data set>/untrimmed (see utils.untrimmed). The run folder gets result.json (last and best mAP of every
seed, per class), predictions/seed<seed>/<video>.txt in PKU-MMD's text format, timelines/<video>.png (truth above
prediction, first seed) and detector.pth of the last seed. The three protocols are in `engine.detection`.
"""

import sys

from options.detection import parse_args

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant


import time
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import torch

from data_gen.normalise import PLANAR_STEPS
from data_gen.normalise import STEPS as ALL_STEPS
from engine.detection import DetectionRecipe, check_causal, check_videos, fit_to_windows, train_detector
from engine.evaluation import Evaluation, last_and_best, ready
from engine.features import classifier_content
from engine.setup import Dataset, find_dataset, prepare_process
from engine.transfer import pad_persons
from feeder.windows import STEPS, VideoWindows
from options.common import from_flags
from options.detection import DEFAULT_DATASET
from utils import checkpoint as files
from utils.convert_layout import convert
from utils.detection import write_predictions
from utils.distributed import require_one_process
from utils.errors import UserError, run
from utils.metrics import summarise
from utils.plots import beside_results, draw_timeline
from utils.run_folder import RunFolder
from utils.skeleton import get_layout
from utils.untrimmed import Untrimmed, of_videos, open_untrimmed

KINDS = {
    "tuned": "tuned, the paper's protocol",
    "frozen": "frozen, the paper's variant",
    "sequence": "sequence, OURS (not a published protocol)",
}


def find_set(args) -> Dataset:
    """The data set, prepared if it comes with the project. UserError for a protocol that it does not have."""
    return find_dataset(args.data_root, args.finetune_dataset, args.protocol, (), ("untrimmed",))


def find_videos(args, dataset: Dataset) -> tuple[Untrimmed, dict[str, list[int]]]:
    """The untrimmed videos, and the indices of the videos of both splits of the protocol. UserError for a missing or
    inconsistent folder."""
    row, folder = dataset.stored or dataset.row, dataset.folder.parent / "untrimmed"
    if not folder.is_dir():
        hint = f"; make it with: {row.prepare} --data-root {args.data_root}" if row.prepare.count("pku") else ""
        raise UserError(f"{folder}: there is no such folder, so there are no untrimmed videos of {row.name}{hint}")
    videos = open_untrimmed(folder, get_layout(row.layout).joints, row.persons)
    if videos.num_classes != row.num_classes or videos.layout != row.layout:
        raise UserError(
            f"{videos.folder}: it has {videos.num_classes} classes on layout {videos.layout}, but {row.name} has "
            f"{row.num_classes} on {row.layout}; prepare it again"
        )
    splits = next((videos.protocols[p] for p in row.protocols[args.protocol] if p in videos.protocols), None)
    if splits is None:
        raise UserError(
            f"{videos.folder}: no split for {args.protocol}; it has {', '.join(videos.protocols) or 'none'}"
        )
    return videos, splits


def converted_videos(videos: Untrimmed, dataset: Dataset) -> Untrimmed:
    """The videos in the encoder's joint layout and number of persons, converted in memory if the files have others. UserError
    for another number of dimensions."""
    given, wanted = dataset.stored_form, dataset.form
    if given == wanted:
        return videos
    if given.dimensions != wanted.dimensions:
        raise UserError(
            f"{videos.folder}: its videos have {given.dimensions} dimensions, the encoder was trained on "
            f"{wanted.dimensions}, and videos cannot be converted; give an encoder trained on {given.dimensions} dimensions"
        )
    frames = convert(pad_persons(videos.frames, wanted.persons), given.layout, wanted.layout, axis=2)
    return replace(videos, frames=frames, layout=wanted.layout.name)


def recipe_of(args) -> DetectionRecipe:
    return from_flags(DetectionRecipe, args, delay=args.delay if args.mode == "sequence" else 0)


def normalisation(args, dataset: Dataset) -> tuple[str, ...]:
    """The steps of normalisation for windows: none for raw coordinates, else those of the prepared clips (all, if their files
    do not say)."""
    if args.coordinates == "raw":
        return ()
    default = ALL_STEPS if dataset.row.dimensions == 3 else PLANAR_STEPS
    stored = dataset.normalised
    return tuple(step for step in STEPS if step in (stored if isinstance(stored, list) else default))


def open_windows(work: Evaluation) -> list[VideoWindows]:
    """The windows of both splits, as the encoder reads them."""
    args, dataset = work.args, work.dataset
    videos, splits = find_videos(args, dataset)
    videos, steps = converted_videos(videos, dataset), normalisation(args, dataset)
    how = (dataset.layout, work.stream, steps, work.device, work.dtype, work.scale_by)
    train, test = (VideoWindows(videos, tuple(splits[split]), *how) for split in ("train", "val"))
    check_videos(train, test)
    return [train, test]


def train_seed(work: Evaluation, train: VideoWindows, test: VideoWindows, seed: int, folder, **running) -> dict:
    """Trains and tests one seed, from a new encoder or from the state of a stopped run; writes predictions and detector.
    Returns last, best, per_class, frames_per_second and the proposals of each test video."""
    args, dataset = work.args, work.dataset
    recipe, start = recipe_of(args), time.monotonic()
    fit = partial(fit_to_windows, recipe=recipe, seed=seed)
    encoder = ready(work.source.load(dataset, seed), train, work.compute_dtype, fit)
    outcome = train_detector(encoder, train, test, dataset.row.num_classes, recipe, seed, **running)
    found = outcome.found
    write_predictions(folder.path / "predictions" / f"seed{seed}", dict(zip(test.names, found.proposals, strict=True)))
    top = f"{recipe.overlaps[-1]:g}"
    folder.log(
        f"seed {seed}: last mAP_a {100 * outcome.last[f'map_a@{top}']:.1f} mAP_v {100 * outcome.last[f'map_v@{top}']:.1f} "
        f"at overlap {top}, right frames {100 * outcome.last['frame_accuracy']:.1f}, best epoch {outcome.best['epoch']}, "
        f"{time.monotonic() - start:.0f} s, test {found.frames_per_second:.0f} frames/s"
    )
    about = {"stream": train.stream, "seed": seed, "dataset": dataset.row.name, "mode": args.mode}
    content = classifier_content(encoder, outcome.head, ["background", *dataset.row.classes], about, None)
    files.save(folder.path / "detector.pth", content)
    proposals = [torch.from_numpy(np.asarray(rows, dtype=np.float64)) for rows in found.proposals]
    kept = {"per_class": found.per_class, "frames_per_second": found.frames_per_second, "proposals": proposals}
    return {"last": outcome.last, "best": outcome.best, **kept}


def draw_timelines(work: Evaluation, test: VideoWindows, outcome: dict, folder: RunFolder) -> None:
    args, dataset = work.args, work.dataset
    for i, name in enumerate(test.names[: args.timelines]):
        title = f"{name}: {args.mode} detection on {dataset.row.name}, seed {args.seed[0]}"
        draw_timeline(
            folder.path / "timelines" / f"{name}.png",
            int(test.lengths[i]),
            test.ground_truth(i),
            outcome["proposals"][i].numpy(),
            dataset.row.classes,
            title,
        )


def write_results(work: Evaluation, test: VideoWindows, outcomes: dict[int, dict], folder: RunFolder) -> None:
    """Writes result.json, with the results of all seeds; per class those of the last seed at the last overlap."""
    args, dataset = work.args, work.dataset
    found = list(outcomes.values())[-1]
    features = "one pass over each video" if args.mode == "sequence" else "a window around each frame"
    folder.write_json(
        "result.json",
        {
            **work.result(f"detection/{args.mode}", features),
            "origin": "ours, not a published protocol" if args.mode == "sequence" else "published protocol",
            "coordinates": "normalised: " + " ".join(test.steps) if test.steps else "as in the videos' files",
            "recipe": asdict(recipe_of(args)),
            "test_videos": len(test),
            **last_and_best(outcomes),
            "best_chosen_by": f"map_a@{args.overlaps[-1]:g} on the test videos",
            "test_frames_per_second": found["frames_per_second"],
            "per_class": {dataset.row.classes[c - 1]: ap for c, ap in found["per_class"].items()},
        },
    )


def main(argv=None) -> int:
    args = parse_args(argv)
    require_one_process("action_detection.py")
    prepare_process(args.threads)
    work = Evaluation(args, DEFAULT_DATASET, find=find_set)
    if args.mode == "sequence":
        check_causal(work.first.encoder)
    train, test = open_windows(work)
    data = {split: of_videos(views.videos, views.chosen) for split, views in (("train", train), ("val", test))}
    with work.folder("action_detection", f"detection_{args.mode}", data, check=False) as folder:
        folder.log(
            f"detection ({KINDS[args.mode]}) with {work.title} on {work.dataset.row.name} {args.protocol}, {work.stream} "
            f"stream, {args.coordinates} coordinates: {len(train)} training videos ({train.lengths.sum()} frames), {len(test)} "
            f"test videos ({test.lengths.sum()} frames), {work.dataset.row.num_classes} classes and background, "
            f"{work.device}, {work.precision}"
        )
        work.log_place(folder, None)
        outcomes = work.trained(folder, partial(train_seed, work, train, test))
        write_results(work, test, outcomes, folder)
        with beside_results("timelines", folder.log):
            draw_timelines(work, test, outcomes[args.seed[0]], folder)
        folder.log(f"results, predictions and timelines: {folder.path}")
        top = f"{args.overlaps[-1]:g}"
        map_a, map_v = (
            summarise([o["last"][f"{name}@{top}"] for o in outcomes.values()]).percent() for name in ("map_a", "map_v")
        )
        folder.log(
            f"mAP_a {map_a}, mAP_v {map_v} at overlap {top}, last epoch "
            f"({len(outcomes)} seed{'s' * (len(outcomes) > 1)}; {KINDS[args.mode]})"
        )
    return work.status


if __name__ == "__main__":
    run(main, sys.argv[1:])
