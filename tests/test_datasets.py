import datetime
import gzip
from urllib.error import URLError

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
from sklearn.utils import Bunch

from jaxscape.table import datasets, targets
from jaxscape.table.datasets import DataError, Dataset, Table, drawn, load, prepare

RNG = np.random.default_rng(0)
ROWS = 60


def frame(**columns):
    base = {"a": RNG.normal(size=ROWS), "b": RNG.normal(size=ROWS)}
    return pd.DataFrame(base | columns | {"y": np.arange(ROWS) % 2})


def table(**columns):
    data = frame(**columns)
    return Table("made up", data.drop(columns="y"), data["y"], "y")


def write(path, data):
    data.to_csv(path, index=False)
    return str(path)


def test_a_csv_and_its_gzip_read_the_same(tmp_path):
    data = frame(c=RNG.choice(["x", "y, z", 'quo"te'], ROWS))
    plain = prepare(load(write(tmp_path / "a.csv", data)))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    packed = prepare(load(str(tmp_path / "a.csv.gz")))
    np.testing.assert_array_equal(plain.x_train, packed.x_train)
    assert plain.features == ("a", "b", "c")
    assert plain.target == "y"
    assert "last column" in plain.notes[0]


@pytest.mark.parametrize(
    ("separator", "decimal", "name"), [(";", ",", "a.csv"), (";", ".", "a.csv"), ("\t", ".", "a.tsv")]
)
def test_other_separators_and_encodings_read_the_same(tmp_path, separator, decimal, name):
    data = frame(ä=RNG.choice(["é", "b"], ROWS))
    plain = prepare(load(write(tmp_path / "plain.csv", data)))
    data.to_csv(tmp_path / name, sep=separator, decimal=decimal, index=False, encoding="latin-1")
    other = prepare(load(str(tmp_path / name)))
    np.testing.assert_allclose(other.x_train, plain.x_train)
    assert other.features == plain.features
    assert "Windows-1252" in other.notes[0]


def test_years_may_be_names(tmp_path):
    data = frame().rename(columns={"a": "2019", "b": "2020"})
    assert load(write(tmp_path / "a.csv", data)).x.columns.tolist() == ["2019", "2020"]


def test_categories_become_inputs_of_one_original_column():
    data = prepare(table(colour=np.tile(["red", "green", "blue"], ROWS // 3), flag=np.tile(["no", "yes"], ROWS // 2)))
    assert data.features == ("a", "b", "colour", "flag")
    assert data.inputs == ("a", "b", "colour=blue", "colour=green", "colour=red", "flag=yes")
    assert data.column.tolist() == [0, 1, 2, 2, 2, 3]


def test_training_inputs_are_standardised_and_held_out_rows_touch_nothing():
    full = table(c=RNG.normal(5, 3, ROWS), d=np.where(RNG.random(ROWS) < 0.2, np.nan, RNG.normal(size=ROWS)))
    data = prepare(full)
    np.testing.assert_allclose(data.x_train.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(data.x_train.std(axis=0), 1)
    assert len(data.y_test) == 18
    # Find the held-out rows by column c, then change them beyond recognition: training must not notice.
    c_test = data.x_test[:, 2]
    scaled = (full.x["c"] - full.x["c"].mean()) / full.x["c"].std()
    order = np.argsort(np.argsort(scaled))
    everything = np.concatenate([data.x_train[:, 2], c_test])
    held_out = np.isin(order, np.argsort(np.argsort(everything))[len(data.y_train) :])
    changed = full.x.copy()
    changed.loc[held_out, ["a", "b", "c", "d"]] = 1e6
    again = prepare(full._replace(x=changed))
    np.testing.assert_array_equal(again.x_train, data.x_train)
    assert np.all(again.x_test > 1e3)


def test_what_was_done_is_said():
    gaps = np.where(np.arange(ROWS) % 7 == 0, None, "x").astype(object)
    data = prepare(
        table(
            constant=np.ones(ROWS),
            empty=np.full(ROWS, np.nan),
            holes=np.where(np.arange(ROWS) % 5 == 0, np.nan, RNG.normal(size=ROWS)),
            gaps=gaps,
            names=[f"name {i}" for i in range(ROWS)],
        )
    )
    assert data.features == ("a", "b", "holes", "gaps")
    notes = "\n".join(data.notes)
    assert "'constant' was dropped: constant" in notes
    assert "'empty' was dropped: empty" in notes
    assert "'holes': 12 missing values" in notes
    assert "'gaps': 9 missing values" in notes
    assert "'names' was dropped" in notes
    assert "predicts y = 1" in notes


def test_huge_and_tiny_numbers_are_standardised_like_any_other():
    column = RNG.normal(size=ROWS)
    plain = prepare(table(c=column)).x_train[:, 2]
    for scale in (1e300, 1e-300):
        np.testing.assert_allclose(prepare(table(c=scale * column)).x_train[:, 2], plain, rtol=1e-9)


def test_a_number_target_is_a_regression_and_can_be_asked_for():
    data = table()._replace(y=pd.Series(RNG.normal(10, 2, ROWS)))
    assert prepare(data).task == "regression"
    np.testing.assert_allclose(prepare(data).y_train.std(), 1)
    counts = table()._replace(y=pd.Series(np.arange(ROWS) % 5))
    assert prepare(counts, task="regression").task == "regression"


def test_examples_are_there_and_the_checkerboard_is_one():
    assert prepare(load("breast_cancer")).x_train.shape == (398, 30)
    board = load("checkerboard", seed=3)
    colours = (board.x["x"] > 1) ^ (board.x["y"] > 1)
    np.testing.assert_array_equal(colours.astype(int), board.y)
    assert not load("checkerboard", seed=4).x.equals(board.x)


def test_three_classes_are_numbered_in_order_and_split_in_equal_shares():
    y = pd.Series(np.repeat(["sick", "healthy", "cured"], [30, 18, 12]))
    data = prepare(table()._replace(y=y), seed=1)
    assert (data.task, data.classes) == ("multiclass", ("cured", "healthy", "sick"))
    assert np.bincount(data.y_train.astype(int)).tolist() == [8, 13, 21]
    assert np.bincount(data.y_test.astype(int)).tolist() == [4, 5, 9]
    notes = "\n".join(data.notes)
    assert "3 classes of y: cured, healthy, sick" in notes
    assert "only 4 held-out rows have y = cured" in notes
    # The labels belong to the rows: a column that says the class says the same as they do.
    told = prepare(table(c=y.map({"cured": 0, "healthy": 1, "sick": 2}))._replace(y=y))
    for x, labels in ((told.x_train, told.y_train), (told.x_test, told.y_test)):
        np.testing.assert_array_equal(np.unique(x[:, 2], return_inverse=True)[1], labels)


def test_few_whole_numbers_are_classes_unless_a_quantity_is_asked_for():
    y = pd.Series(np.where(np.arange(ROWS) < 2, np.nan, np.arange(ROWS) % 3 * 10 + 5))
    data = prepare(table()._replace(y=y))
    assert (data.task, data.classes) == ("multiclass", ("5", "15", "25"))
    assert any("taken as classes" in note and "set the task to regression" in note for note in data.notes)
    asked = prepare(table()._replace(y=y), task="multiclass")
    assert asked.classes == data.classes
    assert not any("taken as classes" in note for note in asked.notes)
    assert prepare(table()._replace(y=y), task="regression").classes == ()
    assert prepare(table()).classes == ("0", "1")


def test_examples_of_scikit_learn_are_what_they_say():
    iris = prepare(load("iris"))
    assert (iris.task, iris.target) == ("multiclass", "species")
    assert iris.classes == ("setosa", "versicolor", "virginica")
    assert np.bincount(iris.y_test.astype(int)).tolist() == [15, 15, 15]
    # The shortest petals are those of setosa.
    petal = iris.x_train[:, iris.inputs.index("petal length (cm)")]
    assert petal[iris.y_train == 0].max() < petal[iris.y_train > 0].min()
    digits = prepare(load("digits"))
    assert digits.classes == tuple("0123456789")
    assert "pixel_0_0" not in digits.features  # always blank
    assert digits.x_train.shape == (1257, len(digits.inputs))
    assert prepare(load("wine")).classes == ("class_0", "class_1", "class_2")
    diabetes = prepare(load("diabetes"))
    assert (diabetes.task, diabetes.classes, diabetes.x_train.shape) == ("regression", (), (309, 10))


def test_the_card_payments_are_the_whole_data_or_an_error(monkeypatch):
    def fetched(num_rows, num_frauds):
        label = pd.Series(np.where(np.arange(num_rows) < num_frauds, "'1'", "'0'"), dtype="category", name="Class")
        return lambda **_: Bunch(data=pd.DataFrame({"V1": np.arange(num_rows) % 97}), target=label)

    def offline(**_):
        raise URLError("Name or service not known")

    monkeypatch.setattr(sklearn.datasets, "fetch_openml", offline)
    with pytest.raises(DataError, match=r"openml.*not known.*kaggle.*explain creditcard\.csv") as error:
        load("creditcard")
    assert "\n" not in str(error.value)
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetched(100, 3))
    with pytest.raises(DataError, match=r"100 rows with 3 frauds, not 284,807 with 492.*explain creditcard\.csv"):
        load("creditcard")
    monkeypatch.setattr(sklearn.datasets, "fetch_openml", fetched(284_807, 492))
    data = prepare(load("creditcard"))
    assert (data.task, data.classes, int(data.y_train.sum() + data.y_test.sum())) == ("binary", ("0", "1"), 492)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n3\n", "line 3: 1 fields where the header has 2"),
        ("a,b\n1,2\n3,4,5\n", "line 3: 3 fields"),
        ("a,a\n1,2\n", "names column 'a' twice"),
        ("a,\n1,2\n", "without a name"),
        ("0.5,1,a\n1,2,3\n", r"no header: its first line holds values, such as '0.5'"),
        ("a\n1\n", "only one column"),
        ("a,b\n1,0\n2,1\n", "at least 20"),
    ],
)
def test_bad_files_get_one_clear_line(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message) as error:
        prepare(load(str(path)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("columns", "y", "task", "message"),
    [
        ({}, np.zeros(ROWS), "auto", "one value only"),
        ({}, np.arange(ROWS) % 3, "binary", "3 classes.*the task is multiclass"),
        ({}, np.arange(ROWS) % 2, "multiclass", "2 classes.*the task is binary"),
        ({}, [f"name {i % 30}" for i in range(ROWS)], "auto", "30 classes, more than 20"),
        ({}, np.arange(ROWS), "multiclass", "60 classes, more than 20.*set the task to regression"),
        ({}, np.repeat(["u", "v", "w"], [30, 27, 3]), "auto", "only 3 rows of 'w'"),
        ({}, np.tile(["u", "v"], ROWS // 2), "regression", "text where numbers were expected: 'u'"),
        ({}, np.where(np.arange(ROWS) == 3, np.inf, np.arange(ROWS) + 0.5), "auto", "infinite"),
        ({}, np.arange(ROWS) < 2, "binary", "only 2 rows"),
        ({"c": ["12", "x3"] + ["5"] * (ROWS - 2)}, None, "auto", "column 'c'.*text where numbers.*'x3' in data row 2"),
        ({"c": [1.0, -np.inf] + [5.0] * (ROWS - 2)}, None, "auto", "column 'c'.*infinite value in data row 2"),
        ({}, np.where(np.arange(ROWS) == 0, 5.5, 1.0), "regression", "one value only in the 18 held-out|no spread"),
        ({"a": np.ones(ROWS), "b": np.zeros(ROWS)}, None, "auto", "all columns are constant"),
    ],
)
def test_bad_tables_get_one_clear_line(columns, y, task, message):
    data = table(**columns)
    if y is not None:
        data = data._replace(y=pd.Series(y))
    with pytest.raises(DataError, match=message) as error:
        prepare(data, task=task)
    assert "\n" not in str(error.value)


def test_names_that_do_not_exist_are_answered_with_the_closest(tmp_path):
    path = write(tmp_path / "a.csv", frame().rename(columns={"y": "Class"}))
    (tmp_path / "damaged.csv.gz").write_bytes(gzip.compress(b"a,b\n" * 900)[:20] + b"\xff" * 40)
    with pytest.raises(DataError, match="cannot be read"):
        load(str(tmp_path / "damaged.csv.gz"))
    with pytest.raises(DataError, match="closest is 'Class'"):
        load(path, target="class")
    with pytest.raises(DataError, match="did you mean breast_cancer"):
        load("breast-cancer")
    with pytest.raises(DataError, match="is a folder"):
        load(str(tmp_path))
    with pytest.raises(DataError, match="the target of"):
        load("checkerboard", target="x")
    (tmp_path / "a.docx").write_text("x")
    with pytest.raises(DataError, match="should end in"):
        load(str(tmp_path / "a.docx"))


def test_missing_targets_are_left_out():
    data = table()
    y = data.y.astype(float).where(np.arange(ROWS) >= 5)
    ready = prepare(data._replace(y=y))
    assert len(ready.y_train) + len(ready.y_test) == ROWS - 5
    assert any("5 rows without a target" in note for note in ready.notes)
    assert datasets.MIN_ROWS == 20


def test_drawn_rows_stand_for_all_rows_and_rare_classes_are_drawn_more_often():
    labels = (np.arange(10_000) % 100 == 0).astype(float)
    nothing = np.zeros((10_000, 1))
    data = Dataset(
        "d", "y", "binary", ("0", "1"), nothing, labels, nothing, labels, ("a",), ("a",), np.zeros(1, int), ()
    )
    rows, weights = drawn(data, 1000)
    assert len(np.unique(rows)) == len(rows)
    assert 990 <= len(rows) <= 1050
    assert labels[rows].sum() == 50  # half of them, not a hundredth of the draw
    np.testing.assert_allclose(np.average(labels[rows], weights=weights), 0.01)
    np.testing.assert_allclose(weights.mean(), 1)
    rows, weights = drawn(data, 10_000)
    assert rows.tolist() == list(range(10_000))
    assert np.all(weights == 1)


def test_many_inputs_are_standardised_as_few_are():
    data = prepare(table(**{f"k{i}": RNG.choice([f"v{j}" for j in range(12)], ROWS) for i in range(8)}))
    assert data.x_train.shape[1] > datasets._PIECE
    np.testing.assert_allclose(data.x_train.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(data.x_train.std(axis=0), 1)


def test_amounts_shares_dates_and_row_numbers_are_read_as_what_they_are(tmp_path):
    rng = np.random.default_rng(0)
    amounts, shares = rng.uniform(0, 9e3, 30).round(2), rng.integers(1, 99, 30)
    frame = pd.DataFrame(
        {
            "price": [f"{value:,.2f} €" for value in amounts],
            "share": [f"{value}%" for value in shares],
            "day": pd.date_range("2024-02-01", periods=30).strftime("%Y-%m-%d"),
            "code": [f"{value}-{value}" for value in shares % 3],
            "bought": rng.permutation(np.arange(30) % 2),
        }
    )
    frame.loc[3, "price"] = None
    frame.to_csv(tmp_path / "shop.csv")  # with its index
    dataset = datasets.prepare(datasets.load(str(tmp_path / "shop.csv"), target="bought"))
    assert dataset.features == ("price", "share", "day", "code")
    notes = "\n".join(dataset.notes)
    assert "'(row)' was dropped: it numbers the rows" in notes
    assert "'price': amounts and percentages were read as numbers" in notes
    assert "'day': dates were counted in days since 1970" in notes
    columns = {column.name: column for column in dataset.encoding.columns}
    assert columns["code"].categories == ("0-0", "1-1", "2-2")
    train = np.setdiff1d(np.arange(30), dataset.held_out)
    assert columns["share"].centre * columns["share"].scale == pytest.approx(shares[train].mean() / 100)
    assert columns["day"].centre * columns["day"].scale == pytest.approx(19754 + train.mean())
    assert columns["price"].fill == pytest.approx(np.median(amounts[np.setdiff1d(train, [3])]))
    # Other rows are read in the same way.
    again = datasets.encode(dataset.encoding, datasets.rows_like(frame, list(frame.columns)))
    np.testing.assert_allclose(again[dataset.held_out], dataset.x_test)


@pytest.mark.parametrize(("kind", "needs"), [("xlsx", "openpyxl"), ("parquet", "pyarrow")])
def test_other_files_hold_the_same_table(kind, needs, tmp_path):
    frame = pd.DataFrame({"a": np.arange(30) % 7, "b": ["x", "y", "z"] * 10, "y": [0, 1] * 15})
    path = tmp_path / f"t.{kind}"
    pytest.importorskip(needs)
    getattr(frame, {"xlsx": "to_excel", "parquet": "to_parquet"}[kind])(path, index=False)
    table = datasets.load(str(path))
    assert (table.target, list(table.x.columns), table.name) == ("y", ["a", "b"], path.name)
    assert "the last column, 'y'" in table.notes[0]
    np.testing.assert_array_equal(table.x["a"], frame["a"])
    path.write_bytes(b"no table")
    with pytest.raises(DataError, match="cannot be read"):
        datasets.load(str(path))


def of_column(values, **other):
    """Prepare a table of one column and a target, and how the column became inputs."""
    number = len(values)
    frame = pd.DataFrame({"c": values, "d": np.sin(np.arange(number)), **other})
    dataset = datasets.prepare(datasets.from_frame(frame, np.arange(number) % 2))
    columns = {column.name: column for column in dataset.encoding.columns}
    return dataset, columns.get("c")


@pytest.mark.parametrize(
    "texts", [["E0", "E1", "E2"], ["--1", "--2", "--3"], ["10%", "20%", "high"], ["2023-02-30", "2023-02-29", "x"]]
)
def test_texts_that_only_look_like_numbers_stay_texts_also_in_other_rows(texts):
    dataset, column = of_column(texts * 10)
    assert column.categories == tuple(sorted(texts))
    rows = datasets.rows_like(pd.DataFrame({"c": [texts[0]], "d": [0.0]}), ["c", "d"])
    inputs = datasets.encode(dataset.encoding, rows) * dataset.encoding.spread + dataset.encoding.centre
    assert inputs[0, sorted(texts).index(texts[0])] == pytest.approx(1)


def test_days_are_read_from_dates_however_late_and_what_is_blank_is_missing():
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(days=i) for i in range(29)]
    dataset, column = of_column([*days, None])
    assert column.categories is None
    _, late = of_column([*[str(day) for day in days], "9999-12-31"])
    assert late.categories is None
    of_column(pd.array([*[f"{i}%" for i in range(1, 29)], "", None], dtype="string"))
    dataset, column = of_column([*[f"{i}%" for i in range(1, 29)], "", " "])
    assert column.categories is None
    assert any("2 missing values" in note for note in dataset.notes)
    rows = datasets.rows_like(pd.DataFrame({"c": ["1,000 €", "many"], "d": [0.0, 0.0]}), ["c", "d"])
    with pytest.raises(DataError, match="'many'"):
        datasets.encode(dataset.encoding, rows)


def test_classes_stay_what_they_are_and_a_rank_is_no_row_number(tmp_path):
    rng = np.random.default_rng(0)
    table = datasets.from_frame(pd.DataFrame({"rank": rng.permutation(30)}), ["$1", "$2"] * 15)
    assert targets.classes_of(table.y) == ["$1", "$2"]
    assert datasets.prepare(table).features == ("rank",)
    lines = ["a;b;y", *(f"{i},5;{i}.234,56 €;{i % 2}" for i in range(1, 31))]
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    dataset = datasets.prepare(datasets.load(str(tmp_path / "t.csv"), target="y"))
    b = dataset.encoding.columns[1]
    assert b.centre * b.scale == pytest.approx(
        1000 * np.mean(np.setdiff1d(np.arange(30), dataset.held_out) + 1) + 234.56
    )
