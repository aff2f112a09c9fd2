import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxscape as js

X = jax.random.normal(jax.random.key(0), (12, 3))
Y = jax.random.normal(jax.random.key(1), (12, 2))


@pytest.mark.parametrize(
    ("sizes", "activation"), [((3, 4, 2), "tanh"), ((3, 4, 4, 4, 2), "gelu"), ((3, 3, 3, 2), "sin")]
)
def test_the_layers_of_a_network_are_found(sizes, activation):
    predict = js.models.mlp(activation)

    def loss(params, data):
        squares = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
        return jnp.mean((predict(params, data[0]) - data[1]) ** 2) + 1e-3 * squares

    found = js.symmetry.of(js.models.init(jax.random.key(2), sizes), loss, (X, Y))
    assert js.database.same_symmetry(found, js.models.symmetry(sizes, activation))


def test_channels_of_a_convolution_are_found_and_images_are_not_permuted():
    def loss(params, data):
        images, wanted = data
        dims = jax.lax.conv_dimension_numbers(images.shape, params["kernel"].shape, ("NHWC", "HWIO", "NHWC"))
        maps = jax.lax.conv_general_dilated(images, params["kernel"], (1, 1), "SAME", dimension_numbers=dims)
        pooled = jax.nn.softplus(maps * params["gain"] + params["shift"]).mean(axis=(1, 2))
        return jnp.mean((pooled @ params["out"] - wanted) ** 2)

    shapes = {"kernel": (3, 3, 2, 5), "gain": (5,), "shift": (5,), "out": (5, 2)}
    params = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    found = js.symmetry.of(params, loss, (jax.random.normal(jax.random.key(0), (4, 5, 5, 2)), Y[:4]))
    (layer,) = found.layers
    assert layer.units.shape == (5, 3 * 3 * 2 + 1 + 1 + 2)
    assert layer.outgoing.shape == (5, 2)
    assert not found.odd


@pytest.mark.parametrize(("order", "odd"), [((0, 1, 2), False), ((0, 2, 1), True)])
def test_channels_behind_a_flattened_signal_are_those_of_brute_force(order, odd):
    channels, places = 3, 4
    act = jnp.tanh if odd else jax.nn.softplus

    def outputs(params, signals):
        windows = jnp.stack([signals[:, i : i + places] for i in range(2)], axis=2)
        maps = act(windows @ params["kernel"] + params["shift"])  # signals, places, channels
        hidden = act(maps.transpose(order).reshape(len(signals), -1) @ params["dense"] + params["bias"])
        return hidden @ params["out"]

    def loss(params, data):
        squares = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
        return jnp.mean((outputs(params, data[0]) - data[1]) ** 2) + 1e-3 * squares

    shapes = {"kernel": (2, channels), "shift": (channels,), "dense": (channels * places, 2), "bias": (2,)}
    shapes |= {"out": (2,)}
    params = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    data = jax.random.normal(jax.random.key(0), (6, places + 1)), Y[:6, 0]
    group = js.symmetry.of(params, loss, data)
    assert [layer.units.shape for layer in group.layers] == [(channels, 2 + 1 + 2 * places), (2, channels * places + 2)]
    assert group.odd == odd
    problem = js.from_loss(loss, params, data)
    one, other = np.random.default_rng(0).normal(size=(2, problem.dim))

    def moved(which, signs, units, flips):
        p = problem.unravel(jnp.asarray(one))
        which, units = jnp.asarray(which), jnp.asarray(units)
        p |= {"kernel": p["kernel"][:, which] * signs, "shift": p["shift"][which] * signs}
        shape = (places, channels, 2) if order == (0, 1, 2) else (channels, places, 2)
        dense = p["dense"].reshape(shape)
        dense = dense[:, which] * signs[:, None] if order == (0, 1, 2) else dense[which] * signs[:, None, None]
        p |= {"dense": dense.reshape(-1, 2)[:, units] * flips, "out": p["out"][units] * flips}
        p |= {"bias": p["bias"][units] * flips}
        return np.asarray(js.objective.ravel(p))

    free = [-1.0, 1.0] if odd else [1.0]
    copies = [
        moved(which, jnp.array(signs), units, jnp.array(flips))
        for which in itertools.permutations(range(channels))
        for signs in itertools.product(free, repeat=channels)
        for units in itertools.permutations(range(2))
        for flips in itertools.product(free, repeat=2)
    ]
    energies = js.objective.values(problem, jnp.asarray(np.array(copies)))
    np.testing.assert_allclose(energies, energies[0], rtol=1e-12)
    _, distance = js.symmetry.align(group, other, np.array(copies))
    nearest = np.linalg.norm(np.array(copies) - other, axis=1).min()
    assert distance.min() == pytest.approx(nearest, rel=1e-12)  # two layers of units: a descent, which some start ends


def test_what_only_the_data_have_in_common_is_no_symmetry():
    # The two inputs of XOR could change places.
    def loss(params, data):
        return jnp.mean((jnp.tanh(data[0] @ params["in"]) @ params["out"] - data[1]) ** 2)

    x = jnp.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    found = js.symmetry.of({"in": jnp.zeros((2, 2)), "out": jnp.zeros(2)}, loss, (x, x.prod(axis=1)))
    (layer,) = found.layers
    assert np.sort(layer.units, axis=1).tolist() == [[0, 2, 4], [1, 3, 5]]


def test_a_wrong_symmetry_is_refused_by_name():
    objective, symmetry = js.surfaces.xor()
    layer = symmetry.layers[0]
    starts = jax.random.normal(jax.random.key(0), (2, objective.dim))
    wrong = symmetry._replace(layers=(layer._replace(incoming=layer.incoming.T),))
    with pytest.raises(ValueError, match=r"exchanging the units in a circle of symmetry.layers\[0\] changes the loss"):
        js.explore(objective, wrong, starts, jax.random.key(0))
    softplus = js.models.mlp("softplus")
    loss = lambda params, data: jnp.mean((softplus(params, data[0]) - data[1]) ** 2)  # noqa: E731
    odd = js.models.symmetry((3, 2, 2), "tanh")
    made = js.from_loss(loss, js.models.init(jax.random.key(0), (3, 2, 2)), (X, Y))
    with pytest.raises(ValueError, match="changing the sign of unit 0"):
        js.explore(made, odd, jax.random.normal(jax.random.key(0), (2, made.dim)), jax.random.key(0))
