"""The retrieval program, run as a user runs it, on a tiny data set."""

import json

import numpy as np
import pytest
import torch
from programs import call, refused
from sklearn.neighbors import KNeighborsClassifier

import action_retrieval
from engine.setup import find_dataset
from feeder.evaluation import ClipViews
from utils.errors import UserError
from utils.features import read_features, write_features

TINY_DATASET = dict(name="tiny", train=40, val=21, frames=120)


def retrieval(data, run, flags=""):
    command = f"--data-root {data} --finetune-dataset tiny --checkpoint-path {run} --threads 1 --precision fp32 {flags}"
    return call(action_retrieval.main, command)


RANDOM = "--hidden-size 16 --num-layers 1"


def result(run):
    return json.loads((run / "result.json").read_text())


def test_raw_joints_equal_scikit_learn(data, tmp_path):
    ran = retrieval(data, tmp_path, "--raw-joints --knn 1 --recall 1 3")
    assert ran.status == 0, ran.err
    dataset = find_dataset(data, "tiny", "cross_subject", ("train", "val"))
    x, y = {}, {}
    for split in ("train", "val"):
        views = ClipViews(dataset.clips(split), torch.tensor(dataset.layout.parents))
        x[split] = views.centre(torch.arange(len(views))).flatten(1).numpy()
        y[split] = views.clips.labels.numpy()
    twin = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(x["train"], y["train"])
    out = result(tmp_path)
    assert out["summary"]["knn"]["1"]["mean"] == pytest.approx(twin.score(x["val"], y["val"]))
    nearest = twin.kneighbors(x["val"], 3)[1]
    hit = (y["train"][nearest] == y["val"][:, None]).any(1).mean()
    assert out["summary"]["recall"]["3"]["mean"] == pytest.approx(hit)
    assert out["dimensions"] == 64 * 150 and out["similarity"] == "cosine" and "coordinates" in out["features"]
    assert (out["queries"], out["gallery"], out["seeds"]) == (21, 40, {})
    counts = np.bincount(y["val"], minlength=4)
    right = sum(out["per_class"][f"action {c}"] * counts[c] for c in range(4))
    assert right / 21 == pytest.approx(out["summary"]["knn"]["1"]["mean"])


def test_saved_features_give_the_same_figures(data, tmp_path):
    first = retrieval(data, tmp_path / "a", f"{RANDOM} --knn 1 5 --save-features")
    assert first.status == 0, first.err
    features = tmp_path / "a" / "features.npz"
    again = call(
        action_retrieval.main, f"--features {features} --knn 1 5 --checkpoint-path {tmp_path / 'b'} --data-root nowhere"
    )
    assert again.status == 0, again.err
    a, b = result(tmp_path / "a"), result(tmp_path / "b")
    assert a["summary"] == b["summary"] and a["per_class"] == b["per_class"] and a["encoder"] == b["encoder"]
    assert first.out.splitlines()[-1] == again.out.splitlines()[-1]
    assert first.out.splitlines()[-1].startswith("1-NN ") and "mAP" in first.out.splitlines()[-1]


def test_several_seeds_and_no_map(data, tmp_path):
    ran = retrieval(data, tmp_path, f"{RANDOM} --seed 1 2 3 --no-map")
    assert ran.status == 0, ran.err
    out = result(tmp_path)
    values = [figures["knn"]["1"] for figures in out["seeds"].values()]
    assert set(out["seeds"]) == {"1", "2", "3"} and out["summary"]["map"] is None and "mAP" not in ran.out
    assert out["summary"]["knn"]["1"]["mean"] == pytest.approx(np.mean(values))
    assert out["summary"]["knn"]["1"]["std"] == pytest.approx(np.std(values, ddof=1))
    assert "random encoder (no --pretrained given)" in ran.out and "(3 seeds)" in ran.out.splitlines()[-1]


def test_little_memory_changes_nothing(data, tmp_path, monkeypatch):
    monkeypatch.setattr("utils.retrieval._MAX_CHUNK", 2)
    assert retrieval(data, tmp_path / "a", f"{RANDOM} --memory 1").status == 0
    monkeypatch.undo()
    assert retrieval(data, tmp_path / "b", RANDOM).status == 0
    assert result(tmp_path / "a")["summary"]["knn"] == result(tmp_path / "b")["summary"]["knn"]


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--pretrained nowhere.pth.tar", ["no such file"]),
        ("--raw-joints --knn 41", ["--knn 41", "40 clips"]),
        ("--raw-joints --recall 100", ["--recall 100"]),
        ("--raw-joints --pretrained x", ["exclude each other"]),
        ("--raw-joints --seed 3", ["--seed"]),
        ("--features x.npz --stream bone", ["--stream"]),
        ("--features x.npz", ["no such file", "--save-features"]),
        ("--seed 1 1", ["--seed"]),
        ("--seed 1 2 --save-features", ["--save-features"]),
        ("--knn 0", ["--knn"]),
        ("--protocol cross_view --raw-joints", ["cross_view"]),
    ],
)
def test_mistakes_are_one_sentence(data, tmp_path, flags, words):
    refused(retrieval(data, tmp_path / "run", flags), *words)


def test_features_of_another_data_set_are_refused(data, tmp_path):
    assert retrieval(data, tmp_path / "a", f"{RANDOM} --save-features").status == 0
    given = f"--features {tmp_path / 'a/features.npz'} --checkpoint-path {tmp_path / 'b'}"
    refused(call(action_retrieval.main, f"{given} --finetune-dataset ntu60"), "tiny", "ntu60", "--dataset")
    refused(call(action_retrieval.main, f"{given} --protocol cross_view"), "cross_subject", "--protocol")


@pytest.mark.parametrize("damage", ["cut", "text", "missing", "shape", "label", "bomb", "dtype"])
def test_damaged_feature_files_are_refused(data, tmp_path, damage):
    assert retrieval(data, tmp_path / "a", f"{RANDOM} --save-features").status == 0
    path = tmp_path / "a/features.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-2000])
    elif damage == "text":
        path.write_text("not an archive")
    elif damage == "bomb":
        arrays["val_features"] = np.zeros((21, 400_000), dtype=np.float32)
        np.savez_compressed(path, **arrays)
    else:
        if damage == "missing":
            del arrays["classes"]
        elif damage == "shape":
            arrays["val_features"] = arrays["val_features"][:-1]
        elif damage == "dtype":
            arrays["val_features"] = arrays["val_features"].astype(np.float64)
        else:
            arrays["val_labels"] = arrays["val_labels"] + 4
        np.savez(path, **arrays)
    with pytest.raises(UserError, match="features.npz"):
        read_features(path)


def test_features_survive_the_file(data, tmp_path):
    assert retrieval(data, tmp_path / "a", f"{RANDOM} --save-features").status == 0
    first = read_features(tmp_path / "a/features.npz")
    write_features(tmp_path / "new" / "b.npz", first)
    second = read_features(tmp_path / "new" / "b.npz")
    assert first.classes == second.classes and first.encoder == second.encoder
    for split in ("train", "val"):
        for part in ("names", "labels", "features"):
            np.testing.assert_array_equal(getattr(getattr(first, split), part), getattr(getattr(second, split), part))
