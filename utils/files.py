"""Files: written whole or not at all, and read without trusting them.

* `atomic_write` writes to a temporary name beside the target, flushes it to the disk and renames it: whoever looks at
  the target sees the old file or the new one, never half of one.
* `load_label_pickle` reads the pickles that data sets ship without running what is inside: only builtin containers,
  numbers, strings and numpy arrays are rebuilt, anything else is refused by name.
* `load_json` reads a bounded, UTF-8 JSON file and names the line of a mistake.
"""

import contextlib
import hashlib
import io
import json
import mmap
import os
import pickle
import pickletools
import secrets
from pathlib import Path

from utils.errors import UserError
from utils.locks import is_locked, lock, still_named

MAX_JSON_BYTES = 64 * 2**20

# What a pickle of numbers, names and arrays needs, and nothing that can act.
_SAFE_GLOBALS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
    ("builtins", "set"),
    ("builtins", "frozenset"),
    ("builtins", "bytearray"),
    ("builtins", "complex"),
}


class _SafeUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        if (module, name) not in _SAFE_GLOBALS:
            raise UserError(
                f"it asks to import {module}.{name}, which data never needs; it is not read (it may be malicious)"
            )
        if module.startswith("numpy.core"):  # the name before numpy 2
            import numpy

            if not hasattr(numpy, "_core"):
                return super().find_class(module, name)
            module = module.replace("numpy.core", "numpy._core")
        elif module.startswith("numpy._core"):
            import numpy

            if not hasattr(numpy, "_core"):
                module = module.replace("numpy._core", "numpy.core")
        return super().find_class(module, name)


_ARGUMENT_BYTES = {ord(op.code): 0 if op.arg is None else op.arg.n for op in pickletools.opcodes}
_LENGTH_BYTES = {  # arguments that begin with their own length
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_LINES = {ord("c"): 2, ord("i"): 2}  # GLOBAL and INST are followed by two lines, other line arguments by one
_PUT, _LONG_PUT, _STOP = ord("p"), ord("r"), ord(".")


def _refuse_memory_bombs(file) -> None:
    """UserError when the pickle stores under a number that its size cannot justify. Python's unpickler keeps what is
    stored in a table as long as the largest number, so that six bytes can ask for many gigabytes."""
    size = os.fstat(file.fileno()).st_size
    if not size:
        return
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = 0
        while at < size:
            code = data[at]
            at += 1
            length = _ARGUMENT_BYTES.get(code)
            if length is None or code == _STOP:
                return  # the end, or no opcode: the unpickler says so
            number = 0
            if length >= 0:
                number = int.from_bytes(data[at : at + 4], "little") if code == _LONG_PUT else 0
                at += length
            elif length in _LENGTH_BYTES:
                at += _LENGTH_BYTES[length] + int.from_bytes(data[at : at + _LENGTH_BYTES[length]], "little")
            else:
                for _ in range(_LINES.get(code, 1)):
                    end = data.find(b"\n", at)
                    if end < 0:
                        return
                    line, at = data[at : min(end, at + 20)].strip(), end + 1
                number = int(line) if code == _PUT and line.isdigit() else 0
            if number > size:
                raise UserError("it stores things under numbers that only a damaged or malicious file holds")


def load_pickle(path) -> object:
    """The object in a pickle of plain data (lists, dicts, numbers, strings, numpy arrays).

    Raises UserError, with the path, when the file is missing, is no pickle, is cut short, or asks to import anything
    that plain data does not need."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            _refuse_memory_bombs(file)
            return _SafeUnpickler(file, encoding="latin1").load()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError:
        raise
    except MemoryError:
        raise UserError(
            f"{path}: the pickle asks for more memory than there is; it is damaged or not a data file"
        ) from None
    except Exception as error:  # a hostile or cut pickle can raise almost anything from inside the C unpickler
        what = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: not a readable pickle ({type(error).__name__}: {what})") from None


def load_json(path) -> object:
    """The content of a JSON file; UserError with path and line when it is missing, too large or malformed."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes is too large for a JSON description")
        return json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply for a JSON description") from None


def flush_to_disk(path) -> None:
    """Asks the system to put the file (or, for a folder, its list of names) on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary_name(path) -> Path:
    """A name beside `path` that nobody else uses; it ends in `.tmp`, so that it is never taken for a whole file."""
    path = Path(path)
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def remove_leftovers(folder, pattern: str = "") -> None:
    """Removes temporary files that killed processes have left in a folder, of the files whose names match `pattern`
    (default: all). Those that a living process writes stay: it has locked them (`atomic_write`), or its number, which is
    in the name, is that of another process of this machine."""
    for path in Path(folder).glob(f".{pattern}*.tmp"):
        if path.is_file() and not _runs(path) and not is_locked(path):
            path.unlink(missing_ok=True)


def _runs(temporary: Path) -> bool:
    """Whether the process that made the temporary name may still run here (False for this one, whose number a process
    before it may have had)."""
    pid = temporary.name.split(".")[-3] if temporary.name.count(".") > 3 else ""
    if not pid.isdecimal() or int(pid) == os.getpid():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it runs, for another user
        pass
    return True


def open_temporary(path, mode: str, **more):
    """Opens a new temporary file, locked, so that `remove_leftovers` of another process takes it for what it is."""
    while True:
        file = open(path, mode, **more)
        try:
            if lock(file) is None or still_named(file, path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


@contextlib.contextmanager
def atomic_write(path, mode: str = "wb"):
    """A file object whose content appears under `path` once the block ends without an error, else not at all."""
    path = Path(path)
    temporary = temporary_name(path)
    try:
        with open_temporary(temporary, mode, **({} if "b" in mode else {"encoding": "utf-8"})) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise
    with contextlib.suppress(OSError):  # some file systems cannot flush a folder; the rename has happened all the same
        flush_to_disk(path.parent)


def write_json(path, value) -> None:
    """Writes `value` as indented JSON, whole or not at all."""
    with atomic_write(path, "w") as file:
        json.dump(value, file, indent=2, sort_keys=False, allow_nan=False)
        file.write("\n")


def dump_pickle(value) -> bytes:
    """A pickle of plain data at protocol 4, which every Python that this project supports can read."""
    buffer = io.BytesIO()
    pickle.dump(value, buffer, protocol=4)
    return buffer.getvalue()


def sha256(path, block: int = 2**22) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(block):
            digest.update(chunk)
    return digest.hexdigest()
