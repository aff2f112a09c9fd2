"""Figures, with matplotlib. Every function draws into the axes it is given, or new ones, and returns them."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxscape.analysis.disconnectivity import MergeTree, layout
from jaxscape.analysis.effects import Effect
from jaxscape.analysis.validation import PermutationTest

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#d1495b", "#00798c", "#edae49", "#6a4c93", "#66a182", "#2e4057")
_GROUP, _REST, _SURE = "#d1495b", "#8a94a6", "#30638e"
_FOOT = 0.12  # of the height, for how many rows there are where


def _axes(ax: "Axes | None") -> "Axes":
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots()[1]


def disconnectivity_graph(
    tree: MergeTree,
    energies: Float[np.ndarray, " M"],
    *,
    group: Int[np.ndarray, " m"] | None = None,
    labels: Int[np.ndarray, " M"] | None = None,
    level: float | None = None,
    num_levels: int = 25,
    axis: str = "loss",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw a disconnectivity graph; dashed where a path, no transition state, joins a branch.

    Args:
        tree: from `disconnectivity.tree_of` or `disconnectivity.merge_tree`.
        energies: energies of the minima.
        group: minima to colour; a branch has the colour if all minima below it do.
        labels: instead of one group, a number for each minimum, -1 for none: each number has a colour of its own.
        level: an energy to mark with a line.
        num_levels: evenly spaced energies at which branches are drawn to meet.
        axis: what the energies are called, "loss" or, of atoms, "energy".
        ax: where to draw.
    """
    from matplotlib.collections import LineCollection

    ax = _axes(ax)
    drawing = layout(tree, energies, num_levels=num_levels)
    if labels is None:
        labels = np.where(np.isin(np.arange(len(energies)), [] if group is None else group), 0, -1)
    below = [labels[drawing.order[first:last]] for first, last in drawing.span]
    same = [int(each[0]) if np.all(each == each[0]) else -1 for each in below]
    colours = [_COLOURS[label % len(_COLOURS)] if label >= 0 else _REST for label in same]
    styles = ["dashed" if bound else "solid" for bound in drawing.bound]
    ax.add_collection(LineCollection(list(drawing.segments), colors=colours, linewidths=1.3, linestyles=styles))
    if level is not None:
        ax.axhline(level, color="black", linewidth=0.6, linestyle=":")
    x, y = drawing.segments[..., 0], drawing.segments[..., 1]
    margin = 0.03 * (np.ptp(y) or 1)
    ax.set_xlim(x.min() - 1, x.max() + 1)
    ax.set_ylim(y.min() - margin, y.max() + margin)
    ax.set_xticks([])
    ax.set_ylabel(axis)
    for side in ("top", "right", "bottom"):
        ax.spines[side].set_visible(False)
    return ax


def barcode(
    persistence: Float[np.ndarray, " M"],
    energies: Float[np.ndarray, " M"],
    *,
    axis: str = "loss",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the barcode of a merge tree: a bar for each minimum, from its energy up to where it joins a lower one.

    Args:
        persistence: from `disconnectivity.persistence`; a bar without end gets an arrow.
        energies: energies of the minima.
        axis: what the energies are called, "loss" or, of atoms, "energy".
        ax: where to draw.
    """
    ax = _axes(ax)
    order = np.lexsort((energies, -persistence))
    top = float(np.max((energies + persistence)[np.isfinite(persistence)], initial=energies.max()))
    top += 0.05 * (top - float(energies.min())) or 1.0
    endless = ~np.isfinite(persistence[order])
    places = np.arange(len(energies))
    ends = np.where(endless, top, (energies + persistence)[order])
    colours = np.where(endless, _GROUP, _SURE)
    ax.hlines(places, energies[order], ends, color=colours, linewidth=2.5, capstyle="round")  # Short ones are dots.
    ax.plot(ends[endless], places[endless], linestyle="none", marker=">", color=_GROUP, markersize=5)
    ax.set_yticks([])
    ax.invert_yaxis()
    ax.set_xlabel(axis)
    for side in ("top", "right", "left"):
        ax.spines[side].set_visible(False)
    return ax


def feature_bars(
    names: list[str],
    scores: Float[np.ndarray, " features"],
    errors: Float[np.ndarray, " features"] | None = None,
    *,
    sure: Bool[np.ndarray, " features"] | None = None,
    most: int = 12,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the highest importances as horizontal bars, with whiskers of length `errors`; those not `sure` are grey."""
    ax = _axes(ax)
    top = np.argsort(-scores, kind="stable")[:most][::-1]
    spread = None if errors is None else errors[top]
    colours = [_SURE if sure is None or sure[i] else _REST for i in top]
    ax.barh(np.arange(len(top)), scores[top], xerr=spread, color=colours, ecolor="black", capsize=2, height=0.7)
    ax.axvline(0, color="black", linewidth=0.6)
    ax.set_yticks(np.arange(len(top)), [_plain(names[i]) for i in top])
    ax.set_xlabel("rise of the loss on rows not seen, without what the column tells")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def effect(
    found: Effect,
    column: str,
    predicted: str,
    *,
    names: list[str] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw how a prediction moves with a column, with a band of two standard deviations over the networks.

    Along the foot stands how many rows there are where.

    Args:
        found: from `effects.accumulated_effect`.
        column: its name.
        predicted: what is predicted, for the axis.
        names: of the places, where they are categories: bars instead of a curve.
        ax: where to draw.
    """
    ax = _axes(ax)
    if names is None:
        ax.fill_between(found.at, found.mean - 2 * found.std, found.mean + 2 * found.std, color=_SURE, alpha=0.2)
        ax.plot(found.at, found.mean, color=_SURE)
    else:
        ax.bar(found.at, found.mean, yerr=2 * found.std, color=_SURE, ecolor="black", capsize=2, width=0.7)
        ax.set_xticks(found.at, [_plain(name) for name in names], rotation=45 if len(names) > 4 else 0)
    width = np.ptp(found.at) / len(found.density) if names is None else 0.7
    left = found.at[0] + width * np.arange(len(found.density)) if names is None else found.at - width / 2
    foot = _FOOT * found.density / found.density.max()
    ax.bar(left, foot, width, align="edge", color=_REST, alpha=0.5, zorder=0, transform=ax.get_xaxis_transform())
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set_xlabel(_plain(column))
    ax.set_ylabel(f"effect on {_plain(predicted)}", fontsize=8)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def waterfall(
    names: list[str],
    contributions: Float[np.ndarray, " columns"],
    spreads: Float[np.ndarray, " columns"],
    base: float,
    predicted: str,
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw what moved one prediction away from the mean, column by column, the last below the others.

    Whiskers: two standard deviations over the networks.

    Args:
        names: of the columns, with their values.
        contributions: of each, which add up from `base` to the prediction.
        spreads: how far the networks differ in each.
        base: the mean prediction.
        predicted: what is predicted, for the axis.
        ax: where to draw.
    """
    ax = _axes(ax)
    ends = base + np.cumsum(contributions)
    places = np.arange(len(names))
    colours = np.where(contributions > 0, _SURE, _GROUP)
    begins = ends - contributions
    ax.barh(places, contributions, left=begins, xerr=2 * spreads, color=colours, ecolor="black", capsize=2)
    ax.vlines(ends[:-1], places[:-1], places[1:], color=_REST, linewidth=0.8)
    ax.axvline(base, color="black", linewidth=0.6, linestyle=":")
    ax.set_yticks(places, [_plain(name) for name in names])
    ax.invert_yaxis()
    ax.set_xlabel(f"{_plain(predicted)}: from {base:.4g} on average to {ends[-1]:.4g}")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def conserved_levels(
    shares: Float[np.ndarray, "levels inputs"],
    levels: list[str],
    inputs: list[str],
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw how the conserved weights change from superbasin to superbasin: the share of each input's, as shades.

    Args:
        shares: from 0 to 1, the first row at the top.
        levels: a name for each row.
        inputs: a name for each column.
        ax: where to draw.
    """
    ax = _axes(ax)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    ax.set_xticks(np.arange(len(inputs)), [_plain(name) for name in inputs], rotation=90, fontsize=7)
    ax.set_yticks(np.arange(len(levels)), levels, fontsize=8)
    ax.set_ylabel("loss of the cut (minima)")
    ax.figure.colorbar(image, ax=ax, label="conserved share", fraction=0.03, pad=0.01)
    return ax


def conserved_map(
    mean: Float[np.ndarray, "units inputs"],
    mask: Bool[np.ndarray, "units inputs"],
    names: list[str],
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the mean input weights of a group, hidden units by inputs, the conserved ones framed."""
    from matplotlib.patches import Rectangle

    ax = _axes(ax)
    bound = float(np.abs(mean).max()) or 1.0
    image = ax.imshow(mean, cmap="RdBu_r", vmin=-bound, vmax=bound, aspect="auto")
    for unit, column in zip(*np.nonzero(mask), strict=True):
        ax.add_patch(Rectangle((column - 0.5, unit - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.4))
    ax.set_xticks(np.arange(len(names)), [_plain(name) for name in names], rotation=90, fontsize=7)
    ax.set_yticks(np.arange(len(mean)), [str(unit + 1) for unit in range(len(mean))])
    ax.set_ylabel("hidden unit")
    ax.figure.colorbar(image, ax=ax, label="mean weight", fraction=0.03, pad=0.01)
    return ax


def permutation_test(
    test: PermutationTest,
    *,
    matched: PermutationTest | None = None,
    score: str = "AUC",
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the scores after shuffling random sets as a histogram, the conserved set and the baseline as lines.

    With `matched`, the scores of sets matched in magnitude are drawn as a second histogram.
    """
    ax = _axes(ax)
    drawn = np.concatenate([each.random for each in (test, matched) if each is not None])
    bins = np.histogram_bin_edges(drawn, 40).tolist()
    ax.hist(np.asarray(test.random), bins=bins, color=_REST, label="random sets")
    if matched is not None:
        label = "random sets of similar magnitude"
        ax.hist(np.asarray(matched.random), bins=bins, histtype="step", color=_SURE, linewidth=1.5, label=label)
    ax.axvline(float(np.mean(test.conserved)), color=_GROUP, linewidth=2, label="conserved weights")
    ax.axvline(float(test.baseline), color="black", linewidth=1, linestyle="--", label="nothing shuffled")
    ax.set_xlabel(f"held-out {score} after shuffling")
    ax.set_ylabel("random sets")
    ax.legend(frameon=False, fontsize=8)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    return ax


def _plain(name: str, longest: int = 32) -> str:
    """Shorten a name, keep matplotlib from reading mathematics into it, and leave out what no file can hold."""
    name = "".join(letter if letter.isprintable() else " " for letter in name)
    name = name if len(name) <= longest else name[: longest - 1] + "…"
    return name.replace("$", r"\$")
