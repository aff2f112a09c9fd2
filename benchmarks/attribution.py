"""Does the ranking of columns tell the truth? Generated tables with known informative columns, and rivals beside.

    pip install shap lime
    python benchmarks/attribution.py --out attribution.json

Families of tables: `tables.py`; rivals: `rivals.py`. For every table one landscape is explored, at the paper's
penalty. jaxscape judges columns by what all minima found make of them together, the rivals by the best one, all
on the same held-out rows. Quality: AUROC of the scores against the truth, and the share of true columns among the first
k, k being their number; mean over tables, 95 % intervals by bootstrap over tables, also of the paired difference to
"importance over the minima". Calibration: of the columns called important at a false discovery rate of 5 %, how many
are. Explorations are short (4, 3 and 2 rounds), to get many tables done. --smoke
leaves out the rivals that need more than jaxscape does.
"""

import argparse
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from results import Table, markdown, record, table
from rivals import RIVALS, Data, Network
from sklearn.metrics import roc_auc_score
from smoke import arguments
from tables import FAMILIES, Generated, make

from jaxscape import attribution, conserved, models
from jaxscape.symmetry import input_weights
from jaxscape.table import datasets
from jaxscape.table.predict import Members, column_importance, scorer
from jaxscape.table.problem import PAPER, ExplainConfig, explore_landscape

DEFAULT = "jaxscape: importance over the minima"
FDR = 0.05


def problem(family: str, size: str, seed: int) -> tuple[Generated, datasets.Dataset]:
    columns, rows = map(int, size.split("x"))
    made = make(family, seed, rows=rows, columns=columns)
    names = [f"c{i}" for i in range(columns)]
    as_table = datasets.Table(family, pd.DataFrame(made.x, columns=names), pd.Series(made.y), "y")
    return made, datasets.prepare(as_table, task="binary", seed=seed)


def judge(family: str, size: str, config: ExplainConfig, rivals: list[str], landscapes: Path | None) -> dict[str, Any]:
    """Explore one table's landscape and score all methods on it."""
    seed = config.seed
    made, dataset = problem(family, size, seed)
    truth = made.informative
    began = time.perf_counter()
    checkpoint = None if landscapes is None else landscapes / f"{family}_{size}_{seed}.npz"
    made, landscape, *_ = explore_landscape(dataset, config, checkpoint=checkpoint, resume=True)
    objective, symmetry = made.objective, made.symmetry
    seconds = {"exploration": time.perf_counter() - began}
    lowest = np.argsort(landscape.minima.energies, kind="stable")[:100]
    best = jnp.asarray(landscape.minima.positions[lowest[0]])
    scores: dict[str, np.ndarray] = {}
    calls: dict[str, tuple[int, int]] = {}

    def measured(name: str, minima: np.ndarray, *, copies: bool = True) -> None:
        began = time.perf_counter()
        groups = attribution.near_copies(dataset.x_train, dataset.column) if copies else None
        key = jax.random.fold_in(jax.random.key(seed), 1)
        even = np.full(len(minima), 1 / len(minima))
        members = Members(landscape.minima.positions[minima], even, objective.unravel, config.activation)
        found = column_importance(key, members, dataset, seed=seed, groups=groups, conditional=False)
        called = attribution.significance(found) <= FDR
        scores[name], calls[name] = found.mean, (int(called.sum()), int(np.sum(called & ~truth)))
        seconds[name] = time.perf_counter() - began

    measured(DEFAULT, lowest)
    measured("jaxscape, best minimum only", lowest[:1])
    measured("jaxscape, each column alone", lowest, copies=False)
    group = np.zeros(len(lowest), int)
    weights, _ = conserved.align_groups(
        symmetry, landscape.minima.positions[lowest], landscape.minima.energies[lowest], group
    )
    candidates = input_weights(symmetry)
    for criterion in ("relative", "absolute", "magnitude"):
        found = conserved.conserved_weights(weights, group, criterion=criterion, candidates=candidates)
        scores[f"conserved weights, {criterion}"] = attribution.feature_scores(found, symmetry)[0]

    predict = models.mlp(config.activation)
    network = Network(
        lambda x: predict(objective.unravel(best), x)[:, 0], best[jnp.asarray(symmetry.layers[0].incoming)]
    )
    data = Data(dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test)
    for name in rivals:
        began = time.perf_counter()
        scores[name] = np.asarray(RIVALS[name](network, data))
        seconds[name] = time.perf_counter() - began
    k = int(truth.sum())
    return {
        "family": family,
        "size": size,
        "seed": seed,
        "minima": len(lowest),
        "auc": float(scorer(dataset, config.activation, objective.unravel, dataset.x_test, dataset.y_test)(best)),
        "auroc": {name: float(roc_auc_score(truth, score)) for name, score in scores.items()},
        "top": {name: float(truth[np.argsort(-score, kind="stable")[:k]].mean()) for name, score in scores.items()},
        "calls": calls,
        "seconds": seconds,
    }


def interval(values: np.ndarray) -> str:
    """Mean and 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(4000, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{values.mean():.3f} ({low:.3f} to {high:.3f})"


def report(rows: list[dict[str, Any]]) -> list[Table]:
    def column(name: str, kind: str, **only: str) -> np.ndarray:
        return np.array([row[kind][name] for row in rows if all(row[key] == only[key] for key in only)])

    families = [family for family in FAMILIES if any(row["family"] == family for row in rows)]
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    names = sorted(rows[0]["auroc"], key=lambda name: -column(name, "auroc").mean())
    heads = ["method", "AUROC", "default minus this", "first k right", *families, *sizes, "s"]
    rankings, calls = [], []
    for name in names:
        ahead = column(DEFAULT, "auroc") - column(name, "auroc")
        cells = [name, interval(column(name, "auroc")), "" if name == DEFAULT else interval(ahead)]
        cells += [interval(column(name, "top"))]
        cells += [f"{column(name, 'auroc', family=family).mean():.3f}" for family in families]
        cells += [f"{column(name, 'auroc', size=size).mean():.3f}" for size in sizes]
        cells += [f"{np.mean([row['seconds'].get(name, np.nan) for row in rows]):.1f}"]
        rankings.append(cells)
    for name in rows[0]["calls"]:
        counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2, int))
        for row in rows:
            counts[row["family"]] += row["calls"][name]
        total = sum(counts.values())
        cells = [f"{counts[family][0]}, {counts[family][1]}" for family in families]
        share = f"{1 - total[1] / max(total[0], 1):.1%}"
        calls.append([name, *cells, f"{total[0]}, {total[1]}", share])
    called = f"Called important at a false discovery rate of {FDR:.0%}: called, of these wrong"
    return [
        table(heads, rankings, f"{len(rows)} tables"),
        table(["method", *families, "all", "right"], calls, called),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["10x150", "20x500", "50x2000"], help="columns x rows")
    parser.add_argument("--rounds", type=int, nargs="+", default=[4, 3, 2], help="of the explorations, for each size")
    parser.add_argument("--seeds", type=int, nargs="+", default=[5, 4, 2], help="tables per family, for each size")
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--hidden", type=int, nargs="+", default=[5])
    parser.add_argument("--without", nargs="+", choices=RIVALS, default=[], help="rivals to leave out")
    parser.add_argument("--landscapes", type=Path, help="folder to keep landscapes in, and to take them from")
    parser.add_argument("--out", type=Path)
    options = arguments(
        parser,
        "--sizes 8x60 --rounds 1 --seeds 1 --families linear redundant --hidden 3 --without SHAP LIME "
        "--landscapes {folder} --out {folder}/attribution.json",
    )
    jax.config.update("jax_enable_x64", True)
    if options.without:
        print(f"<!-- left out: {', '.join(options.without)} -->")
    rivals = [name for name in RIVALS if name not in options.without]
    rows = []
    for size, rounds, number in zip(options.sizes, options.rounds, options.seeds, strict=False):
        for seed in range(number):
            for family in options.families:
                config = replace(PAPER, hidden=tuple(options.hidden), rounds=rounds, seed=seed)
                rows.append(judge(family, size, config, rivals, options.landscapes))
                print(f"<!-- {family} {size} {seed}: {rows[-1]['auroc'][DEFAULT]:.3f} -->", flush=True)
                record(options.out, __doc__, rows, report(rows))
    print("\n\n".join(map(markdown, report(rows))))


if __name__ == "__main__":
    main()
