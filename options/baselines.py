"""Flags of `python -m engine.baselines`."""

import argparse

from options import backbones, common
from options.common import group, number, positive_int

DEFAULT_DATASET = "ui_prmd"
LABEL_POINTS = ("1", "5", "1%", "5%", "10%", "20%", "50%", "100%")

COMPARED = """
--pretrained PATH* = ""
    checkpoints, each a row; the random encoder is then built like that of the first, and reads clips as it does
--stream {$STREAMS}  of the random encoder, joint if not given; a checkpoint knows its own
--supervised
    also train the encoder with the labels of the training split, from random weights, with the views and the
    pooling of the first checkpoint (without one: crops of half to all of a clip, and --pool); takes minutes
--supervised-steps N:positive_int = 1000  steps of AdamW with a cosine rate
--supervised-batch N:positive_int = 32  clips of a step, two views each
--supervised-lr X:positive = 0.001  its first learning rate
--few-labels
    also the accuracy with few labels: of frozen features, and with --supervised of training from random weights and
    of fine-tuning the first checkpoint; few_labels.md and few_labels.png
--label-points N:amount+
    of --few-labels: clips a class that are labelled, like 5, or a share of each class, like 10%
--label-seeds SEED:natural+ = 1 2 3  of --few-labels: each chooses other labelled clips
--trained-seeds N:positive_int = 1
    of --few-labels: for how many of these encoders are trained, which takes minutes for every point
"""


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
        first="--pretrained --dataset --protocol --data-root --output --supervised --few-labels --trained-seeds --device --seed",
    )
    common.add_evaluation_data(p, DEFAULT_DATASET)
    g = group(p, "what is compared", common.OTHER_DATA, COMPARED, kinds={"amount": amount})
    p.set_defaults(label_points=list(LABEL_POINTS))
    common.add_output(g, "run folder: log, table.md and result.json; default: runs/baselines_DATASET_PROTOCOL")
    backbones.add_random_encoder_group(p)
    common.add_seeds(
        common.add_machine_group(p), "of random and supervised encoders; several give mean and standard deviation"
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
