"""The packed cache: several processes, killed processes, data sets that share a folder, damaged files."""

import os

import numpy as np
import pytest
from make_tiny import write_tiny_dataset
from processes import finish, fork, until
from tiny_runs import pretrain

from feeder.clips import load_clips


def load(folder, cache=None):
    return load_clips(folder, "train", 25, 2, 4, cache, quiet=True)


@pytest.fixture
def folder(tmp_path):
    return write_tiny_dataset(tmp_path / "data", train=24, val=4, frames=120) / "xsub"


def caches(cache):
    return sorted(path.name for path in cache.iterdir())


def test_one_of_many_processes_packs(folder, tmp_path):
    cache = tmp_path / "cache"
    started = [fork("packer", f"{cache} 1 once {folder}", tmp_path / f"log{i}") for i in range(4)]
    assert [finish(process) for process in started] == [0] * 4
    said = [(tmp_path / f"log{i}").read_text() for i in range(4)]
    assert all(text.endswith("same\n") for text in said), said
    assert sum("packed 1" in text for text in said) == 1, said
    assert len(caches(cache)) == 1


def test_a_kill_while_packing(folder, tmp_path):
    """The next load removes its temporary file; those of other data sets stay."""
    cache = tmp_path / "cache"
    cache.mkdir()
    process = fork("packer", f"{cache} 1 slow {folder}", tmp_path / "log")
    until((cache / "packing").exists, tmp_path / "log", process=process)
    (cache / "packing").unlink()
    other = cache / f".train-0123456789abcdef.npy.{process.pid}.00000000.tmp"
    other.write_bytes(b"half")
    waiting = fork("packer", f"{cache} 1 once {folder}", tmp_path / "waiting")
    said = tmp_path / "waiting"
    until(lambda: said.exists() and "waiting for it" in said.read_text(), said, process=waiting)
    process.kill()
    assert finish(process) == -9 and finish(waiting) == 0
    assert said.read_text().endswith("packed 1\nsame\n")
    assert [name for name in caches(cache) if not name.startswith("train-")] == [other.name]


def twins(tmp_path):
    """The folders of two data sets with equal name, size and time, and different coordinates."""
    folders = []
    for root, factor in (("a", 1), ("b", 2)):
        folder = write_tiny_dataset(tmp_path / root, train=8, val=4, frames=120) / "xsub"
        data = np.load(folder / "train_data_joint.npy") * np.float32(factor)
        np.save(folder / "train_data_joint.npy", data)
        for path in folder.iterdir():
            os.utime(path, ns=(10**18, 10**18))
        folders.append(folder)
    return folders


def test_data_sets_share_a_cache_folder(tmp_path):
    """Many processes load two sets in turn, which differ in coordinates only; each always gets its own."""
    cache = tmp_path / "cache"
    folders = " ".join(map(str, twins(tmp_path)))
    started = [fork("packer", f"{cache} 40 often {folders}", tmp_path / f"log{i}") for i in range(4)]
    assert [finish(process) for process in started] == [0] * 4, (tmp_path / "log0").read_text()
    assert all((tmp_path / f"log{i}").read_text().endswith("same\n") for i in range(4))
    assert len(caches(cache)) == 2


def test_equal_data_has_one_file_and_one_fingerprint(folder, tmp_path):
    copy = write_tiny_dataset(tmp_path / "copy", train=24, val=4, frames=120) / "xsub"
    stat = (folder / "train_data_joint.npy").stat()
    os.utime(copy / "train_data_joint.npy", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    a, b = load(folder, tmp_path / "cache"), load(copy, tmp_path / "cache")
    assert a.fingerprint == b.fingerprint and len(caches(tmp_path / "cache")) == 1
    os.utime(copy / "train_data_joint.npy")
    assert load(copy, tmp_path / "cache").fingerprint == a.fingerprint


def test_only_older_files_of_the_same_source_are_removed(folder, tmp_path):
    cache = tmp_path / "cache"
    load(folder, cache)
    (old,) = caches(cache)
    (cache / "train-0000000000000000.npy").write_bytes(b"of somebody else")
    np.save(folder / "train_data_joint.npy", np.load(folder / "train_data_joint.npy") * 2)
    load(folder, cache)
    assert old not in caches(cache) and len(caches(cache)) == 2
    (folder / ".packed").mkdir()
    np.save(folder / ".packed" / "train-0000000000000000.npy", np.zeros(3, np.float32))
    load(folder)
    assert len(caches(folder / ".packed")) == 1, "beside the arrays, a file of an older version is their own"


@pytest.mark.parametrize("what", ["header", "first block", "last block", "trailer", "cut", "longer"])
def test_a_damaged_cache_is_made_again(folder, tmp_path, what):
    whole = load(folder, tmp_path / "cache")
    expected = whole.frames.clone()
    (path,) = (tmp_path / "cache").iterdir()
    content = bytearray(path.read_bytes())
    place = {"header": 20, "first block": 500, "last block": len(content) - 4096 - 8, "trailer": len(content) - 4090}
    if what in place:
        content[place[what]] ^= 1
    path.unlink()  # the map above keeps the old file
    path.write_bytes({"cut": content[:-5000], "longer": content + b"\0"}.get(what, content))
    again = load(folder, tmp_path / "cache")
    assert np.array_equal(again.frames, expected) and again.fingerprint == whole.fingerprint


def test_frames_packed_in_memory_have_the_same_fingerprint(folder, tmp_path, monkeypatch):
    cached = load(folder)

    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("feeder.packed._open", lambda *_: None)
    monkeypatch.setattr("feeder.packed.open_locked", refused)
    in_memory = load(folder)
    assert in_memory.fingerprint == cached.fingerprint and np.array_equal(in_memory.frames, cached.frames)


@pytest.mark.slow
def test_a_program_with_a_damaged_cache(tmp_path):
    write_tiny_dataset(tmp_path, train=17, frames=120)
    assert pretrain(tmp_path, tmp_path / "a", "--max-steps 1").status == 0
    (path,) = (tmp_path / "tiny/xsub/.packed").iterdir()
    with open(path, "r+b") as file:
        file.seek(300)
        file.write(b"\xff" * 1000)
    ran = pretrain(tmp_path, tmp_path / "b", "--max-steps 1")
    assert ran.status == 0, ran.err
    first, second = ((tmp_path / run / "metrics.jsonl").read_text() for run in "ab")
    assert first.split('"seconds')[0] == second.split('"seconds')[0]
