"""Disconnectivity: which minima belong together below a given energy.

Two minima are joined at the lowest energy at which some sequence of transition states leads from one to the other
(Becker & Karplus, J. Chem. Phys. 106, 1495, 1997; Wales, Miller & Walsh, Nature 394, 758, 1998). That is exact single
linkage over transition states in order of energy, so one tree holds the answer for every level. Where no transition
state is known, or only higher ones, a path bounds the energy from above.
"""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

from jaxscape.landscape.database import Landscape

_Point = tuple[float, float]


class MergeTree(NamedTuple):
    """The merges of M minima in order of energy, numbered as SciPy numbers a linkage: merge i makes cluster M + i.

    `children (M-1, 2)`: the clusters that merge, the one with the lower minimum first; `energies (M-1,)`: where,
    infinite for parts that nothing joins; `size (M-1,)`: minima in the new cluster; `joint (M-1,)`: what joins them,
    the row of a transition state, or, of paths, the number of transition states plus the row of a path; -1 for nothing;
    `certified (M-1,)`: is it a transition state?
    """

    children: Int[np.ndarray, "merges 2"]
    energies: Float[np.ndarray, " merges"]
    size: Int[np.ndarray, " merges"]
    joint: Int[np.ndarray, " merges"]
    certified: Bool[np.ndarray, " merges"]


class Layout(NamedTuple):
    """A disconnectivity graph as lines.

    `order (M,)`: the minima from left to right; `segments (S, 2, 2)`: lines from (x, energy) to (x, energy), x in units
    of minima; `span (S, 2)`: the minima below each line are `order[first:last]`; `bound (S,)`: a path, no transition
    state, joins what is below the line to the lowest minimum of the branch.
    """

    order: Int[np.ndarray, " M"]
    segments: Float[np.ndarray, "S 2 2"]
    span: Int[np.ndarray, "S 2"]
    bound: Bool[np.ndarray, " S"]


def tree_of(landscape: Landscape) -> MergeTree:
    """Compute at which energy which minima of a landscape merge, by transition states or, where lower, by paths."""
    minima, states, paths = landscape.minima, landscape.transition_states, landscape.paths
    return merge_tree(
        minima.energies, states.energies, states.minima, path_energies=paths.energies, path_minima=paths.minima
    )


def barrier(tree: MergeTree, i: int, j: int) -> tuple[float, bool]:
    """Return the lowest energy at which minima i and j are joined, infinite where they are not, and whether
    transition states alone join them there; where not, it is a bound from above."""
    size = len(tree.energies) + 1
    if not (0 <= i < size and 0 <= j < size):
        raise ValueError(f"there are {size} minima, got {i} and {j}")
    parent = np.full(2 * size - 1, -1)
    parent[tree.children] = size + np.arange(size - 1)[:, None]
    above, node = set(), i
    while node >= 0:
        above.add(node)
        node = int(parent[node])
    node = j
    while node not in above:
        node = int(parent[node])
    if node < size:
        return -np.inf, True
    energy = float(tree.energies[node - size])
    return energy, bool(np.isfinite(energy) and tree.certified[node - size])


def path_between(landscape: Landscape, i: int, j: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n-1"]]:
    """Return the way from minimum i to minimum j whose highest energy is the lowest.

    Returns:
        The minima on the way, i first and j last, and what joins each to the next: the row of a transition state, or
        the number of transition states plus the row of a path.

    Raises:
        ValueError: if a minimum is not there, or nothing joins the two.
    """
    tree, size = tree_of(landscape), len(landscape.minima.energies)
    if not (0 <= i < size and 0 <= j < size):
        raise ValueError(f"there are {size} minima, got {i} and {j}")
    joints = tree.joint[tree.joint >= 0]
    pairs = np.concatenate([landscape.transition_states.minima, landscape.paths.minima])[joints]
    graph = coo_array((joints + 1, pairs.T.astype(np.int32)), shape=(size, size)).tocsr()
    graph = (graph + graph.T).tocsr()
    _, before = breadth_first_order(graph, j, directed=False)
    way = [i]
    while way[-1] != j:
        if before[way[-1]] < 0:
            raise ValueError(f"nothing joins the minima {i} and {j}")
        way.append(int(before[way[-1]]))
    return np.array(way), np.array([int(graph[a, b]) - 1 for a, b in itertools.pairwise(way)], int)


def merge_tree(
    energies: Float[np.ndarray, " M"],
    ts_energies: Float[np.ndarray, " T"],
    ts_minima: Int[np.ndarray, "T 2"],
    *,
    path_energies: Float[np.ndarray, " B"] | None = None,
    path_minima: Int[np.ndarray, "B 2"] | None = None,
) -> MergeTree:
    """Compute at which energy which minima merge.

    Args:
        energies: energies of the minima.
        ts_energies: energies of the transition states.
        ts_minima: the two minima of each; twice the same joins nothing.
        path_energies: bounds for barriers, of paths; none by default.
        path_minima: the two minima of each.

    Returns:
        The M - 1 merges in order of energy.

    Raises:
        ValueError: if there is no minimum, an energy is not finite, an index does not exist, or a transition state lies
            below one of its minima.

    >>> tree = merge_tree(np.array([0.0, 0.1, 0.2]), np.array([0.5, 0.9, 0.7]), np.array([[0, 1], [0, 2], [1, 2]]))
    >>> tree.children.tolist(), tree.energies.tolist()
    ([[0, 1], [3, 2]], [0.5, 0.7])
    """
    energies, ts_energies = np.asarray(energies, float), np.asarray(ts_energies, float)
    pairs = np.asarray(ts_minima, int).reshape(-1, 2)
    num_states = len(ts_energies)
    if path_energies is not None and path_minima is not None:
        ts_energies = np.concatenate([ts_energies, path_energies])
        pairs = np.concatenate([pairs, np.asarray(path_minima, int).reshape(-1, 2)])
    size = len(energies)
    if size == 0 or not np.all(np.isfinite(energies)) or not np.all(np.isfinite(ts_energies)):
        raise ValueError("energies must be finite, and there must be at least one minimum")
    if len(pairs) != len(ts_energies) or (pairs.size and not 0 <= pairs.min() <= pairs.max() < size):
        raise ValueError(f"ts_minima must hold two ids below {size} for each of {len(ts_energies)} transition states")
    below = np.flatnonzero(ts_energies < energies[pairs].max(axis=1, initial=-np.inf))
    if below.size:
        raise ValueError(f"transition state {below[0]} lies below one of its minima")

    # Rank instead of energy: csgraph takes an edge of weight 0 for no edge, and sums repeated ones.
    order = np.argsort(ts_energies, kind="stable")
    low, high = np.sort(pairs[order], axis=1).T
    _, first = np.unique(low * size + high, return_index=True)
    first = first[low[first] != high[first]]
    # Short indices, which are all that older releases of SciPy take.
    ends = low[first].astype(np.int32), high[first].astype(np.int32)
    graph = coo_array((first + 1, ends), shape=(size, size)).tocsr()
    tree = minimum_spanning_tree(graph).tocoo()
    rank = np.sort(tree.data.astype(int)) - 1
    joints = order[rank]
    joins = [*zip(low[rank].tolist(), high[rank].tolist(), ts_energies[joints].tolist(), strict=True)]

    parts = connected_components(graph, directed=False)[1]
    roots = np.sort(np.unique(parts, return_index=True)[1])
    joins += [(int(roots[0]), int(root), np.inf) for root in roots[1:]]

    parent = list(range(size))
    cluster, lowest, count = list(range(size)), energies.tolist(), [1] * size
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
    joints = np.append(joints, np.full(len(joins) - len(joints), -1))
    sizes = np.array([merge[3] for merge in merges], int)
    return MergeTree(children, energies, sizes, joints, (joints >= 0) & (joints < num_states))


def _find(parent: list[int], node: int) -> int:
    while parent[node] != node:
        node = parent[node]
    return node


def superbasins(tree: MergeTree, level: float) -> Int[np.ndarray, " M"]:
    """Label the minima by the superbasin they are in: joined by transition states at or below `level`.

    Labels count from 0 in the order of the first minimum of each superbasin.
    """
    size = len(tree.energies) + 1
    done = np.flatnonzero(tree.energies <= level)
    nodes = np.repeat(size + done, 2)
    graph = coo_array((np.ones(nodes.size, bool), (nodes, tree.children[done].ravel())), shape=(2 * size - 1,) * 2)
    labels = connected_components(graph, directed=False)[1][:size]
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def persistence(tree: MergeTree, energies: Float[np.ndarray, " M"]) -> Float[np.ndarray, " M"]:
    """Return how far above each minimum it joins a lower one: the bars of the barcode of the merge tree.

    The lowest minimum of each connected part has a bar without end, infinity; the mean of the others is the mean gap
    between saddles and minima. As a topologist has it: persistent homology of degree 0 of the sublevel sets
    (Edelsbrunner, Letscher & Zomorodian, Discrete Comput. Geom. 28, 511, 2002).

    >>> energies = np.array([0.0, 0.1, 0.2])
    >>> tree = merge_tree(energies, np.array([0.5, 0.9, 0.7]), np.array([[0, 1], [0, 2], [1, 2]]))
    >>> persistence(tree, energies).tolist()
    [inf, 0.4, 0.49999999999999994]
    """
    lasts = np.full(len(energies), np.inf)
    lowest = list(range(len(energies)))
    for (first, second), level in zip(tree.children.tolist(), tree.energies.tolist(), strict=True):
        lowest.append(lowest[first])  # The cluster with the lower minimum comes first.
        lasts[lowest[second]] = level - energies[lowest[second]]
    return lasts


def choose_level(tree: MergeTree, energies: Float[np.ndarray, " M"], *, min_size: int = 10) -> float:
    """Choose a level at which the lowest minimum sits in a superbasin that stands out.

    Of the superbasins on the way from the lowest minimum to the whole landscape with at least `min_size` members, take
    the one that stays the same over the longest range of energy, and return the energy at which it has formed. If
    there is none but the whole, return the energy at which all that is connected has merged.

    Args:
        tree: the merges.
        energies: energies of the minima.
        min_size: fewest members.
    """
    node, at, sizes = int(np.argmin(energies)), [float(energies.min())], [1]
    for i, pair in enumerate(tree.children):
        if node in pair and np.isfinite(tree.energies[i]):
            node = len(energies) + i
            at.append(float(tree.energies[i]))
            sizes.append(int(tree.size[i]))
    persistence = np.diff(at)
    persistence[np.array(sizes[:-1]) < min_size] = -1
    if persistence.size and persistence.max() > 0:
        return at[int(persistence.argmax())]
    return at[-1]


def layout(tree: MergeTree, energies: Float[np.ndarray, " M"], *, num_levels: int = 25) -> Layout:
    """Lay out a disconnectivity graph, the largest branches in the middle.

    Args:
        tree: the merges.
        energies: energies of the minima.
        num_levels: evenly spaced energies at which branches are drawn to meet.

    Returns:
        Where to draw what; parts that are not connected stand side by side, up to the same height.
    """
    finite = tree.energies[np.isfinite(tree.energies)]
    bottom, top = float(energies.min()), float(max(finite.max(initial=-np.inf), energies.max()))
    top += (top - bottom) / num_levels or 1.0
    levels = np.linspace(top, bottom, num_levels + 1)
    labels = [superbasins(tree, level) for level in levels]
    # Minima that merge at the very bottom are parted one line further down.
    levels, labels = np.append(levels, bottom), [*labels, np.arange(len(energies))]
    inside = one_inside(tree)
    order: list[int] = []
    lines: list[tuple[tuple[_Point, _Point], tuple[int, int], bool]] = []

    def place(members: np.ndarray, depth: int) -> _Point:
        """Draw the superbasin that `members` form at `levels[depth]`; return where its line to the parent ends."""
        first = len(order)
        if len(members) == 1:
            order.append(int(members[0]))
            end = float(energies[members[0]])
            start = max(end, float(levels[depth]))
            lines.append((((first, start), (first, end)), (first, first + 1), False))
            return float(first), start
        below = labels[depth + 1]
        parts = [members[below[members] == label] for label in np.unique(below[members])]
        sure = tree.certified & (tree.energies <= levels[depth])
        sides = below[inside[tree.children[sure]]]
        graph = coo_array((np.ones(len(sides)), (sides[:, 0], sides[:, 1])), shape=(below.max() + 1,) * 2)
        reached = connected_components(graph, directed=False)[1]
        lowest = reached[below[members[energies[members].argmin()]]]
        firsts, ends, bounds = [], [], []
        for part in _largest_inside(parts):
            firsts.append(len(order))
            bounds.append(bool(reached[below[part[0]]] != lowest))
            ends.append(place(part, depth + 1))
        joint = (sum(x for x, _ in ends) / len(ends), float(levels[depth]))
        for left, right, top, bound in zip(firsts, [*firsts[1:], len(order)], ends, bounds, strict=True):
            lines.append(((joint, top), (left, right), bound))
        return joint

    roots = [np.flatnonzero(labels[0] == label) for label in range(labels[0].max() + 1)]
    for root in _largest_inside(roots):
        place(root, 0)
    segments, spans, bounds = (list(each) for each in zip(*lines, strict=True))
    return Layout(np.array(order, int), np.array(segments, float), np.array(spans, int), np.array(bounds, bool))


def one_inside(tree: MergeTree) -> Int[np.ndarray, " clusters"]:
    """Return for every cluster, minima first, some minimum that is in it."""
    size = len(tree.energies) + 1
    inside = np.arange(2 * size - 1)
    for i, (first, _) in enumerate(tree.children):
        inside[size + i] = inside[first]
    return inside


def _largest_inside(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Order parts so that the largest are in the middle."""
    ranked = sorted(parts, key=len)
    return ranked[::2] + ranked[1::2][::-1]
