"""From words on a command line to a device, a precision and a data set."""

import functools
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from data_gen.normalise import EVERY_STEP
from engine.transfer import FrameForm, adapt, say_transfer
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
    """auto, cpu or cuda -> a device; UserError when cuda is asked for and there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        if not torch.cuda.is_available():
            raise UserError("--device cuda: torch sees no CUDA device here; give --device cpu, or auto")
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(name)


BF16_FLAGS = ("amx_bf16", "avx512_bf16")  # as Linux names the processor's bfloat16 units
BF16_ON_PROCESSOR = ("gru", "bigru", "transformer")  # backbones that were measured to be faster so (benchmarks/LOG.md)


@functools.cache
def processor_flags() -> frozenset[str]:
    """What the processor can do, in the words of /proc/cpuinfo; empty where there is no such file."""
    try:
        found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
    except OSError:
        return frozenset()
    return frozenset(found[1].split()) if found else frozenset()


def has_bf16_units(device: torch.device) -> bool:
    """Whether products of bfloat16 are the device's own, not emulated: compute capability 8.0 or newer, or AMD's cards."""
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def choose_precision(asked: str, device: torch.device, backbone: str) -> tuple[str, str]:
    """What --precision asks for -> the name of what is computed, and the same in words for the log.

    auto decides by what the hardware has, never by a timing, so that the same machine decides the same whatever else it
    does. On a card bf16 where it has units for it; every card with TF32 has them too (both came with compute capability
    8.0), so auto never ends at tf32. On a processor bf16 where it has AMX or AVX512-BF16, this torch has oneDNN, and the
    backbone is faster that way. Else fp32. UserError for bf16 by name on a card without it."""
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
    """What --recurrent asks for -> a name of models.recurrent.RUNS, or auto, which is each layer's own choice.

    auto takes the wavefront where it was measured to be faster (RESULTS.md, "On a GPU": bf16, a card of compute capability 9, the
    paper's encoder) and Triton can build it: in bf16 on such a card, for two layers or more of 512 numbers or more."""
    measured = device.type == "cuda" and precision == "bf16" and torch.version.hip is None
    if asked != "auto" or not measured or torch.cuda.get_device_capability(device)[0] != 9:
        return asked
    layers = [module for module in model.modules() if isinstance(module, ForwardGRU)]
    large = any(layer.num_layers > 1 and layer.hidden_size >= 512 for layer in layers)
    return "wavefront" if large and wavefront_works(device) else asked


def resolve_precision(name: str) -> tuple[torch.dtype, torch.dtype | None]:
    """fp32, tf32, bf16 or fp64 -> (dtype of everything, dtype of the large products or None for the same).

    fp32 switches TF32 off, which cuDNN has on by default: fp32 means exact."""
    tf32 = name == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32
    if name == "fp64":
        return torch.float64, None
    return torch.float32, torch.bfloat16 if name == "bf16" else None


def prepare_process(threads: int | None) -> None:
    """Torch's threads (None: its own choice), and memory that stays with the process (utils.machine)."""
    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)


def placement_of(asked: str, device: torch.device, world: World) -> str:
    """Where packed clips live, see feeder.clips. auto: processes that share a machine's memory share one map of the file."""
    return "mapped" if asked == "auto" and world.size > 1 and device.type == "cpu" else asked


@dataclass(frozen=True)
class Dataset:
    """A data set with one protocol: its registry row, layout, and the folder that holds the arrays; stored: the row as the
    files are, where `read_as` has made another of it and clips are converted when they are opened."""

    row: DatasetRow
    layout: Layout
    protocol: str
    folder: Path
    stored: DatasetRow | None = None

    @property
    def form(self) -> FrameForm:
        """What a frame of its clips is."""
        return FrameForm(self.layout, self.row.persons, self.row.dimensions)

    @property
    def stored_form(self) -> FrameForm:
        """What a frame of its files is."""
        row = self.stored or self.row
        return FrameForm(get_layout(row.layout), row.persons, row.dimensions)

    def read_as(self, form: FrameForm) -> "Dataset":
        """The same data set, its clips converted to another form of frames when they are opened, and held in memory.

        UserError where there is no way from the one to the other."""
        if form == self.form:
            return self
        say_transfer(self.stored_form, form)
        row = replace(self.row, layout=form.layout.name, persons=form.persons, dimensions=form.dimensions)
        return replace(self, row=row, layout=form.layout, stored=self.stored or self.row)

    @property
    def converted(self) -> str:
        """What is done to the clips when they are opened, in one line; '' for nothing."""
        return say_transfer(self.stored_form, self.form)

    def clips(self, split: str, cache_dir=None, quiet: bool = False) -> PackedClips:
        """The packed clips of a split, checked."""
        given = self.stored_form
        joints, persons = given.layout.joints, given.persons
        clips = load_clips(self.folder, split, joints, persons, self.row.num_classes, cache_dir, quiet)
        return clips if self.stored is None else self._converted(clips)

    def _converted(self, clips: PackedClips) -> PackedClips:
        """Clips of the files in the form of this data set, in memory."""
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
        """What the sidecar says of the normalisation, or None where there is no sidecar."""
        path = self.folder / SIDECAR
        return load_json(path).get("normalisation") if path.exists() else None

    @property
    def up(self) -> tuple[int, float] | None:
        """(vertical axis, sign) of the clips where a spine was turned upright, None where it was not or nothing is said."""
        steps = self.normalised
        return Z_UP if isinstance(steps, list) and "spine" in steps else None


def find_row(data_root, name: str) -> tuple[DatasetRow, Path]:
    """The registry row of a data set and its folder under data_root (which need not exist for a known data set)."""
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
    """The data set, its protocol's folder, and proof that the files of the needed splits are there.

    A data set that comes with the program (UI-PRMD) is made when it is missing; folders: of it that will be read, where they
    are not the protocol's. UserError names the files that were looked for and the command that makes them."""
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
