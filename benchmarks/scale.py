"""Where does a landscape shatter? The penalties that the data support, made weaker and weaker.

    python benchmarks/scale.py signs-and-line/0 neighbours/0 real-breast_cancer/1 real-diabetes/1 real-wine/0 \\
        --out benchmarks/results/scale.json --figure benchmarks/figures/scale.png

Tables of the judge. For each the number of units of best evidence and its penalties; then the same network, with the
columns that it uses, at 1/3, 1/10, 1/100 and 1/1000 of these, explored with 2 million gradients at most. Minima, the
parts that certified edges leave, and how the minima predict together, all counting the same, on rows that were held out
(AUC, of a quantity R²).
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import judge_methods
import judge_tables
import matplotlib as mpl
import numpy as np
from results import Table, markdown, record, table
from smoke import arguments

from jaxscape import Budget, ExploreConfig, database
from jaxscape.landscape.explore import explore
from jaxscape.landscape.stopping import stopped_by
from jaxscape.table import mixture, predict
from jaxscape.table.mixture import Mixture
from jaxscape.table.predict import Members
from jaxscape.table.problem import ExplainConfig, problem

SCALES = (1, 1 / 3, 1 / 10, 1 / 100, 1 / 1000)
CONFIG = ExploreConfig(num_minima=200, coverage=0.95, hopping_steps=500, num_searches=20, num_lanes=4)


def weaker(supported: Mixture, scale: float) -> Mixture:
    place = supported.networks[0, 0]
    size = supported.sizes[place]
    scaled = size._replace(found=size.found._replace(alphas=size.found.alphas * scale))
    return supported._replace(sizes=tuple(scaled if i == place else each for i, each in enumerate(supported.sizes)))


def measure(name: str, gradients: float, sizes: Any) -> list[dict[str, Any]]:
    drawn = judge_tables.load(name)
    judge_methods.forget()
    dataset = judge_methods.split(drawn.x, drawn.y, drawn.task, 0).dataset
    supported = mixture.fit(dataset, sizes)
    rows = []
    for scale in SCALES:
        made = problem(dataset, ExplainConfig(), weaker(supported, scale))
        last: list[Any] = []
        landscape = explore(
            made.objective, made.symmetry, made.starts, made.key, CONFIG, budget=Budget(1000, gradients),
            on_round=last.append,
        )  # fmt: skip
        positions = landscape.minima.positions * made.scale
        even = np.full(len(positions), 1 / len(positions))
        members = Members(positions, even, made.objective.unravel, "tanh")
        x = dataset.x_test[:, made.inputs]
        rows.append(
            {
                "table": name,
                "scale": scale,
                "units": made.hidden[0],
                "weights": made.objective.dim,
                "minima": len(positions),
                "transition_states": len(landscape.transition_states.energies),
                "parts": int(database.components(landscape).max()) + 1,
                "score": dataset.kind.score(dataset.y_test, predict.together(members, dataset.kind, x)).value,
                "stopped_by": stopped_by(last[-1], CONFIG, Budget(1000, gradients)),
            }
        )
        print(f"<!-- {rows[-1]} -->", flush=True)
    return rows


def report(rows: list[dict[str, Any]]) -> Table:
    heads = ["table", "penalties times", "units", "minima", "transition states", "parts", "held-out score", "ended by"]
    cells = [
        [row["table"], f"{row['scale']:.3g}", row["units"], row["minima"], row["transition_states"], row["parts"],
         f"{row['score']:.3f}", row["stopped_by"]]
        for row in rows
    ]  # fmt: skip
    return table(heads, cells)


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    axes = figure.subplots(1, 3)
    for name in dict.fromkeys(row["table"] for row in rows):
        these = [row for row in rows if row["table"] == name]
        for ax, kind in zip(axes, ("minima", "parts", "score"), strict=True):
            ax.plot([row["scale"] for row in these], [row[kind] for row in these], marker="o", markersize=3, label=name)
    for ax, kind in zip(axes, ("minima found", "parts", "held-out score"), strict=True):
        ax.set_xscale("log")
        ax.set_xlabel("penalties, times those of the evidence", fontsize=8)
        ax.set_ylabel(kind)
        if kind == "minima found":
            ax.set_yscale("log")
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
    axes[0].legend(frameon=False, fontsize=7)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="+")
    parser.add_argument("--gradients", type=float, default=2e6)
    parser.add_argument("--hidden", type=int, nargs="+", help="sizes to choose from")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    options = arguments(
        parser,
        "neighbours/0 --gradients 2e4 --hidden 1 --out {folder}/scale.json --figure {folder}/scale.png",
    )
    mpl.use("Agg")
    jax.config.update("jax_enable_x64", True)
    sizes = mixture.SIZES if options.hidden is None else tuple((number,) for number in options.hidden)
    rows: list[dict[str, Any]] = []
    for name in options.tables:
        rows += measure(name, options.gradients, sizes)
        record(options.out, __doc__, rows, [report(rows)])
        jax.clear_caches()
    if options.figure is not None:
        draw(rows, options.figure)
    print(markdown(report(rows)))


if __name__ == "__main__":
    main()
