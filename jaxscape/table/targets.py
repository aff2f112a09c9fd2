"""Kinds of target: two classes, several classes, a quantity. All that differs between them is told here, once."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int
from scipy.special import expit, log_softmax, softmax

from jaxscape import losses
from jaxscape.analysis import validation
from jaxscape.table import scores
from jaxscape.table.errors import DataError
from jaxscape.table.scores import Score

if TYPE_CHECKING:
    import pandas as pd

Task = Literal["binary", "multiclass", "regression"]
_MAX_CLASSES = 20


class Target(NamedTuple):
    """A kind of target, of N rows for which a network has K outputs.

    `task`: its name.
    `num_outputs(classes)`: K.
    `predicted(outputs (*m, N, K))`: what they mean: a value, the probability of class 1, or of each of several classes.
    `errors(outputs, y)`: of rows, that importance is measured in; `unit`: of these, in words.
    `errors_together(weights (m,), outputs (m, N, K), y)`: the same of the weighted mean of what m networks predict.
    `loss(predict)`: the mean of the errors, plus L2.
    `likelihood()`: errors in nats; those of a quantity have a noise, 1 to begin with.
    `log_likelihoods(outputs (*m, N, K), y)`: of rows, in nats, of a quantity at unit noise.
    `constant(y, counts)`: the outputs of a model that knows no column; `counts`: what rows count, 1 on average.
    `indicators(y)`: columns whose means say all about a group of rows.
    `score(y, predicted, counts)`, `traced_score(y, outputs, counts)`: the same on the host and in JAX, of rows that all
    count the same where `counts` is None; `score_key`, `score_name`: for machines and for people.
    `poor`: a lower score says little about the data; `farthest`: that two scores can be apart.
    `linear`: what its linear model is called.
    """

    task: Task
    errors: Callable[[Array, Array], Array]
    unit: str
    loss: Callable[[losses.Predict], losses.Loss]
    likelihood: Callable[[], Any]
    num_outputs: Callable[[int], int]
    constant: Callable[[np.ndarray, np.ndarray], np.ndarray]
    predicted: Callable[[np.ndarray], np.ndarray]
    log_likelihoods: Callable[[np.ndarray, np.ndarray], np.ndarray]
    errors_together: Callable[[Array, Array, Array], Array]
    indicators: Callable[[np.ndarray], np.ndarray]
    score: Callable[..., Score]
    traced_score: Callable[..., Array]
    score_key: Literal["auc", "r2"]
    score_name: str
    poor: float
    farthest: float
    linear: str

    @property
    def is_quantity(self) -> bool:
        """Whether it has units and a noise, and no classes."""
        return self.task == "regression"

    def strata(self, y: Float[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
        """Return the class of each row; of a quantity all are of one."""
        return np.zeros(len(y), int) if self.is_quantity else y.astype(int)

    def difference(
        self,
        y: Float[np.ndarray, " N"],
        ours: Float[np.ndarray, " N"] | Float[np.ndarray, "N classes"],
        theirs: Float[np.ndarray, " N"] | Float[np.ndarray, "N classes"],
        counts: Float[np.ndarray, " N"] | None = None,
    ) -> tuple[float, float, float]:
        """Return how much higher one model scores than another on the same rows, with a 95 % interval.

        Args:
            y: targets; numbers of classes from zero.
            ours: what the one model predicts, as in `predicted`.
            theirs: what the other does.
            counts: what each row counts; all the same by default.

        Returns:
            The difference, the lower end, the upper end; see `scores.interval`.

        >>> y, good = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]), np.array([1.0, 2.0, 4.0, 3.0, 5.0, 6.0])
        >>> [round(each, 3) for each in TARGETS["binary"].difference(y, good, -good)]
        [0.778, -0.095, 1.0]
        """
        mine, other = self.score(y, ours, counts), self.score(y, theirs, counts)
        gap = mine.value - other.value
        alone = 1 / (1 if ours.ndim == 1 else ours.shape[1])
        half = scores.interval(mine.influences - other.influences, self.strata(y), alone)
        return gap, max(gap - half, -self.farthest), min(gap + half, self.farthest)


# --- two classes ----------------------------------------------------------------------------------------------------


def _log_odds(y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    shares = np.bincount(y.astype(int), counts) / len(y)
    return np.array([np.log(shares[1] / shares[0])])


def _two_together(weights: Array, outputs: Array, y: Array) -> Array:
    return _several_together(weights, jnp.concatenate([jnp.zeros_like(outputs), outputs], axis=-1), y)


# --- several classes ------------------------------------------------------------------------------------------------


def _log_shares(y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.log(np.bincount(y.astype(int), counts) / len(y))


def _log_likelihoods(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Not by JAX, which takes long to compile little.
    return np.asarray(log_softmax(logits, axis=-1)[..., np.arange(len(y)), y.astype(int)])


def _several_together(weights: Array, outputs: Array, y: Array) -> Array:
    log_shares = jnp.log(weights)[:, None, None] + jax.nn.log_softmax(outputs)
    return losses.softmax_errors(jax.nn.logsumexp(log_shares, axis=0), y)


def _one_hot(y: np.ndarray) -> np.ndarray:
    return (y[:, None] == np.unique(y)).astype(float)


# --- a quantity -----------------------------------------------------------------------------------------------------


def _gaussian() -> Any:
    return Partial(losses.gaussian_errors, jnp.asarray(1.0))


def _log_densities(outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.asarray(-0.5 * (outputs[..., 0] - y) ** 2 - 0.5 * np.log(2 * np.pi))


BINARY = Target(
    task="binary",
    errors=losses.sigmoid_errors,
    unit="cross-entropy",
    loss=losses.sigmoid_cross_entropy,
    likelihood=lambda: losses.sigmoid_errors,
    num_outputs=lambda classes: 1,
    constant=_log_odds,
    predicted=lambda outputs: np.asarray(expit(outputs[..., 0])),
    log_likelihoods=lambda outputs, y: _log_likelihoods(np.concatenate([np.zeros_like(outputs), outputs], axis=-1), y),
    errors_together=_two_together,
    indicators=_one_hot,
    score=scores.auc,
    traced_score=lambda y, outputs, counts=None: validation.auc(y, outputs[:, 0], counts),
    score_key="auc",
    score_name="AUC",
    poor=0.7,
    farthest=1.0,
    linear="logistic regression",
)
MULTICLASS = BINARY._replace(
    task="multiclass",
    errors=losses.softmax_errors,
    loss=losses.softmax_cross_entropy,
    likelihood=lambda: losses.softmax_errors,
    num_outputs=lambda classes: classes,
    constant=_log_shares,
    predicted=lambda outputs: np.asarray(softmax(outputs, axis=-1)),
    log_likelihoods=_log_likelihoods,
    errors_together=_several_together,
    score=scores.mean_auc,
    traced_score=lambda y, outputs, counts=None: validation.macro_auc(y, jax.nn.softmax(outputs), counts),
)
QUANTITY = Target(
    task="regression",
    errors=losses.squared_errors,
    unit="squared error",
    loss=losses.squared_error,
    likelihood=_gaussian,
    num_outputs=lambda classes: 1,
    constant=lambda y, counts: np.array([np.average(y, weights=counts)]),
    predicted=lambda outputs: outputs[..., 0],
    log_likelihoods=_log_densities,
    errors_together=lambda weights, outputs, y: losses.squared_errors(jnp.tensordot(weights, outputs, 1), y),
    indicators=lambda y: y[:, None],
    score=scores.r2,
    traced_score=lambda y, outputs, counts=None: validation.r2(y, outputs[:, 0], counts),
    score_key="r2",
    score_name="R²",
    poor=0.3,
    farthest=np.inf,
    linear="ridge regression",
)
TARGETS: dict[Task, Target] = {each.task: each for each in (BINARY, MULTICLASS, QUANTITY)}


# --- which kind it is -----------------------------------------------------------------------------------------------


def detect(
    where: str, name: str, y: "pd.Series", task: str, notes: list[str]
) -> tuple[Target, tuple[str, ...], Float[np.ndarray, " N"]]:
    """Tell what kind of target a column is, and number its classes.

    Args:
        where: the column, for errors.
        name: of the column.
        y: the column, without gaps.
        task: what it is said to be, or "auto": texts and up to 20 whole numbers are classes, other numbers a quantity.
        notes: for people; what was decided is added.

    Returns:
        The kind, the names of the classes (of a quantity none), and what is to be predicted.

    Raises:
        DataError: if it is not what it is said to be, or cannot be learnt.
    """
    import pandas as pd

    classes = classes_of(y)
    numbers = pd.to_numeric(y, errors="coerce").to_numpy(float)
    is_text = bool(np.isnan(numbers).any())
    if not is_text and not np.isfinite(numbers).all():
        raise DataError(f"{where} holds infinite values: remove those rows or correct them")
    if len(classes) == 1:
        raise DataError(f"{where} has one value only, {classes[0]!r}: there is nothing to tell apart")
    if task == QUANTITY.task or (task == "auto" and not is_text and _is_continuous(numbers)):
        if is_text:
            wrong = y[np.isnan(numbers)].iloc[0]
            raise DataError(f"{where} holds text where numbers were expected: {wrong!r}")
        return QUANTITY, (), numbers
    if len(classes) > _MAX_CLASSES:
        hint = "join the rare ones, or set the task to regression if it is a quantity"
        raise DataError(f"{where} has {len(classes)} classes, more than {_MAX_CLASSES}: {hint}")
    chosen = BINARY if len(classes) == 2 else MULTICLASS
    if task not in ("auto", chosen.task):
        raise DataError(f"{where} has {len(classes)} classes: the task is {chosen.task}, not {task}")
    smallest = y.value_counts()
    if smallest.min() < 4:
        raise DataError(f"{where} has only {smallest.min()} rows of {smallest.idxmin()!r}: at least 4 are needed")
    names = tuple(_class_name(value) for value in classes)
    if chosen is BINARY:
        notes.append(f"the model predicts {name} = {names[1]} (the other class: {names[0]})")
    else:
        notes.append(f"the model tells apart {len(names)} classes of {name}: {', '.join(names)}")
        if task == "auto" and not is_text:
            notes.append(
                f"{where} holds whole numbers, taken as classes; if it is a quantity, set the task to regression"
            )
    return chosen, names, y.map({value: index for index, value in enumerate(classes)}).to_numpy(float)


def classes_of(y: "pd.Series") -> list[Any]:
    """List the distinct values of a target, without gaps, in the order in which they are numbered."""
    return sorted(y.dropna().unique().tolist(), key=lambda value: (str(type(value)), value))


def _class_name(value: object) -> str:
    # Whole numbers become 1.0, 2.0, ... where a target is missing.
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _is_continuous(numbers: Float[np.ndarray, " N"]) -> bool:
    values = np.unique(numbers)
    return values.size > _MAX_CLASSES or (values.size > 2 and bool(np.any(values != np.round(values))))
