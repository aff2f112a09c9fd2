import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxscape import (
    Budget,
    ExploreConfig,
    Symmetry,
    cores,
    database,
    disconnectivity,
    explore,
    kinetics,
    objective,
    quench,
    surfaces,
    symmetry,
    thermodynamics,
)
from jaxscape.landscape import certify, doubts, ledger
from jaxscape.landscape.exploration import checkpoint_of, restore
from jaxscape.landscape.explore import advance, start
from jaxscape.landscape.hop import hop
from jaxscape.landscape.stopping import finished
from jaxscape.search.basin_hopping import HoppingConfig
from jaxscape.search.lbfgs import LbfgsConfig

# An exhaustive search independent of this library: energies of all stationary points up to symmetry.
XOR_MINIMA = [0.08937791] * 2 + [0.39009593] * 4 + [0.69314718]
XOR_TRANSITION_STATES = [0.40201506] * 8 + [0.51049753] * 4 + [0.5195851] * 4 + [0.69315236] * 4
CONFIG = ExploreConfig()


@pytest.fixture(scope="module")
def xor():
    problem, group = surfaces.xor()
    starts = jax.random.normal(jax.random.key(5), (8, problem.dim))
    saved = []

    def keep(exploration):
        saved.append((exploration.landscape, checkpoint_of(exploration)))

    found = explore(problem, group, starts, jax.random.key(6), CONFIG, on_round=keep)
    return problem, group, starts, found, saved


def test_xor_is_found_whole_and_nothing_more(xor):
    _, _, _, found, _ = xor
    np.testing.assert_allclose(np.sort(found.minima.energies), XOR_MINIMA, atol=1e-8)
    np.testing.assert_allclose(np.sort(found.transition_states.energies), XOR_TRANSITION_STATES, atol=1e-8)
    assert database.components(found).max() == 0


def test_every_point_is_what_it_is_called(xor):
    problem, _, _, found, _ = xor

    @jax.jit
    @jax.vmap
    def derivatives(x):
        return objective.value_and_grad(problem, x)[1], objective.hessian(problem, x)

    def index_and_gradient(positions):
        gradients, hessians = derivatives(jnp.asarray(positions))
        return np.sum(np.linalg.eigvalsh(hessians) < 0, axis=1), np.abs(gradients).max()

    index, gradient = index_and_gradient(found.minima.positions)
    assert gradient < 1e-12
    assert np.all(index == 0)
    index, gradient = index_and_gradient(found.transition_states.positions)
    assert gradient < 1e-12
    assert np.all(index == 1)
    ends = found.minima.energies[found.transition_states.minima]
    assert np.all(ends < found.transition_states.energies[:, None])


def test_degenerate_rearrangements_are_recognised(xor):
    # The two best networks differ in more than a copy: they are joined, and copies of one are joined to each other.
    _, _, _, found, _ = xor
    pairs = found.transition_states.minima
    assert np.any(pairs[:, 0] == pairs[:, 1])
    tree = disconnectivity.merge_tree(found.minima.energies, found.transition_states.energies, pairs)
    assert np.all(np.isfinite(tree.energies))


def test_stopped_after_any_round_and_resumed_it_ends_at_the_same_landscape(xor, tmp_path):
    problem, group, starts, found, saved = xor
    for rounds in (1, len(saved) - 1):
        landscape, arrays = saved[rounds - 1]
        database.save(tmp_path / "a.npz", landscape, extra=arrays)
        fresh = start(problem, group, starts, jax.random.key(6), CONFIG)
        state = restore(fresh, database.load(tmp_path / "a.npz"), database.load_extra(tmp_path / "a.npz"))
        while not finished(state, CONFIG):
            state = advance(problem, state, jax.random.key(6), CONFIG)
        np.testing.assert_array_equal(state.landscape.minima.positions, found.minima.positions)
        np.testing.assert_array_equal(state.landscape.transition_states.minima, found.transition_states.minima)
        assert ledger.to_names(state.landscape.ledger) == ledger.to_names(found.ledger)
        assert state.landscape.ledger.evaluations == found.ledger.evaluations


def test_on_several_cores_it_is_the_same_landscape_to_the_bit(xor):
    problem, group, starts, found, _ = xor
    before = cores.cores_in_use()
    cores.use_all_cores(3)
    try:
        again = explore(problem, group, starts, jax.random.key(6), CONFIG)
    finally:
        cores.use_all_cores(before)
    assert jax.tree.structure(again) == jax.tree.structure(found)
    jax.tree.map(np.testing.assert_array_equal, again, found)


def test_rates_forth_and_back_are_in_balance_whatever_the_orders_of_the_points(xor):
    _, _, _, found, _ = xor
    minima, temperature = found.minima, 0.05
    volumes = thermodynamics.log_volumes(
        minima.energies, minima.log_determinants, minima.log_orders, np.array([temperature])
    )[0]
    flow = volumes[:, None] + kinetics.log_rates(found, temperature)
    assert np.isfinite(flow).sum() >= 6
    np.testing.assert_allclose(flow[np.isfinite(flow)], flow.T[np.isfinite(flow)], rtol=1e-12)


def test_a_budget_of_evaluations_or_seconds_ends_after_a_round(xor):
    problem, group, starts, _, saved = xor
    found = explore(problem, group, starts, jax.random.key(6), CONFIG, budget=Budget(evaluations=10))
    np.testing.assert_array_equal(found.minima.positions, saved[0][0].minima.positions)
    with pytest.warns(UserWarning, match="within the budget"):
        found = explore(problem, group, starts, jax.random.key(6), CONFIG, budget=Budget(seconds=0))
    assert len(found.minima.energies) == 0


def test_what_is_known_is_kept_and_added_to(xor):
    problem, group, starts, found, _ = xor
    more = explore(problem, group, starts, jax.random.key(7), CONFIG, budget=Budget(rounds=1), landscape=found)
    np.testing.assert_array_equal(more.minima.positions, found.minima.positions)
    assert np.all(more.minima.visits >= found.minima.visits)
    assert more.minima.visits.sum() > found.minima.visits.sum()


def test_a_descent_that_ends_on_a_saddle_goes_on_to_a_minimum(xor):
    # Two equal hidden units stay equal under the gradient: descent ends on a saddle of the symmetric subspace.
    problem, group, _, found, _ = xor
    x = np.random.default_rng(3).normal(size=(6, problem.dim))
    (layer,) = group.layers
    x[:, layer.units[1]] = x[:, layer.units[0]]
    ends = np.asarray(quench(problem, jnp.asarray(x)).position)
    settled = certify.settle(problem, ends, CONFIG)
    assert np.all(settled.eigenvalues[:, 0] > 0)
    distances = np.abs(settled.point.energy[:, None] - found.minima.energies).min(axis=1)
    np.testing.assert_allclose(distances, 0, atol=1e-10)
    assert np.any(np.linalg.norm(settled.point.position - ends, axis=1) > 0.1)


def test_outcomes_of_all_searches_are_on_record(xor):
    _, _, _, found, saved = xor
    outcomes = ledger.to_names(found.ledger)
    searched, rest = divmod(sum(outcomes["saddle searches"].values()), CONFIG.num_searches)
    assert rest == 0
    assert searched <= len(saved) <= searched + 2  # In the last rounds, where searches find nothing new, walkers hop,
    assert sum(outcomes["hops"].values()) >= 3 * searched * CONFIG.num_searches  # since what is claimed rests on both.
    assert outcomes["minima"]["CONVERGED"] >= 7
    assert found.ledger.evaluations > sum(outcomes["hops"].values())


def test_determinants_and_orders_are_those_of_the_points(xor):
    problem, group, _, found, _ = xor
    for points in (found.minima, found.transition_states):
        for x, logarithm, order in zip(
            points.positions, points.log_determinants, np.exp(points.log_orders), strict=True
        ):
            sign, expected = np.linalg.slogdet(objective.hessian(problem, jnp.asarray(x)))
            assert sign == (1 if points is found.minima else -1)
            np.testing.assert_allclose(logarithm, expected, rtol=1e-7)
            moves = [
                symmetry.apply(group, x, [np.array(p)], [np.array(s)])
                for p in ([0, 1], [1, 0])
                for s in itertools.product([-1.0, 1.0], repeat=2)
            ]
            assert round(order) == np.sum(np.linalg.norm(np.array(moves) - x, axis=1) < 1e-5)
    # The trivial minimum, all hidden weights zero, is left in place by all eight moves.
    np.testing.assert_allclose(found.minima.log_orders.max(), np.log(8))


def test_without_a_dense_hessian_the_same_is_found(xor, monkeypatch):
    problem, group, starts, found, _ = xor
    monkeypatch.setattr(certify, "_MAX_DENSE", 3)
    again = explore(problem, group, starts, jax.random.key(6), CONFIG, budget=Budget(rounds=2))
    assert len(again.minima.energies) >= 4
    assert len(again.transition_states.energies) >= 4
    for mine, all_of_them in ((again.minima, found.minima), (again.transition_states, found.transition_states)):
        assert np.abs(mine.energies[:, None] - all_of_them.energies).min(axis=1).max() < 1e-9
        assert np.all(np.isnan(mine.log_determinants))


def test_quenches_longer_than_a_few_rounds_are_waited_for():
    problem, group = surfaces.xor()
    config = ExploreConfig(hopping_steps=8, num_searches=2, num_minima=1)
    starts = jax.random.normal(jax.random.key(0), (1, problem.dim))
    assert (
        len(explore(problem, group, starts, jax.random.key(1), config, budget=Budget(rounds=20)).minima.energies) >= 1
    )


def test_where_descents_end_without_a_minimum_hops_go_on():
    problem, group = surfaces.xor()
    config = ExploreConfig(hopping_steps=8, hopping=HoppingConfig(descent=LbfgsConfig(max_evaluations=4)))
    key = jax.random.key(1)
    state = start(problem, group, jax.random.normal(jax.random.key(0), (1, problem.dim)), key, config)
    for _ in range(3):
        before = state.hopped
        state = advance(problem, state, key, config)
        # As they are counted elsewhere: a step of another minimiser costs more than one gradient.
        assert state.hopped == state.landscape.ledger.evaluations > before
    assert len(state.landscape.minima.energies) == 0


def test_of_more_than_enough_minima_hops_keep_the_lowest(xor):
    problem, group, starts, found, _ = xor
    lowest = found.minima.positions[np.argsort(found.minima.energies)[:2]]
    known = certify.certified(problem, group, lowest, lowest[:0], CONFIG)
    walkers = start(problem, group, starts, jax.random.key(1), CONFIG).walkers
    kept, all_of_them = (
        hop(problem, known, walkers, replace(CONFIG, num_minima=4 * number))[0].minima for number in (2, 250)
    )
    np.testing.assert_allclose(kept.energies, XOR_MINIMA[:2], atol=1e-7)
    assert kept.visits.sum() > 2
    assert all_of_them.energies.max() > XOR_MINIMA[2] - 1e-7


def test_what_a_landscape_has_cost_before_is_not_made_up_for_by_hops(xor):
    problem, group, starts, found, _ = xor
    state = start(problem, group, starts, jax.random.key(7), CONFIG, landscape=found)
    for _ in range(3):
        state = advance(problem, state, jax.random.key(7), CONFIG)
    own = state.landscape.ledger.evaluations - found.ledger.evaluations
    assert 0 < state.hopped <= own / 3 + CONFIG.hopping_steps * len(starts) < found.ledger.evaluations / 3


def test_float32_and_wrong_dimensions_are_refused():
    problem, group = surfaces.xor()
    with pytest.raises(ValueError, match="float64"):
        explore(problem, group, jnp.zeros((2, problem.dim), jnp.float32), jax.random.key(0))
    with pytest.raises(ValueError, match="starts must have shape"):
        explore(problem, group, jnp.zeros((2, 3)), jax.random.key(0))
    with pytest.raises(ValueError, match="one dimension"):
        explore(problem, Symmetry((), dim=3), jnp.zeros((2, problem.dim)), jax.random.key(0))


def test_a_landscape_of_another_model_is_not_added_to():
    problem, group = surfaces.xor()
    other = database.empty(Symmetry((), dim=group.dim))
    with pytest.raises(ValueError, match="another symmetry"):
        explore(problem, group, jnp.zeros((2, problem.dim)), jax.random.key(0), landscape=other)


def test_a_checkpoint_of_other_settings_is_refused():
    problem, group = surfaces.xor()
    small = start(problem, group, jnp.zeros((2, problem.dim)), jax.random.key(0))
    large = start(problem, group, jnp.zeros((3, problem.dim)), jax.random.key(0))
    with pytest.raises(ValueError, match="other settings"):
        restore(large, small.landscape, checkpoint_of(small))


@pytest.mark.parametrize(
    "damage", [lambda arrays: arrays.pop("round"), lambda arrays: arrays.update(idle=np.array("x"))]
)
def test_a_checkpoint_without_its_round_is_a_value_error(damage):
    problem, group = surfaces.xor()
    fresh = start(problem, group, jnp.zeros((2, problem.dim)), jax.random.key(0))
    damage(arrays := checkpoint_of(fresh))
    with pytest.raises(ValueError, match="how far it is"):
        restore(fresh, fresh.landscape, arrays)


def test_keys_of_another_kind_do_as_well():
    problem, group = surfaces.mueller_brown()
    starts = jnp.array([[-0.6, 1.4], [0.6, 0.0], [-0.1, 0.5], [0.0, 0.2]])
    found = explore(problem, group, starts, jax.random.key(0, impl="rbg"), CONFIG, budget=Budget(rounds=2))
    assert len(found.minima.energies) == 3


def test_a_symmetry_that_is_missing_is_noticed_and_one_of_the_data_is_not_taken_for_it(xor):
    problem, group, _, found, _ = xor
    energies = np.sort(found.minima.energies)
    assert np.sum(np.diff(energies) < 1e-9) > 2  # XOR looks the same in a mirror
    assert doubts.missing_symmetry(problem, found) is None
    lowest = found.minima.positions[:1]
    copies = [*lowest, *(np.asarray(move(lowest[0])) for move in symmetry.generators(group).values())]
    none = lowest[:0]
    for known, forgotten in ((group._replace(odd=False), True), (group, False)):
        landscape = certify.certified(problem, known, np.array(copies), none, ExploreConfig())
        assert (len(landscape.minima.energies) > 1) == forgotten
        assert (doubts.missing_symmetry(problem, landscape) is not None) == forgotten
    # Where there are no data nothing can be told: the six-hump camel is its own mirror image.
    camel, plain = surfaces.six_hump_camel()
    lowest = np.asarray(quench(camel, jnp.array([[0.1, -0.7]])).position)
    landscape = certify.certified(camel, plain, np.concatenate([lowest, -lowest]), lowest[:0], ExploreConfig())
    assert len(landscape.minima.energies) == 2
    assert doubts.missing_symmetry(camel, landscape) is None
