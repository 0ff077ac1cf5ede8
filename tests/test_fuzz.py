"""Ten thousand hostile files and command lines: each is read rightly or refused in a sentence; none hangs or acts.

Files are valid ones with bytes changed, cut, doubled or moved, and random ones of the right grammar. Every reader of files
that come from elsewhere is here, and the flags of every program."""

import contextlib
import importlib
import io
import json
import os
import pickle
import signal
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_tiny import write_tiny_dataset
from programs import call
from test_structure import PARSERS

import action_classification
import pretrain_moco_mask
from data_gen import from_arrays, from_files, from_pyskl, raw_ntu, raw_pku
from models.encoder import Encoder, EncoderConfig
from options.datasets import DescriptionError, from_description
from tests import make_raw
from utils import checkpoint
from utils.arrays import SIDECAR, open_split, split_files
from utils.errors import UserError
from utils.features import Features, SplitFeatures, read_features, write_features
from utils.files import load_json, load_pickle
from utils.fusion import read_scores, write_scores
from utils.skeleton import KINECT_V2
from utils.untrimmed import open_untrimmed, write_untrimmed

pytestmark = pytest.mark.slow
SECONDS = 20  # more than this is a hang
counted: Counter = Counter()


def cases(number: int):
    """Settings of a test of so many cases, the same ones every time."""
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@contextlib.contextmanager
def one_case(name: str):
    """Counts a case, and ends it with an error when it hangs."""
    counted[name] += 1

    def hang(*_):
        raise AssertionError(f"{name}: a case took more than {SECONDS} s")

    old = signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


acted: list = []
FORBIDDEN = (
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.fork",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "socket.connect",
)
watching = False


def _audit(event, arguments):
    if watching and event in FORBIDDEN:
        acted.append((event, arguments))


@pytest.fixture(scope="module", autouse=True)
def auditor():
    sys.addaudithook(_audit)  # stays for the life of the process; it only looks while `watching`


@contextlib.contextmanager
def only_reading():
    """Reading must not act: no command, no process, no file made or removed, no connection."""
    global watching
    acted.clear()
    watching = True
    try:
        yield
    finally:
        watching = False
    assert not acted, acted


# -- damaged files --------------------------------------------------------------------------------------------------------

place = st.floats(0, 1, exclude_max=True)
edit = st.one_of(
    st.tuples(st.just("flip"), place, st.integers(0, 7)),
    st.tuples(st.just("set"), place, st.integers(0, 255)),
    st.tuples(st.just("cut"), place, st.just(0)),
    st.tuples(st.just("drop"), place, st.integers(1, 40)),
    st.tuples(st.just("repeat"), place, st.integers(1, 40)),
    st.tuples(st.just("insert"), place, st.binary(min_size=1, max_size=12)),
    st.tuples(st.just("digits"), place, st.sampled_from([b"9999999999", b"-1", b"1e999", b"nan", b"0", b"1_0"])),
)
edits = st.lists(edit, min_size=1, max_size=4)


def damaged(whole: bytes, changes) -> bytes:
    data = bytearray(whole)
    for kind, where, value in changes:
        at = int(where * len(data))
        if kind == "flip" and data:
            data[at] ^= 1 << value
        elif kind == "set" and data:
            data[at] = value
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + value]
        elif kind == "repeat":
            data[at:at] = data[at : at + value]
        elif kind in ("insert", "digits"):
            end = at + len(value) if kind == "digits" else at
            data[at:end] = value
    return bytes(data)


def same_arrays(a, b) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)


class Reader:
    """One reader with a valid file: `prepare(folder)` returns the path to damage; `read(path)` reads; `right(result,
    original)` says whether a result that was given is right."""

    def prepare(self, folder):
        raise NotImplementedError

    def read(self, path):
        raise NotImplementedError

    def right(self, result, original) -> bool:
        return True


class Checkpoint(Reader):
    def prepare(self, folder):
        torch.manual_seed(0)
        config = EncoderConfig(hidden_size=16, num_layers=1, joints=2, persons=1, dim=4)
        state = {f"encoder_q.{k}": v for k, v in Encoder(config).state_dict().items()}
        path = folder / "checkpoint_0000.pth.tar"
        checkpoint.save(path, {"state_dict": state, "step": 3, "config": {"encoder": config.to_dict()}})
        return path

    def read(self, path):
        return checkpoint.find_encoder(checkpoint.load(path), path).state

    def right(self, result, original):
        return list(result) == list(original) and all(torch.equal(result[k], original[k]) for k in original)


class SplitFile(Reader):
    """number: which of coordinates, labels, frame counts, sidecar; beside a sidecar, labels and counts have a checksum."""

    def __init__(self, number: int):
        self.number = number

    def prepare(self, folder):
        self.folder = write_tiny_dataset(folder, train=5, val=2, frames=12) / "xsub"
        return (*split_files(self.folder, "train"), self.folder / SIDECAR)[self.number]

    def read(self, path):
        return open_split(self.folder, "train", 25, 2, 4)

    def right(self, result, original):
        return (
            result.names == original.names
            and same_arrays(result.labels, original.labels)
            and result.data.shape == original.data.shape
            and (self.number == 0 or same_arrays(result.num_frame, original.num_frame))
        )


class FeaturesFile(Reader):
    def prepare(self, folder):
        random = np.random.default_rng(0)
        split = SplitFeatures(
            np.array(["a", "b", "c"]), np.array([0, 1, 1]), random.normal(size=(3, 4)).astype(np.float32)
        )
        path = folder / "features.npz"
        write_features(path, Features(split, split, ("walk", "run"), "e", "joint", "tiny", "cross_subject"))
        return path

    def read(self, path):
        return read_features(path)

    def right(self, result, original):
        splits = ((getattr(result, s), getattr(original, s)) for s in ("train", "val"))
        return all(same_arrays(a.features, b.features) and same_arrays(a.labels, b.labels) for a, b in splits)


class ScoresFile(Reader):
    def prepare(self, folder):
        path = folder / "scores.npz"
        scores = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
        write_scores(path, [f"clip {i}" for i in range(5)], [0, 1, 2, 0, 1], scores, "joint", "tiny")
        return path

    def read(self, path):
        return read_scores(path)

    def right(self, result, original):
        return same_arrays(result.scores, original.scores) and same_arrays(result.labels, original.labels)


class UntrimmedFile(Reader):
    def __init__(self, name: str):
        self.name = name

    def prepare(self, folder):
        self.folder = folder / "untrimmed"
        random = np.random.default_rng(0)
        videos = [(f"v{i}", random.normal(size=(30, 3, 25, 2)).astype(np.float32), [(i, 3, 20)]) for i in range(3)]
        protocols = {"xsub": {"train": ["v0", "v1"], "val": ["v2"]}}
        write_untrimmed(
            self.folder, videos, layout=KINECT_V2, persons=2, num_classes=4, protocols=protocols, source="t"
        )
        return self.folder / self.name

    def read(self, path):
        return open_untrimmed(self.folder, 25, 2)

    def right(self, result, original):
        lengths = [len(result.video(i)) for i in range(len(result.names))]
        spans = zip(result.segments, lengths, strict=True)
        return sum(lengths) == len(result.frames) and all((rows[:, 2] <= n).all() for rows, n in spans)


class RawNTU(Reader):
    def prepare(self, folder):
        path = folder / "S001C001P001R001A001.skeleton"
        clip = make_raw.person(1, 2, 3).transpose(2, 0, 1)[..., None]
        path.write_text(make_raw.skeleton_text(make_raw.clip_frames(clip)))
        return path

    def read(self, path):
        recording = raw_ntu.parse(path.read_bytes(), path.name)
        return recording, [raw_ntu.select(recording, how) for how in ("slot", "id")]

    def right(self, result, original):
        return np.isfinite(result[0].xyz).all() and all(np.isfinite(clip).all() for clip in result[1])


class RawPKU(Reader):
    def prepare(self, folder):
        path = folder / "0002-L.txt"
        path.write_text(make_raw.pku_text(np.random.default_rng(0).normal(size=(4, 2, 25, 3))))
        return path

    def read(self, path):
        return raw_pku.parse_frames(path.read_bytes(), path.name)

    def right(self, result, original):
        return np.isfinite(result).all() and result.shape[1:] == (2, 25, 3)


class LabelsPKU(Reader):
    def prepare(self, folder):
        path = folder / "0002-L.txt"
        path.write_text(make_raw.pku_label_text([(3, 10, 40, 2), (17, 60, 99, 1), (51, 100, 180, 2)]))
        return path

    def read(self, path):
        rows = raw_pku.parse_labels(path.read_bytes(), path.name)
        reading = raw_pku.Reading()
        return raw_pku.instances("0002-L", rows, 150, reading)[0]

    def right(self, result, original):
        return all(0 <= i.number < 51 and 0 <= i.start < i.end <= 150 for i in result)


class ClipList(Reader):
    def __init__(self, suffix: str):
        self.suffix = suffix

    def prepare(self, folder):
        path = folder / f"clips{self.suffix}"
        rows = [{"name": f"c{i}", "label": str(i % 2), "cross_subject": "train" if i else "val"} for i in range(4)]
        if self.suffix == ".json":
            path.write_text(json.dumps(rows))
        else:
            path.write_text("\n".join(["name,label,cross_subject", *(",".join(row.values()) for row in rows)]))
        return path

    def read(self, path):
        labels, protocols = from_arrays.read_list(path)
        from_arrays.number_labels(labels)
        return labels, protocols

    def right(self, result, original):
        return all(set(names) <= set(result[0]) for p in result[1].values() for names in p.values())


class PysklFile(Reader):
    def prepare(self, folder):
        return make_raw.make_pyskl(folder / "clips.pkl", make_raw.ntu_names(3))

    def read(self, path):
        splits, annotations = from_pyskl.read_file(path)
        from_pyskl.find_protocols(splits)
        return [from_pyskl.check_keypoint(name, annotation) for name, annotation in annotations.items()]


class ClassNames(Reader):
    def prepare(self, folder):
        path = folder / "classes.txt"
        path.write_text("walk\nrun\nsit down\n")
        return path

    def read(self, path):
        return from_files.read_class_names(path)

    def right(self, result, original):
        return len(set(result)) == len(result) > 0


READERS = {
    "checkpoint": (Checkpoint(), 700),
    "coordinates": (SplitFile(0), 300),
    "labels": (SplitFile(1), 500),
    "frame counts": (SplitFile(2), 300),
    "sidecar": (SplitFile(3), 300),
    "features": (FeaturesFile(), 400),
    "scores": (ScoresFile(), 400),
    "untrimmed frames": (UntrimmedFile("frames.npy"), 200),
    "untrimmed offsets": (UntrimmedFile("offsets.npy"), 300),
    "untrimmed labels": (UntrimmedFile("frame_label.npy"), 200),
    "untrimmed videos": (UntrimmedFile("videos.json"), 500),
    "raw ntu": (RawNTU(), 400),
    "raw pku": (RawPKU(), 400),
    "raw pku labels": (LabelsPKU(), 400),
    "clip list csv": (ClipList(".csv"), 400),
    "clip list json": (ClipList(".json"), 400),
    "pyskl": (PysklFile(), 500),
    "class names": (ClassNames(), 200),
}


@pytest.mark.parametrize("name", READERS)
def test_damaged_files(name, tmp_path):
    reader, number = READERS[name]
    path = reader.prepare(tmp_path)
    whole = path.read_bytes()
    original = reader.read(path)
    assert reader.right(original, original)

    @cases(number)
    @given(edits)
    def check(changes):
        with one_case(name):
            data = damaged(whole, changes)
            path.unlink()  # a new file: maps of the old one stay what they were
            path.write_bytes(data)
            with only_reading():
                try:
                    result = reader.read(path)
                except UserError as error:
                    assert str(error) and "\n" not in str(error).strip()
                    return
            assert data == whole or reader.right(result, original)

    check()


# -- random content of the right grammar ------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def test_any_json(tmp_path):
    path = tmp_path / "a.json"

    @cases(600)
    @given(json_values, edits, st.booleans())
    def check(value, changes, damage):
        with one_case("json"):
            data = json.dumps(value).encode()
            path.write_bytes(damaged(data, changes) if damage else data)
            try:
                result = load_json(path)
            except UserError:
                assert damage
                return
            assert damage or result == value

    check()


def test_any_description_of_a_data_set():
    """Fields of dataset.json with values of every kind: a row that is whole, or a sentence."""
    names = st.sampled_from(["classes", "protocols", "layout", "persons", "name", "counts", "other"])
    usual = st.sampled_from([3, ["a", "b"], {"cross_subject": "xsub"}, "kinect_v2_25", 2, "tiny", 0, -1, True, "../x"])

    @cases(800)
    @given(st.dictionaries(names, usual | json_values, max_size=6))
    def check(description):
        with one_case("description"):
            try:
                row = from_description("mine", description)
            except DescriptionError:
                return
            assert row.num_classes >= 1 and row.persons >= 1 and row.protocols
            assert all(os.sep not in folder for folders in row.protocols.values() for folder in folders)

    check()


class Tempting:
    """What a malicious pickle holds: a call of anything."""

    def __init__(self, function, arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_any_pickle(tmp_path):
    """Plain data comes back; calls of anything are refused and not made; damage and soups of opcodes are a sentence."""
    path = tmp_path / "a.pkl"
    calls = st.sampled_from(
        [(os.mkdir, (str(tmp_path / "owned"),)), (eval, ("1",)), (getattr, ("x", "upper")), (open, ("x",))]
    )
    opcodes = st.lists(
        st.sampled_from([bytes([i]) for i in range(256)])
        | st.sampled_from([b"cos\nsystem\n", b"(S'x'\n", b"tR.", b"\x80\x04", b"K\x01"]),
        max_size=30,
    ).map(b"".join)

    @cases(900)
    @given(json_values, edits, st.sampled_from(["plain", "damaged", "call", "soup"]), calls, opcodes)
    def check(value, changes, kind, tempting, soup):
        with one_case("pickle"):
            content = [value, Tempting(*tempting)] if kind == "call" else [value, np.arange(3)]
            data = soup if kind == "soup" else pickle.dumps(content, protocol=2)
            path.write_bytes(damaged(data, changes) if kind == "damaged" else data)
            with only_reading():
                try:
                    result = load_pickle(path)
                except UserError:
                    assert kind != "plain"
                    return
            assert kind != "call" and (kind != "plain" or result[0] == value)

    check()


# -- command lines --------------------------------------------------------------------------------------------------------

WORDS = [
    "0",
    "1",
    "3",
    "-1",
    "0.5",
    "1.5",
    "1e-3",
    "1e309",
    "nan",
    "inf",
    "",
    "x",
    "ü",
    "--",
    "-",
    "9" * 25,
    "1_0",
    " 2",
    "a/b",
]


def command_lines(actions):
    """Lists of flags of a parser, each with as many words as hypothesis likes, right and wrong ones."""

    def words(action):
        right = [str(c) for c in action.choices or ()]
        return st.lists(st.sampled_from(WORDS + right * 4 if right else WORDS), max_size=3)

    def flag(action):
        return st.tuples(st.sampled_from(list(action.option_strings) or ["stray"]), words(action))

    return st.lists(st.sampled_from(actions).flatmap(flag), max_size=6)


@pytest.mark.parametrize("name", PARSERS)
def test_any_command_line(name):
    """Accepted, or one sentence and status 2; what is accepted has the types that it should have."""
    module = importlib.import_module(f"options.{name}")
    actions = [a for a in module.build_parser()._actions if a.dest != "help"]

    @cases(450)
    @given(command_lines(actions))
    def check(chosen):
        with one_case("command line"):
            argv = [word for flag, words in chosen for word in (flag, *words)]
            err = io.StringIO()
            try:
                with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
                    module.parse_args(argv)
            except SystemExit as end:
                assert end.code == 2, argv
                (line,) = err.getvalue().strip().splitlines()
                assert line.startswith("error: "), line

    check()


TINY_DATASET = dict(train=9, val=4, frames=70)


def outcome(ran) -> None:
    """A finished run, or one sentence."""
    assert ran.status in (0, 2), ran.err
    assert "Traceback" not in ran.err
    if ran.status == 2:
        assert len([line for line in ran.err.splitlines() if line.startswith("error: ")]) == 1, ran.err


def flags(*choices):
    """Some of the given flags, each once."""
    return st.lists(st.sampled_from(choices), unique=True, max_size=7).map(" ".join)


PRETRAINING = (
    *(
        "--exp-descri PCM3_woprompt",
        "--stream bone",
        "--stream motion",
        "--use-bone-feeder",
        "--mask-per-sample",
        "--cos",
    ),
    *(
        "--batch-size 3",
        "--batch-size 9",
        "--batch-size 10",
        "--contrast-k 9",
        "--contrast-k 1",
        "--topk 1",
        "--topk 3",
    ),
    *("--no-query-view", "--no-masked-view", "--no-predicted-view", "--no-mixed-view", "--prediction-weight 0"),
    *("--no-domain-prompts", "--no-task-prompts", "--domain-prompt after_norm", "--detach-predicted", "--no-mlp"),
    *(
        "--mix-probabilities 0 0 1",
        "--mix-probabilities 1 0 0",
        "--mix-parts 1 5",
        "--mix-parts 5 5",
        "--mix-length 1 16",
    ),
    *("--mask-ratio 0", "--mask-ratio 1", "--mask-segments 1", "--mask-segments 64", "--mask-segments 7", "--crop 1 1"),
    *("--crop 0.01 0.01", "--corruption 1", "--corruption 0", "--corrupt-share 0", "--corrupt-share 1", "--shear 0"),
    *("--contrast-m 0", "--contrast-m 1", "--contrast-t 1e-30", "--contrast-t 1e30", "--teacher-t 1e-30", "--lr 1e30"),
    *("--on-nonfinite skip", "--nonfinite-limit 0", "--precision bf16", "--precision fp64", "--optimizer adamw"),
    *("--warmup-epochs 3", "--wd 1e30", "--wd 0", "--momentum 0", "--schedule", "--schedule 0 0 0", "-j 0", "-j 3"),
    *("--clips mapped", "--clips memory", "--save-every-minutes 0", "--knn-every 1 --knn-clips 3", "--hidden-size 48"),
    *("--num-layers 3", "--decoder-hidden-size 1", "--contrast-dim 1", "--seed 0", "--seed 99999999999999999999"),
    *("--resume auto", "--resume x", "--init-from x", "--protocol cross_view", "--pre-dataset ../x", "--local_rank 3"),
    *("--start-epoch 5", "--epochs 1", "--cmd-weight 1e30", "--device cpu", "--hidden-size 1048576"),
)


def test_any_combination_of_pretraining_flags(data, tmp_path):
    """A step or two of the program itself; whatever it leaves behind can be read."""
    number = Counter()

    @cases(300)
    @given(flags(*PRETRAINING))
    def check(more):
        with one_case("pretraining"):
            number["runs"] += 1
            run = tmp_path / str(number["runs"])
            base = "--recipe paper "
            base += (
                "--pre-dataset tiny --hidden-size 16 --num-layers 1 --decoder-hidden-size 8 --batch-size 4 --threads 1"
            )
            command = f"--data-root {data} --checkpoint-path {run} {base} --contrast-k 8 --topk 8 --max-steps 2 {more}"
            outcome(call(pretrain_moco_mask.main, command))
            for path in run.glob("checkpoint_*"):
                state = checkpoint.load(path)["state_dict"]
                assert all(torch.isfinite(v).all() for k, v in state.items() if "--wd 1e30" not in more), (more, path)

    check()


EVALUATION = (
    *(
        "--mode finetune",
        "--mode semi",
        "--label-fraction 0.5",
        "--label-fraction 1e-9",
        "--sampling global",
        "--lr 1e30",
    ),
    *(
        "--cache-features",
        "--stream bone",
        "--stream motion",
        "--batch-size 1",
        "--batch-size 100",
        "--epochs 1",
        "--early",
    ),
    *("--epochs 2", "--schedule", "--schedule 0 0", "--test-every 1", "--occlusion both", "--occlusion temporal"),
    *(
        "--seed 1 2",
        "--seed 1 1",
        "--precision bf16",
        "--precision fp64",
        "--pretrained x",
        "--momentum 0",
        "--wd 1e30",
    ),
    *("--protocol cross_view", "--clips mapped", "--num-layers 2", "--local_rank 0", "--occlusion-seed 5", "-j 0"),
)


def test_any_combination_of_evaluation_flags(data, tmp_path):
    number = Counter()

    @cases(60)
    @given(flags(*EVALUATION))
    def check(more):
        with one_case("evaluation"):
            number["runs"] += 1
            base = "--finetune-dataset tiny --hidden-size 16 --num-layers 1 --epochs 1 --threads 1 --device cpu"
            command = f"--data-root {data} --checkpoint-path {tmp_path}/{number['runs']} {base} {more}"
            outcome(call(action_classification.main, command))

    check()


def test_enough_cases():
    """Counted while the tests above ran."""
    if len(counted) < len(READERS) + 6:
        pytest.skip("only a part of this file was run")
    print(f"{sum(counted.values())} cases: {dict(counted)}")
    assert sum(counted.values()) >= 10_000
