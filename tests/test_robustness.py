"""Occlusion and early recognition: masks against their definition, curves that begin or end at the clean number."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from programs import call, refused

import action_classification
from engine.classify import Recipe, train_classifier
from engine.encoders import random_encoder
from engine.robustness import AMOUNTS, OBSERVED, early_curve, occlusion_curve
from engine.setup import find_dataset
from feeder.evaluation import ClipViews
from feeder.occlusion import hidden_block, hidden_parts
from models.encoder import EncoderConfig
from models.gru import GRUBackbone
from utils.errors import UserError
from utils.skeleton import KINECT_V2

NAMES = st.lists(st.text("abcS019", max_size=8), min_size=1, max_size=6, unique=True)
SEEDS = st.integers(0, 2**40)


@given(SEEDS, NAMES, st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_exactly_so_many_parts_are_hidden(seed, names, number):
    hidden = hidden_parts(seed, names, number, KINECT_V2.parts, 25, 64)
    assert hidden.shape == (len(names), 64, 25) and (hidden == hidden[:, :1]).all()
    for clip in hidden[:, 0]:
        whole = [clip[list(part)].all() for part in KINECT_V2.parts]
        assert sum(whole) == number and clip.sum() == sum(
            len(p) for p, w in zip(KINECT_V2.parts, whole, strict=True) if w
        )
    if number:
        fewer = hidden_parts(seed, names, number - 1, KINECT_V2.parts, 25, 64)
        assert (hidden | ~fewer).all()  # nested: what is hidden at r - 1 is hidden at r


@given(SEEDS, NAMES, st.integers(0, 10).map(lambda i: 10 * i), st.sampled_from([1, 7, 64]))
@settings(max_examples=40, deadline=None)
def test_one_block_of_the_asked_length(seed, names, percent, frames):
    hidden = hidden_block(seed, names, percent, 3, frames)
    assert hidden.shape == (len(names), frames, 3) and (hidden == hidden[..., :1]).all()
    length = int(np.floor(frames * percent / 100 + 0.5 + 1e-9))
    for clip in hidden[..., 0]:
        where = np.flatnonzero(clip)
        assert len(where) == length and (not length or where[-1] - where[0] == length - 1)


@given(SEEDS, NAMES)
@settings(max_examples=20, deadline=None)
def test_what_is_hidden_is_a_function_of_seed_and_name(seed, names):
    def parts(names):
        return hidden_parts(seed, names, 2, KINECT_V2.parts, 25, 4)

    def block(names):
        return hidden_block(seed, names, 50, 25, 64)

    for make in (parts, block):
        whole = make(names)
        assert (make(names[::-1])[::-1] == whole).all()
        assert (make(names[-1:])[0] == whole[-1]).all()


def test_parts_and_places_are_even():
    names = [f"clip {i}" for i in range(3000)]
    first = hidden_parts(0, names, 1, KINECT_V2.parts, 25, 1)[:, 0]
    shares = [first[:, part[0]].mean() for part in KINECT_V2.parts]
    assert max(abs(share - 0.2) for share in shares) < 0.03
    starts = hidden_block(0, names, 50, 1, 64)[..., 0].argmax(1)
    assert set(starts) == set(range(33)) and abs(starts.mean() - 16) < 1
    other = hidden_parts(1, names, 1, KINECT_V2.parts, 25, 1)[:, 0]
    assert 0.1 < (first == other).all(1).mean() < 0.3


TINY_DATASET = dict(name="tiny", train=40, val=21, frames=120)


def views_of(data, split, stream="joint", dtype=torch.float32):
    dataset = find_dataset(data, "tiny", "cross_subject", ("train", "val"))
    return ClipViews(dataset.clips(split), torch.tensor(dataset.layout.parents), stream, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("stream", ["joint", "bone", "motion"])
def test_hiding_comes_before_the_stream(data, stream, dtype):
    views = views_of(data, "val", stream, dtype)
    index = torch.tensor([3, 0, 7])
    hidden = torch.from_numpy(np.random.default_rng(0).random((3, 64, 25)) < 0.3)
    joint = views_of(data, "val").centre(index).reshape(3, 64, 25, 3, 2).clone()
    for n, t, v in hidden.nonzero().tolist():
        joint[n, t, v] = 0
    expected = joint.clone()
    if stream == "bone":
        for v, parent in enumerate(KINECT_V2.parents):
            expected[:, :, v] = joint[:, :, v] - joint[:, :, parent]
    if stream == "motion":
        expected[:] = 0
        expected[:, :-1] = joint[:, 1:] - joint[:, :-1]
    assert torch.equal(views.centre_hidden(index, hidden), expected.reshape(3, 64, -1).to(dtype))
    nothing = torch.zeros_like(hidden)
    assert torch.equal(views.centre_hidden(index, nothing), views.centre(index))


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("stream", ["joint", "bone"])
def test_the_ends_of_the_curves_are_the_clean_number(data, monkeypatch, frozen, stream):
    monkeypatch.setattr("engine.robustness.FEATURE_BATCH", 16)  # of 21 clips
    monkeypatch.setattr("engine.classify.FEATURE_BATCH", 16)
    train, test = (views_of(data, split, stream) for split in ("train", "val"))
    encoder = random_encoder(EncoderConfig(hidden_size=16, num_layers=1), 3)
    outcome = train_classifier(encoder, train, test, 4, Recipe(frozen=frozen, epochs=3, batch_size=8), 1, quiet=True)
    for kind in ("spatial", "temporal"):
        curve = occlusion_curve(encoder, outcome.head, test, kind, KINECT_V2.parts, 0)
        assert curve[0] == outcome.last["top1"] and len(curve) == len(AMOUNTS[kind])
        assert occlusion_curve(encoder, outcome.head, test, kind, KINECT_V2.parts, 0) == curve
    assert early_curve(encoder, outcome.head, test)[-1] == outcome.last["top1"]


def test_everything_hidden_leaves_one_answer(data):
    """A sanity check of the sweep: with all five parts hidden, all clips look alike."""
    test = views_of(data, "val")
    encoder = random_encoder(EncoderConfig(hidden_size=16, num_layers=1), 3)
    x = test.centre_hidden(torch.arange(4), torch.ones(4, 64, 25, dtype=torch.bool))
    assert torch.equal(encoder(x)[0], encoder(x)[3])


def test_early_recognition_equals_cut_clips(data):
    test = views_of(data, "val")
    encoder = random_encoder(EncoderConfig(hidden_size=16, num_layers=2), 5)
    fc = torch.nn.Linear(32, 4)
    x, labels = test.centre(torch.arange(len(test))), test.clips.labels
    curve = early_curve(encoder, fc, test)
    frames = [7, 13, 20, 26, 32, 39, 45, 52, 58, 64]  # ceil(64 p)
    assert len(curve) == len(OBSERVED) == len(frames)
    with torch.no_grad():
        for share, n in zip(curve, frames, strict=True):
            assert share == pytest.approx(float((fc(encoder(x[:, :n])).argmax(1) == labels).double().mean()))


def test_an_encoder_that_looks_ahead_is_refused(data, monkeypatch, tmp_path):
    monkeypatch.setattr(GRUBackbone, "causal", False)
    encoder = random_encoder(EncoderConfig(hidden_size=16, num_layers=1), 0)
    with pytest.raises(UserError, match="causal"):
        early_curve(encoder, torch.nn.Linear(32, 4), views_of(data, "val"))
    refused(classify(data, tmp_path / "run", "--early"), "--early", "causal")
    assert not (tmp_path / "run").exists()


def classify(data, run, flags):
    command = (
        f"--data-root {data} --finetune-dataset tiny --checkpoint-path {run} --threads 1 --epochs 3 "
        f"--hidden-size 16 --num-layers 1 --precision fp32 {flags}"
    )
    return call(action_classification.main, command)


def test_the_program_writes_curves(data, tmp_path):
    ran = classify(data, tmp_path, "--occlusion both --early --seed 1 2")
    assert ran.status == 0, ran.err
    result, occlusion, early = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("result", "occlusion", "early")
    )
    clean = {seed: values["last"]["top1"] for seed, values in result["seeds"].items()}
    mean = result["summary"]["last"]["top1"]["mean"]
    assert set(occlusion) == {"spatial", "temporal"}
    for name, curve, end in (
        ("occlusion_spatial", occlusion["spatial"], 0),
        ("occlusion_temporal", occlusion["temporal"], 0),
        ("early", early, -1),
    ):
        assert {seed: values[end] for seed, values in curve["seeds"].items()} == clean
        assert curve["mean"][end] == pytest.approx(mean) and curve["drop"][end] == 0
        assert len(curve["x"]) == len(curve["mean"]) == len(curve["std"]) == len(curve["drop"])
        assert curve["drop"][1] == pytest.approx(mean - curve["mean"][1])
        assert (tmp_path / f"{name}.png").stat().st_size > 1000
    assert occlusion["spatial"]["x"] == [0, 1, 2, 3, 4] and occlusion["temporal"]["x"] == list(range(0, 100, 10))
    assert early["x"] == list(range(10, 101, 10)) and result["curves"] == {**occlusion, "early": early}
    assert "spatial occlusion" in ran.out and "drop 0.0" in ran.out and "top-1 last" in ran.out.splitlines()[-1]


def test_only_what_is_asked_for_is_tested(data, tmp_path):
    ran = classify(data, tmp_path, "--occlusion temporal --occlusion-seed 7")
    assert ran.status == 0, ran.err
    out = json.loads((tmp_path / "result.json").read_text())["curves"]
    assert set(out) == {"temporal"} and out["temporal"]["seed_of_hiding"] == 7
    assert not (tmp_path / "early.json").exists() and not (tmp_path / "occlusion_spatial.png").exists()
