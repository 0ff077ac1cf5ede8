"""Poses of any estimator to a data set: `python -m data_gen.from_poses my_poses --name mine`.

FOLDER_OR_FILE holds clips as OpenPose, AlphaPose, MMPose, MMAction2 / pyskl, Azure Kinect, MediaPipe or a program of your own
wrote them. File form, joint layout, units and axes are found and said; flags overrule them. Clips are mended (frames without a
person, gaps, persons that change order, ...), which a table at the end and DATA_ROOT/NAME/poses.json count. Labels are the
folders' names, a column, a pattern of the names, or a list; without labels it is a data set for pretraining and features.

Design: `data_gen.poses.survey` decides for all clips together, then every entry is read and mended by itself, in processes, into
one temporary file, before anything is written: bad files are known all at once. `data_gen.build` does the rest.
"""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, field, fields, replace
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
from data_gen.poses.labels import Known, LabelOptions, Task, make_task, short_names
from data_gen.poses.mend import Mending
from data_gen.poses.record import Bad
from data_gen.poses.space import UNITS
from data_gen.poses.survey import PoseOptions, Reader, Survey, survey
from options.common import natural, number, positive_int
from options.datasets import DATASETS
from utils.errors import UserError, run
from utils.files import write_json
from utils.skeleton import LAYOUTS

MOST_PERSONS = 2  # of a clip, unless --persons says more: further ones are mostly passers-by
_CHUNK = 32  # entries a process reads at a time


@dataclass
class Gathered:
    """What reading gave. known: of each clip, by its full name; packed: the coordinates; persons: the most of any clip;
    bad: name -> reason; mended: clip -> kind of dirt -> how often."""

    packed: TemporaryClips
    known: dict[str, Known] = field(default_factory=dict)
    persons: int = 1
    bad: dict[str, str] = field(default_factory=dict)
    mended: dict[str, dict[str, int]] = field(default_factory=dict)

    def table(self) -> list[tuple[str, int, int]]:
        """(kind of dirt, clips, how often in all), the most frequent first."""
        clips, times = Counter(), Counter()
        for counts in self.mended.values():
            for what, often in counts.items():
                clips[what] += 1
                times[what] += often
        return sorted(((what, clips[what], times[what]) for what in clips), key=lambda row: (-row[1], row[0]))


def gather(seen: Survey, packed: TemporaryClips, workers: int | None) -> Gathered:
    """Reads every entry, once, in processes."""
    found = Gathered(packed)
    entries = seen.entries
    answers = ordered_map(Reader.__call__, entries, workers, (seen.reader,), _CHUNK)
    bar = tqdm(answers, "reading", len(entries), unit="file", disable=None, leave=False)
    for entry, clips in zip(entries, bar, strict=True):
        for clip in clips:
            if isinstance(clip, Bad):
                found.bad[clip.name] = clip.reason
            elif clip.name in found.known:
                found.bad[clip.name] = f"two clips are called {clip.name}"
            else:
                found.known[clip.name] = Known(clip.name, entry.folders, clip.label, clip.split, clip.subject)
                found.persons = max(found.persons, len(clip.array))
                if clip.mended:
                    found.mended[clip.name] = clip.mended
                packed.add(clip.name, clip.array)
    packed.close()
    return found


def first_of(reasons, most: int = 10) -> str:
    """The first of many lines, and how many more there are."""
    reasons = list(reasons)
    return "\n  ".join([*reasons[:most], *[f"... and {len(reasons) - most} more"] * (len(reasons) > most)])


def _list_of(args, source: Path) -> str | None:
    if args.list or not source.is_dir():
        return args.list
    return next((str(source / name) for name in LISTS if (source / name).is_file()), None)


def convert(args: argparse.Namespace, source) -> None:
    """Makes the data set that the flags ask for of the poses in `source`, and says what was done. UserError for what cannot be
    read or used; nothing is written then."""
    if args.name in DATASETS:
        raise UserError(f"--name {args.name} is a known data set with files of its own; give your data another name")
    source, labels = Path(source), from_flags(LabelOptions, args)
    if labels.classes:
        labels = replace(labels, classes=read_class_names(args.classes))
    seen = survey(source, from_flags(PoseOptions, args), from_flags(Mending, args), args.on_bad == "skip")
    print("\n".join(f"found  {line}" for line in [f"{len(seen.entries)} files or folders of clips", *seen.lines]))
    with scratch_folder(args) as folder:
        found = gather(seen, TemporaryClips(folder / "clips.raw"), args.workers)
        total = len(found.known) + len(found.bad)
        if found.bad and args.on_bad == "refuse":
            why = "clips cannot be used, and nothing was written; --on-bad skip leaves them out"
            raise UserError(f"{len(found.bad)} of {total} {why}: {first_of(found.bad.values())}")
        if not found.known:
            raise UserError(
                f"{source}: none of its {total} clips can be used; the first: {next(iter(found.bad.values()))}"
            )
        short = short_names(list(found.known))
        clips = [replace(known, name=short[name], full=name) for name, known in found.known.items()]
        task = make_task(clips, _list_of(args, source), _pickled_splits(seen), labels)
        print("\n".join(f"found  {line}" for line in task.lines))
        found.packed.rename(short)
        reader, details = seen.reader, {"found": seen.lines, "labels": task.lines}
        what = Source(f"poses of {source.name}", task.protocols, task.labels, task.classes, found.persons)
        what = replace(what, layout=reader.target.name, dimensions=reader.space.dimensions, details=details)
        target, done = prepare(args, what, found.packed)
    _write_report(target / "poses.json", seen, found, task, short)
    print("\n".join([*_closing_lines(found, task), f"all of it, clip by clip: {target / 'poses.json'}", done]))


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


def add_pose_flags(parser: argparse.ArgumentParser) -> None:
    """All flags of poses; those of `PoseOptions`, `Mending` and `LabelOptions` have their fields' names."""
    add_flags(parser, "--name")
    g = parser.add_argument_group("what the files are (found without)")
    g.add_argument("--format", dest="form", choices=tuple(FORMS), help="read only files of this form, as it")
    g.add_argument("--layout", choices=sorted(LAYOUTS), help="which joint is which")
    g.add_argument("--as", dest="target", choices=sorted(LAYOUTS), help="convert to another layout, as an encoder's")
    add_flags(g, "--axes")
    g.add_argument("--units", choices=[u for u in UNITS if u != "other"], help="of the coordinates")
    g.add_argument("--up", choices=UPS, help="the axis that points up; write --up=-y for a y that points down")
    mirror = argparse.BooleanOptionalAction
    g.add_argument("--mirror", action=mirror, default=None, help="whether the coordinates are a mirror image")
    size = ("WIDTH", "HEIGHT")
    g.add_argument(
        "--picture-size", dest="size", type=positive_int, nargs=2, metavar=size, help="for shares of a picture"
    )
    g.add_argument("--dimensions", type=int, choices=(2, 3), help="2 leaves the depth out")
    g = parser.add_argument_group("dirt")
    score = "joints with a lower score are not seen; try 0.3 (default 0)"
    g.add_argument("--min-score", type=number(float, 0, 1e9), default=0.0, help=score)
    gap = "gaps up to this are filled linearly; at longer ones without a person the clip is cut, and its longest piece stays"
    g.add_argument("--max-gap", type=number(int, 0, 100_000), default=10, metavar="FRAMES", help=f"{gap} (default 10)")
    persons = "persons kept of a clip (default 2 at most)"
    g.add_argument("--persons", type=number(int, 1, 16), default=MOST_PERSONS, metavar="M", help=persons)
    rate = number(float, 0.5, 1000)
    g.add_argument("--fps", type=rate, help="set all clips to this rate of frames")
    g.add_argument("--source-fps", type=rate, help="rate of the files that do not say theirs, for --fps")
    g = parser.add_argument_group("labels and splits")
    listed = "list of clips, .csv or .json: name, label, and perhaps split, subject"
    g.add_argument("--list", metavar="FILE", help=listed)
    add_flags(g, "--label-from-name", "--labels-from", "--classes")
    g.add_argument("--no-labels", dest="unlabelled", action="store_true", help="for pretraining and features only")
    g.add_argument("--by", choices=("class", "subject"), default="class", help="what the test share is drawn from")
    g.add_argument("--val-share", type=number(float, 0, 0.95), help="share for the test (default 0.3)")
    g.add_argument("--subject-from-name", metavar="REGEX", help="where the subject is in a name, for --by subject")
    g.add_argument("--val-subjects", nargs="+", default=(), metavar="S", help="these subjects are the test")
    g.add_argument("--val-list", metavar="FILE.txt", help="test clips, a name a line")
    g.add_argument("--seed", type=natural, default=0, help="of the drawn split (default 0)")
    add_flags(parser, *HOW)


def from_flags(kind, args: argparse.Namespace):
    """An object of the dataclass `kind`, of the flags that have its fields' names."""
    return kind(**{f.name: getattr(args, f.name) for f in fields(kind) if hasattr(args, f.name)})


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
