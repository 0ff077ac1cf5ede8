"""Data-parallel training: equal initial state, summed gradients and common decisions of all processes."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from models.pcm3 import StepOutput
from utils.distributed import World


@torch.no_grad()
def copy_state(world: World, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Copies weights, buffers and optimizer state of the main process to all others, so that only one process reads files."""
    if world.size == 1:
        return
    world.copy_from_main_(model.state_dict().values(), "state")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def outline(value):
        return (value.shape, value.dtype, value.device.type) if isinstance(value, Tensor) else value

    outlines = world.broadcast([{k: outline(v) for k, v in optimizer.state.get(p, {}).items()} for p in parameters])
    for p, entries in zip(parameters, outlines, strict=True):
        for key, entry in entries.items():
            if not isinstance(entry, tuple):
                optimizer.state[p][key] = entry
                continue
            shape, dtype, kind = entry
            if not world.is_main:
                optimizer.state[p][key] = torch.empty(shape, dtype=dtype, device=p.device if kind != "cpu" else "cpu")
            world.copy_from_main_([optimizer.state[p][key]], "state")


@torch.no_grad()
def sum_over_processes(
    world: World, model: nn.Module, output: StepOutput, flags: list[bool]
) -> tuple[StepOutput, list[bool]]:
    """Sums gradients, losses and top1 over all processes, and sets each flag that any process has set.

    Returns the output with losses and top1 of the whole batch, and the flags. All values share one all-reduce: the small ones are
    sent in the buckets of the gradients."""
    if world.size == 1:
        return output, flags
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    values = [*output.losses.values(), *output.top1.values()]
    asked = torch.tensor(flags, dtype=gradients[0].dtype).to(gradients[0].device)
    numbers = torch.cat([torch.stack([v.to(asked.dtype) for v in values]), asked])
    world.sum_([*gradients, numbers], "gradients")
    found = iter(numbers)
    losses = {name: next(found) for name in output.losses}
    top1 = {name: next(found) for name in output.top1}
    return replace(output, losses=losses, top1=top1), [value > 0 for value in numbers[len(values) :].tolist()]


def traffic_of(world: World) -> str:
    """The communication of one step, in words. Clear `world.traffic` before that step."""
    parts = [
        f"{kind} {entry.bytes / 1e6:.3g} MB in {entry.calls} exchange{'s' * (entry.calls > 1)}"
        for kind, entry in world.traffic.items()
        if entry.bytes
    ]
    sent = sum(entry.sent for entry in world.traffic.values())
    return f"{', '.join(parts)}; each of {world.size} processes sends {sent / 1e6:.3g} MB a step (in a ring)"
