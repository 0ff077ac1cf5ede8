"""Writes one HTML file about any runs: results, curves, confusion, animated clips of the hardest classes and predicted motion.

    python -m tools.report runs/demo --output report.html

Takes run folders of pretraining and evaluations, and folders that contain several of them. The file needs no network and no other
file. What cannot be shown (data that is elsewhere, a file that cannot be read) is left out, with a note on the page and on
standard output. The runs are not changed.
"""

import sys

from options.report import parse_args

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant

import time
from pathlib import Path

from engine.report_clips import ClipStore, hardest_clips, is_pretraining, predicted_motion
from engine.report_method import Method, method_of
from engine.report_page import make_page
from engine.report_runs import RunRecord, find_runs, read_run
from utils.errors import UserError, run
from utils.files import atomic_write


def check_output(path) -> Path:
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output {path}: a report's name must end in .html")
    if path.is_dir():
        raise UserError(f"--output {path}: is a folder; give the name of a file, such as {path / 'report.html'}")
    return path


def moving_figures(args, one: RunRecord, store: ClipStore) -> tuple[list, tuple[list, str]]:
    """(clips of the hardest classes, (predicted motion, its error in words)) of a run; what cannot be shown becomes a note."""
    hardest, predicted = [], ([], "")
    try:
        if args.hardest and one.result is not None:
            hardest = hardest_clips(one, store, args.hardest, args.clips)
        if args.predictions and is_pretraining(one):
            predicted = predicted_motion(one, store, args.predictions, args.seed)
    except UserError as error:
        one.notes.append(f"no moving figures: {error}")
    return hardest, predicted


def first_method(args, runs: list[RunRecord], store: ClipStore) -> Method | None:
    """The method of the first pretraining that can be drawn, None if none can; the reason becomes a note of the run."""
    for one in filter(is_pretraining, runs) if args.predictions else ():
        try:
            return method_of(one, store, args.seed)
        except UserError as error:
            one.notes.append(f"no figure of the method: {error}")
    return None


def main(argv=None) -> int:
    args = parse_args(argv)
    output = check_output(args.output)
    runs = [read_run(name, path) for name, path in find_runs(args.runs)]
    runs.sort(key=lambda one: one.program != "pretrain_moco_mask")  # pretrainings first
    store = ClipStore(args.data_root)
    hardest, predicted = {}, {}
    for i, one in enumerate(runs):
        hardest[i], predicted[i] = moving_figures(args, one, store)
    title = args.title or ", ".join(Path(path).resolve().name for path in args.runs[:4])
    made = time.strftime("%Y-%m-%d %H:%M")
    page = make_page(title, made, runs, store, hardest, predicted, first_method(args, runs, store))
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output, "w") as file:
        file.write(page)
    for one in runs:
        for note in one.notes:
            print(f"note: {one.name}: {note}")
    results = sum(one.result is not None for one in runs)
    print(f"{output}: {len(runs)} runs, {results} results, {len(store.clips)} moving figures, {len(page) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    run(main)
