"""The losses of a step (paper sections 3.1 to 3.3), each a function of named tensors.

K queue entries; `similar` are cosine similarities to the queue (N, K), `positive` to the view's own key (N,). N rows may be
only some of the batch (those of a process, or of a part); PCM3 turns means into their part of the whole batch's mean.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

FAR = -100.0  # a similarity that counts for nothing at any usual temperature, and is finite, so that 0 times it is 0


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


def hidden_number(hidden: Tensor, like: Tensor) -> Tensor:
    """How many coordinates are hidden, (), of the type of `like` (N, T, F). hidden (T, F) or (N, T, F) bool."""
    return hidden.to(like.dtype).expand_as(like).sum()


def energy_weights(target: Tensor, share: float) -> Tensor:
    """What each coordinate's error counts: 1 - share + share * energy / (mean energy of the clip), where the energy of a
    coordinate at a frame is how far it comes from the frame before and goes to the next. target, result (N, T, F); share 0..1."""
    moved = (target[:, 1:] - target[:, :-1]).abs()
    energy = F.pad(moved, (0, 0, 1, 0)) + F.pad(moved, (0, 0, 0, 1))
    mean = energy.mean(dim=(1, 2), keepdim=True)
    return 1 - share + share * energy / mean.clamp_min(torch.finfo(target.dtype).tiny)


def latent(predicted: Tensor, wanted: Tensor) -> Tensor:
    """1 - cosine of predicted and wanted features (N, T, D), mean over frames and clips."""
    return 1 - F.cosine_similarity(predicted, wanted, dim=2).mean()


def prediction(
    predicted: Tensor, target: Tensor, hidden: Tensor, number: Tensor | None = None, energy: float = 0.0
) -> Tensor:
    """Mean squared error over the hidden coordinates. predicted, target (N, T, F); hidden (T, F) or (N, T, F) bool; energy: by
    how much coordinates that move count more, see `energy_weights`; 0 as released.

    number (): of the hidden coordinates of the whole batch, where these are only some of its rows; the result is then
    their part of the whole batch's mean."""
    weight = hidden.to(predicted.dtype).expand_as(predicted)
    error = (predicted - target).square() * weight
    if energy > 0:
        error = error * energy_weights(target, energy)
    return error.sum() / (weight.sum() if number is None else number)
