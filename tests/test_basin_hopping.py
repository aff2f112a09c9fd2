import jax
import jax.numpy as jnp
import numpy as np

from jaxscape import basin_hopping, surfaces
from jaxscape.search.basin_hopping import HoppingConfig
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


def test_walkers_keep_to_what_the_metropolis_rule_allows():
    problem, state = start()
    cold = HoppingConfig(temperature=0.0)
    energy = state.energy
    for _ in range(5):
        state, _ = basin_hopping.run(problem, state, cold, num_steps=96, capacity=64)
        assert np.all(state.energy <= energy + 1e-10)
        energy = state.energy
    assert np.all(np.isfinite(energy))


def test_the_step_grows_while_hops_fall_back_and_stays_in_bounds():
    problem, state = start()
    config = HoppingConfig(step_size=0.02, max_step=0.05)
    state, _ = basin_hopping.run(problem, state, config, num_steps=400, capacity=64)
    np.testing.assert_allclose(state.step_size, 0.05)


def test_a_full_buffer_says_so():
    problem, state = start()
    _, buffer = basin_hopping.run(problem, state, CONFIG, num_steps=400, capacity=3)
    assert buffer.overflow
    assert buffer.count == 3
    assert np.all(buffer.points.status == Status.CONVERGED)
    assert jnp.all(buffer.points.energy > 0)
