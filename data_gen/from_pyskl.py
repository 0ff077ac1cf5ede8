"""MMAction2 / pyskl 3-D pickles to prepared folders: `python -m data_gen.from_pyskl ntu60_3danno.pkl --name ntu60`.

The file is a pickle of a dict: `split` maps names such as xsub_train and xsub_val to lists of clip names, `annotations`
is a list of dicts with frame_dir (the clip's name), label (from 0), keypoint (M, T, V, 3) float16 or float32 in metres,
and total_frames. Coordinates are not normalised there; they are here. One prepared protocol folder is written for each
pair of splits: xsub_train and xsub_val become xsub.

Memory: a pickle cannot be read in parts, so the file must fit into memory once (about its own size); its clips are then
moved to a temporary file of that size, let go one by one, and read from there by all processes. Pickles are read
without running anything they contain.
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np

from data_gen.build import building_folder
from data_gen.from_files import (
    PROTOCOL_FOLDERS,
    PackedClips,
    add_common_flags,
    add_labels_flag,
    add_layout_flag,
    add_unpacked_flag,
    build_flags,
    build_target,
    class_number,
    from_zero,
    make_target,
    number_names,
    own_flags,
    reader_parser,
    say_what_was_done,
    texts_of_names,
    warn_of_empty_classes,
)
from options.datasets import DATASETS
from utils.errors import UserError, run
from utils.files import MAX_UNPACKED, load_pickle

_SPLIT = re.compile(r"(?P<protocol>.*?)[_-]?(?P<part>train|val|test)(?P<fold>\d*)")
_LONG_NAMES = {folder: protocol for protocol, folder in PROTOCOL_FOLDERS.items()} | {"xsetup": "cross_setup"}


def read_file(path, limit: int = MAX_UNPACKED) -> tuple[dict[str, list[str]], list[dict]]:
    """(split, annotations) of the pickle; UserError when it is another kind of file. limit: see utils.files."""
    content = load_pickle(path, limit)
    if not (isinstance(content, dict) and isinstance(content.get("split"), dict)):
        held = f" of {', '.join(map(str, list(content)[:5]))}"[:200] if isinstance(content, dict) else ""
        raise UserError(
            f"{path}: expected a pickle of a dict with 'split' and 'annotations' (such as ntu60_3danno.pkl), found "
            f"{type(content).__name__}{held}"
        )
    annotations = content.get("annotations")
    if not isinstance(annotations, list) or not all(isinstance(entry, dict) for entry in annotations):
        raise UserError(f"{path}: 'annotations' must be a list of dicts with frame_dir, label and keypoint")
    splits = {}
    for name, clips in content["split"].items():
        if not isinstance(clips, (list, tuple, np.ndarray)) or not all(isinstance(clip, str) for clip in clips):
            raise UserError(f"{path}: split {name!r} must be a list of clip names (frame_dir)")
        splits[str(name)] = [str(clip) for clip in clips]
    return splits, annotations


def find_protocols(splits: dict[str, list[str]], wanted=None) -> dict[str, dict[str, list[str]]]:
    """protocol -> {"train": names, "val": names}, from split names such as xsub_train, train, test1.

    xsub, xview and xset are cross_subject, cross_view and cross_setup; names without a prefix are the protocol
    `default`; a fold number is kept (`default1`). wanted: protocols to keep, None for all. A split `test` is
    taken for val when there is no val. Raises UserError when no pair is found, or a wanted one is not there."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, clips in splits.items():
        match = _SPLIT.fullmatch(name)
        if match:
            protocol = match["protocol"] or "default"
            protocol = _LONG_NAMES.get(protocol, protocol) + match["fold"]
            found.setdefault(protocol, {})[match["part"]] = clips
    pairs = {}
    for protocol, parts in found.items():
        val = parts.get("val", parts.get("test"))
        if "train" in parts and val is not None:
            pairs[protocol] = {"train": parts["train"], "val": val}
    known = ", ".join(pairs)
    if not pairs:
        raise UserError(f"no pair of splits such as xsub_train and xsub_val among {', '.join(splits) or 'none'}")
    for protocol in wanted or ():
        if protocol not in pairs:
            raise UserError(f"the file has no protocol {protocol!r}; it has {known}")
    return {protocol: pairs[protocol] for protocol in wanted or pairs}


def label_from_name(names, pattern: str) -> tuple[dict[str, int], tuple[str, ...]]:
    """(name -> class number, class names) from what `pattern` finds in each name (see `texts_of_names`); classes are
    numbered in their order as text."""
    return number_names(texts_of_names(names, pattern, "--label-from-name"), None)


def check_keypoint(name: str, annotation: dict) -> np.ndarray:
    """The coordinates (M, T, V, 3) of an annotation; UserError when they are 2-D, of another shape or no numbers."""
    keypoint = annotation.get("keypoint")
    if not isinstance(keypoint, np.ndarray) or keypoint.dtype.kind not in "fiu":
        raise UserError(f"clip {name}: 'keypoint' is no array of numbers")
    if keypoint.ndim == 4 and keypoint.shape[3] == 2:
        raise UserError(
            f"clip {name}: its keypoints are 2-D (pixels of a picture, shape {keypoint.shape}); 3-D skeletons are "
            "needed, such as those of ntu60_3danno.pkl"
        )
    if keypoint.ndim != 4 or keypoint.shape[3] != 3:
        raise UserError(f"clip {name}: expected keypoints (M, T, V, 3), found {keypoint.shape}")
    frames = annotation.get("total_frames", keypoint.shape[1])
    if frames != keypoint.shape[1]:
        raise UserError(f"clip {name}: {keypoint.shape[1]} frames of keypoints, but total_frames says {frames}")
    return keypoint if keypoint.dtype.kind == "f" else keypoint.astype(np.float32)


def index_annotations(path, annotations: list[dict]) -> dict[str, int]:
    """frame_dir -> position in the list; UserError when one is missing, or two are equal."""
    index = {}
    for position, annotation in enumerate(annotations):
        name = annotation.get("frame_dir")
        if not isinstance(name, str) or not name:
            raise UserError(f"{path}: annotation {position} (from 0) has no frame_dir")
        if name in index:
            raise UserError(f"{path}: clip {name} appears twice among the annotations")
        index[name] = position
    return index


def most_persons(annotations: list[dict], positions) -> int:
    """The largest M of the annotations at `positions`, at least 1."""
    shapes = (getattr(annotations[position].get("keypoint"), "shape", ()) for position in positions)
    return max([1, *(shape[0] for shape in shapes if len(shape) == 4)])


def pack(annotations: list[dict], index: dict[str, int], names, packed: PackedClips, persons: int, on_bad: str):
    """Moves the clips `names` from memory into `packed`, the first `persons` of each, with the reason for a bad one.

    Raises UserError for the first bad clip when on_bad is "refuse"."""
    for name in names:
        try:
            if name not in index:
                raise UserError(f"clip {name} is in a split, but has no annotation")
            packed.add(name, check_keypoint(name, annotations[index[name]])[:persons])
            annotations[index[name]] = None  # lets its memory go
        except UserError as error:
            if on_bad == "refuse":
                raise UserError(f"{error}; --on-bad skip leaves such clips out") from None
            packed.refuse(name, str(error))
    packed.close()


def convert(
    path,
    data_root,
    name,
    *,
    layout=None,
    persons=None,
    wanted=None,
    pattern=None,
    classes=None,
    first=None,
    limit=MAX_UNPACKED,
    **build,
):
    """Reads the pickle `path` and writes the data set `name`; returns (Target, BuildReport).

    pattern: see `label_from_name`, None for the labels of the file; classes: class names, None for "class 0", ...;
    first: what the first class number is (see `from_zero`); limit: bytes in memory that the pickle may need beyond its size;
    build: steps, frames, workers, on_bad and came_as of `build_dataset`."""
    splits, annotations = read_file(path, limit)
    protocols = find_protocols(splits, wanted)
    index = index_annotations(path, annotations)
    used = sorted({clip for parts in protocols.values() for clips in parts.values() for clip in clips})
    present = [clip for clip in used if clip in index]
    if pattern is not None:
        labels, found = label_from_name(present, pattern)
        if classes is not None and len(classes) < len(found):
            raise UserError(f"--classes names {len(classes)} classes, the clip names have {len(found)}")
    else:
        stated = {clip: annotations[index[clip]].get("label") for clip in present}
        labels = {clip: class_number(f"{path}: clip {clip}", label) for clip, label in stated.items()}
        known = DATASETS[name].num_classes if name in DATASETS else classes and len(classes)
        labels = from_zero(labels, known, first)
        found = max(labels.values(), default=0) + 1
        if classes is not None and len(classes) < found:
            raise UserError(f"--classes names {len(classes)} classes, but the file has label {found - 1}")
    most = persons or most_persons(annotations, (index[clip] for clip in present))
    target = make_target(data_root, name, list(protocols), found if classes is None else classes, layout, most)
    folder = target.folder
    warn_of_empty_classes(labels, protocols, target.classes)
    with building_folder(folder.with_name(f"{folder.name}.clips")) as temporary:
        packed = PackedClips(temporary / "clips.raw")
        pack(annotations, index, used, packed, persons or target.persons, build.get("on_bad", "refuse"))
        del annotations
        labels |= {clip: 0 for clip in used if clip not in index}  # left out by build_dataset, with the reason
        details = {"labels": f"from the names, {pattern}" if pattern else "of the file"}
        source = f"pyskl pickle {Path(path).name}"
        report = build_target(target, protocols, labels, packed, source=source, details=details, **build)
    return target, report


def parse(argv=None) -> argparse.Namespace:
    parser = reader_parser(
        "from_pyskl",
        __doc__ + "\nexamples:\n  python -m data_gen.from_pyskl ntu60_3danno.pkl --name ntu60\n"
        "  python -m data_gen.from_pyskl my_3danno.pkl --name mine_quality \\\n"
        "      --label-from-name '(m\\d+).*_(cor|inc)'",
    )
    parser.add_argument("file", help="the 3-D pickle, such as ntu60_3danno.pkl")
    parser.add_argument(
        "--name",
        required=True,
        help="the data set's name, which the programs take as --dataset: "
        "ntu60 and ntu120 bring their class names; any "
        "other name is a data set of your own and gets a dataset.json",
    )
    parser.add_argument(
        "--protocols",
        nargs="+",
        metavar="PROTOCOL",
        help="prepare only these, such as cross_subject; default: every pair of splits in the file. Fewer save disk",
    )
    add_layout_flag(parser)
    parser.add_argument(
        "--persons",
        type=int,
        metavar="M",
        help="persons kept of a clip, in the file's order; default: the most that any clip has (known data sets: 2). "
        "Lower it when only a few clips have bystanders",
    )
    parser.add_argument(
        "--label-from-name",
        metavar="REGEX",
        help="take the classes from the clip names instead of the labels: the groups of this regular expression, "
        "joined, are the class name. '(m\\d+).*_(cor|inc)' makes of m01_s02_e03_inc the class 'm01 inc'. Needs a "
        "--name of its own, not one of the registry",
    )
    parser.add_argument(
        "--classes", metavar="FILE.txt", help="text file with a class name a line, in the order of the class numbers"
    )
    add_labels_flag(parser)
    add_unpacked_flag(parser)
    add_common_flags(parser)
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse(argv)
    target, report = convert(
        args.file,
        args.data_root,
        args.name,
        wanted=args.protocols,
        pattern=args.label_from_name,
        **own_flags(args),
        **build_flags(args),
    )
    print(say_what_was_done(target.folder, report))


if __name__ == "__main__":
    run(main, sys.argv[1:])
