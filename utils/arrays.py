"""Prepared folders: the array format that every preparation writes and every program reads, memory-mapped.

A split of a protocol folder is three files (N clips, C = 3 coordinates, T frames, V joints, M persons):

    {train,val}_data_joint.npy   float32 (N, 3, T, V, M), read through a memory map
    {train,val}_label.pkl        pickle of (list of N names, list of N class numbers from 0)
    {train,val}_num_frame.npy    integers (N,): raw number of frames; may exceed T (T are valid then) or be 0 (empty)

The sidecar `preparation.json` beside them says how they were made: source, normalisation steps, versions, counts, and
checksums of labels and frame counts. Folders from elsewhere need none; one that contradicts its arrays is refused. Clips
are sorted by name, so that joint, bone and motion runs can be fused by position.

`SplitWriter` writes a split in a `building_folder`; `publish` then renames the finished protocol folder, so that an
incomplete folder is never taken for a complete one.
"""

import contextlib
import hashlib
import math
import os
import platform
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.files import atomic_write, check_text, dump_pickle, load_json, load_pickle, map_npy, save_npy, write_json
from utils.locks import OWNER, Ownership

SIDECAR = "preparation.json"
VERSION = 1  # of the preparation; increased when the same clips would give other arrays
FRAMES = 300  # of the released preparation; a folder may have another number


def split_files(folder, split: str) -> tuple[Path, Path, Path]:
    """Paths of (data, labels, frame counts) of a split."""
    folder = Path(folder)
    return folder / f"{split}_data_joint.npy", folder / f"{split}_label.pkl", folder / f"{split}_num_frame.npy"


@dataclass
class Split:
    """One checked split. data (N, 3, T, V, M) float32, memory-mapped; names: N strings; labels (N,) int64; num_frame (N,)
    int64, at most T; kept: indices of the clips with frames; dropped: names of the others; sidecar: its content or None."""

    folder: Path
    split: str
    data: np.ndarray
    names: list[str]
    labels: np.ndarray
    num_frame: np.ndarray
    kept: np.ndarray
    dropped: list[str] = field(default_factory=list)
    sidecar: dict | None = None

    def __len__(self) -> int:
        return len(self.kept)


def _read_labels(path: Path, num_classes: int | None) -> tuple[list[str], np.ndarray]:
    content = load_pickle(path)
    if not (isinstance(content, (tuple, list)) and len(content) == 2):
        raise UserError(f"{path}: expected a pickle of (names, labels), found {type(content).__name__}")
    names, labels = content
    if not isinstance(names, (list, tuple, np.ndarray)) or not isinstance(labels, (list, tuple, np.ndarray)):
        raise UserError(f"{path}: expected a pickle of (list of names, list of labels)")
    if len(names) != len(labels):
        raise UserError(f"{path}: {len(names)} names but {len(labels)} labels")
    if isinstance(labels, np.ndarray):
        labels = labels.reshape(-1).tolist()
    try:  # one label at a time: nested lists with shared parts can expand to more than the memory
        values = np.array([float(x.item() if isinstance(x, np.ndarray) else x) for x in labels], dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{path}: the labels are not numbers") from None
    if len(values) != len(names):
        raise UserError(f"{path}: expected one label per name, found {len(values)} for {len(names)} names")
    names = [str(name) for name in names]
    bad = np.flatnonzero(~np.isfinite(values) | (values != np.floor(np.where(np.isfinite(values), values, 0.5))))
    if len(bad):
        raise UserError(f"{path}: label {values[bad[0]]} of {names[bad[0]]} is not a whole number")
    bad = np.flatnonzero((values < 0) | (values >= (num_classes or math.inf)))
    if len(bad):
        top = f"0..{num_classes - 1}" if num_classes else "0 or more"
        raise UserError(f"{path}: label {int(values[bad[0]])} of {names[bad[0]]} is out of range; expected {top}")
    return names, values.astype(np.int64)


def check_names(names: list[str], place) -> None:
    """UserError unless the names of clips are text and unique: results, features and predictions are matched by name."""
    check_text("\n".join(names), place)
    if len(set(names)) != len(names):
        counts = Counter(names)
        twice = sorted(name for name in counts if counts[name] > 1)
        raise UserError(
            f"{place}: {len(twice)} names occur more than once, such as {twice[0]!r} {counts[twice[0]]} times; rename the "
            "clips"
        )


def open_split(folder, split: str, joints: int, persons: int, num_classes: int | None = None) -> Split:
    """Opens and checks the three files of a split.

    UserError when a file is missing or unreadable, a shape or type is not that of the format, the files have different
    numbers of clips, a label is not a whole number in 0..num_classes-1, or the sidecar contradicts them. Clips without
    frames are listed in `dropped`. Whether coordinates are finite is checked when frames are read (feeder.clips), so that
    opening is instant."""
    data_file, label_file, frame_file = split_files(folder, split)
    missing = [str(f) for f in (data_file, label_file, frame_file) if not f.is_file()]
    if missing:
        raise UserError(f"{folder}: missing {', '.join(Path(m).name for m in missing)}")
    data = map_npy(data_file, "coordinates")
    if data.dtype != np.float32 or data.ndim != 5 or data.shape[1] != 3:
        raise UserError(
            f"{data_file}: expected float32 of shape (N, 3, T, {joints}, {persons}), found {data.dtype} {data.shape}"
        )
    if data.shape[3] != joints or data.shape[4] != persons:
        raise UserError(
            f"{data_file}: expected {joints} joints and {persons} persons, (N, 3, T, {joints}, {persons}), "
            f"found {data.shape}"
        )
    counts = np.asarray(map_npy(frame_file, "frame counts"))
    if counts.ndim != 1 or not (np.issubdtype(counts.dtype, np.integer) or np.issubdtype(counts.dtype, np.floating)):
        raise UserError(f"{frame_file}: expected whole numbers of shape (N,), found {counts.dtype} {counts.shape}")
    if not (np.isfinite(counts).all() and (counts == np.floor(counts)).all() and (counts >= 0).all()):
        raise UserError(f"{frame_file}: frame counts must be whole numbers, 0 or more")
    names, labels = _read_labels(label_file, num_classes)
    check_names(names, label_file)
    if not len(data) == len(names) == len(counts):
        raise UserError(
            f"{folder}: the {split} files disagree: {len(data)} clips of coordinates, {len(names)} labels, "
            f"{len(counts)} frame counts; they come from different preparations"
        )
    num_frame = np.minimum(counts.astype(np.int64), data.shape[2])
    kept = np.flatnonzero(num_frame > 0)
    if not len(kept):
        raise UserError(f"{folder}: the {split} split has no clip with at least one frame")
    sidecar = _read_sidecar(Path(folder), split, names, labels, counts)
    dropped = [names[i] for i in np.flatnonzero(num_frame == 0)]
    return Split(Path(folder), split, data, names, labels, num_frame, kept, dropped, sidecar)


def fingerprint(names, labels, num_frame) -> str:
    """A short checksum of names, labels and frame counts."""
    digest = hashlib.sha256("\n".join(names).encode())
    digest.update(np.asarray(labels, dtype="<i8").tobytes())
    digest.update(np.asarray(num_frame, dtype="<i8").tobytes())
    return digest.hexdigest()[:16]


def _read_sidecar(folder: Path, split: str, names, labels, counts) -> dict | None:
    path = folder / SIDECAR
    if not path.exists():
        return None
    sidecar = load_json(path)
    entry = sidecar.get("splits", {}).get(split) if isinstance(sidecar, dict) else None
    if not isinstance(entry, dict) or "clips" not in entry or "fingerprint" not in entry:
        raise UserError(f"{path}: it has no entry of the {split} split; prepare the folder again, or remove the file")
    if entry["clips"] != len(names) or entry["fingerprint"] != fingerprint(names, labels, counts):
        raise UserError(
            f"{path}: it describes {entry['clips']} {split} clips with checksum {entry['fingerprint']}, but the arrays "
            "beside it differ; prepare the folder again, or remove the file if you know where the arrays come from"
        )
    return sidecar


@dataclass(frozen=True)
class Rows:
    """Positions of the clips in the .npy file of a split: clip i is the `row_bytes` bytes from offset + i * row_bytes."""

    path: str
    offset: int
    row_bytes: int


def write_row(rows: Rows, index: int, row: bytes) -> None:
    """Stores the bytes of one clip. Uses file writes instead of a memory map, so that a full disk raises an OSError with the
    file's name; with a map it would kill the process."""
    if len(row) != rows.row_bytes:
        raise ValueError(f"expected {rows.row_bytes} bytes, got {len(row)}")
    try:
        with open(rows.path, "r+b", buffering=0) as file:
            file.seek(rows.offset + index * rows.row_bytes)
            view = memoryview(row)
            while view:
                view = view[file.write(view) :]
    except OSError as error:
        raise OSError(error.errno, error.strerror, rows.path) from None


def resize_npy(path, shape) -> None:
    """Changes the number of rows of the float32 .npy file at `path`: rewrites its header for `shape`, and its length."""
    with open(path, "r+b") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        offset = file.tell()
        file.seek(0)
        header = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
        np.lib.format.write_array_header_1_0(file, header)
        if file.tell() != offset:  # NumPy pads headers so that the first axis can grow in place
            raise RuntimeError(f"{path}: the header of the .npy file changed its length")
        file.truncate(offset + 4 * math.prod(shape))


class SplitWriter:
    """Writes one split clip by clip; several processes may write clips to the same file.

    `SplitWriter(folder, split, names, labels, joints, persons, frames)` makes the files in `folder` (which has a temporary
    name, see `publish`); `write(i, clip, num_frame)` stores clip i through a memory map (other processes use
    `write_row(writer.rows, i, row)`); `keep(rows)` then removes all other clips; `finish()` writes labels and counts and
    returns the sidecar entry. names must be sorted and unique."""

    def __init__(self, folder, split, names, labels, joints, persons, frames=FRAMES):
        names = list(names)
        if sorted(set(names)) != names:
            raise ValueError("names of a split must be sorted and unique")
        self.folder, self.split, self.names = Path(folder), split, names
        self.labels = np.asarray(labels, dtype=np.int64)
        self.num_frame = np.zeros(len(names), dtype=np.int64)
        self.data_file, self.label_file, self.frame_file = split_files(folder, split)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.shape = (len(names), 3, frames, joints, persons)
        self.data = np.lib.format.open_memmap(self.data_file, mode="w+", dtype=np.float32, shape=self.shape)
        self.rows = Rows(str(self.data_file), self.data.offset, 4 * math.prod(self.shape[1:]))

    def write(self, index: int, clip: np.ndarray, num_frame: int) -> None:
        """Stores clip `index` (3, t, V, M): the first T frames if t > T, padded with zeros if t < T."""
        clip = clip[:, : self.shape[2]]
        self.data[index, :, : clip.shape[1]] = clip
        self.num_frame[index] = num_frame

    def keep(self, rows) -> None:
        """Removes all clips but `rows` (increasing indices), in place; the file shrinks."""
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) == len(self.names):
            return
        for new, old in enumerate(rows):
            if new != old:
                self.data[new] = self.data[old]
        self.names = [self.names[i] for i in rows]
        self.labels, self.num_frame = self.labels[rows], self.num_frame[rows]
        self.shape = (len(rows), *self.shape[1:])
        self.data.flush()
        self.data = None
        resize_npy(self.data_file, self.shape)
        self.data = np.lib.format.open_memmap(self.data_file, mode="r+")

    def finish(self) -> dict:
        """Flushes the coordinates, writes labels and counts; returns the sidecar's entry of this split."""
        self.data.flush()
        with atomic_write(self.label_file) as file:
            file.write(dump_pickle((self.names, [int(label) for label in self.labels])))
        save_npy(self.frame_file, self.num_frame)
        return {
            "clips": len(self.names),
            "fingerprint": fingerprint(self.names, self.labels, self.num_frame),
            "shape": list(self.shape),
        }


def publish(temporary, target, sidecar: dict) -> None:
    """Writes the sidecar into the finished folder `temporary` and renames it to `target`, replacing an older one.

    At every moment `target` is the old folder, missing, or the complete new one."""
    temporary, target = Path(temporary), Path(target)
    write_json(temporary / SIDECAR, sidecar)
    target.parent.mkdir(parents=True, exist_ok=True)
    old = None
    if target.exists():
        old = target.with_name(f".{target.name}.old.{os.getpid()}.tmp")
        os.replace(target, old)
    os.replace(temporary, target)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def versions() -> dict[str, object]:
    """Versions of all that the arrays depend on, for sidecars."""
    return {"preparation": VERSION, "python": platform.python_version(), "numpy": np.__version__}


@contextlib.contextmanager
def building_folder(folder):
    """An empty hidden folder beside `folder` for unfinished files; always removed at the end.

    Files that a killed run left are removed first. BeingWritten when another process makes the same folder."""
    folder = Path(folder)
    temporary = folder.parent / f".{folder.name}.building.tmp"

    def clear():
        old = [
            *folder.glob(".*.old.*.tmp"),
            *folder.parent.glob(f".{folder.name}.old.*.tmp"),
        ]  # made by `publish`
        for left in [*old, *(path for path in temporary.iterdir() if path.name != OWNER)]:
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink()

    with Ownership(temporary, f"the making of {folder}") as owner:
        owner.made = True  # also if a killed run made it
        clear()
        try:
            yield temporary
        finally:
            clear()
