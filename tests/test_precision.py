"""--precision auto: from what the hardware has, the same each time, said, written down, and kept by a run that goes on."""

import json
import sys

import pytest
import tiny_runs
import torch
from make_checkpoint import write_pretrained
from programs import call, refused, refuses

import action_classification
import action_retrieval
import pretrain_moco_mask
from engine import setup
from engine.setup import choose_precision
from models.backbones import BACKBONES
from models.recurrent import ForwardGRU, wavefront_works
from utils import checkpoint as files

CPU, CARD = torch.device("cpu"), torch.device("cuda")
TINY_DATASET = dict(train=12, val=8, frames=90)


def processor(monkeypatch, *flags):
    monkeypatch.setattr(setup, "processor_flags", lambda: frozenset(flags))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)


def card(monkeypatch, *capability):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Card 1")


@pytest.mark.parametrize("flags, chosen", ((("amx_bf16",), "bf16"), (("avx512_bf16",), "bf16"), (("avx512f",), "fp32")))
def test_by_the_flags_of_the_processor(monkeypatch, flags, chosen):
    processor(monkeypatch, "fma", *flags)
    name, words = choose_precision("auto", CPU, "gru")
    assert name == chosen and words.startswith(f"{chosen} (auto: the processor has ")
    assert ("--precision fp32" in words) == (chosen == "bf16")


def test_without_onednn_a_processor_computes_in_float32(monkeypatch):
    processor(monkeypatch, "amx_bf16")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert choose_precision("auto", CPU, "gru")[0] == "fp32"


def test_a_backbone_that_is_slower_so_stays_in_float32(monkeypatch):
    processor(monkeypatch, "amx_bf16")
    chosen = {name: choose_precision("auto", CPU, name)[0] for name in (*BACKBONES, "one's own")}
    assert {name for name, precision in chosen.items() if precision == "bf16"} == set(setup.BF16_ON_PROCESSOR)
    assert (
        choose_precision("auto", CPU, "st_transformer")[1]
        == "fp32 (auto: st_transformer is not faster in bf16 on a processor)"
    )
    assert choose_precision("bf16", CPU, "st_transformer") == ("bf16", "bf16")


@pytest.mark.parametrize("capability, chosen", (((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp32"), ((6, 1), "fp32")))
def test_by_the_capability_of_the_card(monkeypatch, capability, chosen):
    card(monkeypatch, *capability)
    assert choose_precision("auto", CARD, "stgcn")[0] == chosen


@pytest.mark.parametrize("name", ("fp32", "tf32", "bf16", "fp64"))
def test_a_name_is_what_it_says(monkeypatch, name):
    processor(monkeypatch)
    card(monkeypatch, 8, 6)
    assert choose_precision(name, CPU, "gru") == choose_precision(name, CARD, "gru") == (name, name)


def test_a_card_without_bf16(monkeypatch):
    card(monkeypatch, 7, 5)
    with refuses("--precision bf16", "Card 1", "--precision fp32", "auto"):
        choose_precision("bf16", CARD, "gru")


def test_the_flags_are_those_of_the_system(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nflags\t\t: fpu avx512_bf16 amx_bf16\nbugs\t: none\n\nflags : other\n"
    )
    real = setup.Path
    for path, expected in ((tmp_path / "cpuinfo", {"fpu", "avx512_bf16", "amx_bf16"}), (tmp_path / "none", set())):
        monkeypatch.setattr(setup, "Path", lambda name, path=path: real(path))
        setup.processor_flags.cache_clear()
        assert setup.processor_flags() == expected
    setup.processor_flags.cache_clear()


def pretrain(data, run, more=""):
    return tiny_runs.pretrain(data, run, f"--precision auto {more}")


def test_a_run_says_what_was_chosen_and_keeps_it(data, tmp_path, monkeypatch):
    """Begun where bf16 is chosen, gone on where float32 would be: still bf16, and bit for bit the run that never stopped."""
    processor(monkeypatch, "amx_bf16")
    whole = pretrain(data, tmp_path / "whole", "--max-steps 4")
    first = "bf16 (auto: the processor has amx_bf16; --precision fp32 for float32), no CUDA graph (auto: --device cpu)"
    assert whole.status == 0 and first in whole.out
    assert pretrain(data, tmp_path / "part", "--max-steps 2").status == 0
    processor(monkeypatch)
    ran = pretrain(data, tmp_path / "part", "--max-steps 4 --resume auto")
    assert ran.status == 0 and "bf16 (auto: as before)" in ran.out
    a, b = (files.load(tmp_path / name / files.LAST) for name in ("whole", "part"))
    assert all(torch.equal(value, b["state_dict"][name]) for name, value in a["state_dict"].items())
    assert a["arguments"]["precision"] == b["arguments"]["precision"] == "bf16"
    starts = json.loads((tmp_path / "part/arguments.json").read_text())
    assert [start["arguments"]["precision"] for start in starts] == ["bf16", "bf16"]
    assert [start["arguments"]["cuda_graph"] for start in starts] == ["off", "off"]
    ran = pretrain(data, tmp_path / "part", "--max-steps 5 --resume auto --precision fp32")
    assert ran.status == 0 and "computed in bf16 so far, from here on in fp32, as given" in ran.out
    exact = pretrain(data, tmp_path / "exact", "--max-steps 4 --precision fp32")
    other = files.load(tmp_path / "exact" / files.LAST)["state_dict"]
    assert exact.status == 0 and any(not torch.equal(v, other[name]) for name, v in a["state_dict"].items())


def test_a_card_that_cannot_go_on(data, tmp_path, monkeypatch):
    """Kept, or refused: never another precision without a word."""
    processor(monkeypatch, "amx_bf16")
    assert pretrain(data, tmp_path / "run", "--max-steps 1").status == 0
    card(monkeypatch, 7, 5)
    monkeypatch.setattr(pretrain_moco_mask, "resolve_device", lambda name: CARD)
    refused(pretrain(data, tmp_path / "run", "--resume auto"), "Card 1 has no bfloat16 units", "give --precision fp32")


@pytest.mark.parametrize("main", (action_retrieval.main, action_classification.main))
def test_evaluations_say_and_write_it(data, tmp_path, monkeypatch, main):
    path = write_pretrained(tmp_path / "c.pth.tar")
    flags = f"--data-root {data} --finetune-dataset tiny --pretrained {path} --device cpu --threads 1"
    flags += " --epochs 1" if main is action_classification.main else " --no-map --knn 1 --recall 1"
    for flag, chosen in (("amx_bf16", "bf16"), ("fma", "fp32")):
        processor(monkeypatch, flag)
        ran = call(main, f"{flags} --checkpoint-path {tmp_path}/{chosen}")
        assert ran.status == 0 and f"{chosen} (auto: the processor has" in ran.out, ran.err
        (start,) = json.loads((tmp_path / chosen / "arguments.json").read_text())
        assert start["arguments"]["precision"] == chosen
    features = json.loads((tmp_path / "bf16/result.json").read_text())["features"]
    assert "bf16" in features if main is action_classification.main else features


@pytest.mark.parametrize(
    "capability, precision, hidden, layers, works, chosen",
    (
        ((9, 0), "bf16", 512, 2, True, "wavefront"),
        ((9, 0), "bf16", 512, 2, False, "auto"),  # no compiler
        ((9, 0), "fp32", 512, 2, True, "auto"),
        ((8, 0), "bf16", 512, 2, True, "auto"),
        ((9, 0), "bf16", 256, 2, True, "auto"),
        ((9, 0), "bf16", 512, 1, True, "auto"),
    ),
)
def test_the_wavefront_is_chosen_where_it_was_measured(
    monkeypatch, capability, precision, hidden, layers, works, chosen
):
    card(monkeypatch, *capability)
    monkeypatch.setattr(setup, "wavefront_works", lambda device: works)
    model = torch.nn.Sequential(ForwardGRU(4, hidden, layers))
    assert setup.choose_recurrent("auto", CARD, precision, model) == chosen
    assert setup.choose_recurrent("cudnn", CARD, precision, model) == "cudnn"
    assert setup.choose_recurrent("auto", CPU, precision, model) == "auto"


def test_without_triton_the_trial_of_the_wavefront_is_a_no(monkeypatch):
    monkeypatch.setitem(sys.modules, "models.recurrent_wave", None)
    monkeypatch.delattr("models.recurrent_wave", raising=False)
    assert not wavefront_works(CPU)
