"""Flags of action_detection.py."""

import argparse
from dataclasses import dataclass

from options import backbones, common
from options.common import add_flags, group

DEFAULT_DATASET = "pku_v1"  # for a random encoder, and for checkpoints that do not store theirs


@dataclass(frozen=True)
class Mode:
    """The defaults of a mode. windows: per video and epoch; length: frames of a window (or of a training sequence); stride: of
    a test window, in raw frames; train_strides: range of the stride in training."""

    lr: float
    batch_size: int
    epochs: int
    schedule: tuple[int, ...]
    windows: int
    length: int
    stride: int
    train_strides: tuple[int, int]
    segments: str
    coordinates: str


MODES = {
    "tuned": Mode(0.01, 64, 20, (), 16, 32, 1, (1, 1), "released", "raw"),
    "frozen": Mode(0.01, 64, 60, (40,), 16, 16, 4, (3, 5), "threshold", "normalised"),
    "sequence": Mode(0.1, 8, 60, (40,), 2, 256, 1, (1, 1), "threshold", "normalised"),
}
BY_MODE = ("lr", "batch_size", "epochs", "schedule", "windows", "length", "segments", "coordinates")

DATA = """
--dataset --finetune-dataset NAME
    data set to evaluate on, with untrimmed videos (a folder `untrimmed` of whole videos with frame labels): pku_v1,
    pku_v2, ui_prmd, ui_prmd_quality (prepared on first use), or the name of a folder under --data-root that holds a
    dataset.json$fallback
--protocol NAME  $protocol
"""
DETECTION = """
--mode {$modes} = tuned
    tuned: all weights are trained, on windows of 32 consecutive raw frames (as in the paper); frozen: the encoder is
    frozen, windows have 16 frames with stride 4, probabilities are smoothed; sequence: a causal encoder is trained
    on long sequences and runs over each test video once, which is many times faster than a window for every frame
    (not a published protocol)
--coordinates {raw,normalised}
    raw: camera coordinates; normalised: centred and rotated like the clips of pretraining, which a frozen encoder
    needs, since its input norm fits only these; default: $coordinates
--segments {released,threshold}
    how frame classes become segments; released: as in the original code, in steps of 15 frames; threshold: runs of
    frames with 1 - P(background) of at least 0.4, after a moving average over 21 frames; default: $segments
--overlaps SHARE:float>0.0<=1.0+ = 0.1 0.3 0.5
    overlaps (IoU) from which a detection is correct; published results are at 0.5; the best epoch is chosen by mAP_a
    at the last one
--delay FRAMES:natural = 16
    with --mode sequence: frames that are read after a frame before its class is predicted; 16 is as much of the
    future as a window of 32 frames has; 0 is fully online, and less accurate at the start of actions
"""
TRAINING = """
--windows N:positive_int  windows (or sequences) from each video in an epoch; default: $windows
--length FRAMES:int>=2
    frames of a window (or of a training sequence: longer ones teach a longer memory); default: $length
"""
TESTS = """
--test-every N:natural = 0
    test every N epochs, to find the best one; 0: only after the last epoch, because a test reads every frame of
    every video
--test-batch N:positive_int = 256
    windows encoded at once in the test; fewer need less memory; does not change the result
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Action detection in untrimmed videos: classifies every frame, joins frames to segments, and computes mAP over actions "
        "(mAP_a) and over videos (mAP_v, PKU-MMD's official measure).",
        "Example: python action_detection.py --pretrained runs/joint/checkpoint_last.pth.tar --dataset ui_prmd",
        first="--pretrained --mode --dataset --protocol --data-root --output --lr --epochs --device --seed",
    )
    fallback = common.default_dataset(DEFAULT_DATASET)
    group(p, "data", common.DATA_ROOT, DATA, fallback=fallback, protocol=common.protocol_help(None))
    by_mode = common.by_mode({mode: vars(values) for mode, values in MODES.items()}, BY_MODE)
    g = group(p, "detection")
    common.add_encoder(g, "; without it, a random encoder, with the input statistics of training windows")
    add_flags(g, DETECTION, modes=",".join(MODES), **by_mode)
    default = "default: runs/detection_MODE_DATASET_PROTOCOL_ENCODER"
    common.add_output(g, f"run folder: result.json, predictions as PKU-MMD text files, timelines; {default}")
    add_flags(g, common.RESUME)
    add_flags(g, "--timelines N:natural = 6  test videos to draw, truth above prediction, for the first seed; 0 = none")
    words = by_mode | {"samples": "windows (or sequences)"}
    g = group(p, "training (defaults depend on the mode)", common.BY_MODE + TRAINING, **words)
    add_flags(g, common.SGD + TESTS, momentum="momentum of SGD (Nesterov)", decay="0.0")
    backbones.add_random_encoder_group(p)
    common.add_seeds(common.add_machine_group(p))
    return p


def parse_args(argv=None) -> argparse.Namespace:
    """Parsed and checked arguments, with the mode's defaults."""
    p = build_parser()
    args = p.parse_args(argv)
    mode = MODES[args.mode]
    common.fill(args, {name: getattr(mode, name) for name in BY_MODE})
    args.stride, args.train_strides = mode.stride, mode.train_strides
    if args.mode == "frozen" and args.pretrained and args.coordinates == "raw":
        p.error(
            "--coordinates raw does not work with --mode frozen: the norm of a frozen encoder fits normalised clips only"
        )
    if args.momentum == 0:
        p.error("--momentum 0: Nesterov's SGD needs a momentum, usually 0.9")
    clip_flags = [args.pool and f"--pool {args.pool}", args.both_sides and "--both-sides"]
    if args.mode == "sequence" and any(clip_flags):
        flags = " ".join(filter(None, clip_flags))
        p.error(f"{flags}: only for features of clips, but --mode sequence uses features of frames; remove it")
    if args.mode == "sequence" and args.delay >= args.length:
        p.error(f"--delay {args.delay} must be shorter than the training sequences, --length {args.length}")
    common.refuse_twice(p, args, "seed")
    return args
