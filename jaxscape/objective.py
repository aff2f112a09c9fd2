"""A loss over any pytree of parameters, seen as a function of one flat vector."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

# Columns of the Hessian computed at once: enough to saturate the matrix products, bounded memory for wide models.
_HESSIAN_BATCH = 256

ZeroModes = Callable[[Float[Array, " P"]], Float[Array, "k P"]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Objective:
    """A loss as a function of a flat vector; build one with `from_loss`.

    `data` is traced: new data of the same shape needs no new compilation. The other fields are static, so objectives
    made from the same loss function and the same parameter shapes share compiled code. `zero_modes` gives the known
    directions of no curvature at a point, such as the translations and rotations of a cluster: the Hessian's index
    leaves them out.
    """

    data: Any
    loss: Callable[[Any, Any], Float[Array, ""]] = field(metadata={"static": True})
    unravel: Callable[[Float[Array, " P"]], Any] = field(metadata={"static": True})
    dim: int = field(metadata={"static": True})
    zero_modes: ZeroModes | None = field(default=None, metadata={"static": True})


def from_loss(
    loss: Callable[[Any, Any], Float[Array, ""]],
    params: Any,
    data: Any = None,
    *,
    zero_modes: ZeroModes | None = None,
) -> Objective:
    """Make an objective from a scalar loss of any pytree of parameters.

    Args:
        loss: `loss(params, data)`, a pure JAX function that returns a floating-point scalar.
        params: an example of the parameters; only its structure, shapes and dtypes matter.
        data: any pytree of arrays, passed on to `loss`.
        zero_modes: `zero_modes(x) -> (k, P)`, orthonormal directions along which the loss is known not to change.

    Returns:
        The objective over flat vectors of length `dim`, in the order of `jax.flatten_util.ravel_pytree`.

    Raises:
        ValueError: if the parameters hold no numbers, or if the loss is not a floating-point scalar.

    >>> import jax.numpy as jnp
    >>> bowl = from_loss(lambda params, _: jnp.sum(params["a"] ** 2) + params["b"] ** 2, {"a": jnp.ones(2), "b": 1.0})
    >>> bowl.dim, float(value_and_grad(bowl, jnp.ones(3))[0])
    (3, 3.0)
    """
    flat, unravel = ravel_pytree(params)
    if flat.size == 0 or not jnp.issubdtype(flat.dtype, jnp.floating):
        raise ValueError(f"params must hold floating-point numbers, got {flat.size} values of dtype {flat.dtype}")
    out = jax.eval_shape(loss, params, data)
    if getattr(out, "shape", None) != () or not jnp.issubdtype(out.dtype, jnp.floating):
        raise ValueError(f"loss(params, data) must return a floating-point scalar, got {out}")
    return Objective(data=data, loss=loss, unravel=unravel, dim=flat.size, zero_modes=zero_modes)


def ravel(params: Any) -> Float[Array, " P"]:
    """Flatten parameters to the vector that an `Objective` takes; use under `jax.vmap` for a batch."""
    return ravel_pytree(params)[0]


def value(objective: Objective, x: Float[Array, " P"]) -> Float[Array, ""]:
    """Return the energy (loss) at `x`."""
    return objective.loss(objective.unravel(x), objective.data)


def value_and_grad(objective: Objective, x: Float[Array, " P"]) -> tuple[Float[Array, ""], Float[Array, " P"]]:
    """Return the energy and its gradient at `x`."""
    return jax.value_and_grad(value, argnums=1)(objective, x)


def hvp(objective: Objective, x: Float[Array, " P"], v: Float[Array, " P"]) -> Float[Array, " P"]:
    """Return the Hessian at `x` times `v`, forward over reverse: the price of about two gradients."""
    return linear_hvp(objective, x)(v)


def linear_hvp(objective: Objective, x: Float[Array, " P"]) -> Callable[[Float[Array, " P"]], Float[Array, " P"]]:
    """Return `v -> H(x) v` with the work that does not depend on `v` done once."""
    linear: Callable[[Float[Array, " P"]], Float[Array, " P"]]
    _, linear = jax.linearize(lambda point: jax.grad(value, argnums=1)(objective, point), x)
    return linear


def hessian(objective: Objective, x: Float[Array, " P"]) -> Float[Array, "P P"]:
    """Return the dense Hessian at `x`, symmetric to the last bit."""
    columns = jax.lax.map(
        linear_hvp(objective, x), jnp.eye(objective.dim, dtype=x.dtype), batch_size=min(objective.dim, _HESSIAN_BATCH)
    )
    return 0.5 * (columns + columns.T)


def zero_modes(objective: Objective, x: Float[Array, " P"]) -> Float[Array, "k P"]:
    """Return the known directions of no curvature at `x`, orthonormal rows; none for most objectives."""
    return jnp.zeros((0, x.size), x.dtype) if objective.zero_modes is None else objective.zero_modes(x)


def project(v: Float[Array, " P"], known: Float[Array, "k P"]) -> Float[Array, " P"]:
    """Return the part of `v` orthogonal to the orthonormal rows of `known`, such as zero modes."""
    return v - known.T @ (known @ v) if len(known) else v
