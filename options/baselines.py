"""Flags of `python -m engine.baselines`."""

import argparse

from options import backbones, common
from options.common import natural, number, positive, positive_int

DEFAULT_DATASET = "ui_prmd"
LABEL_POINTS = ("1", "5", "1%", "5%", "10%", "20%", "50%", "100%")


def amount(text: str) -> int | float:
    """An argparse type: a whole number of clips, or a share in per cent such as 5%, which becomes 0.05."""
    if not text.endswith("%"):
        return positive_int(text)
    return number(float, above=0.0, high=100.0)(text[:-1]) / 100


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "What features are worth without pretraining, beside what is asked for: raw joints, a random encoder under every "
        "pooling, the same encoder trained with labels, and pretrained ones.",
        "One classifier reads all of them: logistic regression, whose strength is chosen on subjects held out of the training "
        "split, and 1-NN. A pretrained encoder is worth something where it is above the best row that needs no pretraining.",
        program="engine.baselines",
    )
    common.add_data_group(p, "--finetune-dataset", None, common.evaluated_on(DEFAULT_DATASET), None)
    g = p.add_argument_group("what is compared")
    common.add_other_data(g)
    g.add_argument(
        "--pretrained",
        nargs="*",
        default=[],
        metavar="PATH",
        help="checkpoints, each a row; the random encoder is then built like that of the first, and reads clips as it does",
    )
    g.add_argument(
        "--stream",
        choices=common.STREAMS,
        default=None,
        help="of the random encoder, joint if not given; a checkpoint knows its own",
    )
    g.add_argument(
        "--supervised",
        action="store_true",
        help="also train the encoder with the labels of the training split, from random weights, with the views and the "
        "pooling of the first checkpoint (without one: crops of half to all of a clip, and --pool); takes minutes",
    )
    g.add_argument(
        "--supervised-steps", type=positive_int, default=1000, metavar="N", help="steps of AdamW with a cosine rate"
    )
    g.add_argument(
        "--supervised-batch", type=positive_int, default=32, metavar="N", help="clips of a step, two views each"
    )
    g.add_argument("--supervised-lr", type=positive, default=0.001, help="its first learning rate")
    g.add_argument(
        "--few-labels",
        action="store_true",
        help="also the accuracy with few labels: of frozen features, and with --supervised of training from random weights and "
        "of fine-tuning the first checkpoint; few_labels.md and few_labels.png",
    )
    g.add_argument(
        "--label-points",
        type=amount,
        nargs="+",
        default=list(LABEL_POINTS),
        metavar="N",
        help="of --few-labels: clips a class that are labelled, like 5, or a share of each class, like 10%%",
    )
    g.add_argument(
        "--label-seeds",
        type=natural,
        nargs="+",
        default=[1, 2, 3],
        metavar="SEED",
        help="of --few-labels: each chooses other labelled clips",
    )
    g.add_argument(
        "--trained-seeds",
        type=positive_int,
        default=1,
        metavar="N",
        help="of --few-labels: for how many of these encoders are trained, which takes minutes for every point",
    )
    common.add_output(g, "run folder: log, table.md and result.json; default: runs/baselines_DATASET_PROTOCOL")
    backbones.add_random_encoder_group(p)
    g = common.add_machine_group(p)
    g.add_argument(
        "--seed",
        type=natural,
        nargs="+",
        default=[42],
        metavar="SEED",
        help="of random and supervised encoders; several give mean and standard deviation",
    )
    p.first = tuple(
        "--pretrained --dataset --protocol --data-root --output "
        "--supervised --few-labels --trained-seeds --device --seed".split()
    )
    return p


def parse_args(argv=None) -> argparse.Namespace:
    """Parsed and checked arguments."""
    p = build_parser()
    args = p.parse_args(argv)
    args.label_points = [amount(one) if isinstance(one, str) else one for one in args.label_points]
    for flag, values in (("--seed", args.seed), ("--label-seeds", args.label_seeds), ("--pretrained", args.pretrained)):
        if len(set(values)) < len(values):
            p.error(f"{flag} names one twice: {' '.join(map(str, values))}")
    return args
