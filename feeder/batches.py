"""The batch of a training step: the random choices for (seed, step), rendered into views.

Input: packed clips, seed, `ViewSettings`. Output: a `Batch` for each step. `Batches(...)[step]` is a pure function of its
arguments and the step. `stream(start, stop)` yields the same batches in order, rendered ahead by background threads
(rendering is torch code, which releases Python's lock), or on the GPU if the clips are there. One of several processes
passes its `rows`: the random choices are made for the whole batch, views are rendered for these rows only, and mixing
partners that belong to other processes are rendered here, too.
"""

import zlib
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from feeder.clips import PackedClips
from feeder.masks import expand_hidden
from feeder.render import channels_of, render
from feeder.sampling import OWN_VIEW, PROMPT_USES, StepSamples, ViewSettings, sample_step, uniforms
from feeder.views import PAPER_VIEWS, VIEWS, Sources
from utils.skeleton import Layout


@dataclass
class Batch:
    """The model's input for a step: n rows of this process, N of all processes, F = V * C * M.

    views: by name (feeder.views), each (n, T, F), to be contrasted with the clip's key; key (n, T, F): the view that the
    keys are computed from; target (n, T, F): the masked view before masking; hidden (T, F) or (n, T, F) bool, True =
    hidden; partner (n,): index of the mixing partner within the whole batch; mix_lambda (): the partner's share of the
    mixed key; offsets (6 or more,): uniforms for the places of the task prompts, in the order of PROMPT_USES, then of the
    views that the paper does not have; clips (n,): indices of the clips; all_clips (N,): those of the whole batch."""

    views: dict[str, Tensor]
    key: Tensor
    target: Tensor
    hidden: Tensor
    partner: Tensor
    mix_lambda: Tensor
    offsets: Tensor
    clips: Tensor
    all_clips: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, by the name of the field or view."""
        return {**self.views, **{name: value for name, value in vars(self).items() if name != "views"}}

    def each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """A batch with `change` applied to every tensor."""
        changed = {name: change(value) for name, value in self.tensors().items()}
        return Batch(views={name: changed.pop(name) for name in self.views}, **changed)

    def to(self, device, dtype: torch.dtype) -> "Batch":
        return self.each(lambda t: t.to(device, dtype if t.is_floating_point() else t.dtype, non_blocking=True))

    def pin(self) -> "Batch":
        return self.each(Tensor.pin_memory)

    def rows(self, rows: slice) -> "Batch":
        """A part of the rows; what belongs to the whole batch stays whole."""
        return replace(
            self,
            views={name: view[rows] for name, view in self.views.items()},
            key=self.key[rows],
            target=self.target[rows],
            hidden=self.hidden[rows] if self.hidden.ndim == 3 else self.hidden,
            partner=self.partner[rows],
            clips=self.clips[rows],
        )


class Batches:
    """The batches of a run, by step. layout: of the clips' joints; stream: of STREAMS; device, dtype: of the batches that
    `stream` yields; rows: the slice of the batch that this process computes (default: all); own_views: names of views in
    feeder.views.VIEWS that are rendered besides the paper's."""

    def __init__(
        self,
        clips: PackedClips,
        batch_size: int,
        seed: int,
        settings: ViewSettings,
        layout: Layout,
        stream: str = "joint",
        device="cpu",
        dtype: torch.dtype = torch.float32,
        rows: slice | None = None,
        own_views: Iterable[str] = (),
    ):
        self.clips, self.batch_size, self.seed, self.settings = clips, batch_size, seed, settings
        self.layout, self.stream_name = layout, stream
        self.own_views = tuple(own_views)
        self.device, self.dtype = torch.device(device), dtype
        self.parents = torch.tensor(layout.parents, device=clips.frames.device)
        self.num_frame = clips.num_frame.cpu().numpy()
        self.rows = rows if rows is not None else slice(0, batch_size)

    @property
    def steps_per_epoch(self) -> int:
        return len(self.clips) // self.batch_size

    def samples(self, step: int) -> StepSamples:
        """The random choices of a step, for the whole batch."""
        settings, prompts = self.settings, len(PROMPT_USES) + len(self.own_views)
        return sample_step(
            self.seed, step, self.batch_size, self.num_frame, self.layout, settings, self.clips.persons, prompts
        )

    def views(self, samples: StepSamples) -> tuple[Tensor, Tensor, Tensor]:
        """Query views (of this process's rows, then of mixing partners that belong to other processes), key views and target
        views (of the rows), each (rows, T, F). Rendered in one call, because its many small operations take as long for
        one view as for three."""
        rows = np.arange(self.batch_size)[self.rows]
        rows_of_view = [np.concatenate([rows, np.setdiff1d(samples.mix.partner[rows], rows)]), rows, rows]
        sizes = [len(rows_of_one) for rows_of_one in rows_of_view]
        which = np.repeat(np.arange(len(sizes)), sizes), np.concatenate(rows_of_view)  # (view, row) of what is rendered
        noisy = slice(0, sum(sizes[:2]))  # query and key

        def to_device(a) -> Tensor | None:
            return None if a is None else torch.as_tensor(a, device=self.clips.frames.device)

        first, _, factors = self.clips.rows_of(torch.as_tensor(samples.clips[which[1]]))
        rendered = render(
            self.clips.frames,
            first + to_device(samples.starts[which]),
            to_device(samples.lengths[which]),
            to_device(samples.matrices[which]),
            self.settings.frames,
            self.stream_name,
            self.parents,
            factors,
            None if samples.bodies is None else to_device(samples.bodies[which]),
            None if samples.noise is None else to_device(samples.noise[which[0][noisy], which[1][noisy]]),
        )
        return rendered.split(sizes)

    def __getitem__(self, step: int) -> Batch:
        """The batch of a step, on the device of the clips (`stream` moves it to the training device)."""
        samples = self.samples(step)
        rows = np.arange(self.batch_size)[self.rows]
        query, key, target = self.views(samples)
        device = key.device

        def to_device(a, dtype=None) -> Tensor:
            return torch.as_tensor(a, dtype=dtype).to(device, non_blocking=True)

        hidden = samples.hidden[self.rows] if samples.hidden.ndim == 3 else samples.hidden
        hidden = expand_hidden(to_device(hidden), self.clips.persons, channels_of(self.stream_name))
        mix = samples.mix
        partner = mix.partner[rows]
        query_index = np.full(self.batch_size, -1)  # of each sample of the batch in `query`; -1: not rendered here
        query_index[rows] = np.arange(len(rows))
        others = np.setdiff1d(partner, rows)
        query_index[others] = len(rows) + np.arange(len(others))

        def own_uniforms(name: str, *shape: int) -> Tensor:
            whole = uniforms(self.seed + (zlib.crc32(name.encode()) << 32), OWN_VIEW, step, (self.batch_size, *shape))
            return to_device(whole[rows], key.dtype)

        sources = Sources(
            query=query[: len(rows)],
            key=key,
            target=target,
            queries=query,
            partner_index=to_device(query_index[partner]),
            mix_weight=to_device(mix.weight, key.dtype),
            mix_index=to_device(mix.index),
            hidden=hidden,
            layout=self.layout,
            uniforms=own_uniforms,
        )
        return Batch(
            views={name: VIEWS[name].make(sources) for name in (*PAPER_VIEWS, *self.own_views)},
            key=key,
            target=target,
            hidden=hidden,
            partner=to_device(partner),
            mix_lambda=to_device(mix.mix_lambda, key.dtype),
            offsets=to_device(samples.offsets, key.dtype),
            clips=to_device(samples.clips[rows]),
            all_clips=to_device(samples.clips),
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
