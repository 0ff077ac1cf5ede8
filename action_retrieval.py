"""Evaluates features by retrieval, without training: k-nearest neighbours, recall@k and mean average precision.

    python action_retrieval.py --pretrained runs/joint/checkpoint_last.pth.tar --dataset ntu60 --protocol cross_view

The train split is the gallery, the clips of the val split are the queries; features are the clip features of the centre crop,
compared by their cosine. The run folder gets result.json, predictions.csv and, with --save-features, the features. The
definitions are in `utils.retrieval`.
"""

import sys

from options.retrieval import parse_args

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant


import time
from dataclasses import asdict

import torch
from torch import nn
from tqdm import tqdm

from engine.answers import FILE, write_neighbours
from engine.encoders import ALONE, clip_features
from engine.evaluation import Evaluation, Place, data_of, for_each_pooling, ready, shares_by_class
from engine.setup import prepare_process, resolve_device
from options.retrieval import DEFAULT_DATASET
from utils.distributed import require_one_process
from utils.errors import UserError, run
from utils.features import Features, SplitFeatures, read_features, write_features
from utils.metrics import confusion_matrix, summarise
from utils.retrieval import retrieve
from utils.run_folder import RunFolder

RAW = "no encoder: joint coordinates"


def saved_features(args) -> Features:
    """The features in the file of --features. UserError if its data set or protocol is not the one given."""
    content = read_features(args.features)
    for flag, asked, found in (
        ("--dataset", args.finetune_dataset, content.dataset),
        ("--protocol", args.protocol, content.protocol),
    ):
        if asked is not None and asked != found:
            raise UserError(
                f"{args.features}: its features are of {found}, not {asked}; remove {flag}, or encode again with --pretrained"
            )
    return content


class FromEncoder(Evaluation):
    """The evaluation of an encoder, or of the coordinates (--raw-joints): `features(seed)` encodes the views of both splits."""

    def __init__(self, args):
        super().__init__(args, DEFAULT_DATASET, encoder=not args.raw_joints)
        if args.raw_joints:
            self.title, self.scale_by = RAW, args.scale_by or "none"
        self.how = "" if args.raw_joints else f", encoded in {self.precision}"
        self.train, self.val = self.views()
        self.names, self.fingerprints = self.val.clips.names, data_of(self.train, self.val)

    def features(self, seed: int | None) -> Features:
        """The features of both splits, from a new encoder; seed: of a random encoder."""
        encoder = nn.Flatten()
        if self.source is not None:
            encoder = ready(self.source.load(self.dataset, seed or 0), self.train, self.compute_dtype)
        splits = [
            SplitFeatures(v.clips.names, v.clips.labels.cpu().numpy(), clip_features(encoder, v).float().numpy())
            for v in (self.train, self.val)
        ]
        about = (self.title, self.stream, self.dataset.row.name, self.dataset.protocol, self.data)
        return Features(*splits, self.dataset.row.classes, *about)


class FromFile(Evaluation):
    """The evaluation of saved features (--features): `features(seed)` returns them."""

    def __init__(self, args):
        self.args, self.world, self.status, self.converted, self.how = args, ALONE, 0, "", ""
        content = saved_features(args)
        self.train, self.val = content.train, content.val
        self.names, self.fingerprints = content.val.names, content.data
        self.place, self.stream, self.title = Place(content.dataset, content.protocol), content.stream, content.encoder
        args.finetune_dataset, args.protocol = content.dataset, content.protocol
        self.features = lambda seed: content


def measure(args, content: Features) -> dict:
    """The results of one encoder: knn and recall by k, map (None with --no-map), per_class for the first k, counts, and the
    predicted class of each query."""
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
    return {
        "knn": found.accuracy,
        "recall": found.recall,
        "map": found.mean_average_precision,
        "per_class": shares_by_class(confusion, content.classes),
        "queries": found.queries,
        "gallery": len(train),
        "queries_without_match": found.without_match,
        "predicted": predicted.tolist(),
    }


def summary_of(args, figures: list[dict]) -> dict:
    """Mean and standard deviation of all results over the seeds."""
    out = {
        name: {str(k): asdict(summarise([f[name][k] for f in figures])) for k in ks}
        for name, ks in (("knn", args.knn), ("recall", args.recall))
    }
    return out | {"map": asdict(summarise([f["map"] for f in figures])) if args.map else None}


def sentence(args, figures: list[dict]) -> str:
    """The last line of the log: all results in percent."""
    parts = [f"{k}-NN {summarise([f['knn'][k] for f in figures]).percent()}" for k in args.knn]
    parts += [f"recall@{k} {summarise([f['recall'][k] for f in figures]).percent()}" for k in args.recall]
    parts += [f"mAP {summarise([f['map'] for f in figures]).percent()}"] if args.map else []
    return ", ".join(parts)


def evaluate(work: FromEncoder | FromFile, folder: RunFolder) -> str:
    """Evaluates every seed (or once, if no random encoder is used) and writes result.json; returns the last line of the log."""
    args = work.args
    seeds = [None] if args.features or args.pretrained or args.raw_joints else args.seed
    figures = {}
    for seed in seeds:
        start = time.monotonic()
        content = work.features(seed)
        encoded = time.monotonic()
        if args.save_features:
            write_features(folder.path / "features.npz", content)
        figures[seed] = measure(args, content)
        folder.log(
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
            **work.result("retrieval", what),
            "similarity": "cosine",
            "dimensions": content.train.features.shape[1],
            "features_file": args.features or None,
            **{name: last[name] for name in ("queries", "gallery", "queries_without_match")},
            "summary": summary_of(args, list(figures.values())),
            "seeds": {str(s): {k: f[k] for k in ("knn", "recall", "map")} for s, f in figures.items() if s is not None},
            "per_class": last["per_class"],
        },
    )
    folder.log(f"results: {folder.path}")
    count = f" ({len(seeds)} seeds)" if len(seeds) > 1 else ""
    line = sentence(args, list(figures.values())) + count
    folder.log(line)
    return line


def run_retrieval(args, below: str) -> tuple[int, str]:
    """The whole evaluation; returns the exit status and the last line of the log. below: a folder in the run folder, or ''."""
    work = FromFile(args) if args.features else FromEncoder(args)
    for flag, ks in (("--knn", args.knn), ("--recall", args.recall)):
        if max(ks) > len(work.train):
            raise UserError(f"{flag} {max(ks)}: the train split has {len(work.train)} clips; give at most that many")
    with work.folder("action_retrieval", "retrieval", work.fingerprints, below) as folder:
        folder.log(
            f"retrieval with {work.title} on {args.finetune_dataset} {args.protocol}, {work.stream} stream: "
            f"{len(work.val)} queries, gallery of {len(work.train)}, cosine{work.how}"
        )
        work.log_place(folder, work.names)
        return work.status, evaluate(work, folder)


def main(argv=None) -> int:
    args = parse_args(argv)
    require_one_process("action_retrieval.py")
    prepare_process(args.threads)
    resolve_device(args.device)  # first, to refuse a missing device at once
    return for_each_pooling(args, run_retrieval)


if __name__ == "__main__":
    run(main, sys.argv[1:])
