"""Normalisation of a clip, in array operations, as the released preparation does it.

Four steps, each of which can be left out (detection reads raw coordinates; some published folders skip a rotation), and a
fifth, ours, which takes the place of the last two where clips are flat:

    fill       a person whose first frame is empty keeps only its non-empty frames, moved to the front; empty frames
               at the end are overwritten by repeats of the person's own beginning
    centre     the layout's centre (a joint, or the mean of some) of person 1 is subtracted, frame by frame, from every
               non-zero joint
    trunk      lengths are divided by the clip's median trunk length (base of the spine to between the shoulders of person 1),
               so that pixels, shares of a picture and metres become one unit
    spine      everything is turned so that person 1's `up` vector of frame 0 points along +z
    shoulders  everything is then turned so that person 1's `across` vector of frame 0 points along +x

What looks odd but must stay for equal arrays: a frame in which person 1 is missing is not centred; a vector that is
zero, or that already points along the axis or exactly against it, is not turned; the second turn may tilt the spine
again. A joint at exactly (0, 0, 0) counts as not seen.

Clips of two dimensions lie in the picture's plane, x to the right, y up, z = 0. Turning them in space would say something
about their depth, which nobody knows, and in the plane there is nothing to turn: cameras stand upright. So they are filled,
centred and divided by the trunk's length. Three coordinates stay, one of which is 0, so that every shape, file and model is the
same for both kinds.
"""

import numpy as np

from utils.convert_layout import trunk_length
from utils.errors import UserError
from utils.skeleton import Layout, Place, at

STEPS = ("fill", "centre", "spine", "shoulders")  # what `all` means: the released preparation
PLANAR_STEPS = ("fill", "centre", "trunk")  # what it means for clips of two dimensions
EVERY_STEP = ("fill", "centre", "trunk", "spine", "shoulders")

_TINY = 1e-6  # as released: shorter vectors and smaller angles mean "no turn"
_X_AXIS = np.array([1.0, 0.0, 0.0])
_Z_AXIS = np.array([0.0, 0.0, 1.0])


def parse_steps(text: str, dimensions: int = 3) -> tuple[str, ...]:
    """The steps a flag names: `all`, `none`, or step names with commas between; always in the order of EVERY_STEP.

    UserError for a step that is not known, and for one that turns clips in space where they have two dimensions."""
    if text == "all":
        return STEPS if dimensions == 3 else PLANAR_STEPS
    if text == "none":
        return ()
    known = EVERY_STEP if dimensions == 3 else PLANAR_STEPS
    wanted = [word.strip() for word in text.split(",")]
    for word in wanted:
        if word not in known:
            what = "turns clips in space, and these have two dimensions" if word in EVERY_STEP else "is not known"
            raise UserError(f"normalisation step {word!r} {what}; give all, none, or some of {','.join(known)}")
    return tuple(step for step in EVERY_STEP if step in wanted)


def fill(clip: np.ndarray) -> np.ndarray:
    """Closes the empty beginning and the empty end of each person; clip and result (3, T, V, M)."""
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
    """Subtracts `place` of person 1 from every non-zero joint of everybody, frame by frame; (3, T, V, M)."""
    seen = (clip != 0).any(axis=0)  # (T, V, M)
    return (clip - at(clip[..., 0], place, 2)[:, :, None, None]) * seen


def scale_by_trunk(clip: np.ndarray, layout: Layout) -> np.ndarray:
    """Divides a clip by the median length of person 1's trunk over the frames that show it; (3, T, V, M). A clip that shows
    no trunk stays as it is."""
    person = clip[..., 0].transpose(1, 0, 2).astype(np.float64)  # (T, C, V)
    lengths = trunk_length(person[(person != 0).any(axis=(1, 2))], layout)
    length = np.median(lengths) if len(lengths) else 0.0
    return clip if length < _TINY else (clip / np.float32(length)).astype(clip.dtype)


def turn(vector: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """The rotation (3, 3), float64, that turns `vector` (3,) onto the unit vector `axis` the short way."""
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
    """One clip (3, T, V, M) float32, absent persons and frames zero -> normalised clip of the same shape and type.

    `fill` repeats up to T: pad the clip with zeros to the length that is stored before calling (as released; the
    frames up to the raw count come out the same for any T). steps: any of EVERY_STEP, which is also their order.
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
    first = clip[:, 0, :, 0].astype(np.float64)  # (3, V): person 1 in frame 0, which the turns are read from
    rotation = np.eye(3)
    for step, (start, end), axis in (("spine", layout.up, _Z_AXIS), ("shoulders", layout.across, _X_AXIS)):
        if step in steps:
            joints = rotation @ first
            rotation = turn(at(joints, end, 1) - at(joints, start, 1), axis) @ rotation
    if not np.array_equal(rotation, np.eye(3)):
        # Written out rather than a matrix product: the sum of three terms has the same bits on every machine and for
        # any number of threads.
        r = rotation.astype(np.float32)
        clip = np.stack([r[i, 0] * clip[0] + r[i, 1] * clip[1] + r[i, 2] * clip[2] for i in range(3)])
    return clip
