"""How stable are the conserved weights and the ranking of the columns to choices that should not matter?

    python benchmarks/sensitivity.py breast_cancer path/to/creditcard.csv --out results.json --figure sensitivity.png

An open question of Niroomand & Wales (2023), arXiv:2304.02381. The rows are always split with seed 0, and columns are
shuffled in the same way, so that only the landscape, or what is made of it, changes. Three numbers against a reference,
1 if nothing changes: the Jaccard index of the conserved masks of input weights (masks of 30 % drawn at random: 0.18),
in the frame of the reference's lowest minimum, and Spearman's correlation of two rankings of the columns, by importance
over the minima and by share of the conserved weights. The reference is the answer of `explain` with the paper's
penalty and units and seed 0, conserved weights of its superbasin and marginal importance over the 100 lowest minima,
unless said otherwise:

    a   some of the 100 lowest minima, drawn at random; against all of them, also for conserved weights; in the table
        also all of them, aligned to another than the lowest
    b   the superbasins around the lowest minimum; against the largest of them; bands: minima of that one, drawn at
        random, as many as the superbasin has, which says what is due to the cut and what to the number alone
    c   another fraction called conserved, in the landscape of each seed against 30 % there; masks of the same spread
        are nested, so that their Jaccard index says nothing but the ratio of the fractions
    d   another seed of the exploration; with that of the reference only the number of rounds differs (--rounds)
    e   another L2; f  another number of hidden units, for which masks do not compare

Landscapes in --landscapes are taken from there, `NAME_0.npz` for the reference. No exploration begins after --seconds.
"""

import argparse
import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from results import Table, markdown, record, table
from scipy.stats import spearmanr
from smoke import arguments

from jaxscape import attribution, conserved, disconnectivity
from jaxscape.analysis.disconnectivity import MergeTree
from jaxscape.symmetry import Symmetry, align, input_weights
from jaxscape.table import datasets
from jaxscape.table.datasets import Dataset
from jaxscape.table.predict import Members, column_importance
from jaxscape.table.problem import PAPER, ExplainConfig, explore_landscape

REFERENCE = replace(PAPER, seed=0)
CHANGES = {
    "a": "number of minima",
    "b": "superbasin around the lowest",
    "c": "conserved fraction",
    "d": "exploration seed",
    "e": "L2",
    "f": "hidden units",
}
REALIGNED, RANDOM = "a, aligned to another minimum", "b, as many at random"
MEASURES = {
    "jaccard": "conserved mask, Jaccard index",
    "importance": "columns by importance, rank correlation",
    "shares": "columns by conserved share, rank correlation",
}
COLOURS, MARKERS = ("#0072B2", "#D55E00", "#009E73"), "os^"
SIZES = (2, 3, 5, 8, 13, 20, 30, 50)
FRACTIONS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6)
DRAWS, MAX_MODELS, NUM_LEVELS = 20, 100, 30
CHANCE = REFERENCE.threshold / (2 - REFERENCE.threshold)
Row = dict[str, Any]


class Explored(NamedTuple):
    """A landscape and, for each of its minima, the `importance (M, columns)` of the columns."""

    symmetry: Symmetry
    positions: Float[np.ndarray, "M P"]
    energies: Float[np.ndarray, " M"]
    tree: MergeTree
    importance: Float[np.ndarray, "M columns"]
    column: Int[np.ndarray, " inputs"]

    @property
    def lowest(self) -> Int[np.ndarray, " m"]:
        """The minima that judge the columns, the lowest first."""
        return np.argsort(self.energies, kind="stable")[:MAX_MODELS]

    @property
    def frame(self) -> Float[np.ndarray, " P"]:
        """The lowest minimum."""
        return self.positions[self.energies.argmin()]

    @property
    def group(self) -> Int[np.ndarray, " g"]:
        """The superbasin that `explain` looks for conserved weights in."""
        labels = disconnectivity.superbasins(self.tree, disconnectivity.choose_level(self.tree, self.energies))
        return np.flatnonzero(labels == labels[self.energies.argmin()])


class Answer(NamedTuple):
    """What is compared: the mask of the conserved weights, and two scores of the columns."""

    mask: Bool[np.ndarray, " P"]
    importance: Float[np.ndarray, " columns"]
    shares: Float[np.ndarray, " columns"]


def explored(dataset: Dataset, config: ExplainConfig, checkpoint: Path | None) -> Explored:
    """Explore, or take from the checkpoint; measure importance with the reference's shuffles."""
    made, landscape, *_ = explore_landscape(dataset, config, checkpoint=checkpoint, resume=True)
    energies, states = landscape.minima.energies, landscape.transition_states
    key = jax.random.fold_in(jax.random.key(REFERENCE.seed), 1)
    groups = attribution.near_copies(dataset.x_train, dataset.column)
    parts = []
    for some in np.split(landscape.minima.positions, range(MAX_MODELS, len(energies), MAX_MODELS)):
        members = Members(some, np.full(len(some), 1 / len(some)), made.objective.unravel, config.activation)
        measured = column_importance(key, members, dataset, seed=REFERENCE.seed, groups=groups, conditional=False)
        parts.append(measured.increases.mean(axis=1)[:, groups])
    tree = disconnectivity.merge_tree(energies, states.energies, states.minima)
    return Explored(made.symmetry, landscape.minima.positions, energies, tree, np.concatenate(parts), dataset.column)


def answer(
    land: Explored,
    group: Int[np.ndarray, " g"],
    models: Int[np.ndarray, " m"],
    *,
    frame: Float[np.ndarray, " P"] | None = None,
    fraction: float = REFERENCE.threshold,
    first: int | None = None,
) -> Answer:
    """Find the conserved weights of a group, in a frame, and score the columns by them and by importance to models.

    `first`: the minimum that the others are aligned to, by default the lowest of the group.
    """
    centre = land.positions[group[land.energies[group].argmin()] if first is None else first]
    if frame is not None and frame.shape == centre.shape:
        centre = align(land.symmetry, frame, centre[None])[0][0]
    moved, _ = align(land.symmetry, centre, land.positions[group])
    candidates = input_weights(land.symmetry)
    found = conserved.conserved_weights(moved, np.zeros(len(group), int), threshold=fraction, candidates=candidates)
    belongs = np.eye(land.column.max() + 1)[land.column]
    shares = attribution.feature_scores(found, land.symmetry)[0] @ belongs
    return Answer(found.mask[0], land.importance[models].mean(axis=0), shares)


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's; NaN where one of the rankings has no order at all, as with a single minimum."""
    return float(spearmanr(one, other).statistic) if np.ptp(one) > 0 and np.ptp(other) > 0 else float("nan")


def compare(one: Answer, other: Answer) -> dict[str, float]:
    same = one.mask.shape == other.mask.shape and one.mask.any() and other.mask.any()
    return {
        "jaccard": conserved.jaccard(one.mask, other.mask) if same else float("nan"),
        "importance": rank_correlation(one.importance, other.importance),
        "shares": rank_correlation(one.shares, other.shares),
    }


def row(change: str, value: str, at: float, comparisons: list[dict[str, float]], minima: int) -> Row:
    """`at`: where to draw it; `minima`: in the group."""
    measured = {name: [comparison.get(name, float("nan")) for comparison in comparisons] for name in MEASURES}
    return {"change": change, "value": value, "at": at, "minima": minima} | measured


def some_of(
    land: Explored, ids: Int[np.ndarray, " m"], number: int, rng: np.random.Generator
) -> list[dict[str, float]]:
    """Compare draws from these minima with all of them."""
    whole = answer(land, ids, ids, frame=land.frame)
    draws = [rng.permutation(ids)[:number] for _ in range(DRAWS)]
    return [compare(answer(land, draw, draw, frame=land.frame), whole) for draw in draws]


def by_number(land: Explored) -> Iterator[Row]:
    rng = np.random.default_rng(0)
    for number in (size for size in SIZES if size < len(land.lowest)):
        yield row("a", str(number), number, some_of(land, land.lowest, number, rng), number)
    centres, ids = land.lowest[: DRAWS + 1], land.lowest
    usual, *others = (answer(land, ids, ids, frame=land.frame, first=centre) for centre in centres)
    if others:
        value = f"each of the {len(others)} next lowest"
        yield row(REALIGNED, value, 0, [compare(other, usual) for other in others], len(land.lowest))


def by_level(land: Explored) -> Iterator[Row]:
    nodes = conserved.by_level(
        land.symmetry,
        land.tree,
        land.positions,
        land.energies,
        candidates=input_weights(land.symmetry),
        num_levels=NUM_LEVELS,
    )
    path = conserved.funnel(nodes, int(land.energies.argmin()))
    rng = np.random.default_rng(0)
    for node in path:
        one, whole = (answer(land, ids, ids, frame=land.frame) for ids in (node.members, path[0].members))
        number = len(node.members)
        chosen = ", as `explain` chooses" if set(node.members) == set(land.group) else ""
        yield row("b", f"below {node.level:.5f}{chosen}", number, [compare(one, whole)], number)
        yield row(RANDOM, str(number), number, some_of(land, path[0].members, number, rng), number)


def by_fraction(lands: list[Explored]) -> Iterator[Row]:
    for fraction in FRACTIONS:
        compared = []
        for land in lands:
            usual, other = (answer(land, land.group, land.lowest, fraction=f) for f in (REFERENCE.threshold, fraction))
            compared.append({name: value for name, value in compare(other, usual).items() if name != "importance"})
        yield row("c", str(fraction), fraction, compared, len(lands[0].group))


def by_exploration(change: str, value: str, at: float, land: Explored, reference: Explored) -> Row:
    usual = answer(reference, reference.group, reference.lowest)
    other = answer(land, land.group, land.lowest, frame=reference.frame)
    return row(change, value, at, [compare(other, usual)], len(land.group))


def variants(options: argparse.Namespace, reference: ExplainConfig) -> Iterator[tuple[str, str, ExplainConfig, float]]:
    """The explorations to do, in turn of each kind: change, value, settings, where to draw it."""
    usual = replace(reference, rounds=options.rounds)
    seeds = [("d", str(seed), replace(usual, seed=seed)) for seed in options.seeds]
    strengths = [("e", f"{l2:g}", replace(usual, penalty=l2)) for l2 in options.l2]
    widths = [("f", str(units), replace(usual, hidden=(units,))) for units in options.hidden]
    yield "d", str(REFERENCE.seed), usual, 0.0
    for turn in itertools.zip_longest(enumerate(seeds, 1), enumerate(strengths), enumerate(widths)):
        yield from ((*variant, float(at)) for at, variant in filter(None, turn))


def study(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything for one data set."""
    began = time.perf_counter()
    dataset = datasets.prepare(datasets.load(name, seed=0), seed=0)
    stem = dataset.name.split(".")[0]

    def file(settings: str) -> Path | None:
        return None if options.landscapes is None else options.landscapes / f"{stem}_0{settings}.npz"

    settings = replace(REFERENCE, hidden=(options.units,), rounds=options.reference_rounds)
    reference = explored(dataset, settings, file(""))
    rows = [*by_number(reference), *by_level(reference)]
    print(f"<!-- {stem}: a and b after {time.perf_counter() - began:.0f} s -->", flush=True)
    of_seeds, left_out = [reference], []
    for change, value, config, at in variants(options, settings):
        if time.perf_counter() - began > options.seconds:
            left_out.append(f"{CHANGES[change]} {value}")
            continue
        changed = {"d": "seed", "e": "l2", "f": "hidden"}[change]
        land = explored(dataset, config, file(f"_{changed}-{value}_rounds-{config.rounds}"))
        rows.append(by_exploration(change, value, at, land, reference))
        if change == "d" and config.seed != REFERENCE.seed:
            of_seeds.append(land)
        print(f"<!-- {stem}: {CHANGES[change]} {value} after {time.perf_counter() - began:.0f} s -->", flush=True)
    rows += by_fraction(of_seeds)
    return {
        "data": stem,
        "minima": len(reference.energies),
        "group": len(reference.group),
        "columns": len(dataset.features),
        "rows": sorted(rows, key=lambda row: row["change"]),
        "left_out": left_out,
        "seconds": time.perf_counter() - began,
    }


def cell(values: list[float]) -> str:
    """Mean and range of those that could be measured."""
    known = [value for value in values if not np.isnan(value)]
    if not known:
        return "-"
    return f"{np.mean(known):.2f}" + (f" ({min(known):.2f} to {max(known):.2f})" if len(values) > 1 else "")


def report(one: dict[str, Any]) -> Table:
    lines = []
    for row in one["rows"]:
        change = f"{row['change']}. {CHANGES[row['change']]}" if row["change"] in CHANGES else row["change"]
        lines.append([change, row["value"], row["minima"], *(cell(row[name]) for name in MEASURES)])
    left_out = f"; not done: {', '.join(one['left_out'])}" if one["left_out"] else ""
    return table(
        ["change", "value", "minima", "Jaccard", "importance rank correlation", "conserved-share rank correlation"],
        lines,
        f"{one['data']}: {one['minima']} minima, {one['group']} in the group; {one['seconds']:.0f} s{left_out}",
    )


def summarised(rows: list[Row], change: str, name: str) -> Float[np.ndarray, "4 n"]:
    """Where to draw, mean, lowest, highest of what could be measured."""
    known = [
        (row["at"], np.array([v for v in row[name] if not np.isnan(v)])) for row in rows if row["change"] == change
    ]
    points = sorted((at, v.mean(), v.min(), v.max()) for at, v in known if v.size)
    return np.array(points).reshape(-1, 4).T


def panel(ax: Axes, rows: list[Row], change: str) -> None:
    """Draw one change: curves with bands, or points with the values under them."""
    kind = [row for row in rows if row["change"] == change]
    for i, (name, colour, marker) in enumerate(zip(MEASURES, COLOURS, MARKERS, strict=True)):
        at, mean, low, high = summarised(rows, change, name)
        if change in "abc":
            at_band, _, low, high = summarised(rows, RANDOM, name) if change == "b" else (at, mean, low, high)
            ax.fill_between(at_band, low, high, color=colour, alpha=0.15, linewidth=0)
            ax.plot(at, mean, marker=marker, color=colour, markersize=4, linewidth=1.4)
        else:
            ax.plot(at + 0.15 * (i - 1), mean, marker, color=colour, markersize=6)
    if change in "ab":
        ax.set_xscale("log")
        ax.minorticks_off()
        ticks = [at for at in (2, 3, 5, 8, 13, 20, 30, 50, 100) if at <= max((row["at"] for row in kind), default=2)]
        ax.set_xticks(ticks, [str(tick) for tick in ticks])
    elif change in "def":
        names = [row["value"] + ("\nagain" if row["value"] == str(REFERENCE.seed) else "") for row in kind]
        ax.set_xticks([row["at"] for row in kind], names)
        ax.set_xlim(-0.6, max((row["at"] for row in kind), default=0) + 0.6)
    if not kind:
        ax.text(0.5, 0.5, "not measured", transform=ax.transAxes, color="0.5", ha="center")
        ax.set_xticks([])
    elif change in "abde":
        ax.axhline(CHANCE, color=COLOURS[0], linewidth=0.8, linestyle=":")
    ax.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    ax.set_xlabel({"a": "minima drawn", "b": "minima in the superbasin"}.get(change, CHANGES[change]))


def figure(done: list[dict[str, Any]]) -> Figure:
    """Data sets by changes."""
    fig = Figure(figsize=(16, 0.8 + 2.9 * len(done)), layout="constrained")
    axes = fig.subplots(len(done), len(CHANGES), squeeze=False, sharey=True)
    for line, one in zip(axes, done, strict=True):
        for ax, change in zip(line, CHANGES, strict=True):
            panel(ax, one["rows"], change)
        line[0].set_ylabel(f"{one['data']}\nagreement with the reference")
        line[0].set_ylim(top=1.05)
    for ax, (letter, change) in zip(axes[0], CHANGES.items(), strict=True):
        ax.set_title(f"{letter}  {change}", loc="left", fontsize=10)
    handles = [
        axes[0, 0].plot([], [], marker=marker, color=colour, label=label)[0]
        for marker, colour, label in zip(MARKERS, COLOURS, MEASURES.values(), strict=True)
    ]
    handles += axes[0, 0].plot([], [], color=COLOURS[0], linewidth=0.8, linestyle=":", label="Jaccard index by chance")
    fig.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return fig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--landscapes", type=Path, help="folder to keep landscapes in, and to take them from")
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3], help="of the exploration")
    parser.add_argument("--l2", type=float, nargs="*", default=[3e-4, 3e-3, 1e-2])
    parser.add_argument("--hidden", type=int, nargs="*", default=[3, 8])
    parser.add_argument("--rounds", type=int, default=3, help="of the explorations but the reference")
    parser.add_argument("--units", type=int, default=REFERENCE.hidden[0], help="hidden units of the reference")
    parser.add_argument("--reference-rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no exploration later, per data set")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    options = arguments(
        parser,
        "checkerboard --seeds 1 --l2 --hidden 2 --rounds 1 --units 3 --reference-rounds 1 --landscapes {folder} "
        "--out {folder}/sensitivity.json --figure {folder}/sensitivity.png",
    )
    jax.config.update("jax_enable_x64", True)
    done = []
    for name in options.data:
        done.append(study(name, options))
        record(options.out, __doc__, done, list(map(report, done)))
        if options.figure is not None:
            figure(done).savefig(options.figure, dpi=150)
    print("\n\n".join(map(markdown, map(report, done))))


if __name__ == "__main__":
    main()
