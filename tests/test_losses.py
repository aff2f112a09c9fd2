import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from sklearn.metrics import roc_auc_score
from sklearn.utils.class_weight import compute_sample_weight

from jaxscape import losses, models
from jaxscape.losses import Supervised
from jaxscape.objective import from_loss, hessian, ravel, value, value_and_grad

RNG = np.random.default_rng(0)
N, CLASSES = 30, 3
X = jnp.asarray(RNG.normal(size=(N, 4)))
TWO = jnp.asarray(np.arange(N) % 3 == 0, float)
THREE = jnp.asarray(np.arange(N) % CLASSES, float)
PREDICT = models.mlp("tanh")
ALL = {
    losses.sigmoid_cross_entropy: (1, TWO),
    losses.squared_error: (1, X[:, 0] ** 2),
    losses.softmax_cross_entropy: (CLASSES, THREE),
    losses.auc_surrogate: (1, TWO),
}


def network(num_outputs):
    return models.init(jax.random.key(num_outputs), (4, 5, num_outputs))


def test_softmax_is_minus_the_log_probability_of_the_class():
    params = network(CLASSES)
    log_probability = scipy.special.log_softmax(np.asarray(PREDICT(params, X)), axis=1)
    expected = -log_probability[np.arange(N), np.asarray(THREE, int)].mean()
    loss = losses.softmax_cross_entropy(PREDICT)
    np.testing.assert_allclose(loss(params, Supervised(X, THREE, 0.0)), expected)
    penalty = sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(params))
    np.testing.assert_allclose(loss(params, Supervised(X, THREE, 0.1)), expected + 0.1 * penalty)
    with pytest.raises(ValueError, match="an output for each class, got 1"):
        loss(network(1), Supervised(X, THREE))


def test_softmax_of_two_classes_is_the_sigmoid_of_the_difference():
    params = network(2)
    softmax = losses.softmax_cross_entropy(PREDICT)(params, Supervised(X, TWO, 0.0))
    sigmoid = losses.sigmoid_cross_entropy(lambda params, x: PREDICT(params, x) @ jnp.array([[-1.0], [1.0]]))
    np.testing.assert_allclose(softmax, sigmoid(params, Supervised(X, TWO, 0.0)))


@pytest.mark.parametrize("make", ALL)
def test_a_weight_is_a_number_of_repeats(make):
    num_outputs, y = ALL[make]
    params, loss = network(num_outputs), make(PREDICT)
    repeats = RNG.integers(0, 4, N)
    rows = np.repeat(np.arange(N), repeats)
    repeated = loss(params, Supervised(X[rows], y[rows], 0.01))
    np.testing.assert_allclose(loss(params, Supervised(X, y, 0.01, jnp.asarray(0.3 * repeats))), repeated)
    np.testing.assert_allclose(loss(params, Supervised(X, y, 0.01, jnp.ones(N))), loss(params, Supervised(X, y, 0.01)))


def test_balanced_weights_let_every_class_count_the_same():
    y = np.repeat([0.0, 1.0, 2.0], [20, 7, 3])
    weights = losses.balanced_weights(y)
    np.testing.assert_allclose(weights, compute_sample_weight("balanced", y))
    assert losses.balanced_weights(y.astype(np.float32)).dtype == np.float32


def test_the_smooth_auc_is_a_mean_over_pairs_and_tends_to_the_auc():
    params = network(1)
    logits = np.asarray(PREDICT(params, X))[:, 0]
    pairs = [
        1 / (1 + np.exp(-2.5 * (logits[i] - logits[j])))
        for i in range(N)
        for j in range(N)
        if TWO[i] == 1 and TWO[j] == 0
    ]
    data = Supervised(X, TWO, 0.0)
    np.testing.assert_allclose(losses.auc_surrogate(PREDICT, beta=2.5)(params, data), 1 - np.mean(pairs))
    # Ties count a half in both.
    tied = Supervised(X.at[1].set(X[0]), TWO, 0.0)
    auc = roc_auc_score(TWO, np.asarray(PREDICT(params, tied.x))[:, 0])
    np.testing.assert_allclose(losses.auc_surrogate(PREDICT, beta=1e6)(params, tied), 1 - auc, atol=1e-9)
    # Weights of whole classes cancel.
    weights = jnp.asarray(losses.balanced_weights(np.asarray(TWO)))
    loss = losses.auc_surrogate(PREDICT)
    np.testing.assert_allclose(loss(params, data._replace(weights=weights)), loss(params, data))


@pytest.mark.parametrize("make", [losses.softmax_cross_entropy, losses.auc_surrogate])
def test_derivatives_agree_with_finite_differences(make):
    num_outputs, y = ALL[make]
    params = network(num_outputs)
    weights = jnp.asarray(RNG.uniform(0.5, 2, N))
    objective = from_loss(make(PREDICT), params, Supervised(X, y, jnp.asarray(0.01), weights))
    x, v = ravel(params), jnp.asarray(RNG.normal(size=objective.dim))
    v, h = v / jnp.linalg.norm(v), 1e-5
    energy, gradient = jax.jit(value_and_grad)(objective, x)
    energies = jax.jit(jax.vmap(value, in_axes=(None, 0)))(objective, jnp.stack([x - h * v, x, x + h * v]))
    np.testing.assert_allclose(energies[1], energy)
    np.testing.assert_allclose(gradient @ v, (energies[2] - energies[0]) / (2 * h), rtol=1e-6)
    change = value_and_grad(objective, x + h * v)[1] - value_and_grad(objective, x - h * v)[1]
    np.testing.assert_allclose(jax.jit(hessian)(objective, x) @ v, change / (2 * h), rtol=1e-5, atol=1e-9)


def test_ranking_errors_add_up_to_one_minus_the_auc():
    rng = np.random.default_rng(0)
    labels, logits = np.append(rng.integers(0, 2, 30), [0, 1]).astype(float), rng.normal(size=32).round(1)
    errors = np.asarray(losses.ranking_errors(jnp.asarray(logits)[:, None], jnp.asarray(labels)))
    for label in (0, 1):
        expected = 1 - roc_auc_score(labels, logits)
        np.testing.assert_allclose(errors[labels == label].mean(), expected, atol=1e-12)


def test_compiled_losses_of_many_rows_are_those_of_numpy():
    # jaxlib 0.10.2 sums some batched products of more than 16,384 rows wrongly (github.com/jax-ml/jax/issues/39103).
    rows, width = 16_385, 3
    x = RNG.normal(size=(rows, width))
    y = (x[:, 0] > 0).astype(float)
    params = models.init(jax.random.key(0), (width, 2, 1))
    data = Supervised(jnp.asarray(x), jnp.asarray(y), jnp.asarray(0.0))
    problem = from_loss(losses.sigmoid_cross_entropy(PREDICT), params, data)
    points = jnp.stack([ravel(params), 2 * ravel(params)])
    found, slopes = jax.jit(jax.vmap(lambda point: value_and_grad(problem, point)))(points)
    for point, energy, slope in zip(np.asarray(points), found, slopes, strict=True):
        hidden = np.tanh(x @ point[:6].reshape(width, 2) + point[6:8])
        logits = hidden @ point[8:10] + point[10]
        np.testing.assert_allclose(energy, np.mean(np.logaddexp(0, logits) - y * logits), rtol=1e-12)
        miss = 1 / (1 + np.exp(-logits)) - y
        np.testing.assert_allclose(slope[8:], np.append(miss @ hidden, miss.sum()) / rows, rtol=1e-9)
