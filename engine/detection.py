"""Training and testing a frame classifier on an encoder, for detection in untrimmed videos.

Two published protocols and one of this repository:

    tuned      a window of consecutive raw frames around each target frame; all weights are trained
    frozen     windows too; the encoder is not trained (checked after the first epoch and at the end)
    sequence   ours: trained on long sequences in which every frame is a target; in the test the causal encoder runs over a
               whole video once. The class of frame t is predicted from the feature of frame t + delay, which has seen as much
               of the future as a window has; one pass replaces a window for every frame.

Class 0 is background. Windows of a test video go through the encoder in batches: memory holds one video and one batch.
"""

import time
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.encoders import fit_norm
from engine.fit import Training, fit, new_linear, new_sgd
from engine.pace import counted
from feeder.evaluation import shuffled
from feeder.sampling import epoch_order
from feeder.windows import VideoWindows
from models.encoder import Encoder
from utils.detection import detection_table, map_by_action, released_segments, stack_videos, threshold_segments
from utils.errors import UserError

SEGMENTS = {"released": released_segments, "threshold": threshold_segments}
DIVERGED = 1e6  # a loss above this ends the training: a saturated network gives huge finite losses, not NaN
NORM_WINDOWS = 4096  # at most so many windows give the input statistics of a random encoder
NORM_LENGTH, NORM_BATCH = 64, 256  # frames of such a window at most, and windows in a batch


@dataclass(frozen=True)
class DetectionRecipe:
    """How a detector is trained and tested; the defaults are those of the tuned protocol (options.detection has all)."""

    mode: str = "tuned"
    lr: float = 0.01
    batch_size: int = 64
    epochs: int = 20
    schedule: tuple[int, ...] = ()
    windows: int = 16
    length: int = 32
    stride: int = 1
    train_strides: tuple[int, int] = (1, 1)
    segments: str = "released"
    overlaps: tuple[float, ...] = (0.5,)
    momentum: float = 0.9
    weight_decay: float = 0.0
    delay: int = 0
    test_every: int = 0
    test_batch: int = 256

    @property
    def frozen(self) -> bool:
        return self.mode == "frozen"


@dataclass
class Detections:
    """Result of a test. figures: shares by name (map_a@0.5, map_v@0.5, ..., frame_accuracy); proposals: for each video rows
    (class from 1, start, end, score); per_class: {class from 1: average precision at the last overlap}; frames_per_second:
    of the whole test."""

    figures: dict[str, float]
    proposals: list[np.ndarray]
    per_class: dict[int, float]
    frames_per_second: float


def check_causal(encoder: Encoder) -> None:
    """UserError unless the encoder can run over a video in one pass."""
    if not encoder.causal:
        raise UserError(
            f"--mode sequence runs the encoder over a video once and needs a causal one; the {encoder.config.backbone} "
            "backbone sees the future; give --mode tuned or frozen, or pretrain a transformer with --causal"
        )


def fit_to_windows(encoder: Encoder, train: VideoWindows, recipe: DetectionRecipe, seed: int) -> None:
    """Sets the input statistics of a random encoder from training windows."""
    rows = train.sample(seed, 0, recipe.windows, recipe.train_strides)[:NORM_WINDOWS]
    length = min(recipe.length, NORM_LENGTH)
    parts = (rows[low : low + NORM_BATCH] for low in range(0, len(rows), NORM_BATCH))
    fit_norm(encoder, (train.windows(part, length)[0] for part in parts))


def delayed(features: Tensor, delay: int) -> Tensor:
    """Features (N, T, D) shifted in time: frame t gets the feature of frame min(t + delay, T - 1)."""
    frames = features.shape[1]
    return features[:, torch.arange(delay, delay + frames, device=features.device).clamp_max(frames - 1)]


def window_loss(encoder, fc, train: VideoWindows, rows: np.ndarray, recipe: DetectionRecipe) -> Tensor:
    """Cross-entropy of a batch of windows, each with the label of its centre frame. rows: see `VideoWindows.windows`."""
    x, labels = train.windows(rows, recipe.length)
    with torch.set_grad_enabled(not recipe.frozen):
        features = encoder(x)
    return F.cross_entropy(fc(features), labels)


def sequence_loss(encoder, fc, train: VideoWindows, rows: np.ndarray, recipe: DetectionRecipe) -> Tensor:
    """Mean cross-entropy over the frames of a batch of sequences, without padding (label -1) and without the last `delay`
    frames, whose classes would be predicted after the end of the sequence. rows: see `VideoWindows.chunks`."""
    x, labels = train.chunks(rows, recipe.length)
    features = encoder.frames(x)[:, recipe.delay :]
    labels = labels[:, : features.shape[1]]
    return F.cross_entropy(fc(features).flatten(0, 1), labels.flatten(), ignore_index=-1)


@torch.no_grad()
def frame_probabilities(encoder, fc, videos: VideoWindows, i: int, recipe: DetectionRecipe) -> np.ndarray:
    """Class probabilities (T, K) of every frame of a video, from a window around each frame or from one pass over the video."""
    if recipe.mode == "sequence":
        scores = fc(delayed(encoder.frames(videos.whole(i)), recipe.delay))[0]
    else:
        windows = videos.every_frame(i, recipe.length, recipe.stride, recipe.test_batch)
        scores = torch.cat([fc(encoder(x)) for x in windows])
    probability = scores.float().softmax(dim=1).cpu().numpy()
    if not np.isfinite(probability).all():
        raise UserError(
            f"the scores of video {videos.names[i]} are not finite: the network diverged; give a smaller --lr"
        )
    return probability


def detect(encoder, fc, test: VideoWindows, recipe: DetectionRecipe, quiet: bool | None = None, say=None) -> Detections:
    """Finds segments in all test videos and evaluates them against the ground truth. quiet, say: see `engine.pace.counted`."""
    encoder.eval()
    proposals, right, frames, start = [], 0, 0, time.monotonic()
    for i in counted(range(len(test)), "video", quiet, say):
        if not test.lengths[i]:
            proposals.append(np.zeros((0, 4)))
            continue
        probability = frame_probabilities(encoder, fc, test, i, recipe)
        proposals.append(SEGMENTS[recipe.segments](probability))
        right += int((probability.argmax(1) == test.labels(i)).sum())
        frames += len(probability)
    seconds = time.monotonic() - start
    ground = stack_videos([test.ground_truth(i) for i in range(len(test))])
    stacked = stack_videos(proposals)
    figures = {"frame_accuracy": right / max(frames, 1)}
    for overlap, values in detection_table(ground, stacked, recipe.overlaps).items():
        figures |= {f"{name}@{overlap:g}": value for name, value in values.items()}
    per_class = map_by_action(ground, stacked, recipe.overlaps[-1])[1]
    return Detections(figures, proposals, per_class, frames / max(seconds, 1e-9))


def check_videos(train: VideoWindows, test: VideoWindows) -> None:
    """UserError unless there are training frames and test actions, every video name can be a file name, and every frame label is a
    class of the data set. Otherwise these mistakes would show only after hours of training."""
    files = train.videos
    if not train.lengths.sum():
        raise UserError(f"{files.folder}: the training videos hold no frame; prepare the untrimmed videos again")
    if not sum(len(test.ground_truth(i)) for i in range(len(test))):
        raise UserError(f"{files.folder}: the test videos hold no action to find; prepare the untrimmed videos again")
    odd = [name for name in files.names if not name or name in (".", "..") or set(name) & set("/\\\0")]
    twice = [name for name, number in Counter(files.names).items() if number > 1]
    if odd or twice:
        problem = f"{odd[0]!r} cannot be a file name" if odd else f"{twice[0]!r} is there twice"
        raise UserError(f"{files.folder}: video name {problem}; every video needs a unique name without a slash")
    for views in (train, test):
        for i in range(len(views)):
            labels = views.labels(i)
            if len(labels) and not 0 <= labels.min() <= labels.max() <= files.num_classes:
                raise UserError(
                    f"{files.folder}: video {views.names[i]} has frame labels {labels.min()}..{labels.max()}; expected 0 "
                    f"(background) to {files.num_classes}; prepare the untrimmed videos again"
                )


class Detection(Training):
    """Trains a frame classifier `head` by SGD; class 0 is background. last, best: figures with their epoch (1-based), the best by
    mAP_a at the last overlap; found: the result of the last test."""

    largest = DIVERGED

    def __init__(
        self, encoder: Encoder, train: VideoWindows, test: VideoWindows, classes: int, recipe, seed: int, quiet
    ):
        self.sequences = recipe.mode == "sequence"
        features = encoder.feature_size if self.sequences else encoder.clip_size
        fc = new_linear(features, classes + 1, seed).to(train.device, train.dtype)
        super().__init__(encoder, fc, recipe.frozen, new_sgd(encoder, fc, recipe, nesterov=True), recipe, train, seed)
        self.test, self.quiet = test, quiet
        self.found: Detections | None = None

    def batches(self, epoch: int) -> list[np.ndarray]:
        recipe, train = self.recipe, self.train
        if self.sequences:
            rows = train.sample_chunks(self.seed, epoch, recipe.windows, recipe.length)
        else:
            rows = train.sample(self.seed, epoch, recipe.windows, recipe.train_strides)
        order = epoch_order(self.seed, epoch, len(rows))
        return [rows[index.numpy()] for index in shuffled(len(rows), recipe.batch_size, order)]

    def loss(self, rows: np.ndarray, epoch: int) -> tuple[Tensor, int]:
        mean_loss = sequence_loss if self.sequences else window_loss
        return mean_loss(self.encoder, self.head, self.train, rows, self.recipe), len(rows)

    def after_epoch(self, epoch: int, loss: float) -> dict:
        values, recipe = {"loss": loss, "lr": self.optimizer.param_groups[0]["lr"]}, self.recipe
        if epoch < recipe.epochs and not (recipe.test_every and epoch % recipe.test_every == 0):
            return values
        self.found = detect(self.encoder, self.head, self.test, recipe, self.quiet, self.say)
        self.keep({**self.found.figures, "epoch": epoch}, f"map_a@{recipe.overlaps[-1]:g}")
        return {**values, **self.found.figures}


def train_detector(
    encoder: Encoder,
    train: VideoWindows,
    test: VideoWindows,
    classes: int,
    recipe: DetectionRecipe,
    seed: int,
    quiet: bool | None = None,
    **running,
) -> Detection:
    """Trains and tests a detector on an encoder without head, which `tuned` and `sequence` train in place; returns the finished
    training.

    classes: of the data set, without the background; running: log, say, state and after_step of `fit`. Raises as `fit` does,
    and UserError for `sequence` with an encoder that is not causal."""
    if recipe.mode == "sequence":
        check_causal(encoder)
    training = Detection(encoder, train, test, classes, recipe, seed, quiet)
    training.say = running.get("say")
    fit(training, quiet=quiet, **{"title": f"seed {seed}", **running})
    return training
