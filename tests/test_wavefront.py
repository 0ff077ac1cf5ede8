"""The wavefront implementation compared with the plain one: values and gradients, on a GPU or by Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from programs import refuses

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are defined

pytest.importorskip("triton", reason="Triton is not installed (it comes with CUDA builds of torch)")
from models import recurrent, recurrent_wave
from models.recurrent import ForwardGRU, cached_weights

pytestmark = pytest.mark.triton
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def exact_products():
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


def layers_of(features, hidden, layers, directions, dtype=torch.float32) -> tuple[ForwardGRU, ForwardGRU]:
    """The same layers, plain and as a wavefront."""
    torch.manual_seed(0)
    plain = ForwardGRU(features, hidden, layers, directions).to(DEVICE, dtype)
    wave = ForwardGRU(features, hidden, layers, directions).to(DEVICE, dtype)
    wave.load_state_dict(plain.state_dict())
    plain.implementation, wave.implementation = "own", "wavefront"
    return plain, wave


def everything(module: ForwardGRU, x, state, outer, last):
    """Outputs, last state, and the gradients of inputs, first state and weights, for given gradients of both results."""
    x, state = x.clone().requires_grad_(), state.clone().requires_grad_()
    module.zero_grad()
    results = module(x, state)
    torch.autograd.backward(results, (outer, last))
    named = {name: p.grad for name, p in module.named_parameters()}
    return {"outputs": results[0].detach(), "last": results[1].detach(), "x": x.grad, "state": state.grad, **named}


def compare(plain, wave, clips, frames, tolerance):
    dtype, groups = plain.weight_hh_l0.dtype, plain.num_layers * plain.directions
    x = torch.randn(clips, frames, plain.input_size, dtype=dtype, device=DEVICE)
    state = torch.randn(groups, clips, plain.hidden_size, dtype=dtype, device=DEVICE)
    outer = torch.randn(clips, frames, plain.directions * plain.hidden_size, dtype=dtype, device=DEVICE)
    last = torch.randn_like(state)
    expected, found = (everything(module, x, state, outer, last) for module in (plain, wave))
    for name, value in expected.items():
        distance = float((found[name] - value).norm() / value.norm())
        assert distance < tolerance, (name, distance)


@pytest.mark.parametrize("layers", (1, 2, 3))
@pytest.mark.parametrize("directions", (1, 2))
def test_values_and_gradients_are_those_of_the_plain_layers(layers, directions):
    compare(*layers_of(5, 12, layers, directions), clips=3, frames=6, tolerance=1e-5)


def test_more_than_one_block_of_rows_and_columns():
    compare(*layers_of(7, recurrent_wave.COLUMNS + 8, 2, 2), clips=recurrent_wave.ROWS + 2, frames=2, tolerance=1e-5)


@pytest.mark.parametrize("frames", (1, 2))
def test_fewer_frames_than_layers(frames):
    compare(*layers_of(4, 8, 3, 2), clips=2, frames=frames, tolerance=1e-5)


def test_in_float64_to_the_last_digits():
    compare(*layers_of(5, 8, 3, 2, torch.float64), clips=2, frames=5, tolerance=1e-12)


def test_with_rounded_products():
    """The distance to float32 is that of the plain layers with rounded products, within a factor of three."""
    exact, _ = layers_of(6, 16, 3, 2)
    x = torch.randn(4, 8, 6, device=DEVICE)
    expected = exact(x)[0]
    distance = {}
    for module, name in zip(layers_of(6, 16, 3, 2), ("plain", "wave"), strict=True):
        module.compute_dtype = torch.bfloat16
        outputs = module(x)[0]
        outputs.sum().backward()
        distance[name] = float((outputs - expected).norm().detach() / expected.norm().detach())
        assert all(torch.isfinite(p.grad).all() for p in module.parameters())
    assert 0 < distance["wave"] < 3 * distance["plain"] < 0.1


def test_without_gradients_and_in_pieces():
    """Nothing is kept without gradients; pieces, each with the state of the one before, give the result of the whole clip."""
    plain, wave = layers_of(5, 8, 2, 2)
    x = torch.randn(3, 7, 5, device=DEVICE)
    with torch.no_grad():
        expected, expected_last = plain(x)
        whole, last = wave(x)
        first, state = wave(x[:, :3])
        second, state = wave(x[:, 3:], state)
    for found, value in (
        (whole, expected),
        (last, expected_last),
        (torch.cat([first, second], 1), expected),
        (state, last),
    ):
        torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-6)


def test_passes_of_a_step_share_prepared_weights():
    plain, wave = layers_of(5, 8, 2, 2)
    x, y = torch.randn(2, 4, 5, device=DEVICE), torch.randn(3, 4, 5, device=DEVICE)
    for module in (plain, wave):
        with cached_weights(module):
            outputs = module(x)[0], module(y)[0]
            made = module.shared.get("wavefront")
        (outputs[0].sum() + outputs[1].square().sum()).backward()
    assert made is not None and "lower" in vars(made)
    for name, value in plain.named_parameters():
        torch.testing.assert_close(getattr(wave, name).grad, value.grad, rtol=1e-4, atol=1e-5)


def test_a_kernel_that_fails_is_a_sentence(monkeypatch):
    class Broken:
        def __getitem__(self, grid):
            raise RuntimeError("no compiler was found\nand more")

    monkeypatch.setattr(recurrent_wave, "_forward_link", Broken())
    _, wave = layers_of(4, 8, 1, 1)
    with refuses("Triton", "no compiler was found"):
        wave(torch.randn(2, 3, 4, device=DEVICE))


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from models import recurrent_wave as wave
exact = ("biases", "state", "outer", "carry")
for kernel, more in ((wave._forward_link, {"KEEP": True}), (wave._backward_link, {})):
    fixed = {"D": 2, "LAYERS": 3, "ROWS": wave.ROWS, "COLUMNS": wave.COLUMNS, **more}
    whole = ("link", "first_group", "frames", "clips", "lower_size", "H")
    kind = {n: "i32" if n in whole else "constexpr" if n in fixed else "*fp32" if n in exact else "*bf16" for n in kernel.arg_names}
    for capability in (80, 90):
        made = triton.compile(ASTSource(kernel, kind, fixed), target=GPUTarget("cuda", capability, 32))
        print(len(made.asm["cubin"]) > 1000)
"""


@pytest.mark.slow
def test_the_kernels_compile_for_cards():
    """By the compiler, which needs no GPU: it is stricter than the interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    root = Path(__file__).resolve().parent.parent
    ran = subprocess.run([sys.executable, "-c", COMPILE], cwd=root, env=environment, capture_output=True, text=True)
    assert ran.stdout.split() == ["True"] * 4, ran.stderr


def test_the_trial_of_the_wavefront_moves_no_random_numbers():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    assert recurrent.wavefront_works(torch.device(DEVICE))
    assert torch.equal(torch.rand(1), expected)
