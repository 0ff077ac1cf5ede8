"""From a folder of poses to a data set: labels, splits, dirt and bad files, each with the value that must come out."""

import json
import os
import pickle

import numpy as np
import pose_files as pf
import pytest
from programs import call, refused

import action_retrieval
import pretrain_moco_mask
from data_gen import check, from_arrays, from_poses, from_pyskl
from data_gen.normalise import normalise
from data_gen.poses import arrays
from data_gen.poses.mend import Mending
from data_gen.poses.record import Bad
from data_gen.poses.survey import PoseOptions, survey
from options.datasets import from_description
from tools import extract_features
from utils.arrays import SIDECAR, open_split
from utils.skeleton import KINECT_V2, get_layout

pytestmark = pytest.mark.usefixtures("no_progress_bar")

CLIPS = pf.real_clips(classes=2, each=4, frames=24)
NAME = next(iter(CLIPS))
CLIP = CLIPS[NAME][1]  # (24, 25, 3)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def write_folder(folder, clips=None):
    """A folder a class of .npy clips."""
    for name, (label, clip) in (clips or CLIPS).items():
        save(folder / label / f"{name}.npy", clip)
    return folder


def prepare(source, tmp_path, more="", name="mine"):
    words = f"{source} --name {name} --data-root {tmp_path}/data --frames 40 --workers 1 {more}"
    return call(from_poses.main, words)


def row_of(tmp_path, name="mine"):
    return from_description(name, json.loads((tmp_path / "data" / name / "dataset.json").read_text()))


def split_of(tmp_path, part, name="mine", folder="xsub"):
    row = row_of(tmp_path, name)
    joints = get_layout(row.layout).joints
    return open_split(tmp_path / "data" / name / folder, part, joints, row.persons, row.num_classes)


def report_of(tmp_path, name="mine"):
    return json.loads((tmp_path / "data" / name / "poses.json").read_text())


# --- a data set ----------------------------------------------------------------------------------------------------


def test_a_folder_a_class_becomes_a_data_set(tmp_path):
    """Names, classes, frames and arrays are those that a preparation of the clips gives; nothing is left behind."""
    ran = prepare(write_folder(tmp_path / "in"), tmp_path)
    assert ran.status == 0, ran.err
    for words in ("format: NumPy array", "layout: kinect_v2_25, 3-D", "units: metres", "labels: the names of the 2 folders",
                  "30 % of each class", "nothing had to be mended"):  # fmt: skip
        assert words in ran.out
    row = row_of(tmp_path)
    assert row.classes == ("m01", "m02") and row.persons == 1 and row.layout == "kinect_v2_25"
    seen = {}
    for part, number in (("train", 6), ("val", 2)):
        split = split_of(tmp_path, part)
        assert len(split) == number and sorted(set(split.labels)) == [0, 1]
        for i, name in enumerate(split.names):
            label, clip = CLIPS[name]
            assert row.classes[split.labels[i]] == label and split.num_frame[i] == len(clip)
            raw = np.zeros((3, 40, 25, 1), np.float32)
            raw[:, : len(clip), :, 0] = clip.transpose(2, 0, 1)
            np.testing.assert_allclose(split.data[i], normalise(raw, KINECT_V2), atol=1e-5)
            seen[name] = part
    assert seen.keys() == CLIPS.keys()
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == ["mine"]
    sidecar = json.loads((tmp_path / "data" / "mine" / "xsub" / SIDECAR).read_text())
    assert any("kinect_v2_25" in line for line in sidecar["found"])


def test_pixels_become_a_data_set_of_two_dimensions(tmp_path):
    for name, (label, clip) in CLIPS.items():
        pf.write_openpose(tmp_path / "in" / label / name, name, pf.pixels(pf.in_layout(clip, "openpose_25")))
    ran = prepare(tmp_path / "in", tmp_path)
    assert ran.status == 0, ran.err
    row, split = row_of(tmp_path), split_of(tmp_path, "train")
    assert row.dimensions == 2 and row.layout == "openpose_25" and row.classes == ("m01", "m02")
    trunk = np.linalg.norm(split.data[:, :, :24, 8] - split.data[:, :, :24, 1], axis=1)
    np.testing.assert_allclose(np.median(trunk, axis=(1, 2)), 1, atol=0.05)  # lengths are in trunks
    assert not split.data[:, 2].any()


def test_any_number_of_processes_writes_the_same_bytes(tmp_path):
    clips = {f"{name}_{i}": CLIPS[name] for name in CLIPS for i in range(5)}  # more than a process takes at a time
    write_folder(tmp_path / "in", clips)
    for workers in (1, 2):
        ran = prepare(tmp_path / "in", tmp_path, f"--workers {workers}", f"by{workers}")
        assert ran.status == 0, ran.err
    for file in ("train_data_joint.npy", "val_num_frame.npy", "train_label.pkl"):
        one, two = ((tmp_path / "data" / f"by{w}" / "xsub" / file).read_bytes() for w in (1, 2))
        assert one == two


def test_clean_clips_give_what_the_older_readers_give(tmp_path):
    """Nothing is mended in clean metres: arrays, names and splits are those of from_pyskl and of from_arrays, bit for bit."""
    pf.write_pickle(tmp_path / "in.pkl", {name: (int(label[1:]) - 1, clip) for name, (label, clip) in CLIPS.items()})
    folder = tmp_path / "arrays"
    folder.mkdir()
    rows = ["name,label,split"]
    for i, (name, (label, clip)) in enumerate(CLIPS.items()):
        np.save(folder / f"{name}.npy", clip.astype(np.float32))
        rows.append(f"{name},{int(label[1:]) - 1},{'val' if i % 2 else 'train'}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    for name, reader, source in (("old_p", from_pyskl, "in.pkl"), ("old_a", from_arrays, "arrays")):
        words = f"{tmp_path}/{source} --name {name} --data-root {tmp_path}/data --frames 40 --workers 1"
        assert call(reader.main, words).status == 0
        assert prepare(tmp_path / source, tmp_path, name=name.replace("old", "new")).status == 0
    for kind, protocol in (("p", "default"), ("a", "xsub")):
        for part in ("train", "val"):
            old, new = (tmp_path / "data" / f"{age}_{kind}" / protocol for age in ("old", "new"))
            for file in ("data_joint.npy", "label.pkl", "num_frame.npy"):
                assert (old / f"{part}_{file}").read_bytes() == (new / f"{part}_{file}").read_bytes(), (
                    kind,
                    part,
                    file,
                )


# --- labels and splits ---------------------------------------------------------------------------------------------


def test_labels_of_names_and_subjects_apart(tmp_path):
    for name, (_, clip) in CLIPS.items():
        save(tmp_path / "in" / f"{name}.npy", clip)
    ran = prepare(tmp_path / "in", tmp_path, r"--label-from-name '(m\d+)_' --by subject --val-share 0.25 --seed 3")
    assert ran.status == 0, ran.err
    assert "by subject (from the names); 1 of" in ran.out and row_of(tmp_path).classes == ("m01", "m02")
    train, val = (set(n.split("_")[1] for n in split_of(tmp_path, part).names) for part in ("train", "val"))
    assert train and val and not train & val
    subject = sorted(val)[0].removeprefix("s")
    pattern = r"--label-from-name '(m\d+)_' --subject-from-name '_s(\d+)'"
    ran = prepare(tmp_path / "in", tmp_path, f"{pattern} --val-subjects {subject}", "again")
    assert ran.status == 0 and split_of(tmp_path, "val", "again").names == split_of(tmp_path, "val").names
    refused(prepare(tmp_path / "in", tmp_path, f"{pattern} --val-subjects 77"), "no such subject", "77")
    refused(prepare(tmp_path / "in", tmp_path, r"--label-from-name '(x\d+)'"), "does not match", NAME)


@pytest.mark.parametrize("first, flag, classes", [(1, "", ("class 1", "class 2")), (0, "", ("class 0", "class 1")),
                                                  (1, "--labels-from 0", ("class 0", "class 1", "class 2"))])  # fmt: skip
def test_numbers_from_one_are_said_and_made_from_zero(tmp_path, first, flag, classes):
    pf.write_pickle(tmp_path / "in.pkl", {n: (int(k[1:]) - 1 + first, c) for n, (k, c) in CLIPS.items()}, bare=True)
    ran = prepare(tmp_path / "in.pkl", tmp_path, flag)
    assert ran.status == 0, ran.err
    assert row_of(tmp_path).classes == classes
    split = split_of(tmp_path, "train")
    base = int(flag != "")
    assert split.labels.tolist() == [int(CLIPS[n][0][1:]) - 1 + base for n in split.names]
    assert ("--labels-from 0" in ran.err) == (first == 1 and not flag)
    assert ("no training clip of class 0" in ran.err) == bool(flag)


def test_a_list_with_splits_and_clips_that_it_leaves_out(tmp_path):
    write_folder(tmp_path / "in")
    names = list(CLIPS)
    rows = [
        f"{CLIPS[n][0]}/{n}.npy,{'walk' if i % 2 else 'run'},{'val' if i > 4 else 'train'}"
        for i, n in enumerate(names[:7])
    ]
    (tmp_path / "in" / "clips.csv").write_text("\n".join(["name,label,split", *rows]) + "\n")
    ran = prepare(tmp_path / "in", tmp_path)
    assert ran.status == 0 and "columns split of the list" in ran.out, ran.out + ran.err
    assert f"1 clips are not in clips.csv and left out; the first: {names[7]}" in ran.out
    assert row_of(tmp_path).classes == ("run", "walk")
    assert split_of(tmp_path, "val").names == sorted(names[5:7])
    assert split_of(tmp_path, "train").labels.tolist() == [names.index(n) % 2 for n in sorted(names[:5])]
    (tmp_path / "in" / "clips.csv").write_text("name,label\nnobody,run\n")
    refused(prepare(tmp_path / "in", tmp_path, name="other"), "names none of the clips", "nobody")


def test_columns_say_class_clip_and_split(tmp_path):
    """One table with many clips: a column names the clip of a row, others its class, split and time."""
    lines, header = [], None
    for i, (name, (label, clip)) in enumerate(CLIPS.items()):
        values = pf.with_score(pf.camera(pf.in_layout(clip, "mediapipe_33")))
        extra = {"time": [f"{t / 20:.3f}" for t in range(24)], "split": ["val" if i % 4 == 0 else "train"] * 24}
        extra |= {"class": [label] * 24, "video": [f"{name}.mp4"] * 24}
        pf.write_table(tmp_path / "one.csv", values, pf.columns_of("mediapipe_33", "named"), extra=extra)
        header, *rows = (tmp_path / "one.csv").read_text().splitlines()
        lines += rows
    (tmp_path / "in.csv").write_text("\n".join([header, *lines]) + "\n")
    ran = prepare(tmp_path / "in.csv", tmp_path)
    assert ran.status == 0, ran.err
    assert (
        "frames a second: 20" in ran.out and "labels: from the files" in ran.out and "split: from the files" in ran.out
    )
    assert sorted(split_of(tmp_path, "val").names) == sorted(list(CLIPS)[::4])
    assert row_of(tmp_path).classes == ("m01", "m02")


def test_a_table_of_several_classes_is_cut_where_the_class_changes(tmp_path):
    """Without a column of clips, rows of one class after another are clips; which is said."""
    two = list(CLIPS.items())[:2]
    lines = []
    for _ in range(2):  # class a, b, a, b
        for (_, (_, clip)), label in zip(two, "ab", strict=True):
            values = pf.with_score(pf.camera(pf.in_layout(clip, "mediapipe_33")))
            columns = [f"{a}{v}" for v in range(1, 34) for a in ("x", "y", "z", "v")]
            pf.write_table(tmp_path / "one.csv", values, columns, extra={"class": [label] * 24})
            header, *rows = (tmp_path / "one.csv").read_text().splitlines()
            lines += rows
    (tmp_path / "in.csv").write_text("\n".join([header, *lines]) + "\n")
    ran = prepare(tmp_path / "in.csv", tmp_path, "--val-share 0")
    assert ran.status == 0 and "tables cut where the class changes" in ran.out, ran.err
    split = split_of(tmp_path, "train")
    assert split.names == ["0000 a", "0001 b", "0002 a", "0003 b"] and split.labels.tolist() == [0, 1, 0, 1]
    assert split.num_frame.tolist() == [24] * 4


def test_folders_train_and_val(tmp_path):
    for i, (name, (label, clip)) in enumerate(CLIPS.items()):
        save(tmp_path / "in" / ("test" if i % 2 else "train") / label / f"{name}.npy", clip)
    ran = prepare(tmp_path / "in", tmp_path)
    assert ran.status == 0 and "the folders train and val" in ran.out, ran.err
    assert row_of(tmp_path).classes == ("m01", "m02") and split_of(tmp_path, "val").names == sorted(list(CLIPS)[1::2])


def test_a_class_without_training_clips_is_named(tmp_path):
    write_folder(tmp_path / "in")
    (tmp_path / "val.txt").write_text("\n".join(n for n, (label, _) in CLIPS.items() if label == "m02"))
    ran = prepare(tmp_path / "in", tmp_path, f"--val-list {tmp_path}/val.txt")
    assert ran.status == 0 and "no training clip of class 1 (m02)" in ran.err
    assert report_of(tmp_path)["notes"] == ["cross_subject: class 'm02' has no training clip"]


def test_ntu_clips_by_their_names(tmp_path):
    names = [f"S001C00{c}P00{p}R001A00{a}" for c in (1, 2) for p in (1, 2) for a in (3, 8)]
    for name, (_, clip) in zip(names, CLIPS.values(), strict=True):
        pf.write_ntu_dictionary(tmp_path / "in" / f"{name}.skeleton.npy", clip)
    ran = prepare(tmp_path / "in", tmp_path, "--by subject --val-subjects 2")
    assert ran.status == 0 and "NTU's names" in ran.out, ran.err
    assert split_of(tmp_path, "val").names == sorted(n for n in names if "P002" in n)
    assert set(split_of(tmp_path, "train").labels) == {2, 7}


def test_without_labels_it_is_a_data_set_for_pretraining(tmp_path):
    """One class, no test clips: it can be checked, pretrained on and turned into features; evaluations refuse it in words."""
    for name, (_, clip) in CLIPS.items():
        save(tmp_path / "in" / f"{name}.npy", clip)
    ran = prepare(tmp_path / "in", tmp_path)
    assert ran.status == 0, ran.err
    assert "labels: none" in ran.out and row_of(tmp_path).classes == ("unlabelled",)
    assert split_of(tmp_path, "train").names == sorted(CLIPS)
    ran = call(check.main, f"{tmp_path}/data/mine")
    assert ran.status == 0 and "no val split" in ran.out, ran.out
    sizes = "--contrast-k 8 --topk 4 --batch-size 4 --hidden-size 16 --num-layers 1 --decoder-hidden-size 16 --epochs 1"
    place = f"--data-root {tmp_path}/data --device cpu"
    words = f"--pre-dataset mine {place} {sizes} --recipe paper --precision fp32 --checkpoint-path {tmp_path}/run"
    ran = call(pretrain_moco_mask.main, words)
    assert ran.status == 0, ran.err
    checkpoint = f"--pretrained {tmp_path}/run/checkpoint_last.pth.tar"
    ran = call(extract_features.main, f"{checkpoint} --dataset mine {place} --split train --output {tmp_path}/out")
    assert ran.status == 0 and np.load(tmp_path / "out" / "features.npy").shape == (8, 32), ran.err
    refused(
        call(action_retrieval.main, f"{checkpoint} --finetune-dataset mine {place}"), "no test clips", "--split train"
    )


# --- dirt ----------------------------------------------------------------------------------------------------------


def mended(tmp_path, array=None, source=None, mending=None, **options):
    """(array (M, T, V, 3), counts) of one clip; its companions in the folder are clean."""
    if array is not None:
        write_folder(tmp_path / "in")
        save(tmp_path / "in" / CLIPS[NAME][0] / f"{NAME}.npy", array)
        source = tmp_path / "in"
    found = survey(source, PoseOptions(**options), mending)
    clips = [c for entry in found.entries for c in found.reader(entry)]
    assert not [c for c in clips if isinstance(c, Bad)], clips
    clip = next(c for c in clips if c.name.endswith(NAME))
    return clip.array, clip.mended


def line(clip, first, last, t):
    """Between frames `first` and `last`, linear."""
    share = (t - first) / (last - first)
    return clip[first] + share * (clip[last] - clip[first])


@pytest.mark.parametrize("empty", [np.nan, 0.0])
def test_dirt_1_and_2_frames_without_a_person(tmp_path, empty):
    """NaN or zeros: a gap of five frames is filled linearly, empty ends are cut off."""
    dirty = CLIP.copy()
    dirty[8:13] = empty
    dirty[:3] = empty
    dirty[22:] = empty
    got, counts = mended(tmp_path, dirty)
    assert got.shape == (1, 19, 25, 3)
    want = CLIP[3:22].copy()
    for t in range(8, 13):
        want[t - 3] = line(CLIP, 7, 13, t)
    np.testing.assert_allclose(got[0], want, atol=1e-6)
    assert counts["frames without a person at an end"] == 5 and counts["frames without a person, filled"] == 5


def test_dirt_3_a_gap_too_long_cuts_the_clip(tmp_path):
    dirty = CLIP.copy()
    dirty[14:19] = np.nan
    got, counts = mended(tmp_path, dirty, mending=Mending(max_gap=4))
    np.testing.assert_allclose(got[0], CLIP[:14], atol=1e-6)  # the longest piece
    assert counts == {"gaps too long to fill (clips cut there)": 1, "frames cut off at such gaps": 10,
                      "joints that are not finite": 5 * 25} or counts["frames cut off at such gaps"] == 10  # fmt: skip


def test_dirt_4_single_joints_are_filled_and_held_at_the_ends(tmp_path):
    dirty = CLIP.copy()
    dirty[10:12, 7] = np.nan
    dirty[:2, 15] = np.nan
    got, counts = mended(tmp_path, dirty)
    want = CLIP.copy()
    want[10:12, 7] = [line(CLIP[:, 7], 9, 12, t) for t in (10, 11)]
    want[:2, 15] = CLIP[2, 15]
    np.testing.assert_allclose(got[0], want, atol=1e-6)
    assert counts["joints filled"] == 4


def test_dirt_5_a_joint_hidden_for_long_stays_not_seen(tmp_path):
    dirty = CLIP.copy()
    dirty[5:20, 7] = 0
    got, counts = mended(tmp_path, dirty)
    want = CLIP.copy()
    want[5:20, 7] = 0
    np.testing.assert_allclose(got[0], want, atol=1e-6)
    assert counts == {"joints at zero": 15, "joints not seen for too long (left at zero)": 15}


def test_dirt_6_low_scores(tmp_path):
    """Joints below --min-score are filled; without the flag they stay as they are."""
    flat = pf.pixels(pf.in_layout(CLIP, "coco_17"))
    scored = pf.with_score(flat)
    scored[9:11, 10] = [5000, 5000, 0.1]
    save(tmp_path / "in" / f"{NAME}.npy", scored)
    got, counts = mended(tmp_path, source=tmp_path / "in", mending=Mending(min_score=0.3))
    want = flat * [1, -1]
    want[9:11, 10] = [line(want[:, 10], 8, 11, t) for t in (9, 10)]
    np.testing.assert_allclose(got[0, ..., :2], want, atol=1e-3)
    assert counts == {"joints with a low score": 2, "joints filled": 2}
    got, counts = mended(tmp_path, source=tmp_path / "in")
    np.testing.assert_allclose(got[0, 9:11, 10, :2], [[5000, -5000]] * 2)
    assert not counts


def test_dirt_7_persons_that_change_order(tmp_path):
    """Two people whose order in the file changes come out as two people who stay."""
    here, there = (pf.pixels(pf.in_layout(c, "openpose_25")) for c in (CLIP, CLIP + [1.2, 0, 0]))
    swapped = {3, 4, 9, 15, 16, 17}
    people = [[there[t], here[t]] if t in swapped else [here[t], there[t]] for t in range(24)]
    pf.write_openpose(tmp_path / "in" / NAME, NAME, people)
    got, counts = mended(tmp_path, source=tmp_path / "in")
    assert len(got) == 2
    np.testing.assert_allclose(got[0, ..., :2], here * [1, -1], atol=0.01)
    np.testing.assert_allclose(got[1, ..., :2], there * [1, -1], atol=0.01)
    assert counts == {"times a person changed place": 12}


def test_dirt_8_passers_by_and_more_persons_than_wanted(tmp_path):
    """Who is there most stays; --persons is the most that are kept."""
    moved = [pf.pixels(pf.in_layout(CLIP + [1.0 * k, 0, 0], "openpose_25")) for k in (0, 1, -1)]
    people = [[moved[2][t]] * (t < 3) + [moved[0][t]] + [moved[1][t]] * (t > 5) for t in range(24)]
    pf.write_openpose(tmp_path / "in" / NAME, NAME, people)
    got, counts = mended(tmp_path, source=tmp_path / "in", mending=Mending(persons=1))
    assert len(got) == 1 and counts["persons left out"] == 2
    np.testing.assert_allclose(got[0, ..., :2], moved[0] * [1, -1], atol=0.01)
    got, counts = mended(tmp_path, source=tmp_path / "in")
    assert len(got) == 2 and counts["persons left out"] == 1
    np.testing.assert_allclose(got[1, 6:, :, :2], moved[1][6:] * [1, -1], atol=0.01)
    assert not got[1, :6].any()  # not there yet


def test_dirt_9_another_rate_of_frames(tmp_path):
    pf.write_azure(tmp_path / "in" / f"{NAME}.json", pf.in_layout(CLIP, "azure_kinect_32"), fps=15)
    got, counts = mended(tmp_path, source=tmp_path / "in", mending=Mending(fps=30))
    want = pf.in_layout(CLIP, "azure_kinect_32")
    assert got.shape[1] == 47 and counts == {"clips set to another rate of frames": 1}
    np.testing.assert_allclose(got[0, ::2], want, atol=1e-3)
    np.testing.assert_allclose(got[0, 1::2], (want[1:] + want[:-1]) / 2, atol=1e-3)
    save(tmp_path / "plain" / f"{NAME}.npy", CLIP)
    got, _ = mended(tmp_path, source=tmp_path / "plain", mending=Mending(fps=12, source_fps=24))
    np.testing.assert_allclose(got[0], CLIP[::2], atol=1e-6)
    refused(prepare(tmp_path / "plain", tmp_path, "--fps 30"), "--source-fps 25")


def test_dirt_10_and_11_millimetres_and_y_down(tmp_path):
    got, _ = mended(tmp_path, source=write_folder(tmp_path / "mm", {n: (k, 1000 * c) for n, (k, c) in CLIPS.items()}))
    np.testing.assert_allclose(got[0], CLIP, atol=1e-5)
    got, _ = mended(
        tmp_path, source=write_folder(tmp_path / "down", {n: (k, pf.camera(c)) for n, (k, c) in CLIPS.items()})
    )
    np.testing.assert_allclose(got[0], CLIP, atol=1e-6)


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xff\xfe"])
def test_dirt_12_byte_order_marks(tmp_path, mark):
    path = tmp_path / "in" / f"{NAME}.csv"
    pf.write_table(
        path, pf.in_layout(CLIP, "smpl_22"), [f"{n}_{a}" for n in get_layout("smpl_22").names for a in "xyz"]
    )
    text = path.read_text()
    path.write_bytes(mark + text.encode("utf-8" if len(mark) == 3 else "utf-16-le"))
    got, counts = mended(tmp_path, source=tmp_path / "in")
    np.testing.assert_allclose(got[0], pf.in_layout(CLIP, "smpl_22"), atol=1e-5)
    assert counts == ({"byte-order mark": 1} if len(mark) == 3 else {"UTF-16 text": 1})


def test_dirt_13_decimal_commas(tmp_path):
    columns = pf.columns_of("mediapipe_33", "named")
    points = pf.with_score(pf.camera(pf.in_layout(CLIP, "mediapipe_33")))
    pf.write_table(tmp_path / "in" / f"{NAME}.csv", points, columns, delimiter=";", commas=True)
    got, counts = mended(tmp_path, source=tmp_path / "in")
    np.testing.assert_allclose(got[0], pf.in_layout(CLIP, "mediapipe_33"), atol=1e-5)
    assert counts == {"decimal commas": 1}


def test_dirt_14_a_last_line_that_is_cut_off(tmp_path):
    path = tmp_path / "in" / f"{NAME}.csv"
    pf.write_table(path, CLIP, None)
    path.write_text(path.read_text()[:-200])
    got, counts = mended(tmp_path, source=tmp_path / "in")
    np.testing.assert_allclose(got[0], CLIP[:23], atol=1e-5)
    assert counts == {"last line cut off": 1}
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:5], lines[5][:50], *lines[6:]]))
    refused(prepare(tmp_path / "in", tmp_path), f"{NAME}.csv, line 6", "columns, expected 75")
    frames = [json.dumps({"keypoints": f.tolist()}) for f in pf.camera(pf.in_layout(CLIP, "mediapipe_33"))]
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines" / f"{NAME}.jsonl").write_text("\n".join(frames)[:-50])
    got, counts = mended(tmp_path, source=tmp_path / "lines")
    assert got.shape[1] == 23 and counts == {"last line cut off": 1}


def test_dirt_15_files_of_zero_bytes(tmp_path):
    folder = write_folder(tmp_path / "in")
    (folder / "m01" / "empty.npy").write_bytes(b"")
    refused(prepare(folder, tmp_path), "1 of 9 clips cannot be used", "--on-bad skip")
    ran = prepare(folder, tmp_path, "--on-bad skip")
    assert ran.status == 0 and "empty.npy: the file is empty (0 bytes)" in ran.out, ran.err
    assert len(split_of(tmp_path, "train")) == 6
    pf.write_openpose(tmp_path / "op" / NAME, NAME, pf.pixels(pf.in_layout(CLIP, "openpose_25")))
    frame = sorted((tmp_path / "op" / NAME).iterdir())[7]
    frame.write_bytes(b"")
    refused(prepare(tmp_path / "op", tmp_path, name="b"), "cannot be used")
    ran = prepare(tmp_path / "op", tmp_path, "--on-bad skip", "c")
    assert ran.status == 0, ran.err
    assert report_of(tmp_path, "c")["clips"][NAME] == {"damaged frame files": 1, "frames without a person, filled": 1}


def test_dirt_16_frames_that_the_files_leave_out(tmp_path):
    """AlphaPose writes nothing for a frame without a person: the gap is one of frames, not a shorter clip."""
    flat = pf.pixels(pf.in_layout(CLIP, "halpe_26"))
    pf.write_alphapose(tmp_path / "in" / f"{NAME}.json", flat)
    entries = json.loads((tmp_path / "in" / f"{NAME}.json").read_text())
    (tmp_path / "in" / f"{NAME}.json").write_text(json.dumps(entries[:10] + entries[13:]))
    got, counts = mended(tmp_path, source=tmp_path / "in")
    want = flat * [1, -1]
    want[10:13] = [line(want, 9, 13, t) for t in (10, 11, 12)]
    np.testing.assert_allclose(got[0, ..., :2], want, atol=0.01)
    assert counts == {"frames without a person, filled": 3}


def test_the_table_counts_what_was_mended(tmp_path):
    folder = write_folder(tmp_path / "in")
    dirty = CLIP.copy()
    dirty[8:10] = np.nan
    save(folder / CLIPS[NAME][0] / f"{NAME}.npy", dirty)
    ran = prepare(folder, tmp_path)
    rows = [line.split() for line in ran.out.splitlines() if line.startswith("frames without a person, filled")]
    assert rows and rows[0][-2:] == ["1", "2"]
    report = report_of(tmp_path)
    assert {"what": "frames without a person, filled", "clips": 1, "times": 2} in report["mended"]
    assert list(report["clips"]) == [NAME]


# --- bad input -----------------------------------------------------------------------------------------------------


def many(tmp_path, count):
    folder = tmp_path / "in"
    folder.mkdir()
    small = CLIP[:3].astype(np.float32)
    for i in range(count):
        np.save(folder / f"clip_{i:05d}.npy", small + 1e-4 * i)
    (folder / "bad_a.npy").write_bytes(b"not an array")
    np.save(folder / "bad_b.npy", np.zeros((5, 21, 3)))
    np.save(folder / "bad_c.npy", np.full((5, 25, 3), np.nan))
    return folder


@pytest.mark.parametrize("count", [60, pytest.param(9_997, marks=pytest.mark.slow)])
def test_three_bad_files_of_many(tmp_path, count):
    """The default writes nothing and names the three; --on-bad skip lists them and takes the others."""
    folder = many(tmp_path, count)
    ran = prepare(folder, tmp_path, "--frames 3")
    assert ran.status == 2 and not (tmp_path / "data" / "mine").exists()
    for words in (
        f"3 of {count + 3} clips",
        "bad_a.npy",
        "bad_b.npy",
        "an array (5, 21, 3)",
        "bad_c.npy",
        "holds a person",
    ):
        assert words in ran.err, ran.err
    ran = prepare(folder, tmp_path, "--frames 3 --on-bad skip")
    assert ran.status == 0, ran.err
    assert "3 files or clips left out" in ran.out and list(report_of(tmp_path)["left_out"]) == [
        "bad_a",
        "bad_b",
        "bad_c",
    ]
    assert len(split_of(tmp_path, "train")) == count


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_hostile_files_do_nothing(tmp_path, monkeypatch):
    """Nothing is run, nothing is waited for, nothing is unpacked beyond its size; each is a bad file like any other."""
    folder = write_folder(tmp_path / "in")
    (folder / "m01" / "evil.pkl").write_bytes(pickle.dumps([Evil(tmp_path / "owned")]))
    np.save(folder / "m01" / "evil_npy.npy", np.array({"a": Evil(tmp_path / "owned")}), allow_pickle=True)
    for pipe in ("m01/pipe.csv", "m01/notes.txt", "clips.csv"):
        os.mkfifo(folder / pipe)
    (folder / "m01" / "deep.json").write_text("[" * 100_000)
    far = [{"image_id": number, "keypoints": [1, 2, 3]} for number in (1, 999_999_999)]
    (folder / "m01" / "huge.json").write_text(json.dumps(far))
    with open(folder / "m01" / "header.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**9, 25, 3)})
    monkeypatch.setattr(arrays, "MAX_UNPACKED", 10**6)  # the limit itself is a GB
    np.savez_compressed(folder / "m01" / "bomb.npz", a=np.zeros((5_000, 25, 3)))  # 3 kB that unpack to 3 MB
    ran = prepare(folder, tmp_path, "--on-bad skip")
    assert ran.status == 0, ran.err
    assert not (tmp_path / "owned").exists()
    left = report_of(tmp_path)["left_out"]
    expected = ["bomb", "clips", "deep", "evil", "evil_npy", "header", "huge", "pipe"]
    assert sorted(name.rsplit("/", 1)[-1] for name in left) == expected, left


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.json", '{"hello": 1}', "not a known JSON format of poses"),
        ("a.json", '[{"x": 1}', "line 1: not valid JSON"),
        ("a.json", '{"people": [{"pose_keypoints_2d": [1, 2]}]}', "keypoints (2,) are not 3 numbers per joint"),
        ("a.json", '{"instance_info": [{"frame_id": 0, "instances": [{"keypoints": [["a", 1]]}]}]}', "not a table of numbers"),
        ("a.json", '{"joint_names": [], "frames": [{"bodies": 3}]}', "expected a list of bodies"),
        ("a.json", "[[[1, 2], [3, 4]], [[1, 2]]]", "a person has 1 joints of 2 numbers"),
        ("a.csv", "a,b,c\n1,2,3\n", "expected x and y of joints"),
        ("a.csv", "left_shoulder_x,b\n1,2\n", "not a table of poses"),
        ("a.csv", ",".join(["1"] * 74) + "\n", "74 columns of numbers"),
        ("a.npz", "PK", "not a readable"),
        ("a.pkl", "x", "not a readable pickle"),
    ],
)  # fmt: skip
def test_refusals_say_what_is_wrong(tmp_path, name, content, words):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_text(content)
    refused(prepare(tmp_path / "in", tmp_path), name, words)
    assert not (tmp_path / "data" / "mine").exists()


def test_odd_clips_are_warned_of_or_refused(tmp_path):
    """A clip in which nobody moves is kept with a warning, and is bad with --strict, as everywhere."""
    folder = write_folder(tmp_path / "in")
    save(folder / "m01" / "still.npy", np.repeat(CLIP[:1], 10, axis=0))
    ran = prepare(folder, tmp_path)
    assert ran.status == 0 and "still" in ran.err and "do not move" in ran.err
    refused(prepare(folder, tmp_path, "--strict", "strict"), "still")


def test_flags_are_checked(tmp_path):
    folder = write_folder(tmp_path / "in")
    refused(prepare(folder, tmp_path, name="ntu60"), "known data set")
    for flags, words in (
        ("--persons 0", "--persons"),
        ("--max-gap -1", "--max-gap"),
        ("--axes TVX", "--axes"),
        ("--axes TTVC", "TTVC"),
        ("--fps 0", "--fps"),
        ("--val-share 2", "--val-share"),
        ("--picture-size 0 5", "--picture-size"),
        ("--val-list nowhere.txt", "nowhere.txt"),
        ("--by subject --subject-from-name '('", "not a regular expression"),
        ("--subject-from-name 's(.+)'", "--by subject"),
        ("--dimensions 3 --format openpose", "no file of poses"),
    ):
        refused(prepare(folder, tmp_path, flags), words)
