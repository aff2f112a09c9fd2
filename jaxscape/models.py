"""The reference network: a multilayer perceptron of any depth, and what leaves it unchanged."""

import itertools
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxscape.symmetry import HiddenLayer, Symmetry

# Not to be added to: a stored program is known by the name of its activation.
ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = types.MappingProxyType(
    {
        "tanh": jnp.tanh,
        "sin": jnp.sin,
        "sigmoid": jax.nn.sigmoid,
        "softplus": jax.nn.softplus,
        "gelu": jax.nn.gelu,
    }
)
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
    shapes = list(itertools.pairwise(sizes))
    # One draw for all layers: each use of the random generator costs a second of compilation.
    parts = np.cumsum([size for fan_in, fan_out in shapes for size in (fan_in * fan_out, fan_out)])
    drawn = jnp.split(jax.random.normal(key, (parts[-1],)), parts[:-1])
    return tuple(
        Layer(weights.reshape(shape) / np.sqrt(shape[0]), bias)
        for shape, weights, bias in zip(shapes, drawn[::2], drawn[1::2], strict=True)
    )


@dataclass(frozen=True)
class Perceptron:
    """A multilayer perceptron with one `activation` and a linear output; build it with `mlp`.

    Call it with parameters and rows, as `outputs` of `from_rows`.
    """

    activation: str

    def __call__(self, params: Params, x: Float[Array, "N inputs"]) -> Float[Array, "N outputs"]:
        """Predict."""
        return self.after(params[1:], params[0].weights.T @ x.T + params[0].bias[:, None])

    def after(self, rest: Params, z: Float[Array, "units N"]) -> Float[Array, "N outputs"]:
        """Predict from what enters the first layer and the parameters of the others.

        `curvature` looks for it: the second derivatives of a model that has it are put together from small parts.
        """
        # Rows as the last axis: layers are narrow, and one is worked through in vectors of many rows.
        function = ACTIVATIONS[self.activation]
        for layer in rest:
            z = layer.weights.T @ function(z) + layer.bias[:, None]
        return z.T


def mlp(activation: str = "tanh") -> Perceptron:
    """Return `predict(params, x)` of a multilayer perceptron with this activation and a linear output.

    Equal calls return equal models, so that objectives built from them share compiled code.

    Raises:
        ValueError: if the activation is not one of `ACTIVATIONS`.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"unknown activation {activation!r}; choose one of {', '.join(ACTIVATIONS)}")
    return Perceptron(activation)


def symmetry(sizes: Sequence[int], activation: str = "tanh") -> Symmetry:
    """Return the permutations (and, for an odd activation, sign flips) of hidden units that keep the network's output.

    Args:
        sizes: as for `init`.
        activation: a name in `ACTIVATIONS`.
    """
    # In the order of `ravel_pytree`: layer by layer, weights before bias.
    dim, indices = 0, []
    for fan_in, fan_out in itertools.pairwise(sizes):
        weights = dim + np.arange(fan_in * fan_out).reshape(fan_in, fan_out)
        bias = dim + fan_in * fan_out + np.arange(fan_out)
        dim += (fan_in + 1) * fan_out
        indices.append((weights, bias))
    hidden = tuple(
        HiddenLayer(incoming=weights.T, bias=bias, outgoing=outgoing)
        for (weights, bias), (outgoing, _) in itertools.pairwise(indices)
    )
    return Symmetry(hidden, dim=dim, odd=activation in _ODD)
