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
from scipy.stats import false_discovery_control, ttest_1samp

from jaxscape.analysis.conserved import ConservedWeights
from jaxscape.symmetry import Symmetry

RowLoss = Callable[[Float[Array, " P"], Float[Array, "N inputs"], Float[Array, " N"]], Float[Array, " N"]]


class Importance(NamedTuple):
    """How much worse the predictions of a group of models get once a column tells them nothing.

    `increases (m, N, columns)`: of the loss of each row under each model. Averaged over rows: the importance of a
    column to each model; over models: how much a row's prediction leans on each column.
    """

    increases: Float[np.ndarray, "m N columns"]

    @property
    def mean(self) -> Float[np.ndarray, " columns"]:
        """Importance: the mean over models and rows, in units of the loss."""
        return self.increases.mean(axis=(0, 1))

    @property
    def std(self) -> Float[np.ndarray, " columns"]:
        """How far the models differ: the standard deviation over them."""
        return self.increases.mean(axis=1).std(axis=0)


class Stability(NamedTuple):
    """How sure a ranking is: `same_top`: of `num_resamplings`, in how many the first `top` columns were the same ones;
    `low`, `high (columns,)`: the interval that held the importance of each column in 95 % of them."""

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
    together: Bool[np.ndarray, "columns columns"] | None = None,
    expected: Float[np.ndarray, "columns N inputs"] | None = None,
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
        together: from `near_copies`: which columns move with each; by default each on its own.
        expected: from `expected_inputs`, to exchange only what the other columns do not tell; by default the column
            as it is.
        num_shuffles: times that each column is shuffled.
    """
    num_columns = int(column.max()) + 1
    together = np.eye(num_columns, dtype=bool) if together is None else together
    centre = jnp.zeros((num_columns, 1, 1), x.dtype) if expected is None else jnp.asarray(expected)
    increases = _importance(key, row_loss, models, x, y, jnp.asarray(together[:, column]), centre, num_shuffles)
    return Importance(np.asarray(increases))


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
) -> Bool[np.ndarray, "columns columns"]:
    """Say which columns tell nearly the same: an input of one correlates with one of the other, at least so much.

    A model can do without either of two copies, so that each alone looks unimportant: shuffle them together.
    """
    together = np.eye(int(column.max()) + 1, dtype=bool)
    first, second = np.nonzero(np.abs(np.atleast_2d(np.corrcoef(x_train.T))) >= correlation)
    together[column[first], column[second]] = True
    return together


def expected_inputs(
    x_train: Float[np.ndarray, "n inputs"],
    x: Float[np.ndarray, "N inputs"],
    column: Int[np.ndarray, " inputs"],
    *,
    together: Bool[np.ndarray, "columns columns"] | None = None,
) -> Float[np.ndarray, "columns N inputs"]:
    """Predict the inputs of each column from those of all others, by linear least squares on the training rows.

    What is left of a column that others nearly tell is its own part; exchanging only that asks what the column adds
    (conditional importance; Strobl et al., BMC Bioinformatics 9, 307, 2008, by way of residuals). A column that others
    tell exactly has no part of its own: take it `together` with them.
    """
    num_columns = int(column.max()) + 1
    together = np.eye(num_columns, dtype=bool) if together is None else together
    expected = np.zeros((num_columns, *x.shape))
    for i in range(num_columns):
        own = together[i, column]
        design, rows = (np.column_stack([part[:, ~own], np.ones(len(part))]) for part in (x_train, x))
        expected[i][:, own] = rows @ np.linalg.lstsq(design, x_train[:, own])[0]
    return expected


def significance(importance: Importance) -> Float[np.ndarray, " columns"]:
    """Test for each column whether its importance is above zero: p-values adjusted for false discoveries.

    A t-test over the held-out rows, whose losses are averaged over the models; adjusted after Benjamini & Hochberg
    (J. R. Stat. Soc. B 57, 289, 1995). Of a column that is independent of all others and of the target the true value
    is zero, whatever the models make of it.
    """
    rows = importance.increases.mean(axis=0)
    p_values = np.ones(rows.shape[1])
    varied = rows.std(axis=0) > 0  # a column that no model looks at changes nothing
    if varied.any():
        p_values[varied] = ttest_1samp(rows[:, varied], 0, alternative="greater").pvalue
    return false_discovery_control(p_values)


def stability(
    rng: np.random.Generator, importance: Importance, *, top: int = 5, num_resamplings: int = 50
) -> Stability:
    """Rank the columns again with minima and rows drawn anew, with replacement: does the answer stay the same?

    Args:
        rng: the source of randomness.
        importance: of the group.
        top: how many columns to follow, at most all.
        num_resamplings: bootstrap draws.
    """
    increases = importance.increases
    num_models, num_rows, num_columns = increases.shape
    top = min(top, num_columns)
    first = set(np.argsort(-importance.mean, kind="stable")[:top])
    drawn = np.empty((num_resamplings, num_columns))
    for row in drawn:
        # Counts instead of copies: the draw is two products with weights.
        models = np.bincount(rng.integers(num_models, size=num_models), minlength=num_models) / num_models
        rows = np.bincount(rng.integers(num_rows, size=num_rows), minlength=num_rows) / num_rows
        row[:] = rows @ np.tensordot(models, increases, 1)
    same = sum(set(np.argsort(-row, kind="stable")[:top]) == first for row in drawn)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return Stability(same, num_resamplings, top, low, high)
