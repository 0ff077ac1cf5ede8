"""Raw files where they lie: in folders, or in the original zip archives, which are read in place.

`find_files` lists them once; a `Where` says where one file is and travels to worker processes; `read_bytes` reads it
there. Each process opens an archive once and keeps it open.
"""

import functools
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from utils.errors import UserError
from utils.files import check_regular, reading_archive

LIMIT = 1e6  # metres: no coordinate is larger; keeps all later arithmetic finite
MAX_BYTES = 128 * 2**20  # of one text file; the longest real ones are a tenth of it. A crafted archive cannot ask more


@dataclass(frozen=True)
class Where:
    """A file: `path` itself, or `member` of the zip archive at `path`."""

    path: str
    member: str | None = None

    def __str__(self) -> str:
        return self.path if self.member is None else f"{self.path}:{self.member}"


@functools.lru_cache(maxsize=64)
def _archive(path: str) -> zipfile.ZipFile:
    with reading_archive(path, "zip archive"):
        return zipfile.ZipFile(path)


def _files_of(path: Path, suffix: str) -> list[Where]:
    """Files with `suffix` in a folder (at any depth) or an archive; archives in a folder count when it has no file."""
    if path.is_dir():
        found = [Where(os.path.join(top, name)) for top, _, names in os.walk(path) for name in names]
        files = [where for where in found if where.path.endswith(suffix)]
        if files:
            return files
        archives = sorted(where.path for where in found if where.path.lower().endswith(".zip"))
        return [where for archive in archives for where in _files_of(Path(archive), suffix)]
    check_regular(path, "folder or archive")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: expected a folder or a zip archive of {suffix} files")
    members = _archive(str(path)).namelist()
    return [Where(str(path), m) for m in members if m.endswith(suffix) and "__MACOSX" not in m]


def find_files(paths, suffix: str) -> dict[str, Where]:
    """File name without suffix -> where it is, for all folders and archives in `paths`, sorted by name.

    Hidden files are left out. Raises UserError when a path holds no such file, or two hold files of one name."""
    files: dict[str, Where] = {}
    for path in paths:
        found = _files_of(Path(path), suffix)
        if not found:
            raise UserError(f"{path}: there is no {suffix} file in it, nor in a zip archive in it")
        for where in found:
            name = PurePosixPath(where.member).name if where.member else os.path.basename(where.path)
            if name.startswith("."):
                continue
            stem = name[: -len(suffix)]
            if stem in files:
                raise UserError(f"{stem}{suffix} is there twice: {files[stem]} and {where}; give only one of them")
            files[stem] = where
    return dict(sorted(files.items()))


def read_bytes(where: Where) -> bytes:
    """The content of a file; UserError when it is missing, too large, or damaged within its archive."""
    if where.member is None:
        check_regular(where.path)
        with open(where.path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    else:
        with reading_archive(where, "file of its archive"), _archive(where.path).open(where.member) as file:
            content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UserError(f"{where}: longer than {MAX_BYTES // 2**20} MB, so it is no raw skeleton file")
    return content


def coordinates(words: list[bytes], text: bytes, place) -> np.ndarray:
    """Words of a file's text as numbers (len(words),) float64; UserError for the first that is no coordinate in metres. place(i):
    where word i is, for messages."""
    try:
        values = np.fromiter(map(float, words), dtype=np.float64, count=len(words))
        good = bool((np.abs(values) < LIMIT).all())  # not for NaN
    except ValueError:
        good = False
    if good and b"_" not in text:
        return values
    for i, word in enumerate(words):
        try:
            good = abs(float(word)) < LIMIT and b"_" not in word  # Python reads 1_0 as a number; here it is damage
        except ValueError:
            good = False
        if not good:
            raise UserError(f"{place(i)}: {word[:40].decode('ascii', 'replace')!r} is no coordinate in metres")
    return values
