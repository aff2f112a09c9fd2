"""Do conserved weights tell anything where a few minima are left, and their spread is that within wells?

    python benchmarks/wells.py --half choose --out wells-choose.json
    python benchmarks/wells.py --half report --out wells.json

The tables of the judge, without its grid and the digits, at the penalties that the data support: the group of minima
that `explain` compares, weights of columns in use alone, as the others are fixed at zero. Each criterion orders them:
"relative", standard deviation over |mean|, and "absolute", both between the minima and within their wells;
"determined", the share of the variance that the penalty allows which the data leave; "magnitude" (1 / |mean|) knows no
spread and is the control. First as rankings of columns, by the best of their weights, a column that is not in use last,
beside the relevance that the penalties give and the importance of `explain`: AUROC against the truth. Then the
permutation test of the 30 % that come first, shuffled and set to zero in the best network, against random sets, and
against sets of the same magnitudes that share less than a quarter with the chosen ones; "told apart": p <= 0.05.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import judge_methods
import judge_tables
import numpy as np
from attribution import interval
from judge import RUNS, SEEDS
from results import Table, markdown, record, table
from sklearn.metrics import roc_auc_score
from smoke import arguments

from jaxscape import validation
from jaxscape.symmetry import input_weights
from jaxscape.table.explain import Explanation, explain_dataset
from jaxscape.table.predict import scorer
from jaxscape.table.problem import ExplainConfig, posterior_variances

CRITERIA = ("relative", "absolute", "determined", "magnitude")
NUM_DRAWS, NUM_SHUFFLES = 500, 50
MOST_SHARED, FEWEST_SETS = 0.25, 40
LEFT_OUT = ("grid", "real-digits")  # the tests of ten classes take minutes a table


def spreads(found: Explanation) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the weights that may be chosen, and by each criterion what is low where they are conserved."""
    made = found.problem
    within = posterior_variances(made, found.group.weights / made.scale).mean(axis=0)
    mean, between = found.group.weights.mean(axis=0), found.group.weights.var(axis=0)
    allowed = 1 / (len(made.seen.y_train) * np.asarray(made.objective.data.precision))
    size, tiny = np.abs(mean), np.finfo(float).tiny
    values = {
        "relative": np.sqrt(between + within) / np.maximum(size, tiny),
        "absolute": np.sqrt(between + within),
        "determined": within / allowed,
        "magnitude": 1 / np.maximum(size, tiny),
    }
    return input_weights(made.symmetry), values


def of_columns(found: Explanation, values: np.ndarray) -> np.ndarray:
    """Return a score of each column: that of the best of its weights, lowest for a column that is not in use."""
    incoming = found.problem.symmetry.layers[0].incoming
    best = values[incoming].min(axis=0)
    scores = np.full(len(found.dataset.features), -np.inf)
    np.maximum.at(scores, found.problem.seen.column, -best)
    return np.where(np.isfinite(scores), scores, -np.finfo(float).max)


def tests(found: Explanation) -> Iterator[dict[str, Any]]:
    candidates, values = spreads(found)
    made, strata = found.problem, np.where(candidates, 0, -1)
    seen = made.seen
    best = found.group.weights[0]
    score = scorer(seen, found.config.activation, made.objective.unravel, seen.x_test, seen.y_test)
    number = round(found.config.threshold * candidates.sum())
    for criterion, value in values.items():
        mask = np.zeros(len(value), bool)
        mask[np.flatnonzero(candidates)[np.argsort(value[candidates], kind="stable")[:number]]] = True
        row: dict[str, Any] = {"criterion": criterion, "chosen": number, "candidates": int(candidates.sum())}
        if number < 2 or validation.num_sets(mask, strata) < FEWEST_SETS:
            yield row
            continue
        sets = validation.matched_sets(np.random.default_rng(0), best, mask, strata, NUM_DRAWS)
        shared = float(sets[:, mask].mean())
        others = len(np.unique(sets, axis=0))
        for intervention in ("shuffle", "zero"):
            for control in ("random", "matched"):
                if control == "matched" and (shared >= MOST_SHARED or others < FEWEST_SETS):
                    continue
                test = validation.permutation_test(
                    jax.random.key(0),
                    score,
                    jnp.asarray(best),
                    mask,
                    strata=strata,
                    sets=sets if control == "matched" else None,
                    intervention=intervention,
                    num_draws=NUM_DRAWS,
                    num_shuffles=NUM_SHUFFLES if intervention == "shuffle" else 1,
                )
                row[f"{intervention}, {control}"] = [float(test.p_value), validation.effect(test).size]
        yield row


def judge(name: str) -> list[dict[str, Any]]:
    drawn = judge_tables.load(name)
    judge_methods.forget()
    dataset = judge_methods.split(drawn.x, drawn.y, drawn.task, 0).dataset
    found = explain_dataset(dataset, ExplainConfig(max_seconds=60))
    values = spreads(found)[1]
    scores = {criterion: of_columns(found, value) for criterion, value in values.items()}
    size = found.supported.best if found.supported is not None else None
    assert size is not None
    scores["relevance by the penalties"] = -np.log(size.found.alphas[0][: len(dataset.features)])
    scores["importance"] = found.ranking
    truth = drawn.informative
    ranked = {}
    if truth is not None and 0 < truth.sum() < len(truth):
        ranked = {kind: float(roc_auc_score(truth, score)) for kind, score in scores.items()}
    head = {"table": name, "family": judge_tables.family_of(name), "minima": len(found.landscape.minima.energies)}
    head |= {"group": len(found.group.minima), "score": float(found.performance.each[0])}
    return [{**head, **row, "auroc": ranked} for row in tests(found)]


def report(rows: list[dict[str, Any]]) -> list[Table]:
    tables = {row["table"]: row["auroc"] for row in rows if row["auroc"]}
    rankings = []
    if tables:
        for kind in next(iter(tables.values())):
            behind = np.array([each["importance"] - each[kind] for each in tables.values()])
            mean = np.array([each[kind] for each in tables.values()])
            rankings.append([kind, interval(mean), "" if kind == "importance" else interval(behind)])
    told = []
    for criterion in CRITERIA:
        for intervention in ("shuffle", "zero"):
            cells = [criterion, intervention]
            for control in ("random", "matched"):
                found = [row[f"{intervention}, {control}"] for row in rows if row["criterion"] == criterion
                         and f"{intervention}, {control}" in row]  # fmt: skip
                p_values, sizes = np.array(found).reshape(-1, 2).T
                cells += [f"{int(np.sum(p_values <= 0.05))} of {len(found)}"]
                cells += [f"{np.median(sizes):+.3f}" if len(found) else ""]
            told.append(cells)
    single = len({row["table"] for row in rows if row["minima"] == 1})
    whole = len({row["table"] for row in rows})
    heads = ["criterion", "intervention", "told apart from random sets", "effect", "from sets as large", "effect"]
    return [
        table(["ranking of columns by", "AUROC", "importance minus this"], rankings, f"{len(tables)} generated tables"),
        table(
            heads, told, f"{whole} tables, {single} with a single minimum; effect: how much the score falls (median)"
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--half", choices=("choose", "report"), default="choose")
    parser.add_argument("--tables", nargs="+", metavar="PART", help="only tables whose names hold one of these")
    parser.add_argument("--out", type=Path)
    options = arguments(parser, "--tables real-diabetes/1 --half report --out {folder}/wells.json")
    jax.config.update("jax_enable_x64", True)
    names = judge_tables.names(seeds=SEEDS, runs=RUNS)
    names = [name for name in names if judge_tables.half(name) == options.half and not name.startswith(LEFT_OUT)]
    if options.tables:
        names = [name for name in names if any(part in name for part in options.tables)]
    rows: list[dict[str, Any]] = []
    for name in names:
        rows += judge(name)
        print(f"<!-- {name} -->", flush=True)
        record(options.out, __doc__, rows, report(rows))
        jax.clear_caches()
    print("\n\n".join(map(markdown, report(rows))))


if __name__ == "__main__":
    main()
