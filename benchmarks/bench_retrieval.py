"""Measures k-NN with frozen features, chunked: time, share of the machine's matrix-product rate, growth of memory.

    python benchmarks/bench_retrieval.py --queries 2000 --gallery 40000 --width 2048

prints one JSON line. Features are random; the whole similarity matrix is never in memory. NTU-60 cross-subject has about 16,500
queries and 40,000 gallery clips; `for_16500_queries_s` extrapolates linearly to that.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file runs by its path

import torch

from benchmarks import common
from options.common import positive_int
from utils.errors import run
from utils.retrieval import retrieve


def parse_args(argv=None) -> argparse.Namespace:
    parser = common.parser(__doc__, device="cpu", threads=1, rounds=1, clock="wall", save=False)
    add = parser.add_argument
    add("--queries", type=positive_int, default=2000, help="test clips")
    add("--gallery", type=positive_int, default=40000, help="training clips")
    add("--width", type=positive_int, default=2048, help="numbers of a feature")
    add("--map", action="store_true", help="also mean average precision, which sorts the gallery per query")
    return parser.parse_args(argv)


def build(queries: int, gallery: int, width: int, device: str, precision: bool):
    """A candidate: retrieval of random features of 60 classes."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, width, generator=generator) for n in (queries, gallery))
    labels = torch.arange(max(queries, gallery)) % 60
    return lambda: retrieve(
        a, labels[:queries], b, labels[:gallery], ks=(1,), mean_average_precision=precision, device=device
    )


def main(argv=None) -> None:
    args = parse_args(argv)
    device = common.prepare(args)
    sizes = (args.queries, args.gallery, args.width)
    work = build(*sizes, args.device, args.map)
    shape = (256, args.width, 4096)
    product = common.product(*shape, torch.float32, device)
    product()  # the first call is slower
    candidates = {"product": product, "retrieval": work}
    seconds = common.interleave(candidates, args.rounds, device, warm=0, clock=common.CLOCKS[args.clock])
    rate = common.product_flop(*shape) / min(seconds["product"])
    entry = common.summary(seconds["retrieval"])
    flop = common.product_flop(*sizes)
    result = entry | {
        "gflop_per_s": round(flop / entry["median_s"] / 1e9, 1),
        "share_of_product_rate": round(flop / entry["median_s"] / rate, 3),
        "for_16500_queries_s": round(entry["median_s"] * 16500 / args.queries, 1),
        "peak_mb": common.peak_mb(build, *sizes, args.device, args.map, device=args.device),
        "whole_matrix_mb": round(4e-6 * args.queries * args.gallery, 1),
    }
    common.report("retrieval", args, result)


if __name__ == "__main__":
    run(main)
