"""The training step, in the order of momentum contrast (He et al. 2020) with the losses of PCM3:

    key update   the slow encoder follows the encoder and makes the keys
    forward      the losses of every view
    backward     their gradients
    optimizer    the encoder moves
    queue        the keys join it, as negatives of later steps

`compute_gradients` is the first three, `train_step` all of it. What a run adds is around them: a batch is walked in parts to need
less memory, the first three are recorded as a CUDA graph (engine.graph), several processes add up their gradients before the
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

    parts: this many equal parts of this process's rows, one after the other (models.pcm3 says what differs from one pass). Part k
    of K has the rows k, k + K, ..., so that it has the same clips however many processes share the batch. ValueError for rows
    that cannot be divided."""
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
    """One step. compute: `compute_gradients`, plain or captured; world: the processes that share the batch; stop_flags: asked
    once, see `sum_over_processes`; meanwhile: called when forward and backward pass are launched, for what is to be made beside
    them.

    Returns output, gradient norm, whether all was finite (a step that was not changes neither weights nor queue) and the
    stop flags, each set if any process has set it."""
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
