"""Views against a slow twin: one clip, one frame, one joint at a time, written from the definition."""

import numpy as np
import pytest
import torch

from feeder.batches import Batches, Buffers
from feeder.clips import PackedClips
from feeder.draws import ViewSettings
from feeder.masks import expand_hidden, mask_view
from feeder.mixing import mix_views
from feeder.views import STREAMS, centre_crop
from utils.skeleton import KINECT_V2


def random_clips(count=9, persons=2, seed=0) -> PackedClips:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 130, count)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return PackedClips(
        frames=torch.from_numpy(rng.normal(size=(offsets[-1], 25, 3, persons)).astype(np.float32)),
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
    if stream == "motion":
        return np.concatenate([out[1:] - out[:-1], np.zeros_like(out[:1])])
    return out


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("persons", [1, 2])
def test_batch_equals_the_slow_twin(stream, persons):
    clips = random_clips(persons=persons)
    settings = ViewSettings(frames=64, mask_per_sample=stream == "bone")
    batches = Batches(clips, 6, 3, settings, KINECT_V2.parts, KINECT_V2.parents, stream)
    draws, batch = batches.draws(2), batches[2]
    views = np.stack(
        [
            [
                slow_view(clips, c, draws.starts[v, i], draws.lengths[v, i], draws.matrices[v, i], 64, stream)
                for i, c in enumerate(draws.clips)
            ]
            for v in range(3)
        ]
    )
    shape = (6, 64, 25, 3, persons)
    for view, expected in zip(("query", "key", "target"), views, strict=True):
        np.testing.assert_allclose(getattr(batch, view).reshape(shape), expected, atol=2e-5)
    hidden = np.broadcast_to(draws.hidden, (6, 64, 25))
    masked = views[2].copy()
    masked[..., 0] *= ~hidden[..., None]
    np.testing.assert_allclose(batch.masked.reshape(shape), masked, atol=2e-5)
    w = draws.mix.weight[None, :, :, None, None]
    mixed = views[0] * (1 - w) + views[0][draws.mix.partner][:, draws.mix.index] * w
    np.testing.assert_allclose(batch.mixed.reshape(shape), mixed, atol=3e-5)


def test_workers_and_rows_change_nothing():
    clips = random_clips(20)
    make = lambda rows=None: Batches(clips, 8, 5, ViewSettings(), KINECT_V2.parts, KINECT_V2.parents, rows=rows)  # noqa: E731
    plain = [make()[s] for s in range(5)]
    for workers in (0, 1, 3):
        for a, b in zip(plain, make().stream(0, 5, workers), strict=True):
            assert all(
                torch.equal(getattr(a, k), getattr(b, k)) for k in ("query", "key", "masked", "mixed", "offsets")
            )
    for rows in (slice(0, 4), slice(4, 8), slice(2, 5)):
        part = make(rows)[3]
        assert all(
            torch.equal(getattr(part, k), getattr(plain[3], k)[rows]) for k in ("query", "key", "masked", "mixed")
        )
        assert torch.equal(part.partner, plain[3].partner[rows])


def test_mixing_with_whole_weights_copies_exactly():
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


def test_buffers_are_used_again_only_when_nobody_holds_them():
    buffers = Buffers()
    a = buffers.empty(4, 3)
    part = a[1:].view(-1)[2:]  # a view of a view holds the memory too
    address = a.data_ptr()
    del a
    assert buffers.empty(4, 3).data_ptr() != address
    del part
    again = [buffers.empty(4, 3) for _ in range(2)]
    assert address in [t.data_ptr() for t in again] and again[0].data_ptr() != again[1].data_ptr()
    assert len(buffers.arrays[4, 3]) == 2


def test_old_content_of_a_buffer_does_not_matter():
    clips = random_clips(12)
    first = Batches(clips, 8, 1, ViewSettings(), KINECT_V2.parts, KINECT_V2.parents)
    expected = first[0]
    second = Batches(clips, 8, 1, ViewSettings(), KINECT_V2.parts, KINECT_V2.parents)
    second[0]
    for arrays in second.buffers.arrays.values():
        for array in arrays:
            array.fill(np.nan)
    batch = second[0]
    assert all(
        torch.equal(getattr(batch, k), getattr(expected, k)) for k in ("query", "key", "target", "masked", "mixed")
    )
