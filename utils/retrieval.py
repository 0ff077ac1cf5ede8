"""Retrieval with frozen features: k-nearest-neighbour classification, recall@k and mean average precision.

Similarity is the cosine, the product of L2-normalised features. The results are exact for galleries of any size: queries
are processed in chunks, and their similarities to the gallery are also computed by chunks, so that only (chunk of queries) x
(gallery) numbers exist at once, within `budget` bytes. Features may be on the CPU (or in a memory map); they are moved to the
device by chunks.

Definitions:

* neighbours are sorted by decreasing similarity; ties by index in the gallery (lower first);
* k-NN: majority vote of the k nearest; of classes with equal votes the one whose nearest neighbour is nearest;
* recall@k: share of queries with at least one item of their class among the k nearest;
* average precision: the mean, over all gallery items of the query's class, of the precision at the item's rank in the
  whole sorted gallery; mAP is its mean over the queries that have such items (the others are counted in `without_match`;
  they count as wrong for k-NN and as missed for recall).

Products are computed in full float32 (no TF32), whatever precision is set for training.
"""

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from utils.errors import UserError

DEFAULT_BUDGET = 256 * 2**20
_BYTES_PER_PAIR = 56  # similarity, its sorted copy, int64 order and labels, matches, counts; measured with a margin
_BYTES_UNRANKED = 24  # the same when only the nearest are needed: similarity, matches, counts
_MAX_CHUNK = 4096


@dataclass(frozen=True)
class RetrievalResult:
    """accuracy {k: share of queries that k-NN classifies correctly}; recall {k: share}; mean_average_precision: share, None if
    not computed; predicted {k: int64 (Q,)}; without_match: number of queries whose class is not in the gallery."""

    accuracy: dict[int, float]
    recall: dict[int, float]
    mean_average_precision: float | None
    predicted: dict[int, torch.Tensor]
    without_match: int
    queries: int


@contextlib.contextmanager
def _full_precision():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _unit(features: torch.Tensor, device) -> torch.Tensor:
    """L2-normalised float32 rows on the device; a row of zeros stays zero (similarity 0 to all)."""
    return F.normalize(features.to(device=device, dtype=torch.float32), dim=1)


def _inverse_norms(gallery: torch.Tensor, chunk: int, device) -> torch.Tensor:
    """1 / norm of each item (G,), on the device; a large number for a row of zeros, whose products are 0."""
    norms = [part.to(device=device, dtype=torch.float32).norm(dim=1) for part in gallery.split(chunk)]
    return torch.cat(norms).clamp_min(1e-12).reciprocal()


def _similarity(queries: torch.Tensor, gallery: torch.Tensor, scale: torch.Tensor, chunk: int, device) -> torch.Tensor:
    """Cosines (q, G) of normalised queries (q, D) with the raw gallery (G, D), computed `chunk` items at a time.

    scale (G,): 1 / norms of the gallery. Scaling the products is cheaper than normalising the gallery again for every chunk
    of queries."""
    out = torch.empty(len(queries), len(gallery), device=device)
    for start in range(0, len(gallery), chunk):
        part = gallery[start : start + chunk].to(device=device, dtype=torch.float32)
        torch.mul(queries @ part.T, scale[start : start + chunk], out=out[:, start : start + chunk])
    return out


def nearest(similarity: torch.Tensor, k: int) -> torch.Tensor:
    """Gallery indices of the k most similar items, most similar first: (q, G) -> int64 (q, k).

    Ties go to the lower index, also at the k-th rank, which torch.topk does not guarantee."""
    kth = similarity.topk(k, dim=1).values[:, -1:]
    above, level = similarity > kth, similarity == kth
    open_places = k - above.sum(1, keepdim=True)
    chosen = above | (level & (level.cumsum(1, dtype=torch.int32) <= open_places))
    places = chosen.nonzero()[:, 1].view(-1, k)
    order = similarity.gather(1, places).sort(dim=1, descending=True, stable=True).indices
    return places.gather(1, order)


def vote(neighbour_labels: torch.Tensor) -> torch.Tensor:
    """Majority class of each row (q, k), nearest first -> (q,); of classes with equal votes the first one in the row."""
    k = neighbour_labels.shape[1]
    votes = torch.stack([(neighbour_labels == neighbour_labels[:, j : j + 1]).sum(1) for j in range(k)], dim=1)
    place = torch.arange(k, device=votes.device)
    best = (votes * k - place).argmax(1, keepdim=True)  # all values differ, so arg-max has no ties
    return neighbour_labels.gather(1, best)[:, 0]


def average_precision(relevant: torch.Tensor) -> torch.Tensor:
    """Average precision of ranked relevance (q, G) bool -> float64 (q,); NaN for a row without a relevant item."""
    ranks = torch.arange(1, relevant.shape[1] + 1, device=relevant.device)
    precision = relevant.cumsum(1, dtype=torch.int32) / ranks
    return (precision * relevant).sum(1, dtype=torch.float64) / relevant.sum(1)


def _check(queries, query_labels, gallery, gallery_labels, ks) -> None:
    for what, features, labels in (("query", queries, query_labels), ("gallery", gallery, gallery_labels)):
        if features.ndim != 2 or labels.shape != features.shape[:1]:
            raise ValueError(
                f"expected {what} features (N, D) and labels (N,), found {tuple(features.shape)}, {tuple(labels.shape)}"
            )
        if not len(features):
            raise UserError(f"the {what} split has no clips; expected at least one")
    if queries.shape[1] != gallery.shape[1]:
        raise UserError(
            f"query features have {queries.shape[1]} dimensions, gallery features {gallery.shape[1]}; "
            "take both from the same encoder"
        )
    for k in ks:
        if not 1 <= k <= len(gallery):
            raise UserError(
                f"k = {k} neighbours were requested, but the gallery has {len(gallery)} clips; "
                f"give a k from 1 to {len(gallery)}"
            )


def _check_finite(features: torch.Tensor, what: str, chunk: int = 8192) -> None:
    for start in range(0, len(features), chunk):
        if not torch.isfinite(features[start : start + chunk]).all():
            raise UserError(
                f"the {what} features are not finite, so their encoder has diverged; take another checkpoint"
            )


def retrieve(
    queries: torch.Tensor,
    query_labels: torch.Tensor,
    gallery: torch.Tensor,
    gallery_labels: torch.Tensor,
    ks: Iterable[int] = (1,),
    recall_ks: Iterable[int] = (1, 5, 10),
    mean_average_precision: bool = True,
    device: torch.device | str | None = None,
    budget: int = DEFAULT_BUDGET,
    progress: Callable = lambda steps: steps,
) -> RetrievalResult:
    """Classifies queries (Q, D) by a gallery (G, D), labels (Q,) and (G,) int64, and measures their ranking.

    ks: numbers of neighbours that vote (usually 1); recall_ks: cut-offs of recall; mean_average_precision: also sort the
    whole gallery for each query. device: for the products, by default that of the queries. budget: approximate bytes of
    working memory beside the features (at least one query at a time). progress: wraps the iterable of chunks, e.g. tqdm.

    UserError for k above the size of the gallery, an empty split, and features that differ in width or are not finite."""
    ks, recall_ks = tuple(ks), tuple(recall_ks)
    _check(queries, query_labels, gallery, gallery_labels, ks + recall_ks)
    _check_finite(queries, "query")
    _check_finite(gallery, "gallery")
    device = torch.device(device) if device is not None else queries.device
    gallery_labels, query_labels = gallery_labels.to(device), query_labels.cpu()
    pair = _BYTES_PER_PAIR if mean_average_precision else _BYTES_UNRANKED
    query_chunk = max(1, min(_MAX_CHUNK, budget // (pair * len(gallery))))
    gallery_chunk = max(1, min(_MAX_CHUNK, budget // (8 * gallery.shape[1])))
    most = max(ks + recall_ks, default=1)

    predicted = {k: [] for k in ks}
    found = dict.fromkeys(recall_ks, 0)
    precisions = []
    with _full_precision():
        scale = _inverse_norms(gallery, gallery_chunk, device)
        for start in progress(range(0, len(queries), query_chunk)):
            labels = query_labels[start : start + query_chunk].to(device)
            chunk = _unit(queries[start : start + query_chunk], device)
            similarity = _similarity(chunk, gallery, scale, gallery_chunk, device)
            neighbours = gallery_labels[nearest(similarity, most)]
            for k in ks:
                predicted[k].append(vote(neighbours[:, :k]).cpu())
            for k in recall_ks:
                found[k] += int((neighbours[:, :k] == labels[:, None]).any(1).sum())
            if mean_average_precision:
                order = similarity.sort(dim=1, descending=True, stable=True).indices
                precisions.append(average_precision(gallery_labels[order] == labels[:, None]).cpu())
    predicted = {k: torch.cat(parts) for k, parts in predicted.items()}
    mean = None
    if mean_average_precision:
        precisions = torch.cat(precisions)
        mean = float(precisions.nanmean()) if not precisions.isnan().all() else 0.0
    return RetrievalResult(
        accuracy={k: float((predicted[k] == query_labels).double().mean()) for k in ks},
        recall={k: found[k] / len(queries) for k in recall_ks},
        mean_average_precision=mean,
        predicted=predicted,
        without_match=int((~torch.isin(query_labels, gallery_labels.cpu())).sum()),
        queries=len(queries),
    )
