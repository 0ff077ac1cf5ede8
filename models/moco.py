"""Momentum contrast (He et al. 2020, as released): the momentum copy of the encoder and the queue of its keys."""

import torch
from torch import Tensor, nn


def copy_without_gradient(source: nn.Module, target: nn.Module) -> None:
    """Copies the weights of `source` to `target` and switches off gradients of `target`."""
    target.load_state_dict(source.state_dict())
    target.requires_grad_(False)


@torch.no_grad()
def momentum_update(source: nn.Module, target: nn.Module, momentum: float) -> None:
    """target = momentum * target + (1 - momentum) * source, for parameters only: the target's norms keep their buffers."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), 1.0 - momentum)


def new_queue(dim: int, size: int) -> Tensor:
    """A queue (dim, K) of random unit columns."""
    return nn.functional.normalize(torch.randn(dim, size), dim=0)


@torch.no_grad()
def enqueue(queue: Tensor, pointer: Tensor, keys: Tensor) -> None:
    """Writes keys (N, dim) into the columns of the queue (dim, K), beginning at the pointer (1,), and moves the pointer, both
    in place. It wraps around at the end of the queue, for any N. ValueError for N > K."""
    size = queue.shape[1]
    if len(keys) > size:
        raise ValueError(f"{len(keys)} keys do not fit in a queue of {size}")
    columns = (pointer + torch.arange(len(keys), device=queue.device)) % size
    queue[:, columns] = keys.to(queue.dtype).T
    pointer.copy_((pointer + len(keys)) % size)
