"""Flags of tools/report.py."""

import argparse

from options import common

FLAGS = """
runs RUN+
    run folders of pretraining and of evaluations, folders that hold several of them (such as runs/demo), or result
    files of tools/ensemble.py
--output FILE = report.html  file to write, .html
--title TEXT = ""  heading; default: the names of the folders
--data-root FOLDER  folder that holds the data sets' folders, for the moving figures; default: where each run had it
--hardest N:natural = 4  classes with the lowest accuracy whose clips are shown for each evaluation; 0 = no clips
--clips N:positive_int = 2  clips of each of these classes, wrongly classified ones first; each adds 20 to 60 kB
--predictions N:natural = 3
    clips whose masked motion each pretrained model predicts; 0 = none, and no checkpoint is opened
--seed SEED:natural = 0  chooses the clips and what is hidden
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "One HTML file of any runs: results, curves, confusion, the hardest classes and predictions as moving figures.",
        "The file holds everything it shows and asks no network; it can be sent by mail and opened in any browser.",
        program="tools.report",
    )
    common.add_flags(p, FLAGS)
    return p


def parse_args(argv=None) -> argparse.Namespace:
    return build_parser().parse_args(argv)
