"""What is dirty in a clip, put right and counted.

In this order: joints with a low score, at zero or not finite are not seen; persons are tracked from frame to frame, and those
that are there most are kept; frames without a person at both ends are cut; a gap of frames without a person is filled linearly
up to `max_gap` frames, a longer one cuts the clip, of which the longest piece stays; single joints that are not seen are
filled in the same way, and stay zero (which the format reads as not seen) where the gap is longer; the rate of frames is changed.

A joint at zero in every frame is no gap: it is the origin of root-centred poses. It is moved by a micrometre, since exactly
zero means not seen.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from data_gen.poses.record import BadPoses, seen_joints, zero_joints

NUDGE = 1e-6  # metres, or pixels: what makes a seen joint at the origin other than exactly zero
FARTHEST = 1e7  # in any unit: 10 km in millimetres
_LEAST_JOINTS = 0.2  # share of a body's joints below which a detection is none
_REACH = (0.3, 0.1, 1.0)  # body sizes that a person moves between two frames at most, more a frame not seen, and in all
_LEAST_PRESENCE = 0.2  # share of a clip's frames below which a second person is a passer-by
_TRIED = 4  # persons whose assignments are all tried; more are assigned one after the other


@dataclass(frozen=True)
class Mending:
    """What to do. min_score: joints below are not seen; max_gap: frames; persons: at most; fps: wanted rate, None to keep
    the file's; source_fps: of files that do not say it; smallest: frames that a clip must have."""

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
        far = (np.abs(points) > FARTHEST) & np.isfinite(points)  # infinite ones count as not seen
    if far.any():
        t, _, v, _ = (int(i[0]) for i in np.nonzero(far))
        raise BadPoses(f"frame {t}, joint {v} (from 0): a coordinate of {points[far][0]:.3g} is none of a body")
    points = points.copy()
    finite = seen_joints(points)
    if not finite.all():
        somebody = finite.any(axis=2)  # (T, M): an absent person is no damage
        _count(mended, "joints that are not finite", (~finite & somebody[..., None]).sum())
        points[~finite] = np.nan
    zero = zero_joints(points)
    body = finite.sum(-1)
    at_zero = zero.sum(-1)
    empty = (at_zero == body) & (body > 0)  # (T, M): a person of zeros is nobody
    points[empty] = np.nan
    zero &= ~empty[..., None]
    if zero.any():
        there = finite & ~empty[..., None]
        origin = (zero == there).all(axis=(0, 1)) & there.any(axis=(0, 1))  # (V,): zero whenever there
        if origin.sum() <= 2:  # a root, and perhaps its double
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
    """Mean distance of the joints that both show; infinite without one."""
    gaps = np.linalg.norm(a - b, axis=-1)
    gaps = gaps[np.isfinite(gaps)]
    return float(gaps.mean()) if len(gaps) else np.inf


def _assign(costs: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (row, column) of the smallest total cost, infinite ones never."""
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
    """Persons (T, M, V, C) in any order -> (the same with one track a person, (T, M', V, C), how often somebody changed
    place). A detection follows the track whose last position is nearest, within reach; else it begins a new one."""
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
    """Tracks that do not overlap in time share a place: a person who was lost and found again stays one."""
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
    """At most `persons` of the persons (T, M, V, C), tracked; those that are there in most frames first."""
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
    """(begin, end) of every run of True, end excluded."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def cut(points: np.ndarray, max_gap: int, mended: dict[str, int]) -> np.ndarray:
    """Without empty frames at both ends; of a clip with a longer gap than `max_gap` the longest piece."""
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
    """Joints that are not seen for at most `max_gap` frames: linear between their neighbours, held at the ends. Longer ones
    stay NaN."""
    missing = ~seen_joints(points)  # (T, M, V)
    if not missing.any():
        return points
    frames = ~(~missing).any(-1)  # (T, M): nobody there
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
                    continue  # a person who comes or goes is not held in the air
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
    """Frames at another rate, linear in time; a joint is seen where both its neighbours are."""
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
    """One clip (T, M, V, C) -> the clip as it shall be, (T', M', V, C) with zeros where nothing is seen; what was done is
    counted in `mended`. BadPoses for a clip without a person, or with fewer than `smallest` frames left."""
    points = hide(points, score, options.min_score, mended)
    points = choose_persons(points, options.persons, mended)
    points = cut(points, options.max_gap, mended)
    points = fill(points, options.max_gap, mended)
    rate = fps or options.source_fps
    if options.fps is not None:
        if rate is None:
            raise BadPoses("its frames a second are not known; --source-fps 25 says them, or leave --fps out")
        if abs(rate - options.fps) > 0.01 * options.fps:
            points = resample(points, rate, options.fps)
            _count(mended, "clips set to another rate of frames", 1)
    if len(points) < options.smallest:
        raise BadPoses(f"{len(points)} frames are left, expected at least {options.smallest}")
    return points


def closed(points: np.ndarray) -> np.ndarray:
    """(T, M, V, C) with zeros for what is not seen, and nothing else at exactly zero."""
    seen = seen_joints(points)
    out = np.where(seen[..., None], points, 0.0)
    origin = seen & zero_joints(out)
    out[origin, -1] = NUDGE
    return out
