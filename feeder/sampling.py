"""The random choices of a training step, all in this module, as a function of (seed, step).

Input: seed, step, number of frames of every clip, `ViewSettings`. Output: `StepSamples`, small arrays for the whole batch,
made on the CPU: which clips, where each view is cropped, one 3x3 matrix per joint, what is hidden, how clips are mixed,
where the task prompts are placed. Views, masks and mixing are pure functions of (frames, samples); see render.py, masks.py
and mixing.py.

Random numbers come from Philox, a counter-based generator: the key is (seed, purpose and step), so that step 70,000 can
be sampled without the steps before it. A resumed run, or one with another number of workers or processes, is therefore the
same run, and switching off one part of the method does not change the samples of the others. Only the raw 64-bit words of
the generator are used and mapped to numbers below, so that no library version changes a run.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from feeder.masks import hidden_map
from feeder.mixing import MixSample, MixSettings, sample_mix
from utils.names import PROMPT_USES
from utils.skeleton import Layout

# Each purpose has a number and so an independent stream of random numbers. Never renumber: runs would change.
ORDER, VIEWS, MASK, MIX, PROMPTS, CROP_ONCE, OCCLUSION, WINDOWS, CHUNKS, FUTURES, BODIES, NOISE, OWN_VIEW, MIRROR = (
    range(14)
)


def uniforms(seed: int, purpose: int, step: int, shape) -> np.ndarray:
    """Independent uniform numbers in [0, 1), float64 of the given shape, a function of (seed, purpose, step)."""
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

    frames: T; crop: range of the share of a clip that is cropped; corruption: probability of joint corruption instead of
    shear for query and key; corrupt_zero: probability that corruption zeroes joints instead of jittering them;
    corrupt_share: share of the joints that are corrupted; shear, jitter: amplitudes of the matrices' entries; mask_ratio:
    share of the body parts that is hidden in each of mask_segments segments of a clip; mask_per_sample: a mask for each
    clip instead of one for the batch; planar: whether clips lie in the plane z = 0 and stay there.

    Off in the paper's run, for sets of few clips and subjects: shear_probability: of shear, where a view is not corrupted;
    rotation: maximum angle in degrees about each of the three axes (about z only, if planar); scale: range of the factor of
    each axis; bones: the length of every bone is multiplied by e^u, u in -bones..bones; mirror: probability that left and
    right are swapped; noise: standard deviation of the noise on every coordinate of query and key."""

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
    """The samples of one step for the whole batch of N clips.

    clips (N,): indices of clips; starts, lengths (3, N): the crops of query, key and target in frames; matrices
    (3, N, V, 3, 3): x' = A x per joint; bodies (3, N, V, V) or None: x' = B x over the joints, before the matrices; noise
    (2, N, T, V, 3, M) or None: added to query and key; hidden (T, V) or (N, T, V) bool, True = hidden; mix: partner, weight
    map, index map and lambda; offsets (6 or more,): uniforms in [0, 1), where each task prompt is placed, in the order of
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
    """Starts and lengths (...) of crops, in frames: a share within `crop` of a clip's `num_frame` frames, at least `least`
    frames unless the clip is shorter."""
    share = crop[0] + (crop[1] - crop[0]) * u_share
    lengths = np.minimum(np.maximum(np.floor(num_frame * share).astype(np.int64), least), num_frame)
    return integers(u_start, 0, num_frame - lengths), lengths


def sample_matrices(u: np.ndarray, joints: int, settings: ViewSettings, corruptible: np.ndarray) -> np.ndarray:
    """One 3x3 matrix per joint from uniforms u (..., 17 + V): a shear, or, in some views of those that are `corruptible`
    (...), joint corruption.

    Shear: ones on the diagonal, U(-1, 1) elsewhere, the same for all joints. Corruption: round(0.6 V) different joints (15
    of 25) become zero or, with the same probability, x B for a row vector x, that is B^T x.
    Returns float32 (..., V, 3, 3)."""
    shape = u.shape[:-1]
    shear = np.empty((*shape, 9), np.float32)
    shear[..., ::4] = 1.0
    shear[..., [1, 2, 3, 5, 6, 7]] = settings.shear * (2 * u[..., 1:7] - 1)
    out = np.empty((*shape, joints, 3, 3), np.float32)
    out[:] = shear.reshape(*shape, 1, 3, 3)
    rows = np.nonzero(corruptible & (u[..., 0] < settings.corruption))
    u = u[rows]  # (R, 17 + V): of the R corrupted views
    jitter = settings.jitter * (2 * u[:, 8:17] - 1).reshape(-1, 3, 3).swapaxes(1, 2)
    jitter[u[:, 7] < settings.corrupt_zero] = 0.0
    number = round(settings.corrupt_share * joints)
    chosen = np.argsort(u[:, 17:], axis=-1, kind="stable")[:, :number]
    corrupted = np.empty((len(u), joints, 3, 3), np.float32)
    corrupted[:] = np.eye(3)
    corrupted[np.arange(len(u))[:, None], chosen] = jitter[:, None]
    out[rows] = corrupted
    if settings.planar:  # z stays 0, and x and y do not depend on it
        out[..., :2, 2] = out[..., 2, :2] = 0.0
    return out


def scale_and_rotate(matrices: np.ndarray, u: np.ndarray, settings: ViewSettings) -> np.ndarray:
    """Matrices (..., V, 3, 3) followed by a scaling along the axes and a rotation about them, float32. u (..., at least 6):
    uniforms, three for the angles, then three for the factors."""
    degrees = settings.rotation * (2 * u[..., :3] - 1) * ((0, 0, 1) if settings.planar else (1, 1, 1))
    low, high = settings.scale
    factors = low + (high - low) * u[..., 3:6]
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    whole = np.broadcast_to(np.eye(3), (*u.shape[:-1], 3, 3)) * factors[..., None, :]
    for axis in range(3):
        one, two = (axis + 1) % 3, (axis + 2) % 3
        rotation = np.broadcast_to(np.eye(3), whole.shape).copy()
        rotation[..., one, one] = rotation[..., two, two] = cosine[..., axis]
        rotation[..., two, one], rotation[..., one, two] = sine[..., axis], -sine[..., axis]
        whole = rotation @ whole
    return (whole[..., None, :, :] @ matrices).astype(np.float32)


@lru_cache(maxsize=8)
def _bones(layout: Layout) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The matrices of a skeleton for `sample_bodies`: path (V, V), bone (V, V), centre (V,) and pair (V,). The bone of joint j
    is the vector from its parent to it, bone[j] @ joints; a joint v is the centre plus the sum over j of path[v, j] times
    the bone of j; centre: weights of the joints, whose mean is the layout's centre; pair: the joint whose bone has the same
    factor, since it is the same bone on the other side of the body."""
    joints = layout.joints
    path, centre = np.zeros((joints, joints)), np.zeros(joints)
    for joint in range(joints):
        path[joint, list(layout.path_to_root(joint))] = 1.0
    centre_joints = [layout.centre] if isinstance(layout.centre, int) else list(layout.centre)
    np.add.at(centre, centre_joints, 1 / len(centre_joints))
    bone = np.eye(joints) - np.eye(joints)[list(layout.parents)]
    return path - centre @ path, bone, centre, np.minimum(np.arange(joints), layout.mirrored)


def sample_bodies(u: np.ndarray, layout: Layout, amplitude: float) -> np.ndarray:
    """Random bone lengths for each view: every bone is multiplied by its own factor, the same left and right; joints follow
    from the root outwards, and the layout's centre stays where it is. u (..., V): uniforms; amplitude: of the factors'
    logarithm. Returns B (..., V, V) float32: x'_v = sum over w of B[v, w] x_w."""
    path, bone, centre, pair = _bones(layout)
    factor = np.exp(amplitude * (2 * u[..., pair] - 1))
    bodies = path @ (factor[..., None] * bone) + centre
    return bodies.astype(np.float32)


def mirror(matrices: np.ndarray, bodies: np.ndarray | None, chosen: np.ndarray, layout: Layout):
    """Matrices (..., V, 3, 3) and bodies (..., V, V) preceded by a mirroring of the chosen (...) views: x, the axis from
    shoulder to shoulder, changes its sign, and left and right joints are swapped. bodies None: no other bodies."""
    matrices[chosen, ..., 0] *= -1
    if bodies is None:
        bodies = np.tile(np.eye(layout.joints, dtype=np.float32), (*chosen.shape, 1, 1))
    bodies[chosen] = bodies[chosen][..., list(layout.mirrored)]
    return matrices, bodies


def sample_noise(seed: int, step: int, shape, deviation: float) -> np.ndarray:
    """Approximately normal noise, float32 of the given shape: the sum of the four 16-bit parts of each 64-bit word, shifted
    and scaled to the standard deviation. It is fast and never larger than 4 standard deviations."""
    key = np.array([seed % 2**64, (NOISE << 56) | step], dtype=np.uint64)
    words = np.random.Philox(key=key).random_raw(int(np.prod(shape))).astype("<u8", copy=False)
    total = words.view("<u2").reshape(-1, 4).sum(axis=1, dtype=np.float32)
    return ((total - 131070.0) * np.float32(deviation / 37837.0)).reshape(shape)  # mean; deviation 65536 / sqrt(3)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, num_clips: int) -> np.ndarray:
    """`epoch_order`, cached for the steps of the epoch: sorting 40,000 numbers takes longer than rendering 50 clips."""
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
    prompts: int = len(PROMPT_USES),
) -> StepSamples:
    """All random choices of a step. num_frame (clips,): valid frames of every clip; persons: M, for the shape of the noise;
    prompts: number of offsets of task prompts, more than the paper's where there are further views.

    An epoch is floor(clips / batch_size) steps (the last, smaller batch is dropped, as released)."""
    per_epoch = len(num_frame) // batch_size
    epoch, position = divmod(step, per_epoch)
    clips = _order(seed, epoch, len(num_frame))[position * batch_size : (position + 1) * batch_size].copy()
    parts, joints = layout.parts, layout.joints
    u = uniforms(seed, VIEWS, step, (3, batch_size, 19 + joints))
    starts, lengths = sample_crop(u[..., 0], u[..., 1], num_frame[clips], settings.crop, settings.frames)
    corruptible = np.array([True, True, False])[:, None]  # the target view is never corrupted
    samples = batch_size if settings.mask_per_sample else 1
    u_mask = uniforms(seed, MASK, step, (samples, settings.mask_segments, len(parts)))
    hidden = hidden_map(u_mask, parts, joints, settings.frames, settings.mask_ratio)
    matrices, bodies, noise = sample_matrices(u[..., 2:], joints, settings, corruptible), None, None
    u_body = uniforms(seed, BODIES, step, (3, batch_size, 7 + joints))
    if settings.shear_probability < 1:
        plain = (u_body[..., 6] >= settings.shear_probability) & ~(corruptible & (u[..., 2] < settings.corruption))
        matrices[plain] = np.eye(3)
    if settings.rotation or settings.scale != (1.0, 1.0):
        matrices = scale_and_rotate(matrices, u_body, settings)
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
        offsets=uniforms(seed, PROMPTS, step, (prompts,)),
    )
