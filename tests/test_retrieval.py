"""utils.retrieval against scikit-learn and plain Python."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from utils import retrieval
from utils.errors import UserError
from utils.retrieval import average_precision, nearest, retrieve, vote


def make(seed, queries=60, gallery=90, dims=16, classes=7, noise=2.5):
    """Features around class centres: neither trivial nor chance."""
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((classes, dims))
    query_labels, gallery_labels = rng.integers(0, classes, queries), rng.integers(0, classes, gallery)
    both = [
        torch.tensor((centre[labels] + noise * rng.standard_normal((len(labels), dims))).astype(np.float32))
        for labels in (query_labels, gallery_labels)
    ]
    return both[0], torch.tensor(query_labels), both[1], torch.tensor(gallery_labels)


def slow_ranking(query, gallery):
    """Places of the gallery by falling cosine, equal ones by place."""

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    return sorted(range(len(gallery)), key=lambda i: (-cosine(query, gallery[i]), i))


def slow_vote(labels):
    """Most votes; among equals, the class that comes first."""
    return max(labels, key=lambda label: (labels.count(label), -labels.index(label)))


def slow_average_precision(relevant):
    hits, total = 0, 0.0
    for rank, right in enumerate(relevant, 1):
        if right:
            hits += 1
            total += hits / rank
    return total / hits


@pytest.mark.parametrize("seed", range(3))
def test_one_nearest_neighbour_equals_scikit_learn(seed):
    queries, query_labels, gallery, gallery_labels = make(seed)
    model = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(gallery.numpy(), gallery_labels.numpy())
    result = retrieve(queries, query_labels, gallery, gallery_labels, ks=(1,))
    assert np.array_equal(result.predicted[1].numpy(), model.predict(queries.numpy()))
    assert result.accuracy[1] == pytest.approx(model.score(queries.numpy(), query_labels.numpy()))
    assert 0.2 < result.accuracy[1] < 1  # else the comparison would say little


@pytest.mark.parametrize("k", [3, 5, 20])
def test_k_neighbours_equal_scikit_learn_where_no_vote_is_tied(k):
    queries, query_labels, gallery, gallery_labels = make(5, queries=200)
    model = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(gallery.numpy(), gallery_labels.numpy())
    votes = np.sort(model.predict_proba(queries.numpy()), axis=1)
    clear = votes[:, -1] > votes[:, -2]
    predicted = retrieve(queries, query_labels, gallery, gallery_labels, ks=(k,)).predicted[k].numpy()
    assert clear.sum() > 50
    assert np.array_equal(predicted[clear], model.predict(queries.numpy())[clear])


@pytest.mark.parametrize("seed", range(2))
def test_everything_equals_the_slow_twin(seed):
    queries, query_labels, gallery, gallery_labels = make(seed, queries=25, gallery=40)
    result = retrieve(queries, query_labels, gallery, gallery_labels, ks=(1, 2, 5, 40), recall_ks=(1, 4))
    classes = gallery_labels.tolist()
    rankings = [[classes[i] for i in slow_ranking(q, gallery.tolist())] for q in queries.tolist()]
    for k in (1, 2, 5, 40):
        assert result.predicted[k].tolist() == [slow_vote(ranking[:k]) for ranking in rankings]
    labels = query_labels.tolist()
    for k in (1, 4):
        share = sum(label in ranking[:k] for label, ranking in zip(labels, rankings, strict=True)) / len(labels)
        assert result.recall[k] == pytest.approx(share)
    precisions = [
        slow_average_precision([c == label for c in ranking]) for label, ranking in zip(labels, rankings, strict=True)
    ]
    assert result.mean_average_precision == pytest.approx(np.mean(precisions), abs=1e-6)


def test_chunks_do_not_change_the_answer_and_bound_the_pairs(monkeypatch):
    data = make(1, queries=33, gallery=50, dims=64)
    whole = retrieve(*data, ks=(1, 5))
    shapes = []
    original = retrieval._similarity

    def watched(queries, gallery, scale, chunk, device):
        shapes.append((len(queries), chunk))
        return original(queries, gallery, scale, chunk, device)

    monkeypatch.setattr(retrieval, "_similarity", watched)
    budget = 12000
    small = retrieve(*data, ks=(1, 5), budget=budget)
    assert len(shapes) > 3 and shapes[0][1] < 50  # several chunks of queries and of the gallery
    assert all(queries * 50 * retrieval._BYTES_PER_PAIR <= budget for queries, _ in shapes)
    assert small.accuracy == whole.accuracy and small.recall == whole.recall
    assert small.mean_average_precision == pytest.approx(whole.mean_average_precision, abs=1e-9)
    assert all(torch.equal(small.predicted[k], whole.predicted[k]) for k in (1, 5))


@pytest.mark.slow
def test_peak_memory_stays_within_the_budget():
    """500 x 40000 pairs in one go take about 1 GB. The budget is 64 MB; freed blocks that the allocator keeps come on
    top, so the process may grow by thrice that."""
    program = """
import resource, torch
from utils.retrieval import retrieve
torch.manual_seed(0)
gallery, queries = torch.randn(40000, 32), torch.randn(500, 32)
labels = torch.randint(60, (40000,))
retrieve(queries[:2], labels[:2], gallery, labels, budget=2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
retrieve(queries, labels[:500], gallery, labels, ks=(1, 5), budget=64 * 2**20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    grown = int(done.stdout)
    assert grown < 3 * 64 * 1024  # kilobytes


@given(st.lists(st.lists(st.integers(0, 3), min_size=8, max_size=8), min_size=1, max_size=5), st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_nearest_takes_ties_by_place(rows, k):
    got = nearest(torch.tensor(rows, dtype=torch.float32), k).tolist()
    assert got == [sorted(range(8), key=lambda i: (-row[i], i))[:k] for row in rows]


@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=5))
@settings(max_examples=100, deadline=None)
def test_vote_ties_go_to_the_class_of_the_nearest(rows):
    assert vote(torch.tensor(rows)).tolist() == [slow_vote(row) for row in rows]


def test_average_precision_by_hand():
    relevant = torch.tensor([[True, False, True, False], [False, False, False, True], [True, True, True, True]])
    assert average_precision(relevant).tolist() == pytest.approx([(1 + 2 / 3) / 2, 0.25, 1])


def test_query_class_missing_from_the_gallery():
    gallery = torch.eye(3)
    result = retrieve(torch.eye(3), torch.tensor([0, 1, 9]), gallery, torch.tensor([0, 1, 2]), recall_ks=(1, 3))
    assert result.without_match == 1
    assert result.mean_average_precision == 1.0  # over the two queries that can be answered
    assert result.accuracy[1] == pytest.approx(2 / 3) and result.recall[3] == pytest.approx(2 / 3)


def test_scale_and_magnitude_do_not_matter():
    queries, query_labels, gallery, gallery_labels = make(2)
    scaled = gallery * torch.rand(len(gallery), 1).add(0.1).mul(100)
    plain = retrieve(queries, query_labels, gallery, gallery_labels, ks=(1, 5))
    other = retrieve(queries, query_labels, scaled, gallery_labels, ks=(1, 5))
    assert plain.accuracy == other.accuracy
    assert plain.mean_average_precision == pytest.approx(other.mean_average_precision, abs=1e-6)


def test_reduced_precision_of_training_is_put_aside_and_back():
    torch.set_float32_matmul_precision("high")
    try:
        seen = []
        retrieve(*make(0), recall_ks=(1,), progress=lambda s: seen.append(torch.get_float32_matmul_precision()) or s)
        assert seen == ["highest"] and torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_bad_input_is_refused_in_a_sentence():
    queries, query_labels, gallery, gallery_labels = make(0)
    with pytest.raises(UserError, match="k = 91 .* has 90 clips"):
        retrieve(queries, query_labels, gallery, gallery_labels, ks=(91,))
    with pytest.raises(UserError, match="k = 0"):
        retrieve(queries, query_labels, gallery, gallery_labels, ks=(0,))
    with pytest.raises(UserError, match="dimensions"):
        retrieve(queries[:, :5], query_labels, gallery, gallery_labels)
    with pytest.raises(UserError, match="no clip"):
        retrieve(queries[:0], query_labels[:0], gallery, gallery_labels)
    with pytest.raises(ValueError):
        retrieve(queries, query_labels[:-1], gallery, gallery_labels)
    gallery[3, 2] = math.nan
    with pytest.raises(UserError, match="gallery features are not finite"):
        retrieve(queries, query_labels, gallery, gallery_labels)
