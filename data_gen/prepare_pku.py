"""Makes PKU-MMD from its raw text files: trimmed instances for every protocol, and whole videos for detection.

    python -m data_gen.prepare_pku --dataset pku_v1 --raw PKUMMD --data-root data

The folder contains PKU_Skeleton_Renew and Train_Label_PKU_final (part I), or skeleton and label (part II), at any depth;
otherwise give the two with --skeletons and --labels. Output: <data root>/<data set>/{xsub,xview} as for every data set,
and <data root>/<data set>/untrimmed (see utils.untrimmed), the raw coordinates of whole videos. Impossible rows of the
label files are printed and listed in preparation.json.
"""

import argparse
import contextlib
import os
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_gen import protocols as rules
from data_gen import raw_pku
from data_gen.build import HOW_TO_SKIP, ordered_map
from data_gen.from_files import HOW, Source, add_flags, prepare, reader_parser
from data_gen.raw_files import Where, find_files, read_bytes
from data_gen.raw_pku import Instance, Reading, read_instance
from options.datasets import DATASETS
from utils.errors import UserError, run
from utils.skeleton import get_layout
from utils.untrimmed import write_untrimmed

SUFFIX = ".txt"
FOLDERS = {"pku_v1": ("PKU_Skeleton_Renew", "Train_Label_PKU_final"), "pku_v2": ("skeleton", "label")}
NOTES_SHOWN = 20


FLAGS = """
--dataset {pku_v1,pku_v2}!  part I (1,076 videos) or part II (1,009 videos)
--raw FOLDER  folder that contains the two folders of the part, skeletons and labels
--skeletons PATH  folder or zip archive of skeleton files, if it is not in --raw
--labels PATH  folder or zip archive of label files, if it is not in --raw
--protocols {cross_subject,cross_view}+  only these protocols; default: both
--partial  prepare the videos that are there even if they are fewer than published, to try out a part
--no-untrimmed  do not write the whole videos, which only detection needs
"""
READING = """
--first-class N:int>=0<=1 = 1  number of the first class in the files, 0 or 1
--first-frame N:int>=0<=1 = 0
    0: a row is frames [start, end) counted from 0, as released; 1: frames start..end counted from 1, both included, which
    is one frame more
--reversed {drop,swap} = drop  for a row whose start is after its end (part I has one): drop it, or swap the two
--min-confidence N:int = 0
    leave out rows with a lower confidence (last column, 0 to 2); 1 leaves out 135 doubtful rows of part I, but then the
    counts are not the published ones
"""


def parse_args(argv=None) -> argparse.Namespace:
    parser = reader_parser("prepare_pku", __doc__)
    add_flags(parser, table=FLAGS)
    add_flags(parser, *HOW)
    title = "how label files are read (the defaults are those of the released preparation)"
    add_flags(parser.add_argument_group(title), table=READING)
    args = parser.parse_args(argv)
    args.name = args.dataset  # `prepare` writes the data set of this name
    return args


def find_folder(raw, name: str) -> Path | None:
    """The folder called `name` in or below `raw`; the one nearest to the top."""
    found = [Path(top) / name for top, folders, _ in os.walk(raw) if name in folders]
    if Path(raw).name == name:
        found.append(Path(raw))
    return min(found, key=lambda path: (len(path.parts), str(path)), default=None)


def find_pair(args) -> tuple[dict[str, Where], dict[str, Where]]:
    """(skeleton files, label files), each by video name; UserError when one of the two folders is not found."""
    if args.raw and not Path(args.raw).is_dir():
        raise UserError(f"--raw {args.raw}: there is no such folder")
    places = []
    for given, flag, name in zip(
        (args.skeletons, args.labels), ("--skeletons", "--labels"), FOLDERS[args.name], strict=True
    ):
        place = given or (find_folder(args.raw, name) if args.raw else None)
        if place is None:
            where = f"there is no folder {name} in {args.raw}" if args.raw else f"no folder {name} was given"
            raise UserError(f"{where}; give {flag} PATH, or --raw FOLDER that holds {name}")
        places.append(find_files([place], SUFFIX))
    return places[0], places[1]


def collect(skeletons, labels, reading: Reading, skip_bad: bool):
    """Reads all label files: (video -> instances, notes about impossible rows, bad video -> reason if skip_bad)."""
    found: dict[str, list[Instance]] = {}
    notes, bad = [], {}
    for video in tqdm(sorted(labels), unit="label file"):
        try:
            if video not in skeletons:
                raise UserError(f"{labels[video]}: there is no skeleton file {video}.txt for these labels")
            rows = raw_pku.parse_labels(read_bytes(labels[video]), str(labels[video]))
            found[video], more = raw_pku.instances(video, rows, raw_pku.count_frames(skeletons[video]), reading)
            notes += more
        except UserError as error:
            if not skip_bad:
                raise UserError(f"{error} ({HOW_TO_SKIP})") from None
            bad[video] = str(error)
    return found, notes, bad


def try_video(where: Where) -> np.ndarray | str:
    """The frames (T, 2, 25, 3) of a skeleton file, or the reason why it cannot be read."""
    try:
        return raw_pku.read_video(where)
    except UserError as error:
        return str(error)


def videos_for_detection(found, skeletons, bad: dict, skip_bad: bool, workers: int | None):
    """Yields (video, frames (T, 3, 25, 2), segments), one video at a time; adds bad videos to `bad`."""
    videos = sorted(found)
    answers = ordered_map(try_video, [skeletons[video] for video in videos], workers)
    with contextlib.closing(answers):
        for video, frames in zip(videos, tqdm(answers, total=len(videos), unit="video"), strict=True):
            if isinstance(frames, str):
                if not skip_bad:
                    raise UserError(f"{frames} ({HOW_TO_SKIP})")
                bad[video] = frames
            else:
                yield video, frames.transpose(0, 3, 2, 1), [(i.number, i.start, i.end) for i in found[video]]


def main(argv=None) -> None:
    args = parse_args(argv)
    dataset, row, skip_bad = args.name, DATASETS[args.name], args.on_bad == "skip"
    skeletons, labels = find_pair(args)
    splits = rules.pku_protocols(dataset, labels)
    if not args.partial:
        hint = "give all of them, or add --partial to prepare the videos that are there"
        rules.check_counts(dataset, splits, rules.PKU_VIDEO_COUNTS[dataset], "videos", hint)
    reading = Reading(args.first_class, args.first_frame, args.reversed == "swap", args.min_confidence)
    found, notes, bad = collect(skeletons, labels, reading, skip_bad)
    listed = {instance.name: instance for video in found.values() for instance in video}
    protocols = {
        protocol: {split: [i.name for video in videos for i in found[video]] for split, videos in splits.items()}
        for protocol, splits in rules.pku_protocols(dataset, found, args.protocols).items()
    }
    print(f"{len(found):,} videos, {len(listed):,} instances, {len(notes)} impossible rows")
    for note in notes[:NOTES_SHOWN]:
        print(f"  {note}")
    if not args.partial and not bad:
        dropped = sum(note.endswith("dropped") for note in notes)
        hint = "the label files differ, or --min-confidence left rows out (add --partial to prepare them all the same)"
        rules.check_counts(dataset, protocols, row.counts, "instances", hint, dropped)
    details = {"dataset": dataset, "reading": vars(reading), "dirty_rows": notes, "bad_videos": bad}
    numbers = {name: instance.number for name, instance in listed.items()}
    source = Source(f"{dataset}, raw text files", protocols, numbers, row.num_classes, row.persons, details=details)
    load = partial(read_instance, {video: skeletons[video] for video in found}, listed)
    folder, done = prepare(args, source, load, group=lambda name: listed[name].video)
    print(done)
    if not args.no_untrimmed:
        sidecar = write_untrimmed(
            folder / "untrimmed",
            videos_for_detection(found, skeletons, bad, skip_bad, args.workers),
            layout=get_layout(row.layout),
            persons=row.persons,
            num_classes=row.num_classes,
            protocols=lambda names: {row.protocols[p][0]: s for p, s in rules.pku_protocols(dataset, names).items()},
            source=source.text,
            details=details,
        )
        print(f"{folder / 'untrimmed'}: {sidecar['videos']:,} videos, {sidecar['frames']:,} frames")
    if bad:
        video, reason = next(iter(bad.items()))
        print(f"{len(bad)} videos left out, the first is {video} ({reason}); all are listed in preparation.json")


if __name__ == "__main__":
    run(main)
