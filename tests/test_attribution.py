import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.inspection import permutation_importance

from jaxscape import attribution, losses
from jaxscape.analysis.attribution import Importance

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 4))
Y = X @ [1.0, -2.0, 0.0, 0.5] + 0.1 * RNG.normal(size=400)
EACH = np.arange(4)


def row_loss(weights, x, y):
    return (x @ weights - y) ** 2


def measure(models, x=X, y=Y, **options):
    arrays = (jnp.asarray(np.atleast_2d(models)), jnp.asarray(x), jnp.asarray(y))
    return attribution.importance(jax.random.key(0), row_loss, *arrays, options.pop("column", EACH), **options)


class Linear(RegressorMixin, BaseEstimator):
    def __init__(self, weights):
        self.weights = weights

    def fit(self, x, y):
        return self

    def predict(self, x):
        return x @ self.weights


def test_importance_is_that_of_scikit_learn_and_of_the_closed_form():
    weights = np.array([1.0, -2.0, 0.3, 0.0])
    found = measure(weights, num_shuffles=50)
    assert found.increases.shape == (1, 400, 4)
    theirs = permutation_importance(
        Linear(weights), X, Y, scoring="neg_mean_squared_error", n_repeats=50, random_state=0
    ).importances_mean
    np.testing.assert_allclose(found.mean, theirs, atol=0.1)
    # Shuffling adds 2 w c - 2 w^2 ... : on average 2 w times the covariance of the column with the target's residual.
    expected = [2 * w * np.cov(x, Y - X @ weights + w * x, bias=True)[0, 1] for w, x in zip(weights, X.T, strict=True)]
    np.testing.assert_allclose(found.mean, expected, atol=0.1)
    assert np.all(found.increases[:, :, 3] == 0)


def test_the_mean_is_over_models_and_the_spread_between_them():
    models = np.stack([[1.0, -2.0, 0.0, 0.0], [1.0, -2.0, 0.0, 0.5]])
    one, other, both = (measure(rows) for rows in (models[0], models[1], models))
    np.testing.assert_allclose(both.mean, (one.mean + other.mean) / 2)
    np.testing.assert_allclose(both.std, np.abs(one.mean - other.mean) / 2, atol=1e-12)


def test_inputs_of_a_column_move_together_and_so_do_near_copies():
    x = np.column_stack([X[:, 0], X[:, 0], X[:, 1:3]])
    halves = np.array([0.5, 0.5, -2.0, 0.0])
    as_inputs = measure(halves, x, column=np.array([0, 0, 1, 2]), num_shuffles=30).mean
    groups = attribution.near_copies(x, EACH)
    assert groups.tolist() == [0, 0, 1, 2]
    as_copies = measure(halves, x, groups=groups, num_shuffles=30).mean
    alone = measure(halves, x, num_shuffles=30).mean
    whole = measure([1.0, -2.0, 0.0, 0.0], x[:, [0, 2, 3, 3]], num_shuffles=30).mean
    np.testing.assert_allclose(as_inputs[0], whole[0], rtol=0.1)
    np.testing.assert_allclose(as_copies[:2], whole[0], rtol=0.1)
    assert as_copies[0] == as_copies[1]
    assert np.all(alone[:2] < 0.7 * whole[0])


def test_a_column_that_others_tell_has_little_importance_of_its_own():
    x = X.copy()
    x[:, 2] = 0.8 * x[:, 1] + 0.6 * x[:, 2]  # a distractor that the model leans on
    y = x @ [1.0, -2.0, 0.0, 0.5]
    models = np.array([1.0, -1.5, -0.5, 0.5])
    plain = measure(models, x, y).mean
    expected = attribution.expected_inputs(x, x, EACH)
    np.testing.assert_allclose(
        expected[2, :, 2], np.column_stack([x[:, [0, 1, 3]], np.ones(400)]) @ np.linalg.lstsq(
            np.column_stack([x[:, [0, 1, 3]], np.ones(400)]), x[:, 2])[0],
    )  # fmt: skip
    conditional = measure(models, x, y, expected=expected).mean
    assert plain[2] > 0.3
    assert conditional[2] < 0.5 * plain[2]
    copies = np.column_stack([x[:, :3], -x[:, 2]])
    np.testing.assert_allclose(attribution.expected_inputs(copies, copies, EACH)[3, :, 3], -x[:, 2], atol=1e-9)


def test_noise_columns_are_called_important_no_more_often_than_said():
    # The models overfit: least squares on 30 rows of noise, judged on 100 others.
    called = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        x, y = rng.normal(size=(130, 4)), rng.normal(size=130)
        models = np.stack([np.linalg.lstsq(x[rows], y[rows])[0] for rows in (slice(0, 20), slice(10, 30))])
        called += bool(np.any(attribution.significance(measure(models, x[30:], y[30:])) <= 0.1))
    # All are null: adjusted values control the chance of any.
    assert scipy.stats.binomtest(called, 150, 0.1, alternative="greater").pvalue > 1e-3
    assert called > 0


@pytest.mark.parametrize("counts", [(50, 50), (20, 380)])
def test_ranking_errors_of_noise_are_called_no_more_often_than_said(counts):
    # Errors of a ranking depend on the rows of the other class: their spread is that within each class.
    def ranking(weights, x, y):
        return losses.ranking_errors((x @ weights)[:, None], y)

    labels = np.repeat([0.0, 1.0], counts)
    called = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(len(labels), 2)) + labels[:, None] * [1.5, 0.0]
        found = attribution.importance(
            jax.random.key(seed), ranking, jnp.array([[1.0, 0.6]]), jnp.asarray(x), jnp.asarray(labels), np.arange(2),
            strata=labels.astype(int), shares=np.array([0.5, 0.5]), spread=2.0,
        )  # fmt: skip
        assert found.mean[0] > 0.1
        called += attribution.significance(found)[1] <= 0.05
    assert scipy.stats.binomtest(int(called), 150, 0.05, alternative="greater").pvalue > 1e-2


def test_strata_count_by_their_shares():
    y = np.repeat([0, 1], [300, 100])
    found = measure([1.0, -2.0, 0.0, 0.0], strata=y, shares=np.array([0.5, 0.5]))
    by_hand = [found.increases[0, y == k].mean(axis=0) for k in (0, 1)]
    np.testing.assert_allclose(found.mean, np.mean(by_hand, axis=0))
    one = found._replace(strata=np.zeros(400, int), shares=np.ones(1))
    rows = one.increases[0, :, 0]
    expected = scipy.stats.ttest_1samp(rows, 0, alternative="greater").pvalue
    alone = one._replace(increases=rows[None, :, None], groups=np.zeros(1, int))
    np.testing.assert_allclose(attribution.significance(alone), expected)
    nothing = found._replace(strata=np.array([0, 1]), increases=found.increases[:, :2])
    np.testing.assert_array_equal(attribution.significance(nothing), 1)


def test_a_stratum_without_rows_counts_only_if_it_has_no_share():
    strata, increases = np.repeat([0, 2], 20), np.random.default_rng(0).normal(size=(1, 40, 1)) + 1
    found = Importance(increases, np.zeros(1, int), strata, np.array([0.5, 0.0, 0.5]))
    both = Importance(increases, np.zeros(1, int), strata // 2, np.array([0.5, 0.5]))
    np.testing.assert_allclose(attribution.p_values(found), attribution.p_values(both))
    with pytest.raises(ValueError, match=r"strata \[1\]"):
        attribution.p_values(found._replace(shares=np.array([0.4, 0.2, 0.4])))


def test_a_class_with_a_single_row_neither_hides_what_matters_nor_makes_noise_matter():
    strata, shares = np.append(np.zeros(399, int), 1), np.array([399, 1]) / 400
    found = measure([1.0, -2.0, 0.0, 0.5], strata=strata, shares=shares)
    assert (attribution.significance(found) <= 0.05).tolist() == [True, True, False, True]
    # With equal shares the one row is half of the mean, and says as little as one row can.
    called = 0
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(size=(1, 400, 1))
        alone = Importance(noise, np.zeros(1, int), strata, np.array([0.5, 0.5]))
        called += bool(attribution.p_values(alone)[0] <= 0.05)
    assert scipy.stats.binomtest(called, 200, 0.05).pvalue > 1e-3


def test_rare_categories_do_not_make_columns_copies():
    inputs = np.zeros((40, 5))
    inputs[0, [1, 3]] = 1  # one row has the rare category of both
    inputs[:, [0, 2, 4]] = RNG.normal(size=(40, 3))
    assert attribution.near_copies(inputs, np.array([0, 0, 1, 1, 2])).tolist() == [0, 1, 2]


def test_real_columns_are_significant_and_unused_ones_are_not():
    q_values = attribution.significance(measure(np.array([1.0, -2.0, 0.0, 0.5])))
    assert (q_values <= 0.05).tolist() == [True, True, False, True]
    assert q_values[2] == 1


def test_stability_tells_a_clear_ranking_from_a_toss_up():
    rng = np.random.default_rng(0)
    plain = (np.arange(6), np.zeros(50, int), np.ones(1))
    clear = Importance(np.array([4.0, 3, 2, 1, 0, 0]) + 0.01 * rng.normal(size=(20, 50, 6)), *plain)
    tossed = Importance(rng.normal(size=(20, 50, 6)), *plain)
    stable = attribution.stability(rng, clear, top=4)
    assert (stable.same_top, stable.num_resamplings, stable.top) == (50, 50, 4)
    assert np.all((stable.low <= clear.mean) & (clear.mean <= stable.high))
    assert attribution.stability(rng, tossed, top=3).same_top < 35
    assert attribution.stability(rng, clear, top=9).top == 6


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_intervals_of_stability_are_those_of_the_bootstrap(share):
    rng = np.random.default_rng(0)
    increases = rng.normal(size=(1, 200, 1)) + share
    measured = Importance(increases, np.zeros(1, int), np.zeros(200, int), np.ones(1))
    found = attribution.stability(rng, measured, num_resamplings=2000)
    error = increases.std() / np.sqrt(200)
    np.testing.assert_allclose(found.low, increases.mean() - 1.96 * error, atol=0.2 * error)
    np.testing.assert_allclose(found.high, increases.mean() + 1.96 * error, atol=0.2 * error)
