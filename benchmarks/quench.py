"""What does a batch of minimisations cost? Refilled lanes against vmap of optax.lbfgs and SciPy one by one.

    python benchmarks/quench.py --starts 64 --out quench.json

A tanh network (5 hidden units, L2 1e-3) on the training rows of the breast cancer table, all from the same starts, to
an RMS gradient of 1e-6 (SciPy: largest component), compiled before the clock starts. Gradients are those computed,
useful or not: under vmap a finished member goes on computing until the slowest is done. Quality: the share of starts
that converged, and the mean loss.

And which minimiser at penalties such as the evidence chooses, one for each column? The Boston houses (350 rows, squared
errors in nats at the noise that the evidence found, most columns nearly off) and the breast cancer table (a random
penalty for each column, alpha 0.05 to 5), each by its own stopping rule.
"""

import argparse
import functools
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize
from results import markdown, record, table
from smoke import arguments

from jaxscape import Status, losses, objective, quench
from jaxscape.models import init, mlp
from jaxscape.search.gauss_newton import GaussNewtonConfig
from jaxscape.search.lbfgs import LbfgsConfig
from jaxscape.table import datasets
from jaxscape.table.problem import PAPER, problem

TOLERANCE, MAX_STEPS = 1e-6, 2000
# As MacKay's updates left them from the best of eight starts: of the columns, the hidden biases, the outgoing weights.
BOSTON_NOISE = 15.0
BOSTON = (166, 1e3, 1e3, 1e3, 21, 132, 1e3, 0.76, 1e3, 172, 1e3, 1e3, 74)
BOSTON_REST = (0.45, 0.05)


def lanes(problem: objective.Objective, starts: jax.Array, num_lanes: int) -> dict[str, Any]:
    run = functools.partial(quench, problem, config=LbfgsConfig(tolerance=TOLERANCE), num_lanes=num_lanes)
    found, seconds = timed(run, starts)
    return row(f"jaxscape, {num_lanes} lanes", found.energy, found.grad_rms, int(found.num_evaluations.sum()), seconds)


def vmapped_optax(problem: objective.Objective, starts: jax.Array) -> dict[str, Any]:
    solver = optax.lbfgs()
    fun = functools.partial(objective.value, problem)
    value_and_grad = optax.value_and_grad_from_state(fun)

    def minimise(x: jax.Array) -> tuple[jax.Array, ...]:
        def step(carry: Any) -> Any:
            x, state, steps, searches = carry
            value, grad = value_and_grad(x, state=state)
            updates, state = solver.update(grad, state, x, value=value, grad=grad, value_fn=fun)
            info = optax.tree.get(state, "num_linesearch_steps")
            return optax.apply_updates(x, updates), state, steps + 1, searches + info

        def going_on(carry: Any) -> jax.Array:
            grad = optax.tree.get(carry[1], "grad")
            return (carry[2] == 0) | ((jnp.sqrt(jnp.mean(grad**2)) > TOLERANCE) & (carry[2] < MAX_STEPS))

        x, state, _, searches = jax.lax.while_loop(going_on, step, (x, solver.init(x), 0, jnp.asarray(0)))
        return optax.tree.get(state, "value"), jnp.sqrt(jnp.mean(optax.tree.get(state, "grad") ** 2)), searches

    (energy, rms, searches), seconds = timed(jax.jit(jax.vmap(minimise)), starts)
    # Lower bound of what is computed: the batch runs until its slowest member is done.
    return row("vmap of optax.lbfgs (lower bound)", energy, rms, len(starts) * int(searches.max()), seconds)


def scipy_one_by_one(problem: objective.Objective, starts: jax.Array) -> dict[str, Any]:
    fun = jax.jit(functools.partial(objective.value_and_grad, problem))
    jax.block_until_ready(fun(starts[0]))
    options = {"gtol": TOLERANCE, "ftol": 0.0, "maxiter": MAX_STEPS, "maxfun": 4 * MAX_STEPS}
    began = time.perf_counter()
    found = [scipy.optimize.minimize(fun, x, jac=True, method="L-BFGS-B", options=options) for x in np.asarray(starts)]
    seconds = time.perf_counter() - began
    rms = np.array([np.sqrt(np.mean(result.jac**2)) for result in found])
    energy = np.array([result.fun for result in found])
    return row("SciPy L-BFGS-B, one by one", energy, rms, sum(result.nfev for result in found), seconds)


def gaussian(precision: jax.Array, outputs: jax.Array, y: jax.Array) -> jax.Array:
    return 0.5 * precision * (outputs[:, 0] - y) ** 2


def rows_of(
    x: np.ndarray, y: np.ndarray, errors: Any, columns: Any, rest: tuple[float, float], num_starts: int
) -> tuple[objective.Objective, jax.Array]:
    """Return the objective of a network with one alpha for each column, and starts."""
    sizes = (x.shape[1], 5, 1)
    params = init(jax.random.key(0), sizes)
    hidden, output = params
    alphas = (
        hidden._replace(weights=np.tile(np.array(columns)[:, None], (1, 5)), bias=np.full(5, rest[0])),
        output._replace(weights=np.full((5, 1), rest[1]), bias=np.full(1, rest[1])),
    )
    precision = np.asarray(objective.ravel(alphas)) / len(y)
    made = objective.from_rows(mlp("tanh"), errors, params, x, y, precision=precision)
    keys = jax.random.split(jax.random.key(0), num_starts)
    return made, jax.jit(jax.vmap(lambda key: objective.ravel(init(key, sizes))))(keys)


def minimisers(name: str, plain: objective.Objective, starts: jax.Array) -> list[dict[str, Any]]:
    white = objective.whiten(plain)
    rows = []
    for coordinates, made, points in (("", plain, starts), ("whitened", white, starts / white.scale)):
        for label, config in (("L-BFGS", LbfgsConfig()), ("Gauss-Newton", GaussNewtonConfig())):
            found, seconds = timed(functools.partial(quench, made, config=config), points)
            method = f"{label}, {coordinates}" if coordinates else label
            converged = float(np.mean(np.asarray(found.status) == Status.CONVERGED))
            per_start = float(np.mean(np.asarray(found.num_evaluations)))
            loss = float(np.mean(np.asarray(found.energy)))
            rows.append(
                {"table": name, "method": method, "converged": converged, "mean_loss": loss}
                | {"gradients_per_start": per_start, "seconds": seconds}
            )
    return rows


def at_evidence(num_starts: int) -> list[dict[str, Any]]:
    """Compare the minimisers at penalties of the evidence; boston comes with mlxtend, an extra of the judge."""
    cancer = datasets.prepare(datasets.load("breast_cancer"))
    columns = np.exp(np.random.default_rng(0).uniform(np.log(0.05), np.log(5), cancer.x_train.shape[1]))
    tumours = rows_of(cancer.x_train, cancer.y_train, losses.sigmoid_errors, columns, (0.3, 0.3), num_starts)
    found = minimisers("breast_cancer", *tumours)
    if importlib.util.find_spec("mlxtend") is None:
        return found
    from mlxtend.data import boston_housing_data

    x, y = boston_housing_data()
    kept = np.random.default_rng(0).permutation(len(y))[:350]
    x, y = ((values[kept] - values[kept].mean(axis=0)) / values[kept].std(axis=0) for values in (x, y))
    errors = jax.tree_util.Partial(gaussian, jnp.asarray(BOSTON_NOISE))
    return minimisers("boston", *rows_of(x, y, errors, BOSTON, BOSTON_REST, num_starts)) + found


def timed(run: Callable[[jax.Array], Any], starts: jax.Array) -> tuple[Any, float]:
    jax.block_until_ready(run(starts))
    began = time.perf_counter()
    result = jax.block_until_ready(run(starts))
    return result, time.perf_counter() - began


def row(name: str, energy: Any, rms: Any, gradients: int, seconds: float) -> dict[str, Any]:
    converged = float(np.mean(np.asarray(rms) <= 2 * TOLERANCE))
    loss = float(np.mean(np.asarray(energy)))
    return {"method": name, "converged": converged, "mean_loss": loss, "gradients": gradients, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=64)
    parser.add_argument("--out", type=Path)
    options = arguments(parser, "--starts 4 --out {folder}/quench.json")
    jax.config.update("jax_enable_x64", True)
    dataset = datasets.prepare(datasets.load("breast_cancer"))
    loss = problem(dataset, PAPER).objective
    keys = jax.random.split(jax.random.key(0), options.starts)
    sizes = (dataset.x_train.shape[1], *PAPER.hidden, 1)
    starts = jax.jit(jax.vmap(lambda key: objective.ravel(init(key, sizes))))(keys)
    rows = [lanes(loss, starts, 8), lanes(loss, starts, options.starts)]
    rows += [scipy_one_by_one(loss, starts), vmapped_optax(loss, starts)]
    found = table(
        ["method", "converged", "mean loss", "gradients per start", "s", "s relative to the first"],
        [
            (
                result["method"],
                f"{result['converged']:.0%}",
                f"{result['mean_loss']:.6f}",
                f"{result['gradients'] / options.starts:.0f}",
                f"{result['seconds']:.2f}",
                f"{result['seconds'] / rows[0]['seconds']:.2f}",
            )
            for result in rows
        ],
        f"{options.starts} starts, {loss.dim} weights",
    )
    penalised = at_evidence(options.starts)
    compared = table(
        ["table", "method", "converged", "mean loss", "gradients per start", "s"],
        [
            (
                result["table"],
                result["method"],
                f"{result['converged']:.0%}",
                f"{result['mean_loss']:.6f}",
                f"{result['gradients_per_start']:.0f}",
                f"{result['seconds']:.2f}",
            )
            for result in penalised
        ],
        f"{options.starts} starts, five units, penalties as the evidence chooses; a Hessian counts as many gradients "
        "as there are weights",
    )
    print(markdown(found), markdown(compared), sep="\n")
    record(options.out, __doc__, rows + penalised, [found, compared])


if __name__ == "__main__":
    main()
