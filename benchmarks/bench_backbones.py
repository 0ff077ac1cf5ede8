"""Measures every backbone at its default sizes: parameters, operations of a clip, and the time of a pretraining step.

    python benchmarks/bench_backbones.py --batch 8 --precision bf16
    python benchmarks/bench_backbones.py --sizes width=128 depth=4 --only transformer stgcn

prints a table. Operations are counted in a forward pass of one clip of 64 frames through the encoder without head: those of matrix
products, where a multiplication and an addition count as two. A step needs about 13 times as many per clip (four views forward and
backward, the key forward). The step is that of the programs (engine.step, SGD, freed memory kept), on one batch of random numbers.
Each backbone runs in its own process, in turn; the second of two consecutive steps is measured. The table has the median over the
rounds and its share of the rate of a (batch * 64 x 1024)(1024 x 3072) product in the same rounds. `--rounds 0` times nothing.
"""

import argparse
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file runs by its path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import common
from benchmarks.bench_step import PASSES, build_step
from models.backbones import BACKBONES
from models.encoder import Encoder, EncoderConfig
from models.recurrent import choose_engine
from utils.errors import UserError, as_user_error, run
from utils.names import SIZES

FRAMES = 64
PRODUCT = (1024, 3072)  # inner size and columns of the reference product


def parse_args(argv=None) -> argparse.Namespace:
    parser = common.parser(__doc__, batch=8, queue=16384, precision="fp32", device="cpu", threads=0, clock="wall")
    parser.add_argument("--only", nargs="+", choices=tuple(BACKBONES), default=tuple(BACKBONES), help="which backbones")
    parser.add_argument(
        "--sizes", nargs="*", default=[], metavar="NAME=VALUE", help="other sizes, of the backbones that have them"
    )
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds; 0 times nothing")
    args = parser.parse_args(argv)
    if min(args.batch, args.queue) < 2 or args.rounds < 0 or args.queue < args.batch:
        raise UserError("--batch and --queue must be at least 2, --queue at least --batch, and --rounds at least 0")
    return args


def parse_sizes(words: list[str]) -> dict:
    """NAME=VALUE words -> {name: value}, with the type of the registry's default; UserError for another form or type."""
    defaults = {name: value for row in BACKBONES.values() for name, value in row.sizes.items()}
    sizes = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in SIZES or not value:
            raise UserError(f"--sizes {word}: expected NAME=VALUE with a name of {', '.join(SIZES)}")
        kind = type(defaults[name])
        try:
            sizes[name] = value in ("True", "true", "1") if kind is bool else kind(value)
        except ValueError:
            raise UserError(f"--sizes {word}: expected a number") from None
    return sizes


def configuration(backbone: str, sizes: dict) -> EncoderConfig:
    """The configuration of a backbone with those sizes that it has."""
    return EncoderConfig(backbone=backbone, **{k: v for k, v in sizes.items() if k in BACKBONES[backbone].sizes})


def clip_flop(config: EncoderConfig, frames: int = FRAMES) -> float:
    """Operations of the matrix products for one clip in the encoder without head."""
    encoder, counter = Encoder(config, head=False).eval().requires_grad_(False), FlopCounterMode(display=False)
    choose_engine(encoder, "cudnn")  # torch's own GRU, which the counter supports
    with sdpa_kernel(SDPBackend.MATH), counter:
        encoder(torch.randn(1, frames, config.input_size))
    return counter.get_total_flops()


def measure(configs: dict[str, EncoderConfig], args) -> dict[str, float]:
    """Median seconds of a step of each backbone, and of the "product"."""
    how = {
        name: ("ours", config, args.batch, args.queue, args.precision, args.device) for name, config in configs.items()
    }
    shape, dtype = (args.batch * FRAMES, *PRODUCT), common.PRECISIONS[args.precision]
    seconds, _ = common.beside_product(build_step, how, args, shape, dtype)
    return {name: statistics.median(values) for name, values in seconds.items()}


def row_of(
    config: EncoderConfig, millions: float, flop: float, seconds: float | None, batch: int, product: float
) -> str:
    """A line of the table; product: operations per second of the reference product."""
    rate = None if seconds is None else PASSES * batch * flop / seconds
    times = (
        ["not run"] * 3 if rate is None else [f"{seconds:.3f}", f"{rate / 1e9:.0f}", f"{100 * rate / product:.0f} %"]
    )
    feature = Encoder(config, head=False).feature_size
    return f"| {config.backbone} | {feature} | {millions:.2f} | {flop / 1e9:.2f} | {' | '.join(times)} |"


def main(argv=None) -> int:
    args = parse_args(argv)
    device, sizes = common.prepare(args), parse_sizes(args.sizes)
    with as_user_error("--sizes"):
        configs = {name: configuration(name, sizes) for name in args.only}
        millions = {n: sum(p.numel() for p in Encoder(c, head=False).parameters()) / 1e6 for n, c in configs.items()}
    flop = {name: clip_flop(config) for name, config in configs.items()}
    seconds, product = {}, 0.0
    if args.rounds:
        seconds = measure(configs, args)
        product = common.product_flop(args.batch * FRAMES, *PRODUCT) / seconds["product"]
    place, rate = common.surroundings(device), f"{product / 1e9:.0f} GFLOP/s" if product else "not run"
    print(
        f"{place['processor']}, torch {place['torch']}, {args.precision}, batch {args.batch}, {place['threads']} threads, "
        f"{args.clock} clock, load {place['load']}, product {rate}, {place['date']}"
    )
    print("| backbone | feature | M parameters | GFLOP a clip | s a step | GFLOP/s | share of the product |")
    print("|---|---|---|---|---|---|---|")
    for name, config in configs.items():
        print(row_of(config, millions[name], flop[name], seconds.get(name), args.batch, product))
    return 0


if __name__ == "__main__":
    run(main, sys.argv[1:])
