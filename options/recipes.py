"""Recipes: the values of pretraining flags that are not given, for the paper's run or for small data sets.

Input: the parsed flags and the number of training clips. Output: the completed flags and a sentence for the log.

`paper` is the flags' defaults. `small` is the table SMALL: one row a flag, with its reason; a value that depends on the data
set is a function of its number of training clips, never of its name. A given flag overrides both recipes, and switches off
the rows that make no sense beside it (`unless`). `auto` means `paper` from ENOUGH training clips on, else `small`. A command
with --lr or --schedule but without --recipe is taken for a run with chosen values, such as the paper's: it is `paper`,
however few clips there are.

RESULTS.md ("Small data: the recipe") lists what was tried and the results.
"""

import argparse
from dataclasses import dataclass

from options.common import as_typed

ENOUGH = 20_000  # training clips that the paper's run needs to work well
FEW = 50  # fewer training clips than this: the log warns
TRIED = 600  # training clips of the smallest set that the small recipe was tried on
RECIPES = ("auto", "paper", "small")
MEANS_PAPER = ("lr", "schedule")  # flags that make auto choose `paper`


def batch_of(clips: int, args) -> int:
    """Batch size: 32 to 128, growing with the set; all clips (at least 3) of a set of fewer than 32."""
    return max(3, min(clips, 32 if clips < 4_000 else 64 if clips < 10_000 else 128))


def epochs_of(clips: int, args) -> int:
    """Epochs for 1,000 steps plus one step for every two clips."""
    return max(1, round((1_000 + clips / 2) / max(1, clips // args.batch_size)))


def queue_of(clips: int, args) -> int:
    return args.batch_size


@dataclass(frozen=True)
class Row:
    """A flag's value, or a function of (number of clips, arguments so far), and its reason; unless: flags that switch the row
    off when they are given."""

    name: str
    value: object
    why: str
    unless: tuple[str, ...] = ()

    def of(self, clips: int, args: argparse.Namespace):
        return self.value(clips, args) if callable(self.value) else self.value


SMALL = (
    Row("backbone", "bigru", "reads a clip in both directions, the paper's only forward"),
    Row("hidden_size", 256, "a quarter of the paper's: large enough, and trains in minutes on a CPU", ("backbone",)),
    Row("num_layers", 2, "as hidden_size", ("backbone",)),
    Row("pool", "mean_max_std", "statistics over all frames tell more of a clip than its last frame"),
    Row("stream", "joint_motion", "motion helps to tell right from wrong executions, at no cost"),
    Row("scale_by", "trunk", "removes body size, of which few subjects show only a few values"),
    Row("batch_size", batch_of, "a small batch gives many steps"),
    Row("epochs", epochs_of, "1,000 steps plus one for every two clips"),
    Row("optimizer", "adamw", "learns more in few steps"),
    Row("lr", 0.001, "usual for AdamW"),
    Row("cos", True, "the learning rate falls to 0 at the end", ("schedule",)),
    Row("warmup_epochs", 1, "the first steps of a random encoder are unstable"),
    Row("negatives", "batch", "a queue would be full of older keys of the same clips", ("contrast_k", "key_encoder")),
    Row(
        "key_encoder",
        "same",
        "a momentum copy is only needed for a queue; keys with a gradient gain three points",
        ("contrast_k", "negatives"),
    ),
    Row("contrast_k", queue_of, "no queue is used", ("negatives", "key_encoder")),
    Row("topk", queue_of, "all negatives", ("negatives", "key_encoder", "contrast_k")),
    Row("contrast_t", 0.2, "0.07 separates similar clips too hard in a small batch"),
    Row("head_norm", True, "as in SimCLR: gains two points", ("mlp",)),
    Row("crop", [0.8, 1.0], "half of a squat looks like standing up: short crops make exercises look the same"),
    Row("corruption", 0.0, "corrupting joints gains one point of 1-NN and loses two on tilted clips"),
    Row("shear", 0.2, "a shear of 1 does not look like a body"),
    Row("shear_probability", 0.5, "as shear"),
    Row("rotation", 10.0, "cameras and people are not exactly upright"),
    Row("scale", [0.8, 1.2], "people and sensors differ in scale"),
    Row("bones", 0.25, "few subjects could be told apart by their bone lengths alone"),
    Row("mirror", 0.5, "without it, left-handed people who are not in the training set are recognised half as often"),
    Row(
        "both_sides",
        lambda clips, args: args.mirror > 0,
        "reads a clip and its mirror image, if views are mirrored: gains two points, most on unseen left-handed people",
    ),
    Row(
        "train_both_sides",
        lambda clips, args: bool(args.both_sides),
        "trains the feature that is read: gains four points of 1-NN between executions, doubles a step's time",
    ),
    Row("noise", 0.01, "of a trunk's length: noise of the sensor"),
    Row("mask_ratio", 0.4, "hides two of five parts, not three; masked and mixed view gain one to two points each"),
    Row("predicted_view", False, "loses four points between executions, and takes half of a step's time"),
    Row("prediction_weight", 0.0, "no gain, and takes time"),
    Row("distillation", False, "gains two points of 1-NN between exercises, loses one between executions"),
    Row("domain_prompts", False, "no gain"),
    Row("task_prompts", False, "no gain"),
)


def choose(args: argparse.Namespace, clips: int, before: str | None = None) -> tuple[str, str]:
    """The recipe (paper or small) and why. clips: number of training clips; before: recipe of the run that is resumed."""
    if args.recipe != "auto":
        return args.recipe, "asked for"
    if before is not None:
        return before, "as before"
    named = [f"--{name}" for name in MEANS_PAPER if name in args.given]
    if named:
        return "paper", f"{named[0]} is given, and no --recipe"
    if clips >= ENOUGH:
        return "paper", f"{clips} training clips"
    return "small", f"{clips} training clips, fewer than {ENOUGH}"


def fill_in(args: argparse.Namespace, clips: int, before: str | None = None, run: dict | None = None) -> str:
    """Chooses the recipe for `clips` training clips and sets the flags that were not given (in place). Returns a sentence
    for the log: the recipe, why it was chosen, and the values.

    args: parsed flags, with the names of the given ones in `given`; before, run: recipe and arguments of the run that is
    resumed (None for a new run): a flag that it left at its default, or that is newer than it, keeps the default."""
    args.recipe, why = choose(args, clips, before)
    if args.recipe == "paper":
        return f"recipe paper ({why}): the flags' defaults"
    rows = [row for row in SMALL if row.name not in args.given and not set(row.unless) & args.given]
    if run is not None:
        rows = [row for row in rows if run.get(row.name, getattr(args, row.name)) != getattr(args, row.name)]
    for row in rows:
        setattr(args, row.name, row.of(clips, args))
    values = ", ".join(
        f"{row.name.replace('_', ' ')} {as_typed(getattr(args, row.name)).replace(' ', '-')}" for row in rows
    )
    warning = f"; {clips} clips are far fewer than it was tried on ({TRIED} and more): look at the result"
    return f"recipe small ({why}): {values}{warning if clips < FEW else ''}"
