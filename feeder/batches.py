"""The batch of a training step: draws for (seed, step), rendered into views on the device, a few steps ahead.

`Batches(...)[step]` is a pure function of its arguments and the step. `stream(start, stop)` yields the same batches in
order, rendered ahead by background threads (rendering is torch code, which releases Python's lock), or, with the clips on
a GPU, rendered there in place. A process among several gives its `rows`: draws are made for the whole batch, views only
for these rows, and the mixing partners, which other processes hold, are rendered here from the packed clips.
"""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from feeder.clips import PackedClips
from feeder.draws import StepDraws, ViewSettings, draw_step
from feeder.masks import expand_hidden, mask_view
from feeder.mixing import mix_views
from feeder.views import render


@dataclass
class Batch:
    """What the model sees in a step; N rows of this process, F = V * C * M.

    query, key, target, masked, mixed: (N, T, F); hidden: (T, F) or (N, T, F) bool, True = hidden; partner (N,): index of
    the mixing partner within the whole batch; share (): lambda of the mixed key; offsets (6,): uniforms for the places of
    the task prompts; clips (N,): which clips, for messages."""

    query: Tensor
    key: Tensor
    target: Tensor
    masked: Tensor
    mixed: Tensor
    hidden: Tensor
    partner: Tensor
    share: Tensor
    offsets: Tensor
    clips: Tensor

    def to(self, device, dtype: torch.dtype) -> "Batch":
        def move(t: Tensor) -> Tensor:
            return t.to(device, dtype if t.is_floating_point() else t.dtype, non_blocking=True)

        return Batch(**{f.name: move(getattr(self, f.name)) for f in fields(self)})

    def pin(self) -> "Batch":
        return Batch(**{f.name: getattr(self, f.name).pin_memory() for f in fields(self)})


def assemble(query, partner_view, key, target, draws: StepDraws, rows: slice, clips, persons: int) -> Batch:
    """A batch from the three views of its rows, the query views of their mixing partners, and the draws."""
    device = query.device

    def put(a, dtype=None) -> Tensor:
        return torch.as_tensor(a, dtype=dtype).to(device, non_blocking=True)

    hidden = draws.hidden[rows] if draws.hidden.ndim == 3 else draws.hidden
    hidden = expand_hidden(put(hidden), persons)
    mix = draws.mix
    return Batch(
        query=query,
        key=key,
        target=target,
        masked=mask_view(target, hidden),
        mixed=mix_views(query, partner_view, put(mix.weight, query.dtype), put(mix.index)),
        hidden=hidden,
        partner=put(mix.partner[rows]),
        share=put(mix.share, query.dtype),
        offsets=put(draws.offsets, query.dtype),
        clips=put(clips),
    )


class Batches:
    """Batches of a run. clips: packed clips; parts: the body parts of the layout; parents: (V,) of the bone stream;
    rows: the slice of the batch that this process computes (default: all of it)."""

    def __init__(
        self,
        clips: PackedClips,
        batch_size: int,
        seed: int,
        settings: ViewSettings,
        parts,
        parents,
        stream: str = "joint",
        device="cpu",
        dtype: torch.dtype = torch.float32,
        rows: slice | None = None,
    ):
        self.clips, self.batch_size, self.seed, self.settings = clips, batch_size, seed, settings
        self.parts, self.stream_name = parts, stream
        self.device, self.dtype = torch.device(device), dtype
        self.parents = torch.as_tensor(parents, device=clips.frames.device)
        self.num_frame = clips.num_frame.cpu().numpy()
        self.rows = rows if rows is not None else slice(0, batch_size)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.clips) // self.batch_size

    def draws(self, step: int) -> StepDraws:
        """The draws of a step for the whole batch."""
        return draw_step(self.seed, step, self.batch_size, self.num_frame, self.parts, self.clips.joints, self.settings)

    def _render(self, draws: StepDraws, view: int, samples: np.ndarray) -> Tensor:
        where = self.clips.frames.device
        clips = draws.clips[samples]
        first = self.clips.offsets[torch.as_tensor(clips, device=self.clips.offsets.device)]
        return render(
            self.clips.frames,
            first.to(where) + torch.as_tensor(draws.starts[view, samples], device=where),
            torch.as_tensor(draws.lengths[view, samples], device=where),
            torch.as_tensor(draws.matrices[view, samples], device=where),
            self.settings.frames,
            self.stream_name,
            self.parents,
        )

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step, where the clips are (not yet moved to the training device)."""
        draws = self.draws(step)
        samples = np.arange(self.batch_size)[self.rows]
        partners = draws.mix.partner[samples]
        every, place = np.unique(np.concatenate([samples, partners]), return_inverse=True)
        query_of_all = self._render(draws, 0, every)
        place = torch.as_tensor(place, device=query_of_all.device)
        own = np.array_equal(every, samples)
        return assemble(
            query=query_of_all if own else query_of_all[place[: len(samples)]],
            partner_view=query_of_all[place[len(samples) :]],
            key=self._render(draws, 1, samples),
            target=self._render(draws, 2, samples),
            draws=draws,
            rows=self.rows,
            clips=draws.clips[samples],
            persons=self.clips.persons,
        )

    def stream(self, start: int, stop: int, workers: int = 1):
        """Yields the batches of steps start..stop-1 on the device, rendered by `workers` threads ahead of their use."""
        on_device = self.clips.frames.device.type != "cpu"
        pin = self.device.type == "cuda" and not on_device
        if workers < 1 or on_device:
            for step in range(start, stop):
                yield self[step].to(self.device, self.dtype)
            return

        def make(step: int) -> Batch:
            batch = self[step]
            return batch.pin() if pin else batch

        with ThreadPoolExecutor(workers, thread_name_prefix="feeder") as pool:
            pending: deque = deque()
            upcoming = iter(range(start, stop))
            try:
                for step in upcoming:
                    pending.append(pool.submit(make, step))
                    if len(pending) > workers:
                        yield pending.popleft().result().to(self.device, self.dtype)
                while pending:
                    yield pending.popleft().result().to(self.device, self.dtype)
            finally:
                for future in pending:
                    future.cancel()
