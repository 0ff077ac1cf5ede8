"""Draws clips of a data set, a pretrained model's predictions, views or features, or the curves of a run.

    python -m tools.visualize ui_prmd --output clips.png                       # strips of clips; clips.gif: moving
    python -m tools.visualize runs/joint/checkpoint_last.pth.tar            # seen, predicted and true
    python -m tools.visualize runs/joint/checkpoint_last.pth.tar --show views
    python -m tools.visualize runs/joint/checkpoint_last.pth.tar --show features
    python -m tools.visualize runs/joint                                    # curves of its metrics.jsonl

prediction: the model's input (without the hidden body parts), its prediction (hidden parts orange), and the true clip (hidden
parts green). The printed line has the squared error over the hidden coordinates, and that of predicting zero. It is the
`prediction` of the training log, on centre crops without shear, computed in the same way: the norms use batch statistics of
masked clips, and the mask ratio is that of the run. (The running statistics of eval mode, which average masked and whole views,
give about twice the error, see engine.pictures.) A released file has no view settings; those of the paper are used.
"""

import sys

from options.visualize import parse_args

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant

from dataclasses import replace
from pathlib import Path

import torch

from engine import pictures
from engine.encoders import clip_features, fit_input_norm, form_read, load_encoder, random_encoder
from engine.evaluation import usual_protocol
from engine.monitor import random_subset
from engine.pictures import load_model, one_of_each_class
from engine.report_runs import METRICS, curve_panels, read_metrics
from engine.setup import Dataset, find_dataset
from engine.supervised import settings_of
from feeder.batches import Batches
from feeder.evaluation import ClipViews
from feeder.views import own_views
from utils import checkpoint as files
from utils.drawing import check_drawing_path
from utils.errors import UserError, run
from utils.plots import check_picture_path, draw_curve_panels, draw_embedding

STILL = ("features", "curves")  # cannot be animated
VIEWS_BATCH = 32  # batch size of the step whose views are shown; the mixing takes its partners from the batch


def what_to_show(args) -> str:
    """--show, or the default for the kind of source; UserError for an unknown kind."""
    source = Path(args.source)
    if args.show:
        return args.show
    if source.is_file():
        return "prediction"
    if (source / METRICS).is_file():
        return "curves"
    if source.exists() and source.parts != (source.name,):
        raise UserError(f"{source}: neither a checkpoint file nor a run folder (no {METRICS} in it)")
    if source.suffix in (".tar", ".pth", ".pt"):
        raise UserError(f"checkpoint {source}: there is no such file")
    return "clips"


def checkpoint_path(args) -> Path:
    """The checkpoint of the source: the file itself, or the last one of a run folder."""
    source = Path(args.source)
    return source / files.LAST if source.is_dir() else source


def open_split(args, trained: dict, split: str, path=None, reads=None) -> tuple[Dataset, ClipViews]:
    """The data set and the views of a split. trained: arguments of a checkpoint; split: unless --split is given; path: of the
    checkpoint, for messages; reads: data set -> the form of frames that an encoder reads, to which clips are converted; None for
    no conversion."""
    name = args.dataset or trained.get("pre_dataset") or trained.get("dataset")  # a pretraining's, a classifier's
    if not isinstance(name, str):
        raise UserError(f"checkpoint {path}: it does not say its data set; give --dataset")
    own = trained.get("protocol") if name in (trained.get("pre_dataset"), trained.get("dataset")) else None
    protocol = args.protocol or (own if isinstance(own, str) else usual_protocol(args.data_root, name))
    split = args.split or split
    dataset = find_dataset(args.data_root, name, protocol, (split,))
    dataset = dataset if reads is None else dataset.read_as(reads(dataset))
    if dataset.converted:
        print(dataset.converted)
    stream, scale_by = trained.get("stream", "joint"), trained.get("scale_by") or "none"
    clips = dataset.clips(split).scaled(scale_by, dataset.layout)
    return dataset, ClipViews(clips, torch.tensor(dataset.layout.parents), stream)


def chosen_clips(args, views: ClipViews) -> torch.Tensor:
    """Indices of the clips of --names, or of --clips clips of different classes."""
    if args.names is None:
        return one_of_each_class(views, args.clips, args.seed)
    place = {name: i for i, name in enumerate(views.clips.names)}
    missing = [name for name in args.names if name not in place]
    if missing:
        raise UserError(
            f"{views.clips.source}: no clip {missing[0]!r}; its names are like {', '.join(views.clips.names[:3])}"
        )
    return torch.tensor([place[name] for name in args.names])


def save(args, panels, dataset: Dataset, columns: int, legend=None) -> None:
    look = (args.poses, args.turn, columns, args.fps, legend, dataset.up)
    pictures.save_panels(args.output, panels, dataset.layout, *look)


def show_clips(args) -> str:
    source = Path(args.source)
    trained = {"pre_dataset": args.source}
    if source.is_file():
        content = files.load(source).get("arguments")
        trained = {k: v for k, v in (content if isinstance(content, dict) else {}).items() if k != "stream"}
    dataset, views = open_split(args, trained, "val", source)
    chosen = chosen_clips(args, views)
    panels = pictures.clip_panels(views, chosen, dataset.row.classes)
    save(args, panels, dataset, 3)
    frames = views.clips.num_frame[chosen].tolist()
    return f"{len(panels)} clips of {dataset.row.name}, {', '.join(map(str, frames))} frames"


def show_prediction(args) -> str:
    path = checkpoint_path(args)
    model, trained = load_model(path)
    pictures.check_predicts(model, path)
    dataset, views = open_split(args, trained, "val", path, lambda dataset: pictures.form_of(model))
    pictures.check_drawable(model, trained, dataset, path)
    settings = settings_of(trained, path)
    found = pictures.predict_clips(model, views, chosen_clips(args, views), dataset.layout, args.seed, settings)
    panels = pictures.prediction_panels(found, views, dataset.layout, dataset.row.classes)
    save(args, panels, dataset, 3, pictures.prediction_legend(panels))
    return (
        f"{len(found.clips)} clips of {dataset.row.name}; squared error of hidden coordinates {found.error:.4f}, of "
        f"predicting zero {found.zero:.4f} ({found.measured} {args.split or 'val'} clips, norms by their statistics, as in "
        "training)"
    )


def show_views(args) -> str:
    path = checkpoint_path(args)
    model, trained = load_model(path)
    dataset, views = open_split(args, trained, "train", path, lambda dataset: pictures.form_of(model))
    pictures.check_drawable(model, trained, dataset, path)
    settings, layout = settings_of(trained, path), dataset.layout
    settings = replace(settings, planar=dataset.row.dimensions == 2)
    size = min(VIEWS_BATCH, len(views))
    if size < 3:
        raise UserError(f"{views.clips.source}: mixing needs at least 3 clips, there are {size}")
    batches = Batches(views.clips, size, args.seed, settings, layout, own_views=own_views(model.config.contrasts))
    clips = min(args.clips, size)
    panels, mixing = pictures.view_panels(batches, args.step, range(clips), layout, dataset.row.classes)
    save(args, panels, dataset, len(panels) // clips, pictures.views_legend(panels))
    return f"views of {clips} clips of {dataset.row.name}, step {args.step}; mixing: {mixing}"


def show_features(args) -> str:
    path = checkpoint_path(args)
    found = files.find_encoder(files.load(path), path)
    dataset, views = open_split(args, found.arguments, "val", path, lambda dataset: form_read(str(path), dataset))
    loaded = load_encoder(str(path), dataset)
    clips = views.clips.scaled(loaded.encoder.config.scale_by, dataset.layout)
    views = random_subset(ClipViews(clips, views.parents, loaded.stream), args.points)
    features = clip_features(loaded.encoder, views)
    beside = random_encoder(loaded.encoder.config, args.seed)
    fit_input_norm(beside, views)
    if not features.isfinite().all():
        raise UserError(f"checkpoint {path}: its features are not finite; its training has diverged")
    points, share = pictures.principal_components(features, 2)
    if points.shape[1] < 2:
        raise UserError(f"{views.clips.source}: principal components need at least 3 clips, there are {len(views)}")
    panels = {f"principal components ({100 * share[0]:.0f} % and {100 * share[1]:.0f} % of the variance)": points}
    panels["principal components, random encoder of the same size"] = pictures.principal_components(
        clip_features(beside, views), 2
    )[0]
    if args.tsne:
        points, why = tsne(features, args.perplexity, args.seed)
        if points is None:
            print(f"t-SNE is left out: {why}")
        else:
            panels[f"t-SNE (perplexity {args.perplexity:g})"] = points
    draw_embedding(args.output, panels, views.clips.labels, dataset.row.classes)
    return (
        f"features of {len(views)} clips of {dataset.row.name}, {features.shape[1]} numbers each, {len(panels)} views"
    )


def tsne(features: torch.Tensor, perplexity: float, seed: int):
    """(points (N, 2), '') by scikit-learn's t-SNE of the first 50 principal components, or (None, reason)."""
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        return None, "scikit-learn is not installed; pip install scikit-learn, or give --no-tsne"
    if len(features) <= perplexity:
        return (
            None,
            f"{len(features)} clips are too few for a perplexity of {perplexity:g}; give a smaller --perplexity",
        )
    x = pictures.principal_components(features, 50)[0].float().numpy()
    return TSNE(perplexity=perplexity, init="pca", random_state=seed % 2**32).fit_transform(x), ""


def show_curves(args) -> str:
    panels = curve_panels(read_metrics(args.source))
    if not panels:
        raise UserError(f"{args.source}: its metrics hold no number to draw")
    draw_curve_panels(args.output, panels, "step" if "total loss" in panels else "epoch", title=str(args.source))
    points = max(len(x) for panel in panels.values() for x, _ in panel.values())
    return f"{len(panels)} panels of {args.source}, up to {points} points a curve"


SHOW = {
    "clips": show_clips,
    "prediction": show_prediction,
    "views": show_views,
    "features": show_features,
    "curves": show_curves,
}


def main(argv=None) -> int:
    args = parse_args(argv)
    args.show = what_to_show(args)
    args.output = args.output or f"{args.show}.png"
    (check_picture_path if args.show in STILL else check_drawing_path)(args.output)
    print(f"{args.output}: {SHOW[args.show](args)}")
    return 0


if __name__ == "__main__":
    run(main)
