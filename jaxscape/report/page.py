"""Write what `explain` found: a page, figures, tables. Files appear whole or not at all."""

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxscape.files import replacing
from jaxscape.report.figures import FIGURES, as_svg, figures, graph
from jaxscape.report.sentences import (
    baselines_of,
    baselines_verdict,
    conserved_verdict,
    learnt_as,
    names_of_the_sure,
    splits_sentence,
    support_sentence,
    together_sentence,
    verdict,
)
from jaxscape.report.summary import summary
from jaxscape.table import baselines, predict
from jaxscape.table.explain import Explanation
from jaxscape.table.splits import Splits

_MAX_NODES, _MAX_LISTED = 12, 50
_FORMULA = "=+-@\t\r\n"  # what a cell begins with that a spreadsheet computes


def write(explanation: Explanation, folder: Path, splits: Splits | None = None) -> None:
    """Write `index.html`, `figures/*.svg`, `features.csv` and `summary.json` into a folder, made if need be.

    What came out on other splits of the rows, `splits`, is on the page and in the summary, too. The names in
    `features.csv` are as `as_text` makes them: `name.removeprefix("'")` is the name of the column.
    """
    svgs = {name: as_svg(figure) for name, figure in figures(explanation).items()}
    content = summary(explanation, splits)
    table = io.StringIO(newline="")
    # Where lists are separated by semicolons, a name without quotes is split at its own.
    writer = csv.DictWriter(table, list(content["features"][0]), quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    writer.writerows(row | {"name": as_text(row["name"])} for row in content["features"])
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for stale in set(FIGURES) - svgs.keys():
        (folder / "figures" / f"{stale}.svg").unlink(missing_ok=True)
    for name, svg in svgs.items():
        # On its own a figure has black text.
        _write(folder / "figures" / f"{name}.svg", svg.replace("<svg ", '<svg style="background: white" ', 1).encode())
    _write(folder / "features.csv", table.getvalue().encode())
    _write(folder / "index.html", _page(explanation, content, svgs, splits).encode())
    _write(folder / "summary.json", (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def as_text(name: str) -> str:
    """Put an apostrophe before a name that a spreadsheet might take for a formula, or that begins with one."""
    return f"'{name}" if name.startswith(("'", *_FORMULA)) else name


def discard(folder: Path) -> None:
    """Remove from a folder what `write` writes, if it is there, and nothing else."""
    drawn = [f"figures/{name}.{kind}" for name in FIGURES for kind in ("svg", "png")]  # once they were PNG
    for name in ("index.html", "summary.json", "features.csv", *drawn):
        (folder / name).unlink(missing_ok=True)


def _page(explanation: Explanation, content: dict[str, Any], svgs: dict[str, str], splits: Splits | None) -> str:
    import jinja2
    import markupsafe

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxscape"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    kind, config = explanation.dataset.kind, explanation.config
    keeps_up, compared = baselines_verdict(explanation)
    special, tested = conserved_verdict(explanation)
    poor = explanation.performance.test < kind.poor
    if keeps_up and poor:
        compared += " They predict badly, so what drives them says little about the data."
    verdicts = {
        "baselines": (keeps_up and not poor, compared),
        "ranking": verdict(explanation),
        "conserved": (keeps_up and special, tested),
    }
    counting = explanation.members.weights >= predict.COUNTS
    return environment.get_template("report.html").render(
        **content,
        top=names_of_the_sure(explanation)[:5],
        figures={name: markupsafe.Markup(svg) for name, svg in svgs.items()},
        graph=graph(explanation),
        verdicts={name: {"supported": good, "text": text} for name, (good, text) in verdicts.items()},
        together=together_sentence(explanation),
        listed=content["features"][:_MAX_LISTED],
        over_splits=None if splits is None else splits_sentence(explanation, splits),
        unit=_unit(explanation),
        low={
            "relative": "lowest standard deviation relative to their mean",
            "absolute": "lowest standard deviation",
            "magnitude": "largest mean",
        }[config.criterion],
        num_networks=int(np.sum(counting)),
        worst=float(explanation.performance.each[counting].min()),
        of_rows=config.aim.of_rows,
        many_sizes=explanation.supported is not None and config.aim.is_likelihood,
        lowest=float(explanation.performance.each[0]),
        nodes=explanation.conserved.levels[:_MAX_NODES],
        num_nodes=len(explanation.conserved.levels),
        shuffles=len(explanation.conserved.test.conserved) if explanation.conserved.test else 0,
        tested=explanation.conserved.test is not None,
        measure=kind.score_name,
        train_score=explanation.performance.train,
        test_score=explanation.performance.test,
        keeps_up=keeps_up,
        others=baselines_of(explanation),
        odd=explanation.problem.symmetry.odd,
        notes=explanation.dataset.notes,
        train_rows=len(explanation.dataset.y_train),
        fitted_rows=baselines.num_fitted(explanation.dataset),
        scored_rows=min(len(explanation.dataset.y_test), predict.MAX_SCORED),
        test_rows=len(explanation.dataset.y_test),
        support=support_sentence(explanation),
        unused=int(np.sum(~explanation.ranking.awake)),
        settings=config.__dict__ | {"hidden": " ".join(map(str, explanation.problem.hidden))},
        infinity=math.inf,
        device=jax.devices()[0].device_kind,
    )


def _unit(explanation: Explanation) -> str:
    kind, learnt = explanation.dataset.kind, learnt_as(explanation)
    bent = f" of {learnt}" if learnt != explanation.dataset.target else ""
    return explanation.config.aim.unit(f"{kind.unit}{bent}")


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as file:
        file.write(content)
