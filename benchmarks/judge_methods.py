"""The methods that the judge compares: networks of this library and the plainest controls.

A method is `fit(x, y, task, seed) -> Fitted`: from the rows it is given it makes a prediction for others, a number for
every column (higher: more important) and, where it can, a p-value for every column. All methods here share one split:
seven tenths to train on, the rest to measure importance on; what they share is computed once per table.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
import scipy.special
import scipy.stats
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from jaxscape import attribution, losses, models, quench
from jaxscape.landscape import database
from jaxscape.objective import ravel
from jaxscape.search.points import Status
from jaxscape.table.datasets import Column, Dataset, Encoding, decode
from jaxscape.table.explain import ranking
from jaxscape.table.predict import Members, column_importance, together, used_columns
from jaxscape.table.problem import PAPER, ExplainConfig, Explored, explore_landscape, members_of, problem, sizes_of
from jaxscape.table.settle import calibrated, settled

NUM_SHUFFLES = 10
MAX_MODELS = 100
BATCH = 64  # restarts at once


class Fitted(NamedTuple):
    """What a method returns: `predict(x)` gives the value, the probability of class 1 or (N, K) probabilities;
    `ranking (columns,)`; `p_values (columns,)`, not adjusted, or None; `gradients` spent, where that is meant; `groups
    (columns,)` of columns that share a test, by default each its own."""

    predict: Callable[[pd.DataFrame], np.ndarray]
    ranking: np.ndarray
    p_values: np.ndarray | None = None
    gradients: int | None = None
    groups: np.ndarray | None = None


class Split(NamedTuple):
    """The rows of a table, encoded as numbers and split; `encode` does the same to others."""

    dataset: Dataset
    encode: Callable[[pd.DataFrame], np.ndarray]
    seed: int

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Bring predictions of a quantity back to its own units."""
        return decode(self.dataset.encoding, outputs)


Method = Callable[[pd.DataFrame, pd.Series, str, int], Fitted | None]  # None: not for such a task
_shared: dict[tuple[Any, ...], Any] = {}


def forget() -> None:
    """Drop what methods share: call it before another table."""
    _shared.clear()


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compute once per table what several methods need."""

    @functools.wraps(function)
    def remembered(x: pd.DataFrame, y: pd.Series, task: str, seed: int) -> Any:
        key = (function.__name__, id(x), task, seed)
        if key not in _shared:
            _shared[key] = x, function(x, y, task, seed)  # with the table: the id of one that is gone is given again
        return _shared[key][1]

    return remembered


@once
def split(x: pd.DataFrame, y: pd.Series, task: str, seed: int) -> Split:
    """Split and encode a table: numbers standardised, texts one-hot, gaps filled, all fitted on the training rows."""
    stratify = None if task == "regression" else y
    rows, held_out = train_test_split(np.arange(len(y)), test_size=0.3, random_state=seed, stratify=stratify)
    # Constant columns stay, as zeros, so that every method ranks every column.
    texts = [name for name in x if not pd.api.types.is_numeric_dtype(x[name])]
    numbers = [name for name in x if name not in texts]
    one_hot = OneHotEncoder(drop="if_binary", handle_unknown="ignore", sparse_output=False)
    encoder = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler()), numbers),
        (make_pipeline(SimpleImputer(strategy="most_frequent"), one_hot, StandardScaler()), texts),
    ).fit(x.iloc[rows])
    column = [x.columns.get_loc(name) for name in numbers]
    if texts:
        kept = encoder.transformers_[1][1][1]
        sizes = [len(c) - (drop is not None) for c, drop in zip(kept.categories_, kept.drop_idx_, strict=True)]
        column += [x.columns.get_loc(name) for name, size in zip(texts, sizes, strict=True) for _ in range(size)]
    values = y.to_numpy(float)
    mean, spread = (values[rows].mean(), values[rows].std()) if task == "regression" else (0.0, 1.0)
    encoded, targets = encoder.transform(x), (values - mean) / spread
    classes = () if task == "regression" else tuple(str(int(label)) for label in np.unique(values))
    names = tuple(map(str, x.columns))
    quantity = Column("y", centre=mean, spread=spread) if task == "regression" else None
    dataset = Dataset(
        "table", "y", task, classes, encoded[rows], targets[rows], encoded[held_out], targets[held_out],
        names, tuple(names[i] for i in column), np.array(column), (), Encoding((), np.zeros(0), np.ones(0), quantity),
    )  # fmt: skip
    return Split(dataset, encoder.transform, seed)


# --- Networks -------------------------------------------------------------------------------------------------------


@once
def supported(x: pd.DataFrame, y: pd.Series, task: str, seed: int) -> tuple[Split, Explored, Members]:
    """Choose the scale of the target and penalties, and explore, as `explain` does by default."""
    data, config = split(x, y, task, seed), ExplainConfig(seed=seed)
    dataset = settled(data.dataset, sizes_of(config), config.activation, seed)
    found = explore_landscape(dataset, config)
    members = members_of(found.problem, found.landscape, dataset, config, found.supported)[0]
    if task == "regression":
        dataset = calibrated(dataset, together(members, dataset.kind, dataset.x_train))
    return data._replace(dataset=dataset), found, members


def asked(
    data: Split, members: Members, *, conditional: bool, added: np.ndarray | None = None, gradients: int | None = None
) -> Fitted:
    """Let networks predict together, and rank the columns by their importance to them, as the report does."""
    dataset = data.dataset
    key = jax.random.fold_in(jax.random.key(data.seed), 1)
    copies = attribution.near_copies(dataset.x_train, dataset.column)
    measured = column_importance(key, members, dataset, seed=data.seed, groups=copies, conditional=conditional)
    awake = used_columns(members, dataset)
    order = measured.mean if added is None else ranking(measured, awake, added)

    def predict(rows: pd.DataFrame) -> np.ndarray:
        predicted = together(members, dataset.kind, data.encode(rows))
        return data.decode(predicted) if dataset.task == "regression" else predicted

    return Fitted(predict, order, attribution.p_values(measured), gradients, measured.groups)


def jaxscape(x: pd.DataFrame, y: pd.Series, task: str, seed: int) -> Fitted:
    """What `explain` reports by default: networks at the penalties that the data support, asked what each column adds
    to the others."""
    data, found, members = supported(x, y, task, seed)
    return asked(data, members, conditional=True, added=found.supported.added)


def jaxscape_marginal(x: pd.DataFrame, y: pd.Series, task: str, seed: int) -> Fitted:
    """The same, asked what they make of each column."""
    data, found, members = supported(x, y, task, seed)
    return asked(data, members, conditional=False, added=found.supported.added)


def best_size(x: pd.DataFrame, y: pd.Series, task: str, seed: int) -> Fitted:
    """The network of best evidence alone."""
    data, found, members = supported(x, y, task, seed)
    alone = members._replace(positions=members.positions[:1], weights=np.ones(1))
    return asked(data, alone, conditional=True, added=found.supported.added)


def cross_validated(x: pd.DataFrame, y: pd.Series, task: str, seed: int) -> Fitted:
    """Five units, one L2 strength for all weights, chosen by five-fold cross-validation: the mean of four networks."""
    from sklearn.model_selection import KFold

    data = split(x, y, task, seed)
    dataset, errors = data.dataset, []
    config = ExplainConfig(hidden=PAPER.hidden, penalty=1.0, seed=seed)
    made = problem(dataset, config)

    def networks(rows: np.ndarray, strength: float) -> np.ndarray:
        inside = np.isin(np.arange(len(dataset.y_train)), rows).astype(float)
        weighted = made.objective.data._replace(l2=jax.numpy.asarray(strength), weights=jax.numpy.asarray(inside))
        found = quench(dataclasses.replace(made.objective, data=weighted), made.starts[:4], num_lanes=4)
        return np.asarray(found.position)

    def predicted(positions: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        members = Members(positions, np.full(4, 0.25), made.objective.unravel, config.activation)
        return together(members, dataset.kind, inputs)

    folds = list(KFold(5, shuffle=True, random_state=seed).split(dataset.x_train))
    strengths = np.geomspace(3e-4, 0.3, 7)
    for strength in strengths:
        total = 0.0
        for rows, others in folds:
            guess, y_true = predicted(networks(rows, strength), dataset.x_train[others]), dataset.y_train[others]
            if dataset.task == "regression":
                total += np.sum((guess - y_true) ** 2)
            else:
                shares = np.column_stack([1 - guess, guess]) if dataset.task == "binary" else guess
                total -= np.sum(np.log(np.clip(shares[np.arange(len(others)), y_true.astype(int)], 1e-12, 1)))
        errors.append(total)
    positions = networks(np.arange(len(dataset.y_train)), float(strengths[int(np.argmin(errors))]))
    members = Members(positions, np.full(4, 0.25), made.objective.unravel, config.activation)
    return asked(data, members, conditional=True)


@once
def explored(x: pd.DataFrame, y: pd.Series, task: str, seed: int) -> tuple[Any, Any, Any, ExplainConfig, int]:
    """Explore the landscape at the penalty of the paper; return with it the gradients spent."""
    config = dataclasses.replace(PAPER, rounds=6, seed=seed)
    found = explore_landscape(split(x, y, task, seed).dataset, config)
    made, landscape = found.problem, found.landscape
    return made.objective, made.symmetry, landscape, config, landscape.ledger.evaluations


def outputs_of(position: np.ndarray, inputs: np.ndarray, sizes: tuple[int, ...]) -> np.ndarray:
    """Return the outputs of a tanh network, by NumPy: nothing to compile for rows of another number."""
    at = 0
    for depth, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        weights, bias = np.split(position[at : at + (fan_in + 1) * fan_out], [fan_in * fan_out])
        inputs = inputs @ weights.reshape(fan_in, fan_out) + bias
        inputs = np.tanh(inputs) if depth < len(sizes) - 2 else inputs
        at += (fan_in + 1) * fan_out
    return inputs


def mean_prediction(data: Split, positions: np.ndarray) -> Callable[[pd.DataFrame], np.ndarray]:
    """Return the mean prediction (of probabilities, of values) of some networks."""
    dataset, config = data.dataset, PAPER
    sizes = (len(dataset.inputs), *config.hidden, len(dataset.classes) if dataset.task == "multiclass" else 1)

    def predict(x: pd.DataFrame) -> np.ndarray:
        inputs = data.encode(x)
        total: Any = 0
        for position in positions:
            outputs = outputs_of(position, inputs, sizes)
            if dataset.task == "multiclass":
                outputs = scipy.special.softmax(outputs, axis=1)
            elif dataset.task == "binary":
                outputs = scipy.special.expit(outputs[:, 0])
            else:
                outputs = data.decode(outputs[:, 0])
            total = total + outputs / len(positions)
        return total

    return predict


def judged(data: Split, networks: np.ndarray, predicting: np.ndarray, objective: Any, gradients: int) -> Fitted:
    """Rank the columns by their importance to some networks."""
    even = np.full(len(networks), 1 / len(networks))
    members = Members(networks, even, objective.unravel, PAPER.activation)
    found = asked(data, members, conditional=False, gradients=gradients)
    return found._replace(predict=mean_prediction(data, predicting))


def lowest(landscape: Any) -> np.ndarray:
    order = np.argsort(landscape.minima.energies, kind="stable")[:MAX_MODELS]
    return landscape.minima.positions[order]


@once
def _all_minima(x: pd.DataFrame, y: pd.Series, task: str, seed: int) -> Fitted:
    objective, _, landscape, _, gradients = explored(x, y, task, seed)
    networks = lowest(landscape)
    return judged(split(x, y, task, seed), networks, networks[:1], objective, gradients)


def fixed(x: pd.DataFrame, y: pd.Series, task: str, seed: int) -> Fitted:
    """At the penalty of the paper: importance over all minima, the lowest one predicts."""
    return _all_minima(x, y, task, seed)


def fixed_together(x: pd.DataFrame, y: pd.Series, task: str, seed: int) -> Fitted:
    """The same, but all minima together predict."""
    networks = lowest(explored(x, y, task, seed)[2])
    return _all_minima(x, y, task, seed)._replace(predict=mean_prediction(split(x, y, task, seed), networks))


def best_alone(x: pd.DataFrame, y: pd.Series, task: str, seed: int) -> Fitted:
    """The network of lowest loss alone."""
    objective, _, landscape, _, gradients = explored(x, y, task, seed)
    networks = lowest(landscape)[:1]
    return judged(split(x, y, task, seed), networks, networks, objective, gradients)


@functools.partial(jax.jit, static_argnames="sizes")
def _starts(key: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    return jax.vmap(lambda key: ravel(models.init(key, sizes)))(jax.random.split(key, BATCH))


def restarts(
    x: pd.DataFrame, y: pd.Series, task: str, seed: int, *, number: int | None, gradients: int
) -> tuple[np.ndarray, int]:
    """Minimise from random starts until there are `number` networks, or the gradients are spent; distinct ones, the
    lowest first, where `number` is None."""
    objective, symmetry, _, config, _ = explored(x, y, task, seed)
    dataset = split(x, y, task, seed).dataset
    sizes = (len(dataset.inputs), *config.hidden, len(dataset.classes) if task == "multiclass" else 1)
    positions, energies, spent = np.empty((0, objective.dim)), np.empty(0), 0
    for batch in range(1000):
        if spent >= gradients or (number is not None and len(energies) >= number):
            break
        starts = _starts(jax.random.fold_in(jax.random.key(seed + 1), batch), sizes)
        found = quench(objective, starts, num_lanes=8)
        costs = np.cumsum(np.asarray(found.num_evaluations))
        good = (np.asarray(found.status) == Status.CONVERGED) & (spent + costs <= gradients)
        if number is not None and len(energies) + good.sum() >= number:
            costs = costs[: np.flatnonzero(good)[number - len(energies) - 1] + 1]
        spent += int(costs[-1])
        positions = np.concatenate([positions, np.asarray(found.position)[good]])
        energies = np.concatenate([energies, np.asarray(found.energy)[good]])
    if number is not None:
        positions, energies = positions[:number], energies[:number]
    order = np.argsort(energies, kind="stable")
    positions, energies = positions[order], energies[order]
    if number is None:
        # Room for doubles among them: looking at all would be quadratic.
        positions, energies = positions[: 10 * MAX_MODELS], energies[: 10 * MAX_MODELS]
        nothing = database.Points(positions[:0], energies[:0])
        same = database.identify(symmetry, nothing, database.Points(positions, energies))
        positions = positions[same == np.arange(len(same))][:MAX_MODELS]
    return positions, min(spent, gradients)


def same_number(x: pd.DataFrame, y: pd.Series, task: str, seed: int) -> Fitted:
    """As many networks as minima were found, from random starts; together they predict."""
    objective, _, landscape, _, _ = explored(x, y, task, seed)
    wanted = min(len(landscape.minima.energies), MAX_MODELS)
    networks, spent = restarts(x, y, task, seed, number=wanted, gradients=10**12)
    return judged(split(x, y, task, seed), networks, networks, objective, spent)


def same_gradients(x: pd.DataFrame, y: pd.Series, task: str, seed: int) -> Fitted:
    """Random starts at the gradients of the exploration: the distinct minima, at most the 100 lowest, predict."""
    objective, _, _, _, gradients = explored(x, y, task, seed)
    networks, spent = restarts(x, y, task, seed, number=None, gradients=gradients)
    return judged(split(x, y, task, seed), networks, networks, objective, spent)


# --- Controls of scikit-learn ---------------------------------------------------------------------------------------

LINEAR = {
    "classes": GridSearchCV(
        LogisticRegression(max_iter=1000), {"C": np.geomspace(1e-4, 1e2, 10)}, scoring="neg_log_loss", cv=5
    ),
    "quantity": RidgeCV(np.geomspace(1e-2, 1e4, 25)),
}
FOREST = {
    "classes": RandomForestClassifier(500, min_samples_leaf=2, n_jobs=1, random_state=0),
    "quantity": RandomForestRegressor(500, min_samples_leaf=2, max_features=1 / 3, n_jobs=1, random_state=0),
}
BOOSTING = {
    "classes": GradientBoostingClassifier(subsample=0.8, random_state=0),
    "quantity": GradientBoostingRegressor(subsample=0.8, random_state=0),
}


def predicted(model: Any, data: Split, inputs: np.ndarray) -> np.ndarray:
    if data.dataset.task == "regression":
        return data.decode(model.predict(inputs))
    probabilities = model.predict_proba(inputs)
    return probabilities[:, 1] if data.dataset.task == "binary" else probabilities


def permuted(model: Any, data: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return the permutation importance of every column on the held-out rows, in log loss or squared error, and the
    p-value of a one-sided t-test over the rows."""
    dataset, rng = data.dataset, np.random.default_rng(data.seed)
    x, y = dataset.x_test, dataset.y_test

    def errors(inputs: np.ndarray) -> np.ndarray:
        if dataset.task == "regression":
            return (model.predict(inputs) - y) ** 2
        probabilities = np.clip(model.predict_proba(inputs), 1e-6, 1)
        return -np.log(probabilities[np.arange(len(y)), y.astype(int)])

    before, rises = errors(x), np.zeros((len(y), len(dataset.features)))
    for column in range(rises.shape[1]):
        inputs = dataset.column == column
        for _ in range(NUM_SHUFFLES):
            moved = np.where(inputs, x[rng.permutation(len(x))], x)
            rises[:, column] += (errors(moved) - before) / NUM_SHUFFLES
    varied = rises.std(axis=0) > 0
    p_values = np.ones(rises.shape[1])
    p_values[varied] = scipy.stats.ttest_1samp(rises[:, varied], 0, alternative="greater").pvalue
    return rises.mean(axis=0), p_values


def by_column(values: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Add up what belongs to the inputs of each column."""
    return np.bincount(dataset.column, values, minlength=len(dataset.features))


def control(models_of: dict[str, Any], own: str) -> tuple[Method, Method, Callable[..., Any]]:
    """Return a model of scikit-learn as two methods, ranked by permutation and by its own measure, and the model."""

    def fitted(x: pd.DataFrame, y: pd.Series, task: str, seed: int) -> Any:
        data = split(x, y, task, seed)
        model = clone(models_of["quantity" if task == "regression" else "classes"])
        model.fit(data.dataset.x_train, data.dataset.y_train)
        return getattr(model, "best_estimator_", model)

    fitted.__name__ = str(models_of["quantity"])
    fit = once(fitted)

    def by_permutation(x: pd.DataFrame, y: pd.Series, task: str, seed: int) -> Fitted:
        data, model = split(x, y, task, seed), fit(x, y, task, seed)
        ranking, p_values = permuted(model, data)
        return Fitted(lambda rows: predicted(model, data, data.encode(rows)), ranking, p_values)

    def by_own(x: pd.DataFrame, y: pd.Series, task: str, seed: int) -> Fitted:
        data, model = split(x, y, task, seed), fit(x, y, task, seed)
        values = np.abs(np.atleast_2d(getattr(model, own))).sum(axis=0)
        return Fitted(lambda rows: predicted(model, data, data.encode(rows)), by_column(values, data.dataset))

    return by_permutation, by_own, fit


linear, linear_own, linear_model = control(LINEAR, "coef_")
forest, forest_own, _ = control(FOREST, "feature_importances_")
boosting, boosting_own, boosting_model = control(BOOSTING, "feature_importances_")


def boosting_shap(x: pd.DataFrame, y: pd.Series, task: str, seed: int) -> Fitted | None:
    """Gradient boosting ranked by the mean magnitude of its TreeSHAP values on held-out rows; it knows two classes."""
    import shap

    if task == "multiclass":
        return None
    data, model = split(x, y, task, seed), boosting_model(x, y, task, seed)
    values = np.abs(np.asarray(shap.TreeExplainer(model).shap_values(data.dataset.x_test[:200]))).mean(axis=0)
    return boosting_own(x, y, task, seed)._replace(ranking=by_column(values, data.dataset))


def _linear_outputs(weights: jax.Array, x: jax.Array) -> jax.Array:
    weights = weights.reshape(-1, x.shape[1] + 1)
    return x @ weights[:, :-1].T + weights[:, -1]


LINEAR_ERRORS = {
    "binary": lambda weights, x, y: losses.sigmoid_errors(_linear_outputs(weights, x), y),
    "multiclass": lambda weights, x, y: losses.softmax_errors(_linear_outputs(weights, x), y),
    "regression": lambda weights, x, y: losses.squared_errors(_linear_outputs(weights, x), y),
}


def linear_conditional(x: pd.DataFrame, y: pd.Series, task: str, seed: int) -> Fitted:
    """The linear model, asked what each column adds to the others."""
    data, model = split(x, y, task, seed), linear_model(x, y, task, seed)
    dataset = data.dataset
    weights = np.column_stack([np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)]).ravel()
    copies = attribution.near_copies(dataset.x_train, dataset.column)
    measured = attribution.importance(
        jax.random.key(seed), LINEAR_ERRORS[task], jax.numpy.asarray(weights)[None], jax.numpy.asarray(dataset.x_test),
        jax.numpy.asarray(dataset.y_test), dataset.column, x_train=dataset.x_train, groups=copies,
    )  # fmt: skip
    predict = linear(x, y, task, seed).predict
    return Fitted(predict, measured.mean, attribution.p_values(measured), None, measured.groups)


METHODS: dict[str, Method] = {
    "jaxscape": jaxscape,
    "jaxscape, marginal permutation": jaxscape_marginal,
    "jaxscape, network of best evidence": best_size,
    "networks, L2 by cross-validation": cross_validated,
    "L2 1e-3, explored": fixed,
    "L2 1e-3, its minima together": fixed_together,
    "L2 1e-3, network of lowest loss": best_alone,
    "L2 1e-3, as many random restarts": same_number,
    "L2 1e-3, restarts at equal gradients": same_gradients,
    "linear, conditional permutation": linear_conditional,
    "linear, permutation": linear,
    "linear, coefficients": linear_own,
    "forest, permutation": forest,
    "forest, impurity": forest_own,
    "boosting, permutation": boosting,
    "boosting, impurity": boosting_own,
    "boosting, TreeSHAP": boosting_shap,
}
EXTRAS = frozenset({"boosting, TreeSHAP"})
