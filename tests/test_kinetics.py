import jax.numpy as jnp
import numpy as np
import pytest

from jaxscape import Symmetry, certify, from_loss, kinetics
from jaxscape.landscape.config import ExploreConfig

NEVER = -np.inf


def network(number, seed, scale=3.0):
    """Logarithms of rates that know nothing of landscapes: a random tree of wells and as many more barriers again."""
    rng = np.random.default_rng(seed)
    wells, found = rng.uniform(0, scale, number), np.full((number, number), NEVER)
    pairs = [(i, int(rng.integers(i))) for i in range(1, number)]
    for i, j in pairs + [tuple(rng.choice(number, 2, replace=False)) for _ in range(number)]:
        barrier = max(wells[i], wells[j]) + rng.uniform(0, scale)
        for a, b in ((i, j), (j, i)):
            found[a, b] = np.logaddexp(found[a, b], wells[a] - barrier)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_passage_times_and_committors_are_those_of_dense_linear_algebra(seed):
    found = network(30, seed)
    rates = np.exp(found)
    generator = rates - np.diag(rates.sum(axis=1))
    sources, targets = np.array([2, 11]), np.array([5, 29])
    inner = np.setdiff1d(np.arange(30), targets)
    times = np.linalg.solve(-generator[np.ix_(inner, inner)], np.ones(len(inner)))
    log_times = kinetics.log_mean_first_passage_times(found, targets)
    np.testing.assert_allclose(log_times[inner], np.log(times), atol=1e-10)
    assert np.all(log_times[targets] == NEVER)
    inner = np.setdiff1d(inner, sources)
    into = rates[np.ix_(inner, targets)].sum(axis=1)
    committors = kinetics.committors(found, sources, targets)
    np.testing.assert_allclose(committors[inner], np.linalg.solve(-generator[np.ix_(inner, inner)], into), atol=1e-10)
    assert committors[sources].tolist() == [0, 0]
    assert committors[targets].tolist() == [1, 1]


def test_where_numbers_have_no_digits_left_logarithms_do():
    # A chain 0 - 1 - 2, whose middle well is left once in exp(3000) visits, and then backwards all but always.
    found = np.full((3, 3), NEVER)
    found[0, 1], found[1, 0], found[1, 2], found[2, 1] = -1000.0, -10.0, -3000.0, 0.0
    # T = 1 / k01 + 1 / k12 + k10 / (k01 k12), the last by far the largest.
    assert kinetics.log_mean_first_passage_times(found, np.array([2]))[0] == pytest.approx(3990.0, abs=1e-9)
    assert kinetics.committors(found, np.array([0]), np.array([2]))[1] == pytest.approx(0.0, abs=1e-300)
    assert kinetics.fastest_path(found, np.array([0]), np.array([2])).tolist() == [0, 1, 2]


def test_the_likeliest_path_need_not_be_the_shortest():
    found = np.full((4, 4), NEVER)
    for i, j, rate in ((0, 3, 0.01), (0, 1, 1.0), (1, 2, 1.0), (2, 3, 1.0)):
        found[i, j] = found[j, i] = np.log(rate)
    found[1, 0] = found[2, 1] = np.log(0.1)
    assert kinetics.fastest_path(found, np.array([0]), np.array([3])).tolist() == [0, 1, 2, 3]


def test_what_no_way_leads_to():
    found = np.full((4, 4), NEVER)
    found[0, 1] = found[1, 0] = 0.0
    assert kinetics.log_mean_first_passage_times(found, np.array([1])).tolist() == [0.0, NEVER, np.inf, np.inf]
    np.testing.assert_array_equal(kinetics.committors(found, np.array([0]), np.array([1])), [0, 1, np.nan, np.nan])
    with pytest.raises(ValueError, match="no transition states lead"):
        kinetics.fastest_path(found, np.array([0]), np.array([3]))
    for sources, targets, message in (
        ([0], [0], "in common"),
        ([], [0], "sources must be ids"),
        ([0], [4], "from 0 to 3"),
    ):
        with pytest.raises(ValueError, match=message):
            kinetics.committors(found, np.array(sources, int), np.array(targets, int))


def test_rates_over_a_barrier_are_those_of_the_formula():
    # Wells at -1 and 1, tilted, the barrier near 0; across, a harmonic valley that narrows as it goes up.
    def loss(p, _):
        return (p["x"] ** 2 - 1) ** 2 + 0.2 * p["x"] + (1 + jnp.exp(-(p["x"] ** 2))) * p["y"] ** 2

    objective = from_loss(loss, {"x": jnp.zeros(()), "y": jnp.zeros(())})
    rough = np.array([[-1.0, 0.1], [1.0, -0.1]])
    landscape = certify.certified(objective, Symmetry((), dim=2), rough, np.array([[0.05, 0.0]]), ExploreConfig())
    roots = np.sort(np.roots([4, 0, -4, 0.2]).real)  # of the slope along x
    energy = (roots**2 - 1) ** 2 + 0.2 * roots
    along, across = 12 * roots**2 - 4, 2 * (1 + np.exp(-(roots**2)))
    temperature = 0.3
    expected = [
        np.sqrt(along[well] * across[well] / across[1])
        / (2 * np.pi)
        * np.exp(-(energy[1] - energy[well]) / temperature)
        for well in (0, 2)
    ]
    found = np.exp(kinetics.log_rates(landscape, temperature))
    order = np.argsort(landscape.minima.positions[:, 0])
    np.testing.assert_allclose([found[order[0], order[1]], found[order[1], order[0]]], expected, rtol=1e-8)
    assert np.all(np.diag(found) == 0)
    with pytest.raises(ValueError, match="temperature must be positive, got 0"):
        kinetics.log_rates(landscape, 0.0)
