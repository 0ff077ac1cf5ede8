"""Flags of motion_prediction.py."""

import argparse

from options import backbones, common
from options.common import add_flags, group

DEFAULT_DATASET = "ntu60"  # for a random encoder, and for checkpoints that do not store theirs

PREDICTION = """
--encoder-mode {$PREDICTION_MODES}+ = frozen
    frozen: train the decoder on the frozen encoder; tuned: train both, the encoder from --pretrained; scratch: train
    both, from random weights of the same sizes; several modes give a row each
--observe FRAMES:positive_int = 50  observed frames, at the original rate (30 a second)
--predict FRAMES:positive_int = 25  predicted frames; clips shorter than both together are skipped and counted
--horizons FRAME:positive_int+ = 1 5 10 15 20 25  predicted frames, counted from 1, at which the error is printed
"""
TRAINING = """
--lr X:positive = 1e-3  learning rate of the decoder (Adam); lower it if the loss is not finite
--encoder-lr X:positive = 3e-4  learning rate of the encoder, if it is trained
-b --batch-size N:positive_int = 64  clips in a batch
--epochs N:positive_int = 100  passes over the training clips
--schedule EPOCH:natural* = 80  epochs at which the learning rates are multiplied by 0.1
--decoder-size N:positive_int = 256  hidden size of the decoder's GRU
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Motion prediction: predicts the next frames of a person from the observed ones, and prints the error in mm at each "
        "horizon, with that of zero velocity (the last pose repeated).",
        "There is no published protocol; this project's has the original frame rate, person 1 only, and skips clips that are too "
        "short. Example: python motion_prediction.py --pretrained P --dataset ui_prmd --encoder-mode frozen scratch",
        first="--pretrained --encoder-mode --dataset --protocol --data-root --output --observe --predict --device --seed",
    )
    common.add_evaluation_data(p, DEFAULT_DATASET)
    g = group(p, "prediction", common.OTHER_DATA)
    without = "; without it, `frozen` is a random encoder, with the input statistics of the training split"
    common.add_encoder(g, without)
    add_flags(g, PREDICTION)
    common.add_output(
        g, "run folder: result.json, curve.png, poses/*.png; default: runs/prediction_DATASET_PROTOCOL_ENCODER"
    )
    add_flags(g, common.RESUME + "--pictures N:natural = 3  test clips to draw; 0 = none")
    group(p, "training", TRAINING)
    backbones.add_random_encoder_group(p)
    p.set_defaults(both_sides=False)  # a feature of both sides does not tell which of them moves
    common.add_seeds(common.add_machine_group(p))
    return p


def parse_args(argv=None) -> argparse.Namespace:
    """Parsed and checked arguments."""
    p = build_parser()
    args = p.parse_args(argv)
    if max(args.horizons) > args.predict:
        p.error(f"--horizons {max(args.horizons)}: expected at most the {args.predict} frames of --predict")
    if "tuned" in args.encoder_mode and not args.pretrained:
        p.error("--encoder-mode tuned needs --pretrained; to train from random weights give --encoder-mode scratch")
    common.refuse_twice(p, args, "encoder_mode", "seed", "horizons")
    return args
