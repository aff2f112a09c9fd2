import itertools
import math

import numpy as np
import pytest

from jaxscape.analysis.effects import accumulated_effect, contributions, interactions

RNG = np.random.default_rng(0)
WEIGHTS = np.array([0.25, 0.75])


def predict(x):
    """Two models: one is a sum, the other has a product and a square."""
    return np.stack([2 * x[:, 0] - x[:, 1] + 3, x[:, 0] * x[:, 2] + x[:, 1] ** 2])


def test_the_effect_of_a_sum_is_its_own_term_even_where_columns_go_together():
    x = RNG.normal(size=(2000, 3))
    x[:, 1] = x[:, 0] + 0.1 * x[:, 1]
    found = accumulated_effect(predict, x, 0, WEIGHTS)
    np.testing.assert_allclose(np.diff(found.each[0]), 2 * np.diff(found.at))
    assert abs(np.interp(x[:, 0], found.at, found.each[0]).mean()) < 0.05
    # Of the square the neighbour is not charged with anything.
    alone = accumulated_effect(lambda x: predict(x)[1:], x, 2, np.ones(1))
    assert np.abs(alone.each[:, 1:-1]).max() < 0.2
    square = accumulated_effect(predict, x, 1, WEIGHTS)
    inner = np.abs(square.at) < 1
    np.testing.assert_allclose(
        square.each[1][inner] - square.each[1][inner].min(), square.at[inner] ** 2 - (square.at[inner] ** 2).min(),
        atol=0.1,
    )  # fmt: skip
    np.testing.assert_allclose(found.mean, WEIGHTS @ found.each)
    np.testing.assert_allclose(found.std, np.sqrt(3 / 16) * np.abs(found.each[0] - found.each[1]))


def test_a_column_of_one_value_has_no_effect():
    found = accumulated_effect(predict, np.ones((10, 3)), 0, WEIGHTS)
    assert not found.each.any()


@pytest.mark.parametrize("num_orders", [24, 400])
def test_contributions_are_shapley_values(num_orders):
    # Columns of one or two inputs; by the definition, over all subsets of the others.
    column = np.array([0, 1, 1, 2, 3])
    coefficients = RNG.normal(size=(5, 5))
    models = lambda x: np.stack([np.einsum("ni,ij,nj->n", x, coefficients, x), np.tanh(x).sum(axis=1)])  # noqa: E731
    x, background = RNG.normal(size=5), RNG.normal(size=(7, 5))

    def worth(columns):
        return models(np.where(np.isin(column, columns), x, background)).mean(axis=1)

    exact = np.zeros((2, 4))
    for own in range(4):
        others = [k for k in range(4) if k != own]
        for number in range(4):
            for chosen in itertools.combinations(others, number):
                share = math.factorial(number) * math.factorial(3 - number) / math.factorial(4)
                exact[:, own] += share * (worth([*chosen, own]) - worth(chosen))
    found = contributions(models, x, background, column, WEIGHTS, np.random.default_rng(1), num_orders=num_orders)
    np.testing.assert_allclose(found.each, exact, atol=1e-12)
    np.testing.assert_allclose(found.base + found.each.sum(axis=1), models(x[None])[:, 0])


def test_drawn_orders_come_near_and_add_up():
    x, background = RNG.normal(size=6), RNG.normal(size=(20, 6))
    models = lambda x: (x[:, 0] * x[:, 1] + x[:, 2:].sum(axis=1))[None]  # noqa: E731
    found = contributions(models, x, background, np.arange(6), np.ones(1), np.random.default_rng(0), num_orders=64)
    np.testing.assert_allclose(found.each[0, 2:], (x - background.mean(axis=0))[2:])
    np.testing.assert_allclose((found.base + found.each.sum(axis=1)), models(x[None])[0])


def test_only_what_two_columns_do_together_counts_as_interaction():
    # All 16 corners: every effect is exactly what the formula says.
    x = np.array(list(itertools.product([-1.0, 1.0], repeat=4)))
    column = np.arange(4)

    def outputs(x):
        first = 2 * x[:, 0] * x[:, 1] + x[:, 0] + np.exp(x[:, 2]) + x[:, 3]
        second = 2 * x[:, 0] * x[:, 1] + 4 * x[:, 2] * x[:, 3]
        return np.stack([first, second])[..., None]

    found = {each.columns: each for each in interactions(outputs, x, column, [0, 1, 2, 3], WEIGHTS)}
    assert list(found)[:2] == [(2, 3), (0, 1)]
    assert found[0, 1].strength == pytest.approx(2)
    assert found[0, 1].std == pytest.approx(0)
    # Beside the product, of mean square 4, the first column has an effect of its own in one of the networks.
    assert found[0, 1].share == pytest.approx(4 / (4 + 0.25**2))
    assert found[2, 3].strength == pytest.approx(3)
    assert found[2, 3].std == pytest.approx(math.sqrt(0.25 * 3**2 + 0.75 * 1**2))
    for pair in ((0, 2), (0, 3), (1, 2), (1, 3)):
        assert found[pair].strength == pytest.approx(0, abs=1e-12)


def test_the_inputs_of_one_column_are_moved_together_and_outputs_add_up():
    # Three levels, one-hot; two outputs.
    levels = np.repeat(np.eye(3), 2, axis=0)
    x = np.column_stack([levels, np.tile([-1.0, 1.0], 3)])
    effect = np.array([1.0, 2.0, 6.0])
    (found,) = interactions(
        lambda x: np.stack([x[:, :3] @ effect * x[:, 3], x[:, 3]], axis=1)[None],
        x, np.array([0, 0, 0, 1]), [0, 1], np.ones(1),
    )  # fmt: skip
    assert found.strength == pytest.approx(effect.std())


def test_where_nothing_happens_there_is_no_share_of_it():
    x = RNG.normal(size=(20, 4))
    found = interactions(lambda x: np.tanh(x[:, :1])[None], x, np.arange(4), [1, 2, 3, 1], np.ones(1))
    assert [each.columns for each in found] == [(1, 2), (1, 3), (2, 3)]
    assert [each.share for each in found] == [0, 0, 0]
