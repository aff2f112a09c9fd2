"""What the report says comes from the right rows and the right test: the verdicts, the scores, the importance."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxscape import explain, report
from jaxscape.analysis import attribution
from jaxscape.analysis.attribution import Importance
from jaxscape.analysis.validation import PermutationTest
from jaxscape.datasets import Dataset
from jaxscape.explain import ExplainConfig, Explanation


def dataset(task="regression"):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    y = x[:, 0] if task == "regression" else (x[:, 0] > 0).astype(float)
    classes = () if task == "regression" else ("no", "yes")
    parts = (x[:40], y[:40], x[40:], y[40:])
    return Dataset("t", "y", task, classes, *parts, ("a", "b"), ("a", "b"), np.arange(2), ())


def explanation(**known):
    fields = dict.fromkeys(Explanation._fields) | {"dataset": dataset("binary"), "config": ExplainConfig()}
    return Explanation(**(fields | known))


def permutations(p_value, random=0.9, chosen=0.8):
    return PermutationTest(np.float64(0.95), np.full(5, chosen), np.full(9, random), np.float64(p_value))


MANY, FEW = 200, 3  # weights that others can be drawn from


def conserved(num_conserved, total, p_value=None, p_matched=None, *, bins=None, minima=5):
    """An explanation of which only the tests of the conserved weights are known."""
    mask = np.arange(total) < num_conserved
    tests = {} if p_value is None else {"test": permutations(p_value), "matched": permutations(p_matched)}
    return explanation(
        landscape=SimpleNamespace(minima=SimpleNamespace(energies=np.zeros(minima))),
        conserved=SimpleNamespace(mask=mask[None]),
        bins=np.zeros(total, int) if bins is None else bins,
        **tests,
    )


@pytest.mark.parametrize(
    ("found", "supported", "says"),
    [
        (conserved(0, MANY, minima=1), False, "Only one minimum was found"),
        (conserved(1, MANY), False, "only 1 is conserved"),
        (conserved(2, FEW, 0.01, 0.01), False, "too few other sets of so many weights"),
        (conserved(5, MANY, 0.06, 0.01), False, "could not be told apart from random ones"),
        (conserved(5, MANY, 0.04, 0.01, bins=np.arange(MANY) // 5), True, "too few other sets as large"),
        (conserved(5, MANY, 0.04, 0.06), True, "could not be told apart from others as large"),
        (conserved(5, MANY, 0.04, 0.04), True, "more than on others, also than on others as large"),
    ],
)
def test_each_verdict_on_conserved_weights_is_that_of_its_tests(found, supported, says):
    verdict = report.conserved_verdict(found)
    assert verdict[0] is supported
    assert says in " ".join(verdict[1].split())


@pytest.mark.parametrize(
    ("q_values", "supported", "says"),
    [([0.05, 0.2], True, "1 of 2 columns matter"), ([0.06, 0.2], False, "No column matters with confidence")],
)
def test_the_verdict_on_the_ranking_is_that_of_its_q_values(q_values, supported, says):
    measured = Importance(np.zeros((1, 40, 2)), np.arange(2), np.zeros(40, int), np.ones(1))
    stable = attribution.Stability(40, 50, 1, np.zeros(2), np.ones(2))
    found = explanation(q_values=np.array(q_values), importance=measured, stability=stable)
    verdict = report.verdict(found)
    assert verdict[0] is supported
    assert says in verdict[1]
    assert "40 of 50 resamplings" in verdict[1]


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_importance_looks_at_held_out_rows_alone(task):
    data, config = dataset(task), ExplainConfig(hidden=(2,))
    objective, *_ = explain.problem(data, config)
    model = np.random.default_rng(1).normal(size=(1, objective.dim))
    here = SimpleNamespace(minima=SimpleNamespace(positions=model))

    def measured(data):
        # Not the type-checked function: the landscape is a stand-in.
        measure = getattr(explain.column_importance, "__wrapped__", explain.column_importance)
        return measure(jax.random.key(0), objective, data, config, here, np.arange(1)).mean

    blind = data._replace(x_train=np.full_like(data.x_train, np.nan), y_train=np.full_like(data.y_train, np.nan))
    np.testing.assert_array_equal(measured(blind), measured(data))
    other = data._replace(x_test=data.x_test[::-1].copy())
    assert not np.allclose(measured(other), measured(data))


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_a_score_is_that_of_the_rows_it_is_made_for(task):
    data, config = dataset(task), ExplainConfig(hidden=(1,))
    objective, *_ = explain.problem(data, config)
    # One unit so weak that it is a straight line: the target itself.
    line = jnp.array([1e-3, 0.0, 0.0, 1e3, 0.0])
    reversed_targets = -data.y_test if task == "regression" else 1 - data.y_test
    score = explain.scorer(objective, data, config, data.x_test, data.y_test)
    wrong = explain.scorer(objective, data, config, data.x_test, reversed_targets)
    np.testing.assert_allclose(score(line), 1, atol=1e-3)
    assert wrong(line) < 0.1
