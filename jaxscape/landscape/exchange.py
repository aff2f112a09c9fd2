"""Databases in the words of others: the files of PATHSAMPLE (also read by pele) and topsearch, networkx, data frames.

What other programs wrote comes back as plain arrays: enough for a merge tree or a heat capacity. To go on exploring,
give the positions to `certify.certified`, which checks every point on the objective.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxscape.files import replacing
from jaxscape.landscape.database import Landscape, LandscapeFileError, Minima, TransitionStates

if TYPE_CHECKING:
    import networkx as nx
    import pandas as pd


class Stored(NamedTuple):
    """A database of another program.

    Minima: `positions (M, P)`, `energies (M,)`, `log_determinants (M,)`, `orders (M,)` of the point groups; transition
    states: `ts_positions (T, P)`, `ts_energies (T,)`, `ts_log_determinants (T,)`, `ts_orders (T,)` and `ts_minima (T,
    2)`, ids from 0. topsearch keeps neither determinants (here 0) nor orders (here 1), and energies to five decimals.
    """

    positions: Float[np.ndarray, "M P"]
    energies: Float[np.ndarray, " M"]
    log_determinants: Float[np.ndarray, " M"]
    orders: Int[np.ndarray, " M"]
    ts_positions: Float[np.ndarray, "T P"]
    ts_energies: Float[np.ndarray, " T"]
    ts_log_determinants: Float[np.ndarray, " T"]
    ts_orders: Int[np.ndarray, " T"]
    ts_minima: Int[np.ndarray, "T 2"]


def _principal_moments(landscape: Landscape, positions: Float[np.ndarray, "n P"]) -> Float[np.ndarray, "n 3"]:
    """Return the moments of inertia of clusters; ones for what is no cluster."""
    if not landscape.symmetry.num_atoms:
        return np.ones((len(positions), 3))
    atoms = positions.reshape(len(positions), -1, 3)
    atoms = atoms - atoms.mean(axis=1, keepdims=True)
    squares = np.einsum("nai,naj->nij", atoms, atoms)
    trace = np.trace(squares, axis1=1, axis2=2)
    return np.asarray(np.linalg.eigvalsh(trace[:, None, None] * np.eye(3) - squares))


def write_pathsample(folder: str | os.PathLike[str], landscape: Landscape) -> None:
    """Write `min.data`, `ts.data`, `points.min` and `points.ts` as PATHSAMPLE does.

    Lines of `min.data`: energy, logarithm of the product of the squared frequencies, order of the point group, three
    moments of inertia; of `ts.data` the same with the numbers of the two minima, from 1, before the moments. The points
    are doubles in the byte order of the machine, without a header.
    """
    minima, states = landscape.minima, landscape.transition_states
    rows = np.column_stack([minima.energies, minima.log_determinants, minima.orders])
    ts_rows = np.column_stack([states.energies, states.log_determinants, states.orders, states.minima + 1])
    moments, ts_moments = (_principal_moments(landscape, points.positions) for points in (minima, states))
    number = "%.15g"
    _write_text(folder, "min.data", np.column_stack([rows, moments]), [number, number, "%d"] + 3 * [number])
    _write_text(
        folder, "ts.data", np.column_stack([ts_rows, ts_moments]), [number, number, "%d", "%d", "%d"] + 3 * [number]
    )
    for name, positions in (("points.min", minima.positions), ("points.ts", states.positions)):
        with replacing(Path(folder) / name) as file:
            file.write(np.ascontiguousarray(positions).tobytes())


def read_pathsample(folder: str | os.PathLike[str]) -> Stored:
    """Read the files of PATHSAMPLE, as `write_pathsample` names them.

    Raises:
        FileNotFoundError: if one of the four is missing.
        LandscapeFileError: if a file has other columns, or the points do not fit the number of lines.
    """
    minima, states = _read_text(folder, "min.data", 6), _read_text(folder, "ts.data", 8)
    positions = _read_points(folder, "points.min", len(minima), None)
    ts_positions = _read_points(folder, "points.ts", len(states), positions.shape[1])
    pairs = _check_pairs(Path(folder) / "ts.data", states[:, 3:5].astype(int) - 1, len(minima))
    return Stored(
        positions,
        *(minima[:, 0], minima[:, 1], minima[:, 2].astype(int)),
        ts_positions,
        *(states[:, 0], states[:, 1], states[:, 2].astype(int)),
        pairs,
    )


def write_topsearch(folder: str | os.PathLike[str], landscape: Landscape) -> None:
    """Write `min.data`, `min.coords`, `ts.data`, `ts.coords` and `pairlist` as topsearch's `dump_network` does.

    topsearch keeps one transition state for a pair of minima: of several the lowest is written. Energies have 15 digits
    instead of five decimals, which topsearch reads as well.
    """
    minima, states = landscape.minima, landscape.transition_states
    order = np.lexsort((states.energies, *states.minima.T[::-1]))
    _, first = np.unique(states.minima[order], axis=0, return_index=True)
    rows = order[first]
    ids = np.arange(len(minima.energies))
    _write_text(folder, "min.data", np.column_stack([ids, minima.energies]), ["%d", "%.15g"])
    _write_text(folder, "min.coords", minima.positions, "%.18e")
    ts_data = np.column_stack([states.minima[rows], states.energies[rows]])
    _write_text(folder, "ts.data", ts_data, ["%d", "%d", "%.15g"])
    _write_text(folder, "ts.coords", states.positions[rows], "%.18e")
    _write_text(folder, "pairlist", landscape.attempted[:, :2], "%d")


def read_topsearch(folder: str | os.PathLike[str]) -> Stored:
    """Read the files of topsearch, as `write_topsearch` names them; `pairlist` is not needed.

    Raises:
        FileNotFoundError: if one of the four is missing.
        LandscapeFileError: if a file has other columns, or the coordinates do not fit the number of lines.
    """
    minima, states = _read_text(folder, "min.data", 2), _read_text(folder, "ts.data", 3)
    positions, ts_positions = _read_text(folder, "min.coords", None), _read_text(folder, "ts.coords", None)
    for name, coordinates, data in (("min", positions, minima), ("ts", ts_positions, states)):
        if len(coordinates) != len(data):
            raise LandscapeFileError(f"{folder}: {name}.coords has {len(coordinates)} lines, {name}.data {len(data)}")
    pairs = _check_pairs(Path(folder) / "ts.data", states[:, :2].astype(int), len(minima))
    zeros, ts_zeros = np.zeros(len(minima)), np.zeros(len(states))
    return Stored(
        positions,
        *(minima[:, 1], zeros, zeros.astype(int) + 1),
        ts_positions.reshape(len(states), -1),
        *(states[:, 2], ts_zeros, ts_zeros.astype(int) + 1),
        pairs,
    )


def to_networkx(landscape: Landscape) -> "nx.MultiGraph":
    """Return a graph with a node per minimum and an edge per transition state, scalars as attributes.

    Raises:
        ImportError: if networkx is not installed.
    """
    import networkx as nx

    graph = nx.MultiGraph()
    minima, states = to_frames(landscape)
    graph.add_nodes_from((int(i), dict(row)) for i, row in minima.iterrows())
    ends = states[["minimum_1", "minimum_2"]].to_numpy()
    rest = states.drop(columns=["minimum_1", "minimum_2"])
    edges = zip(ends.tolist(), rest.iterrows(), strict=True)
    graph.add_edges_from((a, b, int(i), dict(row)) for (a, b), (i, row) in edges)
    return graph


def to_frames(landscape: Landscape) -> "tuple[pd.DataFrame, pd.DataFrame]":
    """Return minima and transition states as pandas data frames, one row each, without the vectors.

    Raises:
        ImportError: if pandas is not installed.
    """
    import pandas as pd

    def scalars(points: Minima | TransitionStates) -> "pd.DataFrame":
        return pd.DataFrame({name: field for name, field in points._asdict().items() if field.ndim == 1})

    states = scalars(landscape.transition_states)
    first, second = landscape.transition_states.minima.T
    return scalars(landscape.minima), states.assign(minimum_1=first, minimum_2=second)


def _write_text(folder: str | os.PathLike[str], name: str, rows: np.ndarray, format: str | list[str]) -> None:
    with replacing(Path(folder) / name) as file:
        np.savetxt(file, rows, fmt=format)


def _read_text(folder: str | os.PathLike[str], name: str, num_columns: int | None) -> Float[np.ndarray, "n columns"]:
    path = Path(folder) / name
    text = path.read_text().split("\n")
    lines = [line.split() for line in text if line.strip()]
    if not lines:
        return np.empty((0, num_columns or 0))
    width = num_columns or len(lines[0])
    wrong = next((i for i, line in enumerate(lines, 1) if len(line) != width), None)
    if wrong is not None:
        raise LandscapeFileError(f"{path} line {wrong}: expected {width} numbers, got {len(lines[wrong - 1])}")
    try:
        # Fortran writes exponents with a D.
        rows = np.array([[float(word.replace("D", "E")) for word in line] for line in lines])
    except ValueError as error:
        raise LandscapeFileError(f"{path}: {error}") from error
    if not np.all(np.isfinite(rows)):
        raise LandscapeFileError(f"{path} holds numbers that are not finite")
    return rows


def _read_points(folder: str | os.PathLike[str], name: str, number: int, dim: int | None) -> Float[np.ndarray, "n P"]:
    path = Path(folder) / name
    content = path.read_bytes()
    if number == 0 and not content:
        return np.empty((0, dim or 0))
    size = 8 * number * (dim or 1)
    if number == 0 or len(content) % (8 * number) or (dim is not None and len(content) != size):
        raise LandscapeFileError(f"{path} has {len(content)} bytes, which are not {number} points of doubles")
    return np.frombuffer(content).reshape(number, -1).copy()


def _check_pairs(path: Path, pairs: Int[np.ndarray, "T 2"], number: int) -> Int[np.ndarray, "T 2"]:
    if pairs.size and not 0 <= pairs.min() <= pairs.max() < number:
        raise LandscapeFileError(f"{path} names minima that min.data does not have: it has {number}")
    return pairs
