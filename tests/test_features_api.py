"""Features in Python: of raw clips, equal to those of prepared ones; frame by frame, equal to those of the whole clip."""

import csv

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from make_checkpoint import CAUSAL, SMALL, new_model, write_classifier, write_pretrained, write_released
from make_tiny import tiny_clip
from programs import call

import action_retrieval
from data_gen import from_arrays
from engine.features import as_clip, load, load_classifier
from feeder.windows import normalise_windows
from utils import checkpoint as files
from utils.clip_check import OddClips
from utils.errors import UserError
from utils.features import read_features
from utils.skeleton import KINECT_V2, get_layout

RNG = np.random.default_rng(0)


def raw_clip(label=1, frames=40, joints=25, persons=2, where=(0.0, 0.2, 3.0), seed=0) -> np.ndarray:
    """A clip (T, V, 3, M) as a camera sees it: away from the origin."""
    clip = tiny_clip(np.random.default_rng(seed), label, frames, joints, persons)
    seen = clip != 0
    return ((clip + np.array(where, np.float32)[:, None, None, None]) * seen).transpose(1, 2, 0, 3)


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return write_pretrained(tmp_path_factory.mktemp("ours") / "c.pth.tar", arguments={"stream": "joint"})


@pytest.mark.parametrize("stream", ["joint", "bone", "motion"])
def test_a_raw_clip_has_the_features_of_the_prepared_one(tmp_path, stream):
    clips = {f"{s}_{i}": raw_clip(i % 3, 20 + 7 * i, seed=i) for s in ("train", "val") for i in range(5)}
    clips["val_4"][:6] = 0  # its persons come late: the preparation moves them to the front
    (tmp_path / "raw").mkdir()
    for name, clip in clips.items():
        np.save(tmp_path / "raw" / f"{name}.npy", clip.transpose(3, 0, 1, 2))
    with open(tmp_path / "raw" / "clips.csv", "w", newline="") as file:
        rows = [{"name": n, "label": int(n[-1]) % 3, "split": n.split("_")[0]} for n in clips]
        writer = csv.DictWriter(file, ["name", "label", "split"])
        writer.writeheader()
        writer.writerows(rows)
    ran = call(from_arrays.main, f"{tmp_path}/raw --name mine --data-root {tmp_path}/data --workers 1")
    assert ran.status == 0, ran.err
    path = write_pretrained(tmp_path / "c.pth.tar", arguments={"stream": stream})
    ran = call(
        action_retrieval.main,
        f"--data-root {tmp_path}/data --finetune-dataset mine --pretrained {path} --save-features --device cpu --knn 1 "
        f"--recall 1 --precision fp32 --checkpoint-path {tmp_path}/run",
    )
    assert ran.status == 0, ran.err
    prepared = read_features(tmp_path / "run" / "features.npz").val
    encoder = load(path, device="cpu")
    mine = encoder.clip_features((clips[str(name)] for name in prepared.names), batch=2)
    assert encoder.stream == stream and len(mine) == 5
    np.testing.assert_allclose(mine, prepared.features, atol=1e-5, rtol=0)
    without = load(path, normalise="none", device="cpu").clip_features([clips[str(n)] for n in prepared.names])
    assert np.abs(without - prepared.features).max() > 1e-3


def test_every_kind_of_file(tmp_path, ours):
    clip = [raw_clip()]
    expected = load(ours, device="cpu").clip_features(clip)
    released = write_released(tmp_path / "released.pth.tar")
    several = write_released(tmp_path / "several.pth.tar", prefix="module.")
    state = {k: v for k, v in new_model().encoder_q.state_dict().items()}
    files.save(tmp_path / "bare.pth", state)
    for path in (released, several, tmp_path / "bare.pth"):
        np.testing.assert_array_equal(load(path, device="cpu").clip_features(clip), expected)
    assert load(released, stream="bone", device="cpu").stream == "bone"


@pytest.mark.parametrize("layout, persons", [("kinect_v1_20", 1), ("sbu_15", 2), ("smpl_24", 1), ("kinect_v2_25", 1)])
def test_the_size_of_a_frame_tells_layout_and_persons(tmp_path, layout, persons):
    joints = get_layout(layout).joints
    path = write_released(tmp_path / "r.pth.tar", layout=layout, joints=joints, persons=persons)
    encoder = load(path, device="cpu")
    assert (encoder.layout.name, encoder.persons) == (layout, persons)
    assert encoder.clip_features([raw_clip(joints=joints, persons=1)]).shape == (1, 32)


@pytest.mark.parametrize(
    "given, words",
    [
        ({"layout": "sbu_15"}, "trained on layout kinect_v2_25"),
        ({"stream": "bone"}, "trained on the joint stream"),
        ({"stream": "colour"}, "joint, bone, motion"),
        ({"persons": 1}, "150 numbers a frame"),
        ({"normalise": "half"}, "normalisation step"),
    ],
)
def test_what_contradicts_the_file_is_refused(ours, given, words):
    with pytest.raises(UserError, match=words):
        load(ours, device="cpu", **given)


def test_files_and_layouts_that_do_not_fit(tmp_path):
    path = write_released(tmp_path / "r.pth.tar")
    with pytest.raises(UserError, match="no layout of smpl_24"):
        load(path, layout="smpl_24")
    files.save(tmp_path / "none.pth", {"state_dict": {"weight": torch.zeros(2)}})
    with pytest.raises(UserError, match="no skeleton encoder"):
        load(tmp_path / "none.pth")


@pytest.mark.parametrize(
    "array, words",
    [
        (np.zeros((4, 20, 3)), r"expected coordinates \(T, 25, 3\)"),
        (np.zeros((25, 3)), r"found \(25, 3\)"),
        (np.zeros((0, 25, 3)), "no frame"),
        (np.zeros((4, 25, 3, 3)), "3 persons"),
        (np.full((4, 25, 3), np.nan), "frame 0"),
        (np.full((4, 25, 3), 1e300), "not a finite"),
        (np.full((4, 25, 3), "a"), "expected numbers"),
    ],
)
def test_bad_clips_are_named(ours, array, words):
    with pytest.raises(UserError, match=f"clip 1: .*{words}"):
        load(ours, device="cpu").clip_features([np.zeros((4, 25, 3)), array])


@given(frames=st.integers(1, 5), persons=st.integers(1, 2), dtype=st.sampled_from(["f2", "f4", "f8", "i4"]))
@settings(max_examples=30, deadline=None)
def test_the_orders_of_axes_mean_the_same(frames, persons, dtype):
    array = (100 * RNG.normal(size=(frames, 25, 3, persons))).astype(dtype)
    one = as_clip(array, KINECT_V2, 2)
    assert one.shape == (3, frames, 25, 2) and one.dtype == np.float32 and not one[..., persons:].any()
    np.testing.assert_array_equal(one, as_clip(array.transpose(3, 0, 1, 2), KINECT_V2, 2))
    np.testing.assert_array_equal(one[0, 0, 3, 0], np.float32(array[0, 3, 0, 0]))
    if persons == 1:
        np.testing.assert_array_equal(one, as_clip(torch.from_numpy(array[..., 0]), KINECT_V2, 2))


@pytest.mark.parametrize("sizes", [SMALL, CAUSAL], ids=["gru", "causal transformer"])
@pytest.mark.parametrize("stream", ["joint", "bone", "motion"])
def test_a_stream_gives_the_features_of_the_whole_clip(tmp_path, sizes, stream):
    path = write_pretrained(tmp_path / "c.pth.tar", arguments={"stream": stream}, **sizes)
    encoder = load(path, device="cpu")
    clip = raw_clip(1, 90)
    clip[:5, :, :, 0] = 0  # person 1 comes late, person 2 is there before
    clip[20:24] = 0  # a gap
    whole = encoder.frame_features(clip)
    assert whole.shape == (90, encoder.feature_size)
    flow = encoder.start_stream()
    for _ in range(2):  # the second time after a reset
        steps = [flow.step(frame) for frame in clip] + [flow.finish()]
        steps = steps[1:] if stream == "motion" else steps[:-1]
        np.testing.assert_allclose(np.stack(steps), whole, atol=2e-6, rtol=0)
        flow.reset()


def test_frames_are_features_of_what_was_seen_so_far(ours):
    encoder, clip = load(ours, device="cpu"), raw_clip(frames=50)
    np.testing.assert_allclose(encoder.frame_features(clip)[:20], encoder.frame_features(clip[:20]), atol=1e-6)


def test_features_do_not_depend_on_where_somebody_stands(ours):
    encoder, clip = load(ours, device="cpu"), raw_clip(frames=30, where=(0.1, 0, 0), persons=1)
    moved = clip + np.array([1.0, 2.0, 3.0])[:, None]
    for features in (encoder.frame_features, lambda x: encoder.clip_features([x])):
        np.testing.assert_allclose(features(moved), features(clip), atol=1e-4)


def test_frames_are_normalised_as_clips_are(ours):
    """Where nothing has to be moved, the preparation of clips and that of frames agree."""
    encoder, clip = load(ours, device="cpu"), raw_clip(1, 30)
    prepared = encoder._prepared(clip, "clip", OddClips())
    frames = torch.from_numpy(as_clip(clip, KINECT_V2, 2)).permute(1, 0, 2, 3)
    turned, rotation = encoder._turned(frames, None)
    np.testing.assert_allclose(turned.permute(1, 0, 2, 3).numpy(), prepared, atol=1e-5)
    assert rotation.shape == (1, 3, 3)
    np.testing.assert_array_equal(  # prepared coordinates are taken as they are
        encoder.frame_features(turned.permute(0, 2, 1, 3), prepared=True), encoder.frame_features(clip)
    )
    assert normalise_windows(frames[None], KINECT_V2, ()).shape == (1, 30, 3, 25, 2)


def test_encoders_that_cannot_be_stepped(tmp_path):
    for sizes in ({"backbone": "bigru", "hidden_size": 16, "num_layers": 1}, {**CAUSAL, "causal": False}):
        encoder = load(write_pretrained(tmp_path / "c.pth.tar", **sizes), device="cpu")
        assert encoder.frame_features(raw_clip(frames=9)).shape == (9, encoder.feature_size)
        with pytest.raises(UserError, match="frame by frame.*gru"):
            encoder.start_stream()


def test_a_bad_frame_leaves_the_stream_as_it_was(ours):
    encoder, clip = load(ours, device="cpu"), raw_clip(frames=6)
    flow = encoder.start_stream()
    steps = []
    for i, frame in enumerate(clip):
        with pytest.raises(UserError, match=f"line {i}"):
            flow.step(np.full((25, 3), np.inf), f"line {i}")
        with pytest.raises(UserError, match="expected a frame"):
            flow.step(np.zeros(75))
        steps.append(flow.step(np.moveaxis(frame, -1, 0) if i % 2 else frame))
    np.testing.assert_allclose(np.stack(steps), encoder.frame_features(clip), atol=1e-6)


def test_a_trained_classifier(tmp_path, ours):
    path = write_classifier(tmp_path / "classifier.pth", trained={"dataset": "ui_prmd", "protocol": "cross_view"})
    found = load_classifier(path, device="cpu")
    features = found.encoder.clip_features([raw_clip(), raw_clip(2)])
    p = found.probabilities(features)
    assert p.shape == (2, 4) and found.classes[3] == "action 3" and found.trained_on == "ui_prmd cross_view"
    expected = torch.from_numpy(features) @ found.fc.weight.T + found.fc.bias
    np.testing.assert_allclose(p, expected.softmax(1), atol=1e-6)
    np.testing.assert_allclose(load(path, device="cpu").clip_features([raw_clip()]), features[:1], atol=1e-6)
    with pytest.raises(UserError, match="no classifier"):
        load_classifier(ours)
    content = files.load(path) | {"classes": ["one"]}
    files.save(path, content)
    with pytest.raises(UserError, match="weight has shape"):
        load_classifier(path)


@pytest.mark.parametrize("name", ["layout", "persons", "joints", "backbone", "hidden_size"])
@pytest.mark.parametrize("value", [["kinect"], {"a": 1}, -1, 10**30, "no such", None, 1.5, True])
def test_odd_descriptions_in_a_file_are_sentences_or_do_no_harm(tmp_path, ours, name, value):
    content = files.load(ours)
    content["config"]["encoder"][name] = value
    files.save(tmp_path / "odd.pth", content)
    try:
        encoder = load(tmp_path / "odd.pth", device="cpu")
    except UserError as error:
        assert "odd.pth" in str(error) or "layout" in str(error)
    else:
        assert (encoder.layout.name, encoder.persons, encoder.feature_size) == ("kinect_v2_25", 2, 32)
