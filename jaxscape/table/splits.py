"""Would other rows have given the same answer? The same job on other splits of a table."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import false_discovery_control

from jaxscape.analysis.attribution import repeated_splits
from jaxscape.table import datasets
from jaxscape.table.datasets import DataError, Table
from jaxscape.table.explain import Explanation, explain_dataset
from jaxscape.table.problem import Progress

if TYPE_CHECKING:
    import pandas as pd

_SIGNIFICANT = 0.05


class Splits(NamedTuple):
    """S splits of a table: `importance (S, columns)`, zero where a column was left out; `called (S, columns)`: is it
    above zero with confidence in this split alone? `first (S,)`: the column that matters most; the scores of the
    networks, `scores (S,)`; how many rows are trained on and held out, `rows`; the names of the `features`."""

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
    for i in range(1, number):

        def tell(fraction: float, text: str, i: int = i) -> None:
            progress((i - 1 + fraction) / (number - 1), f"split {i + 1} of {number}: {text}")

        seed = found.config.seed + i
        dataset = datasets.prepare(table, task=found.dataset.task, seed=seed, groups=groups)
        explanations.append(explain_dataset(dataset, found.config, progress=tell))
    features = tuple(dict.fromkeys(name for each in explanations for name in each.dataset.features))
    importance, called = np.zeros((number, len(features))), np.zeros((number, len(features)), int)
    for row, (each, values) in enumerate(zip(explanations, importance, strict=True)):
        places = [features.index(name) for name in each.dataset.features]
        values[places] = each.importance.mean
        called[row, places] = each.q_values <= _SIGNIFICANT
    rows = len(found.dataset.y_train), len(found.dataset.y_test)
    scores = np.array([each.test_score for each in explanations])
    return Splits(importance, called, importance.argmax(axis=1), scores, rows, features)
