"""Memory of a long run: pretraining on UI-PRMD, the resident set read as it goes on.

    python benchmarks/bench_soak.py --steps 2000

Runs the program itself (a tiny model; rendering, logging and saving as in any run) and reports the resident set and
the open files after a tenth of the steps and at the end. Flat means: the end is no more than the tenth, but for what the
allocator rounds. One JSON line."""

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file runs by its path

import torch

import pretrain_moco_mask
from benchmarks.common import report, status_bytes
from options.common import positive_int
from utils.errors import UserError, run

MEGABYTE = 2**20


def parse_args(argv=None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description="Memory of a long pretraining run on UI-PRMD.")
    p.add_argument("--steps", type=positive_int, default=2000, help="steps of the run")
    p.add_argument("--data-root", default="data", help="folder of the data sets; UI-PRMD is made where it is missing")
    p.add_argument("--hidden-size", type=positive_int, default=32, help="of each GRU, a multiple of 16")
    p.add_argument("--batch-size", type=positive_int, default=16, help="clips a step")
    p.add_argument("--threads", type=positive_int, default=1, help="CPU threads")
    p.add_argument("--save", action="store_true", help="also write the line to benchmarks/results")
    return p.parse_args(argv)


class Watcher(threading.Thread):
    """Reads (step, resident bytes, open files) every tenth of a second, the step from the run's metrics."""

    def __init__(self, metrics: Path):
        super().__init__(daemon=True)
        self.metrics, self.seen, self.done = metrics, [], threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.1):
            lines = self.metrics.read_bytes().split(b"\n") if self.metrics.exists() else []
            step = json.loads(lines[-2])["step"] if len(lines) > 1 else 0
            files = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
            self.seen.append((step, status_bytes("VmRSS") or 0, files))


def soak(args, folder: Path) -> dict:
    """The run, and what was read meanwhile."""
    command = (
        f"--data-root {args.data_root} --pre-dataset ui_prmd --recipe paper --checkpoint-path {folder} "
        f"--hidden-size {args.hidden_size} "
        f"--num-layers 1 --decoder-hidden-size 16 --batch-size {args.batch_size} --contrast-k 128 --topk 128 --epochs 1000000 "
        f"--max-steps {args.steps} --print-freq 20 --save-every-minutes 0.1 --threads {args.threads} --device cpu"
    )
    watcher = Watcher(folder / "metrics.jsonl")
    watcher.start()
    start = time.monotonic()
    status = pretrain_moco_mask.main(command.split())
    seconds = time.monotonic() - start
    watcher.done.set()
    watcher.join()
    training = [entry for entry in watcher.seen if entry[0] > args.steps // 10]
    if status != 0 or len(training) < 2 or not training[-1][1]:
        raise UserError("the run was too short, or this system does not tell its memory (/proc is needed)")
    early, late = training[0], training[-1]
    return {
        "steps": args.steps,
        "batch": args.batch_size,
        "hidden": args.hidden_size,
        "seconds": round(seconds, 1),
        "resident_mb_after_a_tenth": round(early[1] / MEGABYTE, 1),
        "resident_mb_at_the_end": round(late[1] / MEGABYTE, 1),
        "resident_mb_most": round(max(entry[1] for entry in training) / MEGABYTE, 1),
        "open_files_after_a_tenth": early[2],
        "open_files_at_the_end": late[2],
    }


def main(argv=None) -> None:
    args = parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        result = soak(args, Path(folder) / "run")
    report("soak", result, torch.device("cpu"), args.save)


if __name__ == "__main__":
    run(main)
