"""Writes untrimmed videos in the format of utils.untrimmed, one video at a time, whole or not at all."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from data_gen.build import building_folder, versions
from utils.arrays import publish, resize_npy
from utils.errors import UserError
from utils.files import save_npy, write_json
from utils.skeleton import Layout
from utils.untrimmed import frame_labels


def _check_video(name: str, frames: np.ndarray, segments, shape, classes: int) -> None:
    if frames.shape[1:] != shape:
        raise UserError(f"video {name}: expected frames (T, {', '.join(map(str, shape))}), found {frames.shape}")
    if not np.isfinite(frames).all():
        raise UserError(f"video {name}: a coordinate is not a finite number")
    for number, start, end in segments:
        if not (0 <= number < classes and 0 <= start < end <= len(frames)):
            raise UserError(
                f"video {name}: segment {[number, start, end]} is impossible; expected class 0..{classes - 1} and "
                f"0 <= start < end <= {len(frames)}"
            )


def _check_protocols(protocols, names) -> None:
    known = set(names)
    for protocol, splits in protocols.items():
        if set(splits["train"]) & set(splits["val"]):
            raise UserError(
                f"{protocol}: video {min(set(splits['train']) & set(splits['val']))} is in train and in val"
            )
        unknown = sorted((set(splits["train"]) | set(splits["val"])) - known)
        if unknown:
            raise UserError(f"{protocol}: video {unknown[0]} is in a split but was not given")


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
    """Writes `folder` (usually <data root>/<data set>/untrimmed), replacing an older one.

    videos: triples (name, frames (T, 3, V, M) in metres, segments [(class from 0, start, end)] with frames
    [start, end) counted from 0), taken one at a time; protocols: folder name -> {"train": names, "val": names}, or a
    function from the names that were written to that; details: more for the sidecar.
    Returns the sidecar. Raises UserError for impossible segments, shapes or splits."""
    folder = Path(folder)
    shape = (3, layout.joints, persons)
    names, listed, offsets, labels = [], [], [0], []
    with building_folder(folder) as temporary:
        whole = temporary / "whole"
        whole.mkdir()
        data_file = whole / "frames.npy"
        save_npy(data_file, np.zeros((0, *shape), dtype="<f4"))
        with open(data_file, "ab") as file:
            for name, frames, segments in videos:
                segments = [[int(value) for value in segment] for segment in segments]
                _check_video(name, frames, segments, shape, num_classes)
                file.write(np.ascontiguousarray(frames, dtype="<f4").tobytes())
                names.append(name)
                listed.append({"name": name, "segments": segments})
                offsets.append(offsets[-1] + len(frames))
                labels.append(frame_labels(len(frames), segments))
        if not names:
            raise UserError(f"{folder}: there is no video to write")
        if len(set(names)) != len(names):
            raise UserError(f"{folder}: a video is given twice: {next(n for n in names if names.count(n) > 1)}")
        protocols = protocols(names) if callable(protocols) else protocols
        _check_protocols(protocols, names)
        resize_npy(data_file, (offsets[-1], *shape))
        save_npy(whole / "offsets.npy", np.array(offsets, dtype="<i8"))
        save_npy(whole / "frame_label.npy", np.concatenate(labels))
        splits = {
            p: {split: sorted(names_of[split]) for split in ("train", "val")} for p, names_of in protocols.items()
        }
        about = {"classes": num_classes, "layout": layout.name, "videos": listed, "protocols": splits}
        write_json(whole / "videos.json", about)
        sidecar = {
            "source": source,
            "normalisation": [],
            "layout": layout.name,
            "versions": versions(),
            **(details or {}),
            "videos": len(names),
            "frames": offsets[-1],
            "segments": sum(len(video["segments"]) for video in listed),
        }
        publish(whole, folder, sidecar)
    return sidecar
