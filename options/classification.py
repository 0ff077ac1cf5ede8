"""Flags of action_classification.py."""

import argparse

from options import backbones, common
from options.common import add_flags, group

DEFAULT_DATASET = "ntu60"  # for a random encoder, and for checkpoints that do not store theirs
# the defaults of each mode
FINETUNE = {"lr": 0.01, "batch_size": 64, "epochs": 80, "schedule": [50, 70], "weight_decay": 0.0}
LINEAR = {"lr": 0.1, "batch_size": 1024, "epochs": 100, "schedule": [20, 50, 80], "weight_decay": 0.0}
MODES = {"linear": LINEAR, "finetune": FINETUNE, "semi": FINETUNE}
# defaults for standardised features, chosen on training subjects of UI-PRMD (RESULTS.md)
STANDARDISED = LINEAR | {"batch_size": 128, "weight_decay": 0.05}

EVALUATION = """
--mode {$modes} = linear
    linear: train a linear layer on the frozen encoder; finetune: train everything with all labels; semi: train
    everything with --label-fraction of the labels, or with --label-count clips of each class
--label-fraction X:float>0.0<=1.0
    share of the training clips to use, usually 0.01, 0.05, 0.1 or 0.2; needed by semi (or --label-count), allowed
    in every mode
--label-count N:positive_int  number of clips to use from each class, usually 1 or 5, instead of --label-fraction
--sampling {per_class,global} = per_class
    how labelled clips are chosen: the same share of each class (at least one clip), or of all clips together
--cache-features
    with --mode linear: encode the centre crop of each training clip once, instead of a random crop in every epoch;
    many times faster, but not the exact protocol; the result notes it
--[no-]standardise
    with --mode linear: train on standardised features (mean 0, deviation 1 over the training clips), by default
    with batches of $batch and weight decay $decay; the saved layer is for plain features. Default: on for encoders
    with a --pool, whose parts differ in scale, off for encoders pooled as in the paper
"""
TESTS = """
--occlusion {spatial,temporal,both}
    also test with hidden joints: 0 to 4 of the 5 body parts (spatial), or one block of 0 to 90 % of the frames
    (temporal), of all persons, hidden before the stream is computed; the curve, with the drop from clean clips,
    is written to occlusion.json and pictures
--occlusion-seed SEED:natural = 0
    seed of what is hidden; use the same for all runs that are compared
--early
    also test after 10, 20, ... 100 % of the frames, in one pass of a causal encoder; writes early.json and early.png
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Trains a classifier on a pretrained encoder: linear evaluation, fine-tuning, or few labels.",
        "Prints the test accuracy of the last and of the best epoch; most papers report the best. To transfer to another data "
        "set, name it with --dataset. Linear evaluation can run on several GPUs, which share the encoding: torchrun "
        "--nproc_per_node=K action_classification.py with the same flags gives the same results.",
        first="--pretrained --mode --dataset --protocol --data-root --output --label-fraction --epochs --device --seed",
    )
    common.add_evaluation_data(p, DEFAULT_DATASET)
    g = group(p, "evaluation", common.OTHER_DATA)
    without = "; without it, a random encoder, with the input statistics of the training split"
    common.add_encoder(g, without)
    batch, decay = STANDARDISED["batch_size"], STANDARDISED["weight_decay"]
    add_flags(g, EVALUATION, modes=",".join(MODES), batch=batch, decay=decay)
    common.add_output(g, "run folder: results, scores, pictures; default: runs/MODE_DATASET_PROTOCOL_ENCODER")
    add_flags(g, common.RESUME)
    defaults = common.by_mode(MODES, LINEAR)
    g = group(p, "training (defaults depend on the mode)", common.BY_MODE, samples="clips", **defaults)
    add_flags(g, common.MOMENTUM, momentum="momentum of SGD")
    add_flags(g, f"--wd --weight-decay X:non_negative  weight decay; default 0, with --standardise {decay}")
    add_flags(g, "--test-every N:positive_int = 5  test every N epochs")
    group(p, "further tests of the trained classifier", TESTS)
    backbones.add_random_encoder_group(p, every_pooling=True)
    g = common.add_machine_group(p)
    add_flags(g, common.PROCESSES)
    common.add_seeds(g)
    return p


def parse_args(argv=None) -> argparse.Namespace:
    """Parsed and checked arguments; those that depend on mode and encoder are None until `settle`."""
    p = build_parser()
    args = p.parse_args(argv)
    if args.mode == "semi" and args.label_fraction is None and args.label_count is None:
        p.error("--mode semi needs --label-fraction, like 0.1, or --label-count, like 5")
    if args.label_fraction is not None and args.label_count is not None:
        p.error("--label-fraction and --label-count exclude each other; give one of them")
    if args.label_count is not None and args.sampling == "global":
        p.error("--label-count is a number for each class; remove --sampling global, or give --label-fraction")
    if args.cache_features and args.mode != "linear":
        p.error("--cache-features needs a frozen encoder: --mode linear")
    if args.standardise and args.mode != "linear":
        p.error("--standardise needs a frozen encoder: --mode linear")
    common.refuse_twice(p, args, "seed")
    return args


def settle(args: argparse.Namespace, pool: str | None) -> None:
    """Sets the flags that were not given, by the mode and, for linear evaluation, by the encoder's pooling (None: as in the
    paper); in place."""
    if args.standardise is None:
        args.standardise = args.mode == "linear" and pool is not None
    common.fill(args, STANDARDISED if args.standardise else MODES[args.mode])
