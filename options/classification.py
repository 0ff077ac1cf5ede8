"""Flags of action_classification.py."""

import argparse

from options import backbones, common
from options.common import natural, number, positive, positive_int

DEFAULT_DATASET = "ntu60"  # of a random encoder, and of files that do not say theirs
# what each mode trains with unless told otherwise: lr, batch size, epochs, epochs at which the rate drops
RECIPES = {
    "linear": (0.1, 1024, 100, [20, 50, 80]),
    "finetune": (0.01, 64, 80, [50, 70]),
    "semi": (0.01, 64, 80, [50, 70]),
}


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Trains a classifier on a pretrained encoder: linear evaluation, fine-tuning, or few labels.",
        "Prints last and best test accuracy and says which; the field mostly reports the best test epoch. Transfer to another "
        "data set: give its name to --dataset. Linear evaluation may run on several GPUs: torchrun --nproc_per_node=K "
        "action_classification.py with the same flags gives the same numbers; the processes share the encoding.",
    )
    common.add_data_group(p, "--finetune-dataset", None, common.evaluated_on(DEFAULT_DATASET), None)
    g = p.add_argument_group("evaluation")
    common.add_other_data(g)
    without = "; without it a random encoder is evaluated, its input statistics taken from the training split"
    common.add_encoder(g, without)
    g.add_argument(
        "--mode",
        choices=tuple(RECIPES),
        default="linear",
        help="linear: the encoder is frozen (and checked to be); finetune: everything is trained with all labels; semi: the "
        "same with --label-fraction of the labels, or --label-count clips of each class",
    )
    g.add_argument(
        "--label-fraction",
        type=number(float, above=0.0, high=1.0),
        default=None,
        help="share of the training clips that are used, usually 0.01, 0.05, 0.1 or 0.2; semi needs it or --label-count, allowed "
        "elsewhere",
    )
    g.add_argument(
        "--label-count",
        type=positive_int,
        default=None,
        metavar="N",
        help="instead of a share: so many clips of each class, usually 1 or 5",
    )
    g.add_argument(
        "--sampling",
        choices=("per_class", "global"),
        default="per_class",
        help="how labelled clips are chosen: the same share of each class (at least one), or of all clips together",
    )
    g.add_argument(
        "--cache-features",
        action="store_true",
        help="with linear: encode the centre crop of each training clip once instead of a fresh crop an epoch; many times "
        "faster, not the exact protocol; the result says so",
    )
    common.add_output(g, "run folder: results, scores, pictures; default: runs/MODE_DATASET_PROTOCOL")
    common.add_resume(g)
    g = p.add_argument_group("training (defaults depend on the mode)")
    for flag, kind, what, at in (
        ("--lr", positive, "learning rate", 0),
        ("--batch-size", positive_int, "clips a step", 1),
        ("--epochs", positive_int, "passes over the training clips", 2),
    ):
        shown = ", ".join(f"{mode} {values[at]}" for mode, values in RECIPES.items())
        names = ("-b", flag) if flag == "--batch-size" else (flag,)
        g.add_argument(*names, type=kind, default=None, help=f"{what}; default: {shown}")
    g.add_argument(
        "--schedule",
        type=natural,
        nargs="*",
        default=None,
        metavar="EPOCH",
        help="epochs at which the rate drops x0.1; default: 20 50 80 (linear), 50 70",
    )
    common.add_sgd(g, "momentum of SGD")
    g.add_argument("--test-every", type=positive_int, default=5, metavar="N", help="epochs between two tests")
    g = p.add_argument_group("further tests of the trained classifier")
    g.add_argument(
        "--occlusion",
        choices=("spatial", "temporal", "both"),
        default=None,
        help="accuracy with joints of all persons hidden before the stream is taken: 0 to 4 of the 5 body parts, or one block "
        "of 0 to 90 %% of the frames; curve and drop from clean go to occlusion.json and pictures; nothing is trained on it",
    )
    g.add_argument(
        "--occlusion-seed",
        type=natural,
        default=0,
        metavar="SEED",
        help="what is hidden in which clip; keep it, so that runs are compared on the same hidden clips",
    )
    g.add_argument(
        "--early",
        action="store_true",
        help="accuracy after 10, 20, ... 100 %% of the frames, from one pass of a causal encoder; early.json and early.png",
    )
    backbones.add_random_encoder_group(p, every_pooling=True)
    g = common.add_machine_group(p)
    common.add_processes(g)
    common.add_seeds(g)
    p.first = tuple(
        "--pretrained --mode --dataset --protocol --data-root "
        "--output --label-fraction --epochs --device --seed".split()
    )
    return p


def parse_args(argv=None) -> argparse.Namespace:
    """Parsed and checked arguments; what the mode decides is filled in."""
    p = build_parser()
    args = p.parse_args(argv)
    for name, value in zip(("lr", "batch_size", "epochs", "schedule"), RECIPES[args.mode], strict=True):
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.mode == "semi" and args.label_fraction is None and args.label_count is None:
        p.error("--mode semi needs --label-fraction, like 0.1, or --label-count, like 5")
    if args.label_fraction is not None and args.label_count is not None:
        p.error("--label-fraction and --label-count are two ways to say how many labels there are; give one")
    if args.label_count is not None and args.sampling == "global":
        p.error("--label-count is of each class; leave --sampling global out, or give --label-fraction")
    if args.cache_features and args.mode != "linear":
        p.error("--cache-features needs a frozen encoder: --mode linear")
    common.refuse_twice(p, args, "seed")
    return args
