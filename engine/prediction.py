"""Motion prediction: trains a decoder of future poses on an encoder and measures its error at each horizon.

No protocol is published for encoders of this family; this one is this repository's: raw frame rate, no resampling, the next
frames of the first person from the observed ones. Training cuts each clip at a new random position in every epoch; the test
uses the middle of each clip. The encoder is

    frozen    not trained (checked after the first epoch and at the end); only the decoder is
    tuned     loaded, then trained together with the decoder
    scratch   of the same sizes, initialised at random and trained together with the decoder

The error is MPJPE: the distance of a predicted joint from the true one in mm, averaged over joints and clips. Future frames
in which the person was not detected are left out. The baseline is zero velocity, which repeats the last observed pose.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.encoders import fit_norm
from engine.fit import Training, fit
from feeder.evaluation import in_order
from feeder.windows import FutureViews
from models.encoder import Encoder
from models.future import FutureDecoder
from utils.errors import UserError
from utils.names import PREDICTION_MODES

MILLIMETRES = 1000.0  # of a metre
TEST_BATCH = 256
LARGEST_GRADIENT = 1.0  # maximum gradient norm: 25 steps of feedback can give one clip a huge gradient


@dataclass(frozen=True)
class PredictionRecipe:
    """How Adam trains the decoder (and, unless frozen, the encoder); schedule: epochs at which the rates drop by a factor of 10."""

    mode: str = "frozen"
    lr: float = 1e-3
    encoder_lr: float = 3e-4
    batch_size: int = 64
    epochs: int = 100
    schedule: tuple[int, ...] = (80,)
    hidden_size: int = 256


def joint_distance(predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Distances (N, T) of poses (N, T, V, 3), averaged over joints, and a mask (N, T) of frames with the person."""
    return (predicted - true).norm(dim=-1).mean(-1), (true != 0).flatten(2).any(-1)


def horizon_errors(parts, metres: float = 1.0) -> Tensor:
    """MPJPE in mm at each future frame (T,). parts: pairs (predicted, true) of poses (N, T, V, 3); metres: their unit in metres."""
    total, count = 0.0, 0
    for predicted, true in parts:
        distance, seen = joint_distance(predicted.double(), true.double())
        total, count = total + (distance * seen).sum(0).cpu(), count + seen.sum(0).cpu()
    return MILLIMETRES * metres * total / count.clamp_min(1)


def zero_velocity(views: FutureViews) -> Tensor:
    """MPJPE in mm (T,) of repeating the last observed pose."""

    def parts():
        for index in in_order(len(views), TEST_BATCH):
            _, pose, future = views.test(index)
            yield pose[:, None].expand_as(future), future

    return horizon_errors(parts(), views.metres)


@torch.no_grad()
def predict(
    encoder: Encoder, decoder: FutureDecoder, views: FutureViews, index: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(last observed pose, predicted future, true future) of the test frames of some clips."""
    observed, pose, future = views.test(index)
    return pose, decoder(encoder(observed), pose, views.predict), future


def test_errors(encoder: Encoder, decoder: FutureDecoder, views: FutureViews) -> Tensor:
    """MPJPE in mm (T,) of the test clips. UserError when the predictions are not finite."""
    encoder.eval()
    decoder.eval()
    parts = (predict(encoder, decoder, views, index)[1:] for index in in_order(len(views), TEST_BATCH))
    errors = horizon_errors(parts, views.metres)
    if not torch.isfinite(errors).all():
        raise UserError("the predicted poses are not finite: the network diverged; give a smaller --lr")
    return errors


def fit_to_observed(encoder: Encoder, views: FutureViews) -> None:
    """Sets the input statistics of a random encoder from the observed frames of all clips."""
    fit_norm(encoder, (views.test(index)[0] for index in in_order(len(views), TEST_BATCH)))


def new_decoder(features: int, joints: int, hidden_size: int, seed: int) -> FutureDecoder:
    """A decoder with random weights, sampled by the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FutureDecoder(features, joints, hidden_size)


class Prediction(Training):
    """Trains a decoder `head` of future poses by Adam and, unless frozen, the encoder at its own rate. errors (predict,): MPJPE in
    mm of the test clips at each future frame, after the last epoch."""

    errors: Tensor
    clip = LARGEST_GRADIENT

    def __init__(self, encoder: Encoder, train: FutureViews, recipe: PredictionRecipe, seed: int):
        decoder = new_decoder(encoder.clip_size, train.clips.joints, recipe.hidden_size, seed)
        groups = [{"params": list(decoder.to(train.device, train.dtype).parameters()), "lr": recipe.lr}]
        frozen = recipe.mode == "frozen"
        if not frozen:
            groups.append({"params": list(encoder.parameters()), "lr": recipe.encoder_lr})
        super().__init__(encoder, decoder, frozen, torch.optim.Adam(groups, recipe.lr), recipe, train, seed)

    def loss(self, index: Tensor, epoch: int) -> tuple[Tensor, int]:
        observed, pose, future = self.train.train(index, self.seed, epoch)
        with torch.set_grad_enabled(not self.frozen):
            feature = self.encoder(observed)
        distance, seen = joint_distance(self.head(feature, pose, self.train.predict), future)
        return (distance * seen).sum() / seen.sum().clamp_min(1), len(index)

    def after_epoch(self, epoch: int, loss: float) -> dict:
        return {"train_mpjpe_mm": MILLIMETRES * self.train.metres * loss}


def train_predictor(
    encoder: Encoder,
    train: FutureViews,
    test: FutureViews,
    recipe: PredictionRecipe,
    seed: int,
    quiet: bool | None = None,
    **running,
) -> Prediction:
    """Trains a decoder on an encoder without head, which tuned and scratch train in place, and tests it once at the end;
    returns the finished training.

    running: log, say, state and after_step of `fit`. Raises as `fit` does."""
    if recipe.mode not in PREDICTION_MODES:
        raise ValueError(f"expected a mode of {PREDICTION_MODES}, got {recipe.mode!r}")
    training = Prediction(encoder, train, recipe, seed)
    fit(training, quiet=quiet, **{"title": f"{recipe.mode}, seed {seed}", **running})
    training.errors = test_errors(encoder, training.head, test)
    return training
