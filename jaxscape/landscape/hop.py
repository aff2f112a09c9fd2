"""Hops of an exploration: its walkers go on, and what they find is entered."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int

from jaxscape.cores import on_device, spread
from jaxscape.landscape import certify
from jaxscape.landscape.config import ExploreConfig
from jaxscape.landscape.database import Landscape
from jaxscape.landscape.ledger import Search
from jaxscape.objective import Objective
from jaxscape.programs import program
from jaxscape.search import basin_hopping
from jaxscape.search.basin_hopping import Buffer, HoppingConfig, HoppingState
from jaxscape.search.points import Status

_BLOCK = 4  # walkers that hop in one program on a CPU
_KEPT_OF_HOPS = 4  # one of so many minima that are enough: 94 merges in 100 were certified (eight tables), with all 90
_SAME_ENERGY = 1e-6  # relative: the end of a walk, not polished, and a minimum


def hop(
    objective: Objective,
    landscape: Landscape,
    walkers: HoppingState,
    config: ExploreConfig,
    num_steps: int | None = None,
) -> tuple[Landscape, HoppingState, int]:
    """Let the walkers go on, in blocks on all cores in use; return with them how many of their quenches ended.

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
    walkers = joined([some for some, _ in ended])
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


def joined(blocks: list[HoppingState]) -> HoppingState:
    """Return the walkers of all blocks as one batch, by NumPy, which has nothing to compile."""
    plain = [block._replace(key=jax.random.key_data(block.key)) for block in blocks]
    walkers: HoppingState = jax.device_put(jax.tree.map(lambda *leaves: np.concatenate(leaves), *plain))
    return walkers._replace(key=jax.random.wrap_key_data(walkers.key, impl=jax.random.key_impl(blocks[0].key)))
