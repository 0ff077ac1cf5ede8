"""Several processes that compute one batch: who am I, how many are we, and the little that they exchange.

torchrun (or any launcher that sets its variables) starts K equal processes; `connect` joins them and returns a `World`.
A run of K processes computes what one process computes, but for the order of sums (float32 weights differ by some 5e-3 after
20 steps, float64's by 1e-13, benchmarks/LOG.md): each samples a step for the whole batch, and renders and encodes its
slice of the rows. Only this is communicated:

* statistics of every batch norm, forward and backward (models.norm), because they are those of the whole batch;
* keys (models.pcm3), because queue and mixing partners are those of the whole batch;
* gradients, with losses and flags (to stop, to save) in the same buckets, so that all processes decide alike.

Gradients are summed here, in flat buckets after the backward pass, and not by DistributedDataParallel: the sum, not the
mean, is what one process computes; parameters that a setting leaves without gradient must stay without (a zero gradient
would shrink them by weight decay), which DDP finds out by a search through the graph in every step; and the model stays
itself, with its own names in files. What is lost is the overlap of communication with the backward pass.

The main process (rank 0) alone writes and prints. What it fails to do (`on_main`) is an error everywhere. A process that
dies closes its connections, the others notice in the next exchange, say whom they miss, and end with status 2.

`World()` is one process by itself: every method then returns at once.
"""

import contextlib
import datetime
import importlib
import os
import socket
import time
from collections import defaultdict
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from utils.errors import UserError
from utils.locks import has_ended

BUCKET_BYTES = 25 * 2**20  # large enough for full bandwidth, small enough that copying and sending overlap
GRACE_SECONDS = 1.0  # survivors of a dead process wait this long: the launcher then sees first who died first


@dataclass
class Traffic:
    """What one kind of exchange has cost: calls, bytes handed over, and bytes that this process sends in a ring."""

    calls: int = 0
    bytes: int = 0
    sent: int = 0


@dataclass(eq=False)
class World:
    """One process among `size`. rank: 0..size-1; local_rank: among those of this machine; peers: (host, process id) of
    every rank, for messages; minutes: that an exchange may take; traffic: what was communicated, by kind."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    minutes: float = 30.0
    peers: tuple = ()
    traffic: dict[str, Traffic] = field(default_factory=lambda: defaultdict(Traffic))

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def rows(self, total: int) -> slice:
        """This process's slice of a batch of `total` clips; UserError when they cannot be shared equally."""
        if total % self.size:
            raise UserError(
                f"--batch-size {total} is the total of all processes and cannot be shared equally by {self.size}; "
                f"give {total - total % self.size or self.size} or {total - total % self.size + self.size}"
            )
        own = total // self.size
        return slice(self.rank * own, (self.rank + 1) * own)

    # -- exchange of tensors: every process must call these in the same order ------------------------------------------

    @torch.no_grad()
    def gather(self, rows: Tensor, kind: str) -> Tensor:
        """rows (n, ...), equally many on every process -> (size * n, ...) in the order of ranks. No gradient passes."""
        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(self.size)]
        size = rows.numel() * rows.element_size()
        self._count(kind, size, (self.size - 1) * size)
        with self._watching(kind):
            dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def any(self, flag: bool) -> bool:
        """Whether any of the processes has set it; all get the same answer."""
        if self.size == 1:
            return flag
        where = "cuda" if dist.get_backend() == "nccl" else "cpu"
        return bool(self.gather(torch.tensor([[float(flag)]], device=where), "flags").any())

    @torch.no_grad()
    def sum_(self, tensors: list[Tensor], kind: str) -> None:
        """Replaces every tensor by its sum over the processes: the same bits on each of them."""
        if self.size == 1:
            return
        pending = []
        with self._watching(kind):
            for bucket in _buckets(tensors):
                alone = len(bucket) == 1 and bucket[0].is_contiguous()
                flat = bucket[0] if alone else torch.cat([t.reshape(-1) for t in bucket])
                size = flat.numel() * flat.element_size()
                self._count(kind, size, 2 * (self.size - 1) * size // self.size)
                pending.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
            for bucket, flat, work in pending:
                work.wait()
                if flat is not bucket[0]:
                    parts = flat.split([t.numel() for t in bucket])
                    torch._foreach_copy_(bucket, [p.view_as(t) for p, t in zip(parts, bucket, strict=True)])

    @torch.no_grad()
    def copy_from_main_(self, tensors, kind: str) -> None:
        """Replaces every tensor by that of the main process."""
        if self.size == 1:
            return
        with self._watching(kind):
            for tensor in tensors:
                flat = tensor.contiguous()
                size = flat.numel() * flat.element_size()
                self._count(kind, size, size if self.is_main else 0)
                dist.broadcast(flat, src=0)
                if flat is not tensor:
                    tensor.copy_(flat)

    # -- agreement -----------------------------------------------------------------------------------------------------

    def broadcast(self, value=None):
        """The main process's value, on every process. Small plain values only."""
        if self.size == 1:
            return value
        box = [value]
        with self._watching("agreement"):
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def on_main(self, work):
        """work() on the main process while the others wait. Returns its result there, None elsewhere; a UserError or
        OSError of it is raised on every process."""
        return self._in_turns(work, 0 if self.is_main else None, turns=1)

    def main_first(self, work):
        """work() on every process, but first on the main one, then on the first one of every other machine, then on the
        rest, who find what the first have cached. An error of any is raised on every process."""
        return self._in_turns(work, 0 if self.is_main else 1 if self.local_rank == 0 else 2, turns=3)

    def _in_turns(self, work, own_turn: int | None, turns: int):
        if self.size == 1:
            return work()
        result, error = None, None
        for turn in range(turns):
            if turn == own_turn:
                try:
                    result = work()
                except (UserError, OSError) as problem:
                    error = problem
            said: list = [None] * self.size
            with self._watching("agreement"):
                dist.all_gather_object(said, None if error is None else str(error))
            if error is not None:
                raise error
            failed = [rank for rank, message in enumerate(said) if message is not None]
            if failed:
                raise UserError(f"ended because of rank {failed[0]}: {said[failed[0]]}")
        return result

    # -- life ----------------------------------------------------------------------------------------------------------

    def barrier(self) -> None:
        """Returns when every process has come here."""
        if self.size > 1:
            with self._watching("agreement"):
                dist.all_reduce(torch.zeros(1))

    def close(self) -> None:
        """Leaves the group and ends its threads. Waits for nobody."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def _count(self, kind: str, size: int, sent: int) -> None:
        entry = self.traffic[kind]
        entry.calls, entry.bytes, entry.sent = entry.calls + 1, entry.bytes + size, entry.sent + sent

    @contextlib.contextmanager
    def _watching(self, kind: str):
        """Turns an exchange that failed into a sentence that names who is missing."""
        try:
            yield
        except RuntimeError as error:  # what torch.distributed raises for closed connections and timeouts
            time.sleep(GRACE_SECONDS)
            lines = str(error).strip().splitlines() or [""]
            late = "timed out" in lines[0].lower() or "timeout" in lines[0].lower()
            here = [(rank, pid) for rank, (host, pid) in enumerate(self.peers) if host == socket.gethostname()]
            gone = [f"rank {rank} (process {pid})" for rank, pid in here if has_ended(pid)]
            who = f"{', '.join(gone)} has ended" if gone else "another process has ended or does not answer"
            limit = f" (limit: --timeout-minutes {self.minutes:g})" if late else ""
            raise UserError(
                f"rank {self.rank} of {self.size} could not exchange {kind}: {who}{limit}; its own message says why, if it "
                f"could give one; go on with the same command and --resume auto [{lines[0][:150]}]"
            ) from None


def _buckets(tensors: list[Tensor]) -> list[list[Tensor]]:
    """The tensors, in order, in groups of one type and about BUCKET_BYTES; a larger tensor is alone."""
    groups: list[list[Tensor]] = []
    filled = 0
    for tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if not groups or filled + size > BUCKET_BYTES or groups[-1][0].dtype != tensor.dtype:
            groups.append([])
            filled = 0
        groups[-1].append(tensor)
        filled += size
    return groups


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text)
    except (TypeError, ValueError):
        raise UserError(
            f"the environment variable {name} is {text!r}, expected a whole number; start several processes with "
            "torchrun --nproc_per_node=K"
        ) from None


def launched_processes() -> int:
    """WORLD_SIZE of the launcher's environment, 1 without one."""
    return _number("WORLD_SIZE", 1)


def require_one_process(program: str) -> None:
    """UserError when a launcher has started several processes of a program that is one."""
    size = launched_processes()
    if size > 1:
        raise UserError(f"{program} is one process, it was started as {size}; start it with python, not with torchrun")


def _backend(device: str, local_size: int) -> str:
    """NCCL for tensors on GPUs, one for each process; gloo elsewhere, and where processes share a GPU."""
    if device == "cpu" or not torch.cuda.is_available() or local_size > torch.cuda.device_count():
        return "gloo"
    return "cpu:gloo,cuda:nccl"


def connect(device: str = "auto", local_rank: int = -1, minutes: float = 30.0) -> World:
    """Joins the processes that the launcher's environment names (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT),
    or returns `World()` where it names none.

    device: auto, cpu or cuda; each process takes the GPU of its local rank. local_rank: of older launchers' --local_rank,
    -1 when not given; LOCAL_RANK goes before it. minutes: that an exchange may take before it fails. Raises UserError when the
    environment is not complete or the others cannot be reached."""
    size = launched_processes()
    if size < 2:
        if local_rank > 0:
            raise UserError(
                f"--local_rank {local_rank} was given, but WORLD_SIZE says that this process is alone; start with torchrun "
                "--nproc_per_node=K (it needs no --local_rank)"
            )
        return World()
    rank, local = _number("RANK"), _number("LOCAL_RANK", max(local_rank, 0))
    if not 0 <= rank < size:
        raise UserError(f"RANK {rank} is not within 0..{size - 1} (WORLD_SIZE {size}); start with torchrun")
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise UserError(f"WORLD_SIZE is {size}, but {name} is not set; start with torchrun --nproc_per_node={size}")
    if device != "cpu" and torch.cuda.is_available():
        torch.cuda.set_device(local % torch.cuda.device_count())
    # Modules that the first optimizer imports take the group as it is at that moment as a default argument, and so keep it
    # alive after `close`; its threads then meet an interpreter that is going down and abort it. Imported now, they take none.
    importlib.import_module("torch._dynamo")

    try:
        dist.init_process_group(
            _backend(device, _number("LOCAL_WORLD_SIZE", size)), timeout=datetime.timedelta(minutes=minutes)
        )
        peers: list = [None] * size
        dist.all_gather_object(peers, (socket.gethostname(), os.getpid()))
    except (RuntimeError, ValueError) as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise UserError(
            f"rank {rank} of {size} could not join the others at {os.environ['MASTER_ADDR']}:"
            f"{os.environ['MASTER_PORT']} ({first[:200]})"
        ) from None
    return World(rank, size, local, minutes, tuple(peers))
