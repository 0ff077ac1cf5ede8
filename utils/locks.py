"""Advisory locks on open files: one writer per folder.

A lock belongs to an open file; the system releases it when the process ends, in whatever way. So nothing has to be removed
after a kill, and a held lock proves that a writer is running, on this machine or on another one that shares the file
system. Reading needs no lock.

`Ownership` keeps a folder for one writer. It locks `.owner` in the folder, which also names the holder, and removes it at
the end. On a file system or an operating system without locks the writer goes on, with a note
that nothing keeps a second writer out.

The `filelock` package is not used: it can lock neither a file that is already open (`atomic_write`) nor a file whose
content names the holder (its older releases truncate it), and it raises on a file system that answers ENOLCK.
"""

import contextlib
import errno
import json
import os
import socket
import time
from pathlib import Path

from utils.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

OWNER = ".owner"


class BeingWritten(UserError):
    """Another process is writing the folder; a caller may wait for it."""


_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}


def lock(file, wait: bool = False) -> bool | None:
    """Locks an open file (or descriptor): True, or False when another process holds the lock, or None when the system has no
    locks. wait: wait for the other process instead."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def is_same_file(file, path) -> bool:
    """Whether `path` still names this open file (or descriptor): another process may have removed it between opening and
    locking."""
    handle = file if isinstance(file, int) else file.fileno()
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), os.stat(path))
    return False


def open_locked(path, wait: bool = False) -> tuple[int, bool | None]:
    """Opens the file, which is made if missing, and locks it: (descriptor, result of `lock`). Raises OSError."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            got = lock(handle, wait)
            if got is not True or is_same_file(handle, path):
                return handle, got
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def is_locked(path) -> bool:
    """Whether a running process has locked the file; False without locks, and for a missing file."""
    try:
        handle = os.open(path, os.O_RDWR)  # for writing, since NFS locks only such files
    except OSError:
        return False
    try:
        return lock(handle) is False
    finally:
        os.close(handle)


def has_ended(pid: int) -> bool:
    """Whether no process of this id runs on this machine: it does not exist, or is a zombie."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # it runs, for another user
        pass
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False


def _signature(program: str) -> bytes:
    about = {"program": program, "host": socket.gethostname(), "process": os.getpid()}
    return json.dumps({**about, "since": time.strftime("%Y-%m-%d %H:%M:%S")}).encode()


def _holder(handle: int) -> str:
    """The holder that is written in the open file, in words."""
    try:
        about = json.loads(os.pread(handle, 4096, 0))
        return f"{about['program']}, process {about['process']} on {about['host']}, since {about['since']}"
    except (ValueError, KeyError, TypeError):  # it has the lock, but has not written its name yet
        return "another process"


class Ownership:
    """Makes this process the only writer of a folder until `release` or its end; makes the folder if it is missing.

    note: None, or a sentence to print: that there are no locks here. Raises BeingWritten, with the holder and the time
    since when, or OSError when the folder cannot be written to."""

    def __init__(self, folder, program: str):
        folder = Path(folder)
        self.made = not folder.exists()
        self.path = folder / OWNER
        self._handle, got = self._take()
        if got is False:
            holder = _holder(self._handle)
            os.close(self._handle)
            raise BeingWritten(
                f"{folder} is being written by {holder}; wait until it has ended, stop it, or give another folder"
            )
        try:
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, _signature(program), 0)
        except BaseException:
            self.release()
            raise
        self.note = None
        if got is None:
            self.note = f"note: {folder} is on a file system without locks: nothing keeps a second run out of it"

    def _take(self) -> tuple[int, bool | None]:
        while True:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            except FileExistsError:  # a file, a link to nothing, or a folder that was removed before mkdir saw it
                if not self.path.parent.is_dir() and (self.path.parent.exists() or self.path.parent.is_symlink()):
                    raise
                continue
            with contextlib.suppress(FileNotFoundError):  # another process has just removed the folder
                return open_locked(self.path)

    def __enter__(self) -> "Ownership":
        return self

    def __exit__(self, *_) -> None:
        self.release()

    def release(self) -> None:
        """Releases the folder; removes it if this object made it and it is still empty."""
        if self._handle is None:
            return
        with contextlib.suppress(OSError):
            self.path.unlink()
        os.close(self._handle)
        self._handle = None
        if self.made:
            with contextlib.suppress(OSError):
                self.path.parent.rmdir()
