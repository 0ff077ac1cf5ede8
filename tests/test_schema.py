"""A checkpoint is checked before it is believed; every file of earlier versions loads with the features it had."""

import copy
import json
import lzma
import math

import numpy as np
import pytest
import torch
from make_checkpoint import content_of, new_model
from make_tiny import write_tiny_dataset
from processes import ROOT, finish, fork
from programs import call
from tiny_runs import QUEUE, pretrain, pretraining

import pretrain_moco_mask
from engine.features import load
from models.pcm3 import PCM3, PCM3Config
from utils import checkpoint as files
from utils import checkpoint_schema as schema
from utils.errors import UserError

OLD = ROOT / "tests" / "old_checkpoints"  # written by the programs of commit 3132fc9
NAMES = sorted(path.name.removesuffix(".xz") for path in OLD.glob("*.xz"))


def unpacked(name: str, folder):
    path = folder / name
    path.write_bytes(lzma.decompress((OLD / f"{name}.xz").read_bytes()))
    return path


def old_clip(seed: int, frames: int) -> np.ndarray:
    k = np.arange(frames * 20 * 3, dtype=np.float64).reshape(frames, 20, 3)
    return np.sin(k * 0.37 + seed).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
def test_old_files_have_the_features_they_had(tmp_path, name):
    """Of pretraining with three backbones, of a classifier, of a released file, of a bare encoder."""
    encoder = load(unpacked(name, tmp_path), layout="kinect_v1_20", persons=1, device="cpu")
    features = encoder.clip_features([old_clip(0, 60), old_clip(1, 33)])
    expected = np.load(OLD / "features.npz")[name]
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-5)
    assert len(NAMES) == 6 and np.abs(expected).max() > 0.1


@pytest.mark.parametrize(
    "name, more",
    [("gru", "--hidden-size 16 --num-layers 1"), ("transformer", "--backbone transformer --optimizer adamw")],
)
def test_old_runs_are_gone_on_with(tmp_path, name, more):
    write_tiny_dataset(tmp_path / "data", train=17, frames=120, persons=1, joints=20, layout="kinect_v1_20")
    if name == "transformer":
        more += " --width 16 --depth 1 --heads 2 --mlp-ratio 1"
    small = (
        f"--decoder-hidden-size 4 --pictures 0 --contrast-dim 8 --no-mlp --threads 1 -p 2 --device cpu {QUEUE} {more}"
    )
    resumed = f"--resume {unpacked(name + '.pth.tar', tmp_path)} --max-steps 5 --epochs 3 --pictures 0"
    command = f"--data-root {tmp_path}/data --pre-dataset tiny --checkpoint-path {tmp_path}/run {small} {resumed}"
    ran = call(pretrain_moco_mask.main, command)
    assert ran.status == 0 and "without fingerprints of its data" in ran.out, ran.err
    assert files.load(tmp_path / "run" / files.LAST)["step"] == 5


# -- every field ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The content of a real run's last checkpoint, and the tiny data it was trained on."""
    root = tmp_path_factory.mktemp("schema")
    write_tiny_dataset(root / "data", train=17, frames=120)
    assert pretrain(root / "data", root / "run", "--max-steps 3").status == 0
    return root, files.load(root / "run" / files.LAST)


def broken(content: dict, change) -> dict:
    content = copy.deepcopy(content)
    change(content)
    return content


def put(*keys, value):
    """A change: content[key][key]... = value."""

    def change(content):
        *path, last = keys
        for key in path:
            content = content[key]
        content[last] = value

    return change


def of_weight(function):
    """A change of one weight matrix."""

    def change(content):
        content["state_dict"]["linear.0.weight"] = function(content["state_dict"]["linear.0.weight"])

    return change


def quantised(t):
    return torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)


WRONG = {
    "format 999": (put("format", value=999), "its format is 999, but this version of the program reads 1 to 1"),
    "format of text": (put("format", value="1"), "its format is '1', expected a whole number"),
    "step of text": (put("step", value="3"), "its step is '3', expected a whole number, 0 to"),
    "step 1.7": (put("step", value=1.7), "its step is 1.7, expected"),
    "step True": (put("step", value=True), "its step is True, expected"),
    "step 10^30": (put("step", value=10**30), "its step is 1000000000000000000000000000000, expected"),
    "step -1": (put("step", value=-1), "its step is -1, expected"),
    "no step": (lambda c: c.pop("step"), "it has no 'step'"),
    "epoch": (put("epoch", value=-2), "its epoch is -2"),
    "state_dict": (put("state_dict", value=[1]), "its state_dict is list, expected a dictionary of tensors"),
    "config": (put("config", value="pcm3"), "its config is 'pcm3'"),
    "arguments": (put("arguments", value=3), "its arguments is 3"),
    "data": (put("data", "train", "clips", value="17"), "its data is dict, expected fingerprints"),
    "progress": (put("progress", "skipped", value=-1), "its progress is dict, expected sums"),
    "sums": (put("progress", "sums", value={"total": torch.zeros(2)}), "its progress is dict, expected sums"),
    "float8": (of_weight(lambda t: t.to(torch.float8_e4m3fn)), "linear.0.weight holds float8_e4m3fn, expected a dense"),
    "quantised": (of_weight(quantised), "linear.0.weight holds qint8"),
    "sparse": (of_weight(lambda t: t.to_sparse()), "linear.0.weight is sparse"),
    "meta": (of_weight(lambda t: t.to("meta")), "linear.0.weight has no values"),
    "complex": (of_weight(lambda t: t.to(torch.complex64)), "linear.0.weight holds complex64"),
    "expanded": (of_weight(lambda t: t[:1, :1].clone().expand(t.shape)), "but fewer values"),
    "whole weights": (of_weight(lambda t: t.long()), "linear.0.weight is a tensor of int64 (8, 32), this model needs"),
    "boolean weights": (of_weight(lambda t: t > 0), "linear.0.weight is a tensor of bool"),
    "missing weight": (lambda c: c["state_dict"].pop("linear.0.weight"), "it lacks linear.0.weight"),
    "other shape": (of_weight(lambda t: t[1:]), "linear.0.weight has shape (7, 32)"),
    "nan": (of_weight(lambda t: t * math.nan), "linear.0.weight is not finite"),
    "queue_ptr -3": (
        put("state_dict", "queue_ptr", value=torch.tensor([-3])),
        "queue_ptr is a tensor of int64 (1,) with -3",
    ),
    "queue_ptr 12": (put("state_dict", "queue_ptr", value=torch.tensor([12])), "expected the index of a column"),
    "queue_ptr 1.0": (put("state_dict", "queue_ptr", value=torch.tensor([1.0])), "queue_ptr is a tensor of float32"),
    "running_var": (
        lambda c: c["state_dict"]["linear.1.running_var"].sub_(100),
        "linear.1.running_var is a tensor of float32 (8,) with -9",
    ),
    "num_batches_tracked": (
        put("state_dict", "linear.1.num_batches_tracked", value=torch.tensor(-1)),
        "expected a whole number of 0 or more",
    ),
    "optimizer": (put("optimizer", value={}), "no parameter names"),
    "empty state": (put("optimizer", "state", value={}), "its optimizer has no state after 3 steps"),
    "no names": (lambda c: c["optimizer"].pop("names"), "no parameter names"),
    "a name less": (lambda c: c["optimizer"]["names"].pop(), "has state of parameter"),
    "a name twice": (lambda c: c["optimizer"]["names"].__setitem__(1, "base_prompt"), "names are not distinct"),
    "momentum shape": (
        put("optimizer", "state", 8, "momentum_buffer", value=torch.zeros(3)),
        "the optimizer's momentum_buffer of encoder_q",
    ),
    "momentum nan": (put("optimizer", "state", 8, "momentum_buffer", value=torch.tensor(math.nan)), "out of range"),
    "momentum text": (put("optimizer", "state", 8, "momentum_buffer", value="x"), "is 'x', expected float numbers"),
    "another optimizer's": (
        put("optimizer", "state", 8, value={"exp_avg": torch.zeros(1)}),
        "SGD needs momentum_buffer",
    ),
    "state of no parameter": (put("optimizer", "state", 999, value={}), "has state of parameter 999"),
    "param_groups": (put("optimizer", "param_groups", value=3), "param_groups 3"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named(saved, tmp_path, what):
    """What `--resume` does with it: one sentence that names the field, what it holds and what was expected."""
    _, content = saved
    change, words = WRONG[what]
    path = tmp_path / "a.pth.tar"
    torch.save(broken(content, change), path)
    model = PCM3(PCM3Config.from_dict(content["config"]))
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    with pytest.raises(UserError) as caught:
        found = files.load_resumable(path)
        files.load_into(model, files.state_dict_of(found, path), path)
        files.load_optimizer_state(optimizer, model, found["optimizer"], path)
    assert words in str(caught.value) and str(path) in str(caught.value), caught.value


def test_a_whole_file_is_believed(saved, tmp_path):
    root, content = saved
    torch.save(content, tmp_path / "a.pth.tar")
    assert files.load_resumable(tmp_path / "a.pth.tar")["step"] == 3
    assert set(content) <= set(schema.FIELDS)


@pytest.mark.parametrize("what", ["float8", "quantised", "sparse", "meta", "complex", "whole weights"])
def test_encoders_of_odd_tensors_are_refused(tmp_path, what):
    """In an evaluation as well, whoever wrote the file."""
    content = content_of(new_model())
    name = "encoder_q.encoder.gru.weight_hh_l0"
    content["state_dict"]["linear.0.weight"] = content["state_dict"][name]
    WRONG[what][0](content)
    content["state_dict"][name] = content["state_dict"].pop("linear.0.weight")
    for entries in (content, {"state_dict": content["state_dict"]}):
        torch.save(entries, tmp_path / "a.pth.tar")
        with pytest.raises(UserError, match="weight_hh_l0"):
            load(tmp_path / "a.pth.tar", layout="kinect_v2_25", persons=2, device="cpu")


def test_files_of_others_may_hold_what_they_like_beside_it(tmp_path):
    content = content_of(new_model())
    foreign = {"state_dict": content["state_dict"], "epoch": 451, "step": 1.5, "arguments": ["a"], "data": 3}
    torch.save(foreign, tmp_path / "a.pth.tar")
    assert load(tmp_path / "a.pth.tar", device="cpu").clip_features([np.ones((9, 25, 3, 2), np.float32)]).shape[0] == 1
    with pytest.raises(UserError, match="its step is 1.5"):
        files.load_resumable(tmp_path / "a.pth.tar")


# -- saving and falling back --------------------------------------------------------------------------------------------


def test_saving_refuses_what_is_not_finite(saved, tmp_path):
    _, content = saved
    files.save_last(tmp_path, content)
    for change in (WRONG["nan"][0], put("optimizer", "state", 8, "momentum_buffer", value=torch.tensor(math.inf))):
        with pytest.raises(UserError, match="not written, .* is not finite"):
            files.save_last(tmp_path, broken(content, change))
    assert [path.name for path in tmp_path.iterdir()] == [files.LAST]
    with pytest.raises(ValueError, match="'news' has no row"):
        files.save(tmp_path / "a.pth.tar", {**content, "news": 1})


@pytest.mark.parametrize("damage", ["nan", *(pytest.param(d, marks=pytest.mark.slow) for d in ("cut", "format 999"))])
def test_a_last_file_that_will_not_do(saved, tmp_path, damage):
    """In a process: `--resume auto` takes the newest good file and says so, and the next save does not lose that one. A file
    of a later version is not passed over."""
    root, content = saved
    run = tmp_path / "run"
    run.mkdir()
    for name, step in ((files.PREVIOUS, 1), (files.numbered(0), 2), (files.LAST, 3)):
        torch.save({**content, "step": step}, run / name)
    if damage == "cut":
        (run / files.LAST).write_bytes((run / files.LAST).read_bytes()[:-100])
    else:
        torch.save(broken(content, WRONG[damage][0]), run / files.LAST)
    flags = pretraining(root / "data", run, "--epochs 3 --resume auto --max-steps 2")
    process = fork("pretrain_moco_mask", flags, tmp_path / "log")
    status, log = finish(process), (tmp_path / "log").read_text()
    if damage == "format 999":
        assert status == 2 and "its format is 999" in log and "step 2" not in log
        return
    assert status == 0 and "trying the checkpoint before it" in log, log
    assert f"resumed {run / files.numbered(0)} at step 2" in log, log
    assert files.load_resumable(run / files.LAST)["step"] == 2 and (run / files.DAMAGED).exists()
    assert files.load_resumable(run / files.PREVIOUS)["step"] == 1


def test_what_is_said_of_checkpoints_holds(saved, tmp_path):
    """Where none was written none is named; where one was, its step is."""
    root, _ = saved
    ran = pretrain(root / "data", tmp_path / "a", "--lr 1e30")
    assert ran.status == 2 and f"No checkpoint of this run is in {tmp_path}/a" in ran.err, ran.err
    ran = pretrain(root / "data", tmp_path / "b", "--lr 1e30 --save-every-minutes 0")
    said = f"checkpoint_last.pth.tar in {tmp_path}/b is from before it, after step 1"
    assert ran.status == 2 and said[1:] in ran.err, ran.err
    assert json.loads((tmp_path / "b" / "arguments.json").read_text())
    assert files.load_resumable(tmp_path / "b" / files.LAST)["step"] == 1
