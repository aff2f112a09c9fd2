"""The loss landscape of a Flax (nnx) network: `python notebooks/flax_network.py`, needs flax."""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
from flax import nnx

import jaxscape as js

x, y = jnp.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]]), jnp.array([0.0, 1, 1, 0])
rngs = nnx.Rngs(0)
model = nnx.Sequential(nnx.Linear(2, 2, rngs=rngs), jnp.tanh, nnx.Linear(2, 1, rngs=rngs))
graph, params = nnx.split(model, nnx.Param, ...)[:2]


def loss(params, data):
    x, y = data
    logits = nnx.merge(graph, params)(x)[:, 0]
    penalty = 1e-3 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
    return jnp.mean(jnp.logaddexp(0, logits) - y * logits) + penalty


found = js.explain_model(loss, params, (x, y))
print(found)
print("conserved:", jax.tree.leaves(found.mask))  # a state like the one that was given
found.plot()
plt.show()
