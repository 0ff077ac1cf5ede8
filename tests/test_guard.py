"""The door of what is read: no pipe, no device, no more memory than a file may ask for, text with any byte order mark."""

import codecs
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bombs import ROOT, write_bombs
from make_checkpoint import write_pretrained
from make_tiny import write_tiny_dataset
from programs import call, refused

from data_gen import from_arrays, from_ctrgcn, from_pyskl
from data_gen.from_files import first_label, read_class_names
from options.datasets import MAX_CLASSES
from tools import extract_features
from utils.arrays import open_split
from utils.errors import UserError
from utils.files import ArrayArchive, dump_pickle, load_json, load_pickle, map_npy, read_npy, read_text

MOST_MB = 500


def test_bombs_are_refused_before_they_unpack(tmp_path):
    write_bombs(tmp_path)
    assert all(path.stat().st_size < 2**24 for path in tmp_path.iterdir())
    command = [sys.executable, str(ROOT / "tests" / "bombs.py"), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT)
    lines = ran.stdout.splitlines()
    assert len(lines) == 1 + len(list(tmp_path.iterdir())), (ran.stdout, ran.stderr)
    assert all(": refused, " in line for line in lines[:-1]), ran.stdout
    assert int(re.fullmatch(r"peak (\d+) MB", lines[-1])[1]) < MOST_MB, lines[-1]


def test_the_limit_is_a_flag(tmp_path):
    """A clip that is packed small is read where --max-unpacked allows it, and refused where it does not."""
    clip = np.zeros((40_000, 25, 3), np.float32)
    clip[:, 3, 2] = 1
    np.savez_compressed(tmp_path / "c.npz", **{name: clip for name in "ab"})
    (tmp_path / "c.csv").write_text("name,label,split\na,0,train\nb,0,val\n")
    command = f"{tmp_path}/c.npz --data-root {tmp_path} --frames 20 --workers 1 --max-unpacked"
    refused(call(from_arrays.main, f"{command} 0.001 --name small"), "c.npz:a", "0.0 GB", "--max-unpacked")
    ran = call(from_arrays.main, f"{command} 0.1 --name large")
    assert ran.status == 0, ran.err
    assert len(open_split(tmp_path / "large" / "xsub", "train", 25, 1)) == 1
    np.save(tmp_path / "plain.npy", clip)  # as large as it looks: no limit
    assert read_npy(tmp_path / "plain.npy", limit=1000).shape == clip.shape


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize(
    "reader", [read_text, load_json, load_pickle, read_npy, map_npy, ArrayArchive, read_class_names]
)
def test_only_regular_files_are_opened(tmp_path, reader, kind):
    path = {"pipe": tmp_path / "pipe", "device": Path("/dev/zero"), "folder": tmp_path}[kind]
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(UserError, match="is a folder" if kind == "folder" else "a pipe or a device"):
        reader(path)


def test_a_pipe_as_input_is_refused(tmp_path):
    checkpoint = write_pretrained(tmp_path / "c.pth")
    os.mkfifo(tmp_path / "pipe.npy")
    for what in (
        f"--pretrained {checkpoint} --input {tmp_path}/pipe.npy",
        f"--pretrained {tmp_path}/pipe.npy --input x",
    ):
        refused(call(extract_features.main, f"{what} --output {tmp_path}/out"), "pipe.npy", "a pipe or a device")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_with_any_mark_is_read(tmp_path, encoding):
    def write(name, text):
        (tmp_path / name).write_bytes(text.encode(encoding))
        return tmp_path / name

    assert read_class_names(write("names.txt", "挥手\nsit")) == ("挥手", "sit")
    assert load_json(write("x.json", '{"a": "挥手"}')) == {"a": "挥手"}
    labels, protocols = from_arrays.read_list(write("l.csv", "name,label,split\r\na,挥手,train\r\nb,sit,val\r\n"))
    assert labels == {"a": "挥手", "b": "sit"}
    assert protocols == {"cross_subject": {"train": ["a"], "val": ["b"]}}
    assert not encoding.endswith("16") or (tmp_path / "x.json").read_bytes().startswith(codecs.BOM_UTF16)


def test_a_dataset_json_with_a_mark_is_read(tmp_path):
    folder = write_tiny_dataset(tmp_path)
    description = folder / "dataset.json"
    description.write_bytes(codecs.BOM_UTF8 + description.read_bytes())
    ran = call(from_arrays.main, "--help")
    assert ran.status == 0
    assert load_json(description)["persons"] == 2


def test_a_whole_number_of_many_digits_is_a_sentence(tmp_path):
    (tmp_path / "x.json").write_text("[" + "9" * 5000 + "]")
    with pytest.raises(UserError, match="not valid JSON"):
        load_json(tmp_path / "x.json")


# -- labels ---------------------------------------------------------------------------------------------------------------


def clips_of(folder, labels: dict[str, str]):
    folder.mkdir(parents=True)
    for k, name in enumerate(labels):
        np.save(folder / f"{name}.npy", np.random.default_rng(k).normal(0, 0.3, (9, 25, 3)))
    half = list(labels)[: len(labels) // 2]
    rows = [f"{name},{label},{'train' if name in half else 'val'}" for name, label in labels.items()]
    (folder / "clips.csv").write_text("name,label,split\n" + "\n".join(rows))
    return folder


def prepared(root, name, split="train"):
    return open_split(root / name / "xsub", split, 25, 1).labels.tolist(), load_json(root / name / "dataset.json")[
        "classes"
    ]


def pickle_of(path, labels: dict[str, object]):
    half = list(labels)[: len(labels) // 2]
    keypoint = np.random.default_rng(0).normal(0, 0.3, (1, 9, 25, 3)).astype(np.float32)
    split = {"xsub_train": half, "xsub_val": list(labels)[len(half) :]}
    annotations = [
        {"frame_dir": n, "label": label, "keypoint": keypoint, "total_frames": 9} for n, label in labels.items()
    ]
    path.write_bytes(dump_pickle({"split": split, "annotations": annotations}))
    return path


def ctrgcn_of(path, labels):
    half, x = len(labels) // 2, np.random.default_rng(0).normal(0, 0.3, (len(labels), 9, 150)).astype(np.float32)
    labels = np.array(labels)
    np.savez(path, x_train=x[:half], y_train=labels[:half], x_test=x[half:], y_test=labels[half:])
    return path


def convert(tmp_path, kind, labels, more=""):
    """The labels given to a program of that kind; what it did, and the labels and classes that it wrote."""
    names = dict(zip("abcdefgh", labels, strict=False))
    tmp_path.mkdir(exist_ok=True)
    if kind == "list":
        main, source = from_arrays.main, clips_of(tmp_path / "in", names)
    elif kind == "pickle":
        main, source = from_pyskl.main, pickle_of(tmp_path / "in.pkl", names)
    else:
        main, source = from_ctrgcn.main, ctrgcn_of(tmp_path / "in_xsub.npz", labels)
    ran = call(main, f"{source} --name out --data-root {tmp_path} --workers 1 {more}")
    if ran.status:
        return ran, None, None
    persons = load_json(tmp_path / "out" / "dataset.json")["persons"]
    split = open_split(tmp_path / "out" / "xsub", "train", 25, persons)
    return ran, split.labels.tolist(), load_json(tmp_path / "out" / "dataset.json")["classes"]


KINDS = ["list", "pickle", "npz"]


@pytest.mark.parametrize("kind", KINDS)
def test_labels_from_one_are_made_from_zero_and_said(tmp_path, kind):
    ran, labels, classes = convert(tmp_path, kind, [1, 2, 3, 1, 2, 3])
    assert ran.status == 0 and "taken as 1 to 3" in ran.err, ran.err
    assert labels == [0, 1, 2] and len(classes) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_labels_from_one_may_mean_themselves(tmp_path, kind):
    ran, labels, classes = convert(tmp_path, kind, [1, 2, 3, 1, 2, 3], "--labels-from 0")
    assert ran.status == 0 and "no training clip of class 0 (class 0)" in ran.err, ran.err
    assert labels == [1, 2, 3] and len(classes) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_labels_from_zero_stay(tmp_path, kind):
    ran, labels, classes = convert(tmp_path, kind, [0, 1, 2, 0, 1, 2])
    assert ran.status == 0 and "taken as" not in ran.err and "no training clip" not in ran.err, ran.err
    assert labels == [0, 1, 2] and len(classes) == 3
    refused(
        convert(tmp_path / "again", kind, [0, 1, 2, 0, 1, 2], "--labels-from 1")[0],
        "lowest label is 0",
        "--labels-from 1",
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label", [10**9, MAX_CLASSES + 1])
def test_a_label_that_is_no_class_number_is_refused_at_once(tmp_path, kind, label):
    refused(convert(tmp_path, kind, [0, 1, 0, label])[0], str(MAX_CLASSES - 1))
    assert not (tmp_path / "out").exists()


def test_labels_that_are_numbers_and_names_are_said(tmp_path):
    ran, labels, classes = convert(tmp_path, "list", ["1", "2", "-1", "1", "2", "-1"])
    assert ran.status == 0 and "'-1'" in ran.err and "class names" in ran.err
    assert classes == ["-1", "1", "2"] and labels == [1, 2, 0]


@pytest.mark.parametrize(
    "low, most, known, first, expected",
    [(0, 3, None, None, 0), (1, 3, None, None, 1), (1, 3, 3, None, 1), (1, 3, 4, None, 0), (2, 3, None, None, 0)]
    + [(1, 3, None, 0, 0), (1, 3, 4, 1, 1), (2, 5, None, 1, 1)],
)
def test_which_number_is_first(low, most, known, first, expected):
    assert first_label(low, most, known, first) == expected


def test_prepared_labels_are_no_class_numbers(tmp_path):
    """Folders of others: a label of 10**9 is looked at before anything is counted by it."""
    from data_gen import check

    folder = write_tiny_dataset(tmp_path, name="odd")
    (folder / "dataset.json").unlink()
    names, labels = load_pickle(folder / "xsub" / "train_label.pkl")
    (folder / "xsub" / "preparation.json").unlink()
    (folder / "xsub" / "train_label.pkl").write_bytes(dump_pickle((names, [10**9, *labels[1:]])))
    ran = call(check.main, f"{folder} --layout kinect_v2_25")
    assert ran.status == 2 and "label 1000000000" in ran.out and "0..99999" in ran.out, (ran.out, ran.err)


def test_text_of_python_2_in_a_pickle(tmp_path):
    """Protocol 0 escapes what is not ASCII; a memory bomb behind such a text is still found."""
    (tmp_path / "old.pkl").write_bytes(b"(S'a\\xe9b'\nI3\nt.")
    assert load_pickle(tmp_path / "old.pkl") == ("a\xe9b", 3)
    (tmp_path / "bomb.pkl").write_bytes(b"(S'a\\xe9b'\np+99999999\nI3\nt.")
    with pytest.raises(UserError, match="memo index"):
        load_pickle(tmp_path / "bomb.pkl")
