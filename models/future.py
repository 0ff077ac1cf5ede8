"""The decoder of motion prediction: clip feature and last pose -> future poses.

An autoregressive GRU predicts the displacement of every joint, frame by frame. Its input is the current pose and the last
displacement, which after the first frame are its own predictions, in training as in testing; its initial state comes from
the encoder's feature. The last layer is initialised with zeros, so that an untrained decoder predicts no motion: the
zero-velocity baseline.
"""

import torch
from torch import Tensor, nn


class FutureDecoder(nn.Module):
    """features: size D of the encoder's feature; joints: V, of one person; hidden_size: of the GRU."""

    def __init__(self, features: int, joints: int, hidden_size: int = 256):
        super().__init__()
        self.joints = joints
        self.start = nn.Linear(features, hidden_size)
        self.cell = nn.GRUCell(2 * joints * 3, hidden_size)
        self.displacement = nn.Linear(hidden_size, joints * 3)
        nn.init.zeros_(self.displacement.weight)
        nn.init.zeros_(self.displacement.bias)

    def forward(self, feature: Tensor, pose: Tensor, frames: int) -> Tensor:
        """feature (N, D) of the observed frames, pose (N, V, 3) of the last of them -> future poses (N, frames, V, 3)."""
        state = torch.tanh(self.start(feature))
        current = pose.flatten(1)
        displacement = torch.zeros_like(current)
        poses = []
        for _ in range(frames):
            state = self.cell(torch.cat([current, displacement], dim=1), state)
            displacement = self.displacement(state)
            current = current + displacement
            poses.append(current)
        return torch.stack(poses, dim=1).unflatten(2, (self.joints, 3))
