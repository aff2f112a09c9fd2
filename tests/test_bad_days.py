"""What goes wrong in practice ends in a status, an error or a whole file, in bounded time."""

import errno
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxscape import Budget, ExploreConfig, Status, Symmetry, database, explore, from_loss, quench
from jaxscape.landscape import ledger
from jaxscape.search.lbfgs import LbfgsConfig

CONFIG = ExploreConfig(hopping_steps=400, num_searches=4)


def explored(loss, dim=3, rounds=6):
    starts = jax.random.normal(jax.random.key(0), (4, dim))
    problem = from_loss(loss, jnp.zeros(dim))
    return explore(problem, Symmetry((), dim=dim), starts, jax.random.key(1), CONFIG, budget=Budget(rounds=rounds))


def test_a_loss_that_is_nan_everywhere_is_reported():
    with pytest.warns(UserWarning, match="not finite"):
        found = explored(lambda x, _: jnp.sum(x) * jnp.nan)
    assert ledger.to_names(found.ledger)["hops"].keys() == {"NONFINITE"}
    assert len(found.minima.energies) == 0


def test_the_part_of_the_domain_where_a_loss_is_nan_is_avoided():
    # log of a negative number on one side of the well.
    found = explored(lambda x, _: jnp.sum(x**2 - jnp.log(x[0] + 0.5)), rounds=2)
    np.testing.assert_allclose(found.minima.positions[0, 1:], 0, atol=1e-9)
    assert np.isfinite(found.minima.energies).all()
    assert len(found.minima.energies) == 1
    assert "NONFINITE" in ledger.to_names(found.ledger)["hops"]


def test_a_loss_without_a_floor_runs_out_of_evaluations():
    problem = from_loss(lambda x, _: jnp.sum(x), jnp.zeros(2))
    ends = quench(problem, jnp.zeros((3, 2)), LbfgsConfig(max_evaluations=50))
    assert np.all(ends.status == Status.MAX_EVALUATIONS)


def test_kinks_end_in_a_status():
    x = jax.random.normal(jax.random.key(3), (30, 2))

    def loss(w, _):
        hidden = jax.nn.relu(x @ w[:6].reshape(2, 3))
        return jnp.mean((hidden @ w[6:] - jnp.abs(x[:, 0])) ** 2) + 1e-3 * jnp.sum(w**2)

    ends = quench(from_loss(loss, jnp.zeros(9)), jax.random.normal(jax.random.key(4), (8, 9)))
    assert set(np.asarray(ends.status).tolist()) <= {Status.CONVERGED, Status.STALLED, Status.MAX_EVALUATIONS}
    assert np.all(np.isfinite(ends.energy))


def small_landscape(seed):
    found = database.empty(Symmetry((), dim=2000))
    rng, ones = np.random.default_rng(seed), np.ones(200, int)
    x = rng.normal(size=(200, 2000))
    minima = type(found.minima)(x, rng.normal(size=200), 1.0 * ones, x, 0.0 * ones, 0.0 * ones, ones, ones)
    return found._replace(minima=minima, ledger=ledger.spend(ledger.empty(), seed))


def test_a_full_disk_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    database.save(path, small_landscape(1))

    def fill(file, **arrays):
        file.write(b"PK half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", fill)
    with pytest.raises(OSError, match="No space left"):
        database.save(path, small_landscape(2))
    assert database.load(path).ledger.evaluations == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


WRITER = """
import sys, numpy as np
sys.path.insert(0, {tests!r})
from test_bad_days import small_landscape
from jaxscape import database
landscape = small_landscape({seed})
print("ready", flush=True)
while True:
    database.save({path!r}, landscape)
"""


def test_two_writers_killed_at_any_moment_leave_a_whole_file(tmp_path):
    path = tmp_path / "a.npz"
    database.save(path, small_landscape(0))
    for _ in range(2):
        code = [
            WRITER.format(tests=os.path.dirname(__file__), seed=seed, path=str(path))  # noqa: PTH120
            for seed in (1, 2)
        ]
        writers = [subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE) for text in code]
        for writer in writers:
            assert writer.stdout.readline() == b"ready\n"
        seen = set()
        for _ in range(20):
            seen.add(database.load(path).ledger.evaluations)
            time.sleep(0.01)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            writer.stdout.close()
        assert database.load(path).ledger.evaluations in {1, 2}
        assert seen <= {0, 1, 2}


@pytest.mark.parametrize(
    ("program", "expected"),
    [("-m", "SIG_DFL"), ("/bin/jaxscape", "SIG_DFL"), ("/home/jaxscape/mine.py", "default_int_handler")],
)
def test_only_the_command_may_be_stopped_while_it_is_imported_without_a_traceback(program, expected):
    code = f"import signal, sys; sys.argv = [{program!r}]; sys.orig_argv = ['python', {program!r}, 'jaxscape']"
    code += "; signal.signal(2, signal.default_int_handler)"
    code += "; import jaxscape; print(repr(signal.getsignal(2)))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert expected in said
