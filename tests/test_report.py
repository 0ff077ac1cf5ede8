"""The report: one page with everything in it, true to the files, safe with any text, and alive in a browser."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import Page, find_browser
from make_tiny import write_tiny_dataset
from markupsafe import escape
from processes import until
from programs import call, refused
from tiny_runs import pretrain

import action_classification
from engine.report_page import templates, thinned
from engine.report_runs import curve_panels, find_runs, read_metrics
from engine.results import rows_of
from tools import report, visualize
from utils.errors import UserError
from utils.files import load_json, write_json
from utils.skeleton import get_layout

ROOT = Path(__file__).resolve().parent.parent
HOSTILE = "</script><script>hurt()</script><b title='x' onload=\"hurt()\">&amp; ]]> é"
CLASSES = ["action 0", HOSTILE, "action 2", "action 3"]
DOT = base64.b64decode(  # a picture of one pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
)
SIZE = "--hidden-size 16 --num-layers 1"


def data_of(page: str) -> dict:
    return json.loads(re.search(r"<script type=application/json id=report-data>(.*?)</script>", page, re.S).group(1))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A pretraining, a linear evaluation, and the result files of the other tasks, below one folder."""
    root = tmp_path_factory.mktemp("report")
    write_tiny_dataset(root, frames=90)
    description = load_json(root / "tiny" / "dataset.json")
    write_json(root / "tiny" / "dataset.json", {**description, "classes": CLASSES})
    folder = root / "runs"
    ran = pretrain(root, folder / "pretrained", "--epochs 451 --max-steps 12")
    assert ran.status == 0, ran.err
    ran = call(
        action_classification.main,
        f"--data-root {root} --threads 1 --finetune-dataset tiny --pretrained {folder}/pretrained/checkpoint_last.pth.tar "
        f"--epochs 2 --batch-size 8 --schedule 1 --early --checkpoint-path {folder}/linear",
    )
    assert ran.status == 0, ran.err
    (folder / "prediction" / "poses").mkdir(parents=True)
    (folder / "prediction" / "poses" / "it's.png").write_bytes(DOT)
    (folder / "prediction" / "poses" / "no.png").write_bytes(b"<svg onload='hurt()'>")
    one = {"mean": 41.0, "std": None, "count": 1}
    write_json(
        folder / "prediction" / "result.json",
        {
            "task": "motion_prediction",
            "dataset": "tiny",
            "zero_velocity": {"mpjpe_mm@2": 50.0},
            "summary": {"last": {"frozen": {"mpjpe_mm@2": one}}},
            "seeds": {"frozen": {"1": {"last": [40.0, 42.0]}}},
        },
    )
    rows = [{"name": "weights 0.5 0.5", "weights": [0.5, 0.5], "top1": 0.5, "top5": 1.0}]
    write_json(folder / "fused.json", {"clips": 12, "sources": ["a", "b"], "streams": ["joint", "bone"], "rows": rows})
    (folder / "earlier-20200101-000000").mkdir()
    write_json(folder / "earlier-20200101-000000" / "result.json", {})
    return folder


@pytest.fixture(scope="module")
def page_path(runs):
    path = runs.parent / "out" / "report.html"
    ran = call(report.main, f"{runs} --output {path} --hardest 4 --clips 1 --predictions 2")
    assert ran.status == 0, ran.err
    assert "4 runs, 3 results, 6 moving figures" in ran.out and "note:" not in ran.out, ran.out
    return path


@pytest.fixture(scope="module")
def page(page_path):
    return page_path.read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Tags that are open and their addresses; fails where one closes that is not open."""

    VOID = {"meta", "link", "img", "br", "input"}

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.addresses, self.handlers = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href")]
        self.handlers += [k for k, _ in attrs if k.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag


def test_the_page_stands_alone_and_no_text_becomes_a_tag(page):
    tags = Tags()
    tags.feed(page)
    assert not tags.open and tags.seen.count("script") == 2 and tags.seen.count("article") == 4
    assert not tags.handlers and "hurt()</script>" not in page
    assert all(a.startswith(("data:", "#")) for a in tags.addresses)
    assert "default-src 'none'" in page
    assert tags.seen.count("img") == 2 and "alt='it&#39;s'" in page and base64.b64encode(DOT).decode() in page
    values = {"x": HOSTILE}
    data = templates().from_string("{{ x | tojson }}").render(values)
    assert "<" not in data and "&" not in data and json.loads(data) == HOSTILE
    shown = templates().from_string("{{ x }}").render(values)
    assert not set("<\"'") & set(shown)
    assert "safe" not in re.findall(r"[|] *(\w+)", (ROOT / "engine" / "report_page.html").read_text())
    assert "innerHTML" not in (ROOT / "engine" / "report_page.js").read_text()


def test_the_page_says_what_the_files_say(runs, page):
    data = data_of(page)
    for name in ("linear", "prediction", "fused"):
        file = runs / f"{name}.json" if name == "fused" else runs / name / "result.json"
        for row in rows_of(name, load_json(file)):
            assert f"<td>{escape(row[4])}</td><td>{escape(row[5])}</td>" in page, row
    assert "pretrained" in page.split("<article")[1][:200]  # the pretraining comes first
    for flag in ("--contrast-k", "--hidden-size", "--finetune-dataset"):
        assert f"<th scope=row>{flag}</th>" in page
    first, last = data["charts"][0], read_metrics(runs / "pretrained")[-1]
    total = next(panel for panel in first if panel["title"] == "total loss")["series"][0]
    assert total["x"][-1] == last["step"] == 12 and total["y"][-1] == pytest.approx(last["total"], rel=1e-4)
    contrasts = next(panel for panel in first if panel["title"] == "contrast losses")["series"]
    assert [s["label"] for s in contrasts] == ["query", "masked", "predicted", "mixed"]
    titles = [panel["title"] for charts in data["charts"] for panel in charts]
    assert "error in mm by predicted frame" in titles and any(t.startswith("top-1 %: early") for t in titles)
    found = [m for m in data["matrices"] if m]
    assert len(found) == 1 and found[0]["names"] == CLASSES
    assert found[0]["counts"] == np.load(runs / "linear" / "confusion.npy").tolist()


def test_the_page_says_what_lies_across_and_what_colours_mean(page):
    pretrained, linear = (
        next(a for a in page.split("<article") if f"<h2>{n}</h2>" in a) for n in ("pretrained", "linear")
    )
    assert "Over training steps. Point at a curve" in pretrained
    assert "Over epochs, unless the title says over what. Point" in linear  # early recognition is over what is seen
    legend = linear.split("Hardest classes, moving")[1][:600]
    words = ["trunk", "right arm", "left arm", "right leg", "left leg"]
    assert re.findall(r"<b class=part\d>([^<]+)</b>", legend) == words and "other person" in legend
    layout = data_of(page)["layouts"]["kinect_v2_25"]
    assert layout["parts"] == words and layout["part"][get_layout("kinect_v2_25").names.index("left wrist")] == 2
    style = page.split("<style>")[1].split("</style>")[0]
    assert all(f".part{i} {{ color: var(--part{i}); }}" in style for i in range(5))


def unpack(stage, frames, joints=25):
    raw = np.frombuffer(base64.b64decode(stage["data"]), "<i2").reshape(frames, stage["persons"], joints, 3)
    return np.where(raw == -32768, np.nan, raw * stage["scale"])


def test_moving_figures_are_the_clips(runs, page):
    data = data_of(page)
    split = runs.parent / "tiny" / "xsub"
    clips, counts = np.load(split / "val_data_joint.npy"), np.minimum(np.load(split / "val_num_frame.npy"), 90)
    plain = {k: c for k, c in data["clips"].items() if len(c["stages"]) == 1}
    assert len(plain) == 4
    for key, clip in plain.items():
        i = int(key.rpartition("_")[2])
        assert clip["frames"] == counts[i] and clip["fps"] == 30
        true = clips[i, :, : counts[i]]  # (3, t, V, M)
        found = unpack(clip["stages"][0], clip["frames"])
        assert found.shape[1] == (2 if true[..., 1].any() else 1)
        right = np.nan_to_num(found[..., 0]).transpose(0, 2, 1)  # (t, V, M)
        assert np.abs(right - true[0][..., : right.shape[2]]).max() < 1e-3
    for clip in (c for c in data["clips"].values() if len(c["stages"]) == 3):
        hidden = np.frombuffer(base64.b64decode(clip["hidden"]), np.uint8).reshape(64, 25).astype(bool)
        assert 0.4 < hidden.mean() < 0.95
        seen, predicted, true = (unpack(stage, 64)[:, 0] for stage in clip["stages"])
        assert np.array_equal(seen, true) and np.abs(predicted - true)[~hidden].max() < 1e-3
        assert np.abs(predicted - true)[hidden].max() > 1e-2


# every stroke, bar and letter, before the page's own script runs: [canvas, what, colour, opacity, numbers...]
RECORD = """
window.drawn = [];
const pens = CanvasRenderingContext2D.prototype;
for (const what of ["moveTo", "lineTo", "stroke", "fillRect", "strokeRect", "fillText", "arc"]) {
  const own = pens[what];
  pens[what] = function (...values) {
    drawn.push([this.canvas, what, this.strokeStyle, this.globalAlpha, ...values]);
    return own.apply(this, values);
  };
}
window.strokes = (canvas) => [...new Set(drawn.filter((d) => d[0] === canvas && d[1] === "stroke").map((d) => d[2]))];
window.frames = (n) => new Promise((done) => {
  const next = () => n-- > 0 ? requestAnimationFrame(next) : done();
  next();
});
"""


@pytest.mark.skipif(find_browser() is None, reason="no Chromium on the PATH and no PCM3_BROWSER")
def test_the_page_in_a_browser(page_path, tmp_path):
    """Opened and clicked through: figures move, stop and turn, values show, lines go, nothing is asked of a network."""
    data = data_of(page_path.read_text(encoding="utf-8"))
    contrasts = next(j for j, panel in enumerate(data["charts"][0]) if panel["title"] == "contrast losses")
    whole, predicted = (next(k for k, clip in data["clips"].items() if len(clip["stages"]) == n) for n in (1, 3))
    chart, clip = f"[data-chart='0,{contrasts}']", f"[data-clip={json.dumps(whole)}]"

    def canvas():
        return page.js(f"document.querySelector('{clip} canvas').toDataURL()")

    def changed(first):
        return until(lambda: canvas() != first, "the figure stands still")

    def tip():
        return page.js("document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent")

    def says(button):
        return page.js(f"document.querySelector('{button}').textContent")

    def colours(*names):
        return {page.js(f"getComputedStyle(document.documentElement).getPropertyValue('--{n}').trim()") for n in names}

    def strokes(figure):
        found = f"[...document.querySelectorAll({json.dumps(figure + ' canvas')})].map(strokes)"
        return [set(drawn) for drawn in page.js(found)]

    (tmp_path / "profile").mkdir()
    with Page(find_browser(), tmp_path / "profile") as page:
        page.open(page_path.as_uri(), RECORD)
        page.at(clip)
        assert says(f"{clip} button") == "Pause" and changed(canvas()), "figures move by themselves"
        page.click(f"{clip} button")
        still = canvas()
        page.js("frames(12)")
        assert says(f"{clip} button") == "Play" and canvas() == still
        x, y = page.at(f"{clip} canvas")
        page.mouse("mousePressed", x, y, button="left", buttons=1, clickCount=1)
        page.mouse("mouseMoved", x + 40, y, button="left", buttons=1)
        page.mouse("mouseReleased", x + 40, y, button="left", clickCount=1)
        assert canvas() != still, "a dragged figure turns"
        slider = f"document.querySelector('{clip} input')"
        page.js(f"drawn.length = 0, {slider}.value = 3, {slider}.dispatchEvent(new Event('input'))")
        bones = page.js(
            f"drawn.filter((d) => d[0] === document.querySelector('{clip} canvas') && d[1] === 'lineTo').length"
        )
        assert bones in (24, 48)  # of one person or of two
        page.click(f"{clip} button")
        assert until(lambda: page.js(f"Number({slider}.value)") not in (3, 0) and changed(still))
        assert colours("part0", "part4") <= strokes(clip)[0]
        assert says("#all") == "Pause all"
        page.click("#all")
        assert says("#all") == "Play all"
        assert page.js("[...document.querySelectorAll('.player button')].every(b => b.textContent === 'Play')")
        slider = f"document.querySelector('[data-clip={json.dumps(predicted)}] input')"
        page.js(f"for (let i = 0; i < 64; i++) {slider}.value = i, {slider}.dispatchEvent(new Event('input'))")
        seen, guessed, true = strokes(f"[data-clip={json.dumps(predicted)}]")
        assert colours("predicted") <= guessed - true - seen and colours("true") <= true - guessed - seen
        assert colours("seen") <= seen
        page.hover(chart)
        assert until(tip).startswith("at ") and "query: " in tip() and "masked: " in tip()
        page.click(f"{chart} + .legend button")
        assert page.js(f"document.querySelector(`{chart} + .legend button`).getAttribute('aria-pressed')") == "false"
        assert page.js(f"document.querySelectorAll(`{chart} + .legend button`).length") == 4
        page.hover(chart)
        assert "masked: " in until(tip) and "query: " not in tip()
        counts = np.array(next(m for m in data["matrices"] if m)["counts"])
        width, K = page.js("document.querySelector('[data-matrix]').clientWidth"), len(counts)
        left = min(150, 0.26 * width) if width > 420 else 4
        cell = (width - left - 4) / K
        height = page.js("document.querySelector('[data-matrix]').clientHeight")
        page.hover("[data-matrix]", (left + 0.5 * cell) / width, (4 + 1.5 * cell) / height)
        assert until(tip).startswith(f"{HOSTILE}\ntaken for action 0: {counts[1, 0]} of {counts[1].sum()} (")
        page.hover("h1")
        until(lambda: not tip(), "the tip stays when nothing is pointed at")
        bars = page.js("drawn.filter((d) => d[0].dataset.matrix && d[1] === 'fillRect').map((d) => d[3])")
        shares = 0.08 + 0.92 * (counts / np.maximum(counts.sum(1, keepdims=True), 1))[counts > 0]
        assert bars[-len(shares) :] == pytest.approx(shares.tolist(), abs=1e-6)
        assert page.js("drawn.every((d) => d.every((v) => typeof v !== 'number' || Number.isFinite(v)))")
        page.click("details summary")
        assert page.js("document.querySelector('details').open")
        assert page.js("document.querySelector('.arguments').clientHeight") > 100
        assert page.js("document.title") == "runs" and page.js("typeof hurt") == "undefined"
        assert HOSTILE in page.js("document.querySelector('.bars').textContent")
        page.resize(390, 844, mobile=True)
        assert page.js("document.documentElement.scrollWidth") <= 390, "nothing is wider than a phone"
        page.picture(tmp_path / "phone.png")
        assert (tmp_path / "phone.png").stat().st_size > 5000
        assert not page.errors and {r for r in page.requests if not r.startswith("data:")} == {page_path.as_uri()}


def test_what_is_missing_or_broken_is_said_and_the_rest_is_shown(runs, tmp_path):
    shutil.copytree(runs, tmp_path / "runs")
    here = tmp_path / "runs"
    (here / "linear" / "confusion.npy").write_bytes(b"\x93NUMPY nonsense")
    (here / "linear" / "scores.npz").write_bytes(b"no scores")
    (here / "prediction" / "result.json").write_text('{"task": "motion_prediction", "summary": {}, "seeds": 3}')
    (here / "pretrained" / "checkpoint_last.pth.tar").write_bytes(b"no checkpoint")
    with open(here / "pretrained" / "metrics.jsonl", "a") as file:
        file.write('{"step": 13, "total": NaN}\n[1]\n{"step": "x"}\nhalf a li')
    (here / "odd").mkdir()
    (here / "odd" / "result.json").write_text("[1, 2]")
    (here / "odd" / "arguments.json").write_text('{"<b>": ')
    ran = call(report.main, f"{here} --output {tmp_path}/r.html")
    assert ran.status == 0, ran.err
    for words in ("not a readable array", "scores", "lacks what motion_prediction", "checkpoint", "odd: "):
        assert any(words in line for line in ran.out.splitlines() if line.startswith("note: ")), (words, ran.out)
    tags = Tags()
    tags.feed((tmp_path / "r.html").read_text())
    assert not tags.open and tags.seen.count("article") == 5


def test_without_its_data_a_run_is_still_reported(runs, tmp_path):
    ran = call(report.main, f"{runs} --output {tmp_path}/r.html --data-root {tmp_path}/nowhere")
    assert ran.status == 0 and "0 moving figures" in ran.out and "is not known" in ran.out
    assert not (tmp_path / "nowhere").exists()


def test_wrong_calls(runs, tmp_path):
    refused(call(report.main, f"{tmp_path}/none"), "there is no such folder")
    refused(call(report.main, f"{tmp_path}"), "no run in it")
    refused(call(report.main, f"{runs} --output {tmp_path}/report.pdf"), ".html")
    refused(call(report.main, f"{runs} --output {tmp_path}"), ".html")


def test_runs_are_found_once_and_under_their_names(runs):
    names = ["fused", "linear", "prediction", "pretrained"]
    assert [name for name, _ in find_runs([runs])] == names
    assert [name for name, _ in find_runs([runs, runs / "linear"])] == [f"runs/{name}" for name in names]
    assert [name for name, _ in find_runs([runs.parent / "tiny" / "..", runs])][0] == "report0/runs/fused"
    assert find_runs([runs / "linear"]) == [("linear", runs / "linear")]
    assert find_runs([runs / "fused.json"]) == [("fused", runs / "fused.json")]


def test_curves_are_grouped_and_gaps_stay(tmp_path):
    lines = [
        {"step": i, "contrast_query": 1.0, "contrast_mixed": None, "seed1/loss": i, "seed2/loss": 2, "skipped": 0}
        for i in (1, 2)
    ]
    lines[1]["contrast_mixed"] = 3.0
    panels = curve_panels(lines)
    assert panels["contrast losses"] == {"query": ([1, 2], [1.0, 1.0]), "mixed": ([1, 2], [None, 3.0])}
    assert list(panels["loss"]) == ["seed1", "seed2"] and "skipped" not in panels
    lines = [{"step": 1, "seed1/map_a@0.1": 0.2, "seed1/map_a@0.5": 0.1, "seed2/map_a@0.5": 0.3, "seed1/top1": 0.5}]
    panels = curve_panels(lines)
    assert panels["mAP_a by overlap, share"] == {
        n: ([1], [v]) for n, v in zip(("seed1 0.1", "seed1 0.5", "seed2 0.5"), (0.2, 0.1, 0.3), strict=True)
    }
    assert panels["top-1 of the test clips, share"] == {"seed1": ([1], [0.5])}
    (tmp_path / "metrics.jsonl").write_text("nothing\n")
    with pytest.raises(UserError, match="no record"):
        read_metrics(tmp_path)
    with pytest.raises(UserError, match="no such file"):
        read_metrics(tmp_path / "none")
    x, y = thinned(list(range(5000)), [1.23456789] * 5000)
    assert len(x) == len(y) == 600 and x[0] == 0 and x[-1] == 4999 and y[0] == 1.2346


def test_the_first_screen_has_the_result_the_method_and_its_figure(runs, tmp_path):
    from engine.report_method import sentences_of
    from feeder.sampling import ViewSettings
    from models.pcm3 import PCM3Config

    ran = call(report.main, f"{runs} --output {tmp_path}/a.html --hardest 0 --data-root {runs.parent}")
    assert ran.status == 0, ran.err
    first = (tmp_path / "a.html").read_text().split("<div id=summary>")[1].split("<h3>Results")[0]
    share = 100 * json.loads((runs / "linear" / "result.json").read_text())["summary"]["last"]["top1"]["mean"]
    assert (
        f"A linear classifier on the pretrained encoder classifies {share:.1f} % of the test clips of tiny cross_subject"
        in first
    )
    said = sentences_of(PCM3Config(), ViewSettings())
    assert len(said) == 4 and all(str(escape(line)) in first for line in said)
    marks = re.search("<figcaption>(.*?)</figcaption>", first)[1]
    assert "own clip, second person paler</b>" in marks and ">hidden, as predicted</b>" in marks
    picture = re.search(r"class=method alt='[^']*' src='data:image/png;base64,([^']+)'", first).group(1)
    assert base64.b64decode(picture).startswith(b"\x89PNG") and len(picture) > 20_000
    assert "best</b> is the highest of any test" in (tmp_path / "a.html").read_text()


def test_what_a_run_does_not_train_is_neither_told_nor_shown(runs, tmp_path):
    """The recipe for small sets neither hides nor predicts; its decoder is what it began as."""
    how = "--no-masked-view --no-predicted-view --prediction-weight 0 --rotation 10 --corruption 0"
    ran = pretrain(runs.parent, tmp_path / "run", f"--max-steps 1 {how}")
    assert ran.status == 0, ran.err
    ran = call(report.main, f"{tmp_path}/run --output {tmp_path}/a.html")
    assert ran.status == 0 and "0 moving figures" in ran.out and "note:" not in ran.out, ran.out + ran.err
    first = (tmp_path / "a.html").read_text().split("<div id=summary>")[1].split("</section>")[0]
    sentences = re.findall("<li>(.*?)</li>", first)
    assert len(sentences) == 4 and "hidden" not in first and "rotated" in sentences[3] and "mixed" in sentences[2]
    colours = re.findall("<b style='color: #[0-9a-f]{6}'>(.*?)</b>", first)
    assert colours[0].startswith("own clip") and set(colours[1:]) <= {"partner of the mixing"}
    refused(call(visualize.main, f"{tmp_path}/run/checkpoint_last.pth.tar"), "did not train the prediction", "--show")


def test_clips_are_shown_as_the_run_read_them(runs, tmp_path):
    """Joints and motion side by side, divided by the trunk: what the small recipe reads is drawn and predicted too."""
    ran = pretrain(runs.parent, tmp_path / "run", "--max-steps 1 --stream joint_motion --scale-by trunk")
    assert ran.status == 0, ran.err
    ran = call(report.main, f"{tmp_path}/run --output {tmp_path}/a.html --predictions 1")
    assert ran.status == 0 and "1 moving figures" in ran.out and "note:" not in ran.out, ran.out + ran.err
    assert "class=method" in (tmp_path / "a.html").read_text()


def test_the_sentence_compares_only_what_was_measured_on_the_same_clips():
    from types import SimpleNamespace

    from engine.report_method import headline

    def run(task, encoder, share, dataset="a"):
        summary = {"last": {"top1": {"mean": share}}} if "linear" in task else {"knn": {"1": {"mean": share}}}
        return SimpleNamespace(
            result={"task": task, "dataset": dataset, "protocol": "p", "encoder": encoder, "summary": summary},
            program="",
            path="x",
        )

    linear, nearest, raw = "classification/linear", "retrieval", "no encoder: joint coordinates"
    runs = [
        run(linear, "random encoder (x)", 0.5),
        run(nearest, raw, 0.6),
        run(linear, "random encoder (x)", 0.1, "b"),
        run(linear, "runs/p.tar", 0.77),
    ]
    assert headline(runs) == (
        "A linear classifier on the pretrained encoder classifies 77.0 % of the test clips of a p correctly, with random "
        "weights 50.0 % and the nearest neighbour by raw joints 60.0 %."
    )
    assert headline(runs[:3]) == "" and headline([SimpleNamespace(result=None, program="", path="x")]) == ""


def test_the_sentence_holds_the_honest_baselines_where_they_were_run():
    from types import SimpleNamespace

    from engine.report_method import headline

    def row(name, kind, share):
        return {"name": name, "kind": kind, "cosine": {"mean": share}}

    rows = [row("raw", "label-free", 0.4), row("bones", "label-free", 0.5), row("with labels", "supervised", 0.99), 3]
    rows += [row("random encoder, max", "label-free", 0.45)]
    rows_of_all = [*rows, row("pretrained P, max", "pretrained", 0.6), row("pretrained r/p/c.tar", "pretrained", 0.55)]
    result = {"task": "baselines", "dataset": "a", "protocol": "p", "rows": rows_of_all}
    runs = [SimpleNamespace(result=None, program="", path="x"), SimpleNamespace(result=result, program="", path="b")]
    said = headline(runs)
    assert (
        "(pretrained P, max) classifies 60.0 % of the test clips of a p correctly; a random encoder at best 45.0 %"
        in said
    )
    assert said.endswith("raw joints or bones at best 50.0 % (bones).")
    shown = SimpleNamespace(result=None, program="pretrain_moco_mask", path="r/p")  # the run that the page is about
    assert "(pretrained r/p/c.tar) classifies 55.0 %" in headline([shown, *runs])
    for odd in (rows, None, [{"kind": "pretrained", "cosine": [1]}]):
        assert headline([SimpleNamespace(result={**result, "rows": odd}, program="", path="b")]) == ""
