"""Networks at the penalties that the data support, as estimators of scikit-learn."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from jaxscape.objective import flattened
from jaxscape.table import datasets, mixture, predict
from jaxscape.table.datasets import DataError, Encoding
from jaxscape.table.predict import Members
from jaxscape.table.settle import calibrated, settled
from jaxscape.table.targets import Task, classes_of


class _Landscape(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    def __init__(self, hidden: Sequence[int] | None = None, activation: str = "tanh", random_state: int = 0) -> None:
        self.hidden = hidden
        self.activation = activation
        self.random_state = random_state

    def _fit(self, X: Any, y: Any, task: Task, weights: Any) -> None:
        table = datasets.from_frame(X, y, weights=weights)
        dataset = datasets.prepare(table, task=task, seed=self.random_state, held_out=np.zeros(len(table.y), bool))
        sizes = mixture.SIZES if self.hidden is None else (tuple(self.hidden),)
        with jax.enable_x64(True):
            dataset = settled(dataset, sizes, self.activation, self.random_state)
            found = mixture.fit(dataset, sizes, self.activation, self.random_state)
            widest = max(found.sizes[i].hidden for i in found.networks[:, 0])
            shape = mixture.architecture(dataset, widest, len(dataset.inputs))
            positions = [mixture.network_of(dataset, found.sizes[i], j, widest) for i, j in found.networks.tolist()]
            _, _, unravel = flattened(mixture.example(shape))
            limits = predict.limits_of(dataset)
            self.members_ = Members(np.array(positions), found.weights, unravel, self.activation, None, limits)
            if dataset.kind.is_quantity:
                dataset = calibrated(dataset, predict.together(self.members_, dataset.kind, dataset.x_train))
        self.mixture_, self.encoding_, self.kind_ = found, dataset.encoding, dataset.kind  # type: ignore[assignment]  # made by prepare
        self.n_features_in_ = table.x.shape[1]
        self.columns_ = tuple(table.x.columns)
        if hasattr(X, "columns"):
            self.feature_names_in_ = np.array(table.x.columns, object)

    encoding_: Encoding

    def _predicted(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        frame = datasets.rows_like(X, self.columns_)
        x = datasets.encode(self.encoding_, frame)
        with jax.enable_x64(True):
            return predict.together(self.members_, self.kind_, x)


class LandscapeClassifier(ClassifierMixin, _Landscape):  # type: ignore[misc]
    """Tell classes apart by networks whose penalties and sizes the data choose.

    All rows are trained on; who wants the columns ranked, and a landscape, calls `jaxscape.explain`.

    Args:
        hidden: units of each hidden layer; by default networks of several sizes, weighed by their evidence and by
            how they predict rows left out of them.
        activation: of the units.
        random_state: of the starts.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "LandscapeClassifier":
        """Fit to a data frame, or rows of an array, and their classes; `sample_weight`: how much each row counts."""
        classes = classes_of(datasets.from_frame(X, y).y)
        if len(classes) < 2:
            raise DataError(f"y has one class only, {classes}: there is nothing to tell apart")
        self.classes_ = np.array(classes)
        self._fit(X, y, "binary" if len(classes) == 2 else "multiclass", sample_weight)
        return self

    def predict_proba(self, X: Any) -> Float[np.ndarray, "N classes"]:
        """Return the probability of each of `classes_`."""
        found = self._predicted(X)
        return np.stack([1 - found, found], axis=1) if found.ndim == 1 else found

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row."""
        return self.classes_[self.predict_proba(X).argmax(axis=1)]


class LandscapeRegressor(RegressorMixin, _Landscape):  # type: ignore[misc]
    """Predict a quantity by networks whose penalties and sizes the data choose; see `LandscapeClassifier`.

    Where its tails are heavy, and the evidence says so, it is learnt bent; predictions are its mean, in its own units,
    and never beyond the training rows.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "LandscapeRegressor":
        """Fit to a data frame, or rows of an array, and their values; `sample_weight`: how much each row counts."""
        self._fit(X, y, "regression", sample_weight)
        return self

    def predict(self, X: Any) -> Float[np.ndarray, " N"]:
        """Return the value predicted for each row."""
        return datasets.decode(self.encoding_, self._predicted(X))
