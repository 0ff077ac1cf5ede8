"""One table from the result files of any runs: what was measured, with which encoder, last and best, mean and deviation.

    python -m engine.table runs/demo/linear_random runs/demo/linear_pretrained ... [--output table.md]

Each argument is a run folder with a result.json, or a result file itself (that of ensemble.py too). Shares are shown in
percent, errors in mm. The table is Markdown, so that it can be pasted where it is needed.
"""

import argparse
import sys
from pathlib import Path

from utils.errors import UserError, run
from utils.files import atomic_write, load_json

COLUMNS = ("run", "task", "data", "encoder", "figure", "last", "best", "seeds")


def read_result(path) -> tuple[str, dict]:
    """(name of the run, content) of a run folder or a result file; UserError when there is none or it is no result."""
    path = Path(path)
    file = path / "result.json" if path.is_dir() else path
    content = load_json(file)
    if not isinstance(content, dict) or not ("summary" in content or "rows" in content):
        raise UserError(f"{file}: not a result file of an evaluation (no summary in it)")
    return path.name if path.is_dir() else path.stem, content


def percent(summary: dict) -> str:
    """A summary of shares as `83.9 ± 0.4`."""
    deviation = "" if summary.get("std") is None else f" ± {100 * summary['std']:.1f}"
    return f"{100 * summary['mean']:.1f}{deviation}"


def millimetres(summary: dict) -> str:
    deviation = "" if summary.get("std") is None else f" ± {summary['std']:.1f}"
    return f"{summary['mean']:.1f}{deviation}"


def classification_figures(content: dict) -> list[tuple]:
    last, best = content["summary"]["last"]["top1"], content["summary"]["best"]["top1"]
    share, count = content.get("label_fraction"), content.get("label_count")
    labels = "" if share is None else f", {100 * share:g} % of the labels"
    labels += "" if count is None else f", {count} labelled clip{'s' * (count > 1)} a class"
    rows = [(f"top-1 %{labels}", percent(last), percent(best), last["count"])]
    for kind, curve in (content.get("curves") or {}).items():
        points = " ".join(f"{100 * value:.1f}" for value in curve["mean"])
        unit = curve["unit"] if kind == "early" else f"{kind} occlusion, {curve['unit']}"
        rows.append((f"top-1 % at {' '.join(f'{x:g}' for x in curve['x'])} ({unit})", points, "", last["count"]))
    return rows


def retrieval_figures(content: dict) -> list[tuple]:
    summary = content["summary"]
    rows = [(f"{k}-NN %", percent(v), "", v["count"]) for k, v in summary["knn"].items()]
    rows += [(f"recall@{k} %", percent(v), "", v["count"]) for k, v in summary["recall"].items()]
    return rows + ([("mAP %", percent(summary["map"]), "", summary["map"]["count"])] if summary["map"] else [])


def detection_figures(content: dict) -> list[tuple]:
    last, best = content["summary"]["last"], content["summary"]["best"]
    return [
        (f"{name.replace('map_', 'mAP_')} %", percent(value), percent(best[name]), value["count"])
        for name, value in last.items()
        if name.startswith("map_")
    ]


def prediction_figures(content: dict) -> list[tuple]:
    horizons = [name for name in content["zero_velocity"] if "@" in name]
    where = f"MPJPE mm at {' '.join(name.split('@')[1] for name in horizons)} frames"
    rows = [(f"{where}, zero velocity", " ".join(f"{content['zero_velocity'][h]:.1f}" for h in horizons), "", "")]
    for mode, summary in content["summary"]["last"].items():
        values = " ".join(millimetres(summary[h]) for h in horizons)
        rows.append((f"{where}, {mode} encoder", values, "", summary[horizons[0]]["count"]))
    return rows


def ensemble_figures(content: dict) -> list[tuple]:
    return [(f"top-1 %, {row['name']}", f"{100 * row['top1']:.1f}", "", 1) for row in content["rows"]]


def baseline_figures(content: dict) -> list[tuple]:
    words = {"linear": "linear %", "cosine": "1-NN %", "euclidean": "1-NN Euclidean %"}
    return [
        (f"{words[figure]}, {row['name']}", percent(row[figure]), "", row[figure]["count"])
        for row in content["rows"]
        for figure in words
    ]


FIGURES = {
    "baselines": baseline_figures,
    "classification": classification_figures,
    "retrieval": retrieval_figures,
    "detection": detection_figures,
    "motion_prediction": prediction_figures,
    "ensemble": ensemble_figures,
}


def short_encoder(source: str) -> str:
    """A checkpoint by its last folder and file, anything else as it is."""
    path = source.split(" (")[0]
    return "/".join(Path(path).parts[-2:]) if "/" in path else path


def rows_of(name: str, content: dict) -> list[tuple]:
    """The table's rows for one run; UserError for a task that is not known or a result that lacks what its task has."""
    task = content.get("task", "ensemble" if "rows" in content else "?")
    figures = FIGURES.get(task.split("/")[0])
    if figures is None:
        raise UserError(f"{name}: task {task!r} is not known; known: {', '.join(FIGURES)}")
    if content.get("origin", "").startswith("ours"):
        task += " (ours)"
    data = " ".join(str(content[key]) for key in ("dataset", "protocol") if content.get(key))
    pretraining = content.get("pretraining")
    if isinstance(pretraining, dict) and pretraining.get("warning"):
        data += " (pretrained on some of the test clips)"
    head = (name, task, data, f"{short_encoder(content.get('encoder', ''))} {content.get('stream', '')}".strip())
    try:
        return [(*head, *row) for row in figures(content)]
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{name}: the result file lacks what {task} writes ({error}); run the task again") from None


def markdown(rows: list[tuple]) -> str:
    """Rows under COLUMNS, aligned; what is said in the row above is not said again in the first four columns."""
    cells, above = [COLUMNS], ("",) * len(COLUMNS)
    for row in rows:
        row = tuple(str(cell).replace("|", "/") for cell in row)
        cells.append(("", "", "", "", *row[4:]) if row[:4] == above[:4] else row)
        above = row
    widths = [max(len(row[i]) for row in cells) for i in range(len(COLUMNS))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def without_baselines(results: list[dict]) -> list[str]:
    """A sentence for every data set on which a pretrained encoder classifies or retrieves, and whose baselines are not among
    the results: a lift over a random encoder read in one way says little (see engine.baselines)."""

    def place(content: dict) -> tuple[str, str]:
        return str(content.get("dataset")), str(content.get("protocol"))

    tasks = [(str(content.get("task", "")).split("/")[0], content) for content in results]
    there = {place(content) for task, content in tasks if task == "baselines"}
    shown = dict.fromkeys(
        place(content)
        for task, content in tasks
        if task in ("classification", "retrieval") and not str(content.get("encoder", "")).startswith(("random", "no "))
    )
    return [
        f"baselines of {dataset} {protocol} are not shown; they are made by: python -m engine.baselines --finetune-dataset "
        f"{dataset} --protocol {protocol}"
        for dataset, protocol in shown
        if (dataset, protocol) not in there
    ]


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m engine.table", description="One Markdown table from the result files of any runs."
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run folders that hold a result.json, or result files (of ensemble.py too)",
    )
    parser.add_argument("--output", metavar="FILE", help="also write the table into this file")
    return parser


def main(argv=None) -> None:
    args = make_parser().parse_args(argv)
    results = [read_result(path) for path in args.runs]
    text = markdown([row for result in results for row in rows_of(*result)])
    text = "\n".join([text, *(f"\nnote: {line}" for line in without_baselines([content for _, content in results]))])
    print(text)
    if args.output:
        with atomic_write(args.output, "w") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    run(main, sys.argv[1:])
