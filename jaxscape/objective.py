"""A loss over any pytree of parameters, seen as a function of one flat vector."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from jaxscape import curvature
from jaxscape.cores import on_device
from jaxscape.programs import program

_HESSIAN_ROWS = 1 << 22  # columns of a Hessian at once times rows of data: each row is held once for every column

ZeroModes = Callable[[Float[Array, " P"]], Float[Array, "k P"]]
Outputs = Callable[[Any, Any], Float[Array, "N K"]]
Errors = Callable[[Any, Any], Float[Array, " N"]]


class Rows(NamedTuple):
    """The data of `from_rows`; all of it is traced.

    `x` and `y`: N rows of inputs and targets; `weights (N,)` of the rows in the mean, of any sum; `precision (P,)`:
    twice the L2 strength of each weight; `errors`: see `from_rows`.
    """

    x: Any
    y: Any
    weights: Float[Array, " N"]
    precision: Float[Array, " P"]
    errors: jax.tree_util.Partial


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Objective:
    """A loss as a function of a flat vector; build one with `from_loss` or `from_rows`.

    `data` and `scale` are traced: new data of the same shape needs no new compilation. The other fields are static, so
    objectives made from the same loss function and the same parameter shapes share compiled code. `zero_modes` gives
    the known directions of no curvature at a point, such as the translations and rotations of a cluster: the Hessian's
    index leaves them out. `scale (P,)`: the parameters are `scale` times the vector; see `whiten`. `outputs`: of a
    loss that is known row by row.
    """

    data: Any
    loss: Callable[[Any, Any], Float[Array, ""]] = field(metadata={"static": True})
    unravel: Callable[[Float[Array, " P"]], Any] = field(metadata={"static": True})
    dim: int = field(metadata={"static": True})
    zero_modes: ZeroModes | None = field(default=None, metadata={"static": True})
    scale: Float[Array, " P"] | None = None
    outputs: Outputs | None = field(default=None, metadata={"static": True})


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
    _check_params(params)
    size, _, unravel = flattened(params)
    out = jax.eval_shape(lambda params, data: _as_output(loss(params, data)), params, data)
    if out.shape != () or not jnp.issubdtype(out.dtype, jnp.floating):
        raise ValueError(f"loss(params, data) must return a floating-point scalar, got {out}")
    return Objective(data=data, loss=loss, unravel=unravel, dim=size, zero_modes=zero_modes)


def from_rows(
    outputs: Outputs,
    errors: Errors,
    params: Any,
    x: Any,
    y: Any,
    *,
    weights: Float[Array, " N"] | Float[np.ndarray, " N"] | None = None,
    precision: Float[Array, " P"] | Float[np.ndarray, " P"] | float,
) -> Objective:
    """Make an objective from the errors that a model makes in each row, plus a penalty.

    `energy = average(errors(outputs(params, x), y), weights) + 0.5 * sum(precision * params**2)`. Who gives the rows
    apart gets more than from `from_loss`: Gauss-Newton steps, and penalties chosen by the data (`evidence`).

    Args:
        outputs: `outputs(params, x) -> (N, K)`, the model, pure JAX, each row by itself.
        errors: `errors(outputs, y) -> (N,)`, convex in the outputs, pure JAX, each row by itself too. For the evidence:
            negative log-likelihoods in nats. What `jax.tree_util.Partial` binds to it is traced, such as the precision
            of a noise.
        params: an example of the parameters; only its structure, shapes and dtypes matter.
        x: inputs, N rows; an array or a pytree of arrays.
        y: targets, N rows.
        weights: of the rows in the mean; all the same by default.
        precision: of each parameter, in the order of `jax.flatten_util.ravel_pytree`, or one number for all: twice an
            L2 strength.

    Returns:
        The objective over flat vectors of length `dim`.

    Raises:
        ValueError: as for `from_loss`; if shapes do not agree, a weight or a precision is negative or not finite, or
            all weights are zero.

    >>> import jax.numpy as jnp
    >>> x, y = jnp.array([[0.0], [1.0], [2.0]]), jnp.array([0.0, 2.0, 4.0])
    >>> line = from_rows(lambda a, x: x * a, lambda f, y: 0.5 * (f[:, 0] - y) ** 2, jnp.zeros(1), x, y, precision=0.0)
    >>> float(value(line, jnp.ones(1))), float(gauss_newton(line, jnp.ones(1))[0, 0])
    (0.8333333333333334, 1.6666666666666667)
    """
    _check_params(params)
    size, dtype, _ = flattened(params)
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves((x, y))]
    num_rows = next((shape[0] for shape in shapes if shape), 0)
    if num_rows == 0 or any(shape[:1] != (num_rows,) for shape in shapes):
        listed = ", ".join(map(str, shapes[:8]))
        raise ValueError(f"x and y must hold the same number of rows, at least one, got shapes {listed}")
    x, y = jax.tree.map(on_device, (x, y))
    weights = np.ones(num_rows) if weights is None else weights
    precision = np.full(size, precision) if np.ndim(precision) == 0 else precision
    for name, given, length in (("weights", weights, num_rows), ("precision", precision, size)):
        _check_strengths(name, given, length)
    if not isinstance(weights, jax.core.Tracer) and not np.any(weights):
        raise ValueError("weights must not all be zero: some row must count")
    partial = errors if isinstance(errors, jax.tree_util.Partial) else jax.tree_util.Partial(errors)
    out = jax.eval_shape(outputs, params, x)
    if len(getattr(out, "shape", ())) != 2 or out.shape[0] != num_rows:
        raise ValueError(f"outputs(params, x) must have shape ({num_rows}, K), got {out}")
    each = jax.eval_shape(partial, out, y)
    if getattr(each, "shape", None) != (num_rows,):
        raise ValueError(f"errors(outputs, y) must have shape ({num_rows},), got {each}")
    data = Rows(x, y, on_device(weights, dtype), on_device(precision, dtype), partial)
    return replace(from_loss(_loss_of_rows(outputs), params, data), outputs=outputs)


@functools.cache
def _loss_of_rows(outputs: Outputs) -> Callable[[Any, Rows], Float[Array, ""]]:
    def loss(params: Any, rows: Rows) -> Float[Array, ""]:
        mean = jnp.average(rows.errors(outputs(params, rows.x), rows.y), weights=rows.weights)
        return mean + 0.5 * jnp.sum(rows.precision * ravel(params) ** 2)

    return loss


def _check_strengths(name: str, given: Any, length: int) -> None:
    if np.shape(given) != (length,):
        raise ValueError(f"{name} must have shape ({length},), got {np.shape(given)}")
    if isinstance(given, jax.core.Tracer):
        return
    bad = np.flatnonzero(~(np.isfinite(given) & (np.asarray(given) >= 0)))
    if bad.size:
        raise ValueError(f"{name} must be finite and not negative, got {name}[{bad[0]}] = {given[bad[0]]}")


def flattened(params: Any) -> tuple[int, Any, Callable[[Float[Array, " P"]], Any]]:
    """Return the length and dtype of the flat vector of such parameters, and the way back, computing nothing."""
    found = []

    def flatten(params: Any) -> Array:
        flat, unravel = ravel_pytree(params)
        found.append(unravel)
        return flat

    flat = jax.eval_shape(flatten, params)
    return flat.size, flat.dtype, found[0]


def _check_params(params: Any) -> None:
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
    return objective.loss(objective.unravel(unscaled(objective, x)), objective.data)


@program
def values(objective: Objective, points: Float[Array, "n P"]) -> Float[Array, " n"]:
    """Return the energies at many points."""
    return jax.vmap(functools.partial(value, objective))(points)


def unscaled(objective: Objective, x: Float[Array, "*n P"]) -> Float[Array, "*n P"]:
    """Return the parameters that `x` stands for, flat: `x` itself but for an objective that was whitened."""
    return x if objective.scale is None else objective.scale * x


def whiten(objective: Objective) -> Objective:
    """Measure each weight of an objective of rows in units of what its penalty allows.

    The new vectors are the weights over `scale`, the power of two nearest to 1 / sqrt(rows * precision): all weights
    then have nearly the same penalty, so that one length of step and one measure of distance fit all of them, and
    going there and back changes no bit. Weights without a penalty keep their unit.

    Raises:
        ValueError: if the objective is not from `from_rows`, or is whitened already.
    """
    if objective.outputs is None or objective.scale is not None:
        raise ValueError("only an objective made by from_rows, and not yet whitened, can be")
    strength = objective.data.precision * len(objective.data.weights)
    powers = jnp.round(-0.5 * jnp.log2(jnp.where(strength > 0, strength, 1)))
    # Not exp2, which is off by some bits.
    return replace(objective, scale=jnp.ldexp(jnp.ones_like(powers), powers.astype(int)))


def value_and_grad(objective: Objective, x: Float[Array, " P"]) -> tuple[Float[Array, ""], Float[Array, " P"]]:
    """Return the energy and its gradient at `x`."""
    return jax.value_and_grad(value, argnums=1)(objective, x)


def hvp(objective: Objective, x: Float[Array, " P"], v: Float[Array, " P"]) -> Float[Array, " P"]:
    """Return the Hessian at `x` times `v`, forward over reverse: the price of about two gradients."""
    return linear_hvp(objective, x)(v)


def linear_hvp(objective: Objective, x: Float[Array, " P"]) -> Callable[[Float[Array, " P"]], Float[Array, " P"]]:
    """Return `v -> H(x) v` with the work that does not depend on `v` done once: each product then costs less than a
    gradient (of networks 0.5 to 0.8), and is counted as one."""
    linear: Callable[[Float[Array, " P"]], Float[Array, " P"]]
    _, linear = jax.linearize(lambda point: jax.grad(value, argnums=1)(objective, point), x)
    return linear


def hessian(objective: Objective, x: Float[Array, " P"]) -> Float[Array, "P P"]:
    """Return the dense Hessian at `x`, symmetric to the last bit.

    Where the rows are known they are taken in chunks that stay in the cache, and the first layer of `models.mlp` by
    itself: ten times as fast.
    """
    if objective.outputs is not None:
        rows: Rows = objective.data
        at = unscaled(objective, x)
        return _with_penalty(
            objective, curvature.hessian(objective.outputs, rows.errors, objective.unravel, at, rows[:3])
        )
    num_rows = max((leaf.shape[0] for leaf in jax.tree.leaves(objective.data) if np.ndim(leaf)), default=1)
    batch = min(objective.dim, curvature.MOST_COLUMNS, max(_HESSIAN_ROWS // max(num_rows, 1), 1))
    columns = jax.lax.map(linear_hvp(objective, x), jnp.eye(objective.dim, dtype=x.dtype), batch_size=batch)
    return 0.5 * (columns + columns.T)


def gauss_newton(objective: Objective, x: Float[Array, " P"]) -> Float[Array, "P P"]:
    """Return the Hessian at `x` without the curvature of the model: positive semi-definite, and cheaper.

    `average(J.T @ hessian(errors) @ J, weights) + diag(precision)` with J the Jacobian of the outputs of a row; rows
    are taken in chunks, so that memory does not grow with their number (Schraudolph, Neural Comput. 14, 1723, 2002).

    Raises:
        ValueError: if the objective is not from `from_rows`.
    """
    return value_grad_and_gauss_newton(objective, x)[2]


def value_grad_and_gauss_newton(
    objective: Objective, x: Float[Array, " P"]
) -> tuple[Float[Array, ""], Float[Array, " P"], Float[Array, "P P"]]:
    """Return the energy, its gradient and `gauss_newton` at `x`, from one pass over the rows.

    Raises:
        ValueError: if the objective is not from `from_rows`.
    """
    if objective.outputs is None:
        raise ValueError("Gauss-Newton needs the rows: make the objective with from_rows")
    rows: Rows = objective.data
    sums = curvature.gauss_newton(objective.outputs, rows.errors, objective.unravel, unscaled(objective, x), rows[:3])
    number, scale = rows.weights.sum(), _scale(objective)
    penalty = rows.precision * scale**2
    return (
        sums.error / number + 0.5 * jnp.sum(penalty * x**2),
        scale * sums.gradient / number + penalty * x,
        _with_penalty(objective, sums.matrix),
    )


def _with_penalty(objective: Objective, total: Float[Array, "P P"]) -> Float[Array, "P P"]:
    """Return the curvature of the energy, symmetric to the last bit, given that of the sum over the rows."""
    rows: Rows = objective.data
    scale = _scale(objective)
    mean = 0.5 * (total + total.T) / rows.weights.sum()
    return scale[:, None] * mean * scale + jnp.diag(rows.precision * scale**2)


def _scale(objective: Objective) -> Float[Array, " P"]:
    return jnp.ones_like(objective.data.precision) if objective.scale is None else objective.scale


def zero_modes(objective: Objective, x: Float[Array, " P"]) -> Float[Array, "k P"]:
    """Return the known directions of no curvature at `x`, orthonormal rows; none for most objectives."""
    return jnp.zeros((0, x.size), x.dtype) if objective.zero_modes is None else objective.zero_modes(x)


def project(v: Float[Array, " P"], known: Float[Array, "k P"]) -> Float[Array, " P"]:
    """Return the part of `v` orthogonal to the orthonormal rows of `known`, such as zero modes."""
    return v - known.T @ (known @ v) if len(known) else v
