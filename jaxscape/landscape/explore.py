"""The host loop that fills a database: hop, choose, connect, insert, hand over for a checkpoint, again.

A round is a pure function of the exploration so far: its randomness is the key folded with the number of the round, so
that an exploration stopped anywhere and resumed from its last round ends at the same landscape.
"""

import concurrent.futures
import functools
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxscape.cores import for_thread, num_cores, on_device, one_blas_thread, padded, spread
from jaxscape.landscape import certify, coverage, database, doubts, ledger, paths
from jaxscape.landscape.config import ExploreConfig
from jaxscape.landscape.connect import NO_DISTANCES, Distances, choose_gaps, choose_pairs, measured
from jaxscape.landscape.database import Landscape
from jaxscape.landscape.ledger import Search
from jaxscape.landscape.paths import Paths
from jaxscape.landscape.propose import outward
from jaxscape.objective import Objective, check_points, values
from jaxscape.programs import program
from jaxscape.search import basin_hopping, elastic_band
from jaxscape.search import eigenvector_following as following
from jaxscape.search.basin_hopping import Buffer, HoppingConfig, HoppingState
from jaxscape.search.eigenvector_following import TransitionState
from jaxscape.search.points import StationaryPoint, Status
from jaxscape.symmetry import Symmetry, generators, nth_copy

PHASES = ("hopping between minima", "searching transition states", "descending from transition states")
_COUNTS = ("round", "idle", "hopped", "given")  # of an exploration, for a checkpoint
_BLOCK = 4  # walkers that hop in one program on a CPU
_MAXIMA_PER_BAND = 2
_FOUND_BY = 5  # walkers, or all where there are fewer, that have come to the lowest minimum when hopping ends
_BOUND = elastic_band.BandConfig(max_step=0.3, max_steps=100, num_images=48)  # a band that bounds a barrier
_BOUNDS_AT_ONCE, _BOUNDS_COST = 4, 0.5  # in one program, so that an interruption is soon heard; of all gradients
_PASSES = 5  # of bands between what is left in parts: a new path may open the way to the next part
_UNTIL_SURE, _ONCE_JOINED = 1 / 3, 1 / 6  # of all gradients, in hops
_HOPS_A_SEARCH = 3  # of a landscape that is complete
_KEPT_OF_HOPS = 4  # one of so many minima that are enough: 94 merges in 100 were certified (eight tables), with all 90
_FINDS = 8  # of every point of a landscape that is complete
_SAME_LOSS = 1e-9  # relative: two copies of a point, but for rounding
_SAME_ENERGY = 1e-6  # relative: the end of a walk, not polished, and the lowest minimum


class Budget(NamedTuple):
    """What an exploration may cost: the first limit that is reached ends it, after the round under way.

    `rounds`; `evaluations`: gradients, a Hessian or Hessian-vector product counted as what it costs in gradients;
    `seconds`: on the clock, so that the same key then gives the same landscape only up to the round it stops at.
    """

    rounds: int = 50
    evaluations: float = math.inf
    seconds: float = math.inf


DEFAULT_BUDGET = Budget()


class Exploration(NamedTuple):
    """Where an exploration stands.

    `landscape`; the `walkers`; the `round` to do next; `idle`: how many searches in a row found nothing new; `hopped`:
    gradients that hops took; `given`: what the landscape that it set out with had cost; `distances` between the
    minima, as far as they are measured.
    """

    landscape: Landscape
    walkers: HoppingState
    round: int
    idle: int
    hopped: int = 0
    given: int = 0
    distances: Distances = NO_DISTANCES


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
    if symmetry.dim != objective.dim:
        raise ValueError(f"objective and symmetry must have one dimension, got {objective.dim} and {symmetry.dim}")
    check_points(objective.dim, starts=starts)
    if landscape is not None and not database.same_symmetry(landscape.symmetry, symmetry):
        raise ValueError("the landscape to add to has another symmetry: it is of another model")
    if min(config.num_searches, config.hopping_steps, config.num_lanes) < 1:
        raise ValueError("num_searches, hopping_steps and num_lanes must be at least 1")
    if starts.dtype != jnp.float64:
        raise ValueError(
            f"exploring needs float64 to tell stationary points apart, got {starts.dtype}: call "
            'jax.config.update("jax_enable_x64", True) before making the objective and the starts'
        )
    if objective.outputs is not None:
        precision = np.asarray(objective.data.precision)
        if any(np.any(precision[layer.units] != precision[layer.units[:1]]) for layer in symmetry.layers):
            raise ValueError("the precision differs between interchangeable units: give all units of a layer the same")
    _check_symmetry(objective, symmetry)
    # Through NumPy, which makes of weak types what they are after each round: else hopping would be compiled twice.
    walkers = _joined([basin_hopping.init(jax.random.fold_in(key, 0), starts, config.hopping)])
    exploration = Exploration(database.empty(symmetry), walkers, round=1, idle=0)
    return exploration if landscape is None else with_landscape(exploration, landscape)


def with_landscape(exploration: Exploration, landscape: Landscape) -> Exploration:
    """Return an exploration that sets out with a landscape: what that has cost is not its own."""
    return exploration._replace(landscape=landscape, given=landscape.ledger.evaluations)


def _check_symmetry(objective: Objective, symmetry: Symmetry) -> None:
    """Raise a `ValueError` that names the first move of the symmetry that changes the loss, at a random point."""
    moves = generators(symmetry)
    if not moves:
        return
    point = np.random.default_rng(0).normal(size=symmetry.dim)
    points = on_device(np.stack([point, *(move(point) for move in moves.values())]))
    before, *after = np.asarray(values(objective, points)).tolist()
    for name, moved in zip(moves, after, strict=True):
        if abs(moved - before) > _SAME_LOSS * max(abs(before), 1.0):
            raise ValueError(
                f"{name} changes the loss, from {before:.6g} to {moved:.6g} at a random point: the symmetry is not one "
                "of this loss (are incoming weights transposed?)"
            )


def explore(
    objective: Objective,
    symmetry: Symmetry,
    starts: Float[Array, "B P"],
    key: PRNGKeyArray,
    config: ExploreConfig = ExploreConfig(),
    *,
    budget: Budget = DEFAULT_BUDGET,
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
        budget: limits in rounds, gradient evaluations and seconds.
        landscape: what is known already, to add to.
        on_round: called with the exploration after each round, for progress and checkpoints; `coverage_of` says how
            complete it is.

    Returns:
        The database. Each minimum has no negative Hessian eigenvalue, each transition state exactly one, and two
        minima below it; none has a zero eigenvalue but for the known zero modes, and Newton's step from each stays put.
        Parts that no transition state joins are joined by `paths`, which bound the barriers from above.
        A warning says why, if it is empty, or that minima are copies of each other by what `symmetry` leaves out.

    Raises:
        ValueError: if the dimensions do not agree or the dtype is not float64.
    """
    began = time.monotonic()
    exploration = start(objective, symmetry, starts, key, config, landscape=landscape)
    compile_ahead(objective, exploration, config)
    while not finished(exploration, config, budget, seconds=time.monotonic() - began):
        exploration = advance(objective, exploration, key, config)
        if on_round is not None:
            on_round(exploration)
    exploration = bound_barriers(objective, exploration, config)
    if (doubt := doubts.empty_because(exploration.landscape)) is not None:
        warnings.warn(f"no minimum was found: {doubt}", stacklevel=2)
    if (doubt := doubts.missing_symmetry(objective, exploration.landscape)) is not None:
        warnings.warn(doubt, stacklevel=2)
    return exploration.landscape


def finished(
    exploration: Exploration, config: ExploreConfig, budget: Budget = DEFAULT_BUDGET, *, seconds: float = 0.0
) -> bool:
    """Say whether the exploration ends here; see `stopped_by`."""
    return stopped_by(exploration, config, budget, seconds=seconds) is not None


def stopped_by(
    exploration: Exploration, config: ExploreConfig, budget: Budget = DEFAULT_BUDGET, *, seconds: float = 0.0
) -> str | None:
    """Say what ends an exploration; None while it goes on.

    "complete": the lowest minimum was found by five walkers on their own, certified edges join all minima, each point
    was found eight times, none is estimated unseen, the next search would find something new with a chance below
    1 - `config.coverage`, and there were three hops for each search. It was never wrong in 200 explorations of small
    problems (`benchmarks/claims.py`).
    "connected": the first two, and there are `config.num_minima`. Else the part of the budget that is spent: "rounds",
    "gradients" or "seconds".
    """
    landscape = exploration.landscape
    if _is_saturated(exploration, config) and not _hops_are_due(exploration, config):
        return "complete"
    if _is_joined(exploration) and len(landscape.minima.energies) >= config.num_minima:
        return "connected"
    spent = {
        "rounds": exploration.round > budget.rounds,
        "gradients": landscape.ledger.evaluations >= budget.evaluations,
        "seconds": seconds >= budget.seconds,
    }
    return next((name for name, over in spent.items() if over), None)


def _is_joined(exploration: Exploration) -> bool:
    """Say whether the lowest minimum is sure and certified edges join all minima."""
    landscape = exploration.landscape
    some = len(landscape.minima.energies) > 0
    return some and enough_found(exploration) and not database.components(landscape).any()


def _is_saturated(exploration: Exploration, config: ExploreConfig) -> bool:
    """Say whether searches find nothing new, and each point often."""
    landscape = exploration.landscape
    if not _is_joined(exploration) or coverage.chance_of_more(exploration.idle) > 1 - config.coverage:
        return False
    groups = landscape.minima, landscape.transition_states
    often = all(group.visits.min(initial=_FINDS) >= _FINDS for group in groups)
    return often and all(seen.unseen < 0.5 for seen in coverage_of(landscape))


def found_lowest_by(exploration: Exploration) -> int:
    """Return how many walkers have come to the lowest minimum, each on its own."""
    energies = exploration.landscape.minima.energies
    if len(energies) == 0:
        return 0
    lowest = energies.min()
    return int(np.sum(np.asarray(exploration.walkers.lowest) <= lowest + _SAME_ENERGY * max(abs(lowest), 1e-300)))


def enough_found(exploration: Exploration) -> bool:
    """Say whether the lowest minimum was found often enough to stop hopping."""
    return found_lowest_by(exploration) >= min(_FOUND_BY, len(exploration.walkers.lowest))


def coverage_of(landscape: Landscape) -> tuple[coverage.Coverage, coverage.Coverage]:
    """Estimate how many minima and how many transition states have not been seen; see `coverage.estimate`."""
    return coverage.estimate(landscape.minima.visits), coverage.estimate(landscape.transition_states.visits)


@one_blas_thread()
def advance(
    objective: Objective,
    exploration: Exploration,
    key: PRNGKeyArray,
    config: ExploreConfig = ExploreConfig(),
    *,
    on_phase: Callable[[str], None] = lambda phase: None,
) -> Exploration:
    """Do one round: hop, until the lowest minimum is sure, then search transition states and descend from them.

    Until the lowest minimum is sure hopping takes a third of all gradients, and then, once all minima are joined, a
    sixth. Where searches find nothing new it goes on alone, to three hops for each search: what lies behind transition
    states that are hardly ever met is found by hops. `on_phase` is told which of `PHASES` comes next, for progress.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.fold_in(key, exploration.round))))
    now, num_hops, before = exploration, 0, _num_points(exploration.landscape)
    while (has_none := len(now.landscape.minima.energies) == 0) or _hops_are_due(now, config):
        on_phase(PHASES[0])
        landscape, walkers, ended = _hop(objective, now.landscape, now.walkers, config)
        num_hops += ended
        last, spent = now, landscape.ledger.evaluations - now.landscape.ledger.evaluations
        now = now._replace(landscape=landscape, walkers=walkers, hopped=now.hopped + spent)
        if has_none or (_is_joined(last) and not _is_saturated(last, config)):
            break
    landscape, num_searches = now.landscape, num_hops
    distances = measured(landscape, exploration.distances)
    # As long as there is no minimum the hops are the searches, and the first quenches may still be under way.
    if len(landscape.minima.energies) and not (num_hops and _is_saturated(now, config)):
        on_phase(PHASES[1])
        step_sizes = np.asarray(now.walkers.step_size)
        saddles, landscape = _search_saddles(objective, landscape, distances, step_sizes, rng, config)
        on_phase(PHASES[2])
        landscape = certify.insert_saddles(objective, landscape, saddles, config)
        num_searches = config.num_searches
    idle = exploration.idle + num_searches if _num_points(landscape) == before else 0
    return now._replace(landscape=landscape, round=exploration.round + 1, idle=idle, distances=distances)


@one_blas_thread()
def bound_barriers(
    objective: Objective, exploration: Exploration, config: ExploreConfig = ExploreConfig()
) -> Exploration:
    """Join the parts that are left at the end of an exploration by paths, which cost a band each and no search.

    Bands that serve a search are short of images and steps; those that bound a barrier are relaxed once more, with
    enough of both: beside strings of 64 images they lay 0.04 too high on one table, and then 1e-6 (medians;
    `benchmarks/depth.py`).
    """
    landscape = exploration.landscape
    if not database.components(landscape).any():
        return exploration
    distances = measured(landscape, exploration.distances)
    for _ in range(_PASSES):
        if not database.components(landscape, with_paths=True).any():  # nor is there anything to join, if it is empty
            break
        gaps = choose_gaps(landscape, distances)
        landscape, _, _ = _between(objective, landscape, gaps, config)
    most = int(_BOUNDS_COST * landscape.ledger.evaluations / (_BOUND.num_images * int(_BOUND.max_steps)))
    lowest = np.argsort(landscape.paths.energies, kind="stable")[: max(most, _BOUNDS_AT_ONCE)]
    known, images = landscape.paths.minima[lowest], landscape.paths.images[lowest]
    settings = replace(config, band=_BOUND, num_searches=_BOUNDS_AT_ONCE)
    _, landscape = _insert_bands(objective, landscape, known, images[:, 0], images[:, -1], settings)
    return exploration._replace(landscape=landscape, distances=distances)


def compile_ahead(objective: Objective, exploration: Exploration, config: ExploreConfig = ExploreConfig()) -> None:
    """Compile all programs of an exploration at once, on all cores, where each would wait for the last.

    Every program is run with nothing to do. What is compiled already costs milliseconds.
    """
    rows, one = np.empty((0, objective.dim)), np.empty(0)
    point = StationaryPoint(rows, one, one, one.astype(int), one.astype(int))  # type: ignore[arg-type]
    saddles = TransitionState(point, one, rows)  # type: ignore[arg-type]
    nothing = database.empty(exploration.landscape.symmetry)
    jobs = [  # the one that takes longest first
        lambda: _search(objective, rows, rows, config),
        lambda: certify.push_off(objective, saddles, config),
        lambda: _hop(objective, nothing, exploration.walkers, config, num_steps=0),
        lambda: _relax(objective, rows, rows, config),
        lambda: certify.polish(objective, rows, 0, config),
        lambda: certify.descend(objective, rows, config),
    ]
    with concurrent.futures.ThreadPoolExecutor(num_cores()) as pool:
        for job in [pool.submit(for_thread(job)) for job in jobs]:
            job.result()


def checkpoint(exploration: Exploration) -> dict[str, np.ndarray]:
    """Return the part of an exploration that is not its landscape as plain arrays, for `database.save(extra=...)`."""
    walkers = exploration.walkers._replace(key=jax.random.key_data(exploration.walkers.key))
    arrays = {f"walkers/{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(walkers))}
    counts = {name: np.asarray(getattr(exploration, name)) for name in _COUNTS}
    return arrays | counts


def restore(fresh: Exploration, landscape: Landscape, arrays: dict[str, np.ndarray]) -> Exploration:
    """Rebuild an exploration from a checkpoint.

    Args:
        fresh: what `start` returns for the same objective, starts and settings: it gives the shapes.
        landscape: the landscape of the checkpoint.
        arrays: what `checkpoint` returned.

    Raises:
        ValueError: if the checkpoint does not fit the settings, or is no whole one.
    """
    template = fresh.walkers._replace(key=jax.random.key_data(fresh.walkers.key))
    leaves, structure = jax.tree.flatten(template)
    saved = [arrays.get(f"walkers/{i}") for i in range(len(leaves))]
    if any(
        new is None or new.shape != old.shape or new.dtype != old.dtype for new, old in zip(saved, leaves, strict=True)
    ):
        raise ValueError("the checkpoint holds walkers of another shape: it was made with other settings")
    walkers = jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in saved])
    kind = jax.random.key_impl(fresh.walkers.key)
    walkers = walkers._replace(key=jax.random.wrap_key_data(walkers.key, impl=kind))
    arrays = {"given": np.asarray(0), **arrays}  # which older files do not hold
    counts = [arrays.get(name) for name in _COUNTS]
    if any(count is None or count.shape != () or count.dtype.kind not in "iu" for count in counts):
        raise ValueError(f"the checkpoint does not say how far it is: it holds no whole numbers {', '.join(_COUNTS)}")
    done, idle, hopped, given = (int(count) for count in counts if count is not None)
    return Exploration(landscape, walkers, done, idle, hopped, given, measured(landscape))


def _hops_are_due(exploration: Exploration, config: ExploreConfig) -> bool:
    book = exploration.landscape.ledger
    spent = book.evaluations - exploration.given
    if not enough_found(exploration):
        return exploration.hopped <= _UNTIL_SURE * spent
    if not _is_joined(exploration):
        return False
    if not _is_saturated(exploration, config):
        return exploration.hopped <= _ONCE_JOINED * spent
    # Counted: half of all gradients are as many in small networks, but seven for each search in one of 601 weights.
    return ledger.count(book, Search.HOPS) < _HOPS_A_SEARCH * ledger.count(book, Search.SADDLE_SEARCHES)


def _num_points(landscape: Landscape) -> tuple[int, int]:
    return len(landscape.minima.energies), len(landscape.transition_states.energies)


def _hop(
    objective: Objective,
    landscape: Landscape,
    walkers: HoppingState,
    config: ExploreConfig,
    num_steps: int | None = None,
) -> tuple[Landscape, HoppingState, int]:
    """Let the walkers go on, in blocks on all cores in use; return with them how many quenches ended.

    Once a quarter of `config.num_minima` are known, only ends among so many lowest are kept.
    """
    num_walkers = walkers.energy.shape[0]
    # Always the same blocks: another width would be compiled to other roundings.
    width = _BLOCK if num_walkers % _BLOCK == 0 and jax.default_backend() == "cpu" else num_walkers
    # A walker hands in at most one minimum every `refill_every` (8) steps, so this buffer cannot overflow.
    capacity = width * (config.hopping_steps // 8 + 1)
    num_steps = config.hopping_steps if num_steps is None else num_steps
    names = ("temperature", "step_size")  # of each walker
    each = {name: np.broadcast_to(np.asarray(getattr(config.hopping, name)), num_walkers) for name in names}

    def run(first: int) -> tuple[HoppingState, Any]:
        block = slice(first, first + width)
        own: dict[str, Any] = {name: on_device(array[block]) for name, array in each.items()}
        settings = replace(config.hopping, **own)
        some, buffer = _hop_block(
            objective, walkers, first, settings, num_steps=num_steps, width=width, capacity=capacity
        )
        return some, jax.tree.map(lambda leaf: np.asarray(leaf)[: int(buffer.count)], buffer.points)

    ended = spread(run, range(0, num_walkers, width))
    walkers = _joined([some for some, _ in ended])
    points: Any = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(found for _, found in ended))
    landscape = certify.record(landscape, Search.HOPS, points)
    # Each minimum that hops add is a part to join: only low ones are worth that. What saddles lead to is none.
    known, number = np.sort(landscape.minima.energies), -(-config.num_minima // _KEPT_OF_HOPS)
    highest = known[number - 1] if len(known) >= number else np.inf
    highest += _SAME_ENERGY * abs(highest) if np.isfinite(highest) else 0
    wanted = certify.take(points, (points.status == Status.CONVERGED) & (points.energy <= highest))
    if len(wanted.energy):
        landscape, _ = certify.insert_ends(objective, landscape, wanted, config)
    return landscape, walkers, len(points.energy)


@program(static_argnames=("width", "capacity"))
def _hop_block(
    objective: Objective,
    walkers: HoppingState,
    first: Int[Array, ""] | int,
    config: HoppingConfig,
    *,
    num_steps: Int[Array, ""] | int,
    width: int,
    capacity: int,
) -> tuple[HoppingState, Buffer]:
    def block(leaf: Array) -> Array:
        return jax.lax.dynamic_slice_in_dim(leaf, first, width)

    return basin_hopping.run(objective, jax.tree.map(block, walkers), config, num_steps=num_steps, capacity=capacity)


def _joined(blocks: list[HoppingState]) -> HoppingState:
    # By NumPy, which has nothing to compile.
    plain = [block._replace(key=jax.random.key_data(block.key)) for block in blocks]
    walkers: HoppingState = jax.device_put(jax.tree.map(lambda *leaves: np.concatenate(leaves), *plain))
    return walkers._replace(key=jax.random.wrap_key_data(walkers.key, impl=jax.random.key_impl(blocks[0].key)))


def _search_saddles(
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
    landscape, starts, vectors = _between(objective, landscape, pairs, config)
    number = config.num_searches - len(starts)
    landscape, more_starts, more_vectors = outward(landscape, number, step_sizes, rng)
    # Those from elsewhere take longer: first, so that no lane is left alone with one.
    starts, vectors = np.concatenate([more_starts, starts]), np.concatenate([more_vectors, vectors])
    found = _search(objective, starts, vectors, config)
    landscape = certify.record(landscape, Search.SADDLE_SEARCHES, found.point)
    converged = found.point.status == Status.CONVERGED
    polished = certify.polish(objective, found.point.position[converged], 1, config)
    landscape = certify.record(landscape, Search.POLISHED_SADDLES, polished.point)
    good = polished.point.status == Status.CONVERGED
    return certify.take(polished, good), landscape


def _search(objective: Objective, starts: np.ndarray, vectors: np.ndarray, config: ExploreConfig) -> Any:
    run = functools.partial(following.search, objective, config=config.following, num_lanes=config.num_lanes)
    return padded(run, config.num_searches, starts, vectors)


def _relax(objective: Objective, starts: np.ndarray, ends: np.ndarray, config: ExploreConfig) -> Any:
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


def _between(
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
    bands, landscape = _insert_bands(
        objective, landscape, np.array(tried, int), np.array(starts), np.array(ends), config
    )
    heights = np.where(bands.maxima, bands.energies, -np.inf)
    order = np.argsort(-heights, axis=1, kind="stable")[:, :_MAXIMA_PER_BAND].T
    band = np.broadcast_to(np.arange(len(starts)), order.shape)
    chosen = np.isfinite(heights[band, order])
    band, image = band[chosen][: config.num_searches], order[chosen][: config.num_searches]
    return landscape, bands.images[band, image], bands.tangents[band, image]


def _insert_bands(
    objective: Objective,
    landscape: Landscape,
    known: Int[np.ndarray, "n 2"],
    starts: np.ndarray,
    ends: np.ndarray,
    config: ExploreConfig,
) -> tuple[Any, Landscape]:
    """Relax bands between minima, NumPy out, and enter the bounds that they give."""
    bands, corners, (energies, slack) = _relax(objective, starts, ends, config)
    # An energy costs less than half of a gradient.
    spent = int(bands.num_evaluations.sum()) + len(starts) * paths.num_energies(corners.shape[1]) // 2
    landscape = landscape._replace(ledger=ledger.spend(landscape.ledger, spent))
    energies = np.maximum(energies, landscape.minima.energies[known].max(axis=1))  # which rounding may lift above
    return bands, database.insert_paths(landscape, Paths(known, energies, slack, corners))
