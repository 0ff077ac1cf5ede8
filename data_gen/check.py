"""Checks a prepared folder: `python -m data_gen.check data/ntu60` reads it and says what is wrong with it.

Given a protocol folder (it holds `train_data_joint.npy` and its companions) or a data set folder (its subfolders do),
the check opens each split as the programs do, reads every clip once through the memory map (one clip in memory at a
time) and prints a table: counts, frames, labels, empty and non-finite clips, persons, bone lengths and orientation.
What the table cannot excuse is listed below it as WRONG and makes the exit status 2; what is unusual but possible is a
note. What is expected comes from the registry row of that folder name, from the `dataset.json` beside it, or from
`--dataset`; the joint layout from the same row, or from the number of joints.

Bones are joint minus parent of person 1, in up to 16 frames spread over a clip. Three figures judge them: the median
length; the spread, which is the standard deviation over the frames of a clip divided by the mean; and the asymmetry,
|left - right| divided by their mean, of a clip's median lengths. Bodies do not change their bones: a reader that
mixes up axes or joints shows here first.
"""

import argparse
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_gen.build import coordinates_checksum
from data_gen.from_files import reader_parser
from options.common import natural
from options.datasets import DATASETS, MAX_CLASSES, DescriptionError, from_description
from utils.arrays import Split, open_split, split_files
from utils.clip_check import OddClips, clip_faults
from utils.drawing import Z_UP, draw_clips
from utils.errors import UserError, as_user_error, run
from utils.files import load_json, map_npy
from utils.names import SPLITS
from utils.plots import check_picture_path
from utils.skeleton import LAYOUTS, Layout, at, get_layout

BONE_FRAMES = 16  # frames of a clip in which bones are measured
TURNED = 0.99  # cosine from which a direction counts as turned to its axis
MOST_SPREAD = 0.3  # of a median bone within a clip; the Kinect of UI-PRMD gives 0.03
MOST_ASYMMETRY = 0.3  # of mirrored bones; the Kinect of UI-PRMD gives 0.05
MOST_ZERO = 0.01  # share of all-zero clips that a data set may have (PKU-MMD has some)
TOES = ("foot", "foot index", "big toe")  # names of what lies before an ankle, in the order of preference


@dataclass
class Expected:
    """What a protocol folder should be: layout, persons and the classes (None = take what the arrays have)."""

    title: str
    layout: Layout | None = None
    persons: int | None = None
    classes: tuple[str, ...] | None = None
    counts: tuple[int, int] | None = None
    dimensions: int = 3


@dataclass
class Report:
    """What was found in one protocol folder: rows (name, value of train, value of val) of the table and the findings below it.
    measures: split -> what was measured."""

    folder: Path
    expected: Expected
    layout: Layout
    persons: int
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    measures: dict[str, "Measures"] = field(default_factory=dict)


class Measures:
    """A split and what reading its clips gave. clips: name of a figure of `measure_clip` -> array over the clips that hold at
    least one frame; checksum: of the coordinates of all clips, as the sidecar has it, None when not all were read."""

    def __init__(self, split: Split, layout: Layout, clips: dict[str, np.ndarray], checksum: str | None):
        self.split, self.layout, self.clips, self.checksum = split, layout, clips, checksum
        left, right = np.array(mirror_pairs(layout)).T
        length = clips["length"]
        mean = (length[:, left] + length[:, right]) / 2
        difference = np.abs(length[:, left] - length[:, right])
        clips["asymmetry"] = np.divide(difference, mean, out=np.full_like(mean, np.nan), where=mean > 0)

    def median(self, name: str) -> float:
        return _median(self.clips[name])

    def share(self, flags: np.ndarray) -> str:
        """How many clips are flagged, in words."""
        return f"{int(flags.sum())} ({100 * flags.mean():.1f} %)" if len(flags) else "0"

    def at_least(self, name: str, cosine: float) -> float:
        """Share of clips whose figure is finite and at least `cosine`; 1 when none is finite."""
        values = self.clips[name][np.isfinite(self.clips[name])]
        return float((values >= cosine).mean()) if len(values) else 1.0


def find_folders(folder) -> list[Path]:
    """The protocol folders in `folder`: itself, or its subfolders in order of name; UserError when there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; give a prepared folder such as data/ntu60")
    holds = lambda path: any(file.is_file() for split in SPLITS for file in split_files(path, split))  # noqa: E731
    if holds(folder):
        return [folder]
    found = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.suffix != ".tmp" and holds(path)]
    if not found:
        raise UserError(
            f"{folder}: neither it nor a subfolder holds train_data_joint.npy; give a prepared folder such as "
            "data/ntu60 or data/ntu60/xsub"
        )
    return found


def expect(folder, dataset: str | None = None, layout: str | None = None) -> Expected:
    """What is known about a protocol folder, from its name, from a `dataset.json` beside it, or from `dataset`.

    Raises UserError for an unknown data set or layout and for a malformed dataset.json."""
    folder = Path(folder).resolve()
    row = None
    description = folder.parent / "dataset.json"
    if dataset is not None:
        if dataset not in DATASETS:
            raise UserError(f"data set {dataset!r} is not in the registry; known: {', '.join(DATASETS)}")
        row = DATASETS[dataset]
    elif description.is_file():
        with as_user_error(str(description), DescriptionError):
            row = from_description(folder.parent.name, load_json(description))
    else:
        row = next((r for r in DATASETS.values() if folder.parent.name in r.folders), None)
    if row is None:
        return Expected("not a known data set", layout and get_layout(layout))
    protocol = next((p for p, folders in row.protocols.items() if folder.name in folders), None)
    return Expected(
        title=f"data set {row.name}, {protocol or 'no protocol of that name'}",
        layout=get_layout(layout or row.layout),
        persons=row.persons,
        classes=row.classes,
        counts=row.counts.get(protocol),
        dimensions=row.dimensions,
    )


def _shape_from_array(folder: Path, expected: Expected) -> tuple[Layout, int]:
    """(layout, persons), from what is known or else from the shape of the first readable array."""
    joints, persons = None, expected.persons
    for split in SPLITS:
        try:
            shape = map_npy(split_files(folder, split)[0]).shape
        except (UserError, OSError):  # open_split says what is wrong with it
            continue
        if len(shape) == 5:
            joints, persons = shape[3], persons or shape[4]
            break
    layout = expected.layout or next((x for x in LAYOUTS.values() if x.joints == joints), None)
    if layout is None:
        raise UserError(
            f"{folder}: no joint layout has {joints} joints; give --layout, one of {', '.join(LAYOUTS)}, or prepare "
            "the folder from one of them"
        )
    return layout, persons or 2


def _cosine(vector: np.ndarray, axis: int) -> float:
    norm = float(np.linalg.norm(vector))
    return float(vector[axis]) / norm if norm > 1e-6 else np.nan


def _facing(body: np.ndarray, layout: Layout) -> float:
    """Cosine of where the feet of `body` (3, V) point and where a body with this spine and these shoulders looks.

    Above 0 in right-handed coordinates; below 0 the clip is a mirror image (left and right, or two axes, swapped)."""
    toe = next((toe for toe in TOES if f"left {toe}" in layout.names), None)
    if toe is None or "left ankle" not in layout.names:
        return np.nan
    number = layout.names.index
    feet = [(number(f"{side} ankle"), number(f"{side} {toe}")) for side in ("left", "right")]
    toes = sum(body[:, foot] - body[:, ankle] for ankle, foot in feet)
    up, across = (at(body, end, 1) - at(body, start, 1) for start, end in (layout.up, layout.across))
    ahead = np.cross(up, across)
    scale = float(np.linalg.norm(toes) * np.linalg.norm(ahead))
    return float(toes @ ahead) / scale if scale > 1e-9 else np.nan


def measure_clip(clip: np.ndarray, layout: Layout) -> dict:
    """The figures of one clip (3, n, V, M) of its n >= 1 valid frames.

    non_finite: number of values that are not finite; zero: whether every frame is zero; deep: whether a third coordinate is not
    zero; empty_frames: share of frames without person 1; persons: who appear; repeated: whether person 2 is an exact copy of
    person 1; off_centre: largest |coordinate| of person 1's centre joint; up, across: cosine in frame 0 of the spine and +z, of
    the shoulders and +x; facing: see `_facing`; length, spread (V,): of bones, see the module; NaN where there is nothing to
    measure; faults: of utils.clip_check."""
    clip = np.asarray(clip)
    finite = np.isfinite(clip)
    non_finite = clip.size - int(finite.sum())
    if non_finite:
        clip = np.where(finite, clip, 0)
    seen = np.any(clip != 0, axis=(0, 2))  # (n, M)
    first = clip[:, 0, :, 0].astype(np.float64)
    measures = {
        "non_finite": non_finite,
        "zero": not seen.any(),
        "deep": bool(np.any(clip[2] != 0)),
        "empty_frames": 1.0 - seen[:, 0].mean(),
        "persons": int(seen.any(axis=0).sum()),
        "repeated": clip.shape[3] > 1 and seen[:, 1].any() and bool(np.array_equal(clip[..., 0], clip[..., 1])),
        "off_centre": float(np.abs(at(clip[..., 0], layout.centre, 2)).max()),
        "up": _cosine(at(first, layout.up[1], 1) - at(first, layout.up[0], 1), 2),
        "across": _cosine(at(first, layout.across[1], 1) - at(first, layout.across[0], 1), 0),
        "facing": _facing(first, layout),
        "length": np.full(layout.joints, np.nan),
        "spread": np.full(layout.joints, np.nan),
        "faults": clip_faults(clip, layout),
    }
    frames = np.flatnonzero(seen[:, 0])
    if len(frames):
        frames = frames[np.linspace(0, len(frames) - 1, min(BONE_FRAMES, len(frames))).round().astype(int)]
        body = clip[..., 0][:, frames].astype(np.float64)  # (3, frames, V)
        bones = np.linalg.norm(body - body[:, :, list(layout.parents)], axis=0)  # (frames, V)
        mean = bones.mean(axis=0)
        is_bone = np.array(layout.parents) != np.arange(layout.joints)
        measures["length"] = np.where(is_bone, np.median(bones, axis=0), np.nan)
        measures["spread"] = np.where(is_bone & (mean > 1e-6), bones.std(axis=0) / np.maximum(mean, 1e-6), np.nan)
    return measures


def measure_split(split: Split, layout: Layout, most_clips: int = 0, progress=None) -> Measures:
    """Reads the clips of a split, all or `most_clips` of them evenly spread, and measures each.

    `progress` wraps the sequence of clip indices (a tqdm bar)."""
    chosen = np.arange(len(split.names))
    if 0 < most_clips < len(split.kept):
        chosen = split.kept[np.linspace(0, len(split.kept) - 1, most_clips).round().astype(int)]
    rows, checksums = [], []
    for index in progress(chosen) if progress else chosen:
        clip = np.ascontiguousarray(split.data[index])
        checksums.append(zlib.crc32(clip.tobytes()))
        n = int(split.num_frame[index])
        if n:
            after_end = n < clip.shape[1] and bool(np.any(clip[:, n] != 0))
            rows.append(measure_clip(clip[:, :n], layout) | {"names": split.names[index], "after_end": after_end})
    clips = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    checksum = coordinates_checksum(checksums) if len(chosen) == len(split.names) else None
    return Measures(split, layout, clips, checksum)


def mirror_pairs(layout: Layout) -> list[tuple[int, int]]:
    """Pairs (left joint, right joint) of a layout, by their names."""
    return [
        (left, right) for left, right in enumerate(layout.mirrored) if "left" in layout.names[left] and left != right
    ]


def _median(values: np.ndarray) -> float:
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else float("nan")


def _least_median_most(values: np.ndarray) -> str:
    return f"{values.min()} / {int(np.median(values))} / {values.max()}"


def _column(m: Measures, classes: int) -> dict[str, str]:
    """The table's column of one split."""
    split, clips = m.split, m.clips
    counts = np.bincount(split.labels, minlength=classes)
    return {
        "clips": str(len(split.names)),
        "shape": str(split.data.shape),
        "clips without frames": str(len(split.dropped)),
        "frames (least / median / most)": _least_median_most(split.num_frame[split.kept]),
        "classes with clips": f"{int((counts > 0).sum())} of {classes}",
        "clips a class (least / median / most)": _least_median_most(counts),
        "clips read": str(len(clips["zero"])),
        "clips with NaN or infinity": m.share(clips["non_finite"] > 0),
        "all-zero clips": m.share(clips["zero"]),
        "frames without person 1": f"{100 * clips['empty_frames'].mean():.2f} %",
        "not zero after the end": m.share(clips["after_end"]),
        "clips with two or more persons": m.share(clips["persons"] > 1),
        "person 2 repeats person 1": m.share(clips["repeated"]),
        "bone length, median": f"{m.median('length'):.3f}",
        "bone spread in a clip, median": f"{100 * m.median('spread'):.1f} %",
        "bone asymmetry, median": f"{100 * m.median('asymmetry'):.1f} %",
        "centre joint from the origin, most": f"{clips['off_centre'].max():.3g}",
        "spine to +z in frame 0, median cosine": f"{m.median('up'):.3f}",
        "shoulders to +x in frame 0, clips": f"{100 * m.at_least('across', TURNED):.1f} %",
        "feet ahead in frame 0, clips": f"{100 * m.at_least('facing', 0.0):.1f} %",
    }


# Findings are pairs (whether it is wrong, else a note; sentence).


def _label_findings(split: Split, classes: tuple[str, ...] | None):
    number = len(classes) if classes else int(split.labels.max()) + 1
    missing = np.flatnonzero(np.bincount(split.labels, minlength=number) == 0)
    if len(missing):
        names = ", ".join(f"{k} ({classes[k]})" if classes else str(k) for k in missing[:5])
        yield False, f"no clip of class {names}{' and others' if len(missing) > 5 else ''}"
    if sorted(split.names) != split.names:
        yield False, "clips are not sorted by name; streams prepared elsewhere may not match by position"


def _body_findings(m: Measures, dimensions: int):
    """Whether these points can be a body of this layout. In the plane bones shorten as they turn away, so that they say nothing."""
    deep = int(m.clips["deep"].sum())
    if dimensions == 2:
        if deep:
            yield True, f"{deep} clips have a depth other than 0, but dataset.json says two dimensions"
        return
    if not deep and not m.clips["zero"].all():
        yield True, "no clip has a depth; dataset.json must say 'dimensions': 2 for clips of a picture"
    spread, asymmetry = m.median("spread"), m.median("asymmetry")
    if spread > MOST_SPREAD:
        yield (
            True,
            f"the median bone changes by {100 * spread:.0f} % of its length within a clip; axes or joints are mixed up",
        )
    elif asymmetry > MOST_ASYMMETRY:
        order = f"the joints are in another order than that of {m.layout.name}, or axes are mixed up"
        yield True, f"left and right bones differ by {100 * asymmetry:.0f} %; {order}"
    if m.at_least("facing", 0.0) < 0.5:
        swapped = "left and right, or two axes, may be swapped (look at --picture)"
        yield False, f"in most clips the feet point backwards; {swapped}"


def _clip_findings(m: Measures, strict: bool):
    """About coordinates, normalisation and what utils.clip_check finds in single clips."""
    clips, steps = m.clips, sidecar_steps(m.split.sidecar)
    if (clips["non_finite"] > 0).any():
        yield True, f"{int((clips['non_finite'] > 0).sum())} clips hold NaN or infinite coordinates; prepare them again"
    if clips["zero"].any():
        yield clips["zero"].mean() > MOST_ZERO, f"{m.share(clips['zero'])} clips are zero in all their frames"
    if clips["repeated"].any():
        yield False, f"person 2 is a copy of person 1 in {m.share(clips['repeated'])} clips"
    turned = m.at_least("across", TURNED) >= 0.95 and m.at_least("up", 0.5) >= 0.95
    centred = m.median("off_centre") < 1e-3
    if steps is None and not (turned and centred):
        state = " and ".join(text for ok, text in ((centred, "centred"), (turned, "turned upright")) if not ok)
        yield False, f"clips are not {state}; raw coordinates, or another preparation"
    if {"spine", "shoulders"} <= set(steps or ()) and not turned:
        yield True, "the sidecar says that clips are turned upright, but they are not"
    if "centre" in (steps or ()) and not centred:
        yield True, "the sidecar says that clips are centred, but they are not"
    odd = OddClips()
    for name, faults in zip(clips["names"], clips["faults"], strict=True):
        odd.add(name, {kind: words for kind, words in faults.items() if kind != "empty"})  # those were counted
    yield from ((strict, sentence) for sentence in odd.sentences(len(clips["names"])))


def _origin_findings(m: Measures, expected_clips: int | None):
    """What the sidecar says of layout and coordinates (open_split has compared labels and counts), and the published count."""
    split, sidecar = m.split, m.split.sidecar
    if sidecar is not None:
        stated = sidecar.get("layout", m.layout.name)
        if stated != m.layout.name:
            yield True, f"prepared with joint layout {stated}, but {m.layout.name} is expected"
        stated = sidecar["splits"][split.split].get("coordinates")
        if stated and m.checksum and stated != m.checksum:
            sums = f"checksum {m.checksum}, prepared {stated}"
            yield True, f"the coordinates have changed since they were prepared ({sums}); copy or prepare them again"
    if expected_clips and len(split.names) != expected_clips:
        why = "the missing list, the split rule or the source files differ"
        yield True, f"{len(split.names)} clips, but this protocol has {expected_clips}; {why}"


def check_protocol(folder, expected: Expected, most_clips: int = 0, progress=None, strict: bool = False) -> Report:
    """Reads one protocol folder. strict: clips that utils.clip_check finds odd are wrong, else they are notes.

    Raises UserError only when the joint layout cannot be found out."""
    folder = Path(folder)
    report = Report(folder, expected, *_shape_from_array(folder, expected))
    columns, sidecar, classes = {}, None, expected.classes
    for position, name in enumerate(SPLITS):
        if name == "val" and columns and not any(file.exists() for file in split_files(folder, name)):
            if sidecar is not None and name not in sidecar["splits"]:
                report.notes.append("no val split: for pretraining and features, nothing can be tested on it")
                continue
        try:
            split = open_split(
                folder, name, report.layout.joints, report.persons, len(classes) if classes else MAX_CLASSES
            )
        except UserError as error:
            report.wrong.append(f"{name}: {error}")
            continue
        sidecar = split.sidecar or sidecar
        bar = (lambda x, name=name: progress(x, f"{folder.name} {name}")) if progress else None
        m = report.measures[name] = measure_split(split, report.layout, most_clips, bar)
        columns[name] = _column(m, len(classes or range(split.labels.max() + 1)))
        for wrong, sentence in (
            *_label_findings(split, classes),
            *_body_findings(m, expected.dimensions),
            *_clip_findings(m, strict),
            *_origin_findings(m, expected.counts and expected.counts[position]),
        ):
            (report.wrong if wrong else report.notes).append(f"{name}: {sentence}")
    if len(report.measures) == 2:
        shared = set.intersection(*(set(m.split.names) for m in report.measures.values()))
        if shared:
            report.wrong.append(f"{len(shared)} clips are in train and in val, such as {min(shared)}")
    for key in next(iter(columns.values()), {}):
        report.rows.append((key, *(columns.get(name, {}).get(key, "-") for name in SPLITS)))
    if columns:
        report.rows.append(("prepared by", describe_sidecar(sidecar), ""))
        if sidecar is None:
            report.notes.append("no preparation.json says what made these arrays")
    return report


def sidecar_steps(sidecar: dict | None):
    """The names of the normalisation steps in a sidecar; None when there is no sidecar or it does not say."""
    steps = (sidecar or {}).get("normalisation")
    return steps if isinstance(steps, list) and all(isinstance(step, str) for step in steps) else None


def describe_sidecar(sidecar: dict | None) -> str:
    """Source and normalisation of a sidecar in one line."""
    if sidecar is None:
        return "unknown"
    steps = sidecar_steps(sidecar)
    normalisation = "not stated" if steps is None else " ".join(steps) or "none"
    return f"{str(sidecar.get('source', 'source not stated'))[:200]}; normalisation: {normalisation}"


def format_report(report: Report, full: bool = False) -> str:
    """The table as text; `full` adds a line for each class and for each bone."""
    persons = f"{report.persons} person{'s' * (report.persons > 1)}"
    lines = [f"{report.folder}  ({report.expected.title}; {report.layout.name}, {persons})"]
    if report.rows:
        lines.append(f"  {'':40}{'train':>28}{'val':>28}")
    for name, train, val in report.rows:
        lines.append(f"  {name:40}{train:>28}{val:>28}" if val else f"  {name:40}  {train}")
    if full and report.measures:
        lines += _histogram_lines(report) + _bone_lines(report)
    lines += [f"  WRONG: {text}" for text in report.wrong] + [f"  note: {text}" for text in report.notes]
    return "\n".join(lines + ["  " + ("nothing wrong" if not report.wrong else f"{len(report.wrong)} wrong")])


def _histogram_lines(report: Report) -> list[str]:
    labels, classes = [m.split.labels for m in report.measures.values()], report.expected.classes
    number = len(classes) if classes else 1 + max(map(max, labels))
    counts = [np.bincount(one, minlength=number) for one in labels]
    lines = [f"  {'class':44}" + "".join(f"{name:>10}" for name in report.measures)]
    for k in range(number):
        name = f"{k:4}  {classes[k] if classes else ''}"
        lines.append(f"  {name:44}" + "".join(f"{count[k]:>10}" for count in counts))
    return lines


def _bone_lines(report: Report) -> list[str]:
    names, measures = report.layout.names, report.measures.values()
    length, spread = (np.concatenate([m.clips[what] for m in measures]) for what in ("length", "spread"))
    lines = [f"  {'bone':44}{'median':>10}{'spread %':>10}"]
    for joint, parent in enumerate(report.layout.parents):
        if joint != parent:
            name = f"{names[parent]} - {names[joint]}"
            lines.append(f"  {name:44}{_median(length[:, joint]):>10.3f}{100 * _median(spread[:, joint]):>10.1f}")
    return lines


def draw_report(path, report: Report, most_rows: int = 10) -> None:
    """Draws one clip of each of up to `most_rows` classes, evenly chosen, of the first split that could be read; clips that
    were normalised with z upwards, as an encoder reads them, so that one that was tipped over lies in the picture."""
    if not report.measures:
        raise UserError(f"{report.folder}: no split could be read, so there is nothing to draw")
    split, classes = next(iter(report.measures.values())).split, report.expected.classes
    labels = split.labels[split.kept]
    present = np.unique(labels)
    chosen = present[np.linspace(0, len(present) - 1, min(most_rows, len(present))).round().astype(int)]
    indices = [split.kept[np.flatnonzero(labels == label)[0]] for label in chosen]
    clips = [np.array(split.data[i][:, : split.num_frame[i]]) for i in indices]
    names = [classes[label] if classes else f"class {label}" for label in chosen]
    titles = [f"{name}: {split.names[i]}" for name, i in zip(names, indices, strict=True)]
    up = Z_UP if "spine" in (sidecar_steps(split.sidecar) or ()) else None
    draw_clips(path, clips, report.layout, titles, up=up)


def parse(argv=None) -> argparse.Namespace:
    parser = reader_parser("check", __doc__)
    parser.add_argument("folder", help="a data set folder (data/ntu60) or one of its protocols (data/ntu60/xsub)")
    text = "whose classes and counts are expected; default: found from the folder's name or the dataset.json in it"
    parser.add_argument("--dataset", choices=sorted(DATASETS), help=text)
    text = "joint layout; default: that of the data set, or by number of joints"
    parser.add_argument("--layout", choices=sorted(LAYOUTS), help=text)
    text = (
        "read only N clips of each split, evenly spread, for a quick look; 0 (default) reads all, as is due once after "
    )
    text += "a preparation: a few bad clips are not found by sampling"
    parser.add_argument("--clips", type=natural, default=0, metavar="N", help=text)
    text = "clips that do not move, are no person in metres or are upside down are WRONG"
    parser.add_argument("--strict", action="store_true", help=text)
    parser.add_argument("--full", action="store_true", help="add the number of clips of each class and every bone")
    text = "write a sheet of stick figures, one clip of up to ten classes of the first protocol: what no number shows. Upright "
    text += "figures with two arms and two legs that move as the class name says are right"
    parser.add_argument("--picture", metavar="FILE.png", help=text)
    return parser.parse_args(argv)


def main(argv=None) -> int:
    args = parse(argv)
    if args.picture:
        check_picture_path(args.picture)
    progress = lambda clips, text: tqdm(clips, desc=text, unit="clip", leave=False, disable=None)  # noqa: E731
    wrong = 0
    for position, folder in enumerate(find_folders(args.folder)):
        report = check_protocol(folder, expect(folder, args.dataset, args.layout), args.clips, progress, args.strict)
        print(format_report(report, args.full))
        wrong += len(report.wrong)
        if args.picture and position == 0:
            draw_report(args.picture, report)
            print(f"  picture of {folder}: {args.picture}")
    return 2 if wrong else 0


if __name__ == "__main__":
    run(main, sys.argv[1:])
