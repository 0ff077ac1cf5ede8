"""Raw PKU-MMD text files -> frames of videos, and labelled instances.

Skeleton file: a line per frame with 150 numbers, person 1's 25 x (x, y, z) in metres, then person 2's; zeros for an
absent person. Label file of the same name: lines `class,start,end,confidence`, classes from 1 to 51.

As released, an instance is the frames [start, end) counted from 0, and its class the file's minus 1. `Reading` changes
both, since other preparations count frames from 1 with the end included.

Known faults, which do not stop a preparation and are reported for each row: start after end (one row of part I, dropped
or swapped); end after the video (cut). Rows of confidence 0 and instances without any skeleton are kept, as released.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_gen.raw_files import Where, coordinates, read_bytes
from utils.errors import UserError

PERSONS, JOINTS = 2, 25
COLUMNS = PERSONS * JOINTS * 3
CLASSES = 51
MAX_FRAMES = 1_000_000  # nine hours at 30 Hz


@dataclass(frozen=True)
class Row:
    """A line of a label file, unchanged. line: its number, from 1; number: its class."""

    line: int
    number: int
    start: int
    end: int
    confidence: int


@dataclass(frozen=True)
class Reading:
    """How label files are read. first_class: number of the first class; first_frame: 0 for frames [start, end) counted from
    0, 1 for frames start..end counted from 1, both included; swap: exchange start and end of a row with start after end
    instead of dropping it; min_confidence: rows below it are left out."""

    first_class: int = 1
    first_frame: int = 0
    swap: bool = False
    min_confidence: int = 0


@dataclass(frozen=True)
class Instance:
    """Frames [start, end) of a video, counted from 0, and a class from 0; named by video and line of the label file."""

    name: str
    video: str
    number: int
    start: int
    end: int


def parse_frames(text: bytes, name: str) -> np.ndarray:
    """The frames (T, 2, 25, 3) float32, metres, of a skeleton file; UserError, naming the line, when a line does not have
    150 numbers."""
    lines = text.rstrip().split(b"\n")
    if not text.strip():
        raise UserError(f"{name}, line 1: the file is empty; expected {COLUMNS} numbers a line")
    if len(lines) > MAX_FRAMES:
        raise UserError(f"{name}: {len(lines)} lines are too many for a video; expected at most {MAX_FRAMES}")
    words = []
    for t, line in enumerate(lines):
        row = line.split()
        if len(row) != COLUMNS:
            raise UserError(f"{name}, line {t + 1}: expected {COLUMNS} numbers, found {len(row)}")
        words += row
    frames = coordinates(words, text, lambda i: f"{name}, line {i // COLUMNS + 1}")
    return frames.astype(np.float32).reshape(-1, PERSONS, JOINTS, 3)


def parse_labels(text: bytes, name: str) -> list[Row]:
    """The rows of a label file; UserError, naming the line, unless it has four whole numbers separated by commas."""
    rows = []
    for number, line in enumerate(text.split(b"\n"), start=1):
        if not line.strip():
            continue
        words = [word.strip() for word in line.split(b",")]
        if len(words) != 4 or not all(word.lstrip(b"-").isdigit() and len(word) < 10 for word in words):
            shown = line[:60].decode("ascii", "replace").strip()
            raise UserError(f"{name}, line {number}: expected class,start,end,confidence, found {shown!r}")
        try:
            rows.append(Row(number, *map(int, words)))
        except ValueError:  # such as --5
            raise UserError(f"{name}, line {number}: expected four whole numbers") from None
    return rows


def instances(video: str, rows: Sequence[Row], length: int, reading: Reading) -> tuple[list[Instance], list[str]]:
    """(instances of a video of `length` frames, a note for each row with a fault).

    UserError for a class out of range, which means that `first_class` is wrong or the file is another one."""
    found, notes = [], []
    for row in rows:
        place = f"{video}.txt line {row.line}"
        number = row.number - reading.first_class
        if not 0 <= number < CLASSES:
            raise UserError(
                f"{place}: class {row.number}, expected {reading.first_class}..{CLASSES - 1 + reading.first_class}; "
                "see --first-class"
            )
        if row.confidence < reading.min_confidence:
            continue
        start, end = row.start - reading.first_frame, row.end
        if row.start > row.end:
            if not reading.swap:
                notes.append(f"{place}: start {row.start} is after end {row.end}; dropped")
                continue
            start, end = row.end - reading.first_frame, row.start
            notes.append(f"{place}: start {row.start} is after end {row.end}; swapped")
        if start < 0 or start >= length or start == end:
            notes.append(f"{place}: frames {row.start} to {row.end} are outside a video of {length} frames; dropped")
            continue
        if end > length:
            notes.append(f"{place}: end {row.end} is after the video's last frame; cut at {length} frames")
            end = length
        notes += [
            f"{place}: frames {max(start, other.start)} to {min(end, other.end)} are in row {other.name} too; this row counts there"
            for other in found
            if max(start, other.start) < min(end, other.end)
        ]
        found.append(Instance(f"{video}_{row.line:03d}", video, number, start, end))
    return found, notes


@functools.lru_cache(maxsize=1)
def read_video(where: Where) -> np.ndarray:
    """The frames (T, 2, 25, 3) float32 of a skeleton file. The last file is cached, since the instances of a video are read
    one after the other."""
    frames = parse_frames(read_bytes(where), str(where))
    frames.setflags(write=False)
    return frames


def count_frames(where: Where) -> int:
    """The number of frames of a skeleton file, without parsing it."""
    text = read_bytes(where).rstrip()
    return text.count(b"\n") + 1 if text else 0


def read_instance(videos: dict[str, Where], instances: dict[str, Instance], name: str) -> np.ndarray:
    """The raw clip (3, t, 25, 2) of an instance; with its first two arguments bound it is a loader for data_gen.build."""
    instance = instances[name]
    return read_video(videos[instance.video])[instance.start : instance.end].transpose(3, 0, 2, 1)
