"""Flags of tools/export.py."""

import argparse

from options import common

SUFFIXES = {".pt2": "torch", ".onnx": "onnx"}
FLAGS = """
--output FILE!
    file to write: .pt2 for torch.export.load, .onnx for an ONNX runtime (needs the packages onnx, onnxscript and
    onnxruntime)
--what {clip,step} = clip
    clip: features (N, D) of clips (N, T, F). step: one frame of a stream, (N, F) and the state -> (N, D) and the
    next state, for encoders that see no future: gru, and the transformer pretrained with --causal
--frames T:positive_int = 64
    frames of a clip, fixed in the file (the number of clips is not); 64 is what encoders are trained and evaluated
    on
--tolerance X:positive = 1e-4
    largest allowed difference of a number of the features, for random inputs; rounding gives 1e-7 to 1e-5 (ONNX
    more); above it nothing is written
--layout NAME  joint layout, for files that do not say it; default: what fits
--persons M:positive_int  persons in a frame, likewise; default: what fits
--threads N:positive_int  CPU threads; default: as torch chooses
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Writes an encoder as a program that needs none of this repository: torch.export (.pt2) or ONNX (.onnx).",
        "The written file is loaded again and compared with the encoder before it gets its name. Inputs are normalised "
        "coordinates, F = V * C * M numbers a frame: joint by joint, then coordinate, then person.",
        program="tools.export",
    )
    common.add_pretrained(p, "checkpoint", "checkpoint: ours, a released one, a relative's, or a bare encoder")
    common.add_flags(p, FLAGS)
    return p


def parse_args(argv=None) -> argparse.Namespace:
    """Parsed arguments; `format` is what the output's name ends in."""
    p = build_parser()
    args = p.parse_args(argv)
    args.format = next((name for suffix, name in SUFFIXES.items() if args.output.endswith(suffix)), None)
    if args.format is None:
        p.error(f"--output {args.output}: the name must end in {' or '.join(SUFFIXES)}")
    return args
