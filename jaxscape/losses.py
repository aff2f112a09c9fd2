"""Losses for tables: mean cross-entropy and mean squared error (from optax), plus an L2 penalty."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

Predict = Callable[[Any, Float[Array, "N inputs"]], Float[Array, "N outputs"]]
Loss = Callable[[Any, Any], Float[Array, ""]]


class Supervised(NamedTuple):
    """Training data of the losses below: inputs `x (N, inputs)`, targets `y (N,)` and the L2 strength `l2 ()`.

    The penalty is `l2` times the sum of all squared parameters, biases included. Without it (`l2 = 0`) separable data
    have no finite minimum and unused weights leave flat directions in the Hessian.
    """

    x: Float[Array, "N inputs"]
    y: Float[Array, " N"]
    l2: Float[Array, ""] | float = 1e-3


def sum_of_squares(params: Any) -> Float[Array, ""]:
    """Return the sum of all squared parameters of a pytree."""
    return jnp.asarray(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)))


@functools.cache
def sigmoid_cross_entropy(predict: Predict) -> Loss:
    """Return `loss(params, data)`: mean binary cross-entropy of one logit per row, labels 0 or 1, plus L2."""
    return _penalised(predict, optax.losses.sigmoid_binary_cross_entropy)


@functools.cache
def squared_error(predict: Predict) -> Loss:
    """Return `loss(params, data)`: mean of `(prediction - y)**2` over the rows, plus L2."""
    return _penalised(predict, optax.losses.squared_error)


def _penalised(predict: Predict, error: Callable[[Array, Array], Array]) -> Loss:
    def loss(params: Any, data: Supervised) -> Float[Array, ""]:
        return error(predict(params, data.x)[:, 0], data.y).mean() + data.l2 * sum_of_squares(params)

    return loss
