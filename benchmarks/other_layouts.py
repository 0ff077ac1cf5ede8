"""UI-PRMD as other estimators would have seen it, to measure what a change of joint layout or of dimensions costs:

    python -m benchmarks.other_layouts --data-root data

makes ui_prmd_LAYOUT and ui_prmd_quality_LAYOUT for every layout asked for, and with `flat` behind the name those of the picture's
plane, from the clips that come with the program. Joints that Kinect v2 lacks are made (utils.convert_layout), so that these sets
measure what is lost by joints that the other layout does not have and by those that are made back from its own; they do not
measure how well another estimator sees. RESULTS.md has figures.
"""

import argparse
import sys

import numpy as np

from data_gen.build import Stored, build_dataset
from data_gen.from_files import Source, write_description
from data_gen.normalise import PLANAR_STEPS, STEPS
from data_gen.ui_prmd import NAMES, labels_of, load_clip, protocols_of, read_packed
from engine.transfer import flatten
from options.datasets import DATASETS
from utils.errors import run
from utils.skeleton import KINECT_V2, LAYOUTS

DEFAULT = ("mediapipe_33", "azure_kinect_32", "smpl_22", "coco_17", "coco_17 flat")


def seen_flat(name: str) -> np.ndarray:
    """A clip as a picture shows it, (3, T, 25, 1) with z = 0."""
    return flatten(load_clip(name), upright=False)


def make(data_root, dataset: str, layout: str, flat: bool, clips: int | None, workers: int | None) -> str:
    """Prepares one data set; returns its name. clips: at most so many of each split, None = all."""
    packed, row = read_packed(), DATASETS[dataset]
    splits = protocols_of(packed, dataset, packed.names)["xsub"]
    splits = {split: names[:: -(-len(names) // (clips or len(names)))] for split, names in splits.items()}
    name, dimensions = f"{dataset}_{layout}{'_flat' * flat}", 2 if flat else 3
    target = Source("", {"cross_subject": {}}, {}, row.classes, row.persons, layout, dimensions=dimensions).target(
        data_root, name
    )
    steps = PLANAR_STEPS if flat else STEPS
    stored = Stored(target.layout, target.persons, steps=steps, came_as=KINECT_V2, dimensions=dimensions)
    load, source = seen_flat if flat else load_clip, f"UI-PRMD's clips in {layout}{', projected' * flat}"
    labels = labels_of(packed, dataset)
    build_dataset(target.folder, stored, {"xsub": splits}, labels, load, source=source, workers=workers)
    write_description(target)
    return name


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default="data", help="folder of all data sets")
    parser.add_argument(
        "--layouts",
        nargs="+",
        default=DEFAULT,
        metavar="LAYOUT",
        help=f"some of {', '.join(LAYOUTS)}, also 'LAYOUT flat'",
    )
    parser.add_argument("--clips", type=int, help="at most so many of each split, for a try (default: all)")
    parser.add_argument("--workers", type=int, help="processes (default: all cores)")
    args = parser.parse_args(argv)
    for words in args.layouts:
        layout, _, flat = words.partition(" ")
        for dataset in NAMES:
            print(make(args.data_root, dataset, layout, flat == "flat", args.clips, args.workers))


if __name__ == "__main__":
    run(main, sys.argv[1:])
