"""Training a head on an encoder: the loop that classification, detection and motion prediction share.

A task is a subclass of `Training`: it defines the batches of an epoch, the loss of a batch, and the test after an epoch. `fit`
runs the epochs with a learning rate that drops at milestones. It can be stopped between any two steps: after each step it
offers a state (head, encoder if it is trained, optimizer, position in the epoch, results so far) from which a later call
continues with the same steps, bit for bit.

A frozen encoder is checked: none of its parameters requires a gradient, and after the first epoch and at the end every
parameter and buffer equals its initial value bit for bit.
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

# state at the start of an epoch: batches done, sum of their losses weighted by samples, number of samples
BEGINNING = {"position": 0, "total": 0.0, "count": 0}


def milestone_factor(schedule, epoch: int) -> float:
    """The factor of the learning rate in an epoch (from 0): 0.1 for every milestone that it has reached."""
    return 0.1 ** sum(epoch >= milestone for milestone in schedule)


class Training:
    """One training of `head` on `encoder`. train: the samples; recipe: has epochs, schedule, batch_size and lr; last, best:
    results (a dict with `epoch`) of the last and of the best test, None before the first test."""

    largest = math.inf  # a loss that is not below this (NaN is not) ends the training
    clip: float | None = None  # maximum gradient norm

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

    def after_epoch(self, epoch: int, loss: float) -> dict:
        """Tests after an epoch (from 1) with this mean loss, where a test is due; returns the values to log."""
        raise NotImplementedError

    def about(self, batch) -> str:
        """Names the batch in the error message about a loss that is not finite."""
        return ""

    def keep(self, figures: dict, key: str) -> None:
        """Keeps the figures of a test as `last`, and as `best` if figures[key] is the highest so far."""
        self.last = figures
        self.best = figures if self.best is None or figures[key] > self.best[key] else self.best

    def state(self, epoch: int, place: dict) -> dict:
        """Everything that is needed to resume. place: position and running sums in the epoch, see BEGINNING."""
        state = {"epoch": epoch, "place": {**place, "last": self.last, "best": self.best}, "head": snapshot(self.head)}
        trained = {} if self.frozen else {"encoder": snapshot(self.encoder)}
        return {**state, **trained, "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict) -> dict:
        """Restores a state; returns its `place`."""
        self.head.load_state_dict(state["head"])
        self.optimizer.load_state_dict(state["optimizer"])
        if not self.frozen:
            self.encoder.load_state_dict(state["encoder"])
        place = dict(state["place"])
        self.last, self.best = place.pop("last"), place.pop("best")
        return place


def new_linear(features: int, classes: int, seed: int) -> nn.Linear:
    """A linear layer with weights from N(0, 0.01), sampled by the seed, and zero bias."""
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

    title: of the progress bar and of log lines; log(epoch, values): called after every epoch; say(line): prints progress where
    there is no bar; quiet: True for no bar, None for a bar on a terminal only; state: to resume from; after_step: called after
    every step with a function that makes the state. Raises UserError when a loss is not finite, AssertionError when a
    frozen encoder has changed."""
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
        values = training.after_epoch(epoch + 1, loss)
        bar.set_postfix({name: f"{value:.3g}" for name, value in values.items()})
        if log is not None:
            log(epoch + 1, values)
    bar.close()
    if training.frozen:
        check_frozen(encoder, training.head, before)


def _silent(line: str) -> None:
    pass


def _epoch(training: Training, epoch: int, batches: list, place: dict, step_done) -> float:
    """Runs an epoch from `place` on; returns the mean loss of the whole epoch. step_done: called with the place after every
    step."""
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
    """AssertionError if a part of the encoder can be trained or has changed, or if the head cannot be trained."""
    trainable = [name for name, p in encoder.named_parameters() if p.requires_grad]
    assert not trainable, f"frozen, but trainable: {trainable}"
    assert all(p.requires_grad for p in head.parameters()), "the head is frozen"
    changed = moved(encoder, before)
    assert not changed, f"frozen, but moved: {changed}"
