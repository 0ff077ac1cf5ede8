"""Reader of tables: a row per frame, with columns x, y, z and score of each joint, by name, by number, or without names.

The first line is a header unless it consists of numbers; the numbers 0, 1, 2, ... also count as a header. The name of a
column is a joint and an axis, in either order and any case (left_shoulder_x, X_LeftShoulder, x11, 11_x, kp11_visibility).
Other columns are recognised by name: frame, time, class, clip, person, subject, split; the rest is ignored and counted.
Numbers may have decimal commas if another character separates the columns. A last line that is cut short is dropped and
counted. A table with a row per joint and frame is read, too.
"""

import functools
import re
from pathlib import Path

import numpy as np

from data_gen.poses import joints
from data_gen.poses.record import (
    MAX_TEXT_BYTES,
    BadPoses,
    Poses,
    clip_of,
    decode,
    rate_in_words,
    read_bytes,
    third_is_score,
)

_AXIS = r"x|y|z|v|vis|visibility|score|conf|confidence|likelihood|presence|p|c"
_COLUMNS = (  # names of columns: x_knee or x11, kneeX, knee_x, kp11x
    re.compile(rf"(?P<axis>{_AXIS})[\s_.\-:/]*(?P<joint>\d+|[\s_.\-:/].+)", re.I),
    re.compile(r"(?P<joint>.*[a-z0-9])(?P<axis>[XYZVCP]|Visibility|Score|Confidence)"),
    re.compile(rf"(?P<joint>.+)[\s_.\-:/]+(?P<axis>{_AXIS})", re.I),
    re.compile(rf"(?P<joint>.*\d)(?P<axis>{_AXIS})", re.I),
)
_SCORE_RANK = ("v", "vis", "visibility", "score", "conf", "confidence", "likelihood", "c", "p", "presence")
_ROLES = {  # role of a column that is not a coordinate -> its names, in lower case
    "frame": "frame frame_id frameid frame_idx frame_index frame_number frame_no frames index idx",
    "time": "time timestamp t time_s seconds sec timestamp_ms time_ms ms timestamp_usec time_us",
    "label": "class label action activity class_name category pose_class target",
    "clip": "clip video name file filename file_name video_name video_id sequence sample clip_id",
    "person": "person person_id track track_id body body_id",
    "subject": "subject subject_id performer actor",
    "split": "split set part",
    "joint": "landmark landmark_id landmark_index landmark_name joint joint_id joint_name joint_index keypoint "
    "keypoint_id keypoint_name kp bodypart type",
}
_ROLE_OF = {name: role for role, names in _ROLES.items() for name in names.split()}
_EMPTY = {"", "nan", "na", "none", "null", "-", "n/a", "#n/a", "-nan", "nan(ind)", "-nan(ind)"}


def _split_lines(text: str, path) -> tuple[list[str], str]:
    """(lines without empty ones, separator of the columns)."""
    lines = [line for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line.strip(" \t;,")]
    if not lines:
        raise BadPoses(f"{path}: the table has no lines")
    probe = lines[min(1, len(lines) - 1)]
    counts = {d: min(lines[0].count(d), probe.count(d)) for d in (";", "\t", ",")}
    if counts[";"] >= 2 or counts["\t"] >= 2:
        return lines, ";" if counts[";"] >= counts["\t"] else "\t"
    if counts[","] >= 2:
        return lines, ","
    if len(lines[0].split()) < 3:
        raise BadPoses(
            f"{path}: not a table of poses; expected many columns, separated by commas, semicolons, tabs or spaces"
        )
    return lines, " "


def _cells(line: str, delimiter: str) -> list[str]:
    if delimiter == " ":
        return line.split()
    if '"' in line:
        import csv

        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]
    cells = line.split(delimiter)
    return cells if line.split() == [line] else [cell.strip() for cell in cells]  # the usual line without spaces


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return cell.lower() in _EMPTY
    return True


@functools.lru_cache(maxsize=4096)  # the tables of a folder usually have the same header
def parse_column(name: str) -> tuple[str, str] | None:
    """(joint, axis) from a column's name, axis one of x, y, z or a word for the score; None for another column."""
    match = next((m for m in (pattern.fullmatch(name.strip()) for pattern in _COLUMNS) if m), None)
    return match and (match["joint"].strip(" _.-:/"), match["axis"].lower())


class Table:
    """A parsed table. header: column names or None; rows: lists of cells; roles: role -> column that is not a coordinate;
    named: (joint, axis) -> column; unknown: names of the other columns; mended: repairs."""

    def __init__(self, path):
        self.path, self.mended = path, {}
        text = decode(read_bytes(path, MAX_TEXT_BYTES), path, self.mended)
        lines, self.delimiter = _split_lines(text, path)
        first = _cells(lines[0], self.delimiter)
        if first[0] == "" and first[1:] == [
            str(i) for i in range(len(first) - 1)
        ]:  # the index column of pandas, with numbered columns
            first, lines = first[1:], [line.partition(self.delimiter)[2] for line in lines]
        counting = first == [str(i) for i in range(len(first))]
        self.header = None if counting or all(map(_is_number, first)) else first
        headed = counting or self.header is not None
        self.rows = [_cells(line, self.delimiter) for line in lines[headed:]]
        if not self.rows:
            raise BadPoses(f"{path}: the table has a header, but no rows")
        self._even(len(first), 1 + headed)
        self.commas = self.delimiter != "," and any("," in cell for cell in self.rows[0])
        if self.commas:
            self.mended["decimal commas"] = 1
        self.roles: dict[str, int] = {}
        self.named: dict[tuple[str, str], int] = {}
        self.unknown: list[str] = []
        for i, column in enumerate(self.header or ()):
            joint = parse_column(column)
            role = _ROLE_OF.get(column.strip().lower().replace(" ", "_").strip("_")) or (
                "frame" if not column else None
            )
            if role and role not in self.roles:
                self.roles[role] = i
            elif joint and joint not in self.named:
                self.named[joint] = i
            elif column:
                self.unknown.append(column)

    def _even(self, width: int, first_line: int) -> None:
        """Drops a last line that is cut short; BadPoses for any other row whose number of cells is not `width`."""
        if len(self.rows[-1]) < width and len(self.rows) > 1:
            self.rows.pop()
            self.mended["last line cut off"] = 1
        for i, row in enumerate(self.rows):
            if len(row) == width + 1 and row[-1] == "":  # a separator at the end of a line
                row.pop()
            if len(row) != width:
                raise BadPoses(f"{self.path}, line {i + first_line}: {len(row)} columns, expected {width}")

    def numbers(self, columns: list[int]) -> np.ndarray:
        """Columns as float64 (rows, len(columns)); empty cells become NaN. BadPoses for other text."""
        cells = [row[i] for row in self.rows for i in columns]
        if self.commas:
            cells = [cell.replace(",", ".") for cell in cells]
        try:
            values = np.fromiter(map(float, cells), np.float64, len(cells))
        except ValueError:
            values = np.array([self._number(cell, k // len(columns)) for k, cell in enumerate(cells)])
        return values.reshape(len(self.rows), len(columns))

    def _number(self, cell: str, row: int) -> float:
        try:
            return np.nan if cell.lower() in _EMPTY else float(cell)
        except ValueError:
            raise BadPoses(f"{self.path}, row {row + 1} of numbers: {cell[:30]!r} is not a number") from None

    def texts(self, role: str, rows: list[int] | None = None) -> list[str]:
        """The cells of a role's column in all or the given rows, [] without the column."""
        rows = range(len(self.rows)) if rows is None else rows
        return [self.rows[r][self.roles[role]] for r in rows] if role in self.roles else []

    def most(self, role: str, rows: list[int] | None = None) -> str | None:
        """The most frequent text of a role's column, None without."""
        texts = [text for text in self.texts(role, rows) if text.lower() not in _EMPTY]
        return max(set(texts), key=texts.count) if texts else None


def read_table(path, name: str, axes: str = "") -> list[Poses]:
    """The clips of a table: one, or one for each value of its column of clips. axes: not used."""
    table = Table(path)
    if "joint" in table.roles and {"x", "y"} <= {column.strip().lower() for column in table.header}:
        return [_long(table, name)]
    values, names, dimensions = _without_names(table) if table.header is None else _with_names(table)
    if table.unknown:
        table.mended["columns left out"] = len(table.unknown)
    return _clips(table, values, names, dimensions, name)


def _long(table: Table, name: str) -> Poses:
    """A clip from a table with a row per joint and frame: columns frame, joint (number or name), x, y, optionally z, score."""
    path = table.path
    low = [column.strip().lower() for column in table.header]
    axes = [a for a in ("x", "y", "z") if a in low]
    score = next((s for s in _SCORE_RANK if s in low), None)
    flat = table.numbers([low.index(a) for a in (*axes, *([score] if score else []))])
    called = table.texts("joint")
    numbered = all(text.isdigit() for text in called)
    names = sorted(set(called), key=int) if numbered else list(dict.fromkeys(called))
    place = {text: v for v, text in enumerate(names)}
    joint = np.array([place[text] for text in called])
    if "frame" in table.roles:
        frame = table.numbers([table.roles["frame"]])[:, 0]
        if not np.isfinite(frame).all() or np.ptp(frame) > 20 * len(frame):
            raise BadPoses(f"{path}: its column of frames does not hold frame numbers")
        frame = (frame - frame.min()).astype(int)
    else:  # a new frame whenever the first joint occurs again
        frame = np.cumsum(joint == joint[0]) - 1
    if len(names) > 600 or (frame.max() + 1) * len(names) > 2**27:
        raise BadPoses(f"{path}: {len(names)} joints in {frame.max() + 1} frames are too many for one clip")
    values = np.full((frame.max() + 1, 1, len(names), flat.shape[1]), np.nan)
    values[frame, 0, joint] = flat
    C = len(axes)
    return Poses(
        name,
        values[..., :C],
        values[..., C] if score else None,
        joints=None if numbered else tuple(names),
        label=table.most("label"),
        mended=dict(table.mended),
    )


def _with_names(table: Table) -> tuple[np.ndarray, tuple[str, ...] | None, int]:
    """(values (rows, V, C + score), joint names or None, C)."""
    path = table.path
    by_joint: dict[str, dict[str, int]] = {}
    for (joint, axis), i in table.named.items():
        by_joint.setdefault(joint, {})[axis] = i
    for joint in [joint for joint, axes in by_joint.items() if not {"x", "y"} <= axes.keys()]:
        table.unknown += [f"{joint}_{axis}" for axis in by_joint.pop(joint)]
    if len(by_joint) < 5:
        shown = ", ".join((table.header or [])[:6])
        raise BadPoses(
            f"{path}: columns {shown}, ...: expected x and y of joints, such as left_shoulder_x, x11 or 11_x"
        )
    numbers = {joint: re.search(r"(\d+)$", joint) for joint in by_joint}
    numbered = all(numbers.values()) and len({re.sub(r"\d+$", "", j) for j in by_joint}) == 1
    names = None if numbered else tuple(by_joint)
    if numbered:
        first = min(int(m[1]) for m in numbers.values())
        by_joint = {j: by_joint[j] for j in sorted(by_joint, key=lambda j: int(numbers[j][1]))}
        V = max(int(m[1]) for m in numbers.values()) - min(first, 1) + 1 if first <= 1 else 0
        if V != len(by_joint):
            raise BadPoses(
                f"{path}: expected columns for all joints {first} to {V + first - 1}, found {len(by_joint)} joints"
            )
    has_z = all("z" in axes for axes in by_joint.values())
    score = next((s for s in _SCORE_RANK if all(s in axes for axes in by_joint.values())), None)
    axes = ("x", "y", *(["z"] if has_z else []), *([score] if score else []))
    flat = table.numbers([by_joint[joint][axis] for joint in by_joint for axis in axes])
    return flat.reshape(len(flat), len(by_joint), len(axes)), names, 3 if has_z else 2


def _without_names(table: Table) -> tuple[np.ndarray, None, int]:
    path, width = table.path, len(table.rows[0])
    bad = next((i for i, cell in enumerate(table.rows[0]) if not _is_number(cell)), None)
    if bad is not None:
        raise BadPoses(
            f"{path}: column {bad} (counted from 0) has {table.rows[0][bad][:30]!r}, expected a number; give the table a header"
        )
    numbers = table.numbers(list(range(width)))
    V, C, skipped = joints.shape_of_columns(numbers, path)
    values = numbers[:, skipped:].reshape(len(numbers), V, C)
    if skipped:
        table.mended["first column taken as the frame number"] = 1
    return values, None, 2 if C == 2 or C == 3 and third_is_score(values[:, None]) else 3


def _clip_of_rows(table: Table) -> list[str]:
    """The clip name of each row: from the column of clips, else a clip for each run of rows of one class, if there are several
    classes."""
    if "clip" in table.roles:
        return table.texts("clip")
    labels = table.texts("label")
    if len(set(labels)) < 2:
        return [""] * len(table.rows)
    run, names = 0, []
    for r, label in enumerate(labels):
        run += r > 0 and label != labels[r - 1]
        names.append(f"{run:04d} {label}")
    table.mended["tables cut where the class changes"] = 1
    return names


def _clips(table: Table, values: np.ndarray, names, C: int, name: str) -> list[Poses]:
    groups: dict[str, list[int]] = {}
    for r, clip in enumerate(_clip_of_rows(table)):
        groups.setdefault(clip, []).append(r)
    found = []
    for clip, rows in groups.items():
        own = name if len(groups) == 1 else f"{name}/{Path(clip).stem or 'clip'}"
        frames, fps = _frames(table, rows)
        points, score = clip_of(values[rows], frames, max(frames) + 1, table.path, C)
        said = {role: table.most(role, rows) for role in ("label", "split", "subject")}
        found.append(Poses(own, points, score, fps=fps, joints=names, **said, mended=dict(table.mended)))
    return found


def _frames(table: Table, rows: list[int]) -> tuple[list[int], float | None]:
    """(frame of each row from 0, frame rate or None); rows of several persons may have the same frame."""
    times = [text.replace(",", ".") for text in table.texts("time", rows)]
    fps = rate_in_words(table.header[table.roles["time"]].lower(), times) if times else None
    texts = [text.replace(",", ".") for text in table.texts("frame", rows)]
    numbers = np.array([float(t) if _is_number(t) and t.lower() not in _EMPTY else np.nan for t in texts])
    whole = len(numbers) and np.isfinite(numbers).all() and (numbers == np.floor(numbers)).all()
    if not whole or np.ptp(numbers) > 20 * len(numbers) + 1000:
        return list(range(len(rows))), fps
    number = (numbers - numbers.min()).astype(int)
    steps = np.unique(number)
    # a table of every second frame of a video becomes a clip without empty frames
    number //= max(1, int(np.gcd.reduce(steps)))
    missing = int(number.max()) + 1 - len(steps)
    if missing:
        table.mended["frames without a row"] = table.mended.get("frames without a row", 0) + missing
    return number.tolist(), fps
