"""Do push-offs end where steepest descent ends? Against an accurate integration of the gradient flow.

    python benchmarks/push_off.py lj10 checkerboard --sides 2000 --out push_off.json

The oracle follows dx/dt = -gradient with SciPy's LSODA (relative tolerance 1e-9) from a push of 1e-3 along the unstable
mode until the gradient is small and the Hessian has no negative eigenvalue (some flows stand nearly still on a saddle
before they go on), then minimises with steps of at most 0.005. Two ends are the same if they agree up to
symmetry. Where push-off and flow disagree, the flow is followed again from a start 1e-6 away: if that changes where it
ends (on XOR many paths run along a mirror plane into another saddle), the side is undetermined and counted apart.
"""

import argparse
import functools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from results import head, line, record, table
from scipy.integrate import solve_ivp
from smoke import arguments

from jaxscape import (
    database,
    eigenvector_following,
    lbfgs,
    newton,
    objective,
    quench,
    steepest_descent,
    surfaces,
    symmetry,
)
from jaxscape.landscape.database import Points

SURFACES = {
    "lj8": (lambda: surfaces.lennard_jones(8), 1.5, 0.3),
    "lj10": (lambda: surfaces.lennard_jones(10), 1.5, 0.3),
    "lj13": (lambda: surfaces.lennard_jones(13), 1.7, 0.3),
    "xor": (lambda: surfaces.xor(4), 2.0, 1.5),
    "checkerboard": (lambda: surfaces.checkerboard(6), 2.0, 1.5),
    "checkerboard200": (lambda: surfaces.checkerboard(8, 1e-4, num_points=200), 2.0, 1.5),
}
_PUSH = 1e-3
_SMALL, _SMALLEST = 1e-5, 1e-9  # the largest component of the gradient where the flow is left
_LONGEST = 1e7


def transition_states(problem: Any, group: Any, scale: float, displacement: float, number: int) -> Any:
    """Find distinct saddles from random starts, polished."""
    found, key = None, jax.random.key(0)
    for _ in range(30):
        key, start_key, move_key, vector_key = jax.random.split(key, 4)
        starts = scale * jax.random.normal(start_key, (256, problem.dim))
        minima = quench(problem, starts, num_lanes=8).position
        starts = minima + displacement * jax.random.uniform(move_key, minima.shape, minval=-1.0)
        ends = eigenvector_following.search(
            problem, starts, jax.random.normal(vector_key, starts.shape), num_lanes=8
        ).point
        rows = np.zeros((256, problem.dim))
        good = np.flatnonzero(ends.status == 1)
        rows[: len(good)] = ends.position[good]
        new = jax.tree.map(np.asarray, newton.polish(problem, jnp.asarray(rows), index=1, num_lanes=4, count=len(good)))
        negative = np.sum(new.eigenvalues < 0, axis=1)
        good = np.flatnonzero((new.point.status == 1) & (negative == 1))
        new = jax.tree.map(lambda leaf, good=good: leaf[good], new)
        found = new if found is None else jax.tree.map(lambda a, b: np.concatenate([a, b]), found, new)
        points = Points(found.point.position, found.point.energy)
        none = Points(points.positions[:0], points.energies[:0])
        distinct = np.unique(database.identify(group, none, points))
        found = jax.tree.map(lambda leaf, distinct=distinct: leaf[distinct], found)
        if len(distinct) >= number:
            break
    found = jax.tree.map(lambda leaf: leaf[:number], found)
    return eigenvector_following.TransitionState(found.point, found.eigenvalues[:, 0], found.eigenvector)


def flow(start: np.ndarray, gradient: Any, lowest: Any, hessian: Any) -> np.ndarray:
    """Integrate the gradient flow until the gradient is small in a place that is convex."""
    bound = _SMALL

    def small(_: float, x: np.ndarray) -> float:
        return float(np.abs(gradient(x)).max()) - bound

    small.terminal, small.direction = True, -1
    x, time = start, 0.0
    while time < _LONGEST and bound >= _SMALLEST:
        solution = solve_ivp(
            lambda _, x: -gradient(x),
            (time, _LONGEST),
            x,
            method="LSODA",
            jac=lambda _, x: -hessian(x),
            rtol=1e-9,
            atol=1e-10,
            events=small,
        )
        x, time = solution.y[:, -1], solution.t[-1]
        if lowest(x) > 0:
            break
        bound /= 10
    return x


def ends_of_flow(problem: Any, starts: np.ndarray) -> Any:
    gradient = jax.jit(lambda x: objective.value_and_grad(problem, x)[1])
    hessian = jax.jit(functools.partial(objective.hessian, problem))

    @jax.jit
    def lowest(x: jax.Array) -> jax.Array:
        """The lowest eigenvalue besides those of the zero modes."""
        known = objective.zero_modes(problem, x)
        return jnp.linalg.eigvalsh(hessian(x) + 1e6 * known.T @ known)[0]

    ends = [
        flow(start, lambda x: np.asarray(gradient(x)), lambda x: float(lowest(x)), lambda x: np.asarray(hessian(x)))
        for start in starts
    ]
    settled = quench(problem, jnp.asarray(np.array(ends)), lbfgs.LbfgsConfig(max_step=0.005, max_evaluations=20000))
    return settled


def steepest(problem: Any, states: Any, *, num_lanes: int) -> Any:
    config = eigenvector_following.PushOffConfig(path=steepest_descent.PathConfig())
    return eigenvector_following.push_off(problem, states, config, num_lanes=num_lanes)


def lbfgs_alone(problem: Any, states: Any, *, num_lanes: int) -> Any:
    """What the library did before: a push of 0.02, then L-BFGS with steps of at most 0.1."""
    pushes = jnp.stack([-states.eigenvector, states.eigenvector]) * 0.02
    config = lbfgs.LbfgsConfig(max_step=0.1)
    minus, plus = (quench(problem, states.point.position + push, config, num_lanes=num_lanes) for push in pushes)
    return eigenvector_following.Connection(states, minus, plus)


def same(group: Any, one: Any, other: Any) -> np.ndarray:
    agree = np.abs(one.energy - other.energy) < 1e-6 * np.maximum(1, np.abs(other.energy))
    return np.array(
        [
            bool(ok) and symmetry.align(group, np.asarray(b), np.asarray(a)[None])[1][0] < 1e-2
            for ok, a, b in zip(agree, one.position, other.position, strict=True)
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("surfaces", nargs="+", choices=SURFACES)
    parser.add_argument("--sides", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    options = arguments(parser, "xor --sides 12 --out {folder}/push_off.json")
    jax.config.update("jax_enable_x64", True)
    heads = ["surface", "method", "sides", "end elsewhere", "undetermined", "gradients per side", "s"]
    rows, lines = [], []
    print(head(heads))
    for name in options.surfaces:
        make, scale, displacement = SURFACES[name]
        problem, group = make()
        states = transition_states(problem, group, scale, displacement, options.sides // 2)
        began = time.perf_counter()
        pushes = np.stack([-states.eigenvector, states.eigenvector], axis=1) * _PUSH
        starts = (states.point.position[:, None] + pushes).reshape(-1, problem.dim)
        truth = ends_of_flow(problem, starts)
        undetermined = np.zeros(len(starts), bool)
        print(f"<!-- {name}: gradient flow {time.perf_counter() - began:.0f} s -->", flush=True)
        states = jax.tree.map(jnp.asarray, states)
        methods = {"push_off": eigenvector_following.push_off, "push_off, path": steepest, "L-BFGS alone": lbfgs_alone}
        for method, run in methods.items():
            jax.block_until_ready(run(problem, states, num_lanes=8))
            began = time.perf_counter()
            found = jax.block_until_ready(run(problem, states, num_lanes=8))
            seconds = time.perf_counter() - began
            sides = jax.tree.map(
                lambda a, b: np.stack([a, b], axis=1).reshape(-1, *a.shape[1:]), found.minus, found.plus
            )
            differ = np.flatnonzero(~same(group, sides, truth) & ~undetermined)
            if differ.size:
                nudge = 1e-6 * np.random.default_rng(0).normal(size=(len(differ), problem.dim))
                again = ends_of_flow(problem, starts[differ] + nudge)
                undetermined[differ] = ~same(group, again, jax.tree.map(lambda leaf, at=differ: leaf[at], truth))
            wrong = int(np.sum(~undetermined[differ]))
            cost = float(np.mean(sides.num_evaluations))
            rows.append({"surface": name, "method": method, "sides": len(sides.energy), "wrong": wrong})
            rows[-1] |= {"undetermined": int(undetermined.sum()), "evaluations": cost, "seconds": seconds}
            counts = [len(sides.energy), wrong, undetermined.sum()]
            lines.append([name, method, *counts, f"{cost:.0f}", f"{seconds:.1f}"])
            print(line(lines[-1]), flush=True)
    record(options.out, __doc__, rows, [table(heads, lines)])


if __name__ == "__main__":
    main()
