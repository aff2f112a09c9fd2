"""Do good networks decide alike? Multiplicity, with what was not seen beside it, and superbasins compared."""

from typing import NamedTuple

import jax
import numpy as np
from scipy.stats import false_discovery_control

from jaxscape.analysis import superbasins
from jaxscape.analysis.multiplicity import Multiplicity, multiplicity
from jaxscape.landscape import coverage
from jaxscape.report.sentences import groups
from jaxscape.table import predict
from jaxscape.table.explain import Explanation

_MAX_ROWS = 500
_WITHIN = (0.01, 0.1, np.inf)  # of the lowest loss
_MAX_MERGES = 20


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
    if dataset.kind.is_quantity or len(members.weights) < 2:
        return []
    # As many rows as are held out, for which a program is compiled already.
    x = dataset.x_test[: predict.MAX_SCORED]
    with jax.enable_x64(True):
        each = predict.each(members, dataset.kind, x)[:, :_MAX_ROWS]
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


class Apart(NamedTuple):
    """Two superbasins that merge at a loss of `energy`, `barrier` above the higher of them (None: nothing joins them);
    how many `minima` of either side were asked; the column that matters most to each, `first`; Spearman's
    `rank_correlation` of the two rankings; `q_value`: significance of their difference, adjusted for the number of
    merges that were looked at."""

    energy: float | None
    barrier: float | None
    minima: tuple[int, int]
    first: tuple[str, str]
    rank_correlation: float
    q_value: float


def apart(explanation: Explanation) -> list[Apart]:
    """Say where superbasins merge, the highest first, whether they rank the columns differently."""
    shown = groups(explanation)
    first = [members[0] for members, _ in shown]
    each = explanation.ranking.importance.each[: len(explanation.models), first]
    energies = explanation.landscape.minima.energies
    found = superbasins.compare(explanation.tree, energies, explanation.models, each)[:_MAX_MERGES]
    if not found:
        return []
    names = [name for _, name in shown]
    adjusted = false_discovery_control([comparison.p_value for comparison in found])
    return [
        Apart(
            comparison.energy if np.isfinite(comparison.energy) else None,
            comparison.barrier if np.isfinite(comparison.energy) else None,
            (len(comparison.minima[0]), len(comparison.minima[1])),
            (names[comparison.importance[0].argmax()], names[comparison.importance[1].argmax()]),
            comparison.rank_correlation,
            float(q_value),
        )
        for comparison, q_value in zip(found, adjusted, strict=True)
    ]
