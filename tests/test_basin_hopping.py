import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxscape import basin_hopping, from_loss, from_rows, surfaces
from jaxscape.losses import squared_errors
from jaxscape.search.basin_hopping import HoppingConfig
from jaxscape.search.gauss_newton import GaussNewtonConfig
from jaxscape.search.points import Status

CONFIG = HoppingConfig(temperature=0.05)


def start():
    problem, _ = surfaces.xor()
    starts = jax.random.normal(jax.random.key(0), (4, problem.dim))
    return problem, basin_hopping.init(jax.random.key(1), starts, CONFIG)


def test_stopping_and_going_on_changes_nothing():
    problem, state = start()
    whole, all_points = basin_hopping.run(problem, state, CONFIG, num_steps=400, capacity=64)
    half, first = basin_hopping.run(problem, state, CONFIG, num_steps=200, capacity=64)
    end, second = basin_hopping.run(problem, half, CONFIG, num_steps=200, capacity=64)
    assert all_points.count == first.count + second.count > 10
    energies = np.concatenate([first.points.energy[: first.count], second.points.energy[: second.count]])
    np.testing.assert_array_equal(energies, all_points.points.energy[: all_points.count])
    np.testing.assert_array_equal(end.position, whole.position)


@pytest.mark.parametrize("temperature", [0.0, 1e-9])
def test_walkers_keep_to_what_the_metropolis_rule_allows(temperature):
    problem, state = start()
    cold = HoppingConfig(temperature=temperature)
    energy = state.energy
    for _ in range(5):
        state, _ = basin_hopping.run(problem, state, cold, num_steps=96, capacity=64)
        assert np.all(state.energy <= energy + 1e-7)
        energy = state.energy
    assert np.all(np.isfinite(energy))


def test_rises_are_accepted_as_often_as_the_temperature_says():
    # Wells at every whole number, each 0.1 above the one before: hops are rises or falls of known size.
    staircase = from_loss(lambda x, _: 0.1 * jnp.sum(x) - 2 * jnp.cos(2 * jnp.pi * x[0]), jnp.zeros(1))
    config = HoppingConfig(temperature=0.1, step_size=1.4, min_step=1.4, max_step=1.4)
    state = basin_hopping.init(jax.random.key(0), jnp.zeros((64, 1)), config)
    state, _ = basin_hopping.run(staircase, state, config, num_steps=40, capacity=1000)
    up, kept = 0, 0
    for _ in range(90):
        before = np.asarray(state.position)[:, 0].round()
        # A walker ends at most one quench in so few steps.
        hops = state.num_hops
        state, buffer = basin_hopping.run(staircase, state, config, num_steps=8, capacity=64)
        after = np.asarray(state.position)[:, 0].round()
        once = np.asarray(state.num_hops == hops + 1)
        done = np.flatnonzero(once)
        tried = np.asarray(buffer.points.position)[: int(buffer.count), 0].round()
        assert len(tried) == len(done)
        rises = tried - before[done] == 1
        up, kept = up + rises.sum(), kept + np.sum(after[done][rises] > before[done][rises])
    assert up > 150
    assert scipy.stats.binomtest(int(kept), int(up), np.exp(-1)).pvalue > 1e-3


def test_the_step_grows_while_hops_fall_back_and_stays_in_bounds():
    problem, state = start()
    config = HoppingConfig(step_size=0.02, max_step=0.05)
    state, _ = basin_hopping.run(problem, state, config, num_steps=400, capacity=64)
    np.testing.assert_allclose(state.step_size, 0.05)


def test_the_step_grows_also_where_the_minima_have_no_energy():
    wells = from_loss(lambda x, _: jnp.sum((x**2 - 1) ** 2), jnp.zeros(2))
    config = HoppingConfig(step_size=0.02)
    state = basin_hopping.init(jax.random.key(1), jnp.ones((8, 2)), config)
    state, buffer = basin_hopping.run(wells, state, config, num_steps=600, capacity=1000)
    assert np.all(state.step_size > 1)
    assert len(np.unique(buffer.points.position[: int(buffer.count)].round(3), axis=0)) == 4


def test_a_full_buffer_says_so():
    problem, state = start()
    _, buffer = basin_hopping.run(problem, state, CONFIG, num_steps=400, capacity=3)
    assert buffer.overflow
    assert buffer.count == 3
    assert np.all(buffer.points.status == Status.CONVERGED)
    assert jnp.all(buffer.points.energy > 0)


def test_walkers_hop_between_the_minima_of_rows_by_gauss_newton():
    x, y = jnp.ones((4, 1)), jnp.array([0.9, 1.1, 1.0, 1.0])
    model = from_rows(lambda a, x: x * a**2, squared_errors, jnp.zeros(1), x, y, precision=0.0)  # minima at -1 and 1
    config = HoppingConfig(temperature=1.0, step_size=2.0, descent=GaussNewtonConfig())
    state = basin_hopping.init(jax.random.key(0), jnp.full((2, 1), 0.3), config)
    _, buffer = basin_hopping.run(model, state, config, num_steps=200, capacity=60)
    ends = np.asarray(buffer.points.position)[: int(buffer.count), 0]
    ends = ends[np.asarray(buffer.points.status)[: len(ends)] == Status.CONVERGED]
    away = ends[np.abs(ends) > 1e-3]  # between them is a maximum, where a symmetric step can end
    assert set(np.sign(away)) == {-1, 1}
    np.testing.assert_allclose(np.abs(away), 1, atol=1e-7)
