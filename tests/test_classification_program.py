"""The evaluation program, run as a user runs it, on a tiny data set."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from make_tiny import write_tiny_dataset
from programs import call, refused
from tiny_runs import pretrain

import action_classification
from engine import fit
from engine.classify import StandardisedLinear
from engine.encoders import clip_features, fit_input_norm, random_encoder, snapshot
from engine.features import load_classifier
from engine.labels import choose_labelled, choose_per_class
from engine.setup import find_dataset
from feeder.evaluation import ClipViews
from models.encoder import EncoderConfig
from utils import checkpoint as files
from utils.fusion import read_scores
from utils.skeleton import KINECT_V2

README = (
    "--lr 0.1 --pretrained {path} --finetune-dataset ntu60 --protocol cross_view "
    "--finetune-skeleton-representation graph-based"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a tiny data set and a checkpoint of a tiny encoder."""
    root = tmp_path_factory.mktemp("world")
    write_tiny_dataset(root / "data", "tiny", frames=120)
    write_tiny_dataset(root / "data", "ntu60", ("xview",), train=70, val=64, classes=60, frames=300)
    ran = pretrain(root / "data", root / "pre", "--max-steps 2")
    assert ran.status == 0, ran.err
    return root


def evaluate(world, run, more="", pretrained=True):
    given = f"--pretrained {world}/pre/{files.LAST}" if pretrained else "--hidden-size 16 --num-layers 1"
    given += " --threads 1 --precision fp32"
    command = f"--data-root {world}/data --finetune-dataset tiny --checkpoint-path {run} {given} {more}"
    return call(action_classification.main, command)


def result(run):
    return json.loads((Path(run) / "result.json").read_text())


def test_the_readme_command_runs_on_ntu_files(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(world / "data" / "ntu60", tmp_path / "data" / "ntu60")
    ran = call(action_classification.main, README.format(path=world / "pre" / files.LAST) + " --epochs 6")
    assert ran.status == 0, ran.err
    assert "top-1 last" in ran.out and "best" in ran.out
    assert result(tmp_path / "runs/linear_ntu60_cross_view_pre")["protocol"] == "cross_view"


def test_products_in_bfloat16_are_labelled(world, tmp_path):
    ran = evaluate(world, tmp_path / "run", "--epochs 2 --precision bf16")
    assert ran.status == 0, ran.err
    assert result(tmp_path / "run")["features"] == "fresh crops, bf16 products" and "not the exact protocol" in ran.out


def test_results_are_whole(world, tmp_path):
    ran = evaluate(world, tmp_path / "run", "--epochs 7 --seed 1 2")
    assert ran.status == 0, ran.err
    out = result(tmp_path / "run")
    assert out["features"].startswith("exact") and set(out["seeds"]) == {"1", "2"}
    assert out["seeds"]["1"]["last"]["epoch"] == 7 and out["seeds"]["1"]["best"]["epoch"] in (5, 7)
    tops = [s["last"]["top1"] for s in out["seeds"].values()]
    assert out["summary"]["last"]["top1"]["mean"] == pytest.approx(np.mean(tops))
    assert out["summary"]["last"]["top1"]["std"] == pytest.approx(np.std(tops, ddof=1))
    confusion = np.load(tmp_path / "run/confusion.npy")
    assert confusion.shape == (4, 4) and confusion.sum() == 12
    assert np.trace(confusion) / 12 == pytest.approx(tops[-1])
    for name, accuracy in out["per_class"].items():
        row = confusion[int(name.split()[1])]
        assert accuracy == pytest.approx(row[int(name.split()[1])] / row.sum())
    scores = read_scores(tmp_path / "run")
    assert scores.scores.shape == (12, 4) and (scores.scores.argmax(1) == scores.labels).mean() == pytest.approx(
        tops[-1]
    )
    assert (tmp_path / "run/confusion.png").stat().st_size > 1000


def test_the_same_seed_gives_the_same(world, tmp_path):
    for name in "ab":
        assert evaluate(world, tmp_path / name, "--epochs 3 --seed 3").status == 0
    a, b = (read_scores(tmp_path / n).scores for n in "ab")
    np.testing.assert_array_equal(a, b)


def test_without_a_checkpoint_it_says_so(world, tmp_path):
    ran = evaluate(world, tmp_path / "run", "--epochs 2", pretrained=False)
    assert ran.status == 0 and "random encoder (no --pretrained given)" in ran.out


@pytest.mark.parametrize(
    "mode", ["--mode finetune", "--mode semi --label-fraction 0.5", "--mode semi --label-count 1", "--cache-features"]
)
def test_modes(world, tmp_path, mode):
    ran = evaluate(world, tmp_path / "run", f"--epochs 2 {mode} --batch-size 8")
    assert ran.status == 0, ran.err
    if "semi" in mode:
        chosen = json.loads((tmp_path / "run/labelled_seed42.json").read_text())
        assert len(chosen) == (4 if "count" in mode else 12) and chosen == sorted(chosen)
    if "cache" in mode:
        assert "cached" in result(tmp_path / "run")["features"] and "not the exact protocol" in ran.out


# -- standardised features --------------------------------------------------------------------------------------------


def test_a_layer_on_standardised_features_is_a_layer_on_the_features():
    features = (
        torch.randn(50, 6) * torch.tensor([1e-3, 0.1, 1.0, 5.0, 1e3, 0.0]) + 3.0
    )  # the last is the same everywhere
    layer = StandardisedLinear(fit.new_linear(6, 4, 0), features).double()
    by_hand = (features.double() - features.double().mean(0)) / features.double().std(0, correction=0)
    expected = by_hand.nan_to_num(0.0) @ layer.weight.T + layer.bias
    torch.testing.assert_close(layer(features.double()), expected, atol=1e-4, rtol=1e-4)
    assert type(layer.plain()) is torch.nn.Linear
    torch.testing.assert_close(layer.plain()(features.double()), layer(features.double()))


def test_encoders_with_a_pooling_are_read_standardised(world, tmp_path):
    ran = evaluate(world, tmp_path / "max", "--epochs 5 --pool mean_max --cache-features --label-count 2 --resume auto")
    assert ran.status == 0 and "standardised features, batch size 128, weight decay 0.05" in ran.out, ran.err
    path = tmp_path / "max/classifier.pth"
    assert set(files.load(path)["fc"]) == {"weight", "bias"}
    found = load_classifier(path, device="cpu")
    scores = read_scores(tmp_path / "max")
    clips = find_dataset(world / "data", "tiny", "cross_subject").clips("val")
    read = ClipViews(clips, torch.tensor(KINECT_V2.parents))
    with torch.no_grad():  # the file's layer reads features as they are
        own = found.fc(clip_features(found.encoder.encoder, read, quiet=True))
    order = [clips.names.index(name) for name in scores.names]
    np.testing.assert_allclose(scores.scores, own[order].numpy(), atol=1e-4)

    ran = evaluate(world, tmp_path / "off", "--epochs 1 --pool mean_max --no-standardise")
    assert ran.status == 0 and "standardised" not in ran.out
    assert json.loads((tmp_path / "off/arguments.json").read_text())[-1]["arguments"]["batch_size"] == 1024
    ran = evaluate(world, tmp_path / "paper", "--epochs 1")
    assert ran.status == 0 and "standardised" not in ran.out
    ran = evaluate(world, tmp_path / "asked", "--epochs 1 --standardise --batch-size 7 --weight-decay 0")
    assert ran.status == 0 and "batch size 7, weight decay 0;" in ran.out
    refused(evaluate(world, tmp_path / "no", "--standardise --mode finetune"), "--standardise", "--mode linear")


def test_only_finetuning_moves_the_encoder(world, tmp_path):
    start = files.load(world / "pre" / files.LAST)["state_dict"]
    for mode, moves in (("linear", False), ("finetune", True)):
        assert evaluate(world, tmp_path / mode, f"--epochs 1 --mode {mode}").status == 0
        after = files.load(tmp_path / mode / "classifier.pth")["state_dict"]
        same = all(torch.equal(start[k], v) for k, v in after.items())
        assert same is not moves


def test_a_frozen_encoder_that_moves_is_caught(world):
    encoder = random_encoder(EncoderConfig(hidden_size=16, num_layers=1), 0).requires_grad_(False)
    fc = fit.new_linear(32, 4, 0)
    before = snapshot(encoder)
    fit.check_frozen(encoder, fc, before)
    encoder.encoder.gru.weight_hh_l0[0, 0] += 1e-6
    with pytest.raises(AssertionError, match="weight_hh_l0"):
        fit.check_frozen(encoder, fc, before)
    encoder.requires_grad_(True)
    with pytest.raises(AssertionError, match="trainable"):
        fit.check_frozen(encoder, fc, snapshot(encoder))


def test_input_statistics_are_those_of_the_split(world):
    dataset = find_dataset(world / "data", "tiny", "cross_subject")
    views = ClipViews(dataset.clips("train"), torch.tensor(dataset.layout.parents))
    encoder = random_encoder(EncoderConfig(hidden_size=16, num_layers=1), 0)
    fit_input_norm(encoder, views, batch=5)
    x = views.centre(torch.arange(len(views))).flatten(0, 1)
    torch.testing.assert_close(encoder.input_norm.running_mean, x.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(encoder.input_norm.running_var, x.var(0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fraction", [0.01, 0.05, 0.1, 0.2, 1.0])
def test_label_fractions_are_exact(fraction):
    labels = np.repeat(np.arange(6), [100, 40, 7, 1, 250, 2])[np.random.default_rng(0).permutation(400)]
    chosen = choose_labelled(labels, fraction, "per_class", 1)
    for c in range(6):
        assert (labels[chosen] == c).sum() == max(1, round(fraction * (labels == c).sum()))
    assert len(choose_labelled(labels, fraction, "global", 1)) == round(fraction * 400)
    assert np.array_equal(chosen, choose_labelled(labels, fraction, "per_class", 1))
    if 0.05 <= fraction < 1:
        assert not np.array_equal(chosen, choose_labelled(labels, fraction, "per_class", 2))


def test_label_counts_are_exact_and_grow():
    labels = np.repeat(np.arange(4), [20, 3, 1, 8])[np.random.default_rng(0).permutation(32)]
    one, five = (choose_per_class(labels, count, 1) for count in (1, 5))
    assert np.bincount(labels[one]).tolist() == [1, 1, 1, 1] and np.bincount(labels[five]).tolist() == [5, 3, 1, 5]
    assert set(one) <= set(five) and five.tolist() == sorted(five)
    assert not np.array_equal(one, choose_per_class(labels, 1, 2))
    balanced = np.arange(40) % 4
    assert np.array_equal(choose_per_class(balanced, 5, 3), choose_labelled(balanced, 0.5, "per_class", 3))


@pytest.mark.parametrize(
    "flags, word",
    [
        ("--pretrained nowhere.pth.tar", "no such file"),
        ("--mode semi --label-fraction 0.5 --label-count 1", "--label-count"),
        ("--mode semi --label-count 1 --sampling global", "--sampling"),
        ("--mode semi", "--label-fraction"),
        ("--mode finetune --cache-features", "--cache-features"),
        ("--seed 1 1", "--seed"),
        ("--finetune-dataset other", "'other'"),
        ("--protocol cross_view", "cross_view"),
        ("--stream bone", "joint stream"),
    ],
)
def test_mistakes_are_one_sentence(world, tmp_path, flags, word):
    refused(evaluate(world, tmp_path / "run", flags), word)


def test_a_diverging_classifier_is_an_error(world, tmp_path):
    refused(
        evaluate(world, tmp_path / "run", "--lr 1e38 --mode finetune --epochs 3 --batch-size 4"), "not finite", "--lr"
    )


def test_one_person_and_other_joints(tmp_path):
    """V and M come from the data set."""
    write_tiny_dataset(tmp_path, "sbu", layout="sbu_15", joints=15, persons=1, frames=90)
    ran = pretrain(tmp_path, tmp_path / "pre", "--max-steps 2", "sbu")
    assert ran.status == 0, ran.err
    ran = call(
        action_classification.main,
        f"--data-root {tmp_path} --finetune-dataset sbu --pretrained {tmp_path}/pre/{files.LAST} --checkpoint-path "
        f"{tmp_path}/lin --epochs 2 --threads 1",
    )
    assert ran.status == 0, ran.err
