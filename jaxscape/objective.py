"""A loss over any pytree of parameters, seen as a function of one flat vector."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
        ValueError: if a leaf of the parameters holds anything but floating-point numbers (it is named), if there are
            none, or if the loss is not a floating-point scalar of JAX.

    >>> import jax.numpy as jnp
    >>> bowl = from_loss(lambda params, _: jnp.sum(params["a"] ** 2) + params["b"] ** 2, {"a": jnp.ones(2), "b": 1.0})
    >>> bowl.dim, float(value_and_grad(bowl, jnp.ones(3))[0])
    (3, 3.0)
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for path, leaf in leaves:
        kind = np.result_type(leaf) if isinstance(leaf, (float, int, np.generic)) else getattr(leaf, "dtype", None)
        if kind is None or not jnp.issubdtype(kind, jnp.floating):
            raise ValueError(
                f"params{jax.tree_util.keystr(path)} must hold floating-point numbers, got {kind or repr(leaf)}: pass "
                "what is not to be moved as data, or convert it"
            )
    if sum(np.size(leaf) for _, leaf in leaves) == 0:
        raise ValueError("params must hold floating-point numbers, got 0 values")
    flat, unravel = ravel_pytree(params)
    out = jax.eval_shape(lambda params, data: _as_output(loss(params, data)), params, data)
    if out.shape != () or not jnp.issubdtype(out.dtype, jnp.floating):
        raise ValueError(f"loss(params, data) must return a floating-point scalar, got {out}")
    return Objective(data=data, loss=loss, unravel=unravel, dim=flat.size, zero_modes=zero_modes)


def _as_output(value: Any) -> Any:
    if not isinstance(value, jax.Array):
        raise ValueError(
            f"loss(params, data) must return a scalar of JAX that depends on params, got {value!r}: a number of Python "
            "or NumPy has no gradient"
        )
    return value


def check_points(dim: int, **points: Any) -> None:
    """Raise a `ValueError` unless each of the named arguments is an array of at least one point, (n, dim)."""
    for name, array in points.items():
        if not isinstance(array, (jax.Array, np.ndarray)):
            raise ValueError(f"{name} must be an array of shape (n, {dim}), got a {type(array).__name__}")
        if array.ndim != 2 or array.shape[1] != dim or len(array) == 0:
            raise ValueError(f"{name} must have shape (n, {dim}) with at least one row, got {array.shape}")


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
