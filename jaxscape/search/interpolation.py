"""Starts for saddle searches from the straight line between two (aligned) minima."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxscape.objective import Objective, value


@functools.partial(jax.jit, static_argnames="num_images")
def highest_points(
    objective: Objective, starts: Float[Array, "n P"], ends: Float[Array, "n P"], *, num_images: int = 15
) -> tuple[Float[Array, "n P"], Float[Array, "n P"]]:
    """Find the highest of evenly spaced points inside each line.

    Args:
        objective: the landscape.
        starts: one end of each line.
        ends: the other ends; of networks, align them first.
        num_images: points tried on each line, the ends not among them.

    Returns:
        The highest point of each line, and the direction of the line there (not normalised).
    """
    fractions = jnp.arange(1, num_images + 1, dtype=starts.dtype) / (num_images + 1)

    def highest(start: Array, end: Array) -> Array:
        images = start + fractions[:, None] * (end - start)
        energies = jax.lax.map(functools.partial(value, objective), images)
        return images[jnp.argmax(energies)]

    return jax.vmap(highest)(starts, ends), ends - starts
