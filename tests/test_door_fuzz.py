"""Two thousand inputs drawn from all kinds that once slipped through, with three outcomes only: right, which is compared with a
value computed here in plain Python; warned; or a refusal of one sentence. Nothing else, and nothing that takes long."""

import codecs
import json
import math
import pickle
import random
import signal
import time
from collections import Counter

import numpy as np
import pytest
import torch
from bombs import npy_header, write_bomb
from make_checkpoint import content_of, new_model
from make_tiny import write_tiny_dataset

from data_gen.from_arrays import ArrayClips, number_labels, read_list
from data_gen.from_files import read_class_names
from engine.features import as_clip
from engine.report_runs import read_metrics
from options.datasets import MAX_CLASSES
from tools.live_demo import parse_line
from utils import checkpoint as files
from utils.arrays import SIDECAR, open_split
from utils.clip_check import clip_faults
from utils.errors import UserError
from utils.files import dump_pickle, load_json, load_pickle
from utils.metrics import topk_accuracy
from utils.skeleton import KINECT_V2

CASES, MOST_SECONDS, HANGS = 2000, 120, 10
RIGHT, WARNED, REFUSED = "right", "warned", "refused"


def metrics(chance, folder):
    """Scores of any shape, ties and single classes among them, against a sort."""
    classes, clips = chance.randint(1, 7), chance.randint(1, 9)
    scores = [[chance.choice((0.0, 0.5, 1.0, 1e30, -1e30, 1e-40)) for _ in range(classes)] for _ in range(clips)]
    labels = [chance.randrange(classes) for _ in range(clips)]
    ks = (1, min(5, classes), chance.randint(1, 9))
    found = topk_accuracy(torch.tensor(scores), torch.tensor(labels), ks)
    for k in ks:
        ranked = [
            sorted(range(classes), key=lambda c, row=row: (-row[c], c))[:k] for row in torch.tensor(scores).tolist()
        ]
        assert math.isclose(found[k], sum(y in r for y, r in zip(labels, ranked, strict=True)) / clips)
    return RIGHT


def list_of_labels(chance, folder):
    """A list in any encoding, with labels from 0, from 1, huge, or names."""
    kind = chance.choice(("from 0", "from 1", "huge", "names"))
    count = chance.randint(2, 6)
    labels = {"from 0": range(count), "from 1": range(1, count + 1), "names": [f"挥{i}" for i in range(count)]}.get(
        kind
    )
    labels = [str(label) for label in labels or [0, 10 ** chance.randint(6, 400)]]
    text = "name,label,split\n" + "".join(f"c{i},{label},train\n" for i, label in enumerate(labels))
    path = folder / "list.csv"
    path.write_bytes(text.encode(chance.choice(("utf-8", "utf-8-sig", "utf-16"))))
    numbers, classes = number_labels(read_list(path)[0])
    expected = {f"c{i}": i for i in range(len(labels))}
    assert kind != "huge" and numbers == expected and (classes if kind != "names" else len(classes)) == count
    return WARNED if kind == "from 1" else RIGHT


def class_names(chance, folder):
    """Names a line, with or without a mark, one of them twice, or bytes that are no text."""
    names = [f"class {i}" for i in range(chance.randint(1, 5))]
    twice, broken = chance.random() < 0.3, chance.random() < 0.3
    content = "\n".join(names + names[:1] * twice).encode(chance.choice(("utf-8", "utf-8-sig", "utf-16")))
    path = folder / "names.txt"
    path.write_bytes(b"\xff\xff" + content if broken else content)
    assert read_class_names(path) == tuple(names) and not twice and not broken
    return RIGHT


def split_labels(chance, folder):
    """The labels of a prepared split: numbers of any type, out of range, nested; names twice, or half a character."""
    names, labels = [f"val_{i:04d}" for i in range(12)], [i % 4 for i in range(12)]
    place, bad = chance.randrange(12), True
    what = chance.choice(("good", "float", "array", "label", "nested", "twice", "half"))
    if what in ("good", "float", "array"):
        bad = False
        labels = labels if what == "good" else np.array(labels, dtype=np.float32 if what == "float" else np.int16)
    elif what == "label":
        labels[place] = chance.choice((-1, 4, 10**9, 10**400, 1.5, float("nan"), None, "a"))
    elif what == "nested":
        for _ in range(15):
            labels = [labels] * 12
    else:
        names[place] = names[place - 1] if what == "twice" else "\ud800"
    (folder / "xsub" / "val_label.pkl").write_bytes(dump_pickle((names, labels)))
    found = open_split(folder / "xsub", "val", 25, 2, 4)
    assert not bad and found.labels.tolist() == [i % 4 for i in range(12)] and found.names == names
    return RIGHT


def clip_file(chance, folder):
    """A clip on the disk: whole, cut, larger than it says, of objects, packed, or a bomb."""
    clip = (
        np.random.default_rng(chance.randrange(1000)).normal(0, 0.3, (chance.randint(1, 6), 25, 3)).astype(np.float32)
    )
    kind = chance.choice(("npy", "npz", "packed", "cut", "lies", "objects", "bomb"))
    for old in folder.glob("c.np*"):
        old.unlink()
    if kind in ("npz", "packed"):
        (np.savez if kind == "npz" else np.savez_compressed)(folder / "c.npz", c=clip)
    elif kind == "bomb":
        write_bomb(
            folder / "c.npz", {"c.npy": npy_header((14_000_000, 25, 3))}, 2**21
        )  # says 4 GB, and so does the next
    elif kind == "lies":
        (folder / "c.npy").write_bytes(npy_header((10 ** chance.randint(2, 18), 25, 3)) + clip.tobytes())
    else:
        np.save(folder / "c.npy", np.array([None, clip], dtype=object) if kind == "objects" else clip)
    if kind == "cut":
        whole = (folder / "c.npy").read_bytes()
        (folder / "c.npy").write_bytes(whole[: chance.randrange(len(whole))])
    source = folder / "c.npz"
    found = ArrayClips(str(source if source.exists() else folder)).read("c")
    if source.exists():
        from data_gen.from_arrays import _archive

        _archive.cache_clear()  # each case is another file of this name
    assert kind in ("npy", "npz", "packed") and np.array_equal(found, clip)
    return RIGHT


def pickled(chance, folder):
    """Pickles of plain data, and of calls that would ask for memory or act."""
    plain = {"a": [1, 2.5, "挥"], "b": np.arange(chance.randint(0, 9)), "c": (b"x", {1, 2})}
    what = chance.choice(("plain", "bytes", "array", "table", "system"))
    content = {
        "plain": pickle.dumps(plain, protocol=chance.randint(0, 5)),
        "bytes": b"c__builtin__\nbytearray\n(I1%sI\n" % (b"0" * 10) + b"tR.",
        "array": b"cnumpy\nndarray\n((I9999999999\nttR.",
        "table": b"\x80\x04]r\xff\xff\xff\x7f.",
        "system": b"cos\nsystem\n(S'true'\ntR.",
    }[what]
    (folder / "x.pkl").write_bytes(content)
    found = load_pickle(folder / "x.pkl")
    assert (
        what == "plain" and found["a"] == plain["a"] and found["c"] == plain["c"] and (found["b"] == plain["b"]).all()
    )
    return RIGHT


def described(chance, folder):
    """JSON with marks, half characters, huge numbers, depth, or cut."""
    value, good = {"name": "挥手 😀", "number": 10 ** chance.randint(0, 300)}, chance.random() < 0.5
    text = json.dumps(value, ensure_ascii=chance.random() < 0.5)
    if not good:
        text = chance.choice((text[:-1], '["\\ud83d"]', "[" * 100_000, "9" * 5000, text + text, ""))
    path = folder / "x.json"
    path.write_bytes(text.encode(chance.choice(("utf-8", "utf-8-sig", "utf-16"))))
    assert load_json(path) == value and good
    return RIGHT


def frame_line(chance, folder):
    """A line of a sensor: a frame, a huge number, no text, other numbers than joints."""
    frame = [[chance.choice((0.5, -1.25, 2.0)) for _ in range(3)] for _ in range(25)]
    kind = chance.choice(("json", "csv"))
    line = json.dumps(frame) if kind == "json" else ",".join(str(x) for joint in frame for x in joint)
    bad = chance.random() < 0.5
    if bad:
        line = chance.choice(
            (f"[{10**400}]", "\ufffd", "\ud800", "[1, [2]]", "1,2,,3", "[" * 9999, "", "{}", "nan nan")
        )
    found = as_clip(parse_line(line, kind, 25).reshape(-1, 25, 3)[None], KINECT_V2, 1)
    assert not bad and found[:, 0, :, 0].T.tolist() == frame
    return RIGHT


def clip_of_a_body(chance, folder):
    """A stiff body that swings: as it is, or spoilt in one way, which must be the one that is found."""
    t = np.arange(chance.randint(4, 40))
    clip = STAND[None] + 0.1 * np.sin(t / 3 + chance.random())[:, None, None] * np.array([1.0, 0, 0])
    what = chance.choice(("good", "empty", "still", "size", "down", "nan", "masked"))
    if what == "size":
        clip = clip * chance.choice((1e-40, 1e-3, 1e3, 1e30))
    elif what in ("empty", "still"):
        clip = clip * 0 if what == "empty" else np.repeat(clip[:1], len(clip), axis=0)
    elif what == "down":
        clip = clip * [1, -1, 1]
    elif what == "nan":
        clip[chance.randrange(len(clip)), chance.randrange(25), chance.randrange(3)] = chance.choice(
            (np.nan, np.inf, 1e300)
        )
    given = np.ma.array(clip, mask=np.isin(np.arange(25), [21, 23])[None, :, None] & np.ones_like(clip, bool))
    given = (
        given
        if what == "masked"
        else torch.tensor(clip.astype(np.float32), requires_grad=True)
        if what != "nan"
        else clip
    )
    found = as_clip(given, KINECT_V2, 1)
    assert set(clip_faults(found, KINECT_V2)) == {what} - {"good", "masked"} and what != "nan"
    if what == "masked":
        assert not found[:, :, [21, 23]].any()
        clip[:, [21, 23]] = 0
    np.testing.assert_allclose(found[..., 0].transpose(1, 2, 0), clip.astype(np.float32))
    return RIGHT if what in ("good", "masked") else WARNED


def metrics_file(chance, folder):
    """Records, and between them lines that are none."""
    bad = ("{", "[" * 9999, '{"step": 1%s}' % ("0" * 400), "\x00", '{"step": "x"}', "null", "9" * 5000)
    good = chance.randint(0, 4)
    lines = [json.dumps({"step": step, "total": step / 2}) for step in range(good)]
    for _ in range(chance.randint(0, 4)):
        lines.insert(chance.randint(0, len(lines)), chance.choice(bad))
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    assert [(r["step"], r["total"]) for r in read_metrics(folder / "metrics.jsonl")] == [
        (s, s / 2) for s in range(good)
    ]
    return RIGHT


def checkpoint_of_others(chance, folder):
    """Names that wrappers have changed, NumPy's scalars, a bomb, a file that is none."""
    what = chance.choice(("module.", "_orig_mod.", "_orig_mod.module.", "", "bomb", "text", "cut"))
    path = folder / "c.pth"
    if what == "bomb":
        write_bomb(path, {"archive/data.pkl": b"", "archive/data/0": b""}, 600_000_000)
    elif what == "text":
        path.write_bytes(chance.choice((b"", b"hello", b"PK\3\4", codecs.BOM_UTF8)))
    else:
        state = {(what if what != "cut" else "") + name: value for name, value in CONTENT["state_dict"].items()}
        torch.save({"state_dict": state, "epoch": np.int64(7), "best": np.float32(0.5)}, path)
        if what == "cut":
            path.write_bytes(path.read_bytes()[: chance.randrange(1, path.stat().st_size)])
    content = files.load(path)
    assert what not in ("bomb", "text", "cut") and content["best"] == 0.5
    found = files.find_encoder(content, path)
    assert found.epoch == 7 and all(
        torch.equal(value, CONTENT["state_dict"][f"encoder_q.{name}"]) for name, value in found.state.items()
    )
    return RIGHT


KINDS = (
    metrics, list_of_labels, class_names, split_labels, clip_file, pickled, described, frame_line, clip_of_a_body,
    metrics_file, checkpoint_of_others,
)  # fmt: skip
CONTENT = content_of(new_model())
STAND = np.zeros((25, 3))  # a body in metres: each joint below or beside its parent
for _joint in (20, 1, 0, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 22, 21, 24, 23):
    _parent = KINECT_V2.parents[_joint]
    _side = (-1 if "left" in KINECT_V2.names[_joint] else 1 if "right" in KINECT_V2.names[_joint] else 0) * 0.1
    if _parent != _joint:
        STAND[_joint] = STAND[_parent] + [_side, 0.3 if _joint in (2, 3) else -0.3, 0.02]
STAND += [0.3, 1.0, 2.5]


@pytest.mark.slow
def test_two_thousand_inputs_have_three_outcomes(tmp_path, capsys):
    folder = write_tiny_dataset(tmp_path)
    (folder / "xsub" / SIDECAR).unlink()
    chance, counted, begun = random.Random(0), Counter(), time.monotonic()

    def hang(*_):
        raise AssertionError(f"case {case} ({kind.__name__}) hangs")

    old = signal.signal(signal.SIGALRM, hang)
    try:
        for case in range(CASES):
            kind = KINDS[case % len(KINDS)]
            chance.seed(case)
            signal.alarm(HANGS)
            capsys.readouterr()
            try:
                outcome = kind(chance, folder)
            except UserError as error:
                assert str(error).strip() and "\n" not in str(error)
                outcome = REFUSED
            except AssertionError:
                raise
            except Exception as error:
                raise AssertionError(f"case {case} ({kind.__name__}) raised {type(error).__name__}: {error}") from error
            if kind is list_of_labels and outcome != REFUSED:
                assert ("warning: " in capsys.readouterr().err) == (outcome == WARNED)
            counted[kind.__name__, outcome] += 1
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)
    assert counted.total() == CASES and MAX_CLASSES == 100_000
    for kind in KINDS:  # each kind has been read rightly, and all but the metrics refused
        assert counted[kind.__name__, RIGHT] > 20, counted
        assert kind is metrics or counted[kind.__name__, REFUSED] > 10, counted
    assert time.monotonic() - begun < MOST_SECONDS
