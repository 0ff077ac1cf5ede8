"""PCM3: prompted contrast with masked motion modeling (Zhang, Lin, Liu, ACM MM 2023), composed of the boxes beside this file.

`PCM3.forward` is the paper's figure:

    query   -> encoder ------------------------------> head -> z      contrast and distillation against the queue
    masked  -> encoder -+----------------------------> head -> z
                        +-> decoder -> prediction                     error on what was hidden
                              +-> predicted view -> encoder -> head -> z
    mixed   -> encoder ------------------------------> head -> z
    key     -> slow encoder -------------------------> head -> k      no gradient; joins the queue after the step

Query and masked view go through the encoder in one call, the predicted view, once there is one, and the mixed view in the
next: two calls of equal size are faster than three views and one, because the products of few rows are the slow ones. The
decoder reads the masked features twice, stacked as two views: as they are (the prediction loss trains decoder and
encoder) and detached (the predicted view's contrast trains the decoder, and the encoder only through the pass that reads
the predicted view). Both have equal values and both update the decoder's norm, as released.

Among several processes (`set_world`) each has its rows of the batch: norms and keys are those of the whole batch, and the
losses are this process's part of the whole batch's, so that their sum over the processes is what one process computes.

Two ways to need less memory. `backward_in_parts` goes forward and backward on one part of the rows after the other. Keys (and
with them those of the mixing partners), queue, the number of hidden coordinates and the running statistics are those of
the whole batch; what differs from one pass is that the batch statistics, by which the input norm, the decoder's norm and
any norm within the backbone normalise in training, are those of a part (of all processes together). `set_recompute`
differs in nothing: batch statistics stay the whole batch's, and the backbone's activations are computed a second time
instead of kept.
"""

import contextlib
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from models import losses, moco
from models.decoder import FrameDecoder, frame_projection, project_frames
from models.encoder import Encoder, EncoderConfig
from models.norm import RunningUpdates, ViewNorm
from models.prompts import DOMAIN_PROMPTS, domain_prompt, place_offset, place_task_prompt, task_prompt
from models.recurrent import weights_stay
from utils.distributed import World

CONTRASTS = ("query", "masked", "predicted", "mixed")  # also the order in which running statistics see the views
DOMAIN_OF_VIEW = {"query": "intra", "key": "intra", "mixed": "inter", "masked": "mask", "predicted": "predict"}
PROMPT_SLOT = {"query": 0, "decoder": 1, "masked": 2, "predicted": 3, "mixed": 4, "key": 5}  # of Batch.offsets


@dataclass(frozen=True)
class PCM3Config:
    """What is built and which parts of the method act; the defaults are the paper's run with prompts.

    contrasts: views whose contrast and distillation count; distillation, prediction_weight, cmd_weight: loss terms (0
    or False = logged, not trained); detach_predicted: whether the predicted view's contrast is kept from the decoder (as
    released for PCM3_woprompt); topk: queue entries in the distillation (at least the queue = all)."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    queue_size: int = 16384
    key_momentum: float = 0.999
    contrast_t: float = 0.07
    teacher_t: float = 0.05
    student_t: float = 0.1
    topk: int = 16384
    decoder_hidden_size: int = 512
    contrasts: tuple[str, ...] = CONTRASTS
    distillation: bool = True
    cmd_weight: float = 1.0
    prediction_weight: float = 40.0
    domain_prompts: bool = True
    task_prompts: bool = True
    prompt_place: str = "before_norm"
    detach_predicted: bool = False

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "PCM3Config":
        """The configuration that `to_dict` wrote; TypeError or ValueError for fields
        that are not known."""
        values = dict(values)
        encoder = EncoderConfig.from_dict(values.pop("encoder"))
        return cls(encoder=encoder, **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


@dataclass
class StepOutput:
    """loss: to go backward from; losses, top1: by name, detached, for logs; keys (N, dim): to enqueue after the step;
    logits: by view, detached (N, 1 + K); predicted (N, T, F): the decoder's output, detached, or None.

    Among several processes loss, losses and top1 are this process's part of the batch's (they add up to it), keys those
    of the whole batch, logits and predicted those of this process's rows."""

    loss: Tensor
    losses: dict[str, Tensor]
    top1: dict[str, Tensor]
    keys: Tensor
    logits: dict[str, Tensor]
    predicted: Tensor | None


@dataclass
class StepUpdates:
    """Running statistics that wait for the end of the step: of the encoder, to be updated in `order` of its views, and of the
    decoder."""

    encoder: RunningUpdates
    decoder: RunningUpdates
    order: list[int]

    @classmethod
    def pooled(cls, parts: list["StepUpdates"]) -> "StepUpdates":
        """Those of the whole batch, from its parts."""
        encoder, decoder = (RunningUpdates.pooled([getattr(p, who) for p in parts]) for who in ("encoder", "decoder"))
        return cls(encoder, decoder, parts[0].order)

    def commit(self) -> None:
        self.encoder.commit(self.order)
        self.decoder.commit()


def rows_of(batch, rows: slice) -> SimpleNamespace:
    """A part of a batch: these rows of what has rows, and all of what belongs to the whole batch."""
    part = {name: getattr(batch, name)[rows] for name in ("query", "target", "masked", "mixed", "partner")}
    hidden = batch.hidden[rows] if batch.hidden.ndim == 3 else batch.hidden
    return SimpleNamespace(**part, hidden=hidden, share=batch.share, offsets=batch.offsets)


def joined(outputs: list[StepOutput]) -> StepOutput:
    """The output of the whole batch, from those of its parts (part k of K has the rows k, k + K, ...), without a graph."""

    def added(values: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: sum(v[name] for v in values) for name in values[0]}

    def in_order(rows: list[Tensor]) -> Tensor:
        return torch.stack(rows, dim=1).flatten(0, 1)

    predicted = [o.predicted for o in outputs if o.predicted is not None]
    return StepOutput(
        loss=sum(o.loss.detach() for o in outputs),
        losses=added([o.losses for o in outputs]),
        top1=added([o.top1 for o in outputs]),
        keys=outputs[0].keys,
        logits={name: in_order([o.logits[name] for o in outputs]) for name in outputs[0].logits},
        predicted=in_order(predicted) if predicted else None,
    )


class PCM3(nn.Module):
    """The pretraining model. Names of parameters and buffers are those of the released files."""

    def __init__(self, config: PCM3Config):
        super().__init__()
        self.config = config
        features, inputs = Encoder(config.encoder, head=False).feature_size, config.encoder.input_size
        self.base_prompt, self.mix_prompt = domain_prompt(inputs), domain_prompt(inputs)
        self.mask_prompt, self.recons_prompt = domain_prompt(inputs), domain_prompt(inputs)
        self.cl_prompt, self.mp_prompt = task_prompt(features), task_prompt(features)
        self.encoder_q, self.encoder_k = Encoder(config.encoder), Encoder(config.encoder)
        moco.copy_without_gradient(self.encoder_q, self.encoder_k)
        self.linear = frame_projection(features, config.decoder_hidden_size)
        self.recons_decoder = FrameDecoder(config.decoder_hidden_size, inputs)
        self.register_buffer("queue", moco.new_queue(config.encoder.dim, config.queue_size))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
        self.compute_dtype: torch.dtype | None = None
        self.world = World()

    # -- the boxes ------------------------------------------------------------------------------------------------

    def set_compute_dtype(self, dtype: torch.dtype | None) -> None:
        """bf16 operands for the large matrix products (recurrent layers, head, decoder); weights, states, norms,
        similarities and losses stay float32, because their small differences are what is learned from."""
        self.compute_dtype = dtype
        for module in self.modules():
            if module is not self and hasattr(module, "compute_dtype"):
                module.compute_dtype = dtype

    def set_world(self, world: World) -> None:
        """The processes that share each batch. ValueError for a batch norm that would see this process's rows only."""
        for name, module in self.named_modules():
            if hasattr(module, "world"):
                module.world = world
            elif world.size > 1 and isinstance(module, nn.modules.batchnorm._BatchNorm):
                raise ValueError(f"{name} ({type(module).__name__}) knows no other processes; use models.norm.ViewNorm")

    def set_recompute(self, pieces: int) -> None:
        """Keeps of the encoder's passes only input and output and computes the rest again in the backward pass, each view in
        `pieces` pieces; 0 keeps everything. ValueError for a backbone with batch norms, which need all rows at once."""
        if pieces and any(isinstance(module, ViewNorm) for module in self.encoder_q.encoder.modules()):
            raise ValueError("the backbone has batch norms within, whose statistics need all rows of a view at once")
        self.encoder_q.recompute = pieces

    def _low_precision(self):
        if self.compute_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.queue.device.type, dtype=self.compute_dtype)

    def _encode(self, encoder: Encoder, views: dict[str, Tensor], updates: RunningUpdates) -> dict[str, Tensor]:
        """Frame features (N, T, D) of each view, all in one pass."""
        prompts = None
        if self.config.domain_prompts:
            chosen = [getattr(self, DOMAIN_PROMPTS[DOMAIN_OF_VIEW[name]]) for name in views]
            prompts = torch.cat([p.expand(len(x), 1, -1) for p, x in zip(chosen, views.values(), strict=True)])
        x = torch.cat(list(views.values())) if len(views) > 1 else next(iter(views.values()))
        frames = encoder.frames(x, prompts, self.config.prompt_place, len(views), updates)
        return dict(zip(views, frames.chunk(len(views)), strict=True))

    def _task_prompt(self, prompt: Tensor, use: str, places: Tensor) -> Tensor | float:
        """The task prompt as an offset (D,) of a feature, or 0 where task prompts are off."""
        if not self.config.task_prompts:
            return 0.0
        return place_task_prompt(prompt, places[PROMPT_SLOT[use]], self.encoder_q.feature_size)

    def _decode(self, features: Tensor, views: int, updates: RunningUpdates) -> Tensor:
        """features (views * N, T, D) -> coordinates (views * N, T, F)."""
        with self._low_precision():
            x = project_frames(self.linear, features, views, updates)
        return self.recons_decoder(x.to(self.queue.dtype))

    def _predict(self, features: Tensor, updates: RunningUpdates) -> tuple[Tensor, Tensor]:
        """The prediction for its loss, and the same prediction for the predicted view (see the module's text)."""
        n = len(features)
        if self.config.detach_predicted or "predicted" not in self.config.contrasts:
            predicted = self._decode(features, 1, updates)
            return predicted, predicted.detach()
        predicted = self._decode(torch.cat([features, features.detach()]), 2, updates)
        return predicted[:n], predicted[n:]

    def _project(self, encoder: Encoder, clips: Tensor) -> Tensor:
        with self._low_precision():
            return encoder.project(clips).to(self.queue.dtype)

    @torch.no_grad()
    def _keys(self, key: Tensor, offsets: Tensor) -> Tensor:
        """Keys (N, dim) of the key view, by the slow encoder; N of the whole batch, whatever this process's rows."""
        places = place_offset(offsets, self.encoder_q.feature_size)
        moco.momentum_update(self.encoder_q, self.encoder_k, self.config.key_momentum)
        updates = RunningUpdates()
        frames = self._encode(self.encoder_k, {"key": key}, updates)["key"]
        updates.commit()
        clip = self.encoder_k.clip(frames) + self._task_prompt(self.cl_prompt, "key", places)
        return self.world.gather(self._project(self.encoder_k, clip), "keys")

    @torch.no_grad()
    def predict_hidden(self, masked: Tensor, place: float = 0.5) -> Tensor:
        """The decoder's coordinates (N, T, F) for masked clips (N, T, F), in eval mode; place: of the task prompt, 0..1."""
        frames = self._encode(self.encoder_q, {"masked": masked}, RunningUpdates())["masked"]
        places = place_offset(masked.new_full((len(PROMPT_SLOT),), place), self.encoder_q.feature_size)
        return self._decode(frames + self._task_prompt(self.mp_prompt, "decoder", places), 1, RunningUpdates())

    # -- the figure -----------------------------------------------------------------------------------------------

    def forward(self, batch) -> StepOutput:
        """One step up to the loss. batch: an object with query, key, target, masked, mixed (N, T, F); hidden (T, F) or
        (N, T, F) bool, True = hidden; partner (N,); share (); offsets (6,) uniforms (see feeder.batches.Batch)."""
        keys = self._keys(batch.key, batch.offsets)
        with weights_stay(self.encoder_q):
            output, updates = self._losses(batch, slice(None), keys, self._hidden_number(batch))
        updates.commit()
        return output

    def backward_in_parts(self, batch, parts: int) -> StepOutput:
        """One step up to the gradients, in `parts` equal parts of this process's rows, one after the other (the module's
        text says what differs from one pass). Gradients are added to those that are there. Part k of K has the rows k,
        k + K, ..., so that it has the same clips however many processes share the batch. ValueError for rows that cannot
        be divided."""
        if len(batch.key) % parts:
            raise ValueError(f"{len(batch.key)} rows are not {parts} equal parts")
        keys, number = self._keys(batch.key, batch.offsets), self._hidden_number(batch)
        outputs, updates = [], []
        with weights_stay(self.encoder_q):
            for part in range(parts):
                output, seen = self._losses(batch, slice(part, None, parts), keys, number)
                output.loss.backward()
                outputs.append(output)
                updates.append(seen)
        StepUpdates.pooled(updates).commit()
        return joined(outputs)

    def _hidden_number(self, batch) -> Tensor:
        """How many coordinates are hidden in the whole batch."""
        number = losses.hidden_number(batch.hidden, batch.target)
        self.world.sum_([number], "loss denominator")
        return number

    def _losses(self, batch, rows: slice, all_keys: Tensor, number: Tensor) -> tuple[StepOutput, "StepUpdates"]:
        """The figure for some rows of this process's batch; all_keys, number: of the whole batch. Losses are these rows'
        part of the whole batch's; running statistics are left to the caller."""
        contrasts = self.config.contrasts
        places = place_offset(batch.offsets, self.encoder_q.feature_size)
        keys = all_keys[self.world.rank * len(batch.key) :][: len(batch.key)][rows]
        batch = rows_of(batch, rows)

        # 1. features of the views that are ready; the mixed one waits for company where a predicted one will come
        updates, decoder_updates = RunningUpdates(), RunningUpdates()
        needed = {"masked"} if "predicted" in contrasts or self.config.prediction_weight > 0 else set()
        wanted = [name for name in ("query", "masked", "mixed") if name in needed or name in contrasts]
        later = ["mixed"] if "predicted" in contrasts and "mixed" in contrasts else []
        ready = {name: getattr(batch, name) for name in wanted if name not in later}
        features = self._encode(self.encoder_q, ready, updates) if ready else {}

        # 2. prediction of the hidden motion, 3. the predicted view
        predicted, terms = None, {}
        if needed:
            decoder_input = features["masked"] + self._task_prompt(self.mp_prompt, "decoder", places)
            predicted, for_view = self._predict(decoder_input, decoder_updates)
            terms["prediction"] = losses.prediction(predicted, batch.target, batch.hidden, number)
        if "predicted" in contrasts:
            view = torch.where(batch.hidden, for_view, batch.masked)
            views = {"predicted": view, **{name: getattr(batch, name) for name in later}}
            features.update(self._encode(self.encoder_q, views, updates))
        seen = list(features)
        order = [seen.index(name) for name in CONTRASTS if name in seen]

        # 4. embeddings, 5. losses
        contrast_terms, logits, top1 = self._contrast(features, keys, all_keys, batch, places)
        terms = {**contrast_terms, **terms}
        total = sum(terms[f"contrast_{name}"] for name in contrasts)
        if self.config.distillation and contrasts:
            total = total + self.config.cmd_weight * terms["distillation"]
        if self.config.prediction_weight > 0:
            total = total + self.config.prediction_weight * terms["prediction"]
        output = StepOutput(
            loss=total,
            losses={name: value.detach() for name, value in {**terms, "total": total}.items()},
            top1=top1,
            keys=all_keys,
            logits={name: value.detach() for name, value in logits.items()},
            predicted=None if predicted is None else predicted.detach(),
        )
        return output, StepUpdates(updates, decoder_updates, order)

    def _contrast(self, features: dict[str, Tensor], keys: Tensor, all_keys: Tensor, batch, places: Tensor):
        """Contrast of each view and the distillation, all similarities to the queue from one product."""
        c = self.config
        if not c.contrasts:
            return {}, {}, {}
        clips = [
            self.encoder_q.clip(features[name]) + self._task_prompt(self.cl_prompt, name, places)
            for name in c.contrasts
        ]
        z = self._project(self.encoder_q, torch.cat(clips))
        n, v = len(keys), len(c.contrasts)
        mixed_keys = nn.functional.normalize((1 - batch.share) * keys + batch.share * all_keys[batch.partner], dim=1)
        own_key = {name: mixed_keys if name == "mixed" else keys for name in CONTRASTS}
        times = len(all_keys) / n  # rows of the whole batch for one of these: a mean over these is that much too large
        similar = torch.cat([z, keys, mixed_keys]) @ self.queue
        teacher = {
            name: similar[(v + 1) * n :] if name == "mixed" else similar[v * n : (v + 1) * n] for name in CONTRASTS
        }
        terms, logits, top1, distilled = {}, {}, {}, []
        for i, name in enumerate(c.contrasts):
            rows = slice(i * n, (i + 1) * n)
            positive = (z[rows] * own_key[name]).sum(dim=1)
            logits[name] = losses.contrast_logits(positive, similar[rows], c.contrast_t)
            terms[f"contrast_{name}"] = losses.contrast(logits[name]) / times
            top1[name] = losses.contrast_top1(logits[name].detach()) / times
            student = similar[rows] if c.distillation else similar[rows].detach()
            distilled.append(losses.distillation(student, teacher[name].detach(), c.student_t, c.teacher_t, c.topk))
        terms["distillation"] = sum(distilled) / times
        return terms, logits, top1

    def enqueue(self, keys: Tensor) -> None:
        """Puts the step's keys (N, dim) into the queue; to be called when the step is done."""
        moco.enqueue(self.queue, self.queue_ptr, keys)
