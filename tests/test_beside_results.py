"""Pictures and TensorBoard come beside the results: whatever is wrong with them, the results are written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from programs import call, refused

import action_classification
import motion_prediction
import pretrain_moco_mask
from data_gen import check
from utils import plots
from utils.drawing import draw_animation
from utils.errors import UserError
from utils.plots import draw_confusion, labels, literal
from utils.skeleton import KINECT_V2

ROOT = Path(__file__).resolve().parent.parent
DRAW = """
import sys
import numpy as np
from utils.drawing import draw_clips
from utils.plots import draw_confusion, draw_curves
from utils.skeleton import KINECT_V2
draw_confusion(sys.argv[1] + "/c.png", np.eye(2), ["a_b", "$5"], "50 % of _x_")
draw_curves(sys.argv[1] + "/l.png", {"": ([1, 2], [3, 4])}, "%", "a_b")
draw_clips(sys.argv[1] + "/s.png", [np.random.default_rng(0).normal(size=(3, 5, 25, 1))], KINECT_V2, ["a_b"], poses=2)
"""


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense", "TkAgg"])
def test_pictures_are_drawn_whatever_the_environment(tmp_path, backend):
    """A notebook's backend, one that does not exist, and a matplotlibrc that wants a TeX that is not there."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nbackend: TkAgg\nfont.family: nowhere\n")
    environment = {**os.environ, "MPLBACKEND": backend, "MATPLOTLIBRC": str(tmp_path), "DISPLAY": "", "PATH": ""}
    ran = subprocess.run(
        [sys.executable, "-c", DRAW, str(tmp_path)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert sorted(p.name for p in tmp_path.glob("*.png")) == ["c.png", "l.png", "s.png"]


def test_settings_of_the_caller_stay(tmp_path):
    import matplotlib

    with matplotlib.rc_context({"font.size": 31.0}):
        draw_confusion(tmp_path / "c.png", np.eye(2), ["a", "挥手"])
        assert matplotlib.rcParams["font.size"] == 31.0


@pytest.fixture
def no_matplotlib(monkeypatch):
    def missing():
        raise UserError("pictures need matplotlib, which cannot be imported (ImportError: none here)")

    monkeypatch.setattr(plots, "import_matplotlib", missing)


TINY_DATASET = dict(frames=120)


SMALL = "--hidden-size 16 --num-layers 1 --threads 1 --device cpu"


def test_a_classification_keeps_its_results(data, tmp_path, no_matplotlib):
    command = f"--data-root {data} --finetune-dataset tiny --checkpoint-path {tmp_path} --epochs 1 --occlusion both --early {SMALL}"
    ran = call(action_classification.main, command)
    assert ran.status == 0, ran.err
    assert all((tmp_path / name).is_file() for name in ("result.json", "scores.npz", "confusion.npy", "early.json"))
    assert ran.out.count("could not be drawn") == 4 and not list(tmp_path.glob("*.png"))


def test_a_motion_prediction_keeps_its_results(data, tmp_path, no_matplotlib):
    command = (
        f"--data-root {data} --finetune-dataset tiny --checkpoint-path {tmp_path} --epochs 1 --observe 10 --predict 5"
    )
    ran = call(motion_prediction.main, f"{command} --horizons 1 5 --encoder-mode frozen {SMALL}")
    assert ran.status == 0, ran.err
    assert (tmp_path / "result.json").is_file() and "curve.png could not be drawn" in ran.out


def test_a_picture_that_was_asked_for_is_a_sentence(data, tmp_path, no_matplotlib):
    refused(call(check.main, f"{data}/tiny --picture {tmp_path}/x.png"), "need matplotlib")


@pytest.mark.parametrize("error", ["ImportError('no protobuf')", "TypeError('Descriptors cannot be created')"])
def test_a_pretraining_goes_on_without_tensorboard(data, tmp_path, monkeypatch, error):
    for name in [name for name in sys.modules if name.startswith(("tensorboard", "torch.utils.tensorboard"))]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "__init__.py").write_text(f"raise {error}")
    monkeypatch.syspath_prepend(str(tmp_path))
    command = f"--data-root {data} --pre-dataset tiny --checkpoint-path {tmp_path}/run {SMALL} --decoder-hidden-size 8"
    ran = call(pretrain_moco_mask.main, f"{command} --batch-size 4 --contrast-k 8 --topk 8 --max-steps 2 -p 1")
    assert ran.status == 0, ran.err
    assert ran.out.count("TensorBoard cannot be imported") == 1 and error.split("(")[0] in ran.out
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {record["step"] for record in records} >= {1, 2} and any("total" in record for record in records)


# -- characters -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fonts(monkeypatch):
    """Makes matplotlib know only the fonts that it brings, or only its own."""
    from matplotlib import font_manager, get_data_path

    def keep(brought: bool):
        found = [f for f in font_manager.fontManager.ttflist if f.fname.startswith(get_data_path())]
        found = [f for f in found if brought or f.name == plots.OWN_FONT]
        monkeypatch.setattr(font_manager.fontManager, "ttflist", found)
        plots.font_for.cache_clear()

    yield keep
    plots.font_for.cache_clear()


def test_class_names_without_a_font_become_numbers(fonts, recwarn, tmp_path):
    fonts(False)
    assert plots.with_default_style(labels)(["wave ± é", "挥手", "a$b"]) == ["wave ± é", "class 1", r"a\$b"]
    assert plots.with_default_style(literal)("clip 挥手 é") == "clip ?? é"
    draw_confusion(tmp_path / "c.png", np.eye(2), ["wave", "挥手"], "挥手: 50 %")
    assert not [w for w in recwarn if "missing from" in str(w.message)]
    clip = np.random.default_rng(0).normal(size=(3, 4, 25, 1))
    assert draw_animation(tmp_path / "a.gif", [clip], KINECT_V2, ["挥手: one"]) == 4


def test_characters_are_taken_from_a_font_that_has_them(fonts, recwarn, tmp_path):
    fonts(True)
    script = "\U0001d49c"  # a script A: in the STIX fonts that matplotlib brings, not in DejaVu Sans
    assert plots.with_default_style(labels)([script]) == [script]
    draw_confusion(tmp_path / "c.png", np.eye(2), ["wave", script], script)
    assert not [w for w in recwarn if "missing from" in str(w.message)]  # a box where a character should be
