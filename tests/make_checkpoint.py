"""Checkpoints with random weights, as files of the kinds that people have."""

import torch

from models.encoder import EncoderConfig
from models.pcm3 import PCM3, PCM3Config
from utils import checkpoint as files

SMALL = {"backbone": "gru", "hidden_size": 16, "num_layers": 2}
CAUSAL = {"backbone": "transformer", "width": 16, "depth": 2, "heads": 2, "causal": True}


def new_model(seed: int = 0, persons: int = 2, layout="kinect_v2_25", joints=25, **sizes) -> PCM3:
    """A pretraining model whose norms have seen something."""
    encoder = EncoderConfig(layout=layout, joints=joints, persons=persons, **(sizes or SMALL))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = PCM3(PCM3Config(encoder, queue_size=8, decoder_hidden_size=8))
        for side in (model.encoder_q, model.encoder_k):
            side.input_norm.running_mean.normal_(0, 0.3)
            side.input_norm.running_var.uniform_(0.1, 0.5)
        for name, parameter in model.named_parameters():
            if name.endswith("attention.distance"):
                torch.nn.init.normal_(parameter)
    return model


def content_of(model: PCM3, epoch: int = 3, **arguments) -> dict:
    """What pretrain_moco_mask.py saves of it."""
    return {
        "format": files.FORMAT,
        "epoch": epoch,
        "step": 7,
        "state_dict": model.state_dict(),
        "optimizer": {},
        "config": model.config.to_dict(),
        "arguments": arguments,
        "versions": {"torch": str(torch.__version__)},
    }


def write_pretrained(path, seed: int = 0, arguments: dict | None = None, **sizes):
    """A file of ours; returns its path."""
    files.save(path, content_of(new_model(seed, **sizes), **(arguments or {})))
    return path


def write_released(path, seed: int = 0, prefix: str = "", **sizes):
    """A file as the released code writes it: names of tensors and nothing that explains them; returns its path."""
    state = {prefix + name: value for name, value in new_model(seed, **sizes).state_dict().items()}
    files.save(path, {"epoch": 451, "state_dict": state, "optimizer": {}})
    return path


def write_classifier(path, classes: int = 4, seed: int = 0, trained: dict | None = None, **sizes):
    """What action_classification.py keeps of a run; returns its path."""
    model = new_model(seed, **sizes)
    state = {k: v for k, v in model.encoder_q.state_dict().items() if not k.startswith("fc.")}
    fc = torch.nn.Linear(model.encoder_q.feature_size, classes)
    content = {
        "format": files.FORMAT,
        "config": {"encoder": model.encoder_q.config.to_dict()},
        "classes": [f"action {i}" for i in range(classes)],
        "state_dict": {f"encoder_q.{k}": v for k, v in state.items()},
        "fc": fc.state_dict(),
        "arguments": {"stream": "joint", **(trained or {})},
    }
    files.save(path, content)
    return path
