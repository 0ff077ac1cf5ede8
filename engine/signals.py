"""Stopping well: the first SIGTERM, SIGINT or SIGUSR1 asks for a stop after the current step, the second stops at once."""

import contextlib
import signal

EXIT_STOPPED = 75  # "temporary failure, try again": stopped by a signal, state saved, to be resumed


class StopRequest:
    """While the block lasts, signals set `received` (the signal's name) instead of ending the process."""

    def __init__(self):
        self.received: str | None = None
        self._old: dict = {}

    def _handle(self, number, _frame):
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name

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
