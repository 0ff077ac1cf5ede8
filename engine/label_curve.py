"""The few-label curve: accuracy of different features against the number of labelled training clips.

`python -m engine.baselines --few-labels` adds it to its table: the best raw joints, the random encoder with its best pooling,
every pretrained encoder frozen, and, with --supervised, an encoder trained from random weights and the first pretrained one
fine-tuned, both by `engine.supervised` on the labelled clips only. It shows up to how many labels pretraining helps.

The points are given as clips per class or as shares of each class (at least one clip); points that select the same clips are
merged. Frozen features are standardised by all training clips, which needs no labels, and classified by logistic regression;
its strength is chosen from powers of ten by cross-validation on the labelled clips (at most three folds, every class in each),
and is 1 where a class has only one clip. Each seed selects another set of labelled clips.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from engine.labels import choose_labelled, choose_per_class
from engine.probes import choose_strength, class_folds, linear_share
from utils.metrics import Summary, summarise
from utils.plots import literal, new_figure, save_figure, with_default_style

STRENGTHS, MOST_FOLDS = (0.001, 0.01, 0.1, 1.0), 3
ALONE_STRENGTH = 1.0  # where a class has one clip, so that cross-validation is not possible


@dataclass(frozen=True)
class Point:
    """words: the point as given by the user; chosen: indices of the labelled clips for each seed."""

    words: str
    chosen: tuple[np.ndarray, ...]

    @property
    def clips(self) -> int:
        """Number of labelled clips."""
        return len(self.chosen[0])


@dataclass
class Curve:
    """shares: accuracies on the test clips, for each point a list over seeds, None where it was not run."""

    name: str
    shares: list[list[float] | None] = field(default_factory=list)

    def summaries(self) -> list[Summary | None]:
        return [None if values is None else summarise(values) for values in self.shares]


def label_points(labels: np.ndarray, asked: Iterable[int | float], seeds: Iterable[int]) -> list[Point]:
    """The points of the curve, sorted by number of clips. labels (N,); asked: integers are clips per class, floats are shares of
    each class."""
    seeds, found = list(seeds), {}
    for amount in asked:
        if isinstance(amount, int):
            words = f"{amount} clip{'s' * (amount > 1)} a class"
            chosen = [choose_per_class(labels, amount, seed) for seed in seeds]
        else:
            words = f"{100 * amount:g} %"
            chosen = [choose_labelled(labels, amount, "per_class", seed) for seed in seeds]
        key = tuple(index.tobytes() for index in chosen)
        found[key] = (f"{found[key][0]} = {words}", chosen) if key in found else (words, chosen)
    points = [Point(words, tuple(chosen)) for words, chosen in found.values()]
    return sorted(points, key=lambda point: point.clips)


def frozen_share(
    train: Tensor, labels: Tensor, test: Tensor, test_labels: Tensor, classes: int, chosen: np.ndarray
) -> float:
    """The accuracy on test features (n, D) with the labels of the chosen training clips. train (N, D), or (k N, D) with k copies
    of every clip, which are all trained on."""
    picked, known = train[chosen], labels[chosen]
    fewest = int(np.bincount(known.numpy(), minlength=classes)[np.unique(known)].min())
    strength = ALONE_STRENGTH
    if fewest > 1:
        folds = class_folds(known.numpy(), min(fewest, MOST_FOLDS))
        strength = choose_strength(picked, known, classes, folds, STRENGTHS)
    every = np.concatenate([chosen + first for first in range(0, len(train), len(labels))])
    known = known.repeat(len(every) // len(chosen))
    return linear_share(train[every], known, test, test_labels, classes, strength, scale_by=train)


def curve(name: str, points: list[Point], share_of: Callable[[np.ndarray, int], float | None], seeds) -> Curve:
    """The curve of share_of(chosen, seed) at every point for every seed; seeds for which it is None are left out."""
    out = Curve(name)
    for point in points:
        values = [share_of(chosen, seed) for chosen, seed in zip(point.chosen, seeds, strict=True)]
        values = [value for value in values if value is not None]
        out.shares.append(values or None)
    return out


def markdown(points: list[Point], curves: list[Curve]) -> str:
    """A row for each point, a column for each curve, top-1 in percent."""
    lines = ["| labelled clips | " + " | ".join(one.name for one in curves) + " |", "|---|" + "---|" * len(curves)]
    for i, point in enumerate(points):
        cells = [one.summaries()[i] for one in curves]
        words = " | ".join("not run" if cell is None else cell.percent() for cell in cells)
        lines.append(f"| {point.clips} ({point.words}) | {words} |")
    return "\n".join(lines)


@with_default_style
def draw(path, points: list[Point], curves: list[Curve], classes: int) -> None:
    """Draws the curves: top-1 with one standard deviation over seeds, against labelled clips (points evenly spaced)."""
    figure = new_figure(7.2, 4.4)
    axes = figure.subplots()
    for one in curves:
        there = [(i, cell) for i, cell in enumerate(one.summaries()) if cell is not None]
        x, mean = [i for i, _ in there], [100 * cell.mean for _, cell in there]
        deviation = [100 * (cell.std or 0.0) for _, cell in there]
        axes.errorbar(x, mean, yerr=deviation, label=literal(one.name, 50), marker="o", ms=3, lw=1.2, capsize=2)
    ticks = [f"{point.clips}\n{point.clips / classes:g}" for point in points]
    axes.set_xticks(range(len(points)), ticks, fontsize=8)
    axes.set(xlabel="labelled clips, and how many a class", ylabel="top-1 of the test clips, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    save_figure(figure, path)


def to_dict(points: list[Point], curves: list[Curve]) -> dict:
    """The entry of result.json."""
    return {
        "clips": [point.clips for point in points],
        "points": [point.words for point in points],
        "shares": {one.name: one.shares for one in curves},
    }
