import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial.transform import Rotation

from jaxscape import Symmetry, database, elastic_band, models, surfaces, symmetry
from jaxscape.landscape.connect import choose_pairs, measured
from jaxscape.landscape.database import Minima, TransitionStates


def landscape(positions, pairs):
    """Make a landscape without symmetry, the lowest minimum first."""
    size, dim = positions.shape
    ones, vectors = np.ones(size, int), np.zeros_like(positions)
    energies = 1e-3 * np.arange(size)
    minima = Minima(positions, energies, 1.0 * ones, vectors, 0.0 * ones, 0.0 * ones, ones, 0 * ones)
    found, _ = database.insert_minima(database.empty(Symmetry((), dim=dim)), minima)
    pairs = np.array(pairs, int).reshape(-1, 2)
    ones, x = np.ones(len(pairs), int), np.random.default_rng(9).normal(size=(len(pairs), dim))
    states = TransitionStates(x, 1.0 + np.arange(len(pairs)), -1.0 * ones, x, 0.0 * ones, 0.0 * ones, pairs, ones)
    return database.insert_transition_states(found, states)[0]


def test_the_missing_connections_are_the_gaps_on_shortest_paths():
    rng = np.random.default_rng(0)
    positions = rng.normal(size=(18, 3))
    joined = [(0, 1), (1, 2), (3, 4), (5, 6), (6, 7), (8, 9)]
    found = landscape(positions, joined)
    component = database.components(found)
    # Brute force: all pairs.
    cubes = ((positions[:, None] - positions) ** 2).sum(axis=2) ** 1.5
    for i, j in joined:
        cubes[i, j] = cubes[j, i] = 1e-9
    distance, before = dijkstra(csr_array(cubes), indices=0, return_predecessors=True)
    gaps = set()
    for label in np.unique(component[component != component[0]]):
        members = np.flatnonzero(component == label)
        entered = members[distance[members].argmin()]
        gaps.add(tuple(sorted((int(before[entered]), int(entered)))))
    chosen = choose_pairs(found, measured(found), len(gaps))
    assert {tuple(row) for row in chosen[:, :2].tolist()} == gaps
    assert not chosen[:, 2].any()


def test_distances_are_those_after_alignment_whenever_they_are_measured():
    group = models.symmetry((2, 3, 1), "tanh")
    rng = np.random.default_rng(5)
    positions = rng.normal(size=(7, group.dim))
    size, ones = len(positions), np.ones(len(positions), int)
    minima = Minima(positions, np.arange(size) * 1.0, ones, positions, ones, ones, ones, ones)
    first = database.empty(group)._replace(minima=Minima(*(field[:4] for field in minima)))
    found = measured(database.empty(group)._replace(minima=minima), measured(first))
    moves = list(itertools.product(itertools.permutations(range(3)), itertools.product([-1.0, 1.0], repeat=3)))
    assert sorted(map(tuple, found.pairs.tolist())) == list(itertools.combinations(range(size), 2))
    for (i, j), length in zip(found.pairs, found.lengths, strict=True):
        copies = [symmetry.apply(group, positions[j], [np.array(p)], [np.array(s)]) for p, s in moves]
        np.testing.assert_allclose(length, np.linalg.norm(np.array(copies) - positions[i], axis=1).min())


def test_pairs_that_failed_come_later_and_then_with_another_copy():
    positions = np.array([[0.0, 0], [1, 0], [0, 1.5], [5, 5]])
    found = landscape(positions, [])
    assert choose_pairs(found, measured(found), 1).tolist() == [[0, 1, 0]]
    found = database.add_attempted(found, np.array([[1, 0]]))
    pairs = choose_pairs(found, measured(found), 20).tolist()
    assert pairs[0] != [0, 1, 1]
    assert [0, 1, 1] in pairs
    assert [0, 0, 0] in pairs


def copies_of(group, reference, x):
    return (symmetry.nth_copy(group, reference, x, n) for n in itertools.count())


def test_copies_are_copies_the_nearest_first():
    group = models.symmetry((2, 3, 1), "tanh")
    rng = np.random.default_rng(3)
    reference, x = rng.normal(size=(2, group.dim))
    near = np.array(list(itertools.takewhile(lambda copy: copy is not None, copies_of(group, reference, x))))
    assert len(near) == 1 + 3 + 3  # as it is, one sign, one exchange
    distances = np.linalg.norm(near - reference, axis=1)
    assert np.all(np.diff(distances) >= 0)
    np.testing.assert_allclose(symmetry.align(group, x, near)[1], 0, atol=1e-12)
    own = list(itertools.islice(copies_of(group, x, x), 2))
    np.testing.assert_allclose(own[0], x)
    # The nearest copy of a point that is not the point itself, among the whole group.
    moves = itertools.product(itertools.permutations(range(3)), itertools.product([-1.0, 1.0], repeat=3))
    everything = [symmetry.apply(group, x, [np.array(p)], [np.array(s)]) for p, s in moves]
    apart = np.sort(np.linalg.norm(np.array(everything) - x, axis=1))
    np.testing.assert_allclose(np.linalg.norm(own[1] - x), apart[1])


def test_the_highest_image_of_a_band_is_near_the_saddle():
    # Mueller-Brown: the saddle between the two minima at the left and in the middle, from the literature.
    problem, _ = surfaces.mueller_brown()
    left, middle, saddle = np.array([-0.5582, 1.4417]), np.array([-0.0500, 0.4667]), np.array([-0.8220, 0.6243])
    config = elastic_band.BandConfig(max_steps=60, num_images=12)
    band = elastic_band.relax(problem, jnp.asarray(left[None]), jnp.asarray(middle[None]), config)
    top = np.argmax(np.where(band.maxima[0], band.energies[0], -np.inf))
    assert np.linalg.norm(band.images[0, top] - saddle) < 0.15
    np.testing.assert_allclose(np.linalg.norm(band.tangents[0], axis=1), 1)
    # The straight line is far from it.
    line = left + np.linspace(0, 1, 50)[:, None] * (middle - left)
    assert np.linalg.norm(line - saddle, axis=1).min() > 0.2
    lengths = np.linalg.norm(np.diff(np.concatenate([left[None], band.images[0], middle[None]]), axis=0), axis=1)
    assert lengths.max() < 3 * lengths.min()


def test_bands_of_other_dimensions_are_refused():
    problem, _ = surfaces.mueller_brown()
    with pytest.raises(ValueError, match=r"\(n, 2\)"):
        elastic_band.relax(problem, jnp.zeros((1, 3)), jnp.zeros((1, 3)))


def test_copies_that_are_one_point_count_once_however_many_there_are():
    # Fifty units, all but two of them dead: flips and exchanges of dead units change nothing.
    group = models.symmetry((2, 50, 1), "tanh")
    x = np.zeros(group.dim)
    x[group.layers[0].units[:2]] = np.random.default_rng(0).normal(size=(2, 4))
    copies = list(itertools.takewhile(lambda copy: copy is not None, copies_of(group, x, x)))
    # Itself, two flips, the two units exchanged, and each in the place of any of the 48 dead ones.
    assert len(copies) == 1 + 2 + 1 + 2 * 48
    order = symmetry.point_group_order(group, x)
    assert order == 2**48 * math.factorial(48)
    np.testing.assert_allclose(math.log(order), 48 * math.log(2) + math.lgamma(49))


def test_copies_of_a_cluster_are_made_by_exchanging_two_atoms():
    group = Symmetry((), dim=15, num_atoms=5)
    reference, x = np.random.default_rng(1).normal(size=(2, 15))
    copies = list(itertools.takewhile(lambda copy: copy is not None, copies_of(group, reference, x)))
    assert len(copies) == 1 + 10
    distances = np.linalg.norm(np.array(copies) - reference, axis=1)
    assert np.all(np.diff(distances) >= -1e-9)
    np.testing.assert_allclose(symmetry.align(group, x, np.array(copies))[1], 0, atol=1e-6)
    # No turn brings any of them nearer: the rotations are the best ones.
    for copy, distance in zip(copies, distances, strict=True):
        fixed, atoms = (points.reshape(-1, 3) - points.reshape(-1, 3).mean(axis=0) for points in (reference, copy))
        turn, _ = Rotation.align_vectors(fixed, atoms)
        shift = (reference.reshape(-1, 3).mean(axis=0) - copy.reshape(-1, 3).mean(axis=0)) @ np.ones(3)
        np.testing.assert_allclose(np.linalg.norm(turn.apply(atoms) - fixed), distance, rtol=1e-6)
        np.testing.assert_allclose(shift, 0, atol=1e-9)
