"""Stacked recurrent layers on a card as a wavefront over the layers: layer l at frame t while layer l + 1 is at frame t - 1.

Layer after layer a pass is a chain of layers x frames dependent products; as a wavefront it has frames + layers - 1 links, and a
link computes all layers at once. Group g = layer * D + direction. States lie skewed, (G, links + 1, N, H): a group's state
after frame t at place t + layer + 1. So all that link s reads is at place s, of every group: its own last state, and the
layer below's output of its frame. Hence

* one batched product a link: a group's state times its own recurrent weights and the columns of the layer above that read
  it, side by side (the top layer, whom nobody reads, has a product of its own; the first layer's input product is one for
  all frames, before the chain);
* one fused kernel a link (Triton) for the gates of all groups: sums, sigmoids, the new state in the input's type, the state in
  the products' type, and, where gradients will be wanted, r, z, n and q of every frame;
* backward the same with the links in reverse: one kernel for the gradients of all gates, one batched product for what goes
  to the frame before, one for what goes to the layer below. A group's gate gradients and states are each one matrix over
  all frames, so that weight gradients are large products at the end.

Precision is that of models.recurrent, except that outputs and kept gates are rounded to the products' type. Values and
gradients are tested without a card by Triton's interpreter (TRITON_INTERPRET=1, read when this module is imported), and
its kernels compile for cards of capability 8.0 and 9.0. It ran on an H100, where a bf16 step at the paper's size takes 39.2 ms
instead of cuDNN's 47.3 (RESULTS.md); pretraining chooses it there by itself (engine.setup.choose_recurrent). Triton comes with
CUDA builds of torch on Linux.
"""

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from triton.errors import TritonError

from utils.errors import UserError

ROWS, COLUMNS = 16, 128  # of a block of the kernels


@triton.jit
def _sigmoid(x):
    return 1 / (1 + tl.exp(-x))


@triton.jit(do_not_specialize=["link", "first_group"])
def _forward_link(
    products, inputs, biases, state, states, kept, link, first_group, frames, clips, lower_size, H,
    D: tl.constexpr, LAYERS: tl.constexpr, KEEP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """The gates of the groups from first_group on at a link. products: lower (D * (LAYERS - 1), clips, 3H * (1 + D)), then
    top (D, clips, 3H); inputs (D, frames, clips, 3H); biases (G, 4, H): r, z, n of the input, n of the state."""
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
    """The gradients of the gates of the groups from first_group on at a link, in the order q, r, z, n. outer (frames, clips,
    D * H): of the outputs; within (G, clips, H): from the frame after; above (D * (LAYERS - 1), clips, D * H): from the
    layer above; carry (G, clips, H): what the state before has of the state after, z times its gradient."""
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


class Laid:
    """The weights of all layers as the links want them, in the type of the products; made when first asked for.

    weights: for each layer D times (weight_ih (3H, F), weight_hh (3H, H), bias_ih, bias_hh). Holds while these do not change."""

    def __init__(self, weights: list[tuple[Tensor, ...]], compute_dtype: torch.dtype):
        self.weights = [[w.detach() for w in layer] for layer in weights]
        self.compute_dtype = compute_dtype
        self.layers, self.directions = len(weights), len(weights[0]) // 4
        self.hidden = weights[0][1].shape[1]

    @functools.cached_property
    def first(self) -> list[Tensor]:
        """D times (F, 3H): of the first layer's input."""
        return [w.to(self.compute_dtype).t() for w in self.weights[0][0::4]]

    @functools.cached_property
    def lower(self) -> Tensor:
        """(D * (layers - 1), H, 3H * (1 + D)): what meets a group's state in all layers but the top one."""
        groups = []
        for layer in range(self.layers - 1):
            readers = [w.split(self.hidden, dim=1) for w in self.weights[layer + 1][0::4]]
            for d, own in enumerate(self.weights[layer][1::4]):
                groups.append(torch.cat([own, *(columns[d] for columns in readers)]).to(self.compute_dtype).t())
        return torch.stack(groups) if groups else self.top[:0]

    @functools.cached_property
    def top(self) -> Tensor:
        """(D, H, 3H)."""
        return torch.stack(self.weights[-1][1::4]).to(self.compute_dtype).transpose(1, 2)

    @functools.cached_property
    def biases(self) -> Tensor:
        """(G, 4, H): r and z of both products, n of the input's, n of the state's."""
        rows = []
        for layer in self.weights:
            for b_ih, b_hh in zip(layer[2::4], layer[3::4], strict=True):
                (i_r, i_z, i_n), (h_r, h_z, h_n) = b_ih.chunk(3), b_hh.chunk(3)
                rows.append(torch.stack([i_r + h_r, i_z + h_z, i_n, h_n]))
        return torch.stack(rows)

    @functools.cached_property
    def within(self) -> Tensor:
        """(G, 3H, H): from the gradients of q, r, z to the state before."""
        rows = []
        for layer in self.weights:
            for w in layer[1::4]:
                rz, n = w.split([2 * self.hidden, self.hidden])
                rows.append(torch.cat([n, rz]))
        return torch.stack(rows).to(self.compute_dtype)

    @functools.cached_property
    def below(self) -> Tensor:
        """(D * (layers - 1), 3H, D * H): from the gradients of r, z, n of the layers above the first to the layer below."""
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
    """The layers from-to (to excluded) that have a frame at a link."""
    return max(0, link - frames + 1), min(layers, link + 1)


def _forward(x: Tensor, h0: Tensor, laid: Laid, keep: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """x (T, N, F), h0 (G, N, H) -> states (G, links + 1, N, H), the state after the last frame (G, N, H), and r, z, n, q
    (G, links, N, 4H) or None. Places of a link at which a group has no frame are zero."""
    (frames, clips, _), H, D, layers = x.shape, laid.hidden, laid.directions, laid.layers
    groups, links, low = D * layers, frames + layers - 1, laid.compute_dtype
    rows = x.reshape(frames * clips, -1).to(low)
    inputs = torch.stack([rows @ w for w in laid.first])
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
            torch.bmm(states[source, link], laid.lower[source], out=lower[source])
        if high_layer == layers:
            torch.bmm(states[D * (layers - 1) :, link], laid.top, out=top)
        _launch(
            _forward_link, D * (high_layer - low_layer), clips, H,
            products, inputs, laid.biases, state, states, kept if keep else states, link, D * low_layer, frames, clips,
            lower_size, H, D=D, LAYERS=layers, KEEP=keep,
        )  # fmt: skip
    return states, state, kept


def _backward(x, states, kept, laid: Laid, outer: Tensor, grad_last: Tensor, want_x: bool):
    """Gradients of x (or None), of h0, and of the weights, a flat list. outer (T, N, D * H), grad_last (G, N, H)."""
    (frames, clips, _), H, D, layers = x.shape, laid.hidden, laid.directions, laid.layers
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
        torch.bmm(gradients[source, link, :, : 3 * H], laid.within[source], out=within[source])
        source = slice(D * max(low_layer, 1), D * high_layer)
        if source.stop > source.start:
            target = slice(source.start - D, source.stop - D)
            torch.bmm(gradients[source, link, :, H:], laid.below[target], out=above[target])
    grad_x, grad_weights = _weight_gradients(x, states, gradients, laid, want_x)
    return grad_x, carry + within.to(carry.dtype), grad_weights


def _weight_gradients(x: Tensor, states: Tensor, gradients: Tensor, laid: Laid, want_x: bool):
    """The gradient of x (or None) and of the weights: each one product over all frames of a group."""
    (frames, clips, _), H, D = x.shape, laid.hidden, laid.directions
    rows = x.reshape(frames * clips, -1).to(laid.compute_dtype)
    grad_x, found = (torch.zeros_like(rows, dtype=x.dtype) if want_x else None), []
    for layer, weights in enumerate(laid.weights):
        place = slice(layer, layer + frames)  # of the states before each frame, and of what the layer below gave to it
        for d in range(D):
            qrzn = gradients[D * layer + d, place].reshape(-1, 4 * H)
            before = states[D * layer + d, place].reshape(-1, H)
            q, rz, rzn = qrzn[:, :H], qrzn[:, H : 3 * H], qrzn[:, H:]
            if layer == 0:
                g_ih = rzn.t() @ rows
                if want_x:
                    grad_x += rzn @ laid.first[d].t()
            else:
                sources = states[D * (layer - 1) : D * layer, place].reshape(D, -1, H)
                g_ih = torch.cat([rzn.t() @ source for source in sources], dim=1)
            g_hh = torch.cat([rz.t() @ before, q.t() @ before])
            sums = qrzn.sum(0, dtype=weights[0].dtype)
            found += [g_ih, g_hh, sums[H:], torch.cat([sums[H : 3 * H], sums[:H]])]
    flat = [w for layer in laid.weights for w in layer]
    found = [gradient.to(w.dtype) for gradient, w in zip(found, flat, strict=True)]
    return None if grad_x is None else grad_x.view_as(x), found


class _Wavefront(torch.autograd.Function):
    """(x (T, N, F), h0 (G, N, H), laid weights, weights...) -> (outputs (T, N, D * H), last state (G, N, H))."""

    @staticmethod
    def forward(ctx, x, h0, laid, *weights):
        states, last, kept = _forward(x, h0, laid, keep=True)
        ctx.save_for_backward(x, states, kept, *weights)  # weights: refused if changed before backward
        ctx.laid = laid
        return _outputs(x, states, laid), last

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_outputs, grad_last):
        x, states, kept, *_ = ctx.saved_tensors
        outer = grad_outputs.contiguous()
        grad_x, grad_h0, found = _backward(x, states, kept, ctx.laid, outer, grad_last, ctx.needs_input_grad[0])
        return grad_x, grad_h0, None, *found


def _outputs(x: Tensor, states: Tensor, laid: Laid) -> Tensor:
    """The top layer's states after each frame, (T, N, D * H)."""
    frames, clips = x.shape[:2]
    top = states[-laid.directions :, laid.layers : laid.layers + frames]
    return top.permute(1, 2, 0, 3).reshape(frames, clips, -1).to(x.dtype)


def run(x: Tensor, state: Tensor, weights: list[tuple[Tensor, ...]], laid: Laid) -> tuple[Tensor, Tensor]:
    """All layers. x (T, N, F), state (G, N, H) -> outputs (T, N, D * H), the state after the last frame. UserError where
    Triton cannot run."""
    flat = [w for layer in weights for w in layer]
    x, state = x.contiguous(), state.contiguous()
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, state, *flat)):
        return _Wavefront.apply(x, state, laid, *flat)
    x = x.detach()
    states, last, _ = _forward(x, state.detach(), laid, keep=False)
    return _outputs(x, states, laid), last
