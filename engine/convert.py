"""Checkpoints from one format to another: ours, released, and the encoder by itself.

    ours       everything that pretraining saved: tensors under the released names, `config` to rebuild the model, arguments
    released   `epoch` and `state_dict` of the same names, nothing else; the original code has no other encoder than the gru
    encoder    `state_dict` of the query encoder alone (input_norm.*, encoder.*), with its `config` and where it comes from; the
               classifier and its classes too, where the file has one

Tensors are handed on as they are, or those of an encoder as float16. The optimizer is left behind: its state knows
parameters by their number in the program that wrote it. A released file does not say how its model was built, but its
tensors do, all but what has no tensor (temperatures, loss weights), which becomes the paper's."""

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
)  # of the arguments, kept with an encoder


class Source:
    """A checkpoint and what is known of it. config: of its encoder; stream: of its pretraining, or None.

    UserError when it holds no encoder, the encoder cannot be built, or what is given contradicts the file."""

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
        """What is known of the run that made it."""
        known = {k: v for k, v in self.arguments.items() if k in RUN_FACTS and isinstance(v, (str, int))}
        return known | ({"stream": self.stream} if self.stream else {})

    @property
    def unsaid(self) -> dict:
        """How clips are read, by name, where it is not the paper's way: the released format has no place for it."""
        usual = EncoderConfig()
        return {name: v for name in READING if (v := getattr(self.config, name)) != getattr(usual, name)}

    def described(self) -> list[str]:
        """Lines for people: what was found."""
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
    """The content of the new file. half: the weights of an encoder as float16. UserError when the format cannot hold what the
    old one holds, or needs what it lacks."""
    content = {"ours": _ours, "released": _released, "encoder": _encoder}[to](source)
    return halved(content) if half else content


def halved(content: dict) -> dict:
    """The same with weights as float16. UserError for a weight that is too large for it."""
    out = dict(content)
    for part in ("state_dict", "fc"):
        if part in content:
            norms = "input_norm."  # a few numbers, some of them tiny, stay as they are
            out[part] = {k: v if k.startswith(norms) else v.half() for k, v in content[part].items()}
            wrong = [k for k, v in out[part].items() if not v.isfinite().all()]
            if wrong:
                raise UserError(f"--half: {wrong[0]} holds numbers that float16 cannot; leave it out")
    return out


def _epoch(source: Source) -> dict:
    return {} if source.found.epoch is None else {"epoch": source.found.epoch}


def _encoder(source: Source) -> dict:
    """The query encoder by itself, explained."""
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
    """A pretraining file that rebuilds itself; the model is built and the tensors held against it."""
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
    """The pretraining model that a file of ours describes, with its weights, on the CPU; UserError when it cannot be built."""
    try:
        model = PCM3(PCM3Config.from_dict(content["config"]))
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(f"checkpoint {path}: its model cannot be built ({error})") from None
    files.load_into(model, files.state_dict_of(content, path), path)
    return model


def _model_config(source: Source) -> PCM3Config:
    """The model's configuration, read off the tensors of a released file."""
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
