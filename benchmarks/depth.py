"""At one weak penalty: is the lowest minimum of an exploration lower than that of random restarts, and is all joined?

    python benchmarks/depth.py --half choose --out benchmarks/results/depth-choose.json

The tables of the judge in the paper's setting, five tanh units at L2 1e-3, where there are hundreds of minima. The
restarts minimise from random weights until they have spent the gradients of the exploration. `certified`: the share of
merges of the tree that a transition state certifies, the others are bounds by paths. Seconds are those of the
exploration, compiling apart.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from judge_methods import split
from judge_tables import half, load, names
from results import head, line, record, table
from smoke import arguments

from jaxscape import models, use_all_cores
from jaxscape.analysis.disconnectivity import tree_of
from jaxscape.landscape import database, explore
from jaxscape.objective import ravel
from jaxscape.search import quench
from jaxscape.search.points import Status
from jaxscape.table import problem as tables

_BATCH = 64
_SAME = 1e-6  # relative


def restarted(objective: Any, sizes: tuple[int, ...], seed: int, gradients: int) -> tuple[float, int]:
    """Return the lowest energy of minimisations from random weights, and how many there were."""
    lowest, spent, number = np.inf, 0, 0
    while spent < gradients:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed + 1000), number), _BATCH)
        found = quench.quench(objective, jax.vmap(lambda key: ravel(models.init(key, sizes)))(keys), num_lanes=8)
        ends = spent + np.cumsum(np.asarray(found.num_evaluations))
        good = (np.asarray(found.status) == Status.CONVERGED) & (ends <= gradients)
        lowest = min(lowest, float(np.asarray(found.energy)[good].min(initial=np.inf)))
        spent, number = int(ends[-1]), number + _BATCH
    return lowest, number


def measure(name: str, gradients: float, seconds: float) -> dict[str, Any]:
    judged = load(name)
    dataset = split(judged.x, judged.y, judged.task, 0).dataset
    made = tables.problem(dataset, tables.PAPER)
    config = tables._explore_settings(made, tables.PAPER, None)
    key = jax.random.fold_in(made.key, 1)
    state = explore.start(made.objective, made.symmetry, made.starts, key, config)
    explore.compile_ahead(made.objective, state, config)
    budget = explore.Budget(10_000, gradients, seconds)
    began = time.perf_counter()
    while (ended := explore.stopped_by(state, config, budget, seconds=time.perf_counter() - began)) is None:
        state = explore.advance(made.objective, state, key, config)
    took = time.perf_counter() - began
    state = explore.bound_barriers(made.objective, state, config)
    found = state.landscape
    num_outputs = len(dataset.classes) if dataset.task == "multiclass" else 1
    sizes = (dataset.x_train.shape[1], *made.hidden, num_outputs)
    spent = int(found.ledger.evaluations)
    lowest, number = restarted(made.objective, sizes, 0, spent)
    mine = float(found.minima.energies.min())
    tree = tree_of(found)
    return {
        "table": name,
        "weights": made.objective.dim,
        "rows": len(dataset.y_train),
        "lowest": mine,
        "lowest_of_restarts": lowest,
        "restarts": number,
        "verdict": "same" if abs(mine - lowest) <= _SAME * abs(lowest) else "lower" if mine < lowest else "HIGHER",
        "minima": len(found.minima.energies),
        "transition_states": len(found.transition_states.energies),
        "parts": int(database.components(found).max()) + 1,
        "certified": float(tree.certified.mean()) if len(tree.energies) else 1.0,
        "hopped": state.hopped,
        "gradients": spent,
        "stopped_by": ended,
        "seconds": took,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=["choose", "report"], default="choose")
    parser.add_argument("--only", nargs="+", metavar="TABLE", help="tables of the judge by name")
    parser.add_argument("--gradients", type=float, default=1e6)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--out", type=Path)
    options = arguments(parser, "--only signs/0 --gradients 2e4 --out {folder}/depth.json")
    jax.config.update("jax_enable_x64", True)
    use_all_cores()
    chosen = [name for name in names(seeds=5, runs=1) if half(name) == options.half and not name.startswith("grid")]
    columns = ["table", "weights", "rows", "lowest", "of restarts", "verdict", "minima", "transition states", "parts"]
    columns += ["certified", "gradients", "ended by", "s"]
    rows, lines = [], []
    print(head(columns))
    for name in options.only or chosen:
        row = measure(name, options.gradients, options.seconds)
        rows.append(row)
        cells = [name, row["weights"], row["rows"], f"{row['lowest']:.6f}", f"{row['lowest_of_restarts']:.6f}"]
        cells += [row["verdict"], row["minima"], row["transition_states"], row["parts"], f"{row['certified']:.3f}"]
        cells += [f"{row['gradients']:.1e}", row["stopped_by"], f"{row['seconds']:.0f}"]
        lines.append(cells)
        print(line(cells), flush=True)
        record(options.out, __doc__, rows, [table(columns, lines)])
    counts = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in ("lower", "same", "HIGHER")}
    print(counts, "certified, mean", np.mean([row["certified"] for row in rows]).round(3))


if __name__ == "__main__":
    main()
