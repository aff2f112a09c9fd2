"""Independent explorations of one landscape on any executor: the cores of a machine, Dask, MPI, Slurm.

A shard is a pure function of its number: its starts are every so many-th row, its key is the key folded with the
number. The landscapes are merged in the order of the shards, whichever ends first. In a script of your own,

```python
import functools
import jax
import jaxscape as js

make = functools.partial(js.surfaces.checkerboard, 4)  # a function of a module, which workers import
key, starts = jax.random.key(0), 2 * jax.random.normal(jax.random.key(1), (64, 17))

if __name__ == "__main__":
    executor = None  # a process on each core of this machine
    landscape = js.explore_on(executor, make, starts, key, shards=16, on_shard=lambda i, found: print(i))
    js.database.save("landscape.npz", landscape)
```

`executor` may be, on a cluster of Dask (the extra `distributed`; a worker that dies is replaced, its shard done again),

```python
from dask.distributed import Client

executor = Client("tcp://scheduler:8786").get_executor()
```

under MPI, where `mpiexec -n 17 python -m mpi4py.futures script.py` has 16 workers,

```python
from mpi4py.futures import MPIPoolExecutor

executor = MPIPoolExecutor()
```

on a machine with Slurm, where each shard becomes a job,

```python
import submitit

executor = submitit.AutoExecutor(folder="jobs")
executor.update_parameters(timeout_min=120, cpus_per_task=4, mem_gb=8, slurm_partition="cpu")
```
"""

import functools
import multiprocessing
import pickle
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jaxscape import programs
from jaxscape.cores import num_cores, use_all_cores
from jaxscape.landscape import database
from jaxscape.landscape.config import ExploreConfig
from jaxscape.landscape.database import Landscape
from jaxscape.landscape.doubts import empty_because
from jaxscape.landscape.explore import explore
from jaxscape.landscape.stopping import DEFAULT_BUDGET, Budget
from jaxscape.objective import Objective
from jaxscape.symmetry import Symmetry

_SECONDS_BETWEEN_LOOKS = 0.05


@runtime_checkable
class Call(Protocol):
    """A call under way: a `concurrent.futures.Future`, or a job of submitit."""

    def done(self) -> bool: ...
    def result(self) -> Any: ...
    def cancel(self) -> Any: ...


@runtime_checkable
class Submits(Protocol):
    """What makes calls elsewhere: a `concurrent.futures.Executor`, or that of submitit."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Call: ...


def explore_on(
    executor: Submits | None,
    make: Callable[[], tuple[Objective, Symmetry]],
    starts: Float[Array | np.ndarray, "B P"],
    key: PRNGKeyArray,
    config: ExploreConfig = ExploreConfig(),
    *,
    shards: int,
    budget: Budget = DEFAULT_BUDGET,
    on_shard: Callable[[int, Landscape], None] | None = None,
) -> Landscape:
    """Explore a landscape by independent explorations on the workers of an executor, and merge what they find.

    Args:
        executor: any `concurrent.futures.Executor`, or what has such a `submit`; it stays open. None for a process on
            each core of this machine: a script must then do its work below `if __name__ == "__main__":`.
        make: makes the objective and its symmetry in the worker, in float64, the same ones each time. It is pickled: a
            function of a module, or a `functools.partial` of one with NumPy arrays.
        starts: where the basin-hopping walkers set out, one per row; shard i takes the rows i, i + shards, ...
        key: a JAX random key; shard i explores with `jax.random.fold_in(key, i)`.
        config: settings of each exploration.
        shards: how many explorations; the landscape depends on it, not on the executor or the number of its workers.
        budget: limits of each exploration.
        on_shard: called in the caller's thread with the number of a shard and its landscape as soon as it is there, for
            progress, and to keep what there is.

    Returns:
        The merged database: ids in the order of the shards; visits, searches and ledgers add up. A warning says why, if
        it is empty.

    Raises:
        ValueError: if `shards` is below 1 or above the number of starts, or if `make` is a partial with JAX arrays.
        RuntimeError: if a shard fails: which, why, and what to do. Those that have not begun are cancelled.
    """
    if not 1 <= shards <= len(starts):
        raise ValueError(f"shards must be from 1 to the number of starts, {len(starts)}, got {shards}")
    if isinstance(make, functools.partial) and any(
        isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((make.args, make.keywords))
    ):
        raise ValueError("make holds JAX arrays, which a worker receives in float32: give it NumPy arrays")
    if executor is None:
        with processes(min(shards, num_cores())) as pool:
            return explore_on(pool, make, starts, key, config, shards=shards, budget=budget, on_shard=on_shard)
    rows, settings = np.asarray(starts, np.float64), pickle.dumps((config, budget))
    calls: dict[int, Call] = {}
    found: dict[int, Landscape] = {}
    try:
        for shard in range(shards):
            subkey = jax.random.fold_in(key, shard)
            calls[shard] = executor.submit(_explore_shard, make, rows[shard::shards], subkey, settings)
        for shard in _as_done(calls):
            found[shard] = _landscape_of(calls[shard], f"shard {shard} of {shards}")
            if on_shard is not None:
                on_shard(shard, found[shard])
    finally:
        for call in calls.values():
            call.cancel()
    merged = found[0]
    for shard in range(1, shards):
        if not database.same_symmetry(merged.symmetry, found[shard].symmetry):
            raise RuntimeError(f"make gave shard {shard} another symmetry than shard 0: it must give the same problem")
        merged = database.merge(merged, found[shard])
    if (doubt := empty_because(merged)) is not None:
        warnings.warn(f"no minimum was found: {doubt}", stacklevel=2)
    return merged


@contextmanager
def processes(number: int) -> Iterator[ProcessPoolExecutor]:
    """Give worker processes that share the cores and the kept programs; they end at once if this one is interrupted."""
    others = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")  # Never forked: JAX has threads.
    share = max(num_cores() // number, 1)
    with ProcessPoolExecutor(number, spawn, _set_up, (share, programs.kept_in())) as pool:
        try:
            yield pool
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


def _set_up(cores: int, folder: Path | None) -> None:
    use_all_cores(cores)
    programs.keep_in(folder)


def _explore_shard(
    make: Callable[[], tuple[Objective, Symmetry]], starts: Float[np.ndarray, "B P"], key: PRNGKeyArray, settings: bytes
) -> Landscape:
    """Explore one shard, in a worker; JAX arrays among the settings keep their digits, as they are read in float64."""
    with jax.enable_x64(True):
        config, budget = pickle.loads(settings)
        objective, symmetry = make()
        return explore(objective, symmetry, jnp.asarray(starts), key, config, budget=budget)


def _as_done(calls: Mapping[int, Call]) -> Iterator[int]:
    """Give the numbers of the calls as they end; submitit's jobs have no way to wait for the first."""
    left = list(calls)
    while left:
        for number in [number for number in left if calls[number].done()]:
            left.remove(number)
            yield number
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _landscape_of(call: Call, name: str) -> Landscape:
    try:
        return call.result()
    except CancelledError as error:
        raise RuntimeError(f"{name} was cancelled before it ended: is the executor shut down?") from error
    except BrokenExecutor as error:
        raise RuntimeError(
            f"{name} is lost, as a worker died: killed, out of memory, or before it began, because the script does "
            'its work outside `if __name__ == "__main__":`'
        ) from error
    except Exception as error:
        raise RuntimeError(f"{name} failed: {type(error).__name__}: {error}") from error
