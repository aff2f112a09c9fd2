"""When an exploration says that it is complete, is it?

    python benchmarks/claims.py truth --out benchmarks/claims_truth.json
    python benchmarks/claims.py --seeds 3 --out benchmarks/results/claims.json

Twenty small problems: networks of other activations, losses, depths and data than those that the library was made
with, and surfaces in two dimensions. `truth` finds all of their stationary points, of every index, by brute force that
shares no search with the library: capped Newton iterations up along a few modes of the Hessian, then
Levenberg-Marquardt on the squared gradient, from tens of thousands of starts of all scales, some of them with units
that are dead, equal or opposite. Two points are one where energy and spectrum of the Hessian are. The loss goes to
infinity in all directions, so that over all copies of all stationary points the sum of (-1)^index is 1 (Morse): where
it is, nothing but pairs of points can be missing.
"""

import argparse
import functools
import itertools
import json
import math
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from results import head, line, record, table
from smoke import arguments

import jaxscape as js
from jaxscape.landscape.exploration import Exploration
from jaxscape.landscape.stopping import Budget, stopped_by

TRUTH = Path(__file__).parent / "claims_truth.json"
_BATCH = 256
_SAME_ENERGY, _SAME_SPECTRUM = 1e-8, 1e-5  # relative
_ZERO = 1e-9  # curvature over the largest

Loss = Callable[[Any, Any], Any]


def layers(rng: np.random.Generator, sizes: tuple[int, ...], *, bias: bool = True) -> list[dict[str, Any]]:
    made = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layer = {"w": jnp.asarray(rng.normal(size=(fan_in, fan_out)))}
        made.append(layer | ({"b": jnp.zeros(fan_out)} if bias else {}))
    return made


def outputs(params: list[dict[str, Any]], x: Any, activation: Callable[[Any], Any]) -> Any:
    for layer in params[:-1]:
        x = activation(x @ layer["w"] + layer.get("b", 0.0))
    return x @ params[-1]["w"] + params[-1].get("b", 0.0)


def penalised(error: Callable[[Any, Any], Any], activation: Callable[[Any], Any], l2: float) -> Loss:
    def loss(params: Any, data: Any) -> Any:
        x, y = data
        squares = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
        return jnp.mean(error(outputs(params, x, activation), y)) + l2 * squares

    return loss


def logistic(z: Any, y: Any) -> Any:
    return jnp.logaddexp(0.0, z[:, 0]) - y * z[:, 0]


def softmax(z: Any, y: Any) -> Any:
    return jax.nn.logsumexp(z, axis=1) - jnp.take_along_axis(z, y[:, None], axis=1)[:, 0]


def squared(z: Any, y: Any) -> Any:
    return (z[:, 0] - y) ** 2


def checkered(rng: np.random.Generator, rows: int) -> Any:
    x = rng.uniform(-1.5, 1.5, (rows, 2))
    return jnp.asarray(x), jnp.asarray((np.sin(2 * x[:, 0]) * x[:, 1] > 0).astype(float))


def noisy(rng: np.random.Generator, rows: int) -> Any:
    x = rng.normal(size=(rows, 2))
    return jnp.asarray(x), jnp.asarray((x[:, 0] + rng.normal(size=rows) > 0).astype(float))


def ringed(rng: np.random.Generator, rows: int) -> Any:
    x = rng.uniform(-2, 2, (rows, 2))
    return jnp.asarray(x), jnp.asarray((np.hypot(*x.T) < 1.2).astype(float))


def thirds(rng: np.random.Generator, rows: int) -> Any:
    x = rng.normal(size=(rows, 2))
    return jnp.asarray(x), jnp.asarray(np.digitize(x[:, 0] + np.cos(2 * x[:, 1]), [0.0, 1.0]))


def wave(rng: np.random.Generator, rows: int) -> Any:
    x = rng.uniform(-2, 2, (rows, 1))
    return jnp.asarray(x), jnp.asarray(np.sin(2.5 * x[:, 0]) + 0.3 * rng.normal(size=rows))


def bump(rng: np.random.Generator, rows: int) -> Any:
    x = rng.uniform(-2, 2, (rows, 2))
    return jnp.asarray(x), jnp.asarray(np.exp(-np.sum(x**2, axis=1)) - 0.5 * x[:, 0] + 0.1 * rng.normal(size=rows))


def himmelblau(p: Any, _: Any) -> Any:
    x, y = p
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


def egg_box(p: Any, _: Any) -> Any:
    x, y = p
    return jnp.sin(3 * x) * jnp.cos(2 * y) + 0.3 * jnp.sin(x + 2 * y) + 0.15 * (x**2 + y**2) + 0.02 * (x**4 + y**4)


def wells(p: Any, _: Any) -> Any:
    centres = jnp.asarray(np.random.default_rng(5).uniform(-3, 3, (9, 2)))
    depths = jnp.asarray(np.random.default_rng(6).uniform(0.5, 2.0, 9))
    return 0.02 * jnp.sum(p**2) ** 2 - jnp.sum(depths * jnp.exp(-1.5 * jnp.sum((p - centres) ** 2, axis=1)))


def crossed_waves(p: Any, _: Any) -> Any:
    x, y = p
    return 0.03 * (x**4 + y**4) + jnp.cos(2 * x + y) + 0.7 * jnp.cos(2.5 * y - x) + 0.2 * x


PROBLEMS: dict[str, tuple[Any, ...]] = {  # data, rows, sizes, activation, error, L2; or a surface
    "tanh 2-2-1": (checkered, 40, (2, 2, 1), jnp.tanh, logistic, 3e-3),
    "tanh 2-2-1, noise": (noisy, 30, (2, 2, 1), jnp.tanh, logistic, 2e-3),
    "tanh 2-3-1": (checkered, 50, (2, 3, 1), jnp.tanh, logistic, 5e-3),
    "tanh 2-3-1, ring": (ringed, 60, (2, 3, 1), jnp.tanh, logistic, 2e-3),
    "sigmoid 2-2-1": (checkered, 40, (2, 2, 1), jax.nn.sigmoid, logistic, 1e-3),
    "sigmoid 2-3-1, ring": (ringed, 60, (2, 3, 1), jax.nn.sigmoid, logistic, 1e-3),
    "sigmoid 2-2-1, noise": (noisy, 30, (2, 2, 1), jax.nn.sigmoid, logistic, 1e-3),
    "softplus 2-2-1": (checkered, 40, (2, 2, 1), jax.nn.softplus, logistic, 3e-3),
    "softplus 2-3-1, ring": (ringed, 60, (2, 3, 1), jax.nn.softplus, logistic, 3e-3),
    "gelu 2-2-1": (checkered, 40, (2, 2, 1), jax.nn.gelu, logistic, 3e-3),
    "softmax of 3, tanh 2-2-3": (thirds, 60, (2, 2, 3), jnp.tanh, softmax, 3e-3),
    "no bias, tanh 2-3-1": (checkered, 50, (2, 3, 1), jnp.tanh, logistic, 2e-3, False),
    "no bias, sigmoid 2-3-1": (ringed, 50, (2, 3, 1), jax.nn.sigmoid, logistic, 1e-3, False),
    "deep, tanh 2-2-2-1": (checkered, 40, (2, 2, 2, 1), jnp.tanh, logistic, 5e-3),
    "squares, tanh 1-3-1": (wave, 40, (1, 3, 1), jnp.tanh, squared, 2e-3),
    "squares, sigmoid 2-2-1": (bump, 60, (2, 2, 1), jax.nn.sigmoid, squared, 5e-4),
    "Himmelblau": (himmelblau,),
    "egg box": (egg_box,),
    "nine wells": (wells,),
    "crossed waves": (crossed_waves,),
}


@functools.cache  # so that its programs are compiled once
def problem(name: str) -> tuple[js.Objective, js.Symmetry]:
    """Return the objective of a problem, and its symmetry as the library finds it."""
    if len(PROBLEMS[name]) == 1:
        return js.from_loss(PROBLEMS[name][0], jnp.zeros(2)), js.Symmetry((), 2)
    data, rows, sizes, activation, error, l2, *bias = PROBLEMS[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    params, given = layers(rng, sizes, bias=all(bias)), data(rng, rows)
    loss = penalised(error, activation, l2)
    return js.from_loss(loss, params, given), js.symmetry.of(params, loss, given)


def derivatives(objective: js.Objective) -> Callable[[Any], Any]:
    """Return energy, gradient and Hessian of a point, by JAX alone."""

    def energy(x: Any) -> Any:
        return objective.loss(objective.unravel(x), objective.data)

    def all_three(x: Any) -> Any:
        value, gradient = jax.value_and_grad(energy)(x)
        return value, gradient, jax.hessian(energy)(x)

    return all_three


@functools.partial(jax.jit, static_argnums=0)
def stationary(three: Callable[[Any], Any], x: Any, up: Any, cap: Any, damping: Any) -> Any:
    """Solve gradient = 0 from one start: Newton, up along the lowest `up` modes, then Levenberg-Marquardt."""

    def follow(_: Any, x: Any) -> Any:
        _, gradient, hessian = three(x)
        w, v = jnp.linalg.eigh(hessian)
        uphill = jnp.where(up < 0, w < 0, jnp.arange(x.size) < up)
        along = (gradient @ v) * jnp.where(uphill, -1.0, 1.0) / jnp.maximum(jnp.abs(w), 1e-8)
        length = jnp.linalg.norm(along)
        return x - (v @ along) * jnp.minimum(1.0, cap / (length + 1e-300))

    x = jax.lax.fori_loop(0, 40, follow, x)

    def improve(_: Any, state: Any) -> Any:
        x, gradient, hessian, damping = state
        matrix = hessian @ hessian
        matrix = matrix + (damping * jnp.trace(matrix) + 1e-200) * jnp.eye(x.size)
        trial = x - jnp.linalg.solve(matrix, hessian @ gradient)
        _, new, new_hessian = three(trial)
        better = jnp.sum(new**2) < jnp.sum(gradient**2)
        damping = jnp.maximum(damping * jnp.where(better, 0.2, 5.0), 1e-16)
        return (
            jnp.where(better, trial, x),
            jnp.where(better, new, gradient),
            jnp.where(better, new_hessian, hessian),
            damping,
        )

    _, gradient, hessian = three(x)
    x, gradient, hessian, _ = jax.lax.fori_loop(0, 80, improve, (x, gradient, hessian, damping))
    value, gradient, hessian = three(x)
    return x, value, jnp.abs(gradient).max(), jnp.linalg.eigvalsh(hessian)


def start_points(rng: np.random.Generator, symmetry: js.Symmetry, known: np.ndarray) -> np.ndarray:
    """Draw starts of all scales, some between known points, some with units that are dead, equal or opposite."""
    x = rng.normal(size=(_BATCH, symmetry.dim)) * np.exp(rng.uniform(-2.3, 2.1, (_BATCH, 1)))
    for layer in symmetry.layers:
        x[:, layer.units] *= np.exp(rng.normal(0, 0.7, (_BATCH, 1, layer.units.shape[1])))
    for row in np.flatnonzero(rng.random(_BATCH) < (0.4 if len(known) else 0.0)):
        a, b = known[rng.integers(len(known), size=2)]
        b = js.symmetry.random_copy(symmetry, a if rng.random() < 0.3 else b, rng)
        t, noise = rng.uniform(-0.2, 1.2), 10 ** rng.uniform(-3, 0.3)
        x[row] = (1 - t) * a + t * b + noise * rng.normal(size=symmetry.dim) * (rng.random() < 0.7)
    for row in np.flatnonzero(rng.random(_BATCH) < 0.3):
        for layer in symmetry.layers:
            units = x[row, layer.units]
            for unit in np.flatnonzero(rng.random(len(units)) < 0.5):
                units[unit] = rng.choice([-1, 0, 1] if symmetry.odd else [0, 1, 1]) * units[rng.integers(len(units))]
            x[row, layer.units] = units
    return x


def group_size(symmetry: js.Symmetry) -> int:
    return math.prod(
        math.factorial(len(each.bias)) * (2 if symmetry.odd else 1) ** len(each.bias) for each in symmetry.layers
    )


def truth_of(name: str, most: int, seconds: float) -> dict[str, Any]:
    """Find all stationary points of a problem by brute force."""
    jax.config.update("jax_enable_x64", True)
    objective, symmetry = problem(name)
    three = derivatives(objective)
    solve = jax.jit(jax.vmap(functools.partial(stationary, three)))
    rng, began = np.random.default_rng(1), time.perf_counter()
    known, energies = np.empty((0, symmetry.dim)), np.empty(0)
    spectra, hits = np.empty((0, symmetry.dim)), np.empty(0, int)
    done = last = 0
    while done < most and time.perf_counter() - began < seconds:
        x = start_points(rng, symmetry, known)
        up = rng.choice([-1, 0, 1, 1, 1, 2, 2, 3, 4], _BATCH)
        cap, damping = 10 ** rng.uniform(-1.3, 0.3, _BATCH), 10 ** rng.uniform(-8, 0, _BATCH)
        ends, values, largest, spectrum = (np.asarray(each) for each in solve(x, up, cap, damping))
        done += _BATCH
        scale = np.abs(spectrum).max(axis=1)
        for i in np.flatnonzero((largest <= 1e-11 * np.maximum(scale, 1)) & np.isfinite(ends).all(axis=1)):
            near = np.abs(energies - values[i]) <= _SAME_ENERGY * max(1, abs(values[i]))
            near &= np.abs(spectra - spectrum[i]).max(axis=1, initial=0) <= _SAME_SPECTRUM * scale[i]
            if near.any():
                hits[np.flatnonzero(near)[0]] += 1
                continue
            known, energies = np.vstack([known, ends[i]]), np.append(energies, values[i])
            spectra, hits, last = np.vstack([spectra, spectrum[i]]), np.append(hits, 1), done
        index = (spectra < -_ZERO * np.abs(spectra).max(axis=1, keepdims=True, initial=1e-300)).sum(axis=1)
        copies = [group_size(symmetry) // js.symmetry.point_group_order(symmetry, each) for each in known]
        morse = int(np.sum(np.array(copies) * (-1.0) ** index)) if len(copies) else 0
        low = hits[index <= 1]
        if morse == 1 and done >= 4 * last + 8000 and low.size and low.min() >= 3:
            break
    flat = np.abs(spectra).min(axis=1) <= _ZERO * np.abs(spectra).max(axis=1)
    return {
        "problem": name,
        "weights": symmetry.dim,
        "copies": group_size(symmetry),
        "minima": int(np.sum(index == 0)),
        "transition_states": int(np.sum(index == 1)),
        "by_index": np.bincount(index).tolist(),
        "morse": morse,
        "flat": int(flat.sum()),
        "rarest_hits": int(low.min()),
        "starts": done,
        "minimum_energies": np.sort(energies[index == 0]).tolist(),
        "transition_state_energies": np.sort(energies[index == 1]).tolist(),
        "seconds": time.perf_counter() - began,
    }


def claim_of(name: str, truth: dict[str, Any], seed: int, budget: Budget) -> dict[str, Any]:
    """Explore a problem as a user would, and judge what is said of the landscape."""
    objective, symmetry = problem(name)
    key, start_key = jax.random.split(jax.random.key(seed))
    starts = 2 * jax.random.normal(start_key, (8, objective.dim))
    config, last, began = js.ExploreConfig(), {}, time.perf_counter()

    def keep(exploration: Exploration) -> None:
        last["exploration"] = exploration

    found = js.explore(objective, symmetry, starts, key, config, budget=budget, on_round=keep)
    seconds = time.perf_counter() - began
    ended = stopped_by(last["exploration"], config, budget, seconds=seconds)

    def agree(mine: np.ndarray, known: list[float]) -> bool:
        return len(mine) == len(known) and np.allclose(np.sort(mine), known, rtol=1e-6, atol=1e-8)

    right = agree(found.minima.energies, truth["minimum_energies"]) and agree(
        found.transition_states.energies, truth["transition_state_energies"]
    )
    return {
        "problem": name,
        "seed": seed,
        "minima": len(found.minima.energies),
        "transition_states": len(found.transition_states.energies),
        "right": right,
        "claimed": ended == "complete",
        "stopped_by": ended,
        "gradients": int(found.ledger.evaluations),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["claims", "truth"], default="claims")
    parser.add_argument("--only", nargs="+", choices=list(PROBLEMS), metavar="PROBLEM", default=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--gradients", type=float, default=2e7, help="limit for each exploration")
    parser.add_argument("--seconds", type=float, default=120, help="limit for each")
    parser.add_argument("--starts", type=int, default=60_000, help="of the brute force, at most")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = arguments(parser, "--only Himmelblau --seeds 1 --gradients 3e4 --out {folder}/claims.json")
    jax.config.update("jax_enable_x64", True)
    if options.what == "truth":
        known = json.loads(options.out.read_text()) if options.out and options.out.exists() else {}
        with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
            work = functools.partial(truth_of, most=options.starts, seconds=options.seconds)
            for row in pool.map(work, options.only):
                known[row["problem"]] = row
                shown = {key: value for key, value in row.items() if not key.endswith("energies")}
                print(json.dumps(shown), flush=True)
                if options.out:
                    options.out.write_text(json.dumps(known, indent=1) + "\n")
        return
    truth = json.loads(TRUTH.read_text())
    budget = Budget(rounds=100_000, evaluations=options.gradients, seconds=options.seconds)
    columns = ["problem", "weights", "true", "found", "all found", "complete claimed", "wrongly", "gradients", "s"]
    rows, lines = [], []
    print(head(columns))
    for name in options.only:
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        runs = [claim_of(name, truth[name], seed, budget) for seed in seeds]
        rows += runs
        known = truth[name]
        wrong = sum(run["claimed"] and not run["right"] for run in runs)
        cells = [name, known["weights"], f"{known['minima']} + {known['transition_states']}"]
        cells += ["; ".join(f"{run['minima']} + {run['transition_states']}" for run in runs)]
        cells += [f"{sum(run['right'] for run in runs)} of {len(runs)}"]
        cells += [f"{sum(run['claimed'] for run in runs)} of {len(runs)}", wrong or ""]
        cells += [f"{np.median([run['gradients'] for run in runs]):.1e}"]
        cells += [f"{np.median([run['seconds'] for run in runs]):.1f}"]
        lines.append(cells)
        print(line(cells), flush=True)
        record(options.out, __doc__, rows, [table(columns, lines)])
    right, claimed = (sum(row[key] for row in rows) for key in ("right", "claimed"))
    wrong = sum(row["claimed"] and not row["right"] for row in rows)
    justly = sum(row["claimed"] and row["right"] for row in rows)
    print(f"{len(rows)} explorations: {right} found all, {justly} of them said so; {claimed} said so, {wrong} wrongly")


if __name__ == "__main__":
    main()
