"""A classifier trained on a handful of labelled clips with frozen features, and its cross-validated accuracy.

With five clips of each class nothing is left to tune SGD with, the recipe of linear evaluation. Instead features are
standardised and a multinomial logistic regression with a fixed L2 penalty is solved to convergence (L-BFGS); it has one
solution and no schedule. Its accuracy is estimated by cross-validation: the clips of each class are distributed over folds,
each fold is classified by a model of the others, so that every clip is tested once.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from engine.novelty import Novelty, nearest_distance
from engine.probes import logistic_regression
from feeder.sampling import epoch_order
from utils.errors import UserError

PENALTY = 0.01  # of the squared weights on standardised features


def solve_regression(features: Tensor, labels: Tensor, classes: int, penalty: float = PENALTY) -> nn.Linear:
    """Solves the regression on features (N, D) with labels (N,); returns a layer D -> classes for unstandardised features."""
    x = features.double()
    mean, spread = x.mean(dim=0), x.std(dim=0, correction=0).clamp_min(1e-6) * x.shape[1] ** 0.5
    weights = logistic_regression((x - mean) / spread, labels, classes, 1 / (penalty * len(x)))
    layer, weight = nn.Linear(x.shape[1], classes), weights[:-1].T / spread
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(weights[-1] - weight @ mean)
    return layer.requires_grad_(False)


def assign_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold (N,) of each clip: the clips of each class are distributed round robin, in an order sampled by the seed."""
    order = epoch_order(seed, 0, len(labels))
    fold = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        own = order[labels[order] == label]
        fold[own] = (np.arange(len(own)) + int(label)) % folds
    return fold


@dataclass(frozen=True)
class FewLabelClassifier:
    """fc: trained on all clips; novelty: has the distances of held-out clips; scores (N, K): of each clip by the classifier of
    the other folds; folds: their number."""

    fc: nn.Linear
    novelty: Novelty
    scores: Tensor
    folds: int


def train_few_labels(
    features: np.ndarray, labels: np.ndarray, classes: tuple[str, ...], folds: int, seed: int
) -> FewLabelClassifier:
    """Cross-validates, then trains on all clips. features (N, D), labels (N,) in 0..K-1.

    UserError for fewer than two classes and for a class with one clip, which cannot be both trained and tested on."""
    counts = np.bincount(labels, minlength=len(classes))
    if len(classes) < 2:
        raise UserError(f"there is only one class ({classes[0]}); give clips of two or more classes")
    few = int(counts.argmin())
    if counts[few] < 2:
        raise UserError(
            f"class {classes[few]} has {counts[few]} clip, and cross-validation needs two; give two or more"
        )
    folds = min(folds, int(counts.min()))
    x, y, fold = (
        torch.from_numpy(features),
        torch.from_numpy(labels),
        torch.from_numpy(assign_folds(labels, folds, seed)),
    )
    scores, distances = torch.empty(len(x), len(classes)), torch.empty(len(x))
    for k in range(folds):
        out = fold == k
        scores[out] = solve_regression(x[~out], y[~out], len(classes))(x[out])
        distances[out] = nearest_distance(x[out], x[~out])
    return FewLabelClassifier(solve_regression(x, y, len(classes)), Novelty.known(x, distances), scores, folds)
