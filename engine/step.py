"""The training step, in the order of momentum contrast (He et al. 2020) with the losses of PCM3:

    key update   the momentum update of the key encoder, which then computes the keys
    forward      the losses of every view
    backward     their gradients
    optimizer    the update of the encoder
    queue        the keys are added, as negatives of later steps

`compute_gradients` does the first three, `train_step` all of them. Options of a run wrap them: a batch is split into parts to
save memory, the first three are captured as a CUDA graph (engine.graph), several processes sum their gradients before the
optimizer's step (engine.processes).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from engine.processes import sum_over_processes
from feeder.batches import Batch
from models.pcm3 import PCM3, StepOutput
from models.recurrent import cached_weights
from utils.distributed import World


def compute_gradients(model: PCM3, batch: Batch, parts: int = 1) -> StepOutput:
    """Key update, forward and backward; leaves the gradients in the parameters.

    parts: the number of equal parts in which the rows of this process are computed, one after the other (models.pcm3 says how
    this differs from one pass). Part k of K has the rows k, k + K, ..., hence the same clips for any number of processes.
    ValueError if the rows cannot be divided equally."""
    if len(batch.key) % parts:
        raise ValueError(f"{len(batch.key)} rows are not {parts} equal parts")
    model.zero_grad(set_to_none=True)
    model.update_key_encoder()
    targets = model.targets(batch)
    outputs = []
    with cached_weights(model.encoder_q):
        for rows in (slice(part, None, parts) for part in range(parts)):
            output = model(batch.rows(rows), targets.rows(rows))
            output.loss.backward()
            outputs.append(output)
    output = StepOutput.joined(outputs)
    output.statistics.commit()
    return output


def gradient_norm(model: PCM3) -> Tensor:
    """The norm of all gradients together, ()."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


def train_step(
    compute: Callable[[Batch], StepOutput],
    model: PCM3,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    world: World | None = None,
    stop_flags: Callable[[], list[bool]] = list,
    meanwhile: Callable[[], None] | None = None,
) -> tuple[StepOutput, Tensor, bool, list[bool]]:
    """One step. compute: `compute_gradients`, plain or captured; world: the processes that share the batch; stop_flags: returns the
    flags of this process, called once, see `sum_over_processes`; meanwhile: called after forward and backward pass have been
    launched, to overlap other work with them.

    Returns output, gradient norm, whether all values were finite (else neither weights nor queue change), and the stop flags,
    each set if any process has set it."""
    output = compute(batch)  # key update, forward, backward
    if meanwhile is not None:
        meanwhile()
    output, flags = sum_over_processes(world or World(), model, output, stop_flags())
    norm = gradient_norm(model)
    finite = bool(torch.isfinite(norm + output.losses["total"]))
    if finite:
        optimizer.step()
        model.enqueue(output.keys, batch.all_clips)
    return output, norm, finite, flags
