"""What searches have cost and how they ended: numbers that add up, also when databases are merged."""

import enum
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxscape.search.points import StationaryPoint, Status


class Search(enum.IntEnum):
    """The kinds of search, one row of a ledger each."""

    HOPS = 0
    MINIMA = 1
    SADDLE_SEARCHES = 2
    POLISHED_SADDLES = 3
    PUSH_OFFS = 4
    CONNECTIONS = 5

    @property
    def label(self) -> str:
        """The name in files and for people."""
        return "push-offs" if self is Search.PUSH_OFFS else self.name.lower().replace("_", " ")


class Ledger(NamedTuple):
    """`evaluations`: gradients computed, a Hessian-vector product counted as one, a Hessian with its modes as one for
    each column, which is what they cost; `outcomes (Search, Status)`: how many searches of each kind ended how."""

    evaluations: int
    outcomes: Int[np.ndarray, "searches statuses"]


def empty() -> Ledger:
    """Return a ledger without entries."""
    return Ledger(0, np.zeros((len(Search), len(Status)), int))


def spend(ledger: Ledger, evaluations: int) -> Ledger:
    """Add gradients."""
    return ledger._replace(evaluations=ledger.evaluations + evaluations)


def record(ledger: Ledger, search: Search, points: StationaryPoint) -> Ledger:
    """Add the outcomes and the cost of a batch of searches: nothing is thrown away silently."""
    outcomes = ledger.outcomes.copy()
    np.add.at(outcomes[search], np.asarray(points.status, int), 1)
    return spend(ledger._replace(outcomes=outcomes), int(np.sum(points.num_evaluations)))


def add(first: Ledger, second: Ledger) -> Ledger:
    """Return the sum of two ledgers."""
    return Ledger(first.evaluations + second.evaluations, first.outcomes + second.outcomes)


def count(ledger: Ledger, search: Search, status: Status | None = None) -> int:
    """Return how many searches of a kind ended, or ended with a status."""
    return int(ledger.outcomes[search].sum() if status is None else ledger.outcomes[search, status])


def to_names(ledger: Ledger) -> dict[str, dict[str, int]]:
    """Return the outcomes that occurred by the names of search and status, for files and people."""
    named = {
        search.label: {
            status.name: int(ledger.outcomes[search, status]) for status in Status if count(ledger, search, status)
        }
        for search in Search
    }
    return {search: counts for search, counts in named.items() if counts}


def from_names(evaluations: int, outcomes: Mapping[str, Mapping[str, int]]) -> Ledger:
    """Rebuild a ledger from what `to_names` returned.

    Raises:
        KeyError: if there is no search or status of a name.
    """
    searches = {search.label: search for search in Search}
    counts = empty().outcomes
    for search, by_status in outcomes.items():
        for status, number in by_status.items():
            counts[searches[search], Status[status]] += int(number)
    return Ledger(int(evaluations), counts)
