"""Readers of JSON: OpenPose, AlphaPose, MMPose, Azure Kinect, Kinetics-skeleton, and lists of frames (MediaPipe, ...).

OpenPose writes a file per frame, all others a file per clip. The keys of a file show its format. A person is first an array
(V, C + score); `record.stack` or `record.clip_of` then makes a clip of the frames. Frames without a person stay, empty.
"""

import json
import re
from dataclasses import replace
from itertools import chain
from operator import itemgetter
from pathlib import Path

import numpy as np

from data_gen.poses.record import (
    MAX_TEXT_BYTES,
    BadPoses,
    Poses,
    clip_of,
    decode,
    rate_in_words,
    rate_of,
    read_bytes,
    rows_of,
    stack,
    third_is_score,
)
from utils.errors import UserError
from utils.skeleton import get_layout

WORLD_KEYS = ("pose_world_landmarks", "poseworldlandmarks", "world_landmarks", "worldlandmarks", "keypoints3d")
LANDMARK_KEYS = (*WORLD_KEYS, "pose_landmarks", "poselandmarks", "landmarks", "keypoints", "joints", "points", "pose")
FRAME_KEYS = ("frames", "data", "poses", "results", "predictions", *LANDMARK_KEYS)
_MAX_GAP = 200_000  # frames that a file may leave out between two numbers
_SCORES = ("visibility", "visible", "score", "confidence", "conf", "likelihood", "c", "presence")


def load(path, mended: dict[str, int]):
    """The content of a JSON file, or of a file with one JSON value per line, without a last line that is cut short."""
    text = decode(read_bytes(path, MAX_TEXT_BYTES), path, mended)
    try:
        return json.loads(text)
    except RecursionError:
        raise BadPoses(f"{path}: nested too deeply for a file of poses") from None
    except json.JSONDecodeError as error:
        if error.msg.startswith("Extra data") or Path(path).suffix.lower() in (".jsonl", ".ndjson"):
            return _lines(text, path, mended)
        end = " (the file seems cut off)" if error.pos >= len(text.rstrip()) - 1 else ""
        raise BadPoses(f"{path}, line {error.lineno}: not valid JSON ({error.msg}){end}") from None
    except ValueError as error:  # a number with thousands of digits
        raise BadPoses(f"{path}: not valid JSON ({str(error)[:80]})") from None


def _lines(text: str, path, mended: dict[str, int]) -> list:
    lines = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
    values = []
    for k, (number, line) in enumerate(lines):
        try:
            values.append(json.loads(line))
        except (ValueError, RecursionError):
            if k == len(lines) - 1 and values:
                mended["last line cut off"] = 1
                break
            raise BadPoses(f"{path}, line {number}: not valid JSON: {line.strip()[:40]!r}") from None
    return values


def form_of(content) -> str | None:
    """The format (a key of READERS, or openpose) of a parsed file, None when it is not one of poses."""
    if isinstance(content, dict):
        if "people" in content:
            return "openpose"
        if "instance_info" in content:
            return "mmpose"
        frames = content.get("frames")
        data = content.get("data")
        if isinstance(data, list) and any(isinstance(entry, dict) and "skeleton" in entry for entry in data):
            return "kinetics"
        if "joint_names" in content and isinstance(frames, list):
            return "azure_kinect"
        if any(key.lower() in FRAME_KEYS for key in content) or content and all(k.isdigit() for k in content):
            return "frames"
        return None
    if not isinstance(content, list) or not content:
        return None
    first = next((entry for entry in content if entry), None)
    if isinstance(first, dict):
        if "image_id" in first and "keypoints" in first:
            return "alphapose"
        if "instances" in first:
            return "mmpose"
        if "people" in first:
            return "openpose"
        if "bodies" in first:
            return "azure_kinect"
        return "frames" if _landmarks(first) is not None or _is_named(first) or "x" in _lower(first) else None
    return "frames" if isinstance(first, list) or first is None else None


# --- persons with frame numbers --------------------------------------------------------------------------------------


def _span(numbers, count: int, what: str, path) -> tuple[int, int]:
    """(first frame number, number of frames up to the last); BadPoses when far more frames are missing than `count` exist."""
    first, last = min(numbers), max(numbers)
    if last - first > _MAX_GAP + 10 * count:
        raise BadPoses(f"{path}: frame numbers go from {first} to {last}, but there are only {count} {what}")
    return first, last - first + 1


def _hide_unseen(points: np.ndarray, score) -> None:
    """Sets joints at zero with score zero to NaN: OpenPose and AlphaPose write them for joints that are not seen."""
    if score is not None:
        points[(score <= 0) & (points == 0).all(-1)] = np.nan


def _layout_of(points: np.ndarray, *names: str) -> str | None:
    """The one of these layouts that has as many joints as `points` (T, M, V, C), None without."""
    return next((name for name in names if get_layout(name).joints == points.shape[2]), None)


class People:
    """Collects persons in any order, each with its frame number. numbers: of all frames, with or without a person."""

    def __init__(self, path):
        self.path, self.numbers, self._frames, self._rows, self._scores = path, [], [], [], []

    def add(self, frame: int, keypoints: list, scores: list | None = None) -> None:
        """Adds a person: its joints, nested or flat; scores: one per joint, if they are a list of their own."""
        self._frames.append(frame)
        self._rows.append(keypoints)
        self._scores.append(scores)

    def clip(self, width: int | None, dimensions: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
        """(points (T, M, V, C), score (T, M, V) or None) from the first frame to the last. width: numbers per joint, for flat
        lists; dimensions: C, None if joints hold no score. BadPoses without a person."""
        if not self._rows:
            raise BadPoses(f"{self.path}: no frame holds a person")
        first, T = _span(self.numbers, len(self.numbers), "persons", self.path)
        persons = rows_of(self._rows, self.path, width, self._frames)
        dimensions = dimensions or persons.shape[2]
        if all(score is not None for score in self._scores):
            score = rows_of(self._scores, self.path, 1, self._frames)
            if score.shape[1] != persons.shape[1]:
                raise BadPoses(f"{self.path}: {persons.shape[1]} keypoints, but {score.shape[1]} scores")
            persons = np.concatenate([persons, score], axis=2)
        return clip_of(persons, [frame - first for frame in self._frames], T, self.path, dimensions)


def _frames_of(entries, path, number: str, persons: str):
    """Yields (entry, frame number, list of persons) of every frame; number, persons: their keys. BadPoses for anything else."""
    if not isinstance(entries, list):
        raise BadPoses(f"{path}: expected a list of frames, found {_shown(entries)}")
    for i, entry in enumerate(entries):
        people, frame = (entry.get(persons), entry.get(number, i)) if isinstance(entry, dict) else (None, None)
        good = isinstance(people, list) and all(isinstance(person, dict) for person in people)
        if not good or not isinstance(frame, int) or not 0 <= frame < 2**31:
            raise BadPoses(
                f"{path}, frame {i} (counted from 0): expected a list of {persons}, and a whole number as {number}"
            )
        yield entry, frame, people


# --- OpenPose -------------------------------------------------------------------------------------------------------


def openpose_frame(content, path, frame: int = 0) -> list[np.ndarray]:
    """The persons of one frame, each (V, 3) with x, y, score, or (V, 4) in 3-D; [] when only hands or a face were found."""
    people = content.get("people") if isinstance(content, dict) else None
    if not isinstance(people, list) or not all(isinstance(person, dict) for person in people):
        raise BadPoses(f"{path}: expected {{'people': [{{'pose_keypoints_2d': [x, y, c, ...]}}]}}")
    found = []
    for person in people:
        solid = person.get("pose_keypoints_3d")
        flat = solid or person.get("pose_keypoints_2d") or person.get("pose_keypoints")
        if flat:
            found.append(rows_of([flat], path, 4 if solid else 3, [frame])[0])
    return found


def read_openpose(paths: list[tuple[int, str]], name: str, skip_bad: bool = False) -> Poses:
    """A clip with a file per frame. paths: (frame number, file), sorted; missing numbers are frames without a person.
    skip_bad: a damaged file also becomes a frame without a person, and is counted."""
    first, T = _span((paths[0][0], paths[-1][0]), len(paths), "files", paths[-1][1])
    frames: list[list] = [[] for _ in range(T)]
    mended: dict[str, int] = {}
    for number, path in paths:
        try:
            frames[number - first] = openpose_frame(load(path, mended), path)
        except UserError:
            if not skip_bad:
                raise
            mended["damaged frame files"] = mended.get("damaged frame files", 0) + 1
    if len(frames) > len(paths):
        mended["frames without a file"] = len(frames) - len(paths)
    return _openpose_clip(frames, str(Path(paths[0][1]).parent), name, mended)


def _openpose_clip(frames, place, name, mended) -> Poses:
    widths = {person.shape[1] for frame in frames for person in frame}
    points, score = stack(frames, place, dimensions=3 if widths == {4} else 2)
    _hide_unseen(points, score)
    layout = _layout_of(points, "openpose_25", "openpose_18")
    return Poses(name, points, score, layout=layout, units="pixels" if points.shape[3] == 2 else None, mended=mended)


# --- AlphaPose, MMPose, Azure Kinect, Kinetics-skeleton --------------------------------------------------------------


def _frame_number(image, path) -> tuple[str, int]:
    """('cam1/', 12) of an image_id 'cam1/000012.jpg' or 12."""
    text = str(image)
    match = re.fullmatch(r"(.*?)(\d+)(\.\w+)?", text[-300:], re.S)
    if match is None:
        raise BadPoses(f"{path}: image_id {text[:60]!r} has no frame number")
    return match[1], int(match[2])


def alphapose(content, path, name: str, mended: dict[str, int]) -> list[Poses]:
    """AlphaPose: a clip for each video that occurs in image_id."""
    clips: dict[str, People] = {}
    for i, entry in enumerate(content):
        if not isinstance(entry, dict) or "image_id" not in entry or not isinstance(entry.get("keypoints"), list):
            raise BadPoses(f"{path}, entry {i} (counted from 0): expected image_id and keypoints")
        video, number = _frame_number(entry["image_id"], path)
        people = clips.setdefault(video, People(path))
        people.numbers.append(number)
        people.add(number, entry["keypoints"])
    found = []
    for video, people in clips.items():
        inner = re.sub(r"[\W_]+$", "", video)
        own = name if len(clips) == 1 else f"{name}/{inner or 'clip'}"
        points, score = people.clip(3, 2)
        _hide_unseen(points, score)
        layout = _layout_of(points, "coco_17", "halpe_26")
        found.append(Poses(own, points, score, units="pixels", layout=layout, mended=dict(mended)))
    return found


def mmpose(content, path, name: str, mended: dict[str, int]) -> list[Poses]:
    """MMPose: the file of its inferencer, with or without meta_info."""
    about = content.get("meta_info") if isinstance(content, dict) else None
    people = People(path)
    entries = content["instance_info"] if isinstance(content, dict) else content
    for _, number, instances in _frames_of(entries, path, "frame_id", "instances"):
        people.numbers.append(number)
        for one in instances:
            points, score = one.get("keypoints"), one.get("keypoint_scores")
            if not isinstance(points, list) or not points:
                raise BadPoses(f"{path}, frame {number}: expected keypoints [[x, y], ...] of an instance")
            wrapped = isinstance(points[0], list) and points[0] and isinstance(points[0][0], list)
            score = score[0] if isinstance(score, list) and score and isinstance(score[0], list) else score
            people.add(number, points[0] if wrapped else points, score)  # some versions add a level of lists
    points, score = people.clip(None)
    flat = points.shape[3] == 2
    names = _mmpose_names(about, points.shape[2])
    layout = _layout_of(points, "coco_17", "halpe_26") if flat and not names else None
    return [Poses(name, points, score, joints=names, layout=layout, units="pixels" if flat else None, mended=mended)]


def _mmpose_names(about, V: int) -> tuple[str, ...] | None:
    names = about.get("keypoint_id2name") if isinstance(about, dict) else None
    if not isinstance(names, dict):
        return None
    ordered = [names.get(str(v), names.get(v)) for v in range(V)]
    return tuple(ordered) if all(isinstance(name, str) for name in ordered) else None


def azure(content, path, name: str, mended: dict[str, int]) -> list[Poses]:
    """Azure Kinect: the file of its offline processor, in millimetres, with times in microseconds."""
    people, times = People(path), []
    entries = content["frames"] if isinstance(content, dict) else content
    for t, (entry, _, bodies) in enumerate(_frames_of(entries, path, "frame_id", "bodies")):
        people.numbers.append(t)
        times.append(entry.get("timestamp_usec"))
        for body in bodies:
            people.add(t, body.get("joint_positions"))
    points, _ = people.clip(3, 3)
    names = content.get("joint_names") if isinstance(content, dict) else None
    names = tuple(names) if isinstance(names, list) and all(isinstance(n, str) for n in names) else None
    if names and len(names) != points.shape[2]:
        raise BadPoses(f"{path}: {len(names)} joint_names, but {points.shape[2]} joint_positions")
    about = {"fps": rate_of(times, 1e-6), "joints": names, "layout": "azure_kinect_32", "units": "mm", "up": "-y"}
    return [Poses(name, points, None, **about, mended=mended)]


def kinetics(content, path, name: str, mended: dict[str, int]) -> list[Poses]:
    """Kinetics-skeleton: the file of ST-GCN's tools, with OpenPose's 18 joints as shares of the picture, and a label."""
    people = People(path)
    for _, number, skeletons in _frames_of(content["data"], path, "frame_index", "skeleton"):
        people.numbers.append(number)
        for one in skeletons:
            if not one.get("score"):
                raise BadPoses(f"{path}, frame {number}: expected pose and score of a skeleton")
            people.add(number, one.get("pose"), one["score"])
    points, score = people.clip(2)
    _hide_unseen(points, score)
    layout = _layout_of(points, "openpose_18")
    return [Poses(name, points, score, layout=layout, label=_text(content, "label"), mended=mended)]


# --- lists of frames ------------------------------------------------------------------------------------------------


def _lower(entry: dict) -> dict:
    return {str(key).lower(): value for key, value in entry.items()}


def _landmarks(entry: dict):
    """(key, value) of the landmarks of a frame, world coordinates if there are any; None without."""
    low = _lower(entry)
    return next(((key, low[key]) for key in LANDMARK_KEYS if key in low), None)


def _is_named(entry: dict) -> bool:
    """Whether a dict maps joint names to joints."""
    joints = [value for value in entry.values() if isinstance(value, (dict, list))]
    return len(joints) >= 5 and all("x" in _lower(j) if isinstance(j, dict) else len(j) in (2, 3, 4) for j in joints)


def _is_columns(entry: dict) -> bool:
    """Whether a dict has a list of x and a list of y of all joints."""
    low = _lower(entry)
    return isinstance(low.get("x"), list) and isinstance(low.get("y"), list) and len(low["x"]) == len(low["y"]) > 4


def _axes_of(joint: dict) -> tuple[str, ...]:
    """The keys of a joint's dict that are read: x, y, z and a score, as far as it has them."""
    by_lower = {str(key).lower(): key for key in joint}
    axes = [by_lower[a] for a in ("x", "y", "z") if a in by_lower]
    score = next((by_lower[s] for s in _SCORES if s in by_lower), None)
    return (*axes, *([score] if score is not None else []))


class FrameReader:
    """Reads the persons of frames in any of the usual structures; the first person decides for the whole file or stream.

    names: joint names, None without; dimensions: 2 or 3; world: whether they are world landmarks. All are None until the
    first person."""

    def __init__(self, place):
        self.place, self.names, self.dimensions, self.world, self.axes = place, None, None, None, None

    def persons(self, frame, number: int) -> list[np.ndarray]:
        """(V, C) or (V, C + 1) for each person of a parsed frame; [] without a person; BadPoses for anything else."""
        if frame is None or frame == [] or frame == {}:
            return []
        if isinstance(frame, dict):
            if "people" in frame:
                self.dimensions = self.dimensions or 2
                return openpose_frame(frame, self.place, number)
            if _is_columns(frame):
                return [self._columns(frame)]
            held = _landmarks(frame)
            if held is not None:
                if self.world is None and held[1]:
                    self.world = held[0] in WORLD_KEYS
                return self._scored(self.persons(held[1], number), _lower(frame).get("keypoint_scores"), number)
            if _is_named(frame):
                return [self._named(frame, number)]
            if any(k in _lower(frame) for k in ("frame", "frame_id", "timestamp", "time", "index")):
                return []  # a frame with a number and no person
        if isinstance(frame, list):
            first = frame[0]
            several = isinstance(first, list) and first and isinstance(first[0], (list, dict))
            if several or isinstance(first, dict) and "x" not in first and "X" not in first:
                return [person for one in frame for person in self.persons(one, number)]
            return [self._person(frame, number)]
        raise self._bad(number, f"expected joints with x, y and optionally z, found {_shown(frame)}")

    def _bad(self, number: int, text: str) -> BadPoses:
        return BadPoses(f"{self.place}, frame {number} (counted from 0): {text}")

    def _numbers(self, values, number: int, what: str = "joints") -> np.ndarray:
        try:
            return np.array(values, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            raise self._bad(number, f"{what} are not a table of numbers") from None

    def _decide(self, joint: dict) -> None:
        """Sets `axes` and `dimensions` from the first joint's dict."""
        if self.axes is None:
            self.axes = _axes_of(joint)
            self.dimensions = 3 if {"z", "Z"} & set(self.axes) else 2

    def _columns(self, frame: dict) -> np.ndarray:
        """A person as {"x": [...], "y": [...], "visible": [...]}, the structure of Ultralytics."""
        low = _lower(frame)
        keys = [key for key in ("x", "y", "z", *_SCORES) if isinstance(low.get(key), list)]
        self.dimensions = 3 if "z" in keys else 2
        return rows_of([low[key] for key in keys[: self.dimensions + 1]], self.place, 1)[..., 0].T

    def _scored(self, people: list[np.ndarray], score, number: int) -> list[np.ndarray]:
        """Appends the scores in `keypoint_scores` to the person's joints."""
        if score is None or len(people) != 1 or people[0].shape[1] > 3:
            return people
        values = self._numbers(score, number, "keypoint_scores").reshape(-1, 1)
        if len(values) != len(people[0]):
            raise self._bad(number, f"{len(people[0])} keypoints, but {len(values)} keypoint_scores")
        self.dimensions = people[0].shape[1]
        return [np.concatenate([people[0], values], axis=1)]

    def _person(self, joints: list, number: int) -> np.ndarray:
        first = joints[0]
        if isinstance(first, dict):
            if not all(isinstance(joint, dict) for joint in joints):
                raise self._bad(number, "expected x and y of every joint")
            if self.axes is None:
                label = next((key for key in ("name", "part", "joint", "id") if isinstance(first.get(key), str)), None)
                if label and all(isinstance(joint.get(label), str) for joint in joints):
                    self.names = tuple(joint[label] for joint in joints)
            self._decide(first)
            if len(self.axes) < 2:
                raise self._bad(number, "expected x and y of every joint")
            joints = [[joint.get(axis) for axis in self.axes] for joint in joints]
        array = self._numbers(joints, number)
        if array.ndim != 2 or array.shape[1] not in (2, 3, 4):
            raise self._bad(number, f"expected lists of x, y, ..., 2 to 4 numbers per joint, found {array.shape}")
        return array

    def _named(self, frame: dict, number: int) -> np.ndarray:
        joints = {k: v for k, v in frame.items() if isinstance(v, (dict, list))}
        self.names = self.names or tuple(joints)
        first = next(iter(joints.values()))
        if isinstance(first, dict):
            self._decide(first)
            pick = lambda joint: [joint.get(axis) for axis in self.axes] if isinstance(joint, dict) else joint  # noqa: E731
            joints = {name: pick(joint) for name, joint in joints.items()}
        blank = [None] * len(self.axes or first)
        return self._numbers([joints.get(name, blank) for name in self.names], number)


def _shown(value) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"


def _uniform_frames(content: list, reader: FrameReader) -> np.ndarray | None:
    """(T, V, W) in one step, for frames that all have one person in the structure of the first frame; None otherwise."""
    if not content or not content[0] or len(reader.persons(content[0], 0)) != 1:
        return None
    try:
        joints = content
        while isinstance(joints[0], dict):
            key = next(k for k in joints[0] if str(k).lower() == _landmarks(joints[0])[0])
            joints = [frame[key] for frame in joints]
        V = len(joints[0])
        if not isinstance(joints[0][0], dict) or any(len(frame) != V for frame in joints):
            return None
        numbers = chain.from_iterable(map(itemgetter(*reader.axes), chain.from_iterable(joints)))
        return np.fromiter(numbers, np.float64, count=len(joints) * V * len(reader.axes)).reshape(len(joints), V, -1)
    except (KeyError, TypeError, ValueError, StopIteration, IndexError, OverflowError):
        return None


def frames(content, path, name: str, mended: dict[str, int]) -> list[Poses]:
    """A list of frames, or a dict that has one under a usual key, or a dict of frames by number."""
    about: dict = {}
    if isinstance(content, dict):
        about = _lower(content)
        if content and all(str(key).isdigit() for key in content):
            content = [value for _, value in sorted(content.items(), key=lambda pair: int(pair[0]))]
        else:
            key = next(key for key in FRAME_KEYS if key in about)
            content = about[key]
    if not isinstance(content, list):
        raise BadPoses(f"{path}: expected a list of frames, found {_shown(content)}")
    reader = FrameReader(path)
    values = _uniform_frames(content, reader)
    if values is not None:
        points, score = clip_of(values, list(range(len(values))), len(values), path, reader.dimensions)
    else:
        people = [reader.persons(frame, t) for t, frame in enumerate(content)]
        persons = [person for frame in people for person in frame]
        persons = [person for person in persons if person.shape == persons[0].shape]
        dimensions = reader.dimensions
        if dimensions is None and persons and persons[0].shape[1] < 4:
            scored = persons[0].shape[1] == 3 and third_is_score(np.concatenate(persons)[None, None])
            dimensions = persons[0].shape[1] - scored
        points, score = stack(people, path, dimensions)
    fps = about.get("fps", about.get("frame_rate")) or _rate(content)
    size = (about.get("width"), about.get("height"))
    return [
        Poses(
            name,
            points,
            score,
            fps=float(fps) if isinstance(fps, (int, float)) and 0.5 <= fps <= 1000 else None,
            joints=reader.names,
            units="m" if reader.world else None,
            up="-y" if reader.world else None,
            size=size if all(isinstance(s, int) and s > 0 for s in size) else None,
            label=_text(about, "label", "class", "action"),
            mended=mended,
        )
    ]


def _text(about: dict, *keys: str) -> str | None:
    value = next((about[key] for key in keys if isinstance(about.get(key), (str, int))), None)
    return None if value is None or isinstance(value, bool) else str(value)


def _rate(frames: list) -> float | None:
    """Frame rate from the times of all frames, None without them."""
    first = _lower(frames[0]) if isinstance(frames[0], dict) else {}
    key = next((key for key in ("timestamp_ms", "timestamp_usec", "timestamp", "time") if key in first), None)
    return key and rate_in_words(key, [_lower(frame).get(key) if isinstance(frame, dict) else None for frame in frames])


# --- any JSON -------------------------------------------------------------------------------------------------------

READERS = {"alphapose": alphapose, "mmpose": mmpose, "azure_kinect": azure, "kinetics": kinetics, "frames": frames}


def read_json(path, name: str, axes: str = "", form: str | None = None) -> list[Poses]:
    """The clips of a JSON file. form: its format, None to find it. axes: not used."""
    mended: dict[str, int] = {}
    content = load(path, mended)
    form = form or form_of(content)
    if form is None:
        raise BadPoses(
            f"{path}: not a known JSON format of poses; expected OpenPose's people, AlphaPose's image_id and keypoints, "
            "MMPose's instance_info, Azure Kinect's joint_names and frames, or a list of frames of x, y, z"
        )
    if form == "openpose":
        listed = content if isinstance(content, list) else [content]
        people = [openpose_frame(frame, path, t) for t, frame in enumerate(listed)]
        return [replace(_openpose_clip(people, path, name, mended), form=form)]
    try:
        return [replace(clip, form=form) for clip in READERS[form](content, path, name, mended)]
    except (KeyError, AttributeError, TypeError, IndexError) as error:  # --format of another format, or a hostile file
        raise BadPoses(f"{path}: not a file of format {form} ({type(error).__name__}: {str(error)[:60]})") from None
