"""Formats of checkpoints: there and back bit for bit, nothing invented, what does not fit refused."""

import numpy as np
import pytest
import torch
from make_checkpoint import CAUSAL, SMALL, new_model, write_classifier, write_pretrained, write_released
from programs import call, refused

from engine.features import load
from models.pcm3 import PCM3Config
from tools import convert_checkpoint
from utils import checkpoint as files
from utils.files import dump_pickle

KNOWN = {"stream": "bone", "pre_dataset": "ntu60", "protocol": "cross_view", "lr": 0.02}
CLIP = np.random.default_rng(0).normal(size=(30, 25, 3))


def convert(source, to, output, more=""):
    ran = call(convert_checkpoint.main, f"{source} --to {to} --output {output} {more}")
    assert ran.status == 0, ran.err
    return files.load(output)


def assert_same_tensors(one, other):
    assert list(one) == list(other)
    for name, value in one.items():
        assert value.dtype == other[name].dtype and torch.equal(value, other[name]), name


def test_ours_to_released_and_back(tmp_path):
    ours = files.load(write_pretrained(tmp_path / "a.pth.tar", arguments=KNOWN))
    released = convert(tmp_path / "a.pth.tar", "released", tmp_path / "b.pth.tar")
    assert set(released) == {"epoch", "state_dict"} and released["epoch"] == 3
    assert_same_tensors(released["state_dict"], ours["state_dict"])
    again = convert(tmp_path / "b.pth.tar", "ours", tmp_path / "c.pth.tar", "--stream bone")
    assert_same_tensors(again["state_dict"], ours["state_dict"])
    assert PCM3Config.from_dict(again["config"]) == PCM3Config.from_dict(ours["config"])
    assert again["arguments"] == {"stream": "bone"} and again["epoch"] == 3


@pytest.mark.parametrize("prefix", ["", "module."])
def test_encoder_and_back_to_what_downstream_programs_read(tmp_path, prefix):
    write_released(tmp_path / "r.pth.tar", prefix=prefix)
    bare = convert(tmp_path / "r.pth.tar", "encoder", tmp_path / "e.pth", "--stream motion")
    expected = {k: v for k, v in new_model().encoder_q.state_dict().items() if not k.startswith("fc.")}
    assert_same_tensors(bare["state_dict"], expected)
    assert bare["arguments"] == {"stream": "motion"} and bare["epoch"] == 451
    assert load(tmp_path / "e.pth", device="cpu").stream == "motion"
    released = convert(tmp_path / "e.pth", "released", tmp_path / "q.pth.tar")
    assert_same_tensors(released["state_dict"], {f"encoder_q.{k}": v for k, v in expected.items()})
    once_more = convert(tmp_path / "q.pth.tar", "encoder", tmp_path / "e2.pth", "--stream motion")
    assert_same_tensors(once_more["state_dict"], expected)
    features = [load(tmp_path / name, stream="motion", device="cpu") for name in ("r.pth.tar", "e.pth", "q.pth.tar")]
    one, *others = [encoder.clip_features([CLIP]) for encoder in features]
    assert all(np.array_equal(one, other) for other in others)


def test_other_backbones_and_classifiers_become_encoders(tmp_path):
    write_pretrained(tmp_path / "t.pth.tar", arguments=KNOWN, **CAUSAL)
    bare = convert(tmp_path / "t.pth.tar", "encoder", tmp_path / "e.pth")
    assert bare["config"]["encoder"]["causal"] is True and "lr" not in bare["arguments"]
    one, other = load(tmp_path / "t.pth.tar", device="cpu"), load(tmp_path / "e.pth", device="cpu")
    assert np.array_equal(one.clip_features([CLIP]), other.clip_features([CLIP])) and other.stream == "bone"
    write_classifier(tmp_path / "c.pth", trained={"dataset": "ui_prmd", "protocol": "cross_view"})
    content = convert(tmp_path / "c.pth", "encoder", tmp_path / "e2.pth")
    assert content["arguments"] == {"stream": "joint", "dataset": "ui_prmd", "protocol": "cross_view"}
    assert content["fc"].keys() == {"weight", "bias"}  # it is still a classifier


def test_it_says_what_it_found(tmp_path):
    path = write_pretrained(tmp_path / "a.pth.tar", arguments=KNOWN)
    ran = call(convert_checkpoint.main, f"{path}")
    for words in (
        "pcm3",
        "gru (hidden_size 16, num_layers 2)",
        "kinect_v2_25, 2 persons",
        "bone",
        "3",
        "ntu60 cross_view",
    ):
        assert words in ran.out, (words, ran.out)
    assert "queue of 8, decoder, prompts" in ran.out
    ran = call(convert_checkpoint.main, f"{write_released(tmp_path / 'r.pth.tar')}")
    assert ran.out.count("the file does not say") == 2 and "451" in ran.out and "released or relative" in ran.out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pth.tar", "r.pth.tar"]


def test_what_does_not_fit_is_refused_and_nothing_is_written(tmp_path):
    path = write_pretrained(tmp_path / "t.pth.tar", arguments=KNOWN, **CAUSAL)
    released = write_released(tmp_path / "r.pth.tar")
    out = f"--output {tmp_path}/out.pth"
    refused(call(convert_checkpoint.main, f"{path} --to released {out}"), "transformer", "--to encoder")
    refused(call(convert_checkpoint.main, f"{path} --to encoder {out} --stream joint"), "trained on the bone stream")
    refused(call(convert_checkpoint.main, f"{released} --to ours {out} --layout sbu_15"), "150 numbers")
    refused(call(convert_checkpoint.main, f"{released} --to ours"), "--to", "--output")
    content = files.load(released)["state_dict"]
    relative = {k: v for k, v in content.items() if k.split(".")[0] in ("encoder_q", "encoder_k", "queue", "queue_ptr")}
    files.save(tmp_path / "cmd.pth", {"state_dict": relative})
    refused(call(convert_checkpoint.main, f"{tmp_path}/cmd.pth --to ours {out}"), "no prompts", "--to encoder")
    files.save(tmp_path / "cut.pth", {"state_dict": {k: v for k, v in content.items() if "recons" not in k}})
    refused(call(convert_checkpoint.main, f"{tmp_path}/cut.pth --to ours {out}"), "lacks recons_decoder")
    odd = {k: v for k, v in content.items() if k != "linear.1.bias"}
    files.save(tmp_path / "odd.pth", {"state_dict": odd})
    refused(call(convert_checkpoint.main, f"{tmp_path}/odd.pth --to ours {out}"), "linear.1.bias")
    bare = {k: v for k, v in new_model(**SMALL).encoder_q.state_dict().items()}
    files.save(tmp_path / "bare.pth", bare)
    refused(call(convert_checkpoint.main, f"{tmp_path}/bare.pth --to ours {out}"), "bare encoder", "--to encoder")
    assert not (tmp_path / "out.pth").exists() and not list(tmp_path.glob(".*"))


def test_no_file_is_overwritten(tmp_path):
    """Least of all the checkpoint itself, which the new file could not replace."""
    path = write_pretrained(tmp_path / "a.pth.tar", arguments=KNOWN)
    (tmp_path / "folder").mkdir()
    before = path.read_bytes()
    for output in (path, tmp_path / "folder" / ".." / "a.pth.tar", tmp_path / "folder"):
        refused(
            call(convert_checkpoint.main, f"{path} --to encoder --output {output}"),
            f"{output}: the file already exists",
        )
    assert path.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["a.pth.tar", "folder"]


def test_what_is_no_checkpoint_is_one_sentence(tmp_path, recwarn):
    (tmp_path / "labels.pkl").write_bytes(dump_pickle((["a"], [1])))
    refused(call(convert_checkpoint.main, f"{tmp_path}/labels.pkl"), "not a checkpoint")
    assert not recwarn.list  # torch's advice about a pickle's protocol is for its developers


def test_what_the_released_format_does_not_say_is_told(tmp_path):
    path = write_pretrained(tmp_path / "c.pth.tar", hidden_size=16, num_layers=1, pool="mean_max", both_sides=True)
    ran = call(convert_checkpoint.main, f"{path} --to released --output {tmp_path}/r.pth.tar")
    assert ran.status == 0 and "always give --pool mean_max --both-sides with this file" in ran.out, ran.err
    ran = call(convert_checkpoint.main, f"{path} --to encoder --output {tmp_path}/e.pth.tar")
    assert ran.status == 0 and "--pool" not in ran.out
