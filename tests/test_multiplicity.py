"""Measures of disagreement, against closed forms and a general optimiser."""

import numpy as np
import pytest
import scipy.optimize

from jaxscape.analysis.multiplicity import multiplicity, rashomon_capacity


@pytest.mark.parametrize("flips", [0.0, 0.1, 0.3, 0.5])
def test_the_capacity_of_a_symmetric_channel_is_one_less_the_entropy_of_its_flips(flips):
    rows = np.array([[[1 - flips, flips]], [[flips, 1 - flips]], [[0.5, 0.5]]])
    entropy = -sum(p * np.log2(p) for p in (flips, 1 - flips) if p > 0)
    assert rashomon_capacity(rows)[0] == pytest.approx(1 - entropy, abs=1e-5)


def test_the_capacity_is_the_largest_information_over_all_weights_of_the_networks():
    rows = np.random.default_rng(0).dirichlet(np.ones(3), (4, 6))

    def information(logits, each):
        weights = np.exp(logits) / np.exp(logits).sum()
        return -float(np.sum(weights[:, None] * each * np.log2(each / (weights @ each))))

    best = []
    for each in np.moveaxis(rows, 1, 0):
        ends = [scipy.optimize.minimize(information, start, (each,)) for start in np.eye(4) * 2]
        best.append(-min(end.fun for end in ends))
    np.testing.assert_allclose(rashomon_capacity(rows), best, atol=1e-4)


def test_ambiguity_counts_rows_and_discrepancy_the_worst_network():
    sure = np.array([[0.9, 0.1], [0.1, 0.9]])
    decisions = np.array([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0]])
    found = multiplicity(sure[decisions], sure[np.zeros(4, int)])
    assert (found.ambiguity, found.discrepancy) == (0.75, 0.5)
    alike = multiplicity(sure[decisions[[0, 0]]], sure[decisions[0]])
    assert alike == (0.0, 0.0, pytest.approx(0.0, abs=1e-9))
