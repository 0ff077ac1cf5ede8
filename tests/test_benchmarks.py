"""Every program of benchmarks/ runs, at toy size: nobody runs them for months, and then they must work."""

import json
import runpy
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from programs import call

from models.recurrent import RUNS

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
SMALL = "--hidden 32 --layers 1 --queue 16 --rounds 1 --threads 1"
COMMANDS = {
    "backbones": "--only gru --sizes hidden_size=16 num_layers=1 --batch 4 --queue 8 --rounds 1 --threads 1",
    "encoder": "--batch 2 --hidden 16 --frames 8 --layers 1 --rounds 1 --threads 1",
    "epoch": "--clips 12 --batch 4 --hidden 16 --layers 1 --queue 16 --decoder 8 --steps 2 --threads 1 --graph",
    "feeder": "--batch 4 --clips 12 --rounds 1",
    "linear": "--epochs 2 --hidden-size 16 --data-root {data} --no-memory",
    "prepare": "--clips 8 --rounds 1 --workers 1",
    "retrieval": "--queries 8 --gallery 32 --width 16 --map",
    "step": f"--batch 4 {SMALL} --only ours --graph",
}
SLOW = {
    "backbones",
    "encoder",
    "step",
}  # those that start processes, each of which imports torch
KEYS = {  # of the JSON line, one figure of each
    "encoder": "ours",
    "epoch": "median_s",
    "feeder": "batch",
    "linear": "exact",
    "prepare": "fast_ms_per_clip",
    "retrieval": "median_s",
    "step": "ours_graph",
}


# Of UI-PRMD's name, so that the real one is not made.
TINY_DATASET = dict(name="ui_prmd", protocols=("xsub",), train=20, val=10, classes=10, persons=1, frames=120)


def test_each_has_a_command():
    assert {path.stem for path in FOLDER.glob("bench_*.py")} == {f"bench_{name}" for name in COMMANDS}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in COMMANDS]
)
def test_it_runs(name, data):
    ran = call(import_module(f"benchmarks.bench_{name}").main, COMMANDS[name].format(data=data))
    assert ran.status == 0, ran.err
    if name in KEYS:
        figures = json.loads(ran.out.splitlines()[-1])
        assert figures[KEYS[name]]
    else:
        assert ran.out.splitlines()[-1].startswith("| gru | 32 |")


def test_the_check_of_a_card_at_toy_size(tmp_path):
    """All of benchmarks/gpu_check.sh but the environment and the tests: what runs on a processor has its figures, all the
    rest a reason."""
    path = tmp_path / "check.json"
    words = f"--device cpu --toy --threads 1 --steps 1 --no-tests --output {path}"
    ran = call(import_module("benchmarks.gpu_check").main, words)
    assert ran.status == 0, ran.err
    result = json.loads(path.read_text())
    times = {name: row.get("ms", 0) for name, row in result["steps"].items()}
    assert len(times) == 10 + len(RUNS) and all(f"| {name} | " in ran.out for name in times)
    assert {name for name, ms in times.items() if not ms > 0} <= {"ours bf16 wavefront captured"}
    assert all(row["median_s"] > 0 for row in result["epochs"].values()) and len(result["epochs"]) == 2
    assert result["place"]["torch"] == torch.__version__ and result["sizes"]["hidden"] == 16


@pytest.mark.slow
def test_the_check_counts_the_tests_of_a_card(tmp_path):
    """Without a card they are all skipped, none fails."""
    line = import_module("benchmarks.gpu_check").check_tests(300)
    assert "skipped" in line and "failed" not in line and "error" not in line


def test_the_check_stops_in_time(tmp_path):
    ran = call(
        import_module("benchmarks.gpu_check").main, f"--device cpu --toy --minutes 1e-9 --output {tmp_path}/c.json"
    )
    result = json.loads((tmp_path / "c.json").read_text())
    assert ran.status == 0 and {row["not run"] for row in result["steps"].values()} == {"out of time"}


@pytest.mark.parametrize("name", COMMANDS)
def test_it_is_found_by_its_path(name, monkeypatch):
    """`python benchmarks/bench_X.py` has the folder benchmarks/ on its path, not the repository."""
    root = str(FOLDER.parent)
    monkeypatch.setattr(sys, "path", [str(FOLDER), *(entry for entry in sys.path if entry not in (root, ""))])
    for module in [m for m in sys.modules if m.split(".")[0] in ("benchmarks", "pretrain_moco_mask")]:
        monkeypatch.delitem(sys.modules, module)
    assert callable(runpy.run_path(str(FOLDER / f"bench_{name}.py"), run_name="by_path")["main"])
