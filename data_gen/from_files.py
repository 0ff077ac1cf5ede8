"""What all readers share: the target folder and its description, class numbers, temporary clips, flags, the summary.

A reader (from_arrays, from_ctrgcn, from_poses, from_pyskl, prepare_ntu, prepare_pku) describes what it found in files
as a `Source` and passes a loader of its clips; `prepare` writes the data set.

`Source.target` decides what is written where. A name in the registry (ntu60, ...) has its classes, layout, persons and
protocols there. Any other name is a data set of the user: `dataset.json` beside its protocol folders holds the same four
things, so that every program knows the data set by its name. A dataset.json that exists already must agree; two tasks
with different classes need two names.

`TemporaryClips` holds clips in one temporary file, so that a file that can only be read as a whole (a pickle) or from
start to end (a compressed archive) is read once, and every worker process maps the part it needs.
"""

import argparse
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_gen.build import BuildReport, Stored, build_dataset
from data_gen.normalise import STEPS, parse_steps
from options import common
from options.common import Formatter, Parser
from options.datasets import DATASETS, MAX_CLASSES, DescriptionError, from_description
from utils.arrays import FRAMES, building_folder
from utils.convert_layout import describe_conversion
from utils.errors import UserError, as_user_error, warn
from utils.files import MAX_UNPACKED, load_json, read_text, write_json
from utils.skeleton import LAYOUTS, Layout, get_layout

PROTOCOL_FOLDERS = {"cross_subject": "xsub", "cross_view": "xview", "cross_setup": "xset"}
DEFAULT_LAYOUT = "kinect_v2_25"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Source:
    """What a reader found. text: one line that says where the clips come from.

    protocols: protocol -> {"train": names, "val": names}, without val if there are no test clips; labels: name -> class
    number from 0; classes: their names, or only how many; persons: the most in any clip; layout: name of the layout to
    store, None for that of the data set; came_as: layout of the clips if it differs; dimensions: 3, or 2 for clips in the
    plane of a picture; details: further entries of preparation.json."""

    text: str
    protocols: dict[str, dict[str, list[str]]]
    labels: dict[str, int]
    classes: tuple[str, ...] | int
    persons: int
    layout: str | None = None
    came_as: Layout | None = None
    dimensions: int = 3
    details: dict = field(default_factory=dict)

    def target(self, data_root, name: str) -> "Target":
        """Folder and description of the data set `name`. UserError for a bad name, or when the source contradicts the
        registry, an existing dataset.json or the flags."""
        names = self.classes
        if isinstance(names, int) and names > MAX_CLASSES:
            raise UserError(f"{names} classes are too many (at most {MAX_CLASSES}); is a label not a class number?")
        if name in DATASETS:
            return self._registry_target(data_root, name)
        for text in (name, *self.protocols):
            if not _NAME.fullmatch(text):
                raise UserError(f"{text!r} cannot name a folder; use letters, digits, - and _, such as my_data")
        description = {
            "classes": [f"class {k}" for k in range(names)] if isinstance(names, int) else list(names),
            "protocols": {protocol: PROTOCOL_FOLDERS.get(protocol, protocol) for protocol in self.protocols},
            "layout": get_layout(self.layout or DEFAULT_LAYOUT).name,
            "persons": self.persons,
            **({} if self.dimensions == 3 else {"dimensions": self.dimensions}),
        }
        folder = Path(data_root) / name
        description["protocols"] = _agree(folder / "dataset.json", name, description) | description["protocols"]
        with as_user_error(f"data set {name}", DescriptionError):
            row = from_description(name, description)
        folders = {protocol: description["protocols"][protocol] for protocol in self.protocols}
        return Target(folder, get_layout(row.layout), self.persons, row.classes, folders, description)

    def _registry_target(self, data_root, name: str) -> "Target":
        row = DATASETS[name]
        if not isinstance(self.classes, int):
            raise UserError(f"the class names of {name} are fixed; give another --name for classes of your own")
        if self.dimensions != 3:
            raise UserError(f"{name} has three dimensions, these clips have {self.dimensions}; give another --name")
        for protocol in self.protocols:
            if protocol not in row.protocols:
                raise UserError(
                    f"{name} has no protocol {protocol!r}, only {', '.join(row.protocols)}; give another --name if this is "
                    "another data set"
                )
        if self.classes > row.num_classes:
            raise UserError(f"{name} has {row.num_classes} classes, the file has {self.classes}; give another --name")
        if self.layout not in (None, row.layout):
            raise UserError(
                f"{name} has joint layout {row.layout}, not {self.layout}; leave --layout out, or change --name"
            )
        if self.persons > row.persons:
            raise UserError(
                f"{name} has {row.persons} persons a clip, the file has {self.persons}; give --persons {row.persons}"
            )
        folders = {protocol: row.protocols[protocol][0] for protocol in self.protocols}
        return Target(Path(data_root) / row.folders[0], get_layout(row.layout), row.persons, row.classes, folders, None)


def prepare(args: argparse.Namespace, source: Source, load, group=None) -> tuple[Path, str]:
    """Builds the protocol folders of a source with the flags of HOW and writes its dataset.json. load, group: see
    `build_dataset`. Returns (folder of the data set, summary to print)."""
    steps = parse_steps(args.normalise, source.dimensions)
    target = source.target(args.data_root, args.name)
    warn_of_empty_classes(source.labels, source.protocols, target.classes)
    stored = Stored(
        target.layout, target.persons, args.frames, steps, source.came_as, source.dimensions, args.on_bad, args.strict
    )
    protocols = {target.folders[protocol]: splits for protocol, splits in source.protocols.items()}
    about = {"source": source.text, "workers": args.workers, "group": group, "details": source.details}
    report = build_dataset(target.folder, stored, protocols, source.labels, load, **about)
    write_description(target)
    return target.folder, summary(target.folder, report)


@dataclass(frozen=True)
class Target:
    """Folder and description of a data set. folders: protocol -> folder name; description: the dataset.json to write,
    None for a data set of the registry."""

    folder: Path
    layout: Layout
    persons: int
    classes: tuple[str, ...]
    folders: dict[str, str]
    description: dict | None


def class_number(place: str, label) -> int:
    """A class number from a file -> int; UserError unless it is a whole number in 0..MAX_CLASSES (classes may be counted
    from 1). Called before anything is made per class: a label of 10**9 would ask for 10**9 class names."""
    if isinstance(label, np.ndarray) and label.size == 1:
        label = label.reshape(-1)[0]
    if isinstance(label, (bool, np.bool_)) or not isinstance(label, (int, np.integer)) or not 0 <= label <= MAX_CLASSES:
        raise UserError(
            f"{place}: its label is {str(label)[:40]!r}, expected a class number from 0 to {MAX_CLASSES - 1}"
        )
    return int(label)


def first_label(low: int, most: int, known: int | None = None, first: int | None = None) -> int:
    """The number of the first class, 0 or 1, where labels are low..most. first: the value of --labels-from, None to decide.

    Labels count from 1 if the lowest is 1, unless `known`, the number of classes, is above `most`. A warning says so,
    because class 0 may also just have no clips here. UserError when a label is below `first`."""
    if first is None:
        first = int(low == 1 and (known is None or most >= known))
        if first:
            warn(f"the lowest label is 1: classes are taken as 1 to {most}; if they begin at 0, give --labels-from 0")
    if low < first:
        raise UserError(f"the lowest label is {low}, but --labels-from {first} says that labels begin at {first}")
    return first


def from_zero(numbers: dict[str, int], classes=None, first: int | None = None, known: int | None = None):
    """(clip -> class number from 0, `classes` or their number), from the class numbers in files. classes: names in the
    order of the numbers; first, known: see `first_label`. UserError when a number is above those of `classes`."""
    most = max(numbers.values(), default=0)
    first = first_label(min(numbers.values(), default=0), most, len(classes) if classes else known, first)
    if classes is not None and most - first >= len(classes):
        raise UserError(f"--classes names {len(classes)} classes, but the file has label {most - first}")
    return {name: number - first for name, number in numbers.items()}, classes or most - first + 1


def number_labels(labels: dict[str, str], classes: tuple[str, ...] | None = None, first: int | None = None):
    """(clip -> class number from 0, class names or their number) of labels as text.

    Labels that are all whole numbers are class numbers, counted from `first` (None: see `first_label`). Otherwise they are
    class names, numbered in the order of `classes`, or alphabetically. UserError when a label is not among `classes`."""
    digits = [text for text in labels.values() if text.isascii() and text.isdigit()]
    if len(digits) < len(labels):
        if first is not None:
            raise UserError("--labels-from is for labels that are numbers; these are names: leave the flag out")
        if digits and classes is None:
            other = next(text for text in labels.values() if text not in digits)
            warn(
                f"{len(digits)} of {len(labels)} labels are numbers, others such as {other!r} are not; all are taken as "
                "class names"
            )
        return number_names(labels, classes)
    numbers = {name: class_number(f"clip {name}", int(text.lstrip("0")[:12] or "0")) for name, text in labels.items()}
    return from_zero(numbers, classes, first)


def warn_of_empty_classes(labels: dict[str, int], protocols: dict[str, dict], classes: tuple[str, ...]) -> None:
    """Warns of classes without a training clip in a protocol: no model can learn them."""
    for protocol, splits in protocols.items():
        present = {labels[name] for name in splits.get("train", ()) if name in labels}
        missing = [f"{k} ({name})" for k, name in enumerate(classes) if k not in present]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            warn(f"{protocol}: no training clip of class {', '.join(missing[:3])}{more}, of {len(classes)} classes")


def _agree(path: Path, name: str, description: dict) -> dict:
    """The protocols in an existing dataset.json, {} without one; UserError when it describes another data set."""
    if not path.is_file():
        return {}
    old = load_json(path)
    for key, default in (("classes", None), ("layout", None), ("persons", None), ("dimensions", 3)):
        if not isinstance(old, dict) or old.get(key, default) != description.get(key, default):
            raise UserError(
                f"{path}: describes another data set (its {key!r} differs from the new one's); give another --name, or "
                f"remove {path.parent} first"
            )
    return old["protocols"] if isinstance(old.get("protocols"), dict) else {}


def write_description(target: Target) -> None:
    """Writes dataset.json for a data set that is not in the registry, once its protocol folders are complete."""
    if target.description is not None:
        write_json(target.folder / "dataset.json", target.description)


def number_names(labels: dict[str, str], classes: tuple[str, ...] | None) -> tuple[dict[str, int], tuple[str, ...]]:
    """(clip -> class number, class names) of labels that are class names. classes: names in the order of their numbers,
    None for alphabetical order. UserError when a label is not among them."""
    classes = classes or tuple(sorted(set(labels.values())))
    number = {text: k for k, text in enumerate(classes)}
    for name, text in labels.items():
        if text not in number:
            raise UserError(f"clip {name}: its label {text!r} is not among the class names {', '.join(classes)[:200]}")
    return {name: number[text] for name, text in labels.items()}, classes


def texts_of_names(names, pattern: str, flag: str) -> dict[str, str]:
    """name -> the groups of the regular expression `pattern` in it, joined by spaces (the whole match if there are no
    groups). flag: where the pattern was given. UserError for a malformed pattern, or a name that it does not match."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"{flag} {pattern!r}: not a regular expression ({error})") from None
    texts = {}
    for name in names:
        match = expression.search(name)
        if match is None:
            raise UserError(f"{flag} {pattern!r}: does not match the clip name {name!r}")
        texts[name] = " ".join(group or "" for group in match.groups()) if match.groups() else match[0]
    return texts


class TemporaryClips:
    """Clips of any float type in one temporary file; a picklable loader for `build_dataset`.

    `add(name, clip)` appends a clip (M, T, V, C), `refuse(name, reason)` records one that could not be read, `close()`
    ends writing. Calling the object with a name returns (C, T, V, M) float32, or raises UserError with the reason."""

    def __init__(self, path):
        self.path = Path(path)
        self.places: dict[str, tuple[int, tuple[int, ...], str]] = {}
        self.reasons: dict[str, str] = {}
        self._file = open(self.path, "wb")
        self._data = None

    def add(self, name: str, clip: np.ndarray) -> None:
        clip = np.ascontiguousarray(clip, dtype=clip.dtype.newbyteorder("<"))
        self.places[name] = (self._file.tell(), clip.shape, clip.dtype.str)
        self._file.write(clip.tobytes())

    def refuse(self, name: str, reason: str) -> None:
        self.reasons[name] = reason

    def close(self) -> None:
        self._file.close()

    def rename(self, names: dict[str, str]) -> None:
        """Renames the clips. names: old -> new name of every clip."""
        self.places = {names[name]: place for name, place in self.places.items()}

    def __getstate__(self):
        return {**self.__dict__, "_file": None, "_data": None}

    def __call__(self, name: str) -> np.ndarray:
        if name in self.reasons:
            raise UserError(self.reasons[name])
        if self._data is None:
            self._data = np.memmap(self.path, dtype=np.uint8, mode="r")
        offset, shape, dtype = self.places[name]
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        clip = self._data[offset : offset + size].view(dtype).reshape(shape)
        return clip.transpose(3, 1, 2, 0).astype(np.float32)


def read_class_names(path) -> tuple[str, ...]:
    """Class names from a text file, one per line in the order of their numbers; UserError when two are equal."""
    names = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    if not names:
        raise UserError(f"{path}: holds no class name; expected one per line")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path}: class name {twice!r} appears twice")
    return names


# -- flags ------------------------------------------------------------------------------------------------------------


def _axes(text: str) -> str:
    """An argparse type: an order of axes, '' for the default."""
    axes = text.upper()
    if text and not {"V", "C"} <= set(axes) <= set("TVCM") or len(set(axes)) < len(axes):
        raise argparse.ArgumentTypeError(
            f"expected an order of T, V, C, with M for several persons, such as TVC or CTVM, got {text!r}"
        )
    return axes


def _layout(text: str) -> str:
    """An argparse type: the name of a joint layout."""
    return get_layout(text).name


KINDS = {"axes": _axes, "layout": _layout}  # argparse types beside those of options.common
WORDS = {"steps": ", ".join(STEPS), "layouts": ", ".join(sorted(LAYOUTS)), "kinect": DEFAULT_LAYOUT}

# Flags that several readers have, one row for each (a table of options.common); a reader names those that it has.
SHARED = rf"""
--name NAME!  name of the new data set; other programs take it as --dataset NAME
--data-root FOLDER = data
    folder of all data sets; a protocol takes about 180 kB per clip at 300 frames, 25 joints and 2 persons
--normalise all|none|STEPS = all
    all: $steps, as for every published number; or some of these steps, separated by commas; or none for raw
    coordinates, for detection or for clips that are normalised already
--frames FRAMES:positive_int = {FRAMES}  frames stored per clip; longer clips are cut; fewer frames save disk space
--workers N:positive_int  number of processes, default: all cores; fewer need less memory; the arrays are the same
--strict
    treat clips that are all zero, do not move, are not of human size in metres, or are upside down as bad (see
    --on-bad); without it they are kept, with a warning, and listed in preparation.json
--on-bad {{refuse,skip}} = refuse
    for a damaged file or an unusable clip: refuse stops at the first one and writes nothing; skip leaves such clips
    out, counts them and lists them in preparation.json
--max-unpacked GB:positive = {MAX_UNPACKED / 1e9}
    most memory that one array or pickle may need when its file is smaller, since a few MB can unpack to many GB of
    zeros; raise it if a clip of yours really is so large
--labels-from N:int>=0<=1
    number of the first class, 0 or 1, for labels that are numbers; default: 1 if the lowest label is 1 (with a
    warning), else 0; give 0 if class 0 has no clip in this file
--label-from-name REGEX
    regular expression for clip names; its groups, joined by spaces, are the class: '(m\d+).*_(cor|inc)' gives
    m01_s02_e03_inc the class 'm01 inc'
--classes FILE.txt
    class names, one per line, in the order of their numbers; keeps the numbers when a class has no clip
--persons M:positive_int  persons stored per clip; default: the most that any clip has (known data sets: 2)
--axes AXES:axes = ""
    order of the axes of your arrays: T frames, V joints, C coordinates (and a score, for poses), M persons, such as
    CTV for arrays (3, T, V); default: TVC or MTVC; for poses, found from the sizes
--layout LAYOUT:layout
    joint layout of your clips, which is the order of the joints: $layouts; default: that of a known data set, else
    $kinect; check it with data_gen.check --picture
--as LAYOUT:layout
    convert to this joint layout before storing, such as kinect_v2_25 for published encoders, and print which joints
    are computed; programs also convert by themselves where an encoder needs it
"""
_ROWS = {row.split()[0]: row for row in re.split(r"\n(?=\S)", SHARED.strip())}
HOW = ("--data-root", "--normalise", "--frames", "--workers", "--strict", "--on-bad")  # flags of all readers


class _Formatter(Formatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the description, and shows defaults."""


def reader_parser(name: str, description: str) -> argparse.ArgumentParser:
    """The parser of a program in data_gen. description: its docstring, of which --help shows what is above `Design:`."""
    shown = description.partition("\nDesign:")[0]
    return Parser(prog=f"python -m data_gen.{name}", formatter_class=_Formatter, description=shown)


def add_flags(g, *names: str, table: str = "", **words: str) -> None:
    """Adds flags to a parser or an argument group: those named in SHARED, then those of a table of options.common."""
    rows = [_ROWS[name] for name in names] + [table.strip()] * bool(table)
    common.add_flags(g, "\n".join(rows), KINDS, **(WORDS | words))


def layouts_of(args) -> tuple[str | None, Layout | None]:
    """(name of the layout to store, None for that of the data set; layout of the clips if it differs, else None).

    Prints how joints are converted; UserError for a conversion that is not possible."""
    wanted = vars(args)["as"]
    if wanted is None:
        return args.layout, None
    source = get_layout(args.layout or DEFAULT_LAYOUT)
    print(describe_conversion(source, get_layout(wanted)))
    return wanted, source


def scratch_folder(args: argparse.Namespace):
    """A context with a folder beside the data set for unpacked clips, removed at the end."""
    return building_folder(Path(args.data_root) / f"{args.name}.clips")


def summary(folder: Path, report: BuildReport) -> str:
    """The lines printed after preparing `folder`: counts, what was left out, and what to type next."""
    lines = []
    for protocol, counts in report.counts.items():
        tested = f" and {counts['val']} val" if "val" in counts else ""
        lines.append(f"{folder / protocol}: {counts['train']} train{tested} clips")
    if report.skipped:
        name = min(report.skipped)
        lines.append(
            f"{len(report.skipped)} clips left out, listed in preparation.json; the first: {report.skipped[name]}"
        )
    if report.longer:
        lines.append(f"{len(report.longer)} clips have more frames than --frames and were cut")
    lines.append(f"next: python -m data_gen.check {folder}")
    return "\n".join(lines)
