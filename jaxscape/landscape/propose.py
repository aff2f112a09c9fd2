"""Where to search for transition states other than between pairs of minima."""

import numpy as np
from jaxtyping import Float, Int

from jaxscape.landscape.database import Landscape
from jaxscape.symmetry import Symmetry, kill_units, random_copy, random_involution

_NEAR_SYMMETRY = 0.05  # largest displacement of each weight from a point with dead units


def outward(
    landscape: Landscape, number: int, step_sizes: Float[np.ndarray, " walkers"], rng: np.random.Generator
) -> tuple[Landscape, Float[np.ndarray, "n P"], Float[np.ndarray, "n P"], Int[np.ndarray, " n"]]:
    """Start in turn away from minima, on the way between what is known, and where symmetry is high; return with starts
    and directions the id of the transition state that each set out from, -1 for none.

    Away: outside the minima searched least, along the softest mode to both sides, then in random directions, as far as
    the walkers hop, who have adapted to leave the basins. On the way to a random copy of any minimum: from a minimum,
    from a transition state. Of networks also where symmetry is high, where random directions rarely lead: halfway
    between a transition state and where a move of the group takes it, whose units are equal, opposite or dead, so that
    it belongs to the landscape of a smaller network (Fukumizu & Amari, Neural Networks 13, 317, 2000), in a direction
    that the move keeps or reverses; and near minima with dead units. What one of the five misses on one network
    another finds (`benchmarks/claims.py`).
    """
    minima, symmetry = landscape.minima, landscape.symmetry
    saddles = landscape.transition_states.positions
    searches = minima.searches.copy()
    starts, vectors = np.empty((number, symmetry.dim)), np.empty((number, symmetry.dim))
    origins = np.full(number, -1)
    for row in range(number):
        i = int(searches.argmin())
        x, random = minima.positions[i], rng.uniform(-1, 1, symmetry.dim)
        kind = row % _num_kinds(symmetry)
        if kind in (2, 3) and len(saddles):
            origins[row] = rng.integers(len(saddles))
            x = saddles[origins[row]]
        move = random_involution(symmetry, rng) if kind == 3 else None
        if kind == 0:
            vectors[row] = minima.eigenvectors[i] * (-1) ** searches[i] if searches[i] < 2 else random
            starts[row] = x + rng.choice(step_sizes) * rng.uniform(0.1, 1) * vectors[row]
        elif kind == 4:
            vectors[row] = random
            starts[row] = kill_units(symmetry, x, rng) + _NEAR_SYMMETRY * random
        elif move is not None:
            kept, turned = random + move(random), random - move(random)
            vectors[row] = kept if np.any(kept) and rng.random() < 0.5 else turned
            starts[row] = (x + move(x)) / 2
        else:
            vectors[row] = random_copy(symmetry, minima.positions[rng.integers(len(searches))], rng) - x
            starts[row] = x + rng.uniform(0.1, 0.9) * vectors[row]
        searches[i] += origins[row] < 0
    return landscape._replace(minima=minima._replace(searches=searches)), starts, vectors, origins


def _num_kinds(symmetry: Symmetry) -> int:
    # What lies between two clusters that are not aligned is no cluster.
    return 1 if symmetry.num_atoms else 5 if symmetry.layers else 3
