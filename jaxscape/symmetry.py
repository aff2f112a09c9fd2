"""What leaves a model unchanged: permutations of hidden units, sign flips for odd activations; the moves of a cluster.

Host code (NumPy): two points that differ by such a move are permutational isomers, one point of the landscape.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

from jaxscape import clusters

_MAX_SWEEPS = 50
_MAX_UNITS = 8  # of which all subsets are gone through, for many pairs at once
_MAX_NUMBERS = 1 << 18  # that fit the cache


class HiddenLayer(NamedTuple):
    """Where the weights of the units of one hidden layer stand in the flat vector.

    `incoming (units, fan_in)`, `bias (units,)` and `outgoing (units, fan_out)` hold indices.
    """

    incoming: Int[np.ndarray, "units fan_in"]
    bias: Int[np.ndarray, " units"]
    outgoing: Int[np.ndarray, "units fan_out"]

    @property
    def units(self) -> Int[np.ndarray, "units width"]:
        """All indices of each unit, one row per unit: what moves together."""
        return np.concatenate([self.incoming, self.bias[:, None], self.outgoing], axis=1)


class Symmetry(NamedTuple):
    """The symmetry group of a model: the hidden layers whose units may be permuted.

    `odd` says that the activation is odd, so that the sign of a unit (all its weights at once) is free as well.
    `dim` is the length of the flat vector. No layers: no symmetry. With `num_atoms` the point is a cluster of that many
    identical atoms in three dimensions, the same after translation, rotation, inversion and permutation.
    """

    layers: tuple[HiddenLayer, ...]
    dim: int
    odd: bool = False
    num_atoms: int = 0


def input_weights(symmetry: Symmetry) -> Bool[np.ndarray, " P"]:
    """Say which weights lead from the inputs of a network: those into its first hidden layer, biases left out."""
    return np.isin(np.arange(symmetry.dim), symmetry.layers[0].incoming)


def apply(
    symmetry: Symmetry,
    x: Float[np.ndarray, "*batch P"],
    permutations: list[Int[np.ndarray, "_"]],
    signs: list[Float[np.ndarray, "_"]],
) -> Float[np.ndarray, "*batch P"]:
    """Move points by one element of the group.

    Args:
        symmetry: the group.
        x: points, the last axis of length `symmetry.dim`.
        permutations: for each hidden layer, the old unit that each new unit comes from.
        signs: for each hidden layer, +1 or -1 for each new unit.
    """
    moved = np.array(x)
    for layer, permutation, sign in zip(symmetry.layers, permutations, signs, strict=True):
        moved[..., layer.units] = moved[..., layer.units[permutation]] * sign[:, None]
    return moved


def align(
    symmetry: Symmetry, reference: Float[np.ndarray, " P"], x: Float[np.ndarray, "M P"]
) -> tuple[Float[np.ndarray, "M P"], Float[np.ndarray, " M"]]:
    """Move each point to its permutational isomer nearest to the reference.

    For one hidden layer the result is exact: the best sign of a pair of units is that of their inner product, which
    leaves a linear assignment. For deeper networks the layers are aligned in turn until nothing changes (as in weight
    matching, Ainsworth et al. 2022, arXiv:2209.04836), from where the point is and from a first match layer by layer;
    exact copies are found, but between different points the distance can stay above the smallest. The same holds for
    clusters, where many orientations are tried.

    Args:
        symmetry: the group.
        reference: the point to come close to.
        x: the points to move.

    Returns:
        The moved copies and their Euclidean distances to the reference.
    """
    if symmetry.num_atoms:
        moved = clusters.align(reference, x)
        return moved, np.linalg.norm(moved - reference, axis=1)
    moved = np.array(x)
    for row in moved:
        if len(symmetry.layers) == 1:
            _align_layer(symmetry, 0, reference, row)
        elif symmetry.layers:
            starts = [row.copy(), row.copy()]
            # Layer by layer from the inputs, blind to what comes after: finds exact copies.
            for depth in range(len(symmetry.layers)):
                _align_layer(symmetry, depth, reference, starts[1], incoming_only=True)
            for start in starts:
                _sweep(symmetry, reference, start)
            row[:] = min(starts, key=lambda point: float(np.linalg.norm(point - reference)))
    return moved, np.linalg.norm(moved - reference, axis=1)


def _sweep(symmetry: Symmetry, reference: np.ndarray, row: np.ndarray) -> None:
    for _ in range(_MAX_SWEEPS):
        if not any([_align_layer(symmetry, depth, reference, row) for depth in range(len(symmetry.layers))]):
            return


def _align_layer(
    symmetry: Symmetry, depth: int, reference: np.ndarray, row: np.ndarray, *, incoming_only: bool = False
) -> bool:
    """Align the units of one layer of `row` in place; say whether that brought it closer."""
    layer, odd = symmetry.layers[depth], symmetry.odd
    judged = np.concatenate([layer.incoming, layer.bias[:, None]], axis=1) if incoming_only else layer.units
    overlap = reference[judged] @ row[judged].T
    gain = np.abs(overlap) if odd else overlap
    new, old = linear_sum_assignment(gain, maximize=True)
    if not gain[new, old].sum() > np.trace(overlap) + 1e-12 * np.abs(overlap).sum():
        return False
    signs = np.where(overlap[new, old] < 0, -1.0, 1.0) if odd else np.ones(len(new))
    row[layer.units] = row[layer.units[old]] * signs[:, None]
    return True


def aligned_distances(
    symmetry: Symmetry, x: Float[np.ndarray, "n P"], y: Float[np.ndarray, "n P"]
) -> Float[np.ndarray, " n"]:
    """Return how far two points are apart after `align`, for many pairs: microseconds each with one narrow layer.

    Args:
        symmetry: the group.
        x: the first points, one per row.
        y: the second points.
    """
    if symmetry.num_atoms or len(symmetry.layers) != 1 or len(symmetry.layers[0].bias) > _MAX_UNITS:
        return np.array([align(symmetry, one, other[None])[1][0] for one, other in zip(x, y, strict=True)], float)
    rows = max(_MAX_NUMBERS // symmetry.dim, 1)
    parts = [_distances(symmetry, x[first : first + rows], y[first : first + rows]) for first in range(0, len(x), rows)]
    return np.concatenate(parts) if parts else np.empty(0)


def _distances(symmetry: Symmetry, x: np.ndarray, y: np.ndarray) -> Float[np.ndarray, " n"]:
    units = symmetry.layers[0].units
    free = np.setdiff1d(np.arange(symmetry.dim), units)
    # A product for each pair: its last digit is the same whatever the others are.
    gain = x[:, units] @ np.swapaxes(y[:, units], 1, 2)
    overlap = _best_assignments(np.abs(gain) if symmetry.odd else gain) + np.sum(x[:, free] * y[:, free], axis=1)
    return np.asarray(np.sqrt(np.maximum(np.sum(x**2, axis=1) + np.sum(y**2, axis=1) - 2 * overlap, 0)))


def _best_assignments(gain: Float[np.ndarray, "n H H"]) -> Float[np.ndarray, " n"]:
    """Return the highest sum of gains of an assignment of rows to columns: of the first rows to any set of columns, the
    sets in the order of their bits."""
    size, best = gain.shape[1], [np.zeros(len(gain))]
    for columns in range(1, 1 << size):
        row = columns.bit_count() - 1
        chosen = [j for j in range(size) if columns >> j & 1]
        best.append(np.max([best[columns ^ 1 << j] + gain[:, row, j] for j in chosen], axis=0))
    return best[-1]


def nth_copy(
    symmetry: Symmetry, reference: Float[np.ndarray, " P"], x: Float[np.ndarray, " P"], n: int
) -> Float[np.ndarray, " P"] | None:
    """Return the n-th nearest copy of a point to a reference among those that are easy to list.

    These are the copy that `align` finds and those one move away from it: one sign flipped, or two units, of one layer,
    or two atoms exchanged (with the best signs or rotation).

    Args:
        symmetry: the group.
        reference: the point to come close to.
        x: the point to move; `reference` itself gives its own copies, itself the first.
        n: counted from 0; copies that are the same point count once.

    Returns:
        The copy, or None where there are fewer. Only copies as near as the n-th are ever held at once.
    """
    nearest = align(symmetry, reference, x[None])[0][0]
    if n == 0:
        return nearest
    moves = _moves_away(symmetry, reference, nearest)
    distances = np.array([squared for squared, _ in moves])
    tolerance, found, alike = 1e-6 * (1 + np.linalg.norm(x)), 0, [nearest]
    for index in np.argsort(distances, kind="stable"):
        copy = moves[index][1]()
        # Copies that are one point are equally far from the reference: only such are compared.
        apart = np.linalg.norm(copy - reference)
        alike = [other for other in alike if np.linalg.norm(other - reference) >= apart - tolerance]
        if all(np.linalg.norm(copy - other) > tolerance for other in alike):
            alike.append(copy)
            found += 1
            if found == n:
                return copy
    return None


def _moves_away(
    symmetry: Symmetry, reference: Float[np.ndarray, " P"], nearest: Float[np.ndarray, " P"]
) -> list[tuple[float, Callable[[], Float[np.ndarray, " P"]]]]:
    """List the moves one away from a point: the squared distance from the reference each leads to, less a constant, and
    what makes it."""
    if symmetry.num_atoms:
        return clusters.exchanges(reference, nearest)
    moves: list[tuple[float, Callable[[], Float[np.ndarray, " P"]]]] = []
    for layer in symmetry.layers:
        units = nearest[layer.units]
        overlap = reference[layer.units] @ units.T
        signs = np.where(overlap < 0, -1.0, 1.0) if symmetry.odd else np.ones_like(overlap)
        if symmetry.odd:
            flip = functools.partial(_with_units, nearest, layer)
            moves += [(4 * overlap[i, i], functools.partial(flip, [i], -units[[i]])) for i in range(len(units))]
        for i, j in itertools.combinations(range(len(units)), 2):
            gain = signs[i, j] * overlap[i, j] + signs[j, i] * overlap[j, i]
            moved = functools.partial(_exchanged, nearest, layer, i, j, signs[i, j], signs[j, i])
            moves.append((2 * (overlap[i, i] + overlap[j, j] - gain), moved))
    return moves


def _exchanged(
    x: Float[np.ndarray, " P"], layer: HiddenLayer, i: int, j: int, sign_i: float, sign_j: float
) -> Float[np.ndarray, " P"]:
    units = x[layer.units[[j, i]]] * np.array([[sign_i], [sign_j]])
    return _with_units(x, layer, [i, j], units)


def _with_units(x: np.ndarray, layer: HiddenLayer, which: list[int], units: np.ndarray) -> np.ndarray:
    moved = x.copy()
    moved[layer.units[which]] = units
    return moved


def random_copy(symmetry: Symmetry, x: Float[np.ndarray, " P"], rng: np.random.Generator) -> Float[np.ndarray, " P"]:
    """Move a point by an element of the permutations and signs of hidden units, each equally likely."""
    permutations = [rng.permutation(len(layer.bias)) for layer in symmetry.layers]
    signs = [
        rng.choice([-1.0, 1.0], len(layer.bias)) if symmetry.odd else 1.0 + 0 * layer.bias for layer in symmetry.layers
    ]
    return apply(symmetry, x, permutations, signs)


def kill_units(symmetry: Symmetry, x: Float[np.ndarray, " P"], rng: np.random.Generator) -> Float[np.ndarray, " P"]:
    """Set all weights of some units of a hidden layer to zero: any number of them, equally likely."""
    layer = symmetry.layers[rng.integers(len(symmetry.layers))]
    dead = rng.permutation(len(layer.bias))[: rng.integers(1, len(layer.bias) + 1)]
    return _with_units(x, layer, dead.tolist(), np.zeros((len(dead), layer.units.shape[1])))


def point_group_order(symmetry: Symmetry, x: Float[np.ndarray, " P"], *, distance_tol: float = 1e-4) -> int:
    """Count the moves of the group that leave a point where it is: a whole number of any size.

    For networks: units of a layer that are equal up to sign can be permuted, and the sign of a unit whose weights are
    all zero is free (moves of several layers at once, which also occur in deep networks, are not counted). For
    clusters: the rotations and rotation-inversions of the point group.
    """
    if symmetry.num_atoms:
        return clusters.point_group_order(x, distance_tol)
    order = 1
    for layer in symmetry.layers:
        units = x[layer.units]
        left = list(range(len(units)))
        while left:
            apart = np.linalg.norm(units[left] - units[left[0]], axis=1)
            if symmetry.odd:
                apart = np.minimum(apart, np.linalg.norm(units[left] + units[left[0]], axis=1))
            same = [i for i, distance in zip(left, apart, strict=True) if distance <= distance_tol]
            if symmetry.odd and np.linalg.norm(units[left[0]]) <= distance_tol:
                order *= 2 ** len(same)
            order *= math.factorial(len(same))
            left = [i for i in left if i not in same]
    return order


def fingerprint(symmetry: Symmetry, x: Float[np.ndarray, "M P"]) -> Float[np.ndarray, "M F"]:
    """Return numbers that no move of the group changes: sorted norms of the units, and the weights of no unit.

    For a cluster: the sorted distances between its atoms, scaled. The distance between two fingerprints is at
    most sqrt(2) times the distance between the points up to symmetry (a weight between two hidden layers counts in
    both), so that far fingerprints prove two points distinct.
    """
    if symmetry.num_atoms:
        return clusters.fingerprint(x)
    free = np.ones(symmetry.dim, bool)
    for layer in symmetry.layers:
        free[layer.units] = False
    norms = [np.sort(np.linalg.norm(x[:, layer.units], axis=2), axis=1) for layer in symmetry.layers]
    return np.concatenate([*norms, x[:, free]], axis=1)


def of(params: Any, loss: Callable[[Any, Any], Any], data: Any = None) -> Symmetry:
    """Find the hidden units that may be permuted, and whether their signs are free, by trying it on the loss.

    Axes of the parameters that are equally long may belong to the units of one layer: the rows of one array, the
    columns of another. A set of axes does, if permuting all of them together leaves the loss as it is, at random
    parameters, on the data with noise added. So convolutions (whose channels are axes) and layers with a normalisation
    are found as well, also where the image is flattened behind them and an axis holds channels and places. What is not
    found: units that share an axis with something else.

    Args:
        params: a pytree of arrays; only shapes and dtypes are used. Leaves that are no arrays of numbers count for
            nothing.
        loss: `loss(params, data)`, as for `from_loss`.
        data: passed on to the loss.

    Returns:
        The symmetry, layers in order from the input; none, if nothing may be permuted. Where a layer has no bias one of
        its weights stands for it.

    Raises:
        ValueError: if so many axes are equally long that not all sets of them can be tried, or the loss is not finite
            at random parameters: give the symmetry by hand, as `Symmetry((HiddenLayer(incoming, bias, outgoing),),
            dim)`.
    """
    from jaxscape import detection

    return detection.of(params, loss, data)


def generators(symmetry: Symmetry) -> Mapping[str, Callable[[Float[np.ndarray, " P"]], Float[np.ndarray, " P"]]]:
    """Return moves that must leave the loss unchanged, and make up the group of the hidden units, each with a name."""
    found = {}
    for depth, layer in enumerate(symmetry.layers):
        size = len(layer.bias)
        same = [np.arange(len(each.bias)) for each in symmetry.layers]
        for name, order in (("in a circle", np.roll(np.arange(size), 1)), ("0 and 1", np.r_[1, 0, np.arange(2, size)])):
            if size > 1:
                permutations = [order if i == depth else each for i, each in enumerate(same)]
                signs = [np.ones(len(each)) for each in same]
                move = functools.partial(apply, symmetry, permutations=permutations, signs=signs)
                found[f"exchanging the units {name} of symmetry.layers[{depth}]"] = move
        if symmetry.odd:
            signs = [np.where((np.arange(len(each)) == 0) & (i == depth), -1.0, 1.0) for i, each in enumerate(same)]
            move = functools.partial(apply, symmetry, permutations=same, signs=signs)
            found[f"changing the sign of unit 0 of symmetry.layers[{depth}] (odd)"] = move
    return found
