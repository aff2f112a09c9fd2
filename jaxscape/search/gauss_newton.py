"""Damped Newton steps for objectives of rows, with the Gauss-Newton matrix where the Hessian is not positive definite.

Levenberg (1944) and Marquardt (1963), with Nielsen's update of the damping (Madsen, Nielsen & Tingleff, *Methods for
Non-Linear Least Squares Problems*, DTU, 2004, algorithm 3.16). With the Gauss-Newton matrix alone it crawls where the
model itself is curved, for hundreds of steps on a small network; secant estimates of the rest (NL2SOL) take twice the
steps of the Hessian, and now and then crawl too.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxscape.objective import Objective, gauss_newton, hessian, value_and_grad
from jaxscape.search.factor import cholesky
from jaxscape.search.lanes import Kernel
from jaxscape.search.lbfgs import cap
from jaxscape.search.points import StationaryPoint, Status, reachable, rms

_START = 1e-3  # damping to begin with, relative to the largest curvature of the rows
_LESS, _MORE = 1 / 3, 4.0  # factors of the damping after a good step and a bad one
_STALL_AFTER = 20  # rejections in a row before the lane gives up
_SHORT = 1e-3  # of the size of the position: the gradients at both ends tell the change of energy better than energies


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class GaussNewtonConfig:
    """Settings of the minimiser.

    It stops when the next step, were it not damped, is shorter than 1e-8 (float32: 1e-4) of the size of the position,
    twice in a row. `max_step`: longest step, in units of the vector (`whiten` it, and one unit is what the penalty of
    a weight allows); `max_steps`: per job.
    """

    max_step: Float[Array, ""] | float = 10.0
    max_steps: Int[Array, ""] | int = 500


class GaussNewtonState(NamedTuple):
    """One lane of minimisation.

    `position (P,)`, `energy ()`, `gradient (P,)`, `hessian (P, P)`, `safe (P, P)`, the Gauss-Newton matrix: the last
    accepted point; `step (P,)`: the trial to evaluate next, relative to it; `promised ()`: by how much it would lower
    the energy of the quadratic model; `damping ()`, in units of the penalties; `rise ()`: its factor if the trial is
    rejected; `num_near ()`: how often in a row the minimum was near; `num_rejections ()`: in a row; `num_steps ()`;
    `status ()`.
    """

    position: Float[Array, " P"]
    energy: Float[Array, ""]
    gradient: Float[Array, " P"]
    hessian: Float[Array, "P P"]
    safe: Float[Array, "P P"]
    step: Float[Array, " P"]
    promised: Float[Array, ""]
    damping: Float[Array, ""]
    rise: Float[Array, ""]
    num_near: Int[Array, ""]
    num_rejections: Int[Array, ""]
    num_steps: Int[Array, ""]
    status: Int[Array, ""]


def init(x: Float[Array, " P"]) -> GaussNewtonState:
    """Set out from `x`; the first step evaluates it, so that starting a lane costs nothing."""
    nothing, none, zero = jnp.zeros((x.size, x.size), x.dtype), jnp.asarray(0), jnp.zeros((), x.dtype)
    return GaussNewtonState(
        position=x,
        energy=jnp.asarray(jnp.inf, x.dtype),
        gradient=jnp.zeros_like(x),
        hessian=nothing,
        safe=nothing,
        step=jnp.zeros_like(x),
        promised=zero,
        damping=zero,
        rise=zero + _MORE,
        num_near=none,
        num_rejections=none,
        num_steps=none,
        status=jnp.asarray(Status.RUNNING.value),
    )


def step(objective: Objective, state: GaussNewtonState, config: GaussNewtonConfig) -> GaussNewtonState:
    """Evaluate the trial point, accept or reject it, and set the next trial."""
    trial = state.position + state.step
    energy, gradient = value_and_grad(objective, trial)
    full, safe = hessian(objective, trial), gauss_newton(objective, trial)
    first = state.num_steps == 0
    finite = jnp.isfinite(energy) & jnp.all(jnp.isfinite(gradient)) & jnp.all(jnp.isfinite(safe))
    # Near a minimum the energy is flat to the last bits, the gradients still tell (trapezoid rule).
    short = jnp.linalg.norm(state.step) <= _SHORT * (1 + jnp.linalg.norm(state.position))
    fall = jnp.where(short, -0.5 * jnp.vdot(state.gradient + gradient, state.step), state.energy - energy)
    moved = jnp.any(trial != state.position)
    accepted = finite & (first | (moved & (fall > 0)))
    damping, rise = _damping(objective, state, safe, fall, accepted)
    state = state._replace(
        position=jnp.where(accepted, trial, state.position),
        energy=jnp.where(accepted, energy, state.energy),
        gradient=jnp.where(accepted, gradient, state.gradient),
        hessian=jnp.where(accepted, full, state.hessian),
        safe=jnp.where(accepted, safe, state.safe),
        damping=damping,
        rise=rise,
        num_rejections=jnp.where(accepted, 0, state.num_rejections + 1),
        num_steps=state.num_steps + 1,
    )
    wanted, curvature = _wanted(objective, state)
    ahead = cap(wanted, config.max_step)
    # Undamped, the step would be at most this much longer, where the curvature is at least the penalty.
    near = (1 + damping) * rms(wanted) <= 10 * reachable(trial.dtype) * (1 + rms(state.position))
    state = state._replace(
        step=ahead,
        promised=-jnp.vdot(ahead, state.gradient + 0.5 * curvature @ ahead),
        num_near=jnp.where((accepted | ~moved) & ~first, jnp.where(near, state.num_near + 1, 0), state.num_near),
    )
    return state._replace(status=_status(state, finite, config))


def _unit(objective: Objective) -> Float[Array, " P"]:
    """Return the penalties along the vector, and for weights without one what a whitened weight has."""
    precision, num_rows = objective.data.precision, len(objective.data.weights)
    scaled = precision if objective.scale is None else precision * objective.scale**2
    return jnp.where(scaled > 0, scaled, 1 / num_rows)


def _damping(
    objective: Objective, state: GaussNewtonState, safe: Array, fall: Array, accepted: Bool[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the next damping and its factor if the next trial is rejected."""
    # In units of the penalties, so that neither the scale of the loss nor that of the coordinates matters.
    largest = jnp.max(jnp.diag(safe) / _unit(objective))
    ok = accepted & (state.promised > 0)
    gain = jnp.where(ok, fall, 0) / jnp.where(ok, state.promised, 1)
    factor = jnp.where(ok, jnp.clip(1 - (2 * gain - 1) ** 3, _LESS, _MORE), 1)
    damping = jnp.where(accepted, state.damping * factor, state.damping * state.rise)
    rise = jnp.where(accepted, _MORE, _MORE * state.rise)
    # From beyond these it could not come back in time.
    damping = jnp.clip(damping, jnp.finfo(damping.dtype).eps, jnp.finfo(damping.dtype).eps ** -2.0)
    return jnp.where(state.num_steps == 0, _START * jnp.maximum(largest, 1), damping), rise


def _wanted(objective: Objective, state: GaussNewtonState) -> tuple[Float[Array, " P"], Float[Array, "P P"]]:
    """Return the minimum of the damped quadratic model, and its curvature."""
    damped = jnp.diag(state.damping * _unit(objective))
    definite = jnp.all(jnp.isfinite(cholesky(state.hessian + damped)))
    curvature = jnp.where(definite, state.hessian, state.safe)
    factor = cholesky(curvature + damped)
    return -jax.scipy.linalg.cho_solve((factor, True), state.gradient), curvature


def _status(state: GaussNewtonState, finite: Bool[Array, ""], config: GaussNewtonConfig) -> Int[Array, ""]:
    stalled = state.num_rejections >= _STALL_AFTER
    stranded = ~finite & (stalled | (state.num_steps == 1))
    conditions = [stranded, state.num_near >= 2, stalled, state.num_steps >= config.max_steps]
    values = [Status.NONFINITE, Status.CONVERGED, Status.STALLED, Status.MAX_EVALUATIONS]
    return jnp.select(conditions, [jnp.asarray(value.value) for value in values], Status.RUNNING.value)


def kernel(objective: Objective, config: GaussNewtonConfig) -> Kernel:
    """Return the minimiser as a kernel for `lanes.run`: jobs are starts `(P,)`, results are `StationaryPoint`s.

    `num_evaluations` counts a Hessian as P gradients and a Gauss-Newton matrix as P / 6 for each output.

    Raises:
        ValueError: if the objective is not from `from_rows`.
    """
    if objective.outputs is None:
        raise ValueError("Gauss-Newton needs the rows: make the objective with from_rows, or pass an LbfgsConfig")
    return Kernel(
        init=init,
        step=lambda state: step(objective, state, config),
        done=lambda state: state.status != Status.RUNNING,
        result=lambda state: result(objective, state),
    )


def result(objective: Objective, state: GaussNewtonState) -> StationaryPoint:
    """Return where a lane stands."""
    assert objective.outputs is not None
    outputs = jax.eval_shape(objective.outputs, objective.unravel(state.position), objective.data.x)
    # As measured on one core, within a factor of two, at 76 to 161 weights.
    spent = state.num_steps * (1 + objective.dim + outputs.shape[1] * objective.dim // 6)
    return StationaryPoint(state.position, state.energy, rms(state.gradient), spent, state.status)
