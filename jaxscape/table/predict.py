"""What networks say together: their outputs, their scores, and what each column is worth to them."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxscape import evidence, leave_one_out, losses
from jaxscape import models as network
from jaxscape.analysis import attribution, validation
from jaxscape.analysis.attribution import Importance
from jaxscape.cores import on_device, one_blas_thread, spread
from jaxscape.programs import program
from jaxscape.table import mixture
from jaxscape.table.aims import LIKELIHOOD, Aim
from jaxscape.table.datasets import DataError, Dataset
from jaxscape.table.targets import BINARY, Target

_MIN_ROWS, _MAX_ROWS = 50, 2000
# Training rows are judged by networks without them, but penalties and columns were chosen with them: of 40 rows and 30
# columns without an effect 4 in 100 tests had p <= 0.01 on such rows, of 5 rows for each column 1.
_ROWS_PER_INPUT = 5
MAX_SCORED = 5000  # held-out rows, in a permutation test
COUNTS = 1e-3  # of the weight of all: what a network must have to be counted
_MAX_TENSOR = 1 << 25  # numbers: networks times rows times columns
_MAX_LEARNT = 1 << 22  # numbers that the dependence of columns on one another is learnt from
_CHUNK = 1 << 22  # numbers: networks times rows whose outputs are in memory at once
_MAX_PAIRS = 200_000  # of rows of either class, up to which comparing them all is faster than sorting


class Penalties(NamedTuple):
    """At which networks are minima of the likelihood of all training rows: `alphas (m, P)` and `noises (m,)`, as in
    `evidence.at`."""

    alphas: Float[np.ndarray, "m P"]
    noises: Float[np.ndarray, " m"]


class Members(NamedTuple):
    """Networks of one shape that predict together: `positions (m, P)`, how much each counts, `weights (m,)`, `unravel`
    and the `activation`. A network with fewer units than others has dead ones, one that does not use a column weights
    of zero from it. `penalties`: None where they are minima of something else, or too large to tell what they would be
    without a row. `limits`: of a quantity, what its training rows hold: nothing is predicted beyond, since far from
    them a network may say anything."""

    positions: Float[np.ndarray, "m P"]
    weights: Float[np.ndarray, " m"]
    unravel: Callable[[Array], Any]
    activation: str
    penalties: Penalties | None = None
    limits: tuple[float, float] = (-math.inf, math.inf)


def limits_of(dataset: Dataset) -> tuple[float, float]:
    """Return the lowest and the highest target of the training rows."""
    return float(dataset.y_train.min()), float(dataset.y_train.max())


def outputs(members: Members, x: Float[np.ndarray, "N inputs"]) -> Float[np.ndarray, "m N K"]:
    """Return the outputs of each network."""
    arrays: tuple[Any, Any] = members.positions, x
    return np.asarray(_outputs(*arrays, network.mlp(members.activation), members.unravel))


@program(static_argnames=("predict", "unravel"))
def _outputs(positions: Array, x: Array, predict: losses.Predict, unravel: Callable[[Array], Any]) -> Array:
    return jax.lax.map(lambda weights: predict(unravel(weights), x), positions)


def each(members: Members, target: Target, x: Float[np.ndarray, "N inputs"]) -> Float[np.ndarray, "m N *K"]:
    """Return what each network predicts: the value, within its limits, the probability of class 1, or of all of several
    classes."""
    found = target.predicted(outputs(members, x))
    return np.clip(found, *members.limits) if target.is_quantity else found


def together(members: Members, target: Target, x: Float[np.ndarray, "N inputs"]) -> Float[np.ndarray, "N *K"]:
    """Return the weighted mean of what the networks predict, computed for some rows after the other."""
    size = max(_CHUNK // len(members.weights), 1)
    chunks = [x[first : first + size] for first in range(0, len(x), size)]
    return np.concatenate([np.einsum("m,m...->...", members.weights, each(members, target, some)) for some in chunks])


def scorer(
    dataset: Dataset,
    activation: str,
    unravel: Callable[[Array], Any],
    x: Float[np.ndarray, "N inputs"],
    y: Float[np.ndarray, " N"],
    counts: Float[np.ndarray, " N"] | None = None,
) -> Callable[[Float[Array, " P"]], Float[Array, ""]]:
    """Return `score(weights)` of one network on these rows, pure JAX; of more than 5,000 rows on so many of them.

    `counts`: how much each row counts, all the same by default.
    """
    if len(y) > MAX_SCORED:
        rows = _some_of_each(dataset.kind.strata(y), MAX_SCORED, 0)
        x, y, counts = x[rows], y[rows], None if counts is None else counts[rows]
    predict = network.mlp(activation)
    inputs, targets = on_device(x), on_device(y)
    told = None if counts is None else on_device(counts)
    positive, negative = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    by_pairs = dataset.kind is BINARY and told is None and positive.size * negative.size <= _MAX_PAIRS

    def score(weights: Float[Array, " P"]) -> Float[Array, ""]:
        outputs = predict(unravel(weights), inputs)
        if by_pairs:
            return validation.auc_of_pairs(outputs[positive, 0], outputs[negative, 0])
        return dataset.kind.traced_score(targets, outputs, told)

    return score


def column_importance(
    key: PRNGKeyArray,
    members: Members,
    dataset: Dataset,
    *,
    aim: Aim = LIKELIHOOD,
    seed: int = 0,
    groups: Int[np.ndarray, " columns"] | None = None,
    conditional: bool = True,
) -> Importance:
    """Measure what the original columns are worth to networks that predict together, on rows they have not seen.

    These are the held-out rows and, for what a column adds, where the penalties are known, rows stand for themselves
    and there are several for each input, the training rows, each judged by the networks as they would be without it
    (`leave_one_out`). Of many rows about 2,000 are used, held-out ones first, as many of each class as there are, up to
    an equal part of these, and weighed so that classes count as in all rows, or alike if that is what the networks
    minimise.

    Args:
        key: a JAX random key.
        members: the networks, which take all inputs of the dataset.
        dataset: from `datasets.prepare`.
        aim: what the networks minimise.
        seed: of the rows that are drawn where there are many.
        groups: columns that move together, from `attribution.near_copies`.
        conditional: ask what a column adds to the others, else what the networks make of it.

    Raises:
        DataError: if the loss of some network is not finite.
    """
    target = dataset.kind
    strata = target.strata(dataset.y_test)
    shares = aim.shares(np.bincount(strata, dataset.weights_test).astype(float))
    groups = np.arange(len(dataset.features)) if groups is None else groups
    room = _MAX_TENSOR // (len(members.weights) * (int(groups.max()) + 1))
    number = int(np.clip(room, _MIN_ROWS, _MAX_ROWS))
    rows = _some_of_each(strata, number, seed)
    predict, errors = network.mlp(members.activation), aim.errors(target)

    def measure(
        key: PRNGKeyArray, positions: Array, x: np.ndarray, y: np.ndarray, counts: np.ndarray | None
    ) -> Importance:
        learnt = dataset.x_train[:: max(dataset.x_train.size // _MAX_LEARNT, 1)]
        return attribution.importance(
            key,
            _row_loss(errors, predict, members.unravel),
            positions,
            on_device(x),
            on_device(y),
            dataset.column,
            x_train=learnt if conditional else None,
            mixture_loss=_loss_together(target, predict, members.unravel) if aim.of_rows else None,
            weights=members.weights,
            groups=groups,
            strata=target.strata(y),
            shares=shares,
            counts=counts,
            spread=aim.spread,
            used=used_columns(members, dataset),
        )

    counts = None if dataset.weights_test is None else dataset.weights_test[rows]
    found = measure(key, on_device(members.positions), dataset.x_test[rows], dataset.y_test[rows], counts)
    number = min(number - len(rows), _MAX_TENSOR // members.positions.size)
    enough = number >= _MIN_ROWS and len(dataset.y_train) >= _ROWS_PER_INPUT * dataset.x_train.shape[1]
    if conditional and members.penalties is not None and dataset.independent and enough:
        rows = _some_of_each(target.strata(dataset.y_train), number, seed)
        left_out = _without_each(members, members.penalties, dataset, rows)
        x, y = dataset.x_train[rows], dataset.y_train[rows]
        counts = None if dataset.weights_train is None else dataset.weights_train[rows]
        found = attribution.pooled(found, measure(jax.random.fold_in(key, 1), left_out, x, y, counts))
    if not (np.all(np.isfinite(found.increases)) and np.all(np.isfinite(found.draws))):
        raise DataError("the loss on rows held out is not finite: look for extreme values in the table")
    return found


def _without_each(
    members: Members, penalties: Penalties, dataset: Dataset, rows: Int[np.ndarray, " n"]
) -> Float[Array, "m n P"]:
    """Return the networks as they would be without each of the training rows."""
    layers = jax.eval_shape(members.unravel, members.positions[0])
    hidden = [layer.bias.size for layer in layers[:-1]]
    x, y = on_device(dataset.x_train), on_device(dataset.y_train)
    likelihood = mixture.objective_of(dataset, hidden, members.activation, x, y, dataset.weights_train)

    def one(i: int) -> np.ndarray:
        own = evidence.at(likelihood, penalties.alphas[i], penalties.noises[i])
        return np.asarray(leave_one_out.minima(own, on_device(members.positions[i])))[rows]

    with one_blas_thread():
        return on_device(np.array(spread(one, range(len(members.positions)))))


def used_columns(members: Members, dataset: Dataset) -> Bool[np.ndarray, " columns"]:
    """Say which columns have a weight other than zero in some network."""
    even = members._replace(weights=np.ones(len(members.positions)))
    return input_strengths(even, dataset) > 0


def input_strengths(members: Members, dataset: Dataset) -> Float[np.ndarray, " columns"]:
    """Return the sum of the magnitudes of the weights from each column, the mean over the networks."""
    shape = jax.eval_shape(members.unravel, members.positions[0])[0].weights.shape
    incoming = members.positions[:, : math.prod(shape)].reshape(-1, *shape)
    sums = np.einsum("m,miu->i", members.weights, np.abs(incoming))
    return np.bincount(dataset.column, sums, minlength=len(dataset.features))


def _some_of_each(strata: Int[np.ndarray, " N"], number: int, seed: int) -> Int[np.ndarray, " n"]:
    """Draw rows, as many of each class as there are, up to an equal part of the number."""
    rng = np.random.default_rng(seed)
    num_strata = int(strata.max()) + 1
    most = max(number // num_strata, 1)
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(strata == k))[:most] for k in range(num_strata)]))


@functools.cache
def _row_loss(errors: Callable[[Array, Array], Array], predict: losses.Predict, unravel: Callable[[Array], Any]) -> Any:
    return lambda weights, x, y: errors(predict(unravel(weights), x), y)


@functools.cache
def _loss_together(target: Target, predict: losses.Predict, unravel: Callable[[Array], Any]) -> Any:
    """Return the loss of each row when the mean of the predictions counts."""

    def loss(models: Array, weights: Array, x: Array, y: Array) -> Array:
        outputs = jax.vmap(lambda position: predict(unravel(position), x))(models)
        return target.errors_together(weights, outputs, y)

    return loss
