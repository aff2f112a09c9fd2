"""Would other rows have given the same answer? The same job on other splits of a table."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import false_discovery_control

from jaxscape.analysis.attribution import over_held_out, repeated_splits, significance
from jaxscape.table import datasets
from jaxscape.table.datasets import DataError, Dataset, Table
from jaxscape.table.explain import SIGNIFICANT, Explanation, explain_dataset, in_order
from jaxscape.table.problem import Progress

if TYPE_CHECKING:
    import pandas as pd


class Splits(NamedTuple):
    """S splits of a table: `importance (S, columns)`, on the rows held out, zero where a column was left out; `called
    (S, columns)`: is that above zero with confidence in this split alone? `first (S,)`: the column that matters most;
    the scores of the networks, `scores (S,)`; how many rows are trained on and held out, `rows`; the names of the
    `features`."""

    importance: Float[np.ndarray, "S columns"]
    called: Int[np.ndarray, "S columns"]
    first: Int[np.ndarray, " S"]
    scores: Float[np.ndarray, " S"]
    rows: tuple[int, int]
    features: tuple[str, ...]

    def frame(self) -> "pd.DataFrame":
        """Return for each column its mean importance and the standard deviation over the splits, p- and q-values of
        its being above zero (Nadeau & Bengio's corrected test), in how many splits it is called and in how many it
        comes first; the smallest p-value first."""
        import pandas as pd

        p_values = repeated_splits(self.importance, *self.rows)
        content = {
            "importance": self.importance.mean(axis=0),
            "std_over_splits": self.importance.std(axis=0, ddof=1),
            "p_value": p_values,
            "q_value": false_discovery_control(p_values),
            "times_called": self.called.sum(axis=0),
            "times_first": np.bincount(self.first, minlength=len(self.features)),
        }
        order = np.lexsort((-content["importance"], p_values))
        return pd.DataFrame(content, index=pd.Index(self.features, name="name")).iloc[order]


def over_splits(found: Explanation, table: Table, groups: Any, number: int, progress: Progress) -> Splits:
    """Explain a table again on other splits into training and held-out rows, with everything fitted anew in each.

    Args:
        found: the explanation of one split, which counts as the first.
        table: that it explains.
        groups: of the rows, as it was given to `datasets.prepare`.
        number: of splits, that one included.
        progress: called with the fraction done and what is being done.

    Raises:
        DataError: if fewer than two splits are asked for, or a split cannot be used.
    """
    if number < 2:
        raise DataError(f"one split shows no spread: ask for at least two, got {number}")
    explanations = [found]
    for i, dataset in enumerate(_other_splits(found, table, groups, number), 1):

        def tell(fraction: float, text: str, i: int = i) -> None:
            progress((i - 1 + fraction) / (number - 1), f"split {i + 1} of {number}: {text}")

        explanations.append(explain_dataset(dataset, found.config, progress=tell))
    features = tuple(dict.fromkeys(name for each in explanations for name in each.dataset.features))
    importance, called = np.zeros((number, len(features))), np.zeros((number, len(features)), int)
    for row, (each, values) in enumerate(zip(explanations, importance, strict=True)):
        places = [features.index(name) for name in each.dataset.features]
        held_out = over_held_out(each.ranking.importance)
        values[places] = held_out.mean
        called[row, places] = significance(held_out) <= SIGNIFICANT
    # Where whole groups are held out splits differ in size: the one that asks for the most caution counts.
    sizes = [(len(each.dataset.y_train), len(each.dataset.y_test)) for each in explanations]
    rows = max(sizes, key=lambda size: size[1] / size[0])
    first = np.array([features.index(each.dataset.features[in_order(each)[0]]) for each in explanations])
    scores = np.array([each.performance.test for each in explanations])
    return Splits(importance, called, first, scores, rows, features)


def _other_splits(found: Explanation, table: Table, groups: Any, number: int) -> list[Dataset]:
    """Prepare the other splits, no two with the same rows held out: of few groups there are few."""
    seen, prepared = {_held_out(found.dataset)}, []
    for seed in range(found.config.seed + 1, found.config.seed + 10 * number):
        dataset = datasets.prepare(table, task=found.dataset.task, seed=seed, groups=groups)
        if _held_out(dataset) not in seen:
            seen.add(_held_out(dataset))
            prepared.append(dataset)
        if len(prepared) == number - 1:
            return prepared
    raise DataError(f"only {len(seen)} splits that differ were found, {number} are asked for: are there few groups?")


def _held_out(dataset: Dataset) -> frozenset[int]:
    return frozenset(np.asarray(dataset.held_out).tolist())
