"""Draws data_gen/axes.png, the axes that a preparation expects and those that it makes, on a clip of UI-PRMD.

    python -m data_gen.axes --output data_gen/axes.png

Right-handed axes are expected, the body looking at the sensor or anywhere else: x to the body's right when it faces the
sensor, y up, z away from the sensor. Normalised, x goes from the left to the right shoulder, z up along the spine, and the
body looks along y.
"""

import argparse
import sys

import numpy as np

from data_gen import ui_prmd
from data_gen.normalise import normalise
from options.common import Parser
from utils.drawing import part_paint
from utils.errors import run
from utils.plots import check_picture_path, drawn_alike, new_figure, save_figure
from utils.skeleton import get_layout

CLIP = "m02_s01_e03_cor"  # a step over a hurdle, in front of the sensor
LAYOUT = "kinect_v2_25"
PANELS = (  # title, words at the axes, the axes as matplotlib's (its third is drawn upwards), signs that keep them right-handed
    ("raw: y up, the body looks along -z", ("x: to its right", "y: up", "z: away"), (0, 2, 1), (1, -1, 1)),
    ("normalised: z up, the body looks along y", ("x: to its right", "y: ahead", "z: up"), (0, 1, 2), (1, 1, 1)),
)


@drawn_alike
def draw_axes(path, raw: np.ndarray) -> None:
    """Two bodies with their axes. raw: a clip (3, T, V, 1) in a sensor's axes."""
    layout = get_layout(LAYOUT)
    figure = new_figure(8.4, 4.6)
    paint = part_paint(layout, 1, 1)[0, :, 0]
    for i, (clip, panel) in enumerate(zip((raw, normalise(raw, layout)), PANELS, strict=True)):
        title, words, order, signs = panel
        body = clip[:, clip.shape[1] // 2, :, 0]
        shown = (body - body[:, :1])[list(order)] * np.array(signs)[:, None]
        axes = figure.add_subplot(1, 2, i + 1, projection="3d")
        for joint, parent in enumerate(layout.parents):
            axes.plot(*shown[:, [joint, parent]], color=paint[joint], linewidth=3, marker="o", markersize=4)
        for axis, word in enumerate(words):
            arrow = np.eye(3)[order.index(axis)] * np.array(signs) * 0.55
            axes.quiver(-0.75, 0.0, -0.85, *arrow, color="#202020", arrow_length_ratio=0.12, linewidth=1.4)
            axes.text(*(arrow * 1.1 + (-0.75, 0.0, -0.85)), word, fontsize=9)
        axes.set(xlim=(-0.8, 0.8), ylim=(-0.8, 0.8), zlim=(-0.85, 0.75))
        axes.set_title(title, fontsize=11)
        axes.set_box_aspect((1, 1, 1), zoom=1.25)
        axes.view_init(elev=14, azim=-60)
        axes.set_axis_off()
    save_figure(figure, path)


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m data_gen.axes", description="Draws the axes that are expected.")
    parser.add_argument("--output", default="axes.png", metavar="FILE", help=".png, .pdf or .svg")
    return parser


def main(argv=None) -> int:
    args = make_parser().parse_args(argv)
    path = check_picture_path(args.output)
    draw_axes(path, ui_prmd.read_packed().clip(CLIP))
    print(path)
    return 0


if __name__ == "__main__":
    run(main, sys.argv[1:])
