"""Pretraining of the smallest model on a tiny data set: its command, its run in this process, and what it leaves."""

import json
from pathlib import Path

import torch
from programs import Ran, call

from utils import checkpoint as files

MODEL = "--hidden-size 16 --num-layers 1"
QUEUE = "--batch-size 4 --contrast-k 12 --topk 12"
SMALL = f"--recipe paper --decoder-hidden-size 8 {QUEUE} --pictures 0 --threads 1 -p 2 --device cpu --precision fp32"
EPOCHS = 100_000  # of a run that something else ends


def pretraining(data, run, more: str = "", name: str = "tiny") -> str:
    """The words of a pretraining without end on the data set `name` under `data`. more: further flags, which win over those
    of here; with --backbone it says the sizes, too."""
    model = "" if "--backbone" in more else MODEL
    place = f"--data-root {data} --pre-dataset {name} --checkpoint-path {run}"
    return f"{place} {SMALL} {model} --epochs {EPOCHS} {more}"


def pretrain(data, run, more: str = "", name: str = "tiny") -> Ran:
    """Three epochs of it, unless `more` says another number."""
    import pretrain_moco_mask

    return call(pretrain_moco_mask.main, pretraining(data, run, f"--epochs 3 {more}", name))


def weights(path) -> dict[str, torch.Tensor]:
    return files.load(path)["state_dict"]


def same(a: dict, b: dict) -> bool:
    return list(a) == list(b) and all(torch.equal(a[k], b[k]) for k in a)


def lines(run) -> list[dict]:
    """What metrics.jsonl of a run folder says."""
    return [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
