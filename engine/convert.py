"""Converts checkpoints between three formats: ours, released, and the encoder alone.

    ours       everything that pretraining saved: tensors under the released names, `config` to rebuild the model, arguments
    released   `epoch` and `state_dict` with the same names, nothing else; the original code has the gru encoder only
    encoder    `state_dict` of the query encoder alone (input_norm.*, encoder.*), with its `config` and its origin; also the
               classifier and its classes, if the file has one

Tensors are copied unchanged; those of an encoder may be stored as float16. The optimizer is dropped: its state identifies
parameters by their position in the program that wrote it. A released file has no configuration; it is inferred from the shapes
of its tensors, and what has no tensor (temperatures, loss weights) gets the paper's value."""

from collections.abc import Mapping

from torch import Tensor

from engine.encoders import build_encoder, frame_of
from models.encoder import EncoderConfig
from models.pcm3 import PCM3, PCM3Config
from options.backbones import READING
from utils import checkpoint as files
from utils.checkpoint_schema import FIELDS
from utils.errors import UserError
from utils.names import SIZES
from utils.run_folder import versions

RUN_FACTS = (
    "stream",
    "pre_dataset",
    "dataset",
    "protocol",
    "seed",
    "exp_descri",
)  # the arguments that an encoder file keeps


class Source:
    """A checkpoint to convert. config: of its encoder; stream: of its pretraining, or None if unknown.

    UserError when it holds no encoder, when the encoder cannot be built, or when the given stream, layout or persons contradict
    the file."""

    def __init__(self, path, stream: str | None = None, layout: str | None = None, persons: int | None = None):
        self.path = path
        self.content = files.load(path)
        self.found = files.find_encoder(self.content, path)
        of_frame, number = frame_of(self.found, path, layout, persons)
        built = build_encoder(self.found, path, of_frame, number, stream, None).encoder
        self.config, self.feature_size, self.clip_size = built.config, built.feature_size, built.clip_size
        self.state = files.state_dict_of(self.content, path)
        self.arguments = dict(self.found.arguments)
        self.stream = stream or self.arguments.get("stream")
        self.is_pretraining = {"queue", "queue_ptr", "base_prompt"} <= set(self.state)

    @property
    def facts(self) -> dict:
        """The known arguments of the run that made it."""
        known = {k: v for k, v in self.arguments.items() if k in RUN_FACTS and isinstance(v, (str, int))}
        return known | ({"stream": self.stream} if self.stream else {})

    @property
    def unstorable(self) -> dict:
        """Pooling, sides and scaling, where they differ from the paper's: the released format cannot store them."""
        usual = EncoderConfig()
        return {name: v for name in READING if (v := getattr(self.config, name)) != getattr(usual, name)}

    def described(self) -> list[str]:
        """A description of the checkpoint, as lines of text."""
        c, state = self.config, self.state
        sizes = ", ".join(f"{name} {value}" for name, value in c.sizes.items())
        rest = []
        if "queue" in state and state["queue"].dim() == 2:
            rest.append(f"queue of {state['queue'].shape[1]}")
        if any(k.startswith("recons_decoder.") for k in state):
            rest.append("decoder")
        if "base_prompt" in state:
            rest.append("prompts")
        for name, word in (("optimizer", "optimizer"), ("fc", "classifier")):
            rest += [word] if self.content.get(name) else []
        data = self.arguments.get("pre_dataset") or self.arguments.get("dataset")
        if data and "protocol" in self.arguments:
            data = f"{data} {self.arguments['protocol']}"
        unknown = "the file does not say"
        own = sum(v.numel() for v in self.found.state.values())
        return [
            f"kind      {self.found.kind}",
            f"backbone  {c.backbone} ({sizes}), features of {self.feature_size} numbers",
            f"frames    {c.layout}, {c.persons} person{'s' * (c.persons > 1)}: {c.input_size} numbers",
            f"stream    {self.stream or unknown}",
            f"clips     pooled by {c.pool or 'the backbone'} to {self.clip_size} numbers, scaled by {c.scale_by}"
            + (", read from both sides" if c.both_sides else ""),
            f"epoch     {unknown if self.found.epoch is None else self.found.epoch}",
            f"data set  {data or unknown}",
            f"tensors   {own:,} numbers in the encoder, {sum(v.numel() for v in state.values()):,} in all"
            + (f"; beside it: {', '.join(rest)}" if rest else ""),
        ]


def converted(source: Source, to: str, half: bool = False) -> dict:
    """The content of the new file. half: store the weights of an encoder as float16. UserError when the target format cannot store
    the checkpoint, or needs something that it lacks."""
    content = {"ours": _ours, "released": _released, "encoder": _encoder}[to](source)
    return halved(content) if half else content


def halved(content: dict) -> dict:
    """The same content with weights as float16. UserError for a weight beyond its range."""
    out = dict(content)
    for part in ("state_dict", "fc"):
        if part in content:
            norms = "input_norm."  # few numbers, some of them tiny: they stay float32
            out[part] = {k: v if k.startswith(norms) else v.half() for k, v in content[part].items()}
            wrong = [k for k, v in out[part].items() if not v.isfinite().all()]
            if wrong:
                raise UserError(f"--half: {wrong[0]} holds numbers that float16 cannot; leave it out")
    return out


def _epoch(source: Source) -> dict:
    return {} if source.found.epoch is None else {"epoch": source.found.epoch}


def _encoder(source: Source) -> dict:
    """The query encoder alone, with configuration and origin."""
    classifier = {name: source.content[name] for name in ("fc", "classes", "novelty") if source.content.get(name)}
    return {
        "format": files.FORMAT,
        **_epoch(source),
        **classifier,
        "state_dict": source.found.state,
        "config": {"encoder": source.config.to_dict()},
        "arguments": source.facts,
        "versions": versions(),
    }


def _released(source: Source) -> dict:
    if source.config.backbone != "gru":
        raise UserError(
            f"checkpoint {source.path}: its encoder is a {source.config.backbone}, which the released code does not have (it "
            "reads gru encoders only); give --to encoder"
        )
    state = source.state
    if not any(name.startswith("encoder_q.") for name in state):
        state = {f"encoder_q.{name}": value for name, value in source.found.state.items()}
    return {**_epoch(source), "state_dict": state}


def _ours(source: Source) -> dict:
    """A pretraining file with configuration; checked by building the model and loading the tensors into it."""
    kept = FIELDS.keys() - {"state_dict", "optimizer", "progress"}
    content = {k: v for k, v in source.content.items() if k in kept}
    if not source.is_pretraining:
        raise UserError(
            f"checkpoint {source.path} ({source.found.kind}): it holds no queue and no prompts, so it is no pretraining file; give "
            "--to encoder"
        )
    if source.found.kind != "pcm3":
        content = {"format": files.FORMAT, **_epoch(source), "config": _model_config(source).to_dict()}
        content |= {"arguments": source.facts, "versions": versions()}
    content["state_dict"] = source.state
    if source.stream:
        content["arguments"] = {**source.arguments, **content["arguments"], "stream": source.stream}
    build_model(content, source.path)
    return content


def build_model(content: dict, path) -> PCM3:
    """The pretraining model of a checkpoint in our format, with its weights, on the CPU; UserError when it cannot be built."""
    try:
        model = PCM3(PCM3Config.from_dict(content["config"]))
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"checkpoint {path}: its model cannot be built ({error})") from None
    files.load_into(model, files.state_dict_of(content, path), path)
    return model


def _model_config(source: Source) -> PCM3Config:
    """The model's configuration, inferred from the tensors of a released file."""
    state, path = source.state, source.path
    mlp = "encoder_q.fc.2.weight" in state
    last = _tensor(state, "encoder_q.fc.2.weight" if mlp else "encoder_q.fc.weight", 2, path)
    own = {name: getattr(source.config, name) for name in SIZES if name in source.config.sizes}
    frame = {name: getattr(source.config, name) for name in ("backbone", "layout", "joints", "persons")}
    return PCM3Config(
        encoder=EncoderConfig(**frame, **own, dim=last.shape[0], mlp=mlp),
        queue_size=_tensor(state, "queue", 2, path).shape[1],
        decoder_hidden_size=_tensor(state, "recons_decoder.decoder.weight_hh_l0", 2, path).shape[1],
    )


def _tensor(state: Mapping[str, Tensor], name: str, dims: int, path) -> Tensor:
    """A tensor of the state; UserError when it is missing or has other dimensions."""
    if name not in state or state[name].dim() != dims:
        raise UserError(f"checkpoint {path}: it lacks {name}, so it is no pretraining file of PCM3; give --to encoder")
    return state[name]
