import itertools

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


def made(increases, groups, strata=None, shares=None, **options):
    """An importance whose models have the same increases at every draw."""
    num_models, num_rows, _ = increases.shape
    strata = np.zeros(num_rows, int) if strata is None else strata
    shares = np.ones(1) if shares is None else shares
    weights = options.pop("weights", np.full(num_models, 1 / num_models))
    draws = np.tensordot(weights, increases, 1)[None]
    return Importance(increases, groups, strata, shares, weights, draws, **options)


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


def test_models_count_by_their_weights():
    models = np.stack([[1.0, -2.0, 0.0, 0.0], [1.0, -1.0, 0.0, 0.5]])
    each = np.stack([measure(model).mean for model in models])
    found = measure(models, weights=np.array([3.0, 1.0]))
    np.testing.assert_allclose(found.weights, [0.75, 0.25])
    mean = 0.75 * each[0] + 0.25 * each[1]
    np.testing.assert_allclose(found.mean, mean)
    np.testing.assert_allclose(found.std, np.sqrt(0.75 * (each[0] - mean) ** 2 + 0.25 * (each[1] - mean) ** 2))
    one = measure(models[0])
    alone = measure(models, weights=np.array([1.0, 0.0]))
    np.testing.assert_array_equal(attribution.p_values(alone), attribution.p_values(one))
    spread = attribution.stability(np.random.default_rng(0), alone, num_resamplings=400)
    expected = attribution.stability(np.random.default_rng(1), one, num_resamplings=400)
    np.testing.assert_allclose(spread.high - spread.low, expected.high - expected.low, rtol=0.2, atol=1e-9)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [2.0, -1.0], [np.nan, 1.0]])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError, match="weights of models"):
        measure(np.ones((2, 4)), weights=np.array(weights))


def test_the_importance_of_a_mixture_is_that_of_its_prediction():
    # The mean prediction of linear models is that of their mean.
    def mixture_loss(models, weights, x, y):
        return row_loss(weights @ models, x, y)

    models, weights = np.stack([[1.0, -2.0, 2.0, 0.0], [1.0, -1.0, -2.0, 0.5]]), np.array([0.5, 0.5])
    found = measure(models, weights=weights, mixture_loss=mixture_loss)
    whole = measure(weights @ models)
    np.testing.assert_allclose(found.mean, whole.mean, atol=1e-12)
    np.testing.assert_allclose(attribution.p_values(found), attribution.p_values(whole))
    # Of the third column they say the opposite: only the mean of their losses moves with it.
    assert np.abs(found.draws[:, :, 2]).max() < 1e-12
    assert measure(models).draws[:, :, 2].std() > 1
    np.testing.assert_allclose(found.std, measure(models).std)
    # What differs between members widens the interval, about the mixture's value.
    interval = attribution.stability(np.random.default_rng(0), found)
    assert interval.low[0] < found.mean[0] < interval.high[0]


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


def test_a_stratum_without_rows_counts_only_if_it_has_no_share():
    strata, increases = np.repeat([0, 2], 20), np.random.default_rng(0).normal(size=(1, 40, 1)) + 1
    found = made(increases, np.zeros(1, int), strata, np.array([0.5, 0.0, 0.5]))
    both = made(increases, np.zeros(1, int), strata // 2, np.array([0.5, 0.5]))
    np.testing.assert_allclose(attribution.p_values(found), attribution.p_values(both))
    with pytest.raises(ValueError, match=r"strata \[1\]"):
        attribution.p_values(found._replace(shares=np.array([0.4, 0.2, 0.4])))


def test_p_values_are_those_of_all_exchanges():
    # Any of the four values of a row may be the observed one: all 4^7 cases, rows weighted by their strata.
    rng = np.random.default_rng(0)
    draws, strata, shares = rng.normal(size=(3, 7, 4)) + 0.3, np.repeat([0, 1], [3, 4]), np.array([0.7, 0.3])
    found = Importance(draws.mean(axis=0)[None], np.arange(4), strata, shares, np.ones(1), draws)
    rows = (shares / [3, 4])[strata]
    losses = np.concatenate([np.zeros((1, 7, 4)), draws])
    cases = np.array(list(itertools.product(range(4), repeat=7)))
    exact = []
    for group in range(4):
        taken = losses[cases, np.arange(7), group]
        statistic = ((losses[:, :, group].sum(axis=0) - taken) / 3 - taken) @ rows
        exact.append(np.mean(statistic >= statistic[0] - 1e-12))
    assert min(exact) < 0.2
    assert max(exact) > 0.3
    np.testing.assert_allclose(attribution.p_values(found), exact, rtol=0.1)


def test_the_tail_of_a_skewed_sum_is_right_where_a_normal_one_is_not():
    rng = np.random.default_rng(0)
    outcomes = np.exp(1.5 * rng.normal(size=(11, 50)))
    outcomes = outcomes.mean(axis=0) - outcomes
    drawn = sum(outcomes[rng.integers(11, size=400_000), row] for row in range(50))
    at_zero = attribution.upper_tail(outcomes, 0.0)
    assert at_zero == pytest.approx(np.mean(drawn >= 0), abs=0.03)
    assert at_zero > 0.55
    for chance in (0.9, 0.5, 0.05, 0.001):
        found = attribution.upper_tail(outcomes, float(np.quantile(drawn, 1 - chance)))
        assert found == pytest.approx(chance, rel=0.1)
    normal = scipy.stats.norm.sf(np.quantile(drawn, 0.999) / np.sqrt(np.mean(outcomes**2, axis=0).sum()))
    assert not 0.0005 < normal < 0.002


def test_what_chance_gives_parts_the_called_columns_from_the_others():
    rng = np.random.default_rng(1)
    outcomes = np.exp(1.5 * rng.normal(size=(11, 50)))
    outcomes = outcomes.mean(axis=0) - outcomes
    drawn = sum(outcomes[rng.integers(11, size=400_000), row] for row in range(50))
    for chance in (0.2, 0.05, 0.001):
        assert attribution.upper_quantile(outcomes, chance) == pytest.approx(np.quantile(drawn, 1 - chance), rel=0.05)
    both = set()
    for effect in np.linspace(0, 0.6, 10):
        draws = rng.normal(size=(5, 40, 8)) + effect * np.arange(8) / 7
        found = Importance(draws[:1], np.array([*range(8), 7]), np.zeros(40, int), np.ones(1), np.ones(1), draws)
        called = attribution.significance(found) <= 0.05
        np.testing.assert_array_equal(found.mean > attribution.by_chance(found), called)
        both |= set(called.tolist())
    assert both == {True, False}


def test_p_values_at_the_ends():
    best, worst, none = np.ones((2, 5)), -np.ones((2, 5)), np.zeros((2, 5))
    draws = np.stack([best, worst, none], axis=2)
    found = Importance(draws[:1], np.arange(3), np.zeros(5, int), np.ones(1), np.ones(1), draws)
    # Every row is best at its own value, one of three.
    np.testing.assert_allclose(attribution.p_values(found), [3.0**-5, 1, 1], rtol=1e-6)


def test_a_class_with_a_single_row_neither_hides_what_matters_nor_makes_noise_matter():
    strata, shares = np.append(np.zeros(399, int), 1), np.array([399, 1]) / 400
    found = measure([1.0, -2.0, 0.0, 0.5], strata=strata, shares=shares)
    assert (attribution.significance(found) <= 0.05).tolist() == [True, True, False, True]
    # With equal shares the one row is half of the mean, and says as little as one row can.
    called = 0
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(size=(11, 400, 1))
        alone = Importance(noise[:1], np.zeros(1, int), strata, np.array([0.5, 0.5]), np.ones(1), noise[1:] - noise[:1])
        called += bool(attribution.p_values(alone)[0] <= 0.05)
    assert scipy.stats.binomtest(called, 200, 0.05).pvalue > 1e-3


def test_repeated_splits_are_the_corrected_t_test():
    # By hand: mean 2, variance 1, (1/3 + 30/70) = 0.7619, t = 2.2913; two degrees of freedom have a closed form.
    increases = np.array([[1.0, -1.0, 0.0], [2.0, -2.0, 0.0], [3.0, -3.0, 0.0]])
    value = (1 - 2.291288 / np.sqrt(2 + 2.291288**2)) / 2
    np.testing.assert_allclose(attribution.repeated_splits(increases, 70, 30), [value, 1 - value, 1], rtol=1e-5)
    with pytest.raises(ValueError, match="at least two"):
        attribution.repeated_splits(increases[:1], 70, 30)


def test_a_constant_column_is_no_copy_of_another():
    x = np.column_stack([X[:, 0], np.zeros(400), np.zeros(400), X[:, 0]])
    assert attribution.near_copies(x, EACH).tolist() == [0, 1, 2, 0]


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
    clear = made(np.array([4.0, 3, 2, 1, 0, 0]) + 0.01 * rng.normal(size=(20, 50, 6)), np.arange(6))
    tossed = made(rng.normal(size=(20, 50, 6)), np.arange(6))
    stable = attribution.stability(rng, clear, top=4)
    assert (stable.same_top, stable.num_resamplings, stable.top) == (50, 50, 4)
    assert np.all((stable.low <= clear.mean) & (clear.mean <= stable.high))
    assert attribution.stability(rng, tossed, top=3).same_top < 35
    assert attribution.stability(rng, clear, top=9).top == 6


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_intervals_of_stability_are_those_of_the_bootstrap(share):
    rng = np.random.default_rng(0)
    increases = rng.normal(size=(1, 200, 1)) + share
    measured = made(increases, np.zeros(1, int))
    found = attribution.stability(rng, measured, num_resamplings=2000)
    error = increases.std() / np.sqrt(200)
    np.testing.assert_allclose(found.low, increases.mean() - 1.96 * error, atol=0.2 * error)
    np.testing.assert_allclose(found.high, increases.mean() + 1.96 * error, atol=0.2 * error)


def test_columns_that_no_model_uses_cost_nothing_and_change_nothing(monkeypatch):
    weights = np.array([[1.0, 0.0, 0.3, 0.0], [0.5, 0.0, 0.0, 0.0]])
    options = {"x_train": X, "num_shuffles": 4}
    everything = measure(weights, **options)
    monkeypatch.setattr(attribution, "_MOST_NUMBERS", 800)  # one group at a time
    some = measure(weights, used=np.array([True, False, True, False]), **options)
    np.testing.assert_allclose(some.increases, everything.increases, atol=1e-15)
    np.testing.assert_allclose(some.draws, everything.draws, atol=1e-15)


def test_rounding_is_no_importance():
    # A column without weight, but for one network that counts as good as nothing: what changes is the last digit.
    models = jnp.array([[1.0, -2.0, 0.0, 0.5], [1.0, -2.0, 1e-9, 0.5]])
    together = lambda models, weights, x, y: (x @ (weights @ models) - y) ** 2  # noqa: E731
    found = attribution.importance(
        jax.random.key(0), row_loss, models, jnp.asarray(X), jnp.asarray(Y), EACH, x_train=X, mixture_loss=together,
        weights=np.array([1.0, 1e-7]),
    )  # fmt: skip
    assert attribution.p_values(found)[2] == 1


def test_each_row_by_its_own_models():
    rng = np.random.default_rng(4)
    models = rng.normal(size=(2, len(X), X.shape[1]))
    found = measure_own(models)
    for row in (0, 3):
        alone = measure(models[:, row])  # every row by the models of this one
        np.testing.assert_allclose(found.increases[:, row], alone.increases[:, row])
        np.testing.assert_allclose(found.draws[:, row], alone.draws[:, row])


def measure_own(models, x=X, y=Y, **options):
    arrays = (jnp.asarray(models), jnp.asarray(x), jnp.asarray(y))
    return attribution.importance(jax.random.key(0), row_loss, *arrays, EACH, **options)


def test_rows_learnt_from_call_noise_no_more_often_than_said():
    """Least squares on noise, judged on its own training rows: only the rows left out are honest."""
    rng = np.random.default_rng(5)
    honest, naive = [], []
    for _ in range(60):
        x, y = rng.normal(size=(40, X.shape[1])), rng.normal(size=40)
        inverse = np.linalg.inv(x.T @ x)
        fitted = inverse @ x.T @ y
        leverages = np.einsum("ni,ij,nj->n", x, inverse, x)
        without = fitted - (x @ inverse) * ((y - x @ fitted) / (1 - leverages))[:, None]
        left_out = measure_own(without[None], x, y)._replace(learnt=np.ones(40, bool))
        honest.append(attribution.p_values(left_out))
        naive.append(attribution.p_values(measure(fitted, x, y)))
    assert np.mean(np.array(honest) <= 0.05) <= 0.06
    assert np.mean(np.array(naive) <= 0.05) > 0.1


@pytest.mark.parametrize("level", [0.05, 0.01, 0.001])
def test_what_rows_learnt_from_share(level):
    # Of d weights that fit nothing the importance is |z|^2 - d, z standard normal; exchanges say it varies by |z|.
    for d in range(1, 65):
        least = attribution._LEARNT * scipy.stats.norm.isf(level)
        norm = (least + np.sqrt(least**2 + 4 * d)) / 2
        assert scipy.stats.chi2.sf(norm**2, d) <= level


def test_pooled_rows():
    rng = np.random.default_rng(6)
    first, second = (
        made(rng.normal(0.5, 1, size=(2, number, 2)), np.arange(2), np.arange(number) % 2, np.array([0.3, 0.7]))
        for number in (10, 20)
    )
    both = attribution.pooled(first, second)
    strata = [np.concatenate([each.draws[0][each.strata == k] for each in (first, second)]) for k in (0, 1)]
    np.testing.assert_allclose(both.mean, 0.3 * strata[0].mean(axis=0) + 0.7 * strata[1].mean(axis=0))
    assert both.learnt.tolist() == [False] * 10 + [True] * 20
    held_out = attribution.over_held_out(both)
    np.testing.assert_array_equal(held_out.increases, first.increases)
    np.testing.assert_allclose(attribution.p_values(held_out), attribution.p_values(first))
    spread = attribution.stability(np.random.default_rng(0), both, num_resamplings=400)
    narrow = attribution.stability(np.random.default_rng(0), both._replace(learnt=None), num_resamplings=400)
    assert np.all(spread.high - spread.low > narrow.high - narrow.low)
