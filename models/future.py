"""Future poses from a clip feature: an autoregressive GRU that predicts the displacement of every joint, frame by frame.

Its input in each frame is the pose so far and the last displacement, both its own predictions after the first frame, in
training as in the test; the encoder's feature is its first state. The last layer starts at zero, so that an untrained
decoder predicts no motion at all: exactly the zero-velocity baseline.
"""

import torch
from torch import Tensor, nn


class FutureDecoder(nn.Module):
    """features D of the encoder, joints V of one person, hidden_size of the GRU."""

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
        now = pose.flatten(1)
        step = torch.zeros_like(now)
        poses = []
        for _ in range(frames):
            state = self.cell(torch.cat([now, step], dim=1), state)
            step = self.displacement(state)
            now = now + step
            poses.append(now)
        return torch.stack(poses, dim=1).unflatten(2, (self.joints, 3))
