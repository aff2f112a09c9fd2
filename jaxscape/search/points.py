"""The words every search shares: status, stationary point, root mean square, what a precision can reach."""

import enum
from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import DTypeLike
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
    FLAT = 8  # too little curvature to say where the point lies, or whether there is one: Newton's steps find no rest


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
    """Return the root mean square of a vector, whose squares may be too small or too large for the precision."""
    largest = jnp.max(jnp.abs(vector))
    return largest * jnp.sqrt(jnp.mean((vector / jnp.where(largest > 0, largest, 1)) ** 2))


def reachable(dtype: DTypeLike) -> float:
    """Return the RMS gradient, relative to the curvature and a unit of length, that searches reach in this precision.

    Relative to the curvature, since then neither the scale of a loss nor a constant added to it matters: what the
    gradient is divided by says how far the stationary point is.
    """
    return 1e-9 if jnp.finfo(dtype).bits == 64 else 1e-5
