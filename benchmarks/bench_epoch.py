"""Trains on synthetic data of NTU-60's size, end to end, and computes the time of the whole run of 451 epochs.

    python benchmarks/bench_epoch.py --device cuda --precision bf16
    python benchmarks/bench_epoch.py --clips 200 --batch 8 --hidden 64 --layers 1 --steps 6    # tries the script on a CPU

Packed clips of random numbers, as many and as long as those of NTU-60 cross-view, go through the feeder, the model and the
optimizer as in the program: sampling, views, forward, backward, step, queue, and the check for a finite loss. One JSON
line: seconds a step, the time waited for data and its share, the seconds of an epoch and hours of the whole run computed
from them (arithmetic, not a run of that length), where the clips lived, and peak memory on CUDA."""

import argparse
import statistics
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file runs by its path

import torch

from benchmarks import common
from benchmarks.bench_step import build_model
from engine.graph import CapturedPass, Prefetcher
from engine.setup import choose_precision, resolve_precision
from engine.step import compute_gradients, train_step
from feeder.batches import Batches
from feeder.clips import PackedClips
from feeder.sampling import ViewSettings
from models.encoder import EncoderConfig
from options.common import PRECISIONS, number, positive_int
from utils.errors import UserError, run
from utils.skeleton import KINECT_V2

WARM = 3  # first steps, which are not measured
MEAN_FRAMES = 80  # of a synthetic clip; lengths are between half and one and a half times this


def parse_args(argv=None) -> argparse.Namespace:
    parser = common.parser(
        __doc__, clips=37646, batch=128, hidden=1024, layers=3, queue=16384, device="cpu", threads=0, save=False
    )
    add, placements = parser.add_argument, ("auto", "device", "memory")
    add("--epochs", type=positive_int, default=451, help="of the run whose time is computed")
    add("--decoder", type=positive_int, default=512, help="width of the decoder")
    add("--precision", choices=PRECISIONS, default="auto", help="as of the program")
    add("--graph", action="store_true", help="as --cuda-graph of the program (without a CUDA device: its buffers only)")
    add(
        "--ahead",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="make a batch while the step before it runs, as the program does on a card; --no-ahead: before the step",
    )
    add("--placement", choices=placements, default="auto", help="as --clips of the program")
    add("--workers", type=number(int, low=0), default=1, help="threads that render, where the device does not")
    add("--steps", type=positive_int, default=100, help=f"measured steps, after {WARM} others")
    args = parser.parse_args(argv)
    if args.batch < 3:
        raise UserError(f"--batch {args.batch} is too small; expected 3 or more")
    if args.batch > min(args.clips, args.queue):
        raise UserError(
            f"--batch {args.batch} needs as many --clips ({args.clips}) and as large a --queue ({args.queue})"
        )
    return args


def synthetic_clips(count: int) -> PackedClips:
    """Clips of random numbers; two thirds have one person, as most of NTU's have."""
    draw = torch.Generator().manual_seed(0)
    length = torch.randint(MEAN_FRAMES // 2, 3 * MEAN_FRAMES // 2, (count,), generator=draw)
    frames = torch.empty(int(length.sum()), 25, 3, 2).uniform_(-1, 1, generator=draw)
    offsets = length.cumsum(0) - length
    owner = torch.repeat_interleave(torch.arange(count), length)
    frames[owner % 3 != 0, ..., 1] = 0
    names = tuple(f"made_{i}" for i in range(count))
    return PackedClips(frames, offsets, length, torch.zeros(count, dtype=torch.long), names, (), "synthetic clips")


def main(argv=None) -> None:
    args = parse_args(argv)
    device = common.prepare(args)
    args.precision, _ = choose_precision(args.precision, device, "gru")
    dtype, _ = resolve_precision(args.precision)
    clips = synthetic_clips(args.clips).to(device, args.placement)
    batches = Batches(clips, args.batch, 0, ViewSettings(), KINECT_V2, device=device, dtype=dtype)
    encoder = EncoderConfig(hidden_size=args.hidden, num_layers=args.layers)
    model, optimizer = build_model("ours", encoder, args.queue, args.precision, device, args.decoder)
    compute, meanwhile = partial(compute_gradients, model), None
    compute = CapturedPass(compute) if args.graph else compute
    steps, waits = [], []
    stream = batches.stream(0, WARM + args.steps, args.workers)
    if args.ahead:
        ahead = Prefetcher(stream, device)
        meanwhile, stream = ahead.prefetch, iter(ahead)
    for step in range(WARM + args.steps):
        common.synchronise(device)
        started = time.perf_counter()
        batch = next(stream)
        common.synchronise(device)  # rendering on the device counts as waiting for data
        ready = time.perf_counter()
        train_step(compute, model, optimizer, batch, meanwhile=meanwhile)
        common.synchronise(device)
        if step >= WARM:
            steps.append(time.perf_counter() - started)
            waits.append(ready - started)
    median = statistics.median(steps)
    epoch = median * batches.steps_per_epoch
    result = common.summary(steps) | {
        "data_s": round(statistics.median(waits), 5),
        "data_share": round(sum(waits) / sum(steps), 4),
        "clips_on": str(clips.frames.device),
        "clips_mb": round(clips.nbytes / 2**20),
        "steps_an_epoch": batches.steps_per_epoch,
        "epoch_s": round(epoch, 1),
        f"hours_of_{args.epochs}_epochs_computed": round(epoch * args.epochs / 3600, 3),
    }
    if device.type == "cuda":
        result["peak_mb"] = round(torch.cuda.max_memory_allocated(device) / 2**20)
    common.report("epoch", args, result)


if __name__ == "__main__":
    run(main)
