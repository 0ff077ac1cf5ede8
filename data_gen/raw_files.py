"""Raw files in folders, or in the original zip archives, which are read without unpacking.

`find_files` lists them once; a `Where` is the place of one file and can be sent to worker processes; `read_bytes` reads
it. Each process opens an archive once and keeps it open. `coordinates` parses the numbers of a text file.
"""

import functools
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from utils.errors import UserError
from utils.files import check_regular, reading_archive

LIMIT = 1e6  # metres: larger coordinates are refused, so that all later arithmetic stays finite
MAX_BYTES = 128 * 2**20  # of one text file, ten times the longest real one; a crafted archive cannot ask for more


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
    """Files with `suffix` in a folder (recursively) or an archive; the archives of a folder if it has no such file."""
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
    """File name without suffix -> its place, for all folders and archives in `paths`, sorted by name.

    Hidden files are skipped. UserError when a path contains no such file, or a name appears twice."""
    files: dict[str, Where] = {}
    for path in paths:
        found = _files_of(Path(path), suffix)
        if not found:
            raise UserError(f"{path}: there is no {suffix} file in it or in its zip archives")
        for where in found:
            name = PurePosixPath(where.member).name if where.member else os.path.basename(where.path)
            if name.startswith("."):
                continue
            stem = name[: -len(suffix)]
            if stem in files:
                raise UserError(f"{stem}{suffix} appears twice: {files[stem]} and {where}; give only one of them")
            files[stem] = where
    return dict(sorted(files.items()))


def read_bytes(where: Where) -> bytes:
    """The content of a file; UserError when it is missing, too large, or damaged in its archive."""
    if where.member is None:
        check_regular(where.path)
        with open(where.path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    else:
        with reading_archive(where, "file of its archive"), _archive(where.path).open(where.member) as file:
            content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UserError(f"{where}: longer than {MAX_BYTES // 2**20} MB, so it is not a raw skeleton file")
    return content


def coordinates(words: list[bytes], text: bytes, place) -> np.ndarray:
    """Words of a file's text as numbers (len(words),) float64; UserError for the first that is not a coordinate in metres.
    place(i): file and line of word i, for messages."""
    try:
        values = np.fromiter(map(float, words), dtype=np.float64, count=len(words))
        good = bool((np.abs(values) < LIMIT).all())  # False for NaN
    except ValueError:
        good = False
    if good and b"_" not in text:
        return values
    for i, word in enumerate(words):
        try:
            good = abs(float(word)) < LIMIT and b"_" not in word  # float accepts 1_0, which is damage here
        except ValueError:
            good = False
        if not good:
            raise UserError(f"{place(i)}: {word[:40].decode('ascii', 'replace')!r} is not a coordinate in metres")
    return values
