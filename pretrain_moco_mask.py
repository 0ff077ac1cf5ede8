"""Pretrains a skeleton encoder with PCM3: prompted contrast with masked motion modeling.

    python pretrain_moco_mask.py --dataset ntu60 --protocol cross_view --output runs/joint

The run folder gets the log, metrics.jsonl, TensorBoard files and checkpoints. `train` is the loop over the steps: batch,
learning rate, step (engine.step is the algorithm), log, save. All random numbers are a function of (seed, step), so that a
resumed run has the results of a run that was not stopped.

Several GPUs, or several machines, compute the same run: torchrun --nproc_per_node=K pretrain_moco_mask.py ... (see
utils.distributed). Only the main process reads checkpoints, writes files and prints.
"""

import sys

from options.pretraining import apply_recipe, parse_args

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):
    parse_args()  # before torch is imported, so that help is instant


import math
from contextlib import nullcontext
from functools import partial

import torch
from tqdm import tqdm

from engine.encoders import encoder_config
from engine.fit import milestone_factor
from engine.graph import CapturedPass, Prefetcher
from engine.pictures import add_pictures
from engine.processes import copy_state
from engine.restore import Start, check_same_run, open_start, restore
from engine.setup import (
    Dataset,
    choose_recurrent,
    find_dataset,
    placement_of,
    prepare_process,
    resolve_device,
    resolve_precision,
)
from engine.signals import StopRequest
from engine.step import compute_gradients, train_step
from engine.training_run import TrainingRun, choose_computation, data_of, log_start, make_monitor
from feeder.batches import Batches
from feeder.clips import PackedClips
from feeder.mixing import MixSettings
from feeder.sampling import ViewSettings
from feeder.views import own_views
from models.pcm3 import PCM3, PCM3Config
from models.recurrent import choose_engine
from options.backbones import encoder_flags
from options.common import from_flags
from utils import checkpoint as files
from utils.distributed import World, connect
from utils.errors import UserError, as_user_error, run
from utils.locks import Ownership
from utils.run_folder import QuietFolder, RunFolder, own_folder

PROGRAM = "pretrain_moco_mask"


def model_config(args, dataset: Dataset) -> PCM3Config:
    """The model's configuration, from the flags."""
    head = {"dim": args.contrast_dim, "mlp": args.mlp, "head_norm": args.head_norm}
    return from_flags(
        PCM3Config,
        args,
        encoder=encoder_config(dataset, encoder_flags(args), args.stream, **head),
        queue_size=args.contrast_k,
        key_momentum=args.contrast_m,
        own_views=own_views(args.contrasts),
        prompt_place=args.domain_prompt,
    )


def view_settings(args, dimensions: int) -> ViewSettings:
    """How views are sampled, from the flags. dimensions: of the clips, 2 or 3."""
    mix = MixSettings(
        length=tuple(args.mix_length), parts=tuple(args.mix_parts), probabilities=tuple(args.mix_probabilities)
    )
    no_flags = ("frames", "corrupt_zero", "jitter")
    return from_flags(ViewSettings, args, no_flags, planar=dimensions == 2, mix=mix)


def complete_flags(args, clips: int, world: World, start: Start | None) -> str:
    """Sets the flags that the recipe decides, for `clips` training clips; returns a sentence for the log. start: in the main
    process, the checkpoint that the run starts from. UserError for flags that conflict."""
    before, run = world.broadcast((start.recipe, start.arguments) if start else (None, None))
    try:
        sentence = apply_recipe(args, clips, before, run)
    except ValueError as error:
        raise UserError(str(error)) from None
    if args.key_encoder == "same" and world.size > 1:
        raise UserError(f"--key-encoder same needs one process, got {world.size}; give --key-encoder slow")
    return sentence


def make_batches(args, dataset: Dataset, clips: PackedClips, device, dtype, world: World) -> Batches:
    """Batches of the training split, of this process's rows. UserError for too few clips, or a --grad-accum that does not
    divide the rows."""
    rows = world.rows(args.batch_size)
    own = rows.stop - rows.start
    if own % args.grad_accum:
        raise UserError(
            f"--grad-accum {args.grad_accum} does not divide the {own} clips a step of each process (--batch-size "
            f"{args.batch_size}); give a divisor, such as {math.gcd(own, args.grad_accum)}"
        )
    clips = clips.scaled(args.scale_by or "none", dataset.layout)
    if len(clips) < args.batch_size:
        advice = "give a smaller --batch-size" if len(clips) >= 3 else "pretraining needs at least three clips"
        raise UserError(f"{clips.source}: {len(clips)} clips do not fill a batch of {args.batch_size}; {advice}")
    stream = args.stream
    if (stream == "bone" and args.use_bone_feeder) or (stream == "motion" and args.use_motion_feeder):
        clips, stream = clips.with_stream(stream, torch.tensor(dataset.layout.parents)), "joint"
    return Batches(
        clips.to(device, placement_of(args.clips, device, world)),
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


def set_recompute(model: PCM3, pieces: int) -> None:
    """Sets --recompute. UserError for a backbone that does not support it."""
    try:
        model.set_recompute(pieces)
    except ValueError as error:
        backbone = model.config.encoder.backbone
        raise UserError(f"--recompute with --backbone {backbone}: {error}; give --grad-accum instead") from None


def build_model(args, dataset: Dataset, device, world: World, note) -> PCM3:
    """The model, with initial weights by --seed, and with precision, processes, recomputation and recurrent layers set."""
    dtype, compute_dtype = resolve_precision(args.precision)
    config = model_config(args, dataset)
    torch.manual_seed(args.seed)  # for the initial weights only; later random numbers come from feeder.sampling
    with as_user_error(f"--backbone {config.encoder.backbone}"):
        model = PCM3(config).to(device, dtype)
    model.set_compute_dtype(compute_dtype)
    model.set_world(world)
    set_recompute(model, args.recompute)
    recurrent = choose_recurrent(args.recurrent, device, args.precision, model)
    choose_engine(model, recurrent)
    if recurrent != args.recurrent:
        note(f"recurrent layers: {recurrent} (auto; --recurrent cudnn computes them layer by layer)")
    return model


def make_optimizer(args, model: PCM3) -> torch.optim.Optimizer:
    """SGD or AdamW, over all parameters that have a gradient."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if args.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=args.lr, weight_decay=args.weight_decay, fused=True)
    return torch.optim.SGD(parameters, lr=args.lr, momentum=args.momentum, weight_decay=args.weight_decay, fused=True)


def learning_rate(args, epoch: int, position: int, per_epoch: int) -> float:
    """The learning rate of a step: multiplied by 0.1 at each epoch of --schedule (counted from 0), or a cosine over the
    epochs; in the first --warmup-epochs it also grows linearly, step by step."""
    warm = (epoch * per_epoch + position + 1) / (args.warmup_epochs * per_epoch) if args.warmup_epochs else 1.0
    if args.cos:
        rate = args.lr * 0.5 * (1 + math.cos(math.pi * epoch / args.epochs))
    else:
        rate = args.lr * milestone_factor(args.schedule, epoch)
    return rate * min(1.0, warm)


def train(args, training: TrainingRun, batches: Batches) -> int:
    """The training loop; returns the exit status."""
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
                training.skip_step(step, output, norm, [batches.clips.names[i] for i in batch.all_clips.tolist()])
            step += 1
            training.after_step(step, bar)
            if stopping or (saving and step < training.last_step):
                training.save(step)
            if stopping:
                return training.stopped(step, stop)
        if step > training.first_step or training.saved_step is None:
            training.save(step)
    return 0


def pretrain(args, world: World, owner: Ownership | None) -> int:
    """The whole run, in one of the processes of `world`; returns the exit status. owner: in the main process, the lock of the
    run folder."""
    device = resolve_device(args.device)
    notes: list[str] = []
    start = world.on_main(lambda: open_start(args.init_from, args.resume, args.checkpoint_path, notes.append))
    if args.resume:  # before a wrong data set is opened
        world.on_main(lambda: start and check_same_run(vars(args), start, only=("pre_dataset", "protocol")))
    splits = ("train", "val") if args.knn_every else ("train",)
    dataset = world.main_first(lambda: find_dataset(args.data_root, args.pre_dataset, args.protocol, splits))
    clips = world.main_first(lambda: dataset.clips("train", args.cache_dir, quiet=not world.is_main))
    notes.append(complete_flags(args, len(clips), world, start))
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
    start = None  # frees its memory
    copy_state(world, model, optimizer)
    first_step = done + args.start_epoch * batches.steps_per_epoch
    kept = (lambda record: record["step"] <= first_step) if args.resume else None
    folder = world.on_main(lambda: RunFolder(args.checkpoint_path, PROGRAM, vars(args), kept, owner, data))
    with folder or QuietFolder(args.checkpoint_path) as folder:
        for note in notes:
            folder.log(note)
        log_start(args, folder, model, batches, device, world, computation)
        training = TrainingRun(args, model, optimizer, batches, monitor, folder, world, first_step, progress)
        status = train(args, training, batches)
        if status == 0:
            if args.pictures and world.is_main:
                held_out = monitor and monitor.queries
                add_pictures(args.pictures, args.stream, folder, model, dataset, batches, held_out)
            folder.log(f"done: {folder.path / files.LAST}")
        return status


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
