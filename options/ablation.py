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
    linear_flags, given to every run (unless the flags of these names are), and rows, a list of objects with group,
    name and flags
--seeds SEED:natural+ = 1 2 3
    of pretraining and classifier; three or more, since rows often differ by less than seeds do
--pretrain-flags FLAGS
    given to every pretraining, in one pair of quotes (a single word after =, like --pretrain-flags=--cos); more
    epochs and a larger --hidden-size bring it nearer to the paper's, and cost time; if not given: $pretrain
--linear-flags FLAGS
    given to every linear evaluation, in the same way; without --cache-features it is the exact protocol; if not
    given: $linear
--output FOLDER = runs/ablation
    a folder for each run, and table.md and table.json, which are up to date after every run
--jobs N:positive_int = 1
    runs at a time; on a card with room for several small encoders 4 to 16, on a processor its cores, with --threads
    1
--dry-run  print the command lines and stop
"""
PARTS = """
--groups {$groups}+
    which part is taken away or varied: contrasted views, losses, prompts, share of hidden body parts; all of them
    if neither this nor --row is given; the full method is in each group and is run once
"""


def build_parser() -> argparse.ArgumentParser:
    p = common.parser(
        "Ablations: pretrains, evaluates linearly and by 1-NN, once for every row and seed, and makes a table of it.",
        "Runs that are finished are not repeated, an interrupted one is resumed: give the same command again. Every row is a "
        "command line that --dry-run prints. The defaults are small, to compare rows on UI-PRMD; for a real table give "
        'the paper\'s run: --pretrain-flags "" --linear-flags "".',
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
        help="a row of your own, in quotes, beside those of --groups, or beside the full method where that is not given: "
        "--row 'less masking=--mask-ratio 0.4 --mask-segments 4'; may be given several times",
    )
    add_flags(g, ROWS, pretrain=PRETRAIN, linear=LINEAR)
    common.add_machine_group(p)
    return p


def parse_args(argv=None) -> argparse.Namespace:
    """Parsed and checked arguments; pretrain_flags and linear_flags become lists of words."""
    p = build_parser()
    args = p.parse_args(argv)
    common.refuse_twice(p, args, "seeds")
    own = read_rows(args.rows, p.error) if args.rows else {}
    args.rows = own.get("rows")
    for name, usual in (("pretrain_flags", PRETRAIN), ("linear_flags", LINEAR)):
        given = getattr(args, name)
        try:
            setattr(args, name, shlex.split(own.get(name, usual) if given is None else given))
        except ValueError as error:
            p.error(f"--{name.replace('_', '-')}: {error}")
    if not any(word.split("=")[0] == "--recipe" for word in args.pretrain_flags):
        args.pretrain_flags = [
            "--recipe",
            "paper",
            *args.pretrain_flags,
        ]  # not by the number of clips: rows change one thing
    classification.parse_args(["--mode", "linear", *args.linear_flags])  # wrong ones are refused now, not after hours
    if args.rows is not None and (args.row or args.groups is not None):
        p.error("--rows has all rows in its file; leave --row and --groups out")
    args.row = [read_row(text, p.error) for text in args.row]
    groups = ([] if args.row else GROUPS) if args.groups is None else args.groups
    args.groups = [name for name in GROUPS if name in groups]
    return args


def read_row(text: str, refuse) -> tuple[str, str, tuple[str, ...]]:
    """(group, name, flags) of NAME=FLAGS; exits with a sentence for another text, and for flags that pretraining lacks."""
    name, equals, flags = text.partition("=")
    try:
        words = shlex.split(flags)
    except ValueError as error:
        refuse(f"--row {text!r}: {error}")
    if not (name.strip() and equals and words) or name.startswith("--"):
        refuse(f"--row {text!r}: expected NAME=FLAGS in one pair of quotes, such as 'less masking=--mask-ratio 0.4'")
    known = {flag for action in pretraining.build_parser()._actions for flag in action.option_strings}
    for word in words:
        if word.startswith("--") and word.split("=")[0] not in known:
            refuse(
                f"--row {text!r}: pretraining has no flag {word.split('=')[0]}; python pretrain_moco_mask.py --help lists them"
            )
    return "own", name.strip(), tuple(words)


def read_rows(path: str, refuse) -> dict:
    """The content of a file of rows: pretrain_flags, linear_flags (text) and rows, a list of (group, name, flags)."""
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
    """Backbone, sizes, pooling, scaling and stream among the flags of a pretraining, as words; exits with its message for a
    wrong flag."""
    args = pretraining.parse_args(flags)
    if args.recipe == "small":
        pretraining.apply_recipe(args, clips=1_000)  # the encoder is the same for every number of clips
    return as_words(encoder_flags(args)) + (["--stream", args.stream] if args.stream != "joint" else [])
