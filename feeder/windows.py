"""Windows of untrimmed videos for detection, and pairs of observed and future frames for motion prediction.

A window around frame t has the frames t + (k - L/2) * stride, k = 0..L-1, and is not resized; before the start and after the
end of the video the first or last frame is repeated. t is a frame of the video, so padding is never a target. A sequence is a
long run of consecutive frames, all of which are targets.

Coordinates are those of the file, raw in most cases, or normalised like clips for pretraining: `centre` subtracts the centre
of person 1 in each frame; `spine` and `shoulders` rotate the window by the posture of person 1 in its first frame; `trunk`
divides it by the median length of person 1's trunk. The released normalisation of clips moves a person's frames to the front
if the first is empty; here the first frame that shows person 1 gives the rotation, and frames are not moved, because frame
numbers must keep their meaning.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from feeder import scale
from feeder.clips import PackedClips
from feeder.render import take_stream
from feeder.sampling import CHUNKS, FUTURES, WINDOWS, integers, uniforms
from utils.convert_layout import trunk_length
from utils.errors import UserError
from utils.skeleton import Layout, at
from utils.untrimmed import Untrimmed

STEPS = ("centre", "trunk", "spine", "shoulders")  # steps of the normalisation that apply to a window
_TINY = 1e-6  # shorter vectors and smaller angles give no rotation, as in the released normalisation
_AXES = {"spine": (0.0, 0.0, 1.0), "shoulders": (1.0, 0.0, 0.0)}


def window_rows(target: np.ndarray, stride, length: int, frames) -> np.ndarray:
    """Frame numbers (N, L) of windows around the frames `target` (N,): t + (k - L/2) * stride, clamped to 0..frames-1.

    stride: in frames, one number or (N,); length: L; frames: length of the video, one number or (N,)."""
    steps = np.arange(length) - length // 2
    rows = np.asarray(target)[:, None] + np.reshape(stride, (-1, 1)) * steps
    return np.clip(rows, 0, np.reshape(frames, (-1, 1)) - 1)


# -- normalisation of windows -----------------------------------------------------------------------------------------


def rotation_to(vector: Tensor, axis: Tensor) -> Tensor:
    """The shortest rotations (N, 3, 3) that align vectors (N, 3) with the unit vector `axis` (3,); the identity for a vector
    that is zero, or is parallel to the axis in either direction."""
    eye = torch.eye(3, dtype=vector.dtype, device=vector.device)
    axis = axis.expand_as(vector)
    normal = torch.linalg.cross(vector, axis)
    length = vector.norm(dim=1).clamp_min(1e-300)
    angle = ((vector * axis).sum(1) / length).clamp(-1, 1).acos()
    x, y, z = (normal / normal.norm(dim=1, keepdim=True).clamp_min(1e-300)).unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
    sine, cosine = angle.sin()[:, None, None], angle.cos()[:, None, None]
    rotation = eye + sine * cross + (1 - cosine) * (cross @ cross)  # Rodrigues' formula
    none = (vector.abs().sum(1) < _TINY) | (normal.abs().sum(1) < _TINY) | (angle < _TINY)
    return torch.where(none[:, None, None], eye, rotation)


def median_trunks(x: Tensor, layout: Layout) -> Tensor:
    """The median trunk length (N,), float64, of person 1 in windows x (N, L, C, V, M); 1 if none is detected. It is the
    straight line of the preparation's step `trunk`; the length of feeder.scale, for encoders, follows the spine."""
    lengths = trunk_length(x[..., 0].double(), layout)
    seen = (x[..., 0] != 0).flatten(2).any(-1)
    median = lengths.masked_fill(~seen, torch.nan).nanquantile(0.5, dim=1)
    return torch.where(median >= _TINY, median, 1.0)


def orientation(x: Tensor, layout: Layout, steps) -> Tensor:
    """Matrices (N, 3, 3), float64, for windows x (N, L, C, V, M): the rotation from person 1 in the first frame that shows
    it, divided by the trunk length if `trunk` is one of the steps."""
    seen = (x[..., 0] != 0).flatten(2).any(-1)  # (N, L)
    first = x[torch.arange(len(x), device=x.device), seen.int().argmax(1), :, :, 0].double()  # (N, C, V)
    rotation = torch.eye(3, dtype=torch.float64, device=x.device).expand(len(x), 3, 3)
    for step, (start, end) in (("spine", layout.up), ("shoulders", layout.across)):
        if step in steps:
            joints = rotation @ first
            axis = torch.tensor(_AXES[step], dtype=torch.float64, device=x.device)
            rotation = rotation_to(at(joints, end, 2) - at(joints, start, 2), axis) @ rotation
    return rotation / median_trunks(x, layout)[:, None, None] if "trunk" in steps else rotation


def turn_windows(x: Tensor, matrices: Tensor) -> Tensor:
    """Windows x (N, L, C, V, M), each multiplied by its matrix (N, 3, 3)."""
    return torch.einsum("nij,nljvm->nlivm", matrices.to(x.dtype), x)


def normalise_windows(x: Tensor, layout: Layout, steps, rotation: Tensor | None = None) -> Tensor:
    """Windows x (N, L, C, V, M) centred, rotated and scaled. steps: some of STEPS; rotation (N, 3, 3): used instead of each
    window's own `orientation`.

    A joint at exactly zero was not detected and stays zero; a frame without person 1 is not centred."""
    if "centre" in steps:
        seen = (x != 0).any(2, keepdim=True)
        x = (x - at(x[..., 0], layout.centre, 3)[..., None, None]) * seen
    if {"trunk", "spine", "shoulders"} & set(steps):
        x = turn_windows(x, orientation(x, layout, steps) if rotation is None else rotation)
    return x


# -- untrimmed videos --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VideoWindows:
    """Windows and sequences (n, L, F) of chosen videos, on the device.

    videos: the checked files; chosen: indices of the videos, in the order used here; stream: joint, bone or motion, computed
    last, within the window; steps: of the normalisation, () for none; scale_by: as in the encoder's configuration; the trunk
    length is the median of a window, and for a sequence that of the first frame of the video that shows person 1."""

    videos: Untrimmed
    chosen: tuple[int, ...]
    layout: Layout
    stream: str = "joint"
    steps: tuple[str, ...] = ()
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    scale_by: str = "none"

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def names(self) -> list[str]:
        return [self.videos.names[i] for i in self.chosen]

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each video (n,)."""
        return np.diff(self.videos.offsets)[list(self.chosen)]

    def labels(self, i: int) -> np.ndarray:
        """Frame labels (T,) of the i-th chosen video, 0 = background."""
        return self.videos.labels(self.chosen[i])

    def ground_truth(self, i: int) -> np.ndarray:
        """Segments (class, counted from 1, start, end, 1) of the i-th chosen video; start and end as in the data set's text
        files."""
        rows = self.videos.segments[self.chosen[i]].astype(np.float64)
        return np.column_stack([rows[:, 0] + 1, rows[:, 1:], np.ones(len(rows))])

    def _read(self, i: int, rows=slice(None)) -> Tensor:
        """A copy of frames of a video. UserError if a coordinate is not finite."""
        frames = np.array(self.videos.video(self.chosen[i])[rows])
        if not np.isfinite(frames).all():
            raise UserError(
                f"{self.videos.folder}: video {self.names[i]} has a coordinate that is not finite; prepare the data again"
            )
        return torch.from_numpy(frames)

    def finish(self, x: Tensor, rotation: Tensor | None = None, length: float | None = None) -> Tensor:
        """Frames of the file (N, L, C, V, M) -> the encoder's input (N, L, V * C * M). rotation: see `normalise_windows`;
        length: of the trunk; None for each window's own."""
        x = x.to(self.device, self.dtype, non_blocking=True)
        x = normalise_windows(x, self.layout, self.steps, rotation)
        if self.scale_by == "trunk":
            found = scale.trunk_lengths(x.transpose(2, 3), self.layout)
            trunks = [length or scale.median_length(lengths) for lengths in found]
            x = x / x.new_tensor(trunks)[:, None, None, None, None]
        parents = torch.tensor(self.layout.parents, device=x.device)
        return take_stream(x.transpose(2, 3), self.stream, parents).flatten(2)

    def sample(self, seed: int, epoch: int, number: int, strides: tuple[int, int]) -> np.ndarray:
        """The windows of a training epoch, rows (video, target frame, stride): `number` for each video that has frames;
        targets are uniform over the video, strides over strides[0]..strides[1]. A function of (seed, epoch)."""
        u = uniforms(seed, WINDOWS, epoch, (len(self), number, 2))
        target = integers(u[..., 0], 0, self.lengths[:, None] - 1)
        stride = integers(u[..., 1], *strides)
        video = np.broadcast_to(np.arange(len(self))[:, None], target.shape)
        samples = np.stack([video, target, stride], axis=-1).reshape(-1, 3)
        return samples[self.lengths[samples[:, 0]] > 0]

    def windows(self, samples: np.ndarray, length: int) -> tuple[Tensor, Tensor]:
        """Windows (N, L, F) and labels (N,) of rows (video, target, stride)."""
        parts, labels, lengths = [], [], self.lengths
        for video, target, stride in samples:
            rows = window_rows([target], stride, length, lengths[video])[0]
            parts.append(self._read(video, rows))
            labels.append(int(self.labels(video)[target]))
        return self.finish(torch.stack(parts)), torch.tensor(labels, device=self.device)

    def every_frame(self, i: int, length: int, stride: int, batch: int):
        """Yields windows (n, L, F) around every frame of a video, in order, at most `batch` at a time."""
        frames = self._read(i)
        for low in range(0, len(frames), batch):
            target = np.arange(low, min(low + batch, len(frames)))
            yield self.finish(frames[torch.from_numpy(window_rows(target, stride, length, len(frames)))])

    def rotation(self, i: int) -> Tensor | None:
        """The rotation (1, 3, 3) of sequences of this video, from the first frame that shows person 1, so that it is known
        once the video has begun; None if no step rotates."""
        if "spine" not in self.steps and "shoulders" not in self.steps:
            return None
        video = self.videos.video(self.chosen[i])
        first = next((t for t in range(len(video)) if video[t, ..., 0].any()), 0)
        x = self._read(i, slice(first, first + 1))[None].to(self.device, self.dtype)
        return orientation(normalise_windows(x, self.layout, set(self.steps) & {"centre"}), self.layout, self.steps)

    def whole(self, i: int) -> Tensor:
        """All frames of a video as one sequence (1, T, F)."""
        return self.finish(self._read(i)[None], self.rotation(i), self.length(i))

    def length(self, i: int) -> float | None:
        """The trunk length in the first frame of a video that shows it, if sequences are divided by it; else None."""
        if self.scale_by == "none":
            return None
        frames = self._read(i).transpose(1, 2)
        return scale.first_length(scale.trunk_lengths(frames, self.layout)) or 1.0

    def sample_chunks(self, seed: int, epoch: int, number: int, length: int) -> np.ndarray:
        """The chunks of a training epoch, rows (video, start): `number` for each video longer than `length` frames, with
        uniform starts; one, with start 0, for each shorter video. A function of (seed, epoch)."""
        u = uniforms(seed, CHUNKS, epoch, (len(self), number))
        start = integers(u, 0, np.maximum(self.lengths[:, None] - length, 0))
        video = np.broadcast_to(np.arange(len(self))[:, None], start.shape)
        keep = (self.lengths[:, None] > length) | (np.arange(number) == 0)
        return np.stack([video, start], axis=-1)[keep & (self.lengths[:, None] > 0)]

    def chunks(self, samples: np.ndarray, length: int) -> tuple[Tensor, Tensor]:
        """Sequences (N, L, F) and frame labels (N, L) of rows (video, start); the padding after a short video has label -1."""
        x, labels = [], torch.full((len(samples), length), -1)
        for k, (video, start) in enumerate(samples):
            rows = self._read(video, slice(start, start + length))[None]
            part = self.finish(rows, self.rotation(video), self.length(video))
            x.append(torch.nn.functional.pad(part, (0, 0, 0, length - part.shape[1])))
            labels[k, : part.shape[1]] = torch.from_numpy(self.labels(video)[start : start + length].astype(np.int64))
        return torch.cat(x), labels.to(self.device)


# -- motion prediction --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FutureViews:
    """Observed frames and the frames that follow them, at the original frame rate.

    clips: packed clips of at least observe + predict frames (`long_enough` finds them); observe, predict: numbers of frames;
    stream: of the observed part; metres: length of a unit of the coordinates."""

    clips: PackedClips
    parents: Tensor
    observe: int = 50
    predict: int = 25
    stream: str = "joint"
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    metres: float = 1.0

    def __len__(self) -> int:
        return len(self.clips)

    def _cut(self, index: Tensor, start: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        where, (first, _, factors) = self.clips.frames.device, self.clips.rows_of(index)
        first = first + torch.from_numpy(start).to(where)
        rows = first[:, None] + torch.arange(self.observe + self.predict, device=where)
        x = self.clips.frames[rows]  # (n, T, V, C, M)
        joints = x[..., 0].to(self.device, self.dtype)  # person 1: (n, T, V, C)
        observed = x[:, : self.observe]
        if factors is not None:  # the poses to predict are not scaled
            observed = observed * factors[:, None, None, None, None]
        x = take_stream(observed, self.stream, self.parents.to(where))
        observed = x.flatten(2).to(self.device, self.dtype)
        return observed, joints[:, self.observe - 1], joints[:, self.observe :]

    def _room(self, index: Tensor) -> np.ndarray:
        """The largest possible first frame of each clip, (n,)."""
        return self.clips.rows_of(index)[1].cpu().numpy() - self.observe - self.predict

    def test(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From the middle of each clip: the observed frames (n, observe, F) in the encoder's stream, the pose (n, V, 3) of
        person 1 in the last observed frame, and its future poses (n, predict, V, 3)."""
        return self._cut(index, self._room(index) // 2)

    def train(self, index: Tensor, seed: int, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """The same with a uniformly sampled first frame, a function of (seed, epoch, clip)."""
        u = uniforms(seed, FUTURES, epoch, (len(self),))[index.numpy()]
        return self._cut(index, integers(u, 0, self._room(index)))


def long_enough(clips: PackedClips, frames: int) -> np.ndarray:
    """Indices of the clips that have at least `frames` frames."""
    return np.flatnonzero(clips.num_frame.cpu().numpy() >= frames)
