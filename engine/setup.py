"""Setup that programs share: device, precision, threads and data set from the values of flags."""

import functools
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from data_gen.normalise import EVERY_STEP
from engine.transfer import FrameForm, adapt, describe_transfer
from feeder.clips import PackedClips, load_clips
from models.recurrent import ForwardGRU, wavefront_works
from options.datasets import DATASETS, DatasetRow, DescriptionError, from_description
from utils.arrays import SIDECAR, split_files
from utils.distributed import World
from utils.drawing import Z_UP
from utils.errors import UserError, as_user_error
from utils.files import load_json
from utils.machine import keep_freed_memory
from utils.skeleton import Layout, get_layout


def resolve_device(name: str) -> torch.device:
    """auto, cpu or cuda -> a device; UserError for cuda without a CUDA device."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        if not torch.cuda.is_available():
            raise UserError("--device cuda: torch sees no CUDA device here; give --device cpu, or auto")
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(name)


BF16_FLAGS = ("amx_bf16", "avx512_bf16")  # CPU flags of bfloat16 units, as in /proc/cpuinfo
BF16_ON_PROCESSOR = ("gru", "bigru", "transformer")  # backbones that are faster in bf16 on a CPU (benchmarks/LOG.md)


@functools.cache
def processor_flags() -> frozenset[str]:
    """The CPU flags of /proc/cpuinfo; empty where there is no such file."""
    try:
        found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
    except OSError:
        return frozenset()
    return frozenset(found[1].split()) if found else frozenset()


def has_bf16_units(device: torch.device) -> bool:
    """Whether a GPU multiplies bfloat16 in hardware: compute capability 8.0 or newer, or AMD."""
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def choose_precision(asked: str, device: torch.device, backbone: str) -> tuple[str, str]:
    """The precision to compute in, by --precision, and the same in words for the log.

    auto depends on the hardware only, not on a timing, so that a machine always chooses the same. On a GPU it is bf16 if the GPU
    has units for it; every GPU with TF32 has them (both came with compute capability 8.0), so auto is never tf32. On a CPU it is
    bf16 with AMX or AVX512-BF16, if torch has oneDNN and the backbone is faster so. Else fp32. UserError for an explicit bf16 on a
    GPU without it."""
    if device.type == "cuda":
        units = has_bf16_units(device)
        if asked == "bf16" and not units:
            raise UserError(
                f"--precision bf16: {torch.cuda.get_device_name(device)} has no bfloat16 units; give --precision fp32, or auto"
            )
        why = f"the card has {'' if units else 'no '}bfloat16 units"
    else:
        onednn = torch.backends.mkldnn.is_available()
        found = [flag for flag in BF16_FLAGS if onednn and flag in processor_flags()]
        units = bool(found) and backbone in BF16_ON_PROCESSOR
        why = f"the processor has {found[0]}" if found else "the processor has no bfloat16 units"
        if found and not units:
            why = f"{backbone or 'what is computed'} is not faster in bf16 on a processor"
    if asked != "auto":
        return asked, asked
    name = "bf16" if units else "fp32"
    return name, f"{name} (auto: {why}{'; --precision fp32 for float32' if units else ''})"


def choose_recurrent(asked: str, device: torch.device, precision: str, model: torch.nn.Module) -> str:
    """The implementation of recurrent layers, by --recurrent: a name of models.recurrent.RUNS, or auto, the default of each layer.

    auto becomes wavefront where that was measured to be faster (RESULTS.md, "On a GPU": bf16, compute capability 9, the paper's
    encoder) and Triton can build it: in bf16 on such a GPU, for two or more layers of hidden size 512 or more."""
    measured = device.type == "cuda" and precision == "bf16" and torch.version.hip is None
    if asked != "auto" or not measured or torch.cuda.get_device_capability(device)[0] != 9:
        return asked
    layers = [module for module in model.modules() if isinstance(module, ForwardGRU)]
    large = any(layer.num_layers > 1 and layer.hidden_size >= 512 for layer in layers)
    return "wavefront" if large and wavefront_works(device) else asked


def resolve_precision(name: str) -> tuple[torch.dtype, torch.dtype | None]:
    """fp32, tf32, bf16 or fp64 -> (dtype of all tensors, dtype of large matrix products or None for the same).

    Sets torch's TF32 switches: fp32 turns TF32 off, which cuDNN uses by default."""
    tf32 = name == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    if name == "fp64":
        return torch.float64, None
    return torch.float32, torch.bfloat16 if name == "bf16" else None


def prepare_process(threads: int | None) -> None:
    """Sets torch's number of threads (None: its default) and makes the process keep freed memory (utils.machine)."""
    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)


def placement_of(asked: str, device: torch.device, world: World) -> str:
    """Where packed clips are stored, see feeder.clips. auto: several CPU processes share one memory map of the file."""
    return "mapped" if asked == "auto" and world.size > 1 and device.type == "cpu" else asked


@dataclass(frozen=True)
class Dataset:
    """A data set with one protocol. row: of the registry; folder: has the arrays; stored: the row of the files, where `read_as` has
    replaced it, so that clips are converted when they are opened."""

    row: DatasetRow
    layout: Layout
    protocol: str
    folder: Path
    stored: DatasetRow | None = None

    @property
    def form(self) -> FrameForm:
        """Layout, persons and dimensions of its clips."""
        return FrameForm(self.layout, self.row.persons, self.row.dimensions)

    @property
    def stored_form(self) -> FrameForm:
        """Layout, persons and dimensions of its files."""
        row = self.stored or self.row
        return FrameForm(get_layout(row.layout), row.persons, row.dimensions)

    def read_as(self, form: FrameForm) -> "Dataset":
        """The same data set, with clips converted to another form when they are opened, and held in memory.

        UserError if the conversion is not possible."""
        if form == self.form:
            return self
        describe_transfer(self.stored_form, form)
        row = replace(self.row, layout=form.layout.name, persons=form.persons, dimensions=form.dimensions)
        return replace(self, row=row, layout=form.layout, stored=self.stored or self.row)

    @property
    def converted(self) -> str:
        """The conversion of the clips in one line; '' for none."""
        return describe_transfer(self.stored_form, self.form)

    def clips(self, split: str, cache_dir=None, quiet: bool = False) -> PackedClips:
        """The packed clips of a split, after all checks."""
        given = self.stored_form
        joints, persons = given.layout.joints, given.persons
        clips = load_clips(self.folder, split, joints, persons, self.row.num_classes, cache_dir, quiet)
        return clips if self.stored is None else self._converted(clips)

    def _converted(self, clips: PackedClips) -> PackedClips:
        """Clips of the files, converted to the form of this data set, in memory."""
        said = self.normalised
        steps = said if isinstance(said, list) and set(said) <= set(EVERY_STEP) else None
        frames = torch.empty(len(clips.frames), self.layout.joints, 3, self.row.persons)
        for low, n in zip(clips.offsets.tolist(), clips.num_frame.tolist(), strict=True):
            clip = clips.frames[low : low + n].permute(2, 0, 1, 3).numpy()
            adapted = adapt(clip, self.stored_form, self.form, steps)
            frames[low : low + n] = torch.from_numpy(adapted.transpose(1, 2, 0, 3))
        return replace(clips, frames=frames)

    @property
    def normalised(self) -> object:
        """The normalisation steps in the sidecar file, or None where there is no sidecar."""
        path = self.folder / SIDECAR
        return load_json(path).get("normalisation") if path.exists() else None

    @property
    def up(self) -> tuple[int, float] | None:
        """(vertical axis, sign) of clips whose spine was rotated upright, None if it was not or this is unknown."""
        steps = self.normalised
        return Z_UP if isinstance(steps, list) and "spine" in steps else None


def find_row(data_root, name: str) -> tuple[DatasetRow, Path]:
    """The registry row of a data set and its folder under data_root, which need not exist for a registered data set. UserError for
    an unknown name."""
    if os.sep in name or name in ("", ".", ".."):
        raise UserError(f"data set {name!r}: give the name of a folder under --data-root, not a path")
    root = Path(data_root)
    if name == "demo" and not (root / "demo" / "dataset.json").is_file():
        raise UserError("the procedural data set demo is gone; take ui_prmd, real clips that come with the program")
    if name in DATASETS:
        row = DATASETS[name]
        for folder in row.folders:
            if (root / folder).is_dir():
                return row, root / folder
        return row, root / row.folders[0]
    description = root / name / "dataset.json"
    if not description.is_file():
        raise UserError(
            f"data set {name!r} is not known ({', '.join(DATASETS)}), and {description} is not there; "
            "python -m data_gen.from_arrays --help says how to make a data set of your own clips"
        )
    with as_user_error(str(description), DescriptionError):
        return from_description(name, load_json(description)), root / name


def find_dataset(data_root, name: str, protocol: str, needed=("train",), folders=None) -> Dataset:
    """The data set with a protocol, after a check that the files of the needed splits exist.

    UI-PRMD, which comes with the program, is made if it is missing; folders: those of it that will be read, if not the
    protocol's. UserError names the missing files and the command that makes them."""
    from data_gen import ui_prmd

    row, folder = find_row(data_root, name)
    if protocol not in row.protocols:
        raise UserError(f"{name} has no protocol {protocol!r}; it has {', '.join(row.protocols)}")
    if name in ui_prmd.NAMES:
        ui_prmd.make(data_root, name, folders or row.protocols[protocol])
    places = [folder / sub for sub in row.protocols[protocol]]
    chosen = next((p for p in places if p.is_dir()), places[0])
    files = [f for split in needed for f in split_files(chosen, split)]
    missing = [f for f in files if not f.is_file()]
    if missing:
        hint = f"; make them with: {row.prepare} --data-root {data_root}" if row.prepare else ""
        if "val" in needed and not any(f.is_file() for f in split_files(chosen, "val")):
            if all(f.is_file() for f in split_files(chosen, "train")):
                hint = (
                    "; it has no test clips: good for pretraining and for features of its train split (--split train)"
                )
        raise UserError(
            f"{name}, {protocol}: {len(missing)} of {len(files)} files are missing: {', '.join(map(str, missing))}{hint}"
        )
    return Dataset(row, get_layout(row.layout), protocol, chosen)
