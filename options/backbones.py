"""Flags that choose the encoder's backbone and its sizes, shared by pretraining and by every program with a random encoder.

Backbones, their sizes and defaults are defined in models.backbones. It is not imported here, so that --help is instant
(shared names are in utils.names); a test checks that the help agrees with it. Flags that are not given are None, which means
the backbone's default; a size that the backbone does not have is refused when the encoder is built.
"""

import argparse

from options.common import add_flags, number
from utils.names import SIZES


def multiple_of_16(text: str) -> int:
    """An argparse type: a multiple of 16."""
    value = number(int, low=16)(text)
    if value % 16:
        raise argparse.ArgumentTypeError(f"expected a multiple of 16 (the task prompts need it), got {text}")
    return value


READING = ("pool", "both_sides", "scale_by")  # how an encoder reads clips

BACKBONE = """
--backbone NAME
    gru (default; the paper's: two forward-running GRUs in each layer), bigru (truly bidirectional), transformer (a
    token for each frame), st_transformer (a token for each joint and group of frames), stgcn (spatial-temporal graph
    convolution), or one of your own
--hidden-size N:multiple_of_16
    gru, bigru: hidden size of each GRU, a multiple of 16; features have twice this size; default 1024; 256 trains in
    minutes on a CPU
--num-layers N:positive_int  gru, bigru: number of layers; default 3
--width N:multiple_of_16
    transformer, st_transformer, stgcn: size of tokens (or channels of the last blocks) and of features; a multiple
    of 16 and of --heads; default 512 (transformer) or 256; half of it trains about three times as fast
--depth N:positive_int
    transformer, st_transformer, stgcn: number of blocks; default 6, 8 and 10; fewer for small sets
--heads N:positive_int
    transformer, st_transformer: attention heads; default 8; usually such that width / heads is 32 to 64
--mlp-ratio X:positive
    transformer, st_transformer: hidden size of the feed-forward part, as a multiple of --width; default 4; 2 halves
    most of the work
--patch-frames N:positive_int
    st_transformer: frames in a token; default 4; more is faster and coarser in time
--tokens {$TOKENS}
    st_transformer: a token for each joint (default) or for each of the five body parts, which is five times faster
--attention {$ATTENTION}
    st_transformer: attention over joints, then over time (default), or over all tokens of a person at once, at a
    cost that is quadratic in their number
--[no-]causal
    transformer, st_transformer: each frame attends only to itself and earlier frames, as in a GRU, and the default
    pooling is the last frame instead of the mean; needed by early recognition and one-pass detection; default: off
--pool WORD:$pooling
    pooling of frame features to the clip feature: last, mean, max, min, std, or several concatenated, such as
    mean_std or last_max; default: for causal backbones the last frame, for bigru the final output of each direction,
    as in the paper and the released weights, else the mean. max gains ten points or more on small sets. Overrides
    the pooling stored in the checkpoint$every
--[no-]both-sides
    the clip feature is the elementwise maximum of the features of the clip and of its mirror image, so that left-
    and right-handed executions are alike; takes twice the time; not for classes that differ by the side only.
    Overrides what is stored in the checkpoint (motion prediction: off unless given); default without checkpoint: off
--scale-by {$SCALES}
    what clips are divided by when they are read: none (default), or trunk: the person's trunk length (median over
    the clip), which removes body size and units; files stay in metres
"""


def add_backbone_flags(g, every_pooling: bool = False) -> None:
    """--backbone and the sizes, --pool, --both-sides and --scale-by. every_pooling: whether --pool may be all."""
    every = "; all: one after the other, each in a folder of its own, with a table at the end" if every_pooling else ""
    kind = "pooling_or_all" if every_pooling else "pooling"
    add_flags(g, BACKBONE, {"multiple_of_16": multiple_of_16}, pooling=kind, every=every)


def add_random_encoder_group(p: argparse.ArgumentParser, every_pooling: bool = False) -> None:
    """Backbone and sizes of the encoder that is evaluated without --pretrained. every_pooling: whether --pool may be all."""
    title = "random encoder (without --pretrained)"
    note = "Not needed with --pretrained: a checkpoint stores them; flags that contradict it are refused."
    add_backbone_flags(p.add_argument_group(title, note), every_pooling)


def encoder_flags(args: argparse.Namespace) -> dict:
    """The given ones of backbone, sizes, pool, both_sides and scale_by, by name."""
    return {name: value for name in ("backbone", *SIZES, *READING) if (value := getattr(args, name)) is not None}


def as_words(given: dict) -> list[str]:
    """The result of `encoder_flags` as words of a command line."""
    words = []
    for name, value in given.items():
        flag = name.replace("_", "-")
        words += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return words
