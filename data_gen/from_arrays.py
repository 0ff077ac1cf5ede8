"""Makes a data set of your own arrays: `python -m data_gen.from_arrays FOLDER --name my_data`.

Each clip is a .npy file, FOLDER/name.npy, with float coordinates in metres, (T, V, 3) for one person or (M, T, V, 3) for
several; or all clips are named arrays of one .npz file. A list has the label and split of each clip; by default it is
clips.csv (or clips.json) in the folder, or the .npz file's name with .csv:

    name,label,cross_subject
    s01_wave_1,wave,train
    s02_wave_1,wave,val

`label` is a class name, or a class number from 0. Every further column is a protocol (cross_subject, cross_view,
cross_setup, or a name of yours) and holds train or val, or nothing for a clip that is not in this protocol. A column
`split` is the protocol cross_subject. The JSON list has an object with the same keys for each clip. The program writes a
folder for each protocol, and dataset.json, from which every other program knows the data set.

The joints must be in the order of a joint layout (--layout); absent frames and persons are zeros. Each process has one
clip in memory at a time; names and labels are held for all.
"""

import argparse
import csv
import functools
import io
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from data_gen.from_files import (
    HOW,
    Source,
    add_flags,
    layouts_of,
    number_labels,
    prepare,
    read_class_names,
    reader_parser,
)
from options.datasets import DATASETS
from utils.errors import UserError, run
from utils.files import MAX_UNPACKED, ArrayArchive, load_json, map_npy, read_npy, read_text
from utils.names import SPLITS

AXES = {3: "TVC", 4: "MTVC"}
LISTS = ("clips.csv", "clips.json")  # names of the list in a folder of clips
PROTOCOL = "cross_subject"  # the protocol that a column `split` stands for
SPLIT_WORDS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "val"}


def find_list(source) -> Path:
    """The list that belongs to a folder or an .npz of clips; UserError when there is none."""
    source = Path(source)
    if not source.exists():
        raise UserError(f"{source}: there is no such folder or file")
    inside = source.is_dir()
    places = [source / name if inside else source.with_suffix(Path(name).suffix) for name in LISTS]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        classes = f"; if its subfolders are the classes: python -m data_gen.from_poses {source} --name NAME"
        raise UserError(
            f"{source}: has no list of its clips, neither {places[0]} nor {places[1]}; write one or give --list"
            + classes * (inside and any(source.glob("*/*.npy")))
        )
    return found


def read_list_rows(path: Path) -> list[tuple[str, dict]]:
    """(place for messages, {column: text}) of every row of a .csv or .json list."""
    if path.suffix.lower() == ".json":
        content = load_json(path)
        if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
            raise UserError(f"{path}: expected a list of objects with name, label and protocols")
        plain = (str, int, type(None))
        for i, entry in enumerate(content):
            for key, value in entry.items():
                if not isinstance(value, plain) or isinstance(value, bool):
                    raise UserError(f"{path}, entry {i} (counted from 0): {key!r} must be text or a whole number")
        return [
            (f"{path}, entry {i} (counted from 0)", {k: "" if v is None else str(v) for k, v in entry.items()})
            for i, entry in enumerate(content)
        ]
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    try:
        columns = [column.strip() for column in next(reader, [])]
        if len(set(columns)) != len(columns):
            raise UserError(f"{path}, line 1: a column appears twice in {','.join(columns)}")
        rows = []
        for row in reader:
            if any(cell.strip() for cell in row):
                if len(row) != len(columns):
                    raise UserError(f"{path}, line {reader.line_num}: {len(row)} values for {len(columns)} columns")
                rows.append((f"{path}, line {reader.line_num}", dict(zip(columns, row, strict=True))))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not a .csv list ({error})") from None
    return rows


def _clip_name(place: str, text: str) -> str:
    name = text.removesuffix(".npy")
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise UserError(f"{place}: {text!r} cannot be a clip's name; expected the name of a .npy file in the folder")
    return name


def protocols_of(rows: dict[str, tuple[str, dict]], columns) -> dict[str, dict[str, list[str]]]:
    """protocol -> {"train": names, "val": names}, from `columns`. rows: clip name -> (place for messages, {column: text})."""
    protocols = {}
    for column in columns:
        parts = protocols[PROTOCOL if column == "split" else column] = {split: [] for split in SPLITS}
        for name, (place, row) in rows.items():
            word = row.get(column, "").strip().lower()
            if word and word not in SPLIT_WORDS:
                raise UserError(f"{place}: {column} is {row[column]!r}; expected train, val or nothing")
            if word:
                parts[SPLIT_WORDS[word]].append(name)
    return protocols


def read_list(path) -> tuple[dict[str, str], dict[str, dict[str, list[str]]]]:
    """(name -> label as text, protocol -> {"train": names, "val": names}) of a .csv or .json list of clips; UserError, with
    the line, for anything else."""
    needed = "expected columns name, label and a protocol such as cross_subject"
    rows: dict[str, tuple[str, dict]] = {}
    columns: list[str] = []
    for place, row in read_list_rows(Path(path)):
        for column in ("name", "label"):
            if not row.get(column, "").strip():
                raise UserError(f"{place}: no {column}; {needed}")
        columns = columns or list(row)
        if set(row) != set(columns):
            raise UserError(f"{place}: has the keys {', '.join(row)}, the first entry has {', '.join(columns)}")
        name = _clip_name(place, row["name"].strip())
        if name in rows:
            raise UserError(f"{place}: clip {name} is listed twice")
        rows[name] = place, row
    if not rows:
        raise UserError(f"{path}: lists no clip; {needed}")
    columns = [column for column in columns if column not in ("name", "label")]
    if not columns or {"split", PROTOCOL} <= set(columns):
        raise UserError(f"{path}: expected one column for each protocol beside name and label, such as cross_subject")
    return {name: row["label"].strip() for name, (_, row) in rows.items()}, protocols_of(rows, columns)


@functools.lru_cache(maxsize=4)
def _archive(path: str, limit: int) -> ArrayArchive:
    return ArrayArchive(path, limit)  # each process opens it once


@dataclass(frozen=True)
class ArrayClips:
    """Loader for `build_dataset`: clips in a folder of .npy files or in one .npz. axes: their order, "" for TVC with three
    axes and MTVC with four; limit: most bytes of memory that a clip may need, see utils.files."""

    source: str
    axes: str = ""
    limit: int = MAX_UNPACKED

    def read(self, name: str) -> np.ndarray:
        """The stored array; UserError when it is missing or not a .npy array of numbers."""
        if Path(self.source).is_dir():
            place = str(Path(self.source) / f"{name}.npy")
            array = read_npy(place, self.limit)
        else:
            place = f"{self.source}:{name}"
            array = _archive(self.source, self.limit).read(name)
        if array.dtype.kind not in "fiu":
            raise UserError(f"{place}: holds {array.dtype}, expected numbers")
        return array

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape in the array's header; UserError when it is missing or not a .npy array."""
        if Path(self.source).is_dir():
            return map_npy(Path(self.source) / f"{name}.npy").shape
        return _archive(self.source, self.limit).header(name)[0]

    def __call__(self, name: str) -> np.ndarray:
        array = self.read(name)
        axes = self.axes or AXES.get(array.ndim, "")
        if len(axes) != array.ndim:
            raise UserError(
                f"clip {name}: expected {' or '.join(AXES.values()) if not self.axes else self.axes}, found {array.shape}"
            )
        if array.shape[axes.index("C")] != 3:
            size = array.shape[axes.index("C")]
            hint = (
                "for 2-D keypoints use data_gen.from_poses" if size == 2 else "--axes gives another order of the axes"
            )
            raise UserError(f"clip {name}: {size} coordinates a joint in {axes} {array.shape}, expected 3; {hint}")
        for axis in "TM":
            if axis not in axes:
                array, axes = array[None], axis + axes
        return array.transpose([axes.index(axis) for axis in "CTVM"]).astype(np.float32)


def count_persons(load: ArrayClips, names) -> int:
    """The most persons in any clip, from the headers of the arrays."""
    most = 1
    for name in names:
        try:
            shape = load.shape(name)
        except (UserError, OSError):
            continue  # the loader reports or skips it
        axes = load.axes or AXES.get(len(shape), "")
        if "M" in axes and len(axes) == len(shape):
            most = max(most, shape[axes.index("M")])
    return most


def parse(argv=None) -> argparse.Namespace:
    parser = reader_parser("from_arrays", __doc__)
    parser.add_argument("source", help="folder of .npy clips, or one .npz file")
    add_flags(parser, table="--list FILE  .csv or .json list of the clips; default: clips.csv in the folder")
    add_flags(parser, "--name", "--axes", "--layout", "--as", "--persons", "--classes", "--labels-from")
    add_flags(parser, "--max-unpacked", *HOW)
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse(argv)
    limit = int(args.max_unpacked * 1e9)
    layout, came_as = layouts_of(args)
    if args.name in DATASETS:
        raise UserError(f"--name {args.name} is a known data set with files of its own; give your data another name")
    listed, protocols = read_list(args.list or find_list(args.source))
    if not Path(args.source).is_dir():
        ArrayArchive(args.source, limit).close()  # raises for another kind of file, before anything is made
    classes = read_class_names(args.classes) if args.classes else None
    labels, classes = number_labels(listed, classes, args.labels_from)
    load = ArrayClips(str(args.source), args.axes, limit)
    persons = args.persons or count_persons(load, listed)
    text = f"arrays of {Path(args.source).name}"
    print(prepare(args, Source(text, protocols, labels, classes, persons, layout, came_as), load)[1])


if __name__ == "__main__":
    run(main, sys.argv[1:])
