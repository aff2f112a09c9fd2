"""Quantities of heavy tails, such as prices, incomes and counts: bent before they are learnt, unbent when predicted.

A few values far out have all the say in a sum of squares: a network that bends to meet them has much evidence and
predicts badly. The inverse hyperbolic sine is the line itself near its middle and a logarithm far from it, on either
side (Johnson, Biometrika 36, 149, 1949; Burbidge, Magee & Robb, J. Am. Stat. Assoc. 83, 123, 1988).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_SKEW, _KURTOSIS = 0.7, 1.0  # of a uniform distribution 0 and -1.2, of a Gaussian 0 and 0
_ROUNDING = 1e-12  # of the largest value: zero that was standardised and brought back


class Tails(NamedTuple):
    """How a quantity y is bent: z = asinh((y - about) / unit).

    `cosh`, `sinh`: the means of these over what is left of the training rows, so that the mean of y is predicted and
    not y at the mean of z (smearing: Duan, J. Am. Stat. Assoc. 78, 605, 1983).
    """

    about: float
    unit: float
    cosh: float = 1.0
    sinh: float = 0.0


def heavy(y: Float[np.ndarray, " N"]) -> bool:
    """Say whether a quantity is skewed or has more far out than a Gaussian, so that to bend it may be of use."""
    standard = (y - y.mean()) / y.std()
    return bool(abs(np.mean(standard**3)) > _SKEW or np.mean(standard**4) - 3 > _KURTOSIS)


def candidates(y: Float[np.ndarray, " N"]) -> list[Tails]:
    """Return two ways to bend a quantity: about zero, with the median magnitude of what is not zero as the unit, as
    suits what is counted or paid; about the median, with the mean distance from it."""
    sizes, median = np.abs(y), float(np.median(y))
    sizes = sizes[sizes > _ROUNDING * sizes.max()]
    return [Tails(0.0, float(np.median(sizes))), Tails(median, float(np.mean(np.abs(y - median))))]


def bend(tails: Tails, y: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Return z."""
    return np.arcsinh((y - tails.about) / tails.unit)


def log_slopes(tails: Tails, y: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """Return log dz/dy: what turns a density of z into one of y."""
    return -np.log(np.hypot(y - tails.about, tails.unit))


def smeared(tails: Tails, left: Float[np.ndarray, " N"], weights: Float[np.ndarray, " N"] | None = None) -> Tails:
    """Take account of what a model leaves of training rows, `left`, in z; `weights`: what each row counts."""
    cosh, sinh = (float(np.average(each(left), weights=weights)) for each in (np.cosh, np.sinh))
    return tails._replace(cosh=cosh, sinh=sinh)


def unbend(tails: Tails, z: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """Return the mean of y where a model predicts z."""
    return tails.about + tails.unit * (tails.cosh * np.sinh(z) + tails.sinh * np.cosh(z))


def formula(tails: Tails, name: str) -> str:
    """Return what is learnt, for people."""
    inside = name if tails.about == 0 else f"({name} {'-' if tails.about > 0 else '+'} {_short(abs(tails.about))})"
    return f"asinh({inside} / {_short(tails.unit)})"


def _short(value: float) -> str:
    return f"{value:.0f}" if 1000 <= value < 1e6 else f"{value:.3g}"
