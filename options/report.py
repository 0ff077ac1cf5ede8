"""Flags of tools/report.py."""

import argparse

from options import common

FLAGS = """
runs RUN+
    run folders of pretraining and of evaluations, folders that contain several of them (such as runs/demo), or
    result files of tools/ensemble.py
--output FILE = report.html  file to write, .html
--title TEXT = ""  heading; default: the names of the folders
--data-root FOLDER  folder that holds the data sets' folders, for the animations; default: that of each run
--hardest N:natural = 4  number of classes with the lowest accuracy to show clips of, for each evaluation; 0 = none
--clips N:positive_int = 2  clips to show of each of these classes, misclassified ones first; each adds 20 to 60 kB
--predictions N:natural = 3
    clips to show with the masked motion that each pretrained model predicts; 0 = none, and no checkpoint is opened
--seed SEED:natural = 0  chooses the clips and what is hidden
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Writes an HTML page about runs: results, curves, confusion matrices, and animations of the hardest classes and of "
        "predicted motion.",
        "The page is one file that needs no network; it can be sent by mail and opened in any browser.",
        program="tools.report",
    )
    common.add_flags(p, FLAGS)
    return p


def parse_args(argv=None) -> argparse.Namespace:
    return build_parser().parse_args(argv)
