import numpy as np
import pytest

from jaxscape.landscape import coverage


def test_estimates_agree_with_the_truth_of_a_known_population():
    # 200 kinds, unequal by a factor of ten, drawn 400 times: the lower bound is low, but not by much.
    rng = np.random.default_rng(0)
    chances = np.linspace(1, 10, 200)
    chances /= chances.sum()
    unseen, missing, estimates = [], [], []
    for _ in range(200):
        visits = rng.multinomial(400, chances)
        unseen.append(np.sum(visits == 0))
        missing.append(chances[visits == 0].sum())
        estimates.append(coverage.estimate(visits[visits > 0]))
    assert 0.7 * np.mean(unseen) < np.mean([each.unseen for each in estimates]) < 1.1 * np.mean(unseen)
    np.testing.assert_allclose(np.mean([1 - each.coverage for each in estimates]), np.mean(missing), rtol=0.05)


@pytest.mark.parametrize(
    ("visits", "unseen", "share"),
    [([], 0, 0), ([1], 0, 0), ([1, 1, 1], 2, 1 / 3), ([9, 8], 0, 1), ([4, 4, 1], 0, 1)],
)
def test_small_counts_are_neither_nan_nor_too_sure(visits, unseen, share):
    seen = coverage.estimate(np.array(visits, int))
    assert seen.found == len(visits)
    np.testing.assert_allclose([seen.unseen, seen.coverage], [unseen, share], atol=1e-12)


def test_a_long_run_without_anything_new_bounds_the_chance_of_more():
    assert coverage.chance_of_more(0) == 1
    bound = coverage.chance_of_more(300)
    np.testing.assert_allclose((1 - bound) ** 300, 0.05, atol=2e-3)
