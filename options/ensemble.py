"""Command line of `tools/ensemble.py`."""

import argparse

from options.common import Parser

DESCRIPTION = """Adds up the saved scores of several runs (joint, bone, motion, or any others on the same clips) with
weights, and prints the accuracy of each run and of each fusion. Clips are matched by name; runs on other clips are
refused. No network and no data set is needed, only the scores.npz of each run."""

EXAMPLE = """example, the three streams with the usual weights and a search of better ones:
  python -m tools.ensemble runs/linear_joint runs/linear_bone runs/linear_motion --weights 0.6 0.6 0.4 --search"""


def get_parser() -> argparse.ArgumentParser:
    """The parser; its values are documented in their help texts."""
    parser = Parser(
        "python -m tools.ensemble",
        description=DESCRIPTION,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN_OR_SCORES",
        help="two or more run folders that hold a scores.npz, or such files themselves; a file has the arrays names, "
        "labels and scores (clips, classes)",
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        type=float,
        action="append",
        metavar="W",
        help="one weight per run, in the order of the runs, 0 or more; only their ratios matter. Raise the weight of "
        "the stream that is best alone. May be given several times, a row of the table each. Default: equal weights, "
        "and for the streams joint, bone, motion also the usual 0.6 0.6 0.4",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="also search the weights on one half of the clips and report them on the other half. The halves are made "
        "by a checksum of the clip names, so they are the same everywhere; all rows are then shown for the second half "
        "too. Both halves are test clips: say so beside a searched figure",
    )
    parser.add_argument(
        "--search-steps",
        type=int,
        metavar="S",
        help="weights are tried in multiples of 1/S that add up to 1; 10 when not given, which makes 66 "
        "combinations of three runs. More steps fit the first half closer, seldom the second",
    )
    parser.add_argument(
        "--output",
        metavar="FILE.json",
        help="also write the table, with the sources and the halves, as JSON",
    )
    return parser
