"""What the readers of other people's files share: where a data set goes, its description, temporary clips, flags.

`make_target` decides what is written where. A name of the registry (ntu60, ...) brings its classes, layout, persons and
protocols; any other name is a data set of the user's own, and a `dataset.json` beside its protocol folders says the
same four things, so that every program knows it by that name. A description that already lies there must agree: two
tasks with other classes need two names.

`PackedClips` holds clips in one temporary file, so that a file which can only be read as a whole (a pickle) or from
front to back (a compressed archive) is read once, and every worker process maps what it needs.
"""

import argparse
import contextlib
import errno
import re
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_gen.build import BuildReport
from data_gen.normalise import STEPS
from options.datasets import DATASETS, DescriptionError, from_description
from utils.arrays import FRAMES
from utils.errors import UserError
from utils.files import load_json, write_json
from utils.skeleton import LAYOUTS, Layout, get_layout

PROTOCOL_FOLDERS = {"cross_subject": "xsub", "cross_view": "xview", "cross_setup": "xset"}
DEFAULT_LAYOUT = "kinect_v2_25"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


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


def make_target(data_root, name: str, protocols, classes, layout: str | None, persons: int) -> Target:
    """The target of a data set.

    protocols: the names to be written; classes: class names (only for a data set of the user's own), or their number;
    layout: as asked for, None for the data set's own; persons: the most of any clip.
    Raises UserError for a bad name, and when source, registry, existing description and flags disagree."""
    if name in DATASETS:
        if not isinstance(classes, int):
            raise UserError(f"the class names of {name} are fixed; give another --name for classes of your own")
        return _registry_target(data_root, name, protocols, classes, layout, persons)
    for text in (name, *protocols):
        if not _NAME.fullmatch(text):
            raise UserError(f"{text!r} cannot name a folder; use letters, digits, - and _, such as my_data")
    description = {
        "classes": [f"class {k}" for k in range(classes)] if isinstance(classes, int) else list(classes),
        "protocols": {protocol: PROTOCOL_FOLDERS.get(protocol, protocol) for protocol in protocols},
        "layout": get_layout(layout or DEFAULT_LAYOUT).name,
        "persons": persons,
    }
    folder = Path(data_root) / name
    description["protocols"] = _agree(folder / "dataset.json", name, description) | description["protocols"]
    try:
        row = from_description(name, description)
    except DescriptionError as error:
        raise UserError(f"data set {name}: {error}") from None
    folders = {protocol: description["protocols"][protocol] for protocol in protocols}
    return Target(folder, get_layout(row.layout), persons, row.classes, folders, description)


def _registry_target(data_root, name, protocols, number, layout, persons) -> Target:
    row = DATASETS[name]
    for protocol in protocols:
        if protocol not in row.protocols:
            raise UserError(
                f"{name} has no protocol {protocol!r}, only {', '.join(row.protocols)}; give another --name if this is "
                "another data set"
            )
    if number > row.num_classes:
        raise UserError(f"{name} has {row.num_classes} classes, the file has {number}; give another --name")
    if layout not in (None, row.layout):
        raise UserError(f"{name} has joint layout {row.layout}, not {layout}; leave --layout out, or change --name")
    if persons > row.persons:
        raise UserError(
            f"{name} has {row.persons} persons a clip, the file has {persons}; give --persons {row.persons}"
        )
    folders = {protocol: row.protocols[protocol][0] for protocol in protocols}
    return Target(Path(data_root) / row.folders[0], get_layout(row.layout), row.persons, row.classes, folders, None)


def _agree(path: Path, name: str, description: dict) -> dict:
    """The protocols of a dataset.json that is already there; UserError when it describes another data set."""
    if not path.is_file():
        return {}
    old = load_json(path)
    for key in ("classes", "layout", "persons"):
        if not isinstance(old, dict) or old.get(key) != description[key]:
            raise UserError(
                f"{path}: describes another data set (its {key!r} differ from what would be written); give another "
                f"--name, or remove {path.parent} first"
            )
    return old["protocols"] if isinstance(old.get("protocols"), dict) else {}


def write_description(target: Target) -> None:
    """Writes the dataset.json of a data set of the user's own, once its protocol folders are whole."""
    if target.description is not None:
        write_json(target.folder / "dataset.json", target.description)


class PackedClips:
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


@contextlib.contextmanager
def reading_archive(path):
    """What a damaged zip archive makes the zip and array readers raise, as one UserError with the path."""
    damaged = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError)
    try:
        yield
    except (*damaged, OverflowError, MemoryError) as error:
        raise UserError(f"{path}: not a readable .npz file ({str(error)[:100]}); download it again") from None
    except OSError as error:
        if error.errno not in (errno.EINVAL, None):  # a place outside the file; anything else is the disk's
            raise
        raise UserError(f"{path}: not a readable .npz file; download it again") from None


def read_npy_header(file) -> tuple[tuple[int, ...], bool, np.dtype]:
    """(shape, Fortran order, dtype) of the .npy that begins at `file`, which is left at its first value; ValueError or
    EOFError when there is none."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)


def read_class_names(path) -> tuple[str, ...]:
    """Class names from a text file, one a line in the order of their numbers; UserError when two are equal."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; expected a class name a line") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise UserError(f"{path}: holds no class name; expected one a line")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path}: class name {twice!r} appears twice")
    return names


def add_common_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of all three readers."""
    parser.add_argument(
        "--data-root",
        default="data",
        help="folder of all data sets; the arrays go to DATA_ROOT/NAME/PROTOCOL (default data). It must have room for "
        "180 kB a clip and protocol at 300 frames, 25 joints and 2 persons",
    )
    parser.add_argument(
        "--normalise",
        default="all",
        metavar="all|none|STEPS",
        help=f"all (default, what every published number uses): {', '.join(STEPS)}; some of them with commas between; "
        "or none for raw coordinates, for detection or when the clips are already normalised",
    )
    parser.add_argument(
        "--frames",
        type=int,
        default=FRAMES,
        help="frames stored of a clip, usually 300; longer clips are cut there. Lower it to save disk space when all "
        "your clips are short, raise it when the end of long clips matters",
    )
    parser.add_argument(
        "--workers", type=int, default=None, help="processes (default: all cores); fewer need less memory"
    )
    parser.add_argument(
        "--on-bad",
        choices=("refuse", "skip"),
        default="refuse",
        help="a clip that cannot be used (another number of joints, not finite, ...): refuse (default) ends at the "
        "first, nothing is written; skip leaves such clips out, counts them and names them in preparation.json",
    )


def add_layout_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--layout",
        choices=sorted(LAYOUTS),
        help=f"which joint is which (default: that of a known data set, else {DEFAULT_LAYOUT}). The order of your "
        "joints must be that of the layout; look at data_gen.check --picture",
    )


def check_common_flags(frames: int, workers: int | None) -> None:
    """UserError unless the numbers make sense."""
    if frames < 1:
        raise UserError(f"--frames {frames}: expected at least 1; 300 is usual")
    if workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: expected at least 1 process, or leave it out for all cores")


def say_what_was_done(target: Target, report: BuildReport) -> str:
    """The last lines of a reader: counts, what was left out, and what to type next."""
    lines = []
    for folder, counts in report.counts.items():
        lines.append(f"{target.folder / folder}: {counts['train']} train and {counts['val']} val clips")
    if report.skipped:
        name = min(report.skipped)
        lines.append(
            f"{len(report.skipped)} clips left out, named in preparation.json; the first: {report.skipped[name]}"
        )
    if report.empty:
        lines.append(f"{len(report.empty)} clips hold no coordinate at all; the first: {report.empty[0]}")
    if report.longer:
        lines.append(f"{len(report.longer)} clips are longer than what is stored and were cut")
    lines.append(f"next: python -m data_gen.check {target.folder}")
    return "\n".join(lines)
