"""A user's clips for an encoder: from a folder, an archive or one file, read one by one, by name.

`open_clips` opens them. Arrays in the encoder's input layout are read as they are (`ClipFiles`); poses of any other form or
layout are read by data_gen.poses (`PoseFiles`): it finds form, layout, units and axes and reports them, repairs damaged
frames and converts joints to the encoder's layout.

A clip in a subfolder is named CLASS/NAME; the subfolder is its class in programs that need labels.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_gen.from_arrays import LISTS, ArrayClips
from data_gen.from_files import TemporaryClips
from data_gen.from_poses import gather
from data_gen.poses.forms import VIDEOS, ending_is_known
from data_gen.poses.mend import Mending
from data_gen.poses.survey import PoseOptions, survey
from engine.features import SkeletonEncoder
from utils.errors import UserError
from utils.files import MAX_UNPACKED, ArrayArchive, check_regular
from utils.skeleton import Layout


class NamedClips:
    """Clips by name, in the order of their names, read one by one by `read(name)`."""

    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def clips(self) -> Iterator[np.ndarray]:
        return map(self.read, self.names)


class ClipFiles(NamedClips):
    """The clips of a folder of .npy files (subfolders too), of one .npy file, or of an .npz, in order of their names.

    limit: bytes that a clip may need (utils.files); lines: empty, see `PoseFiles`. UserError where there is no clip."""

    lines: tuple[str, ...] = ()

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
        self._load = ArrayClips(str(self.root), limit=limit)

    def place(self, name: str) -> str:
        """The path of a clip, for messages."""
        return str(self.root / f"{name}.npy")

    def read(self, name: str) -> np.ndarray:
        """The array of a clip, unchanged. UserError for one that cannot be read."""
        return self._load.read(name)

    def shape(self) -> tuple[int, ...]:
        """The shape of the first clip whose header can be read, () if there is none."""
        for name in self.names:
            try:
                return self._load.shape(name)
            except UserError:
                continue
        return ()

    def classes(self) -> list[str | None]:
        """The subfolder of each clip, None for a clip that is not in one."""
        return [name.rsplit("/", 1)[0] if "/" in name else None for name in self.names]


class PoseFiles(NamedClips):
    """The clips of pose files of any form, read and repaired at once into a temporary file, with names as in `ClipFiles`.

    layout: of the clips (T, V, 3, M) that are returned; persons: at most; given: the layout of the files, None to find it; lines:
    log lines about what was found and repaired. A clip that cannot be used has a name too; reading it raises the reason."""

    def __init__(self, source, layout: Layout, persons: int, given: Layout | None = None):
        options = PoseOptions(layout=given and given.name, target=layout.name)
        seen = survey(source, options, Mending(persons=persons))
        self.root = Path(source)
        self._folder = tempfile.TemporaryDirectory(prefix="poses-")  # deleted with this object
        found = gather(seen, TemporaryClips(Path(self._folder.name) / "clips.raw"), workers=1)
        self._packed, self._known = found.packed, found.clips
        for name, reason in found.bad.items():
            self._packed.refuse(name, reason)
        self.names = sorted({*found.clips, *found.bad})
        self._paths = {entry.name: entry.path for entry in seen.entries}
        mended = (f"mended: {what} ({times} times in {clips} clips)" for what, clips, times in found.table())
        self.lines = (*seen.lines, *mended)

    def place(self, name: str) -> str:
        """The path of a clip, for messages."""
        return self._paths.get(name, f"{self.root}: {name}")

    def read(self, name: str) -> np.ndarray:
        """The coordinates (T, V, 3, M) of a clip. UserError for one that cannot be used."""
        return self._packed(name).transpose(1, 2, 0, 3)

    def classes(self) -> list[str | None]:
        """The label of each clip in its file, else its subfolder, else None."""
        known = [self._known.get(name) for name in self.names]
        return [k and (k.label or "/".join(k.folders)) or None for k in known]


def open_clips(source, encoder: SkeletonEncoder, limit: int = MAX_UNPACKED) -> ClipFiles | PoseFiles:
    """The clips of a folder or file, for an encoder (see the module docstring). UserError when it holds none."""
    path, layout = Path(source), encoder.input_layout
    _refuse_videos(path)
    if not path.exists() or _is_arrays(path):
        files = ClipFiles(path, limit)
        shape = files.shape()
        if not shape or any(part in ((layout.joints, 3), (layout.joints, 2)) for part in (shape[-2:], shape[1:3])):
            return files
    return PoseFiles(path, layout, encoder.persons, layout if layout != encoder.layout else None)


def _refuse_videos(path: Path) -> None:
    """UserError where there are videos and nothing else that could be clips; its message says how to get poses."""
    kinds = {p.suffix.lower() for p in ([path] if path.is_file() else path.rglob("*"))}
    if kinds & set(VIDEOS) and not kinds & {".npy", ".npz", ".json", ".csv", ".pkl"}:
        raise UserError(
            f"{path}: videos need poses first: python -m data_gen.from_video {path} --name NAME (in its own environment, "
            "requirements-video.txt) keeps them in data/NAME_poses; give that folder"
        )


def _is_arrays(path: Path) -> bool:
    """Whether `path` is one .npy or .npz, or a folder whose pose files are all .npy."""
    if path.is_file():
        return path.suffix.lower() in (".npy", ".npz") or not ending_is_known(path)
    files = (p for p in path.rglob("*") if p.is_file() and p.name not in LISTS)
    return all(p.suffix.lower() == ".npy" or not ending_is_known(p) for p in files)
