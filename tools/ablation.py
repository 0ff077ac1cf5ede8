"""Ablation tables as in the paper: the effect of each view, loss and prompt, and of the mask ratio.

    python -m tools.ablation --dataset ui_prmd_quality --data-root data --output runs/ablation

Every row and seed is pretrained and evaluated (linear and 1-NN), each by its own program in its own process. A finished run leaves
`done.json` with its command and is not repeated; a pretraining that was stopped resumes from its checkpoint. After each run the
time left is printed, estimated from the finished runs. The last rows need no pretraining: a random encoder of the same size, and
1-NN on coordinates.
"""

import sys

from options.ablation import encoder_words, parse_args

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant


import functools
import itertools
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from zlib import crc32

from engine.pace import SILENCE, clock, duration
from engine.signals import EXIT_STOPPED, StopRequest
from utils.checkpoint import LAST
from utils.errors import UserError, run
from utils.files import atomic_write, load_json, write_json
from utils.metrics import summarise

HERE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Row:
    """A row of the table. group, name: its first cells; flags: of pretraining, which differ from the full method."""

    group: str
    name: str
    flags: tuple[str, ...]

    @property
    def key(self) -> str:
        """Name of the run folders; rows with equal flags share their runs."""
        words = "_".join(self.flags).replace("--", "").replace("-", "_").replace("/", "_")
        return words if 0 < len(words) <= 100 else f"{words[:80]}_{crc32(words.encode()):08x}" if words else "full"


def _without(*views: str) -> tuple[str, ...]:
    return tuple(f"--no-{view}-view" for view in views)


ROWS = (
    Row("views", "query", _without("masked", "predicted", "mixed")),
    Row("views", "query, mixed", _without("masked", "predicted")),
    Row("views", "query, mixed, masked", _without("predicted")),
    Row("views", "query, mixed, predicted", _without("masked")),
    Row("views", "query, mixed, masked, predicted (full)", ()),
    Row("losses", "contrast", ("--no-distillation", "--prediction-weight", "0")),
    Row("losses", "contrast, distillation", ("--prediction-weight", "0")),
    Row("losses", "contrast, prediction", ("--no-distillation",)),
    Row("losses", "prediction", (*_without("query", "masked", "predicted", "mixed"), "--no-distillation")),
    Row("losses", "contrast, distillation, prediction (full)", ()),
    Row("prompts", "none", ("--no-domain-prompts", "--no-task-prompts")),
    Row("prompts", "domain", ("--no-task-prompts",)),
    Row("prompts", "task", ("--no-domain-prompts",)),
    Row("prompts", "domain, task (full)", ()),
    Row("prompts", "domain after the input norm, task", ("--domain-prompt", "after_norm")),
    *(Row("mask_ratio", f"{ratio}", ("--mask-ratio", f"{ratio}")) for ratio in (0.2, 0.4)),
    Row("mask_ratio", "0.6 (full)", ()),
    *(Row("mask_ratio", f"{ratio}", ("--mask-ratio", f"{ratio}")) for ratio in (0.8, 1.0)),
)
FULL = Row("own", "full method", ())
RANDOM = Row("without pretraining", "random encoder", ("random",))
# figures of the table: the kind of run, the column's title, and the keys in the summary of its result file
FIGURES = {
    "linear_last": ("linear", "linear, last", ("last", "top1")),
    "linear_best": ("linear", "linear, best test epoch", ("best", "top1")),
    "knn1": ("retrieval", "1-NN", ("knn", "1")),
}
COORDINATES = Row("without pretraining", "coordinates, no encoder", ("coordinates",))


@dataclass(frozen=True)
class Task:
    """One program to run. command: program and arguments; folder: its run folder."""

    command: tuple[str, ...]
    folder: Path

    @property
    def kind(self) -> str:
        """pretrain, linear or retrieval."""
        return self.folder.parent.name

    def shown(self) -> str:
        return shlex.join(["python", *self.command])


def machine_flags(args, dataset_flag: str) -> list[str]:
    """Flags that all programs share."""
    flags = ["--data-root", args.data_root, dataset_flag, args.dataset, "--protocol", args.protocol]
    flags += ["--clips", args.clips, "--device", args.device]
    flags += ["--precision", args.precision]
    flags += ["--cache-dir", args.cache_dir] if args.cache_dir else []
    return flags + (["--threads", str(args.threads)] if args.threads else [])


def tasks_of(args, row: Row, seed: int) -> dict[str, Task]:
    """The tasks of a row and seed in the order in which they must run: pretrain (if needed), linear, retrieval."""
    places = {kind: Path(args.output) / kind / f"{row.key}_seed{seed}" for kind in ("pretrain", "linear", "retrieval")}
    tasks, seeded = {}, ["--seed", str(seed)]

    def add(kind: str, program: str, *flags: str) -> None:
        tasks[kind] = Task((program, *flags, "--checkpoint-path", str(places[kind])), places[kind])

    given = {RANDOM: encoder_words(args.pretrain_flags), COORDINATES: ["--raw-joints"]}.get(row)
    if given is None:
        given = ["--pretrained", str(places["pretrain"] / LAST)]
        flags = [
            *machine_flags(args, "--pre-dataset"),
            "--workers",
            str(args.workers),
            *args.pretrain_flags,
            *row.flags,
        ]
        encoder_words([*flags, *seeded])  # exits with a message for wrong flags, before anything runs
        add("pretrain", "pretrain_moco_mask.py", *flags, *seeded, "--resume", "auto")
    shared = machine_flags(args, "--finetune-dataset")
    if row != COORDINATES:
        add("linear", "action_classification.py", *shared, *given, "--mode", "linear", *args.linear_flags, *seeded)
    of_chance = seeded if row == RANDOM else []
    add("retrieval", "action_retrieval.py", *shared, *given, *of_chance, "--knn", "1", "--recall", "1", "--no-map")
    return tasks


def is_done(task: Task) -> bool:
    """Whether the task is finished; UserError if its folder has the run of another command."""
    marker = task.folder / "done.json"
    if not marker.is_file():
        return False
    content = load_json(marker)
    command = content.get("command") if isinstance(content, dict) else None
    if command != list(task.command):
        raise UserError(f"{task.folder}: holds the run of another command; give another --output, or remove the folder")
    return True


def perform(task: Task, asked_to_stop: Callable[[], str | None], note: Callable[[str], None]) -> str | None:
    """Runs the program with its output in output.txt. Returns the reason if it was stopped, None if it is done.

    asked_to_stop: returns the reason to stop, or None; note: prints a line. The program gets its own session, so that a signal does
    not reach it twice, and saves before it ends."""
    task.folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(HERE / task.command[0]), *task.command[1:]]
    start = noted = time.monotonic()
    asked, output = False, task.folder / "output.txt"
    with open(output, "w", encoding="utf-8") as file:
        child = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            while child.poll() is None:
                if asked_to_stop() and not asked:
                    child.terminate()
                    asked = True
                if time.monotonic() - noted > max(SILENCE, 0.05 * (time.monotonic() - start)):
                    noted = time.monotonic()
                    note(f"    {duration(noted - start)}: {last_line(output)}")
                time.sleep(0.05)
        except BaseException:
            child.kill()
            raise
    if asked_to_stop() or child.returncode == EXIT_STOPPED:
        return asked_to_stop() or "a signal"
    if child.returncode:
        raise UserError(
            f"{task.shown()} ended with status {child.returncode}: {last_line(output)} (all of it: {output})"
        )
    write_json(
        task.folder / "done.json", {"command": list(task.command), "seconds": round(time.monotonic() - start, 1)}
    )
    return None


def perform_all(
    chains: list[list[Task]], jobs: int, done: Callable[[Task], str], note: Callable[[str], None]
) -> str | None:
    """Runs chains of tasks, `jobs` of them in parallel, the tasks of a chain in sequence. Returns the reason if they were stopped,
    None if all are done. done(task): called after each task, returns a line for `note`. A task that fails stops all; its UserError
    is raised."""
    number, count, lock, reasons = sum(map(len, chains)), itertools.count(1), threading.Lock(), []

    def perform_chain(chain: list[Task]) -> None:
        for task in chain:
            if asked_to_stop():
                return
            with lock:
                note(f"[{next(count)}/{number}] {task.shown()}")
            try:
                stopped = perform(task, asked_to_stop, note)
            except BaseException:
                reasons.append("a run that failed")
                raise
            if stopped:
                reasons.append(stopped)
                return
            with lock:
                note(done(task))

    with StopRequest() as stop, ThreadPoolExecutor(jobs) as pool:

        def asked_to_stop() -> str | None:
            return stop.received or next(iter(reasons), None)

        try:
            running = [pool.submit(perform_chain, chain) for chain in chains]
            wait(running)
        except BaseException:  # the second Ctrl-C
            reasons.append("Ctrl-C")
            raise
    for one in running:
        one.result()  # raises the exception of the chain
    return asked_to_stop()


def last_line(output: Path) -> str:
    """The last line of a program's output."""
    return "".join(output.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:])


def seconds_of(task: Task) -> float:
    """How long a finished run took; 0 for one that has not run."""
    marker = task.folder / "done.json"
    return load_json(marker).get("seconds", 0.0) if marker.is_file() else 0.0


def time_left(args, tasks: Iterable[Task], waiting: list[Task]) -> str:
    """ "about 3 min left, until 14:05", by the mean time of the finished runs of each kind; "" while a kind has none."""
    known: dict[str, list[float]] = {}
    for task in tasks:
        if seconds := seconds_of(task):
            known.setdefault(task.kind, []).append(seconds)
    if not waiting or any(task.kind not in known for task in waiting):
        return ""
    left = sum(mean(known[task.kind]) for task in waiting) / args.jobs
    return f"about {duration(left)} left, until {clock(left)}"


def figures_of(task: Task) -> dict[str, float]:
    """{figure: share} of a finished run; {} for a pretraining."""
    found = {name: path for name, (kind, _, path) in FIGURES.items() if kind == task.kind}
    summary = load_json(task.folder / "result.json")["summary"] if found else {}
    return {name: summary[one][two]["mean"] for name, (one, two) in found.items()}


def figures_by_seed(args, row: Row) -> dict[str, dict[str, float]]:
    """{figure: {seed: share}} of the finished runs of a row."""
    found = {name: {} for name in FIGURES}
    for seed in args.seeds:
        for task in filter(is_done, tasks_of(args, row, seed).values()):
            for name, share in figures_of(task).items():
                found[name][str(seed)] = share
    return found


def cell(values: dict[str, float], seeds: int) -> str:
    """A cell of the table in percent, with the number of seeds if some are missing."""
    if not values:
        return "not run"
    text = summarise(values.values()).percent()
    return text if len(values) == seeds else f"{text} ({len(values)} of {seeds} seeds)"


def write_table(args, rows: list[Row], command: str) -> str:
    """Writes table.md and table.json from the finished runs; returns the Markdown."""
    table = [{"group": r.group, "row": r.name, "flags": list(r.flags), **figures_by_seed(args, r)} for r in rows]
    cached = "features of centre crops" if "--cache-features" in args.linear_flags else "exact protocol"
    lines = [
        f"Ablation on {args.dataset}, {args.protocol}; top-1 in percent, mean ± standard deviation over "
        f"{len(args.seeds)} seeds ({' '.join(map(str, args.seeds))}); linear evaluation: {cached}.",
        "",
        f"Every pretraining: `{shlex.join(args.pretrain_flags) or 'defaults'}`; made by `{command}`",
        "",
        f"| group | row | flags | {' | '.join(words for _, words, _ in FIGURES.values())} |",
        "|---|---|---|---|---|---|",
    ]
    for row, values in zip(rows, table, strict=True):
        cells = [cell(values[name], len(args.seeds)) for name in FIGURES]
        if row == COORDINATES:
            cells = ["", "", cell(values["knn1"], 1)]
        flags = f"`{' '.join(row.flags)}`" if row.flags and row not in (RANDOM, COORDINATES) else ""
        lines.append(f"| {row.group} | {row.name} | {flags} | {' | '.join(cells)} |")
    text = "\n".join(lines) + "\n"
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "table.md", "w") as file:
        file.write(text)
    settings = {"dataset": args.dataset, "protocol": args.protocol, "seeds": args.seeds, "command": command}
    flags = {"pretrain_flags": args.pretrain_flags, "linear_flags": args.linear_flags}
    write_json(folder / "table.json", {**settings, **flags, "rows": table})
    return text


def main(argv=None) -> int:
    args = parse_args(argv)
    chosen = [row for row in ROWS if row.group in args.groups] if args.rows is None else [Row(*r) for r in args.rows]
    chosen += [Row(*row) for row in args.row] + [FULL] * (bool(args.row) and not args.groups)
    rows = [*chosen, RANDOM, COORDINATES]
    todo: dict[Path, Task] = {}
    chains = []
    for seed in args.seeds:
        for row in rows:
            if row != COORDINATES or seed == args.seeds[0]:  # coordinates do not depend on the seed
                new = {task.folder: task for task in tasks_of(args, row, seed).values() if task.folder not in todo}
                todo |= new
                chains.append(list(new.values()))
    if args.dry_run:
        print("\n".join(task.shown() for task in todo.values()))
        return 0
    command = shlex.join(["python", "-m", "tools.ablation", *(sys.argv[1:] if argv is None else argv)])
    chains = [waiting for chain in chains if (waiting := [task for task in chain if not is_done(task)])]
    waiting = [task for chain in chains for task in chain]
    before = filter(None, [f"{len(waiting)} of {len(todo)} runs to do", time_left(args, todo.values(), waiting)])
    print(", ".join(before), flush=True)

    def done(task: Task) -> str:
        waiting.remove(task)
        write_table(args, rows, command)
        words = [f"    done in {duration(seconds_of(task))}"]
        words += [f"{FIGURES[name][1]} {100 * share:.1f}" for name, share in list(figures_of(task).items())[:1]]
        return ", ".join(filter(None, [*words, time_left(args, todo.values(), waiting)]))

    stopped = perform_all(chains, args.jobs, done, functools.partial(print, flush=True))
    if stopped:
        print(f"stopped by {stopped}; give the same command again to resume")
        return EXIT_STOPPED
    print(write_table(args, rows, command))
    return 0


if __name__ == "__main__":
    run(main, sys.argv[1:])
