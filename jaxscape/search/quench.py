"""The public batched minimiser."""

import functools

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from jaxscape.cores import cores_in_use, on_device, padded
from jaxscape.objective import Objective, check_points, value, value_and_grad
from jaxscape.programs import program
from jaxscape.search import gauss_newton, lanes, lbfgs
from jaxscape.search.gauss_newton import GaussNewtonConfig
from jaxscape.search.lbfgs import LbfgsConfig
from jaxscape.search.points import StationaryPoint


def quench(
    objective: Objective,
    starts: Float[Array, "n P"],
    config: LbfgsConfig | GaussNewtonConfig = LbfgsConfig(),  # noqa: B008  (frozen)
    *,
    num_lanes: int | None = None,
    count: Int[Array, ""] | int | None = None,
) -> StationaryPoint:
    """Minimise from many starts at once.

    Args:
        objective: what to minimise.
        starts: one start per row. Without a `count` and outside of other programs they are dealt out to all cores in
            use (`use_all_cores`).
        config: settings of the minimiser, which they choose: `LbfgsConfig`, the cheaper one where it converges;
            `GaussNewtonConfig` for rows (`from_rows`) and few weights, where L-BFGS takes thousands of gradients.
        num_lanes: minimisations in work at once; the result does not depend on it. By default 32, of those with dense
            matrices 2.
        count: minimise only this many of the rows, from the first.

    Returns:
        One stationary point per start, in the same order, with a status each.

    Raises:
        ValueError: if `starts` is no array of rows of `objective.dim` numbers, or not of the dtype of the loss; if
            Gauss-Newton is to minimise what is not from `from_rows`.

    >>> import jax.numpy as jnp
    >>> from jaxscape.objective import from_loss
    >>> bowl = from_loss(lambda x, _: jnp.sum((x - 1.0) ** 2), jnp.zeros(3))
    >>> quench(bowl, jnp.zeros((2, 3))).position.round(3).tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    check_points(objective.dim, starts=starts)
    wide = 2 if isinstance(config, GaussNewtonConfig) else 32
    num_lanes = min(wide if num_lanes is None else num_lanes, len(starts))
    size = max(-(-len(starts) // cores_in_use()), num_lanes)  # Always as many lanes: another width rounds otherwise.
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((objective, starts, config)))
    if count is not None or traced or size == len(starts):
        return _run(objective, starts, config, num_lanes=num_lanes, count=count)
    run = functools.partial(_run, objective, config=config, num_lanes=num_lanes)
    return jax.tree.map(on_device, padded(run, size, np.asarray(starts)))


@program(static_argnames=("num_lanes",))
def _run(
    objective: Objective,
    starts: Float[Array, "n P"],
    config: LbfgsConfig | GaussNewtonConfig,
    *,
    num_lanes: int,
    count: Int[Array, ""] | int | None,
) -> StationaryPoint:
    energy = jax.eval_shape(functools.partial(value, objective), starts[0])
    if energy.dtype != starts.dtype:  # said when it is compiled, since to ask takes a millisecond
        raise ValueError(f"the loss returns {energy.dtype} for starts of {starts.dtype}: make data and starts alike")
    refill_every = 1 if isinstance(config, GaussNewtonConfig) else 4
    return lanes.run(kernel(objective, config), starts, num_lanes=num_lanes, count=count, refill_every=refill_every)


def kernel(objective: Objective, config: LbfgsConfig | GaussNewtonConfig) -> lanes.Kernel:
    """Return the minimiser that the settings are of."""
    if isinstance(config, GaussNewtonConfig):
        return gauss_newton.kernel(objective, config)
    return lbfgs.kernel(functools.partial(value_and_grad, objective), config)
