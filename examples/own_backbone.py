"""A backbone of your own: a class and a row in the registry, in one file.

    python examples/own_backbone.py pretrain_moco_mask --backbone frame_mlp --width 64 --depth 2 --pre-dataset ui_prmd ...
    python examples/own_backbone.py action_retrieval --pretrained runs/pretrain/checkpoint_last.pth.tar ...

The first word is the program, the others are its flags. Inside of the project the class would be in a file of models/ and the
row in models/backbones.py. From outside, as here, the row is added before the program starts; checkpoints with this backbone
can be read by every program that is started in this way.

The backbone applies a few layers to each frame and adds the mean of the results of all frames so far. So it is causal, and
early recognition and one-pass detection accept it.
"""

import importlib
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from models.backbone import Backbone, check_width
from models.backbones import BACKBONES, BackboneRow
from utils.errors import UserError, run

PROGRAMS = ("pretrain_moco_mask", "action_classification", "action_retrieval", "action_detection", "motion_prediction")


class FrameMLP(Backbone):
    """(N, T, F) -> (N, T, D), D = width: layers on each frame, plus their mean over the frames so far."""

    causal = True

    def __init__(self, input_size: int, width: int, depth: int):
        super().__init__()
        check_width(width, 16)
        self.feature_size = width
        sizes = [input_size] + [width] * depth
        layers = [nn.Sequential(nn.Linear(a, b), nn.GELU()) for a, b in zip(sizes, sizes[1:], strict=False)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor, views: int = 1, updates=None) -> Tensor:
        with self.low_precision(x):
            y = self.layers(x).to(x.dtype)
        seen = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)
        return y + y.cumsum(dim=1) / seen[:, None]


BACKBONES["frame_mlp"] = BackboneRow(lambda c: FrameMLP(c.input_size, c.width, c.depth), {"width": 128, "depth": 3})


def main(argv) -> int:
    if not argv or argv[0] not in PROGRAMS:
        raise UserError(f"the first word is the program ({', '.join(PROGRAMS)}), got {argv[0] if argv else 'nothing'}")
    return importlib.import_module(argv[0]).main(argv[1:])


if __name__ == "__main__":
    run(main, sys.argv[1:])
