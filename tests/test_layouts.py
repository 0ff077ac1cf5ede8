"""Joint layouts: trees are trees, parts partition, left mirrors right; conversions give what a hand computes."""

import itertools

import numpy as np
import pytest
import torch
from programs import refuses

from data_gen import from_arrays
from data_gen.from_files import Source, write_description
from data_gen.normalise import PLANAR_STEPS, normalise, parse_steps
from engine.setup import find_dataset
from options.datasets import DescriptionError, from_description
from utils.convert_layout import conversion, convert, describe_conversion, made_joints, mirrored
from utils.errors import UserError
from utils.files import load_json
from utils.skeleton import KINECT_V2, LAYOUTS, Layout, at, get_layout

STAND = {  # a person who faces the sensor in Kinect's axes (x right of the picture, y up, z away), metres
    "base of spine": (0, 0, 3), "middle of spine": (0, 0.3, 3), "between shoulders": (0, 0.5, 3), "neck": (0, 0.57, 3),
    "head": (0, 0.72, 3), "left shoulder": (0.2, 0.5, 3), "right shoulder": (-0.2, 0.5, 3), "left elbow": (0.3, 0.3, 3),
    "right elbow": (-0.3, 0.3, 3), "left wrist": (0.3, 0.1, 3), "right wrist": (-0.3, 0.1, 3), "left hand": (0.3, 0, 3),
    "right hand": (-0.3, 0, 3), "tip of left hand": (0.3, -0.1, 3), "tip of right hand": (-0.3, -0.1, 3),
    "left thumb": (0.25, 0, 3), "right thumb": (-0.25, 0, 3), "left hip": (0.1, 0, 3), "right hip": (-0.1, 0, 3),
    "left knee": (0.1, -0.4, 3), "right knee": (-0.1, -0.4, 3), "left ankle": (0.1, -0.8, 3), "right ankle": (-0.1, -0.8, 3),
    "left foot": (0.1, -0.85, 2.8), "right foot": (-0.1, -0.85, 2.8),
}  # fmt: skip
POSE = np.array([STAND[name] for name in KINECT_V2.names], dtype=np.float64)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=str)
def test_a_layout_is_a_tree_whose_sides_mirror(layout):
    for joint in range(layout.joints):
        for _ in range(layout.joints):
            joint = layout.parents[joint]
        assert layout.parents[joint] == joint  # every walk ends in a root
    assert sum(parent == joint for joint, parent in enumerate(layout.parents)) == 1
    number = {name: joint for joint, name in enumerate(layout.names)}
    for name, joint in number.items():
        other = number[mirrored(name)]  # nobody has one side only
        assert mirrored(layout.names[layout.parents[joint]]) == layout.names[layout.parents[other]]
        sides = [i for i, part in enumerate(layout.parts) for j in (joint, other) if j in part]
        assert sides[0] == sides[1] == 0 or set(sides) in ({1, 2}, {3, 4})


def test_the_orders_are_those_of_the_estimators():
    numbers = {
        "mediapipe_33": {
            "left shoulder": 11,
            "right index": 20,
            "left thumb": 21,
            "left hip": 23,
            "right foot index": 32,
        },
        "coco_17": {"right ear": 4, "left shoulder": 5, "right wrist": 10, "left hip": 11, "right ankle": 16},
        "halpe_26": {"left hip": 11, "top of head": 17, "base of spine": 19, "left big toe": 20, "right heel": 25},
        "openpose_25": {
            "right shoulder": 2,
            "base of spine": 8,
            "right ankle": 11,
            "left ankle": 14,
            "left big toe": 19,
        },
        "openpose_18": {"left shoulder": 5, "right hip": 8, "left hip": 11, "right eye": 14, "left ear": 17},
        "h36m_17": {"right hip": 1, "left hip": 4, "between shoulders": 8, "left shoulder": 11, "right wrist": 16},
        "azure_kinect_32": {"left shoulder": 5, "right thumb": 17, "left hip": 18, "right foot": 25, "right ear": 31},
        "smpl_22": {"left ankle": 7, "neck": 12, "head": 15, "left shoulder": 16, "right wrist": 21},
    }
    for name, joints in numbers.items():
        layout = get_layout(name)
        assert layout.joints == int(name.rpartition("_")[2])
        assert {joint: layout.names.index(joint) for joint in joints} == joints
    assert get_layout("smpl_22").parts[1] == (14, 17, 19, 21)


def test_wrong_rows_are_refused():
    row = {"parents": (0, 0), "parts": ((0,), (1,), (), (), ()), "centre": 0, "up": (0, 1), "across": (0, 1)}
    for names, message in ((("a", "a"), "appears twice"), (("a", "b", "c"), "2 parents for 3")):
        with pytest.raises(ValueError, match=message):
            Layout("x", names, **row)


def test_a_place_is_a_joint_or_the_mean_of_some():
    x = np.arange(24.0).reshape(2, 4, 3)
    np.testing.assert_array_equal(at(x, 2, 1), x[:, 2])
    np.testing.assert_array_equal(at(x, (0, 3), -2), (x[:, 0] + x[:, 3]) / 2)
    assert torch.equal(at(torch.from_numpy(x), (0, 3), 1), torch.from_numpy(at(x, (0, 3), 1)))


@pytest.mark.parametrize("name", LAYOUTS)
def test_normalised_clips_of_every_layout_are_centred_upright_and_turned(name):
    layout = get_layout(name)
    angle = 0.4
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    clip = np.repeat((convert(POSE, KINECT_V2, layout, axis=0) @ turn.T).T[:, None, :, None], 5, axis=1).astype(
        np.float32
    )
    clip = normalise(clip, layout)
    np.testing.assert_allclose(at(clip[..., 0], layout.centre, 2), 0, atol=1e-6)
    up, across = (at(clip[:, 0, :, 0], b, 1) - at(clip[:, 0, :, 0], a, 1) for a, b in (layout.up, layout.across))
    assert up[2] > 0.19 and abs(up[0]) < 1e-5 and abs(up[1]) < 1e-5
    np.testing.assert_allclose(across, [0.4, 0, 0], atol=1e-5)


def test_every_pair_of_layouts_converts_rigidly():
    rng = np.random.default_rng(0)
    turn, shift = np.linalg.qr(rng.normal(size=(3, 3)))[0], rng.normal(size=3)
    for source, target in itertools.product(LAYOUTS.values(), repeat=2):
        x = rng.normal(size=(source.joints, 3))
        y = convert(x, source, target, axis=0)
        np.testing.assert_allclose(convert(x @ turn.T + shift, source, target, axis=0), y @ turn.T + shift, atol=1e-9)
        for joint, name in enumerate(target.names):  # what both have is copied, bit for bit
            if name in source.names:
                np.testing.assert_array_equal(y[joint], x[source.names.index(name)])


def test_kinect_joints_are_made_as_by_hand():
    pose = {name: np.array(place, dtype=float) for name, place in STAND.items()}
    pipe = get_layout("mediapipe_33")
    rng = np.random.default_rng(1)
    x = rng.normal(size=(33, 3))
    x[11], x[12], x[23], x[24] = pose["left shoulder"], pose["right shoulder"], pose["left hip"], pose["right hip"]
    y = dict(zip(KINECT_V2.names, convert(x, pipe, KINECT_V2, axis=0), strict=True))
    np.testing.assert_allclose(y["base of spine"], [0, 0, 3])
    np.testing.assert_allclose(y["between shoulders"], [0, 0.5, 3])
    np.testing.assert_allclose(y["middle of spine"], [0, 0.25, 3])
    np.testing.assert_allclose(y["head"], (x[7] + x[8]) / 2)
    np.testing.assert_allclose(y["neck"], 0.7 * y["between shoulders"] + 0.3 * y["head"])
    np.testing.assert_allclose(y["left hand"], (x[17] + x[19]) / 2)
    np.testing.assert_array_equal(y["tip of right hand"], x[20])
    np.testing.assert_array_equal(y["left thumb"], x[21])
    np.testing.assert_array_equal(y["right foot"], x[32])

    coco = convert(POSE, KINECT_V2, get_layout("coco_17"), axis=0)
    np.testing.assert_allclose(coco[0], 0.85 * pose["head"] + 0.15 * pose["neck"])
    np.testing.assert_allclose(coco[3], [0.08, 0.72, 3])  # the left ear, 8 cm beside the head
    back = dict(zip(KINECT_V2.names, convert(coco, get_layout("coco_17"), KINECT_V2, axis=0), strict=True))
    np.testing.assert_allclose(back["head"], pose["head"])
    np.testing.assert_array_equal(back["tip of left hand"], pose["left wrist"])  # no fingers: the wrist
    np.testing.assert_array_equal(back["right foot"], pose["right ankle"])
    assert (
        np.abs(back["neck"] - pose["neck"]).max() < 0.01
        and np.abs(back["middle of spine"] - pose["middle of spine"]).max() < 0.06
    )


@pytest.mark.parametrize("name", set(LAYOUTS) - {"kinect_v2_25"})
def test_there_and_back_keeps_every_joint_near(name):
    layout = get_layout(name)
    back = convert(convert(POSE, KINECT_V2, layout, axis=0), layout, KINECT_V2, axis=0)
    off = np.linalg.norm(back - POSE, axis=1)
    kept = [name in layout.names for name in KINECT_V2.names]
    assert not off[kept].any() and off.max() < 0.22  # at most a hand's length: tips where there are only wrists


def test_persons_types_and_made_joints():
    coco = get_layout("coco_17")
    clip = np.zeros((4, 17, 3, 2), np.float32)
    clip[1:, :, :, 0] = np.random.default_rng(2).normal(size=(3, 17, 3))
    y = convert(clip, coco, KINECT_V2)
    assert y.shape == (4, 25, 3, 2) and y.dtype == np.float32
    assert not y[0].any() and not y[..., 1].any() and y[1:, :, :, 0].all()
    assert convert(y, KINECT_V2, KINECT_V2) is y
    assert made_joints(get_layout("azure_kinect_32"), KINECT_V2) == ("middle of spine", "between shoulders")
    assert (
        describe_conversion(KINECT_V2, get_layout("kinect_v1_20"))
        == "kinect_v2_25 -> kinect_v1_20: every joint is there"
    )
    assert "made left hand, right hand, between shoulders" in describe_conversion(get_layout("smpl_22"), KINECT_V2)
    with pytest.raises(ValueError, match="expected 17 joints of coco_17 on axis -3, found"):
        convert(y, coco, KINECT_V2)


def test_a_layout_that_nothing_leads_to_is_refused():
    rest = {"parents": (0, 0), "parts": ((0, 1), (), (), (), ()), "centre": 0, "up": (0, 1), "across": (0, 1)}
    odd = Layout("horse_2", ("muzzle", "tail"), **rest)
    with refuses("kinect_v2_25", "horse_2", "muzzle"):
        conversion(KINECT_V2, odd)


def write_pipe_arrays(folder, clips=6, frames=20):
    """A folder of MediaPipe clips with a clips.csv, as data_gen.from_arrays reads them; returns the clips."""
    folder.mkdir()
    rng, lines, written = np.random.default_rng(3), ["name,label,cross_subject"], {}
    for i in range(clips):
        clip = convert(POSE + rng.normal(0, 0.02, (frames, 25, 3)), KINECT_V2, get_layout("mediapipe_33"), axis=1)
        np.save(folder / f"c{i}.npy", clip.astype(np.float32))
        written[f"c{i}"] = clip.astype(np.float32)
        lines.append(f"c{i},{'sit' if i % 2 else 'stand'},{'train' if i < 4 else 'val'}")
    (folder / "clips.csv").write_text("\n".join(lines) + "\n")
    return written


def test_a_preparation_stores_another_layout(tmp_path, capsys):
    clips = write_pipe_arrays(tmp_path / "mine")
    words = [
        tmp_path / "mine",
        "--name",
        "made",
        "--data-root",
        tmp_path,
        "--layout",
        "mediapipe_33",
        "--as",
        "kinect_v2_25",
    ]
    from_arrays.main([str(word) for word in (*words, "--workers", 1, "--frames", 32)])
    said = capsys.readouterr().out
    assert "mediapipe_33 -> kinect_v2_25: made base of spine, middle of spine" in said and "4 train and 2 val" in said
    dataset = find_dataset(tmp_path, "made", "cross_subject", ("train", "val"))
    assert dataset.layout == KINECT_V2 and dataset.row.dimensions == 3
    sidecar = load_json(dataset.folder / "preparation.json")
    assert (sidecar["layout"], sidecar["converted_from"]) == ("kinect_v2_25", "mediapipe_33")
    packed = dataset.clips("train")
    for i, name in enumerate(packed.names):
        clip = convert(clips[name], get_layout("mediapipe_33"), KINECT_V2, axis=1).transpose(2, 0, 1)[..., None]
        low = int(packed.offsets[i])
        stored = packed.frames[low : low + 20].permute(2, 0, 1, 3).numpy()
        np.testing.assert_allclose(stored, normalise(clip, KINECT_V2), atol=1e-5)


def test_two_dimensions_are_a_matter_of_the_data_set(tmp_path):
    row = from_description("x", {"classes": 2, "protocols": {"p": "q"}, "layout": "coco_17", "dimensions": 2})
    assert row.dimensions == 2
    for wrong in (4, True, 2.0, "2"):
        with pytest.raises(DescriptionError, match="'dimensions' must be 3, or 2"):
            from_description("x", {"classes": 2, "protocols": {"p": "q"}, "dimensions": wrong})
    target = Source("", {"cross_subject": {}}, {}, 2, 1, "coco_17", dimensions=2).target(tmp_path, "flat")
    assert target.description["dimensions"] == 2
    target.folder.mkdir()
    write_description(target)
    with pytest.raises(UserError, match="'dimensions' differ"):
        Source("", {"cross_subject": {}}, {}, 2, 1, "coco_17").target(tmp_path, "flat")
    with refuses("ntu60", "three dimensions", "2"):
        Source("", {"cross_subject": {}}, {}, 2, 1, dimensions=2).target(tmp_path, "ntu60")


def test_flat_clips_are_centred_and_divided_by_the_trunk():
    assert parse_steps("all", 2) == PLANAR_STEPS and parse_steps("trunk,fill", 2) == ("fill", "trunk")
    with refuses("'spine'", "two dimensions"):
        parse_steps("fill,spine", 2)
    for name in LAYOUTS:
        layout = get_layout(name)
        pose = convert(POSE, KINECT_V2, layout, axis=0) * [300, 300, 0] + [640, 360, 0]  # pixels
        clip = np.repeat(pose.T[:, None, :, None], 4, axis=1).astype(np.float32)
        clip[:, 2] *= 5  # one frame is wrong: the median does not see it
        flat = normalise(clip, layout, PLANAR_STEPS)
        assert not flat[2].any()
        np.testing.assert_allclose(at(flat[..., 0], layout.centre, 2), 0, atol=1e-4)
        person = {joint: flat[:, 0, i, 0] for i, joint in enumerate(layout.names)}
        trunk = (person["left shoulder"] + person["right shoulder"] - person["left hip"] - person["right hip"]) / 2
        np.testing.assert_allclose(trunk, [0, 1, 0], atol=1e-4)
        np.testing.assert_allclose(person["left elbow"] - person["left shoulder"], [0.2, -0.4, 0], atol=1e-4)
    assert not normalise(np.zeros((3, 2, 17, 1), np.float32), get_layout("coco_17"), PLANAR_STEPS).any()
