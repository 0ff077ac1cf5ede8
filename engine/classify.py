"""Training and testing a classifier on an encoder: linear evaluation, fine-tuning, semi-supervised.

Linear evaluation freezes the encoder, and checks it: exactly the classifier's two tensors are trained, and after the first
epoch and at the end every parameter and buffer of the encoder is bit for bit what it was. The test split's features do not
change then, so they are computed once; the training clips are cropped anew in every epoch, as the protocol says.

Several processes share the encoding of a frozen encoder's clips, which is nearly all the work: each takes batches in turns,
all get all features, and each trains the same classifier by itself. The numbers are those of one process.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from engine.encoders import ALONE, clip_features, encode_turn, in_turns, moved, snapshot
from feeder.evaluation import ClipViews, shuffled
from feeder.sampling import epoch_order
from models.encoder import Encoder
from utils.distributed import World
from utils.errors import UserError
from utils.metrics import topk_accuracy

EMPTY = {"position": 0, "total": 0.0, "count": 0, "best": None, "last": None, "scores": None}
FEATURE_BATCH = 256  # clips per encoder call where no gradient is kept


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained; the defaults are those of linear evaluation. frozen: the encoder stays as it is."""

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

    def rate(self, epoch: int) -> float:
        return self.lr * 0.1 ** sum(epoch >= milestone for milestone in self.schedule)


@dataclass
class Outcome:
    """last, best: shares by name with their epoch (1-based); scores (N, classes): of the last epoch on the test split;
    fc: the trained classifier."""

    last: dict[str, float]
    best: dict[str, float]
    scores: Tensor
    fc: nn.Linear


def new_classifier(features: int, classes: int, seed: int) -> nn.Linear:
    """Weights N(0, 0.01), bias 0, from a seed."""
    fc = nn.Linear(features, classes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        fc.weight.normal_(0.0, 0.01, generator=generator)
        fc.bias.zero_()
    return fc


@torch.no_grad()
def class_scores(fc: nn.Linear, features: Tensor, device) -> Tensor:
    """Class scores (N, classes), on the CPU, of features (N, D). The batches are those of `clip_features`, so that a clip's
    score does not depend on whether features were gathered first: products of other shapes differ in the last bit."""
    return torch.cat([fc(part.to(device)).cpu() for part in features.split(FEATURE_BATCH)]).float()


def train_classifier(
    encoder: Encoder,
    train: ClipViews,
    test: ClipViews,
    num_classes: int,
    recipe: Recipe,
    seed: int,
    log=None,
    quiet=None,
    world: World = ALONE,
    state: dict | None = None,
    after_step=None,
) -> Outcome:
    """Trains fc (and, unless frozen, the encoder) and tests every `test_every` epochs and at the end.

    log(epoch, values): told of every epoch; world: processes that share the encoding (frozen encoders only); after_step: gets,
    after every step, a function that makes the state between two steps, with which another call goes on (state). Raises
    UserError when a loss is not finite, AssertionError when a frozen encoder moved."""
    device = train.device
    fc = new_classifier(encoder.clip_size, num_classes, seed).to(device, train.dtype)
    encoder.requires_grad_(not recipe.frozen)
    trained = list(fc.parameters()) + ([] if recipe.frozen else list(encoder.parameters()))
    optimizer = torch.optim.SGD(trained, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    before = snapshot(encoder) if recipe.frozen else None
    fixed = clip_features(encoder, train, FEATURE_BATCH, quiet, world) if recipe.cached else None
    test_features = clip_features(encoder, test, FEATURE_BATCH, quiet, world) if recipe.frozen else None
    test_labels = test.clips.labels.cpu()
    if state is not None:
        fc.load_state_dict(state["fc"])
        optimizer.load_state_dict(state["optimizer"])
        if not recipe.frozen:
            encoder.load_state_dict(state["encoder"])
    place = dict(EMPTY if state is None else state["place"])
    best, scores, last = place["best"], place["scores"], place["last"]

    def make_state(epoch: int, position: int, total: float, count: int) -> dict:
        now = {"position": position, "total": total, "count": count}
        now |= {"best": best, "last": last, "scores": scores}
        trained = {"encoder": snapshot(encoder)} if not recipe.frozen else {}
        return {"epoch": epoch, "place": now, "fc": snapshot(fc), "optimizer": optimizer.state_dict(), **trained}

    quiet, first = quiet if world.is_main else True, 0 if state is None else state["epoch"]
    bar = tqdm(
        range(first, recipe.epochs), unit="epoch", desc=f"seed {seed}", disable=quiet, dynamic_ncols=True, leave=False
    )
    for epoch in bar:
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(epoch)
        begin = place if epoch == first else EMPTY
        watch = None if after_step is None else partial(_watch, after_step, make_state, epoch)
        loss = _train_epoch(encoder, fc, train, fixed, optimizer, recipe, seed, epoch, world, begin, watch)
        values = {"loss": loss, "lr": recipe.rate(epoch)}
        if recipe.frozen and epoch == 0:
            check_frozen(encoder, fc, before)
        if (epoch + 1) % recipe.test_every == 0 or epoch == recipe.epochs - 1:
            features = test_features if recipe.frozen else clip_features(encoder, test, FEATURE_BATCH, True)
            scores = class_scores(fc, features, device)
            accuracy = topk_accuracy(scores, test_labels, (1, min(5, num_classes)))
            last = {"top1": accuracy[1], "top5": accuracy[min(5, num_classes)], "epoch": epoch + 1}
            values |= {"top1": last["top1"], "top5": last["top5"]}
            best = last if best is None or last["top1"] > best["top1"] else best
            bar.set_postfix(loss=f"{loss:.3f}", top1=f"{100 * last['top1']:.1f}", best=f"{100 * best['top1']:.1f}")
        if log is not None:
            log(epoch + 1, values)
    if recipe.frozen:
        check_frozen(encoder, fc, before)
    return Outcome(last, best, scores, fc)


def _watch(after_step, make_state, epoch: int, *where) -> None:
    after_step(lambda: make_state(epoch, *where))


def _train_epoch(
    encoder,
    fc,
    train: ClipViews,
    fixed,
    optimizer,
    recipe: Recipe,
    seed: int,
    epoch: int,
    world: World,
    begin: dict,
    watch,
) -> float:
    """One pass over the training clips, or the rest of it; returns the mean loss. begin: where in the epoch, and what was added
    up so far; watch: told of the same after every step."""
    total, count = begin["total"], begin["count"]
    encoder.train(not recipe.frozen)
    batches = shuffled(len(train), recipe.batch_size, epoch_order(seed, epoch, len(train)))
    for position, index in enumerate(batches[begin["position"] :], begin["position"] + 1):
        if fixed is not None:
            features = fixed[index].to(train.device)
        elif recipe.frozen:
            with torch.no_grad():
                crop = partial(train.random_crop, seed=seed, epoch=epoch, crop=recipe.crop)
                turns = in_turns(list(index.split(FEATURE_BATCH)), world.size)
                features = torch.cat([part for turn in turns for part in encode_turn(encoder, turn, crop, world)])
        else:
            features = encoder(train.random_crop(index, seed, epoch, recipe.crop))
        loss = F.cross_entropy(fc(features), train.labels(index))
        if not torch.isfinite(loss):
            names = [train.clips.names[i] for i in index[:5].tolist()]
            raise UserError(
                f"epoch {epoch + 1}: the loss is not finite (clips {', '.join(names)}, ...); give a smaller --lr than {recipe.lr}"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        total, count = total + float(loss.detach()) * len(index), count + len(index)
        if watch is not None:
            watch(position, total, count)
    return total / count


def check_frozen(encoder: Encoder, fc: nn.Linear, before: dict[str, Tensor]) -> None:
    """AssertionError unless nothing of the encoder can be trained or has moved, and the classifier can."""
    trainable = [name for name, p in encoder.named_parameters() if p.requires_grad]
    assert not trainable, f"frozen, but trainable: {trainable}"
    assert all(p.requires_grad for p in fc.parameters()), "the classifier is frozen"
    changed = moved(encoder, before)
    assert not changed, f"frozen, but moved: {changed}"
