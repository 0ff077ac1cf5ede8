"""The weights that come with the project: found by name, small, quick, and as good as their card says."""

import time

import numpy as np
import pytest
import torch
from programs import call, refused, refuses

import action_retrieval
import hubconf
from data_gen.ui_prmd import read_packed
from engine.features import load, load_classifier
from utils import checkpoint as files
from utils.retrieval import retrieve

NAME, FIGURE = "ui_prmd", 0.93  # measured on the clips below: 94 of 100 by 1-NN; on all clips see the card


def test_an_unknown_name_lists_those_there_are(tmp_path, monkeypatch):
    (tmp_path / "walking.pth").write_bytes(b"")
    monkeypatch.setattr(files, "SHIPPED", tmp_path)
    with refuses("running", "walking"):
        files.load("running")
    assert files.resolved("walking") == tmp_path / "walking.pth"
    refused(call(action_retrieval.main, "--pretrained running --finetune-dataset ui_prmd"), "running", "walking")


def test_a_path_that_exists_wins(tmp_path, monkeypatch):
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "walking.pth").write_bytes(b"")
    monkeypatch.setattr(files, "SHIPPED", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    files.save("walking", {"own": True})
    assert files.load("walking") == {"own": True}
    assert files.resolved("folder/walking").parts == ("folder", "walking")  # a path, not a name


@pytest.fixture(scope="module")
def clips():
    """Two repetitions of every exercise by every subject: (names, raw clips (T, V, 3), exercises, of a training subject)."""
    packed = read_packed()
    names = [n for n, repetition in zip(packed.names, packed.repetition, strict=True) if repetition in (1, 6)]
    index = [packed.index[name] for name in names]
    raw = [packed.clip(name)[..., 0].transpose(1, 2, 0) for name in names]
    return names, raw, packed.exercise[index], packed.subject[index] % 2 == 1


@pytest.fixture(scope="module")
def features(clips):
    encoder = load(NAME, device="cpu")
    return encoder.clip_features(clips[1])


def test_they_are_small_load_quickly_and_say_what_they_are():
    assert (files.SHIPPED / f"{NAME}.pth").stat().st_size < 4 * 2**20 and NAME in files.shipped_names()
    load(NAME, device="cpu")  # imports and first calls
    begun = time.perf_counter()
    encoder = load(NAME, device="cpu")
    assert time.perf_counter() - begun < 1.0
    assert (encoder.stream, encoder.layout.name, encoder.persons, encoder.scale_by) == (
        "joint_motion",
        "kinect_v2_25",
        1,
        "trunk",
    )
    card = (files.SHIPPED / "README.md").read_text()
    assert NAME in card and "licence" in card.lower() and "not for" in card


def test_their_figure(clips, features):
    """1-NN of clips of unseen subjects, from raw coordinates on: a wrong stream, scale or normalisation would not reach it."""
    _, _, exercise, train = clips
    labels = torch.from_numpy(exercise)
    found = retrieve(
        torch.from_numpy(features[~train]),
        labels[~train],
        torch.from_numpy(features[train]),
        labels[train],
        (1,),
        (),
        mean_average_precision=False,
        device=torch.device("cpu"),
    )
    assert found.accuracy[1] >= FIGURE


def test_results_say_that_they_come_with_the_project(tmp_path, monkeypatch):
    """Not "bare encoder", which their file is by its tensors' names."""
    assert load(NAME, device="cpu").source == f"{NAME} (comes with the project)"
    path = files.SHIPPED / f"{NAME}.pth"
    assert load(path, device="cpu").source == f"{path} (comes with the project)"
    (tmp_path / f"{NAME}.pth").write_bytes(path.read_bytes())
    assert load(tmp_path / f"{NAME}.pth", device="cpu").source == f"{tmp_path}/{NAME}.pth (classifier)"


def test_their_classifier_knows_the_exercises(clips, features):
    _, _, exercise, train = clips
    found = load_classifier(NAME, device="cpu")
    assert len(found.classes) == 10
    right = found.probabilities(features[~train]).argmax(1) == exercise[~train]
    assert right.mean() >= FIGURE


def test_torch_hub_gives_them(clips, features):
    api = hubconf.features(pretrained=True, device="cpu")
    np.testing.assert_allclose(api.clip_features(clips[1][:3]), features[:3], atol=1e-6)
    assert hubconf.bigru(pretrained=True).config == load(NAME, device="cpu").encoder.config
    with pytest.raises(Exception, match="--backbone bigru"):
        hubconf.gru(pretrained=True)
    with pytest.raises(Exception, match="give one of them"):
        hubconf.bigru("a.pth", pretrained=True)
    with pytest.raises(TypeError, match="pretrained=True"):
        hubconf.features()
