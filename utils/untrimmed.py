"""Untrimmed videos: the format that detection reads, `<data root>/<data set>/untrimmed/`.

    frames.npy       float32 (F, 3, V, M): all frames of all videos, one video after the other, raw coordinates (metres,
                     camera space) unless the sidecar names steps of normalisation
    offsets.npy      int64 (videos + 1,): video i is frames[offsets[i] : offsets[i + 1]]
    frame_label.npy  int16 (F,): 0 = background, k = class number k - 1 (where segments overlap, the later one)
    videos.json      {"classes": number of classes, "layout": joint layout,
                      "videos": [{"name": ..., "segments": [[class, start, end], ...]}, ...] in the order of frames.npy,
                      "protocols": {"xsub": {"train": [names], "val": [names]}, ...}}
                     class from 0, frames [start, end) counted from 0 within the video
    preparation.json what made them

Written by data_gen.untrimmed; `open_untrimmed` reads and checks.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.files import load_json, map_npy
from utils.fingerprint import of_clips, sampled


@dataclass(frozen=True)
class Untrimmed:
    """Checked videos. frames (F, 3, V, M) float32, memory-mapped; offsets (videos + 1,); frame_label (F,);
    segments: per video an int64 array (k, 3) of rows class, start, end; protocols: folder -> split -> video numbers."""

    folder: Path
    frames: np.ndarray
    offsets: np.ndarray
    frame_label: np.ndarray
    names: list[str]
    segments: list[np.ndarray]
    protocols: dict[str, dict[str, list[int]]]
    num_classes: int
    layout: str

    def video(self, i: int) -> np.ndarray:
        """Frames of video i, (T, 3, V, M), as a view of the map."""
        return self.frames[self.offsets[i] : self.offsets[i + 1]]

    def labels(self, i: int) -> np.ndarray:
        """Frame labels of video i, (T,)."""
        return self.frame_label[self.offsets[i] : self.offsets[i + 1]]


def of_videos(videos: Untrimmed, chosen) -> dict:
    """The fingerprint (utils.fingerprint) of the videos with these numbers; coordinates: of sampled blocks of all frames."""
    chosen = list(chosen)
    path = videos.folder / "frames.npy"
    with open(path, "rb") as file:
        coordinates = sampled(file.fileno(), 0, path.stat().st_size)
    names, lengths = [videos.names[i] for i in chosen], np.diff(videos.offsets)[chosen]
    return of_clips(
        names, np.concatenate([videos.labels(i) for i in chosen]), lengths, videos.frames.shape, coordinates
    )


def frame_labels(length: int, segments) -> np.ndarray:
    """(length,) int16: 0 = background, class + 1 within each segment (class, start, end), later segments on top."""
    labels = np.zeros(length, dtype=np.int16)
    for number, start, end in segments:
        labels[start:end] = number + 1
    return labels


def _load(path: Path, kind: str, dims: int) -> np.ndarray:
    if not path.exists():
        raise UserError(f"{path}: missing; prepare the untrimmed videos again")
    array = map_npy(path)
    if array.dtype != np.dtype(kind) or array.ndim != dims:
        raise UserError(f"{path}: expected {np.dtype(kind)} of {dims} dimensions, found {array.dtype} {array.shape}")
    return array


def _segments(path: Path, video: dict, length: int, classes: int) -> np.ndarray:
    try:
        rows = np.asarray(video["segments"], dtype=np.int64).reshape(-1, 3)
    except (ValueError, TypeError, OverflowError):
        raise UserError(f"{path}: segments of {video['name']} must be rows of class, start, end") from None
    number, start, end = rows.T
    wrong = (number < 0) | (number >= classes) | (start < 0) | (end <= start) | (end > length)
    if wrong.any():
        row = rows[int(np.flatnonzero(wrong)[0])].tolist()
        raise UserError(
            f"{path}: segment {row} of {video['name']} is impossible; expected class 0..{classes - 1} and "
            f"0 <= start < end <= {length}"
        )
    return rows


def open_untrimmed(folder, joints: int | None = None, persons: int | None = None) -> Untrimmed:
    """Opens and checks an untrimmed folder; UserError naming the file when something is missing or contradictory."""
    folder = Path(folder)
    path = folder / "videos.json"
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; the preparation of the data set writes it")
    about = load_json(path)
    frames = _load(folder / "frames.npy", "float32", 4)
    offsets = np.asarray(_load(folder / "offsets.npy", "int64", 1))
    labels = _load(folder / "frame_label.npy", "int16", 1)
    if frames.shape[1:] != (3, joints or frames.shape[2], persons or frames.shape[3]):
        raise UserError(f"{folder / 'frames.npy'}: expected (F, 3, {joints}, {persons}), found {frames.shape}")
    try:
        videos, classes, layout = about["videos"], int(about["classes"]), str(about["layout"])
        names = [str(video["name"]) for video in videos]
        number = {name: i for i, name in enumerate(names)}
        protocols = {
            str(protocol): {split: [number[name] for name in splits[split]] for split in ("train", "val")}
            for protocol, splits in about["protocols"].items()
        }
        [video["segments"] for video in videos]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: not a description of untrimmed videos ({type(error).__name__}: {str(error)[:80]})"
        ) from None
    fits = len(offsets) == len(names) + 1 and offsets[0] == 0 and offsets[-1] == len(frames) == len(labels)
    if not fits or (np.diff(offsets) < 0).any():
        raise UserError(
            f"{folder}: the files disagree: {len(frames)} frames, {len(labels)} frame labels, {len(names)} videos, "
            f"{len(offsets)} offsets; prepare the folder again"
        )
    segments = [_segments(path, v, int(n), classes) for v, n in zip(videos, np.diff(offsets), strict=True)]
    return Untrimmed(folder, frames, offsets, labels, names, segments, protocols, classes, layout)
