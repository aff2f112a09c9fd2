"""Do good networks decide alike? Multiplicity against how good a network must be, with what was not seen beside it."""

from typing import NamedTuple

import jax
import numpy as np

from jaxscape.analysis.multiplicity import Multiplicity, multiplicity
from jaxscape.landscape import coverage
from jaxscape.table import predict
from jaxscape.table.explain import Explanation

_MAX_ROWS = 500
_WITHIN = (0.01, 0.1, np.inf)  # of the lowest loss


class Agreement(NamedTuple):
    """`within`: minima whose loss is above the lowest by this share of it at most (infinite: all that predict), None
    for all networks that predict together; how many `networks` these are; `unseen`: how many such minima were not
    found, as estimated, None where no estimate is made; `rows` held out that were asked; how far they disagree."""

    within: float | None
    networks: int
    unseen: float | None
    rows: int
    multiplicity: Multiplicity


def agreement(explanation: Explanation) -> list[Agreement]:
    """Measure how far the networks disagree, first the best minima, then more; nothing of a quantity or one network."""
    dataset, members, minima = explanation.dataset, explanation.members, explanation.landscape.minima
    if dataset.task == "regression" or len(members.weights) < 2:
        return []
    # As many rows as are held out, for which a program is compiled already.
    x = dataset.x_test[: predict.MAX_SCORED]
    with jax.enable_x64(True):
        each = predict.each(members, dataset.task, x)[:, :_MAX_ROWS]
    probabilities = np.stack([1 - each, each], axis=2) if each.ndim == 2 else each
    together = np.einsum("m,mnk->nk", members.weights, probabilities)
    energies = minima.energies[explanation.models]
    above = (energies - energies[0]) / max(abs(energies[0]), np.finfo(float).tiny)
    found: list[Agreement] = []
    for within in _WITHIN:
        chosen = np.flatnonzero(above <= within)
        if len(chosen) > (found[-1].networks if found else 1):
            like_these = minima.energies <= energies[chosen].max()
            unseen = coverage.estimate(minima.visits[like_these]).unseen
            disagree = multiplicity(probabilities[chosen], together)
            found.append(Agreement(within, len(chosen), unseen, len(each[0]), disagree))
    counting = np.flatnonzero(members.weights >= predict.COUNTS)
    if len(counting) > max(len(energies), 1):
        found.append(
            Agreement(None, len(counting), None, len(each[0]), multiplicity(probabilities[counting], together))
        )
    return found
