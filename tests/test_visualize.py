"""Pictures of clips, views, predictions, features and curves; and those that a pretraining leaves for TensorBoard."""

import shutil

import numpy as np
import pytest
import torch
from make_checkpoint import write_classifier
from make_tiny import write_tiny_dataset
from programs import call, refused
from tiny_runs import pretrain

from engine import pictures
from engine.pictures import batch_statistics, one_of_each_class, predict_clips, principal_components, view_panels
from engine.setup import find_dataset
from engine.supervised import settings_of
from feeder.batches import Batches
from feeder.evaluation import ClipViews
from feeder.mixing import MixSettings
from feeder.sampling import ViewSettings
from models.pcm3 import PCM3, PCM3Config
from tools import visualize
from utils import checkpoint as files
from utils.drawing import (
    PART_COLOURS,
    _panels,
    animation_frames,
    check_drawing_path,
    draw_animation,
    part_legend,
    rgb,
    set_stage,
    strip_figure,
)
from utils.errors import UserError
from utils.plots import with_default_style
from utils.skeleton import LAYOUTS, get_layout


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A tiny data set with a pretraining in run/ (with its pictures for TensorBoard), and one of the motion stream."""
    folder = tmp_path_factory.mktemp("visualize")
    write_tiny_dataset(folder, frames=90)
    for name, more in (("run", "--pictures 2"), ("motion", "--stream motion --pictures 1")):
        ran = pretrain(folder, folder / name, f"--max-steps 2 {more}")
        assert ran.status == 0 and "tensorboard --logdir" in ran.out, ran.out + ran.err
    return folder


@pytest.fixture
def draw(root, tmp_path):
    """Calls tools/visualize.py on a source with words of the command line; returns (what it printed, the file)."""

    def go(source, words, name="out.png"):
        ran = call(visualize.main, f"{source} --data-root {root} --output {tmp_path / name} {words}")
        assert ran.status == 0, ran.err
        return ran.out, tmp_path / name

    return go


@pytest.fixture(scope="module")
def views(root):
    dataset = find_dataset(root, "tiny", "cross_subject", ("val",))
    return ClipViews(dataset.clips("val"), torch.tensor(dataset.layout.parents))


def frames_of(path):
    from PIL import Image

    with Image.open(path) as gif:
        return [(gif.seek(i), np.asarray(gif.convert("RGB")))[1] for i in range(gif.n_frames)], gif.info["duration"]


def test_a_picture_of_a_prediction(root, draw):
    said, path = draw(root / "run" / files.LAST, "--clips 3 --poses 4")
    assert "3 clips of tiny" in said and "12 val clips" in said and path.stat().st_size > 5000
    assert draw(root / "run", "--show prediction --clips 1")[1].stat().st_size > 5000  # a run folder has a checkpoint


def test_what_is_hidden_is_what_the_run_hid(root, views):
    """The printed error is the training log's measure only where as much is hidden."""
    model, trained = pictures.load_model(root / "run" / files.LAST)
    layout, shares = get_layout("kinect_v2_25"), []
    for ratio in (0.2, 0.6):
        settings = settings_of({**trained, "mask_ratio": ratio, "mask_segments": 4}, "a")
        found = predict_clips(model, views, torch.tensor([1]), layout, 0, settings)
        hidden = pictures.as_clip(found.hidden[0], 25, 2).any(axis=0)[..., 0]
        assert all((hidden[t] == hidden[t - t % 16]).all() for t in range(64))  # four segments
        shares.append(sum(hidden[:, list(part)].all(axis=1).mean() for part in layout.parts))
    assert shares == [1, 3]
    with pytest.raises(UserError, match="nothing to predict"):
        predict_clips(model, views, torch.tensor([1]), layout, 0, ViewSettings(mask_ratio=0.0))


def test_a_released_file_and_a_classifier(root, draw, tmp_path):
    content = files.load(root / "run" / files.LAST)
    files.save(tmp_path / "released.pth.tar", {"epoch": 1, "state_dict": content["state_dict"]})
    mine, words = draw(root / "run" / files.LAST, "", "a.png"), "--dataset tiny --protocol cross_subject"
    theirs = draw(tmp_path / "released.pth.tar", words, "b.png")
    assert theirs[0].partition(": ")[2] == mine[0].partition(": ")[2]  # the same clips, the same error
    assert theirs[1].read_bytes() == mine[1].read_bytes()
    assert "views of 1 clips" in draw(tmp_path / "released.pth.tar", f"{words} --show views --clips 1", "v.png")[0]
    path = write_classifier(tmp_path / "c.pth", trained={"dataset": "tiny", "protocol": "cross_subject"})
    assert "12 clips of tiny" in draw(path, "--show features --no-tsne")[0]
    for show in ("prediction", "views"):
        refused(call(visualize.main, f"{path} --data-root {root} --show {show}"), "no decoder", "--show features")
    refused(call(visualize.main, f"{tmp_path}/released.pth.tar --data-root {root}"), "give --dataset")


def test_a_diverged_model_is_not_drawn(root, tmp_path):
    content = files.load(root / "run" / files.LAST)
    name = next(n for n in content["state_dict"] if n.startswith("recons_decoder."))
    content["state_dict"][name].fill_(float("nan"))
    torch.save(content, tmp_path / "nan.pth.tar")
    words = f"{tmp_path}/nan.pth.tar --data-root {root} --output {tmp_path}/a.png"
    refused(call(visualize.main, words), f"{name} is not finite", "diverged")


def test_clips_of_a_data_set_still_and_moving(draw):
    said, path = draw("tiny", "--names val_0001 val_0002", "two.gif")
    frames, _ = frames_of(path)
    counts = [int(n) for n in said.partition("tiny, ")[2].partition(" frames")[0].split(", ")]
    assert len(counts) == 2 and len(frames) >= max(counts) - 1  # PIL leaves out a frame that is as the one before
    assert (frames[0] != frames[len(frames) // 2]).any()
    assert draw("tiny", "--clips 2 --split train --poses 3", "strip.svg")[1].read_bytes().find(b"</svg>") > 0


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_a_film(draw, tmp_path):
    path = draw("tiny", "--names val_0001", "one.mp4")[1]
    assert path.read_bytes()[4:8] == b"ftyp" and [p.name for p in tmp_path.iterdir()] == ["one.mp4"]


def test_a_film_needs_ffmpeg(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"ffmpeg.*give \.gif"):
        check_drawing_path(tmp_path / "a.mp4")


def test_the_four_views(root, draw):
    said, path = draw(root / "run" / files.LAST, "--show views --clips 1 --step 5")
    assert "views of 1 clips of tiny, step 5; mixing: " in said and path.stat().st_size > 5000


def test_features_with_and_without_scikit_learn(root, draw, monkeypatch):
    said, path = draw(root / "motion" / files.LAST, "--show features --no-tsne")
    assert "12 clips of tiny, 32 numbers each, 2 views" in said and path.stat().st_size > 5000
    said, _ = draw(root / "motion" / files.LAST, "--show features")
    assert "t-SNE is left out: 12 clips are too few for a perplexity of 30" in said or "not installed" in said
    monkeypatch.setitem(__import__("sys").modules, "sklearn.manifold", None)
    said, _ = draw(root / "motion" / files.LAST, "--show features --perplexity 4")
    assert "t-SNE is left out: scikit-learn is not installed; pip install" in said


def test_tsne():
    pytest.importorskip("sklearn")
    points, why = visualize.tsne(torch.randn(12, 60), 4.0, 1)
    assert points.shape == (12, 2) and not why


def test_curves_of_a_run(root, draw):
    said, path = draw(root / "run", "")
    assert " panels of " in said and path.stat().st_size > 5000


def test_what_cannot_be_drawn(root, tmp_path):
    run, motion = root / "run" / files.LAST, root / "motion" / files.LAST

    def go(words):
        return call(visualize.main, f"{words} --data-root {root}")

    for show in ("prediction", "views"):
        refused(go(f"{motion} --show {show} --output {tmp_path}/p.png"), "motion")
    refused(go(f"{run} --output {tmp_path}/p.txt"), ".png", ".gif")
    refused(go(f"{run} --show features --output {tmp_path}/p.gif"), ".png")
    refused(go(f"{tmp_path}/none.pth.tar"), "no such file")
    refused(go(f"{tmp_path} --output {tmp_path}/p.png"), "neither a checkpoint")
    refused(go(f"nothing --output {tmp_path}/p.png"), "not known")
    refused(go(f"tiny --names val_0001 other --output {tmp_path}/p.png"), "'other'", "val_0000")
    refused(go(f"{root}/tiny --show curves --output {tmp_path}/p.png"), "metrics.jsonl")
    assert not list(tmp_path.iterdir())


def test_chosen_clips_are_of_different_classes(views):
    chosen = one_of_each_class(views, 4, 0)
    assert sorted(views.clips.labels[chosen].tolist()) == [0, 1, 2, 3]
    assert len(set(one_of_each_class(views, 9, 0).tolist())) == 9


def test_a_whole_clip_is_drawn_as_it_was_prepared(root, views):
    stored = np.load(root / "tiny" / "xsub" / "val_data_joint.npy")
    clip = pictures.raw_clip(views, 3)
    assert np.array_equal(clip, stored[3, :, : clip.shape[1]]) and clip.shape[1] == views.clips.num_frame[3]


# -- what the panels show ---------------------------------------------------------------------------------------------


def test_the_mixed_view_has_the_colour_of_the_source_of_each_joint(root):
    dataset = find_dataset(root, "tiny", "cross_subject", ("train",))
    layout, clips = dataset.layout, dataset.clips("train")
    cut = ViewSettings(mix=MixSettings(probabilities=(1.0, 0.0, 0.0)))
    batches = Batches(clips, 8, 0, cut, layout)
    panels, said = view_panels(batches, 0, range(2), layout, dataset.row.classes)
    batch, mix = batches[0], batches.samples(0).mix
    assert [p.title.partition(": ")[2].split(" ")[0].strip(",") for p in panels] == [
        "query",
        "key",
        "masked",
        "mixed",
    ] * 2
    assert said.startswith("cutmix") and 0 < (mix.weight == 1).mean() < 1
    query, masked, mixed = panels[0], panels[2], panels[3]
    partner = pictures.as_clip(batch.views["query"][int(batch.partner[0])], 25, 2)
    swapped = mix.weight == 1
    assert np.array_equal(mixed.clip[:, swapped], partner[:, swapped])
    assert np.array_equal(mixed.clip[:, ~swapped], query.clip[:, ~swapped])
    assert np.allclose(mixed.paint[swapped, 0], rgb(pictures.PARTNER))
    assert np.allclose(mixed.paint[~swapped, 0], rgb(pictures.SEEN))
    gone = ~np.isfinite(masked.paint).all(axis=-1)
    assert gone[..., 0].any() and not gone[..., 1].any()
    whole = np.isfinite(masked.paint[..., 0, 0])
    assert (masked.clip[:, whole, 0] != 0).any(axis=0).mean() > 0.9  # what is drawn was not zeroed
    half = pictures.joint_paint(np.full((2, 3), 0.5), 1, "#000000", "#ffffff")
    assert np.allclose(half, 0.5)  # Mixup: between the two


def test_predictions_take_the_statistics_of_their_batch_and_leave_the_model_as_it_was(root, views):
    model, _ = pictures.load_model(root / "run" / files.LAST)
    layout = get_layout("kinect_v2_25")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = predict_clips(model, views, torch.tensor([4, 2]), layout, 0)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not any(module.training for module in model.modules())
    assert found.measured == 12 and found.true.shape == (2, 64, 150)
    assert torch.equal(found.predicted[~found.hidden], found.true[~found.hidden])
    x = torch.randn(5, 64, 150) * 3 + 1
    with batch_statistics(model):
        assert model.encoder_q.input_norm.training and not model.encoder_q.training
        normal = model.encoder_q.input_norm(x)
    assert torch.allclose(normal.mean((0, 1)), model.encoder_q.input_norm.bias, atol=1e-3)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_principal_components_are_those_of_the_covariance():
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) * torch.tensor([5.0, 3, 1, 1, 1, 0.1])
    points, share = principal_components(x, 2)
    values = torch.linalg.eigvalsh(torch.cov(x.double().T)).flip(0)
    assert torch.allclose(points.var(dim=0), values[:2]) and torch.allclose(share, values[:2] / values.sum())
    again, _ = principal_components(-x, 2)
    assert torch.allclose(points, -again)
    assert principal_components(x[:1], 2)[0].shape == (1, 1)  # fewer axes than asked for


def test_a_turned_and_a_broken_clip():
    layout = get_layout("kinect_v2_25")
    clip = np.random.default_rng(0).normal(size=(3, 2, 25, 2))
    clip[2, :, layout.up[1], 0] = clip[2, :, layout.up[0], 0] + 5  # z is up
    clip[0, 1, 3, 0] = np.nan
    clip[..., 1] = 0
    stage = set_stage([clip], layout)
    assert np.isnan(stage.views[0][1, 3, 0]).all() and np.isnan(stage.views[0][..., 1, :]).all()
    assert len(stage.lines(0, 0)[0]) == 24 and len(stage.lines(0, 1)[0]) == 23  # joint 3 ends one line
    side = set_stage([clip], layout, turn=90).views[0]
    spread = np.nanmax(side[0, :, 0, 0]) - np.nanmin(side[0, :, 0, 0])
    assert spread == pytest.approx(np.ptp(clip[1, 0, :, 0]))  # from the side, depth is what lies across
    assert np.allclose(np.diff(side[0, :, 0, 1]), np.diff(clip[2, 0, :, 0]))
    with pytest.raises(ValueError, match="a title for each"):
        strip_figure([clip], layout, ["a", "b"])


def test_moving_figures_keep_time_and_colours(tmp_path):
    layout = get_layout("sbu_15")
    clip = np.random.default_rng(0).normal(size=(3, 6, 15, 1)).cumsum(axis=1)
    paint = np.empty((6, 15, 1, 3))
    paint[:], paint[4:] = rgb("#0000ff"), rgb("#ff0000")  # red comes late
    number = draw_animation(
        tmp_path / "a.gif", [clip, clip[:, :2]], layout, ["a $ {", "b"], paints=[paint, paint[:2]], fps=12.5
    )
    frames, duration = frames_of(tmp_path / "a.gif")
    assert number == len(frames) == 6 and duration == 80
    red = [((f[..., 0] > 180) & (f[..., 2] < 80)).sum() for f in frames]
    assert not any(red[:4]) and min(red[4:]) > 20
    sizes = {picture.size for picture in animation_frames([clip] * 5, layout, columns=2)}
    assert len(sizes) == 1 and all(n % 2 == 0 for n in sizes.pop())


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_legend_says_what_the_colours_of_the_body_parts_mean(name):
    layout = get_layout(name)
    clip = np.random.default_rng(0).normal(size=(3, 2, layout.joints, 2))
    words = [words for words, _ in part_legend(layout, [clip])]
    assert words == ["trunk", "right arm", "left arm", "right leg", "left leg", "other person"]
    alone = clip * np.array([1.0, 0.0])
    assert [words for words, _ in part_legend(layout, [alone])] == words[:-1]
    for (legend, colour), part in zip(part_legend(layout, [alone]), layout.parts, strict=True):
        side = legend.split()[0]
        assert side == "trunk" or all(side in layout.names[j] for j in part)
        assert np.allclose(set_stage([alone], layout).paints[0][0, part[0], 0], rgb(colour))
    shown = strip_figure([clip], layout).legends[0]
    assert [text.get_text() for text in shown.get_texts()] == words
    assert [line.get_color() for line in shown.get_lines()][:5] == list(PART_COLOURS)
    assert not strip_figure(
        [clip], layout, paints=[np.zeros((2, layout.joints, 2, 3))]
    ).legends  # colours of somebody's own


def test_every_painted_picture_has_its_legend(root, monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(
        pictures, "draw_clips", lambda _, clips, *more, paints, legend, **look: given.append((clips, paints, legend))
    )
    for show in ("prediction", "views", "clips"):
        words = f"{root / 'run' / files.LAST} --show {show} --data-root {root} --output {tmp_path}/a.png"
        assert call(visualize.main, words).status == 0
    for (clips, paints, legend), several in zip(given, ("other person", "paler", ""), strict=True):
        if paints is None:
            assert legend is None  # that of the body parts is made where they are drawn
            continue
        ink = np.concatenate([paint[..., 0, :][np.isfinite(paint[..., 0, 0])] for paint in paints])
        colours = np.array([rgb(colour) for _, colour in legend])
        ends = np.abs(ink[:, None] - colours).max(axis=-1).min(axis=-1)
        assert (ends < 1e-6).mean() > 0.5 and all((np.abs(ink - c).max(axis=-1) < 1e-6).any() for c in colours[:2])
        assert any(several in text for text, _ in legend) == any(clip[..., 1:].any() for clip in clips)


def test_a_moving_figure_is_on_white_paper_with_a_legend_and_whole_titles(tmp_path):
    layout = get_layout("kinect_v2_25")
    clip = np.random.default_rng(0).normal(size=(3, 3, 25, 1)) * np.array([1, 1, 3.0])[:, None, None, None]
    draw_animation(tmp_path / "a.gif", [clip] * 2, layout)
    frames, _ = frames_of(tmp_path / "a.gif")
    assert (frames[0][0, 0] == 255).all()
    width, height = animation_frames([clip] * 2, layout, legend=[])[0].size
    assert frames[0].shape[0] > height and frames[0].shape[1] == width
    below = frames[0][height:].astype(int)
    for colour in PART_COLOURS:
        assert (np.abs(below - 255 * rgb(colour)).max(axis=-1) < 12).sum() > 20, colour


def test_titles_of_panels_are_in_two_lines_and_cut_after_them():
    layout, clip = get_layout("kinect_v2_25"), np.random.default_rng(0).normal(size=(3, 3, 25, 1))
    titles = ["walk", "walk (S001C001P001)", "walk (S001C001P001) " + "and more " * 12]
    figure, panels = with_default_style(_panels)(set_stage([clip] * 3, layout, titles, legend=()), 3)
    shown = [text.get_text() for text in figure.texts]
    assert shown[0] == "walk" and shown[1].replace("\n", " ") == "walk (S001C001P001)"
    assert shown[2].endswith("…") and shown[2].count("\n") == 1
    width = panels[0].get_window_extent().width
    assert all(text.get_window_extent().width < width for text in figure.texts)


def test_a_corrupted_view_says_so(root):
    dataset = find_dataset(root, "tiny", "cross_subject", ("train",))
    layout, clips = dataset.layout, dataset.clips("train")
    for corruption in (0.0, 1.0):
        batches = Batches(clips, 8, 0, ViewSettings(corruption=corruption), layout)
        panels = view_panels(batches, 0, range(8), layout, dataset.row.classes)[0]
        assert ["corrupted" in panel.title for panel in panels] == ([bool(corruption)] * 2 + [False] * 2) * 8
        for panel in panels[:: len(panels) // 8]:  # 15 of 25 joints, wherever the first is
            red = (panel.paint[..., 0, :] == rgb(pictures.CORRUPTED)).all(axis=(0, 2))
            assert red.sum() == (15 if corruption else 0)
            gone = (panel.clip == 0).all(axis=(0, 1, 3))
            assert not (gone & ~red)[1:].any()


# -- TensorBoard ------------------------------------------------------------------------------------------------------


def test_tensorboard_gets_predictions_and_features(root):
    def content(name):
        return b"".join(p.read_bytes() for p in (root / name).glob("events.out.*"))

    assert b"\x89PNG" in content("run") and b"prediction" in content("run")
    assert b"\x89PNG" not in content("motion")  # motion has no pose to draw
    for name in ("run", "motion"):
        assert "clip_features" in (root / name / "projector_config.pbtxt").read_text()
        points = root / name / "00000" / "clip_features"
        labels = (points / "metadata.tsv").read_text().splitlines()
        classes = {line.split("\t")[0] for line in labels[1:]}  # below the header
        assert classes == {f"action {i}" for i in range(4)} and len(labels) == 25
        assert len((points / "tensors.tsv").read_text().splitlines()) == 24


def test_a_picture_that_fails_does_not_lose_the_training(root, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "strip_figure", lambda *_, **look: 1 / 0)
    ran = pretrain(root, tmp_path / "run", "--max-steps 2 --pictures 1")
    assert ran.status == 0 and "note: the pictures" in ran.out and "ZeroDivisionError" in ran.out
    assert files.load(tmp_path / "run" / files.LAST)["step"] == 2
    ran = pretrain(root, tmp_path / "none", "--max-steps 2")
    assert ran.status == 0 and "pictures" not in ran.out and not (tmp_path / "none" / "00000").exists()


def test_the_pictures_change_nothing_of_the_model(views):
    torch.manual_seed(0)
    model = PCM3(PCM3Config.from_dict({"encoder": {"hidden_size": 16, "num_layers": 1}, "queue_size": 8, "topk": 8}))
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    predict_clips(model, views, torch.tensor([1]), get_layout("kinect_v2_25"), 0)
    assert model.encoder_q.training and model.linear.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
