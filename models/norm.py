"""Batch normalisation of several views in one call.

The views of a batch go through the encoder in one call, stacked along the batch axis, because few large products are faster
than many small ones. Batch statistics must stay those of each view, and running statistics, which are saved and used by
every evaluation, must be updated in the released order (query, masked, predicted, mixed), which is not the order in which
the views are encoded. So `ViewNorm` normalises each view separately and passes its statistics to a `RunningUpdates`, which
applies them in a given order when the step is done.

Parameters and buffers are those of nn.BatchNorm1d, under the same names. Statistics are over all axes but the last:
(views * N, F), (views * N, T, F), ...

With several processes, each with its rows of the batch, the statistics are those of the whole batch. (nn.SyncBatchNorm does
not run on a CPU and has no views.) `_WholeBatchNorm` gathers the mean and the sum of squared deviations of every process,
which is numerically stabler than sums of squares, and in the backward pass adds up the two sums that the gradient of x
needs.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from utils.distributed import World


class RunningUpdates:
    """The batch statistics of the views of one step; `commit` applies them to the running statistics, in a given order."""

    def __init__(self):
        self._pending: dict[ViewNorm, list[tuple[Tensor, Tensor, int]]] = {}

    def add(self, norm: "ViewNorm", mean: Tensor, variance: Tensor, count: int) -> None:
        """Adds the mean and unbiased variance (F,) of a view of `count` rows."""
        self._pending.setdefault(norm, []).append((mean, variance, count))

    @classmethod
    def pooled(cls, parts: list["RunningUpdates"]) -> "RunningUpdates":
        """The updates of a batch that was computed in parts: for each view the statistics of the rows of all parts."""
        if len(parts) == 1:
            return parts[0]
        whole = cls()
        for norm in parts[0]._pending:
            for view in zip(*(part._pending[norm] for part in parts), strict=True):
                whole.add(norm, *pool_statistics(*zip(*view, strict=True)))
        return whole

    def commit(self, order=None) -> None:
        """Updates the running statistics, view by view. order: indices into the views as they were added (default: all, in
        that order)."""
        for norm, statistics in self._pending.items():
            for i in range(len(statistics)) if order is None else order:
                mean, variance, _ = statistics[i]
                norm.update_running(mean, variance)
        self._pending.clear()


def pool_statistics(means, variances, counts) -> tuple[Tensor, Tensor, int]:
    """Mean, unbiased variance and number of rows of several groups together, from those of each group."""
    total = sum(counts)
    mean = sum(m * n for m, n in zip(means, counts, strict=True)) / total
    squares = sum(v * (n - 1) + n * (m - mean).square() for m, v, n in zip(means, variances, counts, strict=True))
    return mean, squares / max(total - 1, 1), total


class _WholeBatchNorm(torch.autograd.Function):
    """Batch norm over axis 1 of x (views, R, F); each process of `world` has R rows of the batch.

    Returns y like x, and mean and unbiased variance (views, F) of the rows of all processes, without gradient."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float, world: World):
        rows, total = x.shape[1], x.shape[1] * world.size
        own = x.to(weight.dtype)
        own_mean = own.mean(dim=1)
        own_squares = (own - own_mean[:, None]).square().sum(dim=1)
        means, squares = world.gather(torch.stack([own_mean, own_squares])[None], "statistics").unbind(dim=1)
        mean = means.mean(dim=0)
        squares = squares.sum(dim=0) + rows * (means - mean).square().sum(dim=0)
        scale = (squares / total + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.world = world
        variance = squares / max(total - 1, 1)
        ctx.mark_non_differentiable(mean, variance)
        return ((own - mean[:, None]) * (scale * weight)[:, None] + bias).to(x.dtype), mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor, *_):
        x, weight, mean, scale = ctx.saved_tensors
        total = x.shape[1] * ctx.world.size
        gradient = gradient.to(weight.dtype)
        normal = (x.to(weight.dtype) - mean[:, None]) * scale[:, None]
        sums = torch.stack([gradient.sum(dim=1), (gradient * normal).sum(dim=1)])
        grad_bias, grad_weight = sums.sum(dim=1)  # of these rows; the training step sums them over the processes
        grad_x = None
        if ctx.needs_input_grad[0]:
            ctx.world.sum_([sums], "statistics")
            mean_gradient, mean_product = (sums / total)[:, :, None]
            grad_x = ((gradient - mean_gradient - normal * mean_product) * (scale * weight)[:, None]).to(x.dtype)
        return grad_x, grad_weight, grad_bias, None, None


class ViewNorm(nn.BatchNorm1d):
    """nn.BatchNorm1d over all axes but the last, with separate statistics for each of `views` equal parts of the batch.

    world: the processes that share the batch; by default one."""

    world = World()

    def forward(self, x: Tensor, views: int = 1, updates: RunningUpdates | None = None) -> Tensor:
        """x (views * N, ..., F) -> the same shape. In training mode the batch statistics are added to `updates` or, without
        it, applied to the running statistics at once. In eval mode the running statistics normalise all views. ValueError
        for rows that are not `views` equal parts."""
        flat = x.reshape(-1, x.shape[-1])
        if not self.training:
            y = F.batch_norm(flat, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
            return y.reshape(x.shape)
        if flat.shape[0] % views:
            raise ValueError(f"{x.shape[0]} rows cannot be split into {views} equal views")
        if self.world.size > 1:
            stacked = flat.reshape(views, -1, flat.shape[-1])
            y, means, variances = _WholeBatchNorm.apply(stacked, self.weight, self.bias, self.eps, self.world)
            for mean, variance in zip(means, variances, strict=True):
                self._update(mean, variance, stacked.shape[1] * self.world.size, updates)
            return y.reshape(x.shape)
        parts = []
        for part in flat.chunk(views):
            mean, variance = torch.zeros_like(self.running_mean), torch.ones_like(self.running_var)
            # with momentum 1 the two buffers become the statistics of this view (variance unbiased)
            parts.append(F.batch_norm(part, mean, variance, self.weight, self.bias, True, 1.0, self.eps))
            self._update(mean, variance, len(part), updates)
        return (parts[0] if views == 1 else torch.cat(parts)).reshape(x.shape)

    def _update(self, mean: Tensor, variance: Tensor, count: int, updates: RunningUpdates | None) -> None:
        if updates is None:
            self.update_running(mean, variance)
        else:
            updates.add(self, mean, variance, count)

    @torch.no_grad()
    def update_running(self, mean: Tensor, variance: Tensor) -> None:
        """One update of the running statistics with the mean and unbiased variance (F,) of a view.

        Values that are not finite are ignored: they come from a step that is skipped (or ends the run), and would stay in
        the running statistics and spoil every later evaluation."""
        mean = torch.where(mean.isfinite(), mean, self.running_mean)
        variance = torch.where(variance.isfinite(), variance, self.running_var)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
        self.num_batches_tracked.add_(1)
