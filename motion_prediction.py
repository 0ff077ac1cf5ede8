"""Motion prediction: trains a decoder on an encoder (frozen, tuned or trained from scratch) that predicts future poses.

    python motion_prediction.py --pretrained runs/joint/checkpoint_last.pth.tar --dataset ui_prmd \\
        --encoder-mode frozen tuned scratch

The errors are compared with those of zero velocity, which repeats the last pose. The run folder gets result.json (MPJPE in mm
at every horizon, of every mode and seed), curve.png, and poses/*.png with true and predicted poses. The protocol, which is
this project's own, is in `engine.prediction`.
"""

import sys

from options.prediction import parse_args

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant


import time
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import torch

from engine.encoders import LoadedEncoder, random_encoder
from engine.evaluation import RANDOM, Evaluation, data_of, ready
from engine.prediction import PredictionRecipe, fit_to_observed, predict, train_predictor, zero_velocity
from engine.setup import prepare_process
from engine.transfer import TRUNK
from feeder.windows import FutureViews, long_enough
from options.common import from_flags
from options.prediction import DEFAULT_DATASET
from utils.distributed import require_one_process
from utils.drawing import draw_clips
from utils.errors import UserError, run
from utils.metrics import summarise_runs
from utils.plots import beside_results, draw_curves
from utils.run_folder import RunFolder

POSES = 6  # poses drawn in each row: the last observed one and five future ones


def make_encoder(work: Evaluation, mode: str, seed: int) -> LoadedEncoder:
    """A new encoder for a mode and seed; that of `scratch` has the sizes of the checkpoint, if there is one."""
    loaded = work.source.load(work.dataset, seed)
    if work.args.pretrained and mode == "scratch":
        return replace(loaded, encoder=random_encoder(loaded.encoder.config, seed), source=RANDOM)
    return loaded


def split_views(work: Evaluation, split: str) -> tuple[FutureViews, int]:
    """The clips of a split that are long enough, and the number of clips that are not. UserError if none is."""
    args, dataset = work.args, work.dataset
    clips = dataset.clips(split, args.cache_dir).scaled(work.scale_by, dataset.layout).to(work.device, args.clips)
    kept = long_enough(clips, args.observe + args.predict)
    if not len(kept):
        raise UserError(
            f"{dataset.row.name}: no {split} clip has {args.observe + args.predict} frames (the longest has "
            f"{int(clips.num_frame.max())}); give smaller --observe and --predict"
        )
    parents = torch.tensor(dataset.layout.parents)
    metres = 1.0 if dataset.row.dimensions == 3 else TRUNK  # the unit of 2-D clips is the trunk length
    how = (parents, args.observe, args.predict, work.stream, work.device, work.dtype, metres)
    return FutureViews(clips.select(kept), *how), len(clips) - len(kept)


def drawn_clips(args, test: FutureViews) -> list[int]:
    """Indices of the test clips to draw, evenly spread over the split."""
    number = min(args.pictures, len(test))
    return np.linspace(0, len(test) - 1, number).round().astype(int).tolist() if number else []


def train_seed(
    work: Evaluation, mode: str, train: FutureViews, test: FutureViews, seed: int, folder, **running
) -> dict:
    """Trains and tests one mode and seed. Returns errors (predict,) in mm, and predicted poses of the clips to draw."""
    args = work.args
    encoder = ready(make_encoder(work, mode, seed), train, work.compute_dtype, fit_to_observed)
    recipe = from_flags(PredictionRecipe, args, mode=mode, hidden_size=args.decoder_size)
    start = time.monotonic()
    outcome = train_predictor(encoder, train, test, recipe, seed, **running)
    folder.log(
        f"{mode}, seed {seed}: mean {float(outcome.errors.mean()):.1f} mm over {test.predict} frames, "
        f"{time.monotonic() - start:.0f} s"
    )
    poses = [predict(encoder, outcome.head, test, torch.tensor([i]))[1].cpu() for i in drawn_clips(args, test)]
    return {"errors": outcome.errors, "poses": poses}


def table(horizons, rows: dict[str, list]) -> list[str]:
    """The lines of a table of rows of texts, with a column for each horizon and one for the mean over all predicted frames."""
    names = [f"{h} frames" if h == horizons[0] else str(h) for h in horizons] + ["mean"]
    first = max(map(len, rows)) + 2
    widths = [max(len(name), *(len(row[i]) for row in rows.values())) + 2 for i, name in enumerate(names)]
    return [
        name.ljust(first) + "".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for name, row in {"MPJPE, mm": names, **rows}.items()
    ]


def figures(errors: torch.Tensor, horizons) -> dict[str, float]:
    """Errors (predict,) -> {mpjpe_mm@h: error at frame h, ..., mpjpe_mm: mean over all frames}."""
    return {f"mpjpe_mm@{h}": float(errors[h - 1]) for h in horizons} | {"mpjpe_mm": float(errors.mean())}


def draw_poses(work: Evaluation, test: FutureViews, poses: dict[str, list], folder: RunFolder) -> None:
    """Draws some test clips: a row of true poses, and a row of predicted poses for each mode. poses: predicted, by mode."""
    for number, i in enumerate(drawn_clips(work.args, test)):
        _, pose, future = (x.cpu() for x in test.test(torch.tensor([i])))
        rows = [torch.cat([pose[:, None], future], dim=1)]
        rows += [torch.cat([pose[:, None], guesses[number]], dim=1) for guesses in poses.values()]
        name = test.clips.names[i]
        titles = [f"{name}: true; frame 0 is the last observed one"]
        titles += [f"predicted, {mode} encoder" for mode in poses]
        clips = [row[0].permute(2, 0, 1)[..., None].numpy() for row in rows]  # (3, t, V, 1)
        path, layout = folder.path / "poses" / f"{name}.png", work.dataset.layout
        draw_clips(path, clips, layout, titles, POSES, up=work.dataset.up)


def write_results(work: Evaluation, test, still, outcomes: dict, skipped: dict, folder: RunFolder) -> dict:
    """Writes result.json and curve.png; returns the rows of the printed table. still: errors (predict,) of zero velocity;
    outcomes: by mode and seed; skipped: numbers of clips that are too short."""
    args = work.args
    zero = figures(still, args.horizons)
    rows = {"zero velocity": [f"{v:.1f}" for v in zero.values()]}
    summary, curves = {}, {"zero velocity": (range(1, args.predict + 1), still.tolist())}
    for mode, by_seed in outcomes.items():
        values = [figures(o["errors"], args.horizons) for o in by_seed.values()]
        summary[mode] = {name: asdict(value) for name, value in summarise_runs(values).items()}
        rows[mode] = [
            f"{s['mean']:.1f}" + ("" if s["std"] is None else f" ± {s['std']:.1f}") for s in summary[mode].values()
        ]
        errors = torch.stack([o["errors"] for o in by_seed.values()]).mean(0)
        curves[mode] = (range(1, args.predict + 1), errors.tolist())
    folder.write_json(
        "result.json",
        {
            **work.result("motion_prediction", "observed frames at the raw rate, not resized"),
            "origin": "ours, no published protocol",
            "observe": args.observe,
            "predict": args.predict,
            "test_clips": len(test),
            "skipped_short_clips": skipped,
            "zero_velocity": zero,
            "summary": {"last": summary},
            "seeds": {
                mode: {str(s): {"last": o["errors"].tolist()} for s, o in by_seed.items()}
                for mode, by_seed in outcomes.items()
            },
        },
    )
    with beside_results("curve.png", folder.log):
        title = f"motion prediction on {work.dataset.row.name}"
        draw_curves(folder.path / "curve.png", curves, "predicted frame", "MPJPE, mm", title)
    return rows


def main(argv=None) -> int:
    args = parse_args(argv)
    require_one_process("motion_prediction.py")
    prepare_process(args.threads)
    work = Evaluation(args, DEFAULT_DATASET)
    (train, short_train), (test, short_test) = (split_views(work, split) for split in ("train", "val"))
    with work.folder("motion_prediction", "prediction", data_of(train, test)) as folder:
        folder.log(
            f"motion prediction with {work.title} on {work.dataset.row.name} {args.protocol}, {work.stream} stream: "
            f"{len(train)} training and {len(test)} "
            f"test clips of at least {args.observe + args.predict} frames ({short_train} and {short_test} shorter ones skipped), "
            f"{work.device}, {work.precision}"
        )
        work.log_place(folder, test.clips.names)
        if work.dataset.row.dimensions == 2:
            folder.log(f"clips of two dimensions: errors are for a person with a trunk of {TRUNK} m")
        still = zero_velocity(test)
        outcomes = {
            mode: work.trained(folder, partial(train_seed, work, mode, train, test), f"{mode}/")
            for mode in args.encoder_mode
        }
        rows = write_results(work, test, still, outcomes, {"train": short_train, "val": short_test}, folder)
        with beside_results("predicted poses", folder.log):
            draw_poses(work, test, {mode: o[args.seed[0]]["poses"] for mode, o in outcomes.items()}, folder)
        folder.log(f"results and pictures: {folder.path}")
        for line in table(args.horizons, rows):
            folder.log(line)
    return work.status


if __name__ == "__main__":
    run(main, sys.argv[1:])
