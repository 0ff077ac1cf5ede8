"""Flags of tools/visualize.py."""

import argparse

from options import common
from options.common import add_flags, group

SHOWN = """
source SOURCE
    what to look at: a data set's name (clips), a checkpoint such as RUN/checkpoint_last.pth.tar (prediction, views,
    features, clips of its data set), or a run folder (curves)
--show {clips,prediction,views,features,curves}
    clips: as they were prepared; prediction: masked, predicted and true clips; views: query, key, masked and mixed
    view of a training step; features: points by class on principal components and by t-SNE; curves: of
    metrics.jsonl. Default: clips for a data set, prediction for a checkpoint, curves for a run folder
--output FILE
    file to write, .png, .pdf or .svg, for moving figures .gif or .mp4; default: the word of --show with .png
"""
CLIPS = """
--dataset NAME  data set; default: that of the checkpoint
--protocol NAME  protocol; default: that of the checkpoint on its data set, else cross_subject
--split {train,val}  default: val, which pretraining has not seen; train for the views
--clips N:positive_int = 2  clips to draw, of different classes while there are any
--names CLIP+  draw these clips, by name, not N by chance
--seed SEED:natural = 0  chooses the clips and what is hidden
--step N:natural = 0  training step whose views are shown
"""
DRAWING = """
--poses N:positive_int = 10  poses in a strip, evenly spaced in time
--turn DEGREES:float>=-360<=360 = 30.0
    turns bodies about the upright axis: 0 shows normalised bodies from behind, 90 from the side; 20 to 60 shows
    depth
--fps X:float>0.0<=100.0 = 30.0
    frames a second of moving figures; 30 is a Kinect's rate, less is slower
"""
FEATURES = """
--points N:positive_int = 1000  at most N clips, the same ones every time
--[no-]tsne = on  also t-SNE, where scikit-learn is installed; slower than the principal components
--perplexity X:positive = 30.0  of t-SNE, about the number of neighbours that a point keeps; usually 5 to 50
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Draws clips of a data set, what a pretrained model sees and predicts, its features, or a run's curves.",
        "The ending of --output says how: .png, .pdf and .svg are strips of poses, .gif and .mp4 move (.mp4 needs ffmpeg).",
        program="tools.visualize",
        first="--show --output --data-root --dataset --protocol --split --clips --names --poses --seed",
    )
    add_flags(p, SHOWN)
    group(p, "which clips", common.DATA_ROOT, CLIPS)
    group(p, "how they are drawn", DRAWING)
    group(p, "features", FEATURES)
    return p


def parse_args(argv=None) -> argparse.Namespace:
    return build_parser().parse_args(argv)
