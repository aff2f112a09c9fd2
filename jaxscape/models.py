"""The reference network: a multilayer perceptron of any depth, and what leaves it unchanged."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from jaxscape.symmetry import HiddenLayer, Symmetry

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "sin": jnp.sin,
    "sigmoid": jax.nn.sigmoid,
    "softplus": jax.nn.softplus,
    "gelu": jax.nn.gelu,
}
_ODD = frozenset({"tanh", "sin"})


class Layer(NamedTuple):
    """One affine layer: `weights (fan_in, fan_out)` and `bias (fan_out,)`."""

    weights: Float[Array, "fan_in fan_out"]
    bias: Float[Array, " fan_out"]


Params = tuple[Layer, ...]


def init(key: PRNGKeyArray, sizes: Sequence[int]) -> Params:
    """Draw the parameters of a multilayer perceptron.

    Args:
        key: a JAX random key.
        sizes: number of inputs, units of each hidden layer, number of outputs.

    Returns:
        One `Layer` for each pair of neighbouring sizes; weights normal with variance 1/fan_in, biases standard
        normal, all in JAX's default floating-point dtype.

    >>> import jax
    >>> [layer.weights.shape for layer in init(jax.random.key(0), (4, 3, 1))]
    [(4, 3), (3, 1)]
    """
    layers = []
    for layer_key, fan_in, fan_out in zip(jax.random.split(key, len(sizes) - 1), sizes[:-1], sizes[1:], strict=True):
        weight_key, bias_key = jax.random.split(layer_key)
        weights = jax.random.normal(weight_key, (fan_in, fan_out)) / np.sqrt(fan_in)
        layers.append(Layer(weights, jax.random.normal(bias_key, (fan_out,))))
    return tuple(layers)


@functools.cache
def mlp(activation: str = "tanh") -> Callable[[Params, Float[Array, "N inputs"]], Float[Array, "N outputs"]]:
    """Return `predict(params, x)` of a multilayer perceptron with this activation and a linear output.

    Equal calls return the same function, so that objectives built from it share compiled code.

    Raises:
        ValueError: if the activation is not one of `ACTIVATIONS`.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}; choose one of {', '.join(ACTIVATIONS)}")
    function = ACTIVATIONS[activation]

    def predict(params: Params, x: Float[Array, "N inputs"]) -> Float[Array, "N outputs"]:
        for layer in params[:-1]:
            x = function(x @ layer.weights + layer.bias)
        return x @ params[-1].weights + params[-1].bias

    return predict


def symmetry(sizes: Sequence[int], activation: str = "tanh") -> Symmetry:
    """Return the permutations (and, for an odd activation, sign flips) of hidden units that keep the network's output.

    Args:
        sizes: as for `init`.
        activation: a name in `ACTIVATIONS`.
    """
    shapes = jax.eval_shape(lambda: init(jax.random.key(0), sizes))
    flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes))
    indices = jax.tree.map(lambda leaf: np.rint(leaf).astype(int), unravel(jnp.arange(flat.size, dtype=flat.dtype)))
    hidden = tuple(
        HiddenLayer(incoming=before.weights.T, bias=before.bias, outgoing=after.weights)
        for before, after in zip(indices[:-1], indices[1:], strict=True)
    )
    return Symmetry(hidden, dim=flat.size, odd=activation in _ODD)
