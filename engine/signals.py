"""Clean stops: the first SIGTERM, SIGINT or SIGUSR1 requests a stop after the current step, the second stops at once.

A process of a launcher (torchrun, engine.launch) also stops when the launcher has ended: SIGUSR1 ends torchrun, and its orphaned
processes, which nobody can stop then, would keep training.
"""

import contextlib
import os
import signal
import time

EXIT_STOPPED = 75  # EX_TEMPFAIL: stopped by a signal, state saved, can be resumed
REPEATED = 5.0  # seconds in which schedulers and launchers may repeat a signal that a process already has
_PARENT = os.getppid()  # at the start of this process; another value later means that the parent has ended


class StopRequest:
    """A context in which signals set `received` (to the signal's name, or another reason to stop) instead of ending the process.

    launched: whether a launcher started this process. A launcher passes on signals that its processes, being in the same
    terminal or job, get directly too. So a second signal within `REPEATED` seconds is ignored; without a launcher this does not
    apply to SIGINT, which a person at the keyboard sends."""

    def __init__(self, launched: bool = False):
        self._received: str | None = None
        self._launched, self._at = launched, 0.0
        self._old: dict = {}

    @property
    def received(self) -> str | None:
        """The reason to stop, or None."""
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
