import numpy as np
import pytest

from jaxscape import attribution, conserved, models, symmetry

GROUP = models.symmetry((3, 2, 1), "tanh")
RNG = np.random.default_rng(0)


def scrambled(x, number):
    """Copies of one network under random moves of the symmetry group."""
    permutations = [[RNG.permutation(2)] for _ in range(number)]
    signs = [[RNG.choice([-1.0, 1.0], 2)] for _ in range(number)]
    return np.stack([symmetry.apply(GROUP, x, *move) for move in zip(permutations, signs, strict=True)])


def test_isomers_agree_after_alignment_and_only_the_planted_weights_vary():
    x = 5 * RNG.normal(size=GROUP.dim)
    noisy = np.tile(x, (20, 1))
    varied = [0, 4]
    noisy[:, varied] += 0.1 * RNG.normal(size=(20, 2))
    rows = np.stack([scrambled(row, 1)[0] for row in noisy])
    weights, reference = conserved.align_groups(GROUP, rows, np.arange(20.0), np.zeros(20, int))
    assert reference.tolist() == [0]
    found = conserved.conserved_weights(weights, np.zeros(20, int), criterion="absolute", threshold=9 / 11)
    changed = np.flatnonzero(weights.std(axis=0) > 1e-9)
    assert len(changed) == len(varied)
    assert not found.mask[0, changed].any()
    assert found.mask.sum() == 9
    assert found.size.tolist() == [20]


def test_groups_are_aligned_to_their_own_lowest_member():
    x, y = RNG.normal(size=(2, GROUP.dim))
    rows = np.concatenate([scrambled(x, 4), scrambled(y, 3), scrambled(x, 1)])
    labels = np.array([0, 0, 0, 0, 1, 1, 1, -1])
    weights, reference = conserved.align_groups(GROUP, rows, np.array([3.0, 1, 2, 4, 9, 8, 7, 0]), labels)
    assert reference.tolist() == [1, 6]
    np.testing.assert_allclose(weights[:4], np.tile(rows[1], (4, 1)), atol=1e-12)
    np.testing.assert_allclose(weights[4:7], np.tile(rows[6], (3, 1)), atol=1e-12)
    np.testing.assert_array_equal(weights[7], rows[7])
    found = conserved.conserved_weights(weights, labels)
    np.testing.assert_allclose(found.std, 0, atol=1e-12)


def test_a_label_without_members_is_no_group():
    rows = RNG.normal(size=(3, GROUP.dim))
    weights, reference = conserved.align_groups(GROUP, rows, np.arange(3.0), np.array([0, 2, 2]))
    assert reference.tolist() == [0, -1, 1]
    assert not conserved.conserved_weights(weights, np.array([0, 2, 2])).mask[1].any()


def test_relative_spread_does_not_call_small_weights_conserved():
    weights = np.stack([[5.0, 0.01, 2.0], [5.5, -0.01, 2.0]])
    labels = np.zeros(2, int)
    assert conserved.conserved_weights(weights, labels, criterion="relative", threshold=2 / 3).mask.tolist() == [
        [True, False, True]
    ]
    assert conserved.conserved_weights(weights, labels, criterion="absolute", threshold=2 / 3).mask.tolist() == [
        [False, True, True]
    ]


def test_candidates_limit_the_choice_and_a_group_of_one_has_none():
    weights = RNG.normal(size=(5, GROUP.dim))
    candidates = np.isin(np.arange(GROUP.dim), GROUP.layers[0].incoming)
    labels = np.array([0, 0, 0, 0, 1])
    found = conserved.conserved_weights(weights, labels, threshold=0.5, candidates=candidates)
    assert found.mask[0].sum() == 3
    assert not found.mask[0, ~candidates].any()
    assert not found.mask[1].any()


def test_unknown_criteria_and_thresholds_are_value_errors():
    with pytest.raises(ValueError, match="between 0 and 1"):
        conserved.conserved_weights(np.ones((2, 3)), np.zeros(2, int), threshold=30.0)


def test_scores_of_inputs_add_up_the_magnitudes_of_their_conserved_weights():
    weights = RNG.normal(size=(4, GROUP.dim))
    found = conserved.conserved_weights(weights, np.zeros(4, int), threshold=0.5)
    incoming = GROUP.layers[0].incoming
    expected = [
        sum(abs(weights[:, incoming[unit, column]].mean()) * found.mask[0, incoming[unit, column]] for unit in range(2))
        for column in range(3)
    ]
    np.testing.assert_allclose(attribution.feature_scores(found, GROUP)[0], expected)
    single = attribution.input_scores(weights[:1], found.mask[0], GROUP)
    np.testing.assert_allclose(single[0], (np.abs(weights[0]) * found.mask[0])[incoming].sum(axis=0))
