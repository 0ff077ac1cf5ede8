"""Weak and strong scaling of pretraining over gloo processes on this machine, and what a step communicates.

    python benchmarks/bench_scaling.py --processes 1 2

Strong: the same total batch for every number of processes. Weak: the same batch for each process. Every process has one
thread, so that one process and K processes use 1 and K cores; the runs of a round follow one another, so that a slow minute
slows all of them. Seconds a step are medians over the steps of a run without its first ones. One JSON line; beside the
times it holds what the program says a step communicates (counted by utils.distributed)."""

import argparse
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file runs by its path

import torch

from benchmarks.common import report
from options.common import number, positive_int
from utils.errors import UserError, run

ROOT = Path(__file__).resolve().parent.parent
WARM = 3  # first steps of a run, which are not measured


def parse_args(argv=None) -> argparse.Namespace:
    p = argparse.ArgumentParser(description="Weak and strong scaling over processes of this machine.")
    p.add_argument("--processes", type=positive_int, nargs="+", default=[1, 2], help="numbers of processes")
    p.add_argument(
        "--batch-size", type=positive_int, default=32, help="total batch of strong, batch of one of weak scaling"
    )
    p.add_argument(
        "--hidden-size", type=positive_int, default=128, help="of each GRU, a multiple of 16; the paper's is 1024"
    )
    p.add_argument("--steps", type=number(int, low=WARM + 2), default=10, help="steps of a run")
    p.add_argument("--rounds", type=positive_int, default=2, help="runs of every kind")
    p.add_argument("--data-root", default="data", help="folder of the data sets; UI-PRMD is made where it is missing")
    p.add_argument("--save", action="store_true", help="also write the line to benchmarks/results")
    return p.parse_args(argv)


def train(args, processes: int, batch: int, folder: Path) -> tuple[float, str]:
    """(median seconds a step, what the program says a step communicates) of one run."""
    command = (
        f"--data-root {args.data_root} --pre-dataset ui_prmd --recipe paper --checkpoint-path {folder} "
        f"--hidden-size {args.hidden_size} "
        f"--batch-size {batch} --contrast-k {max(256, batch)} --topk {max(256, batch)} --epochs 100000 "
        f"--max-steps {args.steps} --print-freq 1 --threads 1 --device cpu"
    )
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(processes), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "pretrain_moco_mask.py", *command.split()],
            cwd=ROOT,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    for process in started:
        _, err = process.communicate()
        if process.returncode:
            raise UserError(f"a run of {processes} processes failed: {err.strip().splitlines()[-1]}")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["seconds_per_step"] for line in lines if line["step"] > WARM]
    said = re.findall(r".*each of \d+ processes sends.*", (folder / "log.txt").read_text())
    return statistics.median(seconds), said[0] if said else ""


def main(argv=None) -> None:
    args = parse_args(argv)
    kinds = {
        (kind, k): args.batch_size * (k if kind == "weak" else 1) for kind in ("strong", "weak") for k in args.processes
    }
    seconds, traffic = {kind: [] for kind in kinds}, {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.rounds):
            for (kind, k), batch in kinds.items():
                taken, said = train(args, k, batch, Path(folder) / f"{kind}{k}_{turn}")
                seconds[kind, k].append(taken)
                traffic[str(k)] = said
    first = args.processes[0]
    result = {"hidden": args.hidden_size, "batch": args.batch_size, "steps": args.steps, "rounds": args.rounds}
    for kind in ("strong", "weak"):
        ideal = {k: (first / k if kind == "strong" else 1.0) for k in args.processes}
        result[kind] = {
            str(k): {
                "step_s": round(min(seconds[kind, k]), 4),
                "efficiency": round(
                    statistics.median(
                        a * ideal[k] / b for a, b in zip(seconds[kind, first], seconds[kind, k], strict=True)
                    ),
                    3,
                ),
            }
            for k in args.processes
        }
    report("scaling", {**result, "traffic": traffic}, torch.device("cpu"), args.save)


if __name__ == "__main__":
    run(main)
