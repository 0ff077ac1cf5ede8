"""Preparing data sets: splits, whole programs, the same bytes from any number of processes, and interruptions."""

import errno
import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import checksum_of
from processes import until
from programs import call, refused, refuses

from data_gen import prepare_ntu, prepare_pku, protocols
from data_gen.build import Stored, build_dataset
from data_gen.normalise import normalise
from data_gen.raw_files import find_files
from data_gen.raw_ntu import read_clip
from tests import make_raw
from utils.arrays import Rows, SplitWriter, building_folder, open_split, write_row
from utils.errors import UserError
from utils.skeleton import KINECT_V2
from utils.untrimmed import open_untrimmed, write_untrimmed

ROOT = Path(__file__).resolve().parent.parent
NAMES = [f"clip{i:03d}" for i in range(70)]


def load(name: str):
    """A loader for the tests: lengths from 1 to 330, one or two persons, one bad clip and one left out."""
    i = int(name[4:])
    if i == 33:
        raise UserError(f"{name}, line 7: damaged")
    if i == 34:
        return None
    people = [make_raw.person(5, 2 * i + m, 330 if i == 5 else 1 + i % 40) for m in range(1 + i % 2)]
    return np.stack(people).transpose(3, 1, 2, 0)


def held_load(name: str):
    """A loader that says in which process it runs and waits until it may go on, for the tests of interruptions."""
    folder = Path(os.environ["PIDS"])
    (folder / str(os.getpid())).touch()
    until((folder / "go on").exists)
    return load("clip001")


def dying_load(name: str):
    """A loader whose process is ended, as the system does when the memory runs out."""
    os._exit(1)


def build(folder, loader=load, on_bad="skip", names=NAMES, **more):
    half = len(names) // 2
    splits = {
        "xsub": {"train": names[:half], "val": names[half:]},
        "xview": {"train": names[::3], "val": [name for i, name in enumerate(names) if i % 3]},
    }
    labels = {name: int(name[4:]) % 4 for name in names}
    stored = Stored(KINECT_V2, 2, on_bad=on_bad)
    return build_dataset(folder, stored, splits, labels, loader, source="test", **more)


def digest(folder) -> dict[str, str]:
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# Splits


def test_ntu_missing_list_takes_the_published_numbers_from_each_split():
    missing = protocols.ntu_missing()
    small = [name for name in missing if protocols.in_ntu("ntu60", protocols.ntu_name(name))]
    assert (len(missing), len(small)) == (535, 302)
    splits = protocols.ntu_protocols("ntu60", small)
    removed = {folder: (len(split["train"]), len(split["val"])) for folder, split in splits.items()}
    # All 56,880 recordings split into 40,320 / 16,560 by subject and 37,920 / 18,960 by camera
    assert removed == {"cross_subject": (40320 - 40091, 16560 - 16487), "cross_view": (37920 - 37646, 18960 - 18932)}


def test_ntu_rules_on_all_kinds_of_names():
    names = [
        f"S{s:03d}C{c:03d}P{p:03d}R001A{a:03d}"
        for s in (1, 2, 17, 18, 32, 33)
        for c in (1, 2, 3)
        for p in range(1, 107)
        for a in (1, 60, 61, 120, 121)
    ]
    files = dict.fromkeys([*names, "notes"])
    small, passed = prepare_ntu.choose("ntu60", files, frozenset())
    assert len(small) == 3 * 3 * 106 * 2 and passed["other name"] == 1
    large, passed = prepare_ntu.choose("ntu120", files, frozenset(small))
    assert len(large) + len(small) == 5 * 3 * 106 * 4 and passed["ignored"] == len(small)
    splits = protocols.ntu_protocols("ntu120", large)
    assert {protocols.ntu_name(n).setup % 2 for n in splits["cross_setup"]["train"]} == {0}
    subjects = {
        split: {protocols.ntu_name(n).subject for n in splits["cross_subject"][split]} for split in ("train", "val")
    }
    assert len(subjects["train"]) == 53 and len(subjects["val"]) == 53 and not subjects["train"] & subjects["val"]
    assert len(protocols.NTU60_TRAIN_SUBJECTS) == 20 and protocols.NTU60_TRAIN_SUBJECTS < subjects["train"]
    assert protocols.ntu_name("S001C001P001R001A001x") is None and protocols.ntu_name("S٣٣٣C001P001R001A001") is None


def test_pku_rules():
    videos = [f"{n:04d}-{view}" for n in range(2, 365) for view in "LMR"]
    splits = protocols.pku_protocols("pku_v1", videos)
    assert len(splits["cross_subject"]["val"]) == 132 and {v[:4] for v in splits["cross_subject"]["val"]} >= {
        "0291",
        "0334",
    }
    assert {v[-1] for v in splits["cross_view"]["train"]} == {"M", "R"}
    videos = [f"A{a:02d}N{n:02d}-{view}" for a in range(1, 27) for n in range(1, 14) for view in "LMR"]
    splits = protocols.pku_protocols("pku_v2", videos)
    assert {v[3:6] for v in splits["cross_subject"]["val"]} == {"N02", "N03", "N07"}
    for part, video in (("pku_v1", "A01N01-L"), ("pku_v2", "0002-L"), ("pku_v2", "A01N14-L"), ("pku_v1", "0002-X")):
        with pytest.raises(UserError, match="not a video of"):
            protocols.pku_video_in_train(part, "cross_subject", video)


# The builder


def test_any_number_of_processes_writes_the_same_bytes(tmp_path):
    reports = [build(tmp_path / str(workers), workers=workers) for workers in (1, 2, 3)]
    assert digest(tmp_path / "1") == digest(tmp_path / "2") == digest(tmp_path / "3")
    report = reports[1]
    assert report.counts == {"xsub": {"train": 33, "val": 35}, "xview": {"train": 23, "val": 45}}
    assert report.skipped == {"clip033": "clip033, line 7: damaged", "clip034": "left out by the reader"}
    assert report.longer == ["clip005"] and not report.empty
    split = open_split(tmp_path / "2" / "xsub", "train", 25, 2, 4)
    assert split.names == NAMES[:33] and split.num_frame[5] == 300
    assert np.load(tmp_path / "2" / "xsub" / "train_num_frame.npy")[5] == 330  # the raw count
    assert checksum_of(split.data) == split.sidecar["splits"]["train"]["coordinates"]
    for i in (5, 7, 32):
        clip = load(NAMES[i])[:, :300]
        stored = np.zeros((3, 300, 25, 2), dtype=np.float32)
        stored[:, : clip.shape[1], :, : clip.shape[3]] = clip
        np.testing.assert_array_equal(split.data[i], normalise(stored, KINECT_V2))
    assert open_split(tmp_path / "2" / "xview", "val", 25, 2, 4).names == [
        name for i, name in enumerate(NAMES) if i % 3 and i not in (33, 34)
    ]
    assert os.listdir(tmp_path) and not [name for name in os.listdir(tmp_path) if name.startswith(".")]


def test_a_bad_clip_refuses_and_leaves_the_old_folder_as_it_was(tmp_path):
    build(tmp_path / "d", workers=1)
    before = digest(tmp_path / "d")
    for workers in (1, 2):
        with pytest.raises(UserError, match="clip033, line 7: damaged"):
            build(tmp_path / "d", on_bad="refuse", workers=workers)
    assert digest(tmp_path / "d") == before and os.listdir(tmp_path) == ["d"]


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": ["clip001"], "val": []}, "its val split has no clip"),
        ({"train": ["clip001"], "val": ["clip001"]}, "clip001 is in train and in val"),
        ({"train": ["clip001", "clip001"], "val": ["clip002"]}, "clip001 is twice in the train split"),
        ({"train": ["clip001"], "val": ["clip003"]}, "clip003 has no label"),
        ({"train": ["clip033"], "val": ["clip002"]}, "every train clip was left out; clip033: clip033, line 7"),
    ],
)
def test_impossible_splits_are_refused(tmp_path, splits, message):
    labels = {"clip001": 0, "clip002": 1, "clip033": 1}
    with pytest.raises(UserError, match=message):
        stored = Stored(KINECT_V2, 2, on_bad="skip")
        build_dataset(tmp_path / "d", stored, {"xsub": splits}, labels, load, source="t", workers=1)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("clip", "message"),
    [
        (np.zeros((3, 4, 20, 2)), "expected coordinates"),
        (np.zeros((3, 4, 25, 3)), "at most 2 persons"),
        (np.full((3, 4, 25, 1), np.nan), "coordinate of frame 0"),
    ],
)
def test_loaders_that_give_wrong_arrays_are_refused(tmp_path, clip, message):
    with pytest.raises(UserError, match=message):
        build(tmp_path / "d", lambda name: clip, on_bad="refuse", workers=1)


def test_too_little_space_is_said_before_anything_is_read(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10**6})
    monkeypatch.setattr("data_gen.build.shutil.disk_usage", lambda path: usage)
    with refuses("0.0 GB", "140 clips", "free"):
        build(tmp_path / "d")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_with_the_name_of_the_file():
    with pytest.raises(OSError) as caught:
        write_row(Rows("/dev/full", 0, 8), 0, bytes(8))
    assert caught.value.errno == errno.ENOSPC and caught.value.filename == "/dev/full"


def test_two_preparations_of_one_folder_are_refused(tmp_path):
    with (
        building_folder(tmp_path / "d"),
        pytest.raises(UserError, match="is being written by the making of .*wait until it has ended"),
    ):
        build(tmp_path / "d", workers=1)
    build(tmp_path / "d", workers=1)


def test_a_worker_that_is_ended_from_outside_is_a_sentence(tmp_path):
    with pytest.raises(UserError, match="try --workers 1"):
        build(tmp_path / "d", dying_load, workers=2)
    assert not os.listdir(tmp_path)


def start_held(tmp_path) -> subprocess.Popen:
    """Starts a preparation of tmp_path/d in a process of its own; two workers are at work, and wait."""
    # a shell's background jobs, tests among them, are started with SIGINT ignored
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{listen}; import test_prepare as t; t.build(t.sys.argv[1], t.held_load, workers=2)"
    (tmp_path / "pids").mkdir(exist_ok=True)
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "d")],
        env={**os.environ, "PYTHONPATH": paths, "PIDS": str(tmp_path / "pids")},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until(lambda: len(os.listdir(tmp_path / "pids")) == 2, process=process)
    return process


def test_interrupted_by_ctrl_c_leaves_nothing(tmp_path):
    process = start_held(tmp_path)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to parent and workers
    (tmp_path / "pids" / "go on").touch()
    assert process.wait(60) != 0
    assert os.listdir(tmp_path) == ["pids"]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_killed_leaves_no_folder_and_no_worker_and_a_rerun_starts_clean(tmp_path):
    process = start_held(tmp_path)
    process.kill()
    process.wait(60)
    assert not (tmp_path / "d" / "xsub").exists() and (tmp_path / ".d.building.tmp").exists()
    workers = [int(name) for name in os.listdir(tmp_path / "pids")]
    until(lambda: not any(map(alive, workers)), "workers live on without the process that they work for")
    (tmp_path / "d").mkdir(exist_ok=True)
    (tmp_path / "d" / ".xsub.old.1.tmp").mkdir()
    build(tmp_path / "d", workers=1)
    build(tmp_path / "fresh", workers=1)
    assert digest(tmp_path / "d") == digest(tmp_path / "fresh")
    assert sorted(os.listdir(tmp_path)) == ["d", "fresh", "pids"] and sorted(os.listdir(tmp_path / "d")) == [
        "xsub",
        "xview",
    ]


def test_leaving_clips_out_equals_never_having_had_them(tmp_path):
    clips = np.random.default_rng(0).standard_normal((12, 3, 5, 25, 2)).astype(np.float32)
    kept = [1, 2, 7, 11]
    for folder, indices in (("all", range(12)), ("some", kept)):
        names = [f"{i:02d}" for i in indices]
        writer = SplitWriter(tmp_path / folder, "train", names, list(indices), 25, 2, frames=6)
        for row, i in enumerate(indices):
            writer.write(row, clips[i], 5)
        if folder == "all":
            writer.keep(kept)
        writer.finish()
    assert digest(tmp_path / "all") == digest(tmp_path / "some")


# The programs


def test_prepare_ntu_from_a_folder_and_from_an_archive(tmp_path, capsys):
    names = make_raw.ntu_names(45)
    folder = make_raw.make_ntu(tmp_path / "raw", names)
    archive = make_raw.make_ntu(tmp_path / "zip", names, archive=True)
    for raw, root, workers in ((folder, "a", "2"), (archive, "b", "1")):
        arguments = ["--dataset", "ntu60", "--raw", str(raw), "--data-root", str(tmp_path / root), "--partial"]
        prepare_ntu.main([*arguments, "--workers", workers])
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    assert "have no coordinate other than 0" in capsys.readouterr().err
    files = find_files([folder], ".skeleton")
    for protocol in ("xsub", "xview"):
        both = [open_split(tmp_path / "a" / "ntu60" / protocol, split, 25, 2, 60) for split in ("train", "val")]
        assert sorted(both[0].names + both[1].names) == names
        for split in both:
            assert [label + 1 for label in split.labels] == [int(name[-3:]) for name in split.names]
            raw = np.zeros((3, 300, 25, 2), dtype=np.float32)
            clip = read_clip(files[split.names[0]])
            raw[:, : min(300, clip.shape[1])] = clip[:, :300]
            np.testing.assert_array_equal(split.data[0], normalise(raw, KINECT_V2))
    sidecar = json.loads((tmp_path / "a" / "ntu60" / "xsub" / "preparation.json").read_text())
    assert sidecar["normalisation"] == ["fill", "centre", "spine", "shoulders"]
    assert sidecar["longer_than_stored"] == 6 and len(sidecar["empty"]) == 6


RAW = {
    "ntu": lambda folder, seed: make_raw.make_ntu(folder, make_raw.ntu_names(2), seed),
    "ntu-zip": lambda folder, seed: make_raw.make_ntu(folder, make_raw.ntu_names(2), seed, archive=True),
    "pku1": lambda folder, seed: make_raw.make_pku(folder, ["0280-L"], 1, seed),
    "pku2": lambda folder, seed: make_raw.make_pku(folder, ["A01N01-L"], 2, seed),
    "pyskl": lambda folder, seed: make_raw.make_pyskl(folder / "a.pkl", make_raw.ntu_names(2), seed),
    "ctrgcn": lambda folder, seed: make_raw.make_ctrgcn(folder / "a.npz", 2, 1, seed),
}


@pytest.mark.parametrize("kind", RAW)
def test_generated_raw_files_depend_on_the_seed_alone(tmp_path, kind):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        RAW[kind](tmp_path / folder, seed)
    assert digest(tmp_path / "a") == digest(tmp_path / "b") != digest(tmp_path / "c")


def prepare(program, *arguments):
    return call(program.main, shlex.join(map(str, arguments)))


def test_prepare_ntu_refuses_and_skips(tmp_path):
    names = make_raw.ntu_names(24)
    raw = make_raw.make_ntu(tmp_path / "raw", names)
    bad = raw / f"{names[4]}.skeleton"
    bad.write_text(bad.read_text()[:5000])
    common = ["--dataset", "ntu60", "--raw", raw, "--data-root", tmp_path / "data"]
    refused(prepare(prepare_ntu, *common), "12 train and 12 val", "40,091 and 16,487")
    common += ["--partial", "--workers", "1"]
    refused(prepare(prepare_ntu, *common), f"{bad}, line ", "--on-bad skip")
    assert not (tmp_path / "data" / "ntu60").exists()
    prepare_ntu.main([str(a) for a in [*common, "--on-bad", "skip", "--normalise", "none", "--bodies", "id"]])
    sidecar = json.loads((tmp_path / "data" / "ntu60" / "xview" / "preparation.json").read_text())
    assert list(sidecar["skipped"]) == [names[4]] and "line" in sidecar["skipped"][names[4]]
    assert sidecar["normalisation"] == [] and sidecar["bodies"] == "id"
    ignored = tmp_path / "ignored.txt"
    ignored.write_text(f"{names[4]}\n\n{names[5]}.skeleton\n")
    prepare_ntu.main([str(a) for a in [*common, "--ignored", ignored, "--protocols", "cross_view"]])
    sidecar = json.loads((tmp_path / "data" / "ntu60" / "xview" / "preparation.json").read_text())
    assert sidecar["ignored"] == [names[4], names[5]] and sum(s["clips"] for s in sidecar["splits"].values()) == 22
    ignored.write_text("S001\n")
    refused(prepare(prepare_ntu, *common, "--ignored", ignored), "line 1", "'S001'")
    refused(prepare(prepare_ntu, *common, "--ignored", tmp_path / "none"), str(tmp_path / "none"), "no such file")
    refused(prepare(prepare_ntu, *common, "--protocols", "cross_setup"), "ntu60", "cross_setup")
    refused(prepare(prepare_ntu, *common, "--workers", "0"), "--workers", "0")


def test_prepare_pku_both_parts(tmp_path, capsys):
    for part, videos in (
        (1, [f"{n:04d}-{view}" for n in (289, 290, 291) for view in "LMR"]),
        (2, [f"A01N{n:02d}-{view}" for n in (1, 2) for view in "LMR"]),
    ):
        raw = make_raw.make_pku(tmp_path / f"raw{part}", videos, part)
        name = f"pku_v{part}"
        arguments = ["--dataset", name, "--raw", str(raw), "--data-root", str(tmp_path), "--partial"]
        prepare_pku.main([*arguments, "--workers", str(3 - part)])
        folder = tmp_path / name
        found = {p: [open_split(folder / p, s, 25, 2, 51) for s in ("train", "val")] for p in ("xsub", "xview")}
        assert sum(map(len, found["xsub"])) == sum(map(len, found["xview"])) == len(videos) * 5 + 2
        videos_of = {clip.split("_")[0] for clip in found["xsub"][1].names}
        assert videos_of == {v for v in videos if v.startswith("0291") or "N02" in v}
        untrimmed = open_untrimmed(folder / "untrimmed", 25, 2)
        assert untrimmed.names == sorted(videos) and set(untrimmed.protocols) == {"xsub", "xview"}
        i = untrimmed.names.index(videos[2])
        number, start, end = untrimmed.segments[i][0]
        assert (number, start, end) == (14, 40, 80)
        assert (untrimmed.labels(i)[start:end] == number + 1).all() and not untrimmed.labels(i)[:start].any()
        np.testing.assert_array_equal(untrimmed.video(i)[:, :, :, 0], make_raw.person(1, 904, 300).transpose(0, 2, 1))
        notes = json.loads((folder / "xsub" / "preparation.json").read_text())["dirty_rows"]
        assert [note.split("; ")[1] for note in notes] == ["dropped", "cut at 300 frames"]
        assert f"{videos[0]}.txt line 6: start 60 is after end 40; dropped" in capsys.readouterr().out


def test_prepare_pku_refuses_and_skips(tmp_path):
    videos = [f"{n:04d}-{view}" for n in (290, 291) for view in "LMR"]
    raw = make_raw.make_pku(tmp_path / "raw", videos, 1)
    common = ["--dataset", "pku_v1", "--raw", raw, "--data-root", tmp_path / "data"]
    refused(prepare(prepare_pku, *common), "3 train and 3 val", "944 and 132")
    common.append("--partial")
    skeleton = raw / "PKU_Skeleton_Renew" / f"{videos[4]}.txt"
    lines = skeleton.read_text().splitlines()
    skeleton.write_text("\n".join([*lines[:9], "1 2 3", *lines[10:]]))
    label = raw / "Train_Label_PKU_final" / f"{videos[1]}.txt"
    label.write_text("1,2,three,0\n")
    refused(prepare(prepare_pku, *common), f"{label}, line 1", "class,start,end,confidence")
    prepare_pku.main([str(a) for a in [*common, "--on-bad", "skip", "--workers", "1"]])
    sidecar = json.loads((tmp_path / "data" / "pku_v1" / "untrimmed" / "preparation.json").read_text())
    assert sidecar["videos"] == 4 and set(sidecar["bad_videos"]) == {videos[1], videos[4]}
    label.write_text("1,2,30,0\n")
    refused(prepare(prepare_pku, *common), f"{skeleton}, line 10", "150 numbers", "found 3", "--on-bad skip")
    label.write_text("51,2,30,0\n")
    refused(prepare(prepare_pku, *common, "--first-class", "0"), "class 51", "0..50", "--first-class")
    refused(prepare(prepare_pku, "--dataset", "pku_v2", "--raw", raw), "skeleton", str(raw))
    folders = ["--skeletons", skeleton.parent, "--labels", label.parent]
    refused(prepare(prepare_pku, "--dataset", "pku_v2", *folders), "not a video of pku_v2")


def test_untrimmed_refuses_what_is_impossible(tmp_path):
    frames = np.zeros((10, 3, 25, 2), dtype=np.float32)
    common = {"layout": KINECT_V2, "persons": 2, "num_classes": 3, "source": "t"}
    both = {"xsub": {"train": ["a"], "val": ["b"]}}
    for videos, splits, message in (
        ([("a", frames, [(3, 0, 5)]), ("b", frames, [])], both, "segment .3, 0, 5. is impossible"),
        ([("a", frames, [(0, 5, 11)]), ("b", frames, [])], both, "is impossible"),
        ([("a", frames[:, :, :20], [])], both, "expected frames"),
        ([("a", frames, [])], both, "video b is in a split, but not among"),
        ([("a", frames, []), ("a", frames, [])], both, "appears twice"),
        ([], both, "there is no video"),
    ):
        with pytest.raises(UserError, match=message):
            write_untrimmed(tmp_path / "u", videos, protocols=splits, **common)
    assert not os.listdir(tmp_path)
    write_untrimmed(tmp_path / "u", [("a", frames, [(2, 1, 4)]), ("b", frames, [])], protocols=both, **common)
    np.save(tmp_path / "u" / "offsets.npy", np.array([0, 10, 21]))
    with pytest.raises(UserError, match="the files do not match"):
        open_untrimmed(tmp_path / "u")


def test_programs_end_with_status_2_and_one_sentence():
    for module, arguments in (
        ("prepare_ntu", ["--dataset", "ntu60", "--raw", "nowhere"]),
        ("prepare_pku", ["--dataset", "pku_v1"]),
    ):
        done = subprocess.run(
            [sys.executable, "-m", f"data_gen.{module}", *arguments], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_preparing_needs_no_torch():
    code = "import sys, data_gen.prepare_ntu, data_gen.prepare_pku; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
