"""Flags of one meaning have one name in every program; the original names mean the same."""

import importlib

import pytest

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
