import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxscape import disconnectivity, surfaces
from jaxscape.landscape import database, paths
from jaxscape.landscape.config import ExploreConfig
from jaxscape.landscape.explore import advance, bound_barriers, explore, start
from jaxscape.landscape.paths import Paths
from jaxscape.landscape.stopping import Budget
from jaxscape.objective import from_loss, value
from jaxscape.symmetry import Symmetry, align

WAVES = from_loss(lambda x, _: jnp.sum(jnp.cos(3 * x)) + 0.1 * jnp.sum(x**2), jnp.zeros(2))


def sampled(objective, images, number):
    """The energies on a polyline, by NumPy."""
    fractions = np.linspace(0, 1, number)[:, None]
    points = np.concatenate([a + fractions * (b - a) for a, b in itertools.pairwise(images)])
    return np.asarray(jax.vmap(lambda x: value(objective, x))(jnp.asarray(points)))


def test_no_point_of_a_polyline_lies_above_its_bound():
    rng = np.random.default_rng(0)
    images = rng.uniform(-2, 2, (200, 1, 2)) + rng.uniform(-0.5, 0.5, (200, 6, 2)).cumsum(axis=1)
    energies, slack = (np.asarray(each) for each in paths.bounds(WAVES, jnp.asarray(images)))
    highest = np.array([sampled(WAVES, each, 400).max() for each in images])
    assert np.all(energies >= highest)
    assert np.median(energies - highest) < 0.02  # no idle bound
    assert np.all(slack >= 0)
    few, _ = paths.bounds(WAVES, jnp.asarray(images), count=7)
    np.testing.assert_array_equal(few[:7], energies[:7])


@pytest.fixture(scope="module")
def rounds():
    """The landscape of a network, before it is explored to the end, round by round."""
    objective, symmetry = surfaces.xor()
    starts = 2 * jax.random.normal(jax.random.key(3), (8, objective.dim))
    config = ExploreConfig(hopping_steps=400, num_searches=4)
    exploration, found = start(objective, symmetry, starts, jax.random.key(0), config), []
    for _ in range(8):
        exploration = advance(objective, exploration, jax.random.key(0), config)
        found.append(exploration.landscape)
    return objective, found


def test_paths_lead_from_minimum_to_minimum_and_never_above_their_bound(rounds):
    objective, found = rounds
    assert any(len(each.paths.energies) for each in found)
    for landscape in found:
        minima, known = landscape.minima, landscape.paths
        assert np.all(known.energies[:, None] >= minima.energies[known.minima])
        for pair, energy, images in zip(known.minima, known.energies, known.images, strict=True):
            np.testing.assert_array_equal(images[0], minima.positions[pair[0]])
            _, distance = align(landscape.symmetry, minima.positions[pair[1]], images[-1:])
            assert distance[0] < 1e-6
            assert sampled(objective, images, 200).max() <= energy


def test_barriers_never_rise_as_more_is_found(rounds):
    _, found = rounds
    for before, after in itertools.pairwise(found):
        old, new = disconnectivity.tree_of(before), disconnectivity.tree_of(after)
        size = len(before.minima.energies)
        for i in range(size):
            for j in range(i):
                assert disconnectivity.barrier(new, i, j)[0] <= disconnectivity.barrier(old, i, j)[0]


def test_bounds_below_transition_states_are_relaxed_to_the_end_too(rounds):
    objective, found = rounds
    landscape = next(each for each in found if len(each.paths.energies) and not database.components(each).any())
    states, before = landscape.transition_states, landscape.paths
    landscape = landscape._replace(transition_states=states._replace(energies=states.energies + 10))
    exploration = start(objective, landscape.symmetry, jnp.zeros((4, objective.dim)), jax.random.key(0))
    after = bound_barriers(objective, exploration._replace(landscape=landscape)).landscape.paths
    np.testing.assert_array_equal(after.minima, before.minima)
    assert np.all(after.energies <= before.energies)
    lower = after.energies < before.energies
    assert lower.any()
    for energy, images in zip(after.energies[lower], after.images[lower], strict=True):
        assert sampled(objective, images, 200).max() <= energy


def made(energies, states, bounds):
    """A landscape of minima at these energies; `states` and `bounds`: (energy, first, second)."""
    symmetry = Symmetry((), dim=1)
    rows, nothing = np.arange(len(energies), dtype=float)[:, None], np.zeros(len(energies))
    count = np.ones(len(energies), int)
    minima = database.Minima(rows, np.array(energies, float), nothing + 1, rows, nothing, nothing, count, count)
    landscape, _ = database.insert_minima(database.empty(symmetry), minima)
    top, one, two = np.array(states, float).reshape(-1, 3).T
    rows, nothing = 0.5 + np.arange(len(top), dtype=float)[:, None], np.zeros(len(top))
    pairs = np.stack([one, two], axis=1).astype(int)
    new = database.TransitionStates(rows, top, nothing - 1, rows, nothing, nothing, pairs, nothing.astype(int) + 1)
    landscape, _ = database.insert_transition_states(landscape, new)
    return add(landscape, bounds)


def add(landscape, bounds):
    top, one, two = np.array(bounds, float).reshape(-1, 3).T
    pairs = np.stack([one, two], axis=1).astype(int)
    return database.insert_paths(landscape, Paths(pairs, top, 0 * top, landscape.minima.positions[pairs]))


def test_the_tree_takes_the_lower_of_path_and_transition_state():
    landscape = made([0, 1, 2, 3], [(5, 0, 1), (6, 1, 2)], [(4, 0, 1), (7, 1, 2), (9, 2, 3)])
    assert landscape.paths.energies.tolist() == [4, 9]  # at 7 a transition state joins the two already
    tree = disconnectivity.tree_of(landscape)
    assert tree.energies.tolist() == [4, 6, 9]
    assert tree.certified.tolist() == [False, True, False]
    assert disconnectivity.barrier(tree, 0, 2) == (6, True)
    assert disconnectivity.barrier(tree, 3, 1) == (9, False)
    assert database.components(landscape).tolist() == [0, 0, 0, 1]
    assert not database.components(landscape, with_paths=True).any()
    way, joints = disconnectivity.path_between(landscape, 3, 0)
    assert way.tolist() == [3, 2, 1, 0]
    assert joints.tolist() == [3, 1, 2]
    # A transition state found later at 3 makes the path at 4 needless, one at 8 does not.
    assert add(made([0, 1], [(8, 0, 1)], []), [(4, 0, 1)]).paths.energies.tolist() == [4]
    assert add(made([0, 1], [(3, 0, 1)], []), [(4, 0, 1)]).paths.energies.tolist() == []


def test_what_nothing_joins_has_no_path():
    landscape = made([0, 1, 2], [(5, 0, 1)], [])
    assert disconnectivity.barrier(disconnectivity.tree_of(landscape), 0, 2) == (np.inf, False)
    with pytest.raises(ValueError, match="nothing joins the minima 0 and 2"):
        disconnectivity.path_between(landscape, 0, 2)
    with pytest.raises(ValueError, match="there are 3 minima"):
        disconnectivity.path_between(landscape, 0, 3)
    with pytest.raises(ValueError, match="below one of its ends"):
        add(landscape, [(1.5, 1, 2)])


def test_only_what_a_path_joins_is_drawn_dashed():
    landscape = made([0, 1, 2, 3], [(5, 0, 1)], [(8, 1, 2), (6, 2, 3)])
    drawing = disconnectivity.layout(disconnectivity.tree_of(landscape), landscape.minima.energies)
    below = {
        tuple(sorted(drawing.order[a:b])) for (a, b), bound in zip(drawing.span, drawing.bound, strict=True) if bound
    }
    assert below == {(2, 3), (3,)}
    certain = made([0, 1, 2], [(5, 0, 1), (6, 1, 2)], [])
    assert not disconnectivity.layout(disconnectivity.tree_of(certain), certain.minima.energies).bound.any()


def test_merged_landscapes_keep_the_lower_way_and_files_keep_paths(tmp_path):
    first = made([0, 1, 2], [(5, 0, 1)], [(9, 1, 2)])
    second = made([0, 1, 2], [], [(7, 1, 2), (6, 0, 1)])
    merged = database.merge(first, second)
    assert sorted(merged.paths.energies.tolist()) == [7]
    database.save(tmp_path / "a.npz", merged)
    loaded = database.load(tmp_path / "a.npz")
    for old, new in zip(merged.paths, loaded.paths, strict=True):
        np.testing.assert_array_equal(old, new)


def test_an_exploration_that_is_cut_short_ends_joined_by_paths():
    objective, symmetry = surfaces.xor()
    starts = 2 * jax.random.normal(jax.random.key(3), (8, objective.dim))
    config = ExploreConfig(hopping_steps=2000, num_searches=2)
    found = explore(objective, symmetry, starts, jax.random.key(0), config, budget=Budget(rounds=1))
    assert database.components(found).max() > 0
    assert not database.components(found, with_paths=True).any()
