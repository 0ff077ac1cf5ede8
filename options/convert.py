"""Flags of tools/convert_checkpoint.py."""

import argparse

from options import common
from options.common import positive_int

FORMATS = ("ours", "released", "encoder")


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Says what a checkpoint holds and, with --to, writes it in another format: ours, that of the original release, or the "
        "encoder by itself.",
        "Every tensor that is kept stays bit for bit as it is (but for --half).",
        program="tools.convert_checkpoint",
    )
    common.add_pretrained(
        p,
        "checkpoint",
        "checkpoint: ours, a released one, a relative's (CMD, HaLP, skeleton-contrast), or a bare encoder",
    )
    p.add_argument(
        "--to",
        choices=FORMATS,
        default=None,
        help="ours: a pretraining file that explains and rebuilds itself, from a released one. released: what the original code "
        "and its relatives read, epoch and state_dict with encoder_q.*; gru only. encoder: the query encoder by itself, "
        "without head, queue and prompts: a third of the size or less, for sharing. Not given: nothing is written",
    )
    p.add_argument(
        "--half",
        action="store_true",
        help="with --to encoder: the weights as float16, half the size, for sharing (features then differ in the fourth digit or "
        "so; every program computes in float32 all the same)",
    )
    p.add_argument("--output", default="", metavar="FILE", help="file to write, with --to; nothing is overwritten")
    p.add_argument(
        "--stream",
        choices=common.STREAMS,
        default=None,
        help="to write into the file where the old one does not say it; what contradicts it is refused",
    )
    p.add_argument(
        "--layout",
        default=None,
        metavar="NAME",
        help="joint layout, likewise; default: the one that fits the encoder's input",
    )
    p.add_argument("--persons", type=positive_int, default=None, metavar="M", help="persons in a frame, likewise")
    return p


def parse_args(argv=None) -> argparse.Namespace:
    p = build_parser()
    args = p.parse_args(argv)
    if (args.to is None) != (not args.output):
        p.error(
            "--to and --output go together: the format and the file; without both, the checkpoint is only described"
        )
    if args.half and args.to != "encoder":
        p.error("--half is of --to encoder: pretraining goes on from exact weights")
    return args
