"""What is evaluated when it isn't said: data set, protocol and stream of the checkpoint, and a word where splits overlap."""

import json
import shutil
from pathlib import Path

import pytest
from make_checkpoint import write_pretrained, write_released
from make_tiny import write_tiny_dataset
from programs import call, refused

import action_classification
import action_retrieval
from engine.evaluation import Place, find_place, pretraining_of, short_name
from options.datasets import DATASETS
from tools import extract_features, visualize
from utils.files import load_json, write_json


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """data/tiny: cross_view tests on what cross_subject trains with. A checkpoint of each protocol and a released one."""
    root = tmp_path_factory.mktemp("place")
    folder = write_tiny_dataset(root / "data", "tiny", train=12, val=8, frames=60)
    (folder / "xview").mkdir()
    swap = {"train": "val", "val": "train"}
    for file in (folder / "xsub").glob("*_*.*"):
        split, rest = file.name.split("_", 1)
        shutil.copy(file, folder / "xview" / f"{swap[split]}_{rest}")
    about = load_json(folder / "dataset.json")
    write_json(folder / "dataset.json", about | {"protocols": {"cross_subject": "xsub", "cross_view": "xview"}})
    write_tiny_dataset(root / "data", "other", train=12, val=8, frames=60)
    for protocol in ("cross_subject", "cross_view"):
        told = {"pre_dataset": "tiny", "protocol": protocol, "stream": "joint"}
        write_pretrained(root / f"{protocol}.pth.tar", arguments=told)
    write_released(root / "released.pth.tar")
    return root


def retrieval(world, tmp_path, checkpoint, flags=""):
    command = f"--data-root {world}/data --pretrained {world}/{checkpoint}.pth.tar --no-map --recall 1 --threads 1"
    ran = call(action_retrieval.main, f"{command} --checkpoint-path {tmp_path}/run {flags}")
    assert ran.status == 0, ran.err
    return ran.out, json.loads((tmp_path / "run/result.json").read_text())


def test_the_checkpoint_says_what_is_evaluated(world, tmp_path):
    out, result = retrieval(world, tmp_path, "cross_view")
    assert (result["dataset"], result["protocol"], result["stream"]) == ("tiny", "cross_view", "joint")
    assert result["pretraining"]["test_clips_seen"] == 0 and result["pretraining"]["warning"] is None
    assert (
        "tiny cross_view, joint stream" in out and "of the checkpoint: tiny cross_view" in out and "warning" not in out
    )


def test_test_clips_that_were_pretrained_on_are_a_warning(world, tmp_path):
    """cross_subject tests on val_0000..0007, with which a run on cross_view was pretrained."""
    out, result = retrieval(world, tmp_path, "cross_view", "--protocol cross_subject")
    assert result["pretraining"]["test_clips_seen"] == 8
    assert "8 of the 8 test clips were pretraining clips (tiny cross_view)" in result["pretraining"]["warning"]
    assert (
        "warning: 8 of the 8 test clips" in out
        and "pretrained on tiny cross_view, evaluated on tiny cross_subject" in out
    )


def test_another_data_set_is_said_and_has_its_usual_protocol(world, tmp_path):
    """The clips of `other` have the names of tiny's, in the same splits: none of its test clips was pretrained on."""
    out, result = retrieval(world, tmp_path, "cross_subject", "--finetune-dataset other")
    assert (result["dataset"], result["protocol"]) == ("other", "cross_subject")
    assert "pretrained on tiny cross_subject, evaluated on other cross_subject" in out
    assert result["pretraining"]["test_clips_seen"] == 0


def test_pretraining_clips_that_are_elsewhere_are_a_note(world, tmp_path):
    told = {"pre_dataset": "gone", "protocol": "cross_view", "stream": "joint"}
    write_pretrained(world / "gone.pth.tar", arguments=told)
    out, result = retrieval(world, tmp_path, "gone", "--finetune-dataset tiny")
    assert result["pretraining"]["test_clips_seen"] is None and "not under --data-root" in out


def test_a_released_file_and_none_have_the_usual_data_set(world):
    for pretrained in ("", f"{world}/released.pth.tar"):
        place = find_place(world / "data", pretrained, None, None, "ntu60")
        assert (place.dataset, place.protocol, place.trained) == ("ntu60", "cross_subject", None)
        assert pretraining_of(place, world / "data", ["a"]) is None
    assert find_place(world / "data", "", "ntu120", "cross_setup", "ntu60").protocol == "cross_setup"


def test_a_file_that_says_nothing_is_guessed_about_in_a_line(world):
    """A released file that was pretrained on cross_view would be tested on clips that it has seen, without a word."""

    def said(*asked):
        return find_place(world / "data", f"{world}/released.pth.tar", *asked, "ntu60").notes()

    assert "does not say its data set and protocol; evaluated on ntu60 cross_subject" in said(None, None)[0]
    assert "does not say its protocol; evaluated on tiny cross_subject" in said("tiny", None)[0]
    assert said("tiny", "cross_view") == [] == find_place(world / "data", "", None, None, "ntu60").notes()


def test_videos_of_another_split_are_a_warning():
    assert pretraining_of(Place("tiny", "b", ("tiny", "a")), "data", None)["warning"]
    assert pretraining_of(Place("tiny", "a", ("tiny", "a")), "data", None)["warning"] is None


def test_a_folder_for_each_mode_and_data_set(world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(action_classification, "draw_confusion", lambda *given: None)
    common = f"--data-root {world}/data --pretrained {world}/cross_view.pth.tar --epochs 1 --threads 1"
    for flags in ("", "--mode finetune", "--mode semi --label-fraction 0.5", "--finetune-dataset other"):
        assert call(action_classification.main, f"{common} {flags}").status == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == [
        "finetune_tiny_cross_view_cross_view",  # the last word is the checkpoint's
        "linear_other_cross_subject_cross_view",
        "linear_tiny_cross_view_cross_view",
        "semi_0.5_tiny_cross_view_cross_view",
    ]
    assert not list((tmp_path / "runs").glob("*/earlier-*"))
    place = Place("ntu60", "cross_view")
    assert place.default_folder("retrieval", "bone", "small") == "runs/retrieval_ntu60_cross_view_bone_small"


def test_a_folder_for_each_checkpoint(world, tmp_path, monkeypatch):
    """Two runs, an earlier epoch of one, and no encoder at all: nobody's results are moved aside."""
    monkeypatch.chdir(tmp_path)
    for name in ("small/checkpoint_last.pth.tar", "small/checkpoint_0002.pth.tar", "large/checkpoint_last.pth.tar"):
        Path("pre", name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(world / "cross_view.pth.tar", Path("pre", name))
        command = f"--data-root {world}/data --pretrained pre/{name} --no-map --recall 1 --threads 1"
        assert call(action_retrieval.main, command).status == 0
    raw = f"--data-root {world}/data --dataset tiny --raw-joints --no-map --recall 1 --threads 1"
    assert call(action_retrieval.main, raw).status == 0
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == [
        "retrieval_tiny_cross_subject_no_encoder_joint_coordinates",
        "retrieval_tiny_cross_view_large",
        "retrieval_tiny_cross_view_small",
        "retrieval_tiny_cross_view_small_0002",
    ]
    assert not list((tmp_path / "runs").glob("*/earlier-*"))


def test_the_word_for_an_encoder_is_a_good_name_of_a_folder(tmp_path, monkeypatch):
    (tmp_path / "my run").mkdir()
    monkeypatch.chdir(tmp_path / "my run")
    assert short_name("ui_prmd (encoder)") == "ui_prmd"
    assert short_name("checkpoint_last.pth.tar (pcm3, epoch 3)") == short_name(
        "./../my run/checkpoint_last.pth.tar (pcm3)"
    )
    assert short_name("checkpoint_last.pth.tar (pcm3, epoch 3)") == "my_run"
    assert short_name("runs/linear/classifier.pth (encoder)") == "linear_classifier"
    assert short_name("../v1.5.pt (encoder)") == "v1.5"


def test_pictures_of_a_released_file_need_no_protocol(world, tmp_path):
    ran = call(
        visualize.main,
        f"{world}/released.pth.tar --dataset tiny --data-root {world}/data --clips 1 --poses 2 --output {tmp_path}/a.png",
    )
    assert ran.status == 0 and (tmp_path / "a.png").is_file(), ran.err
    refused(call(visualize.main, f"{world}/released.pth.tar --output {tmp_path}/b.png"), "--dataset")


def test_features_of_the_checkpoints_protocol(world, tmp_path):
    ran = call(
        extract_features.main,
        f"--pretrained {world}/cross_view.pth.tar --data-root {world}/data --dataset tiny --output {tmp_path}/f",
    )
    assert ran.status == 0, ran.err
    assert (tmp_path / "f/names.txt").read_text().split()[
        0
    ] == "train_0000"  # cross_view tests on cross_subject's training


def test_every_known_data_set_has_a_usual_protocol(tmp_path):
    assert {find_place(tmp_path, "", name, None, "ntu60").protocol for name in DATASETS} == {"cross_subject"}
