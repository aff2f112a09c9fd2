"""Basin-hopping: Metropolis walkers over minima, every walker on a lane of its own that never waits for the others.

Wales & Doye, J. Phys. Chem. A 101, 5111 (1997). A lane that has reached a minimum decides on it, hops, and minimises
again; the step size of each walker adapts so that its hops leave the basin but do not only find high minima.
"""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxscape.objective import Objective
from jaxscape.programs import program
from jaxscape.search import gauss_newton, lanes, lbfgs, quench
from jaxscape.search.gauss_newton import GaussNewtonConfig, GaussNewtonState
from jaxscape.search.lbfgs import LbfgsConfig, LbfgsState
from jaxscape.search.points import StationaryPoint, Status

_LONGER, _SHORTER = 1.3, 0.9  # factors of the step size after a hop back to the same minimum, and a rejected one
_SAME_ENERGY = 1e-6  # relative: a copy of the minimum
_SAME_PLACE = 1e-4


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class HoppingConfig:
    """Settings of basin-hopping.

    `temperature`: of the Metropolis test, in units of the energy, a number or one per walker, 0 to only go down;
    `step_size`: the first largest displacement of each coordinate; `min_step`, `max_step`: bounds on it while it
    adapts; `descent`: the minimiser, by its settings.
    """

    temperature: Float[Array, "*temperatures"] | float = 1e-3
    step_size: Float[Array, "*sizes"] | float = 1.0
    min_step: Float[Array, ""] | float = 1e-2
    max_step: Float[Array, ""] | float = 10.0
    descent: LbfgsConfig | GaussNewtonConfig = LbfgsConfig()  # noqa: RUF009  (frozen)


class HoppingState(NamedTuple):
    """All walkers.

    `lanes`: the minimisations in work; `position (B, P)`, `energy (B,)`: the minimum each walker is at (infinite energy
    before its first); `lowest (B,)`: the lowest energy it has been at; `step_size (B,)`; `key (B,)`: each walker's own
    randomness; `num_hops (B,)`, `num_accepted (B,)`.
    """

    lanes: LbfgsState | GaussNewtonState
    position: Float[Array, "B P"]
    energy: Float[Array, " B"]
    lowest: Float[Array, " B"]
    step_size: Float[Array, " B"]
    key: PRNGKeyArray
    num_hops: Int[Array, " B"]
    num_accepted: Int[Array, " B"]


class Buffer(NamedTuple):
    """The quenches that ended, in order: `points` (capacity rows), `count ()` rows of them used, `overflow ()`."""

    points: StationaryPoint
    count: Int[Array, ""]  # type: ignore[assignment]  # hides tuple.count
    overflow: Bool[Array, ""]


@program
def init(key: PRNGKeyArray, starts: Float[Array, "B P"], config: HoppingConfig) -> HoppingState:
    """Set out one walker from each row of `starts`."""
    num_walkers = starts.shape[0]
    nothing = jnp.zeros(num_walkers, int)
    return HoppingState(
        lanes=jax.vmap(functools.partial(_set_out, config.descent))(starts),
        position=starts,
        energy=jnp.full(num_walkers, jnp.inf, starts.dtype),
        lowest=jnp.full(num_walkers, jnp.inf, starts.dtype),
        step_size=jnp.broadcast_to(jnp.asarray(config.step_size, starts.dtype), (num_walkers,)),
        key=jax.random.split(key, num_walkers),
        num_hops=nothing,
        num_accepted=nothing,
    )


def _set_out(descent: LbfgsConfig | GaussNewtonConfig, x: Float[Array, " P"]) -> LbfgsState | GaussNewtonState:
    return lbfgs.init(x, descent) if isinstance(descent, LbfgsConfig) else gauss_newton.init(x)


@program(static_argnames=("capacity", "refill_every"))
def run(
    objective: Objective,
    state: HoppingState,
    config: HoppingConfig = HoppingConfig(),
    *,
    num_steps: Int[Array, ""] | int,
    capacity: int,
    refill_every: int = 8,
) -> tuple[HoppingState, Buffer]:
    """Let all walkers go on for a number of steps, one gradient (or Gauss-Newton step) per walker and step.

    Args:
        objective: the landscape.
        state: from `init` or from an earlier call; minimisations in work are continued.
        config: settings.
        num_steps: how many steps, rounded up to a multiple of `refill_every`.
        capacity: rows of the buffer. Quenches beyond it are lost and `overflow` is set.
        refill_every: steps between two looks for walkers that have reached a minimum.

    Returns:
        The walkers, and every quench that ended meanwhile, accepted or not, converged or not.
    """
    kernel = quench.kernel(objective, config.descent)
    num_walkers = state.energy.shape[0]
    temperature = jnp.broadcast_to(jnp.asarray(config.temperature, state.energy.dtype), (num_walkers,))

    def decide(
        key: PRNGKeyArray, walker: HoppingState, point: StationaryPoint, temperature: Array
    ) -> tuple[Array, Array, Array, Array, PRNGKeyArray, Array]:
        key, draw_key = jax.random.split(key)
        drawn = jax.random.uniform(draw_key, (1 + walker.position.size,), walker.position.dtype)
        converged = point.status == Status.CONVERGED
        rise = point.energy - walker.energy
        warm = temperature > 0
        chance = jnp.where(warm, jnp.exp(-jnp.maximum(rise, 0) / jnp.where(warm, temperature, 1)), 0)
        lucky = (rise <= 0) | (drawn[0] < chance)
        accepted = converged & lucky
        apart = jnp.linalg.norm(point.position - walker.position)
        back = apart <= _SAME_PLACE * (1 + jnp.linalg.norm(point.position))
        same = converged & (back | (jnp.abs(rise) <= _SAME_ENERGY * jnp.abs(point.energy)))
        factor = jnp.where(same, _LONGER, jnp.where(accepted, 1, _SHORTER))
        step_size = jnp.clip(walker.step_size * factor, config.min_step, config.max_step)
        position = jnp.where(accepted, point.position, walker.position)
        energy = jnp.where(accepted, point.energy, walker.energy)
        return position, energy, step_size, position + step_size * (2 * drawn[1:] - 1), key, accepted

    def refill(carry: tuple[HoppingState, Buffer]) -> tuple[HoppingState, Buffer]:
        state, buffer = carry
        done = jax.vmap(kernel.done)(state.lanes)
        points = jax.vmap(kernel.result)(state.lanes)
        slot = jnp.where(done, buffer.count + jnp.cumsum(done) - 1, capacity)
        stored = jax.tree.map(lambda rows, new: rows.at[slot].set(new, mode="drop"), buffer.points, points)
        count = buffer.count + done.sum()
        buffer = Buffer(stored, jnp.minimum(count, capacity), buffer.overflow | (count > capacity))
        position, energy, step_size, start, key, accepted = jax.vmap(decide)(state.key, state, points, temperature)
        hopped = HoppingState(
            lanes=jax.vmap(kernel.init)(start),
            position=position,
            energy=energy,
            lowest=jnp.minimum(state.lowest, energy),
            step_size=step_size,
            key=key,
            num_hops=state.num_hops + 1,
            num_accepted=state.num_accepted + accepted.astype(int),
        )
        return jax.vmap(lanes.where)(done, hopped, state), buffer

    def turn(_: Array, carry: tuple[HoppingState, Buffer]) -> tuple[HoppingState, Buffer]:
        state, buffer = carry
        state = state._replace(lanes=lanes.advance(kernel, state.lanes, num_steps=refill_every))
        any_done = jnp.any(jax.vmap(kernel.done)(state.lanes))
        return jax.lax.cond(any_done, refill, lambda same: same, (state, buffer))

    points = jax.eval_shape(jax.vmap(kernel.result), state.lanes)
    points = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape[1:]), leaf.dtype), points)
    buffer = Buffer(points, jnp.asarray(0), jnp.asarray(False))
    return jax.lax.fori_loop(0, -(-num_steps // refill_every), turn, (state, buffer))
