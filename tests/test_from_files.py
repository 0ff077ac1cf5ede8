"""Other people's files become prepared folders: what is in them comes out, what is wrong with them is named."""

import json
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from programs import call, refused, refuses

from data_gen import from_arrays, from_ctrgcn, from_pyskl
from data_gen.from_ctrgcn import guess_protocol, to_clip
from data_gen.from_pyskl import find_protocols, label_from_name
from data_gen.normalise import STEPS, normalise
from options.datasets import from_description
from tests import make_raw
from utils.arrays import SIDECAR, open_split
from utils.errors import UserError
from utils.files import ArrayArchive
from utils.skeleton import KINECT_V2, get_layout

pytestmark = pytest.mark.usefixtures("no_progress_bar")

QUICK = ("--workers", "1", "--frames", "40")


def run(program, *words):
    program.main([str(word) for word in words])


def names_of(folder):
    return sorted(path.name for path in folder.iterdir())


def row_of(folder):
    return from_description(folder.name, json.loads((folder / "dataset.json").read_text()))


# --- pyskl ---


def small_pickle(path, change=None, clips=8, V=25, C=3, dtype=np.float32):
    rng = np.random.default_rng(0)
    annotations = [
        {
            "frame_dir": f"m{k % 2:02}_s{k:02}_{'cor' if k % 4 < 2 else 'inc'}",
            "label": k % 2,
            "keypoint": rng.normal(size=(1 + (k == 3), 10 + k, V, C)).astype(dtype),
            "total_frames": 10 + k,
        }
        for k in range(clips)
    ]
    names = [a["frame_dir"] for a in annotations]
    content = {
        "split": {"xsub_train": names[: clips // 2], "xsub_val": names[clips // 2 :]},
        "annotations": annotations,
    }
    if change:
        change(content)
    path.write_bytes(pickle.dumps(content))
    return content


def test_pyskl_of_a_known_data_set(tmp_path, capsys):
    names = make_raw.ntu_names(60)
    make_raw.make_pyskl(tmp_path / "ntu60_3danno.pkl", names)
    run(from_pyskl, tmp_path / "ntu60_3danno.pkl", "--name", "ntu60", "--data-root", tmp_path, "--workers", 1)
    assert names_of(tmp_path / "ntu60") == ["xsub", "xview"]  # no dataset.json: the registry knows it
    assert names_of(tmp_path) == ["ntu60", "ntu60_3danno.pkl"]  # the temporary folders are gone
    content = pickle.loads((tmp_path / "ntu60_3danno.pkl").read_bytes())
    clips = {a["frame_dir"]: a for a in content["annotations"]}
    for folder in ("xsub", "xview"):
        for part in ("train", "val"):
            split = open_split(tmp_path / "ntu60" / folder, part, 25, 2, 60)
            assert split.names == sorted(content["split"][f"{folder}_{part}"])
            assert split.labels.tolist() == [clips[name]["label"] for name in split.names]
            for i in (0, len(split) - 1):
                keypoint = clips[split.names[i]]["keypoint"].astype(np.float32)  # float16 in the file
                raw = np.zeros((3, 300, 25, 2), np.float32)
                stored = min(keypoint.shape[1], 300)
                raw[:, :stored, :, : keypoint.shape[0]] = keypoint.transpose(3, 1, 2, 0)[:, :300]
                assert np.array_equal(split.data[i], normalise(raw, KINECT_V2))
                assert split.num_frame[i] == stored
    assert "were cut" in capsys.readouterr().out  # make_raw has clips of 310 frames


def test_pyskl_of_an_own_data_set(tmp_path):
    content = small_pickle(tmp_path / "mine.pkl")
    run(from_pyskl, tmp_path / "mine.pkl", "--name", "mine", "--data-root", tmp_path, "--normalise", "none", *QUICK)
    row = row_of(tmp_path / "mine")
    assert (row.num_classes, row.persons, row.layout) == (2, 2, "kinect_v2_25")  # the most persons of any clip
    assert row.protocols == {"cross_subject": ("xsub",)}
    split = open_split(tmp_path / "mine" / "xsub", "train", 25, 2, 2)
    assert split.data.shape == (4, 3, 40, 25, 2)
    for i, name in enumerate(split.names):
        raw = next(a["keypoint"] for a in content["annotations"] if a["frame_dir"] == name).transpose(3, 1, 2, 0)
        assert np.array_equal(split.data[i][:, : raw.shape[1], :, : raw.shape[3]], raw)
        assert not split.data[i][:, raw.shape[1] :].any() and not split.data[i][..., raw.shape[3] :].any()
    sidecar = json.loads((tmp_path / "mine" / "xsub" / SIDECAR).read_text())
    assert sidecar["normalisation"] == [] and "mine.pkl" in sidecar["source"]


def test_pyskl_classes_from_names(tmp_path):
    small_pickle(tmp_path / "mine.pkl")
    pattern = ("--label-from-name", r"(m\d+).*_(cor|inc)")
    run(from_pyskl, tmp_path / "mine.pkl", "--name", "quality", "--data-root", tmp_path, *pattern, *QUICK)
    assert row_of(tmp_path / "quality").classes == ("m00 cor", "m00 inc", "m01 cor", "m01 inc")
    split = open_split(tmp_path / "quality" / "xsub", "val", 25, 2, 4)
    expected = {n: 2 * int(n[2]) + ("inc" in n) for n in split.names}
    assert split.labels.tolist() == list(expected.values())
    with pytest.raises(UserError, match="the class names of ntu60 are fixed"):
        run(from_pyskl, tmp_path / "mine.pkl", "--name", "ntu60", "--data-root", tmp_path, *pattern, *QUICK)
    with refuses("'classes'", "another --name"):
        run(from_pyskl, tmp_path / "mine.pkl", "--name", "quality", "--data-root", tmp_path, *QUICK)
    assert label_from_name(["a1", "b2"], r"\d") == ({"a1": 0, "b2": 1}, ("1", "2"))
    with pytest.raises(UserError, match="does not match the clip name 'b'"):
        label_from_name(["a1", "b"], r"\d")
    with pytest.raises(UserError, match="not a regular expression"):
        label_from_name(["a1"], "(")


def test_pyskl_person_and_class_flags(tmp_path):
    content = small_pickle(tmp_path / "mine.pkl")
    (tmp_path / "classes.txt").write_text("sit\nstand\nlie\n")
    flags = ("--persons", 1, "--classes", tmp_path / "classes.txt", "--normalise", "none")
    run(from_pyskl, tmp_path / "mine.pkl", "--name", "one", "--data-root", tmp_path, *flags, *QUICK)
    assert row_of(tmp_path / "one").classes == ("sit", "stand", "lie") and row_of(tmp_path / "one").persons == 1
    split = open_split(tmp_path / "one" / "xsub", "train", 25, 1, 3)
    two = content["annotations"][3]
    stored = split.data[split.names.index(two["frame_dir"])]
    assert np.array_equal(stored[:, :13, :, 0], two["keypoint"][0].transpose(2, 0, 1))
    (tmp_path / "classes.txt").write_text("sit\n")
    with refuses("--classes", "1 classes", "label 1"):
        run(from_pyskl, tmp_path / "mine.pkl", "--name", "other", "--data-root", tmp_path, *flags, *QUICK)


def first(content, **values):
    content["annotations"][0].update(values)


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda c: first(c, keypoint=np.zeros((1, 10, 25, 2), np.float32)), r"2-D \(pixels"),
        (lambda c: first(c, keypoint=np.zeros((1, 10, 25), np.float32)), r"expected keypoints \(M, T, V, 3\)"),
        (lambda c: first(c, keypoint=np.zeros((1, 10, 17, 3), np.float32)), "for joint layout kinect_v2_25"),
        (lambda c: first(c, keypoint=np.full((1, 10, 25, 3), np.nan, np.float32)), "not a finite number"),
        (lambda c: first(c, keypoint="x"), "not an array of numbers"),
        (lambda c: first(c, keypoint=np.array([["x"]])), "not an array of numbers"),
        (lambda c: first(c, total_frames=11), "total_frames says 11"),
    ],
)
def test_pyskl_bad_clips_are_refused_or_skipped(tmp_path, change, sentence):
    small_pickle(tmp_path / "mine.pkl", change)
    words = (tmp_path / "mine.pkl", "--name", "mine", "--data-root", tmp_path, *QUICK)
    with pytest.raises(UserError, match=sentence):
        run(from_pyskl, *words)
    assert names_of(tmp_path) == ["mine", "mine.pkl"] or names_of(tmp_path) == ["mine.pkl"]
    assert not (tmp_path / "mine" / "xsub").exists()
    run(from_pyskl, *words, "--on-bad", "skip")
    assert len(open_split(tmp_path / "mine" / "xsub", "train", 25, 2, 2).names) == 3
    skipped = json.loads((tmp_path / "mine" / "xsub" / SIDECAR).read_text())["skipped"]
    assert list(skipped) == ["m00_s00_cor"]


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda c: c.pop("split"), "found dict of annotations"),
        (lambda c: c.update(annotations={}), "'annotations' must be a list"),
        (lambda c: c["split"].update(xsub_train=[1]), "must be a list of clip names"),
        (lambda c: c.update(split={"train_only": ["a"]}), "no pair of splits"),
        (lambda c: first(c, frame_dir="m01_s01_cor"), "appears twice"),
        (lambda c: first(c, frame_dir=None), "annotation 0 .* has no frame_dir"),
        (lambda c: first(c, label="sit"), "its label is 'sit'"),
        (lambda c: first(c, label=-1), "its label is '-1'"),
        (lambda c: c["split"]["xsub_train"].append("unheard"), "unheard is in a split, but has no annotation"),
        (lambda c: c["split"]["xsub_train"].append("m01_s07_inc"), "in train and in val"),
    ],
)
def test_pyskl_files_that_contradict_themselves(tmp_path, change, sentence):
    small_pickle(tmp_path / "mine.pkl", change)
    with pytest.raises(UserError, match=sentence):
        run(from_pyskl, tmp_path / "mine.pkl", "--name", "mine", "--data-root", tmp_path, *QUICK)
    assert not (tmp_path / "mine" / "dataset.json").exists()


def test_pyskl_a_clip_without_annotation_can_be_skipped(tmp_path):
    small_pickle(tmp_path / "mine.pkl", lambda c: c["split"]["xsub_train"].append("unheard"))
    run(from_pyskl, tmp_path / "mine.pkl", "--name", "mine", "--data-root", tmp_path, "--on-bad", "skip", *QUICK)
    assert "unheard" not in open_split(tmp_path / "mine" / "xsub", "train", 25, 2, 2).names
    assert list(json.loads((tmp_path / "mine" / "xsub" / SIDECAR).read_text())["skipped"]) == ["unheard"]


def test_a_pickle_that_would_run_something_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"split": {}, "annotations": [Evil()]}))
    with pytest.raises(UserError, match="asks to import"):
        run(from_pyskl, tmp_path / "evil.pkl", "--name", "mine", "--data-root", tmp_path)
    assert not (tmp_path / "owned").exists()


def test_protocols_from_split_names():
    both = {"xsub_train": ["a"], "xsub_val": ["b"], "xset_train": ["c"], "xset_val": ["d"]}
    assert list(find_protocols(both)) == ["cross_subject", "cross_setup"]
    assert find_protocols(both, ["cross_setup"]) == {"cross_setup": {"train": ["c"], "val": ["d"]}}
    assert find_protocols({"train": ["a"], "test": ["b"]}) == {"default": {"train": ["a"], "val": ["b"]}}
    folds = {"train1": ["a"], "test1": ["b"], "train2": ["c"], "test2": ["d"], "readme": ["e"]}
    assert list(find_protocols(folds)) == ["default1", "default2"]
    with refuses("'cross_view'", "cross_subject, cross_setup"):
        find_protocols(both, ["cross_view"])


# --- CTR-GCN ---


def twin_clip(row):
    """One row of a CTR-GCN file, value by value."""
    T = max([t + 1 for t in range(len(row)) if any(row[t])], default=0)
    clip = np.zeros((3, T, 25, 2), np.float32)
    for t in range(T):
        for m in range(2):
            for v in range(25):
                for c in range(3):
                    clip[c, t, v, m] = row[t][(m * 25 + v) * 3 + c]
    if (clip[..., 0] == clip[..., 1]).all():
        clip[..., 1] = 0
    return clip


def test_ctrgcn_rows_against_a_slow_twin(tmp_path):
    make_raw.make_ctrgcn(tmp_path / "NTU120_CSub.npz", repeat_person=True)
    rows = np.load(tmp_path / "NTU120_CSub.npz")["x_train"]
    for row in rows[:3]:
        assert np.array_equal(to_clip(row), twin_clip(row))
    assert not to_clip(rows[0])[..., 1].any()  # the copy of person 1
    assert to_clip(rows[1])[..., 1].any()  # a second person
    assert to_clip(rows[0] * 0).shape == (3, 0, 25, 2)


@pytest.mark.parametrize("compressed", [False, True])
def test_ctrgcn_both_protocols_in_one_call(tmp_path, compressed):
    (tmp_path / "xview").mkdir()
    for name, seed in (("NTU60.npz", 1), ("xview/NTU60.npz", 2)):  # files of one name in two folders
        make_raw.make_ctrgcn(tmp_path / name, seed=seed)
        if compressed:
            arrays = dict(np.load(tmp_path / name))
            np.savez_compressed(tmp_path / name, **arrays)
    files = (tmp_path / "NTU60.npz", tmp_path / "xview" / "NTU60.npz")
    flags = ("--protocol", "cross_subject", "cross_view", "--workers", 1)
    run(from_ctrgcn, *files, "--name", "ntu60", "--data-root", tmp_path / "data", *flags)
    assert names_of(tmp_path / "data" / "ntu60") == ["xsub", "xview"] and names_of(tmp_path / "data") == ["ntu60"]
    for file, folder in zip(files, ("xsub", "xview"), strict=True):
        arrays = np.load(file)
        for part, theirs in (("train", "train"), ("val", "test")):
            split = open_split(tmp_path / "data" / "ntu60" / folder, part, 25, 2, 60)
            assert len(split.names) == len(arrays[f"x_{theirs}"])
            assert split.labels.tolist() == arrays[f"y_{theirs}"].argmax(1).tolist()
            for i, row in enumerate(arrays[f"x_{theirs}"]):
                clip = to_clip(row)
                assert split.num_frame[i] == clip.shape[1]
                padded = np.zeros((3, 300, 25, 2), np.float32)
                padded[:, : clip.shape[1]] = clip
                assert np.array_equal(split.data[i], normalise(padded, KINECT_V2, STEPS))


def test_ctrgcn_two_calls_keep_each_other(tmp_path):
    make_raw.make_ctrgcn(tmp_path / "a.npz", train=3, test=2)
    for protocol in ("cross_subject", "cross_view"):
        words = (tmp_path / "a.npz", "--name", "own", "--data-root", tmp_path, "--protocol", protocol, *QUICK)
        run(from_ctrgcn, *words)
    row = row_of(tmp_path / "own")
    assert row.protocols == {"cross_subject": ("xsub",), "cross_view": ("xview",)} and row.num_classes == 60
    assert names_of(tmp_path / "own") == ["dataset.json", "xsub", "xview"]


def save(path, **change):
    arrays = {
        "x_train": np.ones((3, 5, 150), np.float32),
        "y_train": np.eye(3),
        "x_test": np.ones((2, 5, 150), np.float32),
        "y_test": np.array([0, 2]),
    }
    np.savez(path, **{k: v for k, v in (arrays | change).items() if v is not None})


@pytest.mark.parametrize(
    "change, sentence",
    [
        ({}, None),  # class numbers instead of one-hot rows are fine
        ({"x_test": None}, "holds no x_test"),
        ({"x_train": np.ones((3, 5, 75), np.float32)}, r"must be float \(N, T, 150\), found <f4 \(3, 5, 75\)"),
        ({"x_train": np.ones((3, 5, 150), np.int64)}, "must be float"),
        ({"x_train": np.ones((4, 5, 150), np.float32)}, "4 clips in x_train, but 3 labels"),
        ({"y_train": np.eye(3) + np.eye(3)[::-1]}, "row 0 of y_train is not one-hot"),
        ({"y_train": np.array([0.5, 1, 2])}, "must hold class numbers"),
        ({"y_train": np.array(["a", "b", "c"])}, "must hold plain numbers"),
        ({"y_train": np.eye(3)[None]}, "must be one-hot"),
        ({"y_test": np.array([0, 3])}, "class number 3 .* 3 classes; expected 0 to 2"),  # y_train is one-hot of 3
        ({"x_train": np.full((3, 5, 150), np.inf, np.float32)}, "not a finite number"),
    ],
)
def test_ctrgcn_files_that_contradict_themselves(tmp_path, change, sentence):
    save(tmp_path / "own_CS.npz", **change)
    words = (tmp_path / "own_CS.npz", "--name", "own", "--data-root", tmp_path, *QUICK)
    if sentence is None:
        run(from_ctrgcn, *words)
        assert open_split(tmp_path / "own" / "xsub", "val", 25, 2, 3).labels.tolist() == [0, 2]
        return
    with pytest.raises(UserError, match=sentence):
        run(from_ctrgcn, *words)
    assert not (tmp_path / "own" / "xsub").exists()


def test_ctrgcn_objects_are_never_unpickled(tmp_path):
    save(tmp_path / "own_CS.npz", y_train=np.array([{}, 1, 2], dtype=object))
    with pytest.raises(UserError, match="must hold plain numbers"):
        run(from_ctrgcn, tmp_path / "own_CS.npz", "--name", "own", "--data-root", tmp_path)


def test_ctrgcn_which_protocol(tmp_path):
    names = {"NTU60_CS": "cross_subject", "NTU60_CV": "cross_view", "NTU120_CSub": "cross_subject"}
    for name, protocol in (names | {"NTU120_CSet": "cross_setup"}).items():
        assert guess_protocol(f"folder/{name}.npz") == protocol
    with pytest.raises(UserError, match="does not say which protocol"):
        run(from_ctrgcn, "clips.npz", "--name", "ntu60")
    with pytest.raises(UserError, match="ntu60 has no protocol 'cross_setup'"):
        run(from_ctrgcn, "NTU60_CSet.npz", "--name", "ntu60", "--data-root", tmp_path)
    with pytest.raises(UserError, match="2 files, but --protocol names 1"):
        run(from_ctrgcn, "a.npz", "b.npz", "--name", "ntu60", "--protocol", "cross_view")
    with pytest.raises(UserError, match="two files for protocol cross_view"):
        run(from_ctrgcn, "a_CV.npz", "b_CV.npz", "--name", "ntu60")
    with pytest.raises(UserError, match="there is no such .npz file"):
        run(from_ctrgcn, tmp_path / "NTU60_CS.npz", "--name", "ntu60", "--data-root", tmp_path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), compressed=st.booleans())
def test_a_damaged_npz_is_refused_or_read_right(tmp_path, data, compressed):
    """Any byte changed, any cut: a clear error, or exactly what was written; never another exception."""
    path = tmp_path / "x.npz"
    (np.savez_compressed if compressed else np.savez)(path, x_train=np.arange(600, dtype=np.float32).reshape(2, 2, 150))
    content = bytearray(path.read_bytes())
    cut = data.draw(st.integers(0, len(content)))
    if data.draw(st.booleans()):
        content = content[:cut]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            # mostly where the headers are: the beginning and the end
            place = data.draw(st.integers(0, 200) | st.integers(len(content) - 120, len(content) - 1))
            content[min(place, len(content) - 1)] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        with ArrayArchive(path) as archive:
            array = np.array(list(archive.rows("x_train")))
    except UserError:
        return
    assert np.array_equal(array, np.arange(600, dtype=np.float32).reshape(2, 2, 150))


# --- own arrays ---


def own_clips(folder, layout="sbu_15", clips=6, list_name="clips.csv"):
    """A folder of clips (T, V, 3) and (2, T, V, 3), and the list of them."""
    folder.mkdir()
    V = get_layout(layout).joints
    rng = np.random.default_rng(0)
    arrays = {}
    for k in range(clips):
        shape = (2, 8 + k, V, 3) if k == 1 else (8 + k, V, 3)
        arrays[f"clip{k}"] = rng.normal(size=shape)
    rows = [(name, ("walk", "fall")[k % 2], "train" if k < 3 else "val", "") for k, name in enumerate(arrays)]
    rows = [row[:3] + (("train", "test", "")[k % 3],) for k, row in enumerate(rows)]
    if list_name.endswith("csv"):
        lines = ["name,label,split,by_room"] + [",".join(row) for row in rows]
        (folder / list_name).write_text("\n".join(lines) + "\n")
    else:
        keys = ("name", "label", "split", "by_room")
        entries = [{k: v or None for k, v in zip(keys, row, strict=True)} for row in rows]
        (folder / list_name).write_text(json.dumps(entries))
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return arrays


@pytest.mark.parametrize("list_name", ["clips.csv", "clips.json"])
def test_own_arrays(tmp_path, list_name):
    arrays = own_clips(tmp_path / "clips", list_name=list_name)
    words = (tmp_path / "clips", "--name", "mine", "--layout", "sbu_15", "--data-root", tmp_path, "--normalise", "none")
    run(from_arrays, *words, *QUICK)
    row = row_of(tmp_path / "mine")
    assert row.classes == ("fall", "walk") and (row.layout, row.persons) == ("sbu_15", 2)
    assert row.protocols == {"cross_subject": ("xsub",), "by_room": ("by_room",)}
    split = open_split(tmp_path / "mine" / "xsub", "train", 15, 2, 2)
    assert split.names == ["clip0", "clip1", "clip2"] and split.labels.tolist() == [1, 0, 1]
    assert np.array_equal(split.data[0][:, :8, :, 0], arrays["clip0"].transpose(2, 0, 1).astype(np.float32))
    assert np.array_equal(split.data[1][:, :9], arrays["clip1"].transpose(3, 1, 2, 0).astype(np.float32))
    other = open_split(tmp_path / "mine" / "by_room", "val", 15, 2, 2)
    assert other.names == ["clip1", "clip4"]  # clips 2 and 5 belong to neither


def test_own_arrays_in_an_npz_and_another_order_of_axes(tmp_path):
    arrays = own_clips(tmp_path / "clips", clips=4)
    arrays["clip1"] = arrays["clip1"][0]
    np.savez_compressed(tmp_path / "clips.npz", **{name: a.transpose(2, 0, 1) for name, a in arrays.items()})
    (tmp_path / "clips.csv").write_text(
        (tmp_path / "clips" / "clips.csv").read_text().replace(",by_room", ",cross_view")
    )
    flags = ("--name", "mine", "--layout", "sbu_15", "--axes", "ctv", "--data-root", tmp_path, "--normalise", "none")
    with pytest.raises(UserError, match="split has no clip"):
        (tmp_path / "few.csv").write_text("name,label,split\nclip0,0,train\n")
        run(from_arrays, tmp_path / "clips.npz", "--list", tmp_path / "few.csv", *flags, *QUICK)
    run(from_arrays, tmp_path / "clips.npz", *flags, *QUICK)
    split = open_split(tmp_path / "mine" / "xview", "val", 15, 1, 2)
    assert np.array_equal(split.data[0][:, :9, :, 0], arrays["clip1"].transpose(2, 0, 1).astype(np.float32))
    with zipfile.ZipFile(tmp_path / "clips.npz") as file:
        assert file.testzip() is None


def test_own_arrays_by_two_processes_are_the_same_bytes(tmp_path):
    own_clips(tmp_path / "clips")
    for workers in (1, 2):
        flags = ("--name", f"by{workers}", "--layout", "sbu_15", "--frames", 40, "--workers", workers)
        run(from_arrays, tmp_path / "clips", *flags, "--data-root", tmp_path)
    for file in ("train_data_joint.npy", "val_num_frame.npy", "train_label.pkl"):
        assert (tmp_path / "by1" / "xsub" / file).read_bytes() == (tmp_path / "by2" / "xsub" / file).read_bytes()


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "lists no clip"),
        ("name,label\nclip0,0\n", "one column for each protocol"),
        ("name,label,split,cross_subject\nclip0,0,train,train\n", "one column for each protocol"),
        ("name,label,split,split\nclip0,0,train,train\n", "a column appears twice"),
        ("label,split\n0,train\n", "line 2: no name"),
        ("name,label,split\nclip0,,train\n", "line 2: no label"),
        ("name,label,split\nclip0,0\n", "line 2: 2 values for 3 columns"),
        ("name,label,split\nclip0,0,train\n\nclip0.npy,0,val\n", "line 4: clip clip0 is listed twice"),
        ("name,label,split\nclip0,0,learn\n", "line 2: split is 'learn'; expected train, val or nothing"),
        ("name,label,split\n../clip0,0,train\n", "line 2: '../clip0' cannot be a clip's name"),
        ("name,label,split\n/etc/clip0,0,train\n", "cannot be a clip's name"),
        ("name,label,../x\nclip0,0,train\nclip1,0,val\n", "'../x' cannot name a folder"),
        ("name,label,split\nclip0,0,train\nnowhere,0,val\n", "nowhere.npy: there is no such file"),
        ("name,label,split\nclip0,0,train\n\xff", "2: 1 values for 3|not UTF-8|line 3"),
    ],
)
def test_own_lists_with_mistakes(tmp_path, text, sentence):
    own_clips(tmp_path / "clips", clips=2)
    (tmp_path / "clips" / "clips.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        run(from_arrays, tmp_path / "clips", "--name", "mine", "--layout", "sbu_15", "--data-root", tmp_path, *QUICK)
    assert not (tmp_path / "mine" / "dataset.json").exists()


@pytest.mark.parametrize(
    "array, sentence",
    [
        (np.zeros((8, 15, 2)), "2 coordinates a joint .* 2-D keypoints"),
        (np.zeros((3, 8, 15)), "15 coordinates a joint .* --axes"),
        (np.zeros((8, 45)), r"expected TVC or MTVC, found \(8, 45\)"),
        (np.zeros((8, 25, 3)), "for joint layout sbu_15"),
        (np.full((8, 15, 3), np.nan), "not a finite number"),
        (np.array([None, 1]), "not a readable .npy array"),
        (np.array(["a"]), "expected numbers"),
    ],
)
def test_own_clips_that_cannot_be_used(tmp_path, array, sentence):
    own_clips(tmp_path / "clips")
    np.save(tmp_path / "clips" / "clip2.npy", array)
    words = (tmp_path / "clips", "--name", "mine", "--layout", "sbu_15", "--data-root", tmp_path, *QUICK)
    with pytest.raises(UserError, match=sentence):
        run(from_arrays, *words)
    run(from_arrays, *words, "--on-bad", "skip")
    assert open_split(tmp_path / "mine" / "xsub", "train", 15, 2, 2).names == ["clip0", "clip1"]


def test_own_calls_with_mistakes(tmp_path):
    own_clips(tmp_path / "clips")
    words = (tmp_path / "clips", "--data-root", tmp_path, "--layout", "sbu_15", *QUICK)
    with pytest.raises(UserError, match="is a known data set"):
        run(from_arrays, *words, "--name", "ntu60")
    with pytest.raises(UserError, match="cannot name a folder"):
        run(from_arrays, *words, "--name", "../up")
    with pytest.raises(UserError, match="at most 1 persons"):
        run(from_arrays, *words, "--name", "mine", "--persons", 1)
    (tmp_path / "classes.txt").write_text("walk\nsit\n")
    with refuses("'fall'", "walk, sit"):
        run(from_arrays, *words, "--name", "mine", "--classes", tmp_path / "classes.txt")
    (tmp_path / "classes.txt").write_text("walk\nwalk\n")
    with pytest.raises(UserError, match="'walk' appears twice"):
        run(from_arrays, *words, "--name", "mine", "--classes", tmp_path / "classes.txt")
    (tmp_path / "clips" / "clips.csv").unlink()
    with pytest.raises(UserError, match="no list of its clips"):
        run(from_arrays, *words, "--name", "mine")
    (tmp_path / "clips" / "wave").mkdir()
    np.save(tmp_path / "clips" / "wave" / "a.npy", np.zeros((9, 25, 3)))
    with refuses("python -m data_gen.from_poses"):
        run(from_arrays, *words, "--name", "mine")
    for flag, value in (
        ("--frames", "0"),
        ("--workers", "0"),
        ("--persons", "0"),
        ("--max-unpacked", "0"),
        ("--axes", "TVX"),
    ):
        ran = call(from_arrays.main, f"{tmp_path}/clips --name mine --data-root {tmp_path} {flag} {value}")
        refused(ran, flag, "got", value)
