"""From a landscape to input columns: scores of conserved weights, and importance over a whole group of minima.

The good minima of a landscape are a Rashomon set (Fisher, Rudin & Dominici, JMLR 20, 177, 2019): models that explain
the data about equally well. What all of them need, the data need; what one of them needs may be its own habit.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import false_discovery_control
from scipy.stats import t as student_t

from jaxscape.analysis.conserved import ConservedWeights
from jaxscape.symmetry import Symmetry

RowLoss = Callable[[Float[Array, " P"], Float[Array, "N inputs"], Float[Array, " N"]], Float[Array, " N"]]


class Importance(NamedTuple):
    """How much worse the predictions of a group of models get once a column tells them nothing.

    `increases (m, N, G)`: of the loss of each row under each model, for each of G groups of columns that are shuffled
    together. Averaged over rows: the importance to each model; over models: how much a row's prediction leans on it.
    `groups (columns,)`: the group of each column; `strata (N,)`: the stratum (class) of each row; `shares (S,)`: how
    much each stratum counts in the mean, 1 in all; `spread`: how much wider the mean spreads than that of independent
    rows, which is 2 for the errors of a ranking of two classes that count alike, since both classes have the same mean
    (DeLong, DeLong & Clarke-Pearson, Biometrics 44, 837, 1988).
    """

    increases: Float[np.ndarray, "m N G"]
    groups: Int[np.ndarray, " columns"]
    strata: Int[np.ndarray, " N"]
    shares: Float[np.ndarray, " S"]
    spread: float = 1.0

    @property
    def mean(self) -> Float[np.ndarray, " columns"]:
        """Importance: the mean over models and rows, in units of the loss."""
        return self._of_models().mean(axis=0)[self.groups]

    @property
    def std(self) -> Float[np.ndarray, " columns"]:
        """How far the models differ: the standard deviation over them."""
        return self._of_models().std(axis=0)[self.groups]

    def _of_models(self) -> Float[np.ndarray, "m G"]:
        weights = (self.shares / np.bincount(self.strata, minlength=len(self.shares)))[self.strata]
        return np.einsum("mng,n->mg", self.increases, weights)


class Stability(NamedTuple):
    """How sure a ranking is: `same_top`: of `num_resamplings`, in how many the first `top` columns were the same ones,
    those that are shuffled together counted once; `low`, `high (columns,)`: the interval that held the importance of
    each column in 95 % of them."""

    same_top: int
    num_resamplings: int
    top: int
    low: Float[np.ndarray, " columns"]
    high: Float[np.ndarray, " columns"]


def feature_scores(conserved: ConservedWeights, symmetry: Symmetry) -> Float[np.ndarray, "G features"]:
    """Score each input by the conserved weights that lead from it: the sum of the magnitudes of their means.

    Args:
        conserved: from `conserved.conserved_weights`.
        symmetry: of the network; its first hidden layer holds the input weights.

    Returns:
        One score per group and input, not normalised.
    """
    return input_scores(conserved.mean, conserved.mask, symmetry)


def input_scores(
    weights: Float[np.ndarray, "n P"], mask: Bool[np.ndarray, "*n P"], symmetry: Symmetry
) -> Float[np.ndarray, "n features"]:
    """Score each input of each network by the sum of the magnitudes of its masked input weights.

    For the aligned members of a group, the spread of these scores says how far the members agree.
    """
    incoming = symmetry.layers[0].incoming
    scores: Float[np.ndarray, "n features"] = (np.abs(weights) * mask)[:, incoming].sum(axis=1)
    return scores


def importance(
    key: PRNGKeyArray,
    row_loss: RowLoss,
    models: Float[Array, "m P"],
    x: Float[Array, "N inputs"],
    y: Float[Array, " N"],
    column: Int[np.ndarray, " inputs"],
    *,
    groups: Int[np.ndarray, " columns"] | None = None,
    expected: Float[np.ndarray, "G N inputs"] | None = None,
    strata: Int[np.ndarray, " N"] | None = None,
    shares: Float[np.ndarray, " S"] | None = None,
    spread: float = 1.0,
    num_shuffles: int = 10,
) -> Importance:
    """Measure the permutation importance of every column to every model of a group.

    The values of a column are exchanged between rows, the same way for all models (Breiman, Mach. Learn. 45, 5, 2001).

    Args:
        key: a JAX random key.
        row_loss: `row_loss(weights, x, y) -> (N,)`, the loss of each row, pure JAX.
        models: the group, one model per row.
        x: held-out rows.
        y: their targets.
        column: the column that each input belongs to; the inputs of a column move together.
        groups: from `near_copies`: columns of one group move together; by default each on its own.
        expected: from `expected_inputs`, to exchange only what the other columns do not tell; by default the column
            as it is.
        strata: the stratum of each row, such as its class; one by default.
        shares: how much each stratum counts in the mean; by default as its rows do.
        spread: see `Importance`; 2 for `losses.ranking_errors`.
        num_shuffles: times that each column is shuffled.
    """
    groups = np.arange(int(column.max()) + 1) if groups is None else groups
    num_groups = int(groups.max()) + 1
    strata = np.zeros(len(x), int) if strata is None else strata
    shares = np.bincount(strata) / len(x) if shares is None else shares
    moves = jnp.asarray(groups[column] == np.arange(num_groups)[:, None])
    centre = jnp.zeros((num_groups, 1, 1), x.dtype) if expected is None else jnp.asarray(expected)
    increases = _importance(key, row_loss, models, x, y, moves, centre, num_shuffles)
    return Importance(np.asarray(increases), groups, strata, shares, spread)


@functools.partial(jax.jit, static_argnames=("row_loss", "num_shuffles"))
def _importance(
    key: PRNGKeyArray,
    row_loss: RowLoss,
    models: Array,
    x: Array,
    y: Array,
    moves: Array,
    centre: Array,
    num_shuffles: int,
) -> Array:
    every = jax.vmap(row_loss, in_axes=(0, None, None))
    before = every(models, x, y)

    def one_column(job: tuple[Array, Array, Array]) -> Array:
        key, inputs, centre = job

        def one_shuffle(key: Array) -> Array:
            moved = centre + jax.random.permutation(key, x - centre)
            return every(models, jnp.where(inputs, moved, x), y) - before

        return jax.lax.map(one_shuffle, jax.random.split(key, num_shuffles)).mean(axis=0)

    keys = jax.random.split(key, len(moves))
    return jnp.moveaxis(jax.lax.map(one_column, (keys, moves, centre)), 0, -1)


def near_copies(
    x_train: Float[np.ndarray, "n inputs"], column: Int[np.ndarray, " inputs"], *, correlation: float = 0.9
) -> Int[np.ndarray, " columns"]:
    """Group columns that tell nearly the same: of one input each, chained by correlations of at least so much.

    A model can do without either of two copies, so that each alone looks unimportant: shuffle them together. Columns
    with several inputs (categories) stay on their own: rare categories agree by chance.

    Returns:
        The group of each column, counted from 0.
    """
    num_columns = int(column.max()) + 1
    single = np.bincount(column, minlength=num_columns)[column] == 1
    near = np.abs(np.atleast_2d(np.corrcoef(x_train.T))) >= correlation
    first, second = np.nonzero(near & single[:, None] & single)
    graph = coo_array((np.ones(len(first), bool), (column[first], column[second])), shape=(num_columns, num_columns))
    return np.asarray(connected_components(graph, directed=False)[1]).astype(int)


def expected_inputs(
    x_train: Float[np.ndarray, "n inputs"],
    x: Float[np.ndarray, "N inputs"],
    column: Int[np.ndarray, " inputs"],
    *,
    groups: Int[np.ndarray, " columns"] | None = None,
) -> Float[np.ndarray, "G N inputs"]:
    """Predict the inputs of each column from those of all others, by linear least squares on the training rows.

    What is left of a column that others nearly tell is its own part; exchanging only that asks what the column adds
    (conditional importance; Strobl et al., BMC Bioinformatics 9, 307, 2008, by way of residuals). A column that others
    tell exactly has no part of its own: take it as one of their `groups`.
    """
    groups = np.arange(int(column.max()) + 1) if groups is None else groups
    expected = np.zeros((int(groups.max()) + 1, *x.shape))
    for i in range(len(expected)):
        own = groups[column] == i
        design, rows = (np.column_stack([part[:, ~own], np.ones(len(part))]) for part in (x_train, x))
        expected[i][:, own] = rows @ np.linalg.lstsq(design, x_train[:, own])[0]
    return expected


def p_values(importance: Importance) -> Float[np.ndarray, " columns"]:
    """Test for each column whether its importance is above zero, one column at a time.

    A t-test over the held-out rows, whose losses are averaged over the models, stratum by stratum, the degrees of
    freedom after Welch (Biometrika 34, 28, 1947). Of a column that is independent of all others and of the target the
    true value is zero, whatever the models make of it. A stratum of one row shows no spread: it is taken to spread as
    the stratum that spreads most, with its degrees of freedom. Where no stratum has two rows all values are 1.

    Returns:
        One-sided p-values, not adjusted; columns that are shuffled together share one.

    Raises:
        ValueError: if a stratum that counts in the mean has no row.
    """
    rows = importance.increases.mean(axis=0)
    parts = [rows[importance.strata == stratum] for stratum in range(len(importance.shares))]
    counts = np.array([len(part) for part in parts])
    if np.any(importance.shares[counts == 0] > 0):
        raise ValueError(f"strata {np.flatnonzero(counts == 0).tolist()} have a share in the mean, but no row")
    values = np.ones(rows.shape[1])
    several = np.flatnonzero(counts > 1)
    if several.size:
        mean = sum(importance.shares[k] * parts[k].mean(axis=0) for k in np.flatnonzero(counts))
        variances = np.zeros((len(parts), rows.shape[1]))
        variances[several] = [parts[k].var(axis=0, ddof=1) for k in several]
        widest = several[variances[several].argmax(axis=0)]
        freedom = np.broadcast_to(np.maximum(counts - 1, 1)[:, None], variances.shape).copy()
        for k in np.flatnonzero(counts == 1):
            variances[k], freedom[k] = variances[widest, np.arange(len(widest))], counts[widest] - 1
        errors = (importance.shares * importance.spread)[:, None] ** 2 * variances / np.maximum(counts, 1)[:, None]
        total = errors.sum(axis=0)
        varied = total > 0  # a column that no model looks at changes nothing
        welch = total[varied] ** 2 / np.sum(errors[:, varied] ** 2 / freedom[:, varied], axis=0)
        values[varied] = student_t.sf(mean[varied] / np.sqrt(total[varied]), welch)
    return values[importance.groups]


def significance(importance: Importance) -> Float[np.ndarray, " columns"]:
    """Return `p_values`, adjusted for false discoveries.

    After Benjamini & Hochberg (J. R. Stat. Soc. B 57, 289, 1995), columns that are shuffled together counted once.
    """
    _, first = np.unique(importance.groups, return_index=True)
    return false_discovery_control(p_values(importance)[first])[importance.groups]


def stability(
    rng: np.random.Generator, importance: Importance, *, top: int = 5, num_resamplings: int = 50
) -> Stability:
    """Rank the columns again with minima and rows drawn anew, with replacement: does the answer stay the same?

    Args:
        rng: the source of randomness.
        importance: of the group; rows are drawn within their strata.
        top: how many columns to follow, at most all; those that are shuffled together count as one.
        num_resamplings: bootstrap draws.
    """
    num_models, num_rows, num_groups = importance.increases.shape
    top = min(top, num_groups)
    counts = np.bincount(importance.strata, minlength=len(importance.shares))
    members = [np.flatnonzero(importance.strata == stratum) for stratum in range(len(counts))]
    drawn = np.empty((num_resamplings, num_groups))
    for row in drawn:
        # Counts instead of copies: the draw is two products with weights.
        models = np.bincount(rng.integers(num_models, size=num_models), minlength=num_models) / num_models
        weights = np.zeros(num_rows)
        for rows, share in zip(members, importance.shares, strict=True):
            np.add.at(weights, rng.choice(rows, len(rows)), share / len(rows))
        row[:] = weights @ np.tensordot(models, importance.increases, 1)
    means = np.empty(num_groups)
    means[importance.groups] = importance.mean
    drawn = means + importance.spread * (drawn - means)
    first = set(np.argsort(-means, kind="stable")[:top])
    same = sum(set(np.argsort(-row, kind="stable")[:top]) == first for row in drawn)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)[:, importance.groups]
    return Stability(same, num_resamplings, top, low, high)
