"""Probes of features: logistic regression as scikit-learn's, the same in fewer coordinates, its strength chosen by subjects."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from engine import probes


def problem(n=90, d=12, classes=3, seed=0, noise=1.0):
    """Features (n, d) of which the first three say the class, on scales of their own, and labels (n,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    x = noise * torch.randn(n, d, generator=generator)
    x[:, :3] += torch.eye(3)[labels]
    return x * torch.linspace(0.1, 5, d) + 3, labels


@pytest.mark.parametrize(("d", "strength"), [(12, 0.01), (12, 1.0), (200, 0.1)])
def test_logistic_regression_is_scikit_learns(d, strength):
    (x, y), (test, _) = problem(d=d), problem(n=40, d=d, seed=1)
    scaled = probes.Standardised.of(x)
    inside, outside = probes.in_row_space(scaled(x), scaled(test))
    assert inside.shape[1] == min(d, 89 if d > 90 else d)  # centred rows span one dimension less
    ours = probes.scores(probes.logistic_regression(inside, y, 3, strength), outside)
    scaler = StandardScaler().fit(x)
    theirs = LogisticRegression(C=strength, tol=1e-8, max_iter=5000).fit(scaler.transform(x), y)
    expected = theirs.decision_function(scaler.transform(test))
    ours = ours - ours.mean(1, keepdim=True)  # the bias is free up to a number that all classes share
    np.testing.assert_allclose(ours, expected - expected.mean(1, keepdims=True), atol=2e-4)


def test_neighbours_are_scikit_learns():
    (x, y), (test, labels) = problem(), problem(n=50, seed=1)
    found = probes.probe(x, y, test, labels, 3, np.arange(90) % 3)
    euclidean = KNeighborsClassifier(1).fit(x, y).score(test, labels)
    cosine = KNeighborsClassifier(1, metric="cosine").fit(x, y).score(test, labels)
    assert (found.euclidean, found.cosine) == (pytest.approx(euclidean), pytest.approx(cosine))
    assert found.strength in probes.STRENGTHS and 0.4 < found.linear <= 1


def test_noise_asks_for_a_smaller_strength_than_what_is_plain():
    folds = np.arange(90) // 2 % 5  # not in step with the classes
    chosen = [probes.choose_strength(*problem(noise=noise), 3, folds) for noise in (5.0, 0.05)]
    assert chosen[0] <= 0.01 and chosen[1] >= 0.3


def test_a_setting_is_chosen_that_holds_for_other_subjects():
    """A feature that says the class within a subject only: with folds of subjects it must not be believed."""
    generator = torch.Generator().manual_seed(0)
    subject, y = torch.arange(120) // 24, torch.arange(120) % 2
    sign = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0])[subject]
    x = torch.stack([(2 * y - 1) * sign, torch.randn(120, generator=generator)], 1)
    by_subject = probes.choose_strength(x, y, 2, subject.numpy())
    x[:, 0] = 2.0 * y - 1
    assert by_subject < probes.choose_strength(x, y, 2, subject.numpy())


def test_folds_are_subjects_where_names_tell_them():
    labels = np.zeros(12, dtype=int)
    names = [f"m01_s{s:02d}_e01_cor" for s in (1, 3, 5, 7, 9, 11)] * 2
    folds, words = probes.folds_of(names, labels)
    assert folds.tolist() == [0, 1, 2, 3, 4, 0] * 2 and "6 training subjects" in words
    ntu = [f"S001C001P{p:03d}R001A001" for p in (1, 2, 4)] * 4
    assert probes.folds_of(ntu, labels)[0].tolist() == [0, 1, 2] * 4
    labels = np.arange(12) % 3
    for unknown in ([f"clip {i}" for i in range(12)], ["m01_s01_e01_cor"] * 12):  # no subject, and only one
        folds, words = probes.folds_of(unknown, labels)
        assert "subjects" not in words and np.bincount(folds).min() >= 2
        assert all(len(set(folds[labels == k])) == 4 for k in range(3))


def test_features_that_never_change_are_no_division_by_zero():
    x, y = problem()
    x[:, 5] = 2.0
    found = probes.probe(x, y, x, y, 3, np.arange(90) // 2 % 5)
    assert found.cosine == found.euclidean == 1.0 and found.linear > 0.5
