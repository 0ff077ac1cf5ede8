"""Evaluates an encoder by a classifier on top: linear evaluation, fine-tuning, or few labels.

    python action_classification.py --pretrained runs/joint/checkpoint_last.pth.tar --finetune-dataset ntu60 --protocol cross_view

The run folder gets result.json (last and best accuracy of every seed, per class), confusion.npy and .png, scores.npz (for
ensemble.py) and classifier.pth of the last seed. `engine.classify` holds the protocol and the checks it makes of itself.
"""

import math
import sys
import time
from dataclasses import asdict

import numpy as np
import torch

from engine.classify import Outcome, Recipe, train_classifier
from engine.encoders import LoadedEncoder, fit_input_norm, load_encoder, random_encoder
from engine.labels import choose_labelled
from engine.setup import Dataset, find_dataset, resolve_device, resolve_precision, set_threads
from feeder.evaluation import ClipViews
from models.encoder import EncoderConfig
from options.classification import parse_args
from utils import checkpoint as files
from utils.errors import UserError, run
from utils.fusion import SCORES_FILE, write_scores
from utils.metrics import confusion_matrix, per_class_accuracy, summarise
from utils.plots import draw_confusion
from utils.run_folder import RunFolder


def make_encoder(args, dataset: Dataset, seed: int) -> LoadedEncoder:
    """A fresh copy of the encoder for a seed: from the checkpoint, or random."""
    if args.pretrained:
        return load_encoder(args.pretrained, dataset, args.stream)
    sizes = EncoderConfig(
        layout=dataset.layout.name,
        joints=dataset.layout.joints,
        persons=dataset.row.persons,
        hidden_size=args.hidden_size,
        num_layers=args.num_layers,
    )
    return LoadedEncoder(random_encoder(sizes, seed), args.stream or "joint", f"random encoder, seed {seed}")


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


def run_seed(args, dataset: Dataset, train: ClipViews, test: ClipViews, seed: int, folder: RunFolder) -> Outcome:
    """One seed, from a fresh encoder to its outcome."""
    loaded = make_encoder(args, dataset, seed)
    encoder = loaded.encoder.to(train.device, train.dtype)
    encoder.set_compute_dtype(resolve_precision(args.precision)[1])
    if not args.pretrained:
        fit_input_norm(encoder, train)
    if args.label_fraction is not None:
        chosen = choose_labelled(train.clips.labels.cpu().numpy(), args.label_fraction, args.sampling, seed)
        train = ClipViews(**{**vars(train), "clips": train.clips.select(chosen)})
        folder.write_json(f"labelled_seed{seed}.json", sorted(train.clips.names))
    start = time.monotonic()

    def log(epoch: int, values: dict) -> None:
        folder.metrics(epoch, {f"seed{seed}/{name}": value for name, value in values.items()})

    outcome = train_classifier(encoder, train, test, dataset.row.num_classes, recipe_of(args), seed, log)
    folder.say(
        f"seed {seed}: {len(train)} training clips, last {100 * outcome.last['top1']:.2f} (top-5 "
        f"{100 * outcome.last['top5']:.2f}), best {100 * outcome.best['top1']:.2f} at epoch {outcome.best['epoch']}, "
        f"{time.monotonic() - start:.0f} s"
    )
    state = {
        "format": files.FORMAT,
        "config": {"encoder": encoder.config.to_dict()},
        "classes": list(dataset.row.classes),
    }
    state |= {
        "state_dict": {f"encoder_q.{k}": v for k, v in encoder.state_dict().items()},
        "fc": outcome.fc.state_dict(),
    }
    state["arguments"] = {
        "stream": train.stream,
        "seed": seed,
        "dataset": dataset.row.name,
        "protocol": dataset.protocol,
    }
    files.save(folder.path / "classifier.pth", state)
    return outcome


def write_results(
    args, dataset: Dataset, test: ClipViews, source: str, outcomes: dict[int, Outcome], folder: RunFolder
) -> None:
    """Result files of all seeds; scores and confusion are those of the last seed."""
    labels = test.clips.labels.cpu()
    outcome = list(outcomes.values())[-1]
    confusion = confusion_matrix(outcome.scores.argmax(dim=1), labels, dataset.row.num_classes)
    accuracy = per_class_accuracy(confusion)
    confusion = confusion.numpy()
    np.save(folder.path / "confusion.npy", confusion)
    draw_confusion(folder.path / "confusion.png", confusion, dataset.row.classes)
    write_scores(folder.path / SCORES_FILE, test.clips.names, labels.numpy(), outcome.scores.numpy(), test.stream, dataset.row.name)
    summary = {
        which: {k: asdict(summarise([getattr(o, which)[k] for o in outcomes.values()])) for k in ("top1", "top5")}
        for which in ("last", "best")
    }
    folder.write_json(
        "result.json",
        {
            "task": f"classification/{args.mode}",
            "dataset": dataset.row.name,
            "protocol": dataset.protocol,
            "encoder": source,
            "stream": test.stream,
            "features": "centre crop, cached" if args.cache_features else "exact protocol, fresh crops",
            "label_fraction": args.label_fraction,
            "summary": summary,
            "seeds": {str(s): {"last": o.last, "best": o.best} for s, o in outcomes.items()},
            "per_class": dict(
                zip(dataset.row.classes, [None if math.isnan(a) else a for a in accuracy], strict=True)
            ),
            "dropped_test_clips": list(test.clips.dropped),
        },
    )


def main(argv=None) -> int:
    args = parse_args(argv)
    set_threads(args.threads)
    device = resolve_device(args.device)
    dtype, _ = resolve_precision(args.precision)
    dataset = find_dataset(args.data_root, args.finetune_dataset, args.protocol, ("train", "val"))
    first = make_encoder(args, dataset, args.seed[0])  # a wrong file is refused before anything is read or written
    parents = torch.tensor(dataset.layout.parents)

    def views(split: str) -> ClipViews:
        clips = dataset.clips(split, args.cache_dir).to(device, args.clips)
        return ClipViews(clips, parents, first.stream, device=device, dtype=dtype)

    train, test = views("train"), views("val")
    folder = RunFolder(args.checkpoint_path, "action_classification", vars(args))
    try:
        source = first.source if args.pretrained else "random encoder (no --pretrained given)"
        folder.say(
            f"{args.mode} evaluation of {source} on {dataset.row.name} {args.protocol}, {first.stream} stream: "
            f"{len(train)} training and {len(test)} test clips, {dataset.row.num_classes} classes, {device}, {args.precision}"
        )
        if args.cache_features:
            folder.say("features: cached centre crops, not the exact protocol of fresh crops")
        outcomes = {seed: run_seed(args, dataset, train, test, seed, folder) for seed in args.seed}
        write_results(args, dataset, test, source, outcomes, folder)
        last = summarise([o.last["top1"] for o in outcomes.values()])
        best = summarise([o.best["top1"] for o in outcomes.values()])
        folder.say(f"results and pictures: {folder.path}")
        folder.say(
            f"top-1 last {last.percent()}, best test epoch {best.percent()} ({len(outcomes)} seed{'s' * (len(outcomes) > 1)})"
        )
    except UserError as error:
        folder.say(f"error: {error}", show=False)
        raise
    finally:
        folder.close()
    return 0


if __name__ == "__main__":
    run(main, sys.argv[1:])
