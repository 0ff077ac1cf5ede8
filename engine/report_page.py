"""The page of a report: HTML with everything in it, that asks nothing of a network.

Every text from a file goes through `text` (HTML) or `script_json` (data for the script); the script itself only ever writes
text, never HTML, and the page forbids itself all connections (Content-Security-Policy). Style and script are the files
beside this one.
"""

import base64
import html
import json
from pathlib import Path

import numpy as np

from engine.report_clips import Shown, hardest_classes
from engine.report_method import Method
from engine.report_runs import RunRecord, is_number
from engine.results import COLUMNS, rows_of, table_cells, without_baselines
from utils.errors import UserError

HERE = Path(__file__).resolve().parent
MOST_POINTS = 600  # of a curve
MOST_CLASSES = 400  # of a confusion matrix
MOST_PICTURE_BYTES = 300_000
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
ABOUT = {
    "pretrain_moco_mask": "pretraining",
    "action_classification": "classification",
    "action_retrieval": "retrieval",
    "action_detection": "detection",
    "motion_prediction": "motion prediction",
}


def text(value) -> str:
    """Anything as text between tags or in a quoted attribute."""
    return html.escape(str(value), quote=True)


def script_json(value) -> str:
    """JSON that can stand in a script element: no character that HTML could read."""
    plain = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return plain.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


# -- parts of a run -----------------------------------------------------------------------------------------------------


def result_rows(run: RunRecord) -> list[tuple]:
    """The run's rows of the table of results, as engine.results has them; a result that has none becomes a note."""
    if run.result is None:
        return []
    try:
        return rows_of(run.name, run.result)
    except UserError as error:
        run.notes.append(str(error))
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        run.notes.append(f"{run.path}: the result file is not as its program writes it ({type(error).__name__})")
    return []


def results_table(rows: list[tuple]) -> str:
    """All rows of results as a table; what the row above says too is left out, as in the Markdown table."""
    head = "".join(f"<th scope=col>{text(c)}</th>" for c in COLUMNS)
    body = "".join(
        f"<tr{' class=more' * (not row[0])}>{''.join(f'<td>{text(cell)}</td>' for cell in row)}</tr>"
        for row in table_cells(rows)
    )
    return f"<div class=scroll><table class=results><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def thinned(x: list, y: list) -> tuple[list, list]:
    """At most MOST_POINTS points of a curve, evenly spaced, the last among them; numbers of 5 digits."""
    if len(x) > MOST_POINTS:
        kept = np.linspace(0, len(x) - 1, MOST_POINTS).round().astype(int)
        x, y = [x[i] for i in kept], [y[i] for i in kept]
    return x, [float(f"{v:.5g}") if is_number(v) else None for v in y]


def series(label: str, x: list, y: list) -> dict:
    x, y = thinned(x, y)
    return {"label": label, "x": x, "y": y}


def panels_of(run: RunRecord) -> list[dict]:
    """Charts of a run: curves of its metrics, and those of its result."""
    panels = run.panels | result_curves(run.result or {})
    return [
        {"title": title, "series": [series(label, x, y) for label, (x, y) in curves.items()]}
        for title, curves in panels.items()
    ]


def result_curves(result: dict) -> dict:
    """Panels of curves in a result file: accuracy of damaged or unfinished clips, error by predicted frame."""
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
    """{names, counts} of confusion.npy, rows are true classes; None where there is none that can be shown."""
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


def most_confused(confusion: dict, number: int = 6) -> str:
    """A list of the pairs of classes that are confused most often."""
    counts = np.array(confusion["counts"])
    off = counts - np.diag(np.diag(counts))
    pairs = [divmod(int(i), len(counts)) for i in np.argsort(-off, axis=None, kind="stable")[:number]]
    lines = [
        f"<li><b>{text(confusion['names'][i])}</b> taken for <b>{text(confusion['names'][j])}</b>"
        f"<span>{int(off[i, j])} of {int(counts[i].sum())}</span></li>"
        for i, j in pairs
        if off[i, j]
    ]
    return f"<ol class=pairs>{''.join(lines)}</ol>" if lines else ""


def class_bars(result: dict) -> str:
    """A bar for every class, the hardest first."""
    lines = "".join(
        f"<li><span class=name>{text(name)}</span><span class=track><i style='width:{100 * min(max(share, 0), 1):.1f}%'></i>"
        f"</span><span class=value>{100 * share:.1f}</span></li>"
        for name, share in hardest_classes(result)
    )
    return f"<ul class=bars>{lines}</ul>" if lines else ""


def arguments_table(run: RunRecord) -> str:
    """Arguments, command and versions of the last start, folded."""
    if not run.starts:
        return ""
    start = run.starts[-1]
    rows = "".join(
        f"<tr><th scope=row>--{text(str(k).replace('_', '-'))}</th><td>{text(plain(v))}</td></tr>"
        for k, v in sorted(run.arguments.items())
    )
    versions = start.get("versions")
    said = ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else ""
    again = f"<p>Started {len(run.starts)} times; these are the last start's.</p>" if len(run.starts) > 1 else ""
    return (
        f"<details><summary>Arguments</summary>{again}<pre>python {text(start.get('command', ''))}</pre>"
        f"<p class=quiet>{text(said)}</p><div class=scroll><table class=arguments><tbody>{rows}</tbody></table></div></details>"
    )


def plain(value) -> str:
    return "" if value is None else " ".join(map(str, value)) if isinstance(value, list) else str(value)


def pictures_of(run: RunRecord) -> str:
    """The first pictures that a run drew of single videos or clips, put into the page."""
    out = []
    for path in [p for folder in ("timelines", "poses") for p in sorted((run.path / folder).glob("*.png"))[:2]]:
        if path.stat().st_size <= MOST_PICTURE_BYTES and (content := path.read_bytes()).startswith(b"\x89PNG\r\n"):
            source = base64.b64encode(content).decode()
            out.append(
                f"<figure><img alt='{text(path.stem)}' src='data:image/png;base64,{source}'>"
                f"<figcaption>{text(path.parent.name)}: {text(path.stem)}</figcaption></figure>"
            )
    return "".join(out)


def figures(shown: list[Shown]) -> str:
    """Placeholders of moving figures, which the script fills."""
    cells = [
        f"<figure class=player data-clip='{text(s.key)}'><figcaption><b>{text(s.title)}</b><span>{text(s.note)}</span>"
        "</figcaption></figure>"
        for s in shown
    ]
    return "".join(cells)


# -- the page -------------------------------------------------------------------------------------------------------------


def section(title: str, content: str, about: str = "") -> str:
    """A headed part of a run, or nothing for no content."""
    said = f"<p class=quiet>{about}</p>" if about else ""
    return f"<section><h3>{text(title)}</h3>{said}{content}</section>" if content else ""


def over(run: RunRecord) -> str:
    """What lies across in the curves of a run's metrics."""
    if not run.panels:
        return ""
    unit = "training steps" if run.program == "pretrain_moco_mask" else "epochs"
    return f"Over {unit}{', unless the title says over what' * bool(result_curves(run.result or {}))}."


def colours_of(shown: list[Shown], clips: dict, layouts: dict) -> str:
    """What the colours of figures mean, for each joint layout among them (there is one, but for odd runs)."""
    named = dict.fromkeys(tuple(layouts[clips[s.key]["layout"]]["parts"]) for s in shown)
    several = any(stage["persons"] > 1 for s in shown for stage in clips[s.key]["stages"])
    words = [[f"<b class=part{i}>{text(word)}</b>" for i, word in enumerate(parts)] for parts in named]
    other = ["<b class=other>other person</b>"] * several
    return "; ".join(", ".join(line + other) for line in words) + "." if words else ""


def run_card(i: int, run: RunRecord, charts, confusion, hardest: list[Shown], predicted, clips, layouts) -> str:
    """All of one run. predicted: (figures, words); clips, layouts: of a ClipStore."""
    result = run.result or {}
    about = [ABOUT.get(run.program, run.program or str(result.get("task", "") or "result"))]
    data = result.get("dataset") or run.arguments.get("pre_dataset")
    about += [f"{data} {result.get('protocol') or run.arguments.get('protocol') or ''}"] if data else []
    about += [f"{result['encoder']}, {result.get('stream', '')} stream"] if result.get("encoder") else []
    about += [str(run.starts[-1].get("time", ""))] if run.starts else []
    shapes = "".join(
        f"<figure><figcaption>{text(panel['title'])}</figcaption><canvas class=chart data-chart='{i},{j}' tabindex=0></canvas>"
        f"<div class=legend></div></figure>"
        for j, panel in enumerate(charts)
    )
    matrix = (
        f"<div class=wide><div class=matrix><canvas data-matrix='{i}' tabindex=0></canvas></div>"
        f"<div><h4>Most confused</h4>{most_confused(confusion)}</div></div>"
        if confusion
        else ""
    )
    bars = class_bars(result)
    notes = "".join(f"<li>{text(note)}</li>" for note in run.notes)
    return (
        f"<article id='run{i}'><h2>{text(run.name)}</h2><p class=quiet>{text(' · '.join(a for a in about if a))}</p>"
        + (f"<ul class=notes>{notes}</ul>" if notes else "")
        + arguments_table(run)
        + section("Curves", f"<div class=grid>{shapes}</div>" if shapes else "", f"{over(run)} Point at a curve to read it.")
        + section(
            "Predicted motion",
            f"<div class=grid>{figures(predicted[0])}</div>" if predicted[0] else "",
            text(predicted[1]) + " Hidden parts are missing in what was seen, <b class=predicted>orange</b> where they are "
            "predicted and <b class=true>green</b> in the true clip. Drag a figure to turn it.",
        )
        + section(
            "Confusion", matrix, "Rows are true classes, columns what they were taken for; a stronger colour is a larger share of "
            "the row. Point at a cell.",
        )
        + section(
            "Hardest classes, moving", f"<div class=grid>{figures(hardest)}</div>" if hardest else "",
            f"{colours_of(hardest, clips, layouts)} Drag a figure to turn it.",
        )
        + section(
            "Every class, in percent", f"<details{' open' * (bars.count('<li>') <= 20)}><summary>{bars.count('<li>')} "
            f"classes, the hardest first</summary>{bars}</details>" if bars else "",
        )
        + section("Pictures", f"<div class='grid pictures'>{pictures_of(run)}</div>" if pictures_of(run) else "")
        + "</article>"
    )  # fmt: skip


def opening(sentence: str, method: Method | None) -> str:
    """The first screen: the result, the method in words, and its figure."""
    lead = f"<p class=lead>{text(sentence)}</p>" if sentence else ""
    if method is None:
        return f"<section>{lead}</section>" if lead else ""
    words = "".join(f"<li>{text(line)}</li>" for line in method.sentences)
    source = base64.b64encode(method.figure).decode()
    picture = f"<img class=method alt='the method on a clip' src='data:image/png;base64,{source}'>"
    colours = ", ".join(f"<b style='color: {colour}'>{text(words)}</b>" for words, colour in method.legend)
    figure = f"<figure><div class=scroll>{picture}</div><figcaption>{colours}</figcaption></figure>"
    return f"<section>{lead}<ol class=method>{words}</ol>{figure}</section>"


BEST = (
    "<p class=quiet><b>last</b> is the accuracy after the last epoch; <b>best</b> is the highest of any test during the "
    "training, as most of the field reports it, and is flattered by that choice.</p>"
)


def make_page(
    title: str, made: str, runs: list[RunRecord], clips, layouts, hardest: dict, predicted: dict, first: str = ""
) -> str:
    """The whole page. clips, layouts: of a ClipStore; hardest, predicted: by number of the run; first: its `opening`."""
    rows = [row for run in runs for row in result_rows(run)]
    charts = [panels_of(run) for run in runs]
    matrices = [confusion_of(run) for run in runs]
    cards = "".join(
        run_card(i, run, charts[i], matrices[i], hardest.get(i, []), predicted.get(i, ([], "")), clips, layouts)
        for i, run in enumerate(runs)
    )
    links = "".join(f"<a href='#run{i}'>{text(run.name)}</a>" for i, run in enumerate(runs))
    notes = without_baselines([run.result for run in runs if isinstance(run.result, dict)])
    notes = "".join(f"<p class=quiet>{text(note)}</p>" for note in notes)
    summary = section("Results", results_table(rows) + BEST + notes) if rows else ""
    data = script_json({"charts": charts, "matrices": matrices, "clips": clips, "layouts": layouts})
    style, script = ((HERE / f"report_page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    number = f"{len(runs)} run{'s' * (len(runs) != 1)}"
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        "<meta name=viewport content='width=device-width, initial-scale=1'><link rel=icon href='data:,'>"
        f"<title>{text(title)}</title><style>{style}</style></head><body><header><h1>{text(title)}</h1>"
        f"<p class=quiet>{number}, {text(made)}</p><nav>{links}</nav></header>"
        f"<main><div id=summary>{first}{summary}</div>{cards}</main>"
        "<noscript><p>Curves, matrices and moving figures need JavaScript; the tables do not.</p></noscript>"
        f"<div id=tip role=status hidden></div><script type=application/json id=report-data>{data}</script>"
        f"<script>{script}</script></body></html>\n"
    )
