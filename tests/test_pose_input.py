"""Poses of other people's forms go into an encoder as the same clips in its own layout do: features, answers, streams."""

import io
import json

import numpy as np
import pose_files as pf
import pytest
from make_checkpoint import write_classifier, write_pretrained
from programs import call, refused

from engine.clip_files import ClipFiles, PoseFiles, open_clips
from engine.features import load
from tools import extract_features, live_demo
from utils.errors import UserError

CLIPS = pf.real_clips(classes=2, each=2, frames=12)


def kinect(clip, layout):
    """What an encoder of Kinect v2's joints is given for a clip of another layout."""
    from utils.convert_layout import convert
    from utils.skeleton import KINECT_V2, get_layout

    return convert(pf.in_layout(clip, layout), get_layout(layout), KINECT_V2, axis=1)


def write_mediapipe(folder):
    for name, (label, clip) in CLIPS.items():
        values = pf.with_score(pf.camera(pf.in_layout(clip, "mediapipe_33")))
        pf.write_frames(folder / label / f"{name}.json", values, "mediapipe_33", "world")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_pretrained(tmp_path_factory.mktemp("c") / "c.pth.tar")


def extract(checkpoint, tmp_path, source, more=""):
    return call(
        extract_features.main, f"--pretrained {checkpoint} --output {tmp_path}/out --device cpu --input {source} {more}"
    )


def test_features_of_mediapipe_files(tmp_path, checkpoint):
    """Found, said, converted on the way; the features are those of the converted clips."""
    ran = extract(checkpoint, tmp_path, write_mediapipe(tmp_path / "in"), "--frames")
    assert ran.status == 0, ran.err
    assert "layout: mediapipe_33, 3-D" in ran.out and "converted: mediapipe_33 -> kinect_v2_25" in ran.out
    names = (tmp_path / "out" / "names.txt").read_text().split()
    assert names == sorted(f"{label}/{name}" for name, (label, _) in CLIPS.items())
    encoder = load(checkpoint, device="cpu")
    expected = encoder.clip_features([kinect(CLIPS[n.split("/")[1]][1], "mediapipe_33") for n in names])
    np.testing.assert_allclose(np.load(tmp_path / "out" / "features.npy"), expected, atol=1e-3)
    assert np.load(tmp_path / "out" / "frames" / f"{names[0]}.npy").shape == (12, encoder.feature_size)


def test_a_pickle_of_clips_and_a_bad_clip_in_it(tmp_path, checkpoint):
    clips = {name: (0, 1000 * clip) for name, (_, clip) in CLIPS.items()}  # millimetres
    pf.write_pickle(tmp_path / "in.pkl", clips, bare=True)
    ran = extract(checkpoint, tmp_path, tmp_path / "in.pkl")
    assert ran.status == 0 and "units: millimetres" in ran.out, ran.err
    expected = load(checkpoint, device="cpu").clip_features([CLIPS[n][1] for n in sorted(CLIPS)])
    np.testing.assert_allclose(np.load(tmp_path / "out" / "features.npy"), expected, atol=1e-3)
    clips["broken"] = (0, np.full((5, 25, 3), np.nan))
    pf.write_pickle(tmp_path / "bad.pkl", clips, bare=True)
    (tmp_path / "again").mkdir()
    refused(
        extract(checkpoint, tmp_path / "again", tmp_path / "bad.pkl"), "bad.pkl", "broken", "no frame holds a person"
    )
    assert not list((tmp_path / "again").iterdir())


def test_arrays_in_the_encoders_layout_are_taken_as_they_lie(tmp_path, checkpoint):
    """Whatever is in them: nothing is mended that the user has not asked for."""
    encoder = load(checkpoint, device="cpu")
    (tmp_path / "own").mkdir()
    np.save(tmp_path / "own" / "a.npy", np.random.default_rng(0).normal(size=(20, 25, 3)))
    assert isinstance(open_clips(tmp_path / "own", encoder), ClipFiles)
    (tmp_path / "other").mkdir()
    for name, (_, clip) in CLIPS.items():
        np.save(tmp_path / "other" / f"{name}.npy", pf.in_layout(clip, "azure_kinect_32"))
    files = open_clips(tmp_path / "other", encoder)
    assert isinstance(files, PoseFiles) and any("azure_kinect_32 -> kinect_v2_25" in line for line in files.lines)
    name = files.names[0]
    np.testing.assert_allclose(files.read(name)[..., 0], kinect(CLIPS[name][1], "azure_kinect_32"), atol=1e-5)
    told = load(checkpoint, device="cpu", input_layout="azure_kinect_32")
    assert isinstance(open_clips(tmp_path / "other", told), ClipFiles)  # it converts by itself then
    with pytest.raises(UserError, match="no .npy array"):
        (tmp_path / "empty").mkdir()
        open_clips(tmp_path / "empty", encoder)


def live(classifier, monkeypatch, frames, more=""):
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(json.dumps(frame) + "\n" for frame in frames)))
    return call(live_demo.main, f"{classifier} --stdin json --device cpu {more}")


def test_a_stream_of_landmarks(tmp_path, monkeypatch):
    """MediaPipe's landmarks by frame give the classes that the converted coordinates give."""
    classifier = write_classifier(tmp_path / "classifier.pth")
    clip = CLIPS[next(iter(CLIPS))][1]
    points = pf.camera(pf.in_layout(clip, "mediapipe_33"))
    frames = [{"pose_world_landmarks": [dict(zip("xyz", map(float, p), strict=True)) for p in f]} for f in points]
    ran = live(classifier, monkeypatch, [frames[0], {"pose_world_landmarks": None}, *frames[1:]])
    assert ran.status == 0, ran.err
    assert "found  layout: mediapipe_33" in ran.out and "minus y points up" in ran.out
    plain = live(classifier, monkeypatch, [f.tolist() for f in kinect(clip, "mediapipe_33")])
    ends = [
        [line for line in r.out.splitlines() if line.startswith("sequence 1")][0].split("%")[0] for r in (ran, plain)
    ]
    assert ends[0].split(",")[0] == ends[1].split(",")[0]
    refused(live(classifier, monkeypatch, [{"hello": 1}]), "standard input, line 1")
