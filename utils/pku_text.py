"""Detections as text, in the format of PKU-MMD's own label and result files.

One file per video, `<video>.txt`, one line per segment: `class,start,end,confidence`. Classes count from 1 (0 would be
background and is not written), start and end are frame numbers. A video without a segment has an empty file, so that
it is told from one that was never looked at.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.files import atomic_write

SUFFIX = ".txt"


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
