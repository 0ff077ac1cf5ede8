"""Flags of motion_prediction.py."""

import argparse

from options import backbones, common
from options.common import add_flags, group

DEFAULT_DATASET = "ntu60"  # of a random encoder, and of files that do not say theirs

PREDICTION = """
--encoder-mode {$PREDICTION_MODES}+ = frozen
    frozen: the encoder stays as it is (checked), the decoder is trained; tuned: both are trained from --pretrained;
    scratch: both from random weights of the same sizes; several give a row each
--observe FRAMES:positive_int = 50  observed frames, at the raw rate (30 a second)
--predict FRAMES:positive_int = 25  predicted frames; clips shorter than both together are skipped and counted
--horizons FRAME:positive_int+ = 1 5 10 15 20 25  predicted frames at which the error is printed, counted from 1
"""
TRAINING = """
--lr X:positive = 1e-3  of the decoder, by Adam; lower when the loss is not finite
--encoder-lr X:positive = 3e-4  of the encoder, where it is trained
-b --batch-size N:positive_int = 64  clips a step
--epochs N:positive_int = 100  passes over the training clips
--schedule EPOCH:natural* = 80  epochs at which the rates drop x0.1
--decoder-size N:positive_int = 256  hidden size of the decoder's GRU
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Predicts the next frames of a person from the observed ones, and prints the error in mm at each horizon beside that "
        "of zero velocity (the last pose repeated).",
        "There is no published protocol; this one is this repository's: raw frame rate, person 1, shorter clips skipped and "
        "counted. Example: python motion_prediction.py --pretrained P --dataset ui_prmd --encoder-mode frozen scratch",
        first="--pretrained --encoder-mode --dataset --protocol --data-root --output --observe --predict --device --seed",
    )
    common.add_evaluation_data(p, DEFAULT_DATASET)
    g = group(p, "prediction", common.OTHER_DATA)
    without = "; without it `frozen` is a random encoder, its input statistics taken from the training split"
    common.add_encoder(g, without, "of the encoder; default: that of the checkpoint")
    add_flags(g, PREDICTION)
    common.add_output(
        g, "run folder: result.json, curve.png, poses/*.png; default: runs/prediction_DATASET_PROTOCOL_ENCODER"
    )
    add_flags(g, common.RESUME + "--pictures N:natural = 3  test clips to draw; 0 draws none")
    group(p, "training", TRAINING)
    backbones.add_random_encoder_group(p)
    p.set_defaults(both_sides=False)  # a feature of both sides does not know which of them moves
    common.add_seeds(common.add_machine_group(p))
    return p


def parse_args(argv=None) -> argparse.Namespace:
    """Parsed and checked arguments."""
    p = build_parser()
    args = p.parse_args(argv)
    if max(args.horizons) > args.predict:
        p.error(f"--horizons {max(args.horizons)} is beyond the {args.predict} frames of --predict")
    if "tuned" in args.encoder_mode and not args.pretrained:
        p.error("--encoder-mode tuned needs --pretrained; scratch trains a random encoder")
    common.refuse_twice(p, args, "encoder_mode", "seed", "horizons")
    return args
