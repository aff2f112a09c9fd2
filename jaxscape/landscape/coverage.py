"""How much of a landscape has been seen: estimates from how often each point was found.

Species-richness estimators take each find for an independent draw. Searches are not: they set out from what is known,
and some points are found a thousand times as often as others. So the numbers are a guide, and mostly too hopeful.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int

_LOG_95 = 3.0  # -log(0.05): the rule of three


class Coverage(NamedTuple):
    """`found`: different points; `unseen`: estimated number of others; `coverage`: estimated chance that the next find
    is a known one."""

    found: int
    unseen: float
    coverage: float


def estimate(visits: Int[np.ndarray, " n"]) -> Coverage:
    """Estimate how many points have not been seen from the numbers of those seen once and twice.

    Args:
        visits: how often each point was found, at least once.

    Returns:
        `unseen` after Chao (Scand. J. Stat. 11, 265, 1984; bias-corrected), a lower bound in expectation; `coverage`
        after Good and Turing, as refined by Chao & Jost (Ecology 93, 2533, 2012); 0 if nothing was found.

    >>> estimate(np.array([5, 3, 1, 1, 2]))
    Coverage(found=5, unseen=0.4583333333333333, coverage=0.8472222222222222)
    """
    finds, once, twice = int(visits.sum()), int(np.sum(visits == 1)), int(np.sum(visits == 2))
    if finds == 0:
        return Coverage(0, 0.0, 0.0)
    share = (finds - 1) / finds
    unseen = share * max(once * (once - 1), 0) / (2 * (twice + 1))
    pairs = 2 * twice if twice else 2
    weighted = (finds - 1) * (once if twice else max(once - 1, 0))
    missing = once / finds * weighted / (weighted + pairs)
    # One find of one point says nothing of others.
    return Coverage(len(visits), float(unseen), float(1 - missing) if finds > 1 else 0.0)


def chance_of_more(num_idle: int) -> float:
    """Return the chance that another search finds something new, at most, with 95 % confidence.

    Args:
        num_idle: searches in a row that have found nothing new. If each would with probability q, so many failures
            have probability (1 - q)**num_idle: not below 5 % for q up to 3 / num_idle (the rule of three).
    """
    return min(1.0, _LOG_95 / max(num_idle, 1))
