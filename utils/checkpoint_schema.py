"""Schema of our checkpoints: tables of their fields, of the ranges of tensors, and of the optimizer's state.

Saving and loading (utils.checkpoint) check these tables; each error names the field, its value and what was expected. A new
field is a row of `FIELDS`; a new buffer whose values have a range is a row of `VALUES`. A file without `format` is not ours:
its tensors are checked, its other entries only when a run is resumed from it.

Shapes and dtypes of the weights are checked against the model that loads them (utils.checkpoint.load_into).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from utils import fingerprint
from utils.errors import UserError

FORMAT = 1
MOST_STEPS = 2**53

# Accepted dtypes. Neither this program nor the released one writes others (8-bit floats, quantised, complex).
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class NewerFormat(UserError):
    """The file was written by a later version of this program; it is not damaged."""


@dataclass(frozen=True)
class Field:
    """A field. expected: its content in words; holds: whether a value is that; resume: whether resuming a run needs it."""

    name: str
    expected: str
    holds: Callable[[object], bool]
    resume: bool = False


def _whole(low: int, high: int) -> Callable[[object], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _texts(value) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _named(value) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) for name in value)


def _tensors(value) -> bool:
    return _named(value) and all(isinstance(tensor, Tensor) for tensor in value.values())


def _progress(value) -> bool:
    if not _named(value) or not all(_whole(0, MOST_STEPS)(value.get(name)) for name in ("count", "skipped")):
        return False
    sums = value.get("sums")
    return _tensors(sums) and all(t.dtype in FLOATS and t.dim() == 0 for t in sums.values())


FIELDS = {
    field.name: field
    for field in (
        Field("format", f"a whole number, 1 to {FORMAT}", _whole(1, FORMAT)),
        Field("epoch", "a whole number, 0 to 10^9", _whole(0, 10**9)),
        Field("step", "a whole number, 0 to 2^53", _whole(0, MOST_STEPS), resume=True),
        Field("state_dict", "a dictionary of tensors by name", _tensors, resume=True),
        Field("optimizer", "a dictionary of the optimizer's state", _named, resume=True),
        Field("config", "a dictionary of the model's settings", _named),
        Field("arguments", "a dictionary of the run's arguments", _named),
        Field("versions", "a dictionary of versions", _named),
        Field("data", f"fingerprints, {fingerprint.WORDS}", fingerprint.is_valid),
        Field("progress", "sums (numbers by name), count and skipped (whole numbers)", _progress),
        Field("fc", "a dictionary of tensors by name", _tensors),
        Field("classes", "a list of class names", _texts),
        Field("novelty", "nothing, or a dictionary of engine.novelty", lambda value: value is None or _named(value)),
    )
}


@dataclass(frozen=True)
class Values:
    """The range of tensors whose name ends in `ending`. expected: in words; holds(tensor, state): whether it is in range."""

    ending: str
    expected: str
    holds: Callable[[Tensor, dict], bool]


VALUES = (
    Values("running_var", "numbers of 0 or more", lambda t, _: not bool((t < 0).any())),
    Values(
        "num_batches_tracked", "a whole number of 0 or more", lambda t, _: t.dtype in WHOLE and bool((t >= 0).all())
    ),
    Values(
        "queue_ptr",
        "the index of a column of the queue",
        lambda t, state: (
            t.dtype in WHOLE
            and t.numel() == 1
            and ("queue" not in state or state["queue"].dim() != 2 or 0 <= int(t) < state["queue"].shape[1])
        ),
    ),
)

# Entries of an optimizer's state for a parameter: (whether it has the parameter's shape, its lowest value or None).
KEPT = {
    "momentum_buffer": (True, None),
    "exp_avg": (True, None),
    "exp_avg_sq": (True, 0),
    "step": (False, 0),
}
KEPT_BY = {"SGD": {"momentum_buffer"}, "AdamW": {"step", "exp_avg", "exp_avg_sq"}}


def shown(value) -> str:
    """A value for a message."""
    if isinstance(value, Tensor):
        return f"a tensor of {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    text = repr(value) if isinstance(value, (int, float, str, bool, type(None))) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def check_fields(content: dict, path, resume: bool = False) -> None:
    """UserError unless the fields of our own file match `FIELDS`. resume: check any file, and require all fields that
    resuming needs."""
    if "format" not in content and not resume:
        return
    number = content.get("format")
    if type(number) is int and number > FORMAT:
        raise NewerFormat(
            f"checkpoint {path}: its format is {number}, but this version of the program reads 1 to {FORMAT}; use the version "
            "that wrote it, or a later one"
        )
    for field in FIELDS.values():
        if field.name in content and not field.holds(content[field.name]):
            what = f"its {field.name} is {shown(content[field.name])}"
            raise UserError(f"checkpoint {path}: {what}, expected {field.expected}")
        if resume and field.resume and field.name not in content:
            raise UserError(
                f"checkpoint {path}: it has no {field.name!r}, so it cannot be resumed; "
                "to start from its weights give it to --init-from"
            )


def _odd(value: Tensor) -> str | None:
    """What is unusual about a tensor, in words, None for a dense one of plain numbers."""
    if value.device.type == "meta":
        return "has no values (a meta tensor)"
    if value.layout != torch.strided:
        return f"is sparse ({str(value.layout).removeprefix('torch.')})"
    if value.is_quantized or value.dtype not in (*FLOATS, *WHOLE, torch.bool):
        return f"holds {str(value.dtype).removeprefix('torch.')}"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"has shape {tuple(value.shape)}, but fewer values"
    return None


def check_state(state: dict[str, Tensor], path) -> None:
    """UserError unless every tensor is a dense one of plain numbers, and in its range if `VALUES` has one."""
    for name, value in state.items():
        odd = _odd(value)
        if odd:
            raise UserError(f"checkpoint {path}: {name} {odd}, expected a dense tensor of float or whole numbers")
    for name, value in state.items():
        for row in VALUES:
            if name.rpartition(".")[2] == row.ending and not row.holds(value, state):
                numbers = value.flatten()[:1].tolist() if value.numel() == 1 else [float(value.min())]
                what = f"{shown(value)} with {numbers[0] if numbers else 'nothing'}"
                raise UserError(f"checkpoint {path}: {name} is {what}, expected {row.expected}")


def all_finite(value: Tensor) -> bool:
    """Whether all values are finite. A finite sum shows this four times as fast; only if it is not (it may have overflowed),
    all values are tested."""
    return bool(value.sum().isfinite()) or bool(value.isfinite().all())


def check_finite(state: dict[str, Tensor], path) -> None:
    """UserError when a tensor has a value that is not finite."""
    for name, value in state.items():
        if not all_finite(value):
            raise UserError(
                f"checkpoint {path}: {name} is not finite, so the training diverged; give an earlier checkpoint"
            )


def check_optimizer(state: dict, path) -> None:
    """UserError unless an optimizer's state, as written by utils.checkpoint, is complete and in its ranges."""

    def refuse(what: str):
        raise UserError(
            f"checkpoint {path}: its optimizer {what}, so it cannot be resumed; to start from its weights give it to --init-from"
        )

    names, entries, groups = state.get("names"), state.get("state"), state.get("param_groups")
    if not isinstance(names, list):
        refuse("state has no parameter names (a file of the released code?)")
    if not _texts(names) or len(set(names)) != len(names):
        refuse("names are not distinct texts")
    if not isinstance(entries, dict) or not isinstance(groups, list) or not all(map(_named, groups)):
        refuse(f"holds state {shown(entries)} and param_groups {shown(groups)}, expected a dictionary and a list")
    for number, entry in entries.items():
        if not (type(number) is int and 0 <= number < len(names)):
            refuse(f"has state of parameter {shown(number)}, expected a number below {len(names)}")
        if not _named(entry) or not any(set(entry) <= kept for kept in KEPT_BY.values()):
            refuse(f"keeps {shown(sorted(entry) if _named(entry) else entry)} of {names[number]}")
        for kind, value in entry.items():
            if value is None and kind == "momentum_buffer":
                continue
            if not isinstance(value, Tensor) or _odd(value) or value.dtype not in FLOATS:
                refuse(f"state {kind} of {names[number]} is {shown(value)}, expected float numbers")
            if not all_finite(value) or (KEPT[kind][1] is not None and bool((value < KEPT[kind][1]).any())):
                low = "" if KEPT[kind][1] is None else f" of {KEPT[kind][1]} or more"
                refuse(f"state {kind} of {names[number]} is out of range, expected finite numbers{low}")


def check_resumable(content: dict, path) -> None:
    """UserError unless a run can be resumed from the content, for any model: checks fields, tensors and optimizer."""
    check_fields(content, path, resume=True)
    check_state(content["state_dict"], path)
    check_finite(content["state_dict"], path)
    optimizer = content["optimizer"]
    check_optimizer(optimizer, path)
    keeps = any(group.get("momentum") or "betas" in group for group in optimizer["param_groups"])
    taken = content["step"] - content.get("progress", {}).get("skipped", 0)
    if keeps and taken > 0 and not optimizer["state"]:
        raise UserError(
            f"checkpoint {path}: its optimizer has no state after {content['step']} steps, so it cannot be resumed; to "
            "start from its weights give it to --init-from"
        )


def check_to_save(content: dict, path) -> None:
    """Checks before writing: UserError when weights are not finite; ValueError for a field without a row in FIELDS (a bug)."""
    if "format" in content:
        unknown = sorted(content.keys() - FIELDS.keys())
        if unknown:
            raise ValueError(f"a checkpoint's field {unknown[0]!r} has no row in utils.checkpoint_schema.FIELDS")
        check_fields(content, path)
    states = [content.get("state_dict"), content.get("fc"), content.get("model")]
    states += list(content.get("optimizer", {}).get("state", {}).values())
    for state in states:
        for name, value in (state or {}).items():
            if isinstance(value, Tensor) and not all_finite(value):
                raise UserError(
                    f"{path}: not written, {name} is not finite: the training has diverged; a smaller --lr may help"
                )
