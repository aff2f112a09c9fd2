"""From the ends of searches to certified points in the database: polish, check the index, tell known from new."""

import functools
import math
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxscape.cores import on_device, one_blas_thread, padded
from jaxscape.landscape import database, ledger
from jaxscape.landscape.config import ExploreConfig
from jaxscape.landscape.database import Landscape, Minima, Points, TransitionStates
from jaxscape.landscape.ledger import Search
from jaxscape.objective import Objective, values
from jaxscape.search import eigenvector_following as following
from jaxscape.search import newton
from jaxscape.search.eigenvector_following import TransitionState
from jaxscape.search.points import StationaryPoint, Status
from jaxscape.search.quench import quench
from jaxscape.symmetry import Symmetry, point_group_order

# Curvature below this fraction of the largest counts as zero, neither up nor down.
_ZERO_CURVATURE = 1e-10
_MAX_DENSE = 2000  # weights up to which the whole Hessian is diagonalised
_KICK = 0.1  # length of a step off a saddle that a descent ended on
_STEPS_OFF = 4  # times to step off a saddle that a descent ended on


def take(tree: Any, index: Any) -> Any:
    """Index the first axis of every leaf."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def record(landscape: Landscape, search: Search, points: StationaryPoint) -> Landscape:
    """Enter the outcomes and the cost of a batch of searches into the ledger."""
    return landscape._replace(ledger=ledger.record(landscape.ledger, search, points))


def _negative(eigenvalues: Float[np.ndarray, "n P"]) -> Bool[np.ndarray, "n P"]:
    return eigenvalues < -_ZERO_CURVATURE * np.abs(eigenvalues).max(axis=1, keepdims=True)


def polish(objective: Objective, positions: np.ndarray, index: int, config: ExploreConfig) -> Any:
    """Return `newton.Polished` points in NumPy; one that is flat or of another index has a status that says so."""
    if objective.dim <= _MAX_DENSE:
        # A small dense Hessian does not fill the machine, a large one fills the memory.
        run = functools.partial(newton.polish, objective, index=index, num_lanes=max(1, 128 // objective.dim))
        polished = padded(run, 2 * config.num_searches, positions)
        status = polished.point.status
    else:
        matrix_free = functools.partial(newton.polish_matrix_free, objective, index=index)
        polished, residuals = padded(matrix_free, 2 * config.num_searches, positions)
        status = polished.point.status
        uncertain = np.any(residuals >= np.abs(polished.eigenvalues[:, :2]), axis=1)
        status[(status == Status.CONVERGED) & uncertain] = Status.MAX_EVALUATIONS
    sizes = np.abs(polished.eigenvalues)
    flat = np.any(sizes <= _ZERO_CURVATURE * sizes.max(axis=1, keepdims=True), axis=1)
    converged = status == Status.CONVERGED
    status[converged & (_negative(polished.eigenvalues).sum(axis=1) != index)] = Status.WRONG_INDEX
    status[converged & flat] = Status.FLAT
    return polished


def descend(objective: Objective, starts: np.ndarray, config: ExploreConfig) -> Any:
    """Minimise, as walkers do after a hop; NumPy out."""

    def run(starts: Array, count: int) -> StationaryPoint:
        # Called as `push_off` calls it, that is one program: to JAX an argument with a name is another.
        return quench(objective, starts, config.hopping.descent, num_lanes=config.num_lanes, count=count)

    return padded(run, 2 * config.num_searches, starts)


def push_off(objective: Objective, saddles: TransitionState, config: ExploreConfig) -> Any:
    """Descend from saddles to both sides; NumPy out."""
    run = functools.partial(following.push_off, objective, config=config.push_off, num_lanes=config.num_lanes)
    return padded(run, config.num_searches, saddles)


def settle(objective: Objective, positions: np.ndarray, config: ExploreConfig) -> Any:
    """Polish the ends of descents to certified minima; where one is a saddle, step off along it and descend again.

    A descent from a symmetric point stays in its symmetric subspace and can end on a saddle. The two ways off it mostly
    lead to copies of one minimum; where they do not, the lower end counts.
    """
    polished = polish(objective, positions, 0, config)
    for _ in range(_STEPS_OFF):
        saddles = np.flatnonzero(_negative(polished.eigenvalues)[:, 0])
        if saddles.size == 0:
            break
        off = _KICK * polished.eigenvector[saddles]
        starts = np.concatenate([polished.point.position[saddles] + off, polished.point.position[saddles] - off])
        ends = descend(objective, starts, config)
        plus, minus = ends.position[: saddles.size], ends.position[saddles.size :]
        lower = ends.energy[: saddles.size] <= ends.energy[saddles.size :]
        again = polish(objective, np.where(lower[:, None], plus, minus), 0, config)
        spent = polished.point.num_evaluations[saddles] + ends.num_evaluations.reshape(2, -1).sum(axis=0)
        again.point.num_evaluations[:] += spent
        for old, new in zip(jax.tree.leaves(polished), jax.tree.leaves(again), strict=True):
            old[saddles] = new
    return polished


@one_blas_thread()
def certified(
    objective: Objective,
    symmetry: Symmetry,
    minima: Float[np.ndarray, "M P"],
    saddles: Float[np.ndarray, "T P"],
    config: ExploreConfig,
) -> Landscape:
    """Make a database of points found elsewhere: polish, certify and tell them apart, descend from the saddles.

    Args:
        objective: the landscape.
        symmetry: what makes two points the same.
        minima: candidates for minima, as from `exchange.read_pathsample`.
        saddles: candidates for transition states.
        config: settings of the descents.

    Returns:
        The landscape of those that are what they were said to be; its ledger counts the others.
    """
    landscape = database.empty(symmetry)
    if len(minima):
        landscape, _ = insert_ends(objective, landscape, _unpolished(objective, minima), config)
    if len(saddles):
        polished = polish(objective, saddles, 1, config)
        landscape = record(landscape, Search.POLISHED_SADDLES, polished.point)
        good = polished.point.status == Status.CONVERGED
        landscape = insert_saddles(objective, landscape, take(polished, good), config)
    return landscape


def _unpolished(objective: Objective, positions: Float[np.ndarray, "n P"]) -> StationaryPoint:
    energies = np.asarray(values(objective, on_device(positions)))
    nothing = np.zeros(len(positions), int)
    fields = (positions, energies, 0 * energies, nothing, nothing + Status.CONVERGED)
    return StationaryPoint(*(on_device(field) for field in fields))


def _log_determinants(objective: Objective, eigenvalues: Float[np.ndarray, "n P"]) -> Float[np.ndarray, " n"]:
    if objective.dim > _MAX_DENSE:
        return np.full(len(eigenvalues), np.nan)
    return np.log(np.abs(eigenvalues)).sum(axis=1)


def _log_orders(symmetry: Symmetry, positions: Float[np.ndarray, "n P"]) -> Float[np.ndarray, " n"]:
    return np.array([math.log(point_group_order(symmetry, x)) for x in positions], float)


def _same_as(symmetry: Symmetry, known: Any, points: StationaryPoint) -> Int[np.ndarray, " n"]:
    """Return for each point the first row of known and new that it equals."""
    return database.identify(symmetry, known, Points(np.asarray(points.position), np.asarray(points.energy)))


def _visited(visits: Int[np.ndarray, " n"], ids: Int[np.ndarray, "*ids"]) -> Int[np.ndarray, " n"]:
    np.add.at(counted := visits.copy(), ids, 1)
    return counted


def insert_ends(
    objective: Objective, landscape: Landscape, points: StationaryPoint, config: ExploreConfig
) -> tuple[Landscape, Int[np.ndarray, " n"]]:
    """Insert converged ends of descents; return the id of each, -1 where it turned out to be no minimum.

    Ends at known minima are counted as visits and not polished again; ends at the same new one are polished once.
    """
    size, symmetry = len(landscape.minima.energies), landscape.symmetry
    same_as = _same_as(symmetry, landscape.minima, points)
    visits = _visited(landscape.minima.visits, same_as[same_as < size])
    landscape = landscape._replace(minima=landscape.minima._replace(visits=visits))
    new, counts = np.unique(same_as[same_as >= size], return_counts=True)
    ids = np.append(np.arange(size), np.full(len(points.energy), -1))
    if new.size:
        settled = settle(objective, np.asarray(points.position)[new - size], config)
        landscape = record(landscape, Search.MINIMA, settled.point)
        good = settled.point.status == Status.CONVERGED
        settled, counts = take(settled, good), counts[good]
        minima = Minima(
            positions=settled.point.position,
            energies=settled.point.energy,
            eigenvalues=settled.eigenvalues[:, 0],
            eigenvectors=settled.eigenvector,
            log_determinants=_log_determinants(objective, settled.eigenvalues),
            log_orders=_log_orders(symmetry, settled.point.position),
            visits=counts,
            searches=np.zeros(len(counts), int),
        )
        landscape, ids[new[good]] = database.insert_minima(landscape, minima)
    return landscape, ids[same_as]


def insert_saddles(objective: Objective, landscape: Landscape, polished: Any, config: ExploreConfig) -> Landscape:
    """Insert certified saddles; descend only from those that are new. A known one is a visit to its minima too."""
    states, symmetry = landscape.transition_states, landscape.symmetry
    size = len(states.energies)
    same_as = _same_as(symmetry, states, polished.point)
    seen = same_as[same_as < size]
    minima = landscape.minima._replace(visits=_visited(landscape.minima.visits, states.minima[seen]))
    landscape = landscape._replace(
        transition_states=states._replace(visits=_visited(states.visits, seen)), minima=minima
    )
    new, counts = np.unique(same_as[same_as >= size], return_counts=True)
    if new.size == 0:
        return landscape
    polished = take(polished, new - size)
    saddles = TransitionState(polished.point, polished.eigenvalues[:, 0], polished.eigenvector)
    connections = push_off(objective, saddles, config)
    ends = jax.tree.map(lambda *sides: np.stack(sides), connections.minus, connections.plus)
    statuses = ends.status.max(axis=0)
    landscape = record(
        landscape, Search.PUSH_OFFS, ends._replace(status=statuses, num_evaluations=ends.num_evaluations.sum(axis=0))
    )
    good = statuses == Status.CONVERGED
    if not good.any():
        return landscape
    polished, counts = take(polished, good), counts[good]
    ends = jax.tree.map(lambda leaf: leaf[:, good].reshape(-1, *leaf.shape[2:]), ends)
    landscape, ids = insert_ends(objective, landscape, ends, config)
    pairs, energies = ids.reshape(2, -1).T, polished.point.energy
    below = np.all(pairs >= 0, axis=1)
    below[below] &= np.all(landscape.minima.energies[pairs[below]] < energies[below, None], axis=1)
    outcome = np.where(below, Status.CONVERGED, Status.PUSHOFF_FAILED)
    landscape = record(landscape, Search.CONNECTIONS, polished.point._replace(status=outcome, num_evaluations=0))
    states = TransitionStates(
        positions=polished.point.position,
        energies=energies,
        eigenvalues=polished.eigenvalues[:, 0],
        eigenvectors=polished.eigenvector,
        log_determinants=_log_determinants(objective, polished.eigenvalues),
        log_orders=_log_orders(symmetry, polished.point.position),
        minima=pairs,
        visits=counts,
    )
    return database.insert_transition_states(landscape, take(states, below))[0]
