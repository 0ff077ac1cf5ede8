"""Packed clips: all valid frames of a split in one `(F, V, C, M)` array, with the offset of each clip.

Prepared arrays store every clip padded to 300 frames and as (C, T, V, M), so that the 150 numbers of a frame lie in three
different places. Packed, a frame is one contiguous row of 600 bytes in the order that the encoder reads, and padding is
removed (NTU-60 x-view: 6.8 GB, packed an estimated 1.9 GB), so that a crop of a clip is a gather of rows. The packed array
is made once, cached beside the source (or in `--cache-dir`, see feeder.packed) and opened as a memory map.

`placement` says where it is kept during training: `mapped` (left to the page cache), `memory` or `device`; `auto` chooses
the device, if it is not a CPU and the clips fit in half of its free memory, else memory, if they fit in half of what is
free, else the map.
"""

import sys
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from feeder.packed import Packing, packed_frames
from feeder.render import take_stream
from feeder.scale import median_length, trunk_lengths
from utils.arrays import open_split
from utils.fingerprint import of_clips
from utils.machine import free_memory
from utils.skeleton import Layout


@dataclass(frozen=True)
class PackedClips:
    """frames (F, V, C, M) float32; offsets (N,): first row of each clip; num_frame (N,); labels (N,); names: N strings;
    dropped: names of clips without frames, which are not packed; source: the folder and split, for messages; fingerprint:
    of the whole split as it was loaded (utils.fingerprint), None for clips that are not from a prepared folder; factors
    (N,): what the frames of a clip are multiplied by when they are read, or None."""

    frames: Tensor
    offsets: Tensor
    num_frame: Tensor
    labels: Tensor
    names: tuple[str, ...]
    dropped: tuple[str, ...]
    source: str
    fingerprint: dict | None = None
    factors: Tensor | None = None

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

    def rows_of(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """For clips index (n,): their first row in `frames`, their number of frames and their factor (or None), each (n,) and
        on the device of the frames."""
        index, where = index.to(self.offsets.device), self.frames.device
        factors = None if self.factors is None else self.factors[index].to(where)
        return self.offsets[index].to(where), self.num_frame[index].to(where), factors

    def to(self, device, placement: str = "auto") -> "PackedClips":
        """The same clips with frames (and, for `device`, all other tensors) placed as `placement` says."""
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
            factors=None if self.factors is None else self.factors.to(device),
        )

    def scaled(self, by: str, layout: Layout) -> "PackedClips":
        """The same clips with `factors` that divide each by its trunk length (by: "trunk") or not at all ("none"). The stored
        frames do not change."""
        if by == "none":
            return self
        lengths = [
            median_length(trunk_lengths(self.frames[low : low + n], layout))
            for low, n in zip(self.offsets.tolist(), self.num_frame.tolist(), strict=True)
        ]
        return replace(self, factors=1 / torch.tensor(lengths, dtype=self.frames.dtype, device=self.offsets.device))

    def with_stream(self, stream: str, parents: Tensor) -> "PackedClips":
        """The same clips with the bone or motion stream in place of the frames, in memory (the release's `--use-bone-feeder`
        and `--use-motion-feeder`: the stream is computed before crop and augmentation instead of last)."""
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
            factors=None if self.factors is None else self.factors[where],
            names=tuple(self.names[i] for i in index.tolist()),
        )


def _automatic_placement(nbytes: int, device: torch.device) -> str:
    if device.type == "cuda":
        if nbytes < torch.cuda.mem_get_info(device)[0] // 2:
            return "device"
    elif device.type != "cpu":
        return "device"
    return "memory" if nbytes < free_memory() // 2 else "mapped"


def load_clips(
    folder, split: str, joints: int, persons: int, num_classes: int | None, cache_dir=None, quiet: bool = False
) -> PackedClips:
    """Opens, checks and packs a split of a prepared protocol folder; quiet: without notes on dropped clips.

    UserError for everything that utils.arrays.open_split refuses, and for coordinates that are not finite."""
    opened = open_split(folder, split, joints, persons, num_classes)
    num_frame = opened.num_frame[opened.kept]
    offsets = np.concatenate([[0], np.cumsum(num_frame)])
    shape = (int(offsets[-1]), joints, 3, persons)
    packed, coordinates = packed_frames(Packing(opened, offsets, shape, quiet), cache_dir)
    if opened.dropped and not quiet:
        shown = ", ".join(opened.dropped[:5]) + (", ..." if len(opened.dropped) > 5 else "")
        print(f"{len(opened.dropped)} clips of {split} have no frame and are left out: {shown}", file=sys.stderr)
    names, labels = tuple(opened.names[i] for i in opened.kept), opened.labels[opened.kept]
    return PackedClips(
        frames=torch.from_numpy(packed),
        offsets=torch.from_numpy(offsets[:-1]),
        num_frame=torch.from_numpy(num_frame),
        labels=torch.from_numpy(labels),
        names=names,
        dropped=tuple(opened.dropped),
        source=f"{folder} ({split})",
        fingerprint=of_clips(names, labels, num_frame, shape, coordinates),
    )
