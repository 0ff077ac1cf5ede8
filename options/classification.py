"""Flags of action_classification.py."""

import argparse

from options import backbones, common
from options.common import add_flags, group

DEFAULT_DATASET = "ntu60"  # of a random encoder, and of files that do not say theirs
# what each mode trains with unless told otherwise
FINETUNE = {"lr": 0.01, "batch_size": 64, "epochs": 80, "schedule": [50, 70], "weight_decay": 0.0}
LINEAR = {"lr": 0.1, "batch_size": 1024, "epochs": 100, "schedule": [20, 50, 80], "weight_decay": 0.0}
MODES = {"linear": LINEAR, "finetune": FINETUNE, "semi": FINETUNE}
# of a linear layer on standardised features: chosen on training subjects of UI-PRMD (RESULTS.md)
STANDARDISED = LINEAR | {"batch_size": 128, "weight_decay": 0.05}

EVALUATION = """
--mode {$modes} = linear
    linear: the encoder is frozen (and checked to be); finetune: everything is trained with all labels; semi: the
    same with --label-fraction of the labels, or --label-count clips of each class
--label-fraction X:float>0.0<=1.0
    share of the training clips that are used, usually 0.01, 0.05, 0.1 or 0.2; semi needs it or --label-count,
    allowed elsewhere
--label-count N:positive_int  instead of a share: so many clips of each class, usually 1 or 5
--sampling {per_class,global} = per_class
    how labelled clips are chosen: the same share of each class (at least one), or of all clips together
--cache-features
    with linear: encode the centre crop of each training clip once instead of a fresh crop an epoch; many times
    faster, not the exact protocol; the result says so
--[no-]standardise
    with linear: the layer learns from features less their mean and divided by their deviation over the training
    clips, in batches of $batch and with weight decay $decay where these are not given; it is kept as a layer for
    the features as they are. If not given: off for encoders that are read as in the paper, on for those with a
    --pool, whose parts have different sizes
"""
TESTS = """
--occlusion {spatial,temporal,both}
    accuracy with joints of all persons hidden before the stream is taken: 0 to 4 of the 5 body parts, or one block
    of 0 to 90 % of the frames; curve and drop from clean go to occlusion.json and pictures; nothing is trained on
    it
--occlusion-seed SEED:natural = 0
    what is hidden in which clip; keep it, so that runs are compared on the same hidden clips
--early  accuracy after 10, 20, ... 100 % of the frames, from one pass of a causal encoder; early.json and early.png
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Trains a classifier on a pretrained encoder: linear evaluation, fine-tuning, or few labels.",
        "Prints last and best test accuracy and says which; the field mostly reports the best test epoch. Transfer to another "
        "data set: give its name to --dataset. Linear evaluation may run on several GPUs: torchrun --nproc_per_node=K "
        "action_classification.py with the same flags gives the same numbers; the processes share the encoding.",
        first="--pretrained --mode --dataset --protocol --data-root --output --label-fraction --epochs --device --seed",
    )
    common.add_evaluation_data(p, DEFAULT_DATASET)
    g = group(p, "evaluation", common.OTHER_DATA)
    common.add_encoder(
        g, "; without it a random encoder is evaluated, its input statistics taken from the training split"
    )
    add_flags(
        g,
        EVALUATION,
        modes=",".join(MODES),
        batch=STANDARDISED["batch_size"],
        decay=STANDARDISED["weight_decay"],
    )
    common.add_output(g, "run folder: results, scores, pictures; default: runs/MODE_DATASET_PROTOCOL_ENCODER")
    add_flags(g, common.RESUME)
    defaults = common.by_mode(MODES, LINEAR)
    g = group(p, "training (defaults depend on the mode)", common.BY_MODE, samples="clips", **defaults)
    decay = f"weight decay; default 0, with --standardise {STANDARDISED['weight_decay']}"
    add_flags(g, common.MOMENTUM, momentum="momentum of SGD")
    add_flags(g, f"--wd --weight-decay X:non_negative  {decay}")
    add_flags(g, "--test-every N:positive_int = 5  epochs between two tests")
    group(p, "further tests of the trained classifier", TESTS)
    backbones.add_random_encoder_group(p, every_pooling=True)
    g = common.add_machine_group(p)
    add_flags(g, common.PROCESSES)
    common.add_seeds(g)
    return p


def parse_args(argv=None) -> argparse.Namespace:
    """Parsed and checked arguments; what mode and encoder decide is None until `settle`."""
    p = build_parser()
    args = p.parse_args(argv)
    if args.mode == "semi" and args.label_fraction is None and args.label_count is None:
        p.error("--mode semi needs --label-fraction, like 0.1, or --label-count, like 5")
    if args.label_fraction is not None and args.label_count is not None:
        p.error("--label-fraction and --label-count are two ways to say how many labels there are; give one")
    if args.label_count is not None and args.sampling == "global":
        p.error("--label-count is of each class; leave --sampling global out, or give --label-fraction")
    if args.cache_features and args.mode != "linear":
        p.error("--cache-features needs a frozen encoder: --mode linear")
    if args.standardise and args.mode != "linear":
        p.error("--standardise needs features that stay as they are: --mode linear")
    common.refuse_twice(p, args, "seed")
    return args


def settle(args: argparse.Namespace, pool: str | None) -> None:
    """Fills in, in place, what was not given: by the mode, and of linear evaluation by how the encoder pools (None: as in the
    paper)."""
    if args.standardise is None:
        args.standardise = args.mode == "linear" and pool is not None
    common.fill(args, STANDARDISED if args.standardise else MODES[args.mode])
