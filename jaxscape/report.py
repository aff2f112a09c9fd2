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
from jaxscape.explain import Explanation
from jaxscape.files import replacing
from jaxscape.landscape import database
from jaxscape.landscape.explore import coverage_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA_VERSION = 1
_SIGNIFICANT = 0.05
_POOR = {"auc": 0.7, "r2": 0.3}


def measure(explanation: Explanation) -> str:
    """Return "auc" or "r2": what scores this task."""
    return "auc" if explanation.dataset.task == "binary" else "r2"


def ranks(explanation: Explanation) -> list[dict[str, Any]]:
    """Return the columns from the highest score to the lowest; equal scores share a rank."""
    scores = explanation.scores
    order = np.argsort(-scores, kind="stable")
    return [
        {
            "name": explanation.dataset.features[i],
            "score": float(scores[i]),
            "score_std": float(explanation.scores_std[i]),
            "rank": int(np.sum(scores > scores[i])) + 1,
        }
        for i in order
    ]


def verdict(explanation: Explanation) -> tuple[bool, str]:
    """Say in words what the permutation test found; the first value: does it support the ranking?"""
    test, name = explanation.test, {"auc": "AUC", "r2": "R²"}[measure(explanation)]
    if test is None:
        total, members = len(explanation.landscape.minima.energies), len(explanation.group)
        if total == 1:
            why = "Only one minimum was found (up to copies), so there is no group whose weights could differ"
        elif members == 1:
            why = f"The lowest of the {total} minima is connected to no other, so there is no group to compare"
        else:
            why = f"Of the input weights only {int(explanation.conserved.mask.sum())} is conserved, too few to shuffle"
        ranked = "" if members > 1 else " The columns are ranked by the magnitude of the input weights."
        return False, f"{why}: nothing was tested.{ranked}"
    conserved, random = float(test.conserved.mean()), float(test.random.mean())
    what = (
        f"Shuffling the conserved weights takes the held-out {name} from {float(test.baseline):.3f} to "
        f"{conserved:.3f}; shuffling as many random input weights, to {random:.3f} ± {float(test.random.std()):.3f} "
        f"(p = {float(test.p_value):.3f})."
    )
    if float(test.p_value) <= _SIGNIFICANT:
        return True, f"{what} The model relies on the conserved weights more than on others: the ranking has support."
    return False, (
        f"{what} That is not significantly more than random weights do: this test does not support the ranking, "
        "do not rely on it alone."
    )


def summary(explanation: Explanation) -> dict[str, Any]:
    """Return the content of `summary.json`."""
    dataset, config, test = explanation.dataset, explanation.config, explanation.test
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
            "notes": list(dataset.notes),
        },
        "model": {
            "hidden": config.hidden,
            "activation": config.activation,
            "l2": config.l2,
            "num_weights": explanation.symmetry.dim,
        },
        "landscape": {
            "num_minima": len(landscape.minima.energies),
            "num_transition_states": len(landscape.transition_states.energies),
            "num_components": int(database.components(landscape).max()) + 1,
            "lowest_loss": float(landscape.minima.energies.min()),
            "coverage": {
                kind: each._asdict() for kind, each in zip(("minima", "transition_states"), seen, strict=True)
            },
            "evaluations": landscape.meta.get("evaluations", 0),
            "outcomes": landscape.meta.get("outcomes", {}),
        },
        "performance": {f"{score}_train": explanation.train_score, f"{score}_test": explanation.test_score},
        "conserved": {
            "level": explanation.level,
            "group_size": len(explanation.group),
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
        },
        "features": ranks(explanation),
        "seconds": round(explanation.seconds, 2),
        "seed": config.seed,
        "versions": versions(),
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


def figures(explanation: Explanation) -> dict[str, "Figure"]:
    """Draw the figures of the report; what was not tested has no histogram, a single minimum no graph."""
    from matplotlib.figure import Figure

    dataset, landscape = explanation.dataset, explanation.landscape
    incoming = explanation.symmetry.layers[0].incoming
    names, num_inputs = list(dataset.features), len(dataset.inputs)
    longest = min(max(map(len, dataset.inputs)), 32)
    sizes = {
        "features": (7.5, 0.9 + 0.32 * min(len(names), 12)),
        "permutation_test": (7.5, 3.2),
        "disconnectivity": (8.5, 5.0),
        "conserved_map": (min(max(5.0, 0.28 * num_inputs + 2), 20.0), 1.2 + 0.06 * longest + 0.25 * len(incoming)),
    }
    if explanation.test is None:
        del sizes["permutation_test"]
    if len(landscape.minima.energies) == 1:
        del sizes["disconnectivity"]
    drawn = {name: Figure(figsize=size, dpi=130, layout="constrained") for name, size in sizes.items()}
    axes = {name: figure.add_subplot() for name, figure in drawn.items()}
    plotting.feature_bars(names, explanation.scores, explanation.scores_std, ax=axes["features"])
    label = {"auc": "AUC", "r2": "R²"}[measure(explanation)]
    if explanation.test is not None:
        plotting.permutation_test(explanation.test, score=label, ax=axes["permutation_test"])
    if "disconnectivity" in axes:
        plotting.disconnectivity_graph(
            explanation.tree,
            landscape.minima.energies,
            group=explanation.group,
            level=explanation.level,
            ax=axes["disconnectivity"],
        )
    plotting.conserved_map(
        explanation.conserved.mean[0][incoming],
        explanation.conserved.mask[0][incoming],
        list(dataset.inputs),
        ax=axes["conserved_map"],
    )
    return drawn


def write(explanation: Explanation, folder: Path) -> None:
    """Write `index.html`, `figures/*.png`, `features.csv` and `summary.json` into a folder, made if need be."""
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
    writer = csv.DictWriter(table, ["name", "score", "score_std", "rank"])
    writer.writeheader()
    writer.writerows(content["features"])
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for stale in {"permutation_test", "disconnectivity"} - pngs.keys():
        (folder / "figures" / f"{stale}.png").unlink(missing_ok=True)
    for name, png in pngs.items():
        _write(folder / "figures" / f"{name}.png", png)
    _write(folder / "features.csv", table.getvalue().encode())
    _write(folder / "index.html", _page(explanation, content, pngs).encode())
    _write(folder / "summary.json", (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def _page(explanation: Explanation, content: dict[str, Any], pngs: dict[str, bytes]) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxscape"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    supported, text = verdict(explanation)
    score, config = measure(explanation), explanation.config
    names = [row["name"] for row in content["features"][:3] if row["score"] > 0]
    return environment.get_template("report.html").render(
        **content,
        top=", ".join(names) if names else "no column",
        figures={name: f"data:image/png;base64,{base64.b64encode(png).decode()}" for name, png in pngs.items()},
        verdict={"supported": supported, "text": text},
        shuffles=len(explanation.test.conserved) if explanation.test else 0,
        tested=explanation.test is not None,
        measure={"auc": "AUC", "r2": "R²"}[score],
        train_score=explanation.train_score,
        test_score=explanation.test_score,
        poor=_POOR[score],
        odd=explanation.symmetry.odd,
        notes=explanation.dataset.notes,
        train_rows=len(explanation.dataset.y_train),
        test_rows=len(explanation.dataset.y_test),
        settings=config.__dict__,
        device=jax.devices()[0].device_kind,
    )


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)
