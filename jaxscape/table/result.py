"""One call for a table: `explain(X, y)`, and what it returns."""

import contextlib
import html
import importlib
import io
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np
from jaxtyping import Float

from jaxscape.analysis.effects import Effect, contributions
from jaxscape.cores import all_cores
from jaxscape.table import datasets, effects, predict
from jaxscape.table.aims import Loss
from jaxscape.table.datasets import DataError, Table
from jaxscape.table.problem import ExplainConfig, Progress, check, scaled
from jaxscape.table.targets import Task, classes_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from jaxscape.table.explain import Explanation
    from jaxscape.table.splits import Splits

_BACKGROUND = 100
_SHOWN = 10  # columns, in a card


@dataclass(frozen=True, repr=False)
class Result:
    """What `explain` found out: `explanation`, in full; `table`: the rows that it was asked about, with their `groups`;
    `chosen_split`: the rows to hold out were given.

    `frame()` ranks the columns; `plot()`, `plot_effect(column)`, `plot_row(i)`, `plot_graph()` draw; `effect(column)`,
    `interactions()` and `row(i)` say how columns act, which act together and what moved one prediction; `over_splits()`
    asks other rows; `predict(X)` predicts; `write(folder)` writes the page; `summary()` is the same as numbers;
    `save(file)` keeps the landscape.
    """

    explanation: "Explanation"
    table: Table
    groups: Any = None
    chosen_split: bool = False

    def frame(self) -> "pd.DataFrame":
        """Return the columns from the most important to the least, as in `features.csv`; see `report.ranks`."""
        import pandas as pd

        from jaxscape import report

        return pd.DataFrame(report.ranks(self.explanation)).set_index("name")

    def over_splits(self, number: int = 5, *, progress: Progress | None = None) -> "Splits":
        """Ask whether other rows would have given the same answer: do the whole job again on other splits.

        Args:
            number: of splits into training and held-out rows, this result included; each takes as long as it did.
            progress: called with the fraction done and what is being done; in a notebook a bar by default.

        Returns:
            The importance of each column in each split; `.frame()` has means, tests that allow for what the splits
            share, and how often each column is called and comes first.

        Raises:
            DataError: if the rows to hold out were given, so that there is no other split, or `number` is below two.
        """
        from jaxscape.table.splits import over_splits

        if self.chosen_split:
            raise DataError("the rows to hold out were given (held_out): there is no other split of the same kind")
        shown = _bar() if progress is None else contextlib.nullcontext(progress)
        with shown as tell, jax.enable_x64(True), all_cores():
            return over_splits(self.explanation, self.table, self.groups, number, tell)

    def summary(self) -> dict[str, Any]:
        """Return the content of `summary.json`."""
        from jaxscape import report

        return report.summary(self.explanation)

    def predict(self, X: Any) -> np.ndarray:
        """Predict the target of rows: values of a quantity, none beyond the training rows, or the most probable class.

        Args:
            X: a data frame with the columns of the table, or an array of rows as in `explain`. What is missing, and
                categories that were not seen, are taken as in training.

        Raises:
            DataError: if a column is not there, or does not hold what it held.
        """
        dataset = self.explanation.dataset
        found = self._together(X)
        if dataset.kind.is_quantity:
            return datasets.decode(effects.encoding_of(self.explanation), found)
        places = (found > 0.5).astype(int) if found.ndim == 1 else found.argmax(axis=1)
        return self._labels[places]

    def predict_proba(self, X: Any) -> Float[np.ndarray, "N classes"]:
        """Return the probability of each class, in the order of `classes`; see `predict`.

        Raises:
            DataError: if the target is a quantity, or as `predict` does.
        """
        if self.explanation.dataset.kind.is_quantity:
            raise DataError("a quantity has no classes: use predict")
        found = self._together(X)
        return np.stack([1 - found, found], axis=1) if found.ndim == 1 else found

    @property
    def classes(self) -> np.ndarray:
        """The classes, as they are in the target."""
        return self._labels

    def effect(self, column: str) -> Effect:
        """Measure how the prediction moves with a column, in units of the target or of probability (of the second class
        of two, of the last of several).

        Returns:
            The effect at places along a quantity, in its own units, with the spread over the networks; of a column of
            texts the effect of each category, in the order of `effect_places`.
        """
        return effects.column_effect(self.explanation, self._place(column))[0]

    def effect_places(self, column: str) -> list[str]:
        """Name the places of the effect of a column of texts: its categories."""
        names = effects.column_effect(self.explanation, self._place(column))[1]
        if names is None:
            raise DataError(f"column {column!r} is a quantity: its effect has places of its own")
        return names

    def interactions(self, columns: Sequence[str] | None = None) -> "pd.DataFrame":
        """Rank pairs of columns whose effects do not add up, by the H statistic; see `effects.interactions`.

        Args:
            columns: whose pairs are asked; by default the first five that matter with confidence.

        Returns:
            For each pair its `strength`, in units of the target, bent where it is, or of logits, how far the networks
            differ, `std_over_networks`, and the `share` of the joint effect, the strongest first.

        Raises:
            DataError: if there is no such column.
        """
        import pandas as pd

        from jaxscape import report

        features = self.explanation.dataset.features
        default = report.with_effects(self.explanation)
        places = default if columns is None else [self._place(column) for column in columns]
        found = effects.column_interactions(self.explanation, places)
        names = pd.MultiIndex.from_tuples(
            [(features[a], features[b]) for (a, b), *_ in found], names=["column", "other"]
        )
        content = [each[1:] for each in found]
        return pd.DataFrame(content, index=names, columns=["strength", "std_over_networks", "share"])

    def row(self, i: Any) -> "pd.DataFrame":
        """Say what moved the prediction of one row away from the mean: Shapley values.

        Args:
            i: the number of a row of `X`, counted from 0, or a row of values, as a dictionary or a series.

        Returns:
            For each column its value, its `contribution`, in units of the target or of probability, and how far the
            networks differ, `std_over_networks`, the largest contribution first. They add up to the prediction less
            the mean prediction, which is in `attrs["base"]`.

        Raises:
            DataError: if there is no such row.
        """
        import pandas as pd

        dataset = self.explanation.dataset
        if isinstance(i, int | np.integer):
            if not 0 <= i < len(self.table.x):
                raise DataError(f"there is no row {i}: X has {len(self.table.x):,}, counted from 0")
            values = self.table.x.iloc[[i]]
        else:
            values = self._frame(pd.DataFrame([dict(i)]))
        x = datasets.encode(effects.encoding_of(self.explanation), values)[0]
        rng = np.random.default_rng(self.explanation.config.seed)
        counts = dataset.weights_train
        shares = None if counts is None else counts / counts.sum()
        number = min(_BACKGROUND, len(dataset.x_train))
        rows = rng.choice(len(dataset.x_train), number, replace=counts is not None, p=shares)
        weights = self.explanation.members.weights
        outputs = effects.outputs_of(self.explanation)
        found = contributions(outputs, x, dataset.x_train[rows], dataset.column, weights, rng)
        order = np.argsort(-np.abs(found.mean), kind="stable")
        names = [dataset.features[k] for k in order]
        content = {
            "value": [values[name].iloc[0] for name in names],
            "contribution": found.mean[order],
            "std_over_networks": found.std[order],
        }
        shown = pd.DataFrame(content, index=pd.Index(names, name="column"))
        shown.attrs["base"] = float(weights @ found.base)
        return shown

    def plot_row(self, i: Any, *, most: int = 10, ax: "Axes | None" = None) -> "Axes":
        """Draw what moved the prediction of one row, the `most` that moved it furthest and the others together."""
        from jaxscape import plotting

        found = self.row(i)
        shown, others = found.iloc[:most], found.iloc[most:]
        names = [f"{name} = {_short(value)}" for name, value in shown["value"].items()]
        moved, spreads = shown["contribution"].to_numpy(), shown["std_over_networks"].to_numpy()
        if len(others):
            # Where networks differ in each of the others is not known of their sum: at most so far.
            names.append(f"{len(others)} other column{'s' * (len(others) > 1)}")
            moved = np.append(moved, others["contribution"].sum())
            spreads = np.append(spreads, others["std_over_networks"].sum())
        name = effects.predicted_name(self.explanation)
        return plotting.waterfall(names, moved, spreads, found.attrs["base"], name, ax=ax)

    def plot(self, *, ax: "Axes | None" = None) -> "Axes":
        """Draw the importance of the columns; see `plotting.feature_bars`."""
        from jaxscape import report

        return report.draw_features(self.explanation, ax)

    def plot_graph(self, *, ax: "Axes | None" = None) -> "Axes":
        """Draw the disconnectivity graph of the landscape; see `plotting.disconnectivity_graph`."""
        from jaxscape import plotting

        found = self.explanation
        level = found.group.level if found.group.joined else None
        energies = found.landscape.minima.energies
        return plotting.disconnectivity_graph(found.tree, energies, group=found.group.minima, level=level, ax=ax)

    def plot_effect(self, column: str, *, ax: "Axes | None" = None) -> "Axes":
        """Draw how the prediction moves with a column, with a band of two standard deviations over the networks."""
        from jaxscape import plotting

        found, names = effects.column_effect(self.explanation, self._place(column))
        return plotting.effect(found, column, effects.predicted_name(self.explanation), names=names, ax=ax)

    def write(self, folder: str | Path, splits: "Splits | None" = None) -> None:
        """Write the page, its figures and tables into a folder, made if need be; see `report.write`.

        Args:
            folder: of the page.
            splits: from `over_splits`, to be on the page, too.
        """
        from jaxscape import report

        report.write(self.explanation, Path(folder), splits)

    def save(self, file: str | Path) -> None:
        """Write the landscape to an `.npz` file, for `database.load`; positions are weights of the network explored."""
        from jaxscape.landscape import database

        database.save(file, scaled(self.explanation.landscape, self.explanation.problem.scale))

    def __repr__(self) -> str:
        from jaxscape import report

        found = self.explanation
        dataset = found.dataset
        rows = len(dataset.y_train) + len(dataset.y_test)
        head = f"<jaxscape: what drives {dataset.target!r}? {rows:,} rows, {len(dataset.features)} columns>"
        sure = report.names_of_the_sure(found)[:_SHOWN]
        columns = f"columns that matter: {', '.join(sure) or 'none with confidence'}"
        texts = [report.baselines_verdict(found)[1], columns, report.verdict(found)[1]]
        return "\n".join([head, *(text if len(text) < 600 else f"{text[:599]}…" for text in texts)])

    def _repr_html_(self) -> str:
        from matplotlib.figure import Figure

        from jaxscape import report

        rows = []
        for row in report.group_ranks(self.explanation)[:_SHOWN]:
            interval = f"{row['importance']:.4f} ({row['low']:.4f} to {row['high']:.4f})" if row["used"] else "not used"
            mark = "●" if row["q_value"] <= report.SIGNIFICANT else ""
            cells = (row["rank"], html.escape(row["name"]), interval.replace("-", "&minus;"), mark)
            rows.append("<tr>" + "".join(f"<td style='text-align:left'>{cell}</td>" for cell in cells) + "</tr>")
        drawings = []
        if len(self.explanation.landscape.minima.energies) > 1:
            figure = Figure(figsize=(4.5, 3), layout="constrained")
            self.plot_graph(ax=figure.add_subplot())
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg")
            drawings.append(buffer.getvalue()[buffer.getvalue().index("<svg") :])
        texts = [html.escape(each(self.explanation)[1]) for each in (report.baselines_verdict, report.verdict)]
        together = html.escape(report.together_sentence(self.explanation) or "")
        return (
            f"<div><h4>What drives “{html.escape(self.explanation.dataset.target)}”?</h4><p>{texts[0]}</p>"
            "<table><tr><th>rank</th><th>column</th><th>importance (interval)</th><th>confident</th></tr>"
            f"{''.join(rows)}</table><p>{together}</p><p>{texts[1]}</p>{''.join(drawings)}</div>"
        )

    @property
    def _labels(self) -> np.ndarray:
        """The classes as they are in the target, whose names in the dataset are texts."""
        return np.array(classes_of(self.table.y))

    def _frame(self, X: Any) -> "pd.DataFrame":
        return datasets.rows_like(X, list(self.table.x.columns))

    def _together(self, X: Any) -> np.ndarray:
        x = datasets.encode(effects.encoding_of(self.explanation), self._frame(X))
        with jax.enable_x64(True):
            return predict.together(self.explanation.members, self.explanation.dataset.kind, x)

    def _place(self, column: str) -> int:
        features = self.explanation.dataset.features
        if column not in features:
            used = column in self.table.x.columns
            why = (
                "was left out: see the notes on the data" if used else f"is not there; there are {', '.join(features)}"
            )
            raise DataError(f"column {column!r} {why}")
        return features.index(column)


def explain(
    X: Any,
    y: Any,
    *,
    target: str | None = None,
    task: Literal["auto"] | Task = "auto",
    penalty: float | Literal["evidence"] = "evidence",
    hidden: Sequence[int] | None = None,
    activation: str = "tanh",
    loss: Loss = "likelihood",
    seconds: float = math.inf,
    workers: int = 1,
    seed: int = 0,
    held_out: Any = None,
    groups: Any = None,
    weights: Any = None,
    progress: Progress | None = None,
) -> Result:
    """Say which columns of a table drive networks trained on it, and whether that answer can be trusted.

    Networks are fitted to seven tenths of the rows, their loss landscape is explored, and the columns are ranked by
    what the networks lose without them on the other rows. It runs in float64 and leaves JAX's settings as they are.

    Args:
        X: a data frame, or an array of rows. Texts are categories, dates are counted in days, gaps are filled.
        y: the target: a series, an array or a list, or the name of a column of `X`.
        target: a name for the target; by default that of the series.
        task: what kind of target it is; by default texts and up to 20 whole numbers are classes.
        penalty: "evidence", so that the data choose one for each column, or the L2 strength of every weight.
        hidden: hidden units of each layer; by default as many as the data support.
        activation: of the units, such as "tanh".
        loss: "likelihood", "balanced" (all classes count the same) or "auc".
        seconds: stop exploring after so many; by default when it is complete, or a budget of gradients is spent.
        workers: explore in so many processes first, on a machine of many cores; a script must then do its work below
            `if __name__ == "__main__":`.
        seed: same seed, same result.
        held_out: True for rows to hold out, instead of a random draw: those of a later time, of another place.
        groups: a label for each row; rows of one label are held out together or not at all.
        weights: how much each row counts, relative to the others, or the name of a column of `X`: in what is learnt,
            in scores and in importances. Effects are means over rows that count alike.
        progress: called with the fraction done and what is being done; in a notebook a bar by default.

    Returns:
        The result: `frame()`, `plot()`, `plot_effect(column)`, `plot_row(i)`, `predict(X)`, `write(folder)`.

    Raises:
        DataError: if the data or a setting cannot be used; the message says why.
    """
    from jaxscape.table.explain import explain_dataset

    config = ExplainConfig(
        hidden=None if hidden is None else tuple(hidden),
        activation=activation,
        loss=loss,
        penalty=penalty,
        max_seconds=seconds,
        workers=workers,
        seed=seed,
    )
    check(config)
    if held_out is not None and not np.any(held_out):
        raise DataError("held_out holds out no row: what the networks know is judged on rows held out")
    table = datasets.from_frame(X, y, target=target, weights=weights)
    kept_apart = None if held_out is None else np.asarray(held_out)
    dataset = datasets.prepare(table, task=task, seed=seed, held_out=kept_apart, groups=groups)
    check(config, dataset)
    shown = _bar() if progress is None else contextlib.nullcontext(progress)
    with shown as tell, jax.enable_x64(True), all_cores():
        return Result(explain_dataset(dataset, config, progress=tell), table, groups, held_out is not None)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


@contextlib.contextmanager
def _bar() -> Iterator[Progress]:
    """Show a bar in a notebook, and nothing elsewhere."""
    if "ipykernel" not in sys.modules:
        yield lambda fraction, text: None
        return
    # Present where this is a notebook, and nothing that the library needs.
    notebook: Any = importlib.import_module("IPython.display")
    began = time.monotonic()
    shown = notebook.display(notebook.HTML(""), display_id=True)

    def tell(fraction: float, text: str) -> None:
        bar = f"<progress value='{fraction:.3f}' style='width: 12em'></progress>"
        shown.update(notebook.HTML(f"{bar} {html.escape(text)} ({time.monotonic() - began:.0f} s)"))

    try:
        yield (lambda fraction, text: None) if shown is None else tell
    finally:
        if shown is not None:
            shown.update(notebook.HTML(""))
