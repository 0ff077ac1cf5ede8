"""Builds the prepared folders of a data set: each clip is read and normalised once, for all protocols.

`build_dataset` distributes clip names over worker processes. A worker loads a clip, pads or cuts it to `frames`,
normalises it and writes its bytes to its row in the files of every protocol that has it, so that no process holds more
than a few clips. What grows with the number of clips: the arrays on the disk (12 T V M bytes per clip and protocol,
180 kB at 300 frames, 25 joints and 2 persons; a million clips are 180 GB per protocol) and, in memory, names, labels and
counts (about 1 kB per clip).

The bytes depend on the clips alone, so the files are the same for any number of processes. Everything is written to a
hidden folder beside the target, which is locked during the preparation, removed if it fails or is interrupted, and
cleared if a killed run left one. A protocol folder appears under its name only when it is complete.
"""

import contextlib
import hashlib
import itertools
import math
import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import threading
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_gen.normalise import EVERY_STEP, STEPS, normalise
from utils.arrays import FRAMES, Rows, SplitWriter, building_folder, publish, versions, write_row
from utils.clip_check import OddClips, clip_faults, in_words
from utils.convert_layout import conversion, convert
from utils.errors import UserError
from utils.files import check_text
from utils.machine import default_workers
from utils.names import SPLITS
from utils.skeleton import Layout

CHUNK = 16  # clips per task of a worker: a trade-off between an even load and the cost of messages between processes
HOW_TO_SKIP = "--on-bad skip leaves such clips out and lists them"


@dataclass
class BuildReport:
    """Result of a preparation. counts: protocol folder -> split -> clips written; skipped: clip -> why it was left out;
    empty: clips that are all zero (kept, as released); longer: clips that were cut to the stored frames; odd: kind of
    fault -> clip -> finding (utils.clip_check)."""

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    longer: list[str] = field(default_factory=list)
    odd: dict[str, dict[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Stored:
    """How clips are stored. layout, persons, frames: of the stored arrays; steps: of normalisation, () for raw coordinates;
    came_as: layout of the loaded clips if it differs; dimensions: 2 for clips with z = 0; on_bad: "refuse" stops at the first
    bad clip, "skip" leaves bad clips out; strict: clips that `utils.clip_check` finds odd count as bad, otherwise they are
    kept, with a warning, and listed in the sidecar."""

    layout: Layout
    persons: int
    frames: int = FRAMES
    steps: tuple[str, ...] = STEPS
    came_as: Layout | None = None
    dimensions: int = 3
    on_bad: str = "refuse"
    strict: bool = False

    @property
    def loaded(self) -> Layout:
        return self.came_as or self.layout


@dataclass(frozen=True)
class _Done:
    """A worker's result for one clip. reason: why it was left out, None if it was written."""

    name: str
    num_frame: int = 0
    checksum: int = 0
    empty: bool = False
    reason: str | None = None
    faults: dict[str, str] = field(default_factory=dict)


def fit(name: str, clip, stored: Stored) -> np.ndarray:
    """A clip (3, t, V, m), m <= M, cut or padded with zeros to float32 (3, frames, V, M). UserError when the shape is
    another or a coordinate is not finite."""
    layout, persons = stored.loaded, stored.persons
    if clip.ndim != 4 or clip.shape[0] != 3 or clip.shape[2] != layout.joints or clip.shape[3] > persons:
        raise UserError(
            f"{name}: expected coordinates (3, t, {layout.joints}, at most {persons} persons) for joint layout "
            f"{layout.name}, found {clip.shape}"
        )
    length = min(clip.shape[1], stored.frames)
    fitted = np.zeros((3, stored.frames, layout.joints, persons), dtype=np.float32)
    fitted[:, :length, :, : clip.shape[3]] = clip[:, :length]
    if not np.isfinite(fitted).all():
        t = int(np.flatnonzero(~np.isfinite(fitted).all(axis=(0, 2, 3)))[0])
        raise UserError(f"{name}: a coordinate of frame {t} (counted from 0) is not a finite number")
    return fitted


def _process(load: Callable, stored: Stored, targets: Sequence[Rows], task: tuple[str, list]) -> _Done:
    """Loads, normalises and writes one clip. task: its name and its places, pairs (index into targets, row)."""
    name, places = task
    try:
        clip = load(name)
        if clip is None:
            return _Done(name, reason="left out by the reader")
        fitted = fit(name, clip, stored)
        faults = clip_faults(fitted[:, : max(clip.shape[1], 1)], stored.loaded)
        if faults and stored.strict:
            raise UserError(f"{name}: {in_words(faults)} (refused by --strict)")
        fitted = convert(fitted, stored.loaded, stored.layout, axis=2)
    except UserError as error:
        if stored.on_bad != "skip":
            raise UserError(f"{error} ({HOW_TO_SKIP})") from None
        return _Done(name, reason=str(error))
    row = np.ascontiguousarray(normalise(fitted, stored.layout, stored.steps), dtype="<f4").tobytes()
    for target, index in places:
        write_row(targets[target], index, row)
    return _Done(name, clip.shape[1], zlib.crc32(row), not fitted.any(), faults=faults)


_shared = ()  # the arguments that this worker process got at its start


def _start_worker(*shared) -> None:
    global _shared
    _shared = shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent shuts the pool down
    parent = multiprocessing.parent_process()

    def end_with_parent():  # otherwise a worker whose parent was killed would wait for work for ever
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _call(function: Callable, items: list) -> list:
    return [function(*_shared, item) for item in items]


@contextlib.contextmanager
def _without_main(*needed):
    """A block in which new processes do not import the main script, unless `needed` is defined in it. A script that starts
    a preparation without `if __name__ == "__main__":` would otherwise start another one in each process."""
    main = sys.modules["__main__"].__dict__
    if b"__main__" in pickle.dumps(needed):
        yield
        return
    kept = {name: main[name] for name in ("__file__", "__spec__") if name in main}
    main.pop("__file__", None)
    main["__spec__"] = None
    try:
        yield
    finally:
        main.update(kept)


def ordered_map(function, items: Sequence, workers: int | None = None, shared: tuple = (), size: int = 1, group=None):
    """Yields function(*shared, item) for every item, in order, computed in `workers` processes; only a few results are
    held at a time.

    shared: sent to each process once; size: about how many items a process takes at a time; group(item): consecutive items
    with the same group go to the same process. UserError when the system kills one of the processes."""
    chunks = _chunks(items, size, group)
    count = max(1, min(workers or default_workers(), len(chunks)))
    if count == 1:
        yield from (function(*shared, item) for item in items)
        return
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _start_worker, shared)
    try:
        with _without_main(function, shared):
            submitted = (pool.submit(_call, function, chunk) for chunk in chunks)
            pending = deque(itertools.islice(submitted, 2 * count))
            while pending:
                yield from pending.popleft().result()
                pending.extend(itertools.islice(submitted, 1))
    except BrokenProcessPool:
        raise UserError(
            "a worker process was killed, probably because the memory ran out; try --workers 1, or fewer than now"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _chunks(items: Sequence, size: int, group: Callable | None) -> list[list]:
    """Splits items into lists of about `size`; consecutive items of the same group stay together."""
    chunks, last = [], object()
    for item in items:
        key = group(item) if group else None
        if not chunks or len(chunks[-1]) >= size and (group is None or key != last):
            chunks.append([])
        chunks[-1].append(item)
        last = key
    return chunks


def coordinates_checksum(clip_checksums) -> str:
    """A checksum of the CRC-32 of each clip's bytes, in the order of the split."""
    return hashlib.sha256(np.asarray(clip_checksums, dtype="<u4").tobytes()).hexdigest()[:16]


def splits_of(splits: dict) -> tuple[str, ...]:
    """The splits of a protocol: train and val, or only train if it has no key `val`."""
    return SPLITS if "val" in splits else SPLITS[:1]


def _check_protocols(protocols, labels) -> None:
    for protocol, splits in protocols.items():
        for split in splits_of(splits):
            if not splits.get(split):
                raise UserError(
                    f"{protocol}: its {split} split has no clip; give the whole data set, or leave this protocol out"
                )
            names = list(splits[split])
            check_text("\n".join(names), f"{protocol}, {split} split")
            if len(set(names)) != len(names):
                twice = next(name for name in sorted(names) if names.count(name) > 1)
                raise UserError(f"{protocol}: clip {twice} is twice in the {split} split")
            missing = next((name for name in names if name not in labels), None)
            if missing is not None:
                raise UserError(f"{protocol}: clip {missing} has no label")
        both = set(splits["train"]) & set(splits.get("val", ()))
        if both:
            raise UserError(f"{protocol}: clip {min(both)} is in train and in val; a clip belongs to one of them")


def _open_writers(temporary, protocols, labels, stored: Stored) -> dict[tuple[str, str], SplitWriter]:
    clips = sum(len(splits[split]) for splits in protocols.values() for split in splits_of(splits))
    size = stored.layout.joints, stored.persons, stored.frames
    need = clips * 4 * 3 * math.prod(size)
    free = shutil.disk_usage(temporary).free
    if need > free:
        raise UserError(
            f"{temporary.parent}: {clips} clips need {need / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free; give another "
            "--data-root, or prepare fewer protocols"
        )
    writers = {}
    for protocol, splits in protocols.items():
        for split in splits_of(splits):
            names = sorted(splits[split])
            writers[protocol, split] = SplitWriter(
                temporary / protocol, split, names, [labels[n] for n in names], *size
            )
    return writers


def _finish(writers, done: dict[str, _Done], temporary, folder, protocols, sidecar, report: BuildReport) -> None:
    """Removes skipped clips, writes labels, counts and sidecars, and moves the protocol folders to their final names."""
    entries = {}
    for (protocol, split), writer in writers.items():
        writer.num_frame[:] = [done[name].num_frame for name in writer.names]
        kept = [i for i, name in enumerate(writer.names) if name not in report.skipped]
        if not kept:
            first = writer.names[0]
            raise UserError(f"{protocol}: every {split} clip was left out; {first}: {report.skipped[first]}")
        writer.keep(kept)
        entry = writer.finish()
        entry["coordinates"] = coordinates_checksum([done[name].checksum for name in writer.names])
        entries.setdefault(protocol, {})[split] = entry
        report.counts.setdefault(protocol, {})[split] = len(writer.names)
    writers.clear()  # closes the maps
    for protocol in protocols:
        publish(temporary / protocol, Path(folder) / protocol, {**sidecar, "splits": entries[protocol]})


def _report(done: dict[str, _Done], frames: int) -> BuildReport:
    """The report of all clips, still without counts; warns of odd clips."""
    report, odd = BuildReport(), OddClips()
    for name, answer in sorted(done.items()):
        if answer.reason is not None:
            report.skipped[name] = answer.reason
            continue
        report.empty += [name] * answer.empty
        report.longer += [name] * (answer.num_frame > frames)
        odd.add(name, answer.faults)
    odd.warn(len(done) - len(report.skipped))
    report.odd = odd.found
    return report


def build_dataset(
    folder,
    stored: Stored,
    protocols: dict[str, dict[str, Sequence[str]]],
    labels: dict[str, int],
    load: Callable[[str], np.ndarray | None],
    *,
    source: str,
    workers: int | None = None,
    group: Callable[[str], object] | None = None,
    details: dict | None = None,
) -> BuildReport:
    """Prepares `folder`/<protocol>/ for every protocol; each clip is loaded and normalised once.

    protocols: folder name -> {"train": names, "val": names}, without val if there are no test clips; labels: name ->
    class number from 0.
    load(name): the raw clip (3, t, V, m) float32 with m <= persons, zeros for absent persons and frames; None leaves the
    clip out; it raises UserError (naming file and line) for a bad file. It must be picklable: a function of a module, a
    partial of one, or an instance of a module's class.
    source: one line that says where the clips come from; details: further entries of the sidecar; workers: number of
    processes, default all cores; group(name): consecutive clips (by name) of the same group go to the same worker.

    UserError for a bad clip, an empty or overlapping split, too little disk space, or another preparation that is running.
    """
    _check_protocols(protocols, labels)
    conversion(stored.loaded, stored.layout)  # raises before anything is read
    with building_folder(folder) as temporary:
        writers = _open_writers(temporary, protocols, labels, stored)
        places: dict[str, list] = {}
        for target, writer in enumerate(writers.values()):
            for row, name in enumerate(writer.names):
                places.setdefault(name, []).append((target, row))
        shared = load, stored, tuple(writer.rows for writer in writers.values())
        tasks = sorted(places.items())
        by_group = group and (lambda task: group(task[0]))
        answers, done = ordered_map(_process, tasks, workers, shared, CHUNK, by_group), {}
        interval = 0.2 if sys.stderr.isatty() else 30  # seconds; a log file should get few lines
        with contextlib.closing(answers):
            for answer in tqdm(answers, total=len(tasks), unit="clip", mininterval=interval):
                done[answer.name] = answer
        report = _report(done, stored.frames)
        sidecar = {
            "source": source,
            "normalisation": [step for step in EVERY_STEP if step in stored.steps],
            "layout": stored.layout.name,
            **({} if stored.loaded == stored.layout else {"converted_from": stored.loaded.name}),
            **({} if stored.dimensions == 3 else {"dimensions": stored.dimensions}),
            "frames": stored.frames,
            "versions": versions(),
            **(details or {}),
            "skipped": report.skipped,
            "empty": report.empty,
            "odd": report.odd,
            "longer_than_stored": len(report.longer),
        }
        _finish(writers, done, temporary, folder, protocols, sidecar, report)
    return report
