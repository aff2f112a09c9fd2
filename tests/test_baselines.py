"""Baselines: scores and intervals against scikit-learn, brute force and the bootstrap; what each model can learn."""

import numpy as np
import pytest
from sklearn.metrics import r2_score, roc_auc_score

from jaxscape.table import baselines
from jaxscape.table.datasets import Dataset
from jaxscape.table.targets import TARGETS

CLASSES = {"regression": (), "binary": ("a", "b"), "multiclass": ("a", "b", "c")}


def targets(task, latent):
    if task == "regression":
        return latent
    return np.digitize(latent, [0.3] if task == "binary" else [-0.5, 1.0]).astype(float)


def outputs(task, latent):
    """What a model says that sees `latent`; of two classes with ties."""
    if task != "multiclass":
        return np.round(latent, 1)
    logits = np.stack([-2 * latent, np.zeros_like(latent), 2 * latent - 1], axis=1)
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def of_scikit_learn(task, y, said):
    if task == "regression":
        return r2_score(y, said)
    return roc_auc_score(y, said, multi_class="ovr")


def by_pairs(task, y, said):
    """The same as the definitions have it."""
    if task == "regression":
        return 1 - np.sum((y - said) ** 2) / np.sum((y - y.mean()) ** 2)
    found = []
    for k, column in [(1, said)] if task == "binary" else enumerate(said.T):
        above = column[y == k][:, None] - column[y != k]
        found.append(np.mean((np.sign(above) + 1) / 2))
    return np.mean(found)


def drawn(task, rng, rows, blurs=(0.3, 0.6)):
    """Targets, and what two models say that see them more or less blurred."""
    latent = rng.normal(size=rows)
    return targets(task, latent), *(outputs(task, latent + blur * rng.normal(size=rows)) for blur in blurs)


@pytest.mark.parametrize("task", CLASSES)
def test_scores_are_scikit_learns_and_intervals_the_bootstraps(task):
    y, good, bad = drawn(task, np.random.default_rng(0), 200)
    for said in (good, bad):
        assert TARGETS[task].score(y, said).value == pytest.approx(of_scikit_learn(task, y, said))
    gap, low, high = TARGETS[task].difference(y, good, bad)
    assert gap == pytest.approx(of_scikit_learn(task, y, good) - of_scikit_learn(task, y, bad))
    groups = [np.arange(200)] if task == "regression" else [np.flatnonzero(y == k) for k in np.unique(y)]
    rng, draws = np.random.default_rng(1), []
    for _ in range(1000):
        rows = np.concatenate([rng.choice(group, len(group)) for group in groups])
        draws.append(by_pairs(task, y[rows], good[rows]) - by_pairs(task, y[rows], bad[rows]))
    assert (high - low) / 2 == pytest.approx(1.97 * np.std(draws), rel=0.06)
    assert (high + low) / 2 == pytest.approx(gap)
    assert TARGETS[task].difference(y, bad, good) == pytest.approx((-gap, -high, -low))


@pytest.mark.parametrize("task", CLASSES)
@pytest.mark.parametrize(
    ("rows", "blurs", "least", "most"), [(60, (0.3, 0.9), 0.91, 0.98), (16, (0.5, 0.5), 0.95, 1.0)]
)
def test_95_of_a_hundred_intervals_hold_the_truth_and_of_few_rows_more_hold_zero(task, rows, blurs, least, most):
    rng = np.random.default_rng(2)
    truth = 0.0
    if blurs[0] != blurs[1]:
        y, *said = drawn(task, rng, 20_000, blurs)
        truth = TARGETS[task].difference(y, *said)[0]
    held = []
    while len(held) < 500:
        y, *said = drawn(task, rng, rows, blurs)
        if task == "regression" or len(np.unique(y)) == len(CLASSES[task]):
            _, low, high = TARGETS[task].difference(y, *said)
            held.append(low <= truth <= high)
    assert least <= np.mean(held) <= most, np.mean(held)


def test_one_row_of_a_class_settles_nothing_and_equals_differ_by_nothing():
    y, said = np.array([1.0, 0.0, 0.0, 0.0, 0.0]), np.array([5.0, 1.0, 2.0, 3.0, 4.0])
    gap, low, high = TARGETS["binary"].difference(y, said, -said)
    assert gap == high == 1
    assert -1 <= low < -0.9
    assert TARGETS["binary"].difference(y, said, said)[0] == 0
    y = np.array([1.0, 1.0, 0.0, 0.0, 0.0])
    assert TARGETS["binary"].difference(y, said, said) == (0.0, 0.0, 0.0)
    # Every pair right, every pair wrong: no row says otherwise.
    assert TARGETS["binary"].difference(y, y, -y) == (1.0, 1.0, 1.0)


def table(task, latent, *, seed=0, train=150, test=150):
    """Three columns, and a target of some of them."""
    x = np.random.default_rng(seed).normal(size=(train + test, 3))
    y = targets(task, latent(x))
    names = ("a", "b", "c")
    parts = (x[:train], y[:train], x[train:], y[train:])
    return Dataset("t", "y", task, CLASSES[task], *parts, names, names, np.arange(3), ())


@pytest.mark.parametrize("task", CLASSES)
@pytest.mark.parametrize("straight", [True, False])
def test_each_model_learns_what_it_can_and_networks_are_measured_by_it(task, straight):
    def latent(x):
        return 2 * x[:, 0] if straight else 3 * x[:, 1] * x[:, 2]

    data = table(task, latent, train=300)
    truth = outputs(task, latent(data.x_test))
    found, beaten = (baselines.fit(data, 0, said) for said in (truth, truth[::-1].copy()))
    chance = 0.0 if task == "regression" else 0.5
    for name, each in found._asdict().items():
        learns = straight or name != "linear"
        assert (each.test > (chance + 1) / 2) == learns, (name, each)
        assert each.train > each.test - 0.02
        assert each.difference == pytest.approx(of_scikit_learn(task, data.y_test, truth) - each.test)
        assert (getattr(beaten, name).high < 0) == (learns or task == "regression")


def test_models_are_fitted_to_training_rows_alone():
    data = table("binary", lambda x: x[:, 0] + x[:, 1])
    rows = np.random.default_rng(0).permutation(len(data.y_test))
    other = data._replace(x_test=100 * data.x_test[rows], y_test=data.y_test)
    said = outputs("binary", data.x_test[:, 0])
    here, there = (baselines.fit(each, 0, said) for each in (data, other))
    assert [each.train for each in here] == [each.train for each in there]
    assert all(one.test > another.test + 0.2 for one, another in zip(here, there, strict=True))
    # The seed is that of the trees.
    assert baselines.fit(data, 0, said) == here
    assert baselines.fit(data, 1, said).forest != here.forest


def test_rare_classes_and_values_that_no_tree_can_hold_are_no_obstacle():
    data = table("multiclass", lambda x: x[:, 0], train=60, test=60)
    rare = np.where(np.cumsum(data.y_train == 2) > 2, np.minimum(data.y_train, 1), data.y_train)
    assert np.bincount(rare.astype(int))[2] == 2
    far = data.x_test.copy()
    far[0, 1] = 1e300
    found = baselines.fit(data._replace(y_train=rare, x_test=far), 0, outputs("multiclass", data.x_test[:, 0]))
    assert np.all(np.isfinite(found))


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_what_the_networks_say_must_fit_the_rows(task):
    data = table(task, lambda x: x[:, 0])
    said = outputs(task, data.x_test[:, 0])
    with pytest.raises(ValueError, match=r"must have the shape \(150,.*got \(149,"):
        baselines.fit(data, 0, said[1:])
    with pytest.raises(ValueError, match="not finite"):
        baselines.fit(data, 0, np.where(said == said.max(), np.nan, said))


def test_of_many_rows_some_are_drawn_that_count_for_all(monkeypatch):
    data = table("binary", lambda x: 2 * x[:, 0] - 2, train=600)
    said = data.x_test[:, 0]
    every = baselines.fit(data, 0, said)
    monkeypatch.setattr(baselines, "_MAX_FITTED", 200)
    assert baselines.num_fitted(data) == 200
    some = baselines.fit(data, 0, said)
    assert some.linear != every.linear
    assert some.linear.test == pytest.approx(every.linear.test, abs=0.03)
