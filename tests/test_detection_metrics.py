"""utils.detection against the released code's numbers and plain Python, and its text files."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.detection import (
    detection_table,
    map_by_action,
    map_by_video,
    mean_filter,
    released_segments,
    stack_videos,
    threshold_segments,
    write_predictions,
    write_video,
)
from utils.errors import UserError


@pytest.fixture(scope="module")
def released(golden):
    with np.load(golden / "detection.npz") as archive:
        return dict(archive)


# ---- the released code's numbers


def test_golden_map_by_action(released):
    for overlap, expected in zip(released["overlaps"], released["map_a"], strict=True):
        assert map_by_action(released["ground"], released["proposals"], overlap)[0] == pytest.approx(expected, abs=1e-6)
    each = map_by_action(released["ground"], released["proposals"], 0.5)[1]
    assert sorted(each) == list(range(1, 1 + len(released["ap_class"])))
    assert [each[c] for c in sorted(each)] == pytest.approx(released["ap_class"].tolist(), abs=1e-6)


def test_golden_map_by_video(released):
    for overlap, expected in zip(released["overlaps"], released["map_v"], strict=True):
        assert map_by_video(released["ground"], released["proposals"], overlap)[0] == pytest.approx(expected, abs=1e-9)


def test_golden_does_not_depend_on_the_order_of_rows(released):
    rng = np.random.default_rng(0)
    ground, proposals = rng.permutation(released["ground"]), rng.permutation(released["proposals"])
    assert map_by_action(ground, proposals, 0.5)[0] == pytest.approx(released["map_a"][2], abs=1e-6)
    assert map_by_video(ground, proposals, 0.5)[0] == pytest.approx(released["map_v"][2], abs=1e-9)


def test_golden_segments(released):
    segments = released_segments(released["frame_probability"])
    assert np.array_equal(segments[:, :3], released["segments"][:, :3])
    assert (
        np.abs(segments[:, 3] - released["segments"][:, 3]).max() <= 1.1e-5
    )  # rounded to 5 decimals, there in float32


# ---- slow twins


def slow_segments(probability):
    """The released walk, typed from its description."""
    frames = len(probability)
    label = [max(range(len(row)), key=lambda c: row[c]) for row in probability]
    out, i = [], 0
    while i < frames - 15:
        c = label[i]
        ahead = [label[j] for j in range(i + 1, i + 16)]
        if c != 0 and ahead.count(c) / 15 > 0.1 and i + 30 < frames:
            e = i + 15
            while e + 30 < frames and [label[j] for j in range(e + 1, e + 16)].count(c) / 15 > 0.1:
                e += 15
            while e > i and [label[j] for j in range(e - 1, e + 1)].count(c) / 2 < 0.1:
                e -= 2
            if e > i:
                out.append((c, i, e, round(sum(probability[j][c] for j in range(i, e + 1)) / (e - i + 1), 5)))
                i = e
                continue
        i += 1
    return out


@st.composite
def label_tracks(draw):
    """Frame labels in runs, some shorter than a step, with background between."""
    runs = draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40)), min_size=1, max_size=12))
    return [label for label, length in runs for _ in range(length)]


def one_hot(labels, classes=4, noise=0):
    probability = np.full((len(labels), classes), 0.1)
    probability[np.arange(len(labels)), labels] = 0.7
    return probability + 0.01 * np.random.default_rng(noise).random(probability.shape)


@given(label_tracks())
@settings(max_examples=150, deadline=None)
def test_released_segments_equal_the_slow_walk(labels):
    probability = one_hot(labels)
    got, expected = released_segments(probability), slow_segments(probability.tolist())
    assert [tuple(row[:3]) for row in got] == [row[:3] for row in expected]
    assert [row[3] for row in got] == pytest.approx([row[3] for row in expected], abs=1.1e-5)


def slow_threshold(probability, threshold, radius):
    frames, classes = len(probability), len(probability[0])
    smooth = []
    for t in range(frames):
        near = probability[max(0, t - radius) : t + radius + 1]
        smooth.append([sum(row[c] for row in near) / len(near) for c in range(classes)])
    out, t = [], 0
    while t < frames:
        start = t
        while t < frames and 1 - smooth[t][0] >= threshold:
            t += 1
        if t > start:
            mean = [sum(row[c] for row in smooth[start:t]) / (t - start) for c in range(classes)]
            c = max(range(1, classes), key=lambda c: mean[c])
            out.append((c, start, t - 1, mean[c]))
        t += 1
    return out


@given(label_tracks(), st.sampled_from([0, 1, 3, 10]), st.sampled_from([0.353, 0.401, 0.6]))
@settings(max_examples=100, deadline=None)
def test_threshold_segments_equal_the_slow_twin(labels, radius, threshold):
    probability = one_hot(labels)
    probability /= probability.sum(1, keepdims=True)
    got, expected = (
        threshold_segments(probability, threshold, radius),
        slow_threshold(probability.tolist(), threshold, radius),
    )
    assert len(got) == len(expected)
    assert np.allclose(got, np.array(expected).reshape(-1, 4), atol=1e-9)


def test_mean_filter_counts_only_frames_that_exist():
    assert mean_filter(np.arange(10.0).reshape(5, 2), 1)[:, 0].tolist() == pytest.approx([1, 2, 4, 6, 7])


def slow_map_by_action(ground, proposals, threshold):
    def overlap(p, g):
        shared = max(0, min(p[3], g[3]) - max(p[2], g[2]) + 1)
        return shared / ((p[3] - p[2] + 1) + (g[3] - g[2] + 1) - shared)

    values = []
    for c in sorted({g[1] for g in ground}):
        truth = [g for g in ground if g[1] == c]
        used, curve, hits = set(), [], 0
        ranked = sorted((p for p in proposals if p[1] == c), key=lambda p: -p[4])
        for n, p in enumerate(ranked, 1):
            own = [i for i, g in enumerate(truth) if g[0] == p[0]]
            best = max(own, key=lambda i: overlap(p, truth[i]), default=None)
            if best is not None and overlap(p, truth[best]) >= threshold and best not in used:
                used.add(best)
                hits += 1
            curve.append((hits / len(truth), hits / n))
        area, recall = 0.0, 0.0
        for r, _ in curve:
            if r > recall:
                area += (r - recall) * max(precision for there, precision in curve if there >= r)
                recall = r
        values.append(area)
    return sum(values) / len(values)


def slow_map_by_video(ground, proposals, threshold):
    """The official measure as it walks: the lowest score goes first."""

    def overlap(p, g):
        return (min(p[3], g[3]) - max(p[2], g[2])) / (max(p[3], g[3]) - min(p[2], g[2]))

    values = []
    for video in sorted({g[0] for g in ground}):
        truth = [g for g in ground if g[0] == video]
        ranked = sorted((p for p in proposals if p[0] == video), key=lambda p: p[4])
        match = []
        for p in ranked:
            fits = [i for i, g in enumerate(truth) if g[1] == p[1] and overlap(p, g) >= threshold]
            match.append(max(fits, key=lambda i: overlap(p, truth[i]), default=None))
        found = len(set(match) - {None})
        area, best, recall = 0.0, found / len(ranked) if ranked else 0.0, found / len(truth)
        for taken in range(1, len(ranked) + 1):
            if match[taken - 1] is None:
                continue
            left = match[taken:]
            found = len(set(left) - {None})
            best = max(best, found / len(left) if left else 0.0)
            area += best * (recall - found / len(truth))
            recall = found / len(truth)
        values.append(area)
    return sum(values) / len(values)


@st.composite
def scenes(draw):
    """Ground truth of segments that do not meet, and proposals moved a little from it, of two videos and classes."""
    ground, proposals = [], []
    for video in range(2):
        start = 0
        for _ in range(draw(st.integers(1, 4))):
            start += draw(st.integers(1, 20))
            end = start + draw(st.integers(5, 30))
            c = draw(st.integers(1, 2))
            ground.append((video, c, start, end, 1.0))
            for _ in range(draw(st.integers(0, 3))):
                shift, stretch = draw(st.integers(-8, 8)), draw(st.integers(-3, 8))
                proposals.append((video, draw(st.integers(1, 2)), start + shift, end + shift + stretch))
            start = end
    order = draw(st.permutations(range(len(proposals))))
    return ground, [(*p, 0.01 + rank) for p, rank in zip(proposals, order, strict=True)]


@given(scenes(), st.sampled_from([0.1, 0.5, 0.7]))
@settings(max_examples=150, deadline=None)
def test_both_measures_equal_their_slow_twins(scene, overlap):
    ground, proposals = scene
    assert map_by_action(ground, proposals, overlap)[0] == pytest.approx(slow_map_by_action(ground, proposals, overlap))
    assert map_by_video(ground, proposals, overlap)[0] == pytest.approx(slow_map_by_video(ground, proposals, overlap))


# ---- by hand


def test_perfect_and_empty_proposals():
    ground = [(0, 1, 10, 50, 1.0), (0, 2, 60, 90, 1.0), (1, 1, 0, 30, 1.0)]
    assert map_by_action(ground, ground, 0.9)[0] == map_by_video(ground, ground, 0.9)[0] == 1
    assert map_by_action(ground, [], 0.5)[0] == map_by_video(ground, [], 0.5)[0] == 0
    assert detection_table(ground, ground, (0.5,)) == {0.5: {"map_a": 1.0, "map_v": 1.0}}


def test_repeated_detections_of_one_action():
    ground = [(0, 1, 0, 99, 1.0), (0, 1, 200, 299, 1.0)]
    twice = [(0, 1, 0, 99, 0.9), (0, 1, 0, 99, 0.8), (0, 1, 200, 299, 0.7)]
    assert map_by_action(ground, twice, 0.5)[0] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_mean_is_over_what_the_ground_truth_holds():
    ground = [(0, 1, 0, 99, 1.0)]
    stray = [(0, 1, 0, 99, 0.9), (0, 7, 0, 99, 0.95), (3, 1, 0, 99, 0.1)]
    assert list(map_by_action(ground, stray, 0.5)[1]) == [1]
    assert list(map_by_video(ground, stray, 0.5)[1]) == [0]
    assert map_by_action(ground, stray, 0.5)[0] == 1


def test_wrong_input_is_refused():
    ground = [(0, 1, 0, 99, 1.0)]
    for measure in (map_by_action, map_by_video):
        with pytest.raises(ValueError, match="no ground truth"):
            measure([], ground, 0.5)
        with pytest.raises(ValueError, match="threshold"):
            measure(ground, ground, 50)
        with pytest.raises(ValueError, match="finite"):
            measure(ground, [(0, 1, 0, 99, np.nan)], 0.5)
        with pytest.raises(ValueError, match="rows of 5"):
            measure(ground, [(1, 0, 99, 1.0)], 0.5)
    for cut in (released_segments, threshold_segments):
        with pytest.raises(ValueError, match="finite"):
            cut(np.full((50, 3), np.nan))
        with pytest.raises(ValueError, match="background first"):
            cut(np.zeros(50))


def test_short_videos_give_no_released_segment_but_no_error():
    for frames in (0, 1, 15, 30):
        assert released_segments(one_hot([1] * frames)).shape == (0, 4)
    assert released_segments(one_hot([1] * 31))[0, :3].tolist() == [1, 0, 15]
    assert threshold_segments(np.zeros((0, 4))).shape == (0, 4)


def test_stack_videos_numbers_them():
    rows = stack_videos([[(1, 0, 9, 0.5)], [], [(2, 3, 4, 0.25), (1, 5, 8, 0.125)]])
    assert rows[:, 0].tolist() == [0, 2, 2] and rows[:, 1:].tolist()[1] == [2, 3, 4, 0.25]
    assert stack_videos([]).shape == (0, 5)


# ---- PKU-MMD's text format


@st.composite
def segment_rows(draw):
    rows = []
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, 5000))
        confidence = draw(st.floats(-10, 1e6, allow_nan=False))
        rows.append((draw(st.integers(1, 51)), start, start + draw(st.integers(0, 900)), confidence))
    return rows


@given(st.dictionaries(st.from_regex(r"[0-9]{4}-[LMR]", fullmatch=True), segment_rows(), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_text_holds_every_number(tmp_path_factory, videos):
    folder = tmp_path_factory.mktemp("text") / "predictions"
    write_predictions(folder, videos)
    lines = {file.stem: file.read_text().splitlines() for file in folder.glob("*.txt")}
    read = {name: [tuple(float(cell) for cell in line.split(",")) for line in rows] for name, rows in lines.items()}
    assert read == videos


def test_text_is_the_published_format(tmp_path):
    write_predictions(tmp_path, {"0007-M": np.array([[3, 10, 200, 0.57372], [51, 300, 301, 1]])})
    assert (tmp_path / "0007-M.txt").read_text() == "3,10,200,0.57372\n51,300,301,1.0\n"


def test_text_problems_are_sentences(tmp_path):
    with pytest.raises(UserError, match="cannot be a file name"):
        write_predictions(tmp_path / "out", {"../outside": []})
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="ends before"):
        write_video(tmp_path / "v.txt", [(1, 5, 3, 0.5)])
    assert not (tmp_path / "v.txt").exists()
