"""Robustness of a trained classifier: accuracy on occluded clips and on the beginning of clips (early recognition).

The classifier is only tested; nothing is trained on occluded or cut clips. The first point of an occlusion curve hides nothing
and the last point of early recognition has all frames: both equal the clean accuracy bit for bit, because they are computed
by the same code in the same batches.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from engine.classify import FEATURE_BATCH, class_scores
from engine.encoders import clip_features
from feeder.evaluation import ClipViews, in_order
from feeder.occlusion import hidden_block, hidden_parts
from models.encoder import Encoder
from utils.errors import UserError
from utils.metrics import summarise, topk_accuracy

AMOUNTS = {"spatial": (0, 1, 2, 3, 4), "temporal": tuple(range(0, 100, 10))}
UNITS = {"spatial": "body parts hidden, of 5", "temporal": "% of the frames hidden, one block"}
OBSERVED = tuple(range(10, 101, 10))


@dataclass(frozen=True)
class OccludedViews:
    """Occluded test clips, rendered like ClipViews. kind: spatial (amount: number of hidden body parts) or temporal (amount:
    percent of the frames); parts: of the layout; seed: samples what is hidden."""

    views: ClipViews
    kind: str
    amount: int
    parts: tuple[tuple[int, ...], ...]
    seed: int

    def __len__(self) -> int:
        return len(self.views)

    def centre(self, index: Tensor) -> Tensor:
        """Views (n, T, F) of the occluded centre crops."""
        names = [self.views.clips.names[i] for i in index.tolist()]
        joints, frames = self.views.clips.joints, self.views.frames
        if self.kind == "spatial":
            hidden = hidden_parts(self.seed, names, self.amount, self.parts, joints, frames)
        else:
            hidden = hidden_block(self.seed, names, self.amount, joints, frames)
        return self.views.centre_hidden(index, torch.from_numpy(hidden))


def occlusion_curve(encoder: Encoder, fc: nn.Linear, test: ClipViews, kind: str, parts, seed: int) -> list[float]:
    """Top-1 accuracy (0..1) at each of AMOUNTS[kind]; the first is without occlusion."""
    labels, curve = test.clips.labels.cpu(), []
    for amount in AMOUNTS[kind]:
        features = clip_features(encoder, OccludedViews(test, kind, amount, parts, seed), FEATURE_BATCH)
        curve.append(topk_accuracy(class_scores(fc, features, test.device), labels, (1,))[1])
    return curve


def check_causal(encoder: Encoder) -> None:
    """UserError if the features of a frame depend on later frames."""
    if not encoder.causal:
        raise UserError(
            f"--early needs a causal encoder; the features of the {encoder.config.backbone} backbone depend on later frames; "
            "leave --early out, or pretrain a transformer with --causal"
        )


@torch.no_grad()
def early_curve(encoder: Encoder, fc: nn.Linear, test: ClipViews) -> list[float]:
    """Top-1 accuracy (0..1) after each of OBSERVED percent of the T frames, by the features up to frame ceil(T p) - 1, all from one
    pass. UserError for an encoder that is not causal."""
    check_causal(encoder)
    encoder.eval()
    last_frames = [-(-test.frames * percent // 100) - 1 for percent in OBSERVED]
    scores: list[list[Tensor]] = [[] for _ in OBSERVED]
    for index in in_order(len(test), FEATURE_BATCH):
        sides = [encoder.frames(side) for side in encoder.sides(test.centre(index))]
        for kept, last in zip(scores, last_frames, strict=True):
            clip = encoder.joined([encoder.clip(frames[:, : last + 1]) for frames in sides])
            kept.append(class_scores(fc, clip, test.device))
    labels = test.clips.labels.cpu()
    return [topk_accuracy(torch.cat(kept), labels, (1,))[1] for kept in scores]


def curve_summary(x, curves: dict[int, list[float]], clean: int) -> dict:
    """Curves of several seeds, as an entry of result.json. x: the amounts; curves: seed -> accuracies; clean: index of the point
    without occlusion, or with all frames. `drop` is the accuracy at `clean` minus that at the point, averaged over seeds."""
    points = [summarise(values) for values in zip(*curves.values(), strict=True)]
    return {
        "x": list(x),
        "mean": [p.mean for p in points],
        "std": [p.std for p in points],
        "drop": [points[clean].mean - p.mean for p in points],
        "seeds": {str(seed): values for seed, values in curves.items()},
    }
