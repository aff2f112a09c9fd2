"""One call for a table in memory, and what it returns, with the types that pandas knows."""

import importlib
import json
import pkgutil

import jax
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import make_regression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import jaxscape as js
from jaxscape import report
from jaxscape.table import datasets
from jaxscape.table.datasets import DataError

ROWS = 150


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    x = pd.DataFrame(
        {
            "age": pd.array(rng.integers(20, 70, ROWS), dtype="Int64"),
            "shop": pd.Categorical(rng.choice(["north", "south", "west"], ROWS)),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, ROWS), unit="D"),
            3: rng.normal(size=ROWS),
            "member": rng.random(ROWS) < 0.5,
        }
    )
    x.loc[3, "age"] = pd.NA
    x.loc[4, "shop"] = np.nan
    x.loc[5, 3] = np.nan
    score = (x["age"].to_numpy(float, na_value=45.0) - 45) / 10 + 2 * (x["shop"] == "west") - 0.5
    return x, pd.Series(np.where(score + 0.3 * rng.normal(size=ROWS) > 0, "yes", "no"), name="bought")


@pytest.fixture(scope="module")
def result(frame):
    for module in pkgutil.walk_packages(js.__path__, "jaxscape."):
        if "__main__" not in module.name:
            importlib.import_module(module.name)
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    try:
        yield js.explain(*frame, hidden=[1], penalty=1e-2, seconds=20.0)
        assert jax.numpy.zeros(1).dtype == np.float32
    finally:
        jax.config.update("jax_enable_x64", before)


def test_what_drives_the_table_comes_first_and_the_whole_is_short(result):
    ranked = result.frame()
    assert set(ranked.index[:2]) == {"age", "shop"}
    assert len(ranked) == 5
    assert "bought" in repr(result)
    assert len(repr(result)) < 2000
    assert "age" in result._repr_html_()
    assert result.summary()["data"]["rows"] == ROWS


def test_it_predicts_rows_as_they_come(result, frame):
    x, y = frame
    assert np.mean(result.predict(x) == y) > 0.8
    assert result.classes.tolist() == ["no", "yes"]
    shares = result.predict_proba(x)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    # In another order, with more columns, gaps and a category that was not seen.
    other = x[reversed(list(x.columns))].assign(more=1)
    np.testing.assert_allclose(result.predict_proba(other), shares)
    assert len(result.predict(x.head(2).assign(shop="abroad", age=np.nan))) == 2
    with pytest.raises(DataError, match="lack the columns 'age', 'shop'"):
        result.predict(x.drop(columns=["age", "shop"]))
    with pytest.raises(DataError, match="text where numbers"):
        result.predict(x.assign(age="old"))


def test_held_out_rows_are_encoded_as_they_were(result, frame):
    dataset = result.explanation.dataset
    again = datasets.encode(dataset.encoding, datasets.from_frame(*frame).x.iloc[dataset.held_out])
    np.testing.assert_allclose(again, dataset.x_test, atol=1e-12)


def test_effects_and_rows_say_how(result, frame):
    x, _ = frame
    age = result.effect("age")
    assert np.all(np.diff(age.mean) > 0)
    assert (age.at.min(), age.at.max()) == pytest.approx((x["age"].min(), x["age"].max()), abs=3)
    shop = result.effect("shop")
    assert result.effect_places("shop")[int(shop.mean.argmax())] == "west"
    row = result.row(17)
    assert row["contribution"].sum() + row.attrs["base"] == pytest.approx(result.predict_proba(x)[17, 1])
    assert row.loc["shop", "value"] == x["shop"][17]
    made = result.row(dict(x.iloc[17]))
    np.testing.assert_allclose(made["contribution"], row["contribution"])
    assert age.density.sum() == pytest.approx(1)
    np.testing.assert_allclose(shop.density.sum(), 1)
    bars = result.plot_row(17, most=2).patches
    assert [bar.get_width() for bar in bars[:2]] == pytest.approx(row["contribution"].iloc[:2])
    assert bars[-1].get_x() + bars[-1].get_width() == pytest.approx(result.predict_proba(x)[17, 1])
    for draw in (
        result.plot,
        lambda ax: result.plot_effect("age", ax=ax),
        lambda ax: result.plot_effect("shop", ax=ax),
    ):
        ax = js.plotting._axes(None)
        draw(ax=ax)
        ax.figure.savefig("/dev/null", format="png")
    with pytest.raises(DataError, match="no row 150"):
        result.row(ROWS)
    with pytest.raises(DataError, match="'height' is not there"):
        result.effect("height")


def test_page_and_landscape_are_written(result, tmp_path):
    result.write(tmp_path / "page")
    assert (tmp_path / "page" / "index.html").stat().st_size < 2e6
    result.save(tmp_path / "landscape.npz")
    assert (
        len(js.database.load(tmp_path / "landscape.npz").minima.energies) == result.summary()["landscape"]["num_minima"]
    )


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.zeros((150, 2)), np.zeros(100), "X has 150 rows, y has 100"),
        (np.zeros(150), np.zeros(150), "array of shape"),
        (np.zeros((150, 2)), np.zeros((150, 2)), "one value for each row"),
        (pd.DataFrame(np.zeros((150, 2)), columns=[1, "1"]), np.zeros(150), "more than one column '1'"),
        (pd.DataFrame({"a": [1.0] * 150}), "b", "no column 'b'; the closest is 'a'"),
        (pd.DataFrame({"a": [1.0, 2.0]}), pd.Series([1, 2], index=[1, 0]), "in another order"),
        (np.ones((30, 1)), np.arange(30) % 2, "constant"),
    ],
)
def test_what_cannot_be_explained_is_said(x, y, message):
    with pytest.raises(DataError, match=message):
        js.explain(x, y)


def test_rows_are_held_out_as_asked(frame):
    table = datasets.from_frame(*frame)
    late = np.arange(ROWS) >= 100
    assert datasets.prepare(table, held_out=late).held_out.tolist() == list(range(100, ROWS))
    people = np.repeat(np.arange(ROWS // 3), 3)
    held_out = datasets.prepare(table, groups=people).held_out
    assert np.all(np.bincount(people[held_out])[np.unique(people[held_out])] == 3)
    with pytest.raises(DataError, match="holds out no row"):
        js.explain(*frame, held_out=np.zeros(ROWS, bool))
    with pytest.raises(DataError, match="held_out has 3 values"):
        js.explain(*frame, held_out=[True, False, True])


def test_estimators_work_where_scikit_learn_does(frame):
    x, y = frame
    model = js.LandscapeClassifier(hidden=[1])
    scores = cross_val_score(clone(model), x, y, cv=2, scoring="roc_auc")
    assert scores.mean() > 0.9
    values, target = make_regression(120, 3, noise=1.0, random_state=0)
    pipeline = make_pipeline(StandardScaler(), js.LandscapeRegressor(hidden=[1])).fit(values, target)
    assert pipeline.score(values, target) > 0.9
    assert pipeline[-1].n_features_in_ == 3
    with pytest.raises(DataError, match="X has 2 columns where there were 3"):
        pipeline[-1].predict(values[:, :2])


def test_other_splits_are_asked_and_tests_allow_for_what_they_share(result, frame, tmp_path):
    found = result.over_splits(2)
    assert found.importance.shape == (2, 5)
    np.testing.assert_array_equal(found.importance[0], result.explanation.ranking.importance.mean)
    assert not np.array_equal(found.importance[0], found.importance[1])
    assert found.rows == (105, 45)
    shown = found.frame()
    # Both splits call the two columns that drive it.
    assert set(shown.index[shown["times_called"] == 2]) == {"age", "shop"}
    assert shown["times_first"].sum() == 2
    means, spread = found.importance.mean(axis=0), found.importance.std(axis=0, ddof=1)
    place = found.features.index("age")
    assert shown.loc["age", "importance"] == pytest.approx(means[place])
    # One degree of freedom: Student's t is Cauchy's distribution.
    value = means[place] / (spread[place] * np.sqrt(1 / 2 + 45 / 105))
    assert shown.loc["age", "p_value"] == pytest.approx(0.5 - np.arctan(value) / np.pi)
    result.write(tmp_path, found)
    summary = json.loads((tmp_path / "summary.json").read_text())["splits"]
    assert [each["name"] for each in summary["columns"]] == shown.index.tolist()
    said = report.splits_sentence(result.explanation, found)
    assert said.startswith("In 2 splits of the rows the networks score AUC 0.")
    assert said in (tmp_path / "index.html").read_text()
    with pytest.raises(DataError, match="at least two, got 1"):
        result.over_splits(1)
    # Of three groups one is held out: three splits beside the one there is.
    few = js.table.result.Result(result.explanation, result.table, np.arange(ROWS) % 3)
    with pytest.raises(DataError, match="only 4 splits that differ were found, 9 are asked for"):
        few.over_splits(9)
    with pytest.raises(DataError, match="no other split"):
        js.table.result.Result(result.explanation, result.table, None, True).over_splits(2)


def test_pairs_of_columns_that_are_asked_for_are_ranked(result):
    found = result.interactions(["age", "shop", "3"])
    assert set(found.index) == {("age", "shop"), ("age", "3"), ("shop", "3")}
    assert found["strength"].is_monotonic_decreasing
    assert found["share"].between(0, 1).all()
    assert len(result.interactions()) == 1
    with pytest.raises(DataError, match="is not there"):
        result.interactions(["age", "weight"])
