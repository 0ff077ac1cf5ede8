"""Several processes that train on one batch: rank and size, and the data that they exchange.

torchrun (or a launcher that sets the same variables) starts K equal processes; `connect` joins them and returns a `World`.
A run of K processes computes the same as one process, except for the order of sums (float32 weights differ by some 5e-3
after 20 steps, float64 by 1e-13, benchmarks/LOG.md): each samples the step for the whole batch, and renders and encodes its
slice of the rows. Only this is communicated:

* statistics of every batch norm, forward and backward (models.norm), because they are of the whole batch;
* keys (models.pcm3), because queue and mixing partners are of the whole batch;
* gradients, with losses and flags (to stop, to save) in the same buckets, so that all processes take the same decisions.

Gradients are summed here, in flat buckets after the backward pass, instead of by DistributedDataParallel: one process
computes the sum, not the mean; parameters without a gradient must stay without one (a zero gradient would apply weight
decay), for which DDP searches the graph in every step; and the model is not wrapped, so its names in files stay. The cost
is that communication does not overlap with the backward pass.

Only the main process (rank 0) writes and prints. If it fails (`on_main`), all processes fail. A process that dies closes its
connections; the others notice this in the next exchange, name it, and end with status 2.

`World()` is a single process: its methods return at once.
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

BUCKET_BYTES = 25 * 2**20  # large enough for full bandwidth, small enough to overlap copying with sending
GRACE_SECONDS = 1.0  # the other processes wait so long after one has died, so that the launcher reports that one first


@dataclass
class Traffic:
    """Amount of one kind of exchange. calls; bytes: of the tensors; sent: bytes that this process sends (ring algorithm)."""

    calls: int = 0
    bytes: int = 0
    sent: int = 0


@dataclass(eq=False)
class World:
    """One process of `size`. rank: 0..size-1; local_rank: on this machine; peers: (host, process id) of every rank, for
    messages; minutes: timeout of an exchange; traffic: amount of communication by kind."""

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
        """This process's slice of a batch of `total` clips; UserError when it cannot be divided equally."""
        if total % self.size:
            raise UserError(
                f"--batch-size {total} is the total of all processes and cannot be divided equally by {self.size}; "
                f"give {total - total % self.size or self.size} or {total - total % self.size + self.size}"
            )
        own = total // self.size
        return slice(self.rank * own, (self.rank + 1) * own)

    # -- exchange of tensors: every process must call these in the same order ------------------------------------------

    @torch.no_grad()
    def gather(self, rows: Tensor, kind: str) -> Tensor:
        """rows (n, ...), with the same n on every process -> (size * n, ...) in the order of ranks, without gradient."""
        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(self.size)]
        size = rows.numel() * rows.element_size()
        self._count(kind, size, (self.size - 1) * size)
        with self._watching(kind):
            dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process; the result is the same on all."""
        if self.size == 1:
            return flag
        where = "cuda" if dist.get_backend() == "nccl" else "cpu"
        return bool(self.gather(torch.tensor([[float(flag)]], device=where), "flags").any())

    @torch.no_grad()
    def sum_(self, tensors: list[Tensor], kind: str) -> None:
        """Replaces every tensor by its sum over the processes, bitwise equal on all of them."""
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
        """The main process's value, on every process; for small plain values."""
        if self.size == 1:
            return value
        box = [value]
        with self._watching("agreement"):
            dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def on_main(self, work):
        """Calls work() on the main process while the others wait. Returns its result there, None elsewhere; a UserError or
        OSError is raised on every process."""
        return self._in_turns(work, 0 if self.is_main else None, turns=1)

    def main_first(self, work):
        """Calls work() on every process: first on the main one, then on the first one of every other machine, then on the
        rest, which find what the first ones cached. An error of one is raised on all."""
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
            messages: list = [None] * self.size
            with self._watching("agreement"):
                dist.all_gather_object(messages, None if error is None else str(error))
            if error is not None:
                raise error
            failed = [rank for rank, message in enumerate(messages) if message is not None]
            if failed:
                raise UserError(f"ended because of rank {failed[0]}: {messages[failed[0]]}")
        return result

    # -- barrier, end --------------------------------------------------------------------------------------------------

    def barrier(self) -> None:
        """Waits until every process has called it."""
        if self.size > 1:
            with self._watching("agreement"):
                dist.all_reduce(torch.zeros(1))

    def close(self) -> None:
        """Leaves the process group and ends its threads, without waiting for the others."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def _count(self, kind: str, size: int, sent: int) -> None:
        entry = self.traffic[kind]
        entry.calls, entry.bytes, entry.sent = entry.calls + 1, entry.bytes + size, entry.sent + sent

    @contextlib.contextmanager
    def _watching(self, kind: str):
        """Turns the RuntimeError of a failed exchange into a UserError that names the processes that have ended."""
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
                f"rank {self.rank} of {self.size} could not exchange {kind}: {who}{limit}; see the message of that process, "
                f"if it printed one; continue with the same command and --resume auto [{lines[0][:150]}]"
            ) from None


def _buckets(tensors: list[Tensor]) -> list[list[Tensor]]:
    """The tensors, in order, in groups of one dtype and about BUCKET_BYTES; a larger tensor is a group of its own."""
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
    """UserError when a launcher started several processes of a program that runs as one."""
    size = launched_processes()
    if size > 1:
        raise UserError(
            f"{program} runs as one process, but {size} were started; start it with python, not with torchrun"
        )


def _backend(device: str, local_size: int) -> str:
    """NCCL if each process has its own GPU; gloo on the CPU, and if processes share a GPU."""
    if device == "cpu" or not torch.cuda.is_available() or local_size > torch.cuda.device_count():
        return "gloo"
    return "cpu:gloo,cuda:nccl"


def connect(device: str = "auto", local_rank: int = -1, minutes: float = 30.0) -> World:
    """Joins the process group of the launcher's environment (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT); returns
    `World()` without one.

    device: auto, cpu or cuda; each process uses the GPU of its local rank. local_rank: from --local_rank of older launchers,
    -1 when not given; LOCAL_RANK has priority. minutes: timeout of an exchange. UserError when the environment is incomplete
    or the other processes cannot be reached."""
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
    # The first optimizer imports modules that bind the current process group as a default argument, which keeps it alive after
    # `close`; its threads then crash the interpreter at exit. Imported here, before the group exists, they bind none.
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
