"""Flags of motion_prediction.py."""

import argparse

from options import backbones, common
from options.common import natural, positive, positive_int
from utils.names import PREDICTION_MODES

DEFAULT_DATASET = "ntu60"  # of a random encoder, and of files that do not say theirs


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Predicts the next frames of a person from the observed ones, and prints the error in mm at each horizon beside that "
        "of zero velocity (the last pose repeated).",
        "There is no published protocol; this one is this repository's: raw frame rate, person 1, shorter clips skipped and "
        "counted. Example: python motion_prediction.py --pretrained P --dataset ui_prmd --encoder-mode frozen scratch",
    )
    common.add_data_group(p, "--finetune-dataset", None, common.evaluated_on(DEFAULT_DATASET), None)
    g = p.add_argument_group("prediction")
    common.add_other_data(g)
    without = "; without it `frozen` is a random encoder, its input statistics taken from the training split"
    common.add_encoder(g, without, "of the encoder; default: that of the checkpoint")
    g.add_argument(
        "--encoder-mode",
        choices=PREDICTION_MODES,
        nargs="+",
        default=["frozen"],
        help="frozen: the encoder stays as it is (checked), the decoder is trained; tuned: both are trained from --pretrained; "
        "scratch: both from random weights of the same sizes; several give a row each",
    )
    g.add_argument(
        "--observe",
        type=positive_int,
        default=50,
        metavar="FRAMES",
        help="observed frames, at the raw rate (30 a second)",
    )
    g.add_argument(
        "--predict",
        type=positive_int,
        default=25,
        metavar="FRAMES",
        help="predicted frames; clips shorter than both together are skipped and counted",
    )
    g.add_argument(
        "--horizons",
        type=positive_int,
        nargs="+",
        default=[1, 5, 10, 15, 20, 25],
        metavar="FRAME",
        help="predicted frames at which the error is printed, counted from 1",
    )
    common.add_output(g, "run folder: result.json, curve.png, poses/*.png; default: runs/prediction_DATASET_PROTOCOL")
    common.add_resume(g)
    g.add_argument("--pictures", type=natural, default=3, metavar="N", help="test clips to draw; 0 draws none")
    g = p.add_argument_group("training")
    g.add_argument(
        "--lr", type=positive, default=1e-3, help="of the decoder, by Adam; lower when the loss is not finite"
    )
    g.add_argument("--encoder-lr", type=positive, default=3e-4, help="of the encoder, where it is trained")
    g.add_argument("-b", "--batch-size", type=positive_int, default=64, help="clips a step")
    g.add_argument("--epochs", type=positive_int, default=100, help="passes over the training clips")
    g.add_argument(
        "--schedule", type=natural, nargs="*", default=[80], metavar="EPOCH", help="epochs at which the rates drop x0.1"
    )
    g.add_argument("--decoder-size", type=positive_int, default=256, help="hidden size of the decoder's GRU")
    backbones.add_random_encoder_group(p)
    g = common.add_machine_group(p)
    common.add_seeds(g)
    p.first = tuple(
        "--pretrained --encoder-mode --dataset --protocol --data-root "
        "--output --observe --predict --device --seed".split()
    )
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
