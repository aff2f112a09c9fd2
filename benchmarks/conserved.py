"""Do models depend on their conserved weights more than on others? Data x criterion x intervention x control, by seed.

    python benchmarks/conserved.py breast_cancer checkerboard path/to/creditcard.csv --seeds 5 --out conserved.json

For each landscape, at the paper's penalty: the conserved input weights of a group of minima by each criterion (30 % of
them; for significance, those with a false discovery rate of at most 5 %), disturbed in the ten lowest minima of the
group in turn; the score is AUC or R² on held-out rows. Effect: how much lower the score is than for random sets of as
many input weights, in mean, and how often p <= 0.05; then against sets matched in magnitude. "superbasin" is the group
of `explain` where it has at least ten minima; "lowest" the hundred lowest minima, connected or not.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
from results import Table, markdown, record, table
from smoke import arguments

from jaxscape import conserved, disconnectivity, validation
from jaxscape.landscape.database import Landscape
from jaxscape.symmetry import Symmetry, input_weights
from jaxscape.table import datasets
from jaxscape.table.predict import scorer
from jaxscape.table.problem import PAPER, ExplainConfig, explore_landscape

CRITERIA = ("relative", "absolute", "significance", "magnitude")
NUM_DRAWS, NUM_SHUFFLES, NUM_NETS = 200, 20, 10


def groups(landscape: Landscape) -> Iterator[tuple[str, np.ndarray]]:
    energies, states = landscape.minima.energies, landscape.transition_states
    order = np.argsort(energies, kind="stable")
    if len(order) > 1:
        yield "lowest", order[:100]
    tree = disconnectivity.merge_tree(energies, states.energies, states.minima)
    labels = disconnectivity.superbasins(tree, disconnectivity.choose_level(tree, energies))
    members = order[labels[order] == labels[order[0]]]
    if len(members) >= 10:
        yield "superbasin", members


def masks(symmetry: Symmetry, weights: np.ndarray, candidates: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    one = np.zeros(len(weights), int)
    for criterion in CRITERIA:
        options: dict[str, Any] = {}
        if criterion == "significance":
            p_values = conserved.input_significance(np.random.default_rng(0), symmetry, weights)
            options = {"p_values": p_values[None], "by": "value", "threshold": 0.05}
        mask = conserved.conserved_weights(weights, one, criterion=criterion, candidates=candidates, **options).mask[0]
        if 1 < mask.sum() < candidates.sum():
            yield criterion, mask


def judge(data: str, config: ExplainConfig, landscapes: Path | None) -> Iterator[dict[str, Any]]:
    seed = config.seed
    dataset = datasets.prepare(datasets.load(data, seed=seed), seed=seed)
    checkpoint = None if landscapes is None else landscapes / f"{dataset.name.split('.')[0]}_{seed}.npz"
    made, landscape, *_ = explore_landscape(dataset, config, checkpoint=checkpoint, resume=True)
    symmetry = made.symmetry
    score = scorer(dataset, config.activation, made.objective.unravel, dataset.x_test, dataset.y_test)
    candidates = input_weights(symmetry)
    strata = jnp.where(jnp.asarray(candidates), 0, -1)
    for group, ids in groups(landscape):
        weights, _ = conserved.align_groups(
            symmetry, landscape.minima.positions[ids], landscape.minima.energies[ids], np.zeros(len(ids), int)
        )
        nets, mean = jnp.asarray(np.resize(weights, (NUM_NETS, symmetry.dim))), weights.mean(axis=0)
        matched = validation.magnitude_strata(jnp.asarray(mean), strata)
        for criterion, mask in masks(symmetry, weights, candidates):
            for intervention in get_args(validation.Intervention):
                for control, bins in (("random", strata), ("matched", matched)):
                    test = validation.permutation_test(
                        jax.random.key(seed),
                        score,
                        nets,
                        jnp.asarray(mask),
                        strata=strata,
                        control=bins,
                        intervention=intervention,
                        replacement=jnp.asarray(mean) if intervention == "replace" else None,
                        num_draws=NUM_DRAWS,
                        num_shuffles=NUM_SHUFFLES if intervention in ("shuffle", "resample") else NUM_NETS,
                    )
                    yield {
                        "data": dataset.name,
                        "seed": seed,
                        "group": group,
                        "members": len(ids),
                        "criterion": criterion,
                        "chosen": int(mask.sum()),
                        "candidates": int(candidates.sum()),
                        "intervention": intervention,
                        "control": control,
                        "baseline": float(test.baseline),
                        "conserved": float(test.conserved.mean()),
                        "random": float(test.random.mean()),
                        "p_value": float(test.p_value),
                        **validation.effect(test)._asdict(),
                    }


def report(rows: list[dict[str, Any]]) -> Table:
    kinds = dict.fromkeys((row["data"], row["group"], row["criterion"], row["intervention"]) for row in rows)
    heads = ["data", "group", "criterion", "intervention", "seeds", "score", "effect", "p <= 0.05", "matched: effect"]
    lines = []
    for kind in kinds:
        these = [row for row in rows if (row["data"], row["group"], row["criterion"], row["intervention"]) == kind]
        cells = [*kind, str(len({row["seed"] for row in these})), f"{np.mean([row['baseline'] for row in these]):.3f}"]
        for control in ("random", "matched"):
            sizes = [row["size"] for row in these if row["control"] == control]
            significant = sum(row["p_value"] <= 0.05 for row in these if row["control"] == control)
            cells += [f"{np.mean(sizes):+.3f} ({min(sizes):+.3f} to {max(sizes):+.3f})", str(significant)]
        lines.append(cells)
    return table([*heads, "p <= 0.05"], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", help="as for `jaxscape explain`")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--hidden", type=int, nargs="+", default=[5])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--landscapes", type=Path, help="folder to keep landscapes in, and to take them from")
    parser.add_argument("--out", type=Path)
    options = arguments(
        parser, "checkerboard --seeds 1 --hidden 3 --rounds 1 --landscapes {folder} --out {folder}/conserved.json"
    )
    jax.config.update("jax_enable_x64", True)
    rows: list[dict[str, Any]] = []
    for data in options.data:
        for seed in range(options.seeds):
            config = replace(PAPER, hidden=tuple(options.hidden), rounds=options.rounds, seed=seed)
            rows += judge(data, config, options.landscapes)
            print(f"<!-- {data} {seed} -->", flush=True)
            record(options.out, __doc__, rows, [report(rows)])
    print(markdown(report(rows)))


if __name__ == "__main__":
    main()
