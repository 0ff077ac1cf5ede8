"""An encoder trained with labels from random weights: the supervised baseline of pretraining on the same clips.

To be a fair comparison it has all that the pretrained encoder has: the same architecture and pooling, the same augmentations
(crops, rotations, bone lengths, noise, by `feeder.batches`; query and key views are both used), and AdamW with a cosine
schedule. The loss is the cross-entropy of one linear layer on the clip feature.
"""

import math
from dataclasses import fields, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.fit import new_linear
from feeder.batches import Batches
from feeder.mixing import MixSettings
from feeder.sampling import ViewSettings
from models.encoder import Encoder
from utils.errors import UserError

PLAIN = ViewSettings(crop=(0.5, 1.0), corruption=0.0, shear=0.0)  # the augmentation of fine-tuning: crops only


def settings_of(arguments: dict, path) -> ViewSettings:
    """The view settings of a pretraining, from its arguments; those that are missing (all in a released file, later flags in an
    older run) get the paper's value. UserError, with `path`, for a value of a wrong kind."""

    def filled(usual, prefix: str = ""):
        """The settings `usual`, overridden by the arguments, each converted to the type that it has there."""
        given = {}
        for name in {f.name for f in fields(usual) if prefix + f.name in arguments} - {"mix", "frames"}:
            value, default = arguments[prefix + name], getattr(usual, name)
            try:
                pairs = zip(default, value, strict=True) if isinstance(default, tuple) else ()
                given[name] = tuple(type(d)(v) for d, v in pairs) or type(default)(value)
            except (TypeError, ValueError):
                flag = (prefix + name).replace("_", "-")
                raise UserError(f"checkpoint {path}: its --{flag} is {value!r}; it cannot be read") from None
        return replace(usual, **given)

    found = filled(ViewSettings(mix=filled(MixSettings(), "mix_")))
    if not 1 <= found.mask_segments <= found.frames or not 0 <= found.mask_ratio <= 1:
        hides = f"--mask-ratio {found.mask_ratio} --mask-segments {found.mask_segments}"
        raise UserError(f"checkpoint {path}: its views cannot be made ({hides})")
    return found


def train_supervised(
    encoder: Encoder, batches: Batches, labels: Tensor, classes: int, steps: int, lr: float, seed: int, log=None
) -> torch.nn.Linear:
    """Trains the encoder in place (it ends in eval mode) with a linear layer, which is returned.

    batches: of the labelled clips; labels (clips,): their classes; log(step, loss): called every 100 steps. UserError when a loss
    is not finite."""
    device = batches.device
    fc = new_linear(encoder.clip_size, classes, seed).to(device, batches.dtype)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *fc.parameters()], lr=lr)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)))
    encoder.requires_grad_(True).train()
    n = batches.batch_size
    for step in range(steps):
        samples = batches.samples(step)
        query, key, _ = batches.views(samples)
        x = torch.cat([query[:n], key]).to(device, batches.dtype)
        expected = labels[torch.as_tensor(samples.clips).to(labels.device)].to(device).repeat(2)
        loss = F.cross_entropy(fc(encoder(x)), expected)
        if not torch.isfinite(loss):
            raise UserError(
                f"supervised training: the loss of step {step + 1} is not finite; give a smaller rate than {lr}"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        rate.step()
        if log is not None and (step + 1) % 100 == 0:
            log(step + 1, float(loss.detach()))
    encoder.eval()
    return fc
