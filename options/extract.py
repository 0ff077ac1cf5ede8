"""Flags of tools/extract_features.py, and those that all programs share which load an encoder by itself."""

import argparse

from options import common
from options.common import positive_int


def add_encoder_flags(g) -> None:
    """--stream, --layout, --persons, --normalise: what an encoder reads, where its file does not say it."""
    g.add_argument(
        "--stream",
        choices=common.STREAMS,
        default=None,
        help="what the encoder was trained on, for files that do not say it (released ones); default: that of the file, else "
        "joint. Clips are joints in any case",
    )
    g.add_argument(
        "--layout",
        default=None,
        metavar="NAME",
        help="joint layout, such as kinect_v2_25, kinect_v1_20, sbu_15, smpl_24; default: that of the file, else the one "
        "whose joints make up a frame of the encoder",
    )
    g.add_argument(
        "--persons",
        type=positive_int,
        default=None,
        metavar="M",
        help="persons in a frame of the encoder; default: as the file says, else what fits; clips may have fewer",
    )
    g.add_argument(
        "--normalise",
        default="all",
        metavar="STEPS",
        help="what is done to raw coordinates, as the data of the pretraining had been: all (usual), none, or some of "
        "fill,centre,spine,shoulders with commas between",
    )


def add_input_layout(g, source: str) -> None:
    g.add_argument(
        "--input-layout",
        default=None,
        metavar="NAME",
        help=f"joint layout of {source} where it is another than the encoder's, such as mediapipe_33 or coco_17: poses are "
        "converted on the way, and which joints had to be made is printed",
    )


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Writes the features of a folder of clips, or of a prepared data set: features.npy (N, D) and names.txt, and with "
        "--frames the features of every frame.",
        "The output folder appears when all of it is there, or not at all. In Python: engine/features.py.",
        program="tools.extract_features",
    )
    g = p.add_argument_group("encoder")
    g.add_argument(
        "--pretrained",
        required=True,
        metavar="PATH",
        help="checkpoint: ours, a released one, a relative's with the encoder under encoder_q, or a bare encoder",
    )
    add_encoder_flags(g)
    g = p.add_argument_group("clips")
    g.add_argument(
        "--input",
        default="",
        metavar="PATH",
        help="a folder or file of clips: .npy files (or one .npz) in the encoder's layout, raw coordinates in metres, (T, V, 3), "
        "(T, V, 3, M) or (M, T, V, 3), 2 in place of 3 for clips of a picture's plane, y up; or poses of any other form or layout "
        "that data_gen.from_poses reads, which are mended and converted on the way; zeros for what is not seen",
    )
    g.add_argument(
        "--strict",
        action="store_true",
        help="end at the first clip of --input that is zero, does not move, is no person in metres, or stands upside down; "
        "without it they are warned of and get features",
    )
    g.add_argument(
        "--max-unpacked",
        type=common.positive,
        default=1.0,
        metavar="GB",
        help="memory that one clip may need where its file is smaller: a compressed archive of a few MB can hold many GB of "
        "zeros. Raise it when a clip of yours really is so large",
    )
    g.add_argument(
        "--dataset",
        default="",
        metavar="NAME",
        help="instead of --input: a prepared data set (a folder under --data-root); its coordinates are normalised already. "
        "Class numbers go to labels.npy",
    )
    add_input_layout(g, "--input")
    g.add_argument("--data-root", default="data", help="folder that holds the data sets' folders")
    g.add_argument("--protocol", default=None, help=f"of --dataset: {common.protocol_help(None)}")
    g.add_argument("--split", choices=("train", "val"), default="val", help="of --dataset: which clips")
    g = p.add_argument_group("output")
    g.add_argument("--output", required=True, metavar="FOLDER", help="a folder that is not there yet, or empty")
    g.add_argument(
        "--frames",
        action="store_true",
        help="also frames/NAME.npy (T, D) for each clip, at the clip's own frame rate; 8 kB a frame at the usual width of 2048",
    )
    g.add_argument(
        "--batch-size",
        type=positive_int,
        default=64,
        metavar="N",
        help="clips encoded at once, and held in memory; more is seldom faster on a CPU, 512 is on a GPU",
    )
    g.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto = cuda where there is one")
    g.add_argument("--threads", type=positive_int, default=None, help="CPU threads; default: as torch chooses")
    p.first = tuple(
        "--pretrained --input --output --frames --dataset --split --data-root --layout --batch-size --device".split()
    )
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
