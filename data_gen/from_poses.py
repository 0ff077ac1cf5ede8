"""Makes a data set of the poses of any estimator: `python -m data_gen.from_poses my_poses --name mine`.

The folder or file holds clips written by OpenPose, AlphaPose, MMPose, MMAction2 / pyskl, Azure Kinect, MediaPipe or a
program of your own. File format, joint layout, units and axes are found from the data and printed; flags override them.
Clips are cleaned (frames without a person, gaps, persons that change order, ...); what was changed is counted in a table
at the end and in DATA_ROOT/NAME/poses.json. Labels come from folder names, a column, a pattern of the clip names, or a
list; without labels the data set serves pretraining and feature extraction.

Design: `data_gen.poses.survey` decides once for all clips. Then worker processes read and clean one file (or folder of a
clip) at a time, and the clips go to a temporary file before anything is written, so that all bad files are reported
together. `data_gen.build` does the rest.
"""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from data_gen.build import ordered_map
from data_gen.from_arrays import LISTS
from data_gen.from_files import (
    HOW,
    Source,
    TemporaryClips,
    add_flags,
    prepare,
    read_class_names,
    reader_parser,
    scratch_folder,
)
from data_gen.poses.arrays import UPS, pickle_splits
from data_gen.poses.forms import FORMS
from data_gen.poses.labels import ClipInfo, LabelOptions, Task, make_task, short_names
from data_gen.poses.mend import Mending
from data_gen.poses.record import Bad
from data_gen.poses.space import UNITS
from data_gen.poses.survey import PoseOptions, Reader, Survey, survey
from options.common import from_flags
from options.datasets import DATASETS
from utils.errors import UserError, run
from utils.files import write_json

MOST_PERSONS = 2  # per clip, unless --persons allows more: further ones are mostly passers-by
_CHUNK = 32  # entries that a process reads at a time


@dataclass
class Gathered:
    """All clips that were read. clips: full name -> label, split, ... of the clip; packed: the coordinates; persons: the most in
    any clip; bad: name -> reason; mended: clip -> kind of fault -> how often it was mended."""

    packed: TemporaryClips
    clips: dict[str, ClipInfo] = field(default_factory=dict)
    persons: int = 1
    bad: dict[str, str] = field(default_factory=dict)
    mended: dict[str, dict[str, int]] = field(default_factory=dict)

    def table(self) -> list[tuple[str, int, int]]:
        """Rows (kind of fault, number of clips, how often in total), the most frequent first."""
        clips, times = Counter(), Counter()
        for counts in self.mended.values():
            for what, often in counts.items():
                clips[what] += 1
                times[what] += often
        return sorted(((what, clips[what], times[what]) for what in clips), key=lambda row: (-row[1], row[0]))


def gather(seen: Survey, packed: TemporaryClips, workers: int | None) -> Gathered:
    """Reads every entry once, in `workers` processes, into `packed`."""
    found = Gathered(packed)
    entries = seen.entries
    answers = ordered_map(Reader.__call__, entries, workers, (seen.reader,), _CHUNK)
    bar = tqdm(answers, "reading", len(entries), unit="file", disable=None, leave=False)
    for entry, clips in zip(entries, bar, strict=True):
        for clip in clips:
            if isinstance(clip, Bad):
                found.bad[clip.name] = clip.reason
            elif clip.name in found.clips:
                found.bad[clip.name] = f"two clips are called {clip.name}"
            else:
                found.clips[clip.name] = ClipInfo(clip.name, entry.folders, clip.label, clip.split, clip.subject)
                found.persons = max(found.persons, len(clip.array))
                if clip.mended:
                    found.mended[clip.name] = clip.mended
                packed.add(clip.name, clip.array)
    packed.close()
    return found


def first_of(reasons, most: int = 10) -> str:
    """The first `most` of the lines, and how many more there are."""
    reasons = list(reasons)
    return "\n  ".join([*reasons[:most], *[f"... and {len(reasons) - most} more"] * (len(reasons) > most)])


def _list_of(args, source: Path) -> str | None:
    if args.list or not source.is_dir():
        return args.list
    return next((str(source / name) for name in LISTS if (source / name).is_file()), None)


def convert(args: argparse.Namespace, source) -> None:
    """Makes the data set of the poses in `source` as the flags say, and prints a summary. UserError when clips cannot be
    read or used; nothing is written then."""
    if args.name in DATASETS:
        raise UserError(f"--name {args.name} is a known data set with files of its own; give your data another name")
    source, labels = Path(source), from_flags(LabelOptions, args, unlabelled=args.no_labels)
    if labels.classes:
        labels = replace(labels, classes=read_class_names(args.classes))
    given = from_flags(PoseOptions, args, form=args.format, size=args.picture_size, target=vars(args)["as"])
    seen = survey(source, given, from_flags(Mending, args, ("smallest",)), args.on_bad == "skip")
    print("\n".join(f"found  {line}" for line in [f"{len(seen.entries)} files or folders of clips", *seen.lines]))
    with scratch_folder(args) as folder:
        found = gather(seen, TemporaryClips(folder / "clips.raw"), args.workers)
        total = len(found.clips) + len(found.bad)
        if found.bad and args.on_bad == "refuse":
            why = "clips cannot be used, so nothing was written; --on-bad skip leaves them out"
            raise UserError(f"{len(found.bad)} of {total} {why}: {first_of(found.bad.values())}")
        if not found.clips:
            raise UserError(
                f"{source}: none of its {total} clips can be used; the first: {next(iter(found.bad.values()))}"
            )
        short = short_names(list(found.clips))
        clips = [replace(clip, name=short[name], full=name) for name, clip in found.clips.items()]
        task = make_task(clips, _list_of(args, source), _pickled_splits(seen), labels)
        print("\n".join(f"found  {line}" for line in task.lines))
        found.packed.rename(short)
        reader, details = seen.reader, {"found": seen.lines, "labels": task.lines}
        what = Source(f"poses of {source.name}", task.protocols, task.labels, task.classes, found.persons)
        what = replace(what, layout=reader.target.name, dimensions=reader.space.dimensions, details=details)
        target, done = prepare(args, what, found.packed)
    _write_report(target / "poses.json", seen, found, task, short)
    print("\n".join([*_closing_lines(found, task), f"for each clip: {target / 'poses.json'}", done]))


def _pickled_splits(seen: Survey) -> dict[str, list[str]]:
    pickles = [entry for entry in seen.entries if entry.form == "pickle"]
    return pickle_splits(pickles[0].path) if len(seen.entries) == 1 and pickles else {}


def _write_report(path: Path, seen: Survey, found: Gathered, task: Task, short: dict[str, str]) -> None:
    """poses.json: what was found, decided and mended."""
    content = {
        "found": seen.lines,
        "labels": task.lines,
        "notes": task.notes,
        "mended": [{"what": what, "clips": clips, "times": times} for what, clips, times in found.table()],
        "clips": {short[name]: counts for name, counts in sorted(found.mended.items())},
        "left_out": dict(sorted(found.bad.items())),
    }
    write_json(path, content)


def _closing_lines(found: Gathered, task: Task) -> list[str]:
    lines = [""]
    table = found.table()
    if table:
        lines += [f"{'mended':44}{'clips':>8}{'times':>10}"]
        lines += [f"{what:44}{clips:>8}{times:>10}" for what, clips, times in table]
    else:
        lines.append("nothing had to be mended")
    if found.bad:
        lines.append(f"{len(found.bad)} files or clips left out:\n  {first_of(found.bad.values())}")
    return lines + [f"note: {note}" for note in task.notes[:10]]


# --- command line ---------------------------------------------------------------------------------------------------


FILES = """
--format {$forms}  read only files of this format, and read them as it
--layout LAYOUT:layout  joint layout, which is the order of the joints: $layouts
--as LAYOUT:layout  convert the clips to this joint layout, such as that of an encoder
"""
SPACE = """
--units {$units}  unit of the coordinates; shares are fractions of the picture's width and height
--up {$ups}  axis that points up; write --up=-y for a y that points down
--[no-]mirror  whether the coordinates are a mirror image
--picture-size WIDTH:positive_int HEIGHT:positive_int  size of the picture in pixels, for coordinates that are shares of it
--dimensions C:int>=2<=3  2 drops the depth
"""
CLEANING = """
--min-score X:float>=0<=1000000000 = 0.0  joints with a lower score count as not seen; try 0.3
--max-gap FRAMES:int>=0<=100000 = 10
    gaps of at most so many frames are interpolated linearly; where no person is seen for longer, the clip is cut
    and its longest piece kept
--persons M:int>=1<=16 = $persons  most persons kept per clip
--fps FPS:float>=0.5<=1000  resample all clips to this frame rate
--source-fps FPS:float>=0.5<=1000  frame rate of files that do not state one, for --fps
"""
LABELS = """
--list FILE  list of the clips, .csv or .json, with name, label and optionally split and subject
"""
SPLITS = """
--no-labels  make a data set without labels, for pretraining and features only
--by {class,subject} = class
    how test clips are chosen: class samples a share of the clips of each class, subject a share of the subjects
--val-share X:float>=0<=0.95  share of the clips or subjects that are for the test; default: 0.3
--subject-from-name REGEX  regular expression that finds the subject in a clip's name, for --by subject
--val-subjects S+ = ""  subjects whose clips are for the test
--val-list FILE.txt  names of the test clips, one per line
--seed SEED:natural = 0  seed of the sampled split
"""


def add_pose_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of from_poses and from_video; most have the names of fields of `PoseOptions`, `Mending`, `LabelOptions`."""
    add_flags(parser, "--name")
    g = parser.add_argument_group("the files (found from the data where a flag is not given)")
    add_flags(g, table=FILES, forms=",".join(FORMS))
    add_flags(g, "--axes", table=SPACE, units=",".join(u for u in UNITS if u != "other"), ups=",".join(UPS))
    add_flags(parser.add_argument_group("cleaning"), table=CLEANING, persons=str(MOST_PERSONS))
    g = parser.add_argument_group("labels and splits")
    add_flags(g, table=LABELS)
    add_flags(g, "--label-from-name", "--labels-from", "--classes", table=SPLITS)
    add_flags(parser, *HOW)


def parse(argv=None) -> argparse.Namespace:
    parser = reader_parser("from_poses", __doc__)
    parser.add_argument("source", help="folder or file of poses")
    add_pose_flags(parser)
    return parser.parse_args(argv)


def main(argv=None) -> None:
    args = parse(argv)
    convert(args, args.source)


if __name__ == "__main__":
    run(main, sys.argv[1:])
