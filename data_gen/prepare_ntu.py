"""Prepares NTU RGB+D from its raw `.skeleton` files: every protocol of a data set in one pass over the files.

    python -m data_gen.prepare_ntu --dataset ntu60 --raw nturgbd_skeletons_s001_to_s017.zip --data-root data
    python -m data_gen.prepare_ntu --dataset ntu120 --data-root data \\
        --raw nturgbd_skeletons_s001_to_s017.zip nturgbd_skeletons_s018_to_s032.zip

The zip archives are read where they lie. Written: <data root>/ntu60/{xsub,xview} or <data root>/ntu120/{xsub,xset},
each with train and val arrays, labels, frame counts, and `preparation.json`, which says what made them. A folder
appears under its name only when it is whole; an interrupted run leaves none, and a rerun starts anew.
"""

import argparse
from functools import partial
from pathlib import Path

from data_gen import protocols as rules
from data_gen.from_files import HOW, Source, add_flags, prepare, reader_parser
from data_gen.raw_files import Where, find_files
from data_gen.raw_ntu import SELECTIONS, read_named
from options.datasets import DATASETS
from utils.errors import UserError, run

SUFFIX = ".skeleton"


def parse_args(argv=None) -> argparse.Namespace:
    parser = reader_parser("prepare_ntu", __doc__)
    g = parser.add_argument_group("what")
    text = "ntu60: setups 1-17, 60 classes, 56,578 clips; ntu120: setups 1-32, 120 classes, 113,945 clips, needs both archives"
    g.add_argument("--dataset", dest="name", choices=("ntu60", "ntu120"), required=True, help=text)
    text = "folders of .skeleton files (searched to any depth), the original zip archives, or a folder that holds those; what "
    text += "belongs to the other data set is passed over"
    g.add_argument("--raw", nargs="+", required=True, metavar="PATH", help=text)
    text = "only these protocols (default: both of the data set; each takes 10 GB for ntu60, 21 GB for ntu120)"
    g.add_argument("--protocols", nargs="+", choices=("cross_subject", "cross_view", "cross_setup"), help=text)
    text = "recordings to leave out: builtin (default) is the owners' list of 535 missing or incomplete skeletons (302 in ntu60), "
    text += (
        "which all published counts assume; none keeps all; a FILE holds names like S001C002P005R002A008, one a line"
    )
    g.add_argument("--ignored", default="builtin", metavar="builtin|none|FILE", help=text)
    text = (
        "prepare what is there even when the clips are not as many as published (for trying out on a part); without it "
    )
    text += "another count is refused before anything is written"
    g.add_argument("--partial", action="store_true", help=text)
    text = "which two of the bodies become persons 1 and 2: slot (default) takes bodies by their place in each frame, as the "
    text += (
        "released preparation and all published numbers do; id follows them by their id, cleaner where they come and go"
    )
    g.add_argument("--bodies", choices=SELECTIONS, default="slot", help=text)
    add_flags(parser.add_argument_group("how"), *HOW)
    return parser.parse_args(argv)


def ignored_names(choice: str) -> frozenset[str]:
    """The names that --ignored stands for; UserError when a file is missing or a line is no NTU name."""
    if choice == "none":
        return frozenset()
    if choice == "builtin":
        return rules.ntu_missing()
    path = Path(choice)
    if not path.is_file():
        raise UserError(f"--ignored {choice}: there is no such file; give builtin, none, or a file with a name a line")
    names = set()
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        name = line.strip().decode("utf-8", "replace").removesuffix(SUFFIX)
        if name and rules.ntu_name(name) is None:
            raise UserError(f"{path}, line {number}: {name[:40]!r} is no name like S001C002P005R002A008")
        names.add(name)
    return frozenset(names - {""})


def choose(dataset: str, files: dict[str, Where], ignored) -> tuple[list[str], dict[str, int]]:
    """The names that belong to the data set, sorted, and how many files were passed over for which reason."""
    names, passed = [], {"other name": 0, "other data set": 0, "ignored": 0}
    for name in sorted(files):
        parts = rules.ntu_name(name)
        if parts is None:
            passed["other name"] += 1
        elif not rules.in_ntu(dataset, parts):
            passed["other data set"] += 1
        elif name in ignored:
            passed["ignored"] += 1
        else:
            names.append(name)
    return names, passed


def main(argv=None) -> None:
    args = parse_args(argv)
    row = DATASETS[args.name]
    wrong = sorted(set(args.protocols or ()) - set(row.protocols))
    if wrong:
        raise UserError(f"{args.name} has no protocol {wrong[0]}; it has {' and '.join(row.protocols)}")
    ignored = ignored_names(args.ignored)
    files = find_files(args.raw, SUFFIX)
    names, passed = choose(args.name, files, ignored)
    print(f"{len(files):,} files, {len(names):,} clips of {args.name}; passed over: ", end="")
    print(", ".join(f"{count:,} {reason}" for reason, count in passed.items()))
    protocols = rules.ntu_protocols(args.name, names, args.protocols)
    if not args.partial:
        hint = "give all archives to --raw (and --ignored builtin), or add --partial to prepare what is there"
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
