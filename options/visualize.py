"""Flags of tools/visualize.py."""

import argparse

from options import common
from options.common import add_flags, group

SHOWN = """
source SOURCE
    what to draw: the name of a data set (clips), a checkpoint such as RUN/checkpoint_last.pth.tar (prediction,
    views, features, clips of its data set), or a run folder (curves)
--show {clips,prediction,views,features,curves}
    clips: prepared clips; prediction: masked, predicted and true clips; views: query, key, masked and mixed view of
    a training step; features: principal components and t-SNE, coloured by class; curves: of metrics.jsonl. Default:
    clips for a data set, prediction for a checkpoint, curves for a run folder
--output FILE
    file to write: .png, .pdf or .svg, or .gif or .mp4 for animations; default: the value of --show with .png
"""
CLIPS = """
--dataset NAME  data set; default: that of the checkpoint
--protocol NAME  protocol; default: that of the checkpoint on its data set, else cross_subject
--split {train,val}  default: val, which pretraining has not seen; train for the views
--clips N:positive_int = 2  number of clips to draw, of different classes if possible
--names CLIP+  draw the clips with these names, instead of random ones
--seed SEED:natural = 0  chooses the clips and what is hidden
--step N:natural = 0  training step whose views are drawn
"""
DRAWING = """
--poses N:positive_int = 10  poses in a strip, evenly spaced in time
--turn DEGREES:float>=-360<=360 = 30.0
    rotates bodies about the vertical axis: 0 shows normalised bodies from behind, 90 from the side; 20 to 60 shows
    depth
--fps X:float>0.0<=100.0 = 30.0
    frames a second of animations; 30 is the rate of a Kinect, less is slow motion
"""
FEATURES = """
--points N:positive_int = 1000  draw at most N clips, always the same
--[no-]tsne = on  also t-SNE, if scikit-learn is installed; slower than principal components
--perplexity X:positive = 30.0  perplexity of t-SNE, about the number of neighbours of a point; usually 5 to 50
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Draws clips of a data set, the input and the predictions of a pretrained model, its features, or the curves of a run.",
        "The ending of --output chooses the form: .png, .pdf and .svg are strips of poses, .gif and .mp4 are animations (.mp4 "
        "needs ffmpeg).",
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
