"""Dual prompts (paper section 3.4): learned vectors that are added to the encoder's input and to its features.

Domain prompts are added to the encoder's input and tell it the kind of view: p_intra (query and key), p_inter (mixed),
p_mask, p_predict. Task prompts are added to features and tell the two tasks apart: p_cl (before the projection head), p_mp
(before the decoder). A task prompt has two halves of D/16 numbers. For each use a position is sampled, and each half of the
prompt is added at this position to one half of the feature's D channels (for GRUs the outputs of the two directions). D must
be a multiple of 16, for every backbone.

The parameters have the released names: DOMAIN_PROMPTS lists those of the domain prompts by the paper's names; the task
prompts are cl_prompt (p_cl) and mp_prompt (p_mp).
"""

import torch
from torch import Tensor, nn

DOMAIN_PROMPTS = {"intra": "base_prompt", "inter": "mix_prompt", "mask": "mask_prompt", "predict": "recons_prompt"}


def domain_prompt(input_size: int) -> nn.Parameter:
    """A learned vector (1, 1, F) that is added to every frame."""
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, 1, input_size)))


def task_prompt(feature_size: int) -> nn.Parameter:
    """A learned vector (1, D / 8): D / 16 numbers for each half of the feature. ValueError unless D is a multiple of 16."""
    if feature_size < 16 or feature_size % 16:
        raise ValueError(f"task prompts need a feature size that is a multiple of 16, got {feature_size}")
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, feature_size // 8)))


def place_offset(u: Tensor, feature_size: int) -> Tensor:
    """Uniforms in [0, 1) -> positions 0..H - H/8 - 1, as released, in halves of H = D/2 numbers."""
    half = feature_size // 2
    return (u * (half - half // 8)).long()


def place_task_prompt(prompt: Tensor, offset: Tensor, feature_size: int) -> Tensor:
    """The prompt as a vector of the feature's size, 0 elsewhere. prompt (1, 2P), offset () -> (D,): the first half at
    offset..offset+P, the second at D/2 + offset."""
    p = prompt.shape[1] // 2
    index = offset + torch.arange(p, device=prompt.device)
    index = torch.cat([index, index + feature_size // 2])
    return prompt.new_zeros(feature_size).index_add(0, index, prompt[0])
