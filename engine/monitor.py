"""Monitoring of pretraining: the spread of the embeddings and, if there are labels, 1-NN accuracy on held-out clips.

The losses of contrastive pretraining say little about the encoder, since they depend on queue and temperature. Monitoring does
not change the run: no gradients, no running statistics, no random numbers, and every module returns to its mode.

**Without labels**: computed from the unit embeddings of the last step before a log line: the keys k of the N clips in the
batch, and the cosine of each query q with its own key.

* `effective_rank`: exp of the entropy of the normalised singular values of the centred keys (Roy and Vetterli, EUSIPCO 2007):
  the number of directions that the embeddings use, from 1 to min(N - 1, dimensions). Comparable between runs of one batch size
  only.
* `alignment`: mean squared distance of query and own key, 0 to 4, lower if the views of a clip agree more; `uniformity`: log
  of the mean of exp(-2 |k_i - k_j|^2) over pairs of clips, from 0 (all in one point) to about -4 (spread over the sphere)
  (both Wang and Isola, ICML 2020). A good run has both low. With several processes, alignment is computed on the rows of the
  main process, the others on the whole batch.

Collapse means that the embeddings of different clips are nearly equal: uniformity above COLLAPSED_UNIFORMITY (the mean squared
distance of two clips is then below about a fortieth of that of opposite points) or an effective rank below COLLAPSED_RANK
(all on a line). A random encoder starts like this, so the warning comes, once, after COLLAPSED_LINES such log lines in a row.

**With labels**: 1-NN accuracy needs no training and correlates with linear evaluation.
"""

import contextlib
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from engine.classify import FEATURE_BATCH
from engine.encoders import clip_features
from feeder.evaluation import ClipViews
from feeder.sampling import CROP_ONCE, epoch_order
from models.encoder import Encoder
from utils.distributed import World
from utils.retrieval import retrieve

_SUBSET_EPOCH = 2**40 + 1  # gives an order that is not that of any training epoch


@contextlib.contextmanager
def evaluating(module: nn.Module):
    """A context with the module in eval mode; restores the mode of every submodule."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def random_subset(views: ClipViews, limit: int) -> ClipViews:
    """At most `limit` clips (0 = all), sampled uniformly with a fixed seed."""
    if not 0 < limit < len(views):
        return views
    chosen = np.sort(epoch_order(0, _SUBSET_EPOCH, len(views), CROP_ONCE)[:limit])
    return replace(views, clips=views.clips.select(chosen))


@dataclass(frozen=True)
class NeighbourMonitor:
    """1-NN accuracy of an encoder. gallery: clips of the training split; queries: held-out clips; world: the processes that share
    the encoding."""

    gallery: ClipViews
    queries: ClipViews
    world: World = World()

    def __call__(self, encoder: Encoder) -> float:
        """Share (0..1) of the queries whose nearest gallery clip (cosine of clip features) has the same class."""
        with evaluating(encoder):
            gallery, queries = (
                clip_features(encoder, v, FEATURE_BATCH, True, self.world) for v in (self.gallery, self.queries)
            )
        labels = [v.clips.labels.cpu() for v in (self.queries, self.gallery)]
        found = retrieve(
            queries, labels[0], gallery, labels[1], (1,), (), mean_average_precision=False, device=self.queries.device
        )
        return found.accuracy[1]


COLLAPSED_UNIFORMITY = -0.1
COLLAPSED_RANK = 2.0
COLLAPSED_LINES = 5
MOST_KEYS = 1024  # keys of a batch that are used, since all pairs are compared


def effective_rank(keys: Tensor) -> float:
    """Effective rank of keys (N, D), see the module docstring; 1 if all are equal."""
    values = torch.linalg.svdvals((keys - keys.mean(0)).double())
    total = float(values.sum())
    if total < 1e-9 * math.sqrt(len(keys)):
        return 1.0
    share = values / total
    return math.exp(float(torch.special.entr(share).sum()))


def uniformity(keys: Tensor) -> float:
    """Uniformity of unit keys (N, D), N > 1, see the module docstring."""
    distance = torch.pdist(keys.double())
    return math.log(float(torch.exp(-2 * distance.square()).mean()))


@torch.no_grad()
def spread(keys: Tensor, own: Tensor) -> dict[str, float]:
    """effective_rank, uniformity and alignment. keys (N, D): unit vectors; own (n,): the cosine of each query with its own key.

    {} for a single clip, and for keys that are not finite."""
    keys = keys[:MOST_KEYS].detach().float()
    if len(keys) < 2 or not bool(torch.isfinite(keys).all()):
        return {}
    alignment = float((2 - 2 * own.float()).mean())
    return {"effective_rank": effective_rank(keys), "uniformity": uniformity(keys), "alignment": alignment}


class CollapseWatch:
    """Called with the spread at every log line; returns a warning once, when the embeddings have collapsed."""

    def __init__(self):
        self.lines, self.said = 0, False

    def __call__(self, found: dict[str, float]) -> str | None:
        """found: the result of `spread`. Returns the warning, or None."""
        if not found:
            return None
        collapsed = found["uniformity"] > COLLAPSED_UNIFORMITY or found["effective_rank"] < COLLAPSED_RANK
        self.lines = self.lines + 1 if collapsed else 0
        if self.said or self.lines < COLLAPSED_LINES:
            return None
        self.said = True
        return (
            f"warning: the embeddings have collapsed (effective rank {found['effective_rank']:.1f}, uniformity "
            f"{found['uniformity']:.2f}, for {self.lines} lines of the log): different clips have nearly equal embeddings; a "
            "smaller --lr, a larger --contrast-t or milder augmentations may help, longer training does not"
        )
