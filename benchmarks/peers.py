"""pele, topsearch and jaxscape on one network: what each stores, and what of it is distinct. JSON and Markdown.

    python -m venv pele && pele/bin/pip install pele==0.1.2
    python -m venv topsearch && topsearch/bin/pip install topsearch==0.0.3
    python benchmarks/peers.py --pele pele/bin/python --topsearch topsearch/bin/python --out peers.json

The checkerboard network with 60 points and 4 units. Every point that a peer stored is polished, certified and
identified up to symmetry as this library's own are (`certify.certified`), after its clock has stopped. Peers run with
the settings of benchmarks/peer_search.py; the clock of all three includes starting up and compiling; this library stops
by itself.
"""

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxscape import Budget, ExploreConfig, certify, database, explore, surfaces

ORACLE = json.loads((Path(__file__).parents[1] / "tests" / "oracle.json").read_text())
STRATEGIES = {"pele": ("single", "both"), "topsearch": ("double",)}
HEADER = (
    "| L2 | program | stored | distinct minima | distinct saddles | parts | gradients | s | points / 1000 gradients |"
)


def peer(python: Path, package: str, strategy: str, l2: str, seconds: float, seed: int) -> dict[str, Any]:
    """Run a peer in its own environment; return what it stored."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.npz"
        script = Path(__file__).parent / "peer_search.py"
        options = ["--units", "4", "--l2", l2, "--seconds", str(seconds), "--seed", str(seed), "--strategy", strategy]
        began = time.perf_counter()
        subprocess.run([python, script, package, *options, "--out", out], check=True, capture_output=True)
        took = time.perf_counter() - began
        with np.load(out, allow_pickle=True) as found:
            return {name: found[name] for name in found.files} | {"seconds": took}


def row(program: str, l2: str, stored: str, found: Any, evaluations: int, seconds: float) -> dict[str, Any]:
    counts = len(found.minima.energies), len(found.transition_states.energies)
    parts = int(database.components(found).max()) + 1 if counts[0] else 0
    density = 1000 * sum(counts) / evaluations
    print(
        f"| {l2} | {program} | {stored} | {counts[0]} | {counts[1]} | {parts} | {evaluations:.2e} | {seconds:.0f} | "
        f"{density:.3f} |",
        flush=True,
    )
    return {
        "l2": l2,
        "program": program,
        "stored": stored,
        "minima": counts[0],
        "transition states": counts[1],
        "components": parts,
        "evaluations": evaluations,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pele", type=Path, required=True, help="python of an environment with pele")
    parser.add_argument("--topsearch", type=Path, required=True, help="python of an environment with topsearch")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    rows = []
    print(HEADER + "\n" + "|---" * HEADER.count(" | ") + "|---|")
    for l2 in ("1e-2", "1e-3"):
        problem, group = surfaces.checkerboard(4, float(l2))
        truth = ORACLE[f"checker4_{l2}"]
        print(f"| {l2} | brute force | | {truth['minima']} | {truth['transition_states']} | | | | |")
        key, start_key = jax.random.split(jax.random.key(options.seed))
        starts = 2 * jax.random.normal(start_key, (8, problem.dim)) * np.geomspace(0.05, 1, 8)[:, None]
        began = time.perf_counter()
        mine = explore(problem, group, starts, key, budget=Budget(rounds=2000, seconds=options.seconds))
        seconds = time.perf_counter() - began
        counts = f"{len(mine.minima.energies)} + {len(mine.transition_states.energies)}"
        rows.append(row("jaxscape", l2, counts, mine, mine.meta["evaluations"], seconds))
        for package, strategies in STRATEGIES.items():
            for strategy in strategies:
                python = getattr(options, package).absolute()
                stored = peer(python, package, strategy, l2, options.seconds, options.seed)
                minima, saddles = stored["minima_positions"], stored["ts_positions"]
                found = certify.certified(problem, group, minima, saddles, ExploreConfig())
                program = f"{package} {stored['version']}, {strategy}-ended"
                counts = f"{len(minima)} + {len(saddles)}"
                rows.append(row(program, l2, counts, found, int(stored["evaluations"]), stored["seconds"]))
    if options.out is not None:
        options.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
