"""Is XOR found whole, from any seed? Counts of stationary points against the exhaustive search, JSON and Markdown.

    python benchmarks/xor.py --seeds 10 --out xor.json

Two tanh units, L2 1e-3: 7 minima and 20 transition states up to symmetry. The first seed's seconds include compiling.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np

from jaxscape import ExploreConfig, database, explore, surfaces

TRUTH = {
    "minima": [0.08937791] * 2 + [0.39009593] * 4 + [0.69314718],
    "transition states": [0.40201506] * 8 + [0.51049753] * 4 + [0.5195851] * 4 + [0.69315236] * 4,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    objective, symmetry = surfaces.xor()
    config = ExploreConfig()
    rows = []
    print("| seed | minima (7) | transition states (20) | parts | as the exhaustive search | s |")
    print("|---|---|---|---|---|---|")
    for seed in range(options.seeds):
        key, start_key = jax.random.split(jax.random.key(seed))
        starts = jax.random.normal(start_key, (8, objective.dim))
        began = time.perf_counter()
        found = explore(objective, symmetry, starts, key, config)
        seconds = time.perf_counter() - began
        energies = {"minima": found.minima.energies, "transition states": found.transition_states.energies}
        same = all(
            len(energies[kind]) == len(truth) and np.allclose(np.sort(energies[kind]), truth, atol=1e-7)
            for kind, truth in TRUTH.items()
        )
        parts = int(database.components(found).max()) + 1
        rows.append({"seed": seed, **{kind: len(e) for kind, e in energies.items()}, "same": same, "seconds": seconds})
        counts = f"{len(energies['minima'])} | {len(energies['transition states'])}"
        print(f"| {seed} | {counts} | {parts} | {'yes' if same else 'NO'} | {seconds:.1f} |", flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
