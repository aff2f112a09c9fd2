"""The words every search shares: status, stationary point, root mean square, tolerances."""

import enum
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Status(enum.IntEnum):
    """How a search ended, one value per lane."""

    RUNNING = 0
    CONVERGED = 1
    MAX_EVALUATIONS = 2
    NONFINITE = 3
    STALLED = 4
    LOST_NEGATIVE_CURVATURE = 5
    PUSHOFF_FAILED = 6
    WRONG_INDEX = 7  # stationary, but with another number of negative Hessian eigenvalues
    FLAT = 8  # stationary, but with directions of no curvature: not an isolated point


class StationaryPoint(NamedTuple):
    """Where a search ended; a batch has one more axis in front of each field.

    `position (P,)`, `energy ()`, `grad_rms ()` (root mean square of the gradient), `num_evaluations ()` (gradients
    computed), `status ()` (a `Status`; only CONVERGED is a stationary point).
    """

    position: Float[Array, "*batch P"]
    energy: Float[Array, "*batch"]
    grad_rms: Float[Array, "*batch"]
    num_evaluations: Int[Array, "*batch"]
    status: Int[Array, "*batch"]


def rms(vector: Float[Array, " P"]) -> Float[Array, ""]:
    """Return the root mean square of a vector."""
    return jnp.sqrt(jnp.mean(vector**2))


def tolerance(given: Float[Array, ""] | float | None, energy: Float[Array, ""]) -> Float[Array, ""]:
    """Return the RMS gradient at which a search stops: as given, or what is in reach at energies of this size."""
    if given is not None:
        return jnp.asarray(given, energy.dtype)
    reachable = 1e-9 if jnp.finfo(energy.dtype).bits == 64 else 1e-5
    size = jnp.where(jnp.isfinite(energy), jnp.maximum(jnp.abs(energy), 1), 1)
    return reachable * size
