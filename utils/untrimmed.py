"""Untrimmed videos: the format of a folder `<data root>/<data set>/untrimmed/`, which detection reads.

    frames.npy       float32 (F, 3, V, M): all frames of all videos, one video after the other, raw coordinates (metres,
                     camera space) unless the sidecar names steps of normalisation
    offsets.npy      int64 (videos + 1,): video i is frames[offsets[i] : offsets[i + 1]]
    frame_label.npy  int16 (F,): 0 = background, k = class number k - 1 (where segments overlap, the later one)
    videos.json      {"classes": number of classes, "layout": joint layout,
                      "videos": [{"name": ..., "segments": [[class, start, end], ...]}, ...] in the order of frames.npy,
                      "protocols": {"xsub": {"train": [names], "val": [names]}, ...}}
                     class from 0, frames [start, end) counted from 0 within the video
    preparation.json source and versions

`write_untrimmed` writes them, one video in memory at a time, completely or not at all; `open_untrimmed` reads and checks.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.arrays import building_folder, publish, resize_npy, versions
from utils.errors import UserError
from utils.files import load_json, map_npy, save_npy, write_json
from utils.fingerprint import of_clips, sampled
from utils.names import SPLITS
from utils.skeleton import Layout


@dataclass(frozen=True)
class Untrimmed:
    """Checked videos. frames (F, 3, V, M) float32, memory-mapped; offsets (videos + 1,); frame_label (F,); segments: for
    each video int64 (k, 3) with rows class, start, end; protocols: folder -> split -> video numbers."""

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
        """Frames of video i, (T, 3, V, M), a view of the memory map."""
        return self.frames[self.offsets[i] : self.offsets[i + 1]]

    def labels(self, i: int) -> np.ndarray:
        """Frame labels of video i, (T,)."""
        return self.frame_label[self.offsets[i] : self.offsets[i + 1]]


def of_videos(videos: Untrimmed, chosen) -> dict:
    """The fingerprint (utils.fingerprint) of the videos with these numbers; that of the coordinates is from sampled blocks of
    all frames."""
    chosen = list(chosen)
    path = videos.folder / "frames.npy"
    with open(path, "rb") as file:
        coordinates = sampled(file.fileno(), 0, path.stat().st_size)
    names, lengths = [videos.names[i] for i in chosen], np.diff(videos.offsets)[chosen]
    return of_clips(
        names, np.concatenate([videos.labels(i) for i in chosen]), lengths, videos.frames.shape, coordinates
    )


def frame_labels(length: int, segments) -> np.ndarray:
    """(length,) int16: 0 = background, class + 1 in each segment (class, start, end); later segments overwrite earlier ones."""
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


def _segments(place, segments, length: int, classes: int) -> np.ndarray:
    """Rows (k, 3) int64 of class, start, end; UserError, with the place, for one that is impossible in `length` frames."""
    try:
        rows = np.asarray(segments, dtype=np.int64).reshape(-1, 3)
    except (ValueError, TypeError, OverflowError):
        raise UserError(f"{place}: segments must be rows of class, start, end") from None
    number, start, end = rows.T
    wrong = np.flatnonzero((number < 0) | (number >= classes) | (start < 0) | (end <= start) | (end > length))
    if len(wrong):
        raise UserError(
            f"{place}: segment {rows[wrong[0]].tolist()} is impossible; expected class 0..{classes - 1} and "
            f"0 <= start < end <= {length}"
        )
    return rows


def open_untrimmed(folder, joints: int | None = None, persons: int | None = None) -> Untrimmed:
    """Opens and checks an untrimmed folder; UserError naming the file when something is missing or contradictory."""
    folder = Path(folder)
    path = folder / "videos.json"
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; prepare the data set with its untrimmed videos")
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
            str(protocol): {split: [number[name] for name in splits[split]] for split in SPLITS}
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
            f"{folder}: the files do not match: {len(frames)} frames, {len(labels)} frame labels, {len(names)} videos, "
            f"{len(offsets)} offsets; prepare the folder again"
        )
    segments = [
        _segments(f"{path}, video {video['name']}", video["segments"], int(n), classes)
        for video, n in zip(videos, np.diff(offsets), strict=True)
    ]
    return Untrimmed(folder, frames, offsets, labels, names, segments, protocols, classes, layout)


def _check_protocols(protocols, names) -> None:
    known = set(names)
    for protocol, splits in protocols.items():
        train, val = set(splits["train"]), set(splits["val"])
        if train & val:
            raise UserError(f"{protocol}: video {min(train & val)} is in train and in val")
        if unknown := (train | val) - known:
            raise UserError(f"{protocol}: video {min(unknown)} is in a split, but not among the videos")


def write_untrimmed(
    folder,
    videos: Iterable[tuple[str, np.ndarray, list]],
    *,
    layout: Layout,
    persons: int,
    num_classes: int,
    protocols: dict[str, dict[str, list[str]]] | Callable[[list[str]], dict[str, dict[str, list[str]]]],
    source: str,
    details: dict | None = None,
) -> dict:
    """Writes `folder` (usually <data root>/<data set>/untrimmed), replacing an older one; returns the sidecar.

    videos: triples (name, frames (T, 3, V, M) in metres, segments [(class from 0, start, end)] with frames [start, end)
    counted from 0), consumed one at a time; protocols: folder name -> {"train": names, "val": names}, or a function that
    returns this for the names that were written; details: further entries of the sidecar. UserError for impossible
    segments, shapes or splits."""
    folder = Path(folder)
    shape = (3, layout.joints, persons)
    listed, offsets, labels = {}, [0], []  # name -> rows of its segments
    with building_folder(folder) as temporary:
        whole = temporary / "whole"
        whole.mkdir()
        save_npy(whole / "frames.npy", np.zeros((0, *shape), dtype="<f4"))
        with open(whole / "frames.npy", "ab") as file:
            for name, frames, segments in videos:
                if name in listed:
                    raise UserError(f"{folder}: video {name} appears twice")
                if frames.shape[1:] != shape:
                    raise UserError(
                        f"video {name}: expected frames (T, {', '.join(map(str, shape))}), found {frames.shape}"
                    )
                if not np.isfinite(frames).all():
                    raise UserError(f"video {name}: a coordinate is not a finite number")
                listed[name] = _segments(f"video {name}", segments, len(frames), num_classes)
                file.write(np.ascontiguousarray(frames, dtype="<f4").tobytes())
                offsets.append(offsets[-1] + len(frames))
                labels.append(frame_labels(len(frames), listed[name]))
        if not listed:
            raise UserError(f"{folder}: there is no video to write")
        protocols = protocols(list(listed)) if callable(protocols) else protocols
        _check_protocols(protocols, listed)
        resize_npy(whole / "frames.npy", (offsets[-1], *shape))
        save_npy(whole / "offsets.npy", np.array(offsets, dtype="<i8"))
        save_npy(whole / "frame_label.npy", np.concatenate(labels))
        about = {
            "classes": num_classes,
            "layout": layout.name,
            "videos": [{"name": name, "segments": rows.tolist()} for name, rows in listed.items()],
            "protocols": {p: {split: sorted(splits[split]) for split in SPLITS} for p, splits in protocols.items()},
        }
        write_json(whole / "videos.json", about)
        sidecar = {
            "source": source,
            "normalisation": [],
            "layout": layout.name,
            "versions": versions(),
            **(details or {}),
            "videos": len(listed),
            "frames": offsets[-1],
            "segments": sum(map(len, listed.values())),
        }
        publish(whole, folder, sidecar)
    return sidecar
