"""The host loop that fills a database: hop, choose, connect, insert, hand over for a checkpoint, again.

A round is a pure function of the exploration so far: its randomness is the key folded with the number of the round, so
that an exploration stopped anywhere and resumed from its last round ends at the same landscape.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from scipy.spatial.distance import cdist

from jaxscape.landscape import database
from jaxscape.landscape.database import Landscape, Minima, TransitionStates
from jaxscape.objective import Objective
from jaxscape.search import basin_hopping, newton
from jaxscape.search import eigenvector_following as following
from jaxscape.search.basin_hopping import HoppingConfig, HoppingState
from jaxscape.search.eigenvector_following import FollowingConfig, PushOffConfig, TransitionState
from jaxscape.search.interpolation import highest_points
from jaxscape.search.points import Status
from jaxscape.search.quench import quench
from jaxscape.symmetry import Symmetry, align, fingerprint

# Curvature below this fraction of the largest counts as zero, neither up nor down.
_ZERO_CURVATURE = 1e-10
PHASES = ("hopping between minima", "searching transition states", "descending from transition states")
_STEPS_OFF = 4  # times to step off a saddle that a descent ended on


@dataclass(frozen=True)
class ExploreConfig:
    """Settings of an exploration.

    `num_minima`: hopping stops at this many; `patience`: rounds without a new point before the landscape counts as
    explored; `hopping_steps`: gradients per walker and round; `num_searches`: transition-state searches per round;
    `num_lanes`: searches in work at once, few for the cache of a CPU, hundreds for a GPU, the same result with any;
    then the settings of the searches.
    """

    num_minima: int = 1000
    patience: int = 5
    hopping_steps: int = 1000
    num_searches: int = 32
    num_lanes: int = 8
    hopping: HoppingConfig = field(default_factory=HoppingConfig)
    following: FollowingConfig = field(default_factory=FollowingConfig)
    push_off: PushOffConfig = field(default_factory=PushOffConfig)


class Exploration(NamedTuple):
    """Where an exploration stands: `landscape`, the `walkers`, the `round` to do next, and `idle`: how many rounds in
    a row found nothing new."""

    landscape: Landscape
    walkers: HoppingState
    round: int
    idle: int


def start(
    objective: Objective,
    symmetry: Symmetry,
    starts: Float[Array, "B P"],
    key: PRNGKeyArray,
    config: ExploreConfig = ExploreConfig(),
    *,
    landscape: Landscape | None = None,
) -> Exploration:
    """Set out on an exploration, with one walker from each row of `starts`; see `explore`."""
    if not symmetry.dim == objective.dim == starts.shape[-1]:
        raise ValueError(
            f"objective, symmetry and starts must have one dimension, got {objective.dim}, {symmetry.dim} and "
            f"{starts.shape[-1]}"
        )
    if min(config.num_searches, config.hopping_steps, config.num_lanes) < 1:
        raise ValueError("num_searches, hopping_steps and num_lanes must be at least 1")
    if starts.dtype != jnp.float64:
        raise ValueError(
            f"exploring needs float64 to tell stationary points apart, got {starts.dtype}: call "
            'jax.config.update("jax_enable_x64", True) before making the objective and the starts'
        )
    walkers = basin_hopping.init(jax.random.fold_in(key, 0), starts, config.hopping)
    return Exploration(database.empty(symmetry) if landscape is None else landscape, walkers, round=1, idle=0)


def explore(
    objective: Objective,
    symmetry: Symmetry,
    starts: Float[Array, "B P"],
    key: PRNGKeyArray,
    config: ExploreConfig = ExploreConfig(),
    *,
    budget: int = 50,
    landscape: Landscape | None = None,
    on_round: Callable[[Exploration], None] | None = None,
) -> Landscape:
    """Explore a landscape: find minima and transition states and store which joins which.

    Args:
        objective: the landscape, in float64.
        symmetry: what makes two points the same; `Symmetry((), dim)` for nothing.
        starts: where the basin-hopping walkers set out, one per row.
        key: a JAX random key; the same key gives the same landscape.
        config: settings.
        budget: largest number of rounds.
        landscape: what is known already, to add to.
        on_round: called with the exploration after each round, for progress and checkpoints.

    Returns:
        The database. Each minimum has no negative Hessian eigenvalue, each transition state exactly one, and two
        minima below it.

    Raises:
        ValueError: if the dimensions do not agree or the dtype is not float64.
    """
    exploration = start(objective, symmetry, starts, key, config, landscape=landscape)
    while not finished(exploration, config, budget=budget):
        exploration = advance(objective, exploration, key, config)
        if on_round is not None:
            on_round(exploration)
    return exploration.landscape


def finished(exploration: Exploration, config: ExploreConfig, *, budget: int) -> bool:
    """Say whether the budget is spent, the landscape is explored, or enough minima are known and connected."""
    minima = exploration.landscape.minima
    if exploration.round > budget or exploration.idle >= config.patience:
        return True
    return len(minima.energies) >= config.num_minima and not database.components(exploration.landscape).any()


def advance(
    objective: Objective,
    exploration: Exploration,
    key: PRNGKeyArray,
    config: ExploreConfig = ExploreConfig(),
    *,
    on_phase: Callable[[str], None] = lambda phase: None,
) -> Exploration:
    """Do one round: hop (while minima are wanted), then search transition states and descend from them.

    `on_phase` is told which of `PHASES` comes next, for progress.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.fold_in(key, exploration.round))))
    landscape, walkers = exploration.landscape, exploration.walkers
    before = _num_points(landscape)
    if len(landscape.minima.energies) < config.num_minima:
        on_phase(PHASES[0])
        landscape, walkers = _hop(objective, landscape, walkers, config)
    if len(landscape.minima.energies):
        on_phase(PHASES[1])
        saddles, landscape = _search_saddles(objective, landscape, np.asarray(walkers.step_size), rng, config)
        on_phase(PHASES[2])
        landscape = _insert_saddles(objective, landscape, saddles, config)
    found_nothing = _num_points(landscape) == before
    # As long as there is no minimum the first quenches may still be under way: that is not yet a landscape explored.
    idle = exploration.idle + int(len(landscape.minima.energies) > 0) if found_nothing else 0
    return Exploration(landscape, walkers, exploration.round + 1, idle)


def checkpoint(exploration: Exploration) -> dict[str, np.ndarray]:
    """Return the part of an exploration that is not its landscape as plain arrays, for `database.save(extra=...)`."""
    walkers = exploration.walkers._replace(key=jax.random.key_data(exploration.walkers.key))
    arrays = {f"walkers/{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(walkers))}
    return arrays | {"round": np.asarray(exploration.round), "idle": np.asarray(exploration.idle)}


def restore(fresh: Exploration, landscape: Landscape, arrays: dict[str, np.ndarray]) -> Exploration:
    """Rebuild an exploration from a checkpoint.

    Args:
        fresh: what `start` returns for the same objective, starts and settings: it gives the shapes.
        landscape: the landscape of the checkpoint.
        arrays: what `checkpoint` returned.

    Raises:
        ValueError: if the checkpoint does not fit the settings.
    """
    template = fresh.walkers._replace(key=jax.random.key_data(fresh.walkers.key))
    leaves, structure = jax.tree.flatten(template)
    saved = [arrays.get(f"walkers/{i}") for i in range(len(leaves))]
    if any(
        new is None or new.shape != old.shape or new.dtype != old.dtype for new, old in zip(saved, leaves, strict=True)
    ):
        raise ValueError("the checkpoint holds walkers of another shape: it was made with other settings")
    walkers = jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in saved])
    walkers = walkers._replace(key=jax.random.wrap_key_data(walkers.key))
    return Exploration(landscape, walkers, int(arrays["round"]), int(arrays["idle"]))


def _num_points(landscape: Landscape) -> tuple[int, int]:
    return len(landscape.minima.energies), len(landscape.transition_states.energies)


def _count_statuses(landscape: Landscape, search: str, statuses: Int[np.ndarray, " n"]) -> Landscape:
    """Add the outcomes of a batch of searches to the record in `meta`: nothing is thrown away silently."""
    record = {kind: dict(counts) for kind, counts in landscape.meta.get("outcomes", {}).items()}
    counts = record.setdefault(search, {})
    for status, number in zip(*np.unique(statuses, return_counts=True), strict=True):
        name = Status(status).name
        counts[name] = counts.get(name, 0) + int(number)
    return landscape._replace(meta={**landscape.meta, "outcomes": record})


def _padded(run: Callable[..., Any], batch: int, *rows: Any) -> Any:
    """Call a compiled `run(*rows, count=)` on batches of one shape, so that it is compiled once; NumPy out."""
    n = len(jax.tree.leaves(rows)[0])
    results = []
    for first in range(0, max(n, 1), batch):
        count = min(batch, n - first)

        def padded(leaf: np.ndarray, first: int = first, count: int = count) -> Array:
            filled = np.zeros((batch, *leaf.shape[1:]), leaf.dtype)
            filled[:count] = leaf[first : first + count]
            return jnp.asarray(filled)

        result = run(*jax.tree.map(padded, rows), count=count)
        results.append(jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:count], result))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *results)


def _take(tree: Any, index: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], tree)


def _negative(eigenvalues: Float[np.ndarray, "n P"]) -> Bool[np.ndarray, "n P"]:
    return eigenvalues < -_ZERO_CURVATURE * np.abs(eigenvalues).max(axis=1, keepdims=True)


def _polish(objective: Objective, positions: np.ndarray, index: int, config: ExploreConfig) -> Any:
    """Return the `Polished` points as NumPy arrays."""
    # A small dense Hessian does not fill the machine, a large one fills the memory.
    run = functools.partial(newton.polish, objective, index=index, num_lanes=max(1, 128 // objective.dim))
    return _padded(run, 2 * config.num_searches, positions)


def _settle(objective: Objective, positions: np.ndarray, config: ExploreConfig) -> Any:
    """Polish the ends of descents to certified minima; where one is a saddle, step off along it and descend again.

    A descent from a symmetric point stays in its symmetric subspace and can end on a saddle. The two ways off it mostly
    lead to copies of one minimum; where they do not, the lower end counts. A row that is no minimum after all has a
    status that says so.
    """
    polished = _polish(objective, positions, 0, config)
    for _ in range(_STEPS_OFF):
        saddles = np.flatnonzero(_negative(polished.eigenvalues)[:, 0])
        if saddles.size == 0:
            return polished
        kick = 10 * float(config.push_off.displacement)
        off = kick * polished.eigenvector[saddles]
        starts = np.concatenate([polished.point.position[saddles] + off, polished.point.position[saddles] - off])
        run = functools.partial(quench, objective, config=config.push_off.descent, num_lanes=config.num_lanes)
        ends = _padded(run, 2 * config.num_searches, starts)
        plus, minus = ends.position[: saddles.size], ends.position[saddles.size :]
        lower = ends.energy[: saddles.size] <= ends.energy[saddles.size :]
        again = _polish(objective, np.where(lower[:, None], plus, minus), 0, config)
        for old, new in zip(jax.tree.leaves(polished), jax.tree.leaves(again), strict=True):
            old[saddles] = new
    polished.point.status[_negative(polished.eigenvalues)[:, 0]] = Status.WRONG_INDEX
    return polished


def _as_minima(polished: Any) -> Minima:
    ones = np.ones(len(polished.point.energy), int)
    eigenvalues, eigenvectors = polished.eigenvalues[:, 0], polished.eigenvector
    return Minima(polished.point.position, polished.point.energy, eigenvalues, eigenvectors, ones, 0 * ones)


def _visit(
    symmetry: Symmetry, known: Any, positions: np.ndarray, energies: np.ndarray
) -> tuple[Any, Int[np.ndarray, " n"]]:
    """Count a visit for each point that is known; return, for each, the first row of known and new that it equals."""
    size = len(known.energies)
    both = np.concatenate([known.positions, positions]), np.concatenate([known.energies, energies])
    same_as = database.identify(symmetry, *both, size)
    np.add.at(visits := known.visits.copy(), same_as[same_as < size], 1)
    return known._replace(visits=visits), same_as


def _insert_ends(
    objective: Objective, landscape: Landscape, positions: np.ndarray, energies: np.ndarray, config: ExploreConfig
) -> tuple[Landscape, Int[np.ndarray, " n"]]:
    """Insert converged ends of descents; return the id of each, -1 where it turned out to be no minimum.

    Ends at known minima are counted as visits and not polished again; ends at the same new one are polished once.
    """
    size = len(landscape.minima.energies)
    minima, same_as = _visit(landscape.symmetry, landscape.minima, positions, energies)
    landscape = landscape._replace(minima=minima)
    new, counts = np.unique(same_as[same_as >= size], return_counts=True)
    ids = np.append(np.arange(size), np.full(len(positions), -1))
    if new.size:
        settled = _settle(objective, positions[new - size], config)
        landscape = _count_statuses(landscape, "minima", settled.point.status)
        good = settled.point.status == Status.CONVERGED
        minima = _as_minima(_take(settled, good))
        landscape, new_ids = database.insert_minima(landscape, minima._replace(visits=counts[good]))
        ids[new[good]] = new_ids
    return landscape, ids[same_as]


def _hop(
    objective: Objective, landscape: Landscape, walkers: HoppingState, config: ExploreConfig
) -> tuple[Landscape, HoppingState]:
    # A walker hands in at most one minimum every `refill_every` (8) steps, so this buffer cannot overflow.
    capacity = walkers.energy.shape[0] * (config.hopping_steps // 8 + 1)
    walkers, buffer = basin_hopping.run(
        objective, walkers, config.hopping, num_steps=config.hopping_steps, capacity=capacity
    )
    points: Any = jax.tree.map(lambda leaf: np.asarray(leaf)[: int(buffer.count)], buffer.points)
    landscape = _count_statuses(landscape, "hops", points.status)
    points = _take(points, points.status == Status.CONVERGED)
    if len(points.energy):
        landscape, _ = _insert_ends(objective, landscape, points.position, points.energy, config)
    return landscape, walkers


def _search_saddles(
    objective: Objective, landscape: Landscape, step_sizes: np.ndarray, rng: np.random.Generator, config: ExploreConfig
) -> tuple[Any, Landscape]:
    """Search transition states and certify them: half of the searches between minima and half out from single ones.

    Once there are minima enough, connecting them comes first.
    """
    enough = len(landscape.minima.energies) >= config.num_minima
    pairs = choose_pairs(landscape, config.num_searches if enough else config.num_searches // 2)
    landscape, starts, vectors = _between(objective, landscape, pairs, config)
    landscape, more_starts, more_vectors = _outward(landscape, config.num_searches - len(pairs), step_sizes, rng)
    starts, vectors = np.concatenate([starts, more_starts]), np.concatenate([vectors, more_vectors])
    run = functools.partial(following.search, objective, config=config.following, num_lanes=config.num_lanes)
    found = _padded(run, config.num_searches, starts, vectors)
    landscape = _count_statuses(landscape, "saddle searches", found.point.status)
    found = _take(found, found.point.status == Status.CONVERGED)
    polished = _polish(objective, found.point.position, 1, config)
    index = _negative(polished.eigenvalues).sum(axis=1)
    polished.point.status[(polished.point.status == Status.CONVERGED) & (index != 1)] = Status.WRONG_INDEX
    landscape = _count_statuses(landscape, "polished saddles", polished.point.status)
    return _take(polished, polished.point.status == Status.CONVERGED), landscape


def choose_pairs(landscape: Landscape, number: int) -> Int[np.ndarray, "n 2"]:
    """Choose pairs of minima to search between: not tried yet, of different components first, then the nearest."""
    size = len(landscape.minima.energies)
    first, second = np.triu_indices(size, 1)
    tried = np.isin(first * size + second, landscape.attempted @ [size, 1])
    first, second = first[~tried], second[~tried]
    component = database.components(landscape)
    marks = fingerprint(landscape.symmetry, landscape.minima.positions)
    apart = cdist(marks, marks)[first, second]
    order = np.lexsort((apart, component[first] == component[second]))[:number]
    return np.stack([first[order], second[order]], axis=1)


def _between(
    objective: Objective, landscape: Landscape, pairs: Int[np.ndarray, "n 2"], config: ExploreConfig
) -> tuple[Landscape, np.ndarray, np.ndarray]:
    """Start from the highest point of the line between the first minimum and the nearest copy of the second."""
    positions = landscape.minima.positions
    if len(pairs) == 0:
        return landscape, positions[:0], positions[:0]
    starts = positions[pairs[:, 0]]
    ends = np.concatenate([align(landscape.symmetry, positions[i], positions[[j]])[0] for i, j in pairs])

    def run(starts: Array, ends: Array, count: int) -> tuple[Array, Array]:
        return highest_points(objective, starts, ends)

    highest, along = _padded(run, config.num_searches, starts, ends)
    return database.add_attempted(landscape, pairs), highest, along


def _outward(
    landscape: Landscape, number: int, step_sizes: np.ndarray, rng: np.random.Generator
) -> tuple[Landscape, np.ndarray, np.ndarray]:
    """Start from outside the minima searched least: along the softest mode to both sides, then in random directions.

    The distance follows the hops of the walkers, which have adapted to leave the basins.
    """
    minima = landscape.minima
    searches = minima.searches.copy()
    starts, vectors = np.empty((number, landscape.symmetry.dim)), np.empty((number, landscape.symmetry.dim))
    for row in range(number):
        i = int(searches.argmin())
        size = rng.choice(step_sizes) * rng.uniform(0.1, 1)
        random = rng.uniform(-1, 1, landscape.symmetry.dim)
        vectors[row] = minima.eigenvectors[i] * (-1) ** searches[i] if searches[i] < 2 else random
        starts[row] = minima.positions[i] + size * vectors[row]
        searches[i] += 1
    return landscape._replace(minima=minima._replace(searches=searches)), starts, vectors


def _insert_saddles(objective: Objective, landscape: Landscape, polished: Any, config: ExploreConfig) -> Landscape:
    """Insert certified saddles; descend only from those that are new."""
    size = len(landscape.transition_states.energies)
    states, same_as = _visit(
        landscape.symmetry, landscape.transition_states, polished.point.position, polished.point.energy
    )
    landscape = landscape._replace(transition_states=states)
    new, counts = np.unique(same_as[same_as >= size], return_counts=True)
    if new.size == 0:
        return landscape
    polished = _take(polished, new - size)
    saddles = TransitionState(polished.point, polished.eigenvalues[:, 0], polished.eigenvector)
    run = functools.partial(following.push_off, objective, config=config.push_off, num_lanes=config.num_lanes)
    connections = _padded(run, config.num_searches, saddles)
    statuses = np.maximum(connections.minus.status, connections.plus.status)
    landscape = _count_statuses(landscape, "push-offs", statuses)
    good = statuses == Status.CONVERGED
    connections, counts = _take(connections, good), counts[good]
    if counts.size == 0:
        return landscape
    ends = np.concatenate([connections.minus.position, connections.plus.position])
    end_energies = np.concatenate([connections.minus.energy, connections.plus.energy])
    landscape, ids = _insert_ends(objective, landscape, ends, end_energies, config)
    pairs = ids.reshape(2, -1).T
    point = connections.transition.point
    below = np.all(pairs >= 0, axis=1)
    below[below] &= np.all(landscape.minima.energies[pairs[below]] < point.energy[below, None], axis=1)
    landscape = _count_statuses(landscape, "connections", np.where(below, Status.CONVERGED, Status.PUSHOFF_FAILED))
    eigenvalues, eigenvectors = connections.transition.eigenvalue, connections.transition.eigenvector
    states = TransitionStates(point.position, point.energy, eigenvalues, eigenvectors, pairs, counts)
    return database.insert_transition_states(landscape, _take(states, below))[0]
