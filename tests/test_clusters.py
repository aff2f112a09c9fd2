import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from jaxscape import Symmetry, clusters, eigenvector_following, newton, objective, quench, surfaces, symmetry

SURFACE, GROUP = surfaces.lennard_jones(7)


def moved(rng, x, inverted):
    atoms = x.reshape(-1, 3)[rng.permutation(x.size // 3)]
    turned = atoms @ Rotation.random(random_state=int(rng.integers(2**31))).as_matrix() + rng.normal(size=3)
    return ((-1) ** inverted * turned).ravel()


def icosahedron():
    golden = (1 + 5**0.5) / 2
    corners = [p for a, b in itertools.product((1, -1), (golden, -golden)) for p in ([0, a, b], [a, b, 0], [b, 0, a])]
    return np.array([*corners, [0, 0, 0]], float)


SHAPES = {
    1: np.random.default_rng(0).normal(size=(6, 3)),
    12: np.array([[1, 0, 0], [-0.5, 0.75**0.5, 0], [-0.5, -(0.75**0.5), 0], [0, 0, 1.3], [0, 0, -1.3]]),
    24: np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1.0]]),
    48: np.concatenate([np.eye(3), -np.eye(3)]),
    120: icosahedron(),
}


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 9), st.booleans(), st.integers(0, 2**31))
def test_copies_are_brought_back_and_the_energy_does_not_know_them(number, inverted, seed):
    rng = np.random.default_rng(seed)
    x = 2 * rng.normal(size=3 * number)
    copy = moved(rng, x, inverted)
    group = Symmetry((), dim=x.size, num_atoms=number)
    aligned, distances = symmetry.align(group, x, copy[None])
    assert distances[0] < 1e-6
    np.testing.assert_allclose(aligned[0], x, atol=1e-6)
    np.testing.assert_allclose(*symmetry.fingerprint(group, np.stack([x, copy])), atol=1e-9)
    energies = [objective.value(surfaces.lennard_jones(number)[0], jnp.asarray(point)) for point in (x, copy)]
    np.testing.assert_allclose(*energies, rtol=1e-9)


def test_the_energy_is_that_of_all_pairs_and_has_a_slope_with_an_atom_in_the_centre():
    atoms = 0.57 * icosahedron()
    energy, gradient = objective.value_and_grad(surfaces.lennard_jones(13)[0], jnp.asarray(atoms.ravel()))
    np.testing.assert_allclose(energy, sum(4 * (r**-12 - r**-6) for r in pdist(atoms)), rtol=1e-12)
    assert np.all(np.isfinite(gradient))


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 7), st.integers(0, 2**31))
def test_fingerprints_bound_the_distance_from_below_and_alignment_never_moves_away(number, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, 3 * number))
    group = Symmetry((), dim=x.size, num_atoms=number)
    _, distance = symmetry.align(group, x, y[None])
    marks = symmetry.fingerprint(group, np.stack([x, y]))
    assert np.linalg.norm(marks[0] - marks[1]) <= np.sqrt(2) * distance[0] + 1e-9


@pytest.mark.parametrize("order", SHAPES)
def test_orders_of_point_groups(order):
    atoms = SHAPES[order]
    group = Symmetry((), dim=atoms.size, num_atoms=len(atoms))
    copy = moved(np.random.default_rng(1), atoms.ravel(), True)
    assert symmetry.point_group_order(group, copy) == order


def test_zero_modes_are_what_the_hessian_does_not_feel():
    x = quench(SURFACE, jax.random.uniform(jax.random.key(0), (1, 21), minval=-1.5, maxval=1.5)).position[0]
    modes = clusters.zero_modes(x)
    np.testing.assert_allclose(modes @ modes.T, np.eye(6), atol=1e-12)
    curvature = np.linalg.eigvalsh(objective.hessian(SURFACE, x))
    np.testing.assert_allclose(objective.hessian(SURFACE, x) @ modes.T, 0, atol=1e-5)
    polished = newton.polish(SURFACE, x[None])
    # Without the six that are nearest to zero, the dense Hessian has the eigenvalues that the polish returns.
    rest = np.sort(curvature[np.argsort(np.abs(curvature))[6:]])
    np.testing.assert_allclose(polished.eigenvalues[0], rest, rtol=1e-5)
    assert polished.eigenvalues[0, 0] > 1


def test_saddle_searches_leave_out_translations_and_rotations():
    starts = jax.random.uniform(jax.random.key(0), (16, 21), minval=-1.5, maxval=1.5)
    minima = quench(SURFACE, starts).position
    pushed = minima + 0.2 * jax.random.normal(jax.random.key(1), minima.shape)
    found = eigenvector_following.search(SURFACE, pushed, jax.random.normal(jax.random.key(2), minima.shape))
    good = np.asarray(found.point.status) == 1
    assert good.mean() > 0.7
    for x, vector in zip(found.point.position[good], found.eigenvector[good], strict=True):
        np.testing.assert_allclose(clusters.zero_modes(x) @ vector, 0, atol=1e-8)


def test_fewer_than_three_atoms_are_refused():
    with pytest.raises(ValueError, match="at least 3"):
        surfaces.lennard_jones(2)
