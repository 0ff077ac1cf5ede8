"""Loss curves of the same run in several precisions beside each other, and what its encoder is worth at the end.

    python benchmarks/precision_curves.py --precisions fp32 bf16 tf32 --runs runs/precision --output precision.png

The run is that of script_demo.sh: same data, seed, draws and initial weights in each precision. A run that is there already
(RUNS/PRECISION, finished) is used as it is. Prints a line for each run: the total loss of the first and the last epoch, the
largest and mean distance of its curve from that of the first precision, and 1-NN accuracy of the test clips; writes the
picture. tf32 is a CUDA card's; elsewhere it is float32 and its curve is that of fp32. What stays float32 in bf16, and why,
stands in models/recurrent.py and models.pcm3.PCM3.set_compute_dtype."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that the file runs by its path

import numpy as np

from options.common import PRECISIONS, natural, number, positive_int
from utils.checkpoint import LAST
from utils.errors import UserError, run

ROOT = Path(__file__).resolve().parent.parent
RECIPE = (
    "--pre-dataset ui_prmd --protocol cross_subject --hidden-size 128 --num-layers 1 --decoder-hidden-size 64 --batch-size 64 "
    "--contrast-k 512 --topk 512 --contrast-m 0.99 --optimizer adamw --lr 0.003 --shear 0.5 --corruption 0.3 --print-freq 56"
)  # of script_demo.sh
SHOWN = ("total", "contrast_query", "distillation", "prediction")


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=["fp32", "bf16"], help="first: the reference"
    )
    parser.add_argument("--runs", default="runs/precision", metavar="FOLDER", help="where the runs are, or go")
    parser.add_argument("--output", default="precision_curves.png", metavar="PNG", help="picture to write")
    parser.add_argument(
        "--data-root", default="data", help="folder of the data sets; UI-PRMD is made where it is missing"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="as of the programs")
    parser.add_argument("--threads", type=positive_int, default=None, help="CPU threads; default: as torch chooses")
    parser.add_argument(
        "--epochs", type=number(int, low=2), default=24, help="passes; script_demo.sh's number is the default"
    )
    parser.add_argument("--drop", type=natural, default=20, help="epoch at which the rate drops x0.1")
    parser.add_argument("--seed", type=natural, default=42, help="of everything that is drawn")
    return parser.parse_args(argv)


def program(name: str, command: str) -> None:
    """Runs a program of the repository; UserError with its own words where it fails."""
    ran = subprocess.run([sys.executable, name, *command.split()], cwd=ROOT, capture_output=True, text=True)
    if ran.returncode:
        raise UserError(f"{name} ended with {ran.returncode}: {(ran.stderr.strip().splitlines() or ['no word'])[-1]}")


def ran_in(args, precision: str) -> Path:
    """The folder of the finished run in this precision."""
    folder = Path(args.runs).resolve() / precision
    machine = f"--data-root {Path(args.data_root).resolve()} --device {args.device} --precision {precision}"
    machine += f" --threads {args.threads}" if args.threads else ""
    checkpoint = folder / LAST
    more = f"--epochs {args.epochs} --schedule {args.drop} --seed {args.seed} --resume auto --checkpoint-path {folder}"
    program("pretrain_moco_mask.py", f"{RECIPE} {machine} {more}")
    if not (folder / "nearest" / "result.json").exists():
        machine = machine.replace(f"--precision {precision}", "--precision fp32")  # the same evaluation for all
        evaluation = f"--pretrained {checkpoint} --finetune-dataset ui_prmd --protocol cross_subject {machine}"
        program("action_retrieval.py", f"{evaluation} --checkpoint-path {folder / 'nearest'}")
    return folder


def curves(folder: Path) -> dict[str, np.ndarray]:
    """By loss, its mean in each line of the log; `step`: where."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "total" in line]
    return {name: np.array([line[name] for line in lines]) for name in ("step", *SHOWN)}


def nearest(folder: Path) -> float:
    """1-NN accuracy in per cent."""
    return 100 * json.loads((folder / "nearest" / "result.json").read_text())["summary"]["knn"]["1"]["mean"]


def draw(path: str, found: dict[str, dict]) -> None:
    """A column a loss: the curves above, their difference from the first precision below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(SHOWN), 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(SHOWN), sharex=True)
    reference = next(iter(found.values()))
    for column, name in enumerate(SHOWN):
        for i, (precision, run_curves) in enumerate(found.items()):
            style = {"color": f"C{i}", "linestyle": ("-", "--", ":", "-.")[i]}
            axes[0][column].plot(run_curves["step"], run_curves[name], label=precision, **style)
            axes[1][column].plot(run_curves["step"], run_curves[name] - reference[name], **style)
        axes[0][column].set_title(name.replace("_", " "), fontsize=9)
        axes[1][column].set_xlabel("step")
    axes[0][0].set_ylabel("loss")
    axes[1][0].set_ylabel(f"minus {next(iter(found))}")
    axes[0][0].legend()
    figure.savefig(path, dpi=90)


def main(argv=None) -> None:
    args = parse_args(argv)
    folders = {precision: ran_in(args, precision) for precision in dict.fromkeys(args.precisions)}
    found = {precision: curves(folder) for precision, folder in folders.items()}
    first = found[args.precisions[0]]
    for precision, run_curves in found.items():
        if not np.array_equal(run_curves["step"], first["step"]):
            raise UserError(
                f"{folders[precision]} logged other steps than {folders[args.precisions[0]]}; remove one of them"
            )
        distance = np.abs(run_curves["total"] / first["total"] - 1)
        print(
            f"{precision}: total {run_curves['total'][0]:.3f} to {run_curves['total'][-1]:.3f}, distance from "
            f"{args.precisions[0]} mean {100 * distance.mean():.2f} %, largest {100 * distance.max():.2f} %, "
            f"1-NN {nearest(folders[precision]):.1f} %"
        )
    draw(args.output, found)
    print(args.output)


if __name__ == "__main__":
    run(main)
