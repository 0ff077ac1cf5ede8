"""How the cost of a training step grows: with batch, frames, queue, hidden size and the number of clips.

    python benchmarks/bench_cost.py --output benchmarks/results/cost.png
    python benchmarks/bench_cost.py --device cuda --batch 128 --hidden 1024 --layers 3 --precision bf16

One quantity at a time is taken times 1/2, 1, 2 and 4 around the given sizes, the others stay. One JSON line with seconds a
step and peak memory of each point and, as `exponent`, the slope of log seconds over log size between the last two points (1
= proportional); a table of the same; and a picture. The number of clips is that of the data set: what it can change is the
drawing and rendering of a batch, so a step there includes them."""

import argparse
import math
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file runs by its path

import torch

from benchmarks import common
from benchmarks.bench_epoch import synthetic_clips
from benchmarks.bench_step import CLOCKS, random_batch
from engine.step import compute_gradients
from feeder.batches import Batches
from feeder.sampling import ViewSettings
from models.encoder import EncoderConfig
from models.pcm3 import PCM3, PCM3Config
from options.common import number, positive_int
from utils.errors import UserError, run
from utils.skeleton import KINECT_V2

FACTORS = (0.5, 1, 2, 4)
UNITS = {
    "batch": "clips a step",
    "frames": "frames a clip",
    "queue": "keys in the queue",
    "hidden": "width of a direction",
}
UNITS["clips"] = "clips of the data set"


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=number(int, low=8), default=16, help="clips a step")
    parser.add_argument("--frames", type=number(int, low=4), default=64, help="frames of a view")
    parser.add_argument("--queue", type=positive_int, default=4096, help="keys in the queue; four batches at least")
    parser.add_argument(
        "--hidden", type=number(int, low=32), default=128, help="width of a direction, a multiple of 32"
    )
    parser.add_argument("--clips", type=positive_int, default=500, help="clips of the data set")
    parser.add_argument("--layers", type=positive_int, default=1, help="recurrent layers; stays as given")
    parser.add_argument("--decoder", type=positive_int, default=128, help="width of the decoder; stays as given")
    parser.add_argument("--precision", choices=tuple(common.PRECISIONS), default="fp32", help="of the large products")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--threads", type=number(int, low=0), default=0, help="processor threads; 0 leaves torch's choice"
    )
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall", help="wall, or processor (with --threads 1)")
    parser.add_argument("--rounds", type=positive_int, default=3, help="measured rounds")
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory, which takes a process a point")
    parser.add_argument("--output", default="", metavar="PNG", help="picture to write; nothing without it")
    parser.add_argument("--save", action="store_true", help="also write the line to benchmarks/results")
    args = parser.parse_args(argv)
    if args.hidden % 32 or args.queue < 8 * args.batch or args.clips < 8 * args.batch:
        raise UserError("expected --hidden divisible by 32, and a --queue and --clips of at least 8 times --batch")
    return args


def build_step(sizes: dict, layers: int, decoder: int, precision: str, device: str):
    """A function that does one training step of these sizes."""
    torch.manual_seed(0)
    encoder = EncoderConfig(hidden_size=sizes["hidden"], num_layers=layers)
    queue = sizes["queue"]
    config = PCM3Config(encoder=encoder, queue_size=queue, topk=queue, decoder_hidden_size=decoder)
    model = PCM3(config).to(device).train()
    model.set_compute_dtype(torch.bfloat16 if precision == "bf16" else None)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.02, momentum=0.9)
    views = random_batch(sizes["batch"], device, sizes["frames"])
    batches = None
    if "clips" in sizes:
        clips = synthetic_clips(sizes["clips"]).to(device, "device")
        layout = KINECT_V2
        batches = Batches(clips, sizes["batch"], 0, ViewSettings(), layout, device=device)
    done = 0

    def step():
        nonlocal done
        batch = views if batches is None else batches[done].to(device, torch.float32)
        done += 1
        output = compute_gradients(model, batch)
        optimizer.step()
        model.enqueue(output.keys)

    return step


def points(args) -> dict[str, list[dict]]:
    """By quantity, the sizes of its points."""
    base = {name: getattr(args, name) for name in UNITS if name != "clips"}
    found = {name: [{**base, name: int(size * f)} for f in FACTORS] for name, size in base.items()}
    found["clips"] = [{**base, "clips": int(args.clips * f)} for f in FACTORS]
    return found


def measure(args, device: torch.device) -> dict[str, list[dict]]:
    """Seconds and peak megabytes of every point; the points of one quantity are measured in turn."""
    how = (args.layers, args.decoder, args.precision, args.device)
    found = {}
    for name, wanted in points(args).items():
        steps = {str(sizes[name]): build_step(sizes, *how) for sizes in wanted}
        seconds = common.interleave(steps, args.rounds, device, clock=CLOCKS[args.clock])
        del steps
        found[name] = []
        for sizes in wanted:
            peak = None if args.no_memory else common.peak_memory(build_step, sizes, *how, device=args.device)
            median = round(statistics.median(seconds[str(sizes[name])]), 4)
            entry = {"size": sizes[name], "median_s": median, "peak_mb": peak and round(peak / 2**20)}
            found[name].append(entry)
    return found


def exponent(entries: list[dict], key: str) -> float | None:
    """The slope of log value over log size between the last two points."""
    (a, b) = entries[-2:]
    if not a[key] or not b[key]:
        return None
    return round(math.log(b[key] / a[key]) / math.log(b["size"] / a["size"]), 2)


def print_table(found: dict[str, list[dict]]) -> None:
    print("| what | size: s a step (peak MB) | | | | exponent |\n|---|---|---|---|---|---|")
    for name, entries in found.items():
        cells = [
            f"{e['size']}: {e['median_s']:.3f} ({e['peak_mb'] if e['peak_mb'] is not None else '-'})" for e in entries
        ]
        print(f"| {UNITS[name]} | {' | '.join(cells)} | {exponent(entries, 'median_s')} |")


def draw(path: str, found: dict[str, list[dict]], title: str) -> None:
    """Seconds above, memory below, one column a quantity; all axes logarithmic, so that a line of slope 1 is proportional."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    rows = [("median_s", "seconds a step")]
    if all(e["peak_mb"] for entries in found.values() for e in entries):
        rows.append(("peak_mb", "peak memory, MB"))
    figure = Figure(figsize=(2.6 * len(found), 2.4 * len(rows) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(found), sharey="row", squeeze=False)
    for row, (key, label) in zip(axes, rows, strict=True):
        for axis, (name, entries) in zip(row, found.items(), strict=True):
            sizes, values = [e["size"] for e in entries], [e[key] for e in entries]
            axis.loglog(sizes, values, marker="o", label="measured")
            axis.loglog(sizes, [values[-1] * s / sizes[-1] for s in sizes], ":", color="grey", label="proportional")
            axis.set_xticks(sizes, [str(s) for s in sizes])
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.set_xlabel(UNITS[name])
        row[0].set_ylabel(label)
    axes[0][0].legend(fontsize=7)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=100)


def main(argv=None) -> None:
    args = parse_args(argv)
    device = common.choose_device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    started = time.monotonic()
    found = measure(args, device)
    print_table(found)
    base = {name: getattr(args, name) for name in (*UNITS, "layers", "decoder", "precision", "clock", "rounds")}
    result = {"base": base, "points": found, "exponent": {k: exponent(v, "median_s") for k, v in found.items()}}
    result["measuring_s"] = round(time.monotonic() - started)
    common.report("cost", result, device, args.save)
    if args.output:
        sizes = f"batch {args.batch}, {args.frames} frames, hidden {args.hidden} x {args.layers}, queue {args.queue}"
        draw(args.output, found, f"{sizes}, {args.precision}, {common.processor(device)}, {args.clock} time")


if __name__ == "__main__":
    run(main)
