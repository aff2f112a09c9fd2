"""Quantities of heavy tails, such as prices, incomes and counts: bent before they are learnt, or learnt from.

A few values far out have all the say in a sum of squares: a network that bends to meet them has much evidence and
predicts badly, and so it does for rows whose inputs lie far out. The inverse hyperbolic sine is the line itself near
its middle and a logarithm far from it, on either side (Johnson, Biometrika 36, 149, 1949; Burbidge, Magee & Robb, J.
Am. Stat. Assoc. 83, 123, 1988).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

_SKEW, _KURTOSIS = 0.7, 1.0  # of a uniform distribution 0 and -1.2, of a Gaussian 0 and 0
_STRONG_SKEW, _STRONG_KURTOSIS = 2.0, 5.0  # of an exponential distribution 2 and 6
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


class BentInputs(NamedTuple):
    """Inputs x that are bent, those at `places (k,)`: z = (asinh((x - about) / unit) - centre) / spread, (k,) each."""

    places: Int[np.ndarray, " k"]
    about: Float[np.ndarray, " k"]
    unit: Float[np.ndarray, " k"]
    centre: Float[np.ndarray, " k"]
    spread: Float[np.ndarray, " k"]


def heavy(y: Float[np.ndarray, " N"]) -> bool:
    """Say whether a quantity is skewed or has more far out than a Gaussian, so that to bend it may be of use."""
    return _beyond(y, _SKEW, _KURTOSIS)


def _beyond(y: Float[np.ndarray, " N"], skew: float, kurtosis: float) -> bool:
    standard = (y - y.mean()) / y.std()
    return bool(abs(np.mean(standard**3)) > skew or np.mean(standard**4) - 3 > kurtosis)


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


def smeared(tails: Tails, left: Float[np.ndarray, " N"]) -> Tails:
    """Take account of what a model leaves of training rows, `left`, in z."""
    return tails._replace(cosh=float(np.cosh(left).mean()), sinh=float(np.sinh(left).mean()))


def unbend(tails: Tails, z: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
    """Return the mean of y where a model predicts z."""
    return tails.about + tails.unit * (tails.cosh * np.sinh(z) + tails.sinh * np.cosh(z))


def formula(tails: Tails, name: str) -> str:
    """Return what is learnt, for people."""
    inside = name if tails.about == 0 else f"({name} {'-' if tails.about > 0 else '+'} {_short(abs(tails.about))})"
    return f"asinh({inside} / {_short(tails.unit)})"


def _short(value: float) -> str:
    return f"{value:.0f}" if 1000 <= value < 1e6 else f"{value:.3g}"


def bent_inputs(x: Float[np.ndarray, "N inputs"]) -> BentInputs:
    """Choose the inputs of very heavy tails, those of two values apart, and how to bend them: about the median, with
    the mean distance from it as the unit; then to unit variance."""
    found = []
    for place, values in enumerate(x.T):
        two = np.all((values == values.min()) | (values == values.max()))
        if two or not _beyond(values, _STRONG_SKEW, _STRONG_KURTOSIS):
            continue
        about = np.median(values)
        unit = np.mean(np.abs(values - about))
        z = np.arcsinh((values - about) / unit)
        found.append((place, about, unit, z.mean(), z.std()))
    places, *others = np.array(found).reshape(-1, 5).T
    return BentInputs(places.astype(int), *others)


def bend_inputs(bent: BentInputs, x: Float[np.ndarray, "N inputs"]) -> Float[np.ndarray, "N inputs"]:
    """Return all inputs, those that are to be bent so."""
    z = x.copy()
    z[:, bent.places] = (np.arcsinh((x[:, bent.places] - bent.about) / bent.unit) - bent.centre) / bent.spread
    return z


def straight(bent: BentInputs, place: int, z: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return values of the input at a place as they were before it was bent, if it was."""
    for k in np.flatnonzero(bent.places == place):
        z = bent.about[k] + bent.unit[k] * np.sinh(z * bent.spread[k] + bent.centre[k])
    return z
