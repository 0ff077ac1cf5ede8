"""Repairs of a clip, points (T, M, V, C) in and out, each kind counted.

In this order:

1. joints with a low score, at zero or not finite count as not seen;
2. persons are tracked from frame to frame, and those that are in most frames are kept;
3. frames without a person at both ends are cut off;
4. a gap of up to `max_gap` frames without a person is interpolated linearly; at a longer one the clip is cut, and its
   longest piece kept;
5. gaps of single joints are interpolated in the same way; where they are longer, the joint stays zero, which the stored
   format reads as not seen;
6. the clip is resampled to another frame rate, if wanted.

A joint at zero in every frame is not a gap but the origin of root-centred poses. It is moved by a micrometre, since exactly
zero means not seen.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from data_gen.poses.record import BadPoses, seen_joints, zero_joints

NUDGE = 1e-6  # metres or pixels, by which a seen joint at the origin is moved off zero
FARTHEST = 1e7  # largest coordinate, in any unit: 10 km in millimetres
_LEAST_JOINTS = 0.2  # a detection with a smaller share of the joints is dropped
_REACH = (0.3, 0.1, 1.0)  # farthest move between frames, in body sizes: in one frame, more per frame not seen, at most
_LEAST_PRESENCE = 0.2  # a second person in a smaller share of the frames is dropped as a passer-by
_TRIED = 4  # up to so many persons all assignments are tried; more are assigned greedily


@dataclass(frozen=True)
class Mending:
    """Settings. min_score: joints below it count as not seen; max_gap: longest gap to fill, frames; persons: most to keep;
    fps: wanted frame rate, None to keep that of the file; source_fps: rate of files that do not state one; smallest: least
    frames of a clip."""

    min_score: float = 0.0
    max_gap: int = 10
    persons: int = 2
    fps: float | None = None
    source_fps: float | None = None
    smallest: int = 2


def _count(mended: dict[str, int], what: str, number) -> None:
    if number:
        mended[what] = mended.get(what, 0) + int(number)


def hide(points: np.ndarray, score: np.ndarray | None, min_score: float, mended: dict[str, int]) -> np.ndarray:
    """Points (T, M, V, C) with NaN for every joint that was not seen."""
    with np.errstate(invalid="ignore"):
        far = (np.abs(points) > FARTHEST) & np.isfinite(points)  # infinite coordinates count as not seen
    if far.any():
        t, _, v, _ = (int(i[0]) for i in np.nonzero(far))
        raise BadPoses(
            f"frame {t}, joint {v} (counted from 0): coordinate {points[far][0]:.3g} is too large for a body"
        )
    points = points.copy()
    finite = seen_joints(points)
    if not finite.all():
        somebody = finite.any(axis=2)  # (T, M): an absent person is not counted
        _count(mended, "joints that are not finite", (~finite & somebody[..., None]).sum())
        points[~finite] = np.nan
    zero = zero_joints(points)
    body = finite.sum(-1)
    at_zero = zero.sum(-1)
    empty = (at_zero == body) & (body > 0)  # (T, M): all joints zero, an absent person
    points[empty] = np.nan
    zero &= ~empty[..., None]
    if zero.any():
        there = finite & ~empty[..., None]
        origin = (zero == there).all(axis=(0, 1)) & there.any(axis=(0, 1))  # (V,): zero in every frame that has it
        if origin.sum() <= 2:  # a root joint, possibly stored twice
            zero &= ~origin
        _count(mended, "joints at zero", zero.sum())
        points[zero] = np.nan
    if score is not None:
        low = (np.nan_to_num(score, nan=0.0) < max(min_score, 1e-9)) & seen_joints(points)
        if low.any() and not (min_score <= 0 and low.all()):
            _count(mended, "joints with a low score", low.sum())
            points[low] = np.nan
    few = seen_joints(points).sum(-1) < max(2, _LEAST_JOINTS * points.shape[2])
    points[few] = np.nan
    return points


# --- persons --------------------------------------------------------------------------------------------------------


def _size(body: np.ndarray) -> float:
    return float(np.linalg.norm(np.nanmax(body, 0) - np.nanmin(body, 0)))


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean distance of the joints seen in both bodies; infinite without one."""
    gaps = np.linalg.norm(a - b, axis=-1)
    gaps = gaps[np.isfinite(gaps)]
    return float(gaps.mean()) if len(gaps) else np.inf


def _assign(costs: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (row, column) of the smallest total cost, without infinite ones."""
    rows, columns = costs.shape
    if columns < rows <= _TRIED:
        return [(row, column) for column, row in _assign(costs.T)]
    if max(rows, columns) <= _TRIED:
        capped = np.where(np.isfinite(costs), costs, 1e6)
        tries = (list(zip(range(rows), p, strict=True)) for p in itertools.permutations(range(columns), rows))
        best = min(tries, key=lambda pairs: sum(capped[p] for p in pairs))
    else:
        best, left = [], costs.copy()
        while np.isfinite(left).any():
            r, c = np.unravel_index(int(left.argmin()), left.shape)
            best.append((int(r), int(c)))
            left[r], left[:, c] = np.inf, np.inf
    return [pair for pair in best if np.isfinite(costs[pair])]


def track(points: np.ndarray) -> tuple[np.ndarray, int]:
    """Persons (T, M, V, C) in any order -> ((T, M', V, C) with each person at one index, how often a person changed its
    index). A detection joins the track whose last position is nearest, within reach; otherwise it starts a new one."""
    present = seen_joints(points).any(-1)  # (T, M)
    tracks: list[dict] = []
    swaps = 0
    for t in range(len(points)):
        here = np.flatnonzero(present[t])
        if not len(here):
            continue
        alive = tracks
        costs = np.full((len(alive), len(here)), np.inf)
        for k, one in enumerate(alive):
            reach = one["size"] * min(_REACH[2], _REACH[0] + _REACH[1] * (t - one["last"] - 1))
            for j, m in enumerate(here):
                d = _distance(one["body"], points[t, m])
                costs[k, j] = d if d <= reach else np.inf
        taken = dict((j, k) for k, j in _assign(costs)) if len(alive) else {}
        for j, m in enumerate(here):
            if j in taken:
                one = alive[taken[j]]
                swaps += one["person"] != m
            else:
                one = {"frames": {}, "size": 0.0}
                tracks.append(one)
            body = points[t, m]
            if "body" in one:
                body = np.where(np.isfinite(body), body, one["body"])
            one.update(last=t, body=body, person=m, size=max(0.9 * one["size"], _size(points[t, m])))
            one["frames"][t] = m
    return _slots(points, tracks), swaps


def _slots(points: np.ndarray, tracks: list[dict]) -> np.ndarray:
    """Puts tracks that do not overlap in time at the same index: a person who was lost and found again stays one."""
    slots: list[dict[int, int]] = []
    for one in sorted(tracks, key=lambda one: (-len(one["frames"]), min(one["frames"]))):
        frames = one["frames"]
        free = (s for s in slots if not frames.keys() & s.keys() and 4 * len(frames) >= len(s))
        place = next(free, None)
        if place is None:
            slots.append(dict(frames))
        else:
            place.update(frames)
    out = np.full((len(points), max(1, len(slots)), *points.shape[2:]), np.nan)
    for k, slot in enumerate(slots):
        times = list(slot)
        out[times, k] = points[times, list(slot.values())]
    return out


def choose_persons(points: np.ndarray, persons: int, mended: dict[str, int]) -> np.ndarray:
    """Tracks the persons (T, M, V, C) and keeps at most `persons`, those in most frames first."""
    present = seen_joints(points).any(-1)
    if present.any(0).sum() > 1:
        points, swaps = track(points)
        _count(mended, "times a person changed place", swaps)
        present = seen_joints(points).any(-1)
    frames = present.sum(0)
    order = np.argsort(-frames, kind="stable")
    kept = [m for m in order[:persons] if frames[m] >= max(1, _LEAST_PRESENCE * frames.max())]
    _count(mended, "persons left out", sum(frames[m] > 0 for m in order) - len(kept))
    return points[:, sorted(kept, key=list(order).index)]


# --- gaps -----------------------------------------------------------------------------------------------------------


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """[begin, end) of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def cut(points: np.ndarray, max_gap: int, mended: dict[str, int]) -> np.ndarray:
    """Removes empty frames at both ends; of a clip with a gap longer than `max_gap` keeps the longest piece."""
    present = seen_joints(points).any(axis=(1, 2))  # (T,)
    seen = np.flatnonzero(present)
    if not len(seen):
        raise BadPoses("no frame holds a person")
    begin, end = int(seen[0]), int(seen[-1]) + 1
    _count(mended, "frames without a person at an end", len(points) - (end - begin))
    points, present = points[begin:end], present[begin:end]
    long = [(a, b) for a, b in runs(~present) if b - a > max_gap]
    if not long:
        return points
    bounds = [0, *(x for gap in long for x in gap), len(points)]
    pieces = list(zip(bounds[::2], bounds[1::2], strict=True))
    begin, end = max(pieces, key=lambda piece: piece[1] - piece[0])
    _count(mended, "gaps too long to fill (clips cut there)", len(long))
    _count(mended, "frames cut off at such gaps", len(points) - (end - begin))
    return points[begin:end]


def fill(points: np.ndarray, max_gap: int, mended: dict[str, int]) -> np.ndarray:
    """Fills joints that are not seen for at most `max_gap` frames, linearly between neighbours, constant at the ends. Longer
    gaps stay NaN."""
    missing = ~seen_joints(points)  # (T, M, V)
    if not missing.any():
        return points
    frames = ~(~missing).any(-1)  # (T, M): the person is absent
    points = points.copy()
    filled_frames = 0
    T = len(points)
    left = 0
    for m in range(points.shape[1]):
        whole = {gap for gap in runs(frames[:, m]) if gap[1] - gap[0] <= max_gap and gap[0] > 0 and gap[1] < T}
        filled_frames += sum(b - a for a, b in whole)
        for v in np.flatnonzero(missing[:, m].any(0)):
            for a, b in runs(missing[:, m, v]):
                if b - a > max_gap or (a == 0 and b == T):
                    left += int((~frames[a:b, m]).sum())
                    continue
                if frames[a:b, m].any() and (a == 0 or b == T):
                    continue  # frames before a person appears, or after it leaves, stay empty
                low = points[a - 1, m, v] if a > 0 else points[b, m, v]
                high = points[b, m, v] if b < T else low
                share = (np.arange(1, b - a + 1) / (b - a + 1))[:, None]
                points[a:b, m, v] = low + share * (high - low)
                _count(mended, "joints filled", (~frames[a:b, m]).sum())
    _count(mended, "frames without a person, filled", filled_frames)
    _count(mended, "joints not seen for too long (left at zero)", left)
    return points


# --- time -----------------------------------------------------------------------------------------------------------


def resample(points: np.ndarray, source: float, target: float) -> np.ndarray:
    """Resamples frames to another rate, linearly in time; a joint is seen where it is in both neighbouring frames."""
    T = len(points)
    times = np.arange(int(np.floor((T - 1) * target / source + 1e-9)) + 1) * source / target
    low = np.minimum(times.astype(int), T - 1)
    high = np.minimum(low + 1, T - 1)
    share = (times - low)[:, None, None, None]
    at_low = share[:, 0, 0, 0] < 1e-9
    out = points[low] + share * (points[high] - points[low])
    out[at_low] = points[low[at_low]]
    return out


def mend(points, score, fps: float | None, options: Mending, mended: dict[str, int]) -> np.ndarray:
    """A clip (T, M, V, C) with score (T, M, V) or None -> the repaired clip (T', M', V, C), NaN where not seen; each repair is
    counted in `mended`. BadPoses for a clip without a person, or with fewer than `smallest` frames left."""
    points = hide(points, score, options.min_score, mended)
    points = choose_persons(points, options.persons, mended)
    points = cut(points, options.max_gap, mended)
    points = fill(points, options.max_gap, mended)
    rate = fps or options.source_fps
    if options.fps is not None:
        if rate is None:
            raise BadPoses("its frame rate is not known; give it, such as --source-fps 25, or leave --fps out")
        if abs(rate - options.fps) > 0.01 * options.fps:
            points = resample(points, rate, options.fps)
            _count(mended, "clips set to another rate of frames", 1)
    if len(points) < options.smallest:
        raise BadPoses(f"{len(points)} frames are left, expected at least {options.smallest}")
    return points


def zero_unseen(points: np.ndarray) -> np.ndarray:
    """(T, M, V, C) with zeros for joints that are not seen (NaN); seen joints at exactly zero are moved by NUDGE."""
    seen = seen_joints(points)
    out = np.where(seen[..., None], points, 0.0)
    origin = seen & zero_joints(out)
    out[origin, -1] = NUDGE
    return out
