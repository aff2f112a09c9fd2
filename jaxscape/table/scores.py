"""R² and AUC with the influence of each row, of which intervals for the difference of two are made."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import stdtrit

Counts = Float[np.ndarray, " N"] | None  # what each row counts; all the same where it is None


class Score(NamedTuple):
    """A score, its `value`, and the influence of each row, `influences (N,)`: how much it moves the score off that of
    all rows, up to a constant in each class.

    The variance of a score, or of a difference of two on the same rows, is the sum of the variances of the rows'
    influences within their classes. Of an AUC that is the variance of DeLong, DeLong & Clarke-Pearson 1988 (Biometrics
    44, 837).
    """

    value: float
    influences: Float[np.ndarray, " N"]


def r2(y: Float[np.ndarray, " N"], predicted: Float[np.ndarray, " N"], counts: Counts = None) -> Score:
    """Return the coefficient of determination."""
    counts = np.ones(len(y)) if counts is None else counts
    errors, variation = counts * (y - predicted) ** 2, counts * (y - np.average(y, weights=counts)) ** 2
    unexplained = errors.sum() / variation.sum()
    return Score(float(1 - unexplained), (unexplained * variation - errors) / variation.sum())


def auc(y: Float[np.ndarray, " N"], predicted: Float[np.ndarray, " N"], counts: Counts = None) -> Score:
    """Return the area under the ROC curve of class 1, ties counted half.

    >>> auc(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.35, 0.8]))
    Score(value=0.75, influences=array([ 0.125, -0.125, -0.125,  0.125]))
    """
    return _auc(y == 1, np.unique(predicted, return_inverse=True)[1], counts)


def mean_auc(y: Float[np.ndarray, " N"], predicted: Float[np.ndarray, "N classes"], counts: Counts = None) -> Score:
    """Return the mean over the classes of the AUC of each against the others."""
    ranks = [np.unique(column, return_inverse=True)[1] for column in predicted.T]
    parts = [_auc(y == k, each, counts) for k, each in enumerate(ranks)]
    values, influences = zip(*parts, strict=True)
    return Score(float(np.mean(values)), np.mean(influences, axis=0))


def _auc(positive: Bool[np.ndarray, " N"], ranks: Int[np.ndarray, " N"], counts: Counts) -> Score:
    """A row's part is the share of the other class that it is on the right side of."""
    counts = np.ones(len(ranks)) if counts is None else counts

    def share_below(side: Bool[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
        masses = np.bincount(ranks, counts * side)
        return ((np.cumsum(masses) - masses / 2) / masses.sum())[ranks]

    parts = np.where(positive, share_below(~positive), 1 - share_below(positive))
    shares = counts / np.where(positive, counts[positive].sum(), counts[~positive].sum())
    value = float(np.sum((shares * parts)[positive]))
    return Score(value, shares * (parts - value))


def interval(influences: Float[np.ndarray, " N"], strata: Int[np.ndarray, " N"], range_alone: float) -> float:
    """Return half the width of a 95 % interval for a score, or for the difference of two.

    It is Student's, with the variance of the influences within the classes and the degrees of freedom of Welch 1947
    (Biometrika 34, 28). Of few rows (below 60 or so) it may hold a large difference in fewer than 95 of 100 cases, but
    no difference is still taken for one in 5 at most.

    Args:
        influences: of a score, or the differences of two.
        strata: the class of each row.
        range_alone: the most that a class can move the score in which nothing varies, as it has one row.
    """
    groups = [influences[strata == k] for k in np.unique(strata)]
    variances = np.array([len(group) * group.var(ddof=1) for group in groups if len(group) > 1])
    freedom = np.array([len(group) - 1 for group in groups if len(group) > 1])
    total = variances.sum() + (len(groups) - len(variances)) * range_alone**2
    if total == 0:
        return 0.0
    degrees = total**2 / max(np.sum(variances**2 / freedom), np.finfo(float).tiny)
    return float(stdtrit(degrees, 0.975) * np.sqrt(total))
