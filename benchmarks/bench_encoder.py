"""Measures the recurrent layers: ours against the released implementation (one nn.GRU call per frame) and torch's GRU.

    python benchmarks/bench_encoder.py --batch 48 --precision bf16

prints one JSON line: times, achieved FLOP/s, their share of the rate of a (batch*frames x hidden)(hidden x 3 hidden)
product on this machine in the same precision, ratios to the twin (which computes in float32, as released), and peak
memory (see benchmarks.common.beside_product). The FLOP are those of the matrix products, 3 x forward in training.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file runs by its path

import torch

from benchmarks import common
from benchmarks.twins import FrameByFrameGRU
from models.recurrent import ForwardGRU
from options.common import positive_int
from utils.errors import UserError, run

# class and implementation; native: torch's own GRU, the fallback of models.recurrent
KINDS = {"ours": (ForwardGRU, "auto"), "native": (ForwardGRU, "cudnn"), "twin": (FrameByFrameGRU, "auto")}


def parse_args(argv=None) -> argparse.Namespace:
    parser = common.parser(
        __doc__, batch=48, hidden=1024, layers=3, precision="fp32", device="cpu", threads=0, clock="wall", rounds=5, save=False
    )  # fmt: skip
    add, modes = parser.add_argument, ("train", "forward")
    add("--frames", type=positive_int, default=64, help="frames of a clip; the released encoder reads 64")
    add("--features", type=positive_int, default=150, help="numbers a frame: 150 for 25 joints of two persons")
    add("--pass", dest="mode", choices=modes, default="train", help="with gradients or without")
    add("--only", nargs="+", choices=tuple(KINDS), default=tuple(KINDS), help="which candidates to run")
    args = parser.parse_args(argv)
    if args.clock == "processor" and (args.threads != 1 or args.device != "cpu"):
        raise UserError("--clock processor: meaningful on a CPU with one thread only; add --threads 1 --device cpu")
    return args


def build_pass(kind, batch, frames, features, hidden, layers, precision, mode, device):
    """A function that runs one pass of one candidate on the same random weights and clips as the others."""
    torch.manual_seed(0)
    made, implementation = KINDS[kind]
    module = made(features, hidden, layers).to(device)
    module.implementation = implementation
    if kind == "ours":
        module.compute_dtype = common.PRECISIONS[precision]
    clips = torch.randn(batch, frames, features, device=device)

    def train():
        module.zero_grad(set_to_none=True)
        module(clips.requires_grad_())[0][:, -1].sum().backward()

    @torch.no_grad()
    def forward():
        module(clips)

    return train if mode == "train" else forward


def pass_flop(batch, frames, features, hidden, layers, mode) -> float:
    """Operations of the matrix products of a pass: input and recurrent product of both directions of every layer."""
    widths = [features] + [2 * hidden] * (layers - 1)
    forward = sum(2 * common.product_flop(batch * frames, width + hidden, 3 * hidden) for width in widths)
    return forward * (3 if mode == "train" else 1)


def main(argv=None) -> None:
    args = parse_args(argv)
    size = (args.batch, args.frames, args.features, args.hidden, args.layers)
    how = {kind: (kind, *size, args.precision, args.mode, args.device) for kind in args.only}
    shape, dtype = (args.batch * args.frames, args.hidden, 3 * args.hidden), common.PRECISIONS[args.precision]
    common.report("encoder", args, common.compare(build_pass, how, args, shape, dtype, pass_flop(*size, args.mode)))


if __name__ == "__main__":
    run(main)
