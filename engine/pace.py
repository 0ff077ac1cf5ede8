"""Progress lines for logs: an estimate after ten steps, seconds per step, steps left and the expected end.

A terminal has a progress bar. A log gets a line every five seconds at first, later every hundredth of the elapsed time, so that
it shows progress at once and stays short over days.
"""

import sys
import time

from tqdm import tqdm

FIRST_STEPS = 10
SILENCE, SHARE = 5.0, 0.01


def duration(seconds: float) -> str:
    """Seconds as text: 12 s, 3 min, 2.5 h, 4.1 days."""
    for size, unit, digits in ((86400 * 2, "days", 1), (3600 * 2, "h", 1), (90, "min", 0)):
        if seconds >= size:
            return f"{seconds / {'days': 86400, 'h': 3600, 'min': 60}[unit]:.{digits}f} {unit}"
    return f"{seconds:.0f} s"


def clock(seconds_ahead: float) -> str:
    """The clock time in `seconds_ahead` seconds, with the date if it is not today."""
    end = time.localtime(time.time() + seconds_ahead)
    return time.strftime("%H:%M" if end[:3] == time.localtime()[:3] else "%Y-%m-%d %H:%M", end)


class Pace:
    """Progress of a run from step `first` to `last`. say: prints a line; quiet: no lines but the estimate, None for this on a
    terminal, which has a bar."""

    def __init__(self, first: int, last: int, say, unit: str = "step", quiet: bool | None = None):
        self.first, self.last, self.say, self.unit = first, last, say, unit
        self.quiet = sys.stderr.isatty() if quiet is None else quiet
        self.started = self.lined = time.monotonic()
        self.warm: float | None = None  # the end of the first step, which is slower: it allocates and compiles

    def seconds(self, done: int) -> float:
        """Mean seconds per step so far, without the first step."""
        if done - self.first < 2 or self.warm is None:
            return (time.monotonic() - self.started) / max(done - self.first, 1)
        return (time.monotonic() - self.warm) / (done - self.first - 1)

    def words(self, done: int) -> str:
        """Seconds per step, steps and time left, and the expected end; after the first step only its own time."""
        if done - self.first < 2:
            return f"the first took {duration(self.seconds(done))}, {self.last - done} left"
        each = self.seconds(done)
        left = each * (self.last - done)
        return f"{each:.3g} s a {self.unit}, {self.last - done} left, {duration(left)}, until {clock(left)}"

    def after(self, done: int, about: str = "") -> None:
        """Called after every step. done: steps of the whole run; about: added to a line."""
        if self.warm is None:
            self.warm = time.monotonic()
        now = time.monotonic()
        if done - self.first == FIRST_STEPS and done < self.last:
            left = self.seconds(done) * (self.last - done)
            number = f"{self.last - self.first} {self.unit}s"
            self.say(
                f"about {duration(left + now - self.started)} for {number}, until {clock(left)} ({self.seconds(done):.3g} s each)"
            )
            self.lined = now
        elif not self.quiet and done < self.last and now - self.lined > max(SILENCE, SHARE * (now - self.started)):
            self.say(f"{self.unit} {done} of {self.last}{', ' * bool(about)}{about}: {self.words(done)}")
            self.lined = now

    def reset_silence(self) -> None:
        """Called when the run has printed another line: delays the next progress line."""
        self.lined = time.monotonic()


def counted(items, unit: str, quiet: bool | None = None, say=None):
    """Yields the items of a sequence, with a bar on a terminal (unless quiet), elsewhere with progress lines by `say`, if given."""
    pace = Pace(0, len(items), say, unit) if say is not None and not quiet else None
    for done, item in enumerate(
        tqdm(items, desc=f"{unit}s", unit=unit, disable=quiet, dynamic_ncols=True, leave=False), 1
    ):
        yield item
        if pace is not None:
            pace.after(done)
