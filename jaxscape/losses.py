"""Losses for tables: cross-entropy, squared error and a smooth AUC, plus an L2 penalty."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

Predict = Callable[[Any, Float[Array, "N inputs"]], Float[Array, "N outputs"]]
Loss = Callable[[Any, Any], Float[Array, ""]]


class Supervised(NamedTuple):
    """Training data of the losses below.

    Inputs `x (N, inputs)`, targets `y (N,)`, the L2 strength `l2 ()` and the weight of each row in the mean,
    `weights (N,)`, of any sum; without weights all rows count the same. The penalty is `l2` times the sum of all
    squared parameters, biases included. Without it (`l2 = 0`) separable data have no finite minimum and unused weights
    leave flat directions in the Hessian.
    """

    x: Float[Array, "N inputs"]
    y: Float[Array, " N"]
    l2: Float[Array, ""] | float = 1e-3
    weights: Float[Array, " N"] | None = None


def sum_of_squares(params: Any) -> Float[Array, ""]:
    """Return the sum of all squared parameters of a pytree."""
    return jnp.asarray(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params)))


def balanced_weights(
    y: Float[np.ndarray, " N"], weights: Float[np.ndarray, " N"] | None = None
) -> Float[np.ndarray, " N"]:
    """Return a weight for each row with which every class counts the same: N / (classes * rows of its class).

    `weights`: what rows count within their class, all the same by default.
    """
    _, index = np.unique(y, return_inverse=True)
    counts = np.bincount(index, weights)
    return np.asarray(y.size / (counts.size * counts[index]) * (1 if weights is None else weights), y.dtype)


def sigmoid_errors(outputs: Float[Array, "N 1"], y: Float[Array, " N"]) -> Float[Array, " N"]:
    """Return the binary cross-entropy of each row, given its logit and its label, 0 or 1."""
    z = outputs[:, 0]
    up = z >= 0
    # As optax has it, in half the time. Not abs(z), whose slope at 0 would make the curvature there vanish.
    return jnp.where(up, z, 0) - y * z + jnp.log1p(jnp.exp(-jnp.where(up, z, -z)))


def softmax_errors(outputs: Float[Array, "N K"], y: Float[Array, " N"]) -> Float[Array, " N"]:
    """Return the cross-entropy of each row, given a logit for each of K classes and the label, 0 to K - 1 as a float.

    Raises:
        ValueError: if there are fewer than two outputs.
    """
    if outputs.shape[1] < 2:
        raise ValueError(f"softmax_cross_entropy needs an output for each class, got {outputs.shape[1]}")
    return optax.losses.softmax_cross_entropy_with_integer_labels(outputs, y.astype(int))


def ranking_errors(outputs: Float[Array, "N 1"], y: Float[Array, " N"]) -> Float[Array, " N"]:
    """Return for each row the share of the rows of the other class that stand on its wrong side, ties counted half.

    The mean over the rows of either class is one minus the AUC.
    """
    logits = outputs[:, 0]
    zeros, ones = (jnp.sort(jnp.where(y == label, logits, jnp.inf)) for label in (0, 1))
    num_zeros, num_ones = jnp.sum(y == 0), jnp.sum(y == 1)

    def share_below(ranked: Array, number: Array) -> Array:
        below, at_most = (jnp.searchsorted(ranked, logits, side=side) for side in ("left", "right"))
        return (below + at_most).astype(logits.dtype) / (2 * number).astype(logits.dtype)

    return jnp.where(y == 1, 1 - share_below(zeros, num_zeros), share_below(ones, num_ones))


def squared_errors(outputs: Float[Array, "N 1"], y: Float[Array, " N"]) -> Float[Array, " N"]:
    """Return the squared error of each row, given its prediction and its target."""
    return optax.losses.squared_error(outputs[:, 0], y)


def gaussian_errors(
    precision: Float[Array, ""], outputs: Float[Array, "N 1"], y: Float[Array, " N"]
) -> Float[Array, " N"]:
    """Return minus the log-likelihood of each row, in nats, where noise is Gaussian.

    `precision`: one over the variance of the noise; bind it, `jax.tree_util.Partial(gaussian_errors, precision)`.
    """
    return 0.5 * precision * squared_errors(outputs, y) - 0.5 * jnp.log(precision / (2 * jnp.pi))


@functools.cache
def sigmoid_cross_entropy(predict: Predict) -> Loss:
    """Return `loss(params, data)`: mean binary cross-entropy of one logit per row, labels 0 or 1, plus L2."""
    return _penalised_mean(predict, sigmoid_errors)


@functools.cache
def softmax_cross_entropy(predict: Predict) -> Loss:
    """Return `loss(params, data)`: mean cross-entropy of K logits per row, labels 0 to K - 1 as floats, plus L2.

    Raises:
        ValueError: when the loss is called, if the model has fewer than two outputs.
    """
    return _penalised_mean(predict, softmax_errors)


@functools.cache
def squared_error(predict: Predict) -> Loss:
    """Return `loss(params, data)`: mean of `(prediction - y)**2` over the rows, plus L2."""
    return _penalised_mean(predict, squared_errors)


@functools.cache
def auc_surrogate(predict: Predict, *, beta: float = 1.0) -> Loss:
    """Return `loss(params, data)`: one minus a smooth AUC of one logit per row, labels 0 or 1, plus L2.

    The AUC is the share of pairs (row of class 1, row of class 0) whose logits are in the right order. Here each pair
    counts `sigmoid(beta * (logit of class 1 - logit of class 0))` instead of 1 or 0, as in Yan, Dodier, Mozer &
    Wolniewicz (ICML 2003); on the landscape of such losses see Niroomand et al., "Characterising the Area Under the
    Curve Loss Function Landscape" (2022, openreview.net/forum?id=IY4IsjvUhZ). A pair weighs the product of its rows'
    weights, so weights that differ between the classes alone change nothing. All N x N pairs are formed: memory grows
    with the square of the rows. Data of one class have no pairs and give NaN.

    Args:
        predict: the model.
        beta: steepness; the larger, the closer to the AUC and the flatter between the steps.
    """

    def loss(params: Any, data: Supervised) -> Float[Array, ""]:
        logits = predict(params, data.x)[:, 0]
        weights = jnp.ones_like(logits) if data.weights is None else data.weights
        pairs = (weights * data.y)[:, None] * (weights * (1 - data.y))[None, :]
        # sigmoid(-t) for 1 - sigmoid(t), which cancels.
        wrong = jax.nn.sigmoid(beta * (logits[None, :] - logits[:, None]))
        return jnp.average(wrong, weights=pairs) + data.l2 * sum_of_squares(params)

    return loss


def _penalised_mean(predict: Predict, errors: Callable[[Array, Array], Array]) -> Loss:
    def loss(params: Any, data: Supervised) -> Float[Array, ""]:
        mean = jnp.average(errors(predict(params, data.x), data.y), weights=data.weights)
        return mean + data.l2 * sum_of_squares(params)

    return loss
