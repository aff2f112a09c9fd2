"""What a minimum would be had it never seen one of the rows: one Newton step from where it is, for every row.

So each row that was learnt from can be predicted by a model that has not learnt it, at the price of a few gradients
instead of as many searches as rows (Pregibon, Ann. Stat. 9, 705, 1981; Rad & Maleki, J. R. Stat. Soc. B 82, 965, 2020:
approximate leave-one-out). For a quantity that is linear in the weights the step is exact.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve
from jaxtyping import Array, Float

from jaxscape.objective import Objective, Rows, gauss_newton
from jaxscape.programs import program

_MOST_NUMBERS = 1 << 22  # rows times outputs times weights, held at once
_ALONE = 1e8  # times that the outputs of a row would move further without it


def minima(objective: Objective, x: Float[Array, " P"]) -> Float[Array, "N P"]:
    """Return for each row the minimum of the energy of all other rows that is near `x`.

    The penalties stay, `rows * energy` loses the errors of one row. Its curvature is Gauss and Newton's.

    Args:
        objective: from `from_rows`, not whitened.
        x: a minimum of it.

    Returns:
        A minimum for each row; zeros where the row alone decides where it is.

    Raises:
        ValueError: if the objective has no rows or is whitened.

    >>> import jax.numpy as jnp
    >>> from jaxscape.objective import from_rows
    >>> y = jnp.array([1.0, 2.0, 6.0])
    >>> errors = lambda mean, y: 0.5 * (mean[:, 0] - y) ** 2
    >>> mean = from_rows(lambda mean, x: mean * x, errors, jnp.zeros(1), jnp.ones((3, 1)), y, precision=0.0)
    >>> minima(mean, jnp.array([3.0])).round(3)[:, 0].tolist()
    [4.0, 3.5, 1.5]
    """
    _check(objective)
    return _without_each(objective, x)[0]


def outputs(objective: Objective, x: Float[Array, " P"]) -> Float[Array, "N K"]:
    """Return the outputs of each row by the model that has not seen it. Takes and raises what `minima` does."""
    _check(objective)
    return _without_each(objective, x)[1]


def compile_ahead(objective: Objective) -> None:
    """Compile what both do before it is asked for."""
    _without_each.compile_ahead(objective, jax.ShapeDtypeStruct((objective.dim,), objective.data.weights.dtype))


def _check(objective: Objective) -> None:
    if objective.outputs is None or objective.scale is not None:
        raise ValueError("leaving rows out needs an objective made by from_rows, not whitened")


def _of_row(objective: Objective, x: Array, row: Any) -> Array:
    """Return the outputs of one row."""
    assert objective.outputs is not None
    return objective.outputs(objective.unravel(x), jax.tree.map(lambda leaf: leaf[None], row))[0]


@program
def _without_each(objective: Objective, x: Array) -> tuple[Array, Array]:
    rows: Rows = objective.data
    curvature = rows.weights.sum() * gauss_newton(objective, x)
    # Its inverse, since a solve for each row would hold as many copies of the factor.
    inverse = cho_solve(cho_factor(curvature), jnp.eye(x.size, dtype=x.dtype))

    def without(job: tuple[Any, Any, Array]) -> tuple[Array, Array]:
        row, target, weight = job
        found, back = jax.vjp(lambda x: _of_row(objective, x, row), x)
        jacobian = jax.vmap(lambda cotangent: back(cotangent)[0])(jnp.eye(found.size, dtype=found.dtype))

        def error(found: Array) -> Array:
            return weight * rows.errors(found[None], jax.tree.map(lambda leaf: leaf[None], target))[0]

        reached = inverse @ jacobian.T
        held = jnp.eye(found.size, dtype=found.dtype) - jax.hessian(error)(found) @ (jacobian @ reached)
        freed = jnp.linalg.inv(held)
        moved = jnp.where(jnp.max(jnp.abs(freed)) < _ALONE, x + reached @ (freed @ jax.grad(error)(found)), 0)
        return moved, _of_row(objective, moved, row)

    jobs = rows.x, rows.y, rows.weights
    first = jax.tree.map(lambda leaf: leaf[0], rows.x)
    per_row = x.size * jax.eval_shape(functools.partial(_of_row, objective, x), first).size
    if len(rows.weights) * per_row <= _MOST_NUMBERS:
        return jax.vmap(without)(jobs)
    found: tuple[Array, Array] = jax.lax.map(without, jobs, batch_size=max(_MOST_NUMBERS // per_row, 1))
    return found
