"""A folder has one writer: the second is refused by name, a dead one hinders nobody, readers are not hindered."""

import contextlib
import errno
import json
import multiprocessing
import socket
import subprocess
import sys

import pytest
from processes import ROOT, Processes, finish, fork, wait_for_lines
from programs import call, refused
from tiny_runs import lines, pretraining

import action_classification
import pretrain_moco_mask
from tools import visualize
from utils import checkpoint as files
from utils import locks
from utils.errors import UserError
from utils.files import atomic_write, remove_leftovers


def names_holder(ran, program: str, pid: int):
    refused(ran, f"is being written by {program}, process {pid} on {socket.gethostname()}, since 20")


def test_two_pretrainings_in_one_folder(data, tmp_path):
    """The second start is refused, new or resumed, and leaves nothing; the first goes on as if nothing had been."""
    run = tmp_path / "run"
    first = fork("pretrain_moco_mask", pretraining(data, run, "--save-every-minutes 0 --pictures 0"), tmp_path / "log")
    try:
        wait_for_lines(run / "metrics.jsonl", 2)
        for more in ("", "--resume auto"):
            names_holder(call(pretrain_moco_mask.main, pretraining(data, run, more)), "pretrain_moco_mask", first.pid)
        reading = call(visualize.main, f"{run} --output {tmp_path}/curves.png")
        assert reading.status == 0 and (tmp_path / "curves.png").exists(), reading.err
        seen = len(lines(run))
        wait_for_lines(run / "metrics.jsonl", seen + 2)
    finally:
        first.terminate()
    assert finish(first) == 75, (tmp_path / "log").read_text()
    assert len(json.loads((run / "arguments.json").read_text())) == 1 and not list(run.glob("earlier-*"))
    steps = [line["step"] for line in lines(run)]
    assert steps == list(range(2, steps[-1] + 1, 2))
    assert not list(run.glob(".*"))
    more = f"--resume auto --max-steps {files.load(run / files.LAST)['step'] + 1}"
    assert call(pretrain_moco_mask.main, pretraining(data, run, more)).status == 0


@pytest.mark.slow
def test_a_killed_owner_hinders_nobody(data, tmp_path):
    run = tmp_path / "run"
    first = fork("pretrain_moco_mask", pretraining(data, run), tmp_path / "log")
    wait_for_lines(run / "metrics.jsonl", 1)
    first.kill()
    assert finish(first) == -9
    assert (run / locks.OWNER).exists()
    ran = call(pretrain_moco_mask.main, pretraining(data, run, "--max-steps 1"))
    assert ran.status == 0 and "earlier run" in ran.out and not (run / locks.OWNER).exists(), ran.err


@pytest.mark.slow
def test_two_evaluations_in_one_folder(data, tmp_path):
    flags = f"--data-root {data} --finetune-dataset tiny --hidden-size 16 --num-layers 1 --device cpu --threads 1"
    flags += f" --batch-size 8 --checkpoint-path {tmp_path}/linear"
    first = fork("action_classification", f"{flags} --epochs 100000", tmp_path / "log")
    try:
        wait_for_lines(tmp_path / "linear" / "metrics.jsonl", 1)
        ran = call(action_classification.main, f"{flags} --epochs 1")
        names_holder(ran, "action_classification", first.pid)
        assert not list((tmp_path / "linear").glob("earlier-*"))
    finally:
        first.kill()
        assert finish(first) == -9


@pytest.mark.slow
def test_the_main_process_of_several_owns_the_folder(data, tmp_path):
    run = tmp_path / "run"
    first = Processes(2, "pretrain_moco_mask", pretraining(data, run))
    wait_for_lines(run / "metrics.jsonl", 1)
    second = Processes(2, "pretrain_moco_mask", pretraining(data, run)).wait()
    assert [ended.status for ended in second] == [2, 2], second
    assert f"process {first.started[0].pid} on" in second[0].err
    assert "ended because of rank 0" in second[1].err
    first.started[0].terminate()
    assert [ended.status for ended in first.wait()] == [75, 75]


def test_a_refused_run_leaves_no_folder(data, tmp_path):
    refused(call(pretrain_moco_mask.main, pretraining(tmp_path, tmp_path / "run")), "tiny")
    assert not (tmp_path / "run").exists()


WRITING = """
import sys
sys.path.insert(0, {root!r})
from utils.files import atomic_write
with atomic_write({path!r}) as file:
    file.write(b"half")
    file.flush()
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_leftovers_of_the_living_stay(tmp_path):
    """The temporary file of another process, even where its number says nothing, as from another machine."""
    code = WRITING.format(root=str(ROOT), path=str(tmp_path / "result.json"))
    writer = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True)
    try:
        assert writer.stdout.readline() == "writing\n"
        (temporary,) = tmp_path.glob(".result.json.*.tmp")
        remove_leftovers(tmp_path)
        assert temporary.exists()
        unnumbered = temporary.with_name(".result.json.elsewhere.00.tmp")
        temporary.rename(unnumbered)
        remove_leftovers(tmp_path)
        assert unnumbered.exists()
    finally:
        writer.kill()
        writer.wait(timeout=60)
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_removed_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    """Another process takes the file that has just been made, and is not locked yet, for a leftover."""
    calls = []

    def lock(file, wait=False):
        calls.append(file)
        if len(calls) == 1:
            for path in tmp_path.iterdir():
                path.unlink()
        return True

    monkeypatch.setattr("utils.files.lock", lock)
    with atomic_write(tmp_path / "a", "w") as file:
        file.write("whole")
    assert len(calls) == 2 and (tmp_path / "a").read_text() == "whole"


@pytest.mark.parametrize("kind", ["file", "link to nothing"])
def test_what_is_no_folder_is_not_taken_for_one_that_was_removed(tmp_path, kind):
    """It is refused at once; a folder that another process removes is made again, for ever if need be."""
    place = tmp_path / "run"
    place.write_text("") if kind == "file" else place.symlink_to(tmp_path / "nothing")
    with pytest.raises(OSError):
        locks.Ownership(place, "test")


def test_a_file_system_without_locks_is_said_to_be_one(data, tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    ran = call(pretrain_moco_mask.main, pretraining(data, tmp_path / "run", "--max-steps 1"))
    assert ran.status == 0 and "without locks: nothing keeps a second run out" in ran.out, ran.err


def take_turns(folder, inside, barrier, turns):
    """Has the folder so often; `inside` can be made only where nobody else is between its making and its removal."""
    barrier.wait()
    for _ in range(turns):
        taken = False
        while not taken:
            with contextlib.suppress(UserError), locks.Ownership(folder, "test"):
                inside.mkdir()
                inside.rmdir()
                taken = True


def test_many_take_turns(tmp_path):
    """Of many that take and release at once never two have the folder, though each removes the file it has locked."""
    context = multiprocessing.get_context("fork")
    arguments = (tmp_path / "folder", tmp_path / "inside", context.Barrier(4), 100)
    started = [context.Process(target=take_turns, args=arguments) for _ in range(4)]
    for process in started:
        process.start()
    assert [finish(process) for process in started] == [0] * 4


def test_who_holds_it_is_read_from_a_damaged_file_too(tmp_path):
    with locks.Ownership(tmp_path / "run", "test"):
        (tmp_path / "run" / locks.OWNER).write_text("{")
        with pytest.raises(UserError, match="being written by another process"):
            locks.Ownership(tmp_path / "run", "test")
