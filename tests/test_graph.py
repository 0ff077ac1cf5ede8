"""The pass that can be captured as a CUDA graph: fixed buffers, no question to the host, the numbers of the plain one."""

import contextlib
from functools import partial

import pytest
import torch
from programs import refused, refuses
from tiny_runs import pretrain

from engine.graph import WARM_UP, CapturedPass, Prefetcher, choose_capture
from engine.step import compute_gradients, train_step
from feeder.batches import Batch
from models.encoder import EncoderConfig
from models.pcm3 import PCM3, PCM3Config
from options.pretraining import parse_args
from utils.errors import UserError

ROWS, FRAMES, FEATURES = 4, 8, 150
STEPS = WARM_UP + 3


def model(device="cpu", dtype=torch.float64, **more) -> PCM3:
    torch.manual_seed(0)
    encoder = EncoderConfig(hidden_size=16, num_layers=2)
    made = PCM3(PCM3Config(encoder=encoder, queue_size=20, decoder_hidden_size=8, **more))
    return made.to(device, dtype).train()


def batches(device="cpu", dtype=torch.float64):
    """Batches of random numbers; those after the first in other memory."""
    draw = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        names = ("query", "key", "target", "masked", "mixed")
        views = {name: torch.randn(ROWS, FRAMES, FEATURES, generator=draw, dtype=dtype) for name in names}
        key, target = views.pop("key"), views.pop("target")
        hidden = torch.rand(FRAMES, FEATURES, generator=draw) < 0.5
        partner = torch.randperm(ROWS, generator=draw)
        mix_lambda, offsets = torch.rand((), generator=draw, dtype=dtype), torch.rand(6, generator=draw, dtype=dtype)
        clips = torch.arange(ROWS)
        yield Batch(views, key, target, hidden, partner, mix_lambda, offsets, clips, clips).to(device, dtype)


def plain(pcm3, parts=1):
    return partial(compute_gradients, pcm3, parts=parts)


def captured(pcm3, parts=1, say=None):
    return CapturedPass(plain(pcm3, parts), say)


def trained(compute_by, device="cpu", dtype=torch.float64, parts=1):
    """Losses of some steps, and the state after them."""
    pcm3 = model(device, dtype, topk=10)
    compute = compute_by(pcm3, parts)
    optimizer = torch.optim.SGD([p for p in pcm3.parameters() if p.requires_grad], lr=0.05, momentum=0.9, fused=True)
    losses = []
    for batch in batches(device, dtype):
        output, _, finite, _ = train_step(compute, pcm3, optimizer, batch)
        assert finite
        losses.append({name: float(value) for name, value in output.losses.items()})
    return losses, {name: value.clone() for name, value in pcm3.state_dict().items()}, compute


@pytest.mark.parametrize("parts", (1, 2))
def test_fixed_buffers_change_no_number(parts):
    losses, state, _ = trained(plain, parts=parts)
    captured_losses, captured_state, compute = trained(captured, parts=parts)
    assert losses == captured_losses and len({row["total"] for row in losses}) == STEPS
    assert all(torch.equal(value, captured_state[name]) for name, value in state.items())
    assert compute.calls == STEPS and compute.graph is None  # nothing to capture on a CPU


def test_buffers_stay_and_are_filled():
    compute, places = captured(model()), set()
    for batch in batches():
        compute(batch)
        places.add(tuple(tensor.data_ptr() for tensor in compute.buffers.tensors().values()))
        for name, tensor in batch.tensors().items():
            assert torch.equal(compute.buffers.tensors()[name], tensor)
    assert len(places) == 1


def test_another_shape_is_refused():
    compute = captured(model())
    first, second, *_ = batches()
    compute(first)
    second.views["masked"] = second.views["masked"][:, :4]
    with pytest.raises(ValueError, match=r"masked: expected \(4, 8, 150\)"):
        compute(second)


@pytest.mark.parametrize("more", ({}, {"topk": 10}, {"prompt_place": "after_norm"}, {"contrasts": ("query", "masked")}))
def test_the_pass_asks_the_host_for_nothing(more, monkeypatch):
    """On tensors without data every question raises; so does whatever has a shape that depends on data."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())  # knows no meta device
    pcm3 = model("meta", torch.float32, **more)
    output = compute_gradients(pcm3, next(batches("meta", torch.float32)), 2)
    pcm3.enqueue(output.keys)
    with pytest.raises(RuntimeError, match="meta"):
        bool(output.loss > 0)


def test_refused_without_a_cuda_device(data, tmp_path):
    ended = pretrain(data, tmp_path / "run", "--cuda-graph")
    refused(ended, "--cuda-graph", "CUDA device", "--device cpu")


@pytest.mark.parametrize("compute_by", (plain, captured))
def test_a_batch_is_made_beside_the_step_before(compute_by):
    """Each batch once, in order, and the next one begun before the pass returns to the caller."""
    made = []

    def making():
        for number, batch in enumerate(batches()):
            made.append(number)
            yield batch

    pcm3, other = model(), model()
    compute, plainly = compute_by(pcm3), plain(other)
    ahead = Prefetcher(making(), torch.device("cpu"))
    still = [torch.optim.SGD(m.parameters(), lr=0.0) for m in (pcm3, other)]
    taken = 0
    for batch, expected in zip(ahead, batches(), strict=True):
        assert made == list(range(taken + 1))
        assert all(torch.equal(t, expected.tensors()[name]) for name, t in batch.tensors().items())
        output = train_step(compute, pcm3, still[0], batch, meanwhile=ahead.prefetch)[0]
        assert torch.equal(output.loss, train_step(plainly, other, still[1], expected)[0].loss)
        taken += 1
        assert made == list(range(min(taken + 1, STEPS)))
    assert taken == STEPS


CARD, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize(
    "asked, run, captured, words",
    (
        ("auto", (CARD, 1, 1, 0), True, "CUDA graph (auto: one card; --no-cuda-graph for plain)"),
        ("auto", (CPU, 1, 1, 0), False, "no CUDA graph (auto: --device cpu)"),
        ("auto", (CARD, 2, 1, 0), False, "no CUDA graph (auto: 2 processes)"),
        ("auto", (CARD, 1, 4, 0), False, "no CUDA graph (auto: --grad-accum 4)"),
        ("auto", (CARD, 1, 1, 2), False, "no CUDA graph (auto: --recompute 2)"),
        ("on", (CARD, 1, 4, 2), True, "CUDA graph"),
        ("off", (CARD, 1, 1, 0), False, "no CUDA graph"),
        ("off", (CPU, 2, 1, 0), False, "no CUDA graph"),
    ),
)
def test_what_is_captured(asked, run, captured, words):
    assert choose_capture(asked, *run) == (captured, words)


def test_asked_for_where_it_cannot_be():
    for run, here in (((CPU, 1, 1, 0), "--device cpu"), ((CARD, 2, 1, 0), "2 processes")):
        with pytest.raises(UserError, match=f"--cuda-graph needs a CUDA device and one process, here are {here}"):
            choose_capture("on", *run)


def test_the_words_of_the_flag():
    words = {"": "auto", "--cuda-graph": "on", "--no-cuda-graph": "off"} | {
        f"--cuda-graph {w}": w for w in ("auto", "off")
    }
    assert {given: parse_args(given.split()).cuda_graph for given in words} == words


@pytest.mark.parametrize("asked", ("auto", "on"))
def test_a_capture_that_fails(asked):
    """auto goes on plainly, with the numbers of the plain pass, and says so once; asked for, it is a sentence."""

    def fail():
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    said = []
    compute = captured(model(), 1, said.append if asked == "auto" else None)
    plainly = plain(model())
    first, second, third, *_ = batches()
    for one in (compute, plainly):
        one(first)
    compute.captures, compute.calls, compute._capture = True, WARM_UP, fail  # as on a card after warming up
    if asked == "on":
        with refuses("operation not permitted", "--no-cuda-graph"):
            compute(second)
        return
    for batch in (second, third):
        assert torch.equal(compute(batch).loss, plainly(batch).loss)
    assert len(said) == 1 and "operation not permitted" in said[0]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("parts", (1, 2))
def test_captured_equals_plain_on_cuda(parts):
    losses, state, _ = trained(plain, "cuda", torch.float32, parts)
    captured_losses, captured_state, compute = trained(captured, "cuda", torch.float32, parts)
    assert compute.graph is not None
    for row, replayed in zip(losses, captured_losses, strict=True):
        assert replayed == pytest.approx(row, rel=1e-4)
    for name, value in state.items():
        torch.testing.assert_close(captured_state[name], value, rtol=1e-3, atol=1e-4)
