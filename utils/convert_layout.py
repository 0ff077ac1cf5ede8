"""Conversion of clips from any joint layout to any other: missing joints are computed from those that are there.

An encoder reads one layout. For clips of another layout, joints that both have are copied, and every other joint is a
weighted mean of existing ones: the base of the spine is the middle of the hips; a hand is the middle of index finger and
pinky, or the wrist if there are no fingers. `RULES` has the recipes by joint name, the best first; a joint of a recipe that
is missing is computed by its own recipe. So one table is enough for every pair of layouts, and a new layout needs only a row
in `utils/skeleton.py`, and a rule for each joint name that no other layout has.

The weights of a joint sum to 1, so computed joints are translated, rotated and scaled with the clip: raw and normalised
clips are converted in the same way, in two dimensions and in three. An absent person (zeros) stays zero. Computed joints of
the face are near the head and do not rotate with it, since Kinect's joints do not show where the nose points.

Source of the rules: the anatomy in the layouts' documentation; the position of the neck between shoulders and head is
measured in the Kinect v2 clips of UI-PRMD (7 of 22 cm).
"""

from functools import cache

import numpy as np

from utils.errors import UserError
from utils.skeleton import Layout, mirrored


def _mean(*names: str) -> dict[str, float]:
    return {name: 1 / len(names) for name in names}


# Of a pair of joints the left one; recipes of the right one have left and right exchanged.
RULES: dict[str, tuple[dict[str, float], ...]] = {
    "base of spine": (_mean("left hip", "right hip"),),
    "lower spine": ({"base of spine": 0.6, "middle of spine": 0.4},),
    "spine navel": ({"base of spine": 0.35, "middle of spine": 0.65},),
    "middle of spine": (_mean("spine navel", "spine chest"), _mean("base of spine", "between shoulders")),
    "spine chest": ({"middle of spine": 0.65, "between shoulders": 0.35},),
    "upper spine": ({"middle of spine": 0.75, "between shoulders": 0.25},),
    "between shoulders": (_mean("left shoulder", "right shoulder"),),
    "neck": ({"between shoulders": 0.7, "head": 0.3},),
    "head": (_mean("left ear", "right ear"), _mean("nose", "top of head"), {"nose": 1.0}, {"top of head": 1.0}),
    "top of head": ({"head": 1.7, "neck": -0.7},),
    "nose": ({"head": 0.85, "neck": 0.15},),
    "left ear": ({"head": 1.0, "left shoulder": 0.2, "right shoulder": -0.2},),
    "left eye": ({"nose": 0.6, "head": 0.4, "left shoulder": 0.1, "right shoulder": -0.1},),
    "left eye inner": ({"left eye": 0.7, "right eye": 0.3},),
    "left eye outer": ({"left eye": 1.2, "right eye": -0.2},),
    "mouth left": ({"nose": 0.7, "neck": 0.3, "left shoulder": 0.08, "right shoulder": -0.08},),
    "left collar": ({"between shoulders": 0.7, "left shoulder": 0.3},),
    "left wrist": ({"left hand": 1.0},),
    "left hand": (_mean("left index", "left pinky"), {"left wrist": 1.0}),
    "tip of left hand": ({"left index": 1.0}, {"left hand": 1.0}),
    "left thumb": ({"left hand": 1.0},),
    "left index": ({"tip of left hand": 1.0},),
    "left pinky": ({"left hand": 1.0},),
    "left ankle": ({"left foot": 1.0},),
    "left heel": ({"left ankle": 1.2, "left foot": -0.2},),
    "left foot": ({"left foot index": 1.0}, {"left big toe": 1.0}, {"left ankle": 1.0}),
    "left foot index": ({"left big toe": 1.0}, {"left foot": 1.0}),
    "left big toe": ({"left foot index": 1.0}, {"left foot": 1.0}),
    "left small toe": ({"left foot": 1.0},),
}


def _recipes(name: str) -> tuple[dict[str, float], ...]:
    if name in RULES:
        return RULES[name]
    return tuple({mirrored(k): w for k, w in recipe.items()} for recipe in RULES.get(mirrored(name), ()))


def _made_of(name: str, there: dict[str, int], above: frozenset[str] = frozenset()) -> dict[int, float] | None:
    """{joint number: weight} for a joint name; None when no recipe leads to existing joints. above: the names that are being
    computed, which cannot be part of the recipe."""
    if name in there:
        return {there[name]: 1.0}
    above |= {name}
    for recipe in _recipes(name):
        parts = {k: None if k in above else _made_of(k, there, above) for k in recipe}
        if None not in parts.values():
            weights: dict[int, float] = {}
            for k, share in recipe.items():
                for joint, weight in parts[k].items():
                    weights[joint] = weights.get(joint, 0.0) + share * weight
            return weights
    return None


@cache
def conversion(source: Layout, target: Layout) -> tuple[dict[int, float], ...]:
    """For each joint of `target` the joints of `source` that it is computed from, {joint: weight}; weights sum to 1.

    UserError, naming the joint, when one cannot be computed from the joints of `source`."""
    there = {name: joint for joint, name in enumerate(source.names)}
    found = {name: _made_of(name, there) for name in target.names}
    missing = [name for name, weights in found.items() if weights is None]
    if missing:
        raise UserError(
            f"clips of layout {source.name} cannot be converted to {target.name}: there is no rule to compute its "
            f"{missing[0]} from their {source.joints} joints; use clips and an encoder of the same layout"
        )
    return tuple(found.values())


def made_joints(source: Layout, target: Layout) -> tuple[str, ...]:
    """The names of the joints of `target` that `source` lacks, which a conversion computes."""
    conversion(source, target)
    return tuple(name for name in target.names if name not in source.names)


def describe_conversion(source: Layout, target: Layout) -> str:
    """One line for the user: the two layouts, and which joints are computed."""
    made = made_joints(source, target)
    return f"{source.name} -> {target.name}: " + (f"made {', '.join(made)}" if made else "every joint is there")


def point(x, layout: Layout, name: str):
    """Coordinates of a joint by name, computed as in a conversion if the layout lacks it: x (..., V), an array or a tensor ->
    (...)."""
    weights = _made_of(name, {joint: number for number, joint in enumerate(layout.names)})
    if weights is None:
        raise UserError(f"joint layout {layout.name} has no {name!r}, and no joints to compute it from")
    return sum(weight * x[..., joint] for joint, weight in weights.items())


def trunk_length(x, layout: Layout):
    """Distance from the base of the spine to between the shoulders, (...), in poses x (..., C, V), an array or a tensor."""
    spine = point(x, layout, "between shoulders") - point(x, layout, "base of spine")
    return (spine * spine).sum(-1) ** 0.5


def convert(x: np.ndarray, source: Layout, target: Layout, axis: int = -3) -> np.ndarray:
    """Converts clips from layout `source` to `target`. axis: the joint axis of x, by default that of (..., V, C, M); other
    axes, units and dtype are kept. UserError as for `conversion`, ValueError for another number of joints."""
    if x.shape[axis] != source.joints:
        raise ValueError(f"expected {source.joints} joints of {source.name} on axis {axis}, found {x.shape}")
    if source == target:
        return x
    joints = np.moveaxis(x, axis, 0)
    out = np.empty((target.joints, *joints.shape[1:]), dtype=x.dtype)
    for place, weights in zip(out, conversion(source, target), strict=True):
        if len(weights) == 1:
            place[...] = joints[next(iter(weights))]
        else:
            place[...] = sum(weight * joints[joint] for joint, weight in weights.items())
    return np.moveaxis(out, 0, axis)
