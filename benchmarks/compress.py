"""Can a network be compressed to its conserved weights? Open question 2 of Niroomand & Wales, arXiv:2304.02381.

    python benchmarks/compress.py breast_cancer checkerboard path/to/creditcard.csv --out compression.json

For each data set and seed: explore the landscape at the paper's penalty, align the lowest minima (at most 100) to the
best one, and rank its input weights by criterion: conserved (standard deviation over |mean|, low first), absolute
spread (standard deviation, low first), magnitude (in the best network, large first) and random (mean over 5 orders).
Then keep the first fraction of the ranking and minimise the training loss again from there, with the other input
weights fixed:

- zero: the others are set to zero and stay there; kept input weights, biases and output weights are free;
- freeze: the kept weights are set to zero and are the only free ones, all others stay as they are. It asks whether
  training only these weights recovers the network.

Judged by the held-out score (AUC, or R² in a regression) after minimising, and before it in brackets; mean over seeds.
"Ahead" is the score of conserved minus that of a rival, mean over the fractions below one, seed by seed; the same for
the training loss, which tells apart where scores are saturated. The best network comes from the training rows alone;
nothing is tuned per data set or criterion. With 10 input weights (checkerboard) the two smallest fractions are the same
one weight. In the figure the bands of random are those of its means over orders, and so too narrow to compare.
"""

import argparse
import functools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from results import Table, markdown, record, table
from smoke import arguments

import jaxscape as js
from jaxscape import conserved
from jaxscape.table import datasets
from jaxscape.table.predict import scorer
from jaxscape.table.problem import PAPER, ExplainConfig, explore_landscape

FRACTIONS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
CRITERIA = ("conserved", "absolute spread", "magnitude", "random")
MODES = ("zero", "freeze")
MAX_MINIMA, NUM_RANDOM, NUM_LANES = 100, 5, 8
# Scores are read to three digits: no need for the accuracy of a stored minimum.
QUENCH = js.lbfgs.LbfgsConfig(tolerance=1e-7, max_evaluations=5000)
STYLES = {
    "conserved": ("#d1495b", "-", "o"),
    "absolute spread": ("#edae49", "-.", "s"),
    "magnitude": ("#30638e", "--", "^"),
    "random": ("#6b7280", ":", "D"),
}


class Restricted(NamedTuple):
    """Data of a restricted loss: which weights are `free (P,)`, the values of the others, the data of the loss."""

    free: Bool[Array, " P"]
    fixed: Float[Array, " P"]
    data: Any


class Job(NamedTuple):
    """One kept set: criterion, fraction and mode; which weights are `free (P,)`, and the `start (P,)`."""

    criterion: str
    fraction: float
    mode: str
    free: np.ndarray
    start: np.ndarray


def restrict(objective: js.Objective, free_mask: Bool[Array, " P"], fixed: Float[Array, " P"]) -> js.Objective:
    """Return the objective of the free weights, the others held at `fixed`; of the same dimension, traced masks."""
    loss = _restricted_loss(objective.loss, objective.unravel)
    return js.from_loss(loss, jnp.zeros(objective.dim, fixed.dtype), Restricted(free_mask, fixed, objective.data))


@functools.cache
def _restricted_loss(loss: Callable[[Any, Any], Array], unravel: Callable[[Array], Any]) -> Callable[[Any, Any], Array]:
    """Return one and the same function for the same problem, so that its compiled code is shared."""

    def restricted(x: Float[Array, " P"], data: Restricted) -> Float[Array, ""]:
        return loss(unravel(jnp.where(data.free, x, data.fixed)), data.data)

    return restricted


@jax.jit
def quench_all(objective: js.Objective, free: Bool[Array, "n P"], starts: Float[Array, "n P"]) -> js.StationaryPoint:
    """Minimise from every start over its own free weights, a few at a time."""

    def one(job: tuple[Array, Array]) -> js.StationaryPoint:
        part = restrict(objective, *job)
        return jax.tree.map(lambda leaf: leaf[0], js.quench(part, job[1][None], QUENCH, num_lanes=1))

    return jax.lax.map(one, (free, starts), batch_size=NUM_LANES)


def rankings(
    weights: Float[np.ndarray, "m P"], inputs: Int[np.ndarray, " n"], seed: int
) -> dict[str, list[np.ndarray]]:
    """Order the input weights by each criterion, the first to keep first; `weights`: aligned minima, the best first."""
    mean, std = weights[:, inputs].mean(axis=0), weights[:, inputs].std(axis=0)
    keys = {
        "conserved": std / np.maximum(np.abs(mean), np.finfo(float).tiny),
        "absolute spread": std,
        "magnitude": -np.abs(weights[0, inputs]),
    }
    rng = np.random.default_rng(seed)
    found = {name: [inputs[np.argsort(key, kind="stable")]] for name, key in keys.items()}
    return found | {"random": [rng.permutation(inputs) for _ in range(NUM_RANDOM)]}


def make_jobs(
    best: Float[np.ndarray, " P"], inputs: Int[np.ndarray, " n"], orders: dict[str, list[np.ndarray]]
) -> list[Job]:
    jobs = []
    others = ~np.isin(np.arange(best.size), inputs)
    for criterion, some in orders.items():
        for order in some:
            for fraction in FRACTIONS:
                kept = np.isin(np.arange(best.size), order[: max(round(fraction * inputs.size), 1)])
                jobs.append(Job(criterion, fraction, "zero", kept | others, np.where(kept | others, best, 0)))
                jobs.append(Job(criterion, fraction, "freeze", kept, np.where(kept, 0, best)))
    return jobs


def means(jobs: list[Job], values: Float[np.ndarray, " n"]) -> dict[str, dict[str, list[float]]]:
    """Average over orders: a value per fraction, for each criterion of each mode."""

    def one(mode: str, criterion: str, fraction: float) -> float:
        wanted = (criterion, fraction, mode)
        return float(np.mean([value for job, value in zip(jobs, values, strict=True) if job[:3] == wanted]))

    return {
        mode: {criterion: [one(mode, criterion, fraction) for fraction in FRACTIONS] for criterion in CRITERIA}
        for mode in MODES
    }


def judge(dataset: datasets.Dataset, config: ExplainConfig, checkpoint: Path | None) -> dict[str, Any] | None:
    """Compress the best network of one landscape in every way; None where there is no spread to judge by."""
    made, landscape, *_ = explore_landscape(dataset, config, checkpoint=checkpoint, resume=True)
    objective, symmetry = made.objective, made.symmetry
    began = time.perf_counter()
    lowest = np.argsort(landscape.minima.energies, kind="stable")[:MAX_MINIMA]
    if len(lowest) < 2:
        return None
    energies, positions = landscape.minima.energies[lowest], landscape.minima.positions[lowest]
    weights, _ = conserved.align_groups(symmetry, positions, energies, np.zeros(len(lowest), int))
    inputs = symmetry.layers[0].incoming.ravel()
    orders = rankings(weights, inputs, config.seed)
    jobs = make_jobs(weights[0], inputs, orders)
    free, starts = (jnp.asarray(np.stack(parts)) for parts in zip(*[job[3:] for job in jobs], strict=True))
    found = quench_all(objective, free, starts)
    score = jax.jit(jax.vmap(scorer(dataset, config.activation, objective.unravel, dataset.x_test, dataset.y_test)))
    status = np.asarray(found.status)
    half = inputs.size // 2
    return {
        "data": stem(dataset),
        "seed": config.seed,
        "minima": len(lowest),
        "input_weights": inputs.size,
        "score": float(score(jnp.asarray(weights[:1]))[0]),
        "loss": float(energies[0]),
        "fractions": FRACTIONS,
        "before": means(jobs, np.asarray(score(starts))),
        "after": means(jobs, np.asarray(score(found.position))),
        "loss_after": means(jobs, np.asarray(found.energy)),
        "converged": float(np.mean(status == js.Status.CONVERGED)),
        # Of the first half of each ranking, the share also in that of the conserved weights: chance is one half.
        "shared_half": {
            name: float(np.mean([np.isin(order[:half], orders["conserved"][0][:half]).mean() for order in some]))
            for name, some in orders.items()
        },
        "seconds": time.perf_counter() - began,
    }


def stem(dataset: datasets.Dataset) -> str:
    return Path(dataset.name).name.split(".")[0]


def curves(rows: list[dict[str, Any]], data: str, kind: str, mode: str, criterion: str) -> Float[np.ndarray, "seeds n"]:
    return np.array([row[kind][mode][criterion] for row in rows if row["data"] == data])


def names(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["data"] for row in rows))


def scores_table(rows: list[dict[str, Any]], mode: str) -> Table:
    lines = []
    for data in names(rows):
        full = np.mean([row["score"] for row in rows if row["data"] == data])
        after, before = (
            [curves(rows, data, kind, mode, criterion).mean(axis=0) for criterion in CRITERIA]
            for kind in ("after", "before")
        )
        for i, fraction in enumerate(FRACTIONS):
            cells = [f"{a[i]:.3f} ({b[i]:.3f})" for a, b in zip(after, before, strict=True)]
            lines.append([data, f"{fraction:.0%}", f"{full:.3f}", *cells])
    heads = ["data", "kept", "full network", *CRITERIA]
    return table(heads, lines, f"**{mode}**: held-out score after minimising again (before it)")


def ahead_table(rows: list[dict[str, Any]], kind: str, what: str) -> Table:
    """How far conserved is better than each rival: mean, range over seeds, and in how many seeds above zero."""
    sign = -1 if kind == "loss_after" else 1
    rivals = CRITERIA[1:]
    lines = []
    for data in names(rows):
        own = curves(rows, data, kind, "zero", "conserved")
        cells = []
        for rival in rivals:
            ahead = sign * (own - curves(rows, data, kind, "zero", rival))[:, :-1].mean(axis=1)
            wins = f"{int(np.sum(ahead > 0))} of {len(ahead)} seeds"
            cells.append(f"{ahead.mean():+.3f} ({ahead.min():+.3f} to {ahead.max():+.3f}; {wins})")
        lines.append([data, len(own), *cells])
    heads = ["data", "seeds", *(f"ahead of {rival}" for rival in rivals)]
    return table(heads, lines, f"**zero**: conserved ahead in {what}, mean over fractions below one")


def shared_table(rows: list[dict[str, Any]]) -> Table:
    lines = []
    for data in names(rows):
        shared = [row["shared_half"] for row in rows if row["data"] == data]
        lines.append([data, *(f"{np.mean([row[name] for row in shared]):.0%}" for name in CRITERIA[1:])])
    caption = "Of the first half of each ranking, also in the first half of the conserved weights"
    return table(["data", *CRITERIA[1:]], lines, caption)


def report(rows: list[dict[str, Any]]) -> list[Table]:
    return [
        *(scores_table(rows, mode) for mode in MODES),
        ahead_table(rows, "after", "held-out score"),
        ahead_table(rows, "loss_after", "training loss (positive: conserved is lower)"),
        shared_table(rows),
    ]


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the scores after minimising in mode zero: a panel per data set, bands from lowest to highest seed."""
    mpl.use("Agg")
    data = names(rows)
    figure, axes = plt.subplots(1, len(data), figsize=(4.2 * len(data), 3.8), squeeze=False, layout="constrained")
    for ax, name in zip(axes[0], data, strict=True):
        _panel(ax, rows, name)
    axes[0, 0].set_ylabel("held-out score")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _panel(ax: plt.Axes, rows: list[dict[str, Any]], data: str) -> None:
    for criterion, (colour, line, marker) in STYLES.items():
        scores = curves(rows, data, "after", "zero", criterion)
        ax.fill_between(FRACTIONS, scores.min(axis=0), scores.max(axis=0), color=colour, alpha=0.12, linewidth=0)
        ax.plot(FRACTIONS, scores.mean(axis=0), line, color=colour, marker=marker, markersize=4.5, label=criterion)
    full = [row["score"] for row in rows if row["data"] == data]
    ax.axhline(np.mean(full), color="black", linewidth=0.8, label="full network")
    ax.set_xscale("log")
    ax.set_xticks(FRACTIONS, [f"{100 * fraction:.0f}" for fraction in FRACTIONS])
    ax.minorticks_off()
    ax.set_xlabel("input weights kept, %")
    ax.set_title(f"{data}, {len(full)} seed{'s' * (len(full) > 1)}", fontsize=11)
    ax.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--hidden", type=int, nargs="+", default=[5])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--landscapes", type=Path, help="folder to keep landscapes in, and to take them from")
    parser.add_argument("--no-explore", action="store_true", help="skip what is not in the folder")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figure", type=Path)
    options = arguments(
        parser,
        "checkerboard --seeds 0 --hidden 3 --rounds 1 --landscapes {folder} --out {folder}/compress.json "
        "--figure {folder}/compress.png",
    )
    jax.config.update("jax_enable_x64", True)
    rows: list[dict[str, Any]] = []
    for name in options.data:
        for seed in options.seeds:
            dataset = datasets.prepare(datasets.load(name, seed=seed), seed=seed)
            place = None if options.landscapes is None else options.landscapes / f"{stem(dataset)}_{seed}.npz"
            if options.no_explore and (place is None or not place.exists()):
                print(f"<!-- {stem(dataset)} {seed}: skipped, no landscape -->", flush=True)
                continue
            config = replace(PAPER, hidden=tuple(options.hidden), rounds=options.rounds, seed=seed)
            row = judge(dataset, config, place)
            if row is None:
                print(f"<!-- {stem(dataset)} {seed}: skipped, fewer than two minima -->", flush=True)
                continue
            rows.append(row)
            done = f"{row['minima']} minima, {row['converged']:.1%} converged, {row['seconds']:.0f} s"
            print(f"<!-- {stem(dataset)} {seed}: {done} -->", flush=True)
            record(options.out, __doc__, rows, report(rows))
    if rows:
        print("\n\n".join(map(markdown, report(rows))))
    if rows and options.figure is not None:
        draw(rows, options.figure)


if __name__ == "__main__":
    main()
