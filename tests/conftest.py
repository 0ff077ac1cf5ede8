"""What all tests share: the repository on the path, few threads, and the folder of golden numbers.

Tests that compare numbers of programs name --precision fp32 (or fp64) in their commands: what auto chooses is the machine's,
so that without it they would hold something else on each. tests/test_precision.py has auto."""

import os
import sys
import zlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def checksum_of(data) -> str:
    """What the sidecar's `coordinates` must hold of a split's coordinates (N, 3, T, V, M)."""
    from data_gen.build import coordinates_checksum

    return coordinates_checksum([zlib.crc32(clip.astype("<f4").tobytes()) for clip in data])


@pytest.fixture(scope="session")
def golden() -> Path:
    """Numbers computed by the released code; another folder of the same format may be given by PCM3_GOLDEN."""
    return Path(os.environ.get("PCM3_GOLDEN", ROOT / "tests" / "golden"))


@pytest.fixture(scope="module")
def data(request, tmp_path_factory) -> Path:
    """A folder with a tiny data set for the tests of one file, which may say what it is like: TINY_DATASET,
    arguments of make_tiny.write_tiny_dataset by name."""
    from make_tiny import write_tiny_dataset

    root = tmp_path_factory.mktemp("data")
    write_tiny_dataset(root, **getattr(request.module, "TINY_DATASET", {"train": 17, "frames": 120}))
    return root


@pytest.fixture
def no_progress_bar(monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
