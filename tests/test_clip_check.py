"""What a clip must be: a person in metres who moves and stands; asked wherever clips come in, told with names and counts."""

import io
import json

import numpy as np
import pytest
from make_checkpoint import write_classifier, write_pretrained
from programs import call, refused

from data_gen import check, from_arrays, from_pyskl
from data_gen.ui_prmd import read_packed
from engine.features import load
from tools import extract_features, live_demo
from utils.clip_check import OddClips, clip_faults
from utils.errors import UserError
from utils.files import dump_pickle, load_json
from utils.skeleton import KINECT_V2


@pytest.fixture(scope="module")
def packed():
    return read_packed()


@pytest.fixture(scope="module")
def person(packed):
    """A real clip (T, V, 3)."""
    return packed.clip(packed.names[7])[..., 0].transpose(1, 2, 0)[:60].copy()


SPOILT = {  # what is done to a clip (T, V, 3) in metres -> the kinds that it must be found to be
    "as it is": (lambda x: x, set()),
    "in a corner": (lambda x: x + [4.0, -2.0, 7.0], set()),
    "a child": (lambda x: x * 0.4, set()),
    "turned about y": (lambda x: x * [-1, 1, -1], set()),
    "z points up": (lambda x: x[..., [0, 2, 1]], set()),
    "one frame": (lambda x: x[:1], set()),
    "flat": (lambda x: x * [300, -300, 0], set()),
    "hands not seen": (lambda x: np.where(np.isin(np.arange(25), [21, 22, 23, 24])[None, :, None], 0, x), set()),
    "zero": (lambda x: x * 0, {"empty"}),
    "constant": (lambda x: np.repeat(x[:1], 50, axis=0), {"still"}),
    "constant but for the last bit": (
        lambda x: np.repeat(x[:1], 50, axis=0) * (1 + 1e-7 * np.arange(50)[:, None, None]),
        {"still"},
    ),
    "all joints in one place": (lambda x: x * 0 + 1.0, {"size", "still"}),
    "denormal": (lambda x: x * 1e-40, {"size"}),
    "1e30": (lambda x: x * 1e30, {"size"}),
    "millimetres": (lambda x: x * 1000, {"size"}),
    "centimetres": (lambda x: x * 100, {"size"}),
    "y points down": (lambda x: x * [1, -1, 1], {"down"}),
    "turned upside down": (lambda x: x * [-1, -1, 1], {"down"}),
    "z points down": (lambda x: x[..., [0, 2, 1]] * [1, 1, -1], {"down"}),
    "constant and in millimetres": (lambda x: np.repeat(x[:1], 9, axis=0) * 1000, {"still", "size"}),
}


def spoilt(person, what):
    return SPOILT[what][0](person.astype(np.float64)).astype(np.float32)


@pytest.mark.parametrize("what", SPOILT)
def test_each_kind_is_found_and_nothing_else(person, what):
    clip = spoilt(person, what).transpose(2, 0, 1)[..., None]
    assert set(clip_faults(clip, KINECT_V2)) == SPOILT[what][1]
    beside = np.concatenate([clip, 0 * clip], axis=3)  # an absent second person changes nothing
    assert set(clip_faults(beside, KINECT_V2)) == SPOILT[what][1]


def test_no_real_clip_is_called_odd(packed):
    odd = OddClips()
    for name in packed.names[::5]:
        odd.check(name, packed.clip(name), KINECT_V2)
    assert len(odd.checked) == 400 and not odd.found


def test_the_sentence_counts_and_names():
    odd = OddClips()
    for name in "abcd":
        odd.add(name, {"still": f"none of its joints moves in {ord(name)} frames"})
    assert odd.sentences(9) == [
        "4 of 9 clips do not move: a, b, c, ...; in the first, none of its joints moves in 97 frames"
    ]
    with pytest.raises(UserError, match="^e: .*--strict"):
        OddClips(strict=True).add("e", {"empty": "it has no coordinate other than 0"})


KINDS = ["zero", "constant", "denormal", "1e30", "millimetres", "turned upside down"]
SAID = {"zero": "no coordinate other", "constant": "do not move", "turned upside down": "upside down"}


def said(what):
    return SAID.get(what, "not of human size in metres")


def folder_of(folder, person, what):
    """Two good clips and, in the middle, a spoilt one."""
    folder.mkdir()
    for name, kind in (("a", "as it is"), ("b", what), ("c", "as it is")):
        np.save(folder / f"{name}.npy", spoilt(person, kind))
    (folder / "clips.csv").write_text("name,label,split\na,0,train\nb,0,train\nc,0,val\n")
    return folder


@pytest.mark.parametrize("what", KINDS)
def test_a_preparation_warns_or_refuses(tmp_path, person, what):
    source = folder_of(tmp_path / "in", person, what)
    command = f"{source} --data-root {tmp_path} --workers 1 --frames 60 --name"
    ran = call(from_arrays.main, f"{command} kept")
    assert ran.status == 0 and "1 of 3 clips " in ran.err and said(what) in ran.err and ": b;" in ran.err
    odd = load_json(tmp_path / "kept" / "xsub" / "preparation.json")["odd"]
    assert [list(names) for names in odd.values()] == [["b"]]
    refused(call(from_arrays.main, f"{command} strict --strict"), "b: ", "--strict")
    assert not (tmp_path / "strict").exists() or not list((tmp_path / "strict").iterdir())
    ran = call(from_arrays.main, f"{command} skipped --strict --on-bad skip")
    assert ran.status == 0 and "xsub: 1 train and 1 val" in ran.out and "1 clips left out" in ran.out


def test_a_pickle_of_poses_is_looked_at_too(tmp_path, person):
    clips = {"a": "as it is", "b": "millimetres"}
    keypoints = {name: spoilt(person, kind)[None] for name, kind in clips.items()}
    annotations = [{"frame_dir": name, "label": 0, "keypoint": keypoint} for name, keypoint in keypoints.items()]
    content = {"split": {"xsub_train": ["a"], "xsub_val": ["b"]}, "annotations": annotations}
    (tmp_path / "p.pkl").write_bytes(dump_pickle(content))
    ran = call(from_pyskl.main, f"{tmp_path}/p.pkl --name p --data-root {tmp_path} --workers 1")
    assert (
        ran.status == 0
        and "1 of 2 clips are not of human size in metres: b; in the first, its longest bone is 363" in ran.err
    )
    assert "millimetres?" in ran.err


@pytest.mark.parametrize("what", KINDS)
def test_the_check_of_a_folder_notes_or_calls_it_wrong(tmp_path, person, what):
    source = folder_of(tmp_path / "in", person, what)
    call(from_arrays.main, f"{source} --data-root {tmp_path} --workers 1 --frames 60 --normalise none --name kept")
    ran = call(check.main, f"{tmp_path}/kept")
    assert f"{said(what)}" in ran.out or what == "zero" and "clips are zero in all frames" in ran.out, ran.out
    assert what == "zero" or (ran.status == 0 and "note: train: 1 of 2 clips" in ran.out and ": b;" in ran.out), ran.out
    ran = call(check.main, f"{tmp_path}/kept --strict")
    assert ran.status == 2 and "WRONG: train: 1" in ran.out


@pytest.mark.parametrize("what", KINDS)
def test_features_are_given_with_a_warning_or_refused(tmp_path, person, what):
    source = folder_of(tmp_path / "in", person, what)
    checkpoint = write_pretrained(tmp_path / "c.pth")
    command = f"--pretrained {checkpoint} --input {source} --device cpu --frames --output {tmp_path}"
    ran = call(extract_features.main, f"{command}/out")
    assert ran.status == 0 and said(what) in ran.err and "b.npy" in ran.err and ran.err.count("warning") == 1, ran.err
    assert len(np.load(tmp_path / "out" / "features.npy")) == 3
    assert [
        list(names)[0].endswith("b.npy") for names in load_json(tmp_path / "out" / "source.json")["odd"].values()
    ] == [True]
    refused(call(extract_features.main, f"{command}/strict --strict"), "b.npy: ", "--strict")
    assert not (tmp_path / "strict").exists()


def test_features_in_python_warn(tmp_path, person, capsys):
    encoder = load(write_pretrained(tmp_path / "c.pth"), device="cpu")
    encoder.clip_features([person, person * 1000])
    assert "1 of 2 clips are not of human size in metres: clip 1" in capsys.readouterr().err
    encoder.frame_features(person[:1].repeat(9, axis=0), "mine")
    assert "1 of 1 clips do not move: mine" in capsys.readouterr().err


@pytest.mark.parametrize("what", [kind for kind in KINDS if kind != "zero"])
@pytest.mark.parametrize("frames", [5, 60])
def test_a_stream_is_looked_at_in_its_first_second(tmp_path, person, monkeypatch, what, frames):
    classifier = write_classifier(tmp_path / "classifier.pth")
    nobody = json.dumps(np.zeros((25, 3)).tolist())
    lines = [nobody] * 40 + [
        json.dumps(frame.tolist()) for frame in spoilt(person, what)[:frames]
    ]  # the sensor waits first

    def go(more):
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
        return call(live_demo.main, f"{classifier} --stdin json --device cpu {more}")

    ran = go("")
    assert ran.status == 0 and said(what) in ran.err and ran.err.count("warning") == 1, ran.err
    refused(go("--strict"), "--strict")
    lines[40:] = [json.dumps(frame.tolist()) for frame in person[:frames]]
    ran = go("--strict")
    assert ran.status == 0 and not ran.err
