"""Which networks the data support: what they find, what they leave, what the budget cuts."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from jaxscape import evidence
from jaxscape.evidence import Evidence
from jaxscape.objective import gauss_newton, value
from jaxscape.table import mixture, predict
from jaxscape.table import problem as searched
from jaxscape.table.datasets import Dataset, Table, prepare
from jaxscape.table.mixture import interacting_pairs, padded, weight_groups
from jaxscape.table.problem import ExplainConfig, problem
from jaxscape.table.targets import TARGETS


def table(x, y, name="y"):
    frame = pd.DataFrame(x, columns=[f"c{i}" for i in range(np.shape(x)[1])])
    return prepare(Table("made", frame, pd.Series(y, name=name), name))


@pytest.fixture(scope="module")
def product():
    """Two columns whose product of signs decides, among eight; one more with a copy."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 8))
    x[:, 7] = x[:, 6]
    return table(x, (x[:, 1] * x[:, 4] + 0.3 * rng.normal(size=200) > 0).astype(int))


@pytest.fixture(scope="module")
def supported(product):
    return mixture.fit(product, ((1,), (4,)))


def test_groups_are_columns_and_layers():
    assert weight_groups((3, 2, 2, 1), np.array([0, 0, 1])).tolist() == [0] * 4 + [1] * 2 + [2] * 2 + [3] * 4 + [
        4
    ] * 2 + [
        5,
        5,
        6,
    ]


def test_what_two_columns_do_together_is_found(product, supported):
    assert supported.best.hidden == (4,)
    assert supported.best.awake[[1, 4]].all()
    assert supported.best.awake.sum() <= 4
    assert interacting_pairs(product, np.arange(140))[0].tolist() == [1, 4]


def test_interactions_are_those_of_an_analysis_of_variance(product):
    """The first pair's interaction sum of squares, cell by cell."""
    x, y = product.x_train, product.y_train
    cells = [np.digitize(x[:, i], np.quantile(x[:, i], [0.25, 0.5, 0.75])) for i in range(8)]
    target = y - y.mean()

    def squares(labels):
        return sum(target[labels == k].sum() ** 2 / np.sum(labels == k) for k in np.unique(labels))

    told = {
        (i, j): squares(4 * cells[i] + cells[j]) - squares(cells[i]) - squares(cells[j])
        for i in range(8)
        for j in range(i + 1, 8)
    }
    assert interacting_pairs(product, np.arange(140)).tolist() == [
        list(p) for p in sorted(told, key=lambda p: -told[p])
    ]


def test_networks_count_once_and_the_smallest_of_the_best_comes_first(supported):
    values = np.array([supported.sizes[i].found.log_evidence[j] for i, j in supported.networks])
    assert supported.weights.sum() == pytest.approx(1)
    assert values[0] >= values.max() - 0.5
    assert np.all(np.diff(values[1:]) <= 0)
    smaller = supported.networks[:, 0] < supported.networks[0, 0]
    assert not np.any(values[smaller] > values.max() - 0.5)
    for size in np.unique(supported.networks[:, 0]):
        own = np.sort(values[supported.networks[:, 0] == size])
        assert np.all(np.diff(own) > 0.05)


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_weights_move_to_what_predicts_rows_not_seen(task):
    rng = np.random.default_rng(0)
    y = rng.normal(size=50) if task == "regression" else rng.integers(0, {"binary": 2, "multiclass": 3}[task], 50)
    right = y if task == "regression" else 3 * (y - 0.5) if task == "binary" else 3 * np.eye(3)[y]
    right = right.reshape(50, -1).astype(float)
    half = (np.arange(50) < 25)[:, None]
    outputs = np.array([rng.normal(size=right.shape), np.where(half, right, 0), np.where(half, 0, right), 0 * right])
    even = np.ones(50)
    prior = np.array([10.0, 3.0, 3.0, 0.0])
    weights = mixture.stacked(TARGETS[task], outputs, y.astype(float), even, prior)
    assert weights.sum() == pytest.approx(1)
    assert min(weights[1:3]) > 3 / 16  # each knows one half of the rows
    assert weights[0] < 10 / 16  # and the first one none
    # Rows that do not count do not speak.
    first = mixture.stacked(TARGETS[task], outputs, y.astype(float), half[:, 0].astype(float), prior)
    assert first[1] > weights[1]
    assert first[2] < weights[2]
    # A row that all are utterly wrong about, and a network that is so about one row, are worth no more than others.
    hopeless = outputs.copy()
    hopeless[:, 0] = 1e3 * (1 - 2 * right[0]) if task != "multiclass" else 1e3 * (0.5 - np.eye(3)[y[0]])
    assert np.all(np.isfinite(mixture.stacked(TARGETS[task], hopeless, y.astype(float), even, prior)))
    wild = outputs.copy()
    wild[0, 0] = -1e4 * right[0]
    assert np.all(mixture.stacked(TARGETS[task], wild, y.astype(float), even, prior)[1:3] > 3 / 16)
    alike = mixture.stacked(TARGETS[task], outputs[[1, 1, 1]], y.astype(float), even, np.array([2.0, 1.0, 0.0]))
    np.testing.assert_allclose(alike, np.array([2, 1, 0.03]) / 3.03)


def test_units_of_zero_change_no_evidence(product):
    x, y = jnp.asarray(product.x_train), jnp.asarray(product.y_train)
    rng = np.random.default_rng(2)
    small, large = (mixture.architecture(product, (units,), 8) for units in (1, 3))
    at = mixture.places(small, large, np.arange(8))
    start = rng.normal(size=(2, len(weight_groups(small, product.column))))
    wide = np.zeros((2, len(weight_groups(large, product.column))))
    wide[:, at] = start
    found = []
    for sizes, starts in ((small, start), (large, wide)):
        groups = weight_groups(sizes, product.column)
        objective = mixture.objective_of(product, sizes[1:-1], "tanh", x, y)
        found.append(evidence.fit(objective, groups, jnp.asarray(starts), jnp.ones((2, groups.max() + 1))))
    one, other = found
    np.testing.assert_allclose(other.log_evidence, one.log_evidence, rtol=1e-9)
    np.testing.assert_allclose(other.determined, one.determined, atol=1e-6)
    np.testing.assert_allclose(other.positions[:, at], one.positions, atol=1e-5)
    assert not np.delete(np.asarray(other.positions), at, axis=1).any()


def test_of_networks_as_good_the_smallest_is_explored():
    def size(units, *values):
        values = np.array(values)
        found = Evidence(values[:, None], values, values, values[:, None], values[:, None], values)
        return mixture.Size((units,), found, np.ones(1, bool), values[0], np.zeros(1, int))

    networks, weights = mixture._weigh([size(1, -33.0, -33.4), size(2, -30.2, -30.4), size(3, -30.0, -31.0)])
    assert networks.tolist() == [[1, 0], [2, 0], [1, 1], [2, 1], [0, 0], [0, 1]]
    np.testing.assert_allclose(weights / weights[1], np.exp(np.array([-0.2, 0, -0.4, -1, -3, -3.4]) / 2))


def test_a_padded_network_says_the_same(product, supported):
    made = problem(product, ExplainConfig(hidden=(4,)), supported)
    small = np.asarray(made.starts[0]) * made.scale
    wide = padded(small, (4,), (6,), made.inputs, 1)
    shape = mixture.objective_of(product, (6,), "tanh", jnp.asarray(product.x_train), jnp.asarray(product.y_train))
    one = predict.Members(small[None], np.ones(1), made.objective.unravel, "tanh")
    other = predict.Members(wide[None], np.ones(1), shape.unravel, "tanh")
    np.testing.assert_allclose(
        predict.outputs(one, made.seen.x_test), predict.outputs(other, product.x_test), atol=1e-12
    )


def test_starts_and_penalties_are_the_same_for_one_seed(product, supported):
    again = mixture.fit(product, ((1,), (4,)))
    np.testing.assert_array_equal(again.best.found.alphas, supported.best.found.alphas)


def test_the_same_column_twice_has_one_penalty(product, supported):
    for size in supported.sizes:
        np.testing.assert_array_equal(size.found.alphas[:, 6], size.found.alphas[:, 7])


def test_noise_leaves_a_constant():
    rng = np.random.default_rng(1)
    data = table(rng.normal(size=(200, 5)), rng.integers(0, 2, 200))
    found = mixture.fit(data, ((1,), (3,)))
    assert found.best.awake.sum() <= 1
    share = data.y_train.mean()
    constant = len(data.y_train) * (share * np.log(share) + (1 - share) * np.log(1 - share))
    # Over five columns and their penalties the largest evidence lies a little above that of none of them.
    assert constant - 1 < found.best.log_evidence < constant + 3


def test_what_does_not_fit_the_budget_is_cut_and_said():
    rng = np.random.default_rng(0)
    rows, columns = 200_000, 40
    x = np.broadcast_to(rng.normal(size=(1, columns)), (rows, columns))
    y = np.zeros(rows)
    y[:1000] = 1
    big = Dataset("big", "y", "binary", ("0", "1"), x, y, x[:9], y[:9], ("a",) * 40, ("a",) * 40, np.arange(40), ())
    plan = mixture._plan(big, mixture.SIZES)
    assert plan.restarts == 8
    assert mixture._MIN_ROWS <= len(plan.rows) < rows
    assert big.y_train[plan.rows].sum() >= 400
    # Each class counts as it does in all rows.
    labels = big.y_train[plan.rows]
    assert plan.weights @ labels / plan.weights.sum() == pytest.approx(0.005)
    assert any("of 200,000 training rows" in sentence for sentence in plan.cut)


def test_of_very_many_columns_those_that_tell_something_are_searched(product, monkeypatch):
    monkeypatch.setattr(mixture, "_ROOM", 4)
    monkeypatch.setattr(mixture, "_MAX_FLOPS", 1e7)
    monkeypatch.setattr(mixture, "_WIDE_ROWS", 140)
    found = mixture.fit(product, ((4,),))
    assert any(sentence.startswith("of 8 columns the 4 ") for sentence in found.cut)
    size = found.best
    assert size.awake[[1, 4]].all()
    incoming = size.found.positions[:, : 8 * 4].reshape(-1, 8, 4)
    searched = np.any(incoming != 0, axis=(0, 2))
    assert searched.sum() == 4
    assert np.all(size.awake <= searched)
    # What was left out has no part in the evidence: it is that of a table without it.
    log_evidence = size.log_evidence
    positions = size.found.positions[0]
    groups = size.groups
    penalty = size.found.alphas[0][groups]
    x, y = jnp.asarray(product.x_train), jnp.asarray(product.y_train)
    energy = mixture.objective_of(product, size.hidden, "tanh", x, y)
    there = np.append(np.repeat(searched, 4), np.ones(len(groups) - 32, bool))
    curvature = len(y) * np.asarray(gauss_newton(energy, jnp.asarray(positions)))[np.ix_(there, there)]
    curvature += np.diag(penalty[there])
    expected = -len(y) * float(value(energy, jnp.asarray(positions))) - 0.5 * penalty @ positions**2
    expected += 0.5 * np.log(penalty[there]).sum() - 0.5 * np.linalg.slogdet(curvature)[1]
    assert log_evidence == pytest.approx(expected, abs=1e-6)


def test_of_many_rows_those_drawn_are_searched_at_the_penalties_of_so_many(product, supported, monkeypatch):
    monkeypatch.setattr(searched, "_MOST_NUMBERS", 100)
    monkeypatch.setattr(searched, "_DRAWN_NUMBERS", 100)
    monkeypatch.setattr(searched, "_FEWEST_DRAWN", 80)
    for penalty in ("evidence", 0.01):
        made = problem(product, ExplainConfig(penalty=penalty), supported if penalty == "evidence" else None)
        number = len(made.seen.y_train)
        assert 75 <= number <= 80
        weights = np.asarray(made.objective.data.weights)
        np.testing.assert_allclose(weights.sum(), number)
        np.testing.assert_allclose(np.average(made.seen.y_train, weights=weights), product.y_train.mean())
        if penalty == "evidence":
            size = supported.best
            kept = np.append(
                np.repeat(made.inputs, size.hidden[0]), np.ones(len(size.groups) - 8 * size.hidden[0], bool)
            )
            alphas = size.found.alphas[0][size.groups[kept]]
            np.testing.assert_allclose(made.objective.data.precision * number, alphas)
