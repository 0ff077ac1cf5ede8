"""Predictions of each clip, written as a CSV table.

    clip, [true, right,] answer, class_1, probability_1, class_2, probability_2, class_3, probability_3, [distance]

`answer` is class_1, or "none of them" where the distance to the training clips is above the threshold (engine.novelty).
`true` and `right` are present where the true class is known. A spreadsheet, or `grep ,no, predictions.csv`, lists the wrong ones.
"""

import csv
from pathlib import Path

import numpy as np

from engine.novelty import NONE
from utils.files import atomic_write

FILE = "predictions.csv"
BEST = 3  # classes of each clip, the most probable first


def best_classes(probabilities: np.ndarray) -> np.ndarray:
    """The BEST (or all K) classes of each clip (N, b), the most probable first; ties in order of class number."""
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :BEST]


def softmax(scores) -> np.ndarray:
    """Scores (N, K) -> probabilities (N, K), float64."""
    scores = np.asarray(scores, dtype=np.float64)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def write_predictions(path, names, probabilities, classes, labels=None, distances=None, threshold=None) -> list[str]:
    """Writes the table, whole or not at all, and returns the answers.

    names: N; probabilities (N, K); classes: K names; labels (N,): true classes, -1 = not known; distances (N,) with the
    threshold above which a clip is none of the classes."""
    probabilities = np.asarray(probabilities)
    best = best_classes(probabilities)
    answers = [classes[row[0]] for row in best]
    if distances is not None:
        answers = [NONE if d > threshold else answer for d, answer in zip(distances, answers, strict=True)]
    head = ["clip", *(["true", "right"] if labels is not None else []), "answer"]
    for place in range(best.shape[1]):
        head += [f"class_{place + 1}", f"probability_{place + 1}"]
    head += ["distance"] * (distances is not None)
    rows = []
    for i, name in enumerate(names):
        row = [name]
        if labels is not None:
            true = classes[int(labels[i])] if labels[i] >= 0 else ""
            row += [true, ("yes" if true == answers[i] else "no") if true else ""]
        row.append(answers[i])
        for k in best[i]:
            row += [classes[k], f"{probabilities[i, k]:.4f}"]
        rows.append(row + ([f"{distances[i]:.5f}"] if distances is not None else []))
    write_table(path, head, rows)
    return answers


def write_neighbours(path, names, predicted, classes, labels) -> None:
    """Writes the table of a nearest-neighbour search, which has no probabilities. predicted, labels (N,): class numbers."""
    pairs = zip(names, labels, predicted, strict=True)
    rows = [[name, classes[int(t)], "yes" if t == p else "no", classes[int(p)]] for name, t, p in pairs]
    write_table(path, ["clip", "true", "right", "answer"], rows)


def write_table(path, head: list[str], rows) -> None:
    """Writes a CSV file, whole or not at all; makes its folder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "w") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(head)
        table.writerows(rows)
