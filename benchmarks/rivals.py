"""Five rival attributions of one trained network: a score per column, higher is more important.

    pip install shap lime

SHAP, LIME and integrated gradients average over the same 100 held-out rows at most; permutation importance uses all and
comes with two scorings.
All are seeded: the same network and data give the same scores.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.inspection import permutation_importance

SEED = 0
MAX_EXPLAINED, MAX_BACKGROUND = 100, 50
SHAP_EVALUATIONS = 500
LIME_SAMPLES = 1000
PERMUTATION_REPEATS = 10
PATH_STEPS = 64


class Network(NamedTuple):
    """A trained network: logits of a batch of rows (pure JAX), and its first weights (units, columns)."""

    predict: Callable[[jax.Array], jax.Array]
    input_weights: jax.Array


class Data(NamedTuple):
    """Training and held-out rows, as the network sees them."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def shap_values(network: Network, data: Data) -> np.ndarray:
    """Mean |SHAP value| of the logits (`PermutationExplainer` at its default of 500 masks, 50 background rows)."""
    import shap

    masker = shap.maskers.Independent(sample(data.x_train, MAX_BACKGROUND), max_samples=MAX_BACKGROUND)
    explainer = shap.PermutationExplainer(logits(network), masker, seed=SEED)
    # One permutation, there and back, is the least that it accepts.
    evaluations = max(SHAP_EVALUATIONS, 2 * data.x_train.shape[1] + 1)
    explanation = explainer(sample(data.x_test, MAX_EXPLAINED), max_evals=evaluations, silent=True)
    return np.abs(explanation.values).mean(axis=0)


def lime_scores(network: Network, data: Data) -> np.ndarray:
    """Mean |coefficient| of LIME's local linear models of the probability, for columns in standard deviations."""
    from lime.lime_tabular import LimeTabularExplainer

    columns = data.x_train.shape[1]
    # "none" fits all columns at once; "auto" would choose among them first, only to choose all.
    explainer = LimeTabularExplainer(
        data.x_train, discretize_continuous=False, feature_selection="none", random_state=SEED
    )
    predict = probabilities(network)
    scores = np.zeros(columns)
    rows = sample(data.x_test, MAX_EXPLAINED)
    for row in rows:
        explained = explainer.explain_instance(row, predict, num_features=columns, num_samples=LIME_SAMPLES)
        for column, coefficient in explained.local_exp[1]:
            scores[column] += abs(coefficient) / len(rows)
    return scores


def sklearn_permutation(network: Network, data: Data) -> np.ndarray:
    """Mean loss of held-out AUC when a column is shuffled; may be negative."""
    return permuted(network, data, "roc_auc")


def sklearn_permutation_log_loss(network: Network, data: Data) -> np.ndarray:
    """Mean rise of the held-out log loss when a column is shuffled; may be negative."""
    return permuted(network, data, "neg_log_loss")


def integrated_gradients(network: Network, data: Data) -> np.ndarray:
    """Mean |integrated gradient| of the logit from the mean training row (64 midpoints of the straight line)."""
    baseline = jnp.asarray(data.x_train.mean(axis=0))
    shares = (jnp.arange(PATH_STEPS) + 0.5) / PATH_STEPS
    gradients = jax.vmap(jax.grad(lambda row: network.predict(row[None])[0]))

    @jax.jit
    @jax.vmap
    def attributions(row: jax.Array) -> jax.Array:
        path = baseline + shares[:, None] * (row - baseline)
        return (row - baseline) * gradients(path).mean(axis=0)

    return np.asarray(jnp.abs(attributions(sample(data.x_test, MAX_EXPLAINED))).mean(axis=0))


def magnitude(network: Network, data: Data) -> np.ndarray:
    """Sum of |input weight| over the hidden units: the plain magnitude in this one network, conserved or not."""
    return np.abs(np.asarray(network.input_weights)).sum(axis=0)


RIVALS: dict[str, Callable[[Network, Data], np.ndarray]] = {
    "SHAP": shap_values,
    "LIME": lime_scores,
    "permutation, AUC": sklearn_permutation,
    "permutation, log loss": sklearn_permutation_log_loss,
    "integrated gradients": integrated_gradients,
    "weight magnitude": magnitude,
}


class Classifier(ClassifierMixin, BaseEstimator):
    """A trained network as scikit-learn's scorers expect it."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.classes_ = np.array([0.0, 1.0])

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Classifier":
        """Do nothing: `permutation_importance` asks for the method, but never calls it."""
        return self

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return logits(self.network)(x)

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return probabilities(self.network)(x)


def permuted(network: Network, data: Data, scoring: str) -> np.ndarray:
    return permutation_importance(
        Classifier(network),
        data.x_test,
        data.y_test,
        scoring=scoring,
        n_repeats=PERMUTATION_REPEATS,
        random_state=SEED,
    ).importances_mean


def logits(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    """The network on NumPy batches of any length, padded to a power of two: few shapes, so few compilations."""
    predict = jax.jit(network.predict)

    def padded(x: np.ndarray) -> np.ndarray:
        length = 1 << (len(x) - 1).bit_length()
        return np.asarray(predict(np.pad(x, ((0, length - len(x)), (0, 0)))), dtype=float)[: len(x)]

    return padded


def probabilities(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    """Probabilities (rows, 2) of NumPy batches, in float64: in float32 they would round to 1 and tie."""
    predict = logits(network)

    def both(x: np.ndarray) -> np.ndarray:
        positive = scipy.special.expit(predict(x))
        return np.stack([1 - positive, positive], axis=1)

    return both


def sample(x: np.ndarray, most: int) -> np.ndarray:
    """At most so many rows, at random."""
    return np.random.default_rng(SEED).permutation(x)[:most]
