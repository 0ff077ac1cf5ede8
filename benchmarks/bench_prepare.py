"""Measures how much faster the preparation of NTU files is than plain loops; prints one line of JSON.

    python benchmarks/bench_prepare.py

Makes files of about 250 KB (the usual size). In each round it prepares all of them with data_gen (all cores, two protocols) and
one of them with the slow twin of tests/slow_prepare.py (one process, one protocol: reads line by line, normalises joint by
joint). The twin represents common scripts, whose published times are 29 ms to read a file of 250 KB and 47 ms to normalise a
clip; `ratio_published` compares with those 76 ms, `ratio_twin` with the measured twin. Figures are medians over the rounds. On a
shared machine use `fast_cpu_ms`: CPU time per clip of all processes together, including their start.
"""

import contextlib
import os
import resource
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file runs by its path

import numpy as np

from benchmarks import common
from data_gen import protocols
from data_gen.build import Stored, build_dataset
from data_gen.normalise import STEPS
from data_gen.raw_files import find_files
from data_gen.raw_ntu import read_named
from tests import make_raw
from tests.slow_prepare import slow_bodies, slow_normalise, slow_select
from utils.errors import run
from utils.machine import default_workers
from utils.skeleton import KINECT_V2

PUBLISHED_MS = 29 + 47
FRAMES = 124  # of one body: gives files of about 250 KB


def slow_prepare(path: Path, out: np.ndarray) -> None:
    """Prepares one file with the slow twin, into `out` of a memory map."""
    clip = slow_select(slow_bodies(path.read_text()))
    stored = np.zeros((3, 300, 25, 2), dtype=np.float32)
    stored[:, : clip.shape[1]] = clip
    out[:] = slow_normalise(stored, KINECT_V2, STEPS)


def cpu_seconds() -> float:
    """CPU time of this process and its finished children."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def main(argv=None) -> None:
    parser = common.parser(__doc__, clips=1000, rounds=3, save=False)
    parser.add_argument("--workers", type=int, default=default_workers(), help="processes of the fast run")
    args = parser.parse_args(argv)
    names = make_raw.ntu_names(args.clips)
    fast, fast_cpu, slow, slow_cpu = [], [], [], []
    with tempfile.TemporaryDirectory() as root, contextlib.redirect_stderr(open(os.devnull, "w")):
        raw = Path(root, "raw")
        raw.mkdir()
        people = [make_raw.person(1, k, FRAMES) for k in range(8)]
        texts = [make_raw.skeleton_text([[(make_raw.FIRST_ID, joints)] for joints in person]) for person in people]
        for k, name in enumerate(names):
            (raw / f"{name}.skeleton").write_text(texts[k % len(texts)])
        files = find_files([raw], ".skeleton")
        labels = {name: protocols.ntu_name(name).action - 1 for name in names}
        splits = protocols.ntu_protocols("ntu60", names)
        place = np.lib.format.open_memmap(Path(root, "slow.npy"), "w+", np.float32, (3, 300, 25, 2))
        for turn in range(args.rounds):
            start, cpu = time.perf_counter(), cpu_seconds()
            stored, load = Stored(KINECT_V2, 2), partial(read_named, files, "slot", 2)
            build_dataset(Path(root, "out"), stored, splits, labels, load, source="benchmark", workers=args.workers)
            fast.append((time.perf_counter() - start) / len(names))
            fast_cpu.append((cpu_seconds() - cpu) / len(names))
            start, cpu = time.perf_counter(), cpu_seconds()
            slow_prepare(raw / f"{names[turn % len(names)]}.skeleton", place)
            slow.append(time.perf_counter() - start)
            slow_cpu.append(cpu_seconds() - cpu)
    fast_ms, slow_ms, fast_cpu_ms, slow_cpu_ms = (
        1e3 * statistics.median(times) for times in (fast, slow, fast_cpu, slow_cpu)
    )
    result = {
        "file_kb": round(len(texts[0]) / 1e3),
        "protocols": len(splits),
        "fast_ms_per_clip": round(fast_ms, 2),
        "fast_clips_per_s": round(1e3 / fast_ms, 1),
        "slow_ms_per_clip": round(slow_ms, 2),
        "fast_cpu_ms": round(fast_cpu_ms, 2),
        "slow_cpu_ms": round(slow_cpu_ms, 2),
        "worker_peak_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        "parent_peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "ratio_twin": round(slow_ms / fast_ms, 1),
        "ratio_published": round(PUBLISHED_MS / fast_ms, 1),
    }
    common.report("prepare", args, result)


if __name__ == "__main__":
    run(main)
