"""Stopping well: the first SIGTERM, SIGINT or SIGUSR1 asks for a stop after the current step, the second stops at once.

A process of a launcher (torchrun, engine.launch) stops as well when the launcher has ended: torchrun is ended by SIGUSR1, and its
processes, which nobody could stop any more by then, would train on.
"""

import contextlib
import os
import signal
import time

EXIT_STOPPED = 75  # "temporary failure, try again": stopped by a signal, state saved, to be resumed
REPEATED = 5.0  # seconds in which schedulers and launchers repeat a signal that a process has had already
_PARENT = os.getppid()  # as this process was started; another one later means that the parent has ended


LAUNCHER_GRACE = 5.0  # seconds in which a launcher repeats the signal that its processes have had, see StopRequest


class StopRequest:
    """While the block lasts, signals set `received` (the signal's name, or what else asks for a stop) instead of ending the
    process.

    launched: by a launcher, which passes on what its processes, as members of the same terminal or job, get as well. A
    signal within `REPEATED` seconds then counts as the first; without a launcher this is so for all but SIGINT, which is a
    person at a keyboard."""

    def __init__(self, launched: bool = False):
        self._received: str | None = None
        self._launched, self._at = launched, 0.0
        self._old: dict = {}

    @property
    def received(self) -> str | None:
        """What has asked for a stop, or None."""
        if self._received is None and self._launched and os.getppid() != _PARENT:
            self._received, self._at = "the end of its launcher", time.monotonic()
        return self._received

    def _handle(self, number, _frame):
        person = number == signal.SIGINT and not self._launched
        if self._received is None:
            self._received, self._at = signal.Signals(number).name, time.monotonic()
        elif person or time.monotonic() - self._at >= REPEATED:
            raise KeyboardInterrupt

    def ignore_from_now_on(self) -> None:
        """Ignores further signals, also after the block: the work is saved, and a launcher sends them to all processes as soon as
        the first one has ended."""
        for number in self._old:
            self._old[number] = signal.SIG_IGN
            signal.signal(number, signal.SIG_IGN)

    def __enter__(self):
        for name in ("SIGTERM", "SIGINT", "SIGUSR1"):
            if hasattr(signal, name):
                number = getattr(signal, name)
                with contextlib.suppress(ValueError):  # only the main thread may
                    self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_):
        for number, old in self._old.items():
            signal.signal(number, old)
