"""Spatial-temporal graph convolution (Yan, Xiong, Lin, AAAI 2018) on the skeleton of the joint layout.

Persons are encoded separately. A block combines, in each frame, a joint with its neighbours in the skeleton (three products:
for the joint itself, for its parent, for its children), then convolves each joint over nine frames. Channels are width/4,
width/2 and width; where they double, the convolution has stride 2. The remaining frames are averaged over joints and persons
and interpolated back to T. Features depend on earlier and later frames, so they are not causal.

A learned offset is added to the coordinates of each joint. It tells joints apart. It also gives nonzero input for a person who
is absent from a whole batch, whose coordinates are 0 after the input norm: at the kink of the first ReLU rounding errors alone
would decide whether there is a gradient.

The norms are ViewNorms, which normalise each of several views separately (see models.norm). Tensors are (N, T, V, C), with
channels last for norms and products; the convolution reads the same memory in torch's channels-last format.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbone import Backbone, check_width, split_persons
from models.norm import ViewNorm
from utils.skeleton import Layout

KERNEL = 9  # frames
DOUBLE_AFTER = (0.4, 0.7)  # shares of the depth after which channels double and frames halve: blocks 5 and 8 of 10


def neighbours(parents: tuple[int, ...]) -> Tensor:
    """The graph (3, V, V), from joint v (last axis) to joint w: itself, its parent, the mean of its children."""
    joints = len(parents)
    own, towards, away = torch.eye(joints), torch.zeros(joints, joints), torch.zeros(joints, joints)
    for joint, parent in enumerate(parents):
        if parent != joint:
            towards[joint, parent] = 1.0
            away[parent, joint] = 1.0
    return torch.stack([own, towards, away / away.sum(dim=1, keepdim=True).clamp_min(1.0)])


class GraphConvolution(nn.Module):
    """x (N, T, V, C) -> (N, T, V, C'): a product for each kind of neighbour, with a learned strength for each edge."""

    def __init__(self, graph: Tensor, inputs: int, outputs: int):
        super().__init__()
        self.kinds = len(graph)
        self.product = nn.Linear(inputs, self.kinds * outputs, bias=False)
        self.register_buffer("graph", graph, persistent=False)
        self.strength = nn.Parameter(torch.ones_like(graph))

    def forward(self, x: Tensor) -> Tensor:
        y = self.product(x).unflatten(-1, (self.kinds, -1)).flatten(2, 3)  # (N, T, V * kinds, C')
        edges = (self.graph * self.strength).permute(1, 2, 0).flatten(1)  # (V, V * kinds)
        return edges.to(y.dtype) @ y


class GraphBlock(nn.Module):
    """Graph convolution, norm, ReLU, convolution over time, norm; plus the input (projected if sizes differ); ReLU."""

    def __init__(self, graph: Tensor, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.stride = stride
        self.graph, self.norm_graph = GraphConvolution(graph, inputs, outputs), ViewNorm(outputs)
        padding = (KERNEL // 2, 0)
        self.time = nn.Conv2d(outputs, outputs, (KERNEL, 1), (stride, 1), padding, bias=False)  # the norm has one
        self.norm_time = ViewNorm(outputs)
        self.shortcut = None
        if inputs != outputs or stride > 1:
            self.shortcut, self.norm_shortcut = nn.Linear(inputs, outputs, bias=False), ViewNorm(outputs)

    def forward(self, x: Tensor, views: int, updates) -> Tensor:
        """x (views * N, T, V, C) -> (views * N, ceil(T / stride), V, C')."""
        y = F.relu(self.norm_graph(self.graph(x), views, updates))
        y = self.time(y.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y = self.norm_time(y, views, updates)
        if self.shortcut is not None:
            x = self.norm_shortcut(self.shortcut(x[:, :: self.stride]), views, updates)
        return F.relu(y + x)


class GraphNetwork(Backbone):
    """(N, T, F) -> frame features (N, T, D), D = width. ValueError for a width that is not a multiple of 16."""

    causal = False

    def __init__(self, layout: Layout, persons: int, width: int, depth: int, channels: int = 3):
        super().__init__()
        check_width(width, 16)
        self.feature_size, self.joints, self.persons = width, layout.joints, persons
        self.place = nn.Parameter(torch.randn(layout.joints, channels) * 0.02)
        graph = neighbours(layout.parents)
        blocks, inputs, stage = [], channels, 0
        for number in range(depth):
            next_stage = sum(number >= int(depth * after) for after in DOUBLE_AFTER)
            outputs = width // 4 * 2**next_stage
            blocks.append(GraphBlock(graph, inputs, outputs, stride=2 ** (next_stage - stage)))
            inputs, stage = outputs, next_stage
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor, views: int = 1, updates=None) -> Tensor:
        n, frames, _ = x.shape
        y = split_persons(x, self.joints, self.persons) + self.place  # rows of a view stay together
        with self.low_precision(x):
            for block in self.blocks:
                y = block(y, views, updates)
        y = y.to(x.dtype).mean(dim=2).unflatten(0, (n, self.persons)).mean(dim=1)  # (N, T', D)
        return F.interpolate(y.transpose(1, 2), size=frames, mode="linear").transpose(1, 2)
