"""The joint layout of a clip, from the joint names, the number of joints, or the shape of the bodies.

Names are compared as sets of words, so that LEFT_SHOULDER, leftShoulder, "shoulder left" and l_shoulder are equal. When a
file has no names and several layouts have its number of joints (17: COCO or Human3.6M; 25: Kinect or OpenPose), the bodies
decide: in the right layout bones connect neighbours, so that their total length is not much above that of the minimum
spanning tree of the joints, and their lengths are constant; in a wrong one they cross the body. When no layout is clearly
better, a UserError asks for --layout.
"""

import functools
import re
import warnings

import numpy as np

from data_gen.poses.record import BadPoses, seen_joints, third_is_score
from utils.errors import UserError
from utils.skeleton import LAYOUTS, Layout

CLEARLY = 0.9  # a layout's `excess` must be below this part of the second best
_FRAMES = 60  # bodies that are measured
_WHOLE = 0.7  # least share of seen joints of a body that is measured
_WORDS = {"l": "left", "r": "right", "naval": "navel", "centre": "center", "lft": "left", "rt": "right", "heal": "heel"}
_SMPL = {"base of spine": "pelvis", "lower spine": "spine1", "middle of spine": "spine2", "upper spine": "spine3"}
_OTHER_NAMES = {  # layout -> our name of a joint -> its name in the sensor's or estimator's files, where it differs
    "kinect_v2_25": {"base of spine": "SpineBase", "middle of spine": "SpineMid", "between shoulders": "SpineShoulder"}
    | {f"tip of {side} hand": f"HandTip {side}" for side in ("left", "right")},
    "kinect_v1_20": {"base of spine": "HipCenter", "middle of spine": "Spine", "between shoulders": "ShoulderCenter"},
    "azure_kinect_32": {"base of spine": "PELVIS"}
    | {f"{side} collar": f"CLAVICLE_{side}" for side in ("left", "right")}
    | {f"tip of {side} hand": f"HANDTIP_{side}" for side in ("left", "right")},
    "openpose_25": {"between shoulders": "Neck", "base of spine": "MidHip"}
    | {
        f"{side} {toe} toe": f"{side[0].upper()}{toe.title()}Toe"
        for side in ("left", "right")
        for toe in ("big", "small")
    },
    "openpose_18": {"between shoulders": "Neck"},
    "halpe_26": {"top of head": "head", "between shoulders": "neck", "base of spine": "hip"},
    "h36m_17": {
        "base of spine": "root",
        "middle of spine": "spine",
        "between shoulders": "thorax",
        "top of head": "head",
    }
    | {"nose": "neck_base", "left ankle": "left_foot", "right ankle": "right_foot"},
    "smpl_22": _SMPL,
    "smpl_24": _SMPL,
}
WHOLE_BODY = {  # number of joints of a whole-body layout -> (layout, number) of its first joints; 501: MediaPipe with face
    133: ("coco_17", 17),
    136: ("halpe_26", 26),
    501: ("mediapipe_33", 33),
}


@functools.lru_cache(maxsize=4096)
def words_of(name: str) -> frozenset[str]:
    """A joint's name as a set of lower-case words, with left and right for l and r."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])", " ", name)
    parts = []
    for word in re.split(r"[^A-Za-z0-9]+", spaced):
        word = word.lower()
        fused = re.fullmatch(r"(left|right)([a-z]+)|([a-z]{3,})(left|right)", word)
        parts += [part for part in (fused.groups() if fused else (word,)) if part]
    fused = [
        re.fullmatch(r"([lr])(eye|ear|shoulder|elbow|wrist|hand|hip|knee|ankle|foot|heel|thumb)", p) for p in parts
    ]
    parts = [w for p, f in zip(parts, fused, strict=True) for w in (f.groups() if f else (p,))]
    return frozenset(_WORDS.get(part, part) for part in parts)


@functools.cache
def known_names() -> dict[str, list[dict[frozenset, int]]]:
    """layout -> its sets of joint names, each {words: joint number}."""
    known = {}
    for name, layout in LAYOUTS.items():
        other = _OTHER_NAMES.get(name, {})
        ways = [layout.names, *([[other.get(joint, joint) for joint in layout.names]] if other else [])]
        known[name] = [{words_of(joint): v for v, joint in enumerate(way)} for way in ways]
    return known


@functools.lru_cache(maxsize=64)
def match_names(names: tuple[str, ...], wanted: str | None = None) -> tuple[str, list[int]] | None:
    """(layout, for each of its joints the position in `names` or -1), or None when no layout has these names.

    wanted: try only this layout. Chosen is the layout with the largest overlap, intersection over union of both sets of
    names, if that is above one half."""
    given = {words_of(name): i for i, name in reversed(list(enumerate(names)))}
    best, chosen = 0.5, None
    for layout, ways in known_names().items():
        for way in ways:
            common = len(given.keys() & way.keys())
            share = common / max(1, len(given.keys() | way.keys()))
            if wanted == layout and common >= len(way) // 2:
                share += 1
            if share > best and wanted in (None, layout):
                best, chosen = share, (layout, [given.get(words, -1) for words in way])
    return chosen


def _tree(points: np.ndarray) -> float:
    """Length of the minimum spanning tree of points (V, C), by Prim's algorithm."""
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    near, total = distance[0].copy(), 0.0
    outside = np.ones(len(points), bool)
    outside[0] = False
    for _ in range(len(points) - 1):
        nearest = int(np.where(outside, near, np.inf).argmin())
        total += near[nearest]
        outside[nearest] = False
        near = np.minimum(near, distance[nearest])
    return total


def excess(bodies: np.ndarray, layout: Layout) -> float:
    """How badly a layout's bones fit bodies (F, V, C), NaN where joints are not seen: the mean bone length divided by the mean
    edge of the minimum spanning tree (about 1.0 to 1.6 for the right layout, 2 to 4 for a wrong one), plus the standard
    deviation of the bone lengths over the bodies, on the same scale."""
    parents = np.array(layout.parents)
    own = parents != np.arange(len(parents))
    ratios, lengths = [], []
    for body in bodies:
        seen = seen_joints(body)
        bones = np.linalg.norm(body - body[parents], axis=-1)[own]
        tree = _tree(body[seen]) / (seen.sum() - 1)
        if tree > 0 and np.isfinite(bones).any():
            ratios.append(np.nanmean(bones) / tree)
            lengths.append(bones / tree)
    if not ratios:
        return np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a bone that is never seen
        spread = np.nanstd(lengths, axis=0)
    return float(np.mean(ratios) + np.nanmean(spread))


def whole_bodies(points: np.ndarray, most: int = _FRAMES) -> np.ndarray:
    """Up to `most` evenly spread bodies of (T, M, V, C) whose joints are mostly seen: (F, V, C), NaN for unseen joints."""
    bodies = points.reshape(-1, *points.shape[2:])
    seen = (np.abs(bodies) < 1e7).all(-1) & (bodies != 0).any(-1)  # no NaN, and nothing that overflows
    good = seen.sum(1) >= max(3, _WHOLE * bodies.shape[1])
    bodies = np.where(seen[good][..., None], bodies[good], np.nan)
    return bodies[np.linspace(0, len(bodies) - 1, min(most, len(bodies))).astype(int)] if len(bodies) else bodies


def with_joints(number: int) -> list[Layout]:
    return [layout for layout in LAYOUTS.values() if layout.joints == number]


def by_shape(points: np.ndarray, place: str) -> tuple[str, str]:
    """(layout, why) of clips (T, M, V, C) without names; UserError when it cannot be determined."""
    V = points.shape[2]
    candidates = with_joints(V)
    if V in WHOLE_BODY:
        name, first = WHOLE_BODY[V]
        return name, f"the first {first} of {V} joints of a whole body"
    if not candidates:
        counts = ", ".join(f"{name} {layout.joints}" for name, layout in LAYOUTS.items())
        raise UserError(f"{place}: no known layout has {V} joints ({counts}); a new one is a row of utils/skeleton.py")
    if len(candidates) == 1:
        return candidates[0].name, f"{V} joints"
    bodies = whole_bodies(points)
    both = " or ".join(layout.name for layout in candidates)
    if not len(bodies):
        raise UserError(
            f"{place}: {V} joints are {both}, and no body is seen completely enough to decide; give --layout"
        )
    ranked = sorted((excess(bodies, layout), layout.name) for layout in candidates)
    if ranked[0][0] > CLEARLY * ranked[1][0]:
        raise UserError(f"{place}: {V} joints are {both}, and the bodies do not show which; give --layout")
    return ranked[0][
        1
    ], f"{V} joints, and its bones fit the bodies ({ranked[0][0]:.2f}; {ranked[1][1]} {ranked[1][0]:.2f})"


def joint_named(layout: Layout, *names: str) -> int | None:
    """The joint number of the first of `names` that the layout has, None if it has none."""
    for name in names:
        for way in known_names()[layout.name]:
            if words_of(name) in way:
                return way[words_of(name)]
    return None


def reorder(array: np.ndarray, places: list[int]) -> np.ndarray:
    """(T, M, V', ...) -> (T, M, V, ...): joint v from places[v], NaN where that is -1."""
    out = array[:, :, [max(0, p) for p in places]].copy()
    out[:, :, [v for v, p in enumerate(places) if p < 0]] = np.nan
    return out


def shape_of_columns(numbers: np.ndarray, path) -> tuple[int, int, int]:
    """(V, C, columns before the first joint) of a table (rows, columns) without names: a known number of joints with 2 to 4
    numbers each that matches the number of columns; of several, the one whose bodies fit a layout best."""
    found = []
    for skipped in (0, 1):
        width = numbers.shape[1] - skipped
        if skipped and not (len(numbers) > 1 and (np.diff(numbers[:, 0]) > 0).all()):
            continue
        for C in (2, 3, 4):
            if width % C == 0:
                found += [(layout, C, skipped) for layout in with_joints(width // C)]
                found += [(None, C, skipped) for V in WHOLE_BODY if V == width // C]
        if found:
            break
    if not found:
        counts = ", ".join(str(n) for n in sorted({layout.joints for layout in LAYOUTS.values()}))
        raise BadPoses(
            f"{path}: {numbers.shape[1]} columns of numbers are not 2, 3 or 4 numbers each for a known number of joints "
            f"({counts})"
        )
    shapes = {(layout.joints if layout else (numbers.shape[1] - s) // C, C, s) for layout, C, s in found}
    if len(shapes) == 1:
        return shapes.pop()
    ranked = []
    for layout, C, s in found:
        if layout is not None:
            values = numbers[:, s:].reshape(len(numbers), 1, layout.joints, C)
            flat = C == 3 and third_is_score(values)
            bodies = whole_bodies(values[..., : 2 if flat or C == 2 else 3])
            ranked.append((excess(bodies, layout) if len(bodies) else np.inf, layout.joints, C, s))
    ranked.sort()
    best = ranked[0]
    rival = next((r for r in ranked if r[1:] != best[1:]), None)
    if not np.isfinite(best[0]) or rival is not None and best[0] > CLEARLY * rival[0]:
        raise BadPoses(
            f"{path}: {numbers.shape[1]} columns may be {best[1]} joints or {rival[1] if rival else '?'}; add a header with "
            "the joint names"
        )
    return best[1:]
