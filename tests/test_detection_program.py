"""Detection: windows against slow twins, frozen is frozen, one pass equals streaming, and the program as users run it."""

import json
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from make_tiny import write_tiny_videos
from programs import call, refused

import action_detection
from data_gen.normalise import normalise
from engine.detection import (
    DetectionRecipe,
    check_causal,
    check_videos,
    delayed,
    detect,
    frame_probabilities,
    train_detector,
)
from engine.encoders import moved, random_encoder, snapshot
from feeder.windows import VideoWindows, window_rows
from models.encoder import EncoderConfig
from utils.detection import detection_table, stack_videos
from utils.errors import UserError
from utils.skeleton import get_layout
from utils.untrimmed import open_untrimmed

CLASSES = 3
LAYOUT = get_layout("sbu_15")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_tiny_videos(root / "tiny", CLASSES, LAYOUT.name, persons=2)
    return root


def open_windows(root, split="train", stream="joint", steps=(), dtype=torch.float32) -> VideoWindows:
    videos = open_untrimmed(root / "tiny" / "untrimmed", LAYOUT.joints, 2)
    return VideoWindows(videos, tuple(videos.protocols["xsub"][split]), LAYOUT, stream, steps, dtype=dtype)


def tiny_encoder(seed=0, hidden=16):
    return random_encoder(EncoderConfig(layout=LAYOUT.name, joints=15, hidden_size=hidden, num_layers=1), seed)


# ---- windows


@given(st.integers(1, 90), st.data(), st.integers(1, 40), st.integers(1, 6))
def test_window_rows_against_a_loop(frames, data, length, stride):
    target = data.draw(st.integers(0, frames - 1))
    expected = []
    for k in range(length):
        row = target + (k - length // 2) * stride
        expected.append(min(max(row, 0), frames - 1))
    rows = window_rows(np.array([target]), stride, length, frames)
    assert rows.tolist() == [expected]
    assert rows[0, length // 2] == target  # its label is that of a frame it shows


def test_the_published_windows():
    assert window_rows([100], 1, 32, 500)[0].tolist() == list(range(84, 116))  # [t-16, t+16)
    assert window_rows([100], 4, 16, 500)[0].tolist() == list(range(68, 132, 4))


def slow_window(video, target, stride, length, stream, steps):
    """One window (L, V * C * M) frame by frame, normalised by the preparation's own code."""
    rows = [min(max(target + (k - length // 2) * stride, 0), len(video) - 1) for k in range(length)]
    clip = video[rows].transpose(1, 0, 2, 3)
    clip = normalise(clip, LAYOUT, steps) if steps else clip
    out = np.zeros_like(clip)
    for v in range(LAYOUT.joints):
        for t in range(length):
            if stream == "bone":
                out[:, t, v] = clip[:, t, v] - clip[:, t, LAYOUT.parents[v]]
            elif stream == "motion":
                out[:, t, v] = clip[:, t + 1, v] - clip[:, t, v] if t + 1 < length else 0
            else:
                out[:, t, v] = clip[:, t, v]
    return out.transpose(1, 2, 0, 3).reshape(length, -1)


@pytest.mark.parametrize("stream", ("joint", "bone", "motion"))
@pytest.mark.parametrize("steps", ((), ("centre",), ("centre", "spine", "shoulders")))
def test_windows_against_a_slow_twin(root, stream, steps):
    views = open_windows(root, stream=stream, steps=steps)
    drawn = np.array([[0, 0, 1], [1, 40, 3], [5, len(views.videos.video(5)) - 1, 4]])
    x, labels = views.windows(drawn, 12)
    assert x.shape == (3, 12, LAYOUT.joints * 6)
    for row, (video, target, stride), label in zip(x, drawn, labels, strict=True):
        frames = np.asarray(views.videos.video(video))
        expected = slow_window(frames, target, stride, 12, stream, steps)
        np.testing.assert_allclose(row.numpy(), expected, atol=2e-6)
        segments = views.videos.segments[video]
        assert int(label) == next((c + 1 for c, start, end in segments if start <= target < end), 0)


def test_a_window_is_turned_by_the_first_frame_that_shows_person_1(root):
    views = open_windows(root, steps=("centre", "spine", "shoulders"))
    frames = torch.from_numpy(np.array(views.videos.video(0)[:10]))[None]
    late = frames.clone()
    late[:, :4] = 0
    assert torch.allclose(views.finish(late)[:, 4:], views.finish(frames[:, 4:]), atol=1e-6)
    assert (views.finish(late)[:, :4] == 0).all()
    assert torch.isfinite(views.finish(frames * 0)).all()


def test_draws_are_a_function_of_seed_and_epoch_and_cover_the_video(root):
    views = open_windows(root)
    drawn = views.sample(3, 5, 200, (3, 5))
    assert np.array_equal(drawn, views.sample(3, 5, 200, (3, 5)))
    assert not np.array_equal(drawn, views.sample(4, 5, 200, (3, 5)))
    assert not np.array_equal(drawn, views.sample(3, 6, 200, (3, 5)))
    assert np.array_equal(np.bincount(drawn[:, 0]), [200] * 6)
    assert set(drawn[:, 2]) == {3, 4, 5}
    for video, length in enumerate(views.lengths):
        targets = drawn[drawn[:, 0] == video, 1]
        assert 0 <= targets.min() < 10 and length - 10 < targets.max() < length


def test_every_frame_in_batches_is_every_window(root):
    views = open_windows(root, "val", steps=("centre",))
    length = int(views.lengths[1])
    whole = torch.cat(list(views.every_frame(1, 8, 4, 7)))
    assert max(len(x) for x in views.every_frame(1, 8, 4, 7)) == 7
    expected, labels = views.windows(np.array([[1, t, 4] for t in range(length)]), 8)
    assert torch.equal(whole, expected)
    assert labels.tolist() == views.labels(1).tolist()


def test_chunks_and_their_padding(root):
    views = open_windows(root)
    drawn = views.sample_chunks(0, 0, 5, 64)
    assert len(drawn) == 30 and len(views.sample_chunks(0, 0, 5, 1000)) == 6
    x, labels = views.chunks(drawn[:1], 64)
    video, start = drawn[0]
    assert torch.equal(x[0], views.whole(video)[0, start : start + 64])
    assert labels[0].tolist() == views.labels(video)[start : start + 64].tolist()
    x, labels = views.chunks(np.array([[0, 0]]), 1000)
    assert (labels[0, views.lengths[0] :] == -1).all() and (x[0, views.lengths[0] :] == 0).all()


# ---- one pass


def test_one_pass_equals_streaming_frame_by_frame(root):
    """The scores of a whole video are those of a stream that never sees a later frame than `delay`."""
    views = open_windows(root, "val", steps=("centre", "spine", "shoulders"), dtype=torch.float64)
    encoder = tiny_encoder().double().eval()
    fc = torch.nn.Linear(encoder.feature_size, CLASSES + 1).double()
    recipe = DetectionRecipe(mode="sequence", delay=4)
    probability = frame_probabilities(encoder, fc, views, 0, recipe)
    x = views.whole(0)
    state, scores = None, []
    with torch.no_grad():
        for t in range(x.shape[1]):
            feature, state = encoder.encoder.gru(encoder.input_norm(x[:, t : t + 1]), state)
            scores.append(fc(feature[0, 0]).softmax(0))
    scores = torch.stack(scores)[[min(t + 4, len(scores) - 1) for t in range(len(scores))]]
    np.testing.assert_allclose(probability, scores.numpy(), atol=1e-6)


def test_delayed_features():
    x = torch.arange(5.0)[None, :, None]
    assert delayed(x, 2)[0, :, 0].tolist() == [2, 3, 4, 4, 4]
    assert torch.equal(delayed(x, 0), x)


def test_an_encoder_that_sees_the_future_is_refused():
    encoder = tiny_encoder()
    encoder.encoder.causal = False
    with pytest.raises(UserError, match="causal"):
        check_causal(encoder)


# ---- training


def recipe(mode, **more) -> DetectionRecipe:
    base = {"length": 12, "epochs": 2, "batch_size": 32, "overlaps": (0.3,), "segments": "threshold", "lr": 0.1}
    return DetectionRecipe(**{"mode": mode, **base, **more})


@pytest.mark.parametrize("mode", ("frozen", "tuned", "sequence"))
def test_frozen_is_frozen_and_the_others_are_not(root, mode):
    encoder = tiny_encoder()
    before = snapshot(encoder)
    train_detector(encoder, open_windows(root), open_windows(root, "val"), CLASSES, recipe(mode), 0, quiet=True)
    assert (moved(encoder, before) == []) == (mode == "frozen")


def test_one_changed_weight_of_a_frozen_encoder_is_caught(root, monkeypatch):
    encoder = tiny_encoder()

    class Leaky(VideoWindows):
        def windows(self, drawn, length):
            encoder.encoder.gru.bias_hh_l0.data[3] += 1e-6
            return super().windows(drawn, length)

    views = open_windows(root)
    leaky = Leaky(**vars(views))
    with pytest.raises(AssertionError, match="frozen, but moved"):
        train_detector(encoder, leaky, open_windows(root, "val"), CLASSES, recipe("frozen"), 0, quiet=True)


def test_a_sequence_detector_learns_and_a_run_repeats_itself(root):
    train, test = open_windows(root), open_windows(root, "val")
    learning = recipe("sequence", epochs=12, length=96, delay=8, batch_size=6, windows=2)
    found = train_detector(tiny_encoder(), train, test, CLASSES, learning, 0, quiet=True).last
    assert found["frame_accuracy"] > 0.8 and found["map_a@0.3"] > 0.6  # always background: 0.4 and 0
    short = recipe("sequence", epochs=1, length=96, delay=8, batch_size=6, windows=2)
    runs = [train_detector(tiny_encoder(), train, test, CLASSES, short, 0, quiet=True) for _ in range(2)]
    assert torch.equal(runs[0].head.weight, runs[1].head.weight) and runs[0].last == runs[1].last


def test_divergence_is_one_sentence(root):
    with pytest.raises(UserError, match="smaller --lr"):
        diverging = recipe("tuned", lr=1e30, epochs=4)
        train_detector(tiny_encoder(), open_windows(root), open_windows(root, "val"), CLASSES, diverging, 0, quiet=True)


def test_figures_are_those_of_the_proposals(root):
    test = open_windows(root, "val")
    encoder = tiny_encoder().eval()
    fc = torch.nn.Linear(encoder.feature_size, CLASSES + 1)
    found = detect(encoder, fc, test, recipe("tuned", segments="threshold", overlaps=(0.1, 0.5)), quiet=True)
    ground = stack_videos([test.ground_truth(i) for i in range(len(test))])
    table = detection_table(ground, stack_videos(found.proposals), (0.1, 0.5))
    assert found.figures["map_a@0.1"] == table[0.1]["map_a"] and found.figures["map_v@0.5"] == table[0.5]["map_v"]
    batches = detect(encoder, fc, test, recipe("tuned", overlaps=(0.1, 0.5), test_batch=5), quiet=True)
    assert batches.figures == pytest.approx(found.figures)


# ---- the program


FLAGS = "--finetune-dataset tiny --hidden-size 16 --num-layers 1 --epochs 2 --device cpu --precision fp32"


def test_the_program_writes_everything(root, tmp_path):
    command = f"--data-root {root} {FLAGS} --mode sequence --length 64 --seed 1 2 --timelines 1 --test-every 1"
    ran = call(action_detection.main, f"{command} --checkpoint-path {tmp_path}")
    assert ran.status == 0, ran.err
    assert "OURS" in ran.out.splitlines()[-1] and "mAP_a" in ran.out.splitlines()[-1]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["task"] == "detection/sequence" and result["origin"].startswith("ours")
    assert set(result["summary"]["last"]) >= {"map_a@0.5", "map_v@0.5", "map_a@0.1", "frame_accuracy"}
    assert result["summary"]["last"]["map_a@0.5"]["count"] == 2
    for seed in (1, 2):
        written = os.listdir(tmp_path / "predictions" / f"seed{seed}")
        assert sorted(written) == ["0006-M.txt", "0007-M.txt", "0008-M.txt"]
    assert os.listdir(tmp_path / "timelines") == ["0006-M.png"]
    assert (tmp_path / "detector.pth").is_file()


@pytest.mark.parametrize("mode", ("tuned", "frozen"))
def test_the_published_modes_run(root, tmp_path, mode):
    ran = call(action_detection.main, f"--data-root {root} {FLAGS} --mode {mode} --checkpoint-path {tmp_path}")
    assert ran.status == 0, ran.err
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["recipe"]["length"] == {"tuned": 32, "frozen": 16}[mode]
    assert result["recipe"]["stride"] == {"tuned": 1, "frozen": 4}[mode]
    assert result["coordinates"].startswith({"tuned": "as in", "frozen": "normalised"}[mode])


def test_mistakes_are_one_sentence(root, tmp_path):
    end = f"--checkpoint-path {tmp_path}"
    refused(call(action_detection.main, f"--data-root {tmp_path} --finetune-dataset ntu60 {end}"), "untrimmed")
    refused(
        call(action_detection.main, f"--data-root {root} --finetune-dataset tiny --protocol cross_view {end}"),
        "cross_sub",
    )
    missing = f"--data-root {root} --finetune-dataset tiny --pretrained {tmp_path}/none.tar {end}"
    refused(call(action_detection.main, missing), "no such file")
    ran = call(action_detection.main, f"--data-root {root} {FLAGS} --lr 1e30 --epochs 4 {end}")
    refused(ran, "smaller --lr")


def test_a_coordinate_that_is_not_finite_is_refused(root, tmp_path):
    views = open_windows(root)
    frames = np.array(views.videos.frames)
    frames[5, 0, 0, 0] = np.nan
    broken = VideoWindows(type(views.videos)(**{**vars(views.videos), "frames": frames}), views.chosen, LAYOUT)
    with pytest.raises(UserError, match="0000-M has a coordinate"):
        broken.whole(0)


@pytest.mark.parametrize(
    "change, words",
    (
        ({"names": ["a/b"] * 9}, "cannot be a file name"),
        ({"names": ["a"] * 9}, "is there twice"),
        ({"frame_label": np.full(2000, 9, np.int16)}, "frame labels 9..9"),
        ({"segments": [np.zeros((0, 3), np.int64)] * 9}, "no action to find"),
    ),
)
def test_files_that_cannot_work_are_refused_before_training(root, change, words):
    train, test = open_windows(root), open_windows(root, "val")
    broken = type(train.videos)(**{**vars(train.videos), **change})
    with pytest.raises(UserError, match=words):
        check_videos(*(VideoWindows(broken, views.chosen, LAYOUT) for views in (train, test)))


def test_frames_have_no_other_side():
    for flag in ("--both-sides", "--pool mean_max"):
        refused(call(action_detection.main, f"--mode sequence {flag}"), "--mode sequence", flag)
