"""Which pairs of minima to search between, so that a database joins into one component in few searches."""

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import KDTree

from jaxscape.landscape import database
from jaxscape.landscape.database import Landscape
from jaxscape.symmetry import fingerprint

_NUM_NEIGHBOURS = 20
_JOINED = 1e-9  # weight of a pair that a transition state joins: next to nothing, but not "no edge"


def choose_pairs(landscape: Landscape, number: int) -> Int[np.ndarray, "n 3"]:
    """Choose pairs of minima to search between: first the missing connections, then the nearest pairs.

    The missing connections are the gaps on the shortest paths from the component of the lowest minimum to all others
    (Carr, Trygubenko & Wales, J. Chem. Phys. 122, 234903, 2005), a gap weighing the square of its length. A length is
    the distance of the fingerprints, times one more than the searches made between the two before. Pairs of a minimum
    with itself stand for its copies.

    Returns:
        Rows of two ids, in ascending order, and how many searches between the two there were before: that many of the
        nearest copies have been tried.
    """
    component = database.components(landscape)
    pairs, lengths = _neighbours(landscape, component)
    tries = _tries(landscape, pairs)
    weights = (lengths * (1 + tries)) ** 2
    missing = _missing_connections(landscape, component, pairs, weights)
    nearest = np.argsort(weights, kind="stable")
    chosen = np.concatenate([missing, nearest[~np.isin(nearest, missing)]])[:number]
    return np.column_stack([pairs[chosen], tries[chosen]])


def _neighbours(
    landscape: Landscape, component: Int[np.ndarray, " M"]
) -> tuple[Int[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
    """List near pairs once each: neighbours, the nearest of another component, and each minimum with itself."""
    marks = fingerprint(landscape.symmetry, landscape.minima.positions)
    size = len(marks)
    ids = np.arange(size)
    _, near = KDTree(marks).query(marks, k=min(size, _NUM_NEIGHBOURS + 1))
    first, second = [np.repeat(ids, near.size // size), ids], [near.ravel(), ids]
    main = component == component[landscape.minima.energies.argmin()]
    if not main.all():
        _, nearest = KDTree(marks[main]).query(marks[~main])
        first, second = [*first, ids[~main]], [*second, ids[main][nearest]]
    both = np.sort(np.column_stack([np.concatenate(first), np.concatenate(second)]), axis=1)
    pairs = np.unique(both, axis=0)
    lengths = np.linalg.norm(marks[pairs[:, 0]] - marks[pairs[:, 1]], axis=1)
    # A minimum and its copies: as far apart as minima usually are, since the fingerprint cannot tell.
    own = pairs[:, 0] == pairs[:, 1]
    lengths[own] = np.median(lengths[~own]) if np.any(~own) else 1.0
    return pairs, np.maximum(lengths, np.finfo(float).tiny)


def _tries(landscape: Landscape, pairs: Int[np.ndarray, "n 2"]) -> Int[np.ndarray, " n"]:
    size, attempted = len(landscape.minima.energies), landscape.attempted
    known, keys = attempted[:, :2] @ [size, 1], pairs @ [size, 1]
    at = np.minimum(np.searchsorted(known, keys), max(len(known) - 1, 0))
    if len(known) == 0:
        return np.zeros(len(pairs), int)
    return np.where(known[at] == keys, attempted[at, 2], 0)


def _missing_connections(
    landscape: Landscape,
    component: Int[np.ndarray, " M"],
    pairs: Int[np.ndarray, "n 2"],
    weights: Float[np.ndarray, " n"],
) -> Int[np.ndarray, " missing"]:
    """Return the rows of `pairs` that are gaps on shortest paths to the other components, the least weight first."""
    size, lowest = len(component), int(landscape.minima.energies.argmin())
    if not component.any():
        return np.empty(0, int)
    joined = landscape.transition_states.minima
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
