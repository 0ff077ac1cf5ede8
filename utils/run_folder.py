"""A run folder: the record of a run, what was started and what came out.

arguments.json   arguments, command line, versions, git commit, fingerprints of the data (utils.fingerprint); one entry per
                 start (a resumed run has several)
log.txt          the printed lines
metrics.jsonl    a JSON object per line: step, epoch and values by name
events.out.*     the same values for TensorBoard
checkpoint_*     see utils.checkpoint
.owner           the program that is writing here (utils.locks); a second writer is refused, readers are not
"""

import json
import math
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from utils.errors import UserError, describe_os_error
from utils.files import atomic_write, load_json, remove_leftovers, write_json
from utils.locks import Ownership


def versions() -> dict:
    """Versions of all packages that can change a result, git commit and device name."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a plain string, since checkpoints hold only plain values
        "numpy": np.__version__,
        "cuda": torch.version.cuda,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu",
        "git": git_commit(),
    }


def git_commit() -> str:
    """The commit of this checkout, with '+' if files differ from it; 'unknown' outside of git."""
    here = Path(__file__).resolve().parent
    try:
        run = {"cwd": here, "capture_output": True, "text": True, "timeout": 10, "check": True}
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **run).stdout.strip()
        dirty = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], **run).stdout.strip()
        return commit + ("+" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _plain(value):
    """A value converted to types of JSON."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, (np.generic, torch.Tensor)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _silence_disk_errors_of_threads() -> None:
    """TensorBoard writes in a thread and raises the thread's error again in the next call, where it becomes a sentence. This
    keeps the thread from also printing a traceback, for example of a full disk."""
    usual = threading.excepthook

    def hook(arguments):
        if not issubclass(arguments.exc_type, OSError):
            usual(arguments)

    threading.excepthook = hook


class _Closing:
    """A folder that `with` closes; a UserError that ends the block is written to its log."""

    def __enter__(self):
        return self

    def __exit__(self, _, error, __) -> None:
        if isinstance(error, UserError):
            self.log(f"error: {error}", show=False)
        self.close()


class QuietFolder(_Closing):
    """The run folder for processes other than the main one: prints and writes nothing."""

    def __init__(self, path):
        self.path = Path(path)

    def log(self, text: str = "", show: bool = True) -> None:
        pass

    def metrics(self, step: int, values: dict, **more) -> None:
        pass

    def write_json(self, name: str, value) -> Path:
        return self.path / name

    def close(self) -> None:
        pass


def own_folder(path, program: str) -> Ownership:
    """Makes this process the only writer of a run folder. UserError when another one is, or it cannot be written to."""
    try:
        return Ownership(path, program)
    except OSError as error:
        raise UserError(f"run folder {describe_os_error(error)}") from None


class RunFolder(_Closing):
    """The folder of one run of one program, which owns it until `close` or the end of a `with`.

    owner: if the folder is owned already (`own_folder`); data: fingerprints of the data, for arguments.json; kept: for a
    resumed run, whether a record of metrics.jsonl stays (the other steps are computed again), None for a new run. UserError
    when the folder cannot be made or written to, or another process is writing there."""

    def __init__(
        self,
        path,
        program: str,
        arguments: dict,
        kept: Callable[[dict], bool] | None = None,
        owner: Ownership | None = None,
        data: dict | None = None,
    ):
        self.path = Path(path)
        self._owner = owner or own_folder(path, program)
        try:
            self._open({"program": program, "arguments": arguments, "data": data}, kept)
        except BaseException:
            self._owner.release()
            raise

    def _open(self, about: dict, kept: Callable[[dict], bool] | None) -> None:
        try:
            remove_leftovers(self.path)
            earlier = self._set_aside() if kept is None else None
            self._log = open(self.path / "log.txt", "a", encoding="utf-8")
        except OSError as error:
            raise UserError(f"run folder {describe_os_error(error)}") from None
        self._start(**about)
        self._metrics_path = self.path / "metrics.jsonl"
        self._next_step = None if kept is None else self._keep_metrics(kept) + 1
        self._metrics = open(self._metrics_path, "a", encoding="utf-8")
        self._board, self._board_wanted = None, True
        if self._owner.note:
            self.log(self._owner.note)
        if earlier is not None:
            self.log(f"the folder had an earlier run; its files are now in {earlier}")

    def _set_aside(self) -> Path | None:
        """Moves the files of an earlier run to a subfolder, so that nothing is lost or mixed; returns it, None without."""
        if not (self.path / "arguments.json").exists():
            return None
        name = "earlier-" + time.strftime("%Y%m%d-%H%M%S")
        target, number = self.path / name, 1
        while target.exists():
            number += 1
            target = self.path / f"{name}-{number}"
        target.mkdir()
        for file in sorted(self.path.iterdir()):
            if file.is_file() and not file.name.startswith("."):
                os.replace(file, target / file.name)
        return target

    def _start(self, program: str, arguments: dict, data: dict | None) -> None:
        file = self.path / "arguments.json"
        try:
            starts = load_json(file) if file.exists() else []
        except UserError:
            starts = []
        entry = {
            "program": program,
            "time": time.strftime("%Y-%m-%d %H:%M:%S"),
            "command": " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:]]),
            "arguments": _plain(arguments),
            "data": data,
            "versions": versions(),
        }
        write_json(file, [*(starts if isinstance(starts, list) else []), entry])

    def _keep_metrics(self, kept: Callable[[dict], bool]) -> int:
        """Removes the other lines, and a last line that is cut short; returns the last remaining step."""
        lines, last = [], 0
        text = self._metrics_path.read_text(encoding="utf-8", errors="replace") if self._metrics_path.exists() else ""
        for line in text.splitlines():
            try:
                record = json.loads(line)
                if kept(record):
                    lines.append(line + "\n")
                    last = max(last, record["step"])
            except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
                continue
        with atomic_write(self._metrics_path, "w") as file:
            file.writelines(lines)
        return last

    def log(self, text: str = "", show: bool = True) -> None:
        """Writes a line to log.txt and, if `show`, prints it above a running progress bar."""
        if show:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()  # so that a pipe shows it at once
        self._log.write(text + "\n")
        self._log.flush()

    def metrics(self, step: int, values: dict, **more) -> None:
        """Writes a line of metrics.jsonl, and the same values for TensorBoard."""
        record = {"step": step, **more, **values}
        self._metrics.write(json.dumps(_plain(record), allow_nan=False) + "\n")
        self._metrics.flush()
        board = self.board
        for name, value in values.items():
            if board is not None and isinstance(value, (int, float)):
                board.add_scalar(name, value, step)

    @property
    def board(self):
        """The TensorBoard writer, made on first use (importing it takes a second); None if it cannot be imported, with one
        warning: metrics.jsonl has the same values."""
        if self._board is None and self._board_wanted:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except Exception as error:  # incompatible packages can raise anything
                self._board_wanted = False
                what = f"{type(error).__name__}: {str(error)[:120]}"
                self.log(f"warning: TensorBoard cannot be imported ({what}); the curves are in metrics.jsonl only")
                return None
            _silence_disk_errors_of_threads()
            self._board = SummaryWriter(str(self.path), purge_step=self._next_step, flush_secs=10)
        return self._board

    def write_json(self, name: str, value) -> Path:
        """Writes a result file into the folder."""
        write_json(self.path / name, _plain(value))
        return self.path / name

    def close(self) -> None:
        self._log.close()
        self._metrics.close()
        if self._board is not None:
            self._board.close()
        self._owner.release()
