"""The cache of packed clips: the packed frames of a split in one file, which is made once and is never incomplete.

A file is an .npy of the frames followed by `TRAILER` bytes of JSON: its source, split and key, the checksum of all
coordinates, and a checksum of the header and of sampled blocks, which is compared whenever it is opened. The key, which is
part of the file's name, is a checksum of the content: of all names, labels and frame counts, and of size, time and sampled
blocks of the source's coordinates (utils.fingerprint). So data sets can share a cache folder, and equal ones a file.

If several processes need a file that does not exist, one makes it and the others wait. Temporary files that a killed process
has left for this file are removed, and so are older files of the same source; files of other data sets are not touched.
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

VERSION = 3  # increased when the order of a packed frame or the file format changes, so that caches are made again
TRAILER = 4096  # bytes


@dataclass(frozen=True)
class Packing:
    """The input of packing: the opened split; offsets (N + 1,): first row of each kept clip, and F; shape (F, V, C, M)."""

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
        """Copies the valid frames of every kept clip to out (F, V, C, M); returns their checksum. UserError, with the clip's
        name, for NaN and infinities."""
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
    """The packed frames (F, V, C, M) float32 and their checksum: from the cache, which is written if needed, or packed in
    memory, if the folder beside the arrays is not writable. cache_dir: the folder; None: beside the arrays."""
    split = packing.split
    folder = Path(cache_dir) if cache_dir is not None else split.folder / ".packed"
    key = packing.key()
    target = folder / f"{split.split}-{key}.npy"
    found = _open(target, key, packing.shape)
    if found is not None:
        return found
    with contextlib.ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            locked = stack.enter_context(_lock(folder / f".{target.name}.lock", f"{split.split} of {split.folder}"))
        except OSError as error:
            if cache_dir is not None:
                raise
            print(f"note: cannot cache packed clips in {folder} ({error.strerror}); packing in memory", file=sys.stderr)
            packed = np.empty(packing.shape, dtype=np.float32)
            return packed, packing.fill(packed)
        found = _open(target, key, packing.shape)  # another process has made it meanwhile
        if found is None:
            for leftover in folder.glob(f".{target.name}.*.tmp") if locked else ():
                leftover.unlink(missing_ok=True)
            found = _make(target, key, packing)
            _remove_older(folder, target, split, beside=cache_dir is None)
        return found


@contextlib.contextmanager
def _lock(path: Path, what: str):
    """A context that one process at a time can enter; prints a note if it has to wait. Its value: whether the lock is held,
    False on file systems without locks. OSError if the folder is not writable."""
    handle, got = open_locked(path)
    if got is False:
        os.close(handle)
        print(f"note: another process is packing {what}; waiting for it", file=sys.stderr)
        handle, got = open_locked(path, wait=True)
    try:
        yield got is True
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def _make(target: Path, key: str, packing: Packing) -> tuple[np.ndarray, str]:
    """Packs into a temporary file and renames it to `target` once it is complete and on the disk."""
    temporary = temporary_name(target)
    try:
        with open_temporary(temporary, "w+b") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": packing.shape}
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
            stop = start + 4 * int(np.prod(packing.shape))
            # Reserve the space first: writing a memory map of a sparse file on a full disk would kill the process.
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
        found = _open(temporary, key, packing.shape)  # before the renaming: from then on others might remove it
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(target)
        raise
    if found is None:
        raise UserError(f"{target}: the file read back is not the one that was written; the disk may be damaged")
    return found


def _source(split: Split) -> str:
    """Checksum of the absolute path of the source."""
    return checksum(split.folder.resolve())


def _about(file) -> dict | None:
    """The trailer of an open cache file, or None for a file without one."""
    size = os.fstat(file.fileno()).st_size
    try:
        about = json.loads(os.pread(file.fileno(), TRAILER, max(size - TRAILER, 0)))
    except ValueError:
        return None
    return about if isinstance(about, dict) else None


def _open(path: Path, key: str, shape) -> tuple[np.ndarray, str] | None:
    """The frames in a cache file and their checksum, or None if it is missing, damaged or of other content."""
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
    """Removes other cache files of the same source and split. beside: the folder belongs to the source, so that files of
    older versions, which do not say their source, are removed, too."""
    for path in folder.glob(f"{split.split}-*.npy"):
        if path == target:
            continue
        with contextlib.suppress(OSError):
            with open(path, "rb") as file:
                about = _about(file)
            same = about is not None and (about.get("source"), about.get("split")) == (_source(split), split.split)
            if same or (beside and about is None):
                path.unlink(missing_ok=True)
