"""`Poses`, which every reader of poses returns, and what the readers share: bounded reading of untrusted files, and the
assembly of persons into arrays (T, M, V, C)."""

from dataclasses import dataclass, field

import numpy as np

from utils.errors import UserError
from utils.files import check_regular

MAX_FILE_BYTES = 2**31  # of one file of poses, ten times an hour of frames as JSON
MAX_TEXT_BYTES = 2**29  # of one text file, which takes about ten times its size in memory
MAX_JOINTS = 600  # whole-body layouts have 133 to 543


class BadPoses(UserError):
    """A file, or a clip in it, cannot be used; --on-bad skip leaves it out."""


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
    """A clip that cannot be used, with the reason for the user."""

    name: str
    reason: str


@dataclass
class Poses:
    """One clip as it is in its file.

    points (T, M, V, C) float64, C = 2 or 3, persons in the file's order, NaN where the file has no value; score (T, M, V)
    or None; and where the file states them, else None: fps; joints, the names of the V joints; layout, units, up, which
    some formats fix (up is used only when the bodies do not show it); size, (width, height) of the picture; label, split,
    subject as text. mended: kind of fault -> how often the reader repaired it."""

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
    form: str = ""  # name of the file format, a key of forms.FORMS


def seen_joints(points: np.ndarray) -> np.ndarray:
    """Which joints (..., C) are finite in all coordinates, (...). An explicit sum, since NumPy is slow on so short an axis."""
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
    """Whether the last of three numbers (..., 3) is a score: it is within 0..1 and the first two are pixels or fractions of
    a picture."""
    third, first = values[..., 2], values[..., :2]
    with np.errstate(invalid="ignore"):
        third, first = third[np.isfinite(third)], first[np.isfinite(first)]
    if not len(third) or third.min() < 0 or third.max() > 1.05 or not len(first):
        return False
    return bool(np.abs(first).max() > 4 or first.min() >= 0 and (third > 0.3).mean() > 0.5)


def rate_of(times, unit: float) -> float | None:
    """Frame rate from increasing times in units of `unit` seconds; None when they are not such times."""
    try:
        steps = np.diff(np.array(times, dtype=np.float64)) * unit
    except (TypeError, ValueError, OverflowError):
        return None
    if not len(steps) or not np.isfinite(steps).all() or (steps <= 0).any():
        return None
    rate = 1 / float(np.median(steps))
    return rate if 0.5 <= rate <= 1000 else None


def rate_in_words(column: str, times) -> float | None:
    """Frame rate from a column of times. Its name may state the unit; otherwise seconds are tried before milliseconds."""
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
    with open(
        path, "rb"
    ) as file:  # not Path.read_bytes: OpenPose has a file per frame, and making a Path takes as long as reading
        content = file.read()
    if not content:
        raise BadPoses(f"{path}: the file is empty (0 bytes)")
    return content


def decode(content: bytes, path, mended: dict[str, int]) -> str:
    """Decodes UTF-8 (with or without a byte order mark), UTF-16 with one, or Latin-1; counts all but plain UTF-8 in `mended`."""
    if content.startswith(b"\xef\xbb\xbf"):
        mended["byte-order mark"] = 1
    try:
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            mended["UTF-16 text"] = 1
            return content.decode("utf-16")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        if b"\0" in content:
            raise BadPoses(f"{path}: not a text file; is it of another format than its suffix says?") from None
        mended["Latin-1 text"] = 1
        return content.decode("latin-1")


def rows_of(rows: list, place, width: int | None = None, frames: list[int] | None = None) -> np.ndarray:
    """K persons as nested or flat lists of numbers -> (K, V, width) float64, in one NumPy call, since this is most of the
    work of reading. width: numbers per joint, for flat lists; frames: the frame of each person, for messages. BadPoses names
    the first person that is not a table of numbers or has another shape than the first one."""
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
        where = f"{place}, frame {frames[k] if frames else k} (counted from 0)"
        try:
            shape = np.array(row, dtype=np.float64).shape
        except (TypeError, ValueError, OverflowError):
            raise BadPoses(f"{where}: keypoints are not a table of numbers") from None
        if len(shape) not in (1, 2) or len(shape) == 1 and (width is None or not shape[0] or shape[0] % width):
            raise BadPoses(f"{where}: keypoints {shape} are not {width or '2 or 3'} numbers per joint")
        first = first or shape
        if shape != first:
            raise BadPoses(f"{where}: keypoints {shape}, but the first person of the file has {first}")
    raise BadPoses(f"{place}: keypoints are not a table of numbers")


def clip_of(
    persons: np.ndarray, frames: list[int], T: int, place, dimensions: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """K persons (K, V, W) with their frames -> (points (T, M, V, C), score (T, M, V) or None), NaN where a frame has fewer
    persons. C = dimensions; a number after the coordinates is the score."""
    K, V, width = persons.shape
    if V > MAX_JOINTS or width not in (dimensions, dimensions + 1):
        raise BadPoses(f"{place}: {V} joints of {width} numbers; expected x, y or x, y, z, and optionally a score")
    if frames == list(range(T)):  # one person per frame, the usual case
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
    """`clip_of` for T lists of persons, each an array (V, W). dimensions: None for W, at most 3."""
    people = [(t, person) for t, frame in enumerate(frames) for person in frame]
    if not people:
        raise BadPoses(f"{place}: no frame holds a person")
    shape = people[0][1].shape
    for t, person in people:
        if person.shape != shape:
            raise BadPoses(
                f"{place}, frame {t} (counted from 0): a person has {person.shape[0]} joints of {person.shape[1]} numbers, but "
                f"the first person of the file has {shape[0]} of {shape[1]}"
            )
    persons = np.stack([person for _, person in people])
    return clip_of(persons, [t for t, _ in people], len(frames), place, dimensions or min(shape[1], 3))
