"""Conserved weights: those that stay the same over a whole group of minima.

After Niroomand & Wales (2023), arXiv:2304.02381.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxscape.symmetry import Symmetry, align

Criterion = Literal["relative", "absolute"]


class ConservedWeights(NamedTuple):
    """What each of G groups of minima agrees on.

    `mean (G, P)`, `std (G, P)` over the members (population standard deviation), `mask (G, P)`: the conserved weights,
    `size (G,)`: members.
    """

    mean: Float[np.ndarray, "G P"]
    std: Float[np.ndarray, "G P"]
    mask: Bool[np.ndarray, "G P"]
    size: Int[np.ndarray, " G"]


def align_groups(
    symmetry: Symmetry,
    positions: Float[np.ndarray, "M P"],
    energies: Float[np.ndarray, " M"],
    labels: Int[np.ndarray, " M"],
) -> tuple[Float[np.ndarray, "M P"], Int[np.ndarray, " G"]]:
    """Move every minimum to its copy nearest to the lowest minimum of its group.

    Args:
        symmetry: of the model.
        positions: the minima.
        energies: their energies.
        labels: the group of each, counted from 0; -1 for none.

    Returns:
        The moved minima, and for each group its lowest minimum, the reference (-1 for a group without members).
    """
    weights = np.array(positions)
    reference = np.empty(labels.max(initial=-1) + 1, int)
    for group in range(len(reference)):
        members = np.flatnonzero(labels == group)
        if members.size == 0:
            reference[group] = -1
            continue
        reference[group] = members[np.argmin(energies[members])]
        weights[members], _ = align(symmetry, positions[reference[group]], positions[members])
    return weights, reference


def conserved_weights(
    weights: Float[np.ndarray, "M P"],
    labels: Int[np.ndarray, " M"],
    *,
    criterion: Criterion = "relative",
    threshold: float = 0.3,
    candidates: Bool[np.ndarray, " P"] | None = None,
) -> ConservedWeights:
    """Find the weights with the lowest spread over each group of minima.

    Args:
        weights: the minima, aligned within their group (`align_groups`).
        labels: the group of each, counted from 0; -1 for none.
        criterion: "relative" (standard deviation over |mean|) or "absolute" (standard deviation).
        threshold: the fraction of the candidates that is called conserved, those of lowest spread; above 0, at least
            one of them.
        candidates: weights that may be chosen; all by default. For input attribution: the input weights.

    Returns:
        Means, spreads and masks. A group of one has no spread to judge by, and no conserved weights.

    Raises:
        ValueError: if the criterion is unknown or the threshold is not between 0 and 1.

    >>> w = np.array([[1.0, 2.0, 0.0], [1.0, -2.0, 0.1]])
    >>> conserved_weights(w, np.array([0, 0]), threshold=1 / 3).mask.tolist()
    [[True, False, False]]
    """
    if criterion not in ("relative", "absolute"):
        raise ValueError(f"criterion must be 'relative' or 'absolute', got {criterion!r}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is a fraction of the weights, between 0 and 1, got {threshold}")
    num_groups, dim = labels.max(initial=-1) + 1, weights.shape[1]
    size = np.bincount(labels[labels >= 0], minlength=num_groups)
    chosen = np.flatnonzero(np.ones(dim, bool) if candidates is None else candidates)
    mean, std = np.zeros((num_groups, dim)), np.zeros((num_groups, dim))
    mask = np.zeros((num_groups, dim), bool)
    for group in range(num_groups):
        members = weights[labels == group]
        if len(members) == 0:
            continue
        mean[group], std[group] = members.mean(axis=0), members.std(axis=0)
        if len(members) > 1:
            spread = std[group, chosen]
            if criterion == "relative":
                spread = spread / np.maximum(np.abs(mean[group, chosen]), np.finfo(float).tiny)
            number = max(round(threshold * chosen.size), int(threshold > 0))
            mask[group, chosen[np.argsort(spread, kind="stable")[:number]]] = True
    return ConservedWeights(mean, std, mask, size)
