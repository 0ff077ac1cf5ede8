"""UI-PRMD in the box: the packed clips are the pickle's, the data sets make themselves, whole, once, and safely."""

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from processes import until

import action_retrieval
from data_gen import ui_prmd
from data_gen.normalise import normalise
from engine.setup import find_dataset
from options.datasets import DATASETS
from tests.programs import call, refused
from utils.arrays import open_split
from utils.errors import UserError
from utils.files import dump_pickle
from utils.skeleton import KINECT_V2
from utils.untrimmed import open_untrimmed

PACKED = ui_prmd.read_packed()
PICKLE = Path(os.environ.get("PCM3_UI_PRMD", "no-such-file"))
ROOT = Path(__file__).resolve().parent.parent


def some(every=25):
    """The names of a few clips, of every exercise, subject and quality."""
    return PACKED.names[::every]


def test_what_is_packed():
    """The checksum was printed by the packing whose result was compared with the pickle (0.5 mm at most, see below)."""
    assert len(PACKED.names) == 2000 and PACKED.names == sorted(PACKED.names)
    assert ui_prmd.fingerprint(PACKED) == "15be0c9486a451d4"
    assert int(PACKED.frames.sum()) == len(PACKED.millimetres) == 151158
    assert (PACKED.frames.min(), PACKED.frames.max()) == (28, 179)
    counts = {name[:3] + name[-3:]: 0 for name in PACKED.names}
    assert len(counts) == 20
    assert ui_prmd.PACKED.stat().st_size < 5_000_000


@pytest.mark.skipif(not PICKLE.is_file(), reason="PCM3_UI_PRMD=ui_prmd_3danno.pkl compares with the pickle")
def test_the_packed_clips_are_those_of_the_pickle():
    splits, annotations = ui_prmd.read_file(PICKLE)
    labels = ui_prmd.labels_of(PACKED, "ui_prmd")
    for entry in annotations.values():
        clip = PACKED.clip(entry["frame_dir"])[..., 0].transpose(1, 2, 0)
        assert np.abs(clip - entry["keypoint"][0]).max() < 0.000501  # and the rounding of float32
        assert labels[entry["frame_dir"]] == entry["label"]
    own = ui_prmd.protocols_of(PACKED, "ui_prmd", PACKED.names)["xsub"]
    assert set(own["train"]) == set(splits["xsub_train"]) and set(own["val"]) == set(splits["xsub_val"])


def test_packing_gives_back_what_it_got_to_half_a_millimetre(tmp_path):
    """Also where a step between frames is as large as 16 bits allow."""
    rng = np.random.default_rng(0)
    annotations = []
    for name, length in (("m01_s01_e01_cor", 1), ("m01_s01_e01_inc", 9), ("m10_s10_e10_cor", 30)):
        keypoint = rng.uniform(-16, 16, (1, length, 25, 3)).astype(np.float32)
        for copy, wrist in ui_prmd.COPIES.items():
            keypoint[:, :, copy] = keypoint[:, :, wrist]
        entry = {"frame_dir": name, "label": 0, "keypoint": keypoint, "total_frames": length}
        annotations.append(entry)
    path = tmp_path / "p.pkl"
    path.write_bytes(dump_pickle({"split": {"xsub_train": []}, "annotations": annotations[::-1]}))
    packed = ui_prmd.decode(ui_prmd.encode(ui_prmd.pack(path)))
    assert packed.names == [entry["frame_dir"] for entry in annotations]
    for entry in annotations:
        clip = packed.clip(entry["frame_dir"])[..., 0].transpose(1, 2, 0)
        assert np.abs(clip - entry["keypoint"][0]).max() < 0.000502
    annotations[1]["keypoint"][0, 3, 7] += 1
    path.write_bytes(dump_pickle({"split": {}, "annotations": annotations}))
    with pytest.raises(UserError, match="m01_s01_e01_inc: expected hands, tips and thumbs"):
        ui_prmd.pack(path)


def test_a_damaged_packed_file_is_named_with_what_to_do(tmp_path):
    content = ui_prmd.PACKED.read_bytes()
    cases = {
        "cut": content[:100_000],
        "flipped": content[:5000] + bytes([content[5000] ^ 255]) + content[5001:],
        "empty": b"",
        "other version": b"UIPRMD02" + content[8:],
    }
    for name, bad in cases.items():
        path = tmp_path / name
        path.write_bytes(bad)
        with pytest.raises(UserError, match="git checkout"):
            ui_prmd.read_packed(path)
    with pytest.raises(UserError, match="UIPRMD02"):
        ui_prmd.read_packed(tmp_path / "other version")
    with pytest.raises(UserError, match="is missing; restore it: git checkout"):
        ui_prmd.read_packed(tmp_path / "nothing")


def test_labels_and_splits():
    quality = ui_prmd.labels_of(PACKED, "ui_prmd_quality")
    names = DATASETS["ui_prmd_quality"].classes
    assert names[quality["m01_s02_e03_inc"]] == "deep squat, incorrect"
    assert names[quality["m10_s02_e03_cor"]] == "shoulder scaption, correct"
    assert DATASETS["ui_prmd"].classes[ui_prmd.labels_of(PACKED, "ui_prmd")["m03_s01_e01_inc"]] == "inline lunge"
    for dataset in ui_prmd.NAMES:
        splits = ui_prmd.protocols_of(PACKED, dataset, PACKED.names)
        assert {(folder,) for folder in splits} == set(DATASETS[dataset].protocols.values())
        for sub, halves in splits.items():
            assert len(halves["train"]) == len(halves["val"]) == 1000
            assert not set(halves["train"]) & set(halves["val"])
            odd, correct = ({int(n[5:7]) % 2 for n in halves["train"]}, {n[-3:] for n in halves["train"]})
            assert odd == {1} if sub == "xsub" else correct == {"cor"}


def test_arrays_are_the_clips_normalised(tmp_path):
    folder = ui_prmd.make(tmp_path, "ui_prmd", names=some())
    for protocol in ("xsub", "xqual"):
        for split in ("train", "val"):
            found = open_split(folder / protocol, split, 25, 1, 10)
            assert found.names == ui_prmd.protocols_of(PACKED, "ui_prmd", some())[protocol][split]
            for i, name in enumerate(found.names[:6]):
                raw = PACKED.clip(name)
                padded = np.zeros((3, 179, 25, 1), dtype=np.float32)
                padded[:, : raw.shape[1]] = raw
                np.testing.assert_allclose(found.data[i], normalise(padded, KINECT_V2), atol=1e-5)
                assert found.num_frame[i] == raw.shape[1]


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_what_is_whole_is_used_again_and_what_is_not_is_made_anew(tmp_path):
    folder = ui_prmd.make(tmp_path, "ui_prmd", names=some())
    before = stamps(folder)
    ui_prmd.make(tmp_path, "ui_prmd", names=some())
    assert stamps(folder) == before
    (folder / "xqual" / "val_num_frame.npy").unlink()
    left = tmp_path / ".ui_prmd.building.tmp" / "xsub"  # of a killed run
    left.mkdir(parents=True)
    ui_prmd.make(tmp_path, "ui_prmd", names=some())
    assert stamps(folder).keys() == before.keys() and not left.exists()
    assert stamps(folder)[folder / "xsub" / "val_num_frame.npy"] == before[folder / "xsub" / "val_num_frame.npy"]


def test_a_folder_made_by_hand_is_left_alone(tmp_path, capsys):
    folder = ui_prmd.make(tmp_path, "ui_prmd", names=some())
    sidecar = folder / "xsub" / "preparation.json"
    content = json.loads(sidecar.read_text())
    del content["ui_prmd"]
    sidecar.write_text(json.dumps(content))
    before = stamps(folder)
    found = find_dataset(tmp_path, "ui_prmd", "cross_subject", ("train", "val"))
    assert found.folder == folder / "xsub" and stamps(folder) == before
    assert "prepared in another way" in capsys.readouterr().err
    (folder / "xqual" / "preparation.json").rename(folder / "xqual" / "other.json")
    (folder / "xqual").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="has no xqual; move this folder away"):
        find_dataset(tmp_path, "ui_prmd", "cross_quality")


def test_programs_make_it_and_say_so(tmp_path, monkeypatch):
    real = ui_prmd.make
    monkeypatch.setattr(ui_prmd, "make", lambda root, name, needed=(): real(root, name, needed, names=some(10)))
    command = f"--data-root {tmp_path} --finetune-dataset ui_prmd_quality --hidden-size 16 --num-layers 1 --device cpu"
    ran = call(action_retrieval.main, f"{command} --checkpoint-path {tmp_path / 'out'}")
    assert ran.status == 0 and "from the 2,000 clips" in ran.err, ran.err
    ran = call(action_retrieval.main, f"{command} --protocol cross_quality --checkpoint-path {tmp_path / 'out'}")
    refused(ran, "ui_prmd_quality has no protocol 'cross_quality'")
    ran = call(action_retrieval.main, f"--data-root {tmp_path} --finetune-dataset demo --device cpu")
    refused(ran, "demo is gone; take ui_prmd")


def test_places_that_cannot_be_written_are_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    command = "--finetune-dataset ui_prmd --hidden-size 16 --num-layers 1 --device cpu --data-root"
    refused(call(action_retrieval.main, f"{command} {tmp_path / 'file'}"), str(tmp_path / "file"))

    def read_only(*_):
        raise PermissionError(13, "Permission denied", str(tmp_path))

    monkeypatch.setattr(ui_prmd, "_build", read_only)
    with pytest.raises(UserError, match="cannot be written .* give a --data-root"):
        ui_prmd.make(tmp_path, "ui_prmd")


def _make(root, barrier):
    barrier.wait()
    ui_prmd.make(root, "ui_prmd", names=some(), workers=1)


def test_two_processes_at_once_make_it_once(tmp_path):
    context = multiprocessing.get_context("fork")  # importing torch twice would take longer than all else
    barrier = context.Barrier(2)
    both = [context.Process(target=_make, args=(tmp_path, barrier)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(open_split(tmp_path / "ui_prmd" / "xsub", "train", 25, 1, 10)) == 40
    assert not list(tmp_path.glob(".*.tmp"))


def written(folder, since: int) -> int:
    """Bytes on the disk of all files below a folder that were written to after `since`."""
    found = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            about = path.stat()
            found += (about.st_mtime_ns > since) * about.st_blocks * 512
    return found


@pytest.mark.slow
def test_a_killed_preparation_leaves_nothing_that_looks_whole(tmp_path):
    command = [sys.executable, "-m", "data_gen.ui_prmd", "ui_prmd", "--data-root", str(tmp_path), "--workers", "1"]
    for part in (1, 40_000_000, 120_000_000, 200_000_000):  # bytes of 215 million
        began = time.time_ns()
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        until(lambda part=part, began=began: written(tmp_path, began) >= part, process=process)
        process.kill()
        process.wait()
        for sub in (tmp_path / "ui_prmd").glob("x*"):
            assert len(open_split(sub, "train", 25, 1, 10)) == len(open_split(sub, "val", 25, 1, 10)) == 1000
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert open_untrimmed(tmp_path / "ui_prmd" / "untrimmed", 25, 1).names
    assert not list(tmp_path.glob(".*.tmp"))


def test_videos_are_clips_of_one_subject_with_rest_in_between():
    videos = list(ui_prmd.videos_of(PACKED, "ui_prmd"))
    assert len(videos) == 60
    labels = ui_prmd.labels_of(PACKED, "ui_prmd")
    for name, frames, segments in videos[::7]:
        own = {n: PACKED.clip(n)[..., 0].transpose(1, 0, 2) for n in PACKED.names if int(n[5:7]) == int(name[1:3])}
        end = 0
        for label, start, stop in segments:
            part = frames[start:stop, ..., 0]
            same = [n for n, clip in own.items() if clip.shape == part.shape and np.array_equal(clip, part)]
            assert len(same) == 1 and labels[same[0]] == label
            assert 20 <= start - end <= 60
            end = stop
        assert 20 <= len(frames) - end <= 60 and 5 <= len(segments) <= 8
    split = ui_prmd._video_protocols([name for name, *_ in videos])["xsub"]
    assert len(split["train"]) == len(split["val"]) == 30
    for half in split.values():
        assert {label for name, _, segments in videos if name in half for label, *_ in segments} == set(range(10))


def test_rest_goes_over_from_one_clip_to_the_next_without_a_leap():
    clips = [PACKED.clip(name)[..., 0].transpose(1, 2, 0) for name in ("m01_s01_e01_cor", "m07_s01_e02_cor")]
    frames, places = ui_prmd.make_video(clips, [10, 40, 5])
    assert places == [(10, 10 + len(clips[0])), (50 + len(clips[0]), 50 + len(clips[0]) + len(clips[1]))]
    assert len(frames) == places[1][1] + 5
    rest = frames[places[0][1] - 1 : places[1][0] + 1]
    distance = np.abs(clips[0][-1] - clips[1][0]).max()
    assert np.abs(np.diff(rest, axis=0)).max() < 0.05 + 2 * distance / 40
    single, _ = ui_prmd.make_video([clips[0][:1]], [3, 3])
    assert (single == clips[0][0]).all()
