"""Poses of any estimator to a data set: `python -m data_gen.from_poses my_poses --name mine`.

FOLDER_OR_FILE holds clips as OpenPose, AlphaPose, MMPose, MMAction2 / pyskl, Azure Kinect, MediaPipe or a program of your own
wrote them. File form, joint layout, units and axes are found and said; flags overrule them. Clips are mended (frames without a
person, gaps, persons that change order, ...), which a table at the end and DATA_ROOT/NAME/poses.json count. Labels are the
folders' names, a column, a pattern of the names, or a list; without labels it is a data set for pretraining and features.

Design: `data_gen.poses.door` decides for all clips together, then every entry is read and mended by itself, in processes, into
one temporary file, before anything is written: bad files are known all at once. `data_gen.build` does the rest.
"""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_gen.build import building_folder, ordered_map
from data_gen.from_files import (
    PackedClips,
    add_common_flags,
    add_labels_flag,
    build_target,
    check_common_flags,
    make_target,
    read_class_names,
    reader_parser,
    say_what_was_done,
    warn_of_empty_classes,
)
from data_gen.normalise import parse_steps
from data_gen.poses.arrays import UPS, pickle_splits
from data_gen.poses.door import Survey, Wishes, survey
from data_gen.poses.forms import FORMS, LISTS, Entry
from data_gen.poses.labels import UNLABELLED, Known, LabelWishes, make_task, short_names
from data_gen.poses.mend import Mending
from data_gen.poses.record import Bad
from data_gen.poses.space import UNITS
from options.datasets import DATASETS
from utils.errors import UserError, run
from utils.files import write_json
from utils.skeleton import LAYOUTS

MOST_PERSONS = 2  # of a clip, unless --persons says more: further ones are mostly passers-by
_SHOWN = 10  # bad files that a message names
_CHUNK = 32  # entries a process reads at a time


@dataclass
class Gathered:
    """What reading gave. known: of each clip, by its full name; packed: the coordinates; persons: the most of any clip;
    bad: name -> reason; mended: clip -> kind of dirt -> how often."""

    packed: PackedClips
    known: dict[str, Known] = field(default_factory=dict)
    persons: int = 1
    bad: dict[str, str] = field(default_factory=dict)
    mended: dict[str, dict[str, int]] = field(default_factory=dict)

    def table(self) -> list[tuple[str, int, int]]:
        """(kind of dirt, clips, how often in all), the most frequent first."""
        clips, times = Counter(), Counter()
        for counts in self.mended.values():
            for what, number in counts.items():
                clips[what] += 1
                times[what] += number
        return sorted(((what, clips[what], times[what]) for what in clips), key=lambda row: (-row[1], row[0]))


class _Chunk:
    """Reads a chunk of entries; picklable."""

    def __init__(self, reader):
        self.reader = reader

    def __call__(self, entries: list[Entry]):
        return [(entry.folders, self.reader(entry)) for entry in entries]


def gather(seen: Survey, packed: PackedClips, workers: int | None) -> Gathered:
    """Reads every entry, once, in processes."""
    found = Gathered(packed)
    entries = seen.entries
    chunks = [entries[i : i + _CHUNK] for i in range(0, len(entries), _CHUNK)]
    workers = workers if len(chunks) > 1 else 1
    with tqdm(total=len(entries), desc="reading", unit="file", disable=None, leave=False) as bar:
        for chunk in ordered_map(_Chunk(seen.reader), chunks, workers):
            for folders, clips in chunk:
                for clip in clips:
                    if isinstance(clip, Bad):
                        found.bad[clip.name] = clip.reason
                    elif clip.name in found.known:
                        found.bad[clip.name] = f"two clips are called {clip.name}"
                    else:
                        found.known[clip.name] = Known(clip.name, folders, clip.label, clip.split, clip.subject)
                        found.persons = max(found.persons, len(clip.array))
                        if clip.mended:
                            found.mended[clip.name] = clip.mended
                        packed.add(clip.name, clip.array)
            bar.update(len(chunk))
    packed.close()
    return found


def refuse_bad(bad: dict[str, str], total: int) -> None:
    """UserError that names the bad files."""
    if bad:
        first, *others = bad.values()
        more = [f"  {reason}" for reason in others[: _SHOWN - 1]]
        more += [f"  ... and {len(bad) - _SHOWN} more"] * (len(bad) > _SHOWN)
        raise UserError(
            f"{len(bad)} of {total} clips cannot be used, and nothing was written; --on-bad skip leaves them out: "
            + "\n".join([first, *more])
        )


class _Renamed:
    """A loader for `build_dataset` by the clips' short names."""

    def __init__(self, packed: PackedClips, full: dict[str, str]):
        self.packed, self.full = packed, full

    def __call__(self, name: str) -> np.ndarray:
        return self.packed(self.full[name])


def _list_of(source: Path, wishes: LabelWishes) -> str | None:
    if wishes.list_file:
        return wishes.list_file
    if source.is_dir():
        return next((str(source / name) for name in LISTS if (source / name).is_file()), None)
    return None


def convert(
    source, data_root, name, *, wishes=None, mending=None, labels=None, normalise="all", on_bad="refuse", **build
):
    """Reads the poses of `source` and writes the data set `name`; returns (Target, BuildReport, lines for the user).

    normalise: steps as text; build: frames and workers of `build_dataset`. UserError for what cannot be read or used;
    nothing is written then."""
    if name in DATASETS:
        raise UserError(f"--name {name} is a known data set with files of its own; give your data another name")
    source, labels = Path(source), labels or LabelWishes()
    seen = survey(source, wishes, mending, on_bad == "skip")
    print("\n".join(f"found  {line}" for line in [f"{len(seen.entries)} files or folders of clips", *seen.lines]))
    folder = Path(data_root) / name
    with building_folder(folder.with_name(f"{name}.clips")) as temporary:
        found = gather(seen, PackedClips(temporary / "clips.raw"), build.get("workers"))
        total = len(found.known) + len(found.bad)
        if on_bad == "refuse":
            refuse_bad(found.bad, total)
        if not found.known:
            raise UserError(
                f"{source}: none of its {total} clips can be used; the first: {next(iter(found.bad.values()))}"
            )
        short = short_names(list(found.known))
        full = {short[name]: name for name in found.known}
        clips = [_renamed(found.known[long], short[long]) for long in found.known]
        task = make_task(clips, full, _list_of(source, labels), _pickled_splits(seen), labels)
        print("\n".join(f"found  {line}" for line in task.lines))
        dimensions = seen.reader.space.dimensions
        steps = parse_steps(normalise, dimensions)
        target = make_target(
            data_root, name, list(task.protocols), task.classes, seen.reader.target.name, found.persons, dimensions
        )
        if task.classes != (UNLABELLED,):
            warn_of_empty_classes(task.labels, task.protocols, task.classes)
        report = build_target(
            target,
            task.protocols,
            task.labels,
            _Renamed(found.packed, full),
            steps=steps,
            source=f"poses of {source.name}",
            on_bad=on_bad,
            dimensions=dimensions,
            details={"found": seen.lines, "labels": task.lines},
            **build,
        )
    _write_report(target.folder / "poses.json", seen, found, task, short)
    return target, report, _closing_lines(found, task, target)


def _renamed(known: Known, name: str) -> Known:
    return Known(name, known.folders, known.label, known.split, known.subject)


def _pickled_splits(seen: Survey) -> dict[str, list[str]]:
    pickles = [entry for entry in seen.entries if entry.form == "pickle"]
    return pickle_splits(pickles[0].path) if len(seen.entries) == 1 and pickles else {}


def _write_report(path: Path, seen: Survey, found: Gathered, task, short: dict[str, str]) -> None:
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


def _closing_lines(found: Gathered, task, target) -> list[str]:
    lines = [""]
    table = found.table()
    if table:
        lines += [f"{'mended':44}{'clips':>8}{'times':>10}"]
        lines += [f"{what:44}{clips:>8}{times:>10}" for what, clips, times in table]
    else:
        lines.append("nothing had to be mended")
    if found.bad:
        lines.append(f"{len(found.bad)} files or clips left out:")
        lines += [f"  {reason}" for reason in list(found.bad.values())[:_SHOWN]]
        if len(found.bad) > _SHOWN:
            lines.append(f"  ... and {len(found.bad) - _SHOWN} more")
    lines += [f"note: {note}" for note in task.notes[:_SHOWN]]
    lines.append(f"all of it, clip by clip: {target.folder / 'poses.json'}")
    return lines


# --- command line ---------------------------------------------------------------------------------------------------


def add_reading_flags(parser: argparse.ArgumentParser) -> None:
    """What overrules what is found in the files."""
    g = parser.add_argument_group("what the files are (found without)")
    g.add_argument("--format", choices=tuple(FORMS), help="read only files of this form, as it")
    g.add_argument("--layout", choices=sorted(LAYOUTS), help="which joint is which")
    g.add_argument(
        "--as", dest="target", choices=sorted(LAYOUTS), help="convert to another layout, such as an encoder's"
    )
    g.add_argument(
        "--axes", default="", help="order of the axes of arrays, such as TVC, CTVM or MTVC (C may hold a score)"
    )
    g.add_argument("--units", choices=[u for u in UNITS if u != "other"], help="of the coordinates")
    g.add_argument("--up", choices=UPS, help="the axis that points up; write --up=-y for a y that points down")
    g.add_argument(
        "--mirror",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether the coordinates are a mirror image",
    )
    g.add_argument("--picture-size", type=int, nargs=2, metavar=("WIDTH", "HEIGHT"), help="for shares of a picture")
    g.add_argument("--dimensions", type=int, choices=(2, 3), help="2 leaves the depth out")


def add_mending_flags(parser: argparse.ArgumentParser) -> None:
    g = parser.add_argument_group("dirt")
    g.add_argument(
        "--min-score", type=float, default=0.0, help="joints with a lower score are not seen; try 0.3 (default 0)"
    )
    g.add_argument(
        "--max-gap",
        type=int,
        default=10,
        metavar="FRAMES",
        help="gaps up to this are filled linearly; at longer ones without a person the clip is cut, and its longest piece stays "
        "(default 10)",
    )
    g.add_argument(
        "--persons", type=int, default=MOST_PERSONS, metavar="M", help="persons kept of a clip (default 2 at most)"
    )
    g.add_argument("--fps", type=float, help="set all clips to this rate of frames")
    g.add_argument("--source-fps", type=float, help="rate of the files that do not say theirs, for --fps")


def add_label_flags(parser: argparse.ArgumentParser) -> None:
    g = parser.add_argument_group("labels and splits")
    g.add_argument(
        "--list", metavar="FILE", help="list of clips, .csv or .json: name, label, and perhaps split, subject"
    )
    g.add_argument("--label-from-name", metavar="REGEX", help="the groups of this pattern, joined, are the class name")
    add_labels_flag(g)
    g.add_argument("--classes", metavar="FILE.txt", help="class names, one a line, in the order of their numbers")
    g.add_argument("--no-labels", action="store_true", help="for pretraining and features only")
    g.add_argument("--by", choices=("class", "subject"), default="class", help="what the test share is drawn from")
    g.add_argument("--val-share", type=float, help="share for the test (default 0.3)")
    g.add_argument("--subject-from-name", metavar="REGEX", help="where the subject is in a name, for --by subject")
    g.add_argument("--val-subjects", nargs="+", default=(), metavar="S", help="these subjects are the test")
    g.add_argument("--val-list", metavar="FILE.txt", help="test clips, a name a line")
    g.add_argument("--seed", type=int, default=0, help="of the drawn split (default 0)")


def parse(argv=None) -> argparse.Namespace:
    parser = reader_parser("from_poses", __doc__)
    parser.add_argument("source", help="folder or file of poses")
    parser.add_argument("--name", required=True, help="the data set's name, which the programs take")
    add_reading_flags(parser)
    add_mending_flags(parser)
    add_label_flags(parser)
    add_common_flags(parser)
    return parser.parse_args(argv)


def check_flags(args) -> None:
    """UserError unless the numbers make sense."""
    check_common_flags(args.frames, args.workers)
    for flag, value, low, high in (
        ("--persons", args.persons, 1, 16),
        ("--max-gap", args.max_gap, 0, 100_000),
        ("--min-score", args.min_score, 0, 1e9),
        ("--fps", args.fps, 0.5, 1000),
        ("--source-fps", args.source_fps, 0.5, 1000),
        ("--val-share", args.val_share, 0, 0.95),
        ("--seed", args.seed, 0, 2**32),
    ):
        if value is not None and not low <= value <= high:
            raise UserError(f"{flag} {value}: expected a number from {low:g} to {high:g}")
    if args.picture_size and min(args.picture_size) < 1:
        raise UserError(f"--picture-size {args.picture_size}: expected width and height in pixels")


def wishes_of(args) -> Wishes:
    return Wishes(
        args.format,
        args.layout,
        args.axes.upper(),
        args.units,
        args.up,
        args.mirror,
        tuple(args.picture_size) if args.picture_size else None,
        args.dimensions,
        args.target,
    )


def label_wishes_of(args) -> LabelWishes:
    return LabelWishes(
        list_file=args.list,
        label_from_name=args.label_from_name,
        labels_from=args.labels_from,
        classes=read_class_names(args.classes) if args.classes else None,
        unlabelled=args.no_labels,
        subject_from_name=args.subject_from_name,
        val_subjects=tuple(args.val_subjects),
        val_list=args.val_list,
        val_share=args.val_share,
        by=args.by,
        seed=args.seed,
    )


def convert_by(args: argparse.Namespace, source) -> None:
    """Makes the data set that the flags ask for out of a source of poses, and says what was done."""
    target, report, lines = convert(
        source,
        args.data_root,
        args.name,
        wishes=wishes_of(args),
        mending=Mending(args.min_score, args.max_gap, args.persons, args.fps, args.source_fps),
        labels=label_wishes_of(args),
        normalise=args.normalise,
        frames=args.frames,
        workers=args.workers,
        on_bad=args.on_bad,
        strict=args.strict,
    )
    print("\n".join(lines))
    print(say_what_was_done(target.folder, report))


def main(argv=None) -> None:
    args = parse(argv)
    check_flags(args)
    convert_by(args, args.source)


if __name__ == "__main__":
    run(main, sys.argv[1:])
