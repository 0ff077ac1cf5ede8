"""Features of folders: equal to those of the other ways, whole or not at all, within bounded memory."""

import json
import tracemalloc

import numpy as np
import pytest
from make_checkpoint import write_pretrained
from make_tiny import write_tiny_dataset
from programs import call, refused

import action_retrieval
from engine.features import load
from tools import extract_features
from utils.features import read_features

RNG = np.random.default_rng(3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_pretrained(tmp_path_factory.mktemp("c") / "c.pth.tar", arguments={"stream": "bone"})


def some_clips(count=5):
    return {f"clip_{i}": RNG.normal(size=(10 + 9 * i, 25, 3, 1 + i % 2)).astype(np.float32) for i in range(count)}


def write_clips(folder, clips):
    folder.mkdir()
    for name, clip in clips.items():
        np.save(folder / f"{name}.npy", clip)
    return folder


def extract(checkpoint, tmp_path, more):
    return call(extract_features.main, f"--pretrained {checkpoint} --output {tmp_path}/out --device cpu {more}")


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_a_folder_or_an_archive_of_clips(tmp_path, checkpoint, kind):
    clips = some_clips()
    source = tmp_path / "in.npz"
    if kind == "folder":
        source = write_clips(tmp_path / "in", clips)
    else:
        np.savez(source, **clips)
    ran = extract(checkpoint, tmp_path, f"--input {source} --batch-size 2 --frames")
    assert ran.status == 0 and "5 clips and 140 frames" in ran.out, (ran.out, ran.err)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([source.name, "out"])
    out = tmp_path / "out"
    assert (out / "names.txt").read_text().split() == sorted(clips)
    encoder = load(checkpoint, device="cpu")
    features = np.load(out / "features.npy")
    np.testing.assert_allclose(features, encoder.clip_features(clips.values()), atol=1e-6)
    for name, clip in clips.items():
        np.testing.assert_array_equal(np.load(out / "frames" / f"{name}.npy"), encoder.frame_features(clip))
    about = json.loads((out / "source.json").read_text())
    assert about["stream"] == "bone" and about["dimensions"] == features.shape[1] and "centre" in about["normalisation"]


def test_a_prepared_data_set_as_retrieval_encodes_it(tmp_path, checkpoint):
    write_tiny_dataset(tmp_path, frames=90)
    words = f"--data-root {tmp_path} --pretrained {checkpoint} --device cpu"
    ran = call(
        action_retrieval.main,
        f"{words} --finetune-dataset tiny --knn 1 --recall 1 --precision fp32 --save-features --checkpoint-path {tmp_path}/run",
    )
    assert ran.status == 0, ran.err
    ran = extract(checkpoint, tmp_path, f"--data-root {tmp_path} --dataset tiny --split train --batch-size 7 --frames")
    assert ran.status == 0, ran.err
    expected = read_features(tmp_path / "run" / "features.npz").train
    out = tmp_path / "out"
    np.testing.assert_allclose(np.load(out / "features.npy"), expected.features, atol=1e-6)
    np.testing.assert_array_equal(np.load(out / "labels.npy"), expected.labels)
    names = (out / "names.txt").read_text().split()
    assert names == list(expected.names) == sorted(p.stem for p in (out / "frames").iterdir())


@pytest.mark.parametrize(
    "bad, words",
    [
        (np.zeros((5, 20, 3), np.float32), "(5, 20, 3)"),
        (np.full((5, 25, 3), np.inf), "frame 0"),
        (np.array(["a"]), "expected numbers"),
        (b"\x93NUMPY cut", "not a readable .npy"),
        (b"a text file", "not a readable .npy"),
    ],
)
def test_a_bad_file_is_named_and_nothing_is_left(tmp_path, checkpoint, bad, words):
    folder = write_clips(tmp_path / "in", some_clips())
    if isinstance(bad, bytes):
        (folder / "clip_3.npy").write_bytes(bad)
    else:
        np.save(folder / "clip_3.npy", bad)
    refused(extract(checkpoint, tmp_path, f"--input {folder} --batch-size 2"), "clip_3.npy", words)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_single_file(tmp_path, checkpoint):
    clips = some_clips(2)
    folder, first = write_clips(tmp_path / "in", clips), next(iter(clips))
    ran = extract(checkpoint, tmp_path, f"--input {folder}/{first}.npy --frames")
    assert ran.status == 0, ran.err
    assert (tmp_path / "out" / "names.txt").read_text() == f"{first}\n"
    expected = load(checkpoint, device="cpu").clip_features([clips[first]])
    np.testing.assert_allclose(np.load(tmp_path / "out" / "features.npy"), expected, atol=1e-6)
    assert len(np.load(tmp_path / "out" / "frames" / f"{first}.npy")) == len(clips[first])
    (tmp_path / "other").mkdir()
    refused(extract(checkpoint, tmp_path / "other", f"--input {folder}/none.npy"), "none.npy: there is no such file")


def test_other_mistakes(tmp_path, checkpoint):
    folder = write_clips(tmp_path / "in", some_clips(1))
    (tmp_path / "empty").mkdir()
    refused(extract(checkpoint, tmp_path, f"--input {tmp_path}/empty"), "no .npy")
    refused(extract(checkpoint, tmp_path, f"--input {tmp_path}/none"), "no such folder of .npy files")
    refused(extract(checkpoint, tmp_path, f"--input {folder} --dataset ui_prmd"), "either --input")
    refused(extract(checkpoint, tmp_path, f"--input {folder} --layout sbu_15"), "kinect_v2_25")
    np.savez(tmp_path / "odd.npz", **{"../b": np.zeros((3, 25, 3))})
    refused(extract(checkpoint, tmp_path, f"--input {tmp_path}/odd.npz --frames"), "'../b'", "file name")
    write_tiny_dataset(tmp_path, persons=3, frames=90)
    refused(extract(checkpoint, tmp_path, f"--dataset tiny --data-root {tmp_path}"), "3 persons", "--persons 2")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    refused(extract(checkpoint, tmp_path, f"--input {folder}"), "already exists")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_memory_does_not_grow_with_the_number_of_clips(tmp_path, checkpoint):
    def peak(count):
        folder = write_clips(
            tmp_path / f"in{count}", {f"{i:03d}": np.ones((300, 25, 3), np.float32) for i in range(count)}
        )
        tracemalloc.start()  # counts numpy's arrays
        ran = call(
            extract_features.main,
            f"--pretrained {checkpoint} --input {folder} --output {tmp_path}/out{count} --batch-size 4 --device cpu",
        )
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert ran.status == 0, ran.err
        return most

    peak(4)
    few, many = peak(8), peak(64)  # 64 clips hold 11 MB
    assert many < few + 2e6, (few, many)
