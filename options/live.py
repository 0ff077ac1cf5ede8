"""Flags of tools/live_demo.py."""

import argparse

from options import common
from options.common import add_flags, group
from options.extract import INPUT_LAYOUT

NORMALISE = """
--normalise STEPS = all
    what is done to the coordinates of --stdin: all (usual), none, or some of centre,spine,shoulders with commas
    between; as the data of the pretraining had been
"""
STREAM = """
--dataset NAME = ""  a prepared data set whose test clips play the sensor, one after the other
--protocol NAME = cross_subject  of --dataset
--clips N:positive_int = 5  clips of --dataset, drawn by --seed
--seed SEED:natural = 0  chooses the clips
--stdin {json,csv}
    instead of --dataset: a frame a line on standard input, raw coordinates in metres. json: nested lists (V, 3) or
    (M, V, 3), or with 2 in place of 3, or what a pose estimator gives (MediaPipe's landmarks, OpenPose's people,
    joints by name), whose layout, units and axes are found; csv: x,y,z (or x,y) of each joint, person after person.
    An empty line begins a new sequence
"""
ANSWER = """
--none SHARE:share = 0.05
    'none of them' is shown where the distance to the training clips is above that which this share of held-out
    clips exceed (see predict.py); 0 never shows it
--segments
    each movement between two rests is an action of its own, with its start and end; without it a whole sequence is
    one
--rest-speed M/S:positive = 0.12
    with --segments: a body rests while its joints move more slowly than this, in metres a second on average; higher
    for noisy sensors
--rate HZ:non_negative = 30.0
    frames a second at which --dataset plays, and against which the cost of a frame is held; 30 is a Kinect; 0 plays
    as fast as it goes
--strict
    end where the first second of a sequence does not move, is no person in metres, or stands upside down; without
    it, that is a warning
"""
PICTURE = """
--film FILE = ""
    a .gif (or .mp4) of the moving skeleton with the class so far, 'none of them', and the start and end of each
    action: ten pictures a second, the last minute of the stream; needs no screen
--window  the same in a window while the stream runs; needs a screen
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Classifies a stream of skeletons frame by frame, as a sensor sends them: the most probable class so far, and what each "
        "frame costs.",
        "The encoder keeps its state from frame to frame, so that a frame costs the same however long the stream. It needs one "
        "that sees no future: gru, or a transformer pretrained with --causal.",
        program="tools.live_demo",
        first="--pretrained --dataset --stdin --data-root --clips --rate --segments --film --window --device",
    )
    g = group(p, "classifier")
    what = "classifier.pth of a run folder of action_classification.py (linear evaluation or fine-tuning)"
    common.add_pretrained(g, "classifier", what)
    add_flags(g, NORMALISE)
    group(p, "stream", common.DATA_ROOT, STREAM, INPUT_LAYOUT, ANSWER, source="--stdin")
    group(p, "picture (needs matplotlib)", PICTURE)
    group(p, "machine", common.DEVICE, few="; 1 is often quickest for a small encoder")
    return p


def parse_args(argv=None) -> argparse.Namespace:
    p = build_parser()
    args = p.parse_args(argv)
    if bool(args.dataset) == bool(args.stdin):
        p.error("give either --dataset (test clips play the sensor) or --stdin json (or csv)")
    if args.dataset and args.input_layout:
        p.error("--input-layout is for --stdin; a prepared data set says its layout itself, leave it out")
    return args
