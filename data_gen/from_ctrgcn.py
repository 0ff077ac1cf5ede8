"""Makes a data set of CTR-GCN's npz files: `python -m data_gen.from_ctrgcn NTU60_CS.npz NTU60_CV.npz --name ntu60`.

The files that CTR-GCN's preparation writes (also used by SGN, InfoGCN, MAMP and others) hold x_train, y_train, x_test
and y_test: x float32 (N, 300, 150), each row the coordinates of two persons in the order M, V, C; y one-hot (N, K), or
class numbers (N,). One file is one protocol; x_test is the val split.

* A clip ends at its last frame that is not zero.
* Person 2 is removed when it equals person 1 in the whole clip: the NTU-120 files repeat single persons.
* Clips are normalised like all others. In these files the spine of frame 0 has been moved to the origin already, which
  centring undoes. Their bodies were selected and denoised by other rules than the released preparation has, so the
  arrays are close, but not equal, to those from the raw files: do not mix the two.
* The files have no clip names; clips are called xsub_train_000000, ... in the order of the file.

Memory: one clip at a time. The npz is read once from start to end, which also verifies its checksum; the frames of each
clip go to a temporary file, from which all processes read.
"""

import argparse
import contextlib
import re
import shutil
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_gen.from_files import (
    HOW,
    PROTOCOL_FOLDERS,
    Source,
    TemporaryClips,
    add_flags,
    first_label,
    prepare,
    reader_parser,
    scratch_folder,
)
from options.datasets import DATASETS, MAX_CLASSES, PROTOCOLS
from utils.errors import UserError, run
from utils.files import ArrayArchive
from utils.skeleton import KINECT_V2

PROTOCOL = """
--protocol {$protocols}+
    protocol of each file, in the order of the files; default: from the file name (NTU60_CS, NTU60_CV, NTU120_CSub, ...)
"""
PERSONS = 2
PARTS = {"train": "train", "val": "test"}  # our split -> the file's
_HINTS = (  # (pattern of a file name without its suffix, protocol)
    (re.compile(r"(_cs|csub|xsub)$", re.I), "cross_subject"),
    (re.compile(r"(_cv|xview)$", re.I), "cross_view"),
    (re.compile(r"(cset|xset|xsetup)$", re.I), "cross_setup"),
)


def read_labels(archive: ArrayArchive, name: str) -> tuple[np.ndarray, int | None]:
    """(class numbers (N,), K) of one-hot rows (N, K); (class numbers (N,), None) of class numbers (N,)."""
    _check_numbers(archive, name)
    values = archive.read(name)
    if values.ndim == 1:
        fits = np.isfinite(values) & (values == np.floor(values)) & (values >= 0) & (values <= MAX_CLASSES)
        if not fits.all():
            raise UserError(
                f"{archive.path}: {name} must hold class numbers from 0 to {MAX_CLASSES - 1}, or one-hot rows (N, K)"
            )
        return values.astype(np.int64), None
    if values.ndim != 2:
        raise UserError(f"{archive.path}: {name} must be one-hot (N, K) or class numbers (N,), found {values.shape}")
    bad = np.flatnonzero(((values != 0).sum(axis=1) != 1) | (values.max(axis=1, initial=0) != 1))
    if len(bad):
        raise UserError(f"{archive.path}: row {bad[0]} of {name} is not one-hot (a single 1, all else 0)")
    return values.argmax(axis=1), values.shape[1]


def _check_numbers(archive: ArrayArchive, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """(shape, dtype) of an array of numbers; UserError when it is missing or holds anything else."""
    if name not in archive:
        raise UserError(f"{archive.path}: holds no {name}; expected x_train, y_train, x_test and y_test")
    shape, fortran, dtype = archive.header(name)
    if dtype.kind not in "fiu" or fortran and len(shape) > 1:
        raise UserError(f"{archive.path}: {name} must hold plain numbers in C order, found {dtype}")
    return shape, dtype


def to_clip(row: np.ndarray) -> np.ndarray:
    """A row (T, 150), two persons in the order M, V, C -> (3, t, 25, 2), t frames up to the last one that is not zero.

    Person 2 is set to zero when it equals person 1 in every value."""
    frames = np.flatnonzero(row.any(axis=1))
    row = np.asarray(row[: frames[-1] + 1 if len(frames) else 0], dtype=np.float32)
    clip = row.reshape(len(row), PERSONS, KINECT_V2.joints, 3).transpose(3, 0, 2, 1).copy()
    if np.array_equal(clip[..., 0], clip[..., 1]):
        clip[..., 1] = 0
    return clip


def guess_protocol(path) -> str:
    """The protocol in a file's name (NTU60_CS, NTU120_CSet, ...); UserError when there is none."""
    for pattern, protocol in _HINTS:
        if pattern.search(Path(path).stem):
            return protocol
    raise UserError(f"{path}: its name does not say which protocol it is; give --protocol, such as cross_subject")


def _labels_of(archive: ArrayArchive) -> dict[str, tuple[np.ndarray, int | None]]:
    """split -> (class numbers, number of classes or None) of one npz; checks the shapes of its arrays."""
    found = {}
    for split, part in PARTS.items():
        shape, dtype = _check_numbers(archive, f"x_{part}")
        width = PERSONS * KINECT_V2.joints * 3
        if len(shape) != 3 or shape[2] != width or dtype.kind != "f":
            raise UserError(f"{archive.path}: x_{part} must be float (N, T, {width}), found {dtype.str} {shape}")
        labels, number = read_labels(archive, f"y_{part}")
        if len(labels) != shape[0]:
            raise UserError(f"{archive.path}: {shape[0]} clips in x_{part}, but {len(labels)} labels in y_{part}")
        found[split] = labels, number
    return found


def count_classes(found: dict[str, dict], name: str, labels_from: int | None) -> tuple[int, int]:
    """(number of classes, number of the first class in the files). found: protocol -> split -> as `_labels_of` returns.

    UserError when one array is one-hot with K columns and another holds class numbers of K or more."""
    entries = [entry for splits in found.values() for entry in splits.values()]
    one_hot = max((number for _, number in entries if number), default=None)
    low, most = (int(pick([pick(n) for n, _ in entries if len(n)], default=0)) for pick in (min, max))
    if one_hot is not None:
        if most >= one_hot:
            raise UserError(
                f"class number {most} does not fit the one-hot labels of {one_hot} classes; expected 0 to {one_hot - 1} "
                "in y_train and y_test of all files; make all labels one-hot rows of the same width"
            )
        return one_hot, 0
    first = first_label(low, most, DATASETS[name].num_classes if name in DATASETS else None, labels_from)
    return most + 1 - first, first


def _pack(
    archives: dict[str, ArrayArchive], protocols: dict[str, dict[str, list[str]]], folder: Path
) -> TemporaryClips:
    """Copies the clips of all files into one file in `folder`. protocols: protocol -> split -> names of its clips."""
    sources = [
        (archives[p], f"x_{PARTS[split]}", names) for p, splits in protocols.items() for split, names in splits.items()
    ]
    size, free = sum(archive.size(name) for archive, name, _ in sources), shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"{folder.parent}: a temporary copy of the clips may need {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; give "
            "another --data-root"
        )
    packed = TemporaryClips(folder / "clips.raw")
    for archive, name, names in sources:
        rows = tqdm(archive.rows(name), f"reading {archive.path.name}: {name}", len(names), unit="clip", disable=None)
        for clip, row in zip(names, rows, strict=True):
            packed.add(clip, to_clip(row).transpose(3, 1, 2, 0))
    packed.close()
    return packed


def convert(args: argparse.Namespace, archives: dict[str, ArrayArchive]) -> str:
    """Writes the data set of npz files {protocol: archive}; returns the summary to print."""
    found = {protocol: _labels_of(archive) for protocol, archive in archives.items()}
    number, first = count_classes(found, args.name, args.labels_from)
    labels, protocols = {}, {}  # protocol -> split -> names
    for protocol, splits in found.items():
        for split, (numbers, _) in splits.items():
            key = f"{PROTOCOL_FOLDERS.get(protocol, protocol)}_{split}"
            names = [f"{key}_{i:06d}" for i in range(len(numbers))]
            labels.update(zip(names, (numbers - first).tolist(), strict=True))
            protocols.setdefault(protocol, {})[split] = names
    text = "CTR-GCN npz " + ", ".join(archive.path.name for archive in archives.values())
    details = {"person_2": "removed where it was an exact copy of person 1"}
    source = Source(text, protocols, labels, number, PERSONS, details=details)
    source.target(args.data_root, args.name)  # raises before the clips are read
    with scratch_folder(args) as scratch:
        return prepare(args, source, _pack(archives, protocols, scratch))[1]


def parse(argv=None) -> argparse.Namespace:
    parser = reader_parser("from_ctrgcn", __doc__)
    parser.add_argument("files", nargs="+", metavar="FILE.npz", help="one file for each protocol")
    add_flags(parser, table=PROTOCOL, protocols=",".join(PROTOCOLS))
    add_flags(parser, "--name", "--labels-from", *HOW)
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse(argv)
    protocols = args.protocol or [guess_protocol(path) for path in args.files]
    if len(protocols) != len(args.files):
        raise UserError(f"{len(args.files)} files, but --protocol names {len(protocols)}; give one for each file")
    if len(set(protocols)) != len(protocols):
        raise UserError(f"two files for protocol {max(protocols, key=protocols.count)}; each file is one protocol")
    if args.name in DATASETS:  # raises for an unknown protocol before a file is opened
        Source("", dict.fromkeys(protocols, {}), {}, 1, PERSONS).target(args.data_root, args.name)
    with contextlib.ExitStack() as stack:
        archives = [stack.enter_context(ArrayArchive(path)) for path in args.files]
        print(convert(args, dict(zip(protocols, archives, strict=True))))


if __name__ == "__main__":
    run(main, sys.argv[1:])
