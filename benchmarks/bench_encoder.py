"""Measures the recurrent layers: ours against the released way (one nn.GRU call a frame) and torch's GRU per direction.

    python benchmarks/bench_encoder.py --batch 48 --precision bf16

prints one JSON line: times, achieved FLOP/s, their share of the rate of a (batch*frames x hidden)(hidden x 3 hidden)
product on this machine in the same precision, ratios to the twin (which computes in float32, as released), and peak
memory. All candidates run in turn within one process. The FLOP are those of the matrix products, 3 x forward in training.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file runs by its path

import torch

from benchmarks import common
from benchmarks.twins import FrameByFrameGRU, NativeGRU
from models.recurrent import ForwardGRU
from utils.errors import UserError, run

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
KINDS = {"ours": ForwardGRU, "native": NativeGRU, "twin": FrameByFrameGRU}


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_argument_group("size")
    size.add_argument(
        "--batch", type=int, default=48, help="clips in a pass; a training step of batch B runs 3 B, then B"
    )
    size.add_argument("--hidden", type=int, default=1024, help="width of a direction; the released encoder has 1024")
    size.add_argument("--frames", type=int, default=64, help="frames of a clip; the released encoder reads 64")
    size.add_argument("--layers", type=int, default=3, help="recurrent layers; the released encoder has 3")
    size.add_argument("--features", type=int, default=150, help="numbers a frame: 150 for 25 joints of two persons")
    how = parser.add_argument_group("how")
    how.add_argument("--precision", choices=tuple(common.PRECISIONS), default="fp32", help="operands of our products")
    how.add_argument(
        "--pass", dest="mode", choices=("train", "forward"), default="train", help="with gradients or without"
    )
    how.add_argument("--device", default="cpu", help="cpu or cuda")
    how.add_argument("--threads", type=int, default=0, help="processor threads; 0 leaves torch's choice")
    how.add_argument(
        "--clock",
        choices=tuple(CLOCKS),
        default="wall",
        help="wall, or processor: the time that this process was given, which others on the machine disturb less; "
        "it adds up threads, so use it with --threads 1 on a CPU",
    )
    how.add_argument("--rounds", type=int, default=5, help="measured rounds; more where the machine is shared")
    how.add_argument("--only", nargs="+", choices=tuple(KINDS), default=tuple(KINDS), help="which candidates to run")
    how.add_argument(
        "--no-memory", action="store_true", help="leave out peak memory, which starts a process a candidate"
    )
    how.add_argument("--save", action="store_true", help="also write the line to benchmarks/results")
    args = parser.parse_args(argv)
    for name in ("batch", "hidden", "frames", "layers", "features", "rounds"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)}: expected 1 or more")
    if args.threads < 0:
        raise UserError(f"--threads {args.threads}: expected 0 or more")
    if args.clock == "processor" and (args.threads != 1 or args.device != "cpu"):
        raise UserError("--clock processor: meaningful on a CPU with one thread only; add --threads 1 --device cpu")
    return args


def build_pass(kind, batch, frames, features, hidden, layers, precision, mode, device):
    """A function that runs one pass of one candidate on the same random weights and clips as the others."""
    torch.manual_seed(0)
    module = KINDS[kind](features, hidden, layers).to(device)
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
    device = common.choose_device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    size = (args.batch, args.frames, args.features, args.hidden, args.layers)
    setting = (*size, args.precision, args.mode, args.device)
    candidates = {kind: build_pass(kind, *setting) for kind in args.only}
    reference = (args.batch * args.frames, args.hidden, 3 * args.hidden)
    candidates["product"] = common.product(*reference, common.PRECISIONS[args.precision], device)
    seconds = common.interleave(candidates, args.rounds, device, clock=CLOCKS[args.clock])
    product_rate = common.product_flop(*reference) / statistics.median(seconds["product"])
    flop = pass_flop(*size, args.mode)
    result = {key: getattr(args, key) for key in ("batch", "frames", "features", "hidden", "layers", "precision")}
    result |= {
        "pass": args.mode,
        "clock": args.clock,
        "rounds": args.rounds,
        "product_gflops": round(product_rate / 1e9, 1),
    }
    for kind in args.only:
        entry = common.summary(seconds[kind])
        rate = flop / statistics.median(seconds[kind])
        entry |= {"clips_per_s": round(args.batch / entry["median_s"], 2), "gflops": round(rate / 1e9, 1)}
        entry["share_of_product"] = round(rate / product_rate, 3)
        if not args.no_memory:
            peak = common.peak_memory(build_pass, kind, *setting, device=args.device)
            entry["peak_mb"] = None if peak is None else round(peak / 2**20)
        if kind != "ours" and "ours" in args.only:
            entry["ours_faster"] = round(common.ratio(seconds[kind], seconds["ours"]), 2)
        result[kind] = entry
    common.report("encoder", result, device, args.save)


if __name__ == "__main__":
    run(main)
