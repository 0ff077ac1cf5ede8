"""Measures the feeder: the three views of a batch from packed clips, against the released per-sample code, interleaved.

    python benchmarks/bench_feeder.py --batch 128 --threads 1

prints one JSON line. `views`: sampling and three views, as the twin computes them; `batch`: the whole batch with mask and mixing.
For each: seconds per batch, clips/s, ms per clip, how many times faster than the twin in the same rounds, and than 1.9 ms per
clip, the time of the released feeder on a similar machine. The clips are random, with NTU's shape: 25 joints, 82 % with one person
(the second stored as zeros), 30 to 299 frames, 85 on average.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file runs by its path

import numpy as np
import torch

from benchmarks import common
from benchmarks.twins import PlainFeeder
from feeder.batches import Batches
from feeder.clips import PackedClips
from feeder.render import render
from feeder.sampling import ViewSettings
from utils.errors import UserError, run
from utils.machine import keep_freed_memory
from utils.skeleton import KINECT_V2

RELEASED_MS = 1.9  # per clip with three views: the released code, as the issue of this benchmark reports it
ONE_PERSON = 0.82


def parse_args(argv=None) -> argparse.Namespace:
    parser = common.parser(__doc__, batch=128, clips=1000, threads=1, rounds=10, clock="wall", save=False)
    args = parser.parse_args(argv)
    if not 4 <= args.batch <= args.clips:
        raise UserError(f"--batch {args.batch}: expected 4 to --clips {args.clips}")
    return args


def random_clips(count: int) -> tuple[np.ndarray, PackedClips]:
    """The same random clips stored (N, 3, 300, V, M) and packed."""
    rng = np.random.default_rng(0)
    lengths = np.clip(30 + rng.gamma(2.0, 27.5, count), 30, 299).astype(np.int64)
    stored = np.zeros((count, 3, 300, 25, 2), np.float32)
    for i, n in enumerate(lengths):
        stored[i, :, :n] = rng.normal(size=(3, n, 25, 2))
        if rng.random() < ONE_PERSON:
            stored[i, ..., 1] = 0
    rows = np.concatenate([stored[i, :, :n].transpose(1, 2, 0, 3) for i, n in enumerate(lengths)])
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    packed = PackedClips(
        torch.from_numpy(np.ascontiguousarray(rows)), torch.from_numpy(offsets), torch.from_numpy(lengths),
        torch.zeros(count, dtype=torch.long), tuple(map(str, range(count))), (), "random",
    )  # fmt: skip
    return stored, packed


def check_same(twin: PlainFeeder, packed: PackedClips, index: int) -> None:
    """AssertionError unless both make the same views of a clip from the same samples."""
    for x, start, length, matrices in twin.sample(index):
        first, lengths = packed.offsets[[index]] + start, torch.tensor([length])
        ours = render(packed.frames, first, lengths, torch.from_numpy(matrices)[None].float(), 64)
        expected = torch.from_numpy(x.transpose(1, 2, 0, 3)).reshape(ours.shape)
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def main(argv=None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    keep_freed_memory()  # as the programs do; the twin, in the same process, has it too
    stored, packed = random_clips(args.clips)
    batches = Batches(packed, args.batch, 0, ViewSettings(), KINECT_V2)
    twin = PlainFeeder(stored, packed.num_frame.numpy(), 0)
    for index in range(10):
        check_same(twin, packed, index)
    chosen = [batches.samples(step).clips for step in range(batches.steps_per_epoch)]
    turn = iter(range(10**9))
    candidates = {  # every call another step
        "views": lambda: batches.views(batches.samples(next(turn))),
        "batch": lambda: batches[next(turn)],
        "twin": lambda: twin.batch(chosen[next(turn) % len(chosen)]),
    }
    seconds = common.interleave(candidates, args.rounds, warm=2, clock=common.CLOCKS[args.clock])
    result = {}
    for kind, times in seconds.items():
        ms = 1e3 * common.summary(times, 7)["median_s"] / args.batch
        result[kind] = common.summary(times) | {"clips_per_s": round(1e3 / ms), "ms_a_clip": round(ms, 4)}
        if kind != "twin":
            faster = {"than_twin": common.ratio(seconds["twin"], times), "than_1.9_ms": RELEASED_MS / ms}
            result[kind] |= {f"faster_{k}": round(v, 2) for k, v in faster.items()}
    common.report("feeder", args, result)


if __name__ == "__main__":
    run(main)
