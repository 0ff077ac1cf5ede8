"""Measures linear evaluation: the exact protocol beside its two labelled shortcuts, on the same data and encoder.

    python benchmarks/bench_linear.py --data-root data --dataset ui_prmd --pretrained runs/demo/pretrained/checkpoint_last.pth.tar

prints one JSON line. `exact`: float32, a fresh crop of every training clip in every epoch; `bf16`: the same with bfloat16
operands in the encoder's products; `cached`: float32 features of centre crops, taken once. For each: seconds in all and
an epoch (for `cached` without taking the features), clips/s through the encoder, the share of the rate at which this machine
multiplies matrices in the same precision (recurrent encoders only), top-1 last and best, and by how much the peak of memory
grew in a fresh process. The variants run one after the other, seconds move with whatever else the machine does.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file runs by its path

import torch

from benchmarks import common
from engine.classify import Recipe, train_classifier
from engine.evaluation import EncoderSource, open_views
from engine.setup import find_dataset
from utils.errors import UserError, run

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
VARIANTS = {"exact": ("fp32", False), "bf16": ("bf16", False), "cached": ("fp32", True)}


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", default="data", help="folder of the data sets")
    parser.add_argument("--dataset", default="ui_prmd", help="name of the data set; ui_prmd is made on first use")
    parser.add_argument("--protocol", default="cross_subject", help="split of the data set")
    parser.add_argument("--pretrained", default="", help="checkpoint; without it a random encoder")
    parser.add_argument("--hidden-size", type=int, default=128, help="of the random encoder")
    parser.add_argument("--num-layers", type=int, default=1, help="of the random encoder")
    parser.add_argument("--epochs", type=int, default=30, help="epochs; the rate drops at 20, 50 and 80 percent")
    parser.add_argument("--batch-size", type=int, default=256, help="clips a step of the classifier")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument(
        "--clock", choices=("wall", "processor"), default="wall", help="processor: of this process, for a busy machine"
    )
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak, which runs one epoch more each")
    parser.add_argument("--save", action="store_true", help="also write the line to benchmarks/results")
    args = parser.parse_args(argv)
    if args.epochs < 1 or args.batch_size < 1:
        raise UserError("--epochs and --batch-size: expected 1 or more")
    return args


def prepare(options: dict, variant: str):
    """A function that trains and tests one classifier, and the encoder."""
    precision, cached = VARIANTS[variant]
    sizes = {} if options["pretrained"] else {k: options[k] for k in ("hidden_size", "num_layers")}
    source = EncoderSource(options["pretrained"], None, sizes)
    device = common.choose_device(options["device"])
    data = find_dataset(options["data_root"], options["dataset"], options["protocol"], ("train", "val"))
    stream = source.load(data, 0).stream
    train, test = (open_views(data, s, stream, device, torch.float32, "auto", None) for s in ("train", "val"))
    encoder = source.ready(data, 0, train, torch.bfloat16 if precision == "bf16" else None)
    epochs = options["epochs"]
    drops = tuple(round(epochs * share) for share in (0.2, 0.5, 0.8))
    recipe = Recipe(batch_size=options["batch_size"], epochs=epochs, schedule=drops, cached=cached, test_every=epochs)
    return lambda **more: train_classifier(encoder, train, test, data.row.num_classes, recipe, 0, quiet=True, **more), (
        encoder,
        len(train),
        len(test),
    )


def memory_step(options: dict, variant: str):
    """For `common.peak_memory`, which needs a function of a module."""
    return prepare(options | {"epochs": 1}, variant)[0]


def measure(options: dict, variant: str, rate: float) -> dict:
    """One variant. rate: FLOP/s of the machine's matrix products in its precision."""
    work, (encoder, training, testing) = prepare(options, variant)
    ends, clock = [], CLOCKS[options["clock"]]
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
    if encoder.config.backbone == "gru":  # each weight meets each frame once
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
    torch.set_num_threads(args.threads)
    options = {k: v for k, v in vars(args).items() if k not in ("threads", "save", "no_memory")}
    device = common.choose_device(args.device)
    _, (encoder, training, testing) = prepare(options, "exact")
    rates = product_rates(device, encoder.config.hidden_size or 512, CLOCKS[args.clock])
    result = {
        "dataset": args.dataset,
        "encoder": args.pretrained or f"random, hidden {args.hidden_size}, {args.num_layers} layers",
        "training_clips": training,
        "test_clips": testing,
        "epochs": args.epochs,
        "clock": args.clock,
        "product_gflop_per_s": {name: round(rate / 1e9, 1) for name, rate in rates.items()},
    }
    for variant, (precision, _) in VARIANTS.items():
        result[variant] = measure(options, variant, rates[precision])
        if not args.no_memory:
            peak = common.peak_memory(memory_step, options, variant, device=args.device)
            result[variant]["peak_mb"] = None if peak is None else round(peak / 1e6, 1)
    common.report("linear", result, device, args.save)


if __name__ == "__main__":
    run(main)
