import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from threadpoolctl import threadpool_info

from jaxscape import cores
from jaxscape.search import factor


@pytest.fixture
def three_cores():
    before = cores.cores_in_use()
    assert cores.use_all_cores(3) == 3
    yield
    cores.use_all_cores(before)


def blas_threads():
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.usefixtures("three_cores")
def test_jobs_run_at_once_and_come_back_in_order():
    together = threading.Barrier(3)

    def job(i):
        together.wait(timeout=30)  # broken, unless three are here at once
        time.sleep(0.01 * (3 - i % 3))
        return i * i, jax.dtypes.canonicalize_dtype(np.float64)

    assert cores.spread(job, range(6)) == [(i * i, np.dtype(np.float64)) for i in range(6)]


@pytest.mark.usefixtures("three_cores")
@pytest.mark.parametrize("number", [0, 1, 2, 3, 7, 12, 16])
def test_rows_are_dealt_out_and_come_back_in_order(number):
    counts = []

    def run(rows, count):
        counts.append(count)
        return {"square": rows**2, "row": jnp.arange(len(rows))}

    found = cores.padded(run, 4, np.arange(number, dtype=float)[:, None])
    np.testing.assert_array_equal(found["square"][:, 0], np.arange(number) ** 2)
    assert found["row"].shape == (number,)
    assert sum(counts) == number
    assert max(counts) - min(counts) <= 1


def test_all_cores_are_used_for_a_while():
    before = cores.cores_in_use()
    with cores.all_cores():
        assert cores.cores_in_use() == cores.num_cores()
    assert cores.cores_in_use() == before
    with pytest.raises(ValueError, match="at least 1, got 0"):
        cores.use_all_cores(0)


def test_the_last_one_lifts_the_limit_on_blas():
    usual = blas_threads()
    with cores.one_blas_thread():
        with cores.one_blas_thread():
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert blas_threads() == usual


def test_factors_of_many_matrices_one_by_one():
    matrices = np.random.default_rng(0).normal(size=(8, 20, 20))
    matrices = matrices @ matrices.transpose(0, 2, 1) + np.eye(20)
    both = jax.jit(lambda batch: (jax.vmap(factor.eigh)(batch), jax.vmap(factor.cholesky)(batch)))
    (values, vectors), roots = both(jnp.asarray(matrices))
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrices), rtol=1e-12)
    np.testing.assert_allclose(jnp.einsum("bij,bj,bkj->bik", vectors, values, vectors), matrices, atol=1e-12)
    np.testing.assert_allclose(roots, np.linalg.cholesky(matrices), rtol=1e-12)
    assert np.any(np.isnan(factor.cholesky(-jnp.eye(3))))
