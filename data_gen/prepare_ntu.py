"""Makes NTU RGB+D from its raw `.skeleton` files: all protocols of a data set in one pass over the files.

    python -m data_gen.prepare_ntu --dataset ntu60 --raw nturgbd_skeletons_s001_to_s017.zip --data-root data
    python -m data_gen.prepare_ntu --dataset ntu120 --data-root data \\
        --raw nturgbd_skeletons_s001_to_s017.zip nturgbd_skeletons_s018_to_s032.zip

Zip archives are read without unpacking. Output: <data root>/ntu60/{xsub,xview} or <data root>/ntu120/{xsub,xset}, each
with arrays, labels and frame counts of train and val, and `preparation.json`, which says how they were made. A folder
appears under its name only when it is complete; an interrupted run leaves nothing, and a new run starts from the beginning.
"""

import argparse
from functools import partial
from pathlib import Path

from data_gen import protocols as rules
from data_gen.from_files import HOW, Source, add_flags, prepare, reader_parser
from data_gen.raw_files import Where, find_files
from data_gen.raw_ntu import read_named
from options.datasets import DATASETS
from utils.errors import UserError, run

SUFFIX = ".skeleton"


FLAGS = """
--dataset {ntu60,ntu120}!
    ntu60: setups 1-17, 60 classes, 56,578 clips; ntu120: setups 1-32, 120 classes, 113,945 clips, needs both archives
--protocols {cross_subject,cross_view,cross_setup}+
    only these protocols; default: both of the data set; each takes 10 GB for ntu60, 21 GB for ntu120
--ignored builtin|none|FILE = builtin
    recordings to leave out: builtin is the owners' list of 535 missing or incomplete skeletons (302 in ntu60), which all
    published counts assume; none keeps all; a FILE holds names like S001C002P005R002A008, one per line
--partial
    prepare the clips that are there even if they are fewer than published, to try out a part; without it another number
    is refused before anything is written
--bodies {slot,id} = slot
    how bodies become persons 1 and 2: slot takes bodies by their position in each frame, as the released preparation and
    all published numbers do; id follows them by their id, which is cleaner where bodies appear and disappear
"""


def parse_args(argv=None) -> argparse.Namespace:
    parser = reader_parser("prepare_ntu", __doc__)
    text = (
        "folders of .skeleton files (searched recursively), the original zip archives, or a folder that contains them; "
    )
    text += "clips of the other data set are skipped"
    parser.add_argument("--raw", nargs="+", required=True, metavar="PATH", help=text)
    add_flags(parser, table=FLAGS)
    add_flags(parser, *HOW)
    args = parser.parse_args(argv)
    args.name = args.dataset  # `prepare` writes the data set of this name
    return args


def ignored_names(choice: str) -> frozenset[str]:
    """The clip names that --ignored leaves out; UserError when a file is missing or a line is not an NTU name."""
    if choice == "none":
        return frozenset()
    if choice == "builtin":
        return rules.ntu_missing()
    path = Path(choice)
    if not path.is_file():
        raise UserError(
            f"--ignored {choice}: there is no such file; give builtin, none, or a file with one name per line"
        )
    names = set()
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        name = line.strip().decode("utf-8", "replace").removesuffix(SUFFIX)
        if name and rules.ntu_name(name) is None:
            raise UserError(f"{path}, line {number}: {name[:40]!r} is not a name like S001C002P005R002A008")
        names.add(name)
    return frozenset(names - {""})


def choose(dataset: str, files: dict[str, Where], ignored) -> tuple[list[str], dict[str, int]]:
    """(sorted names of the data set's clips, reason -> number of files that are skipped)."""
    names, skipped = [], {"other name": 0, "other data set": 0, "ignored": 0}
    for name in sorted(files):
        parts = rules.ntu_name(name)
        if parts is None:
            skipped["other name"] += 1
        elif not rules.in_ntu(dataset, parts):
            skipped["other data set"] += 1
        elif name in ignored:
            skipped["ignored"] += 1
        else:
            names.append(name)
    return names, skipped


def main(argv=None) -> None:
    args = parse_args(argv)
    row = DATASETS[args.name]
    wrong = sorted(set(args.protocols or ()) - set(row.protocols))
    if wrong:
        raise UserError(f"{args.name} has no protocol {wrong[0]}; it has {' and '.join(row.protocols)}")
    ignored = ignored_names(args.ignored)
    files = find_files(args.raw, SUFFIX)
    names, skipped = choose(args.name, files, ignored)
    print(f"{len(files):,} files, {len(names):,} clips of {args.name}; skipped: ", end="")
    print(", ".join(f"{count:,} {reason}" for reason, count in skipped.items()))
    protocols = rules.ntu_protocols(args.name, names, args.protocols)
    if not args.partial:
        hint = (
            "give all archives to --raw (and --ignored builtin), or add --partial to prepare the clips that are there"
        )
        rules.check_counts(args.name, protocols, row.counts, "clips", hint)
    details = {
        "dataset": args.name,
        "bodies": args.bodies,
        "ignored": args.ignored if args.ignored in ("builtin", "none") else sorted(ignored),
    }
    labels = {name: rules.ntu_name(name).action - 1 for name in names}
    text = f"{args.name}, raw .skeleton files"
    source = Source(text, protocols, labels, row.num_classes, row.persons, details=details)
    load = partial(read_named, {name: files[name] for name in names}, args.bodies, row.persons)
    print(prepare(args, source, load)[1])


if __name__ == "__main__":
    run(main)
