"""Morse's sums: known numbers of stationary points, and what they say when one is missing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxscape as js
from jaxscape.landscape import database, morse


@pytest.fixture(scope="module")
def xor():
    """Two tanh units on the four rows of XOR: 225 stationary points, copies counted, in four kinds of subspaces."""
    objective, symmetry = js.surfaces.xor()
    return objective, morse.audit(objective, database.empty(symmetry), jax.random.key(0))


def test_xor_has_225_points_and_every_sum_is_one(xor):
    _, found = xor
    assert found.closed
    assert found.copies.sum() == 225
    assert np.bincount(found.indices).tolist() == [7, 20, 10]
    assert found.subspaces == ("the whole space", "2 equal", "1 dead", "2 dead")
    assert found.sums.tolist() == [1, 1, 1, 1]
    assert set(found.copies) <= {1, 2, 4, 8}


def test_points_are_stationary_with_the_index_that_is_said(xor):
    objective, found = xor
    energy = jax.vmap(lambda x: objective.loss(objective.unravel(x), objective.data))
    gradient, curvature = (jax.vmap(each(lambda x: energy(x[None])[0])) for each in (jax.grad, jax.hessian))
    x = jnp.asarray(found.positions)
    np.testing.assert_allclose(energy(x), found.energies)
    assert float(jnp.abs(gradient(x)).max()) < 1e-8
    np.testing.assert_array_equal(np.sum(np.linalg.eigvalsh(curvature(x)) < 0, axis=1), found.indices)


def test_a_surface_without_symmetry_and_one_that_ends_before_all_is_found():
    wells = js.from_loss(
        lambda p, _: (p["a"][0] ** 2 - 1) ** 2 + (p["a"][1] ** 2 - 1) ** 2 + 0.1 * p["a"][0], {"a": jnp.zeros(2)}
    )
    nothing = database.empty(js.Symmetry((), dim=2))
    found = morse.audit(wells, nothing, jax.random.key(0))
    assert np.bincount(found.indices).tolist() == [4, 4, 1]
    assert found.closed
    assert found.sums.tolist() == [1]
    unfinished = morse.audit(wells, nothing, jax.random.key(0), num_starts=0)
    assert not unfinished.closed


def test_points_that_are_known_stay_what_they_are(xor):
    objective, found = xor
    symmetry = js.surfaces.xor()[1]
    low = found.indices <= 1
    order = np.argsort(found.indices[low], kind="stable")
    known = found.positions[low][order]
    nothing = database.empty(symmetry)
    landscape = nothing._replace(
        minima=nothing.minima._replace(positions=known[:7]),
        transition_states=nothing.transition_states._replace(positions=known[7:]),
    )
    again = morse.audit(objective, landscape, jax.random.key(1), num_starts=0)
    assert again.visits.tolist() == [1] * 27
    np.testing.assert_allclose(again.positions, known, atol=1e-6)
    assert again.indices.tolist() == [0] * 7 + [1] * 20


def test_a_point_that_is_missing_is_missed(xor):
    objective, found = xor
    symmetry = js.surfaces.xor()[1]
    moves, spaces = np.array(list(morse._moves(symmetry))), list(morse._subspaces(symmetry))
    for gone in range(len(found.copies)):
        rest = np.arange(len(found.copies)) != gone
        spectra = np.zeros((rest.sum(), symmetry.dim))
        some = morse._Found(found.positions[rest], found.energies[rest], spectra, found.visits[rest])
        assert morse._summed(objective, moves, some, spaces).sums[0] != 1


def test_what_cannot_be_audited_is_refused():
    objective, _ = js.surfaces.xor()
    for other, what in ((js.Symmetry((), dim=21), "not of 21 and 1"), (js.Symmetry((), 12, num_atoms=4), "atoms")):
        with pytest.raises(ValueError, match=what):
            morse.audit(objective, database.empty(other), jax.random.key(0))
