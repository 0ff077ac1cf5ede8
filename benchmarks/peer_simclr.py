"""A plain contrastive peer: SimCLR (Chen et al., ICML 2020) of a small two-way GRU, written beside the project's own code.

    python -m benchmarks.peer_simclr ui_prmd_raw --temperature 0.5 --noise 0.1 --bones 0 --steps 1550
    python -m benchmarks.peer_simclr ui_prmd_raw --steps 1240          # temperature 0.2, noise 0.03, bones +-0.25

What PCM3's recipe has to beat: nothing here but two views of a clip, the batch's other clips as negatives, and an encoder
read by the maximum over time. It shares with the project the reading of prepared folders and the joint layouts, no model,
no view and no training loop, so that a mistake in those cannot hide in both.

Preparation: a clip is centred on its own first frame (joint `layout.centre`, so that what the body travels stays in, if
the folder was prepared with --normalise none) and divided by the median over time of its trunk length: from `layout.up[0]`
to halfway between the shoulders. Views, each with probability 0.75: crop of 0.8 to 0.9 of the frames, a scale of 0.7 to 1.2
for every axis, rotation up to some degrees about three axes, shear up to 0.2, Gaussian noise (in trunk lengths), and bone
lengths: every bone by e^u of its own, left and right alike, constant over the clip, the base of the spine where it was.
Every clip becomes 50 frames. All of these are flags.

Encoder input: coordinates, and their differences between frames. Head: 256, batch norm, ReLU, 128. Adam with cosine.
Evaluation, of the random and of the trained encoder on the test split: 1-NN by cosine of plain features, and a linear layer
by Adam (rate 0.001, batches of 64, 100 epochs, no decay) on standardised features. One JSON line at the end.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.probes import folds_of, probe
from engine.setup import Dataset, find_dataset
from utils.skeleton import Layout


def prepared(dataset: Dataset, split: str) -> tuple[Tensor, Tensor, Tensor]:
    """Clips (N, T, M, V, 3) in trunk lengths and zero after their end, frame counts (N,), labels (N,)."""
    packed, layout = dataset.clips(split, quiet=True), dataset.layout
    out = torch.zeros(len(packed), int(packed.num_frame.max()), packed.persons, packed.joints, 3)
    for k, (low, n) in enumerate(zip(packed.offsets.tolist(), packed.num_frame.tolist(), strict=True)):
        clip = packed.frames[low : low + n].permute(0, 3, 1, 2)  # (n, M, V, 3)
        shoulders = clip[:, 0, list(layout.across)].mean(1)
        trunk = (shoulders - clip[:, 0, layout.up[0]]).norm(dim=-1).median().clamp(min=1e-6)
        there = (clip != 0).any(-1, keepdim=True).any(-2, keepdim=True)  # persons who are there
        out[k, :n] = (clip - clip[0, 0, layout.centre]) / trunk * there
    return out, packed.num_frame, packed.labels


def resample(clips: Tensor, start: Tensor, length: Tensor, frames: int) -> Tensor:
    """Frames start .. start + length - 1 (both (B,), real numbers) of clips (B, T, ...) at `frames` even places, linear."""
    place = start[:, None] + torch.linspace(0, 1, frames) * (length[:, None] - 1)
    low = place.floor().long()
    high = (low + 1).clamp(max=clips.shape[1] - 1)
    weight = (place - low).view(*place.shape, *(1,) * (clips.dim() - 2))
    rows = torch.arange(len(clips))[:, None]
    return torch.lerp(clips[rows, low], clips[rows, high], weight)


@dataclass(frozen=True)
class Settings:
    """frames: of a view; probability: of each view but the shear, which has its own; crop: range of the share; scale: range of
    the factor of each axis; degrees; shear; noise; bones: amplitudes (see the module's text)."""

    frames: int = 50
    probability: float = 0.75
    shear_probability: float = 0.75
    crop: tuple[float, float] = (0.8, 0.9)
    scale: tuple[float, float] = (0.7, 1.2)
    degrees: float = 10.0
    shear: float = 0.2
    noise: float = 0.03
    bones: float = 0.25


class Views:
    """Draws views (B, frames, M, V, 3) of clips; every number from `generator`."""

    def __init__(self, layout: Layout, settings: Settings, seed: int):
        self.settings = settings
        self.generator = torch.Generator().manual_seed(seed)
        V, names = layout.joints, layout.names
        root = next(j for j in range(V) if layout.parents[j] == j)
        self.bone, self.path = (
            torch.eye(V),
            torch.zeros(V, V),
        )  # coordinates -> bones; path[j, a]: bone a leads to joint j
        for j in range(V):
            a = j
            while a != root:
                self.path[j, a] = 1
                a = layout.parents[a]
            if j != root:
                self.bone[j, layout.parents[j]] -= 1
        self.path[:, root] = 1
        self.root, self.still = root, layout.up[0]
        mirrored = [name.replace("left", "right") for name in names]
        self.twin = torch.tensor([names.index(name) for name in mirrored])  # a left bone has its right twin's factor

    def uniform(self, low: float, high: float, *shape) -> Tensor:
        return torch.rand(*shape, generator=self.generator) * (high - low) + low

    def happens(self, B: int, probability: float | None = None) -> Tensor:
        probability = self.settings.probability if probability is None else probability
        return torch.rand(B, generator=self.generator) < probability

    def matrix(self, B: int) -> Tensor:
        """Scale, rotation and shear as one (B, 3, 3), each there with its probability."""
        s, eye = self.settings, torch.eye(3).expand(B, 3, 3)
        scale = torch.diag_embed(self.uniform(*self.settings.scale, B, 3))
        shear = eye + self.uniform(-s.shear, s.shear, B, 3, 3) * (1 - torch.eye(3))
        turn = eye
        for a in range(3):
            angle = self.uniform(-1, 1, B) * math.radians(s.degrees)
            b, c = (a + 1) % 3, (a + 2) % 3
            about = eye.clone()
            about[:, b, b] = about[:, c, c] = angle.cos()
            about[:, b, c], about[:, c, b] = -angle.sin(), angle.sin()
            turn = turn @ about
        out = eye
        for part, probability in ((scale, None), (turn, None), (shear, s.shear_probability)):
            out = out @ torch.where(self.happens(B, probability)[:, None, None], part, eye)
        return out

    def lengths(self, B: int) -> Tensor:
        """(B, V, V): coordinates -> coordinates of a body with other bone lengths; identity where the view is not drawn."""
        factor = self.uniform(-self.settings.bones, self.settings.bones, B, len(self.bone)).exp()[:, self.twin]
        factor[:, self.root] = 1
        factor[~self.happens(B)] = 1
        bodies = (self.path * factor[:, None]) @ self.bone
        still = torch.eye(len(self.bone))[self.still] - bodies[:, self.still]  # the hips stay where they are
        return bodies + still[:, None]

    def __call__(self, clips: Tensor, num_frame: Tensor) -> Tensor:
        B, s = len(clips), self.settings
        share = torch.where(self.happens(B), self.uniform(*s.crop, B), torch.ones(B))
        length = (num_frame * share).clamp(min=1)
        x = resample(clips, self.uniform(0, 1, B) * (num_frame - length), length, s.frames)
        there = (x != 0).any(-1, keepdim=True).any(-2, keepdim=True)
        if s.bones:
            x = torch.einsum("bvw,btmwc->btmvc", self.lengths(B), x)
        x = torch.einsum("btmvc,bcd->btmvd", x, self.matrix(B))
        noise = torch.randn(x.shape, generator=self.generator) * s.noise
        return (x + noise * self.happens(B).view(B, 1, 1, 1, 1)) * there


class Encoder(nn.Module):
    """Views (B, T, M, V, 3) -> features (B, 2 * hidden): coordinates beside their motion, two-way GRU, maximum over time."""

    def __init__(self, channels: int, hidden: int, layers: int):
        super().__init__()
        self.gru = nn.GRU(2 * channels, hidden, layers, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        motion = F.pad(x[:, 1:] - x[:, :-1], (0, 0, 0, 1))
        return self.gru(torch.cat([x, motion], -1))[0].amax(1)


def simclr_loss(z: Tensor, temperature: float) -> Tensor:
    """z (2B, D): rows i and i + B are two views of a clip; all other rows of the batch are negatives (eq. 1 of SimCLR)."""
    z = F.normalize(z, dim=1)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    B = len(z) // 2
    return F.cross_entropy(logits, torch.arange(2 * B).roll(B))


@torch.no_grad()
def features(encoder: Encoder, clips: Tensor, num_frame: Tensor, frames: int) -> Tensor:
    """Features (N, D) of whole clips."""
    parts = zip(clips.split(64), num_frame.split(64), strict=True)
    return torch.cat([encoder(resample(x, torch.zeros(len(x)), n.float(), frames)) for x, n in parts])


def evaluate(encoder: Encoder, train, test, classes: int, seed: int, frames: int, folds) -> dict:
    """Per cent of the test clips that 1-NN and a linear layer on frozen features get right, and the project's own regression
    (engine.probes), for comparison with `python -m engine.baselines`."""
    (a, b), (labels, expected) = ([features(encoder, *s[:2], frames) for s in (train, test)], (train[2], test[2]))
    regression = round(100 * probe(a, labels, b, expected, classes, folds).linear, 2)
    nearest = labels[(F.normalize(b, dim=1) @ F.normalize(a, dim=1).T).argmax(1)]
    mean, deviation = a.mean(0), a.std(0) + 1e-6
    a, b = (a - mean) / deviation, (b - mean) / deviation
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    layer = nn.Linear(a.shape[1], classes)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.001)
    for _ in range(100):
        for rows in torch.randperm(len(a), generator=generator).split(64):
            optimizer.zero_grad()
            F.cross_entropy(layer(a[rows]), labels[rows]).backward()
            optimizer.step()
    with torch.no_grad():
        linear = layer(b).argmax(1)
    return {"linear": _percent(linear, expected), "knn": _percent(nearest, expected), "regression": regression}


def _percent(given: Tensor, expected: Tensor) -> float:
    return round(100 * (given == expected).float().mean().item(), 2)


def pretrain(encoder: Encoder, train, draw: Views, args) -> None:
    """Trains in place; a line of the log every 50 steps."""
    clips, num_frame, _ = train
    head = nn.Sequential(
        nn.Linear(2 * args.hidden_size, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 128)
    )  # fmt: skip
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=args.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    order, start = torch.empty(0, dtype=torch.long), time.perf_counter()
    for step in range(1, args.steps + 1):
        if len(order) < args.batch_size:
            order = torch.randperm(len(clips), generator=draw.generator)
        rows, order = order[: args.batch_size], order[args.batch_size :]
        views = torch.cat([draw(clips[rows], num_frame[rows]) for _ in range(2)])
        loss = simclr_loss(head(encoder(views)), args.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}/{args.steps} loss {loss.item():.4f} {time.perf_counter() - start:.0f} s", flush=True)


def main(arguments=None) -> dict:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peer_simclr", description=__doc__.split("\n\n")[0])
    parser.add_argument("dataset")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--protocol", default="cross_subject")
    parser.add_argument("--steps", type=int, default=1240)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--hidden-size", type=int, default=256)
    parser.add_argument("--num-layers", type=int, default=2)
    parser.add_argument("--lr", type=float, default=0.001)
    parser.add_argument("--temperature", type=float, default=0.2)
    for setting in fields(Settings):
        several = {"nargs": 2} if isinstance(setting.default, tuple) else {}
        kind = int if setting.name == "frames" else float
        parser.add_argument("--" + setting.name.replace("_", "-"), type=kind, default=setting.default, **several)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    dataset = find_dataset(args.data_root, args.dataset, args.protocol, ("train", "val"))
    classes, layout = dataset.row.num_classes, dataset.layout
    train, test = (prepared(dataset, split) for split in ("train", "val"))
    folds, _ = folds_of(dataset.clips("train", quiet=True).names, train[2].numpy())
    settings = Settings(**{setting.name: getattr(args, setting.name) for setting in fields(Settings)})
    encoder = Encoder(dataset.row.persons * layout.joints * 3, args.hidden_size, args.num_layers)
    rest = (train, test, classes, args.seed, settings.frames, folds)
    result = {"random": evaluate(encoder, *rest)}
    print(json.dumps(result), flush=True)
    start = time.perf_counter()
    pretrain(encoder, train, Views(layout, settings, args.seed), args)
    result["seconds"] = round(time.perf_counter() - start)
    result["simclr"] = evaluate(encoder, *rest)
    result["arguments"] = {name: str(value) for name, value in vars(args).items()}
    print(json.dumps(result), flush=True)
    return result


if __name__ == "__main__":
    main()
