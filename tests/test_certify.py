"""A stationary point is one whatever the scale of the loss, and what only looks like one is counted, not stored."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxscape import Budget, ExploreConfig, Status, Symmetry, explore, from_loss, newton, objective
from jaxscape.landscape import certify, ledger
from jaxscape.landscape.ledger import Search

CONFIG = ExploreConfig(hopping_steps=200, num_searches=8)


def wells(x, scale_and_offset):
    scale, offset = scale_and_offset
    return scale * ((x[0] ** 2 - 1) ** 2 + (x[1] ** 2 - 1) ** 2 + 0.1 * x[0]) + offset


# Where the derivative of each coordinate vanishes: 4 x (x² - 1) + 0.1 = 0, and y = ±1 or 0.
ROOTS = np.sort(np.roots([4.0, 0.0, -4.0, 0.1]).real)


def explored(loss, dim, data=None, rounds=2):
    starts = 3 * jax.random.normal(jax.random.key(0), (8, dim))
    problem = from_loss(loss, jnp.zeros(dim), data)
    return explore(problem, Symmetry((), dim=dim), starts, jax.random.key(1), CONFIG, budget=Budget(rounds=rounds))


@pytest.mark.parametrize(
    ("scale", "offset"), [(1.0, 0.0), (1e-10, 0.0), (1e-12, 0.0), (1e10, 0.0), (1.0, 1e10), (1e-10, 3.0)]
)
def test_four_wells_are_four_whatever_their_scale(scale, offset):
    found = explored(wells, 2, jnp.array([scale, offset]))
    expected = sorted(itertools.product(ROOTS[[0, 2]], [-1.0, 1.0]))
    positions = sorted(found.minima.positions.round(9).tolist())
    np.testing.assert_allclose(positions, expected, atol=1e-7)
    saddles = sorted([(ROOTS[1], -1.0), (ROOTS[1], 1.0), (ROOTS[0], 0.0), (ROOTS[2], 0.0)])
    np.testing.assert_allclose(sorted(found.transition_states.positions.round(9).tolist()), saddles, atol=1e-7)


@pytest.mark.parametrize(
    ("loss", "dim"),
    [
        (lambda x, _: jnp.exp(-x[0]), 1),  # the minimum lies at infinity
        (lambda x, _: jnp.exp(-x[0]) + x[1] ** 2, 2),
        (lambda x, _: x[0] ** 4 + x[1] ** 2, 2),  # no curvature in one direction
        (lambda x, _: 0 * x[0], 1),
        (lambda x, _: jax.nn.relu(x[0] - 1) + jax.nn.relu(-x[0]) + x[1] ** 2, 2),
    ],
)
def test_what_is_too_flat_to_certify_is_counted_and_said(loss, dim):
    with pytest.warns(UserWarning, match=r"too flat.*L2 penalty"):
        found = explored(loss, dim, rounds=8)
    assert len(found.minima.energies) == 0
    assert ledger.count(found.ledger, Search.MINIMA, Status.FLAT) > 0
    assert ledger.count(found.ledger, Search.MINIMA) == ledger.count(found.ledger, Search.MINIMA, Status.FLAT)


def test_a_polish_that_finds_no_rest_is_not_converged():
    runaway = from_loss(lambda x, _: jnp.exp(-x[0]) + x[1] ** 2, jnp.zeros(2))
    ends = newton.polish(runaway, jnp.array([[25.0, 0.0]]))
    assert ends.point.grad_rms[0] < 1e-10
    assert ends.point.status[0] == Status.FLAT


def test_of_the_two_sides_of_a_saddle_the_lower_counts():
    # A descent that ended on the ridge between two wells, the left one deeper.
    tilted = from_loss(lambda x, _: (x[0] ** 2 - 1) ** 2 + 0.1 * x[0] + x[1] ** 2, jnp.zeros(2))
    for factor in (1, -1):
        mirrored = from_loss(lambda x, sign: objective.value(tilted, x * sign), jnp.zeros(2), jnp.array([factor, 1.0]))
        settled = certify.settle(mirrored, np.array([[factor * ROOTS[1], 0.0]]), CONFIG)
        np.testing.assert_allclose(settled.point.position, [[factor * ROOTS[0], 0.0]], atol=1e-7)
