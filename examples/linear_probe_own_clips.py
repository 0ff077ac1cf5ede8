"""A linear classifier on your own clips: python examples/linear_probe_own_clips.py checkpoint_last.pth.tar FOLDER

FOLDER/CLASS/NAME.npy are the clips, (T, V, 3) in metres; every third clip of a class is for the test."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.features import load, read_clip
from utils.errors import UserError, run


def main(argv) -> int:
    if len(argv) != 2:
        raise UserError("give a checkpoint and a folder: linear_probe_own_clips.py checkpoint_last.pth.tar FOLDER")
    files = sorted(Path(argv[1]).glob("*/*.npy"))
    classes = sorted({path.parent.name for path in files})
    y = torch.tensor([classes.index(path.parent.name) for path in files])
    if len(classes) < 2 or y.bincount().min() < 3:
        raise UserError(f"{argv[1]}: expected CLASS/NAME.npy, at least two classes with at least 3 clips each")
    x = torch.from_numpy(load(argv[0]).clip_features(map(read_clip, files)))
    test = torch.tensor([i % 3 == 2 for k in range(len(classes)) for i in range(int((y == k).sum()))])
    x = (x - x[~test].mean(0)) / (x[~test].std(0) + 1e-6)
    probe = torch.nn.Linear(x.shape[1], len(classes))
    optimizer = torch.optim.AdamW(probe.parameters(), lr=0.01, weight_decay=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(probe(x[~test]), y[~test]).backward()
        optimizer.step()
    right = (probe(x[test]).argmax(1) == y[test]).float().mean()
    print(f"{len(classes)} classes, {(~test).sum()} clips to train, {test.sum()} to test: {100 * right:.1f} % right")
    return 0


if __name__ == "__main__":
    run(main, sys.argv[1:])
