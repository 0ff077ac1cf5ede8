"""predict.py: an answer for somebody's clips, from a classifier or from a few labelled clips; predictions of evaluations."""

import csv
import json

import numpy as np
import pytest
import torch
from make_checkpoint import write_classifier, write_pretrained
from make_tiny import tiny_clip, write_tiny_dataset
from programs import call, refused
from sklearn.linear_model import LogisticRegression

import action_classification
import action_retrieval
import predict
from benchmarks import novelty
from engine.answers import best_classes, softmax
from engine.few_labels import assign_folds, solve_regression, train_few_labels
from engine.novelty import NONE, Novelty, choose_gallery, cosine_distance, gallery_size, nearest_distance, novelty_of
from utils import checkpoint as files
from utils.errors import UserError


def write_clips(folder, per_class: int, classes: int = 3, seed: int = 0, labelled=True):
    """CLASS/NAME.npy (or NAME.npy) of swinging clips (T, V, 3)."""
    rng = np.random.default_rng(seed)
    for k in range(classes):
        for i in range(per_class):
            path = folder / (f"action {k}/{i}.npy" if labelled else f"{k}_{i}.npy")
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, tiny_clip(rng, k, 70 + 5 * i, persons=1)[..., 0].transpose(1, 2, 0))
    return folder


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("predict")
    write_pretrained(root / "encoder.pth.tar", arguments={"stream": "joint"})
    write_clips(root / "labelled", 4)
    write_clips(root / "new", 2, seed=1, labelled=False)
    write_tiny_dataset(root / "data", "tiny", train=16, val=8, frames=60)
    return root


@pytest.fixture(scope="module")
def taught(world):
    """A run from labelled clips to answers, without a picture."""
    ran = call(
        predict.main,
        f"{world}/encoder.pth.tar {world}/new --labelled {world}/labelled --output {world}/run --threads 1",
    )
    assert ran.status == 0, ran.err
    return ran


def test_from_a_few_labelled_clips_to_answers(world, taught):
    said = rows(world / "run/predictions.csv")
    assert [row["clip"] for row in said] == ["0_0", "0_1", "1_0", "1_1", "2_0", "2_1"]
    classes = [f"action {k}" for k in range(3)]
    for row in said:
        three = [row[f"class_{i}"] for i in (1, 2, 3)]
        shares = [float(row[f"probability_{i}"]) for i in (1, 2, 3)]
        assert (
            sorted(three) == classes
            and shares == sorted(shares, reverse=True)
            and sum(shares) == pytest.approx(1, abs=2e-3)
        )
        assert row["answer"] in (three[0], NONE)
    tested = rows(world / "run/cross_validation.csv")
    about = json.loads((world / "run/cross_validation.json").read_text())
    assert len(tested) == 12 and about["folds"] == 4 and about["clips"] == 12
    assert about["top1"] == pytest.approx(np.mean([row["right"] == "yes" for row in tested]))
    assert (
        "(4 of each): 4-fold cross-validation" in taught.out
        and "clips whose distance to the nearest of 12 training clips" in taught.out
    )
    assert (world / "run/confusion.png").stat().st_size > 5000


def test_its_classifier_answers_later_calls(world, taught, tmp_path):
    command = f"{world}/run/classifier.pth {world}/new --output {tmp_path}/again --threads 1"
    assert call(predict.main, command).status == 0
    assert (tmp_path / "again/predictions.csv").read_text() == (world / "run/predictions.csv").read_text()
    assert (
        call(predict.main, f"{world}/run/classifier.pth {world}/labelled --none 0 --output {tmp_path}/known").status
        == 0
    )
    known = rows(tmp_path / "known/predictions.csv")
    assert [row["true"] for row in known] == [row["clip"].split("/")[0] for row in known]
    assert all(row["answer"] == row["class_1"] for row in known)  # with --none 0 nothing is none
    assert all(row["right"] == ("yes" if row["true"] == row["answer"] else "no") for row in known)
    assert np.mean([row["right"] == "yes" for row in known]) > 0.9  # it was trained on them


def test_what_is_unlike_everything_is_none_of_them(world, taught, tmp_path):
    """Noise that moves a body by metres from frame to frame is no action that was shown."""
    (tmp_path / "odd").mkdir()
    np.save(tmp_path / "odd/noise.npy", np.random.default_rng(0).normal(0, 5, (80, 25, 3)).astype(np.float32))
    ran = call(predict.main, f"{world}/run/classifier.pth {tmp_path}/odd --output {tmp_path}/out --threads 1")
    assert ran.status == 0, ran.err
    (row,) = rows(tmp_path / "out/predictions.csv")
    assert row["answer"] == NONE and "1 of them none of them" in ran.out


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda folder: None, ["no .npy array"]),
        (lambda folder: (folder / "a.mp4").write_bytes(b"video"), ["videos need poses first", "from_video", "_poses"]),
        (lambda folder: np.save(folder / "one.npy", np.zeros((1, 25, 3))), ["one frame"]),
        (lambda folder: np.save(folder / "v1.npy", np.zeros((9, 20, 3))), ["clips: no frame", "a person"]),
        (lambda folder: np.save(folder / "three.npy", np.zeros((9, 25, 3, 3))), ["3 persons"]),
    ],
)
def test_clips_that_cannot_be_answered(world, taught, tmp_path, make, words):
    folder = tmp_path / "clips"
    folder.mkdir()
    make(folder)
    refused(call(predict.main, f"{world}/run/classifier.pth {folder} --output {tmp_path}/out"), *words)


def test_bad_clips_are_left_out_on_request(world, taught, tmp_path):
    folder = write_clips(tmp_path / "clips", 1, labelled=False)
    np.save(folder / "bad.npy", np.zeros((1, 25, 3)))
    ran = call(predict.main, f"{world}/run/classifier.pth {folder} --skip-bad --output {tmp_path}/out --threads 1")
    assert ran.status == 0 and "skipped: " in ran.out and len(rows(tmp_path / "out/predictions.csv")) == 3


def test_mistakes_are_sentences(world, tmp_path):
    for command, words in (
        (f"{world}/encoder.pth.tar {world}/new", ["no classifier"]),
        (f"{world}/encoder.pth.tar", ["--labelled"]),
        (f"{world}/encoder.pth.tar --labelled {world}/new", ["has no class", "CLASS/NAME.npy"]),
    ):
        refused(call(predict.main, f"{command} --output {tmp_path}/out"), *words)
    write_clips(tmp_path / "single", 1)
    refused(
        call(predict.main, f"{world}/encoder.pth.tar --labelled {tmp_path}/single --output {tmp_path}/o"), "two or more"
    )
    write_clips(tmp_path / "alone", 3, classes=1)
    refused(
        call(predict.main, f"{world}/encoder.pth.tar --labelled {tmp_path}/alone --output {tmp_path}/o"), "one class"
    )


def test_a_classifier_without_distances_answers_all_the_same(world, tmp_path):
    write_classifier(tmp_path / "old.pth")
    ran = call(predict.main, f"{tmp_path}/old.pth {world}/new --output {tmp_path}/out --threads 1")
    assert ran.status == 0 and "stores no distances" in ran.out
    assert "distance" not in rows(tmp_path / "out/predictions.csv")[0]


def test_evaluations_say_which_clips_went_wrong(world, tmp_path, monkeypatch):
    monkeypatch.setattr(action_classification, "draw_confusion", lambda *given: None)
    common = f"--data-root {world}/data --finetune-dataset tiny --pretrained {world}/encoder.pth.tar --threads 1"
    for main, more in ((action_classification.main, "--epochs 2"), (action_retrieval.main, "--no-map --recall 1")):
        ran = call(main, f"{common} {more} --checkpoint-path {tmp_path}/run")
        assert ran.status == 0, ran.err
        said, result = rows(tmp_path / "run/predictions.csv"), json.loads((tmp_path / "run/result.json").read_text())
        summary = result["summary"]
        share = summary["last"]["top1"]["mean"] if "last" in summary else summary["knn"]["1"]["mean"]
        assert np.mean([row["right"] == "yes" for row in said]) == pytest.approx(share)
        assert [row["clip"] for row in said] == [f"val_{i:04d}" for i in range(8)]
        assert [row["true"] for row in said] == [f"action {i % 4}" for i in range(8)]
        if "last" in summary:
            kept = files.load(tmp_path / "run/classifier.pth")["novelty"]
            assert kept["gallery"].shape == (16, 32) and kept["distances"].shape == (8,)


def test_the_regression_is_scikit_learns():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 8)) * rng.uniform(1, 9, 8) + 5, rng.integers(0, 3, 30)
    layer = solve_regression(torch.from_numpy(x), torch.from_numpy(y), 3, penalty=0.01)
    z = (x - x.mean(0)) / x.std(0) / np.sqrt(8)
    twin = LogisticRegression(C=1 / (0.01 * len(x)), tol=1e-9, max_iter=5000).fit(z, y)
    ours = layer(torch.from_numpy(x).float()).softmax(1).numpy()
    np.testing.assert_allclose(ours, twin.predict_proba(z), atol=2e-3)


def test_folds_are_dealt_by_class():
    labels = np.repeat([0, 1, 2], [5, 5, 7])
    fold = assign_folds(labels, 5, seed=3)
    for k in range(3):
        assert np.ptp(np.bincount(fold[labels == k], minlength=5)) <= 1
    assert np.array_equal(fold, assign_folds(labels, 5, 3)) and not np.array_equal(fold, assign_folds(labels, 5, 4))


def test_every_clip_is_tested_by_a_classifier_that_has_not_seen_it():
    """Two clips of each of two classes whose features lie with the other class's: cross-validation must say all wrong."""
    features = np.array([[0, 0], [9, 9], [0, 0.1], [9, 9.1]], dtype=np.float32)
    found = train_few_labels(features, np.array([0, 0, 1, 1]), ("a", "b"), 2, seed=0)
    assert (found.scores.argmax(1).numpy() != [0, 0, 1, 1]).all() and found.folds == 2
    with pytest.raises(UserError, match="class b has 1 clip"):
        train_few_labels(features[:3], np.array([0, 0, 1]), ("a", "b"), 2, seed=0)


def circle(angles) -> torch.Tensor:
    """Features (N, 2) at angles around (5, 0), which no angle from zero tells apart well."""
    angles = torch.as_tensor(angles)
    return torch.stack([5 + angles.cos(), angles.sin()], 1)


def test_distances_are_seen_from_zero_and_from_the_mean():
    gallery = circle([0.0, torch.pi / 2, torch.pi, -torch.pi / 2])  # mean (5, 0)
    asked = circle([0.0, torch.pi / 4])
    zero = cosine_distance(asked, gallery)
    assert zero[1] == pytest.approx(1 - np.cos(np.arctan(1 / 5) - np.arctan(0.5**0.5 / (5 + 0.5**0.5))), abs=1e-6)
    found = nearest_distance(asked, gallery)
    assert found[0] == pytest.approx(0, abs=1e-3)  # the root of what rounding leaves
    assert found[1] == pytest.approx(float(zero[1] * (1 - 0.5**0.5)) ** 0.5, rel=1e-4)


def test_the_threshold_is_what_a_share_of_held_out_clips_exceed():
    gallery = torch.tensor([[1.0, 0], [0, 1]])
    angles = torch.arange(1, 41) / 100
    held_out = torch.stack([angles.cos(), angles.sin()], 1)
    found = Novelty.measured(gallery, held_out)
    assert torch.equal(found.distances, nearest_distance(held_out, gallery).sort().values)
    assert (found.distances > found.threshold(0.1)).sum() == 4 and found.threshold(0) == float("inf")
    assert found(held_out[:3]) == pytest.approx(nearest_distance(held_out[:3], gallery).numpy())
    back = novelty_of(found.state(), 2, "file")
    assert torch.equal(back.gallery, found.gallery) and torch.equal(back.distances, found.distances) and back.centred
    for bad in (
        {},
        {"gallery": gallery, "distances": torch.tensor([float("nan")])},
        {"gallery": gallery.T, "distances": 3},
    ):
        with pytest.raises(UserError, match="train it again"):
            novelty_of(bad, 2, "file")
    with pytest.raises(UserError, match="expected"):
        novelty_of(found.state(), 3, "file")


def test_distances_of_older_files_stay_what_they_were():
    old = {"gallery": torch.tensor([[1.0, 0], [0, 1]]), "distances": torch.tensor([0.1, 0.2])}
    assert novelty_of(old, 2, "file")(np.array([[3.0, 0], [-1, -1]])) == pytest.approx([0, 1 + 0.5**0.5])


def test_the_gallery_is_drawn_from_every_class():
    labels = np.repeat([0, 1], [50, 3])
    chosen = choose_gallery(labels, 5)
    assert np.bincount(labels[chosen]).tolist() == [5, 3] and np.array_equal(chosen, np.sort(chosen))
    assert np.array_equal(chosen, choose_gallery(labels, 5)) and len(set(np.diff(chosen[:5]))) > 1
    assert [gallery_size(width) for width in (64, 512, 1536, 10**6)] == [50, 50, 16, 1]


def test_what_distances_were_chosen_by(monkeypatch, capsys):
    """The benchmark: three subjects, ten classes as ten directions around a common mean; whoever is unknown lies far."""
    rng = np.random.default_rng(0)
    labels, who = np.tile(np.arange(10), 12), np.repeat(["1", "3", "5"], 40)
    features = torch.from_numpy(5 + 3 * np.eye(12)[labels] + 0.1 * rng.normal(size=(120, 12))).float()
    standing = torch.from_numpy(5 + 3 * np.eye(12)[11] + 0.1 * rng.normal(size=(120, 12))).float()
    split = novelty.Split(features, standing, torch.from_numpy(labels), who)
    monkeypatch.setattr(novelty, "read", lambda args: {"train": split})
    novelty.main(["--choices", "2"])
    rows = {line.split("|")[1].strip(): line.split("|")[2:5] for line in capsys.readouterr().out.splitlines()[4:]}
    assert set(rows) == set(novelty.DISTANCES)
    for cell in rows[novelty.NOW]:
        kept, caught, still = (float(part.split("±")[0]) for part in cell.split("/"))
        assert kept > 80 and caught == still == 100
    answers = [(torch.tensor([0.1, 0.2]), torch.tensor([0.15, 0.3]), torch.tensor([0.0]))] * 2
    assert novelty.judged(answers) == pytest.approx([0.5, 0.5, 0])  # the threshold lies between 0.15 and 0.2


def test_the_best_classes_and_their_shares():
    shares = softmax([[0.0, np.log(3), 0.0, -50], [1000.0, 0, 0, 0]])
    np.testing.assert_allclose(shares[0], [0.2, 0.6, 0.2, 0], atol=1e-9)
    assert best_classes(shares).tolist() == [[1, 0, 2], [0, 1, 2]]
