"""Measures linear evaluation: the exact protocol and two faster variants, on the same data and encoder.

    python benchmarks/bench_linear.py --data-root data --dataset ui_prmd --pretrained runs/demo/pretrained/checkpoint_last.pth.tar

prints one JSON line. `exact`: float32, a new crop of every training clip in every epoch; `bf16`: the same with bfloat16 matrix
products in the encoder; `cached`: float32 features of centre crops, computed once. For each: seconds in all and per epoch (for
`cached` without computing the features), clips/s in the encoder, the share of this machine's matrix-product rate in the same
precision (recurrent encoders only), top-1 last and best, and the growth of peak memory in a new process. The variants run one after
the other, so other load on the machine changes their times.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file runs by its path

import torch

from benchmarks import common
from engine.classify import Recipe, train_classifier
from engine.evaluation import EncoderSource, open_views, ready
from engine.setup import find_dataset, resolve_device
from options.common import positive_int
from utils.errors import run

VARIANTS = {"exact": ("fp32", False), "bf16": ("bf16", False), "cached": ("fp32", True)}


def parse_args(argv=None) -> argparse.Namespace:
    parser = common.parser(__doc__, device="cpu", threads=1, clock="wall", save=False)
    add = parser.add_argument
    add("--no-memory", action="store_true", help="leave out peak memory, which starts a process a variant")
    add("--data-root", default="data", help="folder of the data sets")
    add("--dataset", default="ui_prmd", help="name of the data set; ui_prmd is made on first use")
    add("--protocol", default="cross_subject", help="split of the data set")
    add("--pretrained", default="", help="checkpoint; without it a random encoder")
    add("--hidden-size", type=positive_int, default=128, help="of the random encoder")
    add("--num-layers", type=positive_int, default=1, help="of the random encoder")
    add("--epochs", type=positive_int, default=30, help="epochs; the rate drops at 20, 50 and 80 percent")
    add("--batch-size", type=positive_int, default=256, help="clips a step of the classifier")
    return parser.parse_args(argv)


def prepare(options: dict, variant: str):
    """A function that trains and tests one classifier, and the encoder."""
    precision, cached = VARIANTS[variant]
    sizes = {} if options["pretrained"] else {k: options[k] for k in ("hidden_size", "num_layers")}
    source = EncoderSource(options["pretrained"], None, sizes)
    device = resolve_device(options["device"])
    data = find_dataset(options["data_root"], options["dataset"], options["protocol"], ("train", "val"))
    stream = source.load(data, 0).stream
    train, test = (open_views(data, s, stream, device, torch.float32, "auto", None) for s in ("train", "val"))
    encoder = ready(source.load(data, 0), train, torch.bfloat16 if precision == "bf16" else None)
    epochs = options["epochs"]
    drops = tuple(round(epochs * share) for share in (0.2, 0.5, 0.8))
    recipe = Recipe(batch_size=options["batch_size"], epochs=epochs, schedule=drops, cached=cached, test_every=epochs)
    return lambda **more: train_classifier(encoder, train, test, data.row.num_classes, recipe, 0, quiet=True, **more), (
        encoder,
        len(train),
        len(test),
    )


def memory_step(options: dict, variant: str):
    """The `build` of `common.peak_mb`: one epoch of a variant."""
    return prepare(options | {"epochs": 1}, variant)[0]


def measure(options: dict, variant: str, rate: float) -> dict:
    """The figures of one variant. rate: FLOP/s of matrix products in its precision."""
    work, (encoder, training, testing) = prepare(options, variant)
    ends, clock = [], common.CLOCKS[options["clock"]]
    start = clock()
    outcome = work(log=lambda epoch, values: ends.append(clock()))
    total = clock() - start
    epochs = options["epochs"]
    passes = testing + training * (1 if VARIANTS[variant][1] else epochs)
    result = {
        "seconds": round(total, 2),
        "epoch_s": round((ends[-1] - ends[0]) / (epochs - 1), 4) if epochs > 1 else None,
        "encoder_clips": passes,
        "clips_per_s": round(passes / total, 1),
        "top1_last": round(outcome.last["top1"], 4),
        "top1_best": round(outcome.best["top1"], 4),
    }
    products = [p for name, p in encoder.encoder.named_parameters() if p.ndim == 2]
    if encoder.config.backbone == "gru":  # every weight is multiplied once per frame
        flop = 2.0 * sum(p.numel() for p in products) * 64 * passes
        result |= {"gflop_per_s": round(flop / total / 1e9, 1), "share_of_product_rate": round(flop / total / rate, 3)}
    return result


def product_rates(device: torch.device, hidden: int, clock) -> dict[str, float]:
    """FLOP/s of a (4096 x H)(H x 3H) product by precision, the shape of the products of an encoder pass."""
    shape = (4096, hidden, 3 * hidden)
    candidates = {name: common.product(*shape, dtype, device) for name, dtype in common.PRECISIONS.items()}
    seconds = common.interleave(candidates, 5, device, clock=clock)
    return {name: common.product_flop(*shape) / common.summary(times, 9)["median_s"] for name, times in seconds.items()}


def main(argv=None) -> None:
    args = parse_args(argv)
    device = common.prepare(args)
    options = {k: v for k, v in vars(args).items() if k not in ("threads", "save", "no_memory")}
    _, (encoder, training, testing) = prepare(options, "exact")
    rates = product_rates(device, encoder.config.hidden_size or 512, common.CLOCKS[args.clock])
    result = {
        "training_clips": training,
        "test_clips": testing,
        "product_gflop_per_s": {name: round(rate / 1e9, 1) for name, rate in rates.items()},
    }
    for variant, (precision, _) in VARIANTS.items():
        result[variant] = measure(options, variant, rates[precision])
        if not args.no_memory:
            result[variant]["peak_mb"] = common.peak_mb(memory_step, options, variant, device=args.device)
    common.report("linear", args, result)


if __name__ == "__main__":
    run(main)
