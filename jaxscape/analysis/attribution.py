"""From a landscape to input columns: scores of conserved weights, and importance over a whole group of minima.

The good minima of a landscape are a Rashomon set (Fisher, Rudin & Dominici, JMLR 20, 177, 2019): models that explain
the data about equally well. What all of them need, the data need; what one of them needs may be its own habit.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray
from scipy.optimize import brentq
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import false_discovery_control, norm
from scipy.stats import t as student_t

from jaxscape.analysis import conditional
from jaxscape.analysis.conditional import Replacements
from jaxscape.analysis.conserved import ConservedWeights
from jaxscape.programs import program
from jaxscape.symmetry import Symmetry

RowLoss = Callable[[Float[Array, " P"], Float[Array, "N inputs"], Float[Array, " N"]], Float[Array, " N"]]
MixtureLoss = Callable[
    [Float[Array, "m P"], Float[Array, " m"], Float[Array, "N inputs"], Float[Array, " N"]], Float[Array, " N"]
]
_MAX_STEPS = 100
_TINY = np.finfo(float).tiny
_AT_AN_END = 1e-9  # standard deviations
_MOST_NUMBERS = 1 << 23  # in the increases of the groups that are computed at once
_MAX_CORRELATED = 1 << 24  # numbers, of which correlations are computed

# Where each row is left out of its own models but learnt from by those of the others, every pair of rows counts twice:
# what fits nothing has twice the variance that exchanges within rows, one row at a time, say it has.
_LEARNT = np.sqrt(2.0)


class Importance(NamedTuple):
    """How much worse the predictions of a group of models get once a column tells them nothing.

    `increases (m, N, G)`: of the loss of each row under each model, for each of G groups of columns that are replaced
    together, the mean over K draws. Averaged over rows: the importance to each model. `groups (columns,)`: the group of
    each column; `strata (N,)`: the stratum (class) of each row; `shares (S,)`: how much each stratum counts in the
    mean, 1 in all; `weights (m,)`: the same for each model; `draws (K, N, G)`: the increase for all models together at
    each draw; `spread`: how much wider the mean spreads than that of independent rows, which is 2 for the errors of a
    ranking of two classes that count alike, since both classes have the same mean (DeLong, DeLong & Clarke-Pearson,
    Biometrics 44, 837, 1988); `learnt (N,)`: rows that are judged by models without them, but learnt from by the models
    of the others; None where all rows are held out; `counts (N,)`: how much each row counts within its stratum, None
    where all count the same.
    """

    increases: Float[np.ndarray, "m N G"]
    groups: Int[np.ndarray, " columns"]
    strata: Int[np.ndarray, " N"]
    shares: Float[np.ndarray, " S"]
    weights: Float[np.ndarray, " m"]
    draws: Float[np.ndarray, "K N G"]
    spread: float = 1.0
    learnt: Bool[np.ndarray, " N"] | None = None
    counts: Float[np.ndarray, " N"] | None = None

    @property
    def row_weights(self) -> Float[np.ndarray, " N"]:
        """How much each row counts in the mean, 1 in all."""
        return row_weights(self.strata, self.shares, self.counts)

    @property
    def mean(self) -> Float[np.ndarray, " columns"]:
        """Importance to all models together: the mean over rows, in units of the loss."""
        return (self.row_weights @ self.draws.mean(axis=0))[self.groups]

    @property
    def each(self) -> Float[np.ndarray, "m columns"]:
        """Importance to each model."""
        return np.einsum("mng,n->mg", self.increases, self.row_weights)[:, self.groups]

    @property
    def std(self) -> Float[np.ndarray, " columns"]:
        """How far the models differ: the standard deviation over them."""
        each = self.each
        return np.sqrt(self.weights @ (each - self.weights @ each) ** 2)


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
    models: Float[Array, "m P"] | Float[Array, "m N P"],
    x: Float[Array, "N inputs"],
    y: Float[Array, " N"],
    column: Int[np.ndarray, " inputs"],
    *,
    x_train: Float[np.ndarray, "n inputs"] | None = None,
    mixture_loss: MixtureLoss | None = None,
    groups: Int[np.ndarray, " columns"] | None = None,
    weights: Float[np.ndarray, " m"] | None = None,
    strata: Int[np.ndarray, " N"] | None = None,
    shares: Float[np.ndarray, " S"] | None = None,
    counts: Float[np.ndarray, " N"] | None = None,
    spread: float = 1.0,
    num_shuffles: int = 10,
    used: Bool[np.ndarray, " columns"] | None = None,
) -> Importance:
    """Measure the permutation importance of every column to every model of a group.

    The values of a column are exchanged between rows, the same way for all models (Breiman, Mach. Learn. 45, 5, 2001),
    or drawn given the other columns (`conditional.given_others`).

    Args:
        key: a JAX random key.
        row_loss: `row_loss(weights, x, y) -> (N,)`, the loss of each row, pure JAX.
        models: the group; the same for all rows, or for each row those that have not seen it, as from
            `leave_one_out.minima`.
        x: rows that the models have not seen.
        y: their targets.
        column: the column that each input belongs to; the inputs of a column move together.
        x_train: rows to learn from how columns depend on one another, for the conditional importance: what a column
            adds to the others. By default the marginal one: what the models make of it.
        mixture_loss: `mixture_loss(models, weights, x, y) -> (N,)`, the loss of each row when all models predict
            together. By default the weighted mean of their losses, which counts as importance also what the models
            do on their own and the mean prediction does not.
        groups: from `near_copies`: columns of one group move together; by default each on its own.
        weights: how much each model counts, of any sum; by default all the same.
        strata: the stratum of each row, such as its class; one by default.
        shares: how much each stratum counts in the mean; by default as its rows do.
        counts: how much each row counts within its stratum; by default all the same.
        spread: see `Importance`; 2 for `losses.ranking_errors`.
        num_shuffles: times that each column is replaced.
        used: columns that some model looks at, all by default; a group without any changes nothing, and costs nothing.

    Raises:
        ValueError: if weights of models are negative, not finite, or all zero.
    """
    groups = np.arange(int(column.max()) + 1) if groups is None else groups
    weights = np.ones(len(models)) if weights is None else weights
    if not (np.all(np.isfinite(weights)) and np.all(weights >= 0) and weights.sum() > 0):
        raise ValueError(f"weights of models must be finite and not negative, and some positive, got {weights}")
    weights = weights / weights.sum()
    strata = np.zeros(len(x), int) if strata is None else strata
    if shares is None:
        shares = np.bincount(strata, counts) / (len(x) if counts is None else counts.sum())
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    wanted = np.ones(int(groups.max()) + 1, bool)
    if used is not None:
        wanted[:] = False
        wanted[groups[used]] = True
    if x_train is None:
        replacements = conditional.shuffled(rng, np.asarray(x), column, groups, num_shuffles=num_shuffles)
    else:
        replacements = conditional.given_others(
            rng, x_train, np.asarray(x), column, groups, num_shuffles=num_shuffles, wanted=wanted
        )
    increases = np.zeros((len(models), len(x), len(wanted)), x.dtype)
    draws = np.zeros((num_shuffles, len(x), len(wanted)), x.dtype)
    number = max(_MOST_NUMBERS // increases[:, :, 0].size, 1)  # of groups at once
    todo = np.flatnonzero(wanted)
    for first in range(0, len(todo), number):
        some = todo[first : first + number]
        # As many each time, so that one program does: the last ones once more.
        batch = todo[np.minimum(np.arange(first, first + number), len(todo) - 1)] if len(todo) > number else some
        job = jax.tree.map(lambda leaf, batch=batch: leaf[batch], replacements)
        found = _importance(row_loss, mixture_loss, models, jnp.asarray(weights, x.dtype), x, y, job)
        increases[:, :, some], draws[:, :, some] = (np.asarray(each)[:, :, : len(some)] for each in found)
    return Importance(increases, groups, strata, shares, weights, draws, spread, counts=counts)


def _change(after: Array, before: Array) -> Array:
    """Return the difference, zero where it may be rounding: that of a column of no weight always has the same sign."""
    rounding = 64 * jnp.finfo(before.dtype).eps * (1 + jnp.abs(before))
    return jnp.where(jnp.abs(after - before) <= rounding, 0, after - before)


@program(static_argnames=("row_loss", "mixture_loss"))
def _importance(
    row_loss: RowLoss,
    mixture_loss: MixtureLoss | None,
    models: Array,
    weights: Array,
    x: Array,
    y: Array,
    replacements: Replacements,
) -> tuple[Array, Array]:
    def losses(models: Array, x: Array, y: Array) -> tuple[Array, Array]:
        each = jax.vmap(row_loss, in_axes=(0, None, None))(models, x, y)
        return each, weights @ each if mixture_loss is None else mixture_loss(models, weights, x, y)

    def of_own(moved: Array) -> tuple[Array, Array]:
        """Return the losses of K versions of the rows, each row through its own models: (K, m, N) and (K, N)."""
        one_row: Any = jax.vmap(lambda own, x, y: losses(own, x, jnp.full(len(x), y)), in_axes=(1, 1, 0), out_axes=-1)
        each, together = one_row(models, moved, y)
        return jnp.moveaxis(each, 1, 0), together

    shared = models.ndim == 2
    before = losses(models, x, y) if shared else jax.tree.map(lambda leaf: leaf[0], of_own(x[None]))

    def one_group(job: Replacements) -> tuple[Array, Array]:
        def move(donors: Array) -> Array:
            return x.at[:, job.inputs].set(job.base + job.pool[donors], mode="drop")

        if shared:
            after = jax.lax.map(lambda donors: losses(models, move(donors), y), job.donors)
        else:  # The models take the room, so that all versions of a row go through them at once.
            after = of_own(jax.vmap(move)(jnp.asarray(job.donors)))
        increases, draws = jax.tree.map(_change, after, before)
        return increases.mean(axis=0), draws

    increases, draws = jax.lax.map(one_group, replacements)
    return jnp.moveaxis(increases, 0, -1), jnp.moveaxis(draws, 0, -1)


def pooled(held_out: Importance, left_out: Importance) -> Importance:
    """Return the importance to the same models over two sets of rows.

    Args:
        held_out: over rows that no model has seen.
        left_out: over rows that each were left out of their own models alone.
    """
    parts = held_out, left_out
    return held_out._replace(
        increases=np.concatenate([each.increases for each in parts], axis=1),
        strata=np.concatenate([each.strata for each in parts]),
        draws=np.concatenate([each.draws for each in parts], axis=1),
        learnt=np.repeat([False, True], [len(each.strata) for each in parts]),
        counts=None if held_out.counts is None else np.concatenate([each.counts for each in parts]),
    )


def over_held_out(importance: Importance) -> Importance:
    """Return the importance over those rows alone that no model has seen."""
    if importance.learnt is None:
        return importance
    kept = ~importance.learnt
    return importance._replace(
        increases=importance.increases[:, kept],
        strata=importance.strata[kept],
        draws=importance.draws[:, kept],
        learnt=None,
        counts=None if importance.counts is None else importance.counts[kept],
    )


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
    x_train = x_train[:: max(x_train.size // _MAX_CORRELATED, 1)]
    with np.errstate(invalid="ignore"):  # a constant column goes with none
        near = np.abs(np.atleast_2d(np.corrcoef(x_train.T))) >= correlation
    first, second = np.nonzero(near & single[:, None] & single)
    graph = coo_array((np.ones(len(first), bool), (column[first], column[second])), shape=(num_columns, num_columns))
    return np.asarray(connected_components(graph, directed=False)[1]).astype(int)


def row_weights(
    strata: Int[np.ndarray, " N"], shares: Float[np.ndarray, " S"], counts: Float[np.ndarray, " N"] | None = None
) -> Float[np.ndarray, " N"]:
    """Return how much each row counts in the mean; `counts`: within its stratum, all the same by default.

    Raises:
        ValueError: if a stratum that counts in the mean has no row.
    """
    totals = np.bincount(strata, counts, minlength=len(shares))
    if np.any(shares[totals == 0] > 0):
        raise ValueError(f"strata {np.flatnonzero((totals == 0) & (shares > 0)).tolist()} have a share, but no row")
    return (shares / np.where(totals > 0, totals, 1))[strata] * (1 if counts is None else counts)


def p_values(importance: Importance) -> Float[np.ndarray, " columns"]:
    """Test for each column whether its importance is above zero, one column at a time.

    If the target does not depend on a column given the others, its own value in a row and the K that were drawn for it
    are equally likely to be the observed one. So the loss at the observed one is compared with what it would be, were
    each row's observed value any of the K + 1, whatever the models make of the column and however skewed the losses
    are (Tansey et al., J. Comput. Graph. Stat. 31, 151, 2022; with one draw these are sign flips). Values that are
    exchanged between rows, not drawn anew, make the test conservative where they raise the loss of any row alike. With
    the marginal importance the question is whether a column is independent of the target and of all others.

    Returns:
        One-sided p-values, not adjusted; columns that are replaced together share one. Where nothing changes, 1.

    Raises:
        ValueError: if a stratum that counts in the mean has no row.
    """
    draws, rows = importance.draws, importance.row_weights
    observed = rows @ draws.mean(axis=0)
    values = [upper_tail(_outcomes(importance, group), float(observed[group])) for group in range(len(observed))]
    return np.array(values)[importance.groups]


def _outcomes(importance: Importance, group: int) -> Float[np.ndarray, "K N"]:
    """Return what each row may add to the importance of a group, were the observed value any of those drawn."""
    rows, draws = importance.row_weights, importance.draws[:, :, group]
    losses = np.concatenate([np.zeros((1, draws.shape[1])), draws])
    return _spreads(importance) * rows * ((losses.sum(axis=0) - losses) / len(draws) - losses)


def _spreads(importance: Importance) -> Float[np.ndarray, " N"]:
    learnt = np.zeros(len(importance.strata), bool) if importance.learnt is None else importance.learnt
    return importance.spread * np.where(learnt, _LEARNT, 1.0)


def upper_tail(outcomes: Float[np.ndarray, "K N"], observed: float) -> float:
    """Return the probability that a sum of N independent numbers, each any of its K outcomes, is at least `observed`.

    The outcomes of each number must have mean zero. By saddlepoint, never below the chance that all numbers are at
    their highest (Lugannani & Rice, Adv. Appl. Probab. 12, 475, 1980, equation 20).

    >>> import scipy.stats
    >>> coins = np.array([[1.0], [-1.0]]) * np.ones(100)
    >>> exact = scipy.stats.binom.sf(59, 100, 0.5)  # 60 heads and 40 tails, or more
    >>> print(f"{upper_tail(coins, 19.0):.3f}, exact {exact:.3f}")  # halfway between two possible sums
    0.029, exact 0.028
    """
    variance = float(np.sum(np.mean(outcomes**2, axis=0)))
    if variance == 0:
        return 1.0
    outcomes, observed = outcomes / np.sqrt(variance), observed / np.sqrt(variance)
    highest = outcomes.max(axis=0)
    least = float(np.prod(np.mean(outcomes == highest, axis=0)))
    if observed > highest.sum() - _AT_AN_END:
        return least
    if observed < outcomes.min(axis=0).sum() + _AT_AN_END:
        return 1.0
    tilt, low, high = observed, -np.inf, np.inf
    for _ in range(_MAX_STEPS):
        mean, curvature, cumulant = _tilted(outcomes, tilt)
        error = mean - observed
        if abs(error) < 1e-9:
            break
        low, high = (tilt, high) if error < 0 else (low, tilt)
        # Not far beyond what is known, where the curvature has died away.
        ends = max(low, -2 * abs(tilt) - 1), min(high, 2 * abs(tilt) + 1)
        step = tilt - error / curvature if curvature > 0 else np.inf
        tilt = step if ends[0] < step < ends[1] else (ends[0] + ends[1]) / 2
    return float(np.clip(_tail(outcomes, tilt, observed, curvature, cumulant), least, 1.0))


def _tilted(outcomes: Float[np.ndarray, "K N"], tilt: float) -> tuple[float, float, float]:
    """Return the mean and the variance of the sum, each outcome weighed by exp(tilt * outcome), and the log of all."""
    largest = np.max(tilt * outcomes, axis=0)
    powers = np.exp(tilt * outcomes - largest)
    chances = powers / powers.sum(axis=0)
    means = np.sum(chances * outcomes, axis=0)
    variance = float(np.sum(chances * outcomes**2) - np.sum(means**2))
    return float(means.sum()), variance, float(np.sum(largest + np.log(powers.mean(axis=0))))


def _tail(outcomes: np.ndarray, tilt: float, observed: float, curvature: float, cumulant: float) -> float:
    root = np.sign(tilt) * np.sqrt(2 * max(tilt * observed - cumulant, 0.0))
    if abs(root) < 1e-3:  # the two poles cancel
        return float(norm.sf(observed) - norm.pdf(0) * np.sum(np.mean(outcomes**3, axis=0)) / 6)
    return float(norm.sf(root) + norm.pdf(root) * (1 / (tilt * np.sqrt(curvature)) - 1 / root))


def upper_quantile(outcomes: Float[np.ndarray, "K N"], tail: float) -> float:
    """Return the number that a sum as in `upper_tail` reaches with this probability, below 0.5; the highest sum, if
    that is more likely.

    >>> coins = np.array([[1.0], [-1.0]]) * np.ones(100)
    >>> print(f"{upper_tail(coins, upper_quantile(coins, 0.03)):.6f}")
    0.030000
    """
    spread = float(np.sqrt(np.sum(np.mean(outcomes**2, axis=0))))
    if spread == 0:
        return 0.0
    outcomes = outcomes / spread
    highest = outcomes.max(axis=0)
    most = float(highest.sum()) - _AT_AN_END
    if np.prod(np.mean(outcomes == highest, axis=0)) >= tail:
        return spread * float(highest.sum())

    def excess(tilt: float) -> float:
        mean, curvature, cumulant = _tilted(outcomes, tilt)
        if mean >= most or curvature <= 0:
            return -1.0
        return float(np.log(max(_tail(outcomes, tilt, mean, curvature, cumulant), _TINY) / tail))

    low, high = 1e-3, 2.0
    if excess(low) <= 0:  # so skewed that even the mean is reached more rarely
        return 0.0
    while excess(high) > 0:
        low, high = high, 2 * high
    return spread * _tilted(outcomes, float(brentq(excess, low, high, rtol=1e-9)))[0]


def repeated_splits(
    increases: Float[np.ndarray, "S columns"], num_train: int, num_test: int
) -> Float[np.ndarray, " columns"]:
    """Test for each column whether its importance is above zero, from several splits of the same rows.

    Splits share rows, so that their means vary together: the variance over splits is raised by what they share, as far
    as that is known (Nadeau & Bengio, Mach. Learn. 52, 239, 2003: the corrected resampled t-test).

    Args:
        increases: the importance (`Importance.mean`) in each split, everything refitted inside it.
        num_train: rows to train on in each split.
        num_test: rows held out in each split.

    Returns:
        One-sided p-values, not adjusted; 1 where nothing varies.

    Raises:
        ValueError: if there are fewer than two splits.
    """
    number = len(increases)
    if number < 2:
        raise ValueError(f"one split shows no spread: need at least two, got {number}")
    variances = (1 / number + num_test / num_train) * increases.var(axis=0, ddof=1)
    values, varied = np.ones(increases.shape[1]), variances > 0
    values[varied] = student_t.sf(increases.mean(axis=0)[varied] / np.sqrt(variances[varied]), number - 1)
    return values


def significance(importance: Importance) -> Float[np.ndarray, " columns"]:
    """Return `p_values`, adjusted for false discoveries.

    After Benjamini & Hochberg (J. R. Stat. Soc. B 57, 289, 1995), columns that are shuffled together counted once.
    """
    _, first = np.unique(importance.groups, return_index=True)
    return false_discovery_control(p_values(importance)[first])[importance.groups]


def by_chance(importance: Importance, *, false_discoveries: float = 0.05) -> Float[np.ndarray, " columns"]:
    """Return how much importance a column could have by chance: those above are the ones that `significance` calls.

    The level of each test is that at which the called columns are called, so that the importance less this number is a
    lower bound that holds for the called ones together (Benjamini & Yekutieli, J. Am. Stat. Assoc. 100, 71, 2005).

    Args:
        importance: of the group.
        false_discoveries: the largest share of them among the called columns.
    """
    _, first = np.unique(importance.groups, return_index=True)
    called = significance(importance)[first] <= false_discoveries
    level = false_discoveries * max(int(called.sum()), 1) / len(first)
    most = np.array([upper_quantile(_outcomes(importance, group), level) for group in range(len(first))])
    # Where the importance is the largest possible both are the same number, but for rounding.
    mean = importance.mean[first]
    return np.where(called, np.minimum(most, np.nextafter(mean, -np.inf)), np.maximum(most, mean))[importance.groups]


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
    members = [np.flatnonzero(importance.strata == stratum) for stratum in range(len(importance.shares))]
    together, even = importance.draws.mean(axis=0), importance.row_weights
    spreads, drawn = _spreads(importance), np.empty((num_resamplings, num_groups))
    for row in drawn:
        # Counts instead of copies: the draw is two products with weights.
        models = rng.multinomial(num_models, importance.weights) / num_models
        weights = np.zeros(num_rows)
        for rows in members:
            chosen = rng.choice(rows, len(rows))
            np.add.at(weights, chosen, even[chosen])
        row[:] = (spreads * (weights - even)) @ together
        row += (spreads * weights) @ np.tensordot(models - importance.weights, importance.increases, 1)
    means = even @ together
    drawn += means
    first = set(np.argsort(-means, kind="stable")[:top])
    same = sum(set(np.argsort(-row, kind="stable")[:top]) == first for row in drawn)
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)[:, importance.groups]
    return Stability(same, num_resamplings, top, low, high)
