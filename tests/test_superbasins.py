import numpy as np
import pytest
from scipy.stats import spearmanr

from jaxscape import disconnectivity, superbasins


@pytest.mark.parametrize("seed", range(50))
def test_a_bar_ends_at_the_lowest_barrier_to_anything_lower(seed):
    rng = np.random.default_rng(seed)
    size, edges = int(rng.integers(1, 12)), int(rng.integers(0, 20))
    energy, pairs = rng.normal(size=size), rng.integers(0, size, (edges, 2))
    heights = energy[pairs].max(axis=1, initial=-9) + rng.exponential(size=edges)
    tree = disconnectivity.merge_tree(energy, heights, pairs)
    for i, found in enumerate(disconnectivity.persistence(tree, energy)):
        barriers = [disconnectivity.barrier(tree, i, j)[0] for j in range(len(energy)) if energy[j] < energy[i]]
        assert found == pytest.approx(min(barriers, default=np.inf) - energy[i])


def two_groups(shift, seed=0, size=12):
    """A tree of two superbasins, joined at 5, all else at 1; column 2 matters more on one side by `shift`."""
    rng = np.random.default_rng(seed)
    energy = np.append(np.linspace(0, 0.5, size), np.linspace(0.2, 0.9, size))
    chain = [(i, i + 1) for i in range(2 * size - 1) if i != size - 1]
    tree = disconnectivity.merge_tree(energy, np.array([1.0] * len(chain) + [5.0]), np.array([*chain, (0, size)]))
    importance = rng.normal(size=(2 * size, 4))
    importance[size:, 2] += shift
    return tree, energy, importance


def test_superbasins_that_rank_columns_differently_are_told_with_their_barrier():
    tree, energy, importance = two_groups(5.0)
    asked = np.arange(24)
    (found, *_) = superbasins.compare(tree, energy, asked, importance)
    assert (found.energy, found.barrier) == (5.0, 4.8)
    assert sorted(map(len, found.minima)) == [12, 12]
    assert found.p_value == pytest.approx(0.001)
    assert {int(side.argmax()) for side in found.importance} >= {2}
    assert found.rank_correlation == pytest.approx(spearmanr(*found.importance).statistic)


def test_where_there_is_no_difference_small_p_values_are_as_rare_as_they_say():
    found = [
        superbasins.compare(*two_groups(0.0, seed)[:2], np.arange(24), two_groups(0.0, seed)[2], min_size=10)[0].p_value
        for seed in range(200)
    ]
    # Of 200 about 20 at or below 0.1, and 33 or more once in a thousand times.
    assert 5 < np.sum(np.array(found) <= 0.1) < 33


def test_minima_that_were_not_asked_are_passed_over_and_small_sides_too():
    tree, energy, importance = two_groups(5.0)
    asked = np.array([0, 1, 2, 3, 20, 21, 22, 23])
    assert superbasins.compare(tree, energy, asked, importance[asked], min_size=5) == []
    (found,) = superbasins.compare(tree, energy, asked, importance[asked], min_size=4)
    assert sorted(np.concatenate(found.minima).tolist()) == asked.tolist()


def test_what_is_the_same_everywhere_differs_nowhere():
    tree, energy, importance = two_groups(5.0)
    (found, *_) = superbasins.compare(tree, energy, np.arange(24), np.ones_like(importance))
    assert (found.p_value, found.rank_correlation) == (1.0, 1.0)
    with pytest.raises(ValueError, match="24 minima and 3 energies"):
        superbasins.compare(tree, energy[:3], np.arange(24), importance)
