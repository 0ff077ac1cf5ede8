"""The check says nothing about a good folder and names what is wrong with a bad one; its exit status follows."""

import json
import pickle

import numpy as np
import pytest
from conftest import checksum_of
from make_tiny import write_tiny_dataset
from programs import call, refused

from data_gen import check
from data_gen.check import check_protocol, expect, find_folders, measure_clip, mirror_pairs
from data_gen.normalise import STEPS, normalise
from options.class_names import NTU120, PKU
from options.datasets import DATASETS
from utils.arrays import SIDECAR, SplitWriter, split_files
from utils.convert_layout import convert
from utils.drawing import Z_UP
from utils.errors import UserError
from utils.files import load_json, write_json
from utils.skeleton import LAYOUTS

KINECT = LAYOUTS["kinect_v2_25"]


def body(layout, seed, frames):
    """A stiff body (3, frames, V) in metres that sways: every bone keeps its length, mirrored bones are equal."""
    rng = np.random.default_rng(seed)
    offset = rng.normal(size=(KINECT.joints, 3)) * 0.15
    for left, right in mirror_pairs(KINECT):
        offset[right] = offset[left] * [-1, 1, 1]
    offset[1], offset[0] = [0, -0.3, -0.05], [0, -0.4, -0.05]  # the spine, downwards from between the shoulders
    place = np.zeros((KINECT.joints, 3))
    for joint in range(KINECT.joints):
        at = joint
        while KINECT.parents[at] != at:
            place[joint] += offset[at]
            at = KINECT.parents[at]
    for ankle, foot in ((14, 15), (18, 19)):
        place[foot] = place[ankle] + [0.0, 0.0, -0.2]
    angle = 0.2 + 0.3 * np.sin(np.arange(frames) / 7 + seed)  # never along an axis, where nothing is turned
    turn = np.stack([np.cos(angle), 0 * angle, np.sin(angle), -np.sin(angle), 0 * angle, np.cos(angle)]).reshape(
        2, 3, -1
    )
    x, z = np.einsum("rct,vc->rtv", turn, place)
    clip = np.stack([x, np.broadcast_to(place[:, 1], x.shape), z]) + np.array([0.1, -0.2, 3.0])[:, None, None]
    return convert(clip, KINECT, layout, axis=2)


def prepared(folder, layout=KINECT, classes=3, clips=6, persons=2, steps=STEPS, frames=40, sidecar=True, change=None):
    """A protocol folder of small clips; `change(split, index, clip)` may spoil a clip before it is written."""
    entries = {}
    for split in ("train", "val"):
        names = [f"{split}{i:03}" for i in range(clips)]
        writer = SplitWriter(folder, split, names, [i % classes for i in range(clips)], layout.joints, persons, frames)
        for i in range(clips):
            n = frames - 3 * i
            clip = np.zeros((3, frames, layout.joints, persons), np.float32)
            clip[:, :n, :, 0] = body(layout, i, n)
            clip = normalise(clip, layout, steps)
            clip[:, n:] = 0
            clip = change(split, i, clip) if change else clip
            writer.write(i, clip, n)
        entries[split] = writer.finish()
    if sidecar:
        write_json(folder / SIDECAR, {"source": "a test", "normalisation": list(steps), "splits": entries})
    return folder


def main(*words):
    return check.main([str(word) for word in words])


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_good_folder_of_every_layout_is_left_alone(tmp_path, name, capsys):
    prepared(tmp_path / "mine" / "xsub", LAYOUTS[name])
    assert main(tmp_path / "mine", "--layout", name) == 0
    text = capsys.readouterr().out
    assert "nothing wrong" in text and "WRONG" not in text and "note" not in text
    assert name in text and "(6, 3, 40" in text and "fill centre spine shoulders" in text


def test_the_figures_are_those_of_the_clips(tmp_path):
    report = check_protocol(prepared(tmp_path / "x", clips=5), expect(tmp_path / "x"))
    table = {row[0]: row[1:] for row in report.rows}
    assert table["clips"] == ("5", "5")
    assert table["frames (least / median / most)"] == ("28 / 34 / 40",) * 2
    assert table["clips a class (least / median / most)"] == ("1 / 2 / 2",) * 2
    assert table["shoulders to +x in frame 0, clips"] == ("100.0 %",) * 2
    assert table["bone asymmetry, median"] == ("0.0 %",) * 2
    assert table["bone spread in a clip, median"] == ("0.0 %",) * 2
    raw = check_protocol(prepared(tmp_path / "raw", steps=(), sidecar=False), expect(tmp_path / "raw"))
    assert not raw.wrong and any("not centred and turned upright" in note for note in raw.notes)


def test_bones_are_measured_as_by_hand():
    clip = np.zeros((3, 2, 25, 1), np.float32)
    clip[0, :, 5, 0] = [1.0, 3.0]  # elbow 5 hangs on shoulder 4, wrist 6 on 5
    measures = measure_clip(clip, KINECT)
    assert measures["length"][5] == 2 and measures["length"][6] == 2
    assert measures["spread"][5] == 0.5  # standard deviation 1, mean 2
    assert np.isnan(measures["length"][20]) and np.isnan(measures["up"])
    assert not measures["zero"] and measures["persons"] == 1


def spoil_nan(split, i, clip):
    if (split, i) == ("val", 2):
        clip[1, 3, 4, 0] = np.nan
    return clip


def spoil_zero(split, i, clip):
    return clip * (i != 1)


def spoil_turn(split, i, clip):
    return clip[[1, 0, 2]]


def spoil_centre(split, i, clip):
    return clip + np.float32(0.5)


def spoil_joints(split, i, clip):
    return clip[:, :, np.random.default_rng(0).permutation(clip.shape[2])]


def spoil_order(split, i, clip):
    """Frames and joints taken for each other: a reshape where a transpose was needed."""
    C, T, V, M = clip.shape
    return np.ascontiguousarray(clip).reshape(C, V, T, M).transpose(0, 2, 1, 3)


@pytest.mark.parametrize(
    "change, sentence",
    [
        (spoil_nan, "val: 1 clips hold NaN"),
        (spoil_zero, "clips are zero in all frames"),
        (spoil_joints, "joints are not in the order of kinect_v2_25"),
        (spoil_turn, "says that clips are turned upright, but they are not"),
        (spoil_centre, "says that clips are centred, but they are not"),
        (spoil_order, "axes or joints are mixed up"),
    ],
)
def test_bad_coordinates_are_named(tmp_path, capsys, change, sentence):
    prepared(tmp_path / "x", change=change)
    assert main(tmp_path / "x") == 2
    assert any(sentence in line for line in capsys.readouterr().out.splitlines() if "WRONG" in line)


def test_millimetres_and_copies_are_noted(tmp_path):
    def change(split, i, clip):
        clip[..., 1] = clip[..., 0]
        return 1000 * clip

    report = check_protocol(prepared(tmp_path / "x", change=change), expect(tmp_path / "x"))
    assert not report.wrong
    assert any("millimetres" in n for n in report.notes) and any("copy of person 1 in 6" in n for n in report.notes)


def test_files_that_disagree_are_named(tmp_path, capsys):
    folder = prepared(tmp_path / "x")
    labels = split_files(folder, "train")[1]
    names, values = pickle.loads(labels.read_bytes())
    labels.write_bytes(pickle.dumps((names, values[::-1][:1] + values[1:])))
    assert main(folder) == 2
    assert "train: " in (text := capsys.readouterr().out) and "checksum" in text  # the sidecar knows the labels
    labels.write_bytes(pickle.dumps((names[:-1], values[:-1])))
    assert main(folder) == 2
    assert "the train files disagree" in capsys.readouterr().out
    split_files(folder, "val")[0].write_bytes(b"\x93NUMPY nonsense")
    assert main(folder) == 2  # both splits are bad; both are named, none raises
    assert "not a readable .npy file" in capsys.readouterr().out


def test_a_mirror_image_is_noted(tmp_path):
    def mirror(split, i, clip):
        return clip * np.float32([1, -1, 1]).reshape(3, 1, 1, 1)

    good = check_protocol(prepared(tmp_path / "x"), expect(tmp_path / "x"))
    assert not good.notes
    bad = check_protocol(prepared(tmp_path / "y", change=mirror), expect(tmp_path / "y"))
    assert not bad.wrong and all("feet point backwards" in note for note in bad.notes) and len(bad.notes) == 2


def test_changed_coordinates_and_another_layout_contradict_the_sidecar(tmp_path):
    folder = prepared(tmp_path / "x")
    sidecar = json.loads((folder / SIDECAR).read_text())
    data = np.load(split_files(folder, "val")[0], mmap_mode="r+")
    sidecar["splits"]["val"]["coordinates"] = checksum_of(data)
    write_json(folder / SIDECAR, sidecar | {"layout": KINECT.name})
    assert not check_protocol(folder, expect(folder)).wrong
    data[2, 0, 0, 0, 0] += 0.001
    data.flush()
    assert any("val: the coordinates have changed" in text for text in check_protocol(folder, expect(folder)).wrong)
    write_json(folder / SIDECAR, sidecar | {"layout": "smpl_24"})
    assert any("prepared with joint layout smpl_24" in text for text in check_protocol(folder, expect(folder)).wrong)


def test_names_in_both_splits_and_twice(tmp_path):
    folder = prepared(tmp_path / "x", sidecar=False)
    path = split_files(folder, "val")[1]
    names, values = pickle.loads(path.read_bytes())
    for bad, words in (
        (["train000", *names[1:]], "1 clips are in train and in val, such as train000"),
        ([*names[1:], names[-1]], f"1 names occur more than once, such as '{names[-1]}' 2 times"),
    ):
        path.write_bytes(pickle.dumps((bad, values)))
        assert any(words in text for text in check_protocol(folder, expect(folder)).wrong)


def test_expected_counts_of_the_registry(tmp_path, capsys):
    prepared(tmp_path / "ntu60" / "xview")
    assert main(tmp_path / "ntu60") == 2
    text = capsys.readouterr().out
    assert "6 clips, expected 37646" in text and "6 clips, expected 18932" in text
    assert "no clip of class 3 (brush hair)" in text
    prepared(tmp_path / "other" / "xview")
    assert main(tmp_path / "other") == 0
    assert main(tmp_path / "other", "--dataset", "ntu60") == 2


def test_a_description_says_layout_and_classes(tmp_path, capsys):
    prepared(tmp_path / "mine" / "fold", LAYOUTS["sbu_15"], persons=1)
    row = {"classes": ["sit", "stand"], "protocols": {"cross_subject": "fold"}, "layout": "sbu_15", "persons": 1}
    write_json(tmp_path / "mine" / "dataset.json", row)
    assert main(tmp_path / "mine") == 2
    assert "label 2 of train002 is out of range" in capsys.readouterr().out
    write_json(tmp_path / "mine" / "dataset.json", row | {"classes": ["sit", "stand", "lie"]})
    assert main(tmp_path / "mine", "--full") == 0
    text = capsys.readouterr().out
    assert "2  lie" in text and "middle of spine - left hip" in text and "cross_subject" in text
    (tmp_path / "mine" / "dataset.json").write_text(json.dumps(row | {"persons": "two"}))
    with pytest.raises(UserError, match="'persons' must be"):
        main(tmp_path / "mine")


def test_a_quick_look_reads_few_clips_and_still_counts_all(tmp_path):
    report = check_protocol(prepared(tmp_path / "x"), expect(tmp_path / "x"), most_clips=2)
    table = {row[0]: row[1] for row in report.rows}
    assert (table["clips"], table["clips read"]) == ("6", "2")


def test_the_picture(tmp_path, capsys):
    prepared(tmp_path / "x")
    assert main(tmp_path / "x", "--picture", tmp_path / "sheet.png") == 0
    assert (tmp_path / "sheet.png").stat().st_size > 5000
    with pytest.raises(UserError, match="must end in"):
        main(tmp_path / "x", "--picture", tmp_path / "sheet.bmp")


def test_wrong_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no such folder"):
        main(tmp_path / "nowhere")
    with pytest.raises(UserError, match="neither it nor a subfolder"):
        main(tmp_path)
    (tmp_path / ".xsub.1.tmp").mkdir()
    (tmp_path / ".xsub.1.tmp" / "train_data_joint.npy").write_bytes(b"half")
    with pytest.raises(UserError, match="neither it nor a subfolder"):
        find_folders(tmp_path)  # a half-written folder is no folder
    prepared(tmp_path / "x")
    refused(call(check.main, f"{tmp_path}/x --clips -1"), "--clips", "got -1")


def test_class_names_have_the_owners_number_and_order():
    assert (len(NTU120), len(set(NTU120))) == (120, 120) and (len(PKU), len(set(PKU))) == (51, 51)
    assert all(name == name.strip() and "\n" not in name and name for name in NTU120 + PKU)
    # numbers from 1, as in the names of the owners' files
    known = {
        1: "drink",
        8: "sit",
        10: "clap",
        23: "wav",
        43: "fall",
        60: "apart",
        61: "headphone",
        99: "run",
        112: "high",
    }
    assert all(word in NTU120[number - 1] for number, word in known.items())
    known = {1: "bow", 11: "fall", 14: "handshak", 27: "push", 33: "sit", 41: "throw", 47: "fan", 51: "writ"}
    assert all(word in PKU[number - 1] for number, word in known.items())
    assert DATASETS["ntu60"].num_classes == 60 and DATASETS["pku_v2"].num_classes == 51


def test_mirrored_joints():
    pairs = {name: len(mirror_pairs(layout)) for name, layout in LAYOUTS.items()}
    assert [pairs[name] for name in ("kinect_v2_25", "kinect_v1_20", "sbu_15", "smpl_24")] == [10, 8, 6, 9]
    assert [pairs[name] for name in ("mediapipe_33", "coco_17", "openpose_18", "h36m_17")] == [16, 8, 8, 6]
    assert (4, 8) in mirror_pairs(KINECT) and (21, 23) in mirror_pairs(KINECT)


def test_a_clip_that_was_tipped_over_lies_in_the_picture(tmp_path, monkeypatch):
    """Normalised clips are drawn with z upwards whatever their spines do; raw ones by their spines."""
    drawn = []
    monkeypatch.setattr(check, "draw_clips", lambda *given, up: drawn.append(up))
    for steps in (["fill", "centre", "spine", "shoulders"], []):
        folder = write_tiny_dataset(tmp_path / str(len(steps)), "tiny", frames=60) / "xsub"
        sidecar = load_json(folder / "preparation.json")
        write_json(folder / "preparation.json", sidecar | {"normalisation": steps})
        report = check.check_protocol(folder, check.expect(folder))
        check.draw_report(tmp_path / "sheet.png", report)
    assert drawn == [Z_UP, None]
