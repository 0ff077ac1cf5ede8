"""Normalisation of a clip (3, T, V, M) with array operations, equal to the released preparation.

Four steps, each optional (detection reads raw coordinates; some published folders skip a rotation), and a fifth of our
own that replaces the last two for two-dimensional clips:

    fill       a person whose first frame is empty keeps only its non-empty frames, moved to the front; empty frames
               at the end are overwritten by repeating the person's frames from the beginning
    centre     the layout's centre (a joint, or the mean of some) of person 1 is subtracted, frame by frame, from every
               non-zero joint
    trunk      all lengths are divided by the clip's median trunk length (base of the spine to between the shoulders of
               person 1), so that pixels, fractions of a picture and metres become one unit
    spine      all joints are rotated so that person 1's `up` vector of frame 0 points along +z
    shoulders  all joints are then rotated so that person 1's `across` vector of frame 0 points along +x

Kept so that arrays equal the released ones: a frame without person 1 is not centred; a vector that is zero, or that
already points along the axis or exactly against it, is not rotated; the second rotation may tilt the spine again. A
joint at exactly (0, 0, 0) counts as not seen.

Two-dimensional clips lie in the picture's plane, x to the right, y up, z = 0. A rotation in space would need their depth,
which is unknown, and in the plane cameras are upright already. So these clips are filled, centred and divided by the
trunk length. They keep three coordinates, the third 0, so that shapes, files and models are the same for both kinds.
"""

import numpy as np

from utils.convert_layout import trunk_length
from utils.errors import UserError
from utils.skeleton import Layout, Place, at

STEPS = ("fill", "centre", "spine", "shoulders")  # `all`: the released preparation
PLANAR_STEPS = ("fill", "centre", "trunk")  # `all` for clips of two dimensions
EVERY_STEP = ("fill", "centre", "trunk", "spine", "shoulders")

_TINY = 1e-6  # as released: no rotation for shorter vectors and smaller angles
_X_AXIS = np.array([1.0, 0.0, 0.0])
_Z_AXIS = np.array([0.0, 0.0, 1.0])


def parse_steps(text: str, dimensions: int = 3) -> tuple[str, ...]:
    """The steps of --normalise: `all`, `none`, or step names separated by commas; returned in the order of EVERY_STEP.

    UserError for an unknown step, and for a rotation in space of two-dimensional clips."""
    if text == "all":
        return STEPS if dimensions == 3 else PLANAR_STEPS
    if text == "none":
        return ()
    known = EVERY_STEP if dimensions == 3 else PLANAR_STEPS
    wanted = [word.strip() for word in text.split(",")]
    for word in wanted:
        if word not in known:
            what = "rotates clips in space, but these have two dimensions" if word in EVERY_STEP else "is not known"
            raise UserError(f"normalisation step {word!r} {what}; give all, none, or some of {','.join(known)}")
    return tuple(step for step in EVERY_STEP if step in wanted)


def fill(clip: np.ndarray) -> np.ndarray:
    """Fills the empty frames at the beginning and end of each person; clip and result (3, T, V, M)."""
    total = clip.shape[1]
    present = (clip != 0).any(axis=(0, 2))  # (T, M)
    filled = clip.copy()
    for person in range(clip.shape[3]):
        seen = np.flatnonzero(present[:, person])
        if not len(seen):
            continue
        kept = seen if seen[0] > 0 else np.arange(seen[-1] + 1)  # gaps in the middle stay when frame 0 is there
        if len(kept) < total:
            filled[..., person] = clip[..., person][:, np.resize(kept, total)]  # np.resize repeats the indices
    return filled


def centre(clip: np.ndarray, place: Place) -> np.ndarray:
    """Subtracts `place` of person 1 from every non-zero joint of all persons, frame by frame; (3, T, V, M)."""
    seen = (clip != 0).any(axis=0)  # (T, V, M)
    return (clip - at(clip[..., 0], place, 2)[:, :, None, None]) * seen


def scale_by_trunk(clip: np.ndarray, layout: Layout) -> np.ndarray:
    """Divides a clip (3, T, V, M) by the median trunk length of person 1 over the frames with person 1. A clip without a
    trunk is returned unchanged."""
    person = clip[..., 0].transpose(1, 0, 2).astype(np.float64)  # (T, C, V)
    lengths = trunk_length(person[(person != 0).any(axis=(1, 2))], layout)
    length = np.median(lengths) if len(lengths) else 0.0
    return clip if length < _TINY else (clip / np.float32(length)).astype(clip.dtype)


def turn(vector: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """The rotation (3, 3), float64, by the smallest angle that maps the direction of `vector` (3,) to the unit vector `axis`."""
    vector = np.asarray(vector, dtype=np.float64)
    normal = np.cross(vector, axis)
    if np.abs(vector).sum() < _TINY or np.abs(normal).sum() < _TINY:
        return np.eye(3)
    cosine = np.clip(vector @ axis / np.linalg.norm(vector), -1.0, 1.0)
    angle = np.arccos(cosine)
    if angle < _TINY:
        return np.eye(3)
    x, y, z = normal / np.linalg.norm(normal)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle) * cross + (1.0 - cosine) * (cross @ cross)  # Rodrigues' formula


def normalise(clip: np.ndarray, layout: Layout, steps=STEPS) -> np.ndarray:
    """A clip (3, T, V, M) float32, zeros for absent persons and frames -> the normalised clip, same shape and type.

    `fill` repeats frames up to T: pad the clip with zeros to the stored length before the call (as released; the first
    frames, up to the raw count, do not depend on T). steps: any of EVERY_STEP, applied in that order.
    """
    unknown = [step for step in steps if step not in EVERY_STEP]
    if unknown:
        raise ValueError(f"unknown normalisation steps {unknown}; known: {EVERY_STEP}")
    if clip.ndim != 4 or clip.shape[0] != 3 or clip.shape[2] != layout.joints:
        raise ValueError(f"expected a clip (3, T, {layout.joints}, M), got {clip.shape}")
    clip = np.array(clip, dtype=np.float32)
    if not clip.any():
        return clip
    if "fill" in steps:
        clip = fill(clip)
    if "centre" in steps:
        clip = centre(clip, layout.centre)
    if "trunk" in steps:
        clip = scale_by_trunk(clip, layout)
    first = clip[:, 0, :, 0].astype(np.float64)  # (3, V): person 1 in frame 0, which defines the rotations
    rotation = np.eye(3)
    for step, (start, end), axis in (("spine", layout.up, _Z_AXIS), ("shoulders", layout.across, _X_AXIS)):
        if step in steps:
            joints = rotation @ first
            rotation = turn(at(joints, end, 1) - at(joints, start, 1), axis) @ rotation
    if not np.array_equal(rotation, np.eye(3)):
        # A sum of three terms instead of a matrix product: its bits are the same on every machine and for any number of
        # threads.
        r = rotation.astype(np.float32)
        clip = np.stack([r[i, 0] * clip[0] + r[i, 1] * clip[1] + r[i, 2] * clip[2] for i in range(3)])
    return clip
