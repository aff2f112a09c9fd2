import networkx as nx
import numpy as np
import pytest

from jaxscape import ExploreConfig, Symmetry, database, exchange, surfaces
from jaxscape.landscape import certify
from jaxscape.landscape.database import LandscapeFileError, Minima, TransitionStates


def landscape(num_atoms=0):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(3, 6)), rng.normal(size=(4, 6))
    ones, zeros = np.ones(3, int), np.zeros(3)
    minima = Minima(x, np.array([-1.1, 0.2, 1e-17]), zeros + 0.1, x, np.array([1.5, 2.5, -3.5]), 2 * ones, ones, ones)
    pairs = np.array([[0, 1], [1, 2], [1, 2], [2, 2]])
    states = TransitionStates(
        y, np.array([1.0, 3.0, 2.0, 4.0]), y[:, 0], y, y[:, 1], np.ones(4, int), pairs, np.ones(4, int)
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
    np.testing.assert_allclose(back.energies, found.minima.energies, rtol=1e-14)
    np.testing.assert_allclose(back.ts_log_determinants, found.transition_states.log_determinants, rtol=1e-14)
    np.testing.assert_array_equal(back.orders, found.minima.orders)
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
    ("name", "content", "match"),
    [
        ("min.data", "1.0 2.0\n", "line 1: expected 6"),
        ("min.data", "1 1 1 1 1 1\n1 1 1 1 1 1\n1 1 1 x 1 1\n", "could not convert"),
        ("ts.data", "1 1 1 1 9 1 1 1\n" * 4, "names minima"),
        ("points.min", "abc", "3 bytes"),
        ("min.data", "nan 1 1 1 1 1\n" * 3, "not finite"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, match):
    exchange.write_pathsample(tmp_path, landscape())
    (tmp_path / name).write_text(content)
    with pytest.raises(LandscapeFileError, match=match):
        exchange.read_pathsample(tmp_path)


def test_fortran_exponents_are_read(tmp_path):
    exchange.write_pathsample(tmp_path, landscape())
    (tmp_path / "min.data").write_text("  -0.11D+01 0.15D+01 2 1.0 1.0 1.0\n" * 3)
    assert exchange.read_pathsample(tmp_path).energies.tolist() == [-1.1] * 3


def test_points_from_elsewhere_are_certified_one_by_one():
    problem, group = surfaces.mueller_brown()
    minima = np.array([[-0.55, 1.44], [0.6, 0.03], [-0.05, 0.47], [-0.56, 1.4417], [-0.822, 0.6243]])
    saddles = np.array([[-0.82, 0.62], [0.21, 0.29], [0.62, 0.03]])
    found = certify.certified(problem, group, minima, saddles, ExploreConfig(num_searches=4))
    # The saddle among the minima is stepped off; the minimum among the saddles is no saddle.
    np.testing.assert_allclose(np.sort(found.minima.energies), [-146.6995, -108.1667, -80.7678], atol=1e-3)
    np.testing.assert_allclose(np.sort(found.transition_states.energies), [-72.2489, -40.6648], atol=1e-3)
    assert np.sort(found.transition_states.minima, axis=0).tolist() == [[0, 2], [1, 2]]
