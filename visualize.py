"""Draws what a pretrained model predicts of clips it has not seen.

    python visualize.py runs/joint/checkpoint_last.pth.tar --output prediction.png

For each clip three strips: what the model saw (hidden body parts are missing), what it predicts (visible parts are copied,
hidden ones come from the decoder), and the true clip. The line printed at the end gives the error over the hidden
coordinates beside that of predicting zero.
"""

import sys

from options.visualize import parse_args

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant

import numpy as np
import torch

from engine.setup import find_dataset
from feeder.draws import MASK, epoch_order, uniforms
from feeder.evaluation import ClipViews
from feeder.masks import expand_hidden, hidden_map, mask_view
from models.pcm3 import PCM3, PCM3Config
from utils import checkpoint as files
from utils.errors import UserError, run
from utils.plots import check_picture_path, draw_clips


def load_model(path) -> tuple[PCM3, dict]:
    """The pretraining model of one of our checkpoints, in eval mode, and the arguments it was trained with."""
    content = files.load(path)
    if not isinstance(content.get("config"), dict) or "queue_size" not in content["config"]:
        raise UserError(
            f"checkpoint {path}: it does not say how its model is built; give a file of pretrain_moco_mask.py"
        )
    try:
        model = PCM3(PCM3Config.from_dict(content["config"]))
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"checkpoint {path}: its model cannot be built ({error})") from None
    files.load_into(model, files.state_dict_of(content, path), path)
    return model.float().eval(), content.get("arguments", {})


def one_of_each_class(views: ClipViews, count: int, seed: int) -> torch.Tensor:
    """Indices of `count` clips, of different classes as long as there are any."""
    order = epoch_order(seed, 0, len(views))
    labels = views.clips.labels.numpy()[order]
    # the first clip of every class comes before the second of any
    rank = np.array([int((labels[:i] == label).sum()) for i, label in enumerate(labels)])
    return torch.from_numpy(order[np.argsort(rank, kind="stable")[:count]].copy())


def as_clip(x: torch.Tensor, joints: int, persons: int) -> np.ndarray:
    """(T, V * C * M) -> (3, T, V, M)."""
    return x.reshape(len(x), joints, 3, persons).permute(2, 0, 1, 3).numpy()


def main(argv=None) -> int:
    args = parse_args(argv)
    check_picture_path(args.output)
    model, trained = load_model(args.checkpoint)
    name, protocol = args.dataset or trained.get("pre_dataset"), args.protocol or trained.get("protocol")
    if trained.get("stream", "joint") != "joint":
        raise UserError(
            f"checkpoint {args.checkpoint}: only the joint stream can be drawn, it was trained on {trained['stream']}"
        )
    dataset = find_dataset(args.data_root, name, protocol, ("val",))
    layout, persons = dataset.layout, dataset.row.persons
    config = model.config.encoder
    if (config.layout, config.persons) != (layout.name, persons):
        raise UserError(
            f"checkpoint {args.checkpoint} was trained on {config.layout} with {config.persons} persons, "
            f"{name} has {layout.name} with {persons}"
        )
    views = ClipViews(dataset.clips("val"), torch.tensor(layout.parents))
    chosen = one_of_each_class(views, args.clips, args.seed)
    true = views.centre(chosen)
    u = uniforms(args.seed, MASK, 0, (len(chosen), 8, len(layout.parts)))
    hidden = expand_hidden(torch.from_numpy(hidden_map(u, layout.parts, layout.joints, true.shape[1], 0.6)), persons)
    masked = mask_view(true, hidden)
    predicted = torch.where(hidden, model.predict_hidden(masked), masked)
    clips, titles = [], []
    for i, index in enumerate(chosen.tolist()):
        what = dataset.row.classes[int(views.clips.labels[index])]
        shown = masked[i].masked_fill(hidden[i], float("nan"))
        for kind, x in (("seen", shown), ("predicted", predicted[i]), ("true", true[i])):
            clips.append(as_clip(x, layout.joints, persons))
            titles.append(f"{what}: {kind}")
    draw_clips(args.output, clips, layout, titles, args.poses)
    error = (predicted - true)[hidden].square().mean().item()
    zero = true[hidden].square().mean().item()
    print(
        f"{args.output}: {len(chosen)} clips of {name}; squared error of hidden coordinates {error:.4f}, "
        f"of predicting zero {zero:.4f}"
    )
    return 0


if __name__ == "__main__":
    run(main)
