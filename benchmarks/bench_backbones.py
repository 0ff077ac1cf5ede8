"""Measures every backbone at its default sizes: parameters, operations of a clip, and the time of a pretraining step.

    python benchmarks/bench_backbones.py --batch 8 --precision bf16
    python benchmarks/bench_backbones.py --sizes width=128 depth=4 --only transformer stgcn

prints a table. Operations are those of the products (an addition and a multiplication count as two) of one clip of 64 frames
through the encoder without head, forward; a step does about 13 times as much a clip (four views forward and backward, the
key forward). They are counted while a clip goes through; those of recurrent layers are computed from their sizes, because
they run in functions that a counter does not see. The steps of the backbones are timed in turn, on one batch of random
numbers, and the median over the rounds is shown. `--rounds 0` times nothing.
"""

import argparse
import statistics
import sys
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file runs by its path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import common
from benchmarks.bench_step import random_batch
from models.backbones import BACKBONES
from models.encoder import SIZES, Encoder, EncoderConfig
from models.pcm3 import PCM3, PCM3Config
from models.recurrent import ForwardGRU
from utils.errors import UserError, run

FRAMES = 64


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(BACKBONES), default=tuple(BACKBONES), help="which backbones")
    parser.add_argument(
        "--sizes", nargs="*", default=[], metavar="NAME=VALUE", help="other sizes, of the backbones that have them"
    )
    parser.add_argument("--batch", type=int, default=8, help="clips a step; the paper's run has 128")
    parser.add_argument("--queue", type=int, default=16384, help="queue size")
    parser.add_argument("--precision", choices=tuple(common.PRECISIONS), default="fp32", help="of the large products")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="processor threads; 0 leaves torch's choice")
    parser.add_argument(
        "--rounds", type=int, default=3, help="measured rounds; more where the machine is shared; 0 = none"
    )
    args = parser.parse_args(argv)
    if min(args.batch, args.queue) < 2 or args.rounds < 0 or args.queue < args.batch:
        raise UserError("--batch and --queue must be at least 2, --queue at least --batch, and --rounds at least 0")
    return args


def parse_sizes(words: list[str]) -> dict:
    """NAME=VALUE words -> values by name, of the type of the registry's default; UserError for what is neither."""
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
    """Of a backbone with those of the sizes that it has."""
    return EncoderConfig(backbone=backbone, **{k: v for k, v in sizes.items() if k in BACKBONES[backbone].sizes})


def clip_flop(config: EncoderConfig, frames: int = FRAMES) -> float:
    """Operations of the products of one clip through the encoder without head."""
    encoder, recurrent = Encoder(config, head=False).eval().requires_grad_(False), 0.0

    def counted(layer: ForwardGRU, x, state=None):
        nonlocal recurrent
        for i in range(layer.num_layers):
            width = layer.input_size if i == 0 else layer.directions * layer.hidden_size
            rows = x.shape[0] * x.shape[1]
            recurrent += layer.directions * common.product_flop(rows, width + layer.hidden_size, 3 * layer.hidden_size)
        return x.new_zeros(*x.shape[:2], layer.directions * layer.hidden_size), None

    counter = FlopCounterMode(display=False)
    with mock.patch.object(ForwardGRU, "forward", counted), sdpa_kernel(SDPBackend.MATH), counter:
        encoder(torch.randn(1, frames, config.input_size))
    return recurrent + counter.get_total_flops()


def new_step(config: EncoderConfig, args, device: torch.device):
    """A function that does one pretraining step with AdamW."""
    torch.manual_seed(0)
    model = PCM3(PCM3Config(encoder=config, queue_size=args.queue, topk=args.queue)).to(device).train()
    if args.precision == "bf16":
        model.set_compute_dtype(torch.bfloat16)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    batch = random_batch(args.batch, device)

    def step():
        output = model(batch)
        optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        optimizer.step()
        model.enqueue(output.keys)

    return step


def main(argv=None) -> int:
    args = parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    device, sizes = common.choose_device(args.device), parse_sizes(args.sizes)
    try:
        configs = {name: configuration(name, sizes) for name in args.only}
        millions = {n: sum(p.numel() for p in Encoder(c, head=False).parameters()) / 1e6 for n, c in configs.items()}
    except ValueError as error:
        raise UserError(f"--sizes: {error}") from None
    flop = {name: clip_flop(config) for name, config in configs.items()}
    seconds = {}
    if args.rounds:
        seconds = common.interleave({n: new_step(c, args, device) for n, c in configs.items()}, args.rounds, device)
    print(f"{common.processor(device)}, {args.precision}, batch {args.batch}, {torch.get_num_threads()} threads")
    print("| backbone | feature | M parameters | GFLOP a clip | s a step | GFLOP/s |\n|---|---|---|---|---|---|")
    for name, config in configs.items():
        time = statistics.median(seconds[name]) if seconds else None
        rate = "not run" if time is None else f"{13 * args.batch * flop[name] / time / 1e9:.0f}"
        step = "not run" if time is None else f"{time:.3f}"
        feature = Encoder(config, head=False).feature_size
        print(f"| {name} | {feature} | {millions[name]:.2f} | {flop[name] / 1e9:.2f} | {step} | {rate} |")
    return 0


if __name__ == "__main__":
    run(main, sys.argv[1:])
