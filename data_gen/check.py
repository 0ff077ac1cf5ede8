"""Checks a prepared folder: `python -m data_gen.check data/ntu60` reads it and says what is wrong with it.

For a protocol folder (with `train_data_joint.npy` and its companions), or all of them in a data set folder, it opens each
split as the programs do, reads every clip once through the memory map (one clip in memory at a time) and prints a table:
counts, frames, labels, empty and non-finite clips, persons, bone lengths and orientation. Errors are listed below the
table as WRONG and make the exit status 2; what is unusual but possible is a note. The expected values come from the
registry row of the folder name, from the `dataset.json` beside it, or from `--dataset`; the joint layout from the same
row, or from the number of joints.

Bones are measured as joint minus parent of person 1, in up to 16 frames spread over a clip, by three figures: the median
length; the spread, the standard deviation over the frames of a clip divided by the mean; and the asymmetry,
|left - right| divided by their mean, of a clip's median lengths. Bones of a body have constant lengths, so a reader that
mixes up axes or joints is noticed here first.
"""

import argparse
import sys
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_gen.build import coordinates_checksum
from data_gen.from_files import add_flags, reader_parser
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
TURNED = 0.99  # least cosine for a direction that was rotated to its axis
MOST_SPREAD = 0.3  # of a median bone within a clip; 0.03 for the Kinect of UI-PRMD
MOST_ASYMMETRY = 0.3  # of mirrored bones; 0.05 for the Kinect of UI-PRMD
MOST_ZERO = 0.01  # largest share of all-zero clips (PKU-MMD has some)
TOES = ("foot", "foot index", "big toe")  # names of joints in front of the ankle, in order of preference


@dataclass
class Expected:
    """The expected properties of a protocol folder; layout, persons, classes: None = as in the arrays."""

    title: str
    layout: Layout | None = None
    persons: int | None = None
    classes: tuple[str, ...] | None = None
    counts: tuple[int, int] | None = None
    dimensions: int = 3


@dataclass
class Report:
    """The findings in one protocol folder. rows: (name, value of train, value of val) of the table; wrong, notes: the lines
    below it; measures: split -> its measurements."""

    folder: Path
    expected: Expected
    layout: Layout
    persons: int
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    measures: dict[str, "Measures"] = field(default_factory=dict)


class Measures:
    """Measurements of a split. clips: name of a figure of `measure_clip` -> array over the clips with at least one frame;
    checksum: of the coordinates of all clips, to compare with the sidecar, None when not all were read."""

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
        """How many clips are flagged, as text."""
        return f"{int(flags.sum())} ({100 * flags.mean():.1f} %)" if len(flags) else "0"

    def at_least(self, name: str, cosine: float) -> float:
        """Share of clips whose figure is at least `cosine`, of those where it is finite; 1 when none is."""
        values = self.clips[name][np.isfinite(self.clips[name])]
        return float((values >= cosine).mean()) if len(values) else 1.0


def find_folders(folder) -> list[Path]:
    """The protocol folders: `folder` itself, or its subfolders sorted by name; UserError when there is none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; give a prepared folder such as data/ntu60")
    holds = lambda path: any(file.is_file() for split in SPLITS for file in split_files(path, split))  # noqa: E731
    if holds(folder):
        return [folder]
    found = [path for path in sorted(folder.iterdir()) if path.is_dir() and path.suffix != ".tmp" and holds(path)]
    if not found:
        raise UserError(
            f"{folder}: neither it nor a subfolder has train_data_joint.npy; give a prepared folder such as "
            "data/ntu60 or data/ntu60/xsub"
        )
    return found


def expect(folder, dataset: str | None = None, layout: str | None = None) -> Expected:
    """The expected properties of a protocol folder, from its name, from a `dataset.json` beside it, or from `dataset`.

    UserError for an unknown data set or layout and for a malformed dataset.json."""
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
    """(layout, persons) as expected, or else from the shape of the first readable array."""
    joints, persons = None, expected.persons
    for split in SPLITS:
        try:
            shape = map_npy(split_files(folder, split)[0]).shape
        except (UserError, OSError):  # open_split reports it
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
    """Cosine between the direction of the feet of `body` (3, V) and the forward direction from its spine and shoulders.

    Above 0 in right-handed coordinates; below 0 the clip is mirrored (left and right, or two axes, are swapped)."""
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

    non_finite: number of values that are not finite; zero: whether every frame is zero; deep: whether a third coordinate is
    not zero; empty_frames: share of frames without person 1; persons: how many appear; repeated: whether person 2 is an
    exact copy of person 1; off_centre: largest |coordinate| of person 1's centre joint; up, across: cosine in frame 0 of
    the spine with +z, of the shoulders with +x; facing: see `_facing`; length, spread (V,): of bones, see the module; NaN
    where a figure cannot be measured; faults: of utils.clip_check."""
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
    """Reads all clips of a split, or `most_clips` evenly spread ones, and measures each. progress: wraps the sequence of clip
    indices (a tqdm bar)."""
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


# Findings are pairs (True for an error, False for a note; sentence).


def _label_findings(split: Split, classes: tuple[str, ...] | None):
    number = len(classes) if classes else int(split.labels.max()) + 1
    missing = np.flatnonzero(np.bincount(split.labels, minlength=number) == 0)
    if len(missing):
        names = ", ".join(f"{k} ({classes[k]})" if classes else str(k) for k in missing[:5])
        yield False, f"no clip of class {names}{' and others' if len(missing) > 5 else ''}"
    if sorted(split.names) != split.names:
        yield False, "clips are not sorted by name; streams prepared elsewhere may not match by position"


def _body_findings(m: Measures, dimensions: int):
    """Whether the points can be a body of this layout. In two dimensions bone lengths change with the view and are not
    checked."""
    deep = int(m.clips["deep"].sum())
    if dimensions == 2:
        if deep:
            yield True, f"{deep} clips have a depth other than 0, but dataset.json says two dimensions"
        return
    if not deep and not m.clips["zero"].all():
        yield True, "no clip has a depth; for clips of a picture dataset.json must have 'dimensions': 2"
    spread, asymmetry = m.median("spread"), m.median("asymmetry")
    if spread > MOST_SPREAD:
        yield (
            True,
            f"the median bone varies by {100 * spread:.0f} % of its length within a clip; axes or joints are mixed up",
        )
    elif asymmetry > MOST_ASYMMETRY:
        order = f"the joints are not in the order of {m.layout.name}, or axes are mixed up"
        yield True, f"left and right bones differ by {100 * asymmetry:.0f} %; {order}"
    if m.at_least("facing", 0.0) < 0.5:
        swapped = "left and right, or two axes, may be swapped (look at --picture)"
        yield False, f"in most clips the feet point backwards; {swapped}"


def _clip_findings(m: Measures, strict: bool):
    """Findings about coordinates, normalisation, and single clips (utils.clip_check)."""
    clips, steps = m.clips, sidecar_steps(m.split.sidecar)
    if (clips["non_finite"] > 0).any():
        yield True, f"{int((clips['non_finite'] > 0).sum())} clips hold NaN or infinite coordinates; prepare them again"
    if clips["zero"].any():
        yield clips["zero"].mean() > MOST_ZERO, f"{m.share(clips['zero'])} clips are zero in all frames"
    if clips["repeated"].any():
        yield False, f"person 2 is a copy of person 1 in {m.share(clips['repeated'])} clips"
    turned = m.at_least("across", TURNED) >= 0.95 and m.at_least("up", 0.5) >= 0.95
    centred = m.median("off_centre") < 1e-3
    if steps is None and not (turned and centred):
        state = " and ".join(text for ok, text in ((centred, "centred"), (turned, "turned upright")) if not ok)
        yield False, f"clips are not {state}; they are raw, or come from another preparation"
    if {"spine", "shoulders"} <= set(steps or ()) and not turned:
        yield True, "the sidecar says that clips are turned upright, but they are not"
    if "centre" in (steps or ()) and not centred:
        yield True, "the sidecar says that clips are centred, but they are not"
    odd = OddClips()
    for name, faults in zip(clips["names"], clips["faults"], strict=True):
        odd.add(name, {kind: words for kind, words in faults.items() if kind != "empty"})  # counted above
    yield from ((strict, sentence) for sentence in odd.sentences(len(clips["names"])))


def _origin_findings(m: Measures, expected_clips: int | None):
    """Compares layout and coordinates with the sidecar (open_split has compared labels and counts), and the number of clips
    with the published one."""
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
        yield True, f"{len(split.names)} clips, expected {expected_clips}; {why}"


def check_protocol(folder, expected: Expected, most_clips: int = 0, progress=None, strict: bool = False) -> Report:
    """Checks one protocol folder. strict: clips that utils.clip_check finds odd are errors instead of notes.

    UserError only when the joint layout cannot be determined."""
    folder = Path(folder)
    report = Report(folder, expected, *_shape_from_array(folder, expected))
    columns, sidecar, classes = {}, None, expected.classes
    for position, name in enumerate(SPLITS):
        if name == "val" and columns and not any(file.exists() for file in split_files(folder, name)):
            if sidecar is not None and name not in sidecar["splits"]:
                report.notes.append("no val split: usable for pretraining and features, but not for evaluation")
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
            report.notes.append("no preparation.json, so the source of these arrays is not known")
    return report


def sidecar_steps(sidecar: dict | None):
    """The names of the normalisation steps in a sidecar; None without a sidecar or when they are not stated."""
    steps = (sidecar or {}).get("normalisation")
    return steps if isinstance(steps, list) and all(isinstance(step, str) for step in steps) else None


def describe_sidecar(sidecar: dict | None) -> str:
    """Source and normalisation from a sidecar in one line."""
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
    """Draws one clip of each of up to `most_rows` evenly chosen classes of the first readable split. Normalised clips are
    drawn with z upwards, as an encoder reads them, so that a clip with wrong axes lies on its side."""
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


FLAGS = """
--dataset NAME
    data set whose classes and counts are expected: $datasets; default: found from the folder's name or its dataset.json
--layout LAYOUT:layout  joint layout: $layouts; default: that of the data set, or found from the number of joints
--clips N:natural = 0
    read only N evenly spread clips of each split, for a quick look; 0 reads all, which is needed once after a
    preparation, since a sample misses a few bad clips
--strict  report clips that do not move, are not of human size in metres or are upside down as WRONG
--full  also print the number of clips of each class, and every bone
--picture FILE.png
    draw one clip of each of up to ten classes of the first protocol as stick figures; right are upright figures with two
    arms and two legs that move as the class name says
"""


def parse(argv=None) -> argparse.Namespace:
    parser = reader_parser("check", __doc__)
    parser.add_argument("folder", help="a data set folder (data/ntu60) or one of its protocols (data/ntu60/xsub)")
    add_flags(parser, table=FLAGS, datasets=", ".join(sorted(DATASETS)))
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
