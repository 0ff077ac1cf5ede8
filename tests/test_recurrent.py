"""The fast recurrent layers compared with the released code: nn.GRU called frame by frame."""

import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import models.recurrent as recurrent
from models.recurrent import ForwardGRU
from utils.errors import UserError

PACKED = recurrent.PACKED_FROM


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Products this small do not gain from threads, which on a busy machine wait for each other after each product."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pair(features, hidden, layers, directions, dtype=torch.float64, seed=0):
    """Our layers, an nn.GRU with the same parameters."""
    torch.manual_seed(seed)
    ours = ForwardGRU(features, hidden, layers, directions).to(dtype)
    gru = nn.GRU(features, hidden, layers, batch_first=True, bidirectional=directions == 2).to(dtype)
    gru.load_state_dict(ours.state_dict())
    return ours, gru


def frame_by_frame(gru, x, state=None):
    """As released: one frame at a time, with the state carried on."""
    outputs = []
    for frame in x.split(1, dim=1):
        output, state = gru(frame, state)
        outputs.append(output)
    return torch.cat(outputs, dim=1), state


def results(module, run, x, state, seed=1):
    """Outputs, last state, and the gradients of x, state and parameters, for a fixed weighted sum of both."""
    x, state = x.clone().requires_grad_(), state.clone().requires_grad_()
    outputs, last = run(x, state)
    draw = torch.Generator().manual_seed(seed)
    loss = (outputs * torch.randn(outputs.shape, generator=draw, dtype=x.dtype)).sum()
    loss = loss + (last * torch.randn(last.shape, generator=draw, dtype=x.dtype)).sum()
    return [outputs.detach(), last.detach(), *torch.autograd.grad(loss, [x, state, *module.parameters()])]


def relative(a, b):
    return float((a - b).norm() / b.norm())


def compare(ours, gru, clips, frames, dtype, tolerance, run=None):
    x = torch.randn(clips, frames, ours.input_size, dtype=dtype)
    state = torch.rand(ours.num_layers * ours.directions, clips, ours.hidden_size, dtype=dtype) - 0.5
    mine = results(ours, run or ours, x, state)
    twin = results(gru, lambda x, s: frame_by_frame(gru, x, s), x, state)
    for a, b in zip(mine, twin, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert relative(a, b) < tolerance


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 7),
    st.integers(1, 9),
    st.integers(1, 12),
    st.integers(1, 3),
    st.sampled_from((1, 2)),
)
def test_equals_frame_by_frame_in_float64(clips, frames, features, hidden, layers, directions):
    ours, gru = pair(features, hidden, layers, directions)
    compare(ours, gru, clips, frames, torch.float64, 1e-10)


@pytest.mark.parametrize("directions", (1, 2))
@pytest.mark.parametrize("hidden", (24, PACKED))
def test_equals_frame_by_frame_in_float32(hidden, directions):
    ours, gru = pair(10, hidden, 2, directions, torch.float32)
    compare(ours, gru, 3, 9, torch.float32, 1e-5)
    x = torch.randn(3, 9, 10)
    assert (ours(x)[0] - frame_by_frame(gru, x)[0]).abs().max() < 1e-6


def test_equals_frame_by_frame_without_packed_products(monkeypatch):
    monkeypatch.setattr(recurrent, "_packed_products_work", lambda dtype: False)
    ours, gru = pair(10, PACKED, 1, 2, torch.float32)
    compare(ours, gru, 3, 6, torch.float32, 1e-5)


def test_blocks_of_frames_change_nothing(monkeypatch):
    """Many frames in a block, and one: the sums over blocks, their bounds and the reused buffers."""
    monkeypatch.setattr(recurrent, "INPUT_ROWS", 6)
    monkeypatch.setattr(recurrent, "GRADIENT_ROWS", 9)
    ours, gru = pair(5, 7, 2, 2)
    compare(ours, gru, 3, 10, torch.float64, 1e-10)
    compare(ours, gru, 10, 3, torch.float64, 1e-10)  # more clips than rows of a block
    x = torch.randn(3, 10, 5, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), frame_by_frame(gru, x), rtol=0, atol=1e-12)


def test_native_path_of_other_devices_equals_frame_by_frame():
    """The code that a CUDA device runs, here on the CPU's native GRU."""
    ours, gru = pair(5, 8, 2, 2)

    def run(x, state):
        x, last = x.transpose(0, 1), []
        for layer, h0 in enumerate(state.split(2)):
            weights = [getattr(ours, name) for name in ours._names[8 * layer : 8 * layer + 8]]
            x, h = recurrent._native_layer(x, h0, recurrent._Weights(weights, torch.float64), *weights)
            last.append(h)
        return x.transpose(0, 1), torch.cat(last)

    compare(ours, gru, 3, 6, torch.float64, 1e-10, run)


@pytest.mark.parametrize("name", ("own", "cudnn", "streams"))  # the last one has tests/test_wavefront.py
def test_a_chosen_implementation_equals_frame_by_frame(name):
    """own and cudnn (here torch's native GRU), chosen as a CUDA device or a benchmark chooses them."""
    ours, gru = pair(5, 8, 2, 2)
    ours.implementation = name
    compare(ours, gru, 3, 6, torch.float64, 1e-10)


def test_the_wavefront_without_triton_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "models.recurrent_wave", None)
    monkeypatch.delattr("models.recurrent_wave", raising=False)
    ours, _ = pair(5, 8, 2, 2)
    ours.implementation = "wavefront"
    with pytest.raises(UserError, match="--recurrent wavefront needs Triton"):
        ours(torch.randn(2, 3, 5, dtype=torch.float64))


def test_each_device_has_its_implementation():
    ours, _ = pair(5, 8, 1, 2)
    assert [ours.runs_as(torch.device(name)) for name in ("cpu", "cuda")] == ["own", "cudnn"]
    ours.implementation = "own"
    assert ours.runs_as(torch.device("cuda")) == "own"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", recurrent.RUNS)
def test_cuda_equals_cpu(name):
    ours, _ = pair(10, 64, 3, 2, torch.float32)
    x = torch.randn(4, 16, 10)
    expected = ours(x)[0]
    ours.implementation = name
    with torch.backends.cudnn.flags(allow_tf32=False):
        found = ours.to("cuda")(x.to("cuda"))[0]
    torch.testing.assert_close(found.to("cpu"), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16))
@pytest.mark.parametrize("hidden", (24, PACKED))
def test_streaming_with_the_state_equals_the_whole_clip(hidden, dtype):
    ours, _ = pair(6, hidden, 3, 2, torch.float32)
    ours.compute_dtype = dtype
    x = torch.randn(2, 11, 6)
    whole, last = ours(x)
    pieces, state = [], None
    for frames in (1, 1, 5, 3, 1):
        start = sum(piece.shape[1] for piece in pieces)
        piece, state = ours(x[:, start : start + frames], state)
        pieces.append(piece)
    tolerance = 1e-6 if dtype == torch.float32 else 5e-3  # other sums round to another neighbour in bfloat16
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=0, atol=tolerance)
    torch.testing.assert_close(state, last, rtol=0, atol=tolerance)


def test_last_state_is_the_last_output_of_each_layer():
    ours, _ = pair(6, 8, 3, 2)
    outputs, state = ours(torch.randn(2, 5, 6, dtype=torch.float64))
    torch.testing.assert_close(torch.cat(tuple(state[-2:]), dim=1), outputs[:, -1])


def test_both_directions_are_causal():
    """A change in frame 6 changes both halves of the outputs from there on, and no earlier output."""
    ours, _ = pair(6, 8, 3, 2)
    x = torch.randn(2, 10, 6, dtype=torch.float64)
    changed = x.clone()
    changed[:, 6] += 1
    difference = (ours(changed)[0] - ours(x)[0]).abs()
    assert (difference[:, :6] == 0).all()
    assert (difference[:, 6:, :8].amax((0, 2)) > 0).all() and (difference[:, 6:, 8:].amax((0, 2)) > 0).all()


def test_is_not_the_bidirectional_gru():
    """The same parameters in a bidirectional call on the whole clip are another model."""
    ours, gru = pair(6, 8, 2, 2)
    x = torch.randn(2, 10, 6, dtype=torch.float64)
    assert (ours(x)[0] - gru(x)[0]).abs().max() > 1e-2


@pytest.mark.parametrize("dtype", (None, torch.bfloat16))
def test_torch_s_gru_prepares_weights_once_a_step(dtype):
    """Passes that share weights have, bit by bit, the outputs and gradients (added up in float32) of passes that do not."""
    ours, _ = pair(6, 16, 2, 2, torch.float32)
    ours.implementation, ours.compute_dtype = "cudnn", dtype
    x, y = torch.randn(4, 8, 6), torch.randn(2, 8, 6)

    def both(laid):
        ours.zero_grad()
        outputs = ours(x)[0], ours(y)[0]
        sum(part.square().sum() for part in outputs).backward()
        gradients = [p.grad.clone() for p in ours.parameters()]
        return [*outputs, *gradients], laid and [ours.shared[layer]._flat for layer in range(2)]

    alone, _ = both(False)
    with recurrent.cached_weights(ours):
        together, first = both(True)
        with torch.no_grad():
            silent = ours(x)[0]
        again, second = both(True)
    for values in (together, again):
        assert all(torch.equal(a, b) for a, b in zip(alone, values, strict=True))
    assert torch.equal(silent, alone[0]) and all(g.dtype == torch.float32 for g in alone[2:])
    assert all(rounded.dtype == (dtype or torch.float32) for layer in first for _, rounded in layer)


@pytest.mark.parametrize("dtype", (None, torch.bfloat16))
def test_calls_that_share_weights_equal_calls_that_do_not(dtype):
    """Two calls of different row counts within `cached_weights`, whose gradients add up; afterwards changed weights are used."""
    ours, _ = pair(6, PACKED, 2, 2, torch.float32)
    ours.compute_dtype = dtype
    x, y = torch.randn(4, 8, 6), torch.randn(2, 8, 6)

    def both():
        ours.zero_grad()
        outputs = ours(x)[0], ours(y)[0]
        (outputs[0].square().sum() + outputs[1].sum()).backward()
        return [*(o.detach().clone() for o in outputs), *(p.grad.clone() for p in ours.parameters())]

    apart = both()
    with recurrent.cached_weights(torch.nn.Sequential(ours)):
        together = both()
        assert len(ours.shared) == 2
    for a, b in zip(apart, together, strict=True):
        assert torch.equal(a, b)
    assert ours.shared is None
    with torch.no_grad():
        ours.weight_hh_l0 *= 0.5
        assert not torch.equal(ours(x)[0], apart[0])


def test_weights_made_for_another_type_are_not_shared():
    ours, _ = pair(6, 8, 1, 2, torch.float32)
    x = torch.randn(2, 5, 6)
    with recurrent.cached_weights(ours), torch.no_grad():
        exact = ours(x)[0]
        ours.compute_dtype = torch.bfloat16
        assert not torch.equal(ours(x)[0], exact)


def test_tanh_of_a_sigmoid_is_tanh():
    x = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([-1e4, 1e4, 0.0, 1e-30])])
    ours = recurrent._tanh_(x.clone(), torch.tensor(-1.0))
    torch.testing.assert_close(ours.double(), torch.tanh(x.double()), rtol=0, atol=2e-7)


@pytest.mark.parametrize("directions", (1, 2))
def test_gradcheck(directions):
    ours, _ = pair(3, 4, 2, directions)
    names = list(dict(ours.named_parameters()))
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    state = torch.randn(2 * directions, 2, 4, dtype=torch.float64, requires_grad=True)

    def run(x, state, *values):
        return torch.func.functional_call(ours, dict(zip(names, values, strict=True)), (x, state))

    assert torch.autograd.gradcheck(run, (x, state, *ours.parameters()), fast_mode=True)


@pytest.mark.parametrize("block", (10, recurrent.ROUNDED_GRADIENT_ROWS))
@pytest.mark.parametrize("hidden", (24, PACKED))
def test_bfloat16_products_stay_close_to_float32(hidden, block, monkeypatch):
    monkeypatch.setattr(recurrent, "ROUNDED_GRADIENT_ROWS", block)
    ours, gru = pair(12, hidden, 3, 2, torch.float32)
    x, state = torch.randn(4, 32, 12), torch.zeros(6, 4, hidden)
    exact = results(ours, ours, x, state)
    ours.compute_dtype = torch.bfloat16
    rough = results(ours, ours, x, state)
    assert all(tensor.dtype == torch.float32 for tensor in rough)
    assert 0 < (rough[0] - exact[0]).abs().max() < 5e-3 and (rough[1] - exact[1]).abs().max() < 5e-3
    for a, b in zip(rough[2:], exact[2:], strict=True):
        assert relative(a, b) < 2e-2


def test_no_gradient_passes_a_detached_state():
    ours, _ = pair(6, 8, 2, 2)
    first = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    second = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    _, state = ours(first)
    ours(second, state.detach())[0].sum().backward()
    assert first.grad is None and second.grad is not None
    ours(second, state)[0].sum().backward()
    assert first.grad.abs().max() > 0


def test_gradient_of_either_output_alone():
    ours, gru = pair(6, 8, 2, 2)
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    for pick in (lambda pair: pair[0][:, -1].sum(), lambda pair: pair[1][-1].sum()):
        mine = torch.autograd.grad(pick(ours(x)), x)[0]
        torch.testing.assert_close(mine, torch.autograd.grad(pick(frame_by_frame(gru, x)), x)[0])


def test_backward_twice_gives_the_same():
    ours, _ = pair(6, 8, 2, 2)
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    loss = ours(x)[0].square().sum()
    first = torch.autograd.grad(loss, list(ours.parameters()), retain_graph=True)
    second = torch.autograd.grad(loss, list(ours.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_changed_tensors_that_backward_needs_are_noticed():
    ours, _ = pair(6, 8, 1, 2)
    outputs, _ = ours(torch.randn(2, 5, 6, dtype=torch.float64))
    with pytest.raises(RuntimeError, match="inplace"):
        with torch.no_grad():
            outputs.mul_(2)
        outputs.sum().backward()


def test_without_gradient_equals_with_gradient_and_keeps_nothing():
    ours, _ = pair(6, 8, 2, 2)
    x = torch.randn(2, 5, 6, dtype=torch.float64)
    kept, _ = ours(x)
    with torch.no_grad():
        free, state = ours(x)
    assert kept.requires_grad and not free.requires_grad and not state.requires_grad
    assert torch.equal(kept, free)


def test_frozen_parameters_still_pass_the_gradient_on():
    ours, gru = pair(6, 8, 2, 2)
    ours.requires_grad_(False)
    x = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    mine = torch.autograd.grad(ours(x)[0].sum(), x)[0]
    torch.testing.assert_close(mine, torch.autograd.grad(frame_by_frame(gru, x)[0].sum(), x)[0])


def test_inputs_are_left_as_they_are_and_may_have_any_strides():
    ours, _ = pair(6, 8, 2, 2)
    x = torch.randn(5, 6, 2, dtype=torch.float64).permute(2, 0, 1)
    state = torch.randn(4, 2, 8, dtype=torch.float64)
    before = x.clone(), state.clone()
    outputs, _ = ours(x, state)
    assert torch.equal(x, before[0]) and torch.equal(state, before[1])
    assert torch.equal(outputs, ours(x.contiguous(), state)[0])


def test_names_order_and_initial_weights_are_those_of_nn_gru():
    torch.manual_seed(3)
    ours = ForwardGRU(7, 5, 3)
    torch.manual_seed(3)
    gru = nn.GRU(7, 5, 3, batch_first=True, bidirectional=True)
    assert list(ours.state_dict()) == list(gru.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), gru.parameters(), strict=True))


def test_autocast_does_not_change_the_layers():
    ours, _ = pair(6, 8, 2, 2, torch.float32)
    x = torch.randn(2, 5, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ours(x)[0], ours(x)[0]) and ours(x)[0].dtype == torch.float32
        inside = ours(x)[0]
    assert torch.equal(inside, ours(x)[0])


@pytest.mark.parametrize("shape", ((2, 5), (2, 5, 7), (0, 5, 6), (2, 0, 6)))
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="expected x"):
        ForwardGRU(6, 8, 1)(torch.zeros(shape))


def test_wrong_states_and_sizes_are_refused():
    layers = ForwardGRU(6, 8, 1)
    with pytest.raises(ValueError, match=r"expected a state \(2, 3, 8\)"):
        layers(torch.zeros(3, 4, 6), torch.zeros(1, 3, 8))
    with pytest.raises(ValueError, match="1 or 2 directions"):
        ForwardGRU(6, 8, 1, directions=3)


@pytest.mark.slow
def test_released_size_equals_frame_by_frame():
    ours, gru = pair(150, 1024, 3, 2, torch.float32)
    compare(ours, gru, 2, 64, torch.float32, 1e-5)
