"""Kinds of target: what is told of one in several ways agrees, with SciPy and scikit-learn and with itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.special import expit, softmax
from sklearn.metrics import log_loss

from jaxscape.losses import Supervised
from jaxscape.table.aims import AIMS
from jaxscape.table.targets import TARGETS

ROWS = 40


def drawn(task):
    """Targets, and the outputs of three networks."""
    rng = np.random.default_rng(0)
    target = TARGETS[task]
    classes = {"binary": 2, "multiclass": 3, "regression": 0}[task]
    y = rng.normal(size=ROWS) if target.is_quantity else rng.permutation(np.arange(ROWS) % classes).astype(float)
    return target, y, rng.normal(size=(3, ROWS, target.num_outputs(classes)))


@pytest.mark.parametrize("task", TARGETS)
def test_likelihoods_on_the_host_and_in_jax_are_those_of_scipy_and_scikit_learn(task):
    target, y, outputs = drawn(task)
    each = target.log_likelihoods(outputs, y)
    if target.is_quantity:
        np.testing.assert_allclose(each, scipy.stats.norm.logpdf(y, outputs[..., 0]))
    else:
        means = [log_loss(y, target.predicted(one)) for one in outputs]
        np.testing.assert_allclose(-each.mean(axis=1), means)
    np.testing.assert_allclose(-target.likelihood()(jnp.asarray(outputs[0]), jnp.asarray(y)), each[0])
    everywhere = np.tile(target.constant(y, np.ones(ROWS)), (ROWS, 1))
    better = [target.log_likelihoods(everywhere + 0.01 * step, y).sum() for step in np.eye(everywhere.shape[1])]
    assert target.log_likelihoods(everywhere, y).sum() >= max(better)


@pytest.mark.parametrize("task", TARGETS)
def test_errors_together_are_those_of_the_mean_prediction(task):
    target, y, outputs = drawn(task)
    weights = np.array([0.5, 0.3, 0.2])
    found = target.errors_together(jnp.asarray(weights), jnp.asarray(outputs), jnp.asarray(y))
    mean = np.tensordot(weights, {"binary": expit, "multiclass": softmaxes, "regression": np.asarray}[task](outputs), 1)
    shares = mean if task == "multiclass" else np.concatenate([1 - mean, mean], axis=-1)
    wanted = (mean[:, 0] - y) ** 2 if target.is_quantity else -np.log(shares[np.arange(ROWS), y.astype(int)])
    np.testing.assert_allclose(found, wanted)
    np.testing.assert_allclose(
        target.score(y, target.predicted(outputs[0])).value,
        float(target.traced_score(jnp.asarray(y), jnp.asarray(outputs[0]))),
    )
    alone = target.errors_together(jnp.ones(1), jnp.asarray(outputs[:1]), jnp.asarray(y))
    np.testing.assert_allclose(alone, target.errors(jnp.asarray(outputs[0]), jnp.asarray(y)))


def softmaxes(outputs):
    return softmax(outputs, axis=-1)


@pytest.mark.parametrize("task", TARGETS)
def test_aims_fit_the_targets_that_they_say(task):
    target, y, outputs = drawn(task)
    for aim in AIMS.values():
        fits = {"likelihood": True, "balanced": not target.is_quantity, "auc": task == "binary"}[aim.name]
        assert (aim.misfit(target, ROWS) is None) == fits
        if not fits:
            continue
        errors = aim.errors(target)(jnp.asarray(outputs[0]), jnp.asarray(y))
        assert errors.shape == (ROWS,)
        # All that is aimed at is a loss of any model.
        loss = aim.loss(target)(lambda params, x: x + params)
        assert np.isfinite(jax.grad(loss)(jnp.zeros(()), Supervised(jnp.asarray(outputs[0]), jnp.asarray(y))))
    assert "1,000" in AIMS["auc"].misfit(TARGETS["binary"], 1001)
