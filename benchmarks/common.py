"""The common part of the benchmarks: flags, interleaved timing, the machine's matrix-product rate, peak memory, one JSON line.

A benchmark selects flags from FLAGS with their defaults (`parser`), makes candidates (functions without arguments), times them
with `interleave` or, each in its own process, with `beside_product`, and prints the result with `report`.

The speed of a machine drifts (clock frequency, other processes), so times of separate runs are not comparable. `interleave` runs
the candidates in turn, and `ratio` is the median over rounds of the quotient within a round, so that a slow minute slows both."""

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import re
import statistics
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import torch

from engine.setup import resolve_device
from options.common import number, positive_int
from utils.files import write_json

RESULTS = Path(__file__).resolve().parent / "results"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
FLAGS = {  # flags that several benchmarks share, as arguments of argparse
    "batch": {"type": positive_int, "help": "clips a step or pass; the paper's run has 128"},
    "clips": {"type": positive_int, "help": "clips of the data"},
    "hidden": {"type": positive_int, "help": "width of a direction; the released encoder has 1024"},
    "layers": {"type": positive_int, "help": "recurrent layers; the released encoder has 3"},
    "queue": {"type": positive_int, "help": "queue size"},
    "precision": {"choices": tuple(PRECISIONS), "help": "of the large products"},
    "device": {"choices": ("cpu", "cuda"), "help": "where to run"},
    "threads": {"type": number(int, low=0), "help": "processor threads; 0 leaves torch's choice"},
    "rounds": {"type": positive_int, "help": "measured rounds; more where the machine is shared"},
    "clock": {
        "choices": tuple(CLOCKS),
        "help": "wall, or processor: the time that this process was given, which others on the machine disturb less; it adds "
        "up threads, so use it with --threads 1",
    },
    "save": {"action": "store_true", "help": "also write the line to benchmarks/results"},
}


def parser(text: str, **defaults) -> argparse.ArgumentParser:
    """A parser with the text as its description and the named flags of FLAGS with the given defaults."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in defaults.items():
        made.add_argument("--" + name.replace("_", "-"), default=default, **FLAGS[name])
    return made


def prepare(args) -> torch.device:
    """Sets torch's threads by the flags; returns the device."""
    if args.threads:
        torch.set_num_threads(args.threads)
    return resolve_device(args.device)


def synchronise(device: torch.device) -> None:
    """Waits until the device has finished, so that times are correct."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def interleave(
    candidates: dict[str, Callable[[], object]],
    rounds: int,
    device: torch.device | None = None,
    warm: int = 1,
    clock: Callable[[], float] = time.perf_counter,
    lead: int = 0,
) -> dict[str, list[float]]:
    """Seconds of each candidate in each of `rounds` rounds, all candidates once a round, after `warm` unmeasured rounds. The order
    within a round alternates. clock: time.process_time on a busy machine (with one thread); lead: unmeasured calls before each
    measured one, for candidates that run repeatedly in real use, as a training step does: after another candidate its memory is
    no longer in the caches, and on some machines no longer in RAM."""
    device = device or torch.device("cpu")
    seconds = {name: [] for name in candidates}
    for turn in range(-warm, rounds):
        for name in list(candidates)[:: 1 if turn % 2 == 0 else -1]:
            for _ in range(lead if turn >= 0 else 0):
                candidates[name]()
            synchronise(device)
            start = clock()
            took = candidates[name]()
            synchronise(device)
            if turn >= 0:
                seconds[name].append(took if isinstance(candidates[name], InOwnProcess) else clock() - start)
    return seconds


def _serve(pipe, build, arguments, device, threads, clock):
    torch.set_num_threads(threads)
    step, device = build(*arguments), torch.device(device)
    while pipe.recv():
        synchronise(device)
        before, start = _memory(device, first=True), clock()
        step()
        synchronise(device)
        seconds, after = clock() - start, _memory(device, first=False)
        pipe.send((seconds, None if before is None or after is None else max(0, after - before)))


def _memory(device: torch.device, first: bool) -> int | None:
    """Bytes of memory of this process: at the first reading the current value, later the peak."""
    if device.type != "cuda":
        return status_bytes("VmRSS" if first else "VmHWM")
    if first:
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    return torch.cuda.max_memory_allocated(device)


class InOwnProcess:
    """A candidate for `interleave` in its own process, with its own memory and C library settings, like a program. A call runs
    `build(*arguments)()` there and returns its seconds, without those of `build`, which must be a function of a module (it is
    pickled by name). Must be closed.

    peak_mb: growth of peak memory in the first call, in units of 2**20 bytes: on a CPU the resident set, None if the system does
    not report it; on CUDA torch's count of allocated memory."""

    peak_mb: int | None = None

    def __init__(
        self, build: Callable, *arguments, device: str = "cpu", clock: Callable[[], float] = time.perf_counter
    ):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        threads = torch.get_num_threads()
        self.process = context.Process(
            target=_serve, args=(theirs, build, arguments, device, threads, clock), daemon=True
        )
        self.process.start()
        theirs.close()
        self.called = False

    def __call__(self) -> float:
        self.pipe.send(True)
        seconds, grown = self.pipe.recv()
        if not self.called and grown is not None:
            self.peak_mb = round(grown / 2**20)
        self.called = True
        return seconds

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.pipe.send(False)
        self.process.join()


def beside_product(build: Callable, how: dict[str, tuple], args, shape: tuple[int, int, int], dtype: torch.dtype):
    """Seconds by name of `build(*how[name])()` and of "product", a matrix product of this shape and dtype, and the peak memory in
    MB of each; args: has device, threads, clock and rounds. Each runs in its own process, in turn; of two consecutive calls, as
    in training, the second is measured."""
    device, clock = prepare(args), CLOCKS[args.clock]
    with contextlib.ExitStack() as stack:
        made = {
            name: stack.enter_context(
                contextlib.closing(InOwnProcess(build, *arguments, device=args.device, clock=clock))
            )
            for name, arguments in how.items()
        }
        candidates = {**made, "product": product(*shape, dtype, device)}
        seconds = interleave(candidates, args.rounds, device, warm=0, clock=clock, lead=1)
    return seconds, {name: candidate.peak_mb for name, candidate in made.items()}


def compare(build: Callable, how: dict[str, tuple], args, shape: tuple[int, int, int], dtype, flop: float) -> dict:
    """`beside_product` as figures for `report`: the rate of the product and, for each candidate, `rates` (args.batch clips, flop
    operations), peak memory and, for candidates other than ours, how many times faster "ours" is."""
    seconds, peaks = beside_product(build, how, args, shape, dtype)
    product_rate = product_flop(*shape) / statistics.median(seconds["product"])
    result = {"product_gflops": round(product_rate / 1e9, 1)}
    for name, peak in peaks.items():
        result[name] = rates(seconds[name], args.batch, flop, product_rate) | {"peak_mb": peak}
        if "ours" in peaks and not name.startswith("ours"):
            result[name]["ours_faster"] = round(ratio(seconds[name], seconds["ours"]), 2)
    return result


def ratio(slow: list[float], fast: list[float]) -> float:
    """How many times faster `fast` is: the median over rounds of the quotient."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def product(rows: int, inner: int, columns: int, dtype: torch.dtype, device: torch.device) -> Callable[[], object]:
    """A candidate for `interleave`: the matrix product (rows x inner)(inner x columns); see `product_flop`."""
    left = torch.randn(rows, inner, device=device).to(dtype)
    right = torch.randn(inner, columns, device=device).to(dtype)
    out = torch.empty(rows, columns, device=device, dtype=dtype)
    return lambda: torch.mm(left, right, out=out)


def product_flop(rows: int, inner: int, columns: int) -> float:
    """Floating-point operations of a matrix product; a multiplication and an addition count as two."""
    return 2.0 * rows * inner * columns


def status_bytes(field: str) -> int | None:
    """Bytes of a field of /proc/self/status, such as VmRSS; None where there is no such file."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    found = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def peak_mb(build: Callable, *arguments, device: str = "cpu") -> int | None:
    """`InOwnProcess.peak_mb` of one call; None also if the process ended, for example out of memory."""
    with contextlib.closing(InOwnProcess(build, *arguments, device=device)) as fresh:
        with contextlib.suppress(EOFError):
            fresh()
        return fresh.peak_mb


def processor(device: torch.device) -> str:
    """Name of the GPU, or the vendor's name of the CPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def surroundings(device: torch.device) -> dict:
    """The environment of a measurement: torch, processor, threads, load of the machine, date."""
    return {
        "torch": torch.__version__,
        "processor": processor(device),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def summary(seconds: list[float], digits: int = 4) -> dict:
    """Median and fastest of some times."""
    return {"median_s": round(statistics.median(seconds), digits), "fastest_s": round(min(seconds), digits)}


def rates(seconds: list[float], clips: int, flop: float, product_rate: float) -> dict:
    """`summary` with clips per second, operations per second, and their share of the rate (FLOP/s) of a matrix product."""
    entry, rate = summary(seconds), flop / statistics.median(seconds)
    entry |= {"clips_per_s": round(clips / entry["median_s"], 2), "gflops": round(rate / 1e9, 1)}
    return entry | {"share_of_product": round(rate / product_rate, 3)}


def report(name: str, args: argparse.Namespace, result: dict) -> None:
    """Prints flags, result and environment as one JSON line; --save also writes it to
    benchmarks/results/NAME_TORCH_PROCESSOR_DATE.json."""
    flags = {key: value for key, value in vars(args).items() if key != "save"}
    place = surroundings(torch.device(flags.get("device", "cpu")))
    result = {"benchmark": name, **flags, **result, **place}
    print(json.dumps(result))
    if args.save:
        parts = (name, place["torch"], place["processor"], place["date"])
        words = (re.sub(r"[^A-Za-z0-9.+]+", "-", part).strip("-") for part in parts)
        RESULTS.mkdir(exist_ok=True)
        write_json(RESULTS / ("_".join(words) + ".json"), result)
