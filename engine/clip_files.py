"""Somebody's clips for an encoder: a folder, an archive or one file, one by one, by name.

A clip in a folder below is named CLASS/NAME, and the folder counts as its class where a program asks for one.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_gen.from_arrays import ArrayClips
from utils.errors import UserError
from utils.files import MAX_UNPACKED, ArrayArchive, check_regular


class ClipFiles:
    """The clips of a folder of .npy files (and of folders in it), of one such file, or of an .npz, in order of their names.

    limit: of the memory that a clip may need (utils.files). UserError where there is no clip."""

    def __init__(self, source, limit: int = MAX_UNPACKED):
        self.root = path = Path(source)
        if path.is_dir():
            files = (p.relative_to(path) for p in path.rglob("*.npy"))
            self.names = sorted(p.with_suffix("").as_posix() for p in files if not any(s[0] == "." for s in p.parts))
        elif path.suffix == ".npy":
            check_regular(path)
            self.names, self.root = [path.stem], path.parent
        else:
            with ArrayArchive(path, limit, what="folder of .npy files, .npy or .npz file") as archive:
                self.names = sorted(archive.names)
        if not self.names:
            raise UserError(f"{path}: there is no .npy array in it, expected a clip a file: NAME.npy or CLASS/NAME.npy")
        self._read = ArrayClips(str(self.root), limit=limit).read

    def __len__(self) -> int:
        return len(self.names)

    def place(self, name: str) -> str:
        """Where a clip lies, for messages."""
        return str(self.root / f"{name}.npy")

    def read(self, name: str) -> np.ndarray:
        """The array of a clip, as it lies there. UserError for one that cannot be read."""
        return self._read(name)

    def clips(self) -> Iterator[np.ndarray]:
        return map(self.read, self.names)

    def classes(self) -> list[str | None]:
        """The folder of each clip, None for one that lies in the source itself."""
        return [name.rsplit("/", 1)[0] if "/" in name else None for name in self.names]
