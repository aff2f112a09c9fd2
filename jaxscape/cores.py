"""The cores of the machine, and work on them in threads."""

import functools
import os
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np

_R = TypeVar("_R")


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
