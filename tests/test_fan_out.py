import functools
import json
import os
import signal
import threading
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxscape import Budget, ExploreConfig, Symmetry, explore, explore_on, surfaces

KEY = jax.random.key(6)
STARTS = np.random.default_rng(5).normal(size=(8, 9))
SHARDS = 4
BRIEF = Budget(rounds=3)
CONFIG = ExploreConfig(hopping_steps=300, num_searches=16)

run = functools.partial(explore_on, starts=STARTS, key=KEY, config=CONFIG, shards=SHARDS, budget=BRIEF)


class LastFirst:
    """Makes the calls in a thread, the last one first."""

    def __init__(self):
        self.calls = []

    def submit(self, fn, /, *args):
        self.calls.append((Future(), fn, args))
        if len(self.calls) == SHARDS:
            threading.Thread(target=self.run).start()
        return self.calls[-1][0]

    def run(self):
        for future, fn, args in reversed(self.calls):
            future.set_result(fn(*args))


@pytest.fixture(scope="module")
def one_by_one():
    """The landscapes of the shards, found by `explore` itself, and that of `explore_on` in one thread."""
    problem, group = surfaces.xor()
    parts = [
        explore(problem, group, jnp.asarray(STARTS[i::SHARDS]), jax.random.fold_in(KEY, i), CONFIG, budget=BRIEF)
        for i in range(SHARDS)
    ]
    with ThreadPoolExecutor(1) as pool:
        return parts, run(pool, surfaces.xor)


def assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_each_shard_is_one_exploration_and_everything_adds_up(one_by_one):
    parts, found = one_by_one
    assert len(found.minima.energies) >= max(len(part.minima.energies) for part in parts)
    for kind in ("minima", "transition_states"):
        assert getattr(found, kind).visits.sum() == sum(getattr(part, kind).visits.sum() for part in parts)
    assert found.minima.searches.sum() == sum(part.minima.searches.sum() for part in parts)
    assert found.ledger.evaluations == sum(part.ledger.evaluations for part in parts)
    np.testing.assert_array_equal(found.ledger.outcomes, sum(part.ledger.outcomes for part in parts))
    assert_equal(found.minima.positions[: len(parts[0].minima.energies)], parts[0].minima.positions)


def test_several_small_explorations_find_all_that_there_is():
    truth = json.loads((Path(__file__).parent / "oracle.json").read_text())["xor2"]
    with ThreadPoolExecutor(1) as pool:
        found = run(pool, surfaces.xor, shards=2, budget=Budget(rounds=30))
    np.testing.assert_allclose(np.sort(found.minima.energies), truth["minimum_energies"], atol=1e-8)
    np.testing.assert_allclose(np.sort(found.transition_states.energies), truth["transition_state_energies"], atol=1e-8)


def test_the_order_in_which_shards_end_does_not_matter(one_by_one):
    parts, expected = one_by_one
    ended = {}
    assert_equal(run(LastFirst(), surfaces.xor, on_shard=ended.__setitem__), expected)
    assert next(iter(ended)) == SHARDS - 1
    for shard, part in enumerate(parts):
        assert_equal(ended[shard], part)


def test_processes_find_the_same_to_the_bit_without_float64_set(one_by_one, monkeypatch):
    monkeypatch.delenv("JAX_ENABLE_X64", raising=False)
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # as in this process
    assert_equal(run(None, surfaces.xor), one_by_one[1])


def test_a_worker_of_dask_that_is_killed_changes_nothing(one_by_one, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    killed = []

    def kill_one(shard, landscape):
        if not killed:
            busy = [address for address, calls in client.processing().items() if calls]
            killed.extend(client.run(os.getpid, workers=busy[:1]).values())
            os.kill(killed[0], signal.SIGKILL)

    cluster = distributed.LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=None)
    with cluster, distributed.Client(cluster) as client:
        found = run(client.get_executor(), surfaces.xor, on_shard=kill_one)
    assert len(killed) == 1
    assert_equal(found, one_by_one[1])


def test_what_goes_wrong_in_a_shard_is_said_with_its_number():
    made = []

    def make():
        made.append(None)
        if len(made) == 2:
            raise OSError("no table there")
        return surfaces.xor()

    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="shard 1 of 4 failed: OSError: no table"):
        run(pool, make)
    assert len(made) <= 3  # the rest is cancelled
    with (
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
        pytest.raises(RuntimeError, match="shard 0 of 4 is lost, as a worker died"),
    ):
        run(pool, functools.partial(os._exit, 1))


def test_problems_that_differ_between_shards_are_refused():
    groups = iter([surfaces.xor()[1], Symmetry((), dim=9)])
    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="shard 1 another symmetry"):
        run(pool, lambda: (surfaces.xor()[0], next(groups)), shards=2)


def test_misuse_is_a_value_error():
    with pytest.raises(ValueError, match="from 1 to the number of starts, 8, got 9"):
        run(None, surfaces.xor, shards=9)
    with pytest.raises(ValueError, match="NumPy arrays"):
        run(None, functools.partial(surfaces.xor, l2=jnp.asarray(1e-3)))
