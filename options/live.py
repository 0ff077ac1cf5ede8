"""Flags of tools/live_demo.py."""

import argparse

from options import common
from options.common import add_flags, group
from options.extract import INPUT_LAYOUT

NORMALISE = """
--normalise STEPS = all
    normalisation of the coordinates from --stdin, the same as of the pretraining data: all (usual), none, or some of
    centre,spine,shoulders, separated by commas
"""
STREAM = """
--dataset NAME = ""  a prepared data set whose test clips simulate the sensor, one after another
--protocol NAME = cross_subject  with --dataset: its protocol
--clips N:positive_int = 5  with --dataset: number of clips, chosen by --seed
--seed SEED:natural = 0  chooses the clips
--stdin {json,csv}
    read the stream from standard input, instead of --dataset: a frame in each line, raw coordinates in metres. json:
    nested lists (V, 3) or (M, V, 3), or with 2 in place of 3, or the output of a pose estimator (MediaPipe's
    landmarks, OpenPose's people, joints by name), whose layout, units and axes are detected; csv: x,y,z (or x,y) of
    each joint, person after person. An empty line begins a new sequence
"""
ANSWER = """
--none SHARE:share = 0.05
    report 'none of them' if the distance to the training clips is above a threshold, which this share of held-out
    clips exceeds (see predict.py); 0 = never
--segments
    split the stream at rests: each movement between two rests is an action with its start and end; without it a
    whole sequence is one action
--rest-speed M/S:positive = 0.12
    with --segments: mean speed of the joints, in metres a second, below which a body rests; higher for noisy sensors
--rate HZ:non_negative = 30.0
    frames a second at which --dataset is played (0 = as fast as possible), and with which the time for a frame is
    compared; 30 is the rate of a Kinect
--strict
    stop if the first second of a sequence does not move, does not fit a person in metres, or is upside down; without
    it, warn
"""
PICTURE = """
--film FILE = ""
    write a .gif (or .mp4) of the moving skeleton with the class so far, 'none of them', and the start and end of
    each action: ten pictures a second, of the last minute of the stream; needs no screen
--window  show the same in a window during the stream; needs a screen
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Classifies a stream of skeletons frame by frame, as a sensor sends them, and prints the most probable class so far and "
        "the time that each frame takes.",
        "The encoder keeps its state from frame to frame, so that the time for a frame does not grow with the stream. This needs "
        "a causal encoder: gru, or a transformer pretrained with --causal.",
        program="tools.live_demo",
        first="--pretrained --dataset --stdin --data-root --clips --rate --segments --film --window --device",
    )
    g = group(p, "classifier")
    what = "classifier.pth of a run folder of action_classification.py (linear evaluation or fine-tuning)"
    common.add_pretrained(g, "classifier", what)
    add_flags(g, NORMALISE)
    group(p, "stream", common.DATA_ROOT, STREAM, INPUT_LAYOUT, ANSWER, source="--stdin")
    group(p, "picture (needs matplotlib)", PICTURE)
    group(p, "machine", common.DEVICE, few="; 1 is often fastest for a small encoder")
    return p


def parse_args(argv=None) -> argparse.Namespace:
    p = build_parser()
    args = p.parse_args(argv)
    if bool(args.dataset) == bool(args.stdin):
        p.error("give either --dataset (test clips simulate the sensor) or --stdin json (or csv)")
    if args.dataset and args.input_layout:
        p.error("--input-layout is for --stdin; a prepared data set stores its layout; remove it")
    return args
