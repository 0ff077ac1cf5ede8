"""Compares distances for detecting clips of unknown exercises; the distance of `engine.novelty` was chosen by it.

    python -m benchmarks.novelty --pretrained ui_prmd           # every distance, on training subjects only
    python -m benchmarks.novelty --pretrained ui_prmd --test    # the old and the chosen one, on test subjects: look once

Some of the ten exercises, sampled several times, are known; the others are "none of them". One subject at a time is held out: the
gallery has the known clips of the other training subjects, and every clip of the held-out subject gets its distance to it. The
threshold is exceeded by 5 % of the known clips of the *other* held-out subjects, so that neither gallery nor threshold depends on
the tested person. With --test the gallery is that of all training subjects, and the held-out subjects are those of the test split.
The encoder has seen all ten exercises without labels, as a user's encoder has usually seen more than the classes of a classifier.

Six other distances were tried; benchmarks/LOG.md has their figures and the commit that has their code.

Subject 7 is never held out on the training split (see `benchmarks.recipe_split`): he raises the left arm where the others raise
the right, so that without him in the gallery all his clips are unknown.
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
STILL = 60  # frames of a standing body
NEVER_ASKS = "7"
Distance = Callable[[Tensor, Tensor, Tensor], Tensor]  # gallery (n, D), its labels (n,), clips (N, D) -> (N,)


def before(gallery: Tensor, labels: Tensor, clips: Tensor) -> Tensor:
    """The distance of `engine.novelty` until 2026-11-27: 20 evenly spaced clips of each class, cosine without the mean."""
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
    """features, standing (N, D): of the clips, and of their first frames repeated for two seconds; labels, subjects (N,)."""

    features: Tensor
    standing: Tensor
    labels: Tensor
    subjects: np.ndarray


def read(args) -> dict[str, Split]:
    """{split: features}, with val for --test only."""
    source, found = EncoderSource(args.pretrained, None, {}), {}
    dataset = source.fit(find_dataset(args.data_root, args.dataset, "cross_subject", ("train", "val")))
    loaded = source.load(dataset, seed=0)
    for split in ("train", "val") if args.test else ("train",):
        scale = loaded.encoder.config.scale_by
        views = open_views(dataset, split, loaded.stream, torch.device("cpu"), torch.float32, "memory", None, scale)
        subjects = subjects_of(views.clips.names)
        if subjects is None:
            raise UserError(f"{args.dataset}: its clip names do not contain subjects, which are to be held out")
        clips, N = views.clips, len(views.clips)
        held = clips.frames[clips.offsets].repeat_interleave(STILL, dim=0)
        standing = replace(
            clips, frames=held, offsets=torch.arange(N) * STILL, num_frame=torch.full((N,), STILL), labels=clips.labels
        )
        features = [clip_features(loaded.encoder, v) for v in (views, replace(views, clips=standing))]
        found[split] = Split(*features, clips.labels, np.asarray(subjects))
    return found


def held_out(found: dict[str, Split], known: np.ndarray, measure: Distance) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each held-out subject the distances of known clips, of unknown clips, and of standing bodies."""
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
    """Shares of known clips accepted, and of unknown clips and standing bodies rejected, by the threshold from the other
    subjects."""
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
    parser.add_argument("--choices", type=int, default=8, help="number of samples of known classes")
    parser.add_argument("--seed", type=int, default=0, help="samples them")
    parser.add_argument("--test", action="store_true", help="the old and the chosen distance, on the test subjects")
    args = parser.parse_args(argv)
    prepare_process(None)
    found = read(args)
    classes = int(found["train"].labels.max()) + 1
    print("known clips accepted / unknown clips rejected ± deviation over the samples / standing bodies rejected, %\n")
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
