"""Encoders on clips of another joint layout, of more persons, of the plane: what arrives is what a preparation would have made."""

import io

import numpy as np
import pytest
import torch
from make_checkpoint import CAUSAL, SMALL, write_classifier, write_pretrained
from make_tiny import write_tiny_videos
from programs import call, refused, refuses
from test_layouts import POSE
from tiny_runs import pretrain

import action_classification
import action_detection
import action_retrieval
import motion_prediction
from data_gen import check
from data_gen.build import Stored, build_dataset
from data_gen.from_files import Source, write_description
from data_gen.normalise import PLANAR_STEPS, STEPS, normalise
from engine.features import load
from engine.setup import find_dataset
from engine.transfer import FrameForm, adapt, describe_transfer, flatten, stand_up
from feeder.batches import Batches
from feeder.sampling import ViewSettings, sample_matrices, uniforms
from feeder.windows import normalise_windows
from tools import extract_features, live_demo, visualize
from utils import checkpoint as files
from utils.convert_layout import convert
from utils.features import read_features
from utils.files import load_json, write_json
from utils.skeleton import KINECT_V2, LAYOUTS, at, get_layout

PIPE, COCO = get_layout("mediapipe_33"), get_layout("coco_17")
RETRIEVAL = "--save-features --precision fp32 --knn 1 --recall 1"
NAMES = {"train": [f"t{i:02}" for i in range(16)], "val": [f"v{i:02}" for i in range(8)]}
LABELS = {name: int(name[1:]) % 2 for names in NAMES.values() for name in names}


def raw(name: str) -> np.ndarray:
    """A clip (3, t, 25, 1) as a Kinect sees it: somebody sways and lifts an arm, the left one in class 1."""
    rng = np.random.default_rng(int(name[1:]) + 100 * (name[0] == "v"))
    t = np.arange(30 + int(name[1:]))
    pose = np.repeat(POSE[None], len(t), axis=0) + rng.normal(0, 0.01, 3)
    arm = [5, 6, 7, 21, 22] if LABELS[name] else [9, 10, 11, 23, 24]
    pose[:, arm, 1] += (0.3 * np.abs(np.sin(t / 8 + rng.uniform(0, 3))))[:, None]
    angle = rng.uniform(-0.4, 0.4) + 0.1 * np.sin(t / 10)
    pose[..., 0], pose[..., 2] = (
        np.cos(angle)[:, None] * pose[..., 0] + np.sin(angle)[:, None] * (pose[..., 2] - 3),
        3 + np.cos(angle)[:, None] * (pose[..., 2] - 3) - np.sin(angle)[:, None] * pose[..., 0],
    )
    return pose.transpose(2, 0, 1)[..., None].astype(np.float32)


def as_pipe(name: str) -> np.ndarray:
    return convert(raw(name), KINECT_V2, PIPE, axis=2)


def as_coco_pixels(name: str) -> np.ndarray:
    return convert(flatten(raw(name), upright=False), KINECT_V2, COCO, axis=2) * np.float32(350)


def prepared(root, name, layout, load, dimensions=3, **more) -> None:
    target = Source("", {"cross_subject": {}}, {}, 2, 1, layout, dimensions=dimensions).target(root, name)
    steps = STEPS if dimensions == 3 else PLANAR_STEPS
    stored = Stored(target.layout, 1, 64, steps, dimensions=dimensions, **more)
    build_dataset(target.folder, stored, {"xsub": NAMES}, LABELS, load, source="a test", workers=1)
    write_description(target)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Data sets of the same clips: of MediaPipe's joints; of those made into Kinect's when they were prepared; of COCO's, flat."""
    root = tmp_path_factory.mktemp("data")
    prepared(root, "pipe", "mediapipe_33", as_pipe)
    prepared(root, "made", "kinect_v2_25", as_pipe, came_as=PIPE)
    prepared(root, "flat", "coco_17", as_coco_pixels, dimensions=2)
    return root


@pytest.fixture(scope="module")
def kinect(tmp_path_factory):
    """A checkpoint of an encoder that reads Kinect v2 with two persons."""
    return write_pretrained(tmp_path_factory.mktemp("c") / "c.pth.tar", arguments={"stream": "joint"})


def opened(root, name, **form):
    dataset = find_dataset(root, name, "cross_subject", ("train", "val"))
    return dataset.read_as(FrameForm(**form)) if form else dataset


def test_clips_converted_when_opened_are_those_converted_when_prepared(root):
    made, read = opened(root, "made"), opened(root, "pipe", layout=KINECT_V2, persons=2)
    assert made.converted == "" and read.converted.startswith(
        "clips are converted for the encoder: mediapipe_33 -> kinect"
    )
    assert (
        read.row.persons == 2 and read.layout == KINECT_V2 and read.read_as(read.stored_form).clips("val").joints == 33
    )
    a, b = made.clips("val"), read.clips("val")
    assert b.frames.shape[1:] == (25, 3, 2) and not b.frames[..., 1].any() and b.names == a.names
    np.testing.assert_allclose(b.frames[..., :1], a.frames, atol=1e-5)


@pytest.mark.parametrize(
    "main", [action_retrieval.main, extract_features.main, visualize.main], ids=lambda m: m.__module__.split(".")[-1]
)
def test_programs_say_what_they_convert(root, kinect, tmp_path, main):
    words = {
        "action_retrieval": f"--pretrained {kinect} --finetune-dataset pipe --checkpoint-path {tmp_path}/run --knn 1 --recall 1",
        "extract_features": f"--pretrained {kinect} --dataset pipe --output {tmp_path}/out --frames",
        "visualize": f"{kinect} --show features --dataset pipe --output {tmp_path}/a.png",
    }[main.__module__.split(".")[-1]]
    ran = call(main, f"{words} --data-root {root}")
    assert ran.status == 0, ran.err
    assert ran.out.count("mediapipe_33 -> kinect_v2_25: made base of spine, middle of spine, neck") == 1
    assert "1 of 2 persons are present" in ran.out


def test_features_of_another_layout_are_those_of_the_converted_clips(root, kinect, tmp_path):
    found = {}
    for name in ("pipe", "made"):
        ran = call(
            action_retrieval.main,
            f"--data-root {root} --pretrained {kinect} --finetune-dataset {name} {RETRIEVAL} --checkpoint-path {tmp_path}/{name}",
        )
        assert ran.status == 0, ran.err
        found[name] = read_features(tmp_path / name / "features.npz").val.features
    np.testing.assert_allclose(found["pipe"], found["made"], atol=1e-3)
    encoder = load(kinect, device="cpu", input_layout="mediapipe_33")
    clips = [as_pipe(name).transpose(1, 2, 0, 3) for name in NAMES["val"]]
    np.testing.assert_allclose(encoder.clip_features(clips), found["pipe"], atol=1e-3)
    with refuses("(40, 33, 3)", "mediapipe_33"):
        load(kinect, device="cpu").clip_features([np.zeros((40, 33, 3))])


def test_a_classifier_is_trained_and_streams_on_another_layout(root, tmp_path):
    path = write_pretrained(tmp_path / "c.pth.tar", arguments={"stream": "joint"}, **CAUSAL)
    ran = call(
        action_classification.main,
        f"--data-root {root} --pretrained {path} --finetune-dataset pipe --epochs 2 --batch-size 8 --checkpoint-path {tmp_path}/r",
    )
    assert ran.status == 0 and "mediapipe_33 -> kinect_v2_25" in ran.out, ran.err
    ran = call(live_demo.main, f"{tmp_path}/r/classifier.pth --dataset pipe --data-root {root} --rate 0 --clips 2")
    assert ran.status == 0 and "mediapipe_33 -> kinect_v2_25" in ran.out and "of 2 clips right" in ran.out, ran.err


def test_a_stream_of_another_layout(tmp_path, monkeypatch):
    path = write_classifier(tmp_path / "c.pth", **CAUSAL)
    clip = as_pipe("v00")[..., 0].transpose(1, 2, 0)  # (T, 33, 3)
    lines = "\n".join(",".join(map(str, frame.ravel())) for frame in clip)
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    ran = call(live_demo.main, f"{path} --stdin csv --input-layout mediapipe_33")
    assert ran.status == 0 and f"{len(clip)} frames" in ran.out and "mediapipe_33 -> kinect_v2_25" in ran.out, ran.err
    encoder = load(path, device="cpu", input_layout="mediapipe_33")
    stream = encoder.start_stream()
    steps = [stream.step(frame) for frame in clip]
    np.testing.assert_allclose(steps, encoder.frame_features(clip), atol=1e-4)
    refused(call(live_demo.main, f"{path} --dataset x --input-layout mediapipe_33"), "--input-layout is for --stdin")


def test_videos_of_another_layout(tmp_path, kinect):
    write_tiny_videos(tmp_path / "videos", 3, "sbu_15", persons=2)
    words = (
        f"--data-root {tmp_path} --finetune-dataset videos --pretrained {kinect} --mode sequence --lr 0.1 --epochs 1"
    )
    ran = call(action_detection.main, f"{words} --checkpoint-path {tmp_path}/run --coordinates raw")
    assert ran.status == 0 and "sbu_15 -> kinect_v2_25" in ran.out, ran.err
    path = write_pretrained(tmp_path / "flat.pth.tar", dimensions=2, **SMALL)
    refused(
        call(action_detection.main, f"{words.replace(str(kinect), str(path))} --checkpoint-path {tmp_path}/no"),
        "videos have 3 dimensions", "trained on 2",
    )  # fmt: skip


def test_what_cannot_be_read_is_refused(root, tmp_path):
    with refuses("2 persons", "reads 1", "--persons 1"):
        describe_transfer(FrameForm(PIPE, 2), FrameForm(KINECT_V2, 1))
    one = write_pretrained(tmp_path / "one.pth.tar", persons=1)
    content = files.load(one)
    content["config"]["encoder"]["dimensions"] = "flat"
    files.save(one, content)
    refused(
        call(action_retrieval.main, f"--data-root {root} --pretrained {one} --finetune-dataset pipe"),
        "its dimensions are 'flat', expected 2 or 3",
    )
    assert str(FrameForm(COCO, 2, 2)) == "coco_17 with 2 persons in two dimensions"


# -- the plane --------------------------------------------------------------------------------------------------------


def test_from_space_to_the_plane_and_back():
    clip = raw("v03")
    upright = normalise(clip, KINECT_V2)
    flat = adapt(upright, FrameForm(KINECT_V2, 1), FrameForm(COCO, 1, 2), STEPS)
    assert flat.shape[2] == 17 and not flat[2].any()
    trunk = (at(flat[..., 0], (5, 6), 2) - at(flat[..., 0], (11, 12), 2)).transpose(1, 0)
    assert np.median(np.linalg.norm(trunk, axis=1)) == pytest.approx(1, abs=1e-4) and (trunk[:, 1] > 0.9).all()
    np.testing.assert_allclose(flatten(clip, upright=False)[:2], clip[:2])
    pixels = as_coco_pixels("v03")
    mirror = pixels * np.array([-1, 1, 1], np.float32)[:, None, None, None]  # the same person, seen from behind
    for picture in (pixels, mirror):
        stood = adapt(picture, FrameForm(COCO, 1, 2), FrameForm(KINECT_V2, 1), ())
        stood = stood - at(stood[..., 0], 0, 2)[:, :, None, None]
        assert not stood[1].any() and (stood[0, :, 8, 0] > stood[0, :, 4, 0]).all()  # right shoulder towards +x
        spine = np.linalg.norm(stood[:, :, 20, 0] - stood[:, :, 0, 0], axis=0)
        assert np.median(spine) == pytest.approx(0.5, abs=1e-4) and (stood[2, :, 3, 0] > 0.6).all()
    np.testing.assert_array_equal(stand_up(np.zeros((3, 4, 17)), COCO), np.eye(3))


def test_views_of_flat_clips_stay_in_the_plane(root):
    everything = {"rotation": 30.0, "scale": (0.8, 1.2), "bones": 0.2, "noise": 0.05, "shear_probability": 0.5}
    settings = ViewSettings(planar=True, **everything)
    clips = opened(root, "flat").clips("train")
    batches = Batches(clips, 8, 0, settings, COCO)
    for step in range(6):
        batch = batches[step]
        for view in (*batch.views.values(), batch.key, batch.target):
            x = view.view(8, 64, 17, 3, 1)
            assert not x[:, :, :, 2].any() and x[:, :, :, :2].any()
    u = uniforms(0, 1, 2, (50, 17 + 17))
    corrupted = np.arange(50) % 2 == 0
    flat, space = (sample_matrices(u, 17, s, corrupted) for s in (settings, ViewSettings()))
    np.testing.assert_array_equal(flat[..., :2, :2], space[..., :2, :2])  # the same draws, but for what leads out
    assert space[..., 2, :2].any() and not flat[..., 2, :2].any() and not flat[..., :2, 2].any()


def test_windows_are_divided_by_the_trunk():
    for name in ("coco_17", "kinect_v2_25"):
        layout = LAYOUTS[name]
        clip = convert(as_coco_pixels("v02"), COCO, layout, axis=2)
        wanted = normalise(clip, layout, PLANAR_STEPS)
        windows = torch.from_numpy(clip.transpose(1, 0, 2, 3))[None]
        got = normalise_windows(windows, layout, ("centre", "trunk"))[0]
        np.testing.assert_allclose(got.permute(1, 0, 2, 3), wanted, atol=1e-4)
    assert not normalise_windows(torch.zeros(1, 4, 3, 17, 1), COCO, ("centre", "trunk")).any()


def test_the_check_knows_flat_clips(root, capsys):
    assert check.main([str(root / "flat")]) == 0
    assert "nothing wrong" in capsys.readouterr().out
    about = load_json(root / "flat" / "dataset.json")
    try:
        write_json(root / "flat" / "dataset.json", about | {"dimensions": 3})
        assert check.main([str(root / "flat")]) == 2
        assert "dataset.json must have 'dimensions': 2" in capsys.readouterr().out
    finally:
        write_json(root / "flat" / "dataset.json", about)
    made = load_json(root / "made" / "dataset.json")
    try:
        write_json(root / "made" / "dataset.json", made | {"dimensions": 2})
        assert check.main([str(root / "made")]) == 2
        assert "16 clips have a depth other than 0, but dataset.json says two" in capsys.readouterr().out
    finally:
        write_json(root / "made" / "dataset.json", made)


def test_two_dimensions_through_every_program(root, tmp_path, monkeypatch):
    ran = pretrain(root, tmp_path / "pre", "--epochs 1 --batch-size 8 --knn-every 1", "flat")
    assert ran.status == 0, ran.err
    path = tmp_path / "pre" / files.LAST
    assert files.load(path)["config"]["encoder"]["dimensions"] == 2
    ran = call(
        action_retrieval.main,
        f"--data-root {root} --pretrained {path} {RETRIEVAL} --checkpoint-path {tmp_path}/ret",
    )
    assert ran.status == 0 and "converted" not in ran.out, ran.err
    found = read_features(tmp_path / "ret" / "features.npz").val.features
    encoder = load(path, device="cpu")
    pictures = [as_coco_pixels(name)[:2].transpose(1, 2, 0, 3) for name in NAMES["val"]]  # (T, 17, 2, 1)
    np.testing.assert_allclose(encoder.clip_features(pictures), found, atol=1e-3)
    for main, words in (
        (action_classification.main, f"--epochs 2 --batch-size 8 --checkpoint-path {tmp_path}/lin"),
        (
            motion_prediction.main,
            f"--observe 16 --predict 8 --horizons 8 --epochs 1 --checkpoint-path {tmp_path}/mot --encoder-mode frozen",
        ),
    ):
        ran = call(main, f"--data-root {root} --pretrained {path} {words}")
        assert ran.status == 0, ran.err
    assert "a trunk of 0.5 m" in ran.out
    for show in ("prediction", "views", "features"):
        ran = call(visualize.main, f"{path} --show {show} --data-root {root} --output {tmp_path}/{show}.png --clips 2")
        assert ran.status == 0, ran.err
    lines = "\n".join(str(frame.tolist()) for frame in pictures[0][..., 0])
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    ran = call(live_demo.main, f"{tmp_path}/lin/classifier.pth --stdin json")
    assert ran.status == 0 and f"{len(pictures[0])} frames" in ran.out, ran.err


def test_between_the_plane_and_space(root, kinect, tmp_path):
    """Flat clips on an encoder of space and the other way round, prepared and raw alike."""
    flat_encoder = write_pretrained(
        tmp_path / "f.pth.tar", layout="coco_17", joints=17, persons=1, dimensions=2, **SMALL
    )
    for path, data, said in (
        (kinect, "flat", "upright, with zero depth"),
        (flat_encoder, "made", "the front view"),
    ):
        ran = call(
            action_retrieval.main,
            f"--data-root {root} --pretrained {path} --finetune-dataset {data} {RETRIEVAL} "
            f"--checkpoint-path {tmp_path}/{data}",
        )
        assert ran.status == 0 and said in ran.out, ran.err
    found = read_features(tmp_path / "flat" / "features.npz").val.features
    encoder = load(kinect, device="cpu", input_layout="coco_17")
    pictures = [as_coco_pixels(name)[:2].transpose(1, 2, 0, 3) for name in NAMES["val"]]
    np.testing.assert_allclose(encoder.clip_features(pictures), found, atol=1e-3)
    stream = encoder.start_stream()
    steps = [stream.step(frame) for frame in pictures[0]]
    np.testing.assert_allclose(steps, encoder.frame_features(pictures[0]), atol=1e-4)
    with refuses("'spine'", "two dimensions"):
        load(flat_encoder, device="cpu", normalise="spine")
