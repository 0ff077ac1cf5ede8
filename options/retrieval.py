"""Flags of action_retrieval.py."""

import argparse

from options import backbones, common
from options.common import add_flags, group

DEFAULT_DATASET, DEFAULT_SEED = "ntu60", 42

FEATURES = """
--raw-joints
    no encoder: the feature is the centre crop itself, 64 frames of normalised coordinates, flattened; what an
    encoder has to beat
--features FILE = ""
    a file that --save-features wrote: nothing is encoded and no data set is opened; data set and protocol are the
    file's
--save-features
    keep the features of both splits as features.npz in the run folder, to try other k without encoding again; 8 kB
    a clip at the usual width of 2048
"""
RETRIEVAL = """
--knn K:positive_int+ = 1
    numbers of neighbours that vote, one or several; tables give 1; a larger K smooths over noisy labels
--recall K:positive_int+ = 1 5 10
    cut-offs of recall@K: the share of test clips with a clip of their class among the K nearest
--[no-]map = on
    mean average precision over the whole ranked gallery; it sorts the gallery for every test clip, so --no-map is
    quicker
--memory MB:positive_int = 256
    working memory beside the features; test clips are compared in chunks that fit; more is seldom faster
"""
SEED = f"""
--seed SEED:natural+
    of the random encoder, {DEFAULT_SEED} if not given; several give mean and standard deviation; nothing else here is
    left to chance
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Retrieval without training: every test clip is classified by its nearest neighbours among the training clips.",
        "Similarity is the cosine of the features. Features come from a checkpoint (--pretrained), from a random encoder "
        "(nothing given), from the coordinates themselves (--raw-joints), or from a file saved before (--features).",
        first="--pretrained --dataset --protocol --data-root --output --knn --raw-joints --save-features --device --seed",
    )
    common.add_evaluation_data(p, DEFAULT_DATASET)
    g = group(p, "features", common.OTHER_DATA)
    common.add_encoder(g, "", "default: that of the checkpoint, without one joint")
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
        p.error(f"{' and '.join(sources)} exclude each other: features come from one place")
    if sources and args.seed is not None:
        p.error(f"--seed is of the random encoder; leave it out with {sources[0]}, where nothing is left to chance")
    if args.features and (args.save_features or args.stream):
        p.error(f"{'--save-features' if args.save_features else '--stream'} has no effect on --features; leave it out")
    if args.pool and (args.raw_joints or args.features):
        p.error("--pool is of an encoder; leave it out where none is run")
    args.seed = args.seed or [DEFAULT_SEED]
    common.refuse_twice(p, args, "seed")
    if args.save_features and len(args.seed) > 1:
        p.error("--save-features keeps the features of one encoder; give one --seed")
    return args
