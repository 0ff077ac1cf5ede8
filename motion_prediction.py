"""Predicts future poses with a decoder on an encoder: frozen, tuned, or trained from scratch, beside zero velocity.

    python motion_prediction.py --pretrained runs/joint/checkpoint_last.pth.tar --dataset ui_prmd \\
        --encoder-mode frozen tuned scratch

The run folder gets result.json (MPJPE in mm at every horizon, of every mode and seed), curve.png, and poses/*.png with true
and predicted poses. `engine.prediction` holds the protocol, which is this repository's own.
"""

import sys

from options.prediction import parse_args

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant


import time
from dataclasses import asdict, replace

import numpy as np
import torch

from engine.encoders import LoadedEncoder, random_encoder
from engine.evaluation import (
    RANDOM,
    EncoderSource,
    check_own_data,
    data_of,
    find_place,
    pretraining_of,
    result_head,
    say_place,
)
from engine.prediction import PredictionRecipe, fit_to_observed, predict, train_predictor, zero_velocity
from engine.setup import Dataset, choose_precision, find_dataset, prepare_process, resolve_device, resolve_precision
from engine.transfer import TRUNK
from feeder.windows import FutureViews, long_enough
from options.backbones import encoder_flags
from options.prediction import DEFAULT_DATASET
from utils.distributed import refuse_several
from utils.drawing import draw_clips
from utils.errors import UserError, run
from utils.metrics import summarise
from utils.plots import beside_results, draw_curves
from utils.run_folder import RunFolder

POSES = 6  # drawn of each row: the last observed one and five of the future


def make_encoder(args, dataset: Dataset, mode: str, seed: int) -> LoadedEncoder:
    """A fresh encoder for a mode and seed; `scratch` has the sizes of the checkpoint where there is one."""
    source = EncoderSource(args.pretrained, args.stream, encoder_flags(args))
    loaded = source.load(dataset, seed)
    if args.pretrained and mode == "scratch":
        return replace(loaded, encoder=random_encoder(loaded.encoder.config, seed), source=RANDOM)
    return loaded


def split_views(args, dataset: Dataset, split: str, first: LoadedEncoder, device, dtype) -> tuple[FutureViews, int]:
    """The clips of a split that are long enough, and how many are not. UserError when none is."""
    clips = dataset.clips(split, args.cache_dir).scaled(first.encoder.config.scale_by, dataset.layout)
    clips = clips.to(device, args.clips)
    kept = long_enough(clips, args.observe + args.predict)
    if not len(kept):
        raise UserError(
            f"{dataset.row.name}: no {split} clip has {args.observe + args.predict} frames (the longest has "
            f"{int(clips.num_frame.max())}); give smaller --observe and --predict"
        )
    parents = torch.tensor(dataset.layout.parents)
    metres = 1.0 if dataset.row.dimensions == 3 else TRUNK  # lengths of flat clips are shares of the trunk
    views = FutureViews(clips.select(kept), parents, args.observe, args.predict, first.stream, device, dtype, metres)
    return views, len(clips) - len(kept)


def run_seed(args, dataset: Dataset, mode: str, seed: int, train: FutureViews, test: FutureViews, folder: RunFolder):
    """One mode and seed: (encoder, outcome)."""
    loaded = make_encoder(args, dataset, mode, seed)
    encoder = loaded.encoder.to(train.device, train.dtype)
    encoder.set_compute_dtype(resolve_precision(args.precision)[1])
    if loaded.source == RANDOM:
        fit_to_observed(encoder, train)
    recipe = PredictionRecipe(
        mode=mode,
        lr=args.lr,
        encoder_lr=args.encoder_lr,
        batch_size=args.batch_size,
        epochs=args.epochs,
        schedule=tuple(args.schedule),
        hidden_size=args.decoder_size,
    )
    start = time.monotonic()

    def log(epoch: int, values: dict) -> None:
        folder.metrics(epoch, {f"{mode}/seed{seed}/{name}": value for name, value in values.items()})

    outcome = train_predictor(encoder, train, test, recipe, seed, log)
    folder.say(
        f"{mode}, seed {seed}: mean {float(outcome.errors.mean()):.1f} mm over {test.predict} frames, "
        f"{time.monotonic() - start:.0f} s"
    )
    return encoder, outcome


def table(horizons, rows: dict[str, list]) -> list[str]:
    """Lines of a table: rows of strings, a column for each horizon and the mean over all predicted frames."""
    names = [f"{h} frames" if h == horizons[0] else str(h) for h in horizons] + ["mean"]
    wide = max(map(len, rows)) + 2
    cells = [max(len(name), *(len(row[i]) for row in rows.values())) + 2 for i, name in enumerate(names)]
    lines = ["MPJPE, mm".ljust(wide) + "".join(name.rjust(w) for name, w in zip(names, cells, strict=True))]
    return lines + [
        name.ljust(wide) + "".join(v.rjust(w) for v, w in zip(row, cells, strict=True)) for name, row in rows.items()
    ]


def figures(errors: torch.Tensor, horizons) -> dict[str, float]:
    """{mpjpe_mm@h: error, ..., mpjpe_mm: mean over all frames} of errors (predict,)."""
    return {f"mpjpe_mm@{h}": float(errors[h - 1]) for h in horizons} | {"mpjpe_mm": float(errors.mean())}


def draw_poses(args, dataset: Dataset, test: FutureViews, trained: dict, folder: RunFolder) -> None:
    """A picture for some test clips, spread over the split: true poses, and a row of predicted ones for each mode."""
    number = min(args.pictures, len(test))
    for i in np.linspace(0, len(test) - 1, number).round().astype(int) if number else ():
        index = torch.tensor([int(i)])
        rows, titles = [], []
        for mode, (encoder, outcome) in trained.items():
            pose, guess, future = predict(encoder, outcome.decoder, test, index)
            rows.append(torch.cat([pose[:, None], guess], dim=1))
            titles.append(f"predicted, {mode} encoder")
        rows = [torch.cat([pose[:, None], future], dim=1), *rows]
        titles = [f"{test.clips.names[i]}: true; frame 0 is the last observed one", *titles]
        clips = [row[0].permute(2, 0, 1)[..., None].cpu().numpy() for row in rows]  # (3, t, V, 1)
        draw_clips(
            folder.path / "poses" / f"{test.clips.names[i]}.png", clips, dataset.layout, titles, POSES, up=dataset.up
        )


def write_results(
    args,
    dataset,
    test,
    source,
    still,
    outcomes: dict,
    skipped: dict,
    pretraining: dict | None,
    data: dict,
    folder: RunFolder,
) -> dict:
    """result.json and curve.png; returns the rows of the printed table."""
    zero = figures(still, args.horizons)
    rows = {"zero velocity": [f"{v:.1f}" for v in zero.values()]}
    summary, curves = {}, {"zero velocity": (range(1, args.predict + 1), still.tolist())}
    for mode, by_seed in outcomes.items():
        values = [figures(o.errors, args.horizons) for o in by_seed.values()]
        summary[mode] = {k: asdict(summarise([v[k] for v in values])) for k in values[0]}
        rows[mode] = [
            f"{s['mean']:.1f}" + ("" if s["std"] is None else f" ± {s['std']:.1f}") for s in summary[mode].values()
        ]
        errors = torch.stack([o.errors for o in by_seed.values()]).mean(0)
        curves[mode] = (range(1, args.predict + 1), errors.tolist())
    features, where = "observed frames at the raw rate, not resized", (dataset.row.name, dataset.protocol)
    folder.write_json(
        "result.json",
        {
            **result_head("motion_prediction", *where, source, test.stream, features, pretraining, data),
            "origin": "ours, no published protocol",
            "observe": args.observe,
            "predict": args.predict,
            "test_clips": len(test),
            "skipped_short_clips": skipped,
            "zero_velocity": zero,
            "summary": {"last": summary},
            "seeds": {
                mode: {str(s): {"last": o.errors.tolist()} for s, o in by_seed.items()}
                for mode, by_seed in outcomes.items()
            },
        },
    )
    with beside_results("curve.png", folder.say):
        title = f"motion prediction on {dataset.row.name}"
        draw_curves(folder.path / "curve.png", curves, "predicted frame", "MPJPE, mm", title)
    return rows


def main(argv=None) -> int:
    args = parse_args(argv)
    refuse_several("motion_prediction.py")
    prepare_process(args.threads)
    device = resolve_device(args.device)
    place = find_place(args.data_root, args.pretrained, args.finetune_dataset, args.protocol, DEFAULT_DATASET)
    args.finetune_dataset, args.protocol = place.dataset, place.protocol
    dataset = find_dataset(args.data_root, args.finetune_dataset, args.protocol, ("train", "val"))
    dataset = EncoderSource(args.pretrained, args.stream, encoder_flags(args)).fit(dataset)
    first = make_encoder(args, dataset, "frozen", args.seed[0])  # a wrong file is refused before anything is read
    args.precision, precision = choose_precision(args.precision, device, first.encoder.config.backbone)
    dtype, _ = resolve_precision(args.precision)
    (train, short_train), (test, short_test) = (
        split_views(args, dataset, split, first, device, dtype) for split in ("train", "val")
    )
    skipped = {"train": short_train, "val": short_test}
    args.checkpoint_path = args.checkpoint_path or place.default_folder("prediction", first.stream)
    data = data_of(train, test)
    other = check_own_data(place, data, args.evaluate_on_other_data)
    folder = RunFolder(args.checkpoint_path, "motion_prediction", vars(args), data=data)
    try:
        folder.say(
            f"motion prediction with {first.source} on {dataset.row.name} {args.protocol}, {first.stream} "
            f"stream: {len(train)} training and {len(test)} "
            f"test clips of at least {args.observe + args.predict} frames ({short_train} and {short_test} shorter ones skipped), "
            f"{device}, {precision}"
        )
        pretraining = pretraining_of(place, args.data_root, test.clips.names, other)
        say_place(place, pretraining, dataset.converted, folder.say)
        if dataset.row.dimensions == 2:
            folder.say(f"clips of two dimensions: errors are those of a person whose trunk measures {TRUNK} m")
        still = zero_velocity(test)
        trained = {
            mode: {seed: run_seed(args, dataset, mode, seed, train, test, folder) for seed in args.seed}
            for mode in args.encoder_mode
        }
        outcomes = {mode: {seed: outcome for seed, (_, outcome) in seeds.items()} for mode, seeds in trained.items()}
        rows = write_results(args, dataset, test, first.source, still, outcomes, skipped, pretraining, data, folder)
        with beside_results("predicted poses", folder.say):
            draw_poses(args, dataset, test, {mode: seeds[args.seed[0]] for mode, seeds in trained.items()}, folder)
        folder.say(f"results and pictures: {folder.path}")
        for line in table(args.horizons, rows):
            folder.say(line)
    except UserError as error:
        folder.say(f"error: {error}", show=False)
        raise
    finally:
        folder.close()
    return 0


if __name__ == "__main__":
    run(main, sys.argv[1:])
