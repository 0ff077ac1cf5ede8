"""Clips for an encoder that reads another kind of frame: another joint layout, more persons, or another number of dimensions.

A `FrameForm` says what a frame is. `adapt` takes a clip from one form to another:

* joints by `utils.convert_layout`; persons that are missing are zeros, as absent ones are in any clip;
* from space to the plane: what is across and what is up, seen from ahead, as a camera would; then centred and divided by the
  trunk's length as clips of the plane are;
* from the plane to space: the clip stands upright in the plane that a normalised body faces, at the size of a person (a trunk
  of TRUNK metres), without depth. Left and right are as the shoulders say, so that it does not matter whether the person faced
  the camera. The encoder never saw a body without depth; RESULTS.md says what that costs.

What was normalised is normalised again, by the new layout's joints: the same body has its centre elsewhere there.
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
    """What a frame is: joint layout, persons, dimensions (2: z = 0)."""

    layout: Layout
    persons: int
    dimensions: int = 3

    def __str__(self) -> str:
        flat = "" if self.dimensions == 3 else " in two dimensions"
        return f"{self.layout.name} with {self.persons} person{'s' * (self.persons > 1)}{flat}"


def say_transfer(given: FrameForm, wanted: FrameForm) -> str:
    """What `adapt` does, in one line; '' where nothing is to be done. UserError where it cannot be done."""
    if given.persons > wanted.persons:
        raise UserError(
            f"the clips have {given.persons} persons, the encoder reads {wanted.persons}; prepare them with --persons "
            f"{wanted.persons} (from_arrays, from_pyskl, from_poses; NTU's and PKU-MMD's own preparation keeps two), or pretrain "
            "an encoder on them"
        )
    parts = [describe_conversion(given.layout, wanted.layout)] if given.layout != wanted.layout else []
    if given.persons != wanted.persons:
        parts.append(f"{given.persons} of {wanted.persons} persons are there")
    if given.dimensions != wanted.dimensions:
        parts.append(
            "clips of two dimensions stand upright in space, without depth"
            if wanted.dimensions == 3
            else "of three dimensions those of the picture's plane are taken"
        )
    return "clips are converted for the encoder: " + "; ".join(parts) if parts else ""


def stand_up(person: np.ndarray, layout: Layout) -> np.ndarray:
    """The matrix (3, 3) that puts flat clips upright into space at a person's size, by the frames of `person` (3, T, V) that
    show one; the identity where none does."""
    person = person.transpose(1, 0, 2).astype(np.float64)  # (T, C, V)
    person = person[(person != 0).any(axis=(1, 2))]
    length = float(np.median(trunk_length(person, layout))) if len(person) else 0.0
    if length < 1e-6:
        return np.eye(3)
    start, end = (at(person, place, -1) for place in layout.across)
    side = -1.0 if np.median(end[:, 0] - start[:, 0]) < 0 else 1.0
    return TRUNK / length * np.array([[side, 0, 0], [0, 0, 0], [0, 1, 0]])


def pad_persons(clip: np.ndarray, persons: int) -> np.ndarray:
    """clip (..., m) -> (..., persons), those that are missing zero."""
    return np.pad(clip, [(0, 0)] * (clip.ndim - 1) + [(0, persons - clip.shape[-1])])


def flatten(clip: np.ndarray, upright: bool) -> np.ndarray:
    """A clip (3, T, V, M) of space as seen from ahead, z = 0. upright: whether z points upwards, as after normalisation, or y,
    as in a sensor's coordinates."""
    return np.stack([clip[0], clip[2 if upright else 1], np.zeros_like(clip[0])])


def adapt(clip: np.ndarray, given: FrameForm, wanted: FrameForm, had=None) -> np.ndarray:
    """A clip (3, T, V, M) float32 of one form in another, normalised by its steps.

    had: steps of normalisation that the clip has been through, () for raw coordinates; None where nobody knows, which is
    taken for all. `fill` is not done again. UserError as `say_transfer`."""
    say_transfer(given, wanted)
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
