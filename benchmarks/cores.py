"""What do more cores gain, and what does a Hessian cost?

    python benchmarks/cores.py --out benchmarks/results/cores.json

Each measurement has a process of its own, pinned to so many cores from its first line, and nothing else should run.
Exploring: rounds of hops, searches and descents at L2 1e-3, programs compiled before. Another number of cores may be
compiled to other roundings; the tests see to it that another number of threads is not.
Second derivatives, on one core: of `models.mlp`, which is taken apart behind its first layer, of the same model
when nothing is known of it, and of the loss when not even the rows are known; the fastest of ten.
"""

import argparse
import functools
import hashlib
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from results import Table, markdown, record, table
from smoke import arguments

EXPLORED = (((2, 4, 1), 500), ((20, 5, 1), 1000), ((30, 5, 1), 3500))
DERIVED = (((20, 5, 1), 1000), ((30, 5, 1), 3500), ((20, 8, 3), 400), ((64, 8, 10), 1500))


def pinned(function: Any, cores: int, *arguments: Any) -> Any:
    """Call a function in a process of its own that has so many cores."""
    allowed = set(sorted(os.sched_getaffinity(0))[:cores])
    with ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn"), initializer=os.sched_setaffinity, initargs=(0, allowed)
    ) as pool:
        return pool.submit(function, *arguments).result()


def made(sizes: tuple[int, ...], rows: int) -> Any:
    import jax
    import numpy as np

    import jaxscape as js

    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, sizes[0]))
    signal = x[:, 0] * x[:, 1] + x[:, -1]
    labels = (signal > 0).astype(float) if sizes[-1] == 1 else np.digitize(signal, np.linspace(-2, 2, sizes[-1] - 1))
    errors = js.losses.sigmoid_errors if sizes[-1] == 1 else js.losses.softmax_errors
    make = functools.partial(
        js.from_rows, errors=errors, params=js.models.init(jax.random.key(0), sizes), x=x, y=labels.astype(float)
    )
    return make, js.models.mlp("tanh")


def explored(sizes: tuple[int, ...], rows: int, rounds: int) -> dict[str, Any]:
    import jax

    import jaxscape as js
    from jaxscape.landscape import explore

    cores = js.use_all_cores()
    make, model = made(sizes, rows)
    objective, key = make(model, precision=2e-3), jax.random.key(1)
    config = js.ExploreConfig(num_lanes=4, num_searches=20, hopping_steps=500)
    starts = 2 * jax.random.normal(jax.random.key(3), (8, objective.dim))
    state = explore.start(objective, js.models.symmetry(sizes, "tanh"), starts, key, config)
    explore.compile_ahead(objective, state, config)
    began = time.perf_counter()
    for _ in range(rounds):
        state = explore.advance(objective, state, key, config)
    found, seconds = state.landscape, time.perf_counter() - began
    positions = found.minima.positions.tobytes() + found.transition_states.positions.tobytes()
    return {
        "network": "-".join(map(str, sizes)),
        "rows": rows,
        "cores": cores,
        "seconds": seconds,
        "minima": len(found.minima.energies),
        "transition_states": len(found.transition_states.energies),
        "gradients": int(found.ledger.evaluations),
        "digest": hashlib.sha256(positions).hexdigest(),
    }


def derived(sizes: tuple[int, ...], rows: int) -> dict[str, Any]:
    from dataclasses import replace

    import jax

    from jaxscape import objective

    make, model = made(sizes, rows)
    known = make(model, precision=2e-3)
    unknown = make(lambda params, x: model(params, x), precision=2e-3)
    loss = replace(known, outputs=None)
    x = jax.random.normal(jax.random.key(1), (known.dim,))

    def milliseconds(function: Any, of: Any) -> float:
        run = jax.jit(function)
        jax.block_until_ready(run(of, x))
        times = []
        for _ in range(10):
            began = time.perf_counter()
            jax.block_until_ready(run(of, x))
            times.append(time.perf_counter() - began)
        return 1e3 * min(times)

    return {
        "network": "-".join(map(str, sizes)),
        "rows": rows,
        "weights": known.dim,
        "gradient_ms": milliseconds(objective.value_and_grad, known),
        "hessian_ms": [milliseconds(objective.hessian, each) for each in (known, unknown, loss)],
        "gauss_newton_ms": [milliseconds(objective.gauss_newton, each) for each in (known, unknown)],
    }


def report(rows: list[dict[str, Any]]) -> list[Table]:
    explorations, derivatives = ([row for row in rows if ("cores" in row) == kind] for kind in (True, False))
    lines = []
    for row in explorations:
        alone = next(each for each in explorations if each["network"] == row["network"] and each["cores"] == 1)
        same = "yes" if row["digest"] == alone["digest"] else "NO"
        counts = [row[name] for name in ("minima", "transition_states")]
        times = f"{row['seconds']:.1f}", f"{alone['seconds'] / row['seconds']:.2f}"
        lines.append([row["network"], row["rows"], row["cores"], *times, *counts, f"{row['gradients']:,}", same])
    heads = ["network", "rows", "cores", "s", "times as fast as one", "minima", "transition states", "gradients"]
    found = [table([*heads, "the same to the bit"], lines, "Exploring.")]
    lines = []
    for row in derivatives:
        times = [f"{value:.2f}" for value in (row["gradient_ms"], *row["hessian_ms"], *row["gauss_newton_ms"])]
        lines.append([row["network"], row["rows"], row["weights"], *times])
    heads = ["network", "rows", "weights", "gradient", "Hessian", "of any model", "of any loss", "Gauss-Newton"]
    return [*found, table([*heads, "of any model"], lines, "Second derivatives on one core, in milliseconds.")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--networks", type=int, default=len(DERIVED), help="of each kind")
    parser.add_argument("--out", type=Path)
    options = arguments(parser, "--rounds 1 --networks 1 --out {folder}/cores.json")
    rows = []
    for sizes, number in EXPLORED[: options.networks]:
        for cores in sorted({1, len(os.sched_getaffinity(0))}):
            rows.append(pinned(explored, cores, sizes, number, options.rounds))
    for sizes, number in DERIVED[: options.networks]:
        rows.append(pinned(derived, 1, sizes, number))
    record(options.out, __doc__, rows, report(rows))
    print("\n\n".join(markdown(each) for each in report(rows)))


if __name__ == "__main__":
    main()
