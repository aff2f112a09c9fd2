import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import linkage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from jaxscape import disconnectivity
from jaxscape.analysis.disconnectivity import choose_level, layout, merge_tree, superbasins


@st.composite
def databases(draw):
    size, edges = draw(st.integers(1, 12)), draw(st.integers(0, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    energy = rng.choice([0.0, -1.0, 0.5, 1.5, 2.0], size)  # ties, zeros and negative energies
    pairs = rng.integers(0, size, (edges, 2))
    ts_energies = energy[pairs].max(axis=1, initial=-9) + rng.choice([0.0, 0.5, 1.0, 3.0], edges)
    return energy, ts_energies, pairs


def same_partition(one, other):
    return len(set(zip(one.tolist(), other.tolist(), strict=True))) == one.max() + 1 == other.max() + 1


@settings(max_examples=200, deadline=None)
@given(databases())
def test_superbasins_are_components_of_the_thresholded_graph(database):
    energy, ts_energies, pairs = database
    tree = merge_tree(*database)
    for level in [*np.unique(ts_energies), *(np.unique(ts_energies) - 0.1), -np.inf, 99.0]:
        low = pairs[ts_energies <= level]
        graph = coo_array((np.ones(len(low)), (low[:, 0], low[:, 1])), shape=(len(energy),) * 2)
        assert same_partition(superbasins(tree, level), connected_components(graph, directed=False)[1])


@settings(max_examples=100, deadline=None)
@given(databases())
def test_merges_lie_at_or_above_what_they_merge_and_each_cluster_merges_once(database):
    energy, _, _ = database
    tree = merge_tree(*database)
    at = np.concatenate([energy, tree.energies])
    assert np.all(tree.energies[:, None] >= at[tree.children])
    assert sorted(tree.children.ravel().tolist()) == list(range(2 * len(tree.energies)))
    count = np.ones(len(energy), int)
    for pair, size in zip(tree.children, tree.size, strict=True):
        count = np.append(count, count[pair].sum())
        assert count[-1] == size


def test_it_is_single_linkage():
    rng = np.random.default_rng(0)
    barrier = np.abs(rng.normal(size=(9, 9))) + 1
    first, second = np.triu_indices(9, 1)
    tree = merge_tree(np.zeros(9), barrier[first, second], np.stack([first, second], axis=1))
    expected = linkage(barrier[first, second], method="single")
    np.testing.assert_allclose(tree.energies, expected[:, 2])
    np.testing.assert_array_equal(tree.size, expected[:, 3])


@settings(max_examples=50, deadline=None)
@given(databases(), st.integers(1, 20))
def test_the_layout_shows_every_minimum_once_at_its_energy(database, num_levels):
    energy, _, _ = database
    drawing = layout(merge_tree(*database), energy, num_levels=num_levels)
    assert sorted(drawing.order.tolist()) == list(range(len(energy)))
    for x, minimum in enumerate(drawing.order):
        ends = drawing.segments[(drawing.span[:, 0] == x) & (drawing.span[:, 1] == x + 1), 1]
        assert [x, energy[minimum]] in ends.tolist()


def test_the_level_is_that_of_the_superbasin_that_stands_out():
    # Minima 0 to 3 merge by 1.0, then nothing happens until 5.0; 4 and 5 come late.
    energy = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    ts_energies, pairs = np.array([0.6, 0.8, 1.0, 5.0, 5.5]), np.array([[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]])
    tree = merge_tree(energy, ts_energies, pairs)
    assert choose_level(tree, energy, min_size=3) == 1.0
    assert choose_level(tree, energy, min_size=7) == 5.5
    # What nothing joins does not count as joined.
    unjoined = merge_tree(energy, ts_energies[:3], pairs[:3])
    assert choose_level(unjoined, energy, min_size=7) == 1.0
    assert choose_level(merge_tree(energy[:1], np.empty(0), np.empty((0, 2), int)), energy[:1]) == 0.0


@pytest.mark.parametrize(
    ("energy", "ts_energies", "pairs", "message"),
    [
        ([], [], [], "at least one minimum"),
        ([0.0, np.nan], [], [], "finite"),
        ([0.0, 1.0], [0.5], [[0, 1]], "below one of its minima"),
        ([0.0, 1.0], [2.0], [[0, 2]], "ids below 2"),
    ],
)
def test_misuse_is_a_value_error(energy, ts_energies, pairs, message):
    with pytest.raises(ValueError, match=message):
        disconnectivity.merge_tree(
            np.array(energy, float), np.array(ts_energies, float), np.array(pairs, int).reshape(-1, 2)
        )
