"""The loss landscape of an Equinox network: `python notebooks/equinox_network.py`, needs equinox."""

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt

import jaxscape as js

x, y = jnp.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]]), jnp.array([0.0, 1, 1, 0])
model = eqx.nn.MLP(2, "scalar", 2, 1, activation=jnp.tanh, key=jax.random.key(0))
params, static = eqx.partition(model, eqx.is_array)


def loss(params, data):
    x, y = data
    logits = jax.vmap(eqx.combine(params, static))(x)
    penalty = 1e-3 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
    return jnp.mean(jnp.logaddexp(0, logits) - y * logits) + penalty


found = js.explain_model(loss, params, (x, y))
print(found)
print("conserved:", found.mask.layers[0].weight)  # a model like the one that was given
found.plot()
plt.show()
