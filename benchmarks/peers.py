"""pele, topsearch and jaxscape on five networks: how long to as many distinct certified saddles?

    python -m venv pele && pele/bin/pip install pele==0.1.2
    python -m venv topsearch && topsearch/bin/pip install topsearch==0.0.3
    python benchmarks/peers.py --pele pele/bin/python --topsearch topsearch/bin/python --out peers.json

Tanh networks on points of a checkerboard. Every saddle that a peer finds is polished, certified and identified up to
symmetry as this library's own are, after its clock has stopped; what counts is when each distinct one was found first.
A program is compared with this library at the largest number that both have found. Peers run with the settings of
benchmarks/peer_search.py, one after the other, on as many cores as they use; their clock begins when they are imported,
this library's cold with nothing compiled (after `js.compile_fast`), warm with everything. It stops by itself, or when
their time is over. A Hessian-vector product counts as a gradient, a Hessian as one for each weight; peers take finite
differences. A peer whose python is not given is left out.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from results import head, line, record, table
from smoke import arguments

from jaxscape import Budget, ExploreConfig, certify, compile_fast, explore, surfaces, use_all_cores
from jaxscape.search.points import Status

# Units, L2, points.
PROBLEMS = ((3, "1e-3", 60), (4, "1e-2", 60), (4, "1e-3", 60), (4, "1e-3", 500), (6, "1e-3", 200))
STRATEGIES = {"pele": ("single", "both"), "topsearch": ("double",), "stand-in": ("single",)}
HEADS = ("units, L2, points", "program", "saddles", "minima", "s", "gradients per saddle")
COMPARED = ("at equal number", "s", "jaxscape's, warm; cold", "times as fast, warm; cold", "times the gradients")
_SAME = 1e-7  # relative: two saddles of one energy
_COMPILING = 15  # seconds that this library may have more, for its first run


class Finds(NamedTuple):
    """When the first, second, ... distinct saddle was found: `seconds`, `gradients` spent until then; `minima` in the
    end."""

    seconds: np.ndarray
    gradients: np.ndarray
    minima: int


def of_peer(python: Path, package: str, strategy: str, problem: Any, options: argparse.Namespace) -> tuple[str, Finds]:
    """Run a peer in its own environment; return its version and what it found."""
    units, l2, points = problem
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.npz"
        script = Path(__file__).parent / "peer_search.py"
        settings = ["--units", str(units), "--l2", l2, "--points", str(points), "--strategy", strategy]
        limits = ["--seconds", str(options.seconds), "--seed", str(options.seed), "--out", out]
        subprocess.run([python, script, package, *settings, *limits], check=True, capture_output=True)
        with np.load(out) as found:
            saddles, when, version = found["found_ts_positions"], found["found_ts_when"], str(found["version"])
            minima = found["minima_positions"]
    objective, symmetry = surfaces.checkerboard(units, float(l2), num_points=points)
    config = ExploreConfig()
    num_minima = len(certify.certified(objective, symmetry, minima, minima[:0], config).minima.energies)
    if len(saddles) == 0:
        return version, Finds(np.empty(0), np.empty(0), num_minima)
    polished = certify.polish(objective, saddles, 1, config).point
    good = polished.status == Status.CONVERGED
    energies, when = polished.energy[good], when[good]
    known: list[float] = []
    first = []
    for energy, at in zip(energies, when, strict=True):
        if all(abs(energy - other) > _SAME * max(abs(energy), 1) for other in known):
            known.append(energy)
            first.append(at)
    seconds, gradients = np.array(first).reshape(-1, 2).T
    return version, Finds(seconds, gradients, num_minima)


def of_jaxscape(problem: Any, options: argparse.Namespace) -> Finds:
    units, l2, points = problem
    objective, symmetry = surfaces.checkerboard(units, float(l2), num_points=points)
    key, start_key = jax.random.split(jax.random.key(options.seed))
    starts = 2 * jax.random.normal(start_key, (8, objective.dim)) * np.geomspace(0.05, 1, 8)[:, None]
    seconds: list[float] = []
    gradients: list[float] = []
    began = time.perf_counter()

    def on_round(exploration: Any) -> None:
        landscape = exploration.landscape
        new = len(landscape.transition_states.energies) - len(seconds)
        seconds.extend([time.perf_counter() - began] * new)
        gradients.extend([landscape.ledger.evaluations] * new)

    budget = Budget(rounds=options.rounds, seconds=options.seconds + _COMPILING)
    found = explore(objective, symmetry, starts, key, budget=budget, on_round=on_round)
    return Finds(np.array(seconds), np.array(gradients), len(found.minima.energies))


def row(problem: Any, program: str, finds: Finds, mine: dict[str, Finds] | None = None) -> dict[str, Any]:
    units, l2, points = problem
    number = len(finds.seconds)
    last = (float(finds.seconds[-1]), float(finds.gradients[-1]) / number) if number else (None, None)
    found = {
        "problem": f"{units}, {l2}, {points}",
        "program": program,
        "saddles": number,
        "minima": finds.minima,
        "seconds to the last": last[0],
        "gradients per saddle": last[1],
    }
    if mine is None or number == 0:
        return found
    equal = min(number, *(len(each.seconds) for each in mine.values()))
    warm, cold = (float(mine[name].seconds[equal - 1]) for name in ("warm", "cold"))
    peer, spent = float(finds.seconds[equal - 1]), float(finds.gradients[equal - 1])
    return found | {
        "equal number": equal,
        "seconds": peer,
        "seconds of jaxscape": [warm, cold],
        "times as fast": [peer / warm, peer / cold],
        "times the gradients": spent / float(mine["warm"].gradients[equal - 1]),
    }


def cells(row: dict[str, Any]) -> list[str]:
    shown = [row["problem"], row["program"], str(row["saddles"]), str(row["minima"])]
    numbers = ((row["seconds to the last"], ".1f"), (row["gradients per saddle"], ".0f"))
    shown += ["" if number is None else format(number, digits) for number, digits in numbers]
    if "equal number" not in row:
        return shown + [""] * len(COMPARED)
    pairs = ["; ".join(f"{value:.2g}" for value in row[name]) for name in ("seconds of jaxscape", "times as fast")]
    return [*shown, str(row["equal number"]), f"{row['seconds']:.1f}", *pairs, f"{row['times the gradients']:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pele", type=Path, help="python of an environment with pele")
    parser.add_argument("--topsearch", type=Path, help="python of an environment with topsearch")
    parser.add_argument("--stand-in", type=Path, help="python for a peer that does not search, to try this program")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=2000, help="of jaxscape, at most")
    parser.add_argument("--problems", type=int, default=len(PROBLEMS), help="only so many, from the first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    python = shlex.quote(sys.executable)
    options = arguments(parser, f"--stand-in {python} --problems 1 --seconds 1 --rounds 1 --out {{folder}}/peers.json")
    jax.config.update("jax_enable_x64", True)
    use_all_cores()
    compile_fast()
    pythons = {package: getattr(options, package.replace("-", "_")) for package in STRATEGIES}
    for package in ("pele", "topsearch"):
        if pythons[package] is None:
            print(f"<!-- {package} is left out: no --{package} -->")
    heads = (*HEADS, *COMPARED)
    rows: list[dict[str, Any]] = []
    lines: list[list[str]] = []
    print(head(heads))

    def done(found: dict[str, Any]) -> None:
        rows.append(found)
        lines.append(cells(found))
        print(line(lines[-1]), flush=True)
        record(options.out, __doc__, rows, [table(heads, lines)])

    for problem in PROBLEMS[: options.problems]:
        jax.clear_caches()
        mine = {name: of_jaxscape(problem, options) for name in ("cold", "warm")}
        for name, finds in mine.items():
            done(row(problem, f"jaxscape, {name}", finds))
        for package, python in pythons.items():
            for strategy in STRATEGIES[package] if python else ():
                version, finds = of_peer(python.absolute(), package, strategy, problem, options)
                done(row(problem, f"{package} {version}, {strategy}-ended", finds, mine))


if __name__ == "__main__":
    main()
