"""Flags of visualize.py."""

import argparse

from options import common
from options.common import natural, positive_int


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Draws what a pretrained model predicts: strips of a masked clip, its prediction and the true clip, above each other."
    )
    p.add_argument("checkpoint", help="a checkpoint of pretrain_moco_mask.py, such as RUN/checkpoint_last.pth.tar")
    p.add_argument("--output", default="prediction.png", metavar="FILE", help="picture to write: .png, .pdf or .svg")
    p.add_argument("--data-root", default="data", help="folder that holds the data sets' folders")
    p.add_argument("--dataset", default=None, metavar="NAME", help="data set; default: that of the checkpoint")
    p.add_argument("--protocol", default=None, help="protocol; default: that of the checkpoint")
    p.add_argument(
        "--clips", type=positive_int, default=2, metavar="N", help="test clips to draw, of different classes"
    )
    p.add_argument(
        "--poses", type=positive_int, default=10, metavar="N", help="poses in a strip, evenly spaced in time"
    )
    p.add_argument("--seed", type=natural, default=0, help="chooses the clips and what is hidden")
    return p


def parse_args(argv=None) -> argparse.Namespace:
    return build_parser().parse_args(argv)
