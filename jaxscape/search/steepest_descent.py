"""Steepest-descent paths: the gradient flow dx/dt = -gradient, followed to where a minimiser cannot leave the basin.

Which minima a transition state joins is defined by this flow, and a minimiser takes short cuts. Each step solves the
flow exactly on the local quadratic model, within the Krylov space of the gradient (after Page & McIver, J. Chem. Phys.
88, 922, 1988, without their Hessian; an exponential Rosenbrock-Euler step, Hochbruck & Ostermann, Acta Numerica 19,
209, 2010), so that stiff directions, which abound in losses, cost no small steps.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxscape.objective import Objective, linear_hvp, project, value_and_grad, zero_modes
from jaxscape.programs import program
from jaxscape.search import eigenpair, lanes
from jaxscape.search.points import StationaryPoint, Status, reachable, rms

_NUM_TRACKING = 3  # Hessian-vector products per step spent on the lowest mode
_ARRIVED = 0.1  # of the longest step: how near to a minimum a path ends
_HALVINGS = 12  # step lengths tried on the model, each half of the one before


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PathConfig:
    """Settings of the path.

    `accuracy`: largest error of the model's gradient at the end of a step, relative to the gradient before it;
    `max_step`: longest step, in units of the parameters; `max_steps`; `num_lanczos` (static): Hessian-vector products
    per step.
    """

    accuracy: Float[Array, ""] | float = 0.02
    max_step: Float[Array, ""] | float = 0.1
    max_steps: Int[Array, ""] | int = 4000
    num_lanczos: int = field(default=10, metadata={"static": True})


class PathState(NamedTuple):
    """One lane: `position (P,)`, `energy ()`, `gradient (P,)` there; `model (P,)`: the gradient expected after `step
    (P,)`, the step to take next; `time ()`: its length in units of the flow; `vector (P,)`: a guess of the lowest mode,
    better with each step; `num_steps ()`; `status ()`.
    """

    position: Float[Array, " P"]
    energy: Float[Array, ""]
    gradient: Float[Array, " P"]
    model: Float[Array, " P"]
    step: Float[Array, " P"]
    time: Float[Array, ""]
    vector: Float[Array, " P"]
    num_steps: Int[Array, ""]
    status: Int[Array, ""]


def init(x: Float[Array, " P"]) -> PathState:
    """Set out from `x`; the first step evaluates it."""
    vector = jax.random.normal(jax.random.key(0), x.shape, x.dtype)
    nothing, zero = jnp.zeros_like(x), jnp.zeros((), x.dtype)
    infinite = jnp.asarray(jnp.inf, x.dtype)
    running = jnp.asarray(Status.RUNNING.value)
    return PathState(x, infinite, nothing, nothing, nothing, zero, vector, jnp.asarray(0), running)


def step(objective: Objective, state: PathState, config: PathConfig) -> PathState:
    """Take the step, or take it back, and choose the next."""
    trial = state.position + state.step
    energy, gradient = value_and_grad(objective, trial)
    first = state.num_steps == 0
    finite = jnp.isfinite(energy) & jnp.all(jnp.isfinite(gradient))
    size = jnp.linalg.norm(state.gradient)
    error = jnp.linalg.norm(gradient - state.model) / jnp.where(size > 0, size, 1)
    accepted = finite & (first | ((error <= config.accuracy) & (energy <= state.energy)))
    # The error of the model grows with the square of the step.
    safe = jnp.where(finite & (error > 0), error, 1)
    factor = jnp.clip(0.9 * jnp.sqrt(config.accuracy / safe), 0.2, 3.0)
    position = jnp.where(accepted, trial, state.position)
    gradient = jnp.where(accepted, gradient, state.gradient)
    energy = jnp.where(accepted, energy, state.energy)

    product, known = linear_hvp(objective, position), zero_modes(objective, position)
    pairs = eigenpair.ritz(product, gradient, num_steps=config.num_lanczos)
    along = pairs.coefficients.T @ (pairs.basis @ gradient)
    stiffest = pairs.scale
    longest = 10 / jnp.where(stiffest > 0, stiffest, 1)
    time = jnp.where(first, longest, jnp.where(finite, factor, 0.2) * state.time)

    def flow(time: Array) -> tuple[Array, Array]:
        exponents = -pairs.values * time
        small = jnp.abs(exponents) < 1e-6
        share = jnp.expm1(jnp.minimum(exponents, 50.0)) / jnp.where(small, 1, exponents)
        moved = -time * jnp.where(small, 1, share) * along
        return moved, jnp.exp(jnp.minimum(exponents, 50.0)) * along

    times = time * 0.5 ** jnp.arange(_HALVINGS, dtype=time.dtype)
    lengths = jax.vmap(lambda time: jnp.linalg.norm(flow(time)[0]))(times)
    time = times[jnp.argmax((lengths <= config.max_step) | (jnp.arange(_HALVINGS) == _HALVINGS - 1))]
    moved, left = flow(time)
    # The basin is certain where all directions curve up and Newton's step, solved to one part in ten, is short.
    curvature, vector, *_ = eigenpair.lowest(
        lambda v: project(product(v), known), project(state.vector, known), num_steps=_NUM_TRACKING
    )
    convex = (curvature > 0) & (pairs.values[0] > 0)
    newton = pairs.basis.T @ (pairs.coefficients @ (along / jnp.where(convex, pairs.values, 1)))
    solved = jnp.linalg.norm(gradient - product(newton)) <= 0.1 * jnp.linalg.norm(gradient)
    short = jnp.linalg.norm(newton) <= _ARRIVED * config.max_step
    arrived = (convex & solved & short) | (rms(gradient) <= reachable(energy.dtype) * stiffest)
    num_steps = state.num_steps + 1
    conditions = [first & ~finite, arrived, num_steps >= config.max_steps]
    values = [Status.NONFINITE, Status.CONVERGED, Status.MAX_EVALUATIONS]
    return PathState(
        position=position,
        energy=energy,
        gradient=gradient,
        model=pairs.basis.T @ (pairs.coefficients @ left),
        step=pairs.basis.T @ (pairs.coefficients @ moved),
        time=time,
        vector=vector,
        num_steps=num_steps,
        status=jnp.select(conditions, [jnp.asarray(value.value) for value in values], Status.RUNNING.value),
    )


@program(static_argnames=("num_lanes",))
def descend(
    objective: Objective,
    starts: Float[Array, "n P"],
    config: PathConfig = PathConfig(),
    *,
    num_lanes: int = 8,
    count: Int[Array, ""] | int | None = None,
) -> StationaryPoint:
    """Follow the gradient flow from each start until it is in a convex basin.

    Args:
        objective: the landscape.
        starts: one start per row.
        config: settings.
        num_lanes: paths in work at once.
        count: follow only this many of the rows, from the first.

    Returns:
        Where each path has come to: CONVERGED says that the Hessian, as far as the gradient sees it, is positive and
        Newton's step to the minimum no longer than a tenth of `max_step`; `quench` takes it from there, with short
        steps.
    """

    def result(state: PathState) -> StationaryPoint:
        evaluations = state.num_steps * (3 + config.num_lanczos + _NUM_TRACKING)
        return StationaryPoint(state.position, state.energy, rms(state.gradient), evaluations, state.status)

    kernel = lanes.Kernel(
        init=init,
        step=lambda state: step(objective, state, config),
        done=lambda state: state.status != Status.RUNNING,
        result=result,
    )
    return lanes.run(kernel, starts, num_lanes=num_lanes, count=count)
