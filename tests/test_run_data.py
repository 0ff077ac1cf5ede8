"""The data is part of the run: other arrays under the same name are noticed, by resuming, evaluating and fusing."""

import json
import os
import shutil

import numpy as np
import pytest
from make_tiny import write_tiny_dataset
from processes import finish, fork, until
from programs import call, refused
from tiny_runs import lines, pretraining

import action_classification
import action_retrieval
from tools import ensemble
from utils import checkpoint as files
from utils.fingerprint import differences
from utils.fusion import read_scores

PLAIN = "--device cpu --threads 1"


def flags(root, more):
    return pretraining(f"{root}/data", f"{root}/run", more)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A data set and a run of two steps on it."""
    root = tmp_path_factory.mktemp("trained")
    write_tiny_dataset(root / "data", train=17, frames=120)
    assert finish(fork("pretrain_moco_mask", flags(root, "--max-steps 2"), root / "log")) == 0, (
        root / "log"
    ).read_text()
    return root


@pytest.fixture
def root(trained, tmp_path):
    """A copy of both, to be spoilt."""
    shutil.copytree(trained, tmp_path / "root")
    return tmp_path / "root"


def scale(folder, split="train"):
    data = np.load(folder / f"{split}_data_joint.npy")
    data[:, 0] *= np.float32(1.001)
    np.save(folder / f"{split}_data_joint.npy", data)


def fewer(folder):
    other = write_tiny_dataset(folder.parent.parent.parent / "other", train=12, frames=120)
    for path in other.glob("xsub/*"):
        shutil.copy(path, folder / path.name)


CHANGES = {
    "coordinates": (scale, "other coordinates in the train split"),
    "fewer": (fewer, "17 train clips then, 12 now"),
}


@pytest.mark.parametrize("change", ["coordinates", pytest.param("fewer", marks=pytest.mark.slow)])
def test_resuming_on_other_data(root, tmp_path, change):
    """In processes: refused with what differs; with the flag it goes on, says so in arguments.json, and needs it once."""
    spoil, words = CHANGES[change]
    before = json.loads((root / "run" / "arguments.json").read_text())
    spoil(root / "data" / "tiny" / "xsub")
    assert finish(fork("pretrain_moco_mask", flags(root, "--resume auto --max-steps 3"), tmp_path / "log")) == 2
    log = (tmp_path / "log").read_text()
    (line,) = [line for line in log.splitlines() if line.startswith("error: ")]
    assert words in line and "--resume-on-other-data" in line and "Traceback" not in log
    assert json.loads((root / "run" / "arguments.json").read_text()) == before
    assert files.load(root / "run" / files.LAST)["step"] == 2
    for step, more in ((3, "--resume-on-other-data"), (4, "")):
        process = fork("pretrain_moco_mask", flags(root, f"--resume auto --max-steps {step} {more}"), tmp_path / "log")
        assert finish(process) == 0, (tmp_path / "log").read_text()
        start = json.loads((root / "run" / "arguments.json").read_text())[-1]
        assert start["arguments"]["resume_on_other_data"] is bool(more)
        assert bool(differences(before[0]["data"], start["data"]))
    assert f"--resume-on-other-data: {words}" in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_data_that_was_moved_is_the_same_data(root):
    for path in root.glob("data/tiny/xsub/*.*"):
        os.utime(path)
    shutil.move(root / "data", root / "elsewhere")
    shutil.copytree(root / "elsewhere", root / "data")
    assert finish(fork("pretrain_moco_mask", flags(root, "--resume auto --max-steps 3"), root / "log")) == 0


def test_evaluations_know_the_encoders_data(root, tmp_path):
    pretrained = f"{root}/run/{files.LAST}"
    command = f"--data-root {root}/data --pretrained {pretrained} --recall 1 --checkpoint-path {tmp_path}/r {PLAIN}"
    assert call(action_retrieval.main, command).status == 0
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert result["data"]["train"] == files.load(pretrained)["data"]["train"] and result["data"]["val"]["clips"] == 12
    scale(root / "data" / "tiny" / "xsub")
    refused(call(action_retrieval.main, command), "other coordinates in the train split", "--evaluate-on-other-data")
    ran = call(action_retrieval.main, f"{command} --evaluate-on-other-data")
    assert ran.status == 0, ran.err
    result = json.loads((tmp_path / "r" / "result.json").read_text())
    assert "other coordinates in the train split" in result["pretraining"]["warning"]


@pytest.mark.slow
def test_features_say_their_data(root, tmp_path):
    command = f"--data-root {root}/data --pretrained {root}/run/{files.LAST} --recall 1 {PLAIN}"
    assert call(action_retrieval.main, f"{command} --save-features --checkpoint-path {tmp_path}/a").status == 0
    again = f"--features {tmp_path}/a/features.npz --recall 1 --checkpoint-path {tmp_path}/b {PLAIN}"
    assert call(action_retrieval.main, again).status == 0
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in "ab")
    assert one["data"] == two["data"] and one["data"]["val"]["clips"] == 12


def test_fusing_scores_of_other_test_data(root, tmp_path):
    """The same names and labels; the clips themselves are others."""
    folder = root / "data" / "tiny" / "xsub"
    command = f"--data-root {root}/data --finetune-dataset tiny --hidden-size 16 --num-layers 1 --epochs 1 {PLAIN}"
    for name in "abc":
        if name == "c":
            scale(folder, "val")
        assert (
            call(action_classification.main, f"{command} --batch-size 8 --checkpoint-path {tmp_path}/{name}").status
            == 0
        )
    assert call(ensemble.main, f"{tmp_path}/a {tmp_path}/b").status == 0
    refused(call(ensemble.main, f"{tmp_path}/a {tmp_path}/c"), "other coordinates in the val split")
    assert read_scores(tmp_path / "a").data["val"]["clips"] == 12


def time_of(path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def timeless(run):
    return [{name: value for name, value in line.items() if "seconds" not in name} for line in lines(run)]


@pytest.mark.slow
def test_lines_of_a_killed_run_are_those_of_an_unkilled_one(trained, tmp_path):
    """Means over an epoch of four steps, with kills in its middle: the sums are saved with the run."""

    def command(name: str, more: str) -> str:
        return pretraining(f"{trained}/data", tmp_path / name, f"-p 10 --save-every-minutes 0 {more}")

    process, log, last = None, tmp_path / "log", tmp_path / "killed" / files.LAST
    began_at = []
    for kill in range(2):
        process = fork("pretrain_moco_mask", command("killed", "--resume auto"), log)
        for _ in range(kill + 1):  # saves
            before = time_of(last)
            until(lambda before=before: time_of(last) != before, log, process=process)
        process.kill()
        assert finish(process) == -9
        began_at.append(files.load_latest(tmp_path / "killed")[0]["step"])
    assert any(step % 4 for step in began_at) or pytest.skip("both kills hit the end of an epoch")
    steps = files.load_latest(tmp_path / "killed")[0]["step"] + 5
    for name, more in (("killed", "--resume auto"), ("whole", "")):
        process = fork("pretrain_moco_mask", command(name, f"--max-steps {steps} {more}"), log)
        assert finish(process) == 0, log.read_text()
    assert timeless(tmp_path / "killed") == timeless(tmp_path / "whole")
