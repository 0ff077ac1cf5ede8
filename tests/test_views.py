"""Views compared with a slow reference: one clip, one frame, one joint at a time, written from the definition."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from feeder.batches import Batches
from feeder.clips import PackedClips
from feeder.masks import expand_hidden, mask_view
from feeder.mixing import mix_views
from feeder.render import centre_crop, channels_of
from feeder.sampling import ViewSettings, sample_bodies, scale_and_rotate, uniforms
from utils.names import STREAMS
from utils.skeleton import KINECT_V2, LAYOUTS, at


def random_clips(count=9, persons=2, seed=0, joints=25) -> PackedClips:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 130, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return PackedClips(
        frames=torch.from_numpy(rng.normal(size=(offsets[-1], joints, 3, persons)).astype(np.float32)),
        offsets=torch.from_numpy(offsets[:-1]),
        num_frame=torch.from_numpy(lengths),
        labels=torch.zeros(count, dtype=torch.long),
        names=tuple(f"clip{i}" for i in range(count)),
        dropped=(),
        source="test",
    )


def slow_view(clips, clip, start, length, matrices, frames, stream):
    """(T, V, C, M) by the definition."""
    low = int(clips.offsets[clip]) + start
    x = clips.frames[low : low + length].numpy().astype(np.float64)  # (L, V, C, M)
    out = np.zeros((frames, 25, 3, x.shape[3]))
    for t in range(frames):
        source = max((t + 0.5) * length / frames - 0.5, 0)
        lower = int(source)
        upper = min(lower + 1, length - 1)
        frame = x[lower] * (1 - (source - lower)) + x[upper] * (source - lower)
        for v in range(25):
            for m in range(x.shape[3]):
                out[t, v, :, m] = matrices[v] @ frame[v, :, m]
    if stream == "bone":
        return out - out[:, list(KINECT_V2.parents)]
    if stream in ("joint_motion", "bone_motion"):
        out = out - out[:, list(KINECT_V2.parents)] if stream == "bone_motion" else out
        return np.concatenate([out, np.concatenate([out[1:] - out[:-1], np.zeros_like(out[:1])])], axis=2)
    if stream == "motion":
        return np.concatenate([out[1:] - out[:-1], np.zeros_like(out[:1])])
    return out


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("persons", [1, 2])
def test_a_batch_equals_the_slow_reference(stream, persons):
    clips = random_clips(persons=persons)
    settings = ViewSettings(frames=64, mask_per_sample=stream == "bone")
    batches = Batches(clips, 6, 3, settings, KINECT_V2, stream)
    samples, batch = batches.samples(2), batches[2]
    views = np.stack(
        [
            [
                slow_view(clips, c, samples.starts[v, i], samples.lengths[v, i], samples.matrices[v, i], 64, stream)
                for i, c in enumerate(samples.clips)
            ]
            for v in range(3)
        ]
    )
    shape = (6, 64, 25, channels_of(stream), persons)
    for view, expected in zip(("query", "key", "target"), views, strict=True):
        np.testing.assert_allclose(batch.tensors()[view].reshape(shape), expected, atol=2e-5)
    hidden = np.broadcast_to(samples.hidden, (6, 64, 25))
    masked = views[2].copy()
    masked[..., 0] *= ~hidden[..., None]
    np.testing.assert_allclose(batch.views["masked"].reshape(shape), masked, atol=2e-5)
    w = samples.mix.weight[None, :, :, None, None]
    mixed = views[0] * (1 - w) + views[0][samples.mix.partner][:, samples.mix.index] * w
    np.testing.assert_allclose(batch.views["mixed"].reshape(shape), mixed, atol=3e-5)


def test_workers_and_rows_change_nothing():
    clips = random_clips(20)
    make = lambda rows=None: Batches(clips, 8, 5, ViewSettings(), KINECT_V2, rows=rows)  # noqa: E731
    plain = [make()[s] for s in range(5)]
    for workers in (0, 1, 3):
        for a, b in zip(plain, make().stream(0, 5, workers), strict=True):
            assert all(
                torch.equal(a.tensors()[k], b.tensors()[k]) for k in ("query", "key", "masked", "mixed", "offsets")
            )
    for rows in (slice(0, 4), slice(4, 8), slice(2, 5)):
        part = make(rows)[3]
        assert all(
            torch.equal(part.tensors()[k], plain[3].tensors()[k][rows]) for k in ("query", "key", "masked", "mixed")
        )
        assert torch.equal(part.partner, plain[3].partner[rows])


def test_mixing_with_weights_0_and_1_copies_exactly():
    x, y = torch.randn(2, 4, 6), torch.randn(2, 4, 6)
    weight = torch.tensor([[1.0], [0.0], [1.0], [0.0]])
    out = mix_views(x, y, weight, torch.tensor([3, 1, 0, 2]))
    assert torch.equal(out[:, 0], y[:, 3]) and torch.equal(out[:, 1], x[:, 1]) and torch.equal(out[:, 2], y[:, 0])


def test_only_the_first_person_is_hidden():
    hidden = expand_hidden(torch.ones(4, 25, dtype=torch.bool), 2)
    x = mask_view(torch.ones(1, 4, 150), hidden).reshape(4, 25, 3, 2)
    assert (x[..., 0] == 0).all() and (x[..., 1] == 1).all()


@pytest.mark.parametrize("n", range(1, 301, 7))
def test_centre_crop(n):
    start, length = centre_crop(torch.tensor([n]))
    assert start.item() == int(0.05 * n / 2 + 1e-12) and length.item() == n - 2 * start.item() > 0


def test_uninitialised_memory_does_not_matter():
    batches = Batches(random_clips(12), 8, 1, ViewSettings(), KINECT_V2)
    expected = batches[0].tensors()
    torch.use_deterministic_algorithms(True)  # then torch fills fresh memory with NaN
    try:
        assert torch.empty(1).isnan()
        found = batches[0].tensors()
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(found[k], expected[k]) for k in ("query", "key", "target", "masked", "mixed"))


def slow_body(factors, layout, x):
    """Joints x (V, 3) put together again from the root outwards, bone by bone, then moved back to where the centre was.
    factors: of the bone to each parent."""
    made = {root: x[root] for root, parent in enumerate(layout.parents) if root == parent}
    while len(made) < layout.joints:
        for joint, parent in enumerate(layout.parents):
            if parent in made and joint not in made:
                made[joint] = made[parent] + factors[joint] * (x[joint] - x[parent])
    out = np.stack([made[joint] for joint in range(layout.joints)])
    return out - at(out, layout.centre, 0) + at(x, layout.centre, 0)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
def test_bodies_equal_joints_added_up_bone_by_bone(layout):
    u = uniforms(1, 2, 3, (5, layout.joints))
    bodies = sample_bodies(u, layout, 0.25)
    left = [min(i, j) for i, j in enumerate(layout.mirrored)]
    for body, own in zip(bodies, u, strict=True):
        factor = np.exp(0.25 * (2 * own - 1))
        x = np.random.default_rng(0).normal(size=(layout.joints, 3))
        np.testing.assert_allclose(body @ x, slow_body(factor[left], layout, x), atol=1e-5)
    pairs = [(i, j) for i, j in enumerate(layout.mirrored) if i < j]
    sides = sum("left" in name for name in layout.names)
    assert len(pairs) == sides >= 6 and all(layout.mirrored[j] == i for i, j in pairs)
    np.testing.assert_allclose(sample_bodies(u, layout, 0.0), np.eye(layout.joints)[None].repeat(5, 0), atol=1e-6)


@pytest.mark.parametrize("stream", ["joint", "joint_motion"])
def test_bodies_rotations_and_noise_of_a_batch(stream):
    """Each view step by step: crop and resize of the scaled clip, then body, matrices, noise (query and key), stream."""
    clips = random_clips(9, persons=2).scaled("trunk", KINECT_V2)
    settings = ViewSettings(rotation=30, scale=(0.5, 2.0), bones=0.3, noise=0.1, shear_probability=0.3, corruption=0.3)
    batches = Batches(clips, 6, 3, settings, KINECT_V2, stream)
    samples, batch = batches.samples(1), batches[1]
    assert np.std(samples.noise) == pytest.approx(0.1, rel=0.02) and abs(samples.noise.mean()) < 2e-3
    plain = replace(clips, factors=None)
    for v, name in enumerate(("query", "key", "target")):
        for i, c in enumerate(samples.clips):
            crop = (plain, c, samples.starts[v, i], samples.lengths[v, i])
            x = slow_view(*crop, np.eye(3)[None].repeat(25, 0), 64, "joint") * float(clips.factors[c])
            x = np.einsum("vw,twcm->tvcm", samples.bodies[v, i], x)
            x = np.einsum("vcd,tvdm->tvcm", samples.matrices[v, i], x)
            if v < 2:
                x = x + samples.noise[v, i] * (x != 0)
            if stream == "joint_motion":
                x = np.concatenate([x, np.concatenate([x[1:] - x[:-1], np.zeros_like(x[:1])])], axis=2)
            np.testing.assert_allclose(batch.tensors()[name][i].reshape(x.shape), x, atol=1e-4)
    part = Batches(clips, 6, 3, settings, KINECT_V2, stream, rows=slice(2, 5))[1]
    for name in ("query", "key", "target", "mixed"):
        assert torch.equal(part.tensors()[name], batch.tensors()[name][2:5])


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
def test_a_mirrored_view_is_that_of_a_mirrored_clip(layout):
    """Views of clips that were mirrored joint by joint equal views that are mirrored by the sampler."""
    clips = random_clips(8, persons=2, joints=layout.joints)
    frames = clips.frames[:, list(layout.mirrored)] * torch.tensor([-1.0, 1.0, 1.0])[:, None]
    for settings in (ViewSettings(corruption=0), ViewSettings(bones=0.2, rotation=20, scale=(0.5, 2), noise=0.1)):
        by_hand = Batches(replace(clips, frames=frames), 8, 3, settings, layout)[1].tensors()
        found = Batches(clips, 8, 3, replace(settings, mirror=1.0), layout)[1].tensors()
        for name in ("query", "key", "target", "masked", "mixed"):
            torch.testing.assert_close(found[name], by_hand[name], atol=1e-5, rtol=1e-4)


def test_views_are_mirrored_independently_and_nothing_else_changes():
    clips = random_clips(20)
    plain, half = (Batches(clips, 16, 5, ViewSettings(mirror=p), KINECT_V2).samples(3) for p in (0.0, 0.5))
    mirrored = (half.matrices[..., 0] != plain.matrices[..., 0]).any(axis=(-2, -1))
    assert 12 <= mirrored.sum() <= 36 and len({tuple(view) for view in mirrored}) == 3
    order = np.eye(25)[list(KINECT_V2.mirrored)]
    assert (half.bodies[mirrored] == order).all() and (half.bodies[~mirrored] == np.eye(25)).all()
    for name in ("clips", "starts", "lengths", "hidden", "offsets"):
        assert np.array_equal(getattr(plain, name), getattr(half, name))


def test_rotations_and_scales_stay_in_their_ranges():
    u, eye = uniforms(0, 1, 0, (200, 7)), np.eye(3)[None, None].repeat(200, 0)
    turns = scale_and_rotate(eye, u, ViewSettings(rotation=20))[:, 0]
    np.testing.assert_allclose(turns @ turns.swapaxes(1, 2), eye[:, 0], atol=1e-6)
    assert (np.linalg.det(turns) > 0).all()
    assert 20 < np.degrees(np.arccos((np.trace(turns, axis1=1, axis2=2) - 1) / 2)).max() <= 20 * 3**0.5 + 0.5
    scales = scale_and_rotate(eye, u, ViewSettings(scale=(0.7, 1.2)))[:, 0]
    diagonal = np.diagonal(scales, axis1=1, axis2=2)
    assert 0.7 <= diagonal.min() < 0.72 and 1.18 < diagonal.max() <= 1.2 and np.count_nonzero(scales) == 600


def test_new_augmentations_do_not_change_the_other_samples():
    clips = random_clips(20)
    old, new = (
        Batches(clips, 8, 5, settings, KINECT_V2).samples(3)
        for settings in (ViewSettings(), ViewSettings(bones=0.2, noise=0.1))
    )
    assert old.bodies is None and old.noise is None
    for name in ("clips", "starts", "lengths", "matrices", "hidden", "offsets"):
        assert np.array_equal(getattr(old, name), getattr(new, name))


def test_the_trunk_is_the_path_from_the_hips_to_the_root():
    assert KINECT_V2.trunk == (0, 1, 20) and LAYOUTS["coco_17"].trunk == ((11, 12), (5, 6))
    clips = random_clips(4, persons=2)
    scaled = clips.scaled("trunk", KINECT_V2)
    for i in range(4):
        low, n = int(clips.offsets[i]), int(clips.num_frame[i])
        person = clips.frames[low : low + n, :, :, 0]
        length = (person[:, 0] - person[:, 1]).norm(dim=1) + (person[:, 1] - person[:, 20]).norm(dim=1)
        assert float(1 / scaled.factors[i]) == pytest.approx(float(length.median()), rel=1e-5)
    assert torch.equal(scaled.frames, clips.frames) and clips.scaled("none", KINECT_V2).factors is None
    assert scaled.select([2, 0]).factors.tolist() == scaled.factors[[2, 0]].tolist()
    nobody = replace(clips, frames=torch.zeros_like(clips.frames))
    assert nobody.scaled("trunk", KINECT_V2).factors.tolist() == [1.0] * 4
