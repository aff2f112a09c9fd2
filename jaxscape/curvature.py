"""Second derivatives of sums over rows, in chunks that stay in the cache."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

MOST_COLUMNS = 256  # of a matrix at once: enough to saturate the processor, bounded memory for wide models
_CHUNK = 1 << 16  # rows times weights of one chunk of rows, with a lane for every core
_CHUNK_ROWS, _CHUNK_NUMBERS = 512, 1 << 20  # where the first layer is taken by itself

Outputs = Callable[[Any, Any], Float[Array, "N K"]]
Errors = Callable[[Any, Any], Float[Array, " N"]]
Unravel = Callable[[Float[Array, " P"]], Any]
Rows = tuple[Any, Any, Float[Array, " N"]]  # inputs, targets, weights
# Tangents of what enters the first layer, and of the other parameters, to the cotangents of both.
Product = Callable[[Float[Array, "units N"], Float[Array, " others"]], tuple[Array, Array]]


class Sums(NamedTuple):
    """Weighted sums over rows: of the `error`, its `gradient`, and a Gauss-Newton `matrix`."""

    error: Float[Array, ""]
    gradient: Float[Array, " P"]
    matrix: Float[Array, "P P"]


def hessian(
    outputs: Outputs, errors: Errors, unravel: Unravel, x: Float[Array, " P"], rows: Rows
) -> Float[Array, "P P"]:
    """Return the Hessian of the sum of the errors of all rows."""
    params = unravel(x)
    if hasattr(outputs, "after") and len(params) > 1:
        behind = _Behind(outputs, params)

        def chunk(inputs: Any, targets: Any, weights: Array) -> Array:
            def error(z: Array, flat: Array) -> Array:
                return weights @ errors(behind.outputs(z, flat), targets)

            _, product = jax.linearize(jax.grad(error, (0, 1)), behind.entering(inputs), behind.flat)
            return through_first_layer(product, inputs, *behind.sizes)

        most = behind.rows_at_once()
    else:

        def chunk(inputs: Any, targets: Any, weights: Array) -> Array:
            def error(x: Array) -> Array:
                return weights @ errors(outputs(unravel(x), inputs), targets)

            _, product = jax.linearize(jax.grad(error), x)
            return jax.lax.map(product, jnp.eye(x.size, dtype=x.dtype), batch_size=min(x.size, MOST_COLUMNS))

        most = _CHUNK // x.size
    return _over_chunks(chunk, jnp.zeros((x.size, x.size), x.dtype), rows, most)


def gauss_newton(outputs: Outputs, errors: Errors, unravel: Unravel, x: Float[Array, " P"], rows: Rows) -> Sums:
    """Return the sum of the errors of all rows, its gradient, and the Hessian it had if the model were linear."""
    params = unravel(x)
    if hasattr(outputs, "after") and len(params) == 2:  # of more layers it would cost more
        behind = _Behind(outputs, params)

        def chunk(inputs: Any, targets: Any, weights: Array) -> Sums:
            def error(outputs: Array) -> Array:
                return weights @ errors(outputs, targets)

            z = behind.entering(inputs)
            found, forward = jax.linearize(behind.outputs, z, behind.flat)
            backward = jax.linear_transpose(forward, z, behind.flat)
            slope, curved = jax.linearize(jax.grad(error), found)
            of_units, of_others = backward(slope)
            gradient = jnp.concatenate([(inputs.T @ of_units.T).ravel(), of_units.sum(axis=1), of_others])
            matrix = through_first_layer(lambda *v: backward(curved(forward(*v))), inputs, *behind.sizes)
            return Sums(error(found), gradient, matrix)

        most = behind.rows_at_once()
    else:

        def one_row(inputs: Any, targets: Any) -> tuple[Array, Array, Array, Array]:
            inputs, targets = jax.tree.map(lambda leaf: leaf[None], (inputs, targets))

            def of_row(x: Array) -> tuple[Array, Array]:
                output = outputs(unravel(x), inputs)[0]
                return output, output

            def error(output: Array) -> Array:
                return errors(output[None], targets)[0]

            jacobian, output = jax.jacrev(of_row, has_aux=True)(x)
            return error(output), jax.grad(error)(output) @ jacobian, jacobian, jax.hessian(error)(output) @ jacobian

        def chunk(inputs: Any, targets: Any, weights: Array) -> Sums:
            error, gradient, jacobian, curved = jax.vmap(one_row)(inputs, targets)
            flat = jacobian.reshape(-1, x.size), (weights[:, None, None] * curved).reshape(-1, x.size)
            return Sums(weights @ error, weights @ gradient, flat[0].T @ flat[1])

        most = _CHUNK // (jax.eval_shape(outputs, params, rows[0]).shape[1] * x.size)
    start = Sums(jnp.zeros((), x.dtype), jnp.zeros_like(x), jnp.zeros((x.size, x.size), x.dtype))
    return _over_chunks(chunk, start, rows, most)


class _Behind:
    """A model seen from behind its first layer, as `models.mlp` lets itself be seen: `after(rest, z)`."""

    def __init__(self, outputs: Any, params: Any) -> None:
        self.first = params[0]
        self.flat, unravel = ravel_pytree(params[1:])
        self.sizes = self.first.bias.size, self.flat.size
        self.outputs: Callable[[Array, Array], Array] = lambda z, flat: outputs.after(unravel(flat), z)

    def entering(self, x: Float[Array, "N inputs"]) -> Float[Array, "units N"]:
        return self.first.weights.T @ x.T + self.first.bias[:, None]

    def rows_at_once(self) -> int:
        units, others = self.sizes
        numbers = units * (units + 1) // 2 * (len(self.first.weights) + 1) + units * (units + others)
        return int(np.clip(_CHUNK_NUMBERS // numbers, 1, _CHUNK_ROWS))


def through_first_layer(product: Product, x: Float[Array, "N inputs"], units: int, others: int) -> Float[Array, "P P"]:
    """Return the matrix of a quadratic form in all parameters, given its product with vectors behind the first layer.

    The form is a sum over rows, each of which sees the weights of the first layer only through what enters its units,
    z = W'x + b. So its part for two units is X' D X with a diagonal matrix D, and all that is asked of the model is
    `units + others` products, however many inputs and outputs it has.

    Args:
        product: linear and symmetric, each row by itself.
        x: the rows.
        units: of the first layer.
        others: parameters of all other layers.

    Returns:
        the matrix, the weights of the first layer first, input by input, then its bias, then the others.
    """
    basis = jnp.eye(units + others, dtype=x.dtype)
    entering = jnp.broadcast_to(basis[:, :units, None], (units + others, units, len(x)))
    of_units, of_others = jax.vmap(product)(entering, basis[:, units:])
    ones = jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1)  # a bias is the weight of an input that is always 1
    num_first = ones.shape[1] * units
    one, other = np.triu_indices(units)
    pair = np.zeros((units, units), int)
    pair[one, other] = pair[other, one] = np.arange(len(one))
    of_pairs = jnp.einsum("pn,ni,nj->pij", of_units[one, other], ones, ones)
    first = of_pairs[pair].transpose(2, 0, 3, 1).reshape(num_first, num_first)
    across = jnp.einsum("cun,ni->iuc", of_units[units:], ones).reshape(num_first, others)
    return jnp.block([[first, across], [across.T, of_others[units:]]])


def _over_chunks(chunk: Callable[[Any, Any, Array], Any], start: Any, rows: Rows, most: int) -> Any:
    """Add up `chunk(x, y, weights)` over chunks of at most `most` rows, but at least one, onto `start`, zeros."""
    num_rows = len(rows[2])
    num_chunks = -(-num_rows // max(most, 1))
    size = -(-num_rows // num_chunks)
    # Rows over are repeated with no weight: any other would have to be a row the model can take.
    index = jnp.arange(num_chunks * size)
    there = index < num_rows
    index = jnp.where(there, index, 0)
    x, y, weights = jax.tree.map(lambda leaf: jnp.asarray(leaf)[index].reshape(-1, size, *leaf.shape[1:]), rows)
    parts = x, y, jnp.where(there.reshape(-1, size), weights, 0)
    if num_chunks == 1:  # A loop of one turn would be compiled as a loop.
        return chunk(*jax.tree.map(lambda leaf: leaf[0], parts))
    return jax.lax.scan(lambda total, part: (jax.tree.map(jnp.add, total, chunk(*part)), None), start, parts)[0]
