"""The device and the cores of the machine, and work on them in threads."""

import concurrent.futures
import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from threadpoolctl import ThreadpoolController

_J = TypeVar("_J")
_R = TypeVar("_R")
_used = 1
_limit, _limit_lock, _limited_by = ExitStack(), threading.Lock(), 0


def num_cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def for_thread(function: Callable[..., _R]) -> Callable[..., _R]:
    """Return the function for another thread, which does not inherit JAX's scoped float64 switch by itself."""
    double = bool(jax.dtypes.canonicalize_dtype(np.float64) == np.float64)

    @functools.wraps(function)
    def run(*args: object, **options: object) -> _R:
        with jax.enable_x64(double):
            return function(*args, **options)

    return run


def on_device(array: Any, dtype: Any = None) -> jax.Array:
    """Return an array of JAX, as `jnp.asarray` does, which compiles a program for every shape of NumPy's (JAX 0.10)."""
    if isinstance(array, jax.Array) or np.ndim(array) == 0:
        return jnp.asarray(array, dtype)
    return jax.device_put(np.asarray(array, dtype))


def use_all_cores(number: int | None = None) -> int:
    """Let explorations in this process work on several cores at once, from now on; they find the same landscape.

    The command and `js.explain` do so by themselves; a library function does not unless it is told to, since what
    calls it may have other plans for the cores. Where the worker processes of `explore_on` fill the cores it gains
    nothing.

    Args:
        number: of cores; all that the process may use by default.

    Returns:
        the number of cores in use.

    Raises:
        ValueError: if the number is below 1.
    """
    global _used
    if number is not None and number < 1:
        raise ValueError(f"number of cores must be at least 1, got {number}")
    _used = num_cores() if number is None else number
    return _used


@contextmanager
def all_cores() -> Iterator[None]:
    """Use all cores for a while."""
    before = cores_in_use()
    use_all_cores()
    try:
        yield
    finally:
        use_all_cores(before)


def cores_in_use() -> int:
    """Return how many cores an exploration works on: one, unless `use_all_cores` was called."""
    return _used


def spread(function: Callable[[_J], _R], jobs: Sequence[_J]) -> list[_R]:
    """Call the function on each job, on as many cores at once as are in use; return the results in the same order."""
    if min(len(jobs), _used) == 1:
        return [function(job) for job in jobs]
    with concurrent.futures.ThreadPoolExecutor(_used) as pool:
        return list(pool.map(for_thread(function), jobs))


def padded(run: Callable[..., Any], batch: int, *rows: Any) -> Any:
    """Call a compiled `run(*rows, count=)` on batches of one shape, so that it is compiled once; NumPy out.

    The rows are dealt out to all cores in use, in turn, so that each has its share of those of one kind.
    """
    n = len(jax.tree.leaves(rows)[0])
    num_parts = max(-(-n // batch), min(n, cores_in_use()), 1)

    def part(first: int) -> Any:
        count = len(range(first, n, num_parts))

        def fill(leaf: np.ndarray) -> jax.Array:
            filled = np.zeros((batch, *leaf.shape[1:]), leaf.dtype)
            filled[:count] = leaf[first::num_parts]
            return on_device(filled)

        return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], run(*jax.tree.map(fill, rows), count=count))

    def in_order(*leaves: np.ndarray) -> np.ndarray:
        gathered = np.empty((n, *leaves[0].shape[1:]), leaves[0].dtype)
        for first, leaf in enumerate(leaves):
            gathered[first::num_parts] = leaf
        return gathered

    return jax.tree.map(in_order, *spread(part, range(num_parts)))


@functools.cache
def _libraries() -> ThreadpoolController:
    """Look for BLAS once, which takes three milliseconds."""
    return ThreadpoolController()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let BLAS and LAPACK run in the thread that calls them.

    Theirs wait for each other on matrices as small as these, and keep a core from the searches that run beside: a
    Hessian of 161 weights was diagonalised in half the time. The limit is the whole process's, so that the last of
    those who ask for it lifts it.
    """
    global _limited_by
    with _limit_lock:
        if _limited_by == 0:
            _limit.enter_context(_libraries().limit(limits=1, user_api="blas"))
        _limited_by += 1
    try:
        yield
    finally:
        with _limit_lock:
            _limited_by -= 1
            if _limited_by == 0:
                _limit.close()
