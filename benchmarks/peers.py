"""pele, topsearch and jaxscape on one network: what each stores, and what of it is distinct.

    python -m venv pele && pele/bin/pip install pele==0.1.2
    python -m venv topsearch && topsearch/bin/pip install topsearch==0.0.3
    python benchmarks/peers.py --pele pele/bin/python --topsearch topsearch/bin/python --out peers.json

The checkerboard network with 60 points and 4 units. Every point that a peer stored is polished, certified and
identified up to symmetry as this library's own are (`certify.certified`), after its clock has stopped. Peers run with
the settings of benchmarks/peer_search.py; the clock of all three includes starting up and compiling; this library stops
by itself. A peer whose python is not given is left out.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from results import head, line, record, table
from smoke import arguments

from jaxscape import Budget, ExploreConfig, certify, database, explore, surfaces

ORACLE = json.loads((Path(__file__).parents[1] / "tests" / "oracle.json").read_text())
STRATEGIES = {"pele": ("single", "both"), "topsearch": ("double",), "stand-in": ("single",)}
HEADS = ("L2", "program", "stored", "distinct minima", "distinct saddles", "parts", "gradients", "s")


def peer(python: Path, package: str, strategy: str, l2: str, seconds: float, seed: int) -> dict[str, Any]:
    """Run a peer in its own environment; return what it stored."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.npz"
        script = Path(__file__).parent / "peer_search.py"
        options = ["--units", "4", "--l2", l2, "--seconds", str(seconds), "--seed", str(seed), "--strategy", strategy]
        began = time.perf_counter()
        subprocess.run([python, script, package, *options, "--out", out], check=True, capture_output=True)
        took = time.perf_counter() - began
        with np.load(out) as found:
            names = ("version", "evaluations", "minima_positions", "ts_positions")
            return {name: found[name] for name in names} | {"seconds": took}


def row(program: str, l2: str, stored: str, found: Any, evaluations: int, seconds: float) -> dict[str, Any]:
    counts = len(found.minima.energies), len(found.transition_states.energies)
    return {
        "l2": l2,
        "program": program,
        "stored": stored,
        "minima": counts[0],
        "transition states": counts[1],
        "components": int(database.components(found).max()) + 1 if counts[0] else 0,
        "evaluations": evaluations,
        "seconds": seconds,
    }


def cells(row: dict[str, Any]) -> list[str]:
    counts = [str(row[name]) for name in ("minima", "transition states", "components")]
    density = 1000 * (row["minima"] + row["transition states"]) / max(row["evaluations"], 1)
    costs = [f"{row['evaluations']:.2e}", f"{row['seconds']:.0f}", f"{density:.3f}"]
    return [row["l2"], row["program"], row["stored"], *counts, *costs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pele", type=Path, help="python of an environment with pele")
    parser.add_argument("--topsearch", type=Path, help="python of an environment with topsearch")
    parser.add_argument("--stand-in", type=Path, help="python for a peer that does not search, to try this program")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--rounds", type=int, default=2000, help="of jaxscape, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    python = shlex.quote(sys.executable)
    options = arguments(parser, f"--stand-in {python} --seconds 1 --rounds 1 --out {{folder}}/peers.json")
    jax.config.update("jax_enable_x64", True)
    pythons = {package: getattr(options, package.replace("-", "_")) for package in STRATEGIES}
    for package in ("pele", "topsearch"):
        if pythons[package] is None:
            print(f"<!-- {package} is left out: no --{package} -->")
    heads = (*HEADS, "points / 1000 gradients")
    rows: list[dict[str, Any]] = []
    lines: list[list[str]] = []
    print(head(heads))

    def done(*what: Any) -> None:
        rows.append(row(*what))
        lines.append(cells(rows[-1]))
        print(line(lines[-1]), flush=True)
        record(options.out, __doc__, rows, [table(heads, lines)])

    for l2 in ("1e-2", "1e-3"):
        problem, group = surfaces.checkerboard(4, float(l2))
        truth = ORACLE[f"checker4_{l2}"]
        lines.append([l2, "brute force", "", truth["minima"], truth["transition_states"], "", "", "", ""])
        print(line(lines[-1]))
        key, start_key = jax.random.split(jax.random.key(options.seed))
        starts = 2 * jax.random.normal(start_key, (8, problem.dim)) * np.geomspace(0.05, 1, 8)[:, None]
        began = time.perf_counter()
        mine = explore(problem, group, starts, key, budget=Budget(rounds=options.rounds, seconds=options.seconds))
        seconds = time.perf_counter() - began
        counts = f"{len(mine.minima.energies)} + {len(mine.transition_states.energies)}"
        done("jaxscape", l2, counts, mine, mine.ledger.evaluations, seconds)
        for package, python in pythons.items():
            for strategy in STRATEGIES[package] if python else ():
                stored = peer(python.absolute(), package, strategy, l2, options.seconds, options.seed)
                minima, saddles = stored["minima_positions"], stored["ts_positions"]
                found = certify.certified(problem, group, minima, saddles, ExploreConfig())
                program = f"{package} {stored['version']}, {strategy}-ended"
                counts = f"{len(minima)} + {len(saddles)}"
                done(program, l2, counts, found, int(stored["evaluations"]), stored["seconds"])


if __name__ == "__main__":
    main()
