"""Fuses the saved scores of several runs by weighted sums; the weights can be searched on one half of the clips.

python -m tools.ensemble RUN_OR_SCORES RUN_OR_SCORES ... [--weights W W ...] [--search] [--output FILE.json]
"""

import sys

from options.ensemble import parse_args

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant

from pathlib import Path

import torch

from utils.errors import UserError, run
from utils.files import write_json
from utils.fusion import SCORES_FILE, check_same_clips, check_weights, fuse, read_scores, search_weights
from utils.metrics import topk_accuracy

DEFAULT_STEPS = 10
USUAL = {"joint": 0.6, "bone": 0.6, "motion": 0.4}  # common weights of three streams, besides equal ones


def check_runs(paths: list[str]) -> None:
    """UserError unless two or more different runs are given."""
    if len(paths) < 2:
        raise UserError(f"{paths[0]} is one run only; name two or more to fuse")
    places = [path.parent if path.name == SCORES_FILE else path for path in (Path(path).resolve() for path in paths)]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise UserError(f"{path} is given twice; give runs that differ")


def default_weights(streams: list[str]) -> list[tuple[float, ...]]:
    """Equal weights, and USUAL if the runs are one joint, one bone and one motion stream."""
    weights = [(0.5,) * len(streams)]
    if sorted(streams) == sorted(USUAL):
        weights.append(tuple(USUAL[stream] for stream in streams))
    return weights


def table_rows(runs, fusions, reported=None) -> list[dict]:
    """One row for each run alone and each fusion (name, weights): accuracies on all clips and, if given, on the clips of the mask
    `reported` (N,)."""
    alone = [tuple(float(i == j) for j in range(len(runs))) for i in range(len(runs))]
    names = [f"{run.stream or 'run'} alone ({run.source})" for run in runs]
    rows = []
    for name, weights in [*zip(names, alone, strict=True), *fusions]:
        scores, labels = torch.from_numpy(fuse(runs, weights)), torch.from_numpy(runs[0].labels)
        ks = (1, min(5, scores.shape[1]))
        accuracy = topk_accuracy(scores, labels, ks)
        row = {"name": name, "weights": list(weights), "top1": accuracy[1], f"top{ks[1]}": accuracy[ks[1]]}
        if reported is not None:
            row["top1_second_half"] = topk_accuracy(scores[reported], labels[reported], (1,))[1]
        rows.append(row)
    return rows


def print_table(rows: list[dict]) -> None:
    figures = [key for key in rows[0] if key not in ("name", "weights")]
    width = max(len(row["name"]) for row in rows)
    print("  ".join([f"{'run or fusion':{width}}", *(f"{figure:>8}" for figure in figures)]))
    for row in rows:
        cells = (f"{100 * row[figure]:{max(8, len(figure))}.2f}" for figure in figures)
        print("  ".join([f"{row['name']:{width}}", *cells]))


def main(argv=None) -> None:
    args = parse_args(argv)
    check_runs(args.runs)
    if args.search_steps is not None and not args.search:
        raise UserError(f"--search-steps {args.search_steps} has no effect without --search; add --search")
    if args.output and not Path(args.output).absolute().parent.is_dir():
        raise UserError(f"--output {args.output}: the folder does not exist; create it, or give another file")
    runs = [read_scores(path) for path in args.runs]
    check_same_clips(runs)
    for weights in args.weights or ():
        check_weights(weights, len(runs))

    streams = [one.stream for one in runs]
    chosen = [tuple(weights) for weights in args.weights] if args.weights else default_weights(streams)
    fusions = [("weights " + " ".join(f"{weight:g}" for weight in weights), weights) for weights in chosen]
    steps = DEFAULT_STEPS if args.search_steps is None else args.search_steps
    search = search_weights(runs, steps) if args.search else None
    if search:
        fusions.append(("searched " + " ".join(f"{weight:g}" for weight in search.weights), search.weights))

    rows = table_rows(runs, fusions, search.reported if search else None)
    print(f"{len(runs[0])} clips, {runs[0].scores.shape[1]} classes, {len(runs)} runs; top-k accuracy in percent")
    print_table(rows)
    result = {"clips": len(runs[0]), "sources": [one.source for one in runs], "streams": streams, "rows": rows}
    if search:
        print(
            f"searched weights: the best of {search.tried} on {search.chosen_clips} clips "
            f"({100 * search.chosen_accuracy:.2f}), reported on the other {search.reported_clips} "
            f"({100 * search.reported_accuracy:.2f}); halves by the SHA-256 of the clip name, both of the test split"
        )
        result["search"] = {
            "weights": list(search.weights),
            "tried": search.tried,
            "chosen_on": {"clips": search.chosen_clips, "top1": search.chosen_accuracy},
            "reported_on": {"clips": search.reported_clips, "top1": search.reported_accuracy},
            "split": "even first byte of the SHA-256 of the clip name: chosen on; odd: reported on",
        }
    if args.output:
        write_json(args.output, result)


if __name__ == "__main__":
    run(main, sys.argv[1:])
