"""Exports an encoder as a standalone program: torch.export (.pt2) or ONNX.

    python -m tools.export --pretrained checkpoint_last.pth.tar --output encoder.pt2             # (N, 64, F) -> (N, D)
    python -m tools.export --pretrained checkpoint_last.pth.tar --output step.onnx --what step   # frame and state -> feature, state

The feature of a step is the clip feature of all frames so far, in the encoder's pooling: the last frame's, a running maximum, ...

The number of clips N is dynamic in the program. The program is written under a temporary name, loaded again and compared with the
encoder on random inputs of several N (a step: over many frames, each program with its own state); the largest difference is
printed. If it is above --tolerance, the file is removed and the exit status is 2.

    program = torch.export.load("step.pt2").module()
    feature, *state = program(frame, *state)                     # the first state is zeros, of the printed shapes
"""

import sys

from options.export import parse_args

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant


import contextlib
import importlib.util
import io
import logging
import os
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.features import STREAM_HINT, load
from engine.setup import prepare_process
from models.encoder import Encoder
from utils.errors import UserError, run
from utils.files import temporary_name

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
BATCHES = (1, 5)  # numbers of clips in the comparison; the traced example has 3
STREAM_FRAMES = 100  # more than the 64 steps that a causal transformer looks back


class Step(nn.Module):
    """The exported step: frame (N, F), *state -> clip feature (N, P) of all frames so far, *next state."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, frame: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        clip, _, *state = self.encoder.clip_step(frame, *state)
        return clip, *state


def clip_axes(encoder: Encoder) -> list[int | None]:
    """The axis of clips in each tensor of the state, None for a tensor without one."""
    pairs = zip(encoder.first_clip_state(3), encoder.first_clip_state(4), strict=True)
    return [next((i for i, (a, b) in enumerate(zip(x.shape, y.shape, strict=True)) if a != b), None) for x, y in pairs]


def described_state(encoder: Encoder) -> str:
    """The shapes of the state's tensors, with N for the number of clips."""
    shapes = []
    for tensor, axis in zip(encoder.first_clip_state(1), clip_axes(encoder), strict=True):
        shapes.append(f"({', '.join('N' if i == axis else str(size) for i, size in enumerate(tensor.shape))})")
    return " and ".join(shapes)


def trace(encoder: Encoder, what: str, frames: int) -> torch.export.ExportedProgram:
    """The encoder as an exported graph, for any number of clips."""
    n, inputs = torch.export.Dim("clips"), encoder.config.input_size
    if what == "clip":
        module, example, shapes = encoder, (torch.zeros(3, frames, inputs),), ({0: n},)
    else:
        state = encoder.first_clip_state(3)
        axes = [{axis: n} if axis is not None else {} for axis in clip_axes(encoder)]
        module, example, shapes = Step(encoder), (torch.zeros(3, inputs), *state), ({0: n}, tuple(axes))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about torch's internals
        return torch.export.export(module.eval(), example, dynamic_shapes=shapes, strict=False)


def write(program: torch.export.ExportedProgram, path: Path, kind: str, what: str) -> None:
    """Writes the program into one file. In ONNX the inputs are x, or frame and state_0, ...; the outputs feature and next_0, ..."""
    if kind == "torch":
        archive = io.BytesIO()  # torch's own file writer crashes the process when the disk is full
        torch.export.save(program, archive)
        path.write_bytes(archive.getbuffer())
        return
    states = len(program.graph_signature.user_inputs) - 1
    names_in = ["x"] if what == "clip" else ["frame", *(f"state_{i}" for i in range(states))]
    names_out = ["feature", *(f"next_{i}" for i in range(states))]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            program, (), str(path), input_names=names_in, output_names=names_out, dynamo=True, external_data=False
        )
    name_the_free_axis(path)


def name_the_free_axis(path: Path) -> None:
    """Renames the dynamic axis of an ONNX file to `clips`; torch calls it s31 or similar."""
    import onnx

    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_param = "clips"
    onnx.save(model, path)


def read(path: Path, kind: str):
    """The written program as a function of tensors that returns a tuple of tensors."""
    if kind == "torch":
        module = torch.export.load(path).module()

        def call(*inputs: Tensor) -> tuple[Tensor, ...]:
            out = module(*inputs)
            return out if isinstance(out, (tuple, list)) else (out,)

        return call
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def call(*inputs: Tensor) -> tuple[Tensor, ...]:
        found = session.run(None, {name: x.numpy() for name, x in zip(names, inputs, strict=True)})
        return tuple(torch.from_numpy(x) for x in found)

    return call


@torch.inference_mode()
def difference(encoder: Encoder, program, what: str, frames: int) -> float:
    """The largest absolute difference between the outputs of program and encoder, over BATCHES and, for steps, STREAM_FRAMES;
    infinite for outputs of another shape or that are not finite."""
    worst, generator = 0.0, torch.Generator().manual_seed(0)
    for n in BATCHES:
        if what == "clip":
            x = torch.randn(n, frames, encoder.config.input_size, generator=generator)
            pairs = [(program(x)[0], encoder(x))]
        else:
            x = torch.randn(n, STREAM_FRAMES, encoder.config.input_size, generator=generator)
            state, found = encoder.first_clip_state(n), []
            for t in range(STREAM_FRAMES):
                feature, *state = program(x[:, t].contiguous(), *state)
                found.append(feature)
            sides = [encoder.frames(side) for side in encoder.sides(x)]  # a whole stream is one pass over its frames
            pairs = [
                (
                    torch.stack(found, 1),
                    torch.stack(
                        [encoder.joined([encoder.clip(f[:, : t + 1]) for f in sides]) for t in range(STREAM_FRAMES)], 1
                    ),
                )
            ]
        for found, expected in pairs:
            if found.shape != expected.shape or not found.isfinite().all():
                return float("inf")
            worst = max(worst, float((found - expected).abs().max()))
    return worst


def check_possible(encoder: Encoder, args) -> None:
    """UserError if the encoder cannot run frame by frame, or if the packages for ONNX are missing."""
    if args.what == "step" and not encoder.streams:
        why = "averages groups of frames" if encoder.causal else "computes the feature of a frame from later frames too"
        raise UserError(
            f"--what step: the {encoder.config.backbone} backbone of {args.checkpoint} {why}, so it cannot run frame by frame; "
            f"{STREAM_HINT}"
        )
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if args.format == "onnx" and missing:
        raise UserError(
            f"--output {args.output}: ONNX needs packages that are not installed here ({', '.join(missing)}): "
            f"pip install {' '.join(missing)}, or give a name that ends in .pt2"
        )


def main(argv=None) -> int:
    args = parse_args(argv)
    prepare_process(args.threads)
    output = Path(args.output)
    if output.is_dir():  # checked before the trace, which may take half a minute
        raise UserError(f"--output {output}: is a folder; give the name of a file")
    encoder = load(args.checkpoint, layout=args.layout, persons=args.persons, device="cpu").encoder
    check_possible(encoder, args)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(output)
    temporary = temporary.with_name(temporary.name.removesuffix(".tmp") + output.suffix)  # readers require the suffix
    try:
        write(trace(encoder, args.what, args.frames), temporary, args.format, args.what)
        worst = difference(encoder, read(temporary, args.format), args.what, args.frames)
        if not worst <= args.tolerance:
            raise UserError(
                f"--output {output}: the exported program differs from the encoder by {worst:.2g}, more than --tolerance "
                f"{args.tolerance:g}; the file was removed"
            )
        os.replace(temporary, output)
    finally:
        temporary.unlink(missing_ok=True)
    f, d = encoder.config.input_size, encoder.clip_size
    shapes = f"(N, {args.frames}, {f}) -> (N, {d})"
    if args.what == "step":
        state = described_state(encoder)
        shapes = f"frame (N, {f}), state {state} -> feature (N, {d}), next state; the first state is zeros"
    print(
        f"{output}: {args.what} of the {encoder.config.backbone} encoder, {shapes}; {output.stat().st_size / 1e6:.1f} MB"
    )
    print(f"largest difference from the encoder, N = {' and '.join(map(str, BATCHES))}: {worst:.2g}")
    return 0


if __name__ == "__main__":
    run(main, sys.argv[1:])
