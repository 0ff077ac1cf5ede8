"""Raw NTU RGB+D `.skeleton` files -> clips (3, T, 25, 2) in metres.

File format: a line with the number of frames; per frame a line with the number of bodies; per body a line of 10 values
(body id first), a line with the number of joints (25), and a line of 12 values per joint, of which the first three are
x, y, z in metres. A frame may have no body or more than two, and body ids appear and disappear.

The parser converts only the three coordinates of each joint (a quarter of the numbers). The other columns are counted
but not converted, since they do not affect the clip. Everything that does is checked, and an error names the line.

Two ways to assign bodies to persons:

    slot   as released: body k of a frame belongs to person k, whatever its id; only the first four count
    id     bodies are followed by their id; tracks that do not overlap in time may be the same person found again, so
           they share a person if there is room

Of these persons the two of highest energy are kept, the higher first. Energy: the sum over x, y, z of the standard
deviation over the joints and frames in which the person is seen.
"""

from dataclasses import dataclass
from itertools import chain

import numpy as np

from data_gen.raw_files import Where, coordinates, read_bytes
from utils.errors import UserError

JOINTS = 25
JOINT_COLUMNS = 12
BODY_COLUMNS = 10
MAX_SLOTS = 4  # as released
MAX_FRAMES = 100_000  # an hour at 30 Hz; a crafted file cannot ask for more memory


@dataclass(frozen=True)
class Recording:
    """All B bodies of a file, in its order. length: number of frames; frame, slot (B,): frame of each body and its position
    in the frame; ids: B strings; xyz (B, 25, 3) float64, metres."""

    length: int
    frame: np.ndarray
    slot: np.ndarray
    ids: list[str]
    xyz: np.ndarray


def _count(lines: list[bytes], at: int, what: str, name: str) -> int:
    """The whole number on line `at` (counted from 0)."""
    if at >= len(lines):
        raise UserError(f"{name}, line {at + 1}: the file ends where {what} is expected; it is cut short")
    word = lines[at].strip()
    if not (word.isdigit() and len(word) < 10):
        shown = word[:40].decode("ascii", "replace")
        raise UserError(f"{name}, line {at + 1}: expected {what}, a whole number, found {shown!r}")
    return int(word)


def parse(text: bytes, name: str) -> Recording:
    """The bodies in the text of a `.skeleton` file; `name` is for messages. UserError, naming the line, when the text is cut
    short, continues after its last frame, has another number of joints or columns, or a value is not a number."""
    lines = text.split(b"\n")
    length = _count(lines, 0, "the number of frames", name)
    if length > MAX_FRAMES:
        raise UserError(f"{name}, line 1: {length} frames are too many for a clip; expected at most {MAX_FRAMES}")
    frame, slot, ids, words, starts = [], [], [], [], []
    at = 1
    for t in range(length):
        bodies = _count(lines, at, f"the number of bodies in frame {t + 1} of {length}", name)
        at += 1
        for body in range(bodies):
            head = lines[at].split() if at < len(lines) else []
            if len(head) != BODY_COLUMNS:
                raise UserError(
                    f"{name}, line {at + 1}: expected the {BODY_COLUMNS} values of a body, found {len(head)}"
                    + ("; the file is cut short" if at >= len(lines) - 1 else "")
                )
            if not head[0].isdigit():
                shown = head[0][:40].decode("ascii", "replace")
                raise UserError(f"{name}, line {at + 1}: expected a body id, a whole number, found {shown!r}")
            joints = _count(lines, at + 1, "the number of joints", name)
            if joints != JOINTS:
                raise UserError(f"{name}, line {at + 2}: expected {JOINTS} joints, found {joints}")
            at += 2
            rows = [line.split() for line in lines[at : at + JOINTS]]
            if len(rows) < JOINTS or any(len(row) != JOINT_COLUMNS for row in rows):
                good = next((i for i, row in enumerate(rows) if len(row) != JOINT_COLUMNS), len(rows))
                found = f"found {len(rows[good])} values" if good < len(rows) else "the file ends"
                raise UserError(
                    f"{name}, line {at + good + 1}: expected the {JOINT_COLUMNS} values of a joint, {found}"
                )
            words.extend(chain.from_iterable(row[:3] for row in rows))
            frame.append(t)
            slot.append(body)
            ids.append(head[0].decode("ascii"))
            starts.append(at)
            at += JOINTS
    left = next((i for i in range(at, len(lines)) if lines[i].strip()), None)
    if left is not None:
        raise UserError(f"{name}, line {left + 1}: the file continues after its {length} frames; it is damaged")
    place = lambda i: f"{name}, line {starts[i // (3 * JOINTS)] + i // 3 % JOINTS + 1}"  # noqa: E731
    xyz = coordinates(words, text, place).reshape(-1, JOINTS, 3)
    return Recording(length, np.array(frame, dtype=int), np.array(slot, dtype=int), ids, xyz)


def energy(bodies: np.ndarray) -> float:
    """Sum over x, y, z of the standard deviation over joints and seen frames; bodies (T, V, 3), zeros where not seen."""
    seen = bodies[bodies.any(axis=(1, 2))]
    return float(seen.std(axis=(0, 1)).sum()) if len(seen) else 0.0


def _by_slot(recording: Recording) -> np.ndarray:
    """Persons (P, T, V, 3) by the position of each body in its frame."""
    used = recording.slot < MAX_SLOTS
    persons = np.zeros((MAX_SLOTS, recording.length, JOINTS, 3))
    persons[recording.slot[used], recording.frame[used]] = recording.xyz[used]
    return persons


def _by_id(recording: Recording, places: int) -> np.ndarray:
    """Persons (places, T, V, 3) by body id: tracks in order of decreasing energy, each assigned to the first person whose
    frames are free where it is seen; a track without room is dropped."""
    bodies_of: dict[str, list[int]] = {}  # in order of appearance
    for body, name in enumerate(recording.ids):
        bodies = bodies_of.setdefault(name, [])
        if not bodies or recording.frame[bodies[-1]] != recording.frame[body]:  # of an id twice in a frame the first
            bodies.append(body)
    persons = np.zeros((places, recording.length, JOINTS, 3))
    taken = np.zeros((places, recording.length), dtype=bool)
    for bodies in sorted(bodies_of.values(), key=lambda bodies: energy(recording.xyz[bodies]), reverse=True):
        frames = recording.frame[bodies]
        place = next((k for k in range(places) if not taken[k, frames].any()), None)
        if place is not None:
            persons[place, frames] = recording.xyz[bodies]
            taken[place, frames] = True
    return persons


def select(recording: Recording, selection: str = "slot", persons: int = 2) -> np.ndarray:
    """The clip (3, T, 25, M) float32 of the M persons of highest energy. selection: slot or id, see the module."""
    found = _by_slot(recording) if selection == "slot" else _by_id(recording, persons)
    order = np.argsort([energy(person) for person in found], kind="stable")[::-1][:persons]
    return np.ascontiguousarray(found[order].transpose(3, 1, 2, 0), dtype=np.float32)


def read_clip(where: Where, selection: str = "slot", persons: int = 2) -> np.ndarray:
    """The clip (3, T, 25, M) float32, metres, of one `.skeleton` file; UserError with file and line for a bad file."""
    return select(parse(read_bytes(where), str(where)), selection, persons)


def read_named(files: dict[str, Where], selection: str, persons: int, name: str) -> np.ndarray:
    """`read_clip` by clip name; with its first three arguments bound it is a loader for data_gen.build."""
    return read_clip(files[name], selection, persons)
