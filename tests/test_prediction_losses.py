"""The two additions to the masked prediction compared with loops: errors by motion energy, and the latent target."""

import math

import torch
from programs import refused
from tiny_runs import lines, pretrain

from engine.features import load
from models import losses


def test_errors_are_weighted_by_motion():
    draw = torch.Generator().manual_seed(0)
    target, predicted = torch.randn(2, 3, 5, 4, generator=draw, dtype=torch.float64)
    hidden = torch.rand(3, 5, 4, generator=draw) < 0.5
    total, share = 0.0, 0.7
    for n in range(3):
        clip = target[n].tolist()
        energy = [[0.0] * 4 for _ in range(5)]
        for t in range(5):
            for f in range(4):
                energy[t][f] += abs(clip[t][f] - clip[t - 1][f]) if t > 0 else 0.0
                energy[t][f] += abs(clip[t + 1][f] - clip[t][f]) if t < 4 else 0.0
        mean = sum(map(sum, energy)) / 20
        for t in range(5):
            for f in range(4):
                weight = (1 - share) + share * energy[t][f] / mean
                total += weight * float(hidden[n, t, f]) * (clip[t][f] - float(predicted[n, t, f])) ** 2
    found = losses.prediction(predicted, target, hidden, energy=share)
    assert math.isclose(float(found), total / int(hidden.sum()), rel_tol=1e-12)
    assert torch.equal(
        losses.prediction(predicted, target, hidden, energy=0.0), losses.prediction(predicted, target, hidden)
    )
    weights = losses.energy_weights(target, share)
    torch.testing.assert_close(weights.mean(dim=(1, 2)), torch.ones(3, dtype=torch.float64))
    still = torch.ones(1, 5, 4, requires_grad=False)
    assert losses.energy_weights(still, 1.0).isfinite().all()  # a clip in which nothing moves


def test_the_latent_target_is_a_cosine():
    a, b = torch.randn(2, 2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = [
        1 - float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))
        for x, y in zip(a.flatten(0, 1), b.flatten(0, 1), strict=True)
    ]
    assert math.isclose(float(losses.latent(a, b)), sum(expected) / 6, rel_tol=1e-12)


def test_a_run_with_a_latent_target(data, tmp_path):
    """It is logged by its name, the key encoder follows by momentum, and the checkpoint is read like any other."""
    words = "--latent-weight 1 --prediction-energy 0.5 --contrast-m 0.9 --max-steps 2 --save-every-minutes 0"
    ran = pretrain(data, tmp_path / "run", words)
    assert ran.status == 0, ran.err
    assert lines(tmp_path / "run")[-1]["latent"] > 0
    path = tmp_path / "run" / "checkpoint_last.pth.tar"
    state = torch.load(path, weights_only=True)["state_dict"]
    name = "encoder.gru.weight_hh_l0"
    assert (state[f"encoder_q.{name}"] != state[f"encoder_k.{name}"]).any()
    load(path)
    refused(pretrain(data, tmp_path / "no", "--prediction-energy 0.5 --prediction-weight 0"), "--prediction-energy 0.5")
