import numpy as np
import pytest

from jaxscape.landscape.ledger import Search
from jaxscape.table import datasets
from jaxscape.table.problem import ExplainConfig, explore_landscape


@pytest.fixture(scope="module")
def dataset():
    return datasets.prepare(datasets.checkerboard(num_rows=100))


def test_workers_find_what_one_process_finds(dataset):
    told = []
    landscapes = []
    for workers in (1, 2):
        config = ExplainConfig(penalty=1e-2, hidden=(2,), rounds=200, workers=workers)
        explored = explore_landscape(dataset, config, progress=lambda part, text: told.append((part, text)))
        assert explored.stopped_by == "complete"
        landscapes.append(explored.landscape)
    alone, _ = landscapes
    for kind in ("minima", "transition_states"):
        energies = [np.sort(getattr(landscape, kind).energies) for landscape in landscapes]
        np.testing.assert_allclose(*energies, rtol=1e-9)
    # Each worker comes to the minima by itself.
    polished = [landscape.ledger.outcomes[Search.MINIMA].sum() for landscape in landscapes]
    assert polished[0] == len(alone.minima.energies) < polished[1]
    assert [text for _, text in told if "2 processes" in text][-1].endswith("2 of them done")
    assert np.all(np.diff([part for part, text in told if "processes" in text]) > 0)
