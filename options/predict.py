"""Flags of predict.py."""

import argparse

from options import common
from options.common import natural, number, positive_int, share
from options.extract import add_encoder_flags, add_input_layout


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Says of each of your clips which class it is, with its probability, the three best classes, and 'none of them' where it "
        "is unlike everything that the classifier was trained on. The table is FOLDER/predictions.csv.",
        "With a classifier: python predict.py --pretrained runs/linear_ui_prmd_cross_subject/classifier.pth my_clips. From a few "
        "labelled clips of your own (labelled/CLASS/NAME.npy, two or more of each class): python predict.py --pretrained ENCODER "
        "my_clips --labelled labelled, where ENCODER is any pretrained checkpoint; the classifier is cross-validated first.",
    )
    what = "classifier.pth of a run folder of action_classification.py, or of an earlier call of this program; with --labelled "
    common.add_pretrained(p, "source", what + "any checkpoint that holds an encoder")
    p.add_argument(
        "input",
        nargs="?",
        default="",
        metavar="CLIPS",
        help="a folder of .npy files, one a clip (also CLASS/NAME.npy), a single .npy file, or one .npz of clips by name: raw "
        "coordinates in metres, (T, V, 3) or (M, T, V, 3); or poses of any form that data_gen.from_poses reads; may be left out "
        "with --labelled",
    )
    p.add_argument(
        "--labelled",
        default="",
        metavar="FOLDER",
        help="labelled clips, CLASS/NAME.npy: trains a classifier on them, tests it by cross-validation, and keeps it as "
        "classifier.pth for later calls",
    )
    p.add_argument(
        "--output", default="runs/predictions", metavar="FOLDER", help="run folder; an earlier one in it is moved aside"
    )
    p.add_argument(
        "--none",
        type=share,
        default=0.05,
        metavar="SHARE",
        help="a clip is none of the classes where its distance to the training clips is above that which this share of "
        "held-out clips of known classes exceed; more calls more clips none, 0 calls no clip so",
    )
    p.add_argument(
        "--skip-bad", action="store_true", help="leave out, and list, clips that cannot be read, instead of ending"
    )
    p.add_argument(
        "--folds",
        type=number(int, low=2),
        default=5,
        metavar="K",
        help="of the cross-validation of --labelled; as many as the smallest class has clips at most",
    )
    p.add_argument("--seed", type=natural, default=0, help="deals the labelled clips into folds; nothing else is drawn")
    g = p.add_argument_group("what the clips are, where files do not say it")
    add_encoder_flags(g)
    add_input_layout(g, "the clips")
    g = p.add_argument_group("machine")
    g.add_argument(
        "--batch-size", type=positive_int, default=64, metavar="N", help="clips encoded at once, and held in memory"
    )
    g.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto = cuda where there is one")
    g.add_argument("--threads", type=positive_int, default=None, help="CPU threads; default: as torch chooses")
    return p


def parse_args(argv=None) -> argparse.Namespace:
    p = build_parser()
    args = p.parse_args(argv)
    if not args.input and not args.labelled:
        p.error("give clips to classify, or --labelled clips to train a classifier with")
    if not args.labelled and (args.stream or args.layout or args.persons):
        p.error("--stream, --layout and --persons are for --labelled; a classifier says its own, leave them out")
    return args
