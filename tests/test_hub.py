"""torch.hub from elsewhere: equal numbers, and no mixing of packages that share a name."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from make_checkpoint import CAUSAL, write_pretrained

import hubconf
from engine.features import load
from models.backbones import BACKBONES as registry

ROOT = Path(__file__).resolve().parent.parent
BACKBONES = ("gru", "bigru", "transformer", "st_transformer", "stgcn")


def run_elsewhere(code: str, folder: Path) -> str:
    """The last line that `code` prints, run by a new Python process in `folder`."""
    ran = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()[-1]


CALLER = """
import json, sys
import numpy as np, torch
def hub(entry, **given): return torch.hub.load({root!r}, entry, source="local", **given)
encoder = hub("gru", checkpoint={gru!r})
import utils, models  # from here on the caller's are loaded, before that they were only to be found
assert utils.WHOSE == models.WHOSE == "the caller's", utils.__file__
again = hub("gru", checkpoint={gru!r})
api = hub("features", checkpoint={gru!r}, device="cpu")
other = hub("transformer", checkpoint={transformer!r})
x = torch.linspace(-1, 1, 2 * 9 * 150).reshape(2, 9, 150)
clip = np.linspace(0.1, 2, 30 * 75).reshape(30, 25, 3)
with torch.no_grad():
    out = [encoder(x).tolist(), other(x).tolist(), api.clip_features([clip]).tolist()]
stream = api.start_stream()
last = [stream.step(frame) for frame in clip][-1].tolist()
assert type(encoder) is type(again) is type(other) and all(p.requires_grad for p in encoder.parameters())
import utils, models
assert utils.WHOSE == models.WHOSE == "the caller's", utils.__file__
assert not [p for p in sys.path if p == {root!r}]
print(json.dumps([*out, last]))
"""


def test_from_another_folder_beside_packages_of_the_same_names(tmp_path):
    """The caller also has packages `utils` and `models`; each side imports its own, in either order."""
    for name in ("utils", "models"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text('WHOSE = "the caller\'s"\n')
    gru = write_pretrained(tmp_path / "gru.pth.tar")
    transformer = write_pretrained(tmp_path / "transformer.pth.tar", **CAUSAL)
    values = {"root": str(ROOT), "gru": str(gru), "transformer": str(transformer)}
    found = json.loads(run_elsewhere(CALLER.format(**values), tmp_path))
    x = torch.linspace(-1, 1, 2 * 9 * 150).reshape(2, 9, 150)
    clip = np.linspace(0.1, 2, 30 * 75).reshape(30, 25, 3)
    api = load(gru, device="cpu")
    with torch.no_grad():
        expected = [api.encoder(x), load(transformer, device="cpu").encoder(x), api.clip_features([clip])]
    expected.append(api.frame_features(clip)[-1])
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


WITHOUT_CLASH = """
import pickle, torch
m = torch.hub.load({root!r}, "transformer", source="local", width=16, depth=1, heads=2, causal=True)
x = torch.randn(2, 9, 150)
with torch.no_grad():
    assert torch.equal(pickle.loads(pickle.dumps(m))(x), m(x))
    assert torch.allclose(torch.compile(m, backend="eager")(x), m(x), atol=1e-6)
print("same")
"""


@pytest.mark.slow
def test_modules_can_be_pickled_and_compiled_where_no_name_clashes(tmp_path):
    assert run_elsewhere(WITHOUT_CLASH.format(root=str(ROOT)), tmp_path) == "same"


SMALL = {
    "gru": {"hidden_size": 16, "num_layers": 1},
    "bigru": {"hidden_size": 16, "num_layers": 1},
    "transformer": {"width": 16, "depth": 1, "heads": 2},
    "st_transformer": {"width": 16, "depth": 1, "heads": 2},
    "stgcn": {"width": 32, "depth": 2},
}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_random_weights_of_every_backbone(backbone):
    def new(seed):
        return torch.hub.load(str(ROOT), backbone, source="local", seed=seed, persons=1, **SMALL[backbone])

    one, same, other = new(1), new(1), new(2)
    x = torch.randn(2, 64, 75, generator=torch.Generator().manual_seed(0))
    assert not one.training and one(x).shape == (2, one.feature_size)
    assert torch.equal(one(x), same(x)) and not torch.equal(one(x), other(x))


def test_every_backbone_has_an_entry_point():
    entries = [name for name, value in vars(hubconf).items() if callable(value) and not name.startswith("_")]
    assert set(entries) - {"Path", "SimpleNamespace"} == {*BACKBONES, "features"} and set(BACKBONES) <= set(registry)
    assert all(getattr(hubconf, name).__doc__ for name in (*BACKBONES, "features"))


def test_mistakes_are_sentences(tmp_path):
    path = write_pretrained(tmp_path / "gru.pth.tar")
    for entry, given, words in (
        ("transformer", {"checkpoint": path}, "--backbone gru, not --backbone transformer"),
        ("gru", {"checkpoint": path, "hidden_size": 32}, "--hidden-size 16"),
        ("gru", {"checkpoint": tmp_path / "none.pth"}, "no such file"),
        ("gru", {"depth": 3}, "'depth' is not known; known: hidden_size, num_layers, layout, joints, persons"),
        ("stgcn", {"colour": 3}, "'colour' is not known"),
        ("gru", {"hidden_size": -1}, "hidden_size must be above 0"),
        ("gru", {"checkpoint": path, "colour": 3}, "'colour' is not known"),
        ("gru", {"checkpoint": path, "layout": "sbu_15"}, "it has layout kinect_v2_25, got layout=sbu_15"),
        ("gru", {"checkpoint": path, "persons": 1}, "it has persons 2, got persons=1"),
    ):
        with pytest.raises(Exception, match=words) as caught:
            torch.hub.load(str(ROOT), entry, source="local", **given)
        assert type(caught.value).__name__ == "UserError"
