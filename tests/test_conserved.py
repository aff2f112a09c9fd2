import numpy as np
import pytest

from jaxscape import attribution, conserved, disconnectivity, models, symmetry
from jaxscape.symmetry import Symmetry

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


def test_thresholds_can_be_values_and_false_discovery_rates():
    weights = np.stack([[5.0, 0.1, 2.0], [5.5, 0.3, 2.0]])
    labels = np.zeros(2, int)
    by_value = conserved.conserved_weights(weights, labels, threshold=0.06, by="value")
    assert by_value.mask.tolist() == [[True, False, True]]
    # Benjamini & Hochberg by hand: 0.01 * 3 / 1, 0.04 * 3 / 2, 0.5.
    found = [
        conserved.conserved_weights(
            weights,
            labels,
            criterion="significance",
            by="value",
            threshold=rate,
            p_values=np.array([[0.04, 0.5, 0.01]]),
        ).mask.tolist()
        for rate in (0.05, 0.07)
    ]
    assert found == [[[False, False, True]], [[True, False, True]]]
    with pytest.raises(ValueError, match="needs p_values"):
        conserved.conserved_weights(weights, labels, criterion="significance")


def test_inputs_that_mean_the_same_to_all_members_are_significant_and_only_those():
    group = models.symmetry((8, 3, 1), "tanh")
    rng = np.random.default_rng(0)
    incoming = group.layers[0].incoming
    members = rng.normal(size=(20, group.dim))
    null = conserved.input_significance(rng, group, symmetry.align(group, members[0], members)[0])
    assert np.all(null[~np.isin(np.arange(group.dim), incoming)] == 1)
    # Alignment makes unrelated networks alike; that is in the null.
    assert 0.3 < null[incoming].mean() < 0.7
    members[:, incoming[:, :2]] = np.array([[4.0, -3.0], [-4.0, 3.0], [3.0, 4.0]])
    p_values = conserved.input_significance(rng, group, symmetry.align(group, members[0], members)[0])
    assert p_values[incoming[:, :2]].max() < 0.01
    assert np.mean(p_values[incoming[:, 2:]] < 0.05) < 0.2


def test_a_unit_with_weights_of_one_sign_is_no_more_significant_than_others():
    group = models.symmetry((8, 3, 1), "tanh")
    rng = np.random.default_rng(0)
    incoming, shares = group.layers[0].incoming, []
    for _ in range(10):
        members = rng.normal(size=(12, group.dim))
        members[:, incoming[0]] = 3 + rng.normal(size=(12, 8))  # alike, but no input more than others
        aligned, _ = symmetry.align(group, members[0], members)
        shares.append(np.mean(conserved.input_significance(rng, group, aligned, num_draws=40)[incoming[0]] <= 0.05))
    assert np.mean(shares) < 0.1


def test_a_random_group_is_not_significant():
    rng = np.random.default_rng(2)
    shares = []
    for _ in range(10):
        positions = rng.normal(size=(30, GROUP.dim))
        positions[:, GROUP.layers[0].units[0]] *= 4  # one large unit
        p_values = conserved.label_significance(rng, GROUP, positions, rng.normal(size=30), np.arange(8), num_draws=39)
        shares.append(np.mean(p_values <= 0.05))
    assert np.mean(shares) < 0.1


def test_a_tight_group_is_significant_among_all_minima_and_the_whole_is_not():
    rng = np.random.default_rng(1)
    positions = rng.normal(size=(30, GROUP.dim))
    positions[:8] = positions[0] + 0.01 * rng.normal(size=(8, GROUP.dim))
    energies = np.arange(30.0)
    tight = conserved.label_significance(rng, GROUP, positions, energies, np.arange(8), num_draws=50)
    assert np.median(tight) < 0.05
    whole = conserved.label_significance(rng, GROUP, positions, energies, np.arange(30), num_draws=20)
    np.testing.assert_array_equal(whole, 1)


def test_masks_of_superbasins_follow_the_tree():
    rng = np.random.default_rng(2)
    # Two funnels of three minima; within the first, weight 0 is the same in all, within the second weight 1.
    positions = rng.normal(size=(6, 4))
    positions[:3, 0], positions[3:, 1] = 2.0, -3.0
    energies = np.array([0.0, 0.1, 0.2, 0.05, 0.15, 0.25])
    tree = disconnectivity.merge_tree(
        energies, np.array([0.5, 0.6, 0.5, 0.6, 2.0]), np.array([[0, 1], [1, 2], [3, 4], [4, 5], [0, 3]])
    )
    nodes = conserved.by_level(Symmetry((), 4), tree, positions, energies, threshold=0.25, num_levels=20)
    assert nodes[0].members.tolist() == [0, 1, 2, 3, 4, 5]
    assert nodes[0].parent == -1
    three = {tuple(node.members): node for node in nodes if len(node.members) == 3}
    assert three[0, 1, 2].mask.tolist() == [True, False, False, False]
    assert three[3, 4, 5].mask.tolist() == [False, True, False, False]
    assert all(nodes[node.parent].members.size > node.members.size for node in nodes[1:])
    assert all(0.6 <= node.level < 2 for node in three.values())
    assert three[0, 1, 2].overlap == conserved.jaccard(three[0, 1, 2].mask, nodes[0].mask)
    assert [len(node.members) for node in conserved.funnel(nodes, 3)] == [6, 3, 2]


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


def test_the_spread_over_a_superbasin_is_between_its_minima_and_within_them():
    # Two wells of a mixture: its variance by sampling.
    rng = np.random.default_rng(0)
    minima, variances = np.array([[1.0, 0.0], [3.0, 0.5]]), np.array([[0.5, 0.01], [1.5, 0.04]])
    drawn = np.concatenate(
        [m + np.sqrt(v) * rng.normal(size=(200_000, 2)) for m, v in zip(minima, variances, strict=True)]
    )
    found = conserved.conserved_weights(minima, np.zeros(2, int), within=variances)
    np.testing.assert_allclose(found.std[0], drawn.std(axis=0), rtol=0.01)
    alone = conserved.conserved_weights(minima[:1], np.zeros(1, int), within=variances[:1], threshold=0.5)
    np.testing.assert_allclose(alone.std[0], np.sqrt(variances[0]))
    assert alone.mask.tolist() == [[True, False]]


def test_what_the_data_determine_is_conserved():
    minimum, within, allowed = np.ones((1, 3)), np.array([[0.9, 0.2, 0.01]]), np.array([1.0, 0.21, 0.1])
    one = np.zeros(1, int)
    found = conserved.conserved_weights(
        minimum, one, criterion="determined", by="value", threshold=0.5, within=within, allowed=allowed
    )
    assert found.mask.tolist() == [[False, False, True]]
    with pytest.raises(ValueError, match="needs the variance within"):
        conserved.conserved_weights(minimum, one, criterion="determined")
