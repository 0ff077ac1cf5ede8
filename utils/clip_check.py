"""One look at a clip: is this a person, in metres, who moves and stands on the feet?

Preparation, feature extraction, the live demo and `data_gen.check` all ask `clip_faults` about coordinates that came in. What
it finds may still be wanted (PKU-MMD has a few clips of zeros, a person may sleep), so it is a warning that names the clips
and counts them, and a refusal only where a program is told `--strict`. What cannot be computed with at all, such as NaN, is
refused before.

The longest bone of a person, usually shin or thigh, is 0.3 to 0.5 m in the 2,000 clips of UI-PRMD; the bounds here let
children, giants and noise pass, and find other units. Joints at exactly (0, 0, 0) count as not seen and have no bone. Flat
clips, whose third coordinate is zero or missing, have the units of a picture and are not measured.
"""

from dataclasses import dataclass, field

import numpy as np

from utils.errors import UserError, warn
from utils.skeleton import Layout, at

KINDS = {  # kind of fault -> what is said of several clips
    "empty": "hold no coordinate other than 0",
    "still": "do not move",
    "size": "are no person in metres",
    "down": "are upside down in their first frame (y or z must point up)",
}
SHORTEST, LONGEST = 0.1, 2.0  # metres: what the longest bone of a person can measure
LEAST_MOVEMENT = 1e-4  # of the longest bone: less is rounding
DOWN_Y, DOWN_Z = -0.7, -0.9  # cosine of the spine with an axis; z is stricter, since a sensor's z runs ahead of it
LOOKED_AT = 16  # frames in which bones are measured
NAMED = 3  # clips that a warning names


def clip_faults(clip: np.ndarray, layout: Layout) -> dict[str, str]:
    """{kind of KINDS: what was found} of a clip (C, T, V, M) of finite coordinates, {} for a good one."""
    seen = (clip != 0).any(axis=(0, 2))  # (T, M)
    persons = np.flatnonzero(seen.any(axis=0))
    if not len(persons):
        return {"empty": "it holds no coordinate other than 0"}
    faults = {}
    frames = np.flatnonzero(seen[:, persons[0]])
    some = frames[np.linspace(0, len(frames) - 1, min(LOOKED_AT, len(frames))).round().astype(int)]
    body = clip[..., persons[0]][:, some].astype(np.float64)  # (C, frames, V)
    longest = _longest_bone(body, layout)
    flat = clip.shape[0] < 3 or not clip[2].any()
    if not flat and not SHORTEST <= longest <= LONGEST:
        unit = " (millimetres?)" if SHORTEST <= longest / 1000 <= LONGEST else ""
        faults["size"] = f"its longest bone measures {longest:.3g} m{unit}, a person's {SHORTEST} to {LONGEST} m"
    if len(frames) > 1 and not _moves(clip, seen, persons, LEAST_MOVEMENT * longest):
        faults["still"] = f"none of its joints moves in {len(frames)} frames"
    spine = at(body[:, 0], layout.up[1], 1) - at(body[:, 0], layout.up[0], 1)
    down = spine / max(float(np.linalg.norm(spine)), 1e-300)
    if not flat and (down[1] < DOWN_Y or down[2] < DOWN_Z):
        faults["down"] = "its spine points down in the first frame"
    return faults


def _longest_bone(body: np.ndarray, layout: Layout) -> float:
    """The longest of the bones' median lengths over frames of (C, T, V); 0 without a bone whose two ends are seen."""
    there = (body != 0).any(axis=0)  # (T, V)
    parents = list(layout.parents)
    lengths = np.linalg.norm(body - body[:, :, parents], axis=0)
    bones = np.where(there & there[:, parents] & (np.array(parents) != np.arange(layout.joints)), lengths, np.nan)
    bones = bones[:, ~np.isnan(bones).all(axis=0)]
    return float(np.nanmedian(bones, axis=0).max()) if bones.size else 0.0


def _moves(clip: np.ndarray, seen: np.ndarray, persons, least: float) -> bool:
    """Whether a coordinate of some person changes by more than `least` over the frames that show the person."""
    for person in persons:
        body = clip[..., person][:, seen[:, person]]
        if float((body.max(axis=1).astype(np.float64) - body.min(axis=1)).max()) > least:
            return True
    return False


@dataclass
class OddClips:
    """Collects what is odd about clips that are checked one by one. strict: the first odd one raises UserError."""

    strict: bool = False
    checked: set[str] = field(default_factory=set)
    found: dict[str, dict[str, str]] = field(default_factory=dict)  # kind -> clip -> what was found

    def check(self, name: str, clip: np.ndarray, layout: Layout) -> None:
        """Looks at a clip (C, T, V, M), once by each name."""
        if name not in self.checked:
            self.checked.add(name)
            self.add(name, clip_faults(clip, layout))

    def add(self, name: str, faults: dict[str, str]) -> None:
        """Takes the faults of a clip that was checked elsewhere."""
        if faults and self.strict:
            raise UserError(f"{name}: {in_words(faults)}; without --strict this would be a warning")
        for kind, words in faults.items():
            self.found.setdefault(kind, {})[name] = words

    def sentences(self, clips: int) -> list[str]:
        """One for each kind of fault, of so many clips: how many, which, and what was found in the first."""
        lines = []
        for kind, names in self.found.items():
            shown = ", ".join(list(names)[:NAMED]) + (", ..." if len(names) > NAMED else "")
            lines.append(
                f"{len(names)} of {clips} clips {KINDS[kind]}: {shown}; of the first, {next(iter(names.values()))}"
            )
        return lines

    def warn(self, clips: int | None = None) -> None:
        """Warns of everything found, in so many clips (default: those checked)."""
        for line in self.sentences(len(self.checked) if clips is None else clips):
            warn(line)


def in_words(faults: dict[str, str]) -> str:
    """The faults of one clip in a sentence."""
    return ", and ".join(faults.values())
