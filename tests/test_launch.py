"""Signals under launchers: all processes save and stop, the status says so, and what is printed goes on."""

import os
import shlex
import signal
import subprocess
import sys

import pytest
from processes import ROOT, until, wait_for_lines
from programs import call
from tiny_runs import EPOCHS, MODEL, SMALL, pretrain, pretraining

import pretrain_moco_mask
from engine.launch import status_of
from engine.signals import StopRequest
from utils import checkpoint as files

PROGRAM = "pretrain_moco_mask.py"


def begin(words, **environment):
    """Starts a command in a session of its own, as a scheduler does."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.Popen(words, cwd=ROOT, start_new_session=True, env=environment, **pipes)


def launched(data, run, more="", launcher="engine.launch --processes 2"):
    return begin([sys.executable, "-m", *launcher.split(), PROGRAM, *pretraining(data, run, more).split()])


def gone_on(data, run) -> None:
    """The run was saved, and goes on from there."""
    step = files.load(run / files.LAST)["step"]
    ran = pretrain(data, run, f"--resume auto --epochs {EPOCHS} --max-steps {step + 1}")
    assert ran.status == 0 and f"at step {step}" in ran.out, ran.err


def wait_free(run, seconds=60) -> None:
    """Returns when no process owns the run folder."""
    until(lambda: not (run / ".owner").exists(), "the folder is not free", seconds)


@pytest.mark.parametrize("name", ["SIGUSR1", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_the_launcher_passes_signals_on(data, tmp_path, name):
    run = tmp_path / "run"
    process = launched(data, run)
    wait_for_lines(run / "metrics.jsonl", 1)
    process.send_signal(getattr(signal, name))
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75, out
    assert f"stopped by {name}" in out and "Traceback" not in out and not (run / ".owner").exists()
    gone_on(data, run)


@pytest.mark.slow
def test_a_killed_launcher_takes_nobody_with_it(data, tmp_path):
    run = tmp_path / "run"
    process = launched(data, run)
    wait_for_lines(run / "metrics.jsonl", 1)
    process.kill()
    out, _ = process.communicate(timeout=60)  # the processes hold the pipe until they have ended
    assert "stopped by the end of its launcher" in out and "Traceback" not in out, out
    gone_on(data, run)


@pytest.mark.slow
def test_a_failure_is_the_status(data, tmp_path):
    process = launched(data, tmp_path / "run", "--batch-size 5")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and "--batch-size 5 is the total" in out, out
    process = launched(data, tmp_path / "run", "--max-steps 1")
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM"])
def test_torchrun_itself(data, tmp_path, name):
    """What it does with a signal is its own; the run is saved, stops, and goes on, whatever its launcher's status."""
    run = tmp_path / "run"
    process = launched(data, run, launcher="torch.distributed.run --standalone --nproc_per_node=2")
    wait_for_lines(run / "metrics.jsonl", 1)
    process.send_signal(getattr(signal, name))
    out, _ = process.communicate(timeout=60)
    assert process.returncode == {"SIGUSR1": -signal.SIGUSR1, "SIGTERM": 1}[name], out
    assert f"stopped by {'the end of its launcher' if name == 'SIGUSR1' else name}" in out
    wait_free(run)
    gone_on(data, run)


def test_what_a_stopped_run_prints_goes_on(data, tmp_path):
    """Of a run with --init-from and --start-epoch, which --resume refuses to be given with."""
    assert pretrain(data, tmp_path / "first", "--max-steps 1").status == 0
    first = f"{tmp_path}/first/{files.LAST}"
    run = tmp_path / "my run"
    words = pretraining(data, "RUN", f"--init-from={first} --start-epoch 1").split()
    process = begin([sys.executable, PROGRAM, *(str(run) if word == "RUN" else word for word in words)])
    wait_for_lines(run / "metrics.jsonl", 1)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75, out
    (line,) = [line for line in out.splitlines() if "resume with: " in line]
    printed = shlex.split(line.partition("resume with: ")[2])
    assert printed[:2] == ["python", PROGRAM] and printed[-2:] == ["--resume", "auto"]
    step = files.load(run / files.LAST)["step"]
    ran = call(pretrain_moco_mask.main, shlex.join([*printed[2:], "--max-steps", str(step + 1)]))
    assert ran.status == 0 and f"at step {step}" in ran.out, ran.err


def test_what_counts_as_another_signal(monkeypatch):
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)  # a scheduler that sends both, or to both a script and its processes
        assert stop.received == "SIGUSR1"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with StopRequest(launched=True) as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # a terminal that sends it to all, and a launcher that passes it on
        monkeypatch.setattr("engine.signals.REPEATED", 0.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    with StopRequest(launched=True) as stop:
        assert stop.received is None
        monkeypatch.setattr("engine.signals._PARENT", -1)
        assert stop.received == "the end of its launcher"


@pytest.mark.parametrize(
    "statuses, received, status",
    [
        ([0, 0], None, 0),
        ([0, 0], signal.SIGTERM, 0),
        ([75, 75], None, 75),
        ([75, 75], signal.SIGUSR1, 75),
        ([-15, 2], signal.SIGTERM, 75),  # before it had begun
        ([-15, 2], None, 143),
        ([], signal.SIGTERM, 75),
        ([2, 2], None, 2),
        ([2, 2], signal.SIGUSR1, 2),  # a full disk, say
        ([2, -9], None, 2),
    ],
)
def test_the_status_of_a_group(statuses, received, status):
    assert status_of(statuses, received) == status


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("name", ["SIGUSR1", "SIGTERM"])
def test_the_script_ends_with_75_and_goes_on(data, tmp_path, processes, name):
    """Stopped while it pretrains, stopped while it evaluates, then to its end."""
    words = [
        "bash",
        "script_pretrain_moco.sh",
        "tiny",
        "cross_subject",
        *f"{SMALL} {MODEL} --schedule 1 --epochs 2".split(),
    ]
    folder = os.path.dirname(sys.executable)
    settings = {"RUNS": str(tmp_path / "runs"), "DATA_ROOT": str(data), "PATH": f"{folder}:{os.environ['PATH']}"}
    settings |= {"PROCESSES": processes}
    run = tmp_path / "runs" / "tiny_cross_subject_joint"
    process = begin([*words, "--epochs", "100000"], **settings)
    wait_for_lines(run / "metrics.jsonl", 1)
    process.send_signal(getattr(signal, name))
    out, _ = process.communicate(timeout=90)
    assert process.returncode == 75 and "Traceback" not in out, out
    step = files.load(run / files.LAST)["step"]
    epochs = str(step // 4 + 2)
    process = begin([*words, "--epochs", epochs], **settings)
    wait_for_lines(run / "linear" / "metrics.jsonl", 1, 120)
    process.send_signal(getattr(signal, name))
    out, _ = process.communicate(timeout=90)
    assert process.returncode == 75 and f"at step {step}" in out, out
    done = files.load(run / files.LAST)["step"]
    assert done == 4 * int(epochs)
    process = begin([*words, "--epochs", epochs], **settings)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0 and f"at step {done}" in out and "weights 0.6 0.6 0.4" in out, out
    process = begin([*words, "--epochs", epochs], **settings)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and "training clips, last" not in out, "what is evaluated is not evaluated again"
