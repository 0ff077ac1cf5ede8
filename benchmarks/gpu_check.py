"""Tests and measures on a GPU what the project claims about GPUs: one table and one JSON file, in at most five minutes.

    bash benchmarks/gpu_check.sh
    python benchmarks/gpu_check.py --device cpu --toy --output runs/gpu_check.json     # the same on a processor, at toy size

Parts, the most important first, until --minutes are over (the rest is "not run"): the pretraining step at four precisions, plain
and as a CUDA graph, and the twin of the released step; the bf16 step with every recurrent implementation; an epoch of NTU-60's
size with and without overlap of feeder and step; the tests that need a GPU, including golden steps and, with two GPUs, two
processes against one. A part that fails is recorded with its reason, and the others run.

A step is forward, backward, optimizer and queue on one fixed batch; milliseconds are the median after warm-up; peak is torch's
count of allocated memory. TFLOP/s are those of the encoder's matrix products (benchmarks.bench_step.step_flop).
"""

import argparse
import contextlib
import gc
import io
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the file runs by its path

import torch

from benchmarks import bench_epoch, common
from benchmarks.bench_step import PRECISIONS, build_step, step_flop
from engine.graph import WARM_UP
from engine.setup import resolve_device
from models.encoder import EncoderConfig
from models.recurrent import RUNS
from options.common import number, positive, positive_int
from utils.errors import UserError, run
from utils.files import write_json

SIZES = {"batch": 128, "hidden": 1024, "layers": 3, "queue": 16384, "decoder": 512}
TOY = {"batch": 4, "hidden": 16, "layers": 1, "queue": 16, "decoder": 8}
EPOCH = ("--steps", "30")
TOY_EPOCH = tuple("--steps 2 --clips 12 --batch 4 --hidden 16 --layers 1 --queue 16 --decoder 8".split())


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda", help="where to run")
    parser.add_argument("--toy", action="store_true", help="sizes that a processor computes in seconds")
    parser.add_argument("--steps", type=number(int, low=1), default=8, help="measured steps of each candidate")
    parser.add_argument("--minutes", type=positive, default=5.0, help="after which no new part is begun")
    parser.add_argument(
        "--threads", type=positive_int, default=None, help="processor threads; default: as torch chooses"
    )
    parser.add_argument("--no-tests", action="store_true", help="leave out the tests that need a card")
    parser.add_argument("--output", default="runs/gpu_check.json", metavar="FILE", help="the JSON file")
    return parser.parse_args(argv)


def one_line(error: Exception) -> str:
    """The first line of an exception's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def measured(step, steps: int, device: torch.device) -> dict:
    """Median milliseconds of a step after warm-up and capture, and the peak memory of all steps."""
    warm = WARM_UP + 2 if device.type == "cuda" else 1
    taken = common.interleave({"step": step}, steps, device, warm)["step"]
    peak = round(torch.cuda.max_memory_allocated(device) / 2**30, 2) if device.type == "cuda" else None
    return {"ms": round(1e3 * statistics.median(taken), 3), "peak_gb": peak}


def rows_of_steps() -> dict[str, tuple]:
    """{name of a row: (kind, precision, recurrent implementation, captured)}, arguments of `build_step`."""
    rows = {}
    for precision in ("bf16", "tf32", "fp32", "fp64"):
        for graph in (False, True):
            rows[f"ours {precision}{' captured' * graph}"] = ("ours", precision, "auto", graph)
    rows |= {f"ours bf16 {name} captured": ("ours", "bf16", name, True) for name in RUNS}
    rows |= {f"twin {precision}": ("twin", precision, "auto", False) for precision in ("tf32", "fp32")}
    assert {precision for _, precision, _, _ in rows.values()} == set(PRECISIONS)
    return rows


def check_steps(args, device: torch.device, sizes: dict, left) -> dict[str, dict]:
    """Milliseconds, TFLOP/s and peak memory of each row of `rows_of_steps`; for a row that fails, its reason."""
    flop = step_flop(sizes["batch"], sizes["hidden"], sizes["layers"])
    encoder, found = EncoderConfig(hidden_size=sizes["hidden"], num_layers=sizes["layers"]), {}
    for name, (kind, precision, recurrent, graph) in rows_of_steps().items():
        if left() <= 0:
            found[name] = {"not run": "out of time"}
            continue
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        try:
            sized = (kind, encoder, sizes["batch"], sizes["queue"], precision, args.device, recurrent)
            step = build_step(*sized, graph=graph, decoder=sizes["decoder"])
            found[name] = measured(step, args.steps, device)
            found[name]["tflops"] = round(flop / found[name]["ms"] / 1e9, 4)
        except (RuntimeError, UserError, ImportError) as error:
            found[name] = {"not run": one_line(error)}
        step = None
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return found


def check_epochs(args, left) -> dict[str, dict]:
    """The result of bench_epoch with each batch made before its step, and with it made during the step before."""
    threads = ["--threads", str(args.threads)] if args.threads else []
    found = {}
    for name, more in {"batch, then step": ["--no-ahead"], "batch beside the step before": []}.items():
        words, said = ["--device", args.device, "--graph", *threads, *more], io.StringIO()
        try:
            if left() <= 0:
                raise UserError("out of time")
            with contextlib.redirect_stdout(said):
                bench_epoch.main([*words, *(TOY_EPOCH if args.toy else EPOCH)])
            found[name] = json.loads(said.getvalue().splitlines()[-1])
        except (RuntimeError, UserError) as error:
            found[name] = {"not run": one_line(error)}
    return found


def check_tests(seconds: float) -> str:
    """The last line of pytest for all tests that need a GPU."""
    words = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "tests"]
    try:
        ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=max(seconds, 1))
    except subprocess.TimeoutExpired:
        return "not run: out of time"
    return (ended.stdout.strip().splitlines() or ["no output"])[-1]


def place_of(device: torch.device) -> dict:
    """The GPU, its driver and all versions that the figures depend on."""
    place = common.surroundings(device) | {"python": sys.version.split()[0], "cuda": torch.version.cuda}
    if device.type == "cuda":
        place |= {"cudnn": torch.backends.cudnn.version(), "cards": torch.cuda.device_count()}
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            place["driver"] = subprocess.run(asked, capture_output=True, text=True, timeout=20).stdout.split()[0]
        except (OSError, IndexError, subprocess.TimeoutExpired):
            place["driver"] = "nvidia-smi does not say"
    return place


def table(result: dict) -> list[str]:
    """The result as lines of a table."""
    place = result["place"]
    lines = [f"{place['processor']}, torch {place['torch']}, {place['date']}; sizes {result['sizes']}", ""]
    lines += ["| step | ms | TFLOP/s | peak GB |", "|---|---|---|---|"]
    for name, row in result["steps"].items():
        cells = [row.get("ms", row.get("not run")), row.get("tflops", ""), row.get("peak_gb") or ""]
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    lines += ["", "| epoch | s a step | waited for data | share |", "|---|---|---|---|"]
    for name, row in result["epochs"].items():
        cells = [row.get("median_s", row.get("not run")), row.get("data_s", ""), row.get("data_share", "")]
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    return [*lines, "", f"tests: {result['tests']}"]


def main(argv=None) -> None:
    args = parse_args(argv)
    device, end = resolve_device(args.device), time.monotonic() + 60 * args.minutes
    if args.threads:
        torch.set_num_threads(args.threads)
    sizes = TOY if args.toy else SIZES

    def left() -> float:
        return end - time.monotonic()

    result = {"place": place_of(device), "sizes": sizes, "steps": check_steps(args, device, sizes, left)}
    result["epochs"] = check_epochs(args, left)
    result["tests"] = "left out" if args.no_tests else check_tests(left())
    result["minutes"] = round((60 * args.minutes - left()) / 60, 2)
    print("\n".join(table(result)))
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    write_json(args.output, result)
    print(f"please send {args.output} with this table")


if __name__ == "__main__":
    run(main, sys.argv[1:])
