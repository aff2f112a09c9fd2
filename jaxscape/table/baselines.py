"""What other models make of the same rows, and whether the networks keep up with them."""

import warnings
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from jaxscape.table.datasets import Dataset, Task, drawn

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

    shape = (len(dataset.y_test), *([len(dataset.classes)] if dataset.task == "multiclass" else []))
    if outputs_test.shape != shape:
        raise ValueError(f"outputs_test must have the shape {shape} for the held-out rows, got {outputs_test.shape}")
    if not np.all(np.isfinite(outputs_test)):
        raise ValueError("outputs_test holds values that are not finite")
    weights = None
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


def score(
    task: Task, y: Float[np.ndarray, " N"], outputs: Float[np.ndarray, " N"] | Float[np.ndarray, "N classes"]
) -> tuple[float, Float[np.ndarray, " N"]]:
    """Return R² or the (mean) AUC, and the influence of each row: how much it moves the score off that of all rows.

    Args:
        task: which score.
        y: targets; numbers of classes from zero.
        outputs: as in `fit`.

    Returns:
        The score; the influences, up to a constant in each class: the variance of a score, or of a difference of two on
        the same rows, is the sum of the variances of the rows' influences within their classes. For two classes that is
        the variance of DeLong, DeLong & Clarke-Pearson 1988 (Biometrics 44, 837).

    >>> score("binary", np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.35, 0.8]))
    (0.75, array([0.5 , 0.25, 0.25, 0.5 ]))
    """
    if task == "regression":
        errors, variation = (y - outputs) ** 2, (y - y.mean()) ** 2
        unexplained = errors.sum() / variation.sum()
        return float(1 - unexplained), (unexplained * variation - errors) / variation.sum()
    if task == "binary":
        return _auc(y == 1, outputs)
    parts = [_auc(y == k, column) for k, column in enumerate(outputs.T)]
    return float(np.mean([auc for auc, _ in parts])), np.mean([influence for _, influence in parts], axis=0)


def difference(
    task: Task,
    y: Float[np.ndarray, " N"],
    ours: Float[np.ndarray, " N"] | Float[np.ndarray, "N classes"],
    theirs: Float[np.ndarray, " N"] | Float[np.ndarray, "N classes"],
) -> tuple[float, float, float]:
    """Return how much higher one model scores than another on the same rows, with a 95 % interval.

    The interval is Student's, with the variance of `score`'s influences within the classes and the degrees of freedom
    of Welch 1947 (Biometrika 34, 28). Of few rows (below 60 or so) it may hold a large difference in fewer than 95 of
    100 cases, but no difference is still taken for one in 5 at most.

    Args:
        task: as in `score`.
        y: as in `score`.
        ours: outputs of the one model, as in `fit`.
        theirs: of the other.

    Returns:
        The difference, the lower end, the upper end.

    >>> y, good = np.array([0.0, 0.0, 0.0, 1.0, 1.0, 1.0]), np.array([1.0, 2.0, 4.0, 3.0, 5.0, 6.0])
    >>> [round(each, 3) for each in difference("binary", y, good, -good)]
    [0.778, -0.095, 1.0]
    """
    (our_score, our_influence), (their_score, their_influence) = score(task, y, ours), score(task, y, theirs)
    gap = our_score - their_score
    influences = our_influence - their_influence
    groups = [influences] if task == "regression" else [influences[y == k] for k in np.unique(y)]
    variances = np.array([len(group) * group.var(ddof=1) for group in groups if len(group) > 1])
    freedom = np.array([len(group) - 1 for group in groups if len(group) > 1])
    # Nothing varies in a class of one row: then the most that can, as its own AUC lies between 0 and 1.
    total = variances.sum() + (len(groups) - len(variances)) / (1 if ours.ndim == 1 else ours.shape[1] ** 2)
    if total == 0:
        return gap, gap, gap
    degrees = total**2 / max(np.sum(variances**2 / freedom), np.finfo(float).tiny)
    half = float(stdtrit(degrees, 0.975) * np.sqrt(total))
    if task == "regression":
        return gap, gap - half, gap + half
    return gap, max(gap - half, -1.0), min(gap + half, 1.0)


def _auc(positive: np.ndarray, outputs: Float[np.ndarray, " N"]) -> tuple[float, Float[np.ndarray, " N"]]:
    """Return the AUC and its influences: the share of the other class that a row is on the right side of, ties counted
    half, over the number of rows in its own class."""
    from scipy.stats import rankdata

    placed = rankdata(outputs)
    for side in (positive, ~positive):
        placed[side] -= rankdata(outputs[side])
    placed[~positive] = positive.sum() - placed[~positive]
    influences = placed / (positive.sum() * (~positive).sum())
    return float(influences[positive].sum()), influences


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
    train, test = (_outputs(model, dataset.task, x) for x in (dataset.x_train, dataset.x_test))
    return Baseline(
        score(dataset.task, dataset.y_train, train)[0],
        score(dataset.task, dataset.y_test, test)[0],
        *difference(dataset.task, dataset.y_test, network, test),
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
    if dataset.task == "regression":
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


def _outputs(model: Any, task: Task, x: Float[np.ndarray, "N inputs"]) -> np.ndarray:
    x = np.clip(x, -_FARTHEST, _FARTHEST)
    if task == "regression":
        return model.predict(x)
    probabilities = model.predict_proba(x)
    return probabilities[:, 1] if task == "binary" else probabilities
