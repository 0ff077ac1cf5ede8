"""Measures the feeder: batches of views from packed clips against a per-sample feeder on the stored arrays, interleaved.

    python benchmarks/bench_feeder.py --batch 128 --threads 1

prints one JSON line: seconds a batch and clips/s of the three views (ours also masks and mixes, the twin does not), and the
ratio. The clips are random, with NTU's shape: up to 300 frames, 25 joints, two persons.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file runs by its path

import numpy as np
import torch

from benchmarks import common
from benchmarks.twins import plain_views
from feeder.batches import Batches
from feeder.clips import PackedClips
from feeder.draws import ViewSettings
from utils.errors import UserError, run
from utils.skeleton import KINECT_V2


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128, help="clips a batch")
    parser.add_argument("--clips", type=int, default=1000, help="clips to draw from")
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--rounds", type=int, default=10, help="measured rounds")
    parser.add_argument("--save", action="store_true", help="also write the line to benchmarks/results")
    args = parser.parse_args(argv)
    if not 4 <= args.batch <= args.clips:
        raise UserError(f"--batch {args.batch}: expected 4 to --clips {args.clips}")
    return args


def random_clips(count: int) -> tuple[np.ndarray, PackedClips]:
    """The same clips stored (N, 3, 300, V, M) and packed."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(40, 130, count)
    stored = np.zeros((count, 3, 300, 25, 2), np.float32)
    for i, n in enumerate(lengths):
        stored[i, :, :n] = rng.normal(size=(3, n, 25, 2))
    rows = np.ascontiguousarray(np.concatenate([stored[i, :, :n].transpose(1, 2, 0, 3) for i, n in enumerate(lengths)]))
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    packed = PackedClips(
        torch.from_numpy(rows), torch.from_numpy(offsets), torch.from_numpy(lengths), torch.zeros(count, dtype=torch.long),
        tuple(str(i) for i in range(count)), (), "random",
    )  # fmt: skip
    return stored, packed


def main(argv=None) -> None:
    args = parse_args(argv)
    torch.set_num_threads(args.threads)
    stored, packed = random_clips(args.clips)
    batches = Batches(packed, args.batch, 0, ViewSettings(), KINECT_V2.parts, KINECT_V2.parents)
    draws = batches.draws(0)
    chosen = [stored[i] for i in draws.clips]
    views = plain_views(chosen, draws)
    for name, x in zip(("query", "key", "target"), views, strict=True):
        torch.testing.assert_close(getattr(batches[0], name), x, atol=1e-4, rtol=1e-4)
    candidates = {"ours": lambda: batches[0], "twin": lambda: plain_views(chosen, draws)}
    seconds = common.interleave(candidates, args.rounds)
    result = {"batch": args.batch, "rounds": args.rounds}
    for kind, times in seconds.items():
        entry = common.summary(times)
        entry |= {
            "clips_per_s": round(args.batch / entry["median_s"]),
            "ms_a_clip": round(1e3 * entry["median_s"] / args.batch, 4),
        }
        result[kind] = entry
    result["twin"]["ours_faster"] = round(common.ratio(seconds["twin"], seconds["ours"]), 2)
    common.report("feeder", result, torch.device("cpu"), args.save)


if __name__ == "__main__":
    run(main)
