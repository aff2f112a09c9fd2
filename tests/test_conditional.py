import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxscape import attribution
from jaxscape.analysis import conditional


def draw(x_train, x, column=None, groups=None, **options):
    column = np.arange(x.shape[1]) if column is None else column
    groups = np.arange(column.max() + 1) if groups is None else groups
    rng = np.random.default_rng(1)
    return conditional.given_others(rng, x_train, x, column, groups, **options)


def moved(drawn, group):
    """The values drawn for a group: (K, N, w)."""
    return drawn.base[group] + drawn.pool[group][drawn.donors[group]]


def test_shuffled_columns_are_the_same_values_in_another_order():
    x = np.random.default_rng(0).normal(size=(30, 3))
    column, groups = np.array([0, 0, 1]), np.array([1, 0])
    drawn = conditional.shuffled(np.random.default_rng(0), x, column, groups, num_shuffles=4)
    assert drawn.inputs.tolist() == [[2, 3], [0, 1]]
    for values in moved(drawn, 1):
        assert not np.array_equal(values, x[:, :2])
        assert sorted(map(tuple, values)) == sorted(map(tuple, x[:, :2]))


@pytest.mark.parametrize("own", [[1], [0, 3]])
def test_quantities_keep_what_a_ridge_regression_says_and_exchange_the_rest(own):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 6)) + 0.5 * rng.normal(size=(60, 1)) + 3
    train, rows = x[:30], x[30:]
    groups = np.arange(6)
    groups[own] = own[0]
    groups = np.unique(groups, return_inverse=True)[1]
    drawn = draw(train, rows, groups=groups)
    # By hand: the hat matrix of every strength, and the coefficients of the one of least generalised cross-validation.
    others = np.setdiff1d(np.arange(6), own)
    design, targets = ((part - part.mean(axis=0)) / part.std(axis=0) for part in (train[:, others], train[:, own]))
    best = (np.inf, None)
    for strength in np.geomspace(1e-5, 10, 25):
        solver = np.linalg.solve(design.T @ design + 30 * strength * np.eye(len(others)), design.T)
        hat = design @ solver + 1 / 30
        score = np.sum((targets - hat @ targets) ** 2) / (1 - np.trace(hat) / 30) ** 2
        best = min(best, (score, solver @ targets), key=lambda each: each[0])
    inputs = (rows[:, others] - train[:, others].mean(axis=0)) / train[:, others].std(axis=0)
    expected = train[:, own].mean(axis=0) + train[:, own].std(axis=0) * (inputs @ best[1])
    group = groups[own[0]]
    np.testing.assert_allclose(drawn.base[group, :, : len(own)], expected, rtol=1e-6)
    left = rows[:, own] - expected
    for values in moved(drawn, group):
        exchanged = (values - drawn.base[group])[:, : len(own)]
        np.testing.assert_allclose(np.sort(exchanged, axis=0), np.sort(left, axis=0), atol=1e-6)


def test_a_column_that_bends_with_another_or_with_a_product_keeps_only_its_noise():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 12))
    x[:, 3] = np.abs(x[:, 0]) + 0.3 * x[:, 3]
    x[:, 4] = x[:, 1] * x[:, 2] + 0.5 * x[:, 4]
    x[:, 5] = np.sin(2.5 * x[:, 6]) + 0.5 * x[:, 5]
    left = draw(x[:700], x[700:]).pool.std(axis=1)[:, 0]
    np.testing.assert_allclose(left[[3, 4]], [0.3, 0.5], rtol=0.1)
    assert left[5] < 0.7  # of 0.87
    np.testing.assert_allclose(left[6:], 1, rtol=0.15)


def test_categories_are_drawn_by_their_probabilities():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 3))
    slopes = np.array([[1.5, 0, -1], [0, 2, 0], [0, 0, 0.0]])
    odds = np.exp(x @ slopes + [0, 0.5, -1])
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    codes = np.array([rng.choice(3, p=each) for each in probabilities])
    inputs = np.column_stack([x, np.eye(3)[codes] * 2.5 - 0.7])
    drawn = draw(inputs[:2000], inputs[2000:], np.array([0, 1, 2, 3, 3, 3]), num_shuffles=400)
    values = moved(drawn, 3)
    assert set(map(tuple, values.reshape(-1, 3))) == set(map(tuple, inputs[:, 3:]))
    shares = (values > 1).mean(axis=0)
    assert np.abs(shares - probabilities[2000:]).mean() < 0.03
    np.testing.assert_allclose(shares.mean(axis=0), np.eye(3)[codes[2000:]].mean(axis=0), atol=0.005)


def test_a_binary_column_that_is_the_product_of_two_is_told_by_them():
    rng = np.random.default_rng(0)
    x = rng.choice([-1.0, 1.0], size=(600, 5))
    x[:, 2] = np.where(rng.random(600) < 0.95, x[:, 0] * x[:, 1], -x[:, 0] * x[:, 1])
    values = moved(draw(x[:400], x[400:], num_shuffles=50), 2)[:, :, 0]
    assert set(np.unique(values)) == {-1.0, 1.0}
    assert np.mean(values == x[400:, 0] * x[400:, 1]) == pytest.approx(0.95, abs=0.03)


def test_binary_copies_move_together_through_the_combinations_there_are():
    rng = np.random.default_rng(0)
    x = rng.choice([0.0, 1.0], size=(300, 3))
    x[:, 1] = 1 - x[:, 0]
    values = moved(draw(x[:200], x[200:], groups=np.array([0, 0, 1])), 0)
    assert set(map(tuple, values.reshape(-1, 2))) == {(0.0, 1.0), (1.0, 0.0)}


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((40, 3)),
        np.random.default_rng(0).normal(size=(40, 1)),
        np.random.default_rng(0).choice([0.0, 1.0], size=(40, 1)),
        np.random.default_rng(0).normal(size=(40, 60)),
        np.random.default_rng(0).normal(size=(40, 3))[:, [0, 1, 2, 0]],
        np.random.default_rng(0).choice([0.0, 1.0], size=(40, 4))[:, [0, 1, 2, 0]],
    ],
    ids=["constant", "one column", "one binary column", "more columns than rows", "copies", "binary copies"],
)
def test_degenerate_tables_give_finite_values_like_those_seen(x):
    drawn = draw(x[:25], x[25:])
    for group in range(x.shape[1]):
        values = moved(drawn, group)
        assert np.all(np.abs(values) <= 3 * np.abs(x).max() + 1e-9)
    if x.shape[1] == 4:  # a copy has no part of its own
        np.testing.assert_allclose(moved(drawn, 0)[:, :, 0].mean(axis=0), x[25:, 0], atol=0.3)
    if not x.any():
        assert not drawn.base.any()
        assert not drawn.pool.any()


@pytest.mark.parametrize("binary", [False, True])
def test_a_neighbour_of_a_cause_is_called_no_more_often_than_said(binary):
    # The model leans on a column that only goes with the cause; shuffling it as it is always looks important.
    def row_loss(weights, x, y):
        return (x @ weights - y) ** 2

    called = np.zeros((2, 2), int)
    for seed in range(150):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(300, 3))
        x[:, 1] = 0.85 * x[:, 0] + np.sqrt(1 - 0.85**2) * x[:, 1]
        x = np.sign(x) if binary else x
        y = x[:, 0] + 0.5 * rng.normal(size=300)
        for i, x_train in enumerate((None, x[:200])):
            measured = attribution.importance(
                jax.random.key(seed), row_loss, jnp.array([[0.6, 0.4, 0.0]]), jnp.asarray(x[200:]),
                jnp.asarray(y[200:]), np.arange(3), x_train=x_train,
            )  # fmt: skip
            called[i] += attribution.p_values(measured)[:2] <= 0.05
    assert called[0].min() > 140
    assert called[1, 0] > 140
    assert scipy.stats.binomtest(int(called[1, 1]), 150, 0.05, alternative="greater").pvalue > 1e-2
