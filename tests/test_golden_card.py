"""The golden steps through every recurrent engine of a card, in float32; on a processor the same code, once."""

import numpy as np
import pytest
import torch
from test_golden import STEPS, close, golden_batch, golden_weights

from engine.setup import resolve_precision
from engine.step import compute_gradients
from models.encoder import EncoderConfig
from models.pcm3 import PCM3, PCM3Config
from models.recurrent import RUNS, choose_engine

NAMES = {"query": "logits", "mixed": "logits_mix", "predicted": "logits_recons", "masked": "logits_mask"}


def logits_as_released(path, device: str, implementation: str) -> None:
    g = np.load(path)
    prompts, queue = bool(g["prompt"]), int(g["queue_size"])
    config = PCM3Config(
        encoder=EncoderConfig(), queue_size=queue, topk=queue, domain_prompts=prompts, task_prompts=prompts,
        distillation=prompts, detach_predicted=not prompts,
    )  # fmt: skip
    resolve_precision("fp32")
    model = PCM3(config)
    model.load_state_dict(golden_weights(model.state_dict()))
    model = model.to(device).train()
    choose_engine(model, implementation)
    out = compute_gradients(model, golden_batch(g).to(device, torch.float32))
    for ours, theirs in NAMES.items():
        close(out.logits[ours].cpu(), g[theirs])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("implementation", RUNS)
@pytest.mark.parametrize("path", STEPS, ids=lambda path: path.stem)
def test_on_a_card(path, implementation):
    logits_as_released(path, "cuda", implementation)


@pytest.mark.slow
def test_on_a_processor():
    logits_as_released(STEPS[0], "cpu", "cudnn")
