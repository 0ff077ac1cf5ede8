"""All chance of a training step, in one place, as a function of (seed, step).

Random numbers come from Philox, a counter-based generator: the key is (seed, purpose and step), so that step 70,000 can
be drawn without drawing the steps before it. Resuming, another number of workers or of processes therefore gives the
same run, and switching one part of the method off does not shift the draws of the others. Only the raw 64-bit words of
the generator are used and mapped to numbers by the few lines below, so that no library version changes a run.

A step's draws are small arrays for the whole batch, made on the CPU: which clips, where each view is cropped, one 3x3
matrix per joint, what is hidden, how clips are mixed, where the task prompts are placed. Views, masks and mixing are pure
functions of (frames, draws); see views.py, masks.py and mixing.py.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from feeder.masks import hidden_map
from feeder.mixing import MixDraw, MixSettings, draw_mix

# One number per purpose: an independent stream of random numbers each. Never renumber: runs would change.
ORDER, VIEWS, MASK, MIX, PROMPTS, CROP_ONCE, OCCLUSION, WINDOWS, CHUNKS, FUTURES = range(10)
VIEW_NAMES = ("query", "key", "target")  # v1, v2, v3 of the paper's code
PROMPT_USES = ("query", "masked_decoder", "masked", "predicted", "mixed", "key")  # order of the offsets, as released


def uniforms(seed: int, purpose: int, step: int, shape) -> np.ndarray:
    """Independent numbers in [0, 1) of the given shape, a function of (seed, purpose, step)."""
    key = np.array([seed % 2**64, (purpose << 56) | step], dtype=np.uint64)
    words = np.random.Philox(key=key).random_raw(int(np.prod(shape)))
    return ((words >> np.uint64(11)) * 2.0**-53).reshape(shape)


def integers(u: np.ndarray, low, high) -> np.ndarray:
    """Maps uniforms to whole numbers in low..high, both included."""
    return (low + np.floor(u * (np.asarray(high) - low + 1))).astype(np.int64)


def epoch_order(seed: int, epoch: int, num_clips: int, purpose: int = ORDER) -> np.ndarray:
    """A permutation of 0..num_clips-1 for an epoch."""
    return np.argsort(uniforms(seed, purpose, epoch, (num_clips,)), kind="stable")


@dataclass(frozen=True)
class ViewSettings:
    """How views are drawn; the defaults are the paper's run (sections 3 and 4.1, and literals of the released code).

    frames: T; crop: range of the cropped share of a clip; corruption: probability of joint corruption instead of shear
    for query and key; corrupt_zero: probability that corruption zeroes joints instead of jittering them;
    corrupt_share: share of the joints corrupted; shear, jitter: amplitudes of the matrices' entries; planar: whether clips
    lie in the plane z = 0 and stay there."""

    frames: int = 64
    crop: tuple[float, float] = (0.1, 1.0)
    corruption: float = 0.5
    corrupt_zero: float = 0.5
    corrupt_share: float = 0.6
    shear: float = 1.0
    jitter: float = 1.0
    mask_ratio: float = 0.6
    mask_segments: int = 8
    mask_per_sample: bool = False
    planar: bool = False
    mix: MixSettings = MixSettings()


@dataclass
class StepDraws:
    """Draws of one step for the whole batch of N clips.

    clips (N,): which clips; starts, lengths (3, N): the crop of query, key and target in frames; matrices
    (3, N, V, 3, 3): x' = A x per joint; hidden (T, V) or (N, T, V) bool, True = hidden; mix: partner, weight map, index
    map and share; offsets (6,): uniforms in [0, 1) for the places of the task prompts, in the order PROMPT_USES."""

    clips: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    matrices: np.ndarray
    hidden: np.ndarray
    mix: MixDraw
    offsets: np.ndarray


def draw_crop(u_share, u_start, num_frame, crop, least) -> tuple[np.ndarray, np.ndarray]:
    """Crop starts and lengths: a share of the clip's n frames, at least `least` frames unless the clip is shorter."""
    share = crop[0] + (crop[1] - crop[0]) * u_share
    lengths = np.minimum(np.maximum(np.floor(num_frame * share).astype(np.int64), least), num_frame)
    return integers(u_start, 0, num_frame - lengths), lengths


def draw_matrices(u: np.ndarray, joints: int, settings: ViewSettings, corruptible: np.ndarray) -> np.ndarray:
    """One 3x3 matrix per joint from uniforms u (..., 17 + V): a shear, or joint corruption where `corruptible`.

    Shear: ones on the diagonal, U(-1, 1) elsewhere, the same for all joints. Corruption: round(0.6 V) joints (15 of 25)
    without repetition become zero or, with the same probability, x B for a row vector x, that is B^T x.
    Returns float32 (..., V, 3, 3)."""
    shape = u.shape[:-1]
    shear = np.empty((*shape, 9), np.float32)
    shear[..., ::4] = 1.0
    shear[..., [1, 2, 3, 5, 6, 7]] = settings.shear * (2 * u[..., 1:7] - 1)
    out = np.empty((*shape, joints, 3, 3), np.float32)
    out[:] = shear.reshape(*shape, 1, 3, 3)
    rows = np.nonzero(corruptible & (u[..., 0] < settings.corruption))
    u = u[rows]  # (R, 17 + V): of the corrupted ones
    jitter = settings.jitter * (2 * u[:, 8:17] - 1).reshape(-1, 3, 3).swapaxes(1, 2)
    jitter[u[:, 7] < settings.corrupt_zero] = 0.0
    number = round(settings.corrupt_share * joints)
    chosen = np.argsort(u[:, 17:], axis=-1, kind="stable")[:, :number]
    corrupted = np.empty((len(u), joints, 3, 3), np.float32)
    corrupted[:] = np.eye(3)
    corrupted[np.arange(len(u))[:, None], chosen] = jitter[:, None]
    out[rows] = corrupted
    if settings.planar:  # nothing leads out of the plane, or from z, which is 0, into it
        out[..., :2, 2] = out[..., 2, :2] = 0.0
    return out


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, num_clips: int) -> np.ndarray:
    """`epoch_order`, kept for the steps of the epoch: sorting 40,000 numbers takes longer than rendering 50 clips."""
    order = epoch_order(seed, epoch, num_clips)
    order.setflags(write=False)
    return order


def draw_step(
    seed: int, step: int, batch_size: int, num_frame: np.ndarray, parts, joints: int, settings: ViewSettings
) -> StepDraws:
    """All draws of a step. num_frame (clips,): valid frames of every clip; parts: the five body parts of the layout.

    An epoch is floor(clips / batch_size) steps (the last, smaller batch is dropped, as released)."""
    per_epoch = len(num_frame) // batch_size
    epoch, position = divmod(step, per_epoch)
    clips = _order(seed, epoch, len(num_frame))[position * batch_size : (position + 1) * batch_size].copy()
    u = uniforms(seed, VIEWS, step, (3, batch_size, 19 + joints))
    starts, lengths = draw_crop(u[..., 0], u[..., 1], num_frame[clips], settings.crop, settings.frames)
    corruptible = np.array([True, True, False])[:, None]  # the target view is always sheared
    samples = batch_size if settings.mask_per_sample else 1
    u_mask = uniforms(seed, MASK, step, (samples, settings.mask_segments, len(parts)))
    hidden = hidden_map(u_mask, parts, joints, settings.frames, settings.mask_ratio)
    return StepDraws(
        clips=clips,
        starts=starts,
        lengths=lengths,
        matrices=draw_matrices(u[..., 2:], joints, settings, corruptible),
        hidden=hidden if settings.mask_per_sample else hidden[0],
        mix=draw_mix(uniforms(seed, MIX, step, (16,)), batch_size, parts, joints, settings.frames, settings.mix),
        offsets=uniforms(seed, PROMPTS, step, (len(PROMPT_USES),)),
    )
