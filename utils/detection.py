"""Action detection in untrimmed videos: class probabilities per frame -> segments -> mAP.

Class 0 is background. A segment is a row (class, start, end, score); start and end are frame numbers, both inclusive. The
metrics take the rows of all videos in one array, (video, class, start, end, score), with the video as a number (see
`stack_videos`); the score of a ground-truth row is not used.

Two algorithms for segments, both with published results:

* `released_segments`: the released code's scan of the arg-max classes in steps of 15 frames;
* `threshold_segments`: probabilities smoothed over time, then runs of frames with a low background probability.

Two mean average precisions, which differ in more than the grouping:

* `map_by_action` (mAP_a): per class over all videos; lengths with both ends included; a ground truth is matched once, and a
  proposal is compared only with the one that it overlaps most.
* `map_by_video` (mAP_v, the official PKU-MMD measure): per video over all classes; lengths without the + 1; repeated
  matches of a ground truth count as proposals, but only once as a true positive.

Detections are also written as text (`write_predictions`), in the format of PKU-MMD's label and result files: a file
`<video>.txt` per video with a line `class,start,end,confidence` per segment. Classes count from 1 (background is not
written), start and end are frame numbers. A video without segments has an empty file, which distinguishes it from one that
was not evaluated.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.files import atomic_write

BACKGROUND = 0
SUFFIX = ".txt"  # of detections as text

# `released_segments`: frames, and shares of frames
STEP = 15
MARGIN = 30  # a segment begins or is extended only if this many frames follow
TRIM = 2
SHARE = 0.1
SCORE_DECIMALS = 5

# `threshold_segments`
FILTER_RADIUS = 10
ACTION_THRESHOLD = 0.4


def _checked_probability(probability) -> np.ndarray:
    probability = np.asarray(probability)
    if probability.ndim != 2 or probability.shape[1] < 2:
        raise ValueError(f"frame probabilities must be (T, classes with background first), found {probability.shape}")
    if not np.isfinite(probability).all():
        raise ValueError("frame probabilities must be finite")
    return probability


def _rows(rows, columns: int) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    if rows.size == 0:
        return np.zeros((0, columns))
    if rows.ndim != 2 or rows.shape[1] != columns:
        raise ValueError(f"expected rows of {columns} numbers, found an array of shape {rows.shape}")
    return rows


def released_segments(probability) -> np.ndarray:
    """Segments of one video from class probabilities per frame, as released.

    probability (T, K) -> rows (class, start, end, score), float64 (S, 4), in order of time, start < end.

    A segment starts at frame i, whose arg-max class c is not background. It is extended by 15 frames as long as c occurs in
    more than 10 % of the next 15 frames and at least 30 frames are left; then its end moves back by 2 frames as long as c is
    missing in the last 2. The next segment may start in the frame where one ends. score: mean probability of c, rounded to
    5 decimals."""
    probability = _checked_probability(probability)
    label, frames = probability.argmax(1), len(probability)
    segments, start = [], 0
    while start < frames - STEP:
        end = _reach(label, start)
        if end > start:
            c = label[start]
            score = round(float(probability[start : end + 1, c].mean(dtype=np.float64)), SCORE_DECIMALS)
            segments.append((c, start, end, score))
            start = end
        else:
            start += 1
    return _rows(segments, 4)


def _reach(label: np.ndarray, start: int) -> int:
    """The last frame of the segment that starts at `start`; `start` itself if there is none."""
    c = label[start]

    def share(first, last):  # of frames first+1 .. last
        return (label[first + 1 : last + 1] == c).mean()

    end = start
    if c == BACKGROUND:
        return start
    while end + MARGIN < len(label) and share(end, end + STEP) > SHARE:
        end += STEP
    while end > start and share(end - TRIM, end) < SHARE:
        end -= TRIM
    return end


def mean_filter(probability, radius: int = FILTER_RADIUS) -> np.ndarray:
    """Moving mean over frames t-radius .. t+radius, (T, K) -> float64 (T, K); at the ends over fewer frames."""
    if radius < 0:
        raise ValueError(f"radius must be 0 or more frames, found {radius}")
    probability = _checked_probability(probability)
    frames = len(probability)
    total = np.zeros((frames + 1, probability.shape[1]))
    np.cumsum(probability, axis=0, dtype=np.float64, out=total[1:])
    first = np.maximum(np.arange(frames) - radius, 0)
    stop = np.minimum(np.arange(frames) + radius + 1, frames)
    return (total[stop] - total[first]) / (stop - first)[:, None]


def threshold_segments(probability, threshold: float = ACTION_THRESHOLD, radius: int = FILTER_RADIUS) -> np.ndarray:
    """Segments of one video as runs of frames with a low background probability, (T, K) -> rows (S, 4).

    The probabilities are smoothed (`mean_filter`, not for radius 0); a segment is a maximal run of frames with
    1 - P(background) >= threshold; its class is the action with the highest mean smoothed probability in the run, which is
    its score."""
    smooth = mean_filter(probability, radius)
    action = np.concatenate([[False], 1 - smooth[:, BACKGROUND] >= threshold, [False]]).astype(np.int8)
    change = np.diff(action)
    segments = []
    for start, stop in zip(np.flatnonzero(change == 1), np.flatnonzero(change == -1), strict=True):
        mean = smooth[start:stop].mean(0)
        c = 1 + int(mean[1:].argmax())
        segments.append((c, start, stop - 1, mean[c]))
    return _rows(segments, 4)


def stack_videos(segments_per_video) -> np.ndarray:
    """Rows (video, class, start, end, score) of all videos from one array of rows (class, start, end, score) each."""
    stacked = [np.zeros((0, 5))]
    for video, segments in enumerate(segments_per_video):
        segments = _rows(segments, 4)
        stacked.append(np.column_stack([np.full(len(segments), video), segments]))
    return np.concatenate(stacked)


def _overlap(proposals: np.ndarray, ground: np.ndarray, inclusive: int) -> np.ndarray:
    """Overlap in time of every proposal with every ground truth, (P, G).

    inclusive 1: intersection over union with both ends included. inclusive 0: (min end - max start) / (max end - min
    start), negative for disjoint segments."""
    start_p, end_p = proposals[:, None, 2], proposals[:, None, 3]
    start_g, end_g = ground[None, :, 2], ground[None, :, 3]
    shared = np.minimum(end_p, end_g) - np.maximum(start_p, start_g) + inclusive
    if inclusive:
        shared = np.maximum(shared, 0)
        whole = (end_p - start_p + 1) + (end_g - start_g + 1) - shared
    else:
        whole = np.maximum(end_p, end_g) - np.minimum(start_p, start_g)
    return np.divide(shared, whole, out=np.zeros(np.broadcast(shared, whole).shape), where=whole > 0)


def _claims(proposals, ground, overlap: float, inclusive: int, same: int) -> tuple[np.ndarray, np.ndarray]:
    """Matches of ranked proposals (P, 5) of one group: (claims, hits), boolean (P,).

    A proposal claims the ground truth (G, 5) that it overlaps most among those with the same column `same` (0 video,
    1 class), if the overlap reaches the threshold; the first claim of each ground truth is a hit."""
    overlaps = _overlap(proposals, ground, inclusive)
    overlaps = np.where(proposals[:, None, same] == ground[None, :, same], overlaps, -np.inf)
    best = overlaps.argmax(1)
    claims = overlaps[np.arange(len(proposals)), best] >= overlap
    hits = np.zeros_like(claims)
    hits[np.flatnonzero(claims)[np.unique(best[claims], return_index=True)[1]]] = True
    return claims, hits


def _ranked(proposals: np.ndarray) -> np.ndarray:
    """Sorted by decreasing score; equal scores keep their order."""
    return proposals[np.argsort(-proposals[:, 4], kind="stable")]


def _ap_by_action(proposals, ground, overlap: float) -> float:
    """Area under the interpolated (all points) precision-recall curve of one class."""
    if not len(proposals):
        return 0.0
    _, hits = _claims(_ranked(proposals), ground, overlap, inclusive=1, same=0)
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # best precision at this recall or above
    return float(envelope[hits].sum() / len(ground))  # each hit raises the recall by 1 / G


def _ap_by_video(proposals, ground, overlap: float) -> float:
    """The official PKU-MMD average precision of one video.

    Its interpolation is unusual: the official code shortens the ranked list from its end and uses the precision of the
    whole list and of the rest after each removed claim, that is the point just before a claim instead of the claim. The
    result is at most the usual area (a right proposal ranked before a wrong one gives 0.5, not 1). It is kept because
    published figures are computed in this way."""
    if not len(proposals):
        return 0.0
    claims, hits = _claims(_ranked(proposals), ground, overlap, inclusive=0, same=1)
    found = np.cumsum(hits)
    before = (found - hits) / np.maximum(np.arange(len(hits)), 1)  # precision of the ranks before each proposal
    seen = np.where(claims, before, 0.0)
    seen[-1] = max(seen[-1], found[-1] / len(hits))
    envelope = np.maximum.accumulate(seen[::-1])[::-1]
    return float(envelope[hits].sum() / len(ground))


def _mean_ap(ground, proposals, overlap: float, group: int, average_precision) -> tuple[float, dict[int, float]]:
    ground, proposals = _rows(ground, 5), _rows(proposals, 5)
    if not 0 < overlap <= 1:
        raise ValueError(f"the overlap threshold must be in (0, 1], found {overlap}")
    if not len(ground):
        raise ValueError("there is no ground truth to measure against")
    if not np.isfinite(proposals).all():
        raise ValueError("proposals must be finite")
    each = {
        int(key): average_precision(proposals[proposals[:, group] == key], ground[ground[:, group] == key], overlap)
        for key in np.unique(ground[:, group])
    }
    return float(np.mean(list(each.values()))), each


def map_by_action(ground, proposals, overlap: float) -> tuple[float, dict[int, float]]:
    """mAP_a: (mean, {class: average precision}) over the classes of the ground truth.

    ground, proposals: rows (video, class, start, end, score), ends inclusive. A proposal can only match in its own video.
    overlap: least intersection over union, in frames, of a right proposal, usually 0.5. Values are shares, not percent.
    ValueError for rows of another shape, an empty ground truth or a threshold outside (0, 1]."""
    return _mean_ap(ground, proposals, overlap, 1, _ap_by_action)


def map_by_video(ground, proposals, overlap: float) -> tuple[float, dict[int, float]]:
    """mAP_v: (mean, {video: average precision}) over the videos of the ground truth; PKU-MMD's official measure.

    Arguments as in `map_by_action`; lengths are end - start, without the + 1. All classes of a video are ranked together; a
    proposal can only match its own class."""
    return _mean_ap(ground, proposals, overlap, 0, _ap_by_video)


def detection_table(ground, proposals, overlaps=(0.1, 0.3, 0.5)) -> dict[float, dict[str, float]]:
    """{overlap: {"map_a": share, "map_v": share}} for a report."""
    return {
        float(overlap): {
            "map_a": map_by_action(ground, proposals, overlap)[0],
            "map_v": map_by_video(ground, proposals, overlap)[0],
        }
        for overlap in overlaps
    }


# -- detections as text, in the format of PKU-MMD's own label and result files ----------------------------------------------


def write_video(path, segments) -> None:
    """Writes rows (class, start, end, confidence), (S, 4), as one text file, completely or not at all.

    ValueError for a class below 1, a frame that is not a whole number of 0 or more, an end before its start or
    a confidence that is not finite."""
    segments = np.asarray(segments, dtype=np.float64).reshape(-1, 4)
    for row in segments:
        problem = _problem(*row)
        if problem:
            raise ValueError(f"{path}: segment {row.tolist()}: {problem}")
    with atomic_write(path, "w") as file:
        for label, start, end, confidence in segments:
            file.write(f"{int(label)},{int(start)},{int(end)},{float(confidence)!r}\n")


def write_predictions(folder, videos: Mapping[str, np.ndarray]) -> None:
    """Writes a file for each video. videos: name -> rows (class, start, end, confidence)."""
    folder = Path(folder)
    for name in videos:
        if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise UserError(f"video name {name!r} cannot be a file name; expected a name without slashes")
    folder.mkdir(parents=True, exist_ok=True)
    for name, segments in videos.items():
        write_video(folder / f"{name}{SUFFIX}", segments)


def _problem(label: float, start: float, end: float, confidence: float) -> str | None:
    """Why a segment is invalid, None if it is valid."""
    if not np.isfinite((label, start, end, confidence)).all():
        return "a number is not finite"
    if label != int(label) or start != int(start) or end != int(end):
        return "class, start and end must be whole numbers"
    if label < 1:
        return "classes count from 1"
    if start < 0:
        return "frames count from 0"
    if end < start:
        return "the segment ends before it starts"
    return None
