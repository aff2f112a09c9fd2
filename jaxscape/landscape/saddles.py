"""The searches for transition states of a round: along bands between minima, and from elsewhere."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxscape.cores import padded
from jaxscape.landscape import certify, database, ledger, paths
from jaxscape.landscape.config import ExploreConfig
from jaxscape.landscape.connect import Distances, choose_pairs
from jaxscape.landscape.database import Landscape
from jaxscape.landscape.ledger import Search
from jaxscape.landscape.paths import Paths
from jaxscape.landscape.propose import outward
from jaxscape.objective import Objective
from jaxscape.programs import program
from jaxscape.search import eigenvector_following as following
from jaxscape.search import elastic_band
from jaxscape.search.points import Status
from jaxscape.symmetry import nth_copy

_MAXIMA_PER_BAND = 2


def search(
    objective: Objective,
    landscape: Landscape,
    distances: Distances,
    step_sizes: np.ndarray,
    rng: np.random.Generator,
    config: ExploreConfig,
) -> tuple[Any, Landscape]:
    """Search transition states and certify them: between minima, as long as some are not joined; then half of the
    searches from elsewhere."""
    joined = not database.components(landscape).any()
    pairs = choose_pairs(landscape, distances, config.num_searches // 2 if joined else config.num_searches)
    landscape, starts, vectors = between(objective, landscape, pairs, config)
    number = config.num_searches - len(starts)
    landscape, more_starts, more_vectors = outward(landscape, number, step_sizes, rng)
    # Those from elsewhere take longer: first, so that no lane is left alone with one.
    starts, vectors = np.concatenate([more_starts, starts]), np.concatenate([more_vectors, vectors])
    found = follow(objective, starts, vectors, config)
    landscape = certify.record(landscape, Search.SADDLE_SEARCHES, found.point)
    converged = found.point.status == Status.CONVERGED
    polished = certify.polish(objective, found.point.position[converged], 1, config)
    landscape = certify.record(landscape, Search.POLISHED_SADDLES, polished.point)
    good = polished.point.status == Status.CONVERGED
    return certify.take(polished, good), landscape


def follow(objective: Objective, starts: np.ndarray, vectors: np.ndarray, config: ExploreConfig) -> Any:
    """Follow eigenvectors to transition states; NumPy out."""
    run = functools.partial(following.search, objective, config=config.following, num_lanes=config.num_lanes)
    return padded(run, config.num_searches, starts, vectors)


def relax(objective: Objective, starts: np.ndarray, ends: np.ndarray, config: ExploreConfig) -> Any:
    """Relax bands; what `_band` returns, NumPy out."""
    run = functools.partial(_band, objective, config=config.band, num_lanes=config.num_lanes)
    return padded(run, config.num_searches, starts, ends)


@program(static_argnames=("num_lanes",))
def _band(
    objective: Objective,
    starts: Array,
    ends: Array,
    config: elastic_band.BandConfig,
    *,
    num_lanes: int,
    count: Int[Array, ""] | int,
) -> tuple[elastic_band.Band, Array, tuple[Array, Array]]:
    """Relax bands; return also their corners, and the bound of the energy on the way with what of it is slack."""
    bands = elastic_band.relax(objective, starts, ends, config, num_lanes=num_lanes, count=count)
    corners = jnp.concatenate([starts[:, None], bands.images, ends[:, None]], axis=1)
    return bands, corners, paths.bounds(objective, corners, count=count)


def between(
    objective: Objective, landscape: Landscape, pairs: Int[np.ndarray, "n 3"], config: ExploreConfig
) -> tuple[Landscape, np.ndarray, np.ndarray]:
    """Start from the maxima of bands to the nearest copies not yet tried, the highest maximum of each band first."""
    positions, nothing = landscape.minima.positions, landscape.minima.positions[:0]
    landscape = database.add_attempted(landscape, pairs[:, :2])
    starts, ends, tried = [], [], []
    for i, j, tries in pairs:
        near = nth_copy(landscape.symmetry, positions[i], positions[j], int(tries) + int(i == j))
        if near is not None:
            starts.append(positions[i])
            ends.append(near)
            tried.append((i, j))
    if not starts:
        return landscape, nothing, nothing
    bands, landscape = insert_bands(
        objective, landscape, np.array(tried, int), np.array(starts), np.array(ends), config
    )
    heights = np.where(bands.maxima, bands.energies, -np.inf)
    order = np.argsort(-heights, axis=1, kind="stable")[:, :_MAXIMA_PER_BAND].T
    band = np.broadcast_to(np.arange(len(starts)), order.shape)
    chosen = np.isfinite(heights[band, order])
    band, image = band[chosen][: config.num_searches], order[chosen][: config.num_searches]
    return landscape, bands.images[band, image], bands.tangents[band, image]


def insert_bands(
    objective: Objective,
    landscape: Landscape,
    known: Int[np.ndarray, "n 2"],
    starts: np.ndarray,
    ends: np.ndarray,
    config: ExploreConfig,
) -> tuple[Any, Landscape]:
    """Relax bands between minima, NumPy out, and enter the bounds that they give."""
    bands, corners, (energies, slack) = relax(objective, starts, ends, config)
    # An energy costs less than half of a gradient.
    spent = int(bands.num_evaluations.sum()) + len(starts) * paths.num_energies(corners.shape[1]) // 2
    landscape = landscape._replace(ledger=ledger.spend(landscape.ledger, spent))
    energies = np.maximum(energies, landscape.minima.energies[known].max(axis=1))  # which rounding may lift above
    return bands, database.insert_paths(landscape, Paths(known, energies, slack, corners))
