"""Checkpoints of a pretraining: their content, which one a run starts from, and the checks before it resumes.

A resumed run computes the same as one that never stopped, so everything that its steps depend on must be unchanged: the encoder,
the arguments (except MAY_CHANGE) and the clips. With --init-from only the encoder must be the same.
"""

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch.optim import Optimizer

from engine.encoders import check_same_backbone
from models.pcm3 import PCM3, RENAMED
from utils import checkpoint as files
from utils.errors import UserError, as_flag
from utils.fingerprint import differences
from utils.names import SIZES
from utils.run_folder import versions

# Arguments that may differ between a checkpoint and the run that resumes it: they do not change the result of a step, except
# for rounding (threads, recompute; see benchmarks/LOG.md) and explicit changes that are logged (precision, data).
MAY_CHANGE = set(
    "data_root cache_dir clips workers checkpoint_path resume init_from start_epoch epochs max_steps save_fre "
    "save_every_minutes print_freq on_nonfinite nonfinite_limit device threads local_rank precision schedule lr cos "
    "timeout_minutes skeleton_representation contrasts knn_every knn_clips pictures backbone recompute resume_on_other_data "
    "cuda_graph recurrent".split()
) | set(SIZES)  # backbone and sizes are compared in the configuration, where defaults are filled in


def checkpoint_content(
    arguments: dict, model: PCM3, optimizer: Optimizer, step: int, steps_per_epoch: int, **more
) -> dict:
    """A checkpoint after `step` steps: the fields of the release, and those needed to rebuild the model and to resume. arguments:
    of the run, by name; more: further fields of utils.checkpoint_schema."""
    return {
        "format": files.FORMAT,
        "epoch": step // steps_per_epoch,
        "step": step,
        "state_dict": model.state_dict(),
        "optimizer": files.optimizer_state(optimizer, model),
        "config": model.config.to_dict(),
        "arguments": {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()},
        "versions": versions(),
        **more,
    }


@dataclass(frozen=True)
class Start:
    """The checkpoint that a run starts from. resumes: True to resume that run, False to take its weights only."""

    content: dict
    path: str | Path
    resumes: bool

    @property
    def recipe(self) -> str:
        """The recipe of the checkpoint; earlier versions had only the paper's."""
        found = self.content.get("arguments", {}).get("recipe")
        return found if found in ("paper", "small") else "paper"

    @property
    def arguments(self) -> dict | None:
        """Arguments of the run being resumed, by name. None for a new run."""
        found = self.content.get("arguments")
        return {RENAMED.get(k, k): v for k, v in found.items()} if self.resumes and isinstance(found, dict) else None

    @property
    def precision(self) -> str | None:
        """The precision of the run being resumed, None if the checkpoint does not say."""
        return self.content.get("arguments", {}).get("precision") if self.resumes else None


def open_start(init_from: str, resume: str, folder, note: Callable[[str], None]) -> Start | None:
    """The checkpoint of --init-from or --resume, None for a new run. folder: where --resume auto looks; note: logs a line."""
    if init_from:
        return Start(files.load(init_from), init_from, False)
    if resume == "auto":
        found = files.load_latest(folder, note)
        if found is None:
            note(f"--resume auto: no checkpoint in {folder}, a new run")
        return found and Start(*found, True)
    if resume:
        return Start(files.load_resumable(resume), resume, True)
    return None


def check_same_encoder(model: PCM3, start: Start) -> None:
    """UserError, with both values, if the encoder of the checkpoint has another backbone or other sizes."""
    config = files.find_encoder(start.content, start.path).config
    check_same_backbone(config, model.config.encoder.to_dict(), start.path)


def check_same_run(arguments: dict, start: Start, only: tuple[str, ...] = ()) -> None:
    """UserError, with the first argument that differs, if the arguments would change what the run computes. only: names to compare,
    () for all."""
    for name, old in start.content.get("arguments", {}).items():
        name = RENAMED.get(name, name)
        if only and name not in only:
            continue
        new = arguments.get(name, old)
        new = list(new) if isinstance(new, tuple) else new
        if name not in MAY_CHANGE and new != old:
            raise UserError(
                f"checkpoint {start.path} was trained with {as_flag(name, old)}, now it is {as_flag(name, new)}; resume with the "
                "old value, or start a new run from its weights with --init-from"
            )


def check_same_data(arguments: dict, start: Start, data: dict, note: Callable[[str], None]) -> None:
    """UserError, with the differences, if the clips are not those that the run started with, unless --resume-on-other-data."""
    if "data" not in start.content:
        note(
            f"checkpoint {start.path} is of an earlier version, without fingerprints of its data; the data is not compared"
        )
        return
    found = "; ".join(differences(start.content["data"], data))
    if found and not arguments["resume_on_other_data"]:
        name = f"{arguments['pre_dataset']} {arguments['protocol']}"
        raise UserError(
            f"checkpoint {start.path}: {name} is not the data that the run started with: {found}; restore that data, start a "
            "new run from its weights with --init-from, or resume on the new data with --resume-on-other-data"
        )
    if found:
        note(f"--resume-on-other-data: {found}")


def load_weights(start: Start, model: PCM3, note: Callable[[str], None]) -> None:
    """Loads weights and queue of another run (--init-from); a queue of another size keeps its random values."""
    check_same_encoder(model, start)
    state = files.state_dict_of(start.content, start.path)
    if state.get("queue") is not None and state["queue"].shape != model.queue.shape:
        note(f"--init-from: the queue has another size ({tuple(state['queue'].shape)}); it starts random")
        state["queue"], state["queue_ptr"] = model.queue, model.queue_ptr
    files.load_into(model, state, start.path)
    note(f"weights from {start.path}")


def restore(
    start: Start | None, model: PCM3, optimizer: Optimizer, arguments: dict, data: dict, note: Callable[[str], None]
) -> tuple[int, dict]:
    """Loads the result of `open_start` into model and optimizer. arguments: of the run, by name; data: fingerprints of its clips,
    by split. Returns the steps done and the log's progress (0 and {} for a new run). UserError if the checkpoint is of
    another run."""
    if start is None:
        return 0, {}
    if not start.resumes:
        load_weights(start, model, note)
        return 0, {}
    content, path = start.content, start.path
    check_same_encoder(model, start)
    check_same_run(arguments, start)
    check_same_data(arguments, start, data, note)
    files.load_into(model, files.state_dict_of(content, path), path)
    files.load_optimizer_state(optimizer, model, content["optimizer"], path)
    if arguments["resume"] == "auto" and path.name != files.LAST:
        files.make_last(arguments["checkpoint_path"], path)
    note(f"resumed {path} at step {content['step']}")
    return content["step"], content.get("progress", {})


def resume_command(processes: int) -> str:
    """The command that resumes this process: its own, with --resume auto in place of --init-from, --start-epoch and another
    --resume. processes: on one machine; several machines need the flags of their launcher."""
    words, kept = iter(sys.argv[1:]), []
    for word in words:
        flag, equals, _ = word.partition("=")
        if flag not in ("--init-from", "--start-epoch", "--resume"):
            kept += [] if flag == "--resume-on-other-data" else [word]
        elif not equals:
            next(words, None)
    launcher = f"python -m engine.launch --processes {processes}" if processes > 1 else "python"
    return f"{launcher} {shlex.join([os.path.relpath(sys.argv[0]), *kept])} --resume auto"
