"""Key update, forward and backward pass of a step (engine.step.compute_gradients) as one CUDA graph.

A step at the paper's size is some thousands of kernels, many of them small; launched one by one from Python they can take
longer to launch than to run. A graph is captured once and replayed with one launch. It reads and writes the memory it was
captured with, so the batch lives in buffers that stay, and every step's batch is copied into them; all shapes
are equal from step to step, because mixing is a map of weights and the queue's pointer a tensor. Nothing in the pass may
ask the host for a value: a test runs it on tensors without data.

`choose_capture` decides whether a run is captured, from what the run is and not from a trial, and says so in words.

Outside the graph, and launched as ever, are what the host decides on: whether all is finite, the optimizer's step with its
rate, the queue. Numbers are to be those of the plain step: on a CPU, where the buffers are used and nothing is captured,
they are, bit for bit; on a card losses agreed to the last printed digit over 336 steps (RESULTS.md).
"""

import contextlib
from collections.abc import Callable, Iterator

import torch

from feeder.batches import Batch
from models.pcm3 import StepOutput
from utils.errors import UserError

WARM_UP = 3  # steps before the capture: cuDNN and cuBLAS choose their algorithms and reserve memory in these


def choose_capture(asked: str, device: torch.device, processes: int, parts: int, pieces: int) -> tuple[bool, str]:
    """What --cuda-graph asks for (auto, on, off) -> whether the pass is captured, and the same in words for the log.

    parts, pieces: --grad-accum and --recompute, whose passes nobody has captured on a card yet: auto leaves them plain, `on`
    tries. UserError for `on` without a card or among several processes, whose exchanges are not kernels of one card."""
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
    """The same batches, each made on a stream of its own while the step before it runs on a card.

    A step ends with a question to the host, so what is to run beside it must be launched before that: the step calls
    `prefetch` as soon as it has launched its own kernels (`meanwhile` of engine.step.train_step). No thread is needed, and
    nothing is launched while a graph is captured. Elsewhere than on a CUDA device the order is the same and nothing runs
    beside anything."""

    def __init__(self, batches: Iterator[Batch], device: torch.device):
        self.batches, self.ready = iter(batches), []
        self.side = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self.side is not None:
            self.side.wait_stream(torch.cuda.current_stream(device))  # what batches are made of is there

    def prefetch(self) -> None:
        """Launches what makes the next batch, unless it is launched already."""
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
                    tensor.record_stream(now)  # so that the side stream does not use its memory again too early
            yield batch


class CapturedPass:
    """compute(batch) -> StepOutput, with the gradients in the parameters, through buffers that stay: on a CUDA device captured
    after a few steps and replayed from then on.

    The output's tensors are overwritten by the next call. Elsewhere than on a CUDA device every call computes. say: told
    when the capture fails, after which every call computes; without it a failed capture is a UserError. ValueError for a
    batch of other shapes than the first."""

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
        """Whether the pass could be captured; see `say` for what happens if not."""
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
        """One step on a stream of its own, as warming up must be."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            output = self.compute(self.buffers)
        torch.cuda.current_stream().wait_stream(stream)
        return output
