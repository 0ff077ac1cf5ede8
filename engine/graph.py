"""The forward and backward pass of a step as one CUDA graph.

A step at the paper's size is some thousands of kernels, many of them small; launched one by one from Python they can take
longer to launch than to run. A graph is captured once and replayed with one launch. It reads and writes the memory it was
captured with, so the batch lives in buffers that stay, and every step's views and draws are copied into them; all shapes
are equal from step to step, because mixing is a map of weights and the queue's pointer a tensor. Nothing in the pass may
ask the host for a value: a test runs it on tensors without data.

Outside the graph, and launched as ever, are what the host decides on: whether all is finite, the optimizer's step with its
rate, the queue. Numbers are to be those of the plain step: on a CPU, where the buffers are used and nothing is captured,
they are, bit for bit; the test for a card has not been run.
"""

import torch

from feeder.batches import Batch
from models.pcm3 import PCM3, StepOutput

WARM_UP = 3  # steps before the capture: cuDNN and cuBLAS choose their algorithms and reserve memory in these


class PlainPass:
    """batch -> StepOutput, with the gradients in the parameters; in `parts`, one after the other."""

    def __init__(self, model: PCM3, parts: int):
        self.model, self.parts = model, parts

    def __call__(self, batch: Batch) -> StepOutput:
        self.model.zero_grad(set_to_none=True)
        return self.model.backward_in_parts(batch, self.parts)


class CapturedPass:
    """The same through buffers that stay, on a CUDA device captured after a few steps and replayed from then on.

    The output's tensors are overwritten by the next call. Elsewhere than on a CUDA device every call computes. ValueError
    for a batch of other shapes than the first."""

    def __init__(self, model: PCM3, parts: int):
        self.compute = PlainPass(model, parts)
        self.buffers: Batch | None = None
        self.graph, self.output, self.calls = None, None, 0

    def __call__(self, batch: Batch) -> StepOutput:
        self._fill(batch)
        self.calls += 1
        if self.buffers.query.device.type != "cuda":
            return self.compute(self.buffers)
        if self.graph is not None:
            self.graph.replay()
            return self.output
        if self.calls <= WARM_UP:
            return self._beside()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.output = self.compute(self.buffers)
        self.graph = graph
        self.graph.replay()  # a capture records and does not compute
        return self.output

    def _fill(self, batch: Batch) -> None:
        given = vars(batch)
        if self.buffers is None:
            self.buffers = type(batch)(**{name: torch.empty_like(tensor) for name, tensor in given.items()})
        for name, new in given.items():
            buffer = getattr(self.buffers, name)
            if new.shape != buffer.shape or new.dtype != buffer.dtype:
                raise ValueError(
                    f"{name}: expected {tuple(buffer.shape)} of {buffer.dtype}, got {tuple(new.shape)} of {new.dtype}"
                )
            buffer.copy_(new, non_blocking=True)

    def _beside(self) -> StepOutput:
        """One step on a stream of its own, as warming up must be."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            output = self.compute(self.buffers)
        torch.cuda.current_stream().wait_stream(stream)
        return output
