"""Do equally good networks decide alike? Measures of predictive multiplicity, under their usual names."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_MAX_ITERATIONS, _ENOUGH = 500, 1e-6
_TINY = np.finfo(float).tiny


class Multiplicity(NamedTuple):
    """How far networks disagree: `ambiguity`, the share of rows that at least one of them puts into another class than
    they do together; `discrepancy`, the largest share that any one of them does (Marx, Calmon & Ustun, ICML 2020);
    `capacity`, the mean Rashomon capacity over rows, in bits: 0 where all give the same probabilities, 1 where two
    classes are certain to some network each (Hsu & Calmon, NeurIPS 2022)."""

    ambiguity: float
    discrepancy: float
    capacity: float


def multiplicity(probabilities: Float[np.ndarray, "m N K"], together: Float[np.ndarray, "N K"]) -> Multiplicity:
    """Measure how far networks disagree.

    Args:
        probabilities: of each of K classes, by each network, for each row.
        together: the same of all networks that predict together.

    >>> one, other = np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([[0.9, 0.1], [0.4, 0.6]])
    >>> found = multiplicity(np.stack([one, other]), (one + other) / 2)
    >>> found.ambiguity, found.discrepancy, round(found.capacity, 3)
    (0.5, 0.5, 0.062)
    """
    differs = probabilities.argmax(axis=2) != together.argmax(axis=1)
    capacity = rashomon_capacity(probabilities)
    return Multiplicity(float(differs.any(axis=0).mean()), float(differs.mean(axis=1).max()), float(capacity.mean()))


def rashomon_capacity(probabilities: Float[np.ndarray, "m N K"]) -> Float[np.ndarray, " N"]:
    """Return for each row how many bits the choice of the network tells about the class, at most.

    The capacity of the channel from network to class, by the algorithm of Blahut and Arimoto (IEEE Trans. Inf. Theory
    18, 14 and 460, 1972).
    """
    rows = np.moveaxis(probabilities, 1, 0)
    chosen = np.full(rows.shape[:2], 1 / rows.shape[1])
    logs = np.log(np.maximum(rows, _TINY))
    for _ in range(_MAX_ITERATIONS):
        mean = np.einsum("nm,nmk->nk", chosen, rows)
        told = np.sum(rows * (logs - np.log(np.maximum(mean, _TINY))[:, None]), axis=2)
        weights = chosen * np.exp(told)
        low, high = np.log(weights.sum(axis=1)), told.max(axis=1)
        chosen = weights / weights.sum(axis=1, keepdims=True)
        if np.max(high - low) < _ENOUGH:
            break
    capacity: Float[np.ndarray, " N"] = np.maximum(low, 0) / np.log(2)
    return capacity
