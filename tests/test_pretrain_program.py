"""The pretraining program, run as a user runs it, on a tiny data set: commands, resuming, stopping, mistakes."""

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from make_tiny import write_tiny_dataset
from processes import finish, fork, wait_for_lines
from programs import call, refused
from tiny_runs import lines, pretrain, pretraining, same, weights

import pretrain_moco_mask
from models.pcm3 import PCM3Config
from utils import checkpoint as files

ROOT = Path(__file__).resolve().parent.parent
README = (
    "--lr 0.02 --batch-size 128 --teacher-t 0.05 --student-t 0.1 --topk 16384 --mlp --contrast-t 0.07 --contrast-k 16384 "
    "--checkpoint-path mask_checkpoints/PCM3_wprompt --schedule 351 --epochs 451 --pre-dataset ntu60 "
    "--skeleton-representation graph-based --protocol cross_view --exp-descri PCM3_wprompt"
)


def test_the_readme_command_runs_on_ntu_files(tmp_path, monkeypatch):
    """The command as it stands, on a folder in NTU's format, with sizes cut to what a test may cost."""
    write_tiny_dataset(tmp_path / "data", "ntu60", ("xview",), train=130, val=4, frames=300)
    monkeypatch.chdir(tmp_path)
    ran = call(pretrain_moco_mask.main, README + " --max-steps 1 --hidden-size 16 --decoder-hidden-size 8 --device cpu")
    assert ran.status == 0, ran.err
    content = files.load(tmp_path / "mask_checkpoints/PCM3_wprompt/checkpoint_last.pth.tar")
    assert content["step"] == 1 and content["state_dict"]["queue"].shape == (128, 16384)
    assert content["state_dict"]["queue_ptr"].item() == 128


def test_a_run_folder_explains_itself(data, tmp_path):
    ran = pretrain(data, tmp_path / "run", "--save-fre 2")
    assert ran.status == 0, ran.err
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert {"arguments.json", "config.json", "log.txt", "metrics.jsonl", files.LAST} <= names
    assert {"checkpoint_0000.pth.tar", "checkpoint_0002.pth.tar"} <= names and "checkpoint_0001.pth.tar" not in names
    assert any(n.startswith("events.out") for n in names)
    assert files.load(tmp_path / "run/checkpoint_0002.pth.tar")["epoch"] == 3
    start = json.loads((tmp_path / "run/arguments.json").read_text())[0]
    assert start["arguments"]["hidden_size"] == 16 and start["versions"]["torch"] == str(torch.__version__)
    wanted = {f"contrast_{v}" for v in ("query", "masked", "predicted", "mixed")} | {
        "distillation",
        "prediction",
        "total",
    }
    wanted |= {"lr", "gradient_norm", "seconds_per_step", "data_seconds_per_step", "top1_query", "top1_mixed"}
    assert wanted <= set(lines(tmp_path / "run")[-1])
    assert lines(tmp_path / "run")[-1]["step"] == 12
    content = files.load(tmp_path / "run" / files.LAST)
    assert content["step"] == 12 and content["arguments"]["stream"] == "joint" and content["config"]["queue_size"] == 12


@pytest.mark.parametrize(
    "more", ["", "--exp-descri PCM3_woprompt --stream motion -j 3", "--mask-per-sample --stream bone"]
)
def test_resuming_is_never_having_stopped(data, tmp_path, more):
    """Bit for bit, stopped in the middle of an epoch, with another number of workers."""
    assert pretrain(data, tmp_path / "whole", more).status == 0
    assert pretrain(data, tmp_path / "part", more + " --max-steps 6").status == 0
    ran = pretrain(data, tmp_path / "part", more.replace("-j 3", "") + " -j 2 --resume auto")
    assert ran.status == 0 and "at step 6" in ran.out
    a, b = (files.load(tmp_path / name / files.LAST) for name in ("whole", "part"))
    assert same(a["state_dict"], b["state_dict"])
    momentum = [x["optimizer"]["state"] for x in (a, b)]
    assert all(torch.equal(momentum[0][i]["momentum_buffer"], momentum[1][i]["momentum_buffer"]) for i in momentum[0])
    by_step = [[r["total"] for r in lines(tmp_path / n) if r["step"] % 4 == 0] for n in ("whole", "part")]
    assert by_step[0] == by_step[1]
    steps = [r["step"] for r in lines(tmp_path / "part")]
    assert steps == sorted(set(steps)), "a resumed run writes no step twice"


def test_seeds_differ_and_repeat(data, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert pretrain(data, tmp_path / name, f"--seed {seed} --max-steps 2").status == 0
    a, b, c = (weights(tmp_path / n / files.LAST) for n in "abc")
    assert same(a, b) and not same(a, c)


def test_a_checkpoint_with_an_old_name_of_a_setting_goes_on(data, tmp_path):
    """The weight of the distillation was called cmd_weight, in the model's settings and in the arguments."""
    assert pretrain(data, tmp_path / "run", "--max-steps 1 --cmd-weight 0.5").status == 0
    path = tmp_path / "run" / files.LAST
    content = files.load(path)
    for holder in (content["config"], content["arguments"]):
        holder["cmd_weight"] = holder.pop("distillation_weight")
    assert PCM3Config.from_dict(content["config"]).distillation_weight == 0.5
    files.save(path, content)
    ran = pretrain(data, tmp_path / "run", "--max-steps 2 --resume auto")
    refused(ran, "--distillation-weight 0.5, now it is --distillation-weight 1.0")
    assert pretrain(data, tmp_path / "run", "--max-steps 2 --resume auto --distillation-weight 0.5").status == 0


def test_resume_auto_in_an_empty_folder_starts(data, tmp_path):
    ran = pretrain(data, tmp_path / "run", "--resume auto --max-steps 1")
    assert ran.status == 0 and "a new run" in ran.out


def test_resuming_another_run_is_refused(data, tmp_path):
    assert pretrain(data, tmp_path / "run", "--max-steps 1").status == 0
    refused(pretrain(data, tmp_path / "run", "--resume auto --contrast-t 0.2"), "--contrast-t 0.07", "0.2")
    refused(pretrain(data, tmp_path / "run", "--resume auto --batch-size 8"), "--batch-size 4")


def test_a_checkpoint_of_another_size_is_refused(data, tmp_path):
    assert pretrain(data, tmp_path / "run", "--max-steps 1").status == 0
    ran = pretrain(data, tmp_path / "other", f"--init-from {tmp_path}/run/{files.LAST} --contrast-dim 64")
    refused(ran, "fc.2", "(64,")


def test_init_from_takes_weights_only(data, tmp_path):
    assert pretrain(data, tmp_path / "run", "--max-steps 3").status == 0
    source = f"{tmp_path}/run/{files.LAST}"
    ran = pretrain(data, tmp_path / "next", f"--init-from {source} --max-steps 1 --lr 1e-12 --wd 0")
    assert ran.status == 0
    a, b = weights(source), weights(tmp_path / "next" / files.LAST)
    torch.testing.assert_close(a["encoder_q.encoder.gru.weight_hh_l0"], b["encoder_q.encoder.gru.weight_hh_l0"])
    assert files.load(tmp_path / "next" / files.LAST)["step"] == 1
    # without --recipe, a set of any size: that of the checkpoint, whose encoder another recipe would not have
    ran = call(
        pretrain_moco_mask.main,
        pretraining(data, tmp_path / "auto", f"--init-from {source} --max-steps 1").replace("--recipe paper", ""),
    )
    assert ran.status == 0 and "recipe paper (as before)" in ran.out, ran.out + ran.err
    ran = pretrain(data, tmp_path / "third", f"--init-from {source} --max-steps 9 --start-epoch 2")
    assert ran.status == 0 and files.load(tmp_path / "third" / files.LAST)["step"] == 9


def test_a_diverged_checkpoint_is_not_gone_on_from(data, tmp_path):
    assert pretrain(data, tmp_path / "run", "--max-steps 1").status == 0
    content = files.load(tmp_path / "run" / files.LAST)
    content["state_dict"]["linear.0.weight"][0, 0] = float("nan")
    torch.save(content, tmp_path / "nan.pth.tar")
    for flag in ("--init-from", "--resume"):
        refused(pretrain(data, tmp_path / "next", f"{flag} {tmp_path}/nan.pth.tar"), "linear.0.weight is not finite")


def test_a_new_run_sets_the_old_one_aside(data, tmp_path):
    assert pretrain(data, tmp_path / "run", "--max-steps 2").status == 0
    old = weights(tmp_path / "run" / files.LAST)
    ran = pretrain(data, tmp_path / "run", "--max-steps 1 --seed 5")
    assert ran.status == 0 and "earlier run" in ran.out
    (aside,) = (tmp_path / "run").glob("earlier-*")
    assert same(old, weights(aside / files.LAST)) and len(lines(tmp_path / "run")) == 1


@pytest.mark.parametrize(
    "flags, trained, untouched",
    [
        ("--no-mixed-view", "mask_prompt", "mix_prompt"),
        ("--no-predicted-view", "mask_prompt", "recons_prompt"),
        ("--no-masked-view --no-predicted-view --prediction-weight 0", "mix_prompt", "linear.0.weight"),
        ("--no-task-prompts", "base_prompt", "cl_prompt"),
        ("--no-domain-prompts", "cl_prompt", "base_prompt"),
        ("--exp-descri PCM3_woprompt", "linear.0.weight", "cl_prompt"),
        ("--prediction-weight 0 --detach-predicted", "mask_prompt", "mp_prompt"),
    ],
)
def test_ablations_train_what_they_say(data, tmp_path, flags, trained, untouched):
    assert pretrain(data, tmp_path / "run", flags + " --max-steps 1").status == 0
    optimizer = files.load(tmp_path / "run" / files.LAST)["optimizer"]
    moved = {optimizer["names"][i] for i in optimizer["state"]}
    assert trained in moved and untouched not in moved
    assert not any(name.startswith("encoder_k") for name in moved)


def test_every_view_switched_off(data, tmp_path):
    only = "--no-query-view --no-masked-view --no-predicted-view --no-mixed-view"
    assert pretrain(data, tmp_path / "run", only + " --max-steps 2").status == 0
    assert "contrast_query" not in lines(tmp_path / "run")[-1] and "prediction" in lines(tmp_path / "run")[-1]
    refused(pretrain(data, tmp_path / "b", only + " --prediction-weight 0"), "nothing is left to train")


def test_topk_changes_the_distillation_only(data, tmp_path):
    for name, topk in (("all", 12), ("more", 5000), ("few", 3)):
        ran = pretrain(data, tmp_path / name, f"--max-steps 1 --topk {topk}")
        assert ran.status == 0
        assert ("--topk 5000 is more than the queue of 12 holds" in (tmp_path / name / "log.txt").read_text()) == (
            topk == 5000
        )
    all_, more, few = (lines(tmp_path / n)[-1] for n in ("all", "more", "few"))
    assert all_["distillation"] == more["distillation"] != few["distillation"]
    assert all_["contrast_query"] == few["contrast_query"]


def test_the_log_has_the_losses_that_are_trained(data, tmp_path):
    more = "--no-distillation --latent-weight 1 --view-weights masked=0 --max-steps 1 -p 1"
    assert pretrain(data, tmp_path / "run", more).status == 0
    (line,) = [line for line in (tmp_path / "run" / "log.txt").read_text().splitlines() if " step 1 " in line]
    words = set(line.split(" | ")[1].split()[::2])
    assert words == {"query", "predicted", "mixed", "prediction", "latent", "total"}
    assert {"distillation", "contrast_masked"} <= lines(tmp_path / "run")[-1].keys()


def test_schedules(data, tmp_path):
    assert pretrain(data, tmp_path / "a", "--schedule 1 2 --lr 0.1").status == 0
    rates = {r["epoch"]: r["lr"] for r in lines(tmp_path / "a")}
    np.testing.assert_allclose([rates[e] for e in range(3)], [0.1, 0.01, 0.001])
    assert pretrain(data, tmp_path / "b", "--cos --lr 0.1 --epochs 4").status == 0
    rates = {r["epoch"]: r["lr"] for r in lines(tmp_path / "b")}
    np.testing.assert_allclose([rates[e] for e in range(4)], 0.05 * (1 + np.cos(np.pi * np.arange(4) / 4)), rtol=1e-6)


def test_the_engine_of_recurrent_layers_is_asked_for_by_name(data, tmp_path, monkeypatch):
    """own and cudnn compute the same; wavefront needs Triton, and says so where there is none."""
    monkeypatch.setitem(sys.modules, "models.recurrent_wave", None)
    monkeypatch.delattr("models.recurrent_wave", raising=False)
    for name in ("own", "cudnn"):
        assert (
            pretrain(data, tmp_path / name, f"--recurrent {name} --num-layers 2 --max-steps 2 --precision fp64").status
            == 0
        )
    own, cudnn = (lines(tmp_path / name)[-1] for name in ("own", "cudnn"))
    assert own["total"] == pytest.approx(cudnn["total"], rel=1e-9)
    parts = "--recurrent streams --num-layers 2 --grad-accum 2 --precision bf16 --max-steps 1"
    assert pretrain(data, tmp_path / "parts", parts).status == 0
    refused(pretrain(data, tmp_path / "wave", "--recurrent wavefront --max-steps 1"), "--recurrent wavefront")


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp64"])
def test_precisions(data, tmp_path, precision):
    assert pretrain(data, tmp_path / "run", f"--precision {precision} --max-steps 2").status == 0
    expected = torch.float64 if precision == "fp64" else torch.float32
    assert weights(tmp_path / "run" / files.LAST)["cl_prompt"].dtype == expected


@pytest.mark.parametrize(
    "flags", ["--domain-prompt after_norm", "--no-mlp", "--num-layers 2", "--use-bone-feeder --stream bone"]
)
def test_variants_run(data, tmp_path, flags):
    assert pretrain(data, tmp_path / "run", flags + " --max-steps 2").status == 0


def test_a_loss_that_is_not_finite_stops_with_step_and_clips(data, tmp_path):
    ran = pretrain(data, tmp_path / "run", "--lr 1e30 --save-every-minutes 0")
    refused(ran, "step 1:", "not finite", "train_00")
    content = files.load(tmp_path / "run" / files.LAST)
    assert content["step"] == 1, "the checkpoint before the bad step is kept"


def test_skipping_has_a_limit(data, tmp_path):
    ran = pretrain(data, tmp_path / "run", "--lr 1e30 --on-nonfinite skip --nonfinite-limit 3")
    refused(ran, "not finite")
    assert ran.out.count("left out") == 3


@pytest.mark.parametrize(
    "flags, word",
    [
        ("--mask-ratio 0.1", "--mask-ratio"),
        ("--crop 0.9 0.2", "--crop"),
        ("--mix-probabilities 0.5 0.5 0.5", "add up to 1"),
        ("--mix-length 7 17", "16 units"),
        ("--lr nan", "--lr"),
        ("--hidden-size 20", "multiple of 16"),
        ("--resume a --init-from b", "exclude"),
        ("--stream joints", "--stream"),
        ("--epoch 3", "--epoch"),
        ("--device cuda", "--device cuda") if not torch.cuda.is_available() else ("--lr -1", "--lr"),
        ("--resume nowhere.pth.tar", "no such file"),
    ],
)
def test_mistakes_are_one_sentence(data, tmp_path, flags, word):
    refused(pretrain(data, tmp_path / "run", flags), word)


def test_a_folder_that_cannot_be_made(data, tmp_path):
    (tmp_path / "file").write_text("")
    refused(pretrain(data, tmp_path / "file" / "run"), "run folder")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_signals_save_and_tell(data, tmp_path, name):
    process = fork("pretrain_moco_mask", pretraining(data, tmp_path / "run"), tmp_path / "log")
    wait_for_lines(tmp_path / "run" / "metrics.jsonl", 2, process=process)
    os.kill(process.pid, getattr(signal, name))
    assert finish(process) == 75
    out = (tmp_path / "log").read_text()
    assert f"stopped by {name}" in out and "--resume auto" in out
    assert files.load(tmp_path / "run" / files.LAST)["step"] > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_losses_of_a_cpu(data, tmp_path):
    for device in ("cpu", "cuda"):
        ran = pretrain(data, tmp_path / device, f"--max-steps 4 --device {device}".replace("--device cpu", ""))
        assert ran.status == 0, ran.err
    a, b = lines(tmp_path / "cpu"), lines(tmp_path / "cuda")
    for left, right in zip(a, b, strict=True):
        assert left["total"] == pytest.approx(right["total"], rel=1e-3)
