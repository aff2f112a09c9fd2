"""Disconnectivity: which minima belong together below a given energy.

Two minima are joined at the lowest energy at which some sequence of transition states leads from one to the other
(Becker & Karplus, J. Chem. Phys. 106, 1495, 1997; Wales, Miller & Walsh, Nature 394, 758, 1998). That is exact single
linkage over transition states in order of energy, so one tree holds the answer for every level.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

_Point = tuple[float, float]


class MergeTree(NamedTuple):
    """The merges of M minima in order of energy, numbered as SciPy numbers a linkage: merge i makes cluster M + i.

    `children (M-1, 2)`: the clusters that merge, the one with the lower minimum first; `energy (M-1,)`: where, infinite
    for parts that no transition state joins; `size (M-1,)`: minima in the new cluster.
    """

    children: Int[np.ndarray, "merges 2"]
    energy: Float[np.ndarray, " merges"]
    size: Int[np.ndarray, " merges"]


class Layout(NamedTuple):
    """A disconnectivity graph as lines.

    `order (M,)`: the minima from left to right; `segments (S, 2, 2)`: lines from (x, energy) to (x, energy), x in units
    of minima; `span (S, 2)`: the minima below each line are `order[first:last]`.
    """

    order: Int[np.ndarray, " M"]
    segments: Float[np.ndarray, "S 2 2"]
    span: Int[np.ndarray, "S 2"]


def merge_tree(
    energy: Float[np.ndarray, " M"], ts_energy: Float[np.ndarray, " T"], ts_minima: Int[np.ndarray, "T 2"]
) -> MergeTree:
    """Compute at which energy which minima merge.

    Args:
        energy: energies of the minima.
        ts_energy: energies of the transition states.
        ts_minima: the two minima of each; twice the same joins nothing.

    Returns:
        The M - 1 merges in order of energy.

    Raises:
        ValueError: if there is no minimum, an energy is not finite, an index does not exist, or a transition state lies
            below one of its minima.

    >>> tree = merge_tree(np.array([0.0, 0.1, 0.2]), np.array([0.5, 0.9, 0.7]), np.array([[0, 1], [0, 2], [1, 2]]))
    >>> tree.children.tolist(), tree.energy.tolist()
    ([[0, 1], [3, 2]], [0.5, 0.7])
    """
    energy, ts_energy = np.asarray(energy, float), np.asarray(ts_energy, float)
    pairs = np.asarray(ts_minima, int).reshape(-1, 2)
    size = len(energy)
    if size == 0 or not np.all(np.isfinite(energy)) or not np.all(np.isfinite(ts_energy)):
        raise ValueError("energies must be finite, and there must be at least one minimum")
    if len(pairs) != len(ts_energy) or (pairs.size and not 0 <= pairs.min() <= pairs.max() < size):
        raise ValueError(f"ts_minima must hold two ids below {size} for each of {len(ts_energy)} transition states")
    below = np.flatnonzero(ts_energy < energy[pairs].max(axis=1, initial=-np.inf))
    if below.size:
        raise ValueError(f"transition state {below[0]} lies below one of its minima")

    # Rank instead of energy: csgraph takes an edge of weight 0 for no edge, and sums repeated ones.
    order = np.argsort(ts_energy, kind="stable")
    low, high = np.sort(pairs[order], axis=1).T
    _, first = np.unique(low * size + high, return_index=True)
    first = first[low[first] != high[first]]
    # Short indices, which are all that older releases of SciPy take.
    ends = low[first].astype(np.int32), high[first].astype(np.int32)
    graph = coo_array((first + 1, ends), shape=(size, size)).tocsr()
    tree = minimum_spanning_tree(graph).tocoo()
    rank = np.sort(tree.data.astype(int)) - 1
    joins = [*zip(low[rank].tolist(), high[rank].tolist(), ts_energy[order][rank].tolist(), strict=True)]

    parts = connected_components(graph, directed=False)[1]
    roots = np.sort(np.unique(parts, return_index=True)[1])
    joins += [(int(roots[0]), int(root), np.inf) for root in roots[1:]]

    parent = list(range(size))
    cluster, lowest, count = list(range(size)), energy.tolist(), [1] * size
    merges = []
    for i, (a, b, level) in enumerate(joins):
        a, b = _find(parent, a), _find(parent, b)
        if lowest[b] < lowest[a]:
            a, b = b, a
        merges.append((cluster[a], cluster[b], level, count[a] + count[b]))
        # The larger side keeps its root, so that paths stay short.
        keep, drop = (a, b) if count[a] >= count[b] else (b, a)
        parent[drop] = keep
        cluster[keep], count[keep], lowest[keep] = size + i, count[a] + count[b], lowest[a]
    children = np.array([merge[:2] for merge in merges], int).reshape(-1, 2)
    energies = np.array([merge[2] for merge in merges], float)
    return MergeTree(children, energies, np.array([merge[3] for merge in merges], int))


def _find(parent: list[int], node: int) -> int:
    while parent[node] != node:
        node = parent[node]
    return node


def superbasins(tree: MergeTree, level: float) -> Int[np.ndarray, " M"]:
    """Label the minima by the superbasin they are in: joined by transition states at or below `level`.

    Labels count from 0 in the order of the first minimum of each superbasin.
    """
    size = len(tree.energy) + 1
    done = np.flatnonzero(tree.energy <= level)
    nodes = np.repeat(size + done, 2)
    graph = coo_array((np.ones(nodes.size, bool), (nodes, tree.children[done].ravel())), shape=(2 * size - 1,) * 2)
    labels = connected_components(graph, directed=False)[1][:size]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def choose_level(tree: MergeTree, energy: Float[np.ndarray, " M"], *, min_size: int = 10) -> float:
    """Choose a level at which the lowest minimum sits in a superbasin that stands out.

    Of the superbasins on the way from the lowest minimum to the whole landscape with at least `min_size` members, take
    the one that stays the same over the longest range of energy, and return the energy at which it has formed. If
    there is none but the whole, return the energy at which all that is connected has merged.

    Args:
        tree: the merges.
        energy: energies of the minima.
        min_size: fewest members.
    """
    node, at, sizes = int(np.argmin(energy)), [float(energy.min())], [1]
    for i, pair in enumerate(tree.children):
        if node in pair and np.isfinite(tree.energy[i]):
            node = len(energy) + i
            at.append(float(tree.energy[i]))
            sizes.append(int(tree.size[i]))
    persistence = np.diff(at)
    persistence[np.array(sizes[:-1]) < min_size] = -1
    if persistence.size and persistence.max() > 0:
        return at[int(persistence.argmax())]
    return at[-1]


def layout(tree: MergeTree, energy: Float[np.ndarray, " M"], *, num_levels: int = 25) -> Layout:
    """Lay out a disconnectivity graph, the largest branches in the middle.

    Args:
        tree: the merges.
        energy: energies of the minima.
        num_levels: evenly spaced energies at which branches are drawn to meet.

    Returns:
        Where to draw what; parts that are not connected stand side by side, up to the same height.
    """
    finite = tree.energy[np.isfinite(tree.energy)]
    bottom, top = float(energy.min()), float(max(finite.max(initial=-np.inf), energy.max()))
    top += (top - bottom) / num_levels or 1.0
    levels = np.linspace(top, bottom, num_levels + 1)
    labels = [superbasins(tree, level) for level in levels]
    # Minima that merge at the very bottom are parted one line further down.
    levels, labels = np.append(levels, bottom), [*labels, np.arange(len(energy))]
    order: list[int] = []
    lines: list[tuple[tuple[_Point, _Point], tuple[int, int]]] = []

    def place(members: np.ndarray, depth: int) -> _Point:
        """Draw the superbasin that `members` form at `levels[depth]`; return where its line to the parent ends."""
        first = len(order)
        if len(members) == 1:
            order.append(int(members[0]))
            end = float(energy[members[0]])
            start = max(end, float(levels[depth]))
            lines.append((((first, start), (first, end)), (first, first + 1)))
            return float(first), start
        parts = [members[labels[depth + 1][members] == label] for label in np.unique(labels[depth + 1][members])]
        firsts, ends = [], []
        for part in _largest_inside(parts):
            firsts.append(len(order))
            ends.append(place(part, depth + 1))
        joint = (sum(x for x, _ in ends) / len(ends), float(levels[depth]))
        for left, right, below in zip(firsts, [*firsts[1:], len(order)], ends, strict=True):
            lines.append(((joint, below), (left, right)))
        return joint

    roots = [np.flatnonzero(labels[0] == label) for label in range(labels[0].max() + 1)]
    for root in _largest_inside(roots):
        place(root, 0)
    return Layout(
        np.array(order, int), np.array([line for line, _ in lines], float), np.array([span for _, span in lines], int)
    )


def _largest_inside(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Order parts so that the largest are in the middle."""
    ranked = sorted(parts, key=len)
    return ranked[::2] + ranked[1::2][::-1]
