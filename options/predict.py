"""Flags of predict.py."""

import argparse

from options import common
from options.common import add_flags, group
from options.extract import INPUT_LAYOUT, READS

CLIPS = """
input CLIPS? = ""
    a folder of .npy files, one a clip (also CLASS/NAME.npy), a single .npy file, or one .npz of clips by name: raw
    coordinates in metres, (T, V, 3) or (M, T, V, 3); or poses of any form that data_gen.from_poses reads; may be
    left out with --labelled
--labelled FOLDER = ""
    labelled clips, CLASS/NAME.npy: trains a classifier on them, tests it by cross-validation, and keeps it as
    classifier.pth for later calls
--output FOLDER = runs/predictions  run folder; an earlier one in it is moved aside
--none SHARE:share = 0.05
    a clip is none of the classes where its distance to the training clips is above that which this share of
    held-out clips of known classes exceed; more calls more clips none, 0 calls no clip so
--skip-bad  leave out, and list, clips that cannot be read, instead of ending
--folds K:int>=2 = 5
    of the cross-validation of --labelled; as many as the smallest class has clips at most
--seed SEED:natural = 0  deals the labelled clips into folds; nothing else is drawn
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Says of each of your clips which class it is, with its probability, the three best classes, and 'none of them' where it "
        "is unlike everything that the classifier was trained on. The table is FOLDER/predictions.csv.",
        "With a classifier: python predict.py --pretrained runs/linear_ui_prmd_cross_subject_small/classifier.pth my_clips. From a "
        "few labelled clips of your own (labelled/CLASS/NAME.npy, two or more of each class): python predict.py --pretrained "
        "ENCODER my_clips --labelled labelled, where ENCODER is any checkpoint; the classifier is cross-validated first.",
    )
    what = "classifier.pth of a run folder of action_classification.py, or of an earlier call of this program; with --labelled "
    common.add_pretrained(p, "source", what + "any checkpoint that holds an encoder")
    add_flags(p, CLIPS)
    group(p, "what the clips are, where files do not say it", READS, INPUT_LAYOUT, source="the clips")
    g = group(p, "machine", "--batch-size N:positive_int = 64  clips encoded at once, and held in memory")
    add_flags(g, common.DEVICE, few="")
    return p


def parse_args(argv=None) -> argparse.Namespace:
    p = build_parser()
    args = p.parse_args(argv)
    if not args.input and not args.labelled:
        p.error("give clips to classify, or --labelled clips to train a classifier with")
    if not args.labelled and (args.stream or args.layout or args.persons):
        p.error("--stream, --layout and --persons are for --labelled; a classifier says its own, leave them out")
    return args
