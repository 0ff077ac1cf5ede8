"""Probes: accuracy of simple classifiers on fixed features, with one setting that is chosen without the test split.

The logistic regression is that of scikit-learn (multinomial, L2, bias not penalised; a test compares them), in torch, so that it
runs on the device of the features and needs no further package:

    minimise over W, b:   C * sum_i cross_entropy(x_i W + b, y_i) + 1/2 |W|^2

Its only setting is the strength C; it has no learning rate, epochs or seed, so that a comparison of features does not depend on
the training. Features are first standardised by the training split. C is chosen by cross-validation on the training split, with
folds of subjects if clip names contain them (the classifier should work for new people), else of clips, stratified by class.
"""

import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

STRENGTHS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
MOST_FOLDS = 5
MOST_CLIPS = 5000  # training clips used to choose the strength
# the subject's number in clip names: NTU's and PKU's `P007`, or a separate part such as `_s02_`
SUBJECTS = (re.compile(r"S\d{3}C\d{3}P(\d{3})"), re.compile(r"(?:^|_)s(\d+)(?:_|$)"))


@dataclass(frozen=True)
class Standardised:
    """Standardisation. mean, scale (D,): mean and standard deviation of training features; constant features have scale 1."""

    mean: Tensor
    scale: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Standardised":
        """features (N, D), any float type; the statistics are float64."""
        features = features.double()
        scale = features.std(0, correction=0)
        return cls(features.mean(0), torch.where(scale > 1e-12, scale, 1.0))

    def __call__(self, features: Tensor) -> Tensor:
        """(n, D) -> float64 (n, D)."""
        return (features.double() - self.mean) / self.scale


def in_row_space(train: Tensor, *others: Tensor) -> list[Tensor]:
    """Projects features (N, D) with D > N, and others (n, D), to at most N coordinates without changing the regression: because of
    the penalty, W is a linear combination of training rows, so only their span matters, up to a rotation."""
    if train.shape[1] <= train.shape[0]:
        return [train, *others]
    values, vectors = torch.linalg.eigh(train @ train.T)
    keep = values > values[-1] * 1e-12
    basis = train.T @ (vectors[:, keep] / values[keep].sqrt())  # (D, rank), orthonormal columns
    return [x @ basis for x in (train, *others)]


def logistic_regression(
    features: Tensor, labels: Tensor, classes: int, strength: float, start: Tensor | None = None, exact: bool = True
) -> Tensor:
    """Standardised features (N, D), labels (N,) -> weights (D + 1, K), the last row the bias (see module docstring).

    strength: C; start: initial weights, such as those of a neighbouring strength, which only save time, since the optimum is
    unique; exact: converge to the optimum in float64, else approximately in float32, to compare strengths."""
    features = features.double() if exact else features.float()
    labels = labels.to(features.device)
    weights = features.new_zeros(features.shape[1] + 1, classes) if start is None else start.clone()
    weights.requires_grad_()
    steps, gradient = (2000, 1e-7) if exact else (100, 1e-5)
    optimizer = torch.optim.LBFGS(
        [weights], max_iter=steps, max_eval=2 * steps, tolerance_grad=gradient, tolerance_change=1e-12, history_size=10,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(features @ weights[:-1] + weights[-1], labels)
        loss = loss + weights[:-1].square().sum() / (2 * strength * len(features))
        loss.backward()
        return loss

    optimizer.step(closure)
    return weights.detach()


def scores(weights: Tensor, features: Tensor) -> Tensor:
    """Weights (D + 1, K), features (n, D) -> class scores (n, K)."""
    return features.to(weights.dtype) @ weights[:-1] + weights[-1]


def subjects_of(names) -> np.ndarray | None:
    """The subject of every clip, (N,) integers, if all names contain it and there are several subjects; else None."""
    for pattern in SUBJECTS:
        found = [pattern.search(name) for name in names]
        if all(found):
            subjects = np.array([int(one.group(1)) for one in found])
            return subjects if len(np.unique(subjects)) > 1 else None
    return None


def class_folds(labels: np.ndarray, count: int) -> np.ndarray:
    """`count` folds (N,) of clips with classes (N,): the clips of each class are distributed round robin."""
    folds = np.empty(len(labels), dtype=int)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        folds[members] = np.arange(len(members)) % count
    return folds


def folds_of(names, labels: np.ndarray) -> tuple[np.ndarray, str]:
    """The fold (N,) of every training clip for choosing the strength, and a description of the folds.

    Subjects are distributed round robin over at most MOST_FOLDS folds; without subjects, the clips of each class are."""
    subjects = subjects_of(names)
    if subjects is not None:
        _, number = np.unique(subjects, return_inverse=True)
        count = min(MOST_FOLDS, int(number.max()) + 1)
        return number % count, f"{count} folds of {number.max() + 1} training subjects"
    count = min(MOST_FOLDS, len(labels))
    return class_folds(labels, count), f"{count} folds of the training clips, every class in each"


def choose_strength(features: Tensor, labels: Tensor, classes: int, folds: np.ndarray, strengths=None) -> float:
    """The strength with the lowest cross-entropy on held-out clips, over all folds.

    features (N, D): not standardised; each fold is standardised by its own training clips. Of more than MOST_CLIPS clips every
    n-th is used. strengths: STRENGTHS unless given."""
    every = -(-len(labels) // MOST_CLIPS)
    features, labels = features[::every], labels[::every].to(features.device)
    fold_of = torch.from_numpy(folds[::every]).to(features.device)
    loss = dict.fromkeys(sorted(strengths or STRENGTHS), 0.0)
    for fold in fold_of.unique():
        held = fold_of == fold
        scaled = Standardised.of(features[~held])
        train, held_out = in_row_space(scaled(features[~held]), scaled(features[held]))
        weights = None
        for strength in loss:
            weights = logistic_regression(train, labels[~held], classes, strength, weights, exact=False)
            loss[strength] += float(F.cross_entropy(scores(weights, held_out), labels[held], reduction="sum"))
    return min(loss, key=loss.get)


def euclidean(train: Tensor, labels: Tensor, test: Tensor, chunk: int = 512) -> Tensor:
    """The class (n,) of the nearest training clip, by Euclidean distance, of every test clip. train (N, D), test (n, D)."""
    half = train.square().sum(1) / 2
    return torch.cat([labels[(part @ train.T - half).argmax(1)] for part in test.split(chunk)])


@dataclass(frozen=True)
class ProbeResult:
    """Accuracies (0..1) on the test clips: logistic regression with the chosen strength C, 1-NN by cosine and by Euclidean
    distance."""

    linear: float
    cosine: float
    euclidean: float
    strength: float


def linear_share(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    classes: int,
    strength: float,
    scale_by: Tensor | None = None,
) -> float:
    """The test accuracy (0..1) of logistic regression on standardised features. scale_by: the features that give mean and standard
    deviation, None for train."""
    scaled = Standardised.of(train if scale_by is None else scale_by)
    inside, outside = in_row_space(scaled(train), scaled(test))
    predicted = scores(logistic_regression(inside, train_labels, classes, strength), outside).argmax(1)
    return share(predicted, test_labels)


def share(predicted: Tensor, labels: Tensor) -> float:
    """The share (0..1) of predicted classes (n,) that are right."""
    return float((predicted.cpu() == labels.cpu()).double().mean())


def probe(
    train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor, classes: int, folds: np.ndarray
) -> ProbeResult:
    """1-NN by both distances on the features as they are, and logistic regression on standardised features.

    train (N, D), test (n, D) float32; labels (N,), (n,); folds (N,): see `folds_of`. The test labels are used for the accuracies
    only."""
    train, test = train.float(), test.float()
    train_labels = train_labels.to(train.device)
    strength = choose_strength(train, train_labels, classes, folds)
    return ProbeResult(
        linear_share(train, train_labels, test, test_labels, classes, strength),
        share(euclidean(F.normalize(train, dim=1), train_labels, F.normalize(test, dim=1)), test_labels),
        share(euclidean(train, train_labels, test), test_labels),
        strength,
    )
