"""Flags that several programs share, and the checks that need no data."""

import argparse
import sys

from options.datasets import PROTOCOLS
from utils.names import POOLS, STREAMS

REPRESENTATIONS = ("graph-based", "seq-based", "image-based")
PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp64")


PRETRAINED = "--pretrained"


class Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults, but not where there is nothing to show."""

    def _get_help_string(self, action):
        if action.default is None or action.default is False or action.default == "":
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """Says a mistake in one sentence, without the page of flags before it, and exits with status 2. Its help begins with the
    flags that most people need (`first`, set after all are added); the others follow under their headings."""

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


def parser(description: str, epilog: str = "", program: str | None = None) -> argparse.ArgumentParser:
    """A parser in the style of all programs; flags may not be shortened, so that a new flag never breaks a script. program:
    the name of one that is started as `python -m NAME`."""
    prog = program and f"python -m {program}"
    return Parser(prog=prog, description=description, epilog=epilog, formatter_class=Formatter, allow_abbrev=False)


def _without_equals(word: str) -> list[str]:
    return word.split("=", 1) if word.startswith(f"{PRETRAINED}=") else [word]


def add_pretrained(g, dest: str, what: str) -> None:
    """--pretrained of a program that needs it; older commands have the path as a word by itself, which stays accepted."""
    g.add_argument(dest, metavar=PRETRAINED, help=argparse.SUPPRESS)
    g.add_argument(PRETRAINED, dest=dest, default=argparse.SUPPRESS, metavar="PATH", help=f"{what} (needed)")


def add_output(g, what: str, default: str | None = None) -> None:
    """--output, a run folder, which the original commands call --checkpoint-path."""
    flags, dest = ("--output", "--checkpoint-path"), "checkpoint_path"
    g.add_argument(*flags, dest=dest, type=place, default=default, metavar="FOLDER", help=what)


def add_resume(g) -> None:
    """--resume of the evaluations that train."""
    g.add_argument(
        "--resume",
        choices=("auto",),
        default=None,
        help="auto: go on with what a stopped run left in the run folder (status 75 after Ctrl-C, SIGTERM or SIGUSR1), or begin "
        "where there is nothing; seeds that are finished are not trained again",
    )


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


def evaluated_on(dataset: str) -> str:
    """What the data set's flag of an evaluation says of itself; dataset: taken where no checkpoint says one."""
    return f"to evaluate on; default: that of the checkpoint, else {dataset}"


def protocol_help(default) -> str:
    """Help of --protocol; default: None where a checkpoint says it."""
    of_checkpoint = "" if default else "; default: that of the checkpoint on its own data set, else cross_subject"
    return f"split of the data set: {', '.join(PROTOCOLS)}, as the data set has them{of_checkpoint}"


def add_data_group(
    p: argparse.ArgumentParser, seed: str, default, what: str, protocol: str | None = "cross_subject", renders=False
):
    """--data-root, --dataset, --protocol, --cache-dir, --clips and -j. seed: what the original commands call --dataset, or
    ''; protocol: default, None for that of a checkpoint; renders: whether threads of the program render batches, else -j is
    accepted and has nothing to do."""
    g = p.add_argument_group("data")
    g.add_argument("--data-root", default="data", help="folder that holds the data sets' folders")
    g.add_argument(
        "--dataset",
        *([seed] if seed else []),
        dest=(seed or "--dataset").removeprefix("--").replace("-", "_"),
        default=default,
        metavar="NAME",
        help=f"data set {what}. One of ntu60, ntu120, pku_v1, pku_v2, ui_prmd and ui_prmd_quality (real clips that come with the "
        "program, made on first use), or the name of any folder under --data-root that holds a dataset.json",
    )
    g.add_argument("--protocol", default=protocol, help=protocol_help(protocol))
    g.add_argument("--cache-dir", default=None, help="where packed clips are cached; default: beside the arrays")
    g.add_argument(
        "--clips",
        choices=("auto", "device", "memory", "mapped"),
        default="auto",
        help="where the packed clips live: on the device, in memory, or memory-mapped from the cache; auto takes the first "
        "that fits in half of what is free",
    )
    g.add_argument(
        "-j",
        "--workers",
        type=number(int, low=0, high=256),
        default=1,
        metavar="N",
        help="threads that render coming batches; 1 is usually enough (the log shows the data time of a step); 0 renders in the "
        "training loop; not used when the clips are on the device; never changes a result"
        if renders
        else "accepted as in older commands; evaluations render their batches where they use them",
    )


def add_encoder(g, without: str, stream: str = "default: that of the checkpoint") -> None:
    """--pretrained, --stream and the representation of an evaluation; without: what is evaluated where no checkpoint is given."""
    what = "checkpoint: ours, the released ones, or a relative's with the encoder under encoder_q"
    g.add_argument(PRETRAINED, default="", metavar="PATH", help=what + without)
    g.add_argument("--stream", choices=STREAMS, default=None, help=stream)
    add_representation(g, "--finetune-skeleton-representation")


def add_seeds(g) -> None:
    """--seed of an evaluation that trains."""
    what = "one or several; several give mean and standard deviation"
    g.add_argument("--seed", type=natural, nargs="+", default=[42], metavar="SEED", help=what)


def refuse_twice(p: argparse.ArgumentParser, args: argparse.Namespace, *names: str) -> None:
    """Ends with a sentence where a list names a value twice."""
    for name in names:
        if len(set(getattr(args, name))) < len(getattr(args, name)):
            given = " ".join(map(str, getattr(args, name)))
            p.error(f"--{name.replace('_', '-')} names a value twice: {given}")


def add_sgd(g, what: str) -> None:
    """--momentum and --wd of SGD. what: kind of momentum."""
    g.add_argument("--momentum", type=number(float, low=0.0, high=0.9999), default=0.9, help=what)
    g.add_argument("--wd", "--weight-decay", dest="weight_decay", type=non_negative, default=0.0, help="weight decay")


def add_other_data(g) -> None:
    """--evaluate-on-other-data of the programs that evaluate an encoder on clips."""
    g.add_argument(
        "--evaluate-on-other-data",
        action="store_true",
        help="go on where the encoder's own data set holds other clips now than it was pretrained on, which is refused "
        "otherwise; the result says so",
    )


def add_machine_group(p: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """--device, --precision, --threads, --seed."""
    g = p.add_argument_group("machine and chance")
    g.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto = cuda where there is one")
    g.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="of the large matrix products: fp32 is exact; tf32 and bf16 are faster where the hardware has them (weights, "
        "states, norms and losses stay float32); fp64 computes everything in float64, for checks; auto = bf16 where the card, "
        "or a processor that computes, has units for it, else fp32; the first line of the log says which, and files keep it",
    )
    g.add_argument(
        "--threads",
        type=positive_int,
        default=None,
        help="CPU threads; default: as torch chooses; another number adds up in another order: after 20 steps of pretraining, "
        "weights that differ by some 5e-3 in float32, by 1e-13 in fp64",
    )
    return g


def add_processes(g) -> None:
    """--timeout-minutes and --local_rank of the programs that torchrun may start several times."""
    g.add_argument(
        "--timeout-minutes",
        type=positive,
        default=30.0,
        help="with several processes (torchrun): how long one waits for the others before the run ends with an error; more "
        "where the first preparation of the clips takes longer, less to notice a process that hangs",
    )
    g.add_argument(
        "--local_rank",
        "--local-rank",
        type=int,
        default=-1,
        help="accepted from older launchers; torchrun needs no flag",
    )


def add_representation(g, flag: str) -> None:
    g.add_argument(
        flag,
        choices=REPRESENTATIONS,
        default="graph-based",
        help="accepted as in the original commands; as there, all three feed the same flattened coordinates of each frame",
    )
