"""Files: written completely or not at all, and read without trusting their content.

* `atomic_write` writes to a temporary name beside the target, flushes it to the disk and renames it: a reader sees the
  old file or the new one, never a part.
* `check_regular` is called before every read: it refuses folders, and pipes and devices, whose reading may block for ever.
* `read_text` and `load_json` read bounded UTF-8 text, with or without a byte order mark (or UTF-16 with one).
* `load_pickle` reads the pickles of data sets without running code in them: only builtin containers, numbers, strings and
  NumPy arrays are rebuilt, anything else is refused by name.
* `read_npy`, `map_npy` and `ArrayArchive` read .npy files and the arrays of an .npz.

A small file can ask for much memory: a zip archive compresses zeros a thousandfold, and the header of an array or a few
bytes of a pickle can state any size. The stated size is checked before anything is unpacked: if it exceeds both the size of
the file and a limit (MAX_UNPACKED, or --max-unpacked of a program), the file is refused.
"""

import codecs
import contextlib
import errno
import hashlib
import json
import math
import mmap
import os
import pickle
import pickletools
import re
import secrets
import stat
import struct
import tokenize
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.locks import has_ended, is_locked, is_same_file, lock

MAX_JSON_BYTES = 64 * 2**20
MAX_TEXT_BYTES = 256 * 2**20
MAX_UNPACKED = 10**9  # most bytes of memory at once for one file that is smaller itself
MAX_EXPANSION = 16  # of a pickle: Python objects are larger than their text, in real data by less than this factor


def check_regular(path, what: str = "file") -> int:
    """The size of a file in bytes; UserError when it is missing, or a folder, a pipe or a device. what: expected kind."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such {what}") from None
    except ValueError:  # a zero byte in the name
        raise UserError(f"{str(path)!r}: cannot be the name of a file") from None
    if stat.S_ISDIR(found.st_mode):
        raise UserError(f"{path}: is a folder; give the name of a file")
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path}: is a pipe or a device; give a file (write what the pipe holds to one first)")
    return found.st_size


def check_unpacked(place, size: int, stored: int, limit: int = MAX_UNPACKED) -> None:
    """UserError when `size`, the bytes that a file of `stored` bytes would need in memory, exceeds both `stored` and `limit`."""
    if size > max(limit, stored):
        raise UserError(
            f"{place}: it would need {size / 1e9:.1f} GB of memory, from a file of {stored / 1e6:.3g} MB; the limit is "
            f"{limit / 1e9:.3g} GB, so it is not read (programs that read your files have --max-unpacked)"
        )


_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # a surrogate in JSON, also as half of a valid pair


def check_text(text: str, place) -> None:
    """UserError when text has half a character (a lone surrogate), which cannot be written to a file."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        shown = text[max(error.start - 20, 0) : error.start + 20].encode("ascii", "backslashreplace").decode()
        raise UserError(f"{place}: it has half a character (a lone surrogate) near {shown!r}; rename it") from None


def read_text(path, limit: int = MAX_TEXT_BYTES) -> str:
    """The text of a file in UTF-8, with or without a byte order mark, or in UTF-16 with one; UserError when it is not a
    regular file, larger than `limit` bytes, or not text."""
    size = check_regular(path)
    if size > limit:
        raise UserError(f"{path}: {size} bytes are too many for a text file of this kind (at most {limit})")
    content = Path(path).read_bytes()
    try:
        return content.decode("utf-16" if content.startswith(_UTF16_MARKS) else "utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None


class _ArrayType:
    """Replaces numpy.ndarray in a pickle, where it is only an argument: calling the real one would allocate memory."""


def _reconstruct(kind, shape, code) -> np.ndarray:
    """The empty array with which unpickling of an array begins; its content is set with its state."""
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _bytes_of(kind):
    """A replacement for bytes or bytearray that only takes content: called with a number they would allocate it in bytes."""

    def make(content=b"", *rest):
        if isinstance(content, int):
            raise UserError(f"it asks for {content} empty bytes, which no data set needs; it may be malicious")
        return kind(content, *rest)

    return make


def _encode(text: str, codec: str = "utf-8", errors: str = "strict") -> bytes:
    """Replaces _codecs.encode, with which protocol 2 stores bytes as text."""
    if codec not in ("latin1", "latin-1", "utf-8", "utf8", "ascii"):
        raise UserError(
            f"it asks for the codec {codec!r}, which no data set needs; it is not read (it may be malicious)"
        )
    return text.encode(codec, errors)


NUMPY_PARTS = (
    np._core if hasattr(getattr(np, "_core", None), "multiarray") else np.core
)  # before NumPy 2, _core is a stub
# All that a pickle of numbers, names and arrays needs; nothing here runs code or allocates more than the pickle holds.
_SAFE_GLOBALS = {
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "bytes"): _bytes_of(bytes),
    ("builtins", "bytearray"): _bytes_of(bytearray),
    ("builtins", "complex"): complex,
}
for _core in ("numpy._core", "numpy.core"):
    _SAFE_GLOBALS[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _SAFE_GLOBALS[f"{_core}.multiarray", "scalar"] = NUMPY_PARTS.multiarray.scalar
    _SAFE_GLOBALS[f"{_core}.numeric", "_frombuffer"] = NUMPY_PARTS.numeric._frombuffer


class _SafeUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        module = "builtins" if module == "__builtin__" else module  # its name before protocol 3
        if (module, name) not in _SAFE_GLOBALS:
            raise UserError(
                f"it asks to import {module}.{name}, which no data set needs; it is not read (it may be malicious)"
            )
        return _SAFE_GLOBALS[module, name]


_BYTES_MADE = dict.fromkeys("]})tlduGIKMJLFUVTXBC\x85\x86\x87\x8a\x8b\x8c\x8d\x8e", 64) | {"\x8f": 216, "\x91": 216}


def _opcodes(data):
    """Yields (opcode, argument) of each step of a pickle; skips text of Python 2 that is not ASCII."""
    while True:
        try:
            yield from ((opcode, argument) for opcode, argument, _ in pickletools.genops(data))
            return
        except UnicodeDecodeError:  # raised after the text was read: continue with the next opcode
            continue


def _refuse_memory_bombs(file, size: int, limit: int) -> None:
    """UserError when the pickle would need more memory than `check_unpacked` allows. Two ways: a memo index, since the
    unpickler's memo table is as long as the largest index, so that six bytes can ask for many gigabytes; and the objects
    that it makes, since one byte can make an object of 216 bytes. ValueError when it is not a pickle."""
    if not size:
        return
    made, most = size, max(limit, MAX_EXPANSION * size)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        data.seek(file.tell())
        for opcode, argument in _opcodes(data):
            made += _BYTES_MADE.get(opcode.code, 0)
            if opcode.name in ("PUT", "LONG_BINPUT") and argument > size:
                raise UserError("it has a memo index larger than the file; it is damaged or malicious")
            if made > most:
                check_unpacked("the pickle", made, size, limit)


def load_pickle(path, limit: int = MAX_UNPACKED, start: int = 0) -> object:
    """The object in a pickle of plain data (lists, dicts, numbers, strings, NumPy arrays) that begins at byte `start`.

    UserError, with the path, when the file is missing, is not a pickle, is cut short, asks to import anything that plain
    data does not need, or needs more memory than the limit and its own size."""
    path = Path(path)
    size = check_regular(path)
    try:
        with open(path, "rb") as file:
            file.seek(start)
            _refuse_memory_bombs(file, size, limit)
            return _SafeUnpickler(file, encoding="latin1").load()
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError:
        raise
    except MemoryError:
        raise UserError(
            f"{path}: the pickle asks for more memory than there is; it is damaged or not a data set"
        ) from None
    except Exception as error:  # the C unpickler can raise almost anything for a hostile or cut pickle
        what = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: not a readable pickle ({type(error).__name__}: {what})") from None


def load_json(path) -> object:
    """The content of a JSON file; UserError with path and line when it is missing, too large or malformed, or has half a
    character."""
    text = read_text(path, MAX_JSON_BYTES)
    try:
        value = json.loads(text)
        if _HALF.search(text):
            check_text(json.dumps(value, ensure_ascii=False), path)
        return value
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from None
    except ValueError as error:  # a whole number with thousands of digits
        raise UserError(f"{path}: not valid JSON ({str(error)[:80]})") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply for a JSON description") from None


# -- arrays -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def reading_archive(path, what: str = ".npz file"):
    """Turns what the zip and array readers raise for a damaged archive into a UserError with the path. what: expected kind."""
    damaged = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError)
    try:
        yield
    except (*damaged, OverflowError, MemoryError) as error:
        raise UserError(f"{path}: not a readable {what} ({str(error)[:100]}); download it again") from None
    except OSError as error:
        if error.errno not in (
            errno.EINVAL,
            None,
        ):  # EINVAL: a position outside the file; anything else is an error of the disk
            raise
        raise UserError(f"{path}: not a readable {what}; download it again") from None


def read_npy_header(file) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, Fortran order, dtype) of the .npy that begins at the position of `file`, which then is at its first value;
    ValueError or EOFError for anything else."""
    try:
        if np.lib.format.read_magic(file) == (1, 0):
            return np.lib.format.read_array_header_1_0(file)
        return np.lib.format.read_array_header_2_0(file)
    except (tokenize.TokenError, SyntaxError) as error:  # NumPy tries to read a damaged header as one of Python 2
        raise ValueError(f"a damaged header ({str(error)[:60]})") from None


def _read_array(file, size: int, place, stored: int, limit: int) -> np.ndarray:
    """The array of a .npy of `size` bytes that begins at the position of `file`; ValueError or EOFError for anything else."""
    begin = file.tell()
    shape, fortran, dtype = read_npy_header(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, expected numbers")
    if any(n < 0 for n in shape):
        raise ValueError(f"a header with the shape {shape}")
    need = math.prod(shape) * dtype.itemsize
    if need > size - (file.tell() - begin):
        raise EOFError(f"its header says {need} bytes, {size - (file.tell() - begin)} are there")
    check_unpacked(place, need, stored, limit)
    array = np.empty(shape, dtype, order="F" if fortran else "C")
    if need:
        into = memoryview(array.reshape(-1, order="A").view(np.uint8))
        while into:
            if not (got := file.readinto(into)):
                raise EOFError("it is cut short")
            into = into[got:]
    return array


def read_npy(path, limit: int = MAX_UNPACKED) -> np.ndarray:
    """The array of a .npy file. UserError when it is not a regular file, not a .npy, cut short, or holds Python objects."""
    size = check_regular(path)
    try:
        with open(path, "rb") as file:
            return _read_array(file, size, path, size, limit)
    except (ValueError, EOFError, MemoryError, OverflowError, TypeError) as error:
        raise UserError(f"{path}: not a readable .npy array ({str(error)[:100]})") from None


def map_npy(path, what: str = "numbers") -> np.ndarray:
    """The array of a .npy file as a read-only memory map; UserError as for `read_npy`. what: expected content."""
    check_regular(path)
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise ValueError("it is an .npz")
        return array
    except OSError:
        raise
    except Exception as error:
        raise UserError(f"{path}: not a readable .npy file of {what} ({str(error)[:120]})") from None


class ArrayArchive:
    """The arrays of an .npz by name, each read on request; a context manager.

    names: of the arrays, in the archive's order. together: whether all of them will be in memory at once, so that the limit
    applies to their sum; what: expected kind, for messages. UserError when it is not a regular file or not a zip archive,
    or two arrays have the same name."""

    def __init__(self, path, limit: int = MAX_UNPACKED, together: bool = False, what: str = ".npz file"):
        self.path, self.limit, self._what = Path(path), limit, what
        self._size = check_regular(path, what)
        with reading_archive(path, what):
            self._zip = zipfile.ZipFile(path)
        try:
            members = [i for i in self._zip.infolist() if i.filename.endswith(".npy") and not i.is_dir()]
            self._members = {info.filename.removesuffix(".npy"): info for info in members}
            if len(self._members) != len(members):
                raise UserError(f"{path}: two arrays in it have the same name")
            if together:
                check_unpacked(path, sum(info.file_size for info in members), self._size, limit)
        except UserError:
            self.close()
            raise
        self.names = list(self._members)

    def __enter__(self) -> "ArrayArchive":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def close(self) -> None:
        self._zip.close()

    def header(self, name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
        """(shape, Fortran order, dtype) from an array's header; UserError when it is missing or not an array."""
        with self._open(name) as file:
            return read_npy_header(file)

    def size(self, name: str) -> int:
        """Bytes of an array after decompression."""
        return self._members[name].file_size

    def rows(self, name: str) -> Iterator[np.ndarray]:
        """Yields the rows (first axis) of an array in C order, one in memory at a time; UserError as for `read`; a wrong
        checksum is noticed after the last row."""
        with self._open(name) as file:
            shape, _, dtype = read_npy_header(file)
            row = math.prod(shape[1:]) * dtype.itemsize
            check_unpacked(f"{self.path}:{name}", row, self._size, self.limit)
            if shape[0] * row != self.size(name) - file.tell():
                raise UserError(
                    f"{self.path}: {name} holds {self.size(name) - file.tell()} bytes, its header says {shape[0] * row}"
                )
            for _ in range(shape[0]):
                yield np.frombuffer(file.read(row), dtype).reshape(shape[1:])
            file.read()

    def read(self, name: str) -> np.ndarray:
        """An array, verified by the archive's checksum; UserError when it is missing, damaged, larger than the limit, or
        holds Python objects."""
        with self._open(name) as file:
            info = self._members[name]
            check_unpacked(f"{self.path}:{name}", info.file_size, self._size, self.limit)
            array = _read_array(file, info.file_size, f"{self.path}:{name}", self._size, self.limit)
            file.read()  # to the end, where zipfile compares the checksum
            return array

    @contextlib.contextmanager
    def _open(self, name: str):
        if name not in self._members:
            raise UserError(f"{self.path}:{name}: there is no such array")
        with reading_archive(f"{self.path}:{name}", self._what), self._zip.open(self._members[name]) as file:
            yield file


def flush_to_disk(path) -> None:
    """Flushes a file (or, for a folder, its list of names) to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def temporary_name(path) -> Path:
    """An unused name beside `path`; it ends in `.tmp`, so that it is never taken for a finished file."""
    path = Path(path)
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def remove_leftovers(folder) -> None:
    """Removes temporary files that killed processes left in a folder. Those of running processes stay: they are locked
    (`atomic_write`), or the process id in their name is that of another running process on this machine."""
    for path in Path(folder).glob(".*.tmp"):
        if path.is_file() and not _maker_runs(path) and not is_locked(path):
            path.unlink(missing_ok=True)


def _maker_runs(temporary: Path) -> bool:
    """Whether the process that made the temporary name may still run on this machine. False for this process, since an
    earlier one may have had its id."""
    pid = temporary.name.split(".")[-3] if temporary.name.count(".") > 3 else ""
    return pid.isdecimal() and int(pid) != os.getpid() and not has_ended(int(pid))


def open_temporary(path, mode: str, **more):
    """Opens a new temporary file and locks it, so that `remove_leftovers` of another process keeps it."""
    while True:
        file = open(path, mode, **more)
        try:
            if lock(file) is None or is_same_file(file, path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


@contextlib.contextmanager
def atomic_write(path, mode: str = "wb"):
    """A file object whose content appears under `path` when the block ends without an error, otherwise not at all."""
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
    with contextlib.suppress(OSError):  # some file systems cannot flush a folder; the rename is done anyway
        flush_to_disk(path.parent)


def write_json(path, value) -> None:
    """Writes `value` as indented JSON, completely or not at all."""
    with atomic_write(path, "w") as file:
        json.dump(value, file, indent=2, sort_keys=False, allow_nan=False)
        file.write("\n")


def save_npy(file, array: np.ndarray) -> None:
    """Writes a .npy to an open file, or to a path, completely or not at all. A full disk raises an OSError with its errno,
    which NumPy's own writer does not."""
    if not hasattr(file, "write"):
        with atomic_write(file) as opened:
            save_npy(opened, array)
        return
    array = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    file.write(array.reshape(-1).view(np.uint8).data if array.size else b"")


def dump_pickle(value) -> bytes:
    """A pickle of plain data with protocol 4, which every supported Python reads."""
    return pickle.dumps(value, protocol=4)


def sha256(path, block: int = 2**22) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(block):
            digest.update(chunk)
    return digest.hexdigest()
