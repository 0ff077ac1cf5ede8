"""Flags of tools/ablation.py."""

import argparse
import json
import shlex

from options import classification, common, pretraining
from options.backbones import as_words, encoder_flags
from options.common import add_flags, group

GROUPS = ("views", "losses", "prompts", "mask_ratio")
# Small, for the 1,000 training clips of UI-PRMD: 360 steps a run. Much shorter or slower runs stay below a random encoder.
PRETRAIN = (
    "--hidden-size 128 --num-layers 1 --decoder-hidden-size 64 --batch-size 64 --contrast-k 512 --topk 512 --contrast-m 0.99 "
    "--optimizer adamw --lr 0.003 --epochs 24 --schedule 20 --shear 0.5 --corruption 0.3"
)
LINEAR = "--batch-size 256 --epochs 60 --schedule 30 50 --cache-features"

ROWS = """
--rows FILE.json = ""
    rows of your own instead of --groups, such as benchmarks/recipe_search.json: an object with pretrain_flags and
    linear_flags (used unless the flags of these names are given), and rows, a list of objects with group, name and
    flags
--seeds SEED:natural+ = 1 2 3
    seeds of pretraining and classifier; three or more, since rows often differ by less than seeds do
--pretrain-flags FLAGS
    flags of every pretraining, in quotes (a single flag after =, like --pretrain-flags=--cos); more epochs and a
    larger --hidden-size come closer to the paper's run, and take longer; default: $pretrain
--linear-flags FLAGS
    flags of every linear evaluation, in quotes; without --cache-features it is the exact protocol; default: $linear
--output FOLDER = runs/ablation
    folder for a run folder of each run, and for table.md and table.json, which are updated after every run
--jobs N:positive_int = 1
    number of runs in parallel: 4 to 16 on a GPU with memory for several small encoders; on a CPU the number of
    cores, with --threads 1
--dry-run  print the command lines and stop
"""
PARTS = """
--groups {$groups}+
    what to remove or vary: contrasted views, losses, prompts, share of hidden body parts; default: all, unless --row
    is given; each group includes the full method, which is run once
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Ablations: pretrains and evaluates (linear and 1-NN) for every row and seed, and writes a table of the results.",
        "To resume, run the same command again: finished runs are not repeated, an interrupted one is resumed. --dry-run "
        "prints the command line of each row. The defaults are small, to compare rows on UI-PRMD; for a table of the paper's "
        'runs give --pretrain-flags "" --linear-flags "".',
        program="tools.ablation",
        first="--dataset --protocol --data-root --groups --row --seeds --pretrain-flags --output --jobs --dry-run",
    )
    common.add_data_group(p, "--dataset NAME = ui_prmd_quality", "to pretrain and to evaluate on")
    g = group(p, "ablation", PARTS, groups=",".join(GROUPS))
    g.add_argument(
        "--row",
        action="append",
        default=[],
        metavar="NAME=FLAGS",
        help="a row of your own, in quotes, in addition to --groups, or, without --groups, to the full method: "
        "--row 'less masking=--mask-ratio 0.4 --mask-segments 4'; can be given several times",
    )
    add_flags(g, ROWS, pretrain=PRETRAIN, linear=LINEAR)
    common.add_machine_group(p)
    return p


def parse_args(argv=None) -> argparse.Namespace:
    """Parsed and checked arguments; pretrain_flags and linear_flags are lists of words."""
    p = build_parser()
    args = p.parse_args(argv)
    common.refuse_twice(p, args, "seeds")
    own = read_rows(args.rows, p.error) if args.rows else {}
    args.rows = own.get("rows")
    for name, default in (("pretrain_flags", PRETRAIN), ("linear_flags", LINEAR)):
        given = getattr(args, name)
        try:
            setattr(args, name, shlex.split(own.get(name, default) if given is None else given))
        except ValueError as error:
            p.error(f"--{name.replace('_', '-')}: {error}")
    if not any(word.split("=")[0] == "--recipe" for word in args.pretrain_flags):
        # a recipe by the number of clips would change more than what a row changes
        args.pretrain_flags = ["--recipe", "paper", *args.pretrain_flags]
    classification.parse_args(["--mode", "linear", *args.linear_flags])  # refuses wrong flags now, not after hours
    if args.rows is not None and (args.row or args.groups is not None):
        p.error("--rows reads all rows from its file; remove --row and --groups")
    args.row = [read_row(text, p.error) for text in args.row]
    groups = ([] if args.row else GROUPS) if args.groups is None else args.groups
    args.groups = [name for name in GROUPS if name in groups]
    return args


def read_row(text: str, refuse) -> tuple[str, str, tuple[str, ...]]:
    """(group, name, flags) of NAME=FLAGS. Calls `refuse` with a sentence for other text and for unknown flags."""
    name, equals, flags = text.partition("=")
    try:
        words = shlex.split(flags)
    except ValueError as error:
        refuse(f"--row {text!r}: {error}")
    if not (name.strip() and equals and words) or name.startswith("--"):
        refuse(f"--row {text!r}: expected NAME=FLAGS in quotes, such as 'less masking=--mask-ratio 0.4'")
    known = {flag for action in pretraining.build_parser()._actions for flag in action.option_strings}
    for word in words:
        if word.startswith("--") and word.split("=")[0] not in known:
            refuse(
                f"--row {text!r}: pretraining has no flag {word.split('=')[0]}; python pretrain_moco_mask.py --help lists them"
            )
    return "own", name.strip(), tuple(words)


def read_rows(path: str, refuse) -> dict:
    """The content of a file of rows: pretrain_flags, linear_flags (text) and rows, a list of (group, name, flags). Calls
    `refuse` with a sentence for a file that is missing or wrong."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        rows = [(row["group"], row["name"], tuple(shlex.split(row["flags"]))) for row in content["rows"]]
        flags = {name: content[name] for name in ("pretrain_flags", "linear_flags") if name in content}
        if not all(isinstance(text, str) for row in rows for text in (*row[:2], *row[2])):
            raise TypeError("group and name must be text")
        [shlex.split(text) for text in flags.values()]
    except OSError as error:
        refuse(f"--rows {path}: {error.strerror}")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        refuse(f"--rows {path}: expected an object with rows, each with group, name and flags as text ({error})")
    return {"rows": rows, **flags}


def encoder_words(flags: list[str]) -> list[str]:
    """Backbone, sizes, pooling, scaling and stream among the flags of a pretraining, as words of a command line. Ends the
    program for a wrong flag."""
    args = pretraining.parse_args(flags)
    if args.recipe == "small":
        pretraining.apply_recipe(args, clips=1_000)  # the encoder is the same for every number of clips
    return as_words(encoder_flags(args)) + (["--stream", args.stream] if args.stream != "joint" else [])
