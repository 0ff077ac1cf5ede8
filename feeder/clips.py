"""Packed clips: all valid frames of a split in one `(F, V, C, M)` array with offsets, made once.

The array format stores every clip padded to 300 frames and (C, T, V, M), so that one frame of one clip is 150 numbers in
three places. Packed, a frame is one contiguous row of 600 bytes in the order that the encoder reads, and padding is gone
(NTU-60 x-view: 6.8 GB, an estimated 1.9 GB packed): any crop of any clip is a gather of rows. The packed array is cached
beside the source (or in `--cache-dir`), keyed by size and time of the source files and a checksum of labels and frame
counts, and opened as a memory map.

Where it lives while training is `placement`: `mapped` (the page cache decides), `memory`, `device`; `auto` takes the
device when it is no CPU and the clips fit in half of its free memory, else memory when they fit in half of what is free,
else the map.
"""

import contextlib
import hashlib
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from feeder.views import take_stream
from utils.arrays import Split, fingerprint, open_split, split_files
from utils.errors import UserError
from utils.files import temporary_name

PACK_VERSION = 2  # raised when the order of a packed frame changes, so that older caches are made again
PLACEMENTS = ("auto", "device", "memory", "mapped")


@dataclass(frozen=True)
class PackedClips:
    """frames (F, V, C, M) float32; offsets (N,): first row of each clip; num_frame (N,); labels (N,); names: N strings;
    dropped: names of clips without frames, which are not packed; source: the folder and split, for messages."""

    frames: Tensor
    offsets: Tensor
    num_frame: Tensor
    labels: Tensor
    names: tuple[str, ...]
    dropped: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.names)

    @property
    def persons(self) -> int:
        return self.frames.shape[3]

    @property
    def joints(self) -> int:
        return self.frames.shape[1]

    @property
    def nbytes(self) -> int:
        return self.frames.numel() * self.frames.element_size()

    def to(self, device, placement: str = "auto") -> "PackedClips":
        """The same clips with frames (and, for `device`, offsets and counts) where `placement` says."""
        device = torch.device(device)
        if placement == "auto":
            placement = _automatic_placement(self.nbytes, device)
        if placement == "mapped":
            return self
        if placement == "memory":
            return replace(self, frames=torch.empty_like(self.frames).copy_(self.frames))
        return replace(
            self,
            frames=self.frames.to(device, copy=True),
            offsets=self.offsets.to(device),
            num_frame=self.num_frame.to(device),
            labels=self.labels.to(device),
        )

    def with_stream(self, stream: str, parents: Tensor) -> "PackedClips":
        """Clips whose stored frames are the bone or motion stream (the release's `--use-bone-feeder` and
        `--use-motion-feeder`: the stream is taken before crop and transform instead of last). Held in memory."""
        if stream == "joint":
            return self
        out = torch.empty_like(self.frames)
        for low, n in zip(self.offsets.tolist(), self.num_frame.tolist(), strict=True):
            out[low : low + n] = take_stream(self.frames[low : low + n], stream, parents)
        return replace(self, frames=out)

    def select(self, indices) -> "PackedClips":
        """A subset of the clips (for label fractions); frames are shared, not copied."""
        index = torch.as_tensor(indices, dtype=torch.long)
        where = index.to(self.offsets.device)
        return replace(
            self,
            offsets=self.offsets[where],
            num_frame=self.num_frame[where],
            labels=self.labels[where],
            names=tuple(self.names[i] for i in index.tolist()),
        )


def _free_memory() -> int:
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):  # not every system tells
        return 0


def _automatic_placement(nbytes: int, device: torch.device) -> str:
    if device.type == "cuda":
        if nbytes < torch.cuda.mem_get_info(device)[0] // 2:
            return "device"
    elif device.type != "cpu":
        return "device"
    return "memory" if nbytes < _free_memory() // 2 else "mapped"


def _cache_key(split: Split) -> str:
    parts = [f"pack {PACK_VERSION}", fingerprint(split.names, split.labels, split.num_frame)]
    for file in split_files(split.folder, split.split):
        stat = file.stat()
        parts.append(f"{file.name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _fill(split: Split, offsets: np.ndarray, out: np.ndarray, quiet: bool) -> None:
    """Copies the valid frames of every kept clip into out (F, V, C, M); refuses NaN and infinities, with the name."""
    bar = tqdm(split.kept, desc=f"packing {split.split}", unit="clip", disable=quiet or len(split.kept) < 2000)
    for k, i in enumerate(bar):
        n = split.num_frame[i]
        clip = np.asarray(split.data[i, :, :n])
        if not np.isfinite(clip).all():
            frame = int(np.flatnonzero(~np.isfinite(clip).all(axis=(0, 2, 3)))[0])
            raise UserError(
                f"{split.folder}: clip {split.names[i]} of {split.split} has a coordinate that is not finite "
                f"(frame {frame}); prepare the data again without it"
            )
        out[offsets[k] : offsets[k] + n] = clip.transpose(1, 2, 0, 3)


def _pack(split: Split, offsets: np.ndarray, shape, cache_dir: Path | None, quiet: bool) -> np.ndarray:
    """The packed frames: from the cache, made into the cache, or, where nothing can be written, in memory."""
    folder = Path(cache_dir) if cache_dir is not None else split.folder / ".packed"
    target = folder / f"{split.split}-{_cache_key(split)}.npy"
    if target.is_file():
        with contextlib.suppress(ValueError, OSError):
            cached = np.load(target, mmap_mode="c", allow_pickle=False)
            if cached.shape == shape and cached.dtype == np.float32:
                return cached
    temporary = temporary_name(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        packed = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
    except OSError as error:
        if cache_dir is not None:
            raise
        print(f"note: cannot cache packed clips in {folder} ({error.strerror}); packing in memory", file=sys.stderr)
        packed = np.empty(shape, dtype=np.float32)
        _fill(split, offsets, packed, quiet)
        return packed
    try:
        # A sparse file on a full disk kills the process when it is filled through the map: reserve the space first.
        with open(temporary, "r+b") as file, contextlib.suppress(AttributeError):
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        _fill(split, offsets, packed, quiet)
        packed.flush()
        del packed
        for old in folder.glob(f"{split.split}-*.npy"):
            old.unlink(missing_ok=True)
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(target)
        raise
    return np.load(target, mmap_mode="c", allow_pickle=False)


def load_clips(
    folder, split: str, joints: int, persons: int, num_classes: int | None, cache_dir=None, quiet: bool = False
) -> PackedClips:
    """Opens, checks and packs a split of a prepared protocol folder.

    Raises UserError for everything that utils.arrays.open_split refuses, and for coordinates that are not finite."""
    opened = open_split(folder, split, joints, persons, num_classes)
    num_frame = opened.num_frame[opened.kept]
    offsets = np.concatenate([[0], np.cumsum(num_frame)])
    shape = (int(offsets[-1]), joints, 3, persons)
    packed = _pack(opened, offsets, shape, cache_dir, quiet)
    if opened.dropped and not quiet:
        shown = ", ".join(opened.dropped[:5]) + (", ..." if len(opened.dropped) > 5 else "")
        print(f"{len(opened.dropped)} clips of {split} have no frame and are left out: {shown}", file=sys.stderr)
    return PackedClips(
        frames=torch.from_numpy(packed),
        offsets=torch.from_numpy(offsets[:-1]),
        num_frame=torch.from_numpy(num_frame),
        labels=torch.from_numpy(opened.labels[opened.kept]),
        names=tuple(opened.names[i] for i in opened.kept),
        dropped=tuple(opened.dropped),
        source=f"{folder} ({split})",
    )
