"""Polish a nearly stationary point to the floor of the precision, and certify its Hessian index.

Newton steps in the eigenbasis of the dense Hessian, uphill along the `index` lowest modes and downhill along all
others (eigenvector-following: Cerjan & Miller 1981, Wales 1994), so that a point converges to the kind of stationary
point that is asked for, or says that it did not. Where the Hessian is too large, `polish_matrix_free` does the same in
a Krylov space.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxscape.objective import Objective, hessian, linear_hvp, project, value_and_grad, zero_modes
from jaxscape.programs import program
from jaxscape.search import eigenpair, lanes
from jaxscape.search.factor import eigh
from jaxscape.search.lbfgs import cap
from jaxscape.search.points import StationaryPoint, Status, reachable, rms


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NewtonConfig:
    """Settings of the polish.

    `tolerance`: length of a Newton step, relative to 1 + the norm of the position, at which a point stays put and
    counts as stationary (default by dtype); steps go on as long as they still halve the gradient. `max_step`:
    longest step; `max_steps`: Hessians per point.
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


@program(static_argnames=("num_lanes",))
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
        One polished point per start, in order; `num_evaluations` counts a Hessian with its modes as `objective.dim`
        gradients.
    """

    def move(state: _State) -> tuple[Array, Array, Array]:
        eigenvalues, eigenvectors = _modes(objective, state.position)
        along = eigenvectors.T @ state.gradient
        size = jnp.maximum(jnp.abs(eigenvalues), jnp.finfo(along.dtype).eps * jnp.max(jnp.abs(eigenvalues)))
        uphill = jnp.arange(along.size) < index
        step = eigenvectors @ (jnp.where(uphill, along, -along) / jnp.where(size > 0, size, 1))
        return step, eigenvalues[: state.eigenvalues.size], eigenvectors[:, 0]

    num_modes = objective.dim - jax.eval_shape(functools.partial(zero_modes, objective), starts[0]).shape[0]
    kernel = _kernel(objective, config, move, index, num_modes, objective.dim)
    return lanes.run(kernel, starts, num_lanes=num_lanes, count=count, refill_every=1)


@program(static_argnames=("num_lanes", "num_products"))
def polish_matrix_free(
    objective: Objective,
    starts: Float[Array, "n P"],
    config: NewtonConfig = NewtonConfig(),
    *,
    index: Int[Array, ""] | int = 0,
    num_products: int = 200,
    num_lanes: int = 1,
    count: Int[Array, ""] | int | None = None,
) -> tuple[Polished, Float[Array, "n 2"]]:
    """Converge points as `polish` does, by Hessian-vector products alone.

    The step is taken in the Krylov space of the gradient; the certificate comes from a second Lanczos iteration, whose
    start has a share in every mode: some eigenvalue lies within its residual of each Ritz value, the lowest ones are at
    most the Ritz values, and that one of them was overlooked is unlikely, but not excluded (Kuczyński & Woźniakowski,
    SIAM J. Matrix Anal. Appl. 13, 1094, 1992).

    Args:
        objective: the landscape.
        starts: points with a small gradient, one per row.
        config: settings; `max_steps` counts Lanczos iterations.
        index: as for `polish`.
        num_products: Hessian-vector products per Lanczos iteration.
        num_lanes: points in work at once.
        count: polish only this many of the rows, from the first.

    Returns:
        The points, with three `eigenvalues`, estimates of the two lowest and of the size of the largest; and the
        residuals of the two lowest.
    """

    def product(x: Float[Array, " P"]) -> eigenpair.Matvec:
        known, linear = zero_modes(objective, x), linear_hvp(objective, x)
        return lambda v: project(linear(v), known)

    def move(state: _State) -> tuple[Array, Array, Array]:
        pairs = eigenpair.ritz(product(state.position), state.gradient, num_steps=num_products)
        along = pairs.coefficients.T @ (pairs.basis @ state.gradient)
        size = jnp.maximum(jnp.abs(pairs.values), jnp.finfo(along.dtype).eps * pairs.scale)
        # A mode that the gradient has no share in is missing here: only what curves down is climbed.
        uphill = (jnp.arange(along.size) < index) & (pairs.values < 0)
        step = pairs.basis.T @ (pairs.coefficients @ (jnp.where(uphill, along, -along) / jnp.where(size > 0, size, 1)))
        return step, state.eigenvalues, state.eigenvector

    iteration = _kernel(objective, config, move, index, 0, num_products)

    def certify(state: _State) -> tuple[Polished, Array]:
        known = zero_modes(objective, state.position)
        start = jax.random.normal(jax.random.key(0), state.position.shape, state.position.dtype)
        pairs = eigenpair.ritz(product(state.position), project(start, known), num_steps=num_products)
        polished = iteration.result(state)
        spent = polished.point.num_evaluations + num_products
        return Polished(
            polished.point._replace(num_evaluations=spent),
            jnp.concatenate([pairs.values[:2], pairs.scale[None]]),
            pairs.basis.T @ pairs.coefficients[:, 0],
        ), pairs.residuals[:2]

    kernel = iteration._replace(result=lambda state: state)
    ends = lanes.run(kernel, starts, num_lanes=num_lanes, count=count, refill_every=1)
    return jax.lax.map(certify, ends)


def _kernel(
    objective: Objective,
    config: NewtonConfig,
    move: Callable[[_State], tuple[Array, Array, Array]],
    index: Int[Array, ""] | int,
    num_modes: int,
    cost: int,
) -> lanes.Kernel:
    """Return the iteration: steps as `move` gives them, with the eigenvalues and lowest vector before them."""
    evaluate = functools.partial(value_and_grad, objective)

    def init(x: Float[Array, " P"]) -> _State:
        energy, gradient = evaluate(x)
        nothing = jnp.zeros_like(x)
        status = jnp.where(jnp.all(jnp.isfinite(gradient)), Status.RUNNING.value, Status.NONFINITE.value)
        return _State(x, energy, gradient, nothing[:num_modes], nothing, jnp.asarray(0), status)

    def step(state: _State) -> _State:
        wanted, eigenvalues, eigenvector = move(state)
        position = state.position + cap(wanted, config.max_step)
        energy, gradient = evaluate(position)
        before, after = rms(state.gradient), rms(gradient)
        finite = jnp.isfinite(energy) & jnp.all(jnp.isfinite(gradient))
        # How far Newton's step leads says how well the point is known, whatever the scale of the loss. A small gradient
        # does not: that of exp(-x) is as small as one likes, and the step always 1.
        length = jnp.linalg.norm(wanted) / (1 + jnp.linalg.norm(state.position))
        limit = 1e3 * reachable(energy.dtype) if config.tolerance is None else config.tolerance
        stationary = length <= limit
        # At the floor a Newton step no longer helps: keep the better of the two points.
        better = finite & ((after < before) | ~stationary)
        num_steps = state.num_steps + 1
        # Only then do the eigenvalues, which are those before the step, belong to where it led.
        settled = stationary & ((length <= 1e-4 * limit) | ~(after < 0.5 * before))
        # Where a descent ended Newton's steps come to rest, if there is a minimum.
        out_of_steps = jnp.where(jnp.asarray(index) == 0, Status.FLAT.value, Status.MAX_EVALUATIONS.value)
        conditions = [~finite & ~stationary, settled, num_steps >= config.max_steps]
        values = [Status.NONFINITE.value, Status.CONVERGED.value, out_of_steps]
        status = jnp.select(conditions, [jnp.asarray(value) for value in values], Status.RUNNING.value)
        return _State(
            position=jnp.where(better, position, state.position),
            energy=jnp.where(better, energy, state.energy),
            gradient=jnp.where(better, gradient, state.gradient),
            eigenvalues=eigenvalues,
            eigenvector=eigenvector,
            num_steps=num_steps,
            status=status,
        )

    def result(state: _State) -> Polished:
        evaluations = 1 + state.num_steps * (1 + cost)
        point = StationaryPoint(state.position, state.energy, rms(state.gradient), evaluations, state.status)
        return Polished(point, state.eigenvalues, state.eigenvector)

    return lanes.Kernel(init, step, lambda state: state.status != Status.RUNNING, result)


def _modes(objective: Objective, x: Float[Array, " P"]) -> tuple[Float[Array, " P"], Float[Array, "P P"]]:
    """Diagonalise the Hessian, the known zero modes moved above all others."""
    matrix, known = hessian(objective, x), zero_modes(objective, x)
    if len(known):
        matrix = matrix - known.T @ (known @ matrix)
        matrix = matrix - (matrix @ known.T) @ known
        matrix = matrix + 2 * jnp.linalg.norm(matrix) * known.T @ known
    return eigh(matrix)
