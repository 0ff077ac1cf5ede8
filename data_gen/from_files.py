"""What all readers share: where a data set goes, its description, temporary clips, flags, the building and the last lines.

A reader of `data_gen` (from_arrays, from_ctrgcn, from_poses, from_pyskl, prepare_ntu, prepare_pku) says what it found in files
as a `Source`, and gives a loader of its clips; `prepare` does the rest.

`Source.target` decides what is written where. A name of the registry (ntu60, ...) brings its classes, layout, persons and
protocols; any other name is a data set of the user's own, and a `dataset.json` beside its protocol folders says the
same four things, so that every program knows it by that name. A description that already lies there must agree: two
tasks with other classes need two names.

`TemporaryClips` holds clips in one temporary file, so that a file which can only be read as a whole (a pickle) or from
front to back (a compressed archive) is read once, and every worker process maps what it needs.
"""

import argparse
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_gen.build import BuildReport, Stored, build_dataset
from data_gen.normalise import STEPS, parse_steps
from options.common import Parser, positive, positive_int
from options.datasets import DATASETS, MAX_CLASSES, DescriptionError, from_description
from utils.arrays import FRAMES, building_folder
from utils.convert_layout import say_conversion
from utils.errors import UserError, as_user_error, warn
from utils.files import MAX_UNPACKED, load_json, read_text, write_json
from utils.skeleton import LAYOUTS, Layout, get_layout

PROTOCOL_FOLDERS = {"cross_subject": "xsub", "cross_view": "xview", "cross_setup": "xset"}
DEFAULT_LAYOUT = "kinect_v2_25"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Source:
    """What a reader found. text: one line that says where the clips come from.

    protocols: protocol -> {"train": names, "val": names}, val left out for clips without a test; labels: name -> class number
    from 0; classes: their names, or only their number; persons: the most of any clip; layout: of what is written, None for the
    data set's own; came_as: of the clips, where that is another; dimensions: 3, or 2 for clips of a picture's plane; details:
    more for preparation.json."""

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
        """Where the data set `name` goes, and what it is. UserError for a bad name, and when source, registry, an existing
        description and flags disagree."""
        names = self.classes
        if isinstance(names, int) and names > MAX_CLASSES:
            raise UserError(f"{names} classes are too many (at most {MAX_CLASSES}): a label is no class number")
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
    """Builds the protocol folders of a source as the flags of HOW say, and describes the data set. load, group: see
    `build_dataset`. Returns the data set's folder and what a program says at its end."""
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
    return target.folder, say_what_was_done(target.folder, report)


@dataclass(frozen=True)
class Target:
    """Where a data set goes and what it is. folders: protocol -> folder name; description: the dataset.json to write,
    None for a data set of the registry."""

    folder: Path
    layout: Layout
    persons: int
    classes: tuple[str, ...]
    folders: dict[str, str]
    description: dict | None


def class_number(place: str, label) -> int:
    """A class number as a file states it -> int; UserError for what is no whole number in 0..MAX_CLASSES (numbers may count
    from 1). It comes before anything is made for each class: a label of 10**9 would ask for a name for each number."""
    if isinstance(label, np.ndarray) and label.size == 1:
        label = label.reshape(-1)[0]
    if isinstance(label, (bool, np.bool_)) or not isinstance(label, (int, np.integer)) or not 0 <= label <= MAX_CLASSES:
        raise UserError(
            f"{place}: its label is {str(label)[:40]!r}, expected a class number from 0 to {MAX_CLASSES - 1}"
        )
    return int(label)


def first_label(low: int, most: int, known: int | None = None, first: int | None = None) -> int:
    """The number, 0 or 1, of the first class where labels are low..most. first: as told, None to find out.

    They count from 1 where 1 is the lowest, unless `known`, the number of classes, is above `most`. That is said, since a
    class 0 without clips would be an output too many. UserError where a label is below what was told."""
    if first is None:
        first = int(low == 1 and (known is None or most >= known))
        if first:
            warn(
                f"no label is 0, the lowest is 1: they are taken as 1 to {most} (give --labels-from 0 if they are not)"
            )
    if low < first:
        raise UserError(f"there is a label {low}, but --labels-from {first} says that they begin at {first}")
    return first


def from_zero(numbers: dict[str, int], classes=None, first: int | None = None, known: int | None = None):
    """(clip -> class number from 0, `classes` or their number) of class numbers as files state them. classes: names in the
    order of the numbers; first, known: see `first_label`. UserError when there are more than `classes`."""
    most = max(numbers.values(), default=0)
    first = first_label(min(numbers.values(), default=0), most, len(classes) if classes else known, first)
    if classes is not None and most - first >= len(classes):
        raise UserError(f"--classes names {len(classes)} classes, but the file has label {most - first}")
    return {name: number - first for name, number in numbers.items()}, classes or most - first + 1


def number_labels(labels: dict[str, str], classes: tuple[str, ...] | None = None, first: int | None = None):
    """(clip -> class number from 0, class names or their number) of labels as text.

    Labels that are all whole numbers are class numbers, counted from `first` (None: found out, see `first_label`); else they
    are class names, numbered in the order of `classes`, or as text. UserError when a label is not among `classes`."""
    digits = [text for text in labels.values() if text.isascii() and text.isdigit()]
    if len(digits) < len(labels):
        if first is not None:
            raise UserError("--labels-from is for labels that are numbers; these are names, leave it out")
        if digits and classes is None:
            other = next(text for text in labels.values() if text not in digits)
            warn(
                f"{len(digits)} of {len(labels)} labels are numbers, others such as {other!r} are not: all are taken as names"
            )
        return number_names(labels, classes)
    numbers = {name: class_number(f"clip {name}", int(text.lstrip("0")[:12] or "0")) for name, text in labels.items()}
    return from_zero(numbers, classes, first)


def warn_of_empty_classes(labels: dict[str, int], protocols: dict[str, dict], classes: tuple[str, ...]) -> None:
    """Names the classes of which a protocol has no training clip: nothing can learn them."""
    for protocol, splits in protocols.items():
        present = {labels[name] for name in splits.get("train", ()) if name in labels}
        missing = [f"{k} ({name})" for k, name in enumerate(classes) if k not in present]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            warn(f"{protocol}: no training clip of class {', '.join(missing[:3])}{more}, of {len(classes)} classes")


def _agree(path: Path, name: str, description: dict) -> dict:
    """The protocols of a dataset.json that is already there; UserError when it describes another data set."""
    if not path.is_file():
        return {}
    old = load_json(path)
    for key, default in (("classes", None), ("layout", None), ("persons", None), ("dimensions", 3)):
        if not isinstance(old, dict) or old.get(key, default) != description.get(key, default):
            raise UserError(
                f"{path}: describes another data set (its {key!r} differ from what would be written); give another "
                f"--name, or remove {path.parent} first"
            )
    return old["protocols"] if isinstance(old.get("protocols"), dict) else {}


def write_description(target: Target) -> None:
    """Writes the dataset.json of a data set of the user's own, once its protocol folders are whole."""
    if target.description is not None:
        write_json(target.folder / "dataset.json", target.description)


def number_names(labels: dict[str, str], classes: tuple[str, ...] | None) -> tuple[dict[str, int], tuple[str, ...]]:
    """(clip -> class number, class names) of labels that are class names, numbered in the order of `classes`, None for their
    order as text; UserError when one is not among them."""
    classes = classes or tuple(sorted(set(labels.values())))
    number = {text: k for k, text in enumerate(classes)}
    for name, text in labels.items():
        if text not in number:
            raise UserError(f"clip {name}: its label {text!r} is not among the class names {', '.join(classes)[:200]}")
    return {name: number[text] for name, text in labels.items()}, classes


def texts_of_names(names, pattern: str, flag: str) -> dict[str, str]:
    """name -> what `pattern`, a regular expression that `flag` gave, finds in it: its groups joined by spaces, or the whole
    match without groups. UserError for a malformed pattern, or a name in which it finds nothing."""
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise UserError(f"{flag} {pattern!r}: not a regular expression ({error})") from None
    texts = {}
    for name in names:
        match = expression.search(name)
        if match is None:
            raise UserError(f"{flag} {pattern!r}: finds nothing in the clip name {name!r}")
        texts[name] = " ".join(group or "" for group in match.groups()) if match.groups() else match[0]
    return texts


class TemporaryClips:
    """Clips of any float type in one file; a picklable loader for `build_dataset`.

    `add(name, clip)` appends (M, T, V, C), `refuse(name, reason)` notes a clip that could not be read; `close()` ends
    the writing; calling with a name gives (C, T, V, M) float32, or raises UserError with the reason."""

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
        """Calls clips otherwise. names: old -> new of every clip."""
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
    """Class names from a text file, one a line in the order of their numbers; UserError when two are equal."""
    names = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    if not names:
        raise UserError(f"{path}: holds no class name; expected one a line")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path}: class name {twice!r} appears twice")
    return names


def _axes(text: str) -> str:
    """An argparse type: an order of axes, '' for the usual one."""
    axes = text.upper()
    if text and not {"V", "C"} <= set(axes) <= set("TVCM") or len(set(axes)) < len(axes):
        raise argparse.ArgumentTypeError(
            f"expected an order of T, V, C, with M for several persons, such as TVC or CTVM, got {text!r}"
        )
    return axes


def _shared_flags() -> dict[str, dict]:
    """Flags of several readers, of which each program adds those that it reads: name -> what argparse is told."""
    flags = {}

    def flag(name: str, text: str, **settings) -> None:
        flags[name] = {"help": text, **settings}

    flag("--name", "the data set's name, which the programs take as --dataset", required=True)
    text = "folder of all data sets (default data), with room for 180 kB a clip and protocol at 300 frames, 25 joints, 2 persons"
    flag("--data-root", text, default="data", metavar="FOLDER")
    text = f"all (default, what every published number uses): {', '.join(STEPS)}; some of them with commas between; or none for "
    text += "raw coordinates, for detection or clips that are normalised already"
    flag("--normalise", text, default="all", metavar="all|none|STEPS")
    text = "frames stored of a clip (default 300); longer clips are cut, fewer save disk space"
    flag("--frames", text, type=positive_int, default=FRAMES)
    text = "processes (default: all cores); fewer need less memory, the arrays are the same"
    flag("--workers", text, type=positive_int, metavar="N")
    text = "clips that are zero, do not move, are no person in metres or stand upside down count as bad ones; without it they are "
    text += "kept, warned of, and named in preparation.json"
    flag("--strict", text, action="store_true")
    text = "a damaged file, or a clip that cannot be used: refuse (default) ends at the first, nothing is written; skip leaves "
    text += "them out, counts them and names them in preparation.json"
    flag("--on-bad", text, choices=("refuse", "skip"), default="refuse")
    text = "memory that one array or pickle may need where its file is smaller (default 1): a few MB can hold many GB of zeros. "
    text += "Raise it when a clip of yours really is so large"
    flag("--max-unpacked", text, type=positive, default=MAX_UNPACKED / 1e9, metavar="GB")
    text = "number of the first class where labels are numbers; default: 1 where no label is 0 and the lowest is 1, which is said. "
    text += "Give 0 when class 0 has no clip in this file"
    flag("--labels-from", text, type=int, choices=(0, 1))
    text = "the groups of this pattern in a clip's name, joined, are its class: '(m\\d+).*_(cor|inc)' makes of m01_s02_e03_inc the "
    text += "class 'm01 inc'"
    flag("--label-from-name", text, metavar="REGEX")
    text = "class names, one a line, in the order of their numbers; keeps the numbers when a class has no clip"
    flag("--classes", text, metavar="FILE.txt")
    text = "persons of a stored clip; default: the most that any clip has (known data sets: 2)"
    flag("--persons", text, type=positive_int, metavar="M")
    text = "order of the axes of your arrays: T frames, V joints, C coordinates (of poses with a score, too), M persons, such as "
    text += "CTV for arrays (3, T, V); default: by their number, TVC and MTVC, or in poses by their sizes"
    flag("--axes", text, type=_axes, default="")
    text = f"which joint is which, in the order of your joints (default: that of a known data set, else {DEFAULT_LAYOUT}); look at "
    text += "data_gen.check --picture"
    flag("--layout", text, choices=sorted(LAYOUTS))
    text = "store another joint layout, such as kinect_v2_25, which published encoders read; which joints had to be made is "
    text += "printed. Programs convert by themselves where an encoder needs it"
    flag("--as", text, dest="as_layout", choices=sorted(LAYOUTS), metavar="LAYOUT")
    return flags


FLAGS = _shared_flags()
HOW = ("--data-root", "--normalise", "--frames", "--workers", "--strict", "--on-bad")  # what all readers take


def add_flags(parser, *names: str) -> None:
    """Adds flags of FLAGS to a parser or a group of it."""
    for name in names:
        parser.add_argument(name, **FLAGS[name])


def reader_parser(name: str, description: str) -> argparse.ArgumentParser:
    """The parser of a program of data_gen."""
    formatter = argparse.RawDescriptionHelpFormatter
    return Parser(prog=f"python -m data_gen.{name}", formatter_class=formatter, description=description)


def layouts_of(args) -> tuple[str | None, Layout | None]:
    """(name of the layout to store, None for the data set's own; layout that the clips come in, where that is another).

    Says what is made, and refuses what cannot be."""
    if args.as_layout is None:
        return args.layout, None
    source = get_layout(args.layout or DEFAULT_LAYOUT)
    print(say_conversion(source, get_layout(args.as_layout)))
    return args.as_layout, source


def scratch_folder(args: argparse.Namespace):
    """A context: a folder beside the data set for clips that were unpacked, removed at the end."""
    return building_folder(Path(args.data_root) / f"{args.name}.clips")


def say_what_was_done(folder: Path, report: BuildReport) -> str:
    """The last lines of a program that prepared `folder`: counts, what was left out, and what to type next."""
    lines = []
    for protocol, counts in report.counts.items():
        tested = f" and {counts['val']} val" if "val" in counts else ""
        lines.append(f"{folder / protocol}: {counts['train']} train{tested} clips")
    if report.skipped:
        name = min(report.skipped)
        lines.append(
            f"{len(report.skipped)} clips left out, named in preparation.json; the first: {report.skipped[name]}"
        )
    if report.longer:
        lines.append(f"{len(report.longer)} clips are longer than what is stored and were cut")
    lines.append(f"next: python -m data_gen.check {folder}")
    return "\n".join(lines)
