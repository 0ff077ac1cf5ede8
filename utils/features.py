"""A file with the clip features of both splits of a data set, so that they can be reused without encoding.

An uncompressed .npz archive (features do not compress well):

    train_names, val_names (N,) text      train_labels, val_labels (N,) int64      train_features, val_features (N, D) float32
    classes (K,) text                     encoder, stream, dataset, protocol       text: their source
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.files import ArrayArchive, atomic_write
from utils.fingerprint import from_text, to_text
from utils.names import SPLITS

_TEXTS = ("encoder", "stream", "dataset", "protocol")


@dataclass(frozen=True)
class SplitFeatures:
    """names (N,) text, labels (N,) int64 in 0..K-1, features (N, D) float32."""

    names: np.ndarray
    labels: np.ndarray
    features: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Features:
    """Features of both splits. classes: K names; encoder, stream, dataset, protocol: their source; data: fingerprints of the
    clips by split (utils.fingerprint), {} if unknown."""

    train: SplitFeatures
    val: SplitFeatures
    classes: tuple[str, ...]
    encoder: str
    stream: str
    dataset: str
    protocol: str
    data: dict = field(default_factory=dict)


def write_features(path, content: Features) -> None:
    """Writes the features to a file, completely or not at all."""
    arrays = {name: np.str_(getattr(content, name)) for name in _TEXTS}
    arrays["data"] = np.str_(to_text(content.data))
    arrays["classes"] = np.asarray(content.classes, dtype=np.str_)
    for name in SPLITS:
        split = getattr(content, name)
        arrays[f"{name}_names"] = np.asarray(split.names, dtype=np.str_)
        arrays[f"{name}_labels"] = np.asarray(split.labels, dtype=np.int64)
        arrays[f"{name}_features"] = np.asarray(split.features, dtype=np.float32)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        np.savez(file, **arrays)


def check_rows(place, what: str, names, labels, rows, classes: int | None = None) -> None:
    """UserError unless names (N,) are text, labels (N,) whole numbers in 0..classes-1 and rows (N, D) floats, N > 0. what: name
    of the rows, for messages; classes: None for D."""
    if names.ndim != 1 or names.dtype.kind != "U" or labels.shape != names.shape or labels.dtype.kind not in "iu":
        found = f"{names.dtype} {names.shape} and {labels.dtype} {labels.shape}"
        raise UserError(f"{place}: expected names as text (N,) and labels as integers (N,), found {found}")
    if rows.ndim != 2 or len(rows) != len(names) or rows.dtype.kind != "f":
        raise UserError(f"{place}: expected {what} as floats ({len(names)}, D), found {rows.dtype} {rows.shape}")
    if not len(names):
        raise UserError(f"{place}: it has no clips")
    if labels.min() < 0 or labels.max() >= (classes or rows.shape[1]):
        top = (classes or rows.shape[1]) - 1
        raise UserError(f"{place}: labels must be in 0..{top}, found {labels.min()}..{labels.max()}")


def _split(archive, name: str, classes: int, path) -> SplitFeatures:
    names, labels, features = (archive.read(f"{name}_{part}") for part in ("names", "labels", "features"))
    check_rows(f"{path}, {name} split", "features", names, labels, features, classes)
    if features.dtype != np.float32:
        raise UserError(f"{path}: expected {name}_features as float32, found {features.dtype}")
    return SplitFeatures(names, labels.astype(np.int64), features)


def read_features(path) -> Features:
    """Reads a features file. UserError when it is missing, of another format, or its parts do not match."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: there is no such file; --save-features writes one")
    with ArrayArchive(path, together=True, what="features file") as archive:
        needed = [*_TEXTS, "classes", *(f"{s}_{part}" for s in SPLITS for part in ("names", "labels", "features"))]
        missing = [name for name in needed if name not in archive]
        if missing:
            raise UserError(f"{path}: not a features file, it lacks {missing[0]}")
        classes = tuple(str(name) for name in archive.read("classes").reshape(-1))
        splits = {name: _split(archive, name, len(classes), path) for name in SPLITS}
        sizes = {name: content.features.shape[1] for name, content in splits.items()}
        if len(set(sizes.values())) > 1:
            raise UserError(
                f"{path}: train features have {sizes['train']} numbers, but val features {sizes['val']}; both must come from "
                "the same encoder"
            )
        data = from_text(str(archive.read("data")) if "data" in archive else "")
        texts = {name: str(archive.read(name))[:500] for name in _TEXTS}
        return Features(**splits, classes=classes, **texts, data=data)
