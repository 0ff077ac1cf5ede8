"""Late fusion: the weighted sum of the scores of several runs on the same clips.

A run saves its scores as `scores.npz` (`write_scores`), which is all that fusion needs:

    names    (N,) text, sorted: the clips          scores   (N, K) float32: the class scores before the soft-max
    labels   (N,) int64: the true classes          stream, dataset   text: their source
                                                   data              text: fingerprint of the clips

Runs are matched by clip name, not by position; runs with different clips or labels are refused. For accuracy only the
ratios of the weights matter.

Weights can also be searched. Accuracy on the clips that the weights are chosen on would be too high, so the clips are
divided in halves by a checksum of their names; weights are chosen on the first half and reported on the second. The halves
are the same on every machine; both are test clips, with the same subjects, which a report must mention.
"""

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.features import check_rows
from utils.files import ArrayArchive, atomic_write
from utils.fingerprint import differences, from_text, to_text

SCORES_FILE = "scores.npz"
MAX_COMBINATIONS = 20000


@dataclass(frozen=True)
class Scores:
    """Scores of one run. names (N,) sorted text; labels (N,) int64; scores (N, K) float32; data: fingerprints of the test
    clips by split (utils.fingerprint), {} if unknown; source: the file, for messages."""

    names: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    stream: str = ""
    dataset: str = ""
    data: dict = field(default_factory=dict)
    source: str = ""

    def __len__(self) -> int:
        return len(self.names)


def _sorted(content: Scores) -> Scores:
    """Checks that the parts match and sorts them by name; UserError naming the source."""
    names, where = content.names, content.source or "scores"
    check_rows(where, "scores", names, content.labels, content.scores)
    with np.errstate(over="ignore"):
        scores = content.scores.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(scores).all(1))
    if len(bad):
        raise UserError(f"{where}: the scores of {len(bad)} clips are not finite (first: {names[bad[0]]})")
    order = np.argsort(names, kind="stable")
    names = names[order]
    twice = np.flatnonzero(names[1:] == names[:-1])
    if len(twice):
        raise UserError(f"{where}: {len(twice)} clip names occur twice (first: {names[twice[0]]})")
    return replace(content, names=names, labels=content.labels[order].astype(np.int64), scores=scores[order])


def write_scores(path, names, labels, scores, stream: str, dataset: str, data: dict | None = None) -> None:
    """Saves scores (N, K) of clips `names` with true classes `labels` (N,), sorted by name, completely or not at all. data:
    fingerprints of the test clips by split. UserError when the parts do not match or scores are not finite."""
    content = Scores(np.asarray(names, dtype=np.str_), np.asarray(labels), np.asarray(scores), source=str(path))
    content = _sorted(content)
    arrays = {"names": content.names, "labels": content.labels, "scores": content.scores}
    texts = {"stream": stream, "dataset": dataset, "data": to_text(data or {})}
    with atomic_write(path) as file:
        np.savez_compressed(file, **arrays, **{name: np.str_(text) for name, text in texts.items()})


def read_scores(path) -> Scores:
    """Scores from a run folder (its `scores.npz`) or from such a file, sorted by name. UserError when there is none, the file
    has another format, or its parts do not match."""
    path = Path(path)
    if path.is_dir():
        if not (path / SCORES_FILE).is_file():
            raise UserError(f"{path}: the folder has no {SCORES_FILE}; give the folder of a finished evaluation")
        path = path / SCORES_FILE
    with ArrayArchive(path, together=True, what="scores file") as archive:
        missing = [name for name in ("names", "labels", "scores") if name not in archive]
        if missing:
            raise UserError(f"{path}: not a scores file, it lacks {' and '.join(missing)}")
        texts = {name: str(archive.read(name))[:200] if name in archive else "" for name in ("stream", "dataset")}
        data = from_text(str(archive.read("data")) if "data" in archive else "")
        content = Scores(*map(archive.read, ("names", "labels", "scores")), **texts, data=data, source=str(path))
    return _sorted(content)


def check_same_clips(runs: Sequence[Scores]) -> None:
    """UserError, with the number of differences, unless all runs have the same clips, labels and number of classes and, if the
    files state their fingerprints, the same coordinates."""
    first = runs[0]
    for run in runs[1:]:
        here, there = set(first.names.tolist()), set(run.names.tolist())
        if here != there:
            parts = [
                f"{len(only)} clips only in {which.source} (first: {min(only)})"
                for which, only in ((first, here - there), (run, there - here))
                if only
            ]
            raise UserError(
                f"the runs were evaluated on different clips: {' and '.join(parts)}; fuse runs of the same split"
            )
        if first.scores.shape[1] != run.scores.shape[1]:
            raise UserError(
                f"{first.source} has scores of {first.scores.shape[1]} classes, {run.source} of {run.scores.shape[1]}; "
                "fuse runs of the same data set"
            )
        differ = np.flatnonzero(first.labels != run.labels)
        if len(differ):
            i = differ[0]
            raise UserError(
                f"{first.source} and {run.source} disagree about the class of {len(differ)} of {len(first)} clips "
                f"(first: {first.names[i]}, {first.labels[i]} and {run.labels[i]}); fuse runs of the same preparation"
            )
        if found := differences(first.data, run.data):
            raise UserError(
                f"{first.source} and {run.source} were evaluated on different test clips with the same names: "
                f"{'; '.join(found)}; fuse runs of the same preparation"
            )


def fuse(runs: Sequence[Scores], weights: Sequence[float]) -> np.ndarray:
    """Weighted sum of the runs' scores, float64 (N, K), in the order of the sorted names. UserError when the runs differ in
    clips or labels, or the weights are invalid."""
    check_same_clips(runs)
    check_weights(weights, len(runs))
    return sum(weight * run.scores.astype(np.float64) for weight, run in zip(weights, runs, strict=True))


def check_weights(weights: Sequence[float], runs: int) -> None:
    """UserError unless there is one weight per run, all are finite and at least 0, and one is above 0."""
    text = " ".join(f"{weight:g}" for weight in weights)
    if len(weights) != runs:
        raise UserError(f"--weights {text}: {len(weights)} weights for {runs} runs; give one per run, in their order")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
        raise UserError(f"--weights {text}: expected numbers of 0 or more, at least one above 0")


def first_half(names: Sequence[str]) -> np.ndarray:
    """True for the clips on which weights are chosen, (N,): the SHA-256 of the name begins with an even byte. It depends only
    on the name, so it is the same for every run, order and machine."""
    return np.array([hashlib.sha256(str(name).encode()).digest()[0] % 2 == 0 for name in names], dtype=bool)


def weight_grid(runs: int, steps: int) -> list[tuple[float, ...]]:
    """All weights of `runs` runs that are multiples of 1 / steps and sum to 1, the most equal first. UserError when there are
    too many."""
    count = math.comb(steps + runs - 1, runs - 1)
    if count > MAX_COMBINATIONS:
        raise UserError(
            f"a search over {runs} runs in steps of 1/{steps} would try {count} combinations, more than "
            f"{MAX_COMBINATIONS}; give fewer --search-steps or fewer runs"
        )
    grid = []
    for bars in itertools.combinations(range(steps + runs - 1), runs - 1):
        edges = (-1, *bars, steps + runs - 1)
        grid.append(tuple(b - a - 1 for a, b in itertools.pairwise(edges)))
    grid.sort(key=lambda parts: (sum(part * part for part in parts), tuple(-part for part in parts)))
    return [tuple(part / steps for part in parts) for parts in grid]


@dataclass(frozen=True)
class Search:
    """Result of a search. weights; chosen_accuracy, reported_accuracy: on the half for choosing and on the other half;
    chosen_clips, reported_clips: their sizes; tried: number of combinations; reported (N,): True for the other half."""

    weights: tuple[float, ...]
    chosen_accuracy: float
    reported_accuracy: float
    chosen_clips: int
    reported_clips: int
    tried: int
    reported: np.ndarray


def search_weights(runs: Sequence[Scores], steps: int = 10) -> Search:
    """Chooses weights by accuracy on `first_half` of the clips and evaluates them on the other half. Ties go to the most equal
    weights. UserError when the runs differ, the grid is too large or a half is empty."""
    check_same_clips(runs)
    if len(runs) < 2 or steps < 1:
        raise UserError(f"a search needs 2 runs or more and 1 step or more, found {len(runs)} and {steps}")
    labels, half = runs[0].labels, first_half(runs[0].names)
    if half.all() or not half.any():
        raise UserError(f"{len(half)} clips are too few to choose weights on one half and report on the other")
    stacked = np.stack([run.scores[half] for run in runs]).astype(np.float64)
    grid = weight_grid(len(runs), steps)
    right = [int((np.tensordot(weights, stacked, 1).argmax(1) == labels[half]).sum()) for weights in grid]
    best = int(np.argmax(right))  # the first maximum; the grid begins with the most equal weights
    rest = fuse(runs, grid[best])[~half].argmax(1) == labels[~half]
    return Search(
        weights=grid[best],
        chosen_accuracy=right[best] / int(half.sum()),
        reported_accuracy=float(rest.mean()),
        chosen_clips=int(half.sum()),
        reported_clips=int((~half).sum()),
        tried=len(grid),
        reported=~half,
    )
