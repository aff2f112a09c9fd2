"""How the networks of an explanation predict, and how that moves with a column, in the table's own units."""

import jax
import numpy as np
from jaxtyping import Float

from jaxscape.analysis.effects import Effect, Predict, accumulated_effect
from jaxscape.table import predict
from jaxscape.table.datasets import Encoding
from jaxscape.table.explain import Explanation

_MAX_ROWS = 2000  # that effects are measured on, and that are predicted at once


def outputs_of(explanation: Explanation) -> Predict:
    """Return `outputs(x) -> (m, R)`: what each network predicts for encoded rows, in units of the target, or as the
    probability of the second of two classes, the last of several."""
    members, dataset, quantity = explanation.members, explanation.dataset, encoding_of(explanation).quantity
    # In blocks of as many rows as are held out: for these a program is compiled already.
    size = min(len(dataset.x_test), _MAX_ROWS)

    def outputs(x: Float[np.ndarray, "R inputs"]) -> Float[np.ndarray, "m R"]:
        filled = np.concatenate([x, np.zeros((-len(x) % size, x.shape[1]))])
        with jax.enable_x64(True):
            blocks = np.split(filled, len(filled) // size)
            found = np.concatenate([predict.each(members, dataset.task, block) for block in blocks], axis=1)
        found = found[:, : len(x)]
        if dataset.task == "multiclass":
            return found[..., -1]
        return found if quantity is None else found * quantity.spread * quantity.scale

    return outputs


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
    return Effect(np.arange(each.shape[1], dtype=float), each - each.mean(axis=1, keepdims=True), weights), names


def predicted_name(explanation: Explanation) -> str:
    """Name what is predicted, for an axis."""
    dataset = explanation.dataset
    return dataset.target if dataset.task == "regression" else f"P({dataset.target} = {dataset.classes[-1]})"


def encoding_of(explanation: Explanation) -> Encoding:
    """Return how the columns of the table became inputs."""
    found = explanation.dataset.encoding
    assert found is not None
    return found
