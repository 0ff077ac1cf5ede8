"""Resuming evaluations: the run folder keeps which of several trainings are finished, and the state of the current one.

A training has the name of its values in metrics.jsonl: `seed1`, or `frozen/seed1` in a program with several modes.
`progress.pth` holds the outcome of every finished training and the state of the current one between two steps: head, encoder
(if it is trained), optimizer, position in the epoch. It is written when a signal requests a stop and every few minutes, whole or
not at all; a resumed run computes the same steps as one that was never stopped.
"""

import time
from pathlib import Path

from engine.signals import StopRequest
from utils import checkpoint as files
from utils.distributed import World
from utils.errors import UserError, as_flag
from utils.fingerprint import differences

FILE = "progress.pth"
SAVE_SECONDS = 300.0
# arguments that may differ when a run is resumed: they do not change results, or only add seeds
MAY_CHANGE = set(
    "data_root cache_dir clips workers checkpoint_path device threads local_rank timeout_minutes resume seed occlusion "
    "occlusion_seed early encoder_mode horizons timelines".split()
)


class Stopped(Exception):
    """Raised when a signal has stopped a training, after its state was saved."""


class Progress:
    """Finished and current trainings of a run. finished: {name: outcome}; current: (name, state) of the training that was
    interrupted, or None."""

    def __init__(self, folder, arguments: dict, stop: StopRequest, world: World, data: dict | None = None):
        self.path, self.arguments, self.stop, self.world = Path(folder) / FILE, arguments, stop, world
        self.data = data
        self.finished: dict[str, dict] = {}
        self.current: tuple[str, dict] | None = None
        self._saved = time.monotonic()

    def resume(self) -> bool:
        """Loads the progress in the folder; False if there is none. UserError if it was written with other arguments or data."""
        if not self.path.is_file():
            return False
        content = files.load(self.path)
        before = content.get("arguments")
        named = content.get("names") == "as metrics"  # earlier versions had other names and states
        if not named or not isinstance(before, dict) or not isinstance(content.get("finished"), dict):
            raise UserError(
                f"{self.path}: not a progress file of this version; give another --output, or leave --resume out"
            )
        for name, new in self.arguments.items():
            if new is True and name not in before and name not in MAY_CHANGE:
                raise UserError(
                    f"{self.path} was written by a version without {as_flag(name, True)}; resume with {as_flag(name, False)}, or "
                    "leave --resume out to start over"
                )
        for name, old in before.items():
            new = self.arguments.get(name, old)
            if name not in MAY_CHANGE and _plain(new) != _plain(old):
                raise UserError(
                    f"{self.path} was started with {as_flag(name, old)}, now it is {as_flag(name, new)}; resume with the old "
                    "value, or leave --resume out to start over"
                )
        if changed := differences(content.get("data") or {}, self.data or {}):
            raise UserError(
                f"{self.path} was started with other data: {'; '.join(changed)}; restore it, or leave --resume out to start over"
            )
        self.finished, self.current = content["finished"], content.get("current")
        return True

    def state_of(self, name: str) -> dict | None:
        """The state of a training that was interrupted, None if it has not started."""
        return self.current[1] if self.current is not None and self.current[0] == name else None

    def watch(self, name: str):
        """The `after_step` of engine.fit for a training: saves its state every few minutes, and saves and raises `Stopped` when any
        process has got a signal."""

        def after_step(make_state) -> None:
            stopping = self.world.any(self.stop.received is not None)
            if stopping or (self.world.size == 1 and time.monotonic() - self._saved > SAVE_SECONDS):
                self.current = (name, make_state())
                self.save()
            if stopping:
                raise Stopped

        return after_step

    def finish(self, name: str, outcome: dict) -> None:
        """Saves the outcome of a finished training."""
        self.finished[name], self.current = outcome, None
        self.save()

    def save(self) -> None:
        plain = {name: _plain(value) for name, value in self.arguments.items()}
        content = {"names": "as metrics", "arguments": plain, "data": self.data, "finished": self.finished}
        content["current"] = self.current
        self.world.on_main(lambda: files.save(self.path, content))
        self._saved = time.monotonic()

    def lines(self) -> list[str]:
        """Log lines about what an earlier start has done."""
        lines = [f"{in_words(name)}: finished by an earlier start" for name in self.finished]
        if self.current is not None:
            lines.append(f"{in_words(self.current[0])}: resumed in epoch {self.current[1]['epoch'] + 1}")
        return lines

    def stopped(self, say) -> None:
        """Logs where a signal has stopped the run; one of several processes then waits for the others, ignoring signals."""
        name, state = self.current
        who = self.stop.received or "a signal to another process"
        say(
            f"stopped by {who} in epoch {state['epoch'] + 1} of {in_words(name)}; resume with the same command and --resume auto"
        )
        if self.world.size > 1:
            self.world.barrier()
            self.stop.ignore_from_now_on()

    def keeps(self, record: dict) -> bool:
        """Whether a record of metrics.jsonl stays because its epoch is not computed again."""
        name = next((name.rpartition("/")[0] for name in record if "/" in name), "")
        done = self.current[1]["epoch"] if self.current is not None and self.current[0] == name else 0
        return name in self.finished or record["step"] <= done


def in_words(name: str) -> str:
    """seed1 -> seed 1; frozen/seed1 -> frozen, seed 1."""
    return name.replace("seed", "seed ").replace("/", ", ")


def _plain(value):
    return list(value) if isinstance(value, tuple) else value
