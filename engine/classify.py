"""Training and testing a classifier on an encoder: linear evaluation, fine-tuning, semi-supervised.

Linear evaluation freezes the encoder (`engine.fit` checks it). The features of the test split are then computed once; the
training clips get a new random crop in every epoch, as the protocol says.

Several processes share the encoding of the clips by a frozen encoder, which is nearly all the work: they take batches in turn,
gather all features, and each trains the same classifier. The results are those of one process.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.encoders import ALONE, clip_features, encode_turn, in_turns
from engine.fit import Training, fit, new_linear, new_sgd
from engine.probes import Standardised
from feeder.evaluation import ClipViews
from models.encoder import Encoder
from utils.distributed import World
from utils.metrics import topk_accuracy

FEATURE_BATCH = 256  # clips per encoder call without gradients


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained; the defaults are those of linear evaluation. frozen: the encoder is not trained; cached: train
    on the features of centre crops, computed once; standardise: train on standardised features (of a frozen encoder)."""

    frozen: bool = True
    lr: float = 0.1
    batch_size: int = 1024
    epochs: int = 100
    schedule: tuple[int, ...] = (20, 50, 80)
    momentum: float = 0.9
    weight_decay: float = 0.0
    crop: tuple[float, float] = (0.5, 1.0)
    test_every: int = 5
    cached: bool = False
    standardise: bool = False


class StandardisedLinear(nn.Linear):
    """A linear layer on standardised features; their mean and standard deviation are buffers."""

    def __init__(self, fc: nn.Linear, features: Tensor):
        """fc: gives the initial weights; features (N, P): give mean and standard deviation."""
        super().__init__(fc.in_features, fc.out_features)
        self.load_state_dict(fc.state_dict())
        known = Standardised.of(features)
        self.register_buffer("mean", known.mean.to(fc.weight.dtype))
        self.register_buffer("scale", known.scale.to(fc.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - self.mean) / self.scale)

    @torch.no_grad()
    def plain(self) -> nn.Linear:
        """The layer that gives the same scores for features that are not standardised."""
        fc = nn.Linear(self.in_features, self.out_features).to(self.weight)
        fc.weight.copy_(self.weight / self.scale)
        fc.bias.copy_(self.bias - fc.weight @ self.mean)
        return fc


@torch.no_grad()
def class_scores(fc: nn.Linear, features: Tensor, device) -> Tensor:
    """Class scores (N, classes), on the CPU, of features (N, D). The batches are those of `clip_features`, because a matrix
    product of another shape may differ in the last bit."""
    return torch.cat([fc(part.to(device)).cpu() for part in features.split(FEATURE_BATCH)]).float()


class Classification(Training):
    """Trains a linear layer `head` on clip features by SGD. last, best: top1 and top5 (shares) with their epoch (1-based); scores
    (N, classes): of the test split after the last test; every: clips, labelled or not, whose features give the statistics for
    `standardise`; world: processes that share the encoding (frozen encoders only)."""

    def __init__(
        self,
        encoder: Encoder,
        train: ClipViews,
        test: ClipViews,
        classes: int,
        recipe: Recipe,
        seed: int,
        every: ClipViews,
        quiet,
        world,
    ):
        fc = new_linear(encoder.clip_size, classes, seed)
        if recipe.standardise:
            fc = StandardisedLinear(fc, clip_features(encoder, every, FEATURE_BATCH, quiet, world))
        fc = fc.to(train.device, train.dtype)
        super().__init__(encoder, fc, recipe.frozen, new_sgd(encoder, fc, recipe), recipe, train, seed)
        self.test, self.classes, self.world = test, classes, world
        self.fixed = clip_features(encoder, train, FEATURE_BATCH, quiet, world) if recipe.cached else None
        self.test_features = clip_features(encoder, test, FEATURE_BATCH, quiet, world) if recipe.frozen else None
        self.scores: Tensor | None = None

    @property
    def classifier(self) -> nn.Linear:
        """The trained layer, for features that are not standardised."""
        return self.head.plain() if self.recipe.standardise else self.head

    def loss(self, index: Tensor, epoch: int) -> tuple[Tensor, int]:
        train = self.train
        crop = partial(train.random_crop, seed=self.seed, epoch=epoch, crop=self.recipe.crop)
        if self.fixed is not None:
            features = self.fixed[index].to(train.device)
        elif self.frozen:
            with torch.no_grad():
                turns = in_turns(list(index.split(FEATURE_BATCH)), self.world.size)
                parts = [part for turn in turns for part in encode_turn(self.encoder, turn, crop, self.world)]
                features = torch.cat(parts)
        else:
            features = self.encoder(crop(index))
        return F.cross_entropy(self.head(features), train.labels(index)), len(index)

    def about(self, index: Tensor) -> str:
        return f" (clips {', '.join(self.train.clips.names[i] for i in index[:5].tolist())}, ...)"

    def after_epoch(self, epoch: int, loss: float) -> dict:
        values = {"loss": loss, "lr": self.optimizer.param_groups[0]["lr"]}
        if epoch % self.recipe.test_every and epoch < self.recipe.epochs:
            return values
        features = self.test_features
        if not self.frozen:
            features = clip_features(self.encoder, self.test, FEATURE_BATCH, True)
        self.scores = class_scores(self.head, features, self.train.device)
        top = min(5, self.classes)
        accuracy = topk_accuracy(self.scores, self.test.clips.labels.cpu(), (1, top))
        figures = {"top1": accuracy[1], "top5": accuracy[top]}
        self.keep({**figures, "epoch": epoch}, "top1")
        return {**values, **figures}


def train_classifier(
    encoder: Encoder,
    train: ClipViews,
    test: ClipViews,
    num_classes: int,
    recipe: Recipe,
    seed: int,
    every: ClipViews | None = None,
    quiet: bool | None = None,
    world: World = ALONE,
    **running,
) -> Classification:
    """Trains a linear layer (and, unless frozen, the encoder) and tests every `test_every` epochs and at the end; returns the
    finished training.

    every: all training clips, where `train` holds only the labelled ones (see `Classification`); quiet: no progress bars; world:
    processes that share the encoding (frozen encoders only); running: log, say, state and after_step of `fit`. Raises as
    `fit` does."""
    quiet = quiet if world.is_main else True
    training = Classification(encoder, train, test, num_classes, recipe, seed, every or train, quiet, world)
    fit(training, quiet=quiet, **{"title": f"seed {seed}", **running})
    return training
