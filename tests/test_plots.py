"""The pictures exist, are whole, show what they are given, and wrong calls are refused."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from options.datasets import DATASETS
from utils import plots
from utils.convert_layout import convert
from utils.drawing import draw_clips
from utils.errors import UserError
from utils.plots import check_picture_path, draw_confusion, draw_curves, draw_embedding
from utils.skeleton import KINECT_V2, LAYOUTS

PNG = b"\x89PNG\r\n\x1a\n"


def read_png(path):
    from matplotlib.image import imread

    return imread(path)[..., :3]


def standing(layout, frames=6, persons=2):
    """(3, frames, V, persons): person 1 is a column of joints with some width, the others are absent."""
    clip = np.zeros((3, frames, KINECT_V2.joints, persons), np.float32)
    rng = np.random.default_rng(0)
    clip[..., 0] = rng.normal(size=(3, 1, KINECT_V2.joints)) * 0.3
    clip[2, :, KINECT_V2.up[1], 0] = clip[2, :, KINECT_V2.up[0], 0] + 0.5
    return convert(clip, KINECT_V2, layout, axis=2)


@pytest.mark.parametrize("name", LAYOUTS)
def test_clips_of_every_layout_are_drawn(tmp_path, name):
    layout = LAYOUTS[name]
    clip = standing(layout)
    draw_clips(tmp_path / "deep" / "sheet.png", [clip, clip[:, :1]], layout, ["first", "second"], poses=3)
    picture = read_png(tmp_path / "deep" / "sheet.png")
    draw_clips(tmp_path / "empty.png", [clip * 0, clip[:, :1] * 0], layout, ["first", "second"], poses=3)
    dark, dark_empty = (picture < 0.9).any(-1).mean(), (read_png(tmp_path / "empty.png") < 0.9).any(-1).mean()
    assert dark > 1.5 * dark_empty  # stick figures leave ink
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["sheet.png"]  # no temporary name is left


def test_a_broken_clip_can_still_be_looked_at(tmp_path):
    layout = LAYOUTS["kinect_v2_25"]
    clip = standing(layout)
    clip[0, 2, 3, 0] = np.nan
    draw_clips(tmp_path / "a.png", [clip, clip[:, :0]], layout, poses=2)
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)


def test_confusion_colours_the_cell_that_is_confused(tmp_path):
    names = [f"class {i}" for i in range(40)]  # above the number up to which cells hold text
    matrix = np.eye(40)
    draw_confusion(tmp_path / "right.png", matrix, names)
    matrix[3] = 0  # an empty row: a class without a clip
    draw_confusion(tmp_path / "missing.png", matrix, names)
    assert not np.array_equal(read_png(tmp_path / "right.png"), read_png(tmp_path / "missing.png"))
    draw_confusion(tmp_path / "counts.png", np.eye(40) * 7, names)
    assert np.array_equal(read_png(tmp_path / "right.png"), read_png(tmp_path / "counts.png"))  # shares of the row
    draw_confusion(tmp_path / "small.svg", np.array([[3, 1], [0, 0]]), ["a < b", "b"])
    assert b"</svg>" in (tmp_path / "small.svg").read_bytes()


def test_curves(tmp_path):
    draw_curves(tmp_path / "c.png", {"loss": ([0, 1, 2], [3.0, np.nan, 1.0])}, "epoch", "loss", "a run")
    assert (tmp_path / "c.png").read_bytes().startswith(PNG)
    draw_curves(tmp_path / "c.pdf", {"a": (range(30), range(30)), "b": (range(2), range(2))})
    assert (tmp_path / "c.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError, match="equal length"):
        draw_curves(tmp_path / "d.png", {"loss": ([0, 1], [1.0])})
    with pytest.raises(ValueError, match="at least one curve"):
        draw_curves(tmp_path / "d.png", {})
    assert not (tmp_path / "d.png").exists()


@pytest.mark.parametrize("name", ["ntu60", "ntu120", "ui_prmd_quality"])
@pytest.mark.parametrize("number", [1, 2])
def test_no_class_name_of_an_embedding_is_cut_off(tmp_path, monkeypatch, name, number):
    """The legend of 60 or 120 classes is as wide as the picture, not wider, and leaves the points their room."""
    names, kept = DATASETS[name].classes, []
    monkeypatch.setattr(plots, "save_figure", lambda figure, path: kept.append(figure))
    labels = np.arange(3 * len(names)) % len(names)
    points = np.random.default_rng(0).normal(size=(len(labels), 2))
    draw_embedding(tmp_path / "a.png", {f"panel {i}": points for i in range(number)}, labels, names)
    (figure,) = kept
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(names)
    assert all(axes.get_window_extent().y0 > box.y1 - 1 for axes in figure.axes)
    assert all(axes.get_window_extent().height > 4 * figure.dpi for axes in figure.axes)


def test_wrong_calls_are_refused(tmp_path):
    layout = LAYOUTS["sbu_15"]
    with pytest.raises(UserError, match=r"must end in \.png"):
        check_picture_path(tmp_path / "sheet.gif")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        check_picture_path(tmp_path / "folder.png")
    with pytest.raises(ValueError, match=r"expected clips \(3, t, 15, M\)"):
        draw_clips(tmp_path / "a.png", [np.zeros((3, 4, 25, 2))], layout)
    with pytest.raises(ValueError, match="at least one clip"):
        draw_clips(tmp_path / "a.png", [], layout)
    with pytest.raises(ValueError, match="expected a matrix"):
        draw_confusion(tmp_path / "a.png", np.zeros((2, 3)), ["a", "b"])


def test_matplotlib_is_imported_only_when_a_picture_is_drawn():
    code = "import sys, utils.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent).returncode == 0
