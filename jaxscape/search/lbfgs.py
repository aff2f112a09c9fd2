"""L-BFGS as one fixed step: one value and gradient, no line search.

After the minimiser of OPTIM and GMIN (Wales, *Energy Landscapes*, 2003, section 6.1; Liu & Nocedal 1989): the step is
capped in norm, a step that raises the energy is shortened and tried again, which makes a rejected trial one more step
of the lane instead of an inner loop.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxscape.search.lanes import Kernel, where
from jaxscape.search.points import StationaryPoint, Status, reachable, rms

ValueAndGrad = Callable[[Float[Array, " P"]], tuple[Float[Array, ""], Float[Array, " P"]]]

_FORGET_AFTER = 5  # rejections in a row before the history is dropped
_STALL_AFTER = 20  # rejections in a row before the lane gives up
_TELLING = 1e-6  # shorter trials tell nothing of curvature: across a kink the gradient changes all the same
_SHORT = 1e-3  # of the size of the position: steps so short that the gradients at both ends tell the change of energy


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LbfgsConfig:
    """Settings of the minimiser.

    `tolerance`: RMS gradient to stop at; by default the next step decides, which must be shorter than 1e-8 (float32:
    1e-4) of the size of the position, twice in a row, so that neither the scale of the loss nor a constant added to it
    matters. `max_step`: longest step, in units of the parameters; `max_evaluations`: gradients per job; `history`:
    pairs kept, at most one per parameter (static).
    """

    tolerance: Float[Array, ""] | float | None = None
    max_step: Float[Array, ""] | float = 1.0
    max_evaluations: Int[Array, ""] | int = 5000
    history: int = field(default=20, metadata={"static": True})


class History(NamedTuple):
    """The last `m` curvature pairs in a ring, and what of them a direction needs.

    `displacements (m, P)`, of length one, and `changes (m, P)` of the gradient along them; `overlaps (m,)`: their inner
    products; `inverse (m, m)`: of the inner products of each displacement with the changes that are not older, from the
    oldest to the newest an upper triangle; `scale ()`: of the inverse Hessian, 0 where it is not known; `slot ()`: for
    the next pair. Of an empty slot overlap, row and column are zero, so that its pair does not matter.
    """

    displacements: Float[Array, "m P"]
    changes: Float[Array, "m P"]
    overlaps: Float[Array, " m"]
    inverse: Float[Array, "m m"]
    scale: Float[Array, ""]
    slot: Int[Array, ""]


class LbfgsState(NamedTuple):
    """One lane of minimisation.

    `position (P,)`, `energy ()`, `gradient (P,)`: the last accepted point; `step (P,)`: the trial to evaluate next,
    relative to it; `history`; `num_near ()`: how often in a row the minimum was near; `num_rejections ()`: in a row;
    `num_evaluations ()`; `status ()`.
    """

    position: Float[Array, " P"]
    energy: Float[Array, ""]
    gradient: Float[Array, " P"]
    step: Float[Array, " P"]
    history: History
    num_near: Int[Array, ""]
    num_rejections: Int[Array, ""]
    num_evaluations: Int[Array, ""]
    status: Int[Array, ""]


def empty_history(x: Float[Array, " P"], size: int) -> History:
    """Return a history of `size` empty slots for vectors like `x`, or of as many as `x` has coordinates."""
    size = min(size, x.size)
    pairs, square = jnp.zeros((size, x.size), x.dtype), jnp.zeros((size, size), x.dtype)
    return History(pairs, pairs, pairs[:, 0], square, jnp.zeros((), x.dtype), jnp.asarray(0))


def remember(
    history: History,
    displacement: Float[Array, " P"],
    change: Float[Array, " P"],
    wanted: Bool[Array, ""] | bool = True,
) -> History:
    """Put a curvature pair in place of the oldest, where it is wanted.

    Along a direction of negative curvature the change of the gradient is reversed, so that the approximate Hessian
    stays positive definite with the size of the curvature right: the step goes downhill and stays long.
    """
    length = jnp.linalg.norm(displacement)
    inverse_length = 1 / jnp.where(length > 0, length, 1)
    displacement, change = inverse_length * displacement, inverse_length * change
    overlap, square = jnp.vdot(displacement, change), jnp.vdot(change, change)
    change = jnp.where(overlap < 0, -change, change)
    overlap = jnp.abs(overlap)
    ok = wanted & (overlap > jnp.finfo(change.dtype).eps * jnp.sqrt(square))
    size = history.overlaps.size
    here = ok & (jnp.arange(size) == history.slot)
    # Without its oldest row and column a triangle keeps the rest of its inverse; a new last column adds one. The pairs
    # are passed through once, so that they can be written in place: that is most of what a step costs.
    inverse_overlap = 1 / jnp.where(ok, overlap, 1)
    products = jnp.where(here, 0, history.displacements @ change)
    column = jnp.where(here, inverse_overlap, -inverse_overlap * (history.inverse @ products))
    return History(
        displacements=jnp.where(here[:, None], displacement, history.displacements),
        changes=jnp.where(here[:, None], change, history.changes),
        overlaps=jnp.where(here, overlap, history.overlaps),
        inverse=jnp.where(here, column[:, None], jnp.where(here[:, None], 0, history.inverse)),
        scale=jnp.where(ok, jnp.where(square > 0, overlap / jnp.where(square > 0, square, 1), 0), history.scale),
        slot=jnp.where(ok, (history.slot + 1) % size, history.slot),
    )


def forget(history: History, wanted: Bool[Array, ""]) -> History:
    """Empty the history, where it is wanted."""
    names = ("overlaps", "inverse", "scale")
    return history._replace(**{name: jnp.where(wanted, 0, getattr(history, name)) for name in names})


def direction(history: History, gradient: Float[Array, " P"]) -> Float[Array, " P"]:
    """Return minus the approximate inverse Hessian times the gradient.

    It is that of the two-loop recursion in the compact form of Byrd, Nocedal & Schnabel, Math. Program. 63, 129 (1994),
    equation 3.1: a few products with matrices, where the recursion takes as many small steps as there are pairs. With
    an empty history: steepest descent of length |g| / 10 within [1e-3, 1e-1], as nothing is known of the scale.
    """
    s, y, overlaps, inverse, scale, _ = history
    size = jnp.linalg.norm(gradient)
    unknown_scale = 0.1 * jnp.clip(size, 0.01, 1) / jnp.where(size > 0, size, 1)
    scale = jnp.where(scale > 0, scale, unknown_scale)
    alphas = inverse @ (s @ gradient)
    q = scale * (gradient - alphas @ y)
    return -(q + ((overlaps * alphas - y @ q) @ inverse) @ s)


def cap(step: Float[Array, " P"], max_norm: Float[Array, ""] | float) -> Float[Array, " P"]:
    """Shorten a step to at most `max_norm`."""
    norm = jnp.linalg.norm(step)
    return step * jnp.where(norm > max_norm, max_norm / jnp.where(norm > 0, norm, 1), 1)


def init(x: Float[Array, " P"], config: LbfgsConfig) -> LbfgsState:
    """Set out from `x`; the first step evaluates it, so that starting a lane costs nothing."""
    return LbfgsState(
        position=x,
        energy=jnp.asarray(jnp.inf, x.dtype),
        gradient=jnp.zeros_like(x),
        step=jnp.zeros_like(x),
        history=empty_history(x, config.history),
        num_near=jnp.asarray(0),
        num_rejections=jnp.asarray(0),
        num_evaluations=jnp.asarray(0),
        status=jnp.asarray(Status.RUNNING.value),
    )


def step(value_and_grad: ValueAndGrad, state: LbfgsState, config: LbfgsConfig) -> LbfgsState:
    """Evaluate the trial point, accept or reject it, and set the next trial."""
    energy, gradient = value_and_grad(state.position + state.step)
    finite = jnp.isfinite(energy) & jnp.all(jnp.isfinite(gradient))
    # Near a minimum the energy is flat to the last bits: a rise that small is noise, the gradients still tell the way
    # (by the trapezoid rule; after the approximate Wolfe condition of Hager & Zhang, SIAM J. Optim. 16, 170, 2005).
    noise = 64 * jnp.finfo(energy.dtype).eps * jnp.abs(state.energy)
    length, size = jnp.linalg.norm(state.step), 1 + jnp.linalg.norm(state.position)
    downhill = jnp.vdot(state.gradient + gradient, state.step) < 0
    accepted = finite & ((energy <= state.energy + noise) | ((length <= _SHORT * size) & downhill))
    safe_gradient = jnp.where(accepted, gradient, state.gradient)
    moved = jnp.any(state.position + state.step != state.position)
    stuck = ~moved & (state.num_evaluations > 0)
    num_rejections = jnp.where(accepted & ~stuck, 0, state.num_rejections + 1)
    fresh = stuck | (num_rejections == _FORGET_AFTER)
    history = forget(remember(state.history, state.step, safe_gradient - state.gradient, accepted), fresh)
    ahead = direction(history, safe_gradient)
    next_step = cap(ahead, config.max_step)
    probing = finite & ~accepted & (length <= _SHORT * size) & (length >= _TELLING * size)
    num_near = _num_near(state, gradient, safe_gradient, ahead, accepted & moved, probing)
    # A rejected step is cut to the minimum of the parabola through what is known, within [1/10, 1/2].
    slope = jnp.vdot(state.gradient, state.step)
    excess = energy - state.energy - slope
    curved = finite & (excess > 0)
    ratio = jnp.where(curved, -slope / (2 * jnp.where(curved, excess, 1)), 0.1)
    shortened = jnp.clip(ratio, 0.1, 0.5) * state.step
    retry = ~accepted & ~fresh
    state = LbfgsState(
        position=jnp.where(accepted, state.position + state.step, state.position),
        energy=jnp.where(accepted, energy, state.energy),
        gradient=safe_gradient,
        step=jnp.where(retry, shortened, next_step),
        history=history,
        num_near=num_near,
        num_rejections=num_rejections,
        num_evaluations=state.num_evaluations + 1,
        status=state.status,
    )
    return state._replace(status=_status(state, finite, stuck, config))


def _num_near(
    state: LbfgsState, trial: Array, gradient: Array, ahead: Array, accepted: Array, probing: Array
) -> Int[Array, ""]:
    """Count how often in a row the minimum was near: as far as steps show curvature, within 1e-8 (float32: 1e-4).

    After an accepted step, what counts is the length of the next, and that the gradient is less than the step changed
    it: off a wall, or where a soft direction is left, it is not, and the next step shows how far the minimum is. The
    first step knows one direction alone and does not count. A short trial that was rejected probes the point it set out
    from.
    """
    limit = 10 * reachable(trial.dtype) * (1 + rms(state.position))
    change, size = rms(trial - state.gradient), rms(gradient)
    known = jnp.any(state.history.overlaps > 0)
    beyond = size * rms(state.step) <= limit * change  # the step, times what it leaves of the gradient over its change
    near = (size <= change) & jnp.where(accepted, known & (rms(ahead) <= limit), beyond)
    return jnp.where(accepted | probing, jnp.where(near, state.num_near + 1, 0), state.num_near)


def _status(state: LbfgsState, finite: Array, stuck: Array, config: LbfgsConfig) -> Int[Array, ""]:
    if config.tolerance is None:
        # Where a step no longer moves the position, once is enough.
        converged = (state.num_near >= jnp.where(stuck, 1, 2)) | jnp.all(state.gradient == 0)
    else:
        converged = rms(state.gradient) <= config.tolerance
    stalled = state.num_rejections >= _STALL_AFTER
    stranded = ~finite & (stalled | (state.num_evaluations == 1))
    conditions = [stranded, converged, stalled, state.num_evaluations >= config.max_evaluations]
    values = [Status.NONFINITE, Status.CONVERGED, Status.STALLED, Status.MAX_EVALUATIONS]
    return jnp.select(conditions, [jnp.asarray(value.value) for value in values], Status.RUNNING.value)


def kernel(value_and_grad: ValueAndGrad, config: LbfgsConfig) -> Kernel:
    """Return the minimiser as a kernel for `lanes.run`: jobs are starts `(P,)`, results are `StationaryPoint`s."""
    return Kernel(
        init=lambda x: init(x, config),
        step=lambda state: step(value_and_grad, state, config),
        done=lambda state: state.status != Status.RUNNING,
        result=result,
        keep=keep,
    )


def keep(done: Bool[Array, ""], state: Any, new: Any) -> Any:
    """Return the state of a lane after a step: where it is done the old one, but for the history, which no result has.

    To choose between two histories costs as much as the step.
    """
    return where(done, state._replace(history=None), new._replace(history=None))._replace(history=new.history)


def result(state: LbfgsState) -> StationaryPoint:
    """Return where a lane stands."""
    return StationaryPoint(state.position, state.energy, rms(state.gradient), state.num_evaluations, state.status)
