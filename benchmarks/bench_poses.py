"""Measures how many clips of 80 frames the door for poses reads a second on one core, for each file form.

    python benchmarks/bench_poses.py --clips 100

prints one JSON line: form -> clips a second of processor time, the best of the rounds. Reading is all of it: opening, parsing,
layout order, mending, turning to Kinect's space. Clips are real ones (UI-PRMD), written by the tests' writers.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # so that the file runs by its path; the writers are the tests'

import numpy as np
import pose_files as pf

from data_gen import ui_prmd
from data_gen.poses.door import survey
from data_gen.poses.record import Bad
from utils.errors import UserError, run

FRAMES = 80


def parse_args(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=100, help="clips of each form")
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds")
    args = parser.parse_args(argv)
    if not 1 <= args.clips <= 1000 or args.rounds < 1:
        raise UserError(f"--clips {args.clips} --rounds {args.rounds}: expected 1 to 1000 clips and at least one round")
    return args


def write(root: Path, name: str, clip: np.ndarray) -> None:
    """The clip in every form, each in a folder of its own."""
    world = pf.with_score(pf.camera(pf.in_layout(clip, "mediapipe_33")))
    coco = pf.pixels(pf.in_layout(clip, "coco_17"))
    pf.write_alphapose(root / "alphapose coco_17" / f"{name}.json", coco)
    pf.write_alphapose(root / "alphapose halpe_26" / f"{name}.json", pf.pixels(pf.in_layout(clip, "halpe_26")))
    pf.write_mmpose(root / "mmpose coco_17" / f"{name}.json", coco)
    pf.write_frames(root / "movenet coco_17" / f"{name}.json", pf.with_score(coco), "coco_17", "movenet")
    pf.write_azure(root / "azure_kinect_32" / f"{name}.json", pf.in_layout(clip, "azure_kinect_32"))
    pf.write_frames(root / "mediapipe_33 json" / f"{name}.json", world, "mediapipe_33", "world")
    pf.write_table(root / "mediapipe_33 csv" / f"{name}.csv", world, pf.columns_of("mediapipe_33", "named"))
    pf.write_openpose(root / "openpose_25, a file a frame" / name, name, pf.pixels(pf.in_layout(clip, "openpose_25")))
    (root / "npy kinect_v2_25").mkdir(exist_ok=True)
    np.save(root / "npy kinect_v2_25" / f"{name}.npy", clip)


def rate(folder: Path, rounds: int) -> float:
    """Clips a second of processor time, the best of the rounds."""
    seen, best = survey(folder), 0.0
    for _ in range(rounds):
        begun = time.process_time()
        clips = [clip for entry in seen.entries for clip in seen.reader(entry)]
        best = max(best, len(clips) / (time.process_time() - begun))
        if any(isinstance(clip, Bad) for clip in clips):
            raise RuntimeError(f"{folder.name}: a clip could not be read")
    return best


def main(argv=None) -> int:
    args = parse_args(argv)
    packed = ui_prmd.read_packed()
    names = [name for name, frames in zip(packed.names, packed.frames, strict=True) if frames >= FRAMES][: args.clips]
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            clip = packed.clip(name)[:, :FRAMES, :, 0].transpose(1, 2, 0).astype(np.float64)
            write(Path(folder), name, clip)
        print(json.dumps({p.name: round(rate(p, args.rounds)) for p in sorted(Path(folder).iterdir())}))
    return 0


if __name__ == "__main__":
    run(main, sys.argv[1:])
