"""Starts one program several times, as a launcher does, and collects what each process said."""

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

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


def wait_for_lines(path: Path, lines: int, seconds: float = 60) -> None:
    """Returns when the file has that many lines."""
    limit = time.monotonic() + seconds
    while not path.exists() or path.read_text().count("\n") < lines:
        assert time.monotonic() < limit, f"{path} has not got {lines} lines"
        time.sleep(0.05)
