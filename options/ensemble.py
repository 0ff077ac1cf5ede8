"""Flags of tools/ensemble.py."""

import argparse

from options import common

RUNS = """
runs RUN_OR_SCORES+
    two or more run folders with a scores.npz, or such files, with the arrays names, labels and scores (clips,
    classes)
"""
SEARCH = """
--search
    also search for weights on one half of the clips and report the accuracy on the other half, for all rows. The
    halves are made by a checksum of the clip names, so that they are always the same. Both halves are test clips:
    say so when you report a result of the search
--search-steps S:int
    search over weights that are multiples of 1/S and add up to 1; default 10, which gives 66 combinations of three
    runs; more steps rarely improve the second half
--output FILE.json  also write the table, with its sources and the halves, as JSON
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Fusion: adds the saved scores of several runs (joint, bone, motion, or any others on the same clips) with weights, and "
        "prints the accuracy of each run and of each fusion. Clips are matched by name; runs on other clips are refused. Only the "
        "scores.npz of each run is needed.",
        "Example, three streams with the usual weights and a search for better ones: python -m tools.ensemble runs/linear_joint "
        "runs/linear_bone runs/linear_motion --weights 0.6 0.6 0.4 --search",
        program="tools.ensemble",
    )
    common.add_flags(p, RUNS)
    p.add_argument(
        "--weights",
        nargs="+",
        type=float,
        action="append",
        metavar="W",
        help="one weight for each run, in the order of the runs, 0 or more; only their ratios matter; usually larger for the "
        "best stream. Can be given several times, for a row of the table each. Default: equal weights, and for joint, bone "
        "and motion also the usual 0.6 0.6 0.4",
    )
    common.add_flags(p, SEARCH)
    return p


def parse_args(argv=None) -> argparse.Namespace:
    return build_parser().parse_args(argv)
