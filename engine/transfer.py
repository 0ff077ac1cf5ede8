"""Converts clips for an encoder with other frames: another joint layout, more persons, or another number of dimensions.

A `FrameForm` describes a frame. `adapt` converts a clip from one form to another:

* joints by `utils.convert_layout`; missing persons become zero, as in any clip;
* from 3-D to 2-D: the front view, x and the vertical axis; then centred and divided by the length of the trunk, as planar clips
  are;
* from 2-D to 3-D: the clip is put upright into the frontal plane of a normalised body, at the size of a person (a trunk of TRUNK
  metres), with zero depth. The shoulders determine left and right, so that it does not matter whether the person faced the
  camera. The encoder was not trained on bodies without depth; RESULTS.md says what that costs.

A normalised clip is normalised again with the joints of the new layout, whose centre is another joint.
"""

from dataclasses import dataclass

import numpy as np

from data_gen.normalise import PLANAR_STEPS, STEPS, normalise
from utils.convert_layout import convert, describe_conversion, trunk_length
from utils.errors import UserError
from utils.skeleton import Layout, at

TRUNK = 0.5  # metres from the base of the spine to between the shoulders; the median of UI-PRMD is 0.52


@dataclass(frozen=True)
class FrameForm:
    """The form of a frame: joint layout, persons, dimensions (2: z = 0)."""

    layout: Layout
    persons: int
    dimensions: int = 3

    def __str__(self) -> str:
        flat = "" if self.dimensions == 3 else " in two dimensions"
        return f"{self.layout.name} with {self.persons} person{'s' * (self.persons > 1)}{flat}"


def describe_transfer(given: FrameForm, wanted: FrameForm) -> str:
    """The conversion by `adapt` in one line; '' if there is nothing to convert. UserError if it is not possible."""
    if given.persons > wanted.persons:
        raise UserError(
            f"the clips have {given.persons} persons, the encoder reads {wanted.persons}; prepare the clips with --persons "
            f"{wanted.persons} (from_arrays, from_pyskl, from_poses; NTU's and PKU-MMD's own preparation keeps two), or pretrain "
            "an encoder on them"
        )
    parts = [describe_conversion(given.layout, wanted.layout)] if given.layout != wanted.layout else []
    if given.persons != wanted.persons:
        parts.append(f"{given.persons} of {wanted.persons} persons are present")
    if given.dimensions != wanted.dimensions:
        parts.append(
            "from two dimensions to three, upright, with zero depth"
            if wanted.dimensions == 3
            else "from three dimensions to two, the front view"
        )
    return "clips are converted for the encoder: " + "; ".join(parts) if parts else ""


def stand_up(person: np.ndarray, layout: Layout) -> np.ndarray:
    """The matrix (3, 3) that puts planar clips upright into 3-D at the size of a person, from the frames of `person` (3, T, V) that
    are not empty; the identity if all are."""
    person = person.transpose(1, 0, 2).astype(np.float64)  # (T, C, V)
    person = person[(person != 0).any(axis=(1, 2))]
    length = float(np.median(trunk_length(person, layout))) if len(person) else 0.0
    if length < 1e-6:
        return np.eye(3)
    start, end = (at(person, place, -1) for place in layout.across)
    side = -1.0 if np.median(end[:, 0] - start[:, 0]) < 0 else 1.0
    return TRUNK / length * np.array([[side, 0, 0], [0, 0, 0], [0, 1, 0]])


def pad_persons(clip: np.ndarray, persons: int) -> np.ndarray:
    """clip (..., m) -> (..., persons), missing persons zero."""
    return np.pad(clip, [(0, 0)] * (clip.ndim - 1) + [(0, persons - clip.shape[-1])])


def flatten(clip: np.ndarray, upright: bool) -> np.ndarray:
    """The front view of a 3-D clip (3, T, V, M), with z = 0. upright: True if z points up, as after normalisation, False if y does,
    as in a sensor's coordinates."""
    return np.stack([clip[0], clip[2 if upright else 1], np.zeros_like(clip[0])])


def adapt(clip: np.ndarray, given: FrameForm, wanted: FrameForm, had=None) -> np.ndarray:
    """Converts a clip (3, T, V, M) float32 from one form to another, normalised as before.

    had: the normalisation steps that the clip has had, () for raw coordinates; None if unknown, which is treated as all. `fill` is
    not repeated. UserError as in `describe_transfer`."""
    describe_transfer(given, wanted)
    had = (STEPS if given.dimensions == 3 else PLANAR_STEPS) if had is None else tuple(had)
    clip = convert(pad_persons(clip, wanted.persons), given.layout, wanted.layout, axis=2)
    steps = tuple(step for step in had if step != "fill")
    if given.dimensions == 3 and wanted.dimensions == 2:
        clip = flatten(clip, upright="spine" in had)
        steps = tuple(step for step in PLANAR_STEPS if step in ("centre", "trunk") and had)
    elif given.dimensions == 2 and wanted.dimensions == 3:
        matrix = stand_up(clip[..., 0], wanted.layout).astype(np.float32)
        clip = np.einsum("ij,jtvm->itvm", matrix, clip)
        steps = tuple(step for step in steps if step == "centre")
    return normalise(clip, wanted.layout, steps)
