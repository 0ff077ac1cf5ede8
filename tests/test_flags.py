"""Flags of one meaning have one name in every program; the original names mean the same."""

import importlib
from argparse import Namespace
from dataclasses import dataclass

import pytest

from options import common
from tests.programs import call
from tools import export

NEW_AND_OLD = {
    "pretraining": ("--dataset a --output b", "--pre-dataset a --checkpoint-path b"),
    "classification": ("--dataset a --output b", "--finetune-dataset a --checkpoint-path b"),
    "retrieval": ("--dataset a --output b", "--finetune-dataset a --checkpoint-path b"),
    "detection": ("--dataset a --output b", "--finetune-dataset a --checkpoint-path b"),
    "prediction": ("--dataset a --output b", "--finetune-dataset a --checkpoint-path b"),
    "baselines": ("--dataset a --output b", "--finetune-dataset a --checkpoint-path b"),
    "export": ("--output a.pt2 --pretrained p --what step", "--output a.pt2 --what step p"),
    "convert": ("--pretrained=p", "p"),
    "live": ("--dataset a --pretrained p", "p --dataset a"),
    "predict": ("clips --seed 1 --pretrained p", "p clips --seed 1"),
}


@pytest.mark.parametrize("name", NEW_AND_OLD)
def test_old_names_mean_the_same(name):
    module = importlib.import_module(f"options.{name}")
    new, old = (vars(module.parse_args(words.split())) for words in NEW_AND_OLD[name])
    assert new == old
    page = module.build_parser().format_help()
    for flag in ("--dataset", "--output", "--pretrained"):
        if flag in NEW_AND_OLD[name][0]:
            assert f"  {flag} " in page, f"the help shows no {flag} first"


def test_a_checkpoint_that_is_missing_is_asked_for_by_its_flag():
    for words in ("--output a.pt2", "--output a.pt2 --pretrained"):
        ran = call(export.main, words)
        assert ran.status == 2 and "--pretrained" in ran.err


TABLE = """
-b --batch-size N:int>=3<=9 = 4  clips a step
--pair LOW:share HIGH:share = 0.1 1.0
    range of what is kept, in % of the $what
--modes {$SCALES}+
    one or several
--[no-]mlp = on  a hidden layer
--cos  a cosine
--new-name --old_name PATH!  is needed
"""


def test_a_table_of_flags_is_what_it_says(capsys):
    p = common.parser("A program.")
    common.add_flags(p, TABLE, what="clip")
    usual = vars(p.parse_args(["--new-name", "a"]))
    assert usual == {
        "batch_size": 4,
        "pair": [0.1, 1.0],
        "modes": None,
        "mlp": True,
        "cos": False,
        "old_name": "a",
    }
    words = "--old_name a -b 9 --pair 0 0.5 --modes none trunk --no-mlp --cos"
    assert list(vars(p.parse_args(words.split())).values()) == [9, [0.0, 0.5], ["none", "trunk"], False, True, "a"]
    for wrong in ("-b 2", "-b 10", "-b 3.5", "--pair 0.1", "--pair 0 2", "--modes all", "--cos 1"):
        with pytest.raises(SystemExit):
            p.parse_args(f"--new-name a {wrong}".split())
    with pytest.raises(SystemExit):
        p.parse_args([])
    assert "--new-name/--old_name" in capsys.readouterr().err
    assert "range of what is kept, in % of the clip (default: 0.1 1)" in " ".join(p.format_help().split())


@dataclass(frozen=True)
class Settings:
    pair: tuple[float, float] = (0.0, 0.0)
    frames: int = 64
    twice: int = 1


def test_a_dataclass_is_filled_from_the_flags_of_its_names():
    args = Namespace(pair=[0.1, 1.0], unrelated=3)
    assert common.from_flags(Settings, args, ("frames",), twice=2) == Settings((0.1, 1.0), 64, 2)
    for wrong in ({}, {"twise": 2}):  # a field without a flag, and a name that is no field
        with pytest.raises((AttributeError, TypeError), match="twice|twise"):
            common.from_flags(Settings, args, ("frames",), **wrong)
