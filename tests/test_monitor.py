"""1-NN on held-out clips and the spread of the embeddings during pretraining: the right numbers, and a run that does not notice."""

import json
import math

import pytest
import tiny_runs
import torch
from programs import refused
from sklearn.neighbors import KNeighborsClassifier
from tiny_runs import lines

from engine.monitor import COLLAPSED_LINES, CollapseWatch, NeighbourMonitor, evaluating, random_subset, spread
from engine.setup import find_dataset
from feeder.evaluation import ClipViews
from models.encoder import Encoder, EncoderConfig
from utils import checkpoint as files

TINY_DATASET = dict(name="tiny", train=24, val=15, frames=120)


def views_of(data, split):
    dataset = find_dataset(data, "tiny", "cross_subject", ("train", "val"))
    return ClipViews(dataset.clips(split), torch.tensor(dataset.layout.parents))


def tiny_encoder():
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(hidden_size=16, num_layers=1)).train()
    encoder.input_norm.running_mean.normal_()
    return encoder


def test_it_is_the_nearest_neighbour_of_the_clip_features(data):
    gallery, queries = views_of(data, "train"), views_of(data, "val")
    encoder = tiny_encoder()
    found = NeighbourMonitor(gallery, queries)(encoder)
    encoder.eval()
    with torch.no_grad():
        x, q = (encoder(v.centre(torch.arange(len(v)))).numpy() for v in (gallery, queries))
    twin = KNeighborsClassifier(1, metric="cosine", algorithm="brute").fit(x, gallery.clips.labels.numpy())
    assert found == pytest.approx(twin.score(q, queries.clips.labels.numpy()))


def test_nothing_of_the_encoder_or_of_chance_moves(data):
    encoder = tiny_encoder()
    encoder.encoder.eval()  # a part that was in eval mode stays there
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    modes, chance = [m.training for m in encoder.modules()], torch.get_rng_state()
    NeighbourMonitor(views_of(data, "train"), views_of(data, "val"))(encoder)
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    assert [m.training for m in encoder.modules()] == modes and torch.equal(torch.get_rng_state(), chance)
    assert all(p.grad is None and p.requires_grad for p in encoder.parameters())


def test_modes_come_back_after_an_error():
    encoder = tiny_encoder()
    with pytest.raises(RuntimeError), evaluating(encoder):
        assert not any(m.training for m in encoder.modules())
        raise RuntimeError
    assert all(m.training for m in encoder.modules())


def test_a_limit_takes_the_same_clips_every_time(data):
    views = views_of(data, "train")
    few = random_subset(views, 10)
    assert len(few) == 10 and few.clips.names == random_subset(views, 10).clips.names
    assert set(few.clips.names) < set(views.clips.names) and len(set(few.clips.labels.tolist())) > 1
    assert random_subset(views, 0) is views and random_subset(views, 1000) is views


def pretrain(data, run, more=""):
    batch = "--batch-size 12 --contrast-k 24 --topk 24"
    return tiny_runs.pretrain(data, run, f"{batch} --workers 0 --epochs 4 {more}")


@pytest.mark.parametrize("stream", ["--stream joint", "--stream motion --use-motion-feeder --exp-descri PCM3_woprompt"])
def test_the_run_is_the_same_with_and_without(data, tmp_path, stream):
    plain, watched = pretrain(data, tmp_path / "a", stream), pretrain(data, tmp_path / "b", f"{stream} --knn-every 2")
    assert plain.status == watched.status == 0, watched.err
    a, b = (files.load(tmp_path / run / files.LAST) for run in "ab")
    assert all(torch.equal(v, b["state_dict"][k]) for k, v in a["state_dict"].items())
    moments = [
        [s["momentum_buffer"] for s in content["optimizer"]["state"].values() if "momentum_buffer" in s]
        for content in (a, b)
    ]
    assert len(moments[0]) and all(torch.equal(x, y) for x, y in zip(*moments, strict=True))
    records = [json.loads(line) for line in (tmp_path / "b/metrics.jsonl").read_text().splitlines()]
    seen = {r["step"]: r["knn_top1"] for r in records if "knn_top1" in r}
    assert list(seen) == [4, 8] and all(0 <= share <= 1 for share in seen.values())  # 2 steps an epoch
    assert watched.out.count("held-out 1-NN top-1") == 2 and "1-NN" not in plain.out
    assert f"held-out 1-NN top-1 {100 * seen[8]:.2f} %" in watched.out


def test_the_last_figure_is_that_of_the_saved_encoder(data, tmp_path):
    assert pretrain(data, tmp_path, "--knn-every 4").status == 0
    shown = [json.loads(line).get("knn_top1") for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    from engine.encoders import load_encoder

    dataset = find_dataset(data, "tiny", "cross_subject", ("train", "val"))
    encoder = load_encoder(str(tmp_path / files.LAST), dataset).encoder
    assert NeighbourMonitor(views_of(data, "train"), views_of(data, "val"))(encoder) in shown


def test_it_needs_held_out_clips(data, tmp_path):
    import shutil

    shutil.copytree(data / "tiny", tmp_path / "tiny")
    (tmp_path / "tiny/xsub/val_data_joint.npy").unlink()
    assert pretrain(tmp_path, tmp_path / "a", "--max-steps 1").status == 0
    refused(pretrain(tmp_path, tmp_path / "b", "--max-steps 1 --knn-every 1"), "val_data_joint.npy")


def unit(x):
    return torch.nn.functional.normalize(x, dim=1)


def healthy(n=48, d=32):
    return unit(torch.randn(n, d, generator=torch.Generator().manual_seed(0)))


def test_spread_agrees_with_its_formulas():
    keys, own = healthy(20, 8), torch.linspace(-0.5, 1, 20)
    found = spread(keys, own)
    pairs = [float((keys[i] - keys[j]).square().sum()) for i in range(20) for j in range(i)]
    assert found["uniformity"] == pytest.approx(math.log(sum(math.exp(-2 * d) for d in pairs) / len(pairs)), rel=1e-5)
    assert found["alignment"] == pytest.approx(float((2 - 2 * own).mean()), rel=1e-5)
    values = torch.linalg.eigvalsh((keys - keys.mean(0)).T @ (keys - keys.mean(0))).clamp_min(0).sqrt()
    share = [float(v / values.sum()) for v in values if v > 1e-6]
    assert found["effective_rank"] == pytest.approx(math.exp(-sum(p * math.log(p) for p in share)), rel=1e-3)
    axes = torch.eye(8).repeat(4, 1)  # eight directions, equally often: 7 once they are centred
    assert spread(axes, own)["effective_rank"] == pytest.approx(7, rel=1e-4)
    assert spread(keys[:1], own) == {} and spread(keys * math.nan, own) == {}


def test_collapse_is_said_once_and_not_of_a_healthy_or_a_young_run():
    keys = healthy()
    watch = CollapseWatch()
    assert not any(watch(spread(keys, keys[:, 0])) for _ in range(3 * COLLAPSED_LINES))
    one_point = unit(keys[:1] + 0.01 * keys)
    on_a_line = unit(keys[:1] + torch.linspace(-2, 2, 48)[:, None] * keys[1:2])
    for collapsed in (one_point, on_a_line):
        watch, found = CollapseWatch(), spread(collapsed, keys[:, 0])
        said = [watch(found) for _ in range(3 * COLLAPSED_LINES)]
        assert [k for k, s in enumerate(said) if s] == [COLLAPSED_LINES - 1] and "collapsed" in said[
            COLLAPSED_LINES - 1
        ]
        watch = CollapseWatch()
        for _ in range(COLLAPSED_LINES):
            assert watch(found) is None or pytest.fail("a run that recovers is not collapsed")
            watch(spread(keys, keys[:, 0]))


def test_a_run_logs_its_spread_and_says_a_collapse(data, tmp_path):
    how = "--contrast-k 12 --topk 12 --decoder-hidden-size 16 --optimizer adamw -p 1 --contrast-m 0.5 --max-steps 12"
    for name, rate, collapses in (("good", 0.001, False), ("bad", 2.0, True)):
        ran = pretrain(data, tmp_path / name, f"{how} --lr {rate}")
        assert ran.status == 0, ran.err
        records = lines(tmp_path / name)
        assert all({"effective_rank", "alignment", "uniformity"} <= set(r) for r in records)
        assert ("collapsed" in ran.out) == collapses, [(r["effective_rank"], r["uniformity"]) for r in records]
