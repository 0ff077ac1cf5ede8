"""PCM3 against numbers computed by the released code: one training step, crops, transforms and streams.

Weights and inputs are remade from a rule (see `golden_weights`, `golden_views`), so that the files stay small. The folder
is `tests/golden`, or PCM3_GOLDEN; every `step_*.npz` in it is taken.
"""

import os
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.step import compute_gradients, train_step
from feeder.batches import Batch
from feeder.masks import expand_hidden, mask_view
from feeder.mixing import CUTMIX, MIXUP, RESIZEMIX, mix_maps, mix_views
from feeder.render import apply_matrices, centre_crop, render, take_stream
from feeder.sampling import PROMPT_USES
from models.encoder import EncoderConfig
from models.pcm3 import PCM3, PCM3Config
from utils.skeleton import KINECT_V2

FOLDER = Path(os.environ.get("PCM3_GOLDEN", Path(__file__).parent / "golden"))
STEPS = sorted(FOLDER.glob("step_*.npz"))


def golden_weights(state: dict) -> dict:
    """The weights of the golden runs: a rule on the names."""
    weights = {}
    for name, value in state.items():
        if not value.is_floating_point():
            weights[name] = torch.zeros_like(value)
            continue
        r = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF).standard_normal(tuple(value.shape))
        module, _, last = name.rpartition(".")
        if last == "running_var":
            r = 1 + 0.1 * np.abs(r)
        elif last == "weight" and (module.endswith("input_norm") or module == "linear.1"):
            r = 1 + 0.1 * r
        elif last == "running_mean" or last.startswith("bias") or last.endswith("_prompt"):
            r = 0.1 * r
        elif last == "queue":
            r = r / np.linalg.norm(r, axis=0, keepdims=True)
        else:
            r = r / np.sqrt(value.shape[-1])
        weights[name] = torch.from_numpy(r.astype(np.float32))
    return weights


def golden_views(seed: int, batch: int) -> list[torch.Tensor]:
    """The three views (N, 3, T, V, M) of the golden runs."""
    views = []
    for i in range(3):
        random = np.random.RandomState(seed + i)
        a = random.standard_normal((batch, 3, 64, 25, 2))
        b = random.standard_normal((batch, 3, 1, 25, 2))
        views.append(torch.from_numpy((np.cumsum(0.05 * a, axis=2) + 0.5 * b).astype(np.float32)))
    return views


def to_encoder_order(x: torch.Tensor) -> torch.Tensor:
    """(N, C, T, V, M) -> (N, T, V * C * M)."""
    return x.permute(0, 2, 3, 1, 4).flatten(2)


def golden_batch(g) -> Batch:
    """The batch of a golden step, through the feeder's own mask and mixing."""
    query, key, target = map(to_encoder_order, golden_views(int(g["seed"]), int(g["batch"])))
    hidden = expand_hidden(torch.from_numpy(g["mask"] == 0), 2)
    p = float(g["mix_p"])
    mode = CUTMIX if p > 0.5 else RESIZEMIX if p > 0.25 else MIXUP
    weight, index, mix_lambda = mix_maps(
        mode,
        KINECT_V2.parts,
        g["mix_parts"].tolist(),
        int(g["mix_start"]),
        int(g["mix_length"]),
        float(g["mix_lambda"]),
        joints=25,
        frames=64,
        unit=4,
    )
    clips = torch.arange(len(query))
    partner = (clips + int(g["mix_shift"])) % len(query)
    offsets = g["prompt_offsets"] if len(g["prompt_offsets"]) else np.zeros(len(PROMPT_USES))
    mixed = mix_views(query, query[partner], torch.from_numpy(weight), torch.from_numpy(index))
    return Batch(
        views={"query": query, "masked": mask_view(target, hidden), "mixed": mixed},
        key=key,
        target=target,
        hidden=hidden,
        partner=partner,
        mix_lambda=torch.tensor(mix_lambda),
        offsets=torch.from_numpy((offsets + 0.5) / 896).float(),
        clips=clips,
        all_clips=clips,
    )


@pytest.fixture(scope="module", params=STEPS, ids=lambda p: p.stem)
def step(request):
    """A golden file, the output of the training step for it, gradients and the state after it, with SGD."""
    g = np.load(request.param)
    prompts = bool(g["prompt"])
    config = PCM3Config(
        encoder=EncoderConfig(),
        queue_size=int(g["queue_size"]),
        topk=int(g["queue_size"]),
        domain_prompts=prompts,
        task_prompts=prompts,
        distillation=prompts,
        detach_predicted=not prompts,
    )
    model = PCM3(config)
    model.load_state_dict(golden_weights(model.state_dict()))
    model.train()
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=0.02, momentum=0.9, weight_decay=1e-4
    )
    out, _, finite, _ = train_step(partial(compute_gradients, model), model, optimizer, golden_batch(g))
    assert finite
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return g, out, gradients, {n: v.detach().clone() for n, v in model.state_dict().items()}


def close(value, expected, tolerance=1e-5):
    value, expected = np.asarray(value, dtype=np.float64), np.asarray(expected, dtype=np.float64)
    np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance * max(1.0, np.abs(expected).max()))


def test_there_are_golden_steps():
    assert STEPS, f"no step_*.npz in {FOLDER}"


def test_golden_logits(step):
    g, out, _, _ = step
    names = {"query": "logits", "mixed": "logits_mix", "predicted": "logits_recons", "masked": "logits_mask"}
    for ours, theirs in names.items():
        close(out.logits[ours], g[theirs])


def test_golden_losses(step):
    g, out, _, _ = step
    names = {
        "contrast_query": "loss_base",
        "contrast_mixed": "loss_mix",
        "contrast_predicted": "loss_recons",
        "contrast_masked": "loss_mask",
        "prediction": "loss_rec",
        "distillation": "loss_sim",
        "total": "loss_total",
    }
    for ours, theirs in names.items():
        close(out.losses[ours], g[theirs])


def test_golden_prediction(step):
    g, out, _, _ = step
    predicted = out.predicted.reshape(*out.predicted.shape[:2], 25, 3, 2).permute(0, 3, 1, 2, 4)
    close(predicted[:2, :, ::16], g["recons_sample"])


def test_golden_gradients(step):
    g, _, gradients, _ = step
    assert sorted(gradients) == sorted(g["grad_names"].tolist())
    for name, norm in zip(g["grad_names"].tolist(), g["grad_norms"], strict=True):
        ours = gradients[name].norm().item()  # the golden norms were added up in float32 too
        if norm < 1e-5:  # cancelled by a batch norm: rounding only
            assert ours < 1e-5, name
        else:
            assert ours == pytest.approx(norm, rel=1e-4), name
    for key in g.files:
        if key.startswith("grad/") and np.abs(g[key]).max() > 1e-5:
            theirs = g[key]
            np.testing.assert_allclose(
                gradients[key[5:]].reshape(theirs.shape), theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max()
            )


def test_golden_state_after_the_step(step):
    g, _, _, after = step
    names = g["after_names"].tolist()
    assert sorted(n for n in after if n in names) == sorted(names)
    for name, norm, total in zip(names, g["after_norms"], g["after_sums"], strict=True):
        value = after[name].double()
        assert value.norm().item() == pytest.approx(norm, rel=1e-6, abs=1e-6), name
        assert value.sum().item() == pytest.approx(total, rel=1e-5, abs=1e-5 * max(1.0, norm)), name
    for key in g.files:
        if key.startswith("after/"):
            close(after[key[6:]], g[key])


def test_golden_queue(step):
    g, _, _, after = step
    close(after["queue"], g["queue_after"])
    assert after["queue_ptr"].item() == int(g["queue_ptr"])


def pack(clip: np.ndarray) -> torch.Tensor:
    """(C, T, V, M) -> packed frames (T, V, C, M)."""
    return torch.from_numpy(np.ascontiguousarray(clip.transpose(1, 2, 0, 3)))


def unpack(x: torch.Tensor) -> np.ndarray:
    """(N, T, V * C * M) -> (N, C, T, V, M)."""
    return x.reshape(*x.shape[:2], 25, 3, 2).permute(0, 3, 1, 2, 4).numpy()


def test_golden_crop_resize():
    g = np.load(FOLDER / "crop.npz")
    out = render(pack(g["clip"]), torch.from_numpy(g["start"]), torch.from_numpy(g["length"]), None, 64)
    np.testing.assert_allclose(unpack(out), g["resized"], atol=1e-5)


def test_golden_centre_crop():
    g = np.load(FOLDER / "crop.npz")
    start, length = centre_crop(torch.from_numpy(g["centre_num_frame"]))
    out = render(pack(g["clip"]), start, length, None, 64)
    np.testing.assert_allclose(unpack(out), g["centre"], atol=1e-5)


@pytest.mark.parametrize("transform", ["shear", "jitter"])
def test_golden_transforms(transform):
    g = np.load(FOLDER / "crop.npz")
    matrices = np.tile(np.eye(3), (1, 25, 1, 1))
    if transform == "shear":
        matrices[:] = g["shear"]
    else:
        matrices[:, g["joints"]] = g["jitter"].T
    x = torch.from_numpy(g["resized"][:1].transpose(0, 2, 3, 1, 4).copy())  # (1, T, V, C, M)
    out = apply_matrices(x, torch.from_numpy(matrices).float()).numpy()[0].transpose(2, 0, 1, 3)
    np.testing.assert_allclose(out, g[{"shear": "sheared", "jitter": "jittered"}[transform]], atol=1e-5)


@pytest.mark.parametrize("stream", ["bone", "motion"])
def test_golden_streams(stream):
    g = np.load(FOLDER / "streams.npz")
    out = take_stream(pack(g["clip"]), stream, torch.tensor(KINECT_V2.parents))
    np.testing.assert_allclose(out.numpy().transpose(2, 0, 1, 3), g[stream], atol=1e-6)
