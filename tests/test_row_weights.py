"""Rows that count more than others: one of weight two is one that stands in the table twice, all the way through."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import r2_score, roc_auc_score

import jaxscape as js
from jaxscape import leave_one_out, losses
from jaxscape.analysis import attribution
from jaxscape.objective import value
from jaxscape.table import baselines, datasets
from jaxscape.table.datasets import DataError, Dataset, drawn, prepare
from jaxscape.table.problem import PAPER, ExplainConfig, problem
from jaxscape.table.targets import TARGETS

ROWS, INPUTS = 30, 3
CLASSES = {"binary": ("a", "b"), "multiclass": ("a", "b", "c"), "regression": ()}


def rows(task, seed=0):
    """A dataset, how often each of its rows stands in a second one, and that one."""
    rng = np.random.default_rng(seed)
    x, classes = rng.normal(size=(ROWS, INPUTS)), CLASSES[task]
    y = x[:, 0] + 0.1 * rng.normal(size=ROWS) if task == "regression" else np.arange(ROWS) % len(classes)
    times = rng.permutation(np.arange(ROWS) % 3 + 1)
    names = tuple("abc")
    once = Dataset("t", "y", task, classes, x, y.astype(float), x, y.astype(float), names, names, np.arange(INPUTS), ())
    often = once._replace(x_train=np.repeat(x, times, axis=0), y_train=np.repeat(once.y_train, times))
    weights = times / times.mean()
    return once._replace(weights_train=weights, weights_test=weights), times, often


@pytest.mark.parametrize("task", CLASSES)
def test_scores_and_their_intervals_are_those_of_rows_that_stand_there_often(task):
    data, times, _ = rows(task)
    rng, target = np.random.default_rng(1), TARGETS[task]
    outputs = rng.normal(size=(ROWS, target.num_outputs(3))).round(1)
    said = target.predicted(outputs)
    wanted = (
        r2_score(data.y_test, said, sample_weight=times)
        if target.is_quantity
        else roc_auc_score(data.y_test, said, sample_weight=times, multi_class="ovr")
        if task == "binary"
        else np.mean([roc_auc_score(data.y_test == k, said[:, k], sample_weight=times) for k in range(3)])
    )
    found = target.score(data.y_test, said, data.weights_test)
    assert found.value == pytest.approx(wanted)
    traced = target.traced_score(*map(jnp.asarray, (data.y_test, outputs, data.weights_test)))
    assert float(traced) == pytest.approx(wanted)
    often = target.score(np.repeat(data.y_test, times), np.repeat(said, times, axis=0))
    assert often.value == pytest.approx(wanted)
    # What a row moves is what all its copies move together.
    each = np.add.reduceat(often.influences, np.append(0, np.cumsum(times)[:-1]))
    np.testing.assert_allclose(found.influences, each, atol=1e-12)


@pytest.mark.parametrize("task", CLASSES)
@pytest.mark.parametrize("loss", ["likelihood", "balanced"])
def test_energies_are_those_of_rows_that_stand_there_often(task, loss):
    if loss == "balanced" and task == "regression":
        return
    data, _, often = rows(task)
    config = ExplainConfig(hidden=(2,), penalty=PAPER.penalty, loss=loss)
    one, other = (problem(each, config).objective for each in (data, often))
    x = jax.random.normal(jax.random.key(0), (one.dim,))
    assert float(value(one, x)) == pytest.approx(float(value(other, x)))


def test_a_smooth_auc_counts_pairs_by_both_their_rows():
    data, _, often = rows("binary")
    loss = losses.auc_surrogate(lambda w, x: x @ w)
    w = jnp.ones((INPUTS, 1))
    weighted = losses.Supervised(*map(jnp.asarray, (data.x_train, data.y_train)), 0.0, jnp.asarray(data.weights_train))
    plain = losses.Supervised(*map(jnp.asarray, (often.x_train, often.y_train)), 0.0)
    assert float(loss(w, weighted)) == pytest.approx(float(loss(w, plain)))


def test_what_a_network_would_be_without_a_row_of_weight_two_is_without_both_copies():
    x, y = jnp.ones((3, 1)), jnp.array([1.0, 2.0, 6.0])
    weights = np.array([2.0, 1.0, 1.0])
    mean = js.from_rows(lambda w, x: w * x, losses.squared_errors, jnp.zeros(1), x, y, weights=weights, precision=0.0)
    found = leave_one_out.minima(mean, jnp.array([2.5]))
    np.testing.assert_allclose(found[:, 0], [4.0, 8 / 3, 4 / 3], atol=1e-9)


def test_importance_is_the_mean_over_rows_that_stand_there_often():
    rng, times = np.random.default_rng(2), np.arange(ROWS) % 3 + 1
    strata, draws = np.arange(ROWS) % 2, rng.normal(size=(4, ROWS, 2))
    shares = np.bincount(strata, times) / times.sum()
    one = attribution.Importance(draws[:1], np.arange(2), strata, shares, np.ones(1), draws, counts=times / 2)
    copies = [np.repeat(each, times, axis=-2) for each in (draws[:1], draws)]
    often = attribution.Importance(copies[0], np.arange(2), np.repeat(strata, times), shares, np.ones(1), copies[1])
    np.testing.assert_allclose(one.mean, often.mean)
    np.testing.assert_allclose(one.each, often.each)
    # Two copies of a row are no two rows: with weights the test is less sure than it would be of them.
    lifted = one._replace(draws=draws + 0.4), often._replace(draws=copies[1] + 0.4)
    assert np.all(attribution.p_values(lifted[0]) > attribution.p_values(lifted[1]))


def test_rows_of_weight_zero_are_not_there_and_equal_weights_say_nothing():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(100, 2)), rng.normal(size=100)
    weights = np.repeat([3.0, 0.0], [80, 20])
    some = prepare(datasets.from_frame(x, y, weights=weights), held_out=np.arange(100) % 2 == 0)
    kept = prepare(datasets.from_frame(x[:80], y[:80]), held_out=np.arange(80) % 2 == 0)
    np.testing.assert_array_equal(some.x_train, kept.x_train)
    np.testing.assert_array_equal(some.y_test, kept.y_test)
    np.testing.assert_allclose(some.weights_train, 1)
    assert any("20 rows of weight zero" in note for note in some.notes)
    assert any("what 80 equal ones do" in note for note in some.notes)
    plain = baselines.fit(kept, 0, kept.y_test + 0.1)
    assert baselines.fit(some, 0, some.y_test + 0.1).linear == pytest.approx(plain.linear)


def test_drawn_rows_keep_what_they_count_and_classes_count_as_in_all_rows():
    rng = np.random.default_rng(4)
    y = (rng.random(500) < 0.1).astype(float)
    own = rng.uniform(0.1, 2, 500)
    own /= own.mean()
    names = ("a",)
    x = rng.normal(size=(500, 1))
    data = Dataset("t", "y", "binary", ("a", "b"), x, y, x[:2], y[:2], names, names, np.zeros(1, int), ())
    chosen, counts = drawn(data._replace(weights_train=own), 100)
    assert counts.mean() == pytest.approx(1)
    assert np.average(y[chosen], weights=counts) == pytest.approx(np.average(y, weights=own))
    ones = chosen[y[chosen] == 1]
    assert np.ptp(counts[y[chosen] == 1] / own[ones]) < 1e-12


def test_networks_learn_what_the_rows_that_count_say():
    rng = np.random.default_rng(5)
    x, first = rng.normal(size=(120, 2)), np.arange(120) < 60
    y = np.where(first, 2, -2) * x[:, 0] + 0.1 * rng.normal(size=120)
    model = js.LandscapeRegressor(hidden=[1]).fit(x, y, sample_weight=np.where(first, 1.0, 1e-6))
    assert r2_score(y[first], model.predict(x[first])) > 0.95
    asked = pd.DataFrame(x, columns=["a", "b"]).assign(w=np.where(first, 1.0, 1e-6))
    found = js.explain(asked, y, hidden=[1], weights="w", seconds=20.0)
    assert found.explanation.performance.test > 0.95
    assert found.explanation.performance.baselines.linear.test > 0.95
    assert list(found.frame().index) == ["a", "b"]
    assert found.summary()["data"]["weighted"]
    assert found.row(0).loc["a", "contribution"] == pytest.approx(2 * x[0, 0], rel=0.2, abs=0.2)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.full(40, -1.0), "zero or more, got -1.0 in data row 1"),
        (np.r_[np.ones(39), np.nan], "got nan in data row 40"),
        (np.zeros(40), "all weights are zero"),
        (np.ones(39), "weights has 39"),
        ("v", "no column 'v'; the closest is"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(weights, message):
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 2)), columns=["a", "b"])
    with pytest.raises(DataError, match=message):
        prepare(datasets.from_frame(x, x["a"].to_numpy(), weights=weights))


def test_a_column_of_a_file_can_be_the_weights(tmp_path):
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 3)), columns=["a", "b", "y"]).assign(w=2.0)
    frame[["w", "a", "b", "y"]].to_csv(tmp_path / "t.csv", index=False)
    table = datasets.load(str(tmp_path / "t.csv"), weights="w")
    assert list(table.x.columns) == ["a", "b"]
    assert table.weights.tolist() == [2.0] * 40
    with pytest.raises(DataError, match="no column 'v' besides the target"):
        datasets.load(str(tmp_path / "t.csv"), weights="v")
