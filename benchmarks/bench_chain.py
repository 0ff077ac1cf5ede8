"""Measures the floor of the serial chain: recurrent steps that must follow one another, with nothing or little to do in each.

    python benchmarks/bench_chain.py --device cuda --batch 128
    python benchmarks/bench_chain.py --batch 16 --hidden 128 --rounds 3       # tries the script on a CPU

A training step has a chain of dependent frames that no amount of arithmetic speed shortens: forward one pass for the three
stacked views, one for the predicted view and one for the keys, backward the first two, each through `layers` x 64 frames,
and the decoder's two layers forward and backward. Four chains of that length are measured, each step reading what the
last one wrote: `empty` (one element is added to), `state` (the state of both directions is added to), `product` (the
recurrent products only) and, on CUDA, `empty_graph` and `product_graph`, the same captured in a CUDA graph, which is what
is left when the processor's time for launching is gone. One JSON line: seconds of a chain of one training step's length,
microseconds a link, and the same for the shorter chain of a wavefront over the layers."""

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file runs by its path

import torch

from benchmarks import common
from options.common import number, positive_int
from utils.errors import run

FRAMES = 64
PASSES = 5  # forward: stacked views, predicted view, keys; backward: stacked views, predicted view
DECODER_LAYERS, DECODER_PASSES = 2, 2


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--batch", type=positive_int, default=128, help="clips a step; the stacked pass has three times as many"
    )
    parser.add_argument("--hidden", type=positive_int, default=1024, help="width of a direction")
    parser.add_argument("--layers", type=positive_int, default=3, help="recurrent layers of the encoder")
    parser.add_argument("--precision", choices=tuple(common.PRECISIONS), default="fp32", help="of state and weights")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--threads", type=number(int, low=0), default=0, help="processor threads; 0 leaves torch's choice"
    )
    parser.add_argument("--rounds", type=positive_int, default=5, help="measured rounds")
    parser.add_argument("--save", action="store_true", help="also write the line to benchmarks/results")
    return parser.parse_args(argv)


def links(layers: int, wavefront: bool) -> int:
    """Dependent frames of a training step; in a wavefront layer l computes frame t while layer l + 1 computes t - 1."""
    if wavefront:
        return PASSES * (FRAMES + layers - 1) + DECODER_PASSES * (FRAMES + DECODER_LAYERS - 1)
    return FRAMES * (PASSES * layers + DECODER_PASSES * DECODER_LAYERS)


def chains(args, device: torch.device) -> dict[str, Callable[[], None]]:
    """What one link does, by name."""
    dtype = common.PRECISIONS[args.precision]
    one = torch.zeros(1, device=device, dtype=dtype)
    state = torch.zeros(2, 3 * args.batch, args.hidden, device=device, dtype=dtype)
    weight = torch.randn(2, args.hidden, args.hidden, device=device, dtype=dtype) / args.hidden**0.5
    gates = torch.empty_like(state)
    weights = [weight] * 3  # of r, z and n: 3 H columns

    def product():
        for w in weights:
            torch.bmm(state, w, out=gates)
        state.copy_(gates)

    return {"empty": lambda: one.add_(1), "state": lambda: state.add_(1), "product": product}


def in_a_graph(link: Callable[[], None], count: int) -> Callable[[], None]:
    """A CUDA graph of `count` links."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        link()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
            link()
    return graph.replay


def main(argv=None) -> None:
    args = parse_args(argv)
    device = common.choose_device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    count, short = links(args.layers, False), links(args.layers, True)
    candidates = {}
    for name, link in chains(args, device).items():

        def one_by_one(link=link):
            for _ in range(count):
                link()

        candidates[name] = one_by_one
        if device.type == "cuda" and name != "state":
            candidates[f"{name}_graph"] = in_a_graph(link, count)
    with torch.no_grad():
        seconds = common.interleave(candidates, args.rounds, device)
    result = {key: getattr(args, key) for key in ("batch", "hidden", "layers", "precision", "rounds")}
    result |= {"links": count, "links_wavefront": short}
    for name, taken in seconds.items():
        link_s = statistics.median(taken) / count
        result[name] = {
            **common.summary(taken, 6),
            "link_us": round(1e6 * link_s, 2),
            "wavefront_s": round(link_s * short, 6),
        }
    if device.type != "cuda":
        result["graphs"] = "not run"
    common.report("chain", result, device, args.save)


if __name__ == "__main__":
    run(main)
