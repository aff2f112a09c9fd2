"""Is anything missing? An audit by Morse's theorem, for up to twenty weights.

A loss that grows without end in all directions has, over all copies of all its stationary points, a sum of (-1)^index
of 1 (Morse 1925; Milnor, Morse Theory, 1963, section 5). The same holds of the loss on every subspace that moves of the
symmetry leave in place: smaller networks, some of whose units are equal, opposite or dead. Where all of these sums are
1, points can be missing only in sets that cancel in each of them.
"""

import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxscape.cores import on_device
from jaxscape.landscape.database import Landscape
from jaxscape.objective import Objective, hessian, value_and_grad
from jaxscape.programs import program
from jaxscape.search.points import rms
from jaxscape.symmetry import Symmetry, apply, random_copy

_MAX_WEIGHTS = 20
_MAX_MOVES = 5000  # of the group, all of which are tried on every point
_BATCH = 256
_CLIMBING, _NEWTON = 50, 12  # steps
_GRAD_RMS = 1e-9  # over the largest curvature
_FLAT = 1e-8  # curvature over the largest
_SAME = 1e-6  # distance of points
_SAME_ENERGY, _SAME_SPECTRUM = 1e-9, 1e-6  # relative
_FOUND = 3  # times that each point is to be found


class Audit(NamedTuple):
    """S stationary points of any index, and what they add up to.

    `positions (S, P)`, `energies (S,)`, `indices (S,)`: numbers of negative eigenvalues, -1 where one is zero, so that
    there is no index; `copies (S,)`; `visits (S,)`: how often each was found; `subspaces`: what is left in place, in
    words, the whole space first, of subspaces that moves take into each other one; `sums`: of (-1)^index over all
    copies in each.
    """

    positions: Float[np.ndarray, "S P"]
    energies: Float[np.ndarray, " S"]
    indices: Int[np.ndarray, " S"]
    copies: Int[np.ndarray, " S"]
    visits: Int[np.ndarray, " S"]
    subspaces: tuple[str, ...]
    sums: Int[np.ndarray, " subspaces"]

    @property
    def closed(self) -> bool:
        """Whether all sums are 1 and every point has an index."""
        return bool(np.all(self.sums == 1) and np.all(self.indices >= 0))


def audit(objective: Objective, landscape: Landscape, key: PRNGKeyArray, *, num_starts: int = 50_000) -> Audit:
    """Search the stationary points of every index, from anywhere and near the subspaces, until all sums are 1.

    Newton's steps up along some of the softest modes and down along the others lead to points of any index. The search
    ends when all sums are 1 and each point was found three times, or the starts are spent.

    Args:
        objective: a loss that grows without end in all directions, as with an L2 penalty on every weight.
        landscape: what is known; its minima and transition states are points to begin with.
        key: a JAX random key.
        num_starts: of searches, at most.

    Raises:
        ValueError: for more than 20 weights or 5,000 copies, for a cluster of atoms, which may be moved everywhere, or
            in float32.
    """
    symmetry = landscape.symmetry
    if symmetry.num_atoms or symmetry.dim > _MAX_WEIGHTS or _order(symmetry) > _MAX_MOVES:
        what = "a cluster of atoms" if symmetry.num_atoms else f"of {symmetry.dim} and {_order(symmetry):,}"
        raise ValueError(
            f"an audit is of networks of at most {_MAX_WEIGHTS} weights and {_MAX_MOVES:,} copies, not {what}"
        )
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    if jax.dtypes.canonicalize_dtype(float) != np.float64:
        raise ValueError('an audit needs float64: jax.config.update("jax_enable_x64", True), before anything is made')
    parts = landscape.minima.positions, landscape.transition_states.positions
    known, indices = np.concatenate(parts), np.repeat([0, 1], [len(part) for part in parts])
    spaces = list(_subspaces(symmetry))
    moves = np.array(list(_moves(symmetry)))
    found = _settle(objective, moves, _nothing(symmetry), known, indices, np.ones(len(known)))
    scale = np.sqrt(np.mean(known**2)) if len(known) else 1.0
    for _ in range(math.ceil(num_starts / _BATCH)):
        starts = _draw(symmetry, found.positions, spaces, scale, rng)
        up = rng.integers(0, min(symmetry.dim, symmetry.dim // 2 + 1) + 1, _BATCH)
        found = _settle(objective, moves, found, starts, up, 10 ** rng.uniform(-1.3, 0.3, _BATCH))
        if found.visits.size and found.visits.min() >= _FOUND:
            result = _summed(objective, moves, found, spaces)
            if result.closed:
                return result
    return _summed(objective, moves, found, spaces)


class _Found(NamedTuple):
    positions: Float[np.ndarray, "S P"]
    energies: Float[np.ndarray, " S"]
    spectra: Float[np.ndarray, "S P"]
    visits: Int[np.ndarray, " S"]


class _Subspace(NamedTuple):
    """`name`; `basis (P, k)`: orthonormal."""

    name: str
    basis: Float[np.ndarray, "P k"]


def _nothing(symmetry: Symmetry) -> _Found:
    rows = np.empty((0, symmetry.dim))
    return _Found(rows, np.empty(0), rows, np.empty(0, int))


def _settle(
    objective: Objective,
    moves: Float[np.ndarray, "moves P P"],
    found: _Found,
    starts: Float[np.ndarray, "B P"],
    up: Int[np.ndarray, " B"],
    caps: Float[np.ndarray, " B"],
) -> _Found:
    """Search from the starts; add what is new, count what was found again."""
    batches = []
    for first in range(0, len(starts), _BATCH):
        rows = np.minimum(np.arange(first, first + _BATCH), len(starts) - 1)  # as many each time, for one program
        ended = _searched(objective, *(on_device(each[rows]) for each in (starts, up, caps)))
        batches.append([np.asarray(each)[: len(starts) - first] for each in ended])
    if not batches:
        return found
    ends, energies, gradients, spectra = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    largest = np.abs(spectra).max(axis=1)
    good = np.isfinite(largest) & np.isfinite(ends).all(axis=1) & (gradients <= _GRAD_RMS * largest)
    for x, energy, spectrum in zip(ends[good], energies[good], spectra[good], strict=True):
        near = np.abs(found.energies - energy) <= _SAME_ENERGY * max(1.0, abs(energy))
        near &= np.abs(found.spectra - spectrum).max(axis=1) <= _SAME_SPECTRUM * np.abs(spectrum).max()
        # All copies are looked at: of deep networks `symmetry.align` may miss the nearest.
        same = [i for i in np.flatnonzero(near) if _distances(moves, x, found.positions[i]).min() <= _SAME]
        if same:
            found.visits[same[0]] += 1
        else:
            found = _added(found, x, energy, spectrum)
    return found


def _distances(
    moves: Float[np.ndarray, "moves P P"], x: Float[np.ndarray, " P"], other: Float[np.ndarray, " P"]
) -> Float[np.ndarray, " moves"]:
    """Return how far each copy of a point is from another point."""
    return np.linalg.norm(moves @ x - other, axis=1)


def _added(found: _Found, x: Float[np.ndarray, " P"], energy: float, spectrum: Float[np.ndarray, " P"]) -> _Found:
    return _Found(
        np.vstack([found.positions, x]),
        np.append(found.energies, energy),
        np.vstack([found.spectra, spectrum]),
        np.append(found.visits, 1),
    )


@program
def _searched(objective: Objective, starts: Array, up: Array, caps: Array) -> tuple[Array, Array, Array, Array]:
    """Return where searches end, the energy, the root mean square of the gradient, and the curvatures there."""

    def newton(x: Array, uphill: Array | None, cap: Array) -> Array:
        _, gradient = value_and_grad(objective, x)
        curvatures, modes = jnp.linalg.eigh(hessian(objective, x))
        signs = jnp.where(curvatures < 0, -1.0, 1.0) if uphill is None else jnp.where(uphill, -1.0, 1.0)
        sizes = jnp.abs(curvatures)
        steps = -signs * (gradient @ modes) / jnp.maximum(sizes, 1e-10 * sizes.max() + 1e-300)
        return x + modes @ (steps * jnp.minimum(1.0, cap / (jnp.linalg.norm(steps) + 1e-300)))

    def one(x: Array, up: Array, cap: Array) -> tuple[Array, Array, Array, Array]:
        uphill = jnp.arange(x.size) < up
        x = jax.lax.fori_loop(0, _CLIMBING, lambda _, x: newton(x, uphill, cap), x)
        # Whatever the index of the point that is near, Newton's own step leads to it.
        x = jax.lax.fori_loop(0, _NEWTON, lambda _, x: newton(x, None, cap), x)
        energy, gradient = value_and_grad(objective, x)
        return x, energy, rms(gradient), jnp.linalg.eigvalsh(hessian(objective, x))

    return jax.vmap(one)(starts, up, caps)


def _draw(
    symmetry: Symmetry,
    known: Float[np.ndarray, "S P"],
    spaces: list[_Subspace],
    scale: float,
    rng: np.random.Generator,
) -> Float[np.ndarray, "B P"]:
    """Draw starts of several sizes, some on the way between copies of known points, half of them in subspaces."""
    x = scale * rng.normal(size=(_BATCH, symmetry.dim)) * np.exp(rng.uniform(-1.5, 1.5, (_BATCH, 1)))
    for row in range(_BATCH):
        if len(known) and rng.random() < 0.5:
            one, other = known[rng.integers(len(known), size=2)]
            x[row] = one + rng.uniform(-0.2, 1.2) * (random_copy(symmetry, other, rng) - one) + 0.1 * x[row]
        if rng.random() < 0.5:
            basis = spaces[rng.integers(len(spaces))].basis
            x[row] = basis @ (basis.T @ x[row])
    return x


def _summed(
    objective: Objective, moves: Float[np.ndarray, "moves P P"], found: _Found, spaces: list[_Subspace]
) -> Audit:
    hessians = np.asarray(_hessians(objective, on_device(found.positions)))
    indices = np.array([_index(each) for each in hessians], int)
    stays = [np.sum(_distances(moves, x, x) <= _SAME) for x in found.positions]
    copies = len(moves) // np.array(stays, int)
    sums = [int(np.sum(np.where(indices % 2, -copies, copies)))]
    for space in spaces[1:]:
        total = 0
        for x, curvature in zip(found.positions, hessians, strict=True):
            inside: list[np.ndarray] = []
            for move in moves:
                y = move @ x
                away = np.linalg.norm(y - space.basis @ (space.basis.T @ y))
                if away <= _SAME and all(np.linalg.norm(y - each) > _SAME for each in inside):
                    inside.append(y)
                    turned = move.T @ space.basis
                    total += -1 if _index(turned.T @ curvature @ turned) % 2 else 1
        sums.append(total)
    names = tuple(space.name for space in spaces)
    return Audit(found.positions, found.energies, indices, copies, found.visits, names, np.array(sums))


@program
def _hessians(objective: Objective, positions: Array) -> Array:
    return jax.lax.map(functools.partial(hessian, objective), positions)


def _index(curvature: Float[np.ndarray, "k k"]) -> int:
    values = np.linalg.eigvalsh(curvature)
    largest = np.abs(values).max(initial=0.0)
    return -1 if np.any(np.abs(values) <= _FLAT * largest) else int(np.sum(values < 0))


def _order(symmetry: Symmetry) -> int:
    sizes = [len(layer.bias) for layer in symmetry.layers]
    return math.prod(math.factorial(size) * (2**size if symmetry.odd else 1) for size in sizes)


def _moves(symmetry: Symmetry) -> Iterator[Float[np.ndarray, "P P"]]:
    """Return every move of the group as a matrix."""
    sizes = [len(layer.bias) for layer in symmetry.layers]
    orders = [[np.array(order, int) for order in itertools.permutations(range(size))] for size in sizes]
    signs = [[np.array(each) for each in itertools.product([1.0, -1.0][: 1 + symmetry.odd], repeat=n)] for n in sizes]
    for chosen in itertools.product(*orders, *signs):
        permutations, turned = list(chosen[: len(sizes)]), list(chosen[len(sizes) :])
        yield apply(symmetry, np.eye(symmetry.dim), permutations, turned).T


def _subspaces(symmetry: Symmetry) -> Iterator[_Subspace]:
    """Return the whole space, then what is left in place by moves: of those that moves take into each other one."""
    choices = []
    for depth, layer in enumerate(symmetry.layers):
        size = len(layer.bias)
        dead = range(size + 1) if symmetry.odd else (0,)
        choices.append([(depth, size, num, parts) for num in dead for parts in _partitions(size - num)])
    for chosen in itertools.product(*choices):
        names, fixed = [], []
        for depth, _, num, parts in chosen:
            units = symmetry.layers[depth].units
            first = 0
            for part in (*parts, num):
                names += [f"{part} equal"] * (first < sum(parts) and part > 1)
                fixed += [_differences(symmetry.dim, units[i], units[i + 1]) for i in range(first, first + part - 1)]
                first += part
            if num:
                names.append(f"{num} dead")
                fixed += [np.eye(symmetry.dim)[units[i]] for i in range(len(units) - num, len(units))]
        rows = np.concatenate(fixed) if fixed else np.zeros((1, symmetry.dim))
        _, values, modes = np.linalg.svd(rows)
        rank = int(np.sum(values > 1e-10))
        yield _Subspace(", ".join(names) or "the whole space", modes[rank:].T)


def _differences(dim: int, one: Int[np.ndarray, " w"], other: Int[np.ndarray, " w"]) -> Float[np.ndarray, "w dim"]:
    return np.eye(dim)[one] - np.eye(dim)[other]


def _partitions(number: int, largest: int | None = None) -> Iterator[tuple[int, ...]]:
    """Write a number as a sum, the largest parts last, in all ways; many small parts first."""
    largest = number if largest is None else largest
    if number == 0:
        yield ()
        return
    for part in range(1, min(number, largest) + 1):
        for rest in _partitions(number - part, part):
            yield (*rest, part)
