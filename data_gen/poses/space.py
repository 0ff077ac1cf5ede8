"""Units, axes and handedness of poses, found from the bodies of a whole data set.

The result is Kinect's space: metres, y up, z away from the camera, right-handed; in two dimensions the picture's plane with
y up, in pixels (normalisation divides by the trunk length later). Each decision is a printed line with what was measured,
and a flag overrides it.

* Units: the trunk (from the middle of the hips to the middle of the shoulders) of a person is about half a metre, so its
  median distinguishes metres, centimetres and millimetres. In two dimensions numbers within 0..1 are shares, fractions of
  the picture's sides, and become pixels by the size of the picture; all others are pixels.
* Axes: the trunk points up in most frames. y down, as for cameras and pictures, or z up are rotated, never mirrored.
* Handedness: the toes (else the nose, else the knees) are in front of a body; with the up direction and the shoulders this
  shows whether the space is mirrored. If so it is mirrored back, since left and right would be swapped.
"""

from dataclasses import dataclass, replace

import numpy as np

from data_gen.poses.joints import joint_named
from data_gen.poses.record import BadPoses, PoseOptions, Poses
from utils.errors import UserError
from utils.skeleton import Layout

UNITS = ("m", "cm", "mm", "pixels", "shares", "other")
TRUNK = 0.5  # metres, of an adult
PICTURE = (1920, 1080)  # assumed size of the picture, for shares without one
_METRES = {"m": 1.0, "cm": 0.01, "mm": 0.001}
_UPRIGHT = 0.7  # cosine of the mean trunk with an axis from which that axis counts as up
_INSIDE = 0.9  # least part of x within 0..1 for shares of a picture; limbs may be outside
_MIRRORED = -0.15  # mean chirality below which a space is left-handed; right-handed bodies give 0.4 to 0.9
_NOSE = 0.4  # of the distance between the ears: a nose less far in front of them is not used
_BENT = 0.25  # of the thigh: a knee less far in front of the line from hip to ankle is not used
_TURNS = {  # up axis -> rotation to +y
    "y": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "-y": ((-1, 0, 0), (0, -1, 0), (0, 0, 1)),
    "z": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "-z": ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    "x": ((0, -1, 0), (1, 0, 0), (0, 0, 1)),
    "-x": ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
}
_WORDS = {
    "m": "metres",
    "cm": "centimetres",
    "mm": "millimetres",
    "pixels": "pixels",
    "shares": "shares of the picture",
}


@dataclass(frozen=True)
class Space:
    """The conversion to Kinect's space. dimensions C: 2 or 3; units: one of UNITS; factor: to metres (1 in two dimensions);
    size: (width, height) for shares whose clip has none; turn: rotation (C, C); lines: one for each decision, to print."""

    dimensions: int
    units: str
    factor: float
    size: tuple[int, int]
    turn: tuple[tuple[float, ...], ...]
    lines: tuple[str, ...] = ()

    def of(self, points: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
        """Points (..., C) -> Kinect's space, float64. size: (width, height) of their picture, None for the common one."""
        if points.shape[-1] < self.dimensions:
            raise BadPoses(f"{points.shape[-1]} coordinates per joint, but the other clips have {self.dimensions}")
        points = points[..., : self.dimensions]
        if self.units == "shares":
            points = points * _sides(size or self.size, self.dimensions)
        return self.factor * points @ np.array(self.turn, dtype=np.float64).T


def _sides(size: tuple[int, int], dimensions: int) -> np.ndarray:
    return np.array([size[0], size[1], size[0]][:dimensions], dtype=np.float64)  # z has the scale of x


def trunk_of(points: np.ndarray, layout: Layout) -> np.ndarray:
    """(..., V, C) -> vectors (..., C) from the middle of the hips to the middle of the shoulders; NaN where one is not seen."""
    middle = []
    for what in ("hip", "shoulder"):
        pair = [joint_named(layout, f"{side} {what}") for side in ("left", "right")]
        middle.append((points[..., pair[0], :] + points[..., pair[1], :]) / 2)
    return middle[1] - middle[0]


def _unit(vectors: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _ahead(points: np.ndarray, layout: Layout) -> list[np.ndarray]:
    """Forward directions of bodies (F, V, 3), the most reliable first: from ankles to toes, from ears to nose, from the line
    hip-ankle to each bent knee; only those for which the layout has the joints."""

    def pair(*names: str) -> list[int | None]:
        return [joint_named(layout, *(f"{side} {name}" for name in names)) for side in ("left", "right")]

    hips, knees, ankles, toes = pair("hip"), pair("knee"), pair("ankle", "foot"), pair("foot index", "big toe", "foot")
    nose, ears = joint_named(layout, "nose"), pair("ear")
    found = []
    if None not in (*ankles, *toes) and ankles != toes:
        found.append(sum(points[:, toe] - points[:, ankle] for ankle, toe in zip(ankles, toes, strict=True)))
    if None not in (nose, *ears):
        ahead = points[:, nose] - (points[:, ears[0]] + points[:, ears[1]]) / 2
        wide = np.linalg.norm(points[:, ears[0]] - points[:, ears[1]], axis=-1)
        found.append(np.where((np.linalg.norm(ahead, axis=-1) > _NOSE * wide)[:, None], ahead, np.nan))
    if None not in (*hips, *knees, *ankles):
        for hip, knee, ankle in zip(hips, knees, ankles, strict=True):
            bent = points[:, knee] - (points[:, hip] + points[:, ankle]) / 2
            leg = np.linalg.norm(points[:, knee] - points[:, hip], axis=-1)
            found.append(np.where((np.linalg.norm(bent, axis=-1) > _BENT * leg)[:, None], bent, np.nan))
    return found


def chirality(points: np.ndarray, layout: Layout) -> float:
    """Mean over bodies (F, V, 3) of (forward x up) . (left to right shoulder), unit vectors, weighted by the length of the
    forward vector: above 0 in right-handed coordinates, below 0 in mirrored ones, about 0 when it cannot be decided."""
    left, right = (joint_named(layout, f"{side} shoulder") for side in ("left", "right"))
    up = _unit(trunk_of(points, layout))
    across = points[:, right] - points[:, left]
    across = _unit(across - (across * up).sum(-1, keepdims=True) * up)
    best = 0.0
    for ahead in _ahead(points, layout):
        values, weights = (np.cross(ahead, up) * across).sum(-1), np.linalg.norm(ahead, axis=-1)
        good = np.isfinite(values) & (weights > 0)
        if good.any():
            best = float(values[good].sum() / weights[good].sum())
            if abs(best) > abs(_MIRRORED):
                break
    return best


def _bodies(sample: list[Poses]) -> np.ndarray:
    """Up to 4,000 bodies of the sample, (F, V, C), NaN where joints are not seen."""
    each = max(1, 4000 // len(sample))
    parts = []
    for poses in sample:
        bodies = poses.points.reshape(-1, *poses.points.shape[2:])
        bodies = np.where(np.abs(bodies) < 1e7, bodies, np.nan)
        bodies = bodies[np.isfinite(bodies).any(axis=(1, 2)) & (bodies != 0).any(axis=(1, 2))]
        parts.append(
            bodies[np.linspace(0, len(bodies) - 1, min(each, len(bodies))).astype(int)] if len(bodies) else bodies
        )
    return np.concatenate(parts)


def find_units(bodies: np.ndarray, layout: Layout, declared: set) -> tuple[str, str]:
    """(units, what was measured, to print). declared: units that the files state."""
    if len(declared) == 1 and None not in declared:
        unit = declared.pop()
        return unit, f"{_WORDS.get(unit, unit)}, as in files of this format"
    C = bodies.shape[-1]
    flat = bodies[..., :2]
    seen = flat[np.isfinite(flat)]
    trunk = np.linalg.norm(trunk_of(bodies, layout), axis=-1)
    trunk = trunk[np.isfinite(trunk) & (trunk > 0)]
    length = float(np.median(trunk)) if len(trunk) else np.nan
    x = bodies[..., 0][np.isfinite(bodies[..., 0])]
    inside = float(((x > -0.01) & (x < 1.01)).mean())
    if (C == 2 or layout.name == "mediapipe_33") and inside > _INSIDE and np.abs(seen).max() < 3 and length < 0.9:
        depth = ", z with the scale of x" if C == 3 else ""
        return "shares", f"shares of the picture ({100 * inside:.0f} % of x is within 0..1){depth}"
    if C == 2:
        return "pixels", "pixels of the picture"
    for unit, factor in _METRES.items():
        if 0.15 <= length * factor <= 1.5:
            return unit, f"{_WORDS[unit]} (the trunk measures {length:.4g})"
    return "other", f"unknown (the trunk measures {length:.4g}); set to a trunk of {TRUNK} m"


def find_up(bodies: np.ndarray, layout: Layout) -> tuple[str | None, str]:
    """(axis that points up, what was measured); None when the bodies are not aligned with an axis."""
    up = _unit(trunk_of(bodies, layout))
    up = up[np.isfinite(up).all(-1)]
    if not len(up):
        return None, "no trunk is seen completely"
    mean = up.mean(0)
    axis = int(np.abs(mean).argmax())
    name = ("" if mean[axis] > 0 else "-") + "xyz"[axis]
    measured = f"(mean direction of the trunk {' '.join(f'{m:.2f}' for m in mean)})"
    if abs(mean[axis]) < _UPRIGHT:
        return None, f"bodies are not aligned with an axis {measured}"
    return name, f"{name.replace('-', 'minus ')} points up {measured}"


def find_space(sample: list[Poses], layout: Layout, options: PoseOptions = PoseOptions()) -> Space:  # noqa: B008 (it is frozen)
    """The space of clips whose joints are in the order of `layout`. Options override what the bodies show.

    UserError when some clips have two and others three dimensions, or options contradict them."""
    found = {poses.points.shape[3] for poses in sample}
    C = options.dimensions or min(found)
    if len(found) > 1 and options.dimensions is None:
        raise UserError(
            "some clips have two coordinates per joint, others three; give --dimensions 2, or convert them separately"
        )
    if C > min(found):
        raise UserError("--dimensions 3: the clips have two coordinates per joint; leave the flag out")
    sample = [replace(poses, points=poses.points[..., :C]) for poses in sample]
    bodies = _bodies(sample)
    if not len(bodies):
        raise UserError("no frame of the sampled clips has a person")
    if unit := options.units:
        why = f"{_WORDS[unit]}, as --units says"
    else:
        unit, why = find_units(bodies, layout, {poses.units for poses in sample})
    lines = [f"units: {why}"]
    if unit == "shares":
        if options.size is None and not any(poses.size for poses in sample):
            assumed = f"{PICTURE[0]} x {PICTURE[1]} is assumed"
            lines.append(f"picture: its size is not known, {assumed}; give it with --picture-size W H")
        parts = []
        for poses in sample:
            sides = _sides(poses.size or options.size or PICTURE, C)
            parts.append(poses.points.reshape(-1, *poses.points.shape[2:]) * sides)
        bodies = np.concatenate(parts)
    factor = 1.0
    if C == 3:
        factor = _METRES.get(unit) or TRUNK / _median_trunk(bodies, layout)
        if unit in ("shares", "pixels"):
            lines.append(f"scale: lengths are set to a trunk of {TRUNK} m; depth is the estimator's guess")
    declared = {poses.up for poses in sample}
    turn, more = _turn(bodies * factor, layout, options, declared.pop() if len(declared) == 1 else None)
    return Space(C, unit, factor, options.size or PICTURE, turn, (*lines, *more))


def _median_trunk(bodies: np.ndarray, layout: Layout) -> float:
    lengths = np.linalg.norm(trunk_of(bodies, layout), axis=-1)
    lengths = lengths[np.isfinite(lengths) & (lengths > 0)]
    if not len(lengths):
        raise UserError("no trunk (hips and shoulders) is seen completely, so the units are not known; give --units")
    return float(np.median(lengths))


def _turn(bodies: np.ndarray, layout: Layout, options: PoseOptions, declared: str | None):
    """(rotation (C, C), lines to print). declared: the up axis that the files state, used when the bodies do not show it."""
    C = bodies.shape[-1]
    up, why = (options.up, f"{options.up} points up, as --up says") if options.up else find_up(bodies, layout)
    if up is None and declared is not None:
        up, why = declared, f"{why}; {declared.replace('-', 'minus ')} points up in files of this format"
    if C == 2:
        down = up == "-y"
        done = "y is turned upwards" if down else "kept"
        return ((1.0, 0.0), (0.0, -1.0 if down else 1.0)), (f"axes: {why}; {done}",)
    turn = np.array(_TURNS[up or "y"], dtype=np.float64)
    hand = chirality(bodies, layout) if options.mirror is None else np.nan
    mirrored = bool(hand < _MIRRORED) if options.mirror is None else options.mirror
    if mirrored:
        turn = np.diag([-1.0, 1.0, 1.0]) @ turn
    done = "kept" if up in (None, "y") and not mirrored else "turned" if not mirrored else "turned and mirrored"
    lines = [f"axes: {why}; {done}"]
    if mirrored:
        reason = "as --mirror says" if options.mirror else f"chirality {hand:.2f}"
        lines.append(f"handedness: left-handed ({reason}), which swaps left and right; mirrored back")
    return tuple(tuple(float(v) for v in row) for row in turn), tuple(lines)
