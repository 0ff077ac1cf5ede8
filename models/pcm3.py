"""PCM3: prompted contrast with masked motion modeling (Zhang, Lin, Liu, ACM MM 2023), composed of the boxes beside this file.

The model computes losses; engine.step is the algorithm that trains with them. `PCM3.forward` is the paper's figure:

    query   -> encoder ------------------------------> head -> z      contrast and distillation against the queue
    masked  -> encoder -+----------------------------> head -> z
                        +-> decoder -> prediction                     error on what was hidden
                              +-> predicted view -> encoder -> head -> z
    mixed   -> encoder ------------------------------> head -> z
    (own)   -> encoder ------------------------------> head -> z      views that the paper does not have (feeder.views)
    key     -> slow encoder -------------------------> head -> k      no gradient; joins the queue after the step

Query and masked view go through the encoder in one call, the predicted view, once there is one, and the mixed view in the
next: two calls of equal size are faster than three views and one, because the products of few rows are the slow ones. The
decoder reads the masked features twice, stacked as two views: as they are (the prediction loss trains decoder and
encoder) and detached (the predicted view's contrast trains the decoder, and the encoder only through the pass that reads
the predicted view). Both have equal values and both update the decoder's norm, as released.

Among several processes (`set_world`) each has its rows of the batch: norms and keys are those of the whole batch, and the
losses are this process's part of the whole batch's, so that their sum over the processes is what one process computes.

Two ways to need less memory. `forward` takes some of the rows at a time (engine.step goes forward and backward on one part
after the other). Keys (and with them those of the mixing partners), queue, the number of hidden coordinates and the running
statistics are those of the whole batch; what differs from one pass is that the batch statistics, by which the input norm, the
decoder's norm and any norm within the backbone normalise in training, are those of a part (of all processes together).
`set_recompute` differs in rounding only: batch statistics stay the whole batch's, and the backbone's activations are computed a
second time instead of kept.
"""

import contextlib
import math
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor, nn

from models import losses, moco
from models.decoder import FrameDecoder, frame_projection, project_frames
from models.encoder import Encoder, EncoderConfig, check_prompt_place
from models.norm import RunningUpdates, ViewNorm
from models.prompts import DOMAIN_PROMPTS, domain_prompt, place_offset, place_task_prompt, task_prompt
from utils.distributed import World
from utils.names import CONTRASTS, KEY_ENCODERS, NEGATIVES, PROMPT_USES

DOMAIN_OF_VIEW = {"query": "intra", "key": "intra", "mixed": "inter", "masked": "mask", "predicted": "predict"}
RENAMED = {"cmd_weight": "distillation_weight"}  # settings, and arguments of runs, of older files


@dataclass(frozen=True)
class PCM3Config:
    """What is built and which parts of the method act; the defaults are the paper's run with prompts.

    negatives: what a clip is contrasted with: "queue", all of it, as released; "others", the queue without older keys of the clip
    itself, of which a small set's is full; "batch", the keys of the other clips of the batch. key_encoder: "slow", as
    released; "same", with "batch" only: the encoder itself makes the keys, with gradient, and key and view are each
    contrasted with all other clips' keys and views (SimCLR, Chen et al. 2020, for each of the views). contrasts: views whose
    contrast and distillation count; view_weights: factors of both, 1 where a view is not named; own_views: of contrasts that the
    paper does not have, the domain prompt (a value of DOMAIN_OF_VIEW); distillation, prediction_weight, distillation_weight:
    loss terms (0 or False = logged, not trained); detach_predicted: whether the predicted view's contrast is kept from the
    decoder (as released for PCM3_woprompt); topk: negatives in the distillation (at least their number = all).

    Two additions to the prediction that are not the paper's: prediction_energy (0..1): by how much coordinates that move count
    more (losses.energy_weights); latent_weight: of the error of the slow encoder's features of the whole clip, as a small
    network of its own foretells them frame by frame from the masked view's."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    queue_size: int = 16384
    key_momentum: float = 0.999
    contrast_t: float = 0.07
    teacher_t: float = 0.05
    student_t: float = 0.1
    topk: int = 16384
    negatives: str = "queue"
    key_encoder: str = "slow"
    decoder_hidden_size: int = 512
    contrasts: tuple[str, ...] = CONTRASTS
    distillation: bool = True
    distillation_weight: float = 1.0
    prediction_weight: float = 40.0
    prediction_energy: float = 0.0
    latent_weight: float = 0.0
    domain_prompts: bool = True
    task_prompts: bool = True
    prompt_place: str = "before_norm"
    detach_predicted: bool = False
    view_weights: dict[str, float] = field(default_factory=dict)
    own_views: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        for name in self.contrasts:
            if name not in CONTRASTS and self.own_views.get(name) not in DOMAIN_PROMPTS:
                raise ValueError(f"view {name!r} needs a domain prompt of {', '.join(DOMAIN_PROMPTS)}")
        for name, weight in self.view_weights.items():
            if name not in self.contrasts or not 0 <= weight < math.inf:
                raise ValueError(
                    f"expected weights of 0 or more of the views {', '.join(self.contrasts) or '(none)'}, got {name}={weight}"
                )
        if self.negatives not in NEGATIVES or self.key_encoder not in KEY_ENCODERS:
            raise ValueError(
                f"expected negatives of {', '.join(NEGATIVES)} and a key encoder of {', '.join(KEY_ENCODERS)}, got "
                f"{self.negatives!r} and {self.key_encoder!r}"
            )
        check_prompt_place(self.prompt_place)
        if self.key_encoder == "same" and self.negatives != "batch":
            raise ValueError("keys of the encoder itself have a gradient and cannot be old: negatives must be batch")

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "PCM3Config":
        """The configuration that `to_dict` wrote, of this version or an older one; TypeError or ValueError for fields that are
        not known."""
        values = {RENAMED.get(name, name): value for name, value in values.items()}
        encoder = EncoderConfig.from_dict(values.pop("encoder"))
        return cls(encoder=encoder, **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


@dataclass(frozen=True)
class Targets:
    """What the losses of a step are measured against. keys (n, dim): of the rows; all_keys (N, dim): of the whole batch; both
    None where the encoder itself makes them, beside the other views; hidden_number (): hidden coordinates of the whole batch;
    latent (n, T, D): features of the whole clips of the rows, or None."""

    keys: Tensor | None
    all_keys: Tensor | None
    hidden_number: Tensor
    latent: Tensor | None = None

    def rows(self, rows: slice) -> "Targets":
        """Those of some of the rows."""
        keys, latent = (None if rest is None else rest[rows] for rest in (self.keys, self.latent))
        return replace(self, keys=keys, latent=latent)


@dataclass
class StatisticsUpdates:
    """Running statistics that wait for the end of the step: of the encoder, to be updated in `order` of its views, and of
    decoder and head."""

    encoder: RunningUpdates
    decoder: RunningUpdates
    order: list[int]

    @classmethod
    def pooled(cls, parts: list["StatisticsUpdates"]) -> "StatisticsUpdates":
        """Those of the whole batch, from its parts."""
        encoder, decoder = (RunningUpdates.pooled([getattr(p, who) for p in parts]) for who in ("encoder", "decoder"))
        return cls(encoder, decoder, parts[0].order)

    def commit(self) -> None:
        self.encoder.commit(self.order)
        self.decoder.commit()


@dataclass
class StepOutput:
    """loss: to go backward from; losses, top1: by name, detached, for logs; keys (N, dim): to enqueue after the step;
    logits: by view, detached (n, 1 + K); predicted (n, T, F): the decoder's output, detached, or None; statistics: to be
    committed after the pass.

    Of some of the rows of a batch loss, losses and top1 are these rows' part of the whole batch's (they add up to it), keys
    those of the whole batch, logits and predicted those of the rows."""

    loss: Tensor
    losses: dict[str, Tensor]
    top1: dict[str, Tensor]
    keys: Tensor
    logits: dict[str, Tensor]
    predicted: Tensor | None
    statistics: StatisticsUpdates

    @classmethod
    def joined(cls, parts: list["StepOutput"]) -> "StepOutput":
        """That of the whole batch, from those of its parts (part k of K has the rows k, k + K, ...), without a graph."""

        def added(values: list[dict[str, Tensor]]) -> dict[str, Tensor]:
            return {name: sum(v[name] for v in values) for name in values[0]}

        def in_order(rows: list[Tensor]) -> Tensor:
            return torch.stack(rows, dim=1).flatten(0, 1)

        predicted = [part.predicted for part in parts if part.predicted is not None]
        return cls(
            loss=sum(part.loss.detach() for part in parts),
            losses=added([part.losses for part in parts]),
            top1=added([part.top1 for part in parts]),
            keys=parts[0].keys,
            logits={name: in_order([part.logits[name] for part in parts]) for name in parts[0].logits},
            predicted=in_order(predicted) if predicted else None,
            statistics=StatisticsUpdates.pooled([part.statistics for part in parts]),
        )


class PCM3(nn.Module):
    """The pretraining model. Names of parameters and buffers are those of the released files."""

    def __init__(self, config: PCM3Config):
        super().__init__()
        self.config = config
        sizes, inputs = Encoder(config.encoder, head=False), config.encoder.input_size
        features = sizes.feature_size
        self.base_prompt, self.mix_prompt = domain_prompt(inputs), domain_prompt(inputs)
        self.mask_prompt, self.recons_prompt = domain_prompt(inputs), domain_prompt(inputs)
        self.cl_prompt, self.mp_prompt = task_prompt(sizes.clip_size), task_prompt(features)
        self.encoder_q, self.encoder_k = Encoder(config.encoder), Encoder(config.encoder)
        moco.copy_without_gradient(self.encoder_q, self.encoder_k)
        self.linear = frame_projection(features, config.decoder_hidden_size)
        self.recons_decoder = FrameDecoder(config.decoder_hidden_size, inputs)
        if config.latent_weight > 0:
            width = config.decoder_hidden_size
            self.latent = nn.Sequential(nn.Linear(features, width), nn.ReLU(), nn.Linear(width, features))
        self.register_buffer("queue", moco.new_queue(config.encoder.dim, config.queue_size))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))
        if config.negatives == "others":  # whose key each is; -1: of nobody, as the first ones, which are random
            self.register_buffer("queue_clips", torch.full((config.queue_size,), -1))
        self.compute_dtype: torch.dtype | None = None
        self.world = World()

    # -- the boxes ------------------------------------------------------------------------------------------------

    def set_compute_dtype(self, dtype: torch.dtype | None) -> None:
        """bf16 operands for the large matrix products (recurrent layers, head, decoder); weights, states, norms,
        similarities and losses stay float32, because their small differences are what is learned from."""
        for module in self.modules():
            if hasattr(module, "compute_dtype"):
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
            domains = {**DOMAIN_OF_VIEW, **self.config.own_views}
            chosen = [getattr(self, DOMAIN_PROMPTS[domains[name]]) for name in views]
            prompts = torch.cat([p.expand(len(x), 1, -1) for p, x in zip(chosen, views.values(), strict=True)])
        x = torch.cat(list(views.values())) if len(views) > 1 else next(iter(views.values()))
        frames = encoder.frames(x, prompts, self.config.prompt_place, len(views), updates)
        return dict(zip(views, frames.chunk(len(views)), strict=True))

    def _task_prompt(self, prompt: Tensor, use: str, offsets: Tensor) -> Tensor | float:
        """The task prompt as an offset (D,) of a frame's feature, or (P,) of a clip's, or 0 where task prompts are off."""
        if not self.config.task_prompts:
            return 0.0
        size, slots = 8 * prompt.shape[1], [*PROMPT_USES, *self.config.own_views]
        return place_task_prompt(prompt, place_offset(offsets, size)[slots.index(use)], size)

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

    def _project(self, encoder: Encoder, clips: Tensor, views: int, updates: RunningUpdates) -> Tensor:
        with self._low_precision():
            return encoder.project(clips, views, updates).to(self.queue.dtype)

    def update_key_encoder(self) -> None:
        """The slow encoder follows the encoder; it becomes its copy where nothing asks for a slow one."""
        slow = self.config.key_encoder == "slow" or self.config.latent_weight > 0
        momentum = self.config.key_momentum if slow else 0.0
        moco.momentum_update(self.encoder_q, self.encoder_k, momentum)

    @torch.no_grad()
    def targets(self, batch) -> Targets:
        """What the losses of this process's rows of a batch (see `forward`) are measured against: keys by the slow encoder, of
        all processes' rows, and how many coordinates are hidden in all of them."""
        keys = all_keys = latent = None
        if self.config.latent_weight > 0:
            latent = self._encode(self.encoder_k, {"key": batch.target}, RunningUpdates())["key"]
        if self.config.key_encoder == "slow":
            updates = RunningUpdates()
            frames = self._encode(self.encoder_k, {"key": batch.key}, updates)["key"]
            clip = self.encoder_k.clip(frames) + self._task_prompt(self.cl_prompt, "key", batch.offsets)
            keys = self._project(self.encoder_k, clip, 1, updates)
            updates.commit()
            all_keys = self.world.gather(keys, "keys")
        hidden_number = losses.hidden_number(batch.hidden, batch.target)
        self.world.sum_([hidden_number], "loss denominator")
        return Targets(keys, all_keys, hidden_number, latent)

    @torch.no_grad()
    def predict_hidden(self, masked: Tensor, place: float = 0.5) -> Tensor:
        """The decoder's coordinates (N, T, F) for masked clips (N, T, F), in eval mode; place: of the task prompt, 0..1."""
        frames = self._encode(self.encoder_q, {"masked": masked}, RunningUpdates())["masked"]
        offsets = masked.new_full((len(PROMPT_USES),), place)
        return self._decode(frames + self._task_prompt(self.mp_prompt, "decoder", offsets), 1, RunningUpdates())

    # -- the figure -----------------------------------------------------------------------------------------------

    def forward(self, batch, targets: Targets) -> StepOutput:
        """The losses of some rows of a batch. batch: a feeder.batches.Batch, or an object with its fields; targets: of these
        rows. Running statistics are left to the caller, who may have further rows. ValueError for keys of the encoder itself
        with less than the whole batch, whose negatives they are."""
        keys, all_keys = targets.keys, targets.all_keys
        if keys is None and len(batch.key) < len(batch.all_clips):
            raise ValueError("keys of the encoder itself need the whole batch at once, in one process")
        updates, decoder_updates = RunningUpdates(), RunningUpdates()
        inputs, (first, second) = {**batch.views, "key": batch.key}, self._passes(targets)

        # 1. features of the views that are ready
        features = self._encode(self.encoder_q, {name: inputs[name] for name in first}, updates) if first else {}

        # 2. prediction of what is hidden, 3. the predicted view
        predicted, for_view, terms = self._predictions(features, batch, targets, decoder_updates)
        if second:
            inputs["predicted"] = torch.where(batch.hidden, for_view, inputs["masked"])
            features |= self._encode(self.encoder_q, {name: inputs[name] for name in second}, updates)
        seen = list(features)
        order = [seen.index(name) for name in dict.fromkeys((*CONTRASTS, *self.config.contrasts)) if name in seen]

        # 4. embeddings, 5. losses
        if keys is None:
            clip = self.encoder_q.clip(features["key"]) + self._task_prompt(self.cl_prompt, "key", batch.offsets)
            keys = all_keys = self._project(self.encoder_q, clip, 1, decoder_updates)
        contrast_terms, logits, top1 = self._contrast(features, keys, all_keys, batch, decoder_updates)
        terms = {**contrast_terms, **terms}
        total = self._total(terms)
        return StepOutput(
            loss=total,
            losses={name: value.detach() for name, value in {**terms, "total": total}.items()},
            top1=top1,
            keys=all_keys.detach(),
            logits={name: value.detach() for name, value in logits.items()},
            predicted=None if predicted is None else predicted.detach(),
            statistics=StatisticsUpdates(updates, decoder_updates, order),
        )

    @property
    def _predicts(self) -> bool:
        """Whether the decoder is needed: for its loss, or to make the predicted view."""
        return "predicted" in self.config.contrasts or self.config.prediction_weight > 0

    def _passes(self, targets: Targets) -> tuple[list[str], list[str]]:
        """Names of the views of the encoder's first pass, and of the second, which the predicted view waits for; the mixed one
        then waits with it (see the module's text)."""
        contrasts = self.config.contrasts
        needed = {"masked"} if self._predicts or targets.latent is not None else set()
        needed |= {"key"} if targets.keys is None else set()
        first = [name for name in ("query", "key", "masked", "mixed") if name in needed or name in contrasts]
        first += [name for name in contrasts if name not in CONTRASTS]
        if "predicted" not in contrasts:
            return first, []
        return [name for name in first if name != "mixed"], ["predicted", *(name for name in first if name == "mixed")]

    def _predictions(self, features: dict[str, Tensor], batch, targets: Targets, updates: RunningUpdates):
        """The prediction (n, T, F) of the masked view, the same for the predicted view (see `_predict`; None where nothing is
        predicted), and the losses of predictions by name."""
        terms, predicted, for_view = {}, None, None
        if targets.latent is not None:
            share = len(batch.key) / len(batch.all_clips)  # of the whole batch's mean
            terms["latent"] = share * losses.latent(self.latent(features["masked"]), targets.latent)
        if self._predicts:
            decoder_input = features["masked"] + self._task_prompt(self.mp_prompt, "decoder", batch.offsets)
            predicted, for_view = self._predict(decoder_input, updates)
            terms["prediction"] = losses.prediction(
                predicted, batch.target, batch.hidden, targets.hidden_number, self.config.prediction_energy
            )
        return predicted, for_view, terms

    def _total(self, terms: dict[str, Tensor]) -> Tensor:
        """The loss: the terms that count, weighed."""
        return sum(factor * terms[name] for name, factor in self.term_factors().items())

    def term_factors(self) -> dict[str, float]:
        """What each term that is trained on counts in the loss, by its name in `losses`."""
        c = self.config
        factors = {f"contrast_{name}": self._weight(name) for name in c.contrasts}
        if c.distillation and c.contrasts:
            factors["distillation"] = c.distillation_weight
        if c.prediction_weight > 0:
            factors["prediction"] = c.prediction_weight
        if c.latent_weight > 0:
            factors["latent"] = c.latent_weight
        return factors

    def _weight(self, view: str) -> float:
        """What the contrast and the distillation of a view count in the loss."""
        return self.config.view_weights.get(view, 1.0)

    def _similar(self, z: Tensor, all_keys: Tensor, batch, mixed: list[bool]) -> Tensor:
        """Similarities (views * N, K) of z (views * N, dim) to its negatives, all from one product; what is no negative, because
        it is of the clip itself, is FAR. mixed: of each view, whether it belongs to the mixing partner as well."""
        if self.config.negatives == "queue":
            return z @ self.queue
        others = self.config.negatives == "others"
        similar, whose = (z @ self.queue, self.queue_clips) if others else (z @ all_keys.T, batch.all_clips)
        own = batch.clips[:, None] == whose
        both = own | (batch.all_clips[batch.partner][:, None] == whose)
        return similar.masked_fill(torch.cat([both if of_two else own for of_two in mixed]), losses.FAR)

    def _both_ways(self, positive: Tensor, z: Tensor, similar: Tensor, of_keys: Tensor, batch) -> Tensor:
        """Contrast of a view z (N, dim) with the keys and of the keys with the view, each against all other views and keys.

        positive (N,); similar, of_keys (N, N): of z and of the keys to the keys, those of the clip itself FAR."""
        of_views = self._similar(z, z, batch, [False])
        t = self.config.contrast_t
        ways = ((similar, of_views), (similar.T, of_keys))
        return sum(losses.contrast(losses.contrast_logits(positive, torch.cat(way, dim=1), t)) for way in ways) / 2

    def _contrast(self, features: dict[str, Tensor], keys: Tensor, all_keys: Tensor, batch, updates: RunningUpdates):
        """Contrast of each view and the distillation. updates: for the head's batch norm, where it has one."""
        c = self.config
        if not c.contrasts:
            return {}, {}, {}
        clips = [
            self.encoder_q.clip(features[name]) + self._task_prompt(self.cl_prompt, name, batch.offsets)
            for name in c.contrasts
        ]
        z = self._project(self.encoder_q, torch.cat(clips), len(clips), updates)
        n, v = len(keys), len(c.contrasts)
        mixed_keys = nn.functional.normalize(
            (1 - batch.mix_lambda) * keys + batch.mix_lambda * all_keys[batch.partner], dim=1
        )
        own_key = {name: mixed_keys if name == "mixed" else keys for name in c.contrasts}
        times = len(all_keys) / n  # rows of the whole batch for one of these: a mean over these is that much too large
        of_two = [*(name == "mixed" for name in c.contrasts), False, True]
        similar = self._similar(torch.cat([z, keys, mixed_keys]), all_keys, batch, of_two)
        teacher = {
            name: similar[(v + 1) * n :] if name == "mixed" else similar[v * n : (v + 1) * n] for name in c.contrasts
        }
        terms, logits, top1, distilled = {}, {}, {}, []
        for i, name in enumerate(c.contrasts):
            rows = slice(i * n, (i + 1) * n)
            positive = (z[rows] * own_key[name]).sum(dim=1)
            logits[name] = losses.contrast_logits(positive, similar[rows], c.contrast_t)
            terms[f"contrast_{name}"] = losses.contrast(logits[name]) / times
            if c.key_encoder == "same" and name != "mixed":
                of_keys = similar[v * n : (v + 1) * n]
                terms[f"contrast_{name}"] = self._both_ways(positive, z[rows], similar[rows], of_keys, batch)
            top1[name] = losses.contrast_top1(logits[name].detach()) / times
            student = similar[rows] if c.distillation else similar[rows].detach()
            divergence = losses.distillation(student, teacher[name].detach(), c.student_t, c.teacher_t, c.topk)
            distilled.append(self._weight(name) * divergence)
        terms["distillation"] = sum(distilled) / times
        return terms, logits, top1

    def enqueue(self, keys: Tensor, clips: Tensor | None = None) -> None:
        """Puts the step's keys (N, dim) into the queue; to be called when the step is done. clips (N,): whose they are, needed
        where older keys of a clip itself do not count."""
        if self.config.negatives == "others":
            moco.enqueue(self.queue_clips[None], self.queue_ptr.clone(), clips[:, None])
        moco.enqueue(self.queue, self.queue_ptr, keys)
