"""Inputs at the edge of what is text, a number or a name: each is read rightly or is a sentence, and no console ends a run."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from make_checkpoint import write_classifier, write_pretrained
from make_tiny import write_tiny_dataset
from processes import finish, fork
from programs import call, refused

import action_classification
import pretrain_moco_mask
from data_gen import raw_pku
from engine.features import as_clip, as_numbers, load
from engine.report_runs import curve_panels, read_metrics, read_run
from options.datasets import DescriptionError, from_description
from tools import extract_features, live_demo
from utils import checkpoint as files
from utils import machine
from utils.arrays import open_split
from utils.errors import UserError
from utils.files import dump_pickle, load_json, load_pickle, save_npy
from utils.skeleton import KINECT_V2

ROOT = Path(__file__).resolve().parent.parent
SMALL = "--hidden-size 16 --num-layers 1 --threads 1 --device cpu"


# -- one class ------------------------------------------------------------------------------------------------------------


def test_a_set_with_one_class_is_right_once(tmp_path):
    write_tiny_dataset(tmp_path, classes=1, frames=120)
    command = f"--data-root {tmp_path} --finetune-dataset tiny --checkpoint-path {tmp_path}/run --epochs 1 {SMALL}"
    ran = call(action_classification.main, command)
    assert ran.status == 0 and "top-1 last 100.0" in ran.out, (ran.out, ran.err)
    assert load_json(tmp_path / "run" / "result.json")["summary"]["last"]["top1"]["mean"] == 1.0


# -- names ----------------------------------------------------------------------------------------------------------------


def rename(folder, change):
    path = folder / "xsub" / "val_label.pkl"
    names, labels = load_pickle(path)
    (folder / "xsub" / "preparation.json").unlink()
    path.write_bytes(dump_pickle((change(list(names)), labels)))


@pytest.mark.parametrize("program", ["extract", "classify"])
def test_two_clips_of_one_name_are_refused_at_once(tmp_path, program):
    folder = write_tiny_dataset(tmp_path)
    rename(folder, lambda names: names[: len(names) // 2] * 2)
    if program == "extract":
        write_pretrained(tmp_path / "c.pth")
        words = f"--pretrained {tmp_path}/c.pth --dataset tiny --data-root {tmp_path} --frames --output {tmp_path}/out"
        ran = call(extract_features.main, words)
    else:
        ran = call(action_classification.main, f"--finetune-dataset tiny --data-root {tmp_path} --epochs 1 {SMALL}")
    refused(ran, "6 names occur more than once", "val_0000", "2 times")
    assert not (tmp_path / "out").exists()


def test_half_a_character_is_refused(tmp_path):
    folder = write_tiny_dataset(tmp_path)
    rename(folder, lambda names: ["wave \ud83d", *names[1:]])
    with pytest.raises(UserError, match=r"half a character.*wave \\\\ud83d"):
        open_split(folder / "xsub", "val", 25, 2)
    (tmp_path / "x.json").write_text('{"classes": ["\\ud83d", "b"]}')
    with pytest.raises(UserError, match="half a character"):
        load_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text('["\\ud83d\\ude00"]')  # both halves
    assert load_json(tmp_path / "x.json") == ["😀"]


def test_two_classes_of_one_name_are_refused():
    about = {"classes": ["sit", "stand", "sit"], "protocols": {"cross_subject": "xsub"}}
    with pytest.raises(DescriptionError, match="'sit' twice"):
        from_description("mine", about)


def test_an_empty_name_of_a_run_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for empty in ("''", "' '"):
        ran = call(pretrain_moco_mask.main, f"--checkpoint-path {empty} --pre-dataset tiny --max-steps 1")
        assert ran.status == 2 and "empty" in ran.err, ran.err
    assert not list(tmp_path.iterdir())


# -- numbers and text that come in ------------------------------------------------------------------------------------------

BAD_LINES = {
    "a huge number": b"[" + b"1" + b"0" * 400 + b"]",
    "half a character": b'["\\ud83d"]',
    "no text": b"\xff\xfe\xff",
    "a number among no text": b"[1, \xff]",
    "infinity": b"[Infinity]",
    "a word": b"hello",
}


@pytest.mark.parametrize("what", BAD_LINES)
@pytest.mark.parametrize("kind", ["json", "csv"])
def test_a_line_of_a_sensor_that_is_no_frame(tmp_path, monkeypatch, what, kind):
    classifier = write_classifier(tmp_path / "classifier.pth")
    stdin = io.TextIOWrapper(io.BytesIO(BAD_LINES[what] + b"\n"), encoding="utf-8")
    monkeypatch.setattr("sys.stdin", stdin)
    ran = call(live_demo.main, f"{classifier} --stdin {kind} --device cpu")
    refused(ran, "line 1" if "frame 1" not in ran.err else "frame 1")


def test_one_bad_line_of_metrics_costs_only_itself(tmp_path):
    good = [json.dumps({"step": step, "total": 1.0 / step}) for step in (1, 2, 3)]
    bad = [
        '{"step": 1' + "0" * 400 + ', "total": 1}',
        '{"step": 2, "total": ' + "9" * 400 + "}",
        "[" * 5000,
        "{",
        "\x00",
        '{"step": "a"}',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join([good[0], *bad, *good[1:]]) + "\n")
    panels = curve_panels(read_metrics(tmp_path))
    steps, values = (
        panels["total loss"]["total"] if "total" in panels["total loss"] else next(iter(panels["total loss"].values()))
    )
    assert [s for s, v in zip(steps, values, strict=True) if v is not None] == [1, 2, 3]
    assert not read_run("run", tmp_path).notes


# -- a full disk ----------------------------------------------------------------------------------------------------------


def limited(module: str, words: str, most: int, log) -> str:
    """A program that may write no file of more than `most` bytes: how a full disk looks to what writes it; what it says."""
    assert finish(fork(module, words, log, file_limit=most)) == 2
    said = log.read_text()
    assert "Traceback" not in said
    return said


def test_a_full_disk_is_a_sentence(tmp_path, tmp_path_factory):
    checkpoint, logs = write_pretrained(tmp_path / "c.pth"), tmp_path_factory.mktemp("logs")
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", np.random.default_rng(0).normal(0, 0.3, (3000, 25, 3)))
    err = limited(
        "tools.extract_features",
        f"--pretrained {checkpoint} --input {tmp_path}/in --frames --output {tmp_path}/out",
        20_000,
        logs / "a",
    )
    assert "a.npy: the file would exceed" in err
    err = limited("tools.export", f"{checkpoint} --output {tmp_path}/e.pt2", 4096, logs / "b")
    assert "the file would exceed" in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.pth", "in"]


@pytest.mark.parametrize(
    "array", [np.arange(6).reshape(2, 3), np.zeros((0, 4)), np.float32(3), np.arange(6).reshape(2, 3).T]
)
def test_arrays_are_saved_as_numpy_saves_them(tmp_path, array):
    save_npy(tmp_path / "a.npy", array)
    np.save(tmp_path / "b.npy", np.ascontiguousarray(array))
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


# -- consoles -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_console_shows_the_last_line(encoding):
    code = (
        "import sys; from utils.errors import run\n"
        "def main(_): print('top-1 83.9 ± 0.4 挥手 \\ud83d'); print('warning: 挥手', file=sys.stderr)\n"
        "run(main)"
    )
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    shown, poor = (
        ran.stdout.decode(encoding),
        {"ascii": "top-1 83.9 +- 0.4 ?? ?\n", "cp1252": "top-1 83.9 ± 0.4 ?? ?\n"},
    )
    assert shown == poor.get(encoding, "top-1 83.9 ± 0.4 挥手 ?\n")


# -- checkpoints of others --------------------------------------------------------------------------------------------------


def test_numpy_scalars_in_a_checkpoint_are_read(tmp_path):
    content = files.load(write_pretrained(tmp_path / "c.pth"))
    state = content["state_dict"]
    scalars = {
        "epoch": np.int64(7),
        "best": np.float32(0.5),
        "more": {"loss": [np.float64(1.5)]},
        "right": np.bool_(True),
    }
    torch.save({"state_dict": state, **scalars}, tmp_path / "theirs.pth")
    found = files.load(tmp_path / "theirs.pth")
    assert (found["epoch"], found["best"], found["more"], found["right"]) == (7, 0.5, {"loss": [1.5]}, True)
    assert type(found["epoch"]) is int and files.find_encoder(found, "x").epoch == 7


@pytest.mark.parametrize("wrap", ["module.{}", "_orig_mod.{}", "_orig_mod.module.{}", "module._orig_mod.{}", "inside"])
def test_what_wrappers_put_into_names_is_taken_off(tmp_path, wrap):
    content = files.load(write_pretrained(tmp_path / "c.pth"))
    inside = "encoder_q._orig_mod."
    names = {k: wrap.format(k) if wrap != "inside" else k.replace("encoder_q.", inside) for k in content["state_dict"]}
    torch.save({**content, "state_dict": {names[k]: v for k, v in content["state_dict"].items()}}, tmp_path / "w.pth")
    clip = np.random.default_rng(0).normal(0, 0.3, (9, 25, 3))
    expected = load(tmp_path / "c.pth", device="cpu").clip_features([clip])
    np.testing.assert_array_equal(load(tmp_path / "w.pth", device="cpu").clip_features([clip]), expected)
    both = {**content["state_dict"], **{f"module.{k}": v for k, v in content["state_dict"].items()}}
    torch.save({"state_dict": both}, tmp_path / "both.pth")
    with pytest.raises(UserError, match="weights twice"):
        load(tmp_path / "both.pth", device="cpu")


# -- arrays in Python -------------------------------------------------------------------------------------------------------


def test_masks_precisions_and_gradients_of_arrays():
    values = np.random.default_rng(0).normal(0, 0.3, (4, 25, 3)).astype(np.float32)
    mask = np.zeros(values.shape, bool)
    mask[1, 3, 2] = mask[2, 5] = True  # a coordinate hides its joint
    hidden = values.copy()
    hidden[1, 3] = hidden[2, 5] = 0
    np.testing.assert_array_equal(as_numbers(np.ma.array(values, mask=mask), "x"), hidden)
    persons = np.stack([values, values], axis=-1)
    masked = np.ma.array(persons, mask=np.stack([mask, 0 * mask], axis=-1))
    np.testing.assert_array_equal(as_numbers(masked, "x"), np.stack([hidden, values], axis=-1))
    assert as_clip(np.ma.array(values, mask=mask), KINECT_V2, 1)[0, 1, 3, 0] == 0
    tensor = torch.tensor(values, requires_grad=True)
    np.testing.assert_array_equal(as_numbers(tensor, "x"), values)
    np.testing.assert_array_equal(as_numbers(tensor.bfloat16(), "x"), tensor.bfloat16().float().detach().numpy())
    for odd in ([[1, 2], [3]], "abc", [10**400], [None], np.array([1j])):
        with pytest.raises(UserError, match="^mine: expected"):
            as_numbers(odd, "mine")


# -- a script without a main guard -------------------------------------------------------------------------------------------


def test_a_preparation_from_a_plain_script(tmp_path):
    (tmp_path / "in").mkdir()
    rows = []
    for i in range(40):
        np.save(tmp_path / "in" / f"c{i:02}.npy", np.random.default_rng(i).normal(0, 0.3, (9, 25, 3)))
        rows.append(f"c{i:02},{i % 2},{'train' if i < 20 else 'val'}")
    (tmp_path / "in" / "clips.csv").write_text("name,label,split\n" + "\n".join(rows))
    (tmp_path / "mine.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from data_gen.from_arrays import main\n"
        f"print('begins'); main([{str(tmp_path / 'in')!r}, '--name=mine', {f'--data-root={tmp_path}'!r}, '--workers=2'])\n"
    )
    ran = subprocess.run([sys.executable, str(tmp_path / "mine.py")], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0 and ran.stdout.count("begins") == 1, ran.stderr
    assert len(open_split(tmp_path / "mine" / "xsub", "train", 25, 1)) == 20


# -- containers -----------------------------------------------------------------------------------------------------------

LIMITS = {
    "version 2": (
        "0::/job/step\n",
        {"job/memory.max": 5000, "job/memory.current": 1500, "job/step/memory.max": "max"},
        3500,
    ),
    "version 1": (
        "4:memory:/job\n2:cpu,cpuacct:/job\n",
        {
            "memory/job/memory.limit_in_bytes": 8000,
            "memory/job/memory.usage_in_bytes": 7000,
            "memory/memory.limit_in_bytes": 2**63 - 4096,
        },
        1000,
    ),
    "a path that is not mounted": ("0::/host/only\n", {"memory.max": 900, "memory.current": 100}, 800),
    "no limit": ("0::/\n", {"memory.max": "max"}, None),
}


@pytest.mark.parametrize("name", LIMITS)
def test_memory_within_a_container(tmp_path, monkeypatch, name):
    groups, numbers, expected = LIMITS[name]
    (tmp_path / "own").write_text(groups)
    for file, value in numbers.items():
        (tmp_path / "fs" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / file).write_text(f"{value}\n")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(machine, "OWN_GROUP", tmp_path / "own")
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert machine.free_memory() == expected if expected else machine.free_memory() > free / 2


@pytest.mark.parametrize("quota, expected", [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 8)])
def test_workers_within_a_container(tmp_path, monkeypatch, quota, expected):
    (tmp_path / "own").write_text("0::/job\n")
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "cpu.max").write_text(quota)
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "OWN_GROUP", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    assert machine.default_workers() == expected


# -- PKU rows that overlap ----------------------------------------------------------------------------------------------------


def test_rows_that_overlap_are_counted_among_the_mended():
    rows = [raw_pku.Row(1, 5, 10, 50, 1), raw_pku.Row(2, 6, 40, 80, 1), raw_pku.Row(3, 7, 80, 90, 1)]
    found, notes = raw_pku.instances("v", rows, 100, raw_pku.Reading(1, 0, "swap", 0))
    assert len(found) == 3 and len(notes) == 1
    assert "line 2" in notes[0] and "frames 40 to 50 are in row v_001 too" in notes[0]
