"""Write what `explain` found: a page, figures, tables. Files appear whole or not at all."""

import base64
import csv
import importlib.metadata
import io
import json
import platform
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxscape import plotting
from jaxscape.analysis import conserved, validation
from jaxscape.evidence import Outcome
from jaxscape.files import replacing
from jaxscape.landscape import database, ledger
from jaxscape.landscape.explore import coverage_of
from jaxscape.table import baselines, predict
from jaxscape.table.baselines import Baseline
from jaxscape.table.explain import Explanation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCHEMA_VERSION = 4
SIGNIFICANT = 0.05
_MAX_NODES = 12
_COUNTS = 1e-3  # of the weight of all: what a network must have to be counted
_FEWEST_SETS = 40  # below, no p-value can be 0.05 with some certainty
_NAMES = {"auc": "AUC", "r2": "R²"}
_POOR = {"auc": 0.7, "r2": 0.3}
_DOUBTS = {
    Outcome.MOVING: " The evidence was still rising when the search for penalties ended.",
    Outcome.INTERPOLATES: " It goes through every training row: the noise of the target cannot be told from none.",
}
_FIGURES = ("features", "permutation_test", "disconnectivity", "conserved_levels", "conserved_map")
_FORMULA = "=+-@\t\r\n"  # what a cell begins with that a spreadsheet computes


def measure(explanation: Explanation) -> str:
    """Return "auc" or "r2": what scores this task."""
    return "r2" if explanation.dataset.task == "regression" else "auc"


def ranks(explanation: Explanation) -> list[dict[str, Any]]:
    """Return the columns from the most important to the least; equal ones share a rank."""
    values, measured = explanation.ranking, explanation.importance
    importance, spread, marginal = measured.mean, measured.std, explanation.marginal.mean
    return [
        {
            "name": explanation.dataset.features[i],
            "rank": int(np.sum(values > values[i])) + 1,
            "importance": float(importance[i]),
            "std_over_networks": float(spread[i]),
            "low": float(explanation.stability.low[i]),
            "high": float(explanation.stability.high[i]),
            "q_value": float(explanation.q_values[i]),
            "marginal_importance": float(marginal[i]),
            "used": bool(explanation.awake[i]),
            "conserved_share": float(explanation.shares[i]),
        }
        for i in np.argsort(-values, kind="stable")
    ]


def baselines_verdict(explanation: Explanation) -> tuple[bool, str]:
    """Say in words how the networks predict beside other models; the first value: do they keep up with each of them?"""
    words = ("clearly worse than", "not clearly better or worse than", "clearly better than")
    found: dict[str, list[str]] = {word: [] for word in words}
    for name, each in _baselines(explanation):
        found[words[0 if each.high < 0 else 2 if each.low > 0 else 1]].append(f"{name} ({each.test:.3f})")
    what = ", ".join(f"{word} {_and(names)}" for word, names in found.items() if names)
    text = (
        f"On {len(explanation.dataset.y_test)} held-out rows the networks ({_NAMES[measure(explanation)]} "
        f"{explanation.test_score:.3f}) predict {what}."
    )
    keeps_up = not found[words[0]]
    return keeps_up, text if keeps_up else f"{text} What drives them may not be what drives the data."


def _baselines(explanation: Explanation) -> list[tuple[str, Baseline]]:
    found = explanation.baselines
    linear = "ridge regression" if explanation.dataset.task == "regression" else "logistic regression"
    return [(linear, found.linear), ("boosted trees", found.boosting), ("a random forest", found.forest)]


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + names[-1:])


def verdict(explanation: Explanation) -> tuple[bool, str]:
    """Say in words how sure the ranking is; the first value: does any column matter with confidence, to networks that
    keep up with other models?"""
    sure, text = _certainty(explanation)
    behind = [name for name, each in _baselines(explanation) if each.high < 0]
    if not behind:
        return sure, text
    return False, (
        f"The networks predict clearly worse than {_and(behind)}: what drives them may not be what drives the data. "
        f"{text}"
    )


def _certainty(explanation: Explanation) -> tuple[bool, str]:
    stable, groups = explanation.stability, explanation.importance.groups
    total = len(np.unique(groups))
    sure = len(np.unique(groups[explanation.q_values <= SIGNIFICANT]))
    several = "first column is the same" if stable.top == 1 else f"first {stable.top} are the same ones"
    together = ", columns that move together counted as one" if total < len(groups) else ""
    same = (
        f"The {several} in {stable.same_top} of {stable.num_resamplings} resamplings of the networks and the held-out "
        f"rows{together}."
        if stable.top <= int(explanation.importance.groups.max())
        else ""
    )
    if sure:
        kind = "columns" if total == len(groups) else "columns (and sets of columns that move together)"
        what = f"{sure} of {total} {kind} tell what the others do not" if total > 1 else "The column matters"
        return True, f"{what}, with at most 5 % false discoveries expected. {same}".strip()
    return False, (
        f"No column matters with confidence: what the networks lose on {explanation.importance.increases.shape[1]} "
        f"held-out rows without it could be chance. Do not rely on this ranking. {same}"
    ).strip()


def conserved_verdict(explanation: Explanation) -> tuple[bool, str]:
    """Say in words what the permutation tests of the conserved weights found; the first value: are they special?"""
    test, matched, name = explanation.test, explanation.matched, _NAMES[measure(explanation)]
    if test is None or matched is None:
        total = len(explanation.landscape.minima.energies)
        if total == 1 and explanation.supported is None:
            why = "Only one minimum was found (up to copies), so there is no group whose weights could differ"
        else:
            why = f"Of the input weights only {int(explanation.conserved.mask.sum())} is conserved, too few to shuffle"
        return False, f"{why}: nothing was tested."
    mask, bins = explanation.conserved.mask[0], explanation.bins
    strata = np.minimum(bins, 0)
    conserved, random = float(test.conserved.mean()), float(test.random.mean())
    what = (
        f"Shuffling the conserved weights takes the held-out {name} from {float(test.baseline):.3f} to "
        f"{conserved:.3f}; shuffling as many random input weights, to {random:.3f} ± {float(test.random.std()):.3f} "
        f"(p = {float(test.p_value):.3f}); as many of similar magnitude ({validation.overlap(mask, bins):.0%} of them "
        f"the conserved ones themselves), to {float(matched.random.mean()):.3f} ± {float(matched.random.std()):.3f} "
        f"(p = {float(matched.p_value):.3f})."
    )
    if validation.num_sets(mask, strata) < _FEWEST_SETS:
        return False, f"{what} There are too few other sets of so many weights to tell whether these are special."
    if float(test.p_value) > SIGNIFICANT:
        return False, f"{what} The conserved weights could not be told apart from random ones."
    if validation.num_sets(mask, bins) < _FEWEST_SETS:
        return True, (
            f"{what} The model relies on the conserved weights more than on random ones; there are too few other sets "
            "as large to tell whether that is more than their magnitude."
        )
    if float(matched.p_value) > SIGNIFICANT:
        return True, (
            f"{what} The model relies on the conserved weights more than on random ones, but they could not be told "
            "apart from others as large: it may be their magnitude that counts, not that they are conserved."
        )
    return True, f"{what} The model relies on the conserved weights more than on others, also than on others as large."


def summary(explanation: Explanation) -> dict[str, Any]:
    """Return the content of `summary.json`."""
    dataset, config, test, matched = explanation.dataset, explanation.config, explanation.test, explanation.matched
    score, landscape = measure(explanation), explanation.landscape
    seen = coverage_of(landscape)
    return {
        "schema_version": SCHEMA_VERSION,
        "data": {
            "name": dataset.name,
            "rows": len(dataset.y_train) + len(dataset.y_test),
            "features": len(dataset.features),
            "target": dataset.target,
            "task": dataset.task,
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
            "certified_share": float(explanation.tree.certified.mean()) if len(explanation.tree.energy) else 1.0,
            "complete": explanation.stopped_by == "complete",
            "stopped_by": explanation.stopped_by,
            "found_lowest_by": explanation.found_lowest,
            "lowest_loss": float(landscape.minima.energies.min()),
            "coverage": {
                kind: each._asdict() for kind, each in zip(("minima", "transition_states"), seen, strict=True)
            },
            "evaluations": landscape.ledger.evaluations,
            "outcomes": ledger.to_names(landscape.ledger),
        },
        "performance": {
            f"{score}_train": explanation.train_score,
            f"{score}_test": explanation.test_score,
            f"{score}_test_of_lowest": float(explanation.test_scores[0]),
            f"{score}_test_of_all_models": [float(explanation.test_scores.min()), float(explanation.test_scores.max())],
        },
        "evidence": _evidence(explanation),
        "baselines": {kind: each._asdict() for kind, each in explanation.baselines._asdict().items()},
        "ranking": {
            "num_models": len(explanation.models),
            "num_certain": int(np.sum(explanation.q_values <= SIGNIFICANT)),
            "top": explanation.stability.top,
            "same_top": explanation.stability.same_top,
            "num_resamplings": explanation.stability.num_resamplings,
            "verdict": verdict(explanation)[1],
        },
        "conserved": {
            "level": explanation.level,
            "group_size": len(explanation.group),
            "joined": explanation.joined,
            "num_conserved": int(explanation.conserved.mask.sum()),
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
        "noise": float(best.found.noises[0]) if explanation.dataset.task == "regression" else None,
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


def support_sentence(explanation: Explanation) -> str | None:
    """Say in words what the data support; None where the penalty was given."""
    if explanation.supported is None:
        return None
    best = explanation.supported.best
    units = " and ".join(map(str, best.hidden))
    minima = len(explanation.landscape.minima.energies)
    text = (
        f"The data support {units} hidden unit{'s' * (best.hidden != (1,))} and {int(best.awake.sum())} of "
        f"{len(best.awake)} columns (the smallest network of best evidence; others use others)."
    )
    if minima == 1:
        text += " At these penalties the search found a single minimum, up to copies."
    else:
        text += f" At these penalties the search found {minima} minima."
    return text + _DOUBTS.get(Outcome(int(best.found.status[0])), "")


def versions() -> dict[str, str]:
    """Return the versions of what the result depends on."""
    found = {"python": platform.python_version()}
    for name in ("jaxscape-landscapes", "jax", "jaxlib", "optax", "numpy", "scipy", "scikit-learn", "pandas"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def figures(explanation: Explanation) -> dict[str, "Figure"]:
    """Draw the figures of the report; what was not tested has no histogram, a single minimum no graph."""
    from matplotlib.figure import Figure

    inputs, landscape = list(explanation.problem.seen.inputs), explanation.landscape
    incoming = explanation.problem.symmetry.layers[0].incoming
    names = _groups(explanation)
    num_inputs = len(inputs)
    longest = min(max(map(len, inputs)), 32)
    sizes = {
        "features": (7.5, 0.9 + 0.32 * min(len(names), 12)),
        "permutation_test": (7.5, 3.2),
        "disconnectivity": (8.5, 5.0),
        "conserved_levels": (min(max(6.0, 0.28 * num_inputs + 2), 20.0), 3.0 + 0.06 * longest),
        "conserved_map": (min(max(5.0, 0.28 * num_inputs + 2), 20.0), 1.2 + 0.06 * longest + 0.25 * len(incoming)),
    }
    if explanation.test is None:
        del sizes["permutation_test"]
    if len(landscape.minima.energies) == 1:
        del sizes["disconnectivity"]
    path = conserved.funnel(explanation.levels, int(explanation.models[0]))
    if not path:
        del sizes["conserved_levels"]
    drawn = {name: Figure(figsize=size, dpi=130, layout="constrained") for name, size in sizes.items()}
    axes = {name: figure.add_subplot() for name, figure in drawn.items()}
    draw_features(explanation, axes["features"])
    label = _NAMES[measure(explanation)]
    if explanation.test is not None:
        plotting.permutation_test(
            explanation.test, matched=explanation.matched, score=label, ax=axes["permutation_test"]
        )
    if path:
        masks = np.stack([node.mask for node in path])[:, incoming].mean(axis=1)
        rows = [f"{node.level:.4g} ({len(node.members)})" for node in path]
        plotting.conserved_levels(masks, rows, inputs, ax=axes["conserved_levels"])
    if "disconnectivity" in axes:
        plotting.disconnectivity_graph(
            explanation.tree,
            landscape.minima.energies,
            group=explanation.group,
            level=explanation.level if explanation.joined else None,
            ax=axes["disconnectivity"],
        )
    plotting.conserved_map(
        explanation.conserved.mean[0][incoming],
        explanation.conserved.mask[0][incoming],
        inputs,
        ax=axes["conserved_map"],
    )
    return drawn


def draw_features(explanation: Explanation, ax: "Axes | None" = None) -> "Axes":
    """Draw the importance of the columns, those that move together as one bar."""
    ids, names = (list(each) for each in zip(*_groups(explanation), strict=True))
    measured, sure = explanation.importance, explanation.q_values <= SIGNIFICANT
    return plotting.feature_bars(names, measured.mean[ids], measured.std[ids], sure=sure[ids], ax=ax)


def names_of_the_sure(explanation: Explanation) -> list[str]:
    """Name the columns that matter with confidence, the most important first, those that move together once."""
    return [name for i, name in _groups(explanation) if explanation.q_values[i] <= SIGNIFICANT]


def write(explanation: Explanation, folder: Path) -> None:
    """Write `index.html`, `figures/*.png`, `features.csv` and `summary.json` into a folder, made if need be.

    The names in `features.csv` are as `as_text` makes them: `name.removeprefix("'")` is the name of the column.
    """
    pngs = {}
    for name, figure in figures(explanation).items():
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            # A column name in a script that the font lacks shows boxes; the tables have it right.
            warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
            figure.savefig(buffer, format="png")
        pngs[name] = buffer.getvalue()
    content = summary(explanation)
    table = io.StringIO(newline="")
    # Where lists are separated by semicolons, a name without quotes is split at its own.
    writer = csv.DictWriter(table, list(content["features"][0]), quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    writer.writerows(row | {"name": as_text(row["name"])} for row in content["features"])
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for stale in set(_FIGURES) - pngs.keys():
        (folder / "figures" / f"{stale}.png").unlink(missing_ok=True)
    for name, png in pngs.items():
        _write(folder / "figures" / f"{name}.png", png)
    _write(folder / "features.csv", table.getvalue().encode())
    _write(folder / "index.html", _page(explanation, content, pngs).encode())
    _write(folder / "summary.json", (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def as_text(name: str) -> str:
    """Put an apostrophe before a name that a spreadsheet might take for a formula, or that begins with one."""
    return f"'{name}" if name.startswith(("'", *_FORMULA)) else name


def discard(folder: Path) -> None:
    """Remove from a folder what `write` writes, if it is there, and nothing else."""
    figures = [f"figures/{name}.png" for name in _FIGURES]
    for name in ("index.html", "summary.json", "features.csv", *figures):
        (folder / name).unlink(missing_ok=True)


def _page(explanation: Explanation, content: dict[str, Any], pngs: dict[str, bytes]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxscape"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    score, config = measure(explanation), explanation.config
    keeps_up, compared = baselines_verdict(explanation)
    special, tested = conserved_verdict(explanation)
    poor = explanation.test_score < _POOR[score]
    if keeps_up and poor:
        compared += " They predict badly, so what drives them says little about the data."
    verdicts = {
        "baselines": (keeps_up and not poor, compared),
        "ranking": verdict(explanation),
        "conserved": (keeps_up and special, tested),
    }
    counting = explanation.members.weights >= _COUNTS
    groups = explanation.importance.groups
    joined = np.bincount(groups)[groups] > 1
    return environment.get_template("report.html").render(
        **content,
        top=names_of_the_sure(explanation)[:5],
        figures={name: f"data:image/png;base64,{base64.b64encode(png).decode()}" for name, png in pngs.items()},
        verdicts={name: {"supported": good, "text": text} for name, (good, text) in verdicts.items()},
        joined=[name for name, is_joined in zip(explanation.dataset.features, joined, strict=True) if is_joined],
        shuffled_rows=explanation.importance.increases.shape[1],
        unit=_unit(explanation),
        low={
            "relative": "lowest standard deviation relative to their mean",
            "absolute": "lowest standard deviation",
            "magnitude": "largest mean",
        }[config.criterion],
        num_networks=int(np.sum(counting)),
        worst=float(explanation.test_scores[counting].min()),
        many_sizes=explanation.supported is not None and config.loss == "likelihood",
        lowest=float(explanation.test_scores[0]),
        nodes=explanation.levels[:_MAX_NODES],
        num_nodes=len(explanation.levels),
        shuffles=len(explanation.test.conserved) if explanation.test else 0,
        tested=explanation.test is not None,
        measure=_NAMES[score],
        train_score=explanation.train_score,
        test_score=explanation.test_score,
        keeps_up=keeps_up,
        others=_baselines(explanation),
        odd=explanation.problem.symmetry.odd,
        notes=explanation.dataset.notes,
        train_rows=len(explanation.dataset.y_train),
        fitted_rows=baselines.num_fitted(explanation.dataset),
        scored_rows=min(len(explanation.dataset.y_test), predict.MAX_SCORED),
        test_rows=len(explanation.dataset.y_test),
        support=support_sentence(explanation),
        unused=int(np.sum(~explanation.awake)),
        settings=config.__dict__ | {"hidden": " ".join(map(str, explanation.problem.hidden))},
        device=jax.devices()[0].device_kind,
    )


def _groups(explanation: Explanation) -> list[tuple[int, str]]:
    """List the columns by importance, those that are shuffled together once: the id of the first, and a name."""
    found: dict[int, list[int]] = {}
    for i in np.argsort(-explanation.ranking, kind="stable"):
        found.setdefault(int(explanation.importance.groups[i]), []).append(int(i))
    names = explanation.dataset.features
    return [
        (first, names[first] + (f" (+ {len(others)} alike)" if others else "")) for first, *others in found.values()
    ]


def _unit(explanation: Explanation) -> str:
    if explanation.config.loss == "auc":
        return "share of wrongly ordered pairs"
    kind = "squared error" if explanation.dataset.task == "regression" else "cross-entropy"
    return f"class-balanced {kind}" if explanation.config.loss == "balanced" else kind


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)
