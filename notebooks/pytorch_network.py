"""The loss landscape of a PyTorch network, and back: `python notebooks/pytorch_network.py`, needs torch."""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import torch

import jaxscape as js

x, y = jnp.array([[-1.0, -1], [-1, 1], [1, -1], [1, 1]]), jnp.array([0.0, 1, 1, 0])
model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh(), torch.nn.Linear(2, 1))
params = {name: value.detach().numpy() for name, value in model.state_dict().items()}


def loss(params, data):
    x, y = data  # the model once more, in JAX; js.symmetry.of finds out what leaves it unchanged
    hidden = jnp.tanh(x @ params["0.weight"].T + params["0.bias"])
    logits = (hidden @ params["2.weight"].T + params["2.bias"])[:, 0]
    penalty = 1e-3 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
    return jnp.mean(jnp.logaddexp(0, logits) - y * logits) + penalty


found = js.explain_model(loss, params, (x, y))
print(found)
print("conserved:", found.mask["0.weight"])
lowest = {name: torch.tensor(value) for name, value in found.minimum(found.group[0]).items()}
model.load_state_dict(lowest)  # the lowest minimum, in PyTorch again
found.plot()
plt.show()
