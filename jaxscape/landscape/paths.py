"""Paths between minima: how high a barrier is at most, where no transition state is known.

The highest energy along any way from one minimum to another is a bound for the barrier between them. It is no
stationary point, so what it joins is joined for the disconnectivity graph alone: components, coverage, rates and
thermodynamics count transition states only.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

from jaxscape.objective import Objective, value
from jaxscape.programs import program

_SAMPLES = 8  # of the energy, on each stretch between two images
_CAUTION = 2.0  # times the rise between samples that their second differences tell


class Paths(NamedTuple):
    """Polylines from one minimum to another, or to a copy of it, at most one for each pair.

    `minima (B, 2)`: ids, in ascending order; `energies (B,)`: the highest energy sampled on the polyline plus `slack
    (B,)`, for what lies between the samples; `images (B, K, P)`: the first is the first minimum, to the bit (where
    two landscapes were merged, or a copy of it), the last a copy of the second.
    """

    minima: Int[np.ndarray, "B 2"]
    energies: Float[np.ndarray, " B"]
    slack: Float[np.ndarray, " B"]
    images: Float[np.ndarray, "B K P"]


def none(dim: int) -> Paths:
    """Return no paths, of this many weights."""
    return Paths(np.empty((0, 2), int), np.empty(0), np.empty(0), np.empty((0, 2, dim)))


@program
def bounds(
    objective: Objective, images: Float[Array, "n K P"], *, count: Int[Array, ""] | int | None = None
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Bound the energy on polylines from above.

    Each stretch between two images is sampled at eight equal steps. Between two samples a curve of second difference d
    rises by at most d / 8 above the higher one; twice that is added, of the larger second difference at the two.

    Args:
        objective: the landscape.
        images: the corners of each polyline.
        count: only of so many of the rows, from the first.

    Returns:
        The bounds, and how much of each is what was added.
    """
    fractions = jnp.linspace(0, 1, _SAMPLES + 1, dtype=images.dtype)[:, None]

    def of_stretch(start: Array, end: Array) -> tuple[Array, Array]:
        energies = jax.vmap(lambda x: value(objective, x))(start * (1 - fractions) + fractions * end)
        seconds = jnp.pad(jnp.abs(energies[2:] - 2 * energies[1:-1] + energies[:-2]), 1, mode="edge")
        slack = _CAUTION * jnp.maximum(seconds[1:], seconds[:-1]) / 8
        return jnp.maximum(energies[1:], energies[:-1]) + slack, slack

    def enter(row: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
        corners = images[row]
        highest, slack = jax.vmap(of_stretch)(corners[:-1], corners[1:])
        worst = jnp.argmax(highest)
        return found[0].at[row].set(highest.ravel()[worst]), found[1].at[row].set(slack.ravel()[worst])

    nothing = jnp.zeros(len(images), images.dtype)
    found: tuple[Array, Array] = jax.lax.fori_loop(
        0, len(images) if count is None else count, enter, (nothing, nothing)
    )
    return found


def num_energies(num_images: int) -> int:
    """Return how many energies the bound of a polyline costs."""
    return (num_images - 1) * (_SAMPLES + 1)


def joined(first: Paths, second: Paths) -> Paths:
    """Put the rows of both into one table; of lines with fewer corners the last is repeated."""
    corners = max(first.images.shape[1], second.images.shape[1])
    images = [
        np.concatenate([paths.images, np.repeat(paths.images[:, -1:], corners - paths.images.shape[1], axis=1)], axis=1)
        for paths in (first, second)
    ]
    rows = [np.concatenate(pair) for pair in zip(first[:3], second[:3], strict=True)]
    return Paths(rows[0], rows[1], rows[2], np.concatenate(images))


def needed(paths: Paths, num_minima: int, ts_energies: np.ndarray, ts_minima: Int[np.ndarray, "T 2"]) -> Paths:
    """Leave out the paths that no merge of minima needs: between their ends there are lower ways, of others.

    What is left out once is not needed later, whatever else is found: a lower way stays a lower way. So there are never
    more paths than minima.
    """
    energies = np.concatenate([ts_energies, paths.energies])
    pairs = np.concatenate([ts_minima, paths.minima])
    order = np.argsort(energies, kind="stable")  # of equal ones the transition state first
    low, high = pairs[order].T
    _, first = np.unique(low * num_minima + high, return_index=True)
    first = first[low[first] != high[first]]
    # Rank instead of energy: csgraph takes an edge of weight 0 for no edge, and sums repeated ones.
    ends = low[first].astype(np.int32), high[first].astype(np.int32)
    tree = minimum_spanning_tree(coo_array((first + 1, ends), shape=(num_minima, num_minima)).tocsr())
    rows = np.sort(order[tree.data.astype(int) - 1]) - len(ts_energies)
    kept: Paths = jax.tree.map(lambda field: field[rows[rows >= 0]], paths)
    return kept
