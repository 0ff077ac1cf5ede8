"""Key update, forward and backward pass of a step (engine.step.compute_gradients) as one CUDA graph.

A step at the paper's size has thousands of kernels, many of them small; launching them one by one from Python can take longer
than running them. A graph is captured once and then replayed with one launch. It reads and writes the memory that it was
captured with, so every batch is copied into fixed buffers; shapes are equal in all steps, because mixing is a map of weights
and the queue's pointer a tensor. The pass must not synchronise with the host; a test runs it on tensors without data.

`choose_capture` decides from the settings of a run, without a trial, whether it is captured, and returns the reason for the log.

Outside the graph remains what the host decides: whether all values are finite, the optimizer's step with its learning rate, the
queue. Results should equal those of the plain step: on a CPU, where the buffers are used and nothing is captured, they do,
bit for bit; on a GPU, losses agreed to the last printed digit over 336 steps (RESULTS.md).
"""

import contextlib
from collections.abc import Callable, Iterator

import torch

from feeder.batches import Batch
from models.pcm3 import StepOutput
from utils.errors import UserError

WARM_UP = 3  # steps before the capture, in which cuDNN and cuBLAS choose algorithms and reserve memory


def choose_capture(asked: str, device: torch.device, processes: int, parts: int, pieces: int) -> tuple[bool, str]:
    """Whether the pass is captured, by --cuda-graph (auto, on, off), and the same in words for the log.

    parts, pieces: --grad-accum and --recompute, whose capture has not been tested on a GPU: auto does not capture them, `on`
    tries. UserError for `on` without a CUDA device or with several processes, whose communication cannot be captured."""
    missing = f"--device {device.type}" if device.type != "cuda" else f"{processes} processes" if processes > 1 else ""
    if asked == "on" and missing:
        raise UserError(f"--cuda-graph needs a CUDA device and one process, here are {missing}; leave it out")
    if asked == "auto":
        untried = f"--grad-accum {parts}" if parts > 1 else f"--recompute {pieces}" if pieces else ""
        reason = missing or untried
        words = (
            f"no CUDA graph (auto: {reason})" if reason else "CUDA graph (auto: one card; --no-cuda-graph for plain)"
        )
        return not reason, words
    return asked == "on", "CUDA graph" if asked == "on" else "no CUDA graph"


class Prefetcher:
    """Iterates over `batches`; on a CUDA device each batch is made on a side stream while the step before it runs.

    A step ends with a synchronisation, so the next batch must be launched before that: the step calls `prefetch` as soon as it
    has launched its own kernels (`meanwhile` of engine.step.train_step). This needs no thread, and launches nothing during a
    capture. On other devices the order is the same, without overlap."""

    def __init__(self, batches: Iterator[Batch], device: torch.device):
        self.batches, self.ready = iter(batches), []
        self.side = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self.side is not None:
            self.side.wait_stream(torch.cuda.current_stream(device))  # until the clips are on the device

    def prefetch(self) -> None:
        """Launches the next batch, unless it is already launched."""
        if not self.ready:
            with torch.cuda.stream(self.side) if self.side is not None else contextlib.nullcontext():
                self.ready.append(next(self.batches, None))

    def __iter__(self) -> Iterator[Batch]:
        while True:
            self.prefetch()
            batch = self.ready.pop()
            if batch is None:
                return
            if self.side is not None:
                now = torch.cuda.current_stream()
                now.wait_stream(self.side)
                for tensor in batch.tensors().values():
                    tensor.record_stream(now)  # keeps the side stream from reusing its memory too early
            yield batch


class CapturedPass:
    """Calls compute(batch) -> StepOutput, which leaves gradients in the parameters, on fixed buffers; on a CUDA device it is
    captured after WARM_UP steps and then replayed.

    The next call overwrites the output's tensors. On other devices every call computes. say: prints that the capture has
    failed, after which every call computes; without it a failed capture is a UserError. ValueError for a batch of other shapes
    than the first."""

    def __init__(self, compute: Callable[[Batch], StepOutput], say: Callable[[str], None] | None = None):
        self.compute = compute
        self.buffers: Batch | None = None
        self.graph, self.output, self.calls = None, None, 0
        self.say, self.captures = say, False

    def __call__(self, batch: Batch) -> StepOutput:
        self._fill(batch)
        self.calls += 1
        if not self.captures:
            return self.compute(self.buffers)
        if self.graph is None and self.calls <= WARM_UP:
            return self._warm_up()
        if self.graph is None and not self._captured():
            return self.compute(self.buffers)
        self.graph.replay()  # a capture records and does not compute
        return self.output

    def _captured(self) -> bool:
        """Captures the pass; returns whether that worked (see `say` of the class)."""
        try:
            self.graph, self.output = self._capture()
        except RuntimeError as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:150]
            if self.say is None:
                raise UserError(f"--cuda-graph: the step cannot be captured ({reason}); give --no-cuda-graph") from None
            self.say(f"the step cannot be captured as a CUDA graph ({reason}); it is computed as without --cuda-graph")
            self.captures = False
        return self.captures

    def _capture(self) -> tuple[torch.cuda.CUDAGraph, StepOutput]:
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self.compute(self.buffers)
        return graph, output

    def _fill(self, batch: Batch) -> None:
        if self.buffers is None:
            self.captures = batch.key.device.type == "cuda"
            self.buffers = batch.each(torch.empty_like)
        buffers = self.buffers.tensors()
        for name, new in batch.tensors().items():
            buffer = buffers[name]
            if new.shape != buffer.shape or new.dtype != buffer.dtype:
                raise ValueError(
                    f"{name}: expected {tuple(buffer.shape)} of {buffer.dtype}, got {tuple(new.shape)} of {new.dtype}"
                )
            buffer.copy_(new, non_blocking=True)

    def _warm_up(self) -> StepOutput:
        """One step on a side stream, as PyTorch requires before a capture."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            output = self.compute(self.buffers)
        torch.cuda.current_stream().wait_stream(stream)
        return output
