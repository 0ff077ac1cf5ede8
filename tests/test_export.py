"""Written encoders compute what the encoder computes, for any number of clips, and a stream what one pass computes."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from make_checkpoint import CAUSAL, write_pretrained
from programs import call, refused

from engine.features import load
from models.encoder import Encoder
from tools import export

TINY = {"backbone": "gru", "hidden_size": 16, "num_layers": 1}


def test_a_clip_program_needs_none_of_this_repository(tmp_path):
    path = write_pretrained(tmp_path / "c.pth.tar", persons=1, **TINY)
    ran = call(export.main, f"{path} --output {tmp_path}/e.pt2 --frames 6")
    assert ran.status == 0 and "(N, 6, 75) -> (N, 32)" in ran.out, (ran.out, ran.err)
    assert float(ran.out.split(":")[-1]) < 1e-5
    x = torch.randn(7, 6, 75, generator=torch.Generator().manual_seed(1))
    np.save(tmp_path / "x.npy", x.numpy())
    code = (
        "import numpy as np, torch, sys\n"
        "x = torch.from_numpy(np.load('x.npy'))\n"
        "np.save('y.npy', torch.export.load('e.pt2').module()(x).detach().numpy())\n"
        "assert 'models' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120, capture_output=True)
    with torch.no_grad():
        expected = load(path, device="cpu").encoder(x)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-5)


@pytest.mark.parametrize(
    "sizes",
    [{**TINY, "num_layers": 2}, CAUSAL, {**TINY, "pool": "mean_max", "both_sides": True}],
    ids=["gru", "causal transformer", "both sides"],
)
def test_a_step_program_is_the_stream(tmp_path, sizes):
    path = write_pretrained(tmp_path / "c.pth.tar", persons=1, **sizes)
    ran = call(export.main, f"{path} --output {tmp_path}/s.pt2 --what step")
    assert ran.status == 0 and "N, 75" in ran.out and "next state" in ran.out, (ran.out, ran.err)
    program, encoder = torch.export.load(tmp_path / "s.pt2").module(), load(path, device="cpu").encoder
    x, state = torch.randn(4, 70, 75), encoder.first_clip_state(4)
    with torch.no_grad():
        for t in range(70):
            feature, *state = program(x[:, t], *state)
            if t % 23 == 0:
                np.testing.assert_allclose(feature, encoder(x[:, : t + 1]), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sizes",
    [
        {"backbone": "bigru", "hidden_size": 16, "num_layers": 1},
        CAUSAL,
        {**CAUSAL, "causal": False},
        {**CAUSAL, "backbone": "st_transformer"},
        {**CAUSAL, "backbone": "st_transformer", "causal": False},
        {"backbone": "stgcn", "width": 32, "depth": 2},
    ],
    ids=lambda sizes: " ".join(map(str, sizes.values())),
)
def test_every_backbone_s_clip_program(tmp_path, sizes):
    path = write_pretrained(tmp_path / "c.pth.tar", **sizes)
    ran = call(export.main, f"{path} --output {tmp_path}/e.pt2 --frames 64")
    assert ran.status == 0, ran.err


def test_the_state_is_described_by_its_shapes(tmp_path):
    gru = load(write_pretrained(tmp_path / "a.pth", hidden_size=112, num_layers=2), device="cpu").encoder
    assert export.described_state(gru) == "(4, N, 112)"
    transformer = load(write_pretrained(tmp_path / "b.pth", **CAUSAL), device="cpu").encoder
    assert export.described_state(transformer) == "(2, 2, N, 2, 63, 8) and ()"


@pytest.mark.parametrize(
    "sizes, words",
    [
        ({"backbone": "bigru", "hidden_size": 16, "num_layers": 1}, "from later frames too"),
        ({**CAUSAL, "causal": False}, "--causal"),
        ({**CAUSAL, "backbone": "st_transformer"}, "groups of frames"),
    ],
)
def test_what_has_no_step_is_refused(tmp_path, sizes, words):
    path = write_pretrained(tmp_path / "c.pth.tar", **sizes)
    refused(call(export.main, f"{path} --output {tmp_path}/s.pt2 --what step"), sizes["backbone"], words)


def test_a_program_that_differs_is_not_kept(tmp_path, monkeypatch):
    path = write_pretrained(tmp_path / "c.pth.tar", **TINY)
    real = Encoder.step
    monkeypatch.setattr(Encoder, "step", lambda self, x, *s: tuple(y * 1.01 for y in real(self, x, *s)))
    (tmp_path / "s.pt2").write_text("the old one")
    refused(call(export.main, f"{path} --output {tmp_path}/s.pt2 --what step"), "differs", "--tolerance 0.0001")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.pth.tar", "s.pt2"]
    assert (tmp_path / "s.pt2").read_text() == "the old one"


def test_onnx_or_a_sentence(tmp_path, monkeypatch):
    path = write_pretrained(tmp_path / "c.pth.tar", **TINY)
    monkeypatch.setattr(export, "ONNX_PACKAGES", ("no_such_package",))
    refused(call(export.main, f"{path} --output {tmp_path}/s.onnx"), "pip install no_such_package", ".pt2")
    refused(call(export.main, f"{path} --output {tmp_path}/s.bin"), ".pt2 or .onnx")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["clip", "step"])
@pytest.mark.parametrize("sizes", [TINY, CAUSAL], ids=["gru", "causal transformer"])
def test_onnx_programs(tmp_path, sizes, what):
    for name in export.ONNX_PACKAGES:
        pytest.importorskip(name)
    path = write_pretrained(tmp_path / "c.pth.tar", **sizes)
    ran = call(export.main, f"{path} --output {tmp_path}/e.onnx --what {what} --frames 8")
    assert ran.status == 0 and (tmp_path / "e.onnx").stat().st_size > 1000, ran.err
    session = pytest.importorskip("onnxruntime").InferenceSession(
        str(tmp_path / "e.onnx"), providers=["CPUExecutionProvider"]
    )
    shapes = [value.shape for value in (*session.get_inputs(), *session.get_outputs())]
    assert all(shape.count("clips") <= 1 and all(n == "clips" or isinstance(n, int) for n in shape) for shape in shapes)
    assert shapes[0][0] == "clips"
