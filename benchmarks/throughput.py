"""How many minimisations a second? Beside SciPy and pele, from the same starts to the same RMS gradient.

    python -m venv pele && pele/bin/pip install pele==0.1.2
    python benchmarks/throughput.py --pele pele/bin/python --out throughput.json

A tanh network of 8 units on 500 points of a checkerboard at two L2 strengths, and the Lennard-Jones cluster of 13
atoms. SciPy and pele minimise one by one, the network's loss in NumPy as benchmarks/peer_search.py has it, the
cluster's in pele's own C++. This library in one process, on one core and on all that it may use, in float64 and
float32, compiled before the clock starts; the best of three runs each. pele and this library remember four pairs of the
cluster and take steps of at most 0.1 there. Quality: the mean and the lowest energy reached.
`of bare`: the gradients per second that minimising leaves of those of `vmap(value_and_grad)` on as many cores.
"""

import argparse
import functools
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from peer_search import Loss
from smoke import arguments

TOLERANCE = 1e-5  # RMS gradient
UNITS, POINTS, ATOMS = 8, 500, 13
STRENGTHS = ("1e-3", "1e-4")
MAX_STEPS = 5000
LANES = 32
BEST_OF = 3


def jobs(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    network = 2 * rng.normal(size=(number, 4 * UNITS + 1))
    cluster = rng.uniform(-1.6, 1.6, size=(number, 3 * ATOMS))
    return {f"network, L2 {l2}": network for l2 in STRENGTHS} | {"Lennard-Jones 13": cluster}


def peer_job(name: str, starts: np.ndarray, package: str) -> dict[str, Any] | None:
    """Minimise one by one, in the peer's environment; None where it has no such function."""
    if name.startswith("network"):
        loss = Loss(UNITS, float(name.split()[-1]), points=POINTS)
        fun = loss.energy_gradient
    elif package != "pele":
        return None
    if package == "scipy":
        from scipy.optimize import minimize

        # Its test is of the largest component: looser by what the two differ by on average, about a factor of two.
        options = {"gtol": 2 * TOLERANCE, "ftol": 0.0, "maxiter": MAX_STEPS, "maxfun": 4 * MAX_STEPS, "maxcor": 10}
        minimise = functools.partial(minimize, fun, jac=True, method="L-BFGS-B", options=options)
        began = time.perf_counter()
        found = [minimise(x) for x in starts]
        seconds = time.perf_counter() - began
        energies, gradients = [each.fun for each in found], [each.jac for each in found]
        spent = sum(each.nfev for each in found)
    else:
        from pele.optimize import lbfgs_cpp
        from pele.potentials import LJ, BasePotential

        class Network(BasePotential):
            def getEnergy(self, x):
                return fun(x)[0]

            def getEnergyGradient(self, x):
                return fun(x)

        potential = Network() if name.startswith("network") else LJ()
        options = {"tol": TOLERANCE, "M": 10, "maxstep": 1.0, "maxErise": 1e-10, "nsteps": MAX_STEPS}
        if not name.startswith("network"):
            options |= {"maxstep": 0.1, "maxErise": 1e-4, "M": 4}
        began = time.perf_counter()
        found = [lbfgs_cpp(x, potential, **options) for x in starts]
        seconds = time.perf_counter() - began
        energies, gradients = [each.energy for each in found], [each.grad for each in found]
        spent = sum(each.nfev for each in found)
    return summary(name, package, np.array(energies), rms(np.array(gradients)), int(spent), seconds)


def rms(gradients: np.ndarray) -> np.ndarray:
    return np.sqrt(np.mean(gradients**2, axis=1))


def summary(job: str, program: str, energies: Any, rms: Any, gradients: int, seconds: float) -> dict[str, Any]:
    converged = np.asarray(rms) <= 2 * TOLERANCE
    return {
        "job": job,
        "program": program,
        "quenches per second": len(converged) / seconds,
        "gradients per quench": gradients / len(converged),
        "converged": float(converged.mean()),
        "mean energy": float(np.mean(np.asarray(energies, float))),
        "lowest": float(np.min(np.asarray(energies, float))),
    }


def peers(packages: dict[str, Path], number: int) -> list[dict[str, Any]]:
    """Run the peers, each in its own environment."""
    rows = []
    for package, python in packages.items():
        for name in jobs(1):
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "found.json"
                command = [python, __file__, "--peer", package, "--job", name, "--starts", str(number), "--out", out]
                subprocess.run(command, check=True, capture_output=True)
                rows.append(json.loads(out.read_text()))
    return [row for row in rows if row is not None]


def ours(name: str, starts: np.ndarray, dtype: str, cores: int) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp

    import jaxscape as js
    from jaxscape import objective
    from jaxscape.search.lbfgs import LbfgsConfig

    def best_of(run: Any, *args: Any) -> tuple[Any, float]:
        result, seconds = jax.block_until_ready(run(*args)), []
        for _ in range(BEST_OF):
            began = time.perf_counter()
            result = jax.block_until_ready(run(*args))
            seconds.append(time.perf_counter() - began)
        return result, min(seconds)

    with jax.enable_x64(dtype == "float64"):
        if name.startswith("network"):
            problem, _ = js.surfaces.checkerboard(UNITS, float(name.split()[-1]), num_points=POINTS)
        else:
            problem, _ = js.surfaces.lennard_jones(ATOMS)
        points = jnp.asarray(starts, dtype)
        js.use_all_cores(cores)
        of_cluster = {} if name.startswith("network") else {"max_step": 0.1, "history": 4}
        config = LbfgsConfig(TOLERANCE, **of_cluster)
        found, seconds = best_of(functools.partial(js.quench, problem, config=config), points)
        few, repeats = points[:LANES], 200

        @jax.jit
        def bare(x: jax.Array) -> jax.Array:
            grad = jax.vmap(functools.partial(objective.value_and_grad, problem))
            return jax.lax.fori_loop(0, repeats, lambda _, x: x - 1e-9 * grad(x)[1], x)

        _, per_block = best_of(lambda x: js.cores.spread(bare, [x] * cores), few)
    spent = int(np.asarray(found.num_evaluations).sum())
    row = summary(name, f"jaxscape, {dtype}, {cores} cores", found.energy, found.grad_rms, spent, seconds)
    return row | {"of bare": spent / seconds * per_block / (cores * len(few) * repeats)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pele", type=Path, help="python of an environment with pele")
    parser.add_argument("--starts", type=int, default=1024)
    parser.add_argument("--peer", choices=("scipy", "pele"), help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = arguments(parser, "--starts 4 --out {folder}/throughput.json")
    if options.peer:
        found = peer_job(options.job, jobs(options.starts)[options.job], options.peer)
        options.out.write_text(json.dumps(found))
        return
    import sys

    from results import markdown, record, table

    from jaxscape.cores import num_cores

    packages = {"scipy": Path(sys.executable)} | ({"pele": options.pele.absolute()} if options.pele else {})
    if options.pele is None:
        print("<!-- pele is left out: no --pele -->")
    rows = peers(packages, options.starts)
    for name, starts in jobs(options.starts).items():
        for cores in sorted({1, num_cores()}):
            rows += [ours(name, starts, dtype, cores) for dtype in ("float64", "float32")]
    rows.sort(key=lambda row: row["job"])
    best = {row["job"]: 0.0 for row in rows}
    for row in rows:
        if not row["program"].startswith("jaxscape"):
            best[row["job"]] = max(best[row["job"]], row["quenches per second"])
    found = table(
        [
            "job",
            "program",
            "quenches per second",
            "times the best peer",
            "gradients each",
            "converged",
            "mean",
            "lowest",
            "of bare",
        ],
        [
            (
                row["job"],
                row["program"],
                f"{row['quenches per second']:.0f}",
                f"{row['quenches per second'] / best[row['job']]:.2f}" if best[row["job"]] else "",
                f"{row['gradients per quench']:.0f}",
                f"{row['converged']:.1%}",
                f"{row['mean energy']:.5f}",
                f"{row['lowest']:.5f}",
                f"{row['of bare']:.2f}" if "of bare" in row else "",
            )
            for row in rows
        ],
        f"{options.starts} starts, to an RMS gradient of {TOLERANCE:g}",
    )
    print(markdown(found))
    record(options.out, __doc__, rows, [found])


if __name__ == "__main__":
    main()
