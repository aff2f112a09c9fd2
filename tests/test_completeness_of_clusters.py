"""Everything there is, and nothing else: a cluster, against published tables. Apart, to run beside other files."""

import itertools

import jax
import numpy as np

from jaxscape import Budget, ExploreConfig, database, explore, surfaces
from jaxscape.search.basin_hopping import HoppingConfig


def isometries(x):
    """Count the permutations of the atoms that some rotation or rotation-inversion undoes: by trying all."""
    atoms = x.reshape(-1, 3) - x.reshape(-1, 3).mean(axis=0)
    permuted = atoms[list(itertools.permutations(range(len(atoms))))]
    left, _, right = np.linalg.svd(np.swapaxes(permuted, 1, 2) @ atoms)
    misfit = np.linalg.norm(permuted @ (left @ right) - atoms, axis=(1, 2))
    return int(np.sum(misfit < 1e-4))


# Tsai & Jordan 1993, Doye & Wales 2002; larger ones: benchmarks/completeness.py.
def test_a_lennard_jones_cluster_is_found_whole():
    problem, group = surfaces.lennard_jones(7)
    starts = jax.random.uniform(jax.random.key(0), (8, problem.dim), minval=-1.5, maxval=1.5)
    hopping = HoppingConfig(temperature=1.0, step_size=0.5, max_step=1.0)
    config = ExploreConfig(hopping=hopping, hopping_steps=500, num_searches=64)
    found = explore(problem, group, starts, jax.random.key(0), config, budget=Budget(rounds=80))
    assert len(found.minima.energies) == 4
    assert len(found.transition_states.energies) == 12
    np.testing.assert_allclose(found.minima.energies.min(), -16.505384, atol=1e-6)
    assert database.components(found).max() == 0
    for points in (found.minima, found.transition_states):
        orders = [isometries(x) for x in points.positions]
        np.testing.assert_allclose(points.log_orders, np.log(orders))
    assert isometries(found.minima.positions[found.minima.energies.argmin()]) == 20  # D5h
