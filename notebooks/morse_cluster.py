"""The energy landscape of a potential of one's own, seven Morse atoms: `python notebooks/morse_cluster.py`."""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxscape as js

jax.config.update("jax_enable_x64", True)
first, second = np.triu_indices(7, 1)


def energy(atoms, rho):  # of positions (7, 3), in units of the depth and the distance of a pair
    distances = jnp.linalg.norm(atoms[first] - atoms[second], axis=1)
    pairs = jnp.exp(rho * (1 - distances)) * (jnp.exp(rho * (1 - distances)) - 2)
    # A soft wall, out of reach of compact clusters, so that an atom that comes off returns.
    beyond = jnp.linalg.norm(atoms - atoms.mean(axis=0), axis=1) - 2.5
    return pairs.sum() + jnp.sum(jnp.maximum(beyond, 0) ** 3)


objective = js.from_loss(energy, jnp.zeros((7, 3)), jnp.asarray(6.0), zero_modes=js.clusters.zero_modes)
symmetry = js.Symmetry((), dim=objective.dim, num_atoms=7)
starts = jax.random.normal(jax.random.key(0), (8, objective.dim))
landscape = js.explore(objective, symmetry, starts, jax.random.key(1))
minima, tree = landscape.minima, js.disconnectivity.tree_of(landscape)
print(f"{len(minima.energies)} minima from {minima.energies.min():.6f}")
print("heat capacity:", js.thermodynamics.heat_capacity(landscape, np.array([0.1, 0.2, 0.4])).round(2))
log_rates = js.kinetics.log_rates(landscape, temperature=0.2)
lowest = minima.energies.argmin()
print("mean time to the lowest:", np.exp(js.kinetics.log_mean_first_passage_times(log_rates, np.array([lowest]))).round(2))
# js.exchange.write_xyz("minima.xyz", landscape) and js.exchange.write_pathsample(folder, landscape) hand it on.
js.plotting.disconnectivity_graph(tree, minima.energies).set_ylabel("energy")
plt.show()
