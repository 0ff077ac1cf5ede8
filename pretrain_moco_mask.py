"""Pretrains a skeleton encoder with PCM3: prompted contrast with masked motion modeling.

    python pretrain_moco_mask.py --dataset ntu60 --protocol cross_view --output runs/joint

`train` is the loop: batch, rate, step (engine.step is the algorithm), log, save. Everything sampled is a function of (seed, step),
so that a run resumed anywhere is the run that never stopped.

Several GPUs, or several machines, compute the same run: torchrun --nproc_per_node=K pretrain_moco_mask.py ... (see
utils.distributed). The main process reads checkpoints, writes and prints; the others only compute.
"""

import sys

from options.pretraining import parse_args, settled

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant


import math
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial

import torch
from tqdm import tqdm

from engine.encoders import encoder_config, sizes_refused
from engine.fit import milestone_factor
from engine.graph import CapturedPass, Prefetcher, choose_capture
from engine.monitor import CollapseWatch, NeighbourMonitor, limited, spread
from engine.pace import Pace
from engine.pictures import show_at_the_end
from engine.processes import copy_state, traffic_of
from engine.restore import Start, check_same_run, checkpoint_content, open_start, restore, resume_command
from engine.setup import (
    Dataset,
    choose_precision,
    choose_recurrent,
    find_dataset,
    prepare_process,
    resolve_device,
    resolve_precision,
)
from engine.signals import EXIT_STOPPED, StopRequest
from engine.step import compute_gradients, train_step
from feeder.batches import Batches
from feeder.clips import PackedClips
from feeder.evaluation import ClipViews
from feeder.mixing import MixSettings
from feeder.sampling import ViewSettings
from feeder.views import own_views
from models.encoder import EncoderConfig
from models.pcm3 import PCM3, PCM3Config
from models.recurrent import choose_engine
from options.backbones import encoder_flags
from options.common import PRECISIONS
from utils import checkpoint as files
from utils.distributed import World, connect
from utils.errors import UserError, run
from utils.locks import Ownership
from utils.run_folder import QuietFolder, RunFolder, own_folder

PROGRAM = "pretrain_moco_mask"


def model_config(args, dataset: Dataset) -> PCM3Config:
    """The model that the arguments ask for."""
    return PCM3Config(
        encoder=encoder_config(
            dataset, encoder_flags(args), args.stream, dim=args.contrast_dim, mlp=args.mlp, head_norm=args.head_norm
        ),
        queue_size=args.contrast_k,
        key_momentum=args.contrast_m,
        contrast_t=args.contrast_t,
        teacher_t=args.teacher_t,
        student_t=args.student_t,
        topk=args.topk,
        negatives=args.negatives,
        key_encoder=args.key_encoder,
        decoder_hidden_size=args.decoder_hidden_size,
        contrasts=args.contrasts,
        view_weights=args.view_weights,
        own_views=own_views(args.contrasts),
        distillation=args.distillation,
        distillation_weight=args.distillation_weight,
        prediction_weight=args.prediction_weight,
        prediction_energy=args.prediction_energy,
        latent_weight=args.latent_weight,
        domain_prompts=args.domain_prompts,
        task_prompts=args.task_prompts,
        prompt_place=args.domain_prompt,
        detach_predicted=args.detach_predicted,
    )


def view_settings(args, dimensions: int) -> ViewSettings:
    """How views of clips of so many dimensions are sampled."""
    return ViewSettings(
        crop=tuple(args.crop),
        corruption=args.corruption,
        corrupt_share=args.corrupt_share,
        shear=args.shear,
        shear_probability=args.shear_probability,
        rotation=args.rotation,
        scale=tuple(args.scale),
        bones=args.bones,
        mirror=args.mirror,
        noise=args.noise,
        mask_ratio=args.mask_ratio,
        mask_segments=args.mask_segments,
        mask_per_sample=args.mask_per_sample,
        planar=dimensions == 2,
        mix=MixSettings(
            length=tuple(args.mix_length), parts=tuple(args.mix_parts), probabilities=tuple(args.mix_probabilities)
        ),
    )


def settle(args, clips: int, world: World, start: Start | None) -> str:
    """Makes the arguments whole for a set of so many training clips; returns what to log of it. start: the checkpoint that the run
    begins with, for the main process."""
    before = world.broadcast(start and start.recipe)
    try:
        said = settled(args, clips, before)
    except ValueError as error:
        raise UserError(str(error)) from None
    if args.key_encoder == "same" and world.size > 1:
        raise UserError(f"--key-encoder same needs one process, here are {world.size}; give --key-encoder slow")
    return said


def make_batches(args, dataset: Dataset, clips: PackedClips, device, dtype, world: World) -> Batches:
    """This process's rows of the batches of the training split; UserError when it cannot fill one."""
    rows = world.rows(args.batch_size)
    own = rows.stop - rows.start
    if own % args.grad_accum:
        raise UserError(
            f"--grad-accum {args.grad_accum} does not divide the {own} clips a step of each process (--batch-size "
            f"{args.batch_size}); give a number that does, such as {math.gcd(own, args.grad_accum)}"
        )
    clips = clips.scaled(args.scale_by or "none", dataset.layout)
    if len(clips) < args.batch_size:
        raise UserError(
            f"{clips.source}: {len(clips)} clips do not fill a batch of {args.batch_size}; "
            + (
                "give a smaller --batch-size"
                if len(clips) >= 3
                else "three clips are the least that can be pretrained on"
            )
        )
    stream = args.stream
    if (stream == "bone" and args.use_bone_feeder) or (stream == "motion" and args.use_motion_feeder):
        clips, stream = clips.with_stream(stream, torch.tensor(dataset.layout.parents)), "joint"
    return Batches(
        clips.to(device, placement_of(args, device, world)),
        args.batch_size,
        args.seed,
        view_settings(args, dataset.row.dimensions),
        dataset.layout,
        stream,
        device,
        dtype,
        rows,
        own_views(args.contrasts),
    )


def placement_of(args, device, world: World) -> str:
    """Where packed clips live. Processes that share a machine's memory share one map of the file, unless told otherwise."""
    return "mapped" if args.clips == "auto" and world.size > 1 and device.type == "cpu" else args.clips


def set_recompute(model: PCM3, pieces: int) -> None:
    """What --recompute asks for; UserError for a backbone that cannot."""
    try:
        model.set_recompute(pieces)
    except ValueError as error:
        backbone = model.config.encoder.backbone
        raise UserError(
            f"--recompute with --backbone {backbone}: {error}; --grad-accum needs less memory too"
        ) from None


def build_model(args, dataset: Dataset, device, world: World, note) -> PCM3:
    """The model that the arguments ask for, with initial weights by --seed, ready to compute as they say."""
    dtype, compute_dtype = resolve_precision(args.precision)
    config = model_config(args, dataset)
    torch.manual_seed(args.seed)  # of the initial weights only; see feeder.sampling for everything later
    with sizes_refused(config.encoder.backbone):
        model = PCM3(config).to(device, dtype)
    model.set_compute_dtype(compute_dtype)
    model.set_world(world)
    set_recompute(model, args.recompute)
    recurrent = choose_recurrent(args.recurrent, device, args.precision, model)
    choose_engine(model, recurrent)
    if recurrent != args.recurrent:
        note(f"recurrent layers: {recurrent} (auto; --recurrent cudnn for one layer after the other)")
    return model


def make_monitor(args, dataset: Dataset, batches: Batches, world: World) -> NeighbourMonitor | None:
    """1-NN on held-out clips as --knn-every asks for, or None."""
    if not args.knn_every:
        return None
    held_out = world.main_first(lambda: dataset.clips("val", args.cache_dir, quiet=not world.is_main))
    held_out = held_out.scaled(args.scale_by or "none", dataset.layout)
    if batches.stream_name != args.stream:  # taken before crop and transform, see make_batches
        held_out = held_out.with_stream(args.stream, torch.tensor(dataset.layout.parents))
    views = (
        ClipViews(
            clips, torch.tensor(dataset.layout.parents), batches.stream_name, device=batches.device, dtype=batches.dtype
        )
        for clips in (batches.clips, held_out.to(batches.device, placement_of(args, batches.device, world)))
    )
    return NeighbourMonitor(*(limited(v, args.knn_clips) for v in views), world)


def make_optimizer(args, model: PCM3) -> torch.optim.Optimizer:
    """SGD, or AdamW, over everything that a gradient can reach."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if args.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=args.lr, weight_decay=args.weight_decay, fused=True)
    return torch.optim.SGD(parameters, lr=args.lr, momentum=args.momentum, weight_decay=args.weight_decay, fused=True)


def learning_rate(args, epoch: int, position: int, per_epoch: int) -> float:
    """The rate of a step: x0.1 from each epoch of --schedule (from 0) on, or a cosine over the epochs; before that, a
    linear warm-up step by step."""
    warm = (epoch * per_epoch + position + 1) / (args.warmup_epochs * per_epoch) if args.warmup_epochs else 1.0
    if args.cos:
        rate = args.lr * 0.5 * (1 + math.cos(math.pi * epoch / args.epochs))
    else:
        rate = args.lr * milestone_factor(args.schedule, epoch)
    return rate * min(1.0, warm)


def data_of(batches: Batches, monitor: NeighbourMonitor | None) -> dict:
    """Fingerprints of the clips that the run reads, by split."""
    found = {"train": batches.clips.fingerprint}
    return found if monitor is None else found | {"val": monitor.queries.clips.fingerprint}


def choose_computation(args, device, world: World, start: Start | None, note) -> tuple[str, str, str]:
    """--precision and --cuda-graph made definite (a capture that auto chose stays `auto`: it may fail), and both in words.

    A resumed run keeps its precision, unless another one is given by name."""
    asked, given = args.precision, args.precision != "auto"
    before = start and start.precision
    if before in PRECISIONS and before not in ("auto", asked):
        if given:
            note(f"the run was computed in {before} so far, from here on in {asked}, as given")
        asked = asked if given else before
    precision, words = choose_precision(asked, device, args.backbone or EncoderConfig.backbone)
    if not given and asked != "auto":
        words += " (auto: as before)"
    captured, captured_words = choose_capture(args.cuda_graph, device, world.size, args.grad_accum, args.recompute)
    return precision, args.cuda_graph if captured else "off", f"{words}, {captured_words}"


@dataclass(frozen=True)
class Resumed:
    """Where the run takes up: steps done, and the progress of the log after them ({} for a new run)."""

    step: int
    progress: dict


class TrainingRun:
    """What a run has beside its steps: model and optimizer, clock, log and files.

    Means since the last line of the log are added up on the device, so that a step need not wait for them. They are saved
    with the run (`progress`), so that the lines of a run that was killed are those of one that was not."""

    def __init__(self, args, model: PCM3, optimizer, batches: Batches, monitor, folder, world: World, resumed: Resumed):
        self.args, self.model, self.optimizer, self.monitor = args, model, optimizer, monitor
        self.folder, self.world, self.per_epoch = folder, world, batches.steps_per_epoch
        self.first_step = resumed.step
        self.last_step = min(args.epochs * self.per_epoch, args.max_steps or math.inf)
        self.data, progress = data_of(batches, monitor), resumed.progress
        self.sums = {name: value.to(batches.device) for name, value in progress.get("sums", {}).items()}
        self.count, self.skipped = progress.get("count", 0), progress.get("skipped", 0)
        self.timed_steps, self.data_seconds = 0, 0.0
        self.saved_step = resumed.step if args.resume == "auto" and resumed.step else None
        self.pace = Pace(resumed.step, self.last_step, folder.log)
        self.saved_at = self.logged_at = time.monotonic()
        self.embeddings, self.watch = None, CollapseWatch()  # of the last step: its keys, and cosines with the own key

    def timed(self, stream):
        """The batches of the stream; the time waited for each is added up."""
        while True:
            started = time.perf_counter()
            batch = next(stream, None)
            self.data_seconds += time.perf_counter() - started
            if batch is None:
                return
            yield batch

    def stop_flags(self, stop: StopRequest) -> list[bool]:
        """Whether this process is to stop, and to save, after the step."""
        return [stop.received is not None, time.monotonic() - self.saved_at >= 60 * self.args.save_every_minutes]

    def record(self, output, gradient_norm) -> None:
        """Adds a step's losses to the means of the next line."""
        top1 = {f"top1_{name}": value for name, value in output.top1.items()}
        for name, value in {**output.losses, **top1, "gradient_norm": gradient_norm}.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.count += 1
        self.timed_steps += 1
        if output.logits:
            view = "query" if "query" in output.logits else next(iter(output.logits))
            self.embeddings = output.keys, output.logits[view][:, 0] * self.args.contrast_t

    def progress(self) -> dict:
        """What `__init__` takes up again."""
        sums = {name: value.detach().cpu() for name, value in self.sums.items()}
        return {"sums": sums, "count": self.count, "skipped": self.skipped}

    def log(self, step: int, bar) -> None:
        """Writes the means of the steps since the last line; the log's own line at epochs' ends and every --print-freq."""
        epoch, position = divmod(step - 1, self.per_epoch)
        count = max(self.count, 1)
        values = {name: float(total) / count for name, total in self.sums.items()}  # waits for the device
        values["lr"] = self.optimizer.param_groups[0]["lr"]
        timed = max(self.timed_steps, 1)  # of this start; the means may have begun before it
        values["seconds_per_step"] = (time.monotonic() - self.logged_at) / timed
        values["data_seconds_per_step"] = self.data_seconds / timed
        values["skipped"] = self.skipped
        found = spread(*self.embeddings) if self.embeddings else {}
        values |= found
        self.folder.metrics(step, values, epoch=epoch)
        bar.set_postfix_str(f"epoch {epoch} loss {values.get('total', math.nan):.3f}", refresh=False)
        if position == self.per_epoch - 1 or step % self.args.print_freq == 0 or step == self.last_step:
            trained = [name for name, factor in self.model.term_factors().items() if factor]
            report(self.folder, epoch, step, values, trained, self.pace.words(step))
            self.pace.spoken()
        if warning := self.watch(found):
            self.folder.log(warning)
        self.sums, self.count, self.timed_steps, self.data_seconds = {}, 0, 0, 0.0
        self.logged_at = time.monotonic()

    def checkpoint(self, step: int) -> dict:
        """The checkpoint after `step` steps."""
        more = {"data": self.data, "progress": self.progress()}
        return checkpoint_content(vars(self.args), self.model, self.optimizer, step, self.per_epoch, **more)

    def end_epoch(self, epoch: int, step: int) -> None:
        """The numbered checkpoint and the held-out 1-NN of an epoch, where they are due."""
        args, started = self.args, time.monotonic()
        if epoch % args.save_fre == 0 or epoch == args.epochs - 1:
            content = self.checkpoint(step)
            self.world.on_main(partial(files.save, self.folder.path / files.numbered(epoch), content))
        if self.monitor is not None and (epoch + 1) % args.knn_every == 0:
            accuracy = self.monitor(self.model.encoder_q)
            self.folder.metrics(step, {"knn_top1": accuracy}, epoch=epoch)
            self.folder.log(f"epoch {epoch} step {step} | held-out 1-NN top-1 {100 * accuracy:.2f} %")
        self.logged_at += time.monotonic() - started  # not a part of the steps' time

    def save(self, step: int) -> None:
        """Writes checkpoint_last."""
        content = self.checkpoint(step)
        self.world.on_main(lambda: files.save_last(self.args.checkpoint_path, content))
        self.saved_at, self.saved_step = time.monotonic(), step

    def stopped(self, step: int, stop: StopRequest) -> int:
        """Says so; returns the exit status."""
        who = stop.received or "a signal to another process"
        self.folder.log(f"stopped by {who} after step {step}; go on with: {resume_command(self.world.size)}")
        if self.world.size > 1:
            self.world.barrier()
            stop.ignore_from_now_on()
        return EXIT_STOPPED

    def leave_out(self, step: int, output, gradient_norm, names: list[str]) -> None:
        """Counts a step whose numbers are not finite and logs which, with the names of its clips; UserError unless such steps
        may be left out."""
        args, self.skipped = self.args, self.skipped + 1
        bad = [name for name, value in output.losses.items() if not torch.isfinite(value)]
        what = f"loss {', '.join(bad)}" if bad else f"gradient (norm {float(gradient_norm):g})"
        shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        message = f"step {step}: {what} is not finite; clips of the batch: {shown}"
        if args.on_nonfinite == "stop" or self.skipped > args.nonfinite_limit:
            saved = f"No checkpoint of this run is in {args.checkpoint_path}"
            if self.saved_step is not None:
                saved = f"{files.LAST} in {args.checkpoint_path} is from before it, after step {self.saved_step}"
            raise UserError(
                f"{message}. {saved[0].upper()}{saved[1:]}; "
                "a smaller --lr or --precision fp32 may help, --on-nonfinite skip leaves such steps out"
            )
        self.folder.log(f"{message}; left out ({self.skipped} of at most {args.nonfinite_limit})")


def train(args, training: TrainingRun, batches: Batches) -> int:
    """The loop over the steps; returns the exit status."""
    model, optimizer, world, step = training.model, training.optimizer, training.world, training.first_step
    compute, meanwhile = partial(compute_gradients, model, parts=args.grad_accum), None
    if args.cuda_graph != "off":
        compute = CapturedPass(compute, None if args.cuda_graph == "on" else training.folder.log)
    model.train()
    world.traffic.clear()
    quiet = None if world.is_main else True
    with (
        StopRequest(launched=world.size > 1) as stop,
        tqdm(total=training.last_step, initial=step, unit="step", dynamic_ncols=True, disable=quiet) as bar,
    ):
        stream = batches.stream(step, training.last_step, args.workers)
        if batches.device.type == "cuda":
            stream = Prefetcher(stream, batches.device)
            meanwhile = stream.prefetch
        for batch in training.timed(iter(stream)):
            epoch, position = divmod(step, training.per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(args, epoch, position, training.per_epoch)
            flags = partial(training.stop_flags, stop)
            output, norm, finite, (stopping, saving) = train_step(
                compute, model, optimizer, batch, world, flags, meanwhile
            )
            if finite:
                training.record(output, norm)
            else:
                training.leave_out(step, output, norm, [batches.clips.names[i] for i in batch.all_clips.tolist()])
            step += 1
            bar.update()
            training.pace.after(step, f"epoch {epoch}")
            if world.size > 1 and step == training.first_step + 1:
                training.folder.log(traffic_of(world))
            ends_epoch = position == training.per_epoch - 1
            if step % args.print_freq == 0 or step == training.last_step or ends_epoch:
                training.log(step, bar)
            if ends_epoch:
                training.end_epoch(epoch, step)
            if stopping or (saving and step < training.last_step):
                training.save(step)
            if stopping:
                return training.stopped(step, stop)
        if step > training.first_step or training.saved_step is None:
            training.save(step)
    return 0


def report(folder: RunFolder | QuietFolder, epoch: int, step: int, values: dict, trained: list[str], pace: str) -> None:
    """A line of the log: every loss that is trained under its name (metrics.jsonl has the others, too), and pace: seconds a
    step, what is left and when it ends."""
    names = [name for name in values if name in (*trained, "total")]
    line = " ".join(f"{n.replace('contrast_', '')} {values[n]:.3f}" for n in names)
    top1 = " ".join(f"{values[n]:.2f}" for n in values if n.startswith("top1_"))
    spread = "".join(
        f" {word} {values[name]:.{digits}f}"
        for word, name, digits in (("rank", "effective_rank", 1), ("alignment",) * 2 + (2,), ("uniformity",) * 2 + (2,))
        if name in values
    )
    folder.log(f"epoch {epoch} step {step} lr {values['lr']:g} | {line} | top-1 {top1} |{spread} | {pace}")


def introduce(
    args, folder: RunFolder | QuietFolder, model: PCM3, batches: Batches, device, world: World, computation: str
) -> None:
    """The first lines of the log, and config.json."""
    size = sum(p.numel() for p in model.encoder_q.parameters()) / 1e6
    several = f", {world.size} processes" if world.size > 1 else ""
    method = args.exp_descri if args.recipe == "paper" else "small recipe"
    folder.log(
        f"{method}, {args.stream} stream of {args.pre_dataset} {args.protocol}: {len(batches.clips)} clips, "
        f"{batches.steps_per_epoch} steps an epoch, {model.config.encoder.backbone} encoder {size:.1f} M parameters, "
        f"{device}{several}, {computation}, torch {torch.__version__}"
    )
    if args.distillation and args.negatives != "batch" and args.topk > args.contrast_k:
        folder.log(
            f"note: --topk {args.topk} is more than the queue of {args.contrast_k} holds: all of it is distilled"
        )
    queue_share = args.contrast_k / len(batches.clips)
    if queue_share > 0.75:
        folder.log(
            f"note: the queue ({args.contrast_k}) is {queue_share:.1f} times the number of clips: a clip meets its own "
            "older keys as negatives; give a smaller --contrast-k"
        )
    folder.write_json("config.json", {"views": asdict(batches.settings), "model": model.config.to_dict()})


def pretrain(args, world: World, owner: Ownership | None) -> int:
    """Everything from the data to the end of the run, by one of the processes of `world`; returns the exit status.

    owner: of the run folder, for the main process."""
    device = resolve_device(args.device)
    notes: list[str] = []
    start = world.on_main(lambda: open_start(args.init_from, args.resume, args.checkpoint_path, notes.append))
    if args.resume:  # before another data set is looked for
        world.on_main(lambda: start and check_same_run(vars(args), start, only=("pre_dataset", "protocol")))
    splits = ("train", "val") if args.knn_every else ("train",)
    dataset = world.main_first(lambda: find_dataset(args.data_root, args.pre_dataset, args.protocol, splits))
    clips = world.main_first(lambda: dataset.clips("train", args.cache_dir, quiet=not world.is_main))
    notes.append(settle(args, len(clips), world, start))
    chosen = world.on_main(lambda: choose_computation(args, device, world, start, notes.append))
    args.precision, args.cuda_graph, computation = world.broadcast(chosen)
    dtype, _ = resolve_precision(args.precision)
    batches = make_batches(args, dataset, clips, device, dtype, world)
    monitor = make_monitor(args, dataset, batches, world)

    model = build_model(args, dataset, device, world, notes.append)
    optimizer = make_optimizer(args, model)
    data = data_of(batches, monitor)
    done, progress = world.broadcast(
        world.on_main(lambda: restore(start, model, optimizer, vars(args), data, notes.append))
    )
    start = None  # its memory is the model's now
    copy_state(world, model, optimizer)
    resumed = Resumed(done + args.start_epoch * batches.steps_per_epoch, progress)
    step = resumed.step if args.resume else None
    folder = world.on_main(lambda: RunFolder(args.checkpoint_path, PROGRAM, vars(args), step, owner, data))
    folder = folder or QuietFolder(args.checkpoint_path)
    try:
        for note in notes:
            folder.log(note)
        introduce(args, folder, model, batches, device, world, computation)
        training = TrainingRun(args, model, optimizer, batches, monitor, folder, world, resumed)
        status = train(args, training, batches)
        if status == 0:
            if args.pictures and world.is_main:
                held_out = monitor and monitor.queries
                show_at_the_end(args.pictures, args.stream, folder, model, dataset, batches, held_out)
            folder.log(f"done: {folder.path / files.LAST}")
        return status
    except UserError as error:
        folder.log(f"error: {error}", show=False)
        raise
    finally:
        folder.close()


def main(argv=None) -> int:
    args = parse_args(argv)
    prepare_process(args.threads)
    world = connect(args.device, args.local_rank, args.timeout_minutes)
    try:
        with world.on_main(lambda: own_folder(args.checkpoint_path, PROGRAM)) or nullcontext() as owner:
            return pretrain(args, world, owner)
    finally:
        world.close()


if __name__ == "__main__":
    run(main, sys.argv[1:])
