"""Training of a head on an encoder, for every task that does it: classification, detection, motion prediction.

A task is a `Training`: it says what an epoch's batches are, what the loss of a batch is, and what is tested after an epoch.
`fit` runs the epochs, at rates that fall at milestones, and can be stopped between any two steps: after each of them it
offers a state (head, encoder where that is trained, optimizer, place in the epoch, results so far) from which another call
computes the same steps that this one would have, to the last bit.

A frozen encoder is checked to be frozen: nothing of it can be trained, and after the first epoch and at the end every
parameter and buffer is bit for bit what it was.
"""

import math
from functools import partial

import torch
from torch import Tensor, nn
from tqdm import tqdm

from engine.encoders import moved, snapshot
from engine.pace import Pace
from feeder.evaluation import shuffled
from feeder.sampling import epoch_order
from models.encoder import Encoder
from utils.errors import UserError

BEGINNING = {"position": 0, "total": 0.0, "count": 0}  # of an epoch: batches done, and what their losses add up to


def milestone_factor(schedule, epoch: int) -> float:
    """What the learning rate of an epoch (from 0) is multiplied by: 0.1 for every milestone that it has reached."""
    return 0.1 ** sum(epoch >= milestone for milestone in schedule)


class Training:
    """One training of `head` on `encoder` by the samples of `train`. recipe: with epochs, schedule, batch_size and lr; last, best:
    results (a dict with `epoch`) of the last and of the best test, None before the first."""

    largest = math.inf  # a loss that is not below this, as NaN is not, ends the training
    clip: float | None = None  # norm to which gradients are clipped

    def __init__(
        self,
        encoder: Encoder,
        head: nn.Module,
        frozen: bool,
        optimizer: torch.optim.Optimizer,
        recipe,
        train,
        seed: int,
    ):
        self.encoder, self.head, self.frozen, self.optimizer, self.recipe = encoder, head, frozen, optimizer, recipe
        self.train, self.seed = train, seed
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.last: dict | None = None
        self.best: dict | None = None

    def batches(self, epoch: int) -> list:
        """The batches of an epoch, each an argument of `loss`: shuffled indices of `train`. A function of seed and epoch."""
        return shuffled(len(self.train), self.recipe.batch_size, epoch_order(self.seed, epoch, len(self.train)))

    def loss(self, batch, epoch: int) -> tuple[Tensor, int]:
        """(mean loss, number of samples) of a batch."""
        raise NotImplementedError

    def tested(self, epoch: int, loss: float) -> dict:
        """Called after each epoch (from 1) with its mean loss; returns the values to log."""
        raise NotImplementedError

    def about(self, batch) -> str:
        """What to say of a batch whose loss is not finite."""
        return ""

    def keep(self, figures: dict, key: str) -> None:
        """Takes the figures of a test as the last ones, and as the best where figures[key] is above those so far."""
        self.last = figures
        self.best = figures if self.best is None or figures[key] > self.best[key] else self.best

    def state(self, epoch: int, place: dict) -> dict:
        """Everything that another call needs to go on. place: in the epoch."""
        state = {"epoch": epoch, "place": {**place, "last": self.last, "best": self.best}, "head": snapshot(self.head)}
        trained = {} if self.frozen else {"encoder": snapshot(self.encoder)}
        return {**state, **trained, "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict) -> dict:
        """Goes on from a state; returns the place in its epoch."""
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        if not self.frozen:
            self.encoder.load_state_dict(state["encoder"])
        place = dict(state["place"])
        self.last, self.best = place.pop("last"), place.pop("best")
        return place


def new_linear(features: int, classes: int, seed: int) -> nn.Linear:
    """A linear layer with weights N(0, 0.01) and bias 0, from a seed."""
    fc = nn.Linear(features, classes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        fc.weight.normal_(0.0, 0.01, generator=generator)
        fc.bias.zero_()
    return fc


def new_sgd(encoder: Encoder, head: nn.Module, recipe, nesterov: bool = False) -> torch.optim.SGD:
    """SGD over the head and, unless frozen, the encoder. recipe: with frozen, lr, momentum and weight_decay."""
    trained = [*head.parameters(), *([] if recipe.frozen else encoder.parameters())]
    return torch.optim.SGD(
        trained, recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=nesterov
    )


def fit(training: Training, title: str, log=None, say=None, quiet=None, state: dict | None = None, after_step=None):
    """Runs a training to its end.

    title: for the bar and for lines; log(epoch, values): called after every epoch; say: prints lines about the pace where
    there is no bar; quiet: True for no bar, None for one on a terminal only; state: to go on from; after_step: called after
    every step with a function that makes the state. Raises UserError when a loss is not finite, AssertionError when a
    frozen encoder moved."""
    encoder, epochs = training.encoder, training.recipe.epochs
    encoder.requires_grad_(not training.frozen)
    before = snapshot(encoder) if training.frozen else None
    first, place = (0, BEGINNING) if state is None else (state["epoch"], training.load_state(state))
    batches = training.batches(first)
    done, total = first * len(batches) + place["position"], epochs * len(batches)
    pace = Pace(done, total, say or _silent)
    bar = tqdm(total=total, initial=done, unit="step", desc=title, disable=quiet, dynamic_ncols=True, leave=False)

    def step_done(epoch: int, place: dict) -> None:
        bar.update()
        pace.after(epoch * len(batches) + place["position"], f"{title}, epoch {epoch + 1} of {epochs}")
        if after_step is not None:
            after_step(partial(training.state, epoch, place))

    for epoch in range(first, epochs):
        factor = milestone_factor(training.recipe.schedule, epoch)
        for group, rate in zip(training.optimizer.param_groups, training.rates, strict=True):
            group["lr"] = rate * factor
        batches = batches if epoch == first else training.batches(epoch)
        loss = _epoch(training, epoch, batches, place if epoch == first else BEGINNING, partial(step_done, epoch))
        if training.frozen and epoch == 0:
            check_frozen(encoder, training.head, before)
        values = training.tested(epoch + 1, loss)
        bar.set_postfix({name: f"{value:.3g}" for name, value in values.items()})
        if log is not None:
            log(epoch + 1, values)
    bar.close()
    if training.frozen:
        check_frozen(encoder, training.head, before)


def _silent(line: str) -> None:
    pass


def _epoch(training: Training, epoch: int, batches: list, place: dict, step_done) -> float:
    """The steps of an epoch from a place in it on; returns the mean loss of the whole epoch. step_done: gets the place after
    every step."""
    training.encoder.train(not training.frozen)
    training.head.train()
    parameters = [p for group in training.optimizer.param_groups for p in group["params"]]
    total, count = place["total"], place["count"]
    for position, batch in enumerate(batches[place["position"] :], place["position"] + 1):
        loss, samples = training.loss(batch, epoch)
        value = float(loss.detach())
        if not value < training.largest:  # NaN too
            what = f"{value:.3g}" if math.isfinite(value) else "not finite"
            raise UserError(
                f"epoch {epoch + 1}: the loss is {what}{training.about(batch)}, the network diverged; give a smaller --lr "
                f"than {training.recipe.lr:g}"
            )
        training.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if training.clip is not None:
            nn.utils.clip_grad_norm_(parameters, training.clip)
        training.optimizer.step()
        total, count = total + value * samples, count + samples
        step_done({"position": position, "total": total, "count": count})
    return total / count


def check_frozen(encoder: Encoder, head: nn.Module, before: dict[str, Tensor]) -> None:
    """AssertionError unless nothing of the encoder can be trained or has moved, and the head can."""
    trainable = [name for name, p in encoder.named_parameters() if p.requires_grad]
    assert not trainable, f"frozen, but trainable: {trainable}"
    assert all(p.requires_grad for p in head.parameters()), "the head is frozen"
    changed = moved(encoder, before)
    assert not changed, f"frozen, but moved: {changed}"
