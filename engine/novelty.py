"""Whether a clip is like those that a classifier was trained on: a class "none of them" by distance.

A softmax answers with one of its classes whatever it is asked. So the classifier's file keeps features of training clips (the
gallery, at most `PER_CLASS` of each class, fewer where features are wide) and the distances of clips that were held out to
their nearest gallery clip. A clip that is further than all but a given share of those is called none of the classes: the
share is what is stated, the distance follows from it. (Nearest neighbours for the purpose: Sun et al., Out-of-distribution
detection with deep nearest neighbors, ICML 2022.)

The distance is by cosine, seen from zero and seen from the gallery's mean: the geometric mean of both. Features of one encoder
have much in common, above all where they are a maximum over time, so that from zero all angles are small and what tells two
exercises apart is little of them; from the mean they are wide. But from the mean a body that only stands looks
like the exercise that moves least, and from zero it does not. What else was tried, and what each catches, is in RESULTS.md
("None of them"), by `benchmarks/novelty.py`.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from feeder.sampling import epoch_order
from utils.errors import UserError

NONE = "none of them"
PER_CLASS = 50  # gallery clips of a class
PER_CLASS_NUMBERS = 25_600  # and numbers of their features in all, so that classifier files stay small
MOST_DISTANCES = 2000
SHARE = 0.05  # of known clips that may be called none of the classes, unless told otherwise


def cosine_distance(features: Tensor, gallery: Tensor) -> Tensor:
    """Cosine distance (N,), 0..2, of features (N, D) to the nearest of gallery (n, D)."""
    nearest = F.normalize(features.float(), dim=1) @ F.normalize(gallery.float(), dim=1).T
    return 1 - nearest.amax(dim=1)


def nearest_distance(features: Tensor, gallery: Tensor) -> Tensor:
    """Distance (N,), 0..2, of features (N, D) to the nearest of gallery (n, D), as the module's text says."""
    features, gallery = features.float(), gallery.float()
    centre = gallery.mean(dim=0)
    both = cosine_distance(features, gallery) * cosine_distance(features - centre, gallery - centre)
    return both.clamp_min(0).sqrt()  # rounding leaves -1e-7 of equal features


def gallery_size(width: int) -> int:
    """Gallery clips of a class, for features of so many numbers."""
    return max(1, min(PER_CLASS, PER_CLASS_NUMBERS // width))


def choose_gallery(labels: np.ndarray, most: int) -> np.ndarray:
    """Sorted indices of at most `most` clips of each class. labels (N,). They are drawn, always the same ones of the same
    labels: every n-th of clips whose names go through people and takes may be those of one kind of take only."""
    chosen = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        chosen.append(own[epoch_order(0, int(label), len(own))[:most]])
    return np.sort(np.concatenate(chosen))


@dataclass(frozen=True)
class Novelty:
    """gallery (n, D) float32: features of training clips; distances (m,) float32, ascending: of held-out clips to it;
    centred: whether they are `nearest_distance`, or, in files from before 2026-11-27, `cosine_distance`."""

    gallery: Tensor
    distances: Tensor
    centred: bool = True

    @classmethod
    def measured(cls, gallery: Tensor, held_out: Tensor) -> "Novelty":
        """From features of training clips (n, D) and of clips that were held out (m, D)."""
        return cls.known(gallery, nearest_distance(held_out, gallery))

    @classmethod
    def known(cls, gallery: Tensor, distances: Tensor) -> "Novelty":
        """With distances that were measured already, in any order; of many, MOST_DISTANCES evenly spread ones are kept."""
        distances = distances.float().sort().values
        if len(distances) > MOST_DISTANCES:
            distances = distances[torch.linspace(0, len(distances) - 1, MOST_DISTANCES).round().long()]
        return cls(gallery.half().float(), distances)

    def threshold(self, share: float) -> float:
        """The distance that `share` (0..1) of the held-out clips exceed; infinite for 0: nothing is called none."""
        return float(torch.quantile(self.distances, 1 - share)) if share > 0 else float("inf")

    def __call__(self, features) -> np.ndarray:
        """Distances (N,) of features (N, D)."""
        measure = nearest_distance if self.centred else cosine_distance
        return measure(torch.as_tensor(features).cpu(), self.gallery).numpy()

    def state(self) -> dict:
        """What a checkpoint keeps of it."""
        return {"gallery": self.gallery.half(), "distances": self.distances, "centred": self.centred}


def novelty_of(state, features: int, path) -> Novelty | None:
    """What `Novelty.state` wrote; None where a file has none. UserError when it is not what a classifier of D features keeps."""
    if state is None:
        return None
    tensors = [state.get(name) if isinstance(state, dict) else None for name in ("gallery", "distances")]
    if not all(isinstance(t, Tensor) and t.is_floating_point() and t.numel() and t.isfinite().all() for t in tensors):
        raise UserError(
            f"{path}: what it says of distances is not what action_classification.py writes; train it again"
        )
    gallery, distances = (t.float() for t in tensors)
    if gallery.ndim != 2 or gallery.shape[1] != features or distances.ndim != 1:
        raise UserError(f"{path}: its gallery is {tuple(gallery.shape)}, expected (n, {features}); train it again")
    return Novelty(gallery, distances.sort().values, state.get("centred") is True)
