"""How pretraining is going: nearest-neighbour accuracy of held-out clips, while the run goes on.

The losses of contrastive pretraining say little about the encoder, since they depend on queue and temperature; 1-NN needs no
training and follows linear evaluation. It changes nothing of the run: no gradient, no running statistic, no random number,
and every module goes back to the mode that it was in.
"""

import contextlib
from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from engine.classify import FEATURE_BATCH
from engine.encoders import clip_features
from feeder.draws import CROP_ONCE, epoch_order
from feeder.evaluation import ClipViews
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
