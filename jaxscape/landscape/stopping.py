"""When an exploration ends: what it may cost, and when all is found."""

import math
from typing import NamedTuple

import numpy as np

from jaxscape.landscape import coverage, database, ledger
from jaxscape.landscape.config import ExploreConfig
from jaxscape.landscape.database import Landscape
from jaxscape.landscape.exploration import Exploration
from jaxscape.landscape.ledger import Search

_FOUND_BY = 5  # walkers, or all where there are fewer, that have come to the lowest minimum when hopping ends
_FINDS = 8  # of every point of a landscape that is complete
_HOPS_A_SEARCH = 3  # of a landscape that is complete
_UNTIL_SURE, _ONCE_JOINED = 1 / 3, 1 / 6  # of all gradients, in hops
_SAME_ENERGY = 1e-6  # relative: the end of a walk, not polished, and the lowest minimum


class Budget(NamedTuple):
    """What an exploration may cost: the first limit that is reached ends it, after the round under way.

    `rounds`; `evaluations`: gradients, a Hessian or Hessian-vector product counted as what it costs in gradients;
    `seconds`: on the clock, so that the same key then gives the same landscape only up to the round it stops at.
    """

    rounds: int = 50
    evaluations: float = math.inf
    seconds: float = math.inf


DEFAULT_BUDGET = Budget()


def finished(
    exploration: Exploration, config: ExploreConfig, budget: Budget = DEFAULT_BUDGET, *, seconds: float = 0.0
) -> bool:
    """Say whether the exploration ends here; see `stopped_by`."""
    return stopped_by(exploration, config, budget, seconds=seconds) is not None


def stopped_by(
    exploration: Exploration, config: ExploreConfig, budget: Budget = DEFAULT_BUDGET, *, seconds: float = 0.0
) -> str | None:
    """Say what ends an exploration; None while it goes on.

    "complete": the lowest minimum was found by five walkers on their own, certified edges join all minima, each point
    was found eight times, none is estimated unseen, the next search would find something new with a chance below
    1 - `config.coverage`, and there were three hops for each search. It was never wrong in 200 explorations of small
    problems (`benchmarks/claims.py`).
    "connected": the first two, and there are `config.num_minima`. Else the part of the budget that is spent: "rounds",
    "gradients" or "seconds".
    """
    landscape = exploration.landscape
    if is_saturated(exploration, config) and not hops_are_due(exploration, config):
        return "complete"
    if is_joined(exploration) and len(landscape.minima.energies) >= config.num_minima:
        return "connected"
    spent = {
        "rounds": exploration.round > budget.rounds,
        "gradients": landscape.ledger.evaluations >= budget.evaluations,
        "seconds": seconds >= budget.seconds,
    }
    return next((name for name, over in spent.items() if over), None)


def is_joined(exploration: Exploration) -> bool:
    """Say whether the lowest minimum is sure and certified edges join all minima."""
    landscape = exploration.landscape
    some = len(landscape.minima.energies) > 0
    return some and enough_found(exploration) and not database.components(landscape).any()


def is_saturated(exploration: Exploration, config: ExploreConfig) -> bool:
    """Say whether searches find nothing new, and each point often."""
    landscape = exploration.landscape
    if not is_joined(exploration) or coverage.chance_of_more(exploration.idle) > 1 - config.coverage:
        return False
    groups = landscape.minima, landscape.transition_states
    often = all(group.visits.min(initial=_FINDS) >= _FINDS for group in groups)
    return often and all(seen.unseen < 0.5 for seen in coverage_of(landscape))


def found_lowest_by(exploration: Exploration) -> int:
    """Return how many walkers have come to the lowest minimum, each on its own."""
    energies = exploration.landscape.minima.energies
    if len(energies) == 0:
        return 0
    lowest = energies.min()
    return int(np.sum(np.asarray(exploration.walkers.lowest) <= lowest + _SAME_ENERGY * max(abs(lowest), 1e-300)))


def enough_found(exploration: Exploration) -> bool:
    """Say whether the lowest minimum was found often enough to stop hopping."""
    return found_lowest_by(exploration) >= min(_FOUND_BY, len(exploration.walkers.lowest))


def coverage_of(landscape: Landscape) -> tuple[coverage.Coverage, coverage.Coverage]:
    """Estimate how many minima and how many transition states have not been seen; see `coverage.estimate`."""
    return coverage.estimate(landscape.minima.visits), coverage.estimate(landscape.transition_states.visits)


def hops_are_due(exploration: Exploration, config: ExploreConfig) -> bool:
    """Say whether hops have had less than their share.

    Until the lowest minimum is sure that is a third of all gradients, and then, once all minima are joined, a sixth.
    Where searches find nothing new it is three hops for each of them: what lies behind transition states that are
    hardly ever met is found by hops.
    """
    book = exploration.landscape.ledger
    spent = book.evaluations - exploration.given
    if not enough_found(exploration):
        return exploration.hopped <= _UNTIL_SURE * spent
    if not is_joined(exploration):
        return False
    if not is_saturated(exploration, config):
        return exploration.hopped <= _ONCE_JOINED * spent
    # Counted: half of all gradients are as many in small networks, but seven for each search in one of 601 weights.
    return ledger.count(book, Search.HOPS) < _HOPS_A_SEARCH * ledger.count(book, Search.SADDLE_SEARCHES)
