"""What TensorBoard itself finds in the event files of a run: every tag that is promised, each of its kind."""

import re

import pytest
from make_tiny import write_tiny_dataset
from programs import call
from tiny_runs import pretrain

import action_classification
from utils.checkpoint import LAST

plugins = pytest.importorskip("tensorboard.backend.event_processing.plugin_event_accumulator")
SCALARS = {"total", "prediction", "distillation", "lr", "gradient_norm", "seconds_per_step", "knn_top1"}
SCALARS |= {f"{kind}_{view}" for kind in ("contrast", "top1") for view in ("query", "masked", "predicted", "mixed")}


def tags(folder, kind: str) -> set[str]:
    """Tags of a plugin of TensorBoard ("scalars", "images"), as its own reader gives them to its pages."""
    found = plugins.EventAccumulator(str(folder))
    found.Reload()
    return set(found.PluginTagToContent(kind))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("board")
    write_tiny_dataset(root / "data", "tiny", train=12, val=6, frames=60)
    ran = pretrain(root / "data", root / "run", "--epochs 1 --knn-every 1 --pictures 1")
    assert ran.status == 0, ran.err
    return root


def test_a_pretraining_has_curves_and_pictures(root):
    """An image of the same tag as a scalar was hidden by it."""
    assert tags(root / "run", "scalars") >= SCALARS
    assert tags(root / "run", "images") == {"pictures/prediction"}


def test_the_projector_has_classes_to_colour_by(root):
    text = (root / "run" / "projector_config.pbtxt").read_text()
    file = re.search(r'metadata_path: "(.+)"', text).group(1)
    lines = [line.split("\t") for line in (root / "run" / file).read_text().splitlines()]
    assert lines[0] == ["class", "class number", "clip"] and len(lines) == 7
    assert lines[1:] == [[f"action {i % 4}", str(i % 4), f"val_{i:04d}"] for i in range(6)]
    tensors = re.search(r'tensor_path: "(.+)"', text).group(1)
    assert len((root / "run" / tensors).read_text().splitlines()) == 6


def test_an_evaluation_has_its_curves(root, monkeypatch):
    monkeypatch.setattr(action_classification, "draw_confusion", lambda *given, **more: None)
    ran = call(
        action_classification.main,
        f"--data-root {root}/data --pretrained {root}/run/{LAST} --checkpoint-path {root}/linear --epochs 1 --threads 1",
    )
    assert ran.status == 0, ran.err
    assert tags(root / "linear", "scalars") >= {"seed42/loss", "seed42/top1", "seed42/lr"}
