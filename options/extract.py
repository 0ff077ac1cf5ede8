"""Flags of tools/extract_features.py, and those that all programs share which load an encoder by itself."""

import argparse

from options import common
from options.common import group

READS = """
--stream {$STREAMS}
    what the encoder was trained on, for files that do not say it (released ones); default: that of the file, else
    joint. Clips are joints in any case
--layout NAME
    joint layout, such as kinect_v2_25, kinect_v1_20, sbu_15, smpl_24; default: that of the file, else the one whose
    joints make up a frame of the encoder
--persons M:positive_int
    persons in a frame of the encoder; default: as the file says, else what fits; clips may have fewer
--normalise STEPS = all
    what is done to raw coordinates, as the data of the pretraining had been: all (usual), none, or some of
    fill,centre,spine,shoulders with commas between
"""  # of an encoder, where its file does not say it
INPUT_LAYOUT = """
--input-layout NAME
    joint layout of $source where it is another than the encoder's, such as mediapipe_33 or coco_17: poses are
    converted on the way, and which joints had to be made is printed
"""
ENCODER = """
--pretrained PATH!
    checkpoint: ours, a released one, a relative's with the encoder under encoder_q, or a bare encoder
"""
CLIPS = """
--input PATH = ""
    a folder or file of clips: .npy files (or one .npz) in the encoder's layout, raw coordinates in metres, (T, V,
    3), (T, V, 3, M) or (M, T, V, 3), 2 in place of 3 for clips of a picture's plane, y up; or poses of any other
    form or layout that data_gen.from_poses reads, which are mended and converted on the way; zeros for what is not
    seen
--strict
    end at the first clip of --input that is zero, does not move, is no person in metres, or stands upside down;
    without it they are warned of and get features
--max-unpacked GB:positive = 1.0
    memory that one clip may need where its file is smaller: a compressed archive of a few MB can hold many GB of
    zeros. Raise it when a clip of yours really is so large
--dataset NAME = ""
    instead of --input: a prepared data set (a folder under --data-root); its coordinates are normalised already.
    Class numbers go to labels.npy
"""
PREPARED = """
--protocol NAME  of --dataset: $protocol
--split {train,val} = val  of --dataset: which clips
"""
OUTPUT = """
--output FOLDER!  a folder that is not there yet, or empty
--frames
    also frames/NAME.npy (T, D) for each clip, at the clip's own frame rate; 8 kB a frame at the usual width of 2048
--batch-size N:positive_int = 64
    clips encoded at once, and held in memory; more is seldom faster on a CPU, 512 is on a GPU
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Writes the features of a folder of clips, or of a prepared data set: features.npy (N, D) and names.txt, and with "
        "--frames the features of every frame.",
        "The output folder appears when all of it is there, or not at all. In Python: engine/features.py.",
        program="tools.extract_features",
        first="--pretrained --input --output --frames --dataset --split --data-root --layout --batch-size --device",
    )
    group(p, "encoder", ENCODER, READS)
    words = {"source": "--input", "protocol": common.protocol_help(None)}
    group(p, "clips", CLIPS, INPUT_LAYOUT, common.DATA_ROOT, PREPARED, **words)
    group(p, "output", OUTPUT, common.DEVICE, few="")
    return p


def parse_args(argv=None) -> argparse.Namespace:
    p = build_parser()
    args = p.parse_args(argv)
    if bool(args.input) == bool(args.dataset):
        p.error("give either --input (raw clips) or --dataset (a prepared data set)")
    if args.dataset and args.normalise != "all":
        p.error("--normalise is for raw clips; the coordinates of a prepared data set stay as they are, leave it out")
    if args.dataset and args.input_layout:
        p.error("--input-layout is for raw clips; a prepared data set says its layout itself, leave it out")
    return args
