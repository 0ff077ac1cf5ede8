"""Batch normalisation that knows views.

Several views of a batch go through the encoder in one call, stacked along the batch axis, because few large products are
faster than many small ones. Batch statistics must stay those of one view, and running statistics, which are saved and
used by every evaluation, must be updated in the released order (query, masked, predicted, mixed), which is not the order
in which views become ready. So `ViewNorm` normalises each view by itself and hands its statistics to a `RunningUpdates`,
which applies them in the order asked for when the step is done.

The parameters and buffers are those of nn.BatchNorm1d, under the same names. The statistics are over all axes but the
last: (views * N, F), (views * N, T, F), ...
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RunningUpdates:
    """Statistics of the views of one step, to be applied to the running ones later, in a chosen order."""

    def __init__(self):
        self._pending: dict[ViewNorm, list[tuple[Tensor, Tensor]]] = {}

    def add(self, norm: "ViewNorm", mean: Tensor, variance: Tensor) -> None:
        self._pending.setdefault(norm, []).append((mean, variance))

    def commit(self, order=None) -> None:
        """Updates the running statistics. order: indices of the views in the order of calls (default: that order)."""
        for norm, statistics in self._pending.items():
            for i in range(len(statistics)) if order is None else order:
                norm.update_running(*statistics[i])
        self._pending.clear()


class ViewNorm(nn.BatchNorm1d):
    """nn.BatchNorm1d over all axes but the last, each of `views` equal parts of the batch by its own statistics."""

    def forward(self, x: Tensor, views: int = 1, updates: RunningUpdates | None = None) -> Tensor:
        """x (views * N, ..., F) -> the same shape. While training, statistics go to `updates` or, without it, at once
        into the running ones. In eval mode the running statistics normalise, whatever the views."""
        flat = x.reshape(-1, x.shape[-1])
        if not self.training:
            y = F.batch_norm(flat, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
            return y.reshape(x.shape)
        if flat.shape[0] % views:
            raise ValueError(f"{x.shape[0]} rows are not {views} equal views")
        parts = []
        for part in flat.chunk(views):
            mean, variance = torch.zeros_like(self.running_mean), torch.ones_like(self.running_var)
            # momentum 1 leaves the statistics of this view (variance unbiased) in the two buffers
            parts.append(F.batch_norm(part, mean, variance, self.weight, self.bias, True, 1.0, self.eps))
            if updates is None:
                self.update_running(mean, variance)
            else:
                updates.add(self, mean, variance)
        return (parts[0] if views == 1 else torch.cat(parts)).reshape(x.shape)

    @torch.no_grad()
    def update_running(self, mean: Tensor, variance: Tensor) -> None:
        """One update of the running statistics with a view's mean and unbiased variance."""
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)
