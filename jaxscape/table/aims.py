"""What networks are to do well: all rows alike, all classes alike, or the order of the rows."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from jaxscape import losses
from jaxscape.table.targets import BINARY, Target

Loss = Literal["likelihood", "balanced", "auc"]
_MAX_RANKED = 1000  # rows: the Hessian of a smooth AUC takes gigabytes beyond


class Aim(NamedTuple):
    """What is minimised, besides the penalties.

    `name`: as a setting.
    `is_likelihood`: of the rows as they are, so that networks at the penalties searched are minima of it, too.
    `of_rows`: a mean of errors of rows, so that curvatures say how far weights may move.
    `loss(target)`: with L2, of a model.
    `row_weights(y, counts)`: what each row counts, given what it stands for; None where all count the same.
    `shares(counts)`: what classes count where columns are ranked, given what their rows count.
    `errors(target)`: of rows, that importance is measured in, and their `spread`, as in `attribution.Importance`;
    `unit(kind)`: of these, in words, given those of the target.
    `misfit(target, num_rows)`: why it cannot be had, None if it can.
    """

    name: Loss
    is_likelihood: bool
    of_rows: bool
    loss: Callable[[Target], Callable[[losses.Predict], losses.Loss]]
    row_weights: Callable[[Float[np.ndarray, " N"], Float[np.ndarray, " N"] | None], Float[np.ndarray, " N"] | None]
    shares: Callable[[Float[np.ndarray, " K"]], Float[np.ndarray, " K"]]
    errors: Callable[[Target], Callable[[Array, Array], Array]]
    spread: float
    misfit: Callable[[Target, int], str | None]
    unit: Callable[[str], str]


def _evenly(counts: Float[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
    return np.full(len(counts), 1 / len(counts))


def _ranked_misfit(target: Target, num_rows: int) -> str | None:
    if target is not BINARY:
        return "loss auc needs a target with two classes"
    if num_rows <= _MAX_RANKED:
        return None
    return (
        f"loss auc compares all pairs of rows, at most {_MAX_RANKED:,} for training, and here are {num_rows:,}: take "
        "fewer rows, or loss balanced"
    )


LIKELIHOOD = Aim(
    name="likelihood",
    is_likelihood=True,
    of_rows=True,
    loss=lambda target: target.loss,
    row_weights=lambda y, counts: counts,
    shares=lambda counts: counts / counts.sum(),
    errors=lambda target: target.errors,
    spread=1.0,
    misfit=lambda target, num_rows: None,
    unit=lambda kind: kind,
)
BALANCED = LIKELIHOOD._replace(
    name="balanced",
    is_likelihood=False,
    row_weights=losses.balanced_weights,
    shares=_evenly,
    misfit=lambda target, num_rows: (
        "loss balanced weighs classes, but the target is a quantity" if target.is_quantity else None
    ),
    unit=lambda kind: f"class-balanced {kind}",
)
RANKING = BALANCED._replace(
    name="auc",
    of_rows=False,
    loss=lambda target: losses.auc_surrogate,
    row_weights=lambda y, counts: counts,
    # A smooth AUC leaves the level of the logits open, so that only their order can be judged.
    errors=lambda target: losses.ranking_errors,
    spread=2.0,
    misfit=_ranked_misfit,
    unit=lambda kind: "share of wrongly ordered pairs",
)
AIMS: dict[Loss, Aim] = {each.name: each for each in (LIKELIHOOD, BALANCED, RANKING)}
