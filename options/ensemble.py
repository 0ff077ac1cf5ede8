"""Flags of tools/ensemble.py."""

import argparse

from options import common

RUNS = """
runs RUN_OR_SCORES+
    two or more run folders that hold a scores.npz, or such files themselves; a file has the arrays names, labels
    and scores (clips, classes)
"""
SEARCH = """
--search
    also search the weights on one half of the clips and report them on the other half. The halves are made by a
    checksum of the clip names, so they are the same everywhere; all rows are then shown for the second half too.
    Both halves are test clips: say so beside a searched figure
--search-steps S:int
    weights are tried in multiples of 1/S that add up to 1; 10 when not given, which makes 66 combinations of three
    runs. More steps fit the first half closer, seldom the second
--output FILE.json  also write the table, with the sources and the halves, as JSON
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Adds up the saved scores of several runs (joint, bone, motion, or any others on the same clips) with weights, and prints "
        "the accuracy of each run and of each fusion. Clips are matched by name; runs on other clips are refused. No network and "
        "no data set is needed, only the scores.npz of each run.",
        "Example, the three streams with the usual weights and a search of better ones: python -m tools.ensemble runs/linear_joint "
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
        help="one weight per run, in the order of the runs, 0 or more; only their ratios matter. Raise the weight of the stream "
        "that is best alone. May be given several times, a row of the table each. Default: equal weights, and for the streams "
        "joint, bone, motion also the usual 0.6 0.6 0.4",
    )
    common.add_flags(p, SEARCH)
    return p


def parse_args(argv=None) -> argparse.Namespace:
    return build_parser().parse_args(argv)
