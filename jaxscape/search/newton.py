"""Polish a nearly stationary point to the floor of the precision, and certify its Hessian index.

Newton steps in the eigenbasis of the dense Hessian, uphill along the `index` lowest modes and downhill along all
others (eigenvector-following: Cerjan & Miller 1981, Wales 1994), so that a point converges to the kind of stationary
point that is asked for, or says that it did not.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxscape.objective import Objective, hessian, value_and_grad, zero_modes
from jaxscape.search import lanes
from jaxscape.search.lbfgs import cap
from jaxscape.search.points import StationaryPoint, Status, rms, tolerance


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NewtonConfig:
    """Settings of the polish.

    `tolerance`: RMS gradient below which a point counts as stationary (default by dtype); steps go on as long as they
    still halve it. `max_step`: longest step; `max_steps`: Hessians per point.
    """

    tolerance: Float[Array, ""] | float | None = None
    max_step: Float[Array, ""] | float = 0.3
    max_steps: Int[Array, ""] | int = 30


class Polished(NamedTuple):
    """A polished point: `point`, the Hessian's `eigenvalues (P - k,)` in ascending order, without those of the k known
    zero modes, and the lowest `eigenvector (P,)`."""

    point: StationaryPoint
    eigenvalues: Float[Array, "*batch P-k"]
    eigenvector: Float[Array, "*batch P"]


class _State(NamedTuple):
    position: Float[Array, " P"]
    energy: Float[Array, ""]
    gradient: Float[Array, " P"]
    eigenvalues: Float[Array, " P-k"]
    eigenvector: Float[Array, " P"]
    num_steps: Int[Array, ""]
    status: Int[Array, ""]


@functools.partial(jax.jit, static_argnames="num_lanes")
def polish(
    objective: Objective,
    starts: Float[Array, "n P"],
    config: NewtonConfig = NewtonConfig(),
    *,
    index: Int[Array, ""] | int = 0,
    num_lanes: int = 2,
    count: Int[Array, ""] | int | None = None,
) -> Polished:
    """Converge points to stationary points, with the eigenvalues that certify what they are.

    Args:
        objective: the landscape.
        starts: points with a small gradient, one per row.
        config: settings.
        index: the Hessian index to converge to: 0 for minima, 1 for transition states. A point on a symmetric ridge can
            still end with more negative eigenvalues: check `eigenvalues`.
        num_lanes: points in work at once, each with a dense Hessian in memory.
        count: polish only this many of the rows, from the first.

    Returns:
        One polished point per start, in order; `num_evaluations` counts a Hessian as `objective.dim` gradients.
    """
    evaluate = functools.partial(value_and_grad, objective)

    def init(x: Float[Array, " P"]) -> _State:
        energy, gradient = evaluate(x)
        nothing = jnp.zeros_like(x)
        status = jnp.where(jnp.all(jnp.isfinite(gradient)), Status.RUNNING.value, Status.NONFINITE.value)
        unknown = nothing[: x.size - zero_modes(objective, x).shape[0]]
        return _State(x, energy, gradient, unknown, nothing, jnp.asarray(0), status)

    def step(state: _State) -> _State:
        eigenvalues, eigenvectors = _modes(objective, state.position)
        along = eigenvectors.T @ state.gradient
        size = jnp.maximum(jnp.abs(eigenvalues), jnp.finfo(along.dtype).eps * jnp.max(jnp.abs(eigenvalues)))
        uphill = jnp.arange(along.size) < index
        move = cap(eigenvectors @ (jnp.where(uphill, along, -along) / jnp.where(size > 0, size, 1)), config.max_step)
        energy, gradient = evaluate(state.position + move)
        before, after = rms(state.gradient), rms(gradient)
        finite = jnp.isfinite(energy) & jnp.all(jnp.isfinite(gradient))
        # At the floor a Newton step no longer helps: keep the better of the two points.
        target = tolerance(config.tolerance, state.energy)
        stationary = before <= target
        better = finite & ((after < before) | ~stationary)
        num_steps = state.num_steps + 1
        # Only then do the eigenvalues, which are those before the step, belong to where it led.
        settled = stationary & ((after <= 1e-4 * target) | ~(after < 0.5 * before))
        conditions = [~finite & ~stationary, settled, num_steps >= config.max_steps]
        values = [Status.NONFINITE, Status.CONVERGED, Status.MAX_EVALUATIONS]
        status = jnp.select(conditions, [jnp.asarray(value.value) for value in values], Status.RUNNING.value)
        return _State(
            position=jnp.where(better, state.position + move, state.position),
            energy=jnp.where(better, energy, state.energy),
            gradient=jnp.where(better, gradient, state.gradient),
            eigenvalues=eigenvalues[: state.eigenvalues.size],
            eigenvector=eigenvectors[:, 0],
            num_steps=num_steps,
            status=status,
        )

    def result(state: _State) -> Polished:
        evaluations = 1 + state.num_steps * (1 + objective.dim)
        point = StationaryPoint(state.position, state.energy, rms(state.gradient), evaluations, state.status)
        return Polished(point, state.eigenvalues, state.eigenvector)

    kernel = lanes.Kernel(init, step, lambda state: state.status != Status.RUNNING, result)
    return lanes.run(kernel, starts, num_lanes=num_lanes, count=count, refill_every=1)


def _modes(objective: Objective, x: Float[Array, " P"]) -> tuple[Float[Array, " P"], Float[Array, "P P"]]:
    """Diagonalise the Hessian, the known zero modes moved above all others."""
    matrix, known = hessian(objective, x), zero_modes(objective, x)
    if len(known):
        matrix = matrix - known.T @ (known @ matrix)
        matrix = matrix - (matrix @ known.T) @ known
        matrix = matrix + 2 * jnp.linalg.norm(matrix) * known.T @ known
    return jnp.linalg.eigh(matrix)
