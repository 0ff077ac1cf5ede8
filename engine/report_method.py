"""The first screen of a report: the result in a sentence, the method in four, and a figure of the method on a real clip.

The figure shows one test clip of the run's data set at two moments: as it was recorded, the two views that are contrasted
(query and key), what the model sees of it (masked), a mixture with another clip, and what the model predicts of the hidden
parts, all made as the run made them. Joints are dots; what is hidden is hollow, what a view corrupts is red. What a run does
not train (the recipe for small sets neither hides nor predicts) is neither told nor shown.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.pictures import (
    PREDICTED,
    SEEN,
    as_clip,
    check_drawable,
    either_end,
    load_model,
    predict_clips,
    predicts,
    settings_of,
)
from engine.report_clips import ClipStore
from engine.report_runs import RunRecord, is_number
from feeder.batches import Batches
from feeder.sampling import ViewSettings
from feeder.views import VIEWS
from models.pcm3 import PCM3Config
from utils.checkpoint import LAST
from utils.plots import drawn_alike, literal, new_figure

FIRST = "An encoder learns to describe recorded movements without being told what they are."
ALTERED = (
    "It gets two altered versions of a recording (query and key) and must give them nearly the same description, unlike those of "
    "other recordings."
)
HIDES, MIXES = "when body parts are hidden", "when parts or moments of two recordings are mixed, in proportion"
PREDICTS, PREDICTED_VIEW = (
    "A decoder predicts the hidden parts",
    ", and the predicted movement counts as one more version of the recording",
)
MARKS = {  # what a colour of the figure means
    "corrupted": ("red", "joints that the query or key corrupts"),
    "hidden": ("hollow", "hidden from the model"),
    "predicted": ("orange", "predicted"),
    "partner": ("violet", "of the other clip"),
}
FREE = {"random": "a random encoder at best", "raw": "raw joints or bones at best"}
MOMENTS = (0.3, 0.75)  # of the clip, drawn below each other
HIDDEN = "#9aa1ad"
COLOURS = {"corrupted": "#c0392b", "hidden": HIDDEN, "predicted": PREDICTED, "partner": "#7b3fb5"}
WIDTH, LARGEST_CELL = 11.2, 2.2  # inches of 100 pixels: of the figure, and of a panel at most
BATCH = 32
TURN = np.radians(30.0)


def _beside_baselines(result: dict, folders=()) -> str:
    """The pretrained row with the best 1-NN, of a run of the page (their folders) where there is one, beside the best random
    encoder and the best of raw joints or bones; '' where the first or both others are missing."""
    best: dict[str, tuple[bool, float, str]] = {}
    for row in result["rows"] if isinstance(result.get("rows"), list) else []:
        figures = row.get("cosine") if isinstance(row, dict) else None
        value = figures.get("mean") if isinstance(figures, dict) else None
        if is_number(value):
            name, kind = str(row.get("name")), str(row.get("kind"))
            kind = ("random" if name.startswith("random") else "raw") if kind == "label-free" else kind
            own = kind == "pretrained" and _is_of(name, folders)
            best[kind] = max(best.get(kind, (False, -1.0, "")), (own, value, name))
    others = [f"{words} {100 * best[kind][1]:.1f} % ({best[kind][2]})" for kind, words in FREE.items() if kind in best]
    if "pretrained" not in best or not others:
        return ""
    _, share, name = best["pretrained"]
    return (
        f"The nearest neighbour by an encoder that learned without labels ({name}) names {100 * share:.1f} % of the test clips of "
        f"{result.get('dataset')} {result.get('protocol')} rightly; {' and '.join(others)}."
    )


def _is_of(name: str, folders) -> bool:
    """Whether a row ("pretrained FOLDER/FILE, POOLING") is of a file in one of the folders, as far as its path tells."""
    parts = Path(name.removeprefix("pretrained ").rsplit(", ", 1)[0]).parent.parts
    return bool(parts) and any(Path(folder).absolute().parts[-len(parts) :] == parts for folder in folders)


def headline(runs: list[RunRecord]) -> str:
    """The result in one sentence: pretrained against the best of the honest baselines where they were run (engine.baselines),
    else against random and raw joints, of the first data set that has them; '' where nothing was evaluated."""
    folders = [run.path for run in runs if run.program == "pretrain_moco_mask"]
    for run in runs:
        if (run.result or {}).get("task") == "baselines" and (said := _beside_baselines(run.result, folders)):
            return said
    linear, nearest = {}, {}
    for run in runs:
        result = run.result or {}
        place = f"{result.get('dataset')} {result.get('protocol')}"
        encoder = str(result.get("encoder", ""))
        kind = "random" if encoder.startswith("random") else "raw" if encoder.startswith("no encoder") else "pretrained"
        summary = result.get("summary") if isinstance(result.get("summary"), dict) else {}
        for found, path in ((linear, ("last", "top1", "mean")), (nearest, ("knn", "1", "mean"))):
            value = summary
            for step in path:
                value = value.get(step) if isinstance(value, dict) else None
            task = str(result.get("task", ""))
            fits = task == "classification/linear" if found is linear else task == "retrieval"
            if fits and is_number(value):
                found.setdefault(place, {}).setdefault(kind, value)
    for how, found in (("A linear classifier on", linear), ("The nearest neighbour by", nearest)):
        for place, shares in found.items():
            if "pretrained" in shares:
                others = [f"with random weights {100 * shares['random']:.1f} %"] if "random" in shares else []
                raw = nearest.get(place, {}).get("raw")
                others += [f"the nearest neighbour by raw joints {100 * raw:.1f} %"] if raw is not None else []
                against = f", {' and '.join(others)}" if others else ""
                share = f"{100 * shares['pretrained']:.1f} %"
                return f"{how} the pretrained encoder names {share} of the test clips of {place} rightly{against}."
    return ""


@dataclass(frozen=True)
class Method:
    """sentences: of what the run trains; figure: a PNG; marks: the names of MARKS that it shows."""

    sentences: tuple[str, ...]
    figure: bytes
    marks: tuple[str, ...]


def sentences_of(config: PCM3Config, settings: ViewSettings) -> tuple[str, ...]:
    """The method as this run trains it."""
    masked = "masked" in config.contrasts
    when = [words for words, does in ((HIDES, masked), (MIXES, "mixed" in config.contrasts)) if does]
    said = [FIRST, ALTERED]
    if when:
        said.append(f"It must do so also {', and '.join(when)}.")
    if config.prediction_weight > 0:
        said.append(PREDICTS + PREDICTED_VIEW * ("predicted" in config.contrasts) + ".")
    else:
        ways = (
            (settings.crop[0] < 1, "cut out of the recording elsewhere"),
            (settings.shear > 0, "slanted"),
            (settings.rotation > 0, "turned"),
            (settings.bones > 0 or settings.scale != (1, 1), "given another body's proportions"),
            (settings.mirror > 0, "mirrored"),
            (settings.corruption > 0, "robbed of joints"),
            (settings.noise > 0, "shaken a little"),
        )
        *before, last = [words for does, words in ways if does] or ["the recording as it is"]
        said.append(f"An altered version is {', '.join(before)}{' and ' * bool(before)}{last}.")
    if config.own_views:
        said.append(f"The run has versions of its own, which the method does not: {', '.join(config.own_views)}.")
    return tuple(said)


def method_of(run: RunRecord, store: ClipStore, seed: int) -> Method:
    """Of a pretraining, its figure by its last checkpoint. UserError when data or checkpoint cannot be used."""
    path = run.path / LAST
    model, trained = load_model(path)
    dataset, views = store.open_as_trained(run, trained)
    check_drawable(model, trained, dataset, path)
    settings, layout, config = settings_of(trained, path), dataset.layout, model.config
    own = [name for name in config.own_views if name in VIEWS]  # others are declared where this was not started from
    batches = Batches(views.clips, min(BATCH, len(views)), seed, settings, layout, own_views=own)
    batch, samples = batches[0], batches.samples(0)
    altered = (samples.matrices[0] != samples.matrices[0][:, :1]).any(axis=(1, 2, 3))  # joint corruption of the query
    row = int(np.flatnonzero(altered)[0]) if altered.any() else 0
    chosen = batch.clips[row : row + 1].cpu()
    persons = views.clips.persons

    def person(x) -> np.ndarray:
        return as_clip(x, layout.joints, persons)[..., 0]

    def corrupted(view: int) -> dict:
        which = (samples.matrices[view][row] != samples.matrices[view][row][:1]).any(axis=(1, 2))
        return {"corrupted": which} if 0 < which.mean() < 1 else {}  # a shear changes all joints alike

    recorded = person(views.centre(chosen)[0])
    panels = [
        ("as recorded", recorded, {}),
        ("query: altered", person(batch.views["query"][row]), corrupted(0)),
        ("key: altered otherwise", person(batch.key[row]), corrupted(1)),
    ]
    if "masked" in config.contrasts or predicts(model):
        found = predict_clips(model, views, chosen, layout, seed, settings)
        hidden = as_clip(found.hidden[0], layout.joints, persons).any(axis=0)[..., 0]
        panels.append(("masked: parts hidden", recorded, {"hidden": hidden}))
        if predicts(model):
            panels.append(("predicted", person(found.predicted[0]), {"predicted": hidden}))
    if "mixed" in config.contrasts:
        partner = dataset.row.classes[int(views.clips.labels[int(batch.clips[int(batch.partner[row])])])]
        mixed = {"partner": samples.mix.weight > 0.5}
        panels.append((f"mixed with: {partner}", person(batch.views["mixed"][row]), mixed))
    panels += [(f"its own: {name}", person(batch.views[name][row]), {}) for name in own]
    title = f"{dataset.row.classes[int(views.clips.labels[int(chosen)])]} ({views.clips.names[int(chosen)]})"
    shown = {name for _, _, marks in panels for name in marks}
    picture = _picture(title, panels, layout)
    return Method(sentences_of(config, settings), picture, tuple(name for name in MARKS if name in shown))


@drawn_alike
def _picture(title: str, panels, layout) -> bytes:
    """A row for each moment, a column for each panel (name, clip (3, T, V), joints (T, V) or (V,) by name of MARKS)."""
    cell = min(WIDTH / len(panels), LARGEST_CELL)
    figure = new_figure(cell * len(panels), cell * len(MOMENTS) + 0.75)
    grid = figure.subplots(len(MOMENTS), len(panels), squeeze=False)
    for column, (name, clip, marks) in enumerate(panels):
        frames = clip.shape[1]
        for row, share in enumerate(MOMENTS):
            axes, frame = grid[row][column], int(share * (frames - 1))
            body = np.stack([np.cos(TURN) * clip[0, frame] - np.sin(TURN) * clip[1, frame], clip[2, frame]])
            _draw_body(axes, body, frame, {COLOURS[mark]: which for mark, which in marks.items()}, layout)
            if row == 0:
                axes.set_title(literal(name, 28), fontsize=11, color="#1f2430")
            if column == 0:
                words = f"after {100 * share:.0f} %"
                axes.text(0, 0.02, words, fontsize=9, color="#4a505a", rotation=90, transform=axes.transAxes)
    figure.suptitle(literal(title, 100), fontsize=11, color="#1f2430")
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=100)
    return target.getvalue()


def _draw_body(axes, body: np.ndarray, frame: int, marks: dict, layout) -> None:
    """Bones, joints as dots and a head. body (2, V); marks: colour -> joints (T, V) or (V,) that have it, or None."""
    colours = np.full(layout.joints, SEEN, dtype=object)
    for colour, which in marks.items():
        if which is not None:
            colours[which[frame] if which.ndim == 2 else which] = colour
    hollow = np.array([colour == HIDDEN for colour in colours])
    hollow_bone = either_end(hollow[None, :, None], layout)[0, :, 0]
    for joint, parent in enumerate(layout.parents):
        style = {"linestyle": ":", "linewidth": 1.2, "color": HIDDEN} if hollow_bone[joint] else {"linewidth": 2.4}
        axes.plot(*body[:, [joint, parent]], **{"color": colours[joint], **style}, zorder=1)
    axes.scatter(*body, s=24, c=["white" if empty else colour for empty, colour in zip(hollow, colours, strict=True)],
                 edgecolors=list(colours), linewidths=1.2, zorder=2)  # fmt: skip
    head = next((i for i, name in enumerate(layout.names) if name in ("head", "nose")), None)
    if head is not None:
        face = "white" if hollow[head] else colours[head]
        axes.scatter(
            *body[:, head], s=190, c=[face], edgecolors=[colours[head]], linewidths=1.4, zorder=3, clip_on=False
        )
    low, high = body.min(axis=1), body.max(axis=1)
    middle, half = (low + high) / 2, 0.58 * max((high - low).max(), 1e-6)
    axes.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half), aspect="equal")
    axes.axis("off")
