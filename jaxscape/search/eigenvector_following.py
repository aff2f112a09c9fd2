"""Hybrid eigenvector-following to index-1 saddles, and the push-off from a saddle to its two minima.

Munro & Wales, Phys. Rev. B 59, 3969 (1999): climb along the lowest Hessian eigenvector, which needs no Hessian but only
products with it, and minimise by L-BFGS in the space orthogonal to it. One step of a lane is one gradient and a fixed
number of Hessian-vector products.
"""

import functools
from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxscape.cores import on_device
from jaxscape.objective import Objective, check_points, linear_hvp, project, value, value_and_grad, zero_modes
from jaxscape.programs import program
from jaxscape.search import eigenpair, lanes, lbfgs
from jaxscape.search.lbfgs import History, LbfgsConfig
from jaxscape.search.points import StationaryPoint, Status, rms
from jaxscape.search.quench import quench
from jaxscape.search.steepest_descent import PathConfig, descend

_HISTORY = 8
# The quadratic drop is lost in rounding if the push is too small, in higher orders if it is too large.
_FACTORS = (1, 1 / 2, 2, 1 / 4, 4, 1 / 8, 8, 1 / 16)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FollowingConfig:
    """Settings of the saddle search.

    `tolerance`: RMS gradient to stop at, relative to the curvature (finish with `newton.polish`); `max_uphill`: longest
    step along the eigenvector; `max_step`: longest step orthogonal to it; `max_steps`: steps per search; `patience`:
    steps in a row with no negative curvature before giving up; `num_lanczos` (static): Hessian-vector products per
    step.
    """

    tolerance: Float[Array, ""] | float = 1e-5
    max_uphill: Float[Array, ""] | float = 0.1
    max_step: Float[Array, ""] | float = 0.4
    max_steps: Int[Array, ""] | int = 800
    patience: Int[Array, ""] | int = 30
    num_lanczos: int = field(default=4, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PushOffConfig:
    """Settings of the push-off.

    `displacement`: along the eigenvector; `descent`: the minimiser, whose short steps only go down, so that the way
    stays below the saddle; `path`: follow the path of steepest descent first, None for not. Which minimum that path
    leads to matters for rates and pathways, and costs ten times as much; that two minima are joined below the energy
    of the saddle, which is all a disconnectivity graph says, any way down proves.
    """

    displacement: Float[Array, ""] | float = 1e-3
    descent: LbfgsConfig = LbfgsConfig(max_step=0.05)  # noqa: RUF009  (frozen)
    path: PathConfig | None = None


class TransitionState(NamedTuple):
    """A saddle: `point`, its lowest Hessian `eigenvalue ()` and unit `eigenvector (P,)`."""

    point: StationaryPoint
    eigenvalue: Float[Array, "*batch"]
    eigenvector: Float[Array, "*batch P"]


class Connection(NamedTuple):
    """A transition state and where the two descents from it end: `transition`, `minus`, `plus`."""

    transition: TransitionState
    minus: StationaryPoint
    plus: StationaryPoint


class FollowingState(NamedTuple):
    """One lane of a saddle search.

    `position (P,)`, `energy ()`, `gradient (P,)`; `curvature ()` and `vector (P,)`: the lowest eigenpair there;
    `step (P,)`: the step to take next; `history`: curvature pairs of the orthogonal space; `num_positive ()`: steps in
    a row without negative curvature; `num_steps ()`; `status ()`.
    """

    position: Float[Array, " P"]
    energy: Float[Array, ""]
    gradient: Float[Array, " P"]
    curvature: Float[Array, ""]
    vector: Float[Array, " P"]
    step: Float[Array, " P"]
    history: History
    num_positive: Int[Array, ""]
    num_steps: Int[Array, ""]
    status: Int[Array, ""]


def _reject(vector: Array, normal: Array) -> Array:
    """Return the part of `vector` orthogonal to the unit vector `normal`."""
    return vector - jnp.vdot(normal, vector) * normal


def _uphill(slope: Array, curvature: Array, max_uphill: Array | float) -> Array:
    """Return the step along the lowest eigenvector (Wales 1994): Newton-like near the saddle, full length far away."""
    sign = jnp.where(slope < 0, -1, 1)
    negative = curvature < 0
    safe = jnp.where(negative, curvature, -1)
    newton = 2 * slope / (jnp.abs(safe) * (1 + jnp.sqrt(1 + (2 * slope / safe) ** 2)))
    return jnp.where(negative, jnp.clip(newton, -max_uphill, max_uphill), sign * max_uphill)


def init(start: Float[Array, " P"], vector: Float[Array, " P"]) -> FollowingState:
    """Set out from `start` with a guess of the eigenvector; the first step evaluates it."""
    zero = jnp.zeros((), start.dtype)
    return FollowingState(
        position=start,
        energy=zero,
        gradient=jnp.zeros_like(start),
        curvature=zero,
        vector=vector,
        step=jnp.zeros_like(start),
        history=lbfgs.empty_history(start, _HISTORY),
        num_positive=jnp.asarray(0),
        num_steps=jnp.asarray(0),
        status=jnp.asarray(Status.RUNNING.value),
    )


def step(objective: Objective, state: FollowingState, config: FollowingConfig) -> FollowingState:
    """Take the step, follow the eigenvector to the new position, and choose the next step."""
    position = state.position + state.step
    energy, gradient = value_and_grad(objective, position)
    product, known = linear_hvp(objective, position), zero_modes(objective, position)
    curvature, vector, _, scale = eigenpair.lowest(
        lambda v: project(product(v), known), project(state.vector, known), num_steps=config.num_lanczos
    )
    finite = jnp.isfinite(energy) & jnp.all(jnp.isfinite(gradient)) & jnp.all(jnp.isfinite(vector))
    across = _reject(gradient, vector)
    moved, change = _reject(state.step, vector), across - _reject(state.gradient, vector)
    history = lbfgs.remember(state.history, moved, change, finite)
    sideways = lbfgs.cap(_reject(lbfgs.direction(history, across), vector), config.max_step)
    uphill = _uphill(jnp.vdot(gradient, vector), curvature, config.max_uphill) * vector
    num_steps = state.num_steps + 1
    num_positive = jnp.where(curvature < 0, 0, state.num_positive + 1)
    conditions = [
        ~finite,
        (rms(gradient) <= config.tolerance * scale) & (curvature < 0),
        num_positive >= config.patience,
        num_steps >= config.max_steps,
    ]
    values = [Status.NONFINITE, Status.CONVERGED, Status.LOST_NEGATIVE_CURVATURE, Status.MAX_EVALUATIONS]
    return FollowingState(
        position=position,
        energy=energy,
        gradient=gradient,
        curvature=curvature,
        vector=vector,
        step=sideways + uphill,
        history=history,
        num_positive=num_positive,
        num_steps=num_steps,
        status=jnp.select(conditions, [jnp.asarray(value.value) for value in values], Status.RUNNING.value),
    )


def kernel(objective: Objective, config: FollowingConfig) -> lanes.Kernel:
    """Return the saddle search as a kernel for `lanes.run`: jobs are `(start (P,), vector (P,))`."""

    def result(state: FollowingState) -> TransitionState:
        evaluations = state.num_steps * (1 + config.num_lanczos)
        point = StationaryPoint(state.position, state.energy, rms(state.gradient), evaluations, state.status)
        return TransitionState(point, state.curvature, state.vector)

    return lanes.Kernel(
        init=lambda job: init(*job),
        step=lambda state: step(objective, state, config),
        done=lambda state: state.status != Status.RUNNING,
        result=result,
        keep=lbfgs.keep,
    )


@program(static_argnames=("num_lanes",))
def search(
    objective: Objective,
    starts: Float[Array, "n P"],
    vectors: Float[Array, "n P"],
    config: FollowingConfig = FollowingConfig(),
    *,
    num_lanes: int = 32,
    count: Int[Array, ""] | int | None = None,
) -> TransitionState:
    """Search for index-1 saddles from many starts at once.

    Args:
        objective: the landscape.
        starts: one start per row; from a minimum itself the search climbs the wall of the bowl, so start outside.
        vectors: a first guess of the direction to climb, one per row, not zero.
        config: settings.
        num_lanes: searches in work at once; the result does not depend on it.
        count: run only this many of the rows, from the first.

    Returns:
        One transition state per start, in the same order. CONVERGED says that the gradient is small and the curvature
        along `eigenvector` negative; `newton.polish(..., index=1)` finishes the point and certifies its index.

    Raises:
        ValueError: if the shapes of `starts` and `vectors` differ or do not fit the objective.
    """
    check_points(objective.dim, starts=starts, vectors=vectors)
    if starts.shape != vectors.shape:
        raise ValueError(f"starts and vectors must be as many, got {len(starts)} and {len(vectors)}")
    return lanes.run(kernel(objective, config), (starts, vectors), num_lanes=num_lanes, count=count)


def push_off(
    objective: Objective,
    transition_states: TransitionState,
    config: PushOffConfig = PushOffConfig(),
    *,
    num_lanes: int = 32,
    count: Int[Array, ""] | int | None = None,
) -> Connection:
    """Descend from each transition state on both sides, never rising above it.

    Args:
        objective: the landscape.
        transition_states: polished saddles, a batch of `n`.
        config: settings; with a `path`, the descent is the steepest.
        num_lanes: descents in work at once.
        count: take only this many of the transition states, from the first.

    Returns:
        For each the two end points. The status of an end is PUSHOFF_FAILED where no displacement lowers the energy, or
        the descent does not end below the transition state. A path that takes more steps than `config.path` allows is
        finished by the minimiser.
    """
    starts = _displaced(objective, transition_states, config.displacement)
    twice = None if count is None else 2 * count
    spent = on_device(np.full(len(starts), len(_FACTORS)))
    if config.path is not None:
        paths = descend(objective, starts, config.path, num_lanes=num_lanes, count=twice)
        starts, spent = paths.position, spent + paths.num_evaluations
    ends = quench(objective, starts, config.descent, num_lanes=num_lanes, count=twice)
    return _connections(transition_states, ends, spent)


@program
def _connections(transition_states: TransitionState, ends: StationaryPoint, spent: Int[Array, " twice"]) -> Connection:
    converged = (ends.status == Status.CONVERGED) & (ends.energy < jnp.repeat(transition_states.point.energy, 2))
    status = jnp.where(converged, Status.CONVERGED.value, Status.PUSHOFF_FAILED.value)
    ends = ends._replace(num_evaluations=ends.num_evaluations + spent, status=status)
    minus, plus = (jax.tree.map(lambda leaf: leaf[side::2], ends) for side in (0, 1))  # noqa: B023
    return Connection(transition_states, minus, plus)


@program
def _displaced(
    objective: Objective, transition_states: TransitionState, displacement: Float[Array, ""] | float
) -> Float[Array, "twice P"]:
    """Step off each saddle to both sides, in turn; NaN where no step lowers the energy."""
    sizes = displacement * jnp.array(_FACTORS, transition_states.eigenvalue.dtype)

    def displace(position: Array, vector: Array, energy: Array) -> Array:
        trials = position + sizes[:, None] * vector
        lower = jax.vmap(functools.partial(value, objective))(trials) < energy
        return jnp.where(jnp.any(lower), trials[jnp.argmax(lower)], jnp.nan)

    def both(state: TransitionState) -> Array:
        vectors = jnp.stack([-state.eigenvector, state.eigenvector])
        return jax.vmap(displace, in_axes=(None, 0, None))(state.point.position, vectors, state.point.energy)

    return jax.vmap(both)(transition_states).reshape(-1, objective.dim)
