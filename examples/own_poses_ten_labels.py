"""A classifier from ten labelled clips of each class: python examples/own_poses_ten_labels.py ENCODER.pth.tar FOLDER

FOLDER/CLASS/... holds poses in any form that data_gen.from_poses reads, such as the output of data_gen.from_video. A
classifier on the encoder's features is trained on ten clips of each class, evenly spread, and tested on the others; other
layouts are converted."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.clip_files import open_clips
from engine.features import load
from engine.few_labels import solve_regression
from utils.errors import UserError, run

LABELS = 10  # of each class


def main(argv) -> int:
    if len(argv) != 2:
        raise UserError("give an encoder and a folder: own_poses_ten_labels.py checkpoint_last.pth.tar FOLDER")
    encoder = load(argv[0])
    files = open_clips(argv[1], encoder)
    print("\n".join(files.lines))
    folders = files.classes()
    classes = sorted({folder for folder in folders if folder is not None})
    if len(classes) < 2 or None in folders or min(map(folders.count, classes)) < 2:
        raise UserError(f"{argv[1]}: expected a folder for each class, at least two classes with at least 2 clips each")
    y = torch.tensor([classes.index(folder) for folder in folders])
    labelled = torch.zeros(len(y), dtype=torch.bool)
    for own in (torch.nonzero(y == k).flatten() for k in range(len(classes))):
        labelled[own[torch.linspace(0, len(own) - 1, min(LABELS, len(own) - 1)).long()]] = True
    x = torch.from_numpy(encoder.clip_features(files.clips()))
    predicted = solve_regression(x[labelled], y[labelled], len(classes))(x[~labelled]).argmax(1)
    right = (predicted == y[~labelled]).double().mean()
    print(f"{len(classes)} classes, {labelled.sum()} labels, {100 * right:.1f} % of {len(predicted)} others right")
    for name, k in zip([n for n, used in zip(files.names, labelled, strict=True) if not used], predicted, strict=True):
        print(f"  {name}: {classes[k]}")
    return 0


if __name__ == "__main__":
    run(main, sys.argv[1:])
