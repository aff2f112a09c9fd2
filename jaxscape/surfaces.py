"""Functions with known stationary points: to try the library on, to test it, to measure it."""

import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxscape import clusters, losses, models
from jaxscape.objective import Objective, from_loss
from jaxscape.symmetry import Symmetry

_MUELLER_BROWN = np.array(
    # height, a, b, c, x0, y0
    [
        [-200.0, -1.0, 0.0, -10.0, 1.0, 0.0],
        [-100.0, -1.0, 0.0, -10.0, 0.0, 0.5],
        [-170.0, -6.5, 11.0, -6.5, -0.5, 1.5],
        [15.0, 0.7, 0.6, 0.7, -1.0, 1.0],
    ]
)


def _mueller_brown(position: Float[Array, "2"], _: None) -> Float[Array, ""]:
    height, a, b, c, x0, y0 = jnp.asarray(_MUELLER_BROWN, dtype=position.dtype).T
    x, y = position[0] - x0, position[1] - y0
    return jnp.sum(height * jnp.exp(a * x**2 + b * x * y + c * y**2))


def mueller_brown() -> tuple[Objective, Symmetry]:
    """Return the Mueller-Brown surface in two dimensions (Theor. Chim. Acta 53, 75, 1979): 3 minima, 2 saddles."""
    return from_loss(_mueller_brown, jnp.zeros(2)), Symmetry((), dim=2)


def six_hump_camel() -> tuple[Objective, Symmetry]:
    """Return the six-hump camel back function: 6 minima, 7 saddles."""
    return from_loss(_six_hump_camel, jnp.zeros(2)), Symmetry((), dim=2)


def _six_hump_camel(position: Float[Array, "2"], _: None) -> Float[Array, ""]:
    x, y = position
    return (4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + (4 * y**2 - 4) * y**2


def schwefel(dim: int = 2) -> tuple[Objective, Symmetry]:
    """Return Schwefel's function: 49 minima and 98 saddles within [-500, 500]², a wall and a few points outside it."""
    return from_loss(_schwefel, jnp.zeros(dim)), Symmetry((), dim=dim)


def _schwefel(x: Float[Array, " P"], _: None) -> Float[Array, ""]:
    root = jnp.sqrt(jnp.where(x == 0, 1, jnp.abs(x)))
    return 418.9829 * x.size - jnp.sum(x * jnp.sin(root)) + _outside(x, 500.0)


def ackley(dim: int = 2) -> tuple[Objective, Symmetry]:
    """Return Ackley's function: 4,224 minima and 8,580 saddles within [-32.768, 32.768]², a wall outside it.

    The global minimum at the origin is a cusp, where the gradient does not exist: not a stationary point.
    """
    return from_loss(_ackley, jnp.zeros(dim)), Symmetry((), dim=dim)


def _ackley(x: Float[Array, " P"], _: None) -> Float[Array, ""]:
    radius = jnp.sqrt(jnp.mean(x**2))
    waves = jnp.exp(jnp.mean(jnp.cos(2 * jnp.pi * x)))
    return 20 + jnp.e - 20 * jnp.exp(-0.2 * radius) - waves + 10 * _outside(x, 32.768)


def _outside(x: Float[Array, " P"], bound: float) -> Float[Array, ""]:
    return jnp.sum(jnp.maximum(jnp.abs(x) - bound, 0) ** 3)


def lennard_jones(num_atoms: int) -> tuple[Objective, Symmetry]:
    """Return a cluster of Lennard-Jones atoms, energies in units of the pair's depth, lengths in those of sigma.

    Beyond a radius that no compact cluster reaches a wall of third order holds the atoms together, so that those that
    come off return.

    Raises:
        ValueError: for fewer than three atoms, which have other zero modes.
    """
    if num_atoms < 3:
        raise ValueError(f"a cluster needs at least 3 atoms, got {num_atoms}")
    objective = from_loss(_lennard_jones, jnp.zeros((num_atoms, 3)), zero_modes=clusters.zero_modes)
    return objective, Symmetry((), dim=3 * num_atoms, num_atoms=num_atoms)


def _lennard_jones(atoms: Float[Array, "N 3"], _: None) -> Float[Array, ""]:
    num_atoms = len(atoms)
    first, second = np.triu_indices(num_atoms, 1)
    one = np.eye(num_atoms)
    # From each other and from the centre, by one product: a third of the time of gathering the atoms of each pair.
    apart = jnp.asarray(np.concatenate([one[first] - one[second], one - one.mean(axis=0)]), atoms.dtype)
    x, y, z = jnp.matmul(atoms.T, apart.T, precision="highest")
    squares = x**2 + y**2 + z**2
    cubes = (1 / squares[: len(first)]) ** 3
    radius = 1 + 1.2 * num_atoms ** (1 / 3)
    out = jnp.sqrt(jnp.maximum(squares[len(first) :], radius**2)) - radius  # the root of zero has no slope
    return 4 * jnp.sum(cubes**2 - cubes) + jnp.sum(out**3)


def xor(num_units: int = 2, l2: float = 1e-3) -> tuple[Objective, Symmetry]:
    """Return the loss of a tanh network with one hidden layer on XOR, inputs -1 and 1.

    With two units and `l2=1e-3` an exhaustive search gives, up to symmetry, 7 minima and 20 transition states.
    """
    x = jnp.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    return _classifier(x, jnp.array([0.0, 1.0, 1.0, 0.0]), num_units, l2)


def checkerboard(num_units: int = 2, l2: float = 1e-3, *, num_points: int = 60) -> tuple[Objective, Symmetry]:
    """Return the loss of a tanh network with one hidden layer on a checkerboard of two by two fields.

    The points are drawn evenly from the square [-1, 1]², always the same; the label is 1 where x y < 0.
    """
    x = np.random.default_rng(0).uniform(-1, 1, (num_points, 2))
    return _classifier(jnp.asarray(x), jnp.asarray((x.prod(axis=1) < 0).astype(x.dtype)), num_units, l2)


def _classifier(x: Float[Array, "N 2"], y: Float[Array, " N"], num_units: int, l2: float) -> tuple[Objective, Symmetry]:
    sizes = (2, num_units, 1)
    data = losses.Supervised(x, y, jnp.asarray(l2))
    params = tuple(models.Layer(jnp.zeros(shape), jnp.zeros(shape[1])) for shape in itertools.pairwise(sizes))
    return from_loss(losses.sigmoid_cross_entropy(models.mlp("tanh")), params, data), models.symmetry(sizes, "tanh")
