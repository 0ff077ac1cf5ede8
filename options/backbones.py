"""Flags that choose the encoder's backbone and its sizes, shared by pretraining and by every program with a random encoder.

Which backbones there are, which sizes each reads, and their defaults, stand in models.backbones, which these flags cannot
import (help must be instant; names that both need are in utils.names); a test holds that the texts here agree. Flags not
given are None and become the defaults of the backbone; a size that the backbone does not have is refused when the encoder
is built.
"""

import argparse

from options.common import add_flags, number
from utils.names import SIZES


def multiple_of_16(text: str) -> int:
    """An argparse type: a whole number that 16 divides."""
    value = number(int, low=16)(text)
    if value % 16:
        raise argparse.ArgumentTypeError(f"expected a multiple of 16 (the task prompts need it), got {text}")
    return value


READING = ("pool", "both_sides", "scale_by")  # how an encoder reads clips

BACKBONE = """
--backbone NAME
    gru (the paper's, and the default: two forward-running GRUs a layer), bigru (truly bidirectional), transformer
    (a token for each frame), st_transformer (a token for each joint and group of frames), stgcn (spatial-temporal
    graph convolution), or one of your own
--hidden-size N:multiple_of_16
    gru, bigru: numbers of each GRU, a multiple of 16; the feature has twice as many; 1024 if not given; 256 trains
    in minutes on a CPU
--num-layers N:positive_int  gru, bigru: recurrent layers; 3 if not given
--width N:multiple_of_16
    transformer, st_transformer, stgcn: numbers of a token, or channels of the last blocks, and of the feature; a
    multiple of 16 and of --heads; if not given 512 (transformer) or 256; half trains about three times as fast
--depth N:positive_int
    transformer, st_transformer, stgcn: blocks, one after the other; if not given 6, 8 and 10; fewer for small sets
--heads N:positive_int
    transformer, st_transformer: heads of the attention; 8 if not given; usually 32 to 64 numbers of the width each
--mlp-ratio X:positive
    transformer, st_transformer: width of the feed-forward part, as a multiple of --width; 4 if not given; 2 halves
    most of the work
--patch-frames N:positive_int
    st_transformer: frames that a token spans; 4 if not given; more is cheaper and coarser in time
--tokens {$TOKENS}
    st_transformer: a token for each joint (if not given) or for each of the five body parts, which is five times
    cheaper
--attention {$ATTENTION}
    st_transformer: over the joints, then over time (if not given); or over all tokens of a person at once, which
    costs the square of their number
--[no-]causal
    transformer, st_transformer: each frame sees only itself and those before, as in the gru; the clip feature is
    then the last frame's instead of the mean. Needed by early recognition and by detection in one pass; without it
    (if not given) features see the whole clip
--pool WORD:$pooling
    how the frames' features become the clip's: last, mean, max, min, std, or several side by side, like mean_std or
    last_max; if not given the last frame (gru, bigru: what each direction knows at its end), as in the paper and
    the released weights, and the mean where a backbone sees all frames at once. max is worth ten points and more on
    small sets. A checkpoint knows its own; given with --pretrained it overrules that$every
--[no-]both-sides
    the clip's feature is the larger, number by number, of the clip's and of its mirror image's, so that left- and
    right-handed executions are alike; takes twice the time; off if not given; not for classes that differ by the
    side. A checkpoint knows its own; given with --pretrained it overrules that. Motion prediction reads one side
    unless it is given
--scale-by {$SCALES}
    what clips are divided by when they are read: nothing (if not given), or trunk: the length of the person's trunk
    (median over the clip), so that tall and small people, and units, become alike; arrays and files stay in metres
"""


def add_backbone_flags(g, every_pooling: bool = False) -> None:
    """--backbone and the sizes, --pool, --both-sides and --scale-by. every_pooling: whether --pool may be all."""
    every = "; all: one after the other, each in a folder of its own, and a table at the end" if every_pooling else ""
    kind = "pooling_or_all" if every_pooling else "pooling"
    add_flags(g, BACKBONE, {"multiple_of_16": multiple_of_16}, pooling=kind, every=every)


def add_random_encoder_group(p: argparse.ArgumentParser, every_pooling: bool = False) -> None:
    """Backbone and sizes of the encoder that is evaluated without --pretrained. every_pooling: whether --pool may be all."""
    add_backbone_flags(
        p.add_argument_group(
            "random encoder (without --pretrained)",
            "With --pretrained they may be left out: a checkpoint knows its own; what contradicts it is refused.",
        ),
        every_pooling,
    )


def encoder_flags(args: argparse.Namespace) -> dict:
    """The backbone, the sizes and how clips are read, as given, by name."""
    return {name: value for name in ("backbone", *SIZES, *READING) if (value := getattr(args, name)) is not None}


def as_words(given: dict) -> list[str]:
    """What `encoder_flags` returned, as words of a command line."""
    words = []
    for name, value in given.items():
        flag = name.replace("_", "-")
        words += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return words
