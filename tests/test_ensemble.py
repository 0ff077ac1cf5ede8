"""utils.fusion and the program tools/ensemble.py."""

import json

import numpy as np
import pytest
from bombs import npy_header, write_bomb
from programs import call, refused, refuses

from tools import ensemble
from utils.errors import UserError
from utils.fusion import (
    check_weights,
    first_half,
    fuse,
    read_scores,
    search_weights,
    weight_grid,
    write_scores,
)


def write_run(folder, stream, noise=3.0, seed=0, clips=80, classes=6, **change):
    """A run folder whose scores are the truth plus noise; names and labels are the same for every stream."""
    labels = np.random.default_rng(99).integers(0, classes, clips)
    scores = np.eye(classes)[labels] + noise * np.random.default_rng(seed).random((clips, classes))
    content = {"names": [f"S{i:03d}" for i in range(clips)], "labels": labels, "scores": scores.astype(np.float32)}
    content.update(change)
    folder.mkdir(parents=True, exist_ok=True)
    write_scores(folder / "scores.npz", **content, stream=stream, dataset="ui_prmd")
    return folder


@pytest.fixture
def runs(tmp_path):
    noises = {"joint": 1.5, "bone": 1.6, "motion": 2.5}
    return [write_run(tmp_path / name, name, noise, seed) for seed, (name, noise) in enumerate(noises.items())]


# ---- the scores file


def test_scores_are_written_sorted_and_read_back(tmp_path):
    names, labels = ["b", "c", "a"], [1, 2, 0]
    scores = np.arange(9, dtype=np.float32).reshape(3, 3)
    write_scores(tmp_path / "s.npz", names, labels, scores, "bone", "ntu60")
    back = read_scores(tmp_path / "s.npz")
    assert back.names.tolist() == ["a", "b", "c"] and back.labels.tolist() == [0, 1, 2]
    assert np.array_equal(back.scores, scores[[2, 0, 1]]) and back.scores.dtype == np.float32
    assert (back.stream, back.dataset) == ("bone", "ntu60")
    with np.load(tmp_path / "s.npz") as archive:
        assert archive["names"].tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    "change, says",
    [
        ({"names": ["a", "a", "b"]}, "occur twice"),
        ({"labels": [0, 1, 3]}, "0..2, found 0..3"),
        ({"labels": [0, 1]}, "labels as integers"),
        ({"labels": [0.0, 1.0, 2.0]}, "labels as integers"),
        ({"scores": np.full((3, 3), np.nan)}, "3 clips are not finite"),
        ({"scores": np.full((3, 3), 1e300)}, "3 clips are not finite"),
        ({"scores": np.zeros((2, 3))}, r"floats \(3, D\)"),
        ({"scores": np.zeros((3, 3), dtype=int)}, "scores as floats"),
    ],
)
def test_scores_that_do_not_fit_are_refused(tmp_path, change, says):
    content = {"names": ["a", "b", "c"], "labels": [0, 1, 2], "scores": np.zeros((3, 3))} | change
    with pytest.raises(UserError, match=says):
        write_scores(tmp_path / "s.npz", **content, stream="joint", dataset="ui_prmd")
    assert not list(tmp_path.iterdir())
    np.savez(tmp_path / "s.npz", **content)  # the same from somebody else's program
    with pytest.raises(UserError, match=says):
        read_scores(tmp_path / "s.npz")


def test_files_that_are_no_scores_are_refused(tmp_path):
    file = tmp_path / "s.npz"
    for content in (b"", b"text", b"PK\x03\x04broken", b"\x93NUMPY\x01"):
        file.write_bytes(content)
        with pytest.raises(UserError, match="not a readable scores file"):
            read_scores(file)
    np.savez(file, names=np.array(["a"]))
    with pytest.raises(UserError, match="lacks labels and scores"):
        read_scores(file)
    np.savez(file, names=np.array(["a", None]), labels=np.zeros(2, int), scores=np.zeros((2, 2)))  # needs a pickle
    with pytest.raises(UserError, match="not a readable scores file"):
        read_scores(file)
    with open(tmp_path / "array.npy", "wb") as plain:
        np.save(plain, np.zeros(3))
    with pytest.raises(UserError, match="not a readable scores file"):
        read_scores(tmp_path / "array.npy")
    with pytest.raises(UserError, match="no such scores file"):
        read_scores(tmp_path / "none.npz")
    with pytest.raises(UserError, match=r"has no scores.npz"):
        read_scores(tmp_path)


def test_cut_files_are_refused_at_every_length(tmp_path):
    whole = (write_run(tmp_path / "run", "joint") / "scores.npz").read_bytes()
    for length in range(0, len(whole), 97):
        (tmp_path / "cut.npz").write_bytes(whole[:length])
        with pytest.raises(UserError):
            read_scores(tmp_path / "cut.npz")


def test_an_archive_that_unpacks_to_too_much_is_not_read(tmp_path):
    names = ("names", "labels", "scores")  # together above the limit, each below
    write_bomb(tmp_path / "s.npz", {f"{name}.npy": npy_header((400_000_000,), "|i1") for name in names}, 400_000_000)
    with pytest.raises(UserError, match="1.2 GB of memory"):
        read_scores(tmp_path / "s.npz")


# ---- fusing


def test_fusion_is_by_name_and_equals_plain_python(runs, tmp_path):
    loaded = [read_scores(run) for run in runs]
    fused = fuse(loaded, (0.6, 0.6, 0.4))
    for i in range(len(loaded[0])):
        for c in range(6):
            slow = sum(w * float(one.scores[i, c]) for w, one in zip((0.6, 0.6, 0.4), loaded, strict=True))
            assert fused[i, c] == pytest.approx(slow, abs=1e-12)
    with np.load(runs[1] / "scores.npz") as archive:
        content = {name: archive[name] for name in archive}
    order = np.random.default_rng(3).permutation(80)
    for name in ("names", "labels", "scores"):
        content[name] = content[name][order]
    np.savez(tmp_path / "shuffled.npz", **content)
    loaded[1] = read_scores(tmp_path / "shuffled.npz")
    assert np.array_equal(fuse(loaded, (0.6, 0.6, 0.4)), fused)


def test_runs_of_other_clips_labels_or_classes_are_refused(tmp_path):
    joint = read_scores(write_run(tmp_path / "joint", "joint"))
    names = [f"S{i:03d}" for i in range(77)] + ["X1", "X2", "X3"]
    other = read_scores(write_run(tmp_path / "other", "bone", names=names))
    with refuses("3 clips", "joint", "S077", "other", "X1"):
        fuse([joint, other], (1, 1))
    labels = joint.labels.copy()
    labels[[4, 9]] = (labels[[4, 9]] + 1) % 6
    other = read_scores(write_run(tmp_path / "labels", "bone", labels=labels))
    with refuses("class", "2 of 80 clips", "S004"):
        fuse([joint, other], (1, 1))
    other = read_scores(write_run(tmp_path / "classes", "bone", scores=np.zeros((80, 9))))
    with refuses("6 classes", "9"):
        fuse([joint, other], (1, 1))


@pytest.mark.parametrize("weights", [(1,), (1, 1, 1), (1, -1), (0, 0), (1, np.nan), (np.inf, 1)])
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(UserError, match="--weights"):
        check_weights(weights, 2)


# ---- searching


def test_grid_holds_every_combination_once_and_the_most_equal_first():
    grid = weight_grid(3, 10)
    slow = {(a / 10, b / 10, (10 - a - b) / 10) for a in range(11) for b in range(11 - a)}
    assert len(grid) == 66 and set(grid) == slow
    assert grid[0] == (0.4, 0.3, 0.3) and set(grid[-3:]) == {(1, 0, 0), (0, 1, 0), (0, 0, 1)}
    assert weight_grid(2, 2)[0] == (0.5, 0.5)
    with pytest.raises(UserError, match="more than 20000"):
        weight_grid(12, 10)


def test_halves_depend_on_the_name_alone():
    names = [f"S{i:03d}" for i in range(2000)]
    half = first_half(names)
    assert 900 < half.sum() < 1100
    assert np.array_equal(first_half(names[::-1]), half[::-1])
    assert first_half(["S000", "S001", "S002", "S003"]).tolist() == [False, False, True, False]  # fixed for good


def test_search_takes_the_best_of_the_first_half_and_reports_the_second(runs):
    loaded = [read_scores(run) for run in runs]
    search = search_weights(loaded, steps=5)
    half, labels = first_half(loaded[0].names), loaded[0].labels
    assert 0 < half.sum() < 80
    accuracy = {w: (fuse(loaded, w).argmax(1) == labels)[half].mean() for w in weight_grid(3, 5)}
    assert search.chosen_accuracy == pytest.approx(max(accuracy.values())) == pytest.approx(accuracy[search.weights])
    right = fuse(loaded, search.weights).argmax(1) == labels
    assert search.reported_accuracy == pytest.approx(right[~half].mean())
    assert (search.chosen_clips, search.reported_clips, search.tried) == (half.sum(), (~half).sum(), 21)
    assert np.array_equal(search.reported, ~half)


def test_search_never_looks_at_the_second_half(runs):
    loaded = [read_scores(run) for run in runs]
    before = search_weights(loaded).weights
    for one in loaded:
        one.scores[~first_half(one.names)] = np.random.default_rng(5).random((80, 6))[~first_half(one.names)]
    assert search_weights(loaded).weights == before


def test_search_refuses_what_it_cannot_halve(tmp_path):
    tiny = [read_scores(write_run(tmp_path / str(i), "joint", seed=i, clips=1)) for i in range(2)]
    with pytest.raises(UserError, match="too few"):
        search_weights(tiny)
    with pytest.raises(UserError, match="2 runs or more"):
        search_weights(tiny[:1])


# ---- the program


def test_program_prints_the_table_and_writes_it(runs, tmp_path, capsys):
    output = tmp_path / "table.json"
    weights = ["--weights", "1", "0", "0", "--weights", "0.6", "0.6", "0.4"]
    ensemble.main([*map(str, runs), *weights, "--search", "--output", str(output)])
    text = capsys.readouterr().out
    result = json.loads(output.read_text())
    loaded = [read_scores(run) for run in runs]
    labels, half = loaded[0].labels, first_half(loaded[0].names)
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["weights 1 0 0"]["top1"] == result["rows"][0]["top1"]  # the joint run alone
    right = fuse(loaded, (0.6, 0.6, 0.4)).argmax(1) == labels
    assert rows["weights 0.6 0.6 0.4"]["top1"] == pytest.approx(right.mean())
    assert rows["weights 0.6 0.6 0.4"]["top1_second_half"] == pytest.approx(right[~half].mean())
    assert f"{100 * right.mean():.2f}" in text
    searched = next(row for name, row in rows.items() if name.startswith("searched"))
    assert searched["top1_second_half"] == result["search"]["reported_on"]["top1"]
    assert result["search"]["chosen_on"]["clips"] + result["search"]["reported_on"]["clips"] == 80
    assert "reported on the other" in text


def test_usual_weights_follow_the_streams_not_their_order(runs):
    assert ensemble.default_weights(["motion", "joint", "bone"]) == [(0.5, 0.5, 0.5), (0.4, 0.6, 0.6)]
    assert ensemble.default_weights(["joint", "joint"]) == [(0.5, 0.5)]


def test_mistakes_are_sentences(runs, tmp_path):
    first, second, third = map(str, runs)
    for argv, says in [
        ([first], "one run only"),
        ([first, second, first], "given twice"),
        ([first, f"{first}/scores.npz"], "given twice"),
        ([first, second, "--weights", "1", "1", "1"], "3 weights for 2 runs"),
        ([first, second, "--search-steps", "5"], "add --search"),
        ([first, second, "--search", "--search-steps", "0"], "1 step or more"),
        ([first, str(tmp_path / "none")], "no such scores file"),
        ([first, second, "--output", str(tmp_path / "none" / "x.json")], "folder does not exist"),
    ]:
        with pytest.raises(UserError, match=says):
            ensemble.main(argv)


def test_the_command_runs_and_ends_with_status_2_for_a_mistake(runs):
    good = call(ensemble.main, " ".join(map(str, runs)))
    assert good.status == 0 and "weights 0.6 0.6 0.4" in good.out, good.err
    refused(call(ensemble.main, f"{runs[0]} missing"), "missing")
