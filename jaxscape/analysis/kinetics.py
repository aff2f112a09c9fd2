"""How fast one goes over from some minima to others: rates over transition states, and what follows from them.

Rates are those of harmonic transition state theory (Wales, *Energy Landscapes*, 2003, section 7.3), for masses of one;
of a loss they order ways by their barriers and widths rather than say how a training algorithm moves. At low
temperatures times span more powers of ten than numbers have digits: all is kept as logarithms, and minima are
eliminated one after another without a subtraction, as graph transformation does (Trygubenko & Wales, J. Chem. Phys.
124, 234110, 2006; Wales, J. Chem. Phys. 130, 204111, 2009; for Markov chains Grassmann, Taksar & Heyman, Oper. Res. 33,
1107, 1985).
"""

import heapq
import math

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.special import logsumexp

from jaxscape.analysis.thermodynamics import log_volumes
from jaxscape.landscape.database import Landscape

_NEVER = -np.inf  # the logarithm of a rate or a probability of zero


def log_rates(landscape: Landscape, temperature: float) -> Float[np.ndarray, "M M"]:
    """Return the logarithm of the rate from each minimum (row) to each other one (column) over its transition states.

    A minimum stands for all its copies, which have the same rates. The rate over one transition state is
    (order of the minimum / order of the transition state) * sqrt(det H / det' H*) * exp(-barrier / T) / (2 pi), det'
    without the negative eigenvalue; those over several add up. Paths, which are bounds, are no transition states.

    Args:
        landscape: where minima and transition states were explored, with determinants.
        temperature: in units of the energy.

    Returns:
        the logarithms, minus infinity where no transition state joins two minima, and on the diagonal.

    Raises:
        ValueError: if the temperature is not positive, or a determinant is not known.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    minima, states = landscape.minima, landscape.transition_states
    number = len(minima.energies)
    found = np.full((number, number), _NEVER)
    if len(states.energies) == 0:
        return found
    temperatures = np.array([temperature])
    across = states.log_determinants - np.log(np.abs(states.eigenvalues))
    (wells,) = log_volumes(minima.energies, minima.log_determinants, minima.log_orders, temperatures)
    (passes,) = log_volumes(states.energies, across, states.log_orders, temperatures)
    for start, end in (states.minima.T, states.minima.T[::-1]):
        apart = start != end
        rates = passes - wells[start] - math.log(2 * math.pi)
        np.logaddexp.at(found, (start[apart], end[apart]), rates[apart])
    return found


def log_mean_first_passage_times(
    log_rates: Float[np.ndarray, "M M"], targets: Int[np.ndarray, " n"]
) -> Float[np.ndarray, " M"]:
    """Return the logarithm of the mean time to reach any of the targets for the first time, from each minimum.

    Args:
        log_rates: see `log_rates`.
        targets: ids of minima.

    Returns:
        the logarithms: minus infinity for the targets, infinity where no way leads to one.

    Raises:
        ValueError: if there is no target, or one is not a minimum.

    >>> two_wells = np.array([[-np.inf, np.log(2.0)], [np.log(0.5), -np.inf]])
    >>> np.exp(log_mean_first_passage_times(two_wells, np.array([1]))).round(3).tolist()
    [0.5, 0.0]
    """
    values = np.full(len(log_rates), _NEVER)
    waiting = -logsumexp(log_rates, axis=1)
    times = _solve(log_rates, _ids(log_rates, targets=targets), values, waiting)
    return np.where(_reach(log_rates, targets), times, np.inf)


def committors(
    log_rates: Float[np.ndarray, "M M"], sources: Int[np.ndarray, " n"], targets: Int[np.ndarray, " m"]
) -> Float[np.ndarray, " M"]:
    """Return the probability to reach a target before a source, from each minimum.

    Args:
        log_rates: see `log_rates`.
        sources: ids of minima.
        targets: ids of other minima.

    Returns:
        0 for the sources, 1 for the targets, NaN where no way leads to either.

    Raises:
        ValueError: if there is no source or no target, one is not a minimum, or one is both.
    """
    ends = _ids(log_rates, sources=sources, targets=targets)
    values = np.full(len(log_rates), _NEVER)
    values[np.asarray(targets)] = 0.0
    found = np.exp(_solve(log_rates, ends, values, np.full(len(log_rates), _NEVER)))
    return np.where(_reach(log_rates, ends), found, np.nan)


def fastest_path(
    log_rates: Float[np.ndarray, "M M"], sources: Int[np.ndarray, " n"], targets: Int[np.ndarray, " m"]
) -> Int[np.ndarray, " steps"]:
    """Return the minima on the path from a source to a target whose steps together are the likeliest.

    The path with the largest product of branching probabilities, and so the largest contribution to the rate (Evans &
    Wales, J. Chem. Phys. 121, 1080, 2004).

    Args:
        log_rates: see `log_rates`.
        sources: ids of minima.
        targets: ids of other minima.

    Raises:
        ValueError: as for `committors`; if no transition states lead from a source to a target.
    """
    _ids(log_rates, sources=sources, targets=targets)
    start, end = (ids.astype(np.int32) for ids in np.nonzero(np.isfinite(log_rates)))  # csgraph's, in older SciPy
    steps = logsumexp(log_rates, axis=1)[start] - log_rates[start, end]
    # A step that is certain costs nothing, which to csgraph is no step.
    graph = coo_array((np.maximum(steps, np.finfo(float).tiny), (start, end)), shape=log_rates.shape).tocsr()
    costs, before, _ = dijkstra(graph, indices=sources, return_predecessors=True, min_only=True)
    path = [int(np.asarray(targets)[np.argmin(costs[targets])])]
    if not np.isfinite(costs[path[0]]):
        raise ValueError("no transition states lead from a source to a target")
    while before[path[-1]] >= 0:
        path.append(int(before[path[-1]]))
    return np.array(path[::-1])


def _ids(log_rates: Float[np.ndarray, "M M"], **ends: np.ndarray) -> np.ndarray:
    """Check that the ends are minima, each named once, and return all of them."""
    for name, ids in ends.items():
        array = np.asarray(ids)
        if array.size == 0 or array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= len(log_rates):
            raise ValueError(f"{name} must be ids of minima, from 0 to {len(log_rates) - 1}, got {array.tolist()}")
    every = np.concatenate([np.asarray(ids) for ids in ends.values()])
    if len(np.unique(every)) < len(every):
        raise ValueError(f"{' and '.join(ends)} must not have a minimum in common, nor name one twice")
    return every


def _reach(log_rates: Float[np.ndarray, "M M"], ends: Int[np.ndarray, " n"]) -> np.ndarray:
    """Say from which minima some way leads to one of the ends: every transition state leads both ways."""
    labels = connected_components(np.isfinite(log_rates), directed=False)[1]
    return np.isin(labels, labels[np.asarray(ends)])


def _solve(
    log_rates: Float[np.ndarray, "M M"],
    ends: Int[np.ndarray, " n"],
    values: Float[np.ndarray, " M"],
    added: Float[np.ndarray, " M"],
) -> Float[np.ndarray, " M"]:
    """Solve x_i = added_i + sum_j P_ij x_j, with x given at the ends and P the branching probabilities; all logarithms.

    Gaussian elimination, the minimum with the fewest neighbours first, so that few new ones arise. One minus the
    probability to stay is summed up from the probabilities to leave, which never cancels.
    """
    total = logsumexp(log_rates, axis=1, keepdims=True)
    probabilities = log_rates - np.where(np.isfinite(total), total, 0)
    added, solved = added.copy(), values.copy()
    inner = np.ones(len(log_rates), bool)
    inner[ends] = False
    left = np.ones(len(log_rates), bool)
    queue = [(int(count), i) for i, count in enumerate(np.isfinite(log_rates).sum(axis=1)) if inner[i]]
    heapq.heapify(queue)
    order = []
    while queue:
        count, x = heapq.heappop(queue)
        if not left[x]:
            continue
        near = left & np.isfinite(probabilities[x])
        near[x] = False
        neighbours = np.flatnonzero(near)
        if count != len(neighbours):
            heapq.heappush(queue, (len(neighbours), x))
            continue
        left[x] = False
        leaving = logsumexp(probabilities[x, neighbours]) if len(neighbours) else _NEVER
        order.append((x, neighbours, leaving))
        if not len(neighbours):
            continue
        onward = probabilities[x, neighbours] - leaving
        back = neighbours[inner[neighbours]]
        into = probabilities[back, x]
        added[back] = np.logaddexp(added[back], into + added[x] - leaving)
        block = np.ix_(back, neighbours)
        probabilities[block] = np.logaddexp(probabilities[block], into[:, None] + onward)
    for x, neighbours, leaving in reversed(order):
        later = logsumexp(np.append(probabilities[x, neighbours] + solved[neighbours], added[x]))
        solved[x] = later - leaving if np.isfinite(leaving) else np.inf
    return solved
