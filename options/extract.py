"""Flags of tools/extract_features.py, some of them shared with predict.py and tools/live_demo.py."""

import argparse

from options import common
from options.common import group

READS = """
--stream {$STREAMS}
    stream that the encoder was trained on, if the checkpoint does not say it (as released ones); default: that of
    the checkpoint, else joint. Input clips are always joints
--layout NAME
    joint layout of the encoder, such as kinect_v2_25, kinect_v1_20, sbu_15, smpl_24; default: that of the
    checkpoint, else the one that fits the encoder's input
--persons M:positive_int
    persons in a frame of the encoder; default: that of the checkpoint, else the number that fits; clips may have
    fewer
--normalise STEPS = all
    normalisation of raw coordinates, the same as of the pretraining data: all (usual), none, or some of
    fill,centre,spine,shoulders, separated by commas
"""  # of an encoder, if its checkpoint does not say it
INPUT_LAYOUT = """
--input-layout NAME
    joint layout of $source, such as mediapipe_33 or coco_17, if it is not the encoder's: poses are converted, and
    the joints that had to be estimated are printed
"""
ENCODER = """
--pretrained PATH!
    checkpoint: of this project, of the original release, of a related method with the encoder under encoder_q, or a
    bare encoder
"""
CLIPS = """
--input PATH = ""
    folder or file of clips: .npy files (or one .npz) in the encoder's layout, raw coordinates in metres, y up, (T,
    V, 3), (T, V, 3, M) or (M, T, V, 3), or with 2 in place of 3 for 2-D clips, 0 for joints that are not detected;
    or poses in any form and layout that data_gen.from_poses reads, which are repaired and converted
--strict
    stop at the first clip of --input that is zero, does not move, does not fit a person in metres, or is upside
    down; without it such clips get a warning and are encoded
--max-unpacked GB:positive = 1.0
    largest memory for a clip from a compressed file: a file of a few MB can hold many GB of zeros; raise it if your
    clips are really larger
--dataset NAME = ""
    a prepared data set (a folder under --data-root) instead of --input; its coordinates are already normalised;
    class numbers are written to labels.npy
"""
PREPARED = """
--protocol NAME  with --dataset: $protocol
--split {train,val} = val  with --dataset: the split to encode
"""
OUTPUT = """
--output FOLDER!  a folder that does not exist or is empty
--frames
    also write frames/NAME.npy (T, D) for each clip, at its original frame rate; 8 kB a frame at the usual width of
    2048
--batch-size N:positive_int = 64
    clips encoded at once, and held in memory; more is rarely faster on a CPU; 512 is faster on a GPU
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Computes the features of a folder of clips, or of a prepared data set: features.npy (N, D), names.txt and, with "
        "--frames, the features of every frame.",
        "The output folder is created when it is complete, or not at all. In Python: engine/features.py.",
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
        p.error("--normalise is for raw clips; a prepared data set is already normalised; remove it")
    if args.dataset and args.input_layout:
        p.error("--input-layout is for raw clips; a prepared data set stores its layout; remove it")
    return args
