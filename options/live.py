"""Flags of tools/live_demo.py."""

import argparse

from options import common
from options.common import natural, non_negative, positive, positive_int, share
from options.extract import add_input_layout


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Classifies a stream of skeletons frame by frame, as a sensor sends them: the most probable class so far, and what each "
        "frame costs.",
        "The encoder keeps its state from frame to frame, so that a frame costs the same however long the stream. It needs one "
        "that sees no future: gru, or a transformer pretrained with --causal.",
        program="tools.live_demo",
    )
    g = p.add_argument_group("classifier")
    what = "classifier.pth of a run folder of action_classification.py (linear evaluation or fine-tuning)"
    common.add_pretrained(g, "classifier", what)
    g.add_argument(
        "--normalise",
        default="all",
        metavar="STEPS",
        help="what is done to the coordinates of --stdin: all (usual), none, or some of centre,spine,shoulders with commas "
        "between; as the data of the pretraining had been",
    )
    g = p.add_argument_group("stream")
    g.add_argument(
        "--dataset",
        default="",
        metavar="NAME",
        help="a prepared data set whose test clips play the sensor, one after the other",
    )
    g.add_argument("--data-root", default="data", help="folder that holds the data sets' folders")
    g.add_argument("--protocol", default="cross_subject", help="of --dataset")
    g.add_argument("--clips", type=positive_int, default=5, metavar="N", help="clips of --dataset, drawn by --seed")
    g.add_argument("--seed", type=natural, default=0, help="chooses the clips")
    g.add_argument(
        "--stdin",
        choices=("json", "csv"),
        default=None,
        help="instead of --dataset: a frame a line on standard input, raw coordinates in metres. json: nested lists (V, 3) or "
        "(M, V, 3), or with 2 in place of 3, or what a pose estimator gives (MediaPipe's landmarks, OpenPose's people, joints "
        "by name), whose layout, units and axes are found; csv: x,y,z (or x,y) of each joint, person after person. An empty "
        "line begins a new sequence",
    )
    add_input_layout(g, "--stdin")
    g.add_argument(
        "--none",
        type=share,
        default=0.05,
        metavar="SHARE",
        help="'none of them' is shown where the distance to the training clips is above that which this share of held-out clips "
        "exceed (see predict.py); 0 never shows it",
    )
    g.add_argument(
        "--segments",
        action="store_true",
        help="each movement between two rests is an action of its own, with its start and end; without it a whole sequence is one",
    )
    g.add_argument(
        "--rest-speed",
        type=positive,
        default=0.12,
        metavar="M/S",
        help="with --segments: a body rests while its joints move more slowly than this, in metres a second on average; higher "
        "for noisy sensors",
    )
    g.add_argument(
        "--rate",
        type=non_negative,
        default=30.0,
        metavar="HZ",
        help="frames a second at which --dataset plays, and against which the cost of a frame is held; 30 is a Kinect; 0 plays as "
        "fast as it goes",
    )
    g.add_argument(
        "--strict",
        action="store_true",
        help="end where the first second of a sequence does not move, is no person in metres, or stands upside down; without "
        "it, that is a warning",
    )
    g = p.add_argument_group("picture (needs matplotlib)")
    g.add_argument(
        "--film",
        default="",
        metavar="FILE",
        help="a .gif (or .mp4) of the moving skeleton with the class so far, 'none of them', and the start and end of each action: "
        "ten pictures a second, the last minute of the stream; needs no screen",
    )
    g.add_argument("--window", action="store_true", help="the same in a window while the stream runs; needs a screen")
    g = p.add_argument_group("machine")
    g.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto = cuda where there is one")
    g.add_argument(
        "--threads",
        type=positive_int,
        default=None,
        help="CPU threads; default: as torch chooses; 1 is often quickest for a small encoder",
    )
    p.first = tuple(
        "--pretrained --dataset --stdin --data-root --clips --rate --segments --film --window --device".split()
    )
    return p


def parse_args(argv=None) -> argparse.Namespace:
    p = build_parser()
    args = p.parse_args(argv)
    if bool(args.dataset) == bool(args.stdin):
        p.error("give either --dataset (test clips play the sensor) or --stdin json (or csv)")
    if args.dataset and args.input_layout:
        p.error("--input-layout is for --stdin; a prepared data set says its layout itself, leave it out")
    return args
