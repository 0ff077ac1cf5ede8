"""Features of anybody's clips in Python, from any checkpoint:

    import numpy as np
    from engine.features import load

    encoder = load("checkpoint_last.pth.tar")              # ours, a released one, a relative's, a bare encoder
    clip = np.load("clip.npy")                             # (T, V, C) or (T, V, C, M), metres, any T
    features = encoder.clip_features([clip])               # (1, P): one feature for each clip
    frames = encoder.frame_features(clip)                  # (T, D): one feature for each frame

Joint layout, number of persons and stream are those of the checkpoint; clips of another layout are converted where it is named:
`load(PATH, input_layout="mediapipe_33")`, and clips of two dimensions, (T, V, 2) with y up, are taken as `engine.transfer` says.
Coordinates are raw: what the preparation of a data
set does to a clip is done here (data_gen.normalise), then what evaluation does (centre 95 %, resized to 64 frames), so that
a clip has the feature that it has as part of a prepared data set. Beyond the 300 frames that such a set stores, all of the
clip counts.

Frame features are those of the frames as they are, at the rate they come at, neither cropped nor resized. There a frame
number must keep its meaning, so that nothing is moved to close gaps: frames are centred one by one, and all are turned by
the first frame that shows person 1; frames before that one count as empty. An encoder that reads clips divided by the
length of the trunk gets that of the first frame that shows it, where a clip feature has the median's. This is what a
stream can know, and `start_stream()` gives the same features frame by frame, for the encoders that can be stepped.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data_gen.from_arrays import ArrayClips
from data_gen.normalise import STEPS, normalise, parse_steps
from engine.encoders import LoadedEncoder, build_encoder, dimensions_of, frame_of
from engine.novelty import Novelty, novelty_of
from engine.setup import resolve_device
from engine.transfer import FrameForm, flatten, say_transfer, stand_up
from feeder.clips import PackedClips
from feeder.evaluation import ClipViews
from feeder.render import take_stream
from feeder.scale import first_length, trunk_lengths
from feeder.windows import normalise_windows, orientation, turn_windows
from models.encoder import Encoder
from utils import checkpoint as files
from utils.clip_check import OddClips
from utils.convert_layout import convert
from utils.errors import UserError
from utils.names import STREAMS
from utils.skeleton import LAYOUTS, Layout, get_layout

BATCH = 64  # clips encoded at once: what is held in memory beside the features
FIRST_FRAMES = 30  # of a stream, which are looked at
STREAM_HINT = "use the gru backbone, or a transformer pretrained with --causal"


def read_clip(path) -> np.ndarray:
    """The array of an .npy file, as it lies there; UserError when there is none, or it holds no numbers."""
    path = Path(path)
    if path.suffix != ".npy":
        raise UserError(f"{path}: expected the name of an .npy file, one clip (T, V, 3) or (T, V, 3, M)")
    return ArrayClips(str(path.parent)).read(path.stem)


def as_numbers(values, name: str) -> np.ndarray:
    """Coordinates (..., 3) of numpy, torch (of any precision, on any device, with gradients or without) or lists, as an array.
    Joints of a masked array of which a coordinate is masked are zero, which is how a joint that is not seen is written.
    UserError, with `name`, for what are no numbers."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    if isinstance(values, np.ma.MaskedArray):
        hidden = np.ma.getmaskarray(values)
        for axis in range(hidden.ndim - 2, hidden.ndim) if hidden.ndim > 1 else ():
            if hidden.shape[axis] in (2, 3):  # of coordinates: a joint is seen whole or not
                hidden = np.broadcast_to(hidden.any(axis=axis, keepdims=True), hidden.shape)
                break
        values = np.where(hidden, np.zeros((), values.dtype), values.data)
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{name}: expected an array of numbers ({str(error)[:80]})") from None
    if array.dtype.kind not in "fiu":
        raise UserError(f"{name}: expected numbers, found {array.dtype}")
    return array


def as_clip(array, layout: Layout, persons: int, name: str = "clip") -> np.ndarray:
    """Somebody's array -> a clip (3, T, V, M) float32, absent persons zero.

    array: (T, V, 3), (T, V, 3, M) or (M, T, V, 3), of numpy, torch or lists, at most `persons` persons; with 2 in place of 3,
    z becomes 0. UserError, with `name`, for another shape, for what are no numbers, and for numbers that are not finite."""
    array = as_numbers(array, name)
    shape, joints = array.shape, layout.joints
    poses = ((joints, 3), (joints, 2))
    if len(shape) == 3 and shape[1:] in poses:
        array = array[..., None]
    elif len(shape) == 4 and shape[2:] in poses:
        array = np.moveaxis(array, 0, -1)
    elif not (len(shape) == 4 and shape[1:3] in poses):
        raise UserError(
            f"{name}: expected coordinates (T, {joints}, 3), (T, {joints}, 3, M) or (M, T, {joints}, 3) of joint layout "
            f"{layout.name}, or 2 for 3, found {shape}{_other_layouts(shape, layout)}"
        )
    if not array.shape[0]:
        raise UserError(f"{name}: it has no frame")
    if array.shape[3] > persons:
        raise UserError(
            f"{name}: it has {array.shape[3]} persons, the encoder reads at most {persons}; choose who counts"
        )
    clip = np.zeros((3, len(array), joints, persons), dtype=np.float32)
    with np.errstate(over="ignore"):  # becomes infinite, and is refused below
        clip[: array.shape[2], ..., : array.shape[3]] = array.transpose(2, 0, 1, 3)
    if not np.isfinite(clip).all():
        frame = int(np.flatnonzero(~np.isfinite(clip).all(axis=(0, 2, 3)))[0])
        raise UserError(f"{name}: a coordinate of frame {frame} (counted from 0) is not a finite number")
    return clip


def clip_of_frame(frame, layout: Layout, name: str) -> np.ndarray:
    """Somebody's frame (V, 3), (V, 3, M) or (M, V, 3), or 2 for 3 -> a clip of one frame, as `as_clip` takes it. UserError, with
    `name`, for another shape, and for what are no numbers."""
    array, V = as_numbers(frame, name), layout.joints
    poses = ((V, 3), (V, 2))
    persons_first = array.ndim == 3 and array.shape[1:] in poses
    if not (persons_first or (array.ndim in (2, 3) and array.shape[:2] in poses)):
        raise UserError(
            f"{name}: expected a frame ({V}, 3), ({V}, 3, M) or (M, {V}, 3) of joint layout {layout.name}, or 2 for 3, found "
            f"{array.shape}"
        )
    return array[:, None] if persons_first else array[None]


def _other_layouts(shape, layout: Layout) -> str:
    """A hint for an array of another number of joints: which layouts have as many."""
    fitting = [one.name for one in LAYOUTS.values() if one.joints in shape[1:3] and one != layout]
    return f"; where its joints are those of {' or '.join(fitting)}, say so (input layout)" if fitting else ""


class SkeletonEncoder:
    """An encoder with all that comes before it. encoder: the module, in eval mode, on `device`; layout, persons: of a
    frame; stream: one of utils.names.STREAMS, made here of joints; source: the file, for messages; steps: of the
    normalisation; input_layout: of the clips that are given, None = the encoder's."""

    def __init__(
        self,
        loaded: LoadedEncoder,
        layout: Layout,
        persons: int,
        steps=STEPS,
        device: torch.device | None = None,
        input_layout: Layout | None = None,
    ):
        device = device or torch.device("cpu")
        self.encoder: Encoder = loaded.encoder.to(device).eval().requires_grad_(False)
        self.stream, self.source, self.steps, self.device = loaded.stream, loaded.source, tuple(steps), device
        self.layout, self.persons = layout, persons
        self.input_layout = input_layout or layout
        self.converted = say_transfer(FrameForm(self.input_layout, persons), FrameForm(layout, persons))
        self._parents = torch.tensor(layout.parents)

    @property
    def feature_size(self) -> int:
        """D, of the feature of a frame."""
        return self.encoder.feature_size

    @property
    def clip_size(self) -> int:
        """P, of the feature of a clip: D, or a multiple of it (models.pooling)."""
        return self.encoder.clip_size

    @property
    def scale_by(self) -> str:
        """What clips are divided by: none or trunk."""
        return self.encoder.config.scale_by

    @property
    def form(self) -> FrameForm:
        """What a frame of the encoder is."""
        return FrameForm(self.layout, self.persons, self.encoder.config.dimensions)

    def checked(self, clip, name: str) -> np.ndarray:
        """A raw clip -> (3, T, V, M) of the encoder's layout and dimensions, still raw; UserError, with its name, for one that the
        encoder cannot read."""
        clip = convert(as_clip(clip, self.input_layout, self.persons, name), self.input_layout, self.layout, axis=2)
        return clip if self.form.dimensions == 3 else flatten(clip, upright=False)

    def _lies_flat(self, clip: np.ndarray) -> bool:
        """Whether a clip (3, ...) is of the plane and the encoder of space, so that it must be stood up."""
        return self.form.dimensions == 3 and not clip[2].any()

    # -- clips --------------------------------------------------------------------------------------------------------

    def clip_features(self, clips: Iterable, batch: int = BATCH) -> np.ndarray:
        """Clip features (N, P) float32 of raw clips of any lengths, one by one as `as_clip` takes them; a generator is read
        batch by batch. UserError names a clip that cannot be read by its number, from 0."""
        parts = list(self.clip_batches(clips, batch))
        return np.concatenate(parts) if parts else np.zeros((0, self.clip_size), np.float32)

    def clip_batches(
        self,
        clips: Iterable,
        batch: int = BATCH,
        names: Iterable[str] | None = None,
        odd: OddClips | None = None,
    ) -> Iterator[np.ndarray]:
        """The same as a generator of batches (n, P), which holds one batch of clips at a time. names: for messages; odd:
        collects clips that may be no persons in metres, None to warn of them at the end."""
        clips, found = iter(clips), odd or OddClips()
        names = iter(names) if names is not None else (f"clip {i}" for i in count())
        while part := [self._prepared(clip, next(names), found) for clip in islice(clips, batch)]:
            yield self._encode(part)
        if odd is None:
            found.tell()

    def _prepared(self, clip, name: str, odd: OddClips) -> np.ndarray:
        """A raw clip -> (3, T, V, M) as a prepared data set holds it."""
        clip, steps = self.checked(clip, name), self.steps
        odd.look(name, clip, self.layout)
        if steps and self._lies_flat(clip):
            clip = np.einsum("ij,jtvm->itvm", stand_up(clip[..., 0], self.layout).astype(np.float32), clip)
            steps = tuple(step for step in steps if step in ("fill", "centre"))
        return normalise(clip, self.layout, steps)

    @torch.inference_mode()
    def _encode(self, clips: list[np.ndarray]) -> np.ndarray:
        lengths = torch.tensor([clip.shape[1] for clip in clips])
        packed = PackedClips(
            frames=torch.from_numpy(np.concatenate([clip.transpose(1, 2, 0, 3) for clip in clips])),
            offsets=lengths.cumsum(0) - lengths,
            num_frame=lengths,
            labels=torch.zeros(len(clips), dtype=torch.long),
            names=("",) * len(clips),
            dropped=(),
            source="clips given in Python",
        )
        packed = packed.scaled(self.scale_by, self.layout)
        views = ClipViews(packed, self._parents, self.stream, device=self.device)
        return self.encoder(views.centre(torch.arange(len(clips)))).float().cpu().numpy()

    # -- frames -------------------------------------------------------------------------------------------------------

    def frame_features(
        self, clip, name: str = "clip", prepared: bool = False, odd: OddClips | None = None
    ) -> np.ndarray:
        """Frame features (T, D) float32 of one raw clip, as `as_clip` takes it, at its own frame rate (module docstring).

        prepared: the coordinates are normalised already, and stay as they are; odd: as in `clip_batches`."""
        found = odd or OddClips()
        clip = as_clip(clip, self.layout, self.persons, name) if prepared else self.checked(clip, name)
        frames = torch.from_numpy(clip).permute(1, 0, 2, 3)  # (T, C, V, M)
        if not prepared:
            found.look(name, clip, self.layout)
            if odd is None:
                found.tell()
            frames, _ = self._turned(frames, None)
        frames, _ = self._scaled(frames, None)
        with torch.inference_mode():
            x = self._flat(frames).to(self.device)
            return self.encoder.frames(x[None])[0].float().cpu().numpy()

    def _turned(self, frames: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Frames (T, C, V, M) centred, turned and scaled, without moving any; also the matrix (1, 3, 3) that did it, None while
        person 1 has not been seen. Frames before that become empty. rotation: the matrix, known from earlier frames."""
        steps = tuple(step for step in self.steps if step != "fill")
        if not steps:
            return frames, rotation
        frames = normalise_windows(frames[None], self.layout, tuple(s for s in steps if s == "centre"))
        if rotation is None:
            seen = (frames[0, ..., 0] != 0).flatten(1).any(1)
            if not seen.any():
                return torch.zeros_like(frames[0]), None
            begin = int(seen.int().argmax())
            rotation = self._orientation(frames[:, begin : begin + 1], steps)
            frames = frames * (torch.arange(len(seen)) >= begin)[None, :, None, None, None]
        return turn_windows(frames, rotation)[0], rotation

    def _orientation(self, frame: Tensor, steps) -> Tensor:
        """The matrix (1, 3, 3) by which all frames are turned and scaled, from the first that shows person 1, (1, 1, C, V, M)."""
        person = frame[0, :, :, :, 0].transpose(0, 1).numpy()  # (C, 1, V)
        if self._lies_flat(person):
            return torch.from_numpy(stand_up(person, self.layout))[None]
        return orientation(frame, self.layout, steps)

    def _scaled(self, frames: Tensor, length: float | None) -> tuple[Tensor, float | None]:
        """Frames (T, C, V, M) divided by the length of the trunk, where the encoder wants that: by `length`, known from earlier
        frames, or that of the first frame that shows it; also the length, None while it has not been seen."""
        if self.scale_by == "none":
            return frames, None
        length = length or first_length(trunk_lengths(frames.transpose(1, 2), self.layout))
        return (frames if length is None else frames / length), length

    def _flat(self, frames: Tensor) -> Tensor:
        """Frames (T, C, V, M) -> the encoder's input (T, F), of its stream."""
        return take_stream(frames.transpose(1, 2), self.stream, self._parents).flatten(1)

    # -- streams ------------------------------------------------------------------------------------------------------

    def start_stream(self, odd: OddClips | None = None) -> "FeatureStream":
        """A new stream: frame in, feature out. odd: collects streams that may be no person in metres, None to warn of each.
        UserError when the encoder sees the future."""
        if not self.encoder.streams:
            raise UserError(
                f"{self.source}: the {self.encoder.config.backbone} backbone as it was trained cannot be run frame by frame; "
                f"{STREAM_HINT}"
            )
        return FeatureStream(self, odd)


class FeatureStream:
    """Features of a stream that never needs to end: `step` takes a frame and gives its feature, at the cost of one frame.

    The features are those of `frame_features` of all frames so far. The motion of a frame is known with the next frame: on
    the streams with motion `step` gives the feature of the frame before, None for the first, and `finish` that of
    the last. `clip` is the clip feature (P,) of the frames that had their feature, as the encoder pools: a running maximum,
    running moments, or the last frame's; None before the first.

    The first second is looked at as a clip is (utils.clip_check), once it is there."""

    def __init__(self, owner: SkeletonEncoder, odd: OddClips | None = None):
        self.owner, self._odd = owner, odd
        self.reset()

    def reset(self) -> None:
        """Begins anew, as if no frame had come."""
        self._state = self.owner.encoder.first_clip_state(1)
        self._rotation: Tensor | None = None
        self._length: float | None = None
        self.clip: np.ndarray | None = None
        self._before: Tensor | None = None
        self._first: list[np.ndarray] | None = []  # frames that show somebody, None when they have been looked at

    def _look(self, name: str) -> None:
        """Looks at the first frames; they are let go."""
        odd = self._odd or OddClips()
        odd.look(name, np.concatenate(self._first, axis=1), self.owner.layout)
        self._first = None
        if self._odd is None:
            odd.tell()

    def step(self, frame, name: str = "frame") -> np.ndarray | None:
        """frame (V, 3), (V, 3, M) or (M, V, 3), or 2 for 3, raw; zeros for joints and persons that are not seen -> feature (D,).

        UserError, with `name`, for a frame that cannot be read; the stream is then as it was before."""
        array = clip_of_frame(frame, self.owner.input_layout, name)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise UserError(f"{name}: a coordinate is not a finite number; give zeros for a joint that is not seen")
        clip = self.owner.checked(array, name)
        if self._first is not None and clip.any():
            self._first.append(clip)
            if len(self._first) == FIRST_FRAMES:
                self._look(name)
        turned, self._rotation = self.owner._turned(torch.from_numpy(clip).permute(1, 0, 2, 3), self._rotation)
        turned, self._length = self.owner._scaled(turned, self._length)
        if not self.owner.stream.endswith("motion"):
            return self._encode(turned)
        before, self._before = self._before, turned
        return None if before is None else self._encode(torch.cat([before, turned]))

    def finish(self) -> np.ndarray | None:
        """The feature that is still owed: that of the last frame where motion is read, else None. Begins anew; `clip` stays
        until the next frame."""
        if self._first:
            self._look(f"a stream of {len(self._first)} frames")
        last = None if self._before is None else self._encode(self._before)
        clip = self.clip
        self.reset()
        self.clip = clip
        return last

    @torch.inference_mode()
    def _encode(self, frames: Tensor) -> np.ndarray:
        """Steps by the first of `frames` (1 or 2, C, V, M)."""
        x = self.owner._flat(frames)[:1].to(self.owner.device)
        clip, frame, *self._state = self.owner.encoder.clip_step(x, *self._state)
        self.clip = clip[0].float().cpu().numpy()
        return frame[0].float().cpu().numpy()


def load(
    path,
    stream: str | None = None,
    layout: str | None = None,
    persons: int | None = None,
    normalise: str = "all",
    device: str = "auto",
    input_layout: str | None = None,
) -> SkeletonEncoder:
    """The encoder of a checkpoint, with all that comes before it.

    path: of ours, a released file, a relative's (CMD, HaLP, skeleton-contrast), a bare encoder, or classifier.pth of an
    action_classification run. stream: one of STREAMS, for files that do not say it (joint if not given); layout,
    persons: of a frame, for files that do not say it and where the size of a frame leaves it open; normalise: all, none,
    or some of fill,centre,spine,shoulders, as the data of the pretraining had been; device: auto, cpu or cuda;
    input_layout: the joint layout of the clips that will be given, where it is not the encoder's.

    UserError, in one sentence, when the file holds no encoder or what is given contradicts it."""
    where = resolve_device(device)
    if stream not in (None, *STREAMS):
        raise UserError(f"stream {stream!r} is not known; give {', '.join(STREAMS)}")
    return _loaded(files.load(path), path, stream, layout, persons, normalise, where, input_layout)


def _loaded(content: dict, path, stream, layout, persons, normalise, device, input_layout) -> SkeletonEncoder:
    found = files.find_encoder(content, path)
    steps = parse_steps(normalise, dimensions_of(found, path))
    of_frame, number = frame_of(found, path, layout, persons)
    loaded = build_encoder(found, path, of_frame, number, stream, None)
    given = get_layout(input_layout) if input_layout else None
    return SkeletonEncoder(loaded, of_frame, number, steps, device, given)


@dataclass(frozen=True)
class Classifier:
    """encoder; fc: the trained linear layer, P -> K; classes: K names; trained_on: data set and protocol, '' when unknown;
    novelty: what is none of the classes, None in files that are older than it."""

    encoder: SkeletonEncoder
    fc: torch.nn.Linear
    classes: tuple[str, ...]
    trained_on: str = ""
    novelty: Novelty | None = None

    @torch.inference_mode()
    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Clip features (..., P) -> class probabilities (..., K)."""
        x = torch.as_tensor(features, device=self.encoder.device)
        return self.fc(x).softmax(dim=-1).cpu().numpy()


def classifier_content(encoder: Encoder, fc, classes, arguments: dict, novelty: Novelty | None) -> dict:
    """What a classifier's file holds: the encoder as it is, the layer fc on its clip features, K class names, what it was
    trained on, and what is none of the classes."""
    return {
        "format": files.FORMAT,
        "config": {"encoder": encoder.config.to_dict()},
        "classes": list(classes),
        "state_dict": {f"encoder_q.{k}": v for k, v in encoder.state_dict().items()},
        "fc": fc.state_dict(),
        "arguments": arguments,
        "novelty": None if novelty is None else novelty.state(),
    }


def load_classifier(path, normalise: str = "all", device: str = "auto", input_layout: str | None = None) -> Classifier:
    """The classifier that action_classification.py wrote (classifier.pth of its run folder) with its encoder; the others: see
    `load`.

    UserError when the file holds none, or its sizes do not fit each other."""
    content = files.load(path)
    fc, classes = content.get("fc"), content.get("classes")
    if not (isinstance(fc, dict) and isinstance(classes, list) and isinstance(fc.get("weight"), Tensor)):
        raise UserError(
            f"{path}: it holds no classifier; give classifier.pth of a run folder of action_classification.py"
        )
    encoder = _loaded(content, path, None, None, None, normalise, resolve_device(device), input_layout)
    linear = torch.nn.Linear(encoder.clip_size, len(classes))
    files.load_into(linear, fc, path)
    told = content.get("arguments")
    trained_on = " ".join(str(told[k]) for k in ("dataset", "protocol") if k in told) if isinstance(told, dict) else ""
    linear, names = linear.to(encoder.device).requires_grad_(False), tuple(map(str, classes))
    return Classifier(encoder, linear, names, trained_on, novelty_of(content.get("novelty"), encoder.clip_size, path))
