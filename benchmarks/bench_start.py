"""What a start and a resume cost on a set of the size of NTU-60, here and in another checkout, turn by turn: one line of JSON.

    python benchmarks/bench_start.py --against ../other_checkout --rounds 3

Three programs' ways, each in a process of its own: `start`, a new run with a small encoder and one step; `resume`, going on where
nothing is left to do; `restore`, reading the last checkpoint of a full-size encoder into model and optimizer. The clips are
empty (a sparse file of 7.2 GB for 40,000 clips, 20 frames of each packed), and are packed before anything is measured. Seconds
are processor time of the process with its children, which a busy machine changes least; `wall` are those of the clock.
"""

import argparse
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that the file runs by its path

import numpy as np
import torch

from benchmarks.common import report
from utils.arrays import split_files
from utils.errors import UserError, run
from utils.files import dump_pickle, write_json

RESTORE = """
import sys, time
from pathlib import Path
import torch
from models.pcm3 import PCM3, PCM3Config
from utils import checkpoint as files
folder = Path(sys.argv[1])
torch.manual_seed(0)
model = PCM3(PCM3Config())
optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
if not (folder / files.LAST).exists():
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    content = {"format": 1, "epoch": 0, "step": 1, "state_dict": model.state_dict(), "config": model.config.to_dict()}
    files.save(folder / files.LAST, {**content, "optimizer": files.optimizer_state(optimizer, model)})
else:
    began = time.process_time()
    content, path = files.load_latest(folder)
    files.load_into(model, files.state_dict_of(content, path), path)
    files.load_optimizer_state(optimizer, model, content["optimizer"], path)
    print("seconds", time.process_time() - began)
"""


def make_set(root: Path, clips: int) -> None:
    """A prepared data set `empty` of that many clips of zeros."""
    folder = root / "empty" / "xsub"
    folder.mkdir(parents=True)
    for split, count in (("train", clips), ("val", 100)):
        data, labels, frames = split_files(folder, split)
        np.lib.format.open_memmap(data, mode="w+", dtype=np.float32, shape=(count, 3, 300, 25, 2)).flush()
        names = [f"clip{i:06d}" for i in range(count)]
        labels.write_bytes(dump_pickle((names, [i % 60 for i in range(count)])))
        np.save(frames, np.full(count, 20))
    about = {"classes": 60, "layout": "kinect_v2_25", "persons": 2, "protocols": {"cross_subject": "xsub"}}
    write_json(root / "empty" / "dataset.json", about)


def measured(words: list[str], checkout: Path) -> dict[str, float]:
    """Seconds of a command: of the processor, of the clock, and what it printed as `seconds`."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([sys.executable, *words], cwd=checkout, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{checkout}: {' '.join(words[:2])} ended with {done.returncode}: {done.stderr[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("seconds ")]
    return {"processor": float(said[0]) if said else cpu, "wall": time.monotonic() - began}


def ways(root: Path, name: str) -> dict[str, list[str]]:
    """The commands of a checkout, by what they measure."""
    run_folder, restored = root / f"run_{name}", root / f"restore_{name}"
    restored.mkdir(exist_ok=True)
    sizes = (
        "--hidden-size 16 --num-layers 1 --decoder-hidden-size 8 --batch-size 8 --contrast-k 16 --topk 16 --threads 1"
    )
    data = f"--data-root {root} --pre-dataset empty --cache-dir {root}/cache_{name} --clips mapped --device cpu -j 0"
    program = [
        "pretrain_moco_mask.py",
        *f"{data} {sizes} --max-steps 1 --checkpoint-path {run_folder} --pictures 0".split(),
    ]
    return {
        "start": program,
        "resume": [*program, "--resume", "auto"],
        "restore": ["-c", RESTORE, str(restored)],
    }


def main(argv=None) -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument(
        "--against", required=True, help="another checkout of this project, such as a git worktree of an older commit"
    )
    p.add_argument("--clips", type=int, default=40_000)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--save", action="store_true", help="keep the result in benchmarks/results")
    args = p.parse_args(argv)
    checkouts = {"here": ROOT, "against": Path(args.against).resolve()}
    root = Path(tempfile.mkdtemp(prefix="bench_start"))
    try:
        make_set(root, args.clips)
        taken: dict = {name: {way: [] for way in ways(root, name)} for name in checkouts}
        for turn in range(-1, args.rounds):  # the first turn packs, and makes the checkpoints
            for name in list(checkouts)[:: 1 if turn % 2 else -1]:
                for way, words in ways(root, name).items():
                    seconds = measured(words, checkouts[name])
                    if turn >= 0:
                        taken[name][way].append(seconds)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    middle = {
        name: {
            way: {kind: round(statistics.median(t[kind] for t in times), 2) for kind in ("processor", "wall")}
            for way, times in by_way.items()
        }
        for name, by_way in taken.items()
    }
    more = {
        way: round(middle["here"][way]["processor"] - middle["against"][way]["processor"], 2) for way in middle["here"]
    }
    result = {"clips": args.clips, "rounds": args.rounds, "median_seconds": middle, "more_processor_seconds": more}
    report("start", result, torch.device("cpu"), args.save)


if __name__ == "__main__":
    run(main)
