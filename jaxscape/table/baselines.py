"""What other models make of the same rows, and whether the networks keep up with them."""

import warnings
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxscape.table.datasets import Dataset, drawn
from jaxscape.table.targets import Target

_TREES = (100, 200)  # fewest and most of a forest
_ROWS_OF_FOREST = 250_000  # of all its trees together
_ROWS_OF_TREE = 2_500
_MAX_FITTED, _MAX_NUMBERS = 50_000, 1 << 22  # rows, and rows times inputs, that a model is fitted to
_FARTHEST = 1e30  # trees are grown in float32; training rows are standardised


class Baseline(NamedTuple):
    """How another model predicts: its scores on the training rows and on the held-out rows, `train` and `test`;
    `difference`: how much higher the networks score on the held-out rows, with the interval `low` to `high` that holds
    the true difference with 95 % confidence."""

    train: float
    test: float
    difference: float
    low: float
    high: float


class Baselines(NamedTuple):
    """The three models that the networks are compared with: see `fit`."""

    linear: Baseline
    forest: Baseline
    boosting: Baseline


def fit(
    dataset: Dataset, seed: int, outputs_test: Float[np.ndarray, " N"] | Float[np.ndarray, "N classes"]
) -> Baselines:
    """Fit a linear model, a random forest and boosted trees to the training rows, and compare networks with them.

    The linear model is a ridge regression, or a logistic one, with the L2 strength that cross-validation within the
    training rows prefers. Of very many training rows `num_fitted` are drawn, the same for all.

    Args:
        dataset: N held-out rows.
        seed: of the trees.
        outputs_test: what the networks predict for the held-out rows: values in a regression, probabilities of the
            second of two classes (or what grows with them), else probabilities of all classes.

    Returns:
        Scores as R², AUC, or the mean AUC of each class against the others. The intervals tell what other held-out rows
        could change, the models being as they are.

    Raises:
        ValueError: if `outputs_test` has another shape, or is not finite.
    """
    from threadpoolctl import threadpool_limits

    shape = (len(dataset.y_test), *([len(dataset.classes)] if len(dataset.classes) > 2 else []))
    if outputs_test.shape != shape:
        raise ValueError(f"outputs_test must have the shape {shape} for the held-out rows, got {outputs_test.shape}")
    if not np.all(np.isfinite(outputs_test)):
        raise ValueError("outputs_test holds values that are not finite")
    weights = dataset.weights_train
    if (number := num_fitted(dataset)) < len(dataset.y_train):
        rows, weights = drawn(dataset, number)
        dataset = dataset._replace(x_train=dataset.x_train[rows], y_train=dataset.y_train[rows])
    # On busy cores the threads of OpenMP and BLAS wait for each other, up to twenty times as long as one alone takes.
    with threadpool_limits(1):
        return Baselines(*(_compare(model, dataset, weights, outputs_test) for model in _models(dataset, seed)))


def num_fitted(dataset: Dataset) -> int:
    """Return how many training rows the models are fitted to: all, or some where that would take minutes."""
    num_rows, num_inputs = dataset.x_train.shape
    return min(num_rows, _MAX_FITTED, max(_MAX_NUMBERS // num_inputs, 1))


def _compare(
    model: Any,
    dataset: Dataset,
    weights: Float[np.ndarray, " n"] | None,
    network: Float[np.ndarray, " N"] | Float[np.ndarray, "N classes"],
) -> Baseline:
    with warnings.catch_warnings():
        # Where a thousand steps do not do, the penalty is among the weakest, and the model is what it is.
        warnings.filterwarnings("ignore", message="lbfgs failed to converge")
        model.fit(dataset.x_train, dataset.y_train, **({} if weights is None else {"sample_weight": weights}))
    kind = dataset.kind
    train, test = (_predicted(model, kind, x) for x in (dataset.x_train, dataset.x_test))
    return Baseline(
        kind.score(dataset.y_train, train, weights).value,
        kind.score(dataset.y_test, test, dataset.weights_test).value,
        *kind.difference(dataset.y_test, network, test, dataset.weights_test),
    )


def _models(dataset: Dataset, seed: int) -> tuple[Any, Any, Any]:
    from sklearn import ensemble, linear_model
    from sklearn.model_selection import GridSearchCV

    rows = len(dataset.y_train)
    tree_rows = min(rows, _ROWS_OF_TREE)
    forest = {
        "n_estimators": int(np.clip(_ROWS_OF_FOREST // tree_rows, *_TREES)),
        "min_samples_leaf": 2,
        "max_samples": tree_rows if tree_rows < rows else None,
        "n_jobs": 1,
        "random_state": seed,
    }
    # Shallow trees with small leaves: as good as exact boosting on small tables, and many times faster.
    boosting = {"max_leaf_nodes": 8, "min_samples_leaf": 5, "max_features": 0.5, "random_state": seed}
    if dataset.kind.is_quantity:
        return (
            linear_model.RidgeCV(np.geomspace(1e-2, 1e6, 33)),
            ensemble.RandomForestRegressor(**forest, max_features=2 / 3),
            ensemble.HistGradientBoostingRegressor(**boosting),
        )
    rarest = int(np.bincount(dataset.y_train.astype(int)).min())
    return (
        GridSearchCV(
            linear_model.LogisticRegression(max_iter=1000),
            {"C": np.geomspace(1e-4, 1e2, 10)},
            scoring="neg_log_loss",
            cv=min(5, rarest),
        ),
        ensemble.RandomForestClassifier(**forest),
        ensemble.HistGradientBoostingClassifier(**boosting),
    )


def _predicted(model: Any, target: Target, x: Float[np.ndarray, "N inputs"]) -> np.ndarray:
    x = np.clip(x, -_FARTHEST, _FARTHEST)
    if target.is_quantity:
        return model.predict(x)
    probabilities = model.predict_proba(x)
    return probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities
