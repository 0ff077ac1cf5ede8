"""Reads run folders: arguments, curves and results, for tools/visualize.py and tools/report.py.

The files are untrusted and may be incomplete: lines that are no records are skipped, a file that cannot be read becomes a note, and
every field may be missing.
"""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

from utils.errors import UserError
from utils.files import MAX_JSON_BYTES, load_json

METRICS, ARGUMENTS, RESULT = "metrics.jsonl", "arguments.json", "result.json"
MOST_METRICS_BYTES = 256 * 2**20
DEPTH = 3  # levels of folders that are searched for runs
MOST_RUNS = 60

# panels of curves: {prefix of a name: title of the panel}; a name without such a prefix has its own panel
PANELS = {
    "total": "total loss",
    "seconds_per_step": "seconds a step",
    "data_seconds_per_step": "seconds a step waits for data",
    "contrast_": "contrast losses",
    "distillation": "distillation loss",
    "prediction": "prediction loss (hidden coordinates)",
    "top1_": "own key nearer than the queue, share",
    "effective_rank": "effective rank of the embeddings",
    "uniformity": "uniformity of the embeddings (0 = one point)",
    "alignment": "alignment of query and own key (0 = equal)",
    "knn_top1": "1-NN of held-out clips, share",
    "top1": "top-1 of the test clips, share",
    "top5": "top-5 of the test clips, share",
    "frame_accuracy": "right frames, share",
    "map_a@": "mAP_a by overlap, share",
    "map_v@": "mAP_v by overlap, share",
    "train_mpjpe_mm": "training error in mm",
    "lr": "learning rate",
    "gradient_norm": "gradient norm",
}
FIRST_PANELS = ("total loss",)
LAST_PANELS = ("learning rate", "gradient norm", "seconds a step", "seconds a step waits for data", "skipped")


def read_metrics(path) -> list[dict]:
    """The records of a metrics.jsonl (or of the one in a run folder), in order; other lines are skipped.

    UserError when there is no such file, or no record in it."""
    path = Path(path)
    path = path / METRICS if path.is_dir() else path
    try:
        if path.stat().st_size > MOST_METRICS_BYTES:
            raise UserError(f"{path}: {path.stat().st_size} bytes is too large for a file of metrics")
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: there is no such file; give the folder of a run that has started to train") from None
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and is_number(record.get("step")):
            records.append(record)
    if not records:
        raise UserError(f"{path}: it holds no record; a program that trains writes one with the first line of its log")
    return records


def is_number(value) -> bool:
    """Whether a value is a finite number; integers beyond the range of a float are not."""
    try:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def number_at(value, *path: str) -> float | None:
    """The number at a path of keys in the content of a JSON file, None if there is none."""
    for step in path:
        value = value.get(step) if isinstance(value, dict) else None
    return value if is_number(value) else None


def curve_panels(records: list[dict]) -> dict[str, dict[str, tuple[list, list]]]:
    """Panels {title: {label: (steps, values)}} of records; losses of a kind share a panel, and so do the seeds and modes of an
    evaluation (`frozen/seed1/loss`, `seed1/map_a@0.5`). A value that is not a number is None."""
    names = dict.fromkeys(
        name for r in records for name, v in r.items() if name not in ("step", "epoch") and (v is None or is_number(v))
    )
    panels: dict[str, dict] = {}
    for name in names:
        points = [(r["step"], r[name] if is_number(r[name]) else None) for r in records if name in r]
        if all(y is None for _, y in points) or (name == "skipped" and not any(y for _, y in points)):
            continue
        series, _, short = name.rpartition("/")
        title, label = short, series or short
        for start, panel in PANELS.items():
            if short.startswith(start):
                title, label = panel, " ".join(filter(None, (series, short[len(start) :]))) or short
                break
        panels.setdefault(title, {})[label] = tuple(map(list, zip(*points, strict=True)))
    first, last = ([t for t in titles if t in panels] for titles in (FIRST_PANELS, LAST_PANELS))
    return {title: panels[title] for title in [*first, *(t for t in panels if t not in (*first, *last)), *last]}


@dataclass
class RunRecord:
    """The content of a run folder. name: shown on the page; starts: entries of arguments.json; panels: curves; result: content of
    result.json or None; notes: sentences about what could not be read."""

    name: str
    path: Path
    starts: list[dict] = field(default_factory=list)
    panels: dict = field(default_factory=dict)
    result: dict | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def program(self) -> str:
        return str(self.starts[-1].get("program", "")) if self.starts else ""

    @property
    def arguments(self) -> dict:
        found = self.starts[-1].get("arguments") if self.starts else None
        return found if isinstance(found, dict) else {}


def is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (ARGUMENTS, RESULT, METRICS))


def is_fusion(path: Path) -> bool:
    """Whether a file was written by tools/ensemble.py --output."""
    if path.suffix != ".json" or path.name in (ARGUMENTS, RESULT) or not 0 < path.stat().st_size < MAX_JSON_BYTES:
        return False
    try:
        content = load_json(path)
    except UserError:
        return False
    return isinstance(content, dict) and isinstance(content.get("rows"), list) and "sources" in content


def find_runs(given: list) -> list[tuple[str, Path]]:
    """(name, run folder or result file) of all runs at and below the given paths, in order; folders of earlier runs
    (`earlier-DATE`) and hidden ones are skipped. UserError for a path without a run, and for too many runs."""
    found: dict[Path, str] = {}
    for path in map(Path, given):
        if path.is_file() and path.suffix == ".json":
            here = {path: path.stem}
        elif path.is_dir():
            here = {p: _name(p, path, len(given) > 1) for p in _below(path, DEPTH)}
        else:
            raise UserError(f"{path}: {'not a run folder' if path.exists() else 'there is no such folder'}")
        if not here:
            raise UserError(f"{path}: no run in it or below (no {ARGUMENTS}, {RESULT} or {METRICS})")
        found |= {p: name for p, name in here.items() if p not in found}
    if len(found) > MOST_RUNS:
        raise UserError(f"{len(found)} runs found, a report shows at most {MOST_RUNS}; name fewer folders")
    return [(name, path) for path, name in found.items()]


def _name(run: Path, given: Path, several: bool) -> str:
    """A run's path relative to the given folder; with several given folders, preceded by the folder's name."""
    root, name = given.resolve().name, run.relative_to(given).as_posix()
    name = name.removesuffix(".json") if run.is_file() else name
    return root if name == "." else f"{root}/{name}" if several else name


def _below(folder: Path, depth: int):
    """Run folders and result files of tools/ensemble.py at and below a folder."""
    if is_run(folder):
        yield folder
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "earlier-")):
            continue
        if path.is_dir() and depth:
            yield from _below(path, depth - 1)
        elif path.is_file() and is_fusion(path):
            yield path


def read_run(name: str, path: Path) -> RunRecord:
    """Reads a run folder or a result file; files that cannot be read become notes."""
    run = RunRecord(name, path)
    if path.is_file():
        run.result = _read(run, path, dict)
        return run
    if (path / ARGUMENTS).is_file():
        run.starts = [s for s in _read(run, path / ARGUMENTS, list) or [] if isinstance(s, dict)]
    if (path / RESULT).is_file():
        run.result = _read(run, path / RESULT, dict)
    if (path / METRICS).is_file() and (path / METRICS).stat().st_size:
        try:
            run.panels = curve_panels(read_metrics(path))
        except UserError as error:
            run.notes.append(str(error))
    return run


def _read(run: RunRecord, path: Path, kind: type):
    try:
        content = load_json(path)
    except UserError as error:
        run.notes.append(str(error))
        return None
    if not isinstance(content, kind):
        run.notes.append(f"{path}: expected a JSON {'object' if kind is dict else 'list'}")
        return None
    return content
