"""Momentum contrast: the slow copy of the encoder and the queue of its keys (He et al. 2020, used as released)."""

import torch
from torch import Tensor, nn


def copy_without_gradient(source: nn.Module, target: nn.Module) -> None:
    """Makes `target` a copy of `source` that no gradient reaches."""
    target.load_state_dict(source.state_dict())
    target.requires_grad_(False)


@torch.no_grad()
def momentum_update(source: nn.Module, target: nn.Module, momentum: float) -> None:
    """target = momentum * target + (1 - momentum) * source, parameters only: the target's norm keeps its own buffers."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), 1.0 - momentum)


def new_queue(dim: int, size: int) -> Tensor:
    """(dim, K) random unit columns."""
    return nn.functional.normalize(torch.randn(dim, size), dim=0)


@torch.no_grad()
def enqueue(queue: Tensor, pointer: Tensor, keys: Tensor) -> None:
    """Writes keys (N, dim) into the columns of the queue (dim, K) from the pointer (1,) on, in place.

    It wraps round at the end for any N <= K; nothing is cut."""
    size = queue.shape[1]
    if len(keys) > size:
        raise ValueError(f"{len(keys)} keys do not fit in a queue of {size}")
    columns = (pointer + torch.arange(len(keys), device=queue.device)) % size
    queue[:, columns] = keys.to(queue.dtype).T
    pointer.copy_((pointer + len(keys)) % size)
