import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxscape import losses, models, objective


@pytest.fixture(scope="module")
def network():
    key = jax.random.key(0)
    sizes = (3, 4, 2, 1)
    data = losses.Supervised(jax.random.normal(key, (20, 3)), jnp.tile(jnp.array([0.0, 1.0]), 10), jnp.asarray(0.01))
    params = models.init(jax.random.key(1), sizes)
    return objective.from_loss(losses.sigmoid_cross_entropy(models.mlp("tanh")), params, data), objective.ravel(params)


def test_derivatives_match_finite_differences(network):
    problem, x = network
    rng = np.random.default_rng(0)
    v = jnp.asarray(rng.normal(size=problem.dim))
    h = 1e-5

    value_and_grad = jax.jit(objective.value_and_grad)

    def grad(x):
        return value_and_grad(problem, x)[1]

    slope = (value_and_grad(problem, x + h * v)[0] - value_and_grad(problem, x - h * v)[0]) / (2 * h)
    np.testing.assert_allclose(jnp.vdot(grad(x), v), slope, rtol=1e-8)
    bend = (grad(x + h * v) - grad(x - h * v)) / (2 * h)
    np.testing.assert_allclose(jax.jit(objective.hvp)(problem, x, v), bend, atol=1e-8)
    hessian = jax.jit(objective.hessian)(problem, x)
    np.testing.assert_allclose(hessian @ v, bend, atol=1e-8)
    assert np.array_equal(hessian, hessian.T)


def test_loss_is_that_of_an_independent_implementation(network):
    problem, x = network
    layers = problem.unravel(x)
    hidden = np.asarray(problem.data.x)
    for layer in layers[:-1]:
        hidden = np.tanh(hidden @ np.asarray(layer.weights) + np.asarray(layer.bias))
    p = 1 / (1 + np.exp(-(hidden @ np.asarray(layers[-1].weights) + np.asarray(layers[-1].bias))[:, 0]))
    y = np.asarray(problem.data.y)
    expected = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)) + 0.01 * np.sum(np.asarray(x) ** 2)
    np.testing.assert_allclose(objective.value(problem, x), expected, rtol=1e-12)


def test_equal_models_share_compiled_code(network):
    problem, x = network
    loss = losses.sigmoid_cross_entropy(models.mlp("tanh"))
    again = objective.from_loss(loss, problem.unravel(x), problem.data)
    assert jax.tree.structure(again) == jax.tree.structure(problem)


@pytest.mark.parametrize(
    ("loss", "params", "message"),
    [
        (lambda p, _: p, jnp.ones(3), "scalar"),
        (lambda p, _: jnp.sum(p).astype(int), jnp.ones(3), "scalar"),
        (lambda p, _: jnp.sum(p), jnp.arange(3), "floating-point"),
        (lambda p, _: jnp.sum(p["a"]), {"a": jnp.ones(2), "steps": jnp.array(3)}, r"params\['steps'\].*int"),
        (lambda p, _: jnp.sum(p["a"]), {"a": jnp.ones(2), "name": "tanh"}, r"params\['name'\].*'tanh'"),
        (lambda p, _: 0.5, jnp.ones(2), "got 0.5"),
        (lambda p, _: 0.0, {}, "0 values"),
    ],
)
def test_misuse_is_a_value_error(loss, params, message):
    with pytest.raises(ValueError, match=message):
        objective.from_loss(loss, params)


def test_the_hessian_is_the_same_a_few_columns_at_a_time(network, monkeypatch):
    problem, x = network
    whole = np.asarray(objective.hessian(problem, x))
    monkeypatch.setattr(objective, "_HESSIAN_ROWS", 60)  # of 20 rows: three columns
    np.testing.assert_allclose(objective.hessian(problem, x), whole, atol=1e-14)
