"""The page of a report: one HTML file that contains everything and loads nothing from a network.

`make_page` collects plain values (rows, curves, confusion matrices, pictures) from the runs and fills the Jinja template
report_page.html with them; style and script are report_page.css and report_page.js. The template escapes every value
(autoescape), the script gets its data as JSON and only ever writes text, and the page's Content-Security-Policy forbids all
connections: texts of run folders are untrusted.
"""

import base64
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from engine.report_clips import ClipStore, Shown, hardest_classes
from engine.report_method import Method, headline
from engine.report_runs import RunRecord, is_number
from engine.results import COLUMNS, rows_of, table_cells, without_baselines
from utils.errors import UserError

HERE = Path(__file__).resolve().parent
MOST_POINTS = 600  # of a curve
MOST_CLASSES = 400  # of a confusion matrix
MOST_PICTURE_BYTES = 300_000
ABOUT = {
    "pretrain_moco_mask": "pretraining",
    "action_classification": "classification",
    "action_retrieval": "retrieval",
    "action_detection": "detection",
    "motion_prediction": "motion prediction",
}


def templates() -> Environment:
    """Jinja with autoescape, which fails on a name that a template does not get, and on NaN in JSON."""
    found = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.filters["base64"] = lambda content: base64.b64encode(content).decode()
    found.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return found


def result_rows(run: RunRecord) -> list[tuple]:
    """The run's rows in the table of results, see engine.results; a result that cannot be read becomes a note."""
    if run.result is None:
        return []
    try:
        return rows_of(run.name, run.result)
    except UserError as error:
        run.notes.append(str(error))
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        run.notes.append(f"{run.path}: the result file is not as its program writes it ({type(error).__name__})")
    return []


def thinned(x: list, y: list) -> tuple[list, list]:
    """At most MOST_POINTS evenly spaced points of a curve, including the last; values rounded to 5 digits."""
    if len(x) > MOST_POINTS:
        kept = np.linspace(0, len(x) - 1, MOST_POINTS).round().astype(int)
        x, y = [x[i] for i in kept], [y[i] for i in kept]
    return x, [float(f"{v:.5g}") if is_number(v) else None for v in y]


def series(label: str, x: list, y: list) -> dict:
    x, y = thinned(x, y)
    return {"label": label, "x": x, "y": y}


def panels_of(run: RunRecord) -> list[dict]:
    """The charts of a run: curves of its metrics and of its result."""
    panels = run.panels | result_curves(run.result or {})
    return [
        {"title": title, "series": [series(label, x, y) for label, (x, y) in curves.items()]}
        for title, curves in panels.items()
    ]


def result_curves(result: dict) -> dict:
    """Panels of the curves in a result: accuracy with occlusion and in early recognition, error by predicted frame."""
    panels = {}
    curves = result.get("curves")
    for kind, curve in curves.items() if isinstance(curves, dict) else ():
        if isinstance(curve, dict) and _numbers(curve.get("x")) and _numbers(curve.get("mean")):
            x, mean = curve["x"], curve["mean"]
            if len(x) == len(mean):
                panels[f"top-1 %: {kind}, {curve.get('unit', '')}"] = {"": (x, [100 * v for v in mean])}
    if str(result.get("task", "")).startswith("motion_prediction") and isinstance(result.get("seeds"), dict):
        lines = {}
        for mode, seeds in result["seeds"].items():
            for seed, values in seeds.items() if isinstance(seeds, dict) else ():
                errors = values.get("last") if isinstance(values, dict) else None
                if _numbers(errors):
                    lines[f"{mode}, seed {seed}"] = (list(range(1, len(errors) + 1)), errors)
        if lines:
            panels["error in mm by predicted frame"] = lines
    return panels


def _numbers(values) -> bool:
    return isinstance(values, list) and bool(values) and all(map(is_number, values))


def confusion_of(run: RunRecord) -> dict | None:
    """{names, counts} of confusion.npy, rows are true classes; None if there is none or it cannot be shown."""
    path = run.path / "confusion.npy"
    if not path.is_file():
        return None
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError):
        run.notes.append(f"{path}: not a readable array")
        return None
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not 0 < len(matrix) <= MOST_CLASSES:
        run.notes.append(f"{path}: expected a square matrix of at most {MOST_CLASSES} classes, found {matrix.shape}")
        return None
    if matrix.dtype.kind not in "iu":
        run.notes.append(f"{path}: expected counts, found {matrix.dtype}")
        return None
    names = list((run.result or {}).get("per_class") or {})
    names = names if len(names) == len(matrix) else [f"class {i}" for i in range(len(matrix))]
    return {"names": list(map(str, names)), "counts": matrix.tolist()}


def most_confused(confusion: dict, number: int = 6) -> list[tuple[str, str, int, int]]:
    """(true class, class it was taken for, how often, clips of the true class), the most frequent first."""
    names, counts = confusion["names"], np.array(confusion["counts"])
    off = counts - np.diag(np.diag(counts))
    pairs = [divmod(int(i), len(counts)) for i in np.argsort(-off, axis=None, kind="stable")[:number]]
    return [(names[i], names[j], int(off[i, j]), int(counts[i].sum())) for i, j in pairs if off[i, j]]


def plain(value) -> str:
    return "" if value is None else " ".join(map(str, value)) if isinstance(value, list) else str(value)


def pictures_of(run: RunRecord) -> list[dict]:
    """{folder, name, content} of the first PNG files that a run drew of single videos or clips."""
    paths = [p for folder in ("timelines", "poses") for p in sorted((run.path / folder).glob("*.png"))[:2]]
    found = [(path, path.read_bytes()) for path in paths if path.stat().st_size <= MOST_PICTURE_BYTES]
    return [
        {"folder": path.parent.name, "name": path.stem, "content": content}
        for path, content in found
        if content.startswith(b"\x89PNG\r\n")
    ]


def x_axis_of(run: RunRecord) -> str:
    """What the x axis of a run's curves is, as a sentence."""
    if not run.panels:
        return ""
    unit = "training steps" if run.program == "pretrain_moco_mask" else "epochs"
    return f"Over {unit}{', unless the title says over what' * bool(result_curves(run.result or {}))}."


def colours_of(shown: list[Shown], store: ClipStore) -> list[list[dict]]:
    """{style, words} of each colour of the figures, for each joint layout among them (usually one)."""
    layouts = dict.fromkeys(tuple(store.layouts[store.clips[s.key]["layout"]]["parts"]) for s in shown)
    several = any(stage["persons"] > 1 for s in shown for stage in store.clips[s.key]["stages"])
    other = [{"style": "other", "words": "other person"}] * several
    return [[{"style": f"part{i}", "words": words} for i, words in enumerate(parts)] + other for parts in layouts]


def about(run: RunRecord) -> str:
    """The line below a run's name: task, data, encoder and time, as far as its files say them."""
    result = run.result or {}
    words = [ABOUT.get(run.program, run.program or str(result.get("task", "") or "result"))]
    data = result.get("dataset") or run.arguments.get("pre_dataset")
    words += [f"{data} {result.get('protocol') or run.arguments.get('protocol') or ''}"] if data else []
    words += [f"{result['encoder']}, {result.get('stream', '')} stream"] if result.get("encoder") else []
    words += [str(run.starts[-1].get("time", ""))] if run.starts else []
    return " · ".join(filter(None, words))


def run_values(
    run: RunRecord, charts: list[dict], confusion: dict | None, store: ClipStore, hardest: list[Shown], predicted
) -> dict:
    """What the template shows of a run. predicted: (figures, words), see `engine.report_clips.predicted_motion`."""
    start = run.starts[-1] if run.starts else {}
    versions = start.get("versions")
    return {
        "name": run.name,
        "about": about(run),
        "notes": run.notes,
        "starts": len(run.starts),
        "command": start.get("command", ""),
        "versions": ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else "",
        "arguments": [(f"--{str(k).replace('_', '-')}", plain(v)) for k, v in sorted(run.arguments.items())],
        "charts": [chart["title"] for chart in charts],
        "x_axis": x_axis_of(run),
        "predicted": predicted[0],
        "predicted_error": predicted[1],
        "confused": confusion and most_confused(confusion),
        "hardest": hardest,
        "colours": colours_of(hardest, store),
        "classes": [(name, 100 * share) for name, share in hardest_classes(run.result or {})],
        "pictures": pictures_of(run),
    }


def make_page(
    title: str,
    made: str,
    runs: list[RunRecord],
    store: ClipStore,
    hardest: dict,
    predicted: dict,
    method: Method | None,
) -> str:
    """The whole page as HTML. made: the date; hardest, predicted: of `engine.report_clips`, by the number of the run; method:
    figure and sentences for the first screen, None for none."""
    rows = [row for run in runs for row in result_rows(run)]
    charts = [panels_of(run) for run in runs]
    matrices = [confusion_of(run) for run in runs]
    style, script = (Markup((HERE / f"report_page.{kind}").read_text(encoding="utf-8")) for kind in ("css", "js"))
    return (
        templates()
        .get_template("report_page.html")
        .render(
            title=title,
            made=made,
            headline=headline(runs),
            method=method,
            columns=COLUMNS,
            rows=table_cells(rows),
            baseline_notes=without_baselines([run.result for run in runs if isinstance(run.result, dict)]),
            runs=[
                run_values(run, charts[i], matrices[i], store, hardest.get(i, []), predicted.get(i, ([], "")))
                for i, run in enumerate(runs)
            ],
            data={"charts": charts, "matrices": matrices, "clips": store.clips, "layouts": store.layouts},
            style=style,
            script=script,
        )
    )
