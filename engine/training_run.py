"""Everything around the steps of a pretraining: choice of precision and capture, log, checkpoints and timing.

The program (`pretrain_moco_mask.py`) builds model, optimizer and batches and loops over the steps. It calls `TrainingRun` after
each step, which writes what is due: a log line, a checkpoint, the accuracy on held-out clips. `args` are the parsed arguments of
the program, as in engine.evaluation.
"""

import math
import time
from dataclasses import asdict
from functools import partial

import torch
from torch.optim import Optimizer

from engine.graph import choose_capture
from engine.monitor import CollapseWatch, NeighbourMonitor, random_subset, spread
from engine.pace import Pace
from engine.processes import traffic_of
from engine.restore import Start, checkpoint_content, resume_command
from engine.setup import Dataset, choose_precision, placement_of
from engine.signals import EXIT_STOPPED, StopRequest
from feeder.batches import Batches
from feeder.evaluation import ClipViews
from models.encoder import EncoderConfig
from models.pcm3 import PCM3
from options.common import PRECISIONS
from utils import checkpoint as files
from utils.distributed import World
from utils.errors import UserError
from utils.run_folder import QuietFolder, RunFolder


def data_of(batches: Batches, monitor: NeighbourMonitor | None) -> dict:
    """Fingerprints, by split, of the clips that the run reads."""
    found = {"train": batches.clips.fingerprint}
    return found if monitor is None else found | {"val": monitor.queries.clips.fingerprint}


def choose_computation(args, device, world: World, start: Start | None, note) -> tuple[str, str, str]:
    """Resolves --precision and --cuda-graph; returns both, and both in words for the log. A capture chosen by auto remains `auto`,
    because it may still fail.

    A resumed run keeps its precision unless another one is given explicitly."""
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


def make_monitor(args, dataset: Dataset, batches: Batches, world: World) -> NeighbourMonitor | None:
    """The 1-NN monitor on held-out clips, or None without --knn-every."""
    if not args.knn_every:
        return None
    held_out = world.main_first(lambda: dataset.clips("val", args.cache_dir, quiet=not world.is_main))
    held_out = held_out.scaled(args.scale_by or "none", dataset.layout)
    if batches.stream_name != args.stream:  # the stream is computed before crop and transform, see make_batches
        held_out = held_out.with_stream(args.stream, torch.tensor(dataset.layout.parents))
    views = (
        ClipViews(
            clips, torch.tensor(dataset.layout.parents), batches.stream_name, device=batches.device, dtype=batches.dtype
        )
        for clips in (batches.clips, held_out.to(batches.device, placement_of(args.clips, batches.device, world)))
    )
    return NeighbourMonitor(*(random_subset(v, args.knn_clips) for v in views), world)


def log_start(
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


class TrainingRun:
    """Log, checkpoints and timing of a run.

    Values since the last log line are summed on the device, so that a step does not wait for them. The sums are saved in
    checkpoints (`progress`), so that a resumed run logs the same lines as one that was never stopped.

    step: steps done before this start; progress: the log's sums at that step, {} for a new run."""

    def __init__(
        self,
        args,
        model: PCM3,
        optimizer: Optimizer,
        batches: Batches,
        monitor: NeighbourMonitor | None,
        folder: RunFolder | QuietFolder,
        world: World,
        step: int,
        progress: dict,
    ):
        self.args, self.model, self.optimizer, self.monitor = args, model, optimizer, monitor
        self.folder, self.world, self.per_epoch = folder, world, batches.steps_per_epoch
        self.first_step, self.last_step = step, min(args.epochs * self.per_epoch, args.max_steps or math.inf)
        self.data = data_of(batches, monitor)
        self.sums = {name: value.to(batches.device) for name, value in progress.get("sums", {}).items()}
        self.count, self.skipped = progress.get("count", 0), progress.get("skipped", 0)
        self.timed_steps, self.data_seconds = 0, 0.0
        self.saved_step = step if args.resume == "auto" and step else None
        self.pace = Pace(step, self.last_step, folder.log)
        self.saved_at = self.logged_at = time.monotonic()
        self.embeddings, self.watch = None, CollapseWatch()  # embeddings: keys of the last step, cosines with own keys

    def timed(self, stream):
        """Yields the batches of the stream and sums the time waited for them."""
        while True:
            started = time.perf_counter()
            batch = next(stream, None)
            self.data_seconds += time.perf_counter() - started
            if batch is None:
                return
            yield batch

    def stop_flags(self, stop: StopRequest) -> list[bool]:
        """[whether to stop, whether to save] after this step, as far as this process knows."""
        return [stop.received is not None, time.monotonic() - self.saved_at >= 60 * self.args.save_every_minutes]

    def after_step(self, step: int, bar) -> None:
        """Updates the bar and writes what is due after this step (counted from 1 over the whole run). bar: of tqdm."""
        epoch, position = divmod(step - 1, self.per_epoch)
        ends_epoch = position == self.per_epoch - 1
        bar.update()
        self.pace.after(step, f"epoch {epoch}")
        if self.world.size > 1 and step == self.first_step + 1:
            self.folder.log(traffic_of(self.world))
        if ends_epoch or step % self.args.print_freq == 0 or step == self.last_step:
            self.log(step, bar)
        if ends_epoch:
            self.end_epoch(epoch, step)

    def record(self, output, gradient_norm) -> None:
        """Adds a step's losses to the sums of the next log line."""
        top1 = {f"top1_{name}": value for name, value in output.top1.items()}
        for name, value in {**output.losses, **top1, "gradient_norm": gradient_norm}.items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.count += 1
        self.timed_steps += 1
        if output.logits:
            view = "query" if "query" in output.logits else next(iter(output.logits))
            self.embeddings = output.keys, output.logits[view][:, 0] * self.args.contrast_t

    def progress(self) -> dict:
        """The `progress` argument of `__init__` for a resumed run."""
        sums = {name: value.detach().cpu() for name, value in self.sums.items()}
        return {"sums": sums, "count": self.count, "skipped": self.skipped}

    def log(self, step: int, bar) -> None:
        """Writes the means of the steps since the last line."""
        epoch = (step - 1) // self.per_epoch
        count = max(self.count, 1)
        values = {name: float(total) / count for name, total in self.sums.items()}  # waits for the device
        values["lr"] = self.optimizer.param_groups[0]["lr"]
        timed = max(self.timed_steps, 1)  # steps of this start; the sums may include earlier ones
        values["seconds_per_step"] = (time.monotonic() - self.logged_at) / timed
        values["data_seconds_per_step"] = self.data_seconds / timed
        values["skipped"] = self.skipped
        found = spread(*self.embeddings) if self.embeddings else {}
        values |= found
        self.folder.metrics(step, values, epoch=epoch)
        bar.set_postfix_str(f"epoch {epoch} loss {values.get('total', math.nan):.3f}", refresh=False)
        trained = [name for name, factor in self.model.term_factors().items() if factor]
        self.folder.log(f"epoch {epoch} step {step} {in_words(values, trained)} | {self.pace.words(step)}")
        self.pace.reset_silence()
        if warning := self.watch(found):
            self.folder.log(warning)
        self.sums, self.count, self.timed_steps, self.data_seconds = {}, 0, 0, 0.0
        self.logged_at = time.monotonic()

    def checkpoint(self, step: int) -> dict:
        """The checkpoint after `step` steps."""
        more = {"data": self.data, "progress": self.progress()}
        return checkpoint_content(vars(self.args), self.model, self.optimizer, step, self.per_epoch, **more)

    def end_epoch(self, epoch: int, step: int) -> None:
        """Writes the numbered checkpoint and the held-out 1-NN accuracy of an epoch, if they are due."""
        args, started = self.args, time.monotonic()
        if epoch % args.save_fre == 0 or epoch == args.epochs - 1:
            content = self.checkpoint(step)
            self.world.on_main(partial(files.save, self.folder.path / files.numbered(epoch), content))
        if self.monitor is not None and (epoch + 1) % args.knn_every == 0:
            accuracy = self.monitor(self.model.encoder_q)
            self.folder.metrics(step, {"knn_top1": accuracy}, epoch=epoch)
            self.folder.log(f"epoch {epoch} step {step} | held-out 1-NN top-1 {100 * accuracy:.2f} %")
        self.logged_at += time.monotonic() - started  # does not count as time of the steps

    def save(self, step: int) -> None:
        """Writes checkpoint_last."""
        content = self.checkpoint(step)
        self.world.on_main(lambda: files.save_last(self.args.checkpoint_path, content))
        self.saved_at, self.saved_step = time.monotonic(), step

    def stopped(self, step: int, stop: StopRequest) -> int:
        """Logs that a signal stopped the run; returns the exit status."""
        who = stop.received or "a signal to another process"
        self.folder.log(f"stopped by {who} after step {step}; resume with: {resume_command(self.world.size)}")
        if self.world.size > 1:
            self.world.barrier()
            stop.ignore_from_now_on()
        return EXIT_STOPPED

    def skip_step(self, step: int, output, gradient_norm, names: list[str]) -> None:
        """Handles a step with values that are not finite: logs which, with the names of its clips, and counts it as skipped.
        UserError unless --on-nonfinite allows to skip it."""
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


def in_words(values: dict, trained: list[str]) -> str:
    """A log line: learning rate, every loss that is trained (metrics.jsonl also has the others), top-1 of the contrasts, spread."""
    names = [name for name in values if name in (*trained, "total")]
    line = " ".join(f"{n.replace('contrast_', '')} {values[n]:.3f}" for n in names)
    top1 = " ".join(f"{values[n]:.2f}" for n in values if n.startswith("top1_"))
    spread = "".join(
        f" {word} {values[name]:.{digits}f}"
        for word, name, digits in (("rank", "effective_rank", 1), ("alignment",) * 2 + (2,), ("uniformity",) * 2 + (2,))
        if name in values
    )
    return f"lr {values['lr']:g} | {line} | top-1 {top1} |{spread}"
