"""Conserved weights: those that stay the same over a whole group of minima.

After Niroomand & Wales (2023), arXiv:2304.02381.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import false_discovery_control

from jaxscape.analysis.disconnectivity import MergeTree, superbasins
from jaxscape.symmetry import Symmetry, align

Criterion = Literal["relative", "absolute", "magnitude", "determined", "significance"]
_TINY = np.finfo(float).tiny


class ConservedWeights(NamedTuple):
    """What each of G groups of minima agrees on.

    `mean (G, P)`, `std (G, P)` over the members (population standard deviation), `mask (G, P)`: the conserved weights,
    `size (G,)`: members.
    """

    mean: Float[np.ndarray, "G P"]
    std: Float[np.ndarray, "G P"]
    mask: Bool[np.ndarray, "G P"]
    size: Int[np.ndarray, " G"]


class Superbasin(NamedTuple):
    """A node of the disconnectivity graph at one of its levels, and what is conserved in it.

    `level`: the energy of the cut; `members`: ids of the minima; `parent`: row of the node above, -1 for none; `mask
    (P,)`: the conserved weights; `overlap`: Jaccard index with the mask of the parent, NaN without one.
    """

    level: float
    members: Int[np.ndarray, " m"]
    parent: int
    mask: Bool[np.ndarray, " P"]
    overlap: float


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
    by: Literal["quantile", "value"] = "quantile",
    candidates: Bool[np.ndarray, " P"] | None = None,
    p_values: Float[np.ndarray, "G P"] | None = None,
    within: Float[np.ndarray, "M P"] | None = None,
    allowed: Float[np.ndarray, " P"] | None = None,
) -> ConservedWeights:
    """Find the weights with the lowest spread over each group of minima.

    Args:
        weights: the minima, aligned within their group (`align_groups`).
        labels: the group of each, counted from 0; -1 for none.
        within: how far each weight may move within the well of each minimum, as a variance: the diagonal of
            (rows * Hessian)^-1 where the loss is a mean of errors in nats. The spread is then that over a superbasin,
            between its minima and within them, and one minimum is enough.
        allowed: for the criterion "determined": the variance that the penalty alone allows each weight, 1 / alpha.
        criterion: what is low: the "relative" spread (standard deviation over |mean|, the inverse of the signal-to-
            noise ratio), the "absolute" one (standard deviation), "significance" (the p-value, adjusted for false
            discoveries after Benjamini & Hochberg, 1995), what the data leave of the variance that is allowed
            ("determined": 1 less the share that they determine, MacKay 1992) or, to compare with, "magnitude" (1 /
            |mean|, which has nothing to do with spread).
        threshold: by "quantile", the fraction of the candidates that is called conserved, those of lowest spread; above
            0, at least one of them. By "value", the largest spread, or the largest share of false discoveries.
        by: how to read the threshold.
        candidates: weights that may be chosen; all by default. For input attribution: the input weights.
        p_values: for the criterion "significance", from `input_significance` or `label_significance`.

    Returns:
        Means, spreads and masks. A group of one has no spread to judge by, and no conserved weights, unless `within`
        is known.

    Raises:
        ValueError: if the criterion is unknown, the threshold is out of range, or p-values are missing.

    >>> w = np.array([[1.0, 2.0, 0.0], [1.0, -2.0, 0.1]])
    >>> conserved_weights(w, np.array([0, 0]), threshold=1 / 3).mask.tolist()
    [[True, False, False]]
    >>> conserved_weights(w, np.array([0, 0]), criterion="absolute", threshold=0.06, by="value").mask.tolist()
    [[True, False, True]]
    """
    if criterion not in get_args(Criterion):
        raise ValueError(f"criterion must be one of {', '.join(get_args(Criterion))}, got {criterion!r}")
    if by == "quantile" and not 0 <= threshold <= 1:
        raise ValueError(f"threshold is a fraction of the weights, between 0 and 1, got {threshold}")
    if criterion == "significance" and p_values is None:
        raise ValueError("the criterion 'significance' needs p_values: see input_significance, label_significance")
    if criterion == "determined" and (within is None or allowed is None):
        raise ValueError("the criterion 'determined' needs the variance within wells, and the one allowed")
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
        if within is not None:
            std[group] = np.sqrt(std[group] ** 2 + within[labels == group].mean(axis=0))
        elif len(members) == 1:
            continue
        if p_values is not None and criterion == "significance":
            spread = false_discovery_control(p_values[group, chosen])
        elif allowed is not None and within is not None and criterion == "determined":
            spread = (within[labels == group].mean(axis=0) / allowed)[chosen]
        else:
            spread = _spread(mean[group, chosen], std[group, chosen], criterion)
        if by == "value":
            mask[group, chosen[spread <= threshold]] = True
        else:
            number = max(round(threshold * chosen.size), int(threshold > 0))
            mask[group, chosen[np.argsort(spread, kind="stable")[:number]]] = True
    return ConservedWeights(mean, std, mask, size)


def _spread(mean: np.ndarray, std: np.ndarray, criterion: Criterion) -> np.ndarray:
    if criterion == "absolute":
        return std
    return (std if criterion == "relative" else 1) / np.maximum(np.abs(mean), _TINY)


def input_significance(
    rng: np.random.Generator, symmetry: Symmetry, weights: Float[np.ndarray, "m P"], *, num_draws: int = 100
) -> Float[np.ndarray, " P"]:
    """Test each input weight of a group: is its relative spread lower than if the inputs meant something else to each?

    Under the null hypothesis the members of a group have nothing in common but the sizes of their weights: the inputs
    of each are exchanged at random, and it is aligned again, so that what alignment alone makes alike is not counted.

    Args:
        rng: the source of randomness.
        symmetry: of the network; its first hidden layer holds the input weights.
        weights: the members, the reference first.
        num_draws: times that the inputs are exchanged; all weights of a unit in all draws are the null of each of them.

    Returns:
        p-values, 1 for all but the input weights.
    """
    incoming = symmetry.layers[0].incoming
    null = np.empty((num_draws, *incoming.shape))
    for draw in null:
        moved = weights.copy()
        for row in moved[1:]:
            row[incoming] = row[incoming[:, rng.permutation(incoming.shape[1])]]
        moved, _ = align(symmetry, weights[0], moved)
        draw[:] = _relative_spread(moved[:, incoming])
    p_values = np.ones(symmetry.dim)
    for unit, drawn in zip(incoming, np.moveaxis(null, 1, 0), strict=True):
        p_values[unit] = _share_at_most(drawn.ravel(), _relative_spread(weights[:, unit]))
    return p_values


def label_significance(
    rng: np.random.Generator,
    symmetry: Symmetry,
    positions: Float[np.ndarray, "M P"],
    energies: Float[np.ndarray, " M"],
    group: Int[np.ndarray, " m"],
    *,
    num_draws: int = 100,
) -> Float[np.ndarray, " P"]:
    """Test each weight of a group: is its relative spread lower than in groups of the same size drawn at random?

    Args:
        rng: the source of randomness.
        symmetry: of the model.
        positions: all minima of the landscape.
        energies: their energies.
        group: ids of the members.
        num_draws: random groups, each aligned to its lowest member, and this to that of the group.

    Returns:
        p-values; the smallest possible is 1 / (num_draws + 1), and if the group is the whole landscape all are 1.
    """

    def lowest(ids: Int[np.ndarray, " m"]) -> Float[np.ndarray, "1 P"]:
        return positions[ids[[np.argmin(energies[ids])]]]

    def spread(ids: Int[np.ndarray, " m"]) -> Float[np.ndarray, " P"]:
        # One frame for all, so that a weight is compared with itself.
        reference, _ = align(symmetry, lowest(group)[0], lowest(ids))
        return _relative_spread(align(symmetry, reference[0], positions[ids])[0])

    seen = spread(group)
    null = np.stack([spread(rng.permutation(len(energies))[: len(group)]) for _ in range(num_draws)])
    # Where the draw is the group itself in another order, rounding must not decide.
    return (1 + np.sum(null <= seen * (1 + 1e-9), axis=0)) / (1 + num_draws)


def _relative_spread(weights: np.ndarray) -> np.ndarray:
    return _spread(weights.mean(axis=0), weights.std(axis=0), "relative")


def _share_at_most(null: np.ndarray, values: np.ndarray) -> np.ndarray:
    return (1 + np.searchsorted(np.sort(null), values, side="right")) / (1 + null.size)


def by_level(
    symmetry: Symmetry,
    tree: MergeTree,
    positions: Float[np.ndarray, "M P"],
    energies: Float[np.ndarray, " M"],
    *,
    scale: Float[np.ndarray, " P"] | None = None,
    within: Callable[[Float[np.ndarray, "m P"]], Float[np.ndarray, "m P"]] | None = None,
    criterion: Literal["relative", "absolute", "magnitude"] = "relative",
    threshold: float = 0.3,
    candidates: Bool[np.ndarray, " P"] | None = None,
    num_levels: int = 10,
    min_size: int = 2,
) -> list[Superbasin]:
    """Find the conserved weights of every superbasin at every level of the disconnectivity graph, the top first.

    Args:
        symmetry: of the model.
        tree: the merges.
        positions: the minima.
        energies: their energies.
        scale: weights over positions, where these are in other units.
        within: of aligned positions, how far each weight may move within its well: see `conserved_weights`.
        criterion: as for `conserved_weights`.
        threshold: the fraction of the candidates.
        candidates: as for `conserved_weights`.
        num_levels: evenly spaced energies, from where all that is connected has merged down to the lowest minimum. A
            superbasin that stays the same from one level to the next is listed once, at its lowest level.
        min_size: fewest members.

    Returns:
        The superbasins. All masks are in the frame of the lowest minimum of the landscape, so that masks compare.
    """
    finite = tree.energies[np.isfinite(tree.energies)]
    top, bottom = float(finite.max(initial=energies.max())), float(energies.min())
    frame = positions[int(energies.argmin())]
    found: list[Superbasin] = []
    above = np.full(len(energies), -1)
    for level in np.linspace(top, bottom, num_levels, endpoint=False):
        labels = superbasins(tree, level)
        below = above.copy()
        for label in range(labels.max() + 1):
            members = np.flatnonzero(labels == label)
            parent = int(above[members[0]])
            if len(members) < min_size:
                continue
            if parent >= 0 and len(found[parent].members) == len(members):
                found[parent] = found[parent]._replace(level=float(level))
                continue
            reference = members[np.argmin(energies[members])]
            moved, _ = align(symmetry, align(symmetry, frame, positions[[reference]])[0][0], positions[members])
            mask = conserved_weights(
                moved if scale is None else moved * scale,
                np.zeros(len(members), int),
                within=None if within is None else within(moved),
                criterion=criterion,
                threshold=threshold,
                candidates=candidates,
            ).mask[0]
            overlap = jaccard(mask, found[parent].mask) if parent >= 0 else float("nan")
            below[members] = len(found)
            found.append(Superbasin(float(level), members, parent, mask, overlap))
        above = below
    return found


def funnel(nodes: list[Superbasin], minimum: int) -> list[Superbasin]:
    """Return the superbasins that a minimum is in, the largest first."""
    return [node for node in nodes if minimum in node.members]


def jaccard(one: Bool[np.ndarray, " P"], other: Bool[np.ndarray, " P"]) -> float:
    """Return the share of the weights in either mask that are in both; 1 if both are empty."""
    either = int(np.sum(one | other))
    return float(np.sum(one & other) / either) if either else 1.0
