"""The examples run, are short, and agree with the programs."""

import re
import runpy
from pathlib import Path

import numpy as np
import pose_files
import pytest
from make_checkpoint import write_pretrained
from make_tiny import write_tiny_dataset
from programs import call, refused

import action_retrieval
from engine.features import load

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SHORT = ("features_of_a_clip", "compare_two_encoders", "linear_probe_own_clips")


def start(name: str, words: str):
    return call(runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name=name)["main"], words)


def example(name: str, words: str):
    ran = start(name, words)
    assert ran.status == 0, ran.err
    return ran.out


@pytest.mark.parametrize("name", SHORT)
def test_examples_are_short(name):
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 40


def test_features_of_a_clip(tmp_path):
    path, clip = write_pretrained(tmp_path / "c.pth.tar"), np.random.default_rng(0).normal(size=(20, 25, 3))
    np.save(tmp_path / "clip.npy", clip)
    out = example("features_of_a_clip", f"{path} {tmp_path}/clip.npy")
    length = np.linalg.norm(load(path).clip_features([clip]))
    assert f"feature (32,) of length {length:.3f}, frames (20, 32)" in out and "joint stream" in out


def test_compare_two_encoders_agrees_with_retrieval(tmp_path):
    write_tiny_dataset(tmp_path, frames=90)
    paths = [write_pretrained(tmp_path / f"{i}.pth.tar", seed=i) for i in range(2)]
    out = example("compare_two_encoders", f"{paths[0]} {paths[1]} {tmp_path} tiny cross_subject")
    for path, line in zip(paths, out.splitlines(), strict=True):
        ran = call(
            action_retrieval.main,
            f"--pretrained {path} --data-root {tmp_path} --finetune-dataset tiny --knn 1 5 --device cpu --no-map --precision fp32 "
            f"--checkpoint-path {tmp_path}/run",
        )
        one, five = re.search(r"1-NN ([\d.]+), 5-NN ([\d.]+)", ran.out).groups()
        assert line.endswith(f"1-NN {one} %, 5-NN {five} %")


def test_linear_probe_of_own_clips(tmp_path):
    """Postures that differ by class are classified."""
    path, rng = write_pretrained(tmp_path / "c.pth.tar", persons=1), np.random.default_rng(0)
    for label in ("sit", "stand"):
        (tmp_path / "clips" / label).mkdir(parents=True)
        pose = rng.normal(size=(1, 25, 3))
        for i in range(9):
            clip = pose + rng.normal(0, 0.05, (30, 25, 3))
            np.save(tmp_path / "clips" / label / f"{i}.npy", clip)
    out = example("linear_probe_own_clips", f"{path} {tmp_path}/clips")
    assert out == "2 classes, 12 clips to train, 6 to test: 100.0 % right\n"


def test_own_poses_with_ten_labels(tmp_path):
    """MediaPipe files of two exercises, converted to the encoder's layout; a class of 12 clips leaves two to test."""
    path = write_pretrained(tmp_path / "c.pth.tar", persons=1)
    for name, (label, clip) in pose_files.real_clips(classes=2, each=12, frames=40).items():
        values = pose_files.with_score(pose_files.camera(pose_files.in_layout(clip, "mediapipe_33")))
        pose_files.write_frames(tmp_path / "in" / label / f"{name}.json", values, "mediapipe_33", "world")
    out = example("own_poses_ten_labels", f"{path} {tmp_path}/in")
    assert "converted: mediapipe_33 -> kinect_v2_25" in out and "2 classes, 20 labels" in out
    answers = re.findall(r"  (m\d\d)/(\S+): (m\d\d)", out)
    right = sum(folder == said for folder, _, said in answers)
    assert len(answers) >= 4 and f"{100 * right / len(answers):.1f} % of {len(answers)} others right" in out
    assert right > len(answers) / 2  # a random encoder tells deep squats from hurdle steps
    refused(start("own_poses_ten_labels", ""), "own_poses_ten_labels.py")
    refused(start("own_poses_ten_labels", f"{path} {tmp_path}/in/m01"), "a folder for each class")


def test_mistakes_are_sentences(tmp_path):
    """Wrong arguments get a message."""
    path = write_pretrained(tmp_path / "c.pth.tar")
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "flat.npy", np.zeros((5, 24, 3)))
    (tmp_path / "clips" / "only").mkdir(parents=True)
    for name in SHORT:
        refused(start(name, ""), "give ", f"{name}.py")
        refused(start(name, "-h"), "give ", f"{name}.py")
    for clip, words in (
        ("none.npy", "no such"),
        ("text.npy", "readable"),
        ("objects.npy", "readable"),
        ("a.txt", ".npy"),
    ):
        refused(start("features_of_a_clip", f"{path} {tmp_path}/{clip}"), clip, words)
    refused(start("features_of_a_clip", f"{path} {tmp_path}/flat.npy"), "(5, 24, 3)")
    refused(start("features_of_a_clip", f"{tmp_path}/none.pth {tmp_path}/flat.npy"), "none.pth")
    refused(start("linear_probe_own_clips", f"{path} {tmp_path}/clips"), "two classes")
    refused(start("linear_probe_own_clips", f"{path} {tmp_path}/nowhere"), "two classes")
    refused(start("compare_two_encoders", f"{path} {path} {tmp_path} nothing cross_subject"), "nothing")
