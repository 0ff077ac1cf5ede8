"""Files: written whole or not at all, and read without trusting them.

* `atomic_write` writes to a temporary name beside the target, flushes it to the disk and renames it: whoever looks at
  the target sees the old file or the new one, never half of one.
* `check_regular` is the door of everything that is read: a pipe or a device, which would be waited for without end, is
  refused, and so is a folder.
* `read_text` and `load_json` read bounded UTF-8 text, with or without a byte order mark (UTF-16 where a mark says so).
* `load_pickle` reads the pickles that data sets ship without running what is inside: only builtin containers, numbers,
  strings and numpy arrays are rebuilt, anything else is refused by name.
* `read_npy`, `map_npy` and `ArrayArchive` read .npy files and the arrays of an .npz.

A small file can ask for much memory: a zip archive packs zeros a thousandfold, the header of an array or a few bytes of a
pickle name any size. What a file declares is looked at before anything is unpacked. More than the size of the file itself
and more than a limit (MAX_UNPACKED, or what a program's --max-unpacked says) is refused; what is stored as it is, is as
large as it looks and needs no limit.
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
MAX_UNPACKED = 10**9  # bytes in memory at once that one file may ask for where it is smaller itself
MAX_EXPANSION = 16  # of a pickle: Python's objects are larger than their text, but not more than this for honest data


def check_regular(path, what: str = "file") -> int:
    """The size of a file in bytes; UserError when there is none, or it is a folder, a pipe or a device. what: was expected."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such {what}") from None
    except ValueError:  # a zero byte within the name
        raise UserError(f"{str(path)!r}: cannot be the name of a file") from None
    if stat.S_ISDIR(found.st_mode):
        raise UserError(f"{path}: is a folder; give the name of a file")
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path}: is a pipe or a device; give a file (write what the pipe holds to one first)")
    return found.st_size


def check_unpacked(place, size: int, stored: int, limit: int = MAX_UNPACKED) -> None:
    """UserError when `size` bytes, which a file of `stored` bytes declares, are more than the file and than the limit."""
    if size > max(limit, stored):
        raise UserError(
            f"{place}: it would need {size / 1e9:.1f} GB of memory, from a file of {stored / 1e6:.3g} MB; the limit is "
            f"{limit / 1e9:.3g} GB (--max-unpacked of the programs that read your files), so it is not read"
        )


_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_HALF = re.compile(r"\\u[dD][89a-fA-F]")  # a surrogate in JSON, whole characters of two among them


def check_text(text: str, place) -> None:
    """UserError when text holds half a character (a lone surrogate), which can be written to no file."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        shown = text[max(error.start - 20, 0) : error.start + 20].encode("ascii", "backslashreplace").decode()
        raise UserError(f"{place}: it holds half a character, a lone surrogate, near {shown!r}; rename it") from None


def read_text(path, limit: int = MAX_TEXT_BYTES) -> str:
    """The text of a file in UTF-8, with or without its byte order mark, or in UTF-16 with one; UserError when it is no regular
    file, larger than `limit`, or no text."""
    size = check_regular(path)
    if size > limit:
        raise UserError(f"{path}: {size} bytes are too many for a text file of this kind (at most {limit})")
    content = Path(path).read_bytes()
    try:
        return content.decode("utf-16" if content.startswith(_UTF16_MARKS) else "utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text") from None


class _ArrayType:
    """Stands for numpy.ndarray while a pickle is read, which only names it: called with a shape it would ask for memory."""


def _reconstruct(kind, shape, code) -> np.ndarray:
    """The empty array that a pickled array begins as; its content comes with its state."""
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _bytes_of(kind):
    """bytes or bytearray made of what the pickle holds itself; a number would ask for that many bytes."""

    def make(content=b"", *rest):
        if isinstance(content, int):
            raise UserError(f"it asks for {content} empty bytes, which data never needs; it may be malicious")
        return kind(content, *rest)

    return make


def _encode(text: str, codec: str = "utf-8", errors: str = "strict") -> bytes:
    """How protocol 2 keeps bytes: as text of as many characters."""
    if codec not in ("latin1", "latin-1", "utf-8", "utf8", "ascii"):
        raise UserError(
            f"it asks for the codec {codec!r}, which data never needs; it is not read (it may be malicious)"
        )
    return text.encode(codec, errors)


NUMPY_PARTS = (
    np._core if hasattr(getattr(np, "_core", None), "multiarray") else np.core
)  # before NumPy 2, _core is a stub
# What a pickle of numbers, names and arrays needs, and nothing that can act or ask for more than the pickle holds.
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
        module = "builtins" if module == "__builtin__" else module  # its name in the protocols before 3
        if (module, name) not in _SAFE_GLOBALS:
            raise UserError(
                f"it asks to import {module}.{name}, which data never needs; it is not read (it may be malicious)"
            )
        return _SAFE_GLOBALS[module, name]


_BYTES_MADE = dict.fromkeys("]})tlduGIKMJLFUVTXBC\x85\x86\x87\x8a\x8b\x8c\x8d\x8e", 64) | {"\x8f": 216, "\x91": 216}


def _opcodes(data):
    """(opcode, argument) of each step of a pickle; a text that Python 2 wrote and that is not ASCII is passed over."""
    while True:
        try:
            yield from ((opcode, argument) for opcode, argument, _ in pickletools.genops(data))
            return
        except UnicodeDecodeError:  # raised after the text was read: the next opcode follows
            continue


def _refuse_memory_bombs(file, size: int, limit: int) -> None:
    """UserError when the pickle would need more memory than `check_unpacked` allows: by a number under which it stores,
    since Python's unpickler keeps what is stored in a table as long as the largest number, so that six bytes can ask for
    many gigabytes; or by the objects that it makes, of which one byte can make one of 216 bytes. ValueError where it is
    no pickle."""
    if not size:
        return
    made, most = size, max(limit, MAX_EXPANSION * size)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        data.seek(file.tell())
        for opcode, argument in _opcodes(data):
            made += _BYTES_MADE.get(opcode.code, 0)
            if opcode.name in ("PUT", "LONG_BINPUT") and argument > size:
                raise UserError("it stores things under numbers that only a damaged or malicious file holds")
            if made > most:
                check_unpacked("the pickle", made, size, limit)


def load_pickle(path, limit: int = MAX_UNPACKED, start: int = 0) -> object:
    """The object in a pickle of plain data (lists, dicts, numbers, strings, numpy arrays), which begins at byte `start`.

    Raises UserError, with the path, when the file is missing, is no pickle, is cut short, asks to import anything
    that plain data does not need, or for more memory than the limit and its own size allow."""
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
            f"{path}: the pickle asks for more memory than there is; it is damaged or not a data file"
        ) from None
    except Exception as error:  # a hostile or cut pickle can raise almost anything from inside the C unpickler
        what = " ".join(str(error).split())[:120]
        raise UserError(f"{path}: not a readable pickle ({type(error).__name__}: {what})") from None


def load_json(path) -> object:
    """The content of a JSON file; UserError with path and line when it is missing, too large or malformed, or holds half a
    character."""
    text = read_text(path, MAX_JSON_BYTES)
    try:
        value = json.loads(text)
        if _HALF.search(text):
            check_text(json.dumps(value, ensure_ascii=False), path)
        return value
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from None
    except ValueError as error:  # a whole number of thousands of digits
        raise UserError(f"{path}: not valid JSON ({str(error)[:80]})") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply for a JSON description") from None


# -- arrays -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def reading_archive(path, what: str = ".npz file"):
    """What a damaged zip archive makes the zip and array readers raise, as one UserError with the path. what: was expected."""
    damaged = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError)
    try:
        yield
    except (*damaged, OverflowError, MemoryError) as error:
        raise UserError(f"{path}: not a readable {what} ({str(error)[:100]}); download it again") from None
    except OSError as error:
        if error.errno not in (errno.EINVAL, None):  # a place outside the file; anything else is the disk's
            raise
        raise UserError(f"{path}: not a readable {what}; download it again") from None


def read_npy_header(file) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, Fortran order, dtype) of the .npy that begins at `file`, which is left at its first value; ValueError or
    EOFError when there is none."""
    try:
        if np.lib.format.read_magic(file) == (1, 0):
            return np.lib.format.read_array_header_1_0(file)
        return np.lib.format.read_array_header_2_0(file)
    except (tokenize.TokenError, SyntaxError) as error:  # numpy reads a damaged header as if Python 2 had written it
        raise ValueError(f"a damaged header ({str(error)[:60]})") from None


def _read_array(file, size: int, place, stored: int, limit: int) -> np.ndarray:
    """The array of a .npy of `size` bytes that begins at `file`; ValueError or EOFError when there is none."""
    begin = file.tell()
    shape, fortran, dtype = read_npy_header(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read")
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
    """The array of a .npy file. UserError when it is no regular file, no .npy, cut short, or one of Python objects."""
    size = check_regular(path)
    try:
        with open(path, "rb") as file:
            return _read_array(file, size, path, size, limit)
    except (ValueError, EOFError, MemoryError, OverflowError, TypeError) as error:
        raise UserError(f"{path}: not a readable .npy array ({str(error)[:100]})") from None


def map_npy(path, what: str = "numbers") -> np.ndarray:
    """The array of a .npy file as a read-only memory map; UserError as `read_npy`."""
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
    """The arrays of an .npz by name, each read when it is asked for; a context manager.

    names: of the arrays, in the archive's order. together: whether all of them will be in memory at once, so that the limit
    is for their sum; what: was expected, for messages. UserError when it is no regular file or no zip archive, or two
    arrays have one name."""

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
        """(shape, Fortran order, dtype) that an array's header says; UserError when it is missing or no array."""
        with self._open(name) as file:
            return read_npy_header(file)

    def size(self, name: str) -> int:
        """Bytes of an array that is not compressed."""
        return self._members[name].file_size

    def rows(self, name: str) -> Iterator[np.ndarray]:
        """The rows (its first axis) of an array in C order, one in memory at a time; UserError as `read`, that the checksum
        does not agree after the last."""
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
        """An array, whose bytes agree with the archive's checksum; UserError when it is missing, damaged, or one of Python
        objects, or larger than the limit."""
        with self._open(name) as file:
            info = self._members[name]
            check_unpacked(f"{self.path}:{name}", info.file_size, self._size, self.limit)
            array = _read_array(file, info.file_size, f"{self.path}:{name}", self._size, self.limit)
            file.read()  # to the end, where the checksum is compared
            return array

    @contextlib.contextmanager
    def _open(self, name: str):
        if name not in self._members:
            raise UserError(f"{self.path}:{name}: there is no such array")
        with reading_archive(f"{self.path}:{name}", self._what), self._zip.open(self._members[name]) as file:
            yield file


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


def remove_leftovers(folder) -> None:
    """Removes temporary files that killed processes have left in a folder. Those that a living process writes stay: it has
    locked them (`atomic_write`), or its number, which is in the name, is that of another process of this machine."""
    for path in Path(folder).glob(".*.tmp"):
        if path.is_file() and not _maker_runs(path) and not is_locked(path):
            path.unlink(missing_ok=True)


def _maker_runs(temporary: Path) -> bool:
    """Whether the process that made the temporary name may still run here (False for this one, whose number a process
    before it may have had)."""
    pid = temporary.name.split(".")[-3] if temporary.name.count(".") > 3 else ""
    return pid.isdecimal() and int(pid) != os.getpid() and not has_ended(int(pid))


def open_temporary(path, mode: str, **more):
    """Opens a new temporary file, locked, so that `remove_leftovers` of another process takes it for what it is."""
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


def save_npy(file, array: np.ndarray) -> None:
    """Writes a .npy into a file, or whole or not at all under a path. A full disk is an OSError with its number, where
    numpy's own writer only counts what it has written."""
    if not hasattr(file, "write"):
        with atomic_write(file) as opened:
            save_npy(opened, array)
        return
    array = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    file.write(array.reshape(-1).view(np.uint8).data if array.size else b"")


def dump_pickle(value) -> bytes:
    """A pickle of plain data at protocol 4, which every Python that this project supports can read."""
    return pickle.dumps(value, protocol=4)


def sha256(path, block: int = 2**22) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(block):
            digest.update(chunk)
    return digest.hexdigest()
