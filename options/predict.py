"""Flags of predict.py."""

import argparse

from options import common
from options.common import add_flags, group
from options.extract import INPUT_LAYOUT, READS

CLIPS = """
input CLIPS? = ""
    a folder of .npy files, one for each clip (also CLASS/NAME.npy), a single .npy file, or one .npz of clips by
    name: raw coordinates in metres, (T, V, 3) or (M, T, V, 3); or poses in any form that data_gen.from_poses reads;
    optional with --labelled
--labelled FOLDER = ""
    labelled clips, CLASS/NAME.npy: train a classifier on them, test it by cross-validation, and save it as
    classifier.pth for later calls
--output FOLDER = runs/predictions  run folder; an existing one is renamed
--none SHARE:share = 0.05
    a clip is 'none of them' if its distance to the training clips is above a threshold, which this share of held-out
    clips of known classes exceeds; a higher share gives more such clips, 0 gives no such clip
--skip-bad  skip and list clips that cannot be read, instead of stopping
--folds K:int>=2 = 5
    with --labelled: folds of the cross-validation; at most the number of clips of the smallest class
--seed SEED:natural = 0  assigns the labelled clips to folds; nothing else is random
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Classifies your clips: for each clip its class with the probability, the three best classes, or 'none of them' if it is "
        "unlike all training clips of the classifier. The table is written to predictions.csv in the run folder.",
        "With a classifier: python predict.py --pretrained runs/linear_ui_prmd_cross_subject_small/classifier.pth my_clips. With a "
        "few labelled clips of your own (labelled/CLASS/NAME.npy, two or more of each class): python predict.py --pretrained "
        "ENCODER my_clips --labelled labelled, where ENCODER is any checkpoint; the classifier is cross-validated first.",
    )
    what = "classifier.pth of a run folder of action_classification.py, or of an earlier call of this program; with --labelled "
    common.add_pretrained(p, "source", what + "any checkpoint that holds an encoder")
    add_flags(p, CLIPS)
    group(p, "encoder and clips, if their files do not say it", READS, INPUT_LAYOUT, source="the clips")
    g = group(p, "machine", "--batch-size N:positive_int = 64  clips encoded at once, and held in memory")
    add_flags(g, common.DEVICE, few="")
    return p


def parse_args(argv=None) -> argparse.Namespace:
    p = build_parser()
    args = p.parse_args(argv)
    if not args.input and not args.labelled:
        p.error("give clips to classify, or --labelled clips to train a classifier with")
    if not args.labelled and (args.stream or args.layout or args.persons):
        p.error("--stream, --layout and --persons need --labelled; a classifier stores its own; remove them")
    return args
