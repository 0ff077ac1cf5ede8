"""The shell scripts: help that does nothing else, and signals that let Python save, alone and under SLURM (as far as that can
be tried without it: srun and scontrol are stand-ins, and so is python)."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import until

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(p.name for p in ROOT.glob("script_*.sh") if p.name != "script_environment.sh")  # that one is sourced

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
PYTHON = """#!/usr/bin/env bash
trap 'sleep 0.5; echo "saved $*" >>"$RECORD"; exit 75' USR1 TERM
echo "started $*" >>"$RECORD"
case "$*" in *--finish*) exit 0 ;; esac
while :; do sleep 0.05; done
"""


@pytest.fixture
def stand_ins(tmp_path):
    """A PATH whose python runs until it gets a signal, whose srun runs its command, and whose scontrol writes it down."""
    programs = {"python": PYTHON, "srun": 'exec "$@"', "scontrol": 'echo "scontrol $*" >>"$RECORD"'}
    for name, text in programs.items():
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text if text.startswith("#!") else f"#!/usr/bin/env bash\n{text}\n")
        file.chmod(0o755)
    record = tmp_path / "record.txt"
    record.touch()
    keep = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    return {**keep, "PATH": path, "RECORD": str(record), "RUNS": str(tmp_path / "runs")}, record


def stopped_when_started(command, environment, record, number=signal.SIGUSR1) -> tuple[int, str]:
    """Starts a script in a process group of its own and signals all of it once python runs; (status, what was recorded)."""
    child = subprocess.Popen(
        ["bash", *command], cwd=ROOT, env=environment, start_new_session=True, stdout=subprocess.PIPE
    )
    try:
        until(lambda: "started" in record.read_text(), process=child)
        os.killpg(child.pid, number)
        status = child.wait(timeout=20)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
        child.stdout.close()
    return status, record.read_text()


@pytest.mark.parametrize("script", [*SCRIPTS, "examples/slurm_pretrain.sh"])
def test_help_prints_the_head_of_the_script_and_does_nothing(script, tmp_path):
    for flag in ("--help", "-h"):
        ran = subprocess.run(
            ["bash", script, flag],
            cwd=ROOT,
            env={**os.environ, "RUNS": str(tmp_path / "runs")},
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0 and not ran.stderr, ran.stderr
        assert "bash" in ran.stdout or "sbatch" in ran.stdout
        assert not re.search("^#", ran.stdout, re.M) and "set -" not in ran.stdout and "SBATCH" not in ran.stdout
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_to_the_whole_group_lets_python_save(stand_ins, number):
    status, record = stopped_when_started(["script_pretrain_moco.sh", "ntu60"], *stand_ins, number)
    assert status == 75
    started, saved = record.splitlines()[:2]
    assert "pretrain_moco_mask.py" in started and saved == started.replace("started", "saved")


def test_slurm_requeues_what_was_stopped(stand_ins):
    environment, record = stand_ins
    environment |= {"SLURM_ARRAY_JOB_ID": "77", "SLURM_ARRAY_TASK_ID": "2", "SLURM_SUBMIT_DIR": str(ROOT)}
    environment |= {"PCM3_VENV": "no-such-folder"}  # or the python of a real one would run
    status, said = stopped_when_started(["examples/slurm_pretrain.sh", "ntu60", "cross_view"], environment, record)
    lines = said.splitlines()
    assert status == 0 and lines[-1] == "scontrol requeue 77_2" and "--seed 2" in lines[0] and "/seed2/" in lines[0]
    assert lines[1].startswith("saved")


def test_seeds_are_pretrained_evaluated_and_gathered(stand_ins):
    environment, record = stand_ins
    environment |= {"SEEDS": "1 2", "STREAMS": "joint"}
    (Path(environment["PATH"].split(":")[0]) / "python").write_text(PYTHON.replace("*--finish*", "*"))
    ran = subprocess.run(
        ["bash", "script_pretrain_moco.sh", "ntu60", "cross_view"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    programs = [re.search(r"\w+\.py|engine\.results", line).group() for line in record.read_text().splitlines()]
    assert programs == ["pretrain_moco_mask.py", "action_classification.py"] * 2 + ["engine.results"]
    last = record.read_text().splitlines()[-1]
    runs = environment["RUNS"]
    assert last == f"started -m engine.results {runs}/seed1 {runs}/seed2 --seeds"
