"""The first screen of a report: the result in one sentence, the method in four, and a figure of the method on a real clip.

The figure shows one test clip of the run's data set, as tools/visualize.py draws it: as recorded, the two contrasted views (query
and key), the masked view, a mixture with another clip, and the model's prediction of the hidden parts, all made with the settings
of the run. What a run does not train (the small recipe neither masks nor predicts) is left out of both.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.pictures import (
    SEEN,
    Panel,
    as_clip,
    corrupted_joints,
    joint_paint,
    panels_figure,
    predict_clips,
    prediction_legend,
    prediction_panels,
    predicts,
    view_panels,
    views_legend,
)
from engine.report_clips import ClipStore
from engine.report_runs import RunRecord, number_at
from feeder.batches import Batches
from feeder.sampling import ViewSettings
from feeder.views import VIEWS
from models.pcm3 import PCM3Config
from utils.drawing import rgb

FIRST = "An encoder learns to describe recorded movements without labels."
ALTERED = (
    "It gets two altered versions of a recording (query and key) and learns to give them similar descriptions, unlike those of "
    "other recordings."
)
HIDES, MIXES = "when body parts are hidden", "when parts or moments of two recordings are mixed, in proportion"
PREDICTS, PREDICTED_VIEW = (
    "A decoder predicts the hidden parts",
    ", and the predicted movement counts as one more version of the recording",
)
FREE = {"random": "a random encoder at best", "raw": "raw joints or bones at best"}
POSES = 12  # of each row of the figure
BATCH, TURN = 32, 30.0  # clips of the step whose views are shown; degrees


def _beside_baselines(result: dict, folders=()) -> str:
    """A sentence that compares the pretrained row with the best 1-NN (preferably of a run of the page, by its folder) with the best
    random encoder and the best of raw joints or bones; '' if there is no pretrained row or neither of the others."""
    best: dict[str, tuple[bool, float, str]] = {}
    for row in result["rows"] if isinstance(result.get("rows"), list) else []:
        if (value := number_at(row, "cosine", "mean")) is not None:
            name, kind = str(row.get("name")), str(row.get("kind"))
            kind = ("random" if name.startswith("random") else "raw") if kind == "label-free" else kind
            own = kind == "pretrained" and _is_of(name, folders)
            best[kind] = max(best.get(kind, (False, -1.0, "")), (own, value, name))
    others = [f"{words} {100 * best[kind][1]:.1f} % ({best[kind][2]})" for kind, words in FREE.items() if kind in best]
    if "pretrained" not in best or not others:
        return ""
    _, share, name = best["pretrained"]
    return (
        f"The nearest neighbour by an encoder that learned without labels ({name}) classifies {100 * share:.1f} % of the test "
        f"clips of {result.get('dataset')} {result.get('protocol')} correctly; {' and '.join(others)}."
    )


def _is_of(name: str, folders) -> bool:
    """Whether a row ("pretrained FOLDER/FILE, POOLING") is of a file in one of the folders, by the end of its path."""
    parts = Path(name.removeprefix("pretrained ").rsplit(", ", 1)[0]).parent.parts
    return bool(parts) and any(Path(folder).absolute().parts[-len(parts) :] == parts for folder in folders)


def shares_by_place(runs: list[RunRecord], task: str, *path: str) -> dict[str, dict[str, float]]:
    """{data set and protocol: {pretrained, random or raw: accuracy of the first such run}}. path: of the accuracy in a result."""
    found: dict[str, dict[str, float]] = {}
    for result in (run.result for run in runs if (run.result or {}).get("task") == task):
        encoder = str(result.get("encoder", ""))
        kind = "random" if encoder.startswith("random") else "raw" if encoder.startswith("no encoder") else "pretrained"
        if (share := number_at(result, "summary", *path)) is not None:
            found.setdefault(f"{result.get('dataset')} {result.get('protocol')}", {}).setdefault(kind, share)
    return found


def headline(runs: list[RunRecord]) -> str:
    """The result in one sentence: the pretrained encoder against the best rows of engine.baselines if they were run, else against a
    random encoder and raw joints on the first data set that has them; '' without evaluations."""
    folders = [run.path for run in runs if run.program == "pretrain_moco_mask"]
    for run in runs:
        if (run.result or {}).get("task") == "baselines" and (said := _beside_baselines(run.result, folders)):
            return said
    linear = shares_by_place(runs, "classification/linear", "last", "top1", "mean")
    nearest = shares_by_place(runs, "retrieval", "knn", "1", "mean")
    for how, found in (("A linear classifier on", linear), ("The nearest neighbour by", nearest)):
        for place, shares in found.items():
            free = {"with random weights": shares.get("random")}
            free["the nearest neighbour by raw joints"] = nearest.get(place, {}).get("raw")
            others = " and ".join(f"{words} {100 * share:.1f} %" for words, share in free.items() if share is not None)
            if "pretrained" in shares:
                share, more = f"{100 * shares['pretrained']:.1f} %", f"{', ' * bool(others)}{others}"
                return f"{how} the pretrained encoder classifies {share} of the test clips of {place} correctly{more}."
    return ""


@dataclass(frozen=True)
class Method:
    """sentences: what the run trains; figure: PNG bytes; legend: (words, colour) of the figure."""

    sentences: tuple[str, ...]
    figure: bytes
    legend: list[tuple[str, str]]


def sentences_of(config: PCM3Config, settings: ViewSettings) -> tuple[str, ...]:
    """The method in sentences, as this run trains it."""
    masked = "masked" in config.contrasts
    when = [words for words, does in ((HIDES, masked), (MIXES, "mixed" in config.contrasts)) if does]
    said = [FIRST, ALTERED]
    if when:
        said.append(f"It learns this also {', and '.join(when)}.")
    if config.prediction_weight > 0:
        said.append(PREDICTS + PREDICTED_VIEW * ("predicted" in config.contrasts) + ".")
    else:
        ways = (
            (settings.crop[0] < 1, "cut from another part of the recording"),
            (settings.shear > 0, "sheared"),
            (settings.rotation > 0, "rotated"),
            (settings.bones > 0 or settings.scale != (1, 1), "given another body's proportions"),
            (settings.mirror > 0, "mirrored"),
            (settings.corruption > 0, "corrupted in some joints"),
            (settings.noise > 0, "changed by a little noise"),
        )
        *before, last = [words for does, words in ways if does] or ["the recording as it is"]
        said.append(f"An altered version is {', '.join(before)}{' and ' * bool(before)}{last}.")
    if config.own_views:
        said.append(f"The run adds its own versions: {', '.join(config.own_views)}.")
    return tuple(said)


def method_of(run: RunRecord, store: ClipStore, seed: int) -> Method:
    """Sentences and figure of a pretraining, by its last checkpoint. UserError when data or checkpoint cannot be used."""
    model, settings, dataset, views = store.open_trained(run)
    layout, classes = dataset.layout, dataset.row.classes
    own = [
        name for name in model.config.own_views if name in VIEWS
    ]  # views that are declared outside the project are not known here
    batches = Batches(views.clips, min(BATCH, len(views)), seed, settings, layout, own_views=own)
    corrupted = [corrupted_joints(x, settings.corrupt_share).any() for x in batches.samples(0).matrices[0]]
    row = corrupted.index(True) if any(corrupted) else 0
    chosen = batches[0].clips[row : row + 1].cpu()
    views_of_step, _ = view_panels(batches, 0, [row], layout, classes)
    trained_views = ("query", "key", *model.config.contrasts)
    panels = [panel for panel in views_of_step if panel.view in trained_views]
    legend = views_legend(panels)
    if predicts(model):
        predicted = prediction_panels(
            predict_clips(model, views, chosen, layout, seed, settings), views, layout, classes
        )
        panels.append(predicted[1])  # of (seen, predicted, true): the others are shown already
        legend += prediction_legend(predicted)[1:2]
    legend = [(words, colour) for words, colour in legend if any(has_colour(panel, colour) for panel in panels)]
    name = f"{classes[int(views.clips.labels[int(chosen)])]}: as recorded ({views.clips.names[int(chosen)]})"
    recorded = as_clip(views.centre(chosen)[0], layout.joints, views.clips.persons)
    paint = joint_paint(np.zeros(recorded.shape[1:3]), views.clips.persons, SEEN, SEEN)
    panels.insert(0, Panel(name, recorded, paint))
    target = io.BytesIO()
    figure = panels_figure(panels, layout, POSES, turn=TURN, legend=[], up=dataset.up)
    figure.savefig(target, format="png", dpi=100)
    return Method(sentences_of(model.config, settings), target.getvalue(), legend)


def has_colour(panel: Panel, colour: str) -> bool:
    """Whether a joint of a panel has a colour."""
    return bool((panel.paint == rgb(colour)).all(axis=-1).any())
