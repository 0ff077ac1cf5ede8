"""Which training clips keep their labels in semi-supervised evaluation: a function of (labels, amount, seed)."""

import numpy as np

from feeder.sampling import ORDER, epoch_order

_SAMPLING_EPOCH = 2**40  # gives an order that is not that of any training epoch


def choose_labelled(labels: np.ndarray, fraction: float, sampling: str, seed: int) -> np.ndarray:
    """Sorted indices of the labelled clips. labels (N,).

    sampling: per_class for round(fraction * n) clips of each class, at least one; global for round(fraction * N) of all clips, at
    least one, as the parent code does."""
    order = epoch_order(seed, _SAMPLING_EPOCH, len(labels), ORDER)
    if sampling == "global":
        return np.sort(order[: max(1, round(fraction * len(labels)))])
    chosen = []
    for label in np.unique(labels):
        members = order[labels[order] == label]
        chosen.append(members[: max(1, round(fraction * len(members)))])
    return np.sort(np.concatenate(chosen))


def choose_per_class(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Sorted indices of `count` clips of each class, or all of a class that has fewer. labels (N,).

    The order is that of `choose_labelled`: with one seed, a smaller count gives a subset of a larger one, and
    count = fraction * n gives the same clips."""
    order = epoch_order(seed, _SAMPLING_EPOCH, len(labels), ORDER)
    return np.sort(np.concatenate([order[labels[order] == label][:count] for label in np.unique(labels)]))
