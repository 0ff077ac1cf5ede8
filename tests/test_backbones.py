"""Every backbone has the common interface and works in every program: shapes, causality, gradients, views, files."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_runs
import torch
from make_tiny import write_tiny_dataset, write_tiny_videos
from processes import Processes
from programs import call, refused
from tiny_runs import pretraining

import action_classification
import action_detection
import action_retrieval
import motion_prediction
from engine.encoders import fit_norm, random_encoder
from models.attention import Attention
from models.backbones import BACKBONES
from models.bigru import BidirectionalGRU
from models.encoder import Encoder, EncoderConfig
from models.norm import RunningUpdates, ViewNorm
from models.pcm3 import PCM3, PCM3Config
from models.stgcn import neighbours
from options import backbones as flags
from options.pretraining import build_parser
from tools import visualize
from utils import checkpoint as files
from utils.distributed import World
from utils.skeleton import LAYOUTS, get_layout

ROOT = Path(__file__).resolve().parent.parent
ATTENTIVE = {"width": 32, "depth": 2, "heads": 2, "mlp_ratio": 2.0}
VARIANTS = {
    "gru": {"backbone": "gru", "hidden_size": 16, "num_layers": 2},
    "bigru": {"backbone": "bigru", "hidden_size": 16, "num_layers": 2},
    "transformer": {"backbone": "transformer", **ATTENTIVE},
    "causal transformer": {"backbone": "transformer", **ATTENTIVE, "causal": True},
    "st_transformer": {"backbone": "st_transformer", **ATTENTIVE},
    "joint parts": {"backbone": "st_transformer", **ATTENTIVE, "tokens": "parts", "attention": "joint"},
    "causal st_transformer": {"backbone": "st_transformer", **ATTENTIVE, "tokens": "parts", "causal": True},
    "causal joint": {
        "backbone": "st_transformer",
        **ATTENTIVE,
        **{"tokens": "parts", "attention": "joint", "causal": True, "patch_frames": 3},
    },
    "causal frames": {"backbone": "st_transformer", **ATTENTIVE, "tokens": "parts", "causal": True, "patch_frames": 1},
    "stgcn": {"backbone": "stgcn", "width": 16, "depth": 3},
}
CAUSAL = [name for name, sizes in VARIANTS.items() if sizes.get("causal") or name == "gru"]


def config(name: str, layout: str = "kinect_v2_25", persons: int = 2) -> EncoderConfig:
    return EncoderConfig(layout=layout, joints=LAYOUTS[layout].joints, persons=persons, dim=8, **VARIANTS[name])


def new(name: str, *frame) -> Encoder:
    return random_encoder(config(name, *frame), 3)


def clips(n: int, frames: int, size: int = 150) -> torch.Tensor:
    return torch.randn(n, frames, size, generator=torch.Generator().manual_seed(n * frames))


def test_every_backbone_is_tested():
    assert {sizes["backbone"] for sizes in VARIANTS.values()} == set(BACKBONES)


# -- the contract ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [("kinect_v2_25", 2), ("sbu_15", 1), ("smpl_24", 3)])
@pytest.mark.parametrize("name", VARIANTS)
def test_shapes(name, frame):
    encoder = new(name, *frame)
    size = LAYOUTS[frame[0]].joints * 3 * frame[1]
    assert encoder.feature_size % 16 == 0
    for length in (64, 30, 2, 1, 70):
        frames = encoder.frames(clips(2, length, size))
        assert frames.shape == (2, length, encoder.feature_size) and frames.isfinite().all()
        assert encoder.clip(frames).shape == (2, encoder.feature_size)


@pytest.mark.parametrize("length, change", [(64, 37), (150, 100)])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_change_in_a_later_frame(name, length, change):
    """It does not change earlier outputs of a backbone that is causal, and changes those of one that is not."""
    encoder, x = new(name), clips(2, length)
    other = x.clone()
    other[:, change:] += 1.0
    with torch.no_grad():
        before, after = encoder.frames(x), encoder.frames(other)
    assert encoder.causal == (name in CAUSAL)
    assert not torch.equal(before[:, change + 3 :], after[:, change + 3 :])
    assert torch.equal(before[:, :change], after[:, :change]) == encoder.causal


@pytest.mark.parametrize("name", CAUSAL)
def test_features_of_a_prefix(name):
    """A causal encoder computes the same features for the first frames alone as within the clip."""
    encoder, x = new(name), clips(2, 90)
    with torch.no_grad():
        whole = encoder.frames(x)
        for length in (2, 3, 64, 77):
            torch.testing.assert_close(encoder.frames(x[:, :length]), whole[:, :length])
            torch.testing.assert_close(encoder(x[:, :length]), whole[:, length - 1])


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_reach_every_parameter(name):
    encoder, x = new(name).train(), clips(3, 64)
    frames = encoder.frames(x)
    (frames * clips(3, 64, encoder.feature_size)).sum().backward()
    for parameter, value in encoder.named_parameters():
        assert value.grad is not None and value.grad.isfinite().all() and value.grad.abs().max() > 0, parameter


@pytest.mark.parametrize("name", VARIANTS)
def test_views_are_independent(name):
    """Two views in one call have the features and statistics of two calls, at any scale of the views."""
    a, b = clips(3, 16), 5 * clips(3, 16).flip(0) + 2
    together, apart = new(name).train(), new(name).train()
    updates = RunningUpdates()
    frames = together.frames(torch.cat([a, b]), views=2, updates=updates)
    updates.commit([1, 0])
    expected = {1: apart.frames(b), 0: apart.frames(a)}  # in the order of the updates of statistics
    torch.testing.assert_close(frames, torch.cat([expected[0], expected[1]]), rtol=1e-4, atol=1e-5)
    for (key, x), y in zip(together.state_dict().items(), apart.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6, msg=key)


@pytest.mark.parametrize("name", VARIANTS)
def test_low_precision(name):
    encoder, x = new(name), clips(2, 32)
    with torch.no_grad():
        exact = encoder.frames(x)
        encoder.set_compute_dtype(torch.bfloat16)
        low = encoder.frames(x)
        encoder.set_compute_dtype(None)
        assert torch.equal(encoder.frames(x), exact)
    assert low.dtype == torch.float32 and not torch.equal(low, exact)
    assert (low - exact).norm() < 0.05 * exact.norm()
    assert encoder.double().frames(x.double()).dtype == torch.float64


# -- single backbones -------------------------------------------------------------------------------------------------


def test_the_bidirectional_gru_is_torch_s():
    ours, twin = BidirectionalGRU(6, 16, 2), torch.nn.GRU(6, 16, 2, batch_first=True, bidirectional=True)
    with torch.no_grad():
        for layer in range(2):
            for suffix, part in (("", ours.onward[layer]), ("_reverse", ours.backward_in_time[layer])):
                for parameter, value in part.named_parameters():
                    getattr(twin, parameter.replace("_l0", f"_l{layer}") + suffix).copy_(value)
        x = clips(3, 9, 6)
        frames, last = twin(x)
        torch.testing.assert_close(ours(x), frames)
        torch.testing.assert_close(ours.pool(ours(x)), torch.cat([last[2], last[3]], dim=1))


@pytest.mark.parametrize("per_step", [1, 3])
def test_attention_in_blocks_is_attention_with_a_mask(per_step):
    """The slow reference: all products, with those outside of the reach masked."""
    torch.manual_seed(0)
    layer = Attention(16, 2, reach=4)
    torch.nn.init.normal_(layer.distance)
    x = torch.randn(2, 11 * per_step, 16)
    q, k, v = layer.qkv(x).reshape(2, -1, 3, 2, 8).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-1, -2) / 8**0.5
    for i in range(x.shape[1]):
        for j in range(x.shape[1]):
            back = i // per_step - j // per_step
            scores[..., i, j] += layer.distance[:, back] if 0 <= back < 4 else float("-inf")
    expected = layer.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape))
    torch.testing.assert_close(layer(x, per_step), expected)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_graph_of_a_layout(name):
    parents = get_layout(name).parents
    own, towards, away = neighbours(parents)
    joint = next(i for i, p in enumerate(parents) if p != i)
    assert torch.equal(own, torch.eye(len(parents)))
    assert towards[joint].nonzero().flatten().tolist() == [parents[joint]]
    assert away[parents[joint], joint] > 0
    children = torch.tensor([sum(p == i for j, p in enumerate(parents) if j != i) for i in range(len(parents))])
    torch.testing.assert_close(away.sum(dim=1), (children > 0).float())


def test_a_random_graph_network_gets_the_statistics_of_its_data():
    encoder, x = new("stgcn"), 3 * clips(8, 32) + 1
    fit_norm(encoder, iter([x[:4], x[4:]]))
    assert not encoder.training
    torch.testing.assert_close(encoder.input_norm.running_mean, x.flatten(0, 1).mean(0), rtol=1e-4, atol=1e-4)
    norm = encoder.encoder.blocks[0].norm_graph
    assert norm.momentum == pytest.approx(0.1) and not torch.equal(
        norm.running_mean, torch.zeros(len(norm.running_mean))
    )
    norms = [m for m in encoder.encoder.modules() if isinstance(m, ViewNorm)]
    assert all(m.num_batches_tracked == 1 for m in norms) and encoder.input_norm.num_batches_tracked == 0


def test_every_backbone_works_with_several_processes():
    for name in VARIANTS:
        model, world = PCM3(PCM3Config(encoder=config(name), queue_size=8, decoder_hidden_size=8)), World(0, 2)
        model.set_world(world)
        norms = [module for module in model.modules() if isinstance(module, ViewNorm)]
        assert norms and all(norm.world is world for norm in norms), name  # those within a backbone too


# -- configurations -------------------------------------------------------------------------------------------------


def test_the_flags_agree_with_the_registry():
    actions = {a.dest: a for a in build_parser()._actions}
    for name, row in BACKBONES.items():
        assert name in actions["backbone"].help
        for size, default in row.sizes.items():
            assert name in actions[size].help, (name, size)
            assert actions[size].default is None
            if not isinstance(default, (bool, str)):
                assert f"{default:g}" in actions[size].help, (name, size)


def test_a_configuration_of_an_older_version():
    old = {"backbone": "gru", "layout": "kinect_v2_25", "joints": 25, "persons": 2, "hidden_size": 16, "num_layers": 2}
    again = EncoderConfig.from_dict({**old, "dim": 128, "mlp": True})
    assert again == EncoderConfig(hidden_size=16, num_layers=2) and again.sizes == {"hidden_size": 16, "num_layers": 2}
    assert EncoderConfig() == EncoderConfig(hidden_size=1024, num_layers=3)
    with pytest.raises(ValueError, match="'colour'"):
        EncoderConfig.from_dict({**old, "colour": 3})


@pytest.mark.parametrize(
    "sizes, words",
    [
        ({"backbone": "mamba"}, "'mamba' is not known; known: gru"),
        ({"heads": 4}, "the gru backbone has no heads"),
        ({"backbone": "stgcn", "causal": True}, "the stgcn backbone has no causal"),
        ({"backbone": "transformer", "width": 48, "heads": 5}, "multiple of 5"),
        ({"backbone": "stgcn", "width": 40}, "multiple of 16"),
        ({"backbone": "st_transformer", "width": 32, "tokens": "hands"}, "'hands'"),
        ({"backbone": "st_transformer", "tokens": 3}, "tokens must be of type str"),
        ({"backbone": "transformer", "heads": 0}, "heads must be above 0"),
        ({"backbone": "stgcn", "depth": 10**9}, "at most 256"),
        ({"hidden_size": "16"}, "hidden_size must be of type int"),
    ],
)
def test_impossible_sizes(sizes, words):
    with pytest.raises(ValueError, match=words):
        Encoder(EncoderConfig(**sizes))


def test_flags_become_words_of_a_command_line():
    words = "--backbone st_transformer --width 32 --no-causal --tokens parts".split()
    assert flags.as_words(flags.encoder_flags(build_parser().parse_args(words))) == [
        *"--backbone st_transformer --width 32 --tokens parts --no-causal".split()
    ]


# -- programs -------------------------------------------------------------------------------------------------------

ADAMW = "--epochs 2 --optimizer adamw --lr 0.001 --warmup-epochs 1 --cos"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_tiny_dataset(root, train=10, val=6, frames=120)
    write_tiny_dataset(root, "alone", train=10, val=6, frames=120, layout="sbu_15", joints=15, persons=1)
    write_tiny_videos(root / "alone", 4, "sbu_15", persons=1, count=6)
    return root


def words(name: str) -> str:
    return " ".join(flags.as_words(VARIANTS[name]))


def pretrain(data, run, more, name="tiny"):
    return tiny_runs.pretrain(data, run, f"{ADAMW} {more}", name)


def evaluate(main, data, run, more, name="tiny"):
    return call(
        main,
        f"--data-root {data} --finetune-dataset {name} --checkpoint-path {run} --threads 1 --precision fp32 {more}",
    )


@pytest.mark.parametrize("name", ["bigru", "transformer", "causal transformer", "st_transformer", "stgcn"])
def test_a_backbone_through_the_programs(data, tmp_path, name):
    """Pretraining with a stop in the middle (equal to a run without), classification, retrieval; encoders rebuilt from files."""
    more = words(name)
    assert pretrain(data, tmp_path / "whole", more).status == 0
    assert pretrain(data, tmp_path / "part", more + " --max-steps 3").status == 0
    ran = pretrain(data, tmp_path / "part", more + " --resume auto")
    assert ran.status == 0 and "at step 3" in ran.out, ran.err
    whole, part = (files.load(tmp_path / run / files.LAST) for run in ("whole", "part"))
    assert whole["config"]["encoder"]["backbone"] == VARIANTS[name]["backbone"]
    assert all(torch.equal(value, part["state_dict"][key]) for key, value in whole["state_dict"].items())
    checkpoint = f"--pretrained {tmp_path}/whole/{files.LAST}"
    drawn = visualize.load_model(tmp_path / "whole" / files.LAST)[0]
    assert drawn.encoder_q.config == EncoderConfig.from_dict(whole["config"]["encoder"])
    early = "--early" if name in CAUSAL else ""
    ran = evaluate(
        action_classification.main, data, tmp_path / "linear", f"--epochs 1 --cache-features {early} {checkpoint}"
    )
    assert ran.status == 0, ran.err
    if not early:
        refused(
            evaluate(action_classification.main, data, tmp_path / "e", f"--early {checkpoint}"),
            more.split()[1],
            "early",
        )
    ran = evaluate(action_retrieval.main, data, tmp_path / "search", checkpoint)
    assert ran.status == 0, ran.err
    tuned = evaluate(
        action_classification.main, data, tmp_path / "tuned", f"--mode finetune --epochs 1 {more} --batch-size 4"
    )
    assert tuned.status == 0, tuned.err


@pytest.mark.parametrize("name", ["bigru", "transformer", "causal transformer", "st_transformer", "stgcn"])
def test_detection_and_motion_prediction(data, tmp_path, name):
    """Windows of 32 and 16 frames and 20 observed ones, not the 64 of pretraining; one pass needs a causal backbone."""
    more = words(name)
    assert pretrain(data, tmp_path / "run", more + " --max-steps 1", "alone").status == 0
    checkpoint = f"--pretrained {tmp_path}/run/{files.LAST}"
    for mode in ("tuned", "frozen", "sequence"):
        flags = f"--mode {mode} --epochs 1 --windows 2 --timelines 0 --test-batch 64 {checkpoint}"
        ran = evaluate(action_detection.main, data, tmp_path / mode, flags, "alone")
        if mode == "sequence" and name not in CAUSAL:
            refused(ran, "causal")
        else:
            assert ran.status == 0, ran.err
            assert (tmp_path / mode / "result.json").is_file()
    flags = f"--observe 20 --predict 5 --horizons 1 5 --epochs 1 --decoder-size 16 --pictures 0 {checkpoint}"
    ran = evaluate(
        motion_prediction.main, data, tmp_path / "future", f"{flags} --encoder-mode frozen tuned scratch", "alone"
    )
    assert ran.status == 0, ran.err
    assert ran.out.splitlines()[-1].startswith("scratch")


@pytest.mark.parametrize("name", ["bigru", "causal joint", "stgcn"])
def test_another_layout_and_low_precision(data, tmp_path, name):
    more = f"{words(name)} --max-steps 2 --precision bf16"
    ran = pretrain(data, tmp_path / "run", more, "alone")
    assert ran.status == 0, ran.err
    checkpoint = f"--pretrained {tmp_path}/run/{files.LAST} --precision bf16"
    ran = evaluate(action_retrieval.main, data, tmp_path / "search", checkpoint, "alone")
    assert ran.status == 0, ran.err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stgcn", "causal transformer"])
def test_two_processes_are_one(data, tmp_path, name):
    """Norms inside of a backbone are also over the whole batch."""
    more = f"{words(name)} --max-steps 4 --precision fp64 --optimizer sgd --lr 0.02"
    assert pretrain(data, tmp_path / "one", more).status == 0
    command = pretraining(data, tmp_path / "two", f"{ADAMW} {more}")
    for ended in Processes(2, "pretrain_moco_mask", command).wait():
        assert ended.status == 0, ended.err
    one, two = (files.load(tmp_path / run / files.LAST)["state_dict"] for run in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-7, atol=1e-9, msg=key)


def test_another_backbone_is_refused(data, tmp_path):
    """The message has both names: when a run is resumed, when one starts from weights, and when an encoder is evaluated."""
    run, source = tmp_path / "run", f"{tmp_path}/run/{files.LAST}"
    assert pretrain(data, run, words("transformer") + " --max-steps 1").status == 0
    both = ("--backbone transformer", "--backbone gru")
    refused(pretrain(data, run, words("gru") + " --resume auto"), *both)
    refused(pretrain(data, tmp_path / "a", words("gru") + f" --init-from {source}"), *both)
    refused(evaluate(action_retrieval.main, data, tmp_path / "b", f"--backbone gru --pretrained {source}"), *both)
    both = ("--heads 2", "--heads 4")  # equal shapes of tensors, but another function
    refused(pretrain(data, run, words("transformer").replace("--heads 2", "--heads 4") + " --resume auto"), *both)
    refused(evaluate(action_retrieval.main, data, tmp_path / "c", f"--heads 4 --pretrained {source}"), *both)


def test_mistakes_are_one_sentence(data, tmp_path):
    refused(pretrain(data, tmp_path, "--backbone mamba"), "mamba", "transformer")
    refused(
        pretrain(data, tmp_path, "--backbone transformer --width 48 --heads 5"),
        "--backbone transformer",
        "multiple of 5",
    )
    refused(pretrain(data, tmp_path, "--width 48"), "--backbone gru", "no width")
    refused(pretrain(data, tmp_path, "--backbone stgcn --width 40"), "--width", "multiple of 16")
    refused(evaluate(action_retrieval.main, data, tmp_path, "--backbone stgcn --heads 2"), "no heads")


def test_a_backbone_of_your_own(data, tmp_path, monkeypatch):
    """The example as a user runs it; a program without its row refuses its checkpoint, with the backbone's name."""
    run, example = tmp_path / "run", ROOT / "examples" / "own_backbone.py"
    words = pretraining(data, run, "--backbone frame_mlp --width 32 --optimizer adamw --lr 0.001 --epochs 1").split()
    command = [sys.executable, str(example), "pretrain_moco_mask", *words]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    search = (
        f"--data-root {data} --finetune-dataset tiny --pretrained {run / files.LAST} --checkpoint-path {tmp_path}/b"
    )
    refused(call(action_retrieval.main, search), "'frame_mlp' is not known")
    monkeypatch.setitem(BACKBONES, "frame_mlp", None)  # so that the example's row is removed after the test
    main = runpy.run_path(str(example), run_name="example")["main"]
    ran = call(main, f"action_retrieval {search} --threads 1")
    assert ran.status == 0, ran.err
    refused(call(main, "visualise"), "pretrain_moco_mask", "visualise")
