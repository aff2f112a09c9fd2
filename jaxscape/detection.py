"""Find the symmetry of a network of one's own: which weights belong to interchangeable hidden units."""

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxscape.objective import from_loss, value
from jaxscape.symmetry import HiddenLayer, Symmetry

_MOST_TRIES = 20_000  # sets of axes, for each number of units
_NOISE = 0.5  # of the data: what only the data at hand have in common is no symmetry of the network


class _Axis(NamedTuple):
    """An axis of an array, or one that it is made of: `part (units, width)` says where the weights of each unit are."""

    leaf: int
    axis: int
    part: Int[np.ndarray, "units width"]

    @property
    def size(self) -> int:
        return len(self.part)


def of(params: Any, loss: Callable[[Any, Any], Any], data: Any = None) -> Symmetry:
    """See `symmetry.of`."""
    objective = from_loss(loss, params, _noisy(data))
    leaves = jax.tree.leaves(params)
    places = np.split(np.arange(objective.dim), np.cumsum([np.size(leaf) for leaf in leaves])[:-1])
    indices = [place.reshape(np.shape(leaf)) for place, leaf in zip(places, leaves, strict=True)]
    rng = np.random.default_rng(0)
    dtype = jnp.result_type(float)
    point = rng.normal(size=objective.dim) / np.sqrt(max(map(_fan_in, leaves), default=1))
    evaluate = jax.jit(lambda x: value(objective, x))
    before = float(evaluate(jnp.asarray(point, dtype)))
    if not np.isfinite(before):
        raise ValueError(f"the loss is {before} at random parameters: give the symmetry by hand")
    rounding = 1e3 * float(jnp.finfo(dtype).eps) * max(abs(before), 1.0)

    def same(moved: Float[np.ndarray, " P"]) -> bool:
        return abs(float(evaluate(jnp.asarray(moved, dtype))) - before) <= rounding

    used = [not same(_changed(point, each.ravel(), rng)) for each in indices]
    axes = [
        _Axis(i, k, _part(each, k))
        for i, each in enumerate(indices)
        if used[i]
        for k, size in enumerate(each.shape)
        if size > 1
    ]
    groups: list[tuple[_Axis, ...]] = []

    def take(candidates: list[_Axis]) -> None:
        """Enter the sets of axes of one length that may be permuted together, none of them used twice."""
        gone: set[tuple[int, int]] = set()
        for chosen in _subsets(candidates):
            orders = (np.roll(np.arange(chosen[0].size), 1), np.r_[1, 0, np.arange(2, chosen[0].size)])
            if not any(axis[:2] in gone for axis in chosen) and all(
                same(_permuted(point, chosen, order)) for order in orders
            ):
                groups.append(chosen)
                gone.update(axis[:2] for axis in chosen)

    for size in sorted({axis.size for axis in axes}):
        take([axis for axis in axes if axis.size == size])
    # Behind a flattened image an axis holds channels and places: looked at where units are left without one.
    taken = {axis[:2] for group in groups for axis in group}
    left = [axis for axis in axes if axis[:2] not in taken]
    for size in sorted({axis.size for axis in left}):
        composed = [part for axis in left for part in _split(indices[axis.leaf], axis, size)]
        if composed:
            take([*(axis for axis in left if axis.size == size), *composed])
    layers = [_layer(group, point, 10 * rounding, evaluate, rng) for group in groups]
    odd = bool(layers) and all(same(_flipped(point, layer)) for layer in layers)
    return Symmetry(tuple(_in_order(layers)), dim=objective.dim, odd=odd)


def _part(indices: np.ndarray, axis: int) -> Int[np.ndarray, "units width"]:
    return np.moveaxis(indices, axis, 0).reshape(indices.shape[axis], -1)


def _split(indices: np.ndarray, axis: _Axis, size: int) -> list[_Axis]:
    """Take an axis for that of places and `size` channels, the channels last or first."""
    number, rest = divmod(axis.size, size)
    if rest or number == 1:
        return []
    before, after = indices.shape[: axis.axis], indices.shape[axis.axis + 1 :]
    last, first = (indices.reshape(*before, *both, *after) for both in ((number, size), (size, number)))
    return [_Axis(*axis[:2], _part(last, axis.axis + 1)), _Axis(*axis[:2], _part(first, axis.axis))]


def _noisy(data: Any) -> Any:
    rng = np.random.default_rng(1)

    def noisy(leaf: Any) -> Any:
        array = np.asarray(leaf)
        if array.dtype.kind != "f" or array.size == 0:
            return leaf
        spread = float(array.std()) or 1.0
        return jnp.asarray(array + _NOISE * spread * rng.uniform(-1, 1, array.shape), array.dtype)

    return jax.tree.map(noisy, data)


def _fan_in(leaf: Any) -> int:
    return max(np.shape(leaf), default=1)


def _changed(point: np.ndarray, at: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    moved = point.copy()
    moved[at] += rng.normal(size=at.shape)
    return moved


def _subsets(axes: list[_Axis]) -> Iterator[tuple[_Axis, ...]]:
    """Give the sets of axes, small ones first; two of one array only where there are no others."""
    tried = 0
    for number in range(1, len(axes) + 1):
        tried += math.comb(len(axes), number)
        if tried > _MOST_TRIES:
            if number <= 3:
                raise ValueError(f"{len(axes)} axes are equally long, too many to try: give the symmetry by hand")
            return
        yield from itertools.combinations(axes, number)


def _permuted(point: np.ndarray, axes: tuple[_Axis, ...], order: np.ndarray) -> np.ndarray:
    moved = point.copy()
    for axis in axes:
        moved[axis.part] = moved[axis.part[order]]
    return moved


def _flipped(point: np.ndarray, layer: HiddenLayer) -> np.ndarray:
    moved = point.copy()
    moved[layer.units[0]] *= -1
    return moved


def _layer(
    axes: tuple[_Axis, ...],
    point: np.ndarray,
    rounding: float,
    evaluate: Callable[[Any], Any],
    rng: np.random.Generator,
) -> HiddenLayer:
    """Sort the weights of units: without the outgoing ones nothing else about a unit matters."""
    parts = [axis.part for axis in axes]
    outgoing: list[int] = []
    unit = np.concatenate([part[0] for part in parts])
    elsewhere = np.setdiff1d(np.arange(len(point)), unit)
    for number in range(1, len(parts)):
        for chosen in itertools.combinations(range(len(parts)), number):
            without = point.copy()
            without[np.concatenate([parts[j][0] for j in chosen])] = 0
            other = _changed(without, elsewhere, rng)
            rest = np.concatenate([parts[j][0] for j in range(len(parts)) if j not in chosen])
            step = rng.normal(size=rest.shape)
            rises = []
            for start in (without, other):
                moved = start.copy()
                moved[rest] += step
                rises.append(float(evaluate(jnp.asarray(moved))) - float(evaluate(jnp.asarray(start))))
            # A penalty may still rise, but by as much whatever the other weights are.
            if abs(rises[0] - rises[1]) <= rounding:
                outgoing = list(chosen)
                break
        if outgoing:
            break
    others = [part for j, part in enumerate(parts) if j not in outgoing]
    single = [part for part in others if part.shape[1] == 1]
    incoming = np.concatenate([*(part for part in others if part.shape[1] > 1), *single[1:], others[0][:, :0]], axis=1)
    bias: Int[np.ndarray, " units"] = single[0][:, 0] if single else incoming[:, 0]
    if not single:
        incoming = incoming[:, 1:]
    leaving = [parts[j] for j in outgoing] or [others[0][:, :0]]
    return HiddenLayer(incoming, bias, np.concatenate(leaving, axis=1))


def _in_order(layers: list[HiddenLayer]) -> list[HiddenLayer]:
    """Sort layers from the input on: one comes after those whose outgoing weights are its incoming ones."""
    ordered: list[HiddenLayer] = []
    left = list(layers)
    while left:
        first = next(
            (
                layer
                for layer in left
                if not any(np.intersect1d(layer.incoming, other.outgoing).size for other in left if other is not layer)
            ),
            left[0],
        )
        ordered.append(first)
        left = [layer for layer in left if layer is not first]
    return ordered
