"""Databases in the words of others: files of PATHSAMPLE (also read by pele) and topsearch, networkx, data frames, XYZ.

What other programs wrote comes back as plain arrays: enough for a merge tree or a heat capacity. To go on exploring,
give the positions to `certify.certified`, which checks every point on the objective.
"""

import math
import os
import re
import warnings
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxscape.files import replacing
from jaxscape.landscape.database import Landscape, LandscapeFileError, Minima, TransitionStates

if TYPE_CHECKING:
    import networkx as nx
    import pandas as pd

_LARGEST_ORDER = 2.0**62
_DIGITS = "%.17g"  # enough to give back the same double
# Fortran writes exponents with a D, and without a letter if they have three digits.
_FORTRAN = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))[dD]([+-]?\d+)|([+-]?(?:\d+\.\d*|\.\d+))([+-]\d{3})")
_MAX_ORDER = np.iinfo(np.int64).max
_NONE = np.zeros(0, int)


class Stored(NamedTuple):
    """A database of another program.

    Minima: `positions (M, P)`, `energies (M,)`, `log_determinants (M,)`, `orders (M,)` of the point groups; transition
    states: `ts_positions (T, P)`, `ts_energies (T,)`, `ts_log_determinants (T,)`, `ts_orders (T,)` and `ts_minima (T,
    2)`, ids from 0. All numbers are finite, orders are at least 1. No transition state lies below its minima: those of
    the file that do are left out, and `dropped (D,)` are their places there, from 0. topsearch keeps neither
    determinants (here 0) nor orders (here 1), and energies to five decimals.
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
    dropped: Int[np.ndarray, " D"]


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

    Args:
        folder: where to write or replace the files; it must exist.
        landscape: what to write.

    Raises:
        ValueError: if a log determinant is not known; nothing is written then.
    """
    minima, states = landscape.minima, landscape.transition_states
    for what, points in (("minima", minima), ("transition states", states)):
        if not np.all(np.isfinite(points.log_determinants)):
            raise ValueError(
                f"PATHSAMPLE needs all log determinants, and those of some {what} are not known: Hessians of large "
                "networks are not diagonalised; write_topsearch does without"
            )
    moments, ts_moments = (_principal_moments(landscape, points.positions) for points in (minima, states))
    orders, ts_orders = (_whole_orders(points.log_orders) for points in (minima, states))
    rows = np.column_stack([minima.energies, minima.log_determinants, orders, moments])
    ts_rows = np.column_stack([states.energies, states.log_determinants, ts_orders, states.minima + 1, ts_moments])
    _write_text(folder, "min.data", rows, [_DIGITS, _DIGITS, "%d"] + 3 * [_DIGITS])
    _write_text(folder, "ts.data", ts_rows, [_DIGITS, _DIGITS, "%d", "%d", "%d"] + 3 * [_DIGITS])
    for name, positions in (("points.min", minima.positions), ("points.ts", states.positions)):
        with replacing(Path(folder) / name) as file:
            file.write(np.ascontiguousarray(positions, np.float64).tobytes())


def _whole_orders(log_orders: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    if np.any(log_orders > np.log(_LARGEST_ORDER)):
        raise ValueError(
            f"PATHSAMPLE needs the orders of point groups as whole numbers, and one is exp({log_orders.max():.6g}): a "
            "network with so many dead units; write_topsearch does without"
        )
    return np.rint(np.exp(log_orders)).astype(int)


def read_pathsample(folder: str | os.PathLike[str]) -> Stored:
    """Read the files of PATHSAMPLE, as `write_pathsample` names them.

    Args:
        folder: where `min.data` and `ts.data` are; `points.min` and `points.ts`, which are large, may be left out.

    Returns:
        What they hold; without minima or without `points.min`, positions have no columns.

    Raises:
        FileNotFoundError: if `min.data` or `ts.data` is missing.
        LandscapeFileError: if a file has other columns or anything but finite numbers, if the points do not fit the
            number of lines, if an order is below 1, or if a transition state joins minima that are not there.

    Warns:
        UserWarning: if transition states lie below one of their minima; they are left out.
    """
    minima, states = _read_table(folder, "min.data", 6), _read_table(folder, "ts.data", 8)
    positions = _read_points(folder, "points.min", minima, None)
    ts_positions = _read_points(folder, "points.ts", states, positions.shape[1] or None)
    energies, log_determinants = minima.numbers[:, :2].T
    ts_energies, ts_log_determinants = states.numbers[:, :2].T
    found = Stored(
        *(positions, energies, log_determinants, _orders(minima)),
        *(ts_positions, ts_energies, ts_log_determinants, _orders(states)),
        *(_pairs(states, (3, 4), len(energies), first=1), _NONE),
    )
    return _without_bad_states(found, states)


def write_topsearch(folder: str | os.PathLike[str], landscape: Landscape) -> None:
    """Write `min.data`, `min.coords`, `ts.data`, `ts.coords` and `pairlist` as topsearch's `dump_network` does.

    topsearch keeps one transition state for a pair of minima: of several the lowest is written. Energies have 17 digits
    instead of five decimals, which topsearch reads as well.

    Args:
        folder: where to write or replace the files; it must exist.
        landscape: what to write.
    """
    minima, states = landscape.minima, landscape.transition_states
    order = np.lexsort((states.energies, *states.minima.T[::-1]))
    _, first = np.unique(states.minima[order], axis=0, return_index=True)
    rows = order[first]
    ids = np.arange(len(minima.energies))
    _write_text(folder, "min.data", np.column_stack([ids, minima.energies]), ["%d", _DIGITS])
    _write_text(folder, "min.coords", minima.positions, _DIGITS)
    ts_data = np.column_stack([states.minima[rows], states.energies[rows]])
    _write_text(folder, "ts.data", ts_data, ["%d", "%d", _DIGITS])
    _write_text(folder, "ts.coords", states.positions[rows], _DIGITS)
    _write_text(folder, "pairlist", landscape.attempted[:, :2], "%d")


def read_topsearch(folder: str | os.PathLike[str]) -> Stored:
    """Read the files of topsearch, as `write_topsearch` names them; `pairlist` is not needed.

    Args:
        folder: where the four files are.

    Returns:
        What they hold, minima in the order of their ids; without minima, positions have no columns.

    Raises:
        FileNotFoundError: if one of the four is missing.
        LandscapeFileError: if a file has other columns or anything but finite numbers, if the coordinates do not fit
            the number of lines, if the ids of the minima are not 0, 1, 2, ... in any order, or if a transition state
            joins minima that are not there.

    Warns:
        UserWarning: if transition states lie below one of their minima; they are left out.
    """
    minima, states = _read_table(folder, "min.data", 2), _read_table(folder, "ts.data", 3)
    positions = _read_coordinates(folder, "min.coords", minima, None)
    ts_positions = _read_coordinates(folder, "ts.coords", states, positions.shape[1])
    order = _by_id(minima)
    energies, ts_energies = minima.numbers[order, 1], states.numbers[:, 2]
    zeros, ts_zeros = np.zeros(len(energies)), np.zeros(len(ts_energies))
    found = Stored(
        *(positions[order], energies, zeros, zeros.astype(int) + 1),
        *(ts_positions, ts_energies, ts_zeros, ts_zeros.astype(int) + 1),
        *(_pairs(states, (0, 1), len(energies), first=0), _NONE),
    )
    return _without_bad_states(found, states)


def write_xyz(path: str | os.PathLike[str], landscape: Landscape, symbol: str = "X") -> None:
    """Write the minima of clusters of one kind of atoms as frames of an XYZ file, lowest first, in their own units.

    Args:
        path: the file, which is replaced.
        landscape: of clusters.
        symbol: of the element.

    Raises:
        ValueError: if the landscape is not one of clusters, or the symbol is not one word.
    """
    if not landscape.symmetry.num_atoms:
        raise ValueError("XYZ files hold atoms, and this is no landscape of clusters: its symmetry has no num_atoms")
    if symbol.split() != [symbol]:
        raise ValueError(f"symbol must be one word such as Ar, got {symbol!r}")
    minima = landscape.minima
    with replacing(Path(path)) as file:
        for i in np.argsort(minima.energies, kind="stable").tolist():
            atoms = minima.positions[i].reshape(-1, 3).tolist()
            lines = [str(len(atoms)), f"minimum {i}, energy {minima.energies[i]:.17g}"]
            lines += [f"{symbol} {x:.17g} {y:.17g} {z:.17g}" for x, y, z in atoms]
            file.write("\n".join([*lines, ""]).encode("ascii"))


def read_xyz(path: str | os.PathLike[str]) -> Float[np.ndarray, "n P"]:
    """Read the frames of an XYZ file, such as starts for `explore` or points for `certify.certified`.

    Args:
        path: the file. What follows the three coordinates on a line is not read.

    Returns:
        A row for each frame: the coordinates of the first atom, the second, ...

    Raises:
        FileNotFoundError: if there is no such file.
        LandscapeFileError: if it has no frame, if frames differ in their atoms, or if a line is not what it should be.
    """
    path = Path(path)
    lines = path.read_text("utf-8", errors="replace").splitlines()
    frames: list[list[float]] = []
    first, symbols, at = 0, [""], 0

    def wrong(line: int, what: str) -> LandscapeFileError:
        return LandscapeFileError(f"{path} line {line + 1}: {what}")

    while at < len(lines):
        if not lines[at].strip():
            at += 1  # between frames, and in the end
            continue
        number = lines[at].strip()
        if not number.isdecimal() or int(number) == 0:
            raise wrong(at, f"{number!r} is not the number of atoms of a frame")
        rows = [line.split() for line in lines[at + 2 : at + 2 + int(number)]]
        if len(rows) < int(number):
            raise wrong(at, f"a frame of {number} atoms, of which {len(rows)} are there")
        frame: list[float] = []
        for row, words in enumerate(rows, at + 2):
            coordinates = [_number(word) for word in words[1:4]]
            if len(coordinates) < 3 or not all(map(math.isfinite, coordinates)):
                raise wrong(row, f"{' '.join(words)!r} is not a symbol and three finite coordinates")
            frame += coordinates
        if frames and [words[0] for words in rows] != symbols:
            raise wrong(at, f"its atoms are not those of the frame on line {first + 1}, in the same order")
        if not frames:
            first, symbols = at, [words[0] for words in rows]
        frames.append(frame)
        at += 2 + int(number)
    if not frames:
        raise LandscapeFileError(f"{path} has no frames")
    return np.array(frames)


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


class _Table(NamedTuple):
    """A text file: its `words`, the `numbers (n, columns)` they stand for, and the `lines` they are on, from 1."""

    path: Path
    lines: list[int]
    words: list[list[str]]
    numbers: Float[np.ndarray, "n columns"]


def _wrong(table: _Table, row: int, what: str) -> LandscapeFileError:
    return LandscapeFileError(f"{table.path} line {table.lines[row]}: {what}")


def _write_text(folder: str | os.PathLike[str], name: str, rows: np.ndarray, format: str | list[str]) -> None:
    with replacing(Path(folder) / name) as file:
        np.savetxt(file, rows, fmt=format)


def _number(word: str) -> float:
    """Return what a word stands for in C or Fortran; NaN if it is no number."""
    try:
        # Python's own underscores are no part of a number elsewhere.
        return math.nan if "_" in word else float(word)
    except ValueError:
        fortran = _FORTRAN.fullmatch(word)
        return float("e".join(filter(None, fortran.groups()))) if fortran else math.nan


def _read_table(folder: str | os.PathLike[str], name: str, num_columns: int | None) -> _Table:
    path = Path(folder) / name
    try:
        text = path.read_text("ascii")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = error.object[error.start]
        raise LandscapeFileError(f"{path} line {line}: byte 0x{byte:02x} is no part of a number") from error
    filled = [(line, words) for line, words in enumerate(map(str.split, text.split("\n")), 1) if words]
    lines, words = [line for line, _ in filled], [words for _, words in filled]
    width = num_columns or (len(words[0]) if words else 0)
    for line, found in filled:
        if len(found) != width:
            raise LandscapeFileError(f"{path} line {line}: expected {width} numbers, got {len(found)}")
    numbers = np.fromiter(map(_number, chain.from_iterable(words)), float, len(words) * width)
    table = _Table(path, lines, words, numbers.reshape(len(words), width))
    for row, column in np.argwhere(~np.isfinite(table.numbers))[:1].tolist():
        raise _wrong(table, row, f"{words[row][column]!r} is not a finite number")
    return table


def _read_points(folder: str | os.PathLike[str], name: str, table: _Table, dim: int | None) -> Float[np.ndarray, "n P"]:
    path, number = Path(folder) / name, len(table.lines)
    if not path.exists():
        return np.zeros((number, 0))
    content = path.read_bytes()
    if dim is None:
        dim = len(content) // (8 * number) if number else 0
    if len(content) != 8 * number * dim or (number and not content):
        raise LandscapeFileError(
            f"{path} has {len(content)} bytes, which are not {number} points (the lines of {table.path.name}) of "
            f"{dim} doubles"
        )
    points = np.frombuffer(content).reshape(number, dim).copy()
    for row, column in np.argwhere(~np.isfinite(points))[:1].tolist():
        raise LandscapeFileError(
            f"{path}: coordinate {column + 1} of point {row + 1} is {points[row, column]}, not a finite number"
        )
    return points


def _read_coordinates(
    folder: str | os.PathLike[str], name: str, table: _Table, dim: int | None
) -> Float[np.ndarray, "n P"]:
    coordinates = _read_table(folder, name, dim or None)
    if len(coordinates.lines) != len(table.lines):
        raise LandscapeFileError(
            f"{coordinates.path} has {len(coordinates.lines)} lines, {table.path} {len(table.lines)}"
        )
    return coordinates.numbers


def _whole_numbers(table: _Table, column: int, low: int, high: int, meaning: str) -> Int[np.ndarray, " n"]:
    found = []
    for row, words in enumerate(table.words):
        word = words[column]
        # Doubles skip whole numbers above 2^53.
        value = int(word) if word.isdigit() and len(word) < 20 else table.numbers.item(row, column)
        if not low <= value <= high or value % 1:
            raise _wrong(table, row, f"{word!r} is not {meaning}")
        found.append(int(value))
    return np.array(found, int)


def _orders(table: _Table) -> Int[np.ndarray, " n"]:
    return _whole_numbers(table, 2, 1, _MAX_ORDER, "the order of a point group, a whole number from 1")


def _ids(table: _Table, column: int, number: int, first: int) -> Int[np.ndarray, " n"]:
    meaning = f"the number of a minimum: min.data has {number}, numbered from {first}"
    return _whole_numbers(table, column, first, first + number - 1, meaning) - first


def _by_id(minima: _Table) -> Int[np.ndarray, " M"]:
    """Return the rows of topsearch's `min.data` in the order of their ids."""
    ids = _ids(minima, 0, len(minima.lines), first=0)
    order = np.argsort(ids, kind="stable")
    for place in np.flatnonzero(np.diff(ids[order]) == 0)[:1].tolist():
        one, other = order[place : place + 2].tolist()
        raise _wrong(minima, other, f"minimum {ids[other]} is on line {minima.lines[one]} already")
    return order


def _pairs(states: _Table, columns: tuple[int, int], num_minima: int, first: int) -> Int[np.ndarray, "T 2"]:
    """Return the minima that each transition state joins, from 0, where `first` is the first number in the file."""
    return np.column_stack([_ids(states, column, num_minima, first) for column in columns])


def _without_bad_states(found: Stored, states: _Table) -> Stored:
    """Leave out transition states below their minima, which no merge tree could hold.

    Equal energies may stand: rounding to some decimals makes energies equal, never exchanges them.
    """
    bad = np.any(found.ts_energies[:, None] < found.energies[found.ts_minima], axis=1)
    if not bad.any():
        return found
    row = int(np.flatnonzero(bad)[0])
    warnings.warn(
        f"{states.path}: {bad.sum()} of {len(bad)} transition states lie below one of their minima and are left out, "
        f"the first on line {states.lines[row]}, at {found.ts_energies[row]}",
        stacklevel=3,
    )
    kept = {name: getattr(found, name)[~bad] for name in Stored._fields if name.startswith("ts_")}
    return found._replace(**kept, dropped=np.flatnonzero(bad))
