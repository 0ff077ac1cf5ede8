"""Real clips written as other people's estimators write them: every layout, every file form, and the ways they vary.

`real_clips` takes clips of UI-PRMD; `in_layout` makes the joints that another layout has; a camera sees them x to the right, y down
(`camera`), or as pixels (`pixels`). Each `write_...` makes one clip's file or folder, exactly, without dirt.
"""

import functools
import json
import pickle

import numpy as np

from data_gen import ui_prmd
from utils.convert_layout import convert
from utils.skeleton import KINECT_V2, get_layout

FOCAL, PICTURE = 1000.0, (1920, 1080)


@functools.cache
def real_clips(classes: int = 2, each: int = 4, frames: int = 24) -> dict[str, tuple[str, np.ndarray]]:
    """name -> (class, coordinates (T, 25, 3) in metres, Kinect's space), a few of each of the first classes."""
    packed = ui_prmd.read_packed()
    found = {}
    for k in range(1, classes + 1):
        names = [n for n in packed.names if n.startswith(f"m{k:02d}_") and n.endswith("cor")][:: 100 // each][:each]
        for name in names:
            found[name] = (
                f"m{k:02d}",
                packed.clip(name)[:, 10 : 10 + frames, :, 0].transpose(1, 2, 0).astype(np.float64),
            )
    return found


def in_layout(clip: np.ndarray, layout: str) -> np.ndarray:
    """A Kinect clip (T, 25, 3) -> (T, V, 3) of a layout."""
    return convert(clip, KINECT_V2, get_layout(layout), axis=1)


def camera(clip: np.ndarray) -> np.ndarray:
    """Kinect's space -> a camera's: x to the right of the picture, y down, z away."""
    return clip * [-1, -1, 1]


def pixels(clip: np.ndarray) -> np.ndarray:
    """Kinect's space -> pixels (..., 2) of a camera 0.8 m above its origin."""
    x, y, z = np.moveaxis(clip, -1, 0)
    return np.stack([PICTURE[0] / 2 + FOCAL * x / z, PICTURE[1] / 2 - FOCAL * (y - 0.8) / z], axis=-1)


def scores(clip: np.ndarray) -> np.ndarray:
    """A score for each joint (T, V), between 0.6 and 0.95."""
    T, V = clip.shape[:2]
    return 0.6 + 0.35 * (np.arange(T * V).reshape(T, V) * 37 % 101) / 101


def with_score(points: np.ndarray) -> np.ndarray:
    return np.concatenate([points, scores(points)[..., None]], axis=-1)


def _dump(path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_openpose(folder, name: str, flat: np.ndarray, first: int = 0) -> None:
    """flat (T, V, 2), or a list of T lists of persons (V, 2): a file a frame."""
    folder.mkdir(parents=True, exist_ok=True)
    for t, people in enumerate(flat):
        people = [people] if isinstance(people, np.ndarray) else people
        listed = [
            {
                "person_id": [-1],
                "pose_keypoints_2d": np.concatenate([p, np.full((len(p), 1), 0.8)], 1).round(3).ravel().tolist(),
                "face_keypoints_2d": [],
            }
            for p in people
        ]
        content = {"version": 1.3, "people": listed}
        (folder / f"{name}_{t + first:012d}_keypoints.json").write_text(json.dumps(content))


def write_alphapose(path, flat: np.ndarray) -> None:
    entries = [
        {"image_id": f"{t}.jpg", "category_id": 1, "keypoints": frame.round(3).ravel().tolist(), "score": 2.9, "idx": 0}
        for t, frame in enumerate(with_score(flat))
    ]
    _dump(path, entries)


def write_mmpose(path, points: np.ndarray, names=None) -> None:
    frames = []
    for t, (frame, score) in enumerate(zip(points, scores(points), strict=True)):
        one = {"keypoints": frame.round(4).tolist(), "keypoint_scores": score.tolist(), "bbox": [[0, 0, 1, 1]]}
        frames.append({"frame_id": t + 1, "instances": [one]})
    about = {"dataset_name": "x", "keypoint_id2name": {str(i): n for i, n in enumerate(names)}} if names else {}
    _dump(path, {"meta_info": about, "instance_info": frames})


def write_azure(path, clip: np.ndarray, fps: int = 30) -> None:
    names = [n.upper().replace(" ", "_") for n in get_layout("azure_kinect_32").names]
    frames = [
        {
            "frame_id": t,
            "timestamp_usec": 100_000 + round(t * 1e6 / fps),
            "num_bodies": 1,
            "bodies": [{"body_id": 1, "joint_positions": (1000 * camera(f)).round(3).tolist()}],
        }
        for t, f in enumerate(clip)
    ]
    _dump(path, {"joint_names": names, "frames": frames})


def write_pickle(path, clips: dict[str, tuple[int, np.ndarray]], bare: bool = False) -> None:
    """clips: name -> (label, points (T, V, C) or (M, T, V, C)); 2-D clips get scores and the picture's size."""
    entries = []
    for name, (label, points) in clips.items():
        points = points if points.ndim == 4 else points[None]
        entry = {
            "frame_dir": name,
            "label": label,
            "total_frames": points.shape[1],
            "keypoint": points.astype(np.float32),
        }
        if points.shape[3] == 2:
            entry |= {
                "keypoint": points.astype(np.float16),
                "keypoint_score": np.stack([scores(p) for p in points]).astype(np.float16),
                "img_shape": (PICTURE[1], PICTURE[0]),
                "original_shape": (PICTURE[1], PICTURE[0]),
            }
        entries.append(entry)
    names = list(clips)
    content = entries if bare else {"split": {"train": names[::2], "val": names[1::2]}, "annotations": entries}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))


def columns_of(layout: str, style: str) -> list[str]:
    """Names of the columns of a table: named, camel, upper, numbered, x_first."""
    names = get_layout(layout).names
    join = {
        "named": lambda v, a: f"{names[v].replace(' ', '_')}_{a}",
        "camel": lambda v, a: "".join(w.capitalize() for w in names[v].split()) + a.upper()[0],
        "upper": lambda v, a: f"{names[v].upper().replace(' ', '_')}.{a.upper()}",
        "numbered": lambda v, a: f"{v}_{a}",
        "x_first": lambda v, a: f"{a}{v}",
    }[style]
    axes = ("x", "y", "z", "v" if style in ("camel", "numbered", "x_first") else "visibility")
    return [join(v, a) for v in range(len(names)) for a in axes]


def write_table(
    path, values: np.ndarray, header: list[str] | None, delimiter=",", commas=False, extra=None, order=None
) -> None:
    """values (T, V, C); extra: a column's name -> T values, before the others; order: of the columns."""
    flat = values.reshape(len(values), -1)
    order = range(flat.shape[1]) if order is None else order
    rows = [[f"{flat[t, i]:.6f}" for i in order] for t in range(len(flat))]
    head = [header[i] for i in order] if header else None
    for name, column in (extra or {}).items():
        rows = [[str(v), *row] for v, row in zip(column, rows, strict=True)]
        head = [name, *head] if head else None
    lines = [delimiter.join(c.replace(".", ",") if commas else c for c in row) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*([delimiter.join(head)] if head else []), *lines]) + "\n")


def write_frames(path, values: np.ndarray, layout: str, style: str) -> None:
    """A JSON list of frames, values (T, V, C). style: list, lists, named, landmarks, world, keypoints, movenet, object."""
    keys = ("x", "y", "z", "visibility")[: values.shape[2]]
    if style == "movenet":
        keys = ("x", "y", "score")
    names = [n.replace(" ", "_").upper() for n in get_layout(layout).names]
    frames = [[dict(zip(keys, map(float, joint), strict=True)) for joint in frame.round(6)] for frame in values]
    if style == "lists":
        frames = values.round(6).tolist()
    elif style == "named":
        frames = [dict(zip(names, frame, strict=True)) for frame in frames]
    elif style in ("landmarks", "world", "keypoints", "movenet"):
        key = {"landmarks": "pose_landmarks", "world": "pose_world_landmarks"}.get(style, "keypoints")
        frames = [{"frame": t, key: frame} for t, frame in enumerate(frames)]
    _dump(path, {"fps": 30, "frames": [{"landmarks": f} for f in frames]} if style == "object" else frames)


def write_ntu_dictionary(path, clip: np.ndarray) -> None:
    content = {"file_name": path.name, "nbodys": [1] * len(clip), "njoints": 25, "skel_body0": clip}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, content, allow_pickle=True)
