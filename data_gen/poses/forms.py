"""The table of file formats with their readers, and `scan`, which turns a folder into entries, one per file or clip.

The suffix of a file gives its format; for JSON, the reader finds it from the keys. OpenPose's files, one per frame, become
one entry per clip: NAME_000000000012_keypoints.json, or numbered files of a folder with the key `people`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data_gen.from_arrays import LISTS
from data_gen.poses import arrays, jsons, tables
from data_gen.poses.record import Bad, BadPoses, Poses
from utils.errors import UserError

_OPENPOSE = re.compile(r"(?P<name>.*?)_?(?P<number>\d+)_keypoints\.json", re.I)
_NUMBERED = re.compile(r"(?P<name>.*?)[_\-.]?(?P<number>\d+)\.json", re.I)
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")


@dataclass(frozen=True)
class Form:
    """A row of the table. words: its name for the user; endings: suffixes of its files; read(path, name, axes) -> clips."""

    name: str
    words: str
    endings: tuple[str, ...]
    read: Callable[[str, str, str], list[Poses | Bad]]


_JSON = (".json", ".jsonl", ".ndjson")
FORMS = {
    form.name: form
    for form in (
        Form("openpose", "OpenPose, one JSON file per frame", (".json",), partial(jsons.read_json, form="openpose")),
        Form("alphapose", "AlphaPose JSON", (".json",), partial(jsons.read_json, form="alphapose")),
        Form("mmpose", "MMPose JSON", (".json",), partial(jsons.read_json, form="mmpose")),
        Form("azure_kinect", "Azure Kinect JSON", (".json",), partial(jsons.read_json, form="azure_kinect")),
        Form("kinetics", "Kinetics-skeleton JSON", (".json",), partial(jsons.read_json, form="kinetics")),
        Form("frames", "JSON list of frames (MediaPipe, MoveNet, ...)", _JSON, partial(jsons.read_json, form="frames")),
        Form("table", "table (CSV)", (".csv", ".tsv", ".txt"), tables.read_table),
        Form("npy", "NumPy array", (".npy",), arrays.read_npy),
        Form("npz", "NumPy archive", (".npz",), arrays.read_npz),
        Form("pickle", "MMAction2 / pyskl pickle", (".pkl", ".pickle"), arrays.read_pickle),
        Form("pose", ".pose file", (".pose",), arrays.read_pose_format),
    )
}
_ANY_JSON = Form("json", "JSON", _JSON, jsons.read_json)
_BY_ENDING = {ending: form for form in (*FORMS.values(), _ANY_JSON) for ending in form.endings}


def ending_is_known(path: Path) -> bool:
    """Whether files with this suffix may hold poses; not .txt, which are mostly notes."""
    return path.suffix.lower() in _BY_ENDING and path.suffix.lower() != ".txt"


@dataclass(frozen=True)
class Entry:
    """Files that are read together. name: of its clip, or the common beginning of its clips' names; form: a key of FORMS, or
    json if still to be found; files: one path, or (number, path) for each frame; folders: folder names below the root."""

    name: str
    form: str
    files: tuple
    folders: tuple[str, ...]

    @property
    def path(self) -> str:
        return self.files[0][1] if isinstance(self.files[0], tuple) else self.files[0]


def read_entry(entry: Entry, axes: str = "", skip_bad: bool = False) -> list[Poses | Bad]:
    """The clips of an entry, with the name of its format. BadPoses when nothing in it can be read."""
    try:
        if isinstance(entry.files[0], tuple):
            clips = [jsons.read_openpose(list(entry.files), entry.name, skip_bad)]
        else:
            form = _ANY_JSON if entry.form == "json" else FORMS[entry.form]
            clips = form.read(entry.files[0], entry.name, axes)
    except BadPoses:
        raise
    except UserError as error:  # of utils.files
        raise BadPoses(str(error) if entry.path in str(error) else f"{entry.path}: {error}") from None
    for clip in clips:
        if isinstance(clip, Poses) and not clip.form:
            clip.form = entry.form
    return clips


def _walk(root: Path):
    """Yields (folder, its folder names below the root, its files) for the root and all subfolders, sorted, without hidden
    ones."""
    stack = [(root, ())]
    while stack:
        folder, names = stack.pop()
        inside = sorted(folder.iterdir(), key=lambda p: p.name)
        files = [p for p in inside if not p.name.startswith(".") and not p.is_dir()]
        yield folder, names, files
        folders = [p for p in inside if p.is_dir() and not p.is_symlink() and not p.name.startswith(".")]
        stack += [(p, (*names, p.name)) for p in reversed(folders)]


def _frame_files(files: list[Path]) -> dict[str, list[tuple[int, str]]]:
    """NAME -> (number, path) of the files in one folder that are OpenPose's frames."""
    for pattern in (_OPENPOSE, _NUMBERED):
        groups: dict[str, list[tuple[int, str]]] = {}
        for path in files:
            if match := pattern.fullmatch(path.name):
                groups.setdefault(match["name"], []).append((int(match["number"]), str(path)))
        if groups and pattern is _OPENPOSE:
            return groups
    return {name: files for name, files in groups.items() if len(files) > 1 and _holds_people(files)}


def _holds_people(numbered: list[tuple[int, str]]) -> bool:
    """Whether the first readable file of a group holds one frame of people."""
    for _, path in numbered[:5]:
        try:
            content = jsons.load(path, {})
        except UserError:
            continue
        return isinstance(content, dict) and "people" in content
    return False


def _entries_of(folder: Path, names: tuple[str, ...], files: list[Path], form: str | None, left: dict) -> list[Entry]:
    frames = _frame_files([p for p in files if p.suffix.lower() == ".json"]) if form in (None, "openpose") else {}
    entries, used = [], set()
    for name, numbered in frames.items():
        numbered.sort()
        used |= {path for _, path in numbered}
        if len(frames) == 1 and names:  # the only clip in its folder has the folder's name
            entries.append(Entry("/".join(names), "openpose", tuple(numbered), names[:-1]))
        else:
            entries.append(Entry("/".join((*names, name or folder.name)), "openpose", tuple(numbered), names))
    for path in files:
        if str(path) in used or (not names and path.name in LISTS and _is_list(path)):
            continue
        ending = path.suffix.lower()
        if form is not None:
            kind = FORMS[form] if ending in FORMS[form].endings else None
        else:
            kind = _ANY_JSON if ending in _JSON else _BY_ENDING.get(ending)
        if kind is None or (ending == ".txt" and form != "table" and not _is_table(path)):
            left[ending or path.name] = left.get(ending or path.name, 0) + 1
            continue
        stem = path.name[: -len(ending)].removesuffix(".skeleton")
        entries.append(Entry("/".join((*names, stem)), kind.name, (str(path),), names))
    return entries


def _head(path: Path) -> bytes:
    """The first bytes of a regular file; empty for a pipe, whose reading would block."""
    if not path.is_file():
        return b""
    with open(path, "rb") as file:
        return file.read(4096)


def _is_list(path: Path) -> bool:
    """Whether a clips.csv or clips.json is a list of clips, not a table of poses."""
    head = _head(path).decode("utf-8-sig", "replace").lower()
    return "name" in head and ("label" in head or "split" in head or "subject" in head) and "_x" not in head


def _is_table(path: Path) -> bool:
    lines = _head(path).splitlines()
    return len(lines) > 1 and max(lines[1].count(c) for c in (b",", b";", b"\t", b" ")) >= 30


def scan(source, form: str | None = None) -> tuple[list[Entry], dict[str, int]]:
    """(entries sorted by name, suffix -> number of files that are not poses) of a folder, without hidden files, or of one
    file. form: read only files of this format, None for all. UserError when there is nothing to read."""
    root = Path(source)
    if form is not None and form not in FORMS:
        raise UserError(f"--format {form!r} is not known; known: {', '.join(FORMS)}")
    left: dict[str, int] = {}
    if root.is_dir():
        entries = [e for folder, names, files in _walk(root) for e in _entries_of(folder, names, files, form, left)]
    elif root.exists():
        entries = _entries_of(root.parent, (), [root], form, left)
    else:
        raise UserError(f"{root}: there is no such file or folder")
    if not entries:
        videos = sum(left.get(ending, 0) for ending in VIDEOS)
        hint = f"; it has {videos} videos: python -m data_gen.from_video finds the poses in them" if videos else ""
        endings = ", ".join(dict.fromkeys(e for f in FORMS.values() for e in f.endings))
        wanted = ", ".join(FORMS[form].endings) if form else endings
        raise UserError(f"{root}: holds no file of poses ({wanted}){hint}")
    return sorted(entries, key=lambda e: e.name), left
