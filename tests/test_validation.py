import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscape import validation


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31))
def test_auc_and_r2_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    labels = np.append(rng.integers(0, 2, 30), [0, 1]).astype(float)
    scores = rng.normal(size=32).round(1)  # with ties
    expected = sklearn.metrics.roc_auc_score(labels, scores)
    np.testing.assert_allclose(validation.auc(jnp.asarray(labels), jnp.asarray(scores)), expected, atol=1e-12)
    pairs = validation.auc_of_pairs(jnp.asarray(scores[labels == 1]), jnp.asarray(scores[labels == 0]))
    np.testing.assert_allclose(pairs, expected, atol=1e-12)
    r2 = sklearn.metrics.r2_score(labels, scores)
    np.testing.assert_allclose(validation.r2(jnp.asarray(labels), jnp.asarray(scores)), r2, rtol=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_shuffles_stay_within_the_mask_and_the_stratum(seed, dim):
    rng = np.random.default_rng(seed)
    x, mask, strata = np.arange(12.0), rng.random(12) < 0.5, rng.integers(-1, 3, 12)
    moved = np.asarray(validation.shuffle(jax.random.key(seed), jnp.asarray(x), jnp.asarray(mask), jnp.asarray(strata)))
    np.testing.assert_array_equal(moved[~mask], x[~mask])
    for stratum in range(-1, 3):
        chosen = mask & (strata == stratum)
        assert sorted(moved[chosen].tolist()) == x[chosen].tolist()


def test_shuffles_and_random_masks_are_uniform():
    x, mask, strata = jnp.arange(4.0), jnp.array([True, True, True, False]), jnp.array([0, 0, 0, 0])
    keys = jax.random.split(jax.random.key(0), 6000)
    moved = jax.vmap(lambda key: validation.shuffle(key, x, mask, strata))(keys)
    counts = np.unique(np.asarray(moved[:, :3]), axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert counts.min() > 850
    strata = jnp.array([0, 0, 0, -1, 1, 1])
    mask = jnp.array([True, False, False, False, True, False])
    drawn = np.asarray(jax.vmap(lambda key: validation.random_mask(key, mask, strata))(keys))
    assert np.all(drawn[:, :3].sum(axis=1) == 1)
    assert np.all(drawn[:, 4:].sum(axis=1) == 1)
    assert not drawn[:, 3].any()
    np.testing.assert_allclose(drawn.mean(axis=0), [1 / 3, 1 / 3, 1 / 3, 0, 0.5, 0.5], atol=0.03)


def test_macro_auc_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    labels, scores = np.append(rng.integers(0, 3, 40), [0, 1, 2]), rng.dirichlet(np.ones(3), 43)
    expected = sklearn.metrics.roc_auc_score(labels, scores, multi_class="ovr", average="macro")
    found = validation.macro_auc(jnp.asarray(labels.astype(float)), jnp.asarray(scores))
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_resampling_draws_evenly_from_the_stratum():
    x, strata = jnp.arange(6.0), jnp.array([0, 1, 0, -1, 0, 1])
    mask = jnp.array([True, False, False, False, False, True])
    keys = jax.random.split(jax.random.key(0), 3000)
    drawn = np.asarray(jax.vmap(lambda key: validation.resample(key, x, mask, strata))(keys))
    np.testing.assert_array_equal(drawn[:, 1:5], np.tile([1.0, 2, 3, 4], (3000, 1)))
    for column, sources in ((0, [0, 2, 4]), (5, [1, 5])):
        values, counts = np.unique(drawn[:, column], return_counts=True)
        assert values.tolist() == sources
        assert counts.min() > 0.9 * 3000 / len(sources)


def test_matched_sets_are_as_large_as_the_chosen_one():
    rng = np.random.default_rng(0)
    x, strata = rng.normal(size=40), np.arange(40) % 2 - 1
    bins = validation.magnitude_strata(x, strata, size=4)
    assert np.all(bins[strata == -1] == -1)
    ordered = bins[np.argsort(-np.abs(x))]
    ordered = ordered[ordered >= 0]
    assert np.all(np.diff(ordered) >= 0)
    assert np.unique(ordered, return_counts=True)[1].tolist() == [4, 4, 4, 4, 4]


def test_matched_sets_are_others_of_the_same_sizes_where_there_are_any():
    x = np.array([10.0, 9.5, 1.0, -1.1, 0.9, 100.0, 1.05])
    mask, strata = np.array([1, 0, 1, 0, 0, 1, 0], bool), np.array([0, 0, 0, 0, 0, 0, -1])
    drawn = validation.matched_sets(np.random.default_rng(0), x, mask, strata, 200)
    assert np.all(drawn[:, [1, 5]])  # the one as large as 10; nothing is as large as 100
    assert not drawn[:, [0, 2, 6]].any()
    np.testing.assert_allclose(drawn[:, [3, 4]].mean(axis=0), 0.5, atol=0.12)
    test = validation.permutation_test(
        jax.random.key(0), lambda w: -jnp.sum(w[:2] ** 2), x, mask, sets=drawn, intervention="zero", num_shuffles=2
    )
    np.testing.assert_allclose(test.random, -100.0)  # without 9.5
    np.testing.assert_allclose(test.conserved, -(9.5**2))
    apart = validation.matched_sets(np.random.default_rng(0), x, mask, np.array([0, 1, 0, 0, 1, 0, -1]), 20)
    assert np.all(apart[:, [0, 3, 5]])
    with pytest.raises(ValueError, match="as many weights in each stratum"):
        validation.permutation_test(jax.random.key(0), planted_score, x, mask, sets=~drawn)


@pytest.mark.parametrize("intervention", ["resample", "zero", "replace"])
def test_every_intervention_finds_the_weights_that_matter(intervention):
    x = jnp.asarray(np.random.default_rng(0).normal(size=24)).at[:3].set(jnp.array([30.0, 0.0, -30.0]))
    mask = jnp.arange(24) < 3
    replacement = jnp.zeros(24) if intervention == "replace" else None
    test = validation.permutation_test(
        jax.random.key(1), planted_score, jnp.stack([x, x]), mask,
        intervention=intervention, replacement=replacement, num_draws=200, num_shuffles=40,
    )  # fmt: skip
    assert test.p_value < 0.05
    found = validation.effect(test)
    assert 0 < found.low < found.size < found.high
    if intervention != "resample":
        np.testing.assert_allclose(test.conserved, 0, atol=1e-12)


def test_sets_are_counted_and_their_overlap_is_that_of_random_ones():
    strata = np.array([0, 0, 0, 0, 1, 1, -1])
    mask = np.array([True, True, False, False, True, False, False])
    assert validation.num_sets(mask, strata) == 12
    drawn = jax.vmap(lambda key: validation.random_mask(key, jnp.asarray(mask), jnp.asarray(strata)))(
        jax.random.split(jax.random.key(0), 2000)
    )
    np.testing.assert_allclose(validation.overlap(mask, strata), np.mean(np.asarray(drawn)[:, mask]), atol=0.03)


def test_what_is_only_large_is_no_more_than_others_as_large():
    # The score looks at the 8 largest weights alike, the set holds 4 of them: special among all, not among the large.
    x = jnp.concatenate([10 + jnp.arange(8.0), jnp.linspace(0, 1, 32)])
    signs = jnp.where(jnp.arange(40) % 2 == 0, 1.0, -1.0)

    def score(weights):
        return jnp.sum(jnp.abs(weights[:8])) + 0 * jnp.sum(weights * signs)

    mask, strata = jnp.isin(jnp.arange(40), jnp.array([0, 3, 5, 6])), jnp.zeros(40, int)
    plain, matched = (
        validation.permutation_test(
            jax.random.key(0), score, x, mask, strata=strata, control=control, intervention="zero", num_shuffles=1
        )
        for control in (strata, validation.magnitude_strata(np.asarray(x), np.asarray(strata), size=8))
    )
    assert plain.p_value < 0.05 < matched.p_value


@pytest.mark.parametrize(("intervention", "replacement"), [("replace", None), ("zero", jnp.zeros(3))])
def test_an_impossible_intervention_is_a_value_error(intervention, replacement):
    with pytest.raises(ValueError, match="intervention"):
        validation.permutation_test(
            jax.random.key(0),
            jnp.sum,
            jnp.ones(3),
            jnp.ones(3, bool),
            intervention=intervention,
            replacement=replacement,
        )


def planted_score(x):
    """Only the first three weights matter, and only their order."""
    return jnp.sum(x[:3] * jnp.array([1.0, 0.0, -1.0]))


def test_the_weights_that_matter_are_found_and_others_are_not():
    x = jnp.asarray(np.random.default_rng(0).permutation(24).astype(float)).at[:3].set(jnp.array([30.0, 0.0, -30.0]))
    for chosen, expected in (([0, 1, 2], True), ([5, 6, 7], False)):
        mask = jnp.zeros(24, bool).at[jnp.array(chosen)].set(True)
        test = validation.permutation_test(jax.random.key(1), planted_score, x, mask, num_draws=200)
        assert (test.p_value < 0.05) == expected
        assert test.baseline == 60
        assert len(test.random) == 200


def test_p_values_of_random_sets_are_uniform():
    # With the null true, as many p-values lie below a bound as the bound says.
    x = jnp.asarray(np.random.default_rng(1).normal(size=10))

    def score(x):
        return -jnp.sum((x - jnp.arange(10.0)) ** 2)

    @jax.jit
    def draw(key):
        return validation.random_mask(key, jnp.arange(10) < 3, jnp.zeros(10, int))

    def one(key):
        mask = draw(key)
        return validation.permutation_test(key, score, x, mask, num_draws=60, num_shuffles=20).p_value

    values = [float(one(key)) for key in jax.random.split(jax.random.key(2), 60)]
    assert 0.3 < np.mean(values) < 0.7
    assert np.mean(np.array(values) <= 0.05) <= 0.15


def test_ties_are_not_decided_by_rounding():
    # All weights of the stratum are chosen and the score does not know their order: every random set is the same and
    # does the same damage, but for the last bits of a sum.
    differ = []
    for seed in range(8):
        x = jnp.asarray(np.random.default_rng(seed).normal(size=7))
        mask = jnp.ones(7, bool)
        test = validation.permutation_test(jax.random.key(seed), jnp.sum, x, mask, num_draws=7, num_shuffles=7)
        differ.append(len(np.unique(np.append(test.random, test.conserved.mean()))) > 1)
        assert test.p_value == 1
    assert any(differ)


def test_the_same_key_gives_the_same_test():
    mask = jnp.arange(12) < 4
    runs = [validation.permutation_test(jax.random.key(3), planted_score, jnp.arange(12.0), mask) for _ in range(2)]
    np.testing.assert_array_equal(runs[0].random, runs[1].random)


def test_a_score_that_is_not_a_number_is_no_evidence():
    with pytest.raises(ValueError, match="not finite"):
        validation.permutation_test(
            jax.random.key(0), lambda w: validation.auc(jnp.ones(5), w[:5]), jnp.arange(6.0), jnp.arange(6) < 2
        )


@pytest.mark.parametrize(("mask", "strata"), [(jnp.zeros(3, bool), None), (jnp.ones(3, bool), jnp.array([0, -1, 0]))])
def test_an_impossible_choice_is_a_value_error(mask, strata):
    with pytest.raises(ValueError, match="mask must choose"):
        validation.permutation_test(jax.random.key(0), jnp.sum, jnp.ones(3), mask, strata=strata)
