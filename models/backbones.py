"""The registry of backbones: one row each.

To add a backbone, write a class with the interface of models.backbone in a file of its own and add a row here (or, from
outside of the project, assign it to BACKBONES before the program's main is called, as examples/own_backbone.py does). Then
`--backbone NAME` works in every program, and encoders are rebuilt from their checkpoints.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import nn

from models.bigru import BidirectionalGRU
from models.gru import GRUBackbone
from models.st_transformer import SpaceTimeTransformer
from models.stgcn import GraphNetwork
from models.transformer import Transformer
from utils.skeleton import get_layout


@dataclass(frozen=True)
class BackboneRow:
    """build: configuration (models.encoder.EncoderConfig) -> the module; sizes: the fields of the configuration that the
    backbone reads, with their defaults. Other sizes are refused for this backbone."""

    build: Callable[..., nn.Module]
    sizes: dict[str, object] = field(default_factory=dict)


RECURRENT = {"hidden_size": 1024, "num_layers": 3}
ATTENTIVE = {"width": 256, "depth": 8, "heads": 8, "mlp_ratio": 4.0, "causal": False}

BACKBONES: dict[str, BackboneRow] = {
    "gru": BackboneRow(lambda c: GRUBackbone(c.input_size, **c.sizes), RECURRENT),
    "bigru": BackboneRow(lambda c: BidirectionalGRU(c.input_size, **c.sizes), RECURRENT),
    "transformer": BackboneRow(lambda c: Transformer(c.input_size, **c.sizes), {**ATTENTIVE, "width": 512, "depth": 6}),
    "st_transformer": BackboneRow(
        lambda c: SpaceTimeTransformer(get_layout(c.layout), c.persons, channels=c.channels, **c.sizes),
        {**ATTENTIVE, "patch_frames": 4, "tokens": "joints", "attention": "factorised"},
    ),
    "stgcn": BackboneRow(
        lambda c: GraphNetwork(get_layout(c.layout), c.persons, channels=c.channels, **c.sizes),
        {"width": 256, "depth": 10},
    ),
}
