"""--grad-accum and --recompute: less memory for the same step, or for one that differs as documented; freed memory."""

import os
import platform
import subprocess
import sys

import pytest
import torch
from processes import ROOT
from programs import call, refused
from tiny_runs import lines, pretrain, same, weights

import pretrain_moco_mask
from engine.step import compute_gradients
from feeder.batches import Batch
from models.encoder import EncoderConfig
from models.norm import RunningUpdates, ViewNorm
from models.pcm3 import CONTRASTS, PCM3, PCM3Config
from utils import checkpoint as files

ROWS, FRAMES, FEATURES = 8, 16, 150


def model(backbone="gru", contrasts=CONTRASTS, **more) -> PCM3:
    torch.manual_seed(0)
    sizes = {"gru": {"hidden_size": 16, "num_layers": 2}, "bigru": {"hidden_size": 16, "num_layers": 2}}
    sizes = sizes.get(backbone, {"width": 16, "depth": 2} | ({"heads": 2} if backbone != "stgcn" else {}))
    encoder = EncoderConfig(backbone=backbone, both_sides=more.get("train_both_sides", False), **sizes)
    config = PCM3Config(encoder=encoder, queue_size=20, topk=20, decoder_hidden_size=8, contrasts=contrasts, **more)
    return PCM3(config).double().train()


def a_batch(per_sample: bool) -> Batch:
    draw = torch.Generator().manual_seed(1)
    x = [torch.randn(ROWS, FRAMES, FEATURES, generator=draw, dtype=torch.float64) for _ in range(4)]
    hidden = torch.rand(*([ROWS] * per_sample), FRAMES, FEATURES, generator=draw) < 0.5
    views = {"query": x[0], "masked": x[2].masked_fill(hidden, 0.0), "mixed": x[3]}
    partner, mix_lambda = torch.randperm(ROWS, generator=draw), torch.tensor(0.3, dtype=torch.float64)
    offsets = torch.rand(6, generator=draw, dtype=torch.float64)
    return Batch(views, x[1], x[2], hidden, partner, mix_lambda, offsets, torch.arange(ROWS), torch.arange(ROWS))


def step(pcm3: PCM3, batch, parts: int = 1):
    """Output, gradients and buffers after a step in parts."""
    output = compute_gradients(pcm3, batch, parts)
    pcm3.enqueue(output.keys)
    gradients = {name: p.grad for name, p in pcm3.named_parameters() if p.grad is not None}
    return output, gradients, dict(pcm3.named_buffers())


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def compare(one, two):
    outputs = [{name: value for name, value in vars(found[0]).items() if name != "statistics"} for found in (one, two)]
    for a, b in zip((outputs[0], *one[1:]), (outputs[1], *two[1:]), strict=True):
        assert list(a) == list(b)
        for name in a:
            close(a[name], b[name])


@pytest.mark.parametrize("parts", [2, 4, 8])
@pytest.mark.parametrize("per_sample", [False, True])
@pytest.mark.parametrize(
    "contrasts, both_sides", [(CONTRASTS, False), (CONTRASTS, True), (("mixed",), False), ((), False)]
)
def test_parts_give_the_whole_step_if_norms_are_fixed(parts, per_sample, contrasts, both_sides):
    """Losses, gradients, logits in their order, keys and queue."""
    results = []
    for k in (1, parts):
        pcm3 = model(contrasts=contrasts, train_both_sides=both_sides)
        for module in pcm3.modules():
            if isinstance(module, ViewNorm):
                module.eval()
        results.append(step(pcm3, a_batch(per_sample), k))
    compare(*results)
    assert results[0][2]["queue_ptr"].item() == ROWS


@pytest.mark.parametrize("weight", [40.0, 0.0])
def test_parts_give_the_whole_of_both_additions_to_the_prediction(weight):
    """Error by motion energy, and the latent target with and without the other prediction."""
    results = []
    for parts in (1, 4):
        energy = 0.8 if weight else 0.0
        contrasts = CONTRASTS if weight else ("query",)
        pcm3 = model(contrasts=contrasts, prediction_weight=weight, prediction_energy=energy, latent_weight=2.0)
        for module in pcm3.modules():
            if isinstance(module, ViewNorm):
                module.eval()
        results.append(step(pcm3, a_batch(True), parts))
    compare(*results)
    output, gradients, _ = results[0]
    assert ("prediction" in output.losses) == bool(weight) and gradients["latent.0.weight"].abs().max() > 0


def test_one_part_is_forward_and_backward():
    whole, parts = model(), model()
    batch = a_batch(True)
    whole.update_key_encoder()
    output = whole(batch, whole.targets(batch))
    output.loss.backward()
    output.statistics.commit()
    whole.enqueue(output.keys)
    found, gradients, buffers = step(parts, batch)
    assert torch.equal(found.loss, output.loss) and same(buffers, dict(whole.named_buffers()))
    assert all(torch.equal(p.grad, gradients[name]) for name, p in whole.named_parameters() if p.grad is not None)


def test_with_batch_statistics_parts_differ_and_running_statistics_do_not():
    """As documented: a part is normalised by its own statistics, the running ones are updated by the whole batch's. The
    predicted view is left out, because it depends on the decoder's norm."""
    contrasts = ("query", "masked", "mixed")
    (one, first, buffers), (two, second, others) = (step(model(contrasts=contrasts), a_batch(False), k) for k in (1, 4))
    close(one.keys, two.keys)
    for name in buffers:
        if "input_norm" in name or "queue" in name:
            close(buffers[name], others[name])
    name = "encoder_q.encoder.gru.weight_hh_l0"
    assert (first[name] - second[name]).norm() > 1e-3 * first[name].norm()


def test_pooled_statistics_are_those_of_all_rows():
    x = torch.randn(12, 5, dtype=torch.float64) * 3 + 7
    norm, whole = ViewNorm(5).double(), ViewNorm(5).double()
    parts = []
    for rows in x.split((2, 4, 6)):
        parts.append(RunningUpdates())
        norm(rows, 1, parts[-1])
    RunningUpdates.pooled(parts).commit()
    whole(x)
    close(norm.state_dict(), whole.state_dict())


@pytest.mark.parametrize("pieces", [1, 3, 8, 50])
@pytest.mark.parametrize("backbone", ["gru", "bigru", "transformer"])
def test_recomputing_changes_no_number(backbone, pieces):
    """Also running statistics, which are updated once; pieces that do not divide the rows, and more pieces than rows."""
    kept, again = model(backbone), model(backbone)
    again.set_recompute(pieces)
    compare(step(kept, a_batch(False)), step(again, a_batch(False)))


def test_recomputing_in_parts():
    for both_sides in (False, True):
        kept, again = model(train_both_sides=both_sides), model(train_both_sides=both_sides)
        again.set_recompute(2)
        compare(step(kept, a_batch(True), 2), step(again, a_batch(True), 2))


def test_recomputing_keeps_less():
    """Bytes that the graph holds at the end of the forward pass."""

    def held(pieces):
        pcm3, sizes = model(), {}
        pcm3.set_recompute(pieces)

        def pack(t):
            sizes[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            batch = a_batch(False)
            output = pcm3(batch, pcm3.targets(batch))
        del output
        return sum(sizes.values())

    assert held(2) < 0.6 * held(0)


def test_a_backbone_with_batch_norms_is_not_recomputed():
    with pytest.raises(ValueError, match="batch norms"):
        model("stgcn").set_recompute(1)
    model("stgcn").set_recompute(0)


def test_rows_that_cannot_be_divided():
    with pytest.raises(ValueError, match="8 rows are not 3 equal parts"):
        compute_gradients(model(), a_batch(False), 3)


@pytest.mark.parametrize("more", ["--grad-accum 2", "--recompute 3", "--grad-accum 2 --recompute 1 --precision bf16"])
def test_resuming_with_less_memory_equals_not_stopping(data, tmp_path, more):
    assert pretrain(data, tmp_path / "whole", more + " --max-steps 5").status == 0
    assert pretrain(data, tmp_path / "part", more + " --max-steps 3").status == 0
    assert pretrain(data, tmp_path / "part", more + " --max-steps 5 --resume auto").status == 0
    assert same(*(weights(tmp_path / name / files.LAST) for name in ("whole", "part")))


def test_a_run_may_be_resumed_with_recompute_but_not_with_other_parts(data, tmp_path):
    assert pretrain(data, tmp_path / "run", "--max-steps 1").status == 0
    assert pretrain(data, tmp_path / "run", "--max-steps 2 --resume auto --recompute 2").status == 0
    refused(
        pretrain(data, tmp_path / "run", "--resume auto --grad-accum 2"), "--grad-accum 1, now it is --grad-accum 2"
    )


def test_recomputing_writes_the_same_log(data, tmp_path):
    for name, more in (("kept", ""), ("again", "--recompute 2")):
        ran = pretrain(data, tmp_path / name, f"{more} --max-steps 4 --precision fp64 -p 1")
        assert ran.status == 0, ran.err
    for left, right in zip(lines(tmp_path / "kept"), lines(tmp_path / "again"), strict=True):
        timeless = [n for n in left if "seconds" not in n]
        assert {n: left[n] for n in timeless} == pytest.approx({n: right[n] for n in timeless}, rel=1e-9)


def test_mistakes_are_one_sentence(data, tmp_path):
    refused(pretrain(data, tmp_path / "a", "--grad-accum 3"), "--grad-accum 3 does not divide the 4 clips")
    command = f"--data-root {data} --pre-dataset tiny --recipe paper --checkpoint-path {tmp_path}/b --batch-size 4 --contrast-k 12"
    command += " --device cpu"
    ran = call(pretrain_moco_mask.main, command + " --backbone stgcn --width 16 --depth 2 --recompute 1")
    refused(ran, "--recompute with --backbone stgcn", "--grad-accum")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")
def test_freed_memory_stays_with_the_process():
    """In separate processes, because it cannot be undone: pages of a freed array are reused by the next one."""
    program = """
import resource
import numpy as np
from utils.machine import keep_freed_memory
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
print(keep_freed_memory())
before = resident()
np.ones(64 * 2**20, dtype=np.uint8)
print(resident() - before > 48 * 2**20)
"""
    clean = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES" and "MALLOC_" not in name}
    said = {}
    for name, more in {"kept": {}, "as the user says": {"MALLOC_ARENA_MAX": "8"}}.items():
        ended = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env={**clean, **more}, capture_output=True, text=True, check=True
        )
        said[name] = ended.stdout.split()
    assert said == {"kept": ["True", "True"], "as the user says": ["False", "False"]}
