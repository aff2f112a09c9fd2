"""How the networks of an explanation predict, and how that moves with a column, in the table's own units."""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Float

from jaxscape.analysis.effects import Effect, Interaction, Predict, accumulated_effect, interactions
from jaxscape.table import predict
from jaxscape.table.datasets import Encoding, decode, unit_of
from jaxscape.table.explain import Explanation

_MAX_ROWS = 2000  # that effects are measured on, and that are predicted at once
_PAIRED_ROWS = 50  # each is predicted with the values of each


def outputs_of(explanation: Explanation) -> Predict:
    """Return `outputs(x) -> (m, R)`: what each network predicts for encoded rows, in units of the target, or as the
    probability of the second of two classes, the last of several."""
    members, dataset = explanation.members, explanation.dataset

    def outputs(x: Float[np.ndarray, "R inputs"]) -> Float[np.ndarray, "m R"]:
        found = _in_blocks(explanation, lambda block: predict.each(members, dataset.kind, block), x)
        if dataset.kind.is_quantity:
            return decode(encoding_of(explanation), found)
        return found[..., -1] if found.ndim == 3 else found

    return outputs


def column_interactions(explanation: Explanation, places: list[int]) -> list[Interaction]:
    """Rank pairs of columns by what they do together on the scale that is learnt: in units of the target, bent where it
    is, or of logits (of several classes the length of the vector of all, less their mean).

    Args:
        explanation: of a table whose encoding is known.
        places: of the columns, in the dataset.
    """
    members, dataset = explanation.members, explanation.dataset

    def outputs(x: Float[np.ndarray, "R inputs"]) -> Float[np.ndarray, "m R K"]:
        found = _in_blocks(explanation, lambda block: predict.outputs(members, block), x)
        # Of several classes what is added to all logits changes nothing.
        return found * unit_of(dataset.encoding) if found.shape[2] == 1 else found - found.mean(axis=2, keepdims=True)

    rng = np.random.default_rng(explanation.config.seed)
    rows = rng.choice(len(dataset.x_train), min(_PAIRED_ROWS, len(dataset.x_train)), replace=False)
    return interactions(outputs, dataset.x_train[rows], dataset.column, places, members.weights)


def _in_blocks(
    explanation: Explanation, run: Callable[[np.ndarray], np.ndarray], x: Float[np.ndarray, "R inputs"]
) -> Float[np.ndarray, "m R *K"]:
    """Predict rows in blocks of as many as are held out: for these a program is compiled already."""
    size = min(len(explanation.dataset.x_test), _MAX_ROWS)
    filled = np.concatenate([x, np.zeros((-len(x) % size, x.shape[1]))])
    with jax.enable_x64(True):
        found = [run(block) for block in np.split(filled, len(filled) // size)]
    return np.concatenate(found, axis=1)[:, : len(x)]


def column_effect(explanation: Explanation, place: int) -> tuple[Effect, list[str] | None]:
    """Measure how the prediction moves with a column.

    Args:
        explanation: of a table whose encoding is known.
        place: of the column, in the dataset.

    Returns:
        The effect, at places in units of the column, and None; or of each category, and their names.
    """
    dataset, encoding = explanation.dataset, encoding_of(explanation)
    inputs = np.flatnonzero(dataset.column == place)
    rows = dataset.x_train[:: -(-len(dataset.x_train) // _MAX_ROWS)]
    known, weights, outputs = encoding.columns[place], explanation.members.weights, outputs_of(explanation)
    if known.categories is None:
        found = accumulated_effect(outputs, rows, int(inputs[0]), weights)
        standard = found.at * encoding.spread[inputs[0]] + encoding.centre[inputs[0]]
        return found._replace(at=(standard * known.spread + known.centre) * known.scale), None
    # Categories have no order to accumulate along: every row takes each of them in turn.
    means = []
    for chosen in range(-1 if len(inputs) == 1 else 0, len(inputs)):
        moved = rows.copy()
        ones = np.arange(len(inputs)) == chosen
        moved[:, inputs] = (ones - encoding.centre[inputs]) / encoding.spread[inputs]
        means.append(outputs(moved).mean(axis=1))
    each = np.stack(means, axis=1)
    names = ["(any other)", *known.categories] if len(inputs) == 1 else list(known.categories)
    shares = (rows[:, inputs] * encoding.spread[inputs] + encoding.centre[inputs]).mean(axis=0)
    shares = np.append(1 - shares, shares) if len(inputs) == 1 else shares
    places = np.arange(each.shape[1], dtype=float)
    return Effect(places, each - each.mean(axis=1, keepdims=True), weights, shares), names


def predicted_name(explanation: Explanation) -> str:
    """Name what is predicted, for an axis."""
    dataset = explanation.dataset
    return dataset.target if dataset.kind.is_quantity else f"P({dataset.target} = {dataset.classes[-1]})"


def encoding_of(explanation: Explanation) -> Encoding:
    """Return how the columns of the table became inputs."""
    found = explanation.dataset.encoding
    assert found is not None
    return found
