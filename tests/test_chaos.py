"""Nothing is lost: kills at any moment, full disks, folders that cannot be written to.

The processes here run the program's own main and are killed as any process is.
"""

import contextlib
import json
import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from make_tiny import write_tiny_dataset
from processes import finish, fork, wait_for_lines
from tiny_runs import pretraining, same

from utils import checkpoint as files

KILLS = 60
LIMIT_SECONDS = 1800  # a hang; on a quiet machine the test takes some minutes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def start():
    """Starts pretraining in a process of its own."""

    def begin(arguments: str, log, file_limit=None):
        return fork("pretrain_moco_mask", arguments, log, file_limit=file_limit)

    return begin


def check_files(folder: Path) -> int:
    """Every file of the run folder can be read; returns the step of the last checkpoint (0 without one)."""
    for path in folder.glob("checkpoint_*"):
        files.load(path)
    if (folder / "arguments.json").exists():
        json.loads((folder / "arguments.json").read_text())
    if (folder / "metrics.jsonl").exists():
        for line in (folder / "metrics.jsonl").read_text().splitlines()[:-1]:  # the last one may be cut short
            json.loads(line)
    found = files.load_latest(folder, note=pytest.fail)
    return found[0]["step"] if found else 0


def modified(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return 0


def temporaries(folder: Path) -> set[str]:
    """Names of the half-written checkpoints."""
    return {path.name for path in folder.glob(".checkpoint_last*.tmp")}


def another_writer(start, arguments: str, process, log: Path) -> None:
    """A second start in the folder, resumed or new, is refused by name, while the first goes on."""
    assert finish(start(arguments, log), 180) == 2
    one_sentence(log, f"is being written by pretrain_moco_mask, process {process.pid} on ")
    assert process.is_alive()


@contextlib.contextmanager
def other_arrays(data: Path):
    """Within the block the training clips are others, of the same names, sizes and times."""
    array = data / "tiny" / "xsub" / "train_data_joint.npy"
    kept = shutil.copy2(array, array.with_name("kept"))
    changed = np.load(array)
    changed[:, 0] *= np.float32(1.001)
    np.save(array, changed)
    os.utime(array, ns=(kept.stat().st_atime_ns, kept.stat().st_mtime_ns))
    yield
    os.replace(kept, array)


def test_killed_at_any_moment_and_resumed(tmp_path, start):
    """KILLS times kill -9: a third at any time after the start, a third among steps and saves (each step is saved), a
    third while a checkpoint is being written. Every sixth time another writer comes while the run is there, every tenth time
    the run is first resumed on other data; both are refused and change nothing.
    The last weights, and the lines of metrics.jsonl, are bit for bit those of a run that was left alone."""
    folder, log, chance, data = tmp_path / "run", tmp_path / "log", random.Random(7), tmp_path / "data"
    write_tiny_dataset(data, train=17, frames=120)
    writers = changed = 0
    arguments = pretraining(data, folder, "--resume auto --save-every-minutes 0 --save-fre 40 -p 1")
    began, during_save, steps = time.monotonic(), 0, [0]
    for kill in range(KILLS):
        if kill % 10 == 9:
            with other_arrays(data):
                assert finish(start(arguments, tmp_path / f"changed{kill}"), 180) == 2
            one_sentence(tmp_path / f"changed{kill}", "other coordinates in the train split")
            assert check_files(folder) == steps[-1]
            changed += 1
        last, leftovers = modified(folder / files.LAST), temporaries(folder)
        process = start(arguments, log)
        if kill % 3 == 0:
            time.sleep(chance.uniform(0.0, 0.8))
        else:
            while modified(folder / files.LAST) == last if kill % 3 == 1 else not temporaries(folder) - leftovers:
                assert process.is_alive() and time.monotonic() - began < LIMIT_SECONDS, log.read_text()[-2000:]
                time.sleep(0.0005)
            if kill % 6 == 4:
                new = arguments.replace("--resume auto", "") if kill % 12 == 4 else arguments
                another_writer(start, new, process, tmp_path / f"writer{kill}")
                writers += 1
            time.sleep(chance.uniform(0.0, 0.3) if kill % 3 == 1 else chance.uniform(0.0, 0.004))
        process.kill()
        assert finish(process) == -9, log.read_text()[-2000:]
        during_save += bool(temporaries(folder) - leftovers)
        steps.append(check_files(folder))
        assert steps[-1] >= steps[-2], "a later checkpoint is never lost"
    assert during_save, "no kill hit a save: the test shows nothing about them"
    assert steps[-1] >= KILLS // 4
    more = f"--max-steps {steps[-1] + 3}"
    assert finish(start(f"{arguments} {more}", log), 180) == 0, log.read_text()[-2000:]
    assert not list(folder.glob(".*")), "what killed processes left is cleared away"
    assert not list(folder.glob("earlier-*"))
    assert finish(start(pretraining(data, tmp_path / "whole", f"{more} -p 1"), log), 600) == 0
    killed, whole = (files.load(tmp_path / name / files.LAST) for name in ("run", "whole"))
    assert killed["step"] == whole["step"] and same(killed["state_dict"], whole["state_dict"])
    for i, entry in whole["optimizer"]["state"].items():
        assert torch.equal(entry["momentum_buffer"], killed["optimizer"]["state"][i]["momentum_buffer"])
    logged = [
        [
            {name: value for name, value in json.loads(line).items() if "seconds" not in name}
            for line in text.splitlines()
        ]
        for text in ((tmp_path / name / "metrics.jsonl").read_text() for name in ("run", "whole"))
    ]
    assert logged[0] == logged[1]
    logged = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert logged == sorted(set(logged)), "no step is logged twice"
    assert "Traceback" not in log.read_text()
    seconds = time.monotonic() - began
    print(
        f"{KILLS} kills, {during_save} with a half-written file, {writers} other writers and {changed} starts on other data "
        f"refused, {steps[-1]} steps, {seconds:.0f} s"
    )


def one_sentence(log: Path, *words: str) -> None:
    text = log.read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in text, text
    assert all(word in line for word in words), line


@pytest.mark.parametrize("limit", [5_000, 300_000])
def test_a_limit_of_the_size_of_files(data, tmp_path, start, limit):
    """`ulimit -f`: no checkpoint can be written, or half of one."""
    pytest.importorskip("resource")
    folder = tmp_path / "run"
    assert finish(start(pretraining(data, folder, "--max-steps 2"), tmp_path / "before")) == 0
    step = check_files(folder)
    process = start(pretraining(data, folder, "--resume auto --max-steps 6"), tmp_path / "out", limit)
    assert finish(process) == 2
    one_sentence(tmp_path / "out", "size limit")
    assert check_files(folder) == step and not list(folder.glob(".*.tmp"))


@contextlib.contextmanager
def small_disk(path: Path, size: str):
    """A file system of `size` at `path`; skips where that is not allowed."""
    path.mkdir()
    if shutil.which("mount") is None or os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root may mount")
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True
    ).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], capture_output=True)


def test_a_full_disk(data, tmp_path, start):
    """Room for two checkpoints and a half: the third, written beside last and previous, does not fit."""
    assert finish(start(pretraining(data, tmp_path / "probe", "--max-steps 1"), tmp_path / "log")) == 0
    size = (tmp_path / "probe" / files.LAST).stat().st_size
    with small_disk(tmp_path / "disk", f"{int(2.5 * size) // 1024}k") as disk:
        folder = disk / "run"
        process = start(pretraining(data, folder, "--save-every-minutes 0"), tmp_path / "out")
        assert finish(process) == 2
        one_sentence(tmp_path / "out", "no space is left")
        assert check_files(folder) > 0 and not list(folder.glob(".*.tmp"))
        process = start(pretraining(data, folder, "--resume auto --max-steps 1000"), tmp_path / "again")
        assert finish(process) == 2
        one_sentence(tmp_path / "again", "no space is left")
        assert check_files(folder) > 0


def test_a_disk_that_fills_up_while_training(data, tmp_path, start):
    """Something else takes the last byte in the middle of the run: log, metrics or TensorBoard's file meet it first."""
    with small_disk(tmp_path / "disk", "8m") as disk:
        folder = disk / "run"
        process = start(pretraining(data, folder, "-p 1"), tmp_path / "out")
        wait_for_lines(folder / "metrics.jsonl", 3, process=process)
        with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 512)
        assert finish(process) == 2
        one_sentence(tmp_path / "out", "no space is left")


def test_a_full_disk_for_packed_clips(tmp_path, start):
    with small_disk(tmp_path / "disk", "200k") as disk:
        write_tiny_dataset(tmp_path / "data", train=17, frames=120)
        process = start(pretraining(tmp_path / "data", tmp_path / "run", f"--cache-dir {disk}/cache"), tmp_path / "out")
        assert finish(process) == 2
        one_sentence(tmp_path / "out", "no space is left")
        assert not list(disk.glob("cache/*")) and not list(disk.glob("cache/.*tmp"))


def test_a_read_only_folder(data, tmp_path, start):
    with small_disk(tmp_path / "disk", "4m") as disk:
        folder = disk / "run"
        assert finish(start(pretraining(data, folder, "--max-steps 2"), tmp_path / "log")) == 0
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for run_folder, more in ((folder, "--resume auto"), (folder, ""), (disk / "new", "")):
            out = tmp_path / f"out{len(more)}{run_folder.name}"
            assert finish(start(pretraining(data, run_folder, more), out)) == 2
            one_sentence(out, "read-only")
        assert check_files(folder) == 2
