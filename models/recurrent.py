"""GRU layers whose two "directions" both run forward in time: `ForwardGRU`, (N, T, F) -> (N, T, directions * H).

What is computed. The released code calls a bidirectional `nn.GRU` on one frame at a time and carries the state. A
sequence of one frame is the same in both directions, so the `_reverse` weights also run forward in time: a layer is two
independent GRUs with concatenated outputs, and the feature of frame t depends on frames up to t only. This looks like a
mistake and must stay: a bidirectional GRU over the whole clip is another model, in which published weights do not work.
Parameter names, their order and the order of the state's rows are those of `nn.GRU`.

How it is computed. On a CPU one autograd function computes one layer, both directions and all frames:

* one matrix product is the input product of many frames; only the recurrent product is done frame by frame;
* forward keeps the gates r, z, n and the recurrent part q of the candidate (10 H numbers a frame with the output, for
  two directions), or nothing if no gradient is needed;
* backward first turns these into four factors, so that in the loop over frames one multiplication by the gradient of the
  state gives the gradients of all gates; one matrix product is the weight gradient of many frames.

Tensors are time-major inside, (T, N, .), so that a frame is one block of memory. Recurrent weights are packed for oneDNN
if this build of torch supports it; for small layers, where the overhead of a call matters, both directions share one
batched product (benchmarks/LOG.md has the measurements behind each choice). Calls within `cached_weights` share converted
and packed weights. On other devices torch's own GRU runs once for each layer and direction: cuDNN on a CUDA device.

Precision. With `compute_dtype=torch.bfloat16` the operands of matrix products are bfloat16; each product is accumulated in
float32 and rounded once. State, gates, biases, the gradient of the state over time and the sums of weight gradients over
blocks of frames and over calls stay float32: the state is a sum of 64 small steps and the gradient a sum over all frames,
in which 8 bits would lose the small terms. None of these takes much time."""

import contextlib
import functools
import math

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from utils.errors import UserError

INPUT_ROWS = 256  # rows (frames x clips) of one input product: enough for full speed, and the result stays in the cache
GRADIENT_ROWS = 1024  # rows of one weight-gradient product: more is not faster, and keeps more gate gradients
ROUNDED_GRADIENT_ROWS = 4096  # the same for a rounded type, where each block's product is converted and added
PACKED_FROM = 512  # hidden size from which packed products, one for each direction, are faster than one batched product
PACKED_FRAMES = 4  # packing takes about as long as one product, so a few frames are needed to gain


@functools.cache
def _packed_products_work(dtype: torch.dtype) -> bool:
    """Whether this build of torch supports products with oneDNN-packed weights of this type; tried once, on a small one."""
    if dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    x, weight = torch.eye(8, 16, dtype=dtype), torch.arange(64.0).reshape(4, 16).to(dtype)
    try:
        return torch.equal(_multiply(x, torch.ops.mkldnn._reorder_linear_weight(weight, 8)), x @ weight.t())
    except (AttributeError, RuntimeError, NotImplementedError):
        return False


def _use_onednn(x: Tensor) -> bool:
    """Whether to use oneDNN for tensors of x's device and type; only on a CPU."""
    return x.device.type == "cpu" and _packed_products_work(x.dtype)


def _multiply(x: Tensor, weight: Tensor) -> Tensor:
    """x (rows, K) times the transpose of weight (M, K), packed or not -> (rows, M), by oneDNN."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def _product(x: Tensor, weight: Tensor) -> Tensor:
    """x (rows, K) times the transpose of weight (M, K) -> (rows, M); by oneDNN if possible, which is faster than torch.mm."""
    if _use_onednn(x):
        return _multiply(x, weight)
    return torch.mm(x, weight.t())


class _Rounded(torch.autograd.Function):
    """(exact, rounded) -> rounded, a copy of `exact` in another type; the gradient goes to `exact`, in its type."""

    @staticmethod
    def forward(ctx, exact, rounded):
        ctx.kind = exact.dtype
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx, grad):
        return grad.to(ctx.kind), None


class _Weights:
    """The weights of one layer of D directions, prepared for its products: converted to compute_dtype, and packed for oneDNN
    where that is faster. Prepared on first use; calls that share the object share the work.

    weights: D times (weight_ih (3H, F), weight_hh (3H, H), bias_ih, bias_hh). Valid as long as these do not change."""

    def __init__(self, weights: tuple[Tensor, ...], compute_dtype: torch.dtype):
        self.weights = [w.detach() for w in weights]
        self.compute_dtype = compute_dtype
        self._packed: dict[tuple[str, int], list[Tensor]] = {}
        self._flat: list[tuple[Tensor, Tensor]] | None = None

    @functools.cached_property
    def of_input(self) -> list[Tensor]:
        """D times (3H, F), gates in the order r, z, n."""
        return [w.to(self.compute_dtype) for w in self.weights[0::4]]

    @functools.cached_property
    def of_state(self) -> list[Tensor]:
        """D times (3H, H), gates in the order r, z, n."""
        return [w.to(self.compute_dtype) for w in self.weights[1::4]]

    @functools.cached_property
    def of_gates(self) -> list[Tensor]:
        """D times (H, 3H), gates in the order q, r, z, which is the order of their gradients in memory."""
        swapped = []
        for w in self.weights[1::4]:
            rz, n = w.split([2 * w.shape[1], w.shape[1]])
            swapped.append(torch.cat([n.to(self.compute_dtype), rz.to(self.compute_dtype)]).t())
        return swapped

    def flat(self, weights: tuple[Tensor, ...]) -> list[Tensor]:
        """For each direction one buffer of all its weights in compute_dtype, as torch's GRU needs them. Made and rounded once;
        gradients reach `weights` in their own type, in which those of several calls add up."""
        needs_grad = torch.is_grad_enabled() and any(w.requires_grad for w in weights)
        if self._flat is None or self._flat[0][0].requires_grad != needs_grad:
            exact = [torch.cat([w.reshape(-1) for w in weights[4 * d : 4 * d + 4]]) for d in range(len(weights) // 4)]
            self._flat = [(buffer, buffer.detach().to(self.compute_dtype)) for buffer in exact]
        if self.compute_dtype == weights[0].dtype:
            return [buffer for buffer, _ in self._flat]
        return [_Rounded.apply(buffer, rounded) for buffer, rounded in self._flat]

    def packed(self, which: str, rows: int, frames: int) -> list[Tensor] | None:
        """`of_state` or `of_gates` packed for products of `rows` rows, or None if packing is not faster."""
        hidden = self.weights[1].shape[1]
        if hidden < PACKED_FROM or frames < PACKED_FRAMES or not _use_onednn(self.of_input[0]):
            return None
        if (which, rows) not in self._packed:
            plain = getattr(self, which)
            self._packed[which, rows] = [torch.ops.mkldnn._reorder_linear_weight(w, rows) for w in plain]
            delattr(self, which)  # frees the unpacked weights
        return self._packed[which, rows]


class _FrameProduct:
    """The recurrent product of one frame, (D, N, K) times weights D x (M, K) -> (D, N, M), for all frames of a call."""

    def __init__(self, weights: _Weights, which: str, rows: int, frames: int, dtype: torch.dtype):
        self.packed, self.scratch = weights.packed(which, rows, frames), None
        (_, hidden), directions = weights.weights[1].shape, len(weights.weights) // 4
        wide = 3 * hidden if which == "of_state" else hidden
        device = weights.weights[1].device
        self.out = torch.empty(directions, rows, wide, dtype=dtype, device=device)  # reused for every frame
        if self.packed is None:
            self.stacked = torch.stack(getattr(weights, which)).transpose(1, 2)
            if weights.compute_dtype != dtype:
                self.scratch = torch.empty(directions, rows, wide, dtype=weights.compute_dtype, device=device)

    def __call__(self, x: Tensor) -> Tensor:
        """x (D, N, K) -> (D, N, M); the result is overwritten by the next call."""
        if self.packed is not None:
            for out, rows, weight in zip(self.out, x, self.packed, strict=True):
                out.copy_(_multiply(rows, weight))
        elif self.scratch is not None:
            self.out.copy_(torch.bmm(x, self.stacked, out=self.scratch))
        else:
            torch.bmm(x, self.stacked, out=self.out)
        return self.out


def _blocks(frames: int, rows: int, clips: int) -> list[tuple[int, int]]:
    """The (start, stop) of consecutive blocks of frames with about `rows` rows each."""
    step = max(1, rows // clips)
    return [(start, min(start + step, frames)) for start in range(0, frames, step)]


def _tanh_(x: Tensor, minus_one: Tensor) -> Tensor:
    """tanh in place, as 2 sigmoid(2x) - 1: within 2e-7 of torch's in float32, and four times as fast on a CPU."""
    x.mul_(2).sigmoid_()
    return torch.add(minus_one, x, alpha=2, out=x)


def _run_layer(x: Tensor, h0: Tensor, weights: _Weights, keep: bool):
    """All frames of one layer. x (T, N, F), h0 (D, N, H).

    Returns states (T+1, N, D*H), of which the first is h0, and, if `keep`, gates (D, T, N, 3H), that is r, z, n, and
    candidates (D, T, N, H), that is q = W_hn h + b_hn (if not `keep`, scratch memory of one block each)."""
    (frames, clips, width), (directions, _, H) = x.shape, h0.shape
    b_ih, b_hh = weights.weights[2::4], weights.weights[3::4]
    compute_dtype = weights.compute_dtype
    blocks = _blocks(frames, INPUT_ROWS, clips)
    kept = frames if keep else blocks[0][1]
    gates, candidates = x.new_empty(directions, kept, clips, 3 * H), x.new_empty(directions, kept, clips, H)
    states = x.new_empty(frames + 1, clips, directions * H)
    states[0].view(clips, directions, H).copy_(h0.transpose(0, 1))
    # r and z use the sum of both biases; the recurrent bias of n is multiplied by r and so is added separately
    bias = torch.stack(b_ih)
    bias[:, : 2 * H] += torch.stack(b_hh)[:, : 2 * H]
    candidate_bias = torch.stack(b_hh)[:, None, 2 * H :]
    recur = _FrameProduct(weights, "of_state", clips, frames, x.dtype)
    minus_one = x.new_full((), -1.0)
    h = h0.clone(memory_format=torch.contiguous_format)
    operand = h if compute_dtype == x.dtype else h.to(compute_dtype)
    for start, stop in blocks:
        base = start if keep else 0
        rows = x[start:stop].reshape(-1, width).to(compute_dtype)
        for d in range(directions):
            block = gates[d, base : base + stop - start].view(-1, 3 * H)
            block.copy_(_product(rows, weights.of_input[d])).add_(bias[d])
        for t in range(start, stop):
            gate, q = gates[:, base + t - start], candidates[:, base + t - start]
            recurrent = recur(operand)
            rz = gate[..., : 2 * H].add_(recurrent[..., : 2 * H]).sigmoid_()
            torch.add(recurrent[..., 2 * H :], candidate_bias, out=q)
            n = _tanh_(gate[..., 2 * H :].addcmul_(rz[..., :H], q), minus_one)
            torch.lerp(n, h, rz[..., H:], out=h)  # (1 - z) n + z h
            states[t + 1].view(clips, directions, H).copy_(h.transpose(0, 1))
            if operand is not h:
                operand.copy_(h)
    return states, gates, candidates


def _gate_factors(gates: Tensor, q: Tensor, h: Tensor, out: Tensor) -> None:
    """The factors by which the gradient of the state is multiplied to get the gradients of q and of r, z, n before their
    nonlinearities. gates (D, T, N, 3H), q and h (D, T, N, H); h is the state after the frame. out (D, T, N, 4, H)."""
    r, z, n = gates.chunk(3, dim=-1)
    of_q, of_r, of_z, of_n = out.unbind(-2)
    keep = 1 - z
    torch.mul(keep, n, out=of_n)
    torch.addcmul(keep, of_n, n, value=-1, out=of_n)  # (1 - z) (1 - n^2)
    torch.sub(h, n, out=of_z).mul_(keep)  # (h_before - n) z (1 - z), and z (h_before - n) is h - n
    torch.mul(of_n, r, out=of_q)
    torch.mul(of_q, q, out=of_r)
    torch.addcmul(of_r, of_r, r, value=-1, out=of_r)  # of_n q r (1 - r)


class _Layer(torch.autograd.Function):
    """(x (T, N, F), h0 (D, N, H), prepared weights, weights...) -> (outputs (T, N, D*H), last state (D, N, H))."""

    @staticmethod
    def forward(ctx, x, h0, shared, *weights):
        x = x.contiguous()
        states, gates, candidates = _run_layer(x, h0, shared, keep=True)
        ctx.save_for_backward(x, states, gates, candidates, *weights)  # weights: so that torch refuses changed ones
        ctx.shared = shared
        ctx.set_materialize_grads(False)  # usually only one of the two outputs is used
        last = states[-1].view(x.shape[1], *h0.shape[::2]).transpose(0, 1).contiguous()
        return states[1:], last

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_outputs, grad_last):
        if grad_outputs is None and grad_last is None:
            return (None,) * len(ctx.needs_input_grad)
        x, states, gates, candidates, *_ = ctx.saved_tensors
        grad_x, grad_h0, grad_weights = _backward_layer(
            x, states, gates, candidates, ctx.shared, grad_outputs, grad_last, ctx.needs_input_grad[0]
        )
        return grad_x, grad_h0, None, *grad_weights


def _backward_layer(x, states, gates, candidates, weights: _Weights, grad_outputs, grad_last, want_grad_x):
    """Gradients of x, of h0 and of the weights (a flat list in the order of `_Layer`'s arguments)."""
    directions, frames, clips, H = candidates.shape
    compute_dtype = weights.compute_dtype
    recur = _FrameProduct(weights, "of_gates", clips, frames, x.dtype)
    dh = grad_last.contiguous().clone() if grad_last is not None else x.new_zeros(directions, clips, H)
    rounded = compute_dtype != x.dtype
    blocks = _blocks(frames, ROUNDED_GRADIENT_ROWS if rounded else GRADIENT_ROWS, clips)
    factors = x.new_empty(directions, clips, 4, H)
    buffer = x.new_empty(directions, blocks[0][1], clips, 4 * H, dtype=compute_dtype)
    grad_x = x.new_empty(frames, clips, x.shape[2]) if want_grad_x else None
    grad_weights = [torch.empty_like(w) for w in weights.weights]
    by_direction = states.view(frames + 1, clips, directions, H).permute(2, 0, 1, 3)
    for start, stop in reversed(blocks):
        d_gates = buffer[:, : stop - start]
        for t in reversed(range(start, stop)):
            if grad_outputs is not None:
                dh += grad_outputs[t].view(clips, directions, H).transpose(0, 1)
            frame = d_gates[:, t - start]
            if not rounded:
                factors = frame.view(directions, clips, 4, H)
            _gate_factors(gates[:, t], candidates[:, t], by_direction[:, t + 1], factors)
            factors.mul_(dh[:, :, None])
            if rounded:
                frame.copy_(factors.view(directions, clips, 4 * H))
            torch.addcmul(recur(frame[..., : 3 * H]), dh, gates[:, t, :, H : 2 * H], out=dh)
        _add_block(grad_x, grad_weights, d_gates, x, by_direction, weights, start, stop)
    return grad_x, dh, grad_weights


def _add_product(total: Tensor, rows: Tensor, columns: Tensor, first: bool) -> None:
    """total (M, K) += the transpose of rows (R, M) times columns (R, K); `first`: = instead of +=. total keeps its type."""
    if total.dtype == rows.dtype:
        torch.addmm(total, rows.t(), columns, beta=0 if first else 1, out=total)  # beta 0 never reads total
    else:
        product = torch.mm(rows.t(), columns)
        total.copy_(product) if first else total.add_(product)


def _add_block(grad_x, grad_weights, d_gates, x, states, weights: _Weights, start, stop):
    """Adds the share of the frames start..stop to the gradients of the weights and to grad_x, by products over all of them.

    Called from the last block to the first. d_gates (D, frames of the block, N, 4H): gradients of q, r, z, n."""
    H, first = states.shape[-1], stop == x.shape[0]
    rows = x[start:stop].view(-1, x.shape[2]).to(d_gates.dtype)
    for d, frames in enumerate(d_gates):
        qrzn = frames.view(-1, 4 * H)
        q, rz, rzn = qrzn[:, :H], qrzn[:, H : 3 * H], qrzn[:, H:]
        before = states[d, start:stop].reshape(-1, H).to(d_gates.dtype)
        g_ih, g_hh, b_ih, b_hh = grad_weights[4 * d : 4 * d + 4]
        _add_product(g_ih, rzn, rows, first)
        _add_product(g_hh[: 2 * H], rz, before, first)
        _add_product(g_hh[2 * H :], q, before, first)
        sums = torch.mm(qrzn.new_ones(1, len(qrzn)), qrzn)[0]  # sum(dtype=float32) would copy a bfloat16 tensor
        for bias, part in ((b_ih, sums[H:]), (b_hh[: 2 * H], sums[H : 3 * H]), (b_hh[2 * H :], sums[:H])):
            bias.copy_(part) if first else bias.add_(part)
        if grad_x is not None:
            part = _product(rzn, weights.of_input[d].t())
            target = grad_x[start:stop].view(-1, x.shape[2])
            target.copy_(part) if d == 0 else target.add_(part)


def _native_direction(x: Tensor, h0: Tensor, flat: Tensor, weights: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """One direction by torch's own GRU. x (T, N, F), h0 (1, N, H), flat: its four weights in one buffer, of x's type."""
    pieces = [piece.view_as(w) for piece, w in zip(flat.split([w.numel() for w in weights]), weights, strict=True)]
    return torch._VF.gru(x, h0.contiguous(), pieces, True, 1, 0.0, True, False, False)


def _native_layer(x: Tensor, h0: Tensor, shared: _Weights, *weights: Tensor) -> tuple[Tensor, Tensor]:
    """One layer by torch's own GRU, called for each direction: cuDNN on a CUDA device, and the reference in tests.

    The weights of a direction are in one buffer, as cuDNN needs them. With a compute_dtype of bfloat16 cuDNN also rounds the
    state between frames to bfloat16, unlike the CPU implementation."""
    rows, state = x.to(shared.compute_dtype), h0.to(shared.compute_dtype)
    found = [
        _native_direction(rows, state[d : d + 1], flat, weights[4 * d : 4 * d + 4])
        for d, flat in enumerate(shared.flat(weights))
    ]
    return _joined(found, x.dtype)


def _joined(found: list[tuple[Tensor, Tensor]], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Concatenates the results of the directions: outputs (T, N, D * H) and last states (D, N, H)."""
    outputs, last = zip(*found, strict=True)
    return torch.cat(outputs, dim=-1).to(dtype), torch.cat(last).to(dtype)


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _two_streams_layer(x: Tensor, h0: Tensor, shared: _Weights, *weights: Tensor) -> tuple[Tensor, Tensor]:
    """`_native_layer` with the second direction on another CUDA stream, forward and backward. Without CUDA it is
    `_native_layer`."""
    if x.device.type != "cuda" or len(h0) == 1:
        return _native_layer(x, h0, shared, *weights)
    rows, state, (first, second) = x.to(shared.compute_dtype), h0.to(shared.compute_dtype), shared.flat(weights)
    current, side = torch.cuda.current_stream(x.device), _side_stream(x.device)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        second_found = _native_direction(rows, state[1:], second, weights[4:])
    found = [_native_direction(rows, state[:1], first, weights[:4]), second_found]
    current.wait_stream(side)
    for tensor in second_found:
        tensor.record_stream(current)  # allocated on the side stream: keeps its memory until the current one is done
    return _joined(found, x.dtype)


class ForwardGRU(nn.Module):
    """A stack of GRU layers, each of one or two forward-running GRUs with concatenated outputs (see the module's docstring).

    input_size F; hidden_size H; directions 1 (a plain GRU) or 2. Parameters are named as in `nn.GRU`: weight_ih_l0
    (3H, F), weight_hh_l0 (3H, H), bias_ih_l0, bias_hh_l0 (3H), gates in the order r, z, n, then the same with
    `_reverse`, then the next layer, whose input is directions*H wide. Initialised as `nn.GRU`: uniform, 1/sqrt(H).

    compute_dtype: type of the operands of matrix products, None for that of x; an attribute that may be changed any time.
    implementation: "own" (the loop over frames in an autograd function), "cudnn" (torch's GRU for each layer and direction:
    cuDNN on a CUDA device, torch's native one elsewhere), "streams" (the same, the two directions in parallel on a CUDA
    device), "wavefront" (all layers at once, models.recurrent_wave: needs Triton) or "auto" (own on a CPU, cudnn
    elsewhere; engine.setup.choose_recurrent chooses the wavefront where it is faster); also an attribute.
    ValueError for sizes below 1, another number of directions, and inputs of another shape or type."""

    def __init__(self, input_size, hidden_size, num_layers, directions=2, compute_dtype: torch.dtype | None = None):
        super().__init__()
        if min(input_size, hidden_size, num_layers) < 1 or directions not in (1, 2):
            raise ValueError(
                "expected sizes and layers of 1 or more and 1 or 2 directions, "
                f"got {input_size}, {hidden_size}, {num_layers} and {directions}"
            )
        self.input_size, self.hidden_size = input_size, hidden_size
        self.num_layers, self.directions = num_layers, directions
        self.compute_dtype = compute_dtype
        self.implementation = "auto"
        self.shared: dict | None = None
        self._names = []
        for layer in range(num_layers):
            width = input_size if layer == 0 else directions * hidden_size
            shapes = {"weight_ih": (width,), "weight_hh": (hidden_size,), "bias_ih": (), "bias_hh": ()}
            for suffix in ("", "_reverse")[:directions]:
                for name, columns in shapes.items():
                    self._names.append(f"{name}_l{layer}{suffix}")
                    value = torch.empty(3 * hidden_size, *columns)
                    self.register_parameter(self._names[-1], nn.Parameter(value))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As `nn.GRU`: every parameter uniform in -1/sqrt(H) .. 1/sqrt(H)."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, directions={self.directions}"

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (N, T, F); state (num_layers*directions, N, H) after the previous frames, None for zeros.

        Returns outputs (N, T, directions*H), the forward half first, and the state after the last frame. A clip can be
        given in pieces, each with the state of the piece before; the results are those of the whole clip. The outputs are
        a view of time-major memory: use reshape, not view."""
        if x.ndim != 3 or x.shape[2] != self.input_size or 0 in x.shape[:2]:
            raise ValueError(f"expected x (N, T, {self.input_size}) with N and T of 1 or more, got {tuple(x.shape)}")
        shape = (self.num_layers * self.directions, x.shape[0], self.hidden_size)
        if state is None:
            state = x.new_zeros(shape)
        elif tuple(state.shape) != shape or state.dtype != x.dtype:
            raise ValueError(f"expected a state {shape} of {x.dtype}, got {tuple(state.shape)} of {state.dtype}")
        with torch.autocast(x.device.type, enabled=False):  # compute_dtype alone decides
            return self._run(x, state)

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One frame: x (N, F), state (num_layers*directions, N, H) -> outputs (N, directions*H) and the next state.

        It uses plain operations in x's type only, for streams (packing does not pay for one frame) and for export."""
        H, states = self.hidden_size, []
        for weights in self.weights():
            for d in range(self.directions):
                w_ih, w_hh, b_ih, b_hh = weights[4 * d : 4 * d + 4]
                h = state[len(states)]
                of_x, of_h = F.linear(x, w_ih, b_ih), F.linear(h, w_hh, b_hh)
                r, z = torch.sigmoid(of_x[:, : 2 * H] + of_h[:, : 2 * H]).chunk(2, dim=1)
                n = torch.tanh(of_x[:, 2 * H :] + r * of_h[:, 2 * H :])
                states.append(n + z * (h - n))
            x = torch.cat(states[-self.directions :], dim=1)
        return x, torch.stack(states)

    def runs_as(self, device: torch.device) -> str:
        """The implementation on this device, a name in RUNS."""
        if torch.compiler.is_compiling():
            return "cudnn"  # an exported file holds torch's own operator: it cannot hold an autograd function
        if self.implementation != "auto":
            return self.implementation
        return "own" if device.type == "cpu" else "cudnn"

    def weights(self) -> list[tuple[Tensor, ...]]:
        """The weights of each layer: `directions` times (weight_ih, weight_hh, bias_ih, bias_hh)."""
        flat, each = [getattr(self, name) for name in self._names], 4 * self.directions
        return [tuple(flat[start : start + each]) for start in range(0, len(flat), each)]

    def _run(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        run, shared = RUNS[self.runs_as(x.device)], {} if self.shared is None else self.shared
        outputs, last = run(x.transpose(0, 1), state, self.weights(), shared, self.compute_dtype or x.dtype)
        return outputs.transpose(0, 1), last


def _own_layer(x: Tensor, h0: Tensor, shared: _Weights, *weights: Tensor) -> tuple[Tensor, Tensor]:
    """One layer by the autograd function, or, if no gradient is needed, by the forward pass alone, which keeps nothing."""
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, h0, *weights)):
        return _Layer.apply(x, h0, shared, *weights)
    x = x.detach().contiguous()
    states, _, _ = _run_layer(x, h0, shared, keep=False)
    last = states[-1].view(x.shape[1], *h0.shape[::2]).transpose(0, 1).contiguous()
    return states[1:], last


def _shared(shared: dict, key: object, make, weights, compute_dtype: torch.dtype):
    """The prepared weights make(weights, compute_dtype), made once for all calls that share the dictionary."""
    if key not in shared or shared[key].compute_dtype != compute_dtype:
        shared[key] = make(weights, compute_dtype)
    return shared[key]


def _layer_by_layer(run, x: Tensor, state: Tensor, weights: list[tuple[Tensor, ...]], shared: dict, compute_dtype):
    """x (T, N, F), state (layers * D, N, H) -> outputs (T, N, D * H) and the last state; `run` computes each layer."""
    last = []
    for layer, (own, h0) in enumerate(zip(weights, state.split(len(weights[0]) // 4), strict=True)):
        x, h = run(x, h0, _shared(shared, layer, _Weights, own, compute_dtype), *own)
        last.append(h)
    return x, torch.cat(last)


def _wavefront(x: Tensor, state: Tensor, weights: list[tuple[Tensor, ...]], shared: dict, compute_dtype):
    """The same, all layers at once. UserError if Triton is missing."""
    try:
        from models import recurrent_wave
    except ImportError:
        raise UserError(
            "--recurrent wavefront needs Triton, which comes with CUDA builds of torch on Linux; leave it out, or give "
            "--recurrent auto"
        ) from None
    prepared = _shared(shared, "wavefront", recurrent_wave.WavefrontWeights, weights, compute_dtype)
    return recurrent_wave.run(x, state, weights, prepared)


@contextlib.contextmanager
def cached_weights(module: nn.Module):
    """A context in which the weights of every ForwardGRU in `module` must not change, so that calls share prepared weights."""
    layers = [m for m in module.modules() if isinstance(m, ForwardGRU)]
    for layer in layers:
        layer.shared = {}
    try:
        yield
    finally:
        for layer in layers:
            layer.shared = None


def choose_engine(module: nn.Module, implementation: str) -> None:
    """Sets the implementation of every ForwardGRU in `module`: a name in RUNS, or auto."""
    for layer in module.modules():
        if isinstance(layer, ForwardGRU):
            layer.implementation = implementation


def wavefront_works(device: torch.device) -> bool:
    """Whether Triton can build and run the wavefront's kernels here (it also needs a C compiler); a trial of some seconds."""
    try:
        with torch.random.fork_rng(devices=[]):
            trial = ForwardGRU(8, 16, 2, compute_dtype=torch.bfloat16).to(device)
        trial.implementation = "wavefront"
        trial(torch.zeros(2, 3, 8, device=device))[0].sum().backward()
    except Exception:  # of torch, Triton, the compiler or the driver: any failure means that another one must be used
        return False
    return True


RUNS = {
    "own": functools.partial(_layer_by_layer, _own_layer),
    "cudnn": functools.partial(_layer_by_layer, _native_layer),
    "streams": functools.partial(_layer_by_layer, _two_streams_layer),
    "wavefront": _wavefront,
}
