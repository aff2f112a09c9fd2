"""On which scale a quantity is learnt: as it is or, where its tails are heavy, bent. The evidence decides."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from jaxscape.table import mixture
from jaxscape.table.datasets import Dataset, Encoding, bent, decode, unit_of
from jaxscape.table.tails import Tails, candidates, formula, heavy, log_slopes, smeared

_CLEARLY = 0.15  # nats for each row: what is bent is harder to read
_TIED = 0.1  # of the rows


def settled(dataset: Dataset, hidden: Sequence[tuple[int, ...]], activation: str, seed: int) -> Dataset:
    """Return the dataset as it is to be learnt, with a note where its target is bent.

    It is where the evidence is clearly higher so: evidences on different scales are of the same rows, and compare once
    each is a density of the target itself. They are those of networks of one size in the middle. Rows that share one
    value, such as zero hours worked, are left out of the comparison, since what stands in one place has any density.

    Args:
        dataset: from `datasets.prepare`.
        hidden: the sizes of networks to be searched, as in `mixture.fit`.
        activation: of the units.
        seed: of the starts.
    """
    if dataset.encoding is None or not dataset.kind.is_quantity or not heavy(dataset.y_train):
        return dataset
    y = decode(dataset.encoding, dataset.y_train)
    tried, apart_of_all = candidates(y), ~_tied(y)

    def log_evidence(tails: Tails | None) -> tuple[float, float]:
        """Return that of the rows that share no value, and their number."""
        way = dataset if tails is None else bent(dataset, tails)
        scale = mixture.scale_of(way, hidden, activation, seed)
        slopes = np.full(len(y), -np.log(unit_of(way.encoding)))
        if tails is not None:
            slopes += log_slopes(tails, y)
        slopes = slopes[scale.rows]
        apart = apart_of_all[scale.rows]
        found = scale.log_evidence - scale.weights[~apart] @ scale.likely[~apart]
        return found + float(scale.weights[apart] @ slopes[apart]), float(scale.weights[apart].sum())

    (plain, number), *others = map(log_evidence, (None, *tried))
    gains = [value - plain for value, _ in others]
    best = int(np.argmax(gains))
    if not gains[best] >= _CLEARLY * number:
        return dataset
    note = (
        f"{dataset.target} has heavy tails: the networks learn {formula(tried[best], dataset.target)}, whose evidence "
        f"is higher by {gains[best]:.0f} nats; scores and importances are of this, predictions in its own units"
    )
    return bent(dataset, tried[best])._replace(notes=(*dataset.notes, note))


def _tied(y: Float[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Say which rows share one value, where these are many."""
    rounded = np.round((y - y.min()) / np.ptp(y), 9)  # brought back from units of the spread
    values, counts = np.unique(rounded, return_counts=True)
    return (rounded == values[counts.argmax()]) & (counts.max() >= _TIED * len(y))


def calibrated(dataset: Dataset, predicted: Float[np.ndarray, " N"]) -> Dataset:
    """Return the dataset with what a model leaves of a bent target taken into account where predictions are brought
    back to its own units.

    Args:
        dataset: from `settled`.
        predicted: for the training rows, on the scale that is learnt.
    """
    encoding: Encoding | None = dataset.encoding
    if encoding is None or encoding.tails is None:
        return dataset
    tails = smeared(encoding.tails, (dataset.y_train - predicted) * unit_of(encoding), dataset.weights_train)
    return dataset._replace(encoding=encoding._replace(tails=tails))
