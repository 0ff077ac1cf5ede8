"""What every reader of poses yields, and what all readers share: bounded reading of files that are not trusted."""

from dataclasses import dataclass, field

import numpy as np

from utils.errors import UserError
from utils.files import check_regular

MAX_FILE_BYTES = 2**31  # of one file of poses: an hour of frames as JSON has a tenth of that
MAX_TEXT_BYTES = 2**29  # of one text, which takes about ten times its size in memory
MAX_JOINTS = 600  # whole-body layouts have 133 to 543


class BadPoses(UserError):
    """A file, or a clip in it, that cannot be used; --on-bad skip leaves it out."""


@dataclass(frozen=True)
class PoseOptions:
    """What the user gives; None and '' mean: find it out from the data. See the flags of data_gen.from_poses."""

    form: str | None = None
    layout: str | None = None
    axes: str = ""
    units: str | None = None
    up: str | None = None
    mirror: bool | None = None
    size: tuple[int, int] | None = None
    dimensions: int | None = None
    target: str | None = None  # layout of what comes out


@dataclass(frozen=True)
class Bad:
    """A clip that cannot be used: its name, and the sentence that says why."""

    name: str
    reason: str


@dataclass
class Poses:
    """One clip as its file has it.

    name: of the clip; points (T, M, V, C) float64, C = 2 or 3, persons in the file's order, NaN where nothing is given;
    score (T, M, V) or None; fps: frames a second, where the file says it; joints: names of the V joints, where the file
    has them; layout, units, up: where the file form leaves no doubt (up counts where the bodies do not tell); size: (width,
    height) of the picture; label, split, subject: text, where the file says them; mended: kind of dirt -> how often, what
    the reader itself put right."""

    name: str
    points: np.ndarray
    score: np.ndarray | None = None
    fps: float | None = None
    joints: tuple[str, ...] | None = None
    layout: str | None = None
    units: str | None = None
    up: str | None = None
    size: tuple[int, int] | None = None
    label: str | None = None
    split: str | None = None
    subject: str | None = None
    mended: dict[str, int] = field(default_factory=dict)
    form: str = ""  # the name of the file form, which the reader's table gives


def seen_joints(points: np.ndarray) -> np.ndarray:
    """Which joints (..., C) are finite in all coordinates, (...); a sum by hand, since numpy is slow along so short an axis."""
    total = points[..., 0]
    for c in range(1, points.shape[-1]):
        total = total + points[..., c]
    return np.isfinite(total)


def zero_joints(points: np.ndarray) -> np.ndarray:
    """Which joints (..., C) are zero in all coordinates, (...)."""
    zero = points[..., 0] == 0
    for c in range(1, points.shape[-1]):
        zero &= points[..., c] == 0
    return zero


def third_is_score(values: np.ndarray) -> bool:
    """Whether the last of three numbers (..., 3) is a score: all within 0..1, and the first two are pixels or shares."""
    third, first = values[..., 2], values[..., :2]
    with np.errstate(invalid="ignore"):
        third, first = third[np.isfinite(third)], first[np.isfinite(first)]
    if not len(third) or third.min() < 0 or third.max() > 1.05 or not len(first):
        return False
    return bool(np.abs(first).max() > 4 or first.min() >= 0 and (third > 0.3).mean() > 0.5)


def rate_of(times, unit: float) -> float | None:
    """Frames a second of rising times in `unit` seconds; None when they are no such times."""
    try:
        steps = np.diff(np.array(times, dtype=np.float64)) * unit
    except (TypeError, ValueError, OverflowError):
        return None
    if not len(steps) or not np.isfinite(steps).all() or (steps <= 0).any():
        return None
    rate = 1 / float(np.median(steps))
    return rate if 0.5 <= rate <= 1000 else None


def rate_in_words(column: str, times) -> float | None:
    """Frames a second of a column of times: its name says the unit, else seconds are tried before milliseconds."""
    if column.endswith("usec") or column.endswith("_us"):
        return rate_of(times, 1e-6)
    if column.endswith("ms") or "milli" in column:
        return rate_of(times, 1e-3)
    return rate_of(times, 1.0) or rate_of(times, 1e-3)


def read_bytes(path, most: int = MAX_FILE_BYTES) -> bytes:
    """The content of a regular file of at most `most` bytes; UserError for anything else, and for an empty file."""
    size = check_regular(path)
    if size > most:
        raise BadPoses(f"{path}: {size / 1e9:.1f} GB; a file of poses has at most {most / 1e9:.1f} GB")
    with open(path, "rb") as file:  # a Path costs as much as the reading, and OpenPose has a file a frame
        content = file.read()
    if not content:
        raise BadPoses(f"{path}: the file is empty (0 bytes)")
    return content


def decode(content: bytes, path, mended: dict[str, int]) -> str:
    """Text of UTF-8 (with a BOM or not), UTF-16 with a BOM, or Latin-1; what is unusual is counted in `mended`."""
    if content.startswith(b"\xef\xbb\xbf"):
        mended["byte-order mark"] = 1
    try:
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            mended["UTF-16 text"] = 1
            return content.decode("utf-16")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        if b"\0" in content:
            raise BadPoses(f"{path}: not a text file; is it of another form than its name says?") from None
        mended["Latin-1 text"] = 1
        return content.decode("latin-1")


def rows_of(rows: list, place, width: int | None = None, frames: list[int] | None = None) -> np.ndarray:
    """K persons as nested or flat lists of numbers -> (K, V, width) float64, in one step, since this is most of the work of
    reading. width: numbers a joint, where lists are flat; frames: of each person, for messages. BadPoses names the first
    person that is no table of numbers, or has another shape than the first of the file."""
    try:
        array = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        array = None
    if array is None or array.ndim not in (2, 3) or array.ndim == 2 and (width is None or array.shape[1] % width):
        _refuse_rows(rows, place, width, frames)
    return array.reshape(len(array), -1, width or array.shape[-1])


def _refuse_rows(rows: list, place, width: int | None, frames: list[int] | None) -> None:
    first = None
    for k, row in enumerate(rows):
        where = f"{place}, frame {frames[k] if frames else k} (from 0)"
        try:
            shape = np.array(row, dtype=np.float64).shape
        except (TypeError, ValueError, OverflowError):
            raise BadPoses(f"{where}: keypoints are no table of numbers") from None
        if len(shape) not in (1, 2) or len(shape) == 1 and (width is None or not shape[0] or shape[0] % width):
            raise BadPoses(f"{where}: keypoints {shape} are not {width or 'x, y and perhaps z'} of every joint")
        first = first or shape
        if shape != first:
            raise BadPoses(f"{where}: keypoints {shape}, the first of the file has {first}")
    raise BadPoses(f"{place}: keypoints are no table of numbers")


def clip_of(
    persons: np.ndarray, frames: list[int], T: int, place, dimensions: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Persons (K, V, W) with the frame of each -> (points (T, M, V, C), score (T, M, V) or None), NaN where a frame has fewer
    persons. C = dimensions; what comes after the coordinates is the score."""
    K, V, width = persons.shape
    if V > MAX_JOINTS or width not in (dimensions, dimensions + 1):
        raise BadPoses(f"{place}: {V} joints of {width} numbers; expected x, y or x, y, z, and perhaps a score")
    if frames == list(range(T)):  # one person a frame, as mostly
        values = persons[:, None]
    else:
        order = np.zeros(K, int)
        seen: dict[int, int] = {}
        for k, t in enumerate(frames):
            order[k] = seen.get(t, 0)
            seen[t] = order[k] + 1
        most = int(order.max()) + 1
        if T * most * V * width > 2**28:
            raise BadPoses(f"{place}: {T} frames of up to {most} persons are more than one clip holds; split the file")
        values = np.full((T, most, V, width), np.nan)
        values[frames, order] = persons
    return values[..., :dimensions], values[..., dimensions] if width > dimensions else None


def stack(frames: list, place, dimensions: int | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """The same of T lists of persons, each an array (V, W). dimensions None: the width, at most 3."""
    people = [(t, person) for t, frame in enumerate(frames) for person in frame]
    if not people:
        raise BadPoses(f"{place}: no frame holds a person")
    shape = people[0][1].shape
    for t, person in people:
        if person.shape != shape:
            raise BadPoses(
                f"{place}, frame {t} (from 0): a person has {person.shape[0]} joints of {person.shape[1]} numbers, the first "
                f"of the file {shape[0]} of {shape[1]}"
            )
    persons = np.stack([person for _, person in people])
    return clip_of(persons, [t for t, _ in people], len(frames), place, dimensions or min(shape[1], 3))
