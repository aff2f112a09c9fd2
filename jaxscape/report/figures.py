"""The figures of the page, as SVG: sharp at any size, in the colours of the page, names as text in any script."""

import io
import re
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxscape import plotting
from jaxscape.analysis import conserved
from jaxscape.analysis.disconnectivity import layout, one_inside
from jaxscape.report.sentences import SIGNIFICANT, groups
from jaxscape.table.effects import column_effect, predicted_name
from jaxscape.table.explain import Explanation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIGURES = ("features", "effects", "disconnectivity", "permutation_test", "conserved_map", "conserved_levels")
_MAX_EFFECTS = 6


def figures(explanation: Explanation) -> dict[str, "Figure"]:
    """Draw the figures; what was not tested has no histogram, a single minimum no graph, no column no effect."""
    from matplotlib.figure import Figure

    inputs, landscape = list(explanation.problem.seen.inputs), explanation.landscape
    incoming = explanation.problem.symmetry.layers[0].incoming
    num_bars = min(len(groups(explanation)), 12)
    num_inputs, longest = len(inputs), min(max(map(len, inputs)), 32)
    path = conserved.funnel(explanation.conserved.levels, int(explanation.models[0]))
    shown = with_effects(explanation)
    sizes = {"features": (7.5, 0.9 + 0.32 * num_bars)}
    if shown:
        sizes["effects"] = (8.5, 2.6 * -(-len(shown) // 3))
    if len(landscape.minima.energies) > 1:
        sizes["disconnectivity"] = (8.5, 5.0)
    if explanation.conserved.test is not None:
        sizes["permutation_test"] = (7.5, 3.2)
    sizes["conserved_map"] = (min(max(5.0, 0.28 * num_inputs + 2), 20), 1.2 + 0.06 * longest + 0.25 * len(incoming))
    if path:
        sizes["conserved_levels"] = (min(max(6.0, 0.28 * num_inputs + 2), 20.0), 3.0 + 0.06 * longest)
    drawn = {name: Figure(figsize=size, dpi=130, layout="constrained") for name, size in sizes.items()}
    axes = {name: figure.add_subplot() for name, figure in drawn.items() if name != "effects"}
    draw_features(explanation, axes["features"])
    if shown:
        _draw_effects(explanation, shown, drawn["effects"])
    if explanation.conserved.test is not None:
        label = explanation.dataset.kind.score_name
        plotting.permutation_test(
            explanation.conserved.test, matched=explanation.conserved.matched, score=label, ax=axes["permutation_test"]
        )
    if path:
        masks = np.stack([node.mask for node in path])[:, incoming].mean(axis=1)
        rows = [f"{node.level:.4g} ({len(node.members)})" for node in path]
        plotting.conserved_levels(masks, rows, inputs, ax=axes["conserved_levels"])
    if "disconnectivity" in axes:
        plotting.disconnectivity_graph(
            explanation.tree,
            landscape.minima.energies,
            group=explanation.group.minima,
            level=explanation.group.level if explanation.group.joined else None,
            ax=axes["disconnectivity"],
        )
    found = explanation.conserved.found
    plotting.conserved_map(found.mean[0][incoming], found.mask[0][incoming], inputs, ax=axes["conserved_map"])
    return drawn


def draw_features(explanation: Explanation, ax: "Axes | None" = None) -> "Axes":
    """Draw the importance of the columns, those that move together as one bar."""
    ids = [members[0] for members, _ in groups(explanation)]
    names = [name for _, name in groups(explanation)]
    mean, sure = explanation.ranking.importance.mean[ids], explanation.ranking.q_values[ids] <= SIGNIFICANT
    return plotting.feature_bars(names, mean, explanation.ranking.by_chance[ids], sure=sure, ax=ax)


def with_effects(explanation: Explanation) -> list[int]:
    """List the columns whose effects are drawn: of those that matter with confidence the first."""
    if explanation.dataset.encoding is None:
        return []
    first = [members[0] for members, _ in groups(explanation)]
    return [i for i in first if explanation.ranking.q_values[i] <= SIGNIFICANT][:_MAX_EFFECTS]


def _draw_effects(explanation: Explanation, shown: list[int], figure: "Figure") -> None:
    across = min(len(shown), 3)
    axes = figure.subplots(-(-len(shown) // across), across, squeeze=False, sharey=True).ravel()
    for i, ax in zip(shown, axes, strict=False):
        found, names = column_effect(explanation, i)
        plotting.effect(found, explanation.dataset.features[i], predicted_name(explanation), names=names, ax=ax)
    for k, ax in enumerate(axes):
        if k % across:
            ax.set_ylabel("")
        if k >= len(shown):
            ax.remove()


def as_svg(figure: "Figure") -> str:
    """Return a figure as an SVG element to stand in a page; black becomes the colour of the text around it."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with warnings.catch_warnings(), rc_context({"svg.fonttype": "none", "svg.hashsalt": "jaxscape"}):
        # Matplotlib lacks the script of a name, the reader's browser may not.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return re.sub(r"<[^>]*>", lambda tag: _for_any_page(tag.group()), text)


def _for_any_page(tag: str) -> str:
    """Drop the names of parts, which are the same in every figure, and say what is black in the colour of the text."""
    return re.sub(r' id="[\w.]+_\d+"', "", tag).replace("#000000", "currentColor")


def graph(explanation: Explanation) -> dict[str, Any] | None:
    """Return what the page needs to draw the disconnectivity graph and to cut it anywhere; None for a single minimum.

    `lines`: from (x, y) to (x, y), in shares of the width and height, and whether only a path joins it; `spans`: of
    each the first minimum below it, in drawing order, and the one after the last; `minima`, in drawing order: place,
    loss and what is known; `merges`: one minimum of either side and the loss at which they come together; `lowest`:
    the lowest minimum.
    """
    energies, tree = explanation.landscape.minima.energies, explanation.tree
    if len(energies) < 2:
        return None
    drawing = layout(tree, energies)
    x, y = drawing.segments[..., 0], drawing.segments[..., 1]
    bottom, top = float(y.min()), float(y.max())
    wide, high = max(float(np.ptp(x)), 1.0), (top - bottom) or 1.0
    places = np.stack([(x - x.min()) / wide, (top - y) / high], axis=-1).round(5)
    rank = np.empty(len(energies), int)
    rank[drawing.order] = np.arange(len(energies))
    sides, about = rank[one_inside(tree)[tree.children]].tolist(), _about(explanation)
    return {
        "bottom": bottom,
        "top": top,
        "level": explanation.group.level,
        "lines": [
            [*map(float, place.ravel()), bool(bound)] for place, bound in zip(places, drawing.bound, strict=True)
        ],
        "minima": [
            {
                "x": float((k - x.min()) / wide),
                "y": float((top - energies[i]) / high),
                "loss": float(energies[i]),
                "text": about[i],
            }
            for k, i in enumerate(drawing.order)
        ],
        "spans": drawing.span.tolist(),
        "lowest": int(rank[energies.argmin()]),
        "merges": [
            [*pair, energy] for pair, energy in zip(sides, tree.energies.tolist(), strict=True) if energy < np.inf
        ],
        "ticks": [[float((top - value) / high), f"{value:.4g}"] for value in np.linspace(bottom, top, 5)],
    }


def _about(explanation: Explanation) -> list[str]:
    """Say what is known of each minimum: its loss and, if it predicts with others, its score and what it leans on."""
    shown = groups(explanation)
    each = explanation.ranking.importance.each[:, [members[0] for members, _ in shown]]
    texts = [f"minimum {i}: loss {loss:.6g}" for i, loss in enumerate(explanation.landscape.minima.energies)]
    for place, minimum in enumerate(explanation.models):
        rises = each[place]
        leans = [shown[k][1] for k in np.argsort(-rises, kind="stable")[:3] if rises[k] > 0]
        texts[minimum] += f"; {explanation.dataset.kind.score_name} {explanation.performance.each[place]:.3f} alone"
        texts[minimum] += f"; leans on {', '.join(leans)}" if leans else ""
    return texts
