"""Where to search for transition states other than between pairs of minima."""

import numpy as np
from jaxtyping import Float

from jaxscape.landscape.database import Landscape
from jaxscape.symmetry import Symmetry, kill_units, random_copy

_NEAR_DEAD = 0.05  # largest displacement of each weight from a point with dead units


def outward(
    landscape: Landscape, number: int, step_sizes: Float[np.ndarray, " walkers"], rng: np.random.Generator
) -> tuple[Landscape, Float[np.ndarray, "n P"], Float[np.ndarray, "n P"]]:
    """Choose starts and directions: away from minima, on the way between them, and blindly.

    Away: outside the minima searched least, along the softest mode to both sides, then in random directions, as far as
    the walkers hop, who have adapted to leave the basins. Between: on the way from a minimum to a random copy of any.
    Blindly: from random points as large as minima are, in random directions; of networks every second time with dead
    units, so that it is near the landscape of a smaller one (Fukumizu & Amari, Neural Networks 13, 317, 2000). None
    sets out from a transition state, which finds itself again and little else: with starts that know nothing of what is
    found the rarest point of sixteen networks is met half as often again (`benchmarks/claims.py`).
    """
    minima, symmetry = landscape.minima, landscape.symmetry
    searches = minima.searches.copy()
    starts, vectors = np.empty((number, symmetry.dim)), np.empty((number, symmetry.dim))
    squares = np.mean(minima.positions**2, axis=0)
    size = np.sqrt((squares + squares.mean()) / 2)  # No weight is taken for one that must be zero.
    kinds = _kinds(symmetry)
    for row in range(number):
        i = int(searches.argmin())
        x, random = minima.positions[i], rng.uniform(-1, 1, symmetry.dim)
        kind = kinds[row % len(kinds)]
        if kind == "away":
            vectors[row] = minima.eigenvectors[i] * (-1) ** searches[i] if searches[i] < 2 else random
            starts[row] = x + rng.choice(step_sizes) * rng.uniform(0.1, 1) * vectors[row]
        elif kind == "between":
            way = random_copy(symmetry, minima.positions[rng.integers(len(searches))], rng) - x
            vectors[row] = way if np.any(way) else random
            starts[row] = x + rng.uniform(0.1, 0.9) * vectors[row]
        else:
            vectors[row] = random
            starts[row] = rng.uniform(0.5, 2) * size * rng.normal(size=symmetry.dim)
            if kind == "dead":
                starts[row] = kill_units(symmetry, starts[row], rng) + _NEAR_DEAD * random
        searches[i] += kind in ("away", "between")
    return landscape._replace(minima=minima._replace(searches=searches)), starts, vectors


def _kinds(symmetry: Symmetry) -> tuple[str, ...]:
    if symmetry.num_atoms:
        return ("away",)  # What lies between two clusters that are not aligned is no cluster.
    return ("away", "between", "blind", "between") + (("dead",) if symmetry.layers else ())
