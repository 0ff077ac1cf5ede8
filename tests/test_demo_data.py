"""The demo data set: the same bits everywhere, bodies that move like bodies, and a task worth learning."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_gen import demo, raw_ntu, raw_pku
from data_gen.demo_actions import ACTIONS, SECONDS, Timeline, make_actor, mirrored, perform
from data_gen.demo_body import ANGLES, make_subject, pose_body
from data_gen.demo_exact import Chance, cosine, sine, smooth
from data_gen.demo_scene import MAX_FRAMES, MIN_FRAMES, make_clip_scene, make_video_scene
from data_gen.demo_sensor import see
from data_gen.normalise import normalise
from options.class_names import DEMO
from options.datasets import DATASETS
from utils.arrays import open_split
from utils.errors import UserError
from utils.skeleton import KINECT_V2
from utils.untrimmed import open_untrimmed

NAMES = tuple(demo.all_clips())[7::59]  # every action, camera and subject is among them
CHECKSUM = 1294530861
VIDEO_CHECKSUM = 1052122368
OTHER_CHECKSUM = 3848783373


@given(st.floats(-1e4, 1e4))
def test_sine_and_cosine_are_right(turns):
    assert float(sine(turns)) == pytest.approx(math.sin(2 * math.pi * math.fmod(turns, 1.0)), abs=1e-9)
    assert float(cosine(turns)) == pytest.approx(math.cos(2 * math.pi * math.fmod(turns, 1.0)), abs=1e-9)


def test_smooth_rests_at_both_ends():
    x = np.linspace(-0.5, 1.5, 2001)
    y = smooth(x)
    assert y[0] == 0 and y[-1] == 1 and float(smooth(0.5)) == 0.5
    assert (np.diff(y) >= 0).all()
    assert abs(y[502] - 0) < 1e-6 and abs(y[1498] - 1) < 1e-6


def test_streams_of_chance_are_their_own_and_repeat():
    a, b, c = (Chance(0, "a", 1).normal((20000,)) for _ in range(2)), Chance(0, "a", 2), Chance(1, "a", 1)
    first, again = a
    assert np.array_equal(first, again)
    for other in (b, c):
        assert abs(np.corrcoef(first, other.normal((20000,)))[0, 1]) < 0.04
    assert abs(first.mean()) < 0.03 and abs(first.std() - 1) < 0.02
    uniform = Chance(0, "u").uniform(2.0, 4.0, (20000,))
    assert 2 <= uniform.min() and uniform.max() < 4 and abs(uniform.mean() - 3) < 0.03
    assert {Chance(0, i).integer(1, 3) for i in range(60)} == {1, 2, 3}


def test_checksum_is_the_same_everywhere():
    """Made on x86-64 with numpy 2; another value on another machine means that an inexact operation has crept in."""
    clips = demo.all_clips()
    for part in ("action", "camera", "subject", "repetition"):
        everything = {getattr(clip, part) for clip in clips.values()}
        assert {getattr(clips[name], part) for name in NAMES} == everything, part
    assert demo.checksum(NAMES, 0) == CHECKSUM
    assert demo.checksum(NAMES[:3], 1) == OTHER_CHECKSUM
    frames, segments = demo.recorded_video("0004-R", 0)
    tenths = np.rint(frames.astype(np.float64) * 10000).astype("<i4")
    assert demo.zlib.crc32(tenths.tobytes() + repr(segments).encode()) == VIDEO_CHECKSUM


def test_clips_lie_on_the_grid_and_have_the_promised_lengths():
    lengths = []
    for name in NAMES:
        clip = demo.recorded_clip(demo.all_clips()[name])
        tenths = clip.astype(np.float64) * 10000
        assert np.abs(tenths - np.rint(tenths)).max() < 0.01
        assert clip.dtype == np.float32 and clip.shape[0] == 3 and clip.shape[2] == 25
        assert clip.shape[3] == (2 if DEMO[demo.all_clips()[name].action].startswith("step") else 1)
        assert 1.0 < np.median(clip[2]) < 6.0  # metres from the camera
        lengths.append(clip.shape[1])
    assert 0.75 * MIN_FRAMES <= min(lengths) < 80 and 100 < max(lengths) <= MAX_FRAMES


def test_cameras_see_the_same_performance():
    """Distances between two joints are those of the scene, but for the noise, in all cameras."""
    people = make_clip_scene(0, DEMO.index("sit down"), 3, 1)
    for camera in (1, 2, 3):
        seen = see(people, camera, Chance(0, "test", camera), lose_frames=False)[..., 0]
        for pair in ((0, 17), (3, 18), (4, 12)):
            true = np.linalg.norm(people[0][:, :, pair[0]] - people[0][:, :, pair[1]], axis=0)
            found = np.linalg.norm(seen[:, :, pair[0]] - seen[:, :, pair[1]], axis=0)
            assert np.median(np.abs(true - found)) < 0.12


def test_sensor_loses_frames_and_joints():
    people = make_clip_scene(0, DEMO.index("wave"), 2, 1)
    frames = people[0].shape[1]
    clips = [see(people, 2, Chance(0, "lost", i)) for i in range(40)]
    assert min(clip.shape[1] for clip in clips) < frames
    assert max(clip.shape[1] for clip in clips) == frames
    frozen = [(np.abs(np.diff(clip[:, :, 10], axis=1)).max(axis=0) == 0).sum() for clip in clips]
    assert sum(count >= 3 for count in frozen) >= 3  # a wrist that stands still for frames on end


def test_protocols_are_those_of_ntu():
    clips = demo.all_clips()
    assert len(clips) == 1440 and list(clips) == sorted(clips)
    assert len({clip.subject for clip in clips.values()}) >= 12
    splits = demo.protocols(clips)
    counts = {folder: tuple(len(names[s]) for s in ("train", "val")) for folder, names in splits.items()}
    assert counts == {"xsub": (900, 540), "xview": (960, 480)}
    assert {f for folders in DATASETS["demo"].protocols.values() for f in folders} == set(splits)
    subjects = [{clips[n].subject for n in splits["xsub"][s]} for s in ("train", "val")]
    assert subjects == [{1, 2, 4, 5, 8, 9, 13, 14, 15, 16}, {3, 6, 7, 10, 11, 12}]
    assert {clips[n].camera for n in splits["xview"]["val"]} == {1}
    assert all(name[:4] == "S018" and int(name[-3:]) == clip.action + 1 for name, clip in clips.items())
    for names in splits.values():
        assert not set(names["train"]) & set(names["val"])
    assert DATASETS["demo"].classes == tuple(ACTIONS) and set(SECONDS) == set(ACTIONS)


def _performed(action, subject=4, frames=100, seed=5):
    body = make_subject(0, subject)
    actor = make_actor(body, Chance(seed, action))
    return pose_body(perform(action, Timeline(frames, 10.0, 80.0), actor), body)


@pytest.mark.parametrize("action", DEMO)
def test_bodies_keep_their_bones_and_stand_on_the_ground(action):
    points = _performed(action)
    parents = np.array(KINECT_V2.parents)
    bones = np.sqrt(((points - points[:, :, parents]) ** 2).sum(axis=0))
    assert np.ptp(bones, axis=0).max() < 1e-9
    height = points[1].max(axis=1)
    assert 1.0 < height.max() < 2.6
    lowest = points[1, :, [14, 15, 18, 19]].min(axis=0)
    assert lowest.min() > -1e-9
    if action == "jump":
        assert lowest.max() > 0.05
    else:
        assert lowest.max() < 1e-9
    speed = np.abs(np.diff(points, axis=1)).max()
    assert speed < 0.35  # metres a frame: nothing leaps


def test_limbs_bend_the_way_limbs_bend():
    """The shank points backwards of the thigh, never forwards; an elbow the other way."""
    points = _performed("squat")
    facing = np.cross(points[:, :, 16] - points[:, :, 12], [[0.0], [1.0], [0.0]], axis=0)  # right x up = backward
    knee = points[:, :, 17] - (points[:, :, 16] + points[:, :, 18]) / 2
    assert (knee * facing).sum(axis=0).max() < 1e-3
    assert (knee * facing).sum(axis=0).min() < -0.01


def test_walks_go_where_they_say():
    moved = {}
    for action in ("walk forwards", "walk backwards"):
        points = _performed(action)
        facing = -np.cross(points[:, 0, 16] - points[:, 0, 12], [0.0, 1.0, 0.0])
        moved[action] = float((points[:, -1, 0] - points[:, 0, 0]) @ facing / np.linalg.norm(facing))
    assert moved["walk forwards"] > 0.5 and moved["walk backwards"] < -0.5


def test_pairs_meet_and_part():
    for action, sign in (("step towards each other", -1), ("step apart", 1)):
        for repetition in (1, 2):
            first, second = make_clip_scene(0, DEMO.index(action), 6, repetition)
            gap = np.sqrt(((first[:, :, 0] - second[:, :, 0])[[0, 2]] ** 2).sum(axis=0))
            assert sign * (gap[-1] - gap[0]) > 0.15
            assert gap.min() > 0.7


def test_mirrored_exchanges_the_hands():
    rng = np.random.default_rng(0)
    track = rng.normal(size=(len(ANGLES), 7)) * 20
    track[ANGLES.index("flight")] = 0
    assert np.array_equal(mirrored(mirrored(track)), track)
    body = make_subject(0, 1)
    plain, other = pose_body(track, body), pose_body(mirrored(track), body)
    assert np.allclose(other[:, :, 10] * [[-1], [1], [1]], plain[:, :, 6], atol=1e-9)
    assert np.allclose(other[:, :, 14] * [[-1], [1], [1]], plain[:, :, 18], atol=1e-9)
    assert np.allclose(other[:, :, 3] * [[-1], [1], [1]], plain[:, :, 3], atol=1e-9)


@pytest.fixture
def small(monkeypatch):
    """A demo data set of few clips and videos, made in a moment."""
    clips = {name: clip for i, (name, clip) in enumerate(demo.all_clips().items()) if i % 29 == 0}
    monkeypatch.setattr(demo, "all_clips", lambda: clips)
    monkeypatch.setattr(demo, "VIDEOS", 4)
    return clips


def _stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_folders_are_whole_readable_and_reused(small, tmp_path):
    folder = demo.make_demo(tmp_path)
    for protocol in ("xsub", "xview"):
        for split in ("train", "val"):
            found = open_split(folder / protocol, split, 25, 2, len(DEMO))
            assert found.names == demo.protocols(small)[protocol][split]
            assert not found.dropped and np.isfinite(found.data).all()
            for i, name in enumerate(found.names):
                raw = demo.Loader(0)(name)
                padded = np.zeros((3, MAX_FRAMES, 25, 2), dtype=np.float32)
                padded[:, : raw.shape[1], :, : raw.shape[3]] = raw
                assert np.allclose(found.data[i], normalise(padded, KINECT_V2), atol=1e-5)
                assert found.num_frame[i] == raw.shape[1] and found.labels[i] == small[name].action
    before = _stamps(folder)
    demo.make_demo(tmp_path)
    assert _stamps(folder) == before
    (folder / "xview" / "val_num_frame.npy").unlink()  # no longer whole
    demo.make_demo(tmp_path)
    assert (folder / "xview" / "val_num_frame.npy").is_file()
    demo.make_demo(tmp_path, seed=3)
    sidecar = json.loads((folder / "xsub" / "preparation.json").read_text())
    assert sidecar["demo"] == {"generator": demo.VERSION, "seed": 3}
    assert json.loads((folder / "untrimmed" / "preparation.json").read_text())["demo"]["seed"] == 3


def test_an_interrupted_run_leaves_nothing_that_looks_whole(small, tmp_path, monkeypatch):
    calls = iter(range(100))
    recorded = demo.recorded_clip

    def interrupted(clip, seed=0):
        if next(calls) == 20:
            raise KeyboardInterrupt
        return recorded(clip, seed)

    monkeypatch.setattr(demo, "recorded_clip", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.make_demo(tmp_path)
    assert not (tmp_path / "demo" / "xsub").exists() and not (tmp_path / "demo" / "xview").exists()
    monkeypatch.setattr(demo, "recorded_clip", recorded)
    demo.make_demo(tmp_path)
    assert len(open_split(tmp_path / "demo" / "xsub", "train", 25, 2, len(DEMO))) > 0


def test_raw_files_read_back_as_the_same_clips(small, tmp_path):
    folder = demo.write_raw(tmp_path)
    for name in small:
        text = (folder / "nturgb+d_skeletons" / f"{name}.skeleton").read_bytes()
        found, expected = raw_ntu.select(raw_ntu.parse(text, name)), demo.Loader(0)(name)
        assert np.array_equal(found[..., : expected.shape[3]], expected), name
        assert not found[..., expected.shape[3] :].any()
    for name in demo.video_names():
        frames, segments = demo.recorded_video(name)
        found = raw_pku.parse_frames((folder / "PKU_Skeleton_Renew" / f"{name}.txt").read_bytes(), name)
        assert np.array_equal(found, frames.transpose(0, 3, 2, 1))
        rows = (folder / "Train_Label_PKU_final" / f"{name}.txt").read_text().split()
        assert rows == [f"{number + 1},{start},{end},2" for number, start, end in segments]


def test_untrimmed_videos(small, tmp_path):
    folder = demo.make_demo(tmp_path)
    videos = open_untrimmed(folder / "untrimmed", 25, 2)
    assert videos.names == demo.video_names() and videos.num_classes == len(DEMO)
    for i, name in enumerate(videos.names):
        frames, segments = demo.recorded_video(name)
        assert np.array_equal(videos.video(i), frames)
        assert [tuple(row) for row in videos.segments[i].tolist()] == segments
        assert 5 <= len(segments) <= 8
        ends = [0, *(end for _, _, end in segments)]
        starts = [*(start for _, start, _ in segments), len(frames)]
        pauses = [start - end for start, end in zip(starts, ends, strict=True)]
        assert min(pauses) >= 15 and max(pauses) <= 90  # frames of rest and of getting into place
        assert (videos.labels(i) == 0).sum() == sum(pauses)
    three = [videos.segments[i].tolist() for i in range(3)]
    assert three[0] == three[1] == three[2]  # one scene, three cameras


def test_videos_move_without_leaps():
    for number in (1, 4, 19, 22):
        people, segments = make_video_scene(0, number, number % 16, number == 4)
        for person in people:
            assert np.abs(np.diff(person, axis=1)).max() < 0.35
            assert person.shape[1] > segments[-1][2]


def test_both_splits_of_the_videos_hold_most_classes():
    for splits in demo.video_protocols().values():
        assert splits["train"] and splits["val"] and not set(splits["train"]) & set(splits["val"])
        found = {split: set() for split in splits}
        for split, names in splits.items():
            for number in sorted({name[:4] for name in names}):
                found[split] |= {label for label, _, _ in demo.recorded_video(f"{number}-L")[1]}
        assert len(found["train"]) == len(DEMO) and len(found["val"]) >= 12


def test_a_file_in_place_of_the_data_root_is_refused(tmp_path):
    (tmp_path / "data").write_text("")
    for root in (tmp_path / "data", tmp_path / "data" / "below"):
        with pytest.raises(UserError, match="expected a folder"):
            demo.make_demo(root)
        with pytest.raises(UserError, match="--raw .* expected a folder"):
            demo.write_raw(root)
    with pytest.raises(UserError, match="expected 1 or more"):
        demo.main(["--data-root", str(tmp_path), "--workers", "0"])


def _linear_probe(train, train_labels, val, val_labels) -> float:
    """Accuracy of one-against-all ridge regression on standardised inputs."""
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-6
    train, val = (train - mean) / deviation, (val - mean) / deviation
    targets = np.eye(len(DEMO))[train_labels]
    kernel = train @ train.T
    weights = np.linalg.solve(kernel + 0.3 * np.trace(kernel) / len(kernel) * np.eye(len(kernel)), targets)
    return float(((val @ train.T @ weights).argmax(axis=1) == val_labels).mean())


def test_one_frame_tells_at_most_half_of_what_the_clip_tells():
    """The clips of one camera of each performance are enough to see it."""
    clips = {n: c for n, c in demo.all_clips().items() if (c.subject + c.repetition + c.action) % 3 + 1 == c.camera}
    middle, whole, labels = {}, {}, {}
    for split, names in demo.protocols(clips)["xsub"].items():
        rows = []
        for name in names:
            raw = demo.Loader(0)(name)
            padded = np.zeros((3, raw.shape[1], 25, 2), dtype=np.float32)
            padded[..., : raw.shape[3]] = raw
            rows.append(normalise(padded, KINECT_V2)[:, np.linspace(0, raw.shape[1] - 1, 17).round().astype(int)])
        rows = np.stack(rows).astype(np.float64)
        middle[split], whole[split] = rows[:, :, 8].reshape(len(rows), -1), rows.reshape(len(rows), -1)
        labels[split] = np.array([clips[name].action for name in names])
    one, all_frames = (_linear_probe(x["train"], labels["train"], x["val"], labels["val"]) for x in (middle, whole))
    assert all_frames > 0.5 and one <= 0.5 * all_frames, (one, all_frames)
