"""Which distance tells clips of unknown exercises from known ones: what `engine.novelty` was chosen by.

    python -m benchmarks.novelty --pretrained ui_prmd           # every distance, on training subjects only
    python -m benchmarks.novelty --pretrained ui_prmd --test    # the two that count, on test subjects: look once

Some of the ten exercises are known, drawn several times; the others are "none of them". A subject is held out: the gallery
is made of the known clips of the other training subjects, every clip of the held-out subject gets a distance to it. The
threshold is exceeded by 5 % of the known clips of the *other* held-out subjects, so that neither the gallery nor the
threshold has seen the person who is judged. With --test the gallery is that of all training subjects, and the subjects
held out are those of the test split. The encoder has seen all ten exercises without labels, as that of a user has seen more
than what is asked of a classifier.

Six other distances were tried; benchmarks/LOG.md has their figures and the commit that has their code.

Subject 7 asks nothing while distances are chosen (`benchmarks.recipe_split` says why): where the others raise the right arm
he raises the left, so that without him in the gallery all he does is unknown.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from engine.encoders import clip_features
from engine.evaluation import EncoderSource, open_views
from engine.novelty import SHARE, choose_gallery, cosine_distance, gallery_size, nearest_distance
from engine.probes import subjects_of
from engine.setup import find_dataset, prepare_process
from utils.errors import UserError, run

KNOWN = (3, 5, 8)  # of ten classes
STILL = 60  # frames for which a body only stands
NEVER_ASKS = "7"
Distance = Callable[[Tensor, Tensor, Tensor], Tensor]  # gallery (n, D), its labels (n,), clips (N, D) -> (N,)


def before(gallery: Tensor, labels: Tensor, clips: Tensor) -> Tensor:
    """What `engine.novelty` did until 2026-11-27: every n-th of a class, 20 of them, angles seen from zero."""
    chosen = []
    for label in labels.unique():
        own = torch.nonzero(labels == label)[:, 0]
        chosen.append(own[torch.linspace(0, len(own) - 1, min(20, len(own))).round().long()])
    return cosine_distance(clips, gallery[torch.cat(chosen)])


def now(gallery: Tensor, labels: Tensor, clips: Tensor) -> Tensor:
    return nearest_distance(clips, gallery[choose_gallery(labels.numpy(), gallery_size(gallery.shape[1]))])


def from_zero(gallery: Tensor, labels: Tensor, clips: Tensor) -> Tensor:
    return cosine_distance(clips, gallery)


def from_mean(gallery: Tensor, labels: Tensor, clips: Tensor) -> Tensor:
    centre = gallery.mean(dim=0)
    return cosine_distance(clips - centre, gallery - centre)


BEFORE, NOW = "nearest of 20 a class, cosine from zero (before)", "nearest of up to 50 a class, both cosines (now)"
DISTANCES: dict[str, Distance] = {
    BEFORE: before,
    NOW: now,
    "nearest of all, cosine from zero": from_zero,
    "nearest of all, cosine from the mean": from_mean,
}


@dataclass(frozen=True)
class Split:
    """features, standing (N, D): of the clips, and of their first frames held for two seconds; labels, subjects (N,)."""

    features: Tensor
    standing: Tensor
    labels: Tensor
    subjects: np.ndarray


def read(args) -> dict[str, Split]:
    """Features by split."""
    source, found = EncoderSource(args.pretrained, None, {}), {}
    dataset = source.fit(find_dataset(args.data_root, args.dataset, "cross_subject", ("train", "val")))
    loaded = source.load(dataset, seed=0)
    for split in ("train", "val") if args.test else ("train",):
        scale = loaded.encoder.config.scale_by
        views = open_views(dataset, split, loaded.stream, torch.device("cpu"), torch.float32, "memory", None, scale)
        subjects = subjects_of(views.clips.names)
        if subjects is None:
            raise UserError(f"{args.dataset}: the names of its clips do not say the subjects, who are to be held out")
        clips, N = views.clips, len(views.clips)
        held = clips.frames[clips.offsets].repeat_interleave(STILL, dim=0)
        standing = replace(
            clips, frames=held, offsets=torch.arange(N) * STILL, num_frame=torch.full((N,), STILL), labels=clips.labels
        )
        features = [clip_features(loaded.encoder, v) for v in (views, replace(views, clips=standing))]
        found[split] = Split(*features, clips.labels, np.asarray(subjects))
    return found


def held_out(found: dict[str, Split], known: np.ndarray, measure: Distance) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Of each subject who is held out: distances of known clips, of unknown ones, and of those who only stand."""
    train, asked = found["train"], found.get("val", found["train"])
    of_known, answers = np.isin(train.labels, known), []
    for subject in np.unique(asked.subjects):
        if asked is train and str(subject).lstrip("0") == NEVER_ASKS:
            continue
        own, gallery = asked.subjects == subject, of_known & (train.subjects != subject)
        clips = torch.cat([asked.features[own], asked.standing[own]])
        moving, standing = measure(train.features[gallery], train.labels[gallery], clips).chunk(2)
        is_known = torch.from_numpy(np.isin(asked.labels[own], known))
        answers.append((moving[is_known], moving[~is_known], standing))
    return answers


def judged(answers: list[tuple[Tensor, Tensor, Tensor]]) -> np.ndarray:
    """Shares of known clips kept, of unknown ones and of standing bodies caught; each subject judged by the threshold of the
    others."""
    shares = []
    for i, (known, unknown, standing) in enumerate(answers):
        others = torch.cat([of_known for j, (of_known, *_) in enumerate(answers) if j != i])
        threshold = torch.quantile(others, 1 - SHARE)
        shares.append([float((d > threshold).double().mean()) for d in (known, unknown, standing)])
    return np.abs(np.mean(shares, axis=0) - [1, 0, 0])


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.novelty", description=__doc__.splitlines()[0])
    parser.add_argument("--pretrained", default="ui_prmd", help="checkpoint, or the name of shipped weights")
    parser.add_argument("--data-root", default="data", help="folder of all data sets")
    parser.add_argument("--dataset", default="ui_prmd", help="ten classes, with subjects in the clips' names")
    parser.add_argument("--choices", type=int, default=8, help="how often known classes are drawn")
    parser.add_argument("--seed", type=int, default=0, help="draws them")
    parser.add_argument("--test", action="store_true", help="the distances before and now, on the test subjects")
    args = parser.parse_args(argv)
    prepare_process(None)
    found = read(args)
    classes = int(found["train"].labels.max()) + 1
    print("known clips kept / unknown ones caught ± deviation over the choices / standing bodies caught, %\n")
    print(f"| distance | {' | '.join(f'{k} of {classes} known' for k in KNOWN)} |\n|---|{'---|' * len(KNOWN)}")
    for name in (BEFORE, NOW) if args.test else DISTANCES:
        cells, draw = [], np.random.default_rng(args.seed)
        for number in KNOWN:
            choices = [draw.permutation(classes)[:number] for _ in range(args.choices)]
            shares = np.array([100 * judged(held_out(found, known, DISTANCES[name])) for known in choices])
            kept, caught, standing = shares.mean(axis=0)
            cells.append(f"{kept:.1f} / {caught:.1f} ± {shares[:, 1].std():.1f} / {standing:.1f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    run(main, sys.argv[1:])
