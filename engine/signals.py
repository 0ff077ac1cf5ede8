"""Stopping well: the first SIGTERM, SIGINT or SIGUSR1 asks for a stop after the current step, the second stops at once."""

import contextlib
import signal
import time

EXIT_STOPPED = 75  # "temporary failure, try again": stopped by a signal, state saved, to be resumed


LAUNCHER_GRACE = 5.0  # seconds in which a launcher repeats the signal that its processes have had, see StopRequest


class StopRequest:
    """While the block lasts, signals set `received` (the signal's name) instead of ending the process.

    grace: seconds in which another signal counts as the first: a launcher passes on what its processes, as members of
    the same terminal or job, get as well."""

    def __init__(self, grace: float = 0.0):
        self.received: str | None = None
        self._grace, self._at = grace, 0.0
        self._old: dict = {}

    def _handle(self, number, _frame):
        if self.received is None:
            self.received, self._at = signal.Signals(number).name, time.monotonic()
        elif time.monotonic() - self._at >= self._grace:
            raise KeyboardInterrupt

    def ignore_from_now_on(self) -> None:
        """For a process whose work is saved: signals end no more than its exit status, so they are not heard, after the
        block neither (a launcher ends all processes as soon as the first one has ended)."""
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
