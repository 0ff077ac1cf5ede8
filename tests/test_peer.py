"""The plain peer: its views do what they say, its loss is SimCLR's, and a short run on a tiny set ends with figures."""

import json
import math

import pytest
import torch
from make_tiny import write_tiny_dataset
from torch.nn import functional as F

from benchmarks import peer_simclr as peer
from utils.skeleton import get_layout

LAYOUT = get_layout("kinect_v2_25")


def views(**given):
    return peer.Views(
        LAYOUT, peer.Settings(**{"degrees": 0.0, "shear": 0.0, "noise": 0.0, "bones": 0.0} | given), seed=1
    )


def bone_lengths(x):
    return (x - x[..., list(LAYOUT.parents), :]).norm(dim=-1)


def test_bone_lengths_change_alike_on_both_sides_and_stay_over_the_clip():
    x = torch.randn(4, 7, 1, 25, 3, generator=torch.Generator().manual_seed(0))
    y = torch.einsum("bvw,btmwc->btmvc", views(bones=0.25, probability=1.0).lengths(4), x)
    bones = [j for j in range(25) if LAYOUT.parents[j] != j]
    ratio = (bone_lengths(y) / bone_lengths(x))[..., bones]
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), atol=1e-4, rtol=1e-4)
    assert math.exp(-0.2501) < ratio.min() < 0.9 and 1.1 < ratio.max() < math.exp(0.2501)
    left, right = (bones.index(LAYOUT.names.index(f"{side} knee")) for side in ("left", "right"))
    torch.testing.assert_close(ratio[..., left], ratio[..., right], atol=1e-4, rtol=1e-4)
    assert (ratio[:, 0, 0, left] - ratio[:, 0, 0, bones.index(3)]).abs().max() > 0.01  # each bone has its own


def test_views_of_absent_persons_stay_empty_and_crops_keep_the_order():
    clips = torch.randn(6, 40, 2, 25, 3, generator=torch.Generator().manual_seed(0)).cumsum(1)
    clips[..., 1, :, :] = 0
    out = views(degrees=10, shear=0.2, noise=0.1, bones=0.2)(clips, torch.full((6,), 40))
    assert out.shape == (6, 50, 2, 25, 3) and not out[:, :, 1].any() and out[:, :, 0].all(-1).any()
    ramp = torch.arange(40.0)[None, :, None].expand(1, 40, 3)
    cut = peer.resample(ramp, torch.tensor([5.0]), torch.tensor([11.0]), 50)[0, :, 0]
    torch.testing.assert_close(cut, torch.linspace(5, 15, 50))


def test_loss_is_that_of_the_slow_formula():
    z, t = torch.randn(10, 6, generator=torch.Generator().manual_seed(0)), 0.3
    unit, total = F.normalize(z, dim=1), 0.0
    for i in range(10):
        similar = [float(unit[i] @ unit[j]) / t for j in range(10)]
        others = math.log(sum(math.exp(s) for j, s in enumerate(similar) if j != i))
        total += others - similar[(i + 5) % 10]
    assert float(peer.simclr_loss(z, t)) == pytest.approx(total / 10, rel=1e-5)


def test_a_short_run_ends_with_figures(tmp_path, capsys):
    write_tiny_dataset(tmp_path, persons=1, classes=2, train=16, val=8)
    threads = str(torch.get_num_threads())
    words = f"tiny --data-root {tmp_path} --steps 2 --batch-size 8 --hidden-size 8 --num-layers 1 --threads {threads}"
    result = peer.main(words.split())
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (
        said == result
        and {"linear", "knn", "regression"} == set(result["simclr"])
        and 0 <= result["simclr"]["knn"] <= 100
    )
    assert result["random"] != {} and result["arguments"]["steps"] == "2"
