"""What stands in for a column when its importance is measured: its values in other rows, or values the others allow.

A column that is exchanged between rows as it is moves rows to where no model saw any data, if other columns tell what
it should be; whatever a model does there counts as importance. Values drawn given the other columns stay among the
data: what is lost is what the column alone adds (Strobl et al., BMC Bioinformatics 9, 307, 2008; with residuals:
Chamma, Engemann & Thirion, NeurIPS 2023, arXiv:2309.07593).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

_STRENGTHS = np.geomspace(1e-5, 10, 25)  # of the ridge, in units of the variance of a standardised input
_MAX_ROWS = 5000  # to search for curves in, and to fit probabilities to
_MAX_BENT = 400  # other inputs: of more, curves are not looked for, and a category is predicted from the nearest
_CLEAR = 5.0  # standard errors: among some 1e5 curves tried none is as large by chance
_MAX_CURVES = 40
_NUM_KNOTS = 7
_NUM_STEPS = 100
_NUM_SCALINGS = 20


class Replacements(NamedTuple):
    """Values that stand in for the inputs of each of G groups of columns, K times: `base + pool[donors]`.

    `inputs (G, w)`: which inputs a group holds; where it has fewer than w, the rest is the number of all inputs.
    `base (G, N, w)`: what each row keeps; `pool (G, M, w)`: what is handed out; `donors (G, K, N)`: which of it, to
    each row, each time.
    """

    inputs: Int[np.ndarray, "G w"]
    base: Float[np.ndarray, "G N w"]
    pool: Float[np.ndarray, "G M w"]
    donors: Int[np.ndarray, "G K N"]


def shuffled(
    rng: np.random.Generator,
    x: Float[np.ndarray, "N inputs"],
    column: Int[np.ndarray, " inputs"],
    groups: Int[np.ndarray, " columns"],
    *,
    num_shuffles: int = 10,
) -> Replacements:
    """Exchange the values of each group of columns between rows, as they are.

    Args:
        rng: the source of randomness.
        x: the rows.
        column: the column that each input belongs to.
        groups: the group of each column, counted from 0.
        num_shuffles: times that each group is shuffled.
    """
    members = _members(column, groups)
    drawn = _empty(members, x, len(x), num_shuffles)
    for group, own in enumerate(members):
        drawn.pool[group, :, : len(own)] = x[:, own]
        drawn.donors[group] = rng.permuted(drawn.donors[group], axis=1)
    return drawn


def given_others(
    rng: np.random.Generator,
    x_train: Float[np.ndarray, "n inputs"],
    x: Float[np.ndarray, "N inputs"],
    column: Int[np.ndarray, " inputs"],
    groups: Int[np.ndarray, " columns"],
    *,
    num_shuffles: int = 10,
    wanted: Bool[np.ndarray, " G"] | None = None,
) -> Replacements:
    """Draw the values of each group of columns given the columns outside the group.

    Quantities are predicted by a ridge regression, its strength by generalised cross-validation (Golub, Heath & Wahba,
    Technometrics 21, 215, 1979); what the prediction leaves of each row is exchanged between rows. Inputs of two values
    (binary columns, one-hot categories) are drawn from predicted probabilities, of a softmax regression whose strength
    is a fixed point of MacKay's update (Neural Comput. 4, 415, 1992); a group of such inputs takes the combinations
    that the training rows have. Both are linear in the others, and in those hinges and products of them that explain
    more of what a linear prediction leaves than chance does; among some hundred inputs or more these are not looked
    for. If a group has quantities and inputs of two values, all of it is treated as quantities.

    Args:
        rng: the source of randomness.
        x_train: rows to learn from how columns depend on one another.
        x: the rows to draw for.
        column: the column that each input belongs to.
        groups: the group of each column, counted from 0.
        num_shuffles: draws for each row.
        wanted: the groups that replacements are wanted for, all by default; those of the others mean nothing. What is
            drawn for one does not depend on it.
    """
    members = _members(column, groups)
    wanted = np.ones(len(members), bool) if wanted is None else wanted
    centre, scale = x_train.mean(axis=0), x_train.std(axis=0)
    scale = np.where(scale > 1e-12 * np.abs(x_train).max(axis=0, initial=0.0), scale, 1.0)
    train, rows = (x_train - centre) / scale, (x - centre) / scale
    low, high = x_train.min(axis=0), x_train.max(axis=0)
    two_valued = np.all((x_train == low) | (x_train == high), axis=0)
    patterns = {
        group: np.unique(_thinned(x_train)[:, own], axis=0, return_inverse=True)
        for group, own in enumerate(members)
        if two_valued[own].all() and wanted[group]
    }
    most = max([len(x), *(len(values) for values, _ in patterns.values())])
    drawn = _empty(members, x, most, num_shuffles)
    spectrum = _spectrum(train)
    for group, own in enumerate(members):
        if not wanted[group]:  # the others draw what they would have drawn
            if two_valued[own].all():
                rng.random((num_shuffles, len(x), 1))
            else:
                rng.permuted(drawn.donors[group], axis=1)
        elif group in patterns:
            values, codes = patterns[group]
            others = _nearest(train, own)
            probabilities = _probabilities(_thinned(train)[:, others], codes.reshape(-1), rows[:, others])
            drawn.pool[group, : len(values), : len(own)] = values
            present = np.all(x[:, None, own] == values, axis=2).mean(axis=0)
            drawn.donors[group] = _draw(rng, _levelled(probabilities, present), num_shuffles)
        else:
            left = _residuals(train, spectrum, own, rows) * scale[own]
            drawn.base[group, :, : len(own)] = x[:, own] - left
            drawn.pool[group, : len(x), : len(own)] = left
            drawn.donors[group] = rng.permuted(drawn.donors[group], axis=1)
    return drawn


def _members(column: Int[np.ndarray, " inputs"], groups: Int[np.ndarray, " columns"]) -> list[Int[np.ndarray, "_"]]:
    return [np.flatnonzero(groups[column] == group) for group in range(int(groups.max()) + 1)]


def _nearest(train: Float[np.ndarray, "n p"], own: Int[np.ndarray, " own"]) -> Int[np.ndarray, " q"]:
    """Return the other inputs; of very many those that go most with some of their own."""
    others = np.setdiff1d(np.arange(train.shape[1]), own)
    if len(others) <= _MAX_BENT:
        return others
    together = np.abs(train[:, own].T @ train).max(axis=0)[others]
    return np.sort(others[np.argsort(-together, kind="stable")[:_MAX_BENT]])


def _thinned(rows: Float[np.ndarray, "n p"]) -> Float[np.ndarray, "some p"]:
    return rows[:: -(-len(rows) // _MAX_ROWS)]


def _empty(
    members: list[Int[np.ndarray, "_"]], x: Float[np.ndarray, "N inputs"], num_values: int, num_shuffles: int
) -> Replacements:
    """Every row keeps nothing and gets from itself, out of a pool of zeros."""
    width = max(map(len, members))
    inputs = np.full((len(members), width), x.shape[1])
    for group, own in enumerate(members):
        inputs[group, : len(own)] = own
    base, pool = (np.zeros((len(members), rows, width), x.dtype) for rows in (len(x), num_values))
    return Replacements(inputs, base, pool, np.tile(np.arange(len(x)), (len(members), num_shuffles, 1)))


# --- Quantities -----------------------------------------------------------------------------------------------------


class _Spectrum(NamedTuple):
    """Eigenvalues and eigenvectors of the mean square of standardised rows."""

    values: Float[np.ndarray, " p"]
    vectors: Float[np.ndarray, "p p"]


def _spectrum(z: Float[np.ndarray, "n p"]) -> _Spectrum:
    values, vectors = np.linalg.eigh(z.T @ z / len(z))
    return _Spectrum(np.maximum(values, 0), vectors)


def _residuals(
    train: Float[np.ndarray, "n p"],
    spectrum: _Spectrum,
    own: Int[np.ndarray, " own"],
    rows: Float[np.ndarray, "N p"],
) -> Float[np.ndarray, "N own"]:
    """Return what the others leave of some inputs of each row."""
    filters = _ridge(spectrum, own, len(train))
    others = np.setdiff1d(np.arange(train.shape[1]), own)
    some = _thinned(train)
    curves = _curves(some[:, others], some @ filters)
    if len(curves.inputs):
        extra = _evaluate(curves, train[:, others])
        centre, scale = extra.mean(axis=0), extra.std(axis=0)
        train = np.column_stack([train, (extra - centre) / scale])
        rows = np.column_stack([rows, (_evaluate(curves, rows[:, others]) - centre) / scale])
        filters = _ridge(_spectrum(train), own, len(train))
    return rows @ filters


def _ridge(spectrum: _Spectrum, own: Int[np.ndarray, " own"], num_rows: int) -> Float[np.ndarray, "p own"]:
    """Return weights that turn rows into what a ridge regression on all other inputs leaves of some of them.

    With W the inverse of the mean square plus the strength, these are the columns of W over its diagonal (blocks of
    both, for several inputs), so that one spectrum serves the regressions of every input, at every strength.
    """
    directions = spectrum.vectors[own]
    shrink = 1 / (spectrum.values + _STRENGTHS[:, None])

    def block(weights: Float[np.ndarray, "strengths p"]) -> Float[np.ndarray, "strengths own own"]:
        return (directions * weights[:, None]) @ directions.T

    inverse = np.linalg.inv(block(shrink))
    squares = np.trace(inverse @ block(spectrum.values * shrink**2) @ inverse, axis1=1, axis2=2)
    left = shrink.sum(axis=1) - np.trace(inverse @ block(shrink**2), axis1=1, axis2=2)
    freedom = 1 + len(spectrum.values) - len(own) - _STRENGTHS * left
    best = np.argmin(squares / np.maximum(1 - freedom / num_rows, 1 / num_rows) ** 2)
    return spectrum.vectors @ (directions * shrink[best]).T @ inverse[best]


# --- Categories -----------------------------------------------------------------------------------------------------


def _probabilities(
    train: Float[np.ndarray, "n q"], codes: Int[np.ndarray, " n"], rows: Float[np.ndarray, "N q"]
) -> Float[np.ndarray, "N C"]:
    """Predict the category of rows from inputs that do not tell it by themselves."""
    found, predicted = _softmax_regression(train, codes, rows)
    curves = _curves(train, np.eye(found.shape[1])[codes] - found)
    if len(curves.inputs):
        extra = _evaluate(curves, train)
        centre, scale = extra.mean(axis=0), extra.std(axis=0)
        train = np.column_stack([train, (extra - centre) / scale])
        rows = np.column_stack([rows, (_evaluate(curves, rows) - centre) / scale])
        _, predicted = _softmax_regression(train, codes, rows)
    return predicted


def _softmax_regression(
    train: Float[np.ndarray, "n q"], codes: Int[np.ndarray, " n"], rows: Float[np.ndarray, "N q"]
) -> tuple[Float[np.ndarray, "n C"], Float[np.ndarray, "N C"]]:
    """Return the probabilities of training rows and of others.

    Newton steps with the bound on the Hessian that holds everywhere (Böhning, Ann. Inst. Stat. Math. 44, 197, 1992):
    no step can fail, and one spectrum serves them all.
    """
    values, vectors = _spectrum(train)
    turned = train @ vectors
    wanted = np.eye(codes.max() + 1)[codes]
    level = np.log(wanted.mean(axis=0))
    weights = np.zeros((train.shape[1], len(level)))
    strength = 1.0
    for step in range(_NUM_STEPS):
        found = _softmax(turned @ weights + level)
        if step % 10 == 9:
            curvature = np.mean(found * (1 - found), axis=0) * values[:, None]
            determined = np.sum(curvature / (curvature + strength)) * (1 - 1 / len(level))
            strength = np.clip(determined / max(len(train) * np.sum(weights**2), 1e-300), 1e-4, 10)
        wrong = wanted - found
        weights += (turned.T @ wrong / len(train) - strength * weights) / (values / 2 + strength)[:, None]
        level += 2 * wrong.mean(axis=0)
    return found, _softmax(rows @ (vectors @ weights) + level)


def _softmax(logits: Float[np.ndarray, "N C"]) -> Float[np.ndarray, "N C"]:
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _levelled(
    probabilities: Float[np.ndarray, "N C"], frequencies: Float[np.ndarray, " C"]
) -> Float[np.ndarray, "N C"]:
    """Scale the odds of each category so that on average it is as frequent as among the rows, as in an exchange.

    Otherwise the error of a predicted frequency, the same in every row, adds up.
    """
    wanted = np.maximum(frequencies, 1e-6)
    for _ in range(_NUM_SCALINGS):
        probabilities = probabilities * (wanted / np.maximum(probabilities.mean(axis=0), 1e-12))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    return probabilities


def _draw(rng: np.random.Generator, probabilities: Float[np.ndarray, "N C"], num_draws: int) -> Int[np.ndarray, "K N"]:
    bounds = np.cumsum(probabilities, axis=1)[:, :-1]
    return np.sum(rng.random((num_draws, len(probabilities), 1)) > bounds, axis=2)


# --- What is not linear ---------------------------------------------------------------------------------------------


class _Curves(NamedTuple):
    """Functions of one input, `max(z - knot, 0)`, or, where the knot is NaN, products of two."""

    inputs: Int[np.ndarray, "F 2"]
    knots: Float[np.ndarray, " F"]


def _evaluate(curves: _Curves, z: Float[np.ndarray, "N q"]) -> Float[np.ndarray, "N F"]:
    first, second = z[:, curves.inputs[:, 0]], z[:, curves.inputs[:, 1]]
    hinges = np.maximum(first - curves.knots, 0)
    return np.where(np.isnan(curves.knots), np.clip(first, -3, 3) * np.clip(second, -3, 3), hinges)


def _curves(z: Float[np.ndarray, "n q"], residuals: Float[np.ndarray, "n r"]) -> _Curves:
    """Find the hinges and products of inputs that clearly go with what a linear prediction left.

    The score of each is its covariance with the residuals in standard errors, which need not be the same everywhere;
    of a hinge only what is not linear is scored.
    """
    q = z.shape[1]
    if q >= _MAX_BENT:
        return _Curves(np.empty((0, 2), int), np.empty(0))
    knots = np.quantile(z, np.arange(1, _NUM_KNOTS + 1) / (_NUM_KNOTS + 1), axis=0)
    hinges = np.maximum(z[:, None] - knots, 0)
    hinges -= hinges.mean(axis=0)
    slopes = np.einsum("nkq,nq->kq", hinges, z) / np.maximum(np.sum(z**2, axis=0), 1e-12)
    bent = (hinges - slopes * z[:, None]).reshape(len(z), -1)
    near = np.clip(z, -3, 3)
    upper = np.triu_indices(q)
    scores = np.zeros(bent.shape[1] + len(upper[0]))
    for residual in residuals.T:
        sums = np.concatenate([bent.T @ residual, ((near * residual[:, None]).T @ near)[upper]])
        squares = [(bent**2).T @ residual**2, ((near**2 * residual[:, None] ** 2).T @ near**2)[upper]]
        scores = np.maximum(scores, np.abs(sums) / np.sqrt(np.maximum(np.concatenate(squares), 1e-9)))
    best = np.argsort(-scores, kind="stable")[: min(_MAX_CURVES, len(z) // 10)]
    best = best[scores[best] > _CLEAR]
    of_one = np.tile(np.arange(q), _NUM_KNOTS)
    inputs = np.column_stack([np.append(of_one, upper[0]), np.append(of_one, upper[1])])
    return _Curves(inputs[best], np.append(knots.ravel(), np.full(len(upper[0]), np.nan))[best])
