import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxscape import database, models, symmetry
from jaxscape.landscape import ledger
from jaxscape.landscape.database import Minima, TransitionStates
from jaxscape.landscape.ledger import Search
from jaxscape.search.points import StationaryPoint, Status

SIZES = (2, 3, 1)
GROUP = models.symmetry(SIZES, "tanh")


def minima(positions, energies):
    ones = np.ones(len(energies), int)
    energies = np.asarray(energies, float)
    zeros, vectors = np.zeros(len(ones)), 0 * np.asarray(positions)
    return Minima(np.asarray(positions), energies, zeros + 0.1, vectors, zeros, zeros, ones, 0 * ones)


def states(positions, energies, pairs):
    energies = np.asarray(energies, float)
    ones = np.ones(len(energies), int)
    x, zeros = np.asarray(positions), np.zeros(len(ones))
    return TransitionStates(x, energies, zeros - 1.0, x, zeros, zeros, np.asarray(pairs), ones)


def isomers(rng, x, number):
    moves = [[rng.permutation(3)] for _ in range(number)], [[rng.choice([-1.0, 1.0], 3)] for _ in range(number)]
    return np.stack([symmetry.apply(GROUP, x, *move) for move in zip(*moves, strict=True)])


def landscape(seed=0, number=4):
    rng = np.random.default_rng(seed)
    found, _ = database.insert_minima(
        database.empty(GROUP), minima(rng.normal(size=(number, GROUP.dim)), range(number))
    )
    found, _ = database.insert_transition_states(
        found, states(rng.normal(size=(2, GROUP.dim)), [9, 10], [[1, 0], [2, 2]])
    )
    points = StationaryPoint(*np.zeros((3, 2)), np.array([5, 7]), np.array([Status.CONVERGED, Status.FLAT]))
    spent = ledger.record(found.ledger, Search.MINIMA, points)
    return database.add_attempted(found, np.array([[1, 0]]))._replace(ledger=spent)


def assert_equal(one, other):
    for group in ("minima", "transition_states"):
        for name, field in getattr(one, group)._asdict().items():
            np.testing.assert_array_equal(field, getattr(getattr(other, group), name), err_msg=name)
    np.testing.assert_array_equal(one.attempted, other.attempted)
    assert ledger.to_names(one.ledger) == ledger.to_names(other.ledger)
    assert one.ledger.evaluations == other.ledger.evaluations


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 2**31))
def test_copies_are_one_point_and_points_of_equal_energy_stay_apart(distinct, copies, seed):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(distinct, GROUP.dim))
    rows = np.concatenate([isomers(rng, x, copies) for x in points]) + 1e-7 * rng.normal(size=(distinct * copies, 1))
    order = rng.permutation(len(rows))
    found, ids = database.insert_minima(database.empty(GROUP), minima(rows[order], np.full(len(rows), 0.5)))
    assert len(found.minima.energies) == distinct
    np.testing.assert_array_equal(found.minima.visits, copies)
    truth = (np.arange(len(rows)) // copies)[order]
    assert len(set(zip(ids.tolist(), truth.tolist(), strict=True))) == distinct
    again, same_ids = database.insert_minima(found, minima(rows, np.full(len(rows), 0.5)))
    assert len(again.minima.energies) == distinct
    np.testing.assert_array_equal(same_ids[order], ids)


def test_energy_tells_points_at_one_place_apart():
    x = np.random.default_rng(0).normal(size=(1, GROUP.dim))
    found, ids = database.insert_minima(database.empty(GROUP), minima(np.repeat(x, 2, axis=0), [0.5, 0.5001]))
    assert ids.tolist() == [0, 1]
    assert len(found.minima.energies) == 2


def test_a_file_gives_back_what_was_saved(tmp_path):
    found = landscape()
    database.save(tmp_path / "a.npz", found, extra={"walkers/0": np.arange(3)})
    loaded = database.load(tmp_path / "a.npz")
    assert_equal(found, loaded)
    assert loaded.symmetry.odd == GROUP.odd
    for layer, same in zip(loaded.symmetry.layers, GROUP.layers, strict=True):
        np.testing.assert_array_equal(layer.units, same.units)
    np.testing.assert_array_equal(database.load_extra(tmp_path / "a.npz")["walkers/0"], np.arange(3))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    database.save(tmp_path / "a.npz", landscape(0))

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        database.save(tmp_path / "a.npz", landscape(1))
    assert_equal(database.load(tmp_path / "a.npz"), landscape(0))
    assert len(list(tmp_path.iterdir())) == 1


def test_damaged_foreign_and_old_files_are_told_apart_from_landscapes(tmp_path):
    path = tmp_path / "a.npz"
    database.save(path, landscape())
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(database.LandscapeFileError, match="damaged"):
        database.load(path)
    path.write_text("minimum 1\n")
    with pytest.raises(database.LandscapeFileError, match="damaged"):
        database.load(path)
    np.savez(path, a=np.zeros(3))
    with pytest.raises(database.LandscapeFileError, match="schema None"):
        database.load(path)
    np.savez(path, schema_version=np.asarray(database.SCHEMA_VERSION + 1))
    with pytest.raises(database.LandscapeFileError, match="schema"):
        database.load(path)
    np.savez(path, schema_version=np.asarray(database.SCHEMA_VERSION))
    with pytest.raises(database.LandscapeFileError, match="missing"):
        database.load(path)
    np.savez(path, schema_version=np.asarray("three"))
    with pytest.raises(database.LandscapeFileError, match="schema three"):
        database.load(path)
    with pytest.raises(FileNotFoundError):
        database.load(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("minima/energies", np.array([0.0, 1.0, np.nan, 3.0]), "minima/energies.*not finite"),
        ("minima/energies", np.array(["a", "b", "c", "d"]), "minima/energies should hold numbers"),
        ("minima/positions", np.zeros((3, GROUP.dim)), r"minima/positions has the shape \(3"),
        ("minima/visits", np.array([1, 1, 0, 1]), "minima/visits holds numbers below 1"),
        ("minima/searches", np.array([0.5, 1, 1, 1]), "minima/searches should hold whole numbers"),
        ("transition_states/minima", np.array([[0, 1], [2, 4]]), "minima that are not there: there are 4"),
        ("transition_states/minima", np.array([[0, 1], [-1, 2]]), "minima that are not there"),
        ("transition_states/energies", np.array([9.0, 1.0]), "does not lie above"),
        ("attempted", np.array([[0, 9, 1]]), "attempted names minima that are not there"),
        ("attempted", np.array([0, 1]), "attempted has the shape"),
        ("symmetry/0/bias", np.array([1, 2, 99]), "weights beyond"),
        ("ledger/outcomes", np.asarray('{"minima": {"CONVERGED": 1'), "Expecting"),
        ("ledger/outcomes", np.asarray('{"minima": {"LOST": 1}}'), "LOST"),
        ("ledger/outcomes", np.asarray("[1]"), "no whole landscape"),
    ],
)
def test_what_contradicts_itself_is_not_loaded(tmp_path, name, value, message):
    path = tmp_path / "a.npz"
    database.save(path, landscape())
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **(arrays | {name: value}))
    with pytest.raises(database.LandscapeFileError, match=message) as raised:
        database.load(path)
    assert str(path) in str(raised.value)


# As the release before wrote them.
OLD_NAMES = {
    "hops": {"CONVERGED": 3, "STALLED": 1}, "minima": {"CONVERGED": 2}, "saddle searches": {"CONVERGED": 5},
    "polished saddles": {"CONVERGED": 3}, "push-offs": {"CONVERGED": 1, "PUSHOFF_FAILED": 1},
    "connections": {"CONVERGED": 1},
}  # fmt: skip


def test_files_of_the_schema_before_still_load(tmp_path):
    path = tmp_path / "a.npz"
    database.save(path, landscape())
    with np.load(path) as archive:
        arrays = {name: array for name, array in archive.items() if not name.startswith("ledger/")}
    for group in ("minima", "transition_states"):
        arrays[f"{group}/orders"] = np.exp(arrays.pop(f"{group}/log_orders")).astype(int)
    meta = {"evaluations": 12, "outcomes": OLD_NAMES, "settings": {"l2": 0.1}}
    np.savez(path, **(arrays | {"schema_version": np.asarray(2), "meta": np.asarray(json.dumps(meta))}))
    loaded = database.load(path)
    assert loaded.ledger.outcomes.sum(axis=1).tolist() == [4, 2, 5, 3, 2, 1]
    assert_equal(loaded._replace(ledger=landscape().ledger), landscape())
    np.savez(path, **(arrays | {"schema_version": np.asarray(2), "meta": np.asarray("{damaged")}))
    with pytest.raises(database.LandscapeFileError, match="no whole landscape"):
        database.load(path)


def test_merging_doubles_nothing_and_maps_ids():
    first, second = landscape(0), landscape(1)
    merged = database.merge(first, second)
    assert len(merged.minima.energies) == 8
    assert merged.transition_states.minima.tolist() == [[0, 1], [2, 2], [4, 5], [6, 6]]
    assert merged.attempted.tolist() == [[0, 1, 1], [4, 5, 1]]
    assert merged.ledger.evaluations == 24
    assert ledger.to_names(merged.ledger) == {"minima": {"CONVERGED": 2, "FLAT": 2}}
    twice = database.merge(merged, second)
    assert len(twice.minima.energies) == 8
    assert len(twice.transition_states.energies) == 4
    assert twice.attempted.tolist() == [[0, 1, 1], [4, 5, 2]]
    assert twice.minima.visits.tolist() == [1] * 4 + [2] * 4
    with pytest.raises(ValueError, match="same model"):
        database.merge(first, database.empty(models.symmetry((3, 2, 1), "tanh")))


def test_a_transition_state_needs_two_minima_below_it():
    found = landscape()
    x = np.ones((1, GROUP.dim))
    with pytest.raises(ValueError, match="above both"):
        database.insert_transition_states(found, states(x, [2.5], [[0, 3]]))
    with pytest.raises(ValueError, match="minimum 7"):
        database.insert_transition_states(found, states(x, [8.5], [[0, 7]]))


def test_components_are_counted_over_transition_states():
    assert database.components(landscape()).tolist() == [0, 0, 1, 2]
