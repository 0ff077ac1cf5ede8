"""Views of the downstream tasks: the centre crop for testing and features, a random crop for training. No transforms."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from feeder.clips import PackedClips
from feeder.render import centre_crop, render, take_stream
from feeder.sampling import CROP_ONCE, sample_crop, uniforms


@dataclass(frozen=True)
class ClipViews:
    """Views (n, T, F) of chosen clips, on the device. stream: that of the pretraining; parents (V,): of the bones."""

    clips: PackedClips
    parents: Tensor
    stream: str = "joint"
    frames: int = 64
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32

    def __len__(self) -> int:
        return len(self.clips)

    def _render(self, index: Tensor, start: Tensor, length: Tensor) -> Tensor:
        where, (first, _, factors) = self.clips.frames.device, self.clips.rows_of(index)
        first, length, parents = first + start.to(where), length.to(where), self.parents.to(where)
        x = render(self.clips.frames, first, length, None, self.frames, self.stream, parents, factors=factors)
        return x.to(self.device, self.dtype, non_blocking=True)

    def centre(self, index: Tensor) -> Tensor:
        """The centre 95 % of each clip, resized to T: what every test reads."""
        return self._render(index, *centre_crop(self.clips.rows_of(index)[1]))

    def centre_hidden(self, index: Tensor, hidden: Tensor) -> Tensor:
        """`centre` with joints of all persons zeroed before the stream is taken: a bone to a hidden joint is then wrong too,
        as it is when a camera misses the joint. hidden (n, T, V) bool, True = hidden; with none hidden, `centre` exactly."""
        x = replace(self, stream="joint", dtype=self.clips.frames.dtype).centre(index)
        x = x.reshape(len(x), self.frames, self.clips.joints, 3, self.clips.persons)
        x = x.masked_fill(hidden.to(x.device)[..., None, None], 0.0)
        return take_stream(x, self.stream, self.parents.to(x.device)).flatten(2).to(self.dtype)

    def random_crop(self, index: Tensor, seed: int, epoch: int, crop=(0.5, 1.0)) -> Tensor:
        """A crop of U(0.5, 1) of each clip, at least T frames: a function of (seed, epoch, clip)."""
        u = uniforms(seed, CROP_ONCE, epoch, (len(self), 2))[index.cpu().numpy()]
        num_frame = self.clips.rows_of(index)[1].cpu().numpy()
        start, length = sample_crop(u[:, 0], u[:, 1], num_frame, crop, self.frames)
        return self._render(index, torch.from_numpy(start), torch.from_numpy(length))

    def labels(self, index: Tensor) -> Tensor:
        return self.clips.labels[index.to(self.clips.labels.device)].to(self.device)


def in_order(count: int, batch: int) -> list[Tensor]:
    """Indices 0..count-1 in batches."""
    return list(torch.arange(count).split(batch))


def shuffled(count: int, batch: int, order: np.ndarray) -> list[Tensor]:
    """Indices in the given order, in batches; the last one may be smaller."""
    return list(torch.from_numpy(order[:count]).split(batch))
