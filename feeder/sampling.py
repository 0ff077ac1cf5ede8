"""All chance of a training step, in one place, as a function of (seed, step).

Random numbers come from Philox, a counter-based generator: the key is (seed, purpose and step), so that step 70,000 can
be sampled without the steps before it. Resuming, another number of workers or of processes therefore gives the
same run, and switching one part of the method off does not shift the choices of the others. Only the raw 64-bit words of
the generator are used and mapped to numbers by the few lines below, so that no library version changes a run.

A step's samples are small arrays for the whole batch, made on the CPU: which clips, where each view is cropped, one 3x3
matrix per joint, what is hidden, how clips are mixed, where the task prompts are placed. Views, masks and mixing are pure
functions of (frames, samples); see render.py, masks.py and mixing.py.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from feeder.masks import hidden_map
from feeder.mixing import MixSample, MixSettings, sample_mix
from utils.names import PROMPT_USES
from utils.skeleton import Layout

# One number per purpose: an independent stream of random numbers each. Never renumber: runs would change.
ORDER, VIEWS, MASK, MIX, PROMPTS, CROP_ONCE, OCCLUSION, WINDOWS, CHUNKS, FUTURES, BODIES, NOISE, OWN_VIEW, MIRROR = (
    range(14)
)


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
    """How views are sampled; the defaults are the paper's run (sections 3 and 4.1, and literals of the released code).

    frames: T; crop: range of the cropped share of a clip; corruption: probability of joint corruption instead of shear
    for query and key; corrupt_zero: probability that corruption zeroes joints instead of jittering them;
    corrupt_share: share of the joints corrupted; shear, jitter: amplitudes of the matrices' entries; planar: whether clips
    lie in the plane z = 0 and stay there.

    Off in the paper's run, for sets of few clips and subjects: shear_probability: how often a view that is not corrupted is
    sheared; rotation: degrees about each of the three axes (of planar clips about z only); scale: range of a factor for each
    axis; bones: every bone is as long as e^u times itself, u in -bones..bones; mirror: probability that left and right change
    places; noise: standard deviation of every coordinate of query and key."""

    frames: int = 64
    crop: tuple[float, float] = (0.1, 1.0)
    corruption: float = 0.5
    corrupt_zero: float = 0.5
    corrupt_share: float = 0.6
    shear: float = 1.0
    jitter: float = 1.0
    shear_probability: float = 1.0
    rotation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    bones: float = 0.0
    mirror: float = 0.0
    noise: float = 0.0
    mask_ratio: float = 0.6
    mask_segments: int = 8
    mask_per_sample: bool = False
    planar: bool = False
    mix: MixSettings = MixSettings()


@dataclass
class StepSamples:
    """Draws of one step for the whole batch of N clips.

    clips (N,): which clips; starts, lengths (3, N): the crop of query, key and target in frames; matrices
    (3, N, V, 3, 3): x' = A x per joint; bodies (3, N, V, V) or None: x' = B x over the joints, before the matrices; noise
    (2, N, T, V, 3, M) or None: added to query and key; hidden (T, V) or (N, T, V) bool, True = hidden; mix: partner, weight
    map, index map and share; offsets (6 or more,): uniforms in [0, 1) for the places of the task prompts, in the order
    PROMPT_USES."""

    clips: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    matrices: np.ndarray
    bodies: np.ndarray | None
    noise: np.ndarray | None
    hidden: np.ndarray
    mix: MixSample
    offsets: np.ndarray


def sample_crop(u_share, u_start, num_frame, crop, least) -> tuple[np.ndarray, np.ndarray]:
    """Crop starts and lengths: a share of the clip's n frames, at least `least` frames unless the clip is shorter."""
    share = crop[0] + (crop[1] - crop[0]) * u_share
    lengths = np.minimum(np.maximum(np.floor(num_frame * share).astype(np.int64), least), num_frame)
    return integers(u_start, 0, num_frame - lengths), lengths


def sample_matrices(u: np.ndarray, joints: int, settings: ViewSettings, corruptible: np.ndarray) -> np.ndarray:
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


def turn_and_scale(matrices: np.ndarray, u: np.ndarray, settings: ViewSettings) -> np.ndarray:
    """Matrices (..., V, 3, 3), then scaled along the axes, then turned about them. u (..., at least 6): three for the angles,
    three for the factors."""
    degrees = settings.rotation * (2 * u[..., :3] - 1) * ((0, 0, 1) if settings.planar else (1, 1, 1))
    low, high = settings.scale
    factors = low + (high - low) * u[..., 3:6]
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    whole = np.broadcast_to(np.eye(3), (*u.shape[:-1], 3, 3)) * factors[..., None, :]
    for axis in range(3):
        one, two = (axis + 1) % 3, (axis + 2) % 3
        turn = np.broadcast_to(np.eye(3), whole.shape).copy()
        turn[..., one, one] = turn[..., two, two] = cosine[..., axis]
        turn[..., two, one], turn[..., one, two] = sine[..., axis], -sine[..., axis]
        whole = turn @ whole
    return (whole[..., None, :, :] @ matrices).astype(np.float32)


@lru_cache(maxsize=8)
def _bones(layout: Layout) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What `sample_bodies` needs of a skeleton: way (V, V), bone (V, V), centre (V,) and pair (V,). Joint v is the centre plus the
    sum over j of way[v, j] times the bone from j's parent to j, which is bone[j] of the joints; centre: the joints' weights in
    the layout's centre; pair: the joint whose bone has the same factor, on the other side of the body."""
    joints = layout.joints
    way, centre = np.zeros((joints, joints)), np.zeros(joints)
    for joint in range(joints):
        way[joint, list(layout.way_up(joint))] = 1.0
    places = [layout.centre] if isinstance(layout.centre, int) else list(layout.centre)
    np.add.at(centre, places, 1 / len(places))
    bone = np.eye(joints) - np.eye(joints)[list(layout.parents)]
    return way - centre @ way, bone, centre, np.minimum(np.arange(joints), layout.mirrored)


def sample_bodies(u: np.ndarray, layout: Layout, amplitude: float) -> np.ndarray:
    """Another body for each view: every bone with a length of its own, left and right alike, joints put together from the
    root outwards, then moved so that the layout's centre stays where it is. u (..., V) -> (..., V, V) float32: x'_v = sum
    over w of B[v, w] x_w."""
    way, bone, centre, pair = _bones(layout)
    factor = np.exp(amplitude * (2 * u[..., pair] - 1))
    bodies = way @ (factor[..., None] * bone) + centre
    return bodies.astype(np.float32)


def mirror(matrices: np.ndarray, bodies: np.ndarray | None, chosen: np.ndarray, layout: Layout):
    """Matrices (..., V, 3, 3) and bodies (..., V, V) or None with views mirrored before, where chosen (...): x, which runs from
    shoulder to shoulder, changes its sign, and every joint takes the place of that on the other side."""
    matrices[chosen, ..., 0] *= -1
    if bodies is None:
        bodies = np.tile(np.eye(layout.joints, dtype=np.float32), (*chosen.shape, 1, 1))
    bodies[chosen] = bodies[chosen][..., list(layout.mirrored)]
    return matrices, bodies


def sample_noise(seed: int, step: int, shape, deviation: float) -> np.ndarray:
    """Close to normal numbers, float32: of each 64-bit word the sum of its four 16-bit parts, shifted and scaled. (The sum of
    four is within 4 standard deviations, and quick to make.)"""
    key = np.array([seed % 2**64, (NOISE << 56) | step], dtype=np.uint64)
    words = np.random.Philox(key=key).random_raw(int(np.prod(shape))).astype("<u8", copy=False)
    total = words.view("<u2").reshape(-1, 4).sum(axis=1, dtype=np.float32)
    return ((total - 131070.0) * np.float32(deviation / 37837.0)).reshape(shape)  # 65536 / sqrt(3)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, num_clips: int) -> np.ndarray:
    """`epoch_order`, kept for the steps of the epoch: sorting 40,000 numbers takes longer than rendering 50 clips."""
    order = epoch_order(seed, epoch, num_clips)
    order.setflags(write=False)
    return order


def sample_step(
    seed: int,
    step: int,
    batch_size: int,
    num_frame: np.ndarray,
    layout: Layout,
    settings: ViewSettings,
    persons: int = 1,
    places: int = len(PROMPT_USES),
) -> StepSamples:
    """All random choices of a step. num_frame (clips,): valid frames of every clip; persons: of a clip, for the noise; places: how
    many task prompts are placed, more where there are further views than the paper's.

    An epoch is floor(clips / batch_size) steps (the last, smaller batch is dropped, as released)."""
    per_epoch = len(num_frame) // batch_size
    epoch, position = divmod(step, per_epoch)
    clips = _order(seed, epoch, len(num_frame))[position * batch_size : (position + 1) * batch_size].copy()
    parts, joints = layout.parts, layout.joints
    u = uniforms(seed, VIEWS, step, (3, batch_size, 19 + joints))
    starts, lengths = sample_crop(u[..., 0], u[..., 1], num_frame[clips], settings.crop, settings.frames)
    corruptible = np.array([True, True, False])[:, None]  # the target view is always sheared
    samples = batch_size if settings.mask_per_sample else 1
    u_mask = uniforms(seed, MASK, step, (samples, settings.mask_segments, len(parts)))
    hidden = hidden_map(u_mask, parts, joints, settings.frames, settings.mask_ratio)
    matrices, bodies, noise = sample_matrices(u[..., 2:], joints, settings, corruptible), None, None
    u_body = uniforms(seed, BODIES, step, (3, batch_size, 7 + joints))
    if settings.shear_probability < 1:
        plain = (u_body[..., 6] >= settings.shear_probability) & ~(corruptible & (u[..., 2] < settings.corruption))
        matrices[plain] = np.eye(3)
    if settings.rotation or settings.scale != (1.0, 1.0):
        matrices = turn_and_scale(matrices, u_body, settings)
    if settings.bones:
        bodies = sample_bodies(u_body[..., 7:], layout, settings.bones)
    if settings.mirror:
        chosen = uniforms(seed, MIRROR, step, (3, batch_size)) < settings.mirror
        matrices, bodies = mirror(matrices, bodies, chosen, layout)
    if settings.noise:
        noise = sample_noise(seed, step, (2, batch_size, settings.frames, joints, 3, persons), settings.noise)
        if settings.planar:
            noise[..., 2, :] = 0.0
    return StepSamples(
        clips=clips,
        starts=starts,
        lengths=lengths,
        matrices=matrices,
        bodies=bodies,
        noise=noise,
        hidden=hidden if settings.mask_per_sample else hidden[0],
        mix=sample_mix(uniforms(seed, MIX, step, (16,)), batch_size, parts, joints, settings.frames, settings.mix),
        offsets=uniforms(seed, PROMPTS, step, (places,)),
    )
