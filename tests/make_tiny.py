"""Tiny prepared data sets for tests, in the format of the real ones: clips whose joints swing, whole videos with actions."""

from pathlib import Path

import numpy as np

from utils.arrays import SplitWriter, publish
from utils.files import write_json
from utils.skeleton import get_layout
from utils.untrimmed import write_untrimmed


def tiny_clip(rng: np.random.Generator, label: int, frames: int, joints: int = 25, persons: int = 2) -> np.ndarray:
    """A clip (3, T, V, M): a random pose that swings with a frequency of its class; the second person is often absent."""
    pose = rng.normal(0, 0.4, (3, 1, joints, persons))
    t = np.arange(frames) / 30
    swing = np.sin(2 * np.pi * (0.5 + label) * t + rng.uniform(0, 6))[None, :, None, None]
    clip = pose + 0.3 * swing * np.sign(pose) + rng.normal(0, 0.01, (3, frames, joints, persons))
    if persons > 1 and label % 2 == 0:
        clip[..., 1:] = 0
    return clip.astype(np.float32)


def write_split(folder, split: str, count: int, classes: int, joints=25, persons=2, frames=300, seed=0) -> dict:
    """Writes a split of `count` clips with 20..119 frames; returns the sidecar's entry."""
    rng = np.random.default_rng([seed, split == "val"])
    names = [f"{split}_{i:04d}" for i in range(count)]
    labels = [i % classes for i in range(count)]
    writer = SplitWriter(folder, split, names, labels, joints, persons, frames)
    for i, label in enumerate(labels):
        n = int(rng.integers(20, 120))
        writer.write(i, tiny_clip(rng, label, n, joints, persons), n)
    return writer.finish()


def write_tiny_dataset(
    root,
    name="tiny",
    protocols=("xsub",),
    train=24,
    val=12,
    classes=4,
    layout="kinect_v2_25",
    joints=25,
    persons=2,
    frames=300,
) -> Path:
    """A data set under root: ntu60's folders when `name` is one of the registry's, else one with a dataset.json."""
    folder = Path(root) / name
    for protocol in protocols:
        temporary = folder / f".{protocol}.tmp"
        splits = {
            s: write_split(temporary, s, n, classes, joints, persons, frames)
            for s, n in (("train", train), ("val", val))
        }
        publish(temporary, folder / protocol, {"source": "tests", "normalisation": [], "splits": splits})
    words = {"xsub": "cross_subject", "xview": "cross_view", "xset": "cross_setup"}
    if name not in ("ntu60", "ntu120", "pku_v1", "pku_v2"):
        write_json(
            folder / "dataset.json",
            {
                "classes": [f"action {i}" for i in range(classes)],
                "protocols": {words[p]: p for p in protocols},
                "layout": layout,
                "persons": persons,
            },
        )
    return folder


def tiny_video(number: int, classes: int, joints: int, persons: int) -> tuple[np.ndarray, list]:
    """About 150 frames (T, C, V, M) of a body that moves some joints, those of the action's class, and rests in between."""
    rng = np.random.default_rng(number)
    pose = np.random.default_rng(99).normal(0, 0.4, (3, joints, persons))
    frames, moving = 140 + 3 * number, joints // classes
    x = np.repeat(pose[None], frames, axis=0) + rng.normal(0, 0.005, (frames, 3, joints, persons))
    segments = []
    for k, start in enumerate((12, 84)):
        label = (number + k) % classes
        t = np.arange(36)
        part = slice(moving * label, moving * (label + 1))
        x[start : start + 36, :, part] += (0.4 + 0.2 * np.sin(t / 3))[:, None, None, None]
        segments.append([label, start, start + 36])
    x[..., 1:] = 0
    return x.astype(np.float32), segments


def write_tiny_videos(folder, classes: int, layout: str, persons: int, count: int = 9) -> None:
    """`untrimmed/` under a data set's folder, two thirds of the videos for training; a dataset.json where there is none."""
    names = [f"{i:04d}-M" for i in range(count)]
    cut = 2 * count // 3
    joints = get_layout(layout).joints
    write_untrimmed(
        folder / "untrimmed",
        ((name, *tiny_video(i, classes, joints, persons)) for i, name in enumerate(names)),
        layout=get_layout(layout),
        persons=persons,
        num_classes=classes,
        protocols={"xsub": {"train": names[:cut], "val": names[cut:]}},
        source="tests",
    )
    if not (folder / "dataset.json").exists():
        about = {"classes": classes, "layout": layout, "persons": persons, "protocols": {"cross_subject": "xsub"}}
        write_json(folder / "dataset.json", about)


def side_by_side(first: np.ndarray, second: np.ndarray, apart: float = 1.2) -> np.ndarray:
    """Two clips (3, T, V, 1) as one of two people, (3, T', V, 2), T' the shorter length: `apart` metres between where
    they stand in the first frame, the livelier one (as readers of raw files sort them) first."""
    length = min(first.shape[1], second.shape[1])
    pair = np.concatenate([first[:, :length], second[:, :length]], axis=-1)
    for person, side in ((0, -0.5), (1, 0.5)):
        pair[0, ..., person] += side * apart - pair[0, 0, 0, person]
    energy = pair.std(axis=1).sum(axis=(0, 1))
    return pair[..., np.argsort(-energy, kind="stable")]
