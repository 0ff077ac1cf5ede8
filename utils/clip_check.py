"""Plausibility check of a clip (C, T, V, M): a person of human size in metres, who moves and is upright.

Preparation, feature extraction, the live demo and `data_gen.check` call `clip_faults` on input coordinates. Odd clips may be
intended (PKU-MMD has a few clips of zeros, a person may sleep), so the result is a warning that counts and names the clips,
and an error only with `--strict`. Values that cannot be computed with, such as NaN, are refused earlier.

The longest bone of a person, usually shin or thigh, is 0.3 to 0.5 m in the 2,000 clips of UI-PRMD; the wide bounds here
accept children, tall people and noise, and detect other units. Joints at exactly (0, 0, 0) count as not seen and have no
bone. Two-dimensional clips, whose third coordinate is zero or missing, have the units of a picture and are not measured.
"""

from dataclasses import dataclass, field

import numpy as np

from utils.errors import UserError, warn
from utils.skeleton import Layout, at

KINDS = {  # kind of fault -> words for several clips
    "empty": "have no coordinate other than 0",
    "still": "do not move",
    "size": "are not of human size in metres",
    "down": "are upside down in their first frame (y or z must point up)",
}
SHORTEST, LONGEST = 0.1, 2.0  # metres: bounds of the longest bone of a person
LEAST_MOVEMENT = 1e-4  # of the longest bone: smaller changes are rounding
DOWN_Y, DOWN_Z = -0.7, -0.9  # cosine of the spine with an axis; stricter for z, which points away from a sensor
MEASURED = 16  # frames in which bones are measured
NAMED = 3  # clips that a warning names


def clip_faults(clip: np.ndarray, layout: Layout) -> dict[str, str]:
    """{kind in KINDS: finding} of a clip (C, T, V, M) of finite coordinates, {} for a plausible one."""
    seen = (clip != 0).any(axis=(0, 2))  # (T, M)
    persons = np.flatnonzero(seen.any(axis=0))
    if not len(persons):
        return {"empty": "it has no coordinate other than 0"}
    faults = {}
    frames = np.flatnonzero(seen[:, persons[0]])
    some = frames[np.linspace(0, len(frames) - 1, min(MEASURED, len(frames))).round().astype(int)]
    body = clip[..., persons[0]][:, some].astype(np.float64)  # (C, frames, V)
    longest = _longest_bone(body, layout)
    flat = clip.shape[0] < 3 or not clip[2].any()
    if not flat and not SHORTEST <= longest <= LONGEST:
        unit = " (millimetres?)" if SHORTEST <= longest / 1000 <= LONGEST else ""
        faults["size"] = f"its longest bone is {longest:.3g} m{unit}, expected {SHORTEST} to {LONGEST} m"
    if len(frames) > 1 and not _moves(clip, seen, persons, LEAST_MOVEMENT * longest):
        faults["still"] = f"none of its joints moves in {len(frames)} frames"
    spine = at(body[:, 0], layout.up[1], 1) - at(body[:, 0], layout.up[0], 1)
    down = spine / max(float(np.linalg.norm(spine)), 1e-300)
    if not flat and (down[1] < DOWN_Y or down[2] < DOWN_Z):
        faults["down"] = "its spine points down in the first frame"
    return faults


def _longest_bone(body: np.ndarray, layout: Layout) -> float:
    """The largest of the bones' median lengths over the frames of (C, T, V); 0 without a bone whose two joints are seen."""
    there = (body != 0).any(axis=0)  # (T, V)
    parents = list(layout.parents)
    lengths = np.linalg.norm(body - body[:, :, parents], axis=0)
    bones = np.where(there & there[:, parents] & (np.array(parents) != np.arange(layout.joints)), lengths, np.nan)
    bones = bones[:, ~np.isnan(bones).all(axis=0)]
    return float(np.nanmedian(bones, axis=0).max()) if bones.size else 0.0


def _moves(clip: np.ndarray, seen: np.ndarray, persons, least: float) -> bool:
    """Whether a coordinate of any person changes by more than `least` over the frames with that person."""
    for person in persons:
        body = clip[..., person][:, seen[:, person]]
        if float((body.max(axis=1).astype(np.float64) - body.min(axis=1)).max()) > least:
            return True
    return False


@dataclass
class OddClips:
    """Collects the faults of clips that are checked one by one. strict: the first odd clip raises UserError."""

    strict: bool = False
    checked: set[str] = field(default_factory=set)
    found: dict[str, dict[str, str]] = field(default_factory=dict)  # kind -> clip -> finding

    def check(self, name: str, clip: np.ndarray, layout: Layout) -> None:
        """Checks a clip (C, T, V, M), once per name."""
        if name not in self.checked:
            self.checked.add(name)
            self.add(name, clip_faults(clip, layout))

    def add(self, name: str, faults: dict[str, str]) -> None:
        """Adds the faults of a clip that was checked elsewhere."""
        if faults and self.strict:
            raise UserError(f"{name}: {in_words(faults)}; without --strict this is a warning")
        for kind, words in faults.items():
            self.found.setdefault(kind, {})[name] = words

    def sentences(self, clips: int) -> list[str]:
        """A line for each kind of fault: how many of `clips`, their names, and the finding in the first."""
        lines = []
        for kind, names in self.found.items():
            shown = ", ".join(list(names)[:NAMED]) + (", ..." if len(names) > NAMED else "")
            lines.append(
                f"{len(names)} of {clips} clips {KINDS[kind]}: {shown}; in the first, {next(iter(names.values()))}"
            )
        return lines

    def warn(self, clips: int | None = None) -> None:
        """Prints a warning for each kind of fault. clips: number of clips, default: those checked."""
        for line in self.sentences(len(self.checked) if clips is None else clips):
            warn(line)


def in_words(faults: dict[str, str]) -> str:
    """The faults of one clip in a sentence."""
    return ", and ".join(faults.values())
