"""Videos: MediaPipe on a picture of a person that scikit-image brings, where both are installed; else how it is asked for."""

import json
import sys

import numpy as np
import pytest
from programs import call, refused

from data_gen import from_video
from options.datasets import from_description
from utils.arrays import open_split
from utils.errors import UserError

FRAMES, FPS = 24, 25


def mediapipe_here():
    """cv2; skips the test where MediaPipe is not there, or not as it is needed."""
    pytest.importorskip("mediapipe")
    try:
        return from_video._packages()[0]
    except UserError as error:
        pytest.skip(str(error))


def write_video(cv2, path, pictures, code="mp4v"):
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), FPS, (width, height))
    for picture in pictures:
        writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    writer.release()


def swaying(picture, frames=FRAMES):
    """The picture, moved to and fro by some pixels."""
    return [np.roll(picture, int(20 * np.sin(t / 4)), axis=1) for t in range(frames)]


@pytest.mark.slow
def test_videos_become_a_data_set(tmp_path, monkeypatch):
    """A person is found, upright and of a person's size; what is done is not done again; nobody is said."""
    cv2 = mediapipe_here()
    picture = pytest.importorskip("skimage").data.astronaut()
    for name in ("sway/one.mp4", "sway/two.mp4", "still/one.mp4", "still/three.avi"):
        frames = swaying(picture) if name.startswith("sway") else [picture] * FRAMES
        write_video(cv2, tmp_path / "videos" / name, frames, "MJPG" if name.endswith("avi") else "mp4v")
    write_video(cv2, tmp_path / "videos" / "still" / "nobody.mp4", [np.full_like(picture, 90)] * 5)
    words = f"{tmp_path}/videos --name mine --data-root {tmp_path}/data --frames 40 --workers 1"
    ran = call(from_video.main, words)
    assert ran.status == 0, ran.err
    assert "1 videos without a person: still/nobody" in ran.out and "frames a second: 25" in ran.out
    assert "layout: mediapipe_33, 3-D" in ran.out and "units: metres" in ran.out and "y points up" in ran.out
    assert "mirrored" not in ran.out  # the toes of real landmarks say: a camera's space, turned
    kept = np.load(tmp_path / "data" / "mine_poses" / "sway" / "one.mp4.npz")
    assert kept["keypoints"].shape == (FRAMES, 33, 3) and np.isfinite(kept["keypoints"]).all()
    trunk = kept["keypoints"][:, [11, 12]].mean(1) - kept["keypoints"][:, [23, 24]].mean(1)
    assert (trunk[:, 1] < -0.3).all() and (np.linalg.norm(trunk, axis=1) < 0.8).all()  # y down, half a metre
    row = from_description("mine", json.loads((tmp_path / "data" / "mine" / "dataset.json").read_text()))
    assert row.classes == ("still", "sway") and row.layout == "mediapipe_33"
    split = open_split(tmp_path / "data" / "mine" / "xsub", "train", 33, 1, 2)
    assert len(split) == 2 and split.num_frame.tolist() == [FRAMES] * 2
    monkeypatch.setattr(from_video, "estimate", None)  # nothing is estimated a second time
    again = call(from_video.main, f"{words} --only-poses")
    assert again.status == 0 and "5 videos, 5 of them done before" in again.out, again.err


def test_what_cannot_be_read_is_refused_or_listed(tmp_path):
    mediapipe_here()
    (tmp_path / "videos").mkdir()
    words = f"{tmp_path}/videos --name mine --data-root {tmp_path}/data"
    refused(call(from_video.main, words), "holds no video")
    (tmp_path / "videos" / "a.mp4").write_bytes(b"no video")
    (tmp_path / "videos" / "b.mp4").write_bytes(b"")
    refused(call(from_video.main, words), "2 of 2 videos cannot be read", "a.mp4", "--on-bad skip")
    refused(call(from_video.main, f"{words} --on-bad skip"), "none of its 2 videos")
    refused(call(from_video.main, f"{tmp_path}/nowhere --name mine"), "there is no such")


def test_without_mediapipe_the_way_to_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)  # as if it were not installed
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    ran = call(from_video.main, f"{tmp_path} --name mine --data-root {tmp_path}/data")
    refused(ran, "requirements-video.txt", ".venv-video/bin/python")


def test_another_protobuf_is_noticed_before_the_first_frame(tmp_path, monkeypatch):
    mediapipe_here()
    import google.protobuf

    monkeypatch.setattr(google.protobuf, "__version__", "7.36.2")
    refused(call(from_video.main, f"{tmp_path} --name mine"), "protobuf below 5", "7.36.2", ".venv-video/bin/python")
