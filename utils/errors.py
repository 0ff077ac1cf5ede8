"""Errors: a user's mistake ends in one sentence and exit status 2, never in a traceback.

`UserError` carries the sentence: what was given, what was expected, what to type. `run` wraps the `main` of every program
and turns errors of the machine (no space, no permission, Ctrl-C) into sentences, too. Everything else is a bug: its
traceback is printed, followed by what to report. PCM3_DEBUG=1 in the environment shows the traceback of the sentences, too.

Characters that a console cannot show (a plus-minus sign in ASCII) are replaced by similar ones, or a `?`.
"""

import codecs
import errno
import importlib.metadata
import os
import platform
import sys
import traceback
from contextlib import contextmanager

EXIT_USER, EXIT_BUG = 2, 1
EXIT_INTERRUPTED = 130

_OS_HINTS = {
    errno.ENOSPC: "no space is left on the disk; free some, or give another folder",
    errno.EDQUOT: "the disk quota is used up; free some space, or give another folder",
    errno.EACCES: "no permission; give a folder that you may write to",
    errno.EPERM: "no permission; give a folder that you may write to",
    errno.EROFS: "the file system is read-only; give another folder",
    errno.EFBIG: "the file would exceed the size limit of this system (ulimit -f)",
    errno.ENOENT: "there is no such file or folder",
    errno.EEXIST: "there is a file of this name where a folder is needed; remove it, or give another name",
    errno.ENOTDIR: "a part of this path is a file, not a folder; give another path",
    errno.EISDIR: "is a folder; give the name of a file",
    errno.ENAMETOOLONG: "the name is too long for this file system; give a shorter one",
    errno.ELOOP: "its links form a loop; give the file itself",
}


class UserError(Exception):
    """A mistake that the user can correct; the message is the whole explanation."""


@contextmanager
def as_user_error(subject: str, *kinds: type[Exception]):
    """Turns exceptions of these kinds (ValueError if none is given) into a UserError "SUBJECT: MESSAGE"."""
    kinds = kinds or (ValueError,)
    try:
        yield
    except kinds as error:
        raise UserError(f"{subject}: {error}") from None


def as_flag(name: str, value) -> str:
    """An argument as it is typed: --x VALUE, --x or --no-x; `no --x` for None."""
    flag = name.replace("_", "-")
    if value is None or isinstance(value, bool):
        return {None: f"no --{flag}", True: f"--{flag}", False: f"--no-{flag}"}[value]
    if isinstance(value, dict):
        value = [f"{key}={number:g}" for key, number in value.items()]
    words = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
    return f"--{flag} {words}"


def describe_os_error(error: OSError) -> str:
    """One sentence for an error of the operating system, with its path (of a rename, the new one)."""
    hint = _OS_HINTS.get(error.errno)
    names = (error.filename2, error.filename, "a file")
    name = next(name for name in names if name is not None)
    reason = hint or os.strerror(error.errno) if error.errno else str(error)
    return f"{os.fspath(name) if not isinstance(name, int) else 'a file'}: {reason}"


def _no_memory(error: Exception) -> bool:
    """Whether Python, or torch on the CPU or a GPU (which raise a RuntimeError), has run out of memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _rank_prefix() -> str:
    """The rank of this process as a prefix for messages; '' for a single process."""
    return f"rank {os.environ.get('RANK')}: " if os.environ.get("WORLD_SIZE", "1") not in ("", "1") else ""


def warn(text: str) -> None:
    """Prints a warning on standard error; of several processes only rank 0 does."""
    if os.environ.get("RANK", "0") in ("", "0"):
        print(f"warning: {text}", file=sys.stderr)


_ALIKE = {
    "±": "+-",
    "…": "...",
    "–": "-",
    "—": "-",
    "−": "-",
    "→": "->",
    "×": "x",
    "’": "'",
    "“": '"',
    "”": '"',
    "é": "e",
}
_BLOCKS = {"█": "#", "▏": "#", "▎": "#", "▍": "#", "▌": "#", "▋": "#", "▊": "#", "▉": "#"}  # of a progress bar


def _alike(error: UnicodeError) -> tuple[str, int]:
    """Error handler of encodings: replacements for characters that a console cannot show."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join((_ALIKE | _BLOCKS).get(c, "?") for c in lacking), error.end


codecs.register_error("alike", _alike)


def prepare_console() -> None:
    """Sets the error handlers of the standard streams, so that no character raises: output replaces unknown characters, and
    input reads invalid bytes as a character that no parser takes for a number."""
    for stream, errors in ((sys.stdout, "alike"), (sys.stderr, "alike"), (sys.stdin, "replace")):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=errors)


def _report_bug() -> None:
    """Prints the traceback of the current error, and what to report."""
    traceback.print_exc()
    packages = []
    for name in ("torch", "numpy"):
        try:
            packages.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            packages.append(f"no {name}")
    print(
        f"error: {_rank_prefix()}this is a bug of the program; please open an issue where you got it from, with the command, all "
        f"lines from `Traceback` on, and this: Python {platform.python_version()}, {', '.join(packages)}, "
        f"{platform.system()} {platform.machine()}",
        file=sys.stderr,
    )


def _explained(error: Exception) -> str | None:
    """The sentence for an error that is not a bug, None for a bug."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _OS_HINTS:
        return describe_os_error(error)
    if isinstance(error, (MemoryError, RuntimeError)) and _no_memory(error):
        what = str(error).strip().splitlines()[0][:150] if str(error).strip() else "of this machine"
        return f"not enough memory ({what}); give smaller sizes, such as --batch-size or --hidden-size"
    return None


def run(main, argv=None) -> None:
    """Calls `main(argv)` and exits with its return value (None = 0); with 2 and a sentence for a user's mistake, 1 and a
    traceback for a bug."""
    prepare_console()
    try:
        status = main(argv)
    except BrokenPipeError:
        status = 1
    except Exception as error:
        sentence = _explained(error)
        if sentence is None:
            _report_bug()
        else:
            if os.environ.get("PCM3_DEBUG", "0") not in ("", "0"):
                traceback.print_exc()
            print(f"error: {_rank_prefix()}{sentence}", file=sys.stderr)
        status = EXIT_BUG if sentence is None else EXIT_USER
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = EXIT_INTERRUPTED
    sys.exit(status or 0)
