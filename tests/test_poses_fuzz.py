"""Damaged files of every form: clips of finite numbers, or a sentence; never another exception, never a warning of NumPy's."""

import copy
import json
import random
import warnings

import numpy as np
import pose_files as pf
import pytest

from data_gen.poses.record import Bad
from data_gen.poses.survey import survey
from utils.errors import UserError

CLIP = next(iter(pf.real_clips(classes=1, each=1, frames=8).values()))[1]
FLAT, WORLD = pf.pixels(pf.in_layout(CLIP, "coco_17")), pf.with_score(pf.camera(pf.in_layout(CLIP, "mediapipe_33")))
JUNK = [None, True, 0, -1, 1e308, float("nan"), "x", "", [], {}, [[]], [{}], {"x": 1}, [1, 2, 3], 10**30, [[1, 2], [3]]]
KEYS = ["keypoints", "frames", "people", "data", "landmarks", "x", "score", "bodies", "label", "instances", "skeleton"]
ROUNDS = 40  # of each form


def write_json(folder):
    pf.write_alphapose(folder / "alphapose.json", FLAT)
    pf.write_mmpose(folder / "mmpose.json", FLAT)
    pf.write_azure(folder / "azure.json", pf.in_layout(CLIP, "azure_kinect_32"))
    for style in ("lists", "named", "world", "object"):
        pf.write_frames(folder / f"{style}.json", WORLD, "mediapipe_33", style)
    pf.write_openpose(folder / "openpose", "openpose", FLAT)
    return [*sorted(folder.glob("*.json")), sorted((folder / "openpose").iterdir())[0]]


def write_bytes(folder):
    np.save(folder / "a.npy", CLIP)
    pf.write_ntu_dictionary(folder / "a.skeleton.npy", CLIP)
    np.savez(folder / "a.npz", keypoints=CLIP, scores=pf.scores(CLIP), fps=30.0, layout="kinect_v2_25")
    pf.write_pickle(folder / "a.pkl", {"a": (0, FLAT), "b": (1, FLAT)}, bare=True)
    pf.write_table(folder / "a.csv", WORLD, pf.columns_of("mediapipe_33", "named"), extra={"frame": range(8)})
    pf.write_table(folder / "b.csv", CLIP, None, delimiter=";", commas=True)
    return sorted(p for p in folder.iterdir() if p.is_file())


def mutated(value, chance, depth=0):
    """A part of parsed JSON replaced, removed or added."""
    if chance.random() < 0.25 or depth > 6 or not isinstance(value, (dict, list)) or not value:
        return copy.deepcopy(chance.choice(JUNK))
    value, draw = copy.copy(value), chance.random()
    if isinstance(value, dict):
        key = chance.choice(list(value))
        if draw < 0.15:
            value.pop(key)
        elif draw < 0.25:
            value[chance.choice(KEYS)] = copy.deepcopy(chance.choice(JUNK))
        else:
            value[key] = mutated(value[key], chance, depth + 1)
        return value
    i = chance.randrange(len(value))
    if draw < 0.1:
        value.pop(i)
    else:
        value[i] = mutated(value[i], chance, depth + 1)
    return value


def damaged(content: bytes, chance) -> bytes:
    """Some bytes changed or removed, mostly near the beginning, where headers are."""
    content = bytearray(content)
    for _ in range(chance.choice([1, 2, 5])):
        i = chance.randrange(min(len(content), chance.choice([150, 400, len(content)])))
        if chance.random() < 0.7:
            content[i] = chance.choice([chance.randrange(256), *b',;\n"0.-'])
        else:
            del content[i : i + chance.randrange(1, 100)]
        content = content or bytearray(b"x")
    return bytes(content)


def read_or_refused(path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            seen = survey(path)
        except UserError:
            return
        for entry in seen.entries:
            for clip in seen.reader(entry):
                if isinstance(clip, Bad):
                    assert clip.reason
                else:
                    assert np.isfinite(clip.array).all() and clip.array.ndim == 4


@pytest.mark.parametrize("kind", ["json", "bytes"])
def test_damaged_files(tmp_path, kind):
    chance = random.Random(0)
    (tmp_path / "good").mkdir()
    for good in (write_json if kind == "json" else write_bytes)(tmp_path / "good"):
        read_or_refused(good)
        path = tmp_path / f"bad{''.join(good.suffixes)}"
        for _ in range(ROUNDS):
            if kind == "json":
                path.write_text(json.dumps(mutated(json.loads(good.read_text()), chance)))
            else:
                path.write_bytes(damaged(good.read_bytes(), chance))
            read_or_refused(path)


def test_coordinates_of_no_body_are_refused_and_infinite_ones_not_seen(tmp_path):
    clip = CLIP.copy()
    clip[3, 7] = np.inf
    np.save(tmp_path / "a.npy", clip)
    seen = survey(tmp_path)
    (got,) = seen.reader(seen.entries[0])
    np.testing.assert_allclose(got.array[0, 3, 7], (CLIP[2, 7] + CLIP[4, 7]) / 2, atol=1e-6)
    clip[3, 7] = 1e12
    np.save(tmp_path / "a.npy", clip)
    (got,) = seen.reader(seen.entries[0])
    assert isinstance(got, Bad) and "a.npy: frame 3, joint 7 (counted from 0)" in got.reason
