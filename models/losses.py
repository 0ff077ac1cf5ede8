"""The losses of a step (paper sections 3.1 to 3.3), each a function of named tensors.

K queue entries; `similar` are cosine similarities to the queue (N, K), `positive` to the view's own key (N,). Among several
processes, N rows are those of this process; PCM3 turns means into this process's part of the whole batch's mean.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.distributed import World

ALONE = World()


def contrast_logits(positive: Tensor, similar: Tensor, temperature: float) -> Tensor:
    """(N,), (N, K) -> (N, 1 + K), the positive first."""
    return torch.cat([positive[:, None], similar], dim=1) / temperature


def contrast(logits: Tensor) -> Tensor:
    """Cross entropy with the positive at index 0, mean over the batch (InfoNCE)."""
    return (torch.logsumexp(logits, dim=1) - logits[:, 0]).mean()


def contrast_top1(logits: Tensor) -> Tensor:
    """Share of samples whose own key is more similar than every queue entry."""
    return (logits[:, 0] >= logits[:, 1:].amax(dim=1)).float().mean()


def distillation(student: Tensor, teacher: Tensor, student_t: float, teacher_t: float, top: int = 0) -> Tensor:
    """KL(softmax(teacher / teacher_t) || softmax(student / student_t)), mean over the batch.

    student, teacher: similarities to the queue (N, K). top: only the entries most similar to the teacher's key (0 or at
    least K = all, as released)."""
    if 0 < top < teacher.shape[1]:
        teacher, index = teacher.topk(top, dim=1)
        student = student.gather(1, index)
    target = F.softmax(teacher / teacher_t, dim=1)
    return F.kl_div(F.log_softmax(student / student_t, dim=1), target, reduction="batchmean")


def prediction(predicted: Tensor, target: Tensor, hidden: Tensor, world: World = ALONE) -> Tensor:
    """Mean squared error over the hidden coordinates. predicted, target (N, T, F); hidden (T, F) or (N, T, F) bool.

    Among the processes of `world` this one's part of it: the number of hidden coordinates is that of the whole batch."""
    weight = hidden.to(predicted.dtype).expand_as(predicted)
    number = weight.sum()
    world.sum_([number], "loss denominator")
    return ((predicted - target).square() * weight).sum() / number
