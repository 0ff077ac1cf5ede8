"""The PCM3 pretraining model: prompted contrast with masked motion modeling (Zhang, Lin, Liu, ACM MM 2023).

Input: the views of a batch (feeder.batches.Batch) and their targets. Output: the losses, and the keys for the queue
(`StepOutput`). The parts are the other modules of this package; the training algorithm is in engine.step. `PCM3.forward`
follows the paper's figure:

    query   -> encoder ------------------------------> head -> z      contrast and distillation against the queue
    masked  -> encoder -+----------------------------> head -> z
                        +-> decoder -> prediction                     error of the hidden coordinates
                              +-> predicted view -> encoder -> head -> z
    mixed   -> encoder ------------------------------> head -> z
    (own)   -> encoder ------------------------------> head -> z      views that the paper does not have (feeder.views)
    key     -> key encoder --------------------------> head -> k      no gradient; enqueued after the step

The encoder runs twice: first on the query and the masked view together, then on the predicted view, which needs the first
pass, together with the mixed view. Two passes of two views are faster than one of three and one of one, because matrix
products with few rows are slow. The decoder reads the masked features twice, stacked as two views: with their gradient
(the prediction loss trains decoder and encoder) and detached (the predicted view's contrast trains the decoder, and the
encoder only through the second pass). Both have equal values and both update the decoder's norm, as released.

With several processes (`set_world`) each has its own rows of the batch. Norms and keys are those of the whole batch, and
the losses are this process's part of the whole batch's: their sum over the processes is what one process computes.

There are two ways to need less memory. `forward` can take a part of the rows (engine.step runs forward and backward on one
part after the other). Keys (including those of mixing partners), queue, number of hidden coordinates and running statistics
are then still those of the whole batch; the batch statistics of the norms (input norm, decoder's norm, any norm within the
backbone) are those of the part, over all processes. `set_recompute` computes the backbone's activations a second time
instead of keeping them; batch statistics stay those of the whole batch, so that results differ in rounding only.
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
RENAMED = {"cmd_weight": "distillation_weight"}  # older name -> name, of settings and of saved arguments


@dataclass(frozen=True)
class PCM3Config:
    """The sizes of the model and which parts of the method are used; the defaults are the paper's run with prompts.

    negatives: what a clip is contrasted with: "queue", the whole queue, as released; "others", the queue without older keys
    of the same clip, which are many where the data set is small; "batch", the keys of the other clips of the batch.
    key_encoder: "slow", a momentum copy, as released; "same", with "batch" only: the encoder itself computes the keys, with
    gradient, and view and key are each contrasted with the views and keys of all other clips (SimCLR, Chen et al. 2020, for
    each of the views). contrasts: the views that are contrasted and distilled; view_weights: loss weights of views, default
    1; own_views: domain prompt (a value of DOMAIN_OF_VIEW) of each contrast that the paper does not have; distillation,
    prediction_weight, distillation_weight: loss terms (0 or False = logged, not trained); detach_predicted: do not train
    the decoder by the predicted view's contrast (as released for PCM3_woprompt); topk: number of negatives in the
    distillation (all, if there are no more than topk); train_both_sides: contrast the clip feature of both sides, as an
    encoder with `both_sides` computes it downstream, for twice the time; otherwise that of the view alone. (The decoder
    reads the view alone in any case.)

    Two additions to the paper: prediction_energy (0..1): how much more the error of moving coordinates counts
    (losses.energy_weights); latent_weight: loss weight of a small network that predicts, frame by frame from the features
    of the masked view, the key encoder's features of the whole clip."""

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
    train_both_sides: bool = False

    def __post_init__(self):
        for name in self.contrasts:
            if name not in CONTRASTS and self.own_views.get(name) not in DOMAIN_PROMPTS:
                raise ValueError(f"view {name!r} needs a domain prompt, one of {', '.join(DOMAIN_PROMPTS)}")
        for name, weight in self.view_weights.items():
            if name not in self.contrasts or not 0 <= weight < math.inf:
                raise ValueError(
                    f"expected weights of at least 0 for the views {', '.join(self.contrasts) or '(none)'}, got {name}={weight}"
                )
        if self.negatives not in NEGATIVES or self.key_encoder not in KEY_ENCODERS:
            raise ValueError(
                f"expected negatives to be one of {', '.join(NEGATIVES)} and key_encoder one of {', '.join(KEY_ENCODERS)}, "
                f"got {self.negatives!r} and {self.key_encoder!r}"
            )
        check_prompt_place(self.prompt_place)
        if self.train_both_sides and not self.encoder.both_sides:
            raise ValueError("train_both_sides needs an encoder that reads both sides (both_sides)")
        if self.key_encoder == "same" and self.negatives != "batch":
            raise ValueError("key_encoder 'same' needs negatives 'batch': keys in a queue have no gradient")

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "PCM3Config":
        """The configuration from the output of `to_dict` of this or an older version. TypeError or ValueError for unknown
        fields."""
        values = {RENAMED.get(name, name): value for name, value in values.items()}
        encoder = EncoderConfig.from_dict(values.pop("encoder"))
        return cls(encoder=encoder, **{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


@dataclass(frozen=True)
class Targets:
    """Targets of the losses, for n rows of a batch of N. keys (n, dim): of the rows; all_keys (N, dim): of the whole batch;
    both None if the encoder itself computes the keys (together with the other views); hidden_number (): number of hidden
    coordinates in the whole batch; latent (n, T, D): features of the rows' whole clips, or None."""

    keys: Tensor | None
    all_keys: Tensor | None
    hidden_number: Tensor
    latent: Tensor | None = None

    def rows(self, rows: slice) -> "Targets":
        """The targets of a part of the rows."""
        keys, latent = (None if value is None else value[rows] for value in (self.keys, self.latent))
        return replace(self, keys=keys, latent=latent)


@dataclass
class StatisticsUpdates:
    """Pending updates of running statistics, applied at the end of the step: those of the encoder, view by view in `order`,
    and those of decoder and head."""

    encoder: RunningUpdates
    decoder: RunningUpdates
    order: list[int]

    @classmethod
    def pooled(cls, parts: list["StatisticsUpdates"]) -> "StatisticsUpdates":
        """The updates for the whole batch, from those of its parts."""
        encoder = RunningUpdates.pooled([part.encoder for part in parts])
        decoder = RunningUpdates.pooled([part.decoder for part in parts])
        return cls(encoder, decoder, parts[0].order)

    def commit(self) -> None:
        self.encoder.commit(self.order)
        self.decoder.commit()


@dataclass
class StepOutput:
    """loss (): to call backward on; losses, top1: by name, detached, for logs; keys (N, dim): to enqueue after the step;
    logits: by view, detached (n, 1 + K); predicted (n, T, F): the decoder's output, detached, or None; statistics: to
    commit after the pass.

    For a part of the rows of a batch, loss, losses and top1 are this part's share (the shares add up to the values of the
    whole batch), keys are those of the whole batch, logits and predicted those of the rows."""

    loss: Tensor
    losses: dict[str, Tensor]
    top1: dict[str, Tensor]
    keys: Tensor
    logits: dict[str, Tensor]
    predicted: Tensor | None
    statistics: StatisticsUpdates

    @classmethod
    def joined(cls, parts: list["StepOutput"]) -> "StepOutput":
        """The output of the whole batch, from those of its parts, without a graph. Part k of K has the rows k, k + K, ..."""

        def added(values: list[dict[str, Tensor]]) -> dict[str, Tensor]:
            return {name: sum(v[name] for v in values) for name in values[0]}

        def interleaved(rows: list[Tensor]) -> Tensor:
            return torch.stack(rows, dim=1).flatten(0, 1)

        predicted = [part.predicted for part in parts if part.predicted is not None]
        return cls(
            loss=sum(part.loss.detach() for part in parts),
            losses=added([part.losses for part in parts]),
            top1=added([part.top1 for part in parts]),
            keys=parts[0].keys,
            logits={name: interleaved([part.logits[name] for part in parts]) for name in parts[0].logits},
            predicted=interleaved(predicted) if predicted else None,
            statistics=StatisticsUpdates.pooled([part.statistics for part in parts]),
        )


class PCM3(nn.Module):
    """The pretraining model. Parameters and buffers have the names of the released checkpoints."""

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
        if config.negatives == "others":  # the clip of each key; -1 for the random keys that the queue begins with
            self.register_buffer("queue_clips", torch.full((config.queue_size,), -1))
        self.sides = 2 if config.train_both_sides else 1
        self.compute_dtype: torch.dtype | None = None
        self.world = World()

    # -- settings and parts ---------------------------------------------------------------------------------------

    def set_compute_dtype(self, dtype: torch.dtype | None) -> None:
        """Sets the type of the operands of the large matrix products (recurrent layers, head, decoder); None: as the weights.
        Weights, states, norms, similarities and losses stay float32, because training depends on small differences."""
        for module in self.modules():
            if hasattr(module, "compute_dtype"):
                module.compute_dtype = dtype

    def set_world(self, world: World) -> None:
        """Sets the processes that share each batch. ValueError for a batch norm that would only see this process's rows."""
        for name, module in self.named_modules():
            if hasattr(module, "world"):
                module.world = world
            elif world.size > 1 and isinstance(module, nn.modules.batchnorm._BatchNorm):
                raise ValueError(
                    f"{name} ({type(module).__name__}) does not work with several processes; use models.norm.ViewNorm"
                )

    def set_recompute(self, pieces: int) -> None:
        """Activation checkpointing: keeps only input and output of the encoder's passes and computes the rest again in the
        backward pass, each view in `pieces` pieces; 0 = off. ValueError for a backbone with batch norms, which need all
        rows at once."""
        if pieces and any(isinstance(module, ViewNorm) for module in self.encoder_q.encoder.modules()):
            raise ValueError("the backbone has batch norms, whose statistics need all rows of a view at once")
        self.encoder_q.recompute = pieces

    def _low_precision(self):
        if self.compute_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.queue.device.type, dtype=self.compute_dtype)

    def _encode(self, encoder: Encoder, views: dict[str, Tensor], updates: RunningUpdates) -> dict[str, Tensor]:
        """Frame features (S * N, T, D) of each view (N, T, F), computed in one pass; with `train_both_sides` S is 2: the rows of
        the view come first, those of its mirror image after them."""
        prompts = None
        sides = {name: torch.cat(encoder.sides(x)) if self.config.train_both_sides else x for name, x in views.items()}
        if self.config.domain_prompts:
            domains = {**DOMAIN_OF_VIEW, **self.config.own_views}
            chosen = [getattr(self, DOMAIN_PROMPTS[domains[name]]) for name in views]
            prompts = torch.cat([p.expand(len(x), 1, -1) for p, x in zip(chosen, sides.values(), strict=True)])
        x = torch.cat(list(sides.values())) if len(sides) > 1 else next(iter(sides.values()))
        frames = encoder.frames(x, prompts, self.config.prompt_place, len(views), updates)
        return dict(zip(views, frames.chunk(len(views)), strict=True))

    def _one_side(self, frames: Tensor) -> Tensor:
        """Frame features (S * N, T, D) of a view -> those of the view as it is, (N, T, D)."""
        return frames.chunk(self.sides)[0]

    def _clip(self, encoder: Encoder, frames: Tensor) -> Tensor:
        """Frame features (S * N, T, D) of a view -> its clip feature (N, P)."""
        return encoder.joined(list(encoder.clip(frames).chunk(self.sides)))

    def _task_prompt(self, prompt: Tensor, use: str, offsets: Tensor) -> Tensor | float:
        """What is added to frame features (D,) or clip features (P,) for a use of the task prompt; 0 if prompts are off."""
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
        """The prediction for the prediction loss, and the same for the predicted view (see the module's docstring)."""
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
        """The momentum update of the key encoder; a plain copy of the encoder if no momentum encoder is needed."""
        slow = self.config.key_encoder == "slow" or self.config.latent_weight > 0
        momentum = self.config.key_momentum if slow else 0.0
        moco.momentum_update(self.encoder_q, self.encoder_k, momentum)

    @torch.no_grad()
    def targets(self, batch) -> Targets:
        """The targets of this process's rows of a batch (see `forward`): keys by the key encoder, gathered from all
        processes, and the number of hidden coordinates in the whole batch."""
        keys = all_keys = latent = None
        if self.config.latent_weight > 0:
            latent = self._one_side(self._encode(self.encoder_k, {"key": batch.target}, RunningUpdates())["key"])
        if self.config.key_encoder == "slow":
            updates = RunningUpdates()
            frames = self._encode(self.encoder_k, {"key": batch.key}, updates)["key"]
            clip = self._clip(self.encoder_k, frames) + self._task_prompt(self.cl_prompt, "key", batch.offsets)
            keys = self._project(self.encoder_k, clip, 1, updates)
            updates.commit()
            all_keys = self.world.gather(keys, "keys")
        hidden_number = losses.hidden_number(batch.hidden, batch.target)
        self.world.sum_([hidden_number], "loss denominator")
        return Targets(keys, all_keys, hidden_number, latent)

    @torch.no_grad()
    def predict_hidden(self, masked: Tensor, place: float = 0.5) -> Tensor:
        """Predicted coordinates (N, T, F) of masked clips (N, T, F), in eval mode; place: offset of the task prompt, 0..1."""
        frames = self._one_side(self._encode(self.encoder_q, {"masked": masked}, RunningUpdates())["masked"])
        offsets = masked.new_full((len(PROMPT_USES),), place)
        return self._decode(frames + self._task_prompt(self.mp_prompt, "decoder", offsets), 1, RunningUpdates())

    # -- the paper's figure ---------------------------------------------------------------------------------------

    def forward(self, batch, targets: Targets) -> StepOutput:
        """The losses of a batch or of a part of its rows. batch: a feeder.batches.Batch, or an object with its fields;
        targets: of these rows. The caller commits the running statistics, once all parts are done. ValueError if the
        encoder itself computes the keys, which are the negatives, and the rows are not the whole batch."""
        keys, all_keys = targets.keys, targets.all_keys
        if keys is None and len(batch.key) < len(batch.all_clips):
            raise ValueError("key_encoder 'same' needs the whole batch at once, in one process")
        updates, decoder_updates = RunningUpdates(), RunningUpdates()
        inputs, (first, second) = {**batch.views, "key": batch.key}, self._passes(targets)

        # 1. features of the views that need no prediction
        features = self._encode(self.encoder_q, {name: inputs[name] for name in first}, updates) if first else {}

        # 2. prediction of the hidden coordinates, 3. the predicted view
        predicted, for_view, terms = self._predictions(features, batch, targets, decoder_updates)
        if second:
            inputs["predicted"] = torch.where(batch.hidden, for_view, inputs["masked"])
            features |= self._encode(self.encoder_q, {name: inputs[name] for name in second}, updates)
        seen = list(features)
        order = [seen.index(name) for name in dict.fromkeys((*CONTRASTS, *self.config.contrasts)) if name in seen]

        # 4. embeddings, 5. losses
        if keys is None:
            clip = self._clip(self.encoder_q, features["key"]) + self._task_prompt(self.cl_prompt, "key", batch.offsets)
            keys = all_keys = self._project(self.encoder_q, clip, 1, decoder_updates)
        contrast_terms, logits, top1 = self._contrast(features, keys, all_keys, batch, decoder_updates)
        terms = {**contrast_terms, **terms}
        total = sum(factor * terms[name] for name, factor in self.term_factors().items())
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
        """Whether the decoder is needed, for its loss or for the predicted view."""
        return "predicted" in self.config.contrasts or self.config.prediction_weight > 0

    def _passes(self, targets: Targets) -> tuple[list[str], list[str]]:
        """Names of the views in the encoder's first pass and in its second, which has the predicted view, if there is one,
        and the mixed view (see the module's docstring)."""
        contrasts = self.config.contrasts
        needed = {"masked"} if self._predicts or targets.latent is not None else set()
        needed |= {"key"} if targets.keys is None else set()
        first = [name for name in ("query", "key", "masked", "mixed") if name in needed or name in contrasts]
        first += [name for name in contrasts if name not in CONTRASTS]
        if "predicted" not in contrasts:
            return first, []
        return [name for name in first if name != "mixed"], ["predicted", *(name for name in first if name == "mixed")]

    def _predictions(self, features: dict[str, Tensor], batch, targets: Targets, updates: RunningUpdates):
        """The prediction (n, T, F) from the masked view, the same for the predicted view (see `_predict`; both None if
        nothing is predicted), and the prediction losses by name."""
        terms, predicted, for_view = {}, None, None
        masked = self._one_side(features["masked"]) if "masked" in features else None
        if targets.latent is not None:
            share = len(batch.key) / len(batch.all_clips)  # of these rows in the whole batch's mean
            terms["latent"] = share * losses.latent(self.latent(masked), targets.latent)
        if self._predicts:
            decoder_input = masked + self._task_prompt(self.mp_prompt, "decoder", batch.offsets)
            predicted, for_view = self._predict(decoder_input, updates)
            terms["prediction"] = losses.prediction(
                predicted, batch.target, batch.hidden, targets.hidden_number, self.config.prediction_energy
            )
        return predicted, for_view, terms

    def term_factors(self) -> dict[str, float]:
        """The weight of each term that is trained on, by its name in `StepOutput.losses`."""
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
        """The loss weight of a view's contrast and distillation."""
        return self.config.view_weights.get(view, 1.0)

    def _similarities(self, z: Tensor, all_keys: Tensor, batch, mixed: list[bool]) -> Tensor:
        """Similarities (views * N, K) of z (views * N, dim) to its negatives, from one matrix product. Keys of the same clip
        are no negatives: they get NO_NEGATIVE. mixed: for each view, whether it also holds the mixing partner."""
        if self.config.negatives == "queue":
            return z @ self.queue
        others = self.config.negatives == "others"
        similar, key_clips = (z @ self.queue, self.queue_clips) if others else (z @ all_keys.T, batch.all_clips)
        own = batch.clips[:, None] == key_clips
        own_or_partner = own | (batch.all_clips[batch.partner][:, None] == key_clips)
        same_clip = torch.cat([own_or_partner if is_mixed else own for is_mixed in mixed])
        return similar.masked_fill(same_clip, losses.NO_NEGATIVE)

    def _symmetric_contrast(self, positive: Tensor, z: Tensor, similar: Tensor, of_keys: Tensor, batch) -> Tensor:
        """Contrast of a view with its keys and of the keys with the view, each against all other views and keys; the mean.

        positive (N,): similarity of view and key; z (N, dim): the view; similar, of_keys (N, N): similarities of the view
        and of the keys to the keys, NO_NEGATIVE for keys of the same clip."""
        of_views = self._similarities(z, z, batch, [False])
        t = self.config.contrast_t
        directions = ((similar, of_views), (similar.T, of_keys))
        logits = [losses.contrast_logits(positive, torch.cat(pair, dim=1), t) for pair in directions]
        return sum(losses.contrast(one) for one in logits) / 2

    def _contrast(self, features: dict[str, Tensor], keys: Tensor, all_keys: Tensor, batch, updates: RunningUpdates):
        """The loss terms of each view's contrast and of the distillation, and logits and top-1 by view. updates: for the
        head's batch norm, if it has one."""
        c = self.config
        if not c.contrasts:
            return {}, {}, {}
        clips = [
            self._clip(self.encoder_q, features[name]) + self._task_prompt(self.cl_prompt, name, batch.offsets)
            for name in c.contrasts
        ]
        z = self._project(self.encoder_q, torch.cat(clips), len(clips), updates)
        mixed_keys = (1 - batch.mix_lambda) * keys + batch.mix_lambda * all_keys[batch.partner]
        mixed_keys = nn.functional.normalize(mixed_keys, dim=1)
        parts = len(all_keys) / len(keys)  # these rows are one of `parts`: their share of a mean is their mean / parts
        mixed = [*(name == "mixed" for name in c.contrasts), False, True]
        similar = self._similarities(torch.cat([z, keys, mixed_keys]), all_keys, batch, mixed)
        n, v = len(keys), len(c.contrasts)
        # rows of `similar`, behind those of the views
        of_keys, of_mixed_keys = slice(v * n, (v + 1) * n), slice((v + 1) * n, None)
        terms, logits, top1, distilled = {}, {}, {}, []
        for i, name in enumerate(c.contrasts):
            rows = slice(i * n, (i + 1) * n)
            own_keys, teacher = (mixed_keys, of_mixed_keys) if name == "mixed" else (keys, of_keys)
            positive = (z[rows] * own_keys).sum(dim=1)
            logits[name] = losses.contrast_logits(positive, similar[rows], c.contrast_t)
            terms[f"contrast_{name}"] = losses.contrast(logits[name]) / parts
            if c.key_encoder == "same" and name != "mixed":
                of_view, of_key = similar[rows], similar[of_keys]
                terms[f"contrast_{name}"] = self._symmetric_contrast(positive, z[rows], of_view, of_key, batch)
            top1[name] = losses.contrast_top1(logits[name].detach()) / parts
            student = similar[rows] if c.distillation else similar[rows].detach()
            divergence = losses.distillation(student, similar[teacher].detach(), c.student_t, c.teacher_t, c.topk)
            distilled.append(self._weight(name) * divergence)
        terms["distillation"] = sum(distilled) / parts
        return terms, logits, top1

    def enqueue(self, keys: Tensor, clips: Tensor | None = None) -> None:
        """Puts the step's keys (N, dim) into the queue; call it after the optimizer's step. clips (N,): the keys' clips,
        needed for the negatives "others"."""
        if self.config.negatives == "others":
            moco.enqueue(self.queue_clips[None], self.queue_ptr.clone(), clips[:, None])
        moco.enqueue(self.queue, self.queue_ptr, keys)
