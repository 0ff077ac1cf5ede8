"""Plain twins: the released way of computing, written straightforwardly, to measure and to test against."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.pcm3 import PCM3, PCM3Config
from models.recurrent import ForwardGRU


class FrameByFrameGRU(nn.Module):
    """The recurrent layers as the release runs them: one call of a bidirectional nn.GRU per frame, the state carried.

    Parameters are named as those of models.recurrent.ForwardGRU, so a state_dict of one loads into the other."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int, directions: int = 2):
        super().__init__()
        gru = nn.GRU(input_size, hidden_size, num_layers, batch_first=True, bidirectional=directions == 2)
        self.__dict__["gru"] = gru  # not as a submodule: its parameters are shown under their own names
        for name, parameter in gru.named_parameters():
            self.register_parameter(name, parameter)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (N, T, F), state (layers*directions, N, H) or None -> outputs (N, T, directions*H), last state."""
        outputs = []
        for frame in x.split(1, dim=1):
            output, state = self.gru(frame, state)
            outputs.append(output)
        return torch.cat(outputs, dim=1), state


class NativeGRU(FrameByFrameGRU):
    """What torch offers for the same layers: its own GRU over the whole clip, one call per layer and direction."""

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As FrameByFrameGRU."""
        gru, directions, last = self.gru, 1 + self.gru.bidirectional, []
        if state is None:
            state = x.new_zeros(gru.num_layers * directions, x.shape[0], gru.hidden_size)
        for layer in range(gru.num_layers):
            outputs = []
            for suffix in ("", "_reverse")[:directions]:
                names = (f"{name}_l{layer}{suffix}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
                row = state[len(last)][None].contiguous()
                weights = [getattr(self, name) for name in names]
                output, h = torch.gru(x, row, weights, True, 1, 0.0, self.training, False, True)
                outputs.append(output)
                last.append(h)
            x = torch.cat(outputs, dim=-1)
        return x, torch.cat(last)


def frame_by_frame(model: PCM3) -> PCM3:
    """The same model with every GRU called once a frame, as released; weights are kept."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, ForwardGRU):
                twin = FrameByFrameGRU(child.input_size, child.hidden_size, child.num_layers, child.directions)
                twin.load_state_dict(child.state_dict())
                setattr(parent, name, twin.requires_grad_(next(child.parameters()).requires_grad))
    return model


class PlainPCM3(PCM3):
    """A training step computed the released way: a pass of the encoder for each view, two of the decoder, a copy of the
    queue for each product with it. Same values, same names."""

    def __init__(self, config: PCM3Config):
        super().__init__(config)
        frame_by_frame(self)

    def _encode(self, encoder, views, updates):
        out = {}
        for name, x in views.items():
            out |= super()._encode(encoder, {name: x}, updates)
        return out

    def _predict(self, features, updates):
        predicted = self._decode(features, 1, updates)
        return predicted, self._decode(features.detach(), 1, updates)

    def _contrast(self, *arguments):
        queue = self.queue
        self.queue = queue.clone()
        try:
            return super()._contrast(*arguments)
        finally:
            self.queue = queue


def plain_view(clip: np.ndarray, start: int, length: int, matrices: np.ndarray, frames: int) -> Tensor:
    """One view of one stored clip (3, T, V, M), as a per-sample feeder makes it: crop, resize, transform. (frames, F)."""
    _, _, joints, persons = clip.shape
    x = torch.from_numpy(clip[:, start : start + length].copy())
    x = x.permute(0, 2, 3, 1).reshape(1, 3 * joints * persons, length)
    x = F.interpolate(x, frames, mode="linear", align_corners=False)
    x = x.reshape(3, joints, persons, frames).numpy()
    x = np.einsum("vdc,cvmt->tvdm", matrices, x)
    return torch.from_numpy(np.ascontiguousarray(x)).reshape(frames, -1)


def plain_views(clips: list[np.ndarray], draws) -> list[Tensor]:
    """The three views (N, T, F) of a batch of stored clips, one sample after the other. draws: feeder.draws.StepDraws."""
    return [
        torch.stack(
            [
                plain_view(clip, draws.starts[v, i], draws.lengths[v, i], draws.matrices[v, i], 64)
                for i, clip in enumerate(clips)
            ]
        )
        for v in range(3)
    ]
