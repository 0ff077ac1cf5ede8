"""Stacked GRU layers on a GPU as a wavefront: layer l computes frame t while layer l + 1 computes frame t - 1.

Layer by layer, a pass is a chain of layers x frames dependent products. As a wavefront it has frames + layers - 1 links, each
of which computes all layers at once. A group is one direction of one layer, g = layer * D + direction. States are stored
shifted by the layer, (G, links + 1, N, H): the state of a group after frame t is at index t + layer + 1. So link s reads index
s of every group: its own previous state, and the output of the layer below for the same frame. Therefore

* each link has one batched product: the state of a group times its own recurrent weights and, concatenated, those columns of
  the next layer's input weights that read it (the top layer has a separate product, since no layer reads it; the first
  layer's input product is computed for all frames before the chain);
* each link has one fused kernel (Triton) for the gates of all groups: sums, sigmoids, the new state in the input's type, the
  state in the products' type, and, if gradients are needed, r, z, n and q of every frame;
* backward runs the links in reverse: one kernel for the gradients of all gates, one batched product for the gradient of the
  previous frame, one for that of the layer below. Gate gradients and states of a group are each one matrix over all frames,
  so that weight gradients are large products at the end.

Precision is that of models.recurrent, except that outputs and kept gates are rounded to the products' type. Values and
gradients are tested without a GPU by Triton's interpreter (TRITON_INTERPRET=1, read when this module is imported), and the
kernels compile for GPUs of compute capability 8.0 and 9.0. On an H100 a bf16 step at the paper's size takes 39.2 ms instead
of 47.3 with cuDNN (RESULTS.md); pretraining chooses it there (engine.setup.choose_recurrent). Triton comes with CUDA builds
of torch on Linux.
"""

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton.errors import TritonError

from utils.errors import UserError

ROWS, COLUMNS = 16, 128  # of one program of a kernel


@triton.jit
def _sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit(do_not_specialize=["link", "first_group"])
def _forward_link(
    products, inputs, biases, state, states, kept, link, first_group, frames, clips, lower_size, H,
    D: tl.constexpr, LAYERS: tl.constexpr, KEEP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The gates of one link, for the groups from first_group on. products: lower (D * (LAYERS - 1), clips, 3H * (1 + D)),
    then top (D, clips, 3H); inputs (D, frames, clips, 3H); biases (G, 4, H): r, z, n of the input, n of the state."""
    group = (first_group + tl.program_id(0)).to(tl.int64)
    layer, direction = group // D, group % D
    frame, links = link - layer, frames + LAYERS - 1
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    columns = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (rows < clips) & (columns < H)
    kind = state.dtype.element_ty
    wide = 3 * H * (1 + D)
    is_top = layer == LAYERS - 1
    start = tl.where(is_top, lower_size + direction * clips * 3 * H, group * clips * wide)
    own = products + start + rows * tl.where(is_top, 3 * H, wide) + columns
    h_r = tl.load(own, inside, 0.0).to(kind)
    h_z = tl.load(own + H, inside, 0.0).to(kind)
    h_n = tl.load(own + 2 * H, inside, 0.0).to(kind)
    if layer == 0:
        below = inputs + ((direction * frames + frame) * clips + rows) * 3 * H + columns
        i_r = tl.load(below, inside, 0.0).to(kind)
        i_z = tl.load(below + H, inside, 0.0).to(kind)
        i_n = tl.load(below + 2 * H, inside, 0.0).to(kind)
    else:
        below = products + ((layer - 1) * D * clips + rows) * wide + 3 * H * (1 + direction) + columns
        i_r = tl.load(below, inside, 0.0).to(kind)
        i_z = tl.load(below + H, inside, 0.0).to(kind)
        i_n = tl.load(below + 2 * H, inside, 0.0).to(kind)
        if D == 2:
            below += clips * wide
            i_r += tl.load(below, inside, 0.0).to(kind)
            i_z += tl.load(below + H, inside, 0.0).to(kind)
            i_n += tl.load(below + 2 * H, inside, 0.0).to(kind)
    bias = biases + group * 4 * H + columns
    column = columns < H
    r = _sigmoid(i_r + h_r + tl.load(bias, column, 0.0))
    z = _sigmoid(i_z + h_z + tl.load(bias + H, column, 0.0))
    q = h_n + tl.load(bias + 3 * H, column, 0.0)
    n = 2 * _sigmoid(2 * (i_n + tl.load(bias + 2 * H, column, 0.0) + r * q)) - 1  # tanh
    at = (group * clips + rows) * H + columns
    h = n + z * (tl.load(state + at, inside, 0.0) - n)
    tl.store(state + at, h, inside)
    low = states.dtype.element_ty
    tl.store(states + ((group * (links + 1) + link + 1) * clips + rows) * H + columns, h.to(low), inside)
    if KEEP:
        keep = kept + ((group * links + link) * clips + rows) * 4 * H + columns
        tl.store(keep, r.to(low), inside)
        tl.store(keep + H, z.to(low), inside)
        tl.store(keep + 2 * H, n.to(low), inside)
        tl.store(keep + 3 * H, q.to(low), inside)


@triton.jit(do_not_specialize=["link", "first_group"])
def _backward_link(
    outer, within, above, kept, states, carry, gradients, link, first_group, frames, clips, H,
    D: tl.constexpr, LAYERS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The gradients of the gates of one link, in the order q, r, z, n, for the groups from first_group on. outer (frames,
    clips, D * H): gradients of the outputs; within (G, clips, H): from the next frame's products; above (D * (LAYERS - 1),
    clips, D * H): from the layer above; carry (G, clips, H): from the next frame's state, z times its gradient."""
    group = (first_group + tl.program_id(0)).to(tl.int64)
    layer, direction = group // D, group % D
    frame, links = link - layer, frames + LAYERS - 1
    rows = tl.program_id(1) * ROWS + tl.arange(0, ROWS)[:, None]
    columns = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (rows < clips) & (columns < H)
    kind = carry.dtype.element_ty
    low = gradients.dtype.element_ty
    at = (group * clips + rows) * H + columns
    dh = tl.load(carry + at, inside, 0.0) + tl.load(within + at, inside, 0.0).to(kind)
    if layer == LAYERS - 1:
        dh += tl.load(outer + (frame * clips + rows) * D * H + direction * H + columns, inside, 0.0).to(kind)
    else:
        from_above = above + (layer * D * clips + rows) * D * H + direction * H + columns
        dh += tl.load(from_above, inside, 0.0).to(kind)
        if D == 2:
            dh += tl.load(from_above + clips * D * H, inside, 0.0).to(kind)
    keep = kept + ((group * links + link) * clips + rows) * 4 * H + columns
    r = tl.load(keep, inside, 0.0).to(kind)
    z = tl.load(keep + H, inside, 0.0).to(kind)
    n = tl.load(keep + 2 * H, inside, 0.0).to(kind)
    q = tl.load(keep + 3 * H, inside, 0.0).to(kind)
    before = tl.load(states + ((group * (links + 1) + link) * clips + rows) * H + columns, inside, 0.0).to(kind)
    d_n = dh * (1 - z) * (1 - n * n)
    d_z = dh * (before - n) * z * (1 - z)
    d_q = d_n * r
    d_r = d_q * q * (1 - r)
    out = gradients + ((group * links + link) * clips + rows) * 4 * H + columns
    tl.store(out, d_q.to(low), inside)
    tl.store(out + H, d_r.to(low), inside)
    tl.store(out + 2 * H, d_z.to(low), inside)
    tl.store(out + 3 * H, d_n.to(low), inside)
    tl.store(carry + at, dh * z, inside)


class WavefrontWeights:
    """The weights of all layers, prepared for the products of the links, in compute_dtype; prepared on first use.

    weights: for each layer D times (weight_ih (3H, F), weight_hh (3H, H), bias_ih, bias_hh). Valid as long as these do not
    change."""

    def __init__(self, weights: list[tuple[Tensor, ...]], compute_dtype: torch.dtype):
        self.weights = [[w.detach() for w in layer] for layer in weights]
        self.compute_dtype = compute_dtype
        self.layers, self.directions = len(weights), len(weights[0]) // 4
        self.hidden = weights[0][1].shape[1]

    @functools.cached_property
    def first(self) -> list[Tensor]:
        """D times (F, 3H): input weights of the first layer."""
        return [w.to(self.compute_dtype).t() for w in self.weights[0][0::4]]

    @functools.cached_property
    def lower(self) -> Tensor:
        """(D * (layers - 1), H, 3H * (1 + D)): for each group below the top layer the weights that its state is multiplied by:
        its own recurrent weights and its columns of the next layer's input weights."""
        groups = []
        for layer in range(self.layers - 1):
            readers = [w.split(self.hidden, dim=1) for w in self.weights[layer + 1][0::4]]
            for d, own in enumerate(self.weights[layer][1::4]):
                groups.append(torch.cat([own, *(columns[d] for columns in readers)]).to(self.compute_dtype).t())
        return torch.stack(groups) if groups else self.top[:0]

    @functools.cached_property
    def top(self) -> Tensor:
        """(D, H, 3H): recurrent weights of the top layer."""
        return torch.stack(self.weights[-1][1::4]).to(self.compute_dtype).transpose(1, 2)

    @functools.cached_property
    def biases(self) -> Tensor:
        """(G, 4, H): r and z, summed over both products, n of the input's product, n of the state's."""
        rows = []
        for layer in self.weights:
            for b_ih, b_hh in zip(layer[2::4], layer[3::4], strict=True):
                (i_r, i_z, i_n), (h_r, h_z, h_n) = b_ih.chunk(3), b_hh.chunk(3)
                rows.append(torch.stack([i_r + h_r, i_z + h_z, i_n, h_n]))
        return torch.stack(rows)

    @functools.cached_property
    def within(self) -> Tensor:
        """(G, 3H, H): from the gradients of q, r, z to that of the previous state."""
        rows = []
        for layer in self.weights:
            for w in layer[1::4]:
                rz, n = w.split([2 * self.hidden, self.hidden])
                rows.append(torch.cat([n, rz]))
        return torch.stack(rows).to(self.compute_dtype)

    @functools.cached_property
    def below(self) -> Tensor:
        """(D * (layers - 1), 3H, D * H): from the gradients of r, z, n of layers 1, 2, ... to that of the layer below."""
        rows = [w for layer in self.weights[1:] for w in layer[0::4]]
        return torch.stack(rows).to(self.compute_dtype) if rows else self.within[:0]


def _launch(kernel, groups: int, clips: int, hidden: int, *arguments, **constants) -> None:
    columns = min(COLUMNS, triton.next_power_of_2(hidden))
    grid = (groups, triton.cdiv(clips, ROWS), triton.cdiv(hidden, columns))
    try:
        kernel[grid](*arguments, **constants, ROWS=ROWS, COLUMNS=columns)
    except (TritonError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"--recurrent wavefront: Triton cannot run its kernel here ({reason}); leave it out, or give --recurrent auto"
        ) from None


def _active(link: int, frames: int, layers: int) -> tuple[int, int]:
    """The first layer that has a frame at a link, and one past the last."""
    return max(0, link - frames + 1), min(layers, link + 1)


def _forward(x: Tensor, h0: Tensor, prepared: WavefrontWeights, keep: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """x (T, N, F), h0 (G, N, H) -> states (G, links + 1, N, H), the state after the last frame (G, N, H), and r, z, n, q
    (G, links, N, 4H) or None. Where a group has no frame at a link, they are zero."""
    (frames, clips, _), H, D, layers = x.shape, prepared.hidden, prepared.directions, prepared.layers
    groups, links, low = D * layers, frames + layers - 1, prepared.compute_dtype
    rows = x.reshape(frames * clips, -1).to(low)
    inputs = torch.stack([rows @ w for w in prepared.first])
    states = x.new_zeros(groups, links + 1, clips, H, dtype=low)
    for layer in range(layers):
        states[D * layer : D * (layer + 1), layer] = h0[D * layer : D * (layer + 1)].to(low)
    state = h0.clone(memory_format=torch.contiguous_format)
    kept = x.new_zeros(groups, links, clips, 4 * H, dtype=low) if keep else None
    lower_size = D * (layers - 1) * clips * 3 * H * (1 + D)
    products = x.new_empty(lower_size + D * clips * 3 * H, dtype=low)
    lower = products[:lower_size].view(D * (layers - 1), clips, 3 * H * (1 + D))
    top = products[lower_size:].view(D, clips, 3 * H)
    for link in range(links):
        low_layer, high_layer = _active(link, frames, layers)
        source = slice(D * max(low_layer - 1, 0), D * min(high_layer, layers - 1))
        if source.stop > source.start:
            torch.bmm(states[source, link], prepared.lower[source], out=lower[source])
        if high_layer == layers:
            torch.bmm(states[D * (layers - 1) :, link], prepared.top, out=top)
        _launch(
            _forward_link, D * (high_layer - low_layer), clips, H,
            products, inputs, prepared.biases, state, states, kept if keep else states, link, D * low_layer, frames, clips,
            lower_size, H, D=D, LAYERS=layers, KEEP=keep,
        )  # fmt: skip
    return states, state, kept


def _backward(x, states, kept, prepared: WavefrontWeights, outer: Tensor, grad_last: Tensor, want_x: bool):
    """Gradients of x (or None), of h0, and of the weights, a flat list. outer (T, N, D * H), grad_last (G, N, H)."""
    (frames, clips, _), H, D, layers = x.shape, prepared.hidden, prepared.directions, prepared.layers
    links = frames + layers - 1
    gradients = torch.zeros_like(kept)
    carry = grad_last.clone(memory_format=torch.contiguous_format)
    within = kept.new_zeros(D * layers, clips, H)
    above = kept.new_zeros(D * (layers - 1), clips, D * H)
    for link in reversed(range(links)):
        low_layer, high_layer = _active(link, frames, layers)
        _launch(
            _backward_link, D * (high_layer - low_layer), clips, H,
            outer, within, above, kept, states, carry, gradients, link, D * low_layer, frames, clips, H, D=D, LAYERS=layers,
        )  # fmt: skip
        source = slice(D * low_layer, D * high_layer)
        torch.bmm(gradients[source, link, :, : 3 * H], prepared.within[source], out=within[source])
        source = slice(D * max(low_layer, 1), D * high_layer)
        if source.stop > source.start:
            target = slice(source.start - D, source.stop - D)
            torch.bmm(gradients[source, link, :, H:], prepared.below[target], out=above[target])
    grad_x, grad_weights = _weight_gradients(x, states, gradients, prepared, want_x)
    return grad_x, carry + within.to(carry.dtype), grad_weights


def _weight_gradients(x: Tensor, states: Tensor, gradients: Tensor, prepared: WavefrontWeights, want_x: bool):
    """The gradients of x (or None) and of the weights: for each group one product over all frames."""
    (frames, clips, _), H, D = x.shape, prepared.hidden, prepared.directions
    rows = x.reshape(frames * clips, -1).to(prepared.compute_dtype)
    grad_x, found = (torch.zeros_like(rows, dtype=x.dtype) if want_x else None), []
    for layer, weights in enumerate(prepared.weights):
        # at these indices: the states before each frame, the outputs of the layer below
        links = slice(layer, layer + frames)
        for d in range(D):
            qrzn = gradients[D * layer + d, links].reshape(-1, 4 * H)
            before = states[D * layer + d, links].reshape(-1, H)
            q, rz, rzn = qrzn[:, :H], qrzn[:, H : 3 * H], qrzn[:, H:]
            if layer == 0:
                g_ih = rzn.t() @ rows
                if want_x:
                    grad_x += rzn @ prepared.first[d].t()
            else:
                sources = states[D * (layer - 1) : D * layer, links].reshape(D, -1, H)
                g_ih = torch.cat([rzn.t() @ source for source in sources], dim=1)
            g_hh = torch.cat([rz.t() @ before, q.t() @ before])
            sums = qrzn.sum(0, dtype=weights[0].dtype)
            found += [g_ih, g_hh, sums[H:], torch.cat([sums[H : 3 * H], sums[:H]])]
    flat = [w for layer in prepared.weights for w in layer]
    found = [gradient.to(w.dtype) for gradient, w in zip(found, flat, strict=True)]
    return None if grad_x is None else grad_x.view_as(x), found


class _Wavefront(torch.autograd.Function):
    """(x (T, N, F), h0 (G, N, H), prepared weights, weights...) -> (outputs (T, N, D * H), last state (G, N, H))."""

    @staticmethod
    def forward(ctx, x, h0, prepared, *weights):
        states, last, kept = _forward(x, h0, prepared, keep=True)
        ctx.save_for_backward(x, states, kept, *weights)  # weights: so that torch refuses changed ones
        ctx.prepared = prepared
        return _outputs(x, states, prepared), last

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_outputs, grad_last):
        x, states, kept, *_ = ctx.saved_tensors
        outer = grad_outputs.contiguous()
        grad_x, grad_h0, found = _backward(x, states, kept, ctx.prepared, outer, grad_last, ctx.needs_input_grad[0])
        return grad_x, grad_h0, None, *found


def _outputs(x: Tensor, states: Tensor, prepared: WavefrontWeights) -> Tensor:
    """The top layer's states after each frame, (T, N, D * H)."""
    frames, clips = x.shape[:2]
    top = states[-prepared.directions :, prepared.layers : prepared.layers + frames]
    return top.permute(1, 2, 0, 3).reshape(frames, clips, -1).to(x.dtype)


def run(
    x: Tensor, state: Tensor, weights: list[tuple[Tensor, ...]], prepared: WavefrontWeights
) -> tuple[Tensor, Tensor]:
    """All layers. x (T, N, F), state (G, N, H) -> outputs (T, N, D * H), the state after the last frame. UserError if Triton
    cannot run."""
    flat = [w for layer in weights for w in layer]
    x, state = x.contiguous(), state.contiguous()
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, state, *flat)):
        return _Wavefront.apply(x, state, prepared, *flat)
    x = x.detach()
    states, last, _ = _forward(x, state.detach(), prepared, keep=False)
    return _outputs(x, states, prepared), last
