"""Processors and memory that this process may use, within the limits of its container; a setting of the allocator.

In a container (Docker, Slurm, Kubernetes) the system reports the whole machine; the limits are in the files of the process's
control group (cgroup, version 2 or 1) and of all groups above it.
"""

import ctypes
import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUP = Path("/proc/self/cgroup")
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # parameters of glibc's mallopt(3)
NO_LIMIT = 2**60  # version 1 has a number near 2**63 for no limit


def _number(path: Path, word: int = 0) -> int | None:
    """A word of a control file as a number; None if it is missing or `max`."""
    try:
        return int(path.read_text().split()[word])
    except (OSError, ValueError, IndexError):
        return None


def _groups(controller: str) -> list[Path]:
    """Folders of this process's control group and of the groups above it. controller: of version 1, or "" for version 2."""
    try:
        lines = [line.split(":", 2) for line in OWN_GROUP.read_text().splitlines()]
    except OSError:
        return []
    found = []
    for _, names, path in (line for line in lines if len(line) == 3):
        if controller in names.split(","):
            root = CGROUPS / controller
            place = root / path.strip().lstrip("/")
            found += [folder for folder in (place, *place.parents) if folder == root or root in folder.parents]
    return found


def _left_by_groups() -> list[int]:
    """For each memory limit the bytes that are still free."""
    left = []
    names = (("", "memory.max", "memory.current"), ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"))
    for controller, limit, used in names:
        for group in _groups(controller):
            most = _number(group / limit)
            if most is not None and most < NO_LIMIT:
                left.append(max(0, most - (_number(group / used) or 0)))
    return left


def free_memory() -> int:
    """Bytes of memory that are free for this process; 0 if unknown."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return 0
    return min([free, *_left_by_groups()])


def default_workers() -> int:
    """The number of cores that this process may use, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [(_number(group / "cpu.max"), _number(group / "cpu.max", 1)) for group in _groups("")]
    quotas += [(_number(g / "cpu.cfs_quota_us"), _number(g / "cpu.cfs_period_us")) for g in _groups("cpu")]
    cores = min([cores, *(math.ceil(quota / period) for quota, period in quotas if quota and period and quota > 0)])
    return max(1, cores)


def keep_freed_memory() -> bool:
    """Sets glibc to keep freed memory for the next allocation instead of returning it to the system; whether it was set.

    A training step frees and allocates the same hundreds of megabytes again. By default every array above 32 MB is a memory
    mapping of its own, whose pages the system clears and maps again in each step (benchmarks/LOG.md has the cost). Peak
    memory does not change. With another C library or allocator, or if the user has set glibc's variables, nothing is set."""
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
        ctypes.CDLL(None).gnu_get_libc_version  # noqa: B018  other libraries have a mallopt with other meanings
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
