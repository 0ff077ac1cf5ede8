"""What is sampled for a step: a function of (seed, step), distributed as the method says."""

import numpy as np
import pytest

from feeder.mixing import CUTMIX, MIXUP, RESIZEMIX, MixSettings, mix_maps, sample_mix
from feeder.sampling import ViewSettings, epoch_order, integers, sample_crop, sample_step, uniforms
from utils.skeleton import KINECT_V2, LAYOUTS

PARTS = KINECT_V2.parts


def step(number, seed=1, batch=8, settings=None, frames=None):
    frames = np.full(40, 150) if frames is None else frames
    return sample_step(seed, number, batch, frames, KINECT_V2, settings or ViewSettings())


def same(a, b):
    keys = ("clips", "starts", "lengths", "matrices", "hidden", "offsets")
    return all(np.array_equal(getattr(a, k), getattr(b, k)) for k in keys) and np.array_equal(
        a.mix.weight, b.mix.weight
    )


def test_a_step_is_a_function_of_seed_and_step():
    assert same(step(7), step(7))
    assert not same(step(7), step(8))
    assert not same(step(7), step(7, seed=2))


def test_raw_numbers_never_change():
    """The random numbers are part of a run: these values were printed once and must not change."""
    np.testing.assert_array_equal(uniforms(42, 1, 3, (2,)), uniforms(42, 1, 3, (4,))[:2])
    words = np.random.Philox(key=np.array([42, (1 << 56) | 3], dtype=np.uint64)).random_raw(2)
    np.testing.assert_array_equal(uniforms(42, 1, 3, (2,)), [(int(w) >> 11) / 2**53 for w in words])


def test_an_epoch_uses_every_clip_once_and_drops_the_last():
    used = np.concatenate([step(s, frames=np.full(43, 100)).clips for s in range(5)])
    assert len(used) == 40 == len(set(used))
    assert sorted(epoch_order(3, 0, 43)) == list(range(43))
    assert not np.array_equal(epoch_order(3, 0, 43), epoch_order(3, 1, 43))


def test_switching_a_part_off_does_not_change_the_other_samples():
    other = step(5, settings=ViewSettings(mask_per_sample=True, mix=MixSettings(probabilities=(0, 0, 1))))
    assert np.array_equal(step(5).matrices, other.matrices) and np.array_equal(step(5).clips, other.clips)


def test_crops():
    u = uniforms(0, 9, 0, (2, 200_000))
    for n in (150, 300, 64, 40, 1):
        start, length = sample_crop(u[0], u[1], np.full(200_000, n), (0.1, 1.0), 64)
        assert (start >= 0).all() and (start + length <= n).all()
        assert length.min() >= min(n, 64) and length.max() <= n
    start, length = sample_crop(u[0], u[1], np.full(200_000, 200), (0.1, 1.0), 64)
    # s uniform in 0.1..1: all crops below 64 frames become 64, so that P(64) = (0.325 - 0.1) / 0.9
    assert (length == 64).mean() == pytest.approx((65 / 200 - 0.1) / 0.9, abs=0.005)
    long = length == 150
    assert start[long].max() == 50 and start[long].mean() == pytest.approx(25, abs=1.5)


def test_transforms_follow_the_probabilities():
    m = np.concatenate([step(s, batch=40).matrices for s in range(150)], axis=1)  # (3, N, 25, 3, 3)
    identity = (m == np.eye(3)).all(axis=(-1, -2)).sum(axis=-1)  # untouched joints per view and clip
    zero = (m == 0).all(axis=(-1, -2)).sum(axis=-1)
    corrupted = identity == 10
    assert set(np.unique(identity)) == {0, 10}, "either all joints are sheared, or 15 of 25 are corrupted"
    assert corrupted[:2].mean() == pytest.approx(0.5, abs=0.02) and not corrupted[2].any()
    assert (zero[corrupted] == 15).mean() == pytest.approx(0.5, abs=0.02)
    assert set(np.unique(zero)) == {0, 15}
    shear = m[2]
    assert (shear == shear[:, :1]).all(), "one shear for all joints"
    assert (np.diagonal(shear, axis1=-2, axis2=-1) == 1).all()
    off = shear[:, 0][:, ~np.eye(3, dtype=bool)]
    assert np.abs(off).max() <= 1 and abs(off.mean()) < 0.02 and off.var() == pytest.approx(1 / 3, abs=0.02)
    jitter = m[0][corrupted[0] & (zero[0] == 0)]
    entries = jitter[~(jitter == np.eye(3)).all(axis=(-1, -2))]
    assert entries.var() == pytest.approx(1 / 3, abs=0.03) and abs(entries.mean()) < 0.03


def test_mask_hides_three_parts_in_each_segment():
    counts = np.zeros(5)
    for s in range(300):
        hidden = step(s).hidden
        assert hidden.shape == (64, 25)
        for segment in hidden.reshape(8, 8, 25):
            assert (segment == segment[0]).all()
            gone = [segment[0, list(part)].all() for part in PARTS]
            assert sum(gone) == 3 and segment[0].sum() == sum(len(p) for p, g in zip(PARTS, gone, strict=True) if g)
            counts += gone
    np.testing.assert_allclose(counts / 2400, 0.6, atol=0.04)
    own = step(0, settings=ViewSettings(mask_per_sample=True)).hidden
    assert own.shape == (8, 64, 25) and not (own == own[0]).all()


def test_mixing_follows_the_ranges():
    modes, lengths, shifts, numbers = [], [], [], []
    for s in range(6000):
        mix = sample_mix(uniforms(4, 3, s, (16,)), 8, PARTS, 25, 64, MixSettings())
        modes.append(mix.mode)
        shifts.append((mix.partner[0]) % 8)
        if mix.mode != MIXUP:
            rows = np.flatnonzero(mix.weight.any(axis=1))
            assert len(rows) % 4 == 0 and rows[0] % 4 == 0
            lengths.append(len(rows) // 4)
            joints = mix.weight.any(axis=0)
            numbers.append(sum(joints[list(part)].all() for part in PARTS))
            # lambda is the share of the map that is the partner's
            assert mix.mix_lambda == pytest.approx(mix.weight.mean(), abs=1e-6)
        else:
            assert (mix.weight == np.float32(mix.mix_lambda)).all()
    share = {m: modes.count(m) / len(modes) for m in (CUTMIX, RESIZEMIX, MIXUP)}
    assert share[CUTMIX] == pytest.approx(0.5, abs=0.03) and share[MIXUP] == pytest.approx(0.25, abs=0.03)
    assert set(lengths) == set(range(7, 12)) and set(numbers) == {2, 3}
    assert set(shifts) == set(range(1, 7)), "the partner is 1..N-2 further"


def test_resizemix_reads_the_start_of_the_partner():
    weight, index, share = mix_maps(RESIZEMIX, PARTS, [0, 4], 2, 8, -1.0, 25, 64, 4)
    assert index[8:40].tolist() == [2 * i for i in range(32)] and index[:8].tolist() == list(range(8))
    assert weight[8:40, list(PARTS[0] + PARTS[4])].all() and weight.sum() == 32 * 9
    assert share == pytest.approx(8 * 9 / (16 * 25))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
def test_other_layouts(layout):
    samples = sample_step(0, 0, 6, np.full(10, 80), layout, ViewSettings())
    assert samples.matrices.shape == (3, 6, layout.joints, 3, 3) and samples.hidden.shape == (64, layout.joints)
    untouched = (samples.matrices[:2] == np.eye(3)).all(axis=(-1, -2)).sum(-1)
    assert set(np.unique(untouched)) <= {0, layout.joints - round(0.6 * layout.joints)}


def test_integers_cover_both_ends():
    assert set(integers(np.linspace(0, 1, 1000, endpoint=False), 3, 5)) == {3, 4, 5}
