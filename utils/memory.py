"""How this process keeps memory that it has used."""

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # names of glibc's mallopt(3)


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory for the next allocation instead of giving it back to the system. Whether it did.

    A training step frees and asks again for the same hundreds of megabytes; by default every array above 32 MB is a
    mapping of its own, whose pages the system clears and maps anew in each step (benchmarks/LOG.md has what it costs).
    Peak memory is the same, only the valleys fill up. Elsewhere (another C library or allocator), and where the user has
    set glibc's own variables, nothing is changed."""
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
        ctypes.CDLL(None).gnu_get_libc_version  # noqa: B018  other libraries have a mallopt with other meanings
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
