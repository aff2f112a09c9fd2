"""What was found, in numbers: the content of `summary.json` and `features.csv`."""

import importlib.metadata
import platform
from typing import Any

import numpy as np

from jaxscape.analysis import disconnectivity
from jaxscape.evidence import Outcome
from jaxscape.landscape import database, ledger
from jaxscape.landscape.stopping import coverage_of
from jaxscape.report.agreement import agreement, apart
from jaxscape.report.figures import with_effects
from jaxscape.report.sentences import SIGNIFICANT, conserved_verdict, groups, learnt_as, verdict
from jaxscape.table.effects import column_interactions
from jaxscape.table.explain import Explanation, in_order
from jaxscape.table.splits import Splits

SCHEMA_VERSION = 8


def ranks(explanation: Explanation) -> list[dict[str, Any]]:
    """Return the columns from the most important to the least; equal ones share a rank.

    A column is called where `low`, a lower bound for its importance at 95 % adjusted for the number of columns, is
    above zero; `high` is as far above the importance.
    """
    values, measured = explanation.ranking.values, explanation.ranking.importance
    importance, spread, marginal = measured.mean, measured.std, explanation.ranking.marginal.mean
    return [
        {
            "name": explanation.dataset.features[i],
            "rank": int(np.sum(values > values[i])) + 1,
            "importance": float(importance[i]),
            "std_over_networks": float(spread[i]),
            "low": float(importance[i] - explanation.ranking.by_chance[i]),
            "high": float(importance[i] + explanation.ranking.by_chance[i]),
            "q_value": float(explanation.ranking.q_values[i]),
            "marginal_importance": float(marginal[i]),
            "used": bool(explanation.ranking.awake[i]),
            "conserved_share": float(explanation.conserved.shares[i]),
        }
        for i in in_order(explanation)
    ]


def num_rows(explanation: Explanation) -> dict[str, int]:
    """Return how many rows columns are ranked on: held-out ones, and training rows by networks without them."""
    learnt = explanation.ranking.importance.learnt
    total, left_out = len(explanation.ranking.importance.strata), 0 if learnt is None else int(learnt.sum())
    return {"held_out_rows": total - left_out, "left_out_rows": left_out}


def group_ranks(explanation: Explanation) -> list[dict[str, Any]]:
    """Return the same for columns that move together once, by the name of the first and how many are like it."""
    rows = {row["name"]: row for row in ranks(explanation)}
    found = [rows[explanation.dataset.features[members[0]]] | {"name": name} for members, name in groups(explanation)]
    return [row | {"rank": place + 1} for place, row in enumerate(found)]


def summary(explanation: Explanation, splits: Splits | None = None) -> dict[str, Any]:
    """Return the content of `summary.json`.

    Args:
        explanation: of one split into training and held-out rows.
        splits: what came out on this and others, from `splits.over_splits`.
    """
    dataset, config, landscape = explanation.dataset, explanation.config, explanation.landscape
    ranking, performance, score = explanation.ranking, explanation.performance, dataset.kind.score_key
    group, found = explanation.group, explanation.conserved
    test, matched = found.test, found.matched
    seen = coverage_of(landscape)
    return {
        "schema_version": SCHEMA_VERSION,
        "data": {
            "name": dataset.name,
            "rows": len(dataset.y_train) + len(dataset.y_test),
            "features": len(dataset.features),
            "target": dataset.target,
            "task": dataset.task,
            "learnt_as": learnt_as(explanation),
            "weighted": dataset.weights_train is not None,
            "classes": list(dataset.classes),
            "notes": list(dataset.notes),
        },
        "model": {
            "hidden": list(explanation.problem.hidden),
            "activation": config.activation,
            "loss": config.loss,
            "penalty": config.penalty,
            "num_weights": explanation.problem.symmetry.dim,
        },
        "landscape": {
            "rows": {"searched": len(explanation.problem.seen.y_train), "of": len(dataset.y_train)},
            "num_minima": len(landscape.minima.energies),
            "num_transition_states": len(landscape.transition_states.energies),
            "num_components": int(database.components(landscape).max()) + 1,
            "num_components_with_paths": int(database.components(landscape, with_paths=True).max()) + 1,
            "certified_share": float(explanation.tree.certified.mean()) if len(explanation.tree.energies) else 1.0,
            "mean_gap": _mean_gap(explanation),
            "complete": explanation.explored.stopped_by == "complete",
            "stopped_by": explanation.explored.stopped_by,
            "found_lowest_by": explanation.explored.found_lowest,
            "lowest_loss": float(landscape.minima.energies.min()),
            "coverage": {
                kind: each._asdict() for kind, each in zip(("minima", "transition_states"), seen, strict=True)
            },
            "evaluations": landscape.ledger.evaluations,
            "outcomes": ledger.to_names(landscape.ledger),
        },
        "performance": {
            f"{score}_train": performance.train,
            f"{score}_test": performance.test,
            f"{score}_test_of_lowest": float(performance.each[0]),
            f"{score}_test_of_all_models": [
                float(performance.each.min()),
                float(performance.each.max()),
            ],
        },
        "evidence": _evidence(explanation),
        "baselines": {kind: each._asdict() for kind, each in performance.baselines._asdict().items()},
        "multiplicity": [
            {
                "within": None if each.within is None or np.isinf(each.within) else each.within,
                "of": "the networks that predict together" if each.within is None else "the minima",
                "networks": each.networks,
                "unseen": each.unseen,
                "rows": each.rows,
                **each.multiplicity._asdict(),
            }
            for each in agreement(explanation)
        ],
        "splits": None if splits is None else _over(splits),
        "interactions": _interactions(explanation),
        "superbasins": [each._asdict() for each in apart(explanation)],
        "ranking": {
            "num_models": len(explanation.models),
            "num_certain": int(np.sum(ranking.q_values <= SIGNIFICANT)),
            **num_rows(explanation),
            "top": ranking.stability.top,
            "same_top": ranking.stability.same_top,
            "num_resamplings": ranking.stability.num_resamplings,
            "verdict": verdict(explanation)[1],
        },
        "conserved": {
            "level": group.level,
            "group_size": len(group.minima),
            "joined": group.joined,
            "num_conserved": int(found.found.mask.sum()),
            "criterion": config.criterion,
            "threshold": config.threshold,
        },
        # Without a test the keys stay, so that a reader of many reports need not ask, and the values are null.
        "validation": {
            f"{score}_baseline": test and float(test.baseline),
            f"{score}_conserved_mean": test and float(test.conserved.mean()),
            f"{score}_random_mean": test and float(test.random.mean()),
            f"{score}_random_std": test and float(test.random.std()),
            "num_draws": len(test.random) if test else 0,
            "p_value": test and float(test.p_value),
            f"{score}_matched_mean": matched and float(matched.random.mean()),
            f"{score}_matched_std": matched and float(matched.random.std()),
            "p_value_matched": matched and float(matched.p_value),
            "verdict": conserved_verdict(explanation)[1],
        },
        "features": ranks(explanation),
        "seconds": round(explanation.seconds, 2),
        "seed": config.seed,
        "versions": versions(),
    }


def _interactions(explanation: Explanation) -> list[dict[str, Any]]:
    """Rank the pairs of the columns whose effects are shown."""
    places, features = with_effects(explanation), explanation.dataset.features
    return [
        {
            "columns": [features[place] for place in each.columns],
            "strength": each.strength,
            "std_over_networks": each.std,
            "share": each.share,
        }
        for each in (column_interactions(explanation, places) if len(places) > 1 else [])
    ]


def _mean_gap(explanation: Explanation) -> float | None:
    """Return how far above a minimum it joins a lower one, on average; None where none does."""
    gaps = disconnectivity.persistence(explanation.tree, explanation.landscape.minima.energies)
    gaps = gaps[np.isfinite(gaps)]
    return float(gaps.mean()) if gaps.size else None


def _over(splits: Splits) -> dict[str, Any]:
    columns = splits.frame().reset_index().to_dict("records")
    return {"number": len(splits.scores), "scores": splits.scores.tolist(), "columns": columns}


def _evidence(explanation: Explanation) -> dict[str, Any] | None:
    """Say what the data support: None where the penalty was given."""
    supported = explanation.supported
    if supported is None:
        return None
    best = supported.best
    alphas = best.found.alphas[0]
    return {
        "log_evidence": best.log_evidence,
        "units": list(best.hidden),
        "penalties": dict(zip(explanation.dataset.features, map(float, alphas), strict=False)),
        "other_penalties": [float(alpha) for alpha in alphas[len(explanation.dataset.features) :]],
        "status": Outcome(int(best.found.status[0])).name,
        "noise": float(best.found.noises[0]) if explanation.dataset.kind.is_quantity else None,
        "sizes": [
            {
                "units": list(size.hidden),
                "log_evidence": size.log_evidence if np.isfinite(size.log_evidence) else None,
                "weight": float(supported.weights[supported.networks[:, 0] == i].sum()),
                "columns": int(size.awake.sum()),
                "restarts": len(size.found.log_evidence),
                "found_again": int(np.sum(size.found.log_evidence > size.log_evidence - 1)),
            }
            for i, size in enumerate(supported.sizes)
        ],
        "cut": list(supported.cut),
    }


def versions() -> dict[str, str]:
    """Return the versions of what the result depends on."""
    found = {"python": platform.python_version()}
    for name in ("jaxscape-landscapes", "jax", "jaxlib", "optax", "numpy", "scipy", "scikit-learn", "pandas"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
