"""Which pairs of minima to search between, so that a database joins into one component in few searches."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import KDTree

from jaxscape.cores import cores_in_use
from jaxscape.landscape import database
from jaxscape.landscape.database import Landscape
from jaxscape.symmetry import aligned_distances, fingerprint

# Up to how many pairs all distances are computed, and of how many neighbours beyond: to align two clusters takes
# milliseconds, two networks hundredths of one at most.
_MAX_PAIRS, _NUM_NEIGHBOURS = 1 << 17, 64
_MAX_PAIRS_OF_CLUSTERS, _NUM_NEIGHBOURS_OF_CLUSTERS = 1 << 11, 16
_JOINED = 1e-9  # weight of a pair that a transition state joins: next to nothing, but not "no edge"


class Distances(NamedTuple):
    """Pairs of minima, `pairs (n, 2)` of ids in ascending order, and how far apart they are, `lengths (n,)`, after
    alignment: of `size` minima all pairs, in order, or those of near neighbours where there are too many."""

    pairs: Int[np.ndarray, "n 2"]
    lengths: Float[np.ndarray, " n"]
    size: int


NO_DISTANCES = Distances(np.empty((0, 2), int), np.empty(0), 0)


def measured(landscape: Landscape, known: Distances = NO_DISTANCES) -> Distances:
    """Return the distances between the minima of a landscape; what is known already is not computed again.

    Distances of fingerprints are no substitute: their ranks agree with those of true distances by a half (0.48), and
    the nearest minimum is not among the 20 nearest by fingerprint for a third.
    """
    size = len(landscape.minima.energies)
    if size == known.size:
        return known
    clusters = landscape.symmetry.num_atoms > 0
    if size * (size - 1) // 2 <= (_MAX_PAIRS_OF_CLUSTERS if clusters else _MAX_PAIRS):
        pairs = np.column_stack(np.triu_indices(size, 1))
    else:
        marks = fingerprint(landscape.symmetry, landscape.minima.positions)
        number = _NUM_NEIGHBOURS_OF_CLUSTERS if clusters else _NUM_NEIGHBOURS
        _, near = KDTree(marks).query(marks, k=min(number + 1, size), workers=cores_in_use())
        first, second = np.repeat(np.arange(size), near.shape[1]), near.ravel()
        keys = np.unique(np.minimum(first, second) * size + np.maximum(first, second))
        pairs = np.column_stack(np.divmod(keys, size))
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    keys, old = pairs @ [size, 1], known.pairs @ [size, 1]
    at = np.minimum(np.searchsorted(old, keys), max(len(old) - 1, 0))
    is_known = old[at] == keys if len(old) else np.zeros(len(keys), bool)
    lengths = np.empty(len(pairs))
    lengths[is_known] = known.lengths[at[is_known]]
    positions = landscape.minima.positions
    new = pairs[~is_known]
    lengths[~is_known] = aligned_distances(landscape.symmetry, positions[new[:, 1]], positions[new[:, 0]])
    return Distances(pairs, lengths, size)


def choose_gaps(landscape: Landscape, distances: Distances) -> Int[np.ndarray, "n 3"]:
    """Choose the missing connections where neither transition states nor paths join the minima; see `choose_pairs`."""
    component = database.components(landscape, with_paths=True)
    pairs, lengths = _with_copies(distances)
    tries = _tries(landscape, pairs)
    joined = np.concatenate([landscape.transition_states.minima, landscape.paths.minima])
    missing = _missing_connections(landscape, joined, component, pairs, (lengths * (1 + tries)) ** 3)
    return np.column_stack([pairs[missing], tries[missing]])


def choose_pairs(landscape: Landscape, distances: Distances, number: int) -> Int[np.ndarray, "n 3"]:
    """Choose pairs of minima to search between: first the missing connections, then the nearest pairs.

    The missing connections are the gaps on the shortest paths from the component of the lowest minimum to all others
    (Carr, Trygubenko & Wales, J. Chem. Phys. 122, 234903, 2005), a gap weighing the cube of its length: the distance
    after alignment, times one more than the searches made between the two before. Pairs of a minimum with itself stand
    for its copies.

    Returns:
        Rows of two ids, in ascending order, and how many searches between the two there were before: that many of the
        nearest copies have been tried.
    """
    component = database.components(landscape)
    pairs, lengths = _with_copies(distances)
    tries = _tries(landscape, pairs)
    weights = (lengths * (1 + tries)) ** 3
    missing = _missing_connections(landscape, landscape.transition_states.minima, component, pairs, weights)
    nearest = np.argsort(weights, kind="stable")[: number + len(missing)]
    chosen = np.concatenate([missing, nearest[~np.isin(nearest, missing)]])[:number]
    return np.column_stack([pairs[chosen], tries[chosen]])


def _with_copies(distances: Distances) -> tuple[Int[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
    """List pairs in order, with each minimum and its copies: as far apart as neighbours are, for want of a look."""
    ids = np.arange(distances.size)
    nearest = np.full(distances.size, np.inf)
    for side in distances.pairs.T:
        np.minimum.at(nearest, side, distances.lengths)
    nearest[~np.isfinite(nearest)] = 1.0
    pairs = np.concatenate([distances.pairs, np.column_stack([ids, ids])])
    lengths = np.concatenate([distances.lengths, np.full(distances.size, np.median(nearest) if len(ids) else 1.0)])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    return pairs[order], np.maximum(lengths[order], np.finfo(float).tiny)


def _tries(landscape: Landscape, pairs: Int[np.ndarray, "n 2"]) -> Int[np.ndarray, " n"]:
    size, attempted = len(landscape.minima.energies), landscape.attempted
    known, keys = attempted[:, :2] @ [size, 1], pairs @ [size, 1]
    at = np.minimum(np.searchsorted(known, keys), max(len(known) - 1, 0))
    if len(known) == 0:
        return np.zeros(len(pairs), int)
    return np.where(known[at] == keys, attempted[at, 2], 0)


def _missing_connections(
    landscape: Landscape,
    joined: Int[np.ndarray, "T 2"],
    component: Int[np.ndarray, " M"],
    pairs: Int[np.ndarray, "n 2"],
    weights: Float[np.ndarray, " n"],
) -> Int[np.ndarray, " missing"]:
    """Return the rows of `pairs` that are gaps on shortest paths to the other components, the least weight first."""
    size, lowest = len(component), int(landscape.minima.energies.argmin())
    if not component.any():
        return np.empty(0, int)
    open_pairs = np.flatnonzero(component[pairs[:, 0]] != component[pairs[:, 1]])
    ends = np.concatenate([joined, pairs[open_pairs]])
    length = np.concatenate([np.full(len(joined), _JOINED), weights[open_pairs] + _JOINED])
    order = np.lexsort((length, ends[:, 1], ends[:, 0]))
    ends, length = ends[order], length[order]
    first = np.concatenate([[True], np.any(ends[1:] != ends[:-1], axis=1)])
    # Short indices, which are all that older releases of SciPy search.
    graph = coo_array((length[first], ends[first].T.astype(np.int32)), shape=(size, size)).tocsr()
    distance, before = dijkstra(graph, directed=False, indices=lowest, return_predecessors=True)
    # The way into each component is the gap before the member that is reached first.
    others = np.flatnonzero(component != component[lowest])
    entered = others[np.lexsort((distance[others], component[others]))]
    entered = entered[np.concatenate([[True], component[entered][1:] != component[entered][:-1]])]
    entered = entered[np.isfinite(distance[entered])]
    gaps = np.sort(np.column_stack([before[entered], entered]), axis=1)
    rows = np.searchsorted(pairs @ [size, 1], np.unique(gaps, axis=0) @ [size, 1])
    return rows[np.argsort(weights[rows], kind="stable")]
