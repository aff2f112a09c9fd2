"""The tables of the judge: generated ones whose informative columns are known, a published grid, real ones.

A table is known by its name: `family/SEED`, `grid-TASK/RUN`, `real-NAME/SPLIT`. The half it belongs to, "choose" or
"report", is a hash of its family, whose seeds take turns. The real tables are listed in `real_tables.json` with
checksums of their content.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

Task = Literal["binary", "multiclass", "regression"]

SHAPES = ((200, 20), (100, 10), (500, 20), (2000, 10), (1000, 50))  # rows, columns of the seeds in turn
FRESH_ROWS = 10_000
GRID_EFFECTS = (-3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0)
NUM_SPLITS = 5
HELD_OUT = 0.25  # of a real table
REAL = Path(__file__).parent / "real_tables.json"
CARD = Path(__file__).parents[2] / "shared" / "data" / "creditcard_sample.csv.gz"


class Judged(NamedTuple):
    """A table as a method gets it (`x`, `y`, `task`), the rows it is judged on, and which columns are informative
    (None where nobody knows)."""

    name: str
    task: Task
    x: pd.DataFrame
    y: pd.Series
    x_fresh: pd.DataFrame
    y_fresh: pd.Series
    informative: np.ndarray | None


def half(name: str) -> str:
    """Return the half that a table belongs to: a hash of its family says where seed 0 goes, the others take turns."""
    family, instance = name.split("/")
    return ("choose", "report")[(hashlib.sha256(family.encode()).digest()[0] + int(instance)) % 2]


def family_of(name: str) -> str:
    return name.split("/")[0]


# Each family: (generator, columns (N, P)) -> score of each row, ids of the informative columns, may change x in place.
Score = tuple[np.ndarray, list[int]]
Family = Callable[[np.random.Generator, np.ndarray], Score]


def _linear(rng: np.random.Generator, x: np.ndarray) -> Score:
    return 2 * x[:, :4] @ (np.array([1.0, 0.8, 0.6, 0.5]) * rng.choice([-1, 1], 4)), [0, 1, 2, 3]


def _signs(rng: np.random.Generator, x: np.ndarray) -> Score:
    return 2.5 * np.sign(x[:, 0] * x[:, 1]), [0, 1]


def _signs_and_line(rng: np.random.Generator, x: np.ndarray) -> Score:
    return 2.5 * np.sign(x[:, 0] * x[:, 1]) + 1.5 * x[:, 2], [0, 1, 2]


def _friedman(rng: np.random.Generator, x: np.ndarray) -> Score:
    x[:] = rng.random(x.shape)
    curve = 10 * np.sin(np.pi * x[:, 0] * x[:, 1]) + 20 * (x[:, 2] - 0.5) ** 2 + 10 * x[:, 3] + 5 * x[:, 4]
    return curve + rng.normal(size=len(x)), [0, 1, 2, 3, 4]


def _thresholds(rng: np.random.Generator, x: np.ndarray) -> Score:
    steps = (x[:, :4] > np.array([0.0, 0.5, -0.5, 1.0])) - 0.5
    return 2.5 * steps @ rng.choice([-1, 1], 4), [0, 1, 2, 3]


def _neighbours(rng: np.random.Generator, x: np.ndarray) -> Score:
    # Each cause has a neighbour that only correlates with it, at 0.85.
    x[:, 3:6] = 0.85 * x[:, :3] + np.sqrt(1 - 0.85**2) * x[:, 3:6]
    return 2 * x[:, :3] @ np.array([1.0, -0.8, 0.6]), [0, 1, 2]


def _rare(rng: np.random.Generator, x: np.ndarray) -> Score:
    score = 1.8 * x[:, :3] @ np.array([1.0, -1.0, 0.7])
    return score - np.quantile(score + rng.logistic(size=len(x)), 0.95), [0, 1, 2]


def _sparse(rng: np.random.Generator, x: np.ndarray) -> Score:
    x[:] = rng.random(x.shape) < rng.uniform(0.05, 0.3, x.shape[1])
    x[:, :4] = rng.random((len(x), 4)) < 0.3
    return 2 * x[:, :4] @ np.array([1.5, -1.5, 1.2, 1.2]) - 1.0, [0, 1, 2, 3]


def _heavy(rng: np.random.Generator, x: np.ndarray) -> Score:
    x[:] = rng.standard_t(2, x.shape)
    return 2 * np.tanh(x[:, :3]) @ np.array([1.5, -1.2, 1.0]), [0, 1, 2]


def _sine(rng: np.random.Generator, x: np.ndarray) -> Score:
    return 3 * np.sin(2.5 * x[:, 0]) + x[:, 1], [0, 1]


def _squares(rng: np.random.Generator, x: np.ndarray) -> Score:
    return 1.2 * np.sum(x[:, :5] ** 2 - 1, axis=1), [0, 1, 2, 3, 4]


def _ring(rng: np.random.Generator, x: np.ndarray) -> Score:
    x[:] = rng.random(x.shape)
    return 6 * (np.abs(np.hypot(x[:, 0] - 0.5, x[:, 1] - 0.5) - 0.35) < 0.1) - 3.0, [0, 1]


def _noise(rng: np.random.Generator, x: np.ndarray) -> Score:
    return np.zeros(len(x)), []


FAMILIES: dict[str, Family] = {
    "linear": _linear,
    "signs": _signs,
    "signs-and-line": _signs_and_line,
    "friedman": _friedman,
    "thresholds": _thresholds,
    "neighbours": _neighbours,
    "rare": _rare,
    "sparse": _sparse,
    "heavy": _heavy,
    "sine": _sine,
    "squares": _squares,
    "ring": _ring,
    "noise": _noise,
}
GRID = ("logistic", "linear", "products", "both", "relu")


def generated(name: str) -> Judged:
    """Draw a table of a family: a binary target (Friedman's: a quantity), columns in random order."""
    family, seed = name.split("/")[0], int(name.split("/")[1])
    rows, columns = SHAPES[seed % len(SHAPES)]
    rng = np.random.default_rng([seed, *family.encode()])
    x = rng.normal(size=(rows + FRESH_ROWS, columns))
    score, informative = FAMILIES[family](rng, x)
    task: Task = "regression" if family == "friedman" else "binary"
    y = score if task == "regression" else (rng.random(len(x)) < 1 / (1 + np.exp(-score))).astype(float)
    return _shuffled(rng, name, task, x, y, informative, rows)


def grid(name: str) -> Judged:
    """Draw a table of the grid of Chamma, Engemann & Thirion (NeurIPS 2023, arXiv:2309.07593), as their code draws it.

    1,000 rows, 50 Gaussian columns in 10 blocks correlated at 0.8 within, 20 signals with effects from
    {0.5, 1, 2, 3} of either sign; in a regression noise of a quarter of the root mean square of the signal, which goes
    through the ReLU with it (github.com/achamma723/Variable_Importance, data/data_gen.R).
    """
    task_name, run = name.removeprefix("grid-").split("/")
    rng = np.random.default_rng([int(run), *task_name.encode()])
    rows, columns, signals = 1000, 50, 20
    blocks = np.kron(np.eye(10), np.full((5, 5), 0.8)) + 0.2 * np.eye(columns)
    x = rng.multivariate_normal(np.zeros(columns), blocks, rows + FRESH_ROWS, method="cholesky")
    chosen = rng.permutation(columns)[:signals]
    signal = x[:, chosen]
    main = signal @ rng.choice(GRID_EFFECTS, signals)
    first, second = np.triu_indices(signals, 1)
    products = (signal[:, first] * signal[:, second]) @ rng.choice(GRID_EFFECTS, len(first))
    clean = {"products": products, "both": main + products}.get(task_name, main)
    task: Task = "binary" if task_name == "logistic" else "regression"
    if task == "binary":
        y = (rng.random(len(x)) < 1 / (1 + np.exp(-clean))).astype(float)
    else:
        y = clean + rng.normal(size=len(x)) * np.sqrt(np.mean(clean**2)) / 4
    if task_name == "relu":
        y = np.maximum(y, 0)
    return _shuffled(rng, name, task, x, y, chosen.tolist(), rows)


def _shuffled(
    rng: np.random.Generator, name: str, task: Task, x: np.ndarray, y: np.ndarray, informative: list[int], rows: int
) -> Judged:
    order = rng.permutation(x.shape[1])
    frame = pd.DataFrame(x[:, order], columns=[f"c{i}" for i in range(x.shape[1])])
    target = pd.Series(y, name="y")
    is_informative = np.isin(order, informative)
    return Judged(name, task, frame[:rows], target[:rows], frame[rows:], target[rows:], is_informative)


def real(name: str) -> Judged:
    """Split a real table: three quarters for the method, one quarter to judge it on.

    Raises:
        ValueError: if the table has changed since its checksum was taken.
    """
    from sklearn.model_selection import train_test_split

    source, split = name.removeprefix("real-").split("/")
    entry = {each["name"]: each for each in json.loads(REAL.read_text())}[source]
    frame = read_real(source)
    if (found := checksum(frame)) != entry["sha256"]:
        raise ValueError(f"{source} has changed: its checksum is {found}, real_tables.json says {entry['sha256']}")
    x, y, task = frame.drop(columns=entry["target"]), frame[entry["target"]], entry["task"]
    if task != "regression":
        y = y.map({label: float(i) for i, label in enumerate(sorted(y.unique()))})
    train, test = train_test_split(
        np.arange(len(y)), test_size=HELD_OUT, random_state=int(split), stratify=None if task == "regression" else y
    )
    return Judged(
        name, task, x.iloc[train], y.iloc[train].astype(float), x.iloc[test], y.iloc[test].astype(float), None
    )


def read_real(name: str) -> pd.DataFrame:
    """Return a real table with its target, as listed in `real_tables.json`."""
    if name in ("breast_cancer", "diabetes", "wine", "digits"):
        import sklearn.datasets

        return getattr(sklearn.datasets, f"load_{name}")(as_frame=True).frame
    if name in ("autompg", "boston"):
        import mlxtend.data

        x, y = getattr(mlxtend.data, {"autompg": "autompg_data", "boston": "boston_housing_data"}[name])()
        frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(x.shape[1])]).dropna(axis=1, how="all")
        return frame.assign(target=y)
    if name in ("fair", "randhie"):
        import statsmodels.datasets

        frame = getattr(statsmodels.datasets, name).load_pandas().data.sample(2000, random_state=0)
        return frame.assign(affairs=(frame.affairs > 0).astype(int)) if name == "fair" else frame
    if name == "penguins":
        import palmerpenguins

        return palmerpenguins.load_penguins().drop(columns="year")
    return pd.read_csv(CARD)


def checksum(frame: pd.DataFrame) -> str:
    """Return the SHA-256 of the table written as CSV."""
    return hashlib.sha256(frame.to_csv(index=False).encode()).hexdigest()


def names(*, seeds: int, runs: int, splits: int = NUM_SPLITS) -> list[str]:
    """List the tables, those of one shape after one another."""
    drawn = [f"{family}/{seed}" for seed in range(seeds) for family in FAMILIES]
    drawn.sort(key=lambda name: int(name.split("/")[1]) % len(SHAPES))
    published = [f"grid-{task}/{run}" for task in GRID for run in range(runs)]
    listed = [f"real-{each['name']}/{split}" for each in json.loads(REAL.read_text()) for split in range(splits)]
    return drawn + published + listed


def load(name: str) -> Judged:
    """Make or read the table of a name."""
    kind = family_of(name)
    return real(name) if kind.startswith("real-") else grid(name) if kind.startswith("grid-") else generated(name)


def describe() -> list[dict[str, Any]]:
    """Write down the real tables as they are now: the content of `real_tables.json`."""
    sources = {
        "breast_cancer": ("scikit-learn", "target", "binary"),
        "diabetes": ("scikit-learn", "target", "regression"),
        "wine": ("scikit-learn", "target", "multiclass"),
        "digits": ("scikit-learn", "target", "multiclass"),
        "autompg": ("mlxtend", "target", "regression"),
        "boston": ("mlxtend", "target", "regression"),
        "fair": ("statsmodels, 2,000 rows drawn", "affairs", "binary"),
        "randhie": ("statsmodels, 2,000 rows drawn", "mdvis", "regression"),
        "penguins": ("palmerpenguins", "species", "multiclass"),
        "creditcard_sample": ("../shared/data/creditcard_sample.csv.gz", "Class", "binary"),
    }
    listed = []
    for name, (source, target, task) in sources.items():
        frame = read_real(name)
        rows, columns = frame.shape
        listed.append(
            {"name": name, "source": source, "target": target, "task": task, "rows": rows, "columns": columns - 1}
            | {"sha256": checksum(frame)}
        )
    return listed


if __name__ == "__main__":
    REAL.write_text(json.dumps(describe(), indent=1) + "\n")
