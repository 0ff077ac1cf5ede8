"""Programs in processes of their own: one several times, as a launcher does, or forked from a server that has imported
everything once, because the start of Python takes longer than most of these runs."""

import importlib
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from utils.errors import run

ROOT = Path(__file__).resolve().parent.parent


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@dataclass
class Ended:
    status: int
    out: str
    err: str


class Processes:
    """`size` processes of `python program arguments`, which torchrun's variables tell of each other."""

    def __init__(self, size: int, program: str, arguments: str, **environment):
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
        shared |= {"LOCAL_WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
        self.started = [
            subprocess.Popen(
                [sys.executable, program, *arguments.split()],
                cwd=ROOT,
                env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(size)
        ]

    def wait(self, seconds: float = 120) -> list[Ended]:
        """What each process gave; those that do not end in time are killed, and the test fails."""
        ended, limit = [], time.monotonic() + seconds
        try:
            for process in self.started:
                out, err = process.communicate(timeout=max(limit - time.monotonic(), 0.1))
                ended.append(Ended(process.returncode, out, err))
        finally:
            for process in self.started:
                process.kill()
        return ended


def until(holds, what="", seconds: float = 60, process=None):
    """The first true value of `holds()`; the test fails, with `what` (words, or the path of a log), when it does not come in
    time, or when `process` (of subprocess or multiprocessing) ends before. The only place where tests wait by the clock."""
    limit = time.monotonic() + seconds
    while not (found := holds()):
        ended = process is not None and (process.poll() if hasattr(process, "poll") else process.exitcode) is not None
        if ended or time.monotonic() > limit:
            raise AssertionError(what.read_text()[-2000:] if isinstance(what, Path) else what)
        time.sleep(0.005)
    return found


def wait_for_lines(path: Path, lines: int, seconds: float = 60, process=None) -> None:
    """Returns when the file has that many lines."""
    what = f"{path} has not got {lines} lines"
    until(lambda: path.exists() and path.read_text().count("\n") >= lines, what, seconds, process)


def _forked(program: str, arguments: str, log: str, file_limit: int | None) -> None:
    torch.set_num_threads(1)
    with open(log, "a") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    if file_limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    run(importlib.import_module(program).main, arguments.split())


def fork(program: str, arguments: str, log, file_limit: int | None = None) -> multiprocessing.Process:
    """Starts `program` (a module's name) in a process of its own, its output into a file; file_limit: bytes that a file may
    have. It is killed as any process is."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pretrain_moco_mask", "action_classification", "torch.utils.tensorboard"])
    process = context.Process(target=_forked, args=(program, arguments, str(log), file_limit), daemon=True)
    process.start()
    return process


def finish(process: multiprocessing.Process, seconds: float = 60) -> int:
    """The exit status of a forked process; a failure of the test when it does not end in time."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"still running after {seconds} s")
    return process.exitcode
