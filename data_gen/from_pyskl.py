"""Makes a data set of an MMAction2 / pyskl 3-D pickle: `python -m data_gen.from_pyskl ntu60_3danno.pkl --name ntu60`.

The file is a pickle of a dict: `split` maps names such as xsub_train and xsub_val to lists of clip names, `annotations`
is a list of dicts with frame_dir (the clip's name), label (from 0), keypoint (M, T, V, 3) float16 or float32 in metres,
and total_frames. Its coordinates are raw; they are normalised here. Each pair of splits becomes a protocol folder:
xsub_train and xsub_val become xsub.

Memory: a pickle cannot be read in parts, so the whole file must fit into memory once. Its clips are then moved one by
one to a temporary file of about the same size, from which all processes read. Reading a pickle never runs code in it.

examples:
  python -m data_gen.from_pyskl ntu60_3danno.pkl --name ntu60
  python -m data_gen.from_pyskl my_3danno.pkl --name mine_quality --label-from-name '(m\\d+).*_(cor|inc)'
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np

from data_gen.build import HOW_TO_SKIP
from data_gen.from_files import (
    HOW,
    PROTOCOL_FOLDERS,
    Source,
    TemporaryClips,
    add_flags,
    class_number,
    from_zero,
    layouts_of,
    number_names,
    prepare,
    read_class_names,
    reader_parser,
    scratch_folder,
    texts_of_names,
)
from options.datasets import DATASETS
from utils.errors import UserError, run
from utils.files import MAX_UNPACKED, load_pickle

PROTOCOLS = """
--protocols PROTOCOL+
    prepare only these, such as cross_subject, to save disk space; default: every pair of splits in the file
"""
_SPLIT = re.compile(r"(?P<protocol>.*?)[_-]?(?P<part>train|val|test)(?P<fold>\d*)")
_LONG_NAMES = {folder: protocol for protocol, folder in PROTOCOL_FOLDERS.items()} | {"xsetup": "cross_setup"}


def read_file(path, limit: int = MAX_UNPACKED) -> tuple[dict[str, list[str]], dict[str, dict]]:
    """(split -> names of clips, name -> annotation) of the pickle; UserError when it is another kind of file, or the name
    (frame_dir) of an annotation is missing or appears twice. limit: see utils.files."""
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
    named: dict[str, dict] = {}
    for position, annotation in enumerate(annotations):
        name = annotation.get("frame_dir")
        if not isinstance(name, str) or not name:
            raise UserError(f"{path}: annotation {position} (counted from 0) has no frame_dir")
        if name in named:
            raise UserError(f"{path}: clip {name} appears twice among the annotations")
        named[name] = annotation
    return splits, named


def find_protocols(splits: dict[str, list[str]], wanted=None) -> dict[str, dict[str, list[str]]]:
    """protocol -> {"train": names, "val": names}, from split names such as xsub_train, train, test1.

    xsub, xview and xset are cross_subject, cross_view and cross_setup; names without a prefix are the protocol
    `default`; a fold number is kept (`default1`). wanted: protocols to keep, None for all. A split `test` counts as val
    when there is no val. UserError when there is no pair, or none for a wanted protocol."""
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
    """(name -> class number, class names) from the groups of `pattern` in each name (see `texts_of_names`); classes are
    numbered alphabetically."""
    return number_names(texts_of_names(names, pattern, "--label-from-name"), None)


def check_keypoint(name: str, annotation: dict) -> np.ndarray:
    """The coordinates (M, T, V, 3) of an annotation; UserError when they are 2-D, of another shape or not numbers."""
    keypoint = annotation.get("keypoint")
    if not isinstance(keypoint, np.ndarray) or keypoint.dtype.kind not in "fiu":
        raise UserError(f"clip {name}: 'keypoint' is not an array of numbers")
    if keypoint.ndim == 4 and keypoint.shape[3] == 2:
        raise UserError(
            f"clip {name}: its keypoints are 2-D (pixels of a picture, shape {keypoint.shape}), expected 3-D skeletons as in "
            "ntu60_3danno.pkl; data_gen.from_poses reads 2-D keypoints"
        )
    if keypoint.ndim != 4 or keypoint.shape[3] != 3:
        raise UserError(f"clip {name}: expected keypoints (M, T, V, 3), found {keypoint.shape}")
    frames = annotation.get("total_frames", keypoint.shape[1])
    if frames != keypoint.shape[1]:
        raise UserError(f"clip {name}: {keypoint.shape[1]} frames of keypoints, but total_frames says {frames}")
    return keypoint if keypoint.dtype.kind == "f" else keypoint.astype(np.float32)


def most_persons(annotations) -> int:
    """The largest M of the annotations, at least 1."""
    shapes = (getattr(annotation.get("keypoint"), "shape", ()) for annotation in annotations)
    return max([1, *(shape[0] for shape in shapes if len(shape) == 4)])


def pack(annotations: dict[str, dict], names, packed: TemporaryClips, persons: int, on_bad: str) -> None:
    """Moves the clips `names` from `annotations` into `packed`, the first `persons` of each; for a bad clip the reason.

    UserError for the first bad clip when on_bad is "refuse"."""
    for name in names:
        try:
            if name not in annotations:
                raise UserError(f"clip {name} is in a split, but has no annotation")
            packed.add(name, check_keypoint(name, annotations.pop(name))[:persons])
        except UserError as error:
            if on_bad == "refuse":
                raise UserError(f"{error} ({HOW_TO_SKIP})") from None
            packed.refuse(name, str(error))
    packed.close()


def find_labels(args, annotations: dict[str, dict], names: list[str]):
    """(clip -> class number, class names or their number) of the clips `names`: from their names, or from the file."""
    classes = read_class_names(args.classes) if args.classes else None
    if args.label_from_name is not None:
        labels, found = label_from_name(names, args.label_from_name)
        if classes is not None and len(classes) < len(found):
            raise UserError(f"--classes names {len(classes)} classes, the clip names have {len(found)}")
        return labels, classes or found
    stated = {name: annotations[name].get("label") for name in names}
    labels = {name: class_number(f"{args.file}: clip {name}", label) for name, label in stated.items()}
    known = DATASETS[args.name].num_classes if args.name in DATASETS else None
    return from_zero(labels, classes, args.labels_from, known)


def parse(argv=None) -> argparse.Namespace:
    parser = reader_parser("from_pyskl", __doc__)
    parser.add_argument("file", help="the 3-D pickle, such as ntu60_3danno.pkl")
    add_flags(parser, table=PROTOCOLS)
    add_flags(parser, "--name", "--layout", "--as", "--persons", "--label-from-name", "--classes", "--labels-from")
    add_flags(parser, "--max-unpacked", *HOW)
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse(argv)
    layout, came_as = layouts_of(args)
    splits, annotations = read_file(args.file, int(args.max_unpacked * 1e9))
    protocols = find_protocols(splits, args.protocols)
    used = sorted({clip for parts in protocols.values() for clips in parts.values() for clip in clips})
    present = [clip for clip in used if clip in annotations]
    labels, classes = find_labels(args, annotations, present)
    labels |= {clip: 0 for clip in used if clip not in annotations}  # `pack` reports them
    persons = args.persons or most_persons(annotations[clip] for clip in present)
    details = {"labels": f"from the names, {args.label_from_name}" if args.label_from_name else "of the file"}
    text = f"pyskl pickle {Path(args.file).name}"
    source = Source(text, protocols, labels, classes, persons, layout, came_as, details=details)
    source.target(args.data_root, args.name)  # refused before the clips are unpacked
    with scratch_folder(args) as folder:
        packed = TemporaryClips(folder / "clips.raw")
        pack(annotations, used, packed, persons, args.on_bad)
        del annotations
        print(prepare(args, source, packed)[1])


if __name__ == "__main__":
    run(main, sys.argv[1:])
