"""utils.metrics against plain Python."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from utils.errors import UserError
from utils.metrics import confusion_matrix, per_class_accuracy, summarise, summarise_runs, topk_accuracy


def slow_topk(scores, labels, k):
    right = 0
    for row, label in zip(scores, labels, strict=True):
        ranked = sorted(range(len(row)), key=lambda c: (-row[c], c))
        right += label in ranked[:k]
    return right / len(labels)


@st.composite
def scored(draw):
    samples, classes = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    few = st.integers(-2, 2)  # few values, so that ties are common
    scores = draw(st.lists(st.lists(few, min_size=classes, max_size=classes), min_size=samples, max_size=samples))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=samples, max_size=samples))
    return scores, labels


@given(scored(), st.integers(1, 7))
@settings(max_examples=100, deadline=None)
def test_topk_equals_a_sort_with_ties(data, k):
    scores, labels = data
    got = topk_accuracy(torch.tensor(scores, dtype=torch.float32), torch.tensor(labels), (k,))[k]
    assert got == pytest.approx(slow_topk(scores, labels, k), abs=1e-12)


def test_confusion_and_shares_by_class_against_a_slow_twin():
    rng = np.random.default_rng(0)
    scores, labels = torch.tensor(rng.standard_normal((101, 7)).round(1)), torch.tensor(rng.integers(0, 7, 101))
    slow = np.zeros((7, 7), dtype=int)
    for row, label in zip(scores.numpy(), labels.numpy(), strict=True):
        slow[label, row.argmax()] += 1
    confusion = confusion_matrix(scores.argmax(1), labels, 7)
    assert np.array_equal(confusion.numpy(), slow)
    assert topk_accuracy(scores, labels, (1,))[1] == pytest.approx(np.trace(slow) / 101)
    assert per_class_accuracy(confusion) == pytest.approx([slow[c, c] / slow[c].sum() for c in range(7)])


def test_an_absent_class_is_nan():
    share = per_class_accuracy(confusion_matrix(torch.tensor([0, 2, 0]), torch.tensor([0, 2, 2]), 3))
    assert share[0] == 1 and math.isnan(share[1]) and share[2] == 0.5
    assert per_class_accuracy(torch.tensor([[1, 3], [0, 2]])) == [0.25, 1.0]


def test_confusion_rows_are_true_classes():
    counts = confusion_matrix(predicted=torch.tensor([1, 1, 0]), labels=torch.tensor([0, 0, 1]), num_classes=2)
    assert counts.tolist() == [[0, 2], [1, 0]]


def test_scores_that_are_not_finite_are_refused_not_counted_as_right():
    for bad in (math.nan, math.inf):
        scores = torch.zeros(2, 3)
        scores[1, 0] = bad
        with pytest.raises(UserError, match="not finite"):
            topk_accuracy(scores, torch.tensor([0, 0]))


@pytest.mark.parametrize(
    "scores, labels",
    [
        (torch.zeros(2, 3), torch.tensor([0, 3])),
        (torch.zeros(2, 3), torch.tensor([0, -1])),
        (torch.zeros(2, 3), torch.tensor([0])),
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)),
    ],
)
def test_wrong_shapes_and_labels_are_refused(scores, labels):
    with pytest.raises(ValueError):
        topk_accuracy(scores, labels)


def test_summary_over_seeds():
    values = [0.83, 0.85, 0.81]
    summary = summarise(values)
    assert summary.mean == pytest.approx(np.mean(values)) and summary.std == pytest.approx(np.std(values, ddof=1))
    assert summary.percent() == "83.0 ± 2.0"
    assert summarise([0.839]).percent() == "83.9" and summarise([0.839]).std is None
    with pytest.raises(ValueError):
        summarise([])


def test_summaries_of_runs_need_the_same_figures():
    table = summarise_runs([{"top1": 0.5, "knn": 0.2}, {"top1": 0.7, "knn": 0.2}])
    assert table["top1"].mean == pytest.approx(0.6) and table["knn"].std == 0
    with pytest.raises(ValueError):
        summarise_runs([{"top1": 0.5}, {"top1": 0.5, "knn": 0.1}])


# -- edges, against scikit-learn or by hand ---------------------------------------------------------------------------------

EDGES = {  # scores (N, K), labels (N,)
    "one class": ([[0.3], [0.1], [-2.0]], [0, 0, 0]),
    "fewer classes than k": ([[0.3, 0.7, 0.0], [0.9, 0.1, 0.2]], [0, 1]),
    "one clip, right": ([[0.1, 0.5, 0.2, 0.0, 0.3, 0.4]], [1]),
    "one clip, wrong": ([[0.1, 0.5, 0.2, 0.0, 0.3, 0.4]], [3]),
    "a class without test clips": ([[0.9, 0.0, 0.1], [0.1, 0.0, 0.9], [0.0, 0.9, 0.1]], [0, 2, 2]),
    "all scores equal": ([[0.5] * 7] * 4, [0, 4, 5, 6]),
    "two equal scores": ([[0.5, 0.5, 0.1], [0.2, 0.7, 0.7]], [1, 1]),
}
BY_HAND = {  # top-1, top-5: scikit-learn breaks ties from the other end
    "all scores equal": (0.25, 0.5),
    "two equal scores": (0.5, 1.0),
}


@pytest.mark.parametrize("name", EDGES)
def test_metrics_at_their_edges(name):
    from sklearn.metrics import accuracy_score, recall_score, top_k_accuracy_score
    from sklearn.metrics import confusion_matrix as their_confusion

    scores, labels = torch.tensor(EDGES[name][0], dtype=torch.float32), torch.tensor(EDGES[name][1])
    classes = scores.shape[1]
    found = topk_accuracy(scores, labels, (1, min(5, classes)))
    predicted = scores.argmax(1).numpy()
    if name in BY_HAND:
        expected = BY_HAND[name]
    else:
        every = range(classes)
        top5 = 1.0 if classes <= 5 else top_k_accuracy_score(labels.numpy(), scores.numpy(), k=5, labels=every)
        expected = accuracy_score(labels, predicted), top5
    assert found[1] == pytest.approx(expected[0]) and found[min(5, classes)] == pytest.approx(expected[1])
    assert all(0 <= share <= 1 for share in found.values())
    if name in BY_HAND:
        return
    confusion = confusion_matrix(torch.from_numpy(predicted), labels, classes)
    assert (confusion.numpy() == their_confusion(labels, predicted, labels=range(classes))).all()
    present = sorted(set(labels.tolist()))
    recall = recall_score(labels, predicted, labels=present, average=None, zero_division=0)
    assert [per_class_accuracy(confusion)[c] for c in present] == pytest.approx(list(recall))
    assert all(math.isnan(share) for c, share in enumerate(per_class_accuracy(confusion)) if c not in present)


def test_an_empty_split_has_no_accuracy():
    with pytest.raises(ValueError, match="at least one sample"):
        topk_accuracy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="at least one value"):
        summarise([])
