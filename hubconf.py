"""Entry points of torch.hub: an encoder for each backbone, and features of raw clips.

    import torch
    encoder = torch.hub.load("FOLDER", "gru", source="local", checkpoint="checkpoint_last.pth.tar")     # (N, T, F) -> (N, D)
    api = torch.hub.load("FOLDER", "features", source="local", checkpoint="checkpoint_last.pth.tar")
    api = torch.hub.load("FOLDER", "features", source="local", pretrained=True)     # the weights that come with it
    api.clip_features([clip])                             # raw (T, V, C) arrays -> (1, D)

FOLDER is a clone of this repository; nothing is downloaded.

The packages of this repository have plain names (utils, models, ...) that a caller's project may well use too, and Python
knows a package by its name alone. Where the caller has one of these names, loaded or anywhere on the path, our packages are
imported while the caller's are set aside, and are set aside themselves before the caller goes on: neither side ever gets
the other's. They are kept, so that a second call gives objects of the same classes. The price of a clash: such a module
can be saved by its state_dict, but neither be pickled whole nor go through torch.compile, which look modules up by name.
"""

import contextlib
import importlib
import importlib.machinery
import os
import sys
from pathlib import Path
from types import SimpleNamespace

dependencies = ["torch", "numpy", "tqdm"]

_ROOT = str(Path(__file__).resolve().parent)
_PACKAGES = ("data_gen", "engine", "feeder", "models", "options", "utils")
WEIGHTS = "ui_prmd"  # what pretrained=True means, see checkpoints/README.md
_FRAME = ("layout", "joints", "persons")  # of a frame
_KEPT = f"pcm3 modules of {_ROOT}"  # no import statement can name it


def _set_aside() -> dict:
    """Takes all modules of our packages' names from Python's table; returns them by name."""
    names = [name for name in sys.modules if name.split(".")[0] in _PACKAGES]
    return {name: sys.modules.pop(name) for name in names}


def _clash(path: list[str]) -> bool:
    """Whether the caller has packages of our names: loaded, or to be found on `path`."""
    loaded = [m for name, m in sys.modules.items() if name in _PACKAGES]
    foreign = [m for m in loaded if not str(getattr(m, "__file__", "") or "").startswith(_ROOT + os.sep)]
    elsewhere = [folder for folder in path if Path(folder or ".").resolve() != Path(_ROOT)]
    return bool(foreign) or any(importlib.machinery.PathFinder.find_spec(name, elsewhere) for name in _PACKAGES)


@contextlib.contextmanager
def _ours():
    """Within the block, imports of our packages' names are those of this repository."""
    path = list(sys.path)
    clash = _clash(path)
    theirs = _set_aside() if clash else {}
    sys.modules.update(getattr(sys.modules.get(_KEPT), "modules", {}))
    sys.path.insert(0, _ROOT)
    try:
        yield
    finally:
        sys.path[:] = path
        ours = _set_aside()
        sys.modules[_KEPT] = SimpleNamespace(modules=ours)
        sys.modules.update(theirs if clash else ours)


def _known(backbone: str) -> list[str]:
    """Names that an entry point takes beside checkpoint and seed."""
    return [*importlib.import_module("models.backbones").BACKBONES[backbone].sizes, *_FRAME]


def _file(checkpoint, pretrained: bool):
    """The checkpoint that is meant; the caller may give one or ask for the weights that come with the project."""
    if not pretrained:
        return checkpoint
    if checkpoint is not None:
        raise importlib.import_module("utils.errors").UserError(
            f"checkpoint {checkpoint} and pretrained=True: give one of them"
        )
    return WEIGHTS


def _encoder(backbone: str, checkpoint, seed: int, sizes: dict, pretrained: bool):
    with _ours():
        checkpoint = _file(checkpoint, pretrained)
        encoders, errors = importlib.import_module("engine.encoders"), importlib.import_module("utils.errors")
        config, known = importlib.import_module("models.encoder").EncoderConfig, _known(backbone)
        for name in sizes:
            if name not in known:
                raise errors.UserError(f"backbone {backbone}: {name!r} is not known; known: {', '.join(known)}")
        if checkpoint is None:
            with errors.as_user_error(f"backbone {backbone}", TypeError, ValueError):
                return encoders.random_encoder(config(backbone=backbone, **sizes), seed)
        api = importlib.import_module("engine.features").load(checkpoint, device="cpu")
        found = api.encoder.config.to_dict()
        encoders.check_same_backbone(found, {"backbone": backbone, **sizes}, checkpoint)
        for name in set(sizes) & set(_FRAME):
            if sizes[name] != found[name]:
                raise errors.UserError(
                    f"checkpoint {checkpoint}: it has {name} {found[name]}, and {sizes[name]} was asked for; leave it out"
                )
        return api.encoder.requires_grad_(True)


def gru(checkpoint=None, seed: int = 0, pretrained: bool = False, **sizes):
    """The paper's encoder, (N, T, F) -> (N, D), in eval mode, without head: three layers of two forward-running GRUs.

    checkpoint: a local path, or None for random weights from `seed`; pretrained: the weights that come with the project, which
    are of one backbone (checkpoints/README.md); sizes: hidden_size, num_layers; layout, joints and persons of a frame
    (kinect_v2_25, 25, 2), without a checkpoint. Inputs are normalised coordinates, F = V * C * M joint by joint, then
    coordinate, then person; `features` takes raw clips instead."""
    return _encoder("gru", checkpoint, seed, sizes, pretrained)


def bigru(checkpoint=None, seed: int = 0, pretrained: bool = False, **sizes):
    """The truly bidirectional GRU; otherwise as `gru`."""
    return _encoder("bigru", checkpoint, seed, sizes, pretrained)


def transformer(checkpoint=None, seed: int = 0, pretrained: bool = False, **sizes):
    """A transformer over frames. sizes: width, depth, heads, mlp_ratio, causal; otherwise as `gru`."""
    return _encoder("transformer", checkpoint, seed, sizes, pretrained)


def st_transformer(checkpoint=None, seed: int = 0, pretrained: bool = False, **sizes):
    """A transformer over joints and groups of frames. sizes: width, depth, heads, mlp_ratio, patch_frames, tokens, attention,
    causal; otherwise as `gru`."""
    return _encoder("st_transformer", checkpoint, seed, sizes, pretrained)


def stgcn(checkpoint=None, seed: int = 0, pretrained: bool = False, **sizes):
    """The spatial-temporal graph network. sizes: width, depth; otherwise as `gru`."""
    return _encoder("stgcn", checkpoint, seed, sizes, pretrained)


def features(checkpoint=None, pretrained: bool = False, **given):
    """Features of raw clips, of any backbone: `clip_features([clip])`, `frame_features(clip)`, `start_stream()`.

    checkpoint: a local path; pretrained: the weights that come with the project; given: stream, layout, persons, normalise,
    device, see engine/features.py."""
    if checkpoint is None and not pretrained:
        raise TypeError("features: give a checkpoint, or pretrained=True")
    with _ours():
        return importlib.import_module("engine.features").load(_file(checkpoint, pretrained), **given)
