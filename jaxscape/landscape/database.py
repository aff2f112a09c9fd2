"""The stationary-point database: minima, transition states and which minima each of them joins.

Host code (NumPy), immutable: every function returns a new `Landscape`. Two points are the same if their energies agree
and some move of the symmetry group brings them together; equal energies alone do not make two points one.
"""

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from jaxscape.files import replacing
from jaxscape.landscape import ledger, paths
from jaxscape.landscape.ledger import Ledger
from jaxscape.landscape.paths import Paths
from jaxscape.symmetry import HiddenLayer, Symmetry, align, fingerprint

SCHEMA_VERSION = 4
_OLDEST_SCHEMA = 2  # kept the ledger in a JSON text, and orders instead of their logarithms
_FIRST_WITH_PATHS = 4
ENERGY_TOL = 1e-8  # times max(1, |energy|)
DISTANCE_TOL = 1e-4  # between polished points, in units of the parameters


class Minima(NamedTuple):
    """`positions (M, P)`, `energies (M,)`, the lowest Hessian `eigenvalues (M,)` with its `eigenvectors (M, P)`,
    `log_determinants (M,)`: sum of the logarithms of the Hessian's eigenvalues, known zero modes left out (NaN for more
    weights than are diagonalised), `log_orders (M,)`: logarithms of the orders of the point groups, `visits (M,)`: how
    often each was found, `searches (M,)`: transition-state searches started from it.
    """

    positions: Float[np.ndarray, "M P"]
    energies: Float[np.ndarray, " M"]
    eigenvalues: Float[np.ndarray, " M"]
    eigenvectors: Float[np.ndarray, "M P"]
    log_determinants: Float[np.ndarray, " M"]
    log_orders: Float[np.ndarray, " M"]
    visits: Int[np.ndarray, " M"]
    searches: Int[np.ndarray, " M"]


class TransitionStates(NamedTuple):
    """`positions (T, P)`, `energies (T,)`, the one negative Hessian eigenvalue of each with its eigenvector
    (`eigenvalues (T,)`, `eigenvectors (T, P)`), `log_determinants (T,)`, of absolute values, and `log_orders (T,)` as
    for minima, the ids of the two `minima (T, 2)` it joins, in ascending order (twice the same for a degenerate
    rearrangement), and `visits (T,)`.
    """

    positions: Float[np.ndarray, "T P"]
    energies: Float[np.ndarray, " T"]
    eigenvalues: Float[np.ndarray, " T"]
    eigenvectors: Float[np.ndarray, "T P"]
    log_determinants: Float[np.ndarray, " T"]
    log_orders: Float[np.ndarray, " T"]
    minima: Int[np.ndarray, "T 2"]
    visits: Int[np.ndarray, " T"]


class Landscape(NamedTuple):
    """A database of stationary points; ids are row numbers and never change.

    `minima`, `transition_states`; `attempted (A, 3)`: pairs of minima between which searches were made, in ascending
    order, and how many; `symmetry` of the model; `ledger`: what the searches have cost and how they ended; `paths`:
    bounds for barriers, those lower than all that is known otherwise.
    """

    minima: Minima
    transition_states: TransitionStates
    attempted: Int[np.ndarray, "A 3"]
    symmetry: Symmetry
    ledger: Ledger
    paths: Paths


class LandscapeFileError(ValueError):
    """A file is not a landscape, is damaged, or was written with another schema."""


def empty(symmetry: Symmetry) -> Landscape:
    """Return a landscape without points."""
    rows, vectors, counts = np.empty(0), np.empty((0, symmetry.dim)), np.empty(0, int)
    minima = Minima(vectors, rows, rows, vectors, rows, rows, counts, counts)
    pairs = np.empty((0, 2), int)
    states = TransitionStates(vectors, rows, rows, vectors, rows, rows, pairs, counts)
    nothing = np.empty((0, 3), int)
    return Landscape(minima, states, nothing, symmetry, ledger.empty(), paths.none(symmetry.dim))


class Points(NamedTuple):
    """Any points to tell apart: `positions (N, P)`, `energies (N,)`."""

    positions: Float[np.ndarray, "N P"]
    energies: Float[np.ndarray, " N"]


def identify(
    symmetry: Symmetry,
    known: Points | Minima | TransitionStates,
    new: Points | Minima | TransitionStates,
    *,
    energy_tol: float = ENERGY_TOL,
    distance_tol: float = DISTANCE_TOL,
) -> Int[np.ndarray, " n"]:
    """For each new point, return the first row of known and new points, in this order, that is the same point.

    Args:
        symmetry: what makes two rows the same point.
        known: points that differ from each other.
        new: the points to look up, among the known ones and among themselves.
        energy_tol: largest difference in energy, times max(1, |energy|).
        distance_tol: largest distance after alignment.

    Returns:
        Row numbers; a new point that equals none before it has its own, the number of known points plus its place.
    """
    size, ranked = len(known.energies), np.sort(new.energies)
    if len(ranked) == 0:
        return np.empty(0, int)
    # Of a large database few points have an energy near that of any new one: the rest is not looked at again.
    above = np.minimum(np.searchsorted(ranked, known.energies), len(ranked) - 1)
    gaps = np.minimum(np.abs(ranked[above] - known.energies), np.abs(ranked[above - 1] - known.energies))
    close = np.flatnonzero(gaps <= energy_tol * np.maximum(1, np.abs(new.energies).max()))
    rows = np.concatenate([close, np.arange(size, size + len(new.energies))])
    positions = np.concatenate([known.positions[close], new.positions])
    energies = np.concatenate([known.energies[close], new.energies])

    marks, order = fingerprint(symmetry, positions), np.argsort(energies, kind="stable")
    window = energy_tol * np.maximum(1, np.abs(new.energies))
    first = np.searchsorted(energies[order], new.energies - window)
    last = np.searchsorted(energies[order], new.energies + window, side="right")
    same_as = np.arange(len(energies))
    for i, low, high in zip(range(len(close), len(energies)), first, last, strict=True):
        nearby = np.sort(order[low:high])
        nearby = nearby[(nearby < i) & (same_as[nearby] == nearby)]
        nearby = nearby[np.linalg.norm(marks[nearby] - marks[i], axis=1) <= np.sqrt(2) * distance_tol]
        if nearby.size:
            _, distances = align(symmetry, positions[i], positions[nearby])
            if distances.min() <= distance_tol:
                same_as[i] = nearby[distances.argmin()]
    return rows[same_as[len(close) :]]


class _Room(np.ndarray):
    """Rows with room for more behind them; the first `used` belong to some array and are never written again."""

    used: int


def _append(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Concatenate; without copying `old` if no array that shares its memory is longer and there is room left."""
    size, room = len(old) + len(new), old.base
    dtype = np.result_type(old, new)
    if not (
        isinstance(room, _Room)
        and (room.shape[1:], room.strides, room.dtype) == (old.shape[1:], old.strides, dtype)
        and room.used == len(old)
        and size <= len(room)
    ):
        room = _Room((size + size // 8, *old.shape[1:]), dtype)
        room[: len(old)] = old
    room[len(old) : size] = new
    room.used = size
    return np.ndarray((size, *old.shape[1:]), room.dtype, buffer=room)


def _insert(
    symmetry: Symmetry, known: Any, new: Any, energy_tol: float, distance_tol: float
) -> tuple[Any, Int[np.ndarray, " n"]]:
    """Append the rows of `new` that are not in `known`, add up the visits of the others, return ids for all."""
    num_known = len(known.energies)
    same_as = identify(symmetry, known, new, energy_tol=energy_tol, distance_tol=distance_tol)
    is_first = same_as == np.arange(num_known, num_known + len(new.energies))
    ids = np.concatenate([np.arange(num_known), num_known + np.cumsum(is_first) - 1])[same_as]
    inserted = type(known)(*(_append(old, rows[is_first]) for old, rows in zip(known, new, strict=True)))
    visits = np.concatenate([known.visits, np.zeros(int(is_first.sum()), int)])
    np.add.at(visits, ids, new.visits)
    return inserted._replace(visits=visits), ids


def insert_minima(
    landscape: Landscape, minima: Minima, *, energy_tol: float = ENERGY_TOL, distance_tol: float = DISTANCE_TOL
) -> tuple[Landscape, Int[np.ndarray, " n"]]:
    """Add minima that are not yet there.

    Args:
        landscape: where to add them.
        minima: the new ones; duplicates among themselves are found too.
        energy_tol: see `identify`.
        distance_tol: see `identify`.

    Returns:
        The new landscape, and for each of `minima` its id in it.
    """
    inserted, ids = _insert(landscape.symmetry, landscape.minima, minima, energy_tol, distance_tol)
    return landscape._replace(minima=inserted), ids


def insert_transition_states(
    landscape: Landscape,
    transition_states: TransitionStates,
    *,
    energy_tol: float = ENERGY_TOL,
    distance_tol: float = DISTANCE_TOL,
) -> tuple[Landscape, Int[np.ndarray, " n"]]:
    """Add transition states that are not yet there; their minima must be.

    Args:
        landscape: where to add them.
        transition_states: the new ones; `minima` holds ids of `landscape`.
        energy_tol: see `identify`.
        distance_tol: see `identify`.

    Returns:
        The new landscape, and for each of `transition_states` its id in it.

    Raises:
        ValueError: if a minimum does not exist or does not lie below its transition state.
    """
    pairs = np.sort(transition_states.minima, axis=1)
    size = len(landscape.minima.energies)
    if pairs.size and (pairs.min() < 0 or pairs.max() >= size):
        raise ValueError(f"transition states name minimum {pairs.max()}, but there are {size}")
    if np.any(landscape.minima.energies[pairs] >= transition_states.energies[:, None]):
        raise ValueError("a transition state must lie above both of its minima")
    new = transition_states._replace(minima=pairs)
    inserted, ids = _insert(landscape.symmetry, landscape.transition_states, new, energy_tol, distance_tol)
    return landscape._replace(transition_states=inserted), ids


def insert_paths(landscape: Landscape, new: Paths) -> Landscape:
    """Add paths between minima, and keep those that some merge needs: ways at least as low leave out the others.

    Args:
        landscape: where to add them.
        new: paths; `minima` holds ids of `landscape`. One that is not finite, or leads to a copy, joins nothing.

    Raises:
        ValueError: if a path leads to a minimum that is not there, or lies below one of its ends.
    """
    pairs, size = new.minima, len(landscape.minima.energies)
    if pairs.size and (pairs.min() < 0 or pairs.max() >= size):
        raise ValueError(f"paths name minimum {pairs.max()}, but there are {size}")
    good = np.isfinite(new.energies) & (pairs[:, 0] != pairs[:, 1])
    new = Paths(new.minima[good], new.energies[good], new.slack[good], new.images[good])
    if np.any(landscape.minima.energies[new.minima] > new.energies[:, None]):
        raise ValueError("a path must not lie below one of its ends")
    if np.any(new.minima[:, 0] > new.minima[:, 1]):
        raise ValueError("the minima of a path must be in ascending order, as its images are")
    states = landscape.transition_states
    kept = paths.needed(paths.joined(landscape.paths, new), size, states.energies, states.minima)
    return landscape._replace(paths=kept)


def merge(first: Landscape, second: Landscape) -> Landscape:
    """Put two databases of the same model into one; the ids of the first stay, nothing is doubled, ledgers add up.

    Raises:
        ValueError: if the two have different symmetries.
    """
    if not same_symmetry(first.symmetry, second.symmetry):
        raise ValueError("only landscapes of the same model can be merged: the symmetries differ")
    merged, ids = insert_minima(first, second.minima)
    searches = merged.minima.searches.copy()
    searched_before = ids < len(first.minima.energies)
    np.add.at(searches, ids[searched_before], second.minima.searches[searched_before])
    minima = merged.minima._replace(searches=searches)
    merged = merged._replace(minima=minima, ledger=ledger.add(first.ledger, second.ledger))
    states = second.transition_states
    merged, _ = insert_transition_states(merged, states._replace(minima=ids[states.minima]))
    merged = insert_paths(merged, _renamed(second.paths, ids))
    searched = ids[second.attempted[:, :2]].repeat(second.attempted[:, 2], axis=0)
    return add_attempted(merged, searched)


def _renamed(old: Paths, ids: Int[np.ndarray, " M"]) -> Paths:
    """Give the minima of paths other ids, and turn round those that then lead to the lower one."""
    pairs = ids[old.minima]
    turned = pairs[:, 0] > pairs[:, 1]
    images = np.where(turned[:, None, None], old.images[:, ::-1], old.images)
    return old._replace(minima=np.sort(pairs, axis=1), images=images)


def same_symmetry(first: Symmetry, second: Symmetry) -> bool:
    """Say whether two symmetries are the same group of the same vector."""
    numbers = [(s.dim, s.odd, s.num_atoms, len(s.layers)) for s in (first, second)]
    if numbers[0] != numbers[1]:
        return False
    pairs = zip(first.layers, second.layers, strict=True)
    return all(np.array_equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


def add_attempted(landscape: Landscape, pairs: Int[np.ndarray, "n 2"]) -> Landscape:
    """Note pairs of minima between which a search was made, each as often as it stands there."""
    known = landscape.attempted
    new = np.sort(pairs.reshape(-1, 2), axis=1)
    together, which = np.unique(np.concatenate([known[:, :2], new]), axis=0, return_inverse=True)
    counts = np.bincount(which, np.concatenate([known[:, 2], np.ones(len(new))]), minlength=len(together))
    return landscape._replace(attempted=np.column_stack([together, counts.astype(int)]).reshape(-1, 3))


def components(landscape: Landscape, *, with_paths: bool = False) -> Int[np.ndarray, " M"]:
    """Label the minima by the connected component they are in, numbered from 0: what transition states join, or also
    what only paths do."""
    size = len(landscape.minima.energies)
    pairs = landscape.transition_states.minima
    first, second = (np.concatenate([pairs, landscape.paths.minima]) if with_paths else pairs).T
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1]).astype(int)


def save(path: str | os.PathLike[str], landscape: Landscape, *, extra: Mapping[str, np.ndarray] | None = None) -> None:
    """Write a landscape to an `.npz` file, whole or not at all.

    Args:
        path: the file to write or replace; its folder must exist.
        landscape: what to write.
        extra: more arrays to keep in the same file, found again by `load_extra`.
    """
    path = Path(path)
    arrays = {
        "schema_version": np.asarray(SCHEMA_VERSION),
        "attempted": landscape.attempted,
        "symmetry/dim": np.asarray(landscape.symmetry.dim),
        "symmetry/odd": np.asarray(landscape.symmetry.odd),
        "symmetry/num_atoms": np.asarray(landscape.symmetry.num_atoms),
        "symmetry/num_layers": np.asarray(len(landscape.symmetry.layers)),
        "ledger/evaluations": np.asarray(landscape.ledger.evaluations),
        "ledger/outcomes": np.asarray(json.dumps(ledger.to_names(landscape.ledger))),
    }
    for i, layer in enumerate(landscape.symmetry.layers):
        arrays |= {f"symmetry/{i}/{name}": field for name, field in layer._asdict().items()}
    for group in ("minima", "transition_states", "paths"):
        arrays |= {f"{group}/{name}": field for name, field in getattr(landscape, group)._asdict().items()}
    arrays |= {f"extra/{name}": field for name, field in (extra or {}).items()}
    with replacing(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def load(path: str | os.PathLike[str]) -> Landscape:
    """Read a landscape written by `save`.

    Raises:
        FileNotFoundError: if there is no such file.
        LandscapeFileError: if the file is damaged, foreign, of an unknown schema version, or what it holds contradicts
            itself: what, and where, is said.
    """
    arrays = _read(path)
    try:
        if int(arrays["schema_version"]) == _OLDEST_SCHEMA:
            meta = json.loads(str(arrays["meta"]))
            spent, outcomes = meta.get("evaluations", 0), meta.get("outcomes", {})
            arrays |= {f"{group}/log_orders": np.log(arrays[f"{group}/orders"]) for group in Landscape._fields[:2]}
        else:
            spent, outcomes = int(arrays["ledger/evaluations"]), json.loads(str(arrays["ledger/outcomes"]))
        layers = tuple(
            HiddenLayer(*(arrays[f"symmetry/{i}/{name}"] for name in HiddenLayer._fields))
            for i in range(int(arrays["symmetry/num_layers"]))
        )
        dim = int(arrays["symmetry/dim"])
        if int(arrays["schema_version"]) < _FIRST_WITH_PATHS:
            arrays |= {f"paths/{name}": field for name, field in paths.none(dim)._asdict().items()}
        landscape = Landscape(
            Minima(*(arrays[f"minima/{name}"] for name in Minima._fields)),
            TransitionStates(*(arrays[f"transition_states/{name}"] for name in TransitionStates._fields)),
            arrays["attempted"],
            Symmetry(
                layers,
                dim=dim,
                odd=bool(arrays["symmetry/odd"]),
                num_atoms=int(arrays["symmetry/num_atoms"]),
            ),
            ledger.from_names(spent, outcomes),
            Paths(*(arrays[f"paths/{name}"] for name in Paths._fields)),
        )
    except KeyError as error:
        raise LandscapeFileError(f"{path} is no whole landscape: {error} is missing") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise LandscapeFileError(f"{path} is no whole landscape: {error}") from error
    if (wrong := _contradiction(landscape)) is not None:
        raise LandscapeFileError(f"{path} is no whole landscape: {wrong}")
    return landscape


def _contradiction(landscape: Landscape) -> str | None:
    """Return what is wrong with the arrays of a landscape, if anything is."""
    symmetry, size = landscape.symmetry, len(landscape.minima.energies)
    layers = [index for layer in symmetry.layers for index in layer]
    if any(index.dtype.kind not in "iu" or np.any((index < 0) | (index >= symmetry.dim)) for index in layers):
        return f"the symmetry names weights beyond the {symmetry.dim} there are"
    for name, points in (("minima", landscape.minima), ("transition_states", landscape.transition_states)):
        rows = len(points.energies)
        for field, array in points._asdict().items():
            whole = field in ("visits", "searches", "minima")
            width = {"positions": (symmetry.dim,), "eigenvectors": (symmetry.dim,), "minima": (2,)}.get(field, ())
            if array.shape != (rows, *width):
                return f"{name}/{field} has the shape {array.shape}, expected {(rows, *width)}"
            if array.dtype.kind not in ("iu" if whole else "f"):
                return f"{name}/{field} should hold {'whole numbers' if whole else 'numbers'}, not {array.dtype}"
            # Large Hessians are not diagonalised.
            if not whole and field != "log_determinants" and not np.all(np.isfinite(array)):
                return f"{name}/{field} holds numbers that are not finite"
            if field in ("log_orders", "visits") and np.any(array < (field == "visits")):
                return f"{name}/{field} holds numbers below {int(field == 'visits')}"
    if landscape.attempted.ndim != 2 or landscape.attempted.shape[1] != 3 or landscape.attempted.dtype.kind not in "iu":
        return f"attempted has the shape {landscape.attempted.shape} of {landscape.attempted.dtype}, expected (A, 3)"
    if (wrong := _contradiction_of_paths(landscape.paths, symmetry.dim)) is not None:
        return wrong
    for name, ids in (
        ("transition_states/minima", landscape.transition_states.minima),
        ("attempted", landscape.attempted[:, :2]),
        ("paths/minima", landscape.paths.minima),
    ):
        if np.any((ids < 0) | (ids >= size)):
            return f"{name} names minima that are not there: there are {size}"
    ends = landscape.minima.energies[landscape.transition_states.minima]
    if np.any(ends >= landscape.transition_states.energies[:, None]):
        return "a transition state does not lie above both of its minima"
    if np.any(landscape.minima.energies[landscape.paths.minima] > landscape.paths.energies[:, None]):
        return "a path lies below one of its ends"
    return None


def _contradiction_of_paths(found: Paths, dim: int) -> str | None:
    rows = len(found.energies)
    corners = found.images.shape[1] if found.images.ndim == 3 else 0
    shapes = {"minima": (rows, 2), "energies": (rows,), "slack": (rows,), "images": (rows, max(corners, 2), dim)}
    for field, array in found._asdict().items():
        if array.shape != shapes[field]:
            return f"paths/{field} has the shape {array.shape}, expected {shapes[field]}"
        if array.dtype.kind not in ("iu" if field == "minima" else "f"):
            return f"paths/{field} should not hold {array.dtype}"
        if field != "minima" and not np.all(np.isfinite(array)):
            return f"paths/{field} holds numbers that are not finite"
    return None


def load_extra(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the `extra` arrays of a file written by `save`; raises what `load` raises."""
    return {name.removeprefix("extra/"): array for name, array in _read(path).items() if name.startswith("extra/")}


def _read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, TypeError, NotImplementedError) as error:
        raise LandscapeFileError(f"{path} is damaged or no landscape file: {error}") from error
    version = arrays.get("schema_version")
    readable = range(_OLDEST_SCHEMA, SCHEMA_VERSION + 1)
    if version is None or version.shape != () or version.dtype.kind not in "iu" or int(version) not in readable:
        raise LandscapeFileError(
            f"{path} has landscape schema {version}, this library reads {_OLDEST_SCHEMA} to {SCHEMA_VERSION}: explore "
            "again, or read the file with the release that wrote it"
        )
    return arrays
