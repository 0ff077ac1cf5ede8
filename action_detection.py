"""Finds actions in untrimmed videos: trains a frame classifier on an encoder, and measures mAP_a and mAP_v.

    python action_detection.py --pretrained runs/joint/checkpoint_last.pth.tar --dataset pku_v1

Reads <data root>/<data set>/untrimmed (see utils.untrimmed). The run folder gets result.json (last and best figures of every
seed, per class), predictions/seed<seed>/<video>.txt in PKU-MMD's text format, timelines/<video>.png (truth above
prediction, first seed) and detector.pth of the last seed. `engine.detection` holds the three protocols.
"""

import sys

from options.detection import parse_args

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant


import time
from dataclasses import asdict, replace

from data_gen.normalise import PLANAR_STEPS
from data_gen.normalise import STEPS as ALL_STEPS
from engine.detection import (
    DetectionOutcome,
    DetectionRecipe,
    check_causal,
    check_videos,
    fit_to_windows,
    train_detector,
)
from engine.evaluation import EncoderSource, find_place, pretraining_of, result_head, say_place
from engine.setup import (
    Dataset,
    choose_precision,
    find_row,
    make_if_packed,
    prepare_process,
    resolve_device,
    resolve_precision,
)
from engine.transfer import pad_persons
from feeder.windows import STEPS, VideoWindows
from options.backbones import encoder_flags
from options.detection import DEFAULT_DATASET
from utils import checkpoint as files
from utils.convert_layout import convert
from utils.distributed import refuse_several
from utils.errors import UserError, run
from utils.metrics import summarise, summarise_runs
from utils.pku_text import write_predictions
from utils.plots import beside_results
from utils.run_folder import RunFolder
from utils.skeleton import get_layout
from utils.timeline import draw_timeline
from utils.untrimmed import Untrimmed, of_videos, open_untrimmed

KINDS = {
    "tuned": "tuned, the paper's protocol",
    "frozen": "frozen, the paper's variant",
    "sequence": "sequence, OURS (not a published protocol)",
}


def find_videos(args) -> tuple[Dataset, Untrimmed, dict[str, list[int]]]:
    """The data set, its untrimmed videos, and the video numbers of both splits of the protocol."""
    row, folder = find_row(args.data_root, args.finetune_dataset)
    if args.protocol not in row.protocols:
        raise UserError(f"{row.name} has no protocol {args.protocol!r}; it has {', '.join(row.protocols)}")
    make_if_packed(args.data_root, args.finetune_dataset, ("untrimmed",))
    layout = get_layout(row.layout)
    if not (folder / "untrimmed").is_dir():
        hint = f"; make it with: {row.prepare} --data-root {args.data_root}" if row.prepare.count("pku") else ""
        raise UserError(
            f"{folder / 'untrimmed'}: there is no such folder, so there are no whole videos of {row.name}{hint}"
        )
    videos = open_untrimmed(folder / "untrimmed", layout.joints, row.persons)
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
    return Dataset(row, layout, args.protocol, folder / row.protocols[args.protocol][0]), videos, splits


def converted_videos(videos: Untrimmed, dataset: Dataset) -> Untrimmed:
    """The videos in the form of frames that the data set is read as, in memory where that is another than the files'."""
    given, wanted = dataset.stored_form, dataset.form
    if given == wanted:
        return videos
    if given.dimensions != wanted.dimensions:
        raise UserError(
            f"{videos.folder}: its videos have {given.dimensions} dimensions, the encoder was trained in {wanted.dimensions}; "
            "whole videos are not converted from one to the other: take an encoder trained in as many"
        )
    frames = convert(pad_persons(videos.frames, wanted.persons), given.layout, wanted.layout, axis=2)
    return replace(videos, frames=frames, layout=wanted.layout.name)


def encoder_source(args) -> EncoderSource:
    return EncoderSource(args.pretrained, args.stream, encoder_flags(args))


def recipe_of(args) -> DetectionRecipe:
    return DetectionRecipe(
        mode=args.mode,
        lr=args.lr,
        batch_size=args.batch_size,
        epochs=args.epochs,
        schedule=tuple(args.schedule),
        windows=args.windows,
        length=args.length,
        stride=args.stride,
        train_strides=tuple(args.train_strides),
        segments=args.segments,
        overlaps=tuple(args.overlaps),
        momentum=args.momentum,
        weight_decay=args.weight_decay,
        delay=args.delay if args.mode == "sequence" else 0,
        test_every=args.test_every,
        test_batch=args.test_batch,
    )


def normalisation(args, dataset: Dataset) -> tuple[str, ...]:
    """Steps for the windows: none for raw coordinates, else those that the prepared clips had (all, where it isn't said)."""
    if args.coordinates == "raw":
        return ()
    usual = ALL_STEPS if dataset.row.dimensions == 3 else PLANAR_STEPS
    said = dataset.normalised
    return tuple(step for step in STEPS if step in (said if isinstance(said, list) else usual))


def run_seed(args, train: VideoWindows, test: VideoWindows, dataset: Dataset, seed: int, folder: RunFolder):
    """One seed, from a fresh encoder to its outcome; writes the predictions and the detector."""
    encoder = encoder_source(args).load(dataset, seed).encoder.to(train.device, train.dtype)
    encoder.set_compute_dtype(resolve_precision(args.precision)[1])
    recipe, start = recipe_of(args), time.monotonic()
    if not args.pretrained:
        fit_to_windows(encoder, train, recipe, seed)

    def log(epoch: int, values: dict) -> None:
        folder.metrics(epoch, {f"seed{seed}/{name}": value for name, value in values.items()})

    outcome = train_detector(encoder, train, test, dataset.row.num_classes, recipe, seed, log)
    write_predictions(
        folder.path / "predictions" / f"seed{seed}", dict(zip(test.names, outcome.found.proposals, strict=True))
    )
    top = f"{recipe.overlaps[-1]:g}"
    folder.say(
        f"seed {seed}: last mAP_a {100 * outcome.last[f'map_a@{top}']:.1f} mAP_v {100 * outcome.last[f'map_v@{top}']:.1f} "
        f"at overlap {top}, right frames {100 * outcome.last['frame_accuracy']:.1f}, best epoch {outcome.best['epoch']}, "
        f"{time.monotonic() - start:.0f} s, test {outcome.found.frames_per_second:.0f} frames/s"
    )
    state = {
        "format": files.FORMAT,
        "config": {"encoder": encoder.config.to_dict()},
        "classes": ["background", *dataset.row.classes],
        "state_dict": {f"encoder_q.{k}": v for k, v in encoder.state_dict().items()},
        "fc": outcome.fc.state_dict(),
        "arguments": {"stream": train.stream, "seed": seed, "dataset": dataset.row.name, "mode": args.mode},
    }
    files.save(folder.path / "detector.pth", state)
    return outcome


def draw_timelines(args, test: VideoWindows, dataset: Dataset, outcome: DetectionOutcome, folder: RunFolder) -> None:
    for i, name in enumerate(test.names[: args.timelines]):
        title = f"{name}: {args.mode} detection on {dataset.row.name}, seed {args.seed[0]}"
        draw_timeline(
            folder.path / "timelines" / f"{name}.png",
            int(test.lengths[i]),
            test.ground_truth(i),
            outcome.found.proposals[i],
            dataset.row.classes,
            title,
        )


def write_results(
    args,
    dataset: Dataset,
    test,
    source: str,
    outcomes: dict[int, DetectionOutcome],
    pretraining: dict | None,
    data: dict,
    folder: RunFolder,
) -> None:
    """result.json: figures of all seeds; per class those of the last seed at the last overlap."""
    summary = {}
    for which in ("last", "best"):
        runs = [{k: v for k, v in getattr(o, which).items() if k != "epoch"} for o in outcomes.values()]
        summary[which] = {name: asdict(value) for name, value in summarise_runs(runs).items()}
    found = list(outcomes.values())[-1].found
    features = "one pass over each video" if args.mode == "sequence" else "a window around each frame"
    task, where = f"detection/{args.mode}", (dataset.row.name, dataset.protocol)
    folder.write_json(
        "result.json",
        {
            **result_head(task, *where, source, test.stream, features, pretraining, data),
            "origin": "ours, not a published protocol" if args.mode == "sequence" else "published protocol",
            "coordinates": "normalised: " + " ".join(test.steps) if test.steps else "as in the videos' files",
            "recipe": asdict(recipe_of(args)),
            "test_videos": len(test),
            "summary": summary,
            "best_chosen_by": f"map_a@{args.overlaps[-1]:g} on the test videos",
            "seeds": {str(s): {"last": o.last, "best": o.best} for s, o in outcomes.items()},
            "test_frames_per_second": found.frames_per_second,
            "per_class": {dataset.row.classes[c - 1]: ap for c, ap in found.per_class.items()},
        },
    )


def main(argv=None) -> int:
    args = parse_args(argv)
    refuse_several("action_detection.py")
    prepare_process(args.threads)
    device = resolve_device(args.device)
    place = find_place(args.data_root, args.pretrained, args.finetune_dataset, args.protocol, DEFAULT_DATASET)
    args.finetune_dataset, args.protocol = place.dataset, place.protocol
    dataset, videos, splits = find_videos(args)
    dataset = encoder_source(args).fit(dataset)
    first = encoder_source(args).load(
        dataset, args.seed[0]
    )  # a wrong file is refused before anything is read or written
    args.precision, precision = choose_precision(args.precision, device, first.encoder.config.backbone)
    dtype, _ = resolve_precision(args.precision)
    if args.mode == "sequence":
        check_causal(first.encoder)
    steps, scale_by = normalisation(args, dataset), first.encoder.config.scale_by
    videos = converted_videos(videos, dataset)
    train, test = (
        VideoWindows(videos, tuple(splits[split]), dataset.layout, first.stream, steps, device, dtype, scale_by)
        for split in ("train", "val")
    )
    check_videos(train, test)
    args.checkpoint_path = args.checkpoint_path or place.default_folder(f"detection_{args.mode}", first.stream)
    data = {split: of_videos(views.videos, views.chosen) for split, views in (("train", train), ("val", test))}
    folder = RunFolder(args.checkpoint_path, "action_detection", vars(args), data=data)
    try:
        folder.say(
            f"detection ({KINDS[args.mode]}) with {first.source} on {dataset.row.name} {args.protocol}, {first.stream} stream, "
            f"{args.coordinates} coordinates: {len(train)} training videos ({train.lengths.sum()} frames), {len(test)} test "
            f"videos ({test.lengths.sum()} frames), {dataset.row.num_classes} classes and background, {device}, {precision}"
        )
        pretraining = pretraining_of(place, args.data_root, None)
        say_place(place, pretraining, dataset.converted, folder.say)
        outcomes = {seed: run_seed(args, train, test, dataset, seed, folder) for seed in args.seed}
        write_results(args, dataset, test, first.source, outcomes, pretraining, data, folder)
        with beside_results("timelines", folder.say):
            draw_timelines(args, test, dataset, outcomes[args.seed[0]], folder)
        folder.say(f"results, predictions and timelines: {folder.path}")
        top = f"{args.overlaps[-1]:g}"
        figures = {
            name: summarise([o.last[f"{name}@{top}"] for o in outcomes.values()]).percent()
            for name in ("map_a", "map_v")
        }
        folder.say(
            f"mAP_a {figures['map_a']}, mAP_v {figures['map_v']} at overlap {top}, last epoch "
            f"({len(outcomes)} seed{'s' * (len(outcomes) > 1)}; {KINDS[args.mode]})"
        )
    except UserError as error:
        folder.say(f"error: {error}", show=False)
        raise
    finally:
        folder.close()
    return 0


if __name__ == "__main__":
    run(main, sys.argv[1:])
