"""Tables with nothing, or too much, to learn: `explain` at the penalties that the data support says what is so."""

import json

import numpy as np
import pytest

from jaxscape import report
from jaxscape.evidence import NOISES, Outcome
from jaxscape.table import predict
from jaxscape.table.datasets import Dataset
from jaxscape.table.explain import explain_dataset
from jaxscape.table.problem import ExplainConfig

# One size: each is a program to compile.
CONFIG = ExplainConfig(hidden=(2,), num_minima=3, rounds=1, num_draws=20)


def explained(x, y, folder, held_out=30):
    """Explain a table whose last rows are held out; the summary, as a reader finds it, and the explanation."""
    task, classes = ("binary", ("no", "yes")) if set(y) == {0.0, 1.0} else ("regression", ())
    names = tuple(f"c{i}" for i in range(x.shape[1]))
    parts = (x[:-held_out], y[:-held_out], x[-held_out:], y[-held_out:])
    found = explain_dataset(Dataset("t", "y", task, classes, *parts, names, names, np.arange(x.shape[1]), ()), CONFIG)
    report.write(found, folder)
    summary = json.loads((folder / "summary.json").read_text(), parse_constant=pytest.fail)
    assert np.all(np.isfinite(found.members.positions))
    assert found.members.weights.sum() == pytest.approx(1)
    return found, summary


def called(summary):
    return {feature["name"] for feature in summary["features"] if feature["q_value"] <= 0.05}


def test_where_all_is_noise_nothing_is_called_and_the_page_says_so(tmp_path):
    rng = np.random.default_rng(1)
    _, summary = explained(rng.normal(size=(240, 5)), np.tile([0.0, 1.0], 120), tmp_path, held_out=200)
    assert called(summary) == set()
    assert summary["ranking"]["num_certain"] == 0
    page = (tmp_path / "index.html").read_text()
    assert "No column can be named with confidence." in page
    assert "Do not rely on this ranking" in page
    assert page.index("They predict badly") < page.index("The answer")
    assert 'class="verdict supported"' not in page


def test_separable_classes_twice_the_same_column_and_a_constant_one(tmp_path):
    rng = np.random.default_rng(2)
    x = rng.normal(size=(70, 5))
    x[:, 3], x[:, 4] = x[:, 1], 0
    found, summary = explained(x, (x[:, 1] > 0).astype(float), tmp_path)
    # Penalties from their bounds on keep the weights finite, where the likelihood alone has no maximum.
    assert summary["performance"]["auc_test"] == pytest.approx(1)
    assert called(summary) == {"c1", "c3"}
    rows = {feature["name"]: feature for feature in summary["features"]}
    assert rows["c1"]["rank"] == rows["c3"]["rank"] == 1
    assert rows["c1"]["importance"] == rows["c3"]["importance"] > 1
    assert not rows["c4"]["used"]
    assert (rows["c4"]["importance"], rows["c4"]["q_value"]) == (0, 1)
    assert "Columns that tell nearly the same move together: c1 and c3." in " ".join(
        (tmp_path / "index.html").read_text().split()
    )
    assert found.ranking.importance.groups[1] == found.ranking.importance.groups[3]


def test_of_more_columns_than_rows_the_one_that_drives_is_found(tmp_path):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(80, 60))
    _, summary = explained(x, (x[:, 7] + 0.3 * rng.normal(size=80) > 0).astype(float), tmp_path, held_out=40)
    assert summary["features"][0]["name"] == "c7"
    assert called(summary) == {"c7"}
    assert summary["performance"]["auc_test"] > 0.8
    assert sum(feature["used"] for feature in summary["features"]) < 10


def test_a_quantity_that_can_be_told_exactly_ends_at_the_least_noise(tmp_path):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(70, 5))
    found, summary = explained(x, np.tanh(x[:, 2] - 0.3), tmp_path)
    assert found.supported.best.found.status[0] == Outcome.INTERPOLATES
    assert summary["evidence"]["noise"] == NOISES[1]
    assert summary["performance"]["r2_test"] > 0.998  # nothing is predicted beyond the training rows
    data, (low, high) = found.dataset, found.members.limits
    inside = (data.y_test >= low) & (data.y_test <= high)
    predicted = predict.together(found.members, data.kind, data.x_test)
    np.testing.assert_allclose(predicted[inside], data.y_test[inside], atol=0.01)
    assert called(summary) == {"c2"}
    assert summary["features"][0]["name"] == "c2"
