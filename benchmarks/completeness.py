"""Is everything found? Minima and transition states against published tables and a brute-force oracle.

    python benchmarks/completeness.py xor2 lj8 --seeds 3 --out completeness.json
    python benchmarks/completeness.py lj38 --seeds 10

Networks and 2D functions: every stationary point by brute force (tests/oracle.json, by the method of oracle.py).
Lennard-Jones clusters: Tsai & Jordan, J. Phys. Chem. 97, 11227 (1993); Doye & Wales, J. Chem. Phys. 116, 3777 (2002).
lj38: quenches of basin-hopping until the global minimum of the Cambridge Cluster Database. Seconds include compiling.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from results import head, line, record, table
from smoke import arguments

from jaxscape import Budget, ExploreConfig, basin_hopping, coverage, database, explore, surfaces
from jaxscape.landscape.stopping import coverage_of
from jaxscape.search.basin_hopping import HoppingConfig

ORACLE = json.loads((Path(__file__).parents[1] / "tests" / "oracle.json").read_text())
LENNARD_JONES = {7: (4, 12), 8: (8, 42), 9: (21, 165), 10: (64, 635), 13: (1509, 28756)}
LJ38 = -173.928427
WARM = HoppingConfig(temperature=1.0, step_size=0.5, max_step=1.0)
NETWORKS = {
    "xor2": lambda: surfaces.xor(2),
    "xor3": lambda: surfaces.xor(3),
    **{
        f"checker{units}_{l2}": lambda units=units, l2=l2: surfaces.checkerboard(units, float(l2))
        for units in (2, 3, 4)
        for l2 in ("1e-2", "1e-3")
    },
}
BOXES = {
    "mueller_brown": (surfaces.mueller_brown, [[-1.5, 1.2], [-0.2, 2.0]]),
    "camel": (surfaces.six_hump_camel, [[-3, 3], [-2, 2]]),
    "schwefel": (surfaces.schwefel, [[-500, 500]] * 2),
    "ackley": (surfaces.ackley, [[-32.768, 32.768]] * 2),
}
CONFIGS = {
    "camel": ExploreConfig(hopping=HoppingConfig(temperature=1.0)),
    "mueller_brown": ExploreConfig(hopping=HoppingConfig(temperature=50.0, step_size=0.5)),
    "schwefel": ExploreConfig(hopping=HoppingConfig(temperature=200.0, step_size=50.0, max_step=200.0)),
    "ackley": ExploreConfig(
        num_minima=10_000,
        num_searches=512,
        num_lanes=64,
        hopping=HoppingConfig(temperature=5.0, step_size=2.0, max_step=10.0),
    ),
}
COMPACT = ExploreConfig(hopping=WARM, hopping_steps=500, num_searches=64)
LARGE = ExploreConfig(num_minima=10_000, hopping=WARM, num_searches=256, num_lanes=16)


def problem(name: str, key: Any) -> tuple[Any, Any, Any, ExploreConfig, tuple[int, int]]:
    """Return objective, symmetry, the walkers' starts, settings and the true numbers of minima and saddles."""
    if name.startswith("lj"):
        size = int(name[2:])
        objective, group = surfaces.lennard_jones(size)
        starts = size ** (1 / 3) * jax.random.uniform(key, (8, objective.dim), minval=-0.8, maxval=0.8)
        return objective, group, starts, COMPACT if size < 10 else LARGE, LENNARD_JONES[size]
    truth = ORACLE[name]["minima"], ORACLE[name]["transition_states"]
    if name in NETWORKS:
        objective, group = NETWORKS[name]()
        # Small networks first to large ones: from weights near zero to saturated units.
        starts = 2 * jax.random.normal(key, (8, objective.dim)) * np.geomspace(0.05, 1, 8)[:, None]
        return objective, group, starts, ExploreConfig(), truth
    make, box = BOXES[name]
    low, high = np.array(box).T
    starts = jax.random.uniform(key, (8, 2), minval=low, maxval=high)
    return *make(), starts, CONFIGS[name], truth


def verdict(name: str, found: Any, truth: tuple[int, int]) -> tuple[int, int, str]:
    """Count what was found inside the box, and compare its energies with the oracle's."""
    groups = [(group.positions, np.sort(group.energies)) for group in (found.minima, found.transition_states)]
    if name in BOXES:
        low, high = np.array(BOXES[name][1]).T
        inside = [np.all((x > low) & (x < high), axis=1) for x, _ in groups]
        groups = [
            (group.positions[where], np.sort(group.energies[where]))
            for group, where in zip((found.minima, found.transition_states), inside, strict=True)
        ]
    counts = [len(energies) for _, energies in groups]
    if counts == list(truth):
        known = [ORACLE.get(name, {}).get(f"{kind}_energies") for kind in ("minimum", "transition_state")]
        agree = all(
            energies is None or np.allclose(mine, energies, rtol=1e-7, atol=1e-8)
            for (_, mine), energies in zip(groups, known, strict=True)
        )
        return *counts, "all, and nothing else" if agree else "OTHER ENERGIES"
    return *counts, f"{counts[0] - truth[0]:+d} minima, {counts[1] - truth[1]:+d} saddles"


def run(name: str, seed: int, budget: Budget) -> dict[str, Any]:
    key, start_key = jax.random.split(jax.random.key(seed))
    objective, group, starts, config, truth = problem(name, start_key)
    began, last = time.perf_counter(), {}

    def keep(exploration: Any) -> None:
        last["idle"] = exploration.idle

    found = explore(objective, group, starts, key, config, budget=budget, on_round=keep)
    took = time.perf_counter() - began
    minima, states, judged = verdict(name, found, truth)
    seen = coverage_of(found)
    return {
        "problem": name,
        "seed": seed,
        "minima": minima,
        "true minima": truth[0],
        "transition states": states,
        "true transition states": truth[1],
        "verdict": judged,
        "components": int(database.components(found).max()) + 1,
        "lowest": float(found.minima.energies.min()),
        "estimated unseen": [round(each.unseen, 1) for each in seen],
        "chance of more": coverage.chance_of_more(last["idle"]),
        "evaluations": found.ledger.evaluations,
        "seconds": took,
    }


def first_hit(seed: int, budget: Budget) -> dict[str, Any]:
    """Count the quenches of eight walkers until one is at the global minimum of LJ38."""
    objective, _ = surfaces.lennard_jones(38)
    key, start_key = jax.random.split(jax.random.key(seed))
    starts = jax.random.uniform(start_key, (8, objective.dim), minval=-2.6, maxval=2.6)
    config = HoppingConfig(temperature=0.8, step_size=0.4, max_step=0.6)
    walkers, quenches, began = basin_hopping.init(key, starts, config), 0, time.perf_counter()
    lowest, rounds = np.inf, 0
    while rounds < budget.rounds and time.perf_counter() - began < budget.seconds and lowest > LJ38 + 1e-4:
        rounds += 1
        walkers, buffer = basin_hopping.run(objective, walkers, config, num_steps=2000, capacity=8 * 251)
        count = int(buffer.count)
        energies = np.where(buffer.points.status[:count] == 1, buffer.points.energy[:count], np.inf)
        hits = np.flatnonzero(energies <= LJ38 + 1e-4)
        quenches += int(hits[0]) + 1 if hits.size else count
        lowest = min(lowest, float(energies.min()))
    return {
        "problem": "lj38",
        "seed": seed,
        "lowest": lowest,
        "hit": lowest <= LJ38 + 1e-4,
        "quenches": quenches,
        "seconds": time.perf_counter() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*NETWORKS, *BOXES, *(f"lj{size}" for size in LENNARD_JONES), "lj38"]
    parser.add_argument("problems", nargs="+", choices=names, metavar="PROBLEM", help=", ".join(names))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=2000, help="limit for each run")
    parser.add_argument("--seconds", type=float, default=600, help="limit for each run")
    parser.add_argument("--out", type=Path)
    options = arguments(parser, "checker4_1e-2 camel lj7 lj38 --seeds 1 --rounds 1 --out {folder}/completeness.json")
    jax.config.update("jax_enable_x64", True)
    heads = ["problem", "seed", "minima (of)", "saddles (of)", "verdict", "parts", "lowest", "estimated unseen"]
    heads += ["gradients", "s"]
    budget = Budget(rounds=options.rounds, seconds=options.seconds)
    rows, lines = [], []
    print(head(heads))
    for name in options.problems:
        for seed in range(options.seeds):
            if name == "lj38":
                row = first_hit(seed, budget)
                judged = f"{'hit after' if row['hit'] else 'NO HIT in'} {row['quenches']} quenches"
                cells = ["", "", judged, "", f"{row['lowest']:.6f}", "", ""]
            else:
                row = run(name, seed, budget)
                cells = [f"{row[k]} ({row[f'true {k}']})" for k in ("minima", "transition states")]
                cells += [row["verdict"], row["components"], f"{row['lowest']:.6f}"]
                cells += [", ".join(f"{value:g}" for value in row["estimated unseen"]), f"{row['evaluations']:.2e}"]
            rows.append(row)
            lines.append([name, seed, *cells, f"{row['seconds']:.0f}"])
            print(line(lines[-1]), flush=True)
            record(options.out, __doc__, rows, [table(heads, lines)])


if __name__ == "__main__":
    main()
