"""One table from the result files of any runs: task, data, encoder and figures, last and best, mean and standard deviation.

    python -m engine.results runs                                  every result below a folder
    python -m engine.results runs/joint_seed1 runs/joint_seed2 runs/joint_seed3 --seeds
    python -m engine.results runs --latex --output table.tex

Each argument is a folder with results in it or below, or a result file (also of tools/ensemble.py). Accuracies are shown in
percent, errors in mm. With --seeds, encoders whose pretrainings differ only in the seed become one row: mean and standard
deviation over the pretrainings. The table is Markdown or LaTeX; a last column has the paper's figure, for rows that have one.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from options.common import add_flags, parser
from utils.errors import UserError, run
from utils.files import atomic_write, load_json
from utils.metrics import summarise

COLUMNS = ("run", "task", "data", "encoder", "figure", "last", "best", "seeds")
DEEPEST = 4  # levels of folders that are searched for results
# arguments of pretraining that may differ between runs of one row (seed, paths, machine, frequency of saving)
SEED_ONLY = set(
    "seed checkpoint_path data_root cache_dir clips workers device threads local_rank timeout_minutes resume save_fre "
    "save_every_minutes print_freq knn_every knn_clips pictures on_nonfinite nonfinite_limit".split()
)
# Zhang, Lin, Liu, ACM MM 2023: top-1 % of the joint stream, by data set and protocol
PAPER = {
    "classification/linear": {
        "ntu60 cross_subject": 83.9,
        "ntu60 cross_view": 90.4,
        "ntu120 cross_subject": 76.5,
        "ntu120 cross_setup": 77.5,
        "pku_v2 cross_subject": 51.5,
    },
    "retrieval": {
        "ntu60 cross_subject": 73.7,
        "ntu60 cross_view": 88.8,
        "ntu120 cross_subject": 63.1,
        "ntu120 cross_setup": 66.8,
    },
}
FIRST_FIGURE = {"classification/linear": "top-1 %", "retrieval": "1-NN %"}


def read_result(path) -> tuple[str, dict]:
    """(name of the run, content) of a run folder or a result file; UserError if the file is missing or is not a result."""
    path = Path(path)
    file = path / "result.json" if path.is_dir() else path
    path = path.parent if path.name == "result.json" else path
    content = load_json(file)
    if not isinstance(content, dict) or not ("summary" in content or "rows" in content):
        raise UserError(f"{file}: not a result file of an evaluation (no summary in it)")
    return path.name if path.is_dir() else path.stem, content


def percent(summary: dict) -> str:
    """A summary of accuracies as text in percent, such as `83.9 ± 0.4`."""
    return shown(summary, 100)


def shown(summary: dict, factor: float = 1) -> str:
    """Mean and standard deviation (if there is one) as text with one decimal."""
    deviation = "" if summary.get("std") is None else f" ± {factor * summary['std']:.1f}"
    return f"{factor * summary['mean']:.1f}{deviation}"


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
        values = " ".join(shown(summary[h]) for h in horizons)
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
    """The last folder and file name of a checkpoint; other names unchanged."""
    path = source.split(" (")[0]
    return "/".join(Path(path).parts[-2:]) if "/" in path else path


def rows_of(name: str, content: dict) -> list[tuple]:
    """The table's rows for one run; UserError for an unknown task, and for a result without the entries of its task."""
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


def table_cells(rows: list[tuple]) -> list[tuple[str, ...]]:
    """Rows as strings; the first four columns are empty where they repeat the row above."""
    rows = [tuple(map(str, row)) for row in rows]
    above = [(), *rows][: len(rows)]
    return [("", "", "", "", *row[4:]) if row[:4] == one[:4] else row for row, one in zip(rows, above, strict=True)]


def markdown(rows: list[tuple], columns=COLUMNS) -> str:
    """The rows as an aligned Markdown table."""
    cells = [columns, *([cell.replace("|", "/") for cell in row] for row in table_cells(rows))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells]
    lines.insert(1, "-|-".join("-" * width for width in widths))
    return "\n".join(f"| {line} |" if i != 1 else f"|-{line}-|" for i, line in enumerate(lines))


def without_baselines(results: list[dict]) -> list[str]:
    """A note for every data set that has results of a pretrained encoder in classification or retrieval but none of
    engine.baselines, without which they are hard to judge."""

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
        f"baselines of {dataset} {protocol} are missing; this command makes them: python -m engine.baselines --dataset "
        f"{dataset} --protocol {protocol}"
        for dataset, protocol in shown
        if (dataset, protocol) not in there
    ]


# -- which results, and the paper's beside them ---------------------------------------------------------------------------


def result_files(paths) -> list[Path]:
    """The result files of the arguments: a file itself, of a folder every result.json down to DEEPEST levels, except those of
    earlier runs (`earlier-DATE`). UserError for a folder without any."""
    found = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        levels = ["/".join(["*"] * depth + ["result.json"]) for depth in range(DEEPEST + 1)]
        own = sorted(file for level in levels for file in path.glob(level))
        own = [f for f in own if not any(part.startswith("earlier-") for part in f.relative_to(path).parts)]
        if not own:
            raise UserError(f"{path}: there is no result.json in it or below it; give the run folder of an evaluation")
        found += own
    return list(dict.fromkeys(found))


def paper_figure(row: tuple) -> str:
    """The paper's figure for a row of `rows_of`, '' if it has none: joint stream, first figure of the task."""
    _, task, data, encoder, figure = row[:5]
    if figure != FIRST_FIGURE.get(task) or not encoder.endswith("joint") or encoder.startswith("random"):
        return ""
    return str(PAPER[task].get(data, ""))


# -- seeds of pretraining ---------------------------------------------------------------------------------------------------


def pretraining_of(content: dict) -> tuple[str, int, dict] | None:
    """(folder, seed, other arguments) of the pretraining of a result's encoder, from arguments.json beside the checkpoint; None if
    there is none."""
    folder = Path(str(content.get("encoder", "")).split(" (")[0]).parent
    file = folder / "arguments.json"
    if not file.is_file():
        return None
    starts = load_json(file)
    last = starts[-1] if isinstance(starts, list) and starts else None
    arguments = last.get("arguments") if isinstance(last, dict) else None
    if not isinstance(arguments, dict) or not isinstance(arguments.get("seed"), int):
        return None
    return str(folder), arguments["seed"], {k: v for k, v in arguments.items() if k not in SEED_ONLY}


def over_seeds(files: list[Path]) -> list[tuple]:
    """Rows as in `rows_of`, with mean and standard deviation over the pretrainings of each task and data set.

    UserError if pretrainings differ in more than their seed, if two have the same seed, and if the arguments of a pretraining
    are missing."""
    groups: dict[tuple, list] = {}
    for file in files:
        name, content = read_result(file)
        found = pretraining_of(content)
        if found is None:
            raise UserError(
                f"{file}: no arguments.json beside the checkpoint of {content.get('encoder', 'its encoder')}"
            )
        rows = rows_of(name, content)
        groups.setdefault(rows[0][1:3] + (content.get("label_fraction"), rows[0][3].split()[-1]), []).append(
            (found, rows)
        )
    table = []
    for runs in groups.values():
        check_one_recipe([found for found, _ in runs])
        number = len(runs)
        for rows in zip(*(rows for _, rows in runs), strict=True):
            name = f"{number} pretraining{'s' * (number > 1)}"
            encoder = f"seeds {' '.join(str(found[1]) for found, _ in runs)} {rows[0][3].split()[-1]}"
            table.append((name, *rows[0][1:3], encoder, rows[0][4], *(mean_of(rows, i) for i in (5, 6)), number))
    return table


def check_one_recipe(found: list[tuple[str, int, dict]]) -> None:
    """UserError unless the pretrainings differ in their seeds only. found: of `pretraining_of`."""
    (first, seed, arguments), *others = found
    seeds = {seed: first}
    for folder, seed, own in others:
        for name in sorted(arguments.keys() | own.keys()):
            if arguments.get(name) != own.get(name):
                flag = "--" + name.replace("_", "-")
                raise UserError(
                    f"{folder} was pretrained with {flag} {own.get(name)}, {first} with {arguments.get(name)}; --seeds takes "
                    "runs that differ only in --seed"
                )
        if seed in seeds:
            raise UserError(f"{folder} and {seeds[seed]} have the same seed {seed}; leave one of them out")
        seeds[seed] = folder


def mean_of(rows, column: int) -> str:
    """Mean and standard deviation over runs of a column, at each point of a curve, as text."""
    cells = [str(row[column]).split(" ± ")[0].split() for row in rows]
    if not cells[0] or any(len(cell) != len(cells[0]) for cell in cells):
        return ""
    means = [summarise(map(float, points)) for points in zip(*cells, strict=True)]
    return " ".join(shown(asdict(mean)) for mean in means)


# -- LaTeX --------------------------------------------------------------------------------------------------------------------


LATEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "±": r"$\pm$"}
LATEX |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def latex(rows: list[tuple], columns) -> str:
    """The rows as a LaTeX tabular for the booktabs package; all text is escaped."""
    escaped = str.maketrans(LATEX)
    head, *lines = (" & ".join(str(cell).translate(escaped) for cell in row) + r" \\" for row in (columns, *rows))
    kinds = "l" * 5 + "r" * (len(columns) - 5)
    frame = (rf"\begin{{tabular}}{{{kinds}}}", r"\toprule", head, r"\midrule")
    return "\n".join([*frame, *lines, r"\bottomrule", r"\end{tabular}"])


FLAGS = """
runs RUN+  folders with results in them or below, or result files (also of tools/ensemble.py)
--seeds
    mean and standard deviation over pretrainings that differ only in --seed; any other difference is refused
--latex  a LaTeX tabular (booktabs) instead of Markdown
--output FILE  also write the table into this file
"""


def make_parser() -> argparse.ArgumentParser:
    what = "One table from the result files of any runs, in Markdown or LaTeX, with the paper's figures."
    p = parser(what, program="engine.results")
    add_flags(p, FLAGS)
    return p


def main(argv=None) -> None:
    args = make_parser().parse_args(argv)
    files = result_files(args.runs)
    results = [read_result(file) for file in files]
    rows = over_seeds(files) if args.seeds else [row for result in results for row in rows_of(*result)]
    columns, paper = COLUMNS, [paper_figure(row) for row in rows]
    if any(paper):
        columns, rows = (*COLUMNS, "paper"), [(*row, figure) for row, figure in zip(rows, paper, strict=True)]
    text = latex(rows, columns) if args.latex else markdown(rows, columns)
    mark = "% " if args.latex else "\n"
    notes = without_baselines([content for _, content in results])
    text = "\n".join([text, *(f"{mark}note: {line}" for line in notes)])
    print(text)
    if args.output:
        with atomic_write(args.output, "w") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    run(main, sys.argv[1:])
