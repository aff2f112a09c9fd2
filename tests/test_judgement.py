"""What the report says comes from the right rows and the right test: the verdicts, the scores, the importance."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxscape import report
from jaxscape.analysis import attribution
from jaxscape.analysis.validation import PermutationTest
from jaxscape.table import explain, predict, problem
from jaxscape.table.baselines import Baseline, Baselines
from jaxscape.table.datasets import Dataset
from jaxscape.table.explain import Explanation
from jaxscape.table.predict import Members
from jaxscape.table.problem import ExplainConfig


def dataset(task="regression"):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2))
    y = x[:, 0] if task == "regression" else (x[:, 0] > 0).astype(float)
    classes = () if task == "regression" else ("no", "yes")
    parts = (x[:40], y[:40], x[40:], y[40:])
    return Dataset("t", "y", task, classes, *parts, ("a", "b"), ("a", "b"), np.arange(2), ())


AHEAD, LEVEL, BEHIND = (Baseline(0.9, 0.8, 0.0, low, high) for low, high in ((0.01, 0.1), (-0.1, 0.0), (-0.1, -0.01)))


def explanation(baselines=Baselines(LEVEL, LEVEL, LEVEL), **known):  # noqa: B008  (a named tuple)
    fields = dict.fromkeys(Explanation._fields) | {
        "dataset": dataset("binary"),
        "config": ExplainConfig(),
        "performance": explain.Performance(0.9, 0.75, np.array([0.7]), baselines),
    }
    return Explanation(**(fields | known))


def permutations(p_value, random=0.9, chosen=0.8):
    return PermutationTest(np.float64(0.95), np.full(5, chosen), np.full(9, random), np.float64(p_value))


MANY, FEW = 200, 3  # weights that others can be drawn from


def conserved(num_conserved, total, p_value=None, p_matched=None, *, bins=None, minima=5):
    """An explanation of which only the tests of the conserved weights are known."""
    mask = np.arange(total) < num_conserved
    tests = {} if p_value is None else {"test": permutations(p_value), "matched": permutations(p_matched)}
    landscape = SimpleNamespace(minima=SimpleNamespace(energies=np.zeros(minima)))
    bins = np.zeros(total, int) if bins is None else bins
    found = dict.fromkeys(explain.Conserved._fields) | {"found": SimpleNamespace(mask=mask[None]), "bins": bins} | tests
    explored = SimpleNamespace(landscape=landscape, supported=None)
    return explanation(explored=explored, conserved=SimpleNamespace(**found))


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


def ranking(q_values, same_top=45):
    """An explanation of which only the ranking of two columns is known."""
    importance = SimpleNamespace(increases=np.zeros((1, 40, 2)), groups=np.arange(2))
    stability = attribution.Stability(same_top, 50, 1, np.zeros(2), np.ones(2))
    return explanation(ranking=SimpleNamespace(q_values=q_values, importance=importance, stability=stability))


@pytest.mark.parametrize(
    ("q_values", "same_top", "supported", "says"),
    [
        ([0.05, 0.2], 45, True, "1 of 2 columns tell what the others do not"),
        ([0.05, 0.2], 44, False, "Which columns come first is not sure"),
        ([0.06, 0.2], 50, False, "No column matters with confidence"),
    ],
)
def test_the_verdict_on_the_ranking_is_that_of_its_q_values(q_values, same_top, supported, says):
    verdict = report.verdict(ranking(np.array(q_values), same_top))
    assert verdict[0] is supported
    assert says in verdict[1]
    assert f"{same_top} of 50 resamplings" in verdict[1]


@pytest.mark.parametrize(
    ("others", "keeps_up", "says"),
    [
        (
            Baselines(linear=BEHIND, forest=AHEAD, boosting=LEVEL),
            False,
            "predict clearly worse than logistic regression (0.800), not clearly better or worse than boosted trees "
            "(0.800), clearly better than a random forest (0.800). What drives them may not be what drives the data.",
        ),
        (
            Baselines(AHEAD, AHEAD, AHEAD),
            True,
            "On 40 held-out rows the networks (AUC 0.750) predict clearly better than logistic regression (0.800), "
            "boosted trees (0.800) and a random forest (0.800).",
        ),
    ],
)
def test_the_verdict_on_the_networks_is_that_of_the_intervals(others, keeps_up, says):
    verdict = report.baselines_verdict(explanation(baselines=others))
    assert verdict[0] is keeps_up
    assert verdict[1].endswith(says)
    regression = report.baselines_verdict(explanation(baselines=others, dataset=dataset()))
    assert "networks (R² 0.750)" in regression[1]
    assert "than ridge regression" in regression[1]


@pytest.mark.parametrize("kind", Baselines._fields)
def test_no_ranking_is_sure_whose_networks_are_clearly_behind_one_model(kind):
    level = ranking(np.zeros(2))
    assert report.verdict(level)[0] is True
    baselines = level.performance.baselines._replace(**{kind: BEHIND})
    sure, text = report.verdict(level._replace(performance=level.performance._replace(baselines=baselines)))
    assert sure is False
    assert text.startswith("The networks predict clearly worse than ")
    assert text.endswith(report.verdict(level)[1])


@pytest.fixture(scope="module")
def real():
    """An explanation in full, of networks with one unit that learn a straight line."""
    return explain.explain_dataset(
        dataset("binary"), ExplainConfig(hidden=(1,), penalty=1e-2, num_minima=1, rounds=1, num_draws=5)
    )


def test_the_networks_in_an_explanation_are_compared_on_its_held_out_rows(real):
    for other in real.performance.baselines:
        assert other.difference == pytest.approx(real.performance.test - other.test)


def test_a_page_on_networks_that_are_behind_says_so_first_and_nothing_on_it_is_green(real, tmp_path):
    pages = {}
    for name, other in (("level", LEVEL), ("behind", BEHIND)):
        performance = real.performance._replace(baselines=real.performance.baselines._replace(boosting=other))
        ranked = real.ranking._replace(q_values=np.array([0.0, 1.0]))
        found = real._replace(performance=performance, ranking=ranked)
        report.write(found, tmp_path / name)
        pages[name] = (tmp_path / name / "index.html").read_text()
        assert json.loads((tmp_path / name / "summary.json").read_text())["baselines"]["boosting"] == other._asdict()
        assert "+0.0000 (\N{MINUS SIGN}0.1000 to " in pages[name]
    report.write(real._replace(performance=real.performance._replace(test=0.6)), tmp_path / "poor")
    assert "They predict badly" in (tmp_path / "poor" / "index.html").read_text()
    assert "They predict badly" not in pages["level"]
    assert pages["level"].count('class="verdict supported"') >= 2
    assert 'class="verdict supported"' not in pages["behind"]
    assert 0 < pages["behind"].index("clearly worse than boosted trees") < pages["behind"].index("The answer")
    assert "clearly worse" not in pages["level"]


def straight(task):
    """A network of one unit so weak that it is a straight line, on a dataset: the first column, times 1,000."""
    data, config = dataset(task), ExplainConfig(hidden=(1,), penalty=1e-3)
    made = problem.problem(data, config)
    return data, Members(np.array([[1e-3, 0.0, 0.0, 1e3, 0.0]]), np.ones(1), made.objective.unravel, config.activation)


@pytest.mark.parametrize("task", ["regression", "binary"])
@pytest.mark.parametrize("conditional", [True, False])
def test_importance_looks_at_held_out_rows_alone(task, conditional):
    data, members = straight(task)

    def measured(data):
        return predict.column_importance(jax.random.key(0), members, data, conditional=conditional).mean

    # What a column is, given the others, is learnt from the training rows, but from no target.
    blind = data._replace(y_train=np.full_like(data.y_train, np.nan))
    if not conditional:
        blind = blind._replace(x_train=np.full_like(data.x_train, np.nan))
    np.testing.assert_array_equal(measured(blind), measured(data))
    other = data._replace(x_test=data.x_test[::-1].copy())
    assert not np.allclose(measured(other), measured(data))


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_training_rows_are_judged_by_networks_without_them(task):
    data, members = straight(task)
    wrong = np.arange(len(data.y_train)) < 10  # what a line does not explain
    data = data._replace(y_train=np.where(wrong, 1 - data.y_train, data.y_train))
    key = jax.random.key(0)

    def measured(data, members, key=key):
        return predict.column_importance(key, members, data)

    def learnt(alpha):
        found = measured(data, members._replace(penalties=predict.Penalties(np.full((1, 5), alpha), np.ones(1))))
        assert found.learnt.sum() == len(data.y_train)
        np.testing.assert_array_equal(attribution.over_held_out(found).draws, measured(data, members).draws)
        return found.draws[:, found.learnt]

    # A network that cannot move is the same without a row.
    known = data._replace(x_test=data.x_train, y_test=data.y_train)
    same = measured(known, members, jax.random.fold_in(key, 1)).draws
    np.testing.assert_allclose(learnt(1e15), same, atol=1e-9)
    assert np.max(np.abs(learnt(1e-6) - same)) > 1e-3
    known = members._replace(penalties=predict.Penalties(np.ones((1, 5)), np.ones(1)))
    assert measured(data._replace(independent=False), known).learnt is None
    # Of few rows for each input what was chosen with them is theirs.
    assert measured(data._replace(x_train=data.x_train[:9], y_train=data.y_train[:9]), known).learnt is None


@pytest.mark.parametrize("task", ["regression", "binary"])
def test_a_score_is_that_of_the_rows_it_is_made_for(task):
    data, members = straight(task)
    reversed_targets = -data.y_test if task == "regression" else 1 - data.y_test
    for targets, holds in ((data.y_test, True), (reversed_targets, False)):
        score = predict.scorer(data, members.activation, members.unravel, data.x_test, targets)
        one = float(score(jnp.asarray(members.positions[0])))
        assert (one > 0.999) == holds
        assert holds or one < 0.1
        together = predict.together(members, data.kind, data.x_test)
        assert data.kind.score(targets, together).value == pytest.approx(one, rel=1e-6)
