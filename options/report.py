"""Flags of tools/report.py."""

import argparse

from options import common
from options.common import natural, positive_int


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "One HTML file of any runs: results, curves, confusion, the hardest classes and predictions as moving figures.",
        "The file holds everything it shows and asks no network; it can be sent by mail and opened in any browser.",
        program="tools.report",
    )
    p.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run folders of pretraining and of evaluations, folders that hold several of them (such as runs/demo), or "
        "result files of tools/ensemble.py",
    )
    p.add_argument("--output", default="report.html", metavar="FILE", help="file to write, .html")
    p.add_argument("--title", default="", help="heading; default: the names of the folders")
    p.add_argument(
        "--data-root",
        default=None,
        help="folder that holds the data sets' folders, for the moving figures; default: where each run had it",
    )
    p.add_argument(
        "--hardest",
        type=natural,
        default=4,
        metavar="N",
        help="classes with the lowest accuracy whose clips are shown for each evaluation; 0 = no clips",
    )
    p.add_argument(
        "--clips",
        type=positive_int,
        default=2,
        metavar="N",
        help="clips of each of these classes, wrongly classified ones first; each adds 20 to 60 kB",
    )
    p.add_argument(
        "--predictions",
        type=natural,
        default=3,
        metavar="N",
        help="clips whose masked motion each pretrained model predicts; 0 = none, and no checkpoint is opened",
    )
    p.add_argument("--seed", type=natural, default=0, help="chooses the clips and what is hidden")
    return p


def parse_args(argv=None) -> argparse.Namespace:
    return build_parser().parse_args(argv)
