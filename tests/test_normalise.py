"""Normalisation: the released numbers, a slow twin, and what must not happen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen.normalise import STEPS, normalise, parse_steps, turn
from tests.slow_prepare import slow_normalise
from utils.errors import UserError
from utils.skeleton import KINECT_V2, LAYOUTS


def random_clip(seed: int, seen: np.ndarray, joints: int) -> np.ndarray:
    """A clip (3, T, V, M) with zeros where seen (T, M) is False."""
    frames, persons = seen.shape
    clip = np.random.default_rng(seed).standard_normal((3, frames, joints, persons)) + 2.0
    return (clip * seen[None, :, None, :]).astype(np.float32)


def test_golden_normalise_equals_the_released_code(golden):
    with np.load(golden / "normalise.npz") as file:
        raw, out = file["raw"], file["out"]
    for clip, expected in zip(raw, out, strict=True):
        np.testing.assert_allclose(normalise(clip, KINECT_V2), expected, atol=2e-6, rtol=0)


@given(
    seed=st.integers(0, 2**32 - 1),
    seen=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12),
    steps=st.sets(st.sampled_from(STEPS)),
    layout=st.sampled_from(list(LAYOUTS.values())),
)
@settings(max_examples=80, deadline=None)
def test_equals_the_slow_twin_for_any_presence_steps_and_layout(seed, seen, steps, layout):
    clip = random_clip(seed, np.array(seen), layout.joints)
    before = clip.copy()
    result = normalise(clip, layout, tuple(steps))
    assert result.dtype == np.float32 and result.shape == clip.shape
    np.testing.assert_array_equal(clip, before)  # the input is not changed
    np.testing.assert_allclose(result, slow_normalise(clip, layout, steps), atol=5e-6, rtol=1e-5)


def test_valid_frames_do_not_depend_on_the_stored_length():
    seen = np.ones((20, 2), dtype=bool)
    seen[5:, 1] = False  # person 2 leaves: filled with repeats, within the valid frames too
    clip = random_clip(3, seen, 25)
    longer = np.pad(clip, ((0, 0), (0, 13), (0, 0), (0, 0)))
    np.testing.assert_array_equal(normalise(longer, KINECT_V2)[:, :20], normalise(clip, KINECT_V2))


def test_first_frame_is_upright_and_faces_along_x():
    clip = normalise(random_clip(5, np.ones((9, 2), dtype=bool), 25), KINECT_V2)
    assert not clip[:, :, KINECT_V2.centre, 0].any()
    start, end = KINECT_V2.across
    across = clip[:, 0, end, 0] - clip[:, 0, start, 0]
    np.testing.assert_allclose(across[1:], 0, atol=1e-5)
    assert across[0] > 0


def test_no_step_changes_nothing_and_an_empty_clip_stays_empty():
    clip = random_clip(6, np.array([[0, 1], [1, 0]], dtype=bool), 25)
    np.testing.assert_array_equal(normalise(clip, KINECT_V2, ()), clip)
    assert not normalise(np.zeros_like(clip), KINECT_V2).any()


@pytest.mark.parametrize("vector", [(0, 0, 0), (0, 0, 2), (0, 0, -2), (1e-9, 0, 0)])
def test_released_code_does_not_turn_these(vector):
    np.testing.assert_array_equal(turn(np.array(vector), np.array([0.0, 0, 1])), np.eye(3))


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="unknown normalisation steps"):
        normalise(np.zeros((3, 4, 25, 2), np.float32), KINECT_V2, ("rotate",))
    with pytest.raises(ValueError, match="expected a clip"):
        normalise(np.zeros((3, 4, 20, 2), np.float32), KINECT_V2)
    assert parse_steps("all") == STEPS and parse_steps("none") == ()
    assert parse_steps("spine, fill") == ("fill", "spine")
    with pytest.raises(UserError, match="'rotate' is not known"):
        parse_steps("fill,rotate")
