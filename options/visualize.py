"""Flags of tools/visualize.py."""

import argparse

from options import common
from options.common import natural, number, positive, positive_int

SHOWS = ("clips", "prediction", "views", "features", "curves")


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Draws clips of a data set, what a pretrained model sees and predicts, its features, or a run's curves.",
        "The ending of --output says how: .png, .pdf and .svg are strips of poses, .gif and .mp4 move (.mp4 needs ffmpeg).",
        program="tools.visualize",
    )
    p.add_argument(
        "source",
        help="what to look at: a data set's name (clips), a checkpoint such as RUN/checkpoint_last.pth.tar (prediction, "
        "views, features, clips of its data set), or a run folder (curves)",
    )
    p.add_argument(
        "--show",
        choices=SHOWS,
        default=None,
        help="clips: as they were prepared; prediction: masked, predicted and true clips; views: query, key, masked and "
        "mixed view of a training step; features: points by class on principal components and by t-SNE; curves: of "
        "metrics.jsonl. Default: clips for a data set, prediction for a checkpoint, curves for a run folder",
    )
    p.add_argument(
        "--output",
        default=None,
        metavar="FILE",
        help="file to write, .png, .pdf or .svg, for moving figures .gif or .mp4; default: the word of --show with .png",
    )
    g = p.add_argument_group("which clips")
    g.add_argument("--data-root", default="data", help="folder that holds the data sets' folders")
    g.add_argument("--dataset", default=None, metavar="NAME", help="data set; default: that of the checkpoint")
    g.add_argument(
        "--protocol", default=None, help="protocol; default: that of the checkpoint on its data set, else cross_subject"
    )
    g.add_argument(
        "--split",
        choices=("train", "val"),
        default=None,
        help="default: val, which pretraining has not seen; train for the views",
    )
    g.add_argument(
        "--clips",
        type=positive_int,
        default=2,
        metavar="N",
        help="clips to draw, of different classes while there are any",
    )
    g.add_argument(
        "--names", nargs="+", default=None, metavar="CLIP", help="draw these clips, by name, not N by chance"
    )
    g.add_argument("--seed", type=natural, default=0, help="chooses the clips and what is hidden")
    g.add_argument("--step", type=natural, default=0, metavar="N", help="training step whose views are shown")
    g = p.add_argument_group("how they are drawn")
    g.add_argument(
        "--poses", type=positive_int, default=10, metavar="N", help="poses in a strip, evenly spaced in time"
    )
    g.add_argument(
        "--turn",
        type=number(float, low=-360, high=360),
        default=30.0,
        metavar="DEGREES",
        help="turns bodies about the upright axis: 0 shows normalised bodies from behind, 90 from the side; 20 to 60 shows "
        "depth",
    )
    g.add_argument(
        "--fps",
        type=number(float, above=0.0, high=100.0),
        default=30.0,
        help="frames a second of moving figures; 30 is a Kinect's rate, less is slower",
    )
    g = p.add_argument_group("features")
    g.add_argument(
        "--points", type=positive_int, default=1000, metavar="N", help="at most N clips, the same ones every time"
    )
    g.add_argument(
        "--tsne",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="also t-SNE, where scikit-learn is installed; slower than the principal components",
    )
    g.add_argument(
        "--perplexity",
        type=positive,
        default=30.0,
        help="of t-SNE, about the number of neighbours that a point keeps; usually 5 to 50",
    )
    p.first = tuple("--show --output --data-root --dataset --protocol --split --clips --names --poses --seed".split())
    return p


def parse_args(argv=None) -> argparse.Namespace:
    return build_parser().parse_args(argv)
