import runpy
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


@pytest.fixture
def as_a_user_has_it():
    jax.config.update("jax_enable_x64", False)
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    yield
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.mark.usefixtures("as_a_user_has_it")
@pytest.mark.filterwarnings("ignore")  # those of the frameworks are theirs
@pytest.mark.parametrize(("package", "script"), [("equinox", "equinox"), ("flax", "flax"), ("torch", "pytorch")])
def test_networks_of_other_frameworks_need_no_more_than_a_loss(package, script, capsys):
    pytest.importorskip(package)
    left = runpy.run_path(str(NOTEBOOKS / f"{script}_network.py"))
    plt.close("all")
    found, loss = left["found"], left["loss"]
    # The same network, whatever it is made with: an exhaustive search found 7 minima.
    np.testing.assert_allclose(found.landscape.minima.energies.min(), 0.08937791, atol=1e-8)
    assert len(found.landscape.minima.energies) == 7
    assert "interchangeable: 2 units, signs free" in capsys.readouterr().out
    lowest = found.minimum(found.group[0])
    assert jax.tree.structure(lowest) == jax.tree.structure(left["params"])
    np.testing.assert_allclose(loss(lowest, (left["x"], left["y"])), 0.08937791, atol=1e-6)
    if script == "pytorch":
        assert float(left["model"](left["torch"].tensor(np.asarray(left["x"])))[1, 0]) > 2


@pytest.mark.usefixtures("as_a_user_has_it")
def test_a_potential_of_ones_own_is_explored(capsys):
    runpy.run_path(str(NOTEBOOKS / "morse_cluster.py"))
    plt.close("all")
    # The Cambridge Cluster Database has -16.207580.
    assert "4 minima from -16.207580" in capsys.readouterr().out
