"""A table's landscape explored by several processes, each on its own, before this one goes on from what they found."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import numpy as np

from jaxscape.landscape.config import ExploreConfig
from jaxscape.landscape.database import Landscape
from jaxscape.landscape.fan_out import explore_on, processes
from jaxscape.landscape.stopping import Budget
from jaxscape.objective import Objective
from jaxscape.symmetry import Symmetry

if TYPE_CHECKING:
    from jaxscape.table.problem import Problem


def explored_by_workers(
    problem_of: Callable[[], "Problem"],
    made: "Problem",
    settings: ExploreConfig,
    budget: Budget,
    workers: int,
    seed: int,
    on_worker: Callable[[int], None],
) -> Landscape:
    """Explore a problem in as many processes as there are workers, and merge what they find.

    The first sets out from the problem's starts, the others from such as lie about them.

    Args:
        problem_of: makes the problem in a worker: what pickles and holds NumPy arrays alone.
        made: the same, made here.
        settings: of each exploration.
        budget: of each.
        workers: how many; what is found depends on it, not on the cores.
        seed: of the starts.
        on_worker: called as workers end, with how many have.
    """
    rng, plain = np.random.default_rng([seed, workers]), np.asarray(made.starts)
    moved = rng.normal(size=(workers - 1, *plain.shape)) * plain.std(axis=0)
    starts = np.concatenate([plain[None], plain + moved]).swapaxes(0, 1).reshape(-1, plain.shape[1])
    ended: list[int] = []

    def count(shard: int, _: Landscape) -> None:
        ended.append(shard)
        on_worker(len(ended))

    make = functools.partial(_objective_and_symmetry, problem_of)
    key = jax.random.fold_in(made.key, 3)
    with processes(workers) as pool:
        return explore_on(pool, make, starts, key, settings, shards=workers, budget=budget, on_shard=count)


def _objective_and_symmetry(problem_of: Callable[[], "Problem"]) -> tuple[Objective, Symmetry]:
    made = problem_of()
    return made.objective, made.symmetry
