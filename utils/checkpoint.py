"""Checkpoint files: the released names, written whole, read without trust, explained and rebuilt from themselves.

A pretraining file is a dictionary with what the release wrote, `epoch`, `state_dict` (its names) and `optimizer`, and what
it lacked: `step`, `config` (to rebuild the model), `arguments`, `versions`, and the names of the optimizer's parameters,
so that its state is found by name and not by position.

Reading takes three kinds of files: ours, the released ones and relatives that hold the same encoder under `encoder_q.`
(each perhaps below `module.`, from several processes), and a bare encoder. `find_encoder` says which it is, and with which
sizes. A file is a zip archive whose members carry checksums: they are verified before anything is used, so that a flipped
bit is an error and not a slightly different model. What a file of ours may hold is a table in utils.checkpoint_schema, by
which saving and loading check.
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

WRAPPERS = ("module", "_orig_mod")  # parts of names that say how a model was run, not what it is
SHIPPED = Path(__file__).resolve().parent.parent / "checkpoints"  # weights that come with the project, NAME.pth
LAST, PREVIOUS = "checkpoint_last.pth.tar", "checkpoint_previous.pth.tar"
DAMAGED = "checkpoint_last.damaged"  # a last file that could not be gone on from


def numbered(epoch: int) -> str:
    """The released file name of an epoch."""
    return f"checkpoint_{epoch:04d}.pth.tar"


class _Remembering:
    """A file that keeps the error of a write: torch's archive writer turns a full disk into a RuntimeError about
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
    """Writes a checkpoint whole or not at all. UserError for weights that are not finite: nothing is written then."""
    schema.check_to_save(content, path)
    _write(path, content)


def _write(path, content: dict) -> None:
    with atomic_write(path) as file:
        watched = _Remembering(file)
        try:
            torch.save(content, watched)
        except RuntimeError:
            if watched.error is None:
                raise
            raise watched.error from None


def save_last(folder, content: dict) -> None:
    """Writes the rolling last checkpoint; the one before stays as `checkpoint_previous.pth.tar`.

    The old file gets its second name before the new one takes its place, so one whole file is there at any moment. UserError
    as `save`, before either file is touched."""
    schema.check_to_save(content, Path(folder) / LAST)
    last, previous = Path(folder) / LAST, Path(folder) / PREVIOUS
    temporary = temporary_name(previous)
    if last.exists():
        try:
            os.link(last, temporary)
            os.replace(temporary, previous)
            temporary.unlink(missing_ok=True)  # a rename between two names of one file (after a kill) leaves both
        except OSError:  # a file system without hard links
            temporary.unlink(missing_ok=True)
            os.replace(last, previous)
    _write(last, content)


def shipped_names() -> list[str]:
    """Names of the weights that come with the project."""
    return sorted(file.stem for file in SHIPPED.glob("*.pth"))


def is_shipped(path) -> bool:
    """Whether a path or name means weights that come with the project."""
    path = Path(path)
    return (
        path.absolute().parent == SHIPPED
        if path.exists()
        else path.parts == (path.stem,) and path.stem in shipped_names()
    )


def resolved(path) -> Path:
    """The file that a path or the name of shipped weights means; a path that exists wins. UserError for a name that is
    neither, with those there are."""
    path = Path(path)
    if path.exists() or len(path.parts) != 1 or path.suffix:
        return path
    if path.name in shipped_names():
        return SHIPPED / f"{path.name}.pth"
    known = ", ".join(shipped_names()) or "none"
    raise UserError(
        f"checkpoint {path}: there is no such file, and no weights of that name come with the project ({known} do)"
    )


def load(path) -> dict:
    """The content of a checkpoint file, or of the shipped weights of a name, tensors on the CPU.

    Raises UserError when the file is missing, is damaged, is no checkpoint, asks for more than plain tensors and containers
    (it is then not run, but refused), or, for files of ours, when a field is not what the schema says."""
    path = resolved(path)
    size = check_regular(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                _check_members(path, archive, size)
                damaged = archive.testzip()
            if damaged is not None:
                raise UserError(f"checkpoint {path}: the file is damaged (checksum of {damaged})")
        with warnings.catch_warnings():  # others, which may say what is wrong with a file, are shown
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            warnings.filterwarnings("ignore", "'torch.load' received a zip file")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a cut or hostile file can raise almost anything inside the reader
        # torch's reader answers a cut archive with EINVAL
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
    """The same with Python's numbers in place of NumPy's scalars."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) is dict:
        return {key: _plain(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_plain, value))
    return value


def _allow_numpy_scalars() -> None:
    """Lets torch.load rebuild NumPy's scalars, which many training scripts keep as epoch or accuracy, under the names of NumPy
    1 and 2. They are numbers: nothing is run for them."""
    kinds = {type(np.dtype(kind)) for kind in "?bhilqBHILQefdFD"}
    torch.serialization.add_safe_globals([NUMPY_PARTS.multiarray.scalar, np.dtype, *kinds])
    other = "numpy.core.multiarray.scalar" if "_core" in NUMPY_PARTS.__name__ else "numpy._core.multiarray.scalar"
    with contextlib.suppress(Exception):  # torch before 2.6 takes no other names
        torch.serialization.add_safe_globals([(NUMPY_PARTS.multiarray.scalar, other)])


_allow_numpy_scalars()


def _check_members(path, archive: zipfile.ZipFile, size: int) -> None:
    """UserError when an archive would unpack to more than itself and MAX_UNPACKED (torch.save does not compress), or its
    pickle asks for bytes that it does not hold."""
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
    """The content of a checkpoint that a run can be resumed from, whatever its model. UserError as `load`, and when a field,
    a weight or the optimizer's state is missing or not what the schema says."""
    content = load(path)
    schema.check_resumable(content, path)
    return content


def load_latest(folder, note=print) -> tuple[dict, Path] | None:
    """The newest checkpoint of a run folder that can be resumed, with its path, or None when there is none.

    Where the last one is damaged, has diverged or cannot be read, `note` is told, and of the others the one with the most
    steps is taken. UserError when there are files but none will do, or when one is of a later version of the program."""
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
        raise UserError(f"{folder}: none of its {count} checkpoints can be gone on from; start anew in another folder")
    return best


def make_last(folder, path) -> None:
    """Makes the checkpoint at `path` the last one too. What could not be gone on from under that name gets a name of its own:
    else the next save would put it in the place of the good one."""
    last = Path(folder) / LAST
    if last.exists():
        os.replace(last, Path(folder) / DAMAGED)
    with atomic_write(last) as file, open(path, "rb") as good:
        shutil.copyfileobj(good, file)


# -- state dictionaries ---------------------------------------------------------------------------------------------


def state_dict_of(content: dict, path) -> dict[str, Tensor]:
    """The state dictionary in a checkpoint, without what wrappers put into names: `module.` of several processes,
    `_orig_mod.` of torch.compile, of the whole model or of a part of it."""
    state = content.get("state_dict", content.get("model", content))
    if not isinstance(state, dict) or not any(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"checkpoint {path}: it holds no state_dict of tensors")
    given = {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
    state = {".".join(part for part in k.split(".") if part not in WRAPPERS): v for k, v in given.items()}
    if len(state) != len(given):
        raise UserError(
            f"checkpoint {path}: it holds weights twice, with and without {' or '.join(WRAPPERS)} in their names"
        )
    schema.check_state(state, path)
    return state


def load_into(model: torch.nn.Module, state: dict[str, Tensor], path) -> None:
    """Loads strictly; UserError names what is missing, what is not known, or the first tensor of another size or kind of
    numbers, out of its range, or that holds what is no finite number: nothing that a model computes from it is one either."""
    schema.check_state(state, path)
    own = model.state_dict()
    missing, unknown = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if missing or unknown:
        what = f"it lacks {missing[0]}" if missing else f"it holds {unknown[0]}, which this model has not"
        more = len(missing) + len(unknown) - 1
        raise UserError(f"checkpoint {path}: it does not fit: {what}" + (f" (and {more} more)" if more else ""))
    for name, value in own.items():
        if state[name].shape != value.shape:
            raise UserError(
                f"checkpoint {path}: {name} has shape {tuple(state[name].shape)}, this model needs {tuple(value.shape)}; "
                "give the sizes the checkpoint was trained with"
            )
        if state[name].is_floating_point() != value.is_floating_point():
            raise UserError(
                f"checkpoint {path}: {name} is {schema.shown(state[name])}, this model needs {schema.shown(value)}"
            )
    schema.check_finite(state, path)
    model.load_state_dict(state)


@dataclass
class FoundEncoder:
    """An encoder found in a file: state (names as in models.encoder.Encoder without head), and what is known of it.

    kind: 'pcm3' (ours), 'classifier' (with its encoder), 'released or relative', 'bare encoder', or 'comes with the
    project'; config: of the encoder, where the file says it (ours)
    or the sizes read off the tensors; arguments: of the run that made it, data: fingerprints of what it was trained on, by
    split ({} when unknown)."""

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
            f"checkpoint {path}: it holds no skeleton encoder (no encoder_q.input_norm.weight among its tensors)"
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
    """Sizes of a GRU encoder read off its tensors, for files that do not say them."""
    layers = 0
    while f"encoder.gru.weight_hh_l{layers}" in state:
        layers += 1
    if not layers:
        raise UserError(f"checkpoint {path}: it holds no GRU encoder (encoder.gru.*) and does not say what it holds")
    return {
        "backbone": "gru",
        "hidden_size": state["encoder.gru.weight_hh_l0"].shape[1],
        "num_layers": layers,
    }


# -- the optimizer, by name -----------------------------------------------------------------------------------------


def optimizer_state(optimizer: torch.optim.Optimizer, model: torch.nn.Module) -> dict:
    """The optimizer's state_dict, with the parameters' names in the order of their numbers."""
    names = {id(p): n for n, p in model.named_parameters()}
    state = optimizer.state_dict()
    state["names"] = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    return state


def load_optimizer_state(optimizer: torch.optim.Optimizer, model: torch.nn.Module, state: dict, path) -> None:
    """Loads an optimizer's state by parameter name: the order of the parameters may differ, their names and shapes not.

    Learning rate and other settings stay those of `optimizer`. Raises UserError when names are missing or a shape
    differs."""
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
