"""What every evaluation program does before and after its own task: the encoder, both splits, the head of result.json."""

from dataclasses import dataclass

import torch

from engine.encoders import LoadedEncoder, encoder_config, fit_input_norm, load_encoder, random_encoder
from engine.setup import Dataset
from feeder.evaluation import ClipViews
from models.encoder import Encoder

RANDOM = "random encoder (no --pretrained given)"


@dataclass(frozen=True)
class EncoderSource:
    """Where the encoder of an evaluation comes from. pretrained: a checkpoint, or '' for a random encoder; stream: asked
    for, or None for that of the checkpoint (joint for a random encoder); asked: backbone and sizes that were given, by
    name, of the random encoder, or to be held against the checkpoint's."""

    pretrained: str
    stream: str | None
    asked: dict

    def load(self, dataset: Dataset, seed: int) -> LoadedEncoder:
        """A fresh copy for a seed, on the CPU; UserError when the file does not fit the data set."""
        if self.pretrained:
            return load_encoder(self.pretrained, dataset, self.stream, self.asked)
        config = encoder_config(dataset, self.asked)
        return LoadedEncoder(random_encoder(config, seed), self.stream or "joint", RANDOM)

    def ready(self, dataset: Dataset, seed: int, train: ClipViews, compute_dtype: torch.dtype | None) -> Encoder:
        """A fresh copy for a seed, where the clips are rendered; a random one gets the input statistics of `train`."""
        encoder = self.load(dataset, seed).encoder.to(train.device, train.dtype)
        encoder.set_compute_dtype(compute_dtype)
        if not self.pretrained:
            fit_input_norm(encoder, train)
        return encoder


def open_views(
    dataset: Dataset, split: str, stream: str, device: torch.device, dtype: torch.dtype, placement: str, cache_dir
) -> ClipViews:
    """The clips of a split as views of a stream, on the device. placement: of the packed clips, see feeder.clips."""
    clips = dataset.clips(split, cache_dir).to(device, placement)
    return ClipViews(clips, torch.tensor(dataset.layout.parents), stream, device=device, dtype=dtype)


def result_head(task: str, dataset: str, protocol: str, source: str, stream: str, features: str) -> dict:
    """The first entries of every result.json: what was evaluated, on what, and how features were taken."""
    return {
        "task": task,
        "dataset": dataset,
        "protocol": protocol,
        "encoder": source,
        "stream": stream,
        "features": features,
    }
