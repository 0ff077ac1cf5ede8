"""Out-of-distribution detection: whether a clip is unlike all clips that a classifier was trained on ("none of them").

A softmax always answers with one of its classes. So a classifier's file also holds features of training clips (the gallery, at
most `PER_CLASS` of each class, fewer if features are wide) and the distances of held-out clips to their nearest gallery clip. A
clip is "none of them" if its distance exceeds a threshold; the user gives the share of known clips that may exceed it, and the
threshold is that quantile of the held-out distances. (Nearest neighbours for this purpose: Sun et al., Out-of-distribution
detection with deep nearest neighbors, ICML 2022.)

The distance is the geometric mean of two cosine distances: of the features as they are, and of the features minus the gallery's
mean. Features of one encoder have a large common part, above all with max pooling, so all their angles are small and two
exercises differ little; without the mean the angles are wide. But without the mean a body that only stands is close to the
exercise with the least motion, and with it it is not. RESULTS.md ("None of them") has the other distances that were tried and
what each detects; `benchmarks/novelty.py` measures them.
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
PER_CLASS_NUMBERS = 25_600  # clips x feature size of a class at most, so that classifier files stay small
MOST_DISTANCES = 2000
SHARE = 0.05  # default share of known clips that may be called none of the classes


def cosine_distance(features: Tensor, gallery: Tensor) -> Tensor:
    """Cosine distance (N,), 0..2, of features (N, D) to the nearest of gallery (n, D)."""
    nearest = F.normalize(features.float(), dim=1) @ F.normalize(gallery.float(), dim=1).T
    return 1 - nearest.amax(dim=1)


def nearest_distance(features: Tensor, gallery: Tensor) -> Tensor:
    """Distance (N,), 0..2, of features (N, D) to the nearest of gallery (n, D); see the module docstring."""
    features, gallery = features.float(), gallery.float()
    centre = gallery.mean(dim=0)
    both = cosine_distance(features, gallery) * cosine_distance(features - centre, gallery - centre)
    return both.clamp_min(0).sqrt()  # equal features may give -1e-7 by rounding


def gallery_size(width: int) -> int:
    """Gallery clips of a class, for features of size `width`."""
    return max(1, min(PER_CLASS, PER_CLASS_NUMBERS // width))


def choose_gallery(labels: np.ndarray, most: int) -> np.ndarray:
    """Sorted indices of at most `most` clips of each class. labels (N,). A random sample with a fixed seed: clips are sorted by
    name, hence by person and take, and every n-th clip might be of one kind of take only."""
    chosen = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        chosen.append(own[epoch_order(0, int(label), len(own))[:most]])
    return np.sort(np.concatenate(chosen))


@dataclass(frozen=True)
class Novelty:
    """gallery (n, D) float32: features of training clips; distances (m,) float32, ascending: of held-out clips to the gallery;
    centred: True for `nearest_distance`, False for `cosine_distance`, as in files from before 2026-11-27."""

    gallery: Tensor
    distances: Tensor
    centred: bool = True

    @classmethod
    def measured(cls, gallery: Tensor, held_out: Tensor) -> "Novelty":
        """From features of training clips (n, D) and of held-out clips (m, D)."""
        return cls.known(gallery, nearest_distance(held_out, gallery))

    @classmethod
    def known(cls, gallery: Tensor, distances: Tensor) -> "Novelty":
        """From distances in any order; of more than MOST_DISTANCES, as many evenly spaced quantiles are kept."""
        distances = distances.float().sort().values
        if len(distances) > MOST_DISTANCES:
            distances = distances[torch.linspace(0, len(distances) - 1, MOST_DISTANCES).round().long()]
        return cls(gallery.half().float(), distances)

    def threshold(self, share: float) -> float:
        """The distance that `share` (0..1) of the held-out clips exceed; infinite for 0, which rejects nothing."""
        return float(torch.quantile(self.distances, 1 - share)) if share > 0 else float("inf")

    def __call__(self, features) -> np.ndarray:
        """Distances (N,) of features (N, D)."""
        measure = nearest_distance if self.centred else cosine_distance
        return measure(torch.as_tensor(features).cpu(), self.gallery).numpy()

    def state(self) -> dict:
        """The content for a checkpoint."""
        return {"gallery": self.gallery.half(), "distances": self.distances, "centred": self.centred}


def novelty_of(state, features: int, path) -> Novelty | None:
    """The Novelty of a checkpoint's `state`, None for a file without one. UserError when it does not fit `features`, the feature
    size of the classifier."""
    if state is None:
        return None
    tensors = [state.get(name) if isinstance(state, dict) else None for name in ("gallery", "distances")]
    if not all(isinstance(t, Tensor) and t.is_floating_point() and t.numel() and t.isfinite().all() for t in tensors):
        raise UserError(
            f"{path}: its gallery and distances are not as action_classification.py writes them; train it again"
        )
    gallery, distances = (t.float() for t in tensors)
    if gallery.ndim != 2 or gallery.shape[1] != features or distances.ndim != 1:
        raise UserError(f"{path}: its gallery is {tuple(gallery.shape)}, expected (n, {features}); train it again")
    return Novelty(gallery, distances.sort().values, state.get("centred") is True)
