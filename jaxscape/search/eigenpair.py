"""The lowest eigenpair of a symmetric operator that is known only by its products with vectors."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxscape.search.factor import eigh

Matvec = Callable[[Float[Array, " P"]], Float[Array, " P"]]


class Eigenpair(NamedTuple):
    """`value ()`, unit `vector (P,)` and `residual ()`, the norm of `A v - value v`; `scale ()` as for `Ritz`.

    Some eigenvalue lies within `residual` of `value`, and the lowest one is at most `value`.
    """

    value: Float[Array, ""]
    vector: Float[Array, " P"]
    residual: Float[Array, ""]
    scale: Float[Array, ""]


class Ritz(NamedTuple):
    """Ritz pairs of a Krylov space: `values (k,)` ascending, `coefficients (k, k)`, one column per pair, of the
    orthonormal `basis (k, P)`, and the `residuals (k,)` of the pairs; `scale ()`: how large the operator is, as far as
    the space tells."""

    values: Float[Array, " k"]
    coefficients: Float[Array, "k k"]
    basis: Float[Array, "k P"]
    residuals: Float[Array, " k"]
    scale: Float[Array, ""]


def ritz(matvec: Matvec, v0: Float[Array, " P"], *, num_steps: int) -> Ritz:
    """Lanczos iteration with full reorthogonalisation.

    Args:
        matvec: the operator, symmetric.
        v0: where to start, not zero.
        num_steps: products with the operator, at most the dimension. Where the Krylov space is exhausted before, the
            basis ends in zeros, with values above all others.
    """
    num_steps = min(num_steps, v0.size)
    tiny = jnp.finfo(v0.dtype).tiny
    # Below this the Krylov space is exhausted: what is left of the new vector is rounding noise.
    exhausted = 1e3 * jnp.finfo(v0.dtype).eps

    def extend(carry: tuple[Array, Array], index: Array) -> tuple[tuple[Array, Array], tuple[Array, Array, Array]]:
        basis, vector = carry
        basis = basis.at[index].set(vector)
        image = matvec(vector)
        alpha = jnp.vdot(vector, image)
        rest = image - basis.T @ (basis @ image)
        rest = rest - basis.T @ (basis @ rest)
        beta = jnp.linalg.norm(rest)
        ok = beta > exhausted * jnp.maximum(jnp.linalg.norm(image), tiny)
        following = jnp.where(ok, rest / jnp.where(ok, beta, 1), 0)
        return (basis, following), (alpha, jnp.where(ok, beta, 0), jnp.any(vector != 0))

    start = v0 / jnp.maximum(jnp.linalg.norm(v0), tiny)
    empty = jnp.zeros((num_steps, v0.size), v0.dtype)
    (basis, _), (alphas, betas, used) = jax.lax.scan(extend, (empty, start), jnp.arange(num_steps))
    # Slots after exhaustion hold the zero vector; a large diagonal keeps them out of the lowest pairs.
    unused = jnp.sum(jnp.abs(alphas)) + jnp.sum(betas) + 1
    tridiagonal = jnp.diag(jnp.where(used, alphas, unused)) + jnp.diag(betas[:-1], 1) + jnp.diag(betas[:-1], -1)
    values, coefficients = eigh(tridiagonal)
    scale = jnp.maximum(jnp.max(jnp.abs(alphas)), jnp.max(betas[:-1], initial=0))
    return Ritz(values, coefficients, basis, betas[-1] * jnp.abs(coefficients[-1]), scale)


def lowest(matvec: Matvec, v0: Float[Array, " P"], *, num_steps: int) -> Eigenpair:
    """Estimate the lowest eigenpair by Lanczos iteration.

    Args:
        matvec: the operator, symmetric.
        v0: where to start, not zero; the better the guess, the fewer the steps.
        num_steps: products with the operator, at most the dimension.

    Returns:
        The lowest Ritz pair of the Krylov space of `v0`, its sign such that it does not oppose `v0`.

    >>> import jax.numpy as jnp
    >>> pair = lowest(lambda v: jnp.array([3.0, -1.0, 2.0]) * v, jnp.ones(3), num_steps=3)
    >>> round(float(pair.value), 4)
    -1.0
    """
    pairs = ritz(matvec, v0, num_steps=num_steps)
    vector = pairs.basis.T @ pairs.coefficients[:, 0]
    vector = vector * jnp.where(jnp.vdot(vector, v0) < 0, -1, 1)
    vector = vector / jnp.maximum(jnp.linalg.norm(vector), jnp.finfo(v0.dtype).tiny)
    return Eigenpair(pairs.values[0], vector, pairs.residuals[0], pairs.scale)
