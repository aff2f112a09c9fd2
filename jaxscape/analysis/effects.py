"""How predictions move with a column, and what moved one prediction: for all networks of a group at once.

Where equally good networks draw the same curve, the data draw it; where they part, they do not.
"""

import itertools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

Predict = Callable[[Float[np.ndarray, "R inputs"]], Float[np.ndarray, "m R"]]
_MAX_NUMBERS = 1 << 22  # in the rows that are predicted at once
_ROUNDING = 1e-9  # of the spread of the outputs
_PARTS = 30  # of the range of a column, that rows are counted in


class Effect(NamedTuple):
    """An accumulated local effect: `at (K,)`, places along the column; `each (m, K)`: how far each network lifts its
    prediction there, zero on average over the rows; `weights (m,)` of the networks, 1 in all; `density (D,)`: the share
    of the rows in each of D equal parts of the way from the first place to the last, or at each place where these are
    categories."""

    at: Float[np.ndarray, " K"]
    each: Float[np.ndarray, "m K"]
    weights: Float[np.ndarray, " m"]
    density: Float[np.ndarray, " D"]

    @property
    def mean(self) -> Float[np.ndarray, " K"]:
        """The effect on the prediction of all networks together."""
        return self.weights @ self.each

    @property
    def std(self) -> Float[np.ndarray, " K"]:
        """How far the networks differ."""
        return np.sqrt(self.weights @ (self.each - self.mean) ** 2)


class Contributions(NamedTuple):
    """What moved one prediction: `each (m, columns)`, of each network; `base (m,)`: the mean prediction that they start
    from; `weights (m,)` of the networks, 1 in all. `base` plus the sum over columns is the prediction."""

    each: Float[np.ndarray, "m columns"]
    base: Float[np.ndarray, " m"]
    weights: Float[np.ndarray, " m"]

    @property
    def mean(self) -> Float[np.ndarray, " columns"]:
        """The contributions to the prediction of all networks together."""
        return self.weights @ self.each

    @property
    def std(self) -> Float[np.ndarray, " columns"]:
        """How far the networks differ."""
        return np.sqrt(self.weights @ (self.each - self.mean) ** 2)


def accumulated_effect(
    predict: Predict,
    x: Float[np.ndarray, "N inputs"],
    place: int,
    weights: Float[np.ndarray, " m"],
    *,
    num_bins: int = 20,
) -> Effect:
    """Measure how predictions move with one input, while the others stay what they are.

    Rows are moved from one end to the other of the bin that they lie in, and nowhere else, so that no row is asked
    about where there are no data; the mean changes of all bins are added up (Apley & Zhu, J. R. Stat. Soc. B 82, 1059,
    2020).

    Args:
        predict: the predictions of all networks.
        x: rows.
        place: the input.
        weights: of the networks, 1 in all.
        num_bins: bins of equally many rows, fewer where values are equal.
    """
    values = x[:, place]
    at = np.unique(np.quantile(values, np.linspace(0, 1, num_bins + 1)))
    if len(at) < 2:
        return Effect(at, np.zeros((len(weights), len(at))), weights, np.ones(1))
    bins = np.clip(np.searchsorted(at, values, side="left") - 1, 0, len(at) - 2)
    low, high = x.copy(), x.copy()
    low[:, place], high[:, place] = at[bins], at[bins + 1]
    changes = predict(high) - predict(low)
    counts = np.bincount(bins, minlength=len(at) - 1)
    sums = np.stack([np.bincount(bins, row, minlength=len(at) - 1) for row in changes])
    each = np.concatenate([np.zeros((len(sums), 1)), np.cumsum(sums / np.maximum(counts, 1), axis=1)], axis=1)
    middle = (each[:, 1:] + each[:, :-1]) / 2
    density = np.histogram(values, _PARTS, (at[0], at[-1]))[0] / len(values)
    return Effect(at, each - (middle @ (counts / counts.sum()))[:, None], weights, density)


class Interaction(NamedTuple):
    """What two columns do together beyond what each does: `columns`; `strength`, in units of the output, the root mean
    square of it, of all networks together; `std`: how far the strengths of the networks lie from that; `share`: of the
    joint effect of the two, 0 for a sum of two effects, 1 where neither has one of its own."""

    columns: tuple[int, int]
    strength: float
    std: float
    share: float


def interactions(
    outputs: Callable[[Float[np.ndarray, "R inputs"]], Float[np.ndarray, "m R K"]],
    x: Float[np.ndarray, "N inputs"],
    column: Int[np.ndarray, " inputs"],
    chosen: list[int],
    weights: Float[np.ndarray, " m"],
) -> list[Interaction]:
    """Rank pairs of columns by how far their joint effect is from a sum of two effects.

    The H statistic of Friedman & Popescu (Ann. Appl. Stat. 2, 916, 2008, eq. 44), whose numerator ranks: the ratio is
    large by chance where two columns do next to nothing (Inglis, Parnell & Hurley, J. Comput. Graph. Stat. 31, 766,
    2022). Effects are partial dependences on the rows given: columns that move together are asked about where there are
    no data. Give the outputs that are added up, such as logits: probabilities are no sum of anything.

    Args:
        outputs: the outputs of all networks.
        x: rows; N squared of them are predicted for each column and each pair.
        column: the column that each input belongs to.
        chosen: columns, of which all pairs are asked.
        weights: of the networks, 1 in all.

    Returns:
        The pairs, the strongest first.
    """

    spread = float(outputs(x).std(axis=1).max(initial=0))

    def dependence(columns: tuple[int, ...]) -> Float[np.ndarray, "m N K"]:
        moved = np.isin(column, columns)
        rows = np.where(moved, x[:, None], x).reshape(-1, x.shape[1])
        found = outputs(rows)
        means = found.reshape(len(weights), len(x), len(x), -1).mean(axis=2)
        return np.asarray(means - means.mean(axis=1, keepdims=True))

    alone = {one: dependence((one,)) for one in chosen}
    found = []
    for pair in itertools.combinations(alone, 2):
        both = dependence(pair)
        beyond = both - alone[pair[0]] - alone[pair[1]]
        each = np.sqrt(np.mean(np.sum(beyond**2, axis=2), axis=1))
        together, joint = np.tensordot(weights, beyond, 1), np.tensordot(weights, both, 1)
        strength = math.sqrt(np.mean(np.sum(together**2, axis=1)))
        total = math.sqrt(np.mean(np.sum(joint**2, axis=1)))
        std = math.sqrt(weights @ (each - strength) ** 2)
        share = min((strength / total) ** 2, 1.0) if total > _ROUNDING * spread else 0.0
        found.append(Interaction(pair, strength, std, share))
    return sorted(found, key=lambda interaction: -interaction.strength)


def contributions(
    predict: Predict,
    x: Float[np.ndarray, " inputs"],
    background: Float[np.ndarray, "B inputs"],
    column: Int[np.ndarray, " inputs"],
    weights: Float[np.ndarray, " m"],
    rng: np.random.Generator,
    *,
    num_orders: int = 64,
) -> Contributions:
    """Share out what moves a prediction from the mean over a background to that of one row: Shapley values.

    Column after column takes the value of the row, and what changes is its own; this is averaged over orders of the
    columns, all of them where they are few (Štrumbelj & Kononenko, Knowl. Inf. Syst. 41, 647, 2014), else drawn ones,
    each with its reverse. Columns whose inputs are those of the background contribute nothing.

    Args:
        predict: the predictions of all networks.
        x: the row.
        background: rows to start from, each as likely.
        column: the column that each input belongs to.
        weights: of the networks, 1 in all.
        rng: draws the orders.
        num_orders: how many, at most.
    """
    num_columns = int(column.max()) + 1
    room = max(_MAX_NUMBERS // ((num_columns + 1) * len(x)), 1)
    background = background[:: -(-len(background) // room)]
    if math.factorial(min(num_columns, 20)) <= num_orders:
        orders = [np.array(order) for order in itertools.permutations(range(num_columns))]
    else:
        drawn = [rng.permutation(num_columns) for _ in range(num_orders // 2)]
        orders = [order for one in drawn for order in (one, one[::-1])]
    each, base = np.zeros((len(weights), num_columns)), np.zeros(len(weights))
    for order in orders:
        turn = np.argsort(order)[column]  # when each input takes the value of the row
        moved = turn[None] < np.arange(num_columns + 1)[:, None]
        rows = np.where(moved[:, None], x, background).reshape(-1, len(x))
        means = predict(rows).reshape(len(weights), num_columns + 1, len(background)).mean(axis=2)
        each[:, order] += np.diff(means, axis=1) / len(orders)
        base = means[:, 0]
    return Contributions(each, base, weights)
