"""How long it takes: an estimate after ten steps, seconds a step, steps left and the time of the end, in lines of a log.

A terminal has a bar. Elsewhere a line comes every five seconds at first, later every hundredth of the time that has passed, so
that a log shows life at once and stays short over days.
"""

import sys
import time

from tqdm import tqdm

FIRST_STEPS = 10
SILENCE, SHARE = 5.0, 0.01


def duration(seconds: float) -> str:
    """12 s, 3 min, 2.5 h, 4.1 days."""
    for size, unit, digits in ((86400 * 2, "days", 1), (3600 * 2, "h", 1), (90, "min", 0)):
        if seconds >= size:
            return f"{seconds / {'days': 86400, 'h': 3600, 'min': 60}[unit]:.{digits}f} {unit}"
    return f"{seconds:.0f} s"


def clock(seconds_ahead: float) -> str:
    """The time of day in so many seconds, with the date where it is not today."""
    end = time.localtime(time.time() + seconds_ahead)
    return time.strftime("%H:%M" if end[:3] == time.localtime()[:3] else "%Y-%m-%d %H:%M", end)


class Pace:
    """Steps of a run from `first` to `last`. say: prints a line; told: of all steps, or of those since the run went on."""

    def __init__(self, first: int, last: int, say, unit: str = "step", quiet: bool | None = None):
        self.first, self.last, self.say, self.unit = first, last, say, unit
        self.quiet = sys.stderr.isatty() if quiet is None else quiet  # a bar is there
        self.begun = self.lined = time.monotonic()
        self.warm: float | None = None  # when the first step was done: it allocates and compiles

    def seconds(self, done: int) -> float:
        """Mean seconds a step so far, without the first."""
        if done - self.first < 2 or self.warm is None:
            return (time.monotonic() - self.begun) / max(done - self.first, 1)
        return (time.monotonic() - self.warm) / (done - self.first - 1)

    def words(self, done: int) -> str:
        """Seconds a step, what is left, and when it ends; the first step alone tells nothing about the others."""
        if done - self.first < 2:
            return f"the first took {duration(self.seconds(done))}, {self.last - done} left"
        each = self.seconds(done)
        left = each * (self.last - done)
        return f"{each:.3g} s a {self.unit}, {self.last - done} left, {duration(left)}, until {clock(left)}"

    def after(self, done: int, about: str = "") -> None:
        """Called after every step; done: steps of the whole run, about: what to add to a line."""
        if self.warm is None:
            self.warm = time.monotonic()
        now = time.monotonic()
        if done - self.first == FIRST_STEPS and done < self.last:
            left = self.seconds(done) * (self.last - done)
            number = f"{self.last - self.first} {self.unit}s"
            self.say(
                f"about {duration(left + now - self.begun)} for {number}, until {clock(left)} ({self.seconds(done):.3g} s each)"
            )
            self.lined = now
        elif not self.quiet and done < self.last and now - self.lined > max(SILENCE, SHARE * (now - self.begun)):
            self.say(f"{self.unit} {done} of {self.last}{', ' * bool(about)}{about}: {self.words(done)}")
            self.lined = now

    def spoken(self) -> None:
        """Another line of the run was printed."""
        self.lined = time.monotonic()


def counted(items, unit: str, quiet: bool | None = None, say=None):
    """The items of a sequence, with a bar on a terminal (unless quiet), and elsewhere lines by `say`, where it is given."""
    pace = Pace(0, len(items), say, unit) if say is not None and not quiet else None
    for done, item in enumerate(
        tqdm(items, desc=f"{unit}s", unit=unit, disable=quiet, dynamic_ncols=True, leave=False), 1
    ):
        yield item
        if pace is not None:
            pace.after(done)
