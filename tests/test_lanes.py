import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscape import surfaces
from jaxscape.search import eigenvector_following, elastic_band, lanes, quench
from jaxscape.search.eigenvector_following import FollowingConfig
from jaxscape.search.elastic_band import BandConfig
from jaxscape.search.lbfgs import LbfgsConfig

# Adds up 1 + 2 + ... + n, one number per step: jobs of very different length with exact results.
COUNTDOWN = lanes.Kernel(
    init=lambda n: (n, jnp.zeros_like(n)),
    step=lambda state: (state[0] - 1, state[1] + state[0]),
    done=lambda state: state[0] <= 0,
    result=lambda state: {"sum": state[1]},
)


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.integers(1, 8), st.integers(1, 9), st.integers(0, 6))
def test_every_job_is_run_to_its_end_whatever_the_lanes(jobs, num_lanes, refill_every, count):
    count = min(count, len(jobs))
    found = lanes.run(COUNTDOWN, jnp.array(jobs), num_lanes=num_lanes, refill_every=refill_every, count=count)["sum"]
    expected = [n * (n + 1) // 2 if i < count else 0 for i, n in enumerate(jobs)]
    assert found.tolist() == expected


def test_lanes_do_not_wait_for_the_slowest():
    jobs = jnp.array([200] + [8] * 25)
    steps = []

    def step(state):
        jax.debug.callback(lambda _: steps.append(1), state[0])
        return state[0] - 1, state[1] + 1

    found = lanes.run(COUNTDOWN._replace(step=step), jobs, num_lanes=2, refill_every=8)
    jax.block_until_ready(found)
    jax.effects_barrier()
    assert found["sum"].tolist() == jobs.tolist()
    # One lane is busy with the long job, the other does all the rest meanwhile; pairs in step would need 592.
    assert len(steps) <= 2 * 200 + 2 * 8


@pytest.mark.parametrize(
    ("jobs", "kwargs", "message"),
    [
        ((jnp.zeros(3), jnp.zeros(4)), {"num_lanes": 2}, "common first axis"),
        (jnp.zeros((0, 3)), {"num_lanes": 2}, "at least 1"),
        (jnp.zeros(()), {"num_lanes": 2}, "common first axis"),
        (jnp.zeros(3), {"num_lanes": 0}, "num_lanes"),
    ],
)
def test_misuse_is_a_value_error(jobs, kwargs, message):
    with pytest.raises(ValueError, match=message):
        lanes.run(COUNTDOWN, jobs, **kwargs)


def test_lanes_of_real_searches_keep_their_results_when_they_are_done():
    problem, _ = surfaces.lennard_jones(3)
    start = jnp.array([0.0, 0, 0, 1.2, 0, 0, 0, 1.3, 0])
    searches = [
        (quench.kernel(problem, LbfgsConfig()), start),
        (eigenvector_following.kernel(problem, FollowingConfig(max_steps=3)), (start, start)),
        (elastic_band.kernel(problem, BandConfig(max_steps=3)), (start, -start)),
    ]
    for kernel, job in searches:
        state = lanes.advance(kernel, jax.tree.map(lambda leaf: leaf[None], kernel.init(job)), num_steps=200)
        assert jax.vmap(kernel.done)(state)
        before, after = (jax.vmap(kernel.result)(state) for state in (state, lanes.advance(kernel, state, num_steps=7)))
        jax.tree.map(np.testing.assert_array_equal, before, after)


def test_where_selects_whole_states():
    new, old = (jnp.ones(2), {"a": jnp.zeros(())}), (jnp.zeros(2), {"a": jnp.ones(())})
    chosen = lanes.where(jnp.asarray(True), new, old)
    np.testing.assert_array_equal(chosen[0], 1.0)
    assert chosen[1]["a"] == 0
