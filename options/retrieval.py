"""Flags of action_retrieval.py."""

import argparse

from options import backbones, common
from options.common import add_flags, group

DEFAULT_DATASET, DEFAULT_SEED = "ntu60", 42

FEATURES = """
--raw-joints
    baseline without an encoder: the feature is the centre crop, 64 frames of normalised coordinates, flattened
--features FILE = ""
    read features from a file of --save-features, with its data set and protocol, instead of encoding clips
--save-features
    save the features of both splits as features.npz in the run folder, to try other K without encoding again; 8 kB a
    clip at the usual width of 2048
"""
RETRIEVAL = """
--knn K:positive_int+ = 1
    numbers of neighbours that vote, one or several; papers use 1; larger is less sensitive to wrong labels
--recall K:positive_int+ = 1 5 10
    values of K for recall@K: the share of test clips that have a clip of their class among the K nearest
--[no-]map = on
    mean average precision over the ranked gallery; --no-map is faster, since the gallery need not be sorted
--memory MB:positive_int = 256
    working memory besides the features; test clips are compared in chunks that fit; more is rarely faster
"""
SEED = f"""
--seed SEED:natural+
    of the random encoder; default {DEFAULT_SEED}; several give mean and standard deviation; nothing else is random
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Retrieval: classifies every test clip by its nearest neighbours among the training clips, without training.",
        "The similarity is the cosine of the features. Features come from a checkpoint (--pretrained), from a random encoder "
        "(default), from the coordinates (--raw-joints), or from a saved file (--features).",
        first="--pretrained --dataset --protocol --data-root --output --knn --raw-joints --save-features --device --seed",
    )
    common.add_evaluation_data(p, DEFAULT_DATASET)
    g = group(p, "features", common.OTHER_DATA)
    common.add_encoder(g, "", ", else joint")
    add_flags(g, FEATURES)
    g = group(p, "retrieval", RETRIEVAL)
    common.add_output(g, "run folder: log and result.json; default: runs/retrieval_DATASET_PROTOCOL_ENCODER")
    backbones.add_random_encoder_group(p, every_pooling=True)
    add_flags(common.add_machine_group(p), SEED)
    return p


def parse_args(argv=None) -> argparse.Namespace:
    """Parsed and checked arguments; seed is a list."""
    p = build_parser()
    args = p.parse_args(argv)
    sources = [
        f"--{name.replace('_', '-')}" for name in ("pretrained", "raw_joints", "features") if getattr(args, name)
    ]
    if len(sources) > 1:
        p.error(f"{' and '.join(sources)} exclude each other; give one of them")
    if sources and args.seed is not None:
        p.error(f"--seed is for the random encoder, and {sources[0]} uses none; remove it")
    if args.features and (args.save_features or args.stream):
        p.error(f"{'--save-features' if args.save_features else '--stream'} has no effect with --features; remove it")
    if args.pool and (args.raw_joints or args.features):
        p.error(f"--pool is for an encoder, and {sources[0]} uses none; remove it")
    args.seed = args.seed or [DEFAULT_SEED]
    common.refuse_twice(p, args, "seed")
    if args.save_features and len(args.seed) > 1:
        p.error("--save-features saves the features of one encoder; give one --seed")
    return args
