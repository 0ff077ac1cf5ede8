"""Plain twins: straightforward versions of the released computation, for benchmarks and tests."""

import random

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

from models.pcm3 import PCM3, PCM3Config
from models.recurrent import ForwardGRU


class FrameByFrameGRU(ForwardGRU):
    """The recurrent layers as in the release: one call of a bidirectional torch GRU per frame, passing the state on."""

    def _run(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        weights, two = [w for layer in self.weights() for w in layer], self.directions == 2
        outputs = []
        for frame in x.split(1, dim=1):
            output, state = torch._VF.gru(frame, state, weights, True, self.num_layers, 0.0, self.training, two, True)
            outputs.append(output)
        return torch.cat(outputs, dim=1), state


class PlainPCM3(PCM3):
    """A training step computed as in the release: a pass of the encoder for each view, two of the decoder, a copy of the queue for
    each product with it. Same values, same names."""

    def __init__(self, config: PCM3Config):
        super().__init__(config)
        for module in self.modules():
            if isinstance(module, ForwardGRU):
                module.__class__ = FrameByFrameGRU  # same weights, other implementation

    def _encode(self, encoder, views, updates):
        out = {}
        for name, x in views.items():
            out |= super()._encode(encoder, {name: x}, updates)
        return out

    def _predict(self, features, updates):
        predicted = self._decode(features, 1, updates)
        return predicted, self._decode(features.detach(), 1, updates)

    def _contrast(self, *arguments):
        queue = self.queue
        self.queue = queue.clone()
        try:
            return super()._contrast(*arguments)
        finally:
            self.queue = queue


class PlainFeeder:
    """Makes views as the released feeder does: one sample after the other, in the same order of operations.

    For a sample: read the whole stored clip (3, 300, V, M); then, three times: copy it, sample a crop and slice it, make it a
    tensor of (1, C * V * M, L, 1), resize that bilinearly to (T, 1), reshape it to (3, T, V, M), sample the transform, copy, apply
    it (a shear multiplies all coordinates by a float64 matrix; corruption replaces 15 joints by zeros or by such a product),
    convert to float32. For a batch: collate the samples as a DataLoader does. The transposition to the encoder's
    (N, T, V * C * M), which the release does in the training step, and the transfer from a worker process are left out."""

    def __init__(self, clips: np.ndarray, num_frame: np.ndarray, seed: int, frames: int = 64):
        self.clips, self.num_frame, self.frames = clips, num_frame, frames
        self.random = random.Random(seed)

    def crop(self, clip: np.ndarray, n: int) -> tuple[np.ndarray, int, int]:
        """A random crop, resized to (3, T, V, M), its start and its length."""
        clip = clip.copy()
        channels, _, joints, persons = clip.shape
        share = 0.1 + 0.9 * self.random.random()
        length = min(max(int(n * share), 64), n)
        start = self.random.randint(0, n - length)
        x = torch.tensor(clip[:, start : start + length])
        x = x.permute(0, 2, 3, 1).reshape(1, channels * joints * persons, length, 1)
        x = F.interpolate(x, (self.frames, 1), mode="bilinear", align_corners=False)
        x = x.reshape(channels, joints, persons, self.frames).permute(0, 3, 1, 2).contiguous()
        return x.numpy(), start, length

    def transform(self, x: np.ndarray, corruptible: bool) -> tuple[np.ndarray, np.ndarray]:
        """x (3, T, V, M) after a random transform, and its matrices (V, 3, 3)."""
        joints, uniform = x.shape[2], self.random.uniform
        if not (corruptible and self.random.random() < 0.5):
            shear = np.array([[1.0 if i == j else uniform(-1, 1) for j in range(3)] for i in range(3)])
            moved = np.dot(x.copy().transpose(1, 2, 3, 0), shear.T)
            return moved.transpose(3, 0, 1, 2), np.tile(shear, (joints, 1, 1))
        out, matrices = x.copy(), np.tile(np.eye(3), (joints, 1, 1))
        zero = self.random.random() < 0.5
        chosen = self.random.sample(range(joints), 15)
        matrix = np.zeros((3, 3)) if zero else np.array([[uniform(-1, 1) for _ in range(3)] for _ in range(3)])
        if zero:
            out[:, :, chosen] = 0
        else:
            out[:, :, chosen] = np.dot(out[:, :, chosen].transpose(1, 2, 3, 0), matrix).transpose(3, 0, 1, 2)
        matrices[chosen] = matrix.T
        return out, matrices

    def sample(self, index: int) -> list[tuple]:
        """Query, key and target (3, T, V, M) of a clip, each with its start, length and matrices."""
        clip = np.array(self.clips[index])
        views = []
        for corruptible in (True, True, False):
            x, start, length = self.crop(clip, int(self.num_frame[index]))
            x, matrices = self.transform(x, corruptible)
            views.append((x.astype(np.float32), start, length, matrices))
        return views

    def batch(self, indices) -> list[Tensor]:
        """The three views (N, 3, T, V, M) of a batch."""
        return default_collate([tuple(x for x, *_ in self.sample(i)) for i in indices])
