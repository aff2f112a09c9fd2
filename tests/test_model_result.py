"""One call for a network of one's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxscape as js

X = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], np.float32)
Y = np.array([0, 1, 1, 0], np.float32)


def loss(params, data):
    x, y = data
    z = jnp.tanh(x @ params["inp"] + params["b"]) @ params["out"] + params["c"]
    penalty = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
    return jnp.mean(jnp.logaddexp(0, z) - y * z) + 1e-3 * penalty


@pytest.fixture(scope="module")
def result():
    params = {"inp": np.zeros((2, 2), np.float32), "b": np.zeros(2, np.float32), "out": np.zeros(2), "c": np.zeros(())}
    return js.explain_model(loss, params, (X, Y))


def test_the_landscape_of_xor_is_whole_and_in_the_parameters_that_were_given(result):
    # As brute force has it: benchmarks/oracle.py.
    assert len(result.landscape.minima.energies) == 7
    assert len(result.landscape.transition_states.energies) == 20
    lowest = result.minimum(result.group[0])
    assert jax.tree.map(np.shape, lowest) == {"inp": (2, 2), "b": (2,), "out": (2,), "c": ()}
    value, slope = jax.value_and_grad(loss)(lowest, (X.astype(float), Y.astype(float)))
    assert float(value) == pytest.approx(result.frame()["loss"].iloc[0]) == pytest.approx(0.0893779, abs=1e-6)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(slope)) < 1e-6
    assert result.frame()["in_group"].sum() == len(result.group)


def test_conserved_are_weights_from_the_inputs_and_it_can_be_shown_and_saved(result, tmp_path):
    assert result.mask["inp"].sum() == 1
    assert not any(result.mask[name].any() for name in ("b", "out", "c"))
    assert result.std["inp"].shape == result.mean["inp"].shape == (2, 2)
    assert "7 minima in 1 part, 20 transition states" in repr(result)
    assert "<svg" in result._repr_html_()
    result.save(tmp_path / "xor.npz")
    assert len(js.database.load(tmp_path / "xor.npz").minima.energies) == 7


def test_where_there_is_no_minimum_it_says_so():
    with pytest.warns(UserWarning, match="no minimum"), pytest.raises(ValueError, match="no minimum was found"):
        js.explain_model(lambda params, _: 0.0 * params["x"] ** 2, {"x": np.ones(2)[0]}, seconds=1.0)
