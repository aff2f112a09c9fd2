"""The host loop that fills a database: hop, choose, connect, insert, hand over for a checkpoint, again.

A round is a pure function of the exploration so far: its randomness is the key folded with the number of the round, so
that an exploration stopped anywhere and resumed from its last round ends at the same landscape.
"""

import concurrent.futures
import time
import warnings
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxscape.cores import for_thread, num_cores, on_device, one_blas_thread
from jaxscape.landscape import certify, database, doubts, saddles
from jaxscape.landscape.config import ExploreConfig
from jaxscape.landscape.connect import choose_gaps, measured
from jaxscape.landscape.database import Landscape
from jaxscape.landscape.exploration import Exploration, with_landscape
from jaxscape.landscape.hop import hop, joined
from jaxscape.landscape.stopping import DEFAULT_BUDGET, Budget, finished, hops_are_due, is_joined, is_saturated
from jaxscape.objective import Objective, check_points, values
from jaxscape.search import basin_hopping, elastic_band
from jaxscape.search.eigenvector_following import TransitionState
from jaxscape.search.points import StationaryPoint
from jaxscape.symmetry import Symmetry, generators

PHASES = ("hopping between minima", "searching transition states", "descending from transition states")
_BOUND = elastic_band.BandConfig(max_step=0.3, max_steps=100, num_images=48)  # a band that bounds a barrier
_BOUNDS_AT_ONCE, _BOUNDS_COST = 4, 0.5  # in one program, so that an interruption is soon heard; of all gradients
_PASSES = 5  # of bands between what is left in parts: a new path may open the way to the next part
_SAME_LOSS = 1e-9  # relative: two copies of a point, but for rounding


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
    walkers = joined([basin_hopping.init(jax.random.fold_in(key, 0), starts, config.hopping)])
    exploration = Exploration(database.empty(symmetry), walkers, round=1, idle=0)
    return exploration if landscape is None else with_landscape(exploration, landscape)


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


@one_blas_thread()
def advance(
    objective: Objective,
    exploration: Exploration,
    key: PRNGKeyArray,
    config: ExploreConfig = ExploreConfig(),
    *,
    on_phase: Callable[[str], None] = lambda phase: None,
) -> Exploration:
    """Do one round: hop, where hops have had less than their share (`stopping.hops_are_due`), then search transition
    states and descend from them.

    Where searches find nothing new it hops alone. `on_phase` is told which of `PHASES` comes next, for progress.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.fold_in(key, exploration.round))))
    now, num_hops, before = exploration, 0, _num_points(exploration.landscape)
    while (has_none := len(now.landscape.minima.energies) == 0) or hops_are_due(now, config):
        on_phase(PHASES[0])
        landscape, walkers, ended = hop(objective, now.landscape, now.walkers, config)
        num_hops += ended
        last, spent = now, landscape.ledger.evaluations - now.landscape.ledger.evaluations
        now = now._replace(landscape=landscape, walkers=walkers, hopped=now.hopped + spent)
        if has_none or (is_joined(last) and not is_saturated(last, config)):
            break
    landscape, num_searches = now.landscape, num_hops
    distances = measured(landscape, exploration.distances)
    # As long as there is no minimum the hops are the searches, and the first quenches may still be under way.
    if len(landscape.minima.energies) and not (num_hops and is_saturated(now, config)):
        on_phase(PHASES[1])
        step_sizes = np.asarray(now.walkers.step_size)
        found, landscape = saddles.search(objective, landscape, distances, step_sizes, rng, config)
        on_phase(PHASES[2])
        landscape = certify.insert_saddles(objective, landscape, found, config)
        num_searches = config.num_searches
    idle = exploration.idle + num_searches if _num_points(landscape) == before else 0
    return now._replace(landscape=landscape, round=exploration.round + 1, idle=idle, distances=distances)


@one_blas_thread()
def bound_barriers(
    objective: Objective, exploration: Exploration, config: ExploreConfig = ExploreConfig()
) -> Exploration:
    """Join the parts that are left at the end of an exploration by paths, which cost a band each and no search.

    Bands that serve a search are short of images and steps; those that bound a barrier, also where all parts are joined
    by higher transition states, are relaxed once more, with enough of both: beside strings of 64 images they lay 0.04
    too high on one table, and then 1e-6 (medians; `benchmarks/depth.py`).
    """
    landscape = exploration.landscape
    if not database.components(landscape).any() and len(landscape.paths.energies) == 0:
        return exploration
    distances = measured(landscape, exploration.distances)
    for _ in range(_PASSES):
        if not database.components(landscape, with_paths=True).any():  # nor is there anything to join, if it is empty
            break
        gaps = choose_gaps(landscape, distances)
        landscape, _, _ = saddles.between(objective, landscape, gaps, config)
    most = int(_BOUNDS_COST * landscape.ledger.evaluations / (_BOUND.num_images * int(_BOUND.max_steps)))
    lowest = np.argsort(landscape.paths.energies, kind="stable")[: max(most, _BOUNDS_AT_ONCE)]
    known, images = landscape.paths.minima[lowest], landscape.paths.images[lowest]
    settings = replace(config, band=_BOUND, num_searches=_BOUNDS_AT_ONCE)
    _, landscape = saddles.insert_bands(objective, landscape, known, images[:, 0], images[:, -1], settings)
    return exploration._replace(landscape=landscape, distances=distances)


def compile_ahead(objective: Objective, exploration: Exploration, config: ExploreConfig = ExploreConfig()) -> None:
    """Compile all programs of an exploration at once, on all cores, where each would wait for the last.

    Every program is run with nothing to do. What is compiled already costs milliseconds.
    """
    rows, one = np.empty((0, objective.dim)), np.empty(0)
    point = StationaryPoint(rows, one, one, one.astype(int), one.astype(int))  # type: ignore[arg-type]
    states = TransitionState(point, one, rows)  # type: ignore[arg-type]
    nothing = database.empty(exploration.landscape.symmetry)
    jobs = [  # the one that takes longest first
        lambda: saddles.follow(objective, rows, rows, config),
        lambda: certify.push_off(objective, states, config),
        lambda: hop(objective, nothing, exploration.walkers, config, num_steps=0),
        lambda: saddles.relax(objective, rows, rows, config),
        lambda: certify.polish(objective, rows, 0, config),
        lambda: certify.descend(objective, rows, config),
    ]
    with concurrent.futures.ThreadPoolExecutor(num_cores()) as pool:
        for job in [pool.submit(for_thread(job)) for job in jobs]:
            job.result()


def _num_points(landscape: Landscape) -> tuple[int, int]:
    return len(landscape.minima.energies), len(landscape.transition_states.energies)
