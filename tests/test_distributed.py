"""Several processes on one machine (gloo): they compute what one computes, stop together, fail together."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from processes import ROOT, Processes, launched_as, wait_for_lines
from programs import call, refused
from tiny_runs import lines, pretraining, same, weights

import action_classification
import pretrain_moco_mask
from models.norm import ViewNorm
from models.pcm3 import PCM3, PCM3Config
from utils import checkpoint as files
from utils.distributed import World, connect
from utils.errors import UserError

PROGRAM = "pretrain_moco_mask"


def distance(a: dict, b: dict) -> float:
    """The largest difference of two states, relative to the norm of each tensor."""
    assert list(a) == list(b)
    return max(float((a[n].double() - b[n].double()).norm() / a[n].double().norm().clamp_min(1e-30)) for n in a)


def equal_after(data, tmp_path, size: int, more: str, steps: int) -> None:
    """Runs one process here and `size` beside it, in float64, and compares losses, weights, momenta."""
    more = f"{more} --max-steps {steps} --precision fp64"
    assert call(pretrain_moco_mask.main, pretraining(data, tmp_path / "one", more)).status == 0
    for ended in Processes(size, PROGRAM, pretraining(data, tmp_path / "many", more)).wait():
        assert ended.status == 0, ended.err
    one, many = (files.load(tmp_path / name / files.LAST) for name in ("one", "many"))
    assert distance(one["state_dict"], many["state_dict"]) < 1e-9
    momenta = [{str(i): s["momentum_buffer"] for i, s in x["optimizer"]["state"].items()} for x in (one, many)]
    assert distance(*momenta) < 1e-7  # gradients that a norm cancels are rounding only, see the prompts
    ours, theirs = lines(tmp_path / "one"), lines(tmp_path / "many")
    for left, right in zip(ours, theirs, strict=True):
        # alignment is that of the main process's rows, see engine.monitor
        timeless = [n for n in left if "seconds" not in n and (n != "alignment" or size == 1)]
        assert {n: left[n] for n in timeless} == pytest.approx({n: right[n] for n in timeless}, rel=1e-9)


LAST_WORDS = """
import os, sys
sys.path.insert(0, {root!r})
import pretrain_moco_mask
status = pretrain_moco_mask.main(sys.argv[1:])
names = [open(f"/proc/self/task/{{task}}/comm").read().strip() for task in os.listdir("/proc/self/task")]
print("threads:", *(name for name in names if "gloo" in name))
sys.exit(status)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at threads in /proc")
def test_closed_group_leaves_no_thread(data, tmp_path):
    """A thread of the group that still has a tensor to drop when the interpreter goes down aborts the process."""
    program = tmp_path / "program.py"
    program.write_text(LAST_WORDS.format(root=str(ROOT)))
    words = [sys.executable, str(program), *pretraining(data, tmp_path / "run", "--max-steps 2").split()]
    both = [subprocess.Popen(words, env={**os.environ, **v}, stdout=-1, text=True) for v in launched_as(2)]
    for process in both:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0 and out.splitlines()[-1] == "threads:"


def test_two_processes_are_one(data, tmp_path):
    """With prompts, a mask for each clip (the hidden coordinates then differ in number between the processes)."""
    equal_after(data, tmp_path, 2, "--mask-per-sample", 9)
    log = (tmp_path / "many" / "log.txt").read_text()
    assert "2 processes" in log and "each of 2 processes sends" in log
    assert not list((tmp_path / "many").glob(".*tmp"))


@pytest.mark.slow
def test_two_processes_are_one_in_parts(data, tmp_path):
    """A part has the same clips, whoever computes them."""
    more = "--grad-accum 2 --recompute 1 --mask-per-sample"
    equal_after(data, tmp_path, 2, more, 20)


MIXINGS = {"cutmix": "1 0 0", "resizemix": "0 1 0", "mixup": "0 0 1"}


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize(
    "more",
    [
        *(f"--mix-probabilities {p}" for p in MIXINGS.values()),
        "--exp-descri PCM3_woprompt",
        "--exp-descri PCM3_woprompt --mix-probabilities 0 0 1 --mask-per-sample --stream motion",
        "--domain-prompt after_norm --stream bone --topk 5",
        "--no-masked-view --no-predicted-view --prediction-weight 0",
        "--no-query-view --no-domain-prompts --mask-per-sample",
        "--both-sides --train-both-sides --pool mean_max",
        "--grad-accum 1 --recompute 2",
        "--knn-every 2 --knn-clips 9 --save-every-minutes 0",
        "--backbone stgcn --width 16 --depth 2",  # norms within the backbone, whose views are stacked
    ],
)
def test_any_number_of_processes_is_one(data, tmp_path, size, more):
    equal_after(data, tmp_path, size, more, 20)


def test_a_norm_over_all_rows_is_torchs():
    """The arithmetic of the shared norm, with a world of two played in one process: values and gradients."""

    class Other(World):
        """Two ranks with the rows of `both` (views, 2 R, F); this one sees the second half."""

        def __init__(self, both, gradient):
            super().__init__(rank=1, size=2)
            half = both.shape[1] // 2
            first = both[:, :half]
            mean = first.mean(1)
            self.theirs = torch.stack([mean, (first - mean[:, None]).square().sum(1)])
            whole_mean, scale = both.mean(1), (both.var(1, unbiased=False) + 1e-5).rsqrt()
            normal = (first - whole_mean[:, None]) * scale[:, None]
            g = gradient[:, :half]
            self.sums = torch.stack([g.sum(1), (g * normal).sum(1)])

        def gather(self, rows, kind):
            return torch.cat([self.theirs[None], rows])

        def sum_(self, tensors, kind):
            tensors[0].add_(self.sums)

    torch.manual_seed(0)
    both, gradient = torch.randn(3, 10, 4, dtype=torch.float64) * 5 + 40, torch.randn(3, 10, 4, dtype=torch.float64)
    norm = ViewNorm(4).double()
    torch.nn.init.normal_(norm.weight)
    whole = both.clone().requires_grad_()
    expected = torch.stack([torch.nn.functional.batch_norm(v, None, None, norm.weight, norm.bias, True) for v in whole])
    expected.backward(gradient)
    norm.world = Other(both, gradient)
    own = both[:, 5:].clone().requires_grad_()
    y = norm(own.reshape(15, 4), views=3).reshape(3, 5, 4)
    y.backward(gradient[:, 5:])
    torch.testing.assert_close(y, expected[:, 5:])
    torch.testing.assert_close(own.grad, whole.grad[:, 5:], rtol=1e-9, atol=1e-12)
    reference = torch.nn.BatchNorm1d(4).double()
    for view in both:
        reference(view)
    torch.testing.assert_close(norm.running_mean, reference.running_mean)
    torch.testing.assert_close(norm.running_var, reference.running_var)


def test_a_norm_that_knows_no_others_is_refused():
    model = PCM3(PCM3Config(queue_size=8, decoder_hidden_size=8))
    model.linear.add_module("extra", torch.nn.BatchNorm1d(8))
    model.set_world(World())
    with pytest.raises(ValueError, match="linear.extra"):
        model.set_world(World(0, 2))


def test_rows_are_shared_without_rest():
    slices = [World(rank, 4).rows(12) for rank in range(4)]
    assert [i for s in slices for i in range(12)[s]] == list(range(12))
    with pytest.raises(UserError, match="--batch-size 10 .* give 8 or 12"):
        World(0, 4).rows(10)


@pytest.mark.parametrize(
    "environment, flag, words",
    [
        ({"WORLD_SIZE": "two"}, -1, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "2"}, -1, "RANK is None"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, -1, "within 0..1"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, -1, "MASTER_ADDR is not set"),
        ({}, 1, "--local_rank 1"),
    ],
)
def test_an_environment_that_is_not_complete(monkeypatch, environment, flag, words):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=words):
        connect("cpu", flag)


def test_the_old_flag_of_one_process(data, tmp_path):
    ran = call(pretrain_moco_mask.main, pretraining(data, tmp_path / "run", "--max-steps 1 --local_rank 0"))
    assert ran.status == 0, ran.err


def stop_two(data, run) -> int:
    """Two processes, of which SIGUSR1 reaches rank 1 alone; returns the step after which both have stopped."""
    processes = Processes(2, PROGRAM, pretraining(data, run))
    wait_for_lines(run / "metrics.jsonl", 2)
    os.kill(processes.started[1].pid, signal.SIGUSR1)
    main, other = processes.wait()
    assert (main.status, other.status) == (75, 75), (main.err, other.err)
    assert "stopped by a signal to another process" in main.out and "--resume auto" in main.out and not other.out
    return files.load(run / files.LAST)["step"]


def test_a_stop_signal_stops_all_and_one_process_goes_on(data, tmp_path):
    step = stop_two(data, tmp_path / "run")
    ran = call(pretrain_moco_mask.main, pretraining(data, tmp_path / "run", f"--resume auto --max-steps {step + 1}"))
    assert ran.status == 0 and f"at step {step}" in ran.out, ran.err


@pytest.mark.slow
def test_resuming_two_processes_is_never_having_stopped(data, tmp_path):
    """Bit for bit."""
    more = f"--max-steps {stop_two(data, tmp_path / 'run') + 3}"
    for run, resume in (("run", " --resume auto"), ("whole", "")):
        for ended in Processes(2, PROGRAM, pretraining(data, tmp_path / run, more + resume)).wait():
            assert ended.status == 0, ended.err
    assert same(weights(tmp_path / "run" / files.LAST), weights(tmp_path / "whole" / files.LAST))


def test_a_process_that_dies_ends_the_others_by_name(data, tmp_path):
    run = tmp_path / "run"
    processes = Processes(3, PROGRAM, pretraining(data, run).replace("--batch-size 4", "--batch-size 6"))
    wait_for_lines(run / "metrics.jsonl", 1)
    gone = processes.started[2]
    gone.kill()
    ended = processes.wait(30)
    assert [e.status for e in ended] == [2, 2, -9]
    for rank in (0, 1):
        (line,) = [text for text in ended[rank].err.splitlines() if text.startswith("error: ")]
        assert f"rank {rank} of 3" in line and f"rank 2 (process {gone.pid}) has ended" in line
        assert "Traceback" not in ended[rank].err


def test_a_failed_write_is_an_error_everywhere(data, tmp_path):
    """The main process meets a limit of the size of files, as it would meet a full disk, in the middle of the run."""
    resource = pytest.importorskip("resource")
    run = tmp_path / "run"
    processes = Processes(2, PROGRAM, pretraining(data, run, "--save-every-minutes 0"))
    wait_for_lines(run / "metrics.jsonl", 1)
    resource.prlimit(processes.started[0].pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
    main, other = processes.wait(60)
    assert (main.status, other.status) == (2, 2), (main.err, other.err)
    assert "error: rank 0: " in main.err and "size limit" in main.err and "Traceback" not in main.err + other.err
    assert "error: rank 1: ended because of rank 0" in other.err
    assert files.load(run / files.LAST)["step"] > 0 and not list(run.glob(".*tmp"))


@pytest.mark.slow
def test_a_run_folder_that_cannot_be_made_is_an_error_everywhere(data, tmp_path):
    (tmp_path / "file").write_text("")
    ended = Processes(2, PROGRAM, pretraining(data, tmp_path / "file" / "run")).wait(60)
    assert [e.status for e in ended] == [2, 2]
    assert "error: rank 0: run folder" in ended[0].err and "ended because of rank 0: run folder" in ended[1].err


@pytest.mark.slow
def test_linear_evaluation_of_two_processes_is_that_of_one(data, tmp_path):
    """Bit for bit: each clip is encoded in the same batch, whichever process does it."""
    more = f"--data-root {data} --finetune-dataset tiny --hidden-size 16 --num-layers 1 --epochs 3 --batch-size 8 --device cpu"
    more += " --precision fp32"
    ran = call(action_classification.main, f"{more} --threads 1 --checkpoint-path {tmp_path}/one")
    assert ran.status == 0, ran.err
    for ended in Processes(2, "action_classification", f"{more} --threads 1 --checkpoint-path {tmp_path}/two").wait():
        assert ended.status == 0, ended.err
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    assert one == two
    a, b = (torch.load(tmp_path / n / "classifier.pth", weights_only=True) for n in ("one", "two"))
    assert same(a["fc"], b["fc"]) and same(a["state_dict"], b["state_dict"])


def test_fine_tuning_is_one_process(data, tmp_path, monkeypatch):
    monkeypatch.setattr(action_classification, "connect", lambda *_: World(0, 2))
    arguments = (
        f"--data-root {data} --finetune-dataset tiny --mode finetune --checkpoint-path {tmp_path}/run --device cpu"
    )
    refused(call(action_classification.main, arguments), "--mode finetune", "one process", "python")


@pytest.mark.slow
def test_torchrun(data, tmp_path):
    """The real launcher: a run to its end, the old flag, a batch that cannot be shared, a process that is killed."""

    def torchrun(more, run="run"):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        return subprocess.Popen(
            [*launch, f"{PROGRAM}.py", *pretraining(data, tmp_path / run, more).split()],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    process = torchrun("--max-steps 2 --local_rank 0")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and out.count("done: ") == 1, err
    process = torchrun("--batch-size 5 --max-steps 2")
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0 and "--batch-size 5 is the total" in err
    process = torchrun("", "killed")
    wait_for_lines(tmp_path / "killed" / "metrics.jsonl", 1)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(children[-1]), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0 and "Signal 9 (SIGKILL)" in err
    process = torchrun("", "stopped")
    wait_for_lines(tmp_path / "stopped" / "metrics.jsonl", 1)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(children[-1]), signal.SIGUSR1)
    _, err = process.communicate(timeout=60)
    assert "exitcode  : 75" in err and files.load(tmp_path / "stopped" / files.LAST)["step"] > 0
    again = call(pretrain_moco_mask.main, pretraining(data, tmp_path / "stopped", "--resume auto --max-steps 1"))
    assert again.status == 0, "one process goes on where two stopped"


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices")
def test_two_cards_compute_what_one_does(data, tmp_path):
    equal_after(data, tmp_path, 2, "--device cuda", 6)


def test_a_batch_that_cannot_be_shared_is_refused(data, tmp_path, monkeypatch):
    world = World(0, 3)
    monkeypatch.setattr(pretrain_moco_mask, "connect", lambda *_: world)
    for name in ("main_first", "on_main"):
        monkeypatch.setattr(world, name, lambda work: work())
    monkeypatch.setattr(world, "broadcast", lambda value: value)
    refused(call(pretrain_moco_mask.main, pretraining(data, tmp_path / "run")), "--batch-size 4", "by 3")
