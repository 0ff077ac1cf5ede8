"""Checkpoint files: written completely or not at all, read without trusting them, with all that is needed to rebuild the model.

A pretraining file is a dictionary with the released entries, `epoch`, `state_dict` (with the released names) and
`optimizer`, and our own: `step`, `config` (to rebuild the model), `arguments`, `versions`, and the names of the optimizer's
parameters, so that its state is matched by name instead of position.

Three kinds of files are read: ours; the released ones and related methods with the same encoder under `encoder_q.` (either
may have the prefix `module.` of several processes); and a bare encoder. `find_encoder` returns the kind and the sizes. A
file is a zip archive whose members have checksums, which are verified first, so that a flipped bit is an error instead of a
slightly different model. utils.checkpoint_schema has a table of the fields, which saving and loading check.
"""

import contextlib
import errno
import os
import pickle
import re
import shutil
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils import checkpoint_schema as schema
from utils import fingerprint
from utils.checkpoint_schema import FORMAT as FORMAT
from utils.errors import UserError
from utils.files import MAX_UNPACKED, NUMPY_PARTS, atomic_write, check_regular, temporary_name

WRAPPERS = ("module", "_orig_mod")  # parts of names that come from the way a model was run
SHIPPED = Path(__file__).resolve().parent.parent / "checkpoints"  # weights that come with the project, NAME.pth
LAST, PREVIOUS = "checkpoint_last.pth.tar", "checkpoint_previous.pth.tar"
DAMAGED = "checkpoint_last.damaged"  # a last checkpoint that could not be resumed


def numbered(epoch: int) -> str:
    """The released file name of an epoch."""
    return f"checkpoint_{epoch:04d}.pth.tar"


class _ErrorKeepingFile:
    """A file that keeps the OSError of a write: torch's archive writer turns a full disk into a RuntimeError about
    positions."""

    def __init__(self, file):
        self._file = file
        self.error: OSError | None = None

    def write(self, data) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def save(path, content: dict) -> None:
    """Writes a checkpoint, completely or not at all. UserError for weights that are not finite; nothing is written then."""
    schema.check_to_save(content, path)
    _write(path, content)


def _write(path, content: dict) -> None:
    with atomic_write(path) as file:
        watched = _ErrorKeepingFile(file)
        try:
            torch.save(content, watched)
        except RuntimeError:
            if watched.error is None:
                raise
            raise watched.error from None


def save_last(folder, content: dict) -> None:
    """Writes the last checkpoint; the one before is kept as `checkpoint_previous.pth.tar`.

    The old file gets its second name before it is replaced, so that a complete file exists at any moment. UserError as for
    `save`, before either file is changed."""
    schema.check_to_save(content, Path(folder) / LAST)
    last, previous = Path(folder) / LAST, Path(folder) / PREVIOUS
    temporary = temporary_name(previous)
    if last.exists():
        try:
            os.link(last, temporary)
            os.replace(temporary, previous)
            temporary.unlink(missing_ok=True)  # a rename between two names of the same file (after a kill) keeps both
        except OSError:  # a file system without hard links
            temporary.unlink(missing_ok=True)
            os.replace(last, previous)
    _write(last, content)


def shipped_names() -> list[str]:
    """Names of the weights that come with the project."""
    return sorted(file.stem for file in SHIPPED.glob("*.pth"))


def is_shipped(path) -> bool:
    """Whether a path or name refers to weights that come with the project."""
    path = Path(path)
    return (
        path.absolute().parent == SHIPPED
        if path.exists()
        else path.parts == (path.stem,) and path.stem in shipped_names()
    )


def resolved(path) -> Path:
    """The file of a path or of the name of shipped weights; an existing path has priority. UserError, with the known names,
    for a name that is neither."""
    path = Path(path)
    if path.exists() or len(path.parts) != 1 or path.suffix:
        return path
    if path.name in shipped_names():
        return SHIPPED / f"{path.name}.pth"
    known = ", ".join(shipped_names()) or "none"
    raise UserError(
        f"checkpoint {path}: there is no such file, and no weights of this name come with the project (known: {known})"
    )


def load(path) -> dict:
    """The content of a checkpoint file, or of shipped weights by name, with tensors on the CPU.

    UserError when the file is missing, damaged, not a checkpoint, contains more than plain tensors and containers (nothing
    in it is run), or, for our own files, when a field does not match the schema."""
    path = resolved(path)
    size = check_regular(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                _check_members(path, archive, size)
                damaged = archive.testzip()
            if damaged is not None:
                raise UserError(f"checkpoint {path}: the file is damaged (checksum of {damaged})")
        with warnings.catch_warnings():  # other warnings, which may be about the file, are shown
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            warnings.filterwarnings("ignore", "'torch.load' received a zip file")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the reader can raise almost anything for a cut or hostile file
        # torch's reader raises EINVAL for a cut archive
        of_disk = isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)
        if isinstance(error, UserError) or of_disk:
            raise
        if isinstance(error, pickle.UnpicklingError) and (name := re.search(r"GLOBAL ([\w.]+)", str(error))):
            what = f"it asks to import {name.group(1)}, which plain tensors never need"
            raise UserError(f"checkpoint {path}: not loaded, {what}; it may be malicious") from None
        raise UserError(f"checkpoint {path}: not a checkpoint file, or damaged ({type(error).__name__})") from None
    if not isinstance(content, dict):
        raise UserError(f"checkpoint {path}: expected a dictionary, found {type(content).__name__}")
    content = _plain(content)
    schema.check_fields(content, path)
    return content


def _plain(value):
    """The value with Python's numbers instead of NumPy's scalars."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is dict:
        return {key: _plain(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value


def _allow_numpy_scalars() -> None:
    """Lets torch.load rebuild NumPy's scalars, under the names of NumPy 1 and 2: many training scripts store them as epoch or
    accuracy. They are numbers and run no code."""
    kinds = {type(np.dtype(kind)) for kind in "?bhilqBHILQefdFD"}
    torch.serialization.add_safe_globals([NUMPY_PARTS.multiarray.scalar, np.dtype, *kinds])
    other = "numpy.core.multiarray.scalar" if "_core" in NUMPY_PARTS.__name__ else "numpy._core.multiarray.scalar"
    with contextlib.suppress(Exception):  # torch before 2.6 does not accept other names
        torch.serialization.add_safe_globals([(NUMPY_PARTS.multiarray.scalar, other)])


_allow_numpy_scalars()


def _check_members(path, archive: zipfile.ZipFile, size: int) -> None:
    """UserError when an archive unpacks to more than its size and MAX_UNPACKED (torch.save does not compress), or its pickle
    asks for a bytearray, whose size could be anything."""
    unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > max(MAX_UNPACKED, size):
        raise UserError(
            f"checkpoint {path}: its {size / 1e6:.3g} MB are compressed and would need {unpacked / 1e9:.1f} GB of memory, "
            "which torch.save never does; it is not read. If you trust it, load it with torch and save it again"
        )
    for info in archive.infolist():
        if info.filename.endswith("data.pkl") and b"bytearray\n" in archive.read(info):
            raise UserError(f"checkpoint {path}: not loaded, it asks for a bytearray, which plain tensors never need")


def load_resumable(path) -> dict:
    """The content of a checkpoint from which a run can be resumed, for any model. UserError as for `load`, and when a field,
    a weight or the optimizer's state is missing or does not match the schema."""
    content = load(path)
    schema.check_resumable(content, path)
    return content


def load_latest(folder, note=print) -> tuple[dict, Path] | None:
    """(content, path) of the newest checkpoint in a run folder that can be resumed, None without checkpoints.

    If the last one is damaged, diverged or unreadable, `note` is called with the reason, and of the others the one with the
    most steps is used. UserError when none of the checkpoints can be used, or one is of a later version of the program."""
    folder = Path(folder)
    others = [folder / PREVIOUS, *sorted(folder.glob("checkpoint_[0-9]*.pth.tar"), reverse=True)]
    best = None
    count = 0
    for path in (p for p in (folder / LAST, *others) if p.is_file()):
        count += 1
        try:
            content = load_resumable(path)
        except schema.NewerFormat:
            raise
        except UserError as error:
            note(f"{error}; trying the checkpoint before it")
            continue
        if path.name == LAST:
            return content, path
        if best is None or content["step"] > best[0]["step"]:
            best = content, path
    if best is None and count:
        raise UserError(f"{folder}: none of its {count} checkpoints can be resumed; start a new run in another folder")
    return best


def make_last(folder, path) -> None:
    """Copies the checkpoint at `path` to the last one. A last one that could not be resumed is renamed to DAMAGED, since the
    next save would otherwise move it over the good previous one."""
    last = Path(folder) / LAST
    if last.exists():
        os.replace(last, Path(folder) / DAMAGED)
    with atomic_write(last) as file, open(path, "rb") as good:
        shutil.copyfileobj(good, file)


# -- state dictionaries ---------------------------------------------------------------------------------------------


def state_dict_of(content: dict, path) -> dict[str, Tensor]:
    """The state dictionary of a checkpoint, with the parts of wrappers removed from its names: `module.` of several processes,
    `_orig_mod.` of torch.compile, for the whole model or parts of it."""
    state = content.get("state_dict", content.get("model", content))
    if not isinstance(state, dict) or not any(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"checkpoint {path}: it has no state_dict of tensors")
    given = {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
    state = {".".join(part for part in k.split(".") if part not in WRAPPERS): v for k, v in given.items()}
    if len(state) != len(given):
        raise UserError(
            f"checkpoint {path}: it has weights twice, with and without {' or '.join(WRAPPERS)} in their names"
        )
    schema.check_state(state, path)
    return state


def load_into(model: torch.nn.Module, state: dict[str, Tensor], path) -> None:
    """Loads strictly; UserError names a missing or unknown tensor, or the first one of another shape or kind of numbers, out
    of its range, or not finite."""
    schema.check_state(state, path)
    own = model.state_dict()
    missing, unknown = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if missing or unknown:
        what = f"it lacks {missing[0]}" if missing else f"it has {unknown[0]}, which this model does not have"
        more = len(missing) + len(unknown) - 1
        raise UserError(f"checkpoint {path}: it does not fit: {what}" + (f" (and {more} more)" if more else ""))
    for name, value in own.items():
        if state[name].shape != value.shape:
            raise UserError(
                f"checkpoint {path}: {name} has shape {tuple(state[name].shape)}, this model needs {tuple(value.shape)}; "
                "give the sizes that the checkpoint was trained with"
            )
        if state[name].is_floating_point() != value.is_floating_point():
            raise UserError(
                f"checkpoint {path}: {name} is {schema.shown(state[name])}, this model needs {schema.shown(value)}"
            )
    schema.check_finite(state, path)
    model.load_state_dict(state)


@dataclass
class FoundEncoder:
    """An encoder from a file. state: names as in models.encoder.Encoder, without the head.

    kind: 'pcm3' (ours), 'classifier' (with its encoder), 'released or relative', 'bare encoder', or 'comes with the
    project'; config: of the encoder, from the file (ours) or from the shapes of its tensors; arguments: of the run that made
    it, {} if unknown; epoch: None if unknown; data: fingerprints of its training data by split, {} if unknown."""

    state: dict[str, Tensor]
    kind: str
    config: dict
    arguments: dict
    epoch: int | None
    data: dict


def find_encoder(content: dict, path) -> FoundEncoder:
    """The query encoder in a checkpoint, without head and prompts. UserError when there is none."""
    state = state_dict_of(content, path)
    config = content.get("config")
    kind = "bare encoder"
    if any(k.startswith("encoder_q.") for k in state):
        kind = "pcm3" if isinstance(config, dict) else "released or relative"
        state = {k[len("encoder_q.") :]: v for k, v in state.items() if k.startswith("encoder_q.")}
    if content.get("fc") and content.get("classes"):
        kind = "classifier"
    if is_shipped(path):
        kind = "comes with the project"
    state = {k: v for k, v in state.items() if not k.startswith("fc.")}
    if "input_norm.weight" not in state:
        raise UserError(
            f"checkpoint {path}: it has no skeleton encoder (no encoder_q.input_norm.weight among its tensors)"
        )
    if isinstance(config, dict) and isinstance(config.get("encoder"), dict):
        encoder = dict(config["encoder"])
    else:
        encoder = _sizes_of_gru(state, path)
    arguments = content.get("arguments")
    epoch, data = content.get("epoch"), content.get("data")
    return FoundEncoder(
        state,
        kind,
        encoder,
        arguments if isinstance(arguments, dict) else {},
        epoch if isinstance(epoch, int) else None,
        data if fingerprint.is_valid(data) else {},
    )


def _sizes_of_gru(state: dict[str, Tensor], path) -> dict:
    """Sizes of a GRU encoder from the shapes of its tensors, for files without a config."""
    layers = 0
    while f"encoder.gru.weight_hh_l{layers}" in state:
        layers += 1
    if not layers:
        raise UserError(
            f"checkpoint {path}: it has neither a GRU encoder (encoder.gru.*) nor a config that names another"
        )
    return {
        "backbone": "gru",
        "hidden_size": state["encoder.gru.weight_hh_l0"].shape[1],
        "num_layers": layers,
    }


# -- the optimizer, by name -----------------------------------------------------------------------------------------


def optimizer_state(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> dict:
    """The optimizer's state_dict, with the names of the parameters in the order of their indices."""
    names = {id(p): n for n, p in model.named_parameters()}
    state = optimizer.state_dict()
    state["names"] = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    return state


def load_optimizer_state(optimizer: torch.optim.Optimizer, model: torch.nn.Module, state: dict, path) -> None:
    """Loads an optimizer's state by parameter name; the order of the parameters may differ. Learning rate and other settings
    stay those of `optimizer`. UserError when names are missing or a shape differs."""
    schema.check_optimizer(state, path)
    saved_names = state["names"]
    numbers = {name: i for i, name in enumerate(saved_names)}
    parameters = dict(model.named_parameters())
    names = {id(p): n for n, p in parameters.items()}
    own = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    if set(own) != set(numbers):
        odd = sorted(set(own) ^ set(numbers))[0]
        raise UserError(f"checkpoint {path}: its optimizer state does not fit this model ({odd})")
    merged = {}
    for i, name in enumerate(own):
        entry = state["state"].get(numbers[name])
        if entry is None:
            continue
        wanted = schema.KEPT_BY[type(optimizer).__name__]
        if set(entry) != wanted:
            raise UserError(
                f"checkpoint {path}: its optimizer keeps {', '.join(sorted(entry)) or 'nothing'} of {name}, "
                f"{type(optimizer).__name__} needs {', '.join(sorted(wanted))}"
            )
        for kind, value in entry.items():
            if value is not None and value.shape != (parameters[name].shape if schema.KEPT[kind][0] else ()):
                raise UserError(
                    f"checkpoint {path}: the optimizer's {kind} of {name} has shape {tuple(value.shape)}, the parameter "
                    f"{tuple(parameters[name].shape)}"
                )
        merged[i] = entry
    current = optimizer.state_dict()
    optimizer.load_state_dict({"state": merged, "param_groups": current["param_groups"]})
