"""Pictures of a pretraining model's input and predictions, for tools/visualize.py, tools/report.py and TensorBoard.

A `Panel` is a clip with a title and colours. `clip_panels` shows clips unchanged, `view_panels` the views of a training step,
`prediction_panels` a model's prediction of hidden body parts.

Predictions use batch statistics in the norms, as in training, from a batch of masked clips (`STATISTICS_CLIPS`). The running
statistics of eval mode average query, masked, predicted and mixed views, of which only one is masked; with them the error over
hidden coordinates is about twice that of training (0.048 and 0.021 on test clips). Downstream tasks, which read whole clips, are
not affected.
"""

import contextlib
import shutil
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.convert import Source, build_model, converted
from engine.encoders import clip_features
from engine.monitor import evaluating, random_subset
from engine.setup import Dataset
from engine.transfer import FrameForm
from feeder.batches import Batches
from feeder.evaluation import ClipViews
from feeder.masks import expand_hidden, hidden_map, mask_view
from feeder.render import channels_of, render
from feeder.sampling import MASK, ViewSettings, epoch_order, uniforms
from models.norm import ViewNorm
from models.pcm3 import PCM3
from utils import checkpoint as files
from utils.distributed import World
from utils.drawing import ANIMATIONS, SECOND_PERSON, draw_animation, draw_clips, rgb, strip_figure
from utils.errors import UserError
from utils.skeleton import Layout, get_layout

# colours of joints by origin
SEEN, PREDICTED, TRUE, PARTNER, CORRUPTED = "#4a5260", "#e07b00", "#1b9e77", "#7b3fb5", "#c0392b"
PAPER = ViewSettings()  # view settings of the paper's run
CORRUPTIBLE = ("query", "key")  # views that may have corrupted joints, in the order of their matrices
DRAWABLE = ("joint", "joint_motion")  # streams that hold joints
STATISTICS_CLIPS = 64  # clips that give the batch statistics; a training batch has 64 to 128
BOARD_CLIPS = 300  # clips whose features TensorBoard gets
BOARD_DIMENSIONS = 64  # size of the features in TensorBoard's projector, which are written as text


@dataclass(frozen=True)
class Panel:
    """clip (3, t, V, M); paint (t, V, M, 3) or None, see utils.drawing; view: name of the view, '' for other clips."""

    title: str
    clip: np.ndarray
    paint: np.ndarray | None = None
    view: str = ""


@dataclass(frozen=True)
class Prediction:
    """clips (n,): indices; true, predicted: (n, T, V * 3 * M); hidden: the same shape, True = hidden; error, zero: mean
    squared error over the hidden coordinates of all `measured` clips, of the model and of predicting zero."""

    clips: Tensor
    true: Tensor
    predicted: Tensor
    hidden: Tensor
    error: float
    zero: float
    measured: int


def load_model(path) -> tuple[PCM3, dict]:
    """The pretraining model of one of our checkpoints or of a released one, in eval mode, and the arguments of its training ({}
    for a released file).

    UserError if the file is no checkpoint of a pretraining, or its model cannot be built."""
    content = files.load(path)
    if not isinstance(content.get("config"), dict) or "queue_size" not in content["config"]:
        source = Source(path)
        if not source.is_pretraining:
            raise UserError(
                f"checkpoint {path}: it holds an encoder, but no decoder and no queue; give the file of a pretraining, ours or "
                "released (--show features takes any encoder)"
            )
        content = converted(source, "ours")
    arguments = content.get("arguments")
    return build_model(content, path).float().eval(), arguments if isinstance(arguments, dict) else {}


def form_of(model: PCM3) -> FrameForm:
    """Layout, persons and dimensions of the frames that the model's encoder reads."""
    config = model.config.encoder
    return FrameForm(get_layout(config.layout), config.persons, config.dimensions)


def check_drawable(model: PCM3, trained: dict, dataset: Dataset, path) -> None:
    """UserError unless the model reads joints, in frames of the same form as the data set."""
    if trained.get("stream", "joint") not in DRAWABLE:
        raise UserError(
            f"checkpoint {path}: only the streams {' and '.join(DRAWABLE)} can be drawn, it was trained on {trained['stream']}"
        )
    if form_of(model) != dataset.form:
        raise UserError(f"checkpoint {path} was trained on {form_of(model)}, {dataset.row.name} has {dataset.form}")


def predicts(model: PCM3) -> bool:
    """Whether the decoder was trained; without the prediction loss, as in the small recipe, it keeps its initial weights."""
    return model.config.prediction_weight > 0


def check_predicts(model: PCM3, path) -> None:
    """UserError unless the decoder was trained."""
    if not predicts(model):
        raise UserError(
            f"checkpoint {path}: its run did not train the prediction (--prediction-weight 0, as in the small recipe); give "
            "--show views or --show features"
        )


def one_of_each_class(views: ClipViews, count: int, seed: int) -> Tensor:
    """Indices of `count` randomly chosen clips, of as many different classes as possible."""
    order = epoch_order(seed, 0, len(views))
    labels = views.clips.labels.cpu().numpy()[order]
    rank, met = np.empty(len(labels), dtype=np.int64), {}
    for i, label in enumerate(labels.tolist()):  # rank: position of a clip within its class
        rank[i] = met[label] = met.get(label, -1) + 1
    return torch.from_numpy(order[np.argsort(rank, kind="stable")[:count]].copy())


def as_clip(x: Tensor, joints: int, persons: int) -> np.ndarray:
    """(T, V * C * M) -> (3, T, V, M); of joints and motion (C = 6) the joints."""
    return x.reshape(len(x), joints, -1, persons)[:, :, :3].permute(2, 0, 1, 3).cpu().float().numpy()


def raw_clip(views: ClipViews, index: int) -> np.ndarray:
    """All valid frames of a clip at their own rate, (3, t, V, M)."""
    clips, one = views.clips, torch.tensor([index])
    first, length = (x[one.to(x.device)].to(clips.frames.device) for x in (clips.offsets, clips.num_frame))
    x = render(clips.frames, first, length, None, int(length))  # "resized" to its own length: unchanged
    return as_clip(x[0], clips.joints, clips.persons)


def clip_panels(views: ClipViews, indices: Tensor, classes) -> list[Panel]:
    """Panels of prepared clips, titled with class and name."""
    labels, names = views.clips.labels, views.clips.names
    return [Panel(f"{classes[int(labels[i])]} ({names[i]})", raw_clip(views, i)) for i in indices.tolist()]


# -- the views of a step ----------------------------------------------------------------------------------------------


def joint_paint(share: np.ndarray, persons: int, zero: str, one: str) -> np.ndarray:
    """Paint (T, V, M, 3) of a map (T, V) in 0..1, interpolated from colour `zero` at 0 to `one` at 1. Further persons are paler."""
    colour = rgb(zero) + share[..., None] * (rgb(one) - rgb(zero))
    return np.stack([colour if m == 0 else 0.55 * colour + 0.45 for m in range(persons)], axis=2)


def corrupted_joints(matrices: np.ndarray, share: float) -> np.ndarray:
    """Mask (V,) of the corrupted joints of a view, from its matrices (V, 3, 3): shear is equal for all joints, corruption is
    another matrix for `share` of them."""
    other = (matrices != matrices[:1]).any(axis=(1, 2))
    return ~other if other.any() and other.sum() != round(share * len(other)) else other


def view_panels(batches: Batches, step: int, rows, layout: Layout, classes) -> tuple[list[Panel], str]:
    """A panel for each view (the key after the query) of some rows of a training step, and the step's mixing in words. Corrupted
    joints are red; in the mixed view the colour shows which clip a joint comes from."""
    batch, samples = batches[step], batches.samples(step)
    mix, share = samples.mix, batches.settings.corrupt_share
    persons, labels = batches.clips.persons, batches.clips.labels
    panels = []
    for i in rows:
        clip, partner = (classes[int(labels[int(batch.clips[j])])] for j in (i, int(batch.partner[i])))
        corrupted = {
            name: corrupted_joints(x[i], share) for name, x in zip(CORRUPTIBLE, samples.matrices, strict=False)
        }
        hidden = batch.hidden if batch.hidden.ndim == 2 else batch.hidden[i]
        hidden = as_clip(hidden, layout.joints, persons).any(axis=0)
        for name, view in {"query": batch.views["query"], "key": batch.key, **batch.views}.items():
            x = as_clip(view[i], layout.joints, persons)
            paint = joint_paint(mix.weight if name == "mixed" else np.zeros(x.shape[1:3]), persons, SEEN, PARTNER)
            title = f"{clip}: {name}"
            if name in corrupted and corrupted[name].any():
                title += ", joints corrupted"
                paint[:, corrupted[name], 0] = rgb(CORRUPTED)
            elif name == "masked":
                paint[either_end(hidden, layout)] = np.nan
            elif name == "mixed":
                title += f" with {partner}"
            panels.append(Panel(title, x, paint, name))
    return panels, f"{mix.mode}, share of the partner {mix.mix_lambda:.2f}"


# -- predictions ------------------------------------------------------------------------------------------------------


def either_end(hidden: np.ndarray, layout: Layout) -> np.ndarray:
    """Mask (T, V, M) of joints whose line to the parent has a hidden end."""
    return hidden | hidden[:, list(layout.parents)]


@contextlib.contextmanager
def batch_statistics(model: PCM3):
    """A context with the model in eval mode, except its norms, which use batch statistics, as in training, of this process alone.
    Restores everything at the end, running statistics included."""
    norms = [module for module in model.modules() if isinstance(module, ViewNorm)]
    kept = [(norm.world, {name: value.clone() for name, value in norm.named_buffers()}) for norm in norms]
    with evaluating(model):
        for norm in norms:
            norm.train()
            norm.world = World()
        try:
            yield
        finally:
            for norm, (world, values) in zip(norms, kept, strict=True):
                norm.world = world
                for name, value in norm.named_buffers():
                    value.copy_(values[name])


@torch.no_grad()
def predict_clips(
    model: PCM3, views: ClipViews, chosen: Tensor, layout: Layout, seed: int, settings: ViewSettings = PAPER
) -> Prediction:
    """Predicts hidden body parts of the centre crops of chosen clips. Batch statistics and errors are those of at least
    STATISTICS_CLIPS clips (or all). seed: samples the hidden parts and the additional clips; settings: of the run, which give the
    mask ratio. UserError if the run hid nothing."""
    more = [i for i in epoch_order(seed, 1, len(views)).tolist() if i not in set(chosen.tolist())]
    index = torch.cat([chosen, torch.tensor(more[: max(0, STATISTICS_CLIPS - len(chosen))], dtype=torch.long)])
    true = views.centre(index)
    u = uniforms(seed, MASK, 0, (len(index), settings.mask_segments, len(layout.parts)))
    hidden = hidden_map(u, layout.parts, layout.joints, true.shape[1], settings.mask_ratio)
    if not hidden.any():
        raise UserError(
            f"--mask-ratio {settings.mask_ratio:g} of the run hid no body part, so there is nothing to predict"
        )
    hidden = expand_hidden(torch.from_numpy(hidden).to(true.device), views.clips.persons, channels_of(views.stream))
    masked = mask_view(true, hidden)
    with batch_statistics(model):
        predicted = torch.where(hidden, model.predict_hidden(masked), masked)
    error, zero = ((x - true)[hidden].square().mean().item() for x in (predicted, masked))
    n = len(chosen)
    return Prediction(chosen, true[:n], predicted[:n], hidden[:n], error, zero, len(index))


def prediction_panels(found: Prediction, views: ClipViews, layout: Layout, classes) -> list[Panel]:
    """Three panels for each clip: seen (without the hidden parts), predicted (hidden parts orange), true (hidden parts green)."""
    persons, panels = views.clips.persons, []
    for i, index in enumerate(found.clips.tolist()):
        what = classes[int(views.clips.labels[index])]
        hidden = either_end(as_clip(found.hidden[i], layout.joints, persons).any(axis=0), layout)
        for kind, x, colour in (
            ("seen", found.true[i], None),
            ("predicted", found.predicted[i], PREDICTED),
            ("true", found.true[i], TRUE),
        ):
            paint = np.empty((*hidden.shape, 3))
            paint[:] = rgb(SECOND_PERSON)
            paint[:, :, 0] = rgb(SEEN)
            paint[hidden] = np.nan if colour is None else rgb(colour)
            panels.append(Panel(f"{what}: {kind}", as_clip(x, layout.joints, persons), paint))
    return panels


def several_persons(panels: list[Panel]) -> bool:
    return any(np.nan_to_num(panel.clip[..., 1:]).any() for panel in panels)


def prediction_legend(panels: list[Panel]) -> list[tuple[str, str]]:
    """The legend of `prediction_panels`."""
    legend = [("seen", SEEN), ("hidden, as predicted", PREDICTED), ("hidden, as it truly was", TRUE)]
    return legend + [("other person, never hidden", SECOND_PERSON)] * several_persons(panels)


def views_legend(panels: list[Panel]) -> list[tuple[str, str]]:
    """The legend of `view_panels`; in Mixup, joints have a colour between the two clips'."""
    paler = ", second person paler" * several_persons(panels)
    return [(f"own clip{paler}", SEEN), ("corrupted joints", CORRUPTED), ("partner of the mixing", PARTNER)]


def panels_figure(panels: list[Panel], layout: Layout, poses: int, **look):
    """`strip_figure` of panels."""
    clips, titles, paints = ([getattr(p, name) for p in panels] for name in ("clip", "title", "paint"))
    return strip_figure(clips, layout, titles, poses, paints=paints, **look)


def save_panels(
    path, panels: list[Panel], layout: Layout, poses: int, turn: float, columns: int, fps: float, legend=None, up=None
) -> None:
    """Draws panels with a legend below: as strips (.png, .pdf, .svg), or animated side by side (.gif, .mp4)."""
    clips, titles, paints = ([getattr(p, name) for p in panels] for name in ("clip", "title", "paint"))
    paints = None if all(paint is None for paint in paints) else paints
    look = {"paints": paints, "turn": turn, "legend": legend, "up": up}
    if str(path).lower().endswith(ANIMATIONS):
        draw_animation(path, clips, layout, titles, columns, fps, **look)
    else:
        draw_clips(path, clips, layout, titles, poses, **look)


# -- features -----------------------------------------------------------------------------------------------------------


def principal_components(features: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
    """The first principal components (N, d) of features (N, D), and the share of the variance of each (d,); d = dimensions, or
    fewer if N or D are smaller. The sign of an axis makes its largest entry positive."""
    x = features.double() - features.double().mean(dim=0)
    u, s, vt = torch.linalg.svd(x, full_matrices=False)
    sign = vt.gather(1, vt.abs().argmax(dim=1, keepdim=True)).sign().flatten()
    share = s.square() / s.square().sum().clamp_min(1e-30)
    return (u * s * sign)[:, :dimensions], share[:dimensions]


# -- TensorBoard, at the end of a training ------------------------------------------------------------------------------


def add_pictures(
    count: int, stream: str, folder, model: PCM3, dataset: Dataset, batches: Batches, held_out: ClipViews | None
) -> None:
    """Adds pictures of a finished training to TensorBoard, of held-out clips or, without any, of training clips: predictions of
    `count` clips (if the stream has joints and the run trains the prediction), and clip features for the projector. Labels are
    used as names only.

    folder: the RunFolder. An error is logged and does not end the program: the checkpoint is already written."""
    layout, classes = dataset.layout, dataset.row.classes
    if folder.board is None:  # has been logged
        return
    try:
        views = held_out or ClipViews(
            batches.clips, torch.tensor(layout.parents), batches.stream_name, device=batches.device, dtype=batches.dtype
        )
        if stream in DRAWABLE and predicts(model):
            found = predict_clips(model, views, one_of_each_class(views, count, 0), layout, 0, batches.settings)
            panels = prediction_panels(found, views, layout, classes)
            legend = prediction_legend(panels)
            figure = panels_figure(panels, layout, 10, turn=30.0, legend=legend, up=dataset.up)
            folder.board.add_figure("pictures/prediction", figure)  # a tag that no scalar has
        add_features(folder, model, random_subset(views, BOARD_CLIPS), classes)
        folder.log(f"pictures of {views.clips.source}: tensorboard --logdir {folder.path}")
    except Exception as error:
        what = " ".join(str(error).split())[:200]
        folder.log(f"note: the pictures for TensorBoard could not be made ({type(error).__name__}: {what})")


def add_features(folder, model: PCM3, views: ClipViews, classes) -> None:
    """Adds the first principal components of some clip features to TensorBoard's projector."""
    with evaluating(model):
        features = clip_features(model.encoder_q, views, quiet=True)
    kept = principal_components(features, BOARD_DIMENSIONS)[0].float()
    rows = [  # the projector colours by a column of at most 50 values, or by a number
        [" ".join(classes[int(k)].split()) or "?", str(int(k)), " ".join(name.split()) or "?"]
        for k, name in zip(views.clips.labels, views.clips.names, strict=True)
    ]
    shutil.rmtree(folder.path / "00000" / "clip_features", ignore_errors=True)  # of an earlier end of this run
    header = ["class", "class number", "clip"]
    folder.board.add_embedding(kept, metadata=rows, tag="clip_features", metadata_header=header)
