"""The live demo: the class it ends with is that of the features of all frames; what it says of its cost is what it took."""

import io
import json
import re
import sys
import warnings

import numpy as np
import pytest
import torch
from make_checkpoint import CAUSAL, write_classifier
from make_tiny import write_tiny_dataset
from PIL import Image
from programs import call, refused

from engine import live_picture
from engine.features import load_classifier
from engine.live_picture import Drawing, Recorder
from engine.novelty import NONE
from engine.setup import find_dataset
from tools import live_demo
from utils.errors import UserError
from utils.plots import new_figure
from utils.skeleton import get_layout

RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return write_classifier(tmp_path_factory.mktemp("c") / "classifier.pth", trained={"dataset": "tiny"})


def test_test_clips_play_the_sensor(tmp_path, classifier):
    write_tiny_dataset(tmp_path, frames=90)
    ran = call(live_demo.main, f"{classifier} --dataset tiny --data-root {tmp_path} --clips 3 --rate 0 --device cpu")
    assert ran.status == 0, ran.err
    clips = find_dataset(tmp_path, "tiny", "cross_subject", ("val",)).clips("val")
    found, total = load_classifier(classifier, "none", "cpu"), 0
    ends = re.findall(r"^(val_\d+): (action \d), (\d+) % \(true: (action \d)\)$", ran.out, re.M)
    assert len(ends) == 3
    for name, said, share, true in ends:
        i = clips.names.index(name)
        frames = clips.frames[int(clips.offsets[i]) :][: int(clips.num_frame[i])]
        p = found.probabilities(found.encoder.frame_features(frames))[-1]
        assert said == found.classes[p.argmax()] and abs(int(share) - 100 * p.max()) <= 1
        assert true == f"action {int(clips.labels[i])}"
        total += len(frames)
    right = sum(said == true for _, said, _, true in ends)
    assert f"{right} of 3 clips right" in ran.out and f"{total} frames, " in ran.out.splitlines()[-1]
    assert "of the 33 ms between two frames" in ran.out


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_lines_of_joints(monkeypatch, classifier, kind):
    clips = [RNG.normal(size=(2, n, 25, 3)).astype(np.float32) for n in (7, 12)]
    lines = []
    for clip in clips:
        for frame in clip.transpose(1, 0, 2, 3):
            lines.append(json.dumps(frame.tolist()) if kind == "json" else ",".join(map(repr, frame.ravel().tolist())))
        lines += ["", ""]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
    ran = call(live_demo.main, f"{classifier} --stdin {kind} --device cpu")
    assert ran.status == 0, ran.err
    found = load_classifier(classifier, device="cpu")
    for i, clip in enumerate(clips, 1):
        p = found.probabilities(found.encoder.frame_features(clip))[-1]
        assert f"sequence {i}: {found.classes[p.argmax()]}, {100 * p.max():.0f} %" in ran.out
    assert "sequence 3" not in ran.out and "19 frames" in ran.out


def test_it_waits_for_the_sensor():
    import time

    begun = time.monotonic()
    assert len(list(live_demo.at_rate(np.zeros((7, 1)), 60.0))) == 7
    assert time.monotonic() - begun >= 0.099


def test_cost_in_words():
    text = live_demo.cost_in_words([0.01] * 99 + [0.02], 30.0)
    assert "100 frames, 99 a second possible: 10.10 ms" in text and "30 % of the 33 ms" in text


@pytest.mark.parametrize(
    "lines, words",
    [
        ("", "no frame was received"),
        ("1,2,3", "line 1"),
        (",".join(["0"] * 75) + "\n" + ",".join(["x"] * 75), "line 2"),
        (",".join(["nan"] * 75), "frame 1"),
        (",".join(["1"] * 225), "3 persons"),
    ],
)
def test_bad_lines(monkeypatch, classifier, lines, words):
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    refused(call(live_demo.main, f"{classifier} --stdin csv --device cpu"), words)


@pytest.mark.parametrize(
    "line, words",
    [
        ("{}", "line 2: expected json"),
        (
            "[[1, 2, 3]]",
            "frame 2: expected a frame (25, 3), (25, 3, M) or (M, 25, 3) of joint layout kinect_v2_25, or 2 for 3, found (1, 3)",
        ),
        ("null", "frame 2: expected a frame"),
        ("[]", "found (0,)"),
        (json.dumps([[[0, 0, 0]] * 25] * 3), "3 persons"),
        (
            json.dumps([[float("nan"), 0, 0]] * 25),
            "sequence 1, frame 2: a coordinate is not a finite number; give zeros",
        ),
        (json.dumps([[1e300, 0, 0]] * 25), "not a finite number"),
    ],
)
def test_bad_json(monkeypatch, classifier, line, words):
    """One sentence about a frame, in the words of frames; no warning of NumPy's beside it."""
    good = json.dumps(np.zeros((25, 3)).tolist())
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{good}\n{line}\n{good}"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(call(live_demo.main, f"{classifier} --stdin json --device cpu"), words)


def test_ctrl_c_ends_a_stream_with_what_it_cost(monkeypatch, classifier):
    class Sensor(io.StringIO):
        def __next__(self):
            line = super().__next__()
            if line == "now\n":
                raise KeyboardInterrupt
            return line

    good = json.dumps(np.zeros((25, 3)).tolist())
    monkeypatch.setattr("sys.stdin", Sensor(f"{good}\n{good}\nnow\n{good}\n"))
    ran = call(live_demo.main, f"{classifier} --stdin json --device cpu")
    assert ran.status == 130 and ran.out.splitlines()[-2] == "interrupted" and "2 frames, " in ran.out.splitlines()[-1]
    monkeypatch.setattr("sys.stdin", Sensor("now\n"))
    ran = call(live_demo.main, f"{classifier} --stdin json --device cpu")
    assert ran.status == 130 and "interrupted" in ran.err and "frames" not in ran.out


def test_mistakes(tmp_path, classifier):
    refused(call(live_demo.main, f"{classifier}"), "either --dataset")
    path = write_classifier(tmp_path / "c.pth", **{**CAUSAL, "causal": False})
    refused(call(live_demo.main, f"{path} --stdin csv"), "frame by frame")
    write_tiny_dataset(tmp_path, persons=3, frames=90)
    refused(call(live_demo.main, f"{classifier} --dataset tiny --data-root {tmp_path}"), "3 persons", "--persons 2")


def test_movements_between_rests_are_actions():
    """Rest, a second of movement with a short turn in it, rest, another movement: two actions with their places."""
    still, said = np.ones((25, 3)), []

    def moving(frames):
        return [still + 0.02 * i for i in range(1, frames + 1)]  # 0.6 m/s and more

    turn = [moving(20)[-1]] * 6  # a fifth of a second
    sequence = [still] * 30 + moving(20) + turn + moving(20)[::-1] + [still] * 40 + moving(30) + [still] * 40
    found = [(name, len(list(f))) for name, _, f in live_demo.actions([("s", None, sequence)], 30.0, 0.12, said.append)]
    assert [name for name, _ in found] == ["s, action 1", "s, action 2"]
    starts = [int(line.split()[-1]) for line in said if "starts" in line]
    ends = [int(line.split()[-1]) for line in said if "ends" in line]
    assert 31 <= starts[0] <= 34 and 117 <= starts[1] <= 121
    assert 76 <= ends[0] <= 100 and len(ends) == 2
    assert not list(live_demo.actions([("s", None, [still] * 90)], 30.0, 0.12, said.append))


def test_an_answer_is_none_of_them_beyond_the_threshold(classifier):
    from dataclasses import replace

    from engine.features import load_classifier
    from engine.novelty import NONE, Novelty

    found = load_classifier(classifier)
    feature = np.ones(found.encoder.feature_size, np.float32)
    gallery = torch.from_numpy(np.stack([feature, -feature]))
    found = replace(found, novelty=Novelty(gallery, torch.tensor([0.1, 0.2])))
    far = feature * np.where(np.arange(len(feature)) % 2, 1, -1).astype(np.float32)
    assert live_demo.answer_of(found, feature, 0.5)[0] in found.classes
    assert live_demo.answer_of(found, far, 0.5)[0] == NONE and live_demo.answer_of(found, far, np.inf)[0] != NONE


def recorder(**given):
    return Recorder(get_layout("kinect_v2_25"), 2, 10.0, **given)


def test_what_a_picture_shows_of_a_moment():
    """Two seconds of rest, an action of twelve whose class changes once: the band holds the last ten seconds."""
    told, frame = recorder(idle="at rest"), np.ones((25, 3))
    told.sequence("s")
    for _ in range(20):
        first = told.moment(frame)
    assert (first.text, first.answer, first.idle, first.at) == ("s", "", "at rest", 2.0) and not first.marks
    told.mark(True)
    for i in range(120):
        told.answer("sit" if i < 60 else NONE, 0.5)
        last = told.moment(np.ones((2, 25, 3)) if i % 2 else np.ones((25, 3, 2)))  # persons first, persons last
    assert last.clip.shape == (3, 1, 25, 2) and (last.answer, last.probability, last.at) == (NONE, 0.5, 14.0)
    assert last.band == ((2.0, 8.0, "sit"), (8.0, 14.0, NONE)) and last.marks == ()  # the start is 12 s ago
    told.mark(False)
    assert told.end().marks == ((14.0, False),) and told.moment(frame).answer == ""
    with pytest.raises(UserError, match="expected"):
        told.moment(np.ones((20, 3)))


def test_a_body_at_zero_is_not_there_but_the_centre_of_a_normalised_one_is():
    layout = get_layout("kinect_v2_25")
    drawing = Drawing(new_figure(*live_picture.SIZE), layout, ("sit",))
    clip = np.zeros((3, 1, 25, 2), np.float32)
    clip[:, 0, :, 0] = RNG.normal(size=(3, 25))
    clip[:, :, [layout.centre, 7], 0] = 0
    seen = drawing._seen(clip)
    assert not seen[..., 1].any() and seen[0, layout.centre, 0] and not seen[0, 7, 0]
    clip[:, 0, :, 0] += 10 * (clip[:, 0, :, 0] != 0)  # far from zero, as a sensor has it
    assert not drawing._seen(clip)[0, layout.centre, 0]


def test_a_film_of_the_stream(tmp_path, classifier):
    """Every third frame of 30 a second, and the end of the last action; what is drawn changes with the body and the class."""
    write_tiny_dataset(tmp_path, frames=30)
    command = f"{classifier} --dataset tiny --data-root {tmp_path} --clips 2 --rate 0 --device cpu"
    ran = call(live_demo.main, f"{command} --film {tmp_path}/out/live.gif")
    assert ran.status == 0, ran.err
    frames = int(re.search(r"^(\d+) frames,", ran.out, re.M)[1])
    with Image.open(tmp_path / "out/live.gif") as film:
        assert film.size == (640, 480)
        pictures = []
        for i in range(film.n_frames):
            film.seek(i)
            pictures.append(np.asarray(film.convert("RGB"), dtype=int))
        assert len(pictures) <= -(-frames // 3) + 1  # equal neighbours become one that is shown for longer
    body, band = np.s_[90:380, :], np.s_[400:440, :]
    assert (pictures[0][body] != pictures[5][body]).any() and (pictures[0][band] != pictures[-1][band]).any()
    assert "live.gif: " in ran.out and "10 pictures a second" in ran.out
    assert call(live_demo.main, command).out.count("%") == ran.out.count("%")  # nothing else is said
    refused(call(live_demo.main, f"{command} --film {tmp_path}/live.png"), ".gif or .mp4")
    refused(call(live_demo.main, f"{command} --film {tmp_path}/live.txt"), ".gif")


def test_a_film_without_matplotlib_is_one_sentence(tmp_path, classifier, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    write_tiny_dataset(tmp_path, frames=30)
    command = f"{classifier} --dataset tiny --data-root {tmp_path} --rate 0"
    refused(call(live_demo.main, f"{command} --film {tmp_path}/a.gif"), "pip install matplotlib")
    refused(call(live_demo.main, f"{command} --window"), "pip install matplotlib")
    assert call(live_demo.main, command).status == 0


def test_a_window_that_cannot_be_opened_is_one_sentence(tmp_path, classifier, monkeypatch):
    def no_screen(name):
        raise ImportError(f"cannot load backend {name}")

    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "switch_backend", no_screen)
    write_tiny_dataset(tmp_path, frames=30)
    command = f"{classifier} --dataset tiny --data-root {tmp_path} --rate 0 --window"
    refused(call(live_demo.main, command), "no window", "--film FILE.gif")


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg")
def test_a_window_shows_what_it_has_time_for(monkeypatch):
    """On the Agg canvas, which has no screen; a closed window draws no more."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(live_picture, "TOOLKITS", ("Agg",))
    window, told, shown = live_picture.Window(get_layout("kinect_v2_25"), ("sit",)), recorder(), []
    monkeypatch.setattr(window._drawing, "show", shown.append)
    window.add(told.moment(np.ones((25, 3))))
    window._free_at = np.inf  # it has drawn for long
    window.add(told.moment(np.ones((25, 3))))
    assert [moment.at for moment in shown] == [0.1]
    window._free_at = 0
    pyplot.close(window._drawing.figure)
    window.add(told.moment(np.ones((25, 3))))
    assert len(shown) == 1


def test_starts_and_ends_reach_the_picture(monkeypatch, tmp_path, classifier):
    """Rest, a movement, rest, by --segments: a start and an end, with nothing judged outside of them."""
    kept = []
    monkeypatch.setattr(live_picture.Film, "add", lambda self, moment: kept.append(moment))
    monkeypatch.setattr(live_picture.Film, "close", lambda self, last: kept.append(last))
    still = RNG.normal(size=(25, 3))
    moving = [still + 0.05 * i for i in range(30)]
    frames = [still] * 20 + moving + [moving[-1]] * 30
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(json.dumps(f.tolist()) for f in frames)))
    ran = call(live_demo.main, f"{classifier} --stdin json --segments --film {tmp_path}/a.gif")
    assert ran.status == 0, ran.err
    (start, first), (end, second) = kept[-1].marks
    assert first and not second and start == pytest.approx(21 / 30, abs=0.11) and 50 / 30 < end < 78 / 30
    judged = [moment.at for moment in kept if moment.answer]
    assert start < judged[0] and judged[-1] <= end + 0.05 and kept[0].idle == "at rest"
