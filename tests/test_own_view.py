"""Weights of views, and a view of your own (examples/own_view.py), run as a user runs it."""

import base64
import math
import re
import runpy
import sys

import numpy as np
import pytest
import torch
from processes import ROOT
from programs import call, refused
from test_views import random_clips
from tiny_runs import lines, pretraining, same, weights

from engine.pictures import view_panels
from engine.restore import resume_command
from feeder.batches import Batches
from feeder.sampling import ViewSettings
from feeder.views import PAPER_VIEWS, VIEWS
from models.encoder import EncoderConfig
from models.pcm3 import CONTRASTS, PCM3Config
from utils import checkpoint as files
from utils.skeleton import KINECT_V2


@pytest.fixture
def example(monkeypatch):
    """The example's main; its view is removed after the test."""
    monkeypatch.setitem(VIEWS, "dropped", None)
    return runpy.run_path(str(ROOT / "examples" / "own_view.py"), run_name="example")["main"]


def pretrain(main, data, run, more):
    return call(main, f"pretrain_moco_mask {pretraining(data, run, more)}")


def total(row: dict, **view_weights: float) -> float:
    """The loss of a line of metrics.jsonl, computed from its terms."""
    views = [name for name in row if name.startswith("contrast_")]
    contrast = sum(view_weights.get(name.removeprefix("contrast_"), 1.0) * row[name] for name in views)
    return contrast + row["distillation"] + 40 * row["prediction"]


def test_a_view_of_your_own(example, data, tmp_path):
    """It is logged by its name, has its weight in the loss, and a resumed run equals one that was not stopped."""
    flags = "--view-weights dropped=0.5 mixed=2 -p 1"
    for run, more in (("whole", "--max-steps 4"), ("part", "--max-steps 2"), ("part", "--max-steps 4 --resume auto")):
        ran = pretrain(example, data, tmp_path / run, f"{flags} {more}")
        assert ran.status == 0, ran.err
    assert "dropped " in ran.out
    rows = lines(tmp_path / "whole")
    assert len(rows) == 4 and all({f"contrast_{v}" for v in (*CONTRASTS, "dropped")} <= row.keys() for row in rows)
    for row in rows:
        assert row["total"] == pytest.approx(total(row, dropped=0.5, mixed=2.0), rel=1e-5)
        assert math.isfinite(row["top1_dropped"])
    content = files.load(tmp_path / "whole" / files.LAST)
    config = PCM3Config.from_dict(content["config"])
    assert config.view_weights == {"dropped": 0.5, "mixed": 2.0} and config.own_views == {"dropped": "mask"}
    assert config.contrasts == (*CONTRASTS, "dropped") and PCM3Config.from_dict(config.to_dict()) == config
    assert same(content["state_dict"], weights(tmp_path / "part" / files.LAST))
    refused(
        pretrain(example, data, tmp_path / "whole", "--view-weights mixed=2 --resume auto"),
        "--view-weights dropped=0.5 mixed=2, now it is --view-weights mixed=2",
    )
    picture = tmp_path / "views.png"
    ran = call(
        example, f"visualize {tmp_path}/whole/{files.LAST} --data-root {data} --show views --clips 2 --output {picture}"
    )
    assert ran.status == 0 and "views of 2 clips" in ran.out and picture.stat().st_size > 0, ran.err
    words = f"report {tmp_path}/whole --data-root {data} --predictions 1 --output {tmp_path}/"
    assert call(example, f"{words}with.html").status == 0
    VIEWS.pop("dropped")  # as in a program that does not add it
    assert call(example, f"{words}without.html").status == 0
    with_it, without = ((tmp_path / f"{name}.html").read_text() for name in ("with", "without"))
    for page in (with_it, without):  # the report always names it, but can draw it only if it is added
        assert "<li>The run adds its own versions: dropped.</li>" in page
    assert figure_height(with_it) > figure_height(without)
    ran = call(example, f"visualize {tmp_path}/whole/{files.LAST} --data-root {data} --show views --output {picture}")
    refused(ran, "'dropped'", "query, masked, mixed, predicted", "examples/own_view.py")


def figure_height(page: str) -> int:
    """Pixels of a report's figure of the method, which has a row for each view."""
    png = re.search(r"class=method alt='[^']*' src='data:image/png;base64,([^']+)'", page)[1]
    return int.from_bytes(base64.b64decode(png)[20:24], "big")


@pytest.mark.parametrize("rows", [None, slice(2, 5)])
def test_dropped_joints(example, rows):
    """Whole joints of the query view, different ones in each clip, independent of a process's rows; the paper's views stay."""
    clips, settings = random_clips(12), ViewSettings(corruption=0.0)
    batch = Batches(clips, 8, 3, settings, KINECT_V2, rows=rows, own_views=("dropped",))[1]
    plain = Batches(clips, 8, 3, settings, KINECT_V2, rows=rows)[1]
    assert list(batch.views) == [*PAPER_VIEWS, "dropped"] and len(batch.offsets) == len(plain.offsets) + 1
    tensors = batch.tensors()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in plain.tensors().items() if name != "offsets")
    assert torch.equal(batch.offsets[:-1], plain.offsets)
    dropped, query = (batch.views[name].unflatten(-1, (25, -1)) for name in ("dropped", "query"))
    gone = (dropped == 0).all(dim=-1).all(dim=1)  # (n, V)
    assert torch.equal(dropped, query * ~gone[:, None, :, None])
    whole = Batches(clips, 8, 3, settings, KINECT_V2, own_views=("dropped",))[1].views["dropped"]
    assert torch.equal(batch.views["dropped"], whole[rows or slice(None)])
    assert 0 < gone.float().mean() < 0.6 and len({tuple(row) for row in gone.tolist()}) == len(gone)


def test_all_views_are_drawn(example):
    batches = Batches(random_clips(12), 8, 3, ViewSettings(), KINECT_V2, own_views=("dropped",))
    panels, _ = view_panels(batches, 0, range(2), KINECT_V2, [str(i) for i in range(12)])
    shown = [panel.title.split(": ")[1].split(" ")[0].strip(",") for panel in panels]
    assert shown == ["query", "key", "masked", "mixed", "dropped"] * 2
    assert (panels[4].clip == 0).all(axis=(0, 1, 3)).any() and np.isfinite(panels[4].paint).all()


def test_weights_of_the_papers_views(data, tmp_path, example):
    """A weight of 1 changes nothing; with 0 a view is logged and not trained."""
    runs = {
        "none": "",
        "one": "--view-weights query=1 mixed=1",
        "zero": "--view-weights mixed=0",
        "off": "--no-mixed-view",
    }
    for name, more in runs.items():
        ran = pretrain(example, data, tmp_path / name, f"{more} --no-distillation --max-steps 1 -p 1")
        assert ran.status == 0, ran.err
    found = {name: weights(tmp_path / name / files.LAST) for name in runs}
    assert same(found["none"], found["one"]) and not same(found["none"], found["zero"])
    (row,) = lines(tmp_path / "zero")
    assert row["contrast_mixed"] > 0
    trained = "encoder_q.encoder.gru.weight_hh_l0"
    torch.testing.assert_close(found["zero"][trained], found["off"][trained], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--view-weights mixed", ["NAME=WEIGHT, such as mixed=0.5, got 'mixed'"]),
        ("--view-weights mixed=much", ["number"]),
        ("--view-weights mixed=-1", ["at least 0"]),
        ("--view-weights mixed=1 mixed=2", ["names a view twice: mixed mixed"]),
        (
            "--view-weights mixed=2 --no-mixed-view",
            ["--view-weights mixed=2", "the mixed view is off", "--mixed-view"],
        ),
        (
            "--view-weights sideways=1",
            ["no view 'sideways'", "query, masked, mixed, dropped, predicted"],
        ),
        ("--view-weights query=0 masked=0 mixed=0 predicted=0 --prediction-weight 0", ["nothing is left to train"]),
    ],
)
def test_mistakes(example, data, tmp_path, flags, words):
    refused(pretrain(example, data, tmp_path / "run", flags), *words)


def test_impossible_settings():
    for wrong in ({"view_weights": {"dropped": 1.0}}, {"view_weights": {"mixed": -1.0}}, {"contrasts": ("dropped",)}):
        with pytest.raises(ValueError, match="dropped|mixed=-1"):
            PCM3Config(EncoderConfig(), **wrong)
    old = {name: value for name, value in PCM3Config().to_dict().items() if name not in ("view_weights", "own_views")}
    assert PCM3Config.from_dict(old) == PCM3Config()


def test_what_a_stopped_run_prints_names_the_example(monkeypatch):
    monkeypatch.chdir(ROOT)
    words = ["pretrain_moco_mask", "--view-weights", "dropped=1", "--resume", "x"]
    monkeypatch.setattr(sys, "argv", [str(ROOT / "examples" / "own_view.py"), *words])
    expected = "python examples/own_view.py pretrain_moco_mask --view-weights dropped=1 --resume auto"
    assert resume_command(1) == expected
