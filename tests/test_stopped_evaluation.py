"""Evaluations under SIGTERM: what is done is kept, and what goes on ends with the same numbers, to the last bit."""

import json
import os
import signal

import numpy as np
import pytest
import torch
from make_checkpoint import write_pretrained
from make_tiny import write_tiny_dataset, write_tiny_videos
from programs import call, refused
from tiny_runs import pretrain

import action_classification
import action_detection
import motion_prediction
from engine import fit, progress
from engine.pace import Pace, counted, duration
from engine.signals import EXIT_STOPPED
from utils import checkpoint as files
from utils.fusion import read_scores

STEPS = 3 * 3  # of a seed: 24 clips in batches of 8, three epochs


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("stopped")
    write_tiny_dataset(root / "data", "tiny", train=24, val=8, frames=60)
    write_tiny_videos(root / "data/whole", 3, "kinect_v2_25", persons=2)
    write_pretrained(root / "encoder.pth.tar", arguments={"stream": "joint"})
    return root


@pytest.fixture
def start(world, monkeypatch):
    """Runs a program; stop_after: steps after which a SIGTERM comes."""
    for program, names in (
        (action_classification, ("draw_confusion", "draw_curves")),
        (action_detection, ("draw_timeline",)),
        (motion_prediction, ("draw_clips", "draw_curves")),
    ):
        for name in names:
            monkeypatch.setattr(program, name, lambda *given, **more: None)

    def run(program, folder, flags="", stop_after=None):
        steps = []

        class Stopping(Pace):
            def after(self, done, about=""):
                steps.append(done)
                super().after(done, about)
                if len(steps) == stop_after:
                    os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(fit, "Pace", Stopping)
        command = f"--data-root {world}/data --pretrained {world}/encoder.pth.tar --epochs 3 --batch-size 8 --threads 1"
        return call(program.main, f"{command} --output {folder} {flags}"), steps

    return run


@pytest.fixture
def evaluate(start):
    return lambda folder, flags="", stop_after=None: start(
        action_classification, folder, f"--dataset tiny {flags}", stop_after
    )


def everything(folder):
    """Result, scores, weights and metrics of a run."""
    result = json.loads((folder / "result.json").read_text())
    content = files.load(folder / "classifier.pth")
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return result, read_scores(folder).scores, {**content["state_dict"], **content["fc"]}, metrics


@pytest.mark.parametrize("mode", ["--mode linear", "--mode linear --standardise", "--mode finetune --test-every 1"])
def test_a_stopped_evaluation_goes_on_to_the_same_numbers(evaluate, tmp_path, mode):
    """Stopped within an epoch of the second seed, then at the end of an epoch."""
    flags = f"{mode} --seed 1 2 --occlusion temporal"
    whole, steps = evaluate(tmp_path / "whole", flags)
    assert whole.status == 0 and len(steps) == 2 * STEPS
    ran, _ = evaluate(tmp_path / "cut", flags, stop_after=STEPS + 4)
    assert ran.status == EXIT_STOPPED, ran.err
    assert "stopped by SIGTERM in epoch 2 of seed 2" in ran.out and "--resume auto" in ran.out
    assert not (tmp_path / "cut/result.json").exists()
    again, steps = evaluate(tmp_path / "cut", f"{flags} --resume auto", stop_after=2)
    assert again.status == EXIT_STOPPED and steps == [5, 6]
    last, steps = evaluate(tmp_path / "cut", f"{flags} --resume auto")
    assert last.status == 0 and steps == [7, 8, 9] and "seed 1: finished by an earlier start" in last.out
    (a, a_scores, a_weights, a_metrics), (b, b_scores, b_weights, b_metrics) = map(
        everything, (tmp_path / "whole", tmp_path / "cut")
    )
    assert a == b and np.array_equal(a_scores, b_scores) and a_metrics == b_metrics
    assert all(torch.equal(value, b_weights[name]) for name, value in a_weights.items())


DETECTION = "--dataset whole --length 12 --windows 4 --test-every 1 --precision fp32"
PREDICTION = "--dataset tiny --observe 20 --predict 10 --horizons 1 10 --decoder-size 8 --precision fp32"


@pytest.mark.parametrize(
    "program, flags, second",
    [
        (action_detection, f"{DETECTION} --mode tuned", "seed 2"),
        (action_detection, f"{DETECTION} --mode frozen --test-every 0", "seed 2"),
        (action_detection, f"{DETECTION} --mode sequence --length 40 --delay 4", "seed 2"),
        (motion_prediction, f"{PREDICTION} --encoder-mode tuned", "tuned, seed 2"),
        (motion_prediction, f"{PREDICTION} --encoder-mode frozen scratch --seed 3", "scratch, seed 3"),
    ],
)
def test_detection_and_prediction_go_on_to_the_same_numbers(start, tmp_path, program, flags, second):
    """Stopped within an epoch of the second training, then at its next step."""
    flags = flags if "--seed" in flags else f"{flags} --seed 1 2"
    whole, steps = start(program, tmp_path / "whole", flags)
    assert whole.status == 0, whole.err
    each = len(steps) // 2
    assert steps == [*range(1, each + 1)] * 2 and each % 3 == 0
    ran, _ = start(program, tmp_path / "cut", flags, stop_after=each + each // 3 + 1)
    assert ran.status == EXIT_STOPPED, ran.err
    assert f"stopped by SIGTERM in epoch 2 of {second}; resume" in ran.out and "--resume auto" in ran.out
    assert not (tmp_path / "cut/result.json").exists()
    again, steps = start(program, tmp_path / "cut", f"{flags} --resume auto", stop_after=1)
    assert again.status == EXIT_STOPPED and steps == [each // 3 + 2]
    last, steps = start(program, tmp_path / "cut", f"{flags} --resume auto")
    assert last.status == 0 and steps == [*range(each // 3 + 3, each + 1)]
    assert "finished by an earlier start" in last.out and f"{second}: resumed in epoch 2" in last.out
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "cut")]
    for result in results:
        result.pop("test_frames_per_second", None)  # a time
    metrics = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut")]
    assert results[0] == results[1] and metrics[0] == metrics[1]
    if program is action_detection:
        a, b = (files.load(tmp_path / name / "detector.pth") for name in ("whole", "cut"))
        assert all(torch.equal(a[kind][key], b[kind][key]) for kind in ("fc", "state_dict") for key in a[kind])
        found = [sorted((tmp_path / name / "predictions").rglob("*.txt")) for name in ("whole", "cut")]
        assert [p.read_text() for p in found[0]] == [p.read_text() for p in found[1]] and len(found[0]) > 2


@pytest.mark.parametrize("program, flags", [(action_detection, DETECTION), (motion_prediction, PREDICTION)])
def test_the_log_says_how_long_it_takes(start, tmp_path, monkeypatch, program, flags):
    """Seconds a step, what is left and when it ends, at least every five seconds (here: at once)."""
    monkeypatch.setattr("engine.pace.SILENCE", 0.0)
    monkeypatch.setattr("engine.pace.SHARE", 0.0)
    ran, steps = start(program, tmp_path / "run", f"{flags} --seed 1 --epochs 5")
    assert ran.status == 0, ran.err
    log = (tmp_path / "run/log.txt").read_text()
    assert f"for {len(steps)} steps, until" in log
    assert f"step {len(steps) - 1} of {len(steps)}, " in log and "epoch 5 of 5" in log
    assert " s a step, 1 left, " in log
    if program is action_detection:
        assert "video 1 of" in log  # the test reads every frame of every video


def test_what_is_counted_is_told_where_there_is_no_bar(monkeypatch):
    monkeypatch.setattr("engine.pace.SILENCE", -1.0)
    monkeypatch.setattr("engine.pace.SHARE", -1.0)
    said = []
    assert list(counted("abc", "video", None, said.append)) == ["a", "b", "c"]
    assert [line.split(":")[0] for line in said] == ["video 1 of 3", "video 2 of 3"]
    assert list(counted("abc", "video", True, said.append)) == ["a", "b", "c"] and len(said) == 2


def test_a_killed_evaluation_goes_on_from_what_was_saved(evaluate, tmp_path, monkeypatch):
    """Saved after every step, and killed in the next epoch: the lines of epochs that are computed again are dropped."""
    monkeypatch.setattr(progress, "SAVE_SECONDS", -1.0)
    assert evaluate(tmp_path / "whole")[0].status == 0
    ran, _ = evaluate(tmp_path / "cut", stop_after=4)
    assert ran.status == EXIT_STOPPED
    metrics = tmp_path / "cut/metrics.jsonl"
    metrics.write_text(metrics.read_text() + json.dumps({"step": 2, "seed42/loss": 9.0}) + "\n{cut off")
    assert evaluate(tmp_path / "cut", "--resume auto")[0].status == 0
    assert everything(tmp_path / "whole")[3] == everything(tmp_path / "cut")[3]


def test_more_seeds_keep_the_finished_ones(evaluate, tmp_path):
    assert evaluate(tmp_path / "run", "--seed 1")[0].status == 0
    ran, steps = evaluate(tmp_path / "run", "--seed 1 2 --resume auto")
    assert ran.status == 0 and len(steps) == STEPS
    assert set(everything(tmp_path / "run")[0]["seeds"]) == {"1", "2"}
    refused(evaluate(tmp_path / "run", "--lr 0.2 --seed 1 --resume auto")[0], "--lr 0.1", "0.2")


def test_a_folder_without_a_stopped_run_begins_anew(evaluate, tmp_path):
    ran, steps = evaluate(tmp_path / "run", "--resume auto")
    assert ran.status == 0 and len(steps) == STEPS
    (tmp_path / "odd").mkdir()
    for content in (
        {"a": 1},
        {"arguments": {}, "finished": {1: {}}, "current": None},
    ):  # the second of an earlier version
        files.save(tmp_path / "odd/progress.pth", content)
        refused(evaluate(tmp_path / "odd", "--resume auto")[0], "not a progress file", "--resume")


def test_the_log_of_a_pretraining_says_how_long_it_takes(world, tmp_path):
    ran = pretrain(world / "data", tmp_path / "run", "--batch-size 8 --epochs 451 --max-steps 13 --print-freq 100")
    assert ran.status == 0, ran.err
    lines = ran.out.splitlines()

    assert sum("for 13 steps, until" in line for line in lines) == 1
    assert [line for line in lines if " step 12 " in line and "s a step, 1 left" in line and "until" in line]
    assert [line for line in lines if " step 13 " in line and "0 left" in line]  # the last step, though no epoch ends


def test_the_pace_is_the_mean_of_the_steps_and_breaks_the_silence(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("engine.pace.time.monotonic", lambda: now[0])
    said = []
    pace = Pace(5, 1005, said.append, quiet=False)
    now[0] += 60  # the first step compiles
    for step in range(6, 31):
        pace.after(step, "epoch 1")
        now[0] += 2
    assert said[0] == "step 6 of 1005, epoch 1: the first took 60 s, 999 left"
    (about,) = [line for line in said if line.startswith("about")]
    assert about.startswith("about 34 min for 1000 steps, until") and "(2 s each)" in about
    assert said[1].startswith("step 9 of 1005, epoch 1: 2 s a step, 996 left, 33 min, until")
    assert 8 <= len(said) <= 10  # one every six seconds
    said.clear()
    assert [duration(x) for x in (5, 89, 100, 7199, 7300, 200_000)] == [
        "5 s",
        "89 s",
        "2 min",
        "120 min",
        "2.0 h",
        "2.3 days",
    ]
    quiet = Pace(0, 100, said.append, quiet=True)
    for step in range(1, 10):
        now[0] += 9
        quiet.after(step)
    assert not said  # a bar is there


def test_a_run_of_a_version_without_a_flag_goes_on_without_it(evaluate, tmp_path):
    ran, _ = evaluate(tmp_path / "run", "--no-standardise", stop_after=2)
    assert ran.status == EXIT_STOPPED
    content = files.load(tmp_path / "run" / progress.FILE)
    del content["arguments"]["standardise"]
    files.save(tmp_path / "run" / progress.FILE, content)
    refused(
        evaluate(tmp_path / "run", "--standardise --batch-size 8 --wd 0 --resume auto")[0],
        "resume with --no-standardise",
    )
    again, _ = evaluate(tmp_path / "run", "--no-standardise --resume auto")
    assert again.status == 0
