"""Measures a whole training step: ours against the released implementation (benchmarks.twins.PlainPCM3), interleaved.

    python benchmarks/bench_step.py --batch 16 --precision bf16

prints one JSON line: seconds per step, clips/s, achieved FLOP/s of the matrix products, their share of the rate of a (batch *
frames x hidden)(hidden x 3 hidden) product in the same precision and run, the ratio to the twin (which computes in float32, as
released), and peak memory (see benchmarks.common.beside_product). All steps use the same batch; bench_feeder measures the feeder.
"""

import argparse
import itertools
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file runs by its path

import torch

from benchmarks import common
from benchmarks.bench_encoder import pass_flop
from benchmarks.twins import PlainPCM3
from engine.graph import CapturedPass
from engine.setup import resolve_precision
from engine.step import compute_gradients
from feeder.batches import Batch
from models.encoder import EncoderConfig
from models.pcm3 import PCM3, PCM3Config
from models.recurrent import RUNS, choose_engine
from utils.errors import UserError, run
from utils.machine import keep_freed_memory

KINDS = {"ours": PCM3, "twin": PlainPCM3}
PRECISIONS = ("fp32", "tf32", "bf16", "fp64")
PASSES = 4 * 3 + 1  # query, masked, predicted, mixed forward and backward; the key forward


def parse_args(argv=None) -> argparse.Namespace:
    parser = common.parser(
        __doc__, batch=16, hidden=1024, layers=3, queue=16384, device="cpu", threads=0, clock="wall", rounds=3, save=False
    )  # fmt: skip
    add, several = parser.add_argument, {"type": int, "nargs": "+", "metavar": "K"}
    add("--precision", choices=PRECISIONS, default="fp32", help="of our large products")
    add(
        "--recurrent",
        nargs="+",
        choices=("auto", *RUNS),
        default=["auto"],
        help="how our recurrent layers run; several compare",
    )
    add("--parts", default=[1], **several, help="as --grad-accum; several compare")
    add("--recompute", default=[0], **several, help="as --recompute of the program; several compare")
    add(
        "--graph",
        action="store_true",
        help="ours also as --cuda-graph does it (without a CUDA device: its buffers only)",
    )
    add("--only", nargs="+", choices=tuple(KINDS), default=tuple(KINDS), help="which candidates to run")
    args = parser.parse_args(argv)
    if args.batch < 4:
        raise UserError(f"--batch {args.batch} is too small; expected 4 or more")
    if any(parts < 1 or args.batch % parts for parts in args.parts):
        raise UserError(f"--parts {args.parts}: expected numbers that divide the batch of {args.batch}")
    if min(args.recompute) < 0:
        raise UserError(f"--recompute {args.recompute}: expected 0 or more")
    return args


def random_batch(batch: int, device, frames: int = 64, dtype: torch.dtype = torch.float32) -> Batch:
    """A batch with random numbers as views."""
    x = [torch.randn(batch, frames, 150, device=device, dtype=dtype) for _ in range(4)]
    hidden = torch.rand(frames, 150, device=device) < 0.5
    clips = torch.arange(batch, device=device)
    mix_lambda = torch.tensor(0.3, device=device, dtype=dtype)
    offsets = torch.rand(6, device=device, dtype=dtype)
    views = {"query": x[0], "masked": x[2].masked_fill(hidden, 0.0), "mixed": x[3]}
    return Batch(views, x[1], x[2], hidden, (clips + 1) % batch, mix_lambda, offsets, clips, clips)


def build_model(kind: str, encoder: EncoderConfig, queue: int, precision: str, device, decoder: int = 512):
    """Model and optimizer at the start of a pretraining. The twin computes in float32, as released, or in tf32 or fp64 if
    `precision` is that."""
    if kind == "ours":
        keep_freed_memory()  # as the programs do
    torch.manual_seed(0)
    dtype, compute_dtype = resolve_precision(precision)
    config = PCM3Config(encoder=encoder, queue_size=queue, topk=queue, decoder_hidden_size=decoder)
    model = KINDS[kind](config).to(device, dtype).train()
    if kind == "ours":
        model.set_compute_dtype(compute_dtype)
    trained = [p for p in model.parameters() if p.requires_grad]
    return model, torch.optim.SGD(trained, lr=0.02, momentum=0.9, weight_decay=1e-4, fused=True)


def build_step(
    kind: str,
    encoder: EncoderConfig,
    batch: int,
    queue: int,
    precision: str,
    device: str,
    recurrent: str = "auto",
    parts: int = 1,
    recompute: int = 0,
    graph: bool = False,
    decoder: int = 512,
):
    """A function that computes one training step of a candidate."""
    model, optimizer = build_model(kind, encoder, queue, precision, device, decoder)
    if kind == "ours":
        model.set_recompute(recompute)
        choose_engine(model, recurrent)
    views = random_batch(batch, device, dtype=resolve_precision(precision)[0])
    compute = partial(compute_gradients, model, parts=parts)
    compute = CapturedPass(compute) if graph else compute

    def step():
        output = compute(views)
        optimizer.step()
        model.enqueue(output.keys)

    return step


def step_flop(batch: int, hidden: int, layers: int) -> float:
    """Operations of the encoder's matrix products in a step; decoder, head and queue add a few percent."""
    return PASSES * pass_flop(batch, 64, 150, hidden, layers, "forward")


def candidates_of(args) -> dict[str, tuple]:
    """{name: arguments of `build_step`}: the twin, and ours in all combinations of the flags."""
    encoder = EncoderConfig(hidden_size=args.hidden, num_layers=args.layers)
    setting = (encoder, args.batch, args.queue, args.precision, args.device)
    found = {"twin": ("twin", *setting)} if "twin" in args.only else {}
    ways = itertools.product(args.recurrent, args.parts, args.recompute, (False, True) if args.graph else (False,))
    for recurrent, parts, recompute, graph in ways if "ours" in args.only else ():
        name = "ours" + f"_{recurrent}" * (recurrent != "auto") + f"_parts{parts}" * (parts > 1)
        name += f"_recompute{recompute}" * (recompute > 0) + "_graph" * graph
        found[name] = ("ours", *setting, recurrent, parts, recompute, graph)
    return found


def main(argv=None) -> None:
    args = parse_args(argv)
    shape, (dtype, compute_dtype) = (args.batch * 64, args.hidden, 3 * args.hidden), resolve_precision(args.precision)
    flop = step_flop(args.batch, args.hidden, args.layers)
    result = common.compare(build_step, candidates_of(args), args, shape, compute_dtype or dtype, flop)
    common.report("step", args, result)


if __name__ == "__main__":
    run(main)
