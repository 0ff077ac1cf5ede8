"""How far settings that compute the same sums in another order move the weights, after some steps: one line of JSON.

    python benchmarks/bench_rounding.py --steps 20

Pretrains a small encoder on UI-PRMD several times and compares the last weights with those of one thread: the same command
again, `--recompute 4`, `--threads 2`, and two processes, in float32 and float64. A figure is the largest difference of a
tensor, as a share of that tensor's norm, over all tensors and over those of the encoder.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the file runs by its path

import torch

from benchmarks.common import report
from utils import checkpoint as files
from utils.errors import UserError, run

SIZES = "--hidden-size 64 --num-layers 3 --decoder-hidden-size 32 --batch-size 16 --contrast-k 32 --topk 32"
SIZES += " --recipe paper --backbone gru --device cpu --pictures 0"
SETTINGS = {
    "one thread": (1, "--threads 1"),
    "again": (1, "--threads 1"),
    "recompute 4": (1, "--threads 1 --recompute 4"),
    "two threads": (1, "--threads 2"),
    "two processes": (2, "--threads 1"),
}


def distance(a: dict, b: dict, prefix: str = "") -> float:
    """The largest difference of a tensor whose name begins with `prefix`, relative to its norm."""
    pairs = [(a[name].double(), b[name].double()) for name in a if name.startswith(prefix)]
    return max(float((x - y).norm() / x.norm().clamp_min(1e-30)) for x, y in pairs)


def weights(folder: Path, arguments: str, processes: int) -> dict:
    """The state after a pretraining in processes of its own."""
    words = [sys.executable, "-m", "engine.launch", "--processes", str(processes), "pretrain_moco_mask.py"]
    done = subprocess.run(
        [*words, *arguments.split(), "--checkpoint-path", str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(f"{arguments}: {done.stderr[-500:]}")
    return files.load(folder / files.LAST)["state_dict"]


def main(argv=None) -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--data-root", default="data", help="where UI-PRMD is, or is made")
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--save", action="store_true", help="keep the result in benchmarks/results")
    args = p.parse_args(argv)
    figures: dict = {}
    with tempfile.TemporaryDirectory() as root:
        for precision in ("fp32", "fp64"):
            common = (
                f"--data-root {Path(args.data_root).resolve()} --pre-dataset ui_prmd --max-steps {args.steps} {SIZES}"
            )
            states = {
                name: weights(Path(root, f"{precision} {name}"), f"{common} --precision {precision} {more}", processes)
                for name, (processes, more) in SETTINGS.items()
            }
            first = states.pop("one thread")
            figures[precision] = {
                name: {"all": distance(first, state), "encoder": distance(first, state, "encoder_q.")}
                for name, state in states.items()
            }
    report("rounding", {"steps": args.steps, "difference": figures}, torch.device("cpu"), args.save)


if __name__ == "__main__":
    run(main)
