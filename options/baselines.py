"""Flags of `python -m engine.baselines`."""

import argparse

from options import backbones, common
from options.common import group, number, positive_int

DEFAULT_DATASET = "ui_prmd"
LABEL_POINTS = ("1", "5", "1%", "5%", "10%", "20%", "50%", "100%")

COMPARED = """
--pretrained PATH* = ""
    checkpoints, a row each; the random encoder then has the architecture of the first one and reads clips in the
    same way
--stream {$STREAMS}  stream of the random encoder, default joint; a checkpoint stores its own
--supervised
    also train the encoder from random weights with the labels of the training split, with the views and pooling of
    the first checkpoint (without one: crops of half to all of a clip, and --pool); takes minutes
--supervised-steps N:positive_int = 1000  steps of AdamW, with a cosine schedule
--supervised-batch N:positive_int = 32  clips in a batch, two views each
--supervised-lr X:positive = 0.001  initial learning rate
--few-labels
    also evaluate with few labels: frozen features and, with --supervised, training from random weights and
    fine-tuning the first checkpoint; writes few_labels.md and few_labels.png
--label-points N:amount+
    with --few-labels: numbers of labelled clips in each class, like 5, or shares of each class, like 10%
--label-seeds SEED:natural+ = 1 2 3  with --few-labels: seeds that choose the labelled clips
--trained-seeds N:positive_int = 1
    with --few-labels and --supervised: number of these seeds for which encoders are trained, which takes minutes for
    each point
"""


def amount(text: str) -> int | float:
    """An argparse type: a whole number of clips, or a share in percent, such as 5%, which becomes 0.05."""
    if not text.endswith("%"):
        return positive_int(text)
    return number(float, above=0.0, high=100.0)(text[:-1]) / 100


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Baselines: compares pretrained encoders with raw joints, with a random encoder under every pooling, and with the same "
        "encoder trained with labels.",
        "All features are evaluated alike: by logistic regression, whose regularisation is chosen on held-out subjects of the "
        "training split, and by 1-NN. Pretraining helps if its row is above the best row that needs no pretraining.",
        program="engine.baselines",
        first="--pretrained --dataset --protocol --data-root --output --supervised --few-labels --trained-seeds --device --seed",
    )
    common.add_evaluation_data(p, DEFAULT_DATASET)
    g = group(p, "rows", common.OTHER_DATA, COMPARED, kinds={"amount": amount})
    p.set_defaults(label_points=list(LABEL_POINTS))
    common.add_output(g, "run folder: log, table.md and result.json; default: runs/baselines_DATASET_PROTOCOL")
    backbones.add_random_encoder_group(p)
    common.add_seeds(
        common.add_machine_group(p), "seeds of random and supervised encoders; several give mean and standard deviation"
    )
    return p


def parse_args(argv=None) -> argparse.Namespace:
    """Parsed and checked arguments."""
    p = build_parser()
    args = p.parse_args(argv)
    args.label_points = [amount(one) if isinstance(one, str) else one for one in args.label_points]
    for flag, values in (("--seed", args.seed), ("--label-seeds", args.label_seeds), ("--pretrained", args.pretrained)):
        if len(set(values)) < len(values):
            p.error(f"{flag} has a value twice: {' '.join(map(str, values))}")
    return args
