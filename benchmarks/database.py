"""Does the database stay quick when it is large? Made-up points: insert, merge, save, load, cut.

python benchmarks/database.py --minima 100000 --transition-states 1000000 --dim 24 --out database.json
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from results import head, line, record, table
from smoke import arguments

from jaxscape import Symmetry, database, disconnectivity
from jaxscape.landscape.database import Minima, TransitionStates


def made_up_minima(rng: np.random.Generator, number: int, dim: int) -> Minima:
    positions, ones = rng.normal(size=(number, dim)), np.ones(number, int)
    energies = rng.normal(size=number)
    return Minima(positions, energies, 1.0 * ones, positions, 0.0 * ones, 0.0 * ones, ones, 0 * ones)


def made_up_states(rng: np.random.Generator, number: int, dim: int, minima: Minima) -> TransitionStates:
    positions, ones = rng.normal(size=(number, dim)), np.ones(number, int)
    pairs = np.sort(rng.integers(len(minima.energies), size=(number, 2)), axis=1)
    energies = minima.energies[pairs].max(axis=1) + rng.exponential(size=number)
    return TransitionStates(positions, energies, -1.0 * ones, positions, 0.0 * ones, 0.0 * ones, pairs, ones)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minima", type=int, default=100_000)
    parser.add_argument("--transition-states", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=24)
    parser.add_argument("--out", type=Path)
    options = arguments(parser, "--minima 1000 --transition-states 5000 --dim 6 --out {folder}/database.json")
    rng = np.random.default_rng(0)
    rows: dict[str, float] = {}
    columns = ("what", "s")
    print(f"{options.minima} minima, {options.transition_states} transition states, {options.dim} dimensions\n")
    print(head(columns))

    def timed(name: str, what: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = what()
        rows[name] = time.perf_counter() - began
        print(line((name, f"{rows[name]:.2f}")), flush=True)
        return result

    minima = made_up_minima(rng, options.minima, options.dim)
    states = made_up_states(rng, options.transition_states, options.dim, minima)
    # All points are different, so the database can be put together without looking for copies.
    large = database.empty(Symmetry((), dim=options.dim))._replace(minima=minima, transition_states=states)
    new = made_up_minima(rng, 1000, options.dim)
    mixed = Minima(*(np.concatenate([a[:500], b[:500]]) for a, b in zip(minima, new, strict=True)))
    larger, ids = timed("insert 1,000 minima, half of them known", lambda: database.insert_minima(large, mixed))
    assert ids[:500].tolist() == list(range(500))
    assert len(larger.minima.energies) == options.minima + 500
    # The first insert gets its memory from the system; later ones, as in an exploration, reuse what the last one left.
    grown = large
    for name in ["insert 1,000 transition states, first", *[f"the same, {again}" for again in ("second", "third")]]:
        fresh = made_up_states(rng, 1000, options.dim, minima)
        grown, _ = timed(name, lambda grown=grown, fresh=fresh: database.insert_transition_states(grown, fresh))
    del grown
    timed("components", lambda: database.components(large))
    tree = timed("merge tree", lambda: disconnectivity.merge_tree(minima.energies, states.energies, states.minima))
    timed("superbasins at one level", lambda: disconnectivity.superbasins(tree, float(np.median(tree.energies))))
    tenth = options.minima // 10
    ends = np.all(states.minima < tenth, axis=1)
    small = large._replace(
        minima=Minima(*(field[:tenth] for field in minima)),
        transition_states=TransitionStates(*(field[ends] for field in states)),
    )
    merged = timed("merge with a tenth of itself", lambda: database.merge(large, small))
    assert len(merged.minima.energies) == options.minima
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.npz"
        timed("save", lambda: database.save(path, large))
        timed("load", lambda: database.load(path))
        rows["file MB"] = path.stat().st_size / 1e6
    rows["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    arrays = sum(field.nbytes for group in (minima, states) for field in group) / 1e6
    print(f"\narrays {arrays:.0f} MB, peak memory of the whole run {rows['peak MB']:.0f} MB")
    record(options.out, __doc__, rows, [table(columns, [(name, f"{value:.2f}") for name, value in rows.items()])])


if __name__ == "__main__":
    main()
