"""Where an exploration stands, and as the arrays of a checkpoint."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxscape.landscape.connect import NO_DISTANCES, Distances, measured
from jaxscape.landscape.database import Landscape
from jaxscape.search.basin_hopping import HoppingState

_COUNTS = ("round", "idle", "hopped", "given")  # of an exploration, for a checkpoint


class Exploration(NamedTuple):
    """Where an exploration stands.

    `landscape`; the `walkers`; the `round` to do next; `idle`: how many searches in a row found nothing new; `hopped`:
    gradients that hops took; `given`: what the landscape that it set out with had cost; `distances` between the
    minima, as far as they are measured.
    """

    landscape: Landscape
    walkers: HoppingState
    round: int
    idle: int
    hopped: int = 0
    given: int = 0
    distances: Distances = NO_DISTANCES


def with_landscape(exploration: Exploration, landscape: Landscape) -> Exploration:
    """Return an exploration that sets out with a landscape: what that has cost is not its own."""
    return exploration._replace(landscape=landscape, given=landscape.ledger.evaluations)


def checkpoint_of(exploration: Exploration) -> dict[str, np.ndarray]:
    """Return the part of an exploration that is not its landscape as plain arrays, for `database.save(extra=...)`."""
    walkers = exploration.walkers._replace(key=jax.random.key_data(exploration.walkers.key))
    arrays = {f"walkers/{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(walkers))}
    counts = {name: np.asarray(getattr(exploration, name)) for name in _COUNTS}
    return arrays | counts


def restore(fresh: Exploration, landscape: Landscape, arrays: dict[str, np.ndarray]) -> Exploration:
    """Rebuild an exploration from a checkpoint.

    Args:
        fresh: what `start` returns for the same objective, starts and settings: it gives the shapes.
        landscape: the landscape of the checkpoint.
        arrays: what `checkpoint_of` returned.

    Raises:
        ValueError: if the checkpoint does not fit the settings, or is no whole one.
    """
    template = fresh.walkers._replace(key=jax.random.key_data(fresh.walkers.key))
    leaves, structure = jax.tree.flatten(template)
    saved = [arrays.get(f"walkers/{i}") for i in range(len(leaves))]
    if any(
        new is None or new.shape != old.shape or new.dtype != old.dtype for new, old in zip(saved, leaves, strict=True)
    ):
        raise ValueError("the checkpoint holds walkers of another shape: it was made with other settings")
    walkers = jax.tree.unflatten(structure, [jnp.asarray(leaf) for leaf in saved])
    kind = jax.random.key_impl(fresh.walkers.key)
    walkers = walkers._replace(key=jax.random.wrap_key_data(walkers.key, impl=kind))
    arrays = {"given": np.asarray(0), **arrays}  # which older files do not hold
    counts = [arrays.get(name) for name in _COUNTS]
    if any(count is None or count.shape != () or count.dtype.kind not in "iu" for count in counts):
        raise ValueError(f"the checkpoint does not say how far it is: it holds no whole numbers {', '.join(_COUNTS)}")
    done, idle, hopped, given = (int(count) for count in counts if count is not None)
    return Exploration(landscape, walkers, done, idle, hopped, given, measured(landscape))
