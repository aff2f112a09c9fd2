import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxscape import curvature, losses, models, objective
from jaxscape.objective import from_loss, from_rows, gauss_newton, hessian, ravel, unscaled, value, whiten

ROWS, INPUTS = 13, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, INPUTS))
WEIGHTS = RNG.uniform(0, 3, ROWS)
WEIGHTS[4] = 0


def affine(params, x):
    return x["a"] @ params["w"] + params["b"]


def gaussian(beta, outputs, y):
    return 0.5 * beta * jnp.sum((outputs - y[:, None]) ** 2, axis=1)


def linear_model(kind):
    """A model whose own curvature is zero, so that Gauss-Newton is the whole Hessian."""
    errors, num_outputs, y = {
        "squared": (jax.tree_util.Partial(gaussian, jnp.asarray(12.0)), 1, RNG.normal(size=ROWS)),
        "logistic": (losses.sigmoid_errors, 1, np.arange(ROWS) % 2.0),
        "softmax": (losses.softmax_errors, 3, np.arange(ROWS) % 3.0),
    }[kind]
    params = {"b": jnp.zeros(num_outputs), "w": jnp.zeros((INPUTS, num_outputs))}
    precision = RNG.uniform(0, 2, (INPUTS + 1) * num_outputs)
    return from_rows(affine, errors, params, {"a": X}, y, weights=WEIGHTS, precision=precision)


@pytest.mark.parametrize("chunk", [ROWS, 5, 1])  # all rows at once; 5, 5 and 3, two of them padded; one by one
@pytest.mark.parametrize("kind", ["squared", "logistic", "softmax"])
def test_it_is_the_whole_hessian_of_a_linear_model(kind, chunk, monkeypatch):
    problem = linear_model(kind)
    monkeypatch.setattr(curvature, "_CHUNK", chunk * problem.dim * (3 if kind == "softmax" else 1))
    x = jnp.asarray(RNG.normal(size=problem.dim))
    expected = jax.hessian(functools.partial(value, problem))(x)
    found = gauss_newton(problem, x)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.array_equal(found, found.T)
    white = whiten(problem)
    scale = np.asarray(white.scale)
    np.testing.assert_allclose(gauss_newton(white, x / white.scale), scale[:, None] * expected * scale, rtol=1e-10)


def test_of_a_network_it_is_the_hessian_with_the_model_made_linear():
    sizes = (INPUTS, 2, 1)
    params, predict, y = models.init(jax.random.key(0), sizes), models.mlp("tanh"), np.arange(ROWS) % 2.0
    problem = from_rows(predict, losses.sigmoid_errors, params, X, y, weights=WEIGHTS, precision=0.01)
    x = ravel(params)

    def flat(x):
        return predict(problem.unravel(x), jnp.asarray(X))

    at, move = jax.linearize(flat, x)

    def straight(z):
        mean = jnp.average(losses.sigmoid_errors(at + move(z - x), jnp.asarray(y)), weights=jnp.asarray(WEIGHTS))
        return mean + 0.005 * jnp.sum(z**2)

    found = gauss_newton(problem, x)
    np.testing.assert_allclose(found, jax.hessian(straight)(x), atol=1e-12)
    assert np.max(np.abs(found - hessian(problem, x))) > 1e-3  # the model's own curvature is not in it


@pytest.mark.parametrize("chunk", [ROWS, 5, 1])
@pytest.mark.parametrize("sizes", [(INPUTS, 2, 3), (INPUTS, 1, 3), (INPUTS, 2, 2, 3), (INPUTS, 3)])
def test_the_curvature_of_a_network_is_that_of_any_model(sizes, chunk, monkeypatch):
    params, predict = models.init(jax.random.key(1), sizes), models.mlp("tanh")
    labels = np.arange(ROWS) % 3.0

    def made(outputs):
        return from_rows(outputs, losses.softmax_errors, params, X, labels, weights=WEIGHTS, precision=0.01)

    # The same function, of which nothing is known.
    problem, other = made(predict), made(lambda params, x: predict(params, x))
    x = ravel(params)
    expected = jax.hessian(functools.partial(value, other))(x)
    without_model = gauss_newton(other, x)
    monkeypatch.setattr(curvature, "_CHUNK", chunk * problem.dim)
    monkeypatch.setattr(curvature, "_CHUNK_ROWS", chunk)
    scale = np.asarray(whiten(problem).scale)
    for each in (problem, other):
        found = hessian(each, x)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        assert np.array_equal(found, found.T)
        white = hessian(whiten(each), x / scale)
        np.testing.assert_allclose(white, scale[:, None] * expected * scale, rtol=1e-8, atol=1e-12)
    energy, gradient, matrix = objective.value_grad_and_gauss_newton(problem, x)
    np.testing.assert_allclose(matrix, without_model, atol=1e-12)
    np.testing.assert_allclose(energy, value(problem, x), rtol=1e-12)
    np.testing.assert_allclose(gradient, jax.grad(functools.partial(value, other))(x), atol=1e-12)


def test_the_energy_is_that_of_the_same_formula_as_a_loss():
    problem = linear_model("softmax")
    w, b, precision = RNG.normal(size=(INPUTS, 3)), RNG.normal(size=3), np.asarray(problem.data.precision)
    logits = X @ w + b
    chosen = np.log(np.exp(logits)[np.arange(ROWS), np.arange(ROWS) % 3] / np.exp(logits).sum(axis=1))
    penalty = 0.5 * (precision[:3] @ b**2 + precision[3:] @ w.ravel() ** 2)
    expected = -(WEIGHTS @ chosen) / WEIGHTS.sum() + penalty
    at = ravel({"b": jnp.asarray(b), "w": jnp.asarray(w)})
    np.testing.assert_allclose(value(problem, at), expected, rtol=1e-12)
    again = from_rows(
        affine, losses.softmax_errors, problem.unravel(at), {"a": X}, np.arange(ROWS) % 3.0, precision=0.0
    )
    np.testing.assert_allclose(value(again, at), -np.mean(chosen), rtol=1e-12)


def test_curvature_is_finite_where_a_row_is_certain():
    problem = from_rows(
        lambda a, x: x * a, losses.sigmoid_errors, jnp.zeros(1), X[:2, :1], np.array([0.0, 1.0]), precision=0.5
    )
    for size in (1e3, -1e3, 1e200):
        np.testing.assert_allclose(gauss_newton(problem, jnp.full(1, size)), 0.5)


def test_one_row_and_single_precision():
    params = {"b": jnp.zeros(1, jnp.float32), "w": jnp.zeros((INPUTS, 1), jnp.float32)}
    x = {"a": X[:1].astype(np.float32)}
    problem = from_rows(affine, losses.squared_errors, params, x, np.ones(1, np.float32), precision=0.5)
    at = jnp.ones(problem.dim, jnp.float32)
    features = np.concatenate([[1], X[0]])
    np.testing.assert_allclose(gauss_newton(problem, at), 2 * np.outer(features, features) + 0.5 * np.eye(4), rtol=1e-5)
    for result in (value(problem, at), gauss_newton(problem, at), whiten(problem).scale):
        assert result.dtype == jnp.float32


def test_new_data_need_no_new_program():
    traces = []

    @jax.jit
    def compute(problem, x):
        traces.append(0)
        return value(problem, x) + gauss_newton(problem, x).sum()

    def build(beta):
        y, errors = RNG.normal(size=ROWS), jax.tree_util.Partial(gaussian, jnp.asarray(beta))
        params = {"b": jnp.zeros(1), "w": jnp.zeros((INPUTS, 1))}
        return from_rows(affine, errors, params, {"a": X + beta}, y, weights=WEIGHTS * beta, precision=beta)

    at = jnp.ones(INPUTS + 1)
    results = [float(compute(whiten(build(beta)), at)) for beta in (1.0, 2.0)]
    assert len(traces) == 1
    assert results[0] != results[1]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_whitened_coordinates_go_there_and_back_to_the_bit(dtype):
    precision = np.concatenate([np.logspace(-7, 5, 300), [0.0]]).astype(dtype)

    def model(params, x):
        return x @ params[:, None]

    x, y = np.ones((5, precision.size), dtype), np.zeros(5, dtype)
    problem = from_rows(model, losses.squared_errors, jnp.zeros(precision.size, dtype), x, y, precision=precision)
    white = whiten(problem)
    scale = np.asarray(white.scale)
    assert np.all(np.frexp(scale)[0] == 0.5)  # powers of two, not nearly
    assert scale[-1] == 1
    assert np.all(np.abs(np.log2(5 * precision[:-1].astype(float) * scale[:-1] ** 2)) <= 1 + 1e-5)
    x = jnp.asarray(RNG.normal(size=precision.size).astype(dtype))
    there = x / white.scale
    assert np.array_equal(unscaled(white, there), x)
    assert value(white, there) == value(problem, x)


GOOD = {"outputs": lambda a, x: x * a, "errors": losses.squared_errors, "x": X[:, :1], "y": X[:, 0], "precision": 0.1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": X[:5, 0]}, r"same number of rows.*\(13, 1\), \(5,\)"),
        ({"x": X[:0, :1], "y": X[:0, 0]}, "at least one"),
        ({"x": np.float64(1.0)}, r"same number of rows.*\(\), \(13,\)"),
        ({"weights": np.ones(3)}, r"weights must have shape \(13,\), got \(3,\)"),
        ({"weights": np.where(np.arange(ROWS) == 5, -1.0, 1.0)}, r"weights\[5\] = -1.0"),
        ({"weights": np.zeros(ROWS)}, "not all be zero"),
        ({"precision": np.ones(2)}, r"precision must have shape \(1,\), got \(2,\)"),
        ({"precision": np.array([np.inf])}, r"precision\[0\] = inf"),
        ({"precision": float("nan")}, r"precision\[0\] = nan"),
        ({"outputs": lambda a, x: x[:, 0] * a}, r"outputs\(params, x\) must have shape \(13, K\)"),
        ({"outputs": lambda a, x: (x * a, a)}, r"outputs\(params, x\) must have shape \(13, K\)"),
        ({"errors": lambda f, y: jnp.mean(f)}, r"errors\(outputs, y\) must have shape \(13,\)"),
        ({"params": jnp.zeros(1, int)}, "floating-point"),
    ],
)
def test_misuse_is_named(change, message):
    arguments = {"params": jnp.zeros(1), **GOOD, **change}
    positional = [arguments.pop(name) for name in ("outputs", "errors", "params", "x", "y")]
    with pytest.raises(ValueError, match=message):
        from_rows(*positional, **arguments)


def test_what_needs_rows_says_so():
    bowl = from_loss(lambda x, _: jnp.sum(x**2), jnp.zeros(2))
    with pytest.raises(ValueError, match="make the objective with from_rows"):
        gauss_newton(bowl, jnp.zeros(2))
    with pytest.raises(ValueError, match="made by from_rows"):
        whiten(bowl)
    with pytest.raises(ValueError, match="not yet whitened"):
        whiten(whiten(linear_model("squared")))
