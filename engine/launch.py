"""Starts several processes of a program on this machine, passes signals on to them, and combines their exit statuses.

    python -m engine.launch --processes 4 pretrain_moco_mask.py --dataset ntu60 --output runs/joint

torchrun does this too, also on several machines, but its signal handling does not suit a run that is stopped and resumed:
SIGUSR1 ends it at once, and SIGTERM, which it passes on, makes it exit with status 1 although its processes have saved and
exited with 75. Here every process gets SIGTERM, SIGINT and SIGUSR1, and the exit status is

    0    if all have finished
    75   if they have stopped and saved, or had not started: the same command with --resume auto resumes
    else that of the first process that failed; 128 + N if signal N ended it

If the launcher itself is killed, its processes notice it (engine.signals), save and stop.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time

from engine.signals import EXIT_STOPPED
from options.common import parser, positive_int
from utils.errors import UserError, run

PATIENCE = 60.0  # seconds for the others to notice that a process has failed, before they are killed


def free_port() -> int:
    """A free TCP port of this machine."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def environment(rank: int, size: int, port: int) -> dict[str, str]:
    """The environment that utils.distributed.connect reads, for one of `size` processes; as with torchrun, one CPU thread each
    unless OMP_NUM_THREADS is set."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    own = {"RANK": rank, "LOCAL_RANK": rank}
    return {"OMP_NUM_THREADS": "1", **os.environ, **{name: str(value) for name, value in {**shared, **own}.items()}}


class Group:
    """The processes of one command. received: number of the first signal, or None."""

    def __init__(self, size: int, command: list[str]):
        self.received: int | None = None
        self.processes: list[subprocess.Popen] = []
        for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._pass_on)
        port = free_port()
        for rank in range(size):
            if self.received is None:
                self.processes.append(subprocess.Popen(command, env=environment(rank, size, port)))

    def _pass_on(self, number, _frame) -> None:
        self.received = self.received or number
        for process in self.processes:
            process.send_signal(number)  # does nothing if the process has ended

    def wait(self) -> list[int]:
        """Waits for all processes; returns their statuses. Kills those still running `PATIENCE` seconds after one failed."""
        failed_at = None
        while any(process.poll() is None for process in self.processes):
            if failed_at is None and any(
                process.returncode not in (None, 0, EXIT_STOPPED) for process in self.processes
            ):
                failed_at = time.monotonic()
            if failed_at is not None and time.monotonic() - failed_at > PATIENCE:
                for process in self.processes:
                    process.kill()
            time.sleep(0.05)
        return [process.returncode for process in self.processes]


def status_of(statuses: list[int], received: int | None) -> int:
    """The exit status of the group, see the module docstring. received: number of the signal that was passed on, or None."""
    stopped = {EXIT_STOPPED} if received is None else {EXIT_STOPPED, -received}
    if any(status in stopped for status in statuses) or (received is not None and not statuses):
        return EXIT_STOPPED
    failed = next((status for status in statuses if status), 0)
    return 128 - failed if failed < 0 else failed


def main(argv=None) -> int:
    p = parser("Starts several processes of a program on this machine and passes signals on to them.")
    p.add_argument("--processes", type=positive_int, required=True, metavar="K", help="their number, usually one a GPU")
    p.add_argument("program", help="the program's file, such as pretrain_moco_mask.py")
    p.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    args = p.parse_args(argv)
    if not os.path.isfile(args.program):
        raise UserError(
            f"{args.program}: there is no such file; give the program's file, such as pretrain_moco_mask.py"
        )
    command = [sys.executable, args.program, *args.arguments]
    if args.processes == 1:
        os.execv(sys.executable, command)  # replaces this process by the program
    group = Group(args.processes, command)
    return status_of(group.wait(), group.received)


if __name__ == "__main__":
    run(main, sys.argv[1:])
