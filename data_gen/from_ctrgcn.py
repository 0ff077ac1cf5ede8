"""CTR-GCN npz files to prepared folders: `python -m data_gen.from_ctrgcn NTU60_CS.npz NTU60_CV.npz --name ntu60`.

The files that CTR-GCN's preparation writes (also used by SGN, InfoGCN, MAMP and others) hold x_train, y_train, x_test
and y_test: x float32 (N, 300, 150), a row the coordinates of two persons in the order M, V, C; y one-hot (N, K), or
class numbers (N,). One file is one protocol; x_test is the val split. What is done with them:

* Frames are counted up to the last one that is not zero.
* Person 2 is removed where it is an exact copy of person 1 over the whole clip: the NTU-120 files repeat single persons.
* Clips are normalised like all others. In these files they are already moved so that the spine of frame 0 is at the
  origin, which centring undoes. Bodies were selected and denoised by other rules than the released ones, so that the
  arrays are close to, but not equal to, those from the raw files: do not mix the two.
* There are no names in these files; clips are called xsub_train_000000, ... in the file's order.

Memory: an uncompressed npz (the usual one) is checked and then read in place through a memory map; a member of a compressed one is
first unpacked, piece by piece, to a temporary file of 180 kB a clip. Neither is ever held in memory as a whole.
"""

import argparse
import re
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_gen.from_files import (
    HOW,
    PROTOCOL_FOLDERS,
    Source,
    add_flags,
    first_label,
    make_target,
    prepare,
    reader_parser,
    scratch_folder,
)
from options.datasets import DATASETS, MAX_CLASSES, PROTOCOLS
from utils.errors import UserError, run
from utils.files import check_regular, read_npy_header, reading_archive
from utils.skeleton import KINECT_V2

PERSONS = 2
PARTS = {"train": "train", "val": "test"}  # our split -> the file's
BLOCK = 2**22  # bytes unpacked, and about 8000 one-hot rows, at a time
_HINTS = (  # of a file name, without its ending
    (re.compile(r"(_cs|csub|xsub)$", re.I), "cross_subject"),
    (re.compile(r"(_cv|xview)$", re.I), "cross_view"),
    (re.compile(r"(cset|xset|xsetup)$", re.I), "cross_setup"),
)


@dataclass(frozen=True)
class Member:
    """One array of an npz, readable through a memory map: the file that holds its bytes and where they begin."""

    path: str
    offset: int
    shape: tuple[int, ...]
    dtype: str

    def open(self) -> np.ndarray:
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        return np.memmap(self.path, dtype=self.dtype, mode="r", offset=self.offset, shape=self.shape)


def open_member(path, name: str, scratch) -> Member:
    """The array `name` of the npz at `path`: in place when it is stored, unpacked into the folder `scratch` when it is
    compressed; its bytes agree with the archive's checksum. UserError when it is missing, damaged or no numbers."""
    path = Path(path)
    check_regular(path)
    with reading_archive(path), zipfile.ZipFile(path) as archive:
        if f"{name}.npy" not in archive.namelist():
            raise UserError(f"{path}: holds no {name}; expected x_train, y_train, x_test and y_test")
        info = archive.getinfo(f"{name}.npy")
        with archive.open(info) as file:
            shape, fortran, dtype = read_npy_header(file)
            if dtype.kind not in "fiu" or fortran and len(shape) > 1:
                raise UserError(f"{path}: {name} must hold plain numbers in C order, found {dtype}")
            begin, size = file.tell(), int(np.prod(shape, dtype=object)) * dtype.itemsize
            if info.file_size != begin + size:
                raise UserError(f"{path}: {name} holds {info.file_size - begin} bytes, its header says {size}")
            if info.compress_type != zipfile.ZIP_STORED:
                target = Path(scratch) / f"{path.name}.{name}.raw"
                if size > (free := shutil.disk_usage(scratch).free):
                    raise UserError(
                        f"{path}: {name} is compressed and needs {size / 1e9:.1f} GB for unpacking, {free / 1e9:.1f} GB are "
                        "free; give another --data-root"
                    )
                with open(target, "wb") as out:
                    _read_through(file, f"unpacking {path.name}: {name}", size, out)
                return Member(str(target), 0, shape, dtype.str)
            _read_through(file, f"checking {path.name}: {name}", size)
    with open(
        path, "rb"
    ) as file:  # its bytes come after its local header, whose lengths may differ from the directory's
        file.seek(info.header_offset + 26)
        lengths = file.read(4)
    offset = (
        info.header_offset + 30 + sum(int.from_bytes(part, "little") for part in (lengths[:2], lengths[2:])) + begin
    )
    if offset + size > path.stat().st_size:
        raise UserError(f"{path}: {name} goes past the end of the file; download it again")
    return Member(str(path), offset, shape, dtype.str)


def _read_through(file, text: str, size: int, out=None) -> None:
    """Reads an archive's member to its end, where zipfile compares its checksum, and writes it to `out` if given."""
    with tqdm(total=size, unit="B", unit_scale=True, desc=text, disable=None) as bar:
        while block := file.read(BLOCK):
            bar.update(len(block) if out is None else out.write(block))


def read_labels(path, name: str, member: Member) -> tuple[np.ndarray, int | None]:
    """(class numbers (N,), K) of one-hot rows (N, K); (class numbers (N,), None) of class numbers (N,)."""
    values = member.open()
    if values.ndim == 1:
        labels = np.asarray(values)
        fits = np.isfinite(labels) & (labels == np.floor(labels)) & (labels >= 0) & (labels <= MAX_CLASSES)
        if not fits.all():
            raise UserError(f"{path}: {name} must hold class numbers from 0 to {MAX_CLASSES - 1}, or one-hot rows")
        return labels.astype(np.int64), None
    if values.ndim != 2:
        raise UserError(f"{path}: {name} must be one-hot (N, K) or class numbers (N,), found shape {values.shape}")
    labels = np.zeros(len(values), np.int64)
    for start in range(0, len(values), 8192):
        rows = np.asarray(values[start : start + 8192])
        bad = np.flatnonzero(((rows != 0).sum(axis=1) != 1) | (rows.max(axis=1) != 1))
        if len(bad):
            raise UserError(f"{path}: row {start + bad[0]} of {name} is not one-hot (a single 1, all else 0)")
        labels[start : start + 8192] = rows.argmax(axis=1)
    return labels, values.shape[1]


def to_clip(row: np.ndarray) -> np.ndarray:
    """A row (T, 150), two persons in the order M, V, C -> (3, t, 25, 2) up to its last frame that is not zero.

    Person 2 becomes absent where it equals person 1 in every value."""
    frames = np.flatnonzero(row.any(axis=1))
    row = np.asarray(row[: frames[-1] + 1 if len(frames) else 0], dtype=np.float32)
    clip = row.reshape(len(row), PERSONS, KINECT_V2.joints, 3).transpose(3, 0, 2, 1).copy()
    if np.array_equal(clip[..., 0], clip[..., 1]):
        clip[..., 1] = 0
    return clip


class NpzClips:
    """Loader for `build_dataset`: the clip of a name such as xsub_train_000012. members: "xsub_train" -> Member."""

    def __init__(self, members: dict[str, Member]):
        self.members = members
        self._open: dict[str, np.ndarray] = {}

    def __getstate__(self):
        return {"members": self.members, "_open": {}}

    def __call__(self, name: str) -> np.ndarray:
        key, number = name.rsplit("_", 1)
        if key not in self._open:
            self._open[key] = self.members[key].open()
        return to_clip(self._open[key][int(number)])


def guess_protocol(path) -> str:
    """The protocol that a file's name says (NTU60_CS, NTU120_CSet, ...); UserError when it says none."""
    for pattern, protocol in _HINTS:
        if pattern.search(Path(path).stem):
            return protocol
    raise UserError(f"{path}: its name does not say which protocol it is; give --protocol, such as cross_subject")


def _members(path, scratch) -> dict[str, tuple[Member, np.ndarray, int | None]]:
    """split -> (coordinates, class numbers, number of classes or None) of one npz, checked."""
    found = {}
    for split, part in PARTS.items():
        clips = open_member(path, f"x_{part}", scratch)
        width = PERSONS * KINECT_V2.joints * 3
        if len(clips.shape) != 3 or clips.shape[2] != width or np.dtype(clips.dtype).kind != "f":
            raise UserError(f"{path}: x_{part} must be float (N, T, {width}), found {clips.dtype} {clips.shape}")
        labels, number = read_labels(path, f"y_{part}", open_member(path, f"y_{part}", scratch))
        if len(labels) != clips.shape[0]:
            raise UserError(f"{path}: {clips.shape[0]} clips in x_{part}, but {len(labels)} labels in y_{part}")
        found[split] = clips, labels, number
    return found


def count_classes(found: dict[str, dict], name: str, labels_from: int | None) -> tuple[int, int]:
    """(number of classes, number of the first one in the files) of all files; found: protocol -> split -> see `_members`."""
    entries = [entry for splits in found.values() for entry in splits.values()]
    one_hot = max((number for _, _, number in entries if number), default=None)
    if one_hot is not None:
        return one_hot, 0
    low, most = (int(pick([pick(n) for _, n, _ in entries if len(n)], default=0)) for pick in (min, max))
    first = first_label(low, most, DATASETS[name].num_classes if name in DATASETS else None, labels_from)
    return most + 1 - first, first


def convert(args: argparse.Namespace, files: dict[str, str], scratch: Path) -> str:
    """Writes the data set of npz files {protocol: path}; returns what was done. scratch: folder for unpacked clips."""
    found = {}
    for protocol, path in files.items():
        (scratch / protocol).mkdir()  # files of one name in two folders must not meet
        found[protocol] = _members(path, scratch / protocol)
    number, first = count_classes(found, args.name, args.labels_from)
    labels, members, protocols = {}, {}, {}  # protocol -> split -> names
    for protocol, splits in found.items():
        for split, (clips, numbers, _) in splits.items():
            key = f"{PROTOCOL_FOLDERS.get(protocol, protocol)}_{split}"
            names = [f"{key}_{i:06d}" for i in range(clips.shape[0])]
            members[key] = clips
            labels.update(zip(names, (numbers - first).tolist(), strict=True))
            protocols.setdefault(protocol, {})[split] = names
    text = "CTR-GCN npz " + ", ".join(Path(path).name for path in files.values())
    details = {"person_2": "removed where it was an exact copy of person 1"}
    return prepare(args, Source(text, protocols, labels, number, PERSONS, details=details), NpzClips(members))[1]


def parse(argv=None) -> argparse.Namespace:
    parser = reader_parser("from_ctrgcn", __doc__)
    parser.add_argument("files", nargs="+", metavar="FILE.npz", help="one file for each protocol")
    text = "the protocol of each file, in the order of the files; default: by its name (NTU60_CS, NTU60_CV, NTU120_CSub, ...)"
    parser.add_argument("--protocol", nargs="+", choices=PROTOCOLS, help=text)
    add_flags(parser, "--name", "--labels-from", *HOW)
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse(argv)
    protocols = args.protocol or [guess_protocol(path) for path in args.files]
    if len(protocols) != len(args.files):
        raise UserError(f"{len(args.files)} files, but --protocol names {len(protocols)}; give one for each file")
    if len(set(protocols)) != len(protocols):
        raise UserError(f"two files for protocol {max(protocols, key=protocols.count)}; each file is one protocol")
    if args.name in DATASETS:  # refuses a protocol that it does not have before anything is unpacked
        make_target(args.data_root, args.name, protocols, 1, None, PERSONS)
    with scratch_folder(args) as scratch:
        print(convert(args, dict(zip(protocols, args.files, strict=True)), scratch))


if __name__ == "__main__":
    run(main, sys.argv[1:])
