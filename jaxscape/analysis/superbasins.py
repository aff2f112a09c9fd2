"""Do minima that the landscape keeps apart decide differently? Superbasins compared along the merge tree."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

from jaxscape.analysis.disconnectivity import MergeTree


class Comparison(NamedTuple):
    """Two superbasins where they merge.

    `energy` at which they do, `barrier` from the higher of their two lowest minima up to there (both infinite where
    nothing joins them); `minima`: of either side, those that were asked; `importance (2, G)`: the mean of either side;
    `rank_correlation`: Spearman's, of the two rankings; `p_value`: of as large a difference between two sets of as
    many minima drawn from both at random.
    """

    energy: float
    barrier: float
    minima: tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]
    importance: Float[np.ndarray, "2 G"]
    rank_correlation: float
    p_value: float


def compare(
    tree: MergeTree,
    energies: Float[np.ndarray, " M"],
    asked: Int[np.ndarray, " m"],
    importance: Float[np.ndarray, "m G"],
    *,
    min_size: int = 5,
    num_draws: int = 999,
    seed: int = 0,
) -> list[Comparison]:
    """Compare what matters to the minima of two superbasins, wherever two large enough merge.

    The difference is the sum over the columns of the squared difference between the means of the two sides, each
    column in units of its spread over both. Several comparisons call for a correction, such as
    `scipy.stats.false_discovery_control` of their p-values.

    Args:
        tree: from `disconnectivity.tree_of`.
        energies: of the minima.
        asked: minima of which it is known how much each column matters; the others are passed over.
        importance: of each column, for each of these.
        min_size: fewest minima of either side that were asked.
        num_draws: of the test.
        seed: of the draws.

    Returns:
        The comparisons, from the highest merge to the lowest.

    Raises:
        ValueError: if shapes do not agree.
    """
    if len(energies) != len(tree.energies) + 1 or len(asked) != len(importance):
        raise ValueError(
            f"the tree has {len(tree.energies) + 1} minima and {len(energies)} energies are given, {len(asked)} minima "
            f"were asked and the importance is that of {len(importance)}"
        )
    rng = np.random.default_rng(seed)
    rows = np.full(len(energies), -1)
    rows[asked] = np.arange(len(asked))
    inside = [rows[[i]][rows[[i]] >= 0] for i in range(len(energies))]
    lowest, found = list(energies), []
    for pair, energy in zip(tree.children.tolist(), tree.energies.tolist(), strict=True):
        sides = inside[pair[0]], inside[pair[1]]
        lowest.append(lowest[pair[0]])  # The cluster with the lower minimum comes first.
        inside.append(np.concatenate(sides))
        if min(map(len, sides)) >= min_size:
            means = np.stack([importance[side].mean(axis=0) for side in sides])
            barrier = energy - lowest[pair[1]]
            p_value = _p_value(importance[inside[-1]], len(sides[0]), num_draws, rng)
            minima = asked[sides[0]], asked[sides[1]]
            found.append(Comparison(energy, barrier, minima, means, _rank_correlation(*means), p_value))
    return found[::-1]


def _p_value(values: Float[np.ndarray, "n G"], first: int, num_draws: int, rng: np.random.Generator) -> float:
    """Test whether the first so many rows differ from the others more than rows drawn at random do."""
    spread = values.std(axis=0)
    # What is the same for all says nothing; neither does rounding.
    varies = spread > 1e-9 * np.abs(values).max(initial=0)
    scaled = values[:, varies] / spread[varies]
    chosen = np.zeros((num_draws + 1, len(values)))
    chosen[0, :first] = 1
    chosen[1:] = rng.permuted(np.tile(chosen[0], (num_draws, 1)), axis=1)
    inside, total = chosen @ scaled, scaled.sum(axis=0)
    difference = inside / first - (total - inside) / (len(values) - first)
    sizes = np.sum(difference**2, axis=1)
    return float(np.mean(sizes >= sizes[0] * (1 - 1e-9)))


def _rank_correlation(one: Float[np.ndarray, " G"], other: Float[np.ndarray, " G"]) -> float:
    ranks = np.stack([rankdata(one), rankdata(other)])
    ranks -= ranks.mean(axis=1, keepdims=True)
    sizes = np.sqrt(np.prod(np.sum(ranks**2, axis=1)))
    return float(ranks[0] @ ranks[1] / sizes) if sizes > 0 else 1.0
