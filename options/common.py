"""Flags that several programs share, the table in which flags are written, and the checks that need no data.

A table of flags reads like the help that it becomes (`add_flags`), a row for each:

    -b --batch-size N:int>=3 = 128  clips a step
    --negatives {$NEGATIVES} = queue
        what a clip is contrasted with: ...

First the names; the value is found under the last one. Then a placeholder for each word that the flag takes, with what the
word must be after a colon: a name of KINDS, or int or float with bounds. {a,b} is a choice. + or * after it: one or more,
any number; ?: one or none; !: it must be given. Then the default, None without one. Then, after two spaces or on the next
lines, the sentence. A row without placeholder is a switch; --[no-]mlp can be switched on and off. $NAME stands for a text
that the caller gives, or for a tuple of utils.names.
"""

import argparse
import dataclasses
import re
import sys
from string import Template

import utils.names as shared
from options.datasets import PROTOCOLS
from utils.names import POOLS

PRETRAINED = "--pretrained"


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but not where there is nothing to show."""

    def _get_help_string(self, action):
        if action.default is None or action.default is False or action.default in ("", []):
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Says a mistake in one sentence, without the page of flags before it, and exits with status 2. Its help begins with the
    flags that most people need (`first`); the others follow under their headings."""

    first: tuple[str, ...] = ()

    def parse_known_args(self, args=None, namespace=None):
        """As usual; where a checkpoint is the first word (`add_pretrained`), --pretrained PATH becomes that word."""
        words = [part for word in (sys.argv[1:] if args is None else args) for part in _without_equals(word)]
        if any(action.metavar == PRETRAINED for action in self._get_positional_actions()) and PRETRAINED in words[:-1]:
            at = words.index(PRETRAINED)
            words = [words[at + 1], *words[:at], *words[at + 2 :]]
        return super().parse_known_args(words, namespace)

    def format_help(self) -> str:
        chosen = [self._option_string_actions[flag] for flag in self.first]
        if not chosen:
            return super().format_help()
        named = [action for action in self._positionals._group_actions if action.help != argparse.SUPPRESS]
        words = " ".join(action.metavar or action.dest for action in named)
        page = self._get_formatter()
        page.add_usage(f"{self.prog}{' ' * bool(words)}{words} [flags]", [], [])
        page.add_text(self.description)
        for title, actions in [("what most people need", [*named, *chosen])] + [
            (group.title, group._group_actions) for group in self._action_groups
        ]:
            rest = [action for action in actions if title == "what most people need" or action not in (*named, *chosen)]
            if rest:
                page.start_section(title)
                page.add_arguments(rest)
                page.end_section()
        page.add_text(self.epilog)
        return page.format_help()

    def error(self, message: str):
        self.exit(2, f"error: {message} (--help explains the flags)\n")


def parser(description: str, epilog: str = "", program: str | None = None, first: str = "") -> Parser:
    """A parser in the style of all programs; flags may not be shortened, so that a new flag never breaks a script. program:
    the name of one that is started as `python -m NAME`; first: the ten flags or less that its help begins with."""
    prog = program and f"python -m {program}"
    p = Parser(prog=prog, description=description, epilog=epilog, formatter_class=Formatter, allow_abbrev=False)
    p.first = tuple(first.split())
    return p


def _without_equals(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith(f"{PRETRAINED}=") else [word]


# -- what a word of the command line must be: argparse types ------------------------------------------------------------------


def number(kind, low=None, high=None, above=None):
    """An argparse type: a finite number of `kind` within low..high (included) and above `above` (excluded)."""

    def convert(text: str):
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"expected a {'whole ' if kind is int else ''}number, got {text!r}"
            ) from None
        if value != value or value in (float("inf"), float("-inf")):
            raise argparse.ArgumentTypeError(f"expected a finite number, got {text!r}")
        if (
            (low is not None and value < low)
            or (high is not None and value > high)
            or (above is not None and value <= above)
        ):
            bounds = [f"at least {low}"] * (low is not None) + [f"more than {above}"] * (above is not None)
            bounds += [f"at most {high}"] * (high is not None)
            raise argparse.ArgumentTypeError(f"expected a number {' and '.join(bounds)}, got {text}")
        return value

    return convert


def place(text: str) -> str:
    """An argparse type: a path; an empty one, as of a variable that is not set, would mean the current folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("expected the name of a folder, got an empty one (. is the current folder)")
    return text


EVERY_POOLING = ("last", "mean", "max", "std", "mean_std", "mean_max", "last_max", "mean_max_std")  # of --pool all


def pooling(text: str) -> str:
    """An argparse type: one of POOLS, or several joined by _, none twice."""
    parts = text.split("_")
    if set(parts) - set(POOLS) or len(set(parts)) < len(parts):
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(POOLS)}, or several like mean_std, got {text!r}")
    return text


def pooling_or_all(text: str) -> str:
    """The same, or all."""
    return text if text == "all" else pooling(text)


positive_int = number(int, low=1)
natural = number(int, low=0, high=2**63 - 1)  # what a seed can be
share = number(float, low=0.0, high=1.0)
non_negative = number(float, low=0.0)
positive = number(float, above=0.0)

KINDS = {
    "": str,
    "place": place,
    "pooling": pooling,
    "pooling_or_all": pooling_or_all,
    "positive_int": positive_int,
    "natural": natural,
    "share": share,
    "non_negative": non_negative,
    "positive": positive,
}

# -- tables of flags ----------------------------------------------------------------------------------------------------------


def add_flags(g, table: str, kinds: dict | None = None, **words: str) -> None:
    """Adds a table of flags (see the module's text) to a parser or a group of one. kinds: argparse types of the table beside
    KINDS, by name; words: texts for $NAME in it."""
    tuples = {name: ",".join(value) for name, value in vars(shared).items() if isinstance(value, tuple)}
    for row in re.split(r"\n(?=\S)", Template(table).substitute(tuples | words).strip()):
        head, _, help = re.sub(r" *\n *", "  ", row).partition("  ")
        _add_flag(g, head, " ".join(help.split()).replace("%", "%%"), KINDS | (kinds or {}))


def _add_flag(g, head: str, help: str, kinds: dict) -> None:
    """One row: its head, and the sentence."""
    head, _, default = head.partition(" = ")
    flags = [word for word in head.split() if word.startswith("-")] or head.split()[:1]
    places = [word for word in head.split() if word not in flags]
    given = {"help": help}
    if flags[0].startswith("-"):
        given["dest"] = flags[-1].replace("[no-]", "").strip("-").replace("-", "_")
    if not places and "[no-]" not in head:
        given["action"] = "store_true"
    elif not places:
        flags = [flag.replace("[no-]", "") for flag in flags]
        given["action"], given["default"] = argparse.BooleanOptionalAction, {"on": True, "off": False}.get(default)
    else:
        given |= _values(places, default, kinds)
    g.add_argument(*flags, **given)


def _values(places: list[str], default: str, kinds: dict) -> dict:
    """What argparse takes for the words that a flag needs, and their default."""
    end = places[-1][-1] if places[-1][-1] in "+*?!" else ""
    shown, kind = zip(*(place.rstrip("+*?!").partition(":")[::2] for place in places), strict=True)
    kind = kinds.get(kind[0]) or _bounded(kind[0])
    several = end in ("+", "*") or len(places) > 1
    given = {"type": kind, "metavar": shown if len(shown) > 1 else shown[0]}
    if shown[0].startswith("{"):
        given = {"choices": tuple(shown[0].strip("{}").split(","))}
    if end == "!":
        given["required"] = True
    elif end or len(places) > 1:
        given["nargs"] = end or len(places)
    if default:
        parts = [kind(part) for part in default.split() if part != '""']
        given["default"] = parts if several else parts[0] if parts else ""
    return given


def _bounded(text: str):
    """The argparse type of int>=3, float>0<=1 and the like."""
    kind = {"int": int, "float": float}[re.match("[a-z]+", text)[0]]
    bounds = {sign: float(n) if "." in n else int(n) for sign, n in re.findall(r"(>=|<=|>)([^<>]+)", text)}
    return number(kind, bounds.get(">="), bounds.get("<="), bounds.get(">"))


# -- groups that several programs share -----------------------------------------------------------------------------------------

PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp64")

DATA_ROOT = """
--data-root FOLDER = data  folder that holds the data sets' folders
"""
DATA = """
$dataset
    data set $what. One of ntu60, ntu120, pku_v1, pku_v2, ui_prmd and ui_prmd_quality (real clips that come with the
    program, made on first use), or the name of any folder under --data-root that holds a dataset.json
--protocol NAME$protocol
--cache-dir FOLDER  where packed clips are cached; default: beside the arrays
--clips {auto,device,memory,mapped} = auto
    where the packed clips live: on the device, in memory, or memory-mapped from the cache; auto takes the first
    that fits in half of what is free
-j --workers N:int>=0<=256 = 1  $workers
"""
WORKERS = (
    "threads that render coming batches; 1 is usually enough (the log shows the data time of a step); 0 renders in the "
    "training loop; not used when the clips are on the device; never changes a result"
)
NO_WORKERS = "accepted as in older commands; evaluations render their batches where they use them"

REPRESENTATION = """
$flag {graph-based,seq-based,image-based} = graph-based
    accepted as in the original commands; as there, all three feed the same flattened coordinates of each frame
"""
ENCODER = """
--pretrained PATH = ""  checkpoint: ours, the released ones, or a relative's with the encoder under encoder_q$without
--stream {$STREAMS}  $stream
"""
OTHER_DATA = """
--evaluate-on-other-data
    go on where the encoder's own data set holds other clips now than it was pretrained on, which is refused
    otherwise; the result says so
"""
RESUME = """
--resume {auto}
    auto: go on with what a stopped run left in the run folder (status 75 after Ctrl-C, SIGTERM or SIGUSR1), or
    begin where there is nothing; seeds that are finished are not trained again
"""
BY_MODE = """
--lr X:positive  learning rate of SGD; default: $lr
-b --batch-size N:positive_int  $samples a step; default: $batch_size
--epochs N:positive_int  passes over the training $samples; default: $epochs
--schedule EPOCH:natural*  epochs at which the rate drops x0.1; default: $schedule
"""
MOMENTUM = """
--momentum X:float>=0.0<=0.9999 = 0.9  $momentum
"""
SGD = f"""{MOMENTUM}
--wd --weight-decay X:non_negative = $decay  weight decay
"""
MACHINE = """
--device {auto,cpu,cuda} = auto  auto = cuda where there is one
--precision {$precisions} = auto
    of the large matrix products: fp32 is exact; tf32 and bf16 are faster where the hardware has them (weights,
    states, norms and losses stay float32); fp64 computes everything in float64, for checks; auto = bf16 where the
    card, or a processor that computes, has units for it, else fp32; the first line of the log says which, and files
    keep it
--threads N:positive_int
    CPU threads; default: as torch chooses; another number adds up in another order: after 20 steps of pretraining,
    weights that differ by some 5e-3 in float32, by 1e-13 in fp64
"""
PROCESSES = """
--timeout-minutes X:positive = 30.0
    with several processes (torchrun): how long one waits for the others before the run ends with an error; more
    where the first preparation of the clips takes longer, less to notice a process that hangs
--local_rank --local-rank N:int = -1  accepted from older launchers; torchrun needs no flag
"""
DEVICE = """
--device {auto,cpu,cuda} = auto  auto = cuda where there is one
--threads N:positive_int  CPU threads; default: as torch chooses$few
"""


def group(p: argparse.ArgumentParser, title: str, *tables: str, kinds: dict | None = None, **words: str):
    """A group of flags under a heading, from one table or several."""
    g = p.add_argument_group(title)
    for table in tables:
        add_flags(g, table, kinds, **words)
    return g


def evaluated_on(dataset: str) -> str:
    """What the data set's flag of an evaluation says of itself; dataset: taken where no checkpoint says one."""
    return f"to evaluate on; default: that of the checkpoint, else {dataset}"


def protocol_help(default) -> str:
    """Help of --protocol; default: None where a checkpoint says it."""
    of_checkpoint = "" if default else "; default: that of the checkpoint on its own data set, else cross_subject"
    return f"split of the data set: {', '.join(PROTOCOLS)}, as the data set has them{of_checkpoint}"


def add_data_group(p, dataset: str, what: str, protocol: str | None = "cross_subject", workers: str = WORKERS) -> None:
    """--data-root, --dataset, --protocol, --cache-dir, --clips and -j. dataset: the head of the row of --dataset; protocol:
    default, None for that of a checkpoint; workers: help of -j, whether threads of the program render batches."""
    shown = f"{protocol and f' = {protocol}' or ''}  {protocol_help(protocol)}"
    group(p, "data", DATA_ROOT, DATA, dataset=dataset, what=what, protocol=shown, workers=workers)


def add_evaluation_data(p: argparse.ArgumentParser, dataset: str) -> None:
    """The same of an evaluation, where a checkpoint says data set and protocol. dataset: taken where none does."""
    add_data_group(p, "--dataset --finetune-dataset NAME", evaluated_on(dataset), None, NO_WORKERS)


def add_encoder(g, without: str, stream: str = "default: that of the checkpoint") -> None:
    """--pretrained, --stream and the representation of an evaluation; without: what is evaluated where no checkpoint is given."""
    add_flags(g, ENCODER + REPRESENTATION, without=without, stream=stream, flag="--finetune-skeleton-representation")


def add_pretrained(g, dest: str, what: str) -> None:
    """--pretrained of a program that needs it; older commands have the path as a word by itself, which stays accepted."""
    g.add_argument(dest, metavar=PRETRAINED, help=argparse.SUPPRESS)
    g.add_argument(PRETRAINED, dest=dest, default=argparse.SUPPRESS, metavar="PATH", help=f"{what} (needed)")


def add_output(g, what: str, default: str = "") -> None:
    """--output, a run folder, which the original commands call --checkpoint-path."""
    add_flags(g, f"--output --checkpoint-path FOLDER:place{default and f' = {default}'}  {what}")


def add_seeds(g, what: str = "one or several; several give mean and standard deviation") -> None:
    """--seed of an evaluation that trains."""
    add_flags(g, f"--seed SEED:natural+ = 42  {what}")


def add_machine_group(p: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """--device, --precision, --threads."""
    return group(p, "machine and chance", MACHINE, precisions=",".join(PRECISIONS))


def from_flags(kind, args: argparse.Namespace, no_flags: tuple[str, ...] = (), **others):
    """A dataclass of which every field is the flag of its name, but for others, which are given, and no_flags, which keep
    their default. AttributeError for a field that is none of them, so that a misspelt name cannot be lost."""
    names = {field.name for field in dataclasses.fields(kind)} - {*no_flags, *others}
    given = {name: getattr(args, name) for name in names}
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}, **others)


def by_mode(modes: dict[str, dict], names) -> dict[str, str]:
    """Words for a table of flags whose defaults depend on the mode. modes: defaults by mode and name; names: of them."""

    def show(value) -> str:
        if isinstance(value, (tuple, list)):
            return " ".join(map(str, value)) or "none"
        return f"{value:g}" if isinstance(value, float) else str(value)

    return {name: ", ".join(f"{mode} {show(given[name])}" for mode, given in modes.items()) for name in names}


def fill(args: argparse.Namespace, values: dict) -> None:
    """Gives every argument that was not given its value."""
    for name, value in values.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def refuse_twice(p: argparse.ArgumentParser, args: argparse.Namespace, *names: str) -> None:
    """Ends with a sentence where a list names a value twice."""
    for name in names:
        if len(set(getattr(args, name))) < len(getattr(args, name)):
            given = " ".join(map(str, getattr(args, name)))
            p.error(f"--{name.replace('_', '-')} names a value twice: {given}")
