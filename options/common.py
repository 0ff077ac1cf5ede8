"""What the parsers of all programs share: the parser class, argparse types, tables of flags, and groups of flags.

Flags are written as a table, one row each, that looks like the help made of it (`add_flags`):

    -b --batch-size N:int>=3 = 128  clips in a batch
    --negatives {$NEGATIVES} = queue
        what a clip is contrasted with: ...

A row has the names of the flag (the last one names its value in the parsed arguments); then for each word that the flag takes
a placeholder, with its type after a colon: a name in KINDS, or int or float with bounds; {a,b} is a choice; + or * after the
placeholder: one or more, any number; ?: optional; !: the flag is required; then the default, if it is not None; then, after
two spaces or on the following lines, the help. A row without placeholder is a switch; --[no-]mlp can be switched on and off.
$NAME is replaced by a text of the caller, or by a tuple of utils.names.
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
    """Appends the default to the help of a flag, as it would be typed, unless it is None, False, empty or suppressed."""

    def _get_help_string(self, action):
        default = action.default
        if default is None or default is False or default in ("", [], argparse.SUPPRESS):
            return action.help
        return f"{action.help} (default: {as_typed(default).replace('%', '%%')})"


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one sentence, without the usage, and exits with status 2. Its help begins with the most used flags
    (`first`); the others follow in their groups."""

    first: tuple[str, ...] = ()

    def parse_known_args(self, args=None, namespace=None):
        """As in argparse; --pretrained PATH becomes the positional checkpoint, if there is one (see `add_pretrained`)."""
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


def as_typed(value) -> str:
    """A default as one would type it: lists with spaces, on or off for a switch, none for an empty list."""
    if isinstance(value, (tuple, list)):
        return " ".join(map(as_typed, value)) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def parser(description: str, epilog: str = "", program: str | None = None, first: str = "") -> Parser:
    """A parser in the style of all programs. Flags cannot be abbreviated, so that a new flag never breaks a script. program:
    NAME of a program that is started as `python -m NAME`; first: at most ten flags with which the help begins."""
    prog = program and f"python -m {program}"
    p = Parser(prog=prog, description=description, epilog=epilog, formatter_class=Formatter, allow_abbrev=False)
    p.first = tuple(first.split())
    return p


def _without_equals(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith(f"{PRETRAINED}=") else [word]


# -- argparse types -----------------------------------------------------------------------------------------------------------


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
    """An argparse type: a path that is not empty (an empty one, as from an unset variable, would be the current folder)."""
    if not text.strip():
        raise argparse.ArgumentTypeError("expected the name of a folder, got an empty one (. is the current folder)")
    return text


EVERY_POOLING = ("last", "mean", "max", "std", "mean_std", "mean_max", "last_max", "mean_max_std")  # of --pool all


def pooling(text: str) -> str:
    """An argparse type: one of POOLS, or several different ones joined by _."""
    parts = text.split("_")
    if set(parts) - set(POOLS) or len(set(parts)) < len(parts):
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(POOLS)}, or several like mean_std, got {text!r}")
    return text


def pooling_or_all(text: str) -> str:
    """An argparse type: a pooling, or all."""
    return text if text == "all" else pooling(text)


positive_int = number(int, low=1)
natural = number(int, low=0, high=2**63 - 1)  # the range of seeds
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
    """Adds a table of flags (see the module's docstring) to a parser or a group. kinds: further argparse types, by name;
    words: texts for $NAME in the table."""
    tuples = {name: ",".join(value) for name, value in vars(shared).items() if isinstance(value, tuple)}
    for row in re.split(r"\n(?=\S)", Template(table).substitute(tuples | words).strip()):
        head, _, help = re.sub(r" *\n *", "  ", row).partition("  ")
        _add_flag(g, head, " ".join(help.split()).replace("%", "%%"), KINDS | (kinds or {}))


def _add_flag(g, head: str, help: str, kinds: dict) -> None:
    """Adds one row of a table. head: names, placeholders and default."""
    head, _, default = head.partition(" = ")
    flags = [word for word in head.split() if word.startswith("-")] or head.split()[:1]
    placeholders = [word for word in head.split() if word not in flags]
    settings = {"help": help}
    if flags[0].startswith("-"):
        settings["dest"] = flags[-1].replace("[no-]", "").strip("-").replace("-", "_")
    if not placeholders and "[no-]" not in head:
        settings["action"] = "store_true"
    elif not placeholders:
        flags = [flag.replace("[no-]", "") for flag in flags]
        settings["action"] = argparse.BooleanOptionalAction
        settings["default"] = {"on": True, "off": False}.get(default)
    else:
        settings |= _values(placeholders, default, kinds)
    g.add_argument(*flags, **settings)


def _values(placeholders: list[str], default: str, kinds: dict) -> dict:
    """The arguments of argparse's add_argument for the values of a flag."""
    end = placeholders[-1][-1] if placeholders[-1][-1] in "+*?!" else ""
    shown, kind = zip(*(word.rstrip("+*?!").partition(":")[::2] for word in placeholders), strict=True)
    kind = kinds.get(kind[0]) or _bounded(kind[0])
    several = end in ("+", "*") or len(placeholders) > 1
    settings = {"type": kind, "metavar": shown if len(shown) > 1 else shown[0]}
    if shown[0].startswith("{"):
        settings = {"choices": tuple(shown[0].strip("{}").split(","))}
    if end == "!":
        settings["required"] = True
    elif end or len(placeholders) > 1:
        settings["nargs"] = end or len(placeholders)
    if default:
        parts = [kind(part) for part in default.split() if part != '""']
        settings["default"] = parts if several else parts[0] if parts else ""
    return settings


def _bounded(text: str):
    """The argparse type of a text such as int>=3 or float>0.0<=1.0."""
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
    data set $what: ntu60, ntu120, pku_v1, pku_v2, ui_prmd or ui_prmd_quality (real clips that come with this
    project, prepared on first use), or the name of a folder under --data-root that holds a dataset.json$fallback
--protocol NAME$protocol
--cache-dir FOLDER  folder for the cache of packed clips; default: beside the arrays
--clips {auto,device,memory,mapped} = auto
    where to keep the packed clips: on the device, in memory, or memory-mapped from the cache; auto: the first in
    which they need less than half of the free memory
-j --workers N:int>=0<=256 = 1  $workers
"""
WORKERS = (
    "threads that render batches ahead; 1 is usually enough (the log shows the data time of a step); 0 renders in the "
    "training loop; not used if the clips are on the device; does not change results"
)
NO_WORKERS = "accepted for older commands, without effect: evaluations render batches without threads"

REPRESENTATION = """
$flag {graph-based,seq-based,image-based} = graph-based
    accepted for the original commands; as in the original code, all three feed the same flattened coordinates
"""
ENCODER = """
--pretrained PATH = ""
    checkpoint: of this project, of the original release, or of a related method with the encoder under
    encoder_q$without
--stream {$STREAMS}  $stream
"""
OTHER_DATA = """
--evaluate-on-other-data
    evaluate even if the clips of the encoder's own data set have changed since it was pretrained, which is refused
    otherwise; the result notes it
"""
RESUME = """
--resume {auto}
    auto: resume the stopped run in the run folder (exit status 75 after Ctrl-C, SIGTERM or SIGUSR1), or start a new
    one if there is none; finished seeds are not trained again
"""
BY_MODE = """
--lr X:positive  learning rate of SGD; default: $lr
-b --batch-size N:positive_int  $samples in a batch; default: $batch_size
--epochs N:positive_int  passes over the training $samples; default: $epochs
--schedule EPOCH:natural*  epochs at which the learning rate is multiplied by 0.1; default: $schedule
"""
MOMENTUM = """
--momentum X:float>=0.0<=0.9999 = 0.9  $momentum
"""
SGD = f"""{MOMENTUM}
--wd --weight-decay X:non_negative = $decay  weight decay
"""
MACHINE = """
--device {auto,cpu,cuda} = auto  auto: cuda if there is a GPU, else cpu
--precision {$precisions} = auto
    precision of the large matrix products: fp32 is exact; tf32 and bf16 are faster on hardware that supports them (weights,
    states, norms and losses stay float32); fp64 computes everything in float64, for checks; auto: bf16 if the GPU or
    CPU has units for it, else fp32. The log and all files say which
--threads N:positive_int
    CPU threads; default: torch's; another number changes the order of sums: after 20 steps of pretraining, weights
    differ by about 5e-3 in float32, 1e-13 in fp64
"""
PROCESSES = """
--timeout-minutes X:positive = 30.0
    with several processes (torchrun): how long a process waits for the others before the run ends with an error;
    longer if the first preparation of the clips needs more time, shorter to notice a process that hangs
--local_rank --local-rank N:int = -1  accepted for older launchers; torchrun does not need it
"""
DEVICE = """
--device {auto,cpu,cuda} = auto  auto: cuda if there is a GPU, else cpu
--threads N:positive_int  CPU threads; default: torch's$few
"""


def group(p: argparse.ArgumentParser, title: str, *tables: str, kinds: dict | None = None, **words: str):
    """Adds a group of flags with a heading, from one or several tables; returns it."""
    g = p.add_argument_group(title)
    for table in tables:
        add_flags(g, table, kinds, **words)
    return g


def default_dataset(dataset: str) -> str:
    """The end of the help of --dataset in an evaluation; dataset: the default without a checkpoint."""
    return f"; default: that of the checkpoint, else {dataset}"


def protocol_help(default) -> str:
    """Help of --protocol; default: None for that of the checkpoint."""
    of_checkpoint = "" if default else "; default: that of the checkpoint on its own data set, else cross_subject"
    return f"split of the data set, one of those it has: {', '.join(PROTOCOLS)}{of_checkpoint}"


def add_data_group(p, dataset: str, what: str) -> None:
    """--data-root, --dataset, --protocol, --cache-dir, --clips and -j, for a program that pretrains. dataset: names,
    placeholder and default of --dataset; what: what it is for."""
    protocol = f" = cross_subject  {protocol_help('cross_subject')}"
    words = {"dataset": dataset, "what": what, "fallback": "", "protocol": protocol, "workers": WORKERS}
    group(p, "data", DATA_ROOT, DATA, **words)


def add_evaluation_data(p: argparse.ArgumentParser, dataset: str) -> None:
    """The same for an evaluation, whose defaults are the checkpoint's data set and protocol; dataset: the default without a
    checkpoint."""
    words = {"dataset": "--dataset --finetune-dataset NAME", "what": "to evaluate on", "workers": NO_WORKERS}
    words |= {"fallback": default_dataset(dataset), "protocol": f"  {protocol_help(None)}"}
    group(p, "data", DATA_ROOT, DATA, **words)


def add_encoder(g, without: str, no_checkpoint: str = "") -> None:
    """--pretrained, --stream and the representation for an evaluation; without: help on what is evaluated without a
    checkpoint; no_checkpoint: help on the stream without one."""
    stream = f"stream of the encoder; default: that of the checkpoint{no_checkpoint}"
    add_flags(g, ENCODER + REPRESENTATION, without=without, stream=stream, flag="--finetune-skeleton-representation")


def add_pretrained(g, dest: str, what: str) -> None:
    """--pretrained of a program that requires it; a positional path, as in older commands, is also accepted."""
    g.add_argument(dest, metavar=PRETRAINED, help=argparse.SUPPRESS)
    g.add_argument(PRETRAINED, dest=dest, default=argparse.SUPPRESS, metavar="PATH", help=f"{what} (required)")


def add_output(g, what: str, default: str = "") -> None:
    """--output, the run folder; the original commands call it --checkpoint-path."""
    add_flags(g, f"--output --checkpoint-path FOLDER:place{default and f' = {default}'}  {what}")


def add_seeds(g, what: str = "one or several seeds; several give mean and standard deviation") -> None:
    """--seed of an evaluation that trains."""
    add_flags(g, f"--seed SEED:natural+ = 42  {what}")


def add_machine_group(p: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """--device, --precision, --threads."""
    return group(p, "machine and seed", MACHINE, precisions=",".join(PRECISIONS))


def from_flags(kind, args: argparse.Namespace, no_flags: tuple[str, ...] = (), **others):
    """The dataclass `kind`, whose fields are set from the flags of the same name, except `others`, which are given, and
    `no_flags`, which keep their default. AttributeError for a field without a flag, so that a misspelt name is noticed."""
    names = {field.name for field in dataclasses.fields(kind)} - {*no_flags, *others}
    values = {name: getattr(args, name) for name in names}
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}, **others)


def by_mode(modes: dict[str, dict], names) -> dict[str, str]:
    """The defaults of flags as text, for a table whose defaults depend on the mode. modes: defaults by mode and name; names:
    of the flags."""
    return {name: ", ".join(f"{mode} {as_typed(values[name])}" for mode, values in modes.items()) for name in names}


def fill(args: argparse.Namespace, values: dict) -> None:
    """Sets the arguments that are None to `values` (in place)."""
    for name, value in values.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def refuse_twice(p: argparse.ArgumentParser, args: argparse.Namespace, *names: str) -> None:
    """Ends the program with an error if a list flag has a value twice."""
    for name in names:
        if len(set(getattr(args, name))) < len(getattr(args, name)):
            given = " ".join(map(str, getattr(args, name)))
            p.error(f"--{name.replace('_', '-')} names a value twice: {given}")
