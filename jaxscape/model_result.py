"""One call for a network of one's own: `explain_model(loss, params, data)`, and what it returns."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int

from jaxscape import symmetry as symmetries
from jaxscape.analysis import conserved, disconnectivity
from jaxscape.analysis.conserved import ConservedWeights
from jaxscape.analysis.disconnectivity import MergeTree
from jaxscape.cores import all_cores
from jaxscape.landscape import database
from jaxscape.landscape.config import ExploreConfig
from jaxscape.landscape.database import Landscape
from jaxscape.landscape.doubts import empty_because
from jaxscape.landscape.explore import explore
from jaxscape.landscape.stopping import Budget, coverage_of
from jaxscape.objective import Objective, from_loss, ravel
from jaxscape.symmetry import Symmetry

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

_MIN_GROUP = 10
_MOST_GRADIENTS = 7_000_000
_SETTINGS = ExploreConfig(num_minima=100, coverage=0.95, num_lanes=4)


@dataclass(frozen=True, repr=False)
class ModelResult:
    """What `explain_model` found out.

    `objective`, its `symmetry` and the `landscape`; the merge `tree`, the `level` it is cut at, and the ids of the
    minima of the `group` that holds the lowest one below it, the lowest first; `weights`: what is conserved in this
    group, as flat vectors. `minimum(i)`, `mean`, `std`, `mask` are parameters as they were given.
    """

    objective: Objective
    symmetry: Symmetry
    landscape: Landscape
    tree: MergeTree
    level: float
    group: Int[np.ndarray, " g"]
    weights: ConservedWeights

    def minimum(self, i: int | np.integer) -> Any:
        """Return the parameters at a minimum; the lowest is `group[0]`."""
        return self._params(self.landscape.minima.positions[i])

    @property
    def mean(self) -> Any:
        """The mean of each parameter over the group, its minima moved to their copies nearest to the lowest."""
        return self._params(self.weights.mean[0])

    @property
    def std(self) -> Any:
        """How far each parameter differs between the minima of the group."""
        return self._params(self.weights.std[0])

    @property
    def mask(self) -> Any:
        """Which parameters are conserved."""
        return jax.tree.map(lambda leaf: np.asarray(leaf) > 0.5, self._params(self.weights.mask[0].astype(float)))

    def frame(self) -> "pd.DataFrame":
        """Return the minima, the lowest first: loss, lowest eigenvalue of the Hessian, whether in the group, visits."""
        import pandas as pd

        minima = self.landscape.minima
        content = {
            "loss": minima.energies,
            "lowest_eigenvalue": minima.eigenvalues,
            "in_group": np.isin(np.arange(len(minima.energies)), self.group),
            "visits": minima.visits,
        }
        return pd.DataFrame(content).rename_axis("minimum").sort_values("loss", kind="stable")

    def plot(self, *, ax: "Axes | None" = None) -> "Axes":
        """Draw the disconnectivity graph, the group coloured; see `plotting.disconnectivity_graph`."""
        from jaxscape import plotting

        energies = self.landscape.minima.energies
        return plotting.disconnectivity_graph(self.tree, energies, group=self.group, level=self.level, ax=ax)

    def save(self, file: str | Path) -> None:
        """Write the landscape to an `.npz` file, for `database.load`."""
        database.save(file, self.landscape)

    def __repr__(self) -> str:
        minima = self.landscape.minima.energies
        layers = [f"{len(layer.bias)} units" for layer in self.symmetry.layers]
        odd = ", signs free" if self.symmetry.odd else ""
        kind = f"interchangeable: {' and '.join(layers)}{odd}" if layers else "no interchangeable units"
        known = " and ".join(
            f"{seen.coverage:.0%} for {what}"
            for seen, what in zip(coverage_of(self.landscape), ("minima", "transition states"), strict=True)
        )
        return "\n".join(
            [
                f"<jaxscape: the loss landscape of {self.objective.dim} parameters ({kind})>",
                f"{_state(self.landscape)}; lowest loss {minima.min():.6g}; the next find is a known one with a chance "
                f"of {known}",
                f"{int(self.weights.mask[0].sum())} of {self.objective.dim} parameters are conserved over the "
                f"{len(self.group)} minima joined to the lowest below a loss of {self.level:.6g}",
            ]
        )

    def _repr_html_(self) -> str:
        import html

        from matplotlib.figure import Figure

        figure = Figure(figsize=(5, 3.2), layout="constrained")
        self.plot(ax=figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg")
        lines = "".join(f"<p>{html.escape(line.strip('<>'))}</p>" for line in repr(self).splitlines())
        return f"<div>{lines}{buffer.getvalue()[buffer.getvalue().index('<svg') :]}</div>"

    def _params(self, position: np.ndarray) -> Any:
        with jax.enable_x64(True):
            return self.objective.unravel(jnp.asarray(position))


def explain_model(
    loss: Callable[[Any, Any], Any],
    params: Any,
    data: Any = None,
    *,
    symmetry: Symmetry | None = None,
    seconds: float = math.inf,
    seed: int = 0,
    threshold: float = 0.3,
    candidates: Any = None,
    config: ExploreConfig = _SETTINGS,
    progress: Callable[[str], None] | None = None,
) -> ModelResult:
    """Explore the loss landscape of a network of one's own, and find the weights that its good minima agree on.

    It runs in float64, whatever the parameters and data are in, and leaves JAX's settings as they are.

    Args:
        loss: `loss(params, data) -> scalar`, smooth, with an L2 penalty in it: without one minima are not isolated.
        params: a pytree of parameters, such as a trained network, where the search sets out; any others will do.
        data: a pytree, given to the loss.
        symmetry: which units are interchangeable; found by probing the loss by default (`symmetry.of`).
        seconds: stop exploring after so many; by default when it is complete, or 10 million gradients or 1,000
            rounds are spent.
        seed: same seed, same result (without `seconds`).
        threshold: the share of the candidates that is called conserved.
        candidates: a pytree like `params` of booleans, one for each leaf or for each of its parameters: which may be
            called conserved. By default the weights into the first hidden layer, all where there is none.
        config: settings of the exploration.
        progress: called with a sentence after every round.

    Returns:
        The result: `plot()`, `frame()`, `minimum(i)`, `mean`, `std`, `mask`, `save(file)`.

    Raises:
        ValueError: if the loss or the symmetry cannot be used, or no minimum was found; the message says why.

    >>> def loss(params, data):
    ...     return (params["x"] ** 2 - 1) ** 2 + 0.1 * params["x"]
    >>> found = explain_model(loss, {"x": jnp.zeros(())})
    >>> found.frame()["loss"].round(3).tolist(), round(float(found.minimum(found.group[0])["x"]), 2)
    ([-0.101, 0.099], -1.01)
    """
    with jax.enable_x64(True), all_cores():
        params, data = jax.tree.map(_in_double, params), jax.tree.map(_in_double, data)
        objective = from_loss(loss, params, data)
        symmetry = symmetries.of(params, loss, data) if symmetry is None else symmetry
        key, start_key = jax.random.split(jax.random.key(seed))
        drawn = jax.random.normal(start_key, (8, objective.dim), float)
        starts = drawn.at[0].set(ravel(params))
        tell = None if progress is None else lambda exploration: progress(_state(exploration.landscape))
        budget = Budget(1_000, _MOST_GRADIENTS, seconds)
        landscape = explore(objective, symmetry, starts, key, config, budget=budget, on_round=tell)
    if (doubt := empty_because(landscape)) is not None:
        raise ValueError(f"no minimum was found: {doubt}")
    tree, energies = disconnectivity.tree_of(landscape), landscape.minima.energies
    level = disconnectivity.choose_level(tree, energies, min_size=_MIN_GROUP)
    labels = disconnectivity.superbasins(tree, level)
    joint = np.flatnonzero(labels == labels[energies.argmin()])
    group = joint[np.argsort(energies[joint], kind="stable")]
    one_group = np.zeros(len(group), int)
    aligned, _ = conserved.align_groups(symmetry, landscape.minima.positions[group], energies[group], one_group)
    may_be = _flat_candidates(params, candidates, symmetry)
    weights = conserved.conserved_weights(aligned, one_group, threshold=threshold, candidates=may_be)
    return ModelResult(objective, symmetry, landscape, tree, level, group, weights)


def _in_double(leaf: Any) -> Any:
    array = jnp.asarray(leaf) if isinstance(leaf, jax.Array | np.ndarray | float) else leaf
    return array.astype(float) if hasattr(array, "dtype") and jnp.issubdtype(array.dtype, jnp.floating) else leaf


def _state(landscape: Landscape) -> str:
    parts = len(np.unique(database.components(landscape)))
    states = len(landscape.transition_states.energies)
    minima = len(landscape.minima.energies)
    return (
        f"{minima} minim{'um' if minima == 1 else 'a'} in {parts} part{'s' * (parts != 1)}, {states} transition "
        f"state{'s' * (states != 1)}"
    )


def _flat_candidates(params: Any, candidates: Any, symmetry: Symmetry) -> Bool[np.ndarray, " P"] | None:
    if candidates is None:
        return symmetries.input_weights(symmetry) if symmetry.layers else None
    whole = jax.tree.map(
        lambda leaf, chosen: np.broadcast_to(np.asarray(chosen, bool), np.shape(leaf)), params, candidates
    )
    return np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(whole)])
