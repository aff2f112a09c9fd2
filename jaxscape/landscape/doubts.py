"""What is wrong with a landscape, and what to do about it."""

import functools
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from jaxscape.cores import on_device
from jaxscape.landscape import ledger
from jaxscape.landscape.database import Landscape
from jaxscape.landscape.ledger import Search
from jaxscape.objective import Objective, values
from jaxscape.search.points import Status

_SAME = 1e-9  # relative
_SAME_CURVATURE = 1e-6  # in the logarithm of the determinant
_MOST_PAIRS = 8


def empty_because(landscape: Landscape) -> str | None:
    """Say why a landscape holds no minimum, and what to do; None if it holds some."""
    if len(landscape.minima.energies):
        return None
    tally = functools.partial(ledger.count, landscape.ledger)
    ended, flat = tally(Search.HOPS), tally(Search.MINIMA, Status.FLAT)
    if flat:
        return (
            f"{flat} descents ended where the loss is too flat to certify a minimum: add an L2 penalty, and use smooth "
            "activations (no ReLU)"
        )
    if not ended:
        return "no descent ended within the budget: allow more rounds"
    bad, kinks = (tally(Search.HOPS, status) for status in (Status.NONFINITE, Status.STALLED))
    return (
        f"of {ended} descents {tally(Search.HOPS, Status.CONVERGED)} converged, {bad} met a loss that is not finite, "
        f"{kinks} went no further (a kink, or a loss with too few digits), the others took too many steps"
    )


def missing_symmetry(objective: Objective, landscape: Landscape) -> str | None:
    """Say which minima are copies of each other by a symmetry that the landscape does not know; None if none are seen.

    Minima of the same energy and curvature may be so by a symmetry of the data, such as that of the XOR table. Copies
    under a symmetry of the model have the same loss on any other data, too: random numbers take the place of the data.
    Where the data hold penalties of single weights, or none, copies may be missed.
    """
    pairs, rng = _alike(landscape), np.random.default_rng(0)
    if not len(pairs) or not getattr(landscape.symmetry, "layers", ()):  # who gives none may know that some is there
        return None

    def move(leaf: Any) -> Any:
        if np.ndim(leaf) == 0 or not np.issubdtype(leaf.dtype, np.floating):
            return leaf
        return leaf + on_device((np.std(leaf) + 0.1) * rng.normal(size=leaf.shape), leaf.dtype)

    data = objective.data
    # The penalties of rows belong to the model.
    other = jax.tree.map(move, data) if objective.outputs is None else data._replace(x=jax.tree.map(move, data.x))
    some = pairs[np.arange(_MOST_PAIRS) * len(pairs) // _MOST_PAIRS]  # of one shape, so that one program does
    points = on_device(landscape.minima.positions[some.T.ravel()])
    first, second = np.asarray(values(replace(objective, data=other), points)).reshape(2, -1)
    if np.allclose(first, landscape.minima.energies[some[:, 0]], rtol=_SAME, atol=_SAME):  # there are no data to move
        return None
    copies = np.flatnonzero(np.isfinite(first) & (np.abs(first - second) <= _SAME * (1 + np.abs(first))))
    if not copies.size:
        return None
    i, j = some[copies[0]].tolist()
    return (
        f"minima {i} and {j} have the same loss on any data, and {len(pairs)} pairs the same energy and curvature, but "
        "the symmetry given does not lead from one to the other: a part of it is missing (odd=True for an odd "
        "activation?) and copies are counted as minima; symmetry.of finds what can be exchanged"
    )


def _alike(landscape: Landscape) -> Int[np.ndarray, "n 2"]:
    """List pairs of minima of the same energy and curvature that are neighbours in this order."""
    energies, curvatures = landscape.minima.energies, landscape.minima.log_determinants
    order = np.lexsort((energies, curvatures))

    def near(numbers: Float[np.ndarray, " M"], tolerance: float) -> np.ndarray:
        return np.abs(np.diff(numbers[order])) <= tolerance

    same = near(energies, _SAME * (1 + np.abs(energies).max(initial=0.0))) & near(curvatures, _SAME_CURVATURE)
    return np.column_stack([order[:-1], order[1:]])[same]
