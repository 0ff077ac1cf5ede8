"""Programs in processes of their own: one several times, as a launcher does, or forked from a server that has imported
everything once, because the start of Python takes longer than most of these runs."""

import importlib
import multiprocessing
import os
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

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


def _forked(program: str, arguments: str, logs: tuple[str, str], file_limit: int | None, variables: dict) -> None:
    import torch  # not above: workers of preparations import this module, and need none

    from engine import signals

    torch.set_num_threads(1)
    os.environ.update(variables)
    signals._PARENT = os.getppid()  # the server's, not that of who started the server
    for number, log in enumerate(logs, 1):
        with open(log, "a") as out:
            os.dup2(out.fileno(), number)
    if file_limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    run(importlib.import_module(program).main, arguments.split())


def fork(program: str, arguments: str, log, errors=None, *, file_limit=None, variables=None) -> multiprocessing.Process:
    """Starts `program` (a module's name) in a process of its own, what it says into files (`log` alone: all into one);
    file_limit: bytes that a file may have; variables: of its environment. It is killed as any process is."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pretrain_moco_mask", "action_classification", "torch.utils.tensorboard"])
    logs = str(log), str(errors or log)
    arguments = program, arguments, logs, file_limit, variables or {}
    process = context.Process(target=_forked, args=arguments, daemon=True)
    process.start()
    return process


def finish(process: multiprocessing.Process, seconds: float = 60) -> int:
    """The exit status of a forked process; a failure of the test when it does not end in time."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"still running after {seconds} s")
    return process.exitcode


def launched_as(size: int) -> list[dict[str, str]]:
    """What torchrun's variables say to each of `size` processes."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    shared |= {"LOCAL_WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]


class Processes:
    """`size` processes of a program (a module's name), which torchrun's variables tell of each other."""

    def __init__(self, size: int, program: str, arguments: str):
        self._folder = tempfile.TemporaryDirectory()
        self._logs = [(Path(self._folder.name, f"{i}.out"), Path(self._folder.name, f"{i}.err")) for i in range(size)]
        self.started = [
            fork(program, arguments, *logs, variables=variables)
            for logs, variables in zip(self._logs, launched_as(size), strict=True)
        ]

    def wait(self, seconds: float = 120) -> list[Ended]:
        """What each process gave; those that do not end in time are killed, and the test fails."""
        limit = time.monotonic() + seconds
        try:
            statuses = [finish(process, max(limit - time.monotonic(), 0.1)) for process in self.started]
        finally:
            for process in self.started:
                process.kill()
        return [Ended(s, *(log.read_text() for log in logs)) for s, logs in zip(statuses, self._logs, strict=True)]
