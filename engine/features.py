"""The Python API: features of raw clips from any checkpoint.

    import numpy as np
    from engine.features import load

    encoder = load("checkpoint_last.pth.tar")              # ours, released, of a related method, or an encoder alone
    clip = np.load("clip.npy")                             # (T, V, C) or (T, V, C, M), metres, any T
    features = encoder.clip_features([clip])               # (1, P): one feature for each clip
    frames = encoder.frame_features(clip)                  # (T, D): one feature for each frame

Joint layout, number of persons and stream are those of the checkpoint. Clips of another layout are converted if it is named,
`load(PATH, input_layout="mediapipe_33")`; planar clips, (T, V, 2) with y up, are handled as in `engine.transfer`.

Coordinates are raw. They get the preparation of a data set (data_gen.normalise), then the centre crop of evaluation (95 %,
resized to 64 frames), so that a clip has the same feature as in a prepared data set. A prepared set stores at most 300 frames
of a clip; here all frames are used.

Frame features keep the frame rate, without crop and resizing, and keep frame numbers: no frame is moved to close gaps. Each
frame is centred by itself, and all are rotated by the first frame that shows person 1; frames before it are treated as empty. An
encoder that reads clips divided by the length of the trunk gets the length in the first frame that shows it; a clip feature
uses the median. This is what a stream can know, and `start_stream()` gives the same features frame by frame, for encoders that
can be run so.
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
from engine.transfer import FrameForm, describe_transfer, flatten, stand_up
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

BATCH = 64  # clips encoded at once, and held in memory
FIRST_FRAMES = 30  # frames of a stream that are checked for wrong units and axes (utils.clip_check)
STREAM_HINT = "use the gru backbone, or a transformer pretrained with --causal"


def read_clip(path) -> np.ndarray:
    """The array of an .npy file; UserError when there is no such file, or it holds no numbers."""
    path = Path(path)
    if path.suffix != ".npy":
        raise UserError(f"{path}: expected the name of an .npy file, one clip (T, V, 3) or (T, V, 3, M)")
    return ArrayClips(str(path.parent)).read(path.stem)


def as_numbers(values, name: str) -> np.ndarray:
    """Coordinates (..., 3) as a NumPy array, from numpy, torch (any precision and device, with or without gradients) or lists. In
    a masked array, a joint with a masked coordinate becomes zero, which marks a missing joint. UserError, with `name`, for
    anything but numbers."""
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    if isinstance(values, np.ma.MaskedArray):
        hidden = np.ma.getmaskarray(values)
        for axis in range(hidden.ndim - 2, hidden.ndim) if hidden.ndim > 1 else ():
            if hidden.shape[axis] in (2, 3):  # the axis of coordinates: a joint is missing as a whole
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
    """A user's array -> a clip (3, T, V, M) float32, absent persons zero.

    array: (T, V, 3), (T, V, 3, M) or (M, T, V, 3), of numpy, torch or lists, with at most `persons` persons; with 2 in place of
    3, z becomes 0. UserError, with `name`, for another shape, for anything but numbers, and for numbers that are not finite."""
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
    with np.errstate(over="ignore"):  # overflow becomes infinite, which is refused below
        clip[: array.shape[2], ..., : array.shape[3]] = array.transpose(2, 0, 1, 3)
    if not np.isfinite(clip).all():
        frame = int(np.flatnonzero(~np.isfinite(clip).all(axis=(0, 2, 3)))[0])
        raise UserError(f"{name}: a coordinate of frame {frame} (counted from 0) is not a finite number")
    return clip


def clip_of_frame(frame, layout: Layout, name: str) -> np.ndarray:
    """A user's frame (V, 3), (V, 3, M) or (M, V, 3), or 2 for 3 -> a clip of one frame, for `as_clip`. UserError, with `name`, for
    another shape, and for anything but numbers."""
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
    """A hint for an array with another number of joints: the layouts that have as many."""
    fitting = [one.name for one in LAYOUTS.values() if one.joints in shape[1:3] and one != layout]
    return f"; where its joints are those of {' or '.join(fitting)}, say so (input layout)" if fitting else ""


class SkeletonEncoder:
    """An encoder with its preprocessing. encoder: in eval mode, on `device`; layout, persons: of its frames; stream: one
    of utils.names.STREAMS, computed here from joints; source: the file, for messages; steps: of the normalisation;
    input_layout: of the clips that are given, None for the encoder's."""

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
        self.converted = describe_transfer(FrameForm(self.input_layout, persons), FrameForm(layout, persons))
        self._parents = torch.tensor(layout.parents)

    @property
    def feature_size(self) -> int:
        """D, the size of a frame's feature."""
        return self.encoder.feature_size

    @property
    def clip_size(self) -> int:
        """P, the size of a clip's feature: D, or a multiple of it (models.pooling)."""
        return self.encoder.clip_size

    @property
    def scale_by(self) -> str:
        """The length that clips are divided by: none or trunk."""
        return self.encoder.config.scale_by

    @property
    def form(self) -> FrameForm:
        """Layout, persons and dimensions of the encoder's frames."""
        return FrameForm(self.layout, self.persons, self.encoder.config.dimensions)

    def checked(self, clip, name: str) -> np.ndarray:
        """A raw clip -> (3, T, V, M) in the encoder's layout and dimensions, still raw; UserError, with its name, for one that the
        encoder cannot read."""
        clip = convert(as_clip(clip, self.input_layout, self.persons, name), self.input_layout, self.layout, axis=2)
        return clip if self.form.dimensions == 3 else flatten(clip, upright=False)

    def _lies_flat(self, clip: np.ndarray) -> bool:
        """Whether a clip (3, ...) is planar and the encoder reads 3-D, so that it needs `stand_up`."""
        return self.form.dimensions == 3 and not clip[2].any()

    # -- clips --------------------------------------------------------------------------------------------------------

    def clip_features(self, clips: Iterable, batch: int = BATCH) -> np.ndarray:
        """Clip features (N, P) float32 of raw clips of any lengths, each in a form of `as_clip`; a generator is read batch by
        batch. UserError, with its number from 0, for a clip that cannot be read."""
        parts = list(self.clip_batches(clips, batch))
        return np.concatenate(parts) if parts else np.zeros((0, self.clip_size), np.float32)

    def clip_batches(
        self,
        clips: Iterable,
        batch: int = BATCH,
        names: Iterable[str] | None = None,
        odd: OddClips | None = None,
    ) -> Iterator[np.ndarray]:
        """The same as a generator of batches (n, P), which holds one batch of clips at a time. names: for messages; odd: collects
        clips whose units or axes look wrong (utils.clip_check), None to warn about them at the end."""
        clips, found = iter(clips), odd or OddClips()
        names = iter(names) if names is not None else (f"clip {i}" for i in count())
        while part := [self._prepared(clip, next(names), found) for clip in islice(clips, batch)]:
            yield self._encode(part)
        if odd is None:
            found.warn()

    def _prepared(self, clip, name: str, odd: OddClips) -> np.ndarray:
        """A raw clip -> (3, T, V, M), prepared as in a data set."""
        clip, steps = self.checked(clip, name), self.steps
        odd.check(name, clip, self.layout)
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
        """Frame features (T, D) float32 of one raw clip, in a form of `as_clip`, at its own frame rate (see the module docstring).

        prepared: the coordinates are already normalised; odd: as in `clip_batches`."""
        found = odd or OddClips()
        clip = as_clip(clip, self.layout, self.persons, name) if prepared else self.checked(clip, name)
        frames = torch.from_numpy(clip).permute(1, 0, 2, 3)  # (T, C, V, M)
        if not prepared:
            found.check(name, clip, self.layout)
            if odd is None:
                found.warn()
            frames, _ = self._turned(frames, None)
        frames, _ = self._scaled(frames, None)
        with torch.inference_mode():
            x = self._flat(frames).to(self.device)
            return self.encoder.frames(x[None])[0].float().cpu().numpy()

    def _turned(self, frames: Tensor, rotation: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Frames (T, C, V, M) centred, rotated and scaled, at their own positions; also the matrix (1, 3, 3) of rotation and scale,
        None before person 1 appears. Frames before that become zero. rotation: the matrix, if known from earlier frames."""
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
        """The matrix (1, 3, 3) that rotates and scales all frames, from the first frame that shows person 1, (1, 1, C, V, M)."""
        person = frame[0, :, :, :, 0].transpose(0, 1).numpy()  # (C, 1, V)
        if self._lies_flat(person):
            return torch.from_numpy(stand_up(person, self.layout))[None]
        return orientation(frame, self.layout, steps)

    def _scaled(self, frames: Tensor, length: float | None) -> tuple[Tensor, float | None]:
        """Frames (T, C, V, M), divided by the length of the trunk if the encoder reads them so: by `length`, if known from earlier
        frames, or by that of the first frame that shows it; also the length, None before it is known."""
        if self.scale_by == "none":
            return frames, None
        length = length or first_length(trunk_lengths(frames.transpose(1, 2), self.layout))
        return (frames if length is None else frames / length), length

    def _flat(self, frames: Tensor) -> Tensor:
        """Frames (T, C, V, M) -> the encoder's input (T, F) in its stream."""
        return take_stream(frames.transpose(1, 2), self.stream, self._parents).flatten(1)

    # -- streams ------------------------------------------------------------------------------------------------------

    def start_stream(self, odd: OddClips | None = None) -> "FeatureStream":
        """Starts a stream: frame in, feature out. odd: collects streams whose units or axes look wrong, None to warn about each.
        UserError for an encoder that cannot run frame by frame (not causal)."""
        if not self.encoder.streams:
            raise UserError(
                f"{self.source}: the {self.encoder.config.backbone} backbone as it was trained cannot be run frame by frame; "
                f"{STREAM_HINT}"
            )
        return FeatureStream(self, odd)


class FeatureStream:
    """Features of a stream of any length: `step` takes a frame and returns its feature, at the cost of one frame.

    The features equal those of `frame_features` on all frames so far. The motion of a frame is known only with the next frame: in
    the motion streams `step` returns the feature of the frame before, None for the first, and `finish` that of the last. `clip`
    is the clip feature (P,) of the encoded frames, pooled as the encoder does it: a running maximum, running moments, or the
    last frame; None before the first.

    The first FIRST_FRAMES frames with a person are checked as a clip is (utils.clip_check)."""

    def __init__(self, owner: SkeletonEncoder, odd: OddClips | None = None):
        self.owner, self._odd = owner, odd
        self.reset()

    def reset(self) -> None:
        """Starts over, as if no frame had come."""
        self._state = self.owner.encoder.first_clip_state(1)
        self._rotation: Tensor | None = None
        self._length: float | None = None
        self.clip: np.ndarray | None = None
        self._before: Tensor | None = None
        self._first: list[np.ndarray] | None = []  # frames with a person, None when they have been checked

    def _look(self, name: str) -> None:
        """Checks the first frames and frees them."""
        odd = self._odd or OddClips()
        odd.check(name, np.concatenate(self._first, axis=1), self.owner.layout)
        self._first = None
        if self._odd is None:
            odd.warn()

    def step(self, frame, name: str = "frame") -> np.ndarray | None:
        """Raw frame (V, 3), (V, 3, M) or (M, V, 3), or 2 for 3, zeros for missing joints and persons -> feature (D,).

        UserError, with `name`, for a frame that cannot be read; the stream is then unchanged."""
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
        """Ends the stream; returns the feature of the last frame in the motion streams, else None. The next frame starts a new
        stream; `clip` is kept until then."""
        if self._first:
            self._look(f"a stream of {len(self._first)} frames")
        last = None if self._before is None else self._encode(self._before)
        clip = self.clip
        self.reset()
        self.clip = clip
        return last

    @torch.inference_mode()
    def _encode(self, frames: Tensor) -> np.ndarray:
        """Encodes the first of `frames` (1 or 2, C, V, M)."""
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
    """The encoder of a checkpoint, with its preprocessing.

    path: a checkpoint of ours, a released one, one of a related method (CMD, HaLP, skeleton-contrast), an encoder alone, or
    classifier.pth of an action_classification run; stream: one of STREAMS, for files that do not say it (default joint);
    layout, persons: of a frame, for files that do not say them and where the input size is ambiguous; normalise: all, none, or
    some of fill,centre,spine,shoulders, as in the pretraining data; device: auto, cpu or cuda; input_layout: the joint layout
    of the clips that will be given, if it is not the encoder's.

    UserError when the file holds no encoder, or a given value contradicts it."""
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
    """encoder; fc: the trained linear layer, P -> K; classes: K names; trained_on: data set and protocol, '' if unknown; novelty:
    detects clips of none of the classes, None in older files."""

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
    """The content of a classifier's file: the encoder, the layer fc on its clip features, K class names, the arguments of its
    training, and the detector of "none of them"."""
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
    """The classifier that action_classification.py wrote (classifier.pth of its run folder), with its encoder; the other arguments
    are those of `load`.

    UserError when the file holds no classifier, or its sizes do not fit each other."""
    content = files.load(path)
    fc, classes = content.get("fc"), content.get("classes")
    if not (isinstance(fc, dict) and isinstance(classes, list) and isinstance(fc.get("weight"), Tensor)):
        raise UserError(
            f"{path}: it holds no classifier; give classifier.pth of a run folder of action_classification.py"
        )
    encoder = _loaded(content, path, None, None, None, normalise, resolve_device(device), input_layout)
    linear = torch.nn.Linear(encoder.clip_size, len(classes))
    files.load_into(linear, fc, path)
    arguments = content.get("arguments")
    arguments = arguments if isinstance(arguments, dict) else {}
    trained_on = " ".join(str(arguments[k]) for k in ("dataset", "protocol") if k in arguments)
    linear, names = linear.to(encoder.device).requires_grad_(False), tuple(map(str, classes))
    return Classifier(encoder, linear, names, trained_on, novelty_of(content.get("novelty"), encoder.clip_size, path))
