"""How pretraining is going: how the embeddings spread, and nearest-neighbour accuracy of held-out clips where labels are there.

The losses of contrastive pretraining say little about the encoder, since they depend on queue and temperature. Nothing here
changes the run: no gradient, no running statistic, no random number, and every module goes back to the mode that it was in.

**Without labels**, from the unit embeddings that the last step before a line of the log had anyway: keys k of the batch's N
clips, and the cosine of each query q with its own key.

* `effective_rank`: exp of the entropy of the singular values of the centred keys, taken as shares (Roy and Vetterli, EUSIPCO
  2007): how many directions the embeddings use, from 1 to the smaller of N - 1 and their size. Compare runs of one batch
  size only.
* `alignment`: mean squared distance of query and own key, 0 to 4, lower = views of a clip agree more; `uniformity`: the log
  of the mean of exp(-2 |k_i - k_j|^2) over pairs of clips, from 0 (all in one point) to about -4 (spread over the sphere)
  (both Wang and Isola, ICML 2020). A good run has both low. With several processes, alignment is that of the main
  process's rows, the others are of the whole batch.

Collapse means that clips cannot be told apart in the embedding: uniformity above COLLAPSED_UNIFORMITY (the mean squared
distance of two clips is then below about a fortieth of that of opposite points) or an effective rank below COLLAPSED_RANK
(all lie on a line). A random encoder begins like that, so it is said only of a run that has been so for COLLAPSED_LINES lines
of the log one after the other, once.

**With labels** 1-NN needs no training and follows linear evaluation.
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

_SUBSET_EPOCH = 2**40 + 1  # its own place in the stream of orders, far from any epoch


@contextlib.contextmanager
def evaluating(module: nn.Module):
    """The module in eval mode; afterwards every part of it is in the mode it was in before."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def limited(views: ClipViews, limit: int) -> ClipViews:
    """At most `limit` clips (0 = all), chosen evenly by chance, the same ones every time."""
    if not 0 < limit < len(views):
        return views
    chosen = np.sort(epoch_order(0, _SUBSET_EPOCH, len(views), CROP_ONCE)[:limit])
    return replace(views, clips=views.clips.select(chosen))


@dataclass(frozen=True)
class NeighbourMonitor:
    """gallery: clips with known classes (of the training split); queries: held-out clips; world: the processes that share
    the encoding."""

    gallery: ClipViews
    queries: ClipViews
    world: World = World()

    def __call__(self, encoder: Encoder) -> float:
        """Share of the queries whose nearest gallery clip (cosine of the clip features) has their class."""
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
MOST_KEYS = 1024  # of a batch that are looked at: pairs of them are compared


def effective_rank(keys: Tensor) -> float:
    """Of keys (N, D), see the module's text; 1 where all are equal."""
    values = torch.linalg.svdvals((keys - keys.mean(0)).double())
    total = float(values.sum())
    if total < 1e-9 * math.sqrt(len(keys)):
        return 1.0
    share = values / total
    return math.exp(float(torch.special.entr(share).sum()))


def uniformity(keys: Tensor) -> float:
    """Of unit keys (N, D), N > 1, see the module's text."""
    distance = torch.pdist(keys.double())
    return math.log(float(torch.exp(-2 * distance.square()).mean()))


@torch.no_grad()
def spread(keys: Tensor, own: Tensor) -> dict[str, float]:
    """effective_rank, uniformity and alignment. keys (N, D) unit; own (n,): the cosine of each query with its own key.

    {} for a single clip or numbers that are not finite."""
    keys = keys[:MOST_KEYS].detach().float()
    if len(keys) < 2 or not bool(torch.isfinite(keys).all()):
        return {}
    alignment = float((2 - 2 * own.float()).mean())
    return {"effective_rank": effective_rank(keys), "uniformity": uniformity(keys), "alignment": alignment}


class CollapseWatch:
    """Told of the spread at every line of the log; answers with a warning once, when the embeddings have collapsed."""

    def __init__(self):
        self.lines, self.said = 0, False

    def __call__(self, found: dict[str, float]) -> str | None:
        """found: what `spread` gave. The sentence of the warning, or None."""
        if not found:
            return None
        collapsed = found["uniformity"] > COLLAPSED_UNIFORMITY or found["effective_rank"] < COLLAPSED_RANK
        self.lines = self.lines + 1 if collapsed else 0
        if self.said or self.lines < COLLAPSED_LINES:
            return None
        self.said = True
        return (
            f"warning: the embeddings have collapsed (effective rank {found['effective_rank']:.1f}, uniformity "
            f"{found['uniformity']:.2f}, for {self.lines} lines of the log): clips are not told apart; a smaller --lr, a larger "
            "--contrast-t or milder views may help, and waiting does not"
        )
