"""The protocols of a frozen encoder stream: beside the features themselves, memory does not grow with the data set.

A fresh process evaluates N clips, and another 4N, of which the packed frames are mapped from a file. What is compared is the
peak of anonymous memory: pages of a mapped file are the system's cache, which it takes back when it needs them."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.common import status_bytes
from tests.make_tiny import write_tiny_dataset

ROOT = Path(__file__).resolve().parent.parent
CLIPS = 250
WIDTH = 32  # numbers of a feature: two directions of hidden size 16
MARGIN = 8e6  # for what the allocator happens to keep; holding the frames of 3N clips packed would take 60 MB

PROGRAM = """
import sys
import threading
import torch
from benchmarks.common import status_bytes
from engine import classify
from engine.classify import Recipe, train_classifier
from engine.encoders import clip_features, random_encoder
from engine.evaluation import open_views
from engine.setup import find_dataset
from models.encoder import EncoderConfig
from utils.retrieval import retrieve

root, what = sys.argv[1:]
torch.set_num_threads(1)
classify.FEATURE_BATCH = 64
device = torch.device("cpu")
data = find_dataset(root, "tiny", "cross_subject", ("train", "val"))
placement = "memory" if what == "held" else "mapped"
train, test = (open_views(data, s, "joint", device, torch.float32, placement, None) for s in ("train", "val"))
encoder = random_encoder(EncoderConfig(layout=data.layout.name, joints=25, persons=2, hidden_size=16, num_layers=1), 0)
peaks, stop = [0], threading.Event()


def watch():
    while not stop.wait(0.002):
        peaks.append(status_bytes("RssAnon"))


thread = threading.Thread(target=watch)
thread.start()
if what == "retrieval":
    gallery, queries = (clip_features(encoder, views, 64, True) for views in (train, test))
    retrieve(queries, test.clips.labels, gallery, train.clips.labels, budget=2**20)
else:
    recipe = Recipe(batch_size=64, epochs=1, schedule=(), test_every=1, cached=what == "cached")
    train_classifier(encoder, train, test, data.row.num_classes, recipe, 0, quiet=True)
stop.set()
thread.join()
print(max(*peaks, status_bytes("RssAnon")))
"""


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """Data sets of N and of 4N clips in each split."""
    out = []
    for clips in (CLIPS, 4 * CLIPS):
        out.append(tmp_path_factory.mktemp(f"clips{clips}"))
        write_tiny_dataset(out[-1], train=clips, val=clips, frames=128)
    return out


def peak(root: Path, what: str) -> int:
    """Bytes of anonymous memory at most in a process that evaluates; its packed clips are made by another before."""
    command = [sys.executable, "-c", PROGRAM, str(root), what]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout.split()[-1])


def growth(roots, what: str) -> float:
    if status_bytes("RssAnon") is None:
        pytest.skip("this system does not tell how much memory a process has")
    small, large = (peak(root, what) for root in roots)
    print(f"{what}: {small / 1e6:.1f} MB with {CLIPS} clips a split, {large / 1e6:.1f} MB with {4 * CLIPS}")
    return large - small


@pytest.mark.slow
@pytest.mark.parametrize("what", ["linear", "cached", "retrieval"])
def test_a_frozen_protocol_streams(roots, what):
    features = 2 * 3 * CLIPS * WIDTH * 4
    assert growth(roots, what) <= 2 * features + MARGIN


@pytest.mark.slow
def test_held_clips_would_be_noticed(roots):
    assert growth(roots, "held") > 4 * MARGIN
