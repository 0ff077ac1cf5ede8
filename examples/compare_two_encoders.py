"""Compares encoders by nearest neighbours on a prepared data set:

python examples/compare_two_encoders.py a.pth.tar b.pth.tar DATA_ROOT DATASET PROTOCOL
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.encoders import clip_features, load_encoder
from engine.evaluation import open_views
from engine.setup import find_dataset
from utils.errors import UserError, run
from utils.retrieval import retrieve


def main(argv) -> int:
    if len(argv) < 4:
        raise UserError(
            "give checkpoints and a data set: compare_two_encoders.py a.pth.tar b.pth.tar data ui_prmd cross_subject"
        )
    *checkpoints, data_root, name, protocol = argv
    dataset = find_dataset(data_root, name, protocol, ("train", "val"))
    for path in checkpoints:
        loaded = load_encoder(path, dataset)
        splits = []
        for split in ("val", "train"):  # queries, then gallery
            views = open_views(dataset, split, loaded.stream, torch.device("cpu"), torch.float32, "auto", None)
            splits += [clip_features(loaded.encoder, views), views.clips.labels]
        found = retrieve(*splits, [1, 5], [1], False, torch.device("cpu"), 2**28)
        print(f"{loaded.source}: 1-NN {100 * found.accuracy[1]:.1f} %, 5-NN {100 * found.accuracy[5]:.1f} %")
    return 0


if __name__ == "__main__":
    run(main, sys.argv[1:])
