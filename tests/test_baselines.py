"""The baselines command: every row, the encoder asked for beside them, and its place in the table of results."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from make_checkpoint import SMALL, content_of, new_model
from programs import call, refused

from engine import baselines, label_curve, results
from engine.encoders import clip_features, random_encoder
from engine.evaluation import open_views
from engine.setup import find_dataset
from engine.supervised import PLAIN, settings_of, train_supervised
from feeder.batches import Batches
from utils import checkpoint as files
from utils.errors import UserError

TINY_DATASET = dict(persons=1, train=32, val=16, frames=120)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of a gentle pretraining: pooled by the maximum, clips divided by their trunk."""
    path = tmp_path_factory.mktemp("run") / "checkpoint.pth.tar"
    model = new_model(persons=1, **SMALL, pool="max", scale_by="trunk")
    views = {"crop": [0.8, 1.0], "shear": 0.2, "bones": 0.2, "corruption": 0.0, "noise": 0.02}
    files.save(path, content_of(model, stream="joint", pre_dataset="tiny", protocol="cross_subject", **views))
    return path


@pytest.mark.parametrize("stream", ["joint", "bone"])
def test_mirrored_raw_features_are_those_of_mirrored_clips(data, stream):
    dataset = find_dataset(data, "tiny", "cross_subject", ("train",))
    views = open_views(dataset, "train", stream, torch.device("cpu"), torch.float32, "memory", None, "trunk")
    frames = views.clips.frames[:, list(dataset.layout.mirrored)] * torch.tensor([-1.0, 1.0, 1.0])[:, None]
    by_hand = baselines.raw_features(replace(views, clips=replace(views.clips, frames=frames)))
    plain = baselines.raw_features(views)
    found = baselines.with_mirrored(plain, dataset.layout, 1)
    torch.testing.assert_close(found, torch.cat([plain, by_hand]))


def test_clips_that_are_there_twice_are_learned_from_twice():
    """A clip's second features, those of the test clip, are found by neighbours and by the regression of the curve."""
    torch.manual_seed(0)
    plain, mirrored, labels = torch.randn(8, 40), torch.randn(8, 40), torch.arange(8)
    shares = [
        label_curve.frozen_share(train, labels, mirrored, labels, 8, np.arange(8))
        for train in (plain, torch.cat([plain, mirrored]))
    ]
    assert shares[0] < 0.7 and shares[1] == 1.0


def test_every_row_is_there_and_reads_the_same_again(data, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(baselines, "POOLS", ("max", "mean_std"))  # so that it takes seconds
    monkeypatch.setattr(baselines, "RAW", (baselines.RAW[1], baselines.RAW[4]))
    monkeypatch.setattr("engine.probes.MOST_FOLDS", 2)
    monkeypatch.setattr("engine.probes.STRENGTHS", (0.01, 0.3))
    command = (
        f"--data-root {data} --pretrained {checkpoint} --supervised --supervised-steps 3 --seed 1 2 "
        f"--few-labels --label-points 1 5 1% 100% --label-seeds 1 2 --checkpoint-path {tmp_path / 'run'}"
    )
    ran = call(baselines.main, command)
    assert ran.status == 0, ran.err
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    rows = {row["name"]: row for row in result["rows"]}
    kinds = [row["kind"] for row in result["rows"]]
    assert kinds == ["label-free"] * (len(baselines.RAW) + len(baselines.POOLS)) + ["labels", "pretrained"]
    assert result["dataset"] == "tiny" and "folds of the training clips" in result["classifier"]
    random = rows["random encoder, max"]["linear"]
    assert random["count"] == 2 and random["std"] is not None
    pretrained = rows[f"pretrained {checkpoint}, max"]
    assert pretrained["linear"]["count"] == 1 and 0 <= pretrained["linear"]["mean"] <= 1
    free = [row for row in result["rows"] if row["kind"] == "label-free"]
    for figure, name in result["best"].items():
        assert rows[name][figure]["mean"] == max(row[figure]["mean"] for row in free)
    assert (tmp_path / "run" / "table.md").read_text().strip() in ran.out
    assert f"pretrained {checkpoint}, max: linear " in ran.out.splitlines()[-1]
    curve = result["few_labels"]
    assert curve["clips"] == [4, 20, 32] and curve["points"][0].startswith("1 clip a class = 1 %")
    shares = {name: [None if v is None else len(v) for v in values] for name, values in curve["shares"].items()}
    assert (
        len(shares) == 5
        and shares["trained with labels"] == [1] * 3
        and shares[f"pretrained {checkpoint}, max"] == [2] * 3
    )
    assert "20 (5 clips a class)" in (tmp_path / "run" / "few_labels.md").read_text()
    assert (tmp_path / "run" / "few_labels.png").stat().st_size > 5000
    results.main([str(tmp_path / "run")])
    lines = capsys.readouterr().out
    assert "linear %, raw joints, by trunk length" in lines and "1-NN %, random encoder, mean_std" in lines


def test_pooled_features_are_those_of_an_encoder_of_that_pooling(data):

    dataset = find_dataset(data, "tiny", "cross_subject", ("train", "val"))
    views = open_views(dataset, "val", "joint", torch.device("cpu"), torch.float32, "auto", None)
    config = new_model(persons=1, **SMALL).config.encoder
    encoder = random_encoder(config, 0)
    found = baselines.pooled(encoder, views, (None, *baselines.POOLS), batch=5)
    assert encoder.config == config
    for pool in (None, *baselines.POOLS):
        twin = random_encoder(replace(config, pool=pool), 0)
        torch.testing.assert_close(found[pool], clip_features(twin, views), atol=1e-6, rtol=1e-5)


def test_training_with_labels_learns_them(data):
    dataset = find_dataset(data, "tiny", "cross_subject", ("train", "val"))
    views = open_views(dataset, "train", "joint", torch.device("cpu"), torch.float32, "auto", None)
    encoder = random_encoder(new_model(persons=1, **SMALL, pool="mean").config.encoder, 0)
    batches = Batches(views.clips, 8, 0, PLAIN, dataset.layout)
    fc = train_supervised(encoder, batches, views.clips.labels, 4, 60, 0.01, 0)
    share = (fc(clip_features(encoder, views)).argmax(1) == views.clips.labels).float().mean()
    assert share > 0.9 and not encoder.training
    with pytest.raises(UserError, match="not finite"):
        train_supervised(encoder, batches, views.clips.labels, 4, 60, 1e30, 0)


def test_points_of_the_curve_grow_and_are_named_once():
    labels = np.arange(100) % 2
    points = label_curve.label_points(labels, [1, 5, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0], [1, 2])
    assert [point.clips for point in points] == [2, 4, 10, 20, 50, 100]
    assert [point.words for point in points][2:4] == ["5 clips a class = 10 %", "20 %"]
    for few, more in pairwise(points):
        assert all(set(a) < set(b) for a, b in zip(few.chosen, more.chosen, strict=True))


def test_frozen_features_need_few_labels_where_they_say_the_class():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    plain = torch.eye(3)[labels] + 0.1 * torch.randn(60, 3, generator=generator)
    noise = torch.randn(60, 3, generator=generator)
    one, all_of_them = (
        p.chosen[0] for p in (lambda q: (q[0], q[-1]))(label_curve.label_points(labels.numpy(), [1, 1.0], [1]))
    )
    for features, chosen, low, high in ((plain, one, 0.9, 1), (plain, all_of_them, 0.95, 1), (noise, one, 0, 0.6)):
        assert low <= label_curve.frozen_share(features, labels, features.flip(0), labels.flip(0), 3, chosen) <= high


def test_views_are_those_of_the_pretraining_and_nothing_else_is_believed():
    told = {"crop": [0.8, 1.0], "bones": 0.25, "corruption": 0, "lr": 5, "mix_length": [1, 2]}
    found = settings_of(told, "x")
    assert (found.crop, found.bones, found.corruption, found.shear) == ((0.8, 1.0), 0.25, 0, 1.0)
    with pytest.raises(UserError, match="--bones is 'much'"):
        settings_of({"bones": "much"}, "x")


def test_mistakes_are_sentences(data, checkpoint, tmp_path):
    run = f"--data-root {data} --checkpoint-path {tmp_path / 'run'}"
    refused(call(baselines.main, f"{run} --finetune-dataset nothing"), "nothing")
    refused(call(baselines.main, f"{run} --finetune-dataset tiny --pretrained {tmp_path / 'none'}"), "none")
    refused(
        call(baselines.main, f"{run} --finetune-dataset tiny --pretrained {checkpoint} --hidden-size 32"),
        "--hidden-size 16",
    )
    refused(call(baselines.main, f"{run} --finetune-dataset tiny --backbone none"), "none")
    refused(call(baselines.main, f"{run} --seed 1 1"), "twice")
    for wrong in ("0", "0%", "101%", "half"):
        ran = call(baselines.main, f"{run} --label-points {wrong}")
        assert ran.status == 2 and "--label-points" in ran.err and "Traceback" not in ran.err
    assert not (tmp_path / "run").exists()
