"""The packed cache: the packed frames of a split in one file, made once, whole or not there.

A file is an .npy of the frames and, after them, `TRAILER` bytes of JSON: what it was made of (source, split, key), the
checksum of all its coordinates, and one of its header and of sampled blocks, which is compared at every opening. Its
key, which is in the name, is the content's: names, labels and frame counts whole, coordinates by size, time and sampled
blocks of the source (utils.fingerprint). So data sets may share a folder, and equal ones a file.

Of several processes that want a file that is not there, one packs it and the others wait for it. Removed are: what a killed
process has left of this very file, and older files of the same source; nothing of other data sets.
"""

import contextlib
import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.arrays import Split, split_files
from utils.errors import UserError
from utils.files import open_temporary, temporary_name
from utils.fingerprint import checksum, sampled
from utils.locks import open_locked

VERSION = 3  # raised when the order of a packed frame or the file changes, so that older caches are made again
TRAILER = 4096


@dataclass(frozen=True)
class Packing:
    """What is to be packed: the opened split, the first row of each kept clip (N + 1,), the shape (F, V, C, M)."""

    split: Split
    offsets: np.ndarray
    shape: tuple[int, int, int, int]
    quiet: bool

    def key(self) -> str:
        """Checksum of the content, as the module docstring says."""
        split = self.split
        with open(split_files(split.folder, split.split)[0], "rb") as file:
            stat = os.fstat(file.fileno())
            coordinates = (stat.st_size, stat.st_mtime_ns, sampled(file.fileno(), 0, stat.st_size))
        labels, counts = (np.asarray(a, dtype="<i8").tobytes() for a in (split.labels, split.num_frame))
        return checksum(VERSION, self.shape, "\n".join(split.names), labels, counts, *coordinates)

    def fill(self, out: np.ndarray) -> str:
        """Copies the valid frames of every kept clip into out (F, V, C, M); returns the checksum of all of them.

        UserError for NaN and infinities, with the clip's name."""
        split, digest = self.split, hashlib.sha256()
        quiet = self.quiet or len(split.kept) < 2000
        for k, i in enumerate(tqdm(split.kept, desc=f"packing {split.split}", unit="clip", disable=quiet)):
            n = split.num_frame[i]
            clip = np.asarray(split.data[i, :, :n])
            if not np.isfinite(clip).all():
                frame = int(np.flatnonzero(~np.isfinite(clip).all(axis=(0, 2, 3)))[0])
                raise UserError(
                    f"{split.folder}: clip {split.names[i]} of {split.split} has a coordinate that is not finite "
                    f"(frame {frame}); prepare the data again without it"
                )
            rows = out[self.offsets[k] : self.offsets[k] + n]
            rows[...] = clip.transpose(1, 2, 0, 3)
            digest.update(rows)
        return digest.hexdigest()[:16]


def packed_frames(packing: Packing, cache_dir) -> tuple[np.ndarray, str]:
    """The packed frames (F, V, C, M) float32 and the checksum of them: from the cache, made into the cache, or, where
    nothing can be written beside the arrays, in memory. cache_dir: the folder, None = beside the arrays."""
    split = packing.split
    folder = Path(cache_dir) if cache_dir is not None else split.folder / ".packed"
    key = packing.key()
    target = folder / f"{split.split}-{key}.npy"
    found = _open(target, key, packing.shape)
    if found is not None:
        return found
    with contextlib.ExitStack() as turn:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            alone = turn.enter_context(_turn(folder / f".{target.name}.lock", f"{split.split} of {split.folder}"))
        except OSError as error:
            if cache_dir is not None:
                raise
            print(f"note: cannot cache packed clips in {folder} ({error.strerror}); packing in memory", file=sys.stderr)
            packed = np.empty(packing.shape, dtype=np.float32)
            return packed, packing.fill(packed)
        found = _open(target, key, packing.shape)  # another process has made it meanwhile
        if found is None:
            for leftover in folder.glob(f".{target.name}.*.tmp") if alone else ():
                leftover.unlink(missing_ok=True)
            found = _make(target, key, packing)
            _remove_older(folder, target, split, beside=cache_dir is None)
        return found


@contextlib.contextmanager
def _turn(path: Path, what: str):
    """A block that one process at a time is in; says so where it has to wait. Its value: whether there are locks, so that
    no other process can be in it. OSError on entering where the folder is not writable."""
    handle, got = open_locked(path)
    if got is False:
        os.close(handle)
        print(f"note: another process packs {what}; waiting for it", file=sys.stderr)
        handle, got = open_locked(path, wait=True)
    try:
        yield got is True
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def _make(target: Path, key: str, packing: Packing) -> tuple[np.ndarray, str]:
    """Packs into a temporary file and gives it its name once it is whole and on the disk."""
    temporary = temporary_name(target)
    try:
        with open_temporary(temporary, "w+b") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": packing.shape}
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
            stop = start + 4 * int(np.prod(packing.shape))
            # A sparse file on a full disk kills the process when it is filled through the map: reserve the space first.
            file.truncate(stop + TRAILER)
            with contextlib.suppress(AttributeError):
                os.posix_fallocate(file.fileno(), 0, stop + TRAILER)
            packed = np.memmap(file, np.float32, "r+", start, packing.shape)
            coordinates = packing.fill(packed)
            packed.flush()
            about = {"version": VERSION, "key": key, "coordinates": coordinates}
            about |= {"source": _source(packing.split), "split": packing.split.split}
            about["check"] = sampled(file.fileno(), 0, start) + sampled(file.fileno(), start, stop)
            file.seek(stop)
            file.write(json.dumps(about).ljust(TRAILER).encode())
            file.flush()
            os.fsync(file.fileno())
            del packed
        found = _open(temporary, key, packing.shape)  # before it has its name: nobody can take it away from here
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(target)
        raise
    if found is None:
        raise UserError(f"{target}: what was written there is not what is read; the disk may be damaged")
    return found


def _source(split: Split) -> str:
    """Checksum of the absolute path of the source."""
    return checksum(split.folder.resolve())


def _about(file) -> dict | None:
    """What the trailer of an open cache says, None for a file without one."""
    size = os.fstat(file.fileno()).st_size
    try:
        about = json.loads(os.pread(file.fileno(), TRAILER, max(size - TRAILER, 0)))
    except ValueError:
        return None
    return about if isinstance(about, dict) else None


def _open(path: Path, key: str, shape) -> tuple[np.ndarray, str] | None:
    """The frames in a cache and the checksum of them, or None where it is missing, of other content, or damaged."""
    try:
        with open(path, "rb") as file:
            np.lib.format.read_magic(file)
            found, _, dtype = np.lib.format.read_array_header_1_0(file)
            start, about = file.tell(), _about(file)
            stop = start + 4 * int(np.prod(shape))
            if (found, dtype) != (tuple(shape), np.dtype("<f4")) or about is None or about.get("key") != key:
                return None
            if os.fstat(file.fileno()).st_size != stop + TRAILER or not isinstance(about.get("coordinates"), str):
                return None
            if about.get("check") != sampled(file.fileno(), 0, start) + sampled(file.fileno(), start, stop):
                return None
            return np.memmap(file, np.float32, "c", start, tuple(shape)), about["coordinates"]
    except (ValueError, OSError):
        return None


def _remove_older(folder: Path, target: Path, split: Split, beside: bool) -> None:
    """Removes other packed files of the same source and split. beside: the folder is the source's own, where files of older
    versions, which do not say their source, are its own as well."""
    for path in folder.glob(f"{split.split}-*.npy"):
        if path == target:
            continue
        with contextlib.suppress(OSError):
            with open(path, "rb") as file:
                about = _about(file)
            same = about is not None and (about.get("source"), about.get("split")) == (_source(split), split.split)
            if same or (beside and about is None):
                path.unlink(missing_ok=True)
