"""Detections as text, in the format of PKU-MMD's own label and result files.

One file per video, `<video>.txt`, one line per segment: `class,start,end,confidence`. Classes count from 1 (0 would be
background and is not written), start and end are frame numbers. A video without a segment has an empty file, so that
it is told from one that was never looked at.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.files import atomic_write, read_text

SUFFIX = ".txt"
MAX_BYTES = 64 * 2**20


def write_video(path, segments) -> None:
    """Writes rows (class, start, end, confidence), (S, 4), as one text file; whole or not at all.

    Raises ValueError for a class below 1, a frame that is not a whole number of 0 or more, an end before its start or
    a confidence that is not finite."""
    segments = np.asarray(segments, dtype=np.float64).reshape(-1, 4)
    for row in segments:
        problem = _problem(*row)
        if problem:
            raise ValueError(f"{path}: segment {row.tolist()}: {problem}")
    with atomic_write(path, "w") as file:
        for label, start, end, confidence in segments:
            file.write(f"{int(label)},{int(start)},{int(end)},{float(confidence)!r}\n")


def write_predictions(folder, videos: Mapping[str, np.ndarray]) -> None:
    """Writes a file for each video: videos maps a name to rows (class, start, end, confidence)."""
    folder = Path(folder)
    for name in videos:
        if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise UserError(f"video name {name!r} cannot be a file name; names of videos hold no slash")
    folder.mkdir(parents=True, exist_ok=True)
    for name, segments in videos.items():
        write_video(folder / f"{name}{SUFFIX}", segments)


def _problem(label: float, start: float, end: float, confidence: float) -> str | None:
    """What is wrong with a segment, or None."""
    if not np.isfinite((label, start, end, confidence)).all():
        return "a number is not finite"
    if label != int(label) or start != int(start) or end != int(end):
        return "class, start and end must be whole numbers"
    if label < 1:
        return "classes count from 1"
    if start < 0:
        return "frames count from 0"
    if end < start:
        return "the segment ends before it starts"
    return None


def read_video(path) -> np.ndarray:
    """Rows (class, start, end, confidence) of a text file, float64 (S, 4); empty lines are passed over.

    Raises UserError with file and line when a line does not hold four numbers that make a segment."""
    path = Path(path)
    text = read_text(path, MAX_BYTES)
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = tuple(float(cell) for cell in line.split(","))
        except ValueError:
            row = ()
        if len(row) != 4:
            raise UserError(f"{path}, line {number}: expected class,start,end,confidence, found {line.strip()[:60]!r}")
        problem = _problem(*row)
        if problem:
            raise UserError(f"{path}, line {number}: {problem}, found {line.strip()[:60]!r}")
        rows.append(row)
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def read_predictions(folder) -> dict[str, np.ndarray]:
    """{video: rows (class, start, end, confidence)} of a folder's text files, by name.

    Raises UserError when there is no such folder, it holds no text file, or a line is wrong."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder of text files")
    files = sorted(file for file in folder.glob(f"*{SUFFIX}") if file.is_file())
    if not files:
        raise UserError(f"{folder}: it holds no {SUFFIX} file of class,start,end,confidence lines")
    return {file.stem: read_video(file) for file in files}
