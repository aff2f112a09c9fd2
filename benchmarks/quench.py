"""What does a batch of minimisations cost? Refilled lanes against vmap of optax.lbfgs and SciPy one by one.

    python benchmarks/quench.py --starts 64 --out quench.json

A tanh network (5 hidden units, L2 1e-3) on the training rows of the breast cancer table, all from the same starts, to
an RMS gradient of 1e-6 (SciPy: largest component), compiled before the clock starts. Gradients are those computed,
useful or not: under vmap a finished member goes on computing until the slowest is done. Quality: the share of starts
that converged, and the mean loss.
"""

import argparse
import functools
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

from jaxscape import datasets, objective, quench
from jaxscape.explain import ExplainConfig, problem
from jaxscape.models import init
from jaxscape.search.lbfgs import LbfgsConfig

TOLERANCE, MAX_STEPS = 1e-6, 2000


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
    loss, *_ = problem(dataset, ExplainConfig())
    keys = jax.random.split(jax.random.key(0), options.starts)
    sizes = (dataset.x_train.shape[1], *ExplainConfig().hidden, 1)
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
    print(markdown(found))
    record(options.out, __doc__, rows, [found])


if __name__ == "__main__":
    main()
