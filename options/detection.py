"""Flags of action_detection.py."""

import argparse
from dataclasses import dataclass

from options import backbones, common
from options.common import add_flags, group

DEFAULT_DATASET = "pku_v1"  # of a random encoder, and of files that do not say theirs


@dataclass(frozen=True)
class Mode:
    """What a mode does unless told otherwise. windows: per video and epoch; length: frames of a window (or of a training
    sequence); stride: raw frames between two of them, in the test; train_strides: range in training."""

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
    data set $evaluated_on. Its folder holds `untrimmed` (whole videos with frame labels): pku_v1, pku_v2, ui_prmd
    and ui_prmd_quality (made on first use), or a folder under --data-root with a dataset.json
--protocol NAME  $protocol
"""
DETECTION = """
--mode {$modes} = tuned
    tuned: windows of 32 consecutive raw frames, all weights trained (the paper's figures); frozen: the encoder
    stays as it is (checked), windows of 16 frames 4 apart, probabilities smoothed; sequence: this repository's own,
    not a published protocol: trained on long sequences, and the causal encoder runs over each test video once,
    which is many times faster than a window for every frame
--coordinates {raw,normalised}
    raw: camera coordinates as they are; normalised: centred and turned as the clips of pretraining, which a frozen
    encoder needs because its norm fits nothing else; default: $coordinates
--segments {released,threshold}
    how frames become segments; released: a walk in steps of 15 frames over the classes; threshold: runs of frames
    with 1 - P(background) of at least 0.4 after a moving mean over 21; default: $segments
--overlaps SHARE:float>0.0<=1.0+ = 0.1 0.3 0.5
    overlaps from which a detection counts as right; published figures are at 0.5; the best epoch is chosen by mAP_a
    at the last one
--delay FRAMES:natural = 16
    with --mode sequence: how long after a frame its class is read off; 16 sees as much of the future as a window of
    32 frames; 0 is fully online, and less accurate at the starts of actions
"""
TRAINING = """
--windows N:positive_int  windows (or sequences) of each video in an epoch; default: $windows
--length FRAMES:int>=2
    frames of a window (or of a training sequence: longer teaches more patience); default: $length
"""
TESTS = """
--test-every N:natural = 0
    epochs between two tests, to see the best one too; 0 tests after the last epoch only, because a test reads every
    frame of every video
--test-batch N:positive_int = 256
    windows that go through the encoder at once in the test; less takes less memory and gives the same result
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Finds actions in untrimmed videos: a class for every frame, then segments, then mAP over actions (mAP_a) and over "
        "videos (mAP_v, PKU-MMD's official measure).",
        "Example: python action_detection.py --pretrained runs/joint/checkpoint_last.pth.tar --dataset ui_prmd",
        first="--pretrained --mode --dataset --protocol --data-root --output --lr --epochs --device --seed",
    )
    default = common.evaluated_on(DEFAULT_DATASET)
    group(p, "data", common.DATA_ROOT, DATA, evaluated_on=default, protocol=common.protocol_help(None))
    by_mode = common.by_mode({mode: vars(values) for mode, values in MODES.items()}, BY_MODE)
    g = group(p, "detection")
    common.add_encoder(g, "; without it a random encoder, its input statistics taken from training windows")
    add_flags(g, DETECTION, modes=",".join(MODES), **by_mode)
    where = "default: runs/detection_MODE_DATASET_PROTOCOL_ENCODER"
    common.add_output(g, f"run folder: result.json, predictions as PKU-MMD text files, timelines; {where}")
    add_flags(g, common.RESUME)
    what = "test videos to draw, truth above prediction, for the first seed; 0 draws none"
    add_flags(g, f"--timelines N:natural = 6  {what}")
    words = by_mode | {"samples": "windows (or sequences)"}
    g = group(p, "training (defaults depend on the mode)", common.BY_MODE + TRAINING, **words)
    add_flags(g, common.SGD + TESTS, momentum="of SGD (Nesterov)", decay="0.0")
    backbones.add_random_encoder_group(p)
    common.add_seeds(common.add_machine_group(p))
    return p


def parse_args(argv=None) -> argparse.Namespace:
    """Parsed and checked arguments; what the mode decides is filled in."""
    p = build_parser()
    args = p.parse_args(argv)
    mode = MODES[args.mode]
    common.fill(args, {name: getattr(mode, name) for name in BY_MODE})
    args.stride, args.train_strides = mode.stride, mode.train_strides
    if args.mode == "frozen" and args.pretrained and args.coordinates == "raw":
        p.error(
            "--coordinates raw does not go with --mode frozen: the norm of a frozen encoder fits normalised clips only"
        )
    if args.momentum == 0:
        p.error("--momentum 0: Nesterov's SGD needs a momentum, usually 0.9")
    of_clips = [args.pool and f"--pool {args.pool}", args.both_sides and "--both-sides"]
    if args.mode == "sequence" and any(of_clips):
        flags = " ".join(filter(None, of_clips))
        p.error(f"{flags}: it is for features of clips, and --mode sequence reads every frame by itself; leave it out")
    if args.mode == "sequence" and args.delay >= args.length:
        p.error(f"--delay {args.delay} must be shorter than the training sequences, --length {args.length}")
    common.refuse_twice(p, args, "seed")
    return args
