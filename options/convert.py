"""Flags of tools/convert_checkpoint.py."""

import argparse

from options import common

FLAGS = """
--to {ours,released,encoder}
    ours: a pretraining file that explains and rebuilds itself, from a released one. released: what the original
    code and its relatives read, epoch and state_dict with encoder_q.*; gru only. encoder: the query encoder by
    itself, without head, queue and prompts: a third of the size or less, for sharing. Not given: nothing is written
--half
    with --to encoder: the weights as float16, half the size, for sharing (features then differ in the fourth digit
    or so; every program computes in float32 all the same)
--output FILE = ""  file to write, with --to; nothing is overwritten
--stream {$STREAMS}  to write into the file where the old one does not say it; what contradicts it is refused
--layout NAME  joint layout, likewise; default: the one that fits the encoder's input
--persons M:positive_int  persons in a frame, likewise
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Says what a checkpoint holds and, with --to, writes it in another format: ours, that of the original release, or the "
        "encoder by itself.",
        "Every tensor that is kept stays bit for bit as it is (but for --half).",
        program="tools.convert_checkpoint",
    )
    what = "checkpoint: ours, a released one, a relative's (CMD, HaLP, skeleton-contrast), or a bare encoder"
    common.add_pretrained(p, "checkpoint", what)
    common.add_flags(p, FLAGS)
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
