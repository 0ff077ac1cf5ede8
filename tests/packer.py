"""Loads packed clips in a process of its own and says what it got: `packer.main` for tests.processes.fork."""

import signal
import sys
from pathlib import Path

import numpy as np

import feeder.packed
from feeder.clips import load_clips


def main(argv) -> None:
    """argv: the cache folder, how often, where to stop (`slow`: before the first clip, until it is killed), and
    folders of splits. Prints how often frames were packed, and "same" when every load gave the frames of its folder."""
    cache, times, how, *folders = argv
    packed, fill = [], feeder.packed.Packing.fill

    def watched(packing, out):
        packed.append(1)
        if how == "slow":
            out[:100] = 1
            Path(cache, "packing").touch()
            signal.pause()
        return fill(packing, out)

    feeder.packed.Packing.fill = watched
    wanted = {folder: first_clip(folder) for folder in folders}
    for turn in range(int(times)):
        for folder in folders if turn % 2 else reversed(folders):
            clips = load_clips(folder, "train", 25, 2, 4, cache, quiet=True)
            if not np.array_equal(clips.frames[: clips.num_frame[0]].numpy(), wanted[folder]):
                sys.exit(f"{folder}: other frames than its own")
    print(f"packed {len(packed)}\nsame")


def first_clip(folder) -> np.ndarray:
    """Frames of the first clip (T, V, C, M), from the source."""
    frames = int(np.load(Path(folder, "train_num_frame.npy"))[0])
    return np.load(Path(folder, "train_data_joint.npy"), mmap_mode="r")[0, :, :frames].transpose(1, 2, 0, 3)
