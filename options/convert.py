"""Flags of tools/convert_checkpoint.py."""

import argparse

from options import common

FLAGS = """
--to {ours,released,encoder}
    format to write; without it nothing is written. ours: this project's, from which the model can be rebuilt.
    released: that of the original code and related methods, epoch and state_dict with encoder_q.*; gru only.
    encoder: the query encoder alone, without head, queue and prompts, for sharing: at most a third of the size
--half
    with --to encoder: store weights as float16, half the size, for sharing (features then differ in about the fourth
    digit; programs still compute in float32)
--output FILE = ""  with --to: file to write; an existing file is not overwritten
--stream {$STREAMS}  stream to store, if the checkpoint does not say it; a contradiction is refused
--layout NAME  joint layout to store, likewise; default: the one that fits the encoder's input
--persons M:positive_int  persons in a frame to store, likewise
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Describes the content of a checkpoint and, with --to, writes it in another format: this project's, that of the "
        "original release, or the encoder alone.",
        "Tensors are copied bit by bit (except with --half).",
        program="tools.convert_checkpoint",
    )
    what = "checkpoint: of this project, of the original release, of a related method (CMD, HaLP, skeleton-contrast), or a "
    what += "bare encoder"
    common.add_pretrained(p, "checkpoint", what)
    common.add_flags(p, FLAGS)
    return p


def parse_args(argv=None) -> argparse.Namespace:
    p = build_parser()
    args = p.parse_args(argv)
    if (args.to is None) != (not args.output):
        p.error(
            "--to (the format) and --output (the file) need each other; without both, a checkpoint is only described"
        )
    if args.half and args.to != "encoder":
        p.error("--half needs --to encoder: pretraining can only be resumed from exact weights")
    return args
