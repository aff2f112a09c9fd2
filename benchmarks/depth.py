"""At one weak penalty: is the lowest minimum of an exploration lower than that of random restarts, and is all joined?

    python benchmarks/depth.py --half choose --out benchmarks/results/depth-choose.json

The tables of the judge in the paper's setting, five tanh units at L2 1e-3, where there are hundreds of minima. The
restarts minimise from random weights until they have spent the gradients of the exploration. `certified`: the share of
merges of the tree that a transition state certifies, the others are bounds by paths. `above`: how far the bounds lie
above those of other code, strings of 64 images that relax by steepest descent from the straight line between the same
two ends (E, Ren & Vanden-Eijnden, J. Chem. Phys. 126, 164103, 2007), sampled 32 times on each stretch: the median, the
largest, and how many of up to `--strings` drawn are within 1e-4. Seconds are those of the exploration, compiling apart.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from judge_methods import split
from judge_tables import half, load, names
from results import head, line, record, table
from smoke import arguments

from jaxscape import models, use_all_cores
from jaxscape.analysis.disconnectivity import tree_of
from jaxscape.landscape import database, explore
from jaxscape.landscape.stopping import Budget, stopped_by
from jaxscape.objective import hessian, ravel, value, value_and_grad
from jaxscape.search import quench
from jaxscape.search.points import Status
from jaxscape.table import problem as tables

_BATCH = 64
_SAME = 1e-6  # relative
_CLOSE = 1e-4
_IMAGES, _SAMPLES, _STEPS = 64, 32, 2000  # of a string
_STEP = 0.5  # of steepest descent, over the largest curvature at the ends


@jax.jit
def string_bounds(objective: Any, starts: jax.Array, ends: jax.Array) -> jax.Array:
    """Return the highest energy sampled on a relaxed string from each start to each end."""
    grad = jax.vmap(lambda x: value_and_grad(objective, x)[1])
    curvature = jax.vmap(lambda x: jnp.linalg.norm(hessian(objective, x), 2))
    fractions = jnp.linspace(0, 1, _IMAGES)

    def relaxed(start: jax.Array, end: jax.Array) -> jax.Array:
        size = _STEP / jnp.max(curvature(jnp.stack([start, end])))

        def step(_: jax.Array, string: jax.Array) -> jax.Array:
            moved = string.at[1:-1].add(-size * grad(string[1:-1]))
            lengths = jnp.linalg.norm(moved[1:] - moved[:-1], axis=1)
            along = jnp.concatenate([jnp.zeros(1), jnp.cumsum(lengths)])
            places = fractions * along[-1]
            after = jnp.clip(jnp.searchsorted(along, places), 1, _IMAGES - 1)
            share = ((places - along[after - 1]) / (along[after] - along[after - 1]))[:, None]
            return moved[after - 1] * (1 - share) + moved[after] * share

        string = jax.lax.fori_loop(0, _STEPS, step, start + fractions[:, None] * (end - start))
        between = jnp.linspace(0, 1, _SAMPLES + 1)[:, None, None]
        points = string[:-1] * (1 - between) + string[1:] * between
        return jnp.max(jax.vmap(lambda x: value(objective, x))(points.reshape(-1, points.shape[-1])))

    return jax.lax.map(lambda pair: relaxed(*pair), (starts, ends))


def above_strings(objective: Any, landscape: Any, most: int) -> np.ndarray:
    """Return how far each path that joins parts lies above a string between the same ends."""
    paths, tree = landscape.paths, tree_of(landscape)
    used = np.flatnonzero(np.isin(paths.energies, tree.energies[~tree.certified]))
    if len(used) > most:
        used = np.random.default_rng(0).choice(used, most, replace=False)
    if len(used) == 0:
        return np.empty(0)
    images = paths.images[used]
    return paths.energies[used] - np.asarray(string_bounds(objective, images[:, 0], images[:, -1]))


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


def measure(name: str, gradients: float, seconds: float, strings: int) -> dict[str, Any]:
    judged = load(name)
    dataset = split(judged.x, judged.y, judged.task, 0).dataset
    made = tables.problem(dataset, tables.PAPER)
    config = tables._explore_settings(made, tables.PAPER, None)
    key = jax.random.fold_in(made.key, 1)
    state = explore.start(made.objective, made.symmetry, made.starts, key, config)
    explore.compile_ahead(made.objective, state, config)
    budget = Budget(10_000, gradients, seconds)
    began = time.perf_counter()
    while (ended := stopped_by(state, config, budget, seconds=time.perf_counter() - began)) is None:
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
        "above_strings": above_strings(made.objective, found, strings).tolist(),
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
    parser.add_argument("--strings", type=int, default=16, help="of a landscape, at most")
    parser.add_argument("--out", type=Path)
    options = arguments(parser, "--only signs/0 --gradients 2e4 --strings 1 --out {folder}/depth.json")
    jax.config.update("jax_enable_x64", True)
    use_all_cores()
    chosen = [name for name in names(seeds=5, runs=1) if half(name) == options.half and not name.startswith("grid")]
    columns = ["table", "weights", "rows", "lowest", "of restarts", "verdict", "minima", "transition states", "parts"]
    columns += ["certified", "above: median, largest, within 1e-4", "gradients", "ended by", "s"]
    rows, lines = [], []
    print(head(columns))
    for name in options.only or chosen:
        row = measure(name, options.gradients, options.seconds, options.strings)
        rows.append(row)
        cells = [name, row["weights"], row["rows"], f"{row['lowest']:.6f}", f"{row['lowest_of_restarts']:.6f}"]
        cells += [row["verdict"], row["minima"], row["transition_states"], row["parts"], f"{row['certified']:.3f}"]
        above = np.array(row["above_strings"])
        within = f"{np.sum(above <= _CLOSE)} of {len(above)}"
        cells += [f"{np.median(above):.1e}, {above.max():.1e}, {within}" if len(above) else ""]
        cells += [f"{row['gradients']:.1e}", row["stopped_by"], f"{row['seconds']:.0f}"]
        lines.append(cells)
        print(line(cells), flush=True)
        record(options.out, __doc__, rows, [table(columns, lines)])
    counts = {verdict: sum(row["verdict"] == verdict for row in rows) for verdict in ("lower", "same", "HIGHER")}
    print(counts, "certified, mean", np.mean([row["certified"] for row in rows]).round(3))


if __name__ == "__main__":
    main()
