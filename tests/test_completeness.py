"""Everything there is, and nothing else: networks and a plane, against a brute-force search of its own."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxscape import Budget, ExploreConfig, database, explore, surfaces
from jaxscape.landscape.stopping import coverage_of
from jaxscape.search.basin_hopping import HoppingConfig

# Found by the method of benchmarks/oracle.py: damped Newton on the gradient from tens of thousands of starts.
ORACLE = json.loads((Path(__file__).parent / "oracle.json").read_text())


def explored(problem, group, starts, config, seed=0):
    return explore(problem, group, starts, jax.random.key(seed), config, budget=Budget(rounds=80))


@pytest.mark.parametrize(
    ("name", "make"), [("xor3", lambda: surfaces.xor(3)), ("checker3_1e-3", lambda: surfaces.checkerboard(3))]
)
def test_small_networks_are_found_whole(name, make):
    problem, group = make()
    starts = 2 * jax.random.normal(jax.random.key(1), (8, problem.dim)) * np.geomspace(0.05, 1, 8)[:, None]
    found = explored(problem, group, starts, ExploreConfig())
    truth = ORACLE[name]
    assert len(found.minima.energies) == truth["minima"]
    np.testing.assert_allclose(np.sort(found.minima.energies), truth["minimum_energies"], atol=1e-8)
    assert len(found.transition_states.energies) == truth["transition_states"]
    np.testing.assert_allclose(np.sort(found.transition_states.energies), truth["transition_state_energies"], atol=1e-8)
    assert database.components(found).max() == 0
    assert all(seen.unseen < 0.5 for seen in coverage_of(found))


def test_the_six_humps_of_the_camel_and_their_passes():
    problem, group = surfaces.six_hump_camel()
    starts = jax.random.uniform(jax.random.key(0), (8, 2), minval=-2.0, maxval=2.0)
    found = explored(problem, group, starts, ExploreConfig(hopping=HoppingConfig(temperature=1.0)))
    np.testing.assert_allclose(np.sort(found.minima.energies), ORACLE["camel"]["minimum_energies"], atol=1e-8)
    saddles = ORACLE["camel"]["transition_state_energies"]
    np.testing.assert_allclose(np.sort(found.transition_states.energies), saddles, atol=1e-8)
