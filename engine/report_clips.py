"""The animated figures of a report: clips of the hardest classes and predicted motion, packed for the page.

A packed clip is small: coordinates as 16-bit integers in base64, at most `MOST_FRAMES` frames (every second, third, ... frame of a
longer clip, at a lower rate), without absent persons. Axes are (right, up, back) for all data sets.
"""

import base64
import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from engine.pictures import (
    as_clip,
    check_drawable,
    either_end,
    load_model,
    one_of_each_class,
    predict_clips,
    predicts,
    raw_clip,
)
from engine.report_runs import RunRecord, is_number
from engine.setup import Dataset, find_dataset, find_row
from engine.supervised import settings_of
from feeder.evaluation import ClipViews
from feeder.render import centre_crop
from feeder.sampling import ViewSettings
from models.pcm3 import PCM3
from utils.checkpoint import LAST
from utils.drawing import part_legend, upright
from utils.errors import UserError
from utils.fusion import SCORES_FILE, read_scores
from utils.skeleton import Layout

RATE = 30  # frames a second of the sensors
MOST_FRAMES = 120
MOST_CLIPS = 120  # of a report
ABSENT = -32768  # a joint that is not there
LARGEST = 32000


def pack(clip: np.ndarray, layout: Layout, up=None, stands_like: np.ndarray | None = None) -> dict:
    """A clip (3, t, V, M) as {data: base64 of int16 (t, M, V, 3), persons, scale}; a coordinate is an integer times scale.

    up: (vertical axis, sign), or None to derive it from the spine of the clip, or of `stands_like`, a clip to be drawn alike."""
    vertical, sign = up or upright([np.nan_to_num(clip if stands_like is None else stands_like)], layout)
    there = np.isfinite(clip).all(axis=0) & (np.nan_to_num(clip) != 0).any(axis=(0, 2))[:, None]
    kept = [m for m in range(clip.shape[3]) if m == 0 or there[..., m].any()]
    x = np.stack([clip[0], sign * clip[vertical], clip[3 - vertical]], axis=-1)[:, :, kept].swapaxes(1, 2)
    shown = there[:, :, kept].swapaxes(1, 2)
    scale = max(float(np.abs(x[shown]).max(initial=0.0)), 1e-9) / LARGEST
    numbers = np.where(shown[..., None], np.nan_to_num(x) / scale, ABSENT).round().astype("<i2")
    return {"data": base64.b64encode(numbers.tobytes()).decode(), "persons": len(kept), "scale": scale}


def every(frames: int) -> int:
    """n, if every n-th frame of a clip is kept."""
    return max(math.ceil(frames / MOST_FRAMES), 1)


@dataclass
class ClipStore:
    """Packed clips and skeletons of a report, without duplicates. clips, layouts: by key, in the form that the page reads."""

    data_root: str | None
    clips: dict[str, dict] = field(default_factory=dict)
    layouts: dict[str, dict] = field(default_factory=dict)
    _opened: dict[tuple, tuple] = field(default_factory=dict)

    def open(
        self, run: RunRecord, name, protocol, stream: str = "joint", scale_by: str = "none"
    ) -> tuple[Dataset, ClipViews]:
        """The val split of a data set, in the stream and scaling that an encoder reads; UserError if it is missing (a report does
        not make data sets)."""
        if not isinstance(name, str) or not isinstance(protocol, str):
            raise UserError(f"{run.path}: it does not say its data set")
        root = self.data_root or run.arguments.get("data_root")
        if not isinstance(root, str):
            raise UserError(f"{run.path}: it does not say where its data is; give --data-root")
        key = (root, name, protocol, stream, scale_by)
        if key not in self._opened:
            if not find_row(root, name)[1].is_dir():
                raise UserError(f"{name} is not under {root}; give --data-root")
            dataset = find_dataset(root, name, protocol, ("val",))
            clips = dataset.clips("val", quiet=True).scaled(scale_by, dataset.layout)
            views = ClipViews(clips, torch.tensor(dataset.layout.parents), stream)
            self._opened[key] = (dataset, views)
        layout = self._opened[key][0].layout
        part = [next(i for i, p in enumerate(layout.parts) if j in p) for j in range(layout.joints)]
        words = [words for words, _ in part_legend(layout, [])]
        self.layouts[layout.name] = {"parents": list(layout.parents), "part": part, "parts": words}
        return self._opened[key]

    def open_trained(self, run: RunRecord) -> tuple[PCM3, ViewSettings, Dataset, ClipViews]:
        """The model of a pretraining's last checkpoint, its view settings, and the val split of its data set in the form that its
        encoder reads. UserError when data or checkpoint cannot be used."""
        path = run.path / LAST
        model, trained = load_model(path)
        form = str(trained.get("stream", "joint")), str(trained.get("scale_by") or "none")
        dataset, views = self.open(run, trained.get("pre_dataset"), trained.get("protocol"), *form)
        check_drawable(model, trained, dataset, path)
        return model, settings_of(trained, path), dataset, views

    def add(self, key: str, make) -> str | None:
        """Adds a clip, packed by make(), unless the key exists; returns the key, or None when the report is full."""
        if key not in self.clips:
            if len(self.clips) >= MOST_CLIPS:
                return None
            self.clips[key] = make()
        return key


def whole_clip(dataset: Dataset, views: ClipViews, index: int) -> dict:
    """A clip of the split, packed for the page."""
    clip = raw_clip(views, index)
    step = every(clip.shape[1])
    clip = clip[:, ::step]
    stage = {"kind": "plain", **pack(clip, dataset.layout, dataset.up)}
    return {"layout": dataset.layout.name, "frames": clip.shape[1], "fps": RATE / step, "stages": [stage]}


@dataclass(frozen=True)
class Shown:
    """A figure of the page: key of its clip, title, and a line below."""

    key: str
    title: str
    note: str = ""


def hardest_classes(result: dict) -> list[tuple[str, float]]:
    """(class, figure) of a result, the lowest figure first."""
    per_class = result.get("per_class")
    found = [(str(k), float(v)) for k, v in per_class.items() if is_number(v)] if isinstance(per_class, dict) else []
    return sorted(found, key=lambda item: item[1])


def hardest_clips(run: RunRecord, store: ClipStore, classes: int, clips: int) -> list[Shown]:
    """Clips of the hardest classes of an evaluation; with saved scores misclassified clips come first, with their predicted class.

    UserError when the data is missing."""
    hardest = hardest_classes(run.result or {})[:classes]
    if not hardest:
        return []
    dataset, views = store.open(run, run.result.get("dataset"), run.result.get("protocol"))
    names, labels = dataset.row.classes, views.clips.labels.tolist()
    said = predicted_classes(run, names)
    shown = []
    for name, _ in hardest:
        if name not in names:
            continue
        k = names.index(name)
        own = [i for i, label in enumerate(labels) if label == k]
        own.sort(key=lambda i: said.get(views.clips.names[i], k) == k)  # misclassified clips first
        for i in own[:clips]:
            clip = views.clips.names[i]
            taken = said.get(clip)
            note = "" if taken is None else "recognised" if taken == k else f"taken for: {names[taken]}"
            key = store.add(f"{dataset.row.name}/{dataset.protocol}/{clip}", lambda i=i: whole_clip(dataset, views, i))
            if key is not None:
                shown.append(Shown(key, name, f"{clip}{', ' * bool(note)}{note}"))
    return shown


def predicted_classes(run: RunRecord, names) -> dict[str, int]:
    """{clip: class with the highest saved score}; {} without scores that fit the classes."""
    try:
        scores = read_scores(run.path) if (run.path / SCORES_FILE).is_file() else None
    except UserError as error:
        run.notes.append(str(error))
        return {}
    if scores is None or scores.scores.shape[1] != len(names):
        return {}
    return dict(zip(scores.names.tolist(), scores.scores.argmax(axis=1).tolist(), strict=True))


def is_pretraining(run: RunRecord) -> bool:
    return run.program == "pretrain_moco_mask" and Path(run.path, LAST).is_file()


def predicted_motion(run: RunRecord, store: ClipStore, number: int, seed: int) -> tuple[list[Shown], str]:
    """Seen, predicted and true motion of test clips by the last checkpoint of a pretraining, and the error in words; empty if it
    did not train the prediction.

    UserError when data or checkpoint cannot be used."""
    model, settings, dataset, views = store.open_trained(run)
    if not predicts(model):
        return [], ""
    found = predict_clips(model, views, one_of_each_class(views, number, seed), dataset.layout, seed, settings)
    shown = []
    for i, index in enumerate(found.clips.tolist()):
        key = store.add(f"{run.path / LAST}/{index}", lambda i=i: _three_stages(found, i, dataset, views))
        if key is not None:
            shown.append(Shown(key, dataset.row.classes[int(views.clips.labels[index])], views.clips.names[index]))
    words = (
        f"Squared error over the hidden coordinates of {found.measured} test clips: {found.error:.4f}; predicting zero "
        f"gives {found.zero:.4f}."
    )
    return shown, words


def _three_stages(found, i: int, dataset: Dataset, views: ClipViews) -> dict:
    layout, persons = dataset.layout, views.clips.persons
    true, predicted, hidden = (
        as_clip(x[i], layout.joints, persons) for x in (found.true, found.predicted, found.hidden)
    )
    hidden = either_end(hidden.any(axis=0), layout)[:, :, 0]  # only person 1 is masked
    _, length = centre_crop(views.clips.num_frame[found.clips[i : i + 1].cpu()])
    packed = pack(true, layout, dataset.up)
    stages = [
        {"kind": "seen", **packed},
        {"kind": "predicted", **pack(predicted, layout, dataset.up, true)},
        {"kind": "true", **packed},
    ]
    return {
        "layout": layout.name,
        "frames": true.shape[1],
        "fps": RATE * true.shape[1] / max(int(length), 1),
        "hidden": base64.b64encode(hidden.astype(np.uint8).tobytes()).decode(),
        "stages": stages,
    }
