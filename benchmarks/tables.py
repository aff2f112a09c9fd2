"""Generated tables of which it is known which columns matter. NumPy only.

    python benchmarks/tables.py

prints the AUC of the true probability, which no model can beat by more than chance (`bayes_auc`). Mean of seeds 0 to 4,
20,000 rows each, for 10, 20 and 50 columns: linear 0.902, 0.901, 0.901; interactions 0.896, 0.898, 0.914; nonlinear
0.904, 0.905, 0.902; correlated 0.901 each; redundant 0.901, 0.900, 0.899. Single seeds: 0.884 to 0.917.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from smoke import arguments

EFFECTS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    np.abs,
    lambda x: np.sin(2 * x),
    np.square,
    lambda x: (x > 0.5).astype(float),
)
# Logits are a standardised score times this: chosen per family for a Bayes AUC of about 0.9.
SCALES = {"linear": 2.6, "interactions": 3.3, "nonlinear": 2.7, "correlated": 2.6, "redundant": 2.6}
FAMILIES: tuple[str, ...] = tuple(SCALES)
DISTRACTORS = 0.75


class Generated(NamedTuple):
    """A table with a binary target, and the columns that the target depends on."""

    name: str
    x: np.ndarray
    y: np.ndarray
    informative: np.ndarray


def make(family: str, seed: int, *, rows: int, columns: int) -> Generated:
    """Draw a table of a family; the same arguments give the same table.

    - linear: a weighted sum of a fifth of the columns;
    - interactions: a weighted sum of products of disjoint pairs; no column has an effect by itself;
    - nonlinear: a weighted sum of |x|, sin 2x, x^2 and steps;
    - correlated: linear, and three quarters of the other columns correlate with an informative one (0.5 to 0.8);
    - redundant: linear, and each informative column has a copy up to sign and scale, which counts as informative too.

    Weights have random signs and magnitudes from 0.5 to 1.5; columns are standard normal (copies: rescaled), in random
    order. At least 3 columns are informative (interactions: 4), fewer only where the table has too few.
    """
    return draw(family, seed, rows=rows, columns=columns)[0]


def draw(family: str, seed: int, *, rows: int, columns: int) -> tuple[Generated, np.ndarray]:
    """`make`, and the true probability of each row."""
    rng = np.random.default_rng([seed, FAMILIES.index(family)])
    count = num_drivers(family, columns)
    x = rng.standard_normal((rows, columns))
    drivers = x[:, :count]
    informative = np.arange(columns) < count
    if family == "correlated":
        add_distractors(x, count, rng)
    if family == "redundant":
        x[:, count : 2 * count] = drivers * signs(rng, count) * rng.uniform(0.5, 2.0, count)
        informative[count : 2 * count] = True
    terms = mechanism(family, drivers, rng)
    score = terms @ (signs(rng, terms.shape[1]) * rng.uniform(0.5, 1.5, terms.shape[1]))
    probability = 1 / (1 + np.exp(-SCALES[family] * (score - score.mean()) / score.std()))
    y = (rng.random(rows) < probability).astype(float)
    order = rng.permutation(columns)
    return Generated(family, x[:, order], y, informative[order]), probability


def num_drivers(family: str, columns: int) -> int:
    """Number of columns in the mechanism, copies not counted."""
    if family == "interactions":
        return min(max(4, 2 * round(columns / 10)), columns - columns % 2)
    return min(max(3, round(columns / 5)), columns // 2 if family == "redundant" else columns)


def signs(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.choice([-1.0, 1.0], count)


def add_distractors(x: np.ndarray, count: int, rng: np.random.Generator) -> None:
    """Correlate most columns after the first `count` with one of these, in place."""
    stop = count + round(DISTRACTORS * (x.shape[1] - count))
    r = rng.uniform(0.5, 0.8, stop - count)
    sources = x[:, rng.integers(count, size=stop - count)]
    x[:, count:stop] = signs(rng, stop - count) * r * sources + np.sqrt(1 - r**2) * x[:, count:stop]


def mechanism(family: str, drivers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The terms that the score sums, of unit variance, one per column."""
    if family == "interactions":
        return drivers[:, ::2] * drivers[:, 1::2]
    if family == "nonlinear":
        chosen = np.resize(rng.permutation(len(EFFECTS)), drivers.shape[1])
        terms = np.stack([EFFECTS[i](column) for i, column in zip(chosen, drivers.T, strict=True)], axis=1)
        return (terms - terms.mean(axis=0)) / terms.std(axis=0)
    return drivers


def bayes_auc(family: str, seed: int, columns: int, rows: int) -> float:
    """AUC of the true probability: the chance that a positive row has the larger one (no ties, so ranks will do)."""
    table, probability = draw(family, seed, rows=rows, columns=columns)
    positive = table.y[np.argsort(probability)] == 1
    negatives_below = np.cumsum(~positive)
    return float(negatives_below[positive].mean() / negatives_below[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=5)
    options = arguments(parser, "--rows 500 --seeds 1")
    for family in FAMILIES:
        for columns in (10, 20, 50):
            aucs = [bayes_auc(family, seed, columns, options.rows) for seed in range(options.seeds)]
            print(
                f"{family:13} {columns:3} columns: Bayes AUC {np.mean(aucs):.3f} ({min(aucs):.3f} to {max(aucs):.3f})"
            )


if __name__ == "__main__":
    main()
