import os
import random
import tempfile
from unittest import mock

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscape import ExploreConfig, Symmetry, database, exchange, surfaces
from jaxscape.landscape import certify
from jaxscape.landscape.database import LandscapeFileError, Minima, TransitionStates

FILES = {
    "pathsample": ("min.data", "ts.data", "points.min", "points.ts"),
    "topsearch": ("min.data", "ts.data", "min.coords", "ts.coords"),
}


def write(program, folder, found):
    getattr(exchange, f"write_{program}")(folder, found)


def read(program, folder):
    return getattr(exchange, f"read_{program}")(folder)


def landscape(num_atoms=0):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 6)), rng.normal(size=(4, 6))
    ones, zeros = np.ones(3, int), np.zeros(3)
    minima = Minima(
        x, np.array([-1.1, 0.2, 1e-17]), zeros + 0.1, x, np.array([1.5, 2.5, -3.5]), np.log(2.0) + zeros, ones, ones
    )
    pairs = np.array([[0, 1], [1, 2], [1, 2], [2, 2]])
    states = TransitionStates(
        y, np.array([1.0, 3.0, 2.0, 4.0]), y[:, 0], y, y[:, 1], np.zeros(4), pairs, np.ones(4, int)
    )
    found, _ = database.insert_minima(database.empty(Symmetry((), dim=6, num_atoms=num_atoms)), minima)
    found, _ = database.insert_transition_states(found, states)
    return database.add_attempted(found, np.array([[0, 1]]))


def test_pathsample_files_come_back_bit_by_bit_and_stand_as_pathsample_has_them(tmp_path):
    found = landscape(num_atoms=2)
    exchange.write_pathsample(tmp_path, found)
    first = (tmp_path / "ts.data").read_text().splitlines()[0].split()
    assert [float(first[0]), *map(int, first[2:5])] == [1.0, 1, 1, 2]
    assert len((tmp_path / "min.data").read_text().splitlines()[0].split()) == 6
    assert (tmp_path / "points.ts").read_bytes() == found.transition_states.positions.tobytes()
    back = exchange.read_pathsample(tmp_path)
    np.testing.assert_array_equal(back.positions, found.minima.positions)
    np.testing.assert_array_equal(back.energies, found.minima.energies)
    np.testing.assert_array_equal(back.ts_log_determinants, found.transition_states.log_determinants)
    np.testing.assert_array_equal(back.orders, np.exp(found.minima.log_orders).round())
    np.testing.assert_array_equal(back.ts_minima, found.transition_states.minima)


def test_topsearch_keeps_the_lowest_of_several_transition_states(tmp_path):
    found = landscape()
    exchange.write_topsearch(tmp_path, found)
    # As topsearch's read_network reads them.
    assert np.loadtxt(tmp_path / "min.data").shape == (3, 2)
    assert np.loadtxt(tmp_path / "ts.data").tolist() == [[0, 1, 1], [1, 2, 2], [2, 2, 4]]
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "ts.coords"), found.transition_states.positions[[0, 2, 3]])
    assert np.loadtxt(tmp_path / "pairlist", ndmin=2, dtype=int).tolist() == [[0, 1]]
    back = exchange.read_topsearch(tmp_path)
    np.testing.assert_array_equal(back.positions, found.minima.positions)
    assert back.ts_minima.tolist() == [[0, 1], [1, 2], [2, 2]]


def test_graphs_and_frames_hold_every_point():
    graph = exchange.to_networkx(landscape())
    assert isinstance(graph, nx.MultiGraph)
    assert graph.number_of_nodes() == 3
    assert graph.number_of_edges(1, 2) == 2
    assert graph.nodes[1]["energies"] == 0.2
    minima, states = exchange.to_frames(landscape())
    assert len(minima) == 3
    assert states["minimum_2"].tolist() == [1, 2, 2, 2]


@pytest.mark.parametrize(
    ("program", "name", "content", "match"),
    [
        ("pathsample", "min.data", b"1.0 2.0\n", "min.data line 1: expected 6"),
        ("pathsample", "min.data", b"1 1 1 1 1 1\n\n \n1 1 1 1 1\n", "min.data line 4: expected 6 numbers, got 5"),
        (
            "pathsample",
            "min.data",
            b"1 1 1 1 1 1\n1 1 1 1 1 1\n1 1 1 abc 1 1\n",
            "line 3: 'abc' is not a finite number",
        ),
        ("pathsample", "min.data", b"1-2-3 1 1 1 1 1\n", "line 1: '1-2-3' is"),
        ("pathsample", "min.data", b"12-345 1 1 1 1 1\n", "line 1: '12-345' is"),
        ("pathsample", "min.data", b"1 1 1 1 1 1\n1 1 1 1 1 1 1\n", "line 2: expected 6 numbers, got 7"),
        ("pathsample", "min.data", b"1.5-3 1 1 1 1 1\n", "line 1: '1.5-3' is"),
        ("pathsample", "min.data", b"1.0+999 1 1 1 1 1\n", r"line 1: '1.0\+999' is"),
        ("pathsample", "min.data", b"1_0 1 1 1 1 1\n", "line 1: '1_0' is"),
        ("pathsample", "min.data", b"nan 1 1 1 1 1\n" * 3, "line 1: 'nan' is"),
        ("pathsample", "min.data", b"1 1 1 1 1 1\n1 \xff 1 1 1 1\n", "min.data line 2: byte 0xff"),
        ("pathsample", "min.data", b"1 1 1 1 1 1\n1 \xd9\xa3 1 1 1 1\n", "min.data line 2: byte 0xd9"),
        ("pathsample", "min.data", b"1 1 0 1 1 1\n" * 3, "min.data line 1: '0' is not .* from 1"),
        ("pathsample", "min.data", b"1 1 1.5 1 1 1\n" * 3, "line 1: '1.5' is not .* from 1"),
        ("pathsample", "min.data", b"1 1 9223372036854775808.0 1 1 1\n" * 3, "line 1: '9223372036854775808.0' is not"),
        ("pathsample", "ts.data", b"9 1 -1 1 1 1 1 1\n" * 4, "ts.data line 1: '-1' is not .* from 1"),
        ("pathsample", "ts.data", b"9 1 1 1 9 1 1 1\n" * 4, "ts.data line 1: '9' is not .* has 3, numbered from 1"),
        ("pathsample", "ts.data", b"9 1 1 1 1 1 1 1\n9 1 1 0 1 1 1 1\n" * 2, "line 2: '0' is not .* numbered from 1"),
        ("pathsample", "ts.data", b"9 1 1 1 1.5 1 1 1\n" * 4, "line 1: '1.5' is not .* numbered from 1"),
        ("pathsample", "ts.data", b"9 1 1 1 1e300 1 1 1\n" * 4, "line 1: '1e300' is not"),
        ("pathsample", "ts.data", b"9 1 1 1 9223372036854775809 1 1 1\n" * 4, "line 1: '9223372036854775809' is not"),
        ("pathsample", "points.min", b"abc", "3 bytes"),
        ("pathsample", "points.min", b"", "points.min has 0 bytes"),
        ("pathsample", "points.ts", np.ones(12).tobytes(), "points.ts has 96 bytes"),
        (
            "pathsample",
            "points.min",
            np.array([0.0] * 17 + [np.nan]).tobytes(),
            "points.min: coordinate 6 of point 3 is nan",
        ),
        (
            "pathsample",
            "points.ts",
            np.array([0.0] * 7 + [np.inf] + [0.0] * 16).tobytes(),
            "points.ts: coordinate 2 of point 2 is inf",
        ),
        ("topsearch", "min.data", b"0 1\n1 1\n1 1\n", "min.data line 3: minimum 1 .* line 2"),
        ("topsearch", "min.data", b"0 1\n1 1\n3 1\n", "min.data line 3: '3' is not .* has 3, numbered from 0"),
        ("topsearch", "min.data", b"0 1\n1.5 1\n2 1\n", "line 2: '1.5' is not"),
        ("topsearch", "min.data", b"0 1\n1 1\n-1 1\n", "line 3: '-1' is not"),
        ("topsearch", "min.data", b"", "min.coords has 3 lines, .*min.data 0"),
        ("topsearch", "ts.data", b"0 1 9\n0 1e300 9\n1 2 9\n", "ts.data line 2: '1e300' is not"),
        ("topsearch", "ts.data", b"0 1 9\n", "ts.coords has 3 lines, .*ts.data 1"),
        ("topsearch", "ts.coords", b"1 1 1 1 1\n" * 3, "ts.coords line 1: expected 6 numbers, got 5"),
        ("topsearch", "min.coords", b"1 1 1 1 1 inf\n" * 3, "min.coords line 1: 'inf' is"),
    ],
)
def test_damaged_files_are_named(tmp_path, program, name, content, match):
    write(program, tmp_path, landscape())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LandscapeFileError, match=match) as caught:
        read(program, tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("program", "content"),
    [
        ("pathsample", b"9 1 1 1 1 1 1 1\n\n0.1 2 1 1 2 1 1 1\n9 3 1 1 3 1 1 1\n0.1 4 1 1 2 1 1 1\n"),
        ("topsearch", b"0 0 9\n\n0 1 0.1\n0 2 9\n"),
    ],
)
def test_transition_states_below_their_minima_are_left_out_and_named(tmp_path, program, content):
    found = landscape()
    write(program, tmp_path, found)
    whole = read(program, tmp_path)
    (tmp_path / "ts.data").write_bytes(content)
    with pytest.warns(UserWarning, match=r"ts\.data: [12] of [34] .* the first on line 3, at 0\.1"):
        back = read(program, tmp_path)
    assert back.dropped.tolist() == ([1, 3] if program == "pathsample" else [1])
    assert whole.dropped.tolist() == []
    assert back.ts_minima.tolist() == [[0, 0], [0, 2]]
    np.testing.assert_array_equal(back.ts_positions, whole.ts_positions[[0, 2]])
    np.testing.assert_array_equal(back.ts_log_determinants, [1, 3] if program == "pathsample" else [0, 0])
    np.testing.assert_array_equal(back.energies, found.minima.energies)


def test_the_large_files_of_pathsample_may_be_absent(tmp_path):
    found = landscape()
    exchange.write_pathsample(tmp_path, found)
    (tmp_path / "points.min").unlink()
    back = exchange.read_pathsample(tmp_path)
    assert back.positions.shape == (3, 0)
    np.testing.assert_array_equal(back.ts_positions, found.transition_states.positions)
    (tmp_path / "points.ts").unlink()
    back = exchange.read_pathsample(tmp_path)
    assert back.ts_positions.shape == (4, 0)
    np.testing.assert_array_equal(back.energies, found.minima.energies)


def test_clusters_go_to_xyz_and_come_back_lowest_first(tmp_path):
    path = tmp_path / "minima.xyz"
    exchange.write_xyz(path, landscape(num_atoms=2), "Ar")
    lines = path.read_text().splitlines()
    assert lines[:2] == ["2", "minimum 0, energy -1.1000000000000001"]
    assert lines[2].startswith("Ar ")
    assert len(lines) == 12
    np.testing.assert_array_equal(exchange.read_xyz(path), landscape().minima.positions[[0, 2, 1]])
    with pytest.raises(ValueError, match="no landscape of clusters"):
        exchange.write_xyz(tmp_path / "none.xyz", landscape(), "Ar")
    with pytest.raises(ValueError, match="one word"):
        exchange.write_xyz(tmp_path / "none.xyz", landscape(num_atoms=2), "noble gas")
    assert not (tmp_path / "none.xyz").exists()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", "no frames"),
        ("two\n\nAr 0 0 0\n", "line 1: 'two' is not the number"),
        ("0\n\n", "line 1: '0' is not the number"),
        ("2\n\nAr 0 0 0\n", "line 1: a frame of 2 atoms, of which 1"),
        ("1\n\nAr 0 0\n", "line 3: 'Ar 0 0' is not"),
        ("1\n\nAr 0 0 nan\n", "line 3: 'Ar 0 0 nan' is not"),
        ("1\n\nAr 0 0 0\n\n1\nlast\nKr 0 0 0\n", "line 5: its atoms are not those of the frame on line 1"),
    ],
)
def test_damaged_xyz_files_are_named(tmp_path, content, match):
    (tmp_path / "some.xyz").write_text(content)
    with pytest.raises(LandscapeFileError, match=match) as caught:
        exchange.read_xyz(tmp_path / "some.xyz")
    assert str(tmp_path) in str(caught.value)


def test_xyz_of_other_programs_is_read(tmp_path):
    (tmp_path / "some.xyz").write_text("2\ncomment\nC 1.0 2 3D0 0.1 extra\nH -1 -2 -3\n\n2\n\nC 0 0 0\nH 1 1 1\n\n")
    assert exchange.read_xyz(tmp_path / "some.xyz").tolist() == [[1, 2, 3, -1, -2, -3], [0, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("-0.11D+01", -1.1),
        ("1.0d0", 1.0),
        ("1.0D0", 1.0),
        ("1.0-100", 1e-100),
        ("1.0+100", 1e100),
        ("-1.5-123", -1.5e-123),
        (".5-100", 0.5e-100),
    ],
)
def test_numbers_as_fortran_writes_them_are_read(tmp_path, word, value):
    exchange.write_pathsample(tmp_path, landscape())
    (tmp_path / "min.data").write_text(f"  0.5 {word} 2 1.0 1.0 1.0\n" * 3)
    assert exchange.read_pathsample(tmp_path).log_determinants.tolist() == [value] * 3


def test_topsearch_rows_are_in_the_order_of_their_ids_and_need_no_transition_states(tmp_path):
    (tmp_path / "min.data").write_text("1 2.0\n0 1.0\n")
    (tmp_path / "min.coords").write_text("1 1\n0 0\n")
    for name in ("ts.data", "ts.coords"):
        (tmp_path / name).touch()
    back = exchange.read_topsearch(tmp_path)
    assert back.energies.tolist() == [1, 2]
    assert back.positions.tolist() == [[0, 0], [1, 1]]
    assert back.ts_positions.shape == (0, 2)
    assert back.ts_minima.shape == (0, 2)
    (tmp_path / "ts.data").write_text("0 1 2.0\n")
    (tmp_path / "ts.coords").write_text("5 5\n")
    # No lower than its minima: energies rounded to five decimals can be equal, never in another order.
    assert exchange.read_topsearch(tmp_path).ts_minima.tolist() == [[0, 1]]


@pytest.mark.parametrize(("program", "state"), [("pathsample", "1 1 1 1 1 1 1 1"), ("topsearch", "1 1 1")])
def test_a_landscape_without_points_is_read_as_one_and_has_no_transition_states(tmp_path, program, state):
    write(program, tmp_path, database.empty(Symmetry((), dim=6)))
    back = read(program, tmp_path)
    assert back.positions.shape == back.ts_positions.shape == (0, 0)
    assert back.energies.shape == back.ts_energies.shape == (0,)
    (tmp_path / "ts.data").write_text(state)
    with pytest.raises(LandscapeFileError, match=f"{FILES[program][3]} has 0"):
        read(program, tmp_path)
    (tmp_path / FILES[program][3]).write_text("1 1 1 1\n")
    with pytest.raises(LandscapeFileError, match=r"8 bytes, .*0 doubles|'1' is not .* has 0, numbered from [01]"):
        read(program, tmp_path)


@pytest.mark.parametrize("kind", ["minima", "transition_states"])
def test_log_determinants_that_are_not_known_are_refused_before_anything_is_written(tmp_path, kind):
    points = getattr(landscape(), kind)
    some = np.where(np.arange(len(points.energies)) == 1, np.nan, points.log_determinants)
    found = landscape()._replace(**{kind: points._replace(log_determinants=some)})
    with pytest.raises(ValueError, match=rf"some {kind.replace('_', ' ')} .*not diagonalised; write_topsearch"):
        exchange.write_pathsample(tmp_path, found)
    assert not list(tmp_path.iterdir())
    exchange.write_topsearch(tmp_path, found)
    np.testing.assert_array_equal(exchange.read_topsearch(tmp_path).energies, found.minima.energies)


finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def landscapes(draw):
    num_minima, dim = draw(st.integers(0, 4)), draw(st.integers(1, 3))
    num_states = draw(st.integers(0, 5)) if num_minima else 0

    def numbers(*shape, of=finite, dtype=float):
        size = int(np.prod(shape))
        return np.array(draw(st.lists(of, min_size=size, max_size=size)), dtype).reshape(shape)

    def points(size):
        vectors, rows = np.zeros((size, dim)), np.zeros(size)
        log_orders = np.log(numbers(size, of=st.integers(1, 2**40), dtype=int))
        return numbers(size, dim), numbers(size), rows, vectors, numbers(size), log_orders

    minima = Minima(*points(num_minima), *np.ones((2, num_minima), int))
    pairs = np.sort(numbers(num_states, 2, of=st.integers(0, max(0, num_minima - 1)), dtype=int))
    states = TransitionStates(*points(num_states), pairs, np.ones(num_states, int))
    states = states._replace(energies=np.maximum(states.energies, minima.energies[pairs].max(axis=1, initial=-np.inf)))
    return database.empty(Symmetry((), dim=dim))._replace(minima=minima, transition_states=states)


def assert_same_bits(first, second):
    assert (first.shape, first.dtype, first.tobytes()) == (second.shape, second.dtype, second.tobytes())


@settings(max_examples=200, deadline=None)
@given(landscapes())
def test_what_a_format_keeps_comes_back_to_the_bit(found):
    minima, states = found.minima, found.transition_states
    no_waits = mock.patch.object(os, "fsync")  # 1,800 of them, for the disk
    with no_waits, tempfile.TemporaryDirectory() as folder:
        exchange.write_pathsample(folder, found)
        back = exchange.read_pathsample(folder)
    with no_waits, tempfile.TemporaryDirectory() as folder:
        exchange.write_topsearch(folder, found)
        lowest_back = exchange.read_topsearch(folder)
    for points, orders in ((minima, back.orders), (states, back.ts_orders)):
        assert_same_bits(orders, np.exp(points.log_orders).round().astype(int))
    for name in ("energies", "log_determinants"):
        assert_same_bits(getattr(back, name), getattr(minima, name))
        assert_same_bits(getattr(back, f"ts_{name}"), getattr(states, name))
    assert_same_bits(back.ts_minima, states.minima)
    assert_same_bits(lowest_back.energies, minima.energies)
    if len(minima.energies):  # else the dimension is nowhere
        assert_same_bits(back.positions, minima.positions)
        assert_same_bits(back.ts_positions, states.positions)
        assert_same_bits(lowest_back.positions, minima.positions)

    lowest = {}
    for pair, energy, position in zip(states.minima.tolist(), states.energies, states.positions, strict=True):
        if tuple(pair) not in lowest or energy < lowest[tuple(pair)][0]:
            lowest[tuple(pair)] = energy, position
    assert [tuple(pair) for pair in lowest_back.ts_minima.tolist()] == sorted(lowest)
    for pair, *kept in zip(sorted(lowest), lowest_back.ts_energies, lowest_back.ts_positions, strict=True):
        for one, other in zip(kept, lowest[pair], strict=True):
            assert_same_bits(one, other)


WORDS = b"nan -inf 1e300 1e999 -1 0 1 2 3 1.5 9223372036854775808 1-2-3 1.0-100 1.0+400 1_0 abc * \xff \xd9\xa3".split()


def mutated(content, is_binary, choose):
    """Change one thing in the content of a file."""
    kind = choose.choice(["byte", "insert", "cut", "lines", "lines", "word", "word"])
    at = choose.randrange(len(content))
    if kind == "byte":
        return content[:at] + choose.randbytes(1) + content[at + 1 :]
    if kind == "insert":
        return content[:at] + choose.randbytes(choose.choice([1, 8])) + content[at:]
    if kind == "cut":
        return content[:at]
    if is_binary:
        start = at - at % 8
        return content[:start] + np.array(choose.choice([np.nan, np.inf, 1e300])).tobytes() + content[start + 8 :]
    lines = [line.split() for line in content.splitlines()]
    line = choose.choice(lines)
    if kind == "word":
        line[choose.randrange(len(line))] = choose.choice(WORDS)
    else:
        choose.choice([lines.remove, lines.append, lambda line: lines.insert(0, []), lambda line: line.pop()])(line)
    return b"\n".join(b" ".join(words) for words in lines)


def read_or_complaint(program, folder):
    try:
        return read(program, folder)
    except LandscapeFileError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore:.*transition states lie below")
@pytest.mark.parametrize("program", FILES)
def test_mutated_files_are_read_as_something_whole_or_refused_by_name(tmp_path, program):
    write(program, tmp_path, landscape())
    paths = [tmp_path / name for name in FILES[program]]
    whole = [path.read_bytes() for path in paths]
    choose, refused = random.Random(0), 0
    for _ in range(250):
        i = choose.randrange(4)
        paths[i].write_bytes(mutated(whole[i], paths[i].stem == "points", choose))
        found = read_or_complaint(program, tmp_path)
        if isinstance(found, str):
            refused += 1
            assert any(str(path) in found for path in paths)
        else:
            (num_minima, dim), num_states = found.positions.shape, len(found.ts_energies)
            rows, ts_rows = (num_minima,), (num_states,)
            dropped = found.dropped.shape
            shapes = [(num_minima, dim), *[rows] * 3, (num_states, dim), *[ts_rows] * 3, (num_states, 2), dropped]
            assert [field.shape for field in found] == shapes
            assert all(np.all(np.isfinite(field)) for field in found)
            assert np.all((found.ts_minima >= 0) & (found.ts_minima < num_minima))
            assert min(found.orders.min(), found.ts_orders.min(initial=1)) >= 1
            assert np.all(found.ts_energies[:, None] >= found.energies[found.ts_minima])
        paths[i].write_bytes(whole[i])
    assert 50 < refused < 225


def test_points_from_elsewhere_are_certified_one_by_one():
    problem, group = surfaces.mueller_brown()
    minima = np.array([[-0.55, 1.44], [0.6, 0.03], [-0.05, 0.47], [-0.56, 1.4417], [-0.822, 0.6243]])
    saddles = np.array([[-0.82, 0.62], [0.21, 0.29], [0.62, 0.03]])
    found = certify.certified(problem, group, minima, saddles, ExploreConfig(num_searches=4))
    # The saddle among the minima is stepped off; the minimum among the saddles is no saddle.
    np.testing.assert_allclose(np.sort(found.minima.energies), [-146.6995, -108.1667, -80.7678], atol=1e-3)
    np.testing.assert_allclose(np.sort(found.transition_states.energies), [-72.2489, -40.6648], atol=1e-3)
    assert np.sort(found.transition_states.minima, axis=0).tolist() == [[0, 2], [1, 2]]
