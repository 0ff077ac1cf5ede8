"""Classification metrics: top-k accuracy, confusion matrix, accuracy per class, and mean and deviation over seeds.

All shares are in 0..1, never percent; `Summary` formats percent for a table.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from utils.errors import UserError


def class_rank(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Rank of each sample's true class among its scores, 0 = highest: scores (N, K), labels (N,) -> int64 (N,).

    Ties go to the lower class number, as in arg-max, so that the result does not depend on the device. ValueError for
    shapes that do not match, UserError for scores that are not finite (a diverged network would otherwise look perfect,
    since no comparison with NaN is true)."""
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(f"expected scores (N, K) and labels (N,), found {tuple(scores.shape)}, {tuple(labels.shape)}")
    if len(labels) and not (0 <= int(labels.min()) and int(labels.max()) < scores.shape[1]):
        raise ValueError(f"labels must be in 0..{scores.shape[1] - 1}, found {int(labels.min())}..{int(labels.max())}")
    if not torch.isfinite(scores).all():
        raise UserError("the scores are not finite, so the network has diverged; give a lower learning rate")
    own = scores.gather(1, labels[:, None])
    lower = torch.arange(scores.shape[1], device=scores.device) < labels[:, None]
    return ((scores > own) | ((scores == own) & lower)).sum(1)


def topk_accuracy(scores: torch.Tensor, labels: torch.Tensor, ks: Iterable[int] = (1, 5)) -> dict[int, float]:
    """{k: share of samples whose class is among their k highest scores}; scores (N, K) on any device, labels (N,), N > 0."""
    if not len(labels):
        raise ValueError("expected at least one sample")
    rank = class_rank(scores, labels.to(scores.device))
    return {k: int((rank < k).sum()) / len(labels) for k in ks}


def confusion_matrix(predicted: torch.Tensor, labels: torch.Tensor, num_classes: int) -> torch.Tensor:
    """Counts (K, K) int64 on the CPU: row = true class, column = predicted class."""
    cells = labels.long() * num_classes + predicted.long()
    return torch.bincount(cells.flatten(), minlength=num_classes**2).view(num_classes, num_classes).cpu()


def per_class_accuracy(confusion: torch.Tensor) -> list[float]:
    """Diagonal over row sums of a confusion matrix (K, K), row = true class; NaN for a class without samples."""
    total = confusion.sum(1).double()
    return (confusion.diagonal().double() / total).tolist()


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (n - 1) of a figure over n seeds; std is None for one seed."""

    mean: float
    std: float | None
    count: int

    def percent(self, decimals: int = 1) -> str:
        """Percent for a table: `83.9 ± 0.4`, or `83.9` for a single seed."""
        text = f"{100 * self.mean:.{decimals}f}"
        return text if self.std is None else f"{text} ± {100 * self.std:.{decimals}f}"


def summarise(values: Iterable[float]) -> Summary:
    """Mean and sample standard deviation over seeds; ValueError without values."""
    values = [float(value) for value in values]
    if not values:
        raise ValueError("expected at least one value")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Summary(mean, None, 1)
    return Summary(mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)), len(values))


def summarise_runs(runs: Iterable[Mapping[str, float]]) -> dict[str, Summary]:
    """Summaries by name over runs with the same figures, one mapping per seed. ValueError when the names of figures differ,
    since a mean over only some of the seeds would be misleading."""
    runs = list(runs)
    if any(set(run) != set(runs[0]) for run in runs):
        raise ValueError("the runs measured different figures")
    return {name: summarise(run[name] for run in runs) for name in (runs[0] if runs else ())}
