"""Several processes where the machine's own name is known to nobody, as in many containers and clusters."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
import torch.distributed as distributed
distributed.init_process_group("gloo")
x = torch.ones(1)
distributed.all_reduce(x)
print("sum", x.item(), flush=True)
distributed.destroy_process_group()
"""
NAMELESS = ["unshare", "-u", "bash", "-c", 'hostname no-such-host && exec "$@"', "-"]
able = all(map(shutil.which, NAMELESS[:1] + ["hostname"]))
able = able and not subprocess.run([*NAMELESS, "true"], capture_output=True).returncode


@pytest.mark.slow
@pytest.mark.skipif(not able, reason="no right to give a process another host name")
@pytest.mark.parametrize("launcher", ["torchrun --local-addr=127.0.0.1", "engine.launch"])
def test_processes_find_each_other_without_a_host_name(tmp_path, launcher):
    """Both launches of docs/pretraining.md, of a short program."""
    (tmp_path / "program.py").write_text(PROGRAM)
    assert launcher in (ROOT / "docs" / "pretraining.md").read_text()
    if launcher.startswith("torchrun"):
        launch = ["torch.distributed.run", "--local-addr=127.0.0.1", "--nproc_per_node=2"]
    else:
        launch = ["engine.launch", "--processes", "2"]
    command = [*NAMELESS, sys.executable, "-m", *launch, str(tmp_path / "program.py"), str(ROOT)]
    ran = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0 and ran.stdout.count("sum 2.0") == 2, ran.stderr[-2000:]


def test_constraints_fit_the_requirements():
    """Each requirement has a version that the figures were made with, within its range."""
    from packaging.requirements import Requirement

    def read(name):
        lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text().splitlines()]
        return [Requirement(line) for line in lines if line and not line.startswith("-")]

    fixed = {entry.name: next(iter(entry.specifier)).version for entry in read("constraints.txt")}
    for entry in read("requirements.txt") + read("requirements-dev.txt"):
        assert entry.specifier.contains(fixed[entry.name]), entry
