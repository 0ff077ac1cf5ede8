"""Flags of tools/export.py."""

import argparse

from options import common

SUFFIXES = {".pt2": "torch", ".onnx": "onnx"}
FLAGS = """
--output FILE!
    file to write: .pt2 for torch.export.load, .onnx for ONNX runtimes (needs the packages onnx, onnxscript and
    onnxruntime)
--what {clip,step} = clip
    clip: clips (N, T, F) -> features (N, D); step: a frame of a stream (N, F) and the state -> features (N, D) and
    the next state, for causal encoders: gru, or a transformer pretrained with --causal
--frames T:positive_int = 64
    frames of a clip, fixed in the file (the number of clips is not); encoders are trained and evaluated with 64
--tolerance X:positive = 1e-4
    largest allowed difference of a feature, for random inputs; otherwise nothing is written; rounding gives 1e-7 to
    1e-5 (ONNX more)
--layout NAME  joint layout, if the checkpoint does not say it; default: the one that fits
--persons M:positive_int  persons in a frame, likewise; default: the number that fits
--threads N:positive_int  CPU threads; default: torch's
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Exports an encoder to a file that can be run without this project: torch.export (.pt2) or ONNX (.onnx).",
        "The file is loaded and compared with the encoder before it is renamed to --output. Inputs are normalised coordinates, "
        "F = V * C * M numbers in a frame, ordered by joint, then coordinate, then person.",
        program="tools.export",
    )
    what = "checkpoint: of this project, of the original release, of a related method, or a bare encoder"
    common.add_pretrained(p, "checkpoint", what)
    common.add_flags(p, FLAGS)
    return p


def parse_args(argv=None) -> argparse.Namespace:
    """Parsed arguments; `format`: torch or onnx, by the ending of --output."""
    p = build_parser()
    args = p.parse_args(argv)
    args.format = next((name for suffix, name in SUFFIXES.items() if args.output.endswith(suffix)), None)
    if args.format is None:
        p.error(f"--output {args.output}: the name must end in {' or '.join(SUFFIXES)}")
    return args
