"""A user's mistake is one sentence and exit status 2; never a traceback, never print-and-go-on.

`UserError` carries the sentence: what was given, what was expected, what to type. `run` wraps the `main` of every
program and turns the errors that a machine can give (no space, no permission, Ctrl-C) into sentences too.
Everything else is a bug of ours and keeps its traceback.
"""

import errno
import os
import sys

EXIT_USER = 2
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
    errno.ELOOP: "its links lead round in a circle; give the file itself",
}


class UserError(Exception):
    """A mistake that the user can mend; the message is the whole explanation."""


def describe_os_error(error: OSError) -> str:
    """One sentence for an error of the operating system, with the path it names: the new name where one was to be changed."""
    hint = _OS_HINTS.get(error.errno)
    names = (error.filename2, error.filename, "a file")
    name = next(name for name in names if name is not None)
    reason = hint or os.strerror(error.errno) if error.errno else str(error)
    return f"{os.fspath(name) if not isinstance(name, int) else 'a file'}: {reason}"


def _no_memory(error: Exception) -> bool:
    """Whether Python, or torch on the CPU or a GPU (which raise a RuntimeError), has run out of memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def _who() -> str:
    """Which of several processes speaks; nothing for a process by itself."""
    return f"rank {os.environ.get('RANK')}: " if os.environ.get("WORLD_SIZE", "1") not in ("", "1") else ""


def warn(text: str) -> None:
    """Says on standard error what may be wrong, once where several processes compute the same."""
    if os.environ.get("RANK", "0") in ("", "0"):
        print(f"warning: {text}", file=sys.stderr)


def run(main, argv=None) -> None:
    """Calls `main(argv)` and exits: with its return value (None = 0), or 2 and a sentence for a user's mistake."""
    try:
        status = main(argv)
    except UserError as error:
        print(f"error: {_who()}{error}", file=sys.stderr)
        status = EXIT_USER
    except BrokenPipeError:
        status = 1
    except OSError as error:
        if error.errno not in _OS_HINTS:
            raise
        print(f"error: {_who()}{describe_os_error(error)}", file=sys.stderr)
        status = EXIT_USER
    except (MemoryError, RuntimeError) as error:
        if not _no_memory(error):
            raise
        what = str(error).strip().splitlines()[0][:150] if str(error).strip() else "of this machine"
        print(
            f"error: {_who()}not enough memory ({what}); give smaller sizes, such as --batch-size or --hidden-size",
            file=sys.stderr,
        )
        status = EXIT_USER
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = EXIT_INTERRUPTED
    sys.exit(status or 0)
