"""Quantities of heavy tails: bent, learnt, brought back; the evidence says when."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxscape import LandscapeRegressor
from jaxscape.table import tails
from jaxscape.table.datasets import bent, decode, from_frame, prepare
from jaxscape.table.settle import _tied, settled

_SIZES = ((2,),)


@given(st.integers(0, 2**32 - 1), st.floats(-9, 9), st.floats(-1e3, 1e3))
def test_another_unit_or_origin_changes_nothing(seed: int, log_unit: float, shift: float) -> None:
    y = np.random.default_rng(seed).standard_t(2, 30)
    unit = float(np.exp(log_unit))
    about_zero, about_median = tails.candidates(y)
    np.testing.assert_allclose(tails.bend(tails.candidates(unit * y)[0], unit * y), tails.bend(about_zero, y))
    moved = tails.candidates(y + shift)[1]
    np.testing.assert_allclose(tails.bend(moved, y + shift), tails.bend(about_median, y), atol=1e-9)


@pytest.mark.parametrize("place", [0, 1])
def test_bent_and_brought_back(place: int) -> None:
    y = 3 + 2 * np.random.default_rng(0).standard_t(2, 200)
    way = tails.candidates(y)[place]
    z = tails.bend(way, y)
    np.testing.assert_allclose(tails.unbend(way, z), y)
    slopes = jax.vmap(jax.grad(lambda value: jnp.arcsinh((value - way.about) / way.unit)))(y)
    np.testing.assert_allclose(tails.log_slopes(way, y), np.log(slopes))


def test_the_mean_is_predicted_and_not_the_value_at_the_mean() -> None:
    rng = np.random.default_rng(0)
    way = tails.Tails(0.0, 5.0)
    left = rng.normal(size=100) - 0.1
    z = rng.normal(size=7)
    expected = [np.mean(5 * np.sinh(each + left)) for each in z]
    np.testing.assert_allclose(tails.unbend(tails.smeared(way, left), z), expected)


def _target(kind: str) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(1)
    x, noise = rng.normal(size=(240, 3)), rng.normal(size=240)
    signal = x[:, 0] + 0.5 * x[:, 1]
    y = {
        "as it is": 10 + signal + noise / 2,
        "curved": np.exp(signal) + noise / 4,  # skewed, but a network says why
        "multiplied": np.exp(signal + noise / 2),
        "far off": 50 + signal + 0.3 * rng.standard_t(1.5, 240),
    }[kind]
    return pd.DataFrame(x, columns=["a", "b", "c"]), y


@pytest.mark.parametrize(("kind", "about"), [("as it is", None), ("curved", None), ("multiplied", 0), ("far off", 50)])
def test_the_evidence_says_when_to_bend(kind: str, about: float | None) -> None:
    x, y = _target(kind)
    dataset = prepare(from_frame(x, y, target="price"))
    with jax.enable_x64(True):
        found = settled(dataset, _SIZES, "tanh", 0)
    assert found.encoding is not None
    assert tails.heavy(dataset.y_train) == (kind != "as it is")
    if about is None:
        assert found is dataset
        return
    assert found.encoding.tails is not None
    assert found.encoding.tails.about == pytest.approx(about, abs=0.5)
    assert any("price has heavy tails: the networks learn asinh(" in note for note in found.notes)
    np.testing.assert_allclose(found.y_train.std(), 1)
    learnt = np.delete(y, np.asarray(found.held_out))
    np.testing.assert_allclose(np.sort(decode(found.encoding, found.y_train)), np.sort(learnt), atol=1e-12)


def test_a_multiplied_quantity_is_predicted_without_bias() -> None:
    x, y = _target("multiplied")
    truth = np.exp(x["a"] + x["b"] / 2 + 0.125).to_numpy()
    predicted = LandscapeRegressor(hidden=[2]).fit(x[:160], y[:160]).predict(x[160:])
    assert predicted.mean() == pytest.approx(truth[160:].mean(), rel=0.15)
    assert np.corrcoef(predicted, truth[160:])[0, 1] > 0.95


def test_most_of_a_count_may_be_zero() -> None:
    """Standardised and brought back, zeros are 1e-17 or so."""
    y = np.random.default_rng(0).poisson(0.3, 500) / 3
    dataset = prepare(from_frame(pd.DataFrame({"a": np.arange(500) % 7}), y), task="regression")
    assert dataset.encoding is not None
    assert tails.candidates(decode(dataset.encoding, dataset.y_train))[0].unit == pytest.approx(1 / 3)


def test_rows_that_share_a_value_are_many_or_none() -> None:
    y = np.append(np.zeros(20), np.arange(1.0, 81.0))
    np.testing.assert_array_equal(_tied(y), y == 0)
    assert not _tied(np.append(np.zeros(9), np.arange(1.0, 92.0))).any()


def test_the_formula_is_one_to_read() -> None:
    assert tails.formula(tails.Tails(0.0, 1611.2), "applications") == "asinh(applications / 1611)"
    assert tails.formula(tails.Tails(-2.5, 0.01234), "gain") == "asinh((gain + 2.5) / 0.0123)"


def test_nothing_is_predicted_beyond_the_training_rows() -> None:
    x = np.linspace(-1, 1, 60)[:, None]
    y = 5 * x[:, 0] + 0.01 * np.sin(40 * x[:, 0])
    found = LandscapeRegressor(hidden=[1]).fit(x[10:50], y[10:50]).predict(x)
    assert found.min() == pytest.approx(y[10:50].min())
    assert found.max() == pytest.approx(y[10:50].max())
    np.testing.assert_allclose(found[15:45], y[15:45], atol=0.1)


def test_classes_are_not_bent() -> None:
    table = from_frame(_target("as it is")[0], np.arange(240) % 2)
    with pytest.raises(ValueError, match="only a quantity"):
        bent(prepare(table), tails.Tails(0.0, 1.0))
