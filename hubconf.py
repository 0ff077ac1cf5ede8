"""The entry points of torch.hub: an encoder for each backbone, and features of raw clips.

    import torch
    encoder = torch.hub.load("FOLDER", "gru", source="local", checkpoint="checkpoint_last.pth.tar")     # (N, T, F) -> (N, D)
    api = torch.hub.load("FOLDER", "features", source="local", checkpoint="checkpoint_last.pth.tar")
    api = torch.hub.load("FOLDER", "features", source="local", pretrained=True)     # the weights that come with it
    api.clip_features([clip])                             # raw (T, V, C) arrays -> (1, D)

FOLDER is a clone of this repository; nothing is downloaded.

The packages of this repository have common names (utils, models, ...), which the caller's project may use as well, and Python
identifies a package by its name alone. If the caller has a package of such a name, loaded or on the path, the caller's modules
are removed from sys.modules while ours are imported, and ours are removed afterwards, so that neither side imports the
other's. Ours are kept, so that a second call returns objects of the same classes. In this case a model can be saved by its
state_dict, but not be pickled as a whole nor compiled with torch.compile, which look up modules by name.
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
WEIGHTS = "ui_prmd"  # the weights of pretrained=True, see checkpoints/README.md
_FRAME = ("layout", "joints", "persons")  # describe a frame
_KEPT = f"pcm3 modules of {_ROOT}"  # key of our modules in sys.modules, which no import statement can name


def _remove_modules() -> dict:
    """Removes all modules with the names of our packages from sys.modules; returns them by name."""
    names = [name for name in sys.modules if name.split(".")[0] in _PACKAGES]
    return {name: sys.modules.pop(name) for name in names}


def _clash(path: list[str]) -> bool:
    """Whether the caller has packages of our names, loaded or on `path`."""
    loaded = [m for name, m in sys.modules.items() if name in _PACKAGES]
    foreign = [m for m in loaded if not str(getattr(m, "__file__", "") or "").startswith(_ROOT + os.sep)]
    elsewhere = [folder for folder in path if Path(folder or ".").resolve() != Path(_ROOT)]
    return bool(foreign) or any(importlib.machinery.PathFinder.find_spec(name, elsewhere) for name in _PACKAGES)


@contextlib.contextmanager
def _ours():
    """A context in which the names of our packages import those of this repository."""
    path = list(sys.path)
    clash = _clash(path)
    theirs = _remove_modules() if clash else {}
    sys.modules.update(getattr(sys.modules.get(_KEPT), "modules", {}))
    sys.path.insert(0, _ROOT)
    try:
        yield
    finally:
        sys.path[:] = path
        ours = _remove_modules()
        sys.modules[_KEPT] = SimpleNamespace(modules=ours)
        sys.modules.update(theirs if clash else ours)


def _known(backbone: str) -> list[str]:
    """Names of the sizes that an entry point accepts."""
    return [*importlib.import_module("models.backbones").BACKBONES[backbone].sizes, *_FRAME]


def _file(checkpoint, pretrained: bool):
    """The checkpoint: the given one, or the weights that come with the project. UserError if both are given."""
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
                    f"checkpoint {checkpoint}: it has {name} {found[name]}, got {name}={sizes[name]}; remove it"
                )
        return api.encoder.requires_grad_(True)


def gru(checkpoint=None, seed: int = 0, pretrained: bool = False, **sizes):
    """The paper's encoder, (N, T, F) -> (N, D), in eval mode, without head: three layers of two forward-running GRUs.

    checkpoint: a local path, or None for random weights from `seed`; pretrained: load the weights that come with the project,
    which have one backbone (checkpoints/README.md); sizes: hidden_size, num_layers and, without a checkpoint, layout, joints
    and persons of a frame (kinect_v2_25, 25, 2). Inputs are normalised coordinates, F = V * C * M, ordered by joint, then
    coordinate, then person; `features` reads raw clips instead. UserError for other sizes."""
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
    """Features of raw clips, with any backbone: `clip_features([clip])`, `frame_features(clip)`, `start_stream()`.

    checkpoint: a local path; pretrained: load the weights that come with the project; given: stream, layout, persons,
    normalise, device, see engine/features.py."""
    if checkpoint is None and not pretrained:
        raise TypeError("features: give a checkpoint, or pretrained=True")
    with _ours():
        return importlib.import_module("engine.features").load(_file(checkpoint, pretrained), **given)
