"""Views for downstream tasks, (n, T, F): the centre crop for testing and features, a random crop for training, without
augmentation."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from feeder.clips import PackedClips
from feeder.render import centre_crop, render, take_stream
from feeder.sampling import CROP_ONCE, sample_crop, uniforms


@dataclass(frozen=True)
class ClipViews:
    """Views (n, T, F) of clips, by their indices (n,), on the device. stream: of the pretraining; parents (V,): of the joints,
    for bones; frames: T."""

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
        """The centre 95 % of each clip, resized to T frames: the input of all tests."""
        return self._render(index, *centre_crop(self.clips.rows_of(index)[1]))

    def centre_hidden(self, index: Tensor, hidden: Tensor) -> Tensor:
        """`centre` with hidden joints of all persons set to 0 before the stream is computed: bones to a hidden joint are then
        wrong as well, as if the camera had missed the joint. hidden (n, T, V) bool, True = hidden; if none is hidden, the
        result is exactly that of `centre`."""
        x = replace(self, stream="joint", dtype=self.clips.frames.dtype).centre(index)
        x = x.reshape(len(x), self.frames, self.clips.joints, 3, self.clips.persons)
        x = x.masked_fill(hidden.to(x.device)[..., None, None], 0.0)
        return take_stream(x, self.stream, self.parents.to(x.device)).flatten(2).to(self.dtype)

    def random_crop(self, index: Tensor, seed: int, epoch: int, crop=(0.5, 1.0)) -> Tensor:
        """A crop of a U(0.5, 1) share of each clip, at least T frames long: a function of (seed, epoch, clip)."""
        u = uniforms(seed, CROP_ONCE, epoch, (len(self), 2))[index.cpu().numpy()]
        num_frame = self.clips.rows_of(index)[1].cpu().numpy()
        start, length = sample_crop(u[:, 0], u[:, 1], num_frame, crop, self.frames)
        return self._render(index, torch.from_numpy(start), torch.from_numpy(length))

    def labels(self, index: Tensor) -> Tensor:
        return self.clips.labels[index.to(self.clips.labels.device)].to(self.device)


def in_order(count: int, batch: int) -> list[Tensor]:
    """Batches of the indices 0..count-1, in order."""
    return list(torch.arange(count).split(batch))


def shuffled(count: int, batch: int, order: np.ndarray) -> list[Tensor]:
    """Batches of the first `count` indices of `order`; the last batch may be smaller."""
    return list(torch.from_numpy(order[:count]).split(batch))
