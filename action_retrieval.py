"""Evaluates features by retrieval: k-nearest neighbours, recall@k and mean average precision; nothing is trained.

    python action_retrieval.py --pretrained runs/joint/checkpoint_last.pth.tar --dataset ntu60 --protocol cross_view

The train split is the gallery, the val split asks; features are the clip features of the centre crop, compared by their
cosine. The run folder gets result.json, predictions.csv and, with --save-features, the features. `utils.retrieval` holds the
definitions.
"""

import sys

from options.retrieval import parse_args

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant


import math
import time
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from engine.answers import FILE, write_neighbours
from engine.encoders import clip_features
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
from engine.setup import choose_precision, find_dataset, prepare_process, resolve_device, resolve_precision
from options.backbones import encoder_flags
from options.retrieval import DEFAULT_DATASET
from utils.distributed import refuse_several
from utils.errors import UserError, run
from utils.features import Features, SplitFeatures, read_features, write_features
from utils.metrics import confusion_matrix, per_class_accuracy, summarise
from utils.retrieval import retrieve
from utils.run_folder import RunFolder

RAW = "no encoder: joint coordinates"


def saved_features(args) -> Features:
    """The features of --features; UserError when they are of another data set or protocol than asked for."""
    content = read_features(args.features)
    for flag, asked, found in (
        ("--dataset", args.finetune_dataset, content.dataset),
        ("--protocol", args.protocol, content.protocol),
    ):
        if asked is not None and asked != found:
            raise UserError(
                f"{args.features}: its features are of {found}, not {asked}; leave {flag} out, or encode anew"
            )
    return content


class Encoding:
    """Both splits as views, and `features(seed)` of the encoder that the arguments name."""

    def __init__(self, args):
        device, backbone = resolve_device(args.device), ""
        self.place = find_place(args.data_root, args.pretrained, args.finetune_dataset, args.protocol, DEFAULT_DATASET)
        self.data = find_dataset(args.data_root, self.place.dataset, self.place.protocol, ("train", "val"))
        self.dataset, self.protocol = self.data.row.name, self.data.protocol
        self.source = None if args.raw_joints else EncoderSource(args.pretrained, args.stream, encoder_flags(args))
        self.encoder, self.stream, self.how = RAW, args.stream or "joint", ""
        scale_by = args.scale_by or "none"
        if self.source is not None:
            self.data = self.source.fit(self.data)
            loaded = self.source.load(self.data, args.seed[0])  # refuses a wrong file before anything is read
            self.encoder, self.stream = loaded.source, loaded.stream
            backbone, scale_by = loaded.encoder.config.backbone, loaded.encoder.config.scale_by
        args.precision, words = choose_precision(args.precision, device, backbone)
        dtype, self.compute_dtype = resolve_precision(args.precision)
        if backbone:
            self.how = f", encoded in {words}"
        self.train, self.val = (
            open_views(self.data, split, self.stream, device, dtype, args.clips, args.cache_dir, scale_by)
            for split in ("train", "val")
        )
        self.fingerprints = data_of(self.train, self.val)
        self.other = check_own_data(self.place, self.fingerprints, args.evaluate_on_other_data)

    def features(self, seed: int | None) -> Features:
        """Of a fresh encoder; seed: of a random one."""
        encoder = nn.Flatten()
        if self.source is not None:
            encoder = self.source.ready(self.data, seed or 0, self.train, self.compute_dtype)
        splits = [
            SplitFeatures(v.clips.names, v.clips.labels.cpu().numpy(), clip_features(encoder, v).float().numpy())
            for v in (self.train, self.val)
        ]
        about = (self.encoder, self.stream, self.dataset, self.protocol, self.fingerprints)
        return Features(*splits, self.data.row.classes, *about)


def measure(args, content: Features) -> dict:
    """Figures of one encoder: knn and recall by k, map (None when not asked for), accuracy of each class for the first k,
    and counts."""
    val, train = content.val, content.train
    found = retrieve(
        torch.from_numpy(val.features),
        torch.from_numpy(val.labels),
        torch.from_numpy(train.features),
        torch.from_numpy(train.labels),
        args.knn,
        args.recall,
        args.map,
        resolve_device(args.device),
        args.memory * 2**20,
        lambda chunks: tqdm(chunks, desc="retrieval", unit="chunk", disable=None, leave=False),
    )
    predicted = found.predicted[args.knn[0]]
    confusion = confusion_matrix(predicted, torch.from_numpy(val.labels), len(content.classes))
    by_class = [None if math.isnan(share) else share for share in per_class_accuracy(confusion)]
    return {
        "knn": found.accuracy,
        "recall": found.recall,
        "map": found.mean_average_precision,
        "per_class": dict(zip(content.classes, by_class, strict=True)),
        "queries": found.queries,
        "gallery": len(train),
        "queries_without_match": found.without_match,
        "predicted": predicted.tolist(),
    }


def summary_of(args, figures: list[dict]) -> dict:
    """Mean and deviation over seeds of every figure."""
    out = {
        name: {str(k): asdict(summarise([f[name][k] for f in figures])) for k in ks}
        for name, ks in (("knn", args.knn), ("recall", args.recall))
    }
    return out | {"map": asdict(summarise([f["map"] for f in figures])) if args.map else None}


def sentence(args, figures: list[dict]) -> str:
    """The last line: every figure in percent."""
    parts = [f"{k}-NN {summarise([f['knn'][k] for f in figures]).percent()}" for k in args.knn]
    parts += [f"recall@{k} {summarise([f['recall'][k] for f in figures]).percent()}" for k in args.recall]
    parts += [f"mAP {summarise([f['map'] for f in figures]).percent()}"] if args.map else []
    return ", ".join(parts)


def evaluate(args, features, pretraining: dict | None, folder: RunFolder) -> str:
    """Every seed (or the one encoder that needs none), result.json and the last line, which is returned. features(seed): of a
    seed."""
    seeds = [None] if args.features or args.pretrained or args.raw_joints else args.seed
    figures = {}
    for seed in seeds:
        start = time.monotonic()
        content = features(seed)
        encoded = time.monotonic()
        if args.save_features:
            write_features(folder.path / "features.npz", content)
        figures[seed] = measure(args, content)
        folder.say(
            f"{'' if seed is None else f'seed {seed}: '}{sentence(args, [figures[seed]])}; "
            f"features {encoded - start:.1f} s, ranking {time.monotonic() - encoded:.1f} s"
        )
    last = figures[seeds[-1]]
    val = content.val
    write_neighbours(folder.path / FILE, val.names, last["predicted"], content.classes, val.labels)
    what = "centre crop, flattened coordinates" if content.encoder == RAW else "centre crop, clip features"
    folder.write_json(
        "result.json",
        {
            **result_head(
                "retrieval",
                content.dataset,
                content.protocol,
                content.encoder,
                content.stream,
                what,
                pretraining,
                content.data,
            ),
            "similarity": "cosine",
            "dimensions": content.train.features.shape[1],
            "features_file": args.features or None,
            **{name: last[name] for name in ("queries", "gallery", "queries_without_match")},
            "summary": summary_of(args, list(figures.values())),
            "seeds": {str(s): {k: f[k] for k in ("knn", "recall", "map")} for s, f in figures.items() if s is not None},
            "per_class": last["per_class"],
        },
    )
    folder.say(f"results: {folder.path}")
    count = f" ({len(seeds)} seeds)" if len(seeds) > 1 else ""
    line = sentence(args, list(figures.values())) + count
    folder.say(line)
    return line


def retrieve_by(args, below: str) -> tuple[int, str]:
    """Everything from the data to the results; returns 0 and the last line. below: a folder in the run folder, or ''."""
    source = saved_features(args) if args.features else Encoding(args)
    for flag, ks in (("--knn", args.knn), ("--recall", args.recall)):
        if max(ks) > len(source.train):
            raise UserError(f"{flag} {max(ks)}: the train split has {len(source.train)} clips; give at most that many")
    place = source.place if isinstance(source, Encoding) else Place(source.dataset, source.protocol)
    args.finetune_dataset, args.protocol = source.dataset, source.protocol
    args.checkpoint_path = str(Path(args.checkpoint_path or place.default_folder("retrieval", source.stream), below))
    data = source.fingerprints if isinstance(source, Encoding) else source.data
    folder = RunFolder(args.checkpoint_path, "action_retrieval", vars(args), data=data)
    try:
        folder.say(
            f"retrieval with {source.encoder} on {source.dataset} {source.protocol}, {source.stream} stream: "
            f"{len(source.val)} queries, gallery of {len(source.train)}, cosine"
            f"{source.how if isinstance(source, Encoding) else ''}"
        )
        names = source.val.clips.names if isinstance(source, Encoding) else source.val.names
        other = source.other if isinstance(source, Encoding) else ()
        pretraining = pretraining_of(place, args.data_root, names, other)
        converted = source.data.converted if isinstance(source, Encoding) else ""
        say_place(place, pretraining, converted, folder.say)
        features = source.features if isinstance(source, Encoding) else lambda seed: source
        return 0, evaluate(args, features, pretraining, folder)
    except UserError as error:
        folder.say(f"error: {error}", show=False)
        raise
    finally:
        folder.close()


def main(argv=None) -> int:
    args = parse_args(argv)
    refuse_several("action_retrieval.py")
    prepare_process(args.threads)
    resolve_device(args.device)  # a device that is not there is refused first
    return one_by_one(args, retrieve_by)


if __name__ == "__main__":
    run(main, sys.argv[1:])
