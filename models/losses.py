"""The losses of a pretraining step (paper sections 3.1 to 3.3), as functions of tensors; each returns a scalar.

`similar` (N, K) are cosine similarities to the K queue entries, `positive` (N,) those to the view's own key. The N rows may
be a part of the batch (of a process, or of a step in parts); PCM3 then turns means into shares of the whole batch's mean.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

NO_NEGATIVE = -100.0  # a similarity whose softmax is 0 at any usual temperature; finite, so that 0 * NO_NEGATIVE is 0


def contrast_logits(positive: Tensor, similar: Tensor, temperature: float) -> Tensor:
    """(N,), (N, K) -> (N, 1 + K), the positive first."""
    return torch.cat([positive[:, None], similar], dim=1) / temperature


def contrast(logits: Tensor) -> Tensor:
    """Cross entropy with the positive at index 0, mean over the batch (InfoNCE)."""
    return (torch.logsumexp(logits, dim=1) - logits[:, 0]).mean()


def contrast_top1(logits: Tensor) -> Tensor:
    """Share of rows whose own key is at least as similar as every queue entry. logits (N, 1 + K), the positive first."""
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
    """The number of hidden coordinates, (), in the type of `like` (N, T, F). hidden (T, F) or (N, T, F) bool."""
    return hidden.to(like.dtype).expand_as(like).sum()


def energy_weights(target: Tensor, share: float) -> Tensor:
    """Weights (N, T, F) of the coordinates' errors: 1 - share + share * energy / (mean energy of the clip). The energy of a
    coordinate at a frame is its distance from the frame before plus that to the next. target (N, T, F); share 0..1."""
    moved = (target[:, 1:] - target[:, :-1]).abs()
    energy = F.pad(moved, (0, 0, 1, 0)) + F.pad(moved, (0, 0, 0, 1))
    mean = energy.mean(dim=(1, 2), keepdim=True)
    return 1 - share + share * energy / mean.clamp_min(torch.finfo(target.dtype).tiny)


def latent(predicted: Tensor, target: Tensor) -> Tensor:
    """1 - cosine similarity of predicted and target features (N, T, D), mean over frames and clips."""
    return 1 - F.cosine_similarity(predicted, target, dim=2).mean()


def prediction(
    predicted: Tensor, target: Tensor, hidden: Tensor, number: Tensor | None = None, energy: float = 0.0
) -> Tensor:
    """Mean squared error over the hidden coordinates. predicted, target (N, T, F); hidden (T, F) or (N, T, F) bool; energy:
    `share` of `energy_weights`, how much more moving coordinates count; 0 as released.

    number (): hidden coordinates of the whole batch, if these rows are a part of it; the result is then their share of
    the whole batch's mean."""
    weight = hidden.to(predicted.dtype).expand_as(predicted)
    error = (predicted - target).square() * weight
    if energy > 0:
        error = error * energy_weights(target, energy)
    return error.sum() / (weight.sum() if number is None else number)
