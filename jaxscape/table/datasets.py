"""Tables: loading, checking and encoding them for a network; examples made, shipped with scikit-learn or fetched."""

import contextlib
import csv
import datetime
import difflib
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxscape.table import targets
from jaxscape.table.errors import DataError as DataError
from jaxscape.table.tails import Tails, bend, unbend
from jaxscape.table.targets import Target, Task

if TYPE_CHECKING:
    import pandas as pd
    from pandas import DataFrame, Series
else:
    DataFrame = Series = Any  # A named tuple holds its annotations, and pandas is slow to import.

MIN_ROWS = 20
_MAX_CATEGORIES = 20
_TEST_FRACTION = 0.3
_MISSING = "empty, NA, NaN, null or None"
_PIECE = 64  # columns whose spread is computed at once: it takes a copy of them
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
# Numbers as people write them: signs of money, thousands parted by commas, shares of a hundred.
_SIGNS = "€$£¥"
_WRITTEN = re.compile(
    rf"[-+]?[{_SIGNS}]?\s*(\d{{1,3}}(,\d{{3}})+(\.\d*)?|\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*[%{_SIGNS}]?"
)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([ T]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[-+]\d{2}:?\d{2})?)?")
_LOOKED_AT = 100  # texts of a column, before all of them
_FRAMES = {".xlsx": "read_excel", ".xls": "read_excel", ".parquet": "read_parquet"}
_FEW = 10  # held-out rows of a class below which a score means little
_FRAUD_ROWS, _FRAUDS = 284_807, 492


class Column(NamedTuple):
    """How a column becomes inputs, learnt from the training rows.

    `name`: as in the table; `categories`: of texts, each an input of its own, None for a quantity, which is divided by
    `scale` (a power of two, against overflow), centred and divided by `spread`; `fill`: what a missing one is taken
    for, the median.
    """

    name: str
    categories: tuple[str, ...] | None = None
    fill: float = 0.0
    scale: float = 1.0
    centre: float = 0.0
    spread: float = 1.0


class Encoding(NamedTuple):
    """How the rows of a table become inputs and a target: the `columns` in use, `centre (inputs,)` and `spread
    (inputs,)` of what they become, and the `quantity` that is predicted, None where it is a class; `tails`: how it is
    bent before, None where it is learnt as it is."""

    columns: tuple[Column, ...]
    centre: Float[np.ndarray, " inputs"]
    spread: Float[np.ndarray, " inputs"]
    quantity: Column | None
    tails: Tails | None = None


class Table(NamedTuple):
    """A table and a question: `name`, the columns `x`, the target `y`, its column `target`, `notes` on it; `weights`:
    how much each row counts, of any sum, None where all count the same."""

    name: str
    x: DataFrame
    y: Series
    target: str
    notes: tuple[str, ...] = ()
    weights: Series | None = None


class Dataset(NamedTuple):
    """A table made ready for a network.

    `x_train (N, inputs)`, `y_train (N,)`, `x_test`, `y_test`: standardised on the training rows; `features`: the names
    of the original columns in use; `column (inputs,)`: which of them each input comes from; `inputs`: a name for each
    input; `task`; `classes`: the name of each class, whose place in the list is its number in the targets (of two, the
    second is the one predicted; a regression has none); `notes`: everything that was done to the data, for people;
    `encoding`: how other rows become inputs; `held_out (N_test,)`: which rows of the table those held out are;
    `independent`: rows stand for themselves, none belongs to a group or to a later time that is held out as a whole;
    `weights_train (N,)`, `weights_test (N_test,)`: what each row counts, 1 on average, None where all count the same.
    """

    name: str
    target: str
    task: Task
    classes: tuple[str, ...]
    x_train: Float[np.ndarray, "N inputs"]
    y_train: Float[np.ndarray, " N"]
    x_test: Float[np.ndarray, "N_test inputs"]
    y_test: Float[np.ndarray, " N_test"]
    features: tuple[str, ...]
    inputs: tuple[str, ...]
    column: Int[np.ndarray, " inputs"]
    notes: tuple[str, ...]
    encoding: Encoding | None = None
    held_out: Int[np.ndarray, " N_test"] | None = None
    independent: bool = True
    weights_train: Float[np.ndarray, " N"] | None = None
    weights_test: Float[np.ndarray, " N_test"] | None = None

    @property
    def kind(self) -> Target:
        """What kind of target it is."""
        return targets.TARGETS[self.task]


def checkerboard(seed: int = 0, *, num_rows: int = 1000, num_fields: int = 2) -> Table:
    """Make points drawn evenly on a checkerboard with `num_fields` by `num_fields` fields, the colour as the class."""
    import pandas as pd

    x = np.random.default_rng(seed).uniform(0, num_fields, (num_rows, 2))
    colour = pd.Series(x.astype(int).sum(axis=1) % 2, name="colour")
    return Table("checkerboard", pd.DataFrame(x, columns=["x", "y"]), colour, "colour")


def breast_cancer() -> Table:
    """Load the Wisconsin diagnostic breast cancer data (Wolberg et al. 1995, CC BY 4.0), as scikit-learn ships them."""
    from sklearn.datasets import load_breast_cancer

    return _classified("breast_cancer", load_breast_cancer(as_frame=True), "diagnosis")


def iris() -> Table:
    """Load the sizes of iris flowers of three species (Fisher 1936, CC BY 4.0), as scikit-learn ships them."""
    from sklearn.datasets import load_iris

    return _classified("iris", load_iris(as_frame=True), "species")


def wine() -> Table:
    """Load the chemistry of wines of three cultivars (Aeberhard & Forina 1991, CC BY 4.0), as scikit-learn ships it."""
    from sklearn.datasets import load_wine

    return _classified("wine", load_wine(as_frame=True), "cultivar")


def digits() -> Table:
    """Load 8 x 8 pixels of handwritten digits (Alpaydin & Kaynak 1998, CC BY 4.0), as scikit-learn ships them."""
    from sklearn.datasets import load_digits

    return _classified("digits", load_digits(as_frame=True), "digit")


def diabetes() -> Table:
    """Load the progression of diabetes within a year (Efron et al. 2004), a quantity, as scikit-learn ships it."""
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(as_frame=True)
    return Table("diabetes", bunch.data, bunch.target.rename("progression"), "progression")


def _classified(name: str, bunch: Any, target: str) -> Table:
    labels = bunch.target.map(dict(enumerate(bunch.target_names))).rename(target)
    return Table(name, bunch.data, labels, target)


def creditcard() -> Table:
    """Fetch two days of card payments, 0.17 % frauds (Dal Pozzolo et al. 2015), from OpenML; later calls find a copy.

    Raises:
        DataError: if it cannot be fetched, or is not the whole of the data.
    """
    import pandas as pd
    from sklearn.datasets import fetch_openml

    own = (
        "download creditcard.csv from https://www.kaggle.com/datasets/mlg-ulb/creditcardfraud and give its path: "
        "python -m jaxscape explain creditcard.csv"
    )
    try:
        bunch = fetch_openml(data_id=1597, as_frame=True)
    except (OSError, EOFError, HTTPException, ValueError, zlib.error) as error:
        raise DataError(
            f"creditcard could not be fetched from https://www.openml.org/d/1597 ({error}): try again online, or {own}"
        ) from error
    # A category of texts, in quotes with some parsers.
    fraud = pd.to_numeric(bunch.target.astype(str).str.strip("'"), errors="coerce").rename("Class")
    if (len(fraud), int(fraud.sum())) != (_FRAUD_ROWS, _FRAUDS):
        raise DataError(
            f"creditcard as fetched from OpenML has {len(fraud):,} rows with {int(fraud.sum()):,} frauds, not "
            f"{_FRAUD_ROWS:,} with {_FRAUDS}: delete openml in scikit-learn's data folder (~/scikit_learn_data) "
            f"and try again, or {own}"
        )
    return Table("creditcard", bunch.data, fraud, "Class")


_LOADERS: dict[str, Callable[[], Table]] = {
    "breast_cancer": breast_cancer,
    "creditcard": creditcard,
    "diabetes": diabetes,
    "digits": digits,
    "iris": iris,
    "wine": wine,
}
EXAMPLES = ("checkerboard", *_LOADERS)


def load(data: str, *, target: str | None = None, weights: str | None = None, seed: int = 0) -> Table:
    """Load an example by name or a CSV file by path.

    Args:
        data: one of `EXAMPLES`, or the path of a `.csv`, `.tsv`, `.csv.gz` or `.tsv.gz` file with a header line, fields
            separated by commas, semicolons or tabs; or of an `.xlsx` or `.parquet` file (the extra `files`).
        target: the column to predict; the last one by default. The examples have their own.
        weights: the column that says how much each row counts; by default all the same.
        seed: for the examples that are made.

    Raises:
        DataError: if there is no such file or column, the file is no table, or an example cannot be fetched.
    """
    if data in EXAMPLES:
        table = checkerboard(seed) if data == "checkerboard" else _LOADERS[data]()
        if target not in (None, table.target):
            raise DataError(f"the target of {data} is {table.target!r}, it has no target column {target!r}")
    else:
        table = _read_csv(Path(data), target)
    if weights is None:
        return table
    if weights not in table.x.columns:
        raise DataError(f"{data} has no column {weights!r} besides the target{_closest(weights, table.x.columns)}")
    return table._replace(x=table.x.drop(columns=weights), weights=table.x[weights])


def _closest(name: str, names: Any) -> str:
    close = difflib.get_close_matches(name, list(names), 1, cutoff=0)
    return f"; the closest is {close[0]!r}" if close else ""


def _read_csv(path: Path, target: str | None) -> Table:
    import pandas as pd

    if not path.exists():
        close = difflib.get_close_matches(str(path), EXAMPLES, 1)
        hint = f"; did you mean {close[0]}?" if close else f" (examples: {', '.join(EXAMPLES)})"
        raise DataError(f"no such file: {path}{hint}")
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a CSV file")
    if path.suffix in _FRAMES:
        return _read_frame(path, target)
    if not path.name.endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz")):
        raise DataError(f"{path} should end in .csv, .tsv (or .gz after that), .xlsx or .parquet")
    notes: list[str] = []
    try:
        encoding = _encoding_of(path, notes)
        separator = _separator(path, encoding)
        header = _check_shape(path, encoding, separator)
        decimal = "," if separator == ";" and _has_decimal_commas(path, encoding) else "."
        frame = pd.read_csv(
            path,
            sep=separator,
            decimal=decimal,
            index_col=False,
            skipinitialspace=True,
            low_memory=False,
            encoding=encoding,
        )
    except (OSError, EOFError, zlib.error, csv.Error, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    if separator != ",":
        notes.append(f"fields are separated by {_SEPARATORS[separator]}" + ", decimals by commas" * (decimal == ","))
    frame.columns = pd.Index(header)
    for name in frame.select_dtypes(exclude="number"):
        frame[name] = frame[name].map(lambda cell: cell.strip() if isinstance(cell, str) else cell)
    if target is None:
        target = header[-1]
        notes.append(f"target: the last column, {target!r} (or name another)")
    if target not in header:
        close = difflib.get_close_matches(target, header, 1, cutoff=0)
        hint = f"; the closest is {close[0]!r}" if close else ""
        raise DataError(f"{path} has no column {target!r}{hint}")
    if decimal == ",":
        swap = str.maketrans(".,", ",.")
        for name in frame.select_dtypes(exclude="number"):
            swapped = frame[name].map(lambda cell: cell.translate(swap) if isinstance(cell, str) else cell)
            if _all_fit(_WRITTEN, swapped[swapped.map(lambda cell: isinstance(cell, str))]):
                frame[name] = swapped
    return Table(path.name, frame.drop(columns=target), frame[target], target, tuple(notes))


def _read_frame(path: Path, target: str | None) -> Table:
    import pandas as pd

    try:
        frame = getattr(pd, _FRAMES[path.suffix])(path)
    except ImportError as error:
        raise DataError(f"{path} needs another package: pip install 'jaxscape-landscapes[files]' ({error})") from error
    except Exception as error:  # each reader has errors of its own
        raise DataError(f"{path} cannot be read: {error}") from error
    if frame.shape[1] < 2:
        raise DataError(f"{path} has {frame.shape[1]} columns: a table has columns besides the target")
    notes = () if target is not None else (f"target: the last column, {str(frame.columns[-1])!r} (or name another)",)
    found = from_frame(frame, str(frame.columns[-1]) if target is None else target, name=path.name)
    return found._replace(notes=(*notes, *found.notes))


def _encoding_of(path: Path, notes: list[str]) -> str:
    """Return how the text of a file is encoded: as UTF-8, or else as Windows does in the West."""
    try:
        with _open(path, "utf-8-sig") as file:
            while file.read(1 << 20):
                pass
    except UnicodeDecodeError as error:
        notes.append(f"{path.name} is not UTF-8 text (byte {error.start}): it was read as Windows-1252")
        return "cp1252"
    return "utf-8-sig"


def _separator(path: Path, encoding: str) -> str:
    """Return what parts the fields of the first line: a comma, unless only another character parts it."""
    with _open(path, encoding) as file:
        line = file.readline()
    fields = {each: len(next(csv.reader([line], delimiter=each), [])) for each in _SEPARATORS}
    return "," if fields[","] > 1 else max(fields, key=lambda each: fields[each])


def _has_decimal_commas(path: Path, encoding: str) -> bool:
    with _open(path, encoding) as file:
        cells = [cell.strip() for row in itertools.islice(csv.reader(file, delimiter=";"), 1, 100) for cell in row]
    return any(re.fullmatch(r"[-+]?\d*,\d+", cell) for cell in cells) and not any(
        re.fullmatch(r"[-+]?\d*\.\d+", cell) for cell in cells
    )


def _check_shape(path: Path, encoding: str, separator: str) -> list[str]:
    """Return the header of a CSV file after checking that every line has as many fields: pandas pads and shifts."""
    with _open(path, encoding) as file:
        rows: Iterator[list[str]] = csv.reader(file, delimiter=separator, skipinitialspace=True)
        header = [name.strip() for name in next(rows, [])]
        if not header:
            raise DataError(f"{path} is empty")
        values = [name for name in header if _NUMBER.fullmatch(name)]
        if 2 * len(values) >= len(header) and any(not name.isdigit() for name in values):
            raise DataError(
                f"{path} has no header: its first line holds values, such as {values[0]!r}. Put a line with the names "
                "of the columns before it"
            )
        if header[0] == "" and header.count("") == 1:
            header[0] = "(row)"  # as pandas writes its index
        for name in header:
            if header.count(name) > 1 or not name:
                problem = f"names column {name!r} twice" if name else "has a column without a name"
                raise DataError(f"the first line of {path} {problem}: give every column a name of its own")
        if len(header) == 1:
            raise DataError(f"{path} has only one column, {header[0]!r}: no columns besides the target")
        for row in rows:
            if row and len(row) != len(header):
                raise DataError(
                    f"{path}, line {rows.line_num}: {len(row)} fields where the header has {len(header)}"  # type: ignore[attr-defined]
                )
    return header


def _open(path: Path, encoding: str) -> io.TextIOWrapper:
    if path.suffix == ".gz":
        return io.TextIOWrapper(gzip.GzipFile(path), encoding=encoding, newline="")
    return path.open(encoding=encoding, newline="")


def from_frame(x: Any, y: Any, *, name: str = "table", target: str | None = None, weights: Any = None) -> Table:
    """Make a table of what is in memory.

    Args:
        x: a data frame, or an array of rows, whose columns are then called x0, x1, ...
        y: the target, a series, an array or a list; or the name of a column of `x`.
        name: of the table, for reports.
        target: the name of the target, for reports; by default that of the series, or "target".
        weights: how much each row counts, in the forms of `y`; by default all the same.

    Raises:
        DataError: if these do not fit together, or two columns have one name.
    """
    import pandas as pd

    if isinstance(x, pd.DataFrame):
        frame = x.copy(deep=False)
    else:
        array = np.asarray(x)
        if array.ndim != 2 or (array.dtype == object and array.size == 0):
            raise DataError(f"X must be a data frame or an array of rows, got an array of shape {array.shape}")
        frame = pd.DataFrame(array, columns=[f"x{i}" for i in range(array.shape[1])]).infer_objects()
    names = [str(each) for each in frame.columns]
    twice = sorted({each for each in names if names.count(each) > 1})
    if twice:
        raise DataError(f"X has more than one column {twice[0]!r}: give every column a name of its own")
    frame.columns = pd.Index(names)
    y = _one_column(y, frame, "y")
    weights = None if weights is None else _one_column(weights, frame, "weights")
    if frame.shape[1] == 0:
        raise DataError("X has no columns besides the target")
    if target is None:
        target = "target" if y.name is None else str(y.name)
    notes: list[str] = []
    frame = frame.reset_index(drop=True).apply(lambda column: _plain(column, notes))
    y, weights = (None if each is None else each.reset_index(drop=True) for each in (y, weights))
    return Table(name, frame, _plain(y, notes).rename(target), target, tuple(notes), weights)


def _one_column(given: Any, frame: "pd.DataFrame", what: str) -> "pd.Series":
    """Return one value for each row of a frame, or take the column out of it that is named."""
    import pandas as pd

    if isinstance(given, str):
        if given not in frame.columns:
            raise DataError(f"X has no column {given!r}{_closest(given, frame.columns)}")
        return frame.pop(given)
    if isinstance(given, pd.DataFrame):
        if given.shape[1] != 1:
            raise DataError(f"{what} must be one column, got {given.shape[1]}")
        given = given.iloc[:, 0]
    if not isinstance(given, pd.Series):
        values = np.asarray(given)
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 1:
            raise DataError(f"{what} must be one value for each row, got an array of shape {values.shape}")
        given = pd.Series(values)
    elif len(given) == len(frame) and not given.index.equals(frame.index) and set(given.index) == set(frame.index):
        raise DataError(
            f"X and {what} have the same index in another order: sort one like the other, as in {what}.loc[X.index]"
        )
    if len(given) != len(frame):
        raise DataError(f"X has {len(frame):,} rows, {what} has {len(given):,}: they must be as many")
    return given


def _plain(column: "pd.Series", notes: list[str]) -> "pd.Series":
    """Turn what pandas knows beside numbers and texts into these: categories, dates, numbers with gaps."""
    import pandas as pd

    kind = column.dtype
    if isinstance(kind, pd.CategoricalDtype):
        column = column.astype(object)
        return column.infer_objects()
    if pd.api.types.is_datetime64_any_dtype(kind):
        notes.append(f"column {str(column.name)!r}: dates were counted in days since 1970")
        return (column - pd.Timestamp("1970-01-01", tz=getattr(kind, "tz", None))) / pd.Timedelta(days=1)
    if pd.api.types.is_timedelta64_dtype(kind):
        notes.append(f"column {str(column.name)!r}: durations were counted in days")
        return column / pd.Timedelta(days=1)
    if pd.api.types.is_complex_dtype(kind):
        raise DataError(f"column {str(column.name)!r} holds complex numbers: give real and imaginary parts as columns")
    if pd.api.types.is_extension_array_dtype(kind) and pd.api.types.is_numeric_dtype(kind):
        return pd.Series(column.to_numpy(float, na_value=np.nan), column.index, name=column.name)
    if pd.api.types.is_numeric_dtype(kind):
        return column
    # Nullable texts follow rules of their own.
    column = column.astype(object).where(column.notna(), np.nan)
    column = column.mask(column.map(lambda cell: isinstance(cell, str) and not cell.strip()))
    known = column[column.notna()]
    if len(known) and known.map(lambda cell: isinstance(cell, datetime.date)).all():
        notes.append(f"column {str(column.name)!r}: dates were counted in days since 1970")
        return known.map(_days).reindex(column.index)
    return column


def _days(date: datetime.date) -> float:
    time = date.time() if isinstance(date, datetime.datetime) else datetime.time()
    seconds = 3600 * time.hour + 60 * time.minute + time.second
    return date.toordinal() - datetime.date(1970, 1, 1).toordinal() + seconds / 86400


def _numbers_in(column: "pd.Series", notes: list[str]) -> "pd.Series":
    """Return what the texts of a column say, if all of them are amounts, shares of a hundred, or dates."""
    known = column[column.map(lambda cell: isinstance(cell, str))]
    if len(known) == 0 or len(known) < column.notna().sum():
        return column
    if _all_fit(_WRITTEN, known) and not _all_fit(_NUMBER, known):
        found, what = _amounts(known), "amounts and percentages were read as numbers"
    elif _all_fit(_DATE, known):
        found, what = _dates(known), "dates were counted in days since 1970"
    else:
        return column
    if found.isna().any():
        return column
    notes.append(f"column {str(column.name)!r}: {what}")
    return found.reindex(column.index)


def _all_fit(pattern: re.Pattern[str], texts: "pd.Series") -> bool:
    """Say whether each text is of a pattern; a few tell where not."""
    return all(
        bool(some.map(lambda cell: bool(pattern.fullmatch(cell.strip()))).all())
        for some in (texts.iloc[:_LOOKED_AT], texts)
    )


def _amounts(texts: "pd.Series") -> "pd.Series":
    import pandas as pd

    texts = texts.astype(object)
    bare = pd.to_numeric(texts.str.replace(rf"[,%{_SIGNS}\s]", "", regex=True), errors="coerce").astype(float)
    return bare.where(~texts.str.strip().str.endswith("%"), bare / 100)


def _dates(texts: "pd.Series") -> "pd.Series":
    """Return days since 1970, missing where there is no such day."""
    import pandas as pd

    times = pd.to_datetime(texts, format="ISO8601", utc=True, errors="coerce").dt.tz_localize(None)
    return times.astype("datetime64[s]").astype("int64").where(times.notna()) / 86400


def _as_numbers(values: "pd.Series") -> "pd.Series":
    """Return the numbers in a column, written in any way that `prepare` reads; missing where there is none."""
    import pandas as pd

    numbers = pd.to_numeric(values, errors="coerce")
    texts = values[numbers.isna() & values.map(lambda cell: isinstance(cell, str))]
    for pattern, read in ((_WRITTEN, _amounts), (_DATE, _dates)):
        some = texts[texts.map(lambda cell, pattern=pattern: bool(pattern.fullmatch(cell.strip())))]
        if len(some):
            numbers = numbers.astype(float)
            numbers.loc[some.index] = read(some)
    return numbers


def prepare(
    table: Table,
    *,
    task: Literal["auto"] | Task = "auto",
    seed: int = 0,
    held_out: np.ndarray | None = None,
    groups: Any = None,
) -> Dataset:
    """Split a table into training and held-out rows and encode it for a network.

    Categorical columns are one-hot encoded, numeric ones standardised, missing values imputed; all of it is fitted on
    the training rows alone. Three tenths of the rows are held out, in equal shares of the classes.

    Args:
        table: from `load` or `from_frame`, or your own.
        task: what kind of target it is; by default texts and up to 20 whole numbers are classes, other numbers a
            regression.
        seed: of the split.
        held_out: True for each row to hold out, instead of a random draw: those of a later time, of another place; for
            a model that is judged elsewhere none.
        groups: a label for each row; rows of one label are held out together or not at all.

    Raises:
        DataError: if the target or the columns cannot be used; the message says why.
    """
    notes = list(table.notes)
    x, y, rows = table.x.apply(lambda column: _numbers_in(column, notes)), table.y, np.arange(len(table.y))
    for name in [name for name in x.columns if _numbers_the_rows(x[name])]:
        notes.append(f"column {name!r} was dropped: it numbers the rows")
        x = x.drop(columns=name)
    weights = None if table.weights is None else _row_weights(table.weights)
    kept = np.array(y.notna())
    if not kept.all():
        notes.append(f"{int(np.sum(~kept))} rows without a target ({_MISSING}) were left out")
    if weights is not None:
        if np.any(weights[kept] == 0):
            notes.append(f"{int(np.sum(weights[kept] == 0))} rows of weight zero were left out")
        kept &= weights > 0
    rows, x, y = rows[kept], x[kept], y[kept]
    if len(y) < MIN_ROWS:
        raise DataError(f"{table.name} has {len(y)} usable rows; at least {MIN_ROWS} are needed")
    _note_copies(x, y, notes)
    where = f"the target {table.target!r} of {table.name}"
    kind, classes, values = targets.detect(where, table.target, y, task, notes)
    numeric, categorical = _column_kinds(table.name, x, notes)
    train, test = _held_out(table, rows, values if classes else None, seed, held_out, groups)
    if weights is not None:
        like = weights[rows].sum() ** 2 / np.sum(weights[rows] ** 2)  # Kish, Survey Sampling, 1965
        notes.append(f"rows count by their weights: as unequal as these are, they tell what {like:.0f} equal ones do")
    weights_train, weights_test = (
        None if weights is None else weights[rows[part]] / weights[rows[part]].mean() if len(part) else np.ones(0)
        for part in (train, test)
    )
    known: list[Column] = []
    names: list[str] = []
    columns: list[str] = []
    blocks: list[np.ndarray] = []
    for name in x.columns:
        if name not in numeric and name not in categorical:
            continue
        learn = _learn_numeric if name in numeric else _learn_categorical
        column = learn(str(name), x[name], train, notes)
        if column is None:
            continue
        known.append(column)
        blocks.append(_inputs(column, x[name]))
        names += _input_names(column)
        columns += [column.name] * blocks[-1].shape[1]
    if not names:
        raise DataError(f"{table.name}: all columns are constant or unusable, there is nothing to learn from")
    features = tuple(column.name for column in known)
    x_train, x_test, centre, spread = _split(blocks, train, test)
    quantity = None
    if kind.is_quantity:
        quantity = _learn_quantity(f"the target {table.target!r}", table.target, values[train])
        values = _inputs(quantity, values)[:, 0]
        if len(test) and np.ptp(values[test]) == 0:
            raise DataError(f"the target {table.target!r} has one value only in the {len(test)} held-out rows")
    else:
        for part, what in ((test, "held-out"), (train, "training"))[not len(test) :]:
            counts = np.bincount(values[part].astype(int), minlength=len(classes))
            if counts.min() == 0:
                raise DataError(
                    f"no {what} row has {table.target} = {classes[counts.argmin()]}: hold out other rows, or others too"
                )
        counts = np.bincount(values[test].astype(int), minlength=len(classes))
        if len(test) and counts.min() < _FEW:
            rarest = f"{table.target} = {classes[counts.argmin()]}"
            notes.append(f"only {counts.min()} held-out rows have {rarest}: the held-out score is rough")
    return Dataset(
        name=table.name,
        target=table.target,
        task=kind.task,
        classes=classes,
        x_train=x_train,
        y_train=values[train],
        x_test=x_test,
        y_test=values[test],
        features=features,
        inputs=tuple(names),
        column=np.array([features.index(name) for name in columns]),
        notes=tuple(notes),
        encoding=Encoding(tuple(known), centre, spread, quantity),
        held_out=rows[test],
        independent=groups is None and (held_out is None or not np.any(held_out)),
        weights_train=weights_train,
        weights_test=weights_test,
    )


def _row_weights(weights: "pd.Series") -> Float[np.ndarray, " N"]:
    values = _as_numbers(weights).to_numpy(float)
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(wrong):
        raise DataError(
            f"weights must be numbers, zero or more, got {weights.iloc[wrong[0]]} in data row {wrong[0] + 1}"
        )
    if not values.any():
        raise DataError("all weights are zero: no row counts")
    return values / values.max()


def _note_copies(x: "pd.DataFrame", y: "pd.Series", notes: list[str]) -> None:
    import pandas as pd

    with contextlib.suppress(TypeError):  # what cannot be hashed
        copies = int(pd.concat([x, y], axis=1).duplicated().sum())
        if copies:
            notes.append(
                f"{copies} rows are the same as another in every column and the target: if a case was entered twice, "
                "leave its copies out, since what is held out is learnt from the other"
            )


def _held_out(
    table: Table,
    rows: Int[np.ndarray, " N"],
    classes: Float[np.ndarray, " N"] | None,
    seed: int,
    held_out: np.ndarray | None,
    groups: Any,
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """Return the places, among the usable rows, of those to train on and of those held out."""
    from sklearn.model_selection import GroupShuffleSplit, train_test_split

    places = np.arange(len(rows))
    for given, what in ((held_out, "held_out"), (groups, "groups")):
        if given is not None and len(given) != len(table.y):
            raise DataError(f"{what} has {len(given):,} values, the table {len(table.y):,} rows: they must be as many")
    if held_out is not None:
        chosen = np.asarray(held_out)
        if chosen.dtype != bool:
            raise DataError(f"held_out must say True or False for each row, got {chosen.dtype}")
        train, test = places[~chosen[rows]], places[chosen[rows]]
        if not chosen.any():
            return train, test
        if min(len(train), len(test)) < MIN_ROWS // 2:
            raise DataError(f"{len(train)} rows to train on and {len(test)} held out: each need {MIN_ROWS // 2}")
        return train, test
    if groups is not None:
        labels = np.unique(np.asarray(groups).astype(str)[rows], return_inverse=True)[1]
        if labels.max() < 1:
            raise DataError("all rows are of one group: none can be held out")
        train, test = next(
            GroupShuffleSplit(1, test_size=_TEST_FRACTION, random_state=seed).split(places, groups=labels)
        )
        return train, test
    train, test = train_test_split(places, test_size=_TEST_FRACTION, random_state=seed, stratify=classes)
    return train, test


def encode(encoding: Encoding, frame: "pd.DataFrame") -> Float[np.ndarray, "N inputs"]:
    """Return other rows as inputs, encoded as the training rows were.

    What is missing becomes what it became there; a category that was not seen is none of those that were.

    Raises:
        DataError: if a column is not there, or holds text where numbers are expected, or infinities.
    """
    wanted = [column.name for column in encoding.columns]
    missing = [name for name in wanted if name not in frame.columns]
    if missing:
        raise DataError(f"the rows lack the column{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))}")
    blocks = []
    for column in encoding.columns:
        values = frame[column.name]
        if column.categories is None:
            numbers = _as_numbers(values)
            wrong = values[numbers.isna() & values.notna()]
            if len(wrong):
                raise DataError(f"column {column.name!r} holds text where numbers were expected: {wrong.iloc[0]!r}")
            values = numbers
            if np.isinf(numbers.to_numpy(float)).any():
                raise DataError(f"column {column.name!r} holds an infinite value")
        blocks.append(_inputs(column, values))
    return (np.concatenate(blocks, axis=1) - encoding.centre) / encoding.spread


def decode(encoding: Encoding, outputs: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """Return predictions of a quantity in its own units."""
    quantity = encoding.quantity
    if quantity is None:
        raise ValueError("the target is a class: there is nothing to decode")
    values = (outputs * quantity.spread + quantity.centre) * quantity.scale
    return values if encoding.tails is None else unbend(encoding.tails, values)


def unit_of(encoding: Encoding | None) -> float:
    """Return what a unit of the networks' output is in units of the target, bent where it is; 1 for classes."""
    quantity = None if encoding is None else encoding.quantity
    return 1.0 if quantity is None else quantity.spread * quantity.scale


def bent(dataset: Dataset, tails: Tails) -> Dataset:
    """Return the dataset of a quantity with its target bent."""
    encoding = dataset.encoding
    if encoding is None or encoding.quantity is None or encoding.tails is not None:
        raise ValueError("only a quantity that is learnt as it is can be bent")
    y_train, y_test = (bend(tails, decode(encoding, y)) for y in (dataset.y_train, dataset.y_test))
    quantity = _learn_quantity(f"the target {dataset.target!r}", dataset.target, y_train)
    return dataset._replace(
        y_train=_inputs(quantity, y_train)[:, 0],
        y_test=_inputs(quantity, y_test)[:, 0],
        encoding=encoding._replace(quantity=quantity, tails=tails),
    )


def rows_like(x: Any, names: Sequence[str]) -> "pd.DataFrame":
    """Return other rows of a table as a data frame: an array's columns are these, in order.

    Raises:
        DataError: if an array has other columns than these in number.
    """
    if hasattr(x, "columns"):
        return from_frame(x, np.zeros(len(x))).x
    if np.ndim(x) == 2 and np.shape(x)[1] != len(names):
        raise DataError(f"X has {np.shape(x)[1]} columns where there were {len(names)}")
    return from_frame(x, np.zeros(len(x))).x.set_axis(list(names), axis=1)


def _inputs(column: Column, values: Any) -> Float[np.ndarray, "N inputs"]:
    """Return a column as inputs: a quantity in units of its spread, each category as 0 or 1."""
    import pandas as pd

    if column.categories is None:
        numbers = pd.to_numeric(values).to_numpy(float) if isinstance(values, pd.Series) else np.asarray(values, float)
        numbers = np.where(np.isnan(numbers), column.fill, numbers)
        return ((numbers / column.scale - column.centre) / column.spread)[:, None]
    return (_texts(values)[:, None] == np.array(column.categories)).astype(float)


def _input_names(column: Column) -> list[str]:
    return [column.name] if column.categories is None else [f"{column.name}={each}" for each in column.categories]


def _split(
    blocks: list[np.ndarray], train: Int[np.ndarray, " N"], test: Int[np.ndarray, " N_test"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the inputs of training and held-out rows, standardised, their centre and their spread; the blocks are used
    up, since all of them again would take as much memory once more."""
    width = sum(block.shape[1] for block in blocks)
    parts = np.empty((len(train), width)), np.empty((len(test), width))
    first = 0
    while blocks:
        block = blocks.pop(0)
        last = first + block.shape[1]
        for part, rows in zip(parts, (train, test), strict=True):
            part[:, first:last] = block[rows]
        first = last
    x_train = parts[0]
    centre = x_train.mean(axis=0)
    pieces = np.array_split(np.arange(width), -(-width // _PIECE))
    spread = np.concatenate([x_train[:, piece[0] : piece[-1] + 1].std(axis=0) for piece in pieces])
    for part in parts:
        part -= centre
        part /= spread
    return *parts, centre, spread


def drawn(dataset: Dataset, number: int, seed: int = 0) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Draw training rows that stand for all of them.

    Of every class its share, but half of its rows or half of an equal share at the least.

    Args:
        dataset: from `prepare`.
        number: how many rows to draw, or a few less; all rows where there are no more.
        seed: of the draw.

    Returns:
        The rows in their order, and what each counts, one on average, so that classes count as in all rows.
    """
    y, rng = dataset.y_train, np.random.default_rng(seed)
    own = np.ones(len(y)) if dataset.weights_train is None else dataset.weights_train
    if number >= len(y):
        return np.arange(len(y)), own
    labels = dataset.kind.strata(y)
    counts = np.bincount(labels)
    wanted = np.maximum(counts * number // len(labels), np.minimum(counts // 2, number // (2 * len(counts))))
    rows = np.sort(
        np.concatenate([rng.choice(np.flatnonzero(labels == k), n, replace=False) for k, n in enumerate(wanted)])
    )
    shares, found = (
        np.bincount(labels[each], own[each], minlength=len(counts)) / len(each) for each in (np.arange(len(y)), rows)
    )
    return rows, (shares / np.maximum(found, 1e-300))[labels[rows]] * own[rows]


def _column_kinds(where: str, x: "pd.DataFrame", notes: list[str]) -> tuple[set[str], set[str]]:
    """Tell numeric columns from categorical ones; text in a numeric column and infinities are errors."""
    import pandas as pd

    numeric, categorical = set(), set()
    for name in x.columns:
        column = x[name]
        numbers = pd.to_numeric(column, errors="coerce")
        present = column.notna()
        parsed = numbers.notna() & present
        if pd.api.types.is_numeric_dtype(column) or parsed.sum() == present.sum():
            if np.isinf(numbers.to_numpy(float)).any():
                row = int(np.flatnonzero(np.isinf(numbers.to_numpy(float)))[0])
                raise DataError(f"column {name!r} of {where} holds an infinite value in data row {row + 1}")
            numeric.add(name)
        elif parsed.sum() > present.sum() / 2:
            wrong = column[present & ~parsed]
            raise DataError(
                f"column {name!r} of {where} holds text where numbers were expected: {wrong.iloc[0]!r} in data row "
                f"{column.index.get_loc(wrong.index[0]) + 1}; leave the field empty if the value is missing"
            )
        elif column.nunique() > max(_MAX_CATEGORIES, len(column) / 2):
            notes.append(f"column {name!r} was dropped: {column.nunique()} different texts are names, not categories")
        else:
            categorical.add(name)
    return numeric, categorical


def _numbers_the_rows(column: "pd.Series") -> bool:
    """Say whether a column counts the rows from 0 or 1 on, in their order or, if its name says so, in any."""
    import pandas as pd

    if not pd.api.types.is_integer_dtype(column.dtype) or len(column) < MIN_ROWS:
        return False
    values = column.to_numpy()
    if re.fullmatch(r"\(row\)|(.*[ _])?id|index|unnamed: 0", str(column.name), re.IGNORECASE):
        values = np.sort(values)
    return bool(values[0] in (0, 1) and np.array_equal(values, np.arange(values[0], values[0] + len(values))))


def _learn_numeric(name: str, column: "pd.Series", train: Int[np.ndarray, " N"], notes: list[str]) -> Column | None:
    import pandas as pd

    values = pd.to_numeric(column).to_numpy(float)
    missing = np.isnan(values)
    known = values[train][~missing[train]]
    if known.size == 0 or known.min() == known.max():
        notes.append(f"column {name!r} was dropped: {'empty' if known.size == 0 else 'constant'} in the training rows")
        return None
    median = float(np.median(known))
    if missing.any():
        notes.append(
            f"column {name!r}: {int(missing.sum())} missing values ({_MISSING}) were set to the median, {median:.6g}"
        )
    return _learn_quantity(f"column {name!r}", name, known)._replace(fill=median)


def _learn_quantity(where: str, name: str, known: Float[np.ndarray, " n"]) -> Column:
    largest = float(np.abs(known).max())
    scale = float(2.0 ** (np.frexp(largest)[1] - 1)) if largest > 0 else 1.0
    spread = float((known / scale).std())
    if not (np.isfinite(spread) and spread > 0):
        raise DataError(f"{where} has no spread that can be computed in the training rows: rescale it or leave it out")
    return Column(name, scale=scale, centre=float((known / scale).mean()), spread=spread)


def _texts(column: "pd.Series") -> np.ndarray:
    return np.asarray(column.map(str, na_action="ignore").fillna("(missing)").to_numpy(str))


def _learn_categorical(name: str, column: "pd.Series", train: Int[np.ndarray, " N"], notes: list[str]) -> Column | None:
    text = _texts(column)
    if column.isna().any():
        notes.append(
            f"column {name!r}: {int(column.isna().sum())} missing values ({_MISSING}) are a category of their own"
        )
    categories, counts = np.unique(text[train], return_counts=True)
    if categories.size > _MAX_CATEGORIES:
        notes.append(f"column {name!r}: the {_MAX_CATEGORIES} most frequent of {categories.size} categories are used")
        categories = np.sort(categories[np.argsort(-counts, kind="stable")[:_MAX_CATEGORIES]])
    if categories.size < 2:
        notes.append(f"column {name!r} was dropped: constant in the training rows")
        return None
    return Column(name, tuple(categories[1:] if categories.size == 2 else categories))
