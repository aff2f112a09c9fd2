"""Each row predicted by a model that has not seen it, against models that were searched without it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxscape import leave_one_out, losses, models, objective, quench
from jaxscape.objective import from_rows
from jaxscape.search.gauss_newton import GaussNewtonConfig


def refitted(problem, x, rows):
    """Search again without each of the rows, from where the minimum of all of them is."""
    found = []
    for row in rows:
        weights = problem.data.weights.at[row].set(0.0)
        # The penalty of the sum stays, so that of the mean grows.
        precision = problem.data.precision * problem.data.weights.sum() / weights.sum()
        without = replace(problem, data=problem.data._replace(weights=weights, precision=precision))
        found.append(quench(without, x[None], GaussNewtonConfig(max_steps=300)).position[0])
    return np.array(found)


def network(errors, y, x, *, num_outputs, precision, key=0):
    params = models.init(jax.random.key(key), (x.shape[1], 2, num_outputs))
    problem = from_rows(models.mlp(), errors, params, x, y, precision=precision)
    found = quench(problem, objective.ravel(params)[None], GaussNewtonConfig(max_steps=300))
    return problem, found.position[0]


def test_exact_for_a_line():
    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(12, 3)), rng.uniform(0.5, 2, 12)
    y = x @ [1.0, -1.0, 0.0] + rng.normal(size=12)
    errors = jax.tree_util.Partial(losses.gaussian_errors, jnp.asarray(2.0))
    line = from_rows(lambda w, x: x @ w[:, None], errors, jnp.zeros(3), x, y, weights=weights, precision=0.1)
    penalty = 0.1 * weights.sum() * np.eye(3)

    def ridge(rows):
        some = x[rows] * (2 * weights[rows])[:, None]
        return np.linalg.solve(x[rows].T @ some + penalty, some.T @ y[rows])

    everything = np.arange(12)
    expected = np.array([ridge(everything != row) for row in everything])
    found = leave_one_out.minima(line, jnp.asarray(ridge(everything >= 0)))
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    outputs = leave_one_out.outputs(line, jnp.asarray(ridge(everything >= 0)))[:, 0]
    np.testing.assert_allclose(outputs, np.sum(x * expected, axis=1), rtol=1e-9)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_close_for_classes(num_classes):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 2))
    y = np.floor(num_classes * (1 + np.tanh(x[:, 0] + 0.7 * rng.normal(size=60))) / 2)
    errors, num_outputs = (losses.sigmoid_errors, 1) if num_classes == 2 else (losses.softmax_errors, 3)
    problem, best = network(errors, y, x, num_outputs=num_outputs, precision=0.02)
    rows = np.arange(0, 60, 6)
    moved = np.asarray(leave_one_out.minima(problem, best))[rows]
    expected = refitted(problem, best, rows)
    outputs = np.asarray(leave_one_out.outputs(problem, best))[rows]

    def at(weights):
        pairs = zip(jnp.asarray(np.array(weights)), jnp.asarray(x[rows]), strict=True)
        return np.array([models.mlp()(problem.unravel(weight), row[None])[0] for weight, row in pairs])

    np.testing.assert_allclose(outputs, at(moved), rtol=1e-9)
    # One step, and without the curvature of the model, goes most of the way there.
    change = np.linalg.norm(at(expected) - at([best] * len(rows)))
    assert change > 0.1
    assert np.linalg.norm(outputs - at(expected)) < 0.3 * change


def test_a_row_that_decides_alone_tells_nothing():
    x, y = jnp.array([[1.0, 0.0], [0.0, 1.0]]), jnp.array([1.0, 2.0])
    line = from_rows(lambda w, x: x @ w[:, None], lambda f, y: (f[:, 0] - y) ** 2, jnp.zeros(2), x, y, precision=0.0)
    assert not np.any(leave_one_out.minima(line, jnp.array([1.0, 2.0])))


def test_rows_in_chunks(monkeypatch):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(10, 2))
    problem, best = network(losses.sigmoid_errors, (x[:, 0] > 0).astype(float), x, num_outputs=1, precision=0.05)
    whole = leave_one_out.minima(problem, best)
    monkeypatch.setattr(leave_one_out, "_MOST_NUMBERS", 4 * best.size)
    chunked, _ = jax.jit(leave_one_out._without_each.__wrapped__)(problem, best)
    np.testing.assert_allclose(chunked, whole, rtol=1e-8)


def test_needs_rows():
    bowl = objective.from_loss(lambda x, _: jnp.sum(x**2), jnp.zeros(2))
    with pytest.raises(ValueError, match="from_rows"):
        leave_one_out.minima(bowl, jnp.zeros(2))
    x, y = np.ones((2, 1)), np.ones(2)
    line = from_rows(lambda w, x: x * w, losses.squared_errors, jnp.zeros(1), x, y, precision=1.0)
    with pytest.raises(ValueError, match="whitened"):
        leave_one_out.outputs(objective.whiten(line), jnp.zeros(1))
