"""What pretraining uses where no flag is given: the paper's run, or a recipe for small sets.

`paper` are the defaults of the flags. `small` is the table below: a row for each flag, with the reason; what depends on the
size of the set is a function of the number of its training clips, never of its name. A flag that is given wins over both,
and one that does not go with another row takes that row's place (`without`). `auto` takes `paper` from ENOUGH training clips
on. A command that names --lr or --schedule is a run that somebody chose, such as the paper's: without --recipe it is
`paper`, however few clips there are.

RESULTS.md ("Small data: the recipe") has what was tried and what it gave.
"""

import argparse
from dataclasses import dataclass

ENOUGH = 20_000  # training clips from which on the paper's run is known to work
FEW = 50  # training clips below which a run says that it is far from what was tried
TRIED = 600  # training clips of the smallest set that the recipe was tried on
RECIPES = ("auto", "paper", "small")
CHOSEN = ("lr", "schedule")  # who names one of these follows a run of their own


def batch_of(clips: int, args) -> int:
    """All clips, three at least, where there are fewer than 32."""
    return max(3, min(clips, 32 if clips < 4_000 else 64 if clips < 10_000 else 128))


def epochs_of(clips: int, args) -> int:
    """About 1,000 steps, and one more for every two clips."""
    return max(1, round((1_000 + clips / 2) / max(1, clips // args.batch_size)))


def queue_of(clips: int, args) -> int:
    return args.batch_size


@dataclass(frozen=True)
class Row:
    """A flag's value, or a function of (number of clips, arguments so far), and why; without: flags beside which, when they
    are given, the row does not apply."""

    name: str
    value: object
    why: str
    without: tuple[str, ...] = ()

    def of(self, clips: int, args: argparse.Namespace):
        return self.value(clips, args) if callable(self.value) else self.value


SMALL = (
    Row("backbone", "bigru", "a two-way GRU knows more of a clip than one that runs forward"),
    Row("hidden_size", 256, "a quarter of the paper's: minutes on a processor, and enough", ("backbone",)),
    Row("num_layers", 2, "likewise", ("backbone",)),
    Row(
        "pool",
        "mean_max_std",
        "what was there at any moment, on average and how much it changed, not what is left at the end",
    ),
    Row("stream", "joint_motion", "motion beside the joints costs nothing, and executions are told apart by it"),
    Row("scale_by", "trunk", "tall and small people become alike, also where there are few of them"),
    Row("batch_size", batch_of, "small batches are many steps"),
    Row("epochs", epochs_of, "about 1,000 steps, and one more for every two clips"),
    Row("optimizer", "adamw", "learns more in few steps"),
    Row("lr", 0.001, "usual for it"),
    Row("cos", True, "the rate falls to nothing at the end", ("schedule",)),
    Row("warmup_epochs", 1, "the first steps of a fresh encoder are the wildest"),
    Row("negatives", "batch", "a queue would hold every clip's own older keys", ("contrast_k", "key_encoder")),
    Row(
        "key_encoder",
        "same",
        "a slow copy is for queues; keys with a gradient are worth three points",
        ("contrast_k", "negatives"),
    ),
    Row("contrast_k", queue_of, "not used then", ("negatives", "key_encoder")),
    Row("topk", queue_of, "all negatives", ("negatives", "key_encoder", "contrast_k")),
    Row("contrast_t", 0.2, "0.07 tells apart what is alike in a small batch"),
    Row("head_norm", True, "as SimCLR has it: worth two points", ("mlp",)),
    Row("crop", [0.8, 1.0], "half of a squat is somebody standing up: shorter crops make different exercises one"),
    Row("corruption", 0.0, "wrong joints gain a point of neighbours, and lose two where clips are tilted"),
    Row("shear", 0.2, "a shear of 1 is no body any more"),
    Row("shear_probability", 0.5, "likewise"),
    Row("rotation", 10.0, "cameras and people stand a little askew"),
    Row("scale", [0.8, 1.2], "people and sensors differ"),
    Row("bones", 0.25, "other bodies, the same motion: few subjects are told apart by their bodies alone"),
    Row("mirror", 0.5, "some are left-handed: with none of them to learn from, their clips were right half as often"),
    Row(
        "both_sides",
        lambda clips, args: args.mirror > 0,
        "where views are mirrored: a clip is read from both sides, worth two points, most where left-handed people are new",
    ),
    Row("noise", 0.01, "of a trunk's length: what a sensor adds"),
    Row(
        "mask_ratio",
        0.4,
        "of five parts two hidden, instead of three; the masked and the mixed view are worth one to two points each",
    ),
    Row("predicted_view", False, "costs four points where executions are told apart, and half of the time of a step"),
    Row("prediction_weight", 0.0, "neither gains nor loses, and costs time"),
    Row("distillation", False, "gains two points of neighbours between exercises, loses one between executions"),
    Row("domain_prompts", False, "no gain"),
    Row("task_prompts", False, "no gain"),
)


def chosen(args: argparse.Namespace, clips: int, before: str | None = None) -> tuple[str, str]:
    """(paper or small, why). before: that of the run that is gone on with."""
    if args.recipe != "auto":
        return args.recipe, "asked for"
    if before is not None:
        return before, "as before"
    named = [f"--{name}" for name in CHOSEN if name in args.given]
    if named:
        return "paper", f"{named[0]} is given, and no --recipe"
    if clips >= ENOUGH:
        return "paper", f"{clips} training clips"
    return "small", f"{clips} training clips, fewer than {ENOUGH}"


def settle(args: argparse.Namespace, clips: int, before: str | None = None, known=None) -> str:
    """Fills in, in place, what was not given, for a set of so many training clips, and makes `recipe` the one that was chosen.
    Returns a sentence that says what was chosen, why and what it means.

    args: parsed, with `given`, names of flags; before: the recipe of the run that is gone on with; known: names of its flags,
    None for a new run: what came later stays as it was, off."""
    args.recipe, why = chosen(args, clips, before)
    if args.recipe == "paper":
        return f"recipe paper ({why}): the flags' defaults"
    rows = [row for row in SMALL if row.name not in args.given and not set(row.without) & args.given]
    rows = [row for row in rows if known is None or row.name in known]
    for row in rows:
        setattr(args, row.name, row.of(clips, args))
    words = ", ".join(f"{row.name.replace('_', ' ')} {_shown(getattr(args, row.name))}" for row in rows)
    few = (
        f"; {clips} clips are far fewer than it was tried on ({TRIED} and more): look at the result"
        if clips < FEW
        else ""
    )
    return f"recipe small ({why}): {words}{few}"


def _shown(value) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return "-".join(f"{x:g}" for x in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
