import itertools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscape import losses, models, objective, symmetry


def random_element(group, rng):
    permutations = [rng.permutation(len(layer.bias)) for layer in group.layers]
    signs = [
        rng.choice([-1.0, 1.0], len(layer.bias)) if group.odd else np.ones(len(layer.bias)) for layer in group.layers
    ]
    return permutations, signs


def whole_group(group):
    (layer,) = group.layers
    units = len(layer.bias)
    all_signs = itertools.product([-1.0, 1.0], repeat=units) if group.odd else [(1.0,) * units]
    for permutation, signs in itertools.product(itertools.permutations(range(units)), list(all_signs)):
        yield [np.array(permutation)], [np.array(signs)]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.sampled_from(["tanh", "gelu"]), st.integers(0, 2**31))
def test_alignment_of_one_hidden_layer_is_the_best_of_the_whole_group(units, inputs, activation, seed):
    group = models.symmetry((inputs, units, 1), activation)
    rng = np.random.default_rng(seed)
    reference, x = rng.normal(size=(2, group.dim))
    moved, distance = symmetry.align(group, reference, x[None])
    best = min(np.linalg.norm(symmetry.apply(group, x, *element) - reference) for element in whole_group(group))
    np.testing.assert_allclose(distance[0], best, rtol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(moved[0] - reference), best, rtol=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.sampled_from(["tanh", "gelu"]), st.integers(0, 99))
def test_distances_of_many_pairs_are_those_after_alignment_one_by_one(units, activation, seed):
    group = models.symmetry((2, units, 1), activation)
    x, y = np.random.default_rng(seed).normal(size=(2, 6, group.dim))
    found = symmetry.aligned_distances(group, x, y)
    expected = [symmetry.align(group, one, other[None])[1][0] for one, other in zip(x, y, strict=True)]
    np.testing.assert_allclose(found, expected)
    # To the last digit, whatever pairs are beside: a resumed exploration measures others at once.
    np.testing.assert_array_equal(symmetry.aligned_distances(group, x[4:], y[4:]), found[4:])


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([(2, 3, 1), (2, 3, 4, 1), (2, 2, 3, 2, 1)]), st.integers(0, 2**31))
def test_the_group_leaves_the_loss_and_the_fingerprint_and_alignment_undoes_it(sizes, seed):
    group = models.symmetry(sizes, "tanh")
    rng = np.random.default_rng(seed)
    x = rng.normal(size=group.dim)
    moved = symmetry.apply(group, x, *random_element(group, rng))
    inputs = jnp.asarray(rng.normal(size=(5, sizes[0])))
    unravel = objective.from_loss(
        losses.squared_error(models.mlp("tanh")),
        models.init(jax.random.key(0), sizes),
        losses.Supervised(inputs, jnp.zeros(5), jnp.asarray(0.1)),
    ).unravel
    predict = models.mlp("tanh")
    outputs = [predict(unravel(jnp.asarray(point)), inputs) for point in (x, moved)]
    np.testing.assert_allclose(*outputs, rtol=1e-10, atol=1e-12)
    marks = symmetry.fingerprint(group, np.stack([x, moved]))
    np.testing.assert_allclose(marks[0], marks[1], rtol=1e-12)
    np.testing.assert_allclose(symmetry.align(group, x, moved[None])[1], 0, atol=1e-12)


def test_deep_alignment_never_moves_away_and_undoes_a_move_of_a_perturbed_copy():
    group = models.symmetry((3, 5, 5, 1), "tanh")
    rng = np.random.default_rng(1)
    x = rng.normal(size=group.dim)
    copies = np.stack([symmetry.apply(group, x, *random_element(group, rng)) for _ in range(20)])
    noisy = copies + 1e-3 * rng.normal(size=copies.shape)
    _, distances = symmetry.align(group, x, noisy)
    assert np.all(distances <= np.linalg.norm(noisy - x, axis=1) + 1e-12)
    assert np.all(distances < 0.1)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([(2, 3, 1), (2, 3, 4, 1)]), st.integers(0, 2**31))
def test_fingerprints_bound_the_distance_from_below(sizes, seed):
    group = models.symmetry(sizes, "tanh")
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(2, group.dim))
    marks = symmetry.fingerprint(group, np.stack([x, y]))
    _, distance = symmetry.align(group, x, y[None])
    assert np.linalg.norm(marks[0] - marks[1]) <= np.sqrt(2) * distance[0] + 1e-12
